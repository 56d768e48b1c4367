"""Sweeps on a real SLURM (scripts/local_slurm): what comes back equals the same runs made here, bit for bit."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import pytest
from filelock import FileLock
from omegaconf import OmegaConf

from ncflow.config.schema import ConfigError
from ncflow.results import load_runs, status_of
from ncflow.sweeps.job import RequeuedError, requeue_by
from ncflow.sweeps.slurm import check
from tests.conftest import TINY, environment, run_folder

LONG = ["epochs=200", "model.width=48", "data.num_samples=1200", "data.num_test=100", "trainer=cpu"]
LONG += ["weight_decay=5e-3"]
SLURM = ["-m", "hydra/launcher=slurm", "hydra.launcher.cpus_per_task=1"]


def runs_slurm():
    return shutil.which("sinfo") is not None and subprocess.run(["sinfo"], capture_output=True).returncode == 0


on_slurm = pytest.mark.skipif(not runs_slurm(), reason="no SLURM here: scripts/local_slurm starts one, as root")
pytestmark = pytest.mark.timeout(600)


@pytest.fixture(autouse=True)
def alone_on_the_cluster():
    """One cluster, so one test at a time: what one test preempts must be its own."""
    with FileLock(Path(tempfile.gettempdir()) / "ncflow-slurm-tests.lock"):
        yield


@pytest.fixture
def start(warm, tmp_path):
    """Start ``ncflow``, which submits jobs that are processes of their own."""
    return lambda *arguments, env=None: warm.start(arguments, tmp_path, environment=env)


def wait_for(condition, what, timeout=300):
    def holds():
        try:
            return condition()
        except FileNotFoundError:  # a folder got its name while it was looked into
            return False

    end = time.time() + timeout
    while not holds():
        assert time.time() < end, f"waited in vain for {what}"
        time.sleep(0.02)


@contextmanager
def closed_partition():
    """In it, jobs wait: none of the partition main begins."""
    update = ["scontrol", "update", "PartitionName=main"]
    subprocess.run([*update, "State=DOWN"], check=True)
    try:
        yield
    finally:
        subprocess.run([*update, "State=UP"], check=True)


def rows(tmp_path):
    """Rows of the longest history below a folder."""
    return max((file.read_text().count("\n") for file in tmp_path.rglob("history.csv")), default=0)


def job_of(tmp_path):
    (file,) = tmp_path.rglob("job.json")
    return json.loads(file.read_text())["job"]


def job_logs(tmp_path):
    return "".join(file.read_text() for file in sorted(tmp_path.rglob(".slurm/*/*_log.*")))


def assert_same_runs(one, other):
    """Histories to the last letter, and every measure of the results."""
    assert {file.parent.name for file in one.rglob("result.json")} == {
        f.parent.name for f in other.rglob("result.json")
    }
    for file in one.rglob("result.json"):
        there = next(other.rglob(f"{file.parent.name}/result.json"))
        mine, theirs = (json.loads(path.read_text()) for path in (file, there))
        measured = [key for key in mine if key.startswith(("train/", "test/"))]
        assert measured
        assert {key: mine[key] for key in measured} == {key: theirs[key] for key in measured}
        assert file.with_name("history.csv").read_text() == there.with_name("history.csv").read_text()


@pytest.fixture(scope="module")
def local(tmp_path_factory, warm):
    """The long run, made here without a stop."""
    tmp_path = tmp_path_factory.mktemp("local")
    process = warm.start(LONG, tmp_path)
    assert process.wait(200) == 0, process.stderr.read()
    return tmp_path


# --- whole sweeps -----------------------------------------------------------------------------------------------


@on_slurm
def test_an_array_gives_what_a_local_sweep_gives(ncflow, tmp_path):
    grid = [*TINY, "seed=0,1", "weight_decay=1e-3,1e-2"]
    done = ncflow(*SLURM, *grid, "runs_dir=slurm", "hydra.launcher.array_parallelism=2")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "4 runs: 4 done"
    assert ncflow("-m", *grid, "runs_dir=here").returncode == 0
    assert_same_runs(tmp_path / "here", tmp_path / "slurm")
    jobs = {json.loads(file.read_text())["job"] for file in tmp_path.rglob("job.json")}
    assert len({job.split("_")[0] for job in jobs}) == 1
    assert {job.split("_")[1] for job in jobs} == {"0", "1", "2", "3"}
    again = ncflow(*SLURM, *grid, "runs_dir=slurm")
    assert again.stdout.splitlines()[0] == "4 runs: 4 finished already, 0 to do"


@on_slurm
def test_modules_and_setup_lines_run_in_the_job(ncflow, tmp_path):
    lines = ["hydra.launcher.setup=['module() { echo \"$@\" >> loaded; }','echo setup >> loaded']"]
    done = ncflow(*SLURM, *TINY, *lines)
    assert done.returncode == 0, done.stderr
    script = next(tmp_path.rglob("*submission*.sh")).read_text()
    assert "#SBATCH --time=240" in script
    assert (tmp_path / "loaded").read_text() == "setup\n"


@on_slurm
def test_the_sweep_outlives_the_process_that_submitted_it(local, start, tmp_path):
    process = start(*SLURM, *LONG, "seed=0,1")
    wait_for(lambda: len(list(tmp_path.rglob("job.json"))) == 2, "the submission")
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    wait_for(lambda: len(list(tmp_path.rglob("result.json"))) == 2, "the results")
    assert load_runs(tmp_path)["status"].tolist() == ["done", "done"]
    (seed_1,) = tmp_path.glob("runs/single/*-seed1-*")
    shutil.rmtree(seed_1)
    assert_same_runs(local, tmp_path)


@on_slurm
def test_eager_submission_returns_at_once_and_is_not_repeated(ncflow, tmp_path):
    eager = [*SLURM, *TINY, "seed=0,1", "hydra.launcher.wait=false"]
    with closed_partition():  # where they wait until the test has looked
        first = ncflow(*eager)
        assert first.returncode == 0, first.stderr
        assert first.stdout.splitlines()[-1] == "2 runs: 2 submitted"
        job = job_of_sweep(tmp_path)
        assert f"submitted 2 runs as SLURM job {job}" in first.stdout
        assert load_runs(tmp_path)["status"].tolist() == ["pending", "pending"]
        status = [sys.executable, "-c", "from ncflow.cli.status import main; main()", "runs"]
        seen = subprocess.run(status, cwd=tmp_path, env=environment(), capture_output=True, text=True)
        assert "2 pending" in seen.stdout, seen.stderr
        second = ncflow(*eager)
        assert second.returncode == 0
        assert "2 are in the queue already" in second.stdout
        assert job_of_sweep(tmp_path) == job
    wait_for(lambda: len(list(tmp_path.rglob("result.json"))) == 2, "the results")


def job_of_sweep(tmp_path):
    (job,) = {json.loads(file.read_text())["job"].split("_")[0] for file in tmp_path.rglob("job.json")}
    return job


SCALED = """
from ncflow.models import MLP

class Scaled(MLP):
    def forward(self, inputs):
        return super().forward({scale} * inputs)
"""


@on_slurm
@pytest.mark.parametrize("snapshot", [True, False])
def test_a_job_runs_the_code_that_was_submitted(snapshot, ncflow, start, tmp_path):
    (tmp_path / "scaled.py").write_text(SCALED.format(scale=1))
    options, env = [*TINY, "model._target_=scaled.Scaled"], {"PYTHONPATH": str(tmp_path)}
    assert ncflow(*options, "runs_dir=here", env=env).returncode == 0
    with closed_partition():
        process = start(*SLURM, *options, "runs_dir=slurm", f"hydra.launcher.snapshot={snapshot}", env=env)
        wait_for(lambda: list(tmp_path.rglob("job.json")) or process.poll() is not None, "the submission")
        (tmp_path / "scaled.py").write_text(SCALED.format(scale=2))
    out, err = process.communicate(timeout=200)
    if not snapshot:
        assert process.returncode == 1
        assert f"{tmp_path / 'scaled.py'} must be the code that was submitted, found it changed" in out + err
        return
    assert process.returncode == 0, err
    assert_same_runs(tmp_path / "here", tmp_path / "slurm")
    here, there = (json.loads(next((tmp_path / name).rglob("result.json")).read_text()) for name in ("here", "slurm"))
    codes = ["code/ncflow", "code/scaled"]
    assert [here[name] for name in codes] == [there[name] for name in codes]


# --- stops ------------------------------------------------------------------------------------------------------


def preempt(job):
    subprocess.run(
        ["sbatch", "-p", "high", "-c", str(os.cpu_count()), "-o", "/dev/null", "--wrap", "sleep 1"], check=True
    )


def send_usr2(job):
    subprocess.run(["scancel", "--signal=USR2", job], check=True)


def requeue(job):
    subprocess.run(["scontrol", "requeue", job], check=True)


@on_slurm
@pytest.mark.parametrize("stop", [preempt, requeue])
def test_a_stopped_job_goes_on_to_the_same_numbers(stop, local, start, tmp_path):
    process = start(*SLURM, *LONG)
    wait_for(lambda: rows(tmp_path) >= 6, "some epochs")
    stop(job_of(tmp_path))
    assert process.wait(200) == 0, process.stderr.read()
    assert_same_runs(local, tmp_path)
    logs = job_logs(tmp_path)
    assert logs.count("Starting with JobEnvironment") == 2, logs  # the job ran twice
    if stop is not requeue:
        assert "stopped by SIGUSR2" in logs


@on_slurm
def test_a_job_that_is_preempted_while_it_imports_comes_to_its_end(local, start, tmp_path):
    process = start(*SLURM, *LONG)
    wait_for(lambda: "Loading pickle" in job_logs(tmp_path), "the job")
    preempt(None)
    assert process.wait(300) == 0, process.stderr.read()
    assert_same_runs(local, tmp_path)
    # It may end within the time that a preempted job is given, which SLURM calls so.
    assert end_of(job_of(tmp_path)) in ("COMPLETED", "TIMEOUT")


SLOW = """
import os, time
from ncflow.models import MLP

class Slow(MLP):
    def forward(self, inputs):
        if self.training and os.path.exists(os.environ["HOLD"]):
            time.sleep(1)
        return super().forward(inputs)
"""


@on_slurm
def test_a_time_out_goes_on_to_the_same_numbers(ncflow, start, tmp_path):
    """A job whose time is cut when it has worked for a minute, from when on submitit takes a signal for a time-out."""
    (tmp_path / "slow.py").write_text(SLOW)
    options = [*TINY, "epochs=500", "model._target_=slow.Slow", "batch_size=300", "measure.every_n_epochs=100"]
    hold, env = tmp_path / "hold", {"PYTHONPATH": str(tmp_path)}
    here = ncflow(*options, "runs_dir=here", env={**env, "HOLD": str(hold)})
    assert here.returncode == 0, here.stderr
    hold.touch()
    times = ["hydra.launcher.timeout_min=11", "hydra.launcher.signal_delay_s=120"]
    there = start(*SLURM, *options, *times, "runs_dir=slurm", env={**env, "HOLD": str(hold)})
    wait_for(lambda: any((tmp_path / "slurm").rglob("history.csv")) or there.poll() is not None, "training")
    job, began = job_of(tmp_path), time.time()
    wait_for(lambda: time.time() > began + 65, "a minute")  # of work: a busy machine may import for long before it
    limit(job, seconds_of(job) // 60 + 2)
    wait_for(lambda: "this job is timed-out" in job_logs(tmp_path), "the signal")
    limit(job, 60)
    hold.unlink()
    assert there.wait(200) == 0, there.stderr.read()
    assert_same_runs(tmp_path / "here", tmp_path / "slurm")
    assert job_logs(tmp_path).count("Starting with JobEnvironment") == 2


def seconds_of(job):
    """For how long a job has been at work."""
    shown = subprocess.run(["scontrol", "show", "job", job], check=True, capture_output=True, text=True).stdout
    hours, minutes, seconds = map(int, shown.split("RunTime=")[1].split()[0].split(":"))
    return 3600 * hours + 60 * minutes + seconds


def limit(job, minutes):
    subprocess.run(["scontrol", "update", f"JobId={job}", f"TimeLimit={minutes}"], check=True)


def test_what_ends_a_requeued_job_does_not_end_the_asking(tmp_path):
    """SLURM sends SIGTERM to all of a job, and so to the `scontrol requeue` that waits for its answer in it."""
    asking = tmp_path / "scontrol"
    asking.write_text("#!/bin/bash\nkill -TERM $$\n")
    asking.chmod(0o700)

    def requeue(number, frame):
        subprocess.check_call([asking])
        sys.exit(-1)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(RequeuedError):
        requeue_by(requeue)(signal.SIGUSR2, None)
    assert signal.getsignal(signal.SIGTERM) is before


def cancel(tmp_path):
    subprocess.run(["scancel", job_of(tmp_path)], check=True)


def kill_process(tmp_path):
    lock = next(tmp_path.rglob(".lock"))
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if any(os.path.realpath(file) == str(lock.resolve()) for file in (process / "fd").iterdir()):
                os.kill(int(process.name), signal.SIGKILL)
        except OSError:
            continue


@on_slurm
@pytest.mark.parametrize("kill", [cancel, kill_process])
def test_a_killed_job_is_no_success_and_the_same_command_goes_on(kill, ncflow, local, start, tmp_path):
    process = start(*SLURM, *LONG)
    wait_for(lambda: rows(tmp_path) >= 6, "some epochs")
    kill(tmp_path)
    assert process.wait(120) == 1
    assert "did not end well: it was cancelled, killed or ran out of time or memory" in process.stderr.read()
    assert status_of(run_folder(tmp_path)).status == "interrupted"
    again = ncflow(*SLURM, *LONG)
    assert again.returncode == 0, again.stderr
    assert_same_runs(local, tmp_path)


BREAKING = """
import os, sys
from ncflow.models import MLP

class Breaking(MLP):
    def __init__(self, *, how, **options):
        super().__init__(**options)
        self.how = how

    def forward(self, inputs):
        if self.training and self.how == "raises":
            raise RuntimeError("no luck")
        if self.training and self.how == "exits":
            sys.exit(0)
        if self.training and self.how == "rank 1 exits" and os.environ.get("SLURM_PROCID") == "1":
            os._exit(0)
        return super().forward(inputs)
"""


def end_of(job):
    """State of a job once it has ended: SLURM sees its end a moment after the run's files are there."""
    command = ["scontrol", "show", "job", job]
    for _ in range(100):
        shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        state = shown.split("JobState=")[1].split()[0]
        if state not in ("RUNNING", "COMPLETING"):
            break
        time.sleep(0.2)
    return state


@on_slurm
@pytest.mark.parametrize(("how", "line"), [("raises", "RuntimeError: no luck"), ("exits", "SystemExit: 0")])
def test_a_failing_run_makes_its_job_fail_and_the_others_go_on(how, line, ncflow, tmp_path):
    (tmp_path / "breaking.py").write_text(BREAKING)
    model = ["model._target_=breaking.Breaking", f"+model.how={how},nothing"]
    done = ncflow(*SLURM, *TINY, *model, env={"PYTHONPATH": str(tmp_path)})
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1] == "2 runs: 1 failed, 1 done"
    assert done.stderr.startswith(f"ncflow: failed: {line}; log: ")
    assert len(done.stderr.splitlines()) == 1
    for file in tmp_path.rglob("job.json"):
        job = json.loads(file.read_text())
        assert end_of(job["job"]) == ("FAILED" if job["model.how"] == how else "COMPLETED")


# --- packs --------------------------------------------------------------------------------------------------------

FOUR = [*LONG[1:], "epochs=80", "seed=0,1", "model.norm=none,last"]  # two groups of two


def jobs_of(root):
    """How many runs each job has, by its id."""
    jobs = [json.loads(file.read_text())["job"] for file in root.rglob("job.json")]
    return sorted(Counter(jobs).values())


@pytest.fixture(scope="module")
def packable(tmp_path_factory, warm):
    """Four runs, made here without a stop: one by one, and two as one."""
    tmp_path = tmp_path_factory.mktemp("packable")
    for launcher in ("basic", "stacked"):
        process = warm.start(["-m", f"hydra/launcher={launcher}", *FOUR, f"runs_dir={launcher}"], tmp_path)
        assert process.wait(300) == 0, process.stderr.read()
    return tmp_path


@on_slurm
@pytest.mark.parametrize(
    ("packing", "stop", "sizes", "here"),
    [
        (["pack=stacked"], preempt, [2, 2], "stacked"),
        (["pack=3"], send_usr2, [1, 3], "basic"),
        (["pack=4", "pack_at_once=2", "cpus_per_task=1"], preempt, [4], "basic"),
    ],
)
def test_stopped_packs_give_what_a_local_sweep_gives(packing, stop, sizes, here, packable, start, tmp_path):
    process = start(*SLURM, *FOUR, *(f"hydra.launcher.{option}" for option in packing))
    wait_for(lambda: rows(tmp_path) >= 6, "some epochs")
    assert jobs_of(tmp_path) == sizes
    begun = max(tmp_path.rglob("history.csv"), key=lambda file: file.read_text().count("\n"))
    stop(json.loads(begun.with_name("job.json").read_text())["job"])  # of one that trains: others may still import
    assert process.wait(400) == 0, process.stderr.read()
    said = process.stdout.read()
    packs = "4 runs in 2 packs" if len(sizes) == 2 else "4 runs in 1 pack"
    assert f"submitted {packs} as SLURM job" in said
    assert said.splitlines()[-1] == "4 runs: 4 done"
    assert_same_runs(packable / here, tmp_path)
    logs = job_logs(tmp_path)
    assert logs.count("Starting with JobEnvironment") > len(sizes), logs
    assert "stopped by SIGUSR2" in logs


@on_slurm
def test_a_failing_run_stops_no_other_of_its_pack(ncflow, tmp_path):
    (tmp_path / "breaking.py").write_text(BREAKING)
    model = ["model._target_=breaking.Breaking", "+model.how=nothing,raises,fine"]
    done = ncflow(*SLURM, *TINY, *model, "hydra.launcher.pack=3", env={"PYTHONPATH": str(tmp_path)})
    assert done.returncode == 1
    assert load_runs(tmp_path).set_index("model.how")["status"].to_dict() == {
        "nothing": "done",
        "raises": "failed",
        "fine": "done",
    }
    assert "RuntimeError: no luck" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    (job,) = {json.loads(file.read_text())["job"] for file in tmp_path.rglob("job.json")}
    assert end_of(job) == "FAILED"


@on_slurm
def test_what_is_left_of_killed_packs_is_packed_anew(ncflow, start, tmp_path):
    """Two packs of two on one core: the first is killed at its second run."""
    options = [*FOUR, "hydra.launcher.pack=2"]
    process = start(*SLURM, *options)
    wait_for(lambda: any(tmp_path.rglob("result.json")), "a result")
    seen = [sys.executable, "-c", "from ncflow.cli.status import main; main()", "runs", "--json"]
    shown = subprocess.run(seen, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=True)
    assert {"done", "running"} <= {run["status"] for run in json.loads(shown.stdout)}
    job = job_of_sweep(tmp_path)
    subprocess.run(["scancel", job], check=True)
    assert process.wait(120) == 1
    done = len(list(tmp_path.rglob("result.json")))
    assert 1 <= done < 4
    again = ncflow(*SLURM, *options)
    assert again.returncode == 0, again.stderr
    assert again.stdout.splitlines()[0] == f"4 runs: {done} finished already, {4 - done} to do"
    assert load_runs(tmp_path)["status"].tolist() == ["done"] * 4


# --- several processes a run --------------------------------------------------------------------------------------

DDP = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.precision=64-true", "model.norm=none", "batch_size=50"]
needs_two_cores = pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="needs two cores")


@on_slurm
@needs_two_cores
def test_two_tasks_share_a_run_and_survive_a_preemption(ncflow, start, tmp_path):
    options = [*LONG, *DDP]
    process = start(*SLURM, *options, "runs_dir=slurm")
    wait_for(lambda: rows(tmp_path) >= 6, "some epochs")
    preempt(None)
    assert process.wait(200) == 0, process.stderr.read()
    logs = job_logs(tmp_path)
    assert logs.count("global_rank=1(2)") >= 2
    assert "stopped by SIGUSR2" in logs
    alone = ncflow(*options, "trainer.devices=1", "runs_dir=here")
    assert alone.returncode == 0, alone.stderr
    one, two = (json.loads((run_folder(tmp_path / root) / "result.json").read_text()) for root in ("here", "slurm"))
    assert one["run_id"] == two["run_id"]
    for key, value in one.items():
        if key.startswith(("train/", "test/")) and value is not None:
            assert two[key] == pytest.approx(value, rel=1e-7, abs=1e-9), key


@on_slurm
@needs_two_cores
def test_a_task_that_ends_alone_is_no_success(ncflow, tmp_path):
    (tmp_path / "breaking.py").write_text(BREAKING)
    model = ["model._target_=breaking.Breaking", "+model.how=rank 1 exits"]
    done = ncflow(*SLURM, *TINY, *DDP, *model, env={"PYTHONPATH": str(tmp_path)})
    assert done.returncode == 1
    assert load_runs(tmp_path)["status"].item() in ("failed", "interrupted")
    assert len(done.stderr.splitlines()) == 1


# --- what is refused ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["hydra.launcher.timeout_min=0"], "timeout_min must be at least 1, found 0"),
        (["hydra.launcher.timeout_min=1 day"], "timeout_min must be a whole number, found '1 day'"),
        (["hydra.launcher.timeout_min=2"], "signal_delay_s must be less than the time of the job, 120 s, found 120"),
        (
            ["hydra.launcher.timeout_min=10", "hydra.launcher.max_num_timeout=0"],
            "max_num_timeout must be at least 1 where timeout_min is at most 10 "
            "(a preemption would count as a time-out), found 0",
        ),
        (["hydra.launcher.tasks_per_node=2"], "tasks_per_node must be trainer.devices = 1 of every run, found 2"),
        (["hydra.launcher.nodes=2"], "nodes must be trainer.num_nodes = 1 of every run, found 2"),
        (
            ["hydra.launcher.gpus_per_node=4", "trainer=gpu"],
            "gpus_per_node must be null or trainer.devices = 1, found 4",
        ),
        (["hydra.launcher.mem_gb=abc"], "mem_gb must be a whole number or null, found 'abc'"),
        (["hydra.launcher.cpus_per_task=0"], "cpus_per_task must be at least 1, found 0"),
        (["hydra.launcher.wait=maybe"], "wait must be true or false, found 'maybe'"),
        (["hydra.launcher.modules=cuda"], "modules must be a list of which each is text, found 'cuda'"),
        (["hydra.launcher.pack=0"], "pack must be null, stacked or a number of runs of at least 1, found 0"),
        (["hydra.launcher.pack_at_once=2"], "pack_at_once must be 1 where pack is null, found 2"),
        (
            ["hydra.launcher.pack=stacked", "hydra.launcher.pack_at_once=2"],
            "pack_at_once must be 1 where pack is stacked, found 2",
        ),
        (["hydra.launcher.gpu_mem_gb=-1"], "gpu_mem_gb must be greater than 0, found -1"),
        (
            ["hydra.launcher.pack=2", "trainer=ddp", "trainer.devices=2"],
            "pack must be null for runs of several processes, found 2",
        ),
    ],
)
def test_a_request_that_does_not_fit_the_runs_is_refused(overrides, line, config):
    cfg = config("hydra/launcher=slurm", *overrides, return_hydra_config=True)
    options = OmegaConf.to_container(cfg, resolve=False)["hydra"]["launcher"]
    resolved = {name: OmegaConf.select(cfg, f"hydra.launcher.{name}") for name in options if name != "submitit_folder"}
    plain = {n: OmegaConf.to_container(v) if OmegaConf.is_config(v) else v for n, v in resolved.items()}
    with pytest.raises(ConfigError) as error:
        check({**plain, "submitit_folder": ""}, [cfg])
    assert str(error.value) == f"hydra.launcher.{line}"


def test_without_slurm_or_without_a_sweep_one_line_says_so(ncflow, tmp_path):
    empty = {"PATH": str(tmp_path)}
    done = ncflow(*SLURM, *TINY, env=empty)
    assert (done.returncode, done.stderr) == (
        2,
        "ncflow: error: hydra/launcher=slurm needs sbatch on the PATH, found none: submit from the cluster\n",
    )
    done = ncflow("hydra/launcher=slurm", *TINY)
    assert (done.returncode, done.stderr) == (
        2,
        "ncflow: error: hydra/launcher=slurm submits sweeps, and this is a single run: add -m\n",
    )
    assert not list(tmp_path.rglob("run.json"))


@on_slurm
def test_what_slurm_refuses_is_one_line(ncflow, tmp_path):
    done = ncflow(*SLURM, *TINY, "hydra.launcher.partition=nowhere")
    assert done.returncode == 2
    assert "SLURM refuses the jobs: " in done.stderr
    assert "invalid partition specified: nowhere" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not list(tmp_path.rglob("job.json"))
