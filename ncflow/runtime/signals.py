"""End a run at the next batch when a signal asks for it: SLURM before a time-out or a preemption, or a plain kill."""

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

log = logging.getLogger(__name__)

# SIGUSR1 and SIGUSR2 are what batch jobs ask SLURM for ahead of a time-out; preemption and `kill` send SIGTERM.
_NAMES = ("SIGTERM", "SIGUSR1", "SIGUSR2")


class StoppedBySignalError(RuntimeError):
    """Training saved a checkpoint and stopped because of a signal; the same command goes on from there.

    Args:
        signum: The signal.
        place: How far training was.
    """

    def __init__(self, signum: int, place: str) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name} {place}, the same command goes on from there")
        self.signum = signum

    def told(self, name: str, hidden: bool = False) -> SystemExit:
        """Say what was interrupted, on the console too unless that is hidden; return the exit that comes of it."""
        log.log(logging.DEBUG if hidden else logging.INFO, "interrupted: %s: %s", name, self)
        return SystemExit(128 + self.signum)


class Listener:
    """Takes note of signals instead of dying of them.

    Attributes:
        received: The signal that came, 0 before any; SIGTERM, which comes with others, does not replace another.
    """

    def __init__(self) -> None:
        self.received = 0

    def _note(self, signum: int, frame: Any) -> None:
        if signum != signal.SIGTERM or not self.received:
            self.received = signum

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Listen, in the main thread alone; afterwards whoever listened before does again."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        numbers = [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]
        before = {number: signal.signal(number, self._note) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, signal.SIG_DFL if handler is None else handler)
