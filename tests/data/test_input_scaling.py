"""``data.max_norm``: one factor for both splits, whatever lies in memory."""

import math

import pytest
import torch

from ncflow.data.base import _ROWS, InMemoryData
from ncflow.data.batches import Split
from ncflow.data.vision import ByteImages, Digits
from ncflow.training.assembly import prepare
from tests.conftest import train_here

SAMPLES = _ROWS + 300  # more than one chunk


def raw_images():
    rng = torch.Generator().manual_seed(0)
    images = torch.randint(256, (SAMPLES, 3, 4, 4), generator=rng, dtype=torch.uint8)
    images[_ROWS + 7] = 255  # the largest training input, in the second chunk
    images[-1], images[-2] = 255, 0  # a test input as large, and one of the norm of black
    return images, torch.arange(SAMPLES) % 2


def splits(inputs, labels):
    return Split(inputs[:-100], labels[:-100]), Split(inputs[-100:], labels[-100:])


class Bytes(ByteImages):
    available = 2

    def __init__(self, **options):
        super().__init__(data_dir="", classes=2, **{"mean": 0.25, "std": 0.5, **options})

    def load(self):
        return *splits(*raw_images()), 2


class Floats(InMemoryData):
    """What ``Bytes`` decodes."""

    def load(self):
        images, labels = raw_images()
        return *splits((images.float() / 255 - 0.25) / 0.5, labels), 2


def made(kind, **options):
    data = kind(**options)
    data.setup()
    return data


def batches(data):
    """The training batches of an epoch and the batches of both splits as they are measured."""
    measured = data.measure_dataloaders(256)
    return {"epoch": list(data.train_dataloader()), **{name: list(loader) for name, loader in measured.items()}}


def largest_norm(some):
    return max(batch.inputs.flatten(1).double().norm(dim=1).max().item() for batch in some)


@pytest.mark.parametrize("max_norm", [1.0, 0.1, 30.0])
@pytest.mark.parametrize("kind", [Bytes, Floats, Digits])
def test_the_largest_training_norm_is_the_one_asked_for(kind, max_norm):
    scaled = batches(made(kind, max_norm=max_norm))
    assert largest_norm(scaled["epoch"]) == pytest.approx(max_norm, rel=1e-6)
    assert largest_norm(scaled["train"]) == pytest.approx(max_norm, rel=1e-6)


@pytest.mark.parametrize("kind", [Bytes, Floats, Digits])
def test_both_splits_are_scaled_by_one_factor(kind):
    plain, scaled = made(kind), made(kind, max_norm=2.0)
    factor = 2 / largest_norm(batches(plain)["train"])
    assert scaled.scale == pytest.approx(factor, rel=1e-6)
    assert plain.scale == 1
    for name, one in batches(plain).items():
        for before, after in zip(one, batches(scaled)[name], strict=True):
            torch.testing.assert_close(after.inputs, before.inputs * factor)
            assert torch.equal(after.labels, before.labels)


def test_a_test_input_may_be_larger(monkeypatch):
    images, labels = raw_images()
    images[_ROWS + 7] = 0
    monkeypatch.setattr("tests.data.test_input_scaling.raw_images", lambda: (images, labels))
    scaled = batches(made(Bytes, max_norm=1.0))
    assert largest_norm(scaled["train"]) == pytest.approx(1, rel=1e-6)
    assert largest_norm(scaled["test"]) > 1.01


def test_test_inputs_of_the_digits_are_longer_by_half_a_percent_at_most():
    """The memo says "every input of norm <= 1"; as measured, one of 72 test images is longer at 3 of 10 seeds."""
    longest = [
        largest_norm(batches(made(Digits, classes=[1, 2], max_norm=1.0, seed=seed))["test"]) for seed in range(10)
    ]
    assert sum(norm > 1 for norm in longest) == 3
    assert max(longest) == pytest.approx(1.0034, abs=1e-4)


def test_bytes_stay_bytes_and_give_what_floats_give():
    ours, floats = made(Bytes, max_norm=1.0), made(Floats, max_norm=1.0)
    assert ours.train.inputs.dtype == torch.uint8
    assert ours.scale == pytest.approx(floats.scale, rel=1e-7)
    for name, one in batches(ours).items():
        for a, b in zip(one, batches(floats)[name], strict=True):
            torch.testing.assert_close(a.inputs, b.inputs, rtol=1e-6, atol=0)
            assert a.inputs.dtype == torch.float32


def test_the_kept_training_samples_alone_count():
    """Drawn with the seed; the others are not seen."""
    data = made(Digits, max_norm=1.0, num_samples=20, seed=3)
    norms = data.network_inputs(data.train.inputs).flatten(1).norm(dim=1)
    assert len(norms) == 20
    assert norms.max().item() == pytest.approx(1, rel=1e-6)


def test_without_the_option_nothing_changes():
    data = made(Digits)
    assert data.network_inputs(data.train.inputs) is data.train.inputs


def test_a_run_measures_what_it_trains_on(config, tmp_path):
    """rho times the unit network: scaling by the option is scaling the inputs."""
    options = ["data=digits", "data.classes=[1,2]", "data.num_samples=50", "model.width=8", "model.norm=none"]
    cfg = config(*options, "data.max_norm=1e-3", "epochs=1", "optimizer.lr=0", "trainer=cpu")
    measured = train_here(cfg, tmp_path).values
    data, classifier = prepare(cfg)
    with torch.no_grad():
        features = classifier.network.layers(data.network_inputs(data.train.inputs).flatten(1))
    assert measured["train/feature_rms_norm"] == pytest.approx(features.square().sum(1).mean().sqrt().item(), rel=1e-5)
    assert measured["train/feature_rms_norm"] < 1e-3


class Zeros(Floats):
    def load(self):
        train, test, classes = super().load()
        return train._replace(inputs=0 * train.inputs), test, classes


def test_zeros_cannot_be_scaled():
    with pytest.raises(ValueError, match=r"max_norm must be null where every training input is 0, found 1\.0"):
        made(Zeros, max_norm=1.0)


@pytest.mark.parametrize("value", ["0", "-1", "inf", "nan"])
def test_impossible_norms_are_refused_in_one_line(value, refusal):
    found = float(value) if not math.isfinite(float(value)) else int(value)
    line = refusal("data=digits", f"data.max_norm={value}")
    rule = "a finite number" if value in ("inf", "nan") else "null or a number greater than 0"
    assert line == f"data.max_norm must be {rule}, found {found}"
