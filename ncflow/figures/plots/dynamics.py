"""Norms, margins and errors of networks trained on the square loss (CBMM Memo 117)."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from ncflow.figures.plots.panels import bottom_legend, line_widths, log_ticks, series_colours, series_entries
from ncflow.figures.style import LABELS, SERIES, label
from ncflow.figures.tables import last_layer, over_seeds

# Columns of a history, or derived from one, with the scale of their axis.
RHO, TRAIN_LOSS, TEST_ERROR, ACCURACY = (
    ("rho", "log"),
    ("loss", "log"),
    ("test_error", "linear"),
    ("accuracy", "linear"),
)
COLLAPSE = (
    ("nc1", "log"),
    ("nc2_equinorm_means", "log"),
    ("nc2_equinorm_weights", "log"),
    ("nc2_equiangular_means", "log"),
    ("nc2_equiangular_weights", "log"),
)
_ROUNDING = 1e-12
_NARROWEST = 5.0  # inches


def with_test_error(history: pd.DataFrame) -> pd.DataFrame:
    """Training rows of the last layer, with the test error of the same run and epoch as ``test_error``."""
    keys = ["folder", "epoch"]
    test, train = (
        last_layer(history, split).drop_duplicates(keys, keep="last").set_index(keys) for split in ("test", "train")
    )
    return train.assign(test_error=1 - test["accuracy"].reindex(train.index)).reset_index()


def over_epochs(
    runs: pd.DataFrame, history: pd.DataFrame, by: str, rows: Sequence[tuple[str, str]], columns: str = "weight_decay"
) -> Figure:
    """Measures over epochs: a row a measure, a column a value of ``columns``, a colour a value of ``by``.

    Lines are means over seeds, bands one standard deviation; on a logarithmic axis both of the logarithm.
    (CBMM Memo 117, figures 2, 6 and 13 to 17.)

    Args:
        runs: Finished runs.
        history: Table of :func:`ncflow.results.load_history`.
        by: Config column of the colours.
        rows: (measure, scale) of each row.
        columns: Config column of the columns; an infinite batch size is the whole training split.
    """
    paths = with_test_error(history)
    paths = paths[paths["folder"].isin(runs["folder"])]
    # Two centred means are opposite whatever happens: what is 0 but for rounding says nothing.
    rows = [(measure, scale) for measure, scale in rows if paths[measure].max() > _ROUNDING]
    settings, colours = sorted(runs[columns].unique()), series_colours(sorted(runs[by].unique()))
    size = (4.6 * len(settings), max(3.3, 2.7 * len(rows)))
    figure, axes = plt.subplots(len(rows), len(settings), figsize=size, squeeze=False, sharex="col", sharey="row")
    for column, setting in enumerate(settings):
        for (value, colour), width in zip(colours.items(), line_widths(len(colours)), strict=True):
            chosen = runs[(runs[columns] == setting) & (runs[by] == value)]
            part = paths[paths["folder"].isin(chosen["folder"])]
            for row, (measure, scale) in enumerate(rows):
                _band(axes[row][column], part, measure, scale, colour, width=width)
        axes[0][column].set_title(_valued(columns, setting))
        axes[-1][column].set_xlabel(LABELS["epoch"])
    for row, (measure, scale) in enumerate(rows):
        axes[row][0].set(ylabel=label(measure), yscale=scale)
        log_ticks(axes[row][0])
    bottom_legend(figure, series_entries(by, colours))
    return figure


def _valued(column: str, value: float) -> str:
    return "full batches" if column == "batch_size" and np.isinf(value) else f"{label(column)} = {value:g}"


def _band(
    axis: Axes, part: pd.DataFrame, measure: str, scale: str, colour: str, along: str = "epoch", width: float = 1.8
) -> None:
    table = part.pivot_table(index=along, columns="folder", values=measure)
    if table.empty:
        return
    values = np.log10(table.where(table > 0)) if scale == "log" else table
    middle, spread = values.mean(axis=1), values.std(axis=1).fillna(0)
    low, high = middle - spread, middle + spread
    if scale == "log":
        middle, low, high = 10**middle, 10**low, 10**high
    axis.plot(table.index, middle, color=colour, lw=width)
    axis.fill_between(table.index, low, high, color=colour, alpha=0.2, lw=0)


def over_first_epochs(
    runs: pd.DataFrame, history: pd.DataFrame, by: str, measure: tuple[str, str], windows: Sequence[int | None]
) -> Figure:
    """A measure over the first epochs: a row a value of ``by``, a column a number of epochs, a line a run.

    (CBMM Memo 117, figures 14 and 15.)

    Args:
        runs: Finished runs.
        history: Table of :func:`ncflow.results.load_history`.
        by: Config column of the rows.
        measure: (measure, scale).
        windows: How many epochs each column shows; None: all.
    """
    name, scale = measure
    paths = last_layer(history)
    values = sorted(runs[by].unique())
    size = (4.2 * len(windows), 2.6 * len(values))
    figure, axes = plt.subplots(len(values), len(windows), figsize=size, squeeze=False, sharex="col", sharey="row")
    for row, (value, colour) in zip(axes, series_colours(values).items(), strict=True):
        own = paths[paths["folder"].isin(runs.loc[runs[by] == value, "folder"])]
        for axis, window in zip(row, windows, strict=True):
            part = own if window is None else own[own["epoch"] <= window]
            for _, path in part.sort_values("epoch").groupby("folder"):
                axis.plot(path["epoch"], path[name], color=colour, lw=0.9, alpha=0.6, marker="." if window else "")
            axis.set_yscale(scale)
        row[0].set_ylabel(f"{label(name)}\n{label(by)} = {value:g}")
    for axis, window in zip(axes[0], windows, strict=True):
        axis.set_title("all epochs" if window is None else f"first {window} epochs")
    for axis in axes[-1]:
        axis.set_xlabel(LABELS["epoch"])
    log_ticks(*axes[:, 0])
    return figure


def over_steps(runs: pd.DataFrame, history: pd.DataFrame, measure: str) -> Figure:
    """A measure over optimiser steps, both on a logarithmic axis: a panel a loss, a colour a batch size.

    Lines are means over seeds, bands one standard deviation, of the logarithm. (CBMM Memo 117, section J.2.)

    Args:
        runs: Finished runs with ``loss.name``, ``epochs``, ``steps`` and ``batch_size``; infinite is the whole training
            split.
        history: Table of :func:`ncflow.results.load_history`.
        measure: Of the training rows.
    """
    losses, colours = sorted(runs["loss.name"].unique()), series_colours(sorted(runs["batch_size"].unique()))
    size = (max(_NARROWEST, 5 * len(losses)), 3.6)
    figure, axes = plt.subplots(1, len(losses), figsize=size, squeeze=False, sharex=True, sharey=True)
    paths = last_layer(history)
    for axis, loss in zip(axes[0], losses, strict=True):
        for (batch_size, colour), width in zip(colours.items(), line_widths(len(colours)), strict=True):
            chosen = runs[(runs["loss.name"] == loss) & (runs["batch_size"] == batch_size)].set_index("folder")
            part = paths[paths["folder"].isin(chosen.index) & (paths["epoch"] > 0)]
            steps = part["epoch"] * part["folder"].map((chosen["steps"] / chosen["epochs"]).round())
            _band(axis, part.assign(step=steps), measure, "log", colour, "step", width)
        axis.set(title=loss.replace("_", " "), xlabel=LABELS["step"], xscale="log", yscale="log")
    axes[0][0].set_ylabel(label(measure))
    log_ticks(*axes[0])
    entries = [Line2D([], [], color=colour, label=_valued("batch_size", size)) for size, colour in colours.items()]
    bottom_legend(figure, entries)
    return figure


def norms_and_errors(runs: pd.DataFrame, by: str) -> Figure:
    """1/rho, the mean normalised margin and the test error against a setting, side by side; error bars over seeds.

    A colour is a weight decay. (CBMM Memo 117, figures 11 and 12.)

    Args:
        runs: Finished runs with ``train/rho``, ``train/normalized_margin_mean`` and ``test/accuracy``.
        by: Config column of the horizontal axis.
    """
    table = runs.assign(inverse=1 / runs["train/rho"], error=1 - runs["test/accuracy"])
    shown = {
        "inverse": "1/$\\rho$",
        "train/normalized_margin_mean": "mean margin / $\\rho$",
        "error": "test error",
    }
    figure, axes = plt.subplots(1, len(shown), figsize=(4.2 * len(shown), 3.5))
    colours = series_colours(sorted(table["weight_decay"].unique()))
    for axis, (measure, name) in zip(axes, shown.items(), strict=True):
        for (decay, colour), width in zip(colours.items(), line_widths(len(colours)), strict=True):
            found = over_seeds(table[table["weight_decay"] == decay], by, measure)
            axis.errorbar(found.index, found["mean"], found["std"], color=colour, lw=width, marker="o", capsize=2)
        axis.set(xlabel=label(by), ylabel=name)
        if measure != "error" and (table[measure] > 0).all() and table[measure].max() > 10 * table[measure].min():
            axis.set_yscale("log")
            log_ticks(axis)
        elif (table[measure] >= 0).all():
            axis.set_ylim(0, 1.1 * table[measure].max() or None)  # what hardly differs looks so
    bottom_legend(figure, series_entries("weight_decay", colours, marker="o"))
    return figure


def norm_against_accuracy(runs: pd.DataFrame, by: str) -> Figure:
    """Test accuracy against 1/rho, a point a setting with bars of a standard deviation over seeds both ways.

    (CBMM Memo 117, figure 12.)

    Args:
        runs: Finished runs with ``train/rho`` and ``test/accuracy``.
        by: Config column that tells the points apart.
    """
    figure, axis = plt.subplots(figsize=(5.2, 4.2))
    table = runs.assign(inverse=1 / runs["train/rho"])
    for index, ((decay, value), part) in enumerate(table.groupby(["weight_decay", by])):
        x, y = part["inverse"], part["test/accuracy"]
        name = f"{label(by)} = {value:g}, $\\lambda$ = {decay:g}"
        wide, high = (values.std() if len(values) > 1 else 0 for values in (x, y))
        colour, marker = SERIES[index % len(SERIES)], "os^Dv"[index // len(SERIES) % 5]
        axis.errorbar(x.mean(), y.mean(), high, wide, color=colour, marker=marker, capsize=2, ls="none", label=name)
    axis.set(xlabel="1/$\\rho$", ylabel="test accuracy")
    if table["inverse"].max() > 10 * table["inverse"].min():
        axis.set_xscale("log")
    else:
        axis.xaxis.set_major_locator(MaxNLocator(4))
    log_ticks(axis)
    handles, _ = axis.get_legend_handles_labels()
    bottom_legend(figure, handles)
    return figure
