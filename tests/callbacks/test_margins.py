"""Quantiles of the training margins over the epochs and the first steps."""

from math import prod
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from ncflow.callbacks.margins import _LEVELS, LogMargins, _spread
from ncflow.config.identity import flat_config, run_id
from ncflow.metrics.summary import quantiles
from ncflow.results import MARGIN_COLUMNS, MARGIN_QUANTILES, MARGINS, History, load_margins, write_json
from tests.conftest import TINY, run_folder

# 3 steps an epoch, of which there are 6.
EVERY = [*TINY, "measure.every_n_epochs=2", "measure.margins=true"]
STEPS = [*EVERY, "measure.first_steps=14"]


def test_rows_are_the_quantiles_of_the_margins_of_all_samples(ncflow, tmp_path, config):
    from ncflow.training.assembly import prepare

    done = ncflow(*EVERY, "model.norm=all", "measure.batch_size=70")
    assert done.returncode == 0, done.stderr
    table = load_margins(tmp_path)
    assert table["epoch"].tolist() == [0, 2, 4, 6]
    assert table["step"].tolist() == [0, 6, 12, 18]
    assert table["samples"].tolist() == [300] * 4
    data, classifier = prepare(config(*EVERY, "model.norm=all"))
    state = torch.load(run_folder(tmp_path) / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    for row, weights in ((table.iloc[0], None), (table.iloc[-1], state)):
        if weights is not None:
            classifier.load_state_dict(weights)
        network = classifier.network.eval()
        with torch.no_grad():
            logits = network(data.train.inputs).double().numpy()
        labels = data.train.labels.numpy()
        own = logits[np.arange(300), labels]
        logits[np.arange(300), labels] = -np.inf
        expected = np.quantile(own - logits.max(1), np.linspace(0, 1, 41))
        np.testing.assert_allclose(row[list(MARGIN_QUANTILES)].astype(float), expected, rtol=1e-4, atol=1e-5)
        weights = [layer.weight for layer in network.modules() if isinstance(layer, nn.Linear)]
        assert row["rho"] == pytest.approx(prod(weight.norm().item() for weight in weights), rel=1e-5)


@pytest.mark.parametrize("count", [1, 2, 40, 41, 1003])
def test_quantiles_are_those_of_numpy(count):
    values = np.random.default_rng(count).normal(size=count)
    found = quantiles(torch.from_numpy(values), _LEVELS)
    assert found.dtype == torch.float64
    np.testing.assert_allclose(found, np.quantile(values, np.linspace(0, 1, 41)), rtol=1e-13, atol=1e-13)


def test_quantiles_of_more_values_than_torch_takes_and_of_values_that_are_none():
    many = torch.arange(2**24 + 1, dtype=torch.float64)
    np.testing.assert_allclose(quantiles(many, _LEVELS), np.linspace(0, 2**24, 41))
    assert quantiles(torch.tensor([1.0, torch.nan, 2.0]), _LEVELS).isnan().all()


def test_quantiles_are_named_in_thousandths():
    assert MARGIN_QUANTILES[:3] == ("q000", "q025", "q050")
    assert (MARGIN_QUANTILES[20], MARGIN_QUANTILES[-1], len(MARGIN_QUANTILES)) == ("q500", "q1000", 41)


def test_first_steps_are_spread_evenly_in_their_logarithm():
    assert _spread(1) == [1]
    assert _spread(5) == [1, 2, 3, 4, 5]
    thousand = _spread(1000)
    assert thousand[:4] == [1, 2, 3, 4]
    assert thousand[-1] == 1000
    assert 18 <= len(thousand) <= 25
    ratios = np.divide(thousand[9:], thousand[8:-1])
    assert ratios.max() / ratios.min() < 1.1


@pytest.mark.parametrize(
    ("options", "rows"),
    [
        ([], [(0, 0), (0, 1), (0, 2), (1, 3), (1, 4), (2, 6), (4, 12), (6, 18)]),
        (["batch_size=null"], [(0, 0), (1, 1), (2, 2), (3, 3), (4, 4), (6, 6)]),
        (["+trainer.accumulate_grad_batches=2"], [(0, 0), (0, 1), (1, 2), (1, 3), (2, 4), (4, 8), (6, 12)]),
    ],
)
def test_a_measured_step_has_one_row_and_counts_the_finished_epochs(options, rows, ncflow, tmp_path):
    done = ncflow(*EVERY, "measure.first_steps=4", *options)
    assert done.returncode == 0, done.stderr
    table = load_margins(tmp_path)
    assert list(zip(table["epoch"], table["step"], strict=True)) == rows


def test_measuring_changes_nothing_in_training(ncflow, tmp_path):
    options = [*TINY, "measure.every_n_epochs=2", "model.norm=all"]
    for arguments in (
        [*options, "hydra.run.dir=without"],
        [*options, "hydra.run.dir=with", "measure.margins=true", "measure.first_steps=14"],
    ):
        done = ncflow(*arguments)
        assert done.returncode == 0, done.stderr
    one, other = tmp_path / "without", tmp_path / "with"
    assert not (one / MARGINS).exists()
    assert (one / "history.csv").read_text() == (other / "history.csv").read_text()
    a, b = (torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["state_dict"] for folder in (one, other))
    assert all(torch.equal(a[name], b[name]) for name in a)


def crash_at(step):
    """A program that dies, with a row half written, once it has written the row of a step."""
    return (
        "import os; from ncflow.results import History; from ncflow.cli.train import main; append = History.append\n"
        "def dying(self, rows):\n"
        "    append(self, rows)\n"
        f"    if rows[0].get('step') == {step}:\n"
        "        self.path.open('a').write('4,15,0.'); os._exit(9)\n"
        "History.append = dying\nmain()"
    )


def test_a_run_that_is_killed_again_and_again_goes_on_to_the_same_file(ncflow, tmp_path):
    """Before the first checkpoint, between two, at a measured epoch's end before its checkpoint."""
    assert ncflow(*STEPS, "hydra.run.dir=whole").returncode == 0
    whole = (tmp_path / "whole" / MARGINS).read_text()
    for step in (2, 9, 12, 14, 18):
        killed = ncflow(*STEPS, "hydra.run.dir=killed", code=crash_at(step))
        assert killed.returncode == 9, killed.stderr
        assert (tmp_path / "killed" / MARGINS).read_text().endswith("\n4,15,0.")
    done = ncflow(*STEPS, "hydra.run.dir=killed")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "killed" / MARGINS).read_text() == whole


def margin_row(step):
    return {"epoch": step // 3, "step": step, "rho": 2.5, "samples": 300, **dict.fromkeys(MARGIN_QUANTILES, 0.1)}


def test_a_resumed_run_awaits_the_steps_to_come_and_a_new_one_forgets_every_row(tmp_path):
    log = LogMargins(tmp_path / MARGINS, 2, 5)
    log.history.append([margin_row(step) for step in (0, 1, 2, 3)])
    saved = log.state_dict()
    log.history.append([margin_row(4)])
    log = LogMargins(tmp_path / MARGINS, 2, 5)
    log.load_state_dict(saved)
    log.on_train_start(SimpleNamespace(is_global_zero=True, global_step=3, current_epoch=1), None)
    lines = log.history.path.read_text().splitlines()
    assert lines[0] == ",".join(MARGIN_COLUMNS)
    assert [line.split(",")[1] for line in lines[1:]] == ["0", "1", "2", "3"]
    assert log._awaited == {4, 5}
    log.measure = lambda *_: None
    state = SimpleNamespace(stage=None)
    starting = SimpleNamespace(is_global_zero=True, global_step=0, current_epoch=0, world_size=1, state=state)
    log.on_train_start(starting, None)
    assert log.history.path.read_text() == ",".join(MARGIN_COLUMNS) + "\n"
    assert log._awaited == {1, 2, 3, 4, 5}


def test_load_margins_reads_the_runs_of_several_folders(tmp_path):
    for name, steps in (("a", [0, 3]), ("b", [0]), ("c", [])):
        write_json(tmp_path / name / "run" / "run.json", {"run_id": name})
        if steps:
            History(tmp_path / name / "run" / MARGINS, MARGIN_COLUMNS).append([margin_row(step) for step in steps])
    table = load_margins(tmp_path / "a", tmp_path / "b", tmp_path / "c")
    assert table.groupby("run_id").size().to_dict() == {"a": 2, "b": 1}
    assert table["folder"].unique().tolist() == [str(tmp_path / name / "run") for name in "ab"]
    assert set(table.columns) == {*MARGIN_COLUMNS, "run_id", "folder"}
    assert load_margins(tmp_path / "c").columns.tolist() == [*MARGIN_COLUMNS, "run_id", "folder"]
    with pytest.raises(FileNotFoundError, match="no folder /no/such"):
        load_margins("/no/such")


def test_the_options_are_null_by_default_which_run_ids_leave_out(config):
    cfg = config(*TINY)
    assert {flat_config(cfg)[f"measure.{name}"] for name in ("margins", "first_steps")} == {None}
    assert run_id(cfg) != run_id(config(*EVERY)) != run_id(config(*STEPS))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["measure.margins=true", "measure.first_steps=0"], "null or at least 1, found 0"),
        (["measure.first_steps=10"], "null without measure.margins=true, found 10"),
        (["measure.margins=false", "measure.first_steps=10"], "null without measure.margins=true, found 10"),
    ],
)
def test_impossible_first_steps_are_refused_before_training(options, message, ncflow, tmp_path):
    done = ncflow(*TINY, *options)
    assert done.returncode == 2
    assert done.stderr.strip() == f"ncflow: error: measure.first_steps must be {message}"
    assert not list(tmp_path.rglob("run.json"))


def test_a_value_that_is_neither_true_nor_null_is_refused_in_one_line(ncflow):
    done = ncflow(*TINY, "measure.margins=often")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "measure.margins" in done.stderr
