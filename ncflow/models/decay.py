"""How weight decay reaches the weights: through the gradient (coupled), beside it (decoupled), or a share each way."""

from collections.abc import Callable
from types import MethodType
from typing import Any

import torch
from torch.optim import SGD, Adam, AdamW, Optimizer

from ncflow.models.signum import Signum

COUPLING = "weight_decay_coupling"
"""Key of a parameter group: the share of its ``weight_decay`` that is coupled; missing for the optimiser's own way."""

_OWN = {SGD: 1.0, Adam: 1.0, Signum: 1.0, AdamW: 0.0}


def own_coupling(optimizer: type[Optimizer]) -> float | None:
    """The share of the decay that an optimiser couples by itself; None of one that is not known."""
    return _OWN.get(optimizer)


def share_decay(optimizer: Optimizer) -> Optimizer:
    """Let each step of an optimiser decay its parameter groups as their :data:`COUPLING` says.

    With a group's weight decay lambda, its learning rate eta and the share s, a step first takes ``g + s lambda w`` for
    the gradient g and ``(1 - eta lambda (1 - s)) w`` for the weights w, and is then the optimiser's own without decay:
    s = 1 is L2 regularisation (``torch.optim.Adam``), s = 0 decoupled decay (``torch.optim.AdamW``; Loshchilov, Hutter
    2019), and between them the mixture of Zhao et al. (2026). Where s is the optimiser's own way already, it is left to
    it. Clipping of gradients and the like come before, as with the optimiser's own decay.

    Args:
        optimizer: Newly made. That of other people's making has to heed a group's ``weight_decay`` or know none.

    Returns:
        The optimiser itself.
    """
    own, is_shared = own_coupling(type(optimizer)), False
    for group in optimizer.param_groups:
        share = group.pop(COUPLING, None)
        if share is not None and share != own and group["weight_decay"] > 0:
            decay, group["weight_decay"] = group["weight_decay"], 0.0
            group["coupled"], group["decoupled"] = share * decay, (1 - share) * decay
            is_shared = True
    if is_shared:
        # Of the object, not of a class made for it: PyTorch runs the hooks of a step once for each class that has one.
        optimizer.step = MethodType(_step, optimizer)  # type: ignore[method-assign]
    return optimizer


def decay_of(group: dict[str, Any], own: float) -> tuple[float, float]:
    """Lambda of a parameter group as :func:`share_decay` left it, and the share of it that is coupled.

    Args:
        group: The group.
        own: The share that the optimiser couples by itself.
    """
    if "coupled" not in group:
        return group["weight_decay"], own
    whole = group["coupled"] + group["decoupled"]
    return whole, group["coupled"] / whole


def is_shared(optimizer: Optimizer) -> bool:
    """Whether an optimiser's own way to decay is not used for some of its parameters."""
    return any("coupled" in group for group in optimizer.param_groups)


def _step(optimizer: Optimizer, closure: Callable[[], Any] | None = None) -> Any:
    loss = None
    if closure is not None:
        with torch.enable_grad():
            loss = closure()
    with torch.no_grad():
        for group in optimizer.param_groups:
            trained = [p for p in group["params"] if p.grad is not None]
            if trained and group.get("coupled"):
                torch._foreach_add_([p.grad for p in trained], trained, alpha=group["coupled"])
            if trained and group.get("decoupled"):
                torch._foreach_mul_(trained, 1 - group["lr"] * group["decoupled"])
    type(optimizer).step(optimizer)
    return loss
