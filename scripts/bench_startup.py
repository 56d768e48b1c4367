#!/usr/bin/env python3
"""Time from the command to the first step, and to the end of a run that is finished already.

Each is a whole process. As ratios: against a process that imports PyTorch and Lightning and does nothing, and against
a process that imports Hydra and does nothing. Medians of several.

usage: scripts/bench_startup.py [--repeats 5]
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time

RUN = ["epochs=1", "model.width=16", "data.num_samples=200", "data.num_test=0", "trainer=cpu", "logger=none"]
FIRST_STEP = """
import sys, os
from ncflow.models.classifier import Classifier
Classifier.on_train_batch_end = lambda *a: os._exit(0)
sys.argv = ["ncflow", *sys.argv[1:]]
from ncflow.cli.train import main
main()
"""


def seconds(command: list[str], folder: str) -> float:
    """Wall time of a process."""
    start = time.perf_counter()
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(command, cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    python = [sys.executable, "-c"]
    with tempfile.TemporaryDirectory() as folder:
        commands = {
            "import torch, lightning": [*python, "import torch, lightning"],
            "first step": [*python, FIRST_STEP, *RUN, "runs_dir=unfinished"],
            "import hydra": [*python, "import hydra"],
            "skipped run": [sys.executable, "-m", "ncflow", *RUN],
        }
        seconds([sys.executable, "-m", "ncflow", *RUN], folder)
        times: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(repeats):
            for name, command in commands.items():
                times[name].append(seconds(command, folder))
    median = {name: statistics.median(values) for name, values in times.items()}
    for name, value in median.items():
        print(f"{name:>24}: {value:.2f} s")
    print(
        f"first step / importing PyTorch and Lightning: {median['first step'] / median['import torch, lightning']:.2f}"
    )
    print(f"skipped run / importing Hydra: {median['skipped run'] / median['import hydra']:.2f}")


if __name__ == "__main__":
    main()
