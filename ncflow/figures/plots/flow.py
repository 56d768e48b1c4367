"""The toy model of the square loss in pictures: landscape, valley, norm, margins (CBMM Memo 117, figures 7 to 10)."""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from mpl_toolkits.mplot3d import Axes3D

from ncflow.figures.papers.drawing import Drawing
from ncflow.figures.plots.panels import bottom_legend, grid, series_colours
from ncflow.figures.style import SERIES
from ncflow.theory.toy_model.flow import Trajectory
from ncflow.theory.toy_model.landscape import CircleNetwork, landscape
from ncflow.theory.toy_model.norm import equal_growth_rho, logistic_rho

# Starts (rho, v) on the slopes, at the top, and beyond the valley.
_STARTS = ((0.3, 0.9), (0.3, 2.4), (0.3, 4.2), (5.5, 0.8), (5.5, 2.6))
_LARGEST_RHO = 6.0
_HIGHEST = 1.3
# Long enough for the drift along the valley, whose rate is of the order of lambda.
_TIMES = np.concatenate([[0], np.geomspace(1e-3, 5000, 500)])


def drawings(paths: Mapping[tuple[float, float], Trajectory], weight_decay: float) -> Iterator[Drawing]:
    """All pictures of the toy model.

    Args:
        paths: A trajectory for each (rho at the start, lambda).
        weight_decay: lambda of the landscapes.
    """
    yield Drawing(
        "landscape", partial(surfaces, weight_decay), "Loss over rho and v, with paths of gradient flow (fig. 7, 8)."
    )
    yield Drawing("valley", partial(valley, weight_decay), "The valley of zero loss from above (fig. 9).")
    yield Drawing("rho", partial(norms, paths), "rho over time for several initial norms.")
    yield Drawing("margins", partial(margins, paths), "Every sample's margin over time.")
    # Margins of 0.1 each, so that rho_0 = 10.
    yield Drawing("logistic", partial(growth, 0.1, 0.01), "rho of eq. 51 for fixed mu and M (fig. 10).")


def surfaces(weight_decay: float) -> Figure:
    """The loss over (rho cos v, rho sin v) for a linear network and one with a ReLU, with paths of gradient flow.

    Args:
        weight_decay: lambda of the paths and the surface.
    """
    figure = plt.figure(figsize=(11, 4.8))
    for column, network in enumerate((CircleNetwork(bend=None), CircleNetwork()), start=1):
        axis: Any = figure.add_subplot(1, 2, column, projection="3d", computed_zorder=False)
        _surface(axis, network, weight_decay)
        for colour, (rho, angle) in zip(SERIES, _STARTS, strict=False):
            norms, angles = network.flow(rho, angle, _TIMES, weight_decay)
            height = landscape(norms, network.margin(angles), weight_decay)
            x, y = norms * np.cos(angles), norms * np.sin(angles)
            seen = height <= _HIGHEST
            axis.plot(x[seen], y[seen], height[seen] + 0.01, color=colour, lw=2, zorder=3)
            axis.plot(x[-1:], y[-1:], height[-1:] + 0.01, "o", color=colour, mec="white", zorder=4)
        axis.set(
            title="linear" if network.bend is None else "ReLU",
            xlabel=r"$\rho\,\cos v$",
            ylabel=r"$\rho\,\sin v$",
            zlabel="loss",
        )
        axis.set(zlim=(0, _HIGHEST))
        axis.view_init(elev=52, azim=-50)
        axis.set_box_aspect((1, 1, 0.5), zoom=0.95)
    figure.suptitle(rf"Loss with $\lambda = {weight_decay:g}$, gradient flow from five starts (dot: end)")
    return figure


def _surface(axis: Axes3D, network: CircleNetwork, weight_decay: float) -> None:
    share, angle = np.meshgrid(np.linspace(0, 1, 81), np.linspace(-np.pi, np.pi, 241))
    f = network.margin(angle)
    # The walls beyond the valley rise as rho^2 and would hide it: each ray ends where it has reached the top.
    curve = np.square(f) + weight_decay + 1e-12
    top = (f + np.sqrt(np.square(f) + curve * (_HIGHEST - 1))) / curve
    rho = share * np.minimum(top, _LARGEST_RHO)
    height = landscape(rho, f, weight_decay)
    x, y = rho * np.cos(angle), rho * np.sin(angle)
    axis.plot_surface(
        x, y, height, cmap="cividis", vmin=0, vmax=_HIGHEST, rcount=120, ccount=120, lw=0, alpha=0.85, zorder=1
    )


def valley(weight_decay: float) -> Figure:
    """The ReLU network's loss from above: zero along a line, and where gradient flow ends on it with and without decay.

    Args:
        weight_decay: lambda of the right panel; the left one has none.
    """
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.4), sharey=True)
    network = CircleNetwork()
    angles = np.linspace(-0.4, 2 * np.pi - 0.4, 481)
    rho, angle = np.meshgrid(np.linspace(0.01, _LARGEST_RHO, 200), angles)
    coast = 1 / network.margin(angles)
    levels = np.linspace(0, _HIGHEST, 27)
    for axis, decay in zip(axes, (0.0, weight_decay), strict=True):
        height = landscape(rho, network.margin(angle), decay)
        filled = axis.contourf(angle, rho, height, levels=levels, cmap="cividis", extend="max")
        axis.plot(angles, coast, color="white", lw=1.4, ls="--")
        for start in ((0.3, 0.9), (0.3, 2.4), (0.3, 4.2), (5.5, 0.8), (5.5, 2.6), (5.5, 3.8), (5.5, 4.9)):
            norms, turned = network.flow(*start, _TIMES, decay)
            axis.plot(turned, norms, color="white", lw=3)
            axis.plot(turned, norms, color="black", lw=1.5)
            axis.plot(turned[-1:], norms[-1:], "o", color="black", mec="white", zorder=4)
        best = angles[np.argmin(coast)]
        axis.plot([best], [coast.min()], "*", color=SERIES[1], mec="white", ms=15, zorder=5)
        axis.set(title=rf"$\lambda = {decay:g}$", xlabel="$v$ (radians)", ylim=(0, _LARGEST_RHO), xlim=angles[[0, -1]])
        axis.grid(False)
    axes[0].set_ylabel(r"$\rho$")
    figure.colorbar(filled, ax=axes, label="loss", shrink=0.9)
    entries = [
        Line2D([], [], color="0.5", ls="--", label=r"zero loss without decay, $\rho = 1/\bar f(v)$ (white)"),
        Line2D([], [], color="black", marker="o", label="gradient flow (dot: end)"),
        Line2D([], [], color=SERIES[1], marker="*", ms=12, ls="none", label="least norm that interpolates"),
    ]
    bottom_legend(figure, entries)
    return figure


def norms(paths: Mapping[tuple[float, float], Trajectory]) -> Figure:
    """rho(t) and the square error for several initial norms (colours), a column a weight decay.

    Args:
        paths: A trajectory for each (rho at the start, lambda).
    """
    starts, decays = _sorted(paths)
    colours = series_colours(starts)
    figure, table = plt.subplots(
        2, len(decays), figsize=(5.2 * len(decays), 5.6), squeeze=False, sharex=True, sharey="row"
    )
    for column, decay in zip(table.T, decays, strict=True):
        for start, colour in colours.items():
            path = paths[start, decay]
            column[0].plot(path.time, path.rho, color=colour)
            # Below 1e-13 it is the error of the solver.
            column[1].plot(path.time, path.square_error.clip(min=1e-13), color=colour)
        column[0].set(title=rf"$\lambda = {decay:g}$", yscale="log")
        column[1].set(xlabel="time", yscale="log")
        _time_axis(column[1], path)
    table[0, 0].set_ylabel(r"norm $\rho$")
    table[1, 0].set_ylabel("mean square error")
    entries = [Line2D([], [], color=c, label=rf"$\rho(0) = {start:g}$") for start, c in colours.items()]
    bottom_legend(figure, entries)
    return figure


def margins(paths: Mapping[tuple[float, float], Trajectory]) -> Figure:
    """Margins of all samples over time: a panel for each initial norm and weight decay.

    Args:
        paths: A trajectory for each (rho at the start, lambda).
    """
    starts, decays = _sorted(paths)
    cells = [(start, decay) for decay in decays for start in starts]
    figure, axes = grid(len(cells), columns=len(starts), width=3.6, height=2.9)
    for axis, (start, decay) in zip(axes, cells, strict=True):
        path = paths[start, decay]
        axis.plot(path.time, path.margins, color=SERIES[0], lw=0.9, alpha=0.6)
        axis.plot(path.time, 1 / path.rho, color=SERIES[1], ls="--")
        # 1/rho of a small start would flatten all margins
        axis.set_ylim(*_limits(path))
        axis.set(title=rf"$\rho(0) = {start:g}$, $\lambda = {decay:g}$")
        _time_axis(axis, path)
    for axis in axes[:: len(starts)]:
        axis.set_ylabel(r"margin $\bar f_n$")
    for axis in axes[-len(starts) :]:
        axis.set_xlabel("time")
    entries = [
        Line2D([], [], color=SERIES[0], lw=0.9, label="a sample"),
        Line2D([], [], color=SERIES[1], ls="--", label=r"$1/\rho$, the margin of interpolation"),
    ]
    bottom_legend(figure, entries)
    return figure


def _limits(path: Trajectory) -> tuple[float, float]:
    low, high = float(path.margins.min()), float(path.margins.max())
    return low - 0.08 * (high - low), high + 0.15 * (high - low)


def growth(mean: float, second_moment: float) -> Figure:
    """rho(t) for fixed mu and M: the logistic curve of two layers from several starts, and other depths.

    Args:
        mean: mu > 0.
        second_moment: M > 0.
    """
    figure, (starts, depths) = plt.subplots(1, 2, figsize=(10, 4), sharey=True)
    limit = mean / second_moment
    times = np.linspace(0, 4 / mean, 400)
    for colour, share in zip(SERIES, (0.001, 0.01, 0.1, 0.5, 1.5), strict=False):
        curve = logistic_rho(times, share * limit, mean, second_moment)
        starts.plot(times, curve, color=colour, label=rf"$\rho(0) = {share * limit:.3g}$")
    starts.set(title=r"two layers: $\dot\rho = 4\rho(\mu - \rho M)$", ylabel=r"norm $\rho$")
    for colour, layers in zip(SERIES, (1, 2, 3, 5), strict=False):
        curve = equal_growth_rho(times, 0.02 * limit, mean, second_moment, layers=layers)
        depths.plot(times, curve, color=colour, label=f"L = {layers}")
    depths.set(title=rf"$\dot\rho = 2L\rho^{{2-2/L}}(\mu - \rho M)$, $\rho(0) = {0.02 * limit:.3g}$")
    for axis in (starts, depths):
        axis.axhline(limit, color="0.5", lw=1, ls=":")
        axis.annotate(
            rf"$\mu/M = {limit:.3g}$",
            (times[-1], limit),
            xytext=(0, 3),
            textcoords="offset points",
            ha="right",
            fontsize=8,
            color="0.35",
        )
        axis.set_xlabel("time")
        axis.legend(loc="lower right")
    return figure


def _sorted(paths: Mapping[tuple[float, float], Trajectory]) -> tuple[list[float], list[float]]:
    """Initial norms and weight decays, each in order."""
    return sorted({start for start, _ in paths}), sorted({decay for _, decay in paths})


def _time_axis(axis: Axes, path: Trajectory) -> None:
    """Logarithmic from the first reported time on."""
    axis.set_xscale("log")
    axis.set_xlim(path.time[1], path.time[-1])
