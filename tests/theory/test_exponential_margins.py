"""Equilibria under the exponential loss against minimisation and scans."""

import math

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import lambertw

from ncflow.checks import ArgumentError
from ncflow.theory.exponential_margins import equilibrium_rho, resting_margins


@pytest.mark.parametrize("margins", [[0.1, 0.4, 0.2], [0.5], [0.9, -0.2, 0.3], [1.0, -0.99]])
@pytest.mark.parametrize("decay", [1e-4, 0.1])
def test_rho_is_that_of_least_loss(margins, decay):
    f = np.array(margins)
    found = minimize_scalar(
        lambda rho: np.exp(-rho * f).mean() + decay / 2 * rho**2,
        bounds=(0, 200),
        method="bounded",
        options={"xatol": 1e-10},
    )
    assert equilibrium_rho(margins, decay) == pytest.approx(found.x, rel=1e-4, abs=1e-6)


def test_equal_and_unequal_margins_rest_under_the_full_batch():
    """Eq. 80 does not make margins equal: for any there is a rho."""
    for margins in ([0.3, 0.3], [0.1, 0.5]):
        rho = equilibrium_rho(margins, 0.01)
        f = np.array(margins)
        assert (np.exp(-rho * f) * f).mean() == pytest.approx(0.01 * rho, rel=1e-10)


@pytest.mark.parametrize(("rho", "decay"), [(5.0, 1e-3), (20.0, 1e-5), (3.0, 0.04), (0.5, 0.5)])
def test_resting_margins_are_all_solutions_and_often_two_below_one(rho, decay):
    lower, higher = resting_margins(rho, decay)
    for margin, branch in ((lower, 0), (higher, -1)):
        assert margin * math.exp(-rho * margin) == pytest.approx(decay * rho, rel=1e-9)
        assert margin == pytest.approx(-lambertw(-decay * rho**2, branch).real / rho, rel=1e-9)
    assert lower < 1 / rho < higher
    grid = np.linspace(0, 1, 400_001)
    changes = grid[:-1][np.diff(np.sign(grid * np.exp(-rho * grid) - decay * rho)) != 0]
    np.testing.assert_allclose(changes, [root for root in (lower, higher) if root < 1], atol=1e-5)
    assert (len(changes) == 2) == (rho > 1 and math.exp(-rho) < decay * rho)


def test_at_the_largest_decay_there_is_one_margin():
    assert resting_margins(4.0, 1 / (math.e * 16)) == pytest.approx((0.25, 0.25), rel=1e-6)


@pytest.mark.parametrize(
    ("call", "argument"),
    [
        (lambda: equilibrium_rho([-0.1, 0.05], 0.1), "margins"),
        (lambda: equilibrium_rho([[0.1]], 0.1), "margins"),
        (lambda: equilibrium_rho([0.1], 0.0), "weight_decay"),
        (lambda: resting_margins(0.0, 0.1), "rho"),
        (lambda: resting_margins(4.0, 0.1), "weight_decay"),
    ],
)
def test_bad_arguments_are_named(call, argument):
    with pytest.raises(ArgumentError, match=f"^{argument} must be"):
        call()
