"""Every figure of every experiment, rendered: by matplotlib's own extents no words run over others or out of it."""

import io
import itertools
import os
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.path import Path as Outline
from matplotlib.text import Text
from PIL import Image

from ncflow.figures import style
from ncflow.figures.files import render
from ncflow.figures.papers.figures import FIGURES, choose, drawings
from ncflow.figures.tables import once
from tests.figures.planted_experiments import EXPERIMENTS, planted


def words_of(figure):
    """(words, corners of what they cover) of each text that is seen, in points of the canvas, turned as they are."""
    found, hidden = [], _hidden(figure)
    for text in figure.findobj(Text):
        if not text.get_text().strip() or not text.get_visible() or id(text) in hidden:
            continue
        turned, angle = text.get_window_extent(), text.get_rotation()
        text.set_rotation(0)
        box = text.get_window_extent()
        text.set_rotation(angle)
        middle = (np.array([turned.x0 + turned.x1, turned.y0 + turned.y1]) / 2)[None]
        half = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * (np.array([box.width, box.height]) / 2 - 1)
        cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
        found.append((text.get_text(), middle + half @ np.array([[cos, sin], [-sin, cos]])))
    return found


def _hidden(figure):
    """The words that nobody sees: ticks are made beyond an axis, too, and axes may be off."""
    hidden = set()
    for axes in figure.axes:
        for place, axis in enumerate((axes.xaxis, axes.yaxis)):
            low, high = sorted(axis.get_view_interval())
            off = not (axes.get_visible() and axes.axison and axis.get_visible())
            for label in (*axis.get_ticklabels(), *axis.get_ticklabels(minor=True)):
                if off or not low <= label.get_position()[place] <= high:
                    hidden.add(id(label))
            if off:
                hidden |= {id(axis.label), id(axis.offsetText)}
        if not axes.axison and hasattr(axes, "zaxis"):
            hidden |= {id(text) for axis in (axes.xaxis, axes.yaxis, axes.zaxis) for text in axis.findobj(Text)}
    return hidden


def assert_is_tidy(figure, name):
    figure.draw_without_rendering()
    (width, height), words = figure.bbox.size, words_of(figure)
    for text, corners in words:
        assert (corners >= 0).all(), f"{name}: {text!r} leaves the canvas: {corners.min(0)}"
        assert (corners <= [width, height]).all(), f"{name}: {text!r} leaves the canvas of {width} x {height}"
    outlines = [(text, Outline(np.vstack([corners, corners[:1]])), corners) for text, corners in words]
    for (one, first, a), (other, second, b) in itertools.combinations(outlines, 2):
        near = (a.max(0) >= b.min(0)).all() and (b.max(0) >= a.min(0)).all()
        assert not near or not first.intersects_path(second, filled=True), f"{name}: {one!r} runs over {other!r}"
    for legend in figure.legends:
        box = legend.get_window_extent()
        assert min(box.x0, box.y0) >= 0, f"{name}: the legend leaves the canvas"
        assert (box.x1, box.y1) <= (width, height), f"{name}: the legend leaves the canvas"
        for axes in figure.axes:
            assert not axes.get_visible() or box.y1 <= axes.bbox.y0 + 1, f"{name}: the legend is over a panel"


def assert_are_tidy(runs, history, folder, only=()):
    """Draw every figure but the gap, which looks alike in all, or those named.

    ``NCFLOW_PICTURES=FOLDER`` keeps them, to be looked at.
    """
    style.use()
    found = list(drawings(runs, history))
    asked = {name for names in runs["figures"] for name in names}
    assert {name for name in asked if not any(drawing.name.startswith(name) for drawing in found)} == set()
    for drawing in {drawing.name: drawing for drawing in found}.values():
        if drawing.name not in only if only else drawing.name == "gap":
            continue
        if drawing.is_animation:
            picture = Image.open(io.BytesIO(drawing.content))
            assert picture.n_frames == 2
            continue
        assert drawing.heading
        assert_is_tidy(drawing.content, drawing.name)
        kept = os.environ.get("NCFLOW_PICTURES", "")
        if kept:
            (Path(kept) / folder).mkdir(parents=True, exist_ok=True)
            (Path(kept) / folder / f"{drawing.name}.png").write_bytes(render(drawing.content, "png"))
        plt.close("all")
    return found


# One of those that have the same figures, and large ones, of more panels, instead of the small.
_LARGE = ("pan_cao/fig2", "pan_cao/fig4", "pan_cao/fig5", "pan_cao/fig6", "pan_thesis/fig3_3", "cbmm_117/fig3")
_LARGE = (*_LARGE, "cbmm_117/fig12")
_TWICE = ("cbmm_117/fig5", "cbmm_117/fig13", "cbmm_117/fig16", "cbmm_117/fig17")
_TWICE = (*_TWICE, "optimizers/vgg11_mnist", "optimizers/vgg11_fashion_mnist", "optimizers/vit_cifar10")
RENDERED = [
    name
    for name in EXPERIMENTS
    if name in (*_LARGE, "quickstart", "pan_cao/layer_peeled")
    or (name.endswith("_small") and name.removesuffix("_small") not in (*_LARGE, *_TWICE))
]


@pytest.mark.parametrize("experiment", RENDERED)
def test_no_words_run_over_others_or_out_of_the_picture(experiment, tmp_path):
    runs, history = planted(experiment, tmp_path)
    assert_are_tidy(runs, history, experiment)


def test_any_experiments_are_drawn_together(tmp_path):
    """All in one, of which the figures with a panel a setting are tidy; any two, which are planned."""
    parts = [planted(experiment, tmp_path / experiment) for experiment in RENDERED]

    def together(chosen):
        runs, _ = once(pd.concat([runs for runs, _ in chosen], ignore_index=True))
        return runs, pd.concat([history for _, history in chosen], ignore_index=True)

    assert_are_tidy(*together(parts), "all", ("fig2", "fig4", "fig5", "fig6", "fig3_1", "gap"))
    asked = {name for runs, _ in parts for name in runs["figures"].iloc[0]}
    assert asked == set(FIGURES) - {"measured"}  # which is of models from elsewhere
    for one, other in itertools.combinations(parts, 2):
        runs, history = together([one, other])
        for _, recipe, suited in choose(runs, history):
            list(recipe(suited, history))


@pytest.mark.parametrize("count", [1, 3])
def test_models_from_elsewhere_have_a_heading_and_a_figure_over_their_layers(count, tmp_path):
    runs, history = planted("pan_thesis/fig3_3_small", tmp_path)
    runs = runs.iloc[:count].assign(figures=[["measured"]] * min(count, len(runs))).drop(columns="seed")
    runs["model.name"] = "a_model_$of_mine"
    order = ["conv_$1", "backbone.stages.2.blocks.17.mlp.fc2", "layers.0", "last"]
    named = {f"layers.{number}": order[number] for number in range(3)}
    own = history[~history["layer"].isin(["layers.3", "layers.4"])].replace({"layer": named})
    found = {drawing.name: drawing for drawing in assert_are_tidy(runs, own, f"measured_{count}")}
    assert list(found) == ["measured", "measured_layers"]
    models = f"{len(runs)} model{'s' * (len(runs) > 1)}"
    for drawing in found.values():
        assert drawing.heading == f"labelled by a small MLP; {models}"
    axes = found["measured_layers"].content.axes
    assert len({axis.get_title() for axis in axes[: 2 * count]}) == 2 * count
    axis = axes[0]
    assert [text.get_text() for text in axis.get_xticklabels()] == [
        "conv_\\$1",
        "…blocks.17.mlp.fc2",
        "layers.0",
        "last",
    ]
    end = own[(own["folder"] == runs["folder"].iloc[0]) & (own["split"] == "test")]
    end = end[end["epoch"] == end["epoch"].max()].set_index("layer").reindex(order)
    intra = next(line for line in axis.lines if line.get_linestyle() == "-")
    assert intra.get_ydata().tolist() == end["intra_min"].tolist()
    only_last = own[own["layer"] == "last"]
    assert [drawing.name for drawing in drawings(runs, only_last)] == ["measured"]
