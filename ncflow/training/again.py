"""A run that is measured otherwise than a finished one of the same training: from its checkpoints, not trained."""

import logging
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from ncflow.config.identity import run_id, slug, training_id
from ncflow.results import CHECKPOINT, HISTORY, LAST_LAYER, RunFolder, Status, final_measures, load_history
from ncflow.results.report import Report
from ncflow.results.store import run_names
from ncflow.training.assembly import history_of, kept_every
from ncflow.training.checkpoints import RUNS, write_checkpoint
from ncflow.training.entry import HYDRA
from ncflow.training.provenance import joined, provenance
from ncflow.training.remeasured import Kept, kept_of, rows_of_state, states_of
from ncflow.training.states import Rows
from ncflow.training.trainer import set_up_process

log = logging.getLogger(__name__)

AGAIN = "remeasured.run_id"
"""In a result: the run whose training this one is."""
_TRAINING = "training"


Alike = tuple[Kept, dict[str, Any]]
"""A finished run of the same training, and its result."""


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


def find_alike(cfg: DictConfig, folder: RunFolder) -> Alike | None:
    """The run beside this one that :func:`measured_again` takes; each is as there."""
    if cfg.measure.get("again") == _TRAINING or _needs_training(cfg) or (folder.path / CHECKPOINT).exists():
        return None
    return _trained_alike(cfg, folder)


def measure(cfg: DictConfig, folder: RunFolder, alike: Alike) -> Report:
    """Do what :func:`measured_again` does with what :func:`find_alike` found."""
    kept, result = alike
    device = torch.device("cuda" if cfg.trainer.accelerator != "cpu" and torch.cuda.is_available() else "cpu")
    began = time.monotonic()
    set_up_process(cfg)
    history = history_of(cfg, folder)
    assert history is not None
    log.info("%s is measured from the checkpoint of %s, not trained", folder.path.name, kept.folder)
    built = states_of(cfg, device)
    last = max(kept.files)
    before = load_history(kept.folder).drop(columns=["run_id", "folder"])
    rows: Rows = rows_of_state(cfg, *built, kept, last)
    layers = {row["layer"] for row in rows}
    history.start()
    for epoch in sorted({*map(int, before["epoch"])} - {last}):
        own = before[before["epoch"] == epoch]
        measured = rows_of_state(cfg, *built, kept, epoch) if epoch in kept.files else _known(own, layers, history)
        history.append(measured)
    history.append(rows)
    for epoch, file in kept.files.items():
        if epoch == last or kept_every(cfg) is not None:
            saved = torch.load(file, map_location="cpu", weights_only=True)
            del saved[RUNS]
            write_checkpoint(folder.path / file.relative_to(kept.folder), saved, [folder.run_id])
    trained = {key: str(value) for key, value in result.items() if key.startswith(("code/", "version/"))}
    record: dict[str, Any] = joined(trained, provenance(folder.described, device)) | history.digest()
    times = {key: result.get(key) for key in ("seconds", "steps_per_second")}
    measured_for = {"remeasured.seconds": round(time.monotonic() - began, 3), AGAIN: kept.identity}
    final = {**folder.described, "status": str(Status.DONE), **final_measures(rows), **times, **measured_for, **record}
    folder.finish(final)
    return Report(Status.DONE, str(folder.path), values=final)


def _needs_training(cfg: DictConfig) -> bool:
    measure = cfg.measure
    keeps_more = measure.margins or measure.snapshot_samples is not None or measure.per_class
    return bool(keeps_more) or cfg.logger.name != "csv" or cfg.trainer.devices != 1


def _trained_alike(cfg: DictConfig, folder: RunFolder) -> Alike | None:
    """A finished run beside this one, called alike, whose config says the same of all but what is measured."""
    called = {folder.path.name.rpartition("-")[0], slug(cfg)}
    beside = (name for names in run_names(folder.path.parent).values() for name in names)
    for name in sorted(name for name in beside if name.rpartition("-")[0] in called and name != folder.path.name):
        with suppress(Exception):  # whatever a folder of somebody else holds
            other = folder.path.parent / name
            theirs = OmegaConf.load(other / HYDRA / "config.yaml")
            assert isinstance(theirs, DictConfig)
            if training_id(theirs) != training_id(cfg) or kept_every(cfg) not in (None, kept_every(theirs)):
                continue
            found = RunFolder(other, {"run_id": run_id(theirs)})
            result = found.finished()
            if result is None or result["status"] != Status.DONE or found.damage(result) is not None:
                continue
            if AGAIN not in result and (other / CHECKPOINT).is_file() and (other / HISTORY).is_file():
                return kept_of(other), result
    return None


def _known(rows: Any, layers: set[str], history: Any) -> Sequence[dict[str, Any]]:
    """What the other run measured of an epoch, of the layers and measures of this one."""
    own = rows[rows["layer"].isin(layers | {LAST_LAYER})]
    return [
        {name: value for name, value in row.items() if name in history.columns and value == value}
        for row in own.to_dict("records")
    ]
