"""From the configs of a group to its results: build the cells, train them together, write each one's files."""

import logging
import os
import traceback
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, Trainer
from omegaconf import DictConfig, OmegaConf

from ncflow.callbacks.progress import EpochProgress
from ncflow.callbacks.resume import SaveForResume
from ncflow.config.build import build
from ncflow.config.explain import one_line
from ncflow.config.schema import ConfigError
from ncflow.data.base import InMemoryData
from ncflow.models import Classifier
from ncflow.models.network import find_classifier
from ncflow.results import CHECKPOINT, HISTORY, PROGRESS, History, RunFolder, Status
from ncflow.results.files import TEMPORARY
from ncflow.results.report import Report, line_of
from ncflow.runtime.progress import is_interactive
from ncflow.training.assembly import make_logger, make_trainer, measured_layers, prepare, prepare_data, set_up_process
from ncflow.training.checkpoints import OUTCOME, Checkpoints, read_checkpoint, write_checkpoint
from ncflow.training.entry import enter
from ncflow.training.fit import STARTS_ANEW, Outcome, hardware, outcome_of
from ncflow.training.stacked.data import StackedData
from ncflow.training.stacked.interrupted import SavedGroup, interrupted_groups, place_for
from ncflow.training.stacked.loop import Cell, MeasureCells, StackedClassifier, losing
from ncflow.training.stacked.modules import StackedNetwork, can_be_stacked
from ncflow.training.stacked.optimizer import CellOptimizer
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
    logger: Any

    @property
    def member(self) -> dict[str, Any]:
        """What the group's file says of it."""
        config = OmegaConf.to_container(self.cfg, resolve=True)
        return {"run_id": self.folder.run_id, "folder": self.folder.path.name, "config": config}


def take(folder: RunFolder, cfg: DictConfig, held: ExitStack, data_cache: DataCache) -> Report | Ready:
    """Enter a run's folder and build its parts; a report where it is not to be trained.

    Args:
        folder: The run's folder.
        cfg: The run's config without Hydra's own.
        held: Keeps the lock.
        data_cache: The sweep's data.
    """
    path = str(folder.path)
    try:
        report = enter(folder, cfg, held)
        if report is not None:
            return Report(Status.FAILED, path, report.error) if report.status == Status.REFUSED else report
        keeps_history = cfg.logger.name != "none" or (folder.path / HISTORY).exists()
        history = History(folder.path / HISTORY, owned=True) if keeps_history else None
        saved = read_checkpoint(folder.path / CHECKPOINT, [folder.run_id])
        logger = make_logger(cfg, folder.path, folder.described)
        outcome = None if saved is None or OUTCOME not in saved else outcome_of(saved, history)
        if outcome is not None:
            return _end(folder, outcome, [logger] if logger else [])
        data, classifier = prepare(cfg, data_cache.get(cfg))
        return Ready(folder, cfg, data, classifier, history, logger)
    except OSError as error:
        return Report(Status.FAILED, path, f"the run could not be begun: {one_line(error)}")
    except Exception as error:
        folder.note(traceback.format_exc())
        folder.fail(one_line(error))
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


def train(
    runs: Sequence[Ready],
    sweep: Path,
    stopped: SavedGroup | None = None,
    saved: dict[str, Any] | None = None,
    measure_at_once: bool | None = None,
) -> dict[str, Report]:
    """Train a group to its end, from its checkpoint where there is one.

    Where it goes on, those that are at their end or not asked for keep their places: the last bits of a cell may depend
    on how many are trained with it, and a kill should change no digit.

    Args:
        runs: The runs; the caller holds their locks.
        sweep: Folder of the sweep; the group's checkpoint is below it.
        stopped: The interrupted group, None to start anew.
        saved: Its checkpoint.
        measure_at_once: As for :class:`ncflow.training.stacked.loop.MeasureCells`.

    Returns:
        What became of each run, by its id.

    Raises:
        StoppedBySignalError: If a signal stopped training, which saved a checkpoint first.
    """
    first = runs[0].cfg
    set_up_process(first)
    own = {run.folder.run_id: run for run in runs}
    members = [run.member for run in runs] if stopped is None else list(stopped.members)
    cells, classifiers, names, data_cache = [], [], [], DataCache()
    for member in members:
        run = own.get(member["run_id"])
        cell, classifier = _cell(run) if run is not None else _stand_in(member, data_cache)
        if cell is not None and classifier is not None:
            cells.append(cell)
            classifiers.append(classifier)
            names.append(member["run_id"])
    module = _module(first, names, cells, classifiers)
    group = place_for(sweep, [m for m in members if m["run_id"] in names], list(own), stopped)
    group.write()
    for cell in cells:
        if cell.folder is not None:
            with losing(cell):
                _point(cell.folder.path / PROGRESS, group.path / PROGRESS)
    measure = MeasureCells(
        cells,
        measured_layers(first),
        classifiers[0].loss,
        lambda cell, status: _finish(cell, status, measure),
        measure_at_once,
    )
    is_going = lambda: any(cell.is_going for cell in cells)  # noqa: E731
    save = SaveForResume(group.path / CHECKPOINT, first.measure.every_n_epochs, is_going)
    callbacks: list[Callback] = [measure, save]
    if is_interactive():
        callbacks.append(EpochProgress(f"{len(runs)} cells as one"))
    trainer: Trainer = make_trainer(first, group.path, callbacks, False, Checkpoints(names, saved))
    trainer.precision_plugin.convert_module(module)
    stacked_data = StackedData([cell.data for cell in cells], [cell.cfg.seed for cell in cells], first.batch_size)
    try:
        place = None if saved is None or stopped is None else str(stopped.path / CHECKPOINT)
        trainer.fit(module, datamodule=stacked_data, ckpt_path=place)
    finally:
        for cell in cells:
            for logger in cell.loggers if cell.status in (None, Status.FAILED) else []:
                logger.finalize("failed")
    return {cell.run_id: _report(cell) for cell in cells if cell.folder is not None}


def _cell(run: Ready) -> tuple[Cell, Classifier]:
    loggers = [run.logger] if run.logger else []
    cell = Cell(run.cfg, run.folder, run.data, run.classifier.network, loggers, run.history)
    return cell, run.classifier


def _stand_in(member: Mapping[str, Any], data_cache: DataCache) -> tuple[Cell, Classifier] | tuple[None, None]:
    """A cell in the place of a member that is not asked for; none where it cannot be built any more."""
    cfg = OmegaConf.create(dict(member["config"]))
    try:
        data, classifier = prepare(cfg, data_cache.get(cfg))
    except ConfigError as error:
        log.debug("%s keeps no place in its group: %s", member["folder"], error)
        return None, None
    return Cell(cfg, None, data, classifier.network, [], None), classifier


def _report(cell: Cell) -> Report:
    assert cell.folder is not None
    path = str(cell.folder.path)
    result = cell.folder.finished()
    if result is not None:
        return Report(str(result["status"]), path, values=result)
    cell.folder.fail(cell.error)
    return Report(Status.FAILED, path, cell.error)


def _point(link: Path, target: Path) -> None:
    """How far a cell is is how far its group is."""
    new = link.with_name(f".{link.name}{TEMPORARY}")
    new.unlink(missing_ok=True)
    new.symlink_to(os.path.relpath(target, link.parent))
    os.replace(new, link)


def _module(
    cfg: DictConfig, names: Sequence[str], cells: Sequence[Cell], classifiers: Sequence[Classifier]
) -> StackedClassifier:
    options = []
    for cell in cells:
        node = OmegaConf.to_container(cell.cfg.optimizer, resolve=True)
        assert isinstance(node, dict)
        own = {str(key): value for key, value in node.items() if key not in ("name", "_target_", "fused")}
        options.append({key: tuple(value) if isinstance(value, list) else value for key, value in own.items()})
    network = StackedNetwork([classifier.network for classifier in classifiers])  # type: ignore[misc]
    return StackedClassifier(
        names,
        network,
        classifiers[0].loss,
        lambda stacked: CellOptimizer(
            stacked,
            lambda groups: build(cfg, "optimizer", params=groups),
            options,
            [cell.cfg.weight_decay for cell in cells],
            [cell.cfg.weight_decay_scope for cell in cells],
        ),
        lambda optimizer: build(cfg, "scheduler", optimizer=optimizer, epochs=cfg.epochs),
    )


def _finish(cell: Cell, status: str, measure: MeasureCells) -> None:
    """Write what a cell leaves: its weights and how it ended, and last its result."""
    assert cell.folder is not None
    # Copies, as a view would be saved with the weights of all cells.
    state = {f"network.{name}": value.clone() for name, value in cell.network.state_dict().items()}
    cells, device = len(measure.cells), next(cell.network.parameters()).device
    record = hardware(device, cells) | ({} if cell.history is None else cell.history.digest())
    outcome = Outcome(status, cell.rows, measure.seconds / cells, cell.steps, record)
    kept = {
        "status": str(status),
        "rows": cell.rows,
        "seconds": outcome.seconds,
        "record": record,
        "history": None if cell.history is None else cell.history.mark,
    }
    weights = {"state_dict": state, "epoch": cell.cfg.epochs, "global_step": cell.steps, OUTCOME: kept}
    write_checkpoint(cell.folder.path / CHECKPOINT, weights, [cell.run_id])
    _end(cell.folder, outcome, cell.loggers)
    cell.status = status


def _end(folder: RunFolder, outcome: Outcome, loggers: Sequence[Any]) -> Report:
    """End a run's loggers, and say that it is finished."""
    result = outcome.result(folder.described)
    for logger in loggers:
        logger.finish({**result, "epoch": outcome.rows[0]["epoch"]})
    folder.finish(result)
    report = Report(outcome.status, str(folder.path), values=result)
    folder.note(line_of(report))
    return report
