"""One number of a metric that gives a dictionary, as a metric."""

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from torchmetrics.metric import CompositionalMetric


class Givers:
    """Who gave a metric its latest batch: the metric itself, or measures of it.

    Attributes:
        measures: Of that batch alone, if they were asked for.
    """

    def __init__(self) -> None:
        self.measures: dict[str, Tensor] | None = None
        self._batch: tuple[weakref.ref[Tensor], ...] = ()
        self._givers: set[int] = set()
        self._giver = 0

    @contextmanager
    def by(self, giver: object) -> Iterator[None]:
        """In it, a batch is given by this one."""
        self._giver = id(giver)
        try:
            yield
        finally:
            self._giver = 0

    def repeat(self, *batch: Tensor | None) -> bool:
        """Whether this batch was just given by another one; else it is the latest now."""
        tensors = [part for part in batch if part is not None]
        kept = [part() for part in self._batch]
        is_same = len(kept) == len(tensors) and all(one is other for one, other in zip(kept, tensors, strict=True))
        if is_same and self._giver not in self._givers:
            self._givers.add(self._giver)
            return True
        self._batch, self._givers, self.measures = tuple(map(weakref.ref, tensors)), {self._giver}, None
        return False

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return Givers, ()


class Measure(CompositionalMetric):
    """One measure of a metric, whose samples it shares.

    The metric and all of its measures may be given a batch, one after another: it counts once.

    Args:
        name: Of the measure.
        metric: The metric; it has :class:`Givers`.
    """

    def __init__(self, name: str, metric: Any) -> None:
        super().__init__(_Take(name), metric, None)

    @property
    def _metric(self) -> Any:
        return self.metric_a

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Take in a batch, unless the metric has it already."""
        with self._metric.givers.by(self):
            self._metric.update(*args, **kwargs)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Take in a batch, unless the metric has it already, and give the measure of this batch alone."""
        with self._metric.givers.by(self):
            value = self.op(self._metric(*args, **kwargs))
        self._forward_cache = value
        return value

    def plot(self, val: Any = None, ax: Any = None) -> Any:
        """Plot the measure, or values of it over steps: see :meth:`ncflow.metrics.NeuralCollapse.plot`."""
        return self._plot(val, ax)


class _Take:
    """Takes a measure out of a dictionary."""

    def __init__(self, name: str) -> None:
        self.__name__ = name

    def __call__(self, measures: dict[str, Tensor]) -> Tensor:
        return measures[self.__name__]
