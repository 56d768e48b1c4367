#!/usr/bin/env python3
"""Measuring every layer of a 15-layer MLP in one pass against measuring its last layer alone.

Width 300, BN in every layer, 10,000 samples of 4 classes, one thread; features are kept between the two passes over
them. Printed: the time of a plain forward pass, of measuring the last layer, and of all 14, medians of several repeats
in one process, of the thread's own time, and the ratio of the last two.

Beside it the least ratio that exact sums allow with PyTorch's operations, each of which goes over a chunk of features
once. The first pass casts to float64, takes norms, and sums features and directions by class; the second casts again,
as float64 of all layers at once is twice the features, takes the class means off, takes norms, multiplies by the means
(for NC1 and the nearest mean), and sums directions. These eight are timed alone, on one layer.

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
from ncflow.metrics.rows import cast_rows
from ncflow.models import MLP


def median_seconds(call: Callable[[], object], repeats: int) -> float:
    """Of several calls, after one to warm up."""
    call()
    times = []
    for _ in range(repeats):
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return statistics.median(times)


def unavoidable(features: torch.Tensor, labels: torch.Tensor) -> None:
    """The eight operations over the features (N, d) of a layer, with labels (N,)."""
    member = torch.nn.functional.one_hot(labels).double()
    means = member.T @ features.double() / member.sum(0)[:, None]
    both = torch.cat([member, member], 1)
    buffer = torch.empty(1, features.shape[1], dtype=torch.float64)
    for rows, own, twice in zip(*(part.split(870) for part in (features, member, both)), strict=True):
        exact = buffer = cast_rows(rows, buffer)
        norms = torch.linalg.vector_norm(exact, dim=1)
        twice.T @ exact  # of features and of directions
        exact = cast_rows(rows, buffer)
        exact.addmm_(own, means, alpha=-1)
        norms = torch.linalg.vector_norm(exact, dim=1)
        exact @ means.T
        (own / norms[:, None]).T @ exact


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
    sums = median_seconds(partial(unavoidable, torch.randn(arguments.samples, 300), split.labels), arguments.repeats)
    print(f"forward {plain:.3f} s, last layer {last:.3f} s, every layer {every:.3f} s; sums of a layer {sums:.4f} s")
    print(f"every layer / last layer: {every / last:.2f}; by the sums alone {(plain + 14 * sums) / (plain + sums):.2f}")


if __name__ == "__main__":
    main()
