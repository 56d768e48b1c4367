"""A callback that keeps some features at each measurement, for pictures of collapse."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import LightningModule, Trainer
from torch import Tensor

from ncflow.callbacks.schedule import Scheduled, network_of
from ncflow.checks import require
from ncflow.measuring.features import LAST, extract
from ncflow.models.network import find_classifier
from ncflow.results import SNAPSHOTS, write_atomically

# Numbers of an input that a picture can show.
_MOST_INPUTS = 3


class SnapshotFeatures(Scheduled):
    """Write the last-layer features of some training samples, the class means and the classifier's weights.

    A file an epoch, ``snapshots/epoch_00005.npz``: ``features`` (n, d), their ``labels`` (n,), the ``means`` (C, d)
    over *all* training samples of each class (NaN for an absent class), the mean ``center`` (d,) over all samples and
    the classifier's ``weight`` (C, d), in float32; and the samples' ``inputs`` if they have up to three numbers. It
    needs a data module with ``measure_dataloaders()``.

    Args:
        folder: The run's folder.
        every_n_epochs: Epochs between snapshots, besides before training and at the end.
        samples: Samples kept of each class, the first ones of the training split.
        batch_size: Batch size of the pass over the data.
    """

    def __init__(self, folder: Path, every_n_epochs: int, samples: int, batch_size: int = 1000) -> None:
        require(samples >= 1, "snapshot_samples", "at least 1", samples)
        super().__init__(every_n_epochs, batch_size=batch_size)
        self.folder, self.samples = folder / SNAPSHOTS, samples

    def measure(self, trainer: Trainer, pl_module: LightningModule, epoch: int) -> None:
        """Write a file now; what an interrupted run wrote after its checkpoint is written again on the way."""
        network, loader = network_of(pl_module), self.splits(trainer)["train"]
        _, head = find_classifier(network)
        sums = torch.zeros(head.out_features, head.in_features, dtype=torch.float64)
        counts = torch.zeros(head.out_features, dtype=torch.float64)
        kept: list[Tensor] = []
        kept_labels: list[Tensor] = []
        kept_inputs: list[Tensor] = []
        for batch, (inputs, _) in zip(extract(network, loader), loader, strict=True):
            H, labels = batch.features[LAST].double().cpu(), batch.labels.cpu()
            ranks = counts[labels] + _rank_in_class(labels)
            sums.index_add_(0, labels, H)
            counts += torch.bincount(labels, minlength=len(counts))
            chosen = ranks < self.samples
            kept.append(H[chosen])
            kept_labels.append(labels[chosen])
            flat = inputs.flatten(1).double().cpu()[chosen]
            kept_inputs.append(flat if flat.shape[1] <= _MOST_INPUTS else flat[:, :0])
        arrays = {
            "features": torch.cat(kept),
            "labels": torch.cat(kept_labels),
            "means": sums / counts[:, None],
            "center": sums.sum(0) / counts.sum(),
            "weight": head.weight.detach().cpu(),
            "inputs": torch.cat(kept_inputs),
        }
        buffer = io.BytesIO()
        compact: dict[str, Any] = {n: (a.float() if a.is_floating_point() else a).numpy() for n, a in arrays.items()}
        np.savez_compressed(buffer, **compact)
        write_atomically(self.folder / f"epoch_{epoch:05d}.npz", buffer.getvalue())


def _rank_in_class(labels: Tensor) -> Tensor:
    """How many earlier entries have the same label, (B,)."""
    order = labels.argsort(stable=True)
    sorted_labels = labels[order]
    starts = torch.searchsorted(sorted_labels, sorted_labels)
    ranks = torch.empty_like(labels)
    ranks[order] = torch.arange(len(labels)) - starts
    return ranks
