#!/usr/bin/env python3
"""How often each answer of a verdict comes on planted sweeps: its error rates.

Sweeps have the design of the quickstart (five weight decays, BN and none) and its spread: the standard deviation of
seeds and, as large again, of the runs of a seed. Planted are no effect, the smallest effect that matters, twice it and
five times it. "Supported" on no effect, and "contradicted" on any, should come in at most 5 %.

usage: scripts/bench_verdicts.py [--sweeps 1000] [--seeds 3 5]
"""

import argparse
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pandas as pd

sys.path.insert(0, str(Path(__file__).parents[1]))

from ncflow.figures.papers.pan_cao.claims import (
    bn_collapse_grows_with_decay,
    bn_collapses_most,
    decay_shrinks_gamma,
)
from ncflow.figures.papers.verdict import COSINE, PER_DECADE, Answer, Claim
from tests.figures.planted import runs_of

# Of the quickstart's runs on the conic hull and on the digits with BN.
SPREAD = 0.01
EFFECTS = (0, 1, 2, 5)
Planted = Callable[[float], Callable[[str, float], dict[str, float]]]


def of_bn(size: float) -> Callable[[str, float], dict[str, float]]:
    """BN adds so many smallest effects to intra and takes them from inter."""
    gain = size * COSINE
    return lambda norm, decay: {"intra_min": 0.7 + gain * (norm == "last"), "inter_max": -gain * (norm == "last")}


def of_decay(size: float) -> Callable[[str, float], dict[str, float]]:
    """With BN a decade of weight decay adds so many smallest effects to intra and takes them from inter."""

    def measures(norm: str, decay: float) -> dict[str, float]:
        rise = size * PER_DECADE * (decay + 3) * (norm == "last")
        return {"intra_min": 0.7 + rise, "inter_max": -rise, "gamma_norm": 10 ** (1 - 0.05 * size * (decay + 3))}

    return measures


CLAIMS: tuple[tuple[Claim, Planted], ...] = (
    (bn_collapses_most, of_bn),
    (bn_collapse_grows_with_decay, of_decay),
    (decay_shrinks_gamma, of_decay),
)


def main() -> None:
    """Print a line for each claim, design and effect."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sweeps", type=int, default=1000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[3, 5])
    arguments = parser.parse_args()
    history = pd.DataFrame(columns=["folder", "epoch", "split", "layer"])
    print(f"{'claim':18} seeds effect " + " ".join(f"{answer:>15}" for answer in Answer))
    for claim, planted in CLAIMS:
        for seeds in arguments.seeds:
            for size in EFFECTS:
                counts: Counter[Answer] = Counter()
                identity = ""
                for sweep in range(arguments.sweeps):
                    verdict = claim(runs_of(planted(size), seeds=seeds, sd=SPREAD, rng=sweep), history)
                    identity = verdict.id
                    counts[verdict.answer] += 1
                shares = " ".join(f"{counts[answer] / arguments.sweeps:15.1%}" for answer in Answer)
                print(f"{identity:18} {seeds:5} {size:6} {shares}", flush=True)


if __name__ == "__main__":
    main()
