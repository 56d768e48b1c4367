"""Hydra launcher for SLURM. Every Hydra application imports this module at its start, so it imports little."""

import io
import signal
from collections.abc import Sequence
from contextlib import redirect_stderr
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher

try:
    from hydra_plugins.hydra_submitit_launcher.submitit_launcher import SlurmLauncher
except ImportError:
    SlurmLauncher = None


_ASKING = [getattr(signal, name) for name in ("SIGUSR1", "SIGUSR2") if hasattr(signal, name)]


class _RequeuedError(BaseException):
    """This job is in the queue again; no exception of a run, and so caught by nothing that reports those."""


def _requeue_by(handler: Any) -> Any:
    def requeue(number: int, frame: Any) -> None:
        # SLURM ends what a requeued job runs, which is also the `scontrol` that asked for it: it has to inherit this.
        before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
        try:
            handler(number, frame)
        except SystemExit as stop:
            raise _RequeuedError(stop.code) from None
        finally:
            signal.signal(signal.SIGTERM, before)

    return requeue


class NcflowSlurmLauncher(SlurmLauncher or Launcher):  # type: ignore[misc]
    """hydra-submitit-launcher, each run an element of a job array, with these differences.

    The request is checked before anything is submitted; a run whose job is in the queue already is not submitted
    again; a run that a signal stopped is requeued and goes on from the checkpoint that it saved; a run that fails makes
    its job fail; a job that fails does not end the sweep, and with ``wait=false`` the sweep ends with the submission.

    Args:
        options: As :class:`ncflow.sweeps.slurm.SlurmOptions` has them.
    """

    def __init__(self, **options: Any) -> None:
        if SlurmLauncher is None:
            from ncflow.config.schema import ConfigError

            raise ConfigError("hydra/launcher=slurm needs submitit: pip install 'ncflow[slurm]'")
        super().__init__(**options)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Check, submit what is not in the queue, and wait or not."""
        from ncflow.config.compose import compose, folder_of
        from ncflow.results import Status
        from ncflow.results.report import Report
        from ncflow.sweeps import slurm

        assert self.hydra_context is not None
        configs = [compose(self.hydra_context, self.config, overrides) for overrides in job_overrides]
        folders = [folder_of(cfg) for cfg in configs]
        slurm.check(self.params, configs)
        if self.params["gpus_per_node"] is None and configs[0].trainer.accelerator == "gpu":
            self.params["gpus_per_node"] = configs[0].trainer.devices
        queued = slurm.submitted_already(folders)
        new = [index for index, folder in enumerate(folders) if folder not in queued]
        jobs = self._submit([job_overrides[index] for index in new], initial_job_idx) if new else []
        submitted = {folders[index]: job for index, job in zip(new, jobs, strict=True)}
        for index in new:
            slurm.note_job(folders[index], configs[index], submitted[folders[index]])
        reports = {folder: Report(Status.ELSEWHERE, str(folder)) for folder in queued}
        print(slurm.submitted_in_words(list(submitted.values()), len(queued), folders[0].parent), flush=True)
        if self.params["wait"]:
            slurm.wait(submitted)
            reports |= {folder: slurm.outcome(folder, job) for folder, job in submitted.items()}
        else:
            reports |= {folder: Report(Status.SUBMITTED, str(folder)) for folder in submitted}
        return [JobReturn(status=JobStatus.COMPLETED, _return_value=reports[folder]) for folder in folders]

    def _submit(self, cells: Sequence[Sequence[str]], first: int) -> list[Any]:
        import submitit
        from hydra.core.singleton import Singleton
        from hydra_plugins.hydra_submitit_launcher.config import BaseQueueConf
        from omegaconf import OmegaConf

        from ncflow.checks import error_line
        from ncflow.config.schema import ConfigError

        options = {name: value for name, value in self.params.items() if name not in ("wait", "modules")}
        options["setup"] = [f"module load {module}" for module in self.params["modules"]] + self.params["setup"]
        folder, max_num_timeout = options.pop("submitit_folder"), options.pop("max_num_timeout")
        executor = submitit.AutoExecutor(folder, cluster="slurm", slurm_max_num_timeout=max_num_timeout)
        common = set(OmegaConf.structured(BaseQueueConf))
        executor.update_parameters(
            **{name if name in common else f"slurm_{name}": value for name, value in options.items()},
            # A process of a run that ends alone ends the run.
            slurm_srun_args=["--kill-on-bad-exit=1"],
        )
        arguments = [
            (list(overrides), "hydra.sweep.dir", number, f"job_id_for_{number}", Singleton.get_state())
            for number, overrides in enumerate(cells, start=first)
        ]
        try:
            with redirect_stderr(io.StringIO()):  # what sbatch says is in the error
                return executor.map_array(self, *zip(*arguments, strict=True))
        except submitit.core.utils.FailedJobError as error:
            raise ConfigError(f"SLURM refuses the jobs: {error_line(error)}") from error

    def __call__(self, *arguments: Any) -> JobReturn:
        """Run a cell inside its job. A failed run raises, as SLURM must not take its job for completed.

        After a signal the run has saved a checkpoint; submitit's handler of that signal then requeues the job.
        """
        from ncflow.results import Status

        for number in _ASKING:
            if callable(handler := signal.getsignal(number)):
                signal.signal(number, _requeue_by(handler))
        try:
            returned = self._run(*arguments)
        except _RequeuedError as stop:
            raise SystemExit(stop.args[0]) from None
        finally:
            for number in _ASKING:  # what comes from here on must not end the job in the middle of its last words
                signal.signal(number, signal.SIG_IGN)
        report = returned.return_value
        if report.status in (Status.FAILED, Status.REFUSED):
            raise RuntimeError(report.error)
        if report.status == Status.ELSEWHERE and self.params["nodes"] * self.params["tasks_per_node"] > 1:
            raise RuntimeError("another process is at work on this run")  # the other tasks would wait for this one
        return returned

    def _run(self, *arguments: Any) -> JobReturn:
        try:
            return super().__call__(*arguments)
        except SystemExit as stop:
            number = stop.code - 128 if isinstance(stop.code, int) else 0
            handler = signal.getsignal(number) if number in signal.valid_signals() else None
            if callable(handler):
                handler(number, None)  # type: ignore[arg-type]
            raise
