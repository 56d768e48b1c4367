"""Many runs as tables. A run that cannot be read costs a line, and not the others."""

import os
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ncflow.results.columns import SPLITS
from ncflow.results.files import CLASSES, HISTORY, MARGINS, PAIRS
from ncflow.results.folder import status_of
from ncflow.results.history import CLASS_COLUMNS, COLUMNS, EVERY_COLUMN, MARGIN_COLUMNS, PAIR_COLUMNS
from ncflow.results.readable import UnreadableError, describe, leave_out, read_columns, why_unreadable
from ncflow.results.report import Status
from ncflow.results.store import run_folders

if TYPE_CHECKING:
    import pandas as pd

_OF_THE_JOB = ("job", "log")  # in job.json beside the config
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

    return pd.DataFrame([_row(folder) for folder in run_folders(*folders)])


def _row(folder: Path) -> dict[str, Any]:
    why = why_unreadable(folder)
    if why is None:
        try:
            run = status_of(folder)
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
    history = _load_tables(HISTORY, EVERY_COLUMN, ("epoch", "split", "layer"), folders, COLUMNS)
    if not config:
        return history
    runs = load_runs(*folders)
    kept = [name for name in runs if not str(name).startswith(SPLITS) and (name == "folder" or name not in history)]
    return history.merge(runs[kept], on="folder", how="left") if "folder" in runs else history


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
    name: str,
    columns: Sequence[str],
    required: Sequence[str],
    folders: Iterable[Path | str],
    without_rows: Sequence[str] | None = None,
) -> "pd.DataFrame":
    import numpy as np
    import pandas as pd

    # A table for each header rather than for each run, as to make one takes longer than to read the file.
    of_header: dict[tuple[str, ...], list[tuple[Path, dict[str, Any]]]] = {}
    order: dict[str, int] = {}
    for folder in run_folders(*folders):
        path = folder / name
        if not os.path.lexists(path):
            continue
        try:
            found = read_columns(path, columns, required, _WHOLE)
        except (UnreadableError, OSError) as error:
            leave_out(path, error)
            continue
        if len(found[required[0]]):
            order[str(folder)] = len(order)
            of_header.setdefault(tuple(found), []).append((folder, found))
    parts = []
    for header, tables in of_header.items():
        part = pd.DataFrame({name: _below_each_other([found[name] for _, found in tables]) for name in header})
        counts = [len(found[required[0]]) for _, found in tables]
        part["run_id"] = np.repeat(np.array([_identity(folder) for folder, _ in tables], dtype=object), counts)
        part["folder"] = np.repeat(np.array([str(folder) for folder, _ in tables], dtype=object), counts)
        parts.append(part)
    if not parts:
        return pd.DataFrame(columns=[*(without_rows or columns), "run_id", "folder"])
    if len(parts) == 1:
        return parts[0]
    table = pd.concat(parts, ignore_index=True)
    return table.sort_values("folder", key=lambda column: column.map(order), kind="stable", ignore_index=True)


def _below_each_other(columns: Sequence[Any]) -> Any:
    import numpy as np

    return list(chain.from_iterable(columns)) if isinstance(columns[0], list) else np.concatenate(columns)


def _identity(folder: Path) -> str | None:
    """A run's id, None where its files do not say."""
    try:
        return None if why_unreadable(folder) is not None else status_of(folder).values.get("run_id")
    except OSError:
        return None
