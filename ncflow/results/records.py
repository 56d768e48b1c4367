"""What a run's folder says beside its tables: the overrides that made the run, the end of its log, its changes."""

import os
import zlib
from contextlib import suppress
from pathlib import Path

import yaml

from ncflow.results.files import HISTORY, JOB, LOG, OVERRIDES, PROGRESS, RESULT, RUN
from ncflow.results.store import run_folders

_LARGEST_OVERRIDES = 2**16  # bytes; ours have some hundreds
_LONGEST_LINE = 300
_WATCHED = (RESULT, RUN, JOB, HISTORY, PROGRESS)

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # safe too, and ten times faster; not every PyYAML has it


def overrides_of(folder: Path) -> list[str] | None:
    """The overrides of ``ncflow`` that made a run; None where its folder does not say, or not as Hydra writes it."""
    path = folder / OVERRIDES
    with suppress(OSError, yaml.YAMLError, ValueError, RecursionError):
        if path.is_file() and path.stat().st_size <= _LARGEST_OVERRIDES:
            found = yaml.load(path.read_text(encoding="utf-8"), _LOADER)
            if isinstance(found, list) and all(isinstance(one, str) for one in found):
                return found
    return None


def log_tail(folder: Path, lines: int) -> str:
    """The last lines of a run's log, long ones shortened; nothing where there is none that can be read."""
    path = folder / LOG
    with suppress(OSError):
        if path.is_file():
            with path.open("rb") as file:
                file.seek(max(0, path.stat().st_size - lines * _LONGEST_LINE))
                text = file.read(lines * _LONGEST_LINE).decode(errors="replace")
            return "\n".join(line[:_LONGEST_LINE] for line in text.splitlines()[-lines:])
    return ""


def state_of(*folders: Path | str) -> int:
    """A number that changes when a run below some folders begins, measures or ends.

    Raises:
        FileNotFoundError: If a folder does not exist.
    """
    state = 0
    for folder in run_folders(*folders):
        for name in _WATCHED:
            with suppress(OSError):
                found = os.stat(folder / name)
                state = zlib.crc32(
                    f"{folder}/{name} {found.st_mtime_ns} {found.st_size}".encode(errors="replace"), state
                )
    return state
