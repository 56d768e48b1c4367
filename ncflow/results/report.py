"""What became of the runs that a command was asked for: a line each, and the failed ones again at the end."""

import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ncflow.results import LOG, RUN, RunFolder, Status, read_json

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Report:
    """What became of one run: its status, its folder, the error's line where it failed, its result where it has one."""

    status: str
    folder: str
    error: str = ""
    values: dict[str, Any] = field(default_factory=dict)


def line_of(report: Report) -> str:
    """The line that a run leaves on the console."""
    place = Path(report.folder).name
    if report.status == Status.SKIPPED:
        return f"finished already: {place}"
    if report.status == Status.ELSEWHERE:
        return f"left alone, another process is at work on it: {place}"
    if report.error:
        return f"failed: {place}: {report.error}"
    keys = {"accuracy": "train/accuracy", "intra_min": "train/intra_min", "inter_max": "train/inter_max"}
    values = report.values
    measures = ", ".join(f"{name} {values[key]:.4f}" for name, key in keys.items() if values.get(key) is not None)
    return f"{report.status}: {place}: {measures} ({values['seconds']:.1f} s)"


def say(report: Report, hidden: bool = False) -> None:
    """Leave a run's line on the console, unless it is to be hidden there: what failed is listed at the end."""
    log.log(logging.DEBUG if hidden else logging.INFO, "%s", line_of(report))


def ended(folder: RunFolder, since: float, killed: bool) -> Report | None:
    """What became of a run whose process is gone without a word; None where it is to be tried again.

    Args:
        folder: The run's folder.
        since: When it was begun at the earliest: a failure from before does not count.
        killed: Whether the run was by itself when its process ended, so that there is no doubt whose it was.
    """
    path, result, started = str(folder.path), folder.finished(), read_json(folder.path / RUN) or {}
    if result is not None:
        return Report(str(result["status"]), path, values=result)
    if started.get("status") == Status.FAILED and (folder.path / RUN).stat().st_mtime >= since:
        return Report(Status.FAILED, path, str(started.get("error")))
    if killed:
        line = "its process was killed, as the system does when memory runs out"
        folder.fail(line)
        return Report(Status.FAILED, path, line)
    return None


def began(folder: RunFolder) -> bool:
    """Whether a run that is not at its end was begun."""
    return read_json(folder.path / RUN) is not None


def finish(reports: Sequence[Report]) -> int:
    """Print which runs failed, why and where their logs are, a line for each reason; return the exit code."""
    if len(reports) > 1:
        statuses = [report.status for report in reports]
        counts = ", ".join(f"{statuses.count(status)} {status}" for status in dict.fromkeys(statuses))
        print(f"{len(reports)} runs: {counts}", flush=True)
    for report in reports:
        if report.status == Status.REFUSED:
            print(f"ncflow: error: {report.error}", file=sys.stderr)
    failed: dict[str, list[Path]] = {}
    for report in reports:
        if report.status == Status.FAILED:
            failed.setdefault(report.error, []).append(Path(report.folder))
    for error, folders in failed.items():  # a full disk is one reason for all
        logs = ", ".join(str(folder / LOG) for folder in folders)
        print(f"ncflow: failed: {error}; log{'s' * (len(folders) > 1)}: {logs}", file=sys.stderr)
    codes: dict[str, int] = {Status.REFUSED: 2, Status.FAILED: 1}
    return max((codes.get(report.status, 0) for report in reports), default=0)
