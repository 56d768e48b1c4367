"""The fields of a run, and the resolvers that the configs use."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf

from ncflow.config.identity import experiment_name, folder_name

_PACKAGE = Path(__file__).parents[1]
CONF_DIR = _PACKAGE / "conf" if (_PACKAGE / "conf").is_dir() else _PACKAGE.parent / "conf"
"""Folder of the configs: inside an installed wheel, or beside the package in a checkout."""


class ConfigError(ValueError):
    """The config asks for something impossible; the message is one line for the user."""


@dataclass
class Measure:
    """When and how collapse is measured."""

    every_n_epochs: int = 5
    layers: Any = "last"
    delta: float = 0.05
    self_pairs: bool = False
    batch_size: int = 1000
    snapshot_samples: int | None = None
    margins: bool | None = None
    first_steps: int | None = None


@dataclass
class RunConfig:
    """Typed root of ``conf/train.yaml``. The groups are checked against the signature of their ``_target_``."""

    seed: int = MISSING
    epochs: int = MISSING
    batch_size: int | None = MISSING
    weight_decay: float = MISSING
    weight_decay_scope: str = MISSING
    measure: Measure = field(default_factory=Measure)
    figures: list[str] | None = None
    runs_dir: str = MISSING
    data: Any = MISSING
    model: Any = MISSING
    loss: Any = MISSING
    optimizer: Any = MISSING
    scheduler: Any = MISSING
    trainer: Any = MISSING
    logger: Any = MISSING


def register() -> None:
    """Make the schema and the resolvers of ``conf/train.yaml`` known to Hydra; harmless when repeated."""
    ConfigStore.instance().store(name="run_schema", node=RunConfig, provider="ncflow")
    OmegaConf.register_new_resolver("ncflow.slug", lambda _root_: folder_name(_root_), replace=True)
    OmegaConf.register_new_resolver("ncflow.runs_dir", lambda _root_: checked_runs_dir(_root_), replace=True)
    OmegaConf.register_new_resolver("ncflow.experiment", lambda _root_: experiment_name(_root_), replace=True)


def checked_runs_dir(root: DictConfig) -> str:
    """The field ``runs_dir``, refused before Hydra makes a folder: an empty one would be the machine's root."""
    directory = root.runs_dir
    if not isinstance(directory, str) or not directory.strip() or "\0" in directory:
        raise ConfigError(f"runs_dir must be the name of a folder, found {directory!r}")
    return directory
