"""Optimum of the layer-peeled model: cross-entropy over free features and classifier (Pan, Cao, section 2.3)."""

from math import exp, expm1, log, log1p, sqrt

from ncflow.checks import require


def _check(num_classes: int) -> None:
    require(num_classes >= 2, "num_classes", "at least 2", num_classes)


def minimum_loss(num_classes: int, alpha: float, beta: float) -> float:
    """Least mean cross-entropy under norm constraints, m(alpha, beta) = log(1 + (C-1) exp(-C/(C-1) alpha beta)).

    Args:
        num_classes: C >= 2.
        alpha: Bound on sqrt(mean |h|^2), >= 0.
        beta: Bound on |W|_F/sqrt(C), >= 0.

    Example:
        >>> round(minimum_loss(4, 0.0, 1.0), 6)  # log 4: no features, uniform predictions
        1.386294
    """
    _check(num_classes)
    require(alpha >= 0, "alpha", "at least 0", alpha)
    require(beta >= 0, "beta", "at least 0", beta)
    C = num_classes
    return log1p((C - 1) * exp(-C / (C - 1) * alpha * beta))


def optimal_norm_product(num_classes: int, weight_decay: float) -> float:
    """g* = alpha beta at the regularised optimum, (C-1)/C log((C - (C-1) l)/l) with l = sqrt(C) lambda.

    It minimises log(1 + (C-1) exp(-C/(C-1) g)) + sqrt(C) lambda g. For l >= 1 weight decay wins: g* = 0.

    Args:
        num_classes: C >= 2.
        weight_decay: lambda > 0, the penalty being lambda/2 (|gamma|^2 + |W|_F^2).
    """
    _check(num_classes)
    require(weight_decay > 0, "weight_decay", "greater than 0", weight_decay)
    C, penalty = num_classes, sqrt(num_classes) * weight_decay
    return 0.0 if penalty >= 1 else (C - 1) / C * log((C - (C - 1) * penalty) / penalty)


def minimum_regularized_loss(num_classes: int, weight_decay: float) -> float:
    """Least regularised loss of the layer-peeled model (Pan, Cao, Theorem 2.2, erratum mended).

    m_reg = -log(1 - (C-1) lambda/sqrt(C)) + (C-1)/sqrt(C) lambda log(sqrt(C)/lambda - (C-1)) for sqrt(C) lambda < 1,
    and log C otherwise. The text prints the first term with the opposite sign: for C = 4 and lambda = 5e-3 the
    right value is 0.0524078, the printed form gives 0.0373513. Without weight decay it is 0, which is
    approached but not reached.

    Args:
        num_classes: C >= 2.
        weight_decay: lambda >= 0.

    Example:
        >>> round(minimum_regularized_loss(4, 5e-3), 7)
        0.0524078
    """
    if weight_decay == 0:
        _check(num_classes)
        return 0.0
    return regularized_bound(num_classes, weight_decay, optimal_norm_product(num_classes, weight_decay))


def regularized_bound(num_classes: int, weight_decay: float, norm_product: float) -> float:
    """Least regularised loss at a given product of norms, f(g) = m(g) + sqrt(C) lambda g (Pan, Cao, section C.3).

    Weight decay costs lambda/2 (alpha^2 + C beta^2) >= sqrt(C) lambda alpha beta, with equality for balanced norms.

    Args:
        num_classes: C >= 2.
        weight_decay: lambda >= 0.
        norm_product: g = alpha beta >= 0.
    """
    require(weight_decay >= 0, "weight_decay", "at least 0", weight_decay)
    return minimum_loss(num_classes, 1.0, norm_product) + sqrt(num_classes) * weight_decay * norm_product


def norm_product_radius(num_classes: int, weight_decay: float, epsilon: float) -> float:
    """How far g = alpha beta is from g* at a regularised loss of m_reg + epsilon, to second order in the distance.

    sqrt(2 epsilon/f''(g*)), f'' = C/(C-1) l (1 - (C-1)/C l), l = sqrt(C) lambda: about sqrt(2 (C-1) epsilon/(C l))
    (Pan, Cao, Proposition C.2, mended). The text prints sqrt(C epsilon/((C-1) l)), as its proof forgets to square
    C/(C-1) and to halve: too small for C >= 4 (C = 10, epsilon = l/1000: printed 0.0333, right 0.0424). The proof of
    Theorem 2.2 then uses it with lambda where l belongs. For larger epsilon g may rise further than it may fall:
    :func:`norm_product_interval` is exact.

    Args:
        num_classes: C >= 2.
        weight_decay: lambda in (0, 1/sqrt(C)): beyond, g* = 0.
        epsilon: Gap of the regularised loss to m_reg, >= 0.
    """
    penalty = _penalty(num_classes, weight_decay, epsilon)
    C = num_classes
    return sqrt(2 * epsilon * (C - 1) / (C * penalty * (1 - (C - 1) / C * penalty)))


def norm_product_interval(num_classes: int, weight_decay: float, epsilon: float) -> tuple[float, float]:
    """Least and largest g = alpha beta that a regularised loss of at most m_reg + epsilon allows.

    The two g >= 0 with f(g) = m_reg + epsilon, or 0 where no norm at all is near enough.

    Args:
        num_classes: C >= 2.
        weight_decay: lambda in (0, 1/sqrt(C)).
        epsilon: Gap of the regularised loss to m_reg, >= 0.
    """
    from scipy.optimize import brentq  # here, as the closed forms do without

    penalty = _penalty(num_classes, weight_decay, epsilon)
    C, best = num_classes, optimal_norm_product(num_classes, weight_decay)

    def excess(distance: float) -> float:
        """f(g* + distance) - f(g*) - epsilon, in a form in which small differences are exact."""
        return log1p((C - 1) / C * penalty * expm1(-C / (C - 1) * distance)) + penalty * distance - epsilon

    if epsilon == 0:
        return best, best
    farthest = (regularized_bound(C, weight_decay, best) + epsilon) / penalty  # f(g) >= l g
    low = brentq(excess, -best, 0.0, xtol=1e-14) if excess(-best) > 0 else -best
    return best + low, best + brentq(excess, 0.0, farthest, xtol=1e-14)


def _penalty(num_classes: int, weight_decay: float, epsilon: float) -> float:
    _check(num_classes)
    limit = 1 / sqrt(num_classes)
    require(0 < weight_decay < limit, "weight_decay", f"in (0, 1/sqrt(C)) = (0, {limit:.4g})", weight_decay)
    require(epsilon >= 0, "epsilon", "at least 0", epsilon)
    return sqrt(num_classes) * weight_decay


def regularized_loss(loss: float, weight_decay: float, alpha: float, weight_norm: float) -> float:
    """Cross-entropy plus the penalty of the last layer alone, L + lambda/2 (alpha^2 + |W|_F^2) (Pan, Cao, eq. 2).

    Args:
        loss: Mean cross-entropy L.
        weight_decay: lambda >= 0.
        alpha: |gamma| of the BN before the classifier, or sqrt(mean |h|^2) where there is none.
        weight_norm: |W|_F.
    """
    return loss + weight_decay / 2 * (alpha**2 + weight_norm**2)
