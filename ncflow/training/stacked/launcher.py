"""What the stacked launcher in ``ncflow/sweeps/plugin`` does: plan a sweep, and bring its groups to their end."""

import logging
import os
import traceback
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from ncflow.config.build import check_types
from ncflow.config.compose import looked_at, run_of
from ncflow.config.explain import one_line
from ncflow.config.identity import flat_config, resolved_once, run_id, without_hydra
from ncflow.config.schema import ConfigError, Rule
from ncflow.results import Status
from ncflow.results.report import Report
from ncflow.runtime import processes
from ncflow.runtime.signals import StoppedBySignalError
from ncflow.training.stacked import group
from ncflow.training.stacked.interrupted import interrupted_groups
from ncflow.training.stacked.plan import MAY_DIFFER, Group, Plan, Size, candidate, plan, plan_in_words, why_alone
from ncflow.training.stacked.ready import DataCache, Ready, parts, size_of, take

log = logging.getLogger(__name__)

_SHARE_OF_MEMORY = 0.7
# On a CPU, groups whose parameters are far larger than its caches were measured slower than runs alone.
_CPU_CACHE = 2**27
_IRRELEVANT_TO_SIZE = ("seed", "weight_decay", "weight_decay_scope", "optimizer.lr", "optimizer.momentum")


@dataclass
class StackedOptions:
    """The options of ``conf/hydra/launcher/stacked.yaml``.

    Args:
        max_group: Most cells that are trained as one.
        memory_gb: Memory that a group may take; None for 70 % of what the device has free.
        may_differ: Options, or groups of them, in which the cells of a group may differ.
    """

    max_group: Annotated[int, Rule(gt=0)]
    memory_gb: Annotated[float, Rule(gt=0)] | None
    may_differ: list[str]


class Device(NamedTuple):
    """What a group is trained on.

    Attributes:
        is_gpu: Whether it is a GPU.
        memory: Bytes that a group may take there.
    """

    is_gpu: bool
    memory: int


def device_here(cfg: DictConfig, memory_gb: float | None, at_once: int = 1) -> Device:
    """The device of this machine that a run asks for.

    Args:
        cfg: Of the run.
        memory_gb: What a group may take; None for 70 % of what is free.
        at_once: How many groups share that.
    """
    is_gpu = cfg.trainer.accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    return Device(is_gpu, _free_memory(is_gpu) // at_once if memory_gb is None else int(memory_gb * 2**30))


@dataclass(frozen=True)
class SweepPlan:
    """Groups of a sweep, the places of the runs that are trained alone, and both in words."""

    groups: list[Group]
    alone: list[int]
    text: str


def plan_sweep(configs: Sequence[DictConfig], options: Mapping[str, Any], device: Device | None = None) -> SweepPlan:
    """Plan the runs of a sweep.

    Args:
        configs: Of the runs, with Hydra's own part.
        options: As :class:`StackedOptions` has them.
        device: On which the groups will be trained; None for :func:`device_here`.

    Raises:
        ConfigError: Naming the option, the rule and the value found.
    """
    check_types("hydra.launcher", StackedOptions, options)
    for name in options["may_differ"]:
        if name not in MAY_DIFFER:
            raise ConfigError(f"hydra.launcher.may_differ must be of {', '.join(MAY_DIFFER)}, found {name!r}")
    first = configs[0]
    stopped = {name: str(group.path) for name, group in interrupted_groups(Path(str(first.hydra.sweep.dir))).items()}
    device = device or device_here(first, options["memory_gb"])
    found = plan_runs(looked_at(configs), stopped, options, device)
    return SweepPlan(found.groups, list(found.alone), plan_in_words(found))


def plan_runs(
    configs: Iterable[DictConfig], interrupted: Mapping[str, str], options: Mapping[str, Any], device: Device
) -> Plan:
    """Plan runs for a device.

    Args:
        configs: Of the runs; each is looked at before the next is asked for.
        interrupted: What names the interrupted group of a run, by the run's id.
        options: As for :func:`plan_sweep`.
        device: On which the groups will be trained.
    """
    data_cache, known, runs = DataCache(), dict[str, Size | str](), []
    for cfg in configs:
        with resolved_once(cfg):
            flat, name = flat_config(cfg), run_id(cfg)
        kind = repr({name: value for name, value in flat.items() if name not in _IRRELEVANT_TO_SIZE})
        if kind not in known:
            size = why_alone(flat) or size_of(without_hydra(cfg), data_cache)
            known[kind] = size or "its network has no stacked form"
        runs.append(candidate(flat, known[kind], interrupted.get(name), options["may_differ"]))
    return plan(runs, options["max_group"], device.memory, None if device.is_gpu else _CPU_CACHE)


def share_of(memory: float) -> int:
    """Of a device's memory in bytes, what its groups may take."""
    return int(_SHARE_OF_MEMORY * memory)


def _free_memory(on_gpu: bool) -> int:
    if on_gpu:
        return share_of(torch.cuda.mem_get_info()[0])
    return share_of(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))


def train_group(configs: Sequence[DictConfig]) -> list[Report]:
    """Train a group, leaving out runs that are finished, that another process is at work on, or that cannot be trained.

    Args:
        configs: Of the cells, with Hydra's own part.

    Returns:
        What became of each run; what fails is said in its own folder too.

    Raises:
        SystemExit: If a signal stopped training, which saved a checkpoint first.
    """
    data_cache, reports, ready = DataCache(), dict[str, Report](), list[Ready]()
    folders = [run_of(cfg, Path.cwd()) for cfg in configs]
    with ExitStack() as held:
        for folder, cfg in zip(folders, configs, strict=True):
            HydraConfig.instance().set_config(cfg)
            found = take(folder, without_hydra(cfg), held, data_cache)
            if isinstance(found, Report):
                reports[folder.run_id] = found
            else:
                ready.append(found)
        if ready:
            reports |= _train(ready, folders[0].path.parent)
    return [reports[folder.run_id] for folder in folders]


def _train(ready: Sequence[Ready], sweep: Path) -> dict[str, Report]:
    reports: dict[str, Report] = {}
    try:
        for stopped, saved, runs in parts(ready, sweep):
            reports |= group.train_cells(runs, sweep, stopped, saved)
    except StoppedBySignalError as stop:
        raise stop.told(f"{len(ready)} cells as one", processes.is_silent()) from None
    except (Exception, SystemExit) as error:
        trace, line = traceback.format_exc(), one_line(error)
        for run in ready:
            path, result = str(run.folder.path), run.folder.finished()
            if result is None:
                run.folder.note(trace)
                run.folder.fail(line)
                reports[run.folder.run_id] = Report(Status.FAILED, path, line)
            else:
                reports[run.folder.run_id] = Report(str(result["status"]), path, values=result)
    return reports
