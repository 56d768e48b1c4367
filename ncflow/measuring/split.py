"""Measure a model on a split: the collapse of its layers, and what its outputs and weights say beside it."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import isfinite, isnan, nan, sqrt
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ncflow.measuring.adapters import USUAL, Adapters
from ncflow.measuring.features import LAST, extract, frozen, resolve_layers
from ncflow.measuring.heads import LinearHead, as_linear, find_head, has_adapter
from ncflow.measuring.layers import LayerMetrics
from ncflow.measuring.outputs import Outputs
from ncflow.metrics.margins import folded_weight_norm_product, weight_norm_product
from ncflow.theory import given_shares
from ncflow.theory.layer_peeled import minimum_loss, minimum_regularized_loss, regularized_loss
from ncflow.theory.peeled_dual import Form

# Beyond, the optimum for classes of unequal size would take longer than the measures: it is found once for a weight
# decay, and at every measurement for the norms.
_MOST_CLASSES = {"regularized_loss_gap": 100, "loss_gap": 30}
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


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
        weight_decay: lambda of ``regularized_loss``, its gap and the residuals; NaN where there is none to speak of.
        delta: Level of the quantiles.
        self_pairs: Whether intra counts the pairs i = j.
        max_cached_bytes: Bytes of features kept for each layer, on each rank; beyond, the loader is read twice.
        adapters: How to read a batch and what the network returns.
        loss_is_found: As ``is_found`` of :class:`ncflow.measuring.losses.SplitLoss`.

    Raises:
        ArgumentError: If a batch, an output or the classifier is not known to be read right, if there is no batch, or
            if the second pass over the loader gave other features than the first.
    """
    names = resolve_layers(network, layers)
    name, module = find_head(network, classifier)
    # To the end: what is asked for its weights while it trains, spectral normalisation say, may change by being asked.
    with frozen(network):
        metrics = LayerMetrics(delta, self_pairs, max_cached_bytes)
        outputs = Outputs(loss, next(network.parameters()).device, is_found=loss_is_found)
        head: LinearHead | None = None
        for batch in extract(network, loader, names, classifier, adapters):
            if LAST in names and head is None:
                head = as_linear(name, module, batch.features[LAST].shape[1])
            metrics.update(batch, head)
            outputs.update(batch.logits, batch.labels)
        for layer, dim in metrics.join(next(network.parameters()).device).items():
            head = as_linear(name, module, dim) if layer == LAST else head
            metrics.add(layer, dim, head)
        unfit = metrics.unfit()
        if unfit:
            for batch in extract(network, loader, unfit, classifier, adapters):
                metrics.update(batch, head, unfit)
            metrics.check_passes(unfit)
        found = metrics.found
        values = {layer: metric.compute() for layer, metric in found.items()}
        means = found[LAST].centred_means() if LAST in found and outputs.signs is not None else None
        counts = found[LAST].class_counts() if LAST in found else None
        return conclude(network, head, values, means, counts, outputs, norm, weight_decay)


def conclude(
    network: nn.Module,
    head: LinearHead | None,
    values: dict[str, dict[str, Tensor]],
    means: Tensor | None,
    counts: Tensor | None,
    outputs: Outputs,
    norm: str | None,
    weight_decay: float,
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
    """
    with torch.no_grad():
        if head is not None and LAST in values:
            # A classifier that chose nothing, as one of its weights is NaN, agrees with nothing either.
            values[LAST]["nc4_agreement"] = values[LAST]["nc4_agreement"] + 0 * values[LAST]["margin_mean"]
            last_norm = network.get_submodule(norm) if norm is not None else getattr(network, "last_norm", None)
            values[LAST] |= outputs.compute()
            values[LAST]["gamma_norm"] = _gamma_norm(last_norm)
            values[LAST] |= _norms(network, values[LAST])
            values[LAST] |= outputs.quasi_measures(head, means, weight_decay)
    measured = {name: _floats(measures) for name, measures in values.items()}
    if head is not None and LAST in measured and counts is not None:
        theory = _Theory.of(counts, head, last_norm)
        measured[LAST] |= _optimality(theory, weight_decay, measured[LAST])
    return measured


def rows_of(epoch: int, split: str, measured: Mapping[str, dict[str, float]]) -> list[dict[str, Any]]:
    """Rows of ``history.csv`` of what :func:`measure_split` gave; ``interpolated`` is there for the training split."""
    rows = []
    for layer, values in measured.items():
        row = {"epoch": epoch, "split": split, "layer": layer, **values}
        if split == "train" and "accuracy" in values:
            row["interpolated"] = float(values["accuracy"] == 1)
        rows.append(row)
    return rows


def _gamma_norm(last_norm: nn.Module | None) -> Tensor:
    weight = getattr(last_norm, "weight", None)
    return torch.tensor(torch.nan) if weight is None else weight.double().norm()


def _norms(network: nn.Module, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Products of weight norms, and the margins of the outputs divided by rho (CBMM Memo 117, section 3).

    NaN where an adapter makes a layer's weights more than one matrix.

    In the memo's letters ``normalized_margin_mean`` is mu, ``_std`` sigma and ``_square`` M, the mean square.
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


class _Theory(NamedTuple):
    """Which form of the layer-peeled model a network has on a split.

    Attributes:
        counts: Samples of each class.
        form: As for :func:`ncflow.theory.given_shares.optimum`. Where BN uses running averages, as in evaluation mode,
            the mean of ``centred`` features is only about 0. The penalty of ``regularized_loss`` leaves out the
            classifier's bias: where training decays it, and classes are unequal, the gap does not fall to 0.
        offset: Whether BN adds an offset, which nothing penalises.
    """

    counts: tuple[int, ...]
    form: Form
    offset: bool

    @classmethod
    def of(cls, counts: Tensor, head: LinearHead, last_norm: nn.Module | None) -> "_Theory":
        """Of the samples of each class, (C,), the classifier and the BN before it."""
        offset = getattr(last_norm, "bias", None) is not None
        centred = isinstance(last_norm, _BATCH_NORMS) and not offset
        form: Form = "bias" if head.bias is not None else "centred" if centred else "free"
        return cls(tuple(int(count) for count in counts.tolist()), form, offset)

    @property
    def equal(self) -> bool:
        """Whether all classes have as many samples."""
        return len(set(self.counts)) == 1

    def least_loss(self, alpha: float, beta: float) -> float:
        """Least cross-entropy at these norms, NaN where it is not known."""
        if not (isfinite(alpha) and isfinite(beta) and self._is_known("loss_gap")):
            return nan
        if self.equal:
            return minimum_loss(len(self.counts), alpha, beta)
        return _or_nan(lambda: given_shares.least_loss(self.counts, alpha, beta, self.form))

    def least_regularized_loss(self, decay: float) -> float:
        """Least regularised loss at this weight decay, NaN where it is not known."""
        if isnan(decay) or self.offset or not self._is_known("regularized_loss_gap"):
            return nan
        if self.equal:
            return minimum_regularized_loss(len(self.counts), decay)
        return _or_nan(lambda: given_shares.optimum(self.counts, decay, self.form).regularized_loss)

    def _is_known(self, gap: str) -> bool:
        return min(self.counts) > 0 and (self.equal or len(self.counts) <= _MOST_CLASSES[gap])


def _or_nan(least: Callable[[], float]) -> float:
    try:
        return least()
    except RuntimeError:  # not certified
        return nan


def _optimality(theory: _Theory, decay: float, values: dict[str, float]) -> dict[str, float]:
    """Regularised loss and the gaps to the least losses of the layer-peeled model for the shares of the classes.

    Where the theory does not apply they are NaN: a class is absent, or BN adds an offset, which nothing penalises.
    """
    cross_entropy, gamma = values.pop("cross_entropy"), values["gamma_norm"]
    alpha, weight_norm = values["feature_rms_norm"], values["weight_norm"]
    total = regularized_loss(cross_entropy, decay, alpha if isnan(gamma) else gamma, weight_norm)
    return {
        "regularized_loss": total,
        "loss_gap": cross_entropy - theory.least_loss(alpha, weight_norm / sqrt(len(theory.counts))),
        "regularized_loss_gap": total - theory.least_regularized_loss(decay),
    }


def _floats(measures: Mapping[str, Tensor]) -> dict[str, float]:
    """All values in one transfer from the device."""
    return dict(zip(measures, torch.stack([v.double() for v in measures.values()]).tolist(), strict=True))
