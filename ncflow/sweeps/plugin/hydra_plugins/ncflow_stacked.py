"""Hydra launcher that trains alike runs as one. Every Hydra application imports this module, so it imports little."""

from collections.abc import Sequence

from hydra.core.utils import JobReturn, JobStatus, configure_log
from hydra_plugins._ncflow_launcher import NcflowLauncher


class NcflowStackedLauncher(NcflowLauncher):  # type: ignore[misc]
    """Group the runs of a sweep by what a stacked model needs to agree in, and train each group as one.

    Runs that are like no other, or that cannot be stacked, are trained one by one, as Hydra's own launcher does.

    Args:
        options: As :class:`ncflow.training.stacked.launcher.StackedOptions` has them.
    """

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Plan, say so, and train."""
        from ncflow.config.compose import cells_of
        from ncflow.sweeps.packs import STACKED, plan_packs, run_here

        configs = cells_of(self.hydra_context, self.config, job_overrides, initial_job_idx)
        packs, text = plan_packs(configs, STACKED, self.options)
        print(text, flush=True)
        reports = run_here(configs, packs, self.task_function)
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        return [JobReturn(status=JobStatus.COMPLETED, _return_value=report) for report in reports]
