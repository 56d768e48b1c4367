"""The ramp loss and the bound of the expected error against enumeration and repeated sampling."""

import math
from itertools import product

import numpy as np
import pytest

from ncflow.checks import ArgumentError
from ncflow.theory.ramp_bounds import expected_error_bound, ramp_loss
from ncflow.theory.toy_model.network import forward, random_network


def naive_ramp(margin, width):
    if margin <= 0:
        return 1.0
    return 1 - margin / width if margin <= width else 0.0


@pytest.mark.parametrize("width", [0.3, 1.0, 5.0])
def test_ramp_loss_is_the_three_cases_and_no_less_than_the_error(width):
    margins = np.concatenate([np.linspace(-2, 6, 81), [0.0, width]])
    found = ramp_loss(margins, width)
    np.testing.assert_allclose(found, [naive_ramp(m, width) for m in margins], atol=1e-15)
    assert (ramp_loss(margins, 0.0) <= found).all()
    assert (ramp_loss(margins, 0.0) == (margins <= 0)).all()
    np.testing.assert_allclose(ramp_loss(7 * margins, width), ramp_loss(margins, width / 7), atol=1e-12)


def rademacher(outputs):
    """E over all signs of the largest (1/N) sum s_n f(x_n) over functions, outputs (K, N)."""
    signs = np.array(list(product([-1, 1], repeat=outputs.shape[1])))
    return (signs @ outputs.T / outputs.shape[1]).max(1).mean()


def test_complexity_of_norm_rho_is_rho_times_that_of_unit_layers():
    """Eq. 20 for ReLU networks whose first layer, not the last, has the norm rho."""
    inputs, rho = np.random.default_rng(0).standard_normal((8, 3)), 7.0
    networks = [random_network((3, 4, 5), 1.0, seed).layers for seed in range(40)]
    unit = rademacher(np.array([forward(layers, inputs, 0.0)[0] for layers in networks]))
    scaled = rademacher(np.array([forward((rho * V, *rest), inputs, 0.0)[0] for V, *rest in networks]))
    assert scaled == pytest.approx(rho * unit, rel=1e-12)
    assert unit > 0.01


def ball_complexity(X, rng):
    """Of x -> <v, x>, |v| <= 1, by sampled signs."""
    signs = rng.choice([-1.0, 1.0], (400, len(X)))
    return np.linalg.norm(signs @ X, axis=1).mean() / len(X)


@pytest.mark.parametrize(("dim", "samples", "flipped"), [(20, 400, 0.0), (150, 100, 0.5)])
def test_errors_of_least_norm_solutions_stay_below_the_bound(dim, samples, flipped):
    """On labels of one direction; and on random ones that are interpolated, where the expected error is a half."""
    rng, bounds, errors = np.random.default_rng(0), [], []
    for _ in range(20):
        X = rng.standard_normal((samples, dim)) / math.sqrt(dim)
        y = np.where(rng.random(samples) < flipped, -1, 1) * np.sign(X[:, 0])
        v = np.linalg.lstsq(X, y, rcond=None)[0]
        ramp = ramp_loss(y * (X @ v), 1.0).mean()
        complexity = ball_complexity(X, rng)
        bounds.append(expected_error_bound(np.linalg.norm(v), complexity, samples, empirical_loss=min(ramp, 1)))
        wrong = math.acos(v[0] / np.linalg.norm(v)) / math.pi  # of a half-space, for inputs without a direction
        errors.append(flipped + (1 - 2 * flipped) * wrong)
    assert (np.array(errors) > np.array(bounds)).mean() <= 0.05
    if flipped:
        assert ramp < 1e-9
        assert errors[0] == 0.5 > expected_error_bound(0.0, 0.0, samples)  # rho is what makes the bound hold
    else:
        assert max(errors) < 0.1 < min(bounds)


def test_bound_is_the_sum_of_its_parts_and_grows_with_rho():
    found = expected_error_bound(3.0, 0.01, 200, width=0.5, empirical_loss=0.1, delta=0.02)
    assert found == pytest.approx(0.1 + 2 / 0.5 * 3.0 * 0.01 + 3 * math.sqrt(math.log(100) / 400))
    a, b = (expected_error_bound(rho, 0.01, 200) for rho in (2.0, 5.0))
    assert b - a == pytest.approx(2 * 0.01 * 3)  # eq. 21 and 22: A rho + epsilon


@pytest.mark.parametrize(
    ("call", "argument"),
    [
        (lambda: ramp_loss([1.0], -1.0), "width"),
        (lambda: expected_error_bound(-1.0, 0.1, 10), "rho"),
        (lambda: expected_error_bound(1.0, -0.1, 10), "complexity"),
        (lambda: expected_error_bound(1.0, 0.1, 0), "samples"),
        (lambda: expected_error_bound(1.0, 0.1, 10, width=0.0), "width"),
        (lambda: expected_error_bound(1.0, 0.1, 10, empirical_loss=1.1), "empirical_loss"),
        (lambda: expected_error_bound(1.0, 0.1, 10, delta=0.0), "delta"),
    ],
)
def test_bad_arguments_are_named(call, argument):
    with pytest.raises(ArgumentError, match=f"^{argument} must be"):
        call()
