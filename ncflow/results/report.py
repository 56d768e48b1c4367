"""What is known of a run, and what a command says of the runs that it was asked for."""

import logging
import sys
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from ncflow.results.files import LOG

log = logging.getLogger(__name__)


class Status(StrEnum):
    """Where a run stands, or what a command made of it."""

    DONE = "done"
    DIVERGED = "diverged"
    FAILED = "failed"
    RUNNING = "running"
    INTERRUPTED = "interrupted"
    PENDING = "pending"
    """Submitted, and not begun."""
    UNREADABLE = "unreadable"
    """Its files are somebody else's that we may not read, or damaged."""
    SKIPPED = "skipped"
    """Finished before the command was given."""
    ELSEWHERE = "elsewhere"
    """Another process is at work on it."""
    REFUSED = "refused"
    """Its config or its folder was refused before it began."""
    SUBMITTED = "submitted"
    """Handed to SLURM by this command."""


FINAL = (Status.DONE, Status.DIVERGED)
"""With one of these in its result a run is finished; every other one is tried again."""


_LARGEST_NUMBER = 2**53  # what is larger is not of ours, and could not be calculated with


@dataclass(frozen=True)
class Report:
    """What is known of one run. What is not known, or is not what ncflow writes, is None.

    Attributes:
        status: Where it stands, or what a command made of it.
        folder: Its folder.
        error: Why it failed.
        values: Its result if it has one, else what it began or was submitted with.
        progress: How far training is, of a run that was looked at for that.
        job: Its latest SLURM job.
        turn: After how many others of that job it is its turn.
        log: The log of that job; of a failed run its own log if it has one.
        reason: Why its job waits, a state of its job that needs attention, or what became of its job.
        changed: Classes of the user's whose code is another than when the run was finished.
    """

    status: str
    folder: str
    error: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)
    progress: Mapping[str, Any] = field(default_factory=dict)
    job: str | None = None
    turn: int = 0
    log: str | None = None
    reason: str | None = None
    changed: tuple[str, ...] = ()

    def of_cell(self) -> "Report":
        """Of a cell of a sweep: one whose folder is not its own fails, and stops no other."""
        return replace(self, status=Status.FAILED) if self.status == Status.REFUSED else self

    @property
    def name(self) -> str:
        """Its name, or that of its folder."""
        return as_word(self.values.get("name")) or Path(self.folder).name

    @property
    def experiment(self) -> str:
        """Its experiment, or the name of the folder that its own is in."""
        return as_word(self.values.get("experiment")) or Path(self.folder).absolute().parent.name

    @property
    def run_id(self) -> str | None:
        """Its identity."""
        return as_word(self.values.get("run_id"))

    @property
    def epochs(self) -> int | None:
        """Epochs in all."""
        return _count(self.progress.get("epochs")) or _count(self.values.get("epochs"))

    @property
    def epoch(self) -> int | None:
        """Finished epochs."""
        if self.status == Status.DONE:
            return self.epochs
        return _count(self.progress.get("epoch", 0 if self.status == Status.PENDING else None))

    @property
    def seconds(self) -> float | None:
        """Training seconds so far, over all attempts."""
        return _number(self.values.get("seconds")) or _number(self.progress.get("seconds"))

    @property
    def accuracy(self) -> float | None:
        """Final training accuracy."""
        return _number(self.values.get("train/accuracy"))

    @property
    def intra_min(self) -> float | None:
        """Final worst mean cosine within a class of the training split."""
        return _number(self.values.get("train/intra_min"))

    @property
    def seconds_per_epoch(self) -> float | None:
        """Mean time of an epoch so far, None before the first has ended."""
        return self.seconds / self.epoch if self.seconds and self.seconds > 0 and self.epoch else None

    @property
    def epochs_left(self) -> int | None:
        """Epochs that are not finished."""
        return None if self.epochs is None else max(0, self.epochs - (self.epoch or 0))

    @property
    def seconds_left(self) -> float | None:
        """Of a running run: its mean time of an epoch so far, times the epochs that are left."""
        if self.status != Status.RUNNING or self.seconds_per_epoch is None or self.epochs_left is None:
            return None
        return self.seconds_per_epoch * self.epochs_left


def counted(number: int, noun: str) -> str:
    """``1 run``, ``2 runs``."""
    return f"{number} {noun}{'s' * (number != 1)}"


def wrapped(text: str, first: str = "", later: str = "", width: int = 80) -> str:
    """A text cut at its blanks for a terminal; no word is cut, so that what is to be copied stays whole.

    Args:
        text: The text.
        first: Before its first line.
        later: Before each of the others.
        width: Of a line, in characters.
    """
    return textwrap.fill(
        text, width, initial_indent=first, subsequent_indent=later, break_long_words=False, break_on_hyphens=False
    )


def as_word(value: Any) -> str | None:
    """A value that is text, else None."""
    return value if isinstance(value, str) and value else None


def as_job(value: Any) -> str | None:
    """A value that is the id of a SLURM job, else None."""
    return str(value) if _count(value) is not None else as_word(value)


def as_turn(value: Any) -> int:
    """A value that is a number of runs, else 0."""
    return _count(value) or 0


def _number(value: Any) -> float | None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if number and -_LARGEST_NUMBER <= value <= _LARGEST_NUMBER else None


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and _number(value) is not None and value >= 0 else None


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


def finish(reports: Sequence[Report]) -> int:
    """Print which runs failed, why and where their logs are, a line for each reason; return the exit code."""
    if len(reports) > 1:
        statuses = [report.status for report in reports]
        counts = ", ".join(f"{statuses.count(status)} {status}" for status in dict.fromkeys(statuses))
        print(f"{len(reports)} runs: {counts}", flush=True)
    for report in reports:
        if report.status == Status.REFUSED:
            print(f"ncflow: error: {report.error}", file=sys.stderr)
    changed = Counter(target for report in reports for target in report.changed)
    for target, count in changed.items():
        which = "this run was" if len(reports) == 1 else f"{count} finished run{'s were' if count > 1 else ' was'}"
        print(
            f"ncflow: {which} trained before the code of {target} changed; to train anew: another runs_dir, or move "
            f"{'its folder' if count == 1 else 'their folders'} away",
            file=sys.stderr,
        )
    failed: dict[str, list[Path]] = {}
    for report in reports:
        if report.status == Status.FAILED:
            failed.setdefault(report.error, []).append(Path(report.folder))
    for error, folders in failed.items():  # a full disk is one reason for all
        logs = ", ".join(str(folder / LOG) for folder in folders)
        print(f"ncflow: failed: {error}; log{'s' * (len(folders) > 1)}: {logs}", file=sys.stderr)
    codes: dict[str, int] = {Status.REFUSED: 2, Status.FAILED: 1}
    return max((codes.get(report.status, 0) for report in reports), default=0)
