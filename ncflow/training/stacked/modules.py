"""Networks of one architecture side by side: every parameter and every activation gets a leading axis of K cells."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ncflow.models.network import Network
from ncflow.training.stacked.products import ALIGNMENT, is_whole, linear

_ELEMENTWISE = (nn.ReLU, nn.Tanh, nn.GELU, nn.LeakyReLU)


class StackedLinear(nn.Module):
    """K linear layers, (K, B, d_in) to (K, B, d_out).

    Args:
        layers: The layers.
    """

    def __init__(self, layers: Sequence[nn.Linear]) -> None:
        super().__init__()
        self.weight, self.bias = _stack(layers, "weight"), _stack(layers, "bias")

    def forward(self, inputs: Tensor) -> Tensor:
        """Outputs of each cell."""
        assert self.weight is not None
        return linear(inputs, self.weight, self.bias)


class StackedActivation(nn.Module):
    """An activation of K cells, (K, B, ...).

    Args:
        activation: Applied to each number.
    """

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.activation = activation

    def forward(self, inputs: Tensor) -> Tensor:
        """Outputs of each cell."""
        if is_whole(inputs[0]):
            return self.activation(inputs)
        return torch.stack([self.activation(own) for own in inputs])


class StackedBatchNorm(nn.Module):
    """K BN layers, each over the batch of its own cell, (K, B, d).

    Args:
        layers: The layers; momentum and epsilon are those of the first.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, layers: Sequence[nn.BatchNorm1d]) -> None:
        super().__init__()
        self.weight, self.bias = _stack(layers, "weight"), _stack(layers, "bias")
        assert layers[0].momentum is not None
        self.momentum, self.eps = layers[0].momentum, layers[0].eps
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            self.register_buffer(name, torch.stack([getattr(layer, name) for layer in layers]))

    def forward(self, inputs: Tensor) -> Tensor:
        """PyTorch's own BN, over K d features at once if that is to the last bit the BN of each cell."""
        cells, count, width = inputs.shape
        if self.training:
            self.num_batches_tracked += 1
        state = (self.running_mean, self.running_var, self.weight, self.bias)
        if not is_whole(self.running_mean[0], vectors=1):
            each = [[None if value is None else value[cell] for value in state] for cell in range(cells)]
            return torch.stack([self._normalize(own, *values) for own, values in zip(inputs, each, strict=True)])
        side_by_side = inputs.transpose(0, 1).reshape(count, cells * width)
        normalized = self._normalize(side_by_side, *(None if value is None else value.view(-1) for value in state))
        return normalized.view(count, cells, width).transpose(0, 1)

    def _normalize(
        self, inputs: Tensor, mean: Tensor | None, variance: Tensor | None, weight: Tensor | None, bias: Tensor | None
    ) -> Tensor:
        return F.batch_norm(inputs, mean, variance, weight, bias, self.training, self.momentum, self.eps)


class StackedNetwork(nn.Module):
    """K networks whose layers form a chain, applied side by side to (K, B, ...) inputs, giving logits (K, B, C).

    The networks stay what they are, but their parameters and buffers become views of the stacked ones: each shows its
    cell's state at any time, and can be measured or saved as if it had been trained alone.

    Args:
        networks: Networks of one architecture, each as initialised. They may differ in which of their parameters are
            trained.

    Attributes:
        networks: The K networks.
        stacked: Stacked parameters (K, ...) by their names in a network.
    """

    def __init__(self, networks: Sequence[Network]) -> None:
        super().__init__()
        self.networks = list(networks)
        steps, names = [], []
        for name, layer in _leaves(networks[0]):
            build = _stacking(layer)
            assert build is not None, f"{type(layer).__name__} cannot be stacked"
            steps.append(build([network.get_submodule(name) for network in networks]))
            names.append(name)
        self.chain = nn.Sequential(*steps)
        self.stacked = {
            f"{name}.{own}": parameter
            for name, step in zip(names, steps, strict=True)
            for own, parameter in step.named_parameters()
        }
        self._names = names
        self.tie()

    def tie(self) -> None:
        """Make the networks' parameters and buffers views of the stacked ones, on their device and in their type."""
        for parameter in self.stacked.values():
            parameter.data = _on_boundaries(parameter.data)
        for name, step in zip(self._names, self.chain, strict=True):
            for cell, network in enumerate(self.networks):
                layer = network.get_submodule(name)
                for own, stacked in step.named_parameters():
                    getattr(layer, own).data = stacked.data[cell]
                for own, buffer in step.named_buffers():
                    layer._buffers[own] = buffer[cell]

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits of each cell."""
        return self.chain(inputs)


def cell_losses(loss: Callable[[Tensor, Tensor], Tensor], logits: Tensor, labels: Tensor) -> Tensor:
    """Mean loss of each cell, (K,), from logits (K, B, C) and labels (K, B).

    Args:
        loss: From logits (B, C) and labels (B,) of a cell to its mean loss.
        logits: Of all cells.
        labels: Of all cells.
    """
    if type(loss) is nn.CrossEntropyLoss and _is_plain(loss):
        # The same numbers by PyTorch's own kernels, which vmap would take apart.
        each = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")
        return each.view(labels.shape).mean(1)
    if is_whole(logits[0]):
        return torch.vmap(loss)(logits, labels)
    return torch.stack([loss(*own) for own in zip(logits, labels, strict=True)])


def _is_plain(loss: nn.CrossEntropyLoss) -> bool:
    return loss.weight is None and (loss.reduction, loss.ignore_index, loss.label_smoothing) == ("mean", -100, 0)


def can_be_stacked(network: nn.Module) -> bool:
    """Whether a network is a chain of layers that have a stacked form."""
    chain = isinstance(network, Network) and network.is_chain
    return chain and all(_stacking(layer) is not None for _, layer in _leaves(network))


def _leaves(network: nn.Module) -> list[tuple[str, nn.Module]]:
    """Layers in the order of their application, each under its first name."""
    return [(name, module) for name, module in network.named_modules() if not list(module.children())]


def _stacking(layer: nn.Module) -> Callable[[Sequence[nn.Module]], nn.Module] | None:
    """How layers of one type are stacked, None if they are not. A layer with more than its type has no form."""
    if isinstance(layer, _ELEMENTWISE):
        return lambda layers: StackedActivation(type(layers[0])(**_options(layers[0])))
    if type(layer) is nn.Flatten and (layer.start_dim, layer.end_dim) == (1, -1):
        return lambda layers: nn.Flatten(2)
    kinds: dict[type, Callable[..., nn.Module]] = {nn.Linear: StackedLinear, nn.BatchNorm1d: StackedBatchNorm}
    return kinds.get(type(layer))


def _options(layer: nn.Module) -> dict[str, object]:
    return {name: getattr(layer, name) for name in ("negative_slope", "approximate") if hasattr(layer, name)}


def _stack(layers: Sequence[nn.Module], name: str) -> nn.Parameter | None:
    if getattr(layers[0], name) is None:
        return None
    return nn.Parameter(torch.stack([getattr(layer, name).detach() for layer in layers]))


def _on_boundaries(stacked: Tensor) -> Tensor:
    """The same numbers, on a CPU with each cell where a run alone has it: on a boundary of the memory."""
    cells, *shape = stacked.shape
    beyond = stacked[0].nbytes % ALIGNMENT
    if not stacked.is_cpu or beyond == 0:
        return stacked
    numbers = stacked[0].numel()
    padded = stacked.new_zeros(cells, numbers + (ALIGNMENT - beyond) // stacked.itemsize)
    return padded[:, :numbers].view(cells, *shape).copy_(stacked)
