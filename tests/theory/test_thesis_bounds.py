"""The thesis' bounds: their printed form, where their rate rises, and what its proof takes for granted."""

import math

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from ncflow.checks import ArgumentError
from ncflow.theory.bounds import bounds_from_norms
from ncflow.theory.layer_peeled import minimum_loss, optimal_norm_product
from ncflow.theory.simplex import inter_limit, simplex_etf
from ncflow.theory.thesis_bounds import largest_decay_with_rising_rate, thesis_bounds, thesis_rate


@pytest.mark.parametrize("kappa", [None, 0.4])
def test_bounds_follow_the_proof(kappa):
    C, alpha, beta, eps, delta = 5, 1.2, 0.8, 1e-9, 0.1
    ab = alpha * beta
    E = math.exp((C / (C - 1) if kappa is None else kappa) * ab)
    found = thesis_bounds(C, alpha, beta, eps, delta=delta, kappa=kappa)
    intra = 1 - E / ab * math.sqrt(128 * eps / delta)
    assert found.intra_printed == pytest.approx(intra, rel=1e-12)
    assert found.intra == pytest.approx(intra**2, rel=1e-12)
    assert found.nc3_cosine == pytest.approx(1 - 2 * math.sqrt(2 * eps * (1 - delta) / (delta / E)), rel=1e-12)
    duality = E / ab * math.sqrt(2 * eps / delta)
    expected = -1 / (C - 1) + C / (C - 1) * duality + 4 * (2 * duality) ** (1 / 3) + math.sqrt(2 * duality)
    assert found.inter == pytest.approx(expected, rel=1e-12)


def test_bounds_are_exact_without_a_gap_and_stronger_than_those_of_the_paper():
    exact = thesis_bounds(1000, 50.0, 50.0, 0.0)
    assert (exact.intra, exact.nc3_cosine, exact.inter) == (1, 1, inter_limit(1000))
    assert thesis_bounds(1000, 50.0, 50.0, 1e-3).vacuous
    thesis, paper = thesis_bounds(10, 2.0, 2.0, 1e-12), bounds_from_norms(10, 2.0, 2.0, 1e-12, kappa=10 / 9)
    assert thesis.intra > paper.intra
    assert thesis.inter < paper.inter


@pytest.mark.parametrize("C", [2, 4, 100])
def test_rate_is_least_at_the_share_of_classes_that_the_thesis_says(C):
    found = minimize_scalar(lambda g: thesis_rate(C, g), bounds=(0.01, 5), method="bounded", options={"xatol": 1e-10})
    assert found.x == pytest.approx((C - 1) / C, abs=1e-5)
    decay = largest_decay_with_rising_rate(C)
    assert optimal_norm_product(C, decay) == pytest.approx((C - 1) / C, rel=1e-12)
    assert optimal_norm_product(C, decay / 2) > (C - 1) / C > optimal_norm_product(C, (decay + C**-0.5) / 2)


def test_largest_decays_are_those_in_the_docstring():
    assert [round(largest_decay_with_rising_rate(C), 3) for C in (4, 1000)] == [0.35, 0.032]


@pytest.mark.parametrize("C", [3, 10, 1000])
def test_about_e_to_the_norms_is_one_over_the_curvature_at_the_optimum(C):
    """Second differences of log(1 + (C-1) e^x) at x = -C/(C-1) g, but for the factor of the notes."""
    for g in (1.0, 5.0):
        x, h = -C / (C - 1) * g, 1e-3
        values = [math.log1p((C - 1) * math.exp(x + step)) for step in (-h, 0, h)]
        curvature = (values[0] - 2 * values[1] + values[2]) / h**2
        factor = (C - 1) / (1 + (C - 1) * math.exp(x)) ** 2
        assert math.exp(C / (C - 1) * g) == pytest.approx(factor / curvature, rel=1e-4)


def test_the_claim_holds_on_simplices_that_are_disturbed():
    """Both sides on last layers: no class and no pair lies beyond the bounds with delta below 1/(C (C-1))."""
    C, rng, checked = 4, np.random.default_rng(0), 0
    etf = simplex_etf(C, C)
    for scale in np.repeat([1e-8, 1e-6, 1e-4], 20):
        W, H = (1.2 * etf + scale * rng.standard_normal(etf.shape) for _ in range(2))
        features = np.stack([H + scale * rng.standard_normal(H.shape) for _ in range(5)], 1)
        alpha, beta = math.sqrt((features**2).sum(2).mean()), np.linalg.norm(W) / math.sqrt(C)
        logits = features @ W.T
        losses = [np.log(np.exp(logits[c]).sum(1)) - logits[c, :, c] for c in range(C)]
        gap = max(np.mean(losses) - minimum_loss(C, alpha, beta), 0.0) + 2e-15  # a smaller one is rounding
        bounds = thesis_bounds(C, alpha, beta, gap, delta=0.08)
        u = (features / np.linalg.norm(features, axis=2, keepdims=True)).mean(1)
        inter = (u @ u.T)[~np.eye(C, dtype=bool)]
        assert (u**2).sum(1).min() >= bounds.intra - 1e-12
        assert inter.max() <= bounds.inter + 1e-12
        checked += not bounds.intra_vacuous and not bounds.inter_vacuous
    assert checked > 20


@pytest.mark.parametrize(
    ("call", "argument"),
    [
        (lambda: thesis_bounds(2, 1, 1, 0.1), "num_classes"),
        (lambda: thesis_bounds(3, 0, 1, 0.1), "alpha"),
        (lambda: thesis_bounds(3, 1, 1, -0.1), "epsilon"),
        (lambda: thesis_bounds(3, 1, 1, 0.1, kappa=0), "kappa"),
        (lambda: thesis_rate(4, 0.0), "norm_product"),
        (lambda: largest_decay_with_rising_rate(1), "num_classes"),
    ],
)
def test_bad_arguments_are_named(call, argument):
    with pytest.raises(ArgumentError, match=f"^{argument} must be"):
        call()
