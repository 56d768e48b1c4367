"""Life of a run: trained, skipped, killed and resumed, diverged, failed, locked; alone and in a sweep."""

import json
import os
import signal
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from lightning import Callback
from torch import nn

from ncflow.metrics import collapse
from ncflow.models import Classifier
from ncflow.models.mlp import MLP
from ncflow.results import COLUMNS, load_history, load_runs
from ncflow.runtime import run_loggers
from ncflow.runtime.signals import StoppedBySignalError
from ncflow.seeding import derive_seed, epoch_order
from ncflow.training import loggers
from ncflow.training.assembly import prepare
from tests.conftest import TINY, run_folder, train_here

MEASURES = ("train/", "test/")


def measures(folder):
    result = json.loads((folder / "result.json").read_text())
    return {key: value for key, value in result.items() if key.startswith(MEASURES)}


def assert_same_run(one, other):
    assert (one / "history.csv").read_text() == (other / "history.csv").read_text()
    assert measures(one) == measures(other)
    assert_same_weights(one, other)


def assert_same_weights(one, other):
    a, b = (torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["state_dict"] for folder in (one, other))
    assert all(torch.equal(a[name], b[name]) for name in a)


# --- one run ----------------------------------------------------------------------------------------------------


def test_a_run_leaves_its_folder_and_is_skipped_the_second_time(ncflow, tmp_path):
    first = ncflow(*TINY)
    assert first.returncode == 0, first.stderr
    folder = run_folder(tmp_path / "runs" / "single")
    for name in ("history.csv", "result.json", "run.json", "ncflow.log", "checkpoints/last.ckpt", ".hydra/config.yaml"):
        assert (folder / name).exists(), name
    result = json.loads((folder / "result.json").read_text())
    assert result["status"] == "done"
    assert result["model.width"] == 16
    assert folder.name.endswith(result["run_id"])
    history = load_history(tmp_path)
    assert sorted(history["epoch"].unique()) == [0, 5, 6]
    last = history[(history["epoch"] == 6) & (history["split"] == "train")].iloc[0]
    assert last["intra_min"] == result["train/intra_min"]
    before = {file: file.stat().st_mtime_ns for file in folder.rglob("*.c*")}
    second = ncflow(*TINY)
    assert second.returncode == 0
    assert second.stdout.startswith("finished already")
    assert before == {file: file.stat().st_mtime_ns for file in folder.rglob("*.c*")}


def test_a_skipped_run_does_not_load_pytorch(ncflow, tmp_path):
    assert ncflow(*TINY).returncode == 0
    code = (
        "import sys; from ncflow.cli.train import main\n"
        "try: main()\nexcept SystemExit as e: assert not e.code\nassert 'torch' not in sys.modules"
    )
    again = ncflow(*TINY, program=(sys.executable, "-c", code))
    assert again.returncode == 0, again.stderr
    assert "finished already" in again.stdout


def test_module_and_console_script_are_one_program(ncflow):
    script = Path(sys.executable).with_name("ncflow")
    assert ncflow(*TINY).returncode == 0
    assert ncflow(*TINY, program=[script]).stdout.startswith("finished already")
    help_texts = [ncflow("--help", program=program).stdout for program in ([script], [sys.executable, "-m", "ncflow"])]
    assert help_texts[0] == help_texts[1] != ""


def test_output_is_plain_lines_where_nobody_watches(ncflow):
    done = ncflow(*TINY)
    assert "\x1b" not in done.stdout + done.stderr
    assert len(done.stdout.splitlines()) == 1
    assert done.stderr == ""


@pytest.mark.parametrize(("given", "found"), [(None, "1"), ("3", "3")])
def test_libraries_keep_no_threads_that_wait_busily_unless_asked_for(given, found, ncflow):
    code = (
        "import os; os.environ.pop('OMP_NUM_THREADS', None); from ncflow.cli import train\n"
        f"if {given!r}: os.environ['OMP_NUM_THREADS'] = {given!r}\n"
        "train.hydra.main = lambda **_: lambda _: lambda: print('threads', os.environ['OMP_NUM_THREADS'])\n"
        "train.main()"
    )
    assert f"threads {found}" in ncflow(code=code).stdout


def test_denormals_are_flushed(ncflow):
    code = (
        "import sys, torch; from ncflow.cli.train import main\n"
        "tiny = lambda: float(torch.tensor([1e-30]) * torch.tensor([1e-10]))\n"
        "assert tiny() != 0\ntry: main()\nexcept SystemExit as e: assert not e.code\nassert tiny() == 0"
    )
    done = ncflow(*TINY, code=code)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("norm", ["none", "last", "all"])
@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_a_hand_written_loop_gives_the_same_weights_after_50_steps(norm, optimizer, config, tmp_path):
    """The whole path through Lightning against ten lines of PyTorch with the same generators."""
    from lightning import Trainer

    options = [f"model.norm={norm}", f"optimizer={optimizer}", "weight_decay=0.01", "seed=3", "epochs=10"]
    cfg = config("data.num_samples=320", "batch_size=64", "model.width=16", *options)
    data, classifier = prepare(cfg)
    Trainer(
        max_epochs=10,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    ).fit(classifier, datamodule=data)

    torch.manual_seed(derive_seed(3, "init"))
    network = MLP((16,), 4, depth=4, width=16, norm=norm)
    kinds = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}
    more = {"lr": 0.0679, "momentum": 0.9} if optimizer == "sgd" else {"lr": 1e-3}
    loop = kinds[optimizer](network.parameters(), weight_decay=0.01, fused=True, **more)
    for epoch in range(10):
        for group in loop.param_groups:
            group["lr"] = more["lr"] * 0.1 ** sum(epoch >= milestone for milestone in (3, 5, 8))
        for index in epoch_order(3, epoch, 320).split(64):
            loop.zero_grad()
            nn.functional.cross_entropy(network(data.train.inputs[index]), data.train.labels[index]).backward()
            loop.step()
    for (name, found), expected in zip(
        classifier.network.state_dict().items(), network.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7, msg=name)


def test_the_seed_decides_weights_and_data(config):
    def start(*options):
        data, classifier = prepare(config(*TINY[1:], *options))
        return torch.cat([p.flatten() for p in classifier.parameters()] + [data.train.inputs.flatten()])

    assert torch.equal(start("seed=0"), start("seed=0", "weight_decay=0.1"))
    assert not torch.equal(start("seed=0"), start("seed=1"))


def test_arrays_that_someone_else_made(ncflow, tmp_path):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "mine.npz", X=rng.normal(size=(300, 3, 4)), y=np.arange(300) % 3)
    done = ncflow("data=arrays", "data.path=mine.npz", "epochs=5", "model.width=16", "trainer=cpu")
    assert done.returncode == 0, done.stderr
    runs = load_runs(tmp_path)
    assert runs["train/classes_present"].item() == 3


def test_random_labels_are_the_same_in_every_measurement_and_after_a_resume(config):
    cfg = config(*TINY[1:], "data.random_labels=0.5", "seed=4")
    one, other = prepare(cfg)[0], prepare(cfg)[0]
    assert torch.equal(one.train.labels, other.train.labels)


# --- interruption -----------------------------------------------------------------------------------------------

LONG = ["epochs=60", "model.width=48", "data.num_samples=1200", "data.num_test=100", "trainer=cpu", "weight_decay=5e-3"]


@pytest.fixture(scope="module")
def start(warm):
    """Start ``ncflow`` with its runs below a folder."""
    return lambda folder, *arguments: warm.start(arguments, folder)


def kill_when(process, condition, timeout=120):
    """kill -9 as soon as a condition holds; whether it came before the process ended."""
    end = time.time() + timeout
    while process.poll() is None and time.time() < end:
        if condition():
            process.kill()
            process.wait()
            return True
        time.sleep(0.001)
    return False


def rows(tmp_path):
    file = next(iter(tmp_path.glob("runs/single/*/history.csv")), None)
    return 0 if file is None else file.read_text().count("\n")


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, start):
    tmp_path = tmp_path_factory.mktemp("whole")
    process = start(tmp_path, *LONG)
    assert process.wait(120) == 0, process.stderr.read()
    return run_folder(tmp_path)


MOMENTS = {
    "before the first measurement": [lambda t: any(t.glob("runs/single/*/run.json"))],
    "in the middle, twice": [lambda t: rows(t) >= 6, lambda t: rows(t) >= 14],
    "after the last epoch, before the result": [lambda t: rows(t) >= 27],
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_run_goes_on_to_the_same_numbers(moment, tmp_path, uninterrupted, start):
    killed = 0
    for condition in MOMENTS[moment]:
        killed += kill_when(start(tmp_path, *LONG), lambda condition=condition: condition(tmp_path))
    if moment.startswith("after the last"):  # a moment too short to hit for certain: make it
        (run_folder(tmp_path) / "result.json").unlink(missing_ok=True)
    else:
        assert killed == len(MOMENTS[moment])
        assert not (run_folder(tmp_path) / "result.json").exists()
        assert load_runs(tmp_path)["status"].tolist() == ["interrupted"]
    last = start(tmp_path, *LONG)
    assert last.wait(120) == 0, last.stderr.read()
    assert_same_run(run_folder(tmp_path), uninterrupted)


def test_ctrl_c_leaves_no_result_and_the_run_goes_on(tmp_path, uninterrupted, start):
    process = start(tmp_path, *LONG)
    while rows(tmp_path) < 6 and process.poll() is None:
        time.sleep(0.001)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) != 0
    assert not (run_folder(tmp_path) / "result.json").exists()
    assert start(tmp_path, *LONG).wait(120) == 0
    assert_same_run(run_folder(tmp_path), uninterrupted)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1", "SIGUSR2"])
def test_a_signal_saves_within_the_epoch_and_the_run_goes_on(name, tmp_path, uninterrupted, start):
    process = start(tmp_path, *LONG)
    while rows(tmp_path) < 6 and process.poll() is None:
        time.sleep(0.001)
    time.sleep(0.05)
    number = getattr(signal, name)
    process.send_signal(number)
    assert process.wait(60) == 128 + number, process.stderr.read()
    folder = run_folder(tmp_path)
    assert f"stopped by {name}" in process.stdout.read()
    assert load_runs(tmp_path)["status"].tolist() == ["interrupted"]
    assert not (folder / "result.json").exists()
    assert start(tmp_path, *LONG).wait(120) == 0
    assert_same_run(folder, uninterrupted)


def test_a_signal_ends_a_sweep(tmp_path, start):
    process = start(tmp_path, "-m", *LONG, "seed=0,1")
    while rows(tmp_path) < 6 and process.poll() is None:
        time.sleep(0.001)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 128 + signal.SIGTERM
    assert len(list(tmp_path.glob("runs/single/*/run.json"))) == 1


class AskedAsTrainingBegins(Callback):
    """When Lightning listens already, and the run's own callback does not yet."""

    def on_train_start(self, trainer, pl_module):
        os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize("given", [[], ["+trainer.accumulate_grad_batches=3"]], ids=str)
def test_a_signal_as_training_begins_is_a_stop_and_no_failure(given, config, tmp_path):
    cfg = config("epochs=4", "data.num_samples=60", "batch_size=8", "trainer=cpu", *given)
    with pytest.raises(StoppedBySignalError, match="stopped by SIGTERM as training began"):
        train_here(cfg, tmp_path, callbacks=[AskedAsTrainingBegins()])
    assert train_here(cfg, tmp_path).status == "done"


def steps(folder):
    return torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["global_step"]


@contextmanager
def stopping(when, monkeypatch):
    """In here, a run is asked to stop when the trainer is where it should."""
    from ncflow.callbacks.resume import SaveForResume

    look = SaveForResume._is_asked

    def ask(self, trainer, at_epoch_end=False):
        if when(trainer):
            self._listener.received = signal.SIGTERM
        return look(self, trainer, at_epoch_end)

    with monkeypatch.context() as patch:
        patch.setattr(SaveForResume, "_is_asked", ask)
        yield


@pytest.mark.parametrize(
    ("stop_after", "optimizer"),
    [
        (1, ["optimizer=sgd"]),
        (3, ["optimizer=sgd", "trainer.precision=64-true"]),
        (7, ["optimizer=signum", "weight_decay_coupling=0.5"]),
        (8, ["optimizer=sgd", "trainer.precision=64-true"]),
        (9, ["optimizer=adam", "weight_decay_coupling=0"]),
    ],
)
def test_a_stop_after_any_batch_changes_nothing(stop_after, optimizer, config, tmp_path, monkeypatch):
    """8 batches an epoch; after the last of an epoch, the stop is at the epoch's end."""
    options = ["epochs=4", "data.num_samples=60", "batch_size=8", "model.width=16", "data.num_test=20", "trainer=cpu"]
    measured = ["measure.every_n_epochs=2", "measure.margins=true", "measure.first_steps=20", "measure.per_class=true"]
    recipe = ["scheduler=cosine", "scheduler.warmup_epochs=2", "loss.label_smoothing=0.1", "model.simplex=1"]
    more = recipe if "trainer.precision=64-true" in optimizer else []
    cfg = config(*options, *measured, "measure.groups=[uniformity,probe,few_shot]", *optimizer, *more)
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    train_here(cfg, whole)
    place = "in epoch" if stop_after % 8 else "after epoch"
    with (
        stopping(lambda trainer: trainer.global_step == stop_after, monkeypatch),
        pytest.raises(StoppedBySignalError, match=place),
    ):
        train_here(cfg, stopped)
    saved = torch.load(stopped / "checkpoints/last.ckpt", weights_only=True)
    assert saved["global_step"] == stop_after
    assert json.loads((stopped / "progress.json").read_text())["epoch"] == stop_after // 8
    train_here(cfg, stopped)
    assert measures(stopped) == measures(whole)
    assert {steps(stopped), steps(whole)} == {32}
    for name in ("history.csv", "margins.csv", "classes.csv", "pairs.csv"):
        assert (whole / name).read_text() == (stopped / name).read_text()
    a, b = (
        torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["state_dict"] for folder in (whole, stopped)
    )
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_a_run_that_an_earlier_version_began_goes_on_with_its_columns(config, tmp_path, monkeypatch):
    """One that did not measure the uncentred cosines yet: its final measures have them, its history does not."""
    cfg = config(
        *["epochs=4", "data.num_samples=60", "batch_size=8", "model.width=16", "data.num_test=20", "trainer=cpu"],
        *["measure.every_n_epochs=2"],
    )
    older = [column for column in COLUMNS if "_raw_" not in column or column.endswith("_limit")]
    train_here(cfg, tmp_path / "whole")
    with monkeypatch.context() as patch, stopping(lambda trainer: trainer.global_step == 20, monkeypatch):
        measured = collapse.cosine_measures
        patch.setattr(collapse, "cosine_measures", lambda *given: measured(*given) if len(given) < 5 else {})
        patch.setattr("ncflow.training.assembly.columns_with", lambda groups: older)
        with pytest.raises(StoppedBySignalError):
            train_here(cfg, tmp_path / "begun")
    train_here(cfg, tmp_path / "begun")
    assert measures(tmp_path / "begun") == measures(tmp_path / "whole")
    whole, begun = (load_history(tmp_path / name).drop(columns=["folder"]) for name in ("whole", "begun"))
    assert list(begun) == [column for column in whole if "_raw_" not in column or column.endswith("_limit")]
    assert begun["epoch"].tolist() == [0, 0, 2, 2, 4, 4]
    pd.testing.assert_frame_equal(begun, whole[list(begun)], check_exact=True)


def test_further_callbacks_see_the_training_and_change_nothing(config, tmp_path):
    from lightning.pytorch.callbacks import LambdaCallback

    cfg, seen = config(*TINY), []
    watch = LambdaCallback(on_train_epoch_end=lambda trainer, module: seen.append(trainer.current_epoch))
    watched = train_here(cfg, tmp_path / "watched", callbacks=[watch])
    assert seen == list(range(cfg.epochs))
    assert watched.status == train_here(cfg, tmp_path / "plain").status
    assert measures(tmp_path / "watched") == measures(tmp_path / "plain")


@pytest.mark.parametrize(("stop_after", "at"), [(4, 6), (6, 6), (7, 8), (13, 14)])
def test_a_stop_between_gradients_that_are_summed_waits_for_their_step(stop_after, at, config, tmp_path, monkeypatch):
    """8 batches an epoch in steps of 3, 3 and 2 batches."""
    cfg = config(
        *["epochs=3", "data.num_samples=60", "batch_size=8", "model.width=16", "data.num_test=20", "trainer=cpu"],
        *["+trainer.accumulate_grad_batches=3", "optimizer=sgd"],
    )
    train_here(cfg, tmp_path / "whole")

    def is_there(trainer):
        return trainer.current_epoch * 8 + trainer.fit_loop.batch_idx + 1 == stop_after

    with stopping(is_there, monkeypatch), pytest.raises(StoppedBySignalError):
        train_here(cfg, tmp_path / "stopped")
    saved = torch.load(tmp_path / "stopped/checkpoints/last.ckpt", weights_only=True)
    assert saved["global_step"] == at // 8 * 3 + at % 8 // 3
    train_here(cfg, tmp_path / "stopped")
    assert measures(tmp_path / "stopped") == measures(tmp_path / "whole")
    assert steps(tmp_path / "stopped") == steps(tmp_path / "whole")


def test_a_broken_checkpoint_is_named(ncflow, tmp_path, start):
    kill_when(start(tmp_path, *LONG), lambda: rows(tmp_path) >= 6)
    checkpoint = run_folder(tmp_path) / "checkpoints/last.ckpt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    done = ncflow(*LONG)
    assert done.returncode == 1
    assert (
        "the checkpoint is not used: it cannot be read (BadZipFile: File is not a zip file); delete it to start anew"
        in done.stderr
    )
    assert str(checkpoint.name) in done.stderr
    assert rows(tmp_path) >= 6


def test_a_second_process_leaves_a_running_run_alone(ncflow, tmp_path, uninterrupted, start):
    first = start(tmp_path, *LONG)
    while rows(tmp_path) < 4 and first.poll() is None:
        time.sleep(0.001)
    first.send_signal(signal.SIGSTOP)
    second = ncflow(*LONG)
    assert load_runs(tmp_path)["status"].tolist() == ["running"]
    first.send_signal(signal.SIGCONT)
    assert second.returncode == 0
    assert "left alone, another process is at work on it" in second.stdout
    assert first.wait(120) == 0
    assert_same_run(run_folder(tmp_path), uninterrupted)


# --- what goes wrong --------------------------------------------------------------------------------------------


def test_a_diverged_run_is_a_row_and_is_not_run_again(ncflow, tmp_path):
    options = [*TINY, "optimizer=sgd", "optimizer.lr=1e20", "model.norm=none", "epochs=30"]
    done = ncflow(*options)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("diverged")
    runs = load_runs(tmp_path)
    assert runs["status"].item() == "diverged"
    assert runs["train/loss"].isna().item()
    assert load_history(tmp_path)["epoch"].max() == 1
    assert ncflow(*options).stdout.startswith("finished already")


def test_bad_input_leaves_no_run_behind(ncflow, tmp_path):
    done = ncflow("model.depth=1")
    assert done.returncode == 2
    assert done.stderr.strip() == (
        "ncflow: error: model.depth must be at least 2 (one hidden layer and the classifier), found 1"
    )
    assert done.stdout == ""
    assert not list(tmp_path.rglob("run.json"))


def test_a_folder_that_cannot_be_made_is_named(ncflow, tmp_path):
    (tmp_path / "file").write_text("in the way")
    done = ncflow(*TINY, "runs_dir=file/below")
    assert done.returncode == 2
    assert done.stderr.startswith("ncflow: error: [Errno 20] Not a directory: ")
    assert len(done.stderr.splitlines()) == 1


def test_a_folder_of_another_run_is_not_overwritten(ncflow, tmp_path):
    assert ncflow(*TINY, "hydra.run.dir=mine").returncode == 0
    before = (tmp_path / "mine/result.json").read_text()
    done = ncflow(*TINY, "seed=1", "hydra.run.dir=mine")
    assert done.returncode == 2
    assert "holds another run" in done.stderr
    assert (tmp_path / "mine/result.json").read_text() == before


def test_a_full_disk_is_an_error_that_loses_nothing(tmp_path, ncflow):
    """No file may grow beyond 20 kB: the checkpoint cannot be written, as on a full disk."""
    assert ncflow(*TINY).returncode == 0
    done_before = run_folder(tmp_path).joinpath("result.json").read_text()
    options = [*TINY, "seed=1", "model.width=128"]
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))\n"
        "from ncflow.cli.train import main; main()"
    )
    limited = ncflow(*options, code=code)
    assert limited.returncode == 1
    assert "File too large" in limited.stderr
    assert len(limited.stderr.splitlines()) == 1
    runs = load_runs(tmp_path).set_index("status")
    assert set(runs.index) == {"done", "failed"}
    assert (Path(runs.loc["done", "folder"]) / "result.json").read_text() == done_before
    assert not list(tmp_path.rglob("*.tmp"))
    assert ncflow(*options).returncode == 0
    assert set(load_runs(tmp_path)["status"]) == {"done"}


# --- sweeps -----------------------------------------------------------------------------------------------------

SWEEP = ["-m", *TINY, "model.norm=none,last", "weight_decay=1e-3,1e-2"]


def test_a_sweep_equals_its_runs_alone_and_is_skipped(ncflow, tmp_path):
    done = ncflow(*SWEEP)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "4 runs: 0 finished already, 4 to do"
    assert done.stdout.splitlines()[-1] == "4 runs: 4 done"
    assert ncflow(*TINY, "model.norm=last", "weight_decay=1e-2", "runs_dir=alone").returncode == 0
    alone = run_folder(tmp_path / "alone")
    assert_same_run(tmp_path / "runs/single" / alone.name, alone)
    again = ncflow(*SWEEP)
    assert again.returncode == 0
    assert again.stdout.splitlines() == ["4 runs: 4 finished already, 0 to do", "4 runs: 4 skipped"]
    more = ncflow(*SWEEP, "weight_decay=1e-2,1e-1")  # the later override of a key counts
    assert more.stdout.splitlines()[0] == "4 runs: 2 finished already, 2 to do"


def test_a_sweep_in_processes_equals_the_same_sweep_in_one(ncflow, tmp_path):
    assert ncflow(*SWEEP).returncode == 0
    done = ncflow(*SWEEP, "runs_dir=parallel", "hydra/launcher=local", "hydra.launcher.n_jobs=2")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "4 runs: 4 done"
    folders = sorted((tmp_path / "parallel/single").glob("*-*"))
    assert len(folders) == 4
    for folder in folders:
        assert_same_run(folder, tmp_path / "runs/single" / folder.name)


@pytest.mark.parametrize("launcher", ["basic", "local"])
def test_a_failing_run_does_not_stop_its_sweep(launcher, ncflow, tmp_path):
    # With so few points the random teacher of one of the seeds leaves a class empty.
    options = [
        "data=teacher_mlp",
        "data.teacher_width=2",
        "model.depth=4",
        "data.num_samples=12",
        "epochs=1",
        "trainer=cpu",
    ]
    seeds = "seed=0,1,2,3,4,5"
    done = ncflow("-m", *options, "data.num_test=5", seeds, "data.num_classes=2", f"hydra/launcher={launcher}")
    runs = load_runs(tmp_path)
    counts = runs["status"].value_counts()
    assert counts.sum() == 6
    assert counts["done"] >= 1
    assert counts["failed"] >= 1
    assert done.returncode == 1
    assert f"6 runs: {counts['done']} done" in done.stdout or f"{counts['failed']} failed" in done.stdout
    for _, run in runs[runs["status"] == "failed"].iterrows():
        assert "every class a training sample" in run["error"]
        log = Path(run["folder"]) / "ncflow.log"
        assert "Traceback" in log.read_text()
        assert Path(run["folder"]).name in done.stderr
        assert "ncflow.log" in done.stderr


def test_a_bad_cell_is_refused_before_the_first_run(ncflow, tmp_path):
    done = ncflow("-m", *TINY, "model.norm=last,none", "model.gamma=0.5")
    assert done.returncode == 2
    assert "model.gamma must be null where norm is 'none'" in done.stderr
    assert "in the cell" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not list(tmp_path.rglob("run.json"))


def test_a_killed_sweep_goes_on(tmp_path, ncflow, start):
    assert ncflow(*SWEEP, "runs_dir=whole").returncode == 0
    process = start(tmp_path, *SWEEP)
    assert kill_when(process, lambda: any(tmp_path.glob("runs/single/*/result.json")))
    done = ncflow(*SWEEP)
    assert done.returncode == 0
    for folder in (tmp_path / "whole/single").glob("*-*"):
        assert_same_run(folder, tmp_path / "runs/single" / folder.name)


def test_an_experiment_is_a_sweep_and_an_override_narrows_it(ncflow, tmp_path):
    narrow = ["data=conic_hull", "model.depth=4", "model.norm=last", "weight_decay=5e-3", "seed=0", "epochs=1"]
    done = ncflow("experiment=pan_cao/fig2", *narrow, "data.num_samples=200", "trainer=cpu")
    assert done.returncode == 0, done.stderr
    folder = run_folder(tmp_path / "runs/pan_cao/fig2")
    result = json.loads((folder / "result.json").read_text())
    assert (result["model.width"], result["experiment"]) == (300, "pan_cao/fig2")


def test_environment_file_is_read_and_the_shell_wins(ncflow, tmp_path):
    (tmp_path / ".env").write_text("NCFLOW_RUNS_DIR=from_where_one_stands\n")
    (tmp_path / "named").write_text("NCFLOW_RUNS_DIR=from_file\nWANDB_PROJECT=\n")
    named = {"NCFLOW_ENV_FILE": str(tmp_path / "named")}
    assert ncflow(*TINY, env=named).returncode == 0
    assert run_folder(tmp_path / "from_file")
    assert ncflow(*TINY, env={**named, "NCFLOW_RUNS_DIR": "from_shell"}).returncode == 0
    assert run_folder(tmp_path / "from_shell")
    assert not (tmp_path / "from_where_one_stands").exists()


def test_an_environment_file_that_is_not_there_is_one_line_before_anything(ncflow, tmp_path):
    done = ncflow(*TINY, env={"NCFLOW_ENV_FILE": "nowhere"})
    assert done.returncode == 2
    rule = "NCFLOW_ENV_FILE must be a file that can be read (No such file or directory)"
    assert done.stderr == f"ncflow: error: {rule}, found 'nowhere'\n"
    assert not list(tmp_path.iterdir())


def test_logger_none_keeps_the_result_alone(ncflow, tmp_path):
    assert ncflow(*TINY, "logger=none").returncode == 0
    folder = run_folder(tmp_path)
    assert (folder / "result.json").exists()
    assert not (folder / "history.csv").exists()
    assert not os.path.exists(folder / "wandb")


# --- looking closer ---------------------------------------------------------------------------------------------


def test_a_debug_run_is_one_epoch_and_stops_at_a_nan_where_it_arises(config, tmp_path, monkeypatch):
    small = ["experiment=debug", "model.width=16", "trainer=cpu"]
    report = train_here(config(*small, "trainer.profiler=simple"), tmp_path / "whole")
    assert (report.status, report.values["epochs"], report.values["data.num_samples"]) == ("done", 1, 100)
    assert "run_training_epoch" in (tmp_path / "whole/fit-profile.txt").read_text()
    forward = Classifier.training_step
    poisoned = lambda self, batch, index: (forward(self, batch, index) - 1e4).sqrt()  # noqa: E731
    monkeypatch.setattr(Classifier, "training_step", poisoned)
    with pytest.raises(RuntimeError, match=r"SqrtBackward0.* returned nan values"):
        train_here(config(*small), tmp_path / "broken")
    assert not torch.is_anomaly_enabled()


def test_measures_reach_tensorboard_at_the_steps_of_the_history(config, tmp_path, monkeypatch):
    rows = []
    monkeypatch.setattr(loggers, "missing_package", lambda name: None)
    keep = lambda self, metrics, step=None: rows.append((step, int(metrics["epoch"]), metrics["train/nc1"]))  # noqa: E731
    monkeypatch.setattr(run_loggers.RunLogger, "log_metrics", keep)
    train_here(config(*TINY, "logger=tensorboard"), tmp_path)
    history = load_history(tmp_path).query("split == 'train'")
    assert [(epoch, nc1) for _, epoch, nc1 in rows] == list(zip(history["epoch"], history["nc1"], strict=True))
    assert [step for step, *_ in rows] == [3 * epoch for epoch in history["epoch"]]
