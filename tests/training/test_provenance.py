"""What a run records of its code, packages and machine."""

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

from ncflow.results import load_runs
from ncflow.runtime import code
from ncflow.runtime.code import LARGEST_DIFF, Code, code_of, digest, local_code
from ncflow.runtime.signals import StoppedBySignalError
from ncflow.training import provenance
from tests.conftest import TINY, train_here


def git(folder, *arguments):
    who = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main"]
    done = subprocess.run(["git", "-C", folder, *who, *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A package and a module of a user's, imported, beside a folder of runs; each test has a look of its own."""
    code._state.cache_clear()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/__init__.py").write_text("from mine.net import width\n")
    (tmp_path / "mine/net.py").write_text("width = 3\n")
    (tmp_path / "flat.py").write_text("depth = 4\n")
    monkeypatch.syspath_prepend(tmp_path)
    import flat  # noqa: F401
    import mine  # noqa: F401

    yield tmp_path
    for name in ("mine", "mine.net", "flat"):
        sys.modules.pop(name, None)
    code._state.cache_clear()


def test_code_that_is_not_installed_is_found(mine):
    found = local_code()
    assert found["mine"] == mine / "mine"
    assert found["flat"] == mine / "flat.py"
    assert found["ncflow"] == Path(provenance.__file__).parents[1]
    assert not {"torch", "json", "numpy", "pytest", "__main__"} & set(found)
    assert code_of("torch") is None


def test_a_commit_names_the_code(mine):
    git(mine, "init")
    git(mine, "add", ".")
    git(mine, "commit", "-m", "first")
    (mine / "runs/one/.hydra").mkdir(parents=True)
    (mine / "runs/one/.hydra/config.yaml").write_text("seed: 0\n")  # of no code
    (mine / "mine/notes.txt").write_text("of no code either")
    commit = git(mine, "rev-parse", "HEAD")
    assert code_of("mine") == code_of("flat") == Code(commit)


@pytest.mark.parametrize("staged", [False, True])
def test_what_was_changed_is_told_and_kept(mine, staged):
    git(mine, "init")
    git(mine, "add", "mine", "flat.py")
    git(mine, "commit", "-m", "first")
    commit = git(mine, "rev-parse", "HEAD")
    (mine / "mine/net.py").write_text("width = 5\n")
    (mine / "mine/new.py").write_text("ours = 7\n")
    if staged:
        git(mine, "add", "mine/new.py")
    found = code_of("mine")
    assert found.state.startswith(f"{commit}, changed ")
    assert {"-width = 3", "+width = 5", "+ours = 7"} <= set(found.diff.splitlines())
    assert code_of("flat") == Code(commit)  # each by its own files
    (mine / "mine/net.py").write_text("width = 6\n")
    assert code_of("mine") is found  # what this process imported is what it was at first
    code._state.cache_clear()
    assert code_of("mine").state != found.state


def test_a_large_difference_is_told_and_not_kept(mine):
    git(mine, "init")
    git(mine, "add", "mine")
    git(mine, "commit", "-m", "first")
    (mine / "mine/net.py").write_text("# nothing\n" * LARGEST_DIFF)
    found = code_of("mine")
    assert "changed" in found.state
    assert found.diff == ""


@pytest.mark.parametrize("why", ["no repository", "ignored", "no commit", "no git"])
def test_without_git_the_sources_are_named(why, mine, monkeypatch):
    if why in ("ignored", "no commit"):
        git(mine, "init")
    if why == "ignored":
        (mine / ".gitignore").write_text("mine\nflat.py\n")
        git(mine, "add", ".gitignore")
        git(mine, "commit", "-m", "first")
    if why == "no git":
        monkeypatch.setenv("PATH", "")
    assert code_of("mine") == Code(f"sha256 {digest(mine / 'mine')[:12]}")
    before = digest(mine / "mine"), digest(mine / "flat.py")
    (mine / "mine/__pycache__").mkdir(exist_ok=True)
    (mine / "mine/__pycache__/x.py").write_text("of no account")
    assert (digest(mine / "mine"), digest(mine / "flat.py")) == before
    (mine / "mine/net.py").rename(mine / "mine/other.py")
    assert digest(mine / "mine") != before[0]


def result(folder):
    return json.loads((folder / "result.json").read_text())


def test_a_run_says_what_it_was_trained_with(mine, config, tmp_path):
    git(mine, "init")
    git(mine, "add", "mine")
    git(mine, "commit", "-m", "first")
    (mine / "mine/net.py").write_text("width = 3\nfrom ncflow.models.mlp import MLP as Net\n")
    for name in ("mine", "mine.net"):
        del sys.modules[name]
    cfg = config("epochs=1", "data.num_samples=40", "trainer=cpu", "model._target_=mine.net.Net")
    train_here(cfg, tmp_path / "run")
    found = result(tmp_path / "run")
    for name in ("torch", "torchvision", "lightning", "torchmetrics", "numpy", "scipy", "scikit-learn"):
        assert found[f"version/{name}"] == version(name)
    state = found["code/mine"]
    assert state.startswith(git(mine, "rev-parse", "HEAD"))
    assert "+from ncflow.models.mlp import MLP as Net" in (tmp_path / f"run/code.{state.split()[-1]}.diff").read_text()
    assert found["code/ncflow"]
    assert "version/gpu" not in found


def test_runs_finished_by_other_code_of_the_users_say_so_in_one_line(ncflow, tmp_path):
    own = tmp_path / "own.py"
    own.write_text("from ncflow.models.mlp import MLP as Net\n")
    options, env = [*TINY, "model._target_=own.Net", "runs_dir=here"], {"PYTHONPATH": str(tmp_path)}
    sweep = ["-m", *options, "seed=0,1", "hydra/launcher=stacked"]
    assert ncflow(*sweep, env=env).returncode == 0
    assert ncflow(*sweep, env=env).stderr == ""
    before = [result(file.parent) for file in sorted(tmp_path.rglob("result.json"))]
    own.write_text("from ncflow.models.mlp import MLP as Net  # an edit\n")
    done = ncflow(*sweep, env=env)
    how = "changed; to train anew: another runs_dir, or move {} away\n"
    several = "ncflow: 2 finished runs were trained before the code of own.Net " + how.format("their folders")
    assert (done.returncode, done.stderr) == (0, several)
    assert "2 finished already" in done.stdout
    one = ncflow(*options, "seed=0", env=env)
    assert one.stderr == "ncflow: this run was trained before the code of own.Net " + how.format("its folder")
    assert [result(file.parent) for file in sorted(tmp_path.rglob("single/*/result.json"))] == before


@pytest.mark.parametrize("changed", [True, False])
def test_a_run_that_goes_on_says_both(changed, config, tmp_path, monkeypatch):
    from tests.training.test_runs import stopping

    cfg = config("epochs=4", "data.num_samples=60", "batch_size=8", "data.num_test=20", "trainer=cpu")
    with stopping(lambda trainer: trainer.current_epoch == 1, monkeypatch), pytest.raises(StoppedBySignalError):
        train_here(cfg, tmp_path)
    if changed:
        monkeypatch.setattr(provenance, "_cpu_model", lambda: "Another CPU")
    train_here(cfg, tmp_path)
    assert (", then Another CPU" in result(tmp_path)["version/cpu"]) == changed
    assert ("then" in str(result(tmp_path))) == changed
    assert load_runs(tmp_path)["code/ncflow"].notna().all()


def test_joined():
    one, two = {"a": "1", "b": "2"}, {"a": "1", "b": "3", "c": "4"}
    assert provenance.joined({}, one) == one
    assert provenance.joined(one, one) == one
    both = provenance.joined(one, two)
    assert both == {"a": "1", "b": "2, then 3", "c": "none, then 4"}
    assert provenance.joined(both, two) == both
    assert provenance.joined(both, one) == {"a": "1", "b": "2, then 3, then 2", "c": "none, then 4, then none"}


def test_a_gpu_says_more(monkeypatch, tmp_path):
    driver = tmp_path / "version"
    driver.write_text(
        "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19\nGCC version:  gcc 12.3.0\n"
    )
    monkeypatch.setattr(provenance, "_DRIVER", driver)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "A GPU")
    monkeypatch.setattr(torch.version, "cuda", "12.6")
    monkeypatch.setattr(torch.backends.cudnn, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 91002)
    found = provenance.provenance({}, torch.device("cuda"))
    gpu = {"version/gpu": "A GPU", "version/cuda": "12.6", "version/cudnn": "91002", "version/driver": "535.104.05"}
    assert gpu.items() <= found.items()
    monkeypatch.setattr(provenance, "_DRIVER", tmp_path / "none")
    assert "version/driver" not in provenance.provenance({}, torch.device("cuda"))
