"""What the measuring callbacks have in common: when they act, what they read, and the table that they keep."""

import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer
from torch import nn

from ncflow.callbacks.loaders import SequentialLoader, given, sequential
from ncflow.callbacks.reading import AsTrained, as_validated, averaging
from ncflow.checks import require
from ncflow.measuring.notes import note
from ncflow.models import Classifier
from ncflow.results import History, final_measures


class Scheduled(Callback, ABC):
    """Measure a module before training, after every n-th epoch and after the last one; keep a table of it.

    A callback that measures says how in :meth:`measure`.

    Args:
        every_n_epochs: Epochs between measurements, >= 1.
        history: Its table, or the table's file; None for none. Training that starts anew, rather than from a
            checkpoint, starts it anew.
        loaders: Batches by split name; None takes the data module's or the trainer's own.
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
        self._saved_marks: dict[str, Any] = {}
        self._measured_at: int | None = None

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
            self._measure_now(trainer, pl_module, 0)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure if it is due."""
        if self._is_due(trainer):
            self._measure_now(trainer, pl_module, trainer.current_epoch + 1)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure what training ended with, if only now it is known to have ended: a callback that came later did it.

        Not where the average of the weights may have taken their place by now.
        """
        if self._measured_at == trainer.global_step:
            return
        averages = averaging(trainer)
        if averages is None:
            self._measure_now(trainer, pl_module, trainer.current_epoch)
        else:
            note(f"the last row is missing: {type(self).__name__} must come after what ends training before {averages}")

    def _measure_now(self, trainer: Trainer, pl_module: LightningModule, epoch: int) -> None:
        self._measured_at = trainer.global_step
        with as_validated(trainer, pl_module):
            self.measure(trainer, pl_module, epoch)

    @property
    def tables(self) -> dict[str, History]:
        """The tables that it keeps, by their names in its state."""
        return {} if self.history is None else {"history": self.history}

    def state_dict(self) -> dict[str, Any]:
        """How far the tables are."""
        return {name: table.mark for name, table in self.tables.items()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take from a checkpoint how far the tables were."""
        self._saved_marks = state_dict

    def _begin(self, trainer: Trainer, starts: bool) -> None:
        for name, table in self.tables.items():
            if trainer.is_global_zero:
                begin_table(table, starts, self._saved_marks.get(name))

    def _is_due(self, trainer: Trainer) -> bool:
        return trainer.current_epoch < self.first_epochs or is_due(trainer, self.every_n_epochs)

    def splits(self, trainer: Trainer) -> Mapping[str, AsTrained]:
        """Batches by split name as they reach the module, each sample once and in evaluation form."""
        splits = {}
        for split, (loader, index) in self._loaders(trainer).items():
            if isinstance(loader, SequentialLoader) and loader.order.said:
                note(f"{split}: {loader.order.said}")
            splits[split] = AsTrained(loader, trainer, split, index)
        return splits

    def _loaders(self, trainer: Trainer) -> dict[str, tuple[Iterable[Any], int]]:
        """Loaders by split name, with the index that the hooks of the module know them by."""
        if self.loaders is not None:
            return {split: (given(loader), 0) for split, loader in self.loaders.items()}
        own = getattr(getattr(trainer, "datamodule", None), "measure_dataloaders", None)
        if own is not None:
            return {split: (loader, 0) for split, loader in own(self.batch_size).items()}
        found = {"train": (trainer.train_dataloader, 0, trainer.limit_train_batches)}
        for index, (name, loader) in enumerate(_by_name("val", trainer.val_dataloaders)):
            found[name] = (loader, index, trainer.limit_val_batches)
        is_trial = bool(trainer.fast_dev_run)  # type: ignore[attr-defined]
        splits: dict[str, tuple[Iterable[Any], int]] = {}
        for split, (loader, index, limit) in found.items():
            if loader is not None and limit != 0:
                splits[split] = sequential(loader, limit, is_trial), index
        return splits


def _by_name(name: str, loaders: Any) -> Iterator[tuple[str, Any]]:
    """One loader under its name, several with what tells them apart behind it."""
    if isinstance(loaders, Mapping):
        yield from ((f"{name}_{key}", loader) for key, loader in loaders.items())
    elif isinstance(loaders, list | tuple) and len(loaders) > 1:
        yield from ((f"{name}_{index}", loader) for index, loader in enumerate(loaders))
    else:
        yield name, loaders[0] if isinstance(loaders, list | tuple) and loaders else loaders


def network_of(pl_module: LightningModule) -> nn.Module:
    """The network of our Classifier, which is all that its ``forward`` does; any other module as it is."""
    if isinstance(pl_module, Classifier) and type(pl_module).forward is Classifier.forward:
        return pl_module.network
    return pl_module


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
    if epoch == trainer.max_epochs or trainer.global_step == trainer.max_steps or trainer.should_stop:
        return True
    return epoch % every_n_epochs == 0


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
