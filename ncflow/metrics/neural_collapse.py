"""Neural collapse of one layer: a pure function and the torchmetrics Metric, one answer with two entrances."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.utilities.distributed import gather_all_tensors

from ncflow.checks import require
from ncflow.metrics.collapse import choice_measures, collapse_measures
from ncflow.metrics.margins import margins, predictions
from ncflow.metrics.statistics import FirstSums, Geometry, SecondSums, geometry

Center = Literal["samples", "classes", "none"]


class _Head(NamedTuple):
    """What is read of a linear classifier: W (C, d) and b (C,) or None."""

    weight: Tensor
    bias: Tensor | None


def neural_collapse(
    features: Tensor,
    labels: Tensor,
    num_classes: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    delta: float = 0.05,
    self_pairs: bool = False,
    *,
    center: Center = "samples",
    logits: Tensor | None = None,
) -> dict[str, Tensor]:
    """Measure the collapse of features.

    Sums are in float64 whatever the type of the features. What leaves a measure undefined (an absent class, a class of
    one, a feature at the centre) is left out of it; a measure that nothing defines is NaN, and so is one that reads a
    feature that is not finite.

    Args:
        features: H, (N, d), any floating type.
        labels: y, (N,), integers 0..C-1.
        num_classes: C >= 2.
        weight: Classifier W, (C, d), for the measures of NC3, NC4 and the weights; None leaves them out.
        bias: Classifier b, (C,), used for the choices W h + b of NC4; None for 0.
        delta: Level of ``intra_quantile``; ``inter_quantile`` is at 1 - delta. In (0, 1).
        self_pairs: Whether intra counts the pairs i = j (see :func:`ncflow.metrics.cosine.cosine_measures`).
        center: h_G of the cosine family: ``samples``, the mean over samples; ``classes``, the mean of the class means;
            ``none``, 0, the setting of the theorem.
        logits: (N, C), in place of W h + b.

    Returns:
        Float64 scalars by name. Their definitions and limits at collapse are with the functions of the families:
        :mod:`~ncflow.metrics.cosine`, :mod:`~ncflow.metrics.covariance` (NC1, NC2), :mod:`~ncflow.metrics.duality`
        (NC3); here ``nc4_agreement``, the share of samples whose nearest class mean is the classifier's choice (1),
        ``ncc_accuracy``, whose nearest class mean is the label's (1), ``margin_min``, ``margin_mean``, ``margin_std``,
        ``feature_rms_norm`` (alpha = sqrt(mean |h|^2), not centred), ``classes_present`` (C), ``nonfinite_samples``.

    Raises:
        ArgumentError: (a ValueError) naming the argument, the rule and the value found.

    Example:
        >>> import torch
        >>> H = torch.tensor([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [-1.0, 0.0]])
        >>> measures = neural_collapse(H, torch.tensor([0, 0, 1, 1]), num_classes=2)
        >>> measures["intra_min"].item(), measures["inter_max"].item(), measures["nc1"].item()
        (1.0, -1.0, 0.0)
    """
    require(features.ndim == 2, "features", "of shape (N, d)", tuple(features.shape))
    require(len(features) > 0, "features", "at least one sample", tuple(features.shape))
    if weight is not None and bias is not None:
        require(tuple(bias.shape) == (num_classes,), "bias", f"of shape (C,) = ({num_classes},)", tuple(bias.shape))
    metric = NeuralCollapse(
        num_classes,
        features.shape[1],
        None if weight is None else _Head(weight, bias),
        delta,
        self_pairs,
        center=center,
        max_cached_bytes=None,
        sync_on_compute=False,
    ).to(features.device)
    metric.update(features, labels, logits)
    return metric.compute()


class NeuralCollapse(Metric):
    """Neural collapse of the features given batch by batch, on one process or many.

    The measures need two passes over the features. Each rank keeps its own up to ``max_cached_bytes``; beyond that
    they are dropped, and the data has to be read twice::

        for features, labels in batches(): metric.update(features, labels)
        if metric.second_pass():
            for features, labels in batches(): metric.update(features, labels)
        values = metric.compute()

    Only sums of size (C, d) and smaller cross ranks. A value depends on batches, ranks and caching by rounding alone.
    Nothing in :meth:`update` waits for a GPU; labels out of range are found there on a CPU, on a GPU at the end.

    Args:
        num_classes: C.
        feature_dim: d.
        classifier: The linear classifier; its weight (C, d) and bias are read at :meth:`compute` and are no part of the
            metric's state. None leaves out the measures of NC3, NC4 and the weights.
        delta: Level of the quantiles, in (0, 1).
        self_pairs: Whether intra counts the pairs i = j.
        center: h_G of the cosine family: ``samples``, ``classes`` or ``none``.
        max_cached_bytes: Bytes of features kept; None for no limit.
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
    higher_is_better = None
    features: list[Tensor]
    labels: list[Tensor]
    predicted: list[Tensor]
    margins: list[Tensor]
    dropped: list[Tensor]
    sums: Tensor
    counts: Tensor
    squares: Tensor
    nonfinite: Tensor
    label_range: Tensor

    def __init__(
        self,
        num_classes: int,
        feature_dim: int,
        classifier: nn.Linear | _Head | None = None,
        delta: float = 0.05,
        self_pairs: bool = False,
        *,
        center: Center = "samples",
        max_cached_bytes: int | None = 2**31,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        require(num_classes >= 2, "num_classes", "at least 2", num_classes)
        require(feature_dim >= 1, "feature_dim", "at least 1", feature_dim)
        require(0 < delta < 1, "delta", "in (0, 1)", delta)
        require(center in ("samples", "classes", "none"), "center", "'samples', 'classes' or 'none'", center)
        limited = max_cached_bytes is None or max_cached_bytes >= 0
        require(limited, "max_cached_bytes", "None or at least 0", max_cached_bytes)
        self.num_classes, self.feature_dim = num_classes, feature_dim
        self.delta, self.self_pairs, self.center = delta, self_pairs, center
        self.max_cached_bytes = max_cached_bytes
        # In a tuple, so that the module does not register the classifier as its own.
        self._classifier = (classifier,)
        self._gather: Callable[[Tensor], list[Tensor]] | None = None
        # Lists stay on their rank; `dropped` is a list so that asking whether it is empty waits for no device.
        for name in ("features", "labels", "predicted", "margins", "dropped"):
            self.add_state(name, default=[], dist_reduce_fx="cat")
        first = FirstSums.zeros(num_classes, feature_dim)
        for name in ("sums", "counts", "squares", "nonfinite"):
            self.add_state(name, default=getattr(first, name), dist_reduce_fx="sum")
        self.add_state("label_range", default=torch.tensor([num_classes, -1]), dist_reduce_fx=_join_ranges)
        self._second: tuple[SecondSums, Geometry] | None = None

    # --- taking in -------------------------------------------------------------------------------------------------

    def update(self, features: Tensor, labels: Tensor, logits: Tensor | None = None) -> None:
        """Take in a batch.

        Args:
            features: (B, d), any floating type.
            labels: (B,), integers 0..C-1.
            logits: (B, C), or (B, 1) of a classifier with one output, given with every batch or with none; None for
                those of ``classifier``.
        """
        self._check(features, labels, logits)
        if len(labels) == 0:
            return
        features, labels = features.detach(), labels.long()
        if self._second is None:
            self._first_update(features, labels, logits)
        else:
            self._second_update(*self._second, features, labels, logits)

    def _first_update(self, features: Tensor, labels: Tensor, logits: Tensor | None) -> None:
        self.label_range = _join_ranges(torch.stack([self.label_range, torch.stack(torch.aminmax(labels))]))
        if labels.device.type == "cpu":
            self._check_labels(self.label_range)
        labels = labels.clamp(0, self.num_classes - 1)
        self._first().add(features, labels)
        if logits is not None:
            self.margins.append(margins(logits.detach(), labels))
        kept = sum(batch.nbytes for batch in self.features) + features.nbytes
        if self.dropped or (self.max_cached_bytes is not None and kept > self.max_cached_bytes):
            self.features, self.labels, self.predicted = [], [], []
            self.dropped = [torch.zeros(0)]
            return
        self.features.append(features)
        self.labels.append(labels)
        if logits is not None:
            self.predicted.append(predictions(logits.detach()))

    def _second_update(
        self, second: SecondSums, around: Geometry, features: Tensor, labels: Tensor, logits: Tensor | None
    ) -> None:
        labels = labels.clamp(0, self.num_classes - 1)
        if logits is None:
            logits = self._logits(features)
            if logits is not None:
                self.margins.append(margins(logits, labels))
        second.add(features, labels, None if logits is None else predictions(logits.detach()), around)

    def _logits(self, features: Tensor) -> Tensor | None:
        """W h + b in float64 where there is a classifier, else None."""
        classifier = self._classifier[0]
        if classifier is None:
            return None
        bias = None if classifier.bias is None else classifier.bias.detach().double()
        return nn.functional.linear(features.double(), classifier.weight.detach().double(), bias)

    def second_pass(self) -> bool:
        """Whether the features did not fit, on this rank or another, so that the data has to be given once more.

        Under distributed training every rank has to call it.
        """
        with self.sync_context(should_sync=self.sync_on_compute):
            if self._second is not None or float(self._total(self._flag(bool(self.dropped)))) == 0:
                return False
            around = self._geometry()
        self.features, self.labels, self.predicted = [], [], []
        self.dropped = [torch.zeros(0)]
        self._second = SecondSums.zeros(self.num_classes, self.feature_dim, self.sums.device), around
        return True

    def centred_means(self) -> Tensor:
        """M, (K, d): mu_c - mu_G of the present classes, over all batches of all ranks; every rank has to call it."""
        with self.sync_context(should_sync=self.sync_on_compute):
            return self._geometry().centred

    def _flag(self, value: bool) -> Tensor:
        return self.squares.new_tensor(float(value))

    # --- giving out ------------------------------------------------------------------------------------------------

    def compute(self) -> dict[str, Tensor]:
        """The measures of :func:`neural_collapse` over all batches of all ranks."""
        waiting = self._second is None and bool(self.dropped)
        require(
            float(self._total(self._flag(waiting))) == 0,
            "update",
            "called for all data once more after second_pass()",
            f"features beyond max_cached_bytes = {self.max_cached_bytes}",
        )
        if self._second is not None:
            second, around = self._second
            own = self.margins
        else:
            around = self._geometry()
            second, computed = self._over_cache(around)
            own = [*self.margins, *computed]
        second = SecondSums(*(self._total(part) for part in second.parts()))
        total, seen = int(around.counts.sum()), int(second.seen)
        require(seen == total, "update", f"given the same {total} samples in the second pass", seen)
        squares, classifier = self._total(self.squares), self._classifier[0]
        weight = None if classifier is None else classifier.weight.detach()
        measures = collapse_measures(
            around, second, squares, self._total(self.nonfinite), weight, self.delta, self.self_pairs
        )
        if float(self._total(self._flag(bool(own)))) > 0:
            values = torch.cat(own) if own else squares.new_zeros(0)
            agreeing = second.nearest_is_predicted
            measures |= choice_measures(values, agreeing, squares, total, self._total, self._least)
        return measures

    def _over_cache(self, around: Geometry) -> tuple[SecondSums, list[Tensor]]:
        """Sums of the second pass over the kept features, and margins where no logits were given."""
        given = len(self.predicted)
        rule = "given with every batch or with none"
        require(given in (0, len(self.features)), "logits", rule, f"{given} of {len(self.features)} batches")
        second = SecondSums.zeros(self.num_classes, self.feature_dim, self.sums.device)
        computed: list[Tensor] = []
        for index, (features, labels) in enumerate(zip(self.features, self.labels, strict=True)):
            predicted = self.predicted[index] if given else None
            logits = None if given else self._logits(features)
            if logits is not None:
                predicted = predictions(logits)
                computed.append(margins(logits, labels))
            second.add(features, labels, predicted, around)
        return second, computed

    def _first(self, over: Callable[[Tensor], Tensor] = lambda value: value) -> FirstSums:
        return FirstSums(*(over(value) for value in (self.sums, self.counts, self.squares, self.nonfinite)))

    def _geometry(self) -> Geometry:
        self._check_labels(_join_ranges(torch.stack(self._all(self.label_range))))
        first = self._first(self._total)
        require(bool(first.counts.sum() > 0), "update", "called before compute", "no sample")
        return geometry(first, self.center)

    # --- ranks and states ------------------------------------------------------------------------------------------

    def _all(self, value: Tensor) -> list[Tensor]:
        """A tensor of all ranks in their order; alone, or inside a batch, of this one."""
        return [value] if self._gather is None else self._gather(value)

    def _total(self, value: Tensor) -> Tensor:
        return torch.stack(self._all(value)).sum(0)

    def _least(self, value: Tensor) -> Tensor:
        return torch.stack(self._all(value)).min()

    def sync(
        self,
        dist_sync_fn: Callable | None = None,
        process_group: Any | None = None,
        should_sync: bool = True,
        distributed_available: Callable | None = None,
    ) -> None:
        """From here to :meth:`unsync`, sums are over all ranks. The states themselves, features above all, stay."""
        available = distributed_available or self.distributed_available_fn
        if not should_sync or not (callable(available) and available()):
            return
        gather = dist_sync_fn or self.dist_sync_fn or gather_all_tensors
        group = process_group or self.process_group
        self._gather = lambda value: gather(value.contiguous(), group=group)
        self._is_synced = True

    def unsync(self, should_unsync: bool = True) -> None:
        """Sums are over this rank again."""
        if should_unsync:
            self._gather = None
            self._is_synced = False

    def reset(self) -> None:
        """Forget all samples."""
        super().reset()
        self._second = None

    # --- checks ----------------------------------------------------------------------------------------------------

    def _check(self, features: Tensor, labels: Tensor, logits: Tensor | None) -> None:
        shape = tuple(features.shape)
        right = len(shape) == 2 and shape[1] == self.feature_dim
        require(right, "features", f"of shape (B, {self.feature_dim})", shape)
        require(features.is_floating_point(), "features", "of a floating type", features.dtype)
        require(tuple(labels.shape) == shape[:1], "labels", f"of shape {shape[:1]}", tuple(labels.shape))
        whole = not labels.is_floating_point() and not labels.is_complex() and labels.dtype != torch.bool
        require(whole, "labels", "integers", labels.dtype)
        if logits is not None:
            widths = (self.num_classes, 1) if self.num_classes == 2 else (self.num_classes,)
            fits = logits.ndim == 2 and len(logits) == len(labels) and logits.shape[1] in widths
            require(fits, "logits", f"of shape ({len(labels)}, {self.num_classes})", tuple(logits.shape))
        if self._classifier[0] is not None:
            expected = (self.num_classes, self.feature_dim)
            found = tuple(self._classifier[0].weight.shape)
            require(found == expected, "weight", f"of shape (C, d) = {expected}", found)

    def _check_labels(self, label_range: Tensor) -> None:
        """Lowest and highest label in the first and the last entry; (C, -1) before any."""
        low, high = (int(bound) for bound in (label_range.flatten()[0], label_range.flatten()[-1]))
        nothing = (low, high) == (self.num_classes, -1)
        require(
            nothing or (low >= 0 and high < self.num_classes),
            "labels",
            f"in 0..{self.num_classes - 1}",
            f"{low}..{high}",
        )


def _join_ranges(ranges: Tensor) -> Tensor:
    """(lowest, highest) of ranges (R, 2)."""
    return torch.stack([ranges[:, 0].min(), ranges[:, 1].max()])
