"""One line for a sweep and a live bar for the run inside it; nothing where the output is no terminal."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column
from rich.text import Text

from ncflow.results import RESULT
from ncflow.runtime import processes

_shared: Progress | None = None  # at most one live display a process: a run inside a sweep draws into the sweep's


class _Name(ProgressColumn):
    """What a bar is of, cut rather than wrapped: a bar is one line at any width."""

    def render(self, task: Task) -> Text:
        """The description."""
        return Text(task.description, no_wrap=True, overflow="ellipsis")


def _progress() -> Progress:
    return Progress(  # where there is no room, the name and the bar give way first
        _Name(),
        BarColumn(),
        MofNCompleteColumn(table_column=_fixed()),
        TextColumn("{task.fields[unit]}", table_column=_fixed()),
        TimeElapsedColumn(table_column=_fixed()),
        TextColumn("left", table_column=_fixed()),
        TimeRemainingColumn(table_column=_fixed()),
        console=Console(stderr=True),
        speed_estimate_period=600,
        transient=True,
    )


def _fixed() -> Column:
    return Column(no_wrap=True)


def is_interactive() -> bool:
    """Whether this process may draw for somebody who watches: in a terminal, and no worker, whose sweep draws."""
    return not processes.is_worker() and Console(stderr=True).is_terminal


@contextmanager
def sweep_progress(folders: Sequence[Path]) -> Iterator[None]:
    """Show how many of these run folders are done, whichever process works on them."""
    global _shared
    if not is_interactive():
        yield
        return
    stop = threading.Event()
    with _progress() as progress:
        _shared = progress
        task = progress.add_task("sweep", total=len(folders), unit="runs")

        def watch() -> None:
            waiting = list(folders)
            while not stop.wait(0.5):
                waiting = [folder for folder in waiting if not (folder / RESULT).exists()]
                progress.update(task, completed=len(folders) - len(waiting))

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            stop.set()
            watcher.join()
            _shared = None


class EpochBar:
    """Bar over the epochs of a run: a line of the sweep's display if there is one, else a display of its own.

    Args:
        name: Name of the run.
        total: Epochs of the run.
        completed: Epochs done before.
    """

    def __init__(self, name: str, total: int, completed: int = 0) -> None:
        self._own = _progress() if _shared is None and is_interactive() else None
        if self._own is not None:
            self._own.start()
        self._progress = self._own or _shared
        if self._progress is not None:
            self._task = self._progress.add_task(name, total=total, completed=completed, unit="epochs")

    def update(self, completed: int) -> None:
        """Show how many epochs are done."""
        if self._progress is not None:
            self._progress.update(self._task, completed=completed)

    def close(self) -> None:
        """Take the bar away; harmless when repeated."""
        if self._progress is not None:
            self._progress.remove_task(self._task)
        if self._own is not None:
            self._own.stop()
        self._own = self._progress = None
