"""Train the run of a config and return what it found. The heavy half of :mod:`ncflow.cli.train`."""

import logging
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning import Callback
from omegaconf import DictConfig

import ncflow
from ncflow.callbacks import NeuralCollapseCallback
from ncflow.callbacks.divergence import StopOnDivergence
from ncflow.callbacks.margins import LogMargins
from ncflow.callbacks.progress import EpochProgress
from ncflow.callbacks.resume import SaveForResume
from ncflow.callbacks.snapshots import SnapshotFeatures
from ncflow.config.identity import run_id
from ncflow.data.base import InMemoryData
from ncflow.models import Classifier
from ncflow.results import CHECKPOINT, HISTORY, MARGINS, History, Status, final_measures
from ncflow.runtime import processes
from ncflow.runtime.progress import is_interactive
from ncflow.seeding import derive_seed
from ncflow.training.assembly import make_logger, measured_layers, prepare
from ncflow.training.checkpoints import OUTCOME, Checkpoints, read_checkpoint
from ncflow.training.trainer import make_trainer, set_up_process

log = logging.getLogger(__name__)

STARTS_ANEW = "%s starts anew: there is no checkpoint that agrees with its %s"


@dataclass(frozen=True)
class Outcome:
    """How a run ended: ``done`` or ``diverged``, the rows of its last measurement, its time and optimiser steps.

    Attributes:
        status: How it ended.
        rows: Of its last measurement.
        seconds: Of training, over all attempts.
        steps: Of the optimiser.
        record: What it was trained on and with, and the digests of its tables, under the names in ``result.json``.
    """

    status: str
    rows: list[dict[str, Any]]
    seconds: float
    steps: int
    record: dict[str, str]

    @property
    def measures(self) -> dict[str, float]:
        """The final measures, under their names in ``result.json``."""
        return final_measures(self.rows)

    def result(self, described: Mapping[str, Any]) -> dict[str, Any]:
        """What ``result.json`` says, of a run with this description."""
        rate = round(self.steps / self.seconds, 2) if self.seconds > 0 else None
        time = {"seconds": round(self.seconds, 3), "steps_per_second": rate}
        return {**described, "status": str(self.status), **self.measures, **time, **versions(), **self.record}


class InterruptedRunError(RuntimeError):
    """Training stopped before its last epoch; the same command goes on from the checkpoint."""


def fit(
    cfg: DictConfig,
    folder: Path,
    described: Mapping[str, Any],
    prepared: tuple[InMemoryData, Classifier] | None = None,
    callbacks: Sequence[Callback] = (),
) -> Outcome:
    """Train the run of a config in a folder, from its checkpoint where there is one.

    Args:
        cfg: The config.
        folder: The run's folder.
        described: The run's flat description: ``name``, ``experiment`` and the config; W&B gets it as its config.
        prepared: Of :func:`ncflow.training.assembly.check` for this config; None to prepare it here.
        callbacks: Further ones of Lightning, for example a clock.

    Raises:
        ConfigError: Before any training, for an impossible config or a checkpoint that is not this run's.
        InterruptedRunError: If training stopped early, for example by Ctrl-C.
    """
    run_ids = [run_id(cfg)]
    saved = read_checkpoint(folder / CHECKPOINT, run_ids)
    set_up_process(cfg)
    data, classifier = prepare(cfg) if prepared is None else prepared
    if cfg.trainer.channels_last:
        classifier.to(memory_format=torch.channels_last)
    torch.manual_seed(derive_seed(cfg.seed, "train"))
    # A run that goes on with another logger keeps the table that it has.
    keeps_history = cfg.logger.name != "none" or (folder / HISTORY).exists()
    measure = NeuralCollapseCallback(
        cfg.measure.every_n_epochs,
        measured_layers(cfg),
        delta=cfg.measure.delta,
        self_pairs=cfg.measure.self_pairs,
        batch_size=cfg.measure.batch_size,
        history=History(folder / HISTORY, owned=True) if keeps_history else None,
    )
    divergence = StopOnDivergence()
    save = SaveForResume(folder / CHECKPOINT, cfg.measure.every_n_epochs)
    own: list[Callback] = [divergence, measure, save]
    if cfg.measure.snapshot_samples is not None:
        keep = SnapshotFeatures(
            folder, cfg.measure.every_n_epochs, cfg.measure.snapshot_samples, cfg.measure.batch_size
        )
        own.insert(2, keep)  # before the checkpoint, which says that the epoch's files are there
    tables = [] if measure.history is None else [(measure.state_key, measure.history)]
    if cfg.measure.margins:
        log_margins = LogMargins(
            folder / MARGINS, cfg.measure.every_n_epochs, cfg.measure.first_steps, cfg.measure.batch_size
        )
        own.insert(2, log_margins)
        tables.append((log_margins.state_key, log_margins.history))
    logger = make_logger(cfg, folder, described)
    if saved is not None and OUTCOME in saved:
        outcome = outcome_of(saved, measure.history)
        if outcome is not None:
            _end_logger(logger, outcome, described)
            return outcome
        log.warning(STARTS_ANEW, folder.name, HISTORY)
        saved = None
    if saved is not None:
        marks = {key: (saved["callbacks"].get(key) or {}).get("history") for key, _ in tables}
        changed = [table.path for key, table in tables if not table.agrees(marks[key])]
        if changed:
            log.warning(STARTS_ANEW, folder.name, changed[0].name)
            saved = None
        elif processes.rank() == 0:
            for key, table in tables:
                table.go_back(marks[key])  # now, as a run that was stopped at its end does not start training
    if is_interactive():  # Lightning calls every callback some ten times a step, whether it does anything or not
        own.append(EpochProgress(described["name"]))
    trainer = make_trainer(cfg, folder, [*own, *callbacks], logger, Checkpoints(run_ids, saved))
    # Lightning does so after it has loaded a checkpoint, whose float64 weights would pass through float32.
    trainer.precision_plugin.convert_module(classifier)
    trainer.fit(classifier, datamodule=data, ckpt_path=None if saved is None else str(folder / CHECKPOINT))
    trainer.strategy.barrier("end")  # before the first process says that the run is done, the others are
    record = hardware(trainer.strategy.root_device)
    for _, table in tables if trainer.is_global_zero else []:
        record |= table.digest()
    interrupted = not divergence.diverged and trainer.current_epoch < cfg.epochs
    status = Status.INTERRUPTED if interrupted else Status.DIVERGED if divergence.diverged else Status.DONE
    outcome = Outcome(status, measure.rows, save.seconds, trainer.global_step, record)
    _end_logger(logger, outcome, described)
    if interrupted:
        raise InterruptedRunError(f"stopped after {trainer.current_epoch} of {cfg.epochs} epochs")
    return outcome


def outcome_of(saved: Mapping[str, Any], history: History | None) -> Outcome | None:
    """How a run ended that was trained with others, by its own checkpoint; None where its history is not whole.

    Args:
        saved: The checkpoint, with :data:`ncflow.training.checkpoints.OUTCOME`.
        history: The run's table, None where it keeps none.
    """
    kept = saved[OUTCOME]
    if history is not None and not history.agrees(kept["history"]):
        return None
    return Outcome(kept["status"], kept["rows"], kept["seconds"], saved["global_step"], kept["record"])


def _end_logger(logger: Any, outcome: Outcome, described: Mapping[str, Any]) -> None:
    if logger:
        row = {**outcome.result(described), "epoch": outcome.rows[0]["epoch"]}
        logger.finish(row, failed=outcome.status == Status.INTERRUPTED)


def versions() -> dict[str, str]:
    """Versions that a run's numbers may depend on."""
    return {
        "version/ncflow": ncflow.__version__,
        "version/python": platform.python_version(),
        "version/torch": str(torch.__version__),
        "version/lightning": lightning.__version__,
    }


def hardware(device: torch.device, cells: int | None = None) -> dict[str, str]:
    """What else a run's numbers may depend on: the processors, and with how many others it was trained.

    Args:
        device: On which it was trained.
        cells: Of the group in which it was trained, None where it was trained alone.
    """
    found = {
        "version/cpu": f"{_cpu_model()}, {torch.backends.cpu.get_cpu_capability()}",
        "version/trained_with": "alone" if cells is None else f"{cells} cells as one",
    }
    return found | ({"version/gpu": torch.cuda.get_device_name(device)} if device.type == "cuda" else {})


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
