"""Loaders, samplers and limits of others, and augmentation."""

from typing import Any

import numpy as np
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    Sampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from tests.foreign.case import DATA, Fit, Module, N, X, Y, case, loader, plain

# --- samplers --------------------------------------------------------------------------------------------------------


HALF = list(range(5, N, 2))


def half(module):
    return plain(module, X[HALF], Y[HALF])


@case("a split by `SubsetRandomSampler`")
def subset():
    return Fit(Module(), loader(sampler=SubsetRandomSampler(HALF)), half)


@case("`WeightedRandomSampler`: once each that it can draw", "WeightedRandomSampler draws some samples more often")
def weighted():
    weights = torch.zeros(N).index_fill(0, torch.tensor(HALF), 1.0)
    return Fit(Module(), loader(sampler=WeightedRandomSampler(weights, 40)), half)


@case("`RandomSampler(num_samples=...)`: all that it can draw", "RandomSampler draws 40 of 60 samples an epoch")
def some_of_all():
    return Fit(Module(), loader(sampler=RandomSampler(DATA, num_samples=40)), plain)


class Halves(Sampler):
    def __iter__(self):
        return iter(HALF[::-1])

    def __len__(self):
        return len(HALF)


@case("a sampler of one's own: the samples of the epoch", "Halves chooses: the 28 samples that it gives this epoch")
def own_sampler():
    return Fit(Module(), loader(sampler=Halves()), half)


class Endless(Sampler):
    def __iter__(self):
        while True:
            yield from HALF


@case("a sampler without end", "loaders must be given where a copy of Endless cannot be read", refused=True)
def endless_sampler():
    return Fit(Module(), loader(sampler=Endless()), trainer={"limit_train_batches": 2})


class Buckets(Sampler):
    """Batches of different sizes."""

    def __iter__(self):
        return iter([HALF[:7], HALF[7:12], HALF[12:]])

    def __len__(self):
        return 3


def shifted(samples):
    return tuple(torch.stack(part) + shift for part, shift in zip(zip(*samples, strict=True), (2, 0), strict=True))


@case("a `batch_sampler` and a `collate_fn` of one's own", "Buckets chooses")
def batch_sampler():
    data = DataLoader(DATA, batch_sampler=Buckets(), collate_fn=shifted)
    return Fit(Module(), data, lambda m: plain(m, X[HALF] + 2, Y[HALF]))


@case("a `BatchSampler` of PyTorch and a `collate_fn`")
def plain_batch_sampler():
    data = DataLoader(DATA, batch_sampler=BatchSampler(RandomSampler(DATA), 20, False), collate_fn=shifted)
    return Fit(Module(), data, lambda m: plain(m, X + 2))


@case("a data set of whole batches, `batch_size=None`")
def whole_batches():
    data = [(X[:20], Y[:20]), (X[20:], Y[20:])]
    return Fit(Module(), DataLoader(data, batch_size=None, shuffle=True), plain)


@case("`drop_last` in a fixed order: what is never given is not measured")
def dropped():
    return Fit(Module(), loader(size=16, drop_last=True), lambda m: plain(m, X[:48], Y[:48]))


@case("`drop_last` with shuffling: all are measured")
def dropped_at_random():
    return Fit(Module(), loader(size=16, drop_last=True, shuffle=True), plain)


@case("an `IterableDataset`", "loaders must be given where an IterableDataset is read", refused=True)
def iterable():
    return Fit(Module(), DataLoader(Stream(), 20))


@case("an `IterableDataset`, `loaders=`")
def iterable_given():
    return Fit(Module(), DataLoader(Stream(), 20), plain, callback={"loaders": {"train": DataLoader(Stream(), 20)}})


class Stream(IterableDataset):
    def __iter__(self):
        return iter(zip(X, Y, strict=True))


@case("a loader with its own `__iter__`", "the loader has its own way to give batches, found Mixing", refused=True)
def own_iteration():
    class Mixing(DataLoader):
        def __iter__(self):
            return ((x * 2, y) for x, y in super().__iter__())

    return Fit(Module(), Mixing(DATA, 20))


@case("several validation loaders")
def several_validation_loaders():
    class Validating(Module):
        def validation_step(self, batch, index, dataloader_idx=0):
            pass

    return Fit(Validating(), truth=plain, fit={"val_dataloaders": [loader(), loader(sampler=SequentialSampler(DATA))]})


# --- limits ----------------------------------------------------------------------------------------------------------


@case("`overfit_batches`: what is trained on", "train: an epoch is limited to 40 of 60 samples, which are measured")
def overfit():
    return Fit(Module(), loader(shuffle=True), lambda m: plain(m, X[:40], Y[:40]), trainer={"overfit_batches": 2})


@case("`limit_train_batches` in a fixed order", "train: an epoch is limited to 20 of 60 samples")
def limited():
    return Fit(Module(), truth=lambda m: plain(m, X[:20], Y[:20]), trainer={"limit_train_batches": 0.34})


@case("`limit_train_batches` with shuffling: all", "limited to 2 of 3 batches, other ones each time: all 60 samples")
def limited_at_random():
    return Fit(Module(), loader(shuffle=True), plain, trainer={"limit_train_batches": 2})


@case("`fast_dev_run`", "train: an epoch is limited to 20 of 60 samples")
def fast():
    return Fit(Module(), loader(shuffle=True), lambda m: plain(m, X[:20], Y[:20]), trainer={"fast_dev_run": True})


# --- augmentation ----------------------------------------------------------------------------------------------------


class Noisy(Dataset):
    """Augmented by a generator, which may be its own."""

    def __init__(self, draw: Any):
        self.draw = draw

    def __len__(self):
        return N

    def __getitem__(self, index):
        return X[index] + self.draw(), Y[index]


@case("augmentation, features kept", "train: random numbers were drawn to measure it")
def augmented():
    return Fit(Module(), loader(Noisy(lambda: np.float32(np.random.normal()))))


@case("augmentation that differs between two passes", "gave other features when it was read again", refused=True)
def augmented_twice():
    own = np.random.default_rng(0)
    return Fit(Module(), loader(Noisy(lambda: np.float32(own.normal()))), callback={"max_cached_bytes": 0})


@case("the loader read twice")
def read_twice():
    return Fit(Module(), loader(shuffle=True), plain, callback={"max_cached_bytes": 0})
