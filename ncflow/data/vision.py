"""Images."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor

from ncflow.checks import require
from ncflow.data.base import InMemoryData
from ncflow.data.batches import Split
from ncflow.data.labels import choose_classes
from ncflow.data.memory import free_memory, in_words
from ncflow.data.splits import stratified


def keep_classes(split: Split, classes: Sequence[int], available: int) -> Split:
    """The samples of some classes, in their order; the j-th of ``classes`` becomes label j.

    Args:
        split: Labels in 0..available-1.
        classes: Different labels, as :func:`ncflow.data.labels.choose_classes` gives them.
        available: Number of classes in the split.
    """
    renamed = torch.full((available,), -1)
    renamed[list(classes)] = torch.arange(len(classes))
    labels = renamed[split.labels]
    return Split(split.inputs, labels).take((labels >= 0).nonzero().flatten())


class ByteImages(InMemoryData):
    """Images (N, channels, height, width) that stay bytes in memory; a batch gets (x / 255 - mean) / std of each pixel.

    Args:
        data_dir: Folder of the files.
        classes: A number k (the first k classes) or a list of labels; labels become 0..C-1 in that order.
        mean: Subtracted after scaling to 0..1; one number for all pixels.
        std: Divisor after that, > 0.
        common: Options of :class:`~ncflow.data.base.InMemoryData`.

    Attributes:
        available: Number of classes in the files.
    """

    available: ClassVar[int]

    def __init__(self, *, data_dir: str, classes: int | list[int], mean: float, std: float, **common: Any) -> None:
        super().__init__(**common)
        require(math.isfinite(mean), "mean", "a finite number", mean)
        require(0 < std < math.inf, "std", "a finite number above 0", std)
        self.data_dir = Path(data_dir).expanduser()
        self.classes = choose_classes(classes, self.available)
        self.mean, self.std = mean, std

    def require_file(self, name: str, how: str) -> None:
        """Refuse a folder without a file, or with one that memory could not hold; to be asked before it is read.

        Args:
            name: Of the file, relative to ``data_dir``.
            how: How to get it.
        """
        file = self.data_dir / name
        require(file.is_file(), "data_dir", f"a folder with {name} ({how})", str(self.data_dir))
        size, free = file.stat().st_size, free_memory()
        rule = f"a folder whose {name} fits into memory, of which {in_words(free)} are free (it has {in_words(size)})"
        require(size <= free, "data_dir", rule, str(self.data_dir))

    def prepare(self, inputs: Tensor) -> Tensor:
        """Scale bytes, 0..255."""
        return (inputs.float() / 255 - self.mean) / self.std


class Digits(InMemoryData):
    """scikit-learn's bundled 1797 images of handwritten digits, (1, 8, 8) or (1, 32, 32), scaled to 0..1.

    Args:
        classes: A number k (digits 0..k-1) or a list of digits; labels become 0..C-1 in that order.
        size: 8, or 32 by bilinear upsampling.
        test_fraction: Share held out for testing, stratified and drawn with the seed.
        common: Options of :class:`~ncflow.data.base.InMemoryData`.
    """

    def __init__(
        self,
        *,
        classes: int | list[int] = 10,
        size: Literal[8, 32] = 8,
        test_fraction: float = 0.2,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        self.classes = choose_classes(classes, available=10)
        self.size, self.test_fraction = size, test_fraction

    def load(self) -> tuple[Split, Split, int]:
        """Read, select, scale and split the images."""
        bundle = load_digits()
        images = torch.from_numpy(bundle.images).float()[:, None] / 16
        chosen = keep_classes(Split(images, torch.from_numpy(bundle.target)), self.classes, available=10)
        if self.size != images.shape[-1]:
            upsampled = F.interpolate(chosen.inputs, size=(self.size, self.size), mode="bilinear")
            chosen = chosen._replace(inputs=upsampled)
        train, test = stratified(chosen.labels.numpy(), self.test_fraction, self.seed)
        return chosen.take(torch.tensor(train)), chosen.take(torch.tensor(test, dtype=torch.long)), len(self.classes)
