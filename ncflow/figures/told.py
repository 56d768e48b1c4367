"""What is said of runs before anything is drawn of them."""

from pathlib import Path

import pandas as pd

from ncflow.figures.tables import provenance_differences
from ncflow.results import Status, one_line
from ncflow.results.report import counted

_LONGEST_PATH, _LONGEST_ERROR = 4096, 500
_MOST_VALUES, _MOST_NAMES = 5, 3
# Groups of a sweep are hardly ever equally large, and on a CPU that changes nothing.
_TRAINED_WITH = "version/trained_with"


def summary(runs: pd.DataFrame) -> str:
    """How many runs there are of each status, and which did not finish."""
    counts = runs["status"].value_counts()
    lines = [f"{counted(len(runs), 'run')}: " + ", ".join(f"{count} {status}" for status, count in counts.items())]
    for _, run in runs[runs["status"] != Status.DONE].iterrows():
        reason = run.get("error")
        place = f"  {run['status']}: {one_line(run['folder'], _LONGEST_PATH)}"
        lines.append(place + (f": {one_line(reason, _LONGEST_ERROR)}" if isinstance(reason, str) else ""))
    return "\n".join(lines)


def differences(runs: pd.DataFrame) -> list[str]:
    """A line for each kind of code, package or machine that differs between runs: a few runs by name, else how many."""
    lines = []
    for column, found in provenance_differences(runs).items():
        if column == _TRAINED_WITH:
            continue
        parts = []
        for value, folders in list(found.items())[:_MOST_VALUES]:
            names = ", ".join(one_line(Path(folder).name) for folder in folders)
            count = counted(len(folders), "run")
            which = f"{count}: {names}" if len(folders) <= _MOST_NAMES else count
            parts.append(f"{one_line(value, _LONGEST_ERROR)} ({which})")
        more = len(found) - len(parts)
        lines.append(f"these runs differ in {column}: {'; '.join(parts)}" + (f"; and {more} more" if more else ""))
    return lines
