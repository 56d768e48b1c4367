"""Claims on neural collapse under the square loss (section 6, appendix K): where it happens, and where it does not."""

from collections.abc import Iterator
from math import log10

import numpy as np
import pandas as pd

from ncflow.figures.papers.cbmm_117.initial_norms import without_less_with
from ncflow.figures.papers.cbmm_117.own import DECAYS, INIT, MARGIN, NC1, RANDOM_LABELS, SOURCE, below, square
from ncflow.figures.papers.selection import by_seed, decades, fitting, left_out, settings
from ncflow.figures.papers.verdict import SEEDS, Effect, Quantifier, Setting, Verdict

CLASSES = "data.num_classes"
_NC2 = ("train/nc2_equinorm_weights", "train/nc2_equiangular_weights")
_NC3, _NC4 = "train/nc3_distance", "train/nc4_agreement"
# Ours: collapse has happened where NC1, NC2 and NC3 are below this: below half of it, not where above half more.
COLLAPSED = 0.1
# Ours: NC4 has happened where the nearest class mean agrees on more than 99 percent of the samples, not where on 97.
AGREES, DISAGREES = 0.98, 0.01
# Ours: eq. 33 and 34 hold within this share.
RESIDUAL = 0.1
# Ours: without decay NC1 is larger by this many decades at least, if decay is what collapse needs; and it is above the
# level by a factor of 5 or more, as without decay seeds differ by a factor of 3.
NEEDED, STAYS = 1.0, log10(5)
# Ours: a margin is poor if it is below half of the seed's best in the setting.
_POOR = 0.5
_SMALL = f"below {COLLAPSED:g}"
_IDENTITY = "NC2 is judged of three classes or more: of two, with targets of +-1, it is an identity"


def square_loss_collapses(runs: pd.DataFrame, history: pd.DataFrame) -> Verdict:
    """Section 6: under the square loss with weight decay NC1 and NC2 happen, with mini-batches and full batches."""
    words = (
        "collapse",
        f"Under the square loss with weight decay NC1, and NC2 of three classes or more, fall {_SMALL}",
    )
    return _happens(runs, words, (NC1, *_NC2), f"small is ours; {_IDENTITY}")


def square_loss_makes_dual(runs: pd.DataFrame, history: pd.DataFrame) -> Verdict:
    """Section 6: under the square loss with weight decay NC3 happens."""
    words = ("self-duality", f"Under the square loss with weight decay NC3's distance falls {_SMALL}")
    return _happens(runs, words, (_NC3,), "small is ours, of a distance that is at most 2")


def square_loss_chooses_nearest_mean(runs: pd.DataFrame, history: pd.DataFrame) -> Verdict:
    """Section 6: under the square loss with weight decay NC4 happens."""
    agrees = f"{AGREES + DISAGREES:.0%}"
    claim = f"Under the square loss with weight decay NC4: the nearest class mean agrees on more than {agrees}"
    return _happens(
        runs, ("nearest-mean", claim), (_NC4,), "how many is ours; runs that interpolate are near it anyway"
    )


def random_labels_collapse(runs: pd.DataFrame, history: pd.DataFrame) -> Verdict:
    """Section 6: neural collapse happens with random labels too, if they are fitted."""
    words = (
        "random-labels-collapse",
        f"Random labels collapse too: NC1, and NC2 of three classes or more, fall {_SMALL}",
    )
    departure = (
        f'small is ours; {_IDENTITY}. The text reports "preliminary experiments by our collaborators" and no run'
    )
    return _happens(runs, words, (NC1, *_NC2), departure, random=True)


def _happens(
    runs: pd.DataFrame, words: tuple[str, str], measures: tuple[str, ...], departure: str, random: bool = False
) -> Verdict:
    """Whether measures of collapse are small with weight decay, by the worst run of each seed."""
    needed = (*measures, RANDOM_LABELS) if random else measures
    measured, others = square(runs, *needed, random_labels=random, normalised=True)
    if random:
        measured = measured[measured[RANDOM_LABELS] > 0]
    found = []
    for title, whole in _by_batch(measured[measured["weight_decay"] > 0]):
        part = fitting(whole)
        effects = _small(part, measures)
        if len(part) and effects:
            found.append(Setting(title, effects, len(part), left_out(whole)))
    identity, claim = words
    more = "data.random_labels=0.5,1" if random else "data.classes=[0,1,2]"
    needs = f"experiment=cbmm_117/fig6 {more} weight_decay=5e-3 {SEEDS}"
    where = f"{SOURCE}section 6, Theorem 3, appendix K"
    return Verdict(f"cbmm_117/{identity}", claim, where, Quantifier.ALL, tuple(found), needs, departure, others)


def _small(part: pd.DataFrame, measures: tuple[str, ...]) -> tuple[Effect, ...]:
    """The effects of measures, by the worst run of each seed; NC2 is left out where it is an identity."""
    effects = []
    for name in measures:
        if name == _NC4:
            words = f"share of samples on which the nearest mean agrees, less {AGREES:g}"
            effects.append(Effect(words, DISAGREES, by_seed(part.groupby("seed")[name].min() - AGREES)))
        elif name not in _NC2 or has_three_classes(part):
            effects.append(below(part, name, name.split("/")[1], COLLAPSED))
    return tuple(effects)


def has_three_classes(part: pd.DataFrame) -> bool:
    """Whether all runs are known to be of three classes or more; runs that do not say are taken to be."""
    if CLASSES in part and part[CLASSES].notna().all():
        return bool((part[CLASSES].astype(float) > 2).all())
    present = "train/classes_present"
    return bool((part[present] > 2).all()) if present in part else True


def _by_batch(runs: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    for title, part in settings(runs, INIT, "batch_size"):
        for size in sorted(part["batch_size"].unique()):
            name = "full batches" if np.isinf(size) else f"batches of {size:g}"
            yield f"{title}, {name}", part[part["batch_size"] == size]


def poor_margins_collapse(runs: pd.DataFrame, history: pd.DataFrame) -> Verdict:
    """Section 6: any quasi-interpolating solution collapses, also one that has no large margin.

    Judged is the run of each seed with the smallest normalised margin over weight decays above 0 and initial norms, if
    that is poor.
    """
    names = (NC1, *_NC2, _NC3, _NC4)
    measured, others = square(runs, *names, MARGIN, random_labels=True, normalised=True)
    found = []
    for title, whole in _by_batch(measured[measured["weight_decay"] > 0]):
        part = fitting(whole)
        part = part[part[MARGIN] > 0].sort_values(MARGIN)
        poorest = part.drop_duplicates("seed")
        poor = poorest[poorest[MARGIN] < _POOR * poorest["seed"].map(part.groupby("seed")[MARGIN].max())]
        if len(poor):
            found.append(Setting(title, _small(poor, names), len(poor), left_out(whole)))
    return Verdict(
        "cbmm_117/poor-margins",
        f"Solutions of poor margin collapse too: NC1, NC3 and NC2 of three classes or more {_SMALL}, and NC4",
        f"{SOURCE}section 6, predictions; section 8",
        Quantifier.ALL,
        tuple(found),
        f"experiment=cbmm_117/fig6 weight_decay=1e-4,1e-3,1e-2 model.init_norm=1,5 {SEEDS}",
        f"small, and poor (a margin/rho below {_POOR:g} of the best of the same seed), are ours; {_IDENTITY}",
        others,
    )


def no_collapse_without_decay(runs: pd.DataFrame, history: pd.DataFrame) -> Verdict:
    """Section 6: weight decay is necessary: without it NC1 stays large, and far above what it is with it."""
    measured, others = square(runs, NC1)
    found = []
    for title, whole in _by_batch(measured):
        part = fitting(whole)
        without = part[part["weight_decay"] == 0]
        for decay in sorted(set(part["weight_decay"]) - {0}) if len(without) else ():
            least = decades(without.groupby("seed")[NC1].min()) - log10(COLLAPSED)
            above = by_seed(without_less_with(part, decay, part[NC1]))
            effects = (
                Effect("decades of NC1 without decay above with it", NEEDED, above),
                Effect(f"decades of NC1 without decay above {COLLAPSED:g}", STAYS, by_seed(least)),
            )
            found.append(Setting(f"{title}, weight decay {decay:g}", effects, len(part), left_out(whole)))
    return Verdict(
        "cbmm_117/no-decay",
        f"Without weight decay the square loss does not collapse: NC1 stays above {COLLAPSED:g}",
        f"{SOURCE}section 6, predictions",
        Quantifier.ALL,
        tuple(found),
        DECAYS,
        "how large, and how far above, is ours; section 8 leaves open whether each condition is necessary",
        others,
    )


def quasi_interpolation_fixes_the_classifier(runs: pd.DataFrame, history: pd.DataFrame) -> Verdict:
    """Eq. 33 and 34 hold at convergence: their relative residuals are small, in the worst run of each seed."""
    names = {"train/quasi_residual_means": "eq. 33", "train/quasi_residual_norms": "eq. 34"}
    measured, others = square(runs, *names, random_labels=True, normalised=True)
    found = []
    for title, whole in settings(measured[measured["weight_decay"] > 0], INIT):
        part = fitting(whole)
        if len(part):
            effects = tuple(below(part, name, f"the residual of {label}", RESIDUAL) for name, label in names.items())
            found.append(Setting(title, effects, len(part), left_out(whole)))
    return Verdict(
        "cbmm_117/eq33-34",
        f"Eq. 33 and 34 hold at convergence (within {RESIDUAL:.0%})",
        f"{SOURCE}section 6, eq. 33 and 34",
        Quantifier.ALL,
        tuple(found),
        DECAYS,
        "how nearly is ours",
        others,
    )
