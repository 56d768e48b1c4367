import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from ncflow.checks import ArgumentError
from ncflow.theory.bounds import (
    batch_norm_rms,
    bounds_from_norms,
    bounds_from_weight_decay,
    proof_kappa,
    subset_mean_bounds,
)
from ncflow.theory.cli import main
from ncflow.theory.layer_peeled import (
    minimum_loss,
    minimum_regularized_loss,
    optimal_norm_product,
    regularized_bound,
    regularized_loss,
)
from ncflow.theory.simplex import inter_limit, simplex_etf, simplex_gram

CASES = [(2, 1e-3), (4, 5e-3), (10, 5e-4), (100, 1e-4), (1000, 1e-3), (4, 0.2)]


@pytest.mark.parametrize(("classes", "decay"), CASES)
def test_optimum_equals_numerical_minimisation(classes, decay):
    found = minimize_scalar(
        lambda g: minimum_loss(classes, 1.0, g) + math.sqrt(classes) * decay * g,
        bounds=(0, 100),
        method="bounded",
        options={"xatol": 1e-12},
    )
    assert optimal_norm_product(classes, decay) == pytest.approx(found.x, abs=1e-5)
    assert minimum_regularized_loss(classes, decay) == pytest.approx(found.fun, rel=1e-9)


@pytest.mark.parametrize(("classes", "decay"), CASES)
def test_regularized_loss_equals_the_closed_form_with_the_sign_mended(classes, decay):
    C, root = classes, math.sqrt(classes)
    closed = -math.log(1 - (C - 1) * decay / root) + (C - 1) / root * decay * math.log(root / decay - (C - 1))
    assert minimum_regularized_loss(classes, decay) == pytest.approx(closed, rel=1e-12)


def test_published_sign_is_wrong():
    assert minimum_regularized_loss(4, 5e-3) == pytest.approx(0.0524078, abs=1e-7)


def test_strong_decay_leaves_nothing_to_learn():
    assert optimal_norm_product(4, 0.6) == 0
    assert minimum_regularized_loss(4, 0.6) == pytest.approx(math.log(4))


def test_command_prints_the_table(capsys):
    main(["optimum", "--classes", "4", "--weight-decay", "5e-3", "1e-2"])
    out = capsys.readouterr().out
    assert "0.0524078" in out
    assert len(out.splitlines()) == 3


def test_command_refuses_in_one_line(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["optimum", "--classes", "1", "--weight-decay", "5e-3"])
    assert capsys.readouterr().err.strip() == "ncflow-theory: error: num_classes must be at least 2, found 1"


@pytest.mark.parametrize(("classes", "dim"), [(2, None), (3, 3), (10, 9), (100, 300)])
def test_simplex_is_the_equiangular_tight_frame(classes, dim):
    rows = simplex_etf(classes, dim)
    np.testing.assert_allclose(rows @ rows.T, simplex_gram(classes), atol=1e-12)
    np.testing.assert_allclose(rows.sum(0), 0, atol=1e-12)
    cosines = (rows @ rows.T)[~np.eye(classes, dtype=bool)]
    np.testing.assert_allclose(cosines, inter_limit(classes), atol=1e-12)


def test_simplex_reaches_the_least_loss_and_nothing_random_goes_below():
    """m(alpha, beta) is attained by aligned simplices and by nothing better (Pan, Cao, Theorem C.1)."""
    C, d, alpha, beta = 5, 7, 1.7, 0.9
    labels = torch.arange(C)
    best = torch.from_numpy(simplex_etf(C, d))
    loss = torch.nn.functional.cross_entropy((alpha * best) @ (beta * best).T, labels)
    assert loss.item() == pytest.approx(minimum_loss(C, alpha, beta), rel=1e-12)
    rng = torch.Generator().manual_seed(0)
    for scale in (1e-3, 0.1, 10.0):
        for _ in range(30):
            H, W = (best + scale * torch.randn(C, d, generator=rng, dtype=torch.float64) for _ in range(2))
            H, W = alpha * H / H.square().sum(1).mean().sqrt(), beta * math.sqrt(C) * W / W.norm()
            assert torch.nn.functional.cross_entropy(H @ W.T, labels) > loss


@given(
    classes=st.integers(2, 50),
    decay=st.floats(1e-6, 0.5),
    alpha=st.integers(0, 2000).map(lambda i: i / 100),
    beta=st.integers(0, 2000).map(lambda i: i / 100),
)
def test_regularized_minimum_is_below_every_balanced_or_unbalanced_pair_of_norms(classes, decay, alpha, beta):
    total = regularized_loss(minimum_loss(classes, alpha, beta), decay, alpha, beta * math.sqrt(classes))
    assert total >= regularized_bound(classes, decay, alpha * beta) - 1e-9
    assert regularized_bound(classes, decay, alpha * beta) >= minimum_regularized_loss(classes, decay) - 1e-12


def test_bounds_from_norms_follow_the_detailed_theorem():
    C, alpha, beta, eps, delta, kappa = 5, 1.2, 0.8, 1e-9, 0.1, 0.7
    E, ab = math.exp(kappa * C * alpha * beta), alpha * beta
    r = E / ab * math.sqrt(2 * eps / delta)
    intra = 1 - (C - 1) / (C * ab) * math.sqrt(128 * eps * (1 - delta) * E / delta)
    found = bounds_from_norms(C, alpha, beta, eps, delta=delta, kappa=kappa)
    assert found.intra_printed == pytest.approx(intra, rel=1e-12)
    assert found.intra == pytest.approx(intra**2, rel=1e-12)
    assert found.nc3_cosine == pytest.approx(1 - 2 * math.sqrt(2 * eps * (1 - delta) * E / delta), rel=1e-12)
    expected = -1 / (C - 1) + C / (C - 1) * r + 4 * (2 * r) ** (1 / 3) + math.sqrt(r)
    assert found.inter == pytest.approx(expected, rel=1e-12)
    assert not found.vacuous


def test_bounds_from_weight_decay_follow_the_detailed_theorem():
    C, decay, eps, delta, kappa = 4, 5e-3, 1e-8, 0.05, 0.2
    rho = (C * math.e / decay) ** (kappa * C)
    r = rho * math.sqrt(2 * eps / delta)
    found = bounds_from_weight_decay(C, decay, eps, delta=delta, kappa=kappa)
    intra = 1 - (C - 1) / C * math.sqrt(128 * rho * eps * (1 - delta) / delta)
    assert found.intra_printed == pytest.approx(intra, rel=1e-12)
    assert found.nc3_cosine == pytest.approx(1 - 2 * math.sqrt(2 * rho * eps * (1 - delta) / delta), rel=1e-12)
    expected = -1 / (C - 1) + C / (C - 1) * r + 4 * r ** (1 / 3) + math.sqrt(r)
    assert found.inter == pytest.approx(expected, rel=1e-12)


def test_bounds_are_exact_without_a_gap_and_vacuous_with_a_large_one():
    exact = bounds_from_weight_decay(1000, 1e-4, 0.0, kappa=50.0)
    assert (exact.intra, exact.nc3_cosine, exact.inter, exact.vacuous) == (1, 1, inter_limit(1000), False)
    assert bounds_from_weight_decay(1000, 1e-4, 1e-5, kappa=50.0).vacuous
    partly = bounds_from_norms(4, 2, 1.5, 1e-3, kappa=0.1)
    assert (partly.intra_vacuous, partly.inter_vacuous, partly.vacuous) == (False, True, False)


def test_larger_decay_gives_stronger_bounds_at_the_same_gap():
    bounds = [bounds_from_weight_decay(4, decay, 1e-9, kappa=0.3) for decay in (1e-4, 1e-3, 1e-2)]
    assert bounds[0].intra < bounds[1].intra < bounds[2].intra
    assert bounds[0].inter > bounds[1].inter > bounds[2].inter


@pytest.mark.parametrize(("classes", "product"), [(3, 0.1), (4, 3.0), (10, 5.0), (100, 8.0)])
def test_proof_kappa_is_the_least_that_the_proof_needs(classes, product):
    C, end = classes, classes**2 / (classes - 1) * product
    x = np.linspace(-end, end, 20001)
    log_second = -np.logaddexp(np.logaddexp(np.log(C - 1) + x, np.log(2)), -x - np.log(C - 1))
    assert -log_second.min() / (C * product) == pytest.approx(proof_kappa(C, product), rel=1e-9)
    assert proof_kappa(C, product) > C / (C - 1)


@given(st.lists(st.integers(-300, 300), min_size=2, max_size=12), st.data())
def test_subset_means_stay_within_the_lemma(values, data):
    """Lemma 2.1 with f = exp on [-3, 3], which is e^-3-strongly convex there."""
    x = np.array(values) / 100
    size = data.draw(st.integers(1, len(x)))
    chosen = data.draw(st.permutations(range(len(x))))[:size]
    gap = max(np.exp(x).mean() - math.exp(x.mean()), 0.0)
    low, high = subset_mean_bounds(x.mean(), gap, math.exp(-3), size / len(x))
    assert low - 1e-6 <= x[chosen].mean() <= high + 1e-6


def test_batch_norm_fixes_the_root_mean_square_norm():
    """Lemma C.4 on PyTorch's own layer, its eps and a constant feature included."""
    rng = torch.Generator().manual_seed(0)
    inputs = torch.randn(64, 5, generator=rng, dtype=torch.float64) * torch.tensor([1.0, 10.0, 1e-3, 0.0, 2.0]) + 3
    layer = torch.nn.BatchNorm1d(5, eps=1e-5, dtype=torch.float64)
    gamma = torch.tensor([0.5, -2.0, 1.0, 4.0, 0.1])
    with torch.no_grad():
        layer.weight.copy_(gamma)
    rms = layer(inputs).square().sum(1).mean().sqrt().item()
    assert batch_norm_rms(gamma, inputs.var(0, unbiased=False), 1e-5) == pytest.approx(rms, rel=1e-9)
    assert batch_norm_rms(gamma) == pytest.approx(gamma.norm().item(), rel=1e-6)
    assert rms < batch_norm_rms(gamma)


def test_proposition_c1_is_false():
    """The counterexample that the module's notes give."""
    a, b = np.array([1.0, 0.0]), np.array([1.0, 0.01])
    assert (a / b).sum() < len(a) * a.sum() / b.sum()


@pytest.mark.parametrize(
    ("call", "argument"),
    [
        (lambda: bounds_from_norms(2, 1, 1, 0.1, kappa=1), "num_classes"),
        (lambda: bounds_from_norms(3, 0, 1, 0.1, kappa=1), "alpha"),
        (lambda: bounds_from_norms(3, 1, 1, -0.1, kappa=1), "epsilon"),
        (lambda: bounds_from_norms(3, 1, 1, 0.1, kappa=0), "kappa"),
        (lambda: bounds_from_norms(3, 1, 1, 0.1, delta=1, kappa=1), "delta"),
        (lambda: bounds_from_weight_decay(4, 0.5, 0.1, kappa=1), "weight_decay"),
        (lambda: bounds_from_weight_decay(4, 0.01, 0.02, kappa=1), "epsilon"),
        (lambda: simplex_etf(4, 2), "dim"),
        (lambda: batch_norm_rms([1.0], eps=1e-5), "variance"),
        (lambda: subset_mean_bounds(0.0, 1.0, 0.0, 0.5), "strong_convexity"),
    ],
)
def test_bad_arguments_are_named(call, argument):
    with pytest.raises(ArgumentError, match=f"^{argument} must be"):
        call()


def test_bound_command_prints_a_table_for_either_theorem(capsys):
    main(["bound", "--classes", "4", "--weight-decay", "5e-3", "--gap", "1e-3", "0"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("Theorem 2.2")
    assert (lines[2].split()[-1], lines[3].split()[-1]) == ("all", "none")
    main(["bound", "--classes", "4", "--alpha", "2", "--beta", "1.5", "--gap", "1e-3", "--kappa", "0.1"])
    assert capsys.readouterr().out.splitlines()[2].split()[-1] == "inter"


@pytest.mark.parametrize(
    "options", [[], ["--alpha", "1"], ["--weight-decay", "1e-3", "--alpha", "1"], ["--weight-decay", "0.6"]]
)
def test_bound_command_refuses_in_one_line(options, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["bound", "--classes", "4", "--gap", "1e-4", *options])
    assert "ncflow-theory: error: " in capsys.readouterr().err.splitlines()[-1]
