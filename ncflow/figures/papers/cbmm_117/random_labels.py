"""Claims on random labels: the more there are, the larger rho, the smaller the margins, the larger the test error."""

from collections.abc import Callable

import pandas as pd

from ncflow.figures.papers.cbmm_117.own import MARGIN, RANDOM_LABELS, RHO, SOURCE, TENTH, TEST_ACCURACY, square
from ncflow.figures.papers.selection import decades, fitting, left_out, settings, slope_effect
from ncflow.figures.papers.verdict import SEEDS, Effect, Quantifier, Setting, Verdict

# Ours: five percentage points of test accuracy from no random label to all; it has half a hundred to fall.
ERROR = 0.05
_NEEDS = f"experiment=cbmm_117/fig11 data.random_labels=0,0.25,0.5,1 {SEEDS}"
_LINE = "a straight line over the share of random labels in each seed"
_Found = tuple[tuple[Setting, ...], dict[str, int]]


def _over_shares(runs: pd.DataFrame, measure: str, effect: Callable[[pd.DataFrame], Effect]) -> _Found:
    """The settings with several shares of random labels, by the runs that interpolate; and who is left out."""
    measured, others = square(runs, measure, RANDOM_LABELS, random_labels=True)
    found = []
    for title, whole in settings(measured, RANDOM_LABELS):
        for decay, cell in whole.groupby("weight_decay") if whole[RANDOM_LABELS].nunique() > 1 else ():
            part = fitting(cell)
            found.append(Setting(f"{title}, weight decay {decay:g}", (effect(part),), len(part), left_out(cell)))
    return tuple(found), others


def random_labels_raise_rho(runs: pd.DataFrame, history: pd.DataFrame) -> Verdict:
    """Figures 11 and 13: rho grows with the share of random labels."""

    def effect(part: pd.DataFrame) -> Effect:
        words = "decades of rho from no random label to all"
        return slope_effect(part.assign(log=decades(part[RHO])), RANDOM_LABELS, "log", words, 1, TENTH, log=False)

    found, others = _over_shares(runs, RHO, effect)
    identity, claim, source = "cbmm_117/random-labels-rho", "Random labels raise rho", "appendix L, figures 11 and 13"
    return Verdict(identity, claim, f"{SOURCE}{source}", Quantifier.ALL, found, _NEEDS, _LINE, others)


def random_labels_shrink_margins(runs: pd.DataFrame, history: pd.DataFrame) -> Verdict:
    """Figures 11 and 13: the mean normalised margin falls with the share of random labels."""

    def effect(part: pd.DataFrame) -> Effect:
        words = "decades by which the mean margin/rho falls to all labels random"
        part = part[part[MARGIN] > 0]
        return slope_effect(part.assign(log=decades(part[MARGIN])), RANDOM_LABELS, "log", words, -1, TENTH, log=False)

    found, others = _over_shares(runs, MARGIN, effect)
    return Verdict(
        "cbmm_117/random-labels-margins",
        "Random labels shrink the margins",
        f"{SOURCE}appendices I and L, figures 11 and 13",
        Quantifier.ALL,
        found,
        _NEEDS,
        f'section 8 says that the margin "increases", the appendices that it decreases, as rho grows; {_LINE}',
        others,
    )


def random_labels_raise_test_error(runs: pd.DataFrame, history: pd.DataFrame) -> Verdict:
    """Figure 11: the test error grows with the share of random labels, which are all fitted."""

    def effect(part: pd.DataFrame) -> Effect:
        words = "fall of test accuracy from no random label to all"
        return slope_effect(part, RANDOM_LABELS, TEST_ACCURACY, words, -1, ERROR, log=False)

    found, others = _over_shares(runs, TEST_ACCURACY, effect)
    identity, claim, source = (
        "cbmm_117/random-labels-error",
        "Random labels raise the test error",
        "section 8, appendix I, figure 11",
    )
    departure = f"{_LINE}; the labels of the test are true ones"
    return Verdict(identity, claim, f"{SOURCE}{source}", Quantifier.ALL, found, _NEEDS, departure, others)
