"""One-sided t tests over seeds, and how many of several hypotheses they reject together."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtr, stdtrit

LEVEL = 0.05
"""Of every one-sided test; intervals are those of two such tests, at 1 - 2 LEVEL."""
SURE = 0.0065
"""The p at which a repetition comes below LEVEL in four of five cases: that of z(0.95) + z(0.8)."""


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds, with what Student's t says of it.

    Attributes:
        mean: Over the seeds.
        error: Its standard error; 0 if all seeds are alike.
        seeds: How many, 2 or more.
    """

    mean: float
    error: float
    seeds: int

    @classmethod
    def of(cls, values: Collection[float]) -> "Estimate":
        """Of a value a seed."""
        found = np.fromiter(values, float)
        return cls(float(found.mean()), float(found.std(ddof=1)) / len(found) ** 0.5, len(found))

    def with_seeds(self, seeds: int) -> "Estimate":
        """What is to be expected of so many seeds if they are like these."""
        return Estimate(self.mean, self.error * (self.seeds / seeds) ** 0.5, seeds)

    @property
    def interval(self) -> tuple[float, float]:
        """At 1 - 2 LEVEL."""
        half = self.error * float(stdtrit(self.seeds - 1, 1 - LEVEL))
        return self.mean - half, self.mean + half

    def above(self, bound: float) -> float:
        """The p of the mean's being larger than a bound."""
        if self.error == 0:
            return 0.0 if self.mean > bound else 1.0
        return float(stdtr(self.seeds - 1, (bound - self.mean) / self.error))

    def below(self, bound: float) -> float:
        """The p of the mean's being smaller than a bound."""
        if self.error == 0:
            return 0.0 if self.mean < bound else 1.0
        return float(stdtr(self.seeds - 1, (self.mean - bound) / self.error))


def rejected(ps: Sequence[float], least: int, level: float = LEVEL) -> bool:
    """Whether at least so many hypotheses are rejected; all of them need no correction, fewer are Holm's (1979)."""
    ordered = sorted(ps)
    if least == len(ps):
        return ordered[-1] < level
    return all(p < level / (len(ps) - place) for place, p in enumerate(ordered[:least]))
