"""Hydra launcher that trains alike runs as one. Every Hydra application imports this module, so it imports little."""

from collections.abc import Sequence
from typing import Any

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, configure_log, run_job
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf


class NcflowStackedLauncher(Launcher):
    """Group the runs of a sweep by what a stacked model needs to agree in, and train each group as one.

    Runs that are like no other, or that cannot be stacked, are trained one by one, as Hydra's own launcher does.

    Args:
        options: As :class:`ncflow.stacked.launcher.Options` has them.
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
        from ncflow.cells import compose
        from ncflow.reports import leave_line
        from ncflow.stacked import launcher

        configs = [
            compose(self.hydra_context, self.config, overrides, number)
            for number, overrides in enumerate(job_overrides, start=initial_job_idx)
        ]
        plan = launcher.plan_sweep(configs, self.options)
        print(plan.text, flush=True)
        returned: dict[int, JobReturn] = {}
        for group in plan.groups:
            for index in group.cells:
                self._leave_hydra_folder(configs[index])
            self._log_to_console(configs[group.cells[0]])
            reports = launcher.train_group([configs[index] for index in group.cells])
            for index, report in zip(group.cells, reports, strict=True):
                leave_line(report)
                returned[index] = JobReturn(status=JobStatus.COMPLETED, _return_value=report)
        alone = list(plan.alone)
        if alone:
            jobs = self._alone.launch([job_overrides[index] for index in alone], initial_job_idx)
            returned |= dict(zip(alone, jobs, strict=True))
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        return [returned[index] for index in range(len(configs))]

    def _leave_hydra_folder(self, cfg: DictConfig) -> None:
        """Make a run's folder with ``.hydra`` and a log, as Hydra does for a run alone."""
        state = Singleton.get_state()
        made = run_job(
            hydra_context=self.hydra_context,
            task_function=lambda _: None,
            config=cfg,
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
        )
        assert made.return_value is None  # raises what went wrong
        Singleton.set_state(state)

    def _log_to_console(self, cfg: DictConfig) -> None:
        """What is said while a group trains is of no run alone, and goes into no run's log."""
        logging_config = OmegaConf.to_container(cfg.hydra.job_logging, resolve=True)
        assert isinstance(logging_config, dict)
        logging_config["handlers"] = {"console": logging_config["handlers"]["console"]}
        logging_config["root"]["handlers"] = ["console"]
        configure_log(OmegaConf.create(logging_config), cfg.hydra.verbose)
