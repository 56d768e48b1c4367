"""Lightning's loggers for TensorBoard and MLflow, as loggers of a run that goes on where it was stopped."""

import importlib.util
from abc import abstractmethod
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import MLFlowLogger, TensorBoardLogger
from lightning.pytorch.loggers.logger import Logger

from ncflow.results import read_json, write_json
from ncflow.runtime.harmless import HarmlessLogger

MLFLOW_RUN = "mlflow.json"
"""File of a run that says which MLflow run is its own."""

_PACKAGES = {"tensorboard": ("tensorboard", "tensorboardX"), "mlflow": ("mlflow",)}
_MOST_AT_ONCE = 500  # MLflow refuses more than 1000 values at a time


def missing_package(name: str) -> str | None:
    """A line about a logger whose package is not installed; None if one is, or if it needs none."""
    packages = _PACKAGES.get(name, ())
    if not packages or any(importlib.util.find_spec(package) is not None for package in packages):
        return None
    return f"logger={name} needs a package that is not installed: pip install -e '.[{name}]'"


class RunLogger(HarmlessLogger):
    """One run in a logger of Lightning's, opened with its first row; a run that goes on goes on in it."""

    def __init__(self, folder: Path, described: Mapping[str, Any]) -> None:
        super().__init__(folder, described)
        self._first = 0  # step of the first row that is not there already

    @abstractmethod
    def _logger(self, step: int) -> Logger:
        """Lightning's logger, for rows from a step on."""

    def _begin(self, step: int) -> Logger:
        logger = self._logger(step)
        logger.log_hyperparams(dict(self._described))
        return logger

    @property
    def name(self) -> str:
        """The experiment."""
        return str(self._described["experiment"])

    @property
    def version(self) -> str:
        """The run's slug."""
        return str(self._described["name"])

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Add measures at a step, unless an earlier attempt did."""
        with self._harmless():
            at = step or 0
            inner = self._open(at)
            if inner is not None and at >= self._first:
                waiting = iter(metrics.items())
                while some := dict(islice(waiting, _MOST_AT_ONCE)):
                    inner.log_metrics(some, at)
                inner.save()

    def finish(self, summary: Mapping[str, Any], failed: bool = False) -> None:
        """End the run.

        Args:
            summary: The run's final row, which has been logged.
            failed: Whether it failed or was stopped; it can still go on.
        """
        with self._harmless():
            if self._inner is not None and not self._closed:
                self._inner.finalize("failed" if failed else "success")
            self._closed = True

    def fail(self, line: str) -> None:
        """End a run that failed."""
        self.finish({}, failed=True)

    def finalize(self, status: str) -> None:
        """End a run whose training failed in the middle; after a success there may be more to say."""
        if status == "failed":
            self.finish({}, failed=True)


class TensorBoardRunLogger(RunLogger):
    """Event files in ``tensorboard/`` of the run's folder, one more each time the run goes on.

    What an earlier attempt logged at a step at which this one logs again is left out by TensorBoard.
    """

    def _logger(self, step: int) -> Logger:
        return TensorBoardLogger(self._folder, "tensorboard", "", default_hp_metric=False, purge_step=step)


class MLflowRunLogger(RunLogger):
    """An MLflow run, one over all attempts, named by the run's slug, in an MLflow experiment named as the run's.

    Args:
        folder: The run's folder.
        described: The run's flat description.
        tracking_uri: Of a server or a database.
    """

    def __init__(self, folder: Path, described: Mapping[str, Any], tracking_uri: str) -> None:
        super().__init__(folder, described)
        self._tracking_uri = tracking_uri

    def _logger(self, step: int) -> Logger:
        known = read_json(self._folder / MLFLOW_RUN) or {}
        own = known.get("mlflow_run") if known.get("tracking_uri") == self._tracking_uri else None
        logger = MLFlowLogger(self.name, self.version, self._tracking_uri, run_id=own)
        client, run = logger.experiment, logger.run_id
        write_json(self._folder / MLFLOW_RUN, {"tracking_uri": self._tracking_uri, "mlflow_run": run})
        if own is not None:
            client.update_run(run, status="RUNNING")
            self._first = 1 + max((row.step for row in client.get_metric_history(run, "epoch")), default=-1)
        return logger

    def finish(self, summary: Mapping[str, Any], failed: bool = False) -> None:
        """End the run, also one that was stopped when all its rows were there."""
        with self._harmless():
            if not failed and (self._folder / MLFLOW_RUN).exists():
                self._open(0)
        super().finish(summary, failed)
