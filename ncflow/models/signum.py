"""The optimiser whose step is a sign: SignSGD, and with momentum Signum."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from ncflow.checks import require


class Signum(Optimizer):
    """Signum (Bernstein et al. 2018, Algorithm 2): each weight goes eta against the sign of its gradient's mean.

    With g the gradient, lambda w added where there is weight decay, m <- mu m + (1 - mu) g and w <- w - eta sign(m).
    Without momentum it is SignSGD. A mean that is exactly 0 moves nothing.

    Args:
        params: Parameters or groups of them.
        lr: eta > 0.
        momentum: mu in [0, 1).
        weight_decay: lambda >= 0, in the gradient; beside it see :mod:`ncflow.models.decay`.
    """

    def __init__(self, params: Any, lr: float = 1e-3, momentum: float = 0.9, weight_decay: float = 0.0) -> None:
        require(lr > 0, "lr", "greater than 0", lr)
        require(0 <= momentum < 1, "momentum", "in [0, 1)", momentum)
        require(weight_decay >= 0, "weight_decay", "at least 0", weight_decay)
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """One step; returns what ``closure`` does."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    mean = self._mean(parameter, group)
                    parameter.add_(mean.sign(), alpha=-group["lr"])
        return loss

    def _mean(self, parameter: Tensor, group: dict[str, Any]) -> Tensor:
        gradient = parameter.grad
        assert gradient is not None
        if group["weight_decay"] > 0:
            gradient = gradient.add(parameter, alpha=group["weight_decay"])
        if group["momentum"] == 0:
            return gradient
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        mean: Tensor = state["momentum_buffer"]
        return mean.mul_(group["momentum"]).add_(gradient, alpha=1 - group["momentum"])
