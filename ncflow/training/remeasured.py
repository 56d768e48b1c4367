"""Measure the kept checkpoints of our own runs again: a new measure, or other layers, need no training."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf, open_dict

from ncflow.checks import ArgumentError, error_line, require
from ncflow.config.identity import describe, run_id
from ncflow.config.schema import register
from ncflow.data.base import InMemoryData
from ncflow.measuring.groups import Groups
from ncflow.measuring.split import rows_of
from ncflow.models import Classifier
from ncflow.results import CHECKPOINT, HISTORY, RUN, RunFolder, load_history, read_json, run_folders
from ncflow.results.columns import AGAIN
from ncflow.results.files import KEPT, file_digest
from ncflow.results.report import Report
from ncflow.training.assembly import measured, measured_groups, measured_layers, prepare
from ncflow.training.checkpoints import read_checkpoint
from ncflow.training.entry import HYDRA
from ncflow.training.states import Rows, run_hash, write_run
from ncflow.training.trainer import set_up_process

log = logging.getLogger(__name__)

# Beyond, a checkpoint does not give the numbers that the run measured as it was trained, by rounding or not.
_ALIKE = 1e-3


@dataclass(frozen=True)
class Kept:
    """A run of ours and the states of it that were kept.

    Attributes:
        folder: The run's folder.
        cfg: Its config.
        identity: Its id.
        files: Of each epoch.
        rows: Of its history.
        result: What it wrote at its end; None before.
    """

    folder: Path
    cfg: DictConfig
    identity: str
    files: dict[int, Path]
    rows: list[dict[str, Any]]
    result: dict[str, Any] | None

    def state(self, epoch: int) -> dict[str, Any]:
        """The checkpoint of an epoch.

        Raises:
            ArgumentError: If it is not there any more.
            ConfigError: If it is damaged.
        """
        saved = read_checkpoint(self.files[epoch], [self.identity])
        require(saved is not None, "MODEL", "a run whose checkpoints stay", self.files[epoch])
        assert saved is not None
        return saved


def kept_runs(*folders: Path) -> Iterator[Kept | ArgumentError]:
    """The runs below some folders that were trained here; of one that cannot be measured again why.

    Raises:
        FileNotFoundError: If a folder does not exist.
        ArgumentError: If there is no run.
    """
    found = [folder for folder in run_folders(*folders) if _was_trained(read_json(folder / RUN) or {})]
    require(len(found) > 0, "MODEL", "a folder with runs of ncflow", ", ".join(map(str, folders)))
    for folder in found:
        try:
            yield kept_of(folder)
        except ArgumentError as error:
            yield error
        except Exception as error:  # whatever a config that somebody changed leads to
            why = error_line(error, named=True)
            yield ArgumentError(f"MODEL must be a run of ncflow whose config can be read ({why}), found {folder}")


def _was_trained(described: Mapping[str, Any]) -> bool:
    """Whether a run is no measurement of what was trained before, or elsewhere."""
    return AGAIN not in described and described.get("figures") != ["measured"]


def kept_of(folder: Path) -> Kept:
    """A run of ours and its kept states.

    Raises:
        ArgumentError: If it is none, or has none.
    """
    path = folder / HYDRA / "config.yaml"
    require(path.is_file(), "MODEL", "a run of ncflow with its config", f"{folder} without {HYDRA}/config.yaml")
    register()
    cfg = OmegaConf.load(path)
    require(isinstance(cfg, DictConfig), "MODEL", "a run of ncflow with a config of options", str(path))
    assert isinstance(cfg, DictConfig)
    own = (read_json(folder / RUN) or {}).get("run_id")
    if own != run_id(cfg):
        raise ArgumentError(
            f"{folder} must be the run of its config, found {own} for {run_id(cfg)}: has data.path changed?"
        )
    files = {int(file.stem.rpartition("=")[2]): file for file in folder.glob(KEPT) if file.stem[6:].isdecimal()}
    result, rows = RunFolder(folder, {"run_id": own}).finished(), _own_rows(folder)
    last = None if result is None or not (folder / CHECKPOINT).is_file() else _last_epoch(rows, cfg)
    if last is not None:
        files = {epoch: file for epoch, file in files.items() if epoch < last} | {last: folder / CHECKPOINT}
    require(len(files) > 0, "MODEL", "a run with kept checkpoints, or finished", folder)
    return Kept(folder, cfg, str(own), dict(sorted(files.items())), rows, result)


def _last_epoch(rows: Sequence[Mapping[str, Any]], cfg: DictConfig) -> int:
    return int(max(row["epoch"] for row in rows)) if rows else int(cfg.epochs)


def remeasure(
    kept: Kept, out: Path, layers: str | Sequence[str] | None, groups: Sequence[str] | None, device: torch.device
) -> Report:
    """Measure the kept states of a run into a run's folder of their own: its history, with the config of the run.

    Args:
        kept: The run.
        out: Folder of the run's folder.
        layers: As for :func:`ncflow.measuring.features.resolve_layers`; None for the run's own.
        groups: Of measures, as for :func:`ncflow.measuring.split.measure_split`; None for the run's own.
        device: Where the model is.

    Raises:
        ConfigError: If data or model cannot be built any more.
    """
    cfg = kept.cfg
    with open_dict(cfg):
        cfg.trainer.devices = cfg.trainer.num_nodes = 1
        cfg.measure.layers = cfg.measure.layers if layers is None else layers
        cfg.measure.groups = cfg.measure.groups if groups is None else list(groups)
        if "ood" not in measured_groups(cfg):
            cfg.measure.ood = None
    flat = describe(cfg, str((read_json(kept.folder / RUN) or {}).get("experiment", kept.folder.parent.name)))
    digests = {str(epoch): file_digest(file) for epoch, file in kept.files.items()}
    identity = run_hash([kept.identity, digests, measured_layers(cfg), measured_groups(cfg)])
    described = {**flat, "run_id": identity, AGAIN: kept.identity}
    folder = RunFolder(out / str(flat["experiment"]) / f"{flat['name']}-{identity}", described)
    built: list[tuple[InMemoryData, Classifier]] = []

    def rows_at(index: int) -> Rows:
        if not built:
            set_up_process(cfg)
            built.append(states_of(cfg, device))
        return rows_of_state(cfg, *built[0], kept, list(kept.files)[index])

    notes = [f"checkpoints of {kept.folder.absolute()}"]
    return write_run(folder, len(kept.files), rows_at, notes, device, measured_groups(cfg))


def states_of(cfg: DictConfig, device: torch.device) -> tuple[InMemoryData, Classifier]:
    """The data of a config, and a network that its kept states fit."""
    data, classifier = prepare(cfg)
    if cfg.trainer.channels_last:
        classifier.to(memory_format=torch.channels_last)
    if cfg.trainer.precision == "64-true":
        classifier.double()
    return data, classifier.to(device)


def rows_of_state(cfg: DictConfig, data: InMemoryData, classifier: Classifier, kept: Kept, epoch: int) -> Rows:
    """As :class:`ncflow.callbacks.NeuralCollapseCallback` measured while the run was trained.

    Args:
        cfg: What is to be measured.
        data: Of :func:`states_of`.
        classifier: Of :func:`states_of`; it has the state afterwards.
        kept: The run.
        epoch: Of the state.
    """
    classifier.load_state_dict(kept.state(epoch)["state_dict"])
    rows: Rows = []
    groups = Groups(measured_groups(cfg), data.ood_dataloader(cfg.measure.batch_size))
    for split, loader in data.measure_dataloaders(cfg.measure.batch_size).items():
        found = measured(cfg, classifier.network, classifier.loss, loader, groups)
        rows += rows_of(epoch, split, found, classifier.nc0_at)
    _compare(rows, kept.rows)
    return rows


def _own_rows(folder: Path) -> list[dict[str, Any]]:
    if not (folder / HISTORY).is_file():
        return []
    return [{str(key): value for key, value in row.items()} for row in load_history(folder).to_dict("records")]


def _compare(rows: Rows, own: Sequence[dict[str, Any]]) -> None:
    """Say if a checkpoint does not give what the run measured at that epoch."""
    keys = ("epoch", "split", "layer")
    known = {tuple(row[key] for key in keys): row for row in own}
    for row in rows:
        before = known.get(tuple(row[key] for key in keys), {})
        for name in ("loss", "feature_rms_norm", "nc1"):
            if name not in row or name not in before:
                continue
            one, other = float(row[name]), float(before[name])
            if abs(one - other) > _ALIKE * max(abs(one), abs(other)):
                log.warning(
                    "epoch %s: %s is %g of the checkpoint and %g in the run's own history",
                    row["epoch"],
                    name,
                    one,
                    other,
                )
