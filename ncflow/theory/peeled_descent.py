"""The least value of a function of the layer-peeled model's factors, certified by a lower bound.

:mod:`ncflow.theory.given_shares` says what the problem is, :mod:`ncflow.theory.peeled_dual` has its loss and bound.
"""

from collections.abc import Callable
from math import inf

import numpy as np

from ncflow.theory.peeled_dual import Floats, Problem

TOLERANCE = 1e-10
"""Largest distance, in nats, between a least loss that is given out and a proven lower bound of it."""
ZERO = 1e-6
"""Shares of the largest: singular values that are 0, and class means that are at the centre."""

_STEPS = 20_000  # at most, of L-BFGS

Objective = Callable[[Floats], tuple[float, Floats]]


def certified(
    problem: Problem,
    norm: float,
    objective: Objective,
    product: Callable[[Floats], tuple[Floats, Floats]],
    gap: Callable[[Floats, Floats], tuple[float, float]],
    least_steps: int = 1,
) -> tuple[Floats, Floats]:
    """X and b at the least value of an objective of the factors.

    Args:
        problem: Shares and form.
        norm: About the nuclear norm of the solution.
        objective: Value and gradient.
        product: From the factors to X and b.
        gap: From X and b to the loss and its distance to a lower bound.
        least_steps: Of the descent and its polish.

    Raises:
        RuntimeError: If the distance stays above :data:`TOLERANCE`.
    """
    x, best = problem.start(norm), (inf, *problem.nothing())
    again = (_descend_far, _polish, _polish)
    for taken, step in enumerate((_descend, _polish, *again, *again), 1):
        if taken == 6:
            # At lambda = sqrt p_c of equal classes singular values just vanish, and what has to find them 0 is slow.
            x = problem.split(_trimmed(best[1], 100 * ZERO), best[2])
        x = step(objective, x)
        X, b = product(x)
        for candidate in (X, _trimmed(X)):
            value, distance = gap(candidate, b)
            if taken >= least_steps:  # the trimmed one also if it is no worse
                best = min((distance, candidate, b), best, key=lambda found: max(found[0], TOLERANCE * value / 100))
        if best[0] <= TOLERANCE * min(1.0, value):
            break
    if not best[0] <= TOLERANCE:
        raise RuntimeError(f"the optimum for {problem.C} classes was not certified (duality gap {best[0]:g})")
    return best[1:]


def _descend(objective: Objective, x: Floats, slope: float = 1e-7) -> Floats:
    from scipy.optimize import minimize  # here, as the closed forms do without

    options = {"maxcor": 20, "maxiter": _STEPS, "maxfun": 2 * _STEPS, "ftol": 0, "gtol": slope}
    found: Floats = minimize(objective, x, jac=True, method="L-BFGS-B", options=options).x
    return found


def _descend_far(objective: Objective, x: Floats) -> Floats:
    return _descend(objective, x, 1e-11)


def _polish(objective: Objective, x: Floats) -> Floats:
    """A root of the gradient nearby: beyond what differences of the loss, which are rounded, can tell L-BFGS."""
    from scipy.optimize import root

    options = {"fatol": 1e-14, "maxiter": 6, "jac_options": {"inner_maxiter": 100}}
    try:
        with np.errstate(all="ignore"):
            found: Floats = root(lambda y: objective(y)[1], x, method="krylov", options=options).x.reshape(x.shape)
    except (ValueError, OverflowError):  # not a finite number on its way
        return x
    return found if np.isfinite(found).all() else x


def _trimmed(X: Floats, least: float = ZERO) -> Floats:
    """X without singular values that are next to 0: where they should be 0, they converge slowly."""
    left, values, right = np.linalg.svd(X, full_matrices=False)
    if values[-1] > least * values[0]:
        return X
    return (left * np.where(values > least * values[0], values, 0)) @ right


def nuclear_norm(matrix: Floats) -> float:
    """Sum of the singular values of a matrix."""
    return float(np.linalg.svd(matrix, compute_uv=False).sum())
