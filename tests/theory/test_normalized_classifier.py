"""Theorem 11 against the optimum of free features, with and without a bias, and differences of the loss."""

import numpy as np
import pytest

from ncflow.checks import ArgumentError
from ncflow.theory.normalized_classifier import classifier_velocity, interpolation_gap, normalized_classifier
from ncflow.theory.quasi_interpolation import free_features, ridge_classifier, symmetric_outputs
from ncflow.theory.simplex import simplex_etf


def collapsed(C, bias=True, N=5, decay=0.3):
    """The last layer of least loss on features collapsed to a simplex about 0: V, rho, b, H, Y, decay, N."""
    H, Y = np.repeat(0.8 * simplex_etf(C, C + 1), N, 0), np.repeat(np.eye(C), N, 0)
    W, b = ridge_classifier(H, Y, decay, bias=bias)
    return W / np.linalg.norm(W), float(np.linalg.norm(W)), b, H, Y, decay, N


@pytest.mark.parametrize("C", [2, 4, 10])
def test_theorem_11_holds_with_a_bias(C):
    V, rho, b, H, Y, decay, N = collapsed(C)
    outputs = rho * H[::N] @ V.T + b
    epsilon = interpolation_gap(C, N, rho, decay)
    np.testing.assert_allclose(outputs, symmetric_outputs(C, epsilon), atol=1e-12)
    np.testing.assert_allclose(classifier_velocity(V, rho, H, Y, b), 0, atol=1e-12)
    np.testing.assert_allclose(V, normalized_classifier(H[::N], epsilon, rho), atol=1e-12)
    np.testing.assert_allclose((V**2).sum(1), 1 / C, rtol=1e-12)  # eq. 77
    np.testing.assert_allclose(C * V @ V.T, C / (C - 1) * np.eye(C) - 1 / (C - 1), atol=1e-12)  # eq. 79
    np.testing.assert_allclose(V @ H.mean(0), 0, atol=1e-12)  # eq. 78 has 1/(rho C), which is the bias
    np.testing.assert_allclose(b, 1 / C, rtol=1e-12)
    # Eq. 75, both sides.
    residuals = Y - rho * H @ V.T - b
    np.testing.assert_allclose((residuals * (H @ V.T)).sum() * V, residuals.T @ H, atol=1e-12)
    printed = rho / (1 - epsilon / (C - 1)) / (C - 1) * H[::N]  # eq. 76
    assert np.linalg.norm(printed - V) == pytest.approx(epsilon * (C - 1) / (C - 1 - epsilon), rel=1e-9)


def test_theorem_11_contradicts_itself_without_a_bias():
    """The optimum has outputs that sum to 0, and is none of Assumption 2."""
    C = 4
    V, rho, _, H, Y, *_ = collapsed(C, bias=False)
    np.testing.assert_allclose(classifier_velocity(V, rho, H, Y), 0, atol=1e-12)
    np.testing.assert_allclose((rho * H @ V.T).sum(1), 0, atol=1e-12)
    np.testing.assert_allclose((V**2).sum(1), 1 / C, rtol=1e-12)


@pytest.mark.parametrize("C", [2, 5])
def test_gap_is_that_of_the_optimum_of_free_features(C):
    N, decay = 6, 0.2
    best = free_features(C, N, decay, 0.05)
    rho = np.sqrt(C * best.weight_norm_squared)
    assert interpolation_gap(C, N, rho, decay) == pytest.approx(best.epsilon, rel=1e-9)
    assert interpolation_gap(C, N, 1e-6, decay) == pytest.approx(decay * 1e-12 / (C * N), rel=1e-9)


def test_velocity_is_minus_the_gradient_on_the_sphere():
    """rho^2 times V' of the gradient flow in V itself is what weight normalisation makes of it: eq. 74."""
    rng = np.random.default_rng(0)
    V, H, Y, b, rho = *(rng.standard_normal(shape) for shape in ((3, 4), (7, 4), (7, 3), (3,))), 1.7
    V /= np.linalg.norm(V)
    found = classifier_velocity(V, rho, H, Y, b)

    def loss(W):
        return ((Y - rho * H @ (W / np.linalg.norm(W)).T - b) ** 2).sum() / 2

    for index in np.ndindex(V.shape):
        step = np.zeros_like(V)
        step[index] = 1e-6
        assert found[index] == pytest.approx(-(loss(V + step) - loss(V - step)) / 2e-6, abs=1e-7)


@pytest.mark.parametrize(
    ("call", "argument"),
    [
        (lambda: classifier_velocity(np.ones((2, 2)), 1.0, np.ones((3, 2)), np.ones((3, 2))), "directions"),
        (lambda: classifier_velocity(np.eye(2) / np.sqrt(2), 0.0, np.ones((3, 2)), np.ones((3, 2))), "rho"),
        (lambda: normalized_classifier(np.ones(3), 0.1, 1.0), "class_means"),
        (lambda: normalized_classifier(np.ones((2, 3)), 0.5, 1.0), "epsilon"),
        (lambda: interpolation_gap(2, 5, 10.0, 1.0), "weight_decay"),
        (lambda: interpolation_gap(2, 0, 1.0, 1.0), "samples_per_class"),
    ],
)
def test_bad_arguments_are_named(call, argument):
    with pytest.raises(ArgumentError, match=f"^{argument} must be"):
        call()
