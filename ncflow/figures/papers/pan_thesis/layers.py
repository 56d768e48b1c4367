"""Claims of Pan's thesis on collapse layer by layer: section 3.2, figure 3.3. Runs must have measured all layers."""

import itertools
from collections.abc import Iterator

import pandas as pd

from ncflow.figures.papers.pan_thesis.own import (
    BY_LAYER,
    CENTRED,
    D_MATTERS,
    EPSILON,
    ON_HULL,
    BySeed,
    each,
    falls,
    not_meant,
    setting,
    with_bn,
    with_d,
)
from ncflow.figures.papers.selection import belonging, by_seed, cells_of, fitting, slope_effect
from ncflow.figures.papers.verdict import COSINE, Effect, Quantifier, Verdict
from ncflow.figures.tables import final_layers, with_measures
from ncflow.theory.depth import effective_depth

# An error that counts as near-perfect classification by the nearest class mean.
NCC_EPSILON = 0.01
# Half a layer: what is smaller is no change of a whole number.
HALF_A_LAYER = 0.5
# Ours: "very few exceptions" are this share of the steps from layer to layer.
EXCEPTIONS = 0.1
# "The weight decay parameter was set to 0.003 and 0.005": from there on.
LARGE_DECAY = 3e-3
_WHERE = "Pan's thesis, section 3.2"


def _layered(
    measured: pd.DataFrame, history: pd.DataFrame, hull: bool
) -> Iterator[tuple[str, pd.DataFrame, str, pd.DataFrame, str]]:
    """(name, its runs, why it does not count, rows of layers, words on the cosines) of each setting that has layers.

    Rows have ``seed``, ``weight_decay``, ``place``, ``intra``, ``inter`` and ``D``, of the runs that interpolate.
    """
    rows_of_layers = with_measures(history)
    for title, placement, kind, whole in with_bn(measured):
        part = fitting(whole)
        rows = final_layers(rows_of_layers[rows_of_layers["folder"].isin(part["folder"])])
        rows = rows[rows.groupby("folder")["place"].transform("size") > 1]
        if len(rows):
            rows, words = with_d(rows.merge(part[["folder", "seed", "weight_decay"]], on="folder"))
            yield title, whole, not_meant(whole, placement, kind, hull), rows, words


def _by_layer(rows: pd.DataFrame, measure: str) -> pd.DataFrame:
    """A measure by seed and weight decay (rows) and place of the layer (columns)."""
    return rows.groupby(["seed", "weight_decay", "place"])[measure].mean().unstack("place")


def _whole_rise(cells: pd.DataFrame) -> dict[float, float]:
    """From the first layer to the last, by seed, in mean over the weight decays."""
    return by_seed((cells.ffill(axis=1).iloc[:, -1] - cells.iloc[:, 0]).groupby("seed").mean())


def collapse_sharpens_with_depth(runs: pd.DataFrame, history: pd.DataFrame) -> Verdict:
    """Conjecture 3.2.1: D(l + 1) - D(l) >= -epsilon from each layer to the next, at each weight decay with BN.

    A D that is the same in all layers satisfies it, so that the rise from the first to the last is tested beside it.
    """
    measured, others = belonging(runs)
    found = []
    for title, whole, why_not, rows, words in _layered(measured, history, hull=True):
        cells = _by_layer(rows, "D")
        names = rows.groupby("place")["layer"].first()
        steps: BySeed = {}
        for (seed, decay), values in zip(cells.index, cells.to_numpy().tolist(), strict=True):
            for k, (before, after) in enumerate(itertools.pairwise(values)):
                step = f"{names[k]} to {names[k + 1]} at weight decay {decay:g}"
                steps.setdefault(step, {})[seed] = before - after
        effects = (
            Effect("rise of D from the first layer to the last", D_MATTERS, _whole_rise(cells)),
            *each("fall of D", EPSILON, steps, absent=True),
        )
        found.append(setting(title, effects, whole, why_not, words))
    return Verdict(
        "pan_thesis/3.2.1",
        f"3.2.1 With BN collapse sharpens from layer to layer (epsilon {EPSILON:g})",
        f"{_WHERE}, conjecture 3.2.1",
        Quantifier.ALL,
        tuple(found),
        f"{BY_LAYER} {ON_HULL}",
        f"epsilon is {EPSILON:g}, where the text says that a small one exists; each step in mean over seeds; that D "
        f"rises from the first layer to the last is tested too; {CENTRED}",
        others,
    )


def effective_depth_falls_with_decay(runs: pd.DataFrame, history: pd.DataFrame) -> Verdict:
    """Conjecture 3.2.2: the effective depth at lambda_1 is at least that at lambda_2 > lambda_1, and it falls."""
    measured, others = belonging(runs)
    found = []
    for title, whole, why_not, rows, _ in _layered(measured, history, hull=True):
        errors = (1 - rows.dropna(subset=["ncc_accuracy"]).set_index("folder")["ncc_accuracy"]).groupby("folder")
        depths = {folder: effective_depth(own.tolist(), NCC_EPSILON) for folder, own in errors}
        part = fitting(whole)
        part = part.assign(depth=part["folder"].map(depths).astype(float))
        part = part[part["weight_decay"] > 0]
        depths_at = cells_of(part, "weight_decay", part["depth"])
        rises = {step: {seed: -fall for seed, fall in own.items()} for step, own in falls(depths_at).items()}
        words = "effective depth in layers per decade of weight decay"
        effects = (
            slope_effect(part, "weight_decay", "depth", "fall of the " + words, -1, HALF_A_LAYER, fewest=2),
            *each("rise of the effective depth in layers", HALF_A_LAYER, rises, absent=True),
        )
        found.append(setting(title, effects, whole, why_not, ""))
    return Verdict(
        "pan_thesis/3.2.2",
        f"3.2.2 With BN the effective depth falls with weight decay (NCC error <= {NCC_EPSILON:g})",
        f"{_WHERE}, conjecture 3.2.2",
        Quantifier.ALL,
        tuple(found),
        f"{BY_LAYER} {ON_HULL}",
        "each step in mean over seeds; that the depth falls on the whole is tested too: one that never changes "
        "satisfies the conjecture",
        others,
    )


def inter_exceeds_zero_between(runs: pd.DataFrame, history: pd.DataFrame) -> Verdict:
    """Section 3.2.2: at large weight decay max inter exceeds 0 in many intermediate layers of perfect NCC accuracy.

    The median over these layers is above 0 if inter is in more than half of them.
    """
    measured, others = belonging(runs)
    found = []
    for title, whole, why_not, rows, words in _layered(measured, history, hull=False):
        last = rows.groupby("folder")["place"].transform("max")
        between = rows[(rows["place"] < last) & (rows["ncc_accuracy"] >= 1 - NCC_EPSILON)]
        between = between[between["weight_decay"] >= LARGE_DECAY * (1 - 1e-9)]
        cells = between.groupby(["seed", "weight_decay"])["inter"].median().unstack("weight_decay")
        at_decays = {f"weight decay {decay:g}": dict(cells[decay]) for decay in cells}
        quantity = "median of max inter over intermediate layers of perfect NCC accuracy"
        found.append(setting(title, each(quantity, COSINE, at_decays), whole, why_not, words))
    return Verdict(
        "pan_thesis/3.2-inter",
        f"From weight decay {LARGE_DECAY:g} on inter exceeds 0 in many intermediate layers, NCC being perfect there",
        f"{_WHERE}.2, figure 3.3",
        Quantifier.ALL,
        tuple(found),
        BY_LAYER,
        f"many is half of them: ours; perfect is an NCC error up to {NCC_EPSILON:g}; the text names 0.003 and 0.005 as "
        f"examples; {CENTRED}",
        others,
    )


def layers_improve_with_few_exceptions(runs: pd.DataFrame, history: pd.DataFrame) -> Verdict:
    """Section 3.2.2: NCC accuracy and intra rise from layer to layer with very few exceptions (D: conjecture 3.2.1).

    Both must rise from the first layer to the last, and an exception is a step down that matters.
    """
    measured, others = belonging(runs)
    found = []
    tolerated = {"ncc_accuracy": ("NCC accuracy", COSINE, NCC_EPSILON), "intra": ("intra", COSINE, EPSILON)}
    for title, whole, why_not, rows, words in _layered(measured, history, hull=False):
        effects = []
        for measure, (name, matters, tolerance) in tolerated.items():
            cells = _by_layer(rows, measure)
            steps = cells.diff(axis=1).iloc[:, 1:]
            down = ((steps < -tolerance).sum(axis=1) / steps.notna().sum(axis=1)).groupby("seed").mean()
            effects += [
                Effect(f"rise of {name} from the first layer to the last", matters, _whole_rise(cells)),
                Effect(f"share of steps down by more than {tolerance:g} in {name}", EXCEPTIONS, by_seed(down), True),
            ]
        found.append(setting(title, tuple(effects), whole, why_not, words))
    return Verdict(
        "pan_thesis/3.2-layers",
        "NCC accuracy and intra rise from layer to layer with very few exceptions",
        f"{_WHERE}.2, figure 3.3",
        Quantifier.ALL,
        tuple(found),
        BY_LAYER,
        f"very few are less than {EXCEPTIONS:.0%} of the steps, and how much counts as a step down: ours; {CENTRED}",
        others,
    )
