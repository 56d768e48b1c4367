"""Rules for the fields of a run and for Hydra's own options, each broken one in one line."""

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ncflow.config.identity import LARGEST_WHOLE, flat_config
from ncflow.config.schema import ConfigError, RunConfig, checked_runs_dir

SCOPES = ("all", "last_layer")
_LARGEST_COUNT = 2**31 - 1
_COUNTS = ("every_n_epochs", "batch_size", "snapshot_samples", "first_steps")  # of measure
_NAMED_GROUPS = ("data", "model", "loss", "optimizer", "scheduler")
_LOGGER_OPTIONS = {"csv": ("name",), "none": ("name",), "wandb": ("name", "project", "entity")}


def check_hydra(cfg: DictConfig) -> None:
    """Refuse options of Hydra that would have it write where nobody has looked whose the files are.

    Args:
        cfg: The config with Hydra's own part.

    Raises:
        ConfigError: Naming the option, the rule and the value found.
    """
    subdir = cfg.hydra.output_subdir
    if subdir is not None:
        raise ConfigError(f"hydra.output_subdir must be null, as ncflow writes .hydra itself, found {subdir!r}")
    for part in ("job_logging", "hydra_logging"):
        for name, handler in (cfg.hydra[part].get("handlers") or {}).items():
            if "filename" in handler:
                rule = f"hydra.{part}.handlers.{name} must write to no file, as a run has a log of its own"
                raise ConfigError(f"{rule}, found {handler.filename!r}")


def check_fields(cfg: DictConfig) -> None:
    """Check the ranges of the run fields, and that every option is a value that a run can have.

    Raises:
        ConfigError: Naming the field, the rule and the value found.
    """
    unknown = [str(key) for key in cfg if key not in RunConfig.__dataclass_fields__]
    if unknown:
        raise ConfigError(f"{unknown[0]} is not an option of this config, found {cfg[unknown[0]]!r}")
    missing = sorted(OmegaConf.missing_keys(cfg))
    if missing:
        raise ConfigError(f"{missing[0]} must be given, for example {missing[0]}=...")
    first_steps, layers = cfg.measure.first_steps, _plain(cfg.measure.layers)
    names = layers if isinstance(layers, list) else [layers]
    rules = [
        ("seed", cfg.seed >= 0, "at least 0"),
        ("epochs", cfg.epochs >= 1, "at least 1"),
        ("batch_size", cfg.batch_size is None or cfg.batch_size >= 1, "null or at least 1"),
        ("weight_decay", 0 <= cfg.weight_decay < float("inf"), "a number of at least 0"),
        ("weight_decay_scope", cfg.weight_decay_scope in SCOPES, "one of 'all', 'last_layer'"),
        ("measure.every_n_epochs", cfg.measure.every_n_epochs >= 1, "at least 1"),
        ("measure.delta", 0 < cfg.measure.delta < 1, "between 0 and 1, both excluded"),
        ("measure.batch_size", cfg.measure.batch_size >= 1, "at least 1"),
        (
            "measure.snapshot_samples",
            cfg.measure.snapshot_samples is None or cfg.measure.snapshot_samples >= 1,
            "null or at least 1",
        ),
        ("measure.first_steps", first_steps is None or first_steps >= 1, "null or at least 1"),
        ("measure.first_steps", first_steps is None or cfg.measure.margins, "null without measure.margins=true"),
        ("measure.layers", all(isinstance(name, str) for name in names), "a name or a list of names"),
    ]
    for name in ("epochs", "batch_size", *(f"measure.{name}" for name in _COUNTS)):
        value = OmegaConf.select(cfg, name)
        rules.append((name, value is None or value <= _LARGEST_COUNT, f"at most {_LARGEST_COUNT}"))
    for name, holds, rule in rules:
        if not holds:
            raise ConfigError(f"{name} must be {rule}, found {_plain(OmegaConf.select(cfg, name))!r}")
    for name, value in flat_config(cfg).items():
        _check_value(name, value)
    checked_runs_dir(cfg)
    _check_names(cfg)


def _plain(value: Any) -> Any:
    return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value


def _check_value(name: str, value: Any) -> None:
    """Refuse what no option means, whatever it is an option of."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            _check_value(f"{name}.{key}", item)
    elif isinstance(value, list):
        for item in value:
            _check_value(name, item)
    elif isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{name} must be a finite number, found {value!r}")
    elif isinstance(value, int) and abs(value) > LARGEST_WHOLE:
        raise ConfigError(f"{name} must be in -2**53..2**53, found {_shortened(value)}")
    elif isinstance(value, str) and any(character in value for character in "\0\n\r"):
        raise ConfigError(f"{name} must be one line of text, found {value!r}")


def _shortened(number: int) -> str:
    """A number of thousands of digits is refused by Python's ``str``."""
    return str(number) if abs(number) < 10**40 else f"one of {number.bit_length()} bits"


def _check_names(cfg: DictConfig) -> None:
    for group in _NAMED_GROUPS:
        node = cfg[group]
        if not isinstance(node, DictConfig):
            raise ConfigError(f"{group} must be a group of options, found {_plain(node)!r}")
        name = _plain(node.get("name", group))
        if not isinstance(name, str) or not name.strip():
            raise ConfigError(f"{group}.name must be text, found {name!r}")
    logger = cfg.logger
    kind = _plain(logger.get("name")) if isinstance(logger, DictConfig) else _plain(logger)
    if not isinstance(kind, str) or kind not in _LOGGER_OPTIONS:
        raise ConfigError(f"logger.name must be one of 'csv', 'none', 'wandb', found {kind!r}")
    for key in logger:
        value, known = _plain(logger[key]), _LOGGER_OPTIONS[kind]
        if key not in known:
            raise ConfigError(f"logger.{key} must be one of the options of logger={kind}: {', '.join(known)}")
        if not (isinstance(value, str) and value.strip()) and not (key == "entity" and value is None):
            raise ConfigError(f"logger.{key} must be text, found {value!r}")


def claim_folder(claimed: dict[str, str], folder: Path, identity: str) -> None:
    """Note whose folder one is, so that no two runs of a sweep share it.

    Args:
        claimed: The run ids by folder, of all cells so far.
        folder: Of a cell.
        identity: Its run id; the same run may claim its folder again.

    Raises:
        ConfigError: If another run has it.
    """
    if claimed.setdefault(os.path.abspath(folder), identity) != identity:
        raise ConfigError(f"hydra.sweep.subdir must tell the runs of a sweep apart, found {folder.name!r} for two")
