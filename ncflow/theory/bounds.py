"""Proximity to collapse near the optimal loss: Theorems 2.1 and 2.2 of Pan and Cao.

The steps of their proof are in :mod:`ncflow.theory.subset_means`, :mod:`ncflow.theory.jensen_gaps` and
:mod:`ncflow.theory.mean_directions`, what is wrong in each beside it; the form of the thesis is in
:mod:`ncflow.theory.thesis_bounds`.

What is known to be wrong or open in the text, and what these functions make of it:

- Both theorems hold a "small constant kappa > 0" in exp(kappa C alpha beta). It is an argument here.
  :func:`proof_kappa` gives the least value for which the proof's own step (the strong convexity of
  log(1 + (C-1) e^x)) is right: it is larger than C/(C-1), so more than 1, and the bounds are vacuous unless the gap
  is tiny.
- The proof bounds |u_c|, but intra_c = |u_c|^2 (Lemma C.5). ``intra`` is the square of the printed bound, which is
  what the proof gives; ``intra_printed`` is the printed one, which is larger.
- Proposition C.1 (sum a/b >= N sum a / sum b) is false: a = (1, 0), b = (1, 0.01). An earlier bound on intra in the
  proof leans on it, with a rate of epsilon instead of sqrt(epsilon); it is not offered here. That the printed
  constant 128 is right has not been proven beyond doubt; take the bounds for intra as the authors' claim.
- The bound of the NC3 cosine drops a factor (C-1)/(C alpha beta) from eq. 27, so that the proof does not give it where
  alpha beta < (C-1)/C.
- The bounds hold for a share of 1 - delta of the classes and pairs; what the proof counts is 1 - 2 delta and
  1 - 5 delta.
- Theorem 2.2 has rho = (C e/lambda)^(kappa C) with Euler's number e, in its statement and its proof by a misprint
  with epsilon; the sentence after Theorem 2.2 has it right.
"""

from dataclasses import dataclass
from math import exp, inf, log, sqrt

import numpy as np
from numpy.typing import ArrayLike

from ncflow.checks import require
from ncflow.theory.simplex import inter_limit


@dataclass(frozen=True)
class ProximityBounds:
    """What a theorem guarantees for a share of 1 - delta of the classes, or pairs of classes.

    Attributes:
        intra: Lower bound of intra_c with self-pairs, the square of the proof's bound of |u_c|.
        intra_printed: The lower bound as the text prints it.
        nc3_cosine: Lower bound of the cosine of a centred classifier row and its class mean.
        inter: Upper bound of inter_{c,c'}.
    """

    intra: float
    intra_printed: float
    nc3_cosine: float
    inter: float

    @property
    def intra_vacuous(self) -> bool:
        """Whether the bound of intra says nothing: intra = |u_c|^2 is never below 0."""
        return self.intra <= 0

    @property
    def nc3_vacuous(self) -> bool:
        """Whether the bound of the NC3 cosine says nothing."""
        return self.nc3_cosine <= -1

    @property
    def inter_vacuous(self) -> bool:
        """Whether the bound of inter says nothing."""
        return self.inter >= 1

    @property
    def vacuous(self) -> bool:
        """Whether none of the three bounds says anything."""
        return self.intra_vacuous and self.nc3_vacuous and self.inter_vacuous


def bounds_from_norms(
    num_classes: int, alpha: float, beta: float, epsilon: float, *, delta: float = 0.05, kappa: float
) -> ProximityBounds:
    """Theorem 2.1 (detailed as C.1): collapse from bounded norms and a loss within epsilon of m(alpha, beta).

    intra >= 1 - (C-1)/(C alpha beta) sqrt(128 epsilon (1-delta) E/delta), cos(w_c, mu_c) >= 1 - 2 sqrt(2 epsilon
    (1-delta) E/delta), inter <= -1/(C-1) + C/(C-1) r + 4 (2 r)^(1/3) + sqrt(r), where E = exp(kappa C alpha beta) and
    r = E/(alpha beta) sqrt(2 epsilon/delta). See the module's notes on what of it is proven.

    Args:
        num_classes: C >= 3.
        alpha: Bound of sqrt(mean |h|^2), > 0.
        beta: Bound of |W|_F/sqrt(C), > 0.
        epsilon: Gap of the mean cross-entropy to its least value, >= 0; the theorem assumes epsilon << delta.
        delta: Share of classes and pairs that may violate the bounds, in (0, 1).
        kappa: The theorem's constant, > 0.
    """
    require(num_classes >= 3, "num_classes", "at least 3", num_classes)
    require(alpha > 0, "alpha", "greater than 0", alpha)
    require(beta > 0, "beta", "greater than 0", beta)
    check_gap(epsilon, delta, kappa)
    C, product = num_classes, alpha * beta
    growth = exp_or_inf(kappa * C * product)
    ratio = growth / product
    slack = (C - 1) / (C * product) * root(128 * epsilon * (1 - delta) / delta, growth)
    r = times(ratio, sqrt(2 * epsilon / delta))
    inter = inter_limit(C) + C / (C - 1) * r + 4 * (2 * r) ** (1 / 3) + sqrt(r)
    return proximity_bounds(slack, root(2 * epsilon * (1 - delta) / delta, growth), inter)


def bounds_from_weight_decay(
    num_classes: int, weight_decay: float, epsilon: float, *, delta: float = 0.05, kappa: float
) -> ProximityBounds:
    """Theorem 2.2 (detailed as C.2): collapse from BN, weight decay and a regularised loss within epsilon of m_reg.

    intra >= 1 - (C-1)/C sqrt(128 rho epsilon (1-delta)/delta), cos(w_c, mu_c) >= 1 - 2 sqrt(2 rho epsilon
    (1-delta)/delta), inter <= -1/(C-1) + C/(C-1) r + 4 r^(1/3) + sqrt(r), where rho = (C e/lambda)^(kappa C) and
    r = rho sqrt(2 epsilon/delta). See the module's notes on what of it is proven.

    Args:
        num_classes: C >= 3.
        weight_decay: lambda in (0, 1/sqrt(C)).
        epsilon: Gap of the regularised loss to m_reg, in [0, lambda): the theorem assumes it below lambda.
        delta: Share of classes and pairs that may violate the bounds, in (0, 1).
        kappa: The theorem's constant, > 0.
    """
    require(num_classes >= 3, "num_classes", "at least 3", num_classes)
    C = num_classes
    require(0 < weight_decay < 1 / sqrt(C), "weight_decay", f"in (0, 1/sqrt(C)) = (0, {1 / sqrt(C):.4g})", weight_decay)
    check_gap(epsilon, delta, kappa)
    require(epsilon < weight_decay, "epsilon", f"below the weight decay {weight_decay:g}", epsilon)
    rho = exp_or_inf(kappa * C * (log(C / weight_decay) + 1))
    slack = (C - 1) / C * root(128 * epsilon * (1 - delta) / delta, rho)
    r = times(rho, sqrt(2 * epsilon / delta))
    inter = inter_limit(C) + C / (C - 1) * r + 4 * r ** (1 / 3) + sqrt(r)
    return proximity_bounds(slack, root(2 * epsilon * (1 - delta) / delta, rho), inter)


def proximity_bounds(slack: float, half_nc3: float, inter: float) -> ProximityBounds:
    """Of 1 less the printed bound of intra, half of 1 less that of the NC3 cosine, and that of inter."""
    printed = 1 - slack
    return ProximityBounds(max(printed, 0.0) ** 2, printed, 1 - 2 * half_nc3, inter)


def check_gap(epsilon: float, delta: float, kappa: float) -> None:
    """Refuse what the theorems do not take."""
    require(epsilon >= 0, "epsilon", "at least 0", epsilon)
    require(0 < delta < 1, "delta", "in (0, 1)", delta)
    require(kappa > 0, "kappa", "greater than 0", kappa)


def exp_or_inf(x: float) -> float:
    """e^x, infinite where a double overflows; a bound says nothing long before."""
    return exp(x) if x < 700 else inf


def times(factor: float, gap: float) -> float:
    """The product, 0 without a gap, also if the factor is infinite."""
    return 0.0 if gap == 0 else factor * gap


def root(gap: float, factor: float) -> float:
    """Root of :func:`times`."""
    return sqrt(times(factor, gap))


def proof_kappa(num_classes: int, norm_product: float) -> float:
    """Least kappa for which the proof of Theorem 2.1 is right about its strong convexity.

    The proof needs the second derivative of log(1 + (C-1) e^x), which is 1/((C-1) e^x + 2 + e^-x/(C-1)), to be at least
    exp(-kappa C alpha beta) on |x| <= C^2/(C-1) alpha beta. Its least value there is at the right end.

    Args:
        num_classes: C >= 2.
        norm_product: alpha beta > 0.

    Example:
        >>> proof_kappa(4, 3.0) > 4 / 3
        True
    """
    require(num_classes >= 2, "num_classes", "at least 2", num_classes)
    require(norm_product > 0, "norm_product", "greater than 0", norm_product)
    C = num_classes
    end = C**2 / (C - 1) * norm_product
    # log((C-1) e^end + 2 + e^-end/(C-1)) without overflow
    log_inverse = np.logaddexp(np.logaddexp(log(C - 1) + end, log(2)), -end - log(C - 1))
    return float(log_inverse) / (C * norm_product)


def batch_norm_rms(gamma: ArrayLike, variance: ArrayLike | None = None, eps: float = 0.0) -> float:
    """Lemma C.4: sqrt(mean |h|^2) of a batch after BN without offset, |gamma|.

    Real layers divide by sqrt(variance + eps), which leaves sqrt(sum gamma_k^2 v_k/(v_k + eps)): a little less, and
    nothing of a feature that is constant over the batch.

    Args:
        gamma: Scales (d,).
        variance: Variances v_k (d,) of BN's inputs over the batch (divisor N); needed where ``eps`` is not 0.
        eps: BN's constant, >= 0.
    """
    require(eps >= 0, "eps", "at least 0", eps)
    require(eps == 0 or variance is not None, "variance", "given where eps is not 0", variance)
    scales = np.square(np.asarray(gamma, dtype=np.float64))
    if variance is not None and eps > 0:
        spread = np.asarray(variance, dtype=np.float64)
        scales = scales * spread / (spread + eps)
    return float(np.sqrt(scales.sum()))
