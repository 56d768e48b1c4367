"""Files of figures and pages: how they are made, marked as ours, and never written over what is not."""

import io
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ncflow.results import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAKER = "ncflow"
_METADATA: dict[str, dict[str, Any]] = {
    "png": {"Software": MAKER},
    "pdf": {"Creator": MAKER, "CreationDate": None},
    "svg": {"Creator": MAKER, "Date": None},
}
FORMATS = tuple(_METADATA)
"""Suffixes of the files of figures."""

Kind = Literal["svg", "png"]
"""Of a figure on a page, or in W&B."""

# What the bytes of a file of ours have in them, by its suffix: the metadata above as each format writes them, the
# comment of a GIF, the generator of a page.
_MARKS = {
    ".png": b"tEXtSoftware\0" + MAKER.encode(),
    ".svg": f"<dc:title>{MAKER}</dc:title>".encode(),
    ".pdf": f"/Creator ({MAKER})".encode(),
    ".gif": b"\x21\xfe" + bytes([len(MAKER)]) + MAKER.encode() + b"\0",
    ".html": f'<meta name="generator" content="{MAKER}">'.encode(),
    ".json": f'"maker": "{MAKER}"'.encode(),
}


def render(figure: "Figure", kind: str) -> bytes:
    """Bytes of a figure as a file of a kind; the same figure gives the same bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, metadata=_METADATA[kind])
    return buffer.getvalue()


def refuse_foreign(files: Iterable[Path]) -> None:
    """Raise where one of the files exists and is not of ours, which must not be lost.

    Raises:
        OSError: If there is such a file, or one that cannot be read.
    """
    for file in files:
        if os.path.lexists(file) and not (file.is_file() and _MARKS[file.suffix] in file.read_bytes()):
            raise FileExistsError(f"{file} exists and was not drawn by ncflow: move it, or choose another --out")


def write_own(file: Path, content: bytes) -> None:
    """Write a file, or replace one of ours.

    Raises:
        OSError: If another file is in its place, or it cannot be written.
    """
    refuse_foreign([file])
    write_atomically(file, content)
