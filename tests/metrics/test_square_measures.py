"""rho, normalised margins and quasi-interpolation against naive formulas and closed forms."""

import json
import math

import numpy as np
import pytest
import torch
from torch import nn

from ncflow.callbacks import NeuralCollapseCallback
from ncflow.metrics.margins import folded_weight_norm_product, weight_norm_product
from ncflow.metrics.quasi_interpolation import classifier_residuals, fitted_gap, output_sums
from ncflow.models.convnet import ConvNet
from ncflow.models.mlp import MLP
from ncflow.models.resnet import ResNet
from ncflow.models.vgg import VGG
from tests.conftest import run_folder


def warmed(network, shape):
    """Running statistics that are not 0 and 1, and a gamma that is not 1."""
    torch.manual_seed(1)
    network = network.double()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) and module.weight is not None:
            nn.init.uniform_(module.weight, 0.5, 2)
    with torch.no_grad():
        for _ in range(3):
            network.train()(3 * torch.randn(20, *shape, dtype=torch.float64))
    return network.eval()


@pytest.mark.parametrize(
    ("network", "shape"),
    [
        (MLP((6,), 3, depth=4, width=5, norm="all"), (6,)),
        (MLP((6,), 3, depth=4, width=5, norm="last"), (6,)),
        (ConvNet((2, 8, 8), 3, width=0.1, norm="all"), (2, 8, 8)),
        (ConvNet((2, 32, 32), 3, width=0.1, norm="all", affine=True, pool=False), (2, 32, 32)),
        (VGG((1, 32, 32), 3, width=0.05, hidden=64, norm="torchvision"), (1, 32, 32)),
        (VGG((1, 32, 32), 3, width=0.05, hidden=64, norm="all"), (1, 32, 32)),
    ],
)
def test_folded_norms_are_those_of_a_network_without_bn_that_computes_the_same(network, shape):
    """Folding: scale the folded weights by one number each; the scales' product moves rho and nothing else."""
    network = warmed(network, shape)
    folded = folded_weight_norm_product(network).item()
    matrices = [m for m in network.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    # An independent fold, done on the weights themselves, after which every BN has scale 1.
    expected, waiting = 1.0, None
    leaves = [m for m in network.modules() if not list(m.children())]
    for index, module in enumerate(leaves):
        if isinstance(module, nn.Linear | nn.Conv2d):
            weight = module.weight.detach().clone()
            if waiting is not None:
                channels = len(waiting)
                flat = weight.flatten(1).reshape(len(weight), channels, -1)
                weight = (flat * waiting[None, :, None]).reshape(weight.shape)
            following = leaves[index + 1] if index + 1 < len(leaves) else None
            if isinstance(following, nn.BatchNorm1d | nn.BatchNorm2d):
                gamma = 1 if following.weight is None else following.weight.detach()
                scale = gamma / torch.sqrt(following.running_var + following.eps)
                weight = weight * scale.reshape(-1, *[1] * (weight.ndim - 1))
            waiting = None
            expected *= weight.norm().item()
        elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) and not isinstance(
            leaves[index - 1], nn.Linear | nn.Conv2d
        ):
            gamma = 1 if module.weight is None else module.weight.detach()
            waiting = gamma / torch.sqrt(module.running_var + module.eps)
    assert folded == pytest.approx(expected, rel=1e-10)
    assert len(matrices) >= 4
    assert folded != pytest.approx(weight_norm_product(network).item(), rel=1e-3)


def test_without_bn_the_folded_product_is_rho_and_of_other_networks_nan():
    network = MLP((6,), 3, depth=3, width=5, norm="none")
    assert folded_weight_norm_product(network) == weight_norm_product(network)
    assert math.isnan(folded_weight_norm_product(ResNet((1, 32, 32), 3, width=0.05)))
    assert math.isnan(folded_weight_norm_product(nn.Linear(2, 2)))


@pytest.mark.parametrize("seed", range(5))
def test_without_bn_and_biases_normalised_margins_are_those_of_unit_weights(seed):
    """Output = rho f exactly, f having weight matrices of norm 1 (CBMM Memo 117, section 3.3)."""
    torch.manual_seed(seed)
    network = MLP((6,), 3, depth=4, width=8, norm="none").double()
    x = torch.randn(40, 6, dtype=torch.float64)
    rho, outputs = weight_norm_product(network), network(x)
    for layer in network.modules():
        if isinstance(layer, nn.Linear):
            layer.weight.data /= layer.weight.norm()
    torch.testing.assert_close(rho * network(x), outputs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("classes", "signs"), [(2, False), (5, False), (2, True)])
def test_fitted_gap_is_the_least_squares_one(classes, signs):
    rng = torch.Generator().manual_seed(0)
    labels = torch.randint(classes, (60,), generator=rng)
    ideal = torch.full((60, classes), 0.1 / (classes - 1), dtype=torch.float64)
    ideal[torch.arange(60), labels] = 0.9
    outputs = ideal + 0.05 * torch.randn(60, classes, generator=rng, dtype=torch.float64)
    logits = 2 * outputs - 1 if signs else outputs
    sums = output_sums(logits[:25], labels[:25], signs) + output_sums(logits[25:], labels[25:], signs)
    gap, spread = fitted_gap(sums, classes)
    y = nn.functional.one_hot(labels, classes).double()
    direction = (1 - y) / (classes - 1) - y  # outputs = y + e direction
    expected = np.linalg.lstsq(direction.reshape(-1, 1).numpy(), (outputs - y).reshape(-1).numpy(), rcond=None)[0][0]
    assert gap.item() == pytest.approx(expected, rel=1e-10)
    rest = outputs - y - gap * direction
    assert spread.item() == pytest.approx(rest.square().mean().sqrt().item(), rel=1e-8)


def test_residuals_vanish_where_the_equations_hold_and_nowhere_else():
    torch.manual_seed(0)
    C, decay, gap = 4, 0.01, torch.tensor(0.08, dtype=torch.float64)
    simplex = torch.linalg.qr(torch.randn(7, 7, dtype=torch.float64))[0][:, :C].T
    simplex = simplex - simplex.mean(0)
    norm = 2 / (C * decay) * (gap - C / (C - 1) * gap**2)
    W = simplex / simplex.norm(dim=1, keepdim=True) * norm.sqrt()
    means = W * decay * (C - 1) / (2 * gap)
    assert max(map(float, classifier_residuals(gap, W, means, decay))) < 1e-12
    assert classifier_residuals(gap, W, 2 * means, decay)[0] > 0.5
    assert classifier_residuals(gap, 2 * W, means, decay)[1] > 0.5


FREE = ["model=unconstrained", "data=sample_index", "scheduler=constant", "trainer.precision=64-true", "trainer=cpu"]
FREE += ["weight_decay_scope=last_layer", "batch_size=null", "optimizer=sgd", "optimizer.lr=0.3", "epochs=700"]
FREE += ["model.dim=8", "measure.every_n_epochs=1000"]


def free_features(ncflow, tmp_path, *options):
    done = ncflow(*FREE, "model.norm=none", "loss=square", *options)
    assert done.returncode == 0, done.stderr
    return json.loads((run_folder(tmp_path) / "result.json").read_text())


def test_free_features_under_square_loss_reach_the_closed_form_and_quasi_interpolation(ncflow, tmp_path):
    """Two linear layers, targets +-1: singular values are cut by the decay, eq. 33 and 34 hold."""
    decay = 0.05
    options = ["loss.targets=signs", f"weight_decay={decay}"]
    result = free_features(ncflow, tmp_path, "data.num_classes=2", "data.num_samples=20", *options)
    # Least of (1/N) |Y - W H|^2 + decay/2 (|H|^2/N + |W|^2): Y has one singular value, 2 sqrt(N)/sqrt(2), cut by
    # decay sqrt(N)/2, so that every output is (1 - c) times its target, c = decay/(2 sqrt(2)).
    cut = decay / (2 * math.sqrt(2))
    assert result["train/quasi_gap"] == pytest.approx(cut / 2, rel=1e-9)  # of (1 + f)/2
    assert result["train/quasi_spread"] < 1e-6
    assert result["train/quasi_residual_means"] < 1e-9
    assert result["train/quasi_residual_norms"] < 1e-9
    assert result["train/nc1"] < 1e-6
    assert result["train/inter_max"] == pytest.approx(-1, abs=1e-6)


def test_one_hot_targets_without_bias_cannot_quasi_interpolate(ncflow, tmp_path):
    """The memo's assumption and its eq. 33 exclude one another there: outputs settle at 1 - e and 0."""
    decay, C = 0.02, 4
    options = [f"weight_decay={decay}"]
    result = free_features(ncflow, tmp_path, f"data.num_classes={C}", "data.num_samples=40", *options)
    cut = decay * math.sqrt(C) / 2  # Y has C singular values sqrt(N/C), each cut by decay sqrt(N)/2
    assert result["train/loss"] == pytest.approx(cut**2, rel=1e-9)
    assert result["train/quasi_spread"] > 0.2 * cut
    assert result["train/quasi_residual_means"] > 0.1


def test_measures_of_a_module_that_is_not_ours():
    from tests.callbacks.test_collapse import gap_rows

    row, *_ = gap_rows(NeuralCollapseCallback(1))
    assert row["normalized_margin_mean"] == pytest.approx(row["margin_mean"] / row["rho"])
    M = row["normalized_margin_mean"] ** 2 + row["normalized_margin_std"] ** 2
    assert row["normalized_margin_square"] == pytest.approx(M)
    assert math.isnan(row["rho_folded"])
    assert "quasi_gap" not in row
