"""Packs of runs in processes of one machine: the numbers of the same runs otherwise, whatever happens to a process."""

from pathlib import Path

import pytest

from ncflow.results import load_runs
from ncflow.sweeps.packs import Pack, plan_packs
from tests.conftest import TINY
from tests.training.test_runs import assert_same_run

LOCAL = ["-m", "hydra/launcher=local", "hydra.launcher.n_jobs=2"]
GRID = [*TINY, "seed=0,1", "weight_decay=1e-3,1e-2", "model.norm=none,last"]

KILLED = """
import os, signal
from ncflow.models import MLP

class Killed(MLP):
    def __init__(self, *, how, **options):
        super().__init__(**options)
        self.how = how

    def forward(self, inputs):
        if self.training and self.how == "killed" and not os.environ.get("SPARED"):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().forward(inputs)
"""


def folders(root: Path) -> list[Path]:
    return sorted(file.parent for file in root.rglob("result.json"))


def assert_same_sweep(one: Path, other: Path, count: int) -> None:
    assert len(folders(one)) == len(folders(other)) == count
    for mine, its in zip(folders(one), folders(other), strict=True):
        assert mine.name == its.name
        assert_same_run(mine, its)


def test_groups_in_processes_equal_groups_in_one(ncflow, tmp_path):
    one = ncflow("-m", "hydra/launcher=stacked", *GRID, "runs_dir=one")
    assert one.returncode == 0, one.stderr
    many = ncflow(*LOCAL, "hydra.launcher.pack=stacked", *GRID, "runs_dir=many")
    assert many.returncode == 0, many.stderr
    plans = [[line for line in done.stdout.splitlines() if "as one" in line] for done in (one, many)]
    assert len(plans[0]) == 2
    assert plans[0] == plans[1]
    assert_same_sweep(tmp_path / "one", tmp_path / "many", 8)
    again = ncflow(*LOCAL, "hydra.launcher.pack=stacked", *GRID, "runs_dir=many")
    assert again.stdout.splitlines()[0] == "8 runs: 8 finished already, 0 to do"


@pytest.mark.timeout(600)  # three commands, two of them with processes of their own
def test_a_killed_process_costs_one_run_of_its_pack(ncflow, tmp_path):
    (tmp_path / "killed.py").write_text(KILLED)
    model = ["model._target_=killed.Killed", "+model.how=a,killed,b,c,d", "runs_dir=here"]
    pack, env = ["hydra.launcher.pack=3"], {"PYTHONPATH": str(tmp_path)}
    done = ncflow(*LOCAL, *pack, *TINY, *model, env=env)
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1] in ("5 runs: 1 done, 1 failed, 3 done", "5 runs: 4 done, 1 failed")
    runs = load_runs(tmp_path / "here").set_index("model.how")
    assert runs["status"].to_dict() == {"a": "done", "killed": "failed", "b": "done", "c": "done", "d": "done"}
    assert "its process was killed" in runs.loc["killed", "error"]
    assert len(done.stderr.splitlines()) == 1
    again = ncflow(*LOCAL, *pack, *TINY, *model, env=env | {"SPARED": "1"})
    assert again.stdout.splitlines()[0] == "5 runs: 4 finished already, 1 to do"
    assert again.returncode == 0
    alone = ncflow("-m", *TINY, *model[:2], "runs_dir=alone", env=env | {"SPARED": "1"})
    assert alone.returncode == 0, alone.stderr
    assert_same_sweep(tmp_path / "here", tmp_path / "alone", 5)


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["hydra.launcher.pack=0"], "pack must be null, stacked or a number of runs of at least 1, found 0"),
        (["hydra.launcher.pack=many"], "pack must be null, stacked or a number of runs of at least 1, found 'many'"),
        (["hydra.launcher.pack=true"], "pack must be null, stacked or a number of runs of at least 1, found True"),
        (["hydra.launcher.n_jobs=0"], "n_jobs must be at least 1, or -1 for all, found 0"),
        (["hydra.launcher.n_jobs=two"], "n_jobs must be a whole number, found 'two'"),
        (["hydra.launcher.pack_at_once=0"], "pack_at_once must be at least 1, found 0"),
        (["hydra.launcher.pack=stacked", "hydra.launcher.memory_gb=0"], "memory_gb must be greater than 0, found 0"),
    ],
)
def test_what_is_no_plan_is_refused_in_one_line(overrides, line, warm, tmp_path):
    done = warm.run([*LOCAL, *TINY, *overrides], tmp_path)
    assert (done.code, done.stderr) == (2, f"ncflow: error: hydra.launcher.{line}\n")
    assert not list(tmp_path.rglob("run.json"))


def test_numbers_of_runs_are_packed_in_order():
    packs, text = plan_packs([None] * 7, 3, {})
    assert packs == [Pack((0, 1, 2)), Pack((3, 4, 5)), Pack((6,))]
    assert text == ""
    assert [pack.cells for pack in plan_packs([None] * 2, None, {})[0]] == [(0,), (1,)]
