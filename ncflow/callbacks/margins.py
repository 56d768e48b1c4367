"""A callback that keeps the distribution of the training margins over the epochs and the first steps."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule, Trainer

from ncflow.callbacks.schedule import Scheduled, network_of
from ncflow.checks import require
from ncflow.measuring.features import extract
from ncflow.metrics.margins import margins, weight_norm_product
from ncflow.metrics.summary import quantiles
from ncflow.results import MARGIN_COLUMNS, MARGIN_QUANTILES, History

# Powers of first_steps, evenly spaced in their exponent; the small ones round to the same steps.
_FIRST_STEPS = 24
_LEVELS = [Fraction(level, len(MARGIN_QUANTILES) - 1) for level in range(len(MARGIN_QUANTILES))]


class LogMargins(Scheduled):
    """Write quantiles of the margins of all training samples before training, at chosen epochs and steps, at the end.

    A row a measurement (CBMM Memo 117, figures 3 to 5): the finished epochs and steps, rho and the number of samples,
    by which the margins can be normalised, and the quantiles. A logger that has a method ``log_histograms`` gets the
    margins and the normalised ones. The model is frozen while it is measured, and training draws the same random
    numbers as without. It needs one device, and a data module with ``measure_dataloaders()``.

    Args:
        path: The file, which training that starts anew, rather than from a checkpoint, starts anew.
        every_n_epochs: Epochs between measurements, besides before training and at the end.
        first_steps: Measure also after about 25 optimiser steps up to this one, evenly spaced in their logarithm; None
            for epochs alone.
        batch_size: Batch size of the pass over the data.
    """

    def __init__(self, path: Path, every_n_epochs: int, first_steps: int | None = None, batch_size: int = 1000) -> None:
        require(first_steps is None or first_steps >= 1, "first_steps", "null or at least 1", first_steps)
        super().__init__(every_n_epochs, History(path, MARGIN_COLUMNS, owned=True), batch_size=batch_size)
        self.first_steps = [] if first_steps is None else _spread(first_steps)
        self._awaited: set[int] = set()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Also await the steps that are still to come."""
        self._awaited = {step for step in self.first_steps if step > trainer.global_step}
        super().on_train_start(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Measure after an awaited step, but leave an epoch's last one to its end: a step has one row."""
        # Asked after every batch of the run: the set comes first, as it is empty after the first steps.
        if self._awaited and trainer.global_step in self._awaited and batch_idx + 1 < trainer.num_training_batches:
            self._measure_now(trainer, pl_module, trainer.current_epoch)

    def _is_due(self, trainer: Trainer) -> bool:
        return super()._is_due(trainer) or trainer.global_step in self._awaited  # which was the epoch's last step

    def measure(self, trainer: Trainer, pl_module: LightningModule, epoch: int) -> None:
        """Write a row now."""
        # At once, as several batches can make up one step.
        self._awaited.discard(trainer.global_step)
        network, loader, table = network_of(pl_module), self.splits(trainer)["train"], self.history
        assert table is not None
        values = torch.cat([margins(batch.logits, batch.labels) for batch in extract(network, loader)])
        rho = weight_norm_product(network).item()
        row = {"epoch": epoch, "step": trainer.global_step, "rho": rho, "samples": len(values)}
        found = zip(MARGIN_QUANTILES, quantiles(values, _LEVELS).tolist(), strict=True)
        table.append([{**row, **dict(found)}])
        histograms = {"train/margins": values, "train/normalized_margins": values / rho}
        for logger in trainer.loggers:
            log_histograms = getattr(logger, "log_histograms", None)
            if log_histograms is not None:
                log_histograms(histograms, epoch=epoch, step=trainer.global_step)


def _spread(last: int) -> list[int]:
    """Steps 1, 2, 3, 5, ... up to the last one."""
    return sorted({round(last ** (power / (_FIRST_STEPS - 1))) for power in range(_FIRST_STEPS)})
