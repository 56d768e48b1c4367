"""Weight normalisation and Lagrange normalisation of whole matrices, against plain networks and a loop by hand."""

import copy
from functools import partial

import pytest
import torch
from torch import nn

from ncflow.callbacks.resume import SaveForResume
from ncflow.checks import ArgumentError
from ncflow.config.schema import ConfigError
from ncflow.metrics.margins import weight_norm_product
from ncflow.models import MLP, Classifier
from ncflow.models.classifier import parameter_groups
from ncflow.models.convnet import ConvNet
from ncflow.models.init import weight_layers
from ncflow.models.losses import SquareLoss
from ncflow.models.normalization import directions, retract
from ncflow.results import CHECKPOINT, HISTORY
from ncflow.training.assembly import prepare
from tests.conftest import train_here

KINDS = ["weight", "lagrange"]
ON_DIGITS = ["data=digits", "data.classes=[1,2]", "data.max_norm=1", "model=convnet", "loss=square", "trainer=cpu"]
RECIPE = ["model.width=0.125", "model.norm=none", "model.init_norm=2", "optimizer=sgd", "epochs=4"]
OPTIMIZERS = {
    "sgd": partial(torch.optim.SGD, lr=0.05, momentum=0.9),
    "adam": partial(torch.optim.Adam, lr=0.01, fused=True),
}


def network_of(kind, normalization=None, seed=0, **options):
    torch.manual_seed(seed)
    options = {"norm": "none", "normalization": normalization, **options}
    return ConvNet((1, 8, 8), 2, width=1 / 8, **options) if kind is ConvNet else MLP((1, 8, 8), 2, width=10, **options)


def batch(count=40, seed=1):
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(count, 1, 8, 8, generator=rng), torch.randint(2, (count,), generator=rng)


def norms(network):
    return [layer.weight.detach().double().norm().item() for layer in weight_layers(network)]


def train(network, optimizer, steps, weight_decay=0.01, samples=None):
    classifier = Classifier(network, SquareLoss(targets="signs"), OPTIMIZERS[optimizer], None, weight_decay)
    made = classifier.configure_optimizers()
    for _ in range(steps):
        made.zero_grad()
        classifier.training_step(samples or batch(), 0).backward()
        made.step()
    return network


@pytest.mark.parametrize("kind", [MLP, ConvNet])
def test_weight_normalisation_keeps_the_function(kind):
    plain, normalised = network_of(kind, init_norm=3.0), network_of(kind, "weight", init_norm=3.0)
    for one, other in zip(weight_layers(plain), weight_layers(normalised), strict=True):
        torch.testing.assert_close(one.weight, other.weight)
    torch.testing.assert_close(plain(batch()[0]), normalised(batch()[0]))
    assert all(d.norm().item() == pytest.approx(1) for d in directions(normalised))


@pytest.mark.parametrize("kind", [MLP, ConvNet])
def test_lagrange_normalises_all_matrices_but_the_last(kind):
    """H.2: the norms of the others must start at 1, and init_norm is where rho starts."""
    plain, held = network_of(kind), network_of(kind, "lagrange")
    torch.testing.assert_close(held.classifier.weight, plain.classifier.weight)
    assert norms(held)[:-1] == pytest.approx([1, 1, 1], abs=1e-6)
    for one, other in zip(weight_layers(plain)[:-1], weight_layers(held), strict=False):
        torch.testing.assert_close(one.weight / one.weight.norm(), other.weight)
    assert weight_norm_product(network_of(kind, "lagrange", init_norm=5.0)).item() == pytest.approx(5, rel=1e-6)


@pytest.mark.parametrize("kind", [MLP, ConvNet])
@pytest.mark.parametrize("normalization", KINDS)
def test_rho_is_the_product_of_the_norms_of_the_matrices_that_are_applied(kind, normalization):
    network = train(network_of(kind, normalization), "adam", 20)
    expected = torch.tensor(norms(network), dtype=torch.float64).prod()
    torch.testing.assert_close(weight_norm_product(network), expected)
    unit = copy.deepcopy(network)
    scales = dict(unit.named_parameters())
    if normalization == "weight":
        for name in [name for name in scales if name.endswith("original0")]:
            scales[name].data.div_(scales[name].data.abs())
    else:
        unit.classifier.weight.data.div_(unit.classifier.weight.data.norm())
    torch.testing.assert_close(network(batch()[0]), expected.float() * unit(batch()[0]))


def test_the_length_of_a_direction_is_no_part_of_the_function():
    network = network_of(MLP, "weight")
    before = network(batch()[0])
    with torch.no_grad():
        for direction in directions(network):
            direction.mul_(7)
    torch.testing.assert_close(network(batch()[0]), before)


def test_weight_normalisation_is_pytorchs_with_one_norm_for_the_whole_matrix():
    ours = network_of(MLP, "weight")
    theirs = network_of(MLP)
    for layer in weight_layers(theirs):
        nn.utils.parametrizations.weight_norm(layer, dim=None)
        layer.parametrizations.weight.original1.data.div_(layer.weight.detach().norm())
    for network in (ours, theirs):
        optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
        for _ in range(10):
            optimizer.zero_grad()
            SquareLoss()(network(batch()[0]), batch()[1]).backward()
            optimizer.step()
    for one, other in zip(weight_layers(ours), weight_layers(theirs), strict=True):
        torch.testing.assert_close(one.weight, other.weight)


@pytest.mark.parametrize(("kind", "optimizer"), [(MLP, "sgd"), (MLP, "adam"), (ConvNet, "sgd")])
def test_lagrange_keeps_the_norms_over_a_thousand_steps(kind, optimizer):
    """What is trained is itself on the sphere, not only the matrix that is applied."""
    start = norms(network_of(kind, "lagrange"))[-1]
    network = train(network_of(kind, "lagrange"), optimizer, 1000)
    lengths = [direction.detach().double().norm().item() for direction in directions(network)]
    assert lengths == pytest.approx([1, 1, 1], abs=1e-6)
    assert norms(network)[:-1] == pytest.approx([1, 1, 1], abs=1e-6)
    assert abs(norms(network)[-1] - start) > 0.1


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_lagrange_steps_are_projected_gradient_steps_by_hand(momentum, monkeypatch):
    """Tangent gradient, momentum, step, back onto the sphere; the last matrix with weight decay, the others without."""
    samples = (batch()[0].double(), batch()[1])
    network = network_of(MLP, "lagrange").double()
    retract(network)  # in float64, too
    V = [layer.weight.detach().clone() for layer in weight_layers(network)]
    buffers = [torch.zeros_like(v) for v in V]
    monkeypatch.setitem(OPTIMIZERS, "sgd", partial(torch.optim.SGD, lr=0.05, momentum=momentum))
    train(network, "sgd", 25, weight_decay=0.3, samples=samples)
    for _ in range(25):
        leaves = [v.clone().requires_grad_() for v in V]
        h = samples[0].flatten(1)
        for v in leaves[:-1]:
            h = (h @ v.T).relu()
        targets = 2.0 * nn.functional.one_hot(samples[1], 2) - 1
        ((h @ leaves[-1].T - targets) ** 2).sum(1).mean().backward()
        for k, leaf in enumerate(leaves):
            last = k == len(V) - 1
            step = leaf.grad + 0.3 * V[k] if last else leaf.grad - (leaf.grad * V[k]).sum() * V[k]
            buffers[k] = momentum * buffers[k] + step
            V[k] = V[k] - 0.05 * buffers[k]
            if not last:
                V[k] = V[k] / V[k].norm()
    for layer, expected in zip(weight_layers(network), V, strict=True):
        torch.testing.assert_close(layer.weight, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("scope", ["all", "last_layer"])
@pytest.mark.parametrize("kind", [MLP, ConvNet])
def test_lagrange_decays_the_last_matrix_alone(kind, scope):
    network = network_of(kind, "lagrange")
    decayed, free = parameter_groups(network, 0.1, scope)
    assert [id(p) for p in decayed["params"]] == [id(network.classifier.weight)]
    assert {id(p) for p in free["params"]} == {id(p) for p in directions(network)}
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.1, 0.0)


@pytest.mark.parametrize("kind", [MLP, ConvNet])
def test_weight_normalisation_decays_norms_alone(kind):
    network = network_of(kind, "weight")
    last = network.classifier.parametrizations.weight
    decayed, free = parameter_groups(network, 0.1, "all")
    assert [p.shape for p in decayed["params"]] == [()] * 4
    assert {id(p) for p in free["params"]} == {id(p) for p in directions(network)}
    decayed, free = parameter_groups(network, 0.1, "last_layer")
    assert [id(p) for p in decayed["params"]] == [id(last.original0)]
    assert len(free["params"]) == 7


def test_biases_are_decayed_as_ever():
    decayed, free = parameter_groups(network_of(MLP, "lagrange", bias=True, classifier_bias=True), 0.1, "all")
    assert [p.ndim for p in decayed["params"]] == [1, 1, 1, 2, 1]
    assert len(free["params"]) == 3


@pytest.mark.parametrize("normalization", [None, "weight"])
def test_no_other_network_pays_for_the_retraction(normalization):
    network = network_of(MLP, normalization)
    optimizer = Classifier(network, SquareLoss(), OPTIMIZERS["sgd"]).configure_optimizers()
    assert not optimizer._optimizer_step_post_hooks
    before = copy.deepcopy(network.state_dict())
    retract(network)
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


@pytest.mark.parametrize("normalization", KINDS)
def test_weights_load_into_another_network(normalization):
    network = train(network_of(ConvNet, normalization), "sgd", 5)
    other = network_of(ConvNet, normalization, seed=1)
    other.load_state_dict(network.state_dict())
    assert torch.equal(network(batch()[0]), other(batch()[0]))


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("normalization", KINDS)
def test_an_interrupted_run_goes_on_to_the_same_bits(normalization, optimizer, config, tmp_path, monkeypatch):
    options = [*ON_DIGITS, *RECIPE, f"optimizer={optimizer}", f"model.normalization={normalization}"]
    cfg = config(*options, "data.num_samples=200", "measure.every_n_epochs=2", "weight_decay=0.01")
    train_here(cfg, tmp_path / "whole")
    save = SaveForResume.on_train_epoch_end

    def stop_after_the_second(self, trainer, pl_module):
        save(self, trainer, pl_module)
        if trainer.current_epoch == 1:
            raise RuntimeError("interrupted")

    with monkeypatch.context() as patch:
        patch.setattr(SaveForResume, "on_train_epoch_end", stop_after_the_second)
        with pytest.raises(RuntimeError, match="interrupted"):
            train_here(cfg, tmp_path / "parts")
    assert train_here(cfg, tmp_path / "parts").status == "done"
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert (whole / HISTORY).read_text() == (parts / HISTORY).read_text()
    a, b = (torch.load(folder / CHECKPOINT, weights_only=True)["state_dict"] for folder in (whole, parts))
    assert all(torch.equal(a[name], b[name]) for name in a)
    held = [value.double().norm().item() for name, value in a.items() if name.endswith("weight.original")]
    assert held == pytest.approx([1] * (3 if normalization == "lagrange" else 0), abs=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["model.normalization=lagrange", "model.norm=all"], "model.norm must be 'none' where normalization is 'lagr"),
        (
            ["model=mlp", "model.normalization=weight"],
            "model.norm must be 'none' where normalization is 'weight', which",
        ),
        (["model.normalization=batch", "model.norm=none"], "model.normalization must be"),
    ],
)
def test_impossible_options_are_refused_in_one_line(options, message, config):
    with pytest.raises(ConfigError) as error:
        prepare(config("data=digits", "model=convnet", *options))
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_an_unknown_kind_is_refused_without_a_config_too():
    with pytest.raises(ArgumentError, match="normalization must be null or one of 'weight', 'lagrange', found 'batch'"):
        network_of(MLP, "batch")
