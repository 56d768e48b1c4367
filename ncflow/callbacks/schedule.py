"""What the measuring callbacks have in common: when they act, what they read, and the table that they keep."""

import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence, Sized
from pathlib import Path
from typing import Any, cast

from lightning import Callback, LightningModule, Trainer
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, Subset

from ncflow.checks import ArgumentError, require
from ncflow.data.batches import shard
from ncflow.results import History, final_measures


class Scheduled(Callback, ABC):
    """Measure a module before training, after every n-th epoch and after the last one; keep a table of it.

    A callback that measures says how in :meth:`measure`.

    Args:
        every_n_epochs: Epochs between measurements, >= 1.
        history: Its table, or the table's file; None for none. Training that starts anew, rather than from a
            checkpoint, starts it anew.
        loaders: Batches (inputs, labels) by split name; None takes the data module's or the trainer's own.
        batch_size: Batch size for a data module's ``measure_dataloaders()``.
        first_epochs: Measure also after each of the first so many epochs, >= 1; None: not.
    """

    def __init__(
        self,
        every_n_epochs: int,
        history: History | Path | str | None = None,
        loaders: Mapping[str, Iterable[Any]] | None = None,
        batch_size: int = 1000,
        first_epochs: int | None = None,
    ) -> None:
        require(every_n_epochs >= 1, "every_n_epochs", "at least 1", every_n_epochs)
        require(first_epochs is None or first_epochs >= 1, "first_epochs", "null or at least 1", first_epochs)
        self.every_n_epochs, self.loaders, self.batch_size = every_n_epochs, loaders, batch_size
        self.first_epochs = first_epochs or 0
        self.history = History(Path(history)) if isinstance(history, Path | str) else history
        self._saved_mark: dict[str, Any] | None = None

    @abstractmethod
    def measure(self, trainer: Trainer, pl_module: LightningModule, epoch: int) -> None:
        """Measure now.

        Args:
            trainer: The trainer.
            pl_module: The module, at the state to be measured.
            epoch: Finished epochs.
        """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget what an interrupted run wrote after its checkpoint; measure the module as initialised."""
        starts = trainer.global_step == 0
        self._begin(trainer, starts)
        if starts:
            self.measure(trainer, pl_module, 0)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure if it is due."""
        if self._is_due(trainer):
            self.measure(trainer, pl_module, trainer.current_epoch + 1)

    def state_dict(self) -> dict[str, Any]:
        """How far the table is."""
        return {} if self.history is None else {"history": self.history.mark}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take from a checkpoint how far the table was."""
        self._saved_mark = state_dict.get("history")

    def _begin(self, trainer: Trainer, starts: bool) -> None:
        if self.history is not None and trainer.is_global_zero:
            begin_table(self.history, starts, self._saved_mark)

    def _is_due(self, trainer: Trainer) -> bool:
        return trainer.current_epoch < self.first_epochs or is_due(trainer, self.every_n_epochs)

    def splits(self, trainer: Trainer) -> Mapping[str, Iterable[Any]]:
        """Batches (inputs, labels) by split name, each sample once and in evaluation form."""
        if self.loaders is not None:
            return self.loaders
        own = getattr(getattr(trainer, "datamodule", None), "measure_dataloaders", None)
        if own is not None:
            return own(self.batch_size)
        found = {"train": trainer.train_dataloader, "val": trainer.val_dataloaders}
        return {split: sequential(loader) for split, loader in found.items() if loader is not None}


def network_of(pl_module: LightningModule) -> nn.Module:
    """The network of our Classifier, or a foreign module as it is."""
    network = getattr(pl_module, "network", None)
    return network if isinstance(network, nn.Module) else pl_module


def keep(
    rows: Sequence[Mapping[str, Any]], loggers: Iterable[Any], history: History | None, epoch: int, step: int
) -> None:
    """Log the measures of some rows, and add the rows to a table.

    Raises:
        OSError: If the table cannot be written.
    """
    for logger in loggers:
        logger.log_metrics({**final_measures(rows), "epoch": epoch}, step=step)
    if history is not None:
        history.append(rows)


def begin_table(table: History, starts: bool, mark: Mapping[str, Any] | None) -> None:
    """Begin a run's table anew, or go back to how it was when the checkpoint was saved.

    Args:
        table: The table.
        starts: Whether training starts anew, rather than from a checkpoint.
        mark: Of the table in the checkpoint.

    Raises:
        ArgumentError: If the file is another one.
    """
    if starts:
        table.start()
    else:
        table.go_back(mark)


def is_due(trainer: Trainer, every_n_epochs: int) -> bool:
    """Whether the epoch that just ended is an n-th one, or the last."""
    epoch = trainer.current_epoch + 1
    return epoch % every_n_epochs == 0 or epoch == trainer.max_epochs or trainer.should_stop


class Clock:
    """Seconds of training, over all attempts.

    Attributes:
        seconds: Until the latest look at it.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self.start()

    def start(self) -> None:
        """Count from now on."""
        self._looked = time.monotonic()

    def look(self) -> float:
        """Seconds until now."""
        now = time.monotonic()
        self.seconds, self._looked = self.seconds + now - self._looked, now
        return self.seconds


def sequential(loader: Any) -> DataLoader[Any]:
    """Copy of a DataLoader that gives each sample of its data set once, in order.

    Under distributed training each rank gets its share and no sample is given twice: Lightning's own samplers would
    pad the shares to one size.

    Raises:
        ArgumentError: For anything but a DataLoader over a map-style data set.
    """
    if not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset):
        raise ArgumentError(
            "loaders must be given where the trainer's loader is no DataLoader over a map-style data set, "
            f"found {type(loader).__name__}"
        )
    return DataLoader(
        Subset(loader.dataset, shard(len(cast(Sized, loader.dataset)))),
        batch_size=loader.batch_size or 256,
        collate_fn=loader.collate_fn if loader.batch_size else None,
        num_workers=loader.num_workers,
        pin_memory=loader.pin_memory,
    )
