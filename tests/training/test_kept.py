"""Kept checkpoints of our own runs: written alone, resumed and stacked; measured again to the last bit."""

import shutil
from contextlib import ExitStack
from pathlib import Path

import pandas as pd
import pytest
import torch
from lightning import Callback
from omegaconf import OmegaConf

from ncflow.checks import ArgumentError
from ncflow.cli.measure import main
from ncflow.config.identity import describe, folder_name, run_id
from ncflow.results import RunFolder, load_history, load_runs
from ncflow.training.again import measured_again
from ncflow.training.entry import enter
from ncflow.training.fit import fit
from ncflow.training.stacked import group
from ncflow.training.stacked.ready import DataCache, take
from ncflow.training.trained import load_network

SMALL = [
    *("epochs=5", "measure.every_n_epochs=2", "batch_size=32", "model.width=8", "model.depth=3", "trainer=cpu"),
    *("data.num_samples=60", "data.num_test=20", "checkpoint.keep_every_n_epochs=2"),
]
KEPT = ["epoch=000.ckpt", "epoch=002.ckpt", "epoch=004.ckpt"]


@pytest.fixture(autouse=True)
def _in_a_new_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NCFLOW_RUNS_DIR", raising=False)


def train(cfg, name="run", **options):
    folder = RunFolder(Path("runs/mine") / name, describe(cfg, "mine"))
    with ExitStack() as held:
        enter(folder, cfg, held)
        fit(cfg, folder, **options)
    return folder.path


def weights(folder):
    found = {
        path.name: torch.load(path, weights_only=True)["state_dict"]
        for path in (folder / "checkpoints").glob("epoch=*")
    }
    return dict(sorted(found.items()))


def assert_same_weights(one, other):
    assert [*one] == [*other] == KEPT
    for name, state in one.items():
        assert all(torch.equal(value, other[name][key]) for key, value in state.items())


def assert_measured_again(own, epochs, measured="runs/measured"):
    """What was measured again is, at each epoch at which the run was measured, the same to the last bit."""
    again = load_history(measured)
    before, after = (
        table.set_index(["epoch", "split", "layer"]).drop(columns=["run_id", "folder"]).sort_index()
        for table in (load_history(own), again)
    )
    assert sorted(set(again["epoch"])) == epochs
    both = before.index.intersection(after.index)
    assert len(both) == 2 * len(epochs)
    pd.testing.assert_frame_equal(before.loc[both], after.loc[both], check_exact=True, check_dtype=False)


@pytest.mark.parametrize(
    "options", [["model.norm=last"], ["trainer.precision=64-true", "model.norm=all", "loss=square"]], ids=["32", "64"]
)
def test_measured_again_is_measured_then_bit_for_bit(options, config, capsys):
    own = train(config(*SMALL, *options))
    before = {path: path.read_bytes() for path in own.rglob("*") if path.is_file()}
    assert [*weights(own)] == KEPT
    main(["runs/mine"])
    assert_measured_again(own, [0, 2, 4, 5])
    assert {path: path.read_bytes() for path in own.rglob("*") if path.is_file()} == before
    said = capsys.readouterr()
    assert said.err == ""
    (run,) = load_runs("runs/measured").to_dict("records")
    (first,) = load_runs("runs/mine").to_dict("records")
    assert (run["status"], run["remeasured.run_id"], run["train/nc1"]) == ("done", first["run_id"], first["train/nc1"])
    assert run["run_id"] != first["run_id"]
    main(["runs"])  # with what was measured again, which is not measured once more
    assert capsys.readouterr().out == f"finished already: {Path(run['folder']).name}\n"
    main([str(own), "--layers", "all", "--out", "layers"])
    layers = load_history("layers")
    assert len(set(layers["layer"])) == 2
    last = layers[layers["layer"] == "last"].reset_index(drop=True)
    pd.testing.assert_series_equal(last["nc1"], load_history("runs/measured")["nc1"], check_exact=True)


def test_groups_need_no_training(config):
    """A run that measured none is measured again with two: what a run has that measured them in training."""
    without, having = (
        train(config(*SMALL, *more), f"{len(more)}") for more in ([], ["measure.groups=[uniformity,probe]"])
    )
    main([str(without), "--groups", "uniformity", "probe"])
    assert_measured_again(having, [0, 2, 4, 5])
    main([str(having), "--out", "own"])
    assert_measured_again(having, [0, 2, 4, 5], "own")


class _Stop(Callback):
    def on_train_epoch_end(self, trainer, module):
        if trainer.current_epoch == 2:
            raise RuntimeError("stopped")


def test_a_run_that_goes_on_keeps_what_it_would_have_kept(config):
    cfg = config(*SMALL)
    whole = train(cfg, "whole")
    with pytest.raises(RuntimeError, match="stopped"):
        train(cfg, "stopped", callbacks=[_Stop()])
    assert [*weights(Path("runs/mine/stopped"))] == KEPT[:2]
    # Of a run that is not finished there are those that were kept.
    main(["runs/mine/stopped"])
    assert sorted(set(load_history("runs/measured")["epoch"])) == [0, 2]
    assert_same_weights(weights(train(cfg, "stopped")), weights(whole))


def test_cells_of_a_stacked_run_keep_their_own(config):
    configs = [config(*SMALL, f"seed={seed}") for seed in (0, 1)]
    folders = [RunFolder(Path("runs/mine") / str(seed), describe(cfg, "mine")) for seed, cfg in enumerate(configs)]
    with ExitStack() as held:
        ready = [take(folder, cfg, held, DataCache()) for folder, cfg in zip(folders, configs, strict=True)]
        group.train_cells(ready, Path("runs/mine"))
    assert_same_weights(weights(folders[1].path), weights(train(configs[1], "alone")))
    main([str(folders[1].path)])
    assert_measured_again(folders[1].path, [0, 2, 4, 5])


def test_off_by_default_and_no_part_of_what_a_run_is(config):
    cfg = config(*[option for option in SMALL if not option.startswith("checkpoint.")])
    assert cfg.checkpoint.keep_every_n_epochs is None
    assert run_id(cfg) == run_id(config(*SMALL))


def test_what_cannot_be_measured_again_is_one_line_each(config, capsys):
    cfg = config(*SMALL, "epochs=2")
    own = train(cfg)

    def refused():
        shutil.rmtree("runs/measured", ignore_errors=True)
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main(["runs/mine"])
        assert stop.value.code == 1
        (line,) = capsys.readouterr().err.splitlines()
        return line

    kept = own / "checkpoints/epoch=002.ckpt"
    content = kept.read_bytes()
    last = own / "checkpoints/last.ckpt"
    shutil.copy(own / "checkpoints/epoch=000.ckpt", last)
    main(["runs/mine"])  # of other weights than those that were measured
    assert "in the run's own history" in capsys.readouterr().err
    last.write_bytes(content[:-9])
    assert "the checkpoint is not used: it cannot be read" in refused()
    assert not list(Path("runs/measured").rglob("result.json"))
    other = OmegaConf.merge(cfg, {"seed": 7})
    (own / ".hydra/config.yaml").write_text(OmegaConf.to_yaml(other))
    assert "must be the run of its config" in refused()
    (own / ".hydra/config.yaml").write_text("model: [")
    assert "whose config can be read" in refused()
    (own / ".hydra/config.yaml").write_text("- 1")
    assert "a config of options" in refused()
    (own / ".hydra/config.yaml").unlink()
    assert "without .hydra/config.yaml" in refused()


def as_command(cfg, experiment="mine"):
    """Bring a run to its end as the command does."""
    folder = RunFolder(Path("runs") / experiment / folder_name(cfg), describe(cfg, experiment))
    with ExitStack() as held:
        assert enter(folder, cfg, held) is None
        return measured_again(cfg, folder) or fit(cfg, folder)


@pytest.mark.parametrize("kept", [True, False])
def test_what_is_measured_otherwise_is_not_trained_again(kept, config, caplog):
    """Its numbers are those of a run that was trained for it: of all epochs if their weights were kept."""
    options = SMALL if kept else SMALL[:-1]
    more = ["measure.groups=[uniformity]", "measure.layers=all"]
    first = as_command(config(*options))
    caplog.set_level("INFO", "ncflow")
    again = as_command(config(*options, *more))
    assert f"is measured from the checkpoint of {first.folder}, not trained" in caplog.text
    assert again.values["remeasured.run_id"] == first.values["run_id"]
    trained = as_command(config(*options, *more), "other")
    assert "remeasured.run_id" not in trained.values
    assert trained.values["run_id"] == again.values["run_id"]
    measured = {key for key in trained.values if key.startswith(("train/", "test/"))}
    assert {key: again.values[key] for key in measured} == pytest.approx(
        {key: trained.values[key] for key in measured}, rel=0, abs=0, nan_ok=True
    )
    keys = ["epoch", "split", "layer"]
    ours, theirs = (
        load_history(report.folder).drop(columns=["run_id", "folder"]).set_index(keys).sort_index()
        for report in (again, trained)
    )
    if not kept:  # of the epochs before the last one: what the first run measured, and no made-up number
        early = ours.index.get_level_values("epoch") < 5
        assert set(ours[early].index.get_level_values("layer")) == {"last"}
        assert ours[early]["gnc2_log_mean"].isna().all()
        theirs = theirs.loc[ours.index]
        theirs.loc[early, [name for name in theirs if name.startswith("gnc2")]] = float("nan")
    pd.testing.assert_frame_equal(ours, theirs, check_exact=True, check_dtype=False)
    assert RunFolder(Path(again.folder), again.values).damage(again.values) is None
    if kept:
        assert_same_weights(weights(Path(again.folder)), weights(Path(first.folder)))
    main([again.folder, "--out", "once_more"])
    assert load_runs("once_more")["train/gnc2_log_mean"].item() == trained.values["train/gnc2_log_mean"]


@pytest.mark.parametrize(
    "more", [["measure.again=training"], ["measure.delta=0.1"], ["measure.per_class=true"], ["epochs=6"]], ids=str
)
def test_what_only_training_gives_is_trained(more, config, monkeypatch):
    as_command(config(*SMALL))
    cfg = config(*SMALL, "measure.groups=[uniformity]", *more)
    folder = RunFolder(Path("runs/mine") / folder_name(cfg), describe(cfg, "mine"))
    assert measured_again(cfg, folder) is None


def test_only_a_whole_finished_run_is_measured_again(config):
    first = as_command(config(*SMALL))
    cfg = config(*SMALL, "measure.groups=[uniformity]")
    folder = RunFolder(Path("runs/mine") / folder_name(cfg), describe(cfg, "mine"))
    with (Path(first.folder) / "history.csv").open("a") as file:
        file.write("5,train,last\n")
    assert measured_again(cfg, folder) is None
    assert not folder.path.exists()


def test_the_network_of_a_run_gives_what_was_measured(config):
    report = as_command(config(*SMALL, "model.norm=last"))
    history = load_history(report.folder).set_index(["epoch", "split"])
    for epoch, place in ((None, 5), (2, 2)):
        network, data = load_network(report.folder, epoch)
        for name, split in (("train", data.train), ("test", data.test)):
            with torch.no_grad():
                accuracy = (network(split.inputs).argmax(1) == split.labels).double().mean().item()
            assert accuracy == history.loc[(place, name), "accuracy"]
    with pytest.raises(ArgumentError, match=r"epoch must be one whose weights are there \(0, 2, 4, 5\), found 3"):
        load_network(report.folder, 3)
    with pytest.raises(ArgumentError, match="found"):
        load_network("runs")
