"""``ncflow-status DIR ...``: how far the runs below some folders are."""

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ncflow.results import Report, Status, one_line
from ncflow.sweeps.status import UNSUBMITTED, Survey, survey, total_seconds_left
from ncflow.sweeps.top_up import submit

_STYLES: dict[str, str] = {
    Status.DONE: "green",
    Status.RUNNING: "cyan",
    Status.PENDING: "yellow",
    Status.INTERRUPTED: "magenta",
    Status.FAILED: "red",
    Status.DIVERGED: "red",
    Status.UNREADABLE: "red",
}
SHOWN: tuple[str, ...] = ("folder", "status", "name", "experiment", "run_id", "epoch", "epochs", "seconds")
SHOWN += ("accuracy", "intra_min", "job", "log", "reason", "seconds_left")
"""What other programs get of a run: attributes of :class:`ncflow.results.Report`."""
_MANY = 40  # above it only what is not done is listed
_LONGEST_ERROR = 500  # some errors list every weight of a model; the whole message is in the log
_PIPE_WIDTH = 1000  # wider than any row: what another program reads must not be cut


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
    hidden = len(runs) > _MANY and not show_all and any(run.status == Status.DONE for run in runs)
    listed = [run for run in runs if run.status != Status.DONE] if hidden else runs
    lines: list[Text | Table] = [Text(_headline(runs) + ("; done ones are not listed (--all)" if hidden else ""))]
    if found.complaint is not None:
        lines.append(Text(_plain(found.complaint), style="yellow"))
    labels = _labels(runs)
    waiting = sum(run.reason == UNSUBMITTED for run in runs)
    if waiting:
        lines.append(Text(f"{waiting} wait for room in SLURM's queue: --submit, or the same command, submits them"))
    experiments = sorted({run.experiment for run in runs})
    for experiment in experiments:
        own = [run for run in runs if run.experiment == experiment]
        counted = f": {_counts(own)}" if len(experiments) > 1 else ""
        lines += [Text(), Text(_plain(experiment) + counted, style="bold")]
        rows = [run for run in listed if run.experiment == experiment]
        if rows:
            lines.append(_table(rows, labels))
    troubled = [run for run in listed if run.error or (run.reason and run.status == Status.INTERRUPTED)]
    troubles = [Text(_trouble(run, labels[run.folder])) for run in troubled]
    return Group(*lines, *([Text()] if troubles else []), *troubles)


def _headline(runs: Sequence[Report]) -> str:
    left = total_seconds_left(runs)
    plural = "" if len(runs) == 1 else "s"
    return f"{len(runs)} run{plural}: {_counts(runs)}" + ("" if left is None else f"; about {duration(left)} left")


def _counts(runs: Sequence[Report]) -> str:
    counts = Counter(run.status for run in runs)
    order = [*(status for status in _STYLES if counts[status]), *sorted(counts.keys() - _STYLES.keys())]
    return ", ".join(f"{counts[status]} {_plain(status)}" for status in order)


def _labels(runs: Sequence[Report]) -> dict[str, str]:
    """What each folder's run is called: its name or, where another of its experiment has it too, its folder's."""
    shared = Counter((run.experiment, run.name) for run in runs)
    return {
        run.folder: _plain(run.name if shared[run.experiment, run.name] == 1 else Path(run.folder).name) for run in runs
    }


def _table(runs: Sequence[Report], labels: Mapping[str, str]) -> Table:
    """A row a run; columns in which no run has anything are left out."""
    shown = {
        "epoch": [_epochs(run) for run in runs],
        "left": ["" if run.seconds_left is None else duration(run.seconds_left) for run in runs],
        "accuracy": [_measure(run.accuracy) for run in runs],
        "intra_min": [_measure(run.intra_min) for run in runs],
        "job": [_plain(run.job or "") for run in runs],
        "slurm": [_plain(run.reason or "") if run.status in (Status.RUNNING, Status.PENDING) else "" for run in runs],
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


def _epochs(run: Report) -> str:
    return "" if run.epochs is None else f"{'-' if run.epoch is None else run.epoch}/{run.epochs}"


def _measure(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _trouble(run: Report, label: str) -> str:
    """The line on a run that somebody has to look at."""
    words = _plain(run.error or run.reason or "")
    words = words if len(words) <= _LONGEST_ERROR else f"{words[:_LONGEST_ERROR]} ..."
    return f"{run.status}: {label}: {words}" + ("" if run.log is None else f"; log: {_plain(run.log)}")


def _plain(text: str) -> str:
    """One line that no terminal takes for a command, whoever wrote the text."""
    return one_line(text, longest=len(text))


def as_json(runs: Sequence[Report]) -> str:
    """A list with an object a run, of :data:`SHOWN` and ``error``."""
    found = [{**{name: getattr(run, name) for name in SHOWN}, "error": run.error or None} for run in runs]
    return json.dumps(found, indent=1)


def surveys(folders: Sequence[Path | str], seconds: float, is_submitting: bool = False) -> Iterator[Survey]:
    """A survey every so many seconds until nothing is running or pending.

    Args:
        folders: Of the runs.
        seconds: Between two of them.
        is_submitting: Whether what a full queue did not take is submitted before each.

    Raises:
        FileNotFoundError: If a folder does not exist or holds no run.
    """
    while True:
        found = _survey(folders, is_submitting)
        yield found
        if not any(run.status in (Status.RUNNING, Status.PENDING) for run in found.runs):
            return
        time.sleep(seconds)


def _survey(folders: Sequence[Path | str], is_submitting: bool) -> Survey:
    found = survey(folders)
    lines = submit(found.runs) if is_submitting else []
    for line in lines:
        print(f"ncflow-status: {line}", file=sys.stderr)
    return survey(folders) if lines else found


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
    parser.add_argument("--all", action="store_true", help=f"list done runs also if there are more than {_MANY}")
    parser.add_argument("--submit", action="store_true", help="first submit what SLURM's queue had no room for")
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
            watch(console, surveys(parsed.folders, parsed.watch, parsed.submit), parsed.all)
            return
        found = _survey(parsed.folders, parsed.submit)
    except OSError as error:
        print(f"ncflow-status: error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    if parsed.json:
        console.out(as_json(found.runs), highlight=False)
        if found.complaint is not None:
            print(f"ncflow-status: {found.complaint}", file=sys.stderr)
    else:
        console.print(render(found, parsed.all))
