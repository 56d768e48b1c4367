"""What of the table of runs is configuration, what of it varies, and how its values read."""

import json
import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ncflow.results.columns import PROVENANCE, REMEASURED
from ncflow.results.files import DIGEST

MEASURES = (
    "train/accuracy",
    "train/loss",
    "train/intra_min",
    "train/inter_max",
    "train/nc1",
    "train/nc3_cosine_min",
    "train/regularized_loss_gap",
    "test/accuracy",
    "seconds",
)
"""The measures of a short table of runs."""

# Neither configuration nor a measure. Where runs lie is left out: a page that is handed on names no one's folders.
_NOT_CONFIG = (
    *("seed", "run_id", "name", "runs_dir", "figures"),
    *("folder", "status", "error", "seconds", "steps_per_second", "checkpoint.keep_every_n_epochs"),
)
_EXACT = 2**53  # whole numbers beyond it are others to JavaScript


def values_of(runs: pd.DataFrame, column: str) -> list[Any]:
    """A value a run, None if it has none."""
    values = runs[column].tolist() if column in runs else [None] * len(runs)
    return [None if isinstance(value, float) and math.isnan(value) else value for value in values]


def plain_values(runs: pd.DataFrame, column: str) -> list[Any]:
    """A value a run as the page embeds it: a finite number, true, false, text, or None if it has none."""
    if column in runs and runs[column].dtype == float and (runs[column].abs() <= _EXACT).all():
        found: list[Any] = runs[column].tolist()
        return found
    return [_plain(value) for value in values_of(runs, column)]


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int | float) and math.isfinite(value) and abs(value) <= _EXACT:
        return value
    return text_of(value)


def text_of(value: Any) -> str:
    """A value in words: a float with all its digits, an integer that pandas made a float as it was."""
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return str(value)


def counted(texts: Iterable[str]) -> list[tuple[str, int]]:
    """(value, number of runs) of each value: numbers by size, then words, then what is not set."""

    def order(item: tuple[str, int]) -> tuple[bool, float, str]:
        try:
            return False, float(item[0]), item[0]
        except ValueError:
            return item[0] == text_of(None), math.inf, item[0]

    return sorted(Counter(texts).items(), key=order)


def present(runs: pd.DataFrame, column: str) -> list[str]:
    """The values of the runs that have one, in words."""
    return [text_of(value) for value in values_of(runs, column) if value is not None]


def config_texts(runs: pd.DataFrame) -> pd.DataFrame:
    """The configuration in words, of the runs that recorded one."""
    known = [column for column in runs.columns if "/" not in column and column not in _NOT_CONFIG]
    names = [column for column in known if not column.startswith(REMEASURED)]
    recorded = runs[runs[names].notna().any(axis=1)]
    return pd.DataFrame({name: [text_of(value) for value in values_of(recorded, name)] for name in names})


def varied(texts: pd.DataFrame) -> list[str]:
    """The options in which two runs differ."""
    return [name for name in texts.columns if texts[name].nunique() > 1]


def distinguishing(texts: pd.DataFrame) -> list[str]:
    """What tells runs apart; an option that only some data sets or models have adds nothing to their names."""
    options = varied(texts)
    names = [name for name in options if name.endswith(".name")]
    if not names:
        return options
    within = texts.groupby(names)[options].nunique().max()
    return [name for name in options if name in names or within[name] > 1]


def measured(runs: pd.DataFrame) -> list[str]:
    """The columns of final measures of which some run has one, time among them."""
    found = [
        str(column)
        for column in runs.columns
        if "/" in str(column) and not str(column).startswith((*PROVENANCE, DIGEST))
    ]
    return [name for name in [*found, "seconds", "steps_per_second"] if name in runs and runs[name].notna().any()]


def labels(folders: Sequence[str]) -> list[str]:
    """Folders of the runs below the folder that they share."""
    shared = shared_folder(folders)
    return [Path(folder).absolute().relative_to(shared).as_posix() for folder in folders]


def shared_folder(folders: Sequence[str]) -> Path:
    """The folder that those of all runs are in."""
    return Path(os.path.commonpath([Path(folder).absolute().parent for folder in folders]))


def versions(runs: pd.DataFrame) -> dict[str, list[tuple[str, int]]]:
    """(value, number of runs) of code, packages and machine, over the runs that recorded it."""
    columns = [str(column) for column in runs.columns if str(column).startswith(PROVENANCE)]
    found = {version_name(column): counted(present(runs, column)) for column in columns}
    return {name: counts for name, counts in found.items() if counts}


def version_name(column: str) -> str:
    """The commit of a package is called so, beside its version."""
    kind, _, name = column.partition("/")
    return f"{name} (code)" if kind == "code" else name


def json_in_parts(value: Any) -> Iterator[str]:
    """Compact JSON of plain values; the whole of it at once would take many times the memory of its text."""
    if isinstance(value, dict):
        ends, items = "{}", [(f"{json.dumps(key)}:", item) for key, item in value.items()]
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        ends, items = "[]", [("", item) for item in value]
    else:
        yield json.dumps(value, separators=(",", ":"), allow_nan=False)
        return
    yield ends[0]
    for place, (key, item) in enumerate(items):
        yield f",{key}" if place else key
        yield from json_in_parts(item)
    yield ends[1]
