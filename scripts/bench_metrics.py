#!/usr/bin/env python3
"""Time and peak memory of the whole family of measures, against what peers do.

For each size (N, C, d), features float32, one thread, each method in a process of its own:
  ncflow  neural_collapse with weight, bias and logits: every measure
  nc1     a plain transcription of NC1 alone: d x d covariances and torch.linalg.pinv, in float32 as peers have it
          (where pinv cuts small eigenvalues off) and in float64
  read    one pass that only sums the features: the memory-bandwidth floor
and at N = 4000 the cosines over all pairs of samples (N x N) against ncflow. Memory is the growth of the process's peak
over the data. On a GPU (--device cuda) it also counts the host syncs of a batch's update.

For more classes than dimensions, where the logits of all samples would not fit, batch by batch, each with logits W h:
  stream  the Metric: every measure
  peer    what libraries have, in float32: means, a d x d covariance and its pinv, cosines of the means in patches, the
          distance of W to the means, the nearest mean by products; NC1 to NC4 once each
  twice   reading features and logits twice, as a model that is measured in two passes does: the floor

usage: scripts/bench_metrics.py [--device cpu] [--repeats 3] [--sizes 20000,100,512 ...] [--skip-nc1-above 2048]
                                [--many 20000,10000,512 ...]
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator

MANY = ["100000,1000,512", "20000,10000,512", "200000,30000,768"]
SIZES = ["20000,100,512", "20000,100,2048", "100000,1000,512", "20000,1000,4096"]


def child(method: str, size: str, device: str, repeats: int) -> None:
    """Measure one method at one size; print JSON."""
    import torch

    from ncflow.metrics import NeuralCollapse, neural_collapse

    torch.set_num_threads(1)
    N, C, d = (int(part) for part in size.split(","))
    rng = torch.Generator(device).manual_seed(0)
    y = torch.arange(N, device=device) % C
    H = torch.empty(N, d, device=device).normal_(0, 0.5, generator=rng)
    means = torch.randn(C, d, device=device, generator=rng)
    for start in range(0, N, 1000):  # without a temporary copy, which would hide in the peak of the memory
        H[start : start + 1000] += means[y[start : start + 1000]]
    W, b = torch.randn(C, d, device=device, generator=rng), torch.zeros(C, device=device)
    is_whole = method in ("ncflow", "nc1 float32", "nc1 float64", "all pairs", "read", "syncs")
    logits = torch.empty(N if is_whole else 0, C, device=device).normal_(generator=rng)

    def nc1(dtype: torch.dtype) -> torch.Tensor:
        means = torch.stack([H[y == c].to(dtype).mean(0) for c in range(C)])
        within = torch.zeros(d, d, device=device, dtype=dtype)
        for c in range(C):
            centred = H[y == c].to(dtype) - means[c]
            within += centred.T @ centred / N
        M = means - means.mean(0)
        return torch.trace(within @ torch.linalg.pinv(M.T @ M / C)) / C

    def all_pairs() -> torch.Tensor:
        centred = torch.nn.functional.normalize(H.double() - H.double().mean(0))
        cosines = centred @ centred.T
        same = y[:, None] == y
        one_hot = torch.nn.functional.one_hot(y, C).double()
        return (one_hot.T @ (cosines * same) @ one_hot).diagonal().min() + (one_hot.T @ cosines @ one_hot).max()

    def batches() -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        for features, labels in zip(H.split(1000), y.split(1000), strict=True):
            yield features, labels, features @ W.T

    def stream() -> dict[str, torch.Tensor]:
        metric = NeuralCollapse(C, d, head, max_cached_bytes=None).to(device)
        for batch in batches():
            metric.update(*batch)
        return metric.compute()

    def twice() -> float:
        return sum(float(features.sum() + logits.sum()) for _ in range(2) for features, _, logits in batches())

    def peer() -> list[torch.Tensor]:
        sums, within = torch.zeros(C, d, device=device), torch.zeros(d, d, device=device)
        counts = torch.bincount(y, minlength=C)
        for features, labels, _ in batches():
            sums.index_add_(0, labels, features)
        means = sums / counts[:, None]
        agreeing = torch.zeros((), device=device)
        for features, labels, logits in batches():
            residuals = features - means[labels]
            within += residuals.T @ residuals / N
            nearest = (means.square().sum(1) / 2 - features @ means.T).argmin(1)
            agreeing += (nearest == logits.argmax(1)).sum()
        M = means - means.mean(0)
        nc1 = torch.trace(within @ torch.linalg.pinv(M.T @ M / C)) / C
        units = torch.nn.functional.normalize(M)
        angles = sum((part @ units.T + 1 / (C - 1)).abs().sum() for part in units.split(1024))
        return [nc1, angles, (W / W.norm() - M / M.norm()).norm(), agreeing]

    head = torch.nn.Linear(d, C, bias=False, device=device)
    head.weight.data = W
    methods = {
        "stream": stream,
        "twice": twice,
        "peer": peer,
        "ncflow": lambda: neural_collapse(H, y, C, W, b, logits=logits),
        "nc1 float32": lambda: nc1(torch.float32),
        "nc1 float64": lambda: nc1(torch.float64),
        "all pairs": all_pairs,
        "read": H.sum,
    }
    if method == "syncs":
        metric = NeuralCollapse(C, d).to(device)
        torch.cuda.set_sync_debug_mode("warn")
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            metric.update(H[:1000], y[:1000], logits[:1000])
        print(json.dumps({"syncs": len(seen)}))
        return

    def synchronize() -> None:
        if device == "cuda":
            torch.cuda.synchronize()

    def peak() -> float:
        if device == "cuda":
            return torch.cuda.max_memory_allocated() / 2**20
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10

    # One thread: its own time, which other processes of the machine hardly change.
    clock = time.perf_counter if device == "cuda" else time.process_time
    before = peak()
    times = []
    for _ in range(repeats):
        synchronize()
        start = clock()
        methods[method]()
        synchronize()
        times.append(clock() - start)
    print(json.dumps({"seconds": statistics.median(times), "first": times[0], "mib": peak() - before}))


def measure(method: str, size: str, device: str, repeats: int) -> dict[str, float]:
    """Run :func:`child` in a fresh process."""
    command = [sys.executable, __file__, "--child", method, size, "--device", device, "--repeats", str(repeats)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--sizes", nargs="*", default=SIZES)
    parser.add_argument("--many", nargs="*", default=MANY, help="sizes of more classes than dimensions, once each")
    parser.add_argument("--skip-nc1-above", type=int, default=2048, help="dimension above which nc1 takes minutes")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(*arguments.child, arguments.device, arguments.repeats)
        return
    print(f"{'N, C, d':>18} {'ncflow':>9} {'memory':>10} {'/read':>7} {'nc1 in float32':>16} {'in float64':>16}")
    for size in arguments.sizes:
        own = measure("ncflow", size, arguments.device, arguments.repeats)
        floor = measure("read", size, arguments.device, arguments.repeats)
        line = f"{size:>18} {own['seconds']:>8.3f}s {own['mib']:>7.0f}MiB {own['seconds'] / floor['seconds']:>6.0f}x"
        if int(size.split(",")[2]) <= arguments.skip_nc1_above:
            for dtype in ("float32", "float64"):
                peer = measure(f"nc1 {dtype}", size, arguments.device, 1)["seconds"]
                line += f" {peer:>8.2f}s {peer / own['seconds']:>5.1f}x"
        print(line, flush=True)
    print(f"\n{'N, C, d':>18} {'stream':>9} {'memory':>10} {'/twice':>7} {'/peer':>7} {'its memory':>11}")
    for size in arguments.many:
        own, floor, peer = (measure(name, size, arguments.device, 1) for name in ("stream", "twice", "peer"))
        ratios = " ".join(f"{own['seconds'] / other['seconds']:>6.2f}x" for other in (floor, peer))
        print(f"{size:>18} {own['seconds']:>8.1f}s {own['mib']:>7.0f}MiB {ratios} {peer['mib']:>8.0f}MiB", flush=True)
    small = "4000,100,512"
    own, peer = (measure(name, small, arguments.device, arguments.repeats) for name in ("ncflow", "all pairs"))
    print(f"cosines over all pairs at {small}: {peer['seconds'] / own['seconds']:.1f}x the time of every measure")
    if arguments.device == "cuda":
        print(f"host syncs of a batch's update: {measure('syncs', small, 'cuda', 1)['syncs']}")


if __name__ == "__main__":
    main()
