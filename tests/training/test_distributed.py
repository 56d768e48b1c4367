"""Real processes: the metric, the callback under Lightning's DDP, and whole runs give what one process gives."""

import csv
import json
import signal
import subprocess
import sys
import time

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from ncflow.metrics import NeuralCollapse, neural_collapse
from ncflow.results import load_runs
from tests.conftest import environment, run_folder

SHARES = {  # samples of each rank, of 101 in all
    "one rank": [range(101)],
    "uneven": [range(0, 60), range(60, 101)],
    "three": [range(0, 50), range(50, 52), range(52, 101)],
    "a rank with no sample": [range(0, 70), range(0), range(70, 101)],
    "a class on one rank only": None,
}


def data():
    rng = torch.Generator().manual_seed(0)
    y = torch.randint(4, (101,), generator=rng)
    H = torch.randn(4, 6, dtype=torch.float64, generator=rng)[y] + torch.randn(
        101, 6, dtype=torch.float64, generator=rng
    )
    return H, y, torch.randn(4, 6, dtype=torch.float64, generator=rng)


def shares(case):
    if SHARES[case] is not None:
        return [list(share) for share in SHARES[case]]
    _, y, _ = data()
    return [(y == 2).nonzero().flatten().tolist(), (y != 2).nonzero().flatten().tolist()]


LIMITS = {"all kept": None, "no more than a rank's first batch kept": 16 * 6 * 8}


def worker(rank, case, folder):
    torch.set_num_threads(1)
    own = shares(case)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=len(own))
    found = {}
    for name, limit in LIMITS.items():
        found[name] = measured(rank, own, limit)
    with open(f"{folder}/{rank}.json", "w") as file:
        json.dump(found, file)
    dist.destroy_process_group()


def measured(rank, own, limit):
    sizes = []

    def counting(tensor, group=None):
        sizes.append(tensor.numel())
        received = [torch.zeros_like(tensor) for _ in own]
        dist.all_gather(received, tensor, group=group)
        return received

    H, y, W = data()
    classifier = torch.nn.Linear(6, 4, bias=False).double()
    classifier.weight.data = W
    metric = NeuralCollapse(4, 6, classifier, max_cached_bytes=limit, dist_sync_fn=counting)
    batches = [own[rank][i : i + 16] for i in range(0, len(own[rank]), 16)]
    for index in batches:
        metric.update(H[index], y[index])
    if metric.second_pass():
        for index in batches:
            metric.update(H[index], y[index])
    values = {name: value.item() for name, value in metric.compute().items()}
    again = {name: value.item() for name, value in metric.compute().items()}
    assert str(values) == str(again)
    kept = sum(len(batch) for batch in metric.features)
    return {"values": values, "largest": max(sizes, default=0), "kept": kept}


@pytest.mark.parametrize("case", SHARES)
def test_metric_on_ranks_equals_one_process(case, tmp_path):
    own = shares(case)
    mp.start_processes(worker, (case, str(tmp_path)), nprocs=len(own), start_method="fork")  # imports nothing anew
    H, y, W = data()
    expected = {name: value.item() for name, value in neural_collapse(H, y, 4, W).items()}
    for rank, share in enumerate(own):
        found = json.loads((tmp_path / f"{rank}.json").read_text())
        for name, limit in LIMITS.items():
            assert found[name]["values"] == pytest.approx(expected, rel=1e-12, abs=1e-14)
            assert found[name]["largest"] <= 4 * 6  # no more than (C, d) ever crosses ranks
            assert found[name]["kept"] == (len(share) if limit is None else 0)


SCRIPT = """
import sys, warnings, logging
import lightning as L, torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from ncflow.callbacks import NeuralCollapseCallback

class Module(L.LightningModule):
    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.body, self.fc = nn.Sequential(nn.Linear(5, 8), nn.ReLU()), nn.Linear(8, 3)
    def forward(self, x):
        return self.fc(self.body(x))
    def training_step(self, batch, index):
        return nn.functional.cross_entropy(self(batch[0]), batch[1])
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)  # the same weights whatever the batches

class Twice(NeuralCollapseCallback):  # Lightning keeps the state of one callback of a class
    pass

if __name__ == "__main__":
    devices = int(sys.argv[1])
    torch.manual_seed(0)
    loader = DataLoader(TensorDataset(torch.randn(93, 5), torch.randint(3, (93,))), 16, shuffle=True)
    callbacks = [  # of which one reads the features from a cache, the other twice from the loader
        kind(layers=["last", "body.0"], max_cached_bytes=limit, history=f"{devices}-{limit}.csv")
        for kind, limit in ((NeuralCollapseCallback, None), (Twice, 1000))
    ]
    trainer = L.Trainer(max_epochs=1, accelerator="cpu", precision="64-true", devices=devices,
        strategy="ddp" if devices > 1 else "auto",
        callbacks=callbacks, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False)
    trainer.fit(Module(), loader)
"""


def test_callback_under_ddp_equals_one_process(warm, tmp_path):
    """93 samples on 2 ranks: Lightning's sampler would give one of them twice."""
    (tmp_path / "script.py").write_text(SCRIPT)
    alone = warm.run(["1"], tmp_path, program=SCRIPT)
    assert alone.code == 0, alone.stderr
    command = [sys.executable, "script.py", "2"]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    for limit in (None, 1000):
        one, two = ((tmp_path / f"{devices}-{limit}.csv").read_text().splitlines() for devices in (1, 2))
        assert len(one) == len(two) == 5
        for a, b in zip(one[1:], two[1:], strict=True):
            assert a.split(",")[:3] == b.split(",")[:3]
            numbers = [[float(value or "nan") for value in line.split(",")[3:]] for line in (a, b)]
            assert numbers[1] == pytest.approx(numbers[0], rel=1e-9, nan_ok=True)  # the forward pass has other batches


# 301 samples in batches of 50: the last batch is one of 51, and shares differ in size.
SHARED = [
    "model.norm=none",
    "epochs=20",
    "model.width=16",
    "model.depth=3",
    "batch_size=50",
    "trainer.precision=64-true",
]
SHARED += [
    "data.num_samples=301",
    "data.num_test=51",
    "optimizer=sgd",
    "weight_decay_coupling=0.5",
    "measure.layers=all",
]
DDP = ["trainer=ddp", "trainer.accelerator=cpu"]


def history(root):
    with (run_folder(root) / "history.csv").open() as file:
        return list(csv.DictReader(file))


def numbers(row):
    return [float(value or "nan") for name, value in row.items() if name not in ("split", "layer")]


@pytest.fixture(scope="module")
def sweep(warm, tmp_path_factory):
    """Where two runs on two processes each have been trained."""
    folder = tmp_path_factory.mktemp("sweep")
    done = warm.run(["-m", *SHARED, *DDP, "seed=0,1"], folder, timeout=240)
    assert done.code == 0, done.stderr
    assert load_runs(folder)["status"].tolist() == ["done", "done"]
    return folder


def test_a_run_on_two_processes_equals_one(sweep, warm, ncflow, tmp_path):
    alone = ncflow(*SHARED, "trainer=cpu")
    assert alone.returncode == 0, alone.stderr
    one = run_folder(tmp_path)
    (two,) = sweep.glob("runs/single/*-seed0-*")
    assert two.name == one.name  # the same run
    for a, b in zip(history(two), history(one), strict=True):
        assert numbers(a) == pytest.approx(numbers(b), rel=1e-9, abs=1e-12, nan_ok=True)
    results = [json.loads((folder / "result.json").read_text()) for folder in (two, one)]
    assert results[0]["status"] == results[1]["status"] == "done"
    again = warm.run([*SHARED, *DDP], sweep)
    assert again.stdout.startswith("finished already")


def test_a_sweep_on_two_processes_and_a_stop_in_the_middle(sweep, ncflow, tmp_path):
    options = [*SHARED, *DDP, "seed=1"]
    command = [sys.executable, "-m", "ncflow", *options]
    process = subprocess.Popen(command, cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, text=True)
    while process.poll() is None and not any(tmp_path.glob("runs/single/*/progress.json")):
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    assert process.wait(90) == 128 + signal.SIGTERM
    assert load_runs(tmp_path)["status"].tolist() == ["interrupted"]
    done = ncflow(*options)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 1
    (whole_history,) = sweep.glob("runs/single/*-seed1-*/history.csv")
    assert whole_history.read_text() == (run_folder(tmp_path) / "history.csv").read_text()


BREAKING = """
import os
from ncflow.models import MLP

class Breaking(MLP):
    def forward(self, inputs):
        if self.training and os.environ.get("RANK") == "1":
            os._exit(3)
        return super().forward(inputs)
"""


def test_a_process_that_ends_alone_is_no_success(ncflow, tmp_path):
    (tmp_path / "breaking.py").write_text(BREAKING)
    options = [*SHARED, *DDP, "model._target_=breaking.Breaking"]
    done = ncflow(*options, env={"PYTHONPATH": str(tmp_path)})
    assert done.returncode == 1
    assert "a process ended early, see" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert load_runs(tmp_path)["status"].item() in ("failed", "interrupted")
    assert "exitcode  : 3" in (run_folder(tmp_path) / "processes.log").read_text()


def test_bad_options_of_a_shared_run_are_one_line_before_any_training(ncflow, tmp_path):
    for option, line in (
        ("model.width=0", "model.width must be at least 1, found 0"),
        ("trainer.num_nodes=2", "trainer.num_nodes must be 1 without SLURM or torchrun, found 2"),
    ):
        done = ncflow(*SHARED, *DDP, option)
        assert done.returncode == 2
        assert done.stderr == f"ncflow: error: {line}\n"
        assert not list(tmp_path.glob("runs/single/*"))
