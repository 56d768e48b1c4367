"""Experiments that share runs share them: what one has finished the other takes over, and either shows the figures."""

import json
from pathlib import Path

import pytest

from ncflow.config.identity import describe, without_hydra
from ncflow.figures.tables import once
from ncflow.results import History, RunFolder, Status, load_history, load_runs, stored, write_json
from ncflow.results.files import kept_checkpoint
from ncflow.training import entry
from tests.conftest import TINY, run_folder

FIGURE_14 = ["experiment=cbmm_117/fig14_small", "epochs=2", "model.width=0.05", "measure.every_n_epochs=1"]
FIGURE_14 += ["model.init_norm=1,3", "seed=0", "trainer=cpu", "measure.per_class=true"]
FIGURE_16 = ["experiment=cbmm_117/fig16_small", *FIGURE_14[1:]]
SHARED = {"fig13": "fig11", "fig16": "fig14", "fig17": "fig15", "fig5": "fig4"}


def take_over(folder, cfg, known):
    """As a sweep does: find, then copy."""
    twin = entry.find_twin(folder, known)
    return None if twin is None else entry.take_over(folder, cfg, twin)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("small", ["", "_small"])
@pytest.mark.parametrize("name", SHARED)
def test_figures_of_the_same_runs_are_the_same_grid(name, small, config):
    one, other = (
        config(f"experiment=cbmm_117/{experiment}{small}", return_hydra_config=True)
        for experiment in (name, SHARED[name])
    )
    assert without_hydra(one) == without_hydra(other)
    assert one.hydra.sweeper.params == other.hydra.sweeper.params


def test_one_after_the_other_trains_nothing_and_either_shows_both_figures(ncflow, tmp_path, capsys):
    from ncflow.cli.figures import main

    assert ncflow(*FIGURE_14).stdout.splitlines()[0] == "2 runs: 0 finished already, 2 to do"
    again = ncflow(*FIGURE_16)
    assert again.stdout.splitlines() == ["2 runs: 2 finished already, 0 to do", "2 runs: 2 skipped"]
    store = tmp_path / "runs/cbmm_117"
    for folder in sorted((store / "fig14_small").iterdir()):
        taken = store / "fig16_small" / folder.name
        for name in ("history.csv", "classes.csv", "pairs.csv", "checkpoints/last.ckpt"):
            assert (taken / name).read_bytes() == (folder / name).read_bytes()
        ours, theirs = (json.loads((path / "result.json").read_text()) for path in (taken, folder))
        assert ours == theirs | {"experiment": "cbmm_117/fig16_small"}
        assert "fig16_small" in (taken / ".hydra/hydra.yaml").read_text()
    for experiment in ("fig14_small", "fig16_small"):
        main([str(store / experiment), "--out", str(tmp_path / experiment)])
        drawn = {file.name for file in (tmp_path / experiment).iterdir()}
        assert drawn == {"cbmm_fig14.png", "cbmm_fig16.png", "verdicts.json"}
    assert "in two folders" not in capsys.readouterr().out
    main([str(store), "--out", str(tmp_path / "both")])
    out = capsys.readouterr().out
    assert "2 runs: 2 done" in out
    assert "2 runs in two folders: counted once" in out


def test_a_single_run_is_taken_over_and_counts_as_finished(ncflow, tmp_path):
    assert ncflow(*TINY).returncode == 0
    one = run_folder(tmp_path)
    again = ncflow(*TINY, "hydra.run.dir=${ncflow.runs_dir:}/other/${ncflow.slug:}")
    assert again.stdout == f"finished already: {one.name}\n"
    other = tmp_path / "runs/other" / one.name
    assert (other / "history.csv").read_bytes() == (one / "history.csv").read_bytes()
    assert f"taken over from {one}" in (other / "ncflow.log").read_text()


def test_a_run_keeps_its_folder_whatever_varies_beside_it(ncflow, tmp_path):
    tiny = [*TINY, "epochs=1", "measure.every_n_epochs=1"]
    assert ncflow("-m", *tiny, "optimizer.lr=0.01,0.02").returncode == 0
    names = sorted(path.parent.name for path in tmp_path.rglob("result.json"))
    assert [name.rpartition("-wd")[0] for name in names] == [
        "conic_hull-mlp3-last-lr0.01",
        "conic_hull-mlp3-last-lr0.02",
    ]
    assert set(load_runs(tmp_path)["name"]) == {name.rpartition("-")[0] for name in names}
    assert ncflow(*tiny, "optimizer.lr=0.01").stdout == f"finished already: {names[0]}\n"
    other = ncflow("-m", *tiny, "optimizer.lr=0.02", "batch_size=128,64")
    assert other.stdout.splitlines()[0] == "2 runs: 1 finished already, 1 to do"
    assert len(list(tmp_path.rglob("result.json"))) == 3


@pytest.fixture
def two(config, tmp_path):
    """A config, and its run in two experiments; the first is finished."""
    cfg = config(*TINY, f"runs_dir={tmp_path}")
    described = describe(cfg, "a")
    name = f"{described['name']}-{described['run_id']}"
    first, second = (RunFolder(tmp_path / place / name, describe(cfg, place)) for place in ("a", "paper/b"))
    first.path.mkdir(parents=True)
    first.begin()
    table = History(first.path / "history.csv")
    table.append([{"epoch": 0, "split": "train", "layer": "last", "loss": 1.0}])
    first.finish({**first.described, "status": "done", "seconds": 1.0, **table.digest()})
    return cfg, first, second


def test_what_is_taken_over_is_whole(two, tmp_path):
    cfg, first, second = two
    report = take_over(second, cfg, stored(tmp_path))
    assert (report.status, report.folder) == (Status.SKIPPED, str(second.path))
    assert second.damage(second.finished()) is None
    assert second.finished() == first.finished() | {"experiment": "paper/b"}
    assert load_history(second.path)["loss"].tolist() == [1.0]
    assert take_over(first, cfg, stored(tmp_path)) is not None, "either may be the other's twin"


def test_one_that_kept_checkpoints_leaves_them_and_one_that_did_not_is_no_twin_of_one_that_should(two, tmp_path):
    cfg, first, second = two
    name = "checkpoint.keep_every_n_epochs"
    second.described[name] = 2
    assert take_over(second, cfg, stored(tmp_path)) is None
    write_json(first.path / "result.json", {**first.finished(), name: 2})
    kept = kept_checkpoint(first.path, 4)
    kept.parent.mkdir(exist_ok=True)
    kept.write_bytes(b"weights")
    assert take_over(second, cfg, stored(tmp_path)) is not None
    assert kept_checkpoint(second.path, 4).read_bytes() == b"weights"


@pytest.mark.parametrize("flaw", ["table", "result", "logger", "other run"])
def test_what_is_no_twin_is_left_alone(flaw, two, tmp_path):
    cfg, first, second = two
    result = first.finished()
    if flaw == "table":
        (first.path / "history.csv").write_text("epoch\n")
    elif flaw == "result":
        write_json(first.path / "result.json", {**result, "status": "failed"})
    elif flaw == "logger":
        write_json(first.path / "result.json", {**result, "logger.name": "none"})
    else:
        write_json(first.path / "result.json", {**result, "run_id": "0" * 8})
    before = files(tmp_path)
    assert take_over(second, cfg, stored(tmp_path)) is None
    assert files(tmp_path) == before


def test_a_run_that_was_begun_goes_on_from_its_own_checkpoint(two, tmp_path):
    cfg, _, second = two
    (second.path / "checkpoints").mkdir(parents=True)
    (second.path / "checkpoints/last.ckpt").touch()
    assert take_over(second, cfg, stored(tmp_path)) is None


@pytest.mark.parametrize("name", ["history.csv", "result.json"])
def test_what_stops_a_copy_leaves_no_half_of_it(name, two, tmp_path, monkeypatch):
    cfg, first, second = two
    from ncflow.results import files as written
    from ncflow.results import folder as module

    write = written.write_atomically

    def fail(path, content):
        if path == second.path / name:
            raise OSError("no space left")
        write(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(module, "write_atomically", fail)
        patch.setattr(written, "write_atomically", fail)
        with pytest.raises(OSError, match="no space"):
            take_over(second, cfg, stored(tmp_path))
    assert second.finished() is None
    assert take_over(second, cfg, stored(tmp_path)).status == Status.SKIPPED
    assert (second.path / "history.csv").read_bytes() == (first.path / "history.csv").read_bytes()


def test_a_sweep_that_is_refused_takes_nothing_over(ncflow, tmp_path):
    assert ncflow(*TINY).returncode == 0
    before = files(tmp_path)
    refused = ncflow("-m", *TINY, "model.depth=3,1", "hydra.sweep.dir=${ncflow.runs_dir:}/other")
    assert refused.returncode == 2
    assert "model.depth must be at least 2" in refused.stderr
    assert files(tmp_path) == before
    assert "1 finished already" in ncflow("-m", *TINY, "seed=0", "hydra.sweep.dir=runs/other").stdout


def test_a_run_in_two_folders_counts_once_with_the_figures_of_both(two, tmp_path):
    cfg, first, second = two
    take_over(second, cfg, stored(tmp_path))
    write_json(second.path / "result.json", second.finished() | {"figures": ["fig3"]})
    write_json(first.path / "result.json", first.finished() | {"figures": ["fig2"]})
    runs, again = once(load_runs(tmp_path))
    assert (len(runs), again) == (1, 1)
    assert runs["figures"].tolist() == [["fig2", "fig3"]]
    assert runs["folder"].tolist() == [str(first.path)]


def test_the_finished_one_of_two_stays(two, tmp_path):
    _, first, second = two
    second.path.mkdir(parents=True)
    second.begin()
    runs, _ = once(load_runs(second.path, first.path))
    assert runs["status"].tolist() == ["done"]
