"""A bar over the epochs of a run."""

from lightning import Callback, LightningModule, Trainer

from ncflow.runtime.progress import EpochBar


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
