"""Runs of ``ncflow`` for tests, forked from a warm process."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.conftest import environment
from tests.crash.faults import VARIABLE, Fault

ROOT = Path(__file__).parents[2]
SMALL = [
    *("epochs=4", "measure.every_n_epochs=2", "batch_size=32", "model.width=8", "model.depth=3"),
    *("data.num_samples=60", "data.num_test=20", "trainer=cpu"),
]
_HOOK = "from tests.crash.faults import arm_from_environment\n\narm_from_environment()\n"


@dataclass(frozen=True)
class Finished:
    """How a run ended.

    Attributes:
        code: Its exit code; negative: the signal that ended it.
        killed: Whether its fault, a kill, was what ended it.
        stuck: Whether it was killed because its time was over.
        events: What it did to files, in order; empty where it was killed.
        hit: The event at which its fault came, empty where it never came.
        seconds: Of a processor.
    """

    code: int
    stdout: str
    stderr: str
    killed: bool
    stuck: bool
    events: list[str]
    hit: str
    seconds: float

    @property
    def is_noisy(self) -> bool:
        """Whether it says more than its user needs."""
        return "Traceback" in self.stderr or len(self.stderr.splitlines()) > 3


class Started:
    """A run that is going on, with what tests need of :class:`subprocess.Popen`.

    Args:
        pid: Its process, which leads a group.
        notes: Where its output is.
        ask: Asks its parent.
    """

    def __init__(self, pid: int, notes: Path, ask: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        self.pid, self.returncode = pid, None
        self.stdout, self.stderr = ((notes / name).open(errors="replace") for name in _made(notes))
        self._ask = ask

    def poll(self) -> int | None:
        """Its exit code, None before its end."""
        if self.returncode is None:
            self.returncode = self._ask({"look": self.pid})["code"]
        return self.returncode

    def wait(self, timeout: float = 120) -> int:
        """Its exit code, once it has ended."""
        end = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired("ncflow", timeout)
            time.sleep(0.01)
        return code

    def communicate(self, timeout: float = 120) -> tuple[str, str]:
        """What it said until its end."""
        self.wait(timeout)
        return self.stdout.read(), self.stderr.read()

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill it."""
        self.send_signal(signal.SIGKILL)


def _made(notes: Path) -> tuple[str, str]:
    """The names of the files of its output, which are there before it is."""
    names = "stdout", "stderr"
    for name in names:
        (notes / name).touch()
    return names


class Ncflow:
    """Runs ``ncflow``; to be closed."""

    def __init__(self) -> None:
        self._place = Path(os.path.realpath(tempfile.mkdtemp(prefix="ncflow-crash-")))
        path = os.pathsep.join([str(ROOT), str(ROOT / "ncflow/sweeps/plugin"), os.environ.get("PYTHONPATH", "")])
        self._environment = {**environment({"PYTHONPATH": path})}
        self._server: Any = None

    def close(self) -> None:
        """End the warm process."""
        if self._server is not None:
            self._server.stdin.close()
            self._server.wait()
        shutil.rmtree(self._place, ignore_errors=True)

    def __enter__(self) -> "Ncflow":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def run(
        self,
        arguments: Sequence[str],
        cwd: Path,
        fault: Fault | None = None,
        timeout: float = 60,
        environment: Mapping[str, str] | None = None,
        program: str | None = None,
    ) -> Finished:
        """Run it in a folder, with a fault at an event below this folder; or a program of one's own in its place."""
        notes = self._notes()
        more = {"environment": environment or {}, "fault": fault and str(fault), "timeout": timeout, "program": program}
        answer = self._ask({**self._trial(arguments, cwd, notes), **more})
        return _finished(answer["code"], answer["stuck"], answer["seconds"], notes, fault)

    def start(
        self,
        arguments: Sequence[str],
        cwd: Path,
        environment: Mapping[str, str] | None = None,
        program: str | None = None,
    ) -> "Started":
        """Start it in a folder; or a program of one's own in its place."""
        notes = self._notes()
        more = {"environment": environment or {}, "fault": None, "timeout": None, "program": program}
        return Started(self._ask({**self._trial(arguments, cwd, notes), **more})["process"], notes, self._ask)

    def run_process(
        self, arguments: Sequence[str], cwd: Path, fault: Fault | None = None, timeout: float = 120
    ) -> Finished:
        """Run it as a process of its own, slowly; the fault is for one of the processes that it starts."""
        notes = self._notes()
        hook = self._place / "hook"
        hook.mkdir(exist_ok=True)
        (hook / "sitecustomize.py").write_text(_HOOK)
        extra = {"PYTHONPATH": f"{hook}{os.pathsep}{self._environment['PYTHONPATH']}"}
        if fault is not None:
            extra[VARIABLE] = f"{fault}|{cwd}|{notes}"
        stuck, code = False, -9
        with (notes / "stdout").open("w") as stdout, (notes / "stderr").open("w") as stderr:
            command = [sys.executable, "-m", "ncflow", *arguments]
            process = subprocess.Popen(
                command,
                cwd=cwd,
                env={**self._environment, **extra},
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
            )
            try:
                code = process.wait(timeout)
            except subprocess.TimeoutExpired:
                stuck = True
            with suppress(ProcessLookupError):
                os.killpg(process.pid, 9)
            process.wait()
        return _finished(code, stuck, 0.0, notes, None)

    def _start(self) -> None:
        command = [sys.executable, "-m", "tests.crash.server"]
        pipe = subprocess.PIPE
        self._server = subprocess.Popen(
            command, cwd=ROOT, env=self._environment, stdin=pipe, stdout=pipe, text=True, bufsize=1
        )
        folder = self._place / "warm"
        folder.mkdir()
        grid = ["-m", "hydra/launcher=stacked", "seed=0,1", "measure.margins=null"]
        self._ask(self._trial([*grid, *SMALL], folder, self._notes()))

    def _trial(self, arguments: Sequence[str], cwd: Path, notes: Path) -> dict[str, Any]:
        return {"arguments": list(arguments), "cwd": str(cwd), "notes": str(notes), "root": str(cwd)}

    def _ask(self, trial: dict[str, Any]) -> dict[str, Any]:
        if self._server is None:
            self._start()
        self._server.stdin.write(json.dumps(trial) + "\n")
        self._server.stdin.flush()
        line = self._server.stdout.readline()
        assert line, "the warm process has ended"
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _notes(self) -> Path:
        return Path(tempfile.mkdtemp(dir=self._place))


def _finished(code: int, stuck: bool, seconds: float, notes: Path, fault: Fault | None) -> Finished:
    def text(name: str) -> str:
        file = notes / name
        return file.read_text(errors="replace") if file.exists() else ""

    hit = text("hit").strip()
    killed = code == -9 and not stuck and bool(hit)
    finished = Finished(code, text("stdout"), text("stderr"), killed, stuck, text("events").splitlines(), hit, seconds)
    shutil.rmtree(notes, ignore_errors=True)
    return finished
