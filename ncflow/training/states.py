"""Fill the folder of a run by measuring states of a model that was trained before, or elsewhere."""

import hashlib
import json
import logging
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from typing import Any

import torch

from ncflow.checks import ArgumentError, error_line, require
from ncflow.results import HISTORY, MEASURES, History, RunFolder, Status, columns_with, final_measures
from ncflow.results.report import Report
from ncflow.training.entry import enter
from ncflow.training.provenance import provenance

log = logging.getLogger(__name__)

Rows = list[dict[str, Any]]


def run_hash(identity: Any) -> str:
    """Eight hex digits that are equal exactly for what gives equal numbers, as plain values say it.

    A version of ncflow with more measures measures anew.
    """
    return hashlib.sha256(json.dumps([identity, MEASURES], sort_keys=True, default=str).encode()).hexdigest()[:8]


def write_run(
    folder: RunFolder,
    states: int,
    rows_at: Callable[[int], Rows],
    notes: Iterable[str],
    device: torch.device,
    groups: Sequence[str] = (),
) -> Report:
    """Fill a run's folder with what is measured; what is finished is left as it is.

    Args:
        folder: The folder.
        states: How many there are.
        rows_at: Measures one, by its place.
        notes: For the run's log.
        device: On which is measured.
        groups: Of measures, whose columns the history has beside the usual.

    Raises:
        OSError: If the folder cannot be made.
    """
    with ExitStack() as held:
        report = enter(folder, None, held)
        if report is not None:
            return report
        with folder.logged():
            for note in notes:
                log.info(note)
            try:
                return _written(folder, states, rows_at, device, groups)
            except Exception as error:  # whatever a model or data of others may raise
                log.debug("%s", traceback.format_exc())
                line = error_line(error, named=not isinstance(error, ArgumentError))
                folder.fail(line)
                return Report(Status.FAILED, str(folder.path), line)


def _written(
    folder: RunFolder, states: int, rows_at: Callable[[int], Rows], device: torch.device, groups: Sequence[str]
) -> Report:
    history, began = History(folder.path / HISTORY, columns_with(groups), owned=True), time.monotonic()
    history.start()
    rows: Rows = []
    for index in range(states):
        rows = rows_at(index)
        for row in rows:
            rule = "of at least 2 classes with a sample"
            require(row["classes_present"] >= 2, "data", rule, f"{row['classes_present']:g} in {row['split']!r}")
        history.append(rows)
    seconds = {"seconds": round(time.monotonic() - began, 3)}
    record = provenance(folder.described, device)
    del record["version/trained_with"]
    result = {**folder.described, "status": str(Status.DONE), **final_measures(rows), **seconds, **record}
    result |= history.digest()
    folder.finish(result)
    return Report(Status.DONE, str(folder.path), values=result)
