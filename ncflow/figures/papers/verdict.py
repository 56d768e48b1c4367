"""What a claim is: a function from runs to a verdict with its numbers; and what claims share.

Every verdict gives the size of the effect, the number of seeds and a test, for example a permutation test of Spearman's
rank correlation within seeds. Runs that do not interpolate (training accuracy below 1) are outside of what the claims
are about: they are left out and counted.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import factorial, prod
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import rankdata

from ncflow.figures.tables import finished, panel_title, panels

HOLDS, FAILS, TOO_FEW = "holds", "does not hold", "not enough runs"
INTRA, INTER, FITS = "train/intra_min", "train/inter_max", "train/interpolated"

# A rank correlation below this, or one that chance gives more often than this, is not called a trend.
TREND, _LEVEL = 0.5, 0.05
ENOUGH = "four {0} or more, or at three with two seeds"


@dataclass(frozen=True)
class Verdict:
    """A claim, the answer (``holds``, ``does not hold``, ``not enough runs``) and the numbers behind it."""

    claim: str
    answer: str
    numbers: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "\n".join([f"{self.answer.upper():>16}  {self.claim}", *(f"{'':18}{line}" for line in self.numbers)])


Claim = Callable[[pd.DataFrame, pd.DataFrame], Verdict]


class Check(NamedTuple):
    """One setting's answer: whether the claim holds there, and the numbers; None: reported, but not counted."""

    right: bool | None
    line: str


class Trend(NamedTuple):
    """Spearman's rank correlation and the share of random orders that give one as far from 0 on the same side."""

    correlation: float
    p: float

    def __str__(self) -> str:
        return f"{self.correlation:+.2f} (p = {self.p:.2g})"

    @property
    def rises(self) -> bool:
        """Whether there is an upward trend."""
        return self.correlation > TREND and self.p < _LEVEL

    @property
    def falls(self) -> bool:
        """Whether there is a downward trend."""
        return self.correlation < -TREND and self.p < _LEVEL


def rank_trend(runs: pd.DataFrame, x: str, y: str, block: str | None = "seed", orders: int = 9999) -> Trend:
    """Spearman's correlation within each block, pooled over blocks, with a one-sided permutation test within blocks.

    A seed is a block: its data and initial weights may shift a measure by more than the setting does. With one block it
    is the plain rank correlation.

    Args:
        runs: A row a run.
        x: Column of the setting.
        y: Column of the measure.
        block: Column of the blocks; None takes all rows as one.
        orders: Random orders of y; they are the same at each call. 0 gives p = 1.
    """
    groups = [runs] if block is None else [part for _, part in runs.groupby(block)]
    ranked = [[_centred_ranks(part[column]) for column in (x, y)] for part in groups]
    size = np.sqrt(sum(a @ a for a, _ in ranked) * sum(b @ b for _, b in ranked))
    if size == 0:  # one of them does not vary
        return Trend(0.0, 1.0)
    rng = np.random.default_rng(0)
    by_chance = sum(rng.permuted(np.tile(b, (orders, 1)), axis=1) @ a for a, b in ranked) / size
    found = float(sum(a @ b for a, b in ranked) / size)
    reached = by_chance * np.sign(found) >= abs(found) - 1e-12  # equal but for rounding counts
    return Trend(found, float((1 + np.sum(reached)) / (1 + orders)))


def _centred_ranks(values: "pd.Series[float]") -> NDArray[np.float64]:
    return np.asarray(rankdata(values) - (len(values) + 1) / 2)


def allows_trend(part: pd.DataFrame, by: str) -> bool:
    """Whether so many runs could show a trend at all: in perfect order, would they be rare enough by chance?"""
    orders = prod(factorial(count) for count in part["seed"].value_counts())
    return part[by].nunique() >= 3 and orders * _LEVEL > 1


def verdict_of(claim: str, checks: list[Check], needs: str) -> Verdict:
    """The claim holds where it holds in every setting that counts; each setting gives a line."""
    counted = [check.right for check in checks if check.right is not None]
    signs = {True: "", False: "against it: ", None: "not counted: "}
    lines = tuple(signs[check.right] + check.line for check in checks)
    if not counted:
        return Verdict(claim, TOO_FEW, (f"needs {needs}", *lines))
    return Verdict(claim, HOLDS if all(counted) else FAILS, lines)


def measured_runs(runs: pd.DataFrame, *columns: str) -> pd.DataFrame:
    """Finished runs of networks that have the columns, with a flag for BN; free features are no network."""
    done = finished(runs, INTRA, INTER, FITS, "model.norm", "weight_decay", "seed", *columns)
    for column in ("data.name", "model.depth"):
        if column not in done:
            done = done.assign(**{column: None})
    done = done[done["data.name"] != "sample_index"]
    return done.assign(bn=done["model.norm"] != "none" if len(done) else False)


def settings(runs: pd.DataFrame, *inside: str) -> Iterator[tuple[str, pd.DataFrame]]:
    """(name, runs) of each setting: everything but seed, weight decay, BN and ``inside`` is one and the same."""
    for values, part in panels(runs, "bn", *inside):
        yield panel_title(values) or "all runs", part


def left_out(*parts: pd.DataFrame) -> str:
    """Words for the runs that do not interpolate."""
    count = sum(int((part[FITS] != 1).sum()) for part in parts)
    return f"; {count} of {sum(map(len, parts))} runs do not interpolate, left out" if count else ""


def fitting(part: pd.DataFrame) -> pd.DataFrame:
    """The runs that interpolate."""
    return part[part[FITS] == 1]


def seed_count(*parts: pd.DataFrame) -> str:
    """Words for the number of seeds, the least of the parts'."""
    count = min(part["seed"].nunique() for part in parts)
    return f"{count} seed{'s' if count != 1 else ''}"
