"""Conjectures of Pan's thesis, judged on runs. Each names its tolerance epsilon and the pairs that break it."""

import itertools
from collections.abc import Iterator

import numpy as np
import pandas as pd

from ncflow.figures.papers.selection import INTER, INTRA, belonging, by_seed, fitting, left_out, settings, slope_effect
from ncflow.figures.papers.verdict import COSINE, Claim, Effect, Quantifier, Setting, Verdict
from ncflow.figures.tables import SPREAD, bn_kind, last_rows
from ncflow.theory.depth import effective_depth

# "There exists a small epsilon": ours.
EPSILON = 0.05
# An error that counts as near-perfect classification by the nearest class mean.
NCC_EPSILON = 0.01
# Ours: intra above this is strong collapse.
_STRONG = 0.5
# Half a layer: what is smaller is no change of a whole number.
_HALF_A_LAYER = 0.5
_SEEDS = "seed=0,1,2,3,4"
_BY_DECAY = f"experiment=... model.norm=last weight_decay=2e-4,5e-4,2e-3,5e-3,1e-2 {_SEEDS}"

Falls = dict[str, dict[float, float]]
"""How far a conjecture's quantity falls, by step, in words, and by seed; negative where it rises."""


def _with_bn(runs: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """(name, runs) of each setting with BN before the classifier; which BN is part of the setting."""
    for title, part in settings(runs[runs["model.norm"].isin(["last", "all"])], "model.gamma"):
        for kind, of_kind in part.groupby(bn_kind(part)):
            yield f"{title}, {kind}", of_kind


def _neighbours(part: pd.DataFrame, measure: str) -> Iterator[tuple[float, float, float, float, float]]:
    """(seed, smaller decay, its value, next larger decay, its value) of each seed, on means of equal decays."""
    for seed, own in part.groupby("seed"):
        cells = own.groupby("weight_decay")[measure].mean().dropna().sort_index()
        for (small, a), (large, b) in itertools.pairwise(cells.items()):
            yield float(str(seed)), float(str(small)), a, float(str(large)), b


def _conjecture(
    identity: str,
    claim: str,
    quantity: str,
    epsilon: float,
    found: list[tuple[str, pd.DataFrame, Falls]],
    needs: str,
    others: dict[str, int],
) -> Verdict:
    """The verdict on "it falls by at most epsilon in each step", from (setting, its runs, the falls in it)."""
    judged = []
    for title, whole, falls in found:
        effects = [Effect(f"{quantity}, {step}", epsilon, by_seed(own), absent=True) for step, own in falls.items()]
        judged.append(Setting(title, tuple(effects), len(fitting(whole)), left_out(whole)))
    departure = f"epsilon is {epsilon:g}, where the text says that a small one exists; each step in mean over seeds"
    return Verdict(identity, claim, "Pan's thesis, section 3", Quantifier.ALL, tuple(judged), needs, departure, others)


def collapse_improves_with_decay(runs: pd.DataFrame, history: pd.DataFrame) -> Verdict:
    """Conjecture 3.1.1: D(lambda_2) - D(lambda_1) >= -epsilon log(lambda_2/lambda_1), D = min intra - max inter.

    With BN before the classifier, from each weight decay to the next; what holds so far adds up to all pairs.
    """
    measured, others = belonging(runs)
    found = []
    for title, whole in _with_bn(measured):
        part = fitting(whole)
        falls: Falls = {}
        for seed, small, a, large, b in _neighbours(
            part[part["weight_decay"] > 0].assign(D=part[INTRA] - part[INTER]), "D"
        ):
            falls.setdefault(f"{small:g} to {large:g}", {})[seed] = (a - b) / np.log(large / small)
        found.append((title, whole, falls))
    claim = f"3.1.1 With BN collapse improves with weight decay (epsilon {EPSILON:g})"
    quantity = "fall of intra - inter per unit of log lambda"
    return _conjecture("pan_thesis/3.1.1", claim, quantity, EPSILON, found, _BY_DECAY, others)


def collapse_sharpens_with_depth(runs: pd.DataFrame, history: pd.DataFrame) -> Verdict:
    """Conjecture 3.2.1: D(l + 1) - D(l) >= -epsilon from each layer to the next, at each weight decay with BN."""
    measured, others = belonging(runs)
    found = []
    for title, whole in _with_bn(measured):
        falls: Falls = {}
        for _, run in fitting(whole).iterrows():
            layers = last_rows(history, run["folder"])
            for (_, a), (_, b) in itertools.pairwise(layers.iterrows()):
                step = f"{a['layer']} to {b['layer']} at weight decay {run['weight_decay']:g}"
                falls.setdefault(step, {})[run["seed"]] = a[SPREAD] - b[SPREAD]
        if falls:
            found.append((title, whole, falls))
    claim = f"3.2.1 With BN collapse sharpens from layer to layer (epsilon {EPSILON:g})"
    needs = f"{_BY_DECAY} measure.layers=all"
    return _conjecture("pan_thesis/3.2.1", claim, "fall of intra - inter", EPSILON, found, needs, others)


def effective_depth_falls_with_decay(runs: pd.DataFrame, history: pd.DataFrame) -> Verdict:
    """Conjecture 3.2.2: the effective depth at lambda_1 is at least that at lambda_2 > lambda_1."""
    measured, others = belonging(runs)
    found = []
    for title, whole in _with_bn(measured):
        part = fitting(whole)
        depths = {folder: _depth(history, folder) for folder in part["folder"]}
        falls: Falls = {}
        known = part.assign(depth=part["folder"].map(depths).astype(float))
        for seed, small, a, large, b in _neighbours(known, "depth"):
            falls.setdefault(f"{small:g} to {large:g}", {})[seed] = b - a
        if falls:
            found.append((title, whole, falls))
    claim = f"3.2.2 With BN the effective depth falls with weight decay (NCC error <= {NCC_EPSILON:g})"
    needs = f"{_BY_DECAY} measure.layers=all"
    quantity = "rise of the effective depth in layers"
    return _conjecture("pan_thesis/3.2.2", claim, quantity, _HALF_A_LAYER, found, needs, others)


def _depth(history: pd.DataFrame, folder: str) -> int | None:
    layers = last_rows(history, folder)
    return effective_depth((1 - layers["ncc_accuracy"]).tolist(), NCC_EPSILON) if len(layers) > 1 else None


def only_affine_bn_collapses(runs: pd.DataFrame, history: pd.DataFrame) -> Verdict:
    """Section 3.1.2: affine BN collapses strongly, at every weight decay more than non-affine BN, that than none."""
    measured, others = belonging(runs)
    found = []
    for title, whole in settings(measured, "model.gamma"):
        part = fitting(whole)
        cells = part.groupby([bn_kind(part), "seed", "weight_decay"])[INTRA].mean()
        kinds = ("affine BN", "BN with fixed gamma", "no BN")
        if not set(kinds) <= set(cells.index.get_level_values(0)):
            continue
        affine, fixed, none = (cells.loc[kind] for kind in kinds)
        differences = {
            f"intra with affine BN above {_STRONG:g}": affine - _STRONG,
            "intra with affine BN less with non-affine": affine - fixed,
            "intra with non-affine BN less without": fixed - none,
        }
        effects = [
            Effect(f"{words}, weight decay {decay:g}", COSINE, by_seed(own.droplevel("weight_decay")))
            for words, difference in differences.items()
            for decay, own in difference.dropna().groupby("weight_decay")
        ]
        found.append(Setting(title, tuple(effects), len(part), left_out(whole)))
    return Verdict(
        "pan_thesis/3.1.2",
        "3.1.2 Collapse is strong with affine BN alone, under all weight decays, and weaker the less BN there is",
        "Pan's thesis, section 3.1.2",
        Quantifier.ALL,
        tuple(found),
        f"experiment=pan_thesis/fig3_1_small {_SEEDS}",
        f"strong is intra above {_STRONG:g}: ours; at each weight decay that both kinds interpolate at",
        others,
    )


def decay_harms_without_bn(runs: pd.DataFrame, history: pd.DataFrame) -> Verdict:
    """Section 3.1: without BN, intra falls as weight decay grows."""
    measured, others = belonging(runs)
    found = []
    for title, whole in settings(measured[~measured["bn"]]):
        part = fitting(whole)
        effect = slope_effect(part, "weight_decay", INTRA, "fall of intra per decade of weight decay without BN", -1)
        found.append(Setting(title, (effect,), len(part), left_out(whole)))
    return Verdict(
        "pan_thesis/3.1-without",
        "Without BN weight decay harms collapse",
        "Pan's thesis, section 3.1",
        Quantifier.ALL,
        tuple(found),
        _BY_DECAY.replace("norm=last", "norm=none"),
        "",
        others,
    )


CLAIMS: tuple[Claim, ...] = (
    only_affine_bn_collapses,
    collapse_improves_with_decay,
    collapse_sharpens_with_depth,
    effective_depth_falls_with_decay,
    decay_harms_without_bn,
)
