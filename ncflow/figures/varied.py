"""What varies between runs and is no seed: the cut of a table of runs into panels, series and settings."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ncflow.figures.style import data_label, words
from ncflow.figures.tables import is_missing, is_number
from ncflow.results import Status
from ncflow.results.columns import DATA_DIGEST, PROVENANCE, REMEASURED, SPLITS, is_left_out
from ncflow.results.files import DIGEST

BN = ("model.norm", "model.norm_bias", "model.affine")
"""Config columns of a BN placement."""

INSIDE = ("weight_decay", *BN)
"""What most figures show inside a panel, by its axis and its colours."""

# Columns that are neither config nor a measure.
_NOT_CONFIG = ("seed", "run_id", "name", "folder", "status", "error", "seconds", "steps_per_second", "experiment")

_NOT_PREFIXES = (*SPLITS, *PROVENANCE, DIGEST, REMEASURED)

# Of what and when is measured, these alone change what a measure is.
_MEASURE, _OF_MEASURES = "measure.", ("measure.delta", "measure.self_pairs")

_PATH = "data.path"


def is_config(column: str) -> bool:
    """Whether a column of the table of runs says what a run's numbers are of, its seed aside."""
    if column in _NOT_CONFIG or column.startswith(_NOT_PREFIXES) or is_left_out(column):
        return False
    return not column.startswith(_MEASURE) or column in _OF_MEASURES


def panel_keys(runs: pd.DataFrame, *more: str, inside: Sequence[str] = INSIDE) -> list[str]:
    """Config columns that differ between the runs and are neither an axis nor a series of a panel.

    Args:
        runs: Table of :func:`ncflow.results.load_runs`.
        more: Further columns that vary inside a panel.
        inside: Those that vary inside the panels of most figures.
    """
    keys = [column for column in options(runs) if column not in (*inside, *more)]
    # An option that only some data sets or models have differs by being absent; the name says that already.
    named = [key for key in keys if key.endswith(".name") and len(set(map(place_of, runs[key].tolist()))) > 1]
    groups = _groups(runs, [str(column) for column in runs.columns if str(column).endswith(".name")])
    varied = [key for key in keys if not key.endswith((".name", "._target_")) and _varies(runs[key], groups)]
    return [*named, *varied]


def varied(runs: pd.DataFrame, groups: Sequence[tuple[str, ...]]) -> list[str]:
    """Config columns in which runs of one group differ, the seed apart.

    Args:
        runs: Table of :func:`ncflow.results.load_runs`.
        groups: The group of each run.
    """
    return [column for column in options(runs) if _varies(runs[column], groups)]


def options(runs: pd.DataFrame) -> list[str]:
    """The columns of the config that the numbers of a run depend on, the seed apart.

    Args:
        runs: Table of :func:`ncflow.results.load_runs`.
    """
    known = _digested(runs)  # a file is what is in it, wherever it lies; older runs say the place alone
    return [column for column in map(str, runs.columns) if is_config(column) and not (column == _PATH and known)]


def _digested(runs: pd.DataFrame) -> bool:
    """Whether each run of a file says what was in it."""
    if not {_PATH, DATA_DIGEST} <= set(runs.columns):
        return False
    return bool((runs[_PATH].isna() | runs[DATA_DIGEST].notna()).all())


def _groups(runs: pd.DataFrame, columns: Sequence[str]) -> list[tuple[str, ...]]:
    return list(zip(*(map(str, runs[column].tolist()) for column in columns), strict=True)) or [()] * len(runs)


def bn_series(runs: pd.DataFrame, *more: str) -> "pd.Series[str]":
    """The BN placement of each run, and what else tells BN apart that is placed alike in one model.

    Args:
        runs: Table of :func:`ncflow.results.load_runs`, with ``model.norm`` as names.
        more: Further columns that tell BN apart.
    """
    placed = runs["model.norm"].astype(str)
    with_bn = placed[placed != "none"].index
    columns = [column for column in (*BN[1:], *more) if column in runs]
    named = [column for column in ("model.name", "data.name") if column in runs]
    groups = [(*group, norm) for group, norm in zip(_groups(runs, named), placed, strict=True)]
    own = runs.loc[with_bn]
    own_groups = [group for group, norm in zip(groups, placed, strict=True) if norm != "none"]
    differing = [column for column in columns if _varies(own[column], own_groups)]
    words = [
        panel_title(dict(zip(differing, values, strict=True)))
        for values in zip(*(own[column].tolist() for column in differing), strict=True)
    ] or [""] * len(own)
    told = [", ".join(filter(None, pair)) for pair in zip(placed[with_bn], words, strict=True)]
    return placed.where(placed == "none", pd.Series(told, index=with_bn, dtype=object))


def trained_once(runs: pd.DataFrame, history: pd.DataFrame, figure: str) -> pd.DataFrame:
    """Of runs that were trained alike and measured differently one: else a seed would count twice.

    It is one that was made for the figure, and of these the one that was measured most often.

    Args:
        runs: Table of :func:`ncflow.results.load_runs`.
        history: Table of :func:`ncflow.results.load_history`.
        figure: Name of the figure that is to be drawn.
    """
    varied = [
        column for column in (*options(runs), "seed") if column in runs and _varies(runs[column], [()] * len(runs))
    ]
    # One that has not ended has nothing to show, and of a run of which nothing is known nothing is known to be alike.
    done = runs[(runs["status"] == Status.DONE) & runs["seed"].notna()] if {"status", "seed"} <= set(runs) else runs[:0]
    asked = done["figures"].map(lambda names: isinstance(names, list) and figure in names) if "figures" in done else 0
    rows = done["folder"].map(history["folder"].value_counts()).fillna(0)
    kinds = [repr(values) for values in zip(*(done[column].tolist() for column in varied), strict=True)]
    table = pd.DataFrame({"kind": kinds if varied else [""] * len(done), "asked": asked, "rows": rows}, done.index)
    ordered = table.sort_values(["asked", "rows"], ascending=False, kind="stable")
    again = ordered.index[ordered.duplicated("kind")]
    return runs.drop(index=again) if len(again) else runs


def _varies(values: pd.Series, groups: Sequence[tuple[str, ...]]) -> bool:
    """Whether two runs of one group differ in a value."""
    texts = list(map(repr, values.tolist()))
    return len(set(texts)) > 1 and len(set(zip(groups, texts, strict=True))) > len(set(groups))


def panels(
    runs: pd.DataFrame, *more: str, inside: Sequence[str] = INSIDE
) -> list[tuple[dict[str, object], pd.DataFrame]]:
    """(what distinguishes the panel, its runs), in a stable order; one nameless panel where nothing varies.

    Args:
        runs: Table of :func:`ncflow.results.load_runs`; an empty one has no panels.
        more: Further columns that vary inside a panel.
        inside: Those that vary inside the panels of most figures.
    """
    if runs.empty:
        return []
    keys = panel_keys(runs, *more, inside=inside)
    if not keys:
        return [({}, runs)]
    order = pd.Series(list(zip(*(map(place_of, runs[key].tolist()) for key in keys), strict=True)), index=runs.index)
    ranks = order.map({place: rank for rank, place in enumerate(sorted(set(order)))})
    return [({key: _value(part, key) for key in keys}, part) for _, part in runs.groupby(ranks, sort=True)]


def _value(part: pd.DataFrame, key: str) -> object:
    value = part[key].iloc[0]
    if key == DATA_DIGEST and isinstance(value, str):
        return f"{Path(str(part[_PATH].iloc[0])).name} ({value[:6]})"
    return tuple(value) if isinstance(value, list) else value


def place_of(value: Any) -> tuple[Any, ...]:
    """A sort key for a value, equal for equal values, whatever types it is sorted with."""
    if is_missing(value):
        return (3,)
    if isinstance(value, bool | int | float):
        return 0, value
    if isinstance(value, list | tuple):
        return 2, tuple(place_of(item) for item in value)
    return 1, str(value)


def panel_title(values: Mapping[str, Any]) -> str:
    """What distinguishes a panel, in words; in a figure it must be made ``literal``."""
    parts = []
    for key, value in values.items():
        if key == "data.name":
            parts.append(data_label(value))
        elif isinstance(value, tuple | list) or not pd.isna(value):
            name = words(key.rsplit(".", 1)[-1].replace("_", " "))
            text = f"{value:g}" if is_number(value) else words(value)
            parts.append(text if name == "name" else f"{'file' if key == DATA_DIGEST else name} {text}")
    return ", ".join(parts)
