import json
import math

import pytest
import torch
from torch import nn

from ncflow.checks import ArgumentError
from ncflow.config.schema import ConfigError
from ncflow.data.synthetic import SampleIndex
from ncflow.measuring.split import measure_split
from ncflow.models.classifier import parameter_groups
from ncflow.models.unconstrained import Unconstrained
from ncflow.theory.given_shares import optimum
from ncflow.theory.layer_peeled import minimum_regularized_loss
from ncflow.training.assembly import prepare
from tests.conftest import run_folder


@pytest.mark.parametrize("norm", ["last", "none"])
def test_training_reaches_the_least_regularised_loss_and_collapse(ncflow, tmp_path, norm):
    """The ground truth of the theory, through the whole of the program."""
    classes, decay = 4, 5e-3
    sizes = ["data.num_samples=40", "model.dim=16", "epochs=2000"]
    options = [f"data.num_classes={classes}", f"weight_decay={decay}", f"model.norm={norm}", *sizes]
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


@pytest.mark.parametrize(
    ("counts", "decay", "norm"),
    [
        ((11, 8, 12, 9), 5e-3, "last"),
        ((11, 8, 12, 9), 5e-3, "none"),
        ((6, 22, 7, 5), 5e-3, "last"),
        ((6, 22, 7, 5), 5e-3, "none"),
        ((6, 22, 7, 5), 5e-3, "offset"),
        ((4,) * 10, 5e-4, "last"),
        ((2,) * 100, 1e-4, "last"),
    ],
)
def test_descent_reaches_the_optimum_for_the_shares_of_the_classes(counts, decay, norm):
    """With an offset of BN, too: as it decays, features are free, but the measured loss does not count it."""
    torch.manual_seed(0)
    classes, form = len(counts), "centred" if norm == "last" else "free"
    labels = torch.repeat_interleave(torch.arange(classes), torch.tensor(counts))
    options = {"norm": "none" if norm == "none" else "last", "norm_bias": norm == "offset"}
    network = Unconstrained((1,), classes, len(labels), dim=16 if classes < 16 else 128, **options).double()
    every = torch.arange(len(labels))[:, None]
    decayed = parameter_groups(network, decay, "last_layer")[0]["params"]
    stop = {"max_iter": 500, "max_eval": 1000, "tolerance_change": 0, "tolerance_grad": 1e-8 if classes > 4 else 1e-7}
    descent = torch.optim.LBFGS(network.parameters(), history_size=30, line_search_fn="strong_wolfe", **stop)

    def loss():
        descent.zero_grad()
        penalty = sum(parameter.square().sum() for parameter in decayed)
        total = nn.functional.cross_entropy(network(every), labels) + decay / 2 * penalty
        total.backward()
        return total

    descent.step(loss)
    least = loss().item()
    result = measure_split(network, [(every, labels)], weight_decay=decay)["last"]
    best = optimum(counts, decay, form)
    assert least == pytest.approx(best.regularized_loss, rel=1e-7)
    if norm == "offset":
        assert math.isnan(result["regularized_loss_gap"])
    else:
        assert result["regularized_loss"] == pytest.approx(least, rel=1e-12)
        assert abs(result["regularized_loss_gap"]) < 1e-7 * best.regularized_loss
    assert abs(result["loss_gap"]) < 1e-7 * best.regularized_loss
    for name in ("inter_max", "inter_mean", "inter_quantile", "inter_raw_max"):
        assert result[name] == pytest.approx(result[f"{name}_limit"], abs=3e-4)
    assert result["inter_max_limit"] == pytest.approx(best.inter_max, abs=1e-9)
    assert result["intra_min"] == pytest.approx(1, abs=1e-5)


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
