"""Read pickled dictionaries of arrays and numbers without running anything that the file asks for.

A pickle calls whatever it names. The files of CIFAR and ImageNet32 name nothing but the few functions with which numpy
puts an array together, so these names alone are known here, and each stands for a function of this file: not even
numpy's own, which trust their arguments, sees what the pickle says.
"""

import pickle
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

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
        self.value: NDArray = np.empty(0)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, raw = state
        self.fill(raw, dtype, shape, "F" if fortran else "C")

    def fill(self, raw: Any, dtype: _Dtype, shape: tuple[int, ...], order: Any) -> None:
        # Python 2 has bytes in its text; a bytearray, because an array over bytes could not be written to.
        content = bytearray(raw, "latin1") if isinstance(raw, str) else bytearray(memoryview(raw))
        self.value = np.frombuffer(content, dtype.dtype).reshape(shape, order=order)


def _reconstruct(_kind: Any, _shape: Any, _code: Any) -> _Array:
    return _Array()


def _frombuffer(raw: Any, dtype: _Dtype, shape: tuple[int, ...], order: str) -> _Array:
    array = _Array()
    array.fill(raw, dtype, shape, order)
    return array


def _encode(text: str, encoding: str) -> bytes:
    # Protocol 2 has no bytes: Python 3 writes them as this call, always in Latin-1.
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it asks for text in {encoding!r}")
    return text.encode("latin1")


_KNOWN: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _encode,
    # numpy 2 put an underscore before core.
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _reconstruct for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _frombuffer for core in ("core", "_core")},
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _KNOWN:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no file of arrays needs")
        return _KNOWN[module, name]


def load(file: BinaryIO, encoding: str = "latin1") -> dict[str, Any]:
    """Read a dictionary of arrays, numbers, text and lists of them; arrays are values of the dictionary itself.

    Args:
        file: Open for reading; pickled by Python 2 or 3, in any protocol.
        encoding: Of Python 2's text.

    Raises:
        pickle.UnpicklingError: Naming the file and, in one line, what is wrong with it: a function that it asks for,
            an array of objects, a content that ends too early or is no dictionary.
    """
    try:
        content = _Unpickler(file, encoding=encoding).load()
        if not isinstance(content, dict):
            raise pickle.UnpicklingError("it has no dictionary")
        return {key: value.value if isinstance(value, _Array) else value for key, value in content.items()}
    except Exception as error:  # bytes that are no pickle raise nearly anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise pickle.UnpicklingError(f"{file.name} cannot be read: {reason}") from error
