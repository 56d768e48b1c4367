"""mu, M and rho_eq of CBMM Memo 117 against loops, against derivatives, and where training comes to rest."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import brentq
from torch import nn

from ncflow.measuring.split import measure_split, rows_of
from ncflow.metrics.equilibrium import output_moments
from ncflow.models.classifier import parameter_groups
from ncflow.models.losses import SquareLoss
from ncflow.models.mlp import MLP
from ncflow.models.normalization import normalize_weights, retract_after_each_step
from ncflow.results import History, load_history


def data(classes=2, samples=12):
    rng = torch.Generator().manual_seed(3)
    return torch.randn(samples, 5, generator=rng, dtype=torch.float64), torch.arange(samples) % classes


def network(seed=0, depth=3, classes=2, normalization=None, **options):
    torch.manual_seed(seed)
    made = MLP((5,), classes, depth=depth, width=8, **{"norm": "none", **options}).double()
    normalize_weights(made, normalization, "none")
    return made


def objective(net, loss, decay, scope, batch):
    """What training minimises: the loss, and lambda/2 of the squares of what the optimiser decays."""
    (decayed, *_) = parameter_groups(net, decay, scope)
    squares = sum(parameter.square().sum() for parameter in decayed["params"])
    return loss(net(batch[0]), batch[1]) + decay / 2 * squares


def measured(net, loss, decay, batch):
    return measure_split(net, [batch], loss=loss, weight_decay=decay)["last"]


def settle(net, loss, decay, scope, batch, steps=400):
    """Train as a run does, with full batches, until hardly anything moves."""
    optimizer = torch.optim.SGD(parameter_groups(net, decay, scope), lr=0.1, momentum=0.9)
    retract_after_each_step(net, optimizer)
    for step in range(steps):
        if step == steps * 3 // 4:
            for group in optimizer.param_groups:
                group["lr"] /= 20  # a ReLU's kink is a place of rest, about which larger steps go to and fro
        optimizer.zero_grad()
        loss(net(batch[0]), batch[1]).backward()
        optimizer.step()


@pytest.mark.parametrize("targets", ["one_hot", "signs"])
@pytest.mark.parametrize("classes", [2, 4])
def test_moments_are_those_of_a_loop(targets, classes):
    net, batch, decay = network(classes=classes), data(classes), 0.03
    found = measured(net, SquareLoss(targets=targets), decay, batch)
    weights = [layer.weight.detach().numpy() for layer in net.modules() if isinstance(layer, nn.Linear)]
    rho = math.prod(np.sqrt((weight**2).sum()) for weight in weights)
    mean = square = 0.0
    length = classes if targets == "signs" else 1
    for f, label in zip(net(batch[0]).detach().numpy() / rho, batch[1].tolist(), strict=True):
        for place in range(classes):
            y = 1.0 if place == label else (-1.0 if targets == "signs" else 0.0)
            mean += y * f[place] / length / len(batch[1])
            square += f[place] ** 2 / length / len(batch[1])
    assert found["normalized_output_mean"] == pytest.approx(mean, rel=1e-12)
    assert found["normalized_output_square"] == pytest.approx(square, rel=1e-12)
    last = (weights[-1] ** 2).sum()
    assert found["rho_eq"] == pytest.approx(mean / (square + decay / (2 * length) * last / rho**2), rel=1e-12)


def test_sums_of_parts_and_of_many_runs_add_up():
    logits, labels = torch.randn(3, 10, 4, dtype=torch.float64), torch.randint(4, (3, 10))
    for signs in (False, True):
        together = output_moments(logits, labels, signs)
        for run in range(3):
            parts = [output_moments(logits[run, part], labels[run, part], signs) for part in (slice(4), slice(4, 10))]
            torch.testing.assert_close(together[run], sum(parts))


def test_a_margin_of_two_opposite_outputs_is_twice_the_memos():
    net, batch = network(), data()
    with torch.no_grad():
        net.classifier.weight[1] = -net.classifier.weight[0]
    found = measured(net, SquareLoss(targets="signs"), 0.01, batch)
    assert found["normalized_margin_mean"] == pytest.approx(2 * found["normalized_output_mean"], rel=1e-12)
    assert found["normalized_margin_square"] == pytest.approx(4 * found["normalized_output_square"], rel=1e-12)


CASES = {
    "plain": ("signs", "all", {}),
    "plain, four classes": ("one_hot", "all", {"classes": 4}),
    "signs of four classes": ("signs", "all", {"classes": 4}),
    "with a bias": ("one_hot", "all", {"classifier_bias": True}),
    "the last layer's decay": ("one_hot", "last_layer", {}),
    "BN": ("signs", "last_layer", {"norm": "last", "affine": False, "gamma": 1.0}),
    "lagrange": ("signs", "all", {"normalization": "lagrange"}),
    "weight": ("signs", "all", {"normalization": "weight"}),
}


@pytest.mark.parametrize("case", CASES)
def test_off_equilibrium_it_is_the_derivative_along_the_last_layer(case):
    """d objective/d log |W_L| = 2 |y|^2 rho (rho - rho_eq) mu/rho_eq, at any weights."""
    targets, scope, options = CASES[case]
    classes = options.get("classes", 2)
    net, batch, decay, loss = network(**options).eval(), data(classes), 0.07, SquareLoss(targets=targets)
    found = measured(net, loss, decay, batch)
    # The last layer's own: under weight normalisation the norm of its weight is a parameter, apart from the direction.
    head = [p for p in net.classifier.parameters() if any(p is q for q in parameter_groups(net, 1, scope)[0]["params"])]
    gradients = torch.autograd.grad(objective(net, loss, decay, scope, batch), head)
    slope = sum((p * g).sum() for p, g in zip(head, gradients, strict=True)).item()
    length = classes if targets == "signs" else 1
    rho, mean, equilibrium = found["rho"], found["normalized_output_mean"], found["rho_eq"]
    assert slope == pytest.approx(2 * length * rho * (rho - equilibrium) * mean / equilibrium, rel=1e-9)
    assert abs(rho / equilibrium - 1) > 0.05


@pytest.mark.parametrize("case", ["with a bias", "BN", "weight", "lagrange"])
def test_training_ends_at_it_and_away_from_what_holds_without_decay(case):
    targets, scope, options = CASES[case]
    net, batch, loss, decay = network(**options), data(), SquareLoss(targets=targets), 0.1
    settle(net, loss, decay, scope, batch)
    if case == "BN":  # its running variance has the divisor N - 1, which matters with so few samples
        net.last_norm.running_var *= 1 - 1 / len(batch[1])
    found = measured(net, loss, decay, batch)
    mean, square = found["normalized_output_mean"], found["normalized_output_square"]
    assert found["rho"] / found["rho_eq"] == pytest.approx(1, abs=3e-3)
    assert mean / square / found["rho_eq"] > 1.015  # rho_0, to which rho would go without decay
    if case == "lagrange":
        assert found["rho_eq"] == pytest.approx(mean / (square + decay / 4), rel=1e-12)  # eq. 11 as printed


@pytest.mark.parametrize(("depth", "targets"), [(2, "signs"), (3, "one_hot"), (4, "signs")])
def test_under_decay_of_all_layers_the_norms_are_balanced_and_rho_solves_their_equation(depth, targets):
    """mu = rho M + lambda/(2 |y|^2) rho^(2/L - 1), by a root finder; eq. 11 as printed is another equation."""
    decay, batch, loss = 0.05, data(samples=6), SquareLoss(targets=targets)
    net = network(depth=depth)
    settle(net, loss, decay, "all", batch)
    found = measured(net, loss, decay, batch)
    norms = [layer.weight.norm().item() for layer in net.modules() if isinstance(layer, nn.Linear)]
    assert len(norms) == depth
    assert norms == pytest.approx([found["rho"] ** (1 / depth)] * depth, rel=3e-3)
    mean, square = found["normalized_output_mean"], found["normalized_output_square"]
    share = decay / (4 if targets == "signs" else 2)
    balance = lambda rho: rho * square + share * rho ** (2 / depth - 1) - mean  # noqa: E731
    assert brentq(balance, 0.9 * found["rho"], 2 * found["rho"]) == pytest.approx(found["rho"], rel=3e-3)
    assert found["rho_eq"] == pytest.approx(found["rho"], rel=3e-3)
    assert abs(mean / (square + share) / found["rho"] - 1) > 0.1


def test_it_is_there_for_training_under_the_square_loss_alone():
    net, batch = network(), data()
    values = measure_split(net, [batch], loss=SquareLoss(), weight_decay=0.0)
    (train,), (test,) = rows_of(1, "train", values), rows_of(1, "test", values)
    assert train["rho_eq"] == pytest.approx(train["normalized_output_mean"] / train["normalized_output_square"])
    assert "rho_eq" not in test
    assert test["normalized_output_mean"] == train["normalized_output_mean"]
    assert math.isnan(measure_split(net, [batch], loss=SquareLoss())["last"]["rho_eq"])
    assert "rho_eq" not in measure_split(net, [batch])["last"]


def test_a_history_without_it_is_read(tmp_path):
    History(tmp_path / "run/history.csv").path.parent.mkdir()
    older = History(tmp_path / "run/history.csv", ("epoch", "split", "layer", "rho"))
    older.append([{"epoch": 0, "split": "train", "layer": "last", "rho": 2.0}])
    (tmp_path / "run/run.json").write_text('{"seed": 0}')
    assert load_history(tmp_path)["rho"].tolist() == [2.0]
