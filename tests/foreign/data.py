"""Loaders, batches, samplers, hooks and limits of others."""

from typing import Any

import lightning as L
import numpy as np
import torch
import torch.nn.functional as F
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    Sampler,
    SequentialSampler,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from tests.foreign.case import DATA, Fit, Module, N, X, Y, case, loader, plain

# --- hooks -------------------------------------------------------------------------------------------------------


@case("`on_after_batch_transfer` of the module")
def after_transfer():
    class Scaling(Module):
        def on_after_batch_transfer(self, batch, dataloader_idx):
            return batch[0] * 3 - 1, batch[1]

    return Fit(Scaling(), truth=lambda m: plain(m, X * 3 - 1))


@case("`on_before_batch_transfer` of the data module")
def before_transfer():
    class Scaling(L.LightningDataModule):
        def train_dataloader(self):
            return loader()

        def on_before_batch_transfer(self, batch, dataloader_idx):
            return batch[0] * 3 - 1, batch[1]

    return Fit(Module(), truth=lambda m: plain(m, X * 3 - 1), fit={"datamodule": Scaling()})


@case("`transfer_batch_to_device`, and batches that are objects, `batch=`")
def own_transfer():
    class Batch:
        def __init__(self, samples):
            self.x, self.y = (torch.stack(part) for part in zip(*samples, strict=True))
            self.moved = False

    class Moving(Module):
        def transfer_batch_to_device(self, batch, device, dataloader_idx):
            batch.x, batch.moved = batch.x + 1, True
            return batch

        def training_step(self, batch, index):
            return F.cross_entropy(self(batch.x), batch.y)

    return Fit(
        Moving(),
        loader(collate_fn=Batch),
        lambda m: plain(m, X + 1),
        callback={"batch": lambda b: (b.x, b.y) if b.moved else None},
    )


@case("augmentation by a hook, in training alone")
def augmenting_hook():
    class Augmenting(Module):
        def on_after_batch_transfer(self, batch, dataloader_idx):
            return (batch[0] + torch.randn_like(batch[0]) if self.trainer.training else batch[0]), batch[1]

    return Fit(Augmenting(), truth=plain)


# --- batches -----------------------------------------------------------------------------------------------------


@case("batches (x, domain, y)", r"batch must be given.*of the 3 parts", refused=True)
def domains():
    return Fit(Domains(), loader(TensorDataset(X, 1 - Y.clamp(max=1), Y)))


@case("batches (x, domain, y), `batch=`")
def adapted_domains():
    return Fit(
        Domains(), loader(TensorDataset(X, 1 - Y.clamp(max=1), Y)), plain, callback={"batch": lambda b: (b[0], b[2])}
    )


class Domains(Module):
    def training_step(self, batch, index):
        return F.cross_entropy(self(batch[0]), batch[2])


class Named(Dataset):
    """Samples that are dicts."""

    def __init__(self, **parts):
        self.parts = parts

    def __len__(self):
        return N

    def __getitem__(self, index):
        return {name: part[index] for name, part in self.parts.items()}


class Reading(Module):
    """Batches that are dicts, read by name."""

    def training_step(self, batch, index):
        return F.cross_entropy(self(batch["x"]), batch["label"])


@case("batches that are dicts (x, label)")
def dicts():
    return Fit(Reading(), loader(Named(x=X, label=Y)), plain)


@case("dicts of which two entries may be the label", "it is not known which one the labels are", refused=True)
def two_labels():
    return Fit(Reading(), loader(Named(x=X, label=Y, target=Y)))


@case("batches of Hugging Face: `input_ids`, `attention_mask`, `labels`")
def hugging_face_batches():
    class Bert(Module):
        def forward(self, input_ids, attention_mask=None, labels=None):
            return self.fc(self.body(input_ids * attention_mask))

        def training_step(self, batch, index):
            return F.cross_entropy(self(**batch), batch["labels"])

    mask = (torch.arange(5) < 4).float().expand(N, 5)
    return Fit(Bert(), loader(Named(input_ids=X, attention_mask=mask, labels=Y)), lambda m: plain(m, X * mask))


@case("entries that `forward` does not take", r"forward\(x\).* does not take x, index", refused=True)
def extra_entries():
    return Fit(Reading(), loader(Named(x=X, index=torch.arange(N), label=Y)))


@case("a `forward` that takes the whole dict")
def whole_dict():
    class Whole(Module):
        def forward(self, batch):
            return self.fc(self.body(batch["left"] - batch["right"]))

        def training_step(self, batch, index):
            return F.cross_entropy(self(batch), batch["y"])

    return Fit(Whole(), loader(Named(left=X, right=X.flip(1), y=Y)), lambda m: plain(m, X - X.flip(1)))


class Pairs(Dataset):
    def __len__(self):
        return N

    def __getitem__(self, index):
        return (X[index], X[index].flip(0)), Y[index]


class Two(Module):
    def forward(self, left, right):
        return self.fc(self.body(left - right))

    def training_step(self, batch, index):
        return F.cross_entropy(self(*batch[0]), batch[1])


@case("several inputs, ((a, b), y)")
def several_inputs():
    return Fit(Two(), loader(Pairs()), lambda m: plain(m, X - X.flip(1)))


@case(
    "several inputs that may be one",
    "takes the 2 inputs both as one argument and as several",
    refused=True,
)
def ambiguous_inputs():
    class Optional(Two):
        def forward(self, left, right=None):
            return super().forward(left, right)

    return Fit(Optional(), loader(Pairs()))


# --- samplers ----------------------------------------------------------------------------------------------------

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


# --- limits ------------------------------------------------------------------------------------------------------


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


# --- augmentation ------------------------------------------------------------------------------------------------


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
