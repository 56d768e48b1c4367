"""NC1 and NC0 against what an optimiser is set to; NC0 and its law over steps; NC1 at equal loss."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ncflow.figures.plots.panels import (
    bottom_legend,
    grid,
    log_ticks,
    mark_values,
    missed_entry,
    series,
    series_colours,
)
from ncflow.figures.style import fold, label, literal, words

_WIDTH = 4.2
_STYLES = ("-", "--", ":", "-.", (0, (5, 1, 1, 1, 1, 1)))
_MARKERS = ("o", "s", "^", "D", "v")
_MEASURED: dict[str, Any] = {"lw": 2.6, "alpha": 0.6}
_PREDICTED: dict[str, Any] = {"ls": ":", "lw": 1.1, "color": "black"}

Panels = Sequence[tuple[str, pd.DataFrame]]
"""(title, runs) of each panel."""


def measures_against(cut: Panels, by: str, measures: Sequence[str], colour: str, style: str | None = None) -> Figure:
    """A row for each measure, on a logarithmic scale, a column a setting; means and standard deviations over seeds.

    Hollow points mark where a run does not reach training accuracy 1.

    Args:
        cut: The panels of finished runs.
        by: Config column of the horizontal axis.
        measures: Measures of the training split.
        colour: Config column, a colour for each of its values.
        style: Config column, a line style and a marker for each of its values.
    """
    runs = pd.concat([part for _, part in cut])
    colours = series_colours(sorted(runs[colour].unique()))
    styles = _styles(runs, style)
    size = (max(_WIDTH * len(cut), 5.0), 2.7 * len(measures) + 0.6)
    figure, axes = plt.subplots(len(measures), len(cut), figsize=size, squeeze=False, sharex="col", sharey="row")
    for column, (title, part) in enumerate(cut):
        for axis, measure in zip(axes[:, column], measures, strict=True):
            keys = [colour] if style is None else [colour, style]
            for values, own in part.groupby(keys):
                line, marker = styles[values[1]] if style is not None else styles[None]
                series(axis, own, by, measure, colours[values[0]], marker, line, positive=True)
            axis.set_yscale("log")
            split = "" if measure.startswith("nc0") else " (training split)"
            axis.set_ylabel(label(measure) + split if column == 0 else "")
            if by == "weight_decay":
                axis.set_xscale("log")
        axes[0, column].set_title(literal(fold(title, _WIDTH - 0.4)))
        axes[-1, column].set_xlabel(label(by))
        mark_values(axes[-1, column], sorted(part[by].unique()))
    log_ticks(*axes[:, 0])
    shown = [Line2D([], [], color=c, marker="o", label=_named(colour, value)) for value, c in colours.items()]
    if style is not None and len(styles) > 1:
        shown += [
            Line2D([], [], color="0.3", ls=line, marker=marker, label=_named(style, value))
            for value, (line, marker) in styles.items()
        ]
    bottom_legend(figure, [*shown, *missed_entry(runs)])
    return figure


def _styles(runs: pd.DataFrame, column: str | None) -> Mapping[Any, tuple[Any, str]]:
    """A line style and a marker for each value, the largest first: of shares, coupled decay is solid."""
    values = [None] if column is None else sorted(runs[column].unique(), reverse=True)
    return {v: (_STYLES[i % len(_STYLES)], _MARKERS[i % len(_MARKERS)]) for i, v in enumerate(values)}


def _named(column: str, value: Any) -> str:
    text = literal(words(value))
    return text if column.endswith(".name") else f"{label(column)} = {text}"


def nc0_over_steps(cut: Panels, rows: pd.DataFrame, colour: str, style: str | None, columns: int) -> Figure:
    """NC0 as measured, a line a run, and as the optimiser's law has it, dotted, over optimiser steps.

    Args:
        cut: The panels of runs; with the column ``steps``, of the whole run.
        rows: Training rows of the last layer of their histories, with ``nc0`` and ``nc0_predicted``.
        colour: Config column, a colour for each of its values.
        style: Config column, a line style for each of its values.
        columns: Panels in a row.
    """
    runs = pd.concat([part for _, part in cut])
    colours = series_colours(sorted(runs[colour].unique()))
    styles = _styles(runs, style)
    figure, axes = grid(len(cut), columns=columns, width=_WIDTH, height=3.2, shared=True)
    is_predicted = False
    for axis, (title, part) in zip(axes, cut, strict=True):
        of_folder = dict(iter(rows[rows["folder"].isin(part["folder"])].groupby("folder")))
        kinds = [None] * len(part) if style is None else part[style].tolist()
        for folder, value, kind, steps in zip(part["folder"], part[colour], kinds, part["steps"], strict=True):
            own = of_folder[folder].sort_values("epoch")
            at = own["epoch"] * steps / own["epoch"].max()
            axis.plot(at, own["nc0"], color=colours[value], ls=styles[kind][0], **_MEASURED)
            if own["nc0_predicted"].notna().any():
                is_predicted = True
                axis.plot(at, own["nc0_predicted"], **_PREDICTED)
        axis.set_yscale("log")
        axis.set_xlabel(label("step"))
        axis.set_title(literal(fold(title, _WIDTH - 0.4)))
    # What the law goes down to and no sum of rounded numbers does is out of sight.
    least = rows.loc[rows["folder"].isin(runs["folder"]) & (rows["nc0"] > 0), "nc0"].min()
    for axis in axes:
        axis.set_ylim(bottom=least / 1.5)
    for axis in axes[::columns]:
        axis.set_ylabel(label("nc0"))
    log_ticks(*axes)
    shown = [Line2D([], [], color=c, label=_named(colour, v), **_MEASURED) for v, c in colours.items()]
    if style is not None and len(styles) > 1:
        shown += [
            Line2D([], [], color="0.3", ls=line, label=_named(style, v), **_MEASURED) for v, (line, _) in styles.items()
        ]
    law = [Line2D([], [], label="as learning rate, decay and momentum alone have it", **_PREDICTED)]
    bottom_legend(figure, [*shown, *(law if is_predicted else [])])
    return figure


def at_equal_loss(cut: Panels, rows: pd.DataFrame, colour: str, columns: int) -> Figure:
    """NC1 against the training loss, which falls to the right, a line a run: what is lower has collapsed more for it.

    Args:
        cut: The panels of runs.
        rows: Training rows of the last layer of their histories, after the first epoch.
        colour: Config column, a colour for each of its values.
        columns: Panels in a row.
    """
    runs = pd.concat([part for _, part in cut])
    colours = series_colours(sorted(runs[colour].unique()))
    figure, axes = grid(len(cut), columns=columns, width=_WIDTH, height=3.4, shared=True)
    for axis, (title, part) in zip(axes, cut, strict=True):
        of_folder = dict(iter(rows[rows["folder"].isin(part["folder"])].groupby("folder")))
        for folder, value in zip(part["folder"], part[colour], strict=True):
            own = of_folder[folder].sort_values("epoch")
            axis.plot(own["loss"], own["nc1"], color=colours[value], lw=1.1, alpha=0.8)
            axis.plot(own["loss"].iloc[-1:], own["nc1"].iloc[-1:], "o", color=colours[value], ms=4)
        axis.set(xscale="log", yscale="log", xlabel=f"{label('loss')}, falling")
        axis.set_title(literal(fold(title, _WIDTH - 0.4)))
        axis.invert_xaxis()
    for axis in axes[::columns]:
        axis.set_ylabel(f"{label('nc1')} (training split)")
    log_ticks(*axes)
    shown = [Line2D([], [], color=c, label=_named(colour, v)) for v, c in colours.items()]
    end = Line2D([], [], color="0.3", marker="o", ms=4, ls="none", label="end of training")
    bottom_legend(figure, [*shown, end])
    return figure
