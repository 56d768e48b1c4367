"""The optimum for given shares against its optimality condition, other minimisers and the closed form."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize, minimize_scalar

from ncflow.checks import ArgumentError
from ncflow.cli.theory import main
from ncflow.theory.given_shares import FORMS, least_loss, optimum
from ncflow.theory.layer_peeled import minimum_loss, minimum_regularized_loss
from ncflow.theory.peeled_descent import TOLERANCE

TEACHER = (0.09, 0.72, 0.13, 0.05)
CASES = [
    (TEACHER, 5e-3),
    ((0.85, 0.1, 0.05), 1e-2),  # probabilities of the large class below what L-BFGS alone resolves
    ((3, 1), 0.2),
    ((97, 1, 1, 1), 0.12),  # minority collapse
    ((5, 4, 3, 2, 1, 1, 1, 1, 1, 1), 5e-4),
    (tuple(range(1, 31)), 1e-3),
]


@pytest.mark.parametrize(("form", "loss", "inter"), [("free", 0.0470113, 0.046256), ("centred", 0.0656861, 0.506880)])
def test_values_that_were_found_by_other_means(form, loss, inter):
    found = optimum(TEACHER, 5e-3, form)
    assert found.regularized_loss == pytest.approx(loss, abs=5e-8)
    assert found.inter_max == pytest.approx(inter, abs=5e-7)
    assert (found.rank, found.intra) == (3, 1)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("classes", "decay"), [(2, 1e-3), (4, 5e-3), (4, 0.3), (10, 5e-4), (40, 1e-4)])
def test_equal_shares_have_the_closed_form(classes, decay, form):
    found = optimum((1,) * classes, decay, form)
    assert abs(found.regularized_loss - minimum_regularized_loss(classes, decay)) < TOLERANCE
    for value in (found.inter_max, found.inter_mean):
        assert value == pytest.approx(-1 / (classes - 1), abs=1e-7)
    for beta in (0.0, 0.01, 0.8, 5.0, 300.0):
        assert abs(least_loss((1,) * classes, 1.5, beta, form) - minimum_loss(classes, 1.5, beta)) < TOLERANCE


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("shares", "decay"), CASES)
def test_optimum_is_proven_by_convexity(shares, decay, form):
    """-gradient/lambda is in the subdifferential of the nuclear norm, and Fenchel's dual has the same value."""
    found = optimum(shares, decay, form)
    p = np.array(shares) / sum(shares)
    root, W, H = np.sqrt(p), found.classifier, found.class_means
    A = W @ H.T * root
    # What it says of itself.
    logits = torch.from_numpy(found.logits)
    losses = torch.nn.functional.cross_entropy(logits, torch.arange(len(p)), reduction="none").numpy()
    penalty = ((W**2).sum() + p @ (H**2).sum(1)) / 2
    assert found.loss == pytest.approx(p @ losses, rel=1e-10)
    assert abs(p @ losses + decay * penalty - found.regularized_loss) < TOLERANCE
    assert penalty == pytest.approx(np.linalg.norm(A, "nuc"), rel=1e-8)
    assert found.norm_product == pytest.approx(penalty / math.sqrt(len(p)), rel=1e-8)
    # The condition.
    Q = logits.softmax(1).numpy().T
    G = (Q - np.eye(len(p))) * root
    seen = G if form == "free" else G - np.outer(G @ root, root)
    spectral = np.linalg.norm(seen, 2)
    assert spectral <= decay * (1 + 1e-6)
    assert -(seen * A).sum() == pytest.approx(decay * np.linalg.norm(A, "nuc"), rel=1e-6)
    if form == "centred":
        np.testing.assert_allclose(p @ H, 0, atol=1e-9)
    if form == "bias":
        np.testing.assert_allclose(G @ root, 0, atol=1e-8)
    # The bound: Q moved towards I until it is feasible.
    Q = np.eye(len(p)) + min(1, decay / spectral) * (Q - np.eye(len(p)))
    bound = -(p * np.where(Q > 0, Q * np.log(np.where(Q > 0, Q, 1)), 0).sum(0)).sum()
    assert -1e-14 < found.regularized_loss - bound < 1e-8
    assert found.duality_gap < TOLERANCE


def minimised(counts, decay, form, seed):
    """Least value over W, features of every single sample, and b, by L-BFGS in float64."""
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    N, C, d = len(labels), len(counts), len(counts) + 1
    start = np.random.default_rng(seed).standard_normal(C * d + N * d + C)

    def loss(x):
        x = torch.from_numpy(x).requires_grad_()
        W, H, b = x[: C * d].view(C, d), x[C * d : -C].view(N, d), x[-C:]
        H = H - H.mean(0) if form == "centred" else H
        logits = H @ W.T + (b if form == "bias" else 0)
        penalty = W.square().sum() + H.square().sum(1).mean()
        value = torch.nn.functional.cross_entropy(logits, labels) + decay / 2 * penalty
        return value.item(), torch.autograd.grad(value, x)[0].numpy()

    options = {"maxiter": 3000, "maxfun": 6000, "ftol": 0, "gtol": 1e-10, "maxcor": 30}
    return minimize(loss, start, jac=True, method="L-BFGS-B", options=options).fun


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("counts", "decay"), [((3, 9, 2), 1e-2), ((1, 6), 0.1), ((4, 29, 5, 2), 5e-3)])
def test_minimisation_over_every_sample_reaches_it_and_never_goes_below(counts, decay, form):
    least = optimum(counts, decay, form).regularized_loss
    values = [minimised(counts, decay, form, seed) for seed in range(3)]
    assert min(values) > least - 1e-12
    assert max(values) == pytest.approx(least, abs=1e-8)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("shares", "decay"), CASES[:5])
def test_the_two_problems_have_the_same_solutions(shares, decay, form):
    found, size = optimum(shares, decay, form), math.sqrt(len(shares))
    assert least_loss(shares, found.norm_product, 1.0, form) == pytest.approx(found.loss, abs=TOLERANCE)
    best = minimize_scalar(
        lambda g: least_loss(shares, 1.0, g, form) + size * decay * g,
        bounds=(found.norm_product / 2, found.norm_product * 2),
        method="bounded",
        options={"xatol": 1e-6},
    )
    assert best.fun == pytest.approx(found.regularized_loss, abs=1e-9)


@pytest.mark.parametrize("form", FORMS)
def test_nothing_random_goes_below_the_least_loss_at_its_norms(form):
    p, rng = np.array(TEACHER) / sum(TEACHER), np.random.default_rng(0)
    solution = optimum(TEACHER, 5e-3, form)
    for scale in (1e-3, 0.1, 10.0):
        for _ in range(20):
            W, H = (best + scale * rng.standard_normal((4, 4)) for best in (solution.classifier, solution.class_means))
            H = H - p @ H if form == "centred" else H
            b = solution.bias + (scale * rng.standard_normal(4) if form == "bias" else 0)
            logits = torch.from_numpy(H @ W.T + b)
            loss = p @ torch.nn.functional.cross_entropy(logits, torch.arange(4), reduction="none").numpy()
            alpha, beta = math.sqrt(p @ (H**2).sum(1)), np.linalg.norm(W) / 2
            assert loss > least_loss(TEACHER, alpha, beta, form) - TOLERANCE


def test_fewer_constraints_give_smaller_losses():
    bias, free, centred = (optimum(TEACHER, 5e-3, form).regularized_loss for form in ("bias", "free", "centred"))
    assert bias < free < centred


def test_numbers_of_samples_serve_as_shares_and_the_answer_is_kept():
    given = optimum((1, 2, 5), 1e-2)
    assert given is optimum((1.0, 2.0, 5.0), 1e-2, "free")
    assert given.regularized_loss == pytest.approx(optimum((0.125, 0.25, 0.625), 1e-2).regularized_loss, abs=1e-12)
    with pytest.raises(ValueError, match="read-only"):
        given.classifier[0] = 0


def test_without_decay_nothing_is_reached_and_with_too_much_nothing_is_left():
    without = optimum(TEACHER, 0.0, "centred")
    assert (without.regularized_loss, without.norm_product) == (0, math.inf)
    assert all(math.isnan(value) for value in (without.inter_max, without.inter_mean, without.intra, without.rank))
    p = np.array(TEACHER) / sum(TEACHER)
    for form, expected in (("free", math.log(4)), ("centred", math.log(4)), ("bias", -(p * np.log(p)).sum())):
        nothing = optimum(TEACHER, 2.0, form)
        assert nothing.regularized_loss == pytest.approx(expected, abs=1e-12)
        assert least_loss(TEACHER, 0.0, 1.0, form) == pytest.approx(expected, abs=1e-12)
        assert nothing.rank == 0
        assert math.isnan(nothing.inter_max)


@pytest.mark.parametrize("form", FORMS)
def test_small_classes_collapse_into_one(form):
    found = optimum((97, 1, 1, 1), 0.12, form)
    assert found.rank == 1
    assert found.inter_max == pytest.approx(1, abs=1e-9)
    np.testing.assert_allclose(found.class_means[1], found.class_means[3], atol=1e-9)


@pytest.mark.parametrize("beside", [1 - 1e-7, 1, 1 + 1e-7])
def test_optimum_is_certified_where_decay_just_merges_the_small_classes(beside):
    """At lambda = sqrt p_c of equal small classes two singular values vanish; what is left is one number, sigma."""
    shares, decay = np.array([0.97, 0.01, 0.01, 0.01]), 0.1 * beside
    left, right = np.array([3, -1, -1, -1]), np.array([0.3 / math.sqrt(0.97), -1, -1, -1])
    A = np.outer(left / np.linalg.norm(left), right / np.linalg.norm(right))

    def total(sigma):
        logits = torch.from_numpy(sigma * A / np.sqrt(shares)).T
        losses = torch.nn.functional.cross_entropy(logits, torch.arange(4), reduction="none").numpy()
        return shares @ losses + decay * sigma

    found = optimum(shares, decay, "centred")
    best = minimize_scalar(total, bounds=(0, 20), method="bounded", options={"xatol": 1e-7})
    assert found.regularized_loss == pytest.approx(best.fun, abs=TOLERANCE)
    assert found.duality_gap <= TOLERANCE
    assert found.inter_max == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(
    ("call", "line"),
    [
        (lambda: optimum((1, 0, 2), 0.1), r"shares must be greater than 0 and finite for every class, found \(1.0, 0"),
        (lambda: optimum((1,), 0.1), "shares must be those of at least 2 classes"),
        (lambda: optimum((1, 2), -0.1), "weight_decay must be at least 0"),
        (lambda: optimum((1, 2), 0.1, "odd"), "form must be one of 'free', 'centred', 'bias', found 'odd'"),
        (lambda: least_loss((1, 2), -1, 1), "alpha must be"),
        (lambda: least_loss((1, 2), 1, math.nan), "beta must be"),
    ],
)
def test_bad_arguments_are_named(call, line):
    with pytest.raises(ArgumentError, match=f"^{line}"):
        call()


def test_command_prints_every_form(capsys):
    main(["optimum", "--shares", ".09", ".72", ".13", ".05", "--weight-decay", "5e-3"])
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [line[0] for line in lines] == ["form", *FORMS]
    assert [line[4] for line in lines[1:3]] == ["0.0470113", "0.0656861"]
    assert [(line[-3], line[-1]) for line in lines[1:3]] == [("1", "0.046256"), ("1", "0.506880")]


def test_command_refuses_a_class_without_share_in_one_line(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["optimum", "--shares", "1", "0", "--weight-decay", "5e-3"])
    rule = "shares must be greater than 0 and finite for every class, found (1.0, 0.0)"
    assert capsys.readouterr().err == f"ncflow-theory: error: {rule}\n"
