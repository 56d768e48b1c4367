"""Many runs as tables."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ncflow.results.files import HISTORY, MARGINS
from ncflow.results.folder import run_folders, status_of
from ncflow.results.history import COLUMNS, MARGIN_COLUMNS

if TYPE_CHECKING:
    import pandas as pd

_OF_THE_JOB = ("job", "log")  # in job.json beside the config


def load_runs(*folders: Path | str) -> "pd.DataFrame":
    """A row a run: config columns under their dotted names, final measures, ``status``, ``folder``.

    Args:
        folders: Folders that hold runs at any depth.

    Returns:
        Finished, diverged, failed, interrupted, running and pending runs; what a run does not have is missing.

    Raises:
        FileNotFoundError: If a folder does not exist.
    """
    import pandas as pd

    rows = []
    for folder in run_folders(*folders):
        status, values = status_of(folder)
        config = {name: value for name, value in values.items() if name not in _OF_THE_JOB}
        rows.append({**config, "status": status, "folder": str(folder)})
    return pd.DataFrame(rows)


def load_history(*folders: Path | str) -> "pd.DataFrame":
    """A row per run, epoch, split and layer: ``run_id``, ``folder`` and the columns of ``history.csv``.

    Raises:
        FileNotFoundError: If a folder does not exist.
    """
    return _load_tables(HISTORY, COLUMNS, folders)


def load_margins(*folders: Path | str) -> "pd.DataFrame":
    """A row per run and measurement: ``run_id``, ``folder`` and the columns of ``margins.csv``.

    Raises:
        FileNotFoundError: If a folder does not exist.
    """
    return _load_tables(MARGINS, MARGIN_COLUMNS, folders)


def _load_tables(name: str, columns: Sequence[str], folders: Iterable[Path | str]) -> "pd.DataFrame":
    import pandas as pd

    parts = []
    for folder in run_folders(*folders):
        if (folder / name).exists():
            part = pd.read_csv(folder / name, on_bad_lines="skip", float_precision="round_trip")
            identity = status_of(folder)[1].get("run_id")
            parts.append(part.assign(run_id=identity, folder=str(folder)))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=[*columns, "run_id", "folder"])
