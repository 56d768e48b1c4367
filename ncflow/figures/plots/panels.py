"""What the plots share: grids of panels, legends, limits, the colours of series."""

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import cycle
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ncflow.figures.style import (
    SERIES,
    label,
    literal,
    norm_colour,
    norm_label,
    norm_marker,
    norm_order,
)
from ncflow.figures.tables import limits_of, unequal_classes

_LIMIT_LOOK: dict[str, Any] = {"color": "0.5", "lw": 1, "ls": ":"}


def grid(count: int, columns: int, width: float, height: float) -> tuple[Figure, list[Axes]]:
    """Figure with ``count`` panels of a size in inches, in so many columns or fewer."""
    columns = min(columns, count)
    rows = math.ceil(count / columns)
    figure, axes = plt.subplots(rows, columns, figsize=(width * columns, height * rows), squeeze=False)
    flat = list(axes.flat)
    for unused in flat[count:]:
        unused.set_visible(False)
    return figure, flat[:count]


def draw_inter_limits(axis: Axes, limits: "pd.Series[float]") -> list[float]:
    """Draw the limits of inter that differ by more than 1e-3, and return them, the least first."""
    different = sorted({round(limit, 3): limit for limit in limits.dropna()}.values())
    for limit in different:
        axis.axhline(limit, **_LIMIT_LOOK)
    return different


def limit_entry(rows: pd.DataFrame, measure: str = "inter_max", prefix: str = "train/") -> Line2D:
    """Legend entry of the limits of inter, where the lines have no label of their own.

    Args:
        rows: Of the table of runs, or with the prefix "" of a history.
        measure: Which limits are drawn.
        prefix: Of the measures' columns.
    """
    limits = limits_of(rows, measure, prefix)
    if limits.isna().all():
        return Line2D([], [], ls="none", label="no limit of inter is known for these runs")
    words = "limit $-1/(C-1)$ of inter"
    if unequal_classes(rows, prefix).any():
        words = "inter at the optimum for the class shares"
    return Line2D([], [], label=words + (", where known" if limits.isna().any() else ""), **_LIMIT_LOOK)


def mark_values(axis: Axes, values: Sequence[float]) -> None:
    """Ticks at the values that were run, as many as have room."""
    step = math.ceil(len(values) / 8)
    axis.set_xticks(list(values)[::step], [f"{value:.3g}" for value in values][::step], rotation=30, ha="right")
    axis.set_xticks([], minor=True)


def bottom_legend(figure: Figure, entries: Sequence[Any], inches: float = 2.3) -> None:
    """Legend below the panels, in as many columns of a width as the figure has room for."""
    columns = max(1, min(len(entries), int(figure.get_figwidth() / inches)))
    figure.legend(handles=list(entries), loc="outside lower center", ncols=columns)


def series_colours(values: Iterable[Any]) -> dict[Any, str]:
    """A colour for each value; they begin again where there are more values than colours."""
    return dict(zip(values, cycle(SERIES), strict=False))


def series_entries(by: str, colours: Mapping[float, str], marker: str = "") -> list[Any]:
    """Legend entries of the values of a config column.

    Args:
        by: The column.
        colours: The colour of each value.
        marker: Matplotlib's name of the shape of the points, if there are any.
    """
    return [
        Line2D([], [], color=colour, marker=marker, label=f"{label(by)} = {value:g}")
        for value, colour in colours.items()
    ]


def norm_entries(runs: pd.DataFrame) -> list[Any]:
    """Legend entries of the BN placements among the runs."""
    norms = sorted(runs["model.norm"].unique(), key=norm_order)
    return [
        Line2D([], [], color=norm_colour(norm), marker=norm_marker(norm), ls="none", label=literal(norm_label(norm)))
        for norm in norms
    ]


def missed_entry(runs: pd.DataFrame) -> list[Any]:
    """Legend entry of the hollow points, if there are any."""
    if (runs["train/interpolated"] == 1).all():
        return []
    words = "a run misses training accuracy 1"
    return [Line2D([], [], color="0.3", marker="o", mfc="white", ls="none", label=words)]
