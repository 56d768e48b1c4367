"""Small files in the real formats of MNIST, SVHN, CIFAR and ImageNet32; each writer returns what it wrote, by split."""

import hashlib
import pickle
import struct

import numpy as np
from scipy.io import savemat

from ncflow.data import torchvision_sets
from ncflow.data.imagenet32 import TEST_FILE, TRAIN_FILES


def draw(seed, count, classes, shape):
    """Images, and labels with every class: 0, 1, .. shuffled."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, *shape), dtype=np.uint8), rng.permutation(np.arange(count) % classes)


def idx(array):
    header = bytes([0, 0, 8, array.ndim]) + b"".join(struct.pack(">I", length) for length in array.shape)
    return header + array.astype(np.uint8).tobytes()


def write_mnist(root, name="MNIST"):
    splits = {"train": draw(0, 60, 10, (28, 28)), "test": draw(1, 20, 10, (28, 28))}
    folder = root / name / "raw"
    folder.mkdir(parents=True)
    for part, (images, labels) in zip(("train", "t10k"), splits.values(), strict=True):
        (folder / f"{part}-images-idx3-ubyte").write_bytes(idx(images))
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(idx(labels))
    return {name: (images[:, None], labels) for name, (images, labels) in splits.items()}


def write_svhn(root, monkeypatch):
    """Files of SVHN, samples last and the digit 0 as 10, whose sums the official class then expects."""
    root.mkdir(parents=True, exist_ok=True)
    splits = {"train": draw(6, 60, 10, (3, 32, 32)), "test": draw(7, 20, 10, (3, 32, 32))}
    for name, (images, labels) in splits.items():
        content = {"X": images.transpose(2, 3, 1, 0), "y": np.where(labels == 0, 10, labels).astype(np.uint8)[:, None]}
        savemat(root / f"{name}_32x32.mat", content, do_compression=True)
    expect_svhn_sums(root, monkeypatch)
    return splits


def expect_svhn_sums(root, monkeypatch):
    """Replace the MD5 sums that torchvision's class expects by those of the files."""
    official = torchvision_sets.SVHN.official
    known = {
        split: [url, name, hashlib.md5((root / name).read_bytes()).hexdigest()]
        for split, (url, name, _) in official.split_list.items()
        if split != "extra"
    }
    monkeypatch.setattr(official, "split_list", {**official.split_list, **known})


def cifar_entry(images, labels, key):
    return {"data": images.reshape(len(images), -1), key: labels.tolist(), "filenames": ["x.png"] * len(images)}


def write_cifar(root, monkeypatch, classes=10):
    """Files of CIFAR-10 or CIFAR-100, whose sums the official class then expects."""
    official = {10: torchvision_sets.CIFAR10, 100: torchvision_sets.CIFAR100}[classes].official
    key = {10: "labels", 100: "fine_labels"}[classes]
    folder = root / official.base_folder
    folder.mkdir(parents=True)
    splits = {"train": draw(2, 2 * classes + 40, classes, (3, 32, 32)), "test": draw(3, classes, classes, (3, 32, 32))}
    for (images, labels), names in zip(splits.values(), (official.train_list, official.test_list), strict=True):
        for part, (name, _) in zip(np.array_split(np.arange(len(labels)), len(names)), names, strict=True):
            entry = cifar_entry(images[part], labels[part], key)
            (folder / name).write_bytes(pickle.dumps(entry, protocol=2))
    (folder / official.meta["filename"]).write_bytes(pickle.dumps({official.meta["key"]: ["a"] * classes}))
    expect_sums(root, monkeypatch, official)
    return splits


def expect_sums(root, monkeypatch, official):
    """Replace the MD5 sums that torchvision's class expects by those of the files."""

    def md5(name):
        return hashlib.md5((root / official.base_folder / name).read_bytes()).hexdigest()

    for names in ("train_list", "test_list"):
        monkeypatch.setattr(official, names, [[name, md5(name)] for name, _ in getattr(official, names)])
    monkeypatch.setattr(official, "meta", {**official.meta, "md5": md5(official.meta["filename"])})


def write_imagenet32(root, dump=pickle.dumps, count=1000):
    """Ten batches, together two images of each class where ``count`` is 1000, and one of each for the test."""
    root.mkdir(parents=True, exist_ok=True)
    images, labels = draw(4, 2 * count, 1000, (3, 32, 32))
    mean = images.reshape(len(images), -1).mean(0)
    for name, part in zip(TRAIN_FILES, np.array_split(np.arange(len(labels)), 10), strict=True):
        entry = {"data": images[part].reshape(len(part), -1), "labels": (labels[part] + 1).tolist(), "mean": mean}
        (root / name).write_bytes(dump(entry))
    test = draw(5, count, 1000, (3, 32, 32))
    (root / TEST_FILE).write_bytes(dump({"data": test[0].reshape(count, -1), "labels": (test[1] + 1).tolist()}))
    return {"train": (images, labels), "test": test, "mean": mean.reshape(3, 32, 32)}


def python2(entry):
    """A dictionary of arrays and lists of numbers as Python 2 pickles it: text and bytes are one kind."""

    def text(raw):
        return b"T" + struct.pack("<i", len(raw)) + raw

    def number(value):
        return b"J" + struct.pack("<i", value)

    def value(content):
        if isinstance(content, list):
            return b"](" + b"".join(map(number, content)) + b"e"
        order, code = content.dtype.str[:1].encode(), content.dtype.str[1:].encode()
        made = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85" + text(b"b") + b"tR"
        dtype = b"cnumpy\ndtype\n(" + text(code) + b"K\x00K\x01tR(K\x03" + text(order) + b"NNN"
        dtype += number(-1) + number(-1) + b"K\x00tb"
        shape = b"(" + b"".join(map(number, content.shape)) + b"t"
        return made + b"(K\x01" + shape + dtype + b"\x89" + text(content.tobytes()) + b"tb"

    return b"\x80\x02}(" + b"".join(text(key.encode()) + value(item) for key, item in entry.items()) + b"u."
