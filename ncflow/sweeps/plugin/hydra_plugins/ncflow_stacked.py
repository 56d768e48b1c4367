"""Hydra launcher that trains alike runs as one. Every Hydra application imports this module, so it imports little."""

from collections.abc import Sequence
from typing import Any

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
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
        self.options = {k: OmegaConf.to_container(v) if OmegaConf.is_config(v) else v for k, v in options.items()}
        self._alone = BasicLauncher()

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what Hydra gives."""
        self.hydra_context, self.config = hydra_context, config
        self._alone.setup(hydra_context=hydra_context, task_function=task_function, config=config)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Plan, say so, and train."""
        from ncflow.config.compose import compose
        from ncflow.results.report import say
        from ncflow.training.stacked import launcher

        configs = [
            compose(self.hydra_context, self.config, overrides, number)
            for number, overrides in enumerate(job_overrides, start=initial_job_idx)
        ]
        plan = launcher.plan_sweep(configs, self.options)
        print(plan.text, flush=True)
        returned: dict[int, JobReturn] = {}
        for group in plan.groups:
            # What is said while a group trains is of no run alone, and goes to the console.
            configure_log(configs[group.cells[0]].hydra.job_logging, self.config.hydra.verbose)
            reports = launcher.train_group([configs[index] for index in group.cells])
            for index, report in zip(group.cells, reports, strict=True):
                say(report)
                returned[index] = JobReturn(status=JobStatus.COMPLETED, _return_value=report)
        alone = list(plan.alone)
        if alone:
            jobs = self._alone.launch([job_overrides[index] for index in alone], initial_job_idx)
            returned |= dict(zip(alone, jobs, strict=True))
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        return [returned[index] for index in range(len(configs))]
