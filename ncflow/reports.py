"""What became of the runs that a command was asked for: a line each, and the failed ones again at the end."""

import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ncflow.results import FAILED, LOG

log = logging.getLogger(__name__)

SKIPPED, ELSEWHERE, REFUSED, SUBMITTED = "skipped", "elsewhere", "refused", "submitted"


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
    if report.status == SKIPPED:
        return f"finished already: {place}"
    if report.status == ELSEWHERE:
        return f"left alone, another process is at work on it: {place}"
    if report.error:
        return f"failed: {place}: {report.error}"
    keys = {"accuracy": "train/accuracy", "intra_min": "train/intra_min", "inter_max": "train/inter_max"}
    values = report.values
    measures = ", ".join(f"{name} {values[key]:.4f}" for name, key in keys.items() if values.get(key) is not None)
    return f"{report.status}: {place}: {measures} ({values['seconds']:.1f} s)"


def leave_line(report: Report) -> None:
    """Leave a run's line on the console and in its log, for a run that was trained together with others."""
    line = line_of(report)
    log.log(logging.DEBUG if report.error else logging.INFO, "%s", line)
    if report.status not in (SKIPPED, ELSEWHERE):
        with (Path(report.folder) / LOG).open("a") as file:
            file.write(f"{line}\n")


def finish(reports: Sequence[Report]) -> int:
    """Print which runs failed and where their logs are; return the exit code."""
    if len(reports) > 1:
        statuses = [report.status for report in reports]
        counts = ", ".join(f"{statuses.count(status)} {status}" for status in dict.fromkeys(statuses))
        print(f"{len(reports)} runs: {counts}", flush=True)
    for report in reports:
        if report.status == REFUSED:
            print(f"ncflow: error: {report.error}", file=sys.stderr)
        elif report.status == FAILED:
            print(f"ncflow: failed: {report.error}; log: {Path(report.folder) / LOG}", file=sys.stderr)
    codes = {REFUSED: 2, FAILED: 1}
    return max((codes.get(report.status, 0) for report in reports), default=0)
