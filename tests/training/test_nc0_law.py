"""NC0 of whole trainings is what was known before they began, where the law applies; elsewhere nothing is predicted."""

import pytest
import torch

from ncflow.measuring.losses import is_of_differences
from ncflow.results import load_history
from ncflow.training.assembly import prepare
from ncflow.training.nc0_law import nc0_law
from tests.conftest import TINY, train_here

RECIPE = [*TINY, "optimizer=sgd", "optimizer.lr=0.05", "weight_decay=0.1", "trainer.precision=64-true"]
RECIPE += ["measure.every_n_epochs=1"]


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["optimizer.momentum=0", "model.norm=none", "model.classifier_bias=true"],
        ["optimizer.nesterov=true", "weight_decay_coupling=0.5", "batch_size=37"],
        ["weight_decay_coupling=0", "weight_decay_scope=last_layer", "+trainer.accumulate_grad_batches=2"],
        ["+trainer.gradient_clip_val=0.1", "scheduler=constant"],
        ["loss=exponential"],
        ["loss.label_smoothing=0.1", "scheduler=cosine", "scheduler.warmup_epochs=2"],
        ["model=unconstrained", "data=sample_index", "~data.num_test", "~model.depth", "~model.width"],
    ],
    ids=str,
)
def test_prediction_and_measurement_agree_over_a_training(options, config, tmp_path):
    removed = [option[1:] for option in options if option.startswith("~")]
    base = [option for option in RECIPE if not option.startswith(tuple(removed or ["-"]))]
    train_here(config(*base, *(option for option in options if not option.startswith("~"))), tmp_path)
    history = load_history(tmp_path).query("split == 'train'")
    measured, predicted = history["nc0"].to_numpy(), history["nc0_predicted"].to_numpy()
    assert len(history) == 7
    assert measured == pytest.approx(predicted, rel=1e-9)
    assert predicted[-1] < 0.99 * predicted[0]
    assert history["loss"].iloc[-1] != history["loss"].iloc[0]


def test_a_loss_with_another_gradient_does_not_keep_to_it(config, tmp_path):
    """So that the law is not one of the measure: the same run under the square loss goes elsewhere."""
    train_here(config(*RECIPE, "loss=square"), tmp_path)
    history = load_history(tmp_path).query("split == 'train'")
    assert history["nc0_predicted"].isna().all()
    square = prepare(config(*RECIPE))[1].nc0_at(6)
    assert abs(history["nc0"].iloc[-1] / square - 1) > 1e-3


@pytest.mark.parametrize(
    "options",
    [
        ["optimizer=adam"],
        ["optimizer=adamw"],
        ["optimizer=signum"],
        ["loss=square"],
        ["model.normalization=weight", "model.norm=none"],
        ["model.simplex=1"],
    ],
    ids=str,
)
def test_nothing_is_predicted_where_there_is_no_law(options, config):
    base = [option for option in RECIPE if not option.startswith(("optimizer", "trainer.precision"))]
    own = ["optimizer=sgd"] if not options[0].startswith("optimizer") else []
    assert prepare(config(*base, *own))[1].nc0_at is not None or not own
    assert prepare(config(*base, *own, *options))[1].nc0_at is None


def test_nothing_is_predicted_where_steps_may_be_left_out(config):
    _, classifier = prepare(config(*RECIPE))
    optimizer = classifier.configure_optimizers()["optimizer"]
    assert nc0_law(classifier, optimizer, 6, 3, "16-mixed") is None
    assert nc0_law(classifier, optimizer, 6, 3, "bf16-mixed")(6) == classifier.nc0_at(6)


@pytest.mark.parametrize("loss", [torch.nn.CrossEntropyLoss(label_smoothing=0.1), torch.nn.MultiMarginLoss()])
def test_it_goes_by_what_the_loss_does(loss, config):
    assert is_of_differences(loss, 3)
    assert not is_of_differences(lambda logits, labels: loss(logits.clamp(-1, 1), labels), 3)
