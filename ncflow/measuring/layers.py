"""The metrics of the measured layers, over one pass of batches or two, on one process or many."""

from collections.abc import Sequence

import torch

from ncflow.checks import ArgumentError, require
from ncflow.measuring.features import LAST, FeatureBatch
from ncflow.measuring.groups import LayerGroups, feature_of
from ncflow.measuring.heads import both_sides
from ncflow.measuring.outputs import exact_device
from ncflow.measuring.ranks import gathered, over_ranks
from ncflow.metrics import NeuralCollapse
from ncflow.metrics.class_means import FirstSums
from ncflow.metrics.head import LinearHead

# What two passes over the same samples may differ by, on a GPU, against |H|.
_ROUNDING_OF_PASSES = 1e-4


class LayerMetrics:
    """The metric of each layer, made when the first batch says how many classes and features there are.

    Args:
        delta: As for :func:`ncflow.measuring.split.measure_split`.
        self_pairs: As for :func:`ncflow.measuring.split.measure_split`.
        max_cached_bytes: As for :func:`ncflow.measuring.split.measure_split`.
        groups: Those of the layers, which get what the metrics get.

    Attributes:
        found: By layer.
    """

    def __init__(self, delta: float, self_pairs: bool, max_cached_bytes: int | None, groups: LayerGroups) -> None:
        self.found: dict[str, NeuralCollapse] = {}
        self.groups = groups
        self._options: tuple[float, bool] = (delta, self_pairs)
        self._max_cached_bytes = max_cached_bytes
        self._classes = 0
        self._device = torch.device("cpu")
        self._again: dict[str, FirstSums] = {}

    def add(self, layer: str, dim: int, head: LinearHead | None) -> None:
        """Make the metric of a layer of features (N, d)."""
        # A hidden layer's features have another meaning, and often another size, than the rows of W.
        reads = head if layer == LAST else None
        metric = NeuralCollapse(self._classes, dim, reads, *self._options, max_cached_bytes=self._max_cached_bytes)
        metric.keeps_sums = self.groups.groups.keeps_sums
        self.found[layer] = metric.to(self._device)
        self.groups.add(layer, reads)

    def update(self, batch: FeatureBatch, head: LinearHead | None, layers: Sequence[str] | None = None) -> None:
        """Take in a batch, of the first pass or of the second one for some layers."""
        logits = both_sides(batch.logits)
        self._classes, self._device = logits.shape[1], exact_device(logits.device)
        labels = batch.labels.to(self._device)
        if layers is None and LAST in batch.features:
            self.groups.count_correct(logits.to(self._device), labels)
        for layer, given in batch.features.items():
            features = feature_of(layer, given, head)
            if layer not in self.found:
                self.add(layer, features.shape[1], head)
            features = features.to(self._device)
            self.found[layer].update(features, labels, logits.to(self._device) if layer == LAST else None)
            if layers is not None:
                zeros = FirstSums.zeros(self._classes, features.shape[1], self._device)
                self._again.setdefault(layer, zeros).add(features, labels)
                self.groups.second(layer, features, labels)
            else:
                self.groups.first(layer, features)

    def join(self, device: torch.device) -> dict[str, int]:
        """Features of each layer that other ranks have and this one, which was given no batch, has not."""
        own = {layer: (metric.num_classes, metric.feature_dim) for layer, metric in self.found.items()}
        shapes = next((shapes for shapes in gathered(own) if shapes), {})
        require(bool(shapes), "loaders", "loaders with at least one batch", "an empty one")
        missing = {layer: dim for layer, (_, dim) in shapes.items() if layer not in self.found}
        if missing:
            self._classes, self._device = next(iter(shapes.values()))[0], exact_device(device)
        return missing

    def unfit(self) -> list[str]:
        """The layers whose features did not fit, on this rank or another."""
        return [layer for layer, metric in self.found.items() if metric.second_pass()]

    def begin_groups(self, layers: Sequence[str]) -> None:
        """Give the groups of some layers the class means, before the second pass."""
        for layer in layers:
            means = self.found[layer].means
            assert means is not None
            self.groups.begin(layer, means)

    def check_passes(self, layers: Sequence[str]) -> None:
        """Refuse what gave other features in the second pass: the sums around the means of the first are not its own.

        Raises:
            ArgumentError: On every rank, if it is so on one.
        """
        for layer in layers:
            metric, again = self.found[layer], self._again.get(layer)
            differ = metric.sums.new_zeros(())
            if again is not None:
                # As many samples that differ a little at random would do: by the square root of their number.
                apart = torch.linalg.vector_norm(again.sums - metric.sums)
                allowed = _ROUNDING_OF_PASSES * torch.sqrt(metric.squares)
                differ = ((apart > allowed) | (again.counts != metric.counts).any()).to(differ.dtype)
            if float(over_ranks(differ)) > 0:
                raise ArgumentError(
                    f"loaders must give the same samples at every pass: {layer!r} gave other features when it was read "
                    "again; give loaders= without augmentation, or keep the features with max_cached_bytes=None"
                )
