"""Figures and conjectures of the thesis, on tables whose right answer is known."""

import itertools

import numpy as np
import pandas as pd
import pytest

from ncflow.checks import ArgumentError
from ncflow.figures import style
from ncflow.figures.papers.as_words import numbers
from ncflow.figures.papers.figures import drawings
from ncflow.figures.papers.pan_thesis.claims import (
    CLAIMS,
    collapse_improves_with_decay,
    collapse_sharpens_with_depth,
    decay_harms_without_bn,
    effective_depth_falls_with_decay,
    only_affine_bn_collapses,
)
from ncflow.figures.papers.verdict import Answer
from ncflow.figures.plots.geometry import classes_in_the_plane
from ncflow.figures.tables import SPREAD, last_rows
from ncflow.results import COLUMNS, Snapshot, load_history, load_runs, write_json
from ncflow.theory.depth import effective_depth

DECAYS = (1e-4, 1e-3, 1e-2)
KINDS = {"affine": ("all", True, None), "non_affine": ("all", False, 1), "none": ("none", True, None)}
LAYERS = [*(f"layers.{index}" for index in range(4)), "last"]


def sweep(
    root, kinds=("affine",), seeds=2, slope=0.05, step=0.1, depth_falls=True, experiment="pan_thesis/fig3_3", raw=None
):
    """Runs whose D = min intra - max inter rises by ``slope`` a decade of weight decay and ``step`` a layer.

    The uncentred cosines are larger by ``raw``; None for runs that have not measured them.
    """
    for kind, (index, decay), seed in itertools.product(kinds, enumerate(DECAYS), range(seeds)):
        norm, affine, gamma = KINDS[kind]
        end = {"affine": 0.8, "non_affine": 0.5, "none": 0.4}[kind] + slope * index
        folder = root / f"{kind}-{decay:g}-{seed}"
        config = {"model.norm": norm, "model.affine": affine, "model.gamma": gamma, "data.name": "conic_hull"}
        config["loss.name"] = "cross_entropy"
        values = {"experiment": experiment, "seed": seed, "weight_decay": decay, "model.name": "mlp", **config}
        folder.mkdir(parents=True)
        measures = {"intra_min": end, "inter_max": 0.0, "interpolated": 1.0, "classes_present": 4.0}
        measures |= {} if raw is None else {"intra_raw_min": end + raw, "inter_raw_max": raw}
        named = {f"train/{name}": value for name, value in measures.items()}
        write_json(folder / "result.json", {**values, "status": "done", "seconds": 1.0, **named})
        rows = pd.DataFrame(dict.fromkeys(COLUMNS, np.nan), index=range(len(LAYERS)))
        rows = rows.astype({"split": object, "layer": object}).assign(epoch=300, split="train", layer=LAYERS)
        distance = np.arange(len(LAYERS))[::-1]
        good = 3 - index if depth_falls else index + 1  # the first layer whose nearest class mean is right
        errors = np.where(np.arange(1, len(LAYERS) + 1) >= good, 0.0, 0.3)
        rows = rows.assign(intra_min=end - step * distance, inter_max=0.0, ncc_accuracy=1 - errors, classes_present=4)
        if raw is not None:
            rows = rows.assign(intra_raw_min=rows["intra_min"] + raw, inter_raw_max=raw)
        rows.to_csv(folder / "history.csv", index=False)
    return load_runs(root), load_history(root)


def test_conjectures_hold_where_they_were_planted(tmp_path):
    runs, history = sweep(tmp_path, kinds=KINDS)
    assert [claim(runs, history).answer for claim in CLAIMS[:4]] == [Answer.SUPPORTED] * 4
    assert decay_harms_without_bn(runs, history).answer == Answer.CONTRADICTED
    runs, history = sweep(tmp_path / "falling", kinds=KINDS, slope=-0.05)
    assert decay_harms_without_bn(runs, history).answer == Answer.SUPPORTED


def test_a_fall_with_decay_breaks_the_first_conjecture(tmp_path):
    runs, history = sweep(tmp_path, slope=-0.3)
    verdict = collapse_improves_with_decay(runs, history)
    assert verdict.answer == Answer.CONTRADICTED
    assert f"log lambda, 0.0001 to 0.001 {0.3 / np.log(10):+.3f}" in numbers(verdict)[0]


def test_a_small_fall_on_the_way_is_within_epsilon(tmp_path):
    runs, history = sweep(tmp_path, slope=0.2)
    runs.loc[runs["weight_decay"] == 1e-3, "train/intra_min"] -= 0.25
    assert collapse_improves_with_decay(runs, history).answer == Answer.SUPPORTED
    runs.loc[runs["weight_decay"] == 1e-3, "train/intra_min"] -= 0.15
    assert collapse_improves_with_decay(runs, history).answer == Answer.CONTRADICTED


def test_a_collapse_that_does_not_change_is_no_improvement(tmp_path):
    """It satisfies the conjectures' inequalities with any epsilon."""
    runs, history = sweep(tmp_path, slope=0.0, step=0.0)
    assert collapse_improves_with_decay(runs, history).answer == Answer.NO_EFFECT
    assert collapse_sharpens_with_depth(runs, history).answer == Answer.NO_EFFECT


def test_steps_down_from_layer_to_layer_break_the_second_conjecture(tmp_path):
    runs, history = sweep(tmp_path, step=-0.1)
    verdict = collapse_sharpens_with_depth(runs, history)
    assert verdict.answer == Answer.CONTRADICTED
    assert "worst of 13: rise of D from the first layer to the last -0.400 [-0.400, -0.400]" in numbers(verdict)[0]
    against = next(line for line in numbers(verdict) if line.startswith("against: "))
    assert "fall of D, layers.0 to layers.1 at weight decay 0.0001: all 2 seeds above 0.05" in against
    assert against.endswith("and 9 more")


def test_a_small_step_down_is_within_epsilon(tmp_path):
    runs, history = sweep(tmp_path)
    history.loc[history["layer"] == "layers.2", "intra_min"] -= 0.13
    assert collapse_sharpens_with_depth(runs, history).answer == Answer.SUPPORTED
    history.loc[history["layer"] == "layers.2", "intra_min"] -= 0.03
    assert collapse_sharpens_with_depth(runs, history).answer == Answer.CONTRADICTED


@pytest.mark.parametrize("changed", [{"data.name": "teacher_mlp"}, {"model.norm": "last"}, {"model.gamma": 1.0}])
def test_what_the_conjectures_are_not_about_is_shown_and_not_counted(tmp_path, changed):
    runs, history = sweep(tmp_path, slope=-0.3, step=-0.1, depth_falls=False)
    runs = runs.assign(**changed)
    claims = [collapse_sharpens_with_depth, effective_depth_falls_with_decay]
    for claim in claims + [collapse_improves_with_decay] * ("data.name" in changed):
        verdict = claim(runs, history)
        assert verdict.answer == Answer.NOT_ENOUGH
        assert numbers(verdict)[0].startswith("not counted, contradicted: ")
        assert "the text says it of" in numbers(verdict)[0]
    every_bn = collapse_improves_with_decay(runs.assign(**{"data.name": "conic_hull"}), history)
    assert every_bn.answer == Answer.CONTRADICTED


def test_the_thesis_own_cosines_are_uncentred(tmp_path):
    """They count where all runs of a setting have them, which else are judged by the centred ones, as is said."""
    runs, history = sweep(tmp_path, slope=-0.3, step=-0.1)
    own = {"train/intra_raw_min": 0.5 + 0.1 * np.log10(runs["weight_decay"] / 1e-4), "train/inter_raw_max": 0.1}
    both = runs.assign(**own)
    layered = history.assign(intra_raw_min=0.5 + 0.1 * history.groupby("folder").cumcount(), inter_raw_max=0.0)
    for claim, *tables in (
        (collapse_improves_with_decay, (both, history), (runs, history)),
        (collapse_sharpens_with_depth, (runs, layered), (runs, history)),
    ):
        raw, centred = (claim(*table) for table in tables)
        assert (raw.answer, centred.answer) == (Answer.SUPPORTED, Answer.CONTRADICTED)
        assert "centred" not in raw.settings[0].note
        assert "by centred cosines" in centred.settings[0].note
    lacking = both.assign(**{"train/inter_raw_max": both["train/inter_raw_max"].where(both["seed"] > 0)})
    assert collapse_improves_with_decay(lacking, history).answer == Answer.CONTRADICTED


def test_a_growing_effective_depth_breaks_the_third(tmp_path):
    runs, history = sweep(tmp_path, depth_falls=False)
    verdict = effective_depth_falls_with_decay(runs, history)
    assert verdict.answer == Answer.CONTRADICTED
    assert "rise of the effective depth in layers, 0.0001 to 0.001 +1.000" in numbers(verdict)[0]


def test_runs_that_do_not_interpolate_are_left_out_and_counted(tmp_path):
    runs, history = sweep(tmp_path)
    runs.loc[runs["weight_decay"] == 1e-2, ["train/interpolated", "train/intra_min"]] = 0.0
    for claim in (collapse_improves_with_decay, effective_depth_falls_with_decay, collapse_sharpens_with_depth):
        verdict = claim(runs, history)
        assert verdict.answer == Answer.SUPPORTED
        assert "2 of 6 runs do not interpolate, left out" in numbers(verdict)[0]


def test_conjectures_are_about_bn_before_the_classifier(tmp_path):
    runs, history = sweep(tmp_path, kinds=("none",))
    assert collapse_improves_with_decay(runs, history).answer == Answer.NOT_ENOUGH
    assert only_affine_bn_collapses(runs, history).answer == Answer.NOT_ENOUGH


def test_a_decay_with_one_seed_alone_is_no_step(tmp_path):
    runs, history = sweep(tmp_path)
    alone = runs[(runs["weight_decay"] < 1e-2) | (runs["seed"] == 0)]
    verdict = collapse_improves_with_decay(alone, history)
    assert verdict.answer == Answer.SUPPORTED
    assert len(verdict.settings[0].effects) == 2


def test_layers_are_in_the_order_of_the_network(tmp_path):
    runs, history = sweep(tmp_path, seeds=1)
    rows = last_rows(history.sample(frac=1, random_state=0).sort_values("layer"), runs["folder"].iloc[0])
    assert list(rows["layer"]) == LAYERS
    assert rows[SPREAD].tolist() == pytest.approx([0.4, 0.5, 0.6, 0.7, 0.8])


def test_more_than_ten_layers_stay_in_order(tmp_path):
    """Names sort as layers.1, layers.10, layers.2: the order of the file counts."""
    runs, history = sweep(tmp_path, seeds=1)
    folder = runs["folder"].iloc[0]
    rows = history[history["folder"] == folder].iloc[[0] * 12].assign(layer=[f"layers.{i}" for i in range(12)])
    assert list(last_rows(rows, folder)["layer"]) == [f"layers.{i}" for i in range(12)]


@pytest.mark.parametrize(
    ("errors", "epsilon", "depth"),
    [([0.5, 0.1, 0.0], 0.0, 3), ([0.5, 0.1, 0.0], 0.1, 2), ([0.0], 0.0, 1), ([0.4, 0.3], 0.1, 2), ([0.0, 0.9], 0.1, 1)],
)
def test_effective_depth(errors, epsilon, depth):
    assert effective_depth(errors, epsilon) == depth


@pytest.mark.parametrize(("errors", "epsilon"), [([], 0.1), ([1.2], 0.1), ([0.2], -1)])
def test_effective_depth_refuses(errors, epsilon):
    with pytest.raises(ArgumentError, match=r"^(ncc_errors|epsilon) must be"):
        effective_depth(errors, epsilon)


def curve(axis, colour):
    """Heights of the solid line of a colour."""
    return next(line for line in axis.lines if line.get_color() == colour and line.get_linestyle() == "-").get_ydata()


def test_figure_3_1_shows_three_kinds_and_interpolating_runs_alone(tmp_path):
    runs, history = sweep(tmp_path, kinds=KINDS, experiment="pan_thesis/fig3_1", raw=0.01)
    runs.loc[(runs["model.norm"] == "none") & (runs["weight_decay"] == 1e-2), "train/interpolated"] = 0.0
    (drawing,) = drawings(runs, history, ["fig3_1"])
    (axis,) = drawing.content.axes
    drawn = {line.get_color(): list(line.get_xdata()) for line in axis.lines if line.get_linestyle() == "-"}
    assert drawn[style.COLOURS["all"]] == list(DECAYS)
    assert drawn[style.COLOURS["fixed"]] == list(DECAYS)
    assert drawn[style.COLOURS["none"]] == list(DECAYS[:2])
    assert curve(axis, style.COLOURS["all"]) == pytest.approx([0.81, 0.86, 0.91])  # not centred, as in the thesis
    assert "2 runs that miss" in drawing.caption


def test_figure_3_3_has_a_panel_a_decay_and_a_point_a_layer(tmp_path):
    runs, history = sweep(tmp_path, raw=0.01)
    (drawing,) = drawings(runs, history, ["fig3_3"])
    assert len(drawing.content.axes) == 3
    intra = next(line for line in drawing.content.axes[0].lines if line.get_color() == style.COLOURS["last"])
    assert list(intra.get_xdata()) == [1, 2, 3, 4, 5]
    assert intra.get_ydata() == pytest.approx([0.41, 0.51, 0.61, 0.71, 0.81])


@pytest.mark.parametrize("figure", ["fig3_1", "fig3_3"])
def test_limits_for_unequal_classes_are_those_of_the_cosines_that_are_drawn(figure, tmp_path):
    runs, history = sweep(tmp_path, raw=0.01)
    shares = {"class_share_min": 0.1, "class_share_max": 0.5, "inter_max_limit": 0.3, "inter_raw_max_limit": 0.2}
    (drawing,) = drawings(runs.assign(**{f"train/{name}": value for name, value in shares.items()}), history, [figure])
    for axis in drawing.content.axes:
        dotted = {height for line in axis.lines if line.get_linestyle() == ":" for height in line.get_ydata()}
        assert dotted - {1} == {0.2}


@pytest.mark.parametrize(("figure", "heights"), [("fig3_1", [0.8, 0.85, 0.9]), ("fig3_3", [0.4, 0.5, 0.6, 0.7, 0.8])])
def test_runs_without_the_uncentred_cosines_are_drawn_by_the_centred_ones_and_apart(figure, heights, tmp_path):
    colour = style.COLOURS["all" if figure == "fig3_1" else "last"]
    old, old_history = sweep(tmp_path / "old")
    (drawing,) = drawings(old, old_history, [figure])
    new, new_history = sweep(tmp_path / "new", raw=0.01, seeds=1)
    new["seed"] = 5  # else it is one that was trained alike
    runs, history = pd.concat([old, new], ignore_index=True), pd.concat([old_history, new_history], ignore_index=True)
    uncentred, centred = drawings(runs, history, [figure])
    assert [drawing.name, uncentred.name, centred.name] == [figure, figure, f"{figure}_centred"]
    for each in (drawing, centred):
        heading = " ".join(each.content.get_suptitle().split())
        assert "centred cosines: these runs have not measured the thesis' own" in heading
        assert "not centred" not in each.caption
        assert curve(each.content.axes[0], colour) == pytest.approx(heights)
    assert uncentred.content.get_suptitle() == "conic hull; seed 5"
    assert "not centred" in uncentred.caption
    assert curve(uncentred.content.axes[0], colour) == pytest.approx(np.array(heights) + 0.01)


def test_figure_3_2_draws_the_boundaries_between_cones():
    rng = np.random.default_rng(0)
    points = rng.normal(size=(4000, 2))
    labels = (points[:, 0] > 0) + 2 * (points[:, 1] > 0)
    empty = np.zeros((4, 0))
    figure = classes_in_the_plane(Snapshot(0, empty, labels, empty, empty, empty, points))
    rays = [line for line in figure.axes[0].lines if line.get_color() == "black"]
    angles = sorted(np.arctan2(line.get_ydata()[1], line.get_xdata()[1]) for line in rays)
    found = np.sort(np.mod(angles, 2 * np.pi) + 0.1) % (2 * np.pi)
    np.testing.assert_allclose(np.sort(found) - 0.1, [0, np.pi / 2, np.pi, 3 * np.pi / 2], atol=0.02)


def test_effective_depth_of_a_constructed_network(tmp_path):
    """XOR: after layer 1 both classes have the same mean, after layer 2 they are apart."""
    import lightning as L
    import torch
    from torch.utils.data import DataLoader, TensorDataset

    from ncflow.callbacks import NeuralCollapseCallback
    from ncflow.models.classifier import Classifier
    from ncflow.models.mlp import MLP

    network = MLP((2,), 2, depth=4, width=4, norm="none")
    first = torch.tensor([[1.0, 0], [-1, 0], [0, 1], [0, -1]])  # relu(x1), relu(-x1), relu(x2), relu(-x2)
    second = torch.tensor([[1.0, -1, 1, -1], [-1, 1, -1, 1], [0, 0, 0, 0], [0, 0, 0, 0]])  # relu(+-(x1 + x2))
    for layer, weight in zip(network.layers, (first, second, torch.eye(4)), strict=True):
        layer[0].weight.data = weight
    corners = torch.tensor([[1.0, 1], [1, -1], [-1, 1], [-1, -1]]).repeat(8, 1)
    labels = (corners.prod(1) > 0).long()
    callback = NeuralCollapseCallback(1, "all", history=tmp_path / "history.csv")
    module = Classifier(network, torch.nn.CrossEntropyLoss(), lambda groups: torch.optim.SGD(groups, lr=1e-9))
    options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
    trainer = L.Trainer(max_epochs=1, callbacks=[callback], enable_model_summary=False, **options)
    trainer.fit(module, DataLoader(TensorDataset(corners, labels), 8))
    errors = [1 - row["ncc_accuracy"] for row in callback.rows if row["split"] == "train"]
    assert len(errors) == 3
    assert errors[0] > 0.4
    assert effective_depth(errors, epsilon=0.01) == 2
