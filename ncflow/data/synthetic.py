"""Synthetic data: standard normal points with labels of known complexity (Pan, Cao, section 3.1)."""

import itertools
import math
from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from ncflow.checks import require
from ncflow.data.base import InMemoryData
from ncflow.data.batches import Split
from ncflow.data.memory import free_memory, in_words
from ncflow.seeding import generator


def _require_memory(numbers: int, argument: str, value: int) -> None:
    """Refuse what does not fit into memory before it is drawn: of a size, and copies of it, 4 bytes a number."""
    free = free_memory()
    rule = f"small enough for memory, of which {in_words(free)} are free ({in_words(4 * numbers)} are needed)"
    require(4 * numbers <= free, argument, rule, value)


class _NormalPoints(InMemoryData):
    """Points from N(0, I_d): the first ``num_samples`` train, the next ``num_test`` test. A subclass labels them."""

    def __init__(  # no ``**common``: the points take no ``max_norm``
        self,
        *,
        num_classes: int = 4,
        dim: int = 16,
        num_samples: int = 8000,
        num_test: int = 2000,
        random_labels: float = 0.0,
        batch_size: int | None = 128,
        seed: int = 0,
    ) -> None:
        require(num_classes >= 2, "num_classes", "at least 2", num_classes)
        require(dim >= 1, "dim", "at least 1", dim)
        require(num_test >= 0, "num_test", "at least 0", num_test)
        super().__init__(batch_size=batch_size, num_samples=num_samples, random_labels=random_labels, seed=seed)
        require(num_classes <= num_samples, "num_classes", f"at most num_samples, {num_samples}", num_classes)
        self.num_classes, self.dim, self.num_test = num_classes, dim, num_test

    @abstractmethod
    def label(self, points: Tensor) -> Tensor:
        """Labels (N,) of points (N, d)."""

    def load(self) -> tuple[Split, Split, int]:
        assert self.num_samples is not None
        total = self.num_samples + self.num_test
        argument, value = max(("num_samples", self.num_samples), ("num_test", self.num_test), key=lambda item: item[1])
        argument, value = (argument, value) if value >= self.dim else ("dim", self.dim)
        _require_memory(total * (2 * self.dim + 8), argument, value)
        points = torch.randn(total, self.dim, generator=generator(self.seed, "data"))
        everything = Split(points, self.label(points))
        cut = torch.arange(total).split([self.num_samples, self.num_test])
        return everything.take(cut[0]), everything.take(cut[1]), self.num_classes


class ConicHull(_NormalPoints):
    """The sign pattern at k = ceil(log2 C) random hyperplanes through the origin is the class.

    Bit j of the pattern is 1 where normal_j . x > 0. When C is no power of 2, a pattern p >= C is merged with its
    neighbour p - 2^(k-1) across the last hyperplane, so that every class stays a convex cone and every pair of
    classes linearly separable. A class may be rare (thin cones) or, where d < k, absent; the balance is logged.

    Args:
        num_classes: C >= 2.
        dim: d >= 1.
        num_samples: Training points.
        num_test: Test points.
        random_labels: Share of the training labels drawn anew, 0..1.
        batch_size: Training samples a batch, None for all.
        seed: The run's seed.
    """

    def normals(self) -> Tensor:
        """Normals of the hyperplanes, (k, d)."""
        planes = math.ceil(math.log2(self.num_classes))
        return torch.randn(planes, self.dim, generator=generator(self.seed, "labeller"))

    def label(self, points: Tensor) -> Tensor:
        """Sign patterns as numbers, those beyond C - 1 merged."""
        normals = self.normals()
        bits = (points @ normals.T > 0).long()
        weights = 2 ** torch.arange(len(normals))
        pattern = (bits * weights).sum(1)
        return torch.where(pattern >= self.num_classes, pattern - 2 ** (len(normals) - 1), pattern)


class TeacherMLP(_NormalPoints):
    """Labels are the argmax of a random ReLU MLP without biases that is smaller than the model.

    Its weights are uniform on +-1/sqrt(fan_in), PyTorch's default for a linear layer.

    Args:
        teacher_depth: Weight matrices of the teacher, >= 2; fewer than the model has.
        teacher_width: Hidden width of the teacher; it must have fewer parameters than the model.
        common: Options of :class:`ConicHull`.
    """

    def __init__(self, *, teacher_depth: int = 3, teacher_width: int = 200, **common: Any) -> None:
        require(teacher_depth >= 2, "teacher_depth", "at least 2", teacher_depth)
        require(teacher_depth <= 10_000, "teacher_depth", "at most 10000", teacher_depth)
        require(teacher_width >= 1, "teacher_width", "at least 1", teacher_width)
        super().__init__(**common)
        self.widths = [self.dim, *[teacher_width] * (teacher_depth - 1), self.num_classes]

    def weights(self) -> list[Tensor]:
        """The teacher's weight matrices, each (fan_out, fan_in)."""
        rng = generator(self.seed, "labeller")
        shapes = zip(self.widths[1:], self.widths[:-1], strict=True)
        return [(torch.rand(out, fan, generator=rng) * 2 - 1) / math.sqrt(fan) for out, fan in shapes]

    def label(self, points: Tensor) -> Tensor:
        """Argmax of the teacher; refuses a teacher that leaves a class without training sample."""
        of_weights = sum(out * fan for out, fan in itertools.pairwise(self.widths))
        _require_memory(2 * of_weights + 2 * len(points) * max(self.widths), "teacher_width", self.widths[1])
        hidden = points
        *inner, last = self.weights()
        for weight in inner:
            hidden = (hidden @ weight.T).relu()
        labels = (hidden @ last.T).argmax(1)
        counts = torch.bincount(labels[: self.num_samples], minlength=self.num_classes).tolist()
        rule = "a seed whose teacher gives every class a training sample"
        require(min(counts) > 0, "seed", f"{rule} (samples of each class here: {counts})", self.seed)
        return labels

    def check_network(self, network: nn.Module) -> None:
        """Refuse a model that is not larger than the teacher, in matrices and in parameters."""
        depth = sum(isinstance(module, nn.Linear | nn.Conv2d) for module in network.modules())
        rule = f"less than the number of weight matrices of the model, {depth}"
        require(len(self.widths) - 1 < depth, "teacher_depth", rule, len(self.widths) - 1)
        own = sum(weight.numel() for weight in self.weights())
        model = sum(parameter.numel() for parameter in network.parameters())
        rule = f"small enough for fewer parameters than the model's {model}"
        require(own < model, "teacher_width", rule, f"{self.widths[1]}, that is {own} parameters")


class SampleIndex(InMemoryData):
    """No inputs but the samples' numbers 0..N-1, (N, 1) in int64, with balanced labels i mod C; there is no test split.

    Args:
        num_classes: C >= 2.
        num_samples: N, a multiple of C.
        random_labels: Share of the training labels drawn anew, 0..1.
        batch_size: Training samples a batch, None for all.
        seed: The run's seed.
    """

    def __init__(  # no ``**common``: the numbers take no ``max_norm``
        self,
        *,
        num_classes: int = 4,
        num_samples: int = 40,
        random_labels: float = 0.0,
        batch_size: int | None = None,
        seed: int = 0,
    ) -> None:
        require(num_classes >= 2, "num_classes", "at least 2", num_classes)
        rule = f"a positive multiple of num_classes, {num_classes}"
        require(num_samples >= 1 and num_samples % num_classes == 0, "num_samples", rule, num_samples)
        super().__init__(batch_size=batch_size, num_samples=num_samples, random_labels=random_labels, seed=seed)
        self.num_classes = num_classes

    def load(self) -> tuple[Split, Split, int]:
        """Numbers as inputs."""
        assert self.num_samples is not None
        _require_memory(8 * self.num_samples, "num_samples", self.num_samples)
        numbers = torch.arange(self.num_samples)
        train = Split(numbers[:, None], numbers % self.num_classes)  # whole numbers: no precision may round them
        return train, train.take(numbers[:0]), self.num_classes

    def check_network(self, network: nn.Module) -> None:
        """Refuse a network that would take a sample's number for its content."""
        rule = "that of a data set with inputs unless model=unconstrained (sample_index has the samples' numbers alone)"
        require(hasattr(network, "peeled_features"), "name", rule, type(network).__name__)
