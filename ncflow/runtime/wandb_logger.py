"""Weights & Biases, kept in the run's own folder and resumed under the same id; it never stops or slows training."""

import atexit
import logging
import math
import os
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from ncflow.checks import error_line
from ncflow.results import RESULT, Status, read_json, write_json
from ncflow.runtime.wandb_server import import_wandb, server_problem

log = logging.getLogger(__name__)

IDENTITY = "wandb.json"

_ONLINE = ("online", "run", "shared")
# A server that starts no run costs a process the first once, one that goes away the second.
_START_SECONDS, _FINISH_SECONDS = 20.0, 30.0
_TAG_LENGTH = 64  # W&B refuses a run with a longer one
_BINS = 64

# Of this process: W&B's mode, once it is known; how many runs are open; whether one could not be sent in time.
_process = SimpleNamespace(mode=None, runs=0, late=False)


def under_agent() -> bool:
    """Whether a ``wandb agent`` started this process for a run of its sweep."""
    return bool(os.environ.get("WANDB_SWEEP_ID") and os.environ.get("WANDB_RUN_ID"))


def _is_follower() -> bool:
    """Whether this is one of several processes of a run, and not the first."""
    return getattr(rank_zero_only, "rank", 0) > 0


def wandb_logger(folder: Path, described: Mapping[str, Any], project: str, entity: str | None) -> "WandbRunLogger":
    """Logger of one run; the same folder always gives the same W&B run, under a ``wandb agent`` the agent's.

    Args:
        folder: The run's folder; W&B writes into its ``wandb/``.
        described: The run's flat description; ``name`` names it, ``experiment`` is its group, all is its config.
        project: W&B project.
        entity: W&B entity; None or empty takes the account's own.
    """
    return WandbRunLogger(folder, described, project, entity)


class WandbRunLogger(Logger):
    """One W&B run, opened when training starts; nothing that goes wrong with it reaches the training.

    What is logged at one step becomes one row. Only the first of several processes opens a run.

    Args:
        folder: The run's folder.
        described: The run's flat description.
        project: W&B project.
        entity: W&B entity, or None.
    """

    def __init__(self, folder: Path, described: Mapping[str, Any], project: str, entity: str | None) -> None:
        super().__init__()
        self._folder, self._described, self._project, self._entity = folder, described, project, entity
        self._run: Any = None
        self._closed = _is_follower()
        self._complained = False
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

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Leave it: the run's config holds them all from the start."""

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
                _finish(run, _without(summary, self._described), failed)

    def finalize(self, status: str) -> None:
        """End the run if training failed in the middle; after a success there is more to say."""
        if status == "failed" and self._run is not None:
            self.finish({"status": str(Status.INTERRUPTED)}, failed=True)

    def _open(self) -> Any:
        if self._run is None and not self._closed:
            try:
                self._run = _start(
                    self._folder, self._described, self._project, self._entity, *identity_of(self._folder)
                )
            except Exception:
                self._closed = True  # one failure is enough to wait for
                raise
        return None if self._closed else self._run

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

    @contextmanager
    def _harmless(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            if not self._complained:
                log.warning("W&B: training goes on without it: %s", error_line(error, named=True))
            self._complained = True


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
        run = _start(folder, described, project, entity, os.environ["WANDB_RUN_ID"])
        run.log({key: value for key, value in row.items() if isinstance(value, int | float)})
        _finish(run, row)
    except Exception as error:
        log.warning("W&B: the finished run could not be sent: %s", error_line(error, named=True))


def _without(summary: Mapping[str, Any], described: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in summary.items() if key not in described}


def _start(
    folder: Path, described: Mapping[str, Any], project: str, entity: str | None, identity: str, resumed: bool = False
) -> Any:
    wandb = import_wandb()
    limits = {"init_timeout": _START_SECONDS, "finish_timeout": _FINISH_SECONDS}
    limits = {name: seconds for name, seconds in limits.items() if f"WANDB_{name.upper()}" not in os.environ}
    # W&B takes these from the agent, and complains of any others.
    place = {} if under_agent() else {"id": identity, "project": project, "entity": entity or None}
    options = {
        **place,
        "name": described["name"],
        "group": described["experiment"],
        "tags": _tags(described),
        "dir": str(folder),
        # `wandb sync` adds the rows of a run that says so to those that the server has, and replaces them by another's.
        "resume": "allow" if resumed else None,
        # Without this, a second run in the same process goes on writing into the first.
        "reinit": "create_new",
        "config": dict(described),
        "settings": wandb.Settings(
            finish_timeout_raises=True,
            max_end_of_run_history_metrics=0,  # a page of text at the end of every run
            max_end_of_run_summary_metrics=0,
            **limits,
        ),
    }
    mode = mode_of_process()
    try:
        run = wandb.init(mode=mode, **options)
    except Exception as error:
        if mode not in _ONLINE:
            raise
        _go_offline(f"no run could be started ({error_line(error, named=True)})")
        if _process.runs:
            raise
        _service_ender()()  # it holds on to the id of the run that could not be started; it would end other runs
        run = wandb.init(mode="offline", **options)
    _process.runs += 1
    run.define_metric("epoch")
    run.define_metric("*", step_metric="epoch")
    return run


def _finish(run: Any, summary: Mapping[str, Any], failed: bool = False) -> None:
    # W&B would turn what is not finite into null, whereas the rows have it as it is.
    run.summary.update({k: v for k, v in summary.items() if not isinstance(v, float) or math.isfinite(v)})
    _process.runs -= 1
    if _process.late and not run.offline:
        # The other runs that are open wait together, at latest at the end of the process, rather than in turn.
        threading.Thread(target=_end_unseen, args=(run, failed), daemon=True).start()
        _tell_unsent(run)
        return
    try:
        run.finish(exit_code=int(failed))
    except TimeoutError:
        if not _process.late:
            atexit.register(_service_ender())  # W&B's own process goes on trying to send
        _process.late = True
        _tell_unsent(run)


def _service_ender() -> Callable[[], None]:
    """What ends W&B's own process, and waits half a minute for it; what is left of it ends with this process.

    W&B itself would wait without end. The thread is started here, as none can be at the end of a process.
    """
    asked = threading.Event()

    def end() -> None:
        asked.wait()
        # If that process is gone or fails, W&B raises, or even asks this process to exit.
        with suppress(Exception, SystemExit):
            import_wandb().teardown()

    def ask() -> None:
        asked.set()
        ending.join(_FINISH_SECONDS)

    ending = threading.Thread(target=end, daemon=True)
    ending.start()
    return ask


def _end_unseen(run: Any, failed: bool) -> None:
    with suppress(Exception):
        run.finish(exit_code=int(failed))


def _tell_unsent(run: Any) -> None:
    remedy = f"`wandb sync --include-online {run.settings.sync_dir}` does it later"
    _go_offline(f"not all of a run could be sent in time ({remedy})")


def identity_of(folder: Path) -> tuple[str, bool]:
    """The id of a folder's W&B run, and whether that run was started before; a ``wandb agent`` brings its own id."""
    known = (read_json(folder / IDENTITY) or {}).get("id")
    wanted = os.environ["WANDB_RUN_ID"] if under_agent() else known or secrets.token_hex(6)
    if wanted != known:
        write_json(folder / IDENTITY, {"id": wanted})
    return wanted, wanted == known


def _tags(described: Mapping[str, Any]) -> list[str]:
    """Experiment, model, data and norm, for example ``quickstart``, ``mlp4``, ``conic_hull``, ``norm=last``."""
    network, depth = described.get("model.name"), described.get("model.depth")
    if network is not None and depth is not None and not str(network).endswith(str(depth)):
        network = f"{network}{depth}"
    norm = described.get("model.norm")
    found = [described.get("experiment"), network, described.get("data.name"), None if norm is None else f"norm={norm}"]
    return list(dict.fromkeys(str(tag)[:_TAG_LENGTH] for tag in found if tag))


def _histogram(values: Tensor) -> Any:
    flat = values.detach().double().flatten()
    return import_wandb().Histogram(flat[flat.isfinite()].cpu().numpy(), num_bins=_BINS)


def mode_of_process() -> str:
    """W&B's mode for the runs of this process; whether its server answers is asked once."""
    if _process.mode is None:
        _process.mode = os.environ.get("WANDB_MODE") or "online"
        if _process.mode in _ONLINE:
            problem = server_problem()
            if problem is not None:
                _go_offline(problem)
    return _process.mode


def _go_offline(why: str) -> None:
    _process.mode = "offline"
    log.info("W&B: %s, so runs are kept offline in their folders; `wandb sync` sends them later", why)
