"""The processes of a run that trains on several devices: who started them, which one this is, and starting them here.

SLURM and torchrun start them from outside. Otherwise :func:`start` has torchrun start them on this machine, where each
does what :func:`ncflow.cli.train.main` does, from the config that Hydra left in the run's folder.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ncflow.results import read_json, write_json
from ncflow.runtime.signals import Listener

LOG = "processes.log"
MAIN_PROCESS = "NCFLOW_MAIN_PROCESS"
"""Variable in which an ``ncflow`` leaves its process id to those that it starts."""

_REPORT = ".report.json"
_SECONDS_BETWEEN_LOOKS, _SECONDS_TO_SAVE = 0.5, 30.0
_watching: list[Callable[[], bool]] = []  # tells whether the process is there that a thread of this one watches


def launched() -> int:
    """Number of processes that SLURM's srun or torchrun started for this run; 1 if neither did."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return int(os.environ["WORLD_SIZE"])
    return int(os.environ.get("SLURM_NTASKS", 1)) if "SLURM_STEP_ID" in os.environ else 1


def rank() -> int:
    """Which of them this is, from 0; the files of a run are written by 0 alone."""
    if launched() == 1:
        return 0
    return int(os.environ["RANK" if "TORCHELASTIC_RUN_ID" in os.environ else "SLURM_PROCID"])


def is_worker() -> bool:
    """Whether this process works for an ``ncflow`` in another process."""
    return os.environ.get(MAIN_PROCESS, str(os.getpid())) != str(os.getpid())


def is_silent() -> bool:
    """Whether this process must leave the terminal to the ``ncflow`` that it works for, which draws there."""
    return is_worker() and sys.stderr.isatty()


def wanted(trainer: Any) -> int:
    """Number of processes that the config group ``trainer`` asks for; 1 if its values are not numbers."""
    devices, nodes = trainer.get("devices"), trainer.get("num_nodes")
    return devices * nodes if isinstance(devices, int) and isinstance(nodes, int) else 1


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def most_devices() -> int:
    """Processes of one run that this machine may start itself: one a core, as each has a thread of its own at least."""
    return max(2, cores())


def too_many(devices: int) -> str:
    """One line about more devices than :func:`most_devices`."""
    return f"trainer.devices must be at most {most_devices()}, the cores of this machine, found {devices}"


def start(folder: Path, number: int) -> dict[str, Any]:
    """Train the run of a folder in several processes on this machine and wait for their end.

    Args:
        folder: The run's folder, with ``.hydra`` in it. Errors of the processes go into its ``processes.log``.
        number: How many.

    Returns:
        What the first process handed to :func:`hand_over`; empty if it ended before that.

    Raises:
        SystemExit: If this process was asked by a signal to end; the others are ended first.
    """
    (folder / _REPORT).unlink(missing_ok=True)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={number}"]
    environment = {key: value for key, value in os.environ.items() if key != "SLURM_NTASKS"}
    listener = Listener()
    with (folder / LOG).open("w") as log, listener.listening():
        command = [*torchrun, "-m", "ncflow.cli.train", str(folder)]
        process = subprocess.Popen(command, stderr=log, env=environment)
        try:
            while process.poll() is None:
                if listener.received:
                    process.send_signal(signal.SIGTERM)
                    process.wait()
                time.sleep(0.1)
        except BaseException:  # Ctrl-C went to all of them
            process.wait()
            raise
    if listener.received:
        raise SystemExit(128 + listener.received)
    report = read_json(folder / _REPORT) or {}
    (folder / _REPORT).unlink(missing_ok=True)
    return report


def end_with_parent(parent: int) -> None:
    """Let this process end when its parent has ended, and leave Ctrl-C to it; without effect for another process.

    Args:
        parent: The process that started this one, if it did so itself.
    """
    if os.getppid() == parent:
        end_with(lambda: os.getppid() == parent)


def end_with(is_there: Callable[[], bool]) -> None:
    """Let this process end when another one has ended, and leave Ctrl-C to it; without effect if it does so already.

    Args:
        is_there: Whether the other process is there.
    """
    if _watching:
        return
    _watching.append(is_there)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_watch, args=(is_there,), daemon=True).start()


def end_if_orphaned() -> None:
    """End this process, whose run is as far as it can be, if the one that it should end with has ended."""
    if _watching and not _watching[0]():
        os._exit(1)  # nobody is there to take a result, and to hand it over would wait for somebody


def _watch(is_there: Callable[[], bool]) -> None:
    while is_there():
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    os.kill(os.getpid(), signal.SIGTERM)  # training saves a checkpoint first
    time.sleep(_SECONDS_TO_SAVE)
    os._exit(1)


def hand_over(folder: Path, report: dict[str, Any]) -> None:
    """Leave a report for the process that called :func:`start`."""
    write_json(folder / _REPORT, report)
