"""MNIST, FashionMNIST, SVHN, CIFAR-10 and CIFAR-100 as torchvision fetches, checks and reads them."""

import math
import os
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from filelock import FileLock
from torch import Tensor
from torchvision import datasets
from torchvision.datasets import VisionDataset, cifar
from torchvision.datasets.utils import check_integrity

from ncflow.checks import ArgumentError, error_line, require
from ncflow.data import safe_pickle
from ncflow.data.batches import Split
from ncflow.data.vision import ByteImages, keep_classes


@contextmanager
def _safe_unpickling() -> Iterator[None]:
    """Let torchvision's CIFAR read with our unpickler instead of Python's.

    Its own would run what a file asks for as soon as the MD5 sum is the expected one, and MD5 is no protection.
    """
    plain = cifar.pickle
    cifar.pickle = SimpleNamespace(load=safe_pickle.load)
    try:
        yield
    finally:
        cifar.pickle = plain


class TorchvisionImages(ByteImages):
    """A data set of torchvision with its official test split. A subclass names the files, and knows a broken one.

    The data set has its own folder in ``data_dir``, torchvision's ``root``.

    Args:
        download: Whether to fetch files that are missing, and broken ones where torchvision knows their sums.
        common: Options of :class:`~ncflow.data.vision.ByteImages`.
    """

    official: ClassVar[type[Any]]
    source: ClassVar[str]
    shape: ClassVar[tuple[int, int, int]]

    def __init__(self, *, download: bool = False, **common: Any) -> None:
        super().__init__(**common)
        self.download = download

    @abstractmethod
    def files(self) -> list[str]:
        """All files of both splits, relative to ``data_dir``."""

    @abstractmethod
    def is_whole(self, file: str) -> bool:
        """Whether one of the :meth:`files` has the content, or at least the size, that it should have."""

    @abstractmethod
    def images(self, official: Any) -> Tensor:
        """Images (N, channels, height, width) in uint8 of torchvision's object."""

    def labels(self, official: Any) -> Tensor:
        """Labels (N,), int64, of torchvision's object."""
        return torch.as_tensor(official.targets)

    def split_options(self, train: bool) -> dict[str, Any]:
        """How torchvision's class is asked for the training or the test split."""
        return {"train": train}

    def load(self) -> tuple[Split, Split, int]:
        """Read both official splits, and fetch them first if that is needed and allowed."""
        try:
            train, test = self._read(train=True), self._read(train=False)
        except ArgumentError:
            if not self.download:
                raise
            self._fetch()
            train, test = self._read(train=True), self._read(train=False)
        return train, test, len(self.classes)

    def _read(self, train: bool) -> Split:
        for file in self.files():
            self.require_file(file, "data.download=true fetches it, or copy it there")
        try:
            with _safe_unpickling():
                official = self.official(self.data_dir, **self.split_options(train))
            everything = Split(self.images(official), self.labels(official))
        except Exception as error:  # for files that are not what they should be torchvision raises many kinds
            raise ArgumentError(f"data_dir must be {self._complaint(error)}, found {str(self.data_dir)!r}") from error
        self._check(everything, "training" if train else "test")
        return keep_classes(everything, self.classes, self.available)

    def _complaint(self, error: Exception) -> str:
        broken = [file for file in self.files() if not self.is_whole(file)]
        if broken:
            return f"a folder whose {broken[0]} is whole (delete it; data.download=true fetches it, or copy it anew)"
        return f"a folder whose files of {self.official.__name__} can be read ({error_line(error)})"

    def _check(self, split: Split, part: str) -> None:
        images, labels = split
        fit = images.shape[1:] == self.shape and images.dtype == torch.uint8 and labels.shape == images.shape[:1]
        rule = f"a folder whose {part} files of {self.official.__name__} have byte images {self.shape} and their labels"
        found = f"{images.dtype} of shape {tuple(images.shape)} and labels of shape {tuple(labels.shape)}"
        require(fit, "data_dir", rule, found)
        known = labels.dtype == torch.int64 and bool(((labels >= 0) & (labels < self.available)).all())
        rule = f"a folder whose {part} files of {self.official.__name__} have labels 0..{self.available - 1}"
        require(known, "data_dir", rule, f"{labels[:5].tolist()} ...")

    def _fetch(self) -> None:
        """Download one process after the other: the runs of a sweep may start at the same time."""
        try:
            self.data_dir.mkdir(parents=True, exist_ok=True)
            with FileLock(self.data_dir / ".download.lock"):
                self.download_files()
        except Exception as error:  # the net, its certificates, a half archive, a full disk
            reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
            raise ArgumentError(f"download of {self.source} to {self.data_dir} failed: {reason}") from error

    def download_files(self) -> None:
        """Download and unpack with torchvision; what is there and whole is left as it is."""
        self._unread().download()

    def _unread(self) -> Any:
        """Torchvision's object without its constructor, which would also read, and complain of, the files."""
        official = object.__new__(self.official)
        VisionDataset.__init__(official, self.data_dir)
        return official


class MNIST(TorchvisionImages):
    """Handwritten digits (1, 32, 32): the official 28 x 28 pixels and 2 black ones on each side.

    Options as of :class:`TorchvisionImages`.
    """

    official: ClassVar[type[Any]] = datasets.MNIST
    source = datasets.MNIST.mirrors[0]
    available = 10
    shape = (1, 32, 32)

    def files(self) -> list[str]:
        """Images and labels, unpacked."""
        return [f"{self.official.__name__}/raw/{Path(name).stem}" for name, _ in self.official.resources]

    def is_whole(self, file: str) -> bool:
        """Compare the size with the header: two zeros, 8 for bytes, the number of axes, the length of each."""
        axes = 3 if "images" in file else 1
        with (self.data_dir / file).open("rb") as content:
            header = content.read(4 + 4 * axes)
            size = content.seek(0, os.SEEK_END)
        lengths = [int.from_bytes(header[4 * axis : 4 * axis + 4]) for axis in range(1, axes + 1)]
        return header[:4] == bytes([0, 0, 8, axes]) and size == 4 + 4 * axes + math.prod(lengths)

    def images(self, official: Any) -> Tensor:
        """Padded."""
        return F.pad(official.data[:, None], (2, 2, 2, 2))


class FashionMNIST(MNIST):
    """Clothes in ten classes (1, 32, 32), in files like MNIST's: 28 x 28 pixels and 2 black ones on each side.

    Options as of :class:`TorchvisionImages`.
    """

    official = datasets.FashionMNIST
    source = datasets.FashionMNIST.mirrors[0]


class _Summed(TorchvisionImages):
    """A data set of whose files torchvision knows the MD5 sums."""

    @abstractmethod
    def sums(self) -> dict[str, str]:
        """The MD5 sum of each file."""

    def files(self) -> list[str]:
        """Those that have a sum."""
        return list(self.sums())

    def is_whole(self, file: str) -> bool:
        """Compare the MD5 sum."""
        return check_integrity(self.data_dir / file, self.sums()[file])


class SVHN(_Summed):
    """Photographs of house numbers (3, 32, 32), one digit each; the digit 0, in the files 10, is class 0.

    The 531,131 simpler images that are published beside both splits are left out.

    Options as of :class:`TorchvisionImages`.
    """

    official = datasets.SVHN
    source = datasets.SVHN.split_list["train"][0].rpartition("/")[0]
    available = 10
    shape = (3, 32, 32)

    def images(self, official: Any) -> Tensor:
        """In rows again: in the file the samples are the last axis."""
        return torch.from_numpy(np.ascontiguousarray(official.data))

    def labels(self, official: Any) -> Tensor:
        """Another name, and an axis for each sample alone in a file of one."""
        return torch.from_numpy(np.atleast_1d(official.labels))

    def split_options(self, train: bool) -> dict[str, Any]:
        """Its splits have names."""
        return {"split": "train" if train else "test"}

    def download_files(self) -> None:
        """One file after the other, as torchvision's object has one split."""
        for split in ("train", "test"):
            official = self._unread()
            official.split = split
            official.url, official.filename, official.file_md5 = official.split_list[split]
            official.download()

    def sums(self) -> dict[str, str]:
        """Of a MATLAB file for each split."""
        return {name: md5 for _, name, md5 in (self.official.split_list[split] for split in ("train", "test"))}


class CIFAR10(_Summed):
    """Ten classes of photographs (3, 32, 32).

    Options as of :class:`TorchvisionImages`.
    """

    official = datasets.CIFAR10
    source = datasets.CIFAR10.url
    available = 10
    shape = (3, 32, 32)

    def images(self, official: Any) -> Tensor:
        """Channels first, as in the files."""
        return torch.from_numpy(official.data).permute(0, 3, 1, 2).contiguous()

    def sums(self) -> dict[str, str]:
        """Of both splits' files and that of the classes' names."""
        names = self.official
        sums = [*names.train_list, *names.test_list, (names.meta["filename"], names.meta["md5"])]
        return {f"{names.base_folder}/{name}": md5 for name, md5 in sums}


class CIFAR100(CIFAR10):
    """A hundred classes of photographs (3, 32, 32), the fine labels.

    Options as of :class:`TorchvisionImages`.
    """

    official = datasets.CIFAR100
    source = datasets.CIFAR100.url
    available = 100
