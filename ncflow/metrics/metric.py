"""Neural collapse of one layer as a torchmetrics Metric: batch by batch, on one process or many."""

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.distributed import gather_all_tensors

from ncflow.checks import require
from ncflow.metrics.class_means import Around, FirstSums, Geometry, geometry
from ncflow.metrics.collapse import choice_measures, collapse_measures
from ncflow.metrics.functional import Center, check_batch, check_labels, check_options, exact_logits
from ncflow.metrics.head import LinearHead
from ncflow.metrics.margins import margins, predictions
from ncflow.metrics.scatter import SecondSums


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
    keeps_sums = False
    """Whether :meth:`compute` leaves ``means`` and ``second_sums``, of which its measures are, over all ranks."""
    means: Geometry | None = None
    second_sums: SecondSums | None = None
    features: list[Tensor]
    labels: list[Tensor]
    predicted: list[Tensor]
    margins: list[Tensor]
    dropped: list[Tensor]
    sums: Tensor
    counts: Tensor
    squares: Tensor
    nonfinite: Tensor
    directions: Tensor
    directed: Tensor
    label_range: Tensor

    def __init__(
        self,
        num_classes: int,
        feature_dim: int,
        classifier: LinearHead | None = None,
        delta: float = 0.05,
        self_pairs: bool = False,
        *,
        center: Center = "samples",
        max_cached_bytes: int | None = 2**31,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_options(num_classes, feature_dim, delta, center)
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
        for name, value in vars(first).items():
            self.add_state(name, default=value, dist_reduce_fx="sum")
        self.add_state("label_range", default=torch.tensor([num_classes, -1]), dist_reduce_fx=_join_ranges)
        self._second: tuple[SecondSums, Geometry, Around] | None = None

    # --- taking in -------------------------------------------------------------------------------------------------

    def update(self, features: Tensor, labels: Tensor, logits: Tensor | None = None) -> None:
        """Take in a batch.

        Args:
            features: (B, d), any floating type.
            labels: (B,), integers 0..C-1.
            logits: (B, C), or (B, 1) of a classifier with one output, given with every batch or with none; None for
                those of ``classifier``.
        """
        classifier = self._classifier[0]
        weight = None if classifier is None else classifier.weight
        check_batch(features, labels, logits, self.num_classes, self.feature_dim, weight)
        if len(labels) == 0:
            return
        features, labels = features.detach(), labels.long()
        if self._second is None:
            self._first_update(features, labels, logits)
        else:
            second, _, around = self._second
            self._second_update(second, around, features, labels, logits)

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
        self, second: SecondSums, around: Around, features: Tensor, labels: Tensor, logits: Tensor | None
    ) -> None:
        labels = labels.clamp(0, self.num_classes - 1)
        if logits is None:
            logits = self._logits(features)
            if logits is not None:
                self.margins.append(margins(logits, labels))
        second.add(features, labels, None if logits is None else predictions(logits.detach()), around)

    def _logits(self, features: Tensor) -> Tensor | None:
        """W h + b if there is a classifier, else None."""
        classifier = self._classifier[0]
        return None if classifier is None else exact_logits(features, classifier.weight, classifier.bias)

    def second_pass(self) -> bool:
        """Whether the features did not fit, on this rank or another, so that the data has to be given once more.

        Under distributed training every rank has to call it.
        """
        with self.sync_context(should_sync=self.sync_on_compute):
            if self._second is not None or float(self._total(self._flag(bool(self.dropped)))) == 0:
                return False
            means = self._geometry(self._first(self._total))
        self.features, self.labels, self.predicted = [], [], []
        self.dropped = [torch.zeros(0)]
        second = SecondSums.zeros(self.num_classes, self.feature_dim, self.sums.device)
        self._second = second, means, Around.of(means)
        self.means = means
        return True

    def centred_means(self) -> Tensor:
        """M, (K, d): mu_c - mu_G of the present classes, over all batches of all ranks; every rank has to call it."""
        with self.sync_context(should_sync=self.sync_on_compute):
            return self._geometry(self._first(self._total)).centred

    def class_counts(self) -> Tensor:
        """Samples of each class, (C,), over all batches of all ranks; every rank has to call it."""
        with self.sync_context(should_sync=self.sync_on_compute):
            return self._total(self.counts)

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
        first = self._first(self._total)
        if self._second is not None:
            second, means, _ = self._second
            own = self.margins
        else:
            means = self._geometry(first)
            second, computed = self._over_cache(Around.of(means))
            own = [*self.margins, *computed]
        second = SecondSums(*(self._total(part) for part in second.parts()))
        total, seen = int(means.counts.sum()), int(second.seen)
        require(seen == total, "update", f"given the same {total} samples in the second pass", seen)
        if self.keeps_sums:
            self.means, self.second_sums = means, second
        classifier = self._classifier[0]
        weight = None if classifier is None else classifier.weight.detach()
        measures = collapse_measures(means, first, second, weight, self.delta, self.self_pairs)
        if float(self._total(self._flag(bool(own)))) > 0:
            values = torch.cat(own) if own else self.squares.new_zeros(0)
            agreeing = second.nearest_is_predicted
            measures |= choice_measures(values, agreeing, first.squares, total, self._total, self._least)
        return measures

    def _over_cache(self, around: Around) -> tuple[SecondSums, list[Tensor]]:
        """Sums of the second pass over the kept features, and margins if no logits were given."""
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
        return FirstSums(*(over(getattr(self, part.name)) for part in fields(FirstSums)))

    def _geometry(self, first: FirstSums) -> Geometry:
        self._check_labels(_join_ranges(torch.stack(self._all(self.label_range))))
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
        dist_sync_fn: Callable[..., Any] | None = None,
        process_group: Any | None = None,
        should_sync: bool = True,
        distributed_available: Callable[..., Any] | None = None,
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
        self._second = self.means = self.second_sums = None

    # --- checks ----------------------------------------------------------------------------------------------------

    def _check_labels(self, label_range: Tensor) -> None:
        """Lowest and highest label in the first and the last entry; (C, -1) before any."""
        low, high = (int(bound) for bound in (label_range.flatten()[0], label_range.flatten()[-1]))
        if (low, high) != (self.num_classes, -1):
            check_labels(low, high, self.num_classes)


def _join_ranges(ranges: Tensor) -> Tensor:
    """(lowest, highest) of ranges (R, 2)."""
    return torch.stack([ranges[:, 0].min(), ranges[:, 1].max()])
