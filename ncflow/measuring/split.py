"""Measure a model on a split: the collapse of its layers, and what its outputs and weights say beside it."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from math import nan
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ncflow.checks import require
from ncflow.measuring.adapters import USUAL, Adapters
from ncflow.measuring.classes import Every, Frequent, label_counts
from ncflow.measuring.features import LAST, FeatureBatch, extract, frozen, resolve_layers
from ncflow.measuring.groups import Groups, LayerGroups, check_groups
from ncflow.measuring.heads import Head, as_linear, find_head, has_adapter, is_fixed
from ncflow.measuring.joined import joined
from ncflow.measuring.layers import LayerMetrics
from ncflow.measuring.optimality import LayerPeeled, optimality
from ncflow.measuring.outputs import Outputs
from ncflow.metrics.head import LinearHead
from ncflow.metrics.margins import folded_weight_norm_product, weight_norm_product


def measure_split(
    network: nn.Module,
    loader: Iterable[Any],
    layers: str | Sequence[str] = LAST,
    *,
    classifier: str | None = None,
    norm: str | None = None,
    loss: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy,
    weight_decay: float = nan,
    delta: float = 0.05,
    self_pairs: bool = False,
    max_cached_bytes: int | None = 2**31,
    adapters: Adapters = USUAL,
    loss_is_found: bool = False,
    min_count: int | None = None,
    groups: Groups | Sequence[str] = (),
) -> dict[str, dict[str, float]]:
    """Measures by layer and name, the model frozen; under distributed training every rank has to call it.

    Args:
        network: From inputs to logits.
        loader: Batches, each sample once over all ranks, the same at every pass.
        layers: As for :func:`ncflow.measuring.features.resolve_layers`.
        classifier: Name of the classifier layer; None takes the last ``nn.Linear``. It may be any module that is linear
            in its input (see :func:`ncflow.measuring.heads.as_linear`).
        norm: Name of the BN right before the classifier; None takes the network's ``last_norm``.
        loss: From logits (N, C) and labels (N,) to the loss (see :class:`ncflow.measuring.losses.SplitLoss`).
        weight_decay: lambda of ``regularized_loss``, its gap, the limits and the residuals; NaN where there is none to
            speak of, which it is as well where W is no parameter that decays but made of others.
        delta: Level of the quantiles.
        self_pairs: Whether intra counts the pairs i = j.
        max_cached_bytes: Bytes of features kept for each layer, on each rank; beyond, the loader is read twice.
        adapters: How to read a batch and what the network returns.
        loss_is_found: As ``is_found`` of :class:`ncflow.measuring.losses.SplitLoss`.
        min_count: Leave out the classes with fewer samples, for which labels alone are read once before; None for none.
            The measures are then those of the K that remain and of their rows of W, and margins and NC4 choose among
            these; loss and accuracy are the model's own among all classes, and the gaps to an optimum are NaN.
            ``classes_left_out`` and ``samples_left_out`` say how many there were.
        groups: Names of more measures to make, of :data:`ncflow.metrics.groups.GROUPS`; or one object for the splits of
            a measurement, which are then given in their order, the one that probes are trained on first.

    Raises:
        ArgumentError: If a batch, an output or the classifier is not known to be read right, if there is no batch, or
            if the second pass over the loader gave other features than the first.
    """
    names = resolve_layers(network, layers)
    name, module = find_head(network, classifier)
    groups = groups if isinstance(groups, Groups) else Groups(groups)
    together = min_count is None or not groups.keeps_sums  # groups read all rows of W
    require(together, "groups", "left out where classes are", groups.names)
    check_groups(groups.names, groups.ood is not None, network, names, classifier)
    # To the end: what is asked for its weights while it trains, spectral normalisation say, may change by being asked.
    with frozen(network):
        classes = Every() if min_count is None else Frequent.of(label_counts(network, loader, adapters), min_count)
        own_groups = LayerGroups(groups, network, name, self_pairs)
        metrics = LayerMetrics(delta, self_pairs, max_cached_bytes, own_groups)
        outputs = Outputs(loss, next(network.parameters()).device, is_found=loss_is_found)
        head: LinearHead | None = None

        def batches(layers: Sequence[str]) -> Iterator[FeatureBatch]:
            own = map(classes.samples, extract(network, loader, layers, classifier, adapters))
            return joined(batch for batch in own if len(batch.labels) > 0)

        for batch in batches(names):
            if LAST in names and head is None:
                head = classes.head(as_linear(name, module, batch.features[LAST].shape[1]))
            metrics.update(classes.renumbered(batch), head)
            outputs.update(batch.logits, batch.labels)
        for layer, dim in metrics.join(next(network.parameters()).device).items():
            head = classes.head(as_linear(name, module, dim)) if layer == LAST else head
            metrics.add(layer, dim, head)
        unfit = metrics.unfit()
        own_groups.read_ood(metrics.found, head, classifier, adapters)
        if groups.keeps_sums:
            metrics.begin_groups(unfit)
        if unfit:
            for batch in batches(unfit):
                metrics.update(classes.renumbered(batch), head, unfit)
            metrics.check_passes(unfit)
        found = metrics.found
        values = {layer: metric.compute() for layer, metric in found.items()}
        if groups.keeps_sums:
            for layer, metric in found.items():
                values[layer] |= own_groups.measures(layer, metric)
        outputs.signs = outputs.signs if min_count is None else None
        means = found[LAST].centred_means() if LAST in found and outputs.signs is not None else None
        counts = found[LAST].class_counts() if LAST in found else None
        decay = nan if isinstance(head, Head) and not head.is_parameter else weight_decay
        if min_count is not None:  # the theory is of all classes
            outputs.of_cross_entropy, decay = False, nan
        measured = conclude(network, head, values, means, counts, outputs, norm, decay, delta)
        return {layer: {**own, **classes.said()} for layer, own in measured.items()}


def check_network(
    network: nn.Module,
    layers: str | Sequence[str],
    classifier: str | None,
    norm: str | None,
    groups: Sequence[str] = (),
    has_ood: bool = False,
) -> None:
    """Refuse what cannot be measured of a network, before any work; each is as for :func:`measure_split`.

    Raises:
        ArgumentError: Naming the argument, the rule and the value found.
    """
    names = resolve_layers(network, layers)
    find_head(network, classifier)
    check_groups(groups, has_ood, network, names, classifier)
    known = dict(network.named_modules())
    require(norm is None or norm in known, "norm", "the name of a layer", norm)


def conclude(
    network: nn.Module,
    head: LinearHead | None,
    values: dict[str, dict[str, Tensor]],
    means: Tensor | None,
    counts: Tensor | None,
    outputs: Outputs,
    norm: str | None,
    weight_decay: float,
    delta: float,
) -> dict[str, dict[str, float]]:
    """Measures by layer and name from what was summed over the data.

    Args:
        network: The network, at the state in which it was read.
        head: Its classifier; None where the last layer was not measured.
        values: Measures of each layer's features, by layer and name.
        means: M, (K, d), of the last layer; only where the outputs are compared with quasi-interpolation.
        counts: Samples of each class, (C,); only where the last layer was measured.
        outputs: What the logits say.
        norm: As for :func:`measure_split`.
        weight_decay: As for :func:`measure_split`.
        delta: As for :func:`measure_split`.
    """
    fixed = head is not None and is_fixed(network, head)
    decay_of_head = nan if fixed else weight_decay
    with torch.no_grad():
        if head is not None and LAST in values:
            # A classifier that chose nothing, as one of its weights is NaN, agrees with nothing either.
            values[LAST]["nc4_agreement"] = values[LAST]["nc4_agreement"] + 0 * values[LAST]["margin_mean"]
            last_norm = network.get_submodule(norm) if norm is not None else getattr(network, "last_norm", None)
            values[LAST] |= outputs.compute()
            values[LAST]["gamma_norm"] = _gamma_norm(last_norm)
            values[LAST] |= _norms(network, values[LAST])
            values[LAST] |= outputs.norm_measures(head, values[LAST]["rho"], decay_of_head)
            values[LAST] |= outputs.quasi_measures(head, means, decay_of_head)
    measured = {name: _floats(measures) for name, measures in values.items()}
    if head is not None and LAST in measured and counts is not None:
        model = LayerPeeled.of(counts, head, last_norm, bool(outputs.of_cross_entropy), fixed)
        measured[LAST] |= optimality(model, weight_decay, delta, measured[LAST])
    return measured


def rows_of(
    epoch: int, split: str, measured: Mapping[str, dict[str, float]], nc0_at: Callable[[int], float] | None = None
) -> list[dict[str, Any]]:
    """Rows of ``history.csv`` of what :func:`measure_split` gave.

    ``interpolated`` and ``rho_eq`` are there for the training split: what decay balances is the loss on it.

    Args:
        epoch: Finished epochs.
        split: Name of the split.
        measured: By layer and name.
        nc0_at: From the epoch to ``nc0`` as the optimiser alone decides it (see :mod:`ncflow.theory.nc0`), for
            ``nc0_predicted``; None where that is not known.
    """
    rows = []
    for layer, values in measured.items():
        row = {"epoch": epoch, "split": split, "layer": layer, **values}
        if split != "train":
            row.pop("rho_eq", None)
        elif "accuracy" in values:
            row["interpolated"] = float(values["accuracy"] == 1)
        if layer == LAST and nc0_at is not None:
            row["nc0_predicted"] = nc0_at(epoch)
        rows.append(row)
    return rows


def _gamma_norm(last_norm: nn.Module | None) -> Tensor:
    weight = getattr(last_norm, "weight", None)
    return torch.tensor(torch.nan) if weight is None else weight.double().norm()


def _norms(network: nn.Module, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Products of weight norms, and the margins of the outputs divided by rho (CBMM Memo 117, section 3).

    NaN where an adapter makes a layer's weights more than one matrix.

    With one output of targets +-1, as in the memo's section 3, a margin is y f and ``normalized_margin_mean``, ``_std``
    and ``_square`` are its mu, sigma and M. With two outputs a margin is f_y less the other: of opposite ones twice the
    memo's y f. Its mu and M are then :meth:`ncflow.measuring.outputs.Outputs.norm_measures`'.
    """
    if has_adapter(network):
        rho = folded = torch.tensor(torch.nan, dtype=torch.float64)
    else:
        rho, folded = weight_norm_product(network), folded_weight_norm_product(network)
    margins = {f"normalized_{name}": values[name] / rho for name in values if name.startswith("margin_")}
    if margins:
        mean, deviation = margins["normalized_margin_mean"], margins["normalized_margin_std"]
        margins["normalized_margin_square"] = mean.square() + deviation.square()
    return {"rho": rho, "rho_folded": folded, **margins}


def _floats(measures: Mapping[str, Tensor]) -> dict[str, float]:
    """All values in one transfer from the device."""
    return dict(zip(measures, torch.stack([v.double() for v in measures.values()]).tolist(), strict=True))
