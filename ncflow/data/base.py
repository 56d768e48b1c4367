"""The LightningDataModule that every data set extends, and its loader."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from lightning import LightningDataModule
from torch import Tensor, nn

from ncflow.checks import require
from ncflow.data.labels import randomize_labels
from ncflow.seeding import epoch_order, generator

log = logging.getLogger(__name__)


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


class Batches:
    """Minibatches of an in-memory split, cut by index where the split lies: no per-sample work, no workers.

    Args:
        split: The samples.
        batch_size: Samples a batch, None for one batch of all.
        order: Called at the start of each pass, returns the order of the samples, (N,); None keeps theirs.
        device: Where each batch is moved to; None leaves it where the split is.
        prepare: From the inputs of a batch, on that device, to the network's; None leaves them as they are.
    """

    def __init__(
        self,
        split: Split,
        batch_size: int | None,
        order: Callable[[], Tensor] | None = None,
        *,
        device: torch.device | None = None,
        prepare: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.split = split
        self.batch_size = batch_size
        self.order = order
        self.device = split.labels.device if device is None else device
        self.prepare = prepare
        self._bounds = batch_bounds(len(split.labels), batch_size)

    def __len__(self) -> int:
        return len(self._bounds)

    def __iter__(self) -> Iterator[Split]:
        order = None if self.order is None else self.order().to(self.split.labels.device)
        for start, stop in self._bounds:
            if order is None:
                batch = Split(self.split.inputs[start:stop], self.split.labels[start:stop])
            else:
                batch = self.split.take(order[start:stop])
            batch = batch.send(self.device)
            yield batch if self.prepare is None else batch._replace(inputs=self.prepare(batch.inputs))


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
    """This rank's samples of 0..count-1: every world-size-th one, all where there is one process, none twice."""
    if not torch.distributed.is_initialized():
        return range(count)
    return range(torch.distributed.get_rank(), count, torch.distributed.get_world_size())


def fits(num_bytes: int, device: torch.device) -> bool:
    """Whether data may lie on the training device for the whole run.

    A GPU keeps half of its free memory for the model, the activations and the features that are measured. Any other
    device shares the memory in which the data lies already.
    """
    return device.type != "cuda" or num_bytes <= torch.cuda.mem_get_info(device)[0] // 2


class InMemoryData(LightningDataModule, ABC):
    """A data set that fits in memory. A subclass implements :meth:`load`, and :meth:`prepare` if it decodes.

    Args:
        batch_size: Training samples a batch, None for all at once.
        num_samples: Training samples to keep, drawn with the seed; None keeps all.
        random_labels: Share of the training labels drawn anew, 0..1; fixed for the run.
        seed: The run's seed.

    Attributes:
        num_classes: C, known after :meth:`setup`.
        input_shape: Shape of one input, known after :meth:`setup`.
        train: The training split as it lies in memory, before :meth:`prepare`; None before :meth:`setup`.
        test: The test split likewise.
    """

    def __init__(
        self,
        *,
        batch_size: int | None = 128,
        num_samples: int | None = None,
        random_labels: float = 0.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        require(batch_size is None or batch_size >= 1, "batch_size", "null or at least 1", batch_size)
        require(num_samples is None or num_samples >= 2, "num_samples", "null or at least 2", num_samples)
        require(0 <= random_labels <= 1, "random_labels", "in 0..1", random_labels)
        self.batch_size, self.num_samples = batch_size, num_samples
        self.random_labels, self.seed = random_labels, seed
        self.num_classes = 0
        self.input_shape: tuple[int, ...] = ()
        self.train: Split | None = None
        self.test: Split | None = None
        self._placed_for: torch.device | None = None

    @abstractmethod
    def load(self) -> tuple[Split, Split, int]:
        """Return the whole training split, the test split and the number of classes C, on the CPU."""

    def prepare(self, inputs: Tensor) -> Tensor:
        """Turn inputs (B, ...) as they lie in memory into the network's, float32 of the same shape; by default, those.

        It is called with each batch, on the training device.
        """
        return inputs

    def setup(self, stage: str | None = None) -> None:
        """Load once, keep ``num_samples`` training samples, corrupt labels, and report the balance of the classes."""
        if self.train is not None:
            return
        train, self.test, self.num_classes = self.load()
        if self.num_samples is not None:
            available = len(train.labels)
            rule = f"at most {available}, the size of the training split"
            require(self.num_samples <= available, "num_samples", rule, self.num_samples)
            chosen = torch.randperm(available, generator=generator(self.seed, "subset"))[: self.num_samples]
            train = train.take(chosen.sort().values)
        if self.random_labels > 0:
            labels = randomize_labels(train.labels, self.random_labels, self.num_classes, self.seed)
            train = train._replace(labels=labels)
        self.train, self.input_shape = train, tuple(train.inputs.shape[1:])
        self._report()

    def _report(self) -> None:
        assert self.train is not None
        assert self.test is not None
        counts = torch.bincount(self.train.labels, minlength=self.num_classes)
        shares = " ".join(f"{share:.3f}" for share in (counts / counts.sum()).tolist()[:20])
        sizes = f"{len(self.train.labels)} train, {len(self.test.labels)} test, {self.num_classes} classes"
        log.debug("%s: %s; shares of the classes in training: %s", type(self).__name__, sizes, shares)
        absent = (counts == 0).nonzero().flatten().tolist()
        if absent:
            log.warning("%s: no training sample of class %s", type(self).__name__, ", ".join(map(str, absent[:20])))

    def check_network(self, network: nn.Module) -> None:
        """Refuse a network that does not suit the data; by default all do."""

    def _place(self) -> torch.device:
        """Put both splits onto the training device if they fit there; return that device."""
        assert self.train is not None
        assert self.test is not None
        device = torch.device("cpu") if self.trainer is None else self.trainer.strategy.root_device
        if device != self._placed_for:
            home = device if fits(self.train.num_bytes + self.test.num_bytes, device) else torch.device("cpu")
            self.train, self.test = self.train.to(home), self.test.to(home)
            self._placed_for = device
        return device

    def train_dataloader(self) -> Batches:
        """Shuffled minibatches; the order depends on the seed and the epoch alone."""
        device = self._place()
        assert self.train is not None
        count = len(self.train.labels)
        trainer = self.trainer
        return Batches(
            self.train,
            self.batch_size,
            order=lambda: epoch_order(self.seed, 0 if trainer is None else trainer.current_epoch, count),
            device=device,
            prepare=self.prepare,
        )

    def measure_dataloaders(self, batch_size: int = 1000) -> dict[str, Batches]:
        """Each split in a fixed order, every sample once over all ranks, for measurement."""
        device = self._place()
        assert self.train is not None
        assert self.test is not None
        splits = {"train": self.train, "test": self.test}
        own = {name: split.shard() for name, split in splits.items() if len(split.labels)}
        return {name: Batches(split, batch_size, device=device, prepare=self.prepare) for name, split in own.items()}
