"""Optimum of the layer-peeled model when the classes have given shares p_c of the samples, which need not be equal.

By convexity all features of a class are equal. With the class means h_c as columns of H, (d, C), d >= C - 1, it is

    min over W, H of  sum_c p_c CE(W h_c, c) + lambda/2 (|W|_F^2 + sum_c p_c |h_c|^2).

At given logits Z = W H the least penalty is lambda times the nuclear norm of A = Z diag(sqrt p), so with
F(A) = sum_c p_c CE(z_c, c) the problem is convex in the (C, C) matrix A (Zhu et al. 2021, Theorem 3.2, and Fang et al.
2021 for unequal classes). In the three forms, with s = sqrt p and P = I - s s^T,

    free     min F(A) + lambda |A|_*                 free features
    centred  the same subject to A s = 0             class means that sum to 0 under p: BN without an offset
    bias     min F(A) + lambda |A P|_*               a classifier with a bias, on which there is no penalty

For equal shares all three have the closed form of :mod:`ncflow.theory.layer_peeled`. For others it is no simplex, and
that closed form is no bound: for shares .09 .72 .13 .05 and lambda = 5e-3 it is 11 % above the least loss of ``free``
and 20 % below that of ``centred``. A BN with an offset that decays as its gamma does makes the features ``free``.

It is found by L-BFGS over factors W, H and certified by Fenchel's dual: for columns q_c of probabilities and
G = (Q - I) diag(s), sum_c p_c entropy(q_c) is a lower bound if the spectral norm of G (of G P unless the form is
``free``) is at most lambda, and for ``bias`` G s = 0. No number is given out without such a bound within
1e-10 nats (:mod:`ncflow.theory.peeled_descent`). The gradient of F has the form of G; repaired to be feasible, it gives
a bound that is off by the square of its error.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from math import exp, inf, isfinite, log, nan, sqrt
from typing import get_args

import numpy as np

from ncflow.checks import require
from ncflow.theory.layer_peeled import optimal_norm_product
from ncflow.theory.peeled_descent import ZERO, certified, nuclear_norm
from ncflow.theory.peeled_dual import Floats, Form, Problem, problem_of

FORMS: tuple[Form, ...] = get_args(Form)

_NOTHING = 1e-16  # nats: rounding, beside a loss of order 1


@dataclass(frozen=True, eq=False)
class Optimum:
    """The optimum of the layer-peeled model for class shares p_c and weight decay lambda.

    Attributes:
        shares: p, (C,), of sum 1.
        regularized_loss: Least value of CE + lambda/2 (alpha^2 + |W|_F^2), nats.
        loss: CE there, nats.
        norm_product: alpha beta there, alpha^2 = sum_c p_c |h_c|^2 and beta = |W|_F/sqrt(C); alpha = |W|_F.
        duality_gap: ``regularized_loss`` minus its proven lower bound, at most 1e-10 (and rounding).
        classifier: W, (C, C); up to a rotation of the feature space, as is H.
        class_means: h_c as rows, (C, C).
        bias: Of the classifier, (C,); 0 but in the form ``bias``.
    """

    shares: Floats
    regularized_loss: float
    loss: float
    norm_product: float
    duality_gap: float
    classifier: Floats
    class_means: Floats
    bias: Floats

    @property
    def logits(self) -> Floats:
        """W h_c + b as rows, (C, C)."""
        return self.class_means @ self.classifier.T + self.bias

    @cached_property
    def rank(self) -> float:
        """Of W, a whole number; below C - 1 where decay leaves no room for every class (minority collapse)."""
        if not np.isfinite(self.classifier).all():
            return nan
        values = np.linalg.svd(self.classifier, compute_uv=False)
        return int((values > sqrt(ZERO) * values[0]).sum())  # those of W are the roots of those of W H

    @cached_property
    def cosines(self) -> Floats:
        """Cosines of the class means around the mean of all samples, (C, C); NaN of a mean that is at it.

        This is the centre of the measures ``inter_*``.
        """
        return self._cosines_of(self.class_means - self.shares @ self.class_means)

    @property
    def intra(self) -> float:
        """Cosine of two features of a class, 1; NaN where every feature is 0."""
        return 1.0 if self.rank > 0 else nan

    @property
    def inter_max(self) -> float:
        """Largest cosine over pairs of classes, NaN where there is none."""
        return max(_pairs(self.cosines), default=nan)

    @property
    def inter_raw_max(self) -> float:
        """Largest cosine over pairs around 0, the centre of the measures ``inter_raw_*``; NaN where there is none."""
        return max(_pairs(self._cosines_of(self.class_means)), default=nan)

    @property
    def inter_mean(self) -> float:
        """Mean cosine over pairs of classes, NaN where there is none."""
        pairs = _pairs(self.cosines)
        return sum(pairs) / len(pairs) if pairs else nan

    def inter_quantile(self, level: float) -> float:
        """Quantile of the cosines over pairs of classes, interpolated linearly; NaN where there is none.

        Args:
            level: In [0, 1].
        """
        pairs = _pairs(self.cosines)
        return float(np.quantile(pairs, level)) if pairs else nan

    def _cosines_of(self, means: Floats) -> Floats:
        norms = np.linalg.norm(means, axis=1)
        nothing = norms <= ZERO * np.linalg.norm(self.class_means, axis=1).max()
        directions = means / np.where(nothing, nan, norms)[:, None]
        return directions @ directions.T


def _pairs(cosines: Floats) -> list[float]:
    """Those of two classes, where there are such."""
    return [float(value) for value in cosines[np.triu_indices(len(cosines), 1)] if isfinite(value)]


def optimum(shares: Sequence[float], weight_decay: float, form: Form = "free") -> Optimum:
    """The optimum for given shares; remembered for the arguments.

    Without weight decay the least loss is 0, which is approached but not reached, and the rest is NaN. Strong decay
    leaves W = 0 and H = 0: the loss is log C, or with a classifier bias the entropy of the shares.

    Args:
        shares: p_c > 0 of C >= 2 classes, or numbers in proportion to them, as numbers of samples.
        weight_decay: lambda >= 0, the penalty being lambda/2 (alpha^2 + |W|_F^2).
        form: ``free`` features, class means that are ``centred``, or a classifier with a ``bias``.

    Raises:
        ArgumentError: If a class has no share, or another argument breaks its rule.
        RuntimeError: If no solution was certified to 1e-10 nats; seen for several equal shares of 2e-4 and less
            at lambda = sqrt p_c, where their class means just merge.

    Example:
        >>> round(optimum((9, 72, 13, 5), 5e-3, "centred").regularized_loss, 7)
        0.0656861
    """
    require(0 <= weight_decay < inf, "weight_decay", "at least 0 and finite", weight_decay)
    return _optimum(_normalised(shares), float(weight_decay), _checked(form))


def least_loss(shares: Sequence[float], alpha: float, beta: float, form: Form = "free") -> float:
    """Least mean cross-entropy in nats under norm constraints, min F(A) subject to |A|_* <= sqrt(C) alpha beta.

    For equal shares it is m(alpha, beta) of :func:`ncflow.theory.layer_peeled.minimum_loss`. Remembered as well. What
    is below 1e-16 is 0.

    Args:
        shares: As for :func:`optimum`.
        alpha: Bound on sqrt(sum_c p_c |h_c|^2), >= 0.
        beta: Bound on |W|_F/sqrt(C), >= 0.
        form: As for :func:`optimum`.

    Raises:
        ArgumentError: If an argument breaks its rule.
        RuntimeError: If no solution was certified to 1e-10 nats.

    Example:
        >>> round(least_loss((1, 1, 1, 1), 0.0, 1.0), 6)  # log 4: no features, uniform predictions
        1.386294
    """
    require(0 <= alpha < inf, "alpha", "at least 0 and finite", alpha)
    require(0 <= beta < inf, "beta", "at least 0 and finite", beta)
    normalised = _normalised(shares)
    return _least_loss(normalised, sqrt(len(normalised)) * alpha * beta, _checked(form))


def _normalised(shares: Sequence[float]) -> tuple[float, ...]:
    given = tuple(float(share) for share in shares)
    require(len(given) >= 2, "shares", "those of at least 2 classes", given)
    require(all(0 < share < inf for share in given), "shares", "greater than 0 and finite for every class", given)
    total = sum(given)
    return tuple(share / total for share in given)


def _checked(form: Form) -> Form:
    require(form in FORMS, "form", f"one of {', '.join(map(repr, FORMS))}", form)
    return form


# --- the two problems -----------------------------------------------------------------------------------------------


@lru_cache(maxsize=1024)
def _optimum(shares: tuple[float, ...], decay: float, form: Form) -> Optimum:
    problem = problem_of(shares, form)
    if decay == 0:
        return _unreached(problem)
    X, b = problem.nothing()
    if np.linalg.norm(problem.slope(X, b)[1], 2) <= decay:
        return _described(problem, X, b, decay)
    # For decay beyond that of equal shares any size will do.
    norm = sqrt(problem.C) * max(optimal_norm_product(problem.C, decay), 0.1)

    def gap(X: Floats, b: Floats) -> tuple[float, float]:
        total = exp(problem.slope(X, b)[0]) + decay * nuclear_norm(X)
        return total, total - problem.lower_bound(X, b, decay)

    # Polished whatever the gap: that of the loss is of the square of the cosines' error.
    X, b = certified(problem, norm, lambda x: problem.penalised(x, decay), problem.product, gap, least_steps=2)
    return _described(problem, X, b, decay)


@lru_cache(maxsize=1024)
def _least_loss(shares: tuple[float, ...], norm: float, form: Form) -> float:
    problem = problem_of(shares, form)
    if norm == 0:
        return exp(problem.slope(*problem.nothing())[0])
    if problem.on_sphere(problem.start(norm), norm)[0] < log(_NOTHING):
        return 0.0

    def product(x: Floats) -> tuple[Floats, Floats]:
        X, b = problem.product(x)
        return X * (norm / nuclear_norm(X)), b

    def gap(X: Floats, b: Floats) -> tuple[float, float]:
        log_loss, Y, _ = problem.slope(X, b)
        multiplier = -float((Y * X).sum()) / norm  # lambda: that of the penalty with the same solution
        return exp(log_loss), exp(log_loss) - max(problem.lower_bound(X, b, multiplier) - multiplier * norm, 0.0)

    X, b = certified(problem, norm, lambda x: problem.on_sphere(x, norm), product, gap)
    return exp(problem.slope(X, b)[0])


def _unreached(problem: Problem) -> Optimum:
    matrix = np.full((problem.C, problem.C), nan)
    return Optimum(problem.shares, 0.0, 0.0, inf, 0.0, matrix, matrix, matrix[0])


def _described(problem: Problem, X: Floats, b: Floats, decay: float) -> Optimum:
    """The optimum with balanced factors of U X V^T: W^T W = sum_c p_c h_c h_c^T."""
    left, values, right = np.linalg.svd(X, full_matrices=False)
    values[values <= 1e-14 * values[0]] = 0  # rounding, of which a root is left otherwise
    C, roots, nuclear = problem.C, np.sqrt(values), float(values.sum())
    classifier, means = np.zeros((C, C)), np.zeros((C, C))
    classifier[:, : len(roots)] = problem.left @ left * roots
    means[:, : len(roots)] = (roots[:, None] * right @ problem.to_logits).T
    offset = problem.left @ b
    for array in (classifier, means, offset):
        array.setflags(write=False)  # they are shared by all who ask
    loss = exp(problem.slope(X, b)[0])
    total = loss + decay * nuclear
    gap = total - problem.lower_bound(X, b, decay)
    return Optimum(problem.shares, total, loss, nuclear / sqrt(C), gap, classifier, means, offset)
