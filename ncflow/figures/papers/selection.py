"""Which runs a claim is about, by what they are; the settings that they fall into; effects of a setting by seed.

Runs that do not interpolate (training accuracy below 1) are outside of what most claims are about: they are left out
and counted.
"""

from collections.abc import Iterator, Mapping
from math import isfinite
from typing import Any

import numpy as np
import pandas as pd

from ncflow.figures.papers.verdict import PER_DECADE, Effect
from ncflow.figures.tables import finished, numbers
from ncflow.figures.varied import panel_title, panels

INTRA, INTER, FITS = "train/intra_min", "train/inter_max", "train/interpolated"
COUPLING = "weight_decay_coupling"
# Of the optimisers that decay beside the gradient if nothing is said; by the name of their class, or of the option.
_DECOUPLED = ("adamw", "nadamw")


def belonging(
    runs: pd.DataFrame,
    *columns: str,
    loss: str = "cross_entropy",
    random_labels: bool = False,
    norm: bool = True,
    coupled: bool = True,
) -> tuple[pd.DataFrame, dict[str, int]]:
    """The runs that a paper's claims are about, by what they are, and how many are not, by the reason.

    They are of networks, and were trained to their end.

    Args:
        runs: Table of :func:`ncflow.results.load_runs`.
        columns: What they must have measured or been set to.
        loss: What their loss's name begins with.
        random_labels: Whether labels may be random.
        norm: Whether the claims are of BN: then another normalisation of the weights is foreign, and ``bn`` says
            whether a run has BN.
        coupled: Whether the claims are of weight decay that is a part of the loss: then runs with decay beside the
            gradient, such as AdamW's, are foreign. :data:`COUPLING` says the share in the gradient, where it is known.
    """
    runs = with_coupling(runs)
    own = [INTRA, INTER, "model.norm"] if norm else []
    needed = [FITS, "weight_decay", "seed", "loss.name", *own, *columns]
    left = finished(runs, *needed)
    reasons = {"unfinished, or without what is measured": len(runs) - len(left)}
    absent = [column for column in (*needed, "data.name", "model.depth") if column not in left]
    left = left.assign(**dict.fromkeys(absent)) if absent else left
    foreign = {
        f"on another loss than {loss.replace('_', ' ')}": [
            not str(name).startswith(loss) for name in left["loss.name"]
        ],
        "of free features": left["data.name"] == "sample_index",
    }
    if not random_labels and "data.random_labels" in left:
        foreign["on random labels"] = numbers(left["data.random_labels"]) > 0
    if coupled and COUPLING in left:
        foreign["of decay apart from the loss"] = numbers(left[COUPLING]) < 1
    if "loss.label_smoothing" in left:
        foreign["on smoothed labels"] = numbers(left["loss.label_smoothing"]) > 0
    if "model.simplex" in left:
        foreign["of a classifier that is not trained"] = left["model.simplex"].notna()
    if norm and "model.normalization" in left:
        foreign["of normalised weights"] = left["model.normalization"].notna()
    keep = np.ones(len(left), bool)
    for reason, flags in foreign.items():
        found = np.asarray(flags, bool) & keep
        reasons[reason] = int(found.sum())
        keep &= ~found
    left = left if keep.all() else left[keep]
    if norm:
        left = left.assign(bn=left["model.norm"] != "none")
    return left, {reason: count for reason, count in reasons.items() if count}


def with_coupling(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs with the share of weight decay that is in the gradient: as it is set, or the optimiser's own way.

    Where no optimiser is named it stays missing; one that is not known couples its decay, as PyTorch's do but for
    AdamW and NAdamW.
    """
    if "optimizer.name" not in runs:
        return runs
    own = family(runs, own=True).map(lambda name: float(name not in _DECOUPLED))
    given = numbers(runs[COUPLING]) if COUPLING in runs else pd.Series(np.nan, index=runs.index)
    return runs.assign(**{COUPLING: given.fillna(own)})


def family(runs: pd.DataFrame, own: bool = False) -> "pd.Series[str]":
    """The optimiser of each run, by the name of its class in lower case; AdamW is Adam, with another share coupled.

    Args:
        runs: Table of :func:`ncflow.results.load_runs`.
        own: Whether AdamW keeps its name.
    """
    names = runs["optimizer.name"].map(str)
    if "optimizer._target_" in runs:
        targets = runs["optimizer._target_"]
        names = targets.where(targets.notna(), names).map(lambda target: str(target).rpartition(".")[2])
    names = names.str.lower()
    return names if own else names.replace(dict(zip(_DECOUPLED, ("adam", "nadam"), strict=True)))


def settings(runs: pd.DataFrame, *inside: str) -> Iterator[tuple[str, pd.DataFrame]]:
    """(name, runs) of each setting: everything but seed, weight decay, BN and ``inside`` is one and the same."""
    for values, part in panels(runs, "bn", *inside):
        yield panel_title(values) or "all runs", part


def at_each_decay(runs: pd.DataFrame, *inside: str) -> Iterator[tuple[str, pd.DataFrame]]:
    """(name, runs) of each setting, as of :func:`settings`, at each weight decay."""
    for title, part in settings(runs, *inside):
        for decay, cell in part.groupby("weight_decay"):
            yield f"{title}, weight decay {decay:g}", cell


def fitting(part: pd.DataFrame) -> pd.DataFrame:
    """The runs that interpolate."""
    return part[part[FITS] == 1]


def left_out(*parts: pd.DataFrame) -> str:
    """Words for the runs that do not interpolate."""
    count = sum(int((part[FITS] != 1).sum()) for part in parts)
    return f"{count} of {sum(map(len, parts))} runs do not interpolate, left out" if count else ""


def by_seed(values: "Mapping[Any, float] | pd.Series[float]") -> dict[float, float]:
    """The finite values by seed, in the order of the seeds."""
    items = values.items() if isinstance(values, Mapping) else zip(values.index, values, strict=True)
    return {float(seed): float(value) for seed, value in sorted(items) if isfinite(value)}


def slope_effect(
    part: pd.DataFrame,
    x: str,
    y: str,
    quantity: str,
    sign: int = 1,
    smallest: float = PER_DECADE,
    absent: bool = False,
    log: bool = True,
    fewest: int = 3,
) -> Effect:
    """The slope of a measure by seed: least squares on means over equal x, where a seed has enough values of x.

    Args:
        part: Runs of a setting.
        x: Column of what is varied; if over its logarithm to base 10, values above 0 count.
        y: Column of the measure.
        quantity: For :class:`Effect`, like ``smallest`` and ``absent``.
        sign: -1 if a fall is claimed.
        smallest: The smallest slope that matters.
        absent: Whether the claim is that there is none.
        log: Whether the slope is over the logarithm.
        fewest: How many values of x are enough, two or more.
    """
    part = part[part[x] > 0] if log else part
    cells = cells_of(part, x, part[y])
    values, places = cells.to_numpy(), cells.columns.to_numpy()
    known = np.isfinite(values)
    places = np.where(known, np.log10(places) if log else places, 0.0)
    centres = places.sum(axis=1, keepdims=True) / known.sum(axis=1, keepdims=True).clip(1)
    offsets = np.where(known, places - centres, 0.0)
    slopes = (offsets * np.where(known, values, 0.0)).sum(axis=1) / (offsets**2).sum(axis=1).clip(np.finfo(float).tiny)
    enough = known.sum(axis=1) >= fewest
    return Effect(
        quantity, smallest, by_seed(dict(zip(cells.index[enough], sign * slopes[enough], strict=True))), absent
    )


def decades(values: "pd.Series[float]") -> "pd.Series[float]":
    """Logarithms to base 10; that of 0 is far below all others, but finite."""
    return pd.Series(np.log10(np.maximum(values.to_numpy(float), 1e-300)), index=values.index)


def cells_of(part: pd.DataFrame, x: str, measure: "pd.Series[float]") -> pd.DataFrame:
    """A measure by seed (rows) and what is varied (columns, rising): means over runs that agree in both, if finite.

    Args:
        part: Runs of a setting.
        x: Column of what is varied.
        measure: Of these runs, in their order.
    """
    values = measure.to_numpy(float)
    known = np.isfinite(values) & part[x].notna().to_numpy()
    seeds, row = np.unique(part["seed"].to_numpy(float), return_inverse=True)
    varied, column = np.unique(part[x].to_numpy(float), return_inverse=True)
    cell = row * len(varied) + column
    shape = len(seeds), len(varied)
    sums = np.bincount(cell[known], values[known], len(seeds) * len(varied)).reshape(shape)
    counts = np.bincount(cell[known], minlength=len(seeds) * len(varied)).reshape(shape)
    means = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
    return pd.DataFrame(means, index=seeds, columns=varied)
