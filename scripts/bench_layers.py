#!/usr/bin/env python3
"""Measuring every layer of a 15-layer MLP in one pass against measuring its last layer alone.

Width 300, BN in every layer, 10,000 samples of 4 classes, one thread; features are kept between the two passes over
them. Printed: the time of a plain forward pass, of measuring the last layer, and of all 14, medians of several repeats
in one process, and the ratio of the last two. What bounds it on a CPU: exact sums go over each layer's features about
ten times in float64, which takes as long as the layer's own forward pass at this width.

usage: scripts/bench_layers.py [--repeats 7] [--samples 10000]
"""

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch

from ncflow.data.batches import Batches, Split
from ncflow.measuring.split import measure_split
from ncflow.models import MLP


def median_seconds(call: Callable[[], object], repeats: int) -> float:
    """Of several calls, after one to warm up."""
    call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--samples", type=int, default=10_000)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = MLP((16,), 4, depth=15, width=300, norm="all")
    split = Split(torch.randn(arguments.samples, 16), torch.randint(4, (arguments.samples,)))
    with torch.no_grad():
        network.train()(split.inputs[:1000])
    loader = Batches(split, 1000)

    def forward() -> None:
        with torch.no_grad():
            for batch in loader:
                network.eval()(batch.inputs)

    plain = median_seconds(forward, arguments.repeats)
    last, every = (
        median_seconds(partial(measure_split, network, loader, layers), arguments.repeats) for layers in ("last", "all")
    )
    print(f"forward {plain:.3f} s, last layer {last:.3f} s, every layer {every:.3f} s")
    print(f"every layer / last layer: {every / last:.2f}")


if __name__ == "__main__":
    main()
