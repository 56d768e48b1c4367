"""What a run is: its flat config, the id by which it is known, and its name.

Nothing heavy is imported here: a finished run is recognised without loading PyTorch.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ncflow.results.columns import DATA_DIGEST, NOT_IDENTITY, is_left_out
from ncflow.results.files import file_digest
from ncflow.results.store import run_names

LARGEST_WHOLE = 2**53  # identities and result files hold numbers as float64, which knows no larger ones apart
_ONLY_MEASURED = ("measure.groups", "measure.layers", "measure.ood")
_NOT_OF_A_RUN = ("hydra", "objective")  # of the command as a whole: runs are the same without
_FILES = ("data.path", "measure.ood.path")
MOVED: dict[str, str] = {}
"""Where each class of ncflow that has been moved was first published, by the path that it has now.

A run counts a class by its first path, so that a class may move and the runs of it stay finished: a move adds a line.
"""


def experiment_name(root: DictConfig) -> str:
    """Name of the chosen experiment option, ``"single"`` if there is none."""
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
    return OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key not in _NOT_OF_A_RUN])


def plain_config(cfg: DictConfig) -> dict[str, Any]:
    """The run's config without Hydra's own and what a search looks for, resolved; what is missing is ``???``."""
    known, plain = _resolved
    if known is cfg:
        return plain
    keys = [str(key) for key in cfg if key not in _NOT_OF_A_RUN]
    parts = {key: "???" if OmegaConf.is_missing(cfg, key) else cfg[key] for key in keys}
    return {key: OmegaConf.to_container(v, resolve=True) if OmegaConf.is_config(v) else v for key, v in parts.items()}


def flat_config(cfg: DictConfig) -> dict[str, Any]:
    """:func:`plain_config` under dotted names."""
    return dict(flatten(plain_config(cfg)))


_resolved: tuple[DictConfig | None, dict[str, Any]] = None, {}


@contextmanager
def resolved_once(cfg: DictConfig) -> Iterator[None]:
    """In it, this config stays as it is, and is resolved only once."""
    global _resolved
    _resolved = cfg, plain_config(cfg)
    try:
        yield
    finally:
        _resolved = None, {}


def _canonical(value: Any) -> Any:
    """1 and 1.0 are the same number to a run."""
    if isinstance(value, list):
        return [_canonical(item) for item in value]
    is_number = isinstance(value, int) and not isinstance(value, bool)
    return float(value) if is_number and abs(value) <= LARGEST_WHOLE else value


def _file_digest(path: Any) -> str:
    """Of a file its content's; of a folder, which may be large, that of the names and sizes of its files."""
    place = Path(str(path)).expanduser()
    if place.is_dir():
        return _names_digest(place, place.stat().st_mtime_ns)
    if not place.is_file():
        return "missing"
    seen = place.stat()
    return _content_digest(place, seen.st_size, seen.st_mtime_ns)


@cache
def _names_digest(folder: Path, changed: int) -> str:
    files = sorted((file.relative_to(folder).as_posix(), file.stat().st_size) for file in _files(folder))
    return hashlib.sha256(json.dumps(files).encode()).hexdigest()


def _files(folder: Path) -> Iterator[Path]:
    return (file for file in folder.rglob("*") if file.is_file())


@cache
def _content_digest(file: Path, size: int, changed: int) -> str:
    """Of a file as it was when it had this size and was changed last: a sweep asks for each of its cells."""
    return file_digest(file)


def run_id(cfg: DictConfig) -> str:
    """Eight hex digits that are equal exactly for configs with equal numbers.

    Left out are paths, logger, kept checkpoints, device, threads and launcher, and every option that is null, so that a
    new option whose default is null keeps old runs. ``data.path`` counts by the file's content, not by its place, and a
    class of ncflow by the path under which it was first published (:data:`MOVED`).
    """
    return _hash(cfg, NOT_IDENTITY)


def setting_id(cfg: DictConfig) -> str:
    """As :func:`run_id`, of all but the seed: equal for runs that a mean over seeds is taken of."""
    return _hash(cfg, (*NOT_IDENTITY, "seed"))


def training_id(cfg: DictConfig) -> str:
    """As :func:`run_id`, of all but what is measured of the network: equal for runs that are one training."""
    return _hash(cfg, (*NOT_IDENTITY, *_ONLY_MEASURED))


def _hash(cfg: DictConfig, left_out: Sequence[str]) -> str:
    flat = {key: _canonical(value) for key, value in flat_config(cfg).items() if value is not None}
    kept = {key: value for key, value in flat.items() if not is_left_out(key, left_out)}
    for file in set(_FILES) & set(kept):
        kept[file] = _file_digest(kept[file])
    kept |= {key: MOVED.get(str(path), path) for key, path in kept.items() if key.endswith("._target_")}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:8]


_SHOWN = ("seed", "weight_decay", "data", "model", *(f"model.{name}" for name in ("norm", "depth", "gamma")))
_LONGEST_VALUE, _MOST_OPTIONS = 24, 6
_varied: tuple[str, ...] = ()


def name_by(options: Iterable[str]) -> None:
    """Let the names of runs show these options too: those that a sweep varies."""
    global _varied
    _varied = tuple(dict.fromkeys(options))


def slug(cfg: DictConfig) -> str:
    """What tells a run from its neighbours at a glance, for example ``conic_hull-mlp4-last-wd0.005-seed0``.

    What a sweep varies beside that stands in it too (:func:`name_by`): ``conic_hull-mlp4-last-lr0.1-wd0.005-seed0``.
    """
    data, model = cfg.data, cfg.model
    network, depth = str(model.get("name", "model")), str(model.get("depth", ""))
    parts = [str(data.get("name", "data")), network if network.endswith(depth) else network + depth]
    if model.get("norm") is not None:
        parts.append(str(model.norm))
    if model.get("gamma") is not None:
        parts.append(f"gamma{model.gamma}")
    parts += [*_more_parts(cfg), f"wd{cfg.weight_decay:g}", f"seed{cfg.seed}"]
    return "-".join("".join(c if c.isalnum() or c in "._+" else "_" for c in part) for part in parts)


def _more_parts(cfg: DictConfig) -> list[str]:
    options = [key for key in _varied if key not in _SHOWN and not is_left_out(key, NOT_IDENTITY)]
    last = [key.rpartition(".")[2] for key in options]
    parts = []
    for key, name in zip(options, last, strict=True):
        value = OmegaConf.select(cfg, key)
        if isinstance(value, DictConfig):  # an option of a group
            name, value = "", value.get("name")
        elif key in _FILES and value is not None:
            name, value = "", Path(str(value)).stem
        if value is not None:
            text = f"{value:g}" if isinstance(value, float) else str(value)
            parts.append((name if last.count(name) < 2 else key) + text[:_LONGEST_VALUE])
    return parts[:_MOST_OPTIONS]


def folder_name(cfg: DictConfig, store: Path | None = None) -> str:
    """Name of a run's folder, ``<slug>-<run id>``, or the one that it has already: the same for the same config.

    Args:
        cfg: The run's config.
        store: Folder in which the run's is. A run that is in it keeps its name, whatever sweep it is part of.
    """
    identity = run_id(cfg)
    name = f"{slug(cfg)}-{identity}"
    known = () if store is None else run_names(store).get(identity, ())
    return name if name in known or not known else known[0]


def describe_for_wandb(cfg: DictConfig, described: Mapping[str, Any]) -> dict[str, Any]:
    """A run's description with ``setting``, its :func:`setting_id`, by which W&B groups runs over seeds."""
    return {**described, "setting": setting_id(cfg)}


def describe(cfg: DictConfig, experiment: str, folder: Path | None = None) -> dict[str, Any]:
    """What a run's files say of it: ``run_id``, ``name``, ``experiment`` and the config under its dotted names.

    Of data that are a file, the digest of its content is :data:`DATA_DIGEST`: at one path there may be others later.

    Args:
        cfg: The run's config.
        experiment: Name of its experiment.
        folder: The run's folder, whose name before the id is the run's; else, or None, its :func:`slug` is.
    """
    identity, flat = run_id(cfg), flat_config(cfg)
    known = "" if folder is None else folder.name.removesuffix(f"-{identity}")
    name = slug(cfg) if folder is None or known in ("", folder.name) else known
    path = flat.get("data.path")
    digest = {} if path is None else {DATA_DIGEST: _file_digest(path)[:12]}
    return {"run_id": identity, "name": name, "experiment": experiment, **flat, **digest}
