"""Figures and predictions of CBMM Memo 117 on tables whose right answer is known."""

import itertools

import numpy as np
import pandas as pd
import pytest

from ncflow.figures import style
from ncflow.figures.papers.cbmm_117.claims import (
    decay_concentrates_margins,
    decay_frees_margins_of_their_start,
    decay_frees_rho_of_its_start,
    exponential_loss_needs_small_batches,
    no_collapse_without_decay,
    quasi_interpolation_fixes_the_classifier,
    random_labels_collapse,
    random_labels_raise_rho,
    square_loss_collapses,
)
from ncflow.figures.papers.figures import drawings
from ncflow.figures.papers.verdict import Answer
from ncflow.figures.plots.dynamics import (
    COLLAPSE,
    norm_against_accuracy,
    norms_and_errors,
    over_epochs,
    with_test_error,
)
from ncflow.results import COLUMNS, MARGIN_QUANTILES, load_history, load_runs, write_json

INITS, EPOCHS = (1.0, 3.0, 5.0), np.arange(0, 101, 10)


def sweep(
    root, inits=INITS, decays=(0.01, 0.0), labels=(0.0,), losses=("square_signs",), sizes=(128,), seeds=2, good=True
):
    """Runs that are as the memo predicts (good), or not."""
    for init, decay, share, loss, size, seed in itertools.product(inits, decays, labels, losses, sizes, range(seeds)):
        folder = root / f"{init}-{decay}-{share}-{loss}-{size}-{seed}"
        folder.mkdir(parents=True)
        frees = decay > 0 and good
        rho = (30 + init / 10 if frees else 30 * init**3) * (1 + (2 if good else -0.8) * share) * 1.01**seed
        small = size is not None and size < 100
        bad_nc1 = (decay == 0) == good or (loss == "exponential" and not small and good)
        measures = {
            "rho": rho,
            "accuracy": 1.0,
            "interpolated": 1.0,
            "nc1": 0.5 * (1 + 1e-3 * (size or 1e4)) if bad_nc1 else 0.01 / (1 + 1e-6 * seed),
            "nc2_equinorm_weights": 0.5 if bad_nc1 else 0.01,
            "nc2_equiangular_weights": 0.5 if bad_nc1 else 0.01,
            "margin_mean": 2.0,
            "margin_std": 0.1 if frees else 0.4,
            "normalized_margin_mean": 2 / rho,
            "quasi_gap": 0.05,
            "quasi_residual_means": 0.01 if good else 0.4,
            "quasi_residual_norms": 0.01,
            "intra_min": 0.9,
            "inter_max": -0.9,
            "classes_present": 2.0,
        }
        values = {"experiment": "cbmm_117/fig2", "seed": seed, "weight_decay": decay, "model.init_norm": init}
        values |= {"data.random_labels": share, "loss.name": loss, "batch_size": size, "model.norm": "none"}
        named = {f"train/{name}": value for name, value in measures.items()} | {"test/accuracy": 0.9 - 0.1 * share}
        write_json(folder / "result.json", {**values, "status": "done", **named})
        rows = []
        for split, epoch in itertools.product(("train", "test"), EPOCHS):
            path = {"rho": init * (rho / init) ** (epoch / 100), "loss": np.exp(-epoch / 20), "accuracy": 0.9}
            path |= dict.fromkeys((name for name, _ in COLLAPSE), np.exp(-epoch / 30))
            rows.append({"epoch": epoch, "split": split, "layer": "last", **path})
        pd.DataFrame(rows, columns=list(COLUMNS)).to_csv(folder / "history.csv", index=False)
    return load_runs(root), load_history(root)


CASES = [
    (decay_frees_rho_of_its_start, {}),
    (decay_frees_margins_of_their_start, {}),
    (decay_concentrates_margins, {}),
    (random_labels_raise_rho, {"labels": (0.0, 0.2, 0.4), "inits": (1.0,), "decays": (0.01,)}),
    (square_loss_collapses, {"sizes": (128, None)}),
    (no_collapse_without_decay, {"sizes": (128, None)}),
    (random_labels_collapse, {"labels": (0.2, 0.4), "inits": (1.0,)}),
    (quasi_interpolation_fixes_the_classifier, {}),
]


@pytest.mark.parametrize(("claim", "grid"), CASES)
def test_predictions_hold_where_planted_and_fail_where_not(tmp_path, claim, grid):
    assert claim(*sweep(tmp_path / "good", **grid)).answer == Answer.SUPPORTED
    assert claim(*sweep(tmp_path / "bad", good=False, **grid)).answer in (Answer.CONTRADICTED, Answer.NO_EFFECT)


def test_batch_sizes_matter_to_the_exponential_loss_alone(tmp_path):
    grid = {"losses": ("exponential", "square_signs"), "sizes": (16, 200, 400, None), "inits": (1.0,)}
    assert exponential_loss_needs_small_batches(*sweep(tmp_path / "good", **grid)).answer == Answer.SUPPORTED
    runs, history = sweep(tmp_path / "again", **grid)
    runs["loss.name"] = runs["loss.name"].map({"exponential": "square_signs", "square_signs": "exponential"})
    assert exponential_loss_needs_small_batches(runs, history).answer == Answer.CONTRADICTED
    assert (
        exponential_loss_needs_small_batches(runs[runs["loss.name"] == "exponential"], history).answer
        == Answer.NOT_ENOUGH
    )


def test_runs_that_do_not_interpolate_are_left_out(tmp_path):
    runs, history = sweep(tmp_path)
    stray = (runs["model.init_norm"] == 5) & (runs["weight_decay"] > 0)
    runs.loc[stray, ["train/rho", "train/interpolated"]] = [1e6, 0.0]
    verdict = decay_frees_rho_of_its_start(runs, history)
    assert verdict.answer == Answer.SUPPORTED
    assert "2 of 12 runs do not interpolate, left out" in verdict.numbers[0]


def test_every_prediction_asks_for_what_it_lacks(tmp_path):
    runs, history = sweep(tmp_path, inits=(1.0,), decays=(0.01,), seeds=1)
    for claim, _ in [*CASES[:4], CASES[5]]:
        assert claim(runs, history).answer == Answer.NOT_ENOUGH


def test_curves_are_means_over_seeds_of_the_logarithm(tmp_path):
    runs, history = sweep(tmp_path, inits=(1.0,), decays=(0.01,))
    figure = over_epochs(runs, history, "model.init_norm", [("rho", "log"), ("test_error", "linear")])
    rho, error = (axis.lines[0] for axis in figure.axes)
    ends = runs["train/rho"].to_numpy()
    assert list(rho.get_xdata()) == list(EPOCHS)
    assert rho.get_ydata()[-1] == pytest.approx(np.sqrt(ends[0] * ends[1]))
    assert error.get_ydata() == pytest.approx([0.1] * len(EPOCHS))


def test_test_error_is_that_of_the_same_run_and_epoch(tmp_path):
    _, history = sweep(tmp_path, inits=(1.0,), seeds=1)
    history.loc[(history["split"] == "test") & (history["epoch"] == 50), "accuracy"] = 0.25
    table = with_test_error(history)
    assert set(table["split"]) == {"train"}
    assert table.set_index("epoch")["test_error"][50].tolist() == [0.75, 0.75]


def test_norms_and_errors_have_bars_over_seeds(tmp_path):
    runs, _ = sweep(tmp_path, labels=(0.0, 0.2, 0.4), inits=(1.0,), decays=(0.01,))
    inverse, _, error = norms_and_errors(runs, "data.random_labels").axes
    means = (1 / runs["train/rho"]).groupby(runs["data.random_labels"]).mean()
    assert inverse.lines[0].get_ydata() == pytest.approx(means.to_numpy())
    assert error.lines[0].get_ydata() == pytest.approx([0.1, 0.12, 0.14])
    points = norm_against_accuracy(runs, "data.random_labels").axes[0].containers
    assert len(points) == 3


@pytest.mark.parametrize(
    ("experiment", "names"),
    [
        ("cbmm_117/fig2_small", {"cbmm_fig2"}),
        ("cbmm_117/fig6", {"cbmm_fig6"}),
        ("cbmm_117/fig12", {"cbmm_fig12", "cbmm_fig12_scatter"}),
        ("cbmm_117/fig17", {"cbmm_fig15", "cbmm_fig17"}),
        ("cbmm_117/fig16", {"cbmm_fig14", "cbmm_fig16"}),
        ("cbmm_117/fig14_small", {"cbmm_fig14", "cbmm_fig16"}),
    ],
)
def test_each_experiment_gets_its_figures(tmp_path, experiment, names, config):
    style.use()
    runs, history = sweep(tmp_path)
    runs["figures"] = [list(config(f"experiment={experiment}").figures)] * len(runs)
    assert {drawing.name for drawing in drawings(runs, history)} == names


@pytest.fixture
def with_margins(tmp_path):
    """A run whose margins at step s are s times the level of the quantile, every second step an epoch's end."""
    runs, history = sweep(tmp_path, inits=(1.0,), decays=(0.01,), seeds=1)
    levels = np.linspace(0, 1, len(MARGIN_QUANTILES))
    steps = np.array([0, 1, 2, 3, 4, 6, 8, 20, 40])
    table = pd.DataFrame({"epoch": steps // 2, "step": steps, "rho": 1.0 + steps, "samples": 10})
    quantiles = pd.DataFrame(np.outer(steps, levels), columns=list(MARGIN_QUANTILES))
    table.join(quantiles).to_csv(f"{runs['folder'].iloc[0]}/margins.csv", index=False)
    runs["measure.first_steps"] = 8
    return runs, history


def test_margins_over_epochs_and_over_the_first_steps(with_margins):
    runs, history = with_margins
    for name, expected in (("cbmm_fig4", [0, 1, 2, 3, 4, 10, 20]), ("cbmm_fig5", [0, 1, 2, 3, 4, 6, 8])):
        (drawing,) = drawings(runs, history, [name])
        median, rho = (axis.lines[0] for axis in drawing.content.axes)
        assert list(rho.get_xdata()) == expected
        assert median.get_ydata()[-1] == pytest.approx((rho.get_ydata()[-1] - 1) / 2)


def test_sorted_margins_are_divided_by_rho(with_margins):
    runs, history = with_margins
    (drawing,) = drawings(runs, history, ["cbmm_fig3"])
    (curve,) = drawing.content.axes[0].lines
    assert curve.get_xdata()[[0, -1]] == pytest.approx([0, 1])
    assert curve.get_ydata()[[0, -1]] == pytest.approx([0, 40 / 41])


def test_no_margins_no_figure(tmp_path):
    runs, history = sweep(tmp_path, seeds=1)
    for name in ("cbmm_fig3", "cbmm_fig4", "cbmm_fig5"):
        assert list(drawings(runs, history, [name])) == []
