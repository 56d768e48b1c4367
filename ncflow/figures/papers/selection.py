"""Which runs a claim is about, by what they are; the settings that they fall into; effects of a setting by seed.

Runs that do not interpolate (training accuracy below 1) are outside of what most claims are about: they are left out
and counted.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from ncflow.figures.papers.verdict import PER_DECADE, Effect
from ncflow.figures.tables import finished, numbers, panel_title, panels

INTRA, INTER, FITS = "train/intra_min", "train/inter_max", "train/interpolated"
_FEWEST = 3  # values over which a slope is taken


def belonging(
    runs: pd.DataFrame, *columns: str, loss: str = "cross_entropy", random_labels: bool = False, norm: bool = True
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
    """
    own = [INTRA, INTER, "model.norm"] if norm else []
    needed = [FITS, "weight_decay", "seed", "loss.name", *own, *columns]
    left = finished(runs, *needed)
    reasons = {"unfinished, or without what is measured": len(runs) - len(left)}
    absent = [column for column in (*needed, "data.name", "model.depth") if column not in left]
    left = left.assign(**dict.fromkeys(absent))
    foreign = {
        f"on another loss than {loss.replace('_', ' ')}": ~left["loss.name"].astype(str).str.startswith(loss),
        "of free features": left["data.name"] == "sample_index",
    }
    if not random_labels and "data.random_labels" in left:
        foreign["on random labels"] = numbers(left["data.random_labels"]) > 0
    if norm and "model.normalization" in left:
        foreign["of normalised weights"] = left["model.normalization"].notna()
    keep = pd.Series(True, index=left.index)
    for reason, flags in foreign.items():
        found = flags.astype(bool) & keep
        reasons[reason] = int(found.sum())
        keep &= ~found
    left = left[keep]
    if norm:
        left = left.assign(bn=left["model.norm"] != "none")
    return left, {reason: count for reason, count in reasons.items() if count}


def settings(runs: pd.DataFrame, *inside: str) -> Iterator[tuple[str, pd.DataFrame]]:
    """(name, runs) of each setting: everything but seed, weight decay, BN and ``inside`` is one and the same."""
    for values, part in panels(runs, "bn", *inside):
        yield panel_title(values) or "all runs", part


def fitting(part: pd.DataFrame) -> pd.DataFrame:
    """The runs that interpolate."""
    return part[part[FITS] == 1]


def left_out(*parts: pd.DataFrame) -> str:
    """Words for the runs that do not interpolate."""
    count = sum(int((part[FITS] != 1).sum()) for part in parts)
    return f"{count} of {sum(map(len, parts))} runs do not interpolate, left out" if count else ""


def by_seed(values: "Mapping[Any, float] | pd.Series[float]") -> tuple[float, ...]:
    """The finite values of seeds, in their order."""
    ordered = pd.Series(values, dtype=float).sort_index()
    return tuple(ordered[np.isfinite(ordered)].tolist())


def slope_effect(
    part: pd.DataFrame,
    x: str,
    y: str,
    quantity: str,
    sign: int = 1,
    smallest: float = PER_DECADE,
    absent: bool = False,
    log: bool = True,
) -> Effect:
    """The slope of a measure by seed: least squares on means over equal x, where a seed has three values of x.

    Args:
        part: Runs of a setting.
        x: Column of what is varied; if over its logarithm to base 10, values above 0 count.
        y: Column of the measure.
        quantity: For :class:`Effect`, like ``smallest`` and ``absent``.
        sign: -1 if a fall is claimed.
        smallest: The smallest slope that matters.
        absent: Whether the claim is that there is none.
        log: Whether the slope is over the logarithm.
    """
    found = {}
    for seed, own in (part[part[x] > 0] if log else part).groupby("seed"):
        cells = own.groupby(x)[y].mean().dropna()
        if len(cells) >= _FEWEST:
            places = cells.index.to_numpy(float)
            line = np.polyfit(np.log10(places) if log else places, cells.to_numpy(float), 1)
            found[seed] = sign * float(line[0])
    return Effect(quantity, smallest, by_seed(found), absent)
