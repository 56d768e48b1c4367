"""Splits of a data set as tensors, and their minibatches."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor


class Split(NamedTuple):
    """Inputs (N, ...) in float32, or in what the data set's ``prepare`` decodes; labels (N,) in int64, 0..C-1."""

    inputs: Tensor
    labels: Tensor

    @property
    def num_bytes(self) -> int:
        """Memory that the samples take."""
        return self.inputs.nbytes + self.labels.nbytes

    def to(self, device: torch.device) -> "Split":
        """The same split on a device."""
        return Split(self.inputs.to(device), self.labels.to(device))

    def send(self, device: torch.device) -> "Split":
        """As :meth:`to`, without waiting for a GPU to have its copy."""
        if device.type != "cuda" or self.labels.device.type != "cpu":
            return self.to(device)
        # A GPU can fetch from pinned memory alone while the CPU goes on; PyTorch keeps it until the copy is made.
        inputs, labels = (tensor.pin_memory().to(device, non_blocking=True) for tensor in self)
        return Split(inputs, labels)

    def shard(self) -> "Split":
        """This rank's samples; a view."""
        own = shard(len(self.labels))
        return Split(self.inputs[own.start :: own.step], self.labels[own.start :: own.step])

    def take(self, index: Tensor) -> "Split":
        """The samples at ``index``."""
        return Split(self.inputs[index], self.labels[index])


class Share(NamedTuple):
    """One rank's part of a minibatch; ``weight`` times the mean over it, averaged over ranks, is the batch's mean."""

    inputs: Tensor
    labels: Tensor
    weight: float


class Batches:
    """Minibatches of an in-memory split, cut by index where the split lies: no per-sample work, no workers.

    A checkpoint in the middle of a pass holds how many batches were given; the pass goes on behind them.

    Args:
        split: The samples.
        batch_size: Samples a batch, None for one batch of all.
        order: Called at the start of each pass, returns the order of the samples, (N,); None keeps theirs.
        device: Where each batch is moved to; None leaves it where the split is.
        prepare: From the inputs of a batch, on that device, to the network's; None leaves them as they are.
        shared: Whether each rank gets its :class:`Share` of every batch rather than the whole batch.
    """

    def __init__(
        self,
        split: Split,
        batch_size: int | None,
        order: Callable[[], Tensor] | None = None,
        *,
        device: torch.device | None = None,
        prepare: Callable[[Tensor], Tensor] | None = None,
        shared: bool = False,
    ) -> None:
        self.split = split
        self.batch_size = batch_size
        self.order = order
        self.device = split.labels.device if device is None else device
        self.prepare = prepare
        self.shared = shared
        self._bounds = batch_bounds(len(split.labels), batch_size)
        self._given = self._skipped = 0

    def __len__(self) -> int:
        return len(self._bounds)

    def __iter__(self) -> Iterator[Split | Share]:
        order = None if self.order is None else self.order().to(self.split.labels.device)
        for start, stop in self.remaining_bounds():
            own = shard(stop - start) if self.shared else range(stop - start)
            rows = slice(start + own.start, stop, own.step)
            if order is None:
                batch = Split(self.split.inputs[rows], self.split.labels[rows])
            else:
                batch = self.split.take(order[rows])
            batch = batch.send(self.device)
            if self.prepare is not None:
                batch = batch._replace(inputs=self.prepare(batch.inputs))
            yield Share(*batch, len(own) * own.step / (stop - start)) if self.shared else batch

    def remaining_bounds(self) -> Iterator[tuple[int, int]]:
        """First sample and the one behind the last, batch by batch, of a pass or of what a checkpoint left of it."""
        first, self._skipped = self._skipped, 0
        for given, bounds in enumerate(self._bounds[first:], start=first + 1):
            self._given = given
            yield bounds

    def state_dict(self) -> dict[str, int]:
        """How many batches of the current pass were given; 0 at its end."""
        return {"given": self._given % len(self)}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Leave that many batches out of the next pass."""
        self._skipped = state_dict["given"]


def batch_bounds(num_samples: int, batch_size: int | None) -> list[tuple[int, int]]:
    """Cut 0..num_samples into batches; a last batch of one sample joins the one before it.

    Batch normalisation cannot train on a single sample, and dropping it would leave a sample out of every epoch.
    """
    size = num_samples if batch_size is None else batch_size
    starts = list(range(0, num_samples, size))
    if len(starts) > 1 and num_samples - starts[-1] == 1:
        starts.pop()
    return list(zip(starts, [*starts[1:], num_samples], strict=True))


def shard(count: int) -> range:
    """This rank's samples of 0..count-1: every world-size-th one, all if there is one process, none twice."""
    if not torch.distributed.is_initialized():
        return range(count)
    return range(torch.distributed.get_rank(), count, torch.distributed.get_world_size())
