"""What the measures read of a classifier."""

from typing import Protocol

from torch import Tensor


class LinearHead(Protocol):
    """W (C, d) and b (C,), or None, of a classifier that gives W h + b, such as an ``nn.Linear``."""

    @property
    def weight(self) -> Tensor:
        """The weights W."""

    @property
    def bias(self) -> Tensor | None:
        """The offset b."""

    @property
    def out_features(self) -> int:
        """C."""
