"""A cluster smaller than the sweep: MaxArraySize and MaxSubmitJobs of 6, two nodes. Jobs that follow a sweep."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ncflow.results import load_runs
from ncflow.sweeps.squeue import ask_squeue, is_alive, largest_array
from ncflow.sweeps.status import survey
from ncflow.sweeps.top_up import submit
from tests.conftest import TINY, environment, run_folder
from tests.sweeps.test_slurm import DDP, SLURM, assert_same_runs, closed_partition, needs_two_cores, wait_for

LIMIT = 6
SCRIPT = Path(__file__).parents[2] / "scripts/local_slurm"
FEW = [*TINY, "epochs=2"]
can_start = os.name == "posix" and os.geteuid() == 0 and shutil.which("slurmdbd") and shutil.which("mariadbd")
pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(not can_start, reason="no SLURM with a database here, and no root: see scripts/local_slurm"),
]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """The environment of a cluster of its own."""
    own = {
        "NCFLOW_SLURM_DIR": str(tmp_path_factory.mktemp("slurm")),
        "NCFLOW_SLURM_PORT": "7817",
        "NCFLOW_SLURM_NODES": "nca ncb",
        "NCFLOW_SLURM_LIMIT": str(LIMIT),
    }
    environ = {**os.environ, **own}
    try:
        subprocess.run([SCRIPT, "start"], env=environ, check=True, capture_output=True, text=True, timeout=200)
        yield {"SLURM_CONF": f"{own['NCFLOW_SLURM_DIR']}/slurm.conf", "BIN": f"{own['NCFLOW_SLURM_DIR']}/bin"}
    finally:
        subprocess.run([SCRIPT, "stop"], env=environ, check=True, capture_output=True, timeout=200)


@pytest.fixture(autouse=True)
def on_it(cluster, monkeypatch):
    monkeypatch.setenv("SLURM_CONF", cluster["SLURM_CONF"])
    monkeypatch.setenv("PATH", cluster["BIN"], prepend=os.pathsep)


def jobs_below(folder):
    return [json.loads(file.read_text())["job"] for file in folder.rglob("job.json")]


def names_of(job):
    asked = ["squeue", "-h", "-a", "-t", "all", "-o", "%j", "--jobs", job]
    return set(subprocess.run(asked, check=True, capture_output=True, text=True).stdout.split())


def status(folder, *arguments):
    command = [sys.executable, "-c", "from ncflow.cli.status import main; main()", "runs", *arguments]
    return subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=300)


def test_a_sweep_larger_than_the_queue_comes_to_its_end_and_is_drawn(ncflow, tmp_path):
    """14 runs in 7 packs: an array of 6, the last pack when there is room, and then the job that draws."""
    assert largest_array() == LIMIT
    grid = [*FEW, "seed=range(7)", "weight_decay=1e-3,1e-2"]
    done = ncflow(*SLURM, *grid, "hydra.launcher.pack=2", "hydra.launcher.then=figures", "runs_dir=slurm")
    assert done.returncode == 0, done.stderr
    first, *_, drawing, last = done.stdout.splitlines()
    assert first == "14 runs: 0 finished already, 14 to do"
    assert "submitted 12 runs in 6 packs as SLURM job" in done.stdout
    assert "2 wait for room in the queue" in done.stdout
    assert last == "14 runs: 14 done"
    jobs = jobs_below(tmp_path)
    arrays = sorted({job.partition("_")[0] for job in jobs}, key=int)
    assert len(arrays) == 2
    assert [sum(job.partition("_")[0] == array for job in jobs) for array in arrays] == [12, 2]
    assert [names_of(array) for array in arrays] == [{"single:0-11"}, {"single:12-13"}]
    assert "draws the figures when the sweep has ended" in drawing
    wait_for(lambda: list(tmp_path.rglob("report.html")), "the report")
    assert ncflow("-m", *grid, "runs_dir=here").returncode == 0
    assert_same_runs(tmp_path / "here", tmp_path / "slurm")
    folder = tmp_path / "slurm/single/.slurm"
    unsent = [path for path in folder.iterdir() if path.suffix in (".pkl", ".sh") and not path.is_symlink()]
    assert unsent == []  # of what SLURM had no room for


def test_what_the_queue_has_no_room_for_is_submitted_later(ncflow, tmp_path):
    eager = [*SLURM, *FEW, "seed=range(8)", "hydra.launcher.wait=false"]
    with closed_partition():
        try:
            done = ncflow(*eager)
            assert done.returncode == 0, done.stderr
            assert done.stdout.splitlines()[-1] == "8 runs: 6 submitted, 2 pending"
            assert jobs_below(tmp_path).count(None) == 2
            assert "8 pending" in (shown := status(tmp_path).stdout)
            assert "2 wait for room in SLURM's queue: --submit, or the same command, submits them" in shown
            full = status(tmp_path, "--submit")
            assert "6 are in the queue already, 2 wait for room in the queue" in full.stderr
            assert jobs_below(tmp_path).count(None) == 2
            cancel(min(filter(None, jobs_below(tmp_path))))
            assert "submitted 1 run as SLURM job" in status(tmp_path, "--submit").stderr
            assert jobs_below(tmp_path).count(None) == 2  # of eight, where six have room
            cancel(*filter(None, jobs_below(tmp_path)))
            assert "submitted 6 runs as SLURM job" in status(tmp_path, "--submit").stderr
        finally:
            subprocess.run(["scancel", "--partition=main"], check=True)


def cancel(*jobs):
    subprocess.run(["scancel", *jobs], check=True)
    for job in jobs:
        wait_for(lambda job=job: not is_alive(ask_squeue().get(job)), "the end of a job")


@pytest.mark.parametrize("broken", ["another user's", "no command", "odd command", "no folder"])
def test_only_a_command_of_ones_own_is_given_again(broken, tmp_path, monkeypatch):
    folder = tmp_path / "runs/single/run"
    folder.mkdir(parents=True)
    command = {"arguments": ["--version"], "working_directory": str(tmp_path / "gone")}
    command |= {"odd command": {"arguments": "--version"}}.get(broken, {})
    (folder / "job.json").write_text(
        json.dumps({"job": None} | ({} if broken == "no command" else {"command": command}))
    )
    if broken == "another user's":
        monkeypatch.setattr(os, "geteuid", lambda: 12345)
    found = survey([tmp_path]).runs
    assert [run.reason for run in found] == ["not submitted yet"]
    told = f"not submitted: no folder {tmp_path / 'gone'}, in which the sweep was begun"
    assert submit(found) == ([told] if broken == "no folder" else [])


@needs_two_cores
def test_two_nodes_share_a_run(ncflow, tmp_path):
    """Two daemons of different names are two nodes to SLURM, which tells each task its own."""
    options = [*TINY, *DDP]
    address = "hydra.launcher.setup=['export MASTER_ADDR=127.0.0.1']"  # nobody knows these nodes by their names
    nodes = ["trainer.num_nodes=2", "trainer.devices=1", address]
    done = ncflow(*SLURM, *options, *nodes, "runs_dir=slurm")
    assert done.returncode == 0, done.stderr
    logs = "".join(file.read_text() for file in sorted(tmp_path.rglob(".slurm/*/*_log.*")))
    for node in (0, 1):
        assert f"node={node}(2)" in logs
    alone = ncflow(*options, "trainer.devices=1", "runs_dir=here")
    assert alone.returncode == 0, alone.stderr
    one, two = (json.loads((run_folder(tmp_path / root) / "result.json").read_text()) for root in ("here", "slurm"))
    assert one["run_id"] == two["run_id"]
    for key, value in one.items():
        if key.startswith(("train/", "test/")) and value is not None:
            assert two[key] == pytest.approx(value, rel=1e-7, abs=1e-9), key
    assert load_runs(tmp_path / "slurm")["status"].tolist() == ["done"]
