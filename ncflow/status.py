"""``ncflow-status DIR ...``: how far the runs below some folders are, from their files and, where there is one, SLURM.

It imports nothing heavy and changes nothing, so it can look at a sweep that is going on, from any machine that sees
the folders.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ncflow.results import (
    DIVERGED,
    DONE,
    FAILED,
    INTERRUPTED,
    JOB,
    LOG,
    PENDING,
    PROGRESS,
    RUNNING,
    read_json,
    run_folders,
    status_of,
)

UNREADABLE = "unreadable"  # somebody else's files that we may not read

_UNFINISHED = (FAILED, RUNNING, PENDING, INTERRUPTED, UNREADABLE)
_STYLES = {
    DONE: "green",
    RUNNING: "cyan",
    PENDING: "yellow",
    INTERRUPTED: "magenta",
    FAILED: "red",
    DIVERGED: "red",
    UNREADABLE: "red",
}
_MANY = 40  # above it only what is not done is listed
_LONGEST_ERROR = 500  # some errors list every weight of a model; the whole message is in the log
_LARGEST_NUMBER = 2**53  # what is larger is not of ours, and could not be calculated with
_PIPE_WIDTH = 1000  # wider than any row: what another program reads must not be cut

# https://slurm.schedmd.com/squeue.html#SECTION_JOB-STATE-CODES; every other state is an end.
_WAITING_STATES = {"PENDING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESV_DEL_HOLD", "SPECIAL_EXIT"}
_WORKING_STATES = {
    "RUNNING",
    "CONFIGURING",
    "COMPLETING",
    "RESIZING",
    "SIGNALING",
    "STAGE_OUT",
    "STOPPED",
    "SUSPENDED",
}
_NO_REASON = ("", "None", "(null)")


@dataclass(frozen=True)
class RunState:
    """Where a run stands. What is not known is None.

    Args:
        folder: The run's folder.
        status: ``done``, ``diverged``, ``failed``, ``running``, ``pending``, ``interrupted`` or ``unreadable``.
        name: Its name, or that of its folder.
        experiment: Its experiment, or the name of the folder that its own is in.
        run_id: Its identity.
        epoch: Finished epochs.
        epochs: Epochs in all.
        seconds: Training seconds so far, over all attempts.
        accuracy: Final training accuracy.
        intra_min: Final worst mean cosine within a class of the training split.
        job: Its latest SLURM job.
        log: The log of that job; of a failed run its own log where it has one.
        error: Why it failed.
        reason: Why its job waits, a state of its job that needs attention, or what became of its job.
    """

    folder: str
    status: str
    name: str
    experiment: str
    run_id: str | None = None
    epoch: int | None = None
    epochs: int | None = None
    seconds: float | None = None
    accuracy: float | None = None
    intra_min: float | None = None
    job: str | None = None
    log: str | None = None
    error: str | None = None
    reason: str | None = None

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
        if self.status != RUNNING or self.seconds_per_epoch is None or self.epochs_left is None:
            return None
        return self.seconds_per_epoch * self.epochs_left


class Job(NamedTuple):
    """A job in SLURM's queue: its state and the reason why it is in it."""

    state: str
    reason: str


def is_alive(job: Job | None) -> bool:
    """Whether a job waits or works."""
    return job is not None and job.state in _WAITING_STATES | _WORKING_STATES


class QueueError(Exception):
    """SLURM's queue cannot be read; the message is one line for the user."""


class Survey(NamedTuple):
    """The runs below some folders at a moment, and why SLURM was not heard where it should have been."""

    runs: list[RunState]
    complaint: str | None


def look(folder: Path) -> RunState:
    """Where the run in a folder stands, by its files alone."""
    try:
        status, values = status_of(folder)
        progress, submitted = read_json(folder / PROGRESS) or {}, read_json(folder / JOB) or {}
        has_own_log = (folder / LOG).exists()
    except OSError as error:
        line = f"{type(error).__name__}: {error}"
        return RunState(str(folder), UNREADABLE, folder.name, folder.absolute().parent.name, error=line)
    failed = status == FAILED
    job_log = _word(submitted.get("log"))
    epochs = _count(progress.get("epochs")) or _count(values.get("epochs"))
    return RunState(
        folder=str(folder),
        status=status,
        name=_word(values.get("name")) or folder.name,
        experiment=_word(values.get("experiment")) or folder.absolute().parent.name,
        run_id=_word(values.get("run_id")),
        epoch=epochs if status == DONE else _count(progress.get("epoch", 0 if status == PENDING else None)),
        epochs=epochs,
        seconds=_number(values.get("seconds")) or _number(progress.get("seconds")),
        accuracy=_number(values.get("train/accuracy")),
        intra_min=_number(values.get("train/intra_min")),
        job=_job(submitted.get("job")),
        log=str(folder / LOG) if failed and (has_own_log or job_log is None) else job_log,
        error=(_word(values.get("error")) or "no error was recorded") if failed else None,
    )


def _word(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _number(value: Any) -> float | None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if number and -_LARGEST_NUMBER <= value <= _LARGEST_NUMBER else None


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and _number(value) is not None and value >= 0 else None


def _job(value: Any) -> str | None:
    return str(value) if _count(value) is not None else _word(value)


def parse_squeue(output: str) -> dict[str, Job]:
    """Jobs by their ids from lines ``id|state|reason``; other lines are left out.

    >>> parse_squeue("345_3|PENDING|Priority")
    {'345_3': Job(state='PENDING', reason='Priority')}
    """
    parts = [line.strip().split("|", 2) for line in output.splitlines()]
    return {part[0]: Job(part[1], part[2]) for part in parts if len(part) == 3}


def ask_squeue(timeout: float = 10.0) -> dict[str, Job]:
    """All jobs that SLURM knows, those that have just ended included, by their ids.

    All are asked for, as ``squeue --jobs`` fails where it does not know one of the ids.

    Args:
        timeout: Seconds to wait for the answer.

    Raises:
        QueueError: If there is no ``squeue``, or no answer from it.
    """
    program = shutil.which("squeue")
    if program is None:
        raise QueueError("squeue is not on the PATH")
    command = [program, "-h", "-r", "-a", "-t", "all", "-o", "%i|%T|%r"]
    # The user's own filters, such as SQUEUE_PARTITION, would make jobs look gone.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("SQUEUE_")}
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            env=environment,
            timeout=timeout,
        )
    except subprocess.TimeoutExpired:
        raise QueueError(f"squeue did not answer within {timeout:g} s") from None
    except OSError as error:
        raise QueueError(f"squeue cannot be run ({error})") from None
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise QueueError(f"squeue failed ({lines[-1]})")
    return parse_squeue(done.stdout)


def merge(run: RunState, jobs: Mapping[str, Job]) -> RunState:
    """What the files say of a run and what SLURM says of its job, put together.

    A result and a lock that is seen are beyond doubt. Else a waiting job makes the run pending, also one that failed
    and was submitted again; a job at work makes it running, as a lock that is held on another node is not seen
    everywhere; and without a job nothing more will happen to it.

    Args:
        run: The files' view.
        jobs: All jobs that SLURM knows, by their ids.
    """
    if run.job is None or run.status not in (PENDING, INTERRUPTED, FAILED):
        return run
    job = jobs.get(run.job)
    if job is not None and job.state in _WAITING_STATES:
        return replace(run, status=PENDING, error=None, reason=None if job.reason in _NO_REASON else job.reason)
    if run.status == FAILED:
        return run
    if job is not None and job.state in _WORKING_STATES:
        return replace(run, status=RUNNING, reason=None if job.state == "RUNNING" else job.state)
    end = "" if job is None else f" ({job.state})"
    reason = f"job {run.job} is gone: the same ncflow command submits it again{end}"
    return replace(run, status=INTERRUPTED, reason=reason)


def survey(folders: Sequence[Path | str]) -> Survey:
    """Look at all runs below some folders, and ask SLURM once where one of them has a job and no result.

    Raises:
        FileNotFoundError: If a folder does not exist or holds no run.
    """
    found: dict[Path, Path] = {}
    for folder in folders:
        below = run_folders(folder)
        if not below:
            raise FileNotFoundError(f"no runs below {folder}")
        found |= {path.resolve(): path for path in below}
    runs = [look(folder) for folder in sorted(found.values())]
    if not any(run.job is not None and run.status in _UNFINISHED for run in runs):
        return Survey(runs, None)
    try:
        jobs = ask_squeue()
    except QueueError as error:
        return Survey(runs, f"{error}: this is what the folders alone tell")
    return Survey([_unless_it_ended(merge(run, jobs)) for run in runs], None)


def _unless_it_ended(run: RunState) -> RunState:
    """A run whose job is gone may have ended after the look at its folder."""
    if run.status != INTERRUPTED or run.reason is None:
        return run
    again = look(Path(run.folder))
    return run if again.status in (PENDING, INTERRUPTED) else again


def total_seconds_left(runs: Sequence[RunState]) -> float | None:
    """Estimate of the time until nothing is running or pending; None where there is no sound one.

    The work of a run is its epochs left times its own mean time of an epoch or, before its first has ended, the mean
    over the runs of its experiment that have one. The work of all running and pending runs, divided by the number of
    runs now running, is the estimate, but at least the longest of them: so many are taken to go on at a time. There is
    none where nothing is running, or where the work of one of them is unknown.
    """
    rates: dict[str, list[float]] = defaultdict(list)
    for run in runs:
        if run.seconds_per_epoch is not None:
            rates[run.experiment].append(run.seconds_per_epoch)
    running = sum(run.status == RUNNING for run in runs)
    work = []
    for run in runs:
        if run.status in (RUNNING, PENDING):
            known = rates[run.experiment]
            rate = run.seconds_per_epoch or (sum(known) / len(known) if known else None)
            if rate is None or run.epochs_left is None:
                return None
            work.append(rate * run.epochs_left)
    return max(max(work), sum(work) / running) if running else None


def duration(seconds: float) -> str:
    """Time in words of two units at most.

    >>> [duration(seconds) for seconds in (12.3, 90, 7500, 1e5)]
    ['12 s', '2 min', '2 h 05 min', '1 d 04 h']
    """
    minutes, hours = round(seconds / 60), round(seconds / 3600)
    if round(seconds) < 60:
        return f"{round(seconds)} s"
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 24 * 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{hours // 24} d {hours % 24:02d} h"


def render(found: Survey, show_all: bool = False) -> Group:
    """The view as text: a line of counts, a table for each experiment, and what went wrong.

    Args:
        found: The runs.
        show_all: Whether runs that are done are listed however many runs there are.
    """
    runs = found.runs
    hidden = len(runs) > _MANY and not show_all and any(run.status == DONE for run in runs)
    listed = [run for run in runs if run.status != DONE] if hidden else runs
    lines: list[Text | Table] = [Text(_headline(runs) + ("; done ones are not listed (--all)" if hidden else ""))]
    if found.complaint is not None:
        lines.append(Text(_plain(found.complaint), style="yellow"))
    labels = _labels(runs)
    experiments = sorted({run.experiment for run in runs})
    for experiment in experiments:
        own = [run for run in runs if run.experiment == experiment]
        counted = f": {_counts(own)}" if len(experiments) > 1 else ""
        lines += [Text(), Text(_plain(experiment) + counted, style="bold")]
        rows = [run for run in listed if run.experiment == experiment]
        if rows:
            lines.append(_table(rows, labels))
    troubled = [run for run in listed if run.error or (run.reason and run.status == INTERRUPTED)]
    troubles = [Text(_trouble(run, labels[run.folder])) for run in troubled]
    return Group(*lines, *([Text()] if troubles else []), *troubles)


def _headline(runs: Sequence[RunState]) -> str:
    left = total_seconds_left(runs)
    plural = "" if len(runs) == 1 else "s"
    return f"{len(runs)} run{plural}: {_counts(runs)}" + ("" if left is None else f"; about {duration(left)} left")


def _counts(runs: Sequence[RunState]) -> str:
    counts = Counter(run.status for run in runs)
    order = [*(status for status in _STYLES if counts[status]), *sorted(counts.keys() - _STYLES.keys())]
    return ", ".join(f"{counts[status]} {_plain(status)}" for status in order)


def _labels(runs: Sequence[RunState]) -> dict[str, str]:
    """What each folder's run is called: its name or, where another of its experiment has it too, its folder's."""
    shared = Counter((run.experiment, run.name) for run in runs)
    return {
        run.folder: _plain(run.name if shared[run.experiment, run.name] == 1 else Path(run.folder).name) for run in runs
    }


def _table(runs: Sequence[RunState], labels: Mapping[str, str]) -> Table:
    """A row a run; columns in which no run has anything are left out."""
    shown = {
        "epoch": [_epochs(run) for run in runs],
        "left": ["" if run.seconds_left is None else duration(run.seconds_left) for run in runs],
        "accuracy": [_measure(run.accuracy) for run in runs],
        "intra_min": [_measure(run.intra_min) for run in runs],
        "job": [_plain(run.job or "") for run in runs],
        "slurm": [_plain(run.reason or "") if run.status in (RUNNING, PENDING) else "" for run in runs],
    }
    shown = {header: cells for header, cells in shown.items() if any(cells)}
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("status", no_wrap=True)
    table.add_column("run", overflow="fold")
    for header in shown:
        words = header in ("job", "slurm")
        table.add_column(header, justify="left" if words else "right", no_wrap=header != "slurm", overflow="fold")
    for index, run in enumerate(runs):
        status = Text(_plain(run.status), style=_STYLES.get(run.status, ""))
        table.add_row(status, Text(labels[run.folder]), *(Text(cells[index]) for cells in shown.values()))
    return table


def _epochs(run: RunState) -> str:
    return "" if run.epochs is None else f"{'-' if run.epoch is None else run.epoch}/{run.epochs}"


def _measure(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _trouble(run: RunState, label: str) -> str:
    """The line on a run that somebody has to look at."""
    words = _plain(run.error or run.reason or "")
    words = words if len(words) <= _LONGEST_ERROR else f"{words[:_LONGEST_ERROR]} ..."
    return f"{run.status}: {label}: {words}" + ("" if run.log is None else f"; log: {_plain(run.log)}")


def _plain(text: str) -> str:
    """One line that no terminal takes for a command, whoever wrote the text."""
    return "".join(character if character.isprintable() else "?" for character in " ".join(text.split()))


def as_json(runs: Sequence[RunState]) -> str:
    """A list with an object a run: the fields of :class:`RunState` and ``seconds_left``."""
    return json.dumps([{**asdict(run), "seconds_left": run.seconds_left} for run in runs], indent=1)


def surveys(folders: Sequence[Path | str], seconds: float) -> Iterator[Survey]:
    """A survey every so many seconds until nothing is running or pending.

    Raises:
        FileNotFoundError: If a folder does not exist or holds no run.
    """
    while True:
        found = survey(folders)
        yield found
        if not any(run.status in (RUNNING, PENDING) for run in found.runs):
            return
        time.sleep(seconds)


def watch(console: Console, found: Iterator[Survey], show_all: bool) -> None:
    """Draw each survey over the last one, or below it where the output is no terminal; Ctrl-C ends it."""
    last: Survey | None = None
    try:
        if not console.is_terminal or console.is_dumb_terminal:
            for latest in found:
                console.print(render(latest, show_all), "")
            return
        with Live(console=console, auto_refresh=False, transient=True) as live:
            for last in found:
                live.update(render(last, show_all), refresh=True)
    except KeyboardInterrupt:
        pass
    if last is not None:
        console.print(render(last, show_all))


def _console() -> Console:
    if sys.stdout.isatty():
        return Console(highlight=False)
    return Console(width=_PIPE_WIDTH, force_terminal=False, color_system=None, highlight=False)


def _interval(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 86400:
        raise argparse.ArgumentTypeError(f"must be a number greater than 0 and at most 86400, found {text!r}")
    return seconds


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="ncflow-status", description="Show how far the runs below folders are.")
    parser.add_argument("folders", nargs="+", metavar="DIR", help="folder with runs at any depth")
    parser.add_argument("--all", action="store_true", help=f"list done runs also where there are more than {_MANY}")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print a list of one object a run, for other programs")
    form.add_argument(
        "--watch", type=_interval, metavar="SECONDS", help="look again so often until nothing is running or pending"
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of ``ncflow-status``."""
    parsed = _parser().parse_args(arguments)
    console = _console()
    try:
        if parsed.watch is not None:
            watch(console, surveys(parsed.folders, parsed.watch), parsed.all)
            return
        found = survey(parsed.folders)
    except OSError as error:
        print(f"ncflow-status: error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    if parsed.json:
        console.out(as_json(found.runs), highlight=False)
        if found.complaint is not None:
            print(f"ncflow-status: {found.complaint}", file=sys.stderr)
    else:
        console.print(render(found, parsed.all))
