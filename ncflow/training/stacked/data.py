"""Minibatches of all cells at once: each cell sees its own samples in the order in which it would see them alone."""

from collections.abc import Callable, Iterator, Sequence

import torch
from lightning import LightningDataModule
from torch import Tensor

from ncflow.data.base import InMemoryData
from ncflow.data.batches import Batches, Split, batch_bounds
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
        cells: Each cell's data module, set up; the same object if they are the same.
        seeds: Each cell's seed.
        batch_size: Samples of each cell a batch, None for all.
    """

    def __init__(self, cells: Sequence[InMemoryData], seeds: Sequence[int], batch_size: int | None) -> None:
        super().__init__()
        self.cells, self.seeds, self.batch_size = cells, seeds, batch_size
        self._known: dict[str, tuple[Tensor, Tensor, Tensor]] = {}

    def train_dataloader(self) -> StackedBatches:
        """Minibatches, each cell's in its own order."""
        inputs, labels, sources = self._stacked("train")
        return StackedBatches(inputs, labels, sources, self.batch_size, self._orders)

    def measure_batches(self, split: str, batch_size: int) -> Iterator[Split]:
        """Every sample of a split once, in a fixed order; their splits must be of the same size.

        Args:
            split: ``train`` or ``test``.
            batch_size: Samples of each cell a batch.
        """
        inputs, labels, sources = self._stacked(split)
        for start, stop in batch_bounds(labels.shape[1], batch_size):
            yield Split(inputs[sources, start:stop], labels[sources, start:stop])

    def same_size(self, split: str) -> bool:
        """Whether all cells have as many samples in a split, at least one."""
        sizes = {len(getattr(data, split).labels) for data in self.cells}
        return len(sizes) == 1 and sizes != {0}

    def _stacked(self, split: str) -> tuple[Tensor, Tensor, Tensor]:
        """Distinct inputs as the network gets them (U, N, ...), labels (U, N), and each cell's place in them (K,)."""
        if split not in self._known:
            assert self.trainer is not None
            device = self.trainer.strategy.root_device
            distinct = list({id(data): data for data in self.cells}.values())
            splits = [getattr(data, split) for data in distinct]
            # Decoded once, as every epoch would repeat it.
            inputs = [data.network_inputs(own.inputs) for data, own in zip(distinct, splits, strict=True)]
            places = {id(data): place for place, data in enumerate(distinct)}
            self._known[split] = (
                torch.stack(inputs).to(device),
                torch.stack([own.labels for own in splits]).to(device),
                torch.tensor([places[id(data)] for data in self.cells], device=device),
            )
        return self._known[split]

    def _orders(self) -> Tensor:
        assert self.trainer is not None
        data = self.cells[0].train
        assert data is not None
        epoch, count = self.trainer.current_epoch, len(data.labels)
        of_seed = {seed: epoch_order(seed, epoch, count) for seed in set(self.seeds)}
        return torch.stack([of_seed[seed] for seed in self.seeds])
