"""End training when the loss is not finite any more."""

from typing import Any

from lightning import Callback, LightningModule, Trainer
from torch import Tensor


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
        """Look at the sum of the epoch's losses over all ranks, one transfer from the device an epoch."""
        loss_sum = pl_module.loss_sum
        assert isinstance(loss_sum, Tensor)
        if not bool(trainer.strategy.reduce(loss_sum.clone(), reduce_op="sum").isfinite()):
            self.diverged = trainer.should_stop = True

    def state_dict(self) -> dict[str, Any]:
        """Whether training diverged."""
        return {"diverged": self.diverged}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over whether training diverged."""
        self.diverged = state_dict["diverged"]
