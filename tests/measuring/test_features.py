import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from ncflow.checks import ArgumentError
from ncflow.measuring.features import extract, frozen, resolve_layers
from ncflow.models.mlp import MLP

X, Y = torch.randn(37, 4), torch.randint(3, (37,))
LOADER = DataLoader(TensorDataset(X, Y), batch_size=10)


def network():
    torch.manual_seed(0)
    net = MLP((4,), 3, depth=4, width=6)
    with torch.no_grad():
        net(torch.randn(100, 4) * 3)  # running statistics that are not the batch's
    return net


def test_last_is_the_input_of_the_classifier_in_evaluation_mode():
    net = network()
    batches = list(extract(net, LOADER))
    features = torch.cat([batch.features["last"] for batch in batches])
    net.eval()
    with torch.no_grad():
        torch.testing.assert_close(features, net.layers(X))
        torch.testing.assert_close(torch.cat([b.logits for b in batches]), net(X))
    assert torch.equal(torch.cat([b.labels for b in batches]), Y)


def test_several_layers_in_one_pass():
    net = network()
    names = resolve_layers(net, "all")
    assert names == ["layers.0", "layers.1", "last"]
    batch = next(iter(extract(net, LOADER, [*names, "layers.2"])))
    assert torch.equal(batch.features["layers.2"], batch.features["last"])
    with torch.no_grad():
        assert torch.equal(batch.features["layers.0"], torch.relu(net.layers[0][0](X[:10])))


def test_images_are_flattened():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(2 * 36, 3))
    loader = [(torch.randn(5, 1, 8, 8), torch.zeros(5, dtype=torch.long))]
    assert next(iter(extract(net, loader, ["0", "last"]))).features["0"].shape == (5, 72)


def test_frozen_leaves_modes_gradients_and_random_states_alone():
    net = network()
    net.train()
    net.layers[2][2].eval()
    modes = [module.training for module in net.modules()]
    state = {key: value.clone() for key, value in net.state_dict().items()}
    random = torch.get_rng_state()
    with frozen(net):
        assert not any(module.training for module in net.modules())
        assert not torch.is_grad_enabled()
        torch.randn(3)
        net(X)
    assert [module.training for module in net.modules()] == modes
    assert torch.is_grad_enabled()
    assert torch.equal(random, torch.get_rng_state())
    assert all(torch.equal(value, state[key]) for key, value in net.state_dict().items())


def test_hooks_are_gone_also_after_an_error():
    net = network()
    with pytest.raises(ArgumentError, match=r"loader must give \(inputs, labels\).*found Tensor"):
        list(extract(net, [X]))
    assert all(not module._forward_hooks for module in net.modules())
    assert net.training


@pytest.mark.parametrize("layers", ["layers.9", ["last", "nope"], ["last", "last"], []])
def test_layers_that_do_not_exist_are_refused(layers):
    with pytest.raises(ArgumentError, match="layers must be"):
        resolve_layers(network(), layers)


def test_a_model_that_goes_on_after_its_last_linear_must_name_its_classifier():
    net = nn.Sequential(nn.Linear(4, 3), nn.LogSoftmax(1))
    with pytest.raises(ArgumentError, match="classifier must be named"):
        list(extract(net, LOADER))
    assert torch.equal(next(iter(extract(net, LOADER, classifier="0"))).features["last"], X[:10])


def test_a_diverged_model_is_still_read():
    net = network()
    nn.init.constant_(net.classifier.weight, float("nan"))
    assert torch.cat([b.logits for b in extract(net, LOADER)]).isnan().all()


def test_inputs_take_the_precision_of_the_model():
    net = network().double()
    features = torch.cat([batch.features["last"] for batch in extract(net, LOADER)])
    assert features.dtype == torch.float64
    net.eval()
    with torch.no_grad():
        torch.testing.assert_close(features, net.layers(X.double()), rtol=1e-12, atol=1e-12)
