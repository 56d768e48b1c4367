"""The LightningDataModule that every data set extends."""

import logging
import math
from abc import ABC, abstractmethod

import torch
from lightning import LightningDataModule
from torch import Tensor, nn

from ncflow.checks import require
from ncflow.data.batches import Batches, Split
from ncflow.data.labels import randomize_labels
from ncflow.seeding import epoch_order, generator

log = logging.getLogger(__name__)

_ROWS = 1024  # at a time: decoded, byte images take four times their memory


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
        max_norm: Euclidean norm > 0 of the largest training input as the network gets it, all inputs of both splits
            being multiplied by one factor; None: they are not. The factor is of the training split alone, so that
            training knows nothing of the test split: a test input may be longer (of the digits, by 0.4 % at most).
        seed: The run's seed.

    Attributes:
        num_classes: C, known after :meth:`setup`.
        input_shape: Shape of one input, known after :meth:`setup`.
        train: The training split as it lies in memory, before :meth:`prepare`; None before :meth:`setup`.
        test: The test split likewise.
        scale: What every input is multiplied by, known after :meth:`setup`; 1 without ``max_norm``.
        ood: Samples of another data set, to be measured beside; they lie in memory as the training split does, and are
            prepared and scaled as it is. None without any.
    """

    def __init__(
        self,
        *,
        batch_size: int | None = 128,
        num_samples: int | None = None,
        random_labels: float = 0.0,
        max_norm: float | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        require(batch_size is None or batch_size >= 1, "batch_size", "null or at least 1", batch_size)
        require(num_samples is None or num_samples >= 2, "num_samples", "null or at least 2", num_samples)
        require(0 <= random_labels <= 1, "random_labels", "in 0..1", random_labels)
        require(max_norm is None or 0 < max_norm < math.inf, "max_norm", "null or a number greater than 0", max_norm)
        self.batch_size, self.num_samples = batch_size, num_samples
        self.random_labels, self.max_norm, self.seed = random_labels, max_norm, seed
        self.num_classes = 0
        self.input_shape: tuple[int, ...] = ()
        self.train: Split | None = None
        self.test: Split | None = None
        self.scale = 1.0
        self.ood: Split | None = None
        self._placed_for: torch.device | None = None

    @abstractmethod
    def load(self) -> tuple[Split, Split, int]:
        """Return the whole training split, the test split and the number of classes C, on the CPU."""

    def prepare(self, inputs: Tensor) -> Tensor:
        """Turn inputs (B, ...) as they lie in memory into the network's, float32 of the same shape; by default, those.

        It is called with each batch, on the training device.
        """
        return inputs

    def network_inputs(self, inputs: Tensor) -> Tensor:
        """Inputs (B, ...) as they lie in memory, prepared and scaled: what the network gets."""
        prepared = self.prepare(inputs)
        return prepared if self.max_norm is None else prepared * self.scale

    def setup(self, stage: str | None = None) -> None:
        """Load once, keep ``num_samples``, corrupt labels, find the scale, and report the balance of the classes."""
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
        if self.max_norm is not None:
            self.scale = self.max_norm / self._largest_norm()
        self._report()

    def _largest_norm(self) -> float:
        assert self.train is not None
        chunks = (self.prepare(chunk).flatten(1).double() for chunk in self.train.inputs.split(_ROWS))
        largest = max(float(torch.linalg.vector_norm(chunk, dim=1).max()) for chunk in chunks)
        require(largest > 0, "max_norm", "null where every training input is 0", self.max_norm)
        return largest

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
        """Shuffled minibatches, under distributed training this rank's share; seed and epoch alone decide the order."""
        device = self._place()
        assert self.train is not None
        count = len(self.train.labels)
        trainer = self.trainer
        return Batches(
            self.train,
            self.batch_size,
            order=lambda: epoch_order(self.seed, 0 if trainer is None else trainer.current_epoch, count),
            device=device,
            prepare=self.network_inputs,
            shared=torch.distributed.is_initialized(),
        )

    def measure_dataloaders(self, batch_size: int = 1000) -> dict[str, Batches]:
        """Each split in a fixed order, every sample once over all ranks, for measurement."""
        device = self._place()
        assert self.train is not None
        assert self.test is not None
        splits = {"train": self.train, "test": self.test}
        own = {name: split.shard() for name, split in splits.items() if len(split.labels)}
        return {
            name: Batches(split, batch_size, device=device, prepare=self.network_inputs) for name, split in own.items()
        }

    def ood_dataloader(self, batch_size: int = 1000) -> Batches | None:
        """The samples of the other data set in a fixed order, each once over all ranks; None without any."""
        if self.ood is None:
            return None
        return Batches(self.ood.shard(), batch_size, device=self._place(), prepare=self.network_inputs)
