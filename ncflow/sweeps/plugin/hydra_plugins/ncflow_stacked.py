"""Hydra launcher that trains alike runs as one. Every Hydra application imports this module, so it imports little."""

from collections.abc import Sequence
from typing import Any

from hydra.core.utils import JobReturn, JobStatus, configure_log
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf


class NcflowStackedLauncher(Launcher):
    """Group the runs of a sweep by what a stacked model needs to agree in, and train each group as one.

    Runs that are like no other, or that cannot be stacked, are trained one by one, as Hydra's own launcher does.

    Args:
        options: As :class:`ncflow.training.stacked.launcher.StackedOptions` has them.
    """

    def __init__(self, **options: Any) -> None:
        self.options: dict[str, Any] = {
            name: OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
            for name, value in options.items()
        }

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what Hydra gives."""
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Plan, say so, and train."""
        from ncflow.config.compose import cells_of
        from ncflow.sweeps.packs import STACKED, plan_packs, run_pack

        configs = cells_of(self.hydra_context, self.config, job_overrides, initial_job_idx)
        packs, text = plan_packs(configs, STACKED, self.options)
        print(text, flush=True)
        reports: dict[int, Any] = {}
        for pack in packs:
            found = run_pack(([configs[index] for index in pack.cells], pack.is_stacked), self.task_function)
            reports |= dict(zip(pack.cells, found, strict=True))
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        return [JobReturn(status=JobStatus.COMPLETED, _return_value=reports[index]) for index in range(len(configs))]
