"""What once went wrong, each by name."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from tests.conftest import environment, heed_ctrl_c
from tests.crash.client import ROOT, SMALL
from tests.crash.faults import KILL, Fault
from tests.crash.trials import read_cell

STACKED = ["-m", "hydra/launcher=stacked", "seed=0,1,2"]
CELL = "runs/single/*-seed{}-*"


def cells(root):
    return {folder.name: read_cell(folder) for folder in root.glob(CELL.format("*"))}


def same(one, other):
    return one.keys() == other.keys() and not any(cell.differs(other[name]) for name, cell in one.items())


@pytest.fixture(scope="module")
def whole(ncflow, tmp_path_factory):
    """What the three runs leave, alone and stacked."""
    found = {}
    for name, launcher in (("alone", ["-m", "seed=0,1,2"]), ("stacked", STACKED)):
        root = tmp_path_factory.mktemp(name)
        assert ncflow.run([*launcher, *SMALL], root).code == 0
        found[name] = cells(root)
    assert same(*found.values())
    return found["alone"]


def stop_after(ncflow, arguments, root, *words):
    """Kill it after the first rename of a file whose path has some words."""
    scratch = root / "count"
    scratch.mkdir()
    events = ncflow.run(arguments, scratch).events
    shutil.rmtree(scratch)
    found = [
        n for n, event in enumerate(events, start=1) if event.startswith("rename") and all(w in event for w in words)
    ]
    assert ncflow.run(arguments, root, Fault(KILL, found[0] + 1)).killed


# --- stacked cells ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", range(3))
def test_a_cell_killed_between_its_weights_and_its_result_is_finished(which, ncflow, whole, tmp_path):
    assert ncflow.run([*STACKED, *SMALL], tmp_path).code == 0
    for place, folder in enumerate(sorted(tmp_path.glob(CELL.format("*")))):
        if place >= which:
            (folder / "result.json").unlink()  # written last, and so not at all
    assert ncflow.run([*STACKED, *SMALL], tmp_path).code == 0
    assert same(whole, cells(tmp_path))


@pytest.mark.parametrize("what", ["folder", "result", "result and history"])
@pytest.mark.parametrize("seeds", [[1], [0, 1, 2]])
def test_a_stacked_sweep_does_deleted_cells_again(what, seeds, ncflow, whole, tmp_path):
    assert ncflow.run([*STACKED, *SMALL], tmp_path).code == 0
    for seed in seeds:
        (folder,) = tmp_path.glob(CELL.format(seed))
        if what == "folder":
            shutil.rmtree(folder)
            continue
        (folder / "result.json").unlink()
        if "history" in what:
            (folder / "history.csv").unlink()
    again = ncflow.run([*STACKED, *SMALL], tmp_path)
    assert again.code == 0, again.stderr
    assert again.stderr == ""
    assert same(whole, cells(tmp_path))


def test_what_is_left_of_a_group_goes_on_in_it(ncflow, whole, tmp_path):
    """The other cells keep their places; the epochs that were done are not done again."""
    arguments = [*STACKED, *SMALL]
    stop_after(ncflow, arguments, tmp_path, ".stacked", "last.ckpt")
    (group,) = (tmp_path / "runs/single/.stacked").glob("*")
    saved = torch.load(group / "checkpoints/last.ckpt", weights_only=True)
    assert saved["epoch"] > 0
    part = ncflow.run([*STACKED[:-1], "seed=2", *SMALL], tmp_path)
    assert part.code == 0, part.stderr
    assert "1 cells as one" in part.stdout or "1 cell as one" in part.stdout
    (folder,) = tmp_path.glob(CELL.format(2))
    result = json.loads((folder / "result.json").read_text())
    assert result["version/trained_with"] == "3 cells as one"
    assert ncflow.run(arguments, tmp_path).code == 0
    assert same(whole, cells(tmp_path))


# --- histories and checkpoints ----------------------------------------------------------------------------------

DAMAGE = {
    "truncated": lambda file: file.write_bytes(file.read_bytes()[: file.stat().st_size // 2]),
    "deleted": lambda file: file.unlink(),
    "zeroed": lambda file: file.write_bytes(bytes(file.stat().st_size)),
    "of another run": lambda file: file.write_text(file.read_text().replace("0.", "1.")),
}


@pytest.mark.parametrize("how", DAMAGE)
@pytest.mark.parametrize("launcher", [["-m", "seed=0,1,2"], STACKED], ids=["alone", "stacked"])
def test_no_row_is_lost_when_a_history_is_not_the_one_of_its_checkpoint(how, launcher, ncflow, whole, tmp_path):
    stop_after(ncflow, [*launcher, *SMALL], tmp_path, *[".stacked"] * (launcher is STACKED), "last.ckpt")
    (folder,) = tmp_path.glob(CELL.format(0))
    DAMAGE[how](folder / "history.csv")
    again = ncflow.run([*launcher, *SMALL], tmp_path)
    assert again.code == 0, again.stderr
    assert same(whole, cells(tmp_path))
    assert (folder / "result.json").exists()


def test_a_launcher_may_change_and_change_back(ncflow, whole, tmp_path):
    plain = ["-m", "seed=0,1,2", *SMALL]
    stop_after(ncflow, [*STACKED, *SMALL], tmp_path, ".stacked", "last.ckpt")
    stop_after(ncflow, plain, tmp_path, "last.ckpt")
    assert ncflow.run([*STACKED, *SMALL], tmp_path, Fault(KILL, 60)).killed
    again = ncflow.run(plain, tmp_path)
    assert again.code == 0, again.stderr
    assert same(whole, cells(tmp_path))


@pytest.mark.parametrize("other", ["seed=1", "weight_decay=0.1"])
def test_a_checkpoint_of_another_run_is_refused_in_one_line(other, ncflow, tmp_path):
    stop_after(ncflow, SMALL, tmp_path, "last.ckpt")
    (folder,) = tmp_path.glob(CELL.format(0))
    assert ncflow.run([*SMALL, other], tmp_path / "runs").code == 0
    (foreign,) = (tmp_path / "runs/runs/single").glob("*/checkpoints/last.ckpt")
    shutil.copy(foreign, folder / "checkpoints/last.ckpt")
    done = ncflow.run(SMALL, tmp_path)
    assert done.code == 1
    (line,) = done.stderr.splitlines()
    assert "it is of another run" in line
    assert f"delete it to start anew: {folder}/checkpoints/last.ckpt" in line
    (folder / "checkpoints/last.ckpt").unlink()
    assert ncflow.run(SMALL, tmp_path).code == 0


def test_an_empty_checkpoint_is_named(ncflow, tmp_path):
    stop_after(ncflow, SMALL, tmp_path, "last.ckpt")
    (file,) = tmp_path.glob("runs/single/*/checkpoints/last.ckpt")
    file.write_bytes(b"")
    done = ncflow.run(SMALL, tmp_path)
    assert done.code == 1
    assert len(done.stderr.splitlines()) == 1
    assert f"delete it to start anew: {file}" in done.stderr


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"status": "done"}', "garbage"])
def test_a_broken_result_is_no_result(content, ncflow, whole, tmp_path):
    assert ncflow.run(["-m", "seed=0,1,2", *SMALL], tmp_path).code == 0
    (folder,) = tmp_path.glob(CELL.format(1))
    (folder / "result.json").write_text(content)
    again = ncflow.run(["-m", "seed=0,1,2", *SMALL], tmp_path)
    assert again.code == 0, again.stderr
    assert "2 finished already, 1 to do" in again.stdout
    assert same(whole, cells(tmp_path))


# --- ends -------------------------------------------------------------------------------------------------------


@pytest.fixture
def start(tmp_path):
    """Start a long run or sweep, which does not outlive the test."""
    started = []

    def begin(*arguments):
        path = os.pathsep.join([str(ROOT), str(ROOT / "ncflow/sweeps/plugin")])
        command = [sys.executable, "-m", "ncflow", *arguments, *SMALL, "epochs=20000"]
        pipe = subprocess.PIPE
        more = {"stdout": pipe, "stderr": pipe, "text": True, "start_new_session": True, "preexec_fn": heed_ctrl_c}
        started.append(subprocess.Popen(command, cwd=tmp_path, env=environment({"PYTHONPATH": path}), **more))
        return started[-1]

    yield begin
    for process in started:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def wait_for(condition, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.parametrize("launcher", [[], STACKED, ["-m", "hydra/launcher=local", "seed=0,1,2"]], ids=str)
@pytest.mark.parametrize("moment", ["importing", "training"])
def test_ctrl_c_is_one_line(moment, launcher, start, tmp_path):
    process = start(*launcher)
    if moment == "importing":
        wait_for(lambda: b"libtorch" in Path(f"/proc/{process.pid}/maps").read_bytes())
    else:
        wait_for(lambda: any(tmp_path.rglob("last.ckpt")))
    os.killpg(process.pid, signal.SIGINT)  # to all of them, as a terminal does
    out, err = process.communicate(timeout=100)
    assert (process.returncode, err) == (130, "ncflow: interrupted; the same command goes on\n"), out
    if "hydra/launcher=local" not in launcher:  # a worker that does not train yet ends at once, perhaps within a file
        assert not list(tmp_path.rglob("*.tmp"))


@pytest.mark.parametrize("file", ["checkpoints/last.ckpt", "run.json", "progress.json", "result.json"])
def test_the_same_command_writes_over_what_a_killed_worker_was_writing(file, ncflow, whole, tmp_path):
    stop_after(ncflow, SMALL, tmp_path, "last.ckpt")
    (folder,) = tmp_path.glob(CELL.format(0))
    temporary = (folder / file).with_name(f".{Path(file).name}.tmp")
    temporary.write_bytes(b"a part")
    assert ncflow.run(SMALL, tmp_path).code == 0
    assert not list(tmp_path.rglob("*.tmp"))
    assert not whole[folder.name].differs(read_cell(folder))


def test_workers_end_with_their_sweep(start, tmp_path):
    process = start("-m", "hydra/launcher=local", "hydra.launcher.n_jobs=2", "seed=0,1")

    def workers():
        found = []
        for file in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):  # it has just ended
                state, _, group = file.read_text().rpartition(")")[2].split()[:3]
                found += [file.parent.name] if int(group) == process.pid and state != "Z" else []
        return [pid for pid in found if int(pid) != process.pid]

    wait_for(lambda: len(list(tmp_path.rglob("last.ckpt"))) == 2)
    assert workers()
    process.kill()
    process.communicate(timeout=60)
    wait_for(lambda: not workers(), 60)
    assert len(list(tmp_path.rglob("last.ckpt"))) == 2
