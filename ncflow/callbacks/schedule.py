"""When a callback acts, and how its table begins."""

from collections.abc import Mapping
from typing import Any

from lightning import Trainer

from ncflow.results import History


def begin_table(table: History, starts: bool, mark: Mapping[str, Any] | None) -> None:
    """Begin a run's table anew, or go back to how it was when the checkpoint was saved.

    Args:
        table: The table.
        starts: Whether training starts anew, rather than from a checkpoint.
        mark: Of the table in the checkpoint.

    Raises:
        ArgumentError: If the file is another one.
    """
    if starts:
        table.start()
    else:
        table.go_back(mark)


def is_due(trainer: Trainer, every_n_epochs: int) -> bool:
    """Whether the epoch that just ended is an n-th one, or the last."""
    epoch = trainer.current_epoch + 1
    return epoch % every_n_epochs == 0 or epoch == trainer.max_epochs or trainer.should_stop
