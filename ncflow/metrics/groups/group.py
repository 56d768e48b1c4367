"""What a group of measures is: measures of one layer on one split that are made only if they are asked for."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from ncflow.metrics.class_means import Geometry
from ncflow.metrics.head import LinearHead


@dataclass
class Layer:
    """The layer and the split that a group measures.

    Attributes:
        name: Of the layer; None for the last, the classifier's input.
        network: The network.
        head: Its classifier; None where the layer is another than the last.
        classifier: Name of the classifier's module.
        total: Sum of a tensor over all ranks; every rank has to call it.
        ood: Mean feature of the second data set, (d,), float64; None without one.
        kept: What was found of this layer on the splits before, and is for those after.
    """

    name: str | None
    network: nn.Module
    head: LinearHead | None
    classifier: str
    total: Callable[[Tensor], Tensor] = lambda value: value
    ood: Tensor | None = None
    kept: dict[str, Any] = field(default_factory=dict)


class Group(ABC):
    """Measures of one layer on one split.

    The calls are: :meth:`first` with each batch; :meth:`begin`; where ``reads_again``, :meth:`second` with each batch
    once more; :meth:`measures`. A subclass has what it needs of them. What is summed over batches is of this rank.

    Args:
        layer: The layer.
    """

    reads_again = False

    def __init__(self, layer: Layer) -> None:
        self.layer = layer

    def first(self, features: Tensor) -> None:  # noqa: B027 - most groups read nothing
        """Take in features (B, d) of the first pass."""

    def begin(self, means: Geometry) -> None:  # noqa: B027
        """Take in the class means, over all ranks."""

    def second(self, features: Tensor, labels: Tensor) -> None:  # noqa: B027
        """Take in features (B, d) with labels (B,) of the second pass."""

    @abstractmethod
    def measures(self, means: Geometry) -> dict[str, Tensor]:
        """Float64 scalars by name; the same on every rank."""
