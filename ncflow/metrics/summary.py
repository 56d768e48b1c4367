"""Worst, mean and quantile over classes or over pairs of classes; simplex geometry shared by the families."""

from collections.abc import Sequence
from fractions import Fraction
from math import ceil, floor

import torch
from torch import Tensor


def summarize(family: str, values: Tensor, worst: str, level: float) -> dict[str, Tensor]:
    """``{family}_{worst}``, ``_mean`` and ``_quantile`` of the defined values (n,); NaN if there is none.

    Args:
        family: Prefix of the names.
        values: The defined values; one that is NaN all the same makes the results NaN.
        worst: ``min`` or ``max``.
        level: Of the quantile, in (0, 1).
    """
    if len(values) == 0:
        values = values.new_full((1,), torch.nan)
    extreme = values.min() if worst == "min" else values.max()
    return {
        f"{family}_{worst}": extreme,
        f"{family}_mean": values.mean(),
        f"{family}_quantile": quantiles(values, [level])[0],
    }


def quantiles(values: Tensor, levels: Sequence[float | Fraction]) -> Tensor:
    """Linearly interpolated quantiles of (n,), as many as there are levels; NaN if a value is NaN.

    ``torch.quantile`` takes at most 2^24 values. A level that is a fraction hits its value exactly: a product of floats
    can round past it.
    """
    ordered = values.sort().values  # NaN comes last
    places = [level * (len(ordered) - 1) for level in levels]
    below, above = ([end(place) for place in places] for end in (floor, ceil))
    shares = [float(place - low) for place, low in zip(places, below, strict=True)]
    found = ordered[below].lerp(ordered[above], ordered.new_tensor(shares))
    return torch.where(ordered[-1].isnan(), torch.nan, found)


def pairs(square: Tensor) -> Tensor:
    """Entries above the diagonal of (n, n), as (n (n-1)/2,): the unordered pairs."""
    rows, columns = torch.triu_indices(len(square), len(square), offset=1, device=square.device)
    return square[rows, columns]


def simplex_gram(size: int, like: Tensor) -> Tensor:
    """E = (I - 11^T/K)/sqrt(K-1), (K, K): the Gram matrix of a simplex ETF, scaled to Frobenius norm 1."""
    identity = torch.eye(size, dtype=like.dtype, device=like.device)
    return (identity - 1 / size) / (size - 1) ** 0.5


def distance_to_simplex(matrix: Tensor) -> Tensor:
    """|| A/|A|_F - E ||_F for A (K, K); NaN where A is 0 or K < 2."""
    K = len(matrix)
    norm = torch.linalg.matrix_norm(matrix)
    if K < 2 or norm == 0:
        return matrix.new_full((), torch.nan)
    return torch.linalg.matrix_norm(matrix / norm - simplex_gram(K, matrix))


def mean_of_defined(values: Tensor) -> Tensor:
    """Mean over (n,); NaN where n = 0."""
    return values.mean() if len(values) else values.new_full((), torch.nan)
