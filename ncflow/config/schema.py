"""The fields of a run, and the resolvers that the configs use."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf

from ncflow.config.identity import experiment_name, folder_name

_PACKAGE = Path(__file__).parents[1]
CONF_DIR = _PACKAGE / "conf" if (_PACKAGE / "conf").is_dir() else _PACKAGE.parent / "conf"
"""Folder of the configs: inside an installed wheel, or beside the package in a checkout."""


class ConfigError(ValueError):
    """The config asks for something impossible; the message is one line for the user."""


class Rule:
    """What ``Annotated[type, Rule(...)]`` asks for besides the type: pydantic heeds it, OmegaConf passes over it.

    Pydantic is imported only to check: this module is imported at every start, also of a run that is finished.

    Args:
        words: To be read after "must be", empty for pydantic's own words. A number above ``le`` is told the limit.
        hint: A narrower type than OmegaConf can express.
        bounds: As ``pydantic.Field`` takes them.
    """

    def __init__(self, words: str = "", hint: Any = None, **bounds: Any) -> None:
        self.words, self.hint, self.bounds = words, hint, bounds

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic import Field

        return handler.generate_schema(Annotated[self.hint or source, Field(**self.bounds)])


Text = Annotated[str, Rule("text", pattern=r"\S")]
Count = Annotated[int, Rule(ge=1, le=2**31 - 1)]
OptionalCount = Annotated[int | None, Rule("null or at least 1", ge=1, le=2**31 - 1)]


@dataclass
class Measure:
    """When and how collapse is measured."""

    every_n_epochs: Count = 5
    first_epochs: OptionalCount = None
    layers: Annotated[Any, Rule("a name or a list of names", str | list[str])] = "last"
    delta: Annotated[float, Rule("between 0 and 1, both excluded", gt=0, lt=1)] = 0.05
    self_pairs: bool = False
    batch_size: Count = 1000
    snapshot_samples: OptionalCount = None
    margins: bool | None = None
    first_steps: OptionalCount = None
    groups: Annotated[Any, Rule("null or a list of names", list[str] | None)] = None
    ood: Annotated[Any, Rule("null or a group of options", dict[str, Any] | None)] = None
    per_class: bool | None = None
    again: Annotated[str, Rule("one of 'checkpoint', 'training'", Literal["checkpoint", "training"])] = "checkpoint"


@dataclass
class Checkpoint:
    """Which checkpoints a run keeps beside its last one."""

    keep_every_n_epochs: OptionalCount = None


@dataclass
class RunConfig:
    """Typed root of ``conf/train.yaml``. The groups are checked against the signature of their ``_target_``."""

    seed: Annotated[int, Rule(ge=0)] = MISSING
    epochs: Count = MISSING
    batch_size: OptionalCount = MISSING
    weight_decay: Annotated[float, Rule("a number of at least 0", ge=0, allow_inf_nan=False)] = MISSING
    weight_decay_scope: Annotated[str, Rule("one of 'all', 'last_layer'", Literal["all", "last_layer"])] = MISSING
    weight_decay_coupling: Annotated[float | None, Rule("null or between 0 and 1", ge=0, le=1, allow_inf_nan=False)] = (
        None
    )
    measure: Measure = field(default_factory=Measure)
    checkpoint: Checkpoint = field(default_factory=Checkpoint)
    objective: Any = None
    figures: list[str] | None = None
    runs_dir: str = MISSING
    data: Any = MISSING
    model: Any = MISSING
    loss: Any = MISSING
    optimizer: Any = MISSING
    scheduler: Any = MISSING
    trainer: Any = MISSING
    logger: Any = MISSING


@dataclass
class Named:
    """What every group has, a logger's included."""

    name: Text


@dataclass
class WandbLogger(Named):
    """The group ``logger=wandb``."""

    project: Text
    entity: Text | None
    alerts: bool = False


@dataclass
class MLflowLogger(Named):
    """The group ``logger=mlflow``."""

    tracking_uri: Text | None


LOGGERS: dict[str, type[Named]] = {
    "csv": Named,
    "none": Named,
    "wandb": WandbLogger,
    "tensorboard": Named,
    "mlflow": MLflowLogger,
}


def register() -> None:
    """Make the schema and the resolvers of ``conf/train.yaml`` known to Hydra; harmless when repeated."""
    ConfigStore.instance().store(name="run_schema", node=RunConfig, provider="ncflow")
    OmegaConf.register_new_resolver("ncflow.slug", lambda _root_: folder_name(_root_, _store(_root_)), replace=True)
    OmegaConf.register_new_resolver("ncflow.runs_dir", lambda _root_: checked_runs_dir(_root_), replace=True)
    OmegaConf.register_new_resolver("ncflow.experiment", lambda _root_: experiment_name(_root_), replace=True)
    OmegaConf.register_new_resolver("ncflow.epochs_of", epochs_of, replace=True)
    OmegaConf.register_new_resolver("ncflow.rate_of", rate_of, replace=True)


def _store(root: DictConfig) -> Path:
    """Folder of the runs of an experiment."""
    return Path(checked_runs_dir(root)).absolute() / experiment_name(root)


def epochs_of(steps: int, samples: int | None, batch_size: int | None) -> int:
    """How many epochs come nearest to so many optimiser steps, >= 1: for grids that compare batch sizes.

    Args:
        steps: Of the optimiser, >= 1.
        samples: Of the training split.
        batch_size: None: the whole training split is one batch.
    """
    if samples is None:
        raise ConfigError("data.num_samples must be a number where epochs are counted in steps, found None")
    size = samples if batch_size is None else batch_size
    batches = -(-samples // size)
    joined = batches > 1 and (samples - 1) % size == 0  # as they are cut: a last one of one sample joins that before it
    return max(1, round(steps / (batches - joined)))


def rate_of(effective: float, momentum: float) -> float:
    """The learning rate lr whose lr/(1 - momentum), the length of SGD's steps in the end, is given.

    >>> rate_of(0.3, 0.9)
    0.03

    Args:
        effective: lr/(1 - momentum).
        momentum: In [0, 1).
    """
    if not isinstance(momentum, int | float) or not 0 <= momentum < 1:
        rule = "in [0, 1) where it decides the learning rate"
        raise ConfigError(f"optimizer.momentum must be {rule}, found {momentum!r}")
    return float(f"{effective * (1 - momentum):.12g}")


def checked_runs_dir(root: DictConfig) -> str:
    """The field ``runs_dir``, refused before Hydra makes a folder: an empty one would be the machine's root."""
    directory = root.runs_dir
    if not isinstance(directory, str) or not directory.strip() or "\0" in directory:
        raise ConfigError(f"runs_dir must be the name of a folder, found {directory!r}")
    return directory
