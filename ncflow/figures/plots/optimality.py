"""Collapse and loss beside the theory's optimum, over all runs of a sweep."""

from itertools import cycle
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, NullLocator

from ncflow.figures.plots.panels import bottom_legend, log_ticks, mark_values, missed_entry
from ncflow.figures.style import LABELS, data_label, literal, norm_label, norm_looks
from ncflow.figures.tables import equal_classes, limits_of
from ncflow.figures.varied import panel_title, panels
from ncflow.theory.bounds import bounds_from_norms, proof_kappa
from ncflow.theory.simplex import inter_limit

_ROUNDING = 1e-12  # of a difference of two losses
_LEAST: dict[str, Any] = {"marker": "_", "ms": 18, "mew": 1.2, "ls": "none"}
_SMALLEST, _LARGEST = 3.5, 8.0  # points of a shape, by weight decay
_TICKS = 4  # on either side of zero
SHAPES = ("o", "s", "^", "D", "v", "P", "X", "*")
"""Of so many settings at most the points in one figure can be told apart."""


def collapse_against_gap(runs: pd.DataFrame) -> Figure:
    """Draw the regularised loss beside its least value, and intra and inter less their limits against the gap.

    Every point is a run; a colour is a BN placement, a shape a setting, a size a weight decay. Optimum and limits are
    those for the run's own class shares, weight decay and BN. What is 0 or less is drawn, too: there the axis is linear
    around 0. For equal classes, and where it is not vacuous, the bound of Theorem 2.1 is drawn for the norms of the
    median run, for the worst class (delta = 1/C) and pair, with the least kappa that the theorem's proof needs. (The
    gap of the regularised loss bounds that of the plain one.)

    Args:
        runs: Finished runs as of :func:`has_theory`.
    """
    figure, (losses, intra, inter) = plt.subplots(1, 3, figsize=(13.2, 4.2))
    cut, looks = panels(runs), norm_looks(runs["model.norm"])
    named = [panel_title(values) or data_label(part["data.name"].iloc[0]) for values, part in cut]
    shapes: dict[Any, str] = dict(zip(named, cycle(SHAPES), strict=False))
    setting = pd.concat([pd.Series(name, index=part.index) for name, (_, part) in zip(named, cut, strict=True)])
    widths = dict(zip(looks, np.linspace(_LEAST["ms"], 8, len(looks)), strict=True))  # they may coincide
    all_decays = sorted(runs["weight_decay"].unique())
    sizes = dict(zip(all_decays, np.linspace(_SMALLEST, _LARGEST, len(all_decays)), strict=True))
    bound_drawn = _bounds(intra, inter, runs[equal_classes(runs)])
    shown = pd.DataFrame(
        {
            "gap": runs["train/regularized_loss_gap"],
            "least": runs["train/regularized_loss"] - runs["train/regularized_loss_gap"],
            "intra": 1 - runs["train/intra_min"],
            "inter": runs["train/inter_max"] - limits_of(runs, "inter_max"),
        }
    )
    losses.set(xlabel=LABELS["weight_decay"], ylabel=LABELS["regularized_loss"], xscale="log", yscale="log")
    words = {"intra": "1 - min intra-class cosine", "inter": "max inter-class cosine - its limit"}
    for axis, measure in ((intra, "intra"), (inter, "inter")):
        axis.set(xlabel=LABELS["regularized_loss_gap"], ylabel=words[measure])
        _set_scales(axis, shown["gap"], shown[measure])
    keys = [setting, runs["model.norm"], runs["train/interpolated"] == 1, runs["weight_decay"]]
    for (name, norm, full, decay), part in shown.groupby(keys):
        colour, _ = looks[norm]
        look: dict[str, Any] = {"color": colour, "mfc": colour if full else "white", "ls": "none"}
        look |= {"marker": shapes[name], "ms": sizes[decay], "alpha": 0.8}
        decays = [decay] * len(part)
        losses.plot(decays, runs["train/regularized_loss"][part.index], **look)
        losses.plot(decays, part["least"], **{**_LEAST, "ms": widths[norm]}, color=colour)
        intra.plot(part["gap"], part["intra"], **look)
        inter.plot(part["gap"], part["inter"], **look)
    mark_values(losses, all_decays)
    log_ticks(losses, intra, inter)
    entries: list[Any] = [Patch(color=colour, label=literal(norm_label(norm))) for norm, (colour, _) in looks.items()]
    entries += [
        Line2D([], [], color="0.3", marker=shape, ls="none", ms=5, label=literal(name))
        for name, shape in shapes.items()
    ]
    ends = sorted({all_decays[0], all_decays[-1]})
    entries += [
        Line2D([], [], color="0.3", marker="o", ls="none", ms=sizes[decay], label=f"size: weight decay {decay:g}")
        for decay in ends
        if len(ends) > 1
    ]
    entries.append(Line2D([], [], color="0.3", **_LEAST, label="least value (left) for the run's class shares and BN"))
    if bound_drawn:
        entries.append(Line2D([], [], color="0.3", ls="--", label="bound of Theorem 2.1"))
    bottom_legend(figure, [*entries, *missed_entry(runs)])
    return figure


def _set_scales(axis: Axes, x: "pd.Series[float]", y: "pd.Series[float]") -> None:
    """Logarithmic; where a value is 0 or less, linear around 0 up to the least size that is more than rounding."""
    axes = ((x, axis.xaxis, axis.set_xscale, axis.axvline), (y, axis.yaxis, axis.set_yscale, axis.axhline))
    for values, ticks, set_scale, zero in axes:
        if (values.dropna() > 0).all():
            set_scale("log")
            continue
        sizes = values.abs()[values.abs() > _ROUNDING]
        around = 10 ** np.floor(np.log10(sizes.min())) if len(sizes) else _ROUNDING
        set_scale("symlog", linthresh=around, linscale=1.5)
        largest = max(sizes.max() if len(sizes) else around, around)
        decades = np.arange(np.log10(around), np.floor(np.log10(largest)) + 1)
        marked = 10.0 ** decades[:: max(1, round(len(decades) / _TICKS + 0.4))]
        deepest = 10 * max(-values.min(), 0) if values.min() < -around else 0
        below = [-size for size in marked[::-1] if size <= deepest]
        ticks.set_major_locator(FixedLocator([*below, 0.0, *(marked if values.max() > 0 else [])]))
        ticks.set_minor_locator(NullLocator())
        zero(0, color="0.5", lw=1)


def _bounds(intra: Axes, inter: Axes, runs: pd.DataFrame) -> bool:
    """Curves of Theorem 2.1 over the gaps of the runs, where they say anything; whether there are any."""
    drawn = False
    gaps = runs["train/regularized_loss_gap"]
    gaps = gaps[gaps > _ROUNDING]
    if gaps.empty:
        return False
    for C in sorted(runs["train/classes_present"].dropna().astype(int).unique()):
        of_count = runs[runs["train/classes_present"] == C]
        product = float((of_count["train/feature_rms_norm"] * of_count["train/weight_norm"]).median()) / np.sqrt(C)
        if C < 3 or not product > 0:
            continue
        # Decay balances the two norms; beyond that the theorem depends on their product alone.
        alpha, beta = np.sqrt(np.sqrt(C) * product), np.sqrt(product / np.sqrt(C))
        delta = {"intra": 1 / C, "inter": 2 / (C * (C - 1))}
        kappa = proof_kappa(C, product)
        for axis, name in ((intra, "intra"), (inter, "inter")):
            points = []
            for gap in np.geomspace(gaps.min(), gaps.max(), 200):
                found = bounds_from_norms(C, alpha, beta, gap, delta=min(delta[name], 0.5), kappa=kappa)
                if not getattr(found, f"{name}_vacuous"):
                    points.append((gap, 1 - found.intra if name == "intra" else found.inter - inter_limit(C)))
            if points:
                axis.plot(*zip(*points, strict=True), "--", color="0.3", lw=1.2)
                drawn = True
    return drawn


def has_theory(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs with decay whose gap to the theory's optimum was measured, and what inter is there."""
    column = "train/regularized_loss_gap"
    if column not in runs or "weight_decay" not in runs:
        return runs.iloc[:0]
    return runs[runs[column].notna() & (runs["weight_decay"] > 0) & limits_of(runs, "inter_max").notna()]
