"""Collapse against weight decay, against gamma, and over the epochs."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ncflow.figures.plots.panels import (
    LIMIT_LOOK,
    bottom_legend,
    draw_inter_limits,
    grid,
    limit_entry,
    line_widths,
    log_ticks,
    mark_values,
    missed_entry,
    norm_entries,
    series,
    series_colours,
    series_entries,
)
from ncflow.figures.style import (
    COLOURS,
    LABELS,
    LOSS_COLOUR,
    PUBLISHED_COLOUR,
    fold,
    label,
    literal,
    norm_looks,
)
from ncflow.figures.tables import limits_of, over_seeds, unequal_classes
from ncflow.figures.varied import panel_title, panels

INTRA_STYLE, INTER_STYLE = "-", "--"
WORST, MEAN, QUANTILE = ("intra_min", "inter_max"), ("intra_mean", "inter_mean"), ("intra_quantile", "inter_quantile")
UNCENTRED = ("intra_raw_min", "inter_raw_max")
_WIDTH, _COLUMNS = 4.4, 3  # of a panel in inches, and how many stand in a row
_ROWS = {WORST: "worst class, worst pair", QUANTILE: "5 %, 95 % quantile", MEAN: "mean over classes, pairs"}


def collapse_against(
    runs: pd.DataFrame,
    by: str,
    pairs: Sequence[tuple[str, str]] = (WORST,),
    published: pd.DataFrame | None = None,
    more: Sequence[str] = (),
) -> Figure:
    """Intra- and inter-class cosine against a config column: a panel a setting, a colour a BN placement.

    Points are means over seeds, bars one standard deviation; dotted is what inter is at the theory's optimum, -1/(C-1)
    for equal classes and otherwise a curve for each BN placement. Hollow points mark settings where a run does not
    reach training accuracy 1. (Pan, Cao, figures 2, 5 and 6.)

    Args:
        runs: Finished runs with the columns ``train/<measure>`` and ``model.norm``.
        by: Column of the horizontal axis, drawn on a logarithmic scale.
        pairs: An intra and an inter measure for each row of panels.
        published: Results of others, drawn in grey beside the runs of the same model: the columns ``model``, ``by``
            and the measures.
        more: Further columns that tell the BN of ``model.norm`` apart.
    """
    cut, looks = panels(runs, by, *more), norm_looks(runs["model.norm"])
    if len(pairs) == 1:
        figure, flat = grid(len(cut), columns=_COLUMNS, width=_WIDTH, height=3.6, shared=True)
        table = [flat]
    else:
        size = (_WIDTH * len(cut), 3.3 * len(pairs))
        figure, axes = plt.subplots(len(pairs), len(cut), figsize=size, squeeze=False, sharex="col", sharey="row")
        table = [list(row) for row in axes]
    for (intra, inter), row in zip(pairs, table, strict=True):
        for axis, (values, part) in zip(row, cut, strict=True):
            norms = norm_looks(part["model.norm"])
            for norm, width in zip(norms, line_widths(len(norms)), strict=True):
                of_norm = part[part["model.norm"] == norm]
                for measure, style in ((intra, INTRA_STYLE), (inter, INTER_STYLE)):
                    series(axis, of_norm, by, measure, *looks[norm], style, width)
            if published is not None:
                _draw_published(axis, published[published["model"].isin(part["model.name"])], by, (intra, inter))
            axis.axhline(1, **LIMIT_LOOK)
            _limit_lines(axis, part, by, inter, {norm: colour for norm, (colour, _) in looks.items()})
            _log_scale(axis, part[by])
            title = fold(panel_title(values), _WIDTH - 0.5)
            axis.set(title=literal(title) if row is table[0] else "")
            axis.set_xlabel(label(by) if len(pairs) == 1 or row is table[-1] else "")
        row[0].set_ylabel(f"cosine: {_ROWS[intra, inter]}" if len(pairs) > 1 else "cosine (training split)")
        if len(pairs) == 1:
            for axis in row[::_COLUMNS]:
                axis.set_ylabel("cosine (training split)")
    for row in table:
        for axis, (_, part) in zip(row, cut, strict=True):
            mark_values(axis, sorted(part[by].unique()))
    _legend(figure, runs, pairs, published is not None)
    return figure


def _draw_published(axis: Axes, published: pd.DataFrame, by: str, measures: tuple[str, str]) -> None:
    for _, of_model in published.groupby("model"):
        table = of_model.sort_values(by)
        for measure, style in zip(measures, (INTRA_STYLE, INTER_STYLE), strict=True):
            axis.plot(table[by], table[measure], style, color=PUBLISHED_COLOUR, marker="x", lw=1.2, zorder=1)


def _limit_lines(axis: Axes, runs: pd.DataFrame, by: str, measure: str, colours: Mapping[Any, str]) -> None:
    """What inter is at the optimum: a line for equal classes, else a curve in the colour of each BN placement."""
    limits = limits_of(runs, measure)
    if not unequal_classes(runs).any():
        of_equal = draw_inter_limits(axis, limits)
        for limit in of_equal:
            axis.annotate(  # below the line, where no curve can be
                f"limit $-1/(C-1) = {limit:.2g}$",
                (0.99, limit),
                xycoords=("axes fraction", "data"),
                xytext=(0, -3),
                textcoords="offset points",
                ha="right",
                va="top",
                fontsize=8,
                color="0.35",
            )
        if of_equal:
            axis.set_ylim(min(axis.get_ylim()[0], of_equal[0]) - 0.15, 1.08)
        return
    for norm, of_norm in runs.assign(limit=limits).dropna(subset=["limit"]).groupby("model.norm"):
        table = over_seeds(of_norm, by, "limit")
        axis.plot(table.index, table["mean"], ":", color=colours[norm], marker="_", lw=1.2, zorder=1)
    axis.set_ylim(axis.get_ylim()[0], 1.08)


def _log_scale(axis: Axes, values: pd.Series) -> None:
    """Logarithmic; where 0 is among the values it stands apart on the left."""
    if values.min() > 0:
        axis.set_xscale("log")
    elif values.max() > 0:
        axis.set_xscale("symlog", linthresh=values[values > 0].min())


def _legend(figure: Figure, runs: pd.DataFrame, pairs: Sequence[tuple[str, str]], published: bool) -> None:
    labels = [LABELS[measure] for measure in pairs[0]]
    if len(pairs) > 1:
        labels = [f"{kind}-class cosine (training split)" for kind in ("intra", "inter")]
    entries = norm_entries(runs)
    for text, style in zip(labels, (INTRA_STYLE, INTER_STYLE), strict=True):
        entries.append(Line2D([], [], color="0.3", ls=style, label=text))
    entries.append(Line2D([], [], label="limit 1 of intra", **LIMIT_LOOK))
    entries.append(limit_entry(runs, pairs[0][1]))
    entries += missed_entry(runs)
    if published:
        entries.append(Line2D([], [], color=PUBLISHED_COLOUR, marker="x", lw=1.2, label="published"))
    bottom_legend(figure, entries)


def collapse_against_gamma(runs: pd.DataFrame) -> Figure:
    """Min intra (upper row) and max inter (lower row) against the norm of a fixed gamma, a colour a weight decay.

    Means and standard deviations over seeds; hollow points mark settings where a run does not reach training accuracy
    1. (Pan, Cao, figures 4 and 9.)

    Args:
        runs: Finished runs with a fixed ``model.gamma``.
    """
    cut = panels(runs, "model.gamma", inside=("weight_decay",))
    colours = series_colours(sorted(runs["weight_decay"].unique()))
    size = (max(_WIDTH, 4.0 * len(cut)), 5.6)
    figure, axes = plt.subplots(2, len(cut), figsize=size, squeeze=False, sharex="col", sharey="row")
    for column, (values, part) in enumerate(cut):
        for row, measure in enumerate(WORST):
            axis = axes[row][column]
            widths = line_widths(part["weight_decay"].nunique())
            for (decay, of_decay), width in zip(part.groupby("weight_decay"), widths, strict=True):
                series(axis, of_decay, "train/gamma_norm", measure, colours[decay], width=width)
            axis.set_xscale("log")
            if column == 0:
                axis.set_ylabel(LABELS[measure])
        draw_inter_limits(axes[1][column], limits_of(part, "inter_max"))
        axes[0][column].axhline(1, **LIMIT_LOOK)
        axes[0][column].set_title(literal(fold(panel_title(values), 3.6)))
        axes[1][column].set_xlabel(LABELS["gamma_norm"])
        mark_values(axes[1][column], sorted(part["train/gamma_norm"].unique()))
    intra_limit = Line2D([], [], label="limit 1 of intra", **LIMIT_LOOK)
    bottom_legend(
        figure,
        [*series_entries("weight_decay", colours, marker="o"), intra_limit, limit_entry(runs), *missed_entry(runs)],
    )
    return figure


def trajectories(history: pd.DataFrame, shown: Sequence[tuple[str, Sequence[str]]], columns: int) -> Figure:
    """Min intra, max inter and NC3 over epochs, the training loss on a second, logarithmic axis.

    (Pan, Cao, figures 3, 7 and 8.)

    Args:
        history: Rows of :func:`ncflow.results.load_history` for the training split and the last layer.
        shown: For each panel, its title in matplotlib's own notation and the folders of its runs, a thin line each if
            there are several.
        columns: Panels in a row.
    """
    figure, axes = grid(len(shown), columns=columns, width=5.6, height=3.4 if len(shown) <= 2 * columns else 2.6)
    curves = {"intra_min": ("last", "-"), "inter_max": ("none", "--"), "nc3_cosine_min": ("all", "-.")}
    widths = line_widths(len(curves))
    drawn = history[history["folder"].isin([folder for _, folders in shown for folder in folders])]
    limits = limits_of(drawn, "inter_max", prefix="")
    # Panels are compared, and no cosine is out of sight.
    least = min(-0.39, limits.min() if limits.notna().any() else 0, drawn[[*curves]].min().min())
    losses = drawn.loc[drawn["loss"] > 0, "loss"]
    for axis, (title, folders) in zip(axes, shown, strict=True):
        loss_axis = axis.twinx()
        thin = 1.0 if len(folders) == 1 else 0.5
        for folder in folders:
            rows = history[history["folder"] == folder].sort_values("epoch")
            mark = "o" if len(rows) == 1 else ""  # which is no line
            for (measure, (colour, style)), width in zip(curves.items(), widths, strict=True):
                axis.plot(rows["epoch"], rows[measure], color=COLOURS[colour], ls=style, lw=width * thin, marker=mark)
            loss_axis.plot(rows["epoch"], rows["loss"], color=LOSS_COLOUR, ls=":", lw=1.8 * thin, marker=mark)
        draw_inter_limits(axis, limits[drawn["folder"].isin(folders)])
        axis.set(xlabel=LABELS["epoch"], ylabel="cosine", ylim=(least - 0.06, 1.06))
        axis.set_title(fold(title, 4.6))
        if len(losses):
            loss_axis.set(yscale="log", ylim=(losses.min() / 1.3, losses.max() * 1.3))
        loss_axis.set_ylabel(LABELS["loss"])
        log_ticks(loss_axis)
        loss_axis.grid(False)
        loss_axis.spines["right"].set_visible(True)
    entries = [
        Line2D([], [], color=COLOURS[colour], ls=style, label=LABELS[measure])
        for measure, (colour, style) in curves.items()
    ]
    loss = Line2D([], [], color=LOSS_COLOUR, ls=":", label="training loss (right axis)")
    bottom_legend(figure, [*entries, loss, limit_entry(drawn, prefix="")])
    return figure
