"""The steps of Pan and Cao's proof against enumeration, random search and cross-entropy itself."""

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax

from ncflow.checks import ArgumentError
from ncflow.theory.bounds import proof_kappa
from ncflow.theory.jensen_gaps import jensen_gaps, own_class_bounds
from ncflow.theory.layer_peeled import minimum_loss
from ncflow.theory.mean_directions import mean_direction_bound, mean_direction_cosine_bound
from ncflow.theory.simplex import simplex_etf
from ncflow.theory.subset_means import subset_mean_bound_of_exponentials, subset_mean_bounds


@given(st.lists(st.integers(-300, 300), min_size=2, max_size=12), st.data())
def test_subset_means_stay_within_lemma_2_1(values, data):
    """With f = exp on [-3, 3], which is e^-3-strongly convex there."""
    x = np.array(values) / 100
    size = data.draw(st.integers(1, len(x)))
    chosen = data.draw(st.permutations(range(len(x))))[:size]
    gap = max(np.exp(x).mean() - math.exp(x.mean()), 0.0)
    low, high = subset_mean_bounds(x.mean(), gap, math.exp(-3), size / len(x))
    assert low - 1e-6 <= x[chosen].mean() <= high + 1e-6


def test_no_subset_exceeds_lemma_c_3():
    """All subsets of eight numbers; of one small number apart from seven the bound is off by sqrt(1 - share) alone."""
    rng = np.random.default_rng(0)
    spike = -1 + 1e-3 * np.eye(8)[0]
    for x in (spike, *(rng.normal(-1, spread, 8) for spread in (0.01, 0.3, 2.0))):
        gap = np.exp(x).mean() - math.exp(x.mean())
        for size in range(1, 9):
            bound = subset_mean_bound_of_exponentials(x.mean(), gap, size / 8)
            assert max(x[list(chosen)].mean() for chosen in combinations(range(8), size)) <= bound
    gap = np.exp(spike).mean() - math.exp(spike.mean())
    reach = subset_mean_bound_of_exponentials(spike.mean(), gap, 1 / 8) - spike.mean()
    assert (spike[0] - spike.mean()) / reach == pytest.approx(math.sqrt(7 / 8), rel=1e-3)


def test_lemma_c_3_has_no_lower_counterpart():
    x = np.array([0.0, 0.0, 0.0, -40.0])
    gap = np.exp(x).mean() - math.exp(x.mean())
    reach = subset_mean_bound_of_exponentials(0.0, gap, 1 / 4)
    assert x[3] < -reach - 30


def directions(vectors):
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).mean(0)


def clouds(count):
    """Vectors (N, d) of all kinds: tight, spread, with lengths over decades, with some that point the other way."""
    rng = np.random.default_rng(0)
    for _ in range(count):
        N, d = rng.integers(1, 9), rng.integers(1, 4)
        lengths = np.exp(rng.normal(0, rng.choice([0.01, 0.5, 3])) * rng.standard_normal((N, 1)))
        yield rng, lengths * (rng.choice([0.1, 1, 5]) * rng.standard_normal((N, d)) + rng.choice([0, 2]))


def test_mean_directions_are_as_long_as_lemma_c_6_says():
    for rng, v in clouds(800):
        alpha, u = math.sqrt((v**2).sum(1).mean()), rng.standard_normal(v.shape[1])
        u /= np.linalg.norm(u)
        along, length = abs(v.mean(0) @ u), np.linalg.norm(v.mean(0))
        found = np.linalg.norm(directions(v))
        assert found >= mean_direction_bound(along, alpha) - 1e-9
        assert found >= mean_direction_bound(length, alpha) - 1e-9  # Corollary C.2


@pytest.mark.parametrize("share", [0.5, 0.8, 1.0])
def test_lemma_c_6_cannot_be_improved(share):
    count = 10
    v = np.repeat([[3.0, 0.0], [-1e-9, 0.0]], [round(share * count), round((1 - share) * count)], axis=0)
    alpha = math.sqrt((v**2).sum(1).mean())
    bound = mean_direction_bound(np.linalg.norm(v.mean(0)), alpha)
    assert bound == pytest.approx(2 * share - 1, abs=1e-8)
    assert np.linalg.norm(directions(v)) == pytest.approx(bound, abs=1e-8)


def test_cosines_stay_below_lemma_c_8_with_its_sign_mended():
    """And w . (mean direction) below c/alpha + beta sqrt(2 e), the better rate of the module's notes."""
    nearest = -2.0
    for rng, h in clouds(600):
        w = rng.standard_normal(h.shape[1])
        w *= -np.sign(w @ h.mean(0))
        alpha, beta = math.sqrt((h**2).sum(1).mean()), np.linalg.norm(w) * rng.choice([1.0, 3.0])
        epsilon, c = max(beta * (alpha - np.linalg.norm(h.mean(0))), 0.0), w @ h.mean(0)
        bound = mean_direction_cosine_bound(c, alpha, beta, epsilon)
        if (length := np.linalg.norm(directions(h))) > 1e-12:
            assert w @ directions(h) / (np.linalg.norm(w) * length) <= bound + 1e-9
        assert w @ directions(h) <= c / alpha + beta * math.sqrt(2 * epsilon / (alpha * beta)) + 1e-7
        nearest = max(nearest, -bound)
    assert nearest > 0.9  # of a bound that says something; as printed none is below 0


def test_printed_lemma_c_8_says_nothing_where_the_mended_one_is_exact():
    """One vector against w: the cosine is -1."""
    assert mean_direction_cosine_bound(-6.0, 2.0, 3.0, 0.0) == -1


def last_layer(rng, C, N, scale):
    """W (C, d) and features (C, N, d) near aligned simplices, in units in which the noise is ``scale``."""
    etf = simplex_etf(C, C + 1)
    W = 1.5 * (etf + scale * rng.standard_normal(etf.shape))
    return W, 2.0 * (etf[:, None] + scale * rng.standard_normal((C, N, C + 1)))


def cross_entropy(W, H):
    return float(np.mean([-log_softmax(H[c] @ W.T, axis=1)[:, c] for c in range(len(W))]))


@pytest.mark.parametrize("scale", [0.0, 0.01, 0.1, 0.5])
@pytest.mark.parametrize("C", [3, 6])
def test_gaps_are_the_definitions_and_the_loss_gap_is_at_least_theirs(C, scale):
    rng = np.random.default_rng(C)
    for _ in range(20):
        W, H = last_layer(rng, C, 4, scale)
        means, alpha, beta = H.mean(1), math.sqrt((H**2).sum(2).mean()), np.linalg.norm(W) / math.sqrt(C)
        gaps, f = jensen_gaps(W, means, alpha), lambda x: math.log(1 + (C - 1) * math.exp(x))
        centred, x = W - W.mean(0), []
        for c in range(C):
            z = [(W[k] - W[c]) @ means[c] for k in range(C) if k != c]
            x.append(-C / (C - 1) * centred[c] @ means[c])
            gap, a = sum(map(math.exp, z)) - (C - 1) * math.exp(x[c]), 1 + (C - 1) * math.exp(x[c])
            assert gaps.other_classes[c] == pytest.approx(gap, abs=1e-9)
            assert gaps.class_losses[c] >= math.log(a) + gap / (a + gap) - 1e-12
            assert gaps.class_losses[c] < math.log(a) + gap / a or gap < 1e-6  # eq. 18 as printed is false
        assert gaps.classes == pytest.approx(np.mean([f(value) for value in x]) - f(np.mean(x)), abs=1e-12)
        norms = (C * alpha * beta - (centred * means).sum()) / (C - 1)
        assert gaps.norms == pytest.approx(norms, abs=1e-12)
        assert gaps.norm_product == pytest.approx(alpha * beta)
        assert min(gaps.other_classes.min(), gaps.classes, gaps.norms) > -1e-12
        found = cross_entropy(W, H) - minimum_loss(C, alpha, beta)
        assert found >= gaps.loss_gap - 1e-12
    assert gaps.loss_gap > scale**2 / 100 or scale == 0


@pytest.mark.parametrize("delta", [1 / 8, 0.3, 0.5])
def test_own_class_bounds_hold_for_the_share_of_classes_that_they_say(delta):
    """Eq. 25 to 27, mended, for single classes off by different amounts; as printed eq. 27 fails."""
    rng, C, printed_fails, says = np.random.default_rng(0), 8, 0, 0
    for scale in np.repeat([1e-3, 0.03, 0.1, 0.3], 40):
        W, H = last_layer(rng, C, 4, scale)
        W *= 1 + scale * rng.standard_normal((C, 1))
        means, alpha = H.mean(1), math.sqrt((H**2).sum(2).mean())
        gaps, centred = jensen_gaps(W, means, alpha), W - W.mean(0)
        along = (centred * means).sum(1)
        x = -C / (C - 1) * along
        convexity = min(1 / ((C - 1) * math.exp(v) + 2 + math.exp(-v) / (C - 1)) for v in (x.min(), x.max()))
        assert convexity >= math.exp(-proof_kappa(C, gaps.norm_product) * C * gaps.norm_product)
        found = own_class_bounds(
            C, gaps.norm_product, max(gaps.classes, 0), max(gaps.norms, 0), strong_convexity=convexity, delta=delta
        )
        norms = np.sqrt((H**2).sum(2).mean(1)) * np.linalg.norm(centred, axis=1)
        cosines = along / (np.linalg.norm(centred, axis=1) * np.linalg.norm(means, axis=1))
        assert (along < found.projection - 1e-9).mean() < delta
        assert (norms > found.norms + 1e-9).mean() < delta
        assert (cosines < found.cosine - 1e-9).mean() < 2 * delta
        root = math.sqrt(2 * max(gaps.classes, 0) * (1 - delta) / (delta * convexity))
        printed = 1 - (C - 1) / (C * gaps.norm_product) * (max(gaps.norms, 0) / delta - 2 * root)
        printed_fails += (cosines < printed - 1e-9).mean() >= 2 * delta
        says += found.cosine > -1
    assert printed_fails > 0
    assert says > 20


@settings(max_examples=50)
@given(*[st.integers(0, 100).map(lambda i: i / 100)] * 2, st.integers(1, 50).map(lambda i: i / 100))
def test_cosine_bound_is_below_the_quotient_of_the_other_two(first, second, delta):
    found = own_class_bounds(4, 2.0, first, second, strong_convexity=0.1, delta=delta)
    if found.projection >= 0:
        assert found.cosine <= found.projection / found.norms + 1e-12
    else:
        assert found.cosine == -1


@pytest.mark.parametrize(
    ("call", "argument"),
    [
        (lambda: subset_mean_bounds(0.0, 1.0, 0.0, 0.5), "strong_convexity"),
        (lambda: subset_mean_bound_of_exponentials(0.0, -1.0, 0.5), "epsilon"),
        (lambda: subset_mean_bound_of_exponentials(0.0, 1.0, 0.0), "share"),
        (lambda: mean_direction_bound(2.0, 1.0), "projection"),
        (lambda: mean_direction_bound(0.0, 0.0), "alpha"),
        (lambda: mean_direction_cosine_bound(0.1, 1.0, 1.0, 0.1), "projection"),
        (lambda: mean_direction_cosine_bound(-0.1, 1.0, 0.0, 0.1), "beta"),
        (lambda: jensen_gaps(np.ones((3, 2)), np.ones((2, 2)), 1.0), "class_means"),
        (lambda: jensen_gaps(np.ones(3), np.ones(3), 1.0), "classifier"),
        (lambda: own_class_bounds(4, 0.0, 0, 0, strong_convexity=1), "norm_product"),
        (lambda: own_class_bounds(4, 1.0, -1, 0, strong_convexity=1), "classes_gap"),
        (lambda: own_class_bounds(4, 1.0, 0, 0, strong_convexity=1, delta=1), "delta"),
    ],
)
def test_bad_arguments_are_named(call, argument):
    with pytest.raises(ArgumentError, match=f"^{argument} must be"):
        call()
