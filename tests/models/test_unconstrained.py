import json
import math

import pytest
import torch
from torch import nn

from ncflow.checks import ArgumentError
from ncflow.config.schema import ConfigError
from ncflow.data.synthetic import SampleIndex
from ncflow.models.classifier import parameter_groups
from ncflow.models.unconstrained import Unconstrained
from ncflow.theory.given_shares import optimum
from ncflow.theory.layer_peeled import minimum_regularized_loss
from ncflow.training.assembly import prepare
from tests.conftest import run_folder

CASES = [
    (4, 5e-3, "last", ["data.num_samples=40", "model.dim=16", "epochs=2000"]),
    (4, 5e-3, "none", ["data.num_samples=40", "model.dim=16", "epochs=2000"]),
    (10, 5e-4, "last", ["data.num_samples=40", "model.dim=16", "epochs=2000"]),
    (100, 1e-4, "last", ["data.num_samples=200", "model.dim=128", "epochs=6000"]),
]


@pytest.mark.parametrize(("classes", "decay", "norm", "size"), CASES)
def test_training_reaches_the_least_regularised_loss_and_collapse(ncflow, tmp_path, classes, decay, norm, size):
    """The ground truth of the theory, through the whole of the program."""
    options = [f"data.num_classes={classes}", f"weight_decay={decay}", f"model.norm={norm}", *size]
    done = ncflow(
        "experiment=pan_cao/layer_peeled",
        "hydra.mode=RUN",
        "seed=0",
        "trainer=cpu",
        "measure.every_n_epochs=1000",
        *options,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads((run_folder(tmp_path) / "result.json").read_text())
    least = minimum_regularized_loss(classes, decay)
    assert result["train/regularized_loss"] == pytest.approx(least, rel=1e-6)
    assert abs(result["train/regularized_loss_gap"]) < 1e-6 * least
    assert abs(result["train/loss_gap"]) < 1e-6 * least
    limits = {"intra_min": 1, "intra_mean": 1, "inter_max": -1 / (classes - 1), "nc3_cosine_min": 1}
    for name, limit in limits.items():
        assert result[f"train/{name}"] == pytest.approx(limit, abs=1e-4), name
    if norm == "last":  # Lemma C.4
        assert result["train/feature_rms_norm"] == pytest.approx(result["train/gamma_norm"], rel=1e-9)


@pytest.mark.parametrize(("norm", "form"), [("last", "centred"), ("none", "free")])
def test_training_on_unequal_classes_reaches_the_optimum_for_their_shares(ncflow, tmp_path, norm, form):
    options = [
        "experiment=pan_cao/layer_peeled",
        "hydra.mode=RUN",
        "seed=0",
        "trainer=cpu",
        "measure.every_n_epochs=1000",
        "data.random_labels=1",
        "weight_decay=5e-3",
        "epochs=2500",
        f"model.norm={norm}",
    ]
    done = ncflow(*options)
    assert done.returncode == 0, done.stderr
    result = json.loads((run_folder(tmp_path) / "result.json").read_text())
    data = SampleIndex(random_labels=1.0, seed=0)
    data.setup()
    counts = torch.bincount(data.train.labels).tolist()
    assert len(set(counts)) > 1
    best = optimum(counts, 5e-3, form)
    assert result["train/regularized_loss"] == pytest.approx(best.regularized_loss, rel=1e-6)
    assert abs(result["train/regularized_loss_gap"]) < 1e-6 * best.regularized_loss
    assert abs(result["train/loss_gap"]) < 1e-6 * best.regularized_loss
    assert result["train/inter_max"] == pytest.approx(best.inter_max, abs=1e-4)
    assert result["train/inter_mean"] == pytest.approx(best.inter_mean, abs=1e-4)
    assert result["train/intra_min"] == pytest.approx(1, abs=1e-4)


def test_batch_norm_is_over_all_samples_whatever_the_batch_and_mode():
    torch.manual_seed(0)
    network = Unconstrained((1,), 4, 40, dim=6, gamma=0.5).double()
    every, few = torch.arange(40)[:, None], torch.tensor([[7], [3]])
    H = math.sqrt(40) * network.features.weight
    expected = 0.5 * (H - H.mean(0)) / H.std(0, unbiased=False) @ network.classifier.weight.T
    for mode in (True, False):
        network.train(mode)
        torch.testing.assert_close(network(every), expected)
        torch.testing.assert_close(network(few), expected[[7, 3]])


@pytest.mark.parametrize("norm", ["last", "none"])
def test_penalty_of_the_last_layer_scope_is_that_of_equation_2(norm):
    network = Unconstrained((1,), 4, 40, dim=6, norm=norm)
    H = math.sqrt(40) * network.features.weight
    scale = network.last_norm.weight.square().sum() if norm == "last" else H.square().sum(1).mean()
    decayed = parameter_groups(network, 0.1, "last_layer")[0]["params"]
    penalty = sum(parameter.square().sum() for parameter in decayed)
    torch.testing.assert_close(penalty, scale + network.classifier.weight.square().sum())


def test_labels_are_balanced_and_every_sample_is_its_number():
    data = SampleIndex(num_classes=3, num_samples=12)
    data.setup()
    assert data.train.inputs.flatten().tolist() == list(range(12))
    assert data.train.inputs.dtype == torch.int64
    assert torch.bincount(data.train.labels).tolist() == [4, 4, 4]
    assert list(data.measure_dataloaders()) == ["train"]


@pytest.mark.parametrize("samples", [0, 10])
def test_sample_numbers_are_refused_in_one_line(samples):
    with pytest.raises(ArgumentError, match=r"^num_samples must be "):
        SampleIndex(num_classes=4, num_samples=samples)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["model=mlp", "data=sample_index"], "data.name"),
        (["model=unconstrained", "data=conic_hull"], "model.input_shape"),
        (["model=unconstrained", "data=sample_index", "model.norm=all"], "model.norm"),
        (["model=unconstrained", "data=sample_index", "+model.num_samples=3"], "model.num_samples"),
    ],
)
def test_impossible_pairs_are_refused_before_training(config, options, named):
    with pytest.raises(ConfigError, match=f"^{named} must be ") as error:
        prepare(config(*options))
    assert "\n" not in str(error.value)


def test_classifier_bias_flag():
    assert isinstance(Unconstrained((1,), 4, 8, dim=5, classifier_bias=True).classifier.bias, nn.Parameter)
    assert Unconstrained((1,), 4, 8, dim=5).classifier.bias is None
