"""Somebody's data from a file, a folder or a function: batches by split, each sample once and as it is."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Subset

from ncflow.checks import ArgumentError, error_line, require
from ncflow.data.arrays import Arrays
from ncflow.data.batches import Batches
from ncflow.data.splits import few_of_each
from ncflow.measuring.foreign.libraries import installed
from ncflow.measuring.foreign.named import called, code_digest, files_digest, is_name, named
from ncflow.results.files import file_digest

_SPLITS = {"train", "training", "val", "valid", "validation", "test", "testing"}


@dataclass(frozen=True)
class Images:
    """How images become inputs.

    Attributes:
        resize: Length of the shorter side, bilinear.
        crop: Side of the square in the middle that is kept; None for ``resize``.
        mean: Of each channel, of values in 0..1, to be subtracted; one number makes the images grey.
        std: Likewise, to be divided by.
        transform: ``module:function`` from a PIL image to the input, in place of all that.
    """

    resize: int | None = None
    crop: int | None = None
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    transform: str | None = None


@dataclass(frozen=True)
class Source:
    """Data to be measured on.

    Attributes:
        name: What it is called.
        described: What changes the numbers.
        splits: Batches by the name of their split.
        notes: What a reader should know.
        is_limited: Whether a limit was heeded already.
    """

    name: str
    described: dict[str, Any]
    splits: Mapping[str, Iterable[Any]]
    notes: Sequence[str] = ()
    is_limited: bool = True


def read(
    data: str,
    images: Images,
    batch_size: int,
    limit: int | None = None,
    split: str | None = None,
    workers: int = 0,
    own_transform: tuple[str, Callable[[Any], Any]] | None = None,
) -> Source:
    """The data that a user means.

    Args:
        data: A folder with a folder of images for each class, an ``.npz`` as :class:`ncflow.data.arrays.Arrays` has
            it, or ``module:function`` that returns a loader or loaders by split.
        images: How images become inputs.
        batch_size: Samples a batch, of a folder or a file.
        limit: Most samples of each class, of a folder or a file; None for all.
        split: Which split of several; the name of one that has none, None for ``train``.
        workers: Processes that read images.
        own_transform: The model's own from an image to its input, and its name; None if it is not known.

    Raises:
        ArgumentError: If it is not known what is meant, something is missing or cannot be read.
    """
    path = Path(data)
    _check_name(split or "train")
    if path.is_dir():
        return _folder(path, images, batch_size, limit, split or "train", workers, own_transform)
    require(
        images == Images(), "resize, crop, mean, std and transform", "left out where data is no folder of images", data
    )
    if path.is_file():
        return _arrays(path, batch_size, limit, split)
    require(is_name(data), "data", "an existing folder or .npz file, or module:function", data)
    found = called("data", data)
    splits = found if isinstance(found, Mapping) else {split or "train": found}
    require(len(splits) > 0, "data", "a function that returns a loader or loaders by split", "none")
    for name, loader in splits.items():
        _check_name(name)
        require(isinstance(loader, Iterable), "data", "a function that returns loaders", type(loader).__name__)
    described = {"function": data, "code": code_digest(named("data", data))}
    return Source(data.rpartition(":")[2], described, _chosen(splits, split), is_limited=False)


def weights_transform(model: str, file: Path) -> tuple[str, Callable[[Any], Any]] | None:
    """The transform that torchvision publishes with the weights in a file, and its name; None for others.

    Args:
        model: ``torchvision:NAME``.
        file: Of weights, known by the digest that torchvision has in their name, whatever the file's own name is.
    """
    kind = model.removeprefix("torchvision:")
    start = f"-{file_digest(file)[:8]}."
    for known in installed("torchvision.models").get_model_weights(kind):
        if start in known.url.rpartition("/")[2]:
            return f"{type(known).__name__}.{known.name}", known.transforms()
    return None


def _arrays(path: Path, batch_size: int, limit: int | None, split: str | None) -> Source:
    try:
        arrays = Arrays(path=str(path), batch_size=None, test_fraction=0.0)
        arrays.setup()
    except ArgumentError as error:
        raise ArgumentError(f"data: {error}") from error
    splits = {name: b.split for name, b in arrays.measure_dataloaders(batch_size).items()}
    kept = {name: s if limit is None else s.take(few_of_each(s.labels, limit)) for name, s in splits.items()}
    batches = {name: Batches(s, batch_size) for name, s in kept.items()}
    if len(batches) == 1 and split is not None:  # it has no name in the file
        batches = {split: batches["train"]}
    notes = [f"{name}: {len(kept[name].labels)} of {len(s.labels)} samples" for name, s in splits.items()]
    return Source(path.stem, {"sha256": file_digest(path)}, _chosen(batches, split), notes if limit else ())


def _check_name(split: Any) -> None:
    plain = isinstance(split, str) and re.fullmatch(r"[\w.-]+", split) is not None
    require(plain, "split", "a name of letters, digits, '_', '-' and '.'", split)


def _chosen(splits: Mapping[str, Any], split: str | None) -> Mapping[str, Any]:
    if split is None:
        return splits
    require(split in splits, "split", f"one of {', '.join(splits)}", split)
    return {split: splits[split]}


def _folder(
    path: Path,
    images: Images,
    batch_size: int,
    limit: int | None,
    split: str,
    workers: int,
    own_transform: tuple[str, Callable[[Any], Any]] | None,
) -> Source:
    from torchvision.datasets import ImageFolder

    name, transform = _transform(images, own_transform)
    try:
        folder = ImageFolder(str(path), transform=transform)
    except OSError as error:  # no folder of a class in it, or one without an image
        raise ArgumentError(
            f"data must be a folder with a folder of images for each class ({error_line(error)})"
        ) from error
    classes = folder.classes
    if {c.lower() for c in classes} <= _SPLITS:
        inside = f"{path / classes[0]}"
        raise ArgumentError(f"data must be one split of several, found {path} with {', '.join(classes)}: give {inside}")
    require(len(classes) >= 2, "data", "a folder with at least 2 classes", f"{len(classes)} in {path}")
    chosen: Any = folder
    more = f" and {len(classes) - 10} more" if len(classes) > 10 else ""
    notes = [f"labels 0..{len(classes) - 1} are the folders {', '.join(classes[:10])}{more}"]
    if limit is not None:
        kept = few_of_each(torch.tensor(folder.targets), limit)
        chosen = Subset(folder, kept.tolist())
        notes.append(f"{split}: {len(kept)} of {len(folder)} samples")
    digest = files_digest(path, [Path(file) for file, _ in folder.samples])
    loader: DataLoader[Any] = DataLoader(chosen, batch_size, num_workers=workers)
    return Source(path.name, {"sha256": digest, "transform": name}, {split: loader}, notes)


def _transform(images: Images, own: tuple[str, Callable[[Any], Any]] | None) -> tuple[str, Callable[[Any], Any]]:
    """From an image to its input, and what names it."""
    if images.transform is not None:
        alone = images == Images(transform=images.transform)
        require(alone, "transform", "given alone, or resize, mean and std", images)
        function = named("transform", images.transform)
        return f"{images.transform} {code_digest(function)}", function
    if images == Images():
        way_out = "or of weights that torchvision publishes"
        require(
            own is not None,
            "transform",
            f"given for a folder of images, or --resize, --mean and --std, {way_out}",
            None,
        )
        assert own is not None
        return own
    resize, mean, std = images.resize, images.mean, images.std
    if resize is None or mean is None or std is None:
        raise ArgumentError(
            f"resize, mean and std must be given together, found resize={resize}, mean={mean}, std={std}"
        )
    crop = resize if images.crop is None else images.crop
    require(1 <= crop <= resize, "crop", f"in 1..{resize}, the resized side", crop)
    require(len(mean) == len(std) and len(mean) in (1, 3), "mean and std", "of 1 or 3 channels", f"{mean} and {std}")
    require(min(std) > 0, "std", "greater than 0", std)
    from torchvision import transforms as T

    grey = [T.Grayscale()] if len(mean) == 1 else []
    steps = [*grey, T.Resize(resize), T.CenterCrop(crop), T.ToTensor(), T.Normalize(mean, std)]
    return f"resize {resize}, crop {crop}, mean {[*mean]}, std {[*std]}", T.Compose(steps)
