"""Conjectures of Pan's thesis, checked on runs. Each names its tolerance epsilon and the pairs that break it."""

import itertools
from collections.abc import Iterator

import numpy as np
import pandas as pd

from ncflow.figures.papers.verdict import (
    INTER,
    INTRA,
    Check,
    Claim,
    Verdict,
    fitting,
    left_out,
    measured_runs,
    seed_count,
    settings,
    verdict_of,
)
from ncflow.figures.tables import SPREAD, bn_kind, last_rows
from ncflow.theory.depth import effective_depth

# "There exists a small epsilon": ours. The least one for which the runs agree is reported beside it.
EPSILON = 0.05
# An error that counts as near-perfect classification by the nearest class mean.
NCC_EPSILON = 0.01
_MOST_NAMED = 4


def _with_bn(runs: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """(name, runs) of each setting with BN before the classifier; which BN is part of the setting."""
    measured = measured_runs(runs)
    measured = measured[measured["model.norm"].isin(["last", "all"])]
    for title, part in settings(measured, "model.gamma"):
        for kind, of_kind in part.groupby(bn_kind(part)):
            yield f"{title}, {kind}", of_kind


def _pairs(part: pd.DataFrame) -> Iterator[tuple["pd.Series", "pd.Series"]]:
    """Pairs of runs of one seed, the smaller weight decay first."""
    for _, of_seed in part.groupby("seed"):
        rows = [row for _, row in of_seed.sort_values("weight_decay").iterrows()]
        yield from ((a, b) for a, b in itertools.combinations(rows, 2) if a["weight_decay"] < b["weight_decay"])


def _named(broken: list[str]) -> str:
    if not broken:
        return "none breaks it"
    rest = f" and {len(broken) - _MOST_NAMED} more" if len(broken) > _MOST_NAMED else ""
    return f"{len(broken)} break it: {', '.join(broken[:_MOST_NAMED])}{rest}"


def collapse_improves_with_decay(runs: pd.DataFrame, history: pd.DataFrame) -> Verdict:
    """Conjecture 3.1.1: D(lambda_2) - D(lambda_1) >= -epsilon log(lambda_2/lambda_1), D = min intra - max inter.

    For every pair lambda_1 < lambda_2 of interpolating runs of a seed, with BN before the classifier.
    """
    checks = []
    for title, whole in _with_bn(runs):
        part = fitting(whole)
        part = part.assign(D=part[INTRA] - part[INTER])
        slopes = {
            f"{a['weight_decay']:g} to {b['weight_decay']:g} (seed {a['seed']:g})": (b["D"] - a["D"])
            / np.log(b["weight_decay"] / a["weight_decay"])
            for a, b in _pairs(part[part["weight_decay"] > 0])
        }
        if not slopes:
            checks.append(Check(None, f"{title}: no pair of weight decays{left_out(whole)}"))
            continue
        broken = [name for name, slope in slopes.items() if slope < -EPSILON]
        line = (
            f"{title}: of {len(slopes)} pairs {_named(broken)}; least epsilon {max(0.0, -min(slopes.values())):.3f}, "
            f"median slope {np.median(list(slopes.values())):+.3f}; {seed_count(part)}{left_out(whole)}"
        )
        checks.append(Check(not broken, line))
    claim = f"3.1.1 With BN collapse improves with weight decay (epsilon {EPSILON:g})"
    return verdict_of(claim, checks, "interpolating runs with BN at two weight decays or more")


def collapse_sharpens_with_depth(runs: pd.DataFrame, history: pd.DataFrame) -> Verdict:
    """Conjecture 3.2.1: D(l + 1) - D(l) >= -epsilon from each layer to the next, in every interpolating run with BN."""
    checks = []
    for title, whole in _with_bn(runs):
        part = fitting(whole)
        steps = {}
        for _, run in part.iterrows():
            layers = last_rows(history, run["folder"])
            for (_, a), (_, b) in itertools.pairwise(layers.iterrows()):
                name = f"{a['layer']} to {b['layer']} (weight decay {run['weight_decay']:g}, seed {run['seed']:g})"
                steps[name] = b[SPREAD] - a[SPREAD]
        if not steps:
            continue
        broken = sorted((name for name, step in steps.items() if step < -EPSILON), key=lambda name: steps[name])
        line = (
            f"{title}: of {len(steps)} steps from layer to layer {_named(broken)}; least epsilon "
            f"{max(0.0, -min(steps.values())):.3f}, median step {np.median(list(steps.values())):+.3f}; "
            f"{len(part)} runs, {seed_count(part)}{left_out(whole)}"
        )
        checks.append(Check(not broken, line))
    claim = f"3.2.1 With BN collapse sharpens from layer to layer (epsilon {EPSILON:g})"
    return verdict_of(claim, checks, "interpolating runs with BN and measure.layers=all")


def effective_depth_falls_with_decay(runs: pd.DataFrame, history: pd.DataFrame) -> Verdict:
    """Conjecture 3.2.2: the effective depth at lambda_1 is at least that at lambda_2 > lambda_1, in each seed."""
    checks = []
    for title, whole in _with_bn(runs):
        part = fitting(whole)
        found = {folder: _depth(history, folder) for folder in part["folder"]}
        depths = {folder: depth for folder, depth in found.items() if depth is not None}
        measured = part[part["folder"].isin(list(depths))]
        pairs = list(_pairs(measured))
        if not pairs:
            continue
        broken = [
            f"{depths[a['folder']]} at {a['weight_decay']:g} to {depths[b['folder']]} at {b['weight_decay']:g} "
            f"(seed {a['seed']:g})"
            for a, b in pairs
            if depths[a["folder"]] < depths[b["folder"]]
        ]
        means = measured.assign(depth=measured["folder"].map(depths)).groupby("weight_decay")["depth"].mean()
        ends = ", ".join(f"{depth:.1f} at {decay:g}" for decay, depth in means.items())
        line = (
            f"{title}: of {len(pairs)} pairs {_named(broken)}; mean effective depth {ends}; "
            f"{seed_count(measured)}{left_out(whole)}"
        )
        checks.append(Check(not broken, line))
    claim = f"3.2.2 With BN the effective depth falls with weight decay (NCC error <= {NCC_EPSILON:g})"
    return verdict_of(claim, checks, "interpolating runs with BN and measure.layers=all at two weight decays or more")


def _depth(history: pd.DataFrame, folder: str) -> int | None:
    layers = last_rows(history, folder)
    return effective_depth((1 - layers["ncc_accuracy"]).tolist(), NCC_EPSILON) if len(layers) > 1 else None


def only_affine_bn_collapses(runs: pd.DataFrame, history: pd.DataFrame) -> Verdict:
    """Section 3.1.2: at its best weight decay affine BN collapses more than non-affine BN, and that more than none."""
    measured = measured_runs(runs)
    checks = []
    for title, whole in settings(measured, "model.gamma"):
        part = fitting(whole)
        best = part.groupby([bn_kind(part), "weight_decay"])[INTRA].mean().groupby(level=0).max()
        if not {"affine BN", "BN with fixed gamma", "no BN"} <= set(best.index):
            continue
        affine, fixed, none = best["affine BN"], best["BN with fixed gamma"], best["no BN"]
        line = (
            f"{title}: best intra {affine:.3f} with affine BN, {fixed:.3f} with non-affine, {none:.3f} without; "
            f"{seed_count(part)}{left_out(whole)}"
        )
        checks.append(Check(bool(affine > max(fixed, none)), line))
    claim = "Section 3.1.2: collapse is strong with affine BN alone"
    return verdict_of(claim, checks, "interpolating runs with affine BN, non-affine BN and none")


CLAIMS: tuple[Claim, ...] = (
    only_affine_bn_collapses,
    collapse_improves_with_decay,
    collapse_sharpens_with_depth,
    effective_depth_falls_with_decay,
)
