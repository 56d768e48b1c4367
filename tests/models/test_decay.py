"""Coupled and decoupled weight decay, and a share each way, against PyTorch's own and a plain transcription."""

import numpy as np
import pytest
import torch
from torch.optim import SGD, Adam, AdamW

from ncflow.checks import ArgumentError
from ncflow.models import MLP, Classifier
from ncflow.models.decay import COUPLING, is_shared, share_decay
from ncflow.models.signum import Signum

LAMBDA, RATES = 0.3, [0.1] * 4 + [0.03] * 4


def weights(optimizer, coupling=None, dtype=torch.float64, closure=False, **options):
    """What some steps on given gradients make of weights of 7 numbers."""
    torch.manual_seed(0)
    w = torch.nn.Parameter(torch.randn(7, dtype=dtype))
    groups = [{"params": [w], "weight_decay": LAMBDA, **({} if coupling is None else {COUPLING: coupling})}]
    made = share_decay(optimizer(groups, **options))
    gradients = torch.randn(len(RATES), 7, dtype=dtype)
    for rate, gradient in zip(RATES, gradients, strict=True):
        made.param_groups[0]["lr"] = rate

        def backward(gradient=gradient):
            w.grad = gradient.clone()
            return gradient.sum()

        assert closure or backward() is not None
        given = made.step(backward) if closure else made.step()
        assert not closure or torch.equal(given, gradient.sum())
    return w.detach()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("amsgrad", [False, True])
def test_the_ends_of_adam_are_those_of_pytorch_bit_for_bit(dtype, amsgrad):
    options = {"dtype": dtype, "amsgrad": amsgrad}
    coupled, decoupled = weights(Adam, **options), weights(AdamW, **options)
    assert not torch.equal(coupled, decoupled)
    for kind in (Adam, AdamW):
        assert torch.equal(weights(kind, 1.0, **options), coupled)
        assert torch.equal(weights(kind, 0.0, **options), decoupled)


@pytest.mark.parametrize(("kind", "share", "other"), [(Adam, 0.0, AdamW), (AdamW, 1.0, Adam)])
def test_the_ends_of_fused_adam_are_within_rounding(kind, share, other):
    """A fused step subtracts eta lambda w in one rounding more or less."""
    expected = weights(other, fused=True)
    assert torch.allclose(weights(kind, share, fused=True), expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("options", [{}, {"momentum": 0.9}, {"momentum": 0.9, "nesterov": True}, {"fused": True}])
def test_coupled_sgd_is_pytorchs_bit_for_bit(options):
    assert torch.equal(weights(SGD, 1.0, **options), weights(SGD, **options))


def naive(kind, share, momentum=0.9):
    """The update as the docstring says it, in NumPy."""
    torch.manual_seed(0)
    w = torch.randn(7, dtype=torch.float64).numpy().copy()
    gradients = torch.randn(len(RATES), 7, dtype=torch.float64).numpy()
    m, v = np.zeros(7), np.zeros(7)
    for t, (eta, g) in enumerate(zip(RATES, gradients, strict=True), start=1):
        g = g + share * LAMBDA * w
        w = (1 - eta * LAMBDA * (1 - share)) * w
        if kind is SGD:
            m = momentum * m + g
            w = w - eta * m
        elif kind is Signum:
            m = momentum * m + (1 - momentum) * g
            w = w - eta * np.sign(m)
        else:
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
            w = w - eta * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    return w


@pytest.mark.parametrize("share", [0.0, 0.25, 0.9, 1.0])
@pytest.mark.parametrize("kind", [SGD, Adam, AdamW, Signum])
@pytest.mark.parametrize("closure", [False, True])
def test_a_share_each_way_is_the_formula(kind, share, closure):
    options = {"momentum": 0.9} if kind in (SGD, Signum) else {}
    assert np.allclose(weights(kind, share, closure=closure, **options), naive(kind, share), rtol=1e-12, atol=1e-14)


def test_signs_without_momentum():
    assert np.allclose(weights(Signum, momentum=0.0), naive(Signum, 1.0, momentum=0.0), rtol=1e-13)
    w = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
    w.grad = torch.tensor([0.0, -3.0])
    Signum([w], lr=0.5, momentum=0.0).step()
    assert w.tolist() == [1.0, 2.5]


@pytest.mark.parametrize("bad", [{"lr": 0.0}, {"momentum": 1.0}, {"weight_decay": -1.0}])
def test_signum_refuses_bad_options(bad):
    with pytest.raises(ArgumentError, match=f"^{next(iter(bad))} must be "):
        Signum([torch.nn.Parameter(torch.zeros(1))], **bad)


def test_an_optimizer_that_knows_no_decay_gets_it():
    assert not torch.equal(weights(torch.optim.Rprop, 0.0), weights(torch.optim.Rprop))


def test_what_is_not_decayed_is_neither_shrunk():
    """In the last layer's scope, and where there is no decay at all."""
    network = MLP((5,), 3, depth=3, width=8, norm="last").double()
    for decay, scope in ((0.1, "last_layer"), (0.0, "all")):
        module = Classifier(network, torch.nn.CrossEntropyLoss(), Adam, None, decay, scope, 0.5)
        optimizer = module.configure_optimizers()
        assert is_shared(optimizer) == (decay > 0)
        before = {name: p.detach().clone() for name, p in network.named_parameters()}
        for parameter in network.parameters():
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        moved = {name for name, p in network.named_parameters() if not torch.equal(p, before[name])}
        heads = {id(p) for part in (network.classifier, network.last_norm) for p in part.parameters()}
        assert moved == {name for name, p in network.named_parameters() if id(p) in heads and decay}


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["weight_decay_coupling=1.5"], "weight_decay_coupling must be at most 1, found 1.5"),
        (["weight_decay_coupling=-1"], "weight_decay_coupling must be null or between 0 and 1, found -1.0"),
        (
            ["weight_decay_coupling=0", "trainer.precision=16-mixed", "optimizer.fused=true"],
            "optimizer.fused must be false where weight_decay_coupling is not the optimizer's own and "
            "trainer.precision is '16-mixed', found True",
        ),
    ],
)
def test_what_cannot_be_is_one_line(options, line, refusal):
    assert refusal(*options) == line
