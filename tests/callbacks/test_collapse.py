"""The callback on models that are not ours, and the promise that measuring changes nothing."""

import math

import lightning as L
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from ncflow.callbacks.collapse import NeuralCollapseCallback
from ncflow.callbacks.loaders import sequential
from ncflow.checks import ArgumentError
from ncflow.metrics import neural_collapse

torch.manual_seed(0)
X, Y = torch.randn(93, 5), torch.randint(3, (93,))
EQUAL = torch.arange(93) % 3
DATA = TensorDataset(X, Y)


class Foreign(L.LightningModule):
    """Somebody's module: dropout, BN, a list of layers, no idea of ncflow."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.body = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5))
        self.fc = nn.Linear(8, 3)

    def forward(self, x):
        return self.fc(self.body(x))

    def training_step(self, batch, index):
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch, index):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def train(callbacks, epochs=3, loader=None, val=None, module=None):
    torch.manual_seed(5)
    module = module or Foreign()
    trainer = L.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        callbacks=callbacks,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, loader or DataLoader(DATA, 16, shuffle=True, drop_last=True), val)
    return module, trainer


def test_works_on_a_module_that_is_not_ours(tmp_path):
    callback = NeuralCollapseCallback(every_n_epochs=2, layers=["last", "body.0"], history=tmp_path / "h.csv")
    module, trainer = train([callback], val=DataLoader(DATA, 50))
    rows = [(r["epoch"], r["split"], r["layer"]) for r in callback.rows]
    assert rows == [(3, "train", "last"), (3, "train", "body.0"), (3, "val", "last"), (3, "val", "body.0")]
    module.eval()
    with torch.no_grad():
        H = module.body(X)
        expected = neural_collapse(H, Y, 3, module.fc.weight, module.fc.bias)
        for name, value in expected.items():
            assert callback.rows[0][name] == pytest.approx(value.item(), rel=1e-6), name
        logits = module(X).double()
        assert callback.rows[0]["accuracy"] == (logits.argmax(1) == Y).double().mean().item()
        assert callback.rows[0]["loss"] == pytest.approx(nn.functional.cross_entropy(logits, Y).item(), rel=1e-6)
    assert trainer.callback_metrics["train/intra_min"].item() == pytest.approx(callback.rows[0]["intra_min"])
    assert "train/body.0/intra_min" in trainer.callback_metrics
    epochs = [line.split(",")[0] for line in (tmp_path / "h.csv").read_text().splitlines()[1:]]
    assert epochs == ["0"] * 4 + ["2"] * 4 + ["3"] * 4


def test_the_first_epochs_are_measured_one_by_one(tmp_path):
    train([NeuralCollapseCallback(5, first_epochs=2, history=tmp_path / "h.csv")], epochs=7)
    epochs = [line.split(",")[0] for line in (tmp_path / "h.csv").read_text().splitlines()[1:]]
    assert epochs == ["0", "1", "2", "5", "7"]


def test_measuring_changes_nothing_of_the_training():
    plain, _ = train([])
    measured, _ = train([NeuralCollapseCallback(every_n_epochs=1)])
    for (name, a), (_, b) in zip(plain.state_dict().items(), measured.state_dict().items(), strict=True):
        assert torch.equal(a, b), name


def test_every_sample_counts_once_whatever_the_training_loader_does():
    class Counting(Dataset):
        def __init__(self):
            self.seen = []

        def __len__(self):
            return 93

        def __getitem__(self, index):
            self.seen.append(index)
            return X[index], Y[index]

    data = Counting()
    copy = sequential(DataLoader(data, 16, shuffle=True, drop_last=True))
    assert torch.equal(torch.cat([labels for _, labels in copy]), Y)
    assert data.seen == list(range(93))


def test_given_loaders_and_names_are_used():
    batch = [(X[:40], Y[:40]), (X[40:], Y[40:])]
    callback = NeuralCollapseCallback(every_n_epochs=9, loaders={"all": batch}, classifier="fc", norm="body.1")
    module, _ = train([callback], epochs=1)
    assert [row["split"] for row in callback.rows] == ["all"]
    assert callback.rows[0]["gamma_norm"] == pytest.approx(module.body[1].weight.double().norm().item())


def test_loaders_that_cannot_be_copied_must_be_given():
    with pytest.raises(ArgumentError, match="loaders must be given"):
        train([NeuralCollapseCallback()], loader=[(X, Y)])


def test_a_missing_layer_ends_it_before_training():
    module = Foreign()
    before = module.fc.weight.clone()
    with pytest.raises(ArgumentError, match=r"layers must be .* found 'nope'"):
        train([NeuralCollapseCallback(layers=["nope"])], module=module)
    assert torch.equal(before, module.fc.weight)


@pytest.mark.parametrize("bad", [{"every_n_epochs": 0}, {"first_epochs": 0}, {"delta": 1.0}])
def test_bad_arguments_are_named(bad):
    with pytest.raises(ValueError, match=f"{next(iter(bad))} must be"):
        NeuralCollapseCallback(**bad)


def gap_rows(callback, labels=Y, module=None):
    """Final training row of a foreign module, and the features, weight and logits behind it."""
    module, _ = train([callback], loader=DataLoader(TensorDataset(X, labels), 31), module=module)
    module.eval()
    with torch.no_grad():
        features = module.body(X).double()
        logits = module(X).double()
    return next(row for row in callback.rows if row["split"] == "train"), features, module.fc.weight.double(), logits


def test_optimality_gaps_follow_their_formulas():
    decay = 0.03
    row, H, W, logits = gap_rows(NeuralCollapseCallback(1, weight_decay=decay), EQUAL)
    loss = nn.functional.cross_entropy(logits, EQUAL).item()
    alpha, beta = H.square().sum(1).mean().sqrt().item(), (W.norm() / 3**0.5).item()
    least = math.log(1 + 2 * math.exp(-1.5 * alpha * beta))
    assert row["loss_gap"] == pytest.approx(loss - least, rel=1e-5)
    total = loss + decay / 2 * (alpha**2 + 3 * beta**2)
    assert row["regularized_loss"] == pytest.approx(total, rel=1e-5)
    root = 3**0.5
    minimum = -math.log(1 - 2 * decay / root) + 2 / root * decay * math.log(root / decay - 2)
    assert row["regularized_loss_gap"] == pytest.approx(total - minimum, rel=1e-5)


def test_gamma_takes_the_place_of_the_feature_norm():
    callback = NeuralCollapseCallback(1, weight_decay=0.03, norm="body.1")
    row, _, W, logits = gap_rows(callback)
    loss = nn.functional.cross_entropy(logits, Y).item()
    total = loss + 0.03 / 2 * (row["gamma_norm"] ** 2 + W.square().sum().item())
    assert row["regularized_loss"] == pytest.approx(total, rel=1e-5)
    assert math.isnan(row["regularized_loss_gap"])  # that BN has an offset, which the theory does not have


def test_gaps_are_nan_where_the_theory_does_not_apply():
    row, *_ = gap_rows(NeuralCollapseCallback(1))
    assert math.isnan(row["regularized_loss"])  # the module has no weight_decay
    assert math.isnan(row["regularized_loss_gap"])
    assert math.isfinite(row["loss_gap"])
    row, *_ = gap_rows(NeuralCollapseCallback(1, weight_decay=0.0), labels=Y % 2)
    assert math.isnan(row["loss_gap"])  # a class is absent
    assert math.isfinite(row["regularized_loss"])


def test_there_is_no_gap_of_a_module_that_trains_on_another_loss():
    """At the optimum of another loss the cross-entropy is not at its own: a distance to that says nothing."""

    def square(logits, labels):
        return (logits - nn.functional.one_hot(labels, 3)).square().mean()

    row, *_, logits = gap_rows(NeuralCollapseCallback(1, loss=square, weight_decay=0.03), EQUAL)
    assert row["loss"] == pytest.approx(square(logits, EQUAL).item(), rel=1e-5)
    assert math.isnan(row["loss_gap"])
    assert math.isnan(row["regularized_loss_gap"])


def test_every_layer_in_one_pass_equals_each_alone_kept_or_read_twice():
    names = ["body.0", "body.2", "last"]
    together = NeuralCollapseCallback(1, names)
    train([together])
    reread = NeuralCollapseCallback(1, names, max_cached_bytes=0)
    train([reread])
    for name in names:
        alone = NeuralCollapseCallback(1, [name])
        train([alone])
        (expected,) = alone.rows
        for callback in (together, reread):
            row = next(row for row in callback.rows if row["layer"] == name)
            numbers = {measure: value for measure, value in expected.items() if not isinstance(value, str)}
            for measure, value in numbers.items():
                assert row[measure] == pytest.approx(value, rel=1e-10, abs=1e-12, nan_ok=True), (name, measure)
