#!/usr/bin/env python3
"""How often each answer of a verdict comes on planted sweeps: its error rates, and its power.

Of each claim sweeps are planted with no effect, the smallest effect that matters, twice and five times it. The standard
design has 5 seeds, 5 weight decays and one setting; the others have 3 seeds, or 7 weight decays, or three settings. The
spread between seeds and of runs is the planters' own, from real runs; see tests/figures/planted.py.

Wrong are "supported" at up to the smallest effect and "contradicted" at any. Each should come in at most 5 % of the
sweeps, and "supported" at twice the smallest in at least 80 % with the standard design; else the exit status is 1. A
rate counts as above 5 % if as many come by chance in less than 1 of 10,000 cases. Beside them is told how often "no
effect" comes at the smallest effect, where it is as good as true.

usage: scripts/bench_verdicts.py [--sweeps 1000] [--others 200] [--claim ID ...] [--workers 2]
"""

import argparse
import os
import sys
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from importlib import import_module
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[1]))

from ncflow.figures.papers.verdict import Answer, Claim
from tests.figures.rates import (
    EFFECTS,
    POWER,
    STANDARD,
    WRONG,
    Design,
    count,
    planted,
    seeds_of,
    share,
    suits,
    too_often,
)

ROOT = Path(__file__).parents[1]
OTHERS = (Design(seeds=3), Design(decays=(1e-4, 3e-4, 5e-4, 1e-3, 3e-3, 5e-3, 1e-2)), Design(settings=3))
# Each has a planter for every claim of some papers.
FILES = [path.stem for path in sorted(ROOT.glob("tests/figures/planted_*.py")) if path.stem != "planted_experiments"]
PLANTED = [import_module(f"tests.figures.{name}") for name in FILES]
PLANTERS: dict[Claim, Callable] = {claim: planter for file in PLANTED for claim, planter in file.PLANTERS.items()}
_EDGE = {"no effect at the smallest": (Answer.NO_EFFECT, [1])}
_CHUNK = 50
Counts = dict[int, Counter]


def main() -> None:
    """Print a line for each claim, design and effect, and a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sweeps", type=int, default=1000, help="of the standard design")
    parser.add_argument("--others", type=int, default=200, help="of each other design")
    parser.add_argument("--claim", nargs="+", default=[], help="ids such as pan_cao/1; all by default")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parsed = parser.parse_args()
    named = {planted_id(claim, planter): (claim, planter) for claim, planter in PLANTERS.items()}
    chosen = {name: both for name, both in named.items() if not parsed.claim or name in parsed.claim}
    designs = {STANDARD: parsed.sweeps, **(dict.fromkeys(OTHERS, parsed.others) if parsed.others else {})}
    width = max(map(len, chosen))
    print(f"{'claim':{width}} {'design':30} effect " + " ".join(f"{answer:>15}" for answer in Answer), flush=True)
    found: dict[tuple[str, Design], Counts] = {}
    with ProcessPoolExecutor(parsed.workers) as pool:
        futures = {
            (name, design, size): [
                pool.submit(count, *both, size, design, range(start, min(start + _CHUNK, sweeps)))
                for start in range(0, sweeps, _CHUNK)
            ]
            for name, both in chosen.items()
            for design, sweeps in designs.items()
            if suits(both[1], design)
            for size in EFFECTS
        }
        for (name, design, size), parts in futures.items():
            counts = sum((part.result() for part in parts), Counter())
            shares = " ".join(f"{counts[answer] / counts.total():15.1%}" for answer in Answer)
            print(f"{name:{width}} {design!s:30} {size:6} {shares}", flush=True)
            found.setdefault((name, design), {})[size] = counts
    more = {name: seeds_of(planter, STANDARD) for name, (_, planter) in chosen.items()}
    print(table(found, {name: seeds for name, seeds in more.items() if seeds > STANDARD.seeds}))
    failing = failures(found)
    print("\n".join(failing) or "all rates are as they should be")
    raise SystemExit(bool(failing))


def planted_id(claim: Claim, planter: Callable) -> str:
    """The id of a claim's verdicts."""
    return claim(*planted(planter, 0, STANDARD, 0)).id


def table(found: dict[tuple[str, Design], Counts], more_seeds: dict[str, int]) -> str:
    """In Markdown: largest rates of wrong answers, of the standard design (and of the worst of all), and the power.

    Args:
        found: The answers of each claim and design.
        more_seeds: Of the claims that need more than the designs have.
    """
    told = {**{f"false {answer}": (answer, sizes) for answer, sizes in WRONG.items()}, **_EDGE}
    head = ["claim", *told, "supported at twice the smallest", "with 3 seeds"]
    lines = ["", f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for name in dict.fromkeys(name for name, _ in found):
        own = {design: counts for (other, design), counts in found.items() if other == name}
        cells = []
        for answer, sizes in told.values():
            rates = {design: share(counts, answer, sizes) for design, counts in own.items()}
            worst = f" ({max(rates.values()):.1%})" if len(rates) > 1 else ""
            cells.append(f"{rates[STANDARD]:.1%}{worst}")
        both = (own.get(design) for design in (STANDARD, OTHERS[0]))
        power = [f"{share(counts, Answer.SUPPORTED, [2]):.0%}" if counts else "" for counts in both]
        needs = f" (all with {more_seeds[name]} seeds)" if name in more_seeds else ""
        lines.append(f"| {' | '.join([f'`{name}`{needs}', *cells, *power])} |")
    return "\n".join(lines)


def failures(found: dict[tuple[str, Design], Counts]) -> list[str]:
    """A line for each rate that is not as it should be."""
    lines = []
    for (name, design), counts in found.items():
        wrong = too_often(counts)
        lines += [f"{name}, {design}, effect {size}: {answer} in {often:.1%}" for answer, size, often in wrong]
        power = share(counts, Answer.SUPPORTED, [2])
        if design == STANDARD and power < POWER:
            lines.append(f"{name}, {design}: supported in {power:.1%} at twice the smallest effect")
    return lines


if __name__ == "__main__":
    main()
