"""Measures layer by layer (Pan's thesis, figure 3.3)."""

from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from ncflow.figures.plots.panels import bottom_legend, draw_inter_limits, grid, limit_entry, line_widths
from ncflow.figures.style import COLOURS, LABELS
from ncflow.figures.tables import last_rows, limits_of


def profiles(runs: pd.DataFrame, history: pd.DataFrame, pair: tuple[str, str]) -> Figure:
    """NCC accuracy, intra and inter against the layer, a panel a weight decay; mean and range over seeds.

    Args:
        runs: Finished runs of one setting that differ in weight decay and seed.
        history: Table of :func:`ncflow.results.load_history`.
        pair: The measures of intra and inter.
    """
    decays = sorted(runs["weight_decay"].unique())
    figure, axes = grid(len(decays), columns=4, width=3.6, height=3.0, shared=True)
    least = -0.49
    looks = (("all", "-."), ("last", "-"), ("none", "--"))
    widths = line_widths(len(looks))
    curves = dict(zip(("ncc_accuracy", *pair), looks, strict=True))
    for axis, decay in zip(axes, decays, strict=True):
        part = runs[runs["weight_decay"] == decay]
        tables = [last_rows(history, folder).reset_index(drop=True) for folder in part["folder"]]
        for (measure, (colour, style)), width in zip(curves.items(), widths, strict=True):
            values = pd.concat([table[measure] for table in tables], axis=1)
            layers = range(1, len(values) + 1)
            axis.plot(layers, values.mean(axis=1), color=COLOURS[colour], ls=style, lw=width, marker="o", ms=3)
            axis.fill_between(layers, values.min(axis=1), values.max(axis=1), color=COLOURS[colour], alpha=0.2, lw=0)
            least = min(least, values.min().min())
        missed = "" if (part["train/interpolated"] == 1).all() else "\n(training accuracy below 1)"
        axis.set(title=f"$\\lambda$ = {decay:g}{missed}", xlabel="layer")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        least = min([least, *draw_inter_limits(axis, limits_of(part, pair[1]))])
    for axis in axes:
        axis.set_ylim(least - 0.06, 1.06)
    entries: list[Any] = [
        Line2D([], [], color=COLOURS[colour], ls=style, marker="o", ms=3, label=LABELS[measure])
        for measure, (colour, style) in curves.items()
    ]
    bottom_legend(figure, [*entries, limit_entry(runs, pair[1])])
    return figure
