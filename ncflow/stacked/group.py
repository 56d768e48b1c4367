"""From the configs of a group to its results: build the cells, train them together, write each one's files."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from filelock import Timeout
from lightning import Callback, Trainer
from omegaconf import DictConfig, OmegaConf

from ncflow.assembly import (
    make_logger,
    make_trainer,
    measured_layers,
    prepare,
    prepare_data,
    set_up_process,
    write_checkpoint,
)
from ncflow.config import build
from ncflow.data.base import InMemoryData
from ncflow.fit import Outcome
from ncflow.lifecycle import EpochProgress, SaveForResume
from ncflow.models import Classifier
from ncflow.models.network import find_classifier
from ncflow.progress import is_interactive
from ncflow.results import (
    CHECKPOINT,
    HISTORY,
    PROGRESS,
    RESULT,
    RUN,
    RUNNING,
    History,
    final_measures,
    lock,
    read_json,
    write_json,
)
from ncflow.stacked.data import StackedData
from ncflow.stacked.loop import Cell, MeasureCells, StackedClassifier
from ncflow.stacked.modules import StackedNetwork, can_be_stacked
from ncflow.stacked.optimizer import CellOptimizer
from ncflow.stacked.plan import Size

FOLDER = ".stacked"
_MEMBERS = "members.json"


class Library:
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


def size_of(cfg: DictConfig, library: Library) -> Size | None:
    """What a run takes when it is stacked; None where its network has no stacked form."""
    data, classifier = prepare(cfg, library.get(cfg))
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


def homes(sweep: Path) -> dict[str, Path]:
    """Folder of the interrupted group whose checkpoint has a run, by run id; the latest where there are several."""
    found: dict[str, Path] = {}
    for checkpoint in sorted(sweep.glob(f"{FOLDER}/*/{CHECKPOINT}"), key=lambda path: path.stat().st_mtime):
        home = checkpoint.parents[1]
        found |= dict.fromkeys((read_json(home / _MEMBERS) or {}).get("run_ids", []), home)
    return found


def train(
    configs: Sequence[DictConfig],
    folders: Sequence[Path],
    descriptions: Sequence[Mapping[str, Any]],
    sweep: Path,
    measure_at_once: bool | None = None,
) -> None:
    """Train a group to its end, from its checkpoint where there is one.

    Args:
        configs: Of the cells.
        folders: Of the cells; the caller holds their locks.
        descriptions: Flat descriptions of the cells.
        sweep: Folder of the sweep; the group's checkpoint is below it.
        measure_at_once: As for :class:`ncflow.stacked.loop.MeasureCells`.

    Raises:
        StoppedBySignalError: If a signal stopped training, which saved a checkpoint first.
    """
    first = configs[0]
    set_up_process(first)
    library = Library()
    cells, classifiers = [], []
    for cfg, folder, described in zip(configs, folders, descriptions, strict=True):
        data, classifier = prepare(cfg, library.get(cfg))
        write_json(folder / RUN, {**described, "status": RUNNING})
        logger = make_logger(cfg, folder, described)
        history = None if cfg.logger.name == "none" else History(folder / HISTORY)
        loggers = [logger] if logger else []
        cells.append(Cell(cfg, folder, dict(described), data, classifier.network, loggers, history))
        classifiers.append(classifier)
    names = [str(described["run_id"]) for described in descriptions]
    module = _module(first, names, cells, classifiers)
    known = homes(sweep)
    before = {known.get(name) for name in names}
    stopped = before.pop() if len(before) == 1 else None
    home = sweep / FOLDER / hashlib.sha256("".join(sorted(names)).encode()).hexdigest()[:8]
    write_json(home / _MEMBERS, {"run_ids": names})
    for cell in cells:
        _point(cell.folder / PROGRESS, home / PROGRESS)
    measure = MeasureCells(
        cells,
        measured_layers(first),
        classifiers[0].loss,
        lambda cell: _finish(cell, measure),
        measure_at_once,
    )
    save = SaveForResume(home / CHECKPOINT, first.measure.every_n_epochs)
    callbacks: list[Callback] = [measure, save]
    if is_interactive():
        callbacks.append(EpochProgress(f"{len(cells)} cells as one"))
    trainer: Trainer = make_trainer(first, home, callbacks, False)
    trainer.precision_plugin.convert_module(module)
    stacked_data = StackedData([cell.data for cell in cells], [cell.cfg.seed for cell in cells], first.batch_size)
    try:
        trainer.fit(module, datamodule=stacked_data, ckpt_path=None if stopped is None else str(stopped / CHECKPOINT))
    finally:
        for cell in cells:
            for logger in cell.loggers if cell.status is None else []:
                logger.finalize("failed")


def _point(link: Path, target: Path) -> None:
    """How far a cell is is how far its group is."""
    link.unlink(missing_ok=True)
    link.symlink_to(os.path.relpath(target, link.parent))


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


def _finish(cell: Cell, measure: MeasureCells) -> None:
    """Write what a cell leaves: its weights, as a run alone saves them, and last its result."""
    # Copies, as a view would be saved with the weights of all cells.
    state = {f"network.{name}": value.clone() for name, value in cell.network.state_dict().items()}
    weights = {"state_dict": state, "epoch": cell.cfg.epochs, "global_step": cell.steps}
    write_checkpoint(cell.folder / CHECKPOINT, weights)
    assert cell.status is not None
    cells, device = len(measure.cells), next(cell.network.parameters()).device
    outcome = Outcome(cell.status, final_measures(cell.rows), measure.seconds / cells, cell.steps, device, cells)
    result = outcome.result(cell.described)
    for logger in cell.loggers:
        logger.finish({**result, "epoch": cell.rows[0]["epoch"]})
    write_json(cell.folder / RESULT, result)


def lock_all(folders: Sequence[Path], held: ExitStack) -> list[bool]:
    """Take the locks of the folders where nobody has them; which ones were taken."""
    taken = []
    for folder in folders:
        try:
            held.enter_context(lock(folder).acquire(timeout=1))
            taken.append(True)
        except Timeout:
            taken.append(False)
    return taken
