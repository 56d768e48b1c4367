"""Figures and verdicts from tables whose right answer is known."""

import html
import io
import itertools
import json
import math
import os
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import wandb
from PIL import Image

from ncflow.cli.figures import main
from ncflow.figures import style
from ncflow.figures.files import render
from ncflow.figures.papers.as_words import numbers
from ncflow.figures.papers.claims import judge
from ncflow.figures.papers.figures import FIGURES, drawings
from ncflow.figures.papers.needs import NEEDS
from ncflow.figures.papers.pan_cao.figures import published
from ncflow.figures.plots.collapse import (
    MEAN,
    QUANTILE,
    WORST,
    collapse_against,
    collapse_against_gamma,
    trajectories,
)
from ncflow.figures.plots.optimality import collapse_against_gap
from ncflow.figures.report.page import Picture
from ncflow.figures.report.upload import table_of_runs, upload
from ncflow.figures.tables import over_seeds
from ncflow.figures.varied import panel_keys, panels
from ncflow.results import COLUMNS, load_history, load_runs, write_json
from ncflow.runtime import wandb_runs
from ncflow.theory.bounds import bounds_from_norms, proof_kappa
from ncflow.theory.given_shares import optimum
from ncflow.theory.layer_peeled import minimum_regularized_loss
from tests.wandb_files import read_all
from tests.wandb_server import serving

DECAYS = (1e-4, 1e-3, 1e-2)


def intra(norm, decay, seed, sign=1):
    """With BN it grows with weight decay (sign 1) or falls (sign -1), without BN it is flat and lower."""
    rise = 0.1 * (math.log10(decay) + 3)
    return (0.8 + sign * rise if norm == "last" else 0.6 + 0.01 * rise) + 0.001 * seed


def sweep(
    root,
    sign=1,
    norms=("last", "none"),
    decays=DECAYS,
    gammas=(None,),
    seeds=2,
    data=("conic_hull", "digits"),
    experiment="single",
    figures=None,
):
    """Write runs as ``ncflow`` leaves them, with planted measures."""
    for name, norm, decay, gamma, seed in itertools.product(data, norms, decays, gammas, range(seeds)):
        final = intra(norm, decay, seed, sign) - (0 if gamma is None else 0.2 * sign * gamma)
        identity = f"{name}-{norm}-{decay:g}-{gamma}-{seed}"
        config = {"data.name": name, "model.name": "mlp", "model.norm": norm, "model.gamma": gamma, "model.depth": 4}
        config["loss.name"] = "cross_entropy"
        measures = {"intra_min": final, "inter_max": 0.5 - final, "interpolated": 1.0, "classes_present": 4.0}
        measures |= {"intra_mean": final + 0.01, "inter_mean": 0.4 - final, "intra_quantile": final + 0.005}
        gap = 10.0 ** (-4 - 4 * final)
        total = minimum_regularized_loss(4, decay) + gap
        measures |= {"inter_quantile": 0.45 - final, "regularized_loss": total, "regularized_loss_gap": gap}
        measures |= {"feature_rms_norm": 2.0, "weight_norm": 3.0, "gamma_norm": 8 * (gamma or 1)}
        values = {"run_id": identity, "experiment": experiment, "seed": seed, "weight_decay": decay, **config}
        values["figures"] = figures
        folder = root / identity
        folder.mkdir(parents=True)
        write_json(folder / "run.json", values)
        named = {f"train/{key}": value for key, value in measures.items()}
        write_json(folder / "result.json", {**values, "status": "done", "seconds": 1.0, **named})
        epochs = np.arange(0, 51, 5)
        speed = 1 / 20 if norm == "last" else 5
        rows = pd.DataFrame(dict.fromkeys(COLUMNS, np.nan), index=range(len(epochs)))
        rows = rows.astype({"split": object, "layer": object}).assign(epoch=epochs, split="train", layer="last")
        path = final * (1 - np.exp(-epochs * speed))
        rows = rows.assign(loss=np.exp(-epochs / 10), intra_min=path, inter_max=0.5 - path, nc3_cosine_min=path)
        rows.assign(classes_present=4.0).to_csv(folder / "history.csv", index=False)
    return load_runs(root), load_history(root)


def test_panels_are_what_varies_besides_the_axes(tmp_path):
    runs, _ = sweep(tmp_path)
    assert panel_keys(runs) == ["data.name"]
    assert [values["data.name"] for values, _ in panels(runs)] == ["conic_hull", "digits"]
    one = runs[runs["data.name"] == "digits"]
    assert [values for values, _ in panels(one)] == [{}]
    depth = runs.assign(**{"model.depth": [4, 6] * (len(runs) // 2)})
    assert panel_keys(depth) == ["data.name", "model.depth"]


def test_mean_and_standard_deviation_over_seeds():
    runs = pd.DataFrame({"weight_decay": [1, 1, 2], "train/x": [1.0, 3.0, 5.0]})
    table = over_seeds(runs, "weight_decay", "train/x")
    assert table.to_numpy().tolist() == [[2.0, math.sqrt(2), 2], [5.0, 0.0, 1]]


def test_fig2_draws_the_planted_means_and_the_limit(tmp_path):
    style.use()
    runs, _ = sweep(tmp_path, data=["digits"])
    runs.loc[(runs["model.norm"] == "none") & (runs["weight_decay"] == 1e-2), "train/interpolated"] = 0.0
    figure = collapse_against(runs, "weight_decay")
    (axis,) = figure.axes
    bn = next(line for line in axis.lines if line.get_color() == style.COLOURS["last"] and line.get_linestyle() == "-")
    expected = [np.mean([intra("last", decay, seed) for seed in range(2)]) for decay in DECAYS]
    assert list(bn.get_xdata()) == list(DECAYS)
    assert bn.get_ydata() == pytest.approx(expected)
    levels = {line.get_ydata()[0] for line in axis.lines if line.get_linestyle() == ":"}
    assert levels == {1, -1 / 3}
    hollow = [line for line in axis.lines if line.get_marker() == "s" and line.get_markerfacecolor() == "white"]
    assert {tuple(line.get_xdata()) for line in hollow} == {(1e-2,)}


def test_command_draws_every_format_and_prints_verdicts(tmp_path, capsys):
    sweep(tmp_path, data=["digits"])
    main([str(tmp_path), "--format", "png", "--format", "pdf", "--format", "svg"])
    out = capsys.readouterr().out
    assert "12 runs: 12 done" in out
    assert out.count("SUPPORTED  ") == 3
    names = {"fig2", "gap", "trajectories"}
    files = {file.name for file in (tmp_path / "figures").iterdir()}
    assert files == {"verdicts.json"} | {f"{name}.{suffix}" for name in names for suffix in ("png", "pdf", "svg")}
    assert all((tmp_path / "figures" / file).stat().st_size > 3000 for file in files)
    assert (tmp_path / "figures/fig2.png").read_bytes()[:4] == b"\x89PNG"


def test_command_names_runs_that_did_not_finish(tmp_path, capsys):
    sweep(tmp_path / "a")
    (tmp_path / "a" / "broken").mkdir()
    write_json(tmp_path / "a" / "broken" / "run.json", {"run_id": "x", "status": "failed", "error": "boom"})
    main([str(tmp_path), "--figure", "fig2", "--out", str(tmp_path / "out")])
    out = capsys.readouterr().out
    assert "25 runs: 24 done, 1 failed" in out
    assert "broken: boom" in out
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["fig2.png", "verdicts.json"]


def test_command_refuses_in_one_line(tmp_path, capsys):
    for folder, message in ((tmp_path / "none", "no folder"), (tmp_path, "no runs below")):
        with pytest.raises(SystemExit, match="2"):
            main([str(folder)])
        error = capsys.readouterr().err
        assert error.startswith("ncflow-figures: error: FileNotFoundError") or message in error
        assert len(error.splitlines()) == 1


def test_too_few_runs_for_a_figure_is_said(tmp_path, capsys):
    write_json(tmp_path / "run.json", {"run_id": "x", "status": "failed"})
    with pytest.raises(SystemExit, match="1"):
        main([str(tmp_path), "--figure", "fig9", "--figure", "fig3_3"])
    out, err = capsys.readouterr()
    assert err.splitlines() == [f"no figure; what it needs: {name}: {NEEDS[name]}" for name in ("fig9", "fig3_3")]
    assert out.startswith("1 run: 1 failed\n")


def test_what_every_figure_needs_is_in_the_help(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert set(NEEDS) == set(FIGURES)
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    said = capsys.readouterr().out
    assert all(len(line) <= 80 for line in said.splitlines())
    text = " ".join(said.split())
    assert all(need in text for need in NEEDS.values())
    assert all(name in text for name in NEEDS)


EXPERIMENT_FIGURES = {
    "pan_cao/fig2": {"fig2", "gap"},
    "pan_cao/fig3": {"fig3_conic_hull", "fig3_digits", "gap"},
    "pan_cao/fig5_small": {"fig5", "gap"},
    "pan_cao/fig6_small": {"fig6", "gap"},
    "pan_cao/fig8": {"fig8_conic_hull", "fig8_digits", "gap"},
    "single": {"fig2", "gap", "trajectories_conic_hull", "trajectories_digits"},
}


@pytest.mark.parametrize("experiment", EXPERIMENT_FIGURES)
def test_each_experiment_gets_its_figures(tmp_path, experiment, config):
    runs, history = sweep(tmp_path, experiment=experiment)
    asked = None if experiment == "single" else list(config(f"experiment={experiment}").figures)
    runs["figures"] = [asked] * len(runs)
    assert {drawing.name for drawing in drawings(runs, history)} == EXPERIMENT_FIGURES[experiment]


def test_a_figure_that_there_is_not_is_named_and_the_others_are_drawn(tmp_path, capsys):
    sweep(tmp_path, data=["digits"], figures=["fig22", "fig2"])
    with pytest.raises(SystemExit, match="1"):
        main([str(tmp_path)])
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("ncflow-figures: not drawn: figures must be of fig1, fig2, ")
    assert line.endswith("found fig22 in these runs")
    assert sorted(file.name for file in (tmp_path / "figures").iterdir()) == ["fig2.png", "verdicts.json"]


@pytest.mark.parametrize("figure", ["fig4", "fig9"])
def test_runs_of_a_fixed_gamma_are_drawn_against_its_norm(tmp_path, figure):
    runs, history = sweep(tmp_path, norms=["last"], gammas=(0.1, 0.3, 1.0))
    runs["figures"] = [[figure]] * len(runs)
    drawing = next(drawing for drawing in drawings(runs, history) if drawing.name == figure)
    upper, lower = drawing.content.axes[0], drawing.content.axes[2]
    curves = [line for line in upper.lines if line.get_color() == style.SERIES[0] and line.get_linestyle() == "-"]
    assert list(curves[0].get_xdata()) == pytest.approx([0.8, 2.4, 8.0])
    expected = np.mean([intra("last", DECAYS[0], seed) for seed in range(2)]) - 0.02
    assert curves[0].get_ydata()[0] == pytest.approx(expected)
    assert {line.get_ydata()[0] for line in lower.lines if line.get_linestyle() == ":"} == {-1 / 3}


def test_any_figure_can_be_asked_for_by_name(tmp_path):
    runs, history = sweep(tmp_path, experiment="pan_cao/fig2", data=["digits"])
    for name in ("fig3", "fig5", "fig6", "fig7"):
        assert [drawing.name for drawing in drawings(runs, history, [name])] == [name]
    assert set(FIGURES) >= {f"fig{number}" for number in range(1, 10)}


def test_rows_of_figure_5_are_worst_and_mean(tmp_path):
    runs, history = sweep(tmp_path, data=["digits"])
    (drawing,) = drawings(runs, history, ["fig5"])
    worst, mean = (axis.lines[0].get_ydata() for axis in drawing.content.axes)
    assert np.asarray(mean) - np.asarray(worst) == pytest.approx([0.01] * len(DECAYS))


def test_rows_of_figure_6_are_worst_quantile_and_mean_and_say_so(tmp_path):
    runs, history = sweep(tmp_path, data=["digits"], seeds=1)
    (drawing,) = drawings(runs, history, ["fig6"])
    axes = drawing.content.axes
    worst, quantile, mean = (np.asarray(axis.lines[0].get_ydata()) for axis in axes)
    assert quantile - worst == pytest.approx([0.005] * len(DECAYS))
    assert mean - worst == pytest.approx([0.01] * len(DECAYS))
    words = ["worst class, worst pair", "5 %, 95 % quantile", "mean over classes, pairs"]
    assert [axis.get_ylabel() for axis in axes] == [f"cosine: {each}" for each in words]


def test_figure_7_shows_every_run_that_was_trained(tmp_path):
    runs, history = sweep(tmp_path, data=["conic_hull"], decays=(1e-4, 5e-4, 1e-3, 5e-3, 1e-2))
    (drawing,) = drawings(runs, history, ["fig7"])
    assert "all 20 runs, a line each" in drawing.caption
    panels = [axis for axis in drawing.content.axes if axis.get_title()]
    assert [axis.get_title() for axis in panels[:3]] == [
        "BN before the classifier, $\\lambda$ = 0.0001",
        "no BN, $\\lambda$ = 0.0001",
        "BN before the classifier, $\\lambda$ = 0.0005",
    ]
    drawn = {tuple(line.get_ydata()) for axis in panels for line in axis.lines}
    of_run = [tuple(rows["intra_min"]) for _, rows in history.groupby("folder")]
    assert len(of_run) == 20
    assert drawn >= set(of_run)
    assert {axis.get_ylim()[0] for axis in panels} == {-0.45}
    history.loc[0, "nc3_cosine_min"] = -0.9
    (drawing,) = drawings(runs, history, ["fig7"])
    assert all(axis.get_ylim()[0] < -0.9 for axis in drawing.content.axes if axis.get_title())
    (some,) = drawings(runs, history, ["trajectories"])
    assert "6 of 20 runs, the lowest seed at the least, the middle and the largest decay" in some.caption
    assert len([axis for axis in some.content.axes if axis.get_title()]) == 6


def test_published_results_stand_beside_ours(tmp_path):
    theirs = published()
    assert len(theirs) == 21
    assert sorted(theirs["model"].unique()) == ["resnet18", "vgg11", "vgg19"]
    runs, _ = sweep(tmp_path, data=["imagenet32"])
    runs["train/classes_present"], runs["model.name"] = 1000.0, "vgg11"
    figure = collapse_against(runs, "weight_decay", (QUANTILE, MEAN), theirs)
    grey = [line for line in figure.axes[0].lines if line.get_color() == style.PUBLISHED_COLOUR]
    of_model = theirs[theirs["model"] == "vgg11"].sort_values("weight_decay")
    assert grey[0].get_ydata() == pytest.approx(of_model["intra_quantile"].to_numpy())
    assert grey[1].get_ydata() == pytest.approx(of_model["inter_quantile"].to_numpy())


def points_of(axis):
    """Every run that is drawn on an axis."""
    runs = [line for line in axis.lines if line.get_linestyle() == "None"]
    return {point for line in runs for point in zip(line.get_xdata(), line.get_ydata(), strict=True)}


def least_of(axis):
    """The dashes of the least losses, by colour and weight decay."""
    dashes = [line for line in axis.lines if line.get_marker() == "_"]
    return {(d.get_color(), x): y for d in dashes for x, y in zip(d.get_xdata(), d.get_ydata(), strict=True)}


def test_gap_figure_has_the_runs_the_least_loss_and_a_bound_where_it_says_something(tmp_path):
    runs, _ = sweep(tmp_path, data=["digits"])
    runs[["train/class_share_min", "train/class_share_max"]] = 0.25
    runs["train/inter_max_limit"] = -1 / 3
    losses, near, _ = collapse_against_gap(runs).axes
    assert [text.get_text() for text in losses.get_xticklabels()] == ["0.0001", "0.001", "0.01"]
    for (_, decay), value in least_of(losses).items():
        assert value == pytest.approx(minimum_regularized_loss(4, decay))
    for _, run in runs.iterrows():
        assert (run["train/regularized_loss_gap"], 1 - run["train/intra_min"]) in points_of(near)
    assert not [line for line in near.lines if line.get_linestyle() == "--"]  # at such gaps it is vacuous

    runs["train/regularized_loss_gap"] *= 1e-3
    runs[["train/feature_rms_norm", "train/weight_norm"]] = [0.5, 1.0]
    (bound,) = [line for line in collapse_against_gap(runs).axes[1].lines if line.get_linestyle() == "--"]
    product = 0.5 / 2  # alpha beta, with beta = |W|_F/sqrt(C)
    for gap, distance in zip(bound.get_xdata()[:3], bound.get_ydata()[:3], strict=True):
        found = bounds_from_norms(4, product, 1.0, gap, delta=1 / 4, kappa=proof_kappa(4, product))
        assert distance == pytest.approx(1 - found.intra)


SHARES = (0.09, 0.72, 0.13, 0.06)
FORMS = {"last": "centred", "none": "free"}


def with_unequal_classes(runs):
    """The runs as they would be measured on classes of these shares, at the same gaps."""
    best = [optimum(SHARES, run["weight_decay"], FORMS[run["model.norm"]]) for _, run in runs.iterrows()]
    runs["train/class_share_min"], runs["train/class_share_max"] = min(SHARES), max(SHARES)
    runs["train/inter_max_limit"] = [found.inter_max for found in best]
    runs["train/inter_mean_limit"] = [found.inter_mean for found in best]
    runs["train/regularized_loss"] = runs["train/regularized_loss_gap"] + [found.regularized_loss for found in best]
    return runs


def test_gap_figure_of_unequal_classes_is_beside_their_own_optimum_and_clips_nothing(tmp_path):
    runs, _ = sweep(tmp_path, data=["digits"])
    runs["train/regularized_loss_gap"] *= 1e-3  # where equal classes of these norms have a bound
    runs[["train/feature_rms_norm", "train/weight_norm"]] = [0.5, 1.0]
    runs.loc[0, ["train/regularized_loss_gap", "train/intra_min"]] = [-1e-6, 1.0]
    runs.loc[1, "train/regularized_loss_gap"] = 0.0
    runs = with_unequal_classes(runs)
    losses, near, far = collapse_against_gap(runs).axes
    least = least_of(losses)
    assert len(least) == 2 * len(DECAYS)
    for _, run in runs.iterrows():
        norm, decay, gap = run["model.norm"], run["weight_decay"], run["train/regularized_loss_gap"]
        best = optimum(SHARES, decay, FORMS[norm])
        assert least[style.COLOURS[norm], decay] == pytest.approx(best.regularized_loss)
        assert (gap, 1 - run["train/intra_min"]) in points_of(near)
        assert (gap, run["train/inter_max"] - best.inter_max) in points_of(far)
    for axis in (near, far):
        (left, right), (low, high) = axis.get_xlim(), axis.get_ylim()
        assert all(left < x < right and low < y < high for x, y in points_of(axis))
        assert not [line for line in axis.lines if line.get_linestyle() == "--"]  # Theorem 2.1 is of equal classes


def test_limits_of_unequal_classes_are_curves_of_their_bn_and_decay(tmp_path):
    runs = with_unequal_classes(sweep(tmp_path, data=["digits"])[0])
    figure = collapse_against(runs, "weight_decay", (WORST, MEAN))
    for axis, name in zip(figure.axes, ("inter_max", "inter_mean"), strict=True):
        for norm, form in FORMS.items():
            (curve,) = [
                line for line in axis.lines if line.get_linestyle() == ":" and line.get_color() == style.COLOURS[norm]
            ]
            expected = [getattr(optimum(SHARES, decay, form), name) for decay in DECAYS]
            assert list(curve.get_ydata()) == pytest.approx(expected)
        assert {line.get_ydata()[0] for line in axis.lines if line.get_color() == "0.5"} == {1}
    assert "inter at the optimum for the class shares" in legend_of(figure)
    runs.loc[runs["model.norm"] == "last", "train/inter_max_limit"] = np.nan
    figure = collapse_against(runs, "weight_decay")
    dotted = {line.get_color() for line in figure.axes[0].lines if line.get_linestyle() == ":"}
    assert dotted == {"0.5", style.COLOURS["none"]}
    assert "inter at the optimum for the class shares, where known" in legend_of(figure)


def test_limits_over_epochs_and_against_gamma_are_those_of_the_runs(tmp_path):
    runs, history = sweep(tmp_path, data=["digits"], gammas=(0.1, 1.0), norms=["last"])
    shares = {"class_share_min": min(SHARES), "class_share_max": max(SHARES)}
    rows = history.assign(**shares, inter_max_limit=0.25)
    figure = trajectories(rows, [("one", [runs["folder"][0]])], 1)
    assert {line.get_ydata()[0] for line in figure.axes[0].lines if line.get_color() == "0.5"} == {0.25}
    assert "inter at the optimum for the class shares" in legend_of(figure)
    figure = trajectories(history, [("one", [runs["folder"][0]])], 1)  # of an older version
    assert {line.get_ydata()[0] for line in figure.axes[0].lines if line.get_color() == "0.5"} == {-1 / 3}
    assert "limit $-1/(C-1)$ of inter" in legend_of(figure)
    unknown = runs.assign(**{f"train/{name}": value for name, value in shares.items()})
    figure = collapse_against_gamma(unknown.assign(**{"train/inter_max_limit": np.nan}))
    assert not [line for line in figure.axes[1].lines if line.get_linestyle() == ":"]
    assert "no limit of inter is known for these runs" in legend_of(figure)


def legend_of(figure):
    return [" ".join(text.get_text().split()) for text in figure.legends[0].get_texts()]


def test_the_same_figure_gives_the_same_file(tmp_path):
    style.use()
    runs, _ = sweep(tmp_path, data=["digits"])
    for kind in ("png", "svg", "pdf"):
        assert render(collapse_against(runs, "weight_decay"), kind) == render(
            collapse_against(runs, "weight_decay"), kind
        )


def test_html_report_holds_every_figure_and_verdict(tmp_path, capsys):
    sweep(tmp_path, data=["digits"])
    main([str(tmp_path), "--html"])
    assert str(tmp_path / "figures" / "report.html") in capsys.readouterr().out
    page = (tmp_path / "figures" / "report.html").read_text()
    assert page.count("data:image/svg+xml;base64,") == 3
    for verdict in judge(load_runs(tmp_path), load_history(tmp_path)):
        assert verdict.claim in html.unescape(page)
        for line in numbers(verdict):
            assert line in html.unescape(page)


@pytest.fixture
def no_key(monkeypatch, tmp_path):
    """This process as one that knows of no W&B server and of no key; what a ``.env`` adds is taken back."""
    for name in {"WANDB_PROJECT", "WANDB_ERROR_REPORTING", *(n for n in os.environ if n.startswith("WANDB_"))}:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", "/nonexistent")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(wandb_runs, "_process", SimpleNamespace(mode=None))
    monkeypatch.chdir(tmp_path)
    yield monkeypatch
    wandb.teardown()


def with_artifacts(answer):
    """A server's answers, and those that make it take a table as an artifact that it has already."""

    def answering(path, question):
        if "query ArtifactType" in question.get("query", ""):
            return {"data": {"project": None}}
        if question.get("operationName") == "CreateArtifact":
            artifact = {"id": "1", "state": "COMMITTED", "artifactSequence": {"latestArtifact": {"id": "1"}}}
            return {"data": {"createArtifact": {"artifact": artifact}}}
        return answer(path, question)

    return answering


def logged(folder, row, name):
    """The file of a logged value."""
    (path,) = folder.glob(f"wandb/offline-run-*/files/{row[f'{name}.path']}")
    return path


def test_wandb_gets_figures_and_tables_and_the_same_run_again(tmp_path, capsys, no_key):
    sweep(tmp_path, data=["digits"], experiment="pan_cao/fig2", figures=["fig2", "gap"])
    (tmp_path / "named").write_text("WANDB_PROJECT=elsewhere\n")
    no_key.setenv("NCFLOW_ENV_FILE", str(tmp_path / "named"))
    main([str(tmp_path), "--wandb", "--html", "--format", "svg"])
    out = tmp_path / "figures"
    assert "W&B: offline in" in capsys.readouterr().out
    assert {file.name for file in out.iterdir()} == {
        "fig2.svg",
        "gap.svg",
        "report.html",
        "verdicts.json",
        "wandb",
        "wandb.json",
    }
    assert (out / "report.html").read_text().count('src="data:image') == 2
    (saved,) = read_all(out)
    run, (row,) = saved.run, saved.rows
    assert (run.project, run.run_group, run.job_type) == ("elsewhere", "pan_cao/fig2", "figures")
    assert {name.split(".")[0] for name in row if name.startswith("figures/")} == {"figures/fig2", "figures/gap"}
    sent = Image.open(logged(out, row, "figures/fig2"))
    style.use()
    (drawn,) = drawings(load_runs(tmp_path), load_history(tmp_path), ["fig2"])
    expected = Image.open(io.BytesIO(render(drawn.content, "png")))
    assert np.array_equal(np.asarray(sent.convert("RGBA")), np.asarray(expected.convert("RGBA")))
    table = json.loads(logged(out, row, "runs").read_text())
    runs = pd.DataFrame(table["data"], columns=table["columns"])
    assert list(runs)[:4] == ["name", "model.norm", "weight_decay", "seed"]
    assert list(runs)[-1] == "status"
    assert len(runs) == 12
    found = runs[(runs["model.norm"] == "last") & (runs["weight_decay"] == 1e-2) & (runs["seed"] == 1)]
    assert found["train/intra_min"].tolist() == [pytest.approx(intra("last", 1e-2, 1))]
    verdicts = json.loads(logged(out, row, "verdicts").read_text())
    assert verdicts["columns"] == ["claim", "answer", "numbers"]
    assert [answer for _, answer, _ in verdicts["data"]] == [
        verdict.answer for verdict in judge(load_runs(tmp_path), load_history(tmp_path))
    ]

    main([str(tmp_path), "--wandb"])
    assert [again.run.run_id for again in read_all(out)] == [run.run_id] * 2


def test_a_server_gets_both_calls_as_one_run(tmp_path, capsys, no_key):
    sweep(tmp_path, data=["digits"])
    no_key.setenv("WANDB_API_KEY", "k" * 40)
    with serving() as server:
        no_key.setattr(server, "answer", with_artifacts(server.answer))
        no_key.setenv("WANDB_BASE_URL", server.url)
        for _ in range(2):
            main([str(tmp_path), "--figure", "fig2", "--wandb"])
        wandb.teardown()
    printed = capsys.readouterr()
    assert printed.out.count(f"W&B: {server.url}/me/ncflow/runs/") == 2
    (identity,) = server.rows
    first, second = server.stored(identity)
    assert first["figures/fig2"]["_type"] == second["figures/fig2"]["_type"] == "image-file"
    assert second["runs"]["_type"] == "table-file"


@pytest.mark.usefixtures("no_key")
def test_an_animation_stays_one(tmp_path):
    frames = [Image.new("L", (4, 4), shade) for shade in (0, 255)]
    buffer = io.BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:])
    runs = pd.DataFrame({"run_id": ["x"], "status": ["failed"]})
    upload(tmp_path, runs, [], [Picture("movie", "It moves.", buffer.getvalue(), "gif", "a square")])
    (row,) = read_all(tmp_path)[0].rows
    assert logged(tmp_path, row, "figures/movie").read_bytes() == buffer.getvalue()


@pytest.mark.parametrize("content", ["my own notes", "{}", '{"id": 1}'])
def test_a_wandb_json_of_somebody_else_stays(content, tmp_path, capsys, no_key):
    sweep(tmp_path, data=["digits"])
    out = tmp_path / "figures"
    out.mkdir()
    (out / "wandb.json").write_text(content)
    main([str(tmp_path), "--figure", "fig2", "--wandb"])
    assert f"{out / 'wandb.json'} exists and was not written by ncflow" in capsys.readouterr().err
    assert (out / "wandb.json").read_text() == content


def test_table_of_runs_has_what_differs_and_what_was_measured(tmp_path):
    runs, _ = sweep(tmp_path, data=["digits"])
    runs["optimizer.betas"] = [[0.9, 0.99], [0.9, 0.999]] * 6
    broken = pd.DataFrame({"status": ["failed"], "folder": ["x"]})
    table = table_of_runs(pd.concat([runs, broken], ignore_index=True))
    assert list(table)[:5] == ["name", "model.norm", "weight_decay", "seed", "optimizer.betas"]
    assert {"data.name", "train/nc1", "folder", "run_id"}.isdisjoint(table)
    assert table["optimizer.betas"].tolist() == [*["[0.9, 0.99]", "[0.9, 0.999]"] * 6, None]
    assert table["train/intra_min"].iloc[-1] is None
    assert table["status"].tolist() == [*["done"] * 12, "failed"]


def test_wandb_failing_costs_a_line_and_not_the_figures(tmp_path, capsys, no_key):
    def fail(*args, **kwargs):
        raise RuntimeError("no\nserver")

    no_key.setattr("wandb.init", fail)
    sweep(tmp_path / "runs", data=["digits"])
    main([str(tmp_path / "runs"), "--figure", "fig2", "--wandb"])
    assert capsys.readouterr().err == "ncflow-figures: W&B: RuntimeError: no server\n"
    assert (tmp_path / "runs/figures/fig2.png").exists()
    write_json(tmp_path / "none/run.json", {"run_id": "x", "status": "failed"})
    with pytest.raises(SystemExit, match="1"):
        main([str(tmp_path / "none"), "--wandb"])
