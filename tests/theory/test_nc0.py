"""The sum of the classifier's rows under SGD, against the optimiser itself and a loop over steps."""

import itertools

import pytest
import torch

from ncflow.checks import ArgumentError
from ncflow.models.decay import COUPLING, share_decay
from ncflow.theory.nc0 import sum_of_rows

RATES = [0.3, 0.3, 0.1, 0.02]
MOMENTA = [
    {},
    {"momentum": 0.9},
    {"momentum": 0.95, "dampening": 0.5},
    {"momentum": 0.9, "nesterov": True},
]


@pytest.mark.parametrize(("momentum", "coupling"), itertools.product(MOMENTA, [0.0, 0.3, 1.0]))
def test_is_what_pytorchs_sgd_makes_of_gradients_that_sum_to_0(momentum, coupling):
    torch.manual_seed(0)
    W = torch.nn.Parameter(torch.randn(4, 6, dtype=torch.float64))
    a = W.detach().sum(0)
    group = {"params": [W], "weight_decay": 0.2, COUPLING: coupling}
    optimizer = share_decay(torch.optim.SGD([group], lr=1.0, **momentum))
    found = sum_of_rows(RATES, 7, decay=0.2, coupling=coupling, **momentum)
    for rate, multiple in zip(RATES, found[1:], strict=True):
        optimizer.param_groups[0]["lr"] = rate
        for _ in range(7):
            gradient = torch.randn(4, 6, dtype=torch.float64)
            W.grad = gradient - gradient.mean(0)
            optimizer.step()
        assert torch.allclose(W.detach().sum(0), multiple * a, rtol=1e-11, atol=1e-12)


def test_without_decay_it_stays_and_one_step_an_epoch_will_do():
    assert sum_of_rows(RATES, 3, decay=0.0, momentum=0.9) == [1.0] * 5
    assert sum_of_rows([0.5, 0.5], 1, decay=0.5) == [1.0, 0.75, 0.5625]
    assert sum_of_rows([], 3, decay=0.1) == [1.0]


@pytest.mark.parametrize("bad", [{"steps": 0}, {"decay": -1.0}, {"coupling": 2.0}])
def test_bad_arguments_are_refused(bad):
    with pytest.raises(ArgumentError, match=f"^{next(iter(bad))} must be "):
        sum_of_rows(RATES, **{"steps": 1, "decay": 0.1, **bad})
