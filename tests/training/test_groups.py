"""Groups of measures, a second data set and values by class as options of a run."""

import numpy as np
import pytest
import torch

from ncflow.cli.figures import main as figures
from ncflow.config.identity import flat_config, run_id
from ncflow.results import COLUMNS, GROUP_MEASURES, load_classes, load_history, load_pairs, load_runs
from ncflow.training.assembly import prepare
from ncflow.training.stacked.plan import why_alone
from tests.conftest import TINY, train_here
from tests.metrics import naive_groups

ALL = f"measure.groups=[{','.join(GROUP_MEASURES)}]"
ADDED = [name for names in GROUP_MEASURES.values() for name in names]
OTHER = [
    "data@measure.ood=conic_hull",
    "measure.ood.num_samples=10",
    "measure.ood.num_test=30",
    "measure.ood.num_classes=3",
]


@pytest.fixture
def two_runs(config, tmp_path):
    """One with everything, one with what runs have by default."""
    cfg = config(*TINY, "epochs=2", "measure.layers=all", "measure.per_class=true", ALL, *OTHER)
    reports = [train_here(cfg, tmp_path / "asked"), train_here(config(*TINY, "epochs=2", "seed=1"), tmp_path / "plain")]
    return cfg, tmp_path, reports


def test_a_run_has_the_columns_and_the_tables_that_it_asked_for(two_runs, capsys):
    cfg, root, (asked, _) = two_runs
    history, plain = load_history(root / "asked"), load_history(root / "plain")
    assert list(plain) == [*COLUMNS, "run_id", "folder"]
    assert list(history) == [*COLUMNS, *ADDED, "run_id", "folder"]
    assert {path.name for path in (root / "plain").glob("*.csv")} == {"history.csv"}
    last = history[(history["epoch"] == 2) & (history["layer"] == "last")].set_index("split")
    of_hidden = history[history["layer"] == "layers.0"]
    assert of_hidden[["unc3_mean", "unc3_cov"]].isna().all(axis=None)
    assert (
        of_hidden.drop(columns=["unc3_mean", "unc3_cov"])[[n for n in ADDED if "unc3" not in n]].notna().all(axis=None)
    )
    # By the weights that the run left.
    data, classifier = prepare(cfg)
    classifier.load_state_dict(torch.load(root / "asked/checkpoints/last.ckpt", weights_only=True)["state_dict"])
    network = classifier.network.eval()
    with torch.no_grad():
        features = {
            name: network.layers(data.network_inputs(split.inputs)).double().numpy()
            for name, split in {"train": data.train, "test": data.test, "ood": data.ood}.items()
        }
    assert len(features["ood"]) == 30
    W = network.classifier.weight.detach().double().numpy()
    labels = {"train": data.train.labels.numpy(), "test": data.test.labels.numpy()}
    for split in ("train", "test"):
        wanted = {}
        for name in ("uniformity", "dual_uniformity", "ood", "few_shot", "probe"):
            given = {"W": W, "other": features["ood"], "fitted_on": (features["train"], labels["train"])}
            wanted |= getattr(naive_groups, name)(features[split], labels[split], **given)
        assert last.loc[split, list(wanted)].to_dict() == pytest.approx(wanted, rel=1e-4)
    for name, value in asked.values.items():
        split, _, measure = name.partition("/")
        if measure in ADDED:
            assert value == pytest.approx(last.loc[split, measure])
    assert {name for name in asked.values if name.startswith("sha256/")} == {
        f"sha256/{table}.csv" for table in ("history", "classes", "pairs")
    }
    classes, pairs = load_classes(root), load_pairs(root)
    assert set(classes["folder"]) == {str(root / "asked")}
    final = classes[(classes["epoch"] == 2) & (classes["split"] == "train") & (classes["layer"] == "last")]
    expected = naive_groups.classes(features["train"], labels["train"], W, np.zeros(len(W)))
    for (_, row), wanted in zip(final.iterrows(), expected, strict=True):
        assert row[list(wanted)].to_dict() == pytest.approx(wanted, rel=1e-3)
    assert len(pairs) == len(history) * 6
    # Histories of other columns are one table, and are drawn.
    both = load_history(root)
    assert both.groupby("folder")["probe_accuracy"].count().tolist() == [len(history), 0]
    assert load_runs(root)["train/probe_accuracy"].notna().tolist() == [True, False]
    figures([str(root), "--out", str(root / "figures")])
    assert list((root / "figures").glob("*.png")), capsys.readouterr().err


def test_what_a_run_cannot_have_is_a_line(refusal):
    assert refusal("measure.groups=[nc7]").startswith("measure.groups must be a list of some of uniformity, dual_")
    assert refusal("measure.groups=probe") == "measure.groups must be null or a list of names, found 'probe'"
    assert refusal("measure.groups=[ood]") == "measure.ood must be a second data set where groups has 'ood'"
    assert refusal(*OTHER) == "measure.ood must be null where groups has no 'ood'"
    assert refusal("measure.ood=3") == "measure.ood must be null or a group of options, found 3"
    found = refusal("measure.groups=[ood]", "data@measure.ood=digits")
    assert found == (
        "measure.ood must be a data set with test inputs like the run's, (16,) of torch.float32, "
        "found 360 of (1, 8, 8), torch.float32"
    )
    assert refusal("measure.groups=[ood]", "data@measure.ood=digits", "measure.ood.size=9").startswith(
        "measure.ood.size"
    )
    line = refusal("measure.groups=[weight_alignment]", "model=resnet", "data=digits32")
    assert line.startswith("measure.groups must be without 'weight_alignment' for a network that is not known")
    assert "layers has no 'last'" in refusal("measure.groups=[dual_uniformity]", "measure.layers=[layers.0]")


def test_only_what_is_asked_for_changes_the_identity(config, tmp_path):
    cfg = config()
    plain = run_id(cfg)
    ids = {plain}
    for name, value in (("groups", ["probe"]), ("groups", ["probe", "ood"]), ("per_class", True)):
        cfg.measure[name] = value
        ids.add(run_id(cfg))
    cfg = config("measure.groups=[ood]", "data@measure.ood=mnist", "measure.ood.data_dir=a")
    of_images = run_id(cfg)
    cfg.measure.ood.data_dir = "b"
    assert run_id(cfg) == of_images
    cfg.measure.ood.num_samples = 7
    assert len({*ids, of_images, run_id(cfg)}) == 6
    by_content = []
    for index, content in enumerate(("one", "one", "two")):
        file = tmp_path / f"{index}.npz"
        file.write_text(content)
        cfg.measure.ood = {"name": "arrays", "path": str(file)}
        by_content.append(run_id(cfg))
    assert by_content[0] == by_content[1] != by_content[2]


def test_runs_with_tables_or_a_second_data_set_are_trained_alone(config):
    cfg = config("measure.groups=[uniformity,probe]")
    assert why_alone(flat_config(cfg)) is None
    cfg.measure.per_class = True
    assert why_alone(flat_config(cfg)) == "measure.per_class=True"
    assert why_alone(flat_config(config("measure.groups=[ood]", *OTHER))) == "measure.ood.name=conic_hull"
