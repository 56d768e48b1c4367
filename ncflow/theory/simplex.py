"""The simplex equiangular tight frame (ETF), the shape that class means and classifier rows take at collapse."""

from math import sqrt

import numpy as np
from numpy.typing import NDArray

from ncflow.checks import require


def inter_limit(num_classes: int) -> float:
    """Cosine of two different vectors of the simplex, -1/(C-1): the least that C vectors can all have pairwise.

    Args:
        num_classes: C >= 2.
    """
    require(num_classes >= 2, "num_classes", "at least 2", num_classes)
    return -1 / (num_classes - 1)


def simplex_etf(num_classes: int, dim: int | None = None) -> NDArray[np.float64]:
    """Rows (C, d) of a simplex ETF: unit vectors that sum to 0 and have the pairwise cosine -1/(C-1).

    Row c lies in the span of the first c + 1 axes, so that the same call gives the same vectors
    (Helmert's orthonormal contrasts of the C corners of the standard simplex).

    Args:
        num_classes: C >= 2.
        dim: d >= C - 1; None takes C - 1. The axes beyond the first C - 1 are 0.

    Example:
        >>> simplex_etf(2).ravel().tolist()
        [1.0, -1.0]
    """
    C, d = num_classes, num_classes - 1 if dim is None else dim
    require(C >= 2, "num_classes", "at least 2", C)
    require(d >= C - 1, "dim", f"at least C - 1 = {C - 1}", d)
    rows = np.zeros((C, d))
    for k in range(1, C):
        rows[:k, k - 1] = 1 / sqrt(k * (k + 1))
        rows[k, k - 1] = -k / sqrt(k * (k + 1))
    return rows * sqrt(C / (C - 1))
