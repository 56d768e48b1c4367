"""Which files of a run can be read: everything that ncflow writes, and nothing that would mislead or stop a reader.

Folders of runs are copied, edited, cut short and filled by other programs. What is wrong with a file is one line here,
so that whoever reads many runs leaves out one and names it.
"""

import csv
import io
import json
import logging
import math
import os
import sys
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ncflow.checks import error_line
from ncflow.results.files import JOB, PROGRESS, RESULT, RUN
from ncflow.results.report import Status

if TYPE_CHECKING:
    import numpy as np

log = logging.getLogger("ncflow.results")

_STATUSES = {
    RESULT: (Status.DONE, Status.DIVERGED),
    RUN: (Status.DONE, Status.DIVERGED, Status.FAILED, Status.RUNNING, Status.INTERRUPTED, Status.PENDING),
}
_MEASURES = ("train/", "test/")
_NUMBERS = ("weight_decay", "batch_size", "epochs", "seconds", "steps_per_second")
_WHOLE_NUMBERS = ("seed",)
_COUNTS = ("/classes_present",)
_WORDS = ("experiment", "name", "run_id")
_LARGEST_WHOLE = 2**53  # beyond it neighbours are one and the same float
_LARGEST_JSON = 2**24  # bytes; ours have some thousands
LONGEST_LINE = 100_000  # bytes; ours have some thousands
_LONGEST_VALUE, _LONGEST_REASON, _LONGEST_PATH = 80, 300, 4096
TEXTS = ("split", "layer")
_INFINITIES = {"inf", "infinity"}


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
    if key.startswith(_MEASURES) or key in _NUMBERS:
        return "count" if key.endswith(_COUNTS) else "number"
    if key in _WHOLE_NUMBERS:
        return "whole"
    return "text" if key in _WORDS else None


def _is_whole(value: float) -> bool:
    return value == int(value) and 0 <= value <= _LARGEST_WHOLE


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


def read_columns(path: Path, columns: Sequence[str], required: Sequence[str], whole: Sequence[str]) -> dict[str, Any]:
    """The columns of a table that a run lets grow, by name; a torn last line is left out.

    Args:
        path: The file.
        columns: All columns that it may have.
        required: Those that it must have.
        whole: Those of whole numbers. All but these, ``split`` and ``layer`` are of numbers.

    Returns:
        ``split`` and ``layer`` as lists, the others as arrays (n,) of int64 or float64.

    Raises:
        UnreadableError: If it is not as ncflow writes it.
        OSError: If it cannot be read.
    """
    import numpy as np

    if not path.is_file():
        raise UnreadableError("is no file")
    text = _whole_lines(path)
    if not text.strip():
        raise UnreadableError("is empty")
    header, rows = checked_fields(text, columns, required)
    places = [place for place, name in enumerate(header) if name not in TEXTS]
    try:
        numbers = np.array([[_number(row[place]) for place in places] for row in rows], dtype=float)
    except ValueError:
        column = next(header[place] for place in places if not all(_is_number(row[place]) for row in rows))
        raise UnreadableError(f"{column} is not all numbers") from None
    numbers = numbers.reshape(len(rows), len(places))
    found: dict[str, Any] = {}
    for place, name in enumerate(header):
        if name in TEXTS:
            found[name] = [sys.intern(row[place]) for row in rows]
        else:
            values = numbers[:, places.index(place)]
            found[name] = as_whole(name, values) if name in whole else values
    for row, column in np.argwhere(np.isinf(numbers)):
        # A loss may be infinite; a number that a float cannot hold is another thing, and reads as the same.
        if rows[row][places[column]].strip().lower().lstrip("+-") not in _INFINITIES:
            raise UnreadableError(f"{header[places[column]]} has a number that is too large")
    return found


def as_whole(name: str, values: "np.ndarray") -> "np.ndarray":
    """The values of a column of whole numbers, int64.

    Raises:
        UnreadableError: If one is none.
    """
    import numpy as np

    if not bool(np.all((values == np.floor(values)) & (values >= 0) & (values <= _LARGEST_WHOLE))):
        raise UnreadableError(f"{name} is not all whole numbers")
    return values.astype(np.int64)


def _number(field: str) -> float:
    """A field's number, NaN for none. Python would read digits of all scripts, and underscores between them."""
    if not field or field.isspace():
        return math.nan
    if not field.isascii() or "_" in field:
        raise ValueError(field)
    return float(field)


def _is_number(field: str) -> bool:
    try:
        _number(field)
    except ValueError:
        return False
    return True


def _whole_lines(path: Path) -> str:
    """The text of a table without what is torn at its end."""
    lines = list(_lines(path))
    if b"\0" in b"".join(lines):
        raise UnreadableError("has NUL bytes")
    if len(lines) > 1 and not lines[-1].endswith(b"\n") and _is_torn(lines[-1], lines[0]):
        lines.pop()
    try:
        return b"".join(lines).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UnreadableError("is no UTF-8 text") from None


def _lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while line := file.readline(LONGEST_LINE + 1):
            if len(line) > LONGEST_LINE:
                raise UnreadableError(f"has a line of more than {LONGEST_LINE} bytes")
            yield line


def _is_torn(line: bytes, header: bytes) -> bool:
    """Whether a last line without an end lacks a field, or has its last number cut short."""
    if line.count(b",") != header.count(b","):
        return True
    try:
        float(line.rpartition(b",")[2] or 0)
    except ValueError:
        return True
    return False


def checked_fields(text: str, columns: Sequence[str], required: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """Header and rows; refused where the header is not ours, or a line has too many fields or too few."""
    try:
        header, *rows = [row for row in csv.reader(io.StringIO(text, newline=""), strict=True) if row]
    except csv.Error as error:
        raise UnreadableError(f"is no table: {one_line(error)}") from None
    foreign = [name for name in header if name not in columns]
    if len(foreign) == len(header):
        raise UnreadableError("has no header")
    if foreign or len(set(header)) < len(header):
        raise UnreadableError(f"has columns that are not ncflow's: {one_line(', '.join(foreign or header))}")
    missing = [name for name in required if name not in header]
    if missing:
        raise UnreadableError(f"lacks the columns {one_line(', '.join(missing))}")
    for number, row in enumerate(rows, start=1):
        if len(row) != len(header):
            raise UnreadableError(f"row {number} has {len(row)} fields instead of {len(header)}")
    return header, rows
