"""How far a network is from the optimum of the layer-peeled model for its classes' shares, and what inter is there.

That model's penalty is lambda/2 of |W|_F^2 and of |gamma|^2 of the BN before the classifier, or of the features' mean
square where there is no BN: nothing else that weight decay may be on. Its optimum is over W too: of a W that is fixed
it says nothing, and no penalty is on that. Where the model says nothing, a value is NaN.
Decay that is no penalty, as AdamW's, leaves the gaps what they are, and training need not go to that optimum.
"""

from functools import lru_cache
from math import isfinite, isnan, nan, sqrt
from typing import NamedTuple

from torch import Tensor, nn

from ncflow.metrics.head import LinearHead
from ncflow.theory import given_shares
from ncflow.theory.given_shares import Optimum
from ncflow.theory.layer_peeled import (
    minimum_loss,
    minimum_regularized_loss,
    optimal_norm_product,
    regularized_loss,
)
from ncflow.theory.peeled_dual import Form
from ncflow.theory.simplex import inter_limit

# Beyond, the optimum for classes of unequal size would take longer than the measures: it is found once for a weight
# decay, and at every measurement for the norms.
_MOST_CLASSES = {"regularized_loss_gap": 100, "loss_gap": 30}
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


class LayerPeeled(NamedTuple):
    """Which layer-peeled model a network is on a split.

    Attributes:
        counts: Samples of each class.
        form: As for :func:`ncflow.theory.given_shares.optimum`; ``free`` also with a BN that adds an offset, by which
            features have any mean. Where BN uses running averages, as in evaluation mode, the mean of ``centred``
            features is only about 0, and a gap may be a little below it.
        of_loss: Whether the network is trained on the cross-entropy.
        of_penalty: Whether decay is where the model has its penalty. It is not where another norm is in the place of BN
            and, for unequal classes, where the classifier has a bias, which decays as well. (The best bias of equal
            classes is 0.)
        offset: Whether BN adds an offset. It decays as gamma does, and as |gamma|^2 + |offset|^2 = mean |h|^2 the model
            is that of ``free`` features; but ``regularized_loss`` counts gamma alone, and has no gap.
        of_scale: Whether the size of the features is free. Where gamma is fixed the model's optimum is a lower bound,
            and not where training on unequal classes goes.
        fixed: Whether W is not trained.
    """

    counts: tuple[int, ...]
    form: Form
    of_loss: bool
    of_penalty: bool
    offset: bool
    of_scale: bool
    fixed: bool

    @classmethod
    def of(
        cls, counts: Tensor, head: LinearHead, last_norm: nn.Module | None, is_cross_entropy: bool, fixed: bool
    ) -> "LayerPeeled":
        """Of the samples of each class, (C,), the classifier, the norm before it, the loss, and whether W is fixed."""
        samples = tuple(int(count) for count in counts.tolist())
        is_bn, scale = isinstance(last_norm, _BATCH_NORMS), getattr(last_norm, "weight", None)
        offset = getattr(last_norm, "bias", None) is not None
        return cls(
            samples,
            "bias" if head.bias is not None else "centred" if is_bn and not offset else "free",
            is_cross_entropy,
            (last_norm is None or is_bn) and (head.bias is None or _are_equal(samples)),
            offset,
            not is_bn or (scale is not None and scale.requires_grad),
            fixed,
        )

    def least_loss(self, alpha: float, beta: float) -> float:
        """Least cross-entropy at these norms of features and classifier, NaN where it is not known."""
        if not (self.of_loss and isfinite(alpha) and isfinite(beta) and self._has_optimum("loss_gap")):
            return nan
        if _are_equal(self.counts):
            return minimum_loss(len(self.counts), alpha, beta)
        try:
            return given_shares.least_loss(self.counts, alpha, beta, self.form)
        except RuntimeError:  # not certified
            return nan

    def least_regularized_loss(self, decay: float) -> float:
        """Least regularised loss at this weight decay, NaN where it is not known."""
        if self.offset or not self._has_regularized_optimum(decay):
            return nan
        if _are_equal(self.counts):
            return minimum_regularized_loss(len(self.counts), decay)
        found = _optimum(self.counts, decay, self.form)
        return nan if found is None else found.regularized_loss

    def inter_limits(self, decay: float, delta: float) -> dict[str, float]:
        """Max, mean and 1 - delta quantile of inter, and its uncentred max, at the optimum; NaN where not known.

        Those of equal classes are -1/(C-1) whatever the loss and the norm, unless decay leaves no features.
        """
        names = ("inter_max_limit", "inter_mean_limit", "inter_quantile_limit", "inter_raw_max_limit")
        C, known = len(self.counts), self.of_scale and self._has_regularized_optimum(decay)
        if min(self.counts) > 0 and _are_equal(self.counts):
            nothing = known and decay > 0 and optimal_norm_product(C, decay) == 0
            return dict.fromkeys(names, nan if nothing else inter_limit(C))
        found = _optimum(self.counts, decay, self.form) if known else None
        if found is None:
            return dict.fromkeys(names, nan)
        values = (found.inter_max, found.inter_mean, found.inter_quantile(1 - delta), found.inter_raw_max)
        return dict(zip(names, values, strict=True))

    def _has_regularized_optimum(self, decay: float) -> bool:
        known = self.of_loss and self.of_penalty and not isnan(decay)
        return known and self._has_optimum("regularized_loss_gap")

    def _has_optimum(self, gap: str) -> bool:
        known = _are_equal(self.counts) or len(self.counts) <= _MOST_CLASSES[gap]
        return known and min(self.counts) > 0 and not self.fixed


def optimality(model: LayerPeeled, decay: float, delta: float, values: dict[str, float]) -> dict[str, float]:
    """Regularised loss, the gaps to the least losses, the limits of inter, and the shares of the classes.

    Args:
        model: What the network is to the theory.
        decay: lambda, NaN where there is none to speak of.
        delta: Level of ``inter_quantile``.
        values: Measures of the last layer; ``cross_entropy`` is taken out of them.
    """
    cross_entropy, gamma = values.pop("cross_entropy"), values["gamma_norm"]
    alpha, weight_norm = values["feature_rms_norm"], values["weight_norm"]
    scale, decayed = alpha if isnan(gamma) else gamma, 0.0 if model.fixed else weight_norm
    total = regularized_loss(cross_entropy, decay, scale, decayed)
    samples = sum(model.counts) or nan
    return {
        "regularized_loss": total,
        "loss_gap": cross_entropy - model.least_loss(alpha, weight_norm / sqrt(len(model.counts))),
        "regularized_loss_gap": total - model.least_regularized_loss(decay),
        **model.inter_limits(decay, delta),
        "class_share_min": min(model.counts) / samples,
        "class_share_max": max(model.counts) / samples,
    }


def _are_equal(counts: tuple[int, ...]) -> bool:
    return len(set(counts)) == 1


@lru_cache(maxsize=1024)
def _optimum(counts: tuple[int, ...], decay: float, form: Form) -> Optimum | None:
    """Remembered also where it is not known: it is asked for at every measurement."""
    try:
        return given_shares.optimum(counts, decay, form)
    except RuntimeError:  # not certified
        return None
