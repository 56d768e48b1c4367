"""Train the run of a config and say how it ended. The heavy half of :mod:`ncflow.cli.train`."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning import Callback
from omegaconf import DictConfig

from ncflow.callbacks import NeuralCollapseCallback
from ncflow.callbacks.divergence import StopOnDivergence
from ncflow.callbacks.kept import KeepCheckpoints
from ncflow.callbacks.margins import LogMargins
from ncflow.callbacks.resume import SaveForResume
from ncflow.callbacks.schedule import Scheduled
from ncflow.callbacks.snapshots import SnapshotFeatures
from ncflow.checks import error_line
from ncflow.data.base import InMemoryData
from ncflow.models import Classifier
from ncflow.results import (
    CHECKPOINT,
    CLASS_COLUMNS,
    CLASSES,
    HISTORY,
    MARGINS,
    PAIR_COLUMNS,
    PAIRS,
    History,
    RunFolder,
    Status,
)
from ncflow.results.report import Report
from ncflow.runtime import processes
from ncflow.runtime.signals import StoppedBySignalError
from ncflow.seeding import derive_seed
from ncflow.training.assembly import history_of, kept_every, measured_groups, measured_layers, prepare
from ncflow.training.checkpoints import OUTCOME, read_checkpoint
from ncflow.training.loggers import make_loggers
from ncflow.training.outcome import end, ended_with
from ncflow.training.provenance import leave_diffs, recorder
from ncflow.training.trainer import set_up_process, train

log = logging.getLogger(__name__)

STARTS_ANEW = "%s starts anew: there is no checkpoint that agrees with its %s"


class InterruptedRunError(RuntimeError):
    """Training stopped before its last epoch; the same command goes on from the checkpoint."""


def fit(
    cfg: DictConfig,
    folder: RunFolder,
    prepared: tuple[InMemoryData, Classifier] | None = None,
    callbacks: Sequence[Callback] = (),
) -> Report:
    """Train the run of a config in its folder, from its checkpoint if there is one, and write its result.

    If several processes train the run, the first alone writes.

    Args:
        cfg: The config.
        folder: The run's folder; the caller holds its lock. W&B gets its description as the run's config.
        prepared: Of :func:`ncflow.training.assembly.check` for this config; None to prepare it here.
        callbacks: More of Lightning's.

    Raises:
        ConfigError: Before any training, for an impossible config or a checkpoint that is not this run's.
        InterruptedRunError: If training stopped early, for example by Ctrl-C.
    """
    loggers = make_loggers(cfg, folder)
    try:
        return _fit(cfg, folder, prepared, callbacks, loggers)
    except (InterruptedRunError, StoppedBySignalError):
        raise
    except Exception as error:
        for logger in loggers:
            logger.fail(error_line(error, named=True))
        raise


def _fit(
    cfg: DictConfig,
    folder: RunFolder,
    prepared: tuple[InMemoryData, Classifier] | None,
    callbacks: Sequence[Callback],
    loggers: Sequence[Any],
) -> Report:
    path = folder.path / CHECKPOINT
    saved = read_checkpoint(path, [folder.run_id])
    set_up_process(cfg)
    data, classifier = prepare(cfg) if prepared is None else prepared
    if cfg.trainer.channels_last:
        classifier.to(memory_format=torch.channels_last)
    torch.manual_seed(derive_seed(cfg.seed, "train"))
    measure = NeuralCollapseCallback(
        cfg.measure.every_n_epochs,
        measured_layers(cfg),
        delta=cfg.measure.delta,
        self_pairs=cfg.measure.self_pairs,
        batch_size=cfg.measure.batch_size,
        first_epochs=cfg.measure.first_epochs,
        history=history_of(cfg, folder),
        groups=measured_groups(cfg),
        classes=History(folder.path / CLASSES, CLASS_COLUMNS, owned=True) if cfg.measure.per_class else None,
        pairs=History(folder.path / PAIRS, PAIR_COLUMNS, owned=True) if cfg.measure.per_class else None,
    )
    measuring: list[Scheduled] = [measure, *_asked_for(cfg, folder.path)]
    if saved is not None and OUTCOME in saved:
        ended = ended_with(saved, measure.history)
        if ended is not None:
            return end(folder, loggers, **ended)
        log.warning(STARTS_ANEW, folder.path.name, HISTORY)
        saved = None
    tables = {(callback.state_key, name): table for callback in measuring for name, table in callback.tables.items()}
    if saved is not None and not _go_back(tables, saved["callbacks"], folder.path.name):
        saved = None
    if processes.rank() == 0:
        leave_diffs(folder)
    divergence = StopOnDivergence()
    save = SaveForResume(path, cfg.measure.every_n_epochs, record=recorder(folder.described))
    # The checkpoint comes after what is measured: it says that the epoch's rows and files are there.
    own: list[Callback] = [divergence, *measuring, *_kept(cfg, folder.path), save, *callbacks]
    trainer = train(cfg, folder.path, classifier, data, own, loggers, [folder.run_id], saved, folder.described["name"])
    trainer.strategy.barrier("end")  # before the first process says that the run is done, the others are
    if not divergence.diverged and trainer.current_epoch < cfg.epochs:
        for unfinished in loggers:
            unfinished.finalize("failed")
        raise InterruptedRunError(f"stopped after {trainer.current_epoch} of {cfg.epochs} epochs")
    status = Status.DIVERGED if divergence.diverged else Status.DONE
    if not trainer.is_global_zero:
        return Report(status, str(folder.path))
    record = dict(save.recorded)
    for table in tables.values():
        record |= table.digest()
    return end(folder, loggers, status, measure.rows, save.clock.seconds, trainer.global_step, record)


def _asked_for(cfg: DictConfig, folder: Path) -> list[Scheduled]:
    """What a run keeps only if it is asked to."""
    measure, found = cfg.measure, list[Scheduled]()
    if measure.margins:
        found.append(LogMargins(folder / MARGINS, measure.every_n_epochs, measure.first_steps, measure.batch_size))
    if measure.snapshot_samples is not None:
        found.append(SnapshotFeatures(folder, measure.every_n_epochs, measure.snapshot_samples, measure.batch_size))
    return found


def _kept(cfg: DictConfig, folder: Path) -> list[Callback]:
    every_n_epochs = kept_every(cfg)
    return [] if every_n_epochs is None else [KeepCheckpoints(folder, every_n_epochs)]


def _go_back(tables: dict[tuple[str, str], History], saved: dict[str, Any], name: str) -> bool:
    """Let the tables be as a checkpoint had them; False, and nothing is done, if one of them cannot.

    Now rather than when training starts, as a run that was stopped at its end does not start training.
    """
    marks = {(state, kept): (saved.get(state) or {}).get(kept) for state, kept in tables}
    changed = [table.path.name for key, table in tables.items() if not table.agrees(marks[key])]
    if changed:
        log.warning(STARTS_ANEW, name, changed[0])
        return False
    for key, table in tables.items() if processes.rank() == 0 else ():
        table.go_back(marks[key])
    return True
