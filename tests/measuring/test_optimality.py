"""Gaps, limits and shares against the optimum for the shares, and NaN where the theory says nothing."""

import math

import pytest
import torch
from torch import nn

from ncflow.measuring import optimality
from ncflow.measuring.split import measure_split
from ncflow.models.losses import ExponentialLoss, SquareLoss
from ncflow.theory import given_shares
from ncflow.theory.given_shares import least_loss, optimum

DECAY, COUNTS = 0.03, (50, 33, 10)
GAPS = ("loss_gap", "regularized_loss_gap")
LIMITS = ("inter_max_limit", "inter_mean_limit", "inter_quantile_limit", "inter_raw_max_limit")


class Headed(nn.Module):
    """A norm or none right before the classifier."""

    def __init__(self, norm, bias, classes):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), *([norm] if norm else []))
        self.last_norm = norm
        self.fc = nn.Linear(8, classes, bias=bias)

    def forward(self, inputs):
        return self.fc(self.body(inputs))


def batch_norm(offset=False, **options):
    norm = nn.BatchNorm1d(8, **options)
    if not offset:
        norm.register_parameter("bias", None)
    return norm


def fixed_gamma():
    norm = batch_norm()
    norm.weight.requires_grad_(False)
    return norm


NORMS = {
    "none": lambda: None,
    "bn": batch_norm,
    "offset": lambda: batch_norm(offset=True),
    "fixed": fixed_gamma,
    "plain": lambda: nn.BatchNorm1d(8, affine=False),
    "layer norm": lambda: nn.LayerNorm(8, bias=False),
}


def measured(norm="none", bias=False, counts=COUNTS, **options):
    """Measures, features, W and logits in float64 of an untrained network on classes of these sizes."""
    torch.manual_seed(0)
    network = Headed(NORMS[norm](), bias, len(counts)).double()
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    inputs = torch.randn(len(labels), 5, dtype=torch.float64) + labels[:, None]
    for _ in range(30):
        network(inputs)  # the running averages
    network.eval()
    values = measure_split(network, [(inputs, labels)], **{"weight_decay": DECAY, **options})["last"]
    with torch.no_grad():
        return values, network.body(inputs), network.fc.weight, network(inputs), labels


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(
    ("norm", "form"),
    [("none", "free"), ("bn", "centred"), ("offset", "free"), ("fixed", "centred"), ("layer norm", "free")],
)
def test_gap_of_the_loss_is_to_the_least_at_its_norms_for_the_shares(norm, form, bias):
    """Also where BN adds an offset, by which the features have any mean: their norm includes it."""
    row, H, W, logits, labels = measured(norm, bias)
    alpha, beta = H.square().sum(1).mean().sqrt().item(), (W.norm() / 3**0.5).item()
    least = least_loss(COUNTS, alpha, beta, "bias" if bias else form)
    assert row["loss_gap"] == pytest.approx(nn.functional.cross_entropy(logits, labels).item() - least, rel=1e-9)
    assert row["loss_gap"] > 0


@pytest.mark.parametrize(("norm", "form"), [("none", "free"), ("bn", "centred"), ("fixed", "centred")])
def test_gap_of_the_regularised_loss_is_to_the_optimum_for_the_shares(norm, form):
    row, H, W, logits, labels = measured(norm)
    scale = H.square().sum(1).mean() if norm == "none" else torch.tensor(row["gamma_norm"] ** 2)
    total = nn.functional.cross_entropy(logits, labels) + DECAY / 2 * (scale + W.square().sum())
    least = optimum(COUNTS, DECAY, form).regularized_loss
    assert row["regularized_loss"] == pytest.approx(total.item(), rel=1e-12)
    assert row["regularized_loss_gap"] == pytest.approx(total.item() - least, rel=1e-9)


@pytest.mark.parametrize(
    ("norm", "bias"), [("offset", False), ("offset", True), ("layer norm", False), ("none", True), ("bn", True)]
)
def test_where_the_penalty_is_another_there_is_no_gap_of_the_regularised_loss(norm, bias):
    """What decays and is not counted: the offset of BN and, where it is not 0 at best, the bias of the classifier."""
    row, *_ = measured(norm, bias)
    assert math.isfinite(row["regularized_loss"])
    assert math.isnan(row["regularized_loss_gap"])
    limits = [row[name] for name in LIMITS]
    assert {math.isnan(limit) for limit in limits} == {bias or norm == "layer norm"}
    equal, *_ = measured(norm, bias, counts=(20, 20, 20))
    assert math.isnan(equal["regularized_loss_gap"]) == (norm in ("offset", "layer norm"))
    assert {equal[name] for name in LIMITS} == {-1 / 2}


@pytest.mark.parametrize(("norm", "form"), [("none", "free"), ("bn", "centred"), ("offset", "free")])
def test_limits_are_the_cosines_at_the_optimum(norm, form):
    counts = (40, 30, 20, 5)
    row, *_ = measured(norm, counts=counts, delta=0.3)
    best = optimum(counts, DECAY, form)
    pairs = torch.tensor(best.cosines)[tuple(torch.triu_indices(4, 4, 1))]
    raw = torch.nn.functional.normalize(torch.tensor(best.class_means))
    of_two = (raw @ raw.T)[tuple(torch.triu_indices(4, 4, 1))]
    expected = (pairs.max(), pairs.mean(), pairs.quantile(0.7), of_two.max())
    assert [row[name] for name in LIMITS] == pytest.approx([value.item() for value in expected], abs=1e-12)
    assert (row["class_share_min"], row["class_share_max"]) == (5 / 95, 40 / 95)


def test_limits_are_left_out_where_they_are_not_known():
    for norm in ("fixed", "plain"):  # the best gamma is another
        assert all(math.isnan(measured(norm)[0][name]) for name in LIMITS)
        assert measured(norm, counts=(9, 9, 9))[0]["inter_max_limit"] == -1 / 2
    assert math.isnan(measured(weight_decay=math.nan)[0]["inter_max_limit"])
    for counts in ((9, 9, 9), COUNTS):  # nothing is left of the features
        assert math.isnan(measured(counts=counts, weight_decay=1.0)[0]["inter_max_limit"])
    row, *_ = measured(counts=(9, 9, 9), loss=SquareLoss(), weight_decay=1.0)
    assert row["inter_max_limit"] == -1 / 2
    absent, *_ = measured(counts=(9, 9, 0))
    assert math.isnan(absent["inter_max_limit"])
    assert absent["class_share_min"] == 0


LOSSES = {
    "cross_entropy": (nn.CrossEntropyLoss(), True),
    "own": (lambda logits, labels: -logits.log_softmax(1).gather(1, labels[:, None]).mean(), True),
    "square": (SquareLoss(), False),
    "signs": (SquareLoss(targets="signs"), False),
    "exponential": (ExponentialLoss(), False),
    "smoothed": (nn.CrossEntropyLoss(label_smoothing=0.01), False),
    "hardly smoothed": (nn.CrossEntropyLoss(label_smoothing=1e-7), False),
    "weighted": (nn.CrossEntropyLoss(weight=torch.tensor([1.0, 1.0, 2.0], dtype=torch.float64)), False),
    "sum": (nn.CrossEntropyLoss(reduction="sum"), False),
    "exponential, as good as 0": (lambda logits, labels: ExponentialLoss()(1e3 * logits, labels), False),
}


@pytest.mark.parametrize("loss", LOSSES)
def test_gaps_are_of_cross_entropy_alone_under_whatever_name(loss):
    function, known = LOSSES[loss]
    for counts in (COUNTS, (10, 10, 10)):
        row, *_ = measured("bn", counts=counts, loss=function)
        assert [math.isfinite(row[name]) for name in GAPS] == [known, known]


def test_many_classes_of_unequal_size_are_left_out(monkeypatch):
    monkeypatch.setattr(optimality, "_MOST_CLASSES", {"loss_gap": 2, "regularized_loss_gap": 3})
    row, *_ = measured()
    assert math.isnan(row["loss_gap"])
    assert math.isfinite(row["regularized_loss_gap"])
    monkeypatch.setattr(optimality, "_MOST_CLASSES", {"loss_gap": 2, "regularized_loss_gap": 2})
    row, *_ = measured()
    assert all(math.isnan(row[name]) for name in (*GAPS, *LIMITS))
    assert math.isfinite(measured(counts=(9, 9, 9))[0]["regularized_loss_gap"])


@pytest.mark.parametrize("certified", [True, False])
def test_the_optimum_is_sought_once_for_shares_and_decay(monkeypatch, certified):
    sought = []

    def seek(*arguments):
        sought.append(arguments)
        if not certified:
            raise RuntimeError
        return optimum(*arguments)

    monkeypatch.setattr(given_shares, "optimum", seek)
    counts = (31, 17, 5) if certified else (31, 17, 6)  # no other test asks for these
    rows = [measured(counts=counts)[0] for _ in range(3)]
    assert sought == [(counts, DECAY, "free")]
    assert all(math.isfinite(row[name]) == certified for row in rows for name in ("regularized_loss_gap", *LIMITS))
