"""Hydra launcher for one machine. Every Hydra application imports this module at its start, so it imports little."""

from collections.abc import Sequence

from hydra.core.utils import JobReturn, JobStatus, configure_log
from hydra_plugins._ncflow_launcher import NcflowLauncher


class NcflowLocalLauncher(NcflowLauncher):  # type: ignore[misc]
    """Train the runs of a sweep in several processes, each with a GPU of its own where there are some.

    A process that the system kills costs the run that it was at work on.

    Args:
        options: As :class:`ncflow.sweeps.local.LocalOptions` has them.
    """

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Plan, say so, and run."""
        from ncflow.config.compose import cells_of
        from ncflow.sweeps import local
        from ncflow.sweeps.packs import plan_packs, run_packs

        configs = cells_of(self.hydra_context, self.config, job_overrides, initial_job_idx)
        machine = local.machine(self.options, configs)
        packs, text = plan_packs(configs, self.options["pack"], self.options, machine.device)
        if text:
            print(text, flush=True)
        configure_log(self.config.hydra.job_logging, self.config.hydra.verbose)
        reports = run_packs(configs, packs, self.task_function, machine.at_once, machine.environment)
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        return [JobReturn(status=JobStatus.COMPLETED, _return_value=report) for report in reports]
