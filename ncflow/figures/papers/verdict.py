"""How a claim is judged: effects over seeds, five answers, and the text's own quantifier over settings.

A setting's effect is one number a seed, paired within the seed. Seeds are the blocks: the interval is Student's t over
them. An effect matters if it is larger than a named smallest one, and every answer is a one-sided test at
:data:`LEVEL` against that bound, so that a missing significance is never evidence of absence:

* *supported*: larger than the smallest effect that matters, in the claimed direction;
* *contradicted*: larger in the other direction;
* *no effect*: smaller than it in both directions (two one-sided tests, Schuirmann 1987);
* *undecided*: none of these;
* *not enough runs*: no test is possible.

A claim about several quantities is supported in a setting if each of them is (an intersection-union test, Berger 1982,
which needs no correction); it is contradicted if one of them is, for which their number is corrected. Over settings
"all" is such a test again, and "most" and "some" count the settings that Holm's procedure leaves.
"""

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cached_property
from math import isfinite, log10

import pandas as pd

from ncflow.figures.papers.one_sided import LEVEL, SURE, Estimate, rejected

MOST_SEEDS = 1000
"""Beyond, it is not said how many would decide a claim."""
SEEDS = "seed=0,1,2,3,4"
"""The override that most claims need at least."""
COSINE = 0.02
"""Smallest difference of two cosines that matters: about a degree near a right angle, and what a seed may do alone."""
FACTOR_TWO = log10(2)
"""Decades: what ranges over many of them, such as NC1, NC0 and losses, matters from a factor of two on."""
PER_DECADE = 0.02
"""Smallest change of a cosine that matters while weight decay, or gamma, grows tenfold."""


class Answer(StrEnum):
    """What runs say of a claim."""

    SUPPORTED = "supported"
    CONTRADICTED = "contradicted"
    NO_EFFECT = "no effect"
    UNDECIDED = "undecided"
    NOT_ENOUGH = "not enough runs"


class Quantifier(StrEnum):
    """In how many settings the text claims it."""

    ALL = "in all settings"
    MOST = "in most settings"
    SOME = "in some setting"


@dataclass(frozen=True)
class Effect:
    """A quantity of a setting, one value a seed, positive in the claimed direction.

    Attributes:
        quantity: What it is, in words, with its unit.
        smallest: The smallest effect that matters, > 0.
        blocks: Its value in each seed.
        absent: Whether the claim is that there is no such effect, or the opposite one.
        expected_of: If given, the tests are those to be expected of so many seeds that are like the blocks'.
    """

    quantity: str
    smallest: float
    blocks: Mapping[float, float]
    absent: bool = False
    expected_of: int | None = None

    @property
    def is_testable(self) -> bool:
        """Whether there are two seeds or more, all with finite values."""
        return len(self.blocks) > 1 and all(map(isfinite, self.blocks.values()))

    @cached_property
    def estimate(self) -> Estimate:
        """Over the seeds, if it is testable."""
        found = Estimate.of(self.blocks.values())
        return found if self.expected_of is None else found.with_seeds(self.expected_of)

    @cached_property
    def p_supported(self) -> float:
        """Of one-sided tests: p of the claim."""
        return self.estimate.below(self.smallest) if self.absent else self.estimate.above(self.smallest)

    @cached_property
    def p_contradicted(self) -> float:
        """Of one-sided tests: p of its opposite."""
        return self.estimate.above(self.smallest) if self.absent else self.estimate.below(-self.smallest)

    @cached_property
    def p_no_effect(self) -> float:
        """Of one-sided tests: p of nothing that matters, if the claim is that there is something."""
        if self.absent:
            return 1.0
        return max(self.estimate.below(self.smallest), self.estimate.above(-self.smallest))

    @property
    def against(self) -> tuple[float, ...]:
        """The seeds whose value, by itself, is not beyond the smallest effect that matters as claimed."""
        values = self.blocks.items()
        return tuple(seed for seed, x in values if (x >= self.smallest if self.absent else x <= self.smallest))


@dataclass(frozen=True)
class Setting:
    """What one setting says: data, network and recipe are one and the same, seeds differ.

    Attributes:
        name: What tells it apart.
        effects: All that the claim says of it; empty if runs are missing.
        runs: How many count.
        note: What else is to be known, such as runs that were left out.
        excepted: Whether it is reported and not counted, for the reason in the note: the authors except it, or their
            text is not about it.
    """

    name: str
    effects: tuple[Effect, ...]
    runs: int
    note: str = ""
    excepted: bool = False

    @property
    def is_testable(self) -> bool:
        """Whether all effects are."""
        return bool(self.effects) and all(effect.is_testable for effect in self.effects)

    @property
    def seeds(self) -> int:
        """Seeds, the least of the effects'."""
        return min((len(effect.blocks) for effect in self.effects), default=0)

    @property
    def p_supported(self) -> float:
        """Of one-sided tests: p of the claim here."""
        return max(effect.p_supported for effect in self.effects)

    @property
    def p_contradicted(self) -> float:
        """Of one-sided tests: p of the opposite of a part of it."""
        return min(1.0, len(self.effects) * min(effect.p_contradicted for effect in self.effects))

    @property
    def p_no_effect(self) -> float:
        """Of one-sided tests: p of the absence of a part of it that is not itself an absence."""
        parts = [effect.p_no_effect for effect in self.effects if not effect.absent]
        return min(1.0, len(parts) * min(parts)) if parts else 1.0

    @property
    def worst_first(self) -> list[Effect]:
        """Its effects, that which is furthest from what is claimed before all others."""
        return sorted(self.effects, key=lambda effect: -effect.p_supported)

    @property
    def against(self) -> tuple[tuple[Effect, tuple[float, ...]], ...]:
        """What keeps it from being supported, the worst first: effects, each with the seeds on the wrong side."""
        if not self.is_testable:
            return ()
        return tuple((effect, effect.against) for effect in self.worst_first if effect.p_supported >= LEVEL)

    @property
    def answer(self) -> Answer:
        """Of this setting by itself, counted or not."""
        return judge_settings([replace(self, excepted=False)], Quantifier.ALL)


def judge_settings(settings: Sequence[Setting], quantifier: Quantifier, level: float = LEVEL) -> Answer:
    """The answer over settings.

    Args:
        settings: Those that count and can be tested; none is *not enough runs*.
        quantifier: In how many of them the text claims it.
        level: Of each test.
    """
    found = [setting for setting in settings if setting.is_testable and not setting.excepted]
    if not found:
        return Answer.NOT_ENOUGH
    ps = {
        Answer.SUPPORTED: [setting.p_supported for setting in found],
        Answer.CONTRADICTED: [setting.p_contradicted for setting in found],
        Answer.NO_EFFECT: [setting.p_no_effect for setting in found],
    }
    needed = {
        Quantifier.ALL: (len(found), 1, 1),
        Quantifier.MOST: (len(found) // 2 + 1,) * 3,
        Quantifier.SOME: (1, len(found), len(found)),
    }[quantifier]
    for (answer, values), least in zip(ps.items(), needed, strict=True):
        if rejected(values, least, level):
            return answer
    return Answer.UNDECIDED


@dataclass(frozen=True)
class Verdict:
    """What runs say of a claim.

    Attributes:
        id: Its stable name, such as ``pan_cao/1``.
        claim: The claim, in our words.
        source: Paper and section.
        quantifier: In how many settings the text claims it.
        settings: What each setting says.
        needs: What runs are needed at least, as overrides of ``ncflow``.
        departure: Where the test departs from the text.
        left_out: How many runs do not count, by the reason.
    """

    id: str
    claim: str
    source: str
    quantifier: Quantifier
    settings: tuple[Setting, ...]
    needs: str
    departure: str = ""
    left_out: dict[str, int] = field(default_factory=dict)

    @property
    def answer(self) -> Answer:
        """The answer."""
        return judge_settings(self.settings, self.quantifier)

    @property
    def against(self) -> tuple[Setting, ...]:
        """The settings that keep it from being supported, where it is not: what the authors' answer would need."""
        if self.answer in (Answer.SUPPORTED, Answer.NOT_ENOUGH):
            return ()
        return tuple(setting for setting in self.settings if not setting.excepted and setting.against)

    @property
    def seeds_to_decide(self) -> int | None:
        """Of an undecided one, the seeds that would decide it in about four of five cases if they are like these.

        None if it is decided, or if more than a thousand were needed.
        """
        if self.answer != Answer.UNDECIDED:
            return None

        def is_decided(seeds: int) -> bool:
            settings = [
                replace(setting, effects=tuple(replace(effect, expected_of=seeds) for effect in setting.effects))
                for setting in self.settings
            ]
            return judge_settings(settings, self.quantifier, SURE) != Answer.UNDECIDED

        seeds = bisect_left(range(MOST_SEEDS + 1), True, lo=2, key=is_decided)
        return seeds if seeds <= MOST_SEEDS else None


Claim = Callable[[pd.DataFrame, pd.DataFrame], Verdict]
"""From the tables of runs and histories to a verdict."""
