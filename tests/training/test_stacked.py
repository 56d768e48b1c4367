"""Cells of a stacked run against the same runs alone: weights, measures, folders, resume."""

import copy
import json
import signal
import time
from contextlib import ExitStack
from pathlib import Path

import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ncflow.config.compose import folder_of
from ncflow.config.identity import describe, run_id, without_hydra
from ncflow.config.schema import ConfigError
from ncflow.models import MLP, Classifier
from ncflow.models.classifier import parameter_groups
from ncflow.models.decay import share_decay
from ncflow.models.losses import ExponentialLoss, SquareLoss
from ncflow.models.signum import Signum
from ncflow.models.vgg import VGG
from ncflow.results import RunFolder, load_history, load_runs, lock, run_folders
from ncflow.runtime.wandb_logger import WandbRunLogger
from ncflow.seeding import epoch_order
from ncflow.sweeps.status import read_state
from ncflow.training.stacked import group, products
from ncflow.training.stacked.data import StackedBatches
from ncflow.training.stacked.interrupted import SavedGroup, interrupted_groups
from ncflow.training.stacked.launcher import plan_sweep, train_group
from ncflow.training.stacked.modules import StackedNetwork, can_be_stacked, cell_losses
from ncflow.training.stacked.optimizer import CellOptimizer
from ncflow.training.stacked.plan import MAY_DIFFER
from ncflow.training.stacked.ready import DataCache, take
from tests.wandb_files import read_all

WEIGHT_DECAYS = [0.0, 1e-2, 1e-2, 5e-3]
RATES = [1e-2, 1e-2, 1e-2, 2e-3]
SCOPES = ["all", "all", "last_layer", "last_layer"]
GAMMAS = [None, 1.0, None, 0.5]
COUPLINGS = {"own decay": [None] * 4, "shared decay": [0.0, None, 0.25, 1.0]}
FUSED = {"fused": True}
SIMPLEXES = [None, 0.5, None, 0.7]
OPTIMIZERS = {
    "adam": (torch.optim.Adam, FUSED),
    "adamw": (torch.optim.AdamW, FUSED),
    "sgd": (torch.optim.SGD, {"momentum": 0.9, **FUSED}),
    "plain sgd": (torch.optim.SGD, FUSED),
    "signum": (Signum, {}),
    "signs": (Signum, {"momentum": 0.0}),
}
LOSSES = {
    "cross_entropy": nn.CrossEntropyLoss(),
    "smoothed": nn.CrossEntropyLoss(label_smoothing=0.1),
    "square": SquareLoss(),
    "signs": SquareLoss(targets="signs"),
    "exponential": ExponentialLoss(),
}


def networks(norm, norm_bias=False, activation="relu"):
    found = []
    for cell, (gamma, simplex) in enumerate(zip(GAMMAS, SIMPLEXES, strict=True)):
        torch.manual_seed(cell)
        norms = {"gamma": None if norm == "none" else gamma, "norm_bias": norm_bias, "activation": activation}
        found.append(MLP((5,), 3, depth=4, width=16, norm=norm, simplex=simplex, **norms).double())
    return found


NORMS = [("none", False), ("last", False), ("last", True), ("all", False)]
ADAM_AND_SGD = ("adam", "adamw", "sgd", "plain sgd")
CASES = [(*norm, name, loss, "own decay") for norm in NORMS for name in ADAM_AND_SGD for loss in LOSSES]
CASES += [("last", True, name, "square", "shared decay") for name in OPTIMIZERS]
CASES += [("all", False, name, "cross_entropy", "own decay") for name in ("signum", "signs")]


@pytest.mark.parametrize(("norm", "norm_bias", "optimizer", "loss", "decay"), CASES)
def test_a_cell_has_the_weights_of_a_run_alone_after_50_steps(norm, norm_bias, optimizer, loss, decay):
    """To the last bit: cells that differ in start, data, decay, its scope and coupling, rate, gamma, simplex."""
    kind, more = OPTIMIZERS[optimizer]
    together = networks(norm, norm_bias)
    alone = copy.deepcopy(together)
    inputs = torch.randn(4, 64, 5, dtype=torch.float64)
    labels = torch.randint(3, (4, 64))
    stacked = StackedNetwork(together)
    options = [{"lr": rate, **more} for rate in RATES]
    of_group = [{name: value for name, value in own.items() if name != "fused"} for own in options]
    make = lambda groups: kind(groups, **{name: more[name] for name in FUSED if name in more})  # noqa: E731
    cells = CellOptimizer(stacked, make, of_group, WEIGHT_DECAYS, SCOPES, COUPLINGS[decay])
    for _ in range(50):
        cells.clear_gradients()
        cell_losses(LOSSES[loss], stacked(inputs), labels).sum().backward()
        cells.take_gradients()
        cells.optimizer.step()
    moved = 0
    for cell, (one, other) in enumerate(zip(together, alone, strict=True)):
        start = copy.deepcopy(other.state_dict())
        groups = parameter_groups(other, WEIGHT_DECAYS[cell], SCOPES[cell], COUPLINGS[decay][cell])
        own = share_decay(kind(groups, **options[cell]))
        for _ in range(50):
            own.zero_grad()
            LOSSES[loss](other(inputs[cell]), labels[cell]).backward()
            own.step()
        for name, expected in other.state_dict().items():
            assert torch.equal(one.state_dict()[name], expected), name
            moved += not torch.equal(expected, start[name])
    assert moved >= 4 * 4 - 2


@pytest.mark.parametrize("activation", ["relu", "tanh", "gelu", "leaky_relu"])
def test_the_networks_show_the_state_of_their_cells(activation):
    together = networks("all", activation=activation)
    alone = copy.deepcopy(together)
    stacked = StackedNetwork(together)
    inputs = torch.randn(4, 10, 5, dtype=torch.float64)
    trained = stacked(inputs)  # moves the running statistics
    for cell, other in enumerate(alone):
        assert torch.equal(trained[cell], other(inputs[cell]))
    stacked.eval()
    for cell, (one, other) in enumerate(zip(together, alone, strict=True)):
        for name, value in other.state_dict().items():
            assert torch.equal(one.state_dict()[name], value)
        shown, expected = one.eval()(inputs[cell]), other.eval()(inputs[cell])
        assert torch.equal(stacked(inputs)[cell], shown)
        assert torch.equal(shown, expected)


SHAPES = {  # cells, batch, width, inputs, classes
    "whole vectors": (8, 128, 64, 16, 4),
    "a rest of a vector": (5, 44, 300, 16, 10),
    "odd": (7, 31, 17, 3, 3),
    "a number a layer": (3, 8, 1, 1, 2),
    "small": (3, 5, 4, 2, 2),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("one_by_one", [False, True])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
@pytest.mark.parametrize("shape", SHAPES)
def test_cells_of_any_shape_are_trained_to_the_last_bit_of_a_run_alone(
    shape, activation, one_by_one, dtype, monkeypatch
):
    """Also where a CPU's batched products are never those of one matrix."""
    if one_by_one:
        monkeypatch.setattr(products, "_has_the_same_bits", lambda *_: False)
    number, batch, width, dim, classes = SHAPES[shape]
    options = {"width": width, "norm": "all", "activation": activation, "bias": True, "norm_bias": True}
    together = [MLP((dim,), classes, classifier_bias=True, **options).to(dtype) for _ in range(number)]
    alone = copy.deepcopy(together)
    inputs, labels = torch.randn(number, batch, dim, dtype=dtype), torch.randint(classes, (number, batch))
    stacked = StackedNetwork(together)
    adam = {"lr": 1e-2, "weight_decay": 1e-2, "fused": True}
    cells = CellOptimizer(
        stacked, torch.optim.Adam, [adam] * number, [1e-2] * number, ["all"] * number, [None] * number
    )
    for _ in range(5):
        cells.clear_gradients()
        cell_losses(F.cross_entropy, stacked(inputs), labels).sum().backward()
        cells.take_gradients()
        cells.optimizer.step()
    for one, other, own_inputs, own_labels in zip(together, alone, inputs, labels, strict=True):
        own = torch.optim.Adam(other.parameters(), **adam)
        for _ in range(5):
            own.zero_grad()
            F.cross_entropy(other(own_inputs.clone()), own_labels).backward()
            own.step()
        for name, expected in other.state_dict().items():
            assert torch.equal(one.state_dict()[name], expected), name


def test_a_batched_product_with_other_bits_is_known(monkeypatch):
    left, right = torch.randn(3, 40, 50), torch.randn(3, 50, 60)
    expected = torch.stack([a.clone() @ b.clone() for a, b in zip(left, right, strict=True)])
    batched = products._batched
    monkeypatch.setattr(products, "_batched", lambda *given: batched(*given) * (1 + 1e-7))
    products._has_the_same_bits.cache_clear()
    assert torch.equal(products._product(left, right), expected)
    products._has_the_same_bits.cache_clear()


def test_a_cell_that_is_not_finite_leaves_the_others_alone():
    together = networks("last")
    stacked = StackedNetwork(together)
    inputs = torch.randn(4, 10, 5, dtype=torch.float64)
    inputs[1] = torch.inf
    stacked(inputs).sum().backward()
    finite = [all(bool(p.grad[cell].isfinite().all()) for p in stacked.parameters()) for cell in range(4)]
    assert finite == [True, False, True, True]


def test_what_has_no_stacked_form_is_known():
    assert can_be_stacked(MLP((5,), 3))
    assert not can_be_stacked(MLP((5,), 3, norm="none", normalization="weight"))
    assert not can_be_stacked(VGG((3, 32, 32), 10, depth=11, width=0.03125))
    assert not can_be_stacked(torch.nn.Linear(3, 3))


def test_minibatches_are_those_of_each_run_alone(monkeypatch):
    inputs, labels = torch.randn(2, 21, 3), torch.randint(4, (2, 21))
    sources, seeds = torch.tensor([0, 1, 1]), [5, 5, 6]
    orders = torch.stack([epoch_order(seed, 2, 21) for seed in seeds])
    for at_once in (1, 200, 2**29):
        monkeypatch.setattr("ncflow.training.stacked.data._BYTES_AT_ONCE", at_once)
        batches = list(StackedBatches(inputs, labels, sources, 5, lambda: orders))
        assert [batch.labels.shape[1] for batch in batches] == [5, 5, 5, 6]
        for cell, source in enumerate(sources):
            given = torch.cat([batch.inputs[cell] for batch in batches])
            assert torch.equal(given, inputs[source][orders[cell]])
            assert torch.equal(torch.cat([b.labels[cell] for b in batches]), labels[source][orders[cell]])


# --- whole sweeps -----------------------------------------------------------------------------------------------

SWEEP = ["epochs=8", "model.width=16", "data.num_samples=300", "data.num_test=50", "trainer=cpu", "batch_size=32"]
GRID = ["seed=0,1", "weight_decay=1e-3,1e-2", "model.norm=last,none", "optimizer.lr=1e-3,1e30"]
STACKED = ["-m", "hydra/launcher=stacked"]


def assert_same_sweeps(one, other):
    """Histories to the last letter, results but for the time and what trained them, weights."""
    names = {file.parent.name for file in one.rglob("result.json")}
    assert names == {file.parent.name for file in other.rglob("result.json")} != set()
    for name in names:
        mine, theirs = next(one.rglob(name)), next(other.rglob(name))
        assert (mine / "history.csv").read_text() == (theirs / "history.csv").read_text()
        results = [json.loads((folder / "result.json").read_text()) for folder in (mine, theirs)]
        for result in results:
            for key in ("seconds", "steps_per_second", "runs_dir", "version/trained_with"):
                del result[key]
        assert results[0] == results[1]
        a, b = (torch.load(f / "checkpoints/last.ckpt", weights_only=True)["state_dict"] for f in (mine, theirs))
        assert a.keys() == b.keys()
        assert all(torch.equal(a[key].nan_to_num(), b[key].nan_to_num()) for key in a)


def test_a_stacked_sweep_leaves_what_a_sweep_leaves(ncflow, tmp_path):
    """16 cells, half of them with a learning rate that diverges."""
    stacked = ncflow(*STACKED, *SWEEP, *GRID, "runs_dir=stacked")
    assert stacked.returncode == 0, stacked.stderr
    assert "stacked: 8 cells as one, about" in stacked.stdout
    assert stacked.stdout.splitlines()[-1] == "16 runs: 8 done, 8 diverged"
    plain = ncflow("-m", *SWEEP, *GRID, "runs_dir=plain")
    assert plain.returncode == 0, plain.stderr
    assert_same_sweeps(tmp_path / "plain", tmp_path / "stacked")
    assert set(load_runs(tmp_path / "stacked")["version/trained_with"]) == {"8 cells as one"}
    assert set(load_runs(tmp_path / "plain")["version/trained_with"]) == {"alone"}
    for name in (".hydra/config.yaml", ".hydra/overrides.yaml", "run.json", "ncflow.log"):
        assert len(list(tmp_path.glob(f"stacked/single/*/{name}"))) == 16
    assert not list(tmp_path.rglob("*.tmp"))
    again = ncflow(*STACKED, *SWEEP, *GRID, "runs_dir=stacked")
    assert again.stdout.splitlines()[0] == "16 runs: 16 finished already, 0 to do"


@pytest.mark.parametrize(
    "options",
    [
        [
            *("optimizer=sgd", "loss=square", "weight_decay_scope=all,last_layer", "model.norm=all"),
            *("measure.layers=all", "measure.first_epochs=2"),
            "measure.groups=[uniformity,dual_uniformity,few_shot,weight_alignment,probe]",
        ],
        ["optimizer=signum", "weight_decay_coupling=null,0,0.5"],
        ["data=digits", "data.classes=4", "model.gamma=1,2", "data.random_labels=0,0.5", "batch_size=null"],
        ["loss.label_smoothing=0.1", "model.simplex=null,1", "scheduler=cosine", "scheduler.warmup_epochs=2"],
    ],
)
def test_other_recipes_stack_too(options, ncflow, tmp_path):
    base = [option for option in SWEEP if not (options[0] == "data=digits" and option.startswith("data."))]
    for root, more in (("stacked", STACKED), ("plain", ["-m"])):
        done = ncflow(*more, *base, "seed=0,1", *options, f"runs_dir={root}")
        assert done.returncode == 0, done.stderr
        assert ("cells as one" in done.stdout) == (root == "stacked")
        first = set(load_history(tmp_path / root)["epoch"]) & {1, 2, 3}
        assert first == ({1, 2} if "measure.first_epochs=2" in options else set())
    assert_same_sweeps(tmp_path / "plain", tmp_path / "stacked")


def test_runs_that_cannot_be_stacked_are_trained_alone(ncflow, tmp_path):
    done = ncflow(*STACKED, *SWEEP, "measure.margins=true,null", "model.depth=3,4", "seed=0,1")
    assert done.returncode == 0, done.stderr
    assert "alone: 4 runs (measure.margins=True)" in done.stdout
    assert done.stdout.splitlines()[-1] == "8 runs: 8 done"


LONG = [
    "scheduler=cosine",
    "scheduler.warmup_epochs=3",
    "epochs=60",
    "model.width=32",
    "data.num_samples=1200",
    "data.num_test=100",
    "trainer=cpu",
    "seed=0,1,2",
]


@pytest.fixture(scope="module")
def start(warm):
    """Start ``ncflow`` with its runs below a folder."""
    return lambda folder, *arguments: warm.start(arguments, folder)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, start):
    tmp_path = tmp_path_factory.mktemp("whole")
    process = start(tmp_path, *STACKED, *LONG)
    assert process.wait(200) == 0, process.stderr.read()
    return tmp_path


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_group_that_is_stopped_goes_on_to_the_same_numbers(number, tmp_path, uninterrupted, start):
    process = start(tmp_path, *STACKED, *LONG)
    end = time.time() + 100
    while not any(tmp_path.glob("runs/single/.stacked/*/checkpoints/last.ckpt")) and time.time() < end:
        time.sleep(0.01)
    time.sleep(0.2)
    process.send_signal(number)
    assert process.wait(60) == (-9 if number == signal.SIGKILL else 128 + number)
    assert load_runs(tmp_path)["status"].tolist() == ["interrupted"] * 3
    assert {read_state(folder).epoch for folder in run_folders(tmp_path)} not in ({0}, {None})
    again = start(tmp_path, *STACKED, *LONG)
    assert again.wait(200) == 0, again.stderr.read()
    assert_same_sweeps(uninterrupted, tmp_path)


def test_a_part_of_an_interrupted_group_goes_on(tmp_path, uninterrupted, start):
    process = start(tmp_path, *STACKED, *LONG)
    while not any(tmp_path.glob("runs/single/.stacked/*/checkpoints/last.ckpt")):
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    process.wait(60)
    part = start(tmp_path, *STACKED, *LONG[:-1], "seed=2,0")
    assert part.wait(200) == 0, part.stderr.read()
    stopped = json.loads(next(tmp_path.rglob("progress.json")).read_text())["epoch"]
    assert stopped > 0
    for name in ("seed0", "seed2"):
        (one,), (other,) = (root.glob(f"runs/single/*{name}*/history.csv") for root in (uninterrupted, tmp_path))
        assert one.read_text() == other.read_text()


def test_cells_are_runs_of_their_own_in_wandb(ncflow, tmp_path):
    done = ncflow(*STACKED, *SWEEP, "seed=0,1", "logger=wandb", env={"WANDB_MODE": "offline"})
    assert done.returncode == 0, done.stderr
    folders = sorted(file.parent for file in tmp_path.rglob("result.json"))
    for folder in folders:
        (run,) = read_all(folder)
        result = json.loads((folder / "result.json").read_text())
        assert run.run.display_name == result["name"]
        assert run.summary["train/intra_min"] == pytest.approx(result["train/intra_min"])
        assert [row["epoch"] for row in run.rows if "train/intra_min" in row] == [0, 5, 8]
        assert run.exit_code == 0


@pytest.mark.parametrize(
    "options",
    [
        ["model.norm=last"],
        ["model.norm=none", "loss=exponential", "data=digits", "data.classes=4"],
        ["loss.label_smoothing=0.1", "model.simplex=1", "model.norm=none"],
        ["model.norm=all", "loss=square", "weight_decay_scope=last_layer", "measure.self_pairs=true"],
    ],
)
def test_cells_measured_side_by_side_are_what_they_are_one_by_one(options, config, tmp_path):
    """The last cell diverges, and so is measured by itself."""
    sizes = ["epochs=5", "model.width=16", "trainer=cpu", "trainer.precision=64-true", "measure.batch_size=100"]
    if "data=digits" not in options:
        sizes += ["data.num_samples=300", "data.num_test=50"]
    cells = [["seed=0"], ["seed=1", "weight_decay=0.1"], ["seed=2"], ["seed=2", "optimizer.lr=1e30"]]
    configs = [config(*sizes, *options, *cell) for cell in cells]
    descriptions = [describe(cfg, "single") for cfg in configs]
    found = []
    for at_once in (True, False):
        root = tmp_path / str(at_once)
        folders = [root / described["run_id"] for described in descriptions]
        with ExitStack() as held:
            runs = zip(folders, descriptions, configs, strict=True)
            data_cache = DataCache()
            ready = [take(RunFolder(folder, own), cfg, held, data_cache) for folder, own, cfg in runs]
            reports = group.train_cells(ready, root, measure_at_once=at_once)
        assert [reports[own["run_id"]].status for own in descriptions] == ["done", "done", "done", "diverged"]
        found.append([pd.read_csv(folder / "history.csv", float_precision="round_trip") for folder in folders])
    for together, alone in zip(*found, strict=True):
        assert len(alone) in (4, 6)
        pd.testing.assert_frame_equal(together, alone, rtol=1e-9, atol=1e-12)


def test_a_group_that_fails_is_failed_runs_with_their_traceback(config, tmp_path, monkeypatch):
    logged = ["logger=wandb", "logger.alerts=true"]
    configs = sweep(config, f"runs_dir={tmp_path}", *logged, cells=[["seed=0"], ["seed=1"], ["seed=2"]])
    folders = [folder_of(cfg) for cfg in configs]
    for folder in folders:
        folder.mkdir(parents=True)
    monkeypatch.setattr(group, "train", lambda *_: 1 / 0)
    words = []
    monkeypatch.setattr(WandbRunLogger, "fail", lambda self, line: words.append((self.save_dir, line)))
    with lock(folders[2]).acquire():
        reports = train_group(configs)
    assert [report.status for report in reports] == ["failed", "failed", "elsewhere"]
    for folder in folders[:2]:
        assert json.loads((folder / "run.json").read_text())["error"] == "ZeroDivisionError: division by zero"
        assert "Traceback" in (folder / "ncflow.log").read_text()
    assert not (folders[2] / "run.json").exists()
    assert words == [(str(folder), "ZeroDivisionError: division by zero") for folder in folders[:2]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "loss",
    [
        nn.CrossEntropyLoss(),
        nn.CrossEntropyLoss(label_smoothing=0.1),
        nn.CrossEntropyLoss(ignore_index=2),
        nn.CrossEntropyLoss(torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)),
        F.cross_entropy,
    ],
    ids=["plain", "smoothed", "ignoring", "weighted", "function"],
)
def test_cell_losses_are_those_of_each_cell_and_so_are_their_gradients(loss, dtype):
    if getattr(loss, "weight", None) is not None:
        loss = nn.CrossEntropyLoss(loss.weight.to(dtype))
    logits = torch.randn(5, 13, 3, dtype=dtype, requires_grad=True)
    labels = torch.randint(3, (5, 13))
    found = cell_losses(loss, logits, labels)
    (gradient,) = torch.autograd.grad(found.sum(), logits)
    for cell in range(5):
        own = logits[cell].detach().requires_grad_()
        expected = loss(own, labels[cell])
        torch.testing.assert_close(found[cell], expected)
        expected.backward()
        torch.testing.assert_close(gradient[cell], own.grad, rtol=0, atol=0)


# --- the plan -----------------------------------------------------------------------------------------------------


def sweep(config, *overrides, cells):
    return [config(*overrides, *cell, "trainer=cpu", return_hydra_config=True) for cell in cells]


OPTIONS = {"max_group": 512, "memory_gb": 1.0, "may_differ": list(MAY_DIFFER)}


def test_groups_are_cut_to_size_and_to_the_memory(config):
    configs = sweep(config, cells=[[f"weight_decay={wd}"] for wd in (1e-2, 1e-4, 1e-3, 3e-3, 5e-3)])
    whole = plan_sweep(configs, OPTIONS)
    assert [sorted(group.cells) for group in whole.groups] == [[0, 1, 2, 3, 4]]
    cut = plan_sweep(configs, {**OPTIONS, "max_group": 3})
    assert [len(group.cells) for group in cut.groups] == [2, 3]
    a_run = whole.groups[0].memory / 5
    small = plan_sweep(configs, {**OPTIONS, "memory_gb": 2.5 * a_run / 2**30})
    assert [len(group.cells) for group in small.groups] == [2, 2]
    assert len(small.alone) == 1
    assert plan_sweep(configs, {**OPTIONS, "memory_gb": 1e-9}).groups == []


def test_on_a_cpu_groups_fit_its_caches(config, monkeypatch):
    configs = sweep(config, cells=[[f"seed={seed}"] for seed in range(4)])
    monkeypatch.setattr(
        "ncflow.training.stacked.launcher._CPU_CACHE", 2 * 4 * 4 * (16 * 300 + 2 * 300 * 300 + 300 + 300 * 4)
    )
    assert [len(group.cells) for group in plan_sweep(configs, OPTIONS).groups] == [2, 2]


@pytest.mark.parametrize("saved", [True, False], ids=["saved", "before its first checkpoint"])
def test_runs_that_were_stopped_together_go_on_together(saved, config, tmp_path):
    configs = sweep(config, f"runs_dir={tmp_path}", cells=[[f"seed={seed}"] for seed in range(6)])
    home = Path(configs[0].hydra.sweep.dir) / ".stacked" / "group"
    (home / "checkpoints").mkdir(parents=True)
    if saved:
        (home / "checkpoints/last.ckpt").touch()
    names = [run_id(without_hydra(configs[index])) for index in (1, 3, 4)]
    SavedGroup(home, tuple({"run_id": name, "folder": name, "config": {}} for name in names), tuple(names)).write()
    found = plan_sweep(configs, OPTIONS)
    assert sorted(sorted(group.cells) for group in found.groups) == [[0, 2, 5], [1, 3, 4]]


def test_a_saved_home_comes_before_one_begun_later(tmp_path):
    def begin(name, *members):
        content = tuple({"run_id": member, "folder": member, "config": {}} for member in members)
        SavedGroup(tmp_path / ".stacked" / name, content, members).write()
        return tmp_path / ".stacked" / name

    old = begin("old", "a", "b")
    (old / "checkpoints").mkdir()
    (old / "checkpoints/last.ckpt").touch()
    new = begin("new", "b", "c")
    assert {name: home.path for name, home in interrupted_groups(tmp_path).items()} == {"a": old, "b": old, "c": new}


def test_what_may_differ_can_be_narrowed(config):
    configs = sweep(config, cells=[["seed=0"], ["seed=1"], ["seed=0", "weight_decay=1"], ["seed=1", "weight_decay=1"]])
    found = plan_sweep(configs, {**OPTIONS, "may_differ": ["seed"]})
    assert sorted(group.cells for group in found.groups) == [(0, 1), (2, 3)]
    written = config("hydra/launcher=stacked", return_hydra_config=True).hydra.launcher.may_differ
    assert list(written) == list(MAY_DIFFER)


def test_shapes_and_schedules_keep_runs_apart(config):
    base = [["seed=0"], ["seed=1"]]
    for option in ("model.width=64", "epochs=10", "batch_size=64", "data.num_samples=1000", "data.num_classes=5"):
        cells = [*base, *[[*cell, option] for cell in base]]
        assert sorted(group.cells for group in plan_sweep(sweep(config, cells=cells), OPTIONS).groups) == [
            (0, 1),
            (2, 3),
        ]


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"max_group": 0}, "hydra.launcher.max_group must be greater than 0, found 0"),
        ({"max_group": "many"}, "hydra.launcher.max_group must be a whole number, found 'many'"),
        ({"memory_gb": -1.0}, "hydra.launcher.memory_gb must be greater than 0, found -1.0"),
        ({"memory_gb": float("nan")}, "hydra.launcher.memory_gb must be greater than 0, found nan"),
        (
            {"may_differ": ["seed", "epochs"]},
            f"hydra.launcher.may_differ must be of {', '.join(MAY_DIFFER)}, found 'epochs'",
        ),
    ],
)
def test_bad_options_are_one_line(options, line, config):
    with pytest.raises(ConfigError) as error:
        plan_sweep(sweep(config, cells=[[]]), {**OPTIONS, **options})
    assert str(error.value) == line


def test_the_checkpoint_of_a_cell_loads_into_a_run_alone(uninterrupted):
    saved = next(uninterrupted.rglob("*seed0*/checkpoints/last.ckpt"))
    assert isinstance(saved, Path)
    network = MLP((16,), 4, depth=4, width=32)
    classifier = Classifier(network, F.cross_entropy, lambda groups: torch.optim.SGD(groups, lr=0.1))
    classifier.load_state_dict(torch.load(saved, weights_only=True)["state_dict"])
