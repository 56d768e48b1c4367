"""Minibatches of all cells at once: each cell sees its own samples in the order in which it would see them alone."""

from collections.abc import Callable, Iterator, Sequence

import torch
from lightning import LightningDataModule
from torch import Tensor

from ncflow.data.base import InMemoryData
from ncflow.data.batches import Batches, Split
from ncflow.seeding import epoch_order

_BYTES_AT_ONCE = 2**29  # of samples that are put into order ahead of the steps that use them


class StackedBatches(Batches):
    """Minibatches with inputs (K, B, ...) and labels (K, B).

    Args:
        inputs: Distinct training inputs as the network gets them, (U, N, ...).
        labels: Their labels, (U, N).
        sources: Which of the U each cell trains on, (K,).
        batch_size: Samples of each cell a batch, None for all.
        order: Called at the start of each pass, returns the order of each cell's samples, (K, N).
    """

    def __init__(
        self, inputs: Tensor, labels: Tensor, sources: Tensor, batch_size: int | None, order: Callable[[], Tensor]
    ) -> None:
        super().__init__(Split(inputs[0], labels[0]), batch_size)
        self.inputs, self.labels, self.sources, self.orders = inputs, labels, sources[:, None], order

    def __iter__(self) -> Iterator[Split]:
        device = self.inputs.device
        order = self.orders().to(device)
        a_sample = len(order) * max(1, self.inputs[0, 0].nbytes)
        ready, first, last = Split(self.inputs, self.labels), 0, 0
        for start, stop in self.remaining_bounds():
            if stop > last:
                first = start
                last = max(stop, self._end_of_batch(start + max(1, _BYTES_AT_ONCE // a_sample)))
                index = order[:, first:last]
                ready = Split(self.inputs[self.sources, index], self.labels[self.sources, index])
            yield Split(ready.inputs[:, start - first : stop - first], ready.labels[:, start - first : stop - first])

    def _end_of_batch(self, sample: int) -> int:
        """Where the last batch ends that ends at or before a sample; 0 for none."""
        return max((stop for _, stop in self._bounds if stop <= sample), default=0)


class StackedData(LightningDataModule):
    """The data of all cells; cells with the same samples share them.

    Args:
        cells: Each cell's data module, set up; the same object where they are the same.
        seeds: Each cell's seed.
        batch_size: Samples of each cell a batch, None for all.
    """

    def __init__(self, cells: Sequence[InMemoryData], seeds: Sequence[int], batch_size: int | None) -> None:
        super().__init__()
        self.cells, self.seeds, self.batch_size = cells, seeds, batch_size

    def train_dataloader(self) -> StackedBatches:
        """Minibatches, each cell's in its own order."""
        assert self.trainer is not None
        device = self.trainer.strategy.root_device
        distinct = list({id(data): data for data in self.cells}.values())
        splits = []
        for data in distinct:
            assert data.train is not None
            # Once, as the epochs would repeat it: decoded images take four times their memory.
            splits.append(Split(data.network_inputs(data.train.inputs), data.train.labels))
        places = {id(data): place for place, data in enumerate(distinct)}
        return StackedBatches(
            torch.stack([split.inputs for split in splits]).to(device),
            torch.stack([split.labels for split in splits]).to(device),
            torch.tensor([places[id(data)] for data in self.cells], device=device),
            self.batch_size,
            self._orders,
        )

    def _orders(self) -> Tensor:
        assert self.trainer is not None
        data = self.cells[0].train
        assert data is not None
        epoch, count = self.trainer.current_epoch, len(data.labels)
        of_seed = {seed: epoch_order(seed, epoch, count) for seed in set(self.seeds)}
        return torch.stack([of_seed[seed] for seed in self.seeds])
