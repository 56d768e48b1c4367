"""Learning-rate schedules, stepped once an epoch."""

import math

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


def constant(optimizer: Optimizer, epochs: int) -> None:
    """No schedule: the learning rate stays."""
    return
