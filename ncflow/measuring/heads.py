"""The classifier of anybody's network: found, and read as the linear map that it is."""

import copy
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ncflow.checks import ArgumentError, error_line
from ncflow.metrics.head import LinearHead

_CONVOLUTIONS: dict[type[nn.Module], int] = {nn.Conv1d: 1, nn.Conv2d: 2, nn.Conv3d: 3}
# Of the parts of a wrapper that adds something to a layer, as PEFT's LoRA does, the one that is the layer itself.
_WRAPPED = "base_layer"


@dataclass(frozen=True)
class Head:
    """A classifier as the linear map that it is.

    Attributes:
        weight: W, (C, d).
        bias: b, (C,), or None.
        of_directions: Whether it reads h/|h|, as a cosine classifier does; that is then the feature.
        is_parameter: Whether W is what is trained, rather than made of it.
    """

    weight: Tensor
    bias: Tensor | None
    of_directions: bool = False
    is_parameter: bool = False

    @property
    def out_features(self) -> int:
        """C."""
        return len(self.weight)

    def feature(self, inputs: Tensor) -> Tensor:
        """What W is applied to, (N, d), of what the classifier was given, (N, d)."""
        return F.normalize(inputs, dim=1, eps=torch.finfo(inputs.dtype).tiny) if self.of_directions else inputs


def find_head(model: nn.Module, name: str | None = None) -> tuple[str, nn.Module]:
    """Name and module of the classifier of any network.

    Args:
        model: The network.
        name: Name of the layer as in ``named_modules()``; None takes the last ``nn.Linear`` in that order, with the
            adapter (LoRA) that wraps it.

    Raises:
        ArgumentError: If there is no such layer, or an adapter adds to what it gives.
    """
    modules = {key: module for key, module in model.named_modules() if key}
    if name is None:
        linears = [key for key, module in modules.items() if isinstance(module, nn.Linear)]
        if not linears:
            raise ArgumentError(
                f"classifier must be named: {type(model).__name__} has no nn.Linear, which would be taken for it"
            )
        chosen = _with_adapter(modules, linears[-1])
        return chosen, modules[chosen]
    if name not in modules:
        likely = [key for key, module in modules.items() if isinstance(module, nn.Linear | nn.Conv2d)] or list(modules)
        raise ArgumentError(f"classifier must be one of the layers {', '.join(likely[-12:])}, found {name!r}")
    whole = _with_adapter(modules, name)
    if whole != name:
        raise ArgumentError(f"classifier must be {whole!r}, whose weights are those with the adapter, found {name!r}")
    return name, modules[name]


def _with_adapter(modules: dict[str, nn.Module], name: str) -> str:
    """The outermost module around a layer that adds an adapter to it, or the layer itself."""
    parts = name.split(".")
    for end in range(1, len(parts)):
        around = ".".join(parts[:end])
        if isinstance(getattr(modules[around], _WRAPPED, None), nn.Module):
            return around
    return name


def is_fixed(model: nn.Module, head: LinearHead) -> bool:
    """Whether a classifier's W is not trained while other parameters of its model are."""
    if not isinstance(head, nn.Linear):
        return False
    own = [parameter for name, parameter in head.named_parameters() if name != "bias"]
    return not any(p.requires_grad for p in own) and any(p.requires_grad for p in model.parameters())


def has_adapter(model: nn.Module) -> bool:
    """Whether a layer has an adapter: its weights are then not one matrix a layer."""
    return any(isinstance(getattr(module, _WRAPPED, None), nn.Module) for module in model.modules())


def is_convolution(module: nn.Module) -> bool:
    """Whether a classifier is a convolution, whose channels are the second dimension of its inputs and outputs."""
    return type(module) in _CONVOLUTIONS


def as_linear(name: str, module: nn.Module, dim: int) -> LinearHead:
    """W and b of a classifier, in evaluation mode.

    An ``nn.Linear`` is read as it is. Any other module is asked for its values, in float64: at the unit vectors, where
    they are the columns of W, and b; and at others, at which W h + b, or W h/|h| + b, must be what it gives. A
    classifier of one output, whose sign decides between two classes, is read as the two of W = (-w/2, w/2), with which
    the cross-entropy is its logistic loss.

    Args:
        name: Its name.
        module: The module.
        dim: d.

    Raises:
        ArgumentError: If it is not linear.
    """
    if isinstance(module, nn.Linear) and type(module).forward is nn.Linear.forward:
        if module.out_features > 1:
            return module
        return _of_two(Head(module.weight.detach(), None if module.bias is None else module.bias.detach()))
    if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d) and module.groups == 1 and module.weight[0].numel() == dim:
        bias = None if module.bias is None else module.bias.detach()
        own = Head(module.weight.detach().flatten(1), bias, is_parameter=True)
        return own if own.out_features > 1 else _of_two(own)
    try:
        head = _asked(module, dim)
    except Exception as error:  # whatever a module of others may raise
        raise ArgumentError(f"classifier must take features (N, {dim}), {name!r}: {error_line(error)}") from error
    if head is None:
        raise ArgumentError(
            f"classifier must be linear in its input or in its direction, {name!r} is not: name the layer that is, or "
            "measure other layers than 'last', which need no weights"
        )
    return _of_two(head) if head.out_features == 1 else head


def both_sides(logits: Tensor) -> Tensor:
    """Logits (N, 2) of the two classes between which the sign of one logit (N, 1) decides; others as they are."""
    return torch.cat([-logits, logits], 1) / 2 if logits.shape[1] == 1 else logits


def _of_two(head: Head) -> Head:
    weight, bias = head.weight, head.bias
    halves = None if bias is None else torch.cat([-bias, bias]) / 2
    return Head(torch.cat([-weight, weight]) / 2, halves, head.of_directions)


def _asked(module: nn.Module, dim: int) -> Head | None:
    exact = copy.deepcopy(module).double()
    device = next((value.device for value in exact.parameters()), torch.device("cpu"))
    spatial = (1,) * _CONVOLUTIONS.get(type(module), 0)
    random = torch.Generator().manual_seed(0)

    def values(inputs: Tensor) -> Tensor:
        with torch.no_grad():
            found: Tensor = exact(inputs.to(device).view(*inputs.shape, *spatial))
        return found.flatten(1)

    units = torch.eye(dim, dtype=torch.float64)
    bias = (values(units[:1]) + values(-units[:1]))[0] / 2
    weight = (values(units) - bias).T
    others = torch.randn(16, dim, dtype=torch.float64, generator=random) * torch.logspace(-2, 2, 16).double()[:, None]
    found = values(others)
    for of_directions in (False, True):
        H = F.normalize(others, dim=1) if of_directions else others
        expected = H.to(device) @ weight.T + bias
        if (found - expected).abs().amax() <= 1e-9 * (expected.abs().amax() + 1):
            return Head(weight, bias if bias.any() else None, of_directions)
    return None
