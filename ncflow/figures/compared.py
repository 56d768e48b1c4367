"""Two sweeps beside each other: of each setting that both have, a measure in one, in the other, and the difference."""

from collections.abc import Sequence

import pandas as pd
from scipy import stats

from ncflow.checks import ArgumentError
from ncflow.figures.asked import key_of, values_of
from ncflow.figures.tables import numbers
from ncflow.figures.varied import options
from ncflow.results import Status, one_line

A, B, DIFFERENCE, LOW, HIGH, SEEDS = "A", "B", "B - A", "low", "high", "seeds"
USUAL = ("train/intra_min", "train/inter_max", "train/nc1", "train/nc3_cosine_min", "test/accuracy")
_CONFIDENCE = 0.95


def compare(one: pd.DataFrame, other: pd.DataFrame, measures: Sequence[str]) -> tuple[list[str], pd.DataFrame]:
    """What tells two sweeps apart, in lines, and a row for each setting that both have and each measure.

    A setting is what the config says beside the seed and beside what tells the sweeps apart: options that each sweep
    has one value of, which is not the other's. Seeds that both have are paired: the interval is Student's t of their
    differences; where there are none, Welch's of the two means. Both are of 95 %.

    Args:
        one: Runs of A, of :func:`ncflow.results.load_runs`; only those that are done count.
        other: Runs of B.
        measures: Columns of numbers.

    Returns:
        The lines; and the table: the options that differ between settings, ``measure``, mean, ``A sd``, ``A runs`` and
        the same of B, ``B - A``, its interval ``low`` and ``high`` (NaN with fewer than two seeds), and ``seeds``, how
        many were paired, 0 where they are not.

    Raises:
        ArgumentError: If a sweep has two runs of one setting and seed, or the two have no setting in common.
    """
    one, other = (runs[runs["status"] == Status.DONE].reset_index(drop=True) for runs in (one, other))
    both = pd.concat([one, other], ignore_index=True)
    is_other = pd.Series([False] * len(one) + [True] * len(other), index=both.index)
    varied = [column for column in options(both) if both[column].map(key_of).nunique() > 1]
    apart = [column for column in varied if _tells_apart(both[column].map(key_of), is_other)]
    keys = _telling([column for column in varied if column not in apart], both)
    settings = pd.Series(list(zip(*(both[column].map(key_of) for column in keys), strict=True)) or [()] * len(both))
    for named, part in both.assign(setting=settings).groupby(is_other):
        twice = part.duplicated(["setting", "seed"], keep=False)
        if twice.any():
            same = part[twice]["folder"].iloc[:2]
            rule = "a sweep must have one run of each setting and seed"
            raise ArgumentError(f"{rule}, found in {B if named else A}: {' and '.join(one_line(f, 200) for f in same)}")
    shared = [s for s in dict.fromkeys(settings[~is_other]) if s in set(settings[is_other])]
    if not shared:
        raise ArgumentError(f"two sweeps must have a setting in common, found none: they vary {', '.join(varied)}")
    lines = [f"{c}: A {values_of(both[c][~is_other])}, B {values_of(both[c][is_other])}" for c in apart]
    lines += [
        f"only in {name}: {count} setting{'s' * (count > 1)}"
        for name, count in (
            (A, len(set(settings[~is_other]) - set(shared))),
            (B, len(set(settings[is_other]) - set(shared))),
        )
        if count
    ]
    rows = []
    for setting in shared:
        mine, theirs = (both[(settings == setting) & (is_other == whose)] for whose in (False, True))
        told = mine[keys].iloc[0].to_dict()
        rows += [{**told, "measure": name, **_difference(mine, theirs, name)} for name in measures]
    return lines, pd.DataFrame(rows)


def _telling(columns: Sequence[str], runs: pd.DataFrame) -> list[str]:
    """Of some columns those that tell settings apart which the ones before do not: names first."""
    kept: list[str] = []
    known = 1
    for column in sorted(columns, key=lambda column: (not column.endswith(".name"), column.endswith("._target_"))):
        found = len(runs[[*kept, column]].map(key_of).drop_duplicates())
        if found > known:
            kept, known = [*kept, column], found
    return kept


def _tells_apart(values: "pd.Series[str]", is_other: "pd.Series[bool]") -> bool:
    return values[~is_other].nunique() == 1 == values[is_other].nunique()


def _difference(mine: pd.DataFrame, theirs: pd.DataFrame, name: str) -> dict[str, float]:
    ours, others = (
        numbers(runs.set_index("seed")[name] if name in runs else pd.Series(dtype=float)).dropna()
        for runs in (mine, theirs)
    )
    table: dict[str, float] = {}
    for letter, values in ((A, ours), (B, others)):
        table |= {letter: values.mean(), f"{letter} sd": values.std(), f"{letter} runs": len(values)}
    paired = (others - ours).dropna()
    low = high = float("nan")
    difference = paired.mean() if len(paired) else others.mean() - ours.mean()
    if len(paired) > 1:
        found = (
            stats.ttest_1samp(paired, 0.0).confidence_interval(_CONFIDENCE) if paired.std() > 0 else (difference,) * 2
        )
        low, high = map(float, found)
    elif len(paired) == 0 and min(len(ours), len(others)) > 1:
        welch = stats.ttest_ind(others, ours, equal_var=False).confidence_interval(_CONFIDENCE)
        low, high = welch.low, welch.high
    return {**table, DIFFERENCE: difference, LOW: low, HIGH: high, SEEDS: len(paired)}
