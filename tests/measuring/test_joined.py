"""Small batches are put together; nothing but rounding may come of it."""

import pytest
import torch
from torch import nn

from ncflow.measuring.features import FeatureBatch
from ncflow.measuring.joined import joined
from ncflow.measuring.split import measure_split


def batches(*sizes, dim=3):
    rows = torch.arange(float(sum(sizes) * dim)).view(-1, dim)
    labels = torch.arange(sum(sizes)) % 2
    parts = zip(rows.split(sizes), labels.split(sizes), strict=True)
    return [FeatureBatch({"last": h, "a": 2 * h}, y, h[:, :2]) for h, y in parts]


@pytest.mark.parametrize(
    ("sizes", "found"),
    [
        ([1000, 1000, 400], [1000, 1000, 400]),  # our own
        ([128] * 20, [1024, 1024, 512]),
        ([1], [1]),
        ([999, 1, 5000, 1, 1], [1000, 5000, 2]),
    ],
)
def test_small_batches_are_put_together_in_their_order(sizes, found):
    given = batches(*sizes)
    after = list(joined(given))
    assert [len(batch.labels) for batch in after] == found
    for part in (lambda b: b.features["last"], lambda b: b.features["a"], lambda b: b.labels, lambda b: b.logits):
        assert torch.equal(torch.cat([part(b) for b in after]), torch.cat([part(b) for b in given]))


def test_large_features_are_not_heaped_up(monkeypatch):
    monkeypatch.setattr("ncflow.measuring.joined._BYTES", 100)
    assert [len(batch.labels) for batch in joined(batches(*[3] * 7))] == [6, 6, 6, 3]


def test_batches_that_do_not_fit_stay_apart():
    assert [len(batch.labels) for batch in joined([*batches(3, 4), *batches(5, dim=2)])] == [7, 5]


def test_measures_are_those_of_one_batch():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 3)).double()
    x, y = torch.randn(2100, 5, dtype=torch.float64), torch.arange(2100) % 3
    one, many = (
        measure_split(network, list(zip(x.split(n), y.split(n), strict=True)), ["0", "last"]) for n in (2100, 64)
    )
    for layer, measures in one.items():
        for name, value in measures.items():
            assert many[layer][name] == pytest.approx(value, rel=1e-12, abs=1e-14, nan_ok=True), name
