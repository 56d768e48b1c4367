"""A quantile of more values than can be held, exactly, by reading them some times."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import ceil, floor

import torch
from torch import Tensor

# Values that are held at a time, and bits by which a pass tells values apart.
_HELD = 2**20
_BITS = 16


@dataclass(frozen=True)
class _Bracket:
    """Where a value of some rank is.

    Attributes:
        first: Its key is at least this.
        last: And at most this.
        below: How many values have smaller keys than ``first``.
        within: How many have keys from ``first`` to ``last``.
    """

    first: int
    last: int
    below: int
    within: int

    @property
    def shift(self) -> int:
        """By how many bits keys are cut to count them in bins."""
        return max(0, (self.last - self.first).bit_length() - _BITS)

    def of(self, keys: Tensor) -> Tensor:
        """The keys that are in it."""
        return keys[(keys >= self.first) & (keys <= self.last)]

    def narrowed(self, rank: int, counts: Tensor) -> "_Bracket":
        """The bin in which a rank is, of ``counts``."""
        cumulative = counts.cumsum(0) + self.below
        place = int(torch.searchsorted(cumulative, rank, right=True))
        first = self.first + (place << self.shift)
        last = min(self.last, first + (1 << self.shift) - 1)
        return _Bracket(first, last, int(cumulative[place] - counts[place]), int(counts[place]))


def quantile_of_many(read: Callable[[], Iterable[Tensor]], count: int, level: float) -> Tensor:
    """Linearly interpolated quantile of values in (-2, 2), float64; NaN if one is NaN.

    By the bits of the numbers, whose order as integers is their own: each reading counts in 65,536 bins those that may
    have the rank, until they can be held and sorted. Two or three readings do, where all are equal five.

    Args:
        read: Gives the values as vectors (n,), the same whenever it is called.
        count: How many there are.
        level: In (0, 1).
    """
    place = level * (count - 1)
    ranks = floor(place), ceil(place)
    brackets = dict.fromkeys(ranks, _Bracket(-(2**62), 2**62 - 1, 0, count))
    while any(found.within > _HELD and found.first < found.last for found in brackets.values()):
        counts: dict[_Bracket, Tensor] = {}
        for values in read():
            keys = _keys(values)
            for found in set(brackets.values()):
                bins = torch.bincount((found.of(keys) - found.first) >> found.shift, minlength=2**_BITS)
                counts[found] = counts[found] + bins if found in counts else bins
        if any(int(bins.sum()) < found.within for found, bins in counts.items()):
            return torch.full_like(values[0], torch.nan)
        brackets = {rank: found.narrowed(rank, counts[found]) for rank, found in brackets.items()}
    held = {found: _sorted(read, found) for found in set(brackets.values())}
    low, high = (held[brackets[rank]][rank - brackets[rank].below] for rank in ranks)
    return low.lerp(high, place - ranks[0])


def _sorted(read: Callable[[], Iterable[Tensor]], bracket: _Bracket) -> Tensor:
    """The values in a bracket, ascending; one value that all of them have, as often as they have it."""
    if bracket.first == bracket.last:
        return _values(torch.tensor(bracket.first)).expand(bracket.within)
    # One piece: many small ones between what is freed would let the process grow by as much as it reads.
    held, filled = torch.empty(0), 0
    for values in read():
        part = bracket.of(_keys(values))
        if filled == 0:
            held = part.new_empty(bracket.within)
        held[filled : filled + len(part)] = part
        filled += len(part)
    return _values(held.sort().values)


def _keys(values: Tensor) -> Tensor:
    """Integers in the order of float64 values."""
    bits = values.view(torch.int64)
    return bits ^ ((bits >> 63) & (2**63 - 1))


def _values(keys: Tensor) -> Tensor:
    return (keys ^ ((keys >> 63) & (2**63 - 1))).view(torch.float64)
