"""A run that is measured otherwise than a finished one of the same training: from its checkpoints, not trained."""

import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import chain
from typing import Any

import torch
from omegaconf import DictConfig

from ncflow.config.identity import slug, training_id
from ncflow.results import CHECKPOINT, HISTORY, LAST_LAYER, History, RunFolder, Status, final_measures
from ncflow.results.columns import AGAIN, PROVENANCE, REMEASURED
from ncflow.results.report import Report
from ncflow.results.store import run_names
from ncflow.training.assembly import history_of, kept_every
from ncflow.training.checkpoints import RUNS, write_checkpoint
from ncflow.training.provenance import joined, provenance
from ncflow.training.remeasured import Kept, kept_of, rows_of_state, states_of
from ncflow.training.states import Rows
from ncflow.training.trainer import set_up_process

log = logging.getLogger(__name__)

_TRAINING = "training"


def measured_again(cfg: DictConfig, folder: RunFolder) -> Report | None:
    """Bring a run to its end without training, where one beside it differs in what is measured alone.

    That is ``measure.groups``, ``measure.layers`` and ``measure.ood``. Its history has the epochs of the other one:
    those whose weights were kept, and the last, are measured; of the rest it has what both measure.

    Args:
        cfg: The run's config without Hydra's own.
        folder: The run's folder, entered, with nothing of the run in it.

    Returns:
        None where the run has to be trained: there is no such run, ``measure.again`` is ``training``, or it keeps what
        only training gives (margins, snapshots, values by class, checkpoints, another log).

    Raises:
        ConfigError: If the checkpoint is damaged.
    """
    alike = find_alike(cfg, folder)
    return None if alike is None else measure(cfg, folder, alike)


def find_alike(cfg: DictConfig, folder: RunFolder) -> Kept | None:
    """The run beside this one that :func:`measured_again` takes; each is as there."""
    if cfg.measure.get("again") == _TRAINING or _needs_training(cfg) or (folder.path / CHECKPOINT).exists():
        return None
    return _trained_alike(cfg, folder)


def measure(cfg: DictConfig, folder: RunFolder, kept: Kept) -> Report:
    """Do what :func:`measured_again` does with what :func:`find_alike` found."""
    result = kept.result or {}
    device = torch.device("cuda" if cfg.trainer.accelerator != "cpu" and torch.cuda.is_available() else "cpu")
    began = time.monotonic()
    set_up_process(cfg)
    history = history_of(cfg, folder)
    assert history is not None
    log.info("%s is measured from the checkpoint of %s, not trained", folder.path.name, kept.folder)
    built = states_of(cfg, device)
    last = max(kept.files)
    rows: Rows = rows_of_state(cfg, *built, kept, last)
    layers = {row["layer"] for row in rows}
    history.start()
    for epoch in sorted({int(row["epoch"]) for row in kept.rows} - {last}):
        known = [row for row in kept.rows if row["epoch"] == epoch]
        is_kept = epoch in kept.files
        history.append(rows_of_state(cfg, *built, kept, epoch) if is_kept else _known(known, layers, history))
    history.append(rows)
    for epoch, file in kept.files.items():
        if epoch == last or kept_every(cfg) is not None:
            saved = {key: value for key, value in kept.state(epoch).items() if key != RUNS}
            write_checkpoint(folder.path / file.relative_to(kept.folder), saved, [folder.run_id])
    trained = {key: str(value) for key, value in result.items() if key.startswith(PROVENANCE)}
    record: dict[str, Any] = joined(trained, provenance(folder.described, device)) | history.digest()
    times = {key: result.get(key) for key in ("seconds", "steps_per_second")}
    again = {f"{REMEASURED}seconds": round(time.monotonic() - began, 3), AGAIN: kept.identity}
    final = {**folder.described, "status": str(Status.DONE), **final_measures(rows), **times, **again, **record}
    folder.finish(final)
    return Report(Status.DONE, str(folder.path), values=final)


def _needs_training(cfg: DictConfig) -> bool:
    measure = cfg.measure
    keeps_more = measure.margins or measure.snapshot_samples is not None or measure.per_class
    return bool(keeps_more) or cfg.logger.name != "csv" or cfg.trainer.devices != 1


def _trained_alike(cfg: DictConfig, folder: RunFolder) -> Kept | None:
    """A finished run beside this one, called alike, whose config says the same of all but what is measured."""
    called, own = {folder.path.name.rpartition("-")[0], slug(cfg)}, training_id(cfg)
    for name in sorted(chain.from_iterable(run_names(folder.path.parent).values())):
        if name.rpartition("-")[0] in called and name != folder.path.name:
            with suppress(Exception):  # whatever a folder of somebody else holds
                kept = kept_of(folder.path.parent / name)
                is_alike = training_id(kept.cfg) == own and kept_every(cfg) in (None, kept_every(kept.cfg))
                if is_alike and _is_whole(kept):
                    return kept
    return None


def _is_whole(kept: Kept) -> bool:
    """Whether a run came to its end, was trained itself, and has its history and last weights as it left them."""
    result = kept.result
    if result is None or result["status"] != Status.DONE or AGAIN in result:
        return False
    has_both = all((kept.folder / name).is_file() for name in (CHECKPOINT, HISTORY))
    return has_both and RunFolder(kept.folder, {"run_id": kept.identity}).damage(result) is None


def _known(rows: Sequence[Mapping[str, Any]], layers: set[str], history: History) -> list[dict[str, Any]]:
    """What the other run measured of an epoch, of the layers and measures of this one."""
    return [
        {name: value for name, value in row.items() if name in history.columns and value == value}
        for row in rows
        if row["layer"] in layers | {LAST_LAYER}
    ]
