"""How often each answer of a claim comes over planted sweeps of a design, and which of these rates are too high."""

import inspect
from collections import Counter
from dataclasses import dataclass

import pandas as pd
from scipy.stats import binom

from ncflow.figures.papers.one_sided import LEVEL
from ncflow.figures.papers.verdict import Answer
from tests.figures.planted import DECAYS

EFFECTS = (0, 1, 2, 5)
POWER = 0.8
BY_CHANCE = 1e-4
WRONG = {
    Answer.SUPPORTED: [size for size in EFFECTS if size <= 1],
    Answer.CONTRADICTED: list(EFFECTS),
}
"""At which sizes of an effect an answer is wrong, and comes in at most 5 %."""


@dataclass(frozen=True)
class Design:
    """What a sweep consists of: seeds, weight decays, and settings that differ in nothing but their name."""

    seeds: int = 5
    decays: tuple[float, ...] = DECAYS
    settings: int = 1

    def __str__(self):
        return f"{self.seeds} seeds, {len(self.decays)} decays, {self.settings} setting{'s' * (self.settings > 1)}"


STANDARD = Design()


def suits(planter, design):
    """Whether a planter can plant a design: some have the weight decays of their paper alone."""
    return design.decays == DECAYS or "decays" in inspect.signature(planter).parameters


def seeds_of(planter, design):
    """How many seeds are planted: no fewer than a planter needs whose claim is on the spread of seeds."""
    return max(design.seeds, getattr(planter, "fewest_seeds", 0))


def planted(planter, size, design, rng):
    """(runs, history) of a sweep of the planter's own spread; the same ``rng`` gives the same noise at every size."""
    swept = {"decays": design.decays} if "decays" in inspect.signature(planter).parameters else {}
    parts = []
    for place in range(design.settings):
        runs, history = planter(size, seeds=seeds_of(planter, design), rng=rng + 1_000_000 * place, **swept)
        if design.settings > 1:
            runs = runs.assign(**{"folder": runs["folder"] + f"#{place}", "data.of_setting": place})
            history = history.assign(folder=history["folder"] + f"#{place}")
        parts.append((runs, history))
    runs, history = (pd.concat(tables, ignore_index=True) for tables in zip(*parts, strict=True))
    return runs, history


def count(claim, planter, size, design, sweeps):
    """A counter of answers over the sweeps with these seeds of the noise."""
    return Counter(claim(*planted(planter, size, design, rng)).answer for rng in sweeps)


def share(counts, answer, sizes):
    """The largest share of an answer over sizes of the effect; ``counts`` has a counter for each."""
    return max(counts[size][answer] / counts[size].total() for size in sizes)


def too_often(counts):
    """(answer, size, share) of each wrong answer that comes in more than 5 % of the sweeps, beyond what is chance."""
    cells = [(answer, size, counts[size]) for answer, sizes in WRONG.items() for size in sizes if size in counts]
    return [
        (answer, size, own[answer] / own.total())
        for answer, size, own in cells
        if binom.sf(own[answer] - 1, own.total(), LEVEL) < BY_CHANCE
    ]
