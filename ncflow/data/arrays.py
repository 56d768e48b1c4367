"""A user's own arrays."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ncflow.checks import ArgumentError, error_line, require
from ncflow.data.base import InMemoryData
from ncflow.data.batches import Split
from ncflow.data.memory import free_memory, in_words
from ncflow.data.npz import read_arrays, read_headers
from ncflow.data.splits import stratified

_NAMES = ("X", "y", "X_test", "y_test")
_ENOUGH = 512  # bytes, to tell text


class Arrays(InMemoryData):
    """Arrays ``X`` (N, ...) and ``y`` (N,) from an ``.npz`` file, with ``X_test`` and ``y_test`` if it has them.

    ``X`` becomes float32 and is not rescaled but by ``max_norm``; ``y`` holds whole numbers 0..C-1, C being the largest
    label plus one and at most the number of training samples. Files that need unpickling are refused: loading them
    would run code of whoever made them. So are, before they are read, files that do not fit into memory.

    Args:
        path: The file.
        test_fraction: Share held out for testing when the file has no test arrays, stratified, drawn with the seed.
        common: Options of :class:`~ncflow.data.base.InMemoryData`.
    """

    def __init__(self, *, path: str, test_fraction: float = 0.2, **common: Any) -> None:
        super().__init__(**common)
        self.path = Path(path).expanduser()
        self.test_fraction = test_fraction
        require(self.path.is_file(), "path", "an existing .npz file", path)

    def load(self) -> tuple[Split, Split, int]:
        """Read and check the file."""
        arrays = self._read()
        train = self._split(arrays, "X", "y")
        if "X_test" in arrays:
            test = self._split(arrays, "X_test", "y_test")
            shapes = f"X {tuple(train.inputs.shape[1:])} and X_test {tuple(test.inputs.shape[1:])}"
            same = train.inputs.shape[1:] == test.inputs.shape[1:]
            require(same, "path", "a file whose X and X_test have inputs of one shape", shapes)
            _check_lowest(torch.cat([train.labels, test.labels]))
        else:
            _check_lowest(train.labels)
            kept, held_out = stratified(train.labels.numpy(), self.test_fraction, self.seed)
            test = train.take(torch.tensor(held_out, dtype=torch.long))
            train = train.take(torch.tensor(kept))
        for name in ("y", "y_test"):
            self._check_labels(arrays, name, len(train.labels), "training samples")
        num_classes = int(max(split.labels.max() for split in (train, test) if len(split.labels))) + 1
        require(num_classes >= 2, "path", "a file with at least two classes in y", f"{num_classes} class")
        return train, test, num_classes

    def _read(self) -> dict[str, NDArray[Any]]:
        begins = self.path.open("rb").read(_ENOUGH)
        require(not begins.startswith(b"\x93NUMPY"), "path", "an .npz file, not a single array", str(self.path))
        is_text = bool(begins) and not begins.startswith(b"PK") and _is_text(begins)
        rule = "an .npz file with X and y, as numpy.savez writes it, not a text file"
        require(not is_text, "path", rule, str(self.path))
        try:
            headers = read_headers(self.path, _NAMES)
            numbers = sum(header.size for name, header in headers.items() if name.startswith("X"))
            # Beside the arrays, the inputs in float32, twice: whole and split.
            needed = sum(header.num_bytes for header in headers.values()) + 8 * numbers
            free = free_memory()
            rule = f"a file that fits into memory, of which {in_words(free)} are free ({in_words(needed)} are needed)"
            require(needed <= free, "path", rule, str(self.path))
            return read_arrays(self.path, list(headers))
        except ArgumentError:
            raise
        except Exception as error:  # bytes that are no archive raise nearly anything
            rule = f"a readable .npz file of plain arrays ({error_line(error)})"
            raise ArgumentError(f"path must be {rule}, found {str(self.path)!r}") from error

    def _check_labels(self, arrays: dict[str, NDArray[Any]], name: str, count: int, of_what: str) -> None:
        """Refuse a label without end: every class up to the largest gets a row of the classifier and of the means."""
        if name in arrays and len(arrays[name]):
            largest = int(arrays[name].max())
            rule = f"a file whose {name} has labels less than {count}, the number of {of_what}"
            require(largest < count, "path", rule, f"label {largest}")

    def _split(self, arrays: dict[str, NDArray[Any]], inputs: str, labels: str) -> Split:
        missing = [name for name in (inputs, labels) if name not in arrays]
        require(not missing, "path", f"a file with arrays {inputs} and {labels}", f"{self.path} without {missing}")
        X, y = arrays[inputs], arrays[labels]
        require(X.ndim >= 2, "path", f"a file whose {inputs} has shape (N, ...)", f"shape {X.shape}")
        require(y.shape == X.shape[:1], "path", f"a file whose {labels} has shape ({len(X)},)", f"shape {y.shape}")
        require(np.issubdtype(y.dtype, np.integer), "path", f"a file whose {labels} has integers", f"dtype {y.dtype}")
        numeric = np.issubdtype(X.dtype, np.number) and not np.issubdtype(X.dtype, np.complexfloating)
        require(numeric or X.dtype == bool, "path", f"a file whose {inputs} has real numbers", f"dtype {X.dtype}")
        require(
            len(y) > 0 and y.min() >= 0, "path", f"a file whose {labels} has labels 0..C-1", f"{y[:5].tolist()} ..."
        )
        self._check_labels(arrays, labels, len(arrays["y"]), "samples in y")
        result = torch.from_numpy(np.ascontiguousarray(X, dtype=np.float32))
        require(bool(result.isfinite().all()), "path", f"a file whose {inputs} is finite in float32", "NaN or infinity")
        return Split(result, torch.from_numpy(y.astype(np.int64)))


def _check_lowest(labels: Tensor) -> None:
    """Refuse labels that are counted from 1: they would train one class more, of which there is no sample."""
    lowest, highest = int(labels.min()), int(labels.max())
    require(lowest == 0, "path", "a file whose labels in y are 0..C-1", f"{lowest}..{highest}")


def _is_text(begins: bytes) -> bool:
    """Whether a file that begins so is text in UTF-8; a character may be cut at the end."""
    if b"\0" in begins:
        return False
    try:
        begins.decode()
    except UnicodeDecodeError as error:
        return error.start >= len(begins) - 3
    return True
