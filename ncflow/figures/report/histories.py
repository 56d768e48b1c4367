"""The histories of many runs as a page can hold them: as many numbers as there is room for, and words on the rest.

A sweep of thousands of runs has gigabytes of them. What a page holds is cut in this order: the rows of inner layers,
then all but the measures that are looked at first, then epochs between the first and the last of each run.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ncflow.figures.tables import READ
from ncflow.results import EVERY_COLUMN, LAST_LAYER, load_much_history

MOST_NUMBERS = 1_000_000
"""Of histories in a page, about 5 bytes each."""
DIGITS = 6
"""Significant digits of them."""

_FIRST = (
    *("loss", "accuracy", "intra_min", "inter_max", "nc1", "nc3_cosine_min"),
    *("ncc_accuracy", "gamma_norm", "rho", "regularized_loss_gap"),
)
_MOST_OF_FIRST = 6


@dataclass(frozen=True)
class Histories:
    """Rows of histories, those of a run together.

    Args:
        measures: Names of the measures, of which ``values`` has a list each, None where a row has none.
        run: The run's number, a row.
        epoch: Finished epochs, a row.
        split: ``train`` or ``test``, a row.
        note: What of the runs' own tables is not here, in words.
    """

    measures: list[str]
    run: list[int]
    epoch: list[int]
    split: list[str]
    values: dict[str, list[Any]]
    note: str


def as_much_as_is_shown(*folders: str) -> tuple[pd.DataFrame, list[str]]:
    """The histories of runs, without the measures that neither a figure nor a claim nor the page has room for.

    Args:
        folders: Of the runs.

    Returns:
        Table of :func:`ncflow.results.load_history`, and all measures that were in it.
    """
    return load_much_history(MOST_NUMBERS, {*READ, *_FIRST}, *folders)


def thinned(
    history: pd.DataFrame,
    number: Mapping[str, int],
    measured: Sequence[str] | None = None,
    most: int = MOST_NUMBERS,
) -> Histories:
    """The histories of the classifier's input, with about so many numbers at most.

    Each run keeps the first and the last of its epochs, and others between them at even distances.

    Args:
        history: Table of :func:`ncflow.results.load_history`.
        number: The number of each run's folder; rows of other folders are left out.
        measured: All measures of the runs, of which the table may have some; None: those that it has.
        most: Numbers, >= 1.
    """
    is_shown = (history["layer"] == LAST_LAYER) & history["folder"].isin(list(number))
    rows = np.flatnonzero(is_shown.to_numpy())

    def of(column: str) -> np.ndarray:
        """A column of these rows; a table of all of them would be as large as the one that there is."""
        return history[column].to_numpy()[rows]

    run = history["folder"].iloc[rows].map(number).to_numpy(dtype=np.int64)
    order = np.lexsort((of("split").astype(str) == "test", of("epoch"), run))
    rows, run = rows[order], run[order]
    here = [name for name in EVERY_COLUMN[3:] if name in history and history[name].iloc[rows].notna().any()]
    measures = here if measured is None else [*measured]
    notes = ["of the classifier's input", f"with {DIGITS} digits"]
    if len(rows) * len(measures) > most:
        whole = len(measures)
        measures = ([name for name in _FIRST if name in here] or here)[:_MOST_OF_FIRST]
        notes.append(f"{len(measures)} of {whole} measures")
    epochs = of("epoch").astype(np.int64)
    first = np.ones(len(rows), bool)
    first[1:] = (run[1:] != run[:-1]) | (epochs[1:] != epochs[:-1])
    place = np.cumsum(first) - 1  # of each row among all pairs of run and epoch
    measurements, runs = int(first.sum()), len(set(run))
    if len(rows) * len(measures) > most:
        kept = max(2, int(most / (len(rows) / measurements * len(measures) * runs)))
        chosen = _evenly(run[first], kept)[place]
        rows, run, epochs = rows[chosen], run[chosen], epochs[chosen]
        notes.append(f"at most {kept} epochs a run")
    values = {name: _rounded(of(name).tolist()) for name in measures}
    note = f"Histories here are {', '.join(notes)}; each run's history.csv has all of it."
    return Histories(measures, run.tolist(), epochs.tolist(), of("split").tolist(), values, note)


def _evenly(run: np.ndarray, kept: int) -> np.ndarray:
    """Of measurements in order of their runs, which to keep: so many a run, the first and the last among them."""
    starts = np.flatnonzero(np.r_[True, run[1:] != run[:-1]])
    chosen = np.zeros(len(run), bool)
    for start, end in zip(starts, [*starts[1:], len(run)], strict=True):
        chosen[np.unique(np.linspace(start, end - 1, kept).round().astype(int))] = True
    return chosen


def _rounded(values: list[float]) -> list[float | str | None]:
    """Numbers of so many digits; one that is infinite as JavaScript reads it from text."""
    texts = (f"%.{DIGITS}g " * len(values) % tuple(values)).split()
    special = {"nan": None, "inf": "Infinity", "-inf": "-Infinity"}
    return [special[text] if text in special else float(text) for text in texts]
