"""The W&B workspace, as JSON and as it is sent to a server on this machine: every key in it is one that runs log."""

import json
import os
import re
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest

from ncflow.config.identity import describe_for_wandb, flat_config, folder_name
from tests.conftest import TINY, run_folder
from tests.wandb_files import read_all
from tests.wandb_server import serving

ROOT = Path(__file__).parents[2]
SCRIPT, README = ROOT / "scripts" / "wandb_dashboard.py", ROOT / "README.md"
GIVEN = ["--entity", "team", "--project", "collapse", "--experiment", "pan_cao/fig2"]
OFFLINE = {"NETRC": "/nonexistent", "WANDB_ERROR_REPORTING": "false"}
KEY = {"WANDB_API_KEY": "a" * 40}
# Runs the script in a process that can neither connect to anything nor start W&B's service.
ALONE = """
import runpy, socket, subprocess, sys
def refuse(*args, **kwargs):
    raise RuntimeError("no connections here")
socket.socket.connect = subprocess.Popen.__init__ = refuse
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
WITHOUT_PACKAGE = """
import runpy, sys
sys.modules["wandb_workspaces"] = None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture
def dashboard(ncflow, tmp_path):
    """The script in a home without W&B key."""

    def call(*arguments, code=None, **env):
        program = (sys.executable, *(() if code is None else ("-c", code)), str(SCRIPT))
        return ncflow(*arguments, program=program, env={"HOME": str(tmp_path), **OFFLINE, **env})

    return call


@pytest.fixture
def spec(dashboard):
    def dry_run(*arguments):
        done = dashboard(*GIVEN, *arguments, "--dry-run")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return dry_run


def leaves(node):
    """Every text in a JSON value, keys included."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield key
            yield from leaves(value)
    elif isinstance(node, list):
        for value in node:
            yield from leaves(value)
    elif isinstance(node, str):
        yield node


def sections(view):
    return {section["name"]: section for section in view["spec"]["section"]["panelBankConfig"]["sections"]}


def panels(view, kind):
    return [
        panel["config"]
        for section in sections(view).values()
        for panel in section["panels"]
        if panel["viewType"] == kind
    ]


def metrics(view):
    """Every metric that a panel or a column of the table names."""
    lines, bars = panels(view, "Run History Line Plot"), panels(view, "Bar Chart")
    plotted = {metric for panel in (*lines, *bars) for metric in panel["metrics"]} | {panel["xAxis"] for panel in lines}
    return plotted | {text.removeprefix("summary:") for text in leaves(view) if text.startswith("summary:")}


def config_keys(view):
    """Every config key that a panel, a column or the grouping names: W&B keeps a flat key's value under ``.value``."""
    accessors = {text.removeprefix("config:") for text in leaves(view) if text.startswith("config:")}
    accessors |= {key["name"] for key in runset(view)["grouping"] if key["section"] == "config"}
    assert all(accessor.endswith(".value") for accessor in accessors)
    return {accessor.removesuffix(".value") for accessor in accessors}


def runset(view):
    (found,) = view["spec"]["section"]["runSets"]
    return found


def test_every_metric_is_one_that_a_run_logs(spec, ncflow, tmp_path):
    run = [*TINY, "epochs=1", "logger=wandb", "measure.layers=all"]
    done = ncflow(*run, env={"HOME": str(tmp_path), **OFFLINE})
    assert done.returncode == 0, done.stderr
    (saved,) = read_all(run_folder(tmp_path))
    logged = {*saved.summary, *(key for row in saved.rows for key in row)}
    layers = sorted({key.split("/")[1] for key in logged if key.startswith("train/") and key.count("/") == 2})
    assert layers
    named = metrics(spec("--layers", *layers))
    assert named <= logged
    assert {f"train/{layer}/intra_min" for layer in layers} < named
    assert {"train/intra_min", "train/inter_max", "train/nc1", "train/gamma_norm", "train/loss", "epoch"} < named


def test_every_config_key_is_one_of_the_config(spec, config):
    named = config_keys(spec())
    cfg = config("trainer=cpu")
    assert named <= describe_for_wandb(cfg, flat_config(cfg)).keys()
    assert {"weight_decay", "model.norm", "model.gamma", "seed"} < named


def test_curves_and_bars_are_the_mean_and_the_standard_deviation_of_a_group(spec):
    view = spec("--layers", "layers.0")
    shown = [*panels(view, "Run History Line Plot"), *panels(view, "Bar Chart")]
    assert len(shown) > 8
    assert {(panel["groupAgg"], panel["groupArea"]) for panel in shown} == {("mean", "stddev")}


def test_what_a_sweep_varies_beside_the_seed_is_never_averaged(spec, config):
    assert runset(spec())["grouping"][-1] == {"section": "config", "name": "setting.value"}

    def setting(*overrides):
        cfg = config("trainer=cpu", *overrides)
        return describe_for_wandb(cfg, flat_config(cfg))["setting"]

    assert setting("seed=1") == setting("seed=2") == setting("seed=1", "logger=wandb", "runs_dir=/x")
    others = [setting(other) for other in ("optimizer.lr=0.7", "batch_size=77", "epochs=3", "data=digits")]
    assert len({setting(), *others}) == 5


def test_runs_are_those_of_the_experiment_grouped_by_all_but_the_seed(spec):
    found = runset(spec())
    assert [
        (item["key"]["section"], item["key"]["name"], item["op"], item["value"]) for item in found["filters"]["filters"]
    ] == [("run", "group", "=", "pan_cao/fig2")]
    assert found["grouping"][0] == {"section": "config", "name": "model.norm.value"}
    assert "config:seed.value" in found["runFeed"]["columnPinned"]
    assert "seed.value" not in {key["name"] for key in found["grouping"]}
    assert runset(spec("--group-by"))["grouping"] == []


def test_sections_and_what_they_plot(spec):
    view = spec()
    assert list(sections(view)) == [
        "Collapse against weight decay",
        "Trajectories",
        "Gamma",
        "Parallel coordinates",
        "Runs",
    ]
    assert "Layers" in sections(spec("--layers", "layers.0"))
    scatters = {(panel["xAxis"], panel["yAxis"]) for panel in panels(view, "Scatter Plot")}
    assert ("config:weight_decay.value", "summary:train/intra_min") in scatters
    assert ("config:model.gamma.value", "summary:train/inter_max") in scatters
    assert ("summary:train/gamma_norm", "summary:train/intra_min") in scatters
    lines = {(panel["xAxis"], *panel["metrics"]) for panel in panels(view, "Run History Line Plot")}
    assert {("epoch", "train/nc1"), ("train/loss", "train/intra_min")} < lines
    (parallel,) = panels(view, "Parallel Coordinates Plot")
    assert [column["accessor"] for column in parallel["columns"]][1:3] == [
        "config:model.norm.value",
        "config:model.gamma.value",
    ]
    grouped = {
        name: section["localPanelSettings"]["useRunsTableGroupingInPanels"] for name, section in sections(view).items()
    }
    assert [name for name, is_grouped in grouped.items() if not is_grouped] == ["Parallel coordinates"]


def test_dry_run_contacts_nobody_and_needs_no_key(dashboard):
    assert json.loads(dashboard(*GIVEN, "--dry-run", code=ALONE).stdout)["entity"] == "team"
    assert "no connections here" in dashboard(*GIVEN, code=ALONE, **KEY).stderr


def test_entity_and_project_come_from_the_environment_or_from_a_file(dashboard, tmp_path):
    experiment = ["--experiment", "single", "--dry-run"]
    view = json.loads(dashboard(*experiment, WANDB_ENTITY="us", WANDB_PROJECT="ours").stdout)
    assert (view["entity"], view["project"]) == ("us", "ours")
    (tmp_path / "named").write_text("WANDB_ENTITY=them\nWANDB_PROJECT=theirs\n")
    found = dashboard(*experiment, NCFLOW_ENV_FILE=str(tmp_path / "named"))
    assert json.loads(found.stdout)["project"] == "theirs"


def refused(done):
    assert (done.returncode, done.stdout) == (2, ""), done
    (line,) = done.stderr.splitlines()
    return line


def test_what_is_missing_is_said_in_one_line(dashboard):
    experiment = ["--experiment", "single"]
    assert "--project must be given, or WANDB_PROJECT set" in refused(dashboard(*experiment, "--entity", "e"))
    assert "must have no quote" in refused(dashboard("--entity", "e", "--project", "p", "--experiment", "it's"))
    assert "pip install -e '.[dashboard]'" in refused(dashboard(*GIVEN, code=WITHOUT_PACKAGE))
    assert "No API key" in refused(dashboard(*GIVEN))


@pytest.fixture
def server():
    """A W&B server that also saves views, or says that it does not; ``saved`` holds what it was sent of each."""
    with serving() as server:
        usual, server.saved, server.refusal = server.answer, [], None

        def answer(path, question):
            if "upsertView" not in question.get("query", ""):
                return usual(path, question)
            server.saved.append(question["variables"])
            if server.refusal:
                return {"errors": [{"message": server.refusal}]}
            return {"data": {"upsertView": {"view": {"id": "1", "name": question["variables"]["name"]}}}}

        server.answer = answer
        yield server


def without_ids(node):
    if isinstance(node, dict):
        return {key: without_ids(value) for key, value in node.items() if key not in ("id", "__id__")}
    return [without_ids(value) for value in node] if isinstance(node, list) else node


def test_the_saved_view_is_the_one_that_a_dry_run_prints(dashboard, spec, server):
    done = dashboard(*GIVEN, WANDB_BASE_URL=server.url, **KEY)
    assert done.returncode == 0, done.stderr
    (sent,) = server.saved
    assert (sent["entityName"], sent["projectName"]) == ("team", "collapse")
    assert without_ids(json.loads(sent["spec"])) == without_ids(spec()["spec"])
    assert done.stdout.startswith(f"{server.url}/team/collapse?nw=")


def test_the_command_of_the_readme_works_as_it_is_written(dashboard, server):
    """Without an entity: that of the account, and with ``--dry-run`` nobody is asked."""
    (command,) = re.findall(r"`scripts/(wandb_dashboard.py [^`]*)`", README.read_text())
    script, *given = command.split()
    assert script == SCRIPT.name
    assert os.access(SCRIPT, os.X_OK)
    done = dashboard(*given, "--dry-run", code=ALONE)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["project"] == "ncflow"
    done = dashboard(*given, WANDB_BASE_URL=server.url, **KEY)
    assert done.returncode == 0, done.stderr
    assert server.saved[0]["entityName"] == "me"


def test_the_runs_that_the_readme_names_to_wandb_are_those_of_its_sweep(config):
    text = README.read_text()
    (sweep,) = re.findall(r"^ncflow -m (logger=wandb .*)$", text, re.MULTILINE)
    (pattern,) = re.findall(r"^wandb \w+ (\S*/wandb)\b", text, re.MULTILINE)
    options = [(word.partition("=")[0], word.partition("=")[2].split(",")) for word in sweep.split()]
    cells = [[f"{key}={values[place]}" for key, values in options] for place in (0, -1)]
    names = [f"runs/single/{folder_name(config(*cell))}/wandb" for cell in cells]
    assert [fnmatch(name, pattern) for name in names] == [True, False]


def test_a_server_that_refuses_is_one_line(dashboard, server):
    server.refusal = "permission denied"
    assert "permission denied" in refused(dashboard(*GIVEN, WANDB_BASE_URL=server.url, **KEY))
    assert len(server.saved) == 1
