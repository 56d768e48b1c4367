"""Collapse and loss beside the theory's optimum, over all runs of a sweep."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ncflow.figures.plots.panels import bottom_legend, mark_values, missed_entry, norm_entries
from ncflow.figures.style import LABELS, data_label, literal, norm_colour
from ncflow.theory.bounds import bounds_from_norms, proof_kappa
from ncflow.theory.layer_peeled import minimum_regularized_loss, optimal_norm_product
from ncflow.theory.simplex import inter_limit

# Below this a difference of two losses is rounding.
_FLOOR = 1e-12
_SHAPES = ("o", "s", "^", "D", "v", "P", "X", "*")


def collapse_against_gap(runs: pd.DataFrame) -> Figure:
    """Draw the regularised loss beside m_reg, and the distance of intra and inter from collapse against the gap.

    Every point is a run; a colour is a BN placement, a shape a data set. Where it is not vacuous, the bound of Theorem
    2.1 is drawn for the norms of the median run, for the worst class (delta = 1/C) and pair, with the least kappa that
    the theorem's proof needs. (The gap of the regularised loss bounds that of the plain one.)

    Args:
        runs: Finished runs with ``train/regularized_loss_gap``.
    """
    figure, (losses, intra, inter) = plt.subplots(1, 3, figsize=(13.2, 4.2))
    shapes = dict(zip(sorted(runs["data.name"].unique()), _SHAPES * 9, strict=False))
    bound_drawn = _bounds(intra, inter, runs)
    for (name, norm), part in runs.groupby(["data.name", "model.norm"]):
        colour = norm_colour(norm)
        for full, of_kind in part.groupby(part["train/interpolated"] == 1):
            look: dict[str, Any] = {"color": colour, "mfc": colour if full else "white", "ls": "none"}
            look |= {"marker": shapes[name], "ms": 5, "alpha": 0.8}
            gap = of_kind["train/regularized_loss_gap"].clip(lower=_FLOOR)
            limit = of_kind["train/classes_present"].map(inter_limit)
            losses.plot(of_kind["weight_decay"], of_kind["train/regularized_loss"], **look)
            intra.plot(gap, (1 - of_kind["train/intra_min"]).clip(lower=_FLOOR), **look)
            inter.plot(gap, (of_kind["train/inter_max"] - limit).clip(lower=_FLOOR), **look)
    _least_losses(losses, runs)
    losses.set(xlabel=LABELS["weight_decay"], ylabel=LABELS["regularized_loss"], xscale="log", yscale="log")
    mark_values(losses, sorted(runs["weight_decay"].unique()))
    for axis, name in ((intra, "1 - min intra-class cosine"), (inter, "max inter-class cosine + 1/(C - 1)")):
        axis.set(xlabel=LABELS["regularized_loss_gap"], ylabel=name, xscale="log", yscale="log")
    entries: list[Any] = norm_entries(runs)
    entries += [
        Line2D([], [], color="0.3", marker=shape, ls="none", label=literal(data_label(name)))
        for name, shape in shapes.items()
    ]
    entries.append(Line2D([], [], color="0.3", ls=":", label="least regularised loss $m_{reg}$"))
    if bound_drawn:
        entries.append(Line2D([], [], color="0.3", ls="--", label="bound of Theorem 2.1"))
    bottom_legend(figure, [*entries, *missed_entry(runs)])
    return figure


def _least_losses(axis: Axes, runs: pd.DataFrame) -> None:
    """The curve m_reg(lambda) for each number of classes."""
    decays = runs["weight_decay"][runs["weight_decay"] > 0]
    if decays.empty:
        return
    curve = np.geomspace(decays.min() / 1.3, decays.max() * 1.3, 60)
    for count in sorted(runs["train/classes_present"].dropna().unique()):
        values = [minimum_regularized_loss(int(count), decay) for decay in curve]
        axis.plot(curve, values, ":", color="0.3")
        axis.annotate(f"C = {int(count)}", (curve[0], values[0]), fontsize=8, color="0.35", ha="left", va="top")


def _bounds(intra: Axes, inter: Axes, runs: pd.DataFrame) -> bool:
    """Curves of Theorem 2.1 over the gaps of the runs, where they say anything; whether there are any."""
    drawn = False
    gaps = runs["train/regularized_loss_gap"].clip(lower=_FLOOR)
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
    """The runs whose gap to the theory's optimum was measured, where that optimum is not the zero network."""
    column = "train/regularized_loss_gap"
    if column not in runs:
        return runs.iloc[:0]
    classes = runs["train/classes_present"]
    possible = [
        count >= 2 and decay > 0 and optimal_norm_product(int(count), decay) > 0
        for count, decay in zip(classes.fillna(0), runs["weight_decay"], strict=True)
    ]
    return runs[runs[column].notna() & np.array(possible, dtype=bool)]
