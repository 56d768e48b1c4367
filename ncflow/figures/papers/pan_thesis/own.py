"""What the thesis' claims share: its own measure of collapse, and which settings its texts are about.

Its cosines are uncentred (section 2.2), cos(h_i, h_j), and its measure of collapse is D = min intra - max inter. Where
a run of a setting has no uncentred cosines, the setting is judged by centred ones, and its note says so.
"""

import itertools
from collections.abc import Iterator
from math import isfinite, log

import pandas as pd

from ncflow.figures.papers.selection import by_seed, fitting, left_out, settings
from ncflow.figures.papers.verdict import COSINE, PER_DECADE, SEEDS, Effect, Setting
from ncflow.figures.tables import bn_kind

# D is of two cosines.
D_MATTERS, D_PER_DECADE = 2 * COSINE, 2 * PER_DECADE
# "There exists a small epsilon": ours.
EPSILON = 0.05
AFFINE, FIXED, NONE = "affine BN", "BN with fixed gamma", "no BN"
BY_DECAY, BY_LAYER = f"experiment=pan_thesis/fig3_1_small {SEEDS}", f"experiment=pan_thesis/fig3_3_small {SEEDS}"
ON_HULL = "data=conic_hull"
CENTRED = "uncentred cosines, the thesis' own, where every run of a setting has them"
BySeed = dict[str, dict[float, float]]
"""Values by what they are of, and by seed."""
OWN, OTHERS = ("intra_raw_min", "inter_raw_max"), ("intra_min", "inter_max")


def with_d(part: pd.DataFrame, prefix: str = "") -> tuple[pd.DataFrame, str]:
    """The rows with columns ``intra``, ``inter`` and ``D``, and words if they are of centred cosines.

    Args:
        part: Runs of a setting, or rows of their histories.
        prefix: Of the measures' columns: ``train/`` for runs.
    """
    own = all(f"{prefix}{name}" in part and part[f"{prefix}{name}"].notna().all() for name in OWN)
    intra, inter = (part[f"{prefix}{name}"] for name in (OWN if own else OTHERS))
    words = "" if own else "by centred cosines: runs have no uncentred ones"
    return part.assign(intra=intra, inter=inter, D=intra - inter), words


def with_bn(runs: pd.DataFrame) -> Iterator[tuple[str, str, str, pd.DataFrame]]:
    """(name, placement, kind, runs) of each setting with BN before the classifier; which BN is part of the setting."""
    for title, part in settings(runs[runs["model.norm"].isin(["last", "all"])], "model.gamma"):
        for (placement, kind), of_kind in part.groupby(["model.norm", bn_kind(part)]):
            where = "before the classifier" if placement == "last" else "in every layer"
            yield f"{title}, {kind} {where}", str(placement), str(kind), of_kind


def not_meant(part: pd.DataFrame, placement: str = "all", kind: str = AFFINE, hull: bool = True) -> str:
    """Why the text is not about a setting, in words; empty if it is.

    Args:
        part: Its runs.
        placement: Of its BN, if the text is of BN in every layer.
        kind: Of its BN, if the text is of one that trains gamma.
        hull: Whether the text is of a conic hull.
    """
    reasons = []
    if hull and not (part["data.name"] == "conic_hull").all():
        reasons.append("the text says it of a conic hull")
    if placement != "all" or kind != AFFINE:
        reasons.append("the text says it of affine BN in every layer")
    return "; ".join(reasons)


def setting(title: str, effects: tuple[Effect, ...], whole: pd.DataFrame, why_not: str, note: str) -> Setting:
    """A setting that is reported, and counts unless there is a reason why not."""
    notes = "; ".join(filter(None, (why_not, left_out(whole), note)))
    return Setting(title, effects, len(fitting(whole)), notes, bool(why_not))


def each(quantity: str, smallest: float, parts: BySeed, absent: bool = False) -> tuple[Effect, ...]:
    """An effect a part of what is claimed; what only one seed has is no effect.

    Args:
        quantity: What it is, in words, with its unit.
        smallest: The smallest effect that matters.
        parts: Its values by seed, by what they are of.
        absent: Whether the claim is that there is no such effect.
    """
    known = {name: by_seed(values) for name, values in parts.items()}
    return tuple(
        Effect(f"{quantity}, {name}", smallest, values, absent) for name, values in known.items() if len(values) > 1
    )


def falls(cells: pd.DataFrame, per_log: bool = False) -> BySeed:
    """How far a quantity falls from each column to the next that a seed has, by step (``a to b``) and by seed.

    Args:
        cells: The quantity by seed (rows); columns are numbers, rising.
        per_log: Whether per unit of the numbers' natural logarithm.
    """
    found: BySeed = {}
    places = cells.columns.to_numpy(float).tolist()
    for seed, row in zip(cells.index, cells.to_numpy(float).tolist(), strict=True):
        known = [(at, value) for at, value in zip(places, row, strict=True) if isfinite(value)]
        for (a, before), (b, after) in itertools.pairwise(known):
            found.setdefault(f"{a:g} to {b:g}", {})[seed] = (before - after) / (log(b / a) if per_log else 1.0)
    return found
