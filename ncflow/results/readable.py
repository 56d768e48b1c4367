"""Which files of a run can be read: everything that ncflow writes, and nothing that would mislead or stop a reader.

Folders of runs are copied, edited, cut short and filled by other programs. What is wrong with a file is one line here,
so that whoever reads many runs leaves out one and names it.
"""

import json
import logging
import math
import os
from functools import lru_cache
from pathlib import Path
from typing import Any

from ncflow.checks import error_line
from ncflow.results.columns import SPLITS
from ncflow.results.files import JOB, PROGRESS, RESULT, RUN
from ncflow.results.report import Status

log = logging.getLogger("ncflow.results")

_STATUSES = {
    RESULT: (Status.DONE, Status.DIVERGED),
    RUN: (Status.DONE, Status.DIVERGED, Status.FAILED, Status.RUNNING, Status.INTERRUPTED, Status.PENDING),
}
_NUMBERS = ("weight_decay", "batch_size", "epochs", "seconds", "steps_per_second")
_WHOLE_NUMBERS = ("seed",)
_COUNTS = ("/classes_present",)
_WORDS = ("experiment", "name", "run_id")
LARGEST_WHOLE = 2**53  # beyond it neighbours are one and the same float
_LARGEST_JSON = 2**24  # bytes; ours have some thousands
_LONGEST_VALUE, _LONGEST_REASON, _LONGEST_PATH = 80, 300, 4096


class UnreadableError(ValueError):
    """A file is not as ncflow writes it; the message says in one line how."""


def one_line(text: object, longest: int = _LONGEST_REASON) -> str:
    """A text as one line of so many characters at most that can be printed anywhere, whoever wrote it."""
    words = " ".join(str(text).split())
    shortened = words if len(words) <= longest else f"{words[: longest - 1]}…"
    return "".join(character if character.isprintable() else "?" for character in shortened)


def describe(error: Exception) -> str:
    """An error as one line."""
    if isinstance(error, UnreadableError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return one_line(f"{type(error).__name__}: {error.strerror}")
    return one_line(error_line(error, named=True))


def leave_out(path: Path, error: Exception) -> None:
    """Say that a file cannot be read, and why."""
    log.warning("unreadable: %s: %s", one_line(path, _LONGEST_PATH), describe(error))


def why_no_file(path: Path) -> str | None:
    """What is wrong where something stands in the place of a file; None for a file, and if there is nothing.

    A pipe would block whoever opens it. How far a run is may be a link to a file that its group has yet to write.
    """
    there = path.exists() if path.name == PROGRESS else os.path.lexists(path)
    return f"{path.name} is no file" if there and not path.is_file() else None


def why_unreadable(folder: Path) -> str | None:
    """What is wrong with what a run's folder says of the run, None where nothing is.

    The file that decides is looked into: the result or, before there is one, what the run started or was submitted
    with.
    """
    try:
        deciding = _deciding(folder)
        return None if deciding is None else _seen(deciding)[0]
    except (OSError, UnreadableError) as error:
        return describe(error)


def read_result(folder: Path) -> tuple[str | None, dict[str, Any] | None]:
    """As :func:`why_unreadable`, and the result of a run that is finished."""
    try:
        deciding = _deciding(folder)
        why, values = (None, None) if deciding is None else _look(deciding, _state(deciding))
        return why, values if deciding is not None and deciding.name == RESULT else None
    except (OSError, UnreadableError) as error:
        return describe(error), None


def result_id(folder: Path) -> Any:
    """The id in what :func:`read_result` reads, None where it has none; a file that was read is read no more.

    Raises:
        OSError: If there is a result that cannot be read.
    """
    path = folder / RESULT
    return _seen(path)[1] if path.is_file() else None


def _deciding(folder: Path) -> Path | None:
    irregular = [why for name in (RESULT, RUN, JOB) if (why := why_no_file(folder / name)) is not None]
    if irregular:
        raise UnreadableError(irregular[0])
    return next((folder / name for name in (RESULT, RUN, JOB) if (folder / name).exists()), None)


_State = tuple[Path, int, int, int]
_looked_at: dict[_State, tuple[str | None, Any]] = {}  # what was wrong, and the run's id
_MOST_LOOKED_AT = 100_000


def _state(path: Path) -> _State:
    """A file as it is: when it was changed, its size, its number in the file system."""
    found = path.stat()
    return path, found.st_mtime_ns, found.st_size, found.st_ino


def _seen(path: Path) -> tuple[str | None, Any]:
    """What is wrong with a JSON file of a run, and the run's id in it; runs and their histories are read in turn."""
    state = _state(path)
    if state not in _looked_at:
        _look(path, state)
    return _looked_at[state]


def _look(path: Path, state: _State) -> tuple[str | None, dict[str, Any] | None]:
    """What is wrong with a JSON file of a run, and what is in it if nothing is."""
    why, values = _read(path, state[2])
    if len(_looked_at) >= _MOST_LOOKED_AT:
        _looked_at.clear()
    _looked_at[state] = why, None if values is None else values.get("run_id")
    return why, values


def _read(path: Path, size: int) -> tuple[str | None, dict[str, Any] | None]:
    name = path.name
    if size > _LARGEST_JSON:
        return f"{name} is larger than {_LARGEST_JSON} bytes", None
    content = path.read_bytes()
    if not content.strip():
        return f"{name} is empty", None
    try:
        values = json.loads(content.decode())
    except UnicodeDecodeError:
        return f"{name} is no UTF-8 text", None
    except (ValueError, RecursionError):
        return f"{name} is no whole JSON", None
    if not isinstance(values, dict):
        return f"{name} is no JSON mapping", None
    why = _flaw(name, values)
    return why, values if why is None else None


def _flaw(name: str, values: dict[str, Any]) -> str | None:
    """What is wrong with what is in a JSON file."""
    for key, value in values.items():
        wrong = _wrong(key, value)
        if wrong is not None:
            return f"{name}: {one_line(key, _LONGEST_VALUE)} is {wrong}: {one_line(value, _LONGEST_VALUE)}"
    if name == RESULT or (name == RUN and "status" in values):
        status = values.get("status")
        if status not in _STATUSES[name]:
            return f"{name}: the status is none of ncflow's: {one_line(status, _LONGEST_VALUE)}"
    return None


def _wrong(key: str, value: Any) -> str | None:
    """What a value is and must not be."""
    kind = type(value)  # of JSON, so that no class is derived from these
    if not _is_plain(value) or (kind is dict and value):  # a mapping is flat, its names are dotted
        return "no plain value"
    rule = _rule(key)
    if value is None or rule is None:
        return None
    if rule == "text":
        return None if kind is str else "no text"
    number = kind is int or kind is float
    if rule == "whole":
        return None if number and value == int(value) else "no whole number"
    if not number:
        return "no number"
    return "no whole number" if rule == "count" and not _is_whole(value) else None


@lru_cache(maxsize=10_000)
def _rule(key: str) -> str | None:
    """What a value under a key must be; None if it may be anything plain."""
    if key == "status":
        return None
    if key.startswith(SPLITS) or key in _NUMBERS:
        return "count" if key.endswith(_COUNTS) else "number"
    if key in _WHOLE_NUMBERS:
        return "whole"
    return "text" if key in _WORDS else None


def _is_whole(value: float) -> bool:
    return value == int(value) and 0 <= value <= LARGEST_WHOLE


def _is_plain(value: Any, depth: int = 20) -> bool:
    """Whether a value is one that a config can hold: a list of mappings is one, to a config's flat names."""
    kind = type(value)
    if value is None or kind is str or kind is bool:
        return True
    if kind is int or kind is float:
        try:
            return math.isfinite(value)
        except OverflowError:
            return False
    items = list(value.values()) if kind is dict else value
    return depth > 0 and all(_is_plain(item, depth - 1) for item in items)
