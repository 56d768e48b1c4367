"""Groups of measures on anybody's module, and on several processes."""

import csv
import json

import lightning as L
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from ncflow.callbacks import NeuralCollapseCallback
from ncflow.checks import ArgumentError
from ncflow.measuring.groups import Groups
from ncflow.measuring.split import measure_split
from ncflow.metrics.groups import GROUPS
from ncflow.results import CLASS_COLUMNS, COLUMNS, GROUP_MEASURES, PAIR_COLUMNS, History
from tests.metrics import naive_groups

ALL = list(GROUPS)
ADDED = [name for group in ALL for name in GROUP_MEASURES[group]]
torch.manual_seed(0)
X, Y = torch.randn(93, 5), torch.randint(3, (93,))
OTHER = torch.randn(31, 5) + 1
TRAIN, VAL = TensorDataset(X[:60] + Y[:60, None], Y[:60]), TensorDataset(X[60:] + Y[60:, None], Y[60:])
OOD = TensorDataset(OTHER, torch.zeros(31, dtype=torch.long))


class Chain(L.LightningModule):
    """Somebody's module, which says that it is a chain."""

    is_chain = True

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.body = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Dropout(0.5))
        self.fc = nn.Linear(8, 3)

    def forward(self, x):
        return self.fc(self.body(x))

    def training_step(self, batch, index):
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch, index):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def train(callbacks, module=None):
    torch.manual_seed(5)
    module = module or Chain()
    options = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    trainer = L.Trainer(max_epochs=2, accelerator="cpu", callbacks=callbacks, **options)
    trainer.fit(module, DataLoader(TRAIN, 16, shuffle=True), DataLoader(VAL, 50))
    return module


def test_the_callback_measures_them_beside_and_changes_nothing_of_the_training(tmp_path):
    plain = NeuralCollapseCallback(1, history=tmp_path / "plain.csv")
    expected = train([plain])
    loader = DataLoader(OOD, 7, shuffle=True, drop_last=True)
    tables = {name: tmp_path / f"{name}.csv" for name in ("history", "classes", "pairs")}
    callback = NeuralCollapseCallback(1, groups=ALL, ood=loader, **tables)
    module = train([callback])
    for (name, a), (_, b) in zip(expected.state_dict().items(), module.state_dict().items(), strict=True):
        assert torch.equal(a, b), name
    rows = {name: list(csv.DictReader((tmp_path / f"{name}.csv").open())) for name in ("plain", *tables)}
    assert list(rows["plain"][0]) == list(COLUMNS)
    assert list(rows["history"][0]) == [*COLUMNS, *ADDED]
    assert [{name: row[name] for name in COLUMNS} for row in rows["history"]] == rows["plain"]
    with torch.no_grad():
        H, y = (module.eval().body(TRAIN.tensors[0]).double().numpy(), TRAIN.tensors[1].numpy())
        val, val_labels = (module.body(VAL.tensors[0]).double().numpy(), VAL.tensors[1].numpy())
        W, b = (part.detach().double().numpy() for part in (module.fc.weight, module.fc.bias))
        other, own = module.body(OTHER).double().numpy(), module.body[0].weight.double().numpy()
    for row, (features, labels) in zip(callback.rows, ((H, y), (val, val_labels)), strict=True):
        wanted = {"weight_alignment": naive_groups.alignment(own, W)}
        for name in ("uniformity", "dual_uniformity", "ood", "few_shot", "probe"):
            wanted |= getattr(naive_groups, name)(features, labels, W=W, other=other, fitted_on=(H, y))
        assert {name: row[name] for name in ADDED} == pytest.approx(wanted, rel=1e-6)
    assert [(row["epoch"], row["split"], row["class"]) for row in rows["classes"]] == [
        (str(epoch), split, str(c)) for epoch in range(3) for split in ("train", "val") for c in range(3)
    ]
    assert list(rows["classes"][0]) == list(CLASS_COLUMNS)
    assert list(rows["pairs"][0]) == list(PAIR_COLUMNS)
    for name, wanted in (
        ("classes", naive_groups.classes(val, val_labels, W, b)),
        ("pairs", naive_groups.pairs(val, val_labels)),
    ):
        for row, expected in zip(rows[name][-3:], wanted, strict=True):
            assert {key: float(row[key]) for key in expected} == pytest.approx(expected, rel=1e-5)


def test_probes_are_trained_on_train_wherever_it_stands():
    loaders = {"val": DataLoader(VAL, 50), "train": DataLoader(TRAIN, 50)}
    found = NeuralCollapseCallback(5, loaders=loaders, groups=["probe"])
    other = NeuralCollapseCallback(5, groups=["probe"])
    train([found])
    train([other])
    assert [row["split"] for row in found.rows] == ["val", "train"]
    assert [row["probe_accuracy"] for row in found.rows] == [row["probe_accuracy"] for row in other.rows[::-1]]


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"groups": ["nc7"]}, "groups must be a list of some of uniformity, "),
        ({"ood": [(OTHER, Y[:31])]}, "ood must be null where groups has no 'ood'"),
        ({"groups": ["ood"]}, "ood must be a second data set where groups has 'ood'"),
        ({"groups": ["dual_uniformity"], "layers": ["body.0"]}, "groups must be without 'dual_uniformity' where"),
        (
            {"groups": ["probe"], "loaders": {"all": DataLoader(TRAIN, 9)}},
            "groups must be without 'probe' where no split is named 'train', found ['all']",
        ),
        (
            {"groups": ["probe"], "history": History("h.csv")},
            "history must be a table with the columns of the groups, found 'one without probe_accuracy'",
        ),
    ],
)
def test_what_cannot_be_is_a_line_before_training(options, line):
    module = Chain()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    with pytest.raises(ArgumentError) as error:
        train([NeuralCollapseCallback(1, **options)], module)
    assert str(error.value).startswith(line)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_a_module_that_is_no_chain_has_no_alignment_of_weights():
    class Other(Chain):
        is_chain = False

    with pytest.raises(ArgumentError, match="attribute is_chain = True"):
        train([NeuralCollapseCallback(1, groups=["weight_alignment"])], Other())


def measured(shares, limit):
    module, found = Chain().double(), []
    groups = Groups(ALL, shares["ood"], per_class=True)
    for split in ("train", "val"):
        values = measure_split(module, shares[split], ["body.0", "last"], groups=groups, max_cached_bytes=limit)
        found.append([{layer: [row.get(name) for name in ADDED] for layer, row in values.items()}])
        found[-1] += [groups.classes, groups.pairs]
    return found


def worker(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    shares = {name: [(x[rank::2].double(), y[rank::2])] for name, (x, y) in SPLITS.items()}
    shares["val"] = [tuple(part.double() if part.is_floating_point() else part for part in VAL.tensors)] * (rank == 0)
    with open(f"{folder}/{rank}.json", "w") as file:
        json.dump([measured(shares, limit) for limit in (None, 0)], file)
    dist.destroy_process_group()


SPLITS = {"train": TRAIN.tensors, "val": VAL.tensors, "ood": OOD.tensors}


def test_they_are_the_same_on_two_processes_one_of_which_has_no_sample_of_a_split(tmp_path):
    mp.start_processes(worker, (str(tmp_path),), nprocs=2, start_method="fork")
    whole = {name: [(x.double(), y)] for name, (x, y) in SPLITS.items()}
    expected = json.loads(json.dumps(measured(whole, None)))
    for rank in range(2):
        for found in json.loads((tmp_path / f"{rank}.json").read_text()):
            assert_alike(found, expected)


def assert_alike(found, expected):
    if isinstance(expected, dict | list):
        assert len(found) == len(expected)
        for key in expected if isinstance(expected, dict) else range(len(expected)):
            assert_alike(found[key], expected[key])
    else:
        assert found == (None if expected is None else pytest.approx(expected, rel=1e-10, abs=1e-12, nan_ok=True))
