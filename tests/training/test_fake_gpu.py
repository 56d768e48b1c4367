"""What a GPU would be given, without one: fake tensors know their device and refuse to tell their values.

An operation on two devices raises, and so does one that would make the host wait for a value.
"""

from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from ncflow.measuring.outputs import Outputs
from ncflow.metrics import NeuralCollapse
from ncflow.metrics.class_means import FirstSums
from ncflow.metrics.groups.few_shot import DirectionalSums
from ncflow.metrics.groups.ood import OodMean
from ncflow.metrics.groups.probe import Probe, Ridge, SecondMoments
from ncflow.metrics.margins import margins, predictions
from ncflow.metrics.scatter import Around, SecondSums
from ncflow.models.signum import Signum
from ncflow.training.assembly import prepare
from ncflow.training.stacked import measure
from ncflow.training.stacked.data import StackedBatches
from ncflow.training.stacked.modules import StackedNetwork, cell_losses
from ncflow.training.stacked.optimizer import CellOptimizer
from tests.conftest import TINY

CELLS, SAMPLES, CLASSES, WIDTH = 3, 300, 4, 16


@pytest.fixture
def on_gpu():
    """Move a tensor, or the parameters and buffers of a module, to a GPU that is not there."""
    mode = FakeTensorMode()

    def tensor(value):
        fake = mode.from_tensor(value)
        try:
            with mode:
                return fake.to("cuda")
        except RuntimeError as error:
            pytest.skip(f"this PyTorch fakes no copy to a GPU: {str(error).splitlines()[0]}")

    def move(value):
        if isinstance(value, torch.Tensor):
            return tensor(value)
        for module in value.modules():
            for name, own in [*module._parameters.items(), *module._buffers.items()]:
                if isinstance(own, nn.Parameter):
                    module._parameters[name] = nn.Parameter(tensor(own.detach()))
                elif own is not None:
                    module._buffers[name] = tensor(own)
        return value

    move.mode = mode
    return move


def make_group(config, on_gpu, *overrides):
    configs = [config(*TINY, *overrides, f"seed={seed}") for seed in range(CELLS)]
    classifiers = [prepare(cfg)[1] for cfg in configs]
    networks = [on_gpu(classifier.network) for classifier in classifiers]
    with on_gpu.mode:
        return StackedNetwork(networks), classifiers[0].loss


def test_a_fake_gpu_tells_no_values_and_shares_none_with_the_cpu(on_gpu):
    value = on_gpu(torch.ones(2))
    with on_gpu.mode:
        with pytest.raises(DataDependentOutputException):
            bool(value.sum() > 1)
        with pytest.raises(RuntimeError, match="device"):
            value + torch.ones(2)


# PyTorch's fused SGD cannot be faked.
OPTIMIZERS = [partial(torch.optim.Adam, fused=True), partial(torch.optim.SGD, fused=False), Signum]


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=["adam", "sgd", "signum"])
@pytest.mark.parametrize("norm", ["none", "last", "all"])
def test_a_stacked_epoch_stays_on_the_gpu_and_waits_for_nothing(optimizer, norm, config, on_gpu):
    network, loss = make_group(config, on_gpu, f"model.norm={norm}")
    inputs, labels = on_gpu(torch.randn(2, SAMPLES, 16)), on_gpu(torch.zeros(2, SAMPLES, dtype=torch.long))
    sources, order = on_gpu(torch.tensor([0, 1, 0])), torch.stack([torch.randperm(SAMPLES) for _ in range(CELLS)])
    with on_gpu.mode:
        cells = CellOptimizer(
            network,
            optimizer,
            [{"lr": 1e-3}] * CELLS,
            [1e-3, 1e-2, 1e-2],
            ["all", "all", "last_layer"],
            [None, 0.5, 0.0],
        )
        sums = torch.zeros(CELLS, device="cuda")
        batches = StackedBatches(inputs, labels, sources, 128, lambda: on_gpu.mode.from_tensor(order))
        for batch in batches:
            losses = cell_losses(loss, network(batch.inputs), batch.labels)
            sums += losses.detach()
            # The backward pass needs a real device; autograd's operations wait for nothing.
            for parameter in network.parameters():
                parameter.grad = torch.empty_like(parameter)
            cells.take_gradients()
            cells.optimizer.step()
            cells.clear_gradients()
        assert sums.device.type == "cuda"
        assert {v.device.type for own in cells.state().values() for k, v in own.items() if k[:3] == "exp"} <= {"cuda"}


def test_the_sums_over_all_cells_stay_on_the_gpu_and_wait_for_nothing(config, on_gpu):
    network, loss = make_group(config, on_gpu)
    batch = SimpleNamespace(
        inputs=on_gpu(torch.randn(CELLS, SAMPLES, 16)), labels=on_gpu(torch.zeros(CELLS, SAMPLES, dtype=torch.long))
    )
    with on_gpu.mode, torch.no_grad():
        means = torch.empty(CELLS, CLASSES, WIDTH, dtype=torch.float64, device="cuda")
        square = torch.empty(CELLS, CLASSES, CLASSES, dtype=torch.float64, device="cuda")
        places = torch.empty(CELLS, CLASSES, dtype=torch.long, device="cuda")
        around = Around(means, means, square[:, 0, 0], means, square, square[:, 0], places, places, square, None)
        reader = SimpleNamespace(network=network.eval(), loss=loss)
        ((features, labels, logits),) = measure.CellsMeasurer._read(reader, [batch])
        shape = (CLASSES, WIDTH, "cuda", (CELLS,))
        first, second = FirstSums.zeros(*shape), SecondSums.zeros(*shape)
        outputs = Outputs(loss, torch.device("cuda"), (CELLS,), cell_losses)
        first.add(features, labels)
        second.add(features, labels, predictions(logits), around)
        outputs.update(logits, labels)
        found = [*vars(first).values(), *vars(second).values(), outputs.sums, margins(logits, labels)]
        assert {value.device.type for value in found} == {"cuda"}


@pytest.mark.parametrize("limit", [None, 0])
def test_the_metric_takes_batches_in_without_waiting_for_the_gpu(limit, on_gpu):
    metric = NeuralCollapse(CLASSES, WIDTH, max_cached_bytes=limit)
    for name in (*vars(FirstSums.zeros(CLASSES, WIDTH)), "label_range"):
        setattr(metric, name, on_gpu(getattr(metric, name)))
    features, logits = on_gpu(torch.randn(SAMPLES, WIDTH)), on_gpu(torch.randn(SAMPLES, CLASSES))
    labels = on_gpu(torch.zeros(SAMPLES, dtype=torch.long))
    with on_gpu.mode:
        for _ in range(2):
            metric.update(features, labels, logits)
        assert metric.sums.device.type == "cuda"


def test_the_sums_of_groups_stay_on_the_gpu_and_wait_for_nothing(on_gpu):
    features, labels = on_gpu(torch.randn(SAMPLES, WIDTH)), on_gpu(torch.zeros(SAMPLES, dtype=torch.long))
    with on_gpu.mode:
        means = torch.empty(CLASSES, WIDTH, dtype=torch.float64, device="cuda")
        places = torch.empty(CLASSES, dtype=torch.long, device="cuda")
        around = SimpleNamespace(num_present=CLASSES, means=means, centred=means, places=places)
        directional, ood, moments = DirectionalSums(around), OodMean(WIDTH, "cuda"), SecondMoments(WIDTH, "cuda")
        probe = Probe(SimpleNamespace(kept={"probe": Ridge(means[0], means.T, means[:, 0], places)}))
        probe.begin(around)
        for _ in range(2):
            directional.add(features, labels)
            ood.add(features)
            moments.add(features)
            probe.second(features, labels)
        found = [directional.table, OodMean.of(ood.sums), moments.around(means[0]), probe._sums]
        assert {value.device.type for value in found} == {"cuda"}
