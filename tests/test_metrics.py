"""The cosine family against its definition over all pairs, and against exact geometry."""

import itertools
import math
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ncflow.metrics import NeuralCollapse, neural_collapse
from ncflow.metrics.cosine import quantile


def naive(H, y, C, W=None, delta=0.05, self_pairs=False):
    """O(N^2) transcription of the definitions in float64: every pair of samples, one by one."""
    H = np.asarray(H, dtype=np.float64)
    y = np.asarray(y)
    centred = H - H.mean(0)

    def cos(i, j):
        return centred[i] @ centred[j] / np.linalg.norm(centred[i]) / np.linalg.norm(centred[j])

    members = {c: [i for i in np.flatnonzero(y == c) if np.linalg.norm(centred[i]) > 0] for c in range(C)}
    intra, inter = [], []
    for c in range(C):
        pairs = [(i, j) for i in members[c] for j in members[c] if self_pairs or i != j]
        if pairs:
            intra.append(np.mean([cos(i, j) for i, j in pairs]))
    for c, d in itertools.combinations(range(C), 2):
        if members[c] and members[d]:
            inter.append(np.mean([cos(i, j) for i in members[c] for j in members[d]]))
    nan = float("nan")
    result = {
        "intra_min": min(intra, default=nan),
        "intra_mean": np.mean(intra) if intra else nan,
        "intra_quantile": np.quantile(intra, delta) if intra else nan,
        "inter_max": max(inter, default=nan),
        "inter_mean": np.mean(inter) if inter else nan,
        "inter_quantile": np.quantile(inter, 1 - delta) if inter else nan,
        "feature_rms_norm": np.sqrt(np.mean((H**2).sum(1))),
        "classes_present": len(set(y.tolist())),
    }
    if W is not None:
        W = np.asarray(W, dtype=np.float64)
        means = {c: H[y == c].mean(0) for c in range(C) if (y == c).any()}
        centre = np.mean(list(means.values()), axis=0)
        cosines = []
        for c, mean in means.items():
            w, m = W[c] - W.mean(0), mean - centre
            cosines.append(w @ m / np.linalg.norm(w) / np.linalg.norm(m))
        result |= {
            "nc3_cosine_min": min(cosines),
            "nc3_cosine_mean": np.mean(cosines),
            "weight_norm": np.linalg.norm(W),
        }
    return result


def assert_equal(found, expected, rel=1e-9, abs_=1e-11):
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert found[name].item() == pytest.approx(value, rel=rel, abs=abs_, nan_ok=True), name


def features(N, d, C, seed=0, offset=0.0, shares=None):
    rng = np.random.default_rng(seed)
    y = rng.choice(C, N, p=shares)
    H = rng.normal(size=(C, d))[y] + 0.5 * rng.normal(size=(N, d)) + offset
    return torch.tensor(H), torch.tensor(y), torch.tensor(rng.normal(size=(C, d)))


@pytest.mark.parametrize("self_pairs", [False, True])
@pytest.mark.parametrize(
    ("N", "d", "C", "shares"),
    [
        (60, 5, 3, None),
        (60, 2, 6, None),  # C > d
        (50, 4, 2, None),
        (60, 5, 4, [0.85, 0.05, 0.05, 0.05]),  # unbalanced
        (30, 5, 4, [0.5, 0.5, 0.0, 0.0]),  # absent classes
        (5, 3, 8, None),  # classes of one
    ],
)
def test_equals_the_definition_over_all_pairs(N, d, C, shares, self_pairs):
    H, y, W = features(N, d, C, shares=shares)
    found = neural_collapse(H, y, C, W, delta=0.1, self_pairs=self_pairs)
    assert_equal(found, naive(H, y, C, W, delta=0.1, self_pairs=self_pairs))


@pytest.mark.parametrize("C", [2, 3, 10, 100])
@pytest.mark.parametrize("self_pairs", [False, True])
def test_exact_simplex(C, self_pairs):
    means = torch.eye(C, dtype=torch.float64) - 1 / C
    y = torch.arange(C).repeat(3)
    found = neural_collapse(7 * means[y] + 5, y, C, weight=2 * means, self_pairs=self_pairs)
    for name in ("intra_min", "intra_mean", "intra_quantile", "nc3_cosine_min", "nc3_cosine_mean"):
        assert found[name].item() == pytest.approx(1, abs=1e-12), name
    for name in ("inter_max", "inter_mean", "inter_quantile"):
        assert found[name].item() == pytest.approx(-1 / (C - 1), abs=1e-12), name
    assert found["weight_norm"].item() == pytest.approx(2 * math.sqrt(C - 1))


def test_float32_features_far_from_the_origin_lose_nothing():
    H, y, W = features(400, 6, 3, offset=1e4)
    H = H.float()  # the rounding of the input is part of the input
    assert_equal(neural_collapse(H, y, 3, W), naive(H.double(), y, 3, W), rel=1e-7)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_low_precision_is_summed_in_float64(dtype):
    H, y, _ = features(3000, 6, 3)
    H = H.to(dtype)
    assert_equal(neural_collapse(H, y, 3), {k: v.item() for k, v in neural_collapse(H.double(), y, 3).items()}, 1e-12)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.floats(-3, 3, allow_subnormal=False), st.floats(0.01, 100))
def test_invariance_to_rotation_translation_scale_and_permutation(seed, shift, scale):
    H, y, _ = features(40, 4, 3, seed)
    rotation, _ = torch.linalg.qr(torch.tensor(np.random.default_rng(seed).normal(size=(4, 4))))
    order = torch.tensor(np.random.default_rng(seed).permutation(40))
    renamed = torch.tensor([2, 0, 1])[y]
    base = neural_collapse(H, y, 3)
    base.pop("feature_rms_norm")
    for moved, labels in ((H @ rotation * scale + shift, y), (H[order], y[order]), (H, renamed)):
        other = neural_collapse(moved, labels, 3)
        assert all(other[name].item() == pytest.approx(value.item(), abs=1e-8) for name, value in base.items())


@pytest.mark.parametrize("splits", [[40], [1] * 40, [7, 33], [39, 1]])
def test_metric_over_any_batches_equals_the_function(splits):
    H, y, W = features(40, 4, 3)
    classifier = torch.nn.Linear(4, 3).double()
    classifier.weight.data = W
    metric = NeuralCollapse(3, 4, classifier, delta=0.2, self_pairs=True)
    for rows, labels in zip(H.split(splits), y.split(splits), strict=True):
        metric.update(rows, labels)
    expected = neural_collapse(H, y, 3, W, delta=0.2, self_pairs=True)
    assert_equal(metric.compute(), {k: v.item() for k, v in expected.items()}, rel=1e-12)
    pickle.loads(pickle.dumps(metric))
    metric.reset()
    metric.update(H[:20], y[:20])
    again = neural_collapse(H[:20], y[:20], 3, W, delta=0.2, self_pairs=True)
    assert metric.compute()["intra_min"] == again["intra_min"]


def test_degenerate_states_are_values():
    H, y = torch.zeros(6, 3), torch.tensor([0, 0, 1, 1, 2, 2])
    found = neural_collapse(H, y, 4, weight=torch.ones(4, 3))
    # Every feature is at the centre, so none has a direction; all rows of W agree, so none differs from their mean.
    assert all(found[name].isnan() for name in found if name.startswith(("intra", "inter", "nc3")))
    assert found["classes_present"] == 3
    assert found["feature_rms_norm"] == 0


def test_a_feature_at_the_centre_is_left_out():
    H = torch.tensor([[1.0, 0], [1.0, 0], [0.0, 0.0], [-1.0, 0], [-1.0, 0]])
    found = neural_collapse(H, torch.tensor([0, 0, 0, 1, 1]), 2)
    assert found["intra_min"] == 1
    assert found["inter_max"] == -1


def test_features_that_are_not_finite_give_nan_not_a_number():
    H, y, _ = features(20, 3, 2)
    H[3, 1] = torch.nan
    found = neural_collapse(H, y, 2)
    assert found["intra_min"].isnan()
    assert found["inter_max"].isnan()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": torch.tensor([0, 1, 3])}, r"labels must be in 0..2, found '0..3'"),
        ({"labels": torch.tensor([0, -1, 1])}, r"labels must be in 0..2"),
        ({"labels": torch.tensor([0.0, 1.0, 2.0])}, "labels must be integers, found torch.float32"),
        ({"labels": torch.tensor([0, 1])}, r"labels must be of shape"),
        ({"features": torch.zeros(3, 2, 2)}, r"features must be of shape \(N, d\)"),
        ({"features": torch.zeros(3, 2, dtype=torch.long)}, "features must be of a floating type"),
        ({"features": torch.zeros(0, 2), "labels": torch.zeros(0, dtype=torch.long)}, "at least one sample"),
        ({"weight": torch.zeros(2, 2)}, r"weight must be of shape \(C, d\) = \(3, 2\), found \(2, 2\)"),
        ({"delta": 0.0}, r"delta must be in \(0, 1\), found 0.0"),
        ({"num_classes": 1}, "num_classes must be at least 2"),
    ],
)
def test_bad_arguments_are_named(change, message):
    arguments = {"features": torch.zeros(3, 2), "labels": torch.tensor([0, 1, 2]), "num_classes": 3}
    with pytest.raises(ValueError, match=message):
        neural_collapse(**{**arguments, **change})


def test_metric_refuses_the_wrong_width_and_compute_before_update():
    metric = NeuralCollapse(3, 4)
    with pytest.raises(ValueError, match=r"features must be of shape \(B, 4\), found \(2, 5\)"):
        metric.update(torch.zeros(2, 5), torch.zeros(2, dtype=torch.long))
    with pytest.raises(ValueError, match="called before compute"), pytest.warns(UserWarning, match="before"):
        NeuralCollapse(3, 4).compute()


@pytest.mark.parametrize("n", [1, 2, 5, 100])
@pytest.mark.parametrize("level", [0.05, 0.5, 0.95])
def test_quantile_interpolates_as_numpy_does(n, level):
    values = torch.randn(n, dtype=torch.float64)
    assert quantile(values, level).item() == pytest.approx(np.quantile(values.numpy(), level), rel=1e-12)
