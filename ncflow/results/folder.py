"""The folder of a run: whose it is, whether the run is finished, and what is written when it begins and ends."""

import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ncflow.results.files import (
    CHECKPOINT,
    CLASSES,
    CODE_DIFF,
    DIGEST,
    HISTORY,
    JOB,
    KEPT,
    LOCK,
    LOG,
    MARGINS,
    PAIRS,
    RESULT,
    RUN,
    SNAPSHOTS,
    TEMPORARY,
    file_digest,
    read_json,
    refuse_irregular,
    write_atomically,
    write_json,
)
from ncflow.results.report import FINAL, Report, Status, as_word

_KEPT = "checkpoint.keep_every_n_epochs"


class RunFolder:
    """The folder of one run, and the only way to begin, fail and finish the run in it.

    A folder that holds anything but this run is never written to. Nothing in it is ever removed.

    Args:
        path: The folder; it need not exist.
        described: The run's flat description, with its ``run_id``.
    """

    def __init__(self, path: Path, described: Mapping[str, Any]) -> None:
        self.path, self.described = path, dict(described)
        self.run_id = str(described["run_id"])

    def finished(self) -> dict[str, Any] | None:
        """The run's result, None if there is none that is readable, this run's and final."""
        result = read_json(self.path / RESULT)
        return result if result is not None and result.get("run_id") == self.run_id and is_final(result) else None

    def damage(self, result: Mapping[str, Any]) -> str | None:
        """Which table of the finished run is not what it wrote, in one line; None where all are."""
        for key, digest in result.items():
            name = key.removeprefix(DIGEST)
            if name != key and _digest_of(self.path / name) != digest:
                return (
                    f"{self.path / name} is not what the finished run wrote: delete {RESULT} beside it to train it anew"
                )
        return None

    def complaint(self) -> str | None:
        """Why the run may not have this folder, in one line; None if it may.

        It may have a folder that is new or empty, that another file in it says is this run's, or whose name ends with
        the run's id.
        """
        if not os.path.lexists(self.path):
            return None
        if not self.path.is_dir():
            return f"the run's folder must be a folder, found a file: {self.path}"
        owners = [found.get("run_id") for name in (RESULT, RUN, JOB) if (found := read_json(self.path / name))]
        others = [owner for owner in owners if isinstance(owner, str) and owner != self.run_id]
        if others:
            return f"{self.path} holds another run ({others[0]}), choose another hydra.run.dir (or --out)"
        if self.run_id in owners or self.path.name.endswith(f"-{self.run_id}"):
            return None
        foreign = sorted(entry.name for entry in self.path.iterdir() if not _is_nothing(entry))
        if foreign:
            more = f" and {len(foreign) - 1} more" if len(foreign) > 1 else ""
            return f"a run's folder must be new, empty or its own, found {foreign[0]}{more} in {self.path}"
        return None

    def twin(self, candidates: Iterable[Path]) -> tuple[Path, dict[str, Any]] | None:
        """Another folder that has this run, finished and whole, and its result; None if there is none.

        A run is what changes its numbers, and so experiments may share it. One that was logged in another way, or kept
        other checkpoints, is no twin: it may lack what this one is to leave.

        Args:
            candidates: Folders of runs.
        """
        for other in candidates:
            with suppress(OSError):  # somebody else's
                found = RunFolder(other, self.described)
                result = None if other.resolve() == self.path.resolve() else found.finished()
                if result is None or not self._leaves_as_much(result):
                    continue
                if found.damage(result) is None and found._is_readable():
                    return other, result
        return None

    def _leaves_as_much(self, result: Mapping[str, Any]) -> bool:
        logger, kept = (self.described.get(name) for name in ("logger.name", _KEPT))
        return result.get("logger.name") == logger and kept in (None, result.get(_KEPT))

    def _is_readable(self) -> bool:
        return all(os.access(path, os.R_OK) for path in _left(self.path))

    def take_over(self, other: Path, result: Mapping[str, Any]) -> None:
        """Copy what a twin left, its result last; the caller has begun the run and holds the lock.

        Raises:
            OSError: If a file cannot be read or written.
        """
        for path in _left(other):
            write_atomically(self.path / path.relative_to(other), path.read_bytes())
        own = {name: self.described.get(name) for name in ("experiment", "figures", "runs_dir")}
        self.finish({**result, **own})
        self.note(f"taken over from {other.absolute()}")

    @property
    def lock(self) -> FileLock:
        """Its lock."""
        return lock(self.path)

    def begin(self) -> None:
        """Say whose the folder is, before anything else is written to it; the caller holds the lock."""
        write_json(self.path / RUN, {**self.described, "status": Status.RUNNING})

    def fail(self, line: str) -> None:
        """Say why the run failed, if that can be written: what is said on a full disk is on the console."""
        with suppress(OSError):
            write_json(self.path / RUN, {**self.described, "status": Status.FAILED, "error": line})

    def finish(self, result: Mapping[str, Any]) -> None:
        """Say that the run is finished; the last file that it writes."""
        write_json(self.path / RESULT, result)

    def leave(self, name: str, content: str) -> None:
        """Leave a file whose name says what is in it, and which stays as it is.

        Raises:
            OSError: If it cannot be written.
        """
        if not os.path.lexists(self.path / name):
            write_atomically(self.path / name, content)

    def has_begun(self) -> bool:
        """Whether the run was begun."""
        return read_json(self.path / RUN) is not None

    def ended(self, since: float) -> Report | None:
        """What became of the run, of whose process nothing is known; None if it neither finished nor failed.

        Args:
            since: When it was begun at the earliest: a failure from before does not count.
        """
        path, result, started = str(self.path), self.finished(), read_json(self.path / RUN) or {}
        if result is not None:
            return Report(str(result["status"]), path, values=result)
        if started.get("status") == Status.FAILED and (self.path / RUN).stat().st_mtime >= since:
            return Report(Status.FAILED, path, str(started.get("error")))
        return None

    def killed(self) -> Report:
        """Say of the run that its process is gone without a word."""
        line = "its process was killed, as the system does when memory runs out"
        if self.has_begun():
            self.fail(line)
        return Report(Status.FAILED, str(self.path), line)

    def note(self, text: str) -> None:
        """Add text to the run's log, if that can be written."""
        with suppress(OSError):
            refuse_irregular(self.path / LOG)
            with (self.path / LOG).open("a") as file:
                file.write(text if text.endswith("\n") else f"{text}\n")

    @contextmanager
    def logged(self) -> Iterator[None]:
        """Let everything that is logged go to the run's log, too.

        Raises:
            OSError: If there can be no log.
        """
        refuse_irregular(self.path / LOG)
        handler = logging.FileHandler(self.path / LOG)
        handler.setFormatter(logging.Formatter("[%(asctime)s] %(levelname)s %(message)s"))
        logging.getLogger().addHandler(handler)
        try:
            yield
        finally:
            logging.getLogger().removeHandler(handler)
            with suppress(OSError):  # of a full disk, which the run itself has met already
                handler.close()


def _left(folder: Path) -> list[Path]:
    """The files that a run left beside its result, the checkpoint last."""
    tables = [folder / name for name in (HISTORY, MARGINS, CLASSES, PAIRS, LOG)]
    found = [*sorted((folder / SNAPSHOTS).glob("*.npz")), *sorted(folder.glob(KEPT)), *sorted(folder.glob(CODE_DIFF))]
    return [path for path in [*tables, *found, folder / CHECKPOINT] if path.is_file()]


def _digest_of(path: Path) -> str | None:
    return file_digest(path) if path.is_file() else None


def is_final(result: Mapping[str, Any]) -> bool:
    """Whether a result is of a run that is finished."""
    return result.get("status") in FINAL


def _is_nothing(entry: Path) -> bool:
    """Whether an entry of a folder is what a process leaves that was killed before it said whose the folder is."""
    if entry.name == f".{RUN}{TEMPORARY}":
        return True
    return entry.name == LOCK and entry.is_file() and entry.stat().st_size == 0


def lock(folder: Path) -> FileLock:
    """Lock of a run's folder, to be acquired with ``timeout=0``; the system frees it when its process dies."""
    return FileLock(folder / LOCK)


def is_locked(folder: Path) -> bool:
    """Whether a living process is at work in the folder."""
    if not (folder / LOCK).exists():
        return False
    try:
        with lock(folder).acquire(timeout=0):
            return False
    except Timeout:
        return True
    except (OSError, NotImplementedError):  # a folder that we may read but not write, or one without flock
        return False


def status_of(folder: Path) -> Report:
    """Where a run stands, and what it left: its result if it is done, else what it began or was submitted with."""
    result = _result(folder)
    locked = result is None and is_locked(folder)
    if result is None and not locked:
        result = _result(folder)  # it may have ended between the two looks
    if result is not None:
        return Report(result["status"], str(folder), values=result)
    started, submitted = read_json(folder / RUN), read_json(folder / JOB)
    if locked:
        return Report(Status.RUNNING, str(folder), values=started or submitted or {})
    if started is None and submitted is not None:
        return Report(Status.PENDING, str(folder), values=submitted)
    started = started or {}
    if started.get("status") != Status.FAILED:
        return Report(Status.INTERRUPTED, str(folder), values=started)
    error = as_word(started.get("error")) or "no error was recorded"
    return Report(Status.FAILED, str(folder), error, started)


def _result(folder: Path) -> dict[str, Any] | None:
    """What a run wrote at its end, None before and where the file is broken or another program's."""
    result = read_json(folder / RESULT)
    return result if result is not None and is_final(result) else None
