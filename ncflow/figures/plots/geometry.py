"""Features of three classes in 3-D as they collapse to a simplex (Pan, Cao, figure 1)."""

import io
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from mpl_toolkits.mplot3d import Axes3D
from numpy.typing import NDArray
from PIL import Image
from scipy.linalg import orthogonal_procrustes

from ncflow.figures.files import MAKER
from ncflow.figures.plots.panels import bottom_legend
from ncflow.figures.style import SERIES, fold, literal
from ncflow.results import Snapshot
from ncflow.theory.simplex import simplex_etf

Points = NDArray[np.float64]


@dataclass(frozen=True)
class View:
    """A snapshot in the picture's three coordinates, lengths relative to the features' root mean square."""

    epoch: int
    features: Points  # (n, 3)
    labels: NDArray[np.int64]  # (n,)
    means: Points  # (3, 3)
    weights: Points  # (3, 3)
    simplex: Points  # (3, 3)


def views(snapshots: Sequence[Snapshot]) -> list[View]:
    """Project the snapshots of a run of three classes to the same three axes.

    The first two span the centred class means at the end, where they are to form the simplex; the third is the
    direction outside of that plane in which the features of all snapshots together vary most. The simplex is turned to
    fit the final means. Features are centred and divided by their root mean square norm, epoch by epoch; classifier
    rows are centred and scaled as a whole to the same size.
    """
    axes = _axes(snapshots)
    final = snapshots[-1]
    corners = simplex_etf(3, 3)
    turn, _ = orthogonal_procrustes(corners, _unit(_centred(final.means, final.means.mean(0)) @ axes.T))
    simplex = corners @ turn
    found = []
    for snapshot in snapshots:
        H = _centred(snapshot.features, snapshot.center)
        scale = np.sqrt(np.square(H).sum(1).mean()) or 1.0
        W = _centred(snapshot.weight, snapshot.weight.mean(0))
        weights = W / (np.sqrt(np.square(W).sum(1).mean()) or 1.0)
        means = _centred(snapshot.means, snapshot.center) / scale
        found.append(
            View(snapshot.epoch, H @ axes.T / scale, snapshot.labels, means @ axes.T, weights @ axes.T, simplex)
        )
    return found


def _centred(points: NDArray[np.float32], center: NDArray[np.float32]) -> Points:
    return points.astype(np.float64) - center.astype(np.float64)


def _unit(rows: Points) -> Points:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def _axes(snapshots: Sequence[Snapshot]) -> Points:
    """Orthonormal rows (3, d)."""
    final = snapshots[-1]
    plane = np.linalg.svd(_centred(final.means, final.means.mean(0)), full_matrices=False)[2][:2]
    rest = []
    for snapshot in snapshots:
        H = _centred(snapshot.features, snapshot.center)
        H = H - H @ plane.T @ plane
        rest.append(H / (np.linalg.norm(H) or 1.0))
    third = np.linalg.svd(np.concatenate(rest), full_matrices=False)[2][:1]
    return np.concatenate([plane, third])


def _draw(axis: Axes3D, view: View) -> None:
    axis.clear()
    outline = view.simplex[[0, 1, 2, 0]]
    axis.plot(*outline.T, ":", color="0.4", lw=1.2)
    axis.plot((0, 0), (0, 0), (-0.7, 0.7), color="0.85", lw=1, zorder=0)
    for label, colour in enumerate(SERIES[:3]):
        x, y, z = view.features[view.labels == label].T
        axis.scatter(x, y, z, s=9, color=colour, alpha=0.6, linewidths=0)
        mean, weight = view.means[label], view.weights[label]
        axis.plot(*zip((0, 0, 0), mean, strict=True), color=colour, lw=2.6)
        axis.plot(*mean[:, None], "o", color=colour, mec="black", ms=6)
        axis.plot(*zip((0, 0, 0), weight, strict=True), color=colour, lw=1.4, ls="--")
        axis.plot(*weight[:, None], "s", color=colour, mfc="white", ms=6)
    axis.set(xlim=(-1.1, 1.1), ylim=(-1.1, 1.1), zlim=(-1.1, 1.1))
    axis.set_axis_off()
    axis.set_title(f"epoch {view.epoch}", y=0.94)
    axis.set_box_aspect((1, 1, 1), zoom=1.7)
    axis.view_init(elev=50, azim=-60)


def _legend(figure: Figure) -> None:
    entries = [
        Line2D([], [], color="0.3", marker=".", ls="none", label="features"),
        Line2D([], [], color="0.3", marker="o", lw=2.6, label="class means"),
        Line2D([], [], color="0.3", marker="s", mfc="white", ls="--", label="classifier rows"),
        Line2D([], [], color="0.4", ls=":", label="simplex"),
    ]
    bottom_legend(figure, entries)


def collapse_in_space(snapshots: Sequence[Snapshot], count: int = 4) -> Figure:
    """Panels at up to ``count`` epochs: the first, the last, and between them those that divide the collapse evenly."""
    drawn = views(snapshots)
    chosen = _spread([_scatter(view) for view in drawn], count)
    figure = plt.figure(figsize=(3.3 * len(chosen), 3.4))
    for place, index in enumerate(chosen):
        axis = figure.add_subplot(1, len(chosen), place + 1, projection="3d")
        assert isinstance(axis, Axes3D)
        _draw(axis, drawn[index])
    _legend(figure)
    return figure


def _scatter(view: View) -> float:
    """Root mean square distance of the features to their class means."""
    return float(np.sqrt(np.square(view.features - view.means[view.labels]).sum(1).mean()))


def _spread(scatter: Sequence[float], count: int) -> list[int]:
    """First, last, and those between whose scatter comes nearest to equal ratios, each once and in order."""
    last = len(scatter) - 1
    logs = np.log(np.maximum(scatter, 1e-9))
    levels = np.linspace(logs[0], logs[last], min(count, last + 1))[1:-1]
    inner = {int(np.argmin(np.abs(logs - level))) for level in levels}
    return sorted({0, last} | inner)


def animate(snapshots: Sequence[Snapshot], heading: str = "", most_frames: int = 60) -> bytes:
    """GIF of the snapshots one after the other, the last one for two seconds; of many every second one, or third."""
    drawn = views(snapshots)
    step = -(-len(drawn) // most_frames)
    shown = drawn[::-1][::step][::-1]  # the last one always
    figure = plt.figure(figsize=(4.6, 4.9))
    figure.suptitle(literal(fold(heading, 4.2)), fontsize=10)
    axis = figure.add_subplot(projection="3d")
    assert isinstance(axis, Axes3D)
    _legend(figure)
    frames = []
    for view in shown:
        _draw(axis, view)
        page = io.BytesIO()
        figure.savefig(page, format="png", dpi=80)
        frames.append(Image.open(page).convert("P", palette=Image.Palette.ADAPTIVE, colors=64))
    movie = io.BytesIO()
    times = [120] * (len(frames) - 1) + [2000]
    frames[0].save(movie, "GIF", save_all=True, append_images=frames[1:], duration=times, loop=0, comment=MAKER)
    return movie.getvalue()


def classes_in_the_plane(snapshot: Snapshot) -> Figure:
    """Inputs of two numbers coloured by class, and the rays from the origin at which the class changes.

    (Pan's thesis, figure 3.2.)

    Args:
        snapshot: One with ``inputs`` (n, 2).
    """
    figure, axis = plt.subplots(figsize=(4.8, 5.0))
    for label in np.unique(snapshot.labels):
        x, y = snapshot.inputs[snapshot.labels == label].T
        axis.plot(x, y, ".", color=SERIES[label % len(SERIES)], ms=4, label=f"class {label}")
    angles = np.arctan2(snapshot.inputs[:, 1], snapshot.inputs[:, 0])
    order = np.argsort(angles)
    turns = np.flatnonzero(snapshot.labels[order] != np.roll(snapshot.labels[order], -1))
    reach = 1.1 * float(np.abs(snapshot.inputs).max())
    for turn in turns:
        here, there = angles[order[turn]], angles[order[(turn + 1) % len(order)]]
        middle = here + ((there - here) % (2 * np.pi)) / 2
        axis.plot([0, reach * np.cos(middle)], [0, reach * np.sin(middle)], color="black", lw=1.4)
    axis.axhline(0, color="0.7", lw=0.8)
    axis.axvline(0, color="0.7", lw=0.8)
    axis.set(xlabel="$x_1$", ylabel="$x_2$", aspect="equal", xlim=(-reach, reach), ylim=(-reach, reach))
    handles, _ = axis.get_legend_handles_labels()
    bottom_legend(figure, handles)
    return figure
