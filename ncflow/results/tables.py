"""Many runs as tables. A run that cannot be read costs a line, and not the others."""

import math
import os
import sys
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ncflow.results.alike import Tables, read_tables
from ncflow.results.columns import SPLITS
from ncflow.results.files import CLASSES, HISTORY, MARGINS, PAIRS
from ncflow.results.folder import status_of
from ncflow.results.history import CLASS_COLUMNS, COLUMNS, EVERY_COLUMN, LAST_LAYER, MARGIN_COLUMNS, PAIR_COLUMNS
from ncflow.results.readable import describe, read_result, result_id, why_unreadable
from ncflow.results.report import Report, Status
from ncflow.results.store import run_folders

if TYPE_CHECKING:
    import pandas as pd

_OF_THE_JOB = ("job", "log")  # in job.json beside the config
_KEYS = ("epoch", "split", "layer")
_WHOLE = ("epoch", "step", "samples", "class", "other", "count")


def load_runs(*folders: Path | str) -> "pd.DataFrame":
    """A row a run: config columns under their dotted names, final measures, ``status``, ``folder``.

    Args:
        folders: Folders that hold runs at any depth.

    Returns:
        Finished, diverged, failed, interrupted, running and pending runs; what a run does not have is missing. Of a run
        whose files cannot be read the status is ``unreadable`` and the reason under ``error``.

    Raises:
        FileNotFoundError: If a folder does not exist.
    """
    import pandas as pd

    # Values are put into their columns at once: thousands of rows of their own would take ten times the memory.
    columns: dict[str, list[Any]] = {}
    count = 0
    for count, folder in enumerate(run_folders(*folders), start=1):
        for name, value in _row(folder).items():
            column = columns.setdefault(sys.intern(name), [])
            column += [math.nan] * (count - 1 - len(column))
            column.append(sys.intern(value) if type(value) is str else value)
    for column in columns.values():
        column += [math.nan] * (count - len(column))
    return pd.DataFrame(columns)


def _row(folder: Path) -> dict[str, Any]:
    why, values = read_result(folder)
    if why is None:
        try:
            run = status_of(folder) if values is None else Report(values["status"], str(folder), values=values)
            config = {name: value for name, value in run.values.items() if name not in _OF_THE_JOB}
            return {**config, "status": run.status, "folder": run.folder}
        except OSError as error:
            why = describe(error)
    return {"status": str(Status.UNREADABLE), "folder": str(folder), "error": why}


def load_history(*folders: Path | str, config: bool = False) -> "pd.DataFrame":
    """A row per run, epoch, split and layer: ``run_id``, ``folder`` and the columns of ``history.csv``.

    Measures of a group that no run asked for have no columns; where some did, those of the others are missing. A file
    that cannot be read is left out and named in a warning of the logger ``ncflow.results``.

    Args:
        folders: Folders that hold runs at any depth.
        config: Whether each row has its run's config too, as :func:`load_runs` has it: ``seed``, ``model.norm``, ...

    Raises:
        FileNotFoundError: If a folder does not exist.
    """
    paths = _paths(HISTORY, folders)
    history = _below_each_other(read_tables(paths, EVERY_COLUMN, _KEYS, _WHOLE), paths, COLUMNS)
    if not config:
        return history
    runs = load_runs(*folders)
    kept = [name for name in runs if not str(name).startswith(SPLITS) and (name == "folder" or name not in history)]
    return history.merge(runs[kept], on="folder", how="left") if "folder" in runs else history


def load_much_history(most: int, measures: Collection[str], *folders: Path | str) -> tuple["pd.DataFrame", list[str]]:
    """As :func:`load_history`, but some measures alone where there is too much for all.

    Args:
        most: So many numbers of the classifier's input are not too much.
        measures: Those to keep.
        folders: Folders that hold runs at any depth.

    Returns:
        The table, and all measures of which a row of the classifier's input has a value.

    Raises:
        FileNotFoundError: If a folder does not exist.
    """
    import numpy as np

    paths = _paths(HISTORY, folders)
    parts: list[Tables] = []
    measured: set[str] = set()
    rows = 0
    for part in read_tables(paths, EVERY_COLUMN, _KEYS, _WHOLE):
        parts.append(part)
        is_last = np.asarray(part.columns["layer"], dtype=object) == LAST_LAYER
        rows += int(is_last.sum())
        own = part.columns.keys() - {*_KEYS} - measured
        measured |= {name for name in own if not np.isnan(part.columns[name][is_last]).all()}
        for columns in (part.columns for part in parts if rows * len(measured) > most):
            for name in columns.keys() - {*_KEYS, *measures}:
                del columns[name]
    history = _below_each_other(parts, paths, COLUMNS)
    return history, [name for name in EVERY_COLUMN if name in measured]


def load_margins(*folders: Path | str) -> "pd.DataFrame":
    """A row per run and measurement: ``run_id``, ``folder`` and the columns of ``margins.csv``.

    A file that cannot be read is left out and named in a warning of the logger ``ncflow.results``.

    Raises:
        FileNotFoundError: If a folder does not exist.
    """
    return _load_tables(MARGINS, MARGIN_COLUMNS, MARGIN_COLUMNS, folders)


def load_classes(*folders: Path | str) -> "pd.DataFrame":
    """A row per run, epoch, split, layer and class: ``run_id``, ``folder`` and the columns of ``classes.csv``.

    A file that cannot be read is left out and named in a warning of the logger ``ncflow.results``.

    Raises:
        FileNotFoundError: If a folder does not exist.
    """
    return _load_tables(CLASSES, CLASS_COLUMNS, CLASS_COLUMNS, folders)


def load_pairs(*folders: Path | str) -> "pd.DataFrame":
    """A row per run, epoch, split, layer and pair of classes: ``run_id``, ``folder`` and the columns of ``pairs.csv``.

    A file that cannot be read is left out and named in a warning of the logger ``ncflow.results``.

    Raises:
        FileNotFoundError: If a folder does not exist.
    """
    return _load_tables(PAIRS, PAIR_COLUMNS, PAIR_COLUMNS, folders)


def _load_tables(
    name: str, columns: Sequence[str], required: Sequence[str], folders: Iterable[Path | str]
) -> "pd.DataFrame":
    paths = _paths(name, folders)
    return _below_each_other(read_tables(paths, columns, required, _WHOLE), paths, columns)


def _paths(name: str, folders: Iterable[Path | str]) -> list[Path]:
    return [path for folder in run_folders(*folders) if os.path.lexists(path := folder / name)]


def _below_each_other(parts: Iterable[Tables], paths: Sequence[Path], without_rows: Sequence[str]) -> "pd.DataFrame":
    """Tables as one, in the order of their files.

    Args:
        parts: They are emptied.
        paths: The files.
        without_rows: The columns where there is no row.
    """
    import numpy as np
    import pandas as pd

    of_header: dict[tuple[str, ...], list[Tables]] = {}
    for part in parts:
        if any(part.counts):
            of_header.setdefault(tuple(part.columns), []).append(part)
    place_of = {path: place for place, path in enumerate(paths)}
    tables, places = [], []
    for header, alike in of_header.items():
        counts = [count for part in alike for count in part.counts]
        whose = [path for part in alike for path in part.paths]
        below = {name: np.concatenate([part.columns.pop(name) for part in alike]) for name in header}
        below["run_id"] = np.repeat(np.array([_identity(path.parent) for path in whose], dtype=object), counts)
        below["folder"] = np.repeat(np.array([str(path.parent) for path in whose], dtype=object), counts)
        places.append(np.repeat([place_of[path] for path in whose], counts))
        tables.append(pd.DataFrame(below, copy=False))  # a copy takes as much memory again
    if not tables:
        return pd.DataFrame(columns=[*without_rows, "run_id", "folder"])
    table = tables[0] if len(tables) == 1 else pd.concat(tables, ignore_index=True)
    place = np.concatenate(places)
    if np.all(place[1:] >= place[:-1]):
        return table
    return table.take(np.argsort(place, kind="stable")).reset_index(drop=True)


def _identity(folder: Path) -> str | None:
    """A run's id, None where its files do not say."""
    try:
        return (
            None if why_unreadable(folder) is not None else result_id(folder) or status_of(folder).values.get("run_id")
        )
    except OSError:
        return None
