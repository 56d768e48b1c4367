"""Each group of measures against its formula, at exact geometry, and where it is not defined."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from ncflow.checks import ArgumentError
from ncflow.measuring.groups import Groups
from ncflow.measuring.split import measure_split
from ncflow.metrics import pairs
from ncflow.metrics.class_means import FirstSums, geometry
from ncflow.metrics.groups import GROUPS, few_shot, per_class, probe
from ncflow.metrics.groups.uniformity import uniformity_measures
from ncflow.metrics.groups.weight_alignment import matrix_alignment
from ncflow.models import MLP
from ncflow.results import GROUP_MEASURES
from tests.metrics import naive_groups

OF_FEATURES = ["uniformity", "dual_uniformity", "ood", "few_shot", "probe"]
SHAPES = {
    "usual": (60, 5, 3, None),
    "more classes than features": (60, 2, 6, None),
    "two classes": (50, 4, 2, None),
    "unbalanced": (60, 5, 4, [0.85, 0.05, 0.05, 0.05]),
    "an absent class": (40, 5, 4, [0.5, 0.4, 0.1, 0.0]),
    "classes of one": (9, 3, 8, None),
}


class Classifier(nn.Module):
    """Its input is the feature."""

    def __init__(self, W, b=None):
        super().__init__()
        self.fc = nn.Linear(W.shape[1], W.shape[0], bias=b is not None, dtype=torch.float64)
        self.fc.weight.data = W
        if b is not None:
            self.fc.bias.data = b

    def forward(self, x):
        return self.fc(x)


def data(N, d, C, shares=None, seed=0, offset=0.0):
    rng = np.random.default_rng(seed)
    y = rng.choice(C, N, p=shares)
    H = rng.normal(size=(C, d))[y] + 0.5 * rng.normal(size=(N, d)) + offset
    return torch.tensor(H), torch.tensor(y), torch.tensor(rng.normal(size=(C, d)))


def batches(H, y, size=17):
    return list(zip(H.split(size), y.split(size), strict=True))


def measured(names, H, y, W, other=None, limit=None, **options):
    ood = None if other is None else batches(other, torch.zeros(len(other), dtype=torch.long))
    groups = Groups(names, ood if "ood" in names else None)
    found = measure_split(Classifier(W), batches(H, y), groups=groups, max_cached_bytes=limit, **options)["last"]
    return {name: found[name] for group in names for name in GROUP_MEASURES[group]}


@pytest.mark.parametrize("limit", [None, 0], ids=["kept", "read twice"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", OF_FEATURES)
def test_equals_the_formula(name, shape, limit):
    N, d, C, shares = SHAPES[shape]
    H, y, W = data(N, d, C, shares)
    other, _, _ = data(23, d, C, seed=1, offset=0.3)
    found = measured([name], H, y, W, other, limit)
    expected = getattr(naive_groups, name)(H.numpy(), y.numpy(), W=W.numpy(), other=other.numpy())
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-12, nan_ok=True)


@pytest.mark.parametrize("K", [2, 3, 10, 40])
def test_exact_simplex(K):
    means = torch.eye(K + 1, dtype=torch.float64)[:K] - torch.eye(K + 1, dtype=torch.float64)[:K].mean(0)
    y = torch.arange(K).repeat(3)
    other = torch.zeros(5, K + 1, dtype=torch.float64)
    other[:, K] = torch.arange(5)  # across all means
    found = measured(OF_FEATURES, 7 * means[y], y, 2 * means, other)
    limits = {"gnc2_log_mean": -math.log(2 * K / (K - 1)) / 2, "gnc2_riesz_mean": (K - 1) / (2 * K)}
    limits |= {"gnc2_log_cov": 0, "gnc2_riesz_cov": 0, "unc3_mean": 1, "unc3_cov": 0}
    limits |= {"nc5_ood_cosine": 0, "few_shot_cdnv": 0, "probe_accuracy": 1}
    assert found == pytest.approx(limits, abs=1e-9)


def test_every_group_has_the_columns_that_it_gives():
    assert list(GROUPS) == list(GROUP_MEASURES)
    H, y, _ = data(30, 5, 3)
    network = MLP((5,), 3, depth=3, width=6).double()
    plain = measure_split(network, batches(H, y))["last"]
    for name in GROUPS:
        groups = Groups([name], [(H, y)] if name == "ood" else None)
        found = measure_split(network, batches(H, y), groups=groups)["last"]
        assert set(found) - set(plain) == set(GROUP_MEASURES[name])
        assert {measure: found[measure] for measure in plain} == pytest.approx(plain, nan_ok=True, rel=0, abs=0)


# --- where nothing is defined --------------------------------------------------------------------------------------


def test_one_class_has_none_of_the_measures_of_several():
    H, y, W = data(20, 5, 1)
    found = measured(OF_FEATURES, H, y, torch.cat([W, W + 1]), H + 1)
    assert math.isfinite(found.pop("nc5_ood_cosine"))
    assert all(math.isnan(value) for value in found.values()), found


@pytest.mark.parametrize("limit", [None, 0])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_feature_that_is_not_finite_leaves_no_number(value, limit):
    H, y, W = data(20, 5, 3)
    H[7, 2] = value
    found = measured(OF_FEATURES, H, y, W, torch.ones(4, 5, dtype=torch.float64), limit)
    assert all(math.isnan(measure) for measure in found.values()), found


@pytest.mark.parametrize("limit", [None, 0])
@pytest.mark.parametrize("value", [0.0, 0.1, 1e6 / 3])
def test_all_features_equal(value, limit):
    H, y, W = data(3000, 5, 3)
    found = measured(OF_FEATURES, torch.full_like(H, value), y, W, torch.full_like(H, 0.3), limit)
    assert found.pop("nc5_ood_cosine") == pytest.approx(1 if value else math.nan, nan_ok=True)
    assert all(math.isnan(measure) for measure in found.values()), found


def test_a_mean_without_a_direction_is_left_out():
    """The second class mean is the mean of the means, to rounding, and the origin."""
    H = torch.tensor([[0.1, 0], [-0.1, 0], [0.3, 0.2], [-0.3, -0.2], [0.4, -0.7], [-0.4, 0.7]], dtype=torch.float64)
    y = torch.tensor([0, 2, 1, 1, 1, 1])
    W = torch.tensor([[1.0, 1.0], [1.0, 0.0], [0.0, 0.0]], dtype=torch.float64)
    found = measured(["uniformity", "dual_uniformity", "ood"], H, y, W, torch.ones(3, 2, dtype=torch.float64))
    assert found["gnc2_log_mean"] == pytest.approx(-math.log(2))  # of one pair, opposite
    assert found["unc3_mean"] == pytest.approx(math.sqrt(0.5))  # of one class: w of the third is 0
    assert found["nc5_ood_cosine"] == pytest.approx(math.sqrt(0.5))
    assert math.isnan(measured(["ood"], H, y, W, torch.tensor([[0.1, 0.3], [-0.1, -0.3]]).double())["nc5_ood_cosine"])


def test_coincident_means_are_infinitely_near():
    H = torch.tensor([[1.0, 0], [1.0, 2], [1.0, 1], [1.0, 1], [-3.0, 0]], dtype=torch.float64)
    found = measured(["uniformity", "few_shot"], H, torch.tensor([0, 0, 1, 1, 2]), torch.ones(3, 2).double())
    assert found["gnc2_log_mean"] == found["gnc2_riesz_mean"] == found["few_shot_cdnv"] == math.inf
    assert math.isnan(found["gnc2_log_cov"])
    collapsed = torch.tensor([[1.0, 0], [1.0, 0], [-1.0, 0], [-1.0, 0]], dtype=torch.float64)
    found = measured(["few_shot"], collapsed, torch.tensor([0, 1, 2, 2]), torch.ones(3, 2).double())
    assert found["few_shot_cdnv"] == 0  # of the pairs that are apart


def test_what_there_cannot_be_is_refused_in_a_line(monkeypatch):
    H, y, W = data(20, 5, 3)
    for given, line in {
        ("nc7",): "groups must be a list of some of uniformity, dual_uniformity, ood, few_shot, weight_alignment, "
        "probe, found 'nc7'",
        "probe": "groups must be a list of some of uniformity, dual_uniformity, ood, few_shot, weight_alignment, "
        "probe, found 'probe'",
        ("probe", "probe"): "groups must be different names, found ['probe', 'probe']",
        ("ood",): "ood must be a second data set where groups has 'ood'",
        ("weight_alignment",): "groups must be without 'weight_alignment' for a network that is not known to apply its "
        "modules one after the other, each once (one that does says so with an attribute is_chain = True), found "
        "'Classifier'",
    }.items():
        with pytest.raises(ArgumentError) as error:
            measure_split(Classifier(W), batches(H, y), groups=given)
        assert str(error.value) == line
    with pytest.raises(ArgumentError, match="ood must be null where groups has no 'ood'"):
        Groups(["probe"], [(H, y)])
    with pytest.raises(ArgumentError, match="ood must be a loader with at least one batch, found"):
        measured(["ood"], H, y, W, H[:0])
    network = MLP((5,), 3, depth=3, width=6)
    with pytest.raises(ArgumentError, match="groups must be without 'dual_uniformity' where layers has no 'last'"):
        measure_split(network, batches(H, y), ["layers.0"], groups=["dual_uniformity"])
    monkeypatch.setattr(probe, "MOST_FEATURES", 4)
    with pytest.raises(ArgumentError, match="'probe' for a layer of more than 4 features, found \"5 in 'last'\""):
        measured(["probe"], H, y, W)
    monkeypatch.setattr(few_shot, "MOST_CLASSES", 2)
    with pytest.raises(ArgumentError, match="'few_shot' for more than 2 classes, found '3 classes'"):
        measured(["few_shot"], H, y, W)


# --- each by itself ------------------------------------------------------------------------------------------------


def of(means):
    first = FirstSums.zeros(*means.shape)
    first.add(means, torch.arange(len(means)))
    return geometry(first, "samples")


@pytest.mark.parametrize("s", [-1.0, 0.5, 2.0, 10.0])
@pytest.mark.parametrize("angle", [math.pi, 1.0, 1e-3, 1e-6])
def test_kernels_of_two_pairs_at_a_known_angle(angle, s):
    """Two means at an angle and their opposites, whose mean is 0: chords of angle, pi - angle and pi."""
    turned = torch.tensor([math.cos(angle), math.sin(angle)], dtype=torch.float64)
    first = torch.tensor([1.0, 0.0], dtype=torch.float64)
    if angle == math.pi:
        means, chords = torch.stack([first, -first]), [2.0]
    else:
        means = torch.stack([first, turned, -first, -turned])
        chords = [2 * math.sin(part / 2) for part in 2 * [angle] + 2 * [math.pi - angle] + 2 * [math.pi]]
    kernels = [math.copysign(1, s) * chord**-s for chord in chords]
    found = {name: value.item() for name, value in uniformity_measures(of(means), s).items()}
    assert found["gnc2_log_mean"] == pytest.approx(-np.mean(np.log(chords)), rel=1e-9)
    assert found["gnc2_riesz_mean"] == pytest.approx(np.mean(kernels), rel=1e-8 * max(1, s))
    assert found["gnc2_riesz_cov"] == pytest.approx(np.std(kernels) / abs(np.mean(kernels)), rel=1e-7, abs=1e-12)


def test_uniformity_is_the_same_in_tiles_of_any_size(monkeypatch):
    means = torch.tensor(np.random.default_rng(0).normal(size=(31, 5)))
    whole = {name: value.item() for name, value in uniformity_measures(of(means)).items()}
    monkeypatch.setitem(pairs._SIDE, "cpu", 7)
    assert {n: v.item() for n, v in uniformity_measures(of(means)).items()} == pytest.approx(whole, rel=1e-12)


def test_directional_variability_is_below_the_whole_and_bounds_who_lies_nearer_to_another_mean():
    H, y, W = data(400, 6, 2, seed=3)
    H = H + torch.tensor(np.random.default_rng(0).normal(size=H.shape))
    found = measure_split(Classifier(W), batches(H, y), groups=["few_shot"])["last"]
    assert found["few_shot_cdnv"] < found["cdnv"]
    assert 0 < 1 - found["ncc_accuracy"] <= 4 * found["few_shot_cdnv"]


@pytest.mark.parametrize("offset", [0.0, 1e5])
def test_a_probe_is_trained_on_the_first_split_and_tried_on_the_others(offset):
    H, y, W = data(90, 6, 4, seed=4, offset=offset)
    order = y[:60].argsort(stable=True)  # the first batch is of one class
    train, test = (H[:60][order], y[:60][order]), (H[60:], y[60:])
    groups = Groups(["probe"])
    for split in (train, test):
        expected = naive_groups.probe(*(part.numpy() for part in split), fitted_on=[part.numpy() for part in train])
        found = measure_split(Classifier(W), batches(*split), groups=groups)["last"]
        assert found["probe_accuracy"] == expected["probe_accuracy"] < 1


def test_the_outputs_of_a_probe_are_those_of_ridge_regression():
    H, y, _ = data(50, 6, 3)
    moments = probe.SecondMoments(6)
    for rows, _ in batches(H, y):
        moments.add(rows)
    first = FirstSums.zeros(3, 6)
    first.add(H, y)
    ridge = probe.Ridge.fit(geometry(first, "samples"), moments.around(H.mean(0)))
    centred = (H - H.mean(0)).numpy()
    alpha = probe.RIDGE * (centred**2).sum() / 6
    targets = np.eye(3)[y.numpy()]
    weights = np.linalg.solve(centred.T @ centred + alpha * np.eye(6), centred.T @ (targets - targets.mean(0)))
    np.testing.assert_allclose(ridge.outputs(H.clone()).numpy(), centred @ weights + targets.mean(0), atol=1e-12)


def test_weights_are_aligned_with_those_that_read_them():
    torch.manual_seed(0)
    network = MLP((5,), 3, depth=4, width=8, norm="all").double()
    H, y, _ = data(30, 5, 3)
    found = measure_split(network, batches(H, y), "all", groups=["weight_alignment"])
    matrices = [m.weight.detach().numpy() for m in network.modules() if isinstance(m, nn.Linear)]
    for index, layer in enumerate(["layers.0", "layers.1", "last"]):
        expected = naive_groups.alignment(matrices[index], matrices[index + 1])
        assert found[layer]["weight_alignment"] == pytest.approx(expected, rel=1e-12)


def test_balanced_matrices_are_aligned_and_those_of_other_directions_are_not():
    U, _ = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))
    V, _ = torch.linalg.qr(torch.randn(9, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1)))
    values = torch.tensor([3.0, 2.0, 0.5, 0, 0, 0], dtype=torch.float64)
    below = (U * values) @ V.T
    assert matrix_alignment(below, 7 * (U * values).T).item() == pytest.approx(1)
    assert matrix_alignment(below, (U * values.flip(0)).T).item() == pytest.approx(0, abs=1e-12)
    assert matrix_alignment(below, U.T).item() < 1  # the same directions, of other singular values
    assert matrix_alignment(below, 0 * U).isnan()


@pytest.mark.parametrize("limit", [None, 0])
def test_values_by_class_and_by_pair_are_those_that_the_measures_sum_up(limit):
    H, y, W = data(40, 5, 5, [0.4, 0.3, 0.2, 0.1, 0.0])
    b = torch.linspace(-1, 1, 5, dtype=torch.float64)
    groups = Groups(per_class=True)
    found = measure_split(Classifier(W, b), batches(H, y), groups=groups, max_cached_bytes=limit)["last"]
    expected = naive_groups.classes(H.numpy(), y.numpy(), W.numpy(), b.numpy())
    assert len(groups.classes["last"]) == len(expected) == found["classes_present"] == 4
    for row, wanted in zip(groups.classes["last"], expected, strict=True):
        assert row == pytest.approx(wanted, rel=1e-9)
    for row, wanted in zip(groups.pairs["last"], naive_groups.pairs(H.numpy(), y.numpy()), strict=True):
        assert row == pytest.approx(wanted, rel=1e-9)
    columns = {name: [row[name] for row in groups.classes["last"]] for name in expected[0]}
    assert min(columns["intra"]) == pytest.approx(found["intra_min"])
    assert np.mean(columns["nc3_cosine"]) == pytest.approx(found["nc3_cosine_mean"])
    assert np.average(columns["accuracy"], weights=columns["count"]) == pytest.approx(found["accuracy"])
    of_pairs = {name: [row[name] for row in groups.pairs["last"]] for name in ("inter", "cdnv")}
    assert max(of_pairs["inter"]) == pytest.approx(found["inter_max"])
    assert np.mean(of_pairs["cdnv"]) == pytest.approx(found["cdnv"])


def test_pairs_of_more_classes_than_there_is_room_for_are_a_line(monkeypatch, caplog):
    monkeypatch.setattr("ncflow.measuring.groups.MOST_CLASSES", 2)
    assert per_class.MOST_CLASSES == 100
    H, y, W = data(20, 5, 3)
    groups = Groups(per_class=True)
    measure_split(Classifier(W), batches(H, y), groups=groups)
    assert len(groups.classes["last"]) == 3
    assert groups.pairs["last"] == []
    assert "pairs have no rows where there are more than 2 classes, found 3" in caplog.text
