"""The way into a run's folder, the same alone, in a sweep and in a stacked group."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from filelock import Timeout
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from ncflow.results import CHECKPOINT, RunFolder, Status
from ncflow.results.columns import SOURCE
from ncflow.results.files import write_atomically
from ncflow.results.report import Report
from ncflow.runtime.code import own_digest

HYDRA = ".hydra"


def settled(folder: RunFolder) -> Report | None:
    """What can be said of a run by a look at its folder: that it is finished, damaged, or may not be there; else None.

    Raises:
        OSError: If the folder cannot be looked at.
    """
    path, complaint, result = str(folder.path), folder.complaint(), None
    if complaint is None:
        result = folder.finished()
        complaint = None if result is None else folder.damage(result)
    if complaint is not None:
        return Report(Status.REFUSED, path, complaint)
    return None if result is None else Report(Status.SKIPPED, path, changed=changed_since(result))


def targets(described: Mapping[str, Any]) -> list[str]:
    """The classes and functions that a run's config names."""
    return [str(value) for key, value in described.items() if key.endswith("_target_")]


def changed_since(result: Mapping[str, Any]) -> tuple[str, ...]:
    """The user's own classes of a finished run whose package or module is not what it was when the run was trained.

    Args:
        result: Of the run; one that does not say what the code was has not changed.
    """
    found = []
    for target in targets(result):
        name = target.partition(".")[0]
        then = str(result.get(f"{SOURCE}{name}", "")).rpartition(" ")[2]  # of the last attempt
        if then and own_digest(name) not in (None, then):
            found.append(target)
    return tuple(found)


def enter(folder: RunFolder, cfg: DictConfig | None, held: ExitStack) -> Report | None:
    """Look, take the lock, and write whose the folder is; a report where the run is not to be trained.

    Args:
        folder: The run's folder.
        cfg: The run's config without Hydra's own; that one is taken from ``HydraConfig``, if it is known. None where
            there is none, as the model was trained elsewhere.
        held: Keeps the lock.

    Raises:
        OSError: If something cannot be read or written.
    """
    report = settled(folder)
    if report is not None:
        return report
    folder.path.mkdir(parents=True, exist_ok=True)
    try:
        held.enter_context(folder.lock.acquire(timeout=1))  # a look at the folder takes the lock for an instant
    except Timeout:
        return Report(Status.ELSEWHERE, str(folder.path))
    report = settled(folder)  # it may have ended between the look and the lock
    if report is None:
        folder.begin()
        if cfg is not None:
            _leave_config(folder.path / HYDRA, cfg)
    return report


Twin = tuple[Path, dict[str, Any]]
"""Another folder of the same run, finished, and its result."""


def find_twin(folder: RunFolder, known: Mapping[str, Sequence[Path]]) -> Twin | None:
    """What another experiment has finished of a run, to be taken over; None if there is none, or the run was begun.

    Args:
        folder: The run's folder, of which :func:`settled` says nothing.
        known: Of :func:`ncflow.results.stored`.
    """
    if (folder.path / CHECKPOINT).exists():  # it goes on from there
        return None
    return folder.twin(known.get(folder.run_id, ()))


def take_over(folder: RunFolder, cfg: DictConfig, twin: Twin) -> Report:
    """Take over what :func:`find_twin` found.

    Args:
        folder: The run's folder.
        cfg: The run's config without Hydra's own.
        twin: What was found.

    Raises:
        OSError: If something cannot be read or written.
    """
    with ExitStack() as held:
        report = enter(folder, cfg, held)
        if report is None:
            folder.take_over(*twin)
        return report or Report(Status.SKIPPED, str(folder.path), changed=changed_since(twin[1]))


def _leave_config(folder: Path, cfg: DictConfig) -> None:
    """The three files that Hydra leaves. It would write them before anybody could look whose the folder is."""
    parts: dict[str, Any] = {"config": cfg}
    if HydraConfig.initialized():
        hydra = HydraConfig.get()
        parts |= {"hydra": OmegaConf.create({"hydra": hydra}), "overrides": hydra.overrides.task}
    for name, part in parts.items():
        write_atomically(folder / f"{name}.yaml", OmegaConf.to_yaml(part))


def load_config(folder: Path) -> tuple[DictConfig, DictConfig]:
    """The config that :func:`enter` left in a run's folder, and Hydra's own."""
    found = [OmegaConf.load(folder / HYDRA / f"{name}.yaml") for name in ("config", "hydra")]
    task, hydra = (part for part in found if isinstance(part, DictConfig))
    return task, hydra
