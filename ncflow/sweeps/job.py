"""What a SLURM job does: it brings a pack of runs to their end, and goes back into the queue when a signal asks."""

import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import submitit
import torch
from omegaconf import DictConfig

from ncflow.results import Status
from ncflow.results.report import Report
from ncflow.sweeps.packs import STACKED, Pack, Task, plan_packs, run_here, run_pack, run_packs
from ncflow.sweeps.snapshot import check_unchanged
from ncflow.training.stacked.launcher import Device, share_of

_ASKING = [getattr(signal, name) for name in ("SIGUSR1", "SIGUSR2") if hasattr(signal, name)]


class RequeuedError(BaseException):
    """This job is in the queue again; no exception of a run, and so caught by nothing that reports those."""


def requeue_by(handler: Any) -> Any:
    """A handler of signals that does what submitit's does, and leaves by :class:`RequeuedError`."""

    def requeue(number: int, frame: Any) -> None:
        # SLURM ends what a requeued job runs, which is also the `scontrol` that asked for it: it has to inherit this.
        before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
        try:
            handler(number, frame)
        except SystemExit as stop:
            raise RequeuedError(stop.code) from None
        finally:
            signal.signal(signal.SIGTERM, before)

    return requeue


@dataclass
class PackJob:
    """The callable that submitit runs in the job.

    A run that fails stops no other of its pack; the job fails at the end, as SLURM must not take it for completed.
    After a signal the runs at work save their checkpoints, and submitit's handler of that signal requeues the job,
    which then goes on from them.

    Args:
        configs: Of the runs, with Hydra's own part.
        is_stacked: Whether they are trained as one.
        task: Hydra's task function.
        options: As :class:`ncflow.sweeps.slurm.SlurmOptions` has them.
        code: Places of code and their digests, which must be the same in the job.
    """

    configs: Sequence[DictConfig]
    is_stacked: bool
    task: Task
    options: Mapping[str, Any]
    code: Mapping[str, tuple[Path, str]]

    def __call__(self) -> list[Report]:
        """Run the pack.

        Raises:
            ConfigError: If the code has changed.
            RuntimeError: If a run failed, or, of several processes of one run, if it is another's.
        """
        check_unchanged(self.code)
        for number in _ASKING:
            if callable(handler := signal.getsignal(number)):
                signal.signal(number, requeue_by(handler))
        try:
            reports = self._run()
        except RequeuedError as stop:
            raise SystemExit(stop.args[0]) from None
        finally:
            for number in _ASKING:  # what comes from here on must not end the job in the middle of its last words
                signal.signal(number, signal.SIG_IGN)
        failed = [report.error for report in reports if report.status in (Status.FAILED, Status.REFUSED)]
        if failed:
            raise RuntimeError(failed[0] if len(failed) == 1 else f"{len(failed)} runs failed, the first: {failed[0]}")
        is_elsewhere = any(report.status == Status.ELSEWHERE for report in reports)
        if is_elsewhere and self.options["nodes"] * self.options["tasks_per_node"] > 1:
            raise RuntimeError("another process is at work on this run")  # the other tasks would wait for this one
        return reports

    def checkpoint(self) -> submitit.helpers.DelayedSubmission:
        """What a requeued job does: the same."""
        return submitit.helpers.DelayedSubmission(self)

    def _run(self) -> list[Report]:
        try:
            if self.is_stacked:
                return self._run_stacked()
            if self.options["pack_at_once"] > 1 and len(self.configs) > 1:
                packs = [Pack((index,)) for index in range(len(self.configs))]
                return run_packs(self.configs, packs, self.task, self.options["pack_at_once"])
            return run_pack((self.configs, False), self.task)
        except SystemExit as stop:
            number = stop.code - 128 if isinstance(stop.code, int) else 0
            handler = signal.getsignal(number) if number in signal.valid_signals() else None
            if callable(handler):
                handler(number, None)  # type: ignore[arg-type]
            raise

    def _run_stacked(self) -> list[Report]:
        """Train the group as one; in parts, where the GPU that the job was given proves too small for it."""
        if self.options["gpu_mem_gb"] is not None or not torch.cuda.is_available():
            return run_pack((self.configs, True), self.task)
        _, total = torch.cuda.mem_get_info()
        packs, text = plan_packs(self.configs, STACKED, self.options, Device(True, share_of(total)))
        print(text, flush=True)
        return run_here(self.configs, packs, self.task)
