"""One line for a sweep and a live bar for the run inside it; nothing where the output is no terminal."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ncflow.results import RESULT

_shared: Progress | None = None  # at most one live display a process: a run inside a sweep draws into the sweep's


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[unit]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        speed_estimate_period=600,
        transient=True,
    )


def is_interactive() -> bool:
    """Whether somebody is watching: the error output is a terminal."""
    return Console(stderr=True).is_terminal


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


class EpochProgress(Callback):
    """Bar over the epochs of a run, moved once an epoch."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._own: Progress | None = None
        self._task: Any = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show the bar."""
        if not is_interactive():
            return
        if _shared is None:
            self._own = _progress()
            self._own.start()
        progress = self._own or _shared
        assert progress is not None
        done = trainer.current_epoch
        self._task = progress.add_task(self.name, total=trainer.max_epochs, completed=done, unit="epochs")

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Move the bar."""
        progress = self._own or _shared
        if self._task is not None and progress is not None:
            progress.update(self._task, completed=trainer.current_epoch + 1)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Take the bar away, also after an error."""
        progress = self._own or _shared
        if self._task is not None and progress is not None:
            progress.remove_task(self._task)
        if self._own is not None:
            self._own.stop()
        self._task = self._own = None
