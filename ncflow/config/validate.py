"""Rules for the fields of a run and for Hydra's own options, each broken one in one line."""

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from ncflow.config.build import check_types
from ncflow.config.explain import unknown_key
from ncflow.config.identity import LARGEST_WHOLE, flatten, plain_config
from ncflow.config.schema import LOGGERS, Checkpoint, ConfigError, Measure, Named, RunConfig, checked_runs_dir

_NAMED_GROUPS = ("data", "model", "loss", "optimizer", "scheduler")


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
    objective = cfg.get("objective")
    if objective is not None and not is_search(cfg):
        raise ConfigError(f"objective must be null without hydra/sweeper=optuna, which searches, found {objective!r}")


def is_search(cfg: DictConfig) -> bool:
    """Whether a config, with Hydra's own part, is of ``hydra/sweeper=optuna``."""
    return "NcflowOptunaSweeper" in str(cfg.hydra.sweeper.get("_target_"))


def check_fields(cfg: DictConfig) -> None:
    """Check the ranges of the run fields, and that every option is a value that a run can have.

    Args:
        cfg: The config; Hydra's own part of it is passed over.

    Raises:
        ConfigError: Naming the field, the rule and the value found.
    """
    options = plain_config(cfg)
    unknown = [key for key in options if key not in RunConfig.__dataclass_fields__]
    if unknown:
        raise ConfigError(unknown_key(unknown[0], f", found {cfg[unknown[0]]!r}"))
    flat = dict(flatten(options))
    missing = sorted(name for name, value in flat.items() if value == "???")
    if missing:
        raise ConfigError(f"{missing[0]} must be given, for example {missing[0]}=...")
    check_types("", RunConfig, {name: value for name, value in options.items() if not isinstance(value, dict)})
    check_types("measure", Measure, options["measure"])
    check_types("checkpoint", Checkpoint, options.get("checkpoint", {}))
    first_steps = cfg.measure.first_steps
    if first_steps is not None and not cfg.measure.margins:
        raise ConfigError(f"measure.first_steps must be null without measure.margins=true, found {first_steps}")
    for name, value in flat.items():
        _check_value(name, value)
    checked_runs_dir(cfg)
    for group in _NAMED_GROUPS:
        if not isinstance(options[group], dict):
            raise ConfigError(f"{group} must be a group of options, found {options[group]!r}")
        check_types(group, Named, {"name": options[group].get("name", group)})
    _check_logger(options["logger"])


def _check_logger(options: Any) -> None:
    kind = options.get("name") if isinstance(options, dict) else options
    if not isinstance(options, dict) or not isinstance(kind, str) or kind not in LOGGERS:
        raise ConfigError(f"logger.name must be one of {', '.join(map(repr, LOGGERS))}, found {kind!r}")
    known = LOGGERS[kind].__dataclass_fields__
    for key in options:
        if key not in known:
            raise ConfigError(f"logger.{key} must be one of the options of logger={kind}: {', '.join(known)}")
    check_types("logger", LOGGERS[kind], options)


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
