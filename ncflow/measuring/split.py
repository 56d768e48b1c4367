"""Measure a model on a split: the collapse of its layers, and what its outputs and weights say beside it."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import nan
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ncflow.checks import require
from ncflow.measuring.features import LAST, FeatureBatch, extract, resolve_layers
from ncflow.measuring.optimality import LayerPeeled, optimality
from ncflow.measuring.outputs import Outputs, exact_device
from ncflow.metrics import NeuralCollapse
from ncflow.metrics.margins import folded_weight_norm_product, weight_norm_product
from ncflow.models.network import find_classifier


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
) -> dict[str, dict[str, float]]:
    """Measures by layer and name, the model frozen; under distributed training every rank has to call it.

    Args:
        network: From inputs to logits.
        loader: Batches (inputs, labels), each sample once over all ranks, the same at every pass.
        layers: As for :func:`ncflow.measuring.features.resolve_layers`.
        classifier: Name of the classifier layer; None takes the last ``nn.Linear``.
        norm: Name of the BN right before the classifier; None takes the network's ``last_norm``.
        loss: From logits (N, C) and labels (N,) to the mean loss.
        weight_decay: lambda of ``regularized_loss``, its gap, the limits and the residuals; NaN where there is none to
            speak of.
        delta: Level of the quantiles.
        self_pairs: Whether intra counts the pairs i = j.
        max_cached_bytes: Bytes of features kept for each layer, on each rank; beyond, the loader is read twice.
    """
    _, head = find_classifier(network, classifier)
    metrics: dict[str, NeuralCollapse] = {}
    outputs = Outputs(loss, next(network.parameters()).device)
    for batch in extract(network, loader, resolve_layers(network, layers), classifier):
        for name, features in batch.features.items():
            if name not in metrics:
                # A hidden layer's features have another meaning, and often another size, than the rows of W.
                reads = head if name == LAST else None
                metrics[name] = NeuralCollapse(
                    head.out_features, features.shape[1], reads, delta, self_pairs, max_cached_bytes=max_cached_bytes
                ).to(exact_device(features.device))
        _update(metrics, batch)
        outputs.update(batch.logits, batch.labels)
    require(bool(metrics), "loaders", "loaders with at least one batch", "an empty one")
    with torch.no_grad():
        unfit = {name: metric for name, metric in metrics.items() if metric.second_pass()}
        if unfit:
            for batch in extract(network, loader, list(unfit), classifier):
                _update(unfit, batch)
        values = {name: metric.compute() for name, metric in metrics.items()}
        means = metrics[LAST].centred_means() if LAST in metrics and outputs.signs is not None else None
        counts = metrics[LAST].class_counts() if LAST in metrics else None
    return conclude(network, head, values, means, counts, outputs, norm, weight_decay, delta)


def conclude(
    network: nn.Module,
    head: nn.Linear,
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
        head: Its classifier.
        values: Measures of each layer's features, by layer and name.
        means: M, (K, d), of the last layer; only where the outputs are compared with quasi-interpolation.
        counts: Samples of each class, (C,); only where the last layer was measured.
        outputs: What the logits say.
        norm: As for :func:`measure_split`.
        weight_decay: As for :func:`measure_split`.
        delta: As for :func:`measure_split`.
    """
    with torch.no_grad():
        if LAST in values:
            last_norm = network.get_submodule(norm) if norm is not None else getattr(network, "last_norm", None)
            values[LAST] |= outputs.compute()
            values[LAST]["gamma_norm"] = _gamma_norm(last_norm)
            values[LAST] |= _norms(network, values[LAST])
            values[LAST] |= outputs.norm_measures(head, values[LAST]["rho"], weight_decay)
            values[LAST] |= outputs.quasi_measures(head, means, weight_decay)
    measured = {name: _floats(measures) for name, measures in values.items()}
    if LAST in measured and counts is not None:
        model = LayerPeeled.of(counts, head, last_norm, bool(outputs.of_cross_entropy))
        measured[LAST] |= optimality(model, weight_decay, delta, measured[LAST])
    return measured


def rows_of(epoch: int, split: str, measured: Mapping[str, dict[str, float]]) -> list[dict[str, Any]]:
    """Rows of ``history.csv`` of what :func:`measure_split` gave.

    ``interpolated`` and ``rho_eq`` are there for the training split: what decay balances is the loss on it.
    """
    rows = []
    for layer, values in measured.items():
        row = {"epoch": epoch, "split": split, "layer": layer, **values}
        if split != "train":
            row.pop("rho_eq", None)
        elif "accuracy" in values:
            row["interpolated"] = float(values["accuracy"] == 1)
        rows.append(row)
    return rows


def _update(metrics: Mapping[str, NeuralCollapse], batch: FeatureBatch) -> None:
    for name, metric in metrics.items():
        device = metric.sums.device
        logits = batch.logits.to(device) if name == LAST else None
        metric.update(batch.features[name].to(device), batch.labels.to(device), logits)


def _gamma_norm(last_norm: nn.Module | None) -> Tensor:
    weight = getattr(last_norm, "weight", None)
    return torch.tensor(torch.nan) if weight is None else weight.double().norm()


def _norms(network: nn.Module, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Products of weight norms, and the margins of the outputs divided by rho (CBMM Memo 117, section 3).

    With one output of targets +-1, as in the memo's section 3, a margin is y f and ``normalized_margin_mean``, ``_std``
    and ``_square`` are its mu, sigma and M. With two outputs a margin is f_y less the other: of opposite ones twice the
    memo's y f. Its mu and M are then :meth:`ncflow.measuring.outputs.Outputs.norm_measures`'.
    """
    rho = weight_norm_product(network)
    margins = {f"normalized_{name}": values[name] / rho for name in values if name.startswith("margin_")}
    if margins:
        mean, deviation = margins["normalized_margin_mean"], margins["normalized_margin_std"]
        margins["normalized_margin_square"] = mean.square() + deviation.square()
    return {"rho": rho, "rho_folded": folded_weight_norm_product(network), **margins}


def _floats(measures: Mapping[str, Tensor]) -> dict[str, float]:
    """All values in one transfer from the device."""
    return dict(zip(measures, torch.stack([v.double() for v in measures.values()]).tolist(), strict=True))
