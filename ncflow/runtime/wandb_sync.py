"""Offline W&B runs and W&B's server: what was not sent yet, and sending it by W&B's own command ``wandb sync``.

That command takes many runs at once, but one file that it cannot read keeps it from all of them, after one that a kill
cut short it leaves out all later attempts at the run, it says success in any case, and a resumed attempt that is sent
twice has its rows twice on the server. So it is started again for what it left, and what it sent is kept in mind.
"""

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from ncflow.results import one_line, read_json, write_json
from ncflow.runtime.wandb_server import server_problem

_HEADER = 7  # bytes of a file in which W&B has written no record yet; a kill leaves it so for ever
_MANY = 100  # runs for one process: what it may cost if W&B's own process breaks
_SECONDS_BETWEEN_LOOKS, _SECONDS_WITHOUT_NEWS = 0.1, 60.0
_LOCK, _SENT_BYTES = ".ncflow-sync.lock", "sent_bytes"
_CUT_SHORT = re.compile(r'/(offline-run-[^/"]+)": the file ends with an incomplete record')
# What would have W&B's command be silent or do nothing.
_LEFT_OUT = ("WANDB_MODE", "WANDB_SILENT", "WANDB_QUIET")
_PROGRAM = """
import runpy, sys
from ncflow.runtime.processes import end_with_parent
end_with_parent(int(sys.argv.pop(1)))
runpy.run_module("wandb", run_name="__main__")
"""


class ServerGoneError(Exception):
    """W&B's server takes nothing any more; the message says why."""


@dataclass(frozen=True)
class Attempt:
    """What W&B kept offline of a run from its start, or from where it went on, until it ended or was stopped.

    Args:
        file: W&B's file, in a folder of its own.
    """

    file: Path

    @property
    def folder(self) -> Path:
        """Its folder, by whose name attempts are in order of time."""
        return self.file.parent

    @property
    def is_sent(self) -> bool:
        """Whether W&B says so, or sent all that is whole of a file that was cut short."""
        if self.file.with_name(f"{self.file.name}.synced").exists():
            return True
        return (read_json(self._note) or {}).get(_SENT_BYTES) == self.file.stat().st_size

    @property
    def _note(self) -> Path:
        return self.file.with_name(f"{self.file.name}.ncflow.json")

    def note_sent(self) -> None:
        """Keep in mind what W&B keeps in mind of whole files alone.

        Raises:
            OSError: If that cannot be written.
        """
        write_json(self._note, {_SENT_BYTES: self.file.stat().st_size})


@dataclass(frozen=True)
class OfflineRun:
    """A W&B run, and what was kept of it offline.

    Args:
        identity: W&B's id.
        folder: The run's folder, in which ``wandb`` is.
        attempts: Oldest first, one or more.
    """

    identity: str
    folder: Path
    attempts: tuple[Attempt, ...]

    def unsent(self) -> tuple[Attempt, ...]:
        """The attempts after the last one that was sent: one before it would replace rows that the server has."""
        for index in range(len(self.attempts), 0, -1):
            if self.attempts[index - 1].is_sent:
                return self.attempts[index:]
        return self.attempts


def offline_runs(*folders: Path | str) -> list[OfflineRun]:
    """The offline W&B runs at or below some folders, in order of their paths.

    Copies of an attempt count once, and one that was killed before W&B wrote anything does not count.

    Raises:
        FileNotFoundError: If a folder does not exist.
    """
    found: dict[str, dict[str, Attempt]] = {}
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise FileNotFoundError(f"no folder {folder}")
        for parent, inner, files in os.walk(folder):
            inner.sort()
            path = Path(parent)
            if not path.absolute().name.startswith("offline-run-"):
                continue
            for name in files:
                if not (name.startswith("run-") and name.endswith(".wandb")) or (path / name).stat().st_size <= _HEADER:
                    continue
                attempts = found.setdefault(name.removeprefix("run-").removesuffix(".wandb"), {})
                attempt, known = Attempt(path / name), attempts.get(path.name)
                if known is None or (attempt.is_sent and not known.is_sent):
                    attempts[path.name] = attempt
    runs = []
    for identity, named in found.items():
        attempts_of_run = tuple(named[name] for name in sorted(named))
        runs.append(OfflineRun(identity, attempts_of_run[0].folder.parent.parent, attempts_of_run))
    return sorted(runs, key=lambda run: run.folder)


def send(runs: Sequence[OfflineRun], jobs: int) -> Generator[tuple[OfflineRun, str | None], None, None]:
    """Send what was not sent of some runs; each of them, as it is done, and what went wrong with it, None if nothing.

    Args:
        runs: Those to send; none of them may still be written to.
        jobs: How many at a time.
    """
    problem = None
    for start in range(0, len(runs), _MANY):
        left = dict.fromkeys(runs[start : start + _MANY])
        if problem is None:
            try:
                with ExitStack() as held:
                    free = [run for run in left if _is_ours(run, held)]
                    for run, complaint in _send_some(free, jobs):
                        del left[run]
                        yield run, complaint
                for run in left:
                    yield run, "another ncflow-sync is at work on it"
                continue
            except ServerGoneError as error:
                problem = str(error)
        for run in left:
            yield run, problem


def _is_ours(run: OfflineRun, held: ExitStack) -> bool:
    """Whether no other process sends it; ``held`` keeps others from it."""
    try:
        held.enter_context(FileLock(run.attempts[0].folder.parent / _LOCK).acquire(timeout=0))
    except Timeout:
        return False
    return True


def _send_some(runs: list[OfflineRun], jobs: int) -> Iterator[tuple[OfflineRun, str | None]]:
    """All by one process, as long as that gets on; then one by one what it left, or by halves if it sent nothing."""
    sent_nothing, is_getting_on = True, True
    while runs and is_getting_on:
        before = sum(len(run.unsent()) for run in runs)
        for run in _sent_by([_Sync(runs, jobs)], runs):
            yield run, None
        is_getting_on = sum(len(run.unsent()) for run in runs) < before
        sent_nothing = sent_nothing and not is_getting_on
    if sent_nothing and len(runs) > jobs:
        for part in (runs[: len(runs) // 2], runs[len(runs) // 2 :]):
            yield from _send_some(part, jobs)
        return
    while runs:
        together = [_Sync([run], 1) for run in runs[:jobs]]
        for run in _sent_by(together, runs):
            yield run, None
        for sync in together:
            (run,) = sync.runs
            if run in runs and not sync.got_on:
                runs.remove(run)
                yield run, sync.complaint


class _Sync:
    """A process of ``wandb sync`` for some runs."""

    def __init__(self, runs: Sequence[OfflineRun], parallelism: int) -> None:
        self.runs, self.got_on, self.complaint = tuple(runs), False, ""
        attempts = [attempt for run in runs for attempt in run.unsent()]
        self._attempts = {attempt.folder.name: attempt for attempt in attempts}
        folders = [str(attempt.folder.absolute()) for attempt in attempts]
        command = [sys.executable, "-P", "-c", _PROGRAM, str(os.getpid()), "sync", "-n", str(parallelism), *folders]
        environment = {name: value for name, value in os.environ.items() if name not in _LEFT_OUT}
        environment.setdefault("WANDB_ERROR_REPORTING", "false")
        self._said = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115 (closed in end)
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=self._said, stderr=subprocess.STDOUT, env=environment
        )

    @property
    def is_going(self) -> bool:
        return self._process.poll() is None

    def read(self) -> None:
        """Take note of what it said, once it has ended."""
        self._said.seek(0)
        lines = [line.removeprefix("wandb: ").strip() for line in self._said]
        for name in _CUT_SHORT.findall("\n".join(lines)):
            if name in self._attempts:
                self._attempts[name].note_sent()
        self.got_on = any(attempt.is_sent for attempt in self._attempts.values())
        errors = [line.removeprefix("ERROR").strip() for line in lines if line.startswith("ERROR")]
        said = [line for line in (errors or lines[-1:]) if line]
        self.complaint = f"wandb sync says: {one_line('; '.join(said)) or 'nothing'}"

    def end(self) -> None:
        """End it, if it has not ended."""
        self._process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(10)
        self._process.kill()
        self._process.wait()
        self._said.close()


def _sent_by(processes: Sequence[_Sync], runs: list[OfflineRun]) -> Iterator[OfflineRun]:
    """Wait for processes; take out of ``runs`` and give each one when all of it was sent.

    Raises:
        ServerGoneError: If for long no run was sent, and the server takes none.
    """
    news = time.monotonic()
    try:
        while True:
            are_going = any(process.is_going for process in processes)  # before the look at what they did
            if not are_going:
                for process in processes:
                    process.read()
            for run in [run for run in runs if not run.unsent()]:
                runs.remove(run)
                news = time.monotonic()
                yield run
            if not are_going:
                return
            if time.monotonic() - news > _SECONDS_WITHOUT_NEWS:
                problem = server_problem()
                if problem is not None:
                    raise ServerGoneError(problem)
                news = time.monotonic()
            time.sleep(_SECONDS_BETWEEN_LOOKS)
    finally:
        for process in processes:
            process.end()
