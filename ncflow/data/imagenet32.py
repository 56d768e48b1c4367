"""ImageNet at 32 x 32 pixels, from the official pickled batches."""

import math
import pickle
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ncflow.checks import ArgumentError, error_line, require
from ncflow.data import safe_pickle
from ncflow.data.batches import Split
from ncflow.data.vision import ByteImages, keep_classes

TRAIN_FILES = tuple(f"train_data_batch_{number}" for number in range(1, 11))
TEST_FILE = "val_data"
_SHAPE = (3, 32, 32)
_PIXELS = math.prod(_SHAPE)


class ImageNet32(ByteImages):
    """1,281,167 training and 50,000 test images (3, 32, 32) of 1000 classes (Chrabaszcz, Loshchilov, Hutter, 2017).

    The folder holds ``train_data_batch_1`` .. ``train_data_batch_10`` and ``val_data``, each a pickled dictionary with
    ``data`` (N, 3072) in uint8, channels first and row by row, and ``labels``, N numbers 1..1000, which become 0..999;
    the training ones also with ``mean`` (3072,), the mean image of the training set, 0..255. The files come from
    image-net.org, after a login. Classes are chosen file by file: of all 1000 (3.9 GB) at most two copies are in
    memory, and one file's more.

    Args:
        subtract_mean: Whether the stored mean image m takes the place of ``mean``: (x - m) / 255 / std.
        classes, mean, std, num_samples, common: Options of :class:`~ncflow.data.vision.ByteImages`.
    """

    available = 1000

    def __init__(
        self,
        *,
        subtract_mean: bool = False,
        classes: int | list[int] = 1000,
        mean: float = 0.5,
        std: float = 0.5,
        num_samples: int | None = 100_000,
        **common: Any,
    ) -> None:
        super().__init__(classes=classes, mean=mean, std=std, num_samples=num_samples, **common)
        self.subtract_mean = subtract_mean
        self.mean_image: Tensor | None = None

    def load(self) -> tuple[Split, Split, int]:
        """Read file by file."""
        for name in (*TRAIN_FILES, TEST_FILE):
            self.require_file(name, "copy it there")
        parts = [self._read(name) for name in TRAIN_FILES]
        train = Split(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))
        return train, self._read(TEST_FILE), len(self.classes)

    def prepare(self, inputs: Tensor) -> Tensor:
        """Scale bytes, 0..255."""
        if self.mean_image is None:
            return super().prepare(inputs)
        self.mean_image = self.mean_image.to(inputs.device)
        return (inputs - self.mean_image) / 255 / self.std

    @property
    def _folder(self) -> str:
        return str(self.data_dir)

    def _read(self, name: str) -> Split:
        try:
            with (self.data_dir / name).open("rb") as file:
                content = safe_pickle.load(file)
        except (pickle.UnpicklingError, OSError) as error:
            rule = f"a folder whose {name} is a pickled dictionary of arrays ({error})"
            raise ArgumentError(f"data_dir must be {rule}, found {self._folder!r}") from error
        images, labels = self._images(content, name), self._labels(content, name)
        fit = len(images) == len(labels)
        require(fit, "data_dir", f"a folder whose {name} has a label for each image", f"{len(images)}, {len(labels)}")
        if self.subtract_mean and name == TRAIN_FILES[0]:
            self.mean_image = self._mean_image(content, name)
        return keep_classes(Split(images, labels), self.classes, self.available)

    def _images(self, content: dict[str, Any], name: str) -> Tensor:
        data = self._array(content, "data", name)
        fit = data.dtype == np.uint8 and data.ndim == 2 and data.shape[1] == _PIXELS
        rule = f"a folder whose {name} has 'data' (N, {_PIXELS}) in uint8"
        require(fit, "data_dir", rule, f"{data.shape} in {data.dtype}")
        return torch.from_numpy(data).reshape(-1, *_SHAPE)

    def _labels(self, content: dict[str, Any], name: str) -> Tensor:
        labels = self._array(content, "labels", name)
        fit = labels.ndim == 1 and len(labels) > 0 and np.issubdtype(labels.dtype, np.integer)
        rule = f"a folder whose {name} has 'labels' 1..{self.available}"
        require(fit, "data_dir", rule, f"{labels.dtype} of shape {labels.shape}")
        least, largest = labels.min(), labels.max()
        require(least >= 1 and largest <= self.available, "data_dir", rule, f"{least} .. {largest}")
        return torch.from_numpy(labels.astype(np.int64)) - 1

    def _mean_image(self, content: dict[str, Any], name: str) -> Tensor:
        mean = self._array(content, "mean", name)
        fit = mean.shape == (_PIXELS,) and np.issubdtype(mean.dtype, np.number) and bool(np.isfinite(mean).all())
        rule = f"a folder whose {name} has a finite 'mean' ({_PIXELS},), which subtract_mean needs"
        require(fit, "data_dir", rule, f"{mean.dtype} of shape {mean.shape}")
        return torch.from_numpy(mean.astype(np.float32)).reshape(_SHAPE)

    def _array(self, content: dict[str, Any], key: str, name: str) -> NDArray[Any]:
        require(key in content, "data_dir", f"a folder whose {name} has {key!r}", sorted(map(str, content))[:5])
        try:
            return np.asarray(content[key])
        except ValueError as error:  # a list of lists of different lengths
            rule = f"a folder whose {name} has {key!r} as one array ({error_line(error)})"
            raise ArgumentError(f"data_dir must be {rule}, found {self._folder!r}") from error
