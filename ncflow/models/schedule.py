"""Learning-rate schedules, stepped once an epoch."""

import math
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, MultiStepLR

from ncflow.checks import require


def milestones(optimizer: Optimizer, epochs: int, *, fractions: list[float], factor: float = 0.1) -> LRScheduler:
    """Multiply the learning rate by ``factor`` after ``ceil(fraction * epochs)`` epochs, for each fraction.

    Args:
        optimizer: The optimiser.
        epochs: Epochs of the whole run.
        fractions: Each in (0, 1], for example ``[0.25, 0.5, 0.75]``.
        factor: > 0.
    """
    inside = all(0 < fraction <= 1 for fraction in fractions)
    require(len(fractions) > 0, "fractions", "at least one number (scheduler=constant has none)", fractions)
    require(inside, "fractions", "numbers in (0, 1]", fractions)
    require(factor > 0, "factor", "greater than 0", factor)
    return MultiStepLR(optimizer, [math.ceil(fraction * epochs) for fraction in fractions], gamma=factor)


class WarmUpCosine(LRScheduler):
    """Multiply the initial learning rate of each parameter group by a factor of the epoch alone.

    Args:
        optimizer: The optimiser.
        epochs: E, of the whole run.
        warmup_epochs: w.
        min_factor: m.
    """

    def __init__(self, optimizer: Optimizer, epochs: int, warmup_epochs: int, min_factor: float) -> None:
        self.epochs, self.warmup_epochs, self.min_factor = epochs, warmup_epochs, min_factor
        super().__init__(optimizer)

    def factor(self, epoch: int) -> float:
        """Of an epoch e = 0, 1, ..: (e + 1)/(w + 1) for e < w, then m + (1 - m) (1 + cos(pi (e - w)/(E - w)))/2."""
        after = epoch - self.warmup_epochs
        if after < 0:
            return (epoch + 1) / (self.warmup_epochs + 1)
        fallen = (1 + math.cos(math.pi * after / (self.epochs - self.warmup_epochs))) / 2
        return self.min_factor + (1 - self.min_factor) * fallen

    def get_lr(self) -> list[Any]:
        """Learning rate of each group, of what the group itself started with: its number in a checkpoint may differ."""
        return [group["initial_lr"] * self.factor(self.last_epoch) for group in self.optimizer.param_groups]


def cosine(optimizer: Optimizer, epochs: int, *, warmup_epochs: int = 0, min_factor: float = 0.0) -> LRScheduler:
    """Rise to the learning rate over ``warmup_epochs`` in equal steps, then fall along half a cosine.

    In epoch e = 0..E-1 the factor of the learning rate is (e + 1)/(w + 1) for e < w, and from then on
    m + (1 - m) (1 + cos(pi (e - w)/(E - w)))/2: epoch w is the first with the whole of it, and m would be reached in
    epoch E. Those are PyTorch's ``LinearLR(start_factor=1/(w + 1), total_iters=w)`` and then
    ``CosineAnnealingLR(T_max=E - w)`` (Loshchilov, Hutter, SGDR, 2017, eq. 5, without restarts).

    Args:
        optimizer: The optimiser.
        epochs: E, of the whole run.
        warmup_epochs: w, 0..E-1.
        min_factor: m, in 0..1.
    """
    require(0 <= warmup_epochs < epochs, "warmup_epochs", f"in 0..{epochs - 1}, below epochs", warmup_epochs)
    require(0 <= min_factor <= 1, "min_factor", "in 0..1", min_factor)
    return WarmUpCosine(optimizer, epochs, warmup_epochs, min_factor)


def constant(optimizer: Optimizer, epochs: int) -> None:
    """No schedule: the learning rate stays."""
    return
