"""Data and a model of one's own. In this folder: ncflow --config-dir my_conf experiment=rings."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ncflow.data.base import InMemoryData
from ncflow.data.batches import Split


class Rings(InMemoryData):
    """Points in the plane, a ring around the origin for each class.

    Args:
        num_rings: How many classes there are.
        noise: Standard deviation of the distance from the ring.
        common: What every data set takes: ``num_samples``, ``random_labels``, ``max_norm``.
    """

    def __init__(self, *, num_rings: int = 3, noise: float = 0.1, **common: Any) -> None:
        super().__init__(**common)
        self.num_rings, self.noise = num_rings, noise

    def load(self) -> tuple[Split, Split, int]:
        """The whole training split, the test split and the number of classes."""
        rng = np.random.default_rng(self.seed)
        return self._draw(600, rng), self._draw(200, rng), self.num_rings

    def _draw(self, count: int, rng: np.random.Generator) -> Split:
        labels = np.arange(count) % self.num_rings
        radius, angle = labels + 1 + self.noise * rng.normal(size=count), rng.uniform(0, 2 * np.pi, count)
        points = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
        return Split(torch.tensor(points, dtype=torch.float32), torch.tensor(labels))


class Residual(nn.Module):
    """A residual network; its last linear layer is what ncflow takes for the classifier.

    Args:
        input_shape: Of one input; ncflow gives it, and ``num_classes``.
        num_classes: How many logits there are.
        width: Of each block.
        depth: How many blocks there are.
    """

    def __init__(self, input_shape: tuple[int, ...], num_classes: int, *, width: int = 64, depth: int = 2) -> None:
        super().__init__()
        self.first = nn.Linear(input_shape[0], width)
        self.blocks = nn.ModuleList(nn.Sequential(nn.BatchNorm1d(width), nn.Linear(width, width)) for _ in range(depth))
        self.classifier = nn.Linear(width, num_classes)

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits (B, C) of inputs (B, 2)."""
        hidden = self.first(inputs)
        for block in self.blocks:
            hidden = hidden + torch.relu(block(hidden))
        return self.classifier(hidden)
