"""Batches of others, and the hooks on their way."""

import lightning as L
import torch
import torch.nn.functional as F
from torch.utils.data import (
    Dataset,
    TensorDataset,
)

from tests.foreign.case import Fit, Module, N, X, Y, case, loader, plain

# --- hooks -----------------------------------------------------------------------------------------------------------


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


# --- batches ---------------------------------------------------------------------------------------------------------


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
