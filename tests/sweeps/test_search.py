"""Searches: what is found is the best of what was run, and a search that is stopped goes on as if it had not been."""

import json
import signal
import time
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from ncflow.config.identity import flat_config, run_id
from ncflow.results import load_runs
from tests.crash.client import SMALL

optuna = pytest.importorskip("optuna")

from ncflow.sweeps.space import space_of  # noqa: E402

LR = "optimizer.lr=tag(log, interval(1e-4, 1e-1))"
# Beyond its first two trials the sampler goes by what they gave.
SEARCH = ["-m", "hydra/sweeper=optuna", "+hydra.sweeper.sampler.n_startup_trials=2", *SMALL]
NC1 = [*SEARCH, "objective=train/nc1", LR, "model.norm=none,last"]

FAILING = """
import os
from ncflow.models import MLP

class Failing(MLP):
    def __init__(self, *, how, **options):
        super().__init__(**options)
        self.how = how

    def forward(self, inputs):
        if self.training and self.how == "failing" and not os.environ.get("SPARED"):
            raise RuntimeError("no luck")
        return super().forward(inputs)
"""


def results(root: Path):
    (file,) = root.glob("**/search_*/optimization_results.yaml")
    return OmegaConf.to_container(OmegaConf.load(file))


def trials(root: Path):
    (file,) = root.glob("**/search_*/journal.log")
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(file)))
    return optuna.load_study(study_name="search", storage=storage).trials


def states(root: Path) -> list[str]:
    return [trial.state.name for trial in trials(root)]


def written(root: Path) -> dict[str, int]:
    return {file.parent.name: file.stat().st_mtime_ns for file in root.rglob("result.json")}


# --- what is found ----------------------------------------------------------------------------------------------


def test_a_search_finds_the_best_of_its_runs_and_goes_on(ncflow, tmp_path):
    first = ncflow(*NC1, "hydra.sweeper.n_trials=2")
    assert (first.returncode, first.stderr) == (0, "")
    lines = first.stdout.splitlines()
    assert lines[0] == "2 trials: 0 finished already, 2 to do"
    assert [line.split(":")[0] for line in lines if line.startswith("trial")] == ["trial 0", "trial 1"]
    runs, found = load_runs(tmp_path), results(tmp_path)
    assert len(runs) == 2
    best = runs.loc[runs["train/nc1"].idxmin()]
    assert found["best_value"] == best["train/nc1"]
    assert found["best_params"] == {"optimizer.lr": best["optimizer.lr"], "model.norm": best["model.norm"]}
    assert Path(found["best_folder"]).name == f"{best['name']}-{best['run_id']}"
    assert {"objective=train/nc1", f"optimizer.lr={best['optimizer.lr']}"} <= set(found["best_overrides"])
    assert f"train/nc1 {best['train/nc1']:.6g}: optimizer.lr=" in lines[-2]
    assert lines[-1].startswith("written: runs/single/search_")
    before = written(tmp_path)
    again = ncflow(*NC1, "hydra.sweeper.n_trials=2")
    assert again.stdout.splitlines() == ["2 trials: 2 finished already, 0 to do", *lines[-2:]]
    more = ncflow(*NC1, "hydra.sweeper.n_trials=4")
    assert more.stdout.splitlines()[0] == "4 trials: 2 finished already, 2 to do"
    assert len(written(tmp_path)) == 4
    assert before.items() <= written(tmp_path).items()
    (tmp_path / "whole").mkdir()
    whole = ncflow(*NC1, "hydra.sweeper.n_trials=4", "runs_dir=whole")
    assert whole.returncode == 0, whole.stderr
    assert written(tmp_path / "whole").keys() == written(tmp_path / "runs").keys()


def test_a_larger_objective_can_be_better(ncflow, tmp_path):
    done = ncflow(
        *SEARCH, "objective=test/accuracy", LR, "hydra.sweeper.direction=maximize", "hydra.sweeper.n_trials=3"
    )
    assert done.returncode == 0, done.stderr
    assert results(tmp_path)["best_value"] == load_runs(tmp_path)["test/accuracy"].max()


def test_another_sampler_proposes(ncflow, tmp_path):
    """At random, of which more trials at a time are the same."""
    search = ["-m", "hydra/sweeper=optuna", "objective=train/nc1", LR, *SMALL, "hydra.sweeper.n_trials=2"]
    for jobs in (1, 2):
        sampler = ["hydra.sweeper.sampler._target_=optuna.samplers.RandomSampler", f"hydra.sweeper.n_jobs={jobs}"]
        done = ncflow(*search, *sampler)
        assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "2 trials: 2 finished already, 0 to do"
    seeded = ncflow(*search, *sampler, "hydra.sweeper.seed=1")
    assert seeded.returncode == 0, seeded.stderr
    assert len(load_runs(tmp_path)["optimizer.lr"].unique()) == 4


def test_several_objectives_leave_those_that_no_other_beats(ncflow, tmp_path):
    both = ["objective=[train/nc1,test/accuracy]", "hydra.sweeper.direction=[minimize,maximize]"]
    done = ncflow(*SEARCH, *both, LR, "hydra.sweeper.n_trials=4")
    assert done.returncode == 0, done.stderr
    points = load_runs(tmp_path)[["train/nc1", "test/accuracy"]].to_numpy().tolist()
    best = [p for p in points if not any(q != p and q[0] <= p[0] and q[1] >= p[1] for q in points)]
    assert sorted(solution["values"] for solution in results(tmp_path)["solutions"]) == sorted(best)


def test_runs_that_a_grid_has_finished_are_not_trained_again(ncflow, tmp_path):
    grid = [*SMALL, "optimizer.lr=1e-3,1e-2"]
    assert ncflow("-m", *grid).returncode == 0
    before = written(tmp_path)
    done = ncflow("-m", "hydra/sweeper=optuna", "objective=train/nc1", *grid, "hydra.sweeper.n_trials=4")
    assert done.returncode == 0, done.stderr
    assert "done:" not in done.stdout
    assert done.stdout.count("trial ") == 5
    assert written(tmp_path) == before
    assert results(tmp_path)["best_value"] == load_runs(tmp_path)["train/nc1"].min()


@pytest.mark.parametrize(("launcher", "number"), [("stacked", 4), ("local", 2)])
def test_trials_are_trained_as_one_or_side_by_side(launcher, number, ncflow, tmp_path):
    """Whatever trains them, the trials that are proposed two at a time are the same."""
    options = [*NC1, "hydra.sweeper.n_jobs=2", "model.norm=last", f"hydra.sweeper.n_trials={number}"]
    for name in ("basic", launcher):
        (tmp_path / name).mkdir()
        done = ncflow(*options, f"hydra/launcher={name}", f"runs_dir={name}")
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.count("2 cells as one") == (number // 2 if name == "stacked" else 0)
    made = [[(trial.params, trial.values) for trial in trials(tmp_path / name)] for name in ("basic", launcher)]
    assert len(made[0]) == number
    assert made[0] == made[1]


def test_what_is_drawn_from():
    lines = ["epochs=3", LR, "a=int(interval(1, 8))", "b=range(2, 9, 3)", "c=null,0.5,x", "d=range(0, 0.3, 0.1)"]
    fixed, space = space_of(OverridesParser.create().parse_overrides([*lines, "e=1,2", "e=3,4"]))
    kinds = optuna.distributions
    assert fixed == ["epochs=3"]
    assert space == {
        "optimizer.lr": kinds.FloatDistribution(1e-4, 1e-1, log=True),
        "a": kinds.IntDistribution(1, 8),
        "b": kinds.IntDistribution(2, 8, step=3),
        "c": kinds.CategoricalDistribution(["null", "0.5", "x"]),
        "d": kinds.CategoricalDistribution(["0.0", "0.1", "0.2"]),
        "e": kinds.CategoricalDistribution(["3", "4"]),
    }


def test_what_is_searched_for_is_no_part_of_a_run(ncflow, config, tmp_path):
    assert run_id(config("objective=train/nc1")) == run_id(config())
    assert "objective" not in flat_config(config("objective=train/nc1"))
    assert ncflow(*NC1, "hydra.sweeper.n_trials=1").returncode == 0
    (file,) = tmp_path.rglob("result.json")
    assert "objective" not in json.loads(file.read_text())


# --- what goes wrong --------------------------------------------------------------------------------------------


def test_trials_that_fail_or_diverge_do_not_end_the_search(ncflow, tmp_path):
    (tmp_path / "failing.py").write_text(FAILING)
    model = ["model._target_=failing.Failing", "+model.how=well,failing", "model.norm=none", "optimizer=sgd"]
    # At random, and with this seed each of the four once at least.
    search = ["-m", "hydra/sweeper=optuna", "hydra.sweeper.n_trials=6", "hydra.sweeper.seed=1", *SMALL]
    options = [*search, "objective=train/nc1", *model, "optimizer.lr=1e-2,1e20"]
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\nfrom ncflow.cli.train import main; main()"
    done = ncflow(*options, code=code)
    assert done.returncode == 1
    assert set(states(tmp_path)) == {"COMPLETE", "FAIL", "PRUNED"}
    assert len(states(tmp_path)) == 6
    assert ": diverged: +model.how=well optimizer.lr=1e" in done.stdout
    assert ": failed: +model.how=failing optimizer.lr=" in done.stdout
    assert all(line.startswith("ncflow: failed: RuntimeError: no luck; log") for line in done.stderr.splitlines())
    assert done.stderr
    counts = results(tmp_path)["trials"]
    failed = len({trial.params["optimizer.lr"] for trial in trials(tmp_path) if trial.state.name == "FAIL"})
    assert counts == {
        "finished": states(tmp_path).count("COMPLETE"),
        "diverged": states(tmp_path).count("PRUNED"),
        "failed": failed,
    }
    again = ncflow(*options, code=code, env={"SPARED": "1"})  # the failed ones are tried again first
    assert again.returncode == 0, again.stderr
    retried = trials(tmp_path)[6:]
    assert len(retried) == states(tmp_path)[:6].count("FAIL")
    assert {trial.params["+model.how"] for trial in retried[:failed]} == {"failing"}
    assert "FAIL" not in states(tmp_path)[6:]


def test_without_a_number_nothing_is_best(ncflow, tmp_path):
    """The measure is there, and not defined for what is trained."""
    options = ["objective=train/gamma_norm", "model.norm=none", LR, "hydra.sweeper.n_trials=2"]
    done = ncflow(*SEARCH, *options)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-2] == "best: none, no trial has a number for train/gamma_norm"
    assert states(tmp_path) == ["PRUNED", "PRUNED"]


RULE = "a measure, for example train/nc1, or a list of them, with hydra/sweeper=optuna"
REFUSED = [
    (
        ["objective=train/nc11", LR],
        "objective must be a final measure of the runs, found 'train/nc11'; did you mean train/nc1?",
    ),
    (["objective=accuracy", LR], "objective must be a final measure of the runs, found 'accuracy'"),
    ([LR], f"objective must be {RULE}, found None"),
    (["objective=[]", LR], f"objective must be {RULE}, found []"),
    (["objective=train/nc1,test/nc1", LR], "objective must be one value, or a list in brackets, found objective=train"),
    (["objective=train/nc1"], "hydra/sweeper=optuna needs an option to search over, for example 'optimizer.lr=tag("),
    (["objective=[train/nc1,test/nc1]", LR], "hydra.sweeper.direction must be a direction for each of the 2 objective"),
    (
        ["objective=train/nc1", LR, "hydra.sweeper.direction=down"],
        "hydra.sweeper.direction must be minimize, maximize, or a list of them, found 'down'",
    ),
    (
        ["objective=train/nc1", LR, "hydra.sweeper.n_trials=0"],
        "hydra.sweeper.n_trials must be at least 1, found 0",
    ),
    (
        ["objective=train/nc1", LR, "hydra.sweeper.sampler._target_=optuna.samplers.Tpe"],
        "hydra.sweeper.sampler._target_ must be an importable object, found 'optuna.samplers.Tpe'",
    ),
    (
        ["objective=train/nc1", LR, "hydra.sweeper.sampler._target_=torch.nn.Linear"],
        "hydra.sweeper.sampler",
    ),
    (
        ["objective=train/nc1", LR, "+hydra.sweeper.sampler.startup=3"],
        "hydra.sweeper.sampler.startup must be one of the options of TPESampler",
    ),
    (
        ["objective=train/nc1", "optimizer.lr=tag(log, interval(0, 1))"],
        "optimizer.lr must be what can be drawn from, found optimizer.lr=tag(log, interval(0, 1))",
    ),
    (["objective=train/nc1", LR, "model.norm=none,lst"], "model.norm must be one of "),
    (["objective=train/nc1", "model.norm=last,none", "model.gamma=null,1"], "model.gamma must be "),
    (["objective=train/nc1", "optimizer.lr=interval(-0.1, 0.1)"], "optimizer: Invalid learning rate: -0.1"),
    (["objective=train/nc1", "optimiser.lr=interval(0.1, 0.2)"], "optimiser.lr is not an option of this config"),
]


@pytest.mark.parametrize(("overrides", "line"), REFUSED)
def test_what_cannot_be_searched_is_refused_in_one_line(overrides, line, ncflow, tmp_path):
    done = ncflow(*SEARCH, *overrides)
    assert done.returncode == 2
    assert done.stderr.startswith(f"ncflow: error: {line}")
    assert len(done.stderr.splitlines()) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (
            ["objective=train/nc1"],
            "objective must be null without hydra/sweeper=optuna, which searches, found 'train/nc1'",
        ),
        (
            ["-m", "seed=0,1", "objective=train/nc1"],
            "objective must be null without hydra/sweeper=optuna, which searches, found 'train/nc1'",
        ),
        (
            ["hydra/sweeper=optuna", "objective=train/nc1"],
            "hydra/sweeper=optuna searches in a sweep, and this is a single run: add -m",
        ),
    ],
)
def test_an_objective_without_a_search_is_refused_in_one_line(overrides, line, ncflow, tmp_path):
    done = ncflow(*overrides, *SMALL)
    assert (done.returncode, done.stderr) == (2, f"ncflow: error: {line}\n")
    assert not list(tmp_path.iterdir())


def test_slurm_has_to_wait_for_what_the_search_goes_by(warm, tmp_path):
    options = ["hydra/launcher=slurm", "hydra.launcher.wait=false", "objective=train/nc1", LR]
    done = warm.run([*SEARCH, *options], tmp_path)
    rule = "true with hydra/sweeper=optuna, which goes on by what the runs have given"
    assert (done.code, done.stderr) == (2, f"ncflow: error: hydra.launcher.wait must be {rule}, found False\n")
    options = ["hydra/launcher=slurm", "hydra.launcher.then=figures", "objective=train/nc1", LR]
    done = warm.run([*SEARCH, *options], tmp_path)
    rule = "null with hydra/sweeper=optuna, whose batches are sweeps of their own"
    assert (done.code, done.stderr) == (2, f"ncflow: error: hydra.launcher.then must be {rule}, found 'figures'\n")


def test_without_optuna_a_line_says_what_to_install(ncflow):
    code = "import sys; sys.modules['optuna'] = None\nfrom ncflow.cli.train import main; main()"
    done = ncflow(*NC1, code=code)
    line = "ncflow: error: hydra/sweeper=optuna needs optuna: pip install 'ncflow[search]'\n"
    assert (done.returncode, done.stderr) == (2, line)


def test_another_plugin_of_that_name_does_no_harm(ncflow):
    """As hydra-optuna-sweeper leaves in Hydra's store, where a config of ours with that name would be refused."""
    code = (
        "from hydra.core.config_store import ConfigStore\n"
        "node = {'defaults': [{'sampler': 'tpe'}], '_target_': 'theirs.Sweeper'}\n"
        "ConfigStore.instance().store(group='hydra/sweeper', name='optuna', node=node)\n"
        "from ncflow.cli.train import main; main()"
    )
    done = ncflow(*NC1, "hydra.sweeper.n_trials=1", code=code)
    assert done.returncode == 0, done.stderr


# --- interruption -----------------------------------------------------------------------------------------------

LONG = [*NC1, "epochs=20", "data.num_samples=200", "hydra.sweeper.n_trials=4"]


@pytest.fixture(scope="module")
def whole(warm, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    done = warm.run(LONG, folder)
    assert done.code == 0, done.stderr
    return folder


@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM"])
def test_a_search_that_is_stopped_goes_on_as_if_it_had_not_been(name, whole, warm, tmp_path):
    process, end = warm.start(LONG, tmp_path), time.monotonic() + 60
    while process.poll() is None and time.monotonic() < end:
        if len(list(tmp_path.rglob("run.json"))) == 3 and len(list(tmp_path.rglob("last.ckpt"))) == 3:
            break
        time.sleep(0.001)
    number = getattr(signal, name)
    process.send_signal(number)
    assert (process.wait(60), process.stderr.read()) == ({"SIGKILL": -9, "SIGTERM": 143}[name], "")
    assert states(tmp_path) == ["COMPLETE", "COMPLETE", "RUNNING"]
    before = written(tmp_path)
    assert len(before) == 2
    again = warm.run(LONG, tmp_path)
    assert again.code == 0, again.stderr
    assert again.stdout.splitlines()[0] == "4 trials: 2 finished already, 2 to do"
    assert before.items() <= written(tmp_path).items()
    assert states(tmp_path) == ["COMPLETE"] * 4
    assert [trial.values for trial in trials(tmp_path)] == [trial.values for trial in trials(whole)]
    assert results(tmp_path) == results(whole)


def test_a_damaged_study_is_cut_short_or_refused(ncflow, tmp_path):
    search = [*NC1, "hydra.sweeper.n_trials=2"]
    assert ncflow(*search).returncode == 0
    (file,) = tmp_path.rglob("journal.log")
    whole = file.read_bytes()
    file.write_bytes(whole + b'{"op_code":4,"wor')  # as a full disk leaves it
    assert ncflow(*search).stdout.splitlines()[0] == "2 trials: 2 finished already, 0 to do"
    assert file.read_bytes().startswith(whole)
    assert b'"wor' not in file.read_bytes().replace(b'"worker_id"', b"")
    file.write_bytes(whole.replace(b'"op_code":5', b'"op_cod', 1))
    refused = ncflow(*search)
    assert refused.returncode == 2
    assert f"{file.relative_to(tmp_path)} is damaged" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
    before = written(tmp_path)
    file.unlink()
    anew = ncflow(*search)
    assert anew.returncode == 0, anew.stderr
    assert written(tmp_path) == before


def test_two_searches_do_not_share_a_study(ncflow, tmp_path):
    assert ncflow(*NC1, "hydra.sweeper.n_trials=1").returncode == 0
    from ncflow.results.folder import lock

    (folder,) = tmp_path.rglob("search_*")
    with lock(folder).acquire(timeout=0):
        done = ncflow(*NC1, "hydra.sweeper.n_trials=2")
    line = f"ncflow: error: another process is at work on this search: {folder.relative_to(tmp_path)}\n"
    assert (done.returncode, done.stderr) == (2, line)
