"""Only the classes with enough samples, for labels such as tokens, of which most come rarely."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ncflow.checks import require
from ncflow.measuring.adapters import Adapters
from ncflow.measuring.features import FeatureBatch
from ncflow.measuring.heads import Head, both_sides
from ncflow.measuring.ranks import gathered
from ncflow.metrics.head import LinearHead


class Every:
    """All classes: what is measured where none is left out."""

    def samples(self, batch: FeatureBatch) -> FeatureBatch:
        """All."""
        return batch

    def renumbered(self, batch: FeatureBatch) -> FeatureBatch:
        """As they are."""
        return batch

    def head(self, head: LinearHead) -> LinearHead:
        """As it is."""
        return head

    def said(self) -> dict[str, float]:
        """Nothing."""
        return {}


@dataclass(frozen=True)
class Frequent(Every):
    """The classes that are measured, renumbered 0..K-1, with their rows of W and their logits.

    Attributes:
        classes: Their labels, (K,), in order.
        classes_left_out: Those with a sample, but not enough.
        samples_left_out: Of these.
    """

    classes: Tensor
    classes_left_out: int
    samples_left_out: int

    @classmethod
    def of(cls, counts: Tensor, min_count: int) -> "Frequent":
        """Those of which there are so many.

        Args:
            counts: Samples of each class, (C,).
            min_count: The number, >= 1.

        Raises:
            ArgumentError: If they are less than two.
        """
        enough = counts >= min_count
        classes = enough.nonzero().flatten()
        rule = "a number of samples that at least 2 classes have"
        require(len(classes) >= 2, "min_count", rule, f"{min_count}, which {len(classes)} have")
        rare = counts[~enough]
        return cls(classes, int((rare > 0).sum()), int(rare.sum()))

    def samples(self, batch: FeatureBatch) -> FeatureBatch:
        """Those of these classes, with the labels and logits that they have."""
        own = self._number(batch.labels) >= 0
        features = {name: value[own] for name, value in batch.features.items()}
        return FeatureBatch(features, batch.labels[own], batch.logits[own])

    def renumbered(self, batch: FeatureBatch) -> FeatureBatch:
        """Such samples as if there were no other classes."""
        logits = both_sides(batch.logits)
        C, largest = logits.shape[1], int(self.classes[-1])
        require(largest < C, "labels", f"in 0..{C - 1}", f"0..{largest}")
        return FeatureBatch(batch.features, self._number(batch.labels), logits[:, self.classes.to(logits.device)])

    def head(self, head: LinearHead) -> Head:
        """Their rows of a classifier."""
        own = self.classes.to(head.weight.device)
        weight, bias = head.weight.detach()[own], None if head.bias is None else head.bias.detach()[own]
        if isinstance(head, Head):
            return replace(head, weight=weight, bias=bias)
        return Head(weight, bias, is_parameter=True)

    def said(self) -> dict[str, float]:
        """What a row says of what is left out."""
        return {"classes_left_out": self.classes_left_out, "samples_left_out": self.samples_left_out}

    def _number(self, labels: Tensor) -> Tensor:
        """Place of each label among the classes, -1 for others."""
        classes = self.classes.to(labels.device)
        place = torch.searchsorted(classes, labels.contiguous()).clamp(max=len(classes) - 1)
        return torch.where(classes[place] == labels, place, -1)


def label_counts(model: nn.Module, loader: Iterable[Any], adapters: Adapters) -> Tensor:
    """Samples of each class in the loaders of all ranks, (C,) up to the largest label; the model is not called.

    Raises:
        ArgumentError: If a label is negative, and none that is to be ignored.
    """
    counts = torch.zeros(0, dtype=torch.long)
    for batch in loader:
        labels = adapters.read(model, batch).labels
        kept = adapters.kept(labels)
        own = (labels if kept is None else labels[kept]).flatten().long().cpu()
        if len(own):
            require(int(own.min()) >= 0, "labels", "at least 0", int(own.min()))
            new = torch.bincount(own, minlength=len(counts))
            new[: len(counts)] += counts
            counts = new
    everywhere = gathered(counts)
    total = torch.zeros(max(map(len, everywhere)), dtype=torch.long)
    for own in everywhere:
        total[: len(own)] += own
    return total
