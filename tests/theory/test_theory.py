import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize, minimize_scalar

from ncflow.checks import ArgumentError
from ncflow.cli.theory import main
from ncflow.theory.bounds import (
    batch_norm_rms,
    bounds_from_norms,
    bounds_from_weight_decay,
    proof_kappa,
)
from ncflow.theory.layer_peeled import (
    minimum_loss,
    minimum_regularized_loss,
    norm_product_interval,
    norm_product_radius,
    optimal_norm_product,
    regularized_bound,
    regularized_loss,
)
from ncflow.theory.quasi_interpolation import (
    classifier_from_means,
    free_features,
    ridge_classifier,
    simplex_features,
    summed_decay,
    symmetric_outputs,
    weight_norm_squared,
)
from ncflow.theory.simplex import inter_limit, simplex_etf

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


@pytest.mark.parametrize(("classes", "decay"), CASES)
@pytest.mark.parametrize("share", [1e-6, 1e-3, 0.3, 30.0])
def test_norm_products_near_the_optimum_are_those_of_a_grid(classes, decay, share):
    """Proposition C.2: f <= m_reg + epsilon on the interval and nowhere else."""
    epsilon = share * math.sqrt(classes) * decay
    low, high = norm_product_interval(classes, decay, epsilon)
    least = minimum_regularized_loss(classes, decay) + epsilon
    grid = np.linspace(0, 2 * high, 20001)
    f = np.log1p((classes - 1) * np.exp(-classes / (classes - 1) * grid)) + math.sqrt(classes) * decay * grid
    inside = grid[f <= least]
    assert low <= inside.min() + 1e-9
    assert inside.max() - 1e-9 <= high
    np.testing.assert_allclose([inside.min(), inside.max()], [low, high], atol=2 * grid[1])
    assert (low == 0) == (f[0] <= least)


def test_radius_is_the_second_order_and_the_printed_one_is_too_small_from_four_classes_on():
    for classes in (2, 3, 4, 10, 1000):
        decay = 1e-3
        penalty = math.sqrt(classes) * decay
        epsilon = 1e-7 * penalty
        low, high = norm_product_interval(classes, decay, epsilon)
        radius = norm_product_radius(classes, decay, epsilon)
        assert (high - low) / 2 == pytest.approx(radius, rel=1e-4)
        printed = math.sqrt(classes * epsilon / ((classes - 1) * penalty))
        assert (printed < radius) == (classes >= 4)
    penalty = math.sqrt(10) * 1e-3
    low, high = norm_product_interval(10, 1e-3, penalty / 1000)
    best = optimal_norm_product(10, 1e-3)
    assert best - low == pytest.approx(0.0422, abs=5e-5)
    assert high - best == pytest.approx(0.0428, abs=5e-5)
    assert math.sqrt(10 / 9 / 1000) == pytest.approx(0.0333, abs=5e-5)


def test_no_gap_leaves_one_norm_product():
    assert norm_product_interval(4, 5e-3, 0.0) == (optimal_norm_product(4, 5e-3),) * 2
    assert norm_product_radius(4, 5e-3, 0.0) == 0


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
    np.testing.assert_allclose(rows @ rows.T, classes / (classes - 1) * (np.eye(classes) - 1 / classes), atol=1e-12)
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
        (lambda: norm_product_radius(4, 0.5, 0.1), "weight_decay"),
        (lambda: norm_product_interval(4, 0.1, -0.1), "epsilon"),
        (lambda: simplex_etf(4, 2), "dim"),
        (lambda: batch_norm_rms([1.0], eps=1e-5), "variance"),
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


def free_optimum(C, N, d, decay, decay_H, bias):
    """The text's loss over W, H and b, minimised: W (C, d), features (C N, d), b, and the least value."""
    Y, cut = np.repeat(np.eye(C), N, 0), C * d

    def split(x):
        return x[:cut].reshape(C, d), x[cut:-C].reshape(C * N, d), bias * x[-C:]

    def loss(x):
        W, H, b = split(x)
        R = H @ W.T + b - Y
        value = ((R**2).sum() + decay * (W**2).sum() + decay_H * (H**2).sum()) / 2
        return value, np.concatenate([(R.T @ H + decay * W).ravel(), (R @ W + decay_H * H).ravel(), bias * R.sum(0)])

    start = np.random.default_rng(0).standard_normal(cut + C * N * d + C) / 2
    options = {"maxiter": 20000, "maxfun": 50000, "ftol": 0, "gtol": 1e-12, "maxcor": 50}
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options=options)
    return *split(found.x), found.fun


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("C", [2, 4, 7])
def test_free_features_reach_the_closed_form(C, bias):
    N, d, decay, decay_H = 5, 8, 0.3, 0.02
    W, H, b, least = free_optimum(C, N, d, decay, decay_H, bias)
    expected = free_features(C, N, decay, decay_H, bias=bias)
    assert abs(least - expected.loss) < 1e-10
    outputs = np.full((C, C), expected.other_output) + np.eye(C) * (1 - expected.epsilon - expected.other_output)
    np.testing.assert_allclose(H @ W.T + b, np.repeat(outputs, N, 0), atol=1e-7)
    np.testing.assert_allclose((W**2).sum(1), expected.weight_norm_squared, atol=1e-7)
    means = H.reshape(C, N, d).mean(1)
    np.testing.assert_allclose((means**2).sum(1), expected.feature_norm_squared, atol=1e-6)


@pytest.mark.parametrize("C", [2, 4])
def test_eq_33_and_34_hold_with_a_bias_and_fail_without(C):
    """The erratum: Assumption 1 and a last layer without bias contradict each other."""
    N, d, decay, decay_H = 5, 6, 0.3, 0.02
    W, H, b, _ = free_optimum(C, N, d, decay, decay_H, True)
    epsilon = free_features(C, N, decay, decay_H).epsilon
    means = H.reshape(C, N, d).mean(1)
    np.testing.assert_allclose(W @ means.T + b[:, None], symmetric_outputs(C, epsilon), atol=1e-7)
    np.testing.assert_allclose(W, classifier_from_means(means, epsilon, N, decay), atol=1e-6)
    np.testing.assert_allclose((W**2).sum(1), weight_norm_squared(C, epsilon, N, decay), atol=1e-7)
    np.testing.assert_allclose(W @ W.T, (W**2).sum() / (C - 1) * (np.eye(C) - 1 / C), atol=1e-6)
    np.testing.assert_allclose(b, 1 / C, atol=1e-7)
    W, H, b, _ = free_optimum(C, N, d, decay, decay_H, False)
    epsilon = free_features(C, N, decay, decay_H, bias=False).epsilon
    means = H.reshape(C, N, d).mean(1)
    assert np.abs(W - classifier_from_means(means, epsilon, N, decay)).max() > 0.1
    assert abs((W[0] ** 2).sum() - weight_norm_squared(C, epsilon, N, decay)) > 1e-3
    np.testing.assert_allclose(W, N * epsilon / decay * means, atol=1e-6)
    np.testing.assert_allclose(W @ W.T, N / decay * epsilon * (1 - epsilon) * np.eye(C), atol=1e-6)


def test_strong_decay_leaves_no_features():
    nothing = free_features(4, 5, 3.0)
    assert (nothing.weight_norm_squared, nothing.feature_norm_squared) == (0, 0)
    assert nothing.epsilon == nothing.other_output * 3 == 3 / 4


@pytest.mark.parametrize(("C", "norm", "decay"), [(2, 1.0, 0.1), (4, 0.3, 2.0), (10, 2.0, 1e-3)])
def test_given_simplex_features_have_the_closed_form_of_ridge_regression(C, norm, decay):
    N, Y = 3, np.repeat(np.eye(C), 3, 0)
    H = np.repeat(norm * simplex_etf(C, C + 2), N, 0)
    W, b = ridge_classifier(H, Y, decay)
    expected = simplex_features(C, N, decay, norm)
    np.testing.assert_allclose(H @ W.T + b, np.repeat(symmetric_outputs(C, expected.epsilon), N, 0), atol=1e-12)
    np.testing.assert_allclose((W**2).sum(1), expected.weight_norm_squared, rtol=1e-9)
    np.testing.assert_allclose(W, classifier_from_means(H[::N], expected.epsilon, N, decay), rtol=1e-9, atol=1e-12)
    loss = ((H @ W.T + b - Y) ** 2).sum() / 2 + decay / 2 * (W**2).sum()
    assert loss == pytest.approx(expected.loss, rel=1e-9)


@pytest.mark.parametrize("bias", [True, False])
def test_ridge_classifier_is_stationary(bias):
    rng = np.random.default_rng(0)
    H, Y = rng.standard_normal((30, 5)), rng.standard_normal((30, 3))
    W, b = ridge_classifier(H, Y, 0.7, bias=bias)
    residual = Y - H @ W.T - b
    np.testing.assert_allclose(residual.T @ H, 0.7 * W, atol=1e-10)
    np.testing.assert_allclose(residual.sum(0) if bias else b, 0, atol=1e-10)


@pytest.mark.parametrize("kind", ["mean", "half_mean", "mse"])
def test_mean_losses_have_the_critical_points_of_the_sum(kind):
    """With torch's own losses and penalty wd/2 |W|^2: a minimum of the sum at the converted decay has no slope."""
    C, N, decay = 4, 5, 0.01
    rng = np.random.default_rng(0)
    H, Y = rng.standard_normal((C * N, 6)), np.repeat(np.eye(C), N, 0)
    W, b = ridge_classifier(H, Y, summed_decay(decay, N, C, kind))
    weight = torch.from_numpy(W).requires_grad_()
    outputs = torch.from_numpy(H) @ weight.T + torch.from_numpy(b)
    error = (outputs - torch.from_numpy(Y)).square().sum(1).mean()
    loss = {
        "mean": error,
        "half_mean": error / 2,
        "mse": torch.nn.functional.mse_loss(outputs, torch.from_numpy(Y)),
    }[kind]
    (loss + decay / 2 * weight.square().sum()).backward()
    assert weight.grad.abs().max() < 1e-12


@pytest.mark.parametrize(
    ("call", "argument"),
    [
        (lambda: summed_decay(0.1, 5, 4, "sum"), "loss"),
        (lambda: summed_decay(-0.1, 5, 4), "weight_decay"),
        (lambda: symmetric_outputs(1, 0.1), "num_classes"),
        (lambda: classifier_from_means(np.ones(3), 0.1, 5, 0.1), "class_means"),
        (lambda: weight_norm_squared(4, 0.1, 0, 0.1), "samples_per_class"),
        (lambda: free_features(4, 5, 0.1, 0.0), "feature_decay"),
        (lambda: simplex_features(4, 5, 0.1, 0.0), "feature_norm"),
        (lambda: ridge_classifier(np.ones((3, 2)), np.ones((2, 2)), 0.1), "targets"),
    ],
)
def test_bad_arguments_of_quasi_interpolation_are_named(call, argument):
    with pytest.raises(ArgumentError, match=f"^{argument} must be"):
        call()


FLOW = ["flow", "--samples", "4", "--width", "6", "--dim", "5", "--duration", "100", "--weight-decay", "1e-2"]


def test_flow_command_prints_a_row_for_each_norm_and_decay_and_draws(tmp_path, capsys):
    main([*FLOW, "--norm", "0.5", "4", "--out", str(tmp_path), "--format", "png"])
    lines = capsys.readouterr().out.splitlines()
    rows = [line.split() for line in lines[2:6]]
    assert [row[:2] for row in rows] == [["0.5", "0"], ["4", "0"], ["0.5", "0.01"], ["4", "0.01"]]
    for row in rows[2:]:
        assert float(row[2]) == pytest.approx(float(row[3]), rel=0.01)
    assert sorted(tmp_path.iterdir()) == sorted(
        tmp_path / f"{name}.png" for name in ("landscape", "valley", "rho", "margins", "logistic")
    )


@pytest.mark.parametrize("kind", ["normalized", "unnormalized", "last_free"])
def test_flow_command_knows_gradient_descent(kind, capsys):
    main([*FLOW, "--norm", "1", "--kind", kind, "--step", "0.5"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"{kind} second-order flow, eta = 0.5")
    for line in lines[2:]:
        frequency = line.split()[-1]
        assert float(frequency) >= 0 if kind == "normalized" else frequency == "-"


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--norm", "-1"], "rho must be greater than 0 and finite, found -1.0"),
        (["--step", "-1"], "step must be at least 0, found -1.0"),
        (["--samples", "1"], "samples must be at least 2, found 1"),
        (["--depth", "0"], "depth must be at least 1, found 0"),
        (["--duration", "0"], "duration must be greater than 0 and finite, found 0.0"),
        (["--weight-decay", "-1"], "weight_decay must be at least 0 and finite, found -1.0"),
    ],
)
def test_flow_command_refuses_in_one_line(options, complaint, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["flow", *options])
    assert capsys.readouterr().err.splitlines() == [f"ncflow-theory: error: {complaint}"]


def test_numbers_alone_load_neither_torch_nor_pictures():
    lines = [
        "import sys; from ncflow.cli.theory import main",
        "main(['optimum', '--classes=4', '--weight-decay=0.01'])",
        "print({'torch', 'matplotlib', 'pandas', 'scipy'} & set(sys.modules))",
    ]
    out = subprocess.check_output([sys.executable, "-c", "; ".join(lines)], text=True)
    assert out.splitlines()[-1] == "set()"
