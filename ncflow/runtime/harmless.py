"""Loggers of a run that never stop it: what goes wrong with one costs a line, and the logger."""

import logging
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import Logger

from ncflow.checks import error_line

log = logging.getLogger(__name__)


class HarmlessLogger(Logger):
    """One run, opened when it is first needed; nothing that goes wrong with it reaches the training.

    Args:
        folder: The run's folder.
        described: The run's flat description.
    """

    def __init__(self, folder: Path, described: Mapping[str, Any]) -> None:
        super().__init__()
        self._folder, self._described = folder, described
        self._inner: Any = None
        self._closed = self._complained = False

    @abstractmethod
    def _begin(self, step: int) -> Any:
        """What rows are given to, from a step on."""

    @property
    def _called(self) -> str:
        """What a line about it begins with."""
        return type(self).__name__

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Leave it: they are the run's description, which is known from the start."""

    def _open(self, step: int = 0) -> Any:
        """What :meth:`_begin` gave; None once it is closed."""
        if self._inner is None and not self._closed:
            try:
                self._inner = self._begin(step)
            except Exception:
                self._closed = True  # one failure is enough to wait for
                raise
        return None if self._closed else self._inner

    @contextmanager
    def _harmless(self) -> Iterator[None]:
        """In it, an error is a line, once."""
        try:
            yield
        except Exception as error:
            if not self._complained:
                log.warning("%s: training goes on without it: %s", self._called, error_line(error, named=True))
            self._complained = True
