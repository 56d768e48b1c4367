"""Values of all pairs of classes, in tiles: the table of 30,000 classes would take 7 GB."""

from collections.abc import Callable, Iterator
from math import inf

import torch
from torch import Tensor

from ncflow.metrics.order import quantile_of_many
from ncflow.metrics.summary import summarize

# Classes on each side of a tile: on a CPU it stays in its cache; a GPU wants few, large kernels.
_SIDE = {"cpu": 512}
_GPU_SIDE = 4096
# Pairs of which all values are held at a time.
_HELD = 2**20

Table = Callable[[slice, slice], Tensor]
"""From rows and columns to that part of a symmetric table (K, K), float64."""


def products(rows: Tensor) -> Table:
    """The scalar products of rows (K, d)."""
    return lambda some, others: rows[some] @ rows[others].T


def tiles(size: int, table: Table) -> Iterator[Tensor]:
    """The entries above the diagonal of a table (size, size) as vectors (n,): each unordered pair once."""
    device = _corner(table).device
    side = _SIDE.get(device.type, _GPU_SIDE)
    cuts = [slice(start, min(start + side, size)) for start in range(0, size, side)]
    for place, rows in enumerate(cuts):
        for columns in cuts[place:]:
            part = table(rows, columns)
            if rows == columns:
                above = torch.triu_indices(len(part), len(part), offset=1, device=device)
                part = part[above[0], above[1]]
            if part.numel():
                yield part.flatten()


def mean_over_pairs(size: int, table: Table, skip_nan: bool = False) -> Tensor:
    """Mean over the unordered pairs, float64; NaN if there are none.

    Args:
        size: K.
        table: Of the pairs.
        skip_nan: Whether a pair that is NaN is left out.
    """
    total, count = _corner(table).new_zeros(()), 0
    for values in tiles(size, table):
        defined = values[~values.isnan()] if skip_nan else values
        total = total + defined.sum()
        count += len(defined)
    return total / (count or torch.nan)


def summarize_pairs(family: str, size: int, table: Table, level: float) -> dict[str, Tensor]:
    """``{family}_max``, ``_mean`` and ``_quantile`` over the unordered pairs; NaN if there are none or one is.

    Args:
        family: Prefix of the names.
        size: K.
        table: Of the pairs, in (-2, 2).
        level: Of the quantile, in (0, 1).
    """
    count = size * (size - 1) // 2
    if count <= _HELD:
        return summarize(family, torch.cat([_corner(table).new_zeros(0), *tiles(size, table)]), "max", level)
    largest, total = (_corner(table).new_full((), start) for start in (-inf, 0.0))
    readings = iter([True])

    def read() -> Iterator[Tensor]:
        nonlocal largest, total
        is_first = next(readings, False)
        for values in tiles(size, table):
            if is_first:
                largest, total = torch.maximum(largest, values.max()), total + values.sum()
            yield values

    quantile = quantile_of_many(read, count, level)
    return {f"{family}_max": largest, f"{family}_mean": total / count, f"{family}_quantile": quantile}


def _corner(table: Table) -> Tensor:
    return table(slice(0, 1), slice(0, 1))
