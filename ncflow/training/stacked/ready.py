"""From the configs of a group to runs that are ready: folders entered, parts built, and where each goes on from."""

import logging
import traceback
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from ncflow.config.explain import one_line
from ncflow.data.base import InMemoryData
from ncflow.models import Classifier
from ncflow.models.network import find_classifier
from ncflow.results import CHECKPOINT, History, RunFolder, Status
from ncflow.results.report import Report
from ncflow.training.again import find_alike, measure
from ncflow.training.assembly import history_of, prepare, prepare_data
from ncflow.training.checkpoints import read_checkpoint
from ncflow.training.entry import enter
from ncflow.training.fit import STARTS_ANEW
from ncflow.training.loggers import make_loggers
from ncflow.training.outcome import end, ended_with
from ncflow.training.provenance import leave_diffs
from ncflow.training.stacked.interrupted import SavedGroup, interrupted_groups
from ncflow.training.stacked.modules import can_be_stacked
from ncflow.training.stacked.plan import Size

log = logging.getLogger(__name__)


class DataCache:
    """The data of many configs, each distinct data set built once."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, int], InMemoryData] = {}

    def get(self, cfg: DictConfig) -> InMemoryData:
        """The data of a config, set up; the same object for the same samples, whatever the seeds."""
        options = repr(OmegaConf.to_container(cfg.data, resolve=True))
        key = (options, cfg.seed)
        if key not in self._known:
            data = prepare_data(cfg)
            alike = [known for (other, _), known in self._known.items() if other == options]
            self._known[key] = next((known for known in alike if _same(known, data)), data)
        return self._known[key]


def _same(one: InMemoryData, other: InMemoryData) -> bool:
    splits = [(one.train, other.train), (one.test, other.test)]
    return one.scale == other.scale and all(
        a is not None and b is not None and torch.equal(a.inputs, b.inputs) and torch.equal(a.labels, b.labels)
        for a, b in splits
    )


def size_of(cfg: DictConfig, data_cache: DataCache) -> Size | None:
    """What a run takes when it is stacked; None where its network has no stacked form."""
    data, classifier = prepare(cfg, data_cache.get(cfg))
    assert data.train is not None
    if not can_be_stacked(classifier.network):
        return None
    parameters = list(classifier.network.parameters())
    count = len(data.train.labels)
    features = sum(p.shape[0] for p in parameters)  # of each layer, once for its matrix and once for its BN
    return Size(
        count,
        data.input_shape,
        data.num_classes,
        sum(parameter.numel() for parameter in parameters),
        features,
        find_classifier(classifier.network)[1].in_features,
        count if cfg.batch_size is None else min(count, cfg.batch_size + 1),
        8 if cfg.trainer.precision == "64-true" else 4,
    )


@dataclass(eq=False)
class Ready:
    """A run that is to be trained in a group: its folder is entered, its parts are built."""

    folder: RunFolder
    cfg: DictConfig
    data: InMemoryData
    classifier: Classifier
    history: History | None
    loggers: list[Any]

    @property
    def member(self) -> dict[str, Any]:
        """What the group's file says of it."""
        config = OmegaConf.to_container(self.cfg, resolve=True)
        return {"run_id": self.folder.run_id, "folder": self.folder.path.name, "config": config}


def take(folder: RunFolder, cfg: DictConfig, held: ExitStack, data_cache: DataCache) -> Report | Ready:
    """Enter a run's folder and build its parts; a report if it is not to be trained.

    Args:
        folder: The run's folder.
        cfg: The run's config without Hydra's own.
        held: Keeps the lock.
        data_cache: The sweep's data.
    """
    path, loggers = str(folder.path), list[Any]()
    try:
        report = enter(folder, cfg, held)
        if report is not None:
            return report.of_cell()
        alike = find_alike(cfg, folder)
        if alike is not None:
            with folder.logged():
                return measure(cfg, folder, alike)
        history, loggers = history_of(cfg, folder), make_loggers(cfg, folder)
        saved = read_checkpoint(folder.path / CHECKPOINT, [folder.run_id])
        ended = None if saved is None else ended_with(saved, history)
        if ended is not None:
            return end(folder, loggers, **ended)
        data, classifier = prepare(cfg, data_cache.get(cfg))
        leave_diffs(folder)
        return Ready(folder, cfg, data, classifier, history, loggers)
    except OSError as error:
        return Report(Status.FAILED, path, f"the run could not be begun: {one_line(error)}")
    except Exception as error:
        folder.note(traceback.format_exc())
        folder.fail(one_line(error))
        for logger in loggers:
            logger.fail(one_line(error))
        return Report(Status.FAILED, path, one_line(error))


def parts(ready: Sequence[Ready], sweep: Path) -> list[tuple[SavedGroup | None, dict[str, Any] | None, list[Ready]]]:
    """The runs by what they go on from: an interrupted group and its checkpoint, or nothing.

    A group that was stopped before its first checkpoint begins again in its folder. A run whose history is not the one
    that the checkpoint was saved with starts anew, and says so.

    Raises:
        ConfigError: If a checkpoint is damaged.
    """
    known = interrupted_groups(sweep)
    of_group: dict[SavedGroup | None, list[Ready]] = defaultdict(list)
    for run in ready:
        of_group[known.get(run.folder.run_id)].append(run)
    anew = of_group.pop(None, [])
    found: list[tuple[SavedGroup | None, dict[str, Any] | None, list[Ready]]] = []
    for group, own in of_group.items():
        saved = read_checkpoint(group.path / CHECKPOINT, [run.folder.run_id for run in own]) if group else None
        going = [run for run in own if saved is None or _agrees(run, saved)]
        anew += [run for run in own if run not in going]
        if going:
            found.append((group, saved, going))
    if anew:
        found.append((None, None, anew))
    for _, saved, runs in found:
        for run in runs if saved is None else []:
            if run.history is not None and run.history.path.exists():
                log.warning(STARTS_ANEW, run.folder.path.name, run.history.path.name)
    return found


def _agrees(run: Ready, saved: Mapping[str, Any]) -> bool:
    marks = saved["callbacks"]["MeasureCells"]["histories"]
    return run.history is None or run.history.agrees(marks.get(run.folder.run_id))
