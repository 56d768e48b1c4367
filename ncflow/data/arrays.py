"""A user's own arrays."""

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ncflow.checks import ArgumentError, require
from ncflow.data.base import InMemoryData
from ncflow.data.batches import Split
from ncflow.data.splits import stratified


class Arrays(InMemoryData):
    """Arrays ``X`` (N, ...) and ``y`` (N,) from an ``.npz`` file, with ``X_test`` and ``y_test`` where it has them.

    ``X`` becomes float32 and is not rescaled but by ``max_norm``; ``y`` holds whole numbers 0..C-1, C being the largest
    label plus one. Files that need unpickling are refused: loading them would run code of whoever made them.

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
        else:
            kept, held_out = stratified(train.labels.numpy(), self.test_fraction, self.seed)
            test = train.take(torch.tensor(held_out, dtype=torch.long))
            train = train.take(torch.tensor(kept))
        num_classes = int(max(split.labels.max() for split in (train, test) if len(split.labels))) + 1
        require(num_classes >= 2, "path", "a file with at least two classes in y", f"{num_classes} class")
        return train, test, num_classes

    def _read(self) -> dict[str, NDArray]:
        try:
            file = np.load(self.path, allow_pickle=False)
            require(isinstance(file, np.lib.npyio.NpzFile), "path", "an .npz file, not a single array", str(self.path))
            with file:
                return {name: file[name] for name in file.files if name in ("X", "y", "X_test", "y_test")}
        except ArgumentError:
            raise
        except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            rule = f"a readable .npz file of plain arrays ({' '.join(str(error).split())})"
            raise ArgumentError(f"path must be {rule}, found {str(self.path)!r}") from error

    def _split(self, arrays: dict[str, NDArray], inputs: str, labels: str) -> Split:
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
        result = torch.from_numpy(np.ascontiguousarray(X, dtype=np.float32))
        require(bool(result.isfinite().all()), "path", f"a file whose {inputs} is finite in float32", "NaN or infinity")
        return Split(result, torch.from_numpy(y.astype(np.int64)))
