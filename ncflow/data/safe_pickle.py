"""Read pickled dictionaries of arrays and numbers without running anything that the file asks for.

A pickle calls whatever it names. The files of CIFAR and ImageNet32 name nothing but the few functions with which numpy
puts an array together, so these names alone are known here, and each stands for a function of this file: not even
numpy's own, which trust their arguments, sees what the pickle says.

A pickle can also say much in few bytes: use one text for thousands of arrays, nest lists of one list, or number its
memo from four billion. What it makes is therefore counted, and more than the file has bytes is refused.
"""

import os
import pickle
import pickletools
from collections.abc import Mapping
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ncflow.checks import error_line

_TOO_MUCH = "it asks for more than the file has bytes"
_PLAIN = frozenset({"b1", "u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f2", "f4", "f8"})


class _Dtype:
    """Stands for ``numpy.dtype``: a plain number, never an object."""

    def __init__(self, code: str, *_options: Any) -> None:
        if code not in _PLAIN:
            raise pickle.UnpicklingError(f"it has an array of {code!r}, which is no plain number")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.dtype = self.dtype.newbyteorder(state[1])


class _Array:
    """Stands for ``numpy.ndarray``: made empty, as numpy pickles it, and given its content as a state."""

    def __init__(self) -> None:
        self._given: tuple[Any, ...] = (b"", _Dtype("u1"), (0,), "C")

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, raw = state
        self.fill(raw, dtype, shape, "F" if fortran else "C")

    def fill(self, raw: Any, dtype: _Dtype, shape: tuple[int, ...], order: Any) -> None:
        self._given = (raw, dtype, shape, order)

    @property
    def num_bytes(self) -> int:
        """Length of the content."""
        raw = self._given[0]
        return len(raw) if isinstance(raw, str) else memoryview(raw).nbytes

    def value(self) -> NDArray[Any]:
        """The array, made only now: a pickle may ask for thousands over one content."""
        raw, dtype, shape, order = self._given
        # Python 2 has bytes in its text; a bytearray, because an array over bytes could not be written to.
        content = bytearray(raw, "latin1") if isinstance(raw, str) else bytearray(memoryview(raw))
        return np.frombuffer(content, dtype.dtype).reshape(shape, order=order)


def _reconstruct(_kind: Any, _shape: Any, _code: Any) -> _Array:
    return _Array()


def _frombuffer(raw: Any, dtype: _Dtype, shape: tuple[int, ...], order: str) -> _Array:
    array = _Array()
    array.fill(raw, dtype, shape, order)
    return array


_KNOWN: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    # numpy 2 put an underscore before core.
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _reconstruct for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _frombuffer for core in ("core", "_core")},
}


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: BinaryIO, encoding: str, budget: int) -> None:
        super().__init__(file, encoding=encoding)
        self._budget = budget

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("_codecs", "encode"):
            return self._encode
        if (module, name) not in _KNOWN:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no file of arrays needs")
        return _KNOWN[module, name]

    def _encode(self, text: str, encoding: str) -> bytes:
        # Protocol 2 has no bytes: Python 3 writes them as this call, always in Latin-1.
        if encoding != "latin1":
            raise pickle.UnpicklingError(f"it asks for text in {encoding!r}")
        self._budget -= len(text)
        if self._budget < 0:
            raise pickle.UnpicklingError(_TOO_MUCH)
        return text.encode("latin1")


class _Outline:
    """A file whose long contents are zeros that nobody has to read, as they matter to no opcode."""

    _LONG = 2**16

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._size = file, size
        self.readline = file.readline

    def read(self, count: int) -> bytes:
        count = min(count, self._size - self._file.tell())  # no room for what is not there
        if count <= self._LONG:
            return self._file.read(count)
        self._file.seek(count, os.SEEK_CUR)
        return bytes(count)


def load(file: BinaryIO, encoding: str = "latin1") -> dict[str, Any]:
    """Read a dictionary of arrays, numbers, text and lists of them; arrays are values of the dictionary itself.

    Args:
        file: Open for reading; pickled by Python 2 or 3, in any protocol.
        encoding: Of Python 2's text.

    Raises:
        pickle.UnpicklingError: Naming the file and, in one line, what is wrong with it: a function that it asks for,
            an array of objects, more content than the file has bytes, one that ends too early or is no dictionary.
    """
    try:
        size = os.fstat(file.fileno()).st_size
        _check_memo(file, size)
        content = _Unpickler(file, encoding, size).load()
        if not isinstance(content, dict):
            raise pickle.UnpicklingError("it has no dictionary")
        arrays = {id(value): value for value in content.values() if isinstance(value, _Array)}
        if sum(array.num_bytes for array in arrays.values()) > size or _count(content, {}) > size:
            raise pickle.UnpicklingError(_TOO_MUCH)
        made = {key: array.value() for key, array in arrays.items()}
        return {key: made.get(id(value), value) for key, value in content.items()}
    except Exception as error:  # bytes that are no pickle raise nearly anything
        raise pickle.UnpicklingError(f"{file.name} cannot be read: {error_line(error)}") from error


def _check_memo(file: BinaryIO, size: int) -> None:
    """Refuse a place in the memo beyond the file's size: Python makes room for all places up to it."""
    start = file.tell()
    for operation, argument, _ in pickletools.genops(_Outline(file, size)):  # type: ignore[arg-type]
        if operation.name in ("PUT", "BINPUT", "LONG_BINPUT") and int(argument or 0) > size:
            raise pickle.UnpicklingError(_TOO_MUCH)
    file.seek(start)


def _count(value: Any, known: dict[int, float]) -> float:
    """How many values there are in a value, those of a list that is in it twice counted twice."""
    if not isinstance(value, list | tuple | set | frozenset | Mapping):
        return 1
    if id(value) not in known:
        known[id(value)] = float("inf")  # for a list that is in itself
        items = [*value.keys(), *value.values()] if isinstance(value, Mapping) else value
        known[id(value)] = 1 + sum(_count(item, known) for item in items)
    return known[id(value)]
