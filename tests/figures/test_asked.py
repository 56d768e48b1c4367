"""Questions of one's own: any column against any other, as a picture or a table, and two sweeps beside each other."""

import io

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from scipy import stats

from ncflow.checks import ArgumentError
from ncflow.cli import figures
from ncflow.figures import style
from ncflow.figures.asked import Question, column_named, points, understood, where
from ncflow.figures.compared import compare
from ncflow.figures.plots.asked import asked
from ncflow.figures.tables import once
from ncflow.figures.written import table_of_differences, table_of_points
from tests.figures.planted import history_of, runs_of

NONE = pd.DataFrame()


def planted(**config):
    return runs_of(
        lambda norm, decay: {"intra_min": 0.5 + 0.1 * (norm == "last") * (decay + 4), "nc1": 10.0**decay}, **config
    )


@pytest.fixture
def runs():
    return planted()


def test_points_are_means_and_deviations_over_seeds(runs):
    question = understood(Question("weight_decay", ("intra_min", "train/nc1"), "norm"), runs)
    assert question == Question("weight_decay", ("train/intra_min", "train/nc1"), "model.norm")
    found = points(question, runs, NONE).set_index(["measure", "model.norm", "weight_decay"])
    assert len(found) == 2 * 2 * 5
    for (measure, norm, decay), row in found.iterrows():
        own = runs[(runs["model.norm"] == norm) & (runs["weight_decay"] == decay)][measure]
        assert row["mean"] == pytest.approx(own.mean(), abs=1e-12)
        assert row["sd"] == pytest.approx(own.std(ddof=1), abs=1e-12)
        assert row["seeds"] == 5


def test_what_varies_beside_the_seed_is_never_averaged(runs):
    with pytest.raises(ArgumentError) as error:
        points(understood(Question("weight_decay", ("intra_min",)), runs), runs, NONE)
    assert "model.norm (last, none) varies" in str(error.value)
    deeper = pd.concat([runs, planted(**{"model.depth": 6})], ignore_index=True)
    with pytest.raises(
        ArgumentError, match=r"model.depth \(4, 6\) varies: show it with --hue or --panel, or .* --where"
    ):
        points(understood(Question("weight_decay", ("intra_min",), "norm"), deeper), deeper, NONE)
    shown = understood(Question("weight_decay", ("intra_min",), "norm", ("depth",)), deeper)
    assert len(points(shown, deeper, NONE)) == 20
    other_pairs = pd.concat([runs, planted(**{"measure.self_pairs": True})], ignore_index=True)
    with pytest.raises(ArgumentError, match=r"measure.self_pairs"):
        points(understood(Question("weight_decay", ("intra_min",), "norm"), other_pairs), other_pairs, NONE)
    twice = pd.concat([runs, runs.assign(folder="again", run_id="again")], ignore_index=True)
    with pytest.raises(ArgumentError, match=r"a point must have one run of each seed, found two: .* and again"):
        points(understood(Question("weight_decay", ("intra_min",), "norm"), twice), twice, NONE)


def test_a_run_that_is_not_done_is_no_point(runs):
    ended = runs.assign(status=["diverged", *["done"] * (len(runs) - 1)])
    found = points(understood(Question("weight_decay", ("intra_min",), "norm"), ended), ended, NONE)
    assert sorted(found["seeds"]) == [4, *[5] * 9]


def test_where_x_is_measured_each_run_is_a_point(runs):
    found = points(understood(Question("nc1", ("intra_min",)), runs), runs, NONE)
    assert sorted(zip(found["train/nc1"], found["mean"], strict=True)) == sorted(
        zip(runs["train/nc1"], runs["train/intra_min"], strict=True)
    )


def test_over_training_each_epoch_is_a_point():
    runs = planted(decays=(1e-3,))
    history = history_of(runs, lambda norm, time: {"intra_min": time * (1 + (norm == "last"))}, sd=0.01)
    question = understood(Question("epoch", ("train/intra_min",), "model.norm"), runs)
    found = points(question, runs, history).set_index(["model.norm", "epoch"])
    for (norm, epoch), row in found.iterrows():
        folders = runs[runs["model.norm"] == norm]["folder"]
        own = history[history["folder"].isin(folders) & (history["epoch"] == epoch)]["intra_min"]
        assert (row["mean"], row["sd"]) == pytest.approx((own.mean(), own.std()), abs=1e-12)
    style.use()
    figure = asked(question, found.reset_index())
    assert [len(axis.lines) for axis in figure.axes] == [2]


@pytest.mark.parametrize(
    ("question", "said"),
    [
        (
            Question("wieght_decay", ("intra_min",)),
            "x must be a column of these runs, found 'wieght_decay': did you mean w",
        ),
        (Question("weight_decay", ("intra_mim",)), "did you mean train/intra_min, "),
        (Question("weight_decay", ("model.norm",)), "y must be a column of numbers, found model.norm of last, none"),
        (Question("epoch", ("weight_decay",)), "y must be a measure where x is epoch, found weight_decay"),
        (
            Question("name", ("intra_min",)),
            "x must be one column, found 'name', the end of data.name, loss.name, model.n",
        ),
    ],
)
def test_a_column_that_there_is_not_is_named(question, said, runs):
    with pytest.raises(ArgumentError) as error:
        understood(question, runs)
    assert said in str(error.value)


def test_where_chooses_runs_by_value(runs):
    assert set(where(runs, ["norm=last"])["model.norm"]) == {"last"}
    assert set(where(runs, ["weight_decay=1e-2,5e-4", "norm=none"])["weight_decay"]) == {1e-2, 5e-4}
    assert len(where(runs, ["model.gamma=null"])) == len(runs)
    with pytest.raises(ArgumentError, match=r"where must leave a run, found norm=all: model.norm is last, none"):
        where(runs, ["norm=all"])
    with pytest.raises(ArgumentError, match="where must be COLUMN=VALUE, found 'norm'"):
        where(runs, ["norm"])
    assert column_named("x", "gamma", runs) == "model.gamma"


def test_panels_say_what_they_show_and_share_their_scale(runs):
    both = pd.concat([runs, planted(**{"data.name": "conic_hull"})], ignore_index=True)
    both.loc[both["data.name"] == "digits", "train/intra_min"] -= 2.0  # far from the panel that is drawn first
    question = understood(Question("weight_decay", ("intra_min", "nc1"), "norm", ("data.name",)), both)
    style.use()
    found = points(question, both, NONE)
    figure = asked(question, found)
    axes = np.array(figure.axes).reshape(2, 2)
    for row, name in zip(axes, question.y, strict=True):
        drawn = found[found["measure"] == name]
        low, high = row[0].get_ylim()
        assert low < (drawn["mean"] - drawn["sd"]).min()
        assert (drawn["mean"] + drawn["sd"]).max() < high
    assert [axis.get_title() for axis in axes[0]] == ["conic hull", "digits"]
    assert [axis.get_xlabel() for axis in axes[1]] == ["weight decay $\\lambda$"] * 2
    for row in axes:
        assert row[0].get_ylim() == row[1].get_ylim()
        assert all(axis.get_xscale() == "log" for axis in row)
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts == ["BN before the classifier", "no BN", "mean and standard deviation over 5 seeds"]
    figure.canvas.draw()
    box, canvas = figure.legends[0].get_window_extent(), figure.bbox
    assert canvas.x0 <= box.x0 <= box.x1 <= canvas.x1
    plt.close(figure)


def test_tables_have_the_numbers_of_the_points(runs):
    question = understood(Question("weight_decay", ("intra_min",), "norm"), runs)
    found = points(question, runs, NONE)
    read = pd.read_csv(io.StringIO(table_of_points(question, found, "csv")))
    assert list(read) == ["model.norm", "weight_decay", *(f"train/intra_min{of}" for of in ("", " sd", " seeds"))]
    np.testing.assert_allclose(read["train/intra_min"], found["mean"], rtol=0, atol=1e-15)
    planted_one = found.assign(mean=0.98765, sd=0.01234)
    latex = table_of_points(question, planted_one, "latex")
    assert r"last & 0.0002 & $0.988 \pm 0.012$ & 5 \\" in latex
    assert r"train/intra\_min" in latex
    assert "0.988 ± 0.012" in table_of_points(question, planted_one, "text")


@pytest.mark.parametrize("seeds", [(5, 5), (5, 3)])
def test_two_sweeps_are_compared_seed_by_seed(seeds):
    one, other = (
        runs_of(lambda norm, decay, up=up: {"intra_min": 0.5 + up}, norms=("last",), seeds=count, rng=up).assign(
            **{"optimizer.name": name}
        )
        for up, count, name in zip((0, 1), seeds, ("adam", "sgd"), strict=True)
    )
    lines, table = compare(one, other, ["train/intra_min"])
    assert lines == ["optimizer.name: A adam, B sgd"]
    assert list(table["weight_decay"]) == sorted(one["weight_decay"].unique())
    for _, row in table.iterrows():
        mine, theirs = (
            runs[runs["weight_decay"] == row["weight_decay"]].set_index("seed")["train/intra_min"]
            for runs in (one, other)
        )
        both = mine.index.intersection(theirs.index)
        low, high = stats.ttest_rel(theirs[both], mine[both]).confidence_interval(0.95)
        assert (row["A"], row["B"], row["seeds"]) == (mine.mean(), theirs.mean(), len(both))
        assert (row["B - A"], row["low"], row["high"]) == pytest.approx(((theirs - mine).mean(), low, high), abs=1e-12)
    assert "+1.0" in table_of_differences(table, "text")


def test_sweeps_without_common_seeds_are_compared_by_their_means(runs):
    other = planted(rng=3).assign(seed=lambda table: table["seed"] + 10, **{"model.width": 9})
    lines, table = compare(runs, other, ["train/intra_min"])
    assert lines == ["model.width: A missing, B 9"]
    row = table.iloc[0]
    mine, theirs = (
        part[(part["model.norm"] == "last") & (part["weight_decay"] == row["weight_decay"])]["train/intra_min"]
        for part in (runs, other)
    )
    low, high = stats.ttest_ind(theirs, mine, equal_var=False).confidence_interval(0.95)
    assert (row["low"], row["high"], row["seeds"]) == pytest.approx((low, high, 0), abs=1e-12)
    assert table_of_differences(table, "text").splitlines()[1].endswith("5, 5")


def test_what_only_one_sweep_has_is_counted(runs):
    lines, table = compare(runs, runs[runs["model.norm"] == "last"].assign(folder="b"), ["train/intra_min"])
    assert lines == ["only in A: 5 settings"]
    assert len(table) == 5
    assert (table["B - A"] == 0).all()
    with pytest.raises(ArgumentError, match=r"two sweeps must have a setting in common"):
        compare(runs, runs.assign(weight_decay=runs["weight_decay"] + 1), ["train/intra_min"])


def test_command_answers_on_stdout_or_in_a_file(runs, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(figures, "load_runs", lambda *folders: runs)
    command = [str(tmp_path), "--x", "weight_decay", "--y", "intra_min", "--hue", "norm"]
    figures.main([*command, "--table", "csv"])
    told = capsys.readouterr()
    assert len(pd.read_csv(io.StringIO(told.out))) == 10
    assert told.err == "50 runs: 50 done\n"
    figures.main([*command, "--format", "svg"])
    written = tmp_path / "figures/train_intra_min_against_weight_decay_by_model.norm.svg"
    assert capsys.readouterr().out == f"{written}\n"
    written.write_text("mine")
    with pytest.raises(SystemExit):
        figures.main([*command, "--format", "svg"])
    assert "was not drawn by ncflow" in capsys.readouterr().err
    assert written.read_text() == "mine"
    for wrong, said in [
        (["--x", "weight_decay"], "--y must be given with --x"),
        (["--y", "intra_min"], "--x must be given with --y"),
        (["--compare"], "--compare takes two folders, --y, --where and --table, found 1 folders"),
        (["--x", "decay", "--y", "intra_min"], "x must be a column"),
    ]:
        with pytest.raises(SystemExit) as ended:
            figures.main([str(tmp_path), *wrong])
        assert ended.value.code == 2
        assert said in capsys.readouterr().err


def test_what_was_measured_again_of_a_run_is_no_other_run(runs):
    more = runs.iloc[:3].assign(
        **{"run_id": ["x", "y", "z"], "remeasured.run_id": runs["run_id"].iloc[:3], "train/gnc2_log_mean": 0.5}
    )
    alone = more.iloc[2:].assign(**{"remeasured.run_id": "not here", "run_id": "w"})
    found, again = once(pd.concat([more, alone, runs], ignore_index=True))
    assert again == 0
    assert sorted(found["run_id"]) == sorted([*runs["run_id"], "w"])
    own = found.set_index("run_id").loc[runs["run_id"]]
    assert own["train/gnc2_log_mean"].notna().tolist() == [True] * 3 + [False] * (len(runs) - 3)
    np.testing.assert_array_equal(own["train/intra_min"], runs["train/intra_min"])
