"""Neural collapse of one layer as a torchmetrics Metric: batch by batch, on one process or many."""

from dataclasses import fields
from typing import Any

import torch
from torch import Tensor
from torchmetrics.utilities.exceptions import TorchMetricsUserError

from ncflow.checks import require
from ncflow.metrics.class_means import FirstSums, Geometry, geometry
from ncflow.metrics.collapse import choice_measures, collapse_measures
from ncflow.metrics.functional import (
    Center,
    check_batch,
    check_labels,
    check_options,
    exact_logits,
    neural_collapse,
)
from ncflow.metrics.head import LinearHead
from ncflow.metrics.margins import margins, predictions
from ncflow.metrics.measure import Givers, Measure
from ncflow.metrics.scatter import Around, SecondSums
from ncflow.metrics.shared import Shared
from ncflow.metrics.summing import SummingMetric

_SECOND = "second_"


class NeuralCollapse(SummingMetric):
    """Neural collapse of the features given batch by batch, on one process or many.

    The measures need two passes over the features. Each rank keeps its own up to ``max_cached_bytes``; beyond that
    they are dropped, and the data has to be read twice::

        for features, labels in batches(): metric.update(features, labels)
        if metric.second_pass():
            for features, labels in batches(): metric.update(features, labels)
        values = metric.compute()

    Only sums of size (C, d) and smaller cross ranks at :meth:`compute`; an explicit :meth:`sync` brings all states of
    all ranks together, as for any metric. A value depends on batches, ranks and caching by rounding alone. Sums are in
    float64 whatever a module around it is cast to. Nothing in :meth:`update` waits for a GPU while it keeps features;
    labels out of range are found there on a CPU, on a GPU at the end.

    ``metric["nc1"]`` is a metric of one number (:class:`ncflow.metrics.measure.Measure`), for ``self.log`` and for
    wrappers, which take no dictionary.

    Args:
        num_classes: C.
        feature_dim: d.
        classifier: The linear classifier; its weight (C, d) and bias are read at :meth:`compute` and are no part of the
            metric's state: :meth:`clone` reads the same one, and the metric of a copied module the copied one. None
            leaves out the measures of NC3, NC4 and the weights.
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
    """Whether ``means`` and ``second_sums``, of which the measures are, stay after :meth:`compute`, over all ranks; the
    former are there between the two passes as well."""
    means: Geometry | None
    second_sums: SecondSums | None
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
    _around: Around | None
    _kept: tuple[int, int]

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
        self._classifier = Shared(classifier)
        self.givers = Givers()
        doubles, whole = torch.zeros(0, dtype=torch.float64), torch.zeros(0, dtype=torch.long)
        self.add_list("features", doubles.view(0, feature_dim))
        self.add_list("labels", whole)
        self.add_list("predicted", whole)
        self.add_list("margins", doubles)
        self.add_list("dropped", doubles)  # a list, so that asking whether it is empty waits for no device
        sums = {
            "": FirstSums.zeros(num_classes, feature_dim, "meta"),
            _SECOND: SecondSums.zeros(num_classes, feature_dim, "meta"),
        }
        for prefix, of_pass in sums.items():
            for name, value in vars(of_pass).items():
                self.add_sum(prefix + name, value)
        self.add_state("label_range", default=torch.tensor([num_classes, -1]), dist_reduce_fx=_join_ranges)
        self.reset()

    # --- taking in -------------------------------------------------------------------------------------------------

    def update(self, features: Tensor, labels: Tensor, logits: Tensor | None = None) -> None:
        """Take in a batch.

        Args:
            features: (B, d), any floating type.
            labels: (B,), integers 0..C-1.
            logits: (B, C), or (B, 1) of a classifier with one output, given with every batch or with none; None for
                those of ``classifier``.
        """
        if self._is_synced:
            raise TorchMetricsUserError("The metric has the samples of all ranks: call unsync() before giving it more.")
        classifier = self._classifier()
        weight = None if classifier is None else classifier.weight
        check_batch(features, labels, logits, self.num_classes, self.feature_dim, weight)
        if len(labels) == 0 or self.givers.repeat(features, labels, logits):
            return
        features, labels = features.detach(), labels.long()
        if self._around is None:
            self._first_update(features, labels, logits)
        else:
            self._second_update(self._around, features, labels, logits)

    def forward(self, features: Tensor, labels: Tensor, logits: Tensor | None = None) -> dict[str, Tensor]:
        """Take in a batch, as :meth:`update`, and give the measures of this batch alone.

        Over the ranks if ``dist_sync_on_step``, else over this rank's.
        """
        self.update(features, labels, logits)
        if self.givers.measures is None:
            self.givers.measures = self._of_one_batch(features, labels, logits)
        self._forward_cache = self.givers.measures  # type: ignore[assignment]
        return self.givers.measures

    def _of_one_batch(self, features: Tensor, labels: Tensor, logits: Tensor | None) -> dict[str, Tensor]:
        batch = NeuralCollapse(
            self.num_classes,
            self.feature_dim,
            self._classifier(),
            self.delta,
            self.self_pairs,
            center=self.center,
            max_cached_bytes=None,
            process_group=self.process_group,
            dist_sync_fn=self.dist_sync_fn,
            distributed_available_fn=self.distributed_available_fn,
            sync_on_compute=self.dist_sync_on_step,
        ).to(self.device)
        batch.update(features, labels, logits)
        measures: dict[str, Tensor] = batch.compute()
        return measures

    def _first_update(self, features: Tensor, labels: Tensor, logits: Tensor | None) -> None:
        self.label_range = _join_ranges(torch.stack([self.label_range, torch.stack(torch.aminmax(labels))]))
        if labels.device.type == "cpu":
            self._check_labels(self.label_range)
        labels = labels.clamp(0, self.num_classes - 1)
        self._first().add(features, labels)
        if logits is not None:
            self.margins.append(margins(logits.detach(), labels))
        kept = self._kept_bytes() + features.nbytes
        if len(self.dropped) or (self.max_cached_bytes is not None and kept > self.max_cached_bytes):
            self._drop()
            return
        self.features.append(features)
        self.labels.append(labels)
        self._kept = len(self.features), kept
        if logits is not None:
            self.predicted.append(predictions(logits.detach()))

    def _kept_bytes(self) -> int:
        """Of the features; counted anew only if somebody else, by loading say, changed them."""
        batches, kept = self._kept
        return kept if batches == len(self.features) else sum(batch.nbytes for batch in self.features)

    def _drop(self) -> None:
        self.features, self.labels, self.predicted = [], [], []
        self.dropped = [torch.zeros(1)]

    def _second_update(self, around: Around, features: Tensor, labels: Tensor, logits: Tensor | None) -> None:
        labels = labels.clamp(0, self.num_classes - 1)
        if logits is None:
            logits = self._logits(features)
            if logits is not None:
                self.margins.append(margins(logits, labels))
        chosen = None if logits is None else predictions(logits.detach())
        SecondSums(**self._states(SecondSums, _SECOND)).add(features, labels, chosen, around)

    def _logits(self, features: Tensor) -> Tensor | None:
        """W h + b if there is a classifier, else None."""
        classifier = self._classifier()
        return None if classifier is None else exact_logits(features, classifier.weight, classifier.bias)

    def second_pass(self) -> bool:
        """Whether the features did not fit, on this rank or another, so that the data has to be given once more.

        Under distributed training every rank has to call it.
        """
        with self.all_ranks():
            if self._around is not None or not self.is_so_anywhere(len(self.dropped) > 0):
                return False
            self.means = self._geometry(self._first())
        self._around = Around.of(self.means)
        self._drop()
        return True

    def centred_means(self) -> Tensor:
        """M, (K, d): mu_c - mu_G of the present classes, over all batches of all ranks; every rank has to call it."""
        with self.all_ranks():
            return self._geometry(self._first()).centred

    def class_counts(self) -> Tensor:
        """Samples of each class, (C,), over all batches of all ranks; every rank has to call it."""
        with self.all_ranks():
            return self.total(self.counts)

    # --- giving out ------------------------------------------------------------------------------------------------

    def compute(self) -> dict[str, Tensor]:
        """The measures of :func:`neural_collapse` over all batches of all ranks."""
        with self.all_ranks():
            return self._compute()

    def _compute(self) -> dict[str, Tensor]:
        waiting = self.is_so_anywhere(self._around is None and len(self.dropped) > 0)
        found = f"features beyond max_cached_bytes = {self.max_cached_bytes}"
        require(not waiting, "update", "called for all data once more after second_pass()", found)
        first, own = self._first(), self.batches("margins")
        if self._around is not None:
            assert self.means is not None
            means, second = self.means, SecondSums(**self._states(SecondSums, _SECOND))
        else:
            means = self._geometry(first)
            second, computed = self._over_cache(Around.of(means))
            own = [*own, *computed]
        second = SecondSums(*(self.total(part) for part in second.parts()))
        total, seen = int(means.counts.sum()), int(second.seen)
        require(seen == total, "update", f"given the same {total} samples in the second pass", seen)
        if self.keeps_sums:
            self.means, self.second_sums = means, second
        classifier = self._classifier()
        weight = None if classifier is None else classifier.weight.detach()
        measures = collapse_measures(means, first, second, weight, self.delta, self.self_pairs)
        if self.is_so_anywhere(any(map(len, own))):
            values = torch.cat(own) if own else self.squares.new_zeros(0)
            agreeing = second.nearest_is_predicted
            measures |= choice_measures(values, agreeing, first.squares, total, self.total, self.least)
        return measures

    def _over_cache(self, around: Around) -> tuple[SecondSums, list[Tensor]]:
        """Sums of the second pass over the kept features, and margins if no logits were given."""
        kept = list(zip(self.batches("features"), self.batches("labels"), strict=True))
        chosen, total = self.batches("predicted"), sum(len(labels) for _, labels in kept)
        given = sum(map(len, chosen))
        rule = "given with every batch or with none"
        require(given in (0, total), "logits", rule, f"{given} of {total} samples")
        second = SecondSums.zeros(self.num_classes, self.feature_dim, self.sums.device)
        computed: list[Tensor] = []
        for index, (features, labels) in enumerate(kept):
            # Where torchmetrics was told to keep lists on the CPU, they come back.
            features, labels = features.to(self.sums.device), labels.to(self.sums.device)
            predicted = chosen[index].to(labels.device) if given else None
            logits = None if given else self._logits(features)
            if logits is not None:
                predicted = predictions(logits)
                computed.append(margins(logits, labels))
            second.add(features, labels, predicted, around)
        return second, computed

    def _states(self, kind: type, prefix: str = "") -> dict[str, Tensor]:
        """The sums of a pass as they are here, to be added to."""
        return {part.name: self.own(prefix + part.name) for part in fields(kind)}

    def _first(self) -> FirstSums:
        return FirstSums(**{name: self.total(value) for name, value in self._states(FirstSums).items()})

    def _geometry(self, first: FirstSums) -> Geometry:
        self._check_labels(_join_ranges(torch.stack(self.gathered(self.label_range))))
        require(bool(first.counts.sum() > 0), "update", "called before compute", "no sample")
        return geometry(first, self.center)

    # --- as a metric among others ----------------------------------------------------------------------------------

    def reset(self) -> None:
        """Forget all samples."""
        super().reset()
        self._around = self.means = self.second_sums = None
        self._kept = 0, 0

    def plot(self, val: Any = None, ax: Any = None) -> Any:
        """Plot the measures, or values of them over steps, as any metric of torchmetrics.

        Args:
            val: A result of :meth:`compute` or :meth:`forward`, or a list of them; None for the present one.
            ax: The axes; None for new ones.

        Returns:
            The figure and the axes.
        """
        return self._plot(val, ax)

    def __getitem__(self, name: str) -> Measure:  # type: ignore[override]
        """A metric of one measure, for what takes no dictionary.

        Raises:
            ArgumentError: If there is no such measure.
        """
        weight = None if self._classifier() is None else torch.eye(2)
        names = list(neural_collapse(torch.eye(2), torch.arange(2), 2, weight, logits=torch.eye(2)))
        require(name in names, "name", f"one of {', '.join(names)}", name)
        return Measure(name, self)

    # --- checks ----------------------------------------------------------------------------------------------------

    def _check_labels(self, label_range: Tensor) -> None:
        """Lowest and highest label in the first and the last entry; (C, -1) before any."""
        low, high = (int(bound) for bound in (label_range.flatten()[0], label_range.flatten()[-1]))
        if (low, high) != (self.num_classes, -1):
            check_labels(low, high, self.num_classes)


def _join_ranges(ranges: Tensor) -> Tensor:
    """(lowest, highest) of ranges (R, 2)."""
    return torch.stack([ranges[:, 0].min(), ranges[:, 1].max()])
