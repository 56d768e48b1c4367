"""Every command and every program of the README works as it stands there, cut short where it trains."""

import re
import shlex
import shutil
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning import LightningModule
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from tests.config.test_compose import sweep  # noqa: F401

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, flags=re.DOTALL)
SHORT = ["epochs=2", "measure.every_n_epochs=1", "trainer=cpu", "model.width=8", "data.num_samples=60"]


def commands():
    """Of the shell, without their comments, those of one line one by one."""
    lines = "".join(block for kind, block in BLOCKS if kind == "bash").replace("\\\n", " ").splitlines()
    found = (re.sub(r"\s+#.*$", "", part).strip() for line in lines for part in re.sub(r"\s#.*$", "", line).split("; "))
    return list(dict.fromkeys(command for command in found if command))


COMMANDS = commands()
TRAINED = [words for words in map(shlex.split, COMMANDS) if words[0] == "ncflow"]
OTHERS = [words for words in map(shlex.split, COMMANDS) if words[0].startswith("ncflow-")]


def anchor(title):
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def test_links_and_pictures_lead_somewhere():
    anchors = {anchor(title) for title in re.findall(r"^#+ (.*)$", README, flags=re.MULTILINE)}
    links = re.findall(r"\]\(([^)]+)\)", README)
    assert links
    for link in links:
        assert link.startswith("https://") or (link[0] == "#" and link[1:] in anchors) or (ROOT / link).is_file(), link


def test_every_file_and_extra_that_is_named_is_there():
    pyproject = (ROOT / "pyproject.toml").read_text()
    for words in map(shlex.split, COMMANDS):
        if words[:2] == ["pip", "install"]:
            assert f"\n{words[-1][2:-1]} = [" in pyproject, words
        elif words[0] == "cp" or words[0].startswith("scripts/"):
            assert (ROOT / words[0 if words[0] != "cp" else 1]).exists(), words
    for path in re.findall(r"`((?:ncflow|conf|scripts|tests|\.github)/[\w./]+)`", README):
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize("words", TRAINED, ids=" ".join)
def test_every_command_that_trains_composes(words, sweep, ncflow, tmp_path):  # noqa: F811
    arguments = words[1:]
    if any(word.startswith("--help") or word == "--cfg" for word in arguments):
        done = ncflow(*arguments)
        assert done.returncode == 0, done.stderr
        assert done.stdout
        return
    if "--config-dir" in arguments:
        shutil.copytree(ROOT / ".github/example", tmp_path, dirs_exist_ok=True)
        done = ncflow(*arguments, "epochs=2", "trainer=cpu", "seed=0", env={"PYTHONPATH": str(tmp_path)})
        assert done.returncode == 0, done.stderr
        return
    if "hydra/sweeper=optuna" in arguments:
        done = ncflow(*arguments, *SHORT, "hydra.sweeper.n_trials=2")
        assert done.returncode == 0, done.stderr
        return
    composer, _, cells = sweep(*(word for word in arguments if word != "-m"))
    for overrides in (cells[0], cells[-1]):
        composer.cell(overrides, 0)


NETS = """
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

def make():
    return nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 6), nn.ReLU(), nn.Linear(6, 3))

def loaders():
    return {"train": DataLoader(TensorDataset(torch.randn(30, 3, 2, 2), torch.arange(30) % 3), 10)}
"""


@pytest.fixture
def somebodys_own(tmp_path):
    """The files that the commands name."""
    (tmp_path / "nets.py").write_text(NETS)
    names = {}
    exec(NETS, names)
    torch.save(names["make"]().state_dict(), tmp_path / "weights.pt")
    for name, shape in (("H", (30, 6)), ("W", (3, 6))):
        np.save(tmp_path / f"{name}.npy", np.random.default_rng(0).normal(size=shape))
    np.save(tmp_path / "y.npy", np.arange(30) % 3)
    for index in range(6):
        folder = tmp_path / f"images/{index % 3}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (2, 2), (40 * index, 0, 90)).save(folder / f"{index}.png")


def test_the_other_commands_do_their_work(somebodys_own, ncflow, tmp_path, monkeypatch, capsys):
    """On the runs of the quickstart, cut short, under each name that the README has."""
    cut = ["weight_decay=1e-3,1e-2", "seed=0", "data=digits", "epochs=2", "measure.every_n_epochs=1", "trainer=cpu"]
    assert ncflow("experiment=quickstart", *cut, "model.width=8").returncode == 0
    runs = tmp_path / "runs"
    for name in ("a", "b", "pan_cao/fig2_small", "pan_cao/fig2", "optimizers/grid_small"):
        (runs / name).parent.mkdir(exist_ok=True)
        shutil.copytree(runs / "quickstart", runs / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    mains = {
        f"ncflow-{name}": import_module(f"ncflow.cli.{name}").main
        for name in ("figures", "status", "measure", "theory")
    }
    for name, *arguments in OTHERS:
        if name not in mains or {"--serve", "--wandb"} & {*arguments}:
            continue  # what asks a server has its own tests
        if "--watch" in arguments:
            arguments = arguments[: arguments.index("--watch")]
        code = 0
        try:
            mains[name](arguments)
        except SystemExit as end:
            code = end.code
        told = capsys.readouterr()
        assert code in (0, None), (name, arguments, told.err)
        assert told.out


def test_programs_run(tmp_path, monkeypatch, ncflow):
    """With a model, features and loaders in place of what is somebody's own."""

    class Module(LightningModule):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 3)

        def forward(self, x):
            return self.fc(torch.relu(x))

        def training_step(self, batch, _):
            return nn.functional.cross_entropy(self(batch[0]), batch[1])

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    assert ncflow(*SHORT).returncode == 0
    monkeypatch.chdir(tmp_path)
    labels = torch.arange(30) % 3
    names = {
        "your_module": Module(),
        "your_train_dataloader": DataLoader(TensorDataset(torch.randn(30, 4), labels), 10),
        "model": nn.ModuleDict({"fc": nn.Linear(512, 10)}),
        "features": torch.randn(40, 512),
        "labels": torch.arange(40) % 10,
    }
    programs = [block for kind, block in BLOCKS if kind == "python"]
    assert len(programs) >= 3
    for program in programs:
        exec(program.replace("max_epochs=50", "max_epochs=1"), names)
    assert names["measures"]["nc1"] == pytest.approx(float(names["nc1"].compute()))
