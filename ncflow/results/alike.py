"""Tables of many runs read at once: those that are plainly as ncflow writes them, ten times faster than one by one.

What is not plain is left to :func:`ncflow.results.fields.read_columns`, which says what is wrong with it.
"""

import io
import re
import string
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ncflow.results.fields import LONGEST_LINE, TEXTS, as_whole, checked_fields, read_columns
from ncflow.results.readable import UnreadableError, leave_out

# Neither quotes nor spaces, which a reader may drop, nor the digits of other scripts.
_PLAIN = f"{string.ascii_letters}{string.digits}+-.,_\n".encode()
_TRUTH = re.compile(b"true|false", re.IGNORECASE)
_AT_ONCE = 2**23  # bytes


class Tables(NamedTuple):
    """Tables below each other: their files, how many rows each has, and the columns by name."""

    paths: list[Path]
    counts: list[int]
    columns: dict[str, Any]


def read_tables(
    paths: Iterable[Path], columns: Sequence[str], required: Sequence[str], whole: Sequence[str]
) -> Iterator[Tables]:
    """The tables in some files, those with one header together, in about the order of the files.

    A file that cannot be read is left out and named in a warning.

    Args:
        paths: The files.
        columns: All columns that a table may have.
        required: Those that it must have.
        whole: Those of whole numbers.
    """

    def strictly(path: Path) -> Iterator[Tables]:
        try:
            found = read_columns(path, columns, required, whole)
        except (UnreadableError, OSError) as error:
            leave_out(path, error)
            return
        yield Tables([path], [len(found[required[0]])], found)

    def together(files: list[tuple[Path, bytes]]) -> Iterator[Tables]:
        found = read_alike([content for _, content in files], whole)
        if found is None:
            for path, _ in files:
                yield from strictly(path)
        else:
            yield Tables([path for path, _ in files], [content.count(b"\n") - 1 for _, content in files], found)

    waiting: dict[bytes, list[tuple[Path, bytes]]] = {}
    for path in paths:
        content = _content(path)
        header = plain_header(content, columns, required)
        if header is None:
            yield from strictly(path)
            continue
        files = waiting.setdefault(header, [])
        files.append((path, content))
        if sum(len(content) for _, content in files) >= _AT_ONCE:
            yield from together(waiting.pop(header))
    for files in waiting.values():
        yield from together(files)


def _content(path: Path) -> bytes:
    """Of a file of a usual size; nothing of what is to be read with care."""
    try:
        return path.read_bytes() if path.is_file() and path.stat().st_size <= _AT_ONCE else b""
    except OSError:
        return b""


def plain_header(content: bytes, columns: Sequence[str], required: Sequence[str]) -> bytes | None:
    """The header of a table that is plainly as ncflow writes it; None of another, of one without rows or a torn one.

    Args:
        content: Of the file.
        columns: All columns that it may have.
        required: Those that it must have.
    """
    header, _, body = content.partition(b"\n")
    if not header or not body.endswith(b"\n") or content.translate(None, _PLAIN):
        return None
    if _TRUTH.search(body):  # which pandas would take for 1 and 0
        return None
    lines = body[:-1].split(b"\n")
    commas = header.count(b",")
    if any(line.count(b",") != commas for line in lines) or max(map(len, lines)) > LONGEST_LINE:
        return None
    try:
        checked_fields(header.decode(), columns, required)
    except UnreadableError:
        return None
    return header


def _version(package: Any) -> tuple[int, ...]:
    return tuple(map(int, package.__version__.split(".")[:2]))


def read_alike(contents: Sequence[bytes], whole: Sequence[str]) -> dict[str, Any] | None:
    """The columns of some tables below each other, by name.

    Args:
        contents: Of files with the same :func:`plain_header`, one or more.
        whole: The columns of whole numbers.

    Returns:
        ``split`` and ``layer`` as arrays (n,) of text, the others of int64 or float64, to the last digit; None where a
        field is not what its column is of, or infinite, which has to be looked into.
    """
    import numpy as np
    import pandas as pd

    header = contents[0].partition(b"\n")[0]
    names = header.decode().split(",")
    numeric = [name for name in names if name not in TEXTS]
    # From pandas 3.1 on there is one way to read a number, which is exact.
    exact: dict[str, Any] = {} if _version(pd) >= (3, 1) else {"float_precision": "round_trip"}
    try:
        table = pd.read_csv(
            io.BytesIO(b"".join([header, b"\n", *(content[len(header) + 1 :] for content in contents)])),
            dtype={name: object if name in TEXTS else np.float64 for name in names},
            keep_default_na=False,
            na_values={name: ["", "nan"] for name in numeric},
            index_col=False,
            low_memory=False,
            **exact,
        )
    except ValueError:
        return None
    # Of their own each, so that a column that is not wanted gives its memory back.
    found: dict[str, Any] = {name: table[name].to_numpy(copy=True) for name in names}
    for name in numeric:
        values = found[name]
        if np.isinf(values).any():
            return None
        if name in whole:
            try:
                found[name] = as_whole(name, values)
            except UnreadableError:
                return None
    return found
