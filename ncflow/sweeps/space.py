"""What a search draws from: the options that a sweep's overrides leave open, as Optuna's distributions."""

from collections.abc import Mapping, Sequence
from itertools import product
from math import prod
from typing import Any

from hydra.core.override_parser.types import Override
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from ncflow.checks import error_line
from ncflow.config.schema import ConfigError

_MOST_COMBINED = 32  # cells that are checked before the first trial
_EXAMPLE = "'optimizer.lr=tag(log, interval(1e-4, 1e-1))'"


def space_of(overrides: Sequence[Override]) -> tuple[list[str], dict[str, BaseDistribution]]:
    """Overrides that are the same in all cells, and what those of the others are drawn from."""
    last = {override.get_key_element(): override for override in overrides}
    fixed = [str(override.input_line) for override in last.values() if not override.is_sweep_override()]
    swept = {key: override for key, override in last.items() if override.is_sweep_override()}
    if "objective" in swept:
        raise ConfigError(f"objective must be one value, or a list in brackets, found {swept['objective'].input_line}")
    if not swept:
        raise ConfigError(f"hydra/sweeper=optuna needs an option to search over, for example {_EXAMPLE}")
    return fixed, {key: _distribution(override) for key, override in swept.items()}


def _distribution(override: Override) -> BaseDistribution:
    """What Optuna draws from: an interval, a range of whole numbers, or choices."""
    sweep: Any = override.value()
    try:
        if override.is_interval_sweep():
            low, high, log = sweep.start, sweep.end, "log" in sweep.tags
            is_whole = isinstance(low, int) and isinstance(high, int)
            return IntDistribution(low, high, log) if is_whole else FloatDistribution(float(low), float(high), log)
        if override.is_range_sweep() and not sweep.shuffle:
            values = sweep.range()
            if isinstance(values, range) and values:
                low, high = sorted((values[0], values[-1]))
                return IntDistribution(low, high, step=abs(values.step))
        return CategoricalDistribution(list(dict.fromkeys(override.sweep_string_iterator())))
    except ValueError as error:
        rule = f"{override.get_key_element()} must be what can be drawn from"
        raise ConfigError(f"{rule}, found {override.input_line} ({error_line(error)})") from error


def candidates(space: Mapping[str, BaseDistribution]) -> list[dict[str, Any]]:
    """Trials that between them have every choice and both ends of every interval, combined if few."""
    ends = {key: _ends(distribution) for key, distribution in space.items()}
    if prod(map(len, ends.values())) <= _MOST_COMBINED:
        return [dict(zip(ends, values, strict=True)) for values in product(*ends.values())]
    first = {key: values[0] for key, values in ends.items()}
    return [first, *({**first, key: value} for key, values in ends.items() for value in values[1:])]


def _ends(distribution: BaseDistribution) -> Sequence[Any]:
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    return distribution.low, distribution.high


def lines_of(params: Mapping[str, Any]) -> list[str]:
    """Overrides of a trial; choices are text as Hydra writes it."""
    return [f"{key}={value}" for key, value in params.items()]
