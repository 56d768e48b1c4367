import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from ncflow.config.schema import CONF_DIR, ConfigError, register
from ncflow.training.assembly import prepare

torch.set_num_threads(1)
torch.set_flush_denormal(True)

os.environ["NCFLOW_ENV_FILE"] = os.devnull  # whatever a developer's own .env says

# A run of a second: real code paths, little work.
TINY = ["epochs=6", "model.width=16", "model.depth=3", "data.num_samples=300", "data.num_test=50", "trainer=cpu"]


def pytest_xdist_auto_num_workers(config):
    """A worker a core, and one more for the tests on SLURM, which wait for its jobs nearly all of their time."""
    return len(os.sched_getaffinity(0)) + bool(shutil.which("sbatch"))


def pytest_collection_modifyitems(items):
    """The files that take longest come first, those on SLURM before all: a long one at the end keeps one core idle."""
    names = ["slurm", "runs", "examples", "points", "wandb_logger", "config"]
    names += ["distributed", "limits", "search", "stacked"]
    long = [f"test_{name}.py" for name in names]
    items.sort(key=lambda item: long.index(item.path.name) if item.path.name in long else len(long))


@pytest.fixture
def config():
    """Compose the config from overrides, as the command line does, without running anything."""

    def make(*overrides: str, return_hydra_config=False):
        GlobalHydra.instance().clear()
        register()
        with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
            return compose("train", overrides=list(overrides), return_hydra_config=return_hydra_config)

    yield make
    GlobalHydra.instance().clear()


@pytest.fixture
def refusal(config):
    """Return the one line with which a run of these overrides is refused before training."""

    def refuse(*overrides: str):
        with pytest.raises(ConfigError) as error:
            prepare(config(*overrides))
        assert "\n" not in str(error.value)
        return str(error.value)

    return refuse


@pytest.fixture(scope="session")
def warm():
    """``ncflow`` forked from a process that has imported what it needs, which is most of a short run's time."""
    from tests.crash.client import Ncflow

    with Ncflow() as warm:
        yield warm


@pytest.fixture
def ncflow(tmp_path, warm):
    """Run ``ncflow`` with its runs below ``tmp_path``; return the finished process.

    What is to be another ``program`` is a process of its own. The ``code`` of a program runs in its place.
    """

    def call(*arguments: str, program=None, code=None, env=None, timeout=240):
        if program is None:
            here = {name: os.environ[name] for name in ("SLURM_CONF", "PATH") if name in os.environ}  # of which cluster
            done = warm.run(arguments, tmp_path, timeout=timeout, environment={**here, **(env or {})}, program=code)
            return subprocess.CompletedProcess(["ncflow", *arguments], done.code, done.stdout, done.stderr)
        return subprocess.run(
            [*program, *arguments],
            cwd=tmp_path,
            env=environment(env),
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    return call


def environment(extra=None):
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("WANDB_", "NCFLOW_", "HYDRA_"))}
    return {**kept, "OMP_NUM_THREADS": "1", "NCFLOW_ENV_FILE": os.devnull, **(extra or {})}


def heed_ctrl_c():
    """For a new process: what a shell starts in the background is deaf to it, and so are all of its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def train_here(cfg, folder: Path, *given, **options):
    """Train a config's run in this process, in a folder; return its report."""
    from ncflow.config.identity import describe
    from ncflow.results import RunFolder
    from ncflow.training.fit import fit

    return fit(cfg, RunFolder(folder, describe(cfg, "single")), *given, **options)


def run_folder(root: Path) -> Path:
    """The one run folder below a root."""
    folders = sorted({file.parent for file in root.rglob("run.json")})
    assert len(folders) == 1, folders
    return folders[0]


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")
