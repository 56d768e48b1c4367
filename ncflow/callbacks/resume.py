"""Save what a run needs to go on as if it had never stopped, and stop when asked to."""

import signal
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from torch import Tensor

from ncflow.callbacks.schedule import Clock, is_due
from ncflow.results import PROGRESS, write_json
from ncflow.runtime.signals import Listener, StoppedBySignalError


class SaveForResume(Checkpoint):
    """Keep one checkpoint that holds all a run needs to go on as if it had never stopped.

    Lightning saves weights, optimiser, schedule, the place in the epoch and the callbacks' states; this adds PyTorch's
    random states, the epoch's sum of losses and the time spent. The order of samples depends on seed and epoch alone.

    On SIGTERM, SIGUSR1 or SIGUSR2 it saves after the batch at hand and ends training with
    :class:`StoppedBySignalError`. Several ranks look every tenth step whether one of them was asked.

    Args:
        path: The file.
        every_n_epochs: Epochs between saves; the end of training and every minute also save.
        is_needed: Whether anything would go on from a checkpoint.
        record: What the numbers depend on beside the config, on a device: made of what is known of earlier attempts.

    Attributes:
        clock: Of the time spent in training.
        recorded: What ``record`` gave, or the checkpoint where training was at its end.
    """

    _SECONDS_BETWEEN_SAVES = 60.0
    _STEPS_BETWEEN_LOOKS = 10

    def __init__(
        self,
        path: Path,
        every_n_epochs: int,
        is_needed: Callable[[], bool] = lambda: True,
        record: Callable[[Mapping[str, str], torch.device], dict[str, str]] = lambda before, device: {},
    ) -> None:
        self.path, self.every_n_epochs, self.is_needed, self.record = path, every_n_epochs, is_needed, record
        self.clock = Clock()
        self.recorded: dict[str, str] = {}
        self._saved = time.monotonic()
        self._loaded: dict[str, Any] | None = None
        self._loss_sum: Tensor | None = None
        self._listener = Listener()
        self._listening = ExitStack()

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note what the numbers depend on from here."""
        self.recorded = self.record(self.recorded, trainer.strategy.root_device)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock; put the random states back where training goes on; listen for signals."""
        self.clock.start()
        self._saved = time.monotonic()
        if self._loaded is not None:
            torch.set_rng_state(self._loaded["cpu"])
            if self._loaded["cuda"] and torch.cuda.is_available():
                torch.cuda.set_rng_state_all(self._loaded["cuda"])
            if self._loaded.get("loss_sum") is not None:  # None in checkpoints between epochs
                pl_module.loss_sum = self._loaded["loss_sum"].to(pl_module.device)
        # Not earlier: Lightning's own handler of SIGTERM, which is set just before, would leave in mid-batch.
        self._listening.enter_context(self._listener.listening())

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save and stop if asked to, after an optimiser step, but leave an epoch's last batch to its end."""
        stepped = (batch_idx + 1) % trainer.accumulate_grad_batches == 0  # else its gradient would be lost
        if self._is_asked(trainer) and stepped and batch_idx + 1 < trainer.num_training_batches:
            self._loss_sum = pl_module.loss_sum  # type: ignore[assignment]
            self._stop(trainer, trainer.current_epoch, f"in epoch {trainer.current_epoch + 1} of {trainer.max_epochs}")

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save when due; stop if asked to."""
        finished = trainer.current_epoch + 1
        asked = self._is_asked(trainer, at_epoch_end=True)
        if asked and not trainer.should_stop and finished < (trainer.max_epochs or 0):
            self._stop(trainer, finished, f"after epoch {finished} of {trainer.max_epochs}")
        self.clock.look()
        if is_due(trainer, self.every_n_epochs) or self._on_any_rank(trainer, self._is_late()):
            self._save(trainer, finished)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave signals to whoever had them before."""
        self._listening.close()

    def _is_asked(self, trainer: Trainer, at_epoch_end: bool = False) -> int:
        """The signal that came to any rank, 0 for none."""
        if trainer.world_size > 1 and not at_epoch_end and trainer.global_step % self._STEPS_BETWEEN_LOOKS:
            return 0
        return self._on_any_rank(trainer, self._listener.received)

    @staticmethod
    def _on_any_rank(trainer: Trainer, value: int) -> int:
        """The largest value of all ranks, so that all of them do the same."""
        if trainer.world_size == 1:
            return int(value)
        value_here = torch.tensor(int(value), device=trainer.strategy.root_device)
        return int(trainer.strategy.reduce(value_here, reduce_op="max"))

    def _is_late(self) -> bool:
        return time.monotonic() - self._saved > self._SECONDS_BETWEEN_SAVES

    def _stop(self, trainer: Trainer, finished: int, place: str) -> None:
        self.clock.look()
        self._save(trainer, finished)
        raise StoppedBySignalError(self._listener.received or signal.SIGTERM, place)

    def _save(self, trainer: Trainer, finished_epochs: int) -> None:
        if not self.is_needed():
            return
        # First: what goes on from the checkpoint writes this file again, and so what a kill leaves of it.
        if trainer.is_global_zero:
            state = {"epoch": finished_epochs, "epochs": trainer.max_epochs, "seconds": round(self.clock.seconds, 3)}
            write_json(self.path.parents[1] / PROGRESS, state)
        trainer.save_checkpoint(self.path)
        self._saved = time.monotonic()

    def state_dict(self) -> dict[str, Any]:
        """Random states, time spent, what the numbers depend on and, within an epoch, the sum of its losses."""
        cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
        state = {"seconds": self.clock.seconds, "cpu": torch.get_rng_state(), "cuda": cuda, "loss_sum": self._loss_sum}
        return {**state, "recorded": self.recorded}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the time spent and remember the rest for the start of training."""
        self.clock.seconds, self._loaded = state_dict["seconds"], state_dict
        self.recorded = state_dict.get("recorded", {})  # version 0.1 kept none
