"""What a reader of the numbers must know beside them: one line, once, from one process."""

import logging
from functools import cache

import torch

log = logging.getLogger(__name__)


def note(line: str) -> None:
    """Say a line, the first time that it is given and on the first process alone."""
    if not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0:
        _say(line)


@cache
def _say(line: str) -> None:
    log.warning(line)
