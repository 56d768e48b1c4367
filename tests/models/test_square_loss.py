"""The losses of CBMM Memo 117 against loops and closed forms, alone and in runs."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from ncflow.checks import ArgumentError
from ncflow.config.build import build
from ncflow.config.schema import ConfigError
from ncflow.measuring.outputs import Outputs
from ncflow.metrics.margins import margins
from ncflow.models.classifier import Classifier
from ncflow.models.losses import ExponentialLoss, SquareLoss
from ncflow.results import CHECKPOINT
from ncflow.training.assembly import prepare
from tests.conftest import train_here

ON_DIGITS = ["data=digits", "data.classes=[1,2]", "data.num_samples=60", "trainer=cpu", "epochs=3"]
SMALL_MLP = ["model.width=8", "model.norm=none", "optimizer=sgd", "optimizer.lr=0.01", "scheduler=constant"]


def logits_and_labels(num_classes, dtype=torch.float64, count=30):
    rng = torch.Generator().manual_seed(num_classes)
    logits = 2 * torch.randn(count, num_classes, generator=rng, dtype=dtype)
    return logits.requires_grad_(), torch.randint(num_classes, (count,), generator=rng)


def naive_square(f, y, others):
    """Sample by sample, class by class; ``others`` is the target of every class but the label."""
    total = 0.0
    for row, label in zip(f, y, strict=True):
        for c, value in enumerate(row):
            total += ((1 if c == label else others) - value) ** 2
    return total / len(f)


def naive_exponential(f, y):
    total = 0.0
    for row, label in zip(f, y, strict=True):
        total += sum(math.exp(value - row[label]) for c, value in enumerate(row) if c != label)
    return total / len(f)


CASES = {
    "one_hot": (SquareLoss(), partial(naive_square, others=0)),
    "signs": (SquareLoss(targets="signs"), partial(naive_square, others=-1)),
    "exponential": (ExponentialLoss(), naive_exponential),
}


@pytest.mark.parametrize("num_classes", [2, 3, 7])
@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients_are_those_of_the_loops(case, num_classes):
    loss, naive = CASES[case]
    f, y = logits_and_labels(num_classes)
    assert loss(f, y).item() == pytest.approx(naive(f.tolist(), y.tolist()), rel=1e-13)
    assert torch.autograd.gradcheck(lambda logits: loss(logits, y), f)


@pytest.mark.parametrize("case", CASES)
def test_float32_gives_float32_and_the_measurement_sums_in_float64(case):
    loss, naive = CASES[case]
    f, y = (tensor.detach() for tensor in logits_and_labels(3, torch.float32))
    assert loss(f, y).dtype == torch.float32
    assert loss(f, y).shape == ()
    outputs = Outputs(loss, torch.device("cpu"))
    for rows in torch.arange(30).split(7):
        outputs.update(f[rows], y[rows])
    assert outputs.compute()["loss"].item() == pytest.approx(naive(f.tolist(), y.tolist()), rel=1e-13)


def test_the_factor_against_torch_and_against_the_memo():
    f, y = logits_and_labels(4)
    ours, ones = SquareLoss()(f, y), nn.functional.one_hot(y, 4).double()
    torch.testing.assert_close(ours, 4 * nn.functional.mse_loss(f, ones))
    summed = 0.5 * (ones - f).square().sum()  # the memo's section 6
    torch.testing.assert_close(ours, 2 / len(y) * summed)


def test_for_two_classes_the_exponential_loss_is_that_of_the_margin_and_the_proxy_of_the_logistic_one():
    f, y = logits_and_labels(2)
    torch.testing.assert_close(ExponentialLoss()(f, y), torch.exp(-margins(f, y)).mean())
    each = torch.stack([ExponentialLoss()(f[i : i + 1], y[i : i + 1]) for i in range(len(y))])
    torch.testing.assert_close(each.log1p(), nn.functional.cross_entropy(f, y, reduction="none"))


def test_the_exponential_loss_of_well_separated_samples_is_not_lost_in_float32():
    f, y = torch.tensor([[30.0, 0.0, 0.0]], requires_grad=True), torch.tensor([0])
    loss = ExponentialLoss()(f, y)
    loss.backward()
    assert loss.item() == pytest.approx(2 * math.exp(-30), rel=1e-6, abs=0)
    assert f.grad.tolist()[0] == pytest.approx([-2 * math.exp(-30), math.exp(-30), math.exp(-30)], rel=1e-6, abs=0)


@pytest.mark.parametrize("weight_decay", [0.0, 0.01, 1.0])
def test_a_linear_model_ends_at_ridge_regression_in_closed_form(weight_decay):
    """The least mean square loss + lambda/2 |W|^2 is at W^T = (X^T X + N lambda/2 I)^-1 X^T Y."""
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(40, 5)), rng.integers(3, size=40)
    expected = np.linalg.solve(X.T @ X + 40 * weight_decay / 2 * np.eye(5), X.T @ np.eye(3)[y]).T
    torch.manual_seed(0)
    network = nn.Linear(5, 3, bias=False).double()
    classifier = Classifier(network, SquareLoss(), partial(torch.optim.SGD, lr=0.1, momentum=0.9), None, weight_decay)
    optimizer = classifier.configure_optimizers()
    for _ in range(600):
        optimizer.zero_grad()
        classifier.training_step((torch.from_numpy(X), torch.from_numpy(y)), 0).backward()
        optimizer.step()
    np.testing.assert_allclose(network.weight.detach().numpy(), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("loss", "naive"), [("square", "one_hot"), ("exponential", "exponential")])
def test_full_batch_runs_take_one_step_an_epoch_and_measure_their_loss(loss, naive, config, tmp_path):
    cfg = config(*ON_DIGITS, *SMALL_MLP, f"loss={loss}", "batch_size=null", "measure.batch_size=7")
    outcome = train_here(cfg, tmp_path)
    assert torch.load(tmp_path / CHECKPOINT, weights_only=True)["global_step"] == cfg.epochs
    data, classifier = prepare(cfg)
    start = [weight.clone() for weight in classifier.network.state_dict().values()]
    classifier.load_state_dict(torch.load(tmp_path / CHECKPOINT, weights_only=True)["state_dict"])
    assert not any(torch.equal(a, b) for a, b in zip(start, classifier.network.state_dict().values(), strict=True))
    with torch.no_grad():
        f = classifier.network(data.train.inputs).double()
    expected = CASES[naive][1](f.tolist(), data.train.labels.tolist())
    assert outcome.values["train/loss"] == pytest.approx(expected, rel=1e-5)


def test_signs_are_an_option_of_the_config(config):
    assert build(config("loss=square", "loss.targets=signs"), "loss").targets == "signs"
    assert build(config("loss=square"), "loss").targets == "one_hot"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["loss=square", "loss.targets=ones"], "loss.targets must be one of 'one_hot', 'signs', found 'ones'"),
        (["loss=exponential", "+loss.targets=signs"], "loss.targets must be one of the options of ExponentialLoss"),
    ],
)
def test_impossible_options_are_refused_in_one_line(options, message, config):
    with pytest.raises(ConfigError) as error:
        prepare(config(*options))
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)
    with pytest.raises(ArgumentError, match="targets must be one of 'one_hot', 'signs', found 'ones'"):
        SquareLoss(targets="ones")
