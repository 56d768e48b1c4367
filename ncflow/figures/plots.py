"""The plots: functions from tables to a matplotlib figure. Which runs they suit is for ``recipes``."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ncflow.figures.style import COLOURS, DATA_LABELS, LABELS, LOSS_COLOUR, MARKERS, NORM_LABELS
from ncflow.figures.tables import over_seeds, panels

INTRA_STYLE, INTER_STYLE = "-", "--"


def panel_title(values: Mapping[str, Any]) -> str:
    """What distinguishes a panel, in words."""
    parts = []
    for key, value in values.items():
        if key == "data.name":
            parts.append(DATA_LABELS.get(str(value), str(value)))
        elif not pd.isna(value) if not isinstance(value, tuple | list) else True:
            name = key.rsplit(".", 1)[-1].replace("_", " ")
            parts.append(
                str(value) if name == "name" else f"{name} {value:g}" if _is_number(value) else f"{name} {value}"
            )
    return ", ".join(parts)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _grid(count: int, columns: int, width: float, height: float) -> tuple[Figure, list[Axes]]:
    columns = min(columns, count)
    rows = math.ceil(count / columns)
    figure, axes = plt.subplots(rows, columns, figsize=(width * columns, height * rows), squeeze=False)
    flat = list(axes.flat)
    for unused in flat[count:]:
        unused.set_visible(False)
    return figure, flat[:count]


def collapse_against(runs: pd.DataFrame, by: str, intra: str = "intra_min", inter: str = "inter_max") -> Figure:
    """Intra- and inter-class cosine against a config column: a panel a setting, a colour a BN placement.

    Points are means over seeds, bars one standard deviation; the dotted line is the limit -1/(C-1) of inter, and
    hollow points mark settings where a run does not reach training accuracy 1. (Pan, Cao, figures 2 and 4.)

    Args:
        runs: Finished runs with the columns ``train/<measure>`` and ``model.norm``.
        by: Column of the horizontal axis, drawn on a logarithmic scale.
        intra: Measure of the upper curves.
        inter: Measure of the lower curves.
    """
    cut = panels(runs, by)
    figure, axes = _grid(len(cut), columns=3, width=4.4, height=3.6)
    for axis, (values, part) in zip(axes, cut, strict=True):
        for norm in sorted(part["model.norm"].unique(), key=list(COLOURS).index):
            of_norm = part[part["model.norm"] == norm]
            for measure, style in ((intra, INTRA_STYLE), (inter, INTER_STYLE)):
                _series(axis, of_norm, by, measure, style, norm)
        axis.axhline(1, color="0.5", lw=1, ls=":")
        _limit_line(axis, part)
        _log_scale(axis, part[by])
        axis.set(xlabel=LABELS.get(by.rsplit(".", 1)[-1], by), title=panel_title(values))
        _mark_values(axis, sorted(part[by].unique()))
        axis.set_ylabel("cosine (training split)")
    _legend(figure, runs, intra, inter)
    return figure


def _series(axis: Axes, runs: pd.DataFrame, by: str, measure: str, style: str, norm: str) -> None:
    table = over_seeds(runs, by, f"train/{measure}")
    colour = COLOURS[norm]
    axis.errorbar(table.index, table["mean"], yerr=table["std"], color=colour, ls=style, capsize=2, zorder=2)
    full = runs.groupby(by)["train/interpolated"].min().reindex(table.index) == 1
    for chosen, face in ((full, colour), (~full, "white")):
        shown = table[chosen.to_numpy()]
        axis.plot(shown.index, shown["mean"], MARKERS[norm], color=colour, mfc=face, ls="none", zorder=3)


def _limit_line(axis: Axes, runs: pd.DataFrame) -> None:
    """The limit of inter at collapse, its label below the line, where no curve can be."""
    limits = sorted({-1 / (count - 1) for count in runs["train/classes_present"].dropna().unique()})
    for limit in limits:
        axis.axhline(limit, color="0.5", lw=1, ls=":")
        axis.annotate(
            f"limit $-1/(C-1) = {limit:.2f}$",
            (0.99, limit),
            xycoords=("axes fraction", "data"),
            xytext=(0, -3),
            textcoords="offset points",
            ha="right",
            va="top",
            fontsize=8,
            color="0.35",
        )
    if limits:
        axis.set_ylim(min(axis.get_ylim()[0], limits[0]) - 0.15, 1.08)


def _log_scale(axis: Axes, values: pd.Series) -> None:
    """Logarithmic; where 0 is among the values it stands apart on the left."""
    if values.min() > 0:
        axis.set_xscale("log")
    else:
        axis.set_xscale("symlog", linthresh=values[values > 0].min())


def _mark_values(axis: Axes, values: Sequence[float]) -> None:
    """Ticks at the values that were run, as many as have room."""
    step = math.ceil(len(values) / 8)
    axis.set_xticks(list(values)[::step], [f"{value:g}" for value in values][::step], rotation=30, ha="right")
    axis.set_xticks([], minor=True)


def _legend(figure: Figure, runs: pd.DataFrame, intra: str, inter: str) -> None:
    norms = sorted(runs["model.norm"].unique(), key=list(COLOURS).index)
    entries: list[Any] = [
        plt.Line2D([], [], color=COLOURS[norm], marker=MARKERS[norm], ls="none", label=NORM_LABELS.get(norm, norm))
        for norm in norms
    ]
    entries += [
        plt.Line2D([], [], color="0.3", ls=style, label=LABELS[measure])
        for measure, style in ((intra, INTRA_STYLE), (inter, INTER_STYLE))
    ]
    if (runs["train/interpolated"] != 1).any():
        entries.append(
            plt.Line2D(
                [], [], color="0.3", marker="o", mfc="white", ls="none", label="a run misses training accuracy 1"
            )
        )
    figure.legend(handles=entries, loc="outside lower center", ncols=min(3, len(entries)))


def trajectories(history: pd.DataFrame, titles: Sequence[tuple[str, str]]) -> Figure:
    """Min intra, max inter and NC3 over epochs, the training loss on a second, logarithmic axis.

    (Pan, Cao, figures 3, 7 and 8.)

    Args:
        history: Rows of :func:`ncflow.results.load_history` for the training split and the last layer.
        titles: (folder, title) of the runs to draw, a panel each.
    """
    figure, axes = _grid(len(titles), columns=2, width=5.6, height=3.4)
    lines: list[Any] = []
    for axis, (folder, title) in zip(axes, titles, strict=True):
        rows = history[history["folder"] == folder].sort_values("epoch")
        loss_axis = axis.twinx()
        lines = [
            *axis.plot(rows["epoch"], rows["intra_min"], color=COLOURS["last"], label=LABELS["intra_min"]),
            *axis.plot(rows["epoch"], rows["inter_max"], color=COLOURS["none"], ls="--", label=LABELS["inter_max"]),
            *axis.plot(
                rows["epoch"], rows["nc3_cosine_min"], color=COLOURS["all"], ls="-.", label=LABELS["nc3_cosine_min"]
            ),
            *loss_axis.plot(rows["epoch"], rows["loss"], color=LOSS_COLOUR, ls=":", label="training loss (right axis)"),
        ]
        limit = -1 / (rows["classes_present"].iloc[0] - 1)
        axis.axhline(limit, color="0.5", lw=1, ls=":")
        axis.set(xlabel=LABELS["epoch"], ylabel="cosine", title=title, ylim=(min(-0.45, limit - 0.1), 1.05))
        loss_axis.set(yscale="log", ylabel=LABELS["loss"])
        loss_axis.grid(False)
        loss_axis.spines["right"].set_visible(True)
    figure.legend(handles=lines, loc="outside lower center", ncols=len(lines) if len(titles) > 1 else 2)
    return figure
