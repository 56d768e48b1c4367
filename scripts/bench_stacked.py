#!/usr/bin/env python3
"""A grid trained as one stacked model against the same runs one by one, per run.

The recipe of pan_cao/fig2 (4 layers, BN before the classifier, 4000 samples, batches of 128, Adam, a measurement every
5 epochs) for some epochs, with K cells that differ in seed and weight decay, in the groups that the launcher makes of
them. Each figure comes from a process of its own: the time of building and training, divided by the number of runs, the
median over repeats; the largest memory of the process, or of the GPU; beside it the time of the matrix products of the
same steps alone, which bounds both.

usage: scripts/bench_stacked.py [--device cpu|cuda] [--cells 1 8 64 280] [--width 32 64 300] [--epochs 10] [--repeats 3]
"""

import argparse
import itertools
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

SAMPLES, BATCH, DEPTH, DIM, CLASSES = 4000, 128, 4, 16, 4
MOST_ALONE = 4  # runs one by one whose mean time stands for all of them


def configs(cells: int, width: int, epochs: int, device: str) -> list:
    """Configs of a grid of seeds and weight decays."""
    from hydra import compose, initialize_config_dir

    from ncflow.config.schema import CONF_DIR, register

    register()
    trainer = "gpu" if device == "cuda" else "cpu"
    fixed = [f"epochs={epochs}", f"model.width={width}", f"trainer={trainer}", f"data.num_samples={SAMPLES}"]
    decays = (1e-4, 3e-4, 5e-4, 1e-3, 3e-3, 5e-3, 1e-2)
    grid = [(cell // len(decays), decays[cell % len(decays)]) for cell in range(cells)]
    grid.sort(key=lambda cell: cell[1])
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        first = compose("train", overrides=fixed)
        found = []
        for seed, decay in grid:
            cfg = first.copy()
            cfg.seed, cfg.weight_decay = seed, decay
            found.append(cfg)
    return found


def seconds(kind: str, cells: int, width: int, epochs: int, device: str) -> float:
    """Seconds a run."""
    import torch

    from ncflow.config.identity import describe
    from ncflow.results import RunFolder
    from ncflow.training.fit import fit
    from ncflow.training.stacked import group
    from ncflow.training.stacked.launcher import device_here, plan_runs
    from ncflow.training.stacked.plan import MAY_DIFFER
    from ncflow.training.stacked.ready import DataCache, take

    torch.set_num_threads(1)
    number = min(cells, MOST_ALONE) if kind == "alone" else cells
    grid = configs(number, width, epochs, device)
    with tempfile.TemporaryDirectory() as root:
        folders = [RunFolder(Path(root) / str(place), describe(cfg, "bench")) for place, cfg in enumerate(grid)]
        (warm_up,) = configs(1, width, 1, device)
        fit(warm_up, RunFolder(Path(root) / "warm", describe(warm_up, "bench")))
        start = time.perf_counter()
        if kind == "stacked":
            options = {"max_group": 512, "memory_gb": None, "may_differ": MAY_DIFFER}
            plan = plan_runs(grid, {}, options, device_here(grid[0], options["memory_gb"]))
            # The launcher makes no group of one; here it shows what a group costs.
            for cells_of_group in [found.cells for found in plan.groups] or [range(number)]:
                data_cache = DataCache()
                with ExitStack() as held:
                    runs = [take(folders[cell], grid[cell], held, data_cache) for cell in cells_of_group]
                    group.train_cells(runs, Path(root))
        else:
            for cfg, folder in zip(grid, folders, strict=True):
                fit(cfg, folder)
        if device == "cuda":
            torch.cuda.synchronize()
        return (time.perf_counter() - start) / number


def bound(cells: int, width: int, epochs: int, device: str) -> float:
    """Seconds a run of the matrix products alone: forward, and backward for inputs and weights."""
    import torch

    torch.set_num_threads(1)
    widths = [DIM, *[width] * (DEPTH - 1), CLASSES]
    number = min(cells, 16) if device == "cpu" else cells
    pairs = [
        (torch.randn(number, BATCH, a, device=device), torch.randn(number, a, b, device=device))
        for a, b in itertools.pairwise(widths)
    ]

    def step() -> None:
        for index, (inputs, weight) in enumerate(pairs):
            outputs = inputs @ weight
            inputs.transpose(1, 2) @ outputs
            if index:
                outputs @ weight.transpose(1, 2)

    for _ in range(3):
        step()
    steps = epochs * -(-SAMPLES // BATCH)
    measured = min(steps, 50)
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(measured):
        step()
    if device == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - start) * steps / measured / number


def one(job: dict) -> dict:
    """What a process of its own measures."""
    import torch

    kind = job.pop("kind")
    found = bound(**job) if kind == "bound" else seconds(kind, **job)
    on_gpu = job["device"] == "cuda"
    memory = torch.cuda.max_memory_allocated() if on_gpu else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"seconds": found, "memory": memory}


def measure(kind: str, repeats: int, **job: object) -> dict:
    """Median time and largest memory of some processes."""
    found = []
    for _ in range(repeats):
        command = [sys.executable, __file__, "--one", json.dumps({"kind": kind, **job})]
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        found.append(json.loads(output.splitlines()[-1]))
    middle = statistics.median(result["seconds"] for result in found)
    return {"seconds": middle, "memory": max(result["memory"] for result in found)}


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--cells", type=int, nargs="+", default=[1, 8, 64, 280])
    parser.add_argument("--width", type=int, nargs="+", default=[32, 64, 300])
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(one(json.loads(arguments.one))))
        return
    print(
        f"{'width':>5} {'cells':>5} {'stacked':>9} {'alone':>9} {'ratio':>6} {'products':>9} {'share':>6} {'memory':>9}"
    )
    for width in arguments.width:
        job = {"width": width, "epochs": arguments.epochs, "device": arguments.device}
        alone = measure("alone", arguments.repeats, cells=MOST_ALONE, **job)["seconds"]
        for cells in arguments.cells:
            stacked = measure("stacked", arguments.repeats, cells=cells, **job)
            products = measure("bound", arguments.repeats, cells=cells, **job)["seconds"]
            time_a_run = stacked["seconds"]
            print(
                f"{width:5} {cells:5} {time_a_run:7.3f} s {alone:7.3f} s {alone / time_a_run:6.1f} {products:7.3f} s "
                f"{products / time_a_run:6.2f} {stacked['memory'] / 2**20:5.0f} MiB",
                flush=True,
            )


if __name__ == "__main__":
    main()
