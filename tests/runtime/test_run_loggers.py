"""TensorBoard and MLflow: measures at the steps of the history, once, also of a run that was stopped and goes on."""

import pytest
from lightning.pytorch.loggers import CSVLogger

from ncflow.config.schema import ConfigError
from ncflow.results import RunFolder
from ncflow.runtime import run_loggers
from ncflow.runtime.run_loggers import MLflowRunLogger, TensorBoardRunLogger
from ncflow.training.loggers import check_logger, make_loggers

DESCRIBED = {"name": "digits-mlp4", "experiment": "pan_cao/fig2", "weight_decay": 5e-4, "model.gamma": None}


@pytest.mark.parametrize("name", ["tensorboard", "mlflow"])
def test_a_missing_package_is_one_line_before_anything_starts(name, config, monkeypatch):
    monkeypatch.setattr(run_loggers.importlib.util, "find_spec", lambda package: None)
    with pytest.raises(ConfigError) as error:
        check_logger(config(f"logger={name}"))
    assert str(error.value) == f"logger={name} needs a package that is not installed: pip install -e '.[{name}]'"
    monkeypatch.setattr(run_loggers.importlib.util, "find_spec", lambda package: package)
    check_logger(config(f"logger={name}"))


def test_the_loggers_of_a_run(config, tmp_path, monkeypatch):
    monkeypatch.setattr(run_loggers.importlib.util, "find_spec", lambda package: package)  # imported with the first row
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    folder = RunFolder(tmp_path / "run", {**DESCRIBED, "run_id": "0"})
    (board,) = make_loggers(config("logger=tensorboard"), folder)
    assert isinstance(board, TensorBoardRunLogger)
    (flow,) = make_loggers(config("logger=mlflow", f"runs_dir={tmp_path}"), folder)
    assert isinstance(flow, MLflowRunLogger)
    assert flow._tracking_uri == f"sqlite:///{tmp_path}/mlflow.db"
    (flow,) = make_loggers(config("logger=mlflow", "logger.tracking_uri=http://127.0.0.1:1"), folder)
    assert flow._tracking_uri == "http://127.0.0.1:1"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:2")
    (flow,) = make_loggers(config("logger=mlflow"), folder)
    assert flow._tracking_uri == "http://127.0.0.1:2"
    assert not list(tmp_path.iterdir())  # nothing is opened before the first row


class Failing(run_loggers.RunLogger):
    """Its server is away."""

    def _logger(self, step):
        raise ConnectionError("nobody there")


def test_a_logger_that_fails_is_one_line_and_no_failure_of_the_run(tmp_path, caplog):
    logger = Failing(tmp_path, DESCRIBED)
    for step in (0, 10):
        logger.log_metrics({"train/nc1": 0.5}, step)
    logger.finish({})
    assert [record.getMessage() for record in caplog.records] == [
        "Failing: training goes on without it: ConnectionError: nobody there"
    ]


class Written(run_loggers.RunLogger):
    """Rows in a CSV, from a step on that an earlier attempt has not reached."""

    def _logger(self, step):
        self._first = 10
        return CSVLogger(self._folder, "", "", flush_logs_every_n_steps=1)


def test_rows_are_logged_once_and_many_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(run_loggers, "_MOST_AT_ONCE", 2)
    logger = Written(tmp_path, DESCRIBED)
    for step in (0, 10):
        logger.log_metrics({f"m{number}": step + number for number in range(5)}, step)
    logger.finish({})
    header, *rows = (tmp_path / "metrics.csv").read_text().splitlines()
    assert {name for name in header.split(",") if name != "step"} == {f"m{number}" for number in range(5)}
    assert {row.split(",")[header.split(",").index("step")] for row in rows} == {"10"}


def test_tensorboard_shows_each_step_of_a_resumed_run_once(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for attempt, steps in enumerate([(0, 10, 20), (10, 20, 30)]):  # stopped after 20, its checkpoint is of 5
        logger = TensorBoardRunLogger(tmp_path, DESCRIBED)
        for step in steps:
            logger.log_metrics({"train/nc1": step + attempt, "epoch": step // 10}, step)
        logger.finish({}, failed=attempt == 0)
    found = EventAccumulator(str(tmp_path / "tensorboard")).Reload().Scalars("train/nc1")
    assert [(event.step, event.value) for event in found] == [(0, 0), (10, 11), (20, 21), (30, 31)]


def test_mlflow_shows_each_step_of_a_resumed_run_once(tmp_path):
    pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    from mlflow.tracking import MlflowClient

    place = f"sqlite:///{tmp_path}/mlflow.db"
    for attempt, steps in enumerate([(0, 10, 20), (10, 20, 30), ()]):
        logger = MLflowRunLogger(tmp_path, DESCRIBED, place)
        for step in steps:
            logger.log_metrics({"train/nc1": step + attempt, "epoch": step // 10}, step)
        logger.finish({}, failed=attempt < 2)
    client = MlflowClient(place)
    experiment = client.get_experiment_by_name("pan_cao/fig2")
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.run_name, run.info.status, run.data.params["weight_decay"]) == (
        "digits-mlp4",
        "FINISHED",
        "0.0005",
    )
    history = client.get_metric_history(run.info.run_id, "train/nc1")
    assert sorted((row.step, row.value) for row in history) == [(0, 0), (10, 10), (20, 20), (30, 31)]
    assert "mlflow.json" in {path.name for path in tmp_path.iterdir()}
