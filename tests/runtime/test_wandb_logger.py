"""W&B: what a run sends, read back from its file; the same run after a resume; servers that fail; W&B's own sweeps."""

import contextlib
import json
import logging
import math
import os
import re
import shlex
import socket
import subprocess
import sys
import threading
import time
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import matplotlib
import pytest
import torch
import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from ncflow.callbacks import NeuralCollapseCallback
from ncflow.config.identity import describe, setting_id
from ncflow.config.schema import ConfigError
from ncflow.results import RunFolder, load_history, write_json
from ncflow.runtime import wandb_logger as loggers
from ncflow.runtime import wandb_runs, wandb_server
from ncflow.runtime.signals import StoppedBySignalError
from ncflow.runtime.wandb_logger import WandbRunLogger, _histogram, log_finished, wandb_logger
from ncflow.runtime.wandb_runs import _tags, whereabouts
from ncflow.runtime.wandb_server import _ask, _key
from ncflow.training import fit as fitting
from ncflow.training.loggers import make_loggers
from tests.conftest import TINY, environment, run_folder, train_here
from tests.wandb_files import files, read_all
from tests.wandb_server import listening, nowhere, serving

KEY = "k" * 40
ROOT = Path(__file__).parents[2]


@pytest.fixture
def home(tmp_path):
    """Environment of a user without W&B key."""
    nobody = {"HOME": str(tmp_path), "NETRC": "/nonexistent", "no_proxy": "127.0.0.1"}
    fonts = {"MPLCONFIGDIR": matplotlib.get_configdir()}  # in a new home they would be collected anew
    times = {"WANDB_FINISH_TIMEOUT": "4", "WANDB__FILE_STREAM_TRANSMIT_INTERVAL": "1"}
    return nobody | fonts | times | {"WANDB_ERROR_REPORTING": "false"}


@pytest.fixture
def wandb_run(ncflow, home):
    """``ncflow logger=wandb``, without W&B key or with the environment of a server."""
    return lambda *arguments, env=None, **options: ncflow(*arguments, "logger=wandb", env=home | (env or {}), **options)


@pytest.fixture
def process(monkeypatch, home):
    """This process as one that knows of no server and of no key yet."""
    import wandb

    monkeypatch.setattr(wandb_runs, "_process", SimpleNamespace(mode=None, runs=0, late=False))
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    for name, value in home.items():
        monkeypatch.setenv(name, value)
    yield monkeypatch
    wandb.teardown()


@pytest.fixture
def run_here(process, config, tmp_path):
    """Train in this process with the environment of a server; return the run's folder."""

    def train(env, *overrides):
        for name, value in env.items():
            process.setenv(name, value)
        cfg = config(*TINY, "logger=wandb", *overrides)
        train_here(cfg, tmp_path / "run")
        return tmp_path / "run"

    return train


def at(url):
    return {"WANDB_BASE_URL": url, "WANDB_API_KEY": KEY}


def result(folder):
    return json.loads((folder / "result.json").read_text())


def finite_measures(folder):
    measures = {key: value for key, value in result(folder).items() if key.startswith(("train/", "test/"))}
    return {key: value for key, value in measures.items() if value is not None}


def assert_has_final_row(saved, folder):
    """NaN, which result.json writes as null, stays NaN."""
    expected = {key: value for key, value in result(folder).items() if key.startswith(("train/", "test/"))}
    expected = {key: math.nan if value is None else value for key, value in expected.items()}
    assert len(expected) > 80
    assert {key: saved.summary[key] for key in expected} == pytest.approx(expected, rel=1e-15, nan_ok=True)
    assert saved.summary["status"] == result(folder)["status"]
    assert saved.summary["seconds"] == pytest.approx(result(folder)["seconds"], abs=1e-3)
    assert saved.exit_code == 0


# --- what a run sends -------------------------------------------------------------------------------------------


def test_a_run_sends_its_config_every_measure_and_its_final_row(wandb_run, tmp_path):
    grid = ["experiment=quickstart", "hydra.mode=RUN", "epochs=6", "data.num_samples=300"]
    done = wandb_run(*TINY, *grid, "measure.layers=all", "measure.margins=true", "measure.first_steps=4")
    assert done.returncode == 0, done.stderr
    assert "W&B: no key found, so runs are kept offline in their folders; `ncflow-sync` sends them later" in done.stdout
    folder = run_folder(tmp_path)
    (saved,) = read_all(folder)
    assert saved.run.display_name == folder.name.rsplit("-", 1)[0]
    assert saved.run.run_group == "quickstart"
    assert set(saved.run.tags) == {"quickstart", "mlp3", "conic_hull", "norm=last"}
    assert saved.config["data.name"] == "conic_hull"
    assert saved.config["run_id"] == folder.name.rsplit("-", 1)[1]
    assert_has_final_row(saved, folder)
    assert saved.summary["epoch"] == 6

    measured = [row for row in saved.rows if "train/intra_min" in row]
    assert [(row["epoch"], row["_step"]) for row in measured] == [(0, 0), (5, 15), (6, 18)]
    for _, line in load_history(tmp_path).iterrows():
        (row,) = [row for row in measured if row["epoch"] == line["epoch"]]
        prefix = line["split"] if line["layer"] == "last" else f"{line['split']}/{line['layer']}"
        for name in ("intra_min", "inter_max", "nc1", "loss"):
            if not math.isnan(line[name]):
                assert row[f"{prefix}/{name}"] == line[name]

    assert [row["_step"] for row in saved.rows if "train/margins.values" in row] == [0, 1, 2, 3, 4, 15, 18]
    for name in ("margins", "normalized_margins"):
        last = measured[-1]
        counts, bins = last[f"train/{name}.values"], last[f"train/{name}.bins"]
        assert (sum(counts), len(counts), len(bins)) == (300, 64, 65)
        margin = f"train/{name.removesuffix('s')}"
        assert bins[0] == pytest.approx(last[f"{margin}_min"])
        middles = [(low + high) / 2 for low, high in pairwise(bins)]
        mean = sum(count * middle for count, middle in zip(counts, middles, strict=True)) / 300
        assert mean == pytest.approx(last[f"{margin}_mean"], abs=bins[1] - bins[0])


def test_runs_of_one_process_are_runs_of_their_own_also_where_they_diverge(wandb_run, tmp_path):
    done = wandb_run("-m", *TINY, "optimizer=sgd", "optimizer.lr=0.01,1e20", "model.norm=none")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("W&B:") == 1
    folders = {result(path.parent)["status"]: path.parent for path in tmp_path.rglob("result.json")}
    found = {status: read_all(folder)[0] for status, folder in folders.items()}
    one, other = found["done"], found["diverged"]
    assert one.run.run_id != other.run.run_id
    for status, saved in found.items():
        assert_has_final_row(saved, folders[status])
        assert not any("margins" in name for row in saved.rows for name in row)
    assert [row["epoch"] for row in one.rows] == [0, 5, 6]
    assert [row["epoch"] for row in other.rows] == [0, other.summary["epoch"]]
    assert math.isnan(other.summary["train/loss"])
    # Each is ended at its end, not at that of the process.
    assert files(folders["done"])[0].stat().st_mtime < other.run.start_time.ToMicroseconds() / 1e6


def test_wandb_is_imported_for_no_other_logger(ncflow):
    code = (
        "import sys; from ncflow.cli.train import main\n"
        "try: main()\nexcept SystemExit as e: assert not e.code\nassert 'wandb' not in sys.modules"
    )
    done = ncflow(*TINY, code=code)
    assert done.returncode == 0, done.stderr


def test_tags_name_what_there_is_and_are_never_too_long():
    described = {"experiment": "pan_cao/" + "x" * 80, "model.name": "mlp4", "model.depth": 4, "data.name": "digits"}
    assert _tags(described) == [("pan_cao/" + "x" * 80)[:64], "mlp4", "digits"]
    assert _tags({"experiment": "single", "model.name": "convnet", "model.depth": 5, "model.norm": "none"}) == [
        "single",
        "convnet5",
        "norm=none",
    ]
    assert _tags({"experiment": "digits", "data.name": "digits", "model.name": None, "model.norm": None}) == ["digits"]


@pytest.mark.parametrize("values", [[0.5, math.nan, 1.5, math.inf], [math.nan], []])
def test_histograms_leave_out_what_is_not_finite(values):
    histogram = _histogram(torch.tensor(values))
    assert len(histogram.histogram) == 64
    assert sum(histogram.histogram) == sum(map(math.isfinite, values))


# --- the same run after a resume --------------------------------------------------------------------------------

# Right after the measures of an epoch: ends as a kill would, or as a batch system asks for it.
ENDING = (
    "import os, signal; from ncflow.callbacks import NeuralCollapseCallback; from ncflow.cli.train import main\n"
    "measure = NeuralCollapseCallback.measure\n"
    "def ending(self, trainer, module, epoch):\n"
    "    measure(self, trainer, module, epoch)\n"
    "    if epoch == {epoch}: {end}\n"
    "NeuralCollapseCallback.measure = ending\nmain()"
)


def test_an_interrupted_run_goes_on_as_the_same_run(wandb_run, tmp_path):
    options = [*TINY, "measure.every_n_epochs=2"]
    asked = ENDING.format(epoch=4, end="os.kill(os.getpid(), signal.SIGTERM)")
    stopped = wandb_run(*options, code=asked)
    assert stopped.returncode == 143, stopped.stderr
    done = wandb_run(*options)
    assert done.returncode == 0, done.stderr
    before, after = read_all(run_folder(tmp_path))
    assert before.run.run_id == after.run.run_id
    assert [(row["epoch"], row["_step"]) for row in before.rows] == [(0, 0), (2, 6), (4, 12)]
    assert [(row["epoch"], row["_step"]) for row in after.rows] == [(6, 18)]
    assert (before.exit_code, before.summary["status"]) == (1, "interrupted")
    assert_has_final_row(after, run_folder(tmp_path))


def test_a_killed_run_goes_on_as_the_same_run_and_so_does_its_copy_on_the_server(wandb_run, tmp_path, home):
    """W&B writes 32 KiB at a time: what it had not written is lost to it, and its file ends within a record."""
    options = [*TINY, "epochs=24", "measure.every_n_epochs=1"]
    killed = wandb_run(*options, code=ENDING.format(epoch=22, end="os._exit(9)"))
    assert killed.returncode == 9, killed.stderr
    done = wandb_run(*options)
    assert done.returncode == 0, done.stderr
    folder = run_folder(tmp_path)
    identity = json.loads((folder / "wandb.json").read_text())["id"]
    before, after = read_all(folder)
    assert before.run.run_id == after.run.run_id == identity
    first, second = ([row["epoch"] for row in saved.rows] for saved in (before, after))
    assert first == list(range(len(first)))
    assert len(first) > 1
    assert second == [22, 23, 24]
    assert_has_final_row(after, folder)

    with serving() as server:
        for _ in range(2):  # W&B takes the torn file for unsent for ever; to send it again changes nothing
            for path in files(folder):
                assert sync(path.parent, env=home | at(server.url)).returncode == 0
        assert [row["epoch"] for row in server.stored(identity)] == first + second
        assert list(server.rows) == [identity]


def sync(*arguments, env):
    program = [sys.executable, "-m", "wandb", "sync", *map(str, arguments)]
    return subprocess.run(program, env=environment(env), capture_output=True, text=True, timeout=120)


def test_a_run_without_its_result_sends_the_final_row_again(run_here):
    folder = run_here({})
    assert run_here({}) == folder
    before, after = read_all(folder)
    assert before.run.run_id == after.run.run_id
    assert {key: after.summary[key] for key in finite_measures(folder)} == finite_measures(folder)
    assert (after.summary["status"], after.summary["epoch"], after.rows) == ("done", 6, [])


# --- where a run is, and word of its failure ---------------------------------------------------------------------


@pytest.fixture
def no_slurm(monkeypatch):
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        monkeypatch.delenv(name)
    return monkeypatch


def test_a_run_says_where_it_is(no_slurm, tmp_path):
    here = {"where.folder": str(tmp_path), "where.host": socket.gethostname(), "where.log": f"{tmp_path}/ncflow.log"}
    write_json(tmp_path / "job.json", {"job": "345_3", "log": "/logs/345_3_0_log.out"})
    assert whereabouts(tmp_path) == here  # submitted once, but trained by hand
    no_slurm.setenv("SLURM_JOB_ID", "348")
    assert whereabouts(tmp_path) == {**here, "where.job": "348"}  # another job's
    no_slurm.setenv("SLURM_ARRAY_JOB_ID", "345")
    no_slurm.setenv("SLURM_ARRAY_TASK_ID", "3")
    expected = {**here, "where.job": "345_3", "where.job_log": "/logs/345_3_0_log.out"}
    assert whereabouts(tmp_path) == expected
    (tmp_path / "job.json").write_text("[]")
    assert whereabouts(tmp_path) == {**here, "where.job": "345_3"}


def test_where_a_run_is_is_in_its_config_and_not_in_its_identity(run_here, no_slurm, config, tmp_path):
    cfg = config(*TINY, "logger=wandb", "logger.alerts=true")
    described = describe(cfg, "single")
    assert described["run_id"] == describe(config(*TINY), "single")["run_id"]
    no_slurm.setenv("SLURM_JOB_ID", "7")
    no_slurm.setenv("SLURM_STEP_ID", "0")
    with serving() as server:
        folder = run_here(at(server.url))
        ((_, sent),) = server.configs.items()
    assert {name: sent[name]["value"] for name in sent if name.startswith("where.")} == whereabouts(folder)
    assert sent["where.job"]["value"] == "7"
    assert sent["run_id"]["value"] == described["run_id"]
    assert sent["setting"]["value"] == setting_id(config(*TINY, "seed=7"))
    assert not [name for path in ("run.json", "result.json") for name in keys(folder / path) if "where" in name]


def keys(path):
    return json.loads(path.read_text()) if path.exists() else {}


def alerts_of(server, run_here, *overrides, error=None):
    with contextlib.nullcontext() if error is None else pytest.raises(type(error), match=str(error)):
        run_here(at(server.url), *overrides)
    return server.alerts


@pytest.fixture
def failing(process):
    """A run that fails in the middle of its training."""

    def fails(self, trainer, module, epoch):
        MEASURE(self, trainer, module, epoch)
        if epoch == 5:
            raise RuntimeError("no more\nmemory")

    process.setattr(NeuralCollapseCallback, "measure", fails)
    return RuntimeError("no more")


MEASURE = NeuralCollapseCallback.measure
DIVERGING = ("optimizer=sgd", "optimizer.lr=1e20", "model.norm=none")


def test_a_run_that_fails_sends_word_if_asked_to(run_here, failing, tmp_path):
    with serving() as server:
        ((title, text),) = alerts_of(server, run_here, "logger.alerts=true", error=failing)
    assert title == "ncflow: a run failed"
    assert text.endswith(f"failed: RuntimeError: no more memory; folder: {tmp_path / 'run'}")
    assert text.startswith("conic_hull-mlp3-last-")


def test_a_run_that_fails_before_its_training_sends_word_too(run_here, process, tmp_path):
    error = OSError("no such data")
    process.setattr(fitting, "prepare", lambda *_: (_ for _ in ()).throw(error))
    with serving() as server:
        ((_, text),) = alerts_of(server, run_here, "logger.alerts=true", error=error)
    assert text.endswith(f"failed: OSError: no such data; folder: {tmp_path / 'run'}")


def test_a_run_that_diverges_sends_word_if_asked_to(run_here, tmp_path):
    with serving() as server:
        ((title, text),) = alerts_of(server, run_here, "logger.alerts=true", *DIVERGING)
    assert title == "ncflow: a run diverged"
    assert re.search(r"diverged: at epoch \d it was no longer finite; folder: ", text)


def test_no_word_is_sent_unasked_and_none_of_a_run_that_ends_well_or_is_stopped(run_here, failing, process):
    with serving() as server:
        assert alerts_of(server, run_here, error=failing) == []
        stopped = StoppedBySignalError(15, "in epoch 2")

        def stops(*_):
            raise stopped

        process.setattr(NeuralCollapseCallback, "measure", stops)
        assert alerts_of(server, run_here, "logger.alerts=true", error=stopped) == []
        process.setattr(NeuralCollapseCallback, "measure", MEASURE)
        assert alerts_of(server, run_here, "logger.alerts=true") == []
        assert server.asked["UpsertBucket"] >= 3


@pytest.mark.parametrize("kind", ["server", "package"])
def test_an_alert_that_fails_costs_a_run_nothing(kind, run_here, process, caplog):
    with serving() as server:
        if kind == "server":
            server.refusals["NotifyScriptableRunAlert"] = 400
        else:
            import wandb

            process.setattr(wandb.sdk.wandb_run.Run, "alert", lambda *_, **__: (_ for _ in ()).throw(ValueError("no")))
        assert alerts_of(server, run_here, "logger.alerts=true", *DIVERGING) == []
        (saved,) = read_all(Path(os.environ["HOME"]) / "run", "run")
        assert (saved.summary["status"], saved.exit_code) == ("diverged", 0)
    assert len([line for line in caplog.messages if "goes on without it" in line]) == (kind == "package")


# --- servers that fail ------------------------------------------------------------------------------------------


def test_the_key_is_that_of_the_environment_or_of_the_server_in_netrc(process, tmp_path):
    assert _key("https://api.wandb.ai") is None
    path = tmp_path / "netrc"
    process.setenv("NETRC", str(path))
    path.write_text("machine api.wandb.ai login user password secret\nmachine localhost:8080 login user password own\n")
    assert _key("https://api.wandb.ai") == "secret"
    assert _key("https://api.forge.coreweave.com") == "secret"
    assert _key("http://localhost:8080") == "own"
    assert _key("https://wandb.example.org") is None
    path.write_text("no netrc")
    assert _key("https://api.wandb.ai") is None
    process.setenv("WANDB_API_KEY", "other")
    assert _key("https://api.wandb.ai") == "other"


def test_a_server_is_asked_whether_it_takes_the_key(process):
    process.setattr(wandb_server, "_ANSWER_SECONDS", 0.5)
    with serving() as server:
        assert _ask(server.url, KEY) is None
        for status, complaint in ((401, "refuses the key"), (403, "refuses the key"), (502, "answers 502")):
            server.refusals["probe"] = status
            assert _ask(server.url, KEY) == f"{server.url} {complaint}"
        server.refusals.clear()
        server.answer = lambda path, question: {"data": {"viewer": None}}
        assert _ask(server.url, KEY) == f"{server.url} refuses the key"
        server.answer = lambda path, question: ["something", "else"]
        assert _ask(server.url, KEY) == f"{server.url} is no W&B server"
    with listening() as url:
        assert _ask(url, KEY).startswith(f"{url} does not answer (")
    url = nowhere()
    assert re.fullmatch(rf"{url} does not answer \(.*refused.*\)", _ask(url, KEY))


def test_a_server_is_asked_once_and_only_where_runs_would_be_sent(process, caplog):
    caplog.set_level(logging.INFO)
    with serving() as server:
        for name, value in at(server.url).items():
            process.setenv(name, value)
        for mode in ("offline", "disabled"):
            process.setenv("WANDB_MODE", mode)
            assert wandb_runs.mode_of_process() == mode
            wandb_runs._process.mode = None
        assert server.asked["probe"] == 0
        process.delenv("WANDB_MODE")
        assert [wandb_runs.mode_of_process() for _ in range(3)] == ["online"] * 3
        assert server.asked["probe"] == 1
        assert not caplog.messages
        wandb_runs._process.mode = None
        server.refusals["probe"] = 401
        assert [wandb_runs.mode_of_process() for _ in range(3)] == ["offline"] * 3
    assert len(caplog.messages) == 1
    assert "refuses the key, so runs are kept offline" in caplog.messages[0]


def test_a_name_that_is_looked_up_for_ever_is_not_waited_for(process):
    for name, value in at("http://wandb.example.org").items():
        process.setenv(name, value)
    process.setattr(wandb_server, "_ANSWER_SECONDS", 0.1)
    ended = threading.Event()
    process.setattr(wandb_server, "_ask", lambda *_: ended.wait(200))
    assert wandb_server.server_problem() == "http://wandb.example.org does not answer"
    ended.set()


@pytest.mark.parametrize("kind", ["nobody", "silence", "refusal"])
def test_a_run_is_kept_offline_where_no_server_takes_it(kind, run_here, caplog):
    caplog.set_level(logging.INFO)
    with serving() as server, listening() as silent:
        server.refusals["probe"] = 401
        url, complaint = {
            "nobody": (nowhere(), "does not answer"),
            "silence": (silent, "does not answer"),
            "refusal": (server.url, "refuses the key"),
        }[kind]
        folder = run_here(at(url))
        assert server.asked == ({"probe": 1} if kind == "refusal" else {})
    (line,) = said(caplog)
    assert line.startswith(f"W&B: {url} {complaint}")
    assert "`ncflow-sync` sends them later" in line
    (saved,) = read_all(folder)
    assert_has_final_row(saved, folder)


def said(caplog):
    return [message for message in caplog.messages if message.startswith("W&B:")]


def test_a_run_that_cannot_be_started_on_the_server_is_kept_offline(run_here, caplog):
    caplog.set_level(logging.INFO)
    with serving() as server:
        server.refusals["UpsertBucket"] = 400
        folder = run_here(at(server.url))
    (line,) = said(caplog)
    assert re.match(r"W&B: no run could be started \(.+\), so runs are kept offline", line)
    (saved,) = read_all(folder)
    assert_has_final_row(saved, folder)


def test_a_server_that_goes_away_in_the_middle_costs_no_data(run_here, process, caplog):
    caplog.set_level(logging.INFO)
    measure = NeuralCollapseCallback.measure
    with serving() as server:

        def closing(self, trainer, module, epoch):
            if epoch == 6:
                server.close()
            measure(self, trainer, module, epoch)

        process.setattr(NeuralCollapseCallback, "measure", closing)
        folder = run_here(at(server.url))
    (line,) = said(caplog)
    assert "could be sent in time" in line
    (saved,) = read_all(folder, "run")
    assert [row["epoch"] for row in saved.rows] == [0, 5, 6]
    assert_has_final_row(saved, folder)


def test_runs_that_are_open_together_wait_together_for_a_server_that_went_away(process, tmp_path, caplog):

    caplog.set_level(logging.INFO)

    described = {"name": "n", "experiment": "e"}
    with serving() as server:
        for name, value in at(server.url).items():
            process.setenv(name, value)
        several = [wandb_logger(tmp_path / str(number), described, "ncflow", None) for number in range(10)]
        for logger in several:
            logger.open()
            logger.log_metrics({"train/loss": 1.0, "epoch": 0}, step=0)
        server.close()
        start = time.monotonic()
        for logger in several:
            logger.finish({"status": "done"})
        wandb_runs._service_ender()()  # as at the end of a process
        assert time.monotonic() - start < 60  # 4 s each, one by one 40 s before the end alone
    assert [message.count(str(tmp_path / str(number))) for number, message in enumerate(said(caplog))] == [1] * 10
    for number in range(10):
        (saved,) = read_all(tmp_path / str(number), "run")
        assert [row["train/loss"] for row in saved.rows] == [1.0]
        assert (saved.summary["status"], saved.exit_code) == ("done", 0)


# Waits in epoch 5 until the server has rows and is gone.
WAITING = (
    "import os, time; from ncflow.callbacks import NeuralCollapseCallback; from ncflow.cli.train import main\n"
    "measure = NeuralCollapseCallback.measure\n"
    "def waiting(self, trainer, module, epoch):\n"
    "    while epoch == 6 and not os.path.exists(os.environ['GONE']): time.sleep(0.05)\n"
    "    measure(self, trainer, module, epoch)\n"
    "NeuralCollapseCallback.measure = waiting\nmain()"
)


def test_an_outage_stops_no_process_and_what_was_not_sent_can_be_sent_later(home, warm, tmp_path):
    """Two runs in one process; in the first, the server takes some rows and then says nothing any more."""
    with serving() as server:
        env = home | at(server.url) | {"GONE": str(tmp_path / "gone")}
        running = warm.start(["-m", *TINY, "logger=wandb", "seed=0,1"], tmp_path, env, WAITING)
        try:
            assert server.took_rows.wait(120)  # those of epochs 0 and 5: none is kept back
            server.silent.set()
            (tmp_path / "gone").touch()
            output, _ = running.communicate(timeout=120)
        finally:
            running.kill()
        assert running.returncode == 0, output
        (line,) = [line for line in output.splitlines() if line.startswith("W&B:")]
        assert "could be sent in time" in line
        first, second = sorted(tmp_path.glob("runs/single/*-seed*"))
        (cut,) = read_all(first, "run")
        (kept,) = read_all(second)
        identity = cut.run.run_id
        assert [row["epoch"] for row in server.stored(identity)] == [0, 5]
    for saved, folder in ((cut, first), (kept, second)):
        assert [row["epoch"] for row in saved.rows] == [0, 5, 6]
        assert_has_final_row(saved, folder)

    with serving() as later:
        later.rows = server.rows
        remedy = shlex.split(re.search(r"`wandb sync (.+)` does it later", line).group(1))
        sent = sync(*remedy, env=home | at(later.url))
        assert sent.returncode == 0, sent.stderr
        assert [row["epoch"] for row in later.stored(identity)] == [0, 5, 6]


# Runs that are open together end, and the process with them, after the server has taken rows and says nothing any more.
ENDING_IN_AN_OUTAGE = """
import sys
from pathlib import Path
from ncflow.runtime import wandb_runs
from ncflow.runtime.wandb_logger import wandb_logger
wandb_runs._FINISH_SECONDS = 5.0
runs = [wandb_logger(Path(name), {"name": name, "experiment": "e"}, "ncflow", None) for name in "abc"]
for run in runs:
    run.open()
    run.log_metrics({"train/loss": 1.0, "epoch": 0}, step=0)
print("opened", flush=True)
input()
for run in runs:
    run.finish({"status": "done"})
sys.exit(7)
"""


def test_the_end_of_a_process_waits_for_no_outage_and_leaves_nothing_behind(home, tmp_path):
    program = [sys.executable, "-c", ENDING_IN_AN_OUTAGE]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with serving() as server:
        env = environment(home | at(server.url))
        with subprocess.Popen(program, cwd=tmp_path, env=env, **pipes) as running:
            try:
                while "opened" not in running.stdout.readline():
                    assert running.poll() is None
                server.silent.set()
                # 4 s for the first run, 5 s for the others together. W&B's own process has the same standard output.
                running.communicate("\n", timeout=60)
            finally:
                running.kill()
    assert running.returncode == 7
    for name in "abc":
        (saved,) = read_all(tmp_path / name, "run")
        assert [row["train/loss"] for row in saved.rows] == [1.0]
        assert saved.summary["status"] == "done"


def test_nothing_that_goes_wrong_with_wandb_reaches_the_training(process, caplog, tmp_path):
    opened = []

    def fails(*_):
        opened.append(1)
        raise RuntimeError("of its own")

    process.setattr(loggers, "start_run", fails)
    logger = wandb_logger(tmp_path, {"name": "n", "experiment": "e"}, "ncflow", None)
    logger.log_graph(None)
    logger.log_metrics({"a": 1.0}, step=0)
    logger.log_histograms({"a": torch.ones(3)}, epoch=0, step=0)
    logger.finish({"status": "done"})
    assert caplog.messages == ["W&B: training goes on without it: RuntimeError: of its own"]
    assert len(opened) == 1


def test_disabled_is_disabled(run_here, caplog):
    caplog.set_level(logging.INFO)
    folder = run_here({"WANDB_MODE": "disabled"}, "measure.margins=true")
    assert not said(caplog)
    assert not (folder / "wandb").exists()


# --- several processes ------------------------------------------------------------------------------------------


def test_only_the_first_of_several_processes_opens_a_run(process, tmp_path):
    process.setattr(rank_zero_only, "rank", 1)
    process.setattr(loggers, "start_run", lambda *_: pytest.fail("opened"))
    logger = wandb_logger(tmp_path, {"name": "n", "experiment": "e"}, "ncflow", None)
    assert isinstance(logger, WandbRunLogger)
    logger.log_graph(None)
    logger.log_metrics({"a": 1.0}, step=0)
    logger.log_histograms({"a": torch.ones(3)}, epoch=0, step=0)
    logger.finalize("failed")
    logger.finish({"status": "done"})
    assert not list(tmp_path.iterdir())


# --- W&B's own sweeps -------------------------------------------------------------------------------------------


@pytest.fixture
def agent(home, tmp_path, monkeypatch):
    """Let W&B's agent carry out a run of the example sweep, made small; return the exit code."""
    from wandb.wandb_agent import Agent

    sweep = yaml.safe_load((ROOT / "scripts" / "wandb_sweep.yaml").read_text())
    monkeypatch.chdir(tmp_path)
    path = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    own = {"WANDB_SWEEP_ID": "sweep1", "WANDB_RUN_ID": "", "WANDB_DIR": str(tmp_path), "WANDB_SWEEP_PARAM_PATH": ""}
    for name, value in environment(home | path | own | {"WANDB_MODE": "offline", "WANDB_PROJECT": "sweeps"}).items():
        monkeypatch.setenv(name, value)

    def carry_out(identity, **parameters):
        assert parameters.keys() == {name.replace(".", "_") for name in sweep["parameters"]}
        chosen = {name: {"value": parameters[name.replace(".", "_")]} for name in sweep["parameters"]}
        agent = Agent(None, None, sweep_id="sweep1")
        *fixed, arguments = sweep["command"]
        agent._sweep_command = [*fixed, *TINY, arguments]
        agent._command_run({"type": "run", "run_id": identity, "program": sweep["program"], "args": chosen})
        return agent._run_processes[identity].wait(timeout=200)

    return carry_out


def test_the_example_sweep_runs_under_an_agent_and_a_finished_run_is_sent_without_training(agent, tmp_path, capfd):
    assert agent("first1", weight_decay=5e-4, model_norm="none", seed=1) == 0
    folder = run_folder(tmp_path)
    (saved,) = read_all(folder)
    assert (saved.run.run_id, saved.run.sweep_id, saved.run.project) == ("first1", "sweep1", "sweeps")
    assert json.loads((folder / "wandb.json").read_text()) == {"id": "first1"}
    assert (saved.config["weight_decay"], saved.config["model.norm"], saved.config["seed"]) == (5e-4, "none", 1)
    assert_has_final_row(saved, folder)
    checkpoint = (folder / "checkpoints/last.ckpt").stat().st_mtime_ns

    assert agent("again2", weight_decay=5e-4, model_norm="none", seed=1) == 0
    before, after = read_all(folder)
    assert (before.run.run_id, after.run.run_id, after.run.sweep_id) == ("first1", "again2", "sweep1")
    assert after.exit_code == 0
    finite = finite_measures(folder)
    assert {key: after.summary[key] for key in finite} == finite
    assert after.summary["status"] == "done"
    assert [row["train/intra_min"] for row in after.rows] == [finite["train/intra_min"]]
    assert (folder / "checkpoints/last.ckpt").stat().st_mtime_ns == checkpoint
    assert json.loads((folder / "wandb.json").read_text()) == {"id": "first1"}
    assert not re.search("Ignoring|locked by", capfd.readouterr().err)  # what W&B says where a run wants its own


def test_the_example_sweep_is_one_that_wandb_takes():
    sweep = yaml.safe_load((ROOT / "scripts" / "wandb_sweep.yaml").read_text())
    assert sweep["metric"] == {"name": "train/intra_min", "goal": "maximize"}
    assert set(sweep["parameters"]) == {"weight_decay", "model.norm", "seed"}
    assert all(isinstance(value, float) for value in sweep["parameters"]["weight_decay"]["values"])
    assert sweep["command"][-1] == "${args_no_hyphens}"


def test_an_agent_is_given_one_run_at_a_time(process, config, tmp_path):
    process.setattr(HydraConfig, "initialized", lambda: True)
    process.setattr(HydraConfig, "get", lambda: SimpleNamespace(mode=RunMode.MULTIRUN))
    process.setattr(loggers, "start_run", lambda *_: pytest.fail("opened"))
    cfg = config("logger=wandb")
    folder = RunFolder(tmp_path, describe(cfg, "e"))
    write_json(tmp_path / "result.json", {"status": "done"})
    log_finished(folder.path, folder.described, "ncflow", None)
    make_loggers(cfg, folder)
    process.setenv("WANDB_SWEEP_ID", "sweep1")
    process.setenv("WANDB_RUN_ID", "first1")
    with pytest.raises(ConfigError, match=r"hydra\.mode must be RUN under a wandb agent"):
        make_loggers(cfg, folder)
