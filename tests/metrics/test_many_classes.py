"""More classes than dimensions, and more pairs than are held: the same values as by the formulas."""

from fractions import Fraction

import numpy as np
import pytest
import torch

from ncflow.metrics import NeuralCollapse, neural_collapse, order, pairs
from ncflow.metrics import nearest as nearest_module
from ncflow.metrics.class_means import FirstSums, geometry
from ncflow.metrics.nearest import NearestMean
from ncflow.metrics.order import quantile_of_many
from ncflow.metrics.scatter import Around
from tests.naive import naive

# Large numbers, above which a naive formula loses digits, are those of the pseudo-inverse.
CLOSE = {"rel": 1e-9, "abs": 1e-12}


def data(N, C, d, spread=0.5, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    y = torch.cat([torch.arange(C), torch.randint(0, C, (N - C,), generator=generator)])
    means = torch.randn(C, d, generator=generator)
    H = means[y] + spread * torch.randn(N, d, generator=generator)
    return H.to(dtype), y, torch.randn(C, d, generator=generator)


@pytest.fixture
def small_tiles(monkeypatch):
    """As if there were 10,000 times as many classes: tiles of 7, 50 values held, a few scores at a time."""
    monkeypatch.setitem(pairs._SIDE, "cpu", 7)
    monkeypatch.setattr(pairs, "_HELD", 50)
    monkeypatch.setattr(order, "_HELD", 50)
    monkeypatch.setitem(nearest_module._SCORES, "cpu", 300)


@pytest.mark.parametrize(("C", "d"), [(30, 4), (30, 29), (30, 30), (31, 30), (2, 1), (40, 1), (24, 40)])
@pytest.mark.parametrize("self_pairs", [False, True])
def test_equals_the_formulas(C, d, self_pairs, small_tiles):
    H, y, W = data(300, C, d)
    absent = torch.randint(0, C, (1,)).item() if C > 2 else None
    H, y = (H, y) if absent is None else (H[y != absent], y[y != absent])
    found = neural_collapse(H, y, C, W, delta=0.1, self_pairs=self_pairs)
    assert {name: value.item() for name, value in found.items()} == pytest.approx(
        naive(H, y, C, W.double(), delta=0.1, self_pairs=self_pairs), nan_ok=True, **CLOSE
    )


@pytest.mark.parametrize("scale", [1e100, 1e-100, 1e37, 1e-37])
@pytest.mark.parametrize(("C", "d"), [(4, 8), (30, 4)])
def test_the_size_of_features_does_not_matter(C, d, scale):
    """Fourth powers of 1e100 are no numbers; what has no unit must not need them."""
    H, y, W = data(200, C, d, dtype=torch.float64)
    W = W.double()
    one, other = neural_collapse(H, y, C, W, logits=H @ W.T), neural_collapse(H * scale, y, C, W, logits=H @ W.T)
    assert other.pop("feature_rms_norm") / scale == pytest.approx(one.pop("feature_rms_norm").item(), rel=1e-12)
    assert {name: value.item() for name, value in other.items()} == pytest.approx(
        {name: value.item() for name, value in one.items()}, **CLOSE
    )


@pytest.mark.parametrize("value", [0.1, 1 / 3, 1e-3 / 7])
@pytest.mark.parametrize("C", [4, 40])
def test_equal_features_in_float64_have_no_spread(value, C):
    """A sum of 200,000 equal numbers is off by thousands of ulps: that is no spread of the class means."""
    N = 200_000
    H, y = torch.full((N, 3), value, dtype=torch.float64), torch.arange(N) ** 2 % C
    found = neural_collapse(H, y, C, torch.randn(C, 3))
    assert found["nc1_rank"] == 0
    undefined = ("intra_min", "inter_max", "nc1", "nc1_trace_ratio", "cdnv", "nc2_etf_error", "nc3_cosine_mean")
    assert [name for name in undefined if not found[name].isnan()] == []


def test_a_spread_of_float32_features_is_never_taken_for_rounding():
    H = torch.ones(400_000, 3)
    y = torch.arange(len(H)) % 4
    H[y == 1] += 2.0**-23
    assert neural_collapse(H, y, 4)["nc1_rank"] == 1


def brute_force(H, means):
    """The nearest of some means by sums of squares, a row at a time."""
    return torch.stack([(means - h).square().sum(1).argmin() for h in H.double()])


@pytest.mark.parametrize("spread", [0.01, 1.0, 100.0])
@pytest.mark.parametrize("shorten", ["highest", "medium", "autocast"])
def test_nearest_mean_is_exact_where_float32_is_not(spread, shorten):
    """Half of the class means have a twin at 1e-9: in float32 the two are one."""
    H, y, _ = data(2000, 64, 6, spread, dtype=torch.float64)
    first = FirstSums.zeros(64, 6)
    first.add(H, y)
    means = geometry(first, "samples")
    means.centred[32:] = means.centred[:32] + 1e-9 * torch.randn(32, 6)
    means.lengths  # noqa: B018 - of the means as they are now
    own = y % 64
    residuals = 1e-9 * torch.randn(len(H), 6, dtype=torch.float64)
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium" if shorten == "medium" else "highest")
        with torch.autocast("cpu", torch.bfloat16, enabled=shorten == "autocast"):
            found = NearestMean(means)(residuals, own)
    finally:
        torch.set_float32_matmul_precision(before)
    # r + mu_c - mu_k in this order: nothing of 1e-9 is lost.
    gaps = torch.stack(
        [(r + (means.centred[c] - means.centred)).square().sum(1) for r, c in zip(residuals, own, strict=True)]
    )
    assert torch.equal(found, gaps.argmin(1))


def test_most_samples_are_settled_in_float32(monkeypatch):
    """Else the second comparison would be the rule, and three times the cost."""
    H, y, _ = data(4000, 1000, 64, 2.0)
    first = FirstSums.zeros(1000, 64)
    first.add(H, y)
    means = geometry(first, "samples")
    compared = []
    own = type(means).distances
    monkeypatch.setattr(type(means), "distances", lambda self, rows: compared.append(len(rows)) or own(self, rows))
    found = NearestMean(means)(H.double() - means.means[y], y)
    assert torch.equal(found[:200], brute_force(H[:200], means.means))
    assert sum(compared) < 0.05 * len(H)


@pytest.mark.parametrize("far", [1e20, 1e38, 1e60, 1e140])
def test_what_float32_cannot_hold_is_compared_in_float64(far):
    H, y, _ = data(100, 20, 3, dtype=torch.float64)
    first = FirstSums.zeros(20, 3)
    first.add(H, y)
    means = geometry(first, "samples")
    H[::7] *= far
    # |mu_k|^2 - 2 h.mu_k in exact arithmetic: the squares of 1e20 would drown all differences.
    exact = [[Fraction(x) for x in row] for row in means.means.tolist()]
    scores = [[sum(m * (m - 2 * Fraction(x)) for m, x in zip(mu, h, strict=True)) for mu in exact] for h in H.tolist()]
    nearest = [row.index(min(row)) for row in scores]
    assert Around.of(means).search(H - means.means[y], y).tolist() == nearest


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_feature_that_is_not_finite_has_no_nearest_mean(bad):
    H, y, W = data(300, 20, 3)
    H[7, 1] = bad
    found = neural_collapse(H, y, 20, W)
    assert found["nonfinite_samples"] == 1
    assert all(found[name].isnan() for name in ("ncc_accuracy", "nc4_agreement", "nc1", "cdnv", "inter_quantile"))


@pytest.mark.parametrize("level", [0.05, 0.5, 0.95, 1 - 1e-9, 0.333])
@pytest.mark.parametrize("kind", ["normal", "equal", "two values", "close", "zeros of both signs"])
def test_quantile_of_more_values_than_are_held(level, kind, monkeypatch):
    monkeypatch.setattr(order, "_HELD", 100)
    normal = torch.randn(5000, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).clamp(-7, 7) / 4
    values = {
        "normal": normal,
        "equal": torch.full_like(normal, -1 / 3),
        "two values": torch.where(normal > 0, 1.0, -1.0).double(),
        "close": 0.1 + 1e-16 * normal.mul(40).round(),
        "zeros of both signs": torch.where(normal > 0, 0.0, -0.0).double(),
    }[kind]
    reads = []
    found = quantile_of_many(lambda: reads.append(0) or values.split(700), len(values), level)
    assert found.item() == pytest.approx(np.quantile(values.numpy(), level), rel=1e-15)
    assert len(reads) <= 5


def test_streams_equal_one_pass(small_tiles):
    """More classes than dimensions in batches, beyond what is kept."""
    H, y, W = data(400, 50, 5)
    head = torch.nn.Linear(5, 50, bias=False)
    head.weight.data = W
    metric = NeuralCollapse(50, 5, head, max_cached_bytes=0)
    for _ in range(2):
        for part in torch.arange(400).split(37):
            metric.update(H[part], y[part], H[part] @ W.T)
        metric.second_pass()
    whole = neural_collapse(H, y, 50, W, logits=H @ W.T)
    assert {name: value.item() for name, value in metric.compute().items()} == pytest.approx(
        {name: value.item() for name, value in whole.items()}, rel=1e-11
    )
