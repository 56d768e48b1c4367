#!/usr/bin/env python3
"""What the callback costs on models that are not ours, with its defaults: a short training with it and without.

Both are fitted in turns in one process, one thread, several times: torchvision's ResNet18 on random images of 3x64x64
(10 classes), and an MLP (4 layers, width 300) on 8000 samples of 16 numbers (4 classes). They are measured before
training and after every 5 epochs, training and validation split. Printed: what the callback adds to the training, in
percent; beside it what the forward passes alone would add, each sample of both splits once, evaluated: that is the
floor, as no other pass has the features of the network as it is. What is above it is the float64 sums.

usage: scripts/bench_callback.py [--epochs 10] [--repeats 3] [--model resnet18 mlp]
"""

import argparse
import logging
import statistics
import time
import warnings
from itertools import pairwise

import lightning as L
import torch
import torchvision
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from ncflow.callbacks import NeuralCollapseCallback

MODELS = ("resnet18", "mlp")


class Somebody(L.LightningModule):
    """A module that knows nothing of ncflow."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        return self.model(x)

    def training_step(self, batch: list[Tensor], index: int) -> Tensor:
        """Cross-entropy."""
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch: list[Tensor], index: int) -> None:
        """Nothing but the forward pass."""
        self(batch[0])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """SGD."""
        return torch.optim.SGD(self.parameters(), lr=0.01, momentum=0.9)


def made(name: str) -> tuple[Somebody, DataLoader, DataLoader]:
    """The module with its training and validation loader."""
    torch.manual_seed(0)
    if name == "resnet18":
        model, shape, classes, sizes = torchvision.models.resnet18(num_classes=10), (3, 64, 64), 10, (512, 128)
    else:
        widths = [16, 300, 300, 300]
        layers = [part for a, b in pairwise(widths) for part in (nn.Linear(a, b), nn.ReLU())]
        model, shape, classes, sizes = nn.Sequential(*layers, nn.Linear(300, 4)), (16,), 4, (8000, 2000)
    loaders = []
    for size, shuffle in zip(sizes, (True, False), strict=True):
        data = TensorDataset(torch.randn(size, *shape), torch.arange(size) % classes)
        loaders.append(DataLoader(data, 128 if name == "mlp" else 32, shuffle=shuffle))
    return Somebody(model), loaders[0], loaders[1]


def fitted(name: str, epochs: int, callbacks: list[L.Callback]) -> float:
    """Seconds of a training, of its one thread."""
    module, train, val = made(name)
    trainer = L.Trainer(
        max_epochs=epochs,
        callbacks=callbacks,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    start = time.process_time()
    trainer.fit(module, train, val)
    return time.process_time() - start


def passes(name: str, epochs: int) -> float:
    """Seconds of the forward passes of as many measurements, over both splits."""
    module, train, val = made(name)
    start = time.process_time()
    with torch.no_grad():
        module.eval()
        for _ in range(1 + epochs // 5):
            for loader in (train, val):
                for x, _ in loader:
                    module(x)
    return time.process_time() - start


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--model", nargs="+", default=MODELS, choices=MODELS)
    parsed = parser.parse_args()
    torch.set_num_threads(1)
    logging.getLogger("lightning").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    for name in parsed.model:
        fitted(name, 1, [NeuralCollapseCallback(5)])  # to warm up
        without, added, floor = [], [], []
        for _ in range(parsed.repeats):
            without.append(fitted(name, parsed.epochs, []))
            added.append(fitted(name, parsed.epochs, [NeuralCollapseCallback(5)]) / without[-1] - 1)
            floor.append(passes(name, parsed.epochs) / without[-1])
        print(
            f"{name}: {parsed.epochs} epochs {statistics.median(without):.1f} s; the callback adds "
            f"{statistics.median(added):.1%}, the forward passes alone {statistics.median(floor):.1%}",
            flush=True,
        )


if __name__ == "__main__":
    main()
