"""Read arrays out of an ``.npz`` file after its headers: what it claims is checked before it is taken into memory."""

import math
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

_LONGEST_HEADER = 2**16  # of an array of numbers; numpy would take in whatever length a file claims


class Header(NamedTuple):
    """What an array's entry says of it: shape, number type, and bytes of its content."""

    shape: tuple[int, ...]
    dtype: np.dtype
    num_bytes: int

    @property
    def size(self) -> int:
        """How many numbers it has."""
        return math.prod(self.shape)


def read_headers(path: Path, names: Sequence[str]) -> dict[str, Header]:
    """Headers of those of the arrays that the file has; no content is read.

    Raises:
        ValueError: For an array of objects, and where an entry has another size than its header says.
        Exception: Of many kinds, for a file that is no archive of arrays.
    """
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.NameToInfo.get(f"{name}.npy") for name in names}
        found = {}
        for name, entry in entries.items():
            if entry is not None:
                with archive.open(entry) as file:
                    found[name] = _header(file, name, entry.file_size)  # type: ignore[arg-type]
        return found


def read_arrays(path: Path, names: Sequence[str]) -> dict[str, NDArray[Any]]:
    """The arrays of a file whose headers were checked; none is unpickled."""
    with zipfile.ZipFile(path) as archive:
        arrays = {}
        for name in names:
            with archive.open(f"{name}.npy") as file:
                arrays[name] = np.lib.format.read_array(file, allow_pickle=False)
        return arrays


def _header(file: BinaryIO, name: str, entry_size: int) -> Header:
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0), (3, 0)):
        raise ValueError(f"{name} is of an unknown version {version}")
    width = 2 if version == (1, 0) else 4
    length = int.from_bytes(file.read(width), "little")
    if length > _LONGEST_HEADER:
        raise ValueError(f"{name} has a header of {length} bytes")
    file.seek(np.lib.format.MAGIC_LEN)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    if dtype.hasobject:
        raise ValueError(f"{name} has objects, and to read them would run code")
    header = Header(shape, dtype, math.prod(shape) * dtype.itemsize)
    content = entry_size - np.lib.format.MAGIC_LEN - width - length
    if header.num_bytes != content:
        raise ValueError(f"{name} of shape {shape} in {dtype} takes {header.num_bytes} bytes, and has {content}")
    return header
