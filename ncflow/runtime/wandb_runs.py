"""The W&B runs of this process: started, ended, and kept offline where W&B's server does not take them."""

import atexit
import logging
import math
import os
import secrets
import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ncflow.checks import error_line
from ncflow.results import JOB, LOG, read_json, write_json
from ncflow.runtime.wandb_server import import_wandb, server_problem

log = logging.getLogger(__name__)

IDENTITY = "wandb.json"

_ONLINE = ("online", "run", "shared")
# A server that starts no run costs a process the first once, one that goes away the second.
_START_SECONDS, _FINISH_SECONDS = 20.0, 30.0
_TAG_LENGTH = 64  # W&B refuses a run with a longer one

# Of this process: W&B's mode, once it is known; how many runs are open; whether one could not be sent in time.
_process = SimpleNamespace(mode=None, runs=0, late=False)


def under_agent() -> bool:
    """Whether a ``wandb agent`` started this process for a run of its sweep."""
    return bool(os.environ.get("WANDB_SWEEP_ID") and os.environ.get("WANDB_RUN_ID"))


def identity_of(folder: Path) -> tuple[str, bool]:
    """The id of a folder's W&B run, and whether that run was started before; a ``wandb agent`` brings its own id."""
    known = (read_json(folder / IDENTITY) or {}).get("id")
    wanted = os.environ["WANDB_RUN_ID"] if under_agent() else known or secrets.token_hex(6)
    if wanted != known:
        write_json(folder / IDENTITY, {"id": wanted})
    return wanted, wanted == known


def whereabouts(folder: Path) -> dict[str, str]:
    """Where an attempt at a run is at work and where it writes, for W&B alone: a run is not known by it.

    Args:
        folder: The run's folder.

    Returns:
        ``where.folder``, ``where.host`` and ``where.log``; in a job of SLURM its id, as ``where.job``, and, where
        ncflow submitted it, its log, as ``where.job_log``.
    """
    path = folder.absolute()
    found = {"where.folder": str(path), "where.host": socket.gethostname(), "where.log": str(path / LOG)}
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    job = f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID")
    if not job:
        return found
    submitted = read_json(folder / JOB) or {}
    log = {"where.job_log": str(submitted["log"])} if submitted.get("job") == job and submitted.get("log") else {}
    return {**found, "where.job": job, **log}


def mode_of_process() -> str:
    """W&B's mode for the runs of this process; whether its server answers is asked once."""
    if _process.mode is None:
        _process.mode = os.environ.get("WANDB_MODE") or "online"
        if _process.mode in _ONLINE:
            problem = server_problem()
            if problem is not None:
                _go_offline(problem)
    return _process.mode


def _go_offline(why: str) -> None:
    _process.mode = "offline"
    log.info("W&B: %s, so runs are kept offline in their folders; `ncflow-sync` sends them later", why)


def start_run(
    folder: Path, described: Mapping[str, Any], project: str, entity: str | None, identity: str, resumed: bool = False
) -> Any:
    """Open a W&B run; offline if the server does not start it, and then so are all that this process opens later.

    Args:
        folder: The run's folder; W&B writes into its ``wandb/``.
        described: The run's flat description; ``name`` names it, ``experiment`` is its group, all is its config,
            beside :func:`whereabouts`.
        project: W&B project.
        entity: W&B entity; None or empty takes the account's own.
        identity: The W&B run's id.
        resumed: Whether a run of this id was started before.

    Raises:
        Exception: Any of W&B's, if there can be no run.
    """
    wandb = import_wandb()
    limits = {"init_timeout": _START_SECONDS, "finish_timeout": _FINISH_SECONDS}
    limits = {name: seconds for name, seconds in limits.items() if f"WANDB_{name.upper()}" not in os.environ}
    # W&B takes these from the agent, and complains of any others.
    place = {} if under_agent() else {"id": identity, "project": project, "entity": entity or None}
    options = {
        **place,
        "name": described["name"],
        "group": described["experiment"],
        "tags": _tags(described),
        "dir": str(folder),
        # `wandb sync` adds the rows of a run that says so to those that the server has, and replaces them by another's.
        "resume": "allow" if resumed else None,
        # Without this, a second run in the same process goes on writing into the first.
        "reinit": "create_new",
        "config": {**described, **whereabouts(folder)},
        "settings": wandb.Settings(
            finish_timeout_raises=True,
            max_end_of_run_history_metrics=0,  # a page of text at the end of every run
            max_end_of_run_summary_metrics=0,
            **limits,
        ),
    }
    mode = mode_of_process()
    try:
        run = wandb.init(mode=mode, **options)
    except Exception as error:
        if mode not in _ONLINE:
            raise
        _go_offline(f"no run could be started ({error_line(error, named=True)})")
        if _process.runs:
            raise
        _service_ender()()  # it holds on to the id of the run that could not be started; it would end other runs
        run = wandb.init(mode="offline", **options)
    _process.runs += 1
    run.define_metric("epoch")
    run.define_metric("*", step_metric="epoch")
    return run


def finish_run(run: Any, summary: Mapping[str, Any], failed: bool = False) -> None:
    """End a W&B run, at latest when W&B has had half a minute to send what is left.

    Args:
        run: The W&B run.
        summary: Its final row; what is not finite stays as logged.
        failed: Whether it is to count as failed.
    """
    # W&B would turn what is not finite into null, whereas the rows have it as it is.
    run.summary.update({k: v for k, v in summary.items() if not isinstance(v, float) or math.isfinite(v)})
    _process.runs -= 1
    if _process.late and not run.offline:
        # The other runs that are open wait together, at latest at the end of the process, rather than in turn.
        threading.Thread(target=_end_unseen, args=(run, failed), daemon=True).start()
        _tell_unsent(run)
        return
    try:
        run.finish(exit_code=int(failed))
    except TimeoutError:
        if not _process.late:
            atexit.register(_service_ender())  # W&B's own process goes on trying to send
        _process.late = True
        _tell_unsent(run)


def _service_ender() -> Callable[[], None]:
    """What ends W&B's own process, and waits half a minute for it; what is left of it ends with this process.

    W&B itself would wait without end. The thread is started here, as none can be at the end of a process.
    """
    asked = threading.Event()

    def end() -> None:
        asked.wait()
        # If that process is gone or fails, W&B raises, or even asks this process to exit.
        with suppress(Exception, SystemExit):
            import_wandb().teardown()

    def ask() -> None:
        asked.set()
        ending.join(_FINISH_SECONDS)

    ending = threading.Thread(target=end, daemon=True)
    ending.start()
    return ask


def _end_unseen(run: Any, failed: bool) -> None:
    with suppress(Exception):
        run.finish(exit_code=int(failed))


def _tell_unsent(run: Any) -> None:
    remedy = f"`wandb sync --include-online {run.settings.sync_dir}` does it later"
    _go_offline(f"not all of a run could be sent in time ({remedy})")


def _tags(described: Mapping[str, Any]) -> list[str]:
    """Experiment, model, data and norm, for example ``quickstart``, ``mlp4``, ``conic_hull``, ``norm=last``."""
    network, depth = described.get("model.name"), described.get("model.depth")
    if network is not None and depth is not None and not str(network).endswith(str(depth)):
        network = f"{network}{depth}"
    norm = described.get("model.norm")
    found = [described.get("experiment"), network, described.get("data.name"), None if norm is None else f"norm={norm}"]
    return list(dict.fromkeys(str(tag)[:_TAG_LENGTH] for tag in found if tag))
