"""The network of CBMM Memo 117, its initial norms and its homogeneity."""

import copy
import inspect

import pytest
import torch
from torch import nn

from ncflow.checks import ArgumentError
from ncflow.config.schema import ConfigError
from ncflow.data.batches import Batches, Split
from ncflow.measuring.features import extract, resolve_layers
from ncflow.metrics.margins import weight_norm_product
from ncflow.models import MLP
from ncflow.models.classifier import parameter_groups
from ncflow.models.convnet import ConvNet
from ncflow.models.init import weight_layers
from ncflow.results import HISTORY
from ncflow.training.assembly import prepare
from tests.conftest import train_here

ON_DIGITS = ["data=digits", "data.classes=[1,2]", "data.num_samples=60", "model=convnet", "trainer=cpu"]


def small(shape=(3, 32, 32), num_classes=2, **options):
    torch.manual_seed(0)
    return ConvNet(shape, num_classes, **{"width": 1 / 8, **options})


def images(shape=(3, 32, 32), count=5):
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(1))


def homogeneous(kind, **options):
    options = {"norm": "none", **options}
    return small((1, 8, 8), 3, **options) if kind is ConvNet else MLP((1, 8, 8), 3, width=12, **options)


@pytest.mark.parametrize(("pool", "features"), [(True, 128), (False, 128 * 4 * 4)])
def test_the_memos_channels_and_the_positions_that_are_left_of_32x32(pool, features):
    network = ConvNet((3, 32, 32), 2, pool=pool)
    shapes = [tuple(layer.weight.shape) for layer in weight_layers(network)]
    assert shapes == [(32, 3, 3, 3), (64, 32, 3, 3), (128, 64, 3, 3), (2, features)]


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 32, 32), (1, 8, 8), (2, 13, 9), (1, 1, 1)])
@pytest.mark.parametrize("pool", [True, False])
def test_images_of_any_channels_and_sides(shape, pool):
    assert small(shape, 4, pool=pool)(images(shape)).shape == (5, 4)


@pytest.mark.parametrize(("width", "channels"), [(0.5, [16, 32, 64]), (1 / 64, [1, 1, 2])])
def test_width_scales_every_convolution(width, channels):
    network = small(width=width)
    assert [layer[0].out_channels for layer in network.layers] == channels


@pytest.mark.parametrize(("norm", "kinds"), [("none", []), ("all", [nn.BatchNorm2d])])
def test_bn_follows_relu_and_nothing_has_a_bias(norm, kinds):
    network = small(norm=norm)
    for layer in network.layers:
        assert [type(part) for part in layer] == [nn.Conv2d, nn.ReLU, *kinds]
    assert network.last_norm is None
    assert {name.split(".")[-1] for name, _ in network.named_parameters()} == {"weight"}
    assert len(list(network.parameters())) == 4


def test_affine_bn_and_the_classifiers_bias_are_options():
    names = {name for name, _ in small(affine=True, classifier_bias=True).named_parameters()}
    assert {"layers.2.2.weight", "layers.2.2.bias", "classifier.bias"} <= names
    assert "layers.2.0.bias" not in names


@pytest.mark.parametrize("pool", [True, False])
def test_forward_equals_the_formula(pool):
    network = small(pool=pool)
    h = images()
    for layer in network.layers:
        h = nn.functional.conv2d(h, layer[0].weight, stride=2, padding=1).relu()
        h = (h - h.mean((0, 2, 3), keepdim=True)) / (h.var((0, 2, 3), unbiased=False, keepdim=True) + 1e-5).sqrt()
    h = h.mean((2, 3)) if pool else h.flatten(1)
    torch.testing.assert_close(network(images()), h @ network.classifier.weight.T)


@pytest.mark.parametrize(("side", "pool"), [(16, True), (8, False), (8, True)])
def test_bn_centres_the_outputs_where_one_position_is_left_so_that_one_hot_targets_need_a_bias(side, pool):
    def means(**options):
        return small((3, side, side), 4, pool=pool, **options)(images((3, side, side), 50)).mean(0)

    torch.testing.assert_close(means(), torch.zeros(4), atol=1e-6, rtol=0)
    assert means(classifier_bias=True).abs().max() > 1e-3


@pytest.mark.parametrize("norm", ["none", "all"])
@pytest.mark.parametrize("pool", [True, False])
def test_every_listed_layer_is_measured_and_the_last_is_the_classifiers_input(norm, pool):
    network = small(norm=norm, pool=pool)
    network(images())
    layers = resolve_layers(network, "all")
    assert layers == ["layers.0", "layers.1", *(["layers.2"] if pool else []), "last"]
    batches = Batches(Split(images(), torch.zeros(5, dtype=torch.long)), None)
    (batch,) = extract(network, batches, [*layers, network.layer_names[-1]])
    first = network.eval().layers[0](images())
    torch.testing.assert_close(batch.features["layers.0"], first.flatten(1))
    assert torch.equal(batch.features[network.layer_names[-1]], batch.features["last"])
    torch.testing.assert_close(network.classifier(batch.features["last"]), batch.logits)


@pytest.mark.parametrize("norm", [0.01, 1.0, 10.0])
@pytest.mark.parametrize("kind", [MLP, ConvNet])
def test_every_matrix_starts_with_the_norm_that_is_asked_for(kind, norm):
    network = homogeneous(kind, init_norm=norm)
    norms = [layer.weight.double().norm().item() for layer in weight_layers(network)]
    assert norms == pytest.approx([norm] * 4, rel=1e-6)
    assert weight_norm_product(network).item() == pytest.approx(norm**4, rel=1e-6)


def test_initial_weights_are_normal():
    weight = ConvNet((3, 32, 32), 2, init_norm=3.0).layers[2][0].weight.flatten()
    deviation = 3.0 / weight.numel() ** 0.5
    inside = [(weight.abs() < k * deviation).float().mean().item() for k in (1, 2)]
    assert inside == pytest.approx([0.683, 0.954], abs=0.01)


@pytest.mark.parametrize("kind", [MLP, ConvNet])
def test_initial_norms_leave_the_default_and_the_biases_as_they_are(kind):
    torch.manual_seed(0)
    plain = kind((1, 8, 8), 3, width=8, classifier_bias=True)
    torch.manual_seed(0)
    scaled = kind((1, 8, 8), 3, width=8, classifier_bias=True, init_norm=2.0)
    assert torch.equal(plain.classifier.bias, scaled.classifier.bias)
    assert not torch.equal(plain.classifier.weight, scaled.classifier.weight)


@pytest.mark.parametrize("kind", [MLP, ConvNet])
@pytest.mark.parametrize("seed", range(5))
def test_without_bn_the_output_is_rho_times_that_of_unit_matrices(kind, seed):
    """f_W = rho f_V (section 3.3)."""
    torch.manual_seed(seed)
    scale = float(torch.rand(()) * 5 + 0.01)
    network = homogeneous(kind, init_norm=scale).double()
    for layer in weight_layers(network):
        layer.weight.data.mul_(torch.rand(()) + 0.5)
    unit = copy.deepcopy(network)
    for layer in weight_layers(unit):
        layer.weight.data.div_(layer.weight.data.norm())
    x = torch.randn(20, 1, 8, 8, dtype=torch.float64)
    torch.testing.assert_close(network(x), weight_norm_product(network) * unit(x), rtol=1e-12, atol=0)


@pytest.mark.parametrize("kind", [MLP, ConvNet])
def test_outputs_of_unit_matrices_and_unit_inputs_are_at_most_one(kind):
    """|f_V(x)| <= 1 for |x| <= 1 (section 3.5); for convolutions, whose windows overlap, an observation."""
    network = homogeneous(kind, init_norm=1.0)
    x = nn.functional.normalize(images((1, 8, 8), 200).flatten(1)).unflatten(1, (1, 8, 8))
    assert network(x).norm(dim=1).max() <= 1


def test_last_layer_weight_decay_is_of_the_classifier_alone():
    network = small(affine=True)
    decayed, free = parameter_groups(network, 0.1, "last_layer")
    assert [id(p) for p in decayed["params"]] == [id(network.classifier.weight)]
    assert len(free["params"]) == 9


def test_the_config_states_the_defaults(config):
    parameters = inspect.signature(ConvNet).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}
    stated = {str(name): value for name, value in config("model=convnet").model.items() if name != "_target_"}
    assert stated == {**defaults, "name": "convnet"}


def test_a_run_measures_every_layer(config, tmp_path):
    cfg = config(*ON_DIGITS, "model.width=0.1", "epochs=2", "measure.layers=all", "loss=square", "data.size=32")
    assert train_here(cfg, tmp_path).status == "done"
    assert "layers.1" in (tmp_path / HISTORY).read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["data=conic_hull"], "model.input_shape must be (channels, height, width), found (16,)"),
        (["model.width=0"], "model.width must be a number greater than 0, found 0"),
        (["model.norm=last"], "model.norm must be one of 'none', 'all', found 'last'"),
        (["model.norm=none", "model.affine=true"], "model.affine must be false where norm is 'none'"),
        (["model.init_norm=0"], "model.init_norm must be null or a number greater than 0, found 0"),
        (["model.init_norm=nan"], "model.init_norm must be a finite number, found nan"),
        (["model.init_norm=large"], "model.init_norm must be a number or null, found 'large'"),
        (["model=mlp", "model.init_norm=-1"], "model.init_norm must be null or a number greater than 0, found -1"),
    ],
)
def test_impossible_options_are_refused_in_one_line(options, message, config):
    with pytest.raises(ConfigError) as error:
        prepare(config("data=digits", "model=convnet", *options))
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_an_unknown_placement_is_refused_without_a_config_too():
    with pytest.raises(ArgumentError, match="norm must be one of 'none', 'all', found 'last'"):
        small(norm="last")
