"""A callback that keeps the weights of some epochs, so that they can be measured later."""

from pathlib import Path

from lightning import Callback, LightningModule, Trainer

from ncflow.results.files import kept_checkpoint


class KeepCheckpoints(Callback):
    """Keep the weights before training and after every n-th epoch, a file each that is never deleted here.

    A run that goes on from its checkpoint writes the file of an epoch again, with the same weights.

    Args:
        folder: The run's folder.
        every_n_epochs: n, >= 1.
    """

    def __init__(self, folder: Path, every_n_epochs: int) -> None:
        self.folder, self.every_n_epochs = folder, every_n_epochs

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the weights as they were initialised."""
        if trainer.global_step == 0:
            self._keep(trainer, 0)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep them if it is due."""
        epoch = trainer.current_epoch + 1
        if epoch % self.every_n_epochs == 0:
            self._keep(trainer, epoch)

    def _keep(self, trainer: Trainer, epoch: int) -> None:
        trainer.save_checkpoint(kept_checkpoint(self.folder, epoch), weights_only=True)
