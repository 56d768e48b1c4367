"""Weights & Biases, kept in the run's own folder and resumed under the same id; it never stops or slows training."""

import logging
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from ncflow.checks import error_line
from ncflow.results import RESULT, Status, one_line, read_json
from ncflow.runtime.harmless import HarmlessLogger
from ncflow.runtime.signals import StoppedBySignalError
from ncflow.runtime.wandb_runs import IDENTITY, finish_run, identity_of, start_run, under_agent
from ncflow.runtime.wandb_server import import_wandb

log = logging.getLogger(__name__)

_BINS = 64


def _is_follower() -> bool:
    """Whether this is one of several processes of a run, and not the first."""
    return getattr(rank_zero_only, "rank", 0) > 0


def wandb_logger(
    folder: Path, described: Mapping[str, Any], project: str, entity: str | None, alerts: bool = False
) -> "WandbRunLogger":
    """Logger of one run; the same folder always gives the same W&B run, under a ``wandb agent`` the agent's.

    Args:
        folder: The run's folder; W&B writes into its ``wandb/``.
        described: The run's flat description; ``name`` names it, ``experiment`` is its group, all is its config.
        project: W&B project.
        entity: W&B entity; None or empty takes the account's own.
        alerts: Whether W&B is to send word when the run fails or diverges.
    """
    return WandbRunLogger(folder, described, project, entity, alerts)


class WandbRunLogger(HarmlessLogger):
    """One W&B run, opened when training starts; nothing that goes wrong with it reaches the training.

    What is logged at one step becomes one row. Only the first of several processes opens a run.

    Args:
        folder: The run's folder.
        described: The run's flat description.
        project: W&B project.
        entity: W&B entity, or None.
        alerts: Whether W&B is to send word when the run fails or diverges.
    """

    def __init__(
        self, folder: Path, described: Mapping[str, Any], project: str, entity: str | None, alerts: bool = False
    ) -> None:
        super().__init__(folder, described)
        self._project, self._entity, self._alerts = project, entity, alerts
        self._closed = _is_follower()
        self._step = -1
        self._row: set[str] = set()
        self._full_row: set[str] | None = None

    @property
    def name(self) -> str:
        """The W&B project."""
        return self._project

    @property
    def version(self) -> str | None:
        """The W&B run's id."""
        return (read_json(self._folder / IDENTITY) or {}).get("id")

    @property
    def save_dir(self) -> str:
        """The run's folder."""
        return str(self._folder)

    def open(self) -> None:
        """Open the run now, rather than with the first row."""
        with self._harmless():
            self._open()

    def log_graph(self, model: Any, input_array: Any = None) -> None:
        """Open the run: Lightning calls this before training, and so before anything is timed."""
        self.open()

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Add measures to the row of a step."""
        with self._harmless():
            self._log(dict(metrics), step)

    def log_histograms(self, values: Mapping[str, Tensor], epoch: int, step: int) -> None:
        """Add histograms to the row of a step; values that are not finite are left out of them."""
        with self._harmless():
            if not self._closed:
                self._log({**{name: _histogram(tensor) for name, tensor in values.items()}, "epoch": epoch}, step)

    def finish(self, summary: Mapping[str, Any], failed: bool = False) -> None:
        """End the run, at latest when W&B has had half a minute to send what is left.

        Args:
            summary: The run's final row; what its description says is left out, what is not finite stays as logged.
            failed: Whether the run is to count as failed; a resumed one can still end well.
        """
        with self._harmless():
            run = self._open()
            self._closed = True
            if run is not None:
                if summary.get("status") == Status.DIVERGED:
                    self._alert(run, "diverged", f"at epoch {summary.get('epoch')} it was no longer finite")
                finish_run(run, _without(summary, self._described), failed)

    def fail(self, line: str) -> None:
        """Send word that the run failed, if that is asked for, and end it; without effect once it has ended.

        Args:
            line: Why.
        """
        if not self._alerts:
            return
        with self._harmless():
            run = self._open()
            if run is not None:
                self._alert(run, "failed", line)
                self.finish({"status": str(Status.FAILED)}, failed=True)

    def _alert(self, run: Any, what: str, line: str) -> None:
        if self._alerts:
            with self._harmless():
                text = one_line(f"{self._described['name']} {what}: {line}")
                run.alert(
                    title=f"ncflow: a run {what}", text=f"{text}; folder: {self._folder.absolute()}", level="ERROR"
                )

    def finalize(self, status: str) -> None:
        """End the run if training failed in the middle; after a success there is more to say."""
        if status != "failed":
            return
        error = sys.exception()  # this is called while what training raised is on its way
        if isinstance(error, Exception) and not isinstance(error, StoppedBySignalError):
            self.fail(error_line(error, named=True))
        if self._inner is not None:
            self.finish({"status": str(Status.INTERRUPTED)}, failed=True)

    @property
    def _called(self) -> str:
        return "W&B"

    def _begin(self, step: int) -> Any:
        return start_run(self._folder, self._described, self._project, self._entity, *identity_of(self._folder))

    def _log(self, values: dict[str, Any], step: int | None) -> None:
        run = self._open()
        if run is None:
            return
        if step is None:
            run.log(values)
            return
        if step < run.starting_step:
            return  # an interrupted run had sent this row already
        if step != self._step:
            self._full_row = self._full_row or self._row or None  # the first row has all that a measurement gives
            self._step, self._row = step, set()
        self._row |= values.keys()
        # W&B would keep a row back until the next step, and drop what comes after the row was sent.
        run.log(values, step=step, commit=self._full_row is not None and self._full_row <= self._row)


def log_finished(folder: Path, described: Mapping[str, Any], project: str, entity: str | None) -> None:
    """Give the run of a ``wandb agent`` the final row of a run that was finished before the agent asked for it.

    Without an agent it does nothing, and nothing that goes wrong is raised.

    Args:
        folder: The finished run's folder.
        described: The run's flat description.
        project: W&B project.
        entity: W&B entity, or None.
    """
    result = read_json(folder / RESULT)
    if result is None or not under_agent() or _is_follower():
        return
    row = {key: value for key, value in _without(result, described).items() if value is not None}
    try:
        run = start_run(folder, described, project, entity, os.environ["WANDB_RUN_ID"])
        run.log({key: value for key, value in row.items() if isinstance(value, int | float)})
        finish_run(run, row)
    except Exception as error:
        log.warning("W&B: the finished run could not be sent: %s", error_line(error, named=True))


def _without(summary: Mapping[str, Any], described: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in summary.items() if key not in described}


def _histogram(values: Tensor) -> Any:
    flat = values.detach().double().flatten()
    return import_wandb().Histogram(flat[flat.isfinite()].cpu().numpy(), num_bins=_BINS)
