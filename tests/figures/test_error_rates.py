"""A small version of ``scripts/bench_verdicts.py``: answers counted over planted sweeps."""

from collections import Counter

import pytest
from scipy.stats import binom

from ncflow.figures.papers.pan_cao.claims import bn_collapses_most
from ncflow.figures.papers.pan_thesis.claims import only_affine_bn_collapses
from ncflow.figures.papers.verdict import Answer
from tests.figures.planted_memo import scattered_rho
from tests.figures.planted_pan import PLANTERS
from tests.figures.rates import BY_CHANCE, POWER, STANDARD, Design, count, planted, too_often

SWEEPS = 40


@pytest.mark.parametrize("claim", [bn_collapses_most, only_affine_bn_collapses])
def test_answers_come_as_often_as_they_should(claim):
    """The least over weight decays once let noise contradict the second in 23 % of the sweeps."""
    counts = {size: count(claim, PLANTERS[claim], size, STANDARD, range(SWEEPS)) for size in (0, 2)}
    assert too_often(counts) == []
    assert counts[2][Answer.SUPPORTED] >= binom.ppf(BY_CHANCE, SWEEPS, POWER)


def test_a_rate_that_is_too_high_is_found():
    rates = {Answer.SUPPORTED: 900, Answer.CONTRADICTED: 60, Answer.UNDECIDED: 40}
    counts = {size: Counter(rates) for size in (0, 2)}
    assert too_often(counts) == [(Answer.SUPPORTED, 0, 0.9)]
    counts[2][Answer.CONTRADICTED] += 50
    assert [(answer, size) for answer, size, _ in too_often(counts)] == [
        (Answer.SUPPORTED, 0),
        (Answer.CONTRADICTED, 2),
    ]


def test_several_settings_and_other_decays_are_planted():
    claim, design = bn_collapses_most, Design(seeds=3, decays=(1e-4, 1e-3), settings=3)
    runs, history = planted(PLANTERS[claim], 5, design, 0)
    assert sorted(runs["weight_decay"].unique()) == [1e-4, 1e-3]
    verdict = claim(runs, history)
    assert [setting.seeds for setting in verdict.settings] == [3, 3, 3]
    assert len({setting.effects[0].estimate.mean for setting in verdict.settings}) == 3


def test_a_planter_of_the_spread_of_seeds_has_seeds_enough():
    runs, _ = planted(scattered_rho, 2, STANDARD, 0)
    assert runs["seed"].nunique() == scattered_rho.fewest_seeds > STANDARD.seeds
