"""Lightning callbacks for the life of a run: stop when it diverges, save so that it can go on, show how far it is."""

import time
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from torch import Tensor

from ncflow.callbacks import is_due
from ncflow.progress import EpochBar


class StopOnDivergence(Callback):
    """End training after an epoch whose mean loss is not finite; it must come before the measuring callback.

    Attributes:
        diverged: Whether that happened.
    """

    def __init__(self) -> None:
        self.diverged = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A run that was stopped between its divergence and its result does not go on."""
        if self.diverged:
            trainer.should_stop = True

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at the sum of the epoch's losses, one transfer from the device an epoch."""
        loss_sum = pl_module.loss_sum
        assert isinstance(loss_sum, Tensor)
        if not bool(loss_sum.isfinite()):
            self.diverged = trainer.should_stop = True

    def state_dict(self) -> dict[str, Any]:
        """Whether training diverged."""
        return {"diverged": self.diverged}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over whether training diverged."""
        self.diverged = state_dict["diverged"]


class SaveForResume(Checkpoint):
    """Keep one checkpoint that holds all a run needs to go on as if it had never stopped.

    Lightning saves weights, optimiser, schedule and the callbacks' states; this adds PyTorch's random states and
    the time spent. The order of samples depends on seed and epoch alone.

    Args:
        path: The file.
        every_n_epochs: Epochs between saves; the end of training and every minute also save.

    Attributes:
        seconds: Time spent in training, over all attempts.
    """

    _SECONDS_BETWEEN_SAVES = 60.0

    def __init__(self, path: Path, every_n_epochs: int) -> None:
        self.path, self.every_n_epochs = path, every_n_epochs
        self.seconds = 0.0
        self._ticked = self._saved = time.monotonic()
        self._random: dict[str, Any] | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock; put the random states back where training goes on."""
        self._ticked = self._saved = time.monotonic()
        if self._random is not None:
            torch.set_rng_state(self._random["cpu"])
            if self._random["cuda"] and torch.cuda.is_available():
                torch.cuda.set_rng_state_all(self._random["cuda"])

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count the time; save when due."""
        now = time.monotonic()
        self.seconds += now - self._ticked
        self._ticked = now
        if is_due(trainer, self.every_n_epochs) or now - self._saved > self._SECONDS_BETWEEN_SAVES:
            trainer.save_checkpoint(self.path)
            self._saved = time.monotonic()

    def state_dict(self) -> dict[str, Any]:
        """Random states and time spent."""
        cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
        return {"seconds": self.seconds, "cpu": torch.get_rng_state(), "cuda": cuda}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the time spent and remember the random states for the start of training."""
        self.seconds, self._random = state_dict["seconds"], state_dict


class EpochProgress(Callback):
    """Bar over the epochs, moved once an epoch."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._bar: EpochBar | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show the bar."""
        self._bar = EpochBar(self.name, trainer.max_epochs or 0, trainer.current_epoch)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Move the bar."""
        if self._bar is not None:
            self._bar.update(trainer.current_epoch + 1)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Take the bar away."""
        self._close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Take the bar away, so that the error is not drawn over."""
        self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
