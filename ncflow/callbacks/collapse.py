"""The Lightning callback that measures collapse, on our models and on anybody's."""

from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from math import nan
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from lightning import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, Subset

from ncflow.callbacks.schedule import begin_table, is_due
from ncflow.checks import ArgumentError, require
from ncflow.data.batches import shard
from ncflow.measuring.features import LAST, resolve_layers
from ncflow.measuring.split import measure_split, rows_of
from ncflow.models.network import find_classifier
from ncflow.results import History, final_measures


class NeuralCollapseCallback(Callback):
    """Measure neural collapse of any LightningModule classifier before training, at chosen epochs and at the end.

    The model is frozen (evaluation mode, no gradients), each sample counts exactly once, and training draws the
    same random numbers as without the measurement. The measures of the last layer are logged as
    ``train/intra_min`` and so on, those of another layer as ``train/<layer>/intra_min``.

    Args:
        every_n_epochs: Epochs between measurements, >= 1.
        layers: ``"last"`` (the classifier's input), ``"all"`` or a list of module names
            (see :func:`ncflow.measuring.features.resolve_layers`).
        loaders: Batches (inputs, labels) by split name, each sample once and in evaluation form (no shuffling, no
            augmentation). None takes the data module's ``measure_dataloaders()`` where it has one, else sequential
            copies of the trainer's own training, validation and test DataLoaders.
        classifier: Name of the classifier layer; None takes the last ``nn.Linear``.
        norm: Name of the BN right before the classifier, for ``gamma_norm``; None takes the network's ``last_norm``.
        loss: From logits (N, C) and labels (N,) to the mean loss; None takes the module's ``loss`` where that is
            callable, else cross-entropy.
        weight_decay: lambda of ``regularized_loss`` and its gap; None takes the module's ``weight_decay`` where that is
            a number, else the two are NaN.
        delta: Level of the quantiles.
        self_pairs: Whether intra counts the pairs i = j.
        batch_size: Batch size for ``measure_dataloaders()``; values depend on it by rounding alone.
        max_cached_bytes: Bytes of features kept for each layer, on each rank; a split that has more is read twice. None
            for no limit.
        history: File, or table, to which a row per split and layer is added at each measurement. Training that starts
            anew, rather than from a checkpoint, starts it anew, but never writes over a file that is no such table.

    Attributes:
        rows: The rows of the latest measurement: ``epoch`` (finished epochs), ``split``, ``layer`` and the measures.
    """

    def __init__(
        self,
        every_n_epochs: int = 5,
        layers: str | Sequence[str] = LAST,
        *,
        loaders: Mapping[str, Iterable[Any]] | None = None,
        classifier: str | None = None,
        norm: str | None = None,
        loss: Callable[[Tensor, Tensor], Tensor] | None = None,
        weight_decay: float | None = None,
        delta: float = 0.05,
        self_pairs: bool = False,
        batch_size: int = 1000,
        max_cached_bytes: int | None = 2**31,
        history: History | Path | str | None = None,
    ) -> None:
        require(every_n_epochs >= 1, "every_n_epochs", "at least 1", every_n_epochs)
        require(0 < delta < 1, "delta", "in (0, 1)", delta)
        self.every_n_epochs, self.layers, self.loaders = every_n_epochs, layers, loaders
        require(weight_decay is None or weight_decay >= 0, "weight_decay", "null or at least 0", weight_decay)
        self.classifier, self.norm, self.loss, self.weight_decay = classifier, norm, loss, weight_decay
        self.delta, self.self_pairs, self.batch_size = delta, self_pairs, batch_size
        self.max_cached_bytes = max_cached_bytes
        self.history = History(Path(history)) if isinstance(history, Path | str) else history
        self._saved_mark: dict[str, Any] | None = None
        self.rows: list[dict[str, Any]] = []

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Fail before training if a layer is missing."""
        resolve_layers(_network(pl_module), self.layers)
        find_classifier(_network(pl_module), self.classifier)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget what an interrupted run wrote after its checkpoint; measure the model as initialised."""
        starts = trainer.global_step == 0
        if self.history is not None and trainer.is_global_zero:
            begin_table(self.history, starts, self._saved_mark)
        if starts:
            self.measure(trainer, pl_module, epoch=0)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure after every n-th epoch and after the last."""
        if is_due(trainer, self.every_n_epochs):
            self.measure(trainer, pl_module, epoch=trainer.current_epoch + 1)

    def state_dict(self) -> dict[str, Any]:
        """What is written, and the latest rows: a run that was stopped after its last epoch has its final measures."""
        return {"rows": self.rows, "history": None if self.history is None else self.history.mark}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the latest rows, and how far the history was, from a checkpoint."""
        self.rows, self._saved_mark = state_dict["rows"], state_dict.get("history")

    def measure(self, trainer: Trainer, pl_module: LightningModule, epoch: int) -> None:
        """Measure every split and layer now, log the values and add them to the history."""
        self.rows = [
            row
            for split, loader in self._loaders(trainer).items()
            for row in rows_of(epoch, split, self._measure_split(pl_module, loader))
        ]
        for row in self.rows:
            named = final_measures([row])
            trainer.callback_metrics.update({name: torch.tensor(value) for name, value in named.items()})
            for logger in trainer.loggers:
                logger.log_metrics({**named, "epoch": epoch}, step=trainer.global_step)
        if self.history is not None and trainer.is_global_zero:
            self.history.append(self.rows)

    def _loaders(self, trainer: Trainer) -> Mapping[str, Iterable[Any]]:
        if self.loaders is not None:
            return self.loaders
        own = getattr(getattr(trainer, "datamodule", None), "measure_dataloaders", None)
        if own is not None:
            return own(self.batch_size)
        found = {"train": trainer.train_dataloader, "val": trainer.val_dataloaders}
        return {split: sequential(loader) for split, loader in found.items() if loader is not None}

    def _measure_split(self, pl_module: LightningModule, loader: Iterable[Any]) -> dict[str, dict[str, float]]:
        own_loss, own_decay = getattr(pl_module, "loss", None), getattr(pl_module, "weight_decay", None)
        decay = own_decay if self.weight_decay is None else self.weight_decay
        return measure_split(
            _network(pl_module),
            loader,
            self.layers,
            classifier=self.classifier,
            norm=self.norm,
            loss=self.loss or (own_loss if callable(own_loss) else F.cross_entropy),
            weight_decay=float(decay) if isinstance(decay, int | float) and decay >= 0 else nan,
            delta=self.delta,
            self_pairs=self.self_pairs,
            max_cached_bytes=self.max_cached_bytes,
        )


def _network(pl_module: LightningModule) -> nn.Module:
    """The network of our Classifier, or a foreign module as it is."""
    network = getattr(pl_module, "network", None)
    return network if isinstance(network, nn.Module) else pl_module


def sequential(loader: Any) -> DataLoader:
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
