"""The Lightning callback that measures collapse, on our models and on anybody's."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import nan
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from lightning import LightningModule, Trainer
from torch import Tensor

from ncflow.callbacks.schedule import Scheduled, keep, network_of
from ncflow.checks import require
from ncflow.measuring.features import LAST, resolve_layers
from ncflow.measuring.split import measure_split, rows_of
from ncflow.models.network import find_classifier
from ncflow.results import History, final_measures


class NeuralCollapseCallback(Scheduled):
    """Measure neural collapse of any LightningModule classifier before training, at chosen epochs and at the end.

    The model is frozen (evaluation mode, no gradients), each sample counts exactly once, and training draws the
    same random numbers as without the measurement. The measures of the last layer are logged as
    ``train/intra_min`` and so on, those of another layer as ``train/<layer>/intra_min``.

    Args:
        every_n_epochs: Epochs between measurements, >= 1.
        layers: ``"last"`` (the classifier's input), ``"all"`` or a list of module names
            (see :func:`ncflow.measuring.features.resolve_layers`).
        loaders: Batches (inputs, labels) by split name, each sample once and in evaluation form (no shuffling, no
            augmentation). None takes the data module's ``measure_dataloaders()`` if it has one, else sequential
            copies of the trainer's own training, validation and test DataLoaders.
        classifier: Name of the classifier layer; None takes the last ``nn.Linear``.
        norm: Name of the BN right before the classifier, for ``gamma_norm``; None takes the network's ``last_norm``.
        loss: From logits (N, C) and labels (N,) to the mean loss; None takes the module's ``loss`` if that is
            callable, else cross-entropy.
        weight_decay: lambda of ``regularized_loss``, its gap and the limits of inter for unequal classes; None takes
            the module's ``weight_decay`` if that is a number, else they are NaN.
        delta: Level of the quantiles.
        self_pairs: Whether intra counts the pairs i = j.
        batch_size: Batch size for ``measure_dataloaders()``; values depend on it by rounding alone.
        first_epochs: Measure also after each of the first so many epochs, >= 1; None: not.
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
        first_epochs: int | None = None,
        max_cached_bytes: int | None = 2**31,
        history: History | Path | str | None = None,
    ) -> None:
        super().__init__(every_n_epochs, history, loaders, batch_size, first_epochs)
        require(0 < delta < 1, "delta", "in (0, 1)", delta)
        require(weight_decay is None or weight_decay >= 0, "weight_decay", "null or at least 0", weight_decay)
        self.layers, self.classifier, self.norm = layers, classifier, norm
        self.loss, self.weight_decay, self.delta, self.self_pairs = loss, weight_decay, delta, self_pairs
        self.max_cached_bytes = max_cached_bytes
        self.rows: list[dict[str, Any]] = []

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Fail before training if a layer is missing."""
        resolve_layers(network_of(pl_module), self.layers)
        find_classifier(network_of(pl_module), self.classifier)

    def state_dict(self) -> dict[str, Any]:
        """Also the latest rows: a run that was stopped after its last epoch has its final measures."""
        return {"rows": self.rows, **super().state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Also the latest rows."""
        super().load_state_dict(state_dict)
        self.rows = state_dict["rows"]

    def measure(self, trainer: Trainer, pl_module: LightningModule, epoch: int) -> None:
        """Measure every split and layer now, log the values and add them to the history."""
        self.rows = [
            row
            for split, loader in self.splits(trainer).items()
            for row in rows_of(epoch, split, self._measure_split(pl_module, loader))
        ]
        named = {name: torch.tensor(value) for name, value in final_measures(self.rows).items()}
        trainer.callback_metrics.update(named)
        history = self.history if trainer.is_global_zero else None
        keep(self.rows, trainer.loggers, history, epoch, trainer.global_step)

    def _measure_split(self, pl_module: LightningModule, loader: Iterable[Any]) -> dict[str, dict[str, float]]:
        own_loss, own_decay = getattr(pl_module, "loss", None), getattr(pl_module, "weight_decay", None)
        decay = own_decay if self.weight_decay is None else self.weight_decay
        return measure_split(
            network_of(pl_module),
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
