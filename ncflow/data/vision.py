"""Images."""

from typing import Literal

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits

from ncflow.data.base import InMemoryData, Split
from ncflow.data.labels import choose_classes
from ncflow.data.splits import stratified


class Digits(InMemoryData):
    """scikit-learn's bundled 1797 images of handwritten digits, (1, 8, 8) or (1, 32, 32), scaled to 0..1.

    Args:
        classes: A number k (digits 0..k-1) or a list of digits; labels become 0..C-1 in that order.
        size: 8, or 32 by bilinear upsampling.
        test_fraction: Share held out for testing, stratified and drawn with the seed.
        num_samples: Training samples to keep, None for all.
        random_labels: Share of the training labels drawn anew, 0..1.
        batch_size: Training samples a batch, None for all.
        seed: The run's seed.
    """

    def __init__(
        self,
        *,
        classes: int | list[int] = 10,
        size: Literal[8, 32] = 8,
        test_fraction: float = 0.2,
        num_samples: int | None = None,
        random_labels: float = 0.0,
        batch_size: int | None = 128,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size=batch_size, num_samples=num_samples, random_labels=random_labels, seed=seed)
        self.classes = choose_classes(classes, available=10)
        self.size, self.test_fraction = size, test_fraction

    def load(self) -> tuple[Split, Split, int]:
        """Read, select, scale and split the images."""
        bundle = load_digits()
        labels = torch.full((len(bundle.target),), -1)
        for new, old in enumerate(self.classes):
            labels[torch.from_numpy(bundle.target) == old] = new
        images = torch.from_numpy(bundle.images).float()[:, None] / 16
        chosen = Split(images, labels).take((labels >= 0).nonzero().flatten())
        if self.size != images.shape[-1]:
            upsampled = F.interpolate(chosen.inputs, size=(self.size, self.size), mode="bilinear")
            chosen = chosen._replace(inputs=upsampled)
        train, test = stratified(chosen.labels.numpy(), self.test_fraction, self.seed)
        return chosen.take(torch.tensor(train)), chosen.take(torch.tensor(test, dtype=torch.long)), len(self.classes)
