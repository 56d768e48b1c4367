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

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

_MOST_SHOWN = 4
LEVEL = 0.05
"""Of every one-sided test; intervals are those of two such tests, at 1 - 2 LEVEL."""
COSINE = 0.02
"""Smallest difference of two cosines that matters: about a degree near a right angle, and what a seed may do alone."""
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
    """

    quantity: str
    smallest: float
    blocks: tuple[float, ...]
    absent: bool = False

    @property
    def is_testable(self) -> bool:
        """Whether there are two seeds or more, all with finite values."""
        return len(self.blocks) > 1 and bool(np.isfinite(self.blocks).all())

    @property
    def mean(self) -> float:
        """The estimate."""
        return float(np.mean(self.blocks))

    @cached_property
    def interval(self) -> tuple[float, float]:
        """Of the estimate, at 1 - 2 LEVEL."""
        half = self._error * float(stats.t.ppf(1 - LEVEL, len(self.blocks) - 1))
        return self.mean - half, self.mean + half

    @property
    def _error(self) -> float:
        return float(np.std(self.blocks, ddof=1) / np.sqrt(len(self.blocks)))

    def _above(self, bound: float) -> float:
        """Of one-sided tests: p of the effect being larger than a bound."""
        if self._error == 0:  # all seeds alike
            return 0.0 if self.mean > bound else 1.0
        return float(stats.t.sf((self.mean - bound) / self._error, len(self.blocks) - 1))

    def _below(self, bound: float) -> float:
        if self._error == 0:
            return 0.0 if self.mean < bound else 1.0
        return float(stats.t.cdf((self.mean - bound) / self._error, len(self.blocks) - 1))

    @property
    def p_supported(self) -> float:
        """Of one-sided tests: p of the claim."""
        return self._below(self.smallest) if self.absent else self._above(self.smallest)

    @property
    def p_contradicted(self) -> float:
        """Of one-sided tests: p of its opposite."""
        return self._above(self.smallest) if self.absent else self._below(-self.smallest)

    @property
    def p_no_effect(self) -> float:
        """Of one-sided tests: p of nothing that matters, if the claim is that there is something."""
        return 1.0 if self.absent else max(self._below(self.smallest), self._above(-self.smallest))

    def __str__(self) -> str:
        if not self.is_testable:
            return f"{self.quantity}: {len(self.blocks)} seed{'s' * (len(self.blocks) != 1)}, two are needed"
        low, high = self.interval
        at_most = "at most " if self.absent else ""
        return f"{self.quantity} {self.mean:+.3f} [{low:+.3f}, {high:+.3f}] (matters from {at_most}{self.smallest:g})"


@dataclass(frozen=True)
class Setting:
    """What one setting says: data, network and recipe are one and the same, seeds differ.

    Attributes:
        name: What tells it apart.
        effects: All that the claim says of it; empty if runs are missing.
        runs: How many count.
        note: What else is to be known, such as runs that were left out.
        excepted: Whether the authors except it: it is reported and not counted.
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
        """Of one-sided tests: p of the absence of a part of it."""
        return min(1.0, len(self.effects) * min(effect.p_no_effect for effect in self.effects))

    @property
    def words(self) -> str:
        """Its effects; of many, the one that is furthest from what is claimed."""
        if len(self.effects) <= _MOST_SHOWN or not self.is_testable:
            return "; ".join(map(str, self.effects[:_MOST_SHOWN])) or "too few runs"
        worst = max(self.effects, key=lambda effect: effect.p_supported)
        return f"worst of {len(self.effects)}: {worst}"

    @property
    def answer(self) -> Answer:
        """Of this setting by itself."""
        return judge_settings([self], Quantifier.ALL)


def judge_settings(settings: Sequence[Setting], quantifier: Quantifier) -> Answer:
    """The answer over settings.

    Args:
        settings: Those that count and can be tested; none is *not enough runs*.
        quantifier: In how many of them the text claims it.
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
        if rejected(values, least):
            return answer
    return Answer.UNDECIDED


def rejected(ps: Sequence[float], least: int) -> bool:
    """Whether at least so many hypotheses are rejected; all of them need no correction, fewer are Holm's (1979)."""
    ordered = sorted(ps)
    if least == len(ps):
        return ordered[-1] < LEVEL
    return all(p < LEVEL / (len(ps) - place) for place, p in enumerate(ordered[:least]))


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
    def numbers(self) -> tuple[str, ...]:
        """A line for each effect of each setting, the worst news first; last what was left out or is needed."""
        order = [Answer.CONTRADICTED, Answer.NO_EFFECT, Answer.UNDECIDED, Answer.NOT_ENOUGH, Answer.SUPPORTED]
        lines = []
        for setting in sorted(self.settings, key=lambda setting: order.index(setting.answer)):
            told = "excepted by the authors" if setting.excepted else setting.answer
            words = setting.words
            note = f"; {setting.note}" if setting.note else ""
            lines.append(f"{told}: {setting.name}: {words}; {setting.seeds} seeds, {setting.runs} runs{note}")
        if self.answer in (Answer.NOT_ENOUGH, Answer.UNDECIDED):
            lines.append(f"needs {self.needs}")
        if self.left_out:
            lines.append("left out: " + ", ".join(f"{count} {reason}" for reason, count in self.left_out.items()))
        return tuple(lines)

    def __str__(self) -> str:
        lines = [f"{self.answer.upper():>16}  {self.claim} ({self.quantifier})"]
        return "\n".join([*lines, *(f"{'':18}{line}" for line in self.numbers)])

    def as_json(self) -> dict[str, Any]:
        """For machines."""
        return {
            "maker": "ncflow",
            "id": self.id,
            "claim": self.claim,
            "answer": str(self.answer),
            "source": self.source,
            "departure": self.departure,
            "quantifier": str(self.quantifier),
            "needs": self.needs,
            "settings": [_setting_as_json(setting) for setting in self.settings],
            "left_out": self.left_out,
        }


def _setting_as_json(setting: Setting) -> dict[str, Any]:
    return {
        "name": setting.name,
        "answer": str(setting.answer),
        "excepted": setting.excepted,
        "runs": setting.runs,
        "note": setting.note,
        "effects": [
            {
                "quantity": effect.quantity,
                "smallest": effect.smallest,
                "absent": effect.absent,
                "blocks": list(effect.blocks),
                "mean": effect.mean if effect.is_testable else None,
                "interval": list(effect.interval) if effect.is_testable else None,
            }
            for effect in setting.effects
        ],
    }


Claim = Callable[[pd.DataFrame, pd.DataFrame], Verdict]
"""From the tables of runs and histories to a verdict."""
