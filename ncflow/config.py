"""Run schema, run identity, and the one place that turns a config node into an object.

Nothing heavy is imported here: a finished run is recognised without loading PyTorch.
"""

import hashlib
import importlib
import inspect
import json
import math
import os
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf

_PACKAGE = Path(__file__).parent
CONF_DIR = _PACKAGE / "conf" if (_PACKAGE / "conf").is_dir() else _PACKAGE.parent / "conf"
"""Folder of the configs: inside an installed wheel, or beside the package in a checkout."""

SCOPES = ("all", "last_layer")
_LARGEST = 2**53  # identities and result files hold numbers as float64, which knows no larger ones apart
_LARGEST_COUNT = 2**31 - 1
_COUNTS = ("every_n_epochs", "batch_size", "snapshot_samples", "first_steps")  # of measure
_NAMED_GROUPS = ("data", "model", "loss", "optimizer", "scheduler")
_LOGGER_OPTIONS = {"csv": ("name",), "none": ("name",), "wandb": ("name", "project", "entity")}
# Options of PyTorch's optimisers and losses that do nothing here, or fail in training alone, and what to use instead.
_LEFT_OUT = {
    "optimizer": {
        "params": "the model has them",
        "weight_decay": "the run's own weight_decay is what sets it",
        "differentiable": "no step is differentiated",
        "capturable": "no step is captured",
    },
    "loss": dict.fromkeys(("reduction", "reduce", "size_average", "ignore_index"), "it is the mean over a minibatch"),
}
# What changes where or how fast a run is computed, or where it is written, but not its numbers.
_NOT_IDENTITY = (
    "runs_dir",
    "logger",
    "measure.batch_size",
    "trainer.accelerator",
    "trainer.devices",
    "trainer.num_nodes",
    "trainer.strategy",
    "trainer.sync_batchnorm",
    "trainer.threads",
    "trainer.channels_last",
    "data.data_dir",
    "data.download",
)


BUILD_ERRORS = (ValueError, TypeError, OSError, ArithmeticError, MemoryError, RuntimeError)
"""What a constructor raises for options that it refuses, or that are too large to be allocated."""


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
    OmegaConf.register_new_resolver("ncflow.runs_dir", lambda _root_: _checked_runs_dir(_root_), replace=True)
    OmegaConf.register_new_resolver("ncflow.experiment", lambda _root_: experiment_name(_root_), replace=True)


def _checked_runs_dir(root: DictConfig) -> str:
    """The field ``runs_dir``, refused before Hydra makes a folder: an empty one would be the machine's root."""
    directory = root.runs_dir
    if not isinstance(directory, str) or not directory.strip() or "\0" in directory:
        raise ConfigError(f"runs_dir must be the name of a folder, found {directory!r}")
    return directory


def experiment_name(root: DictConfig) -> str:
    """Name of the chosen experiment option, ``"single"`` where there is none."""
    return OmegaConf.select(root, "hydra.runtime.choices.experiment") or "single"


def flatten(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted name, value) of a nested mapping; lists are values."""
    for key, value in node.items():
        if isinstance(value, Mapping) and value:
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def without_hydra(cfg: DictConfig) -> DictConfig:
    """The run's own config, as Hydra hands it to a task function."""
    return OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])


def flat_config(cfg: DictConfig) -> dict[str, Any]:
    """The run's config without Hydra's own, resolved, under dotted names."""
    container = OmegaConf.to_container(without_hydra(cfg), resolve=True)
    assert isinstance(container, dict)
    return dict(flatten({str(key): value for key, value in container.items()}))


def _canonical(value: Any) -> Any:
    """1 and 1.0 are the same number to a run."""
    if isinstance(value, list):
        return [_canonical(item) for item in value]
    is_number = isinstance(value, int) and not isinstance(value, bool)
    return float(value) if is_number and abs(value) <= _LARGEST else value


def _file_digest(path: Any) -> str:
    file = Path(str(path)).expanduser()
    if not file.is_file():
        return "missing"
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def run_id(cfg: DictConfig) -> str:
    """Eight hex digits that are equal exactly for configs with equal numbers.

    Left out are paths, logger, device, threads and launcher, and every option that is null, so that a new option
    whose default is null keeps old runs. ``data.path`` counts by the file's content, not by its place.
    """
    flat = {key: _canonical(value) for key, value in flat_config(cfg).items() if value is not None}
    kept = {
        key: value
        for key, value in flat.items()
        if not any(key == name or key.startswith(f"{name}.") for name in _NOT_IDENTITY)
    }
    if "data.path" in kept:
        kept["data.path"] = _file_digest(kept["data.path"])
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:8]


def slug(cfg: DictConfig) -> str:
    """What tells a run from its neighbours at a glance, for example ``conic_hull-mlp4-last-wd0.005-seed0``."""
    data, model = cfg.data, cfg.model
    network, depth = str(model.get("name", "model")), str(model.get("depth", ""))
    parts = [str(data.get("name", "data")), network if network.endswith(depth) else network + depth]
    if model.get("norm") is not None:
        parts.append(str(model.norm))
    if model.get("gamma") is not None:
        parts.append(f"gamma{model.gamma}")
    parts += [f"wd{cfg.weight_decay:g}", f"seed{cfg.seed}"]
    return "-".join("".join(c if c.isalnum() or c in "._+" else "_" for c in part) for part in parts)


def folder_name(cfg: DictConfig) -> str:
    """Name of a run's folder, ``<slug>-<run id>``: the same for the same config."""
    return f"{slug(cfg)}-{run_id(cfg)}"


def describe(cfg: DictConfig, experiment: str) -> dict[str, Any]:
    """What a run's files say of it: ``run_id``, ``name``, ``experiment`` and the config under its dotted names."""
    return {"run_id": run_id(cfg), "name": slug(cfg), "experiment": experiment, **flat_config(cfg)}


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
    _checked_runs_dir(cfg)
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
    elif isinstance(value, int) and abs(value) > _LARGEST:
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


def build(cfg: DictConfig, group: str, **given: Any) -> Any:
    """Call the ``_target_`` of a config group with its options and the ``given`` arguments.

    Args:
        cfg: The run's config.
        group: Name of the group, for example ``"model"``.
        given: Arguments that come from the program rather than from the config. Those that the target does not
            take are left out, so that a target asks for what it needs by naming it.

    Raises:
        ConfigError: For an unknown option, a wrong type, or a value that the target refuses with ValueError.
    """
    node = OmegaConf.to_container(cfg[group], resolve=True)
    if not isinstance(node, dict):
        raise ConfigError(f"{group} must be a group of options, found {node!r}")
    options = {str(key): value for key, value in node.items() if key not in ("name", "_target_")}
    target = locate(group, node.get("_target_"))
    parameters = _parameters(target)
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    if target.__module__.startswith("torch."):
        for name, instead in _LEFT_OUT.get(group, {}).items():
            if name in options:
                raise ConfigError(f"{group}.{name} must be left out: {instead}")
    accepted = {name: value for name, value in given.items() if name in parameters or open_ended}
    for name in options:
        if name in given or (name not in parameters and not open_ended):
            known = ", ".join(n for n in parameters if n not in given)
            raise ConfigError(f"{group}.{name} must be one of the options of {target.__name__}: {known}")
    check_types(group, target, options)
    try:
        return target(**options, **accepted)
    except BUILD_ERRORS as error:
        raise ConfigError(_one_line(group, error)) from error


def locate(group: str, path: Any) -> Callable[..., Any]:
    """Import the object that ``_target_`` names."""
    module, _, name = str(path).rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise ConfigError(f"{group}._target_ must be an importable object, found {path!r} ({error})") from error
    if not callable(found):
        raise ConfigError(f"{group}._target_ must be a class or a function, found {path!r}")
    return found


def _parameters(target: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Parameters of a function or class, their hints evaluated.

    A class whose ``__init__`` takes ``**common``, but no ``*``, is read as handing it to the next ``__init__`` of its
    MRO: that one's parameters follow its own, and so on up to the first that takes neither. A target without such an
    end stays open ended.
    """
    if not inspect.isclass(target):
        return _evaluated(inspect.signature(target), target)
    inits = [init for owner in target.__mro__ if inspect.isfunction(init := vars(owner).get("__init__"))]
    passing = list(takewhile(lambda init: _open_kinds(init) == {inspect.Parameter.VAR_KEYWORD}, inits))
    chain = inits[: len(passing) + 1]
    if not passing or _open_kinds(chain[-1]):
        return _evaluated(inspect.signature(target), target.__init__)
    merged: dict[str, inspect.Parameter] = {}
    for init in chain:
        _, *own = _evaluated(inspect.signature(init), init).values()  # without self
        merged |= {p.name: p for p in own if p.name not in merged and p.kind is not p.VAR_KEYWORD}
    return merged


def _open_kinds(function: Callable[..., Any]) -> set[Any]:
    open_ended = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return {p.kind for p in inspect.signature(function).parameters.values()}.intersection(open_ended)


def _evaluated(signature: inspect.Signature, hinted: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    try:
        hints = typing.get_type_hints(hinted)
    except NameError:  # another library's hints that exist for its type checker alone
        hints = {}
    return {name: p.replace(annotation=hints.get(name, p.empty)) for name, p in signature.parameters.items()}


def _one_line(group: str, error: Exception) -> str:
    from ncflow.checks import ArgumentError

    text = " ".join(str(error).split())
    return f"{group}.{text}" if isinstance(error, ArgumentError) else f"{group}: {text}"


def check_types(group: str, target: Callable[..., Any], options: Mapping[str, Any]) -> None:
    """Check options of a group against the type hints of what takes them.

    Raises:
        ConfigError: Naming the option, its type and the value found.
    """
    from pydantic import ConfigDict, TypeAdapter, ValidationError
    from pydantic.errors import PydanticUserError

    hints = {name: p.annotation for name, p in _parameters(target).items() if p.annotation is not p.empty}
    for name, value in options.items():
        if name not in hints:
            continue
        try:
            adapter: TypeAdapter[Any] = TypeAdapter(hints[name], config=ConfigDict(arbitrary_types_allowed=True))
            # The JSON mode is strict about numbers, flags and strings, and takes a list for a tuple.
            adapter.validate_json(json.dumps(value), strict=True)
        except ValidationError as error:
            raise ConfigError(f"{group}.{name} must be {_describe(hints[name])}, found {value!r}") from error
        except PydanticUserError:
            continue


def _describe(hint: Any) -> str:
    if typing.get_origin(hint) is typing.Literal:
        return "one of " + ", ".join(repr(choice) for choice in typing.get_args(hint))
    parts = typing.get_args(hint) if _is_union(hint) else (hint,)
    names = ["null" if part is type(None) else _type_name(part) for part in parts]
    return " or ".join(names)


def _is_union(hint: Any) -> bool:
    import types

    return typing.get_origin(hint) in (typing.Union, types.UnionType)


def _type_name(hint: Any) -> str:
    words = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
    return words.get(hint) or str(hint).removeprefix("typing.")
