import json
import math

import pandas as pd
import pytest

from ncflow.checks import ArgumentError
from ncflow.results import (
    COLUMNS,
    History,
    Report,
    final_measures,
    load_history,
    load_much_history,
    load_runs,
    lock,
    read_json,
    run_folders,
    status_of,
    write_atomically,
    write_json,
)


def row(epoch, **values):
    return {"epoch": epoch, "split": "train", "layer": "last", "loss": 0.1 + epoch, **values}


def test_history_grows_and_keeps_every_digit(tmp_path):
    history = History(tmp_path / "history.csv")
    value = 0.1 + 0.2
    history.append([row(0, intra_min=value)])
    history.append([row(5)])
    lines = history.path.read_text().splitlines()
    assert lines[0] == ",".join(COLUMNS)
    assert float(lines[1].split(",")[COLUMNS.index("intra_min")]) == value
    assert lines[2].startswith("5,train,last,5.1,")


def test_history_with_its_config(tmp_path):
    for seed in (0, 1):
        folder = tmp_path / f"run{seed}"
        described = {"run_id": f"{seed}", "seed": seed, "model.norm": "last", "train/loss": 9.0, "loss": "of a user"}
        write_json(folder / "result.json", {**described, "status": "done"})
        History(folder / "history.csv").append([row(0, intra_min=0.5), row(5, intra_min=0.75)])
    table, alone = load_history(tmp_path, config=True), load_history(tmp_path)
    assert list(table["seed"]) == [0, 0, 1, 1]
    assert set(table["model.norm"]) == {"last"}
    assert "train/loss" not in table
    pd.testing.assert_frame_equal(table[list(alone)], alone)
    (tmp_path / "empty").mkdir()
    assert load_history(tmp_path / "empty", config=True).empty


def test_history_refuses_a_measure_it_has_no_column_for(tmp_path):
    with pytest.raises(ValueError, match="nonsense"):
        History(tmp_path / "history.csv").append([row(0, nonsense=1)])


def test_a_table_goes_back_to_its_mark_and_drops_a_torn_line(tmp_path):
    history = History(tmp_path / "history.csv")
    history.append([row(0), row(5)])
    mark, before = history.mark, history.path.read_text()
    history.append([row(10)])
    history.path.write_text(history.path.read_text() + "15,train,last,0.")
    again = History(history.path)
    assert again.agrees(mark)
    again.go_back(mark)
    assert history.path.read_text() == before
    assert again.mark == mark
    again.append([row(10)])
    assert [line.split(",")[0] for line in history.path.read_text().splitlines()] == ["epoch", "0", "5", "10"]


CHANGES = {
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-20]),
    "emptied": lambda path: path.write_bytes(b""),
    "zeroed": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "deleted": lambda path: path.unlink(),
    "another digit": lambda path: path.write_text(path.read_text().replace("5.1", "5.2")),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_table_agrees_with_no_mark(change, tmp_path):
    history = History(tmp_path / "history.csv")
    history.append([row(0), row(5)])
    mark = history.mark
    CHANGES[change](history.path)
    again = History(history.path)
    assert not again.agrees(mark)
    with pytest.raises(ArgumentError, match="history must be the file, as it was, with which the checkpoint was saved"):
        again.go_back(mark)
    with pytest.raises(OSError, match=r"history\.csv"):
        history.check()
    if change not in ("zeroed", "another digit"):  # which a look at the length does not see
        with pytest.raises(OSError, match=r"history\.csv"):
            history.append([row(10)])


OLDER = tuple(column for column in COLUMNS if column not in ("intra_raw_min", "inter_raw_max", "quasi_gap"))


def test_a_table_that_was_begun_without_some_columns_goes_on_without_them(tmp_path):
    older = History(tmp_path / "history.csv", OLDER)
    older.append([row(0, intra_min=0.1)])
    mark = older.mark
    older.append([row(3)])
    again = History(older.path)
    assert again.agrees(mark)
    again.go_back(mark)
    again.append([row(5, intra_min=0.2, intra_raw_min=0.3)])
    again.check()
    assert History(older.path).agrees(again.mark)
    table = pd.read_csv(older.path)
    assert tuple(table) == OLDER
    assert table["epoch"].tolist() == [0, 5]
    assert table["intra_min"].tolist() == [0.1, 0.2]
    with pytest.raises(ValueError, match="nonsense"):
        again.append([row(6, nonsense=1)])
    again.start()
    assert older.path.read_text() == ",".join(COLUMNS) + "\n"


@pytest.mark.parametrize("columns", [(*COLUMNS, "of_tomorrow"), COLUMNS[1:], (*COLUMNS[:3], *COLUMNS[:2:-1])])
def test_a_table_with_columns_that_this_version_does_not_have_does_not_go_on(columns, tmp_path):
    other = History(tmp_path / "history.csv", columns)
    other.append([{"split": "train", "layer": "last", "intra_min": 0.1}])
    assert not History(other.path).agrees(other.mark)


def test_a_table_starts_anew_over_a_table_alone(tmp_path):
    path = tmp_path / "history.csv"
    for before in (None, "", "epoch,split,layer,intra_min\n0,train,last,0.1\n"):
        if before is not None:
            path.write_text(before)
        History(path).start()
        assert path.read_text() == ",".join(COLUMNS) + "\n"
    path.write_text("my own notes\n")
    with pytest.raises(ArgumentError, match="history must be a new file or an earlier table of the same kind"):
        History(path).start()
    assert path.read_text() == "my own notes\n"
    History(path, owned=True).start()
    assert path.read_text() == ",".join(COLUMNS) + "\n"


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomically(path, "old")
    monkeypatch.setattr("os.replace", lambda *a: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_what_a_killed_process_left_of_a_write_is_written_over(tmp_path):
    (tmp_path / ".file.tmp").write_text("half of the con")
    write_atomically(tmp_path / "file", "content")
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("file", "content")]


def test_json_is_json_everywhere(tmp_path):
    write_json(tmp_path / "x.json", {"a": math.nan, "b": math.inf, "c": 1.5})
    assert json.loads((tmp_path / "x.json").read_text(), parse_constant=pytest.fail) == {"a": None, "b": None, "c": 1.5}
    (tmp_path / "torn.json").write_text('{"a": 1')
    assert read_json(tmp_path / "torn.json") is None
    assert read_json(tmp_path / "none.json") is None
    assert read_json(tmp_path) is None
    for foreign in ("[" * 100_000, "1" * 10_000, "[1]"):
        (tmp_path / "foreign.json").write_text(foreign)
        assert read_json(tmp_path / "foreign.json") is None


def test_final_measures_are_named_by_split_and_layer():
    rows = [row(5, intra_min=1.0), {"epoch": 5, "split": "test", "layer": "layers.0", "intra_min": 0.5}]
    assert final_measures(rows) == {"train/loss": 5.1, "train/intra_min": 1.0, "test/layers.0/intra_min": 0.5}


def make(folder, status, **values):
    folder.mkdir(parents=True)
    write_json(folder / "run.json", {"run_id": folder.name, "seed": 1, "status": "running", **values})
    if status in ("done", "diverged"):
        write_json(folder / "result.json", {"run_id": folder.name, "seed": 1, "status": status, "train/intra_min": 0.5})
    elif status == "failed":
        write_json(folder / "run.json", {"run_id": folder.name, "seed": 1, "status": "failed", "error": "boom"})


def test_load_runs_has_a_row_for_every_run_whatever_became_of_it(tmp_path):
    for status in ("done", "diverged", "failed", "interrupted", "running"):
        make(tmp_path / "sweep" / status, status)
    (tmp_path / "sweep" / "figures").mkdir()
    with lock(tmp_path / "sweep" / "running").acquire(timeout=0):
        import subprocess
        import sys

        # From another process, as a lock is free for the process that holds it.
        code = "import sys, ncflow.results as r; t = r.load_runs(sys.argv[1]); print(*t.status, t.seed.sum())"
        out = subprocess.check_output([sys.executable, "-c", code, str(tmp_path)], text=True)
    assert out.split() == ["diverged", "done", "failed", "interrupted", "running", "5"]
    table = load_runs(tmp_path, tmp_path / "sweep")
    assert len(table) == 5
    assert table.set_index("status").loc["failed", "error"] == "boom"
    assert table.set_index("status").loc["done", "train/intra_min"] == 0.5


def test_a_submitted_run_is_pending_until_it_starts(tmp_path):
    make(tmp_path / "a" / "done", "done")
    submitted = {"run_id": "x", "seed": 1, "data.name": "digits"}
    write_json(tmp_path / "a" / "queued" / "job.json", {**submitted, "job": "345_3", "log": "/logs/345_3.out"})
    (tmp_path / "a" / "job.json").mkdir()  # no file, no run
    assert run_folders(tmp_path, tmp_path / "a") == [tmp_path / "a" / "done", tmp_path / "a" / "queued"]
    run = status_of(tmp_path / "a" / "queued")
    status, values = run.status, run.values
    assert (status, values["job"]) == ("pending", "345_3")
    table = load_runs(tmp_path).set_index("status")
    assert table.loc["pending", "data.name"] == "digits"
    assert not {"job", "log"} & set(table)  # where it was submitted is no part of a run's description
    for started, expected in (("running", "interrupted"), ("failed", "failed")):
        write_json(tmp_path / "a" / "queued" / "run.json", {**submitted, "status": started})
        assert status_of(tmp_path / "a" / "queued").status == expected
    write_json(tmp_path / "a" / "queued" / "result.json", {**submitted, "status": "done"})
    assert status_of(tmp_path / "a" / "queued").status == "done"


def test_a_run_that_ends_while_it_is_looked_at_is_done(tmp_path, monkeypatch):
    make(tmp_path / "a", "interrupted")

    def ends(folder):
        write_json(folder / "result.json", {"status": "done"})
        return False

    monkeypatch.setattr("ncflow.results.folder.is_locked", ends)
    assert status_of(tmp_path / "a") == Report("done", str(tmp_path / "a"), values={"status": "done"})


def test_another_programs_result_is_none(tmp_path):
    make(tmp_path / "a", "interrupted")
    for content in ({"score": 1}, {"status": 0}):
        write_json(tmp_path / "a" / "result.json", content)
        assert status_of(tmp_path / "a").status == "interrupted"


@pytest.mark.parametrize("error", [PermissionError(13, "denied"), NotImplementedError("no flock here")])
def test_a_lock_that_cannot_be_tried_is_not_seen(tmp_path, monkeypatch, error):
    make(tmp_path / "a", "interrupted")
    (tmp_path / "a" / ".lock").touch()

    def fail(*arguments, **options):
        raise error

    monkeypatch.setattr("filelock.FileLock.acquire", fail)
    assert status_of(tmp_path / "a").status == "interrupted"


def test_load_history_reads_also_a_run_that_is_being_written(tmp_path):
    make(tmp_path / "a", "done")
    History(tmp_path / "a" / "history.csv").append([row(0), row(5)])
    make(tmp_path / "b", "interrupted")
    History(tmp_path / "b" / "history.csv").append([row(0)])
    with (tmp_path / "b" / "history.csv").open("a") as file:
        file.write("5,train,la")
    table = load_history(tmp_path)
    assert table.dropna(subset=["loss"]).groupby("run_id").size().to_dict() == {"a": 2, "b": 1}


EXACT = "0.1,4.9e-324,1.7976931348623157e308,0.30000000000000004,-5e-5,nan,,0.4142135623730951"
PLAIN = ["loss,accuracy,nc1,rho,cdnv,intra_min,inter_max,weight_norm", EXACT]
LEFT_OUT = {
    "a field too few and one too many": "5,train,last,1\n10,train,last,1,2,3,4,5,6,7,8,9",
    "digits with underscores": f"5,train,last,{EXACT.replace('0.1', '1_0')}",
    "an epoch that is not whole": f"5.5,train,last,{EXACT}",
    "a number that is too large": f"5,train,last,{EXACT.replace('e308', 'e309')}",
    "true": f"5,train,last,{EXACT.replace('0.1', 'true')}",
}
READ = {
    "an infinite loss": f"5,train,last,{EXACT.replace('0.1', 'inf')}",
    "quotes": f'5,train,"last",{EXACT}',
    "spaces and an empty line": f"5,train,last, {EXACT} \n",
}


@pytest.mark.parametrize("odd", [*LEFT_OUT, *READ])
def test_histories_are_read_together_as_they_are_one_by_one(odd, tmp_path, caplog):
    paths = [tmp_path / f"run{number}" / "history.csv" for number in range(3)]
    for number, path in enumerate(paths):
        write_json(path.parent / "result.json", {"run_id": f"{number}", "status": "done"})
        last = {1: {**LEFT_OUT, **READ}[odd]}.get(number, f"5,test,last,{EXACT}")
        path.write_text("\n".join([f"epoch,split,layer,{PLAIN[0]}", f"0,train,last,{PLAIN[1]}", last, ""]))
    table = load_history(tmp_path)
    assert [str(name) for name in table["folder"].unique()] == [
        str(path.parent) for path in paths if odd in READ or path is not paths[1]
    ]
    assert ("run1/history.csv" in caplog.text) == (odd in LEFT_OUT)
    own = table[table["folder"] == str(paths[2].parent)]
    for row in own[PLAIN[0].split(",")].to_numpy().tolist():
        assert [repr(value) for value in row] == [repr(float(text or "nan")) for text in EXACT.split(",")]
    assert own["split"].tolist() == ["train", "test"]
    assert own["epoch"].dtype == int
    for path in paths:
        if odd in READ or path is not paths[1]:
            alone = load_history(path.parent)
            pd.testing.assert_frame_equal(table[table["folder"] == alone["folder"][0]].reset_index(drop=True), alone)


@pytest.mark.parametrize("most", [7, 8])
def test_of_much_history_some_measures_are_kept_and_all_are_named(most, tmp_path):
    for number in range(2):  # two rows of the input of the classifier with two measures each
        write_json(tmp_path / f"run{number}" / "result.json", {"run_id": f"{number}", "status": "done"})
        History(tmp_path / f"run{number}" / "history.csv").append(
            [row(0, nc1=2.0), row(5, nc1=1.0), {**row(5, rho=9.0), "layer": "layers.0"}]
        )
    whole = load_history(tmp_path)
    found, measured = load_much_history(most, ["nc1", "cdnv"], tmp_path)
    assert measured == ["loss", "nc1"]
    kept = list(whole) if most == 8 else ["epoch", "split", "layer", "nc1", "cdnv", "run_id", "folder"]
    pd.testing.assert_frame_equal(found[kept], whole[kept])
    assert set(found) == set(kept)


def test_a_missing_folder_is_named():
    with pytest.raises(FileNotFoundError, match="no folder /no/such"):
        load_runs("/no/such")
