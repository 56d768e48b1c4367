"""Optimum of the layer-peeled model: cross-entropy over free features and classifier (Pan, Cao, section 2.3)."""

from math import exp, log, log1p, sqrt

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


def regularized_loss(loss: float, weight_decay: float, alpha: float, weight_norm: float) -> float:
    """Cross-entropy plus the penalty of the last layer alone, L + lambda/2 (alpha^2 + |W|_F^2) (Pan, Cao, eq. 2).

    Args:
        loss: Mean cross-entropy L.
        weight_decay: lambda >= 0.
        alpha: |gamma| of the BN before the classifier, or sqrt(mean |h|^2) where there is none.
        weight_norm: |W|_F.
    """
    return loss + weight_decay / 2 * (alpha**2 + weight_norm**2)
