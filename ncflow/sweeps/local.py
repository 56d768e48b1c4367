"""What the local launcher in ``plugin`` does: how many processes there are, and on which GPU each is."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

import torch
from omegaconf import DictConfig

from ncflow.config.build import check_types
from ncflow.config.schema import ConfigError, Rule
from ncflow.runtime.processes import cores
from ncflow.sweeps.packs import STACKED
from ncflow.sweeps.workers import Environment
from ncflow.training.stacked.launcher import Device, device_here

_VISIBLE = "CUDA_VISIBLE_DEVICES"
_PACK = "null, stacked or a number of runs of at least 1"
PackOption = Annotated[str | int | None, Rule(_PACK)]


@dataclass
class LocalOptions:
    """The options of ``conf/hydra/launcher/local.yaml``.

    Args:
        n_jobs: Processes; -1 for one a core, or on a machine with GPUs ``pack_at_once`` a GPU; -2 for one less.
        pack: ``stacked`` to train alike runs as one, a number of runs for a process at a time, None for one.
        pack_at_once: Processes on a GPU.
        max_group: Most cells that are trained as one.
        memory_gb: Memory that a group may take; None for its share of 70 % of what is free.
        may_differ: Options, or groups of them, in which the cells of a group may differ.
    """

    n_jobs: int
    pack: PackOption
    pack_at_once: Annotated[int, Rule(ge=1)]
    max_group: Annotated[int, Rule(gt=0)]
    memory_gb: Annotated[float, Rule(gt=0)] | None
    may_differ: list[str]


def check_pack(pack: Any) -> None:
    """Refuse what is no way to pack.

    Raises:
        ConfigError: Naming the option, the rule and the value found.
    """
    if not (pack is None or pack == STACKED or (type(pack) is int and pack >= 1)):
        raise ConfigError(f"hydra.launcher.pack must be {_PACK}, found {pack!r}")


@dataclass(frozen=True)
class Machine:
    """How the processes of a sweep share this machine.

    Attributes:
        at_once: Processes.
        environment: What each finds in its environment, by its place.
        device: That of a group, for the plan of groups; None where none is planned.
    """

    at_once: int
    environment: Environment
    device: Device | None


def machine(options: Mapping[str, Any], configs: Sequence[DictConfig]) -> Machine:
    """Plan the processes.

    A run of one device that may use a GPU has one of them to itself, or with as many others as ``pack_at_once`` says.

    Args:
        options: As :class:`LocalOptions` has them.
        configs: Of the runs.

    Raises:
        ConfigError: Naming the option, the rule and the value found.
    """
    check_types("hydra.launcher", LocalOptions, options)
    check_pack(options["pack"])
    number = options["n_jobs"]
    if number == 0:
        raise ConfigError("hydra.launcher.n_jobs must be at least 1, or -1 for all, found 0")
    gpus = gpus_here()
    if gpus and not all(_takes_a_gpu(cfg) for cfg in configs):
        gpus = []
    most = len(gpus) * options["pack_at_once"] if gpus else cores()
    at_once = number if number > 0 else max(1, most + 1 + number)
    sharing = -(-at_once // len(gpus)) if gpus else at_once
    is_stacked = options["pack"] == STACKED
    device = device_here(configs[0], options["memory_gb"], sharing) if is_stacked else None
    return Machine(at_once, partial(on_a_gpu, tuple(gpus)), device)


def _takes_a_gpu(cfg: DictConfig) -> bool:
    return cfg.trainer.accelerator in ("auto", "gpu", "cuda") and cfg.trainer.devices == 1


def gpus_here() -> list[str]:
    """Names of the GPUs that this process may use, as ``CUDA_VISIBLE_DEVICES`` has them."""
    number = torch.cuda.device_count()
    named = [name.strip() for name in os.environ.get(_VISIBLE, "").split(",") if name.strip()]
    return named[:number] if named else [str(index) for index in range(number)]


def on_a_gpu(gpus: Sequence[str], place: int) -> dict[str, str]:
    """What the process at a place finds in its environment: the GPU that is its own."""
    return {_VISIBLE: gpus[place % len(gpus)]} if gpus else {}
