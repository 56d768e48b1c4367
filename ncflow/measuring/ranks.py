"""What the processes that measure together tell each other; every rank has to call what asks the others."""

from typing import Any, TypeVar

import torch
from torch import Tensor
from torchmetrics.utilities.distributed import gather_all_tensors

T = TypeVar("T")


def ranks() -> int:
    """How many there are; 1 if they are not several."""
    return torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1


def gathered(value: T) -> list[T]:
    """The value of each rank, in their order."""
    if not torch.distributed.is_initialized():
        return [value]
    everywhere: list[Any] = [None] * ranks()
    torch.distributed.all_gather_object(everywhere, value)
    return everywhere


def over_ranks(sums: Tensor) -> Tensor:
    """The sum over all ranks."""
    everywhere = gather_all_tensors(sums) if torch.distributed.is_initialized() else [sums]
    return torch.stack(everywhere).sum(0)
