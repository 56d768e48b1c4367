"""Neural collapse of one layer: a pure function and the torchmetrics Metric that delegates to it."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from ncflow.checks import require
from ncflow.metrics.cosine import class_sums, cosine_measures, direction_sums, duality_cosines


def neural_collapse(
    features: Tensor,
    labels: Tensor,
    num_classes: int,
    weight: Tensor | None = None,
    *,
    delta: float = 0.05,
    self_pairs: bool = False,
) -> dict[str, Tensor]:
    """Measure the collapse of features.

    Sums are in float64 whatever the type of the features. An absent class, a class of one and a feature at the
    centre are left out of what they leave undefined; a measure that nothing defines is NaN.

    Args:
        features: H, (N, d), any floating type.
        labels: y, (N,), integers 0..C-1.
        num_classes: C >= 2.
        weight: Classifier W, (C, d), for the NC3 measures and ``weight_norm``; None leaves them out.
        delta: Level of ``intra_quantile``; ``inter_quantile`` is at 1 - delta. In (0, 1).
        self_pairs: Whether intra counts the pairs i = j (see :func:`ncflow.metrics.cosine.cosine_measures`).

    Returns:
        Float64 scalars by name, with their limits at collapse: ``intra_min``, ``intra_mean``, ``intra_quantile``
        (1), ``inter_max``, ``inter_mean``, ``inter_quantile`` (-1/(C-1)), ``nc3_cosine_min``, ``nc3_cosine_mean``
        (1), ``feature_rms_norm`` (alpha = sqrt(mean |h|^2)), ``weight_norm`` (|W|_F), ``classes_present``.

    Raises:
        ArgumentError: (a ValueError) naming the argument, the rule and the value found.

    Example:
        >>> import torch
        >>> H = torch.tensor([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [-1.0, 0.0]])
        >>> measures = neural_collapse(H, torch.tensor([0, 0, 1, 1]), num_classes=2)
        >>> measures["intra_min"].item(), measures["inter_max"].item()
        (1.0, -1.0)
    """
    _check(features, labels, num_classes, delta)
    if weight is not None:
        expected = (num_classes, features.shape[1])
        require(tuple(weight.shape) == expected, "weight", f"of shape (C, d) = {expected}", tuple(weight.shape))
    return _measure([(features, labels)], num_classes, weight, delta, self_pairs)


def _measure(
    batches: Sequence[tuple[Tensor, Tensor]], num_classes: int, weight: Tensor | None, delta: float, self_pairs: bool
) -> dict[str, Tensor]:
    """Both entrances' one answer, from checked batches."""
    first = batches[0][0]
    sums, counts, squares = class_sums(batches, num_classes, first.shape[1], first.device)
    total = counts.sum()
    means = sums / torch.where(counts > 0, counts, torch.nan)[:, None]
    directions = direction_sums(batches, sums.sum(0) / total, num_classes)
    measures = cosine_measures(*directions, delta, self_pairs)
    if weight is not None:
        measures |= duality_cosines(weight, means, means[counts > 0].mean(0))
        measures["weight_norm"] = torch.linalg.matrix_norm(weight.double())
    measures["feature_rms_norm"] = torch.sqrt(squares / total)
    measures["classes_present"] = (counts > 0).sum().double()
    return measures


def _check(features: Tensor, labels: Tensor, num_classes: int, delta: float) -> None:
    require(num_classes >= 2, "num_classes", "at least 2", num_classes)
    require(0 < delta < 1, "delta", "in (0, 1)", delta)
    shape = tuple(features.shape)
    require(features.ndim == 2, "features", "of shape (N, d)", shape)
    require(features.is_floating_point(), "features", "of a floating type", features.dtype)
    require(len(features) > 0, "features", "at least one sample", shape)
    require(tuple(labels.shape) == shape[:1], "labels", f"of shape (N,) = {shape[:1]}", tuple(labels.shape))
    whole = not labels.is_floating_point() and not labels.is_complex() and labels.dtype != torch.bool
    require(whole, "labels", "integers", labels.dtype)
    low, high = (int(bound) for bound in torch.aminmax(labels))
    require(low >= 0 and high < num_classes, "labels", f"in 0..{num_classes - 1}", f"{low}..{high}")


class NeuralCollapse(Metric):
    """Neural collapse of the features given batch by batch.

    Args:
        num_classes: C.
        feature_dim: d.
        classifier: The linear classifier whose weight (C, d) the NC3 measures compare with the class means; it is
            read at :meth:`compute` and is no part of the metric's state. None leaves those measures out.
        delta: Level of the quantiles, in (0, 1).
        self_pairs: Whether intra counts the pairs i = j.
        kwargs: Of :class:`torchmetrics.Metric`.

    Example:
        >>> import torch
        >>> metric = NeuralCollapse(num_classes=2, feature_dim=2)
        >>> metric.update(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), torch.tensor([0, 1]))
        >>> metric.update(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), torch.tensor([0, 1]))
        >>> metric.compute()["inter_max"].item()
        -1.0
    """

    full_state_update = False
    is_differentiable = False
    features: list[Tensor]
    labels: list[Tensor]

    def __init__(
        self,
        num_classes: int,
        feature_dim: int,
        classifier: nn.Linear | None = None,
        delta: float = 0.05,
        self_pairs: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        require(num_classes >= 2, "num_classes", "at least 2", num_classes)
        require(feature_dim >= 1, "feature_dim", "at least 1", feature_dim)
        require(0 < delta < 1, "delta", "in (0, 1)", delta)
        self.num_classes, self.feature_dim = num_classes, feature_dim
        self.delta, self.self_pairs = delta, self_pairs
        # In a tuple, so that the module does not register the classifier as its own.
        self._classifier = (classifier,)
        self.add_state("features", default=[], dist_reduce_fx="cat")
        self.add_state("labels", default=[], dist_reduce_fx="cat")

    def update(self, features: Tensor, labels: Tensor, logits: Tensor | None = None) -> None:
        """Take in a batch.

        Args:
            features: (B, d).
            labels: (B,), integers 0..C-1.
            logits: (B, C), for the measures that need them.
        """
        shape = tuple(features.shape)
        right = len(shape) == 2 and shape[1] == self.feature_dim
        require(right, "features", f"of shape (B, {self.feature_dim})", shape)
        if len(features) == 0:
            return
        _check(features, labels, self.num_classes, self.delta)
        self.features.append(features.detach())
        self.labels.append(labels)

    def compute(self) -> dict[str, Tensor]:
        """The measures of :func:`neural_collapse` over all batches."""
        require(len(self.features) > 0, "update", "called before compute", "no sample")
        classifier = self._classifier[0]
        weight = None if classifier is None else classifier.weight.detach()
        # After a sync over processes the states are single tensors, before it lists.
        gathered = [state if isinstance(state, list) else [state] for state in (self.features, self.labels)]
        return _measure(list(zip(*gathered, strict=True)), self.num_classes, weight, self.delta, self.self_pairs)
