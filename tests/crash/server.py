"""A process that has imported all that ncflow needs and forks one for each trial: a run then takes a blink.

Nothing has run in it, so each of its children starts as a new process would; only the imports are behind it. It reads
a trial a line from its standard input, as JSON, and answers in a line: when it has ended, or, if the trial has no
timeout, at once with the process, after whose end it is asked.
"""

import atexit
import gc
import importlib
import json
import os
import select
import signal
import sys
import traceback
from contextlib import suppress
from typing import Any

from tests.crash.faults import Disk, Fault


def _child(trial: dict[str, Any]) -> None:
    """Be ``ncflow`` with these arguments; never returns."""
    code = 70
    try:
        os.setsid()
        for number, name in ((1, "stdout"), (2, "stderr")):
            descriptor = os.open(os.path.join(trial["notes"], name), os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
            os.dup2(descriptor, number)
            os.close(descriptor)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.chdir(trial["cwd"])
        _set_environment(trial["environment"])
        sys.argv = ["ncflow", *trial["arguments"]]
        fault = trial["fault"] and Fault.parse(trial["fault"])
        disk = Disk(trial["root"], fault, os.path.join(trial["notes"], "hit"))
        disk.watch()
        signal.signal(signal.SIGINT, signal.default_int_handler)  # of which what a shell has in the background is deaf
        code = _call_main(trial.get("program"))
        with open(os.path.join(trial["notes"], "events"), "w") as file:
            file.write("\n".join(disk.events))
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def _set_environment(given: dict[str, str]) -> None:
    """As a new process would have it: modules are looked for where it says first, also by what the child starts."""
    if "PYTHONPATH" in given:
        path = given["PYTHONPATH"].split(os.pathsep)
        sys.path[:0] = path
        given = {**given, "PYTHONPATH": os.pathsep.join([*path, os.environ["PYTHONPATH"]])}
    os.environ.update(given)


def _call_main(program: str | None = None) -> int:
    """The exit code, as Python finds it, of ``ncflow`` or of another program."""
    from ncflow.cli.train import main

    code = 0
    try:
        if program is None:
            main()
        else:
            exec(program, {"__name__": "__main__"})
    except SystemExit as stop:
        if isinstance(stop.code, int):
            code = stop.code
        elif stop.code is not None:
            print(stop.code, file=sys.stderr)
            code = 1
    except BaseException:
        traceback.print_exc()
        code = 1
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    return code


def _answer(trial: dict[str, Any]) -> dict[str, Any]:
    if "look" in trial:
        process, status = os.waitpid(trial["look"], os.WNOHANG)
        return {"code": os.waitstatus_to_exitcode(status) if process else None}
    process = os.fork()
    if process == 0:
        _child(trial)
    return {"process": process} if trial["timeout"] is None else _ended(process, trial)


def _ended(process: int, trial: dict[str, Any]) -> dict[str, Any]:
    watched = os.pidfd_open(process)
    ended = bool(select.select([watched], [], [], trial["timeout"])[0])
    os.close(watched)
    if not ended:
        with suppress(ProcessLookupError):
            os.killpg(process, signal.SIGKILL)
    _, status, used = os.wait4(process, 0)
    with suppress(ProcessLookupError):  # what it started and left behind
        os.killpg(process, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(status)
    return {"code": code, "stuck": not ended, "seconds": used.ru_utime + used.ru_stime}


def _warm_up(trial: dict[str, Any]) -> None:
    """Import what a run imports, of which a run in a child leaves the list."""
    process = os.fork()
    if process == 0:
        known = set(sys.modules)
        descriptor = os.open(os.devnull, os.O_WRONLY)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        os.chdir(trial["cwd"])
        sys.argv = ["ncflow", *trial["arguments"]]
        _call_main()
        with open(os.path.join(trial["notes"], "modules"), "w") as file:
            file.write("\n".join(name for name in sys.modules if name not in known))
        os._exit(0)
    os.waitpid(process, 0)
    with open(os.path.join(trial["notes"], "modules")) as file:
        for name in file.read().splitlines():
            with suppress(Exception):  # some are made, not imported
                importlib.import_module(name)


def main() -> None:
    """Warm up with the first trial, then fork for the others."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what an import prints is no answer
    import torch
    from hydra.core.plugins import Plugins

    import ncflow.cli.train  # noqa: F401

    torch.set_num_threads(1)
    trials = (json.loads(line) for line in sys.stdin)
    _warm_up(next(trials))
    Plugins.instance()  # the list of Hydra's plugins, which is the same in every process
    gc.freeze()  # what is imported is not garbage; collections in the children need not look at it again
    print("{}", file=answers, flush=True)
    for trial in trials:
        print(json.dumps(_answer(trial)), file=answers, flush=True)


if __name__ == "__main__":
    main()
