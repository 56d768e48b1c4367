"""Losses that :mod:`torch.nn` does not have, as CBMM Memo 117 trains with them: means over the samples."""

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ncflow.checks import require

Targets = Literal["one_hot", "signs"]


def square_loss(logits: Tensor, labels: Tensor, targets: Targets = "one_hot") -> Tensor:
    """Mean over the samples of the sum over the classes of (y_c - f_c)^2, a scalar >= 0.

    The sum over the classes makes it C times :class:`torch.nn.MSELoss`. With weight decay lambda, that is lambda/2 of
    the squared norms, a run minimises 2/N times the objective of the memo's section 6 (eq. 32-36) for N samples in
    all, whose weight decay is N lambda/2; that of its eq. 1 and 11, beside a mean over samples of one output's error,
    is lambda/2, or lambda/4 where two opposite outputs have the targets 1 and -1.

    Args:
        logits: f, (B, C).
        labels: (B,), 0..C-1.
        targets: ``one_hot``: y_c = 1 for the label, 0 for the others; ``signs``: 1 and -1, the memo's binary labels.
    """
    ones = F.one_hot(labels, logits.shape[1]).to(logits.dtype)
    return (logits - (2 * ones - 1 if targets == "signs" else ones)).square().sum(1).mean()


def exponential_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean over the samples of the sum over the other classes c of exp(f_c - f_y), a scalar > 0.

    For two classes it is the memo's exp(-y g), y = +-1 (section J.2), of the one function g = f_1 - f_0, and y g is
    the margin of :func:`ncflow.metrics.margins.margins`. The memo leaves more classes open; here, as there, it is the
    loss whose log(1 + loss) is, sample by sample, the cross-entropy.

    Args:
        logits: f, (B, C).
        labels: (B,), 0..C-1.
    """
    labels = labels[:, None]
    differences = logits - logits.gather(1, labels)
    # Left out rather than subtracted again: beside its 1, float32 would lose what well separated samples add.
    return differences.scatter(1, labels, -torch.inf).exp().sum(1).mean()


class SquareLoss(nn.Module):
    """:func:`square_loss` with its targets chosen.

    Args:
        targets: ``one_hot`` or ``signs``.
    """

    def __init__(self, *, targets: Targets = "one_hot") -> None:
        super().__init__()
        require(targets in get_args(Targets), "targets", f"one of {', '.join(map(repr, get_args(Targets)))}", targets)
        self.targets: Targets = targets

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The mean loss of logits (B, C) and labels (B,)."""
        return square_loss(logits, labels, self.targets)


class ExponentialLoss(nn.Module):
    """:func:`exponential_loss` as a module."""

    def __init__(self) -> None:  # without options: nn.Module's own would take any
        super().__init__()

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The mean loss of logits (B, C) and labels (B,)."""
        return exponential_loss(logits, labels)
