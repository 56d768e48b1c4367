"""Packs: runs of a sweep that one process brings to their end, as one model or one after the other."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from hydra._internal.callbacks import Callbacks
from hydra.core.utils import JobRuntime, configure_log, run_job, setup_globals
from hydra.types import HydraContext
from omegaconf import DictConfig

from ncflow.config.compose import run_of
from ncflow.config.schema import register
from ncflow.results.report import Report, say
from ncflow.sweeps.workers import Environment, side_by_side
from ncflow.training.stacked.launcher import Device, plan_sweep, train_group

STACKED = "stacked"
Task = Callable[[DictConfig], Report]

_IMPORTED = tuple(f"ncflow.training.{name}" for name in ("assembly", "again", "fit", "stacked.group"))


@dataclass(frozen=True)
class Pack:
    """Runs that one process brings to their end.

    Attributes:
        cells: Their places in the sweep.
        is_stacked: Whether they are trained as one.
        memory: Estimate of the bytes that stacked ones take together on the device, else 0.
    """

    cells: tuple[int, ...]
    is_stacked: bool = False
    memory: int = 0


def plan_packs(
    configs: Sequence[DictConfig], pack: int | str | None, stacked: Mapping[str, Any], device: Device | None = None
) -> tuple[list[Pack], str]:
    """Packs of a sweep, and in words what is trained as one.

    Args:
        configs: Of the runs, with Hydra's own part.
        pack: ``stacked``, how many runs at most that need not be alike, or None for one.
        stacked: As :class:`ncflow.training.stacked.launcher.StackedOptions` has them.
        device: As for :func:`ncflow.training.stacked.launcher.plan_sweep`.

    Raises:
        ConfigError: Naming the option, the rule and the value found.
    """
    if pack != STACKED:
        size, total = 1 if pack is None else int(pack), len(configs)
        return [Pack(tuple(range(start, min(start + size, total)))) for start in range(0, total, size)], ""
    plan = plan_sweep(configs, stacked, device)
    groups = [Pack(group.cells, True, group.memory) for group in plan.groups]
    return [*groups, *(Pack((index,)) for index in plan.alone)], plan.text


def run_packs(
    configs: Sequence[DictConfig],
    packs: Sequence[Pack],
    task: Task,
    at_once: int,
    environment: Environment = lambda place: {},
) -> list[Report]:
    """Run packs in processes of this machine, and say of each run what became of it.

    A process that the system kills costs the run that it was at work on; those after it in its pack go on.

    Args:
        configs: Of all runs, with Hydra's own part.
        packs: The packs, each cell in one.
        task: Hydra's task function.
        at_once: Processes.
        environment: As for :func:`ncflow.sweeps.workers.side_by_side`.
    """
    since, found = time.time(), dict[int, Report]()
    work, left = partial(run_pack, task=task), list(packs)
    while left:
        given, left = left, []
        items = (([configs[index] for index in pack.cells], pack.is_stacked) for pack in given)
        for number, reports in side_by_side(work, items, at_once, environment, _IMPORTED):
            pack = given[number]
            if reports is None:
                reports = _of_killed([configs[index] for index in pack.cells], pack.is_stacked, since)
                if rest := pack.cells[len(reports) :]:
                    left.append(Pack(rest))
            found |= dict(zip(pack.cells, reports, strict=False))
    return [found[index] for index in range(len(configs))]


def run_here(configs: Sequence[DictConfig], packs: Sequence[Pack], task: Task) -> list[Report]:
    """Run packs in this process, one after the other, and say of each run what became of it."""
    found: dict[int, Report] = {}
    for pack in packs:
        reports = run_pack(([configs[index] for index in pack.cells], pack.is_stacked), task)
        found |= dict(zip(pack.cells, reports, strict=True))
    return [found[index] for index in range(len(configs))]


def _of_killed(configs: Sequence[DictConfig], is_stacked: bool, since: float) -> list[Report]:
    """Of a pack whose process is gone: what became of its runs, up to that at which it was."""
    reports = []
    for cfg in configs:
        folder = run_of(cfg, Path.cwd())
        ended = folder.ended(since)
        reports.append(ended or folder.killed())
        if ended is None and not is_stacked:
            break
    return reports


def run_pack(pack: tuple[Sequence[DictConfig], bool], task: Task) -> list[Report]:
    """Bring the runs of a pack to their end in this process, which need not be the one that composed them.

    Args:
        pack: Their configs, with Hydra's own part, and whether they are trained as one.
        task: Hydra's task function.
    """
    configs, is_stacked = pack
    register()
    setup_globals()
    return run_group(configs) if is_stacked else [run_cell(cfg, task) for cfg in configs]


def run_cell(cfg: DictConfig, task: Task) -> Report:
    """Bring one run to its end in this process, as Hydra's own launcher does."""
    JobRuntime.instance().set("name", cfg.hydra.job.name)
    context = HydraContext(config_loader=None, callbacks=Callbacks(cfg))  # type: ignore[arg-type]
    returned = run_job(task, cfg, "hydra.sweep.dir", "hydra.sweep.subdir", context)
    report: Report = returned.return_value
    return report


def run_group(configs: Sequence[DictConfig]) -> list[Report]:
    """Train runs as one in this process."""
    # What is said while a group trains is of no run alone, and goes to the console.
    configure_log(configs[0].hydra.job_logging, configs[0].hydra.verbose)
    reports = train_group(configs)
    for report in reports:
        say(report)
    return reports
