"""What is special about our Metric among those of torchmetrics: sums in float64 that ranks tell each other."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.distributed import gather_all_tensors

_NUMBERS = count()


class SummingMetric(Metric):
    """A metric whose states are sums of float64, and lists that stay on their rank.

    :meth:`compute` asks the other ranks for what it needs, and brings no lists together. An explicit :meth:`sync` does,
    as that of any metric. The sums keep their type whatever a module around the metric is cast to. In a
    :class:`torchmetrics.MetricCollection` it shares no states, as what it reads beside them may differ.

    Args:
        kwargs: Of :class:`torchmetrics.Metric`.
    """

    number: list[Tensor]

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        # compute neither brings states together nor ends that they are: it asks the other ranks.
        self._to_sync = self._should_unsync = False
        self._gather: Callable[[Tensor], list[Tensor]] | None = None
        self._empty: dict[str, Tensor] = {}
        self.add_list("number", torch.zeros(0, dtype=torch.long))

    def add_sum(self, name: str, like: Tensor) -> None:
        """Add a sum of the shape and type of a tensor; :meth:`reset` makes it 0."""
        # As one zero that is repeated, also as the state until :meth:`own`: that of many classes takes much memory. The
        # default that add_state would make of it is whole.
        zeros = torch.zeros((), dtype=like.dtype).expand(like.shape)
        self.add_state(name, default=torch.zeros((), dtype=like.dtype), dist_reduce_fx="sum")
        self._defaults[name] = zeros
        setattr(self, name, zeros.clone() if zeros.numel() == 1 else zeros)

    def add_list(self, name: str, empty: Tensor) -> None:
        """Add a list of tensors.

        Args:
            name: Of the state.
            empty: What no batches are together: no rows, of the type to which :meth:`sync` brings those of all ranks.
        """
        self.add_state(name, default=[], dist_reduce_fx="cat")
        self._empty[name] = empty

    def batches(self, name: str) -> list[Tensor]:
        """The tensors of a list; what :meth:`sync` made of them is one."""
        state = getattr(self, name)
        return [state] if isinstance(state, Tensor) else list(state)

    def own(self, name: str) -> Tensor:
        """A sum as it is here, to be added to."""
        value: Tensor = getattr(self, name)
        if value.numel() > 1 and 0 in value.stride():
            value = value.contiguous()
            setattr(self, name, value)
        return value

    def reset(self) -> None:
        """Forget all samples."""
        super().reset()
        for name, default in self._defaults.items():
            if isinstance(default, Tensor) and default.numel() > 1 and 0 in default.stride():
                setattr(self, name, default.to(getattr(self, name).device))
        # torchmetrics lets metrics of a collection share what has equal states; these are never. In digits, as numbers
        # are equal to it that differ by 1e-5 of themselves.
        number = next(_NUMBERS)
        self.number = [torch.tensor([number // 1000, number % 1000], device=self.device)]

    @contextmanager
    def all_ranks(self) -> Iterator[None]:
        """In it, what asks for all ranks does; the states stay. After :meth:`sync` they are of all ranks already."""
        available = self.distributed_available_fn
        if self._gather is None and self.sync_on_compute and not self._is_synced and available():
            gather, group = self.dist_sync_fn or gather_all_tensors, self.process_group
            self._gather = lambda value: gather(value.contiguous(), group=group)
            try:
                yield
            finally:
                self._gather = None
        else:
            yield

    def gathered(self, value: Tensor) -> list[Tensor]:
        """A tensor of all ranks in their order; alone of this one."""
        return [value] if self._gather is None else self._gather(value)

    def total(self, value: Tensor) -> Tensor:
        """The sum over ranks."""
        everywhere = self.gathered(value)
        return value if len(everywhere) == 1 else torch.stack(everywhere).sum(0)

    def least(self, value: Tensor) -> Tensor:
        """The minimum over ranks."""
        return torch.stack(self.gathered(value)).min()

    def is_so_anywhere(self, value: bool) -> bool:
        """Whether it is so on any rank."""
        flag = torch.tensor(float(value), device=self.device)
        return value if self._gather is None else float(self.total(flag)) > 0

    def set_dtype(self, dst_type: str | torch.dtype) -> "SummingMetric":
        """Nothing: sums are in float64."""
        return self

    def _apply(self, fn: Callable[[Tensor], Tensor], *args: Any, **kwargs: Any) -> Any:
        def moved(value: Tensor) -> Tensor:
            result = fn(value)
            return result if result.dtype == value.dtype else value.to(result.device)

        return super()._apply(moved, *args, **kwargs)

    def _sync_dist(self, dist_sync_fn: Callable[..., Any] = gather_all_tensors, process_group: Any = None) -> None:
        """What :meth:`sync` does: ranks with lists of other types, or with none, come together as well."""
        for name, empty in self._empty.items():
            nothing = empty.to(self.device)
            setattr(self, name, [torch.cat([nothing, *(batch.to(nothing) for batch in self.batches(name))])])
        super()._sync_dist(dist_sync_fn, process_group)

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_gather": None}
