import itertools

import pytest
import torch
from torch import nn

from ncflow.checks import ArgumentError
from ncflow.models.classifier import Classifier, parameter_groups
from ncflow.models.mlp import MLP
from ncflow.models.network import find_classifier
from ncflow.models.schedule import cosine, milestones


def test_depth_counts_weight_matrices():
    network = MLP((1, 8, 8), 10, depth=5, width=7)
    weights = [m.weight.shape for m in network.modules() if isinstance(m, nn.Linear)]
    assert weights == [(7, 64), (7, 7), (7, 7), (7, 7), (10, 7)]
    assert network(torch.randn(3, 1, 8, 8)).shape == (3, 10)


@pytest.mark.parametrize(("norm", "places"), [("none", []), ("last", [2]), ("all", [0, 1, 2])])
def test_bn_follows_the_activation_where_asked(norm, places):
    network = MLP((4,), 3, depth=4, width=6, norm=norm)
    for index, layer in enumerate(network.layers):
        kinds = [type(part) for part in layer]
        assert kinds == [nn.Linear, nn.ReLU, *([nn.BatchNorm1d] if index in places else [])]
    assert network.last_norm is (network.layers[-1][-1] if places else None)


def test_forward_equals_the_formula():
    torch.manual_seed(0)
    network = MLP((4,), 3, depth=3, width=6, norm="last")
    x = torch.randn(50, 4)
    first, second = (layer[0].weight for layer in network.layers)
    h = torch.relu(torch.relu(x @ first.T) @ second.T)
    h = (h - h.mean(0)) / torch.sqrt(h.var(0, unbiased=False) + 1e-5)
    torch.testing.assert_close(network(x), h @ network.classifier.weight.T)


@pytest.mark.parametrize("flags", itertools.product([False, True], repeat=3))
def test_bias_flags(flags):
    bias, classifier_bias, norm_bias = flags
    network = MLP((4,), 3, depth=3, width=6, bias=bias, classifier_bias=classifier_bias, norm_bias=norm_bias)
    names = {name for name, _ in network.named_parameters()}
    assert ("layers.0.0.bias" in names, "classifier.bias" in names, "layers.1.2.bias" in names) == flags


def test_trained_gamma_starts_at_one_and_a_fixed_one_never_moves():
    trained = MLP((4,), 3, depth=3, width=6)
    assert trained.last_norm.weight.tolist() == [1.0] * 6
    assert trained.last_norm.weight.requires_grad
    fixed = MLP((4,), 3, depth=3, width=6, gamma=0.25)
    optimizer = torch.optim.Adam(parameter_groups(fixed, 0.1, "all"), lr=0.1)
    for _ in range(3):
        nn.functional.cross_entropy(fixed(torch.randn(20, 4)), torch.randint(3, (20,))).backward()
        optimizer.step()
    assert fixed.last_norm.weight.tolist() == [0.25] * 6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depth": 1}, "depth must be at least 2"),
        ({"width": 0}, "width must be at least 1"),
        ({"activation": "swish"}, "activation must be one of"),
        ({"norm": "first"}, "norm must be one of"),
        ({"norm": "none", "gamma": 0.1}, "gamma must be null where norm is 'none'"),
        ({"norm": "none", "norm_bias": True}, "norm_bias must be false"),
        ({"norm": "none", "affine": False}, "affine must be true where norm is 'none'"),
        ({"affine": False}, "gamma must be a number where affine is false"),
        ({"affine": False, "gamma": 1.0, "norm_bias": True}, "norm_bias must be false"),
        ({"gamma": float("inf")}, "gamma must be null or a finite number"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(ArgumentError, match=message):
        MLP((4,), 3, **options)


def test_bn_without_parameters():
    network = MLP((4,), 3, depth=3, width=6, affine=False, gamma=1.0)
    assert len(parameter_groups(network, 0.1, "all")[0]["params"]) == 3


NETWORKS = {
    f"{norm}-{gamma}-{bias}": dict(norm=norm, gamma=gamma, bias=bias, classifier_bias=bias)
    for norm, gamma, bias in itertools.product(["none", "last", "all"], [None, 0.5], [False, True])
    if not (norm == "none" and gamma is not None)
}


@pytest.mark.parametrize("scope", ["all", "last_layer"])
@pytest.mark.parametrize("case", NETWORKS)
def test_every_trained_parameter_is_in_exactly_one_group(case, scope):
    network = MLP((4,), 3, depth=4, width=6, **NETWORKS[case])
    groups = parameter_groups(network, 0.1, scope)
    grouped = [id(p) for group in groups for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in network.parameters() if p.requires_grad)
    decayed = {id(p) for group in groups if group["weight_decay"] for p in group["params"]}
    heads = [network.classifier, *([network.last_norm] if network.last_norm else [])]
    expected = network.parameters() if scope == "all" else (p for m in heads for p in m.parameters())
    assert decayed == {id(p) for p in expected if p.requires_grad}


def test_foreign_network_in_the_classifier():
    network = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))
    groups = parameter_groups(network, 0.1, "last_layer")
    assert [p.shape for p in groups[0]["params"]] == [(3, 5), (3,)]
    assert len(groups[1]["params"]) == 2
    assert Classifier(network, nn.CrossEntropyLoss(), torch.optim.Adam)(torch.randn(2, 4)).shape == (2, 3)


def test_classifier_is_found_or_asked_for():
    network = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))
    assert find_classifier(network) == ("2", network[2])
    assert find_classifier(network, "0") == ("0", network[0])
    with pytest.raises(ArgumentError, match="classifier must be one of the linear layers 0, 2, found '1'"):
        find_classifier(network, "1")
    with pytest.raises(ArgumentError, match="found none in ReLU"):
        find_classifier(nn.ReLU())


@pytest.mark.parametrize(("epochs", "rates"), [(8, [1, 1, 0.1, 0.1, 0.01, 0.01, 0.001, 0.001]), (2, [1, 0.01])])
def test_milestones_are_fractions_of_the_epochs(epochs, rates):
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = milestones(optimizer, epochs, fractions=[0.25, 0.5, 0.75], factor=0.1)
    seen = []
    for _ in range(epochs):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert seen == pytest.approx(rates)


@pytest.mark.parametrize(("warmup", "floor"), [(0, 0.0), (3, 0.1), (11, 0.0), (1, 1.0)])
def test_cosine_with_warm_up_is_pytorchs_linear_and_then_cosine_schedule(warmup, floor):
    rates = [1.0, 0.03]
    one, other = (torch.optim.SGD([{"params": [nn.Parameter(torch.zeros(1))], "lr": lr} for lr in rates]) for _ in "12")
    schedule = cosine(one, 12, warmup_epochs=warmup, min_factor=floor)
    parts = [torch.optim.lr_scheduler.LinearLR(other, 1 / (warmup + 1), total_iters=warmup)] if warmup else []
    # PyTorch's floor is one rate for all groups: here that of the first one.
    parts.append(torch.optim.lr_scheduler.CosineAnnealingLR(other, 12 - warmup, eta_min=floor))
    reference = torch.optim.lr_scheduler.SequentialLR(other, parts, [warmup] if warmup else [])
    seen, expected = [], []
    for _ in range(12):
        seen.append([group["lr"] for group in one.param_groups])
        expected.append(other.param_groups[0]["lr"])
        one.step(), other.step()
        schedule.step(), reference.step()
    assert [first for first, _ in seen] == pytest.approx(expected, rel=1e-12)
    assert [second for _, second in seen] == pytest.approx([0.03 * rate for rate in expected], rel=1e-12)
    assert seen[warmup][0] == 1.0
    assert len({first for first, _ in seen}) > 1 or floor == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"warmup_epochs": 5}, r"warmup_epochs must be in 0\.\.4, below epochs, found 5"),
        ({"warmup_epochs": -1}, r"warmup_epochs must be in 0\.\.4, below epochs, found -1"),
        ({"min_factor": 1.5}, r"min_factor must be in 0\.\.1, found 1.5"),
    ],
)
def test_impossible_schedules_are_refused(options, message):
    with pytest.raises(ArgumentError, match=message):
        cosine(torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0), 5, **options)


def test_only_plain_values_are_set_past_the_bookkeeping_of_modules():
    classifier = Classifier(MLP((4,), 3, depth=2, width=6), nn.CrossEntropyLoss(), torch.optim.SGD)
    classifier.note = None
    classifier.note = "text"
    assert classifier.__dict__["note"] == "text"
    classifier.note = nn.Parameter(torch.ones(2))
    assert "note" in dict(classifier.named_parameters())
    with pytest.raises(TypeError, match="cannot assign 'str' as parameter 'note'"):
        classifier.note = "text"
    classifier.note = classifier.network = None
    assert not list(classifier.named_parameters())
    assert classifier.network is None
