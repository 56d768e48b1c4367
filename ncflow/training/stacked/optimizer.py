"""One PyTorch optimiser over stacked parameters, in which each cell keeps its own hyperparameters."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ncflow.models.classifier import parameter_groups
from ncflow.models.decay import COUPLING, share_decay
from ncflow.training.stacked.modules import StackedNetwork
from ncflow.training.stacked.products import is_whole


class CellOptimizer:
    """PyTorch's own fused optimisers, which work element by element, over slices of consecutive cells.

    Cells that agree in a parameter's hyperparameters share a slice of it, and slices that agree share a parameter
    group. So sort the cells by their hyperparameters: the fewer slices, the fewer kernels a step. Parameters that would
    get other bits side by side (see :func:`ncflow.training.stacked.products.is_whole`) have a slice a cell.

    Args:
        network: The stacked network, on its device and in its type.
        make: From parameter groups, each with all of its options, to the optimiser.
        options: Of each cell's optimiser.
        weight_decay: Of each cell.
        scope: ``all`` or ``last_layer`` of each cell.
        coupling: As ``weight_decay_coupling`` of :class:`ncflow.models.Classifier`, of each cell.

    Attributes:
        optimizer: The optimiser.
    """

    def __init__(
        self,
        network: StackedNetwork,
        make: Callable[[list[dict[str, Any]]], Optimizer],
        options: Sequence[Mapping[str, Any]],
        weight_decay: Sequence[float],
        scope: Sequence[str],
        coupling: Sequence[float | None],
    ) -> None:
        decays = [_decays(*cell) for cell in zip(network.networks, weight_decay, scope, strict=True)]
        shares = [{} if share is None else {COUPLING: share} for share in coupling]
        groups: dict[str, dict[str, Any]] = {}
        self._slices: list[tuple[nn.Parameter, str, slice]] = []
        self._network = network
        for name, stacked in network.stacked.items():
            settings = [
                None if name not in decay else {**own, "weight_decay": decay[name], **share}
                for own, decay, share in zip(options, decays, shares, strict=True)
            ]
            slices = _runs([repr(setting) for setting in settings])
            if not is_whole(stacked[0]):
                slices = [(cell, cell + 1) for cell in range(len(settings))]
            for start, stop in slices:
                setting = settings[start]
                if setting is not None:
                    part = nn.Parameter(stacked.data[start:stop])
                    groups.setdefault(repr(setting), {**setting, "params": []})["params"].append(part)
                    self._slices.append((part, name, slice(start, stop)))
        self.optimizer = share_decay(make(list(groups.values())))

    def take_gradients(self) -> None:
        """Hand the gradients of the stacked parameters to the optimiser; call it after the backward pass."""
        for part, name, cells in self._slices:
            gradient = self._network.stacked[name].grad
            part.grad = None if gradient is None else gradient[cells]

    def clear_gradients(self) -> None:
        """Forget all gradients."""
        for stacked in self._network.stacked.values():
            stacked.grad = None

    def state(self) -> dict[str, dict[str, Tensor]]:
        """State by parameter and name, (K, ...) each, zero where a cell does not train it; and ``lr`` as (K,)."""
        found: dict[str, dict[str, Tensor]] = {}
        for part, name, cells in self._slices:
            own = {key: value for key, value in self.optimizer.state[part].items() if isinstance(value, Tensor)}
            own["lr"] = torch.tensor(self._group_of(part)["lr"], dtype=torch.float64)
            for key, value in own.items():
                whole = found.setdefault(name, {})
                number = self._network.stacked[name].shape[0]
                each = value.shape == part.shape and value.ndim > 0
                if key not in whole:
                    whole[key] = value.new_zeros((number, *(value.shape[1:] if each else ())))
                whole[key][cells] = value
        return found

    def load_state(self, state: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Take a state over, of cells in this order."""
        for part, name, cells in self._slices:
            group = self._group_of(part)
            for key, whole in state[name].items():
                value = whole[cells]
                if key == "lr":
                    group["lr"] = float(value[0])
                elif whole.ndim == part.ndim:
                    self.optimizer.state[part][key] = value.clone().to(part)
                else:  # Adam's step, which fused kernels want beside the parameters
                    device = part.device if group.get("fused") else "cpu"
                    self.optimizer.state[part][key] = value[0].clone().to(device)

    def _group_of(self, part: Tensor) -> dict[str, Any]:
        return next(group for group in self.optimizer.param_groups if any(p is part for p in group["params"]))


def _decays(network: nn.Module, weight_decay: float, scope: str) -> dict[str, float]:
    """Weight decay of each parameter that a network trains, by its first name."""
    groups = parameter_groups(network, weight_decay, scope)
    of_parameter = {id(parameter): group["weight_decay"] for group in groups for parameter in group["params"]}
    return {name: of_parameter[id(p)] for name, p in network.named_parameters() if id(p) in of_parameter}


def _runs(values: Sequence[Any]) -> list[tuple[int, int]]:
    """Bounds of the runs of equal neighbours.

    >>> _runs("aabc")
    [(0, 2), (2, 3), (3, 4)]
    """
    lengths = [len(list(run)) for _, run in itertools.groupby(values)]
    ends = list(itertools.accumulate(lengths))
    return list(zip([0, *ends[:-1]], ends, strict=True))
