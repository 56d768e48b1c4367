"""A classifier fixed to a simplex ETF: its geometry, and that nothing trains, decays or counts it."""

import copy
import itertools
import math

import pytest
import torch
from torch import nn

from ncflow.checks import ArgumentError
from ncflow.measuring.split import measure_split
from ncflow.models import MLP, VGG, ConvNet, ResNet, ResNet9, ViT
from ncflow.models.classifier import parameter_groups
from ncflow.models.losses import SquareLoss
from ncflow.models.simplex import random_simplex
from ncflow.theory.layer_peeled import regularized_loss

NETWORKS = {
    MLP: {"width": 8},
    ConvNet: {"width": 1 / 8},
    VGG: {"width": 1 / 16},
    ResNet: {"width": 1 / 16},
    ResNet9: {"width": 1 / 16},
    ViT: {"width": 16, "mlp_width": 16, "depth": 1},
}


def network_of(kind, num_classes=4, **options):
    torch.manual_seed(0)
    return kind((1, 32, 32), num_classes, **{**NETWORKS[kind], **options})


@pytest.mark.parametrize(("num_classes", "dim"), [(2, 1), (2, 5), (4, 3), (4, 4), (10, 30)])
def test_rows_are_a_simplex_of_unit_vectors_in_any_direction(num_classes, dim):
    rows = random_simplex(num_classes, dim)
    cosines = torch.full((num_classes, num_classes), -1 / (num_classes - 1), dtype=torch.float64).fill_diagonal_(1)
    torch.testing.assert_close(rows @ rows.T, cosines, atol=1e-12, rtol=0)
    assert rows.sum(0).norm() < 1e-12
    others = torch.stack([random_simplex(num_classes, dim)[0] for _ in range(400)])
    assert others.mean(0).norm() < 0.2  # directions are drawn evenly
    assert not others.prod(1).eq(0).any()


@pytest.mark.parametrize("kind", NETWORKS)
def test_every_network_fixes_its_classifier_and_starts_as_it_does_beside_a_trained_one(kind):
    fixed, trained = network_of(kind, simplex=2.0, classifier_bias=True), network_of(kind, classifier_bias=True)
    weight = fixed.classifier.weight
    assert weight.norm(dim=1).tolist() == pytest.approx([2] * 4, rel=1e-6)
    assert weight.sum(0).norm() < 1e-5
    assert not weight.requires_grad
    for name, other in trained.state_dict().items():
        assert torch.equal(fixed.state_dict()[name], other) == (name != "classifier.weight"), name
    for scope in ("all", "last_layer"):
        groups = parameter_groups(fixed, 0.1, scope)
        assert all(p is not weight for group in groups for p in group["params"])
        assert any(p is fixed.classifier.bias for p in groups[0]["params"])
    nn.functional.cross_entropy(fixed(torch.randn(8, 1, 32, 32)), torch.arange(8) % 4).backward()
    assert weight.grad is None
    assert fixed.classifier.bias.grad is not None


def test_an_initial_norm_is_of_the_other_matrices():
    assert network_of(MLP, simplex=3.0, init_norm=0.1).classifier.weight.norm().item() == pytest.approx(6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"simplex": 0.0}, "simplex must be null or a number greater than 0, found 0.0"),
        ({"simplex": math.nan}, "simplex must be null or a number greater than 0, found nan"),
        (
            {"simplex": 1.0, "width": 2},
            "simplex must be null where the classifier reads fewer than C - 1 = 3 features, ",
        ),
        (
            {"simplex": 1.0, "norm": "none", "normalization": "weight"},
            "simplex must be null where normalization is not",
        ),
        ({"simplex": 1.0, "norm": "none", "normalization": "lagrange"}, "simplex must be null where normalization"),
    ],
)
def test_impossible_options_are_refused_in_one_line(options, message):
    with pytest.raises(ArgumentError, match=message) as error:
        network_of(MLP, **options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["model.norm=none"],
            "weight_decay_scope must be one in which something is trained where weight_decay is not 0, ",
        ),
        (
            ["model.gamma=1"],
            "weight_decay_scope must be one in which something is trained where weight_decay is not 0, ",
        ),
        (["model.width=2"], "model.simplex must be null where the classifier reads fewer than C - 1 = 3 features, of "),
    ],
)
def test_a_run_in_which_nothing_decays_is_refused(options, message, refusal):
    assert refusal("model.simplex=1", "weight_decay_scope=last_layer", *options).startswith(message)


def test_without_decay_or_with_a_trained_gamma_the_scope_stays(config):
    from ncflow.training.assembly import prepare

    for more in (["model.norm=none", "weight_decay=0"], ["model.norm=last"]):
        prepare(config("model.simplex=1", "weight_decay_scope=last_layer", *more))


@pytest.mark.parametrize(
    ("norm", "unequal", "of_squares"), itertools.product(["none", "last"], [False, True], [False, True])
)
def test_theory_of_a_trained_classifier_says_nothing_of_a_fixed_one(norm, unequal, of_squares):
    """Its norm is no penalty, and what is measured of features and W is as it is of a trained one."""
    fixed = network_of(MLP, norm=norm, simplex=1.5)
    trained = copy.deepcopy(fixed)
    trained.classifier.weight.requires_grad_(True)
    labels = torch.arange(40) % 4
    labels[0] = 1 if unequal else 0
    batch = [(torch.randn(40, 1, 32, 32), labels)]
    options = {"weight_decay": 0.01, "loss": SquareLoss() if of_squares else nn.CrossEntropyLoss()}
    one, other = (measure_split(network, batch, **options)["last"] for network in (fixed, trained))
    theirs = {
        "regularized_loss",
        "regularized_loss_gap",
        "loss_gap",
        "rho_eq",
        "quasi_residual_means",
        "quasi_residual_norms",
    }
    assert {name for name in one if not math.isclose(one[name], other[name]) and not math.isnan(other[name])} == (
        theirs & {name for name, value in other.items() if not math.isnan(value)}
        | ({name for name in one if name.endswith("_limit")} if unequal and not of_squares else set())
    )
    assert all(math.isnan(one[name]) for name in theirs - {"regularized_loss"} if name in one)
    scale = one["feature_rms_norm"] if norm == "none" else one["gamma_norm"]
    cross_entropy = nn.functional.cross_entropy(fixed.eval()(batch[0][0]), labels).item()
    expected = regularized_loss(cross_entropy, 0.01, scale, 0.0)
    assert one["regularized_loss"] == pytest.approx(expected, rel=1e-5)
    if not unequal:
        assert one["inter_max_limit"] == pytest.approx(-1 / 3)


def test_a_network_of_which_nothing_is_trained_is_measured_as_it_was_trained():
    """Whoever reads weights from a file may say that none needs a gradient."""
    network = network_of(MLP).requires_grad_(False)
    assert math.isfinite(
        measure_split(network, [(torch.randn(40, 1, 32, 32), torch.arange(40) % 4)])["last"]["loss_gap"]
    )
