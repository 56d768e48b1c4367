"""Folders that disks, other programs and people have damaged: a line each, and the rest as if nothing had been."""

import html
import io
import json
import math
import os
import random
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from ncflow.cli import theory
from ncflow.cli.figures import main
from ncflow.cli.status import main as status
from ncflow.figures import files, style
from ncflow.figures.papers.claims import judge
from ncflow.figures.papers.figures import FIGURES, drawings
from ncflow.figures.papers.pan_cao.claims import CLAIMS
from ncflow.figures.plots.collapse import collapse_against
from ncflow.figures.plots.geometry import animate
from ncflow.figures.plots.panels import norm_entries
from ncflow.figures.told import summary
from ncflow.figures.varied import panel_title, panels
from ncflow.results import (
    MARGIN_QUANTILES,
    Snapshot,
    Status,
    load_history,
    load_margins,
    load_runs,
    load_snapshots,
    write_json,
)
from tests import damages
from tests.figures.test_cbmm_117 import sweep as memo
from tests.figures.test_figures import sweep
from tests.figures.test_pan_thesis import sweep as thesis


@pytest.fixture
def runs(tmp_path):
    """Twelve runs, and the folder of one of them."""
    sweep(tmp_path / "runs", data=["digits"])
    return tmp_path / "runs", tmp_path / "runs" / "digits-last-0.001-None-0"


def edit(folder, name="result.json", **values):
    path = folder / name
    write_json(path, {**json.loads(path.read_text()), **{key.replace("__", "."): v for key, v in values.items()}})


def reason(folder):
    table = load_runs(folder)
    (why,) = table.loc[table["status"] == Status.UNREADABLE, "error"]
    assert len(table) == 12
    assert "\n" not in why
    return why


# --- reading


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "result.json is empty"),
        (b"{", "result.json is no whole JSON"),
        (b"[" * 100_000, "result.json is no whole JSON"),
        (b"[1]", "result.json is no JSON mapping"),
        (b"\xff\xfe{}", "result.json is no UTF-8 text"),
        (b"\0" * 9, "result.json is no whole JSON"),
        (b"{}", "result.json: the status is none of ncflow's: None"),
        (b'{"status": "fine"}', "result.json: the status is none of ncflow's: fine"),
        (b'{"status": "done", "train/nc1": "a\\nb"}', "result.json: train/nc1 is no number: a b"),
        (b'{"status": "done", "train/nc1": true}', "result.json: train/nc1 is no number: True"),
        (b'{"status": "done", "train/nc1": 1e999}', "result.json: train/nc1 is no plain value: inf"),
        (b'{"status": "done", "train/classes_present": 2.5}', "train/classes_present is no whole number: 2.5"),
        (b'{"status": "done", "model": {"norm": 1}}', "result.json: model is no plain value: {'norm': 1}"),
        (b'{"status": "done", "seed": "x"}', "result.json: seed is no whole number: x"),
        (b'{"status": "done", "name": 3}', "result.json: name is no text: 3"),
    ],
)
def test_a_result_that_is_none_is_unreadable(runs, content, why):
    root, folder = runs
    (folder / "result.json").write_bytes(content)
    assert reason(root).endswith(why)


def test_plain_values_are_read_whatever_they_mean(runs):
    root, folder = runs
    before = load_runs(root)
    edit(folder, data__crop=[1, [2, {"a": None}]], data__extra={}, model__norm=["a", 1], **{"train/nc1": None})
    after = load_runs(root)
    assert set(after["status"]) == {"done"}
    assert after[before.columns.drop("model.norm")].dtypes.equals(before.drop(columns="model.norm").dtypes)


def replaced_by_a_folder(path):
    path.unlink()
    path.mkdir()


def replaced_by_a_pipe(path):
    path.unlink()
    os.mkfifo(path)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("replace", [replaced_by_a_folder, replaced_by_a_pipe])
@pytest.mark.parametrize("name", ["result.json", "run.json", "history.csv"])
def test_what_is_no_file_is_not_opened(runs, capsys, caplog, replace, name):
    root, folder = runs
    replace(folder / name)
    if name == "history.csv":
        assert folder.name not in str(load_history(root)["folder"].unique())
        assert caplog.messages == [f"unreadable: {folder / name}: is no file"]
    else:
        assert reason(root) == f"{name} is no file"
        status([str(root)])
        assert f"unreadable: {folder.name}: {name} is no file" in capsys.readouterr().out


def test_a_file_that_may_not_be_read_costs_a_line(runs, monkeypatch, caplog):
    root, folder = runs

    opened = io.open  # what pathlib opens files with

    def refuse(file, *arguments, **options):
        if folder in Path(file).parents:
            raise PermissionError(13, "Permission denied")
        return opened(file, *arguments, **options)

    monkeypatch.setattr(io, "open", refuse)
    assert reason(root) == "PermissionError: Permission denied"
    assert load_history(root)["folder"].nunique() == 11
    assert caplog.messages == [f"unreadable: {folder}/history.csv: PermissionError: Permission denied"]


HEADER = "epoch,split,layer,loss\n"


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "is empty"),
        (b"\n\n", "is empty"),
        (b"0,train,last,0.5\n5,train,last,0.4\n", "has no header"),
        (b"epoch,split,layer,loss,score\n0,train,last,0.5,1\n", "has columns that are not ncflow's: score"),
        (b"epoch,split,loss\n0,train,1\n", "lacks the columns layer"),
        (f"{HEADER}0,train,last,0.5\0\n".encode(), "has NUL bytes"),
        (f"{HEADER}0,train,last,".encode() + b"\xff\n", "is no UTF-8 text"),
        (f"{HEADER}0,train,last,x\n".encode(), "loss is not all numbers"),
        (f"{HEADER}0,train,last,True\n".encode(), "loss is not all numbers"),
        (f"{HEADER}0,train,last,1e999\n".encode(), "loss has a number that is too large"),
        (f"{HEADER}0,train,last,{'1' * 400}\n".encode(), "loss has a number that is too large"),
        (f"{HEADER}0.5,train,last,1\n".encode(), "epoch is not all whole numbers"),
        (f"{HEADER},train,last,1\n".encode(), "epoch is not all whole numbers"),
        (f"{HEADER}0,train,last\n5,train,last,1\n".encode(), "row 1 has 3 fields instead of 4"),
        (f"{HEADER}0,train,last,1,2\n".encode(), "row 1 has 5 fields instead of 4"),
        (f"{HEADER}0,train,last,{'1' * 200_000}\n".encode(), "has a line of more than 100000 bytes"),
    ],
)
def test_a_history_that_is_none_is_left_out_in_one_line(runs, caplog, content, why):
    root, folder = runs
    whole = load_history(root)
    (folder / "history.csv").write_bytes(content)
    table = load_history(root)
    pd.testing.assert_frame_equal(table, whole[whole["folder"] != str(folder)].reset_index(drop=True))
    assert caplog.messages == [f"unreadable: {folder}/history.csv: {why}"]


def test_infinite_losses_and_torn_last_lines_are_read(runs, caplog):
    root, folder = runs
    path = folder / "history.csv"
    for torn in ("", "10,tr", "10,train,last,0.1e", "10,train,last,", "10"):
        path.write_text(f"{HEADER}0,train,last,inf\n5,train,last,-inf\n{torn}")
        rows = load_history(folder).dropna(subset=["loss"])
        assert rows["loss"].tolist() == [math.inf, -math.inf]
        assert rows["epoch"].dtype == np.int64
    path.write_text(HEADER)
    assert load_history(root)["epoch"].dtype == np.int64
    assert caplog.messages == []


def test_margins_are_read_like_the_history(runs, caplog):
    root, folder = runs
    row = {"epoch": 0, "step": 0, "rho": 1.0, "samples": 4, **dict.fromkeys(MARGIN_QUANTILES, 0.5)}
    pd.DataFrame([row]).to_csv(folder / "margins.csv", index=False)
    assert len(load_margins(root)) == 1
    pd.DataFrame([{**row, "step": 0.5}]).to_csv(folder / "margins.csv", index=False)
    assert len(load_margins(root)) == 0
    assert caplog.messages == [f"unreadable: {folder}/margins.csv: step is not all whole numbers"]


def snapshot(**changed):
    rng = np.random.default_rng(0)
    arrays = {"features": rng.normal(size=(6, 5)), "labels": np.array([0, 1, 2] * 2), "means": rng.normal(size=(3, 5))}
    arrays |= {"center": rng.normal(size=5), "weight": rng.normal(size=(3, 5)), "inputs": np.zeros((6, 0))}
    arrays = {name: array.astype(np.float32) if array.dtype.kind == "f" else array for name, array in arrays.items()}
    return {**arrays, **changed}


def test_a_snapshot_that_is_none_is_left_out_in_one_line(runs, caplog):
    _, folder = runs
    kept = folder / "snapshots"
    kept.mkdir()
    for epoch in (0, 5):
        np.savez_compressed(kept / f"epoch_{epoch:05d}.npz", **snapshot())
    damaged = bytearray((kept / "epoch_00005.npz").read_bytes())
    damaged[200] ^= 8
    (kept / "epoch_00010.npz").write_bytes(damaged)
    (kept / "epoch_00015.npz").write_bytes(b"")
    (kept / "epoch_00020.npz").mkdir()
    os.mkfifo(kept / "epoch_00025.npz")
    (kept / "epoch_last.npz").write_bytes((kept / "epoch_00005.npz").read_bytes())
    odd = {"labels": np.full(6, 3)}, {"center": np.zeros(4, np.float32)}, {"means": np.array(["a"])}
    for epoch, changed in enumerate(odd, start=30):
        np.savez_compressed(kept / f"epoch_{epoch:05d}.npz", **snapshot(**changed))
    assert [found.epoch for found in load_snapshots(folder)] == [0, 5]
    assert len(caplog.messages) == 8
    assert all("\n" not in line and line.startswith(f"unreadable: {kept}/epoch_") for line in caplog.messages)


# --- drawing


def test_an_empty_history_costs_a_line_and_the_rest_is_drawn(runs, capsys):
    root, folder = runs
    (folder / "history.csv").write_text("")
    main([str(root), "--figure", "fig2"])
    out, err = capsys.readouterr()
    assert err == f"ncflow-figures: unreadable: {folder}/history.csv: is empty\n"
    assert "12 runs: 12 done" in out
    assert out.count("SUPPORTED  ") == 3  # of the thesis' conjecture the digits are shown and do not count
    assert (root / "figures/fig2.png").exists()


OWN_NORMS = ("my norm $$", None, 3, [1, "a"], True, "x\ny", "last")


def test_a_norm_of_a_users_own_has_a_look_of_its_own(runs, capsys, monkeypatch):
    """In a figure of its own kind and in the trajectories and the gap, which look it up elsewhere."""
    root, _ = runs
    for folder, norm in zip(sorted(root.glob("digits-last-*")), OWN_NORMS, strict=False):
        edit(folder, model__norm=norm)
        if norm == "my norm $$":
            edit(folder, data__name="my $x^ data")
    monkeypatch.setattr("ncflow.figures.report.drawn.render", lambda figure, kind: b"")
    main([str(root)])
    assert {file.name for file in (root / "figures").iterdir()} >= {"fig2.png", "gap.png"}
    assert capsys.readouterr().err == ""
    own = list(map(str, OWN_NORMS[:-1]))
    looks = style.norm_looks([*own, "last"])
    assert looks["last"] == (style.COLOURS["last"], style.MARKERS["last"])
    assert len(set(looks.values())) == len(looks)
    assert len({looks[norm][0] for norm in own}) == 3
    for norm in own:
        assert looks[norm][0] not in style.COLOURS.values()
        assert looks[norm][1] not in style.MARKERS.values()
        assert style.norm_label(norm) == style.words(norm)
        assert style.norm_order(norm) > style.norm_order("none")


def test_norms_of_ours_come_first(runs):
    table = load_runs(runs[0]).assign(**{"model.norm": ["zz", "none", "aa", "last"] * 3})
    labels = [entry.get_label() for entry in norm_entries(table)]
    assert labels == ["BN before the classifier", "no BN", "aa", "zz"]


NAMES = ("$$", "a $x^2$ b", "$", r"back\slash $\frac$", "a\nb\x1b[2J", "x" * 400, "\ud800", "<script>")


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_any_name_is_drawn_as_it_is(tmp_path, name):
    style.use()
    table, _ = sweep(tmp_path, data=["digits"], seeds=1)
    both = pd.concat([table, table.assign(**{"data.name": name, "model.norm": name})], ignore_index=True)
    figure = collapse_against(both, "weight_decay")
    figure.draw_without_rendering()
    drawn = [axis.get_title() for axis in figure.axes] + [text.get_text() for text in figure.legends[0].get_texts()]
    lines = [text.split("\n") for text in drawn]  # long ones are folded
    expected = style.literal(style.words(name)).replace(" ", "")
    assert ["".join(parts).replace(" ", "") for parts in lines].count(expected) == 2
    assert all(len(parts) < 4 and all(len(part) <= 60 for part in parts) for parts in lines)


def test_the_letters_of_a_name_with_dollars_are_in_the_picture(tmp_path):
    """Text is text in an SVG: mathtext would have left out the dollars and set the letters one by one."""
    style.use()
    table, _ = sweep(tmp_path, data=["digits"], seeds=1)
    both = pd.concat([table, table.assign(**{"data.name": "cost $x^2$"})], ignore_index=True)
    assert b">cost $x^2$<" in files.render(collapse_against(both, "weight_decay"), "svg")


def test_names_in_the_report_stay_text(runs):
    root, folder = runs
    edit(folder, data__name="<script>$$")
    main([str(root), "--figure", "fig2", "--html"])
    page = (root / "figures/report.html").read_text()
    assert "<script>$$" not in page
    assert "<script>$$" in html.unescape(page)


def test_long_and_like_names_give_each_panel_a_file(runs, monkeypatch):
    root, _ = runs
    monkeypatch.setattr("ncflow.figures.report.drawn.render", lambda figure, kind: b"")
    named = ["漢" * 300, "字" * 300, "a b", "a$b"]
    for number, folder in enumerate(sorted(root.iterdir())):
        edit(folder, data__name=named[number % 4], model__kind="漢" * (9 + 99 * (number // 4 % 2)))
    main([str(root), "--figure", "trajectories", "--format", "svg"])
    names = {file.name for file in (root / "figures").iterdir()}
    assert len(names) == 9
    assert {f"trajectories_a_b_kind_{'漢' * 9}.svg", f"trajectories_a_b_kind_{'漢' * 9}_2.svg"} <= names
    assert all(len(name.encode()) < 200 for name in names)


def test_panels_of_mixed_types_have_an_order():
    values = ["b", 2, None, [2, "x"], 10, [10], {"a": 1}, "a", 1.5]
    table = pd.DataFrame({"data.name": "d", "data.option": pd.Series(values, dtype=object)})
    found = [values["data.option"] for values, _ in panels(table)]
    assert found[:6] == [1.5, 2, 10, "a", "b", {"a": 1}]
    assert found[6:8] == [(2, "x"), (10,)]
    assert pd.isna(found[8])
    assert panel_title({"data.option": {"a": 1}}) == "option {'a': 1}"


def test_what_is_no_number_is_no_value(runs):
    """A run whose gamma is a word is none of a fixed gamma, and one without a depth is judged all the same."""
    table, history = load_runs(runs[0]), load_history(runs[0])
    odd = table.assign(**{"model.gamma": ["x"] * 12}).drop(columns=["model.depth", "data.name"])
    assert [claim(odd, history).answer for claim in CLAIMS] == [claim(table, history).answer for claim in CLAIMS]
    assert {drawing.name for drawing in drawings(odd, history, ["fig2", "fig4"])} == {"fig2"}


def test_a_figure_and_a_claim_that_fail_cost_a_line_each(runs, capsys, monkeypatch):
    root, _ = runs

    def fail(*arguments):
        raise RuntimeError("no\nway")

    monkeypatch.setattr("ncflow.figures.papers.pan_cao.figures.collapse_against", fail)
    monkeypatch.setattr("ncflow.figures.papers.claims.CLAIMS", {"pan_cao": (fail, *CLAIMS[1:])})
    with pytest.raises(SystemExit, match="1"):
        main([str(root), "--figure", "fig2", "--figure", "gap"])
    out, err = capsys.readouterr()
    assert err.splitlines() == [
        "ncflow-figures: not drawn: fig2: RuntimeError: no way",
        "ncflow-figures: not judged: fail: RuntimeError: no way",
    ]
    assert out.count("SUPPORTED  ") == 2
    assert sorted(file.name for file in (root / "figures").iterdir()) == ["gap.png", "verdicts.json"]


def test_a_recipe_that_fails_keeps_what_it_had_and_what_others_have(runs, capsys, monkeypatch):
    root, _ = runs

    def broken(runs, history):
        yield from drawings(runs, history, ["gap"])
        raise ValueError("later")

    monkeypatch.setitem(FIGURES, "broken", broken)
    with pytest.raises(SystemExit, match="1"):
        main([str(root), "--figure", "broken"])
    assert capsys.readouterr().err == "ncflow-figures: not drawn: broken: ValueError: later\n"
    assert sorted(file.name for file in (root / "figures").iterdir()) == ["gap.png", "verdicts.json"]


def test_a_file_that_several_figures_read_is_named_once(whole, tmp_path, capsys):
    root = damages.copy(whole / "cbmm_117", tmp_path / "runs")
    (folder := sorted(root.iterdir())[0]).joinpath("margins.csv").write_text("x\n")
    (tmp_path / "cbmm_fig3.png").write_text("mine")  # so that none is drawn
    with pytest.raises(SystemExit, match="2"):
        main([str(root), "--out", str(tmp_path), *(f"--figure=cbmm_fig{number}" for number in (3, 4, 5))])
    first, last = capsys.readouterr().err.splitlines()
    assert first == f"ncflow-figures: unreadable: {folder}/margins.csv: has no header"
    assert last == f"ncflow-figures: error: {tmp_path}/cbmm_fig3.png {REFUSAL}"


# --- files of others


REFUSAL = "exists and was not drawn by ncflow: move it, or choose another --out"


@pytest.mark.parametrize("name", ["fig2.png", "gap.svg", "report.html"])
def test_a_file_of_somebody_else_is_never_written_over(runs, tmp_path, capsys, name):
    root, _ = runs
    out = tmp_path / "out"
    out.mkdir()
    (out / name).write_bytes(b"mine")
    with pytest.raises(SystemExit, match="2"):
        main([str(root), "--format", "svg", "--format", "png", "--html", "--out", str(out)])
    assert capsys.readouterr().err == f"ncflow-figures: error: {out / name} {REFUSAL}\n"
    assert [(file.name, file.read_bytes()) for file in out.iterdir()] == [(name, b"mine")]


def test_a_figure_by_another_program_a_link_and_a_pipe_are_refused_too(tmp_path):
    style.use()
    plt.subplots()[0].savefig(tmp_path / "theirs.png")
    (tmp_path / "link.png").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe.png")
    for name in ("theirs", "link", "pipe"):
        with pytest.raises(FileExistsError, match=f"{name}.png exists and was not drawn by ncflow"):
            files.write_own(tmp_path / f"{name}.png", b"")


def test_our_own_files_are_replaced(runs, capsys):
    root, _ = runs
    formats = ["--format", "png", "--format", "svg", "--format", "pdf"]
    for _ in range(2):
        main([str(root), "--figure", "fig2", *formats, "--html"])
    assert len(list((root / "figures").iterdir())) == 5
    assert Image.open(root / "figures/fig2.png").info["Software"] == "ncflow"


def test_an_animation_carries_the_mark(tmp_path):
    style.use()
    movie = animate([Snapshot(epoch, *snapshot().values()) for epoch in (0, 5)])
    assert Image.open(io.BytesIO(movie)).info["comment"] == b"ncflow"
    for _ in range(2):
        files.write_own(tmp_path / "fig1_animation.gif", movie)


def test_the_theory_writes_over_nothing_either(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(theory, "_path", lambda *arguments: None)
    monkeypatch.setattr(theory, "_flow_row", lambda *arguments: "")
    (tmp_path / "margins.svg").write_text("mine")
    with pytest.raises(SystemExit, match="2"):
        theory.main(["flow", "--out", str(tmp_path), "--format", "svg"])
    assert capsys.readouterr().err == f"ncflow-theory: error: {tmp_path / 'margins.svg'} {REFUSAL}\n"
    assert [file.read_text() for file in tmp_path.iterdir()] == ["mine"]


# --- at random


CASES, DRAWN = 66, (0, 1, 2)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A small sweep of each paper, with every file that a run may leave."""
    root = tmp_path_factory.mktemp("whole")
    sweep(root / "pan_cao", data=["digits"], seeds=1)
    memo(root / "cbmm_117", inits=(1.0, 3.0), seeds=1)
    thesis(root / "pan_thesis", seeds=1)
    quantiles = {name: 0.1 * number for number, name in enumerate(MARGIN_QUANTILES)}
    rows = pd.DataFrame([{"epoch": step, "step": step, "rho": 1.0, "samples": 9, **quantiles} for step in range(3)])
    for folder in root.glob("*/*"):
        write_json(folder / "run.json", {"experiment": folder.parent.name, "status": "running"})
        write_json(folder / "job.json", {"run_id": folder.name, "job": "1", "log": "x"})
        write_json(folder / "progress.json", {"epoch": 5, "epochs": 50, "seconds": 1.0})
        rows.to_csv(folder / "margins.csv", index=False)
    return root


@pytest.fixture(autouse=True)
def _without_squeue(monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")


def code_of(main, arguments):
    try:
        main(arguments)
    except SystemExit as end:
        return end.code
    return 0


@pytest.mark.timeout(60)
@pytest.mark.parametrize("case", range(CASES))
def test_damage_costs_a_line_and_nothing_else(whole, tmp_path, capsys, caplog, monkeypatch, case):
    rng = random.Random(case)
    paper = sorted(path.name for path in whole.iterdir())[case % 3]
    root = damages.copy(whole / paper, tmp_path / paper)
    damaged = {str(folder) for folder in damages.damage(root, rng)}
    intact = {str(folder) for folder in root.iterdir()} - damaged
    expected, kept = load_runs(whole / paper), load_history(whole / paper)

    table, history = load_runs(root), load_history(root)
    assert intact <= set(table["folder"])
    assert set(table.loc[table["status"] == Status.UNREADABLE, "folder"]) <= damaged
    for before, after, where in ((expected, table, ["folder"]), (kept, history, ["folder", "epoch", "split", "layer"])):
        before = before.assign(folder=before["folder"].str.replace(str(whole), str(tmp_path)))
        mine, theirs = (part[part["folder"].isin(intact)].set_index(where) for part in (after, before))
        mine = mine.reindex(columns=list(theirs))  # what only damaged runs have, or no other
        assert mine.index.equals(theirs.index)
        assert ((mine == theirs) | (mine.isna() & theirs.isna())).all(axis=None)
    assert len(summary(table).splitlines()) == 1 + (table["status"] != "done").sum()
    assert len(set(caplog.messages)) == len(caplog.messages)
    assert all("\n" not in line and line.startswith("unreadable: ") for line in caplog.messages)
    judge(table, history)
    for drawing in drawings(table, history):
        assert drawing.name
        if case in DRAWN or case % 12 == 3:
            assert drawing.content

    assert code_of(status, [str(root)]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"{len(table)} runs: ")
    if case in DRAWN:
        if case > 0:
            monkeypatch.setattr("ncflow.figures.report.drawn.render", lambda figure, kind: b"")
        assert code_of(main, [str(root), "--html"]) == 0
        out, err = capsys.readouterr()
        lines = [line for line in [*out.splitlines(), *err.splitlines()] if "unreadable: " in line]
        assert all(sum(folder in line for line in lines) <= 2 for folder in damaged)
        assert not [line for line in lines if not any(folder in line for folder in damaged)]
        assert {file.suffix for file in (root / "figures").iterdir()} == {".png", ".html", ".json"}


def test_planned_damage_leaves_every_figure(whole, tmp_path, capsys):
    """Three damaged runs of six, each in another way, and the same figures as of whole folders."""
    root = damages.copy(whole / "pan_cao", tmp_path / "runs")
    names = {drawing.name for drawing in drawings(load_runs(root), load_history(root))}
    first, second, third, *_ = sorted(root.iterdir())
    (first / "result.json").write_text("{")
    (second / "history.csv").write_bytes(b"\0")
    replaced_by_a_pipe(third / "result.json")
    main([str(root)])
    out, err = capsys.readouterr()
    assert out.splitlines()[:3] == [
        "6 runs: 4 done, 2 unreadable",
        f"  unreadable: {first}: result.json is no whole JSON",
        f"  unreadable: {third}: result.json is no file",
    ]
    assert err == f"ncflow-figures: unreadable: {second}/history.csv: has NUL bytes\n"
    assert {file.stem for file in (root / "figures").iterdir()} == names | {"verdicts"}


def test_where_every_run_is_unreadable_each_has_its_line(whole, tmp_path, capsys):
    root = damages.copy(whole / "pan_cao", tmp_path / "runs")
    for folder in root.iterdir():
        (folder / "result.json").write_text('{"status": "done", "seed": []}')
    assert code_of(main, [str(root)]) == 1
    out, err = capsys.readouterr()
    assert all(line.startswith("no figure; what it needs: ") for line in err.splitlines())
    assert "fig2: finished runs at two weight decays or more" in err
    assert out.count("result.json: seed is no whole number: []") == 6
