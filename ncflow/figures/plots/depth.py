"""Measures layer by layer (Pan's thesis, figure 3.3)."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from ncflow.figures.plots.panels import bottom_legend, draw_inter_limits, grid, limit_entry, line_widths, log_ticks
from ncflow.figures.style import COLOURS, LABELS, LOSS_COLOUR, fold, literal
from ncflow.figures.tables import last_rows, limits_of

_MOST_NAMES, _LONGEST_NAME = 14, 18


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


def over_layers(panels: Sequence[tuple[str, pd.DataFrame]]) -> Figure:
    """NCC accuracy, intra and inter against the layer of one state of a model, NC1 on a second, logarithmic axis.

    Args:
        panels: The title of each, in matplotlib's own notation, and rows of a history: a layer each, from the input on.
    """
    figure, axes = grid(len(panels), columns=2, width=5.6, height=3.6)
    looks = {"ncc_accuracy": ("all", "-."), "intra_min": ("last", "-"), "inter_max": ("none", "--")}
    widths = line_widths(len(looks))
    every = pd.concat([rows for _, rows in panels])
    least = min(-0.39, every[[*looks]].min().min())
    ratios = every.loc[every["nc1"] > 0, "nc1"]
    for axis, (title, rows) in zip(axes, panels, strict=True):
        ratio_axis, places = axis.twinx(), range(1, len(rows) + 1)
        for (measure, (colour, style)), width in zip(looks.items(), widths, strict=True):
            axis.plot(places, rows[measure], color=COLOURS[colour], ls=style, lw=width, marker="o", ms=3)
        ratio_axis.plot(places, rows["nc1"], color=LOSS_COLOUR, ls=":", marker="o", ms=3)
        limits = draw_inter_limits(axis, limits_of(rows, "inter_max", prefix=""))
        axis.set(xlabel="layer", ylabel="cosine, accuracy", ylim=(min([least, *limits]) - 0.06, 1.06))
        axis.set_title(fold(title, 4.6))
        step = -(-len(rows) // _MOST_NAMES)
        axis.set_xticks(
            [*places][::step], [literal(_end(name)) for name in rows["layer"]][::step], rotation=30, ha="right"
        )
        if len(ratios):
            ratio_axis.set(yscale="log", ylim=(ratios.min() / 1.3, ratios.max() * 1.3))
        ratio_axis.set_ylabel(LABELS["nc1"])
        log_ticks(ratio_axis)
        ratio_axis.grid(False)
        ratio_axis.spines["right"].set_visible(True)
    entries: list[Any] = [
        Line2D([], [], color=COLOURS[colour], ls=style, marker="o", ms=3, label=LABELS[measure])
        for measure, (colour, style) in looks.items()
    ]
    ratio = Line2D([], [], color=LOSS_COLOUR, ls=":", marker="o", ms=3, label=f"{LABELS['nc1']} (right axis)")
    bottom_legend(figure, [*entries, ratio, limit_entry(every, prefix="")])
    return figure


def _end(name: str) -> str:
    """The end of a layer's name, of which the last letters tell most."""
    return name if len(name) <= _LONGEST_NAME else f"…{name[1 - _LONGEST_NAME :]}"
