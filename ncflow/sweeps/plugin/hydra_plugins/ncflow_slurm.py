"""Hydra launcher for SLURM. Every Hydra application imports this module at its start, so it imports little."""

from collections.abc import Sequence

from hydra.core.utils import JobReturn, JobStatus
from hydra_plugins._ncflow_launcher import NcflowLauncher


class NcflowSlurmLauncher(NcflowLauncher):  # type: ignore[misc]
    """Each run, or each pack of runs, is an element of a SLURM job array.

    The request is checked before anything is submitted; a run whose job is in the queue already is not submitted
    again; a run that a signal stopped is requeued and goes on from the checkpoint that it saved; a run that fails makes
    its job fail; a job that fails does not end the sweep, and with ``wait=false`` the sweep ends with the submission.

    Args:
        options: As :class:`ncflow.sweeps.slurm.SlurmOptions` has them.
    """

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Check, submit what is not in the queue, and wait or not."""
        from ncflow.config.compose import cells_of
        from ncflow.sweeps import slurm

        configs = cells_of(self.hydra_context, self.config, job_overrides, initial_job_idx)
        reports = slurm.run(configs, self.options, self.task_function)
        return [JobReturn(status=JobStatus.COMPLETED, _return_value=report) for report in reports]
