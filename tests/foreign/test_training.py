"""Measuring somebody's training leaves it as it was, and ends with what it ended with."""

import copy
import logging
import random
from datetime import timedelta

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping
from torch import nn
from torch.utils.data import RandomSampler, Sampler

from ncflow.callbacks import NeuralCollapseCallback
from ncflow.callbacks.reading import check_strategy
from ncflow.checks import ArgumentError
from ncflow.measuring import notes
from ncflow.measuring.features import frozen
from ncflow.measuring.losses import SplitLoss
from tests.foreign.case import DATA, Fit, Module, N, X, Y, brute_force, loader, plain, run
from tests.foreign.forwards import Spectral
from tests.foreign.heads import convolution_head, lora_head, one_output
from tests.foreign.loaders import Noisy

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def said(caplog):
    """What was said."""
    notes._say.cache_clear()
    caplog.set_level(logging.WARNING, "ncflow")
    return lambda: [record.getMessage() for record in caplog.records if record.name.startswith("ncflow")]


class Stateful(Sampler):
    """A sampler that goes on where it was."""

    def __init__(self):
        self.rng = np.random.default_rng(0)

    def __iter__(self):
        return iter(self.rng.permutation(N).tolist())

    def __len__(self):
        return N


TRAININGS = {
    "a generator of the loader": lambda: Fit(Module(), loader(shuffle=True, generator=torch.Generator())),
    "a generator of the sampler": lambda: Fit(
        Module(), loader(sampler=RandomSampler(DATA, generator=torch.Generator()))
    ),
    "a sampler that goes on": lambda: Fit(Module(), loader(sampler=Stateful())),
    "augmentation by NumPy": lambda: Fit(Module(), loader(Noisy(lambda: np.float32(np.random.normal())), shuffle=True)),
    "augmentation by Python": lambda: Fit(Module(), loader(Noisy(lambda: random.gauss(0, 1)), shuffle=True)),
    "augmentation by PyTorch": lambda: Fit(Module(), loader(Noisy(lambda: torch.randn(())), shuffle=True)),
    "spectral_norm, the hook": lambda: Fit(Spectral(nn.utils.spectral_norm), loader(shuffle=True)),
    "spectral_norm": lambda: Fit(Spectral(nn.utils.parametrizations.spectral_norm), loader(shuffle=True)),
}


@pytest.mark.parametrize("name", TRAININGS)
def test_training_is_the_same_to_the_last_bit(name):
    states = []
    for callbacks in (None, []):
        random.seed(3)
        np.random.seed(3)
        fit = TRAININGS[name]()
        run(fit, callbacks)
        states.append(copy.deepcopy(fit.module.state_dict()))
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())


def test_what_changes_in_evaluation_mode_as_well_is_put_back():
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("calls", torch.zeros(()))
            self.register_buffer("latest", torch.zeros(3))

        def forward(self, x):
            self.calls += 1
            self.latest = x
            return x

    module = Counting()
    before, buffer = copy.deepcopy(module.state_dict()), module.calls
    with frozen(module):
        module(torch.ones(3))
    assert str(module.state_dict()) == str(before)
    assert module.calls is buffer


# --- the last row ------------------------------------------------------------------------------------------------


class Logged(Module):
    def training_step(self, batch, index):
        self.log("one", 1.0, on_epoch=True)
        return super().training_step(batch, index)


@pytest.mark.parametrize(
    ("options", "stopping", "epoch"),
    [
        ({"max_steps": 4, "max_epochs": -1}, [], 2),
        ({"max_epochs": 9}, [EarlyStopping("one", patience=1)], 2),
        ({"max_epochs": 9, "max_time": timedelta(milliseconds=1)}, [], 1),
    ],
)
def test_the_last_row_is_of_what_training_ended_with(options, stopping, epoch):
    fit = Fit(Logged(), trainer=options)
    measure = NeuralCollapseCallback(every_n_epochs=5)
    run(fit, [measure, *copy.deepcopy(stopping)])
    expected = brute_force(plain(fit.module.eval()))
    assert measure.rows[0]["epoch"] == epoch
    assert measure.rows[0]["nc1"] == pytest.approx(expected["nc1"], rel=1e-4)
    assert measure.rows[0]["weight_norm"] == pytest.approx(expected["weight_norm"], rel=1e-6)


def test_with_averaged_weights_it_says_which_ones_it_reads(said):
    """The averages are written over the weights when training ends: a row after that would be of other weights."""
    EMAWeightAveraging = pytest.importorskip("lightning.pytorch.callbacks.weight_averaging").EMAWeightAveraging
    weights = []

    class Remembering(Logged):
        def on_train_epoch_end(self):
            weights.append(self.fc.weight.double().norm().item())

    for callbacks in (
        [EMAWeightAveraging(decay=0.5), measure := NeuralCollapseCallback(1)],
        [EMAWeightAveraging(decay=0.5), late := NeuralCollapseCallback(5), EarlyStopping("one", patience=1)],
    ):
        run(Fit(Remembering(), trainer={"max_epochs": 4}), callbacks)
    assert measure.rows[0]["weight_norm"] == pytest.approx(weights[3])
    assert late.rows[0]["epoch"] == 0
    assert said() == [
        "measured are the weights that are trained, not their average, which EMAWeightAveraging has",
        "the last row is missing: NeuralCollapseCallback must come after what ends training before EMAWeightAveraging",
    ]


# --- a part of the samples ---------------------------------------------------------------------------------------


def test_limit_draws_some_of_each_class_once(said):
    seen = []

    class Watching(Module):
        def forward(self, x):
            if not self.training:
                seen.append(x)
            return super().forward(x)

    fit = Fit(Watching(), loader(size=4, shuffle=True), trainer={"max_epochs": 2}, callback={"limit": 5})
    measure, _ = run(fit)
    assert said() == ["train: at most 5 samples of each class, drawn once, are measured: 15 of 60"]
    measured = torch.cat(seen).view(3, 15, 5)
    assert torch.equal(measured[0], measured[1])
    assert torch.equal(measured[0], measured[2])
    index = (X[None] == measured[0][:, None]).all(2).nonzero()[:, 1]
    assert torch.bincount(Y[index]).tolist() == [5, 5, 5]
    for name, value in brute_force(plain(fit.module.eval(), X[index], Y[index])).items():
        assert measure.rows[0][name] == pytest.approx(value, rel=2e-4, abs=1e-5), name


def test_limit_is_refused_where_samples_cannot_be_chosen():
    fit = Fit(Module(), callback={"limit": 5, "loaders": {"train": [(X, Y)]}})
    with pytest.raises(ArgumentError, match=r"limit must be None where 'train' is no DataLoader.*found list"):
        run(fit)
    with pytest.raises(ArgumentError, match="limit must be None or at least 1, found 0"):
        NeuralCollapseCallback(limit=0)


# --- refusals, and losses one by one -----------------------------------------------------------------------------


def test_weights_that_are_spread_over_ranks_are_refused():
    class Trainer:
        strategy = object.__new__(L.pytorch.strategies.FSDPStrategy)

    with pytest.raises(ArgumentError, match="strategy must leave each rank all the weights, as ddp does, found FSDP"):
        check_strategy(Trainer())


def test_a_loss_that_was_asked_for_is_an_error_if_it_cannot_be_taken():
    for loss, why in ((lambda z: z.sum(), "cannot be taken"), (lambda z, y: z.std(), "depends on the batches")):
        with pytest.raises(ArgumentError, match=f"loss must be known.*{why}"):
            SplitLoss(loss)(torch.randn(4, 3), torch.tensor([0, 1, 2, 0]))


@pytest.mark.parametrize("sizes", [[1, 1, 1, 1, 3], [7], [2, 5], [1, 6], [1]])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_losses_of_all_reductions_are_the_mean_over_the_samples_in_any_batches(sizes, reduction):
    rng = torch.Generator().manual_seed(0)
    z, y = torch.randn(sum(sizes), 3, generator=rng).double(), torch.randint(3, (sum(sizes),), generator=rng)
    weight = torch.tensor([1.0, 3.0, 0.2])
    losses = {
        "own": (lambda z, y: nn.functional.cross_entropy(z, y, reduction=reduction), nn.functional.cross_entropy),
        "margin": (nn.MultiMarginLoss(reduction=reduction), nn.functional.multi_margin_loss),
        "weighted": (nn.CrossEntropyLoss(weight, reduction=reduction), nn.CrossEntropyLoss(weight.double())),
        "smoothed": (
            nn.CrossEntropyLoss(weight, label_smoothing=0.2, reduction=reduction),
            nn.CrossEntropyLoss(weight.double(), label_smoothing=0.2),
        ),
        "ignoring": (nn.CrossEntropyLoss(ignore_index=0, reduction=reduction), nn.CrossEntropyLoss(ignore_index=0)),
    }
    for name, (loss, whole) in losses.items():
        split, total, weights = SplitLoss(loss), 0.0, 0.0
        parts = [split(*part) for part in zip(z.split(sizes), y.split(sizes), strict=True)]
        rest = split.rest()
        for summed, weighed in [*parts, *([] if rest is None else [rest])]:
            total, weights = total + summed, weights + weighed
        assert (total / weights).item() == pytest.approx(whole(z, y).item(), rel=1e-12, nan_ok=True), name


@pytest.mark.parametrize(("make", "is_decayed"), [(convolution_head, True), (lora_head, False), (one_output, False)])
def test_weights_that_are_made_of_others_have_no_penalty_of_their_own(make, is_decayed):
    """Decay is on what W is made of, so that lambda/2 |W|^2 would be another loss than the one trained on."""
    fit = make()
    fit.callback["weight_decay"] = 0.1
    (row,) = run(fit)[0].rows
    H, y, W, b = fit.truth(fit.module.eval())
    loss = nn.functional.cross_entropy((H @ W.T + b).double(), y)
    total = loss + 0.05 * (H.double().square().sum(1).mean() + W.double().square().sum())
    expected = total.item() if is_decayed else float("nan")
    assert row["regularized_loss"] == pytest.approx(expected, rel=1e-5, nan_ok=True)
