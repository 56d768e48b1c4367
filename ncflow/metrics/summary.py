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


def simplex_gram(size: int, like: Tensor) -> Tensor:
    """E = (I - 11^T/K)/sqrt(K-1), (K, K): the Gram matrix of a simplex ETF, scaled to Frobenius norm 1."""
    identity = torch.eye(size, dtype=like.dtype, device=like.device)
    return (identity - 1 / size) / (size - 1) ** 0.5


def distance_to_simplex(left: Tensor, right: Tensor) -> Tensor:
    """|| A/|A|_F - E ||_F for A = L R^T of L, R (K, d), the rows of R summing to 0; NaN where A is 0 or K < 2.

    Where K - 1 > d, A has a lower rank than E and is never near it, so that nothing cancels in
    2 - 2 tr(A E)/|A|_F; with tr(A E) = tr(A)/sqrt(K-1) and |A|_F^2 = tr(L^T L R^T R) that needs no (K, K).
    """
    K, dim = left.shape
    left, right = of_order_1(left), of_order_1(right)
    if K < 2:
        return left.new_full((), torch.nan)
    if dim < K - 1:
        square = ((left.T @ left) * (right.T @ right)).sum()
        distance = (2 - 2 * (left * right).sum() / (K - 1) ** 0.5 / square.sqrt()).sqrt()
        return torch.where(square == 0, torch.nan, distance)
    matrix = left @ right.T
    norm = torch.linalg.matrix_norm(matrix)
    return torch.where(norm == 0, torch.nan, torch.linalg.matrix_norm(matrix / norm - simplex_gram(K, matrix)))


def of_order_1(values: Tensor) -> Tensor:
    """Values; divided by a power of 2, which rounds nothing, if their fourth powers would be no numbers."""
    exponent = torch.frexp(values.abs().amax()).exponent
    return values if abs(int(exponent)) < 200 else torch.ldexp(values, -exponent)
