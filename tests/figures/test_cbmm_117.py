"""Figures of CBMM Memo 117 on tables whose right answer is known; its claims are in ``test_cbmm_117_claims.py``."""

import itertools

import numpy as np
import pandas as pd
import pytest

from ncflow.figures import style
from ncflow.figures.papers.figures import drawings
from ncflow.figures.plots.dynamics import (
    COLLAPSE,
    norm_against_accuracy,
    norms_and_errors,
    over_epochs,
    over_first_epochs,
    over_steps,
    with_test_error,
)
from ncflow.figures.plots.margins import histogram, histogram_limits
from ncflow.results import COLUMNS, MARGIN_QUANTILES, load_history, load_runs, write_json

INITS, EPOCHS = (1.0, 3.0, 5.0), np.arange(0, 101, 10)


def sweep(root, inits=INITS, decays=(0.01, 0.0), labels=(0.0,), losses=("square_signs",), sizes=(128,), seeds=2):
    """Runs whose rho goes from the initial norm to where the memo has it."""
    for init, decay, share, loss, size, seed in itertools.product(inits, decays, labels, losses, sizes, range(seeds)):
        folder = root / f"{init}-{decay}-{share}-{loss}-{size}-{seed}"
        folder.mkdir(parents=True)
        rho = (30 + init / 10 if decay > 0 else 30 * init**3) * (1 + 2 * share) * 1.01**seed
        measures = {"rho": rho, "accuracy": 1.0, "interpolated": 1.0, "normalized_margin_mean": 2 / rho}
        measures |= {"intra_min": 0.9, "inter_max": -0.9, "classes_present": 2.0}
        values = {"experiment": "cbmm_117/fig2", "seed": seed, "weight_decay": decay, "model.init_norm": init}
        values |= {"data.random_labels": share, "loss.name": loss, "batch_size": size, "model.norm": "none"}
        values |= {"epochs": 100, "seconds": 10.0, "steps_per_second": 10.0 * (20 if size == 16 else 3)}
        named = {f"train/{name}": value for name, value in measures.items()} | {"test/accuracy": 0.9 - 0.1 * share}
        write_json(folder / "result.json", {**values, "status": "done", **named})
        rows = []
        for split, epoch in itertools.product(("train", "test"), EPOCHS):
            path = {"rho": init * (rho / init) ** (epoch / 100), "loss": np.exp(-epoch / 20), "accuracy": 0.9}
            path |= dict.fromkeys((name for name, _ in COLLAPSE), np.exp(-epoch / 30))
            rows.append({"epoch": epoch, "split": split, "layer": "last", **path})
        pd.DataFrame(rows, columns=list(COLUMNS)).to_csv(folder / "history.csv", index=False)
    return load_runs(root), load_history(root)


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
        ("cbmm_117/fig6", {f"cbmm_fig6_init_norm_{init:g}" for init in INITS}),
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


def test_margins_over_epochs_and_over_the_first_steps_are_divided_by_rho(with_margins):
    runs, history = with_margins
    steps = [0, 1, 2, 3, 4, 6, 8]
    for name, expected, shown in (
        ("cbmm_fig4", [0, 1, 2, 3, 4, 10, 20], [0, 2, 4, 10, 20]),  # evenly spaced
        ("cbmm_fig5", steps, steps),
    ):
        (drawing,) = drawings(runs, history, [name])
        histograms, bands, norms, bar = drawing.content.axes
        median, rho = bands.lines[0], norms.lines[0]
        assert list(rho.get_xdata()) == list(median.get_xdata()) == expected
        taken = rho.get_ydata() - 1
        assert median.get_ydata() == pytest.approx(taken / 2 / (1 + taken))
        assert len(histograms.patches) == len(shown)
        assert [float(text.get_text()) for text in bar.get_yticklabels()] == shown
        last = histograms.patches[-1].get_data()
        middle = np.average((last.edges[1:] + last.edges[:-1]) / 2, weights=last.values)
        assert middle == pytest.approx(taken[-1] / 2 / (1 + taken[-1]), rel=0.02)  # less what is beyond the limits


@pytest.mark.parametrize("kind", ["spread", "ties", "one value"])
def test_histograms_made_of_quantiles_are_those_of_the_samples(kind):
    rng = np.random.default_rng(0)
    samples = {"spread": rng.normal(1, 0.2, 4001), "ties": np.repeat([0.0, 1.0, 2.0], 1001), "one value": np.ones(9)}[
        kind
    ]
    levels = np.linspace(0, 1, len(MARGIN_QUANTILES))
    edges = np.linspace(-0.3, 2.6, 12)  # none of them where samples lie
    found = histogram(np.quantile(samples, levels), levels, edges)
    expected = np.histogram(samples, edges)[0] / len(samples)
    assert found.sum() == pytest.approx(1)
    assert found == pytest.approx(expected, abs=0.03)


def test_the_limits_of_histograms_are_of_moments_like_the_last():
    levels = np.linspace(0, 1, 41)
    early, later, last = 1000 * (levels - 0.5), 0.1 + levels, 1 + levels / 2
    low, high = histogram_limits(np.array([early, later, last]), levels)
    assert -0.1 < low < 0.2
    assert 1.4 < high < 1.6
    assert histogram_limits(np.array([early, np.ones(41)]), levels) == pytest.approx((0.95, 1.05))


def test_figures_14_and_15_show_the_first_epochs_of_every_run(tmp_path):
    runs, history = sweep(tmp_path)
    early = history[(history["epoch"] == 10) & (history["split"] == "train")]
    history = pd.concat([history, *(early.assign(epoch=epoch) for epoch in (1, 2, 3, 4))], ignore_index=True)
    figure = over_first_epochs(runs, history, "model.init_norm", ("rho", "log"), (3, 30, None))
    shown = [[list(line.get_xdata()) for line in axis.lines] for axis in figure.axes]
    assert shown[0] == [[0, 1, 2, 3]] * 4  # two decays, two seeds
    assert shown[1] == [[0, 1, 2, 3, 4, 10, 20, 30]] * 4
    assert shown[2] == [[0, 1, 2, 3, 4, *range(10, 101, 10)]] * 4
    assert len(figure.axes) == 3 * len(INITS)
    assert [axis.get_title() for axis in figure.axes[:3]] == ["first 3 epochs", "first 30 epochs", "all epochs"]
    for name, decay in (("cbmm_fig14", 0.01), ("cbmm_fig15", 0.0)):
        (drawing,) = drawings(runs, history, [name])
        ends = [axis.lines[0].get_ydata()[-1] for axis in drawing.content.axes[2::3]]
        own = runs[(runs["weight_decay"] == decay) & (runs["seed"] == 0)].sort_values("model.init_norm")
        assert ends == pytest.approx(own["train/rho"].tolist())


def test_batch_sizes_are_drawn_over_steps_a_panel_a_loss(tmp_path):
    runs, history = sweep(tmp_path, (1.0,), (0.01,), losses=("exponential", "square_signs"), sizes=(16, 128))
    (drawing,) = drawings(runs, history, ["cbmm_exponential_batch_size"])
    assert [axis.get_title() for axis in drawing.content.axes] == ["exponential", "square signs"]
    small, large = drawing.content.axes[0].lines
    assert list(small.get_xdata()) == [20 * epoch for epoch in EPOCHS[1:]]
    assert list(large.get_xdata()) == [3 * epoch for epoch in EPOCHS[1:]]
    steps = runs.assign(steps=runs["seconds"] * runs["steps_per_second"])
    assert (
        over_steps(steps[steps["loss.name"] == "exponential"], history, "nc1").axes[0].get_xlabel() == "optimiser step"
    )


def test_losses_are_not_mixed_in_figure_6(tmp_path):
    runs, history = sweep(tmp_path, (1.0,), losses=("square", "square_signs"))
    names = [drawing.name for drawing in drawings(runs, history, ["cbmm_fig6"])]
    assert names == ["cbmm_fig6_square", "cbmm_fig6_square_signs"]


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
