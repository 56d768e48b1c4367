"""Predictions of CBMM Memo 117 on the square loss, judged on runs.

Norms, margins and NC1 range over decades, so they are compared by their logarithm to base 10.
"""

from collections.abc import Iterator
from math import log10

import numpy as np
import pandas as pd

from ncflow.figures.papers.selection import belonging, by_seed, fitting, left_out, settings, slope_effect
from ncflow.figures.papers.verdict import Claim, Effect, Quantifier, Setting, Verdict

INIT, RANDOM_LABELS, RHO, NC1 = "model.init_norm", "data.random_labels", "train/rho", "train/nc1"
CLASSES = "data.num_classes"
_NC2 = ("train/nc2_equinorm_weights", "train/nc2_equiangular_weights")
# Ours: rho at different initial norms is one where the largest is below so many times the smallest.
_SAME = log10(1.5)
# Ours: collapse has happened where NC1 is below this, and eq. 33 and 34 hold within this share.
_COLLAPSED, _RESIDUAL = 0.1, 0.05
# Ours: a twentieth of a decade is 12 percent.
_DECADES = 0.05
# Ours: without decay NC1 is larger by this many decades at least, if decay is what collapse needs.
_NEEDED = 0.5
_SOURCE = "CBMM Memo 117, "
_SEEDS = "seed=0,1,2,3,4"
_DECAYS = f"experiment=cbmm_117/... weight_decay=0,5e-3 {_SEEDS}"
_INITS = f"{_DECAYS} model.init_norm=0.1,1,5"


def _square(runs: pd.DataFrame, *columns: str) -> tuple[pd.DataFrame, dict[str, int]]:
    return belonging(_with_sizes(runs), *columns, loss="square", random_labels=True, norm=False)


def _with_sizes(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs with the batch size of full batches as infinity, so that it is a value."""
    return runs.assign(batch_size=runs["batch_size"].fillna(np.inf) if "batch_size" in runs else np.inf)


def _log(values: "pd.Series[float]") -> "pd.Series[float]":
    return pd.Series(np.log10(np.maximum(values.astype(float), 1e-300)), index=values.index)


def _over_inits(part: pd.DataFrame, measure: str) -> "pd.Series[float]":
    """Decades between the largest and the smallest of a positive measure over initial norms, of each seed."""
    positive = part[part[measure] > 0]
    cells = _log(positive[measure]).groupby([positive["seed"], positive[INIT]]).mean()
    ranges = cells.groupby("seed").agg(["min", "max", "count"])
    return (ranges["max"] - ranges["min"])[ranges["count"] > 1]


def _independent_of_init(runs: pd.DataFrame, measure: str, name: str, words: tuple[str, str, str]) -> Verdict:
    measured, others = _square(runs, RHO, INIT, measure)
    found = []
    for title, whole in settings(measured, INIT):
        part = fitting(whole)
        without = part[part["weight_decay"] == 0]
        for decay, with_decay in part[part["weight_decay"] > 0].groupby("weight_decay"):
            if min(with_decay[INIT].nunique(), without[INIT].nunique()) < 2:
                continue
            effects = (
                Effect(
                    f"decades of {name} over initial norms with decay",
                    _SAME,
                    by_seed(_over_inits(with_decay, measure)),
                    absent=True,
                ),
                Effect(f"decades of {name} without", _SAME, by_seed(_over_inits(without, measure))),
            )
            runs_here = len(with_decay) + len(without)
            found.append(Setting(f"{title}, weight decay {decay:g}", effects, runs_here, left_out(whole)))
    identity, claim, source = words
    departure = f"one value is a factor below {10**_SAME:g} between the largest and the smallest: ours"
    return Verdict(identity, claim, _SOURCE + source, Quantifier.ALL, tuple(found), _INITS, departure, others)


def decay_frees_rho_of_its_start(runs: pd.DataFrame, history: pd.DataFrame) -> Verdict:
    """Figures 2 and 14: with weight decay rho ends at one value whatever the initial norm, without it does not."""
    words = ("cbmm_117/rho-init", "Weight decay makes rho independent of initialisation", "figures 2 and 14")
    return _independent_of_init(runs, RHO, "rho", words)


def decay_frees_margins_of_their_start(runs: pd.DataFrame, history: pd.DataFrame) -> Verdict:
    """Figure 3: the same of the mean normalised margin."""
    words = ("cbmm_117/margins-init", "Weight decay makes the margins independent of initialisation", "figure 3")
    return _independent_of_init(runs, "train/normalized_margin_mean", "the mean margin/rho", words)


def _paired(part: pd.DataFrame, decay: float, measure: str) -> "pd.Series[float]":
    """log10 of a measure without decay less with it, by seed; runs are paired in all but the decay."""
    keys = ["seed", *([INIT] if INIT in part and part[INIT].notna().any() else [])]
    logs = part.assign(log=_log(part[measure]))
    a, b = (logs[logs["weight_decay"] == value].groupby(keys, dropna=False)["log"].mean() for value in (0, decay))
    return (a - b).dropna().groupby("seed").mean()


def decay_concentrates_margins(runs: pd.DataFrame, history: pd.DataFrame) -> Verdict:
    """Figure 3: with weight decay the margins' standard deviation over their mean is smaller than without."""
    measured, others = _square(runs, "train/margin_std", "train/margin_mean")
    found = []
    for title, whole in settings(measured, INIT):
        part = fitting(whole)
        spread = part.assign(spread=part["train/margin_std"] / part["train/margin_mean"])
        for decay in sorted(set(part["weight_decay"]) - {0}) if (part["weight_decay"] == 0).any() else ():
            values = by_seed(_paired(spread, decay, "spread"))
            effect = Effect("decades by which the margins' deviation over their mean shrinks", _DECADES, values)
            found.append(Setting(f"{title}, weight decay {decay:g}", (effect,), len(part), left_out(whole)))
    return Verdict(
        "cbmm_117/margins",
        "Weight decay concentrates the margins",
        f"{_SOURCE}figure 3",
        Quantifier.ALL,
        tuple(found),
        _DECAYS,
        "",
        others,
    )


def random_labels_raise_rho(runs: pd.DataFrame, history: pd.DataFrame) -> Verdict:
    """Figures 11 and 13: rho grows with the share of random labels."""
    measured, others = _square(runs, RHO, RANDOM_LABELS)
    found = []
    for title, whole in settings(measured, RANDOM_LABELS):
        for decay, cell in whole.groupby("weight_decay") if whole[RANDOM_LABELS].nunique() > 1 else ():
            part = fitting(cell)
            part = part.assign(log_rho=_log(part[RHO]))
            words = "decades of rho from no random label to all"
            effect = slope_effect(part, RANDOM_LABELS, "log_rho", words, smallest=_DECADES, log=False)
            found.append(Setting(f"{title}, weight decay {decay:g}", (effect,), len(part), left_out(cell)))
    return Verdict(
        "cbmm_117/random-labels-rho",
        "Random labels raise rho",
        f"{_SOURCE}figures 11 and 13",
        Quantifier.ALL,
        tuple(found),
        f"experiment=cbmm_117/fig11 data.random_labels=0,0.25,0.5,1 {_SEEDS}",
        "",
        others,
    )


def square_loss_collapses(runs: pd.DataFrame, history: pd.DataFrame) -> Verdict:
    """Section 6: under the square loss with weight decay NC1 and NC2 happen, with mini-batches and full batches."""
    measured, others = _square(runs, NC1, *_NC2)
    return _collapse("collapse", f"Under the square loss with weight decay {_BELOW}", measured, others, _DECAYS)


def random_labels_collapse(runs: pd.DataFrame, history: pd.DataFrame) -> Verdict:
    """Section 6: neural collapse happens with random labels too, if they are fitted."""
    measured, others = _square(runs, NC1, RANDOM_LABELS, *_NC2)
    needs = f"experiment=cbmm_117/fig11 data.random_labels=0.5,1 weight_decay=5e-3 {_SEEDS}"
    random = measured[measured[RANDOM_LABELS] > 0] if len(measured) else measured
    return _collapse("random-labels-collapse", f"Random labels collapse too: {_BELOW}", random, others, needs)


_BELOW = f"NC1, and NC2 of the classifier with three classes or more, fall below {_COLLAPSED:g}"


def _collapse(identity: str, claim: str, runs: pd.DataFrame, others: dict[str, int], needs: str) -> Verdict:
    """Whether NC1 and NC2 of the classifier are small with weight decay, by the worst run of each seed."""
    found = []
    for title, whole in _by_batch(runs):
        part = fitting(whole)
        part = part[part["weight_decay"] > 0]
        if len(part):
            measures = (NC1, *(_NC2 if _has_three_classes(part) else ()))
            effects = tuple(_below(part, name, name.split("/")[1], _COLLAPSED) for name in measures)
            found.append(Setting(title, effects, len(part), left_out(whole)))
    departure = "small is ours; NC2 of two classes and targets of +-1 is an identity and is not judged"
    where = f"{_SOURCE}section 6"
    return Verdict(f"cbmm_117/{identity}", claim, where, Quantifier.ALL, tuple(found), needs, departure, others)


def _below(part: pd.DataFrame, measure: str, words: str, level: float) -> Effect:
    """How far a measure is below a level, by the worst run of each seed."""
    worst = _log(part.groupby("seed")[measure].max())
    return Effect(f"decades of {words} below {level:g}", _DECADES, by_seed(log10(level) - worst))


def _has_three_classes(part: pd.DataFrame) -> bool:
    if CLASSES in part and part[CLASSES].notna().all():
        return bool((part[CLASSES].astype(float) > 2).all())
    present = "train/classes_present"
    return bool((part[present] > 2).all()) if present in part else True


def no_collapse_without_decay(runs: pd.DataFrame, history: pd.DataFrame) -> Verdict:
    """Section 6: weight decay is necessary: without it NC1 stays large, and far above what it is with it."""
    measured, others = _square(runs, NC1)
    found = []
    for title, whole in _by_batch(measured):
        part = fitting(whole)
        without = part[part["weight_decay"] == 0]
        for decay in sorted(set(part["weight_decay"]) - {0}) if len(without) else ():
            least = _log(without.groupby("seed")[NC1].min()) - log10(_COLLAPSED)
            effects = (
                Effect("decades of NC1 without decay above with it", _NEEDED, by_seed(_paired(part, decay, NC1))),
                Effect(f"decades of NC1 without decay above {_COLLAPSED:g}", _DECADES, by_seed(least)),
            )
            found.append(Setting(f"{title}, weight decay {decay:g}", effects, len(part), left_out(whole)))
    return Verdict(
        "cbmm_117/no-decay",
        f"Without weight decay the square loss does not collapse: NC1 stays above {_COLLAPSED:g}",
        f"{_SOURCE}section 6",
        Quantifier.ALL,
        tuple(found),
        _DECAYS,
        "how large, and how far above, is ours",
        others,
    )


def _by_batch(runs: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    for title, part in settings(runs, INIT, "batch_size"):
        for size in sorted(part["batch_size"].unique()):
            name = "full batches" if np.isinf(size) else f"batches of {size:g}"
            yield f"{title}, {name}", part[part["batch_size"] == size]


def quasi_interpolation_fixes_the_classifier(runs: pd.DataFrame, history: pd.DataFrame) -> Verdict:
    """Eq. 33 and 34 hold at convergence: their relative residuals are small, in the worst run of each seed."""
    names = {"train/quasi_residual_means": "eq. 33", "train/quasi_residual_norms": "eq. 34"}
    measured, others = _square(runs, *names)
    found = []
    for title, whole in settings(measured, INIT):
        part = fitting(whole)
        part = part[part["weight_decay"] > 0]
        if len(part):
            effects = tuple(_below(part, name, f"the residual of {label}", _RESIDUAL) for name, label in names.items())
            found.append(Setting(title, effects, len(part), left_out(whole)))
    return Verdict(
        "cbmm_117/eq33-34",
        f"Eq. 33 and 34 hold at convergence (within {_RESIDUAL:.0%})",
        f"{_SOURCE}section 6, eq. 33 and 34",
        Quantifier.ALL,
        tuple(found),
        _DECAYS,
        "",
        others,
    )


def exponential_loss_needs_small_batches(runs: pd.DataFrame, history: pd.DataFrame) -> Verdict:
    """Section J.2: NC1 rises with the batch size under the exponential loss, not under the square loss."""
    found, losses, others = [], set(), dict[str, int]()
    for loss in ("exponential", "square"):
        measured, foreign = belonging(_with_sizes(runs), NC1, loss=loss, random_labels=True, norm=False)
        others |= {reason: count for reason, count in foreign.items() if not reason.startswith("on another loss")}
        measured = measured.rename(columns={"batch_size": "batch"})
        decayed = measured[measured["weight_decay"] > 0]
        for title, whole in settings(decayed, "batch") if decayed["batch"].nunique() > 1 else ():
            part = fitting(whole)
            part = part[np.isfinite(part["batch"])].assign(log_nc1=_log(part[NC1]))
            words = f"decades of NC1 per decade of batch size, {loss} loss"
            effect = slope_effect(part, "batch", "log_nc1", words, smallest=_DECADES, absent=loss == "square")
            found.append(Setting(f"{title}, {loss} loss", (effect,), len(part), left_out(whole)))
            losses.add(loss)
    return Verdict(
        "cbmm_117/j2",
        "J.2: under the exponential loss NC1 needs small batches, under the square loss it does not",
        f"{_SOURCE}section J.2",
        Quantifier.ALL,
        tuple(found) if len(losses) == 2 else (),
        f"experiment=cbmm_117/exponential_batch_size {_SEEDS}",
        "at equal epochs, as run; the memo compares equal steps; full batches are left out, as their size has no place",
        others,
    )


CLAIMS: tuple[Claim, ...] = (
    decay_frees_rho_of_its_start,
    decay_frees_margins_of_their_start,
    decay_concentrates_margins,
    random_labels_raise_rho,
    square_loss_collapses,
    random_labels_collapse,
    no_collapse_without_decay,
    quasi_interpolation_fixes_the_classifier,
    exponential_loss_needs_small_batches,
)
