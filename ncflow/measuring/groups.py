"""The groups of measures that were asked for, over the layers of a split and the splits of a measurement."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ncflow.checks import ArgumentError, require
from ncflow.measuring.adapters import Adapters
from ncflow.measuring.features import LAST, extract
from ncflow.measuring.heads import Head, find_head
from ncflow.measuring.notes import note
from ncflow.measuring.ranks import over_ranks
from ncflow.metrics import NeuralCollapse
from ncflow.metrics.class_means import Geometry
from ncflow.metrics.groups import GROUPS
from ncflow.metrics.groups.group import Group, Layer
from ncflow.metrics.groups.ood import OodMean
from ncflow.metrics.groups.per_class import MOST_CLASSES, class_values, pair_values
from ncflow.metrics.groups.weight_alignment import check_chain
from ncflow.metrics.head import LinearHead
from ncflow.metrics.margins import predictions
from ncflow.metrics.scatter import SecondSums

_TRAIN = "train"


class Groups:
    """What is measured beside the usual, on the splits of one measurement in their order.

    Probes are trained on the first split, the second data set is read with it, and both are for the splits after it.

    Args:
        names: Of :data:`ncflow.metrics.groups.GROUPS`.
        ood: Batches of a second data set, of the same form as the first's, for ``ood`` and with it alone. Its labels
            are not read, but have to be there.
        per_class: Whether to keep values by class and by pair of classes.

    Attributes:
        classes: The values by class of each layer of the latest split, a dict a class.
        pairs: The values by pair of classes likewise.

    Raises:
        ArgumentError: For a name that there is not, and where ``ood`` is missing or for nothing.
    """

    def __init__(self, names: Sequence[str] = (), ood: Iterable[Any] | None = None, per_class: bool = False) -> None:
        check_names(names, ood is not None)
        self.names, self.ood, self.per_class = list(names), ood, per_class
        self.classes: dict[str, list[dict[str, Any]]] = {}
        self.pairs: dict[str, list[dict[str, Any]]] = {}
        self.kept: dict[str, dict[str, Any]] = {}
        self.ood_means: dict[str, Tensor] | None = None

    @property
    def keeps_sums(self) -> bool:
        """Whether the sums of the metrics are read beside their measures."""
        return bool(self.names) or self.per_class


class LayerGroups:
    """The groups of each layer, on one split.

    Args:
        groups: Of the measurement.
        network: The network.
        classifier: Name of its classifier, found or given.
        self_pairs: As for :func:`ncflow.measuring.split.measure_split`.
    """

    def __init__(self, groups: Groups, network: nn.Module, classifier: str, self_pairs: bool) -> None:
        self.groups, self.network, self.classifier, self.self_pairs = groups, network, classifier, self_pairs
        self.found: dict[str, list[Group]] = {}
        self._head: LinearHead | None = None
        self._correct: Tensor | None = None
        self._begun: set[str] = set()

    def add(self, layer: str, head: LinearHead | None) -> None:
        """Make the groups of a layer; ``head`` is None of another than the last."""
        self._head = self._head if head is None else head
        kept = self.groups.kept.setdefault(layer, {})
        name = None if layer == LAST else layer
        given = Layer(name, self.network, head, self.classifier, over_ranks, kept=kept)
        self.found[layer] = [GROUPS[name](given) for name in self.groups.names]

    def first(self, layer: str, features: Tensor) -> None:
        """Take in features (B, d) of the first pass."""
        for group in self.found[layer]:
            group.first(features)

    def count_correct(self, logits: Tensor, labels: Tensor) -> None:
        """Count by class, of the first pass, the samples (B, C) that the classifier puts into theirs (B,)."""
        if self.groups.per_class:
            if self._correct is None:
                self._correct = torch.zeros(logits.shape[1], dtype=torch.float64, device=labels.device)
            right = (predictions(logits) == labels).double()
            self._correct.scatter_add_(0, labels.long().clamp(0, logits.shape[1] - 1), right)

    def begin(self, layer: str, means: Geometry) -> None:
        """Take in the class means, over all ranks."""
        self._begun.add(layer)
        for group in self.found[layer]:
            group.layer.ood = (self.groups.ood_means or {}).get(layer)
            group.begin(means)

    def second(self, layer: str, features: Tensor, labels: Tensor) -> None:
        """Take in features (B, d) with labels (B,) of the second pass."""
        for group in self.found[layer]:
            if group.reads_again:
                group.second(features, labels)

    def measures(self, layer: str, metric: NeuralCollapse) -> dict[str, Tensor]:
        """Measures of a layer by name, once its metric is computed; where it keeps the features, they are read there.

        Every rank has to call it.
        """
        means, second = metric.means, metric.second_sums
        assert means is not None
        assert second is not None
        if layer not in self._begun:
            self.begin(layer, means)
            for features, labels in zip(metric.batches("features"), metric.batches("labels"), strict=True):
                self.second(layer, features, labels)
        found: dict[str, Tensor] = {}
        for group in self.found[layer]:
            found |= {name: value.to(means.centred.device) for name, value in group.measures(means).items()}
        if self.groups.per_class:
            self._keep_classes(layer, metric, means, second)
        return found

    def _keep_classes(self, layer: str, metric: NeuralCollapse, means: Geometry, second: SecondSums) -> None:
        weight = correct = None
        if layer == LAST:
            assert self._head is not None
            none = metric.sums.new_zeros(metric.num_classes)
            weight = self._head.weight.detach().to(none.device)
            correct = over_ranks(none if self._correct is None else self._correct)
        self.groups.classes[layer] = _rows(class_values(means, second, weight, correct, self.self_pairs))
        self.groups.pairs[layer] = _rows(pair_values(means, second)) if means.num_present <= MOST_CLASSES else []
        if means.num_present > MOST_CLASSES:
            note(f"pairs have no rows where there are more than {MOST_CLASSES} classes, found {means.num_present}")

    def read_ood(
        self, metrics: Mapping[str, NeuralCollapse], head: LinearHead | None, classifier: str | None, adapters: Adapters
    ) -> None:
        """Read the second data set, once a measurement.

        Args:
            metrics: Of each layer.
            head: The classifier.
            classifier: As for :func:`ncflow.measuring.split.measure_split`.
            adapters: As for :func:`ncflow.measuring.split.measure_split`.

        Raises:
            ArgumentError: If there is no batch.
        """
        if self.groups.ood is None or self.groups.ood_means is not None:
            return
        sums = {layer: OodMean(metric.feature_dim, metric.sums.device) for layer, metric in metrics.items()}
        for batch in extract(self.network, self.groups.ood, list(sums), classifier, adapters):
            for layer, features in batch.features.items():
                sums[layer].add(feature_of(layer, features, head).to(sums[layer].sums.device))
        self.groups.ood_means = {}
        for layer, own in sums.items():
            everywhere = over_ranks(own.sums)
            require(bool(everywhere[-1] > 0), "ood", "a loader with at least one batch", "an empty one")
            self.groups.ood_means[layer] = OodMean.of(everywhere)


def feature_of(layer: str, features: Tensor, head: LinearHead | None) -> Tensor:
    """What is measured of a layer's values (B, d): of the last, what the classifier's weights are applied to."""
    return head.feature(features) if layer == LAST and isinstance(head, Head) else features


def check_names(names: Sequence[str], has_ood: bool) -> None:
    """Refuse names that there are not, and a second data set that is missing or for nothing.

    Raises:
        ArgumentError: Naming the argument, the rule and the value found.
    """
    is_list = not isinstance(names, str)
    unknown = [name for name in names if name not in GROUPS] if is_list else [names]
    require(not unknown, "groups", f"a list of some of {', '.join(GROUPS)}", unknown[0] if unknown else None)
    require(len(set(names)) == len(names), "groups", "different names", list(names))
    if has_ood != ("ood" in names):
        rule = "a second data set where groups has 'ood'" if "ood" in names else "null where groups has no 'ood'"
        raise ArgumentError(f"ood must be {rule}")


def check_groups(
    names: Sequence[str], has_ood: bool, network: nn.Module, layers: Sequence[str], classifier: str | None = None
) -> None:
    """Refuse groups that cannot be measured of a network, before any work.

    Args:
        names: Of the groups.
        has_ood: Whether there is a second data set.
        network: The network.
        layers: As :func:`ncflow.measuring.features.resolve_layers` gives them.
        classifier: As for :func:`ncflow.measuring.heads.find_head`.

    Raises:
        ArgumentError: Naming the argument, the rule and the value found.
    """
    check_names(names, has_ood)
    if "dual_uniformity" in names:
        require(LAST in layers, "groups", "without 'dual_uniformity' where layers has no 'last'", list(layers))
    if "weight_alignment" in names:
        check_chain(network)
        find_head(network, classifier)


def measured_order(names: Sequence[str], splits: Iterable[str]) -> list[str]:
    """Splits in the order in which groups measure them: the one that probes are trained on is the first.

    Raises:
        ArgumentError: If there is a probe and no such split.
    """
    order = sorted(splits, key=lambda split: split != _TRAIN)
    rule = f"without 'probe' where no split is named {_TRAIN!r}"
    require("probe" not in names or _TRAIN in order, "groups", rule, order)
    return order


def _rows(values: dict[str, Tensor]) -> list[dict[str, Any]]:
    """A dict for each entry of tensors (n,)."""
    columns = [value.tolist() for value in values.values()]
    return [dict(zip(values, row, strict=True)) for row in zip(*columns, strict=True)]
