"""What somebody sees who asks first: ``--help``, completion, and options in any place."""

import os
import subprocess
import sys

import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.utils import JobRuntime
from hydra.plugins.completion_plugin import DefaultCompletionPlugin

from ncflow import __main__ as program
from ncflow.cli.completion import complete_nested
from ncflow.cli.help import _EXAMPLES, show
from ncflow.cli.train import options_last
from ncflow.config.explain import options_of
from ncflow.config.schema import CONF_DIR, register
from tests.conftest import environment

GROUPS = sorted(folder.name for folder in CONF_DIR.iterdir() if folder.is_dir() and folder.name != "hydra")
CHOICES = [
    f"{group}={name}"
    for group in (*GROUPS, "hydra/launcher", "hydra/sweeper")
    for name, _ in options_of(group)
    if group not in ("experiment", "budget", "recipe")
]


@pytest.fixture
def told(capsys):
    def ask(*words):
        show(words)
        return capsys.readouterr().out

    return ask


def test_help_is_ours_and_needs_no_pytorch():
    code = "import sys; from ncflow.cli.train import main; main(); assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code, "--help"], capture_output=True, text=True, env=environment())
    assert (done.returncode, done.stderr) == (0, "")
    assert "trains a classifier" in done.stdout
    assert all(len(line) <= 80 for line in done.stdout.splitlines())


def test_a_reader_of_the_help_may_have_seen_enough(monkeypatch):
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as stdout:
        monkeypatch.setattr("sys.stdout", stdout)
        show(["loss"])
        print("more", flush=True)


def test_help_has_five_examples_every_group_launcher_and_option(told, config):
    text = told()
    assert len(_EXAMPLES) == 5
    assert all(example in text for example in _EXAMPLES)
    assert all(f"  {name}: " in text for name in ("basic", "local", "slurm", "stacked"))
    assert {group for group in GROUPS if f"  {group} (" in text} == set(GROUPS) - {"budget", "recipe"}
    assert "  seed=0\n" in text
    assert "measure.delta=0.05" in text
    assert "null: the whole training split is one batch" in text


@pytest.mark.parametrize("example", _EXAMPLES)
def test_the_examples_of_the_help_compose(example, config):
    config(*(word.split(",")[0] for word in example.split()[1:] if "=" in word and "my_" not in word))


def test_help_of_a_choice_says_type_range_and_comment(told):
    text = " ".join(told("data=conic_hull", "hydra/launcher=local", "trainer=ddp", "epochs").split())
    assert "data.random_labels=0.0 a number; share of training samples whose label is drawn anew" in text
    assert "hydra.launcher.pack_at_once=1 a whole number, at least 1; processes that share a GPU" in text
    assert "trainer.devices=2 a whole number of at least 1; of each node" in text
    assert "epochs=300" in text


@pytest.mark.parametrize("choice", CHOICES)
def test_every_choice_can_be_asked_for(choice, told):
    lines = told(choice).splitlines()
    assert lines
    assert lines[0].strip()


def test_help_of_a_group_lists_its_options_and_those_of_ones_own(told, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data/mine.yaml").write_text("# What I have.\nname: mine\n")
    assert "experiment=pan_cao/fig2_small: " in told("experiment")
    assert "data=mine: What I have.\n" in told("data", "--config-dir", str(tmp_path))


@pytest.mark.parametrize(
    ("word", "line"),
    [
        ("data=cifar", "found 'cifar'; did you mean cifar10?"),
        ("nothing", "--help must be followed by a group (experiment, data, model, "),
    ],
)
def test_what_there_is_not_is_one_line(word, line, capsys):
    with pytest.raises(SystemExit, match="2"):
        show([word])
    (said,) = capsys.readouterr().err.splitlines()
    assert line in said


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("seed=0,1 -m epochs=3", "seed=0,1 epochs=3 -m"),
        ("-m seed=0 --config-dir my_conf data=mine", "seed=0 data=mine -m --config-dir my_conf"),
        ("--cfg job seed=1", "seed=1 --cfg job"),
        ("--info seed=1", "seed=1 --info"),
        ("--info config ~bn +a=2", "~bn +a=2 --info config"),
        ("--config-dir=x a=1", "a=1 --config-dir=x"),
        ("--cfg", "--cfg"),
    ],
)
def test_options_may_stand_anywhere(given, expected):
    assert options_last(given.split()) == expected.split()


@pytest.fixture
def completed():
    GlobalHydra.instance().clear()
    register()
    JobRuntime.instance().set("name", "ncflow")
    complete_nested()
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        plugin = DefaultCompletionPlugin(GlobalHydra.instance().config_loader())
        yield lambda line: plugin._query("train", line)
    GlobalHydra.instance().clear()


def test_completion_knows_experiments(completed):
    assert completed("experiment=pan_cao/fig2") == ["experiment=pan_cao/fig2", "experiment=pan_cao/fig2_small"]
    assert "experiment=quickstart" in completed("experiment=")
    assert completed("exper") == ["experiment="]
    assert completed("experiment=quickstart data=cifar") == ["data=cifar10", "data=cifar100"]
    assert "optimizer.lr=" in completed("optimizer.l")
    assert completed("hydra/launcher=l") == ["hydra/launcher=local"]
    assert completed("hydra/launcher=_") == []


def test_a_console_script_finds_modules_where_it_stands(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["/bin", "/libraries"])
    program.find_here()
    program.find_here()
    assert sys.path == ["/bin", "/libraries", str(tmp_path)]
    for path in (["", "/libraries"], [str(tmp_path)]):  # as python -m has it
        monkeypatch.setattr(sys, "path", list(path))
        program.find_here()
        assert sys.path == path
