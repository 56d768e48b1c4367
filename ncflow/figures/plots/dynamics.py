"""Norms, margins and errors of networks trained on the square loss (CBMM Memo 117)."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from ncflow.figures.plots.panels import bottom_legend, series_colours, series_entries
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
        columns: Config column of the columns; a batch size of 0 is the whole training split.
    """
    paths = with_test_error(history)
    paths = paths[paths["folder"].isin(runs["folder"])]
    # Two centred means are opposite whatever happens: what is 0 but for rounding says nothing.
    rows = [(measure, scale) for measure, scale in rows if paths[measure].max() > _ROUNDING]
    settings, colours = sorted(runs[columns].unique()), series_colours(sorted(runs[by].unique()))
    size = (4.6 * len(settings), 2.7 * len(rows))
    figure, axes = plt.subplots(len(rows), len(settings), figsize=size, squeeze=False, sharex="col", sharey="row")
    for column, setting in enumerate(settings):
        for value, colour in colours.items():
            chosen = runs[(runs[columns] == setting) & (runs[by] == value)]
            part = paths[paths["folder"].isin(chosen["folder"])]
            for row, (measure, scale) in enumerate(rows):
                _band(axes[row][column], part, measure, scale, colour)
        whole = columns == "batch_size" and setting == 0
        axes[0][column].set_title("full batches" if whole else f"{label(columns)} = {setting:g}")
        axes[-1][column].set_xlabel(LABELS["epoch"])
    for row, (measure, scale) in enumerate(rows):
        axes[row][0].set(ylabel=label(measure), yscale=scale)
    bottom_legend(figure, series_entries(by, colours))
    return figure


def _band(axis: Axes, part: pd.DataFrame, measure: str, scale: str, colour: str) -> None:
    table = part.pivot_table(index="epoch", columns="folder", values=measure)
    if table.empty:
        return
    values = np.log10(table.where(table > 0)) if scale == "log" else table
    middle, spread = values.mean(axis=1), values.std(axis=1).fillna(0)
    low, high = middle - spread, middle + spread
    if scale == "log":
        middle, low, high = 10**middle, 10**low, 10**high
    axis.plot(table.index, middle, color=colour)
    axis.fill_between(table.index, low, high, color=colour, alpha=0.2, lw=0)


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
        for decay, colour in colours.items():
            found = over_seeds(table[table["weight_decay"] == decay], by, measure)
            axis.errorbar(found.index, found["mean"], found["std"], color=colour, marker="o", capsize=2)
        axis.set(xlabel=label(by), ylabel=name)
        if measure != "error" and (table[measure] > 0).all() and table[measure].max() > 10 * table[measure].min():
            axis.set_yscale("log")
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
    handles, _ = axis.get_legend_handles_labels()
    bottom_legend(figure, handles)
    return figure


def sorted_margins(runs: pd.DataFrame, margins: pd.DataFrame, by: str) -> Figure:
    """Training margins at the end, sorted, divided by rho; mean over seeds, a column a weight decay, a colour ``by``.

    (CBMM Memo 117, figure 3.)

    Args:
        runs: Finished runs.
        margins: Table of :func:`ncflow.results.load_margins`.
        by: Config column of the colours.
    """
    quantiles = quantile_columns(margins)
    levels = [int(column[1:]) / 1000 for column in quantiles]
    final = margins.sort_values("step").groupby("folder").last()
    normalised = final[quantiles].div(final["rho"], axis=0)
    decays, colours = sorted(runs["weight_decay"].unique()), series_colours(sorted(runs[by].unique()))
    figure, axes = plt.subplots(1, len(decays), figsize=(4.8 * len(decays), 3.6), squeeze=False)
    for axis, decay in zip(axes[0], decays, strict=True):
        for value, colour in colours.items():
            folders = runs[(runs["weight_decay"] == decay) & (runs[by] == value)]["folder"]
            part = normalised.reindex(folders).dropna()
            axis.plot(levels, part.mean(), color=colour)
        axis.set(title=f"{LABELS['weight_decay']} = {decay:g}", xlabel="share of training samples")
    axes[0][0].set_ylabel("margin / $\\rho$")
    bottom_legend(figure, series_entries(by, colours))
    return figure


def margin_bands(margins: pd.DataFrame, along: str) -> Figure:
    """Distribution of one run's margins along epochs or steps: bands between quantiles, and rho beside it.

    (CBMM Memo 117, figures 4 and 5.)

    Args:
        margins: Rows of one run.
        along: ``epoch`` or ``step``.
    """
    rows = margins.drop_duplicates(along, keep="last").sort_values(along)
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.6, 3.8))
    for low, high, alpha in (("q000", "q1000", 0.15), ("q050", "q950", 0.25), ("q250", "q750", 0.4)):
        left.fill_between(rows[along], rows[low], rows[high], color=SERIES[0], alpha=alpha, lw=0)
    left.plot(rows[along], rows["q500"], color=SERIES[0])
    left.axhline(0, color="0.5", lw=1, ls=":")
    left.set(xlabel=LABELS[along], ylabel="training margin")
    right.plot(rows[along], rows["rho"], color=SERIES[1])
    right.set(xlabel=LABELS[along], ylabel=LABELS["rho"], yscale="log")
    entries = [
        Rectangle((0, 0), 1, 1, color=SERIES[0], alpha=alpha, label=share)
        for alpha, share in ((0.15, "all samples"), (0.3, "5 to 95 %"), (0.55, "25 to 75 %"))
    ]
    bottom_legend(figure, [*entries, Line2D([], [], color=SERIES[0], label="median")], inches=1.6)
    return figure


def quantile_columns(margins: pd.DataFrame) -> list[str]:
    """The quantiles' columns, from the least to the largest."""
    found = [column for column in map(str, margins) if column[:1] == "q" and column[1:].isdigit()]
    return sorted(found, key=lambda column: int(column[1:]))
