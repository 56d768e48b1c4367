"""``ncflow-measure`` on models, data and features of strangers."""

import csv
import importlib
import json
import linecache
import math
import os
import shutil
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader

from ncflow.checks import ArgumentError
from ncflow.cli.measure import main
from ncflow.measuring import notes
from ncflow.measuring.adapters import Adapters, next_token
from ncflow.measuring.foreign import libraries, models, sources
from ncflow.measuring.foreign.extracted import Extracted
from ncflow.measuring.foreign.parts import layers_of
from ncflow.measuring.groups import Groups
from ncflow.measuring.split import measure_split
from ncflow.results import load_history, load_runs
from ncflow.training import afterwards
from tests.cli import strangers
from tests.naive import naive

HERE = "tests.cli.strangers"
NET, LOADERS = f"{HERE}:seeded", f"{HERE}:loaders"
GREY_ON_3 = ["--resize", "10", "--crop", "8", "--mean", "0.5", "0.5", "0.5", "--std", "0.25", "0.25", "0.25"]


@pytest.fixture(autouse=True)
def _in_a_new_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NCFLOW_RUNS_DIR", raising=False)


def measure(*arguments):
    """The rows of the one run that a command leaves, and its result."""
    before = {*Path("runs").rglob("result.json")}
    main([str(argument) for argument in arguments])
    (result,) = {*Path("runs").rglob("result.json")} - before
    with (result.parent / "history.csv").open() as file:
        rows = [
            {k: v if k in ("split", "layer") else float(v or "nan") for k, v in row.items()}
            for row in csv.DictReader(file)
        ]
    return rows, json.loads(result.read_text())


def refused(capsys, *arguments, code=2):
    """The one line with which a command ends."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    said = capsys.readouterr()
    assert stop.value.code == code
    assert said.out == ""
    assert len(said.err.splitlines()) == 1, said.err
    return said.err


def by_hand(network, inputs, labels):
    """Measures of the last layer as the formulas say."""
    with torch.no_grad():
        H = network.body(inputs)
    return naive(H, labels, network.head.out_features, network.head.weight.detach(), network.head.bias.detach())


def assert_same(row, expected, rel=1e-5):
    for name, value in expected.items():
        assert row[name] == pytest.approx(value, rel=rel, abs=1e-6, nan_ok=True), name


# --- models -----------------------------------------------------------------------------------------------------------


def test_a_function_and_loaders_by_split_as_by_hand():
    rows, result = measure(NET, "--data", LOADERS, "--layers", "body.1", "last")
    inputs, labels = strangers.arrays()
    network = strangers.seeded()
    assert [(row["split"], row["layer"]) for row in rows] == [
        (split, layer) for split in ("train", "test") for layer in ("body.1", "last")
    ]
    for row, part in ((rows[1], slice(40)), (rows[3], slice(40, None))):
        assert_same(row, by_hand(network, inputs[part], labels[part]))
    hidden = naive(network.body[:2](inputs[:40]).detach(), labels[:40], 3)
    assert_same(rows[0], hidden)
    logits = network(inputs[:40])
    assert rows[1]["loss"] == pytest.approx(nn.functional.cross_entropy(logits, labels[:40]).item())
    assert result["status"] == "done"
    assert result["test/body.1/nc1"] == rows[2]["nc1"]


def _write_models():
    """The same weights in files of every kind, and how each is given."""
    network = strangers.seeded().eval()
    state = network.state_dict()
    lit = strangers.Lit(6, 3, 0.1)
    lit.network.load_state_dict(state)
    torch.save(state, "state.pt")
    torch.save({"epoch": 3, "model": state, "optimizer": {"state": {}, "param_groups": []}}, "checkpoint.pth")
    torch.save({"model": state, "ema": strangers.Net().state_dict()}, "two_states.pth")
    torch.save({f"module.{name}": value for name, value in state.items()}, "parallel.pt")
    torch.save(
        {"pytorch-lightning_version": "2.5", "state_dict": lit.state_dict(), "hyper_parameters": dict(lit.hparams)},
        "lit.ckpt",
    )
    torch.save({f"{part}.{name}": value for part in ("one", "two") for name, value in state.items()}, "twice.pt")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(network), "script.pt")
        torch.jit.save(torch.jit.freeze(torch.jit.script(network)), "frozen.pt")
        torch.jit.save(torch.jit.trace(network, torch.zeros(2, 6)), "trace.pt")
        trained = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Linear(5, 3)).train()
        torch.jit.save(torch.jit.trace(trained, torch.randn(9, 6), check_trace=False), "training.pt")
    build = ["--constructor", f"{HERE}:Net"]
    return {
        "state dict": ["state.pt", *build],
        "state dict of a name": [f"{HERE}:Net", "--weights", "state.pt"],
        "checkpoint of a loop": ["checkpoint.pth", *build],
        "entry": ["two_states.pth", *build, "--entry", "model"],
        "data parallel": ["parallel.pt", *build],
        "Lightning, its network": ["lit.ckpt", *build],
        "Lightning, its class": ["lit.ckpt", "--constructor", f"{HERE}:Lit"],
        "one of two": ["twice.pt", *build, "--prefix", "two."],
        "TorchScript": ["script.pt"],
        "TorchScript, traced": ["trace.pt", "--classifier", "head"],
        "TorchScript, its weights": ["script.pt", *build],
    }


KINDS = [
    *("state dict", "state dict of a name", "checkpoint of a loop", "entry", "data parallel", "one of two"),
    *("Lightning, its network", "Lightning, its class", "TorchScript", "TorchScript, traced"),
    "TorchScript, its weights",
]


@pytest.fixture(scope="module")
def model_files(tmp_path_factory):
    """A folder of models, how each is given, and the row that each should have."""
    folder, here = tmp_path_factory.mktemp("models"), Path.cwd()
    os.chdir(folder)
    try:
        given = _write_models()
        (expected, _), _ = measure(NET, "--data", LOADERS)
    finally:
        os.chdir(here)
    assert {*given} == {*KINDS}
    return folder, given, expected


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_weights_in_any_file_are_the_same_row(kind, model_files, monkeypatch):
    """Of a script alone, whose other weights are not seen, rho is not there."""
    folder, given, expected = model_files
    monkeypatch.chdir(folder)
    shutil.rmtree("runs")
    (row, _), _ = measure(*given[kind], "--data", LOADERS)
    alone = kind in ("TorchScript", "TorchScript, traced")
    for name, value in expected.items():
        if alone and name.startswith(("rho", "normalized_")):
            assert math.isnan(row[name])
        else:
            assert row[name] == value or (row[name] != row[name] and value != value), name


def test_safetensors(capsys):
    pytest.importorskip("safetensors")
    from safetensors.torch import save_file

    save_file(strangers.seeded().state_dict(), "net.safetensors")
    (row, _), _ = measure("net.safetensors", "--constructor", f"{HERE}:Net", "--data", LOADERS)
    inputs, labels = strangers.arrays()
    assert_same(row, by_hand(strangers.seeded(), inputs[:40], labels[:40]))


def test_a_library_that_is_missing_is_named(monkeypatch, capsys):
    for library in ("timm", "transformers"):
        monkeypatch.setitem(sys.modules, library, None)
    torch.save(strangers.seeded().state_dict(), "net.pt")
    assert "pip install timm" in refused(capsys, "timm:resnet10t", "--weights", "net.pt", "--data", LOADERS)
    assert "pip install transformers" in refused(capsys, "hf:folder", "--data", LOADERS)


def test_a_model_of_hugging_face_lies_in_a_folder(capsys):
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(vocab_size=30, n_embd=8, n_layer=1, n_head=2, n_positions=16)
    transformers.GPT2LMHeadModel(config).save_pretrained("gpt")
    model = libraries.of_hub("hf:gpt")
    assert torch.equal(model.lm_head.weight, model.transformer.wte.weight)
    assert models.find(models.Asked(["hf:gpt"])).name == "gpt"


def test_all_layers_of_a_stranger_are_its_parts_with_weights():
    rows, _ = measure(NET, "--data", LOADERS, "--split", "test", "--layers", "all")
    assert [row["layer"] for row in rows] == ["body.0", "body.2", "last"]
    network = strangers.decoder()
    network.list = nn.ModuleList([nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2)])
    names = layers_of(network, "all", "head")
    assert names == ["token", "place", "block", "norm", "list.0", "list.2", "last"]


def test_groups_of_measures_with_a_second_data_set():
    groups = ["uniformity", "probe", "ood"]
    rows, result = measure(NET, "--data", LOADERS, "--groups", *groups, "--ood", f"{HERE}:others")
    asked = Groups(groups, strangers.others())
    for row, loader in zip(rows, strangers.loaders().values(), strict=True):
        loader = DataLoader(loader.dataset, 16)
        (expected,) = measure_split(strangers.seeded(), loader, groups=asked).values()
        own = expected.keys() - measure_split(strangers.seeded(), loader)["last"].keys()
        assert len(own) >= 4
        assert_same(row, {name: expected[name] for name in own}, rel=1e-9)
    assert result["measure.groups"] == groups


# --- histories --------------------------------------------------------------------------------------------------------


def _states(*names):
    for number, name in enumerate(names):
        network = strangers.seeded()
        with torch.no_grad():
            network.head.weight.mul_(1 + number)
        torch.save(network.state_dict(), name)


def test_several_files_are_a_history_in_the_order_of_their_epochs():
    _states("net18_epoch30.pt", "net18_epoch4.pt", "net18_epoch100.pt")
    rows, result = measure("net18_*.pt", "--constructor", f"{HERE}:Net", "--data", LOADERS)
    norm = strangers.seeded().head.weight.norm().item()
    found = [(row["epoch"], row["weight_norm"]) for row in rows if row["split"] == "train"]
    assert found == [(4, pytest.approx(2 * norm)), (30, pytest.approx(norm)), (100, pytest.approx(3 * norm))]
    assert (result["epochs"], result["train/weight_norm"]) == (100, pytest.approx(3 * norm))
    assert load_history("runs")["epoch"].tolist() == [4, 4, 30, 30, 100, 100]
    given = ["net18_epoch30.pt", "net18_epoch4.pt", "--constructor", f"{HERE}:Net", "--data", LOADERS]
    rows, _ = measure(*given, "--epochs", "1", "2")
    assert [row["epoch"] for row in rows] == [1, 1, 2, 2]


def test_the_epoch_of_a_lightning_checkpoint_is_the_number_of_finished_ones():
    from lightning import Trainer
    from lightning.pytorch.callbacks import ModelCheckpoint

    options = dict(logger=False, enable_progress_bar=False, enable_model_summary=False, accelerator="cpu")
    after_epochs = ModelCheckpoint("kept", "a-{step}", save_top_k=-1, every_n_epochs=1)
    after_steps = ModelCheckpoint("steps", "b-{step}", save_top_k=-1, every_n_train_steps=3, save_weights_only=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = Trainer(max_epochs=2, callbacks=[after_epochs, after_steps], log_every_n_steps=1, **options)
        lit = strangers.Lit(6, 3, 0.5)
        trainer.fit(lit, strangers.loaders()["train"])  # of 3 steps an epoch
        trainer.save_checkpoint("end.ckpt")
    epochs = {path.name: models.read_weights(path).epoch for path in [*Path().glob("*/*.ckpt"), Path("end.ckpt")]}
    assert epochs == {"a-step=3.ckpt": 1, "a-step=6.ckpt": 2, "b-step=3.ckpt": 1, "b-step=6.ckpt": 2, "end.ckpt": 2}
    rows, _ = measure("kept/*.ckpt", "--constructor", f"{HERE}:Lit", "--data", LOADERS)
    assert [row["epoch"] for row in rows] == [1, 1, 2, 2]
    assert_same(rows[2], by_hand(lit.network, *(part[:40] for part in strangers.arrays())))


# --- data -------------------------------------------------------------------------------------------------------------


def _write_images(root, classes=("cat", "cow", "elk"), each=4):
    random = np.random.default_rng(0)
    for name in classes:
        (root / name).mkdir(parents=True)
        for number in range(each):
            pixels = random.integers(0, 255, (10, 12, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number}.png")


def test_a_folder_of_images_through_a_model_of_torchvision(tmp_path):
    from torchvision.models import get_model

    _write_images(tmp_path / "pets")
    torch.manual_seed(0)
    torch.save(get_model("shufflenet_v2_x0_5", num_classes=3).state_dict(), "net.pt")
    model = ["torchvision:shufflenet_v2_x0_5", "--weights", "net.pt", "--num-classes", "3", "--data", "pets"]
    (row,), result = measure(*model, *GREY_ON_3)
    network = get_model("shufflenet_v2_x0_5", num_classes=3).eval()
    network.load_state_dict(torch.load("net.pt", weights_only=True))
    images = [Image.open(f"pets/{name}/{number}.png") for name in ("cat", "cow", "elk") for number in range(4)]
    X = torch.stack([strangers.to_input(image.crop((2, 1, 10, 9))) for image in images])
    with torch.no_grad():
        logits = network(X)
        network.fc = nn.Identity()
        H = network(X)
    y = torch.arange(3).repeat_interleave(4)
    assert_same(row, naive(H, y, 3), rel=1e-3)
    assert row["loss"] == pytest.approx(nn.functional.cross_entropy(logits, y).item(), rel=1e-5)
    assert (result["data.name"], row["split"]) == ("pets", "train")
    (by_function,), _ = measure(*model, "--transform", f"{HERE}:to_input", "--split", "test", "--limit", "3")
    assert (by_function["split"], by_function["class_share_max"]) == ("test", pytest.approx(1 / 3))
    assert by_function["nc1"] != row["nc1"]


def test_published_weights_bring_their_transform(monkeypatch):
    Path("mine.pth").write_bytes(b"")
    assert sources.weights_transform("torchvision:resnet18", Path("mine.pth")) is None
    monkeypatch.setattr(sources, "file_digest", lambda path: "f37072fd" + 56 * "0")
    name, transform = sources.weights_transform("torchvision:resnet18", Path("mine.pth"))
    assert (name, transform.crop_size, transform.resize_size) == ("ResNet18_Weights.IMAGENET1K_V1", [224], [256])


def test_arrays_are_read_as_ours_and_none_is_held_out(capsys):
    X, y = (part.numpy() for part in strangers.arrays())
    np.savez("mine.npz", X=X[:40], y=y[:40], X_test=X[40:], y_test=y[40:])
    rows, _ = measure(NET, "--data", "mine.npz")
    expected, _ = measure(NET, "--data", LOADERS)
    for row, other in zip(rows, expected, strict=True):
        assert_same(row, {name: value for name, value in other.items() if name not in ("split", "layer")})
    np.savez("whole.npz", X=X, y=y)
    (row,), _ = measure(NET, "--data", "whole.npz")
    assert_same(row, by_hand(strangers.seeded(), *strangers.arrays()))
    (row,), _ = measure(NET, "--data", "whole.npz", "--limit", "7", "--split", "val")
    assert row["loss"] != expected[0]["loss"]
    assert row["split"] == "val"


@pytest.mark.parametrize("given", ["npz", "npy"])
@pytest.mark.parametrize("with_head", [True, False])
def test_features_that_were_extracted_already(given, with_head):
    random = np.random.default_rng(0)
    y = np.arange(50) % 4
    H, W, b = random.standard_normal((50, 6)) + y[:, None], random.standard_normal((4, 6)), random.standard_normal(4)
    head = {"weight": W, "bias": b} if with_head else {}
    arrays = {"features": H, "labels": y, **head}
    if given == "npz":
        np.savez("mine.npz", **arrays)
        files = ["--data", "mine.npz"]
    else:
        files = []
        for name, array in arrays.items():
            np.save(f"{name}.npy", array)
            files += [f"--{name}", f"{name}.npy"]
    (row,), _ = measure(*files, "--batch-size", "16")
    expected = naive(H, y, 4, *head.values())
    assert_same(row, expected, rel=1e-9)
    undefined = {name for name, value in row.items() if value != value}
    assert undefined >= {"rho", "normalized_margin_min", "gamma_norm"}
    assert ("nc3_distance" in undefined) is not with_head
    (row,), _ = measure(*files, "--limit", "5")
    assert row["class_share_max" if with_head else "classes_present"] == (0.25 if with_head else 4)


def test_features_in_a_file_are_not_read_at_once(monkeypatch):
    np.save("H.npy", np.random.default_rng(0).standard_normal((40, 3)).astype(np.float32))
    np.save("y.npy", np.arange(40) % 2)
    seen = []
    of = Extracted.of
    monkeypatch.setattr(Extracted, "of", lambda arrays, limit=None: seen.append(arrays) or of(arrays, limit))
    measure("--features", "H.npy", "--labels", "y.npy")
    assert isinstance(seen[0]["features"], np.memmap)


# --- language models --------------------------------------------------------------------------------------------------


def test_next_tokens_are_the_labels():
    tokens = torch.tensor([[1, 2, 3, 4], [5, 6, 0, 0]])
    expected = [[2, 3, 4, -100], [6, 0, 0, -100]]
    for batch in (tokens, [tokens], {"input_ids": tokens}):
        inputs, labels = next_token(batch)
        assert labels.tolist() == expected
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    inputs, labels = next_token({"input_ids": tokens, "attention_mask": mask})
    assert labels.tolist() == [[2, 3, 4, -100], [6, -100, -100, -100]]
    assert [*inputs] == ["input_ids", "attention_mask"]
    own = torch.tensor([[-100, -100, 3, 4], [5, 6, -100, -100]])
    inputs, labels = next_token({"input_ids": tokens, "labels": own})
    assert labels.tolist() == [[-100, 3, 4, -100], [6, -100, -100, -100]]
    assert [*inputs] == ["input_ids"]
    for batch in ((tokens, tokens), tokens.float(), {"text": "a"}):
        with pytest.raises(ArgumentError, match="batch must be integer tokens"):
            next_token(batch)


FREQUENT = 10  # samples of a token


def _kept(min_count):
    """Features, labels and rows of W of the classes that are kept, and how much is left out."""
    network, batches = strangers.decoder().eval(), torch.cat(strangers.tokens())
    with torch.no_grad():
        H = network.hidden(batches)[:, :-1].flatten(0, 1)
    y = batches[:, 1:].flatten()
    counts = torch.bincount(y, minlength=5000)
    classes = (counts >= min_count).nonzero().flatten()
    own = torch.isin(y, classes)
    left = ((counts > 0) & (counts < min_count)).sum().item(), int((~own).sum())
    return H[own], torch.searchsorted(classes, y[own]), classes, left, network.head(H[own]), y[own]


@pytest.mark.parametrize("cached", [2**31, 0])
def test_a_language_model_with_few_frequent_tokens(cached):
    """K = 5,000 streamed, in one pass or two: as brute force on the classes that are kept and their rows of W."""
    H, y, classes, (rare, lost), logits, own = _kept(FREQUENT)
    assert 15 < len(classes) < 25
    assert rare > 300
    network = strangers.decoder()
    (row,) = measure_split(
        network, strangers.tokens(), adapters=Adapters(next_token), min_count=FREQUENT, max_cached_bytes=cached
    ).values()
    W = network.head.weight.detach()[classes]
    assert_same(row, naive(H, y, len(classes), W), rel=1e-4)
    assert (row["classes_present"], row["classes_left_out"], row["samples_left_out"]) == (len(classes), rare, lost)
    # Loss and accuracy are the model's own, among all tokens.
    assert row["loss"] == pytest.approx(nn.functional.cross_entropy(logits, own).item(), rel=1e-5)
    assert row["accuracy"] == pytest.approx((logits.argmax(1) == own).double().mean().item())
    assert math.isnan(row["loss_gap"])
    assert math.isnan(row["regularized_loss"])


def test_a_language_model_by_its_command():
    given = [f"{HERE}:decoder", "--data", f"{HERE}:tokens", "--next-token"]
    (row,), result = measure(*given, "--min-count", FREQUENT)
    H, y, classes, left, *_ = _kept(FREQUENT)
    assert (row["classes_present"], row["classes_left_out"], row["samples_left_out"]) == (len(classes), *left)
    assert row["cdnv"] == pytest.approx(naive(H, y, len(classes))["cdnv"], rel=1e-4)
    assert result["measure.min_count"] == FREQUENT
    assert result["train/classes_left_out"] == left[0]


def test_a_minimum_count_that_all_classes_have_changes_nothing():
    loader, network = strangers.loaders()["test"], strangers.seeded()
    (whole,), (kept,) = (measure_split(network, loader, min_count=count).values() for count in (None, 2))
    assert (kept.pop("classes_left_out"), kept.pop("samples_left_out")) == (0, 0)
    of_theory = {name for name in whole if name.endswith(("_gap", "_limit")) or name == "regularized_loss"}
    for name in whole.keys() - of_theory:
        assert kept[name] == pytest.approx(whole[name], rel=1e-12, nan_ok=True), name


def test_features_of_rare_classes_are_left_out():
    random = np.random.default_rng(0)
    y = np.repeat(np.arange(6), [9, 2, 9, 1, 9, 0])
    H, W = random.standard_normal((30, 4)), random.standard_normal((6, 4))
    kept = np.isin(y, [0, 2, 4])
    for head in ({}, {"weight": W}):
        (row,) = Extracted.of({"features": H, "labels": y, **head}).measure(7, min_count=3).values()
        assert_same(row, naive(H[kept], y[kept] // 2, 3, *([W[[0, 2, 4]]] if head else [])), rel=1e-9)
        assert (row["classes_left_out"], row["samples_left_out"]) == (2, 3)


# --- folders ----------------------------------------------------------------------------------------------------------


def test_the_same_command_again_finds_it_finished(capsys):
    torch.save(strangers.seeded().state_dict(), "net.pt")
    command = ["net.pt", "--constructor", f"{HERE}:Net", "--data", LOADERS]
    _, result = measure(*command)
    folder = next(Path("runs/measured").glob("seeded-*"), None) or next(Path("runs/measured").iterdir())
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    capsys.readouterr()
    main(command)
    assert capsys.readouterr().out == f"finished already: {folder.name}\n"
    shutil.copy("net.pt", "renamed.pt")
    main(["renamed.pt", *command[1:]])
    assert capsys.readouterr().out == f"finished already: {folder.name}\n"
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    others = (
        ["--layers", "all"],
        ["--weight-decay", "0.1"],
        ["--split", "test"],
        ["--name", "again"],
        ["--limit", "5"],
    )
    ids = {result["run_id"]} | {measure(*command, *other)[1]["run_id"] for other in others}
    assert len(ids) == 1 + len(others)
    state = strangers.seeded().state_dict()
    torch.save({"model": state, "ema": {name: 2 * value for name, value in state.items()}}, "two.pth")
    norms = {measure("two.pth", *command[1:], "--entry", entry)[1]["train/rho"] for entry in ("model", "ema")}
    assert len(norms) == 2
    runs = load_runs("runs")
    assert {*runs["status"]} == {"done"}
    assert runs.set_index("run_id").loc[result["run_id"], "train/nc1"] == result["train/nc1"]


def test_the_current_folder_is_imported_and_what_a_model_is_counts_not_its_weights_alone(monkeypatch):
    torch.save(strangers.seeded().state_dict(), "net.pt")
    Path("build_mine.py").write_text("import arch_of_mine\n\n\ndef net():\n    return arch_of_mine.Mine()\n")
    found = []
    for activation in ("tanh", "sigmoid"):
        forward = f"def forward(self, x):\n        return self.head(self.body(x).{activation}())\n"
        code = f"from tests.cli.strangers import Net\n\n\nclass Mine(Net):\n    {forward}"
        Path("arch_of_mine.py").write_text(code)
        for name in ("build_mine", "arch_of_mine"):
            monkeypatch.delitem(sys.modules, name, raising=False)
        importlib.invalidate_caches()
        linecache.checkcache()
        found.append(measure("net.pt", "--constructor", "build_mine:net", "--data", LOADERS)[1])
    assert found[0]["train/nc1"] != found[1]["train/nc1"]


def test_augmentation_is_told(capsys):
    notes._say.cache_clear()
    measure(NET, "--data", f"{HERE}:augmented")
    assert "random numbers were drawn to measure it" in capsys.readouterr().err


def test_the_folder_of_another_is_refused_and_stays(capsys):
    measure(NET, "--data", LOADERS)
    (folder,) = Path("runs/measured").iterdir()
    for path in [*folder.iterdir()]:
        path.unlink()
    (folder / "run.json").write_text('{"run_id": "another"}')
    assert "holds another run (another)" in refused(capsys, NET, "--data", LOADERS)
    assert [path.name for path in folder.iterdir()] == ["run.json"]
    Path("file").write_text("mine")
    refused(capsys, NET, "--data", LOADERS, "--out", "file")
    assert Path("file").read_text() == "mine"


@pytest.mark.parametrize("killed", [KeyboardInterrupt, SystemExit])
def test_what_is_killed_in_the_middle_is_not_finished(killed, monkeypatch):
    _states("epoch1.pt", "epoch2.pt")
    command = ["epoch1.pt", "epoch2.pt", "--constructor", f"{HERE}:Net", "--data", LOADERS]
    real, calls = afterwards.measure_split, []

    def split(*args, **kwargs):
        calls.append(1)
        if len(calls) == 3:
            raise killed
        return real(*args, **kwargs)

    monkeypatch.setattr(afterwards, "measure_split", split)
    with pytest.raises(killed):
        main(command)
    (folder,) = Path("runs/measured").iterdir()
    assert not (folder / "result.json").exists()
    assert len((folder / "history.csv").read_text().splitlines()) == 3
    rows, _ = measure(*command)
    assert [(row["epoch"], row["split"]) for row in rows] == [(e, s) for e in (1, 2) for s in ("train", "test")]
    assert load_history("runs")["epoch"].tolist() == [1, 1, 2, 2]


def test_figures_are_drawn_of_it(capsys):
    from ncflow.cli.figures import main as figures

    _states("epoch1.pt", "epoch2.pt")
    measure("epoch*.pt", "--constructor", f"{HERE}:Net", "--data", LOADERS)
    np.savez("mine.npz", features=np.eye(6), labels=np.arange(6) // 2)
    measure("--data", "mine.npz")
    figures(["runs/measured"])
    said = capsys.readouterr()
    assert said.err == ""
    assert "runs/measured/figures/measured.png" in said.out.splitlines()


# --- refusals ---------------------------------------------------------------------------------------------------------

STATE = ["state.pt", "--constructor", f"{HERE}:Net"]
DATA = ["--data", LOADERS]
REFUSED = {
    "no model and no features": ([], "MODEL must be given"),
    "no data": ([NET], "data must be given"),
    "a file that there is not": (["nowhere.pt", *DATA], "MODEL must be an existing file, module:function or"),
    "a pattern without a file": (["none*.pt", *DATA], "MODEL must be a pattern of existing files"),
    "two models": ([NET, f"{HERE}:decoder", *DATA], "MODEL must be one name"),
    "a module that there is not": (["no.such:net", *DATA], "No module named 'no'"),
    "a function that there is not": ([f"{HERE}:nets", *DATA], "MODEL must name something that can be imported"),
    "a function that fails": ([f"{HERE}:broken", *DATA], "broken failed: KeyError"),
    "a function that gives no model": (
        [f"{HERE}:a_number", *DATA],
        "a function that returns an nn.Module, found 'int'",
    ),
    "weights without a constructor": (["state.pt", *DATA], "constructor must be given"),
    "a constructor beside a name": ([NET, "--constructor", NET, *DATA], "constructor must be given with a file"),
    "a class that needs its options": (["state.pt", "--constructor", f"{HERE}:Lit", *DATA], "Lit failed: TypeError"),
    "a model with code": (["whole.pt", *STATE[1:], *DATA], "which needs code of tests.cli.strangers.Net to be run"),
    "a pickle with code": (["evil.pt", *STATE[1:], *DATA], "needs code of posix.system to be run"),
    "no file of weights": (["text.pt", *STATE[1:], *DATA], "weights must be a readable file"),
    "an empty file": (["empty.pt", *STATE[1:], *DATA], "weights must be a readable file"),
    "a wrong bit": (["bit.pt", *STATE[1:], *DATA], "is damaged"),
    "no weights in it": (["number.pt", *STATE[1:], *DATA], "which has none"),
    "two state dicts": (["two_states.pth", *STATE[1:], *DATA], "say which with --entry"),
    "an entry that there is not": ([*STATE, "--entry", "ema", *DATA], "entry must be one of"),
    "another model": (["state.pt", "--constructor", f"{HERE}:TwoNets", *DATA], "missing: one.body.0.weight, "),
    "another number of classes": (["wide.pt", *STATE[1:], *DATA], "size mismatch for head.weight"),
    "a name that is missing": (["short.pt", *STATE[1:], *DATA], "missing: head.bias in short.pt"),
    "a name too many": (["long.pt", *STATE[1:], *DATA], "unexpected: more in long.pt"),
    "two parts that fit": (["twice.pt", *STATE[1:], *DATA], "prefix must be given where several fit (one., two.)"),
    "a prefix that there is not": ([*STATE, "--prefix", "no.", *DATA], "prefix must be"),
    "torchvision without weights": (["torchvision:resnet18", *DATA], "as nothing is downloaded"),
    "no such model": (
        ["torchvision:resnet1", "--weights", "state.pt", *DATA],
        "MODEL must be one that torchvision has",
    ),
    "epochs that are not known": (["state.pt", "short.pt", *STATE[1:], *DATA], "epochs must be given"),
    "too few epochs": (["state.pt", "short.pt", *STATE[1:], *DATA, "--epochs", "3"], "epochs must be as many"),
    "the same epoch": (["state.pt", "short.pt", *STATE[1:], *DATA, "--epochs", "3", "3"], "epochs must be different"),
    "data that there is not": ([NET, "--data", "nowhere"], "data must be an existing folder or .npz file"),
    "a folder of nothing": ([NET, "--data", "nothing", *GREY_ON_3], "data must be a folder with a folder of images"),
    "a folder of one class": ([NET, "--data", "single", *GREY_ON_3], "data must be a folder with at least 2 classes"),
    "a folder of splits": ([NET, "--data", "splits", *GREY_ON_3], "splits/test"),
    "images without a transform": ([NET, "--data", "splits"], "transform must be given"),
    "half a transform": ([NET, "--data", "splits", "--resize", "9"], "resize, mean and std must be given together"),
    "a crop too large": ([NET, "--data", "splits", *GREY_ON_3, "--crop", "11"], "crop must be in 1..10"),
    "a transform for arrays": ([NET, "--data", "mine.npz", "--resize", "9"], "left out where data is no folder"),
    "text for arrays": (
        [NET, "--data", "text.pt"],
        "data: path must be an .npz file with X and y",
    ),
    "arrays without labels": ([NET, "--data", "features.npz"], "data: path must be a file with arrays X and y"),
    "a split that there is not": ([NET, *DATA, "--split", "val"], "split must be one of train, test"),
    "a split of no name": ([NET, "--data", "mine.npz", "--split", "a/b"], "split must be a name of letters"),
    "a layer that there is not": ([NET, *DATA, "--layers", "fc"], "layers must be 'last', 'all' or names of layers"),
    "a classifier that there is not": ([NET, *DATA, "--classifier", "fc"], "classifier must be one of the layers"),
    "a layer of a script": (
        ["script.pt", *DATA, "--layers", "body"],
        "found 'body'; give --constructor module:function",
    ),
    "a frozen script": (["frozen.pt", *DATA], "which a frozen one has not"),
    "a script without a name": (
        ["script.pt", *DATA, "--classifier", "fc"],
        "classifier must be one of body.0, body.2, head",
    ),
    "no batch": ([NET, *DATA, "--batch-size", "0"], "batch-size must be at least 1"),
    "an impossible device": ([NET, *DATA, "--device", "abacus"], "device must be cpu, or cuda where there is a GPU"),
    "a group that there is not": ([NET, *DATA, "--groups", "all"], "groups must be a list of some of"),
    "a group without its data": ([NET, *DATA, "--groups", "ood"], "ood must be a second data set"),
    "two ways to read a batch": (
        [NET, *DATA, "--next-token", "--batch", NET],
        "batch must be left out with --next-token",
    ),
    "features and a model": ([NET, *DATA, "--features", "H.npy"], "features must be left out with a MODEL"),
    "features without labels": (["--features", "H.npy"], "features and labels must be given both, found 'no labels'"),
    "features of a pickle": (
        ["--features", "objects.npy", "--labels", "y.npy"],
        "features must be a readable .npy file",
    ),
    "labels of other length": (["--features", "H.npy", "--labels", "long_y.npy"], "labels must be of shape (6,)"),
    "labels out of range": (["--features", "H.npy", "--labels", "large_y.npy"], "labels must be in 0..5"),
    "labels without a row": (
        ["--features", "H.npy", "--labels", "y.npy", "--weight", "H2.npy"],
        "labels must be in 0..1",
    ),
    "weights of another width": (
        ["--features", "H.npy", "--labels", "y.npy", "--weight", "W5.npy"],
        "weight must be of shape",
    ),
    "layers of features": (["--data", "features.npz", "--layers", "all"], "layers must be left out for features"),
    "classes of a constructor": ([*STATE, "--num-classes", "3", *DATA], "num_classes must be given with a model of"),
    "a prefix without a file": ([NET, "--prefix", "net.", *DATA], "prefix must be given with a file of weights"),
    "our runs with data": (["runless", *DATA], "data must be left out for runs of ours"),
    "a folder without runs": (["runless"], "MODEL must be a folder with runs of ncflow"),
}


class _Evil:
    def __reduce__(self):
        return os.system, ("touch pwned",)


@pytest.fixture(scope="module")
def bad_files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bad")
    here = Path.cwd()
    os.chdir(folder)
    try:
        _write_models()
        state = strangers.seeded().state_dict()
        torch.save(strangers.seeded(), "whole.pt")
        torch.save({"state_dict": state, "x": _Evil()}, "evil.pt")
        Path("text.pt").write_text("no weights")
        Path("empty.pt").touch()
        content = bytearray(Path("state.pt").read_bytes())
        place = bytes(content).index(state["body.0.weight"].numpy().tobytes())
        content[place] ^= 1
        Path("bit.pt").write_bytes(content)
        torch.save(3, "number.pt")
        torch.save(strangers.Net(6, 9).state_dict(), "wide.pt")
        torch.save({name: value for name, value in state.items() if name != "head.bias"}, "short.pt")
        torch.save({**state, "more": torch.zeros(1)}, "long.pt")
        for path in ("nothing", "runless"):
            Path(path).mkdir()
        _write_images(Path("single"), ["cat"], 1)
        _write_images(Path("splits"), ["train", "test"], 1)
        X, y = (part.numpy() for part in strangers.arrays())
        np.savez("mine.npz", X=X, y=y)
        np.savez("features.npz", features=X, labels=y)
        H = np.eye(6, 4)
        for name, array in {
            "H": H,
            "y": np.arange(6) // 2,
            "long_y": np.arange(9),
            "large_y": 2 * np.arange(6),
        }.items():
            np.save(f"{name}.npy", array)
        np.save("H2.npy", H[:2])
        np.save("W5.npy", np.eye(6, 5))
        np.save("objects.npy", np.array([{}]), allow_pickle=True)
    finally:
        os.chdir(here)
    return folder


@pytest.mark.parametrize("case", REFUSED)
def test_refused_in_one_line_before_anything_is_written(case, bad_files, monkeypatch, capsys):
    arguments, said = REFUSED[case]
    monkeypatch.chdir(bad_files)
    before = {*bad_files.rglob("*")}
    assert said in refused(capsys, *arguments)
    assert {*bad_files.rglob("*")} == before
    assert not Path("pwned").exists()


FAILED = {
    "a script in training mode": (["training.pt", "--data", LOADERS], "must be in evaluation mode"),
    "a script of another classifier": (
        ["script.pt", "--classifier", "body.2", "--data", LOADERS],
        "is not; give --con",
    ),
    "no batch": ([NET, "--data", f"{HERE}:nothing"], "loaders must be loaders with at least one batch"),
    "one class": ([NET, "--data", f"{HERE}:one_class"], "data must be of at least 2 classes with a sample"),
    "labels out of range": ([NET, "--data", f"{HERE}:large_labels"], "labels must be in 0..2, found '3..9'"),
    "inputs of another shape": ([f"{HERE}:decoder", "--data", LOADERS], "RuntimeError"),
    "no class with so many": ([NET, "--data", LOADERS, "--min-count", "99"], "min_count must be"),
    "a limit of no DataLoader": (
        [f"{HERE}:decoder", "--data", f"{HERE}:tokens", "--limit", "3"],
        "limit must be left out",
    ),
}


@pytest.mark.parametrize("case", FAILED)
def test_what_fails_in_the_data_is_one_line_and_not_finished(case, bad_files, capsys):
    arguments, said = FAILED[case]
    for script in bad_files.glob("*.pt"):
        Path(script.name).symlink_to(script)
    assert said in refused(capsys, *arguments, code=1)
    (folder,) = Path("runs/measured").iterdir()
    assert not (folder / "result.json").exists()
    (run,) = load_runs("runs").to_dict("records")
    assert (run["status"], said in run["error"]) == ("failed", True)
