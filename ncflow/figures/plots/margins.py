"""Distributions of the margins of training samples, divided by rho, at the end and over training (CBMM Memo 117)."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from ncflow.figures.plots.panels import bottom_legend, line_widths, log_ticks, series_colours, series_entries
from ncflow.figures.style import LABELS, SERIES

_MARGIN = "margin / $\\rho$"
_MOMENTS = 9  # histograms in a panel
_BINS = 80
_MASS = 0.95  # of the samples at a moment lie between the limits of the histograms, but for early moments
_WIDE = 20  # times the width at the end: the histograms of moments that are wider go beyond the limits


def sorted_margins(runs: pd.DataFrame, margins: pd.DataFrame, by: str) -> Figure:
    """Training margins at the end, sorted, divided by rho; mean over seeds, a column a weight decay, a colour ``by``.

    (CBMM Memo 117, figure 3.)

    Args:
        runs: Finished runs.
        margins: Table of :func:`ncflow.results.load_margins`.
        by: Config column of the colours.
    """
    final = normalised(margins.sort_values("step").groupby("folder").last())
    levels = _levels(margins)
    decays, colours = sorted(runs["weight_decay"].unique()), series_colours(sorted(runs[by].unique()))
    size = (4.8 * len(decays), 3.6)
    figure, axes = plt.subplots(1, len(decays), figsize=size, squeeze=False, sharey=True)
    for axis, decay in zip(axes[0], decays, strict=True):
        for (value, colour), width in zip(colours.items(), line_widths(len(colours)), strict=True):
            folders = runs[(runs["weight_decay"] == decay) & (runs[by] == value)]["folder"]
            part = final.reindex(folders).dropna()
            axis.plot(levels, part.mean(), color=colour, lw=width)
        axis.set(title=f"{LABELS['weight_decay']} = {decay:g}", xlabel="share of training samples")
    axes[0][0].set_ylabel(_MARGIN)
    bottom_legend(figure, series_entries(by, colours))
    return figure


def margins_over_time(margins: pd.DataFrame, along: str) -> Figure:
    """Distribution of one run's normalised margins along epochs or steps: histograms, bands, and rho beside them.

    (CBMM Memo 117, figures 4 and 5.)

    Args:
        margins: Rows of one run, of two moments or more.
        along: ``epoch`` or ``step``.
    """
    rows = margins.drop_duplicates(along, keep="last").sort_values(along)
    table, moments = normalised(rows), rows[along].to_numpy(float)
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(13.2, 3.9))
    _draw_histograms(figure, left, table.to_numpy(float), _levels(rows), moments, along)
    for low, high, alpha in (("q000", "q1000", 0.15), ("q050", "q950", 0.25), ("q250", "q750", 0.4)):
        middle.fill_between(moments, table[low], table[high], color=SERIES[0], alpha=alpha, lw=0)
    middle.plot(moments, table["q500"], color=SERIES[0])
    middle.axhline(0, color="0.5", lw=1, ls=":")
    middle.set(xlabel=LABELS[along], ylabel=f"training {_MARGIN}")
    right.plot(moments, rows["rho"], color=SERIES[1])
    right.set(xlabel=LABELS[along], ylabel=LABELS["rho"], yscale="log")
    log_ticks(right)
    entries = [
        Rectangle((0, 0), 1, 1, color=SERIES[0], alpha=alpha, label=share)
        for alpha, share in ((0.15, "all samples"), (0.3, "5 to 95 %"), (0.55, "25 to 75 %"))
    ]
    bottom_legend(figure, [*entries, Line2D([], [], color=SERIES[0], label="median")])
    return figure


def _draw_histograms(
    figure: Figure, axis: Axes, quantiles: np.ndarray, levels: np.ndarray, moments: np.ndarray, along: str
) -> None:
    """Histograms at some moments, from dark to yellow; they are made of the quantiles (moments, levels)."""
    if along == "epoch":
        wanted = np.linspace(moments[0], moments[-1], _MOMENTS)
        shown = np.unique(np.abs(moments[:, None] - wanted).argmin(0))
    else:  # the steps are evenly spaced in their logarithm
        shown = np.unique(np.linspace(0, len(moments) - 1, _MOMENTS).round().astype(int))
    low, high = histogram_limits(quantiles[shown], levels)
    edges = np.linspace(low, high, _BINS + 1)
    colours = ScalarMappable(Normalize(0, len(shown) - 1), "viridis")
    for place, colour in zip(shown, colours.to_rgba(np.arange(len(shown))), strict=True):
        axis.stairs(histogram(quantiles[place], levels, edges), edges, color=colour, lw=1.4)
    axis.set(xlabel=f"training {_MARGIN}", ylabel="share of the samples", xlim=(low, high), ylim=(0, None))
    axis.axvline(0, color="0.5", lw=1, ls=":")
    bar = figure.colorbar(colours, ax=axis, label=LABELS[along])
    bar.set_ticks(range(len(shown)), labels=[f"{moments[place]:g}" for place in shown])


def histogram(quantiles: np.ndarray, levels: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Share of the samples in each bin, spread evenly between neighbouring quantiles.

    Args:
        quantiles: In rising order, some may coincide, (Q,).
        levels: Of the quantiles, from 0 to 1, (Q,).
        edges: Of the bins, (B + 1,).
    """
    return np.diff(np.interp(edges, quantiles, levels, left=0, right=1))


def histogram_limits(quantiles: np.ndarray, levels: np.ndarray) -> tuple[float, float]:
    """Limits in which most samples of each moment (rows) lie, of those that are not far wider than the last."""
    inside = quantiles[:, (levels >= (1 - _MASS) / 2) & (levels <= (1 + _MASS) / 2)]
    widths = inside[:, -1] - inside[:, 0]
    reach = np.maximum(np.abs(inside[:, 0]), np.abs(inside[:, -1]))
    near = (widths <= _WIDE * widths[-1]) & (reach <= _WIDE * reach[-1])
    near[-1] = True
    low, high = float(inside[near].min()), float(inside[near].max())
    edge = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    return low - edge, high + edge


def normalised(margins: pd.DataFrame) -> pd.DataFrame:
    """The quantiles of margins divided by rho, from the least to the largest."""
    return margins[quantile_columns(margins)].div(margins["rho"], axis=0)


def _levels(margins: pd.DataFrame) -> np.ndarray:
    return np.array([int(column[1:]) / 1000 for column in quantile_columns(margins)])


def quantile_columns(margins: pd.DataFrame) -> list[str]:
    """The quantiles' columns, from the least to the largest."""
    found = [column for column in map(str, margins) if column[:1] == "q" and column[1:].isdigit()]
    return sorted(found, key=lambda column: int(column[1:]))
