"""Features and labels that somebody extracted already, with or without the classifier's weights: no model is needed."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from math import nan
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ncflow.checks import ArgumentError, error_line, require
from ncflow.data.memory import free_memory, in_words
from ncflow.data.npz import read_arrays, read_headers
from ncflow.data.splits import few_of_each
from ncflow.measuring.classes import Every, Frequent
from ncflow.measuring.features import LAST, FeatureBatch
from ncflow.measuring.split import measure_split
from ncflow.metrics import NeuralCollapse

_NAMES = ("features", "labels", "weight", "bias")
# What needs the weights of the layers before the classifier.
_OF_ALL_WEIGHTS = ("rho", "normalized_", "gamma_norm")


@dataclass(frozen=True)
class Extracted:
    """Features H (N, d) of the classifier's input, which may lie in a file still, and what belongs to them.

    Attributes:
        features: H, of a floating type.
        labels: y, (N,), integers from 0.
        weight: W, (C, d), or None.
        bias: b, (C,), or None.
        rows: Which of the samples are meant, in order; None for all.
    """

    features: NDArray[Any]
    labels: Tensor
    weight: Tensor | None = None
    bias: Tensor | None = None
    rows: Tensor | None = None

    @classmethod
    def of(cls, arrays: Mapping[str, NDArray[Any]], limit: int | None = None) -> "Extracted":
        """Checked arrays, with at most ``limit`` samples of each class.

        Raises:
            ArgumentError: Naming the array, the rule and what was found.
        """
        H, y, W, b = (arrays.get(name) for name in _NAMES)
        missing = [name for name, value in (("features", H), ("labels", y)) if value is None]
        require(not missing, "features and labels", "given both", f"no {' and no '.join(missing)}")
        assert H is not None
        assert y is not None
        require(H.ndim == 2 and H.size > 0, "features", "of shape (N, d), of at least one sample", H.shape)
        require(np.issubdtype(H.dtype, np.floating), "features", "of a floating type", H.dtype)
        require(y.shape == H.shape[:1], "labels", f"of shape ({len(H)},), one for each feature", y.shape)
        require(np.issubdtype(y.dtype, np.integer), "labels", "integers", y.dtype)
        labels = torch.from_numpy(y.astype(np.int64))
        # A label without end would take a row for every class up to it.
        classes = len(labels) if W is None else len(W)
        rule = f"in 0..{classes - 1}, " + (
            "less than the number of samples" if W is None else "a row of the weights each"
        )
        require(
            int(labels.min()) >= 0 and int(labels.max()) < classes, "labels", rule, f"{labels.min()}..{labels.max()}"
        )
        if W is None and int(labels.min()) == 1:  # every class from 1 on: a class more would be counted, as absent
            require(len(labels.unique()) < int(labels.max()), "labels", "0..C-1", f"1..{labels.max()}")
        if W is not None:
            fits = W.ndim == 2 and W.shape[1] == H.shape[1] and len(W) >= 2
            require(fits, "weight", f"of shape (C, {H.shape[1]}), C being at least 2", W.shape)
            require(np.issubdtype(W.dtype, np.floating), "weight", "of a floating type", W.dtype)
        if b is not None:
            require(W is not None and b.shape == W.shape[:1], "bias", "of a number for each row of weight", b.shape)
        weight, bias = (None if value is None else torch.from_numpy(np.array(value)) for value in (W, b))
        whole = cls(H, labels, weight, bias)
        return whole if limit is None else replace(whole, rows=few_of_each(labels, limit))

    @property
    def num_samples(self) -> int:
        """N."""
        return len(self.labels) if self.rows is None else len(self.rows)

    @property
    def counts(self) -> Tensor:
        """Samples of each class, (C,)."""
        labels = self.labels if self.rows is None else self.labels[self.rows]
        return torch.bincount(labels, minlength=2 if self.weight is None else len(self.weight))

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Features and labels of so many samples at a time."""
        for start in range(0, self.num_samples, size):
            part = slice(start, start + size)
            rows: Any = part if self.rows is None else self.rows[part].numpy()
            yield torch.from_numpy(np.array(self.features[rows])), self.labels[rows]

    def measure(
        self,
        batch_size: int,
        delta: float = 0.05,
        self_pairs: bool = False,
        min_count: int | None = None,
        weight_decay: float = nan,
    ) -> dict[str, dict[str, float]]:
        """Measures as of :func:`ncflow.measuring.split.measure_split`; without W those that need none.

        Those that need the weights of other layers are not there.
        """
        if self.weight is not None:
            exact = self.features.dtype == np.float64 or self.weight.dtype == torch.float64
            head = _Classifier(self.weight, self.bias, torch.float64 if exact else torch.float32)
            loader = _Batches(self, batch_size)
            found = measure_split(
                head, loader, weight_decay=weight_decay, delta=delta, self_pairs=self_pairs, min_count=min_count
            )
            return without_other_weights(found)
        classes = Every() if min_count is None else Frequent.of(self.counts, min_count)
        number = len(classes.classes) if isinstance(classes, Frequent) else len(self.counts)
        metric = NeuralCollapse(number, self.features.shape[1], None, delta, self_pairs)

        def update() -> None:
            for features, labels in self.batches(batch_size):
                no_logits = features.new_zeros(1, 1).expand(len(labels), len(self.counts))
                whole = FeatureBatch({LAST: features}, labels, no_logits)
                own = classes.renumbered(classes.samples(whole))
                metric.update(own.features[LAST], own.labels)

        update()
        if metric.second_pass():
            update()
        return {LAST: {**{name: float(value) for name, value in metric.compute().items()}, **classes.said()}}


class _Batches:
    """The batches, as often as they are asked for."""

    def __init__(self, extracted: Extracted, size: int) -> None:
        self.extracted, self.size = extracted, size

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return self.extracted.batches(self.size)


class _Classifier(nn.Module):
    """A network that is its classifier alone."""

    def __init__(self, weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> None:
        super().__init__()
        self.classifier = nn.Linear(weight.shape[1], len(weight), bias is not None, dtype=dtype)
        state = {"weight": weight} if bias is None else {"weight": weight, "bias": bias}
        self.classifier.load_state_dict(state)

    def forward(self, features: Tensor) -> Tensor:
        """Logits (N, C)."""
        return self.classifier(features)


def without_other_weights(measured: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Measures by layer without those of the weights of layers that nobody has seen."""
    return {
        layer: {name: value for name, value in values.items() if not name.startswith(_OF_ALL_WEIGHTS)}
        for layer, values in measured.items()
    }


def read_extracted(files: Mapping[str, Path], limit: int | None = None) -> Extracted:
    """Features, labels and the classifier's weights from an ``.npz`` that has them, or a ``.npy`` each.

    A ``.npy`` of features is read where it lies, batch by batch. Nothing is unpickled.

    Args:
        files: Under ``data`` the ``.npz``; else under ``features``, ``labels`` and perhaps ``weight`` and ``bias``.
        limit: Most samples of each class, drawn once; None for all.

    Raises:
        ArgumentError: If a file cannot be read or does not fit the others.
    """
    arrays: dict[str, NDArray[Any]] = {}
    for name, path in files.items():
        require(path.is_file(), name, "an existing file", str(path))
        try:
            arrays |= _npz(path) if name == "data" else {name: np.load(path, mmap_mode="r", allow_pickle=False)}
        except ArgumentError:
            raise
        except Exception as error:  # bytes that are no arrays raise nearly anything
            kind = "npz" if name == "data" else "npy"
            rule = f"a readable .{kind} file of plain arrays ({error_line(error)})"
            raise ArgumentError(f"{name} must be {rule}, found {str(path)!r}") from error
        require(all(isinstance(array, np.ndarray) for array in arrays.values()), name, "one array", str(path))
    return Extracted.of(arrays, limit)


def _npz(path: Path) -> dict[str, NDArray[Any]]:
    headers = read_headers(path, _NAMES)
    needed, free = sum(header.num_bytes for header in headers.values()), free_memory()
    rule = f"a file that fits into memory, of which {in_words(free)} are free, or .npy files, which are read in parts"
    require(needed <= free, "data", rule, f"{path} with {in_words(needed)}")
    return read_arrays(path, list(headers))
