"""Where runs are: the folders of runs below others."""

import os
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from ncflow.results.files import JOB, RESULT, RUN

_RUN_NAME = re.compile("-([0-9a-f]{8})$")
_names: dict[Path, tuple[int, Mapping[str, Sequence[str]]]] = {}


def run_folders(*folders: Path | str) -> list[Path]:
    """Folders of runs, submitted ones included, at or below the given ones, in order of their paths, each once.

    Raises:
        FileNotFoundError: If a folder does not exist.
    """
    found: dict[Path, None] = {}
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise FileNotFoundError(f"no folder {folder}")
        for parent, _, files in os.walk(folder):
            if not {RESULT, RUN, JOB}.isdisjoint(files):
                found[Path(parent)] = None
    return sorted(found)


def run_names(folder: Path) -> Mapping[str, Sequence[str]]:
    """The names of the runs' folders in a folder, by run id; a second look at an unchanged folder reads it no more.

    Args:
        folder: Of an experiment; it need not exist.
    """
    with suppress(OSError):
        changed = folder.stat().st_mtime_ns
        if _names.get(folder, (None, {}))[0] != changed:
            found: dict[str, list[str]] = defaultdict(list)
            for name in sorted(os.listdir(folder)):
                if run := _RUN_NAME.search(name):
                    found[run[1]].append(name)
            _names[folder] = changed, found
        return _names[folder][1]
    return {}


def stored(store: Path, depth: int = 3) -> dict[str, list[Path]]:
    """The folders of runs that are named as ncflow names them, below the folder of all experiments, by run id.

    Args:
        store: The folder of all experiments; it need not exist.
        depth: Levels to look at: ``<paper>/<experiment>/<run>``.
    """
    found: dict[str, list[Path]] = defaultdict(list)
    with suppress(OSError):
        for entry in sorted(os.scandir(store), key=lambda entry: entry.name):
            run = _RUN_NAME.search(entry.name)
            if run is not None:
                found[run[1]].append(Path(entry.path))
            elif depth > 1 and not entry.name.startswith(".") and entry.is_dir():
                for identity, folders in stored(Path(entry.path), depth - 1).items():
                    found[identity] += folders
    return dict(found)
