"""Claims on how much runs of different seeds differ: a ratio of standard deviations, with seeds as blocks.

The estimate is the logarithm of the ratio of two standard deviations over seeds. What a seed contributes is its
pseudo-value, n times the estimate less n - 1 times the estimate without the seed, and Student's t is taken over these:
Miller's jackknife for variances (Biometrika 55, 1968), which needs no normal distribution, as the F test does, and no
independence of the two runs of a seed. On planted normal values it is wrong in at most 5 % at three seeds or more.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd

from ncflow.figures.papers.cbmm_117.own import INIT, RHO, SOURCE, TEST_ACCURACY, least_and_largest, square
from ncflow.figures.papers.selection import at_each_decay, by_seed, decades, fitting, left_out
from ncflow.figures.papers.verdict import Effect, Quantifier, Setting, Verdict

# Ours: half a decade is a factor of 3. Five seeds give a ratio to about a factor of 2 up or down, ten to 1.4.
MATTERS = 0.5
_FEWEST = 4
# Ours: spreads that are as good as none, 0.2 percent of rho and a tenth of a percentage point of accuracy.
_NO_SPREAD = 0.001
_SEEDS = "seed=0,1,2,3,4,5,6,7,8,9"


def _spread(runs: pd.DataFrame, words: str, value: Callable[[pd.DataFrame], "pd.Series[float]"]) -> tuple[Setting, ...]:
    """A setting for each weight decay: how much more a value differs between seeds at the largest initial norm."""
    found = []
    for title, whole in at_each_decay(runs, INIT):
        part = fitting(whole)
        ends = least_and_largest(part, value(part))
        if len(ends):
            effect = Effect(
                f"decades of the standard deviation of {words} over seeds from the largest norm above "
                "that from the least",
                MATTERS,
                by_seed(pseudo_values(ends)),
            )
            found.append(Setting(title, (effect,), len(part), left_out(whole)))
    return tuple(found)


def pseudo_values(ends: pd.DataFrame) -> "pd.Series[float]":
    """Jackknife pseudo-values of log10 of the ratio of two columns' standard deviations, ``largest`` over ``least``.

    Args:
        ends: Values by seed; of fewer than four seeds there are no pseudo-values.
    """
    count = len(ends)
    if count < _FEWEST:
        return pd.Series(dtype=float)
    values = ends[["least", "largest"]].to_numpy(float)
    without = np.array([_log_ratio(np.delete(values, seed, axis=0)) for seed in range(count)])
    return pd.Series(count * _log_ratio(values) - (count - 1) * without, index=ends.index)


def _log_ratio(values: np.ndarray) -> float:
    least, largest = np.var(values, axis=0, ddof=1) + _NO_SPREAD**2
    return float(np.log10(largest / least)) / 2


def large_norms_scatter_rho(runs: pd.DataFrame, history: pd.DataFrame) -> Verdict:
    """Figure 15: without weight decay rho differs more between runs that start from a large initial norm."""
    measured, others = square(runs, INIT, RHO)
    plain = measured[measured["weight_decay"] == 0]
    return Verdict(
        "cbmm_117/seed-spread-rho",
        "Without weight decay rho varies more over seeds from a large initial norm than from a small one",
        f"{SOURCE}appendix L, figure 15",
        Quantifier.ALL,
        _spread(plain, "log10 rho", lambda part: decades(part[RHO])),
        f"experiment=cbmm_117/fig15 {_SEEDS}",
        "at the end of training and of log rho: the text, on the dynamics of rho, speaks of large variations from the "
        "largest norm and names no number",
        others,
    )


def large_norms_scatter_accuracy(runs: pd.DataFrame, history: pd.DataFrame) -> Verdict:
    """Figures 16 and 17: the test accuracy differs more between runs that start from a large initial norm."""
    measured, others = square(runs, INIT, TEST_ACCURACY)
    return Verdict(
        "cbmm_117/seed-spread-accuracy",
        "Test accuracy varies more over seeds from a large initial norm than from a small one",
        f"{SOURCE}appendix L, figures 16 and 17",
        Quantifier.ALL,
        _spread(measured, "test accuracy", lambda part: part[TEST_ACCURACY]),
        f"experiment=cbmm_117/fig2 model.init_norm=0.01,1,5 {_SEEDS}",
        "the largest norm against the least; the text names no ratio",
        others,
    )
