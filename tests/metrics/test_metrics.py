"""Every measure against its formula, exact geometry, closed forms and invariances; streams; degenerate states."""

import math
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics import MetricCollection

from ncflow.checks import ArgumentError
from ncflow.metrics import NeuralCollapse, neural_collapse
from ncflow.metrics.class_means import FirstSums, geometry
from ncflow.metrics.margins import margins, predictions, weight_norm_product
from ncflow.metrics.quasi_interpolation import output_sums
from ncflow.metrics.scatter import Around, SecondSums
from ncflow.metrics.summary import quantiles
from tests.naive import naive


def assert_equal(found, expected, rel=1e-9, abs_=1e-11):
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert found[name].item() == pytest.approx(value, rel=rel, abs=abs_, nan_ok=True), name


def features(N, d, C, seed=0, offset=0.0, shares=None):
    rng = np.random.default_rng(seed)
    y = rng.choice(C, N, p=shares)
    H = rng.normal(size=(C, d))[y] + 0.5 * rng.normal(size=(N, d)) + offset
    return torch.tensor(H), torch.tensor(y), torch.tensor(rng.normal(size=(C, d)))


@pytest.mark.parametrize("center", ["samples", "classes", "none"])
@pytest.mark.parametrize("self_pairs", [False, True])
@pytest.mark.parametrize(
    ("N", "d", "C", "shares"),
    [
        (60, 5, 3, None),
        (60, 2, 6, None),  # C > d
        (50, 4, 2, None),
        (60, 5, 4, [0.85, 0.05, 0.05, 0.05]),  # unbalanced
        (30, 5, 4, [0.5, 0.4, 0.1, 0.0]),  # an absent class
        (9, 3, 8, None),  # classes of one
    ],
)
def test_equals_the_formulas(N, d, C, shares, self_pairs, center):
    H, y, W = features(N, d, C, shares=shares)
    b = torch.linspace(-1, 1, C, dtype=torch.float64)
    found = neural_collapse(H, y, C, W, b, delta=0.1, self_pairs=self_pairs, center=center)
    assert_equal(found, naive(H, y, C, W, b, delta=0.1, self_pairs=self_pairs, center=center), rel=1e-8)


@pytest.mark.parametrize("C", [2, 3, 10, 100])
@pytest.mark.parametrize("self_pairs", [False, True])
def test_exact_simplex(C, self_pairs):
    means = torch.eye(C, dtype=torch.float64) - 1 / C
    y = torch.arange(C).repeat(3)
    found = neural_collapse(7 * means[y] + 5, y, C, weight=2 * means, self_pairs=self_pairs)
    limits = dict.fromkeys(("nc1", "nc1_trace_ratio", "cdnv", "nc3_distance", "nc3_etf_error", "margin_std"), 0)
    limits |= {f"nc2_{name}": 0 for name in ("equinorm_means", "equinorm_weights", "etf_error")}
    limits |= {f"nc2_equiangular_{name}": 0 for name in ("means", "weights")}
    limits |= dict.fromkeys(("intra_min", "intra_mean", "intra_quantile", "nc3_cosine_min", "nc3_cosine_mean"), 1)
    limits |= {f"inter_{name}": -1 / (C - 1) for name in ("max", "mean", "quantile")}
    limits |= {f"intra_raw_{name}": 1 for name in ("min", "mean", "quantile")}
    moved = (25 * C - 49 / C) / (25 * C + 49 * (1 - 1 / C))  # the cosine of two means that are moved from sum 0
    limits |= {f"inter_raw_{name}": moved for name in ("max", "mean", "quantile")}
    limits |= {"nc4_agreement": 1, "ncc_accuracy": 1, "nc1_rank": C - 1, "feature_rank": C - 1, "classes_present": C}
    limits |= {
        "nc0": 0,
        "nc0_relative": 0,
        "weight_norm": 2 * math.sqrt(C - 1),
        "margin_min": 14,
        "margin_mean": 14,
        "nonfinite_samples": 0,
    }
    rms = found.pop("feature_rms_norm").item()
    assert rms == pytest.approx(math.sqrt(49 * (1 - 1 / C) + 25 * C))  # |7 m + 5|^2, m orthogonal to (1, ..., 1)
    assert set(found) == set(limits)
    for name, limit in limits.items():
        assert found[name].item() == pytest.approx(limit, abs=1e-7 * max(1, abs(limit))), name


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
    raw = {name: base.pop(name) for name in list(base) if "_raw_" in name}
    turned = neural_collapse(H @ rotation * scale, y, 3)
    assert all(turned[name].item() == pytest.approx(value.item(), abs=1e-8) for name, value in raw.items())
    for moved, labels in ((H @ rotation * scale + shift, y), (H[order], y[order]), (H, renamed)):
        other = neural_collapse(moved, labels, 3)
        assert all(other[name].item() == pytest.approx(value.item(), abs=1e-8) for name, value in base.items())


@pytest.mark.parametrize("splits", [[40], [1] * 40, [7, 33], [39, 1]])
def test_metric_over_any_batches_equals_the_function(splits):
    H, y, W = features(40, 4, 3)
    classifier = torch.nn.Linear(4, 3).double()
    classifier.weight.data = W
    classifier.bias.data = torch.tensor([0.5, -0.5, 0.0], dtype=torch.float64)
    metric = NeuralCollapse(3, 4, classifier, delta=0.2, self_pairs=True)
    for rows, labels in zip(H.split(splits), y.split(splits), strict=True):
        metric.update(rows, labels)
    expected = neural_collapse(H, y, 3, W, classifier.bias, delta=0.2, self_pairs=True)
    assert_equal(metric.compute(), {k: v.item() for k, v in expected.items()}, rel=1e-12)
    pickle.loads(pickle.dumps(metric))
    metric.reset()
    metric.update(H[:20], y[:20])
    again = neural_collapse(H[:20], y[:20], 3, W, classifier.bias, delta=0.2, self_pairs=True)
    assert metric.compute()["intra_min"] == again["intra_min"]


# --- exactness ---------------------------------------------------------------------------------------------------


def planted(nc1, C=4, d=12, n=50, offset=0.0, dtype=torch.float64, seed=0):
    """Features whose NC1 is known: simplex means, and in each class a cloud of exactly this covariance."""
    rng = np.random.default_rng(seed)
    M = np.zeros((C, d))
    M[:, :C] = np.eye(C) - 1 / C
    M = M @ np.linalg.qr(rng.normal(size=(d, d)))[0]
    cloud = rng.normal(size=(n, d))
    cloud -= cloud.mean(0)
    cloud = cloud @ np.linalg.inv(np.linalg.cholesky(cloud.T @ cloud / n).T)  # mean 0, covariance I
    # Sigma_B = M^T M/C has C-1 eigenvalues 1/C, so tr(s^2 I pinv(Sigma_B))/C = s^2 (C-1).
    s = math.sqrt(nc1 / (C - 1))
    H = np.concatenate([mean + s * cloud for mean in M]) + offset
    return torch.tensor(H, dtype=dtype), torch.arange(C).repeat_interleave(n)


@pytest.mark.parametrize("offset", [0.0, 1.0])
@pytest.mark.parametrize("nc1", [1e2, 1.0, 1e-3, 1e-6, 1e-10])
def test_planted_nc1(nc1, offset):
    spread = math.sqrt(nc1 / 3)
    H, y = planted(nc1, offset=offset * 1e4 * spread)
    found = neural_collapse(H, y, 4)
    assert found["nc1"].item() == pytest.approx(nc1, rel=1e-9 if offset == 0 else 1e-7)
    assert found["nc1_rank"] == 3
    # tr Sigma_W = 12 s^2, tr Sigma_B = 3/4, |mu_c - mu_c'|^2 = 2.
    assert found["nc1_trace_ratio"].item() == pytest.approx(16 * spread**2, rel=1e-7)
    assert found["cdnv"].item() == pytest.approx(12 * spread**2 / 2, rel=1e-7)


@pytest.mark.parametrize("nc1", [1e2, 1e-3, 1e-10])
@pytest.mark.parametrize("splits", [[200], [1] * 200, [199, 1], [50, 100, 50]])
@pytest.mark.parametrize("limit", [None, 0])
def test_streams_equal_one_pass_far_from_the_origin(nc1, splits, limit):
    """Any batches, kept or read twice, equal float64 formulas at a mean of 1e4 times the spread."""
    H, y = planted(nc1, offset=1e4 * math.sqrt(nc1 / 3))
    W = torch.tensor(np.random.default_rng(3).normal(size=(4, 12)))
    order = torch.randperm(200)
    H, y = H[order], y[order]
    classifier = torch.nn.Linear(12, 4, bias=False).double()
    classifier.weight.data = W
    metric = NeuralCollapse(4, 12, classifier, max_cached_bytes=limit)
    batches = list(zip(H.split(splits), y.split(splits), strict=True))
    for batch in batches:
        metric.update(*batch)
    assert metric.second_pass() == (limit == 0)
    if limit == 0:
        with pytest.raises(ValueError, match="update must be given the same 200 samples in the second pass"):
            metric.compute()
        for batch in batches:
            metric.update(*batch)
    whole = {name: value.item() for name, value in neural_collapse(H, y, 4, W).items()}
    assert_equal(metric.compute(), whole, rel=1e-9, abs_=1e-9)
    assert_equal(metric.compute(), naive(H, y, 4, W), rel=1e-6, abs_=1e-7)


def test_compute_before_the_second_pass_is_refused():
    H, y, _ = features(20, 3, 2)
    metric = NeuralCollapse(2, 3, max_cached_bytes=100)
    metric.update(H, y)
    with pytest.raises(ValueError, match=r"update must be called for all data once more after second_pass\(\)"):
        metric.compute()


def test_standard_gaussians_have_the_closed_form():
    """N(mu_c, I) with simplex means of length r: CDNV = d/|mu_c - mu_c'|^2, trace ratio d/r^2."""
    C, d, n, r = 3, 8, 40_000, 4.0
    means = torch.zeros(C, d, dtype=torch.float64)
    means[:, :C] = (torch.eye(C, dtype=torch.float64) - 1 / C) * r / math.sqrt(1 - 1 / C)
    y = torch.arange(C).repeat(n)
    H = means[y] + torch.randn(C * n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = neural_collapse(H, y, C)
    apart = 2 * r**2 * C / (C - 1) / 1  # |mu_c - mu_c'|^2 = 2 r^2 (1 + 1/(C-1))
    assert found["cdnv"].item() == pytest.approx(d / apart, rel=0.02)
    assert found["nc1_trace_ratio"].item() == pytest.approx(d / r**2, rel=0.02)
    assert found["nc1"].item() == pytest.approx((C - 1) / r**2 * (C - 1) / C, rel=0.02)


def test_ill_conditioned_means_keep_their_small_eigenvalue():
    """float32 pinv cuts it off: 2.38 for a true 10.66 in a peer's code."""
    rng = np.random.default_rng(0)
    means = np.linalg.qr(rng.normal(size=(40, 40)))[0][:5] * np.geomspace(1, 1e-3, 5)[:, None]
    y = np.arange(500) % 5
    H = means[y] + 0.01 * rng.normal(size=(500, 40))
    H32 = torch.tensor(H, dtype=torch.float32)
    assert neural_collapse(H32, torch.tensor(y), 5)["nc1"].item() == pytest.approx(naive(H32, y, 5)["nc1"], rel=1e-6)


def test_nc4_uses_the_bias():
    H = torch.tensor([[-1.0], [-0.5], [0.5], [1.0]])
    y = torch.tensor([0, 0, 1, 1])
    W = torch.tensor([[-1.0], [1.0]])
    assert neural_collapse(H, y, 2, W)["nc4_agreement"] == 1
    assert neural_collapse(H, y, 2, W, torch.tensor([3.0, 0.0]))["nc4_agreement"] == 0.5
    assert neural_collapse(H, y, 2, W, logits=torch.tensor([[0.0, 1.0]] * 4))["nc4_agreement"] == 0.5


def test_nearest_centre_with_a_far_mean():
    """By |h|^2 - 2 h.mu + |mu|^2 in float32, 89 % of such samples go to the wrong class in a peer's code."""
    H, y = planted(1e-2, offset=3e4, dtype=torch.float32)
    assert neural_collapse(H, y, 4)["ncc_accuracy"] == 1


# --- degenerate states: values, and why ----------------------------------------------------------------------------


@pytest.mark.parametrize("value", [0.0, 0.1, 1e6 / 3])
def test_all_features_equal(value):
    """No direction, no spread of means: nothing to compare, so NaN and not the rounding of the mean."""
    H, y = torch.full((30, 3), value), torch.arange(30) % 3
    found = neural_collapse(H, y, 4, weight=torch.eye(4)[:, :3])
    raw = [found.pop(name).item() for name in list(found) if "_raw_" in name]
    assert raw == pytest.approx([1.0 if value else math.nan] * 6, nan_ok=True)  # seen from 0 they have a direction
    families = ("intra", "inter", "nc1_trace", "cdnv", "nc2_equiangular_means", "nc2_etf", "nc3_cos", "nc3_etf")
    assert all(found[name].isnan() for name in found if name.startswith(families))
    assert found["nc1"].isnan()
    assert found["nc1_rank"] == 0
    assert found["classes_present"] == 3
    assert found["feature_rms_norm"].item() == pytest.approx(value * math.sqrt(3))


def test_an_absent_class_is_left_out_not_counted_as_zeros():
    H, y, _W = features(60, 5, 3)
    assert_equal(
        neural_collapse(H, y, 3),
        {name: value.item() for name, value in neural_collapse(H, y * 2, 6).items()},  # classes 1, 3, 5 are absent
        rel=1e-12,
    )


def test_classes_of_one_have_no_pairs_and_no_variance():
    H = torch.randn(5, 4, dtype=torch.float64)
    found = neural_collapse(H, torch.arange(5), 5)
    assert found["intra_min"].isnan()  # no pair i != j
    assert found["nc1"] == 0
    assert found["cdnv"] == 0
    assert found["ncc_accuracy"] == 1
    assert neural_collapse(H, torch.arange(5), 5, self_pairs=True)["intra_min"].item() == pytest.approx(1)


def test_coincident_class_means_lose_rank():
    """Two of four classes share a mean: a fixed C - 1 eigenvalues gives 4e4 for 0.13 in a peer's code."""
    H, y = planted(0.1)
    merged = H.clone()
    merged[y == 1] = H[y == 0]
    found = neural_collapse(merged, y, 4)
    assert found["nc1_rank"] == 2
    assert found["nc1"].item() == pytest.approx(naive(merged, y, 4)["nc1"], rel=1e-9)
    assert found["cdnv"].isinf()  # two classes at no distance


def test_one_class_alone():
    found = neural_collapse(torch.randn(10, 3), torch.zeros(10, dtype=torch.long), 2, weight=torch.eye(2, 3))
    assert found["classes_present"] == 1
    assert found["ncc_accuracy"] == 1
    assert all(found[name].isnan() for name in ("nc1", "cdnv", "inter_max", "nc2_etf_error", "nc3_cosine_min"))


def test_a_feature_at_the_centre_is_left_out():
    H = torch.tensor([[1.0, 0], [1.0, 0], [0.0, 0.0], [-1.0, 0], [-1.0, 0]])
    found = neural_collapse(H, torch.tensor([0, 0, 0, 1, 1]), 2)
    assert found["intra_min"] == 1
    assert found["inter_max"] == -1


@pytest.mark.parametrize("C", [4, 20])  # summed by a product, and by an index
@pytest.mark.parametrize("self_pairs", [False, True])
def test_uncentred_cosines_of_relu_features_are_those_of_all_pairs_that_have_a_direction(C, self_pairs):
    """Features at 0 are left out, and so is a class that has no other."""
    H, y, _ = features(120, 3, C)
    H = H.relu()
    H[::9], H[y == 1] = 0, 0
    found = neural_collapse(H, y, C, delta=0.1, self_pairs=self_pairs)
    assert_equal(found, naive(H, y, C, delta=0.1, self_pairs=self_pairs), rel=1e-8)
    around_zero = neural_collapse(H, y, C, delta=0.1, self_pairs=self_pairs, center="none")
    for name in ("intra_min", "intra_mean", "intra_quantile", "inter_max", "inter_mean", "inter_quantile"):
        assert found[name.replace("_", "_raw_")].item() == pytest.approx(around_zero[name].item(), rel=1e-12)
    assert found["inter_raw_mean"] > found["inter_mean"] + 0.1


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_features_that_are_not_finite_give_nan_and_a_count(bad):
    H, y, W = features(20, 3, 2)
    H[3, 1] = bad
    found = neural_collapse(H, y, 2, W)
    fine = {"classes_present", "nonfinite_samples", "weight_norm", "nc2_equinorm_weights", "nc2_equiangular_weights"}
    fine |= {"nc0", "nc0_relative"}
    assert all(found[name].isfinite() for name in fine)
    assert found["nonfinite_samples"] == 1
    numbers = {name for name, value in found.items() if value.isfinite()}
    assert numbers - {"margin_min", "margin_mean", "margin_std"} == fine


def test_two_classes_and_more_classes_than_dimensions():
    for C, d in ((2, 1), (2, 7), (9, 2)):
        H, y, W = features(80, d, C)
        assert_equal(neural_collapse(H, y, C, W), naive(H, y, C, W), rel=1e-7)


def test_margins():
    logits = torch.tensor([[3.0, 1.0, 2.0], [0.0, 5.0, 5.0]])
    assert margins(logits, torch.tensor([0, 0])).tolist() == [1.0, -5.0]
    assert margins(torch.tensor([[2.0], [2.0]]), torch.tensor([0, 1])).tolist() == [-2.0, 2.0]


def test_weight_norm_product():
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 2), torch.nn.BatchNorm2d(2), torch.nn.Linear(3, 2))
    torch.nn.init.constant_(network[0].weight, 1.0)
    torch.nn.init.constant_(network[2].weight, 2.0)
    assert weight_norm_product(network).item() == pytest.approx(math.sqrt(8) * math.sqrt(24))


# --- as a torchmetrics Metric --------------------------------------------------------------------------------------


def test_merge_state_adds_up():
    H, y, _ = features(40, 4, 3)
    one, other = NeuralCollapse(3, 4), NeuralCollapse(3, 4)
    one.update(H[:15], y[:15])
    other.update(H[15:], y[15:])
    one.merge_state(other)
    assert_equal(one.compute(), {k: v.item() for k, v in neural_collapse(H, y, 3).items()}, rel=1e-12)


def test_state_dict_pickle_and_device_carry_the_state():
    H, y, _ = features(40, 4, 3)
    metric = NeuralCollapse(3, 4)
    metric.persistent(True)
    metric.update(H[:30], y[:30])
    restored = NeuralCollapse(3, 4)
    restored.persistent(True)
    restored.load_state_dict(metric.state_dict())
    copy = pickle.loads(pickle.dumps(metric)).to("cpu")
    expected = {k: v.item() for k, v in neural_collapse(H, y, 3).items()}
    for each in (restored, copy, metric):
        each.update(H[30:], y[30:])
        assert_equal(each.compute(), expected, rel=1e-12)


def test_in_a_collection_and_by_forward():
    H, y, _ = features(40, 4, 3)
    collection = MetricCollection({"all": NeuralCollapse(3, 4), "pairs": NeuralCollapse(3, 4, self_pairs=True)})
    first = collection(H[:20], y[:20])
    collection(H[20:], y[20:])
    assert first["all_nc1" if "all_nc1" in first else "nc1"] == neural_collapse(H[:20], y[:20], 3)["nc1"]
    single = NeuralCollapse(3, 4)
    assert single(H[:20], y[:20])["nc1"] == neural_collapse(H[:20], y[:20], 3)["nc1"]
    single(H[20:], y[20:])
    assert_equal(single.compute(), {k: v.item() for k, v in neural_collapse(H, y, 3).items()}, rel=1e-12)


def test_logits_with_some_batches_alone_are_refused():
    metric = NeuralCollapse(3, 4)
    H, y, _ = features(40, 4, 3)
    metric.update(H[:20], y[:20], torch.randn(20, 3))
    metric.update(H[20:], y[20:])
    with pytest.raises(
        ValueError, match="logits must be given with every batch or with none, found '20 of 40 samples'"
    ):
        metric.compute()


# --- bad arguments -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": torch.tensor([0, 1, 3])}, r"labels must be in 0..2, found '0..3'"),
        ({"labels": torch.tensor([0, -1, 1])}, r"labels must be in 0..2"),
        ({"labels": torch.tensor([0.0, 1.0, 2.0])}, "labels must be integers, found torch.float32"),
        ({"labels": torch.tensor([0, 1])}, r"labels must be of shape \(3,\)"),
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
    assert quantiles(values, [level]).item() == pytest.approx(np.quantile(values.numpy(), level), rel=1e-12)


@pytest.mark.parametrize(("samples", "classes", "dim"), [(40, 2, 3), (600, 4, 16), (900, 20, 24)])
def test_sums_of_many_runs_are_those_of_each(samples, classes, dim):
    """The leading axis is no second implementation: each run's sums are what it has alone, but for rounding."""
    runs = 3
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, classes, (runs, samples), generator=generator)
    features = torch.randn(runs, samples, dim, generator=generator) + 3 * torch.randn(classes, dim)[labels]
    logits = torch.randn(runs, samples, classes, generator=generator)
    first = FirstSums.zeros(classes, dim, runs=(runs,))
    alone = [FirstSums.zeros(classes, dim) for _ in range(runs)]
    for part in (slice(0, samples // 3), slice(samples // 3, samples)):
        first.add(features[:, part], labels[:, part])
        for run, sums in enumerate(alone):
            sums.add(features[run, part], labels[run, part])
    around = [Around.of(geometry(sums, "samples")) for sums in alone]
    second = SecondSums.zeros(classes, dim, runs=(runs,))
    second.add(features, labels, predictions(logits), Around.stack(around, features.device))
    quasi = output_sums(logits, labels)
    assert torch.equal(
        margins(logits, labels), torch.stack([margins(*one) for one in zip(logits, labels, strict=True)])
    )
    for run in range(runs):
        own = SecondSums.zeros(classes, dim)
        own.add(features[run], labels[run], predictions(logits[run]), around[run])
        for many, one in ((first, alone[run]), (second, own)):
            for name, value in vars(one).items():
                torch.testing.assert_close(getattr(many, name)[run], value, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(quasi[run], output_sums(logits[run], labels[run]), rtol=1e-13, atol=0)


def test_class_counts_are_of_all_batches_also_after_a_second_pass():
    metric = NeuralCollapse(num_classes=3, feature_dim=2, max_cached_bytes=0)
    batches = [(torch.randn(4, 2), torch.tensor([0, 0, 2, 0])), (torch.randn(2, 2), torch.tensor([2, 0]))]
    for _ in range(2):
        for features, labels in batches:
            metric.update(features, labels)
        metric.second_pass()
    assert metric.class_counts().tolist() == [4, 0, 2]


@pytest.mark.parametrize("kind", [np.float32, np.dtype(">f8"), np.float64])
def test_numpy_arrays_are_measured_as_tensors_are(kind):
    rng = np.random.default_rng(0)
    H, W, b = rng.normal(size=(30, 4)).astype(kind), rng.normal(size=(3, 4)), rng.normal(size=3)
    y = np.repeat(np.arange(3, dtype=np.uint16), 10)
    H.setflags(write=False)
    as_torch = [torch.tensor(np.array(part, part.dtype.newbyteorder("="))) for part in (H, W, b)]
    expected = neural_collapse(as_torch[0], torch.arange(3).repeat_interleave(10), 3, *as_torch[1:])
    found = neural_collapse(H[:, ::1], y, 3, W, b)
    assert {name: value.item() for name, value in found.items()} == pytest.approx(
        {name: value.item() for name, value in expected.items()}, nan_ok=True, abs=0
    )


@pytest.mark.parametrize(
    ("features", "labels", "message"),
    [
        ([[1.0]], np.zeros(1, int), "features must be a tensor or a NumPy array, found 'of type list'"),
        (np.array([["a"]]), np.zeros(1, int), "features must be an array of real numbers of at most 64 bits, found "),
        (np.eye(3), np.array([1, 2, 3]), "labels must be in 0..2, found '1..3'"),
    ],
)
def test_what_is_no_array_of_numbers_is_refused(features, labels, message):
    with pytest.raises(ArgumentError) as error:
        neural_collapse(features, labels, 3)
    assert str(error.value).startswith(message)


def test_the_metric_takes_tensors_alone():
    with pytest.raises(ArgumentError, match="features must be a tensor, found 'of type ndarray'"):
        NeuralCollapse(3, 3).update(np.eye(3), torch.arange(3))
