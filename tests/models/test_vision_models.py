"""VGG, ResNet and ViT against torchvision's own, ResNet-9 against its formula, and BN where it is asked for."""

import inspect
import itertools
import math

import pytest
import torch
import torchvision
from torch import nn

from ncflow.checks import ArgumentError
from ncflow.config.schema import ConfigError
from ncflow.data.batches import Batches, Split
from ncflow.measuring.features import extract, resolve_layers
from ncflow.metrics.margins import weight_norm_product
from ncflow.models import VGG, ResNet, ResNet9, ViT
from ncflow.models.classifier import parameter_groups
from ncflow.results import HISTORY
from ncflow.training.assembly import prepare
from tests.conftest import train_here

BATCH_NORM = (nn.BatchNorm1d, nn.BatchNorm2d)
NORMS = ["none", "torchvision", "last", "all"]
OPTIONS = {
    **{f"vgg{depth}": (VGG, depth) for depth in (11, 13, 16, 19)},
    **{f"resnet{depth}": (ResNet, depth) for depth in (18, 34)},
    "vgg": (VGG, 11),
    "resnet": (ResNet, 18),
    "resnet9": (ResNet9, 9),
}
KINDS = [VGG, ResNet, ResNet9]
ON_DIGITS = ["data=digits", "data.size=32", "data.num_samples=60", "model.width=0.0625", "trainer=cpu"]


def small(kind, shape=(3, 32, 32), **options):
    torch.manual_seed(0)
    sizes = {"width": 16, "mlp_width": 24, "depth": 2} if kind is ViT else {"width": 1 / 16}
    return kind(shape, 10, **{**sizes, **options})


def images(count=4, channels=3):
    return torch.randn(count, channels, 32, 32, generator=torch.Generator().manual_seed(0))


def count(network, kinds):
    return sum(isinstance(module, kinds) for module in network.modules())


def assert_same_tensors(one, other):
    pairs = list(zip(one.state_dict().values(), other.state_dict().values(), strict=True))
    assert all(torch.equal(a, b) for a, b in pairs)


def assert_same_outputs(one, other):
    """In both modes, Dropout drawing the same numbers, and with the running statistics that training leaves."""
    for training in (True, False):
        outputs = []
        for network in (one.train(training), other.train(training)):
            torch.manual_seed(1)
            outputs.append(network(images()).detach())
        assert torch.equal(*outputs)
    assert_same_tensors(one, other)


@pytest.mark.parametrize(
    ("kind", "options", "theirs"),
    [
        (VGG, dict(depth=11), torchvision.models.vgg11_bn),
        (ResNet, dict(depth=18, stem="7x7", norm="torchvision"), torchvision.models.resnet18),
        (ResNet, dict(depth=34, stem="7x7", norm="torchvision"), torchvision.models.resnet34),
    ],
    ids=["vgg11_bn", "resnet18", "resnet34"],
)
def test_the_same_seed_gives_torchvisions_own(kind, options, theirs):
    torch.manual_seed(0)
    network = kind((3, 32, 32), 10, **options)
    torch.manual_seed(0)
    reference = theirs(num_classes=10)
    assert_same_tensors(network, reference)
    assert_same_outputs(network, reference)


@pytest.mark.parametrize(
    ("options", "theirs"),
    [(dict(depth=11, norm="none"), torchvision.models.vgg11), (dict(depth=19), torchvision.models.vgg19_bn)],
    ids=["vgg11", "vgg19_bn"],
)
def test_torchvisions_weights_give_its_outputs(options, theirs):
    """Without initialising 130 million weights twice."""
    reference = theirs(num_classes=10, init_weights=False)
    with torch.device("meta"):
        network = VGG((3, 32, 32), 10, **options)
    pairs = zip(network.state_dict(), reference.state_dict().values(), strict=True)
    network.load_state_dict({name: value.clone() for name, value in pairs}, assign=True)
    assert_same_outputs(network, reference)


def test_the_9_layers_of_resnet9():
    """Written out, with the running statistics that training leaves."""
    network = small(ResNet9)
    network(images(16))
    layers = [module for module in network.eval().modules() if isinstance(module, nn.Conv2d | nn.BatchNorm2d)]
    pairs = iter(zip(layers[::2], layers[1::2], strict=True))

    def convolved(h):
        convolution, norm = next(pairs)
        h = nn.functional.conv2d(h, convolution.weight, padding=1)
        shifted = (h - norm.running_mean[:, None, None]) / (norm.running_var[:, None, None] + 1e-5).sqrt()
        return (norm.weight[:, None, None] * shifted + norm.bias[:, None, None]).relu()

    h = nn.functional.max_pool2d(convolved(convolved(images())), 2)
    h = h + convolved(convolved(h))
    h = nn.functional.max_pool2d(convolved(h), 2)
    h = nn.functional.max_pool2d(convolved(h), 2)
    h = h + convolved(convolved(h))
    expected = h.amax((2, 3)) @ network.classifier.weight.T + network.classifier.bias
    torch.testing.assert_close(network(images()), expected)
    assert [m.out_channels for m in ResNet9((3, 32, 32), 10).modules() if isinstance(m, nn.Conv2d)] == [
        *(64, 128, 128, 128, 256, 512, 512, 512)
    ]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("norm", ["none", "last"])
def test_vit_classifies_the_class_token_of_torchvisions_own(norm, channels):
    network = small(ViT, (channels, 32, 32), norm=norm)
    torch.manual_seed(0)
    reference = torchvision.models.VisionTransformer(32, 4, 2, 8, 16, 24, num_classes=10)
    reference.heads = nn.Identity()
    if channels == 3:
        assert_same_tensors(network.vit, reference)
    else:
        assert_same_tensors(network.vit.encoder, reference.encoder)
        assert network.vit.conv_proj.weight.std().item() == pytest.approx(1 / 4, rel=0.1)  # of 4 x 4 numbers
        reference.conv_proj = network.vit.conv_proj
    token = reference.eval()(images(channels=channels))
    network(images(64, channels))  # moves the running statistics
    network.eval()
    feature = network.feature[0](token) if norm == "last" else token
    torch.testing.assert_close(network(images(channels=channels)), network.classifier(feature))
    assert network.last_norm is (network.feature[0] if norm == "last" else network.vit.encoder.ln)
    if norm == "none":
        torch.testing.assert_close(token.std(1, unbiased=False), torch.ones(4), atol=1e-3, rtol=0)
    batches = Batches(Split(images(channels=channels), torch.zeros(4, dtype=torch.long)), None)
    layers = [*resolve_layers(network, "all"), "feature"]
    (batch,) = extract(network, batches, layers)
    torch.testing.assert_close(batch.features["last"], feature)
    assert torch.equal(batch.features["feature"], batch.features["last"])
    assert [batch.features[name].shape for name in layers[:2]] == [(4, 65 * 16)] * 2


def test_rho_of_a_transformer_counts_its_attention():
    network = small(ViT)
    tables = ("token", "embedding")
    matrices = [p for name, p in network.named_parameters() if p.ndim >= 2 and not name.endswith(tables)]
    assert len(matrices) == 2 + 2 * 4
    expected = torch.stack([matrix.detach().double().norm() for matrix in matrices]).prod()
    torch.testing.assert_close(weight_norm_product(network), expected)


def test_vit_is_what_its_config_says_and_trains(config, tmp_path):
    assert {**config("model=vit").model} == {
        **{p.name: p.default for p in inspect.signature(ViT).parameters.values() if p.kind is p.KEYWORD_ONLY},
        "name": "vit",
        "_target_": "ncflow.models.vit.ViT",
    }
    options = ["model=vit", "data=digits32", "data.num_samples=60", "model.width=16", "model.depth=1", "trainer=cpu"]
    outcome = train_here(config(*options, "epochs=2", "measure.layers=all", "batch_size=30"), tmp_path)
    assert outcome.status == "done"
    assert "encoder_layer_0" in (tmp_path / HISTORY).read_text()
    # The LayerNorm before the classifier is no BN: the optimum for BN is not its own.
    assert math.isnan(outcome.values["train/regularized_loss_gap"])
    assert math.isfinite(outcome.values["train/gamma_norm"])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("norm", NORMS)
def test_bn_is_where_it_is_asked_for(kind, norm):
    network = small(kind, norm=norm)
    inner, last = norm in ("torchvision", "all"), norm in ("last", "all")
    assert count(network, nn.BatchNorm2d) == inner * {VGG: 8, ResNet: 20, ResNet9: 8}[kind]
    assert count(network, nn.BatchNorm1d) == last
    end = network.hidden[-1] if kind is VGG else network.feature
    ends = {VGG: [nn.Linear, nn.ReLU, nn.Dropout], ResNet: [nn.AdaptiveAvgPool2d, nn.Flatten]}
    kinds = ends.get(kind, [nn.AdaptiveMaxPool2d, nn.Flatten])
    assert [type(layer) for layer in end] == [*kinds, *([nn.BatchNorm1d] if last else [])]
    assert network.last_norm is (end[-1] if last else None)


@pytest.mark.parametrize("depth", [11, 19])
def test_inner_bn_of_vgg_is_between_convolution_and_relu(depth):
    for stage in small(VGG, depth=depth, norm="all").stages:
        kinds = [type(layer) for layer in stage]
        assert kinds == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU] * (len(kinds) // 3) + [nn.MaxPool2d]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("norm", "gamma"), itertools.product(["last", "all"], [None, -0.3]))
def test_the_classifier_reads_what_bn_gives(kind, norm, gamma):
    network = small(kind, norm=norm, gamma=gamma)
    network.last_norm.eps = 1e-20  # beside eps, the little variance of a small network at its start is not 1
    seen = []
    network.classifier.register_forward_hook(lambda module, args, output: seen.append(args[0]))
    network(images(64))
    alive = seen[0].std(0) > 0
    assert alive.float().mean() > 0.5
    features = seen[0][:, alive]
    torch.testing.assert_close(features.mean(0), torch.zeros(len(features.T)), atol=1e-5, rtol=0)
    expected = torch.full_like(features[0], 1.0 if gamma is None else abs(gamma))
    torch.testing.assert_close(features.std(0, unbiased=False), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_options_of_the_bn_before_the_classifier(kind):
    def trained(**options):
        return {name for name, p in small(kind, norm="last", **options).last_norm.named_parameters() if p.requires_grad}

    assert trained() == {"weight"}
    assert trained(norm_bias=True) == {"weight", "bias"}
    assert trained(gamma=0.5) == trained(gamma=1.0, affine=False) == set()


@pytest.mark.parametrize("option", OPTIONS)
def test_every_depth_runs_on_small_images_and_has_its_number_of_weight_matrices(option):
    kind, depth = OPTIONS[option]
    network = small(kind, **({} if kind is ResNet9 else {"depth": depth}))
    assert network(images(2)).shape == (2, 10)
    shortcuts = sum(name.endswith("downsample.0") for name, _ in network.named_modules())
    assert count(network, (nn.Conv2d, nn.Linear)) - shortcuts == depth


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_any_number_of_channels(kind, channels):
    network = small(kind, (channels, 32, 32))
    first = next(module for module in network.modules() if isinstance(module, nn.Conv2d))
    assert first.in_channels == channels
    assert network(images(2, channels)).shape == (2, 10)
    fan_out = first.out_channels * first.kernel_size[0] ** 2 if kind is not ResNet9 else 6 * 9 * channels
    assert first.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.4)


def test_a_first_convolution_of_one_channel_is_initialised_as_torchvisions():
    convolution = small(VGG, (1, 32, 32), width=1.0, hidden=8, pool=1).stages[0][0]
    assert convolution.bias.tolist() == [0.0] * 64
    assert convolution.weight.std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.1)


def test_other_sizes_of_images():
    assert small(VGG, (3, 64, 48))(torch.randn(2, 3, 64, 48)).shape == (2, 10)
    assert small(ResNet, (1, 8, 8))(torch.randn(2, 1, 8, 8)).shape == (2, 10)
    assert small(ResNet, stem="7x7").stages[0](torch.randn(2, 4, 8, 8)).shape == (2, 4, 8, 8)


@pytest.mark.parametrize(("width", "channels"), [(0.125, [8, 16, 32, 64]), (0.02, [1, 3, 5, 10]), (1e-4, [1] * 4)])
def test_width_scales_every_layer(width, channels):
    vgg, resnet = small(VGG, width=width, hidden=80), small(ResNet, width=width)
    for network in (vgg, resnet, small(ResNet9, width=width)):
        found = {module.out_channels for module in network.modules() if isinstance(module, nn.Conv2d)}
        assert sorted(found) == sorted(set(channels))
    hidden = max(1, round(80 * width))
    shapes = [tuple(layer[0].weight.shape) for layer in vgg.hidden]
    assert shapes == [(hidden, channels[-1] * 49), (hidden, hidden)]
    assert (vgg.classifier.in_features, resnet.classifier.in_features) == (hidden, channels[-1])


def test_the_stem_of_small_images_keeps_their_size():
    assert small(ResNet).stem(images()).shape[2:] == (32, 32)
    assert small(ResNet, stem="7x7").stem(images()).shape[2:] == (8, 8)


def test_pooling_to_seven_repeats_the_one_position_of_a_small_image():
    network = small(VGG).eval()
    features = network.pool(network.stages(images())).unflatten(1, (-1, 49))
    assert torch.equal(features, features[..., :1].expand_as(features))
    single = small(VGG, pool=1)
    assert single.hidden[0][0].in_features == features.shape[1]
    copies = network.hidden[0][0].weight.unflatten(1, (-1, 49)).sum(2)
    assert single.hidden[0][0].weight.std().item() == pytest.approx(copies.std().item(), rel=0.05)


@pytest.mark.parametrize("norm", ["torchvision", "last"])
def test_vgg_without_hidden_layers_classifies_what_its_convolutions_give(norm):
    network = small(VGG, hidden=0, pool=1, norm=norm)
    network(images(16))
    features = network.eval().stages(images()).flatten(1)
    assert features.shape == (4, 32)
    features = network.last_norm(features) if norm == "last" else features
    torch.testing.assert_close(network(images()), network.classifier(features))
    assert network.layer_names[-2:] == ["stages.4", "hidden.0"]


def test_flags():
    for kind in KINDS:
        assert small(kind).classifier.bias is not None
        assert small(kind, classifier_bias=False).classifier.bias is None
    assert [m.p for m in small(VGG).modules() if isinstance(m, nn.Dropout)] == [0.5, 0.5]
    network = small(VGG, dropout=0.0, norm="none")
    assert torch.equal(network(images()), network.eval()(images()))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("norm", NORMS)
def test_gradients_reach_every_parameter(kind, norm):
    network = small(kind, norm=norm, norm_bias=norm in ("last", "all"))
    nn.functional.cross_entropy(network(images(16)), torch.arange(16) % 10).backward()
    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("norm", NORMS)
def test_every_listed_layer_is_measured_and_the_last_is_the_classifiers_input(kind, norm):
    network = small(kind, norm=norm)
    network(images(16))
    expected = {}
    h = network.eval().stem(images()) if kind is ResNet else images()
    for index, stage in enumerate(network.eval().stages):
        h = expected[f"stages.{index}"] = stage(h)
    if kind is VGG:
        h = expected["hidden.0"] = network.hidden[0](network.pool(h))
    expected["last"] = network.hidden[1](h) if kind is VGG else network.feature(h)
    layers = resolve_layers(network, "all")
    assert layers == list(expected)
    listed = network.layer_names[-1]
    batches = Batches(Split(images(), torch.zeros(4, dtype=torch.long)), None)
    (batch,) = extract(network.train(), batches, [*layers, listed])
    for name in layers:
        torch.testing.assert_close(batch.features[name], expected[name].flatten(1))
    assert torch.equal(batch.features[listed], batch.features["last"])
    torch.testing.assert_close(network.classifier(batch.features["last"]), batch.logits)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("norm", NORMS)
def test_last_layer_weight_decay_is_of_the_classifier_and_the_bn_before_it(kind, norm):
    network = small(kind, norm=norm)
    decayed, free = parameter_groups(network, 0.1, "last_layer")
    heads = [network.classifier, *([network.last_norm] if norm in ("last", "all") else [])]
    assert {id(p) for p in decayed["params"]} == {id(p) for head in heads for p in head.parameters()}
    assert len(decayed["params"]) + len(free["params"]) == len(list(network.parameters()))


@pytest.mark.parametrize(
    ("kind", "shape", "options", "message"),
    [
        (VGG, (64,), {}, r"input_shape must be \(channels, height, width\), both sides at least 32 .*found \(64,\)"),
        (VGG, (1, 8, 8), {}, r"input_shape must be .*five poolings, found \(1, 8, 8\)"),
        (VGG, (3, 32, 31), {}, r"input_shape must be .*found \(3, 32, 31\)"),
        (ResNet, (16,), {}, r"input_shape must be \(channels, height, width\), found \(16,\)"),
        (VGG, None, {"depth": 18}, "depth must be one of 11, 13, 16, 19, found 18"),
        (ResNet, None, {"depth": 50}, "depth must be one of 18, 34, found 50"),
        (VGG, None, {"width": 0}, "width must be a number greater than 0, found 0"),
        (ResNet, None, {"width": float("nan")}, "width must be a number greater than 0, found nan"),
        (VGG, None, {"hidden": -1}, "hidden must be at least 0, found -1"),
        (VGG, None, {"pool": 2}, "pool must be 1 or 7"),
        (VGG, None, {"dropout": 1.0}, r"dropout must be in \[0, 1\)"),
        (ResNet, None, {"stem": "5x5"}, "stem must be '3x3' or '7x7'"),
        (VGG, None, {"norm": "first"}, "norm must be one of 'none', 'torchvision', 'last', 'all', found 'first'"),
        (VGG, None, {"gamma": 0.1}, "gamma must be null where norm is 'torchvision': there is no BN before the class"),
        (VGG, None, {"norm_bias": True}, "norm_bias must be false where norm is 'torchvision'"),
        (ResNet, None, {"norm": "torchvision", "affine": False}, "affine must be true where norm is 'torchvision'"),
        (ResNet, None, {"norm": "none", "gamma": 0.1}, "gamma must be null where norm is 'none': there is no BN"),
        (ResNet, None, {"affine": False}, "gamma must be a number where affine is false"),
        (ResNet9, (3, 32, 7), {}, r"input_shape must be .* at least 8 for three poolings, found \(3, 32, 7\)"),
        (ResNet9, None, {"width": -1}, "width must be a number greater than 0, found -1"),
        (ResNet9, None, {"gamma": 0.1}, "gamma must be null where norm is 'torchvision'"),
        (ViT, None, {"norm": "all"}, "norm must be one of 'none', 'last', found 'all'"),
        (ViT, None, {"gamma": 0.1}, "gamma must be null where norm is 'none': there is no BN"),
        (ViT, None, {"width": 20}, "width must be a multiple of heads=8, found 20"),
        (ViT, None, {"depth": 0}, "depth must be at least 1, found 0"),
        (ViT, None, {"dropout": 1.0}, r"dropout must be in \[0, 1\), found 1.0"),
        (ViT, (3, 32, 16), {}, r"input_shape must be \(channels, side, side\), .*patch=4, found \(3, 32, 16\)"),
        (ViT, None, {"patch": 5}, "input_shape must be .* a multiple of patch=5"),
    ],
)
def test_impossible_options_are_refused(kind, shape, options, message):
    with pytest.raises(ArgumentError, match=message) as error:
        small(kind, shape or (3, 32, 32), **options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_of_the_config_builds_and_states_the_defaults(option, config):
    kind, depth = OPTIONS[option]
    cfg = config(f"model={option}")
    defaults = {
        name: parameter.default
        for name, parameter in inspect.signature(kind).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }
    stated = {str(name): value for name, value in cfg.model.items() if name != "_target_"}
    assert stated == {**defaults, "name": option, **({} if kind is ResNet9 else {"depth": depth})}
    data, classifier = prepare(config(f"model={option}", *ON_DIGITS))
    assert type(classifier.network) is kind
    assert classifier(data.train.inputs[:3]).shape == (3, 10)


def test_images_that_are_too_small_are_refused_in_one_line(config):
    with pytest.raises(ConfigError, match=r"^model.input_shape must be .* found \(1, 8, 8\)$"):
        prepare(config("model=vgg11", "data=digits"))


@pytest.mark.parametrize("model", ["vgg11", "resnet18", "resnet9"])
def test_a_run_measures_every_layer(model, config, tmp_path):
    cfg = config(f"model={model}", *ON_DIGITS, "epochs=2", "measure.layers=all", "model.norm=all", "batch_size=30")
    outcome = train_here(cfg, tmp_path)
    assert outcome.status == "done"
    assert "stages.0" in (tmp_path / HISTORY).read_text()


def test_mixed_precision_and_channels_last_train_and_measure_in_float32(config, tmp_path):
    """The measures of a bf16-mixed run are those of its float32 weights, whatever the memory layout."""
    from ncflow.metrics import neural_collapse

    options = ["data=digits32", "data.num_samples=200", "model=vgg11", "model.width=0.0625", "epochs=2", "trainer=cpu"]
    cfg = config(*options, "trainer.precision=bf16-mixed", "trainer.channels_last=true")
    outcome = train_here(cfg, tmp_path)
    data, classifier = prepare(cfg)
    weights = torch.load(tmp_path / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    assert weights["network.stages.0.0.weight"].dtype == torch.float32
    classifier.load_state_dict(weights)
    network = classifier.network.eval()
    with torch.no_grad():
        H = network.hidden(network.pool(network.stages(data.train.inputs)))
    measures = neural_collapse(H, data.train.labels, 10, network.classifier.weight, network.classifier.bias)
    for name in ("intra_min", "inter_max", "nc1", "nc3_cosine_min"):
        assert outcome.values[f"train/{name}"] == pytest.approx(measures[name].item(), rel=1e-3, abs=1e-4), name
