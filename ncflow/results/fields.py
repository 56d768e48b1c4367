"""The tables that a run lets grow, field by field: what is none of ncflow's is refused in a line that says why."""

import csv
import io
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ncflow.results.readable import LARGEST_WHOLE, UnreadableError, one_line

if TYPE_CHECKING:
    import numpy as np

TEXTS = ("split", "layer")
LONGEST_LINE = 100_000  # bytes; ours have some thousands
_INFINITIES = {"inf", "infinity"}


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

    if not bool(np.all((values == np.floor(values)) & (values >= 0) & (values <= LARGEST_WHOLE))):
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
