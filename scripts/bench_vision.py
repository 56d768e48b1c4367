#!/usr/bin/env python3
"""Images per second that one network trains on through ncflow, against what a bare PyTorch loop usually is.

The images are 32x32, of colour and random bytes in memory. The usual loop reads them one by one through a DataLoader
with torchvision's ToTensor and Normalize and several workers; ncflow cuts batches out of one array on the device.
Both have the same model (VGG with torchvision's BN, or the ResNet18 as published), batch (128), optimiser, precision
and memory layout. Each repeat times some epochs of both, one after the other in this process, after an epoch to warm
up; building the model, the first start of the workers and measuring collapse are not timed. Printed: the ratio of
ncflow's images per second to the bare loop's, its median over the repeats (above 1: ncflow is faster).

usage: scripts/bench_vision.py [--device cuda] [--precision bf16-mixed] [--channels-last] [--model resnet18]
a minute on a CPU: scripts/bench_vision.py --images 256 --width 0.125
"""

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from hydra import compose, initialize_config_dir
from lightning import Callback
from omegaconf import DictConfig, open_dict
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from ncflow.config.identity import describe
from ncflow.config.schema import CONF_DIR, register
from ncflow.data.batches import Split
from ncflow.data.vision import ByteImages
from ncflow.results import RunFolder
from ncflow.training.assembly import prepare
from ncflow.training.fit import fit

NUM_CLASSES = 10
NORM = {"vgg11": "torchvision", "resnet18": "all"}


def noise(count: int) -> Split:
    """Random bytes and labels."""
    draw = torch.Generator().manual_seed(0)
    images = torch.randint(256, (count, 3, 32, 32), dtype=torch.uint8, generator=draw)
    return Split(images, torch.arange(count) % NUM_CLASSES)


class Noise(ByteImages):
    """The images as ncflow holds them; there is no test split."""

    available = NUM_CLASSES

    def __init__(self, *, images: int, batch_size: int | None = 128, seed: int = 0) -> None:
        super().__init__(data_dir=".", classes=NUM_CLASSES, mean=0.5, std=0.5, batch_size=batch_size, seed=seed)
        self.images = images

    def load(self) -> tuple[Split, Split, int]:
        """Draw."""
        split = noise(self.images)
        return split, split.take(torch.arange(0)), NUM_CLASSES


class Samples(Dataset):
    """The same images as torchvision's own data sets give them: one at a time, through a transform."""

    def __init__(self, count: int) -> None:
        split = noise(count)
        self.images = np.ascontiguousarray(split.inputs.permute(0, 2, 3, 1).numpy())
        self.labels = split.labels.tolist()
        self.transform = transforms.Compose(
            [transforms.ToTensor(), transforms.Normalize((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))]
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.transform(self.images[index]), self.labels[index]


def configuration(arguments: argparse.Namespace, epochs: int) -> DictConfig:
    """The config of the run, as the command line composes it, but for the data."""
    overrides = [
        *(f"model={arguments.model}", f"model.norm={NORM[arguments.model]}", f"model.width={arguments.width}"),
        *(f"trainer={'gpu' if arguments.device == 'cuda' else 'cpu'}", f"trainer.precision={arguments.precision}"),
        *(f"epochs={epochs}", f"measure.every_n_epochs={epochs}", "logger=none"),
        *(["trainer.channels_last=true"] if arguments.channels_last else []),
    ]
    register()
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        cfg = compose("train", overrides=overrides)
    with open_dict(cfg):
        cfg.data = {"name": "noise", "_target_": "__main__.Noise", "images": arguments.images}
    return cfg


def now(device: str) -> float:
    """Time at which the device has done what it was asked for."""
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def bare(arguments: argparse.Namespace) -> float:
    """Seconds an epoch of the usual loop."""
    cfg = configuration(arguments, arguments.epochs)
    _, classifier = prepare(cfg)
    layout = torch.channels_last if arguments.channels_last else torch.contiguous_format
    device, network = torch.device(arguments.device), classifier.network
    network.to(device, memory_format=layout).train()
    optimizer = classifier.make_optimizer(classifier.parameter_groups())
    loss_function = torch.nn.CrossEntropyLoss()
    loader = DataLoader(
        Samples(arguments.images),
        cfg.batch_size,
        shuffle=True,
        num_workers=arguments.workers,
        persistent_workers=arguments.workers > 0,
        pin_memory=device.type == "cuda",
    )
    mixed = arguments.precision == "bf16-mixed"
    for epoch in range(arguments.epochs + 1):
        if epoch == 1:
            start = now(arguments.device)
        for inputs, labels in loader:
            inputs = inputs.to(device, memory_format=layout, non_blocking=True)
            labels = labels.to(device, non_blocking=True)
            optimizer.zero_grad()
            with torch.autocast(device.type, torch.bfloat16, enabled=mixed):
                loss = loss_function(network(inputs), labels)
            loss.backward()
            optimizer.step()
    return (now(arguments.device) - start) / arguments.epochs


class Clock(Callback):
    """Time at the end of each epoch."""

    def __init__(self, device: str) -> None:
        self.device, self.laps = device, []

    def on_train_epoch_end(self, trainer, pl_module) -> None:
        """Lap."""
        self.laps.append(now(self.device))


def through_ncflow(arguments: argparse.Namespace) -> float:
    """Seconds an epoch of a run as the command line makes it."""
    epochs = arguments.epochs + 2  # the first warms up; the last one's lap would hold the measurement at the end
    clock = Clock(arguments.device)
    cfg = configuration(arguments, epochs)
    with tempfile.TemporaryDirectory() as folder:
        fit(cfg, RunFolder(Path(folder), describe(cfg, "bench")), callbacks=[clock])
    return (clock.laps[-2] - clock.laps[0]) / arguments.epochs


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--model", choices=[*NORM, "both"], default="both")
    parser.add_argument("--images", type=int, default=8000)
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--precision", choices=["32-true", "bf16-mixed"], default="32-true")
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--workers", type=int, default=min(8, os.cpu_count() or 1), help="of the bare loop")
    parser.add_argument("--epochs", type=int, default=2, help="timed in each repeat")
    parser.add_argument("--repeats", type=int, default=5)
    return parser.parse_args()


def main() -> None:
    """Run and print."""
    arguments = parse()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    for model in NORM if arguments.model == "both" else [arguments.model]:
        arguments.model = model
        ratios = []
        for _ in range(arguments.repeats):  # interleaved, so that a busy machine hits both alike
            plain, ours = bare(arguments), through_ncflow(arguments)
            ratios.append(plain / ours)
            speeds = [arguments.images / seconds for seconds in (ours, plain)]
            print(f"{model}: ncflow {speeds[0]:.0f} images/s, bare loop {speeds[1]:.0f} images/s", flush=True)
        print(f"{model}: ncflow / bare loop, images per second: {statistics.median(ratios):.2f}", flush=True)


if __name__ == "__main__":
    main()
