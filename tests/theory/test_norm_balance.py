"""Eq. 14 along the toy model's flow, and on networks that torch trains."""

import numpy as np
import pytest
import torch

from ncflow.checks import ArgumentError
from ncflow.metrics.margins import margins
from ncflow.models.losses import square_loss
from ncflow.theory.norm_balance import flow_time, norm_balance
from ncflow.theory.toy_model.flow import gradient_flow
from ncflow.theory.toy_model.network import random_data, random_network


@pytest.mark.parametrize("kind", ["normalized", "unnormalized", "last_free"])
def test_loss_follows_from_the_last_norm_along_gradient_flow(kind):
    """Eq. 14 as printed, with rho of all layers, for the toy model; of the last layer alone without normalisation."""
    data, decay, times = random_data(5, 3, 0), 0.1, np.linspace(0, 2, 401)
    path = gradient_flow(random_network((3, 5, 4), 2.0, 1, bend=None), data, times, weight_decay=decay, kind=kind)
    norm = path.rho if kind == "normalized" else path.norms[:, -1]
    outputs = path.rho * path.margins.mean(1)
    found = norm_balance(times, norm, path.square_error, outputs, decay)
    np.testing.assert_allclose(found.from_norm, found.loss, atol=2e-4)
    assert np.abs(found.speed).max() > 0.1
    if kind == "normalized":
        np.testing.assert_allclose(found.from_norm, 1 - path.rho * (path.margins.mean(1) + found.speed / 2))
        np.testing.assert_allclose(found.loss, path.loss)
    if kind == "unnormalized":  # the product of all norms is not what eq. 14 is about
        product = norm_balance(times, path.rho, path.square_error, outputs, decay)
        assert np.abs(product.from_norm - product.loss).max() > 0.1


def train(network, targets, momentum, decay, every=5, points=21, rate=2e-3):
    """Steps, |W_L|, square loss and the mean of <y, f> of full-batch SGD on three or two Gaussian classes."""
    classes = network[-1].out_features
    rng = torch.Generator().manual_seed(0)
    labels = torch.arange(30) % classes
    inputs = torch.randn(30, 6, generator=rng, dtype=torch.float64) + labels[:, None]
    optimizer = torch.optim.SGD(network.parameters(), lr=rate, momentum=momentum, weight_decay=decay)
    rows = []
    for step in range(every * (points - 1) + 1):
        outputs = network(inputs)
        loss = square_loss(outputs, labels, targets)
        if step % every == 0:
            own = outputs.gather(1, labels[:, None]).mean() if targets == "one_hot" else margins(outputs, labels).mean()
            rows.append([step, network[-1].weight.norm().item(), loss.item(), own.item()])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return np.array(rows).T


@pytest.mark.parametrize(
    ("targets", "classes", "momentum"), [("one_hot", 3, 0.0), ("signs", 2, 0.0), ("signs", 2, 0.5)]
)
def test_loss_follows_from_the_last_norm_on_a_run_with_batch_norm(targets, classes, momentum):
    torch.manual_seed(0)
    layers = [torch.nn.Linear(6, 8), torch.nn.ReLU(), torch.nn.BatchNorm1d(8, affine=False)]
    network = torch.nn.Sequential(*layers, torch.nn.Linear(8, classes, bias=False)).double()
    decay, rate = 0.05, 2e-3 * (1 - momentum)
    steps, norm, loss, own = train(network, targets, momentum, decay, every=round(5 / (1 - momentum)), rate=rate)
    skipped = 4 if momentum else 0  # until momentum has built up
    time = flow_time(steps, rate, momentum)[skipped:]
    columns = (column[skipped:] for column in (norm, loss, own))
    found = norm_balance(time, *columns, decay / 2, target_square=1.0 if targets == "one_hot" else 2.0)
    np.testing.assert_allclose(found.from_norm[1:-1], found.loss[1:-1], rtol=0.03)
    assert (np.abs(found.speed * norm[skipped:] / 2) > 0.05 * found.loss).any()  # rho' counts


def test_flow_time_is_that_of_torch_with_momentum():
    """On one coordinate of a quadratic, from where momentum has built up."""
    x = torch.tensor([1.0], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.SGD([x], lr=1e-5, momentum=0.9)
    path = []
    for _ in range(501):
        path.append(x.item())
        optimizer.zero_grad()
        (x**2 / 2).sum().backward()
        optimizer.step()
    elapsed = np.log(path[200] / path[500])
    assert elapsed == pytest.approx(flow_time(500, 1e-5, 0.9) - flow_time(200, 1e-5, 0.9), rel=2e-3)


@pytest.mark.parametrize(
    ("call", "argument"),
    [
        (lambda: norm_balance([0, 1], [1, 1], [1, 1], [1, 1], 0.1), "time"),
        (lambda: norm_balance([0, 2, 1], [1] * 3, [1] * 3, [1] * 3, 0.1), "time"),
        (lambda: norm_balance([0, 1, 2], [1] * 2, [1] * 3, [1] * 3, 0.1), "norm"),
        (lambda: norm_balance([0, 1, 2], [1] * 3, [1] * 3, [1] * 3, -0.1), "weight_decay"),
        (lambda: flow_time(1, 0.0), "learning_rate"),
        (lambda: flow_time(1, 0.1, 1.0), "momentum"),
    ],
)
def test_bad_arguments_are_named(call, argument):
    with pytest.raises(ArgumentError, match=f"^{argument} must be"):
        call()
