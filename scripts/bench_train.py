#!/usr/bin/env python3
"""Speed of a full training run through ncflow, as ratios against a bare PyTorch loop in the same process.

Both have the same model (4 layers, width 300), batch (128), data order, optimiser, schedule and one thread, and both
flush denormals. Printed: wall time per epoch against the bare loop (target at most 1.35, goal 1.2), what measuring
every 5 epochs adds (target at most 0.10), and for a long run at weight decay 5e-3 the time of its last epochs
against its first (target at most 1.1).

usage: scripts/bench_train.py [--epochs 50] [--repeats 5] [--long-epochs 300]
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir
from lightning import Callback

from ncflow.config.identity import describe
from ncflow.config.schema import CONF_DIR, register
from ncflow.results import CHECKPOINT, PROGRESS, RunFolder, write_json
from ncflow.seeding import derive_seed, epoch_order
from ncflow.training.assembly import prepare
from ncflow.training.fit import fit

SAVE_EVERY = 5
OVERRIDES = ["model.depth=4", "model.width=300", "model.norm=last", "weight_decay=5e-3", "trainer=cpu"]


def configuration(epochs: int, *more: str):
    """The config of the run, as the command line composes it."""
    register()
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        return compose("train", overrides=[*OVERRIDES, f"epochs={epochs}", *more])


def bare(epochs: int) -> list[float]:
    """Seconds of each epoch of a plain loop."""
    cfg = configuration(epochs)
    data, classifier = prepare(cfg)
    network, split = classifier.network, data.train
    optimizer = classifier.make_optimizer(classifier.parameter_groups())
    schedule = classifier.make_scheduler(optimizer)
    loss_function = torch.nn.CrossEntropyLoss()
    torch.manual_seed(derive_seed(0, "train"))
    seconds = []
    for epoch in range(epochs):
        start = time.perf_counter()
        for index in epoch_order(0, epoch, len(split.labels)).split(cfg.batch_size):
            optimizer.zero_grad()
            loss_function(network(split.inputs[index]), split.labels[index]).backward()
            optimizer.step()
        schedule.step()
        seconds.append(time.perf_counter() - start)
    return seconds


class Clock(Callback):
    """Time between the ends of epochs."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_train_start(self, trainer, pl_module) -> None:
        """Start."""
        self.last = time.perf_counter()

    def on_train_epoch_end(self, trainer, pl_module) -> None:
        """Lap."""
        now = time.perf_counter()
        self.seconds.append(now - self.last)
        self.last = now


class Save(Callback):
    """Save every 5 epochs, as a run does that measures so often; at the end the run saves itself."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_epoch_end(self, trainer, pl_module) -> None:
        """Save."""
        finished = trainer.current_epoch + 1
        if finished % SAVE_EVERY == 0 and finished < trainer.max_epochs:
            write_json(self.folder / PROGRESS, {"epoch": finished})
            trainer.save_checkpoint(self.folder / CHECKPOINT)


def through_ncflow(epochs: int, every: int) -> tuple[float, list[float]]:
    """Seconds of a run as the command line makes it, and of each of its epochs."""
    cfg = configuration(epochs, f"measure.every_n_epochs={every}")
    clock = Clock()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # Checkpoints every 5 epochs either way: what they cost is no cost of measuring.
        saves = [] if every == SAVE_EVERY else [Save(folder)]
        report = fit(cfg, RunFolder(folder, describe(cfg, "bench")), callbacks=[*saves, clock])
    return report.values["seconds"], clock.seconds


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--long-epochs", type=int, default=300)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    bare(2)
    ratios, totals, additions = [], [], []
    for _ in range(arguments.repeats):  # interleaved, so that a busy machine hits all alike
        plain = statistics.fmean(bare(arguments.epochs))
        unmeasured = statistics.fmean(through_ncflow(arguments.epochs, arguments.epochs)[1][:-1])
        measured = through_ncflow(arguments.epochs, SAVE_EVERY)[0] / arguments.epochs
        ratios.append(unmeasured / plain)
        totals.append(measured / plain)
        additions.append(measured / unmeasured - 1)
        print(
            f"epoch: bare {plain:.4f} s, ncflow {unmeasured:.4f} s, measured every 5 epochs {measured:.4f} s",
            flush=True,
        )
    ratio = statistics.median(ratios)
    print(f"epoch of ncflow / of the bare loop, checkpoints every 5: {ratio:.3f} (target <= 1.35, goal 1.2)")
    print(f"the same with measurement every 5 epochs: {statistics.median(totals):.3f}")
    print(f"measurement every 5 epochs adds: {statistics.median(additions):.1%} (target <= 10 %)")
    if arguments.long_epochs:
        long = through_ncflow(arguments.long_epochs, SAVE_EVERY)[1]
        tenth = max(1, len(long) // 10)
        first, last = statistics.median(long[:tenth]), statistics.median(long[-tenth:])
        print(
            f"last tenth / first tenth of {len(long)} epochs at weight decay 5e-3: {last / first:.3f} (target <= 1.1)"
        )


if __name__ == "__main__":
    main()
