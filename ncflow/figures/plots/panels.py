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
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from ncflow.figures.style import SERIES, fold, label, literal, norm_label, norm_looks
from ncflow.figures.tables import limits_of, over_seeds, unequal_classes

_TICK_ROOM = 28  # points between two ticks whose words are turned
_FEW_DECADES = 1.7
_MANY = 6  # ticks with a number
_LOW_LEGEND = 0.5  # inches
LIMIT_LOOK: dict[str, Any] = {"color": "0.5", "lw": 1, "ls": ":"}


def grid(count: int, columns: int, width: float, height: float, shared: bool = False) -> tuple[Figure, list[Axes]]:
    """Figure with ``count`` panels of a size in inches, in so many columns or fewer, perhaps of one vertical axis."""
    columns = min(columns, count)
    rows = math.ceil(count / columns)
    size = (width * columns, height * rows)
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, sharey=shared)
    flat = list(axes.flat)
    for unused in flat[count:]:
        unused.set_visible(False)
    return figure, flat[:count]


def draw_inter_limits(axis: Axes, limits: "pd.Series[float]") -> list[float]:
    """Draw the limits of inter that differ by more than 1e-3, and return them, the least first."""
    different = sorted({round(limit, 3): limit for limit in limits.dropna()}.values())
    for limit in different:
        axis.axhline(limit, **LIMIT_LOOK)
    return different


def limit_entry(rows: pd.DataFrame, measure: str = "inter_max", prefix: str = "train/") -> Line2D:
    """Legend entry of the limits of inter.

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
    return Line2D([], [], label=words + (", where known" if limits.isna().any() else ""), **LIMIT_LOOK)


def mark_values(axis: Axes, values: Sequence[float]) -> None:
    """Ticks at the values that were run, as many as have room, the least and the largest first."""
    axis.autoscale_view()
    places = axis.transData.transform([(value, 0) for value in values])[:, 0] * 72 / axis.figure.dpi
    marked = [0]
    for index in range(1, len(values)):
        if places[index] - places[marked[-1]] >= _TICK_ROOM:
            marked.append(index)
    last = len(values) - 1
    if len(marked) > 1 and marked[-1] != last:
        marked[-1] = last
    axis.set_xticks(
        [values[index] for index in marked], [f"{values[index]:.3g}" for index in marked], rotation=30, ha="right"
    )
    axis.set_xticks([], minor=True)


def log_ticks(*axes: Axes) -> None:
    """Ticks of the logarithmic axes whose words do not run into each other: few numbers where they span little."""
    for axis in axes:
        for of_axis, scale in ((axis.xaxis, axis.get_xscale()), (axis.yaxis, axis.get_yscale())):
            low, high = sorted(of_axis.get_view_interval())
            marked = isinstance(of_axis.get_major_locator(), FixedLocator)  # the values that were run
            if scale != "log" or marked or not 0 < low < high < float("inf"):
                continue
            of_axis.set_minor_formatter(NullFormatter())
            decades = math.log10(high / low)
            if decades >= _FEW_DECADES:
                of_axis.set_major_locator(LogLocator(numticks=_MANY))
            else:
                of_axis.set_major_locator(MaxNLocator(4) if decades < 1 else LogLocator(subs=(1, 2, 5)))
                of_axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def bottom_legend(figure: Figure, entries: Sequence[Any]) -> None:
    """Legend below the panels, in as many columns as the figure has room for; a high one makes the figure higher."""
    width = figure.get_figwidth()
    for entry in entries:
        entry.set_label(fold(str(entry.get_label()), width - 0.9, 10))
    for columns in range(len(entries), 0, -1):
        legend = figure.legend(handles=list(entries), loc="outside lower center", ncols=columns)
        extent = legend.get_window_extent()
        if columns == 1 or extent.width < (width - 0.1) * figure.dpi:
            figure.set_figheight(figure.get_figheight() + max(0, extent.height / figure.dpi - _LOW_LEGEND))
            return
        legend.remove()


def line_widths(count: int) -> list[float]:
    """Widths of lines that are drawn over each other: the first ones look out from under the later."""
    return [1.5 + 1.5 * (count - 1 - place) / max(2, count - 1) for place in range(count)]


def series(
    axis: Axes,
    runs: pd.DataFrame,
    by: str,
    measure: str,
    colour: str,
    marker: str = "o",
    style: Any = "-",
    width: float = 1.8,
    positive: bool = False,
) -> None:
    """Means with bars over seeds; a point is hollow where a run does not reach training accuracy 1.

    Args:
        axis: Where they are drawn.
        runs: Finished runs.
        by: Config column of the horizontal axis.
        measure: Of the training split.
        colour: Of line and points.
        marker: Of the points.
        style: Of the line.
        width: Of the line, by which the points are sized.
        positive: Whether a bar may not go below 0, which a logarithmic axis does not show.
    """
    table = over_seeds(runs, by, f"train/{measure}")
    below = table["std"].clip(upper=0.9 * table["mean"]) if positive else table["std"]
    bars = [below, table["std"]]
    axis.errorbar(table.index, table["mean"], yerr=bars, color=colour, ls=style, lw=width, capsize=2, zorder=2)
    full = runs.groupby(by)["train/interpolated"].min().reindex(table.index) == 1
    for chosen, face in ((full, colour), (~full, "white")):
        shown = table[chosen.to_numpy()]
        axis.plot(shown.index, shown["mean"], marker, color=colour, mfc=face, ls="none", ms=3 + 1.7 * width, zorder=3)


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
    return [
        Line2D([], [], color=colour, marker=marker, ls="none", label=literal(norm_label(norm)))
        for norm, (colour, marker) in norm_looks(runs["model.norm"]).items()
    ]


def missed_entry(runs: pd.DataFrame) -> list[Any]:
    """Legend entry of the hollow points, if there are any."""
    if (runs["train/interpolated"] == 1).all():
        return []
    words = "a run misses training accuracy 1"
    return [Line2D([], [], color="0.3", marker="o", mfc="white", ls="none", label=words)]
