"""The folder of a run: its lock and its status."""

import os
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ncflow.results.files import JOB, LOCK, RESULT, RUN, read_json

DONE, DIVERGED, FAILED, RUNNING, INTERRUPTED = "done", "diverged", "failed", "running", "interrupted"
PENDING = "pending"
UNREADABLE = "unreadable"  # somebody else's files that we may not read, or damaged ones


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


def run_folders(*folders: Path | str) -> list[Path]:
    """Folders of runs, submitted ones included, at or below the given ones, in order of their paths, each once.

    Raises:
        FileNotFoundError: If a folder does not exist.
    """
    found: dict[Path, None] = {}
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise FileNotFoundError(f"no folder {folder}")
        for parent, _, files in os.walk(folder):
            if not {RESULT, RUN, JOB}.isdisjoint(files):
                found[Path(parent)] = None
    return sorted(found)


def status_of(folder: Path) -> tuple[str, dict[str, Any]]:
    """A run's status and what it left: its result where it is done, else what it started or was submitted with."""
    result = _result(folder)
    locked = result is None and is_locked(folder)
    if result is None and not locked:
        result = _result(folder)  # it may have ended between the two looks
    if result is not None:
        return result["status"], result
    started, submitted = read_json(folder / RUN), read_json(folder / JOB)
    if locked:
        return RUNNING, started or submitted or {}
    if started is None and submitted is not None:
        return PENDING, submitted
    started = started or {}
    return (FAILED if started.get("status") == FAILED else INTERRUPTED), started


def _result(folder: Path) -> dict[str, Any] | None:
    """What a run wrote at its end, None before and where the file is another program's."""
    result = read_json(folder / RESULT)
    return result if result is not None and isinstance(result.get("status"), str) else None
