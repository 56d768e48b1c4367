"""Verdicts for people: the lines of the terminal and of the report."""

import re

from ncflow.figures.papers.verdict import MOST_SEEDS, Answer, Effect, Setting, Verdict
from ncflow.results.report import counted, wrapped

_MOST_SHOWN = 4
_INDENT = " " * 18
_WORST_NEWS_FIRST = [Answer.CONTRADICTED, Answer.NO_EFFECT, Answer.UNDECIDED, Answer.NOT_ENOUGH, Answer.SUPPORTED]


def in_words(verdict: Verdict) -> str:
    """A verdict as some lines: the answer and the claim, and its numbers below."""
    first = wrapped(f"{verdict.claim} ({verdict.quantifier})", f"{verdict.answer.upper():>16}  ", _INDENT)
    return "\n".join([first, *(wrapped(line, _INDENT, f"{_INDENT}  ") for line in numbers(verdict))])


def numbers(verdict: Verdict) -> tuple[str, ...]:
    """A line for each setting, the worst news first; then what makes the difference, is needed or was left out."""
    lines = []
    for setting in sorted(verdict.settings, key=lambda one: (one.excepted, _WORST_NEWS_FIRST.index(one.answer))):
        told = f"not counted, {setting.answer}" if setting.excepted else setting.answer
        note = f"; {setting.note}" if setting.note else ""
        lines.append(f"{told}: {setting.name}: {effects(setting)}; {_basis(setting)}{note}")
    lines += [f"against: {setting.name}: {_who(setting)}" for setting in verdict.against]
    if verdict.answer == Answer.NOT_ENOUGH:
        lines.append(f"needs {verdict.needs}")
    if verdict.answer == Answer.UNDECIDED:
        lines.append(_deciding_recipe(verdict))
    if verdict.left_out:
        lines.append("left out: " + ", ".join(f"{count} {reason}" for reason, count in verdict.left_out.items()))
    return tuple(lines)


def _basis(setting: Setting) -> str:
    return f"{counted(setting.seeds, 'seed')}, {counted(setting.runs, 'run')}"


def effects(setting: Setting) -> str:
    """What a setting says; of many effects, the one that is furthest from what is claimed."""
    if len(setting.effects) <= _MOST_SHOWN or not setting.is_testable:
        return "; ".join(map(_effect, setting.effects[:_MOST_SHOWN])) or "too few runs"
    return f"worst of {len(setting.effects)}: {_effect(setting.worst_first[0])}"


def _effect(effect: Effect) -> str:
    if not effect.is_testable:
        return f"{effect.quantity}: {counted(len(effect.blocks), 'seed')}, two are needed"
    low, high = effect.estimate.interval
    at_most = "at most " if effect.absent else ""
    return (
        f"{effect.quantity} {effect.estimate.mean:+.3f} [{low:+.3f}, {high:+.3f}] "
        f"(matters from {at_most}{effect.smallest:g})"
    )


def _who(setting: Setting) -> str:
    """Of a setting that is not supported: which parts and seeds make the difference."""
    parts = []
    for effect, seeds in setting.against[:_MOST_SHOWN]:
        count, some = len(effect.blocks), f"seed{'s' * (len(seeds) > 1)} {', '.join(f'{seed:g}' for seed in seeds)} of"
        those = f"all {counted(count, 'seed')}" if len(seeds) == count else f"{some} {count}"
        side = "above" if effect.absent else "below"
        parts.append(
            f"{effect.quantity}: "
            + (f"{those} {side} {effect.smallest:g}" if seeds else "none by itself, the interval is too wide")
        )
    more = len(setting.against) - len(parts)
    return "; ".join([*parts, *([f"and {more} more"] if more else [])])


def _deciding_recipe(verdict: Verdict) -> str:
    """Of an undecided one, the runs that would decide it."""
    seeds = verdict.seeds_to_decide
    if seeds is None:
        return f"more than {MOST_SEEDS} seeds like these would be needed to decide it"
    recipe = re.sub(r"seed=[\d,]+", f"'seed=range({seeds})'", verdict.needs)
    return f"about {seeds} seeds would decide it, if they are like these: {recipe}"
