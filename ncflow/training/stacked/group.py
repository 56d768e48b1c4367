"""Train runs that are ready as one, and write what each leaves."""

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ncflow.callbacks.resume import SaveForResume
from ncflow.config.build import build
from ncflow.config.schema import ConfigError
from ncflow.models import Classifier
from ncflow.results import CHECKPOINT, PROGRESS, Status
from ncflow.results.files import TEMPORARY
from ncflow.results.report import Report
from ncflow.training.assembly import measured_layers, prepare
from ncflow.training.checkpoints import OUTCOME, write_checkpoint
from ncflow.training.outcome import end
from ncflow.training.provenance import recorder
from ncflow.training.stacked.data import StackedData
from ncflow.training.stacked.interrupted import SavedGroup, place_for
from ncflow.training.stacked.loop import Cell, MeasureCells, StackedClassifier, losing
from ncflow.training.stacked.modules import StackedNetwork
from ncflow.training.stacked.optimizer import CellOptimizer
from ncflow.training.stacked.ready import DataCache, Ready
from ncflow.training.trainer import set_up_process, train

log = logging.getLogger(__name__)


def train_cells(
    runs: Sequence[Ready],
    sweep: Path,
    stopped: SavedGroup | None = None,
    saved: dict[str, Any] | None = None,
    measure_at_once: bool | None = None,
) -> dict[str, Report]:
    """Train a group to its end, from its checkpoint if there is one.

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
    is_going = lambda: any(cell.is_going for cell in cells)  # noqa: E731
    save = SaveForResume(
        group.path / CHECKPOINT,
        first.measure.every_n_epochs,
        is_going,
        recorder(runs[0].folder.described, len(cells)),
    )
    measure = MeasureCells(
        cells,
        measured_layers(first),
        classifiers[0].loss,
        save.clock,
        lambda cell, status: _finish(cell, status, save.clock.seconds / len(cells), save.recorded),
        measure_at_once,
    )
    stacked_data = StackedData([cell.data for cell in cells], [cell.cfg.seed for cell in cells], first.batch_size)
    try:
        bar = f"{len(runs)} cells as one"
        train(first, group.path, module, stacked_data, [measure, save], [], names, saved, bar)
    finally:
        for cell in cells:
            for logger in cell.loggers if cell.status in (None, Status.FAILED) else []:
                if cell.status == Status.FAILED:
                    logger.fail(cell.error)
                logger.finalize("failed")
    return {cell.run_id: _report(cell) for cell in cells if cell.folder is not None}


def _cell(run: Ready) -> tuple[Cell, Classifier]:
    parts = (run.data, run.classifier.network, run.loggers, run.history, run.classifier.nc0_at)
    return Cell(run.cfg, run.folder, *parts), run.classifier


def _stand_in(member: Mapping[str, Any], data_cache: DataCache) -> tuple[Cell, Classifier] | tuple[None, None]:
    """A cell in the place of a member that is not asked for; none if it cannot be built any more."""
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
            [cell.cfg.get("weight_decay_coupling") for cell in cells],
        ),
        lambda optimizer: build(cfg, "scheduler", optimizer=optimizer, epochs=cfg.epochs),
    )


def _finish(cell: Cell, status: str, seconds: float, recorded: Mapping[str, str]) -> None:
    """Write what a cell of a group leaves: its weights and how it ended, and last its result."""
    assert cell.folder is not None
    record = {**recorded, **({} if cell.history is None else cell.history.digest())}
    ended: dict[str, Any] = {"status": str(status), "rows": cell.rows, "seconds": seconds, "record": record}
    kept = {**ended, "history": None if cell.history is None else cell.history.mark}
    weights = {"state_dict": cell.weights(), "epoch": cell.cfg.epochs, "global_step": cell.steps, OUTCOME: kept}
    write_checkpoint(cell.folder.path / CHECKPOINT, weights, [cell.run_id])
    end(cell.folder, cell.loggers, steps=cell.steps, **ended)
    cell.status = status
