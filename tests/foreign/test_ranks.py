"""On several processes each sample counts once, and the network measured is one."""

import json
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from lightning.fabric.utilities.distributed import DistributedSamplerWrapper
from torch.utils.data import DistributedSampler, SubsetRandomSampler

from ncflow.callbacks.loaders import at_most, given, sequential
from ncflow.callbacks.reading import as_validated
from ncflow.checks import ArgumentError
from ncflow.measuring.split import measure_split
from ncflow.metrics import NeuralCollapse, neural_collapse
from tests.foreign.case import C, Module, X, Y, brute_force, loader, plain
from tests.foreign.loaders import HALF, Buckets, Halves

PARTS = [(X[:25], Y[:25]), (X[25:30], Y[25:30]), (X[30:], Y[30:])]


class Shifting:
    """Batches that differ from pass to pass on one rank."""

    def __init__(self, shift):
        self.shift, self.passes = shift, 0

    def __iter__(self):
        self.passes += 1
        return iter([(X[:30] + self.shift * self.passes, Y[:30])])


def worker(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    module = Module()
    indices = {}
    for name, read in {
        "all": loader(shuffle=True),
        "distributed": loader(sampler=DistributedSampler(range(60), 2, rank)),
        "subset": loader(sampler=DistributedSamplerWrapper(SubsetRandomSampler(HALF), num_replicas=2, rank=rank)),
        "own sampler": loader(sampler=Halves()),
        "own batches": loader(size=1, batch_sampler=Buckets()),
    }.items():
        indices[name] = [index for batch in sequential(read).batch_sampler for index in batch]
    both = sequential(loader(size=7))
    drawn = at_most(both, torch.cat([y for _, y in both]), 5)
    found = {"indices": indices, "drawn": [index for batch in drawn.batch_sampler for index in batch], "refused": []}
    shares = {
        "loader": given(loader(shuffle=True)),
        "list": given(PARTS),
        "no sample on one rank": [(X, Y)] if rank == 0 else [],
    }
    for layers, (name, share) in zip((["body.0", "last"], "last", ["body.0", "last"]), shares.items(), strict=True):
        found[name] = measure_split(module, share, layers, max_cached_bytes=0)["last"]
    for refused in (
        lambda: given([(X + rank, Y)]),
        lambda: measure_split(module, [], "last"),
        lambda: measure_split(module, Shifting(rank), max_cached_bytes=0),
    ):
        with pytest.raises(ArgumentError) as error:
            refused()
        found["refused"].append(str(error.value))
    metric = NeuralCollapse(C, 5)
    if rank == 0:
        for part, labels in PARTS:
            metric.update(part, labels)
    metric.sync()
    found["after sync"] = {name: value.item() for name, value in metric.compute().items()}
    metric.unsync()
    found["counts after unsync"] = metric.counts.tolist()
    module.body[1].running_mean.fill_(rank)
    trainer = SimpleNamespace(
        state=SimpleNamespace(stage=None), world_size=2, strategy=SimpleNamespace(broadcast=first)
    )
    with as_validated(trainer, module):
        found["one network"] = measure_split(module, shares["list"])["last"]
    assert module.body[1].running_mean.eq(rank).all()
    with open(f"{folder}/{rank}.json", "w") as file:
        json.dump(found, file)
    dist.destroy_process_group()


def first(value):
    sent = [value]
    dist.broadcast_object_list(sent, src=0)
    return sent[0]


def test_ranks_count_every_sample_once_and_measure_the_network_of_the_first(tmp_path):
    mp.start_processes(worker, (str(tmp_path),), nprocs=2, start_method="fork")  # which imports nothing anew
    ranks = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    for name, expected in {"all": range(60), "distributed": range(60)}.items():
        assert sorted(ranks[0]["indices"][name] + ranks[1]["indices"][name]) == list(expected)
    for name in ("subset", "own sampler", "own batches"):
        assert sorted(ranks[0]["indices"][name] + ranks[1]["indices"][name]) == HALF
    drawn = sorted(ranks[0]["drawn"] + ranks[1]["drawn"])
    assert len(set(drawn)) == 15
    assert torch.bincount(Y[drawn]).tolist() == [5] * C
    expected = brute_force(plain(Module().eval()))
    for found in ranks:
        for name in ("loader", "list", "no sample on one rank", "one network"):
            for measure, value in expected.items():
                assert found[name][measure] == pytest.approx(value, rel=2e-4, abs=1e-5), (name, measure)
        different, empty, passes = found["refused"]
        assert different.startswith("loaders must give every process the same batches")
        assert empty == "loaders must be loaders with at least one batch, found 'an empty one'"
        assert passes.startswith("loaders must give the same samples at every pass: 'last' gave other features")
        whole = {name: value.item() for name, value in neural_collapse(X, Y, C).items()}
        assert found["after sync"] == pytest.approx(whole, rel=1e-12)
    assert ranks[0]["counts after unsync"] == [20.0] * C
    assert ranks[1]["counts after unsync"] == [0.0] * C
