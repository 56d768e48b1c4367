"""The mean of a loss over a split from its values on batches, whatever its own mean is over."""

import copy
from collections.abc import Callable
from math import nan
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.loss import _Loss

from ncflow.checks import ArgumentError, error_line
from ncflow.measuring.heads import both_sides
from ncflow.measuring.notes import note
from ncflow.models.losses import ExponentialLoss, SquareLoss

Loss = Callable[[Tensor, Tensor], Tensor]
"""From logits (B, C) and labels (B,) to the mean loss."""

# Each way to sum up: from logits and labels to a sum over samples and their number (or weight).
_Summed = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


class SplitLoss:
    """Sums a loss over batches so that the sum divided by the weight is its mean over the samples.

    PyTorch's own losses are summed as they are defined, with class weights and with any ``reduction``; the mean is
    given of a sum too. Another loss is tried on the first two or more samples, whole and in halves: if it is neither
    their mean, nor their sum, nor a value a sample, then its mean over a split cannot be made from batches.

    Args:
        loss: The loss; a classifier of one output gives it logits (B,) and floating labels, as the logistic loss
            wants them.
        is_found: Whether it was found on a module rather than asked for: if it cannot be taken it is NaN then, and one
            line says why, while one that was asked for is an error.
    """

    def __init__(self, loss: Loss, is_found: bool = False) -> None:
        self.loss, self.is_found = loss, is_found
        self._summed: _Summed | None = _known(loss)
        self._held: list[tuple[Tensor, Tensor]] = []

    def __call__(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Sum and weight of the losses of logits (B, C) and labels (B,); of a first single sample with the next."""
        if self._summed is None:
            self._held.append((logits, labels))
            logits, labels = (torch.cat(parts) for parts in zip(*self._held, strict=True))
            if len(labels) < 2:
                return logits.new_zeros(()), logits.new_zeros(())
            self._held, self._summed = [], self._tried(logits, labels)
        return self._summed(*_given(self.loss, logits, labels))

    def rest(self) -> tuple[Tensor, Tensor] | None:
        """Sum and weight of a sample that remained the only one, as its mean."""
        if not self._held:
            return None
        held, self._held, self._summed = self._held[0], [], _mean_of(self.loss)
        return self(*held)

    def _tried(self, logits: Tensor, labels: Tensor) -> _Summed:
        half = (len(labels) + 1) // 2
        try:
            whole, first, second = (
                self.loss(*_given(self.loss, logits[part], labels[part]))
                for part in (slice(None), slice(half), slice(half, None))
            )
            if whole.shape == labels.shape:
                return lambda logits, labels: (self.loss(logits, labels).sum(), _count(logits, labels))
            if whole.ndim > 0:
                raise ArgumentError(f"a value of shape {tuple(whole.shape)}")
            means = (half * first + (len(labels) - half) * second) / len(labels)
        except Exception as error:  # whatever a loss of others may raise
            return self._refused(f"it cannot be taken from logits and labels ({error_line(error)})", error)
        if not whole.isfinite() or torch.isclose(whole, means, rtol=1e-5, atol=0):
            return _mean_of(self.loss)
        if torch.isclose(whole, first + second, rtol=1e-5, atol=0):
            return lambda logits, labels: (self.loss(logits, labels), _count(logits, labels))
        return self._refused("it is no mean over the samples, nor their sum, and depends on the batches", None)

    def _refused(self, why: str, error: Exception | None) -> _Summed:
        way_out = "loss= takes a function from logits (B, C) and labels (B,) to their mean or to a value a sample"
        if not self.is_found:
            raise ArgumentError(f"loss must be known: {why}; {way_out}") from error
        note(f"loss is NaN, as the module's own is not known: {why}; {way_out}")
        return lambda logits, labels: (logits.new_tensor(nan), _count(logits, labels))


def is_cross_entropy(loss: Loss, num_outputs: int, device: torch.device) -> bool:
    """Whether a loss, of whatever name, is the mean cross-entropy: by its values, to 1e-5 of them.

    Not by those of the data, where another loss may come as near as rounding. That of one output is the logistic loss.

    Args:
        loss: The loss; of other arguments, or no mean, it is not.
        num_outputs: C, or 1.
        device: On which it works.
    """
    if isinstance(loss, nn.CrossEntropyLoss) and loss.label_smoothing > 0:  # however little
        return False
    logits, labels = _probe(num_outputs, device)
    try:
        return all(
            bool(
                torch.isclose(loss(*_given(loss, logits[:n], labels[:n])).double(), _reference(logits[:n], labels[:n]))
            )
            for n in (1, 4)
        )
    except Exception:  # whatever a loss of others may raise
        return False


def is_of_differences(loss: Loss, num_outputs: int) -> bool:
    """Whether a loss stays the same if one number is added to all logits of a sample, by its values.

    Its gradient in the logits then sums to 0 over classes. Of one output there are no differences.
    """
    logits, labels = _probe(num_outputs, torch.device("cpu"))
    shifts = torch.tensor([[0.7], [-1.3], [0.4], [2.0]], dtype=torch.float64)
    try:
        one, other = (loss(given, labels) for given in (logits, logits + shifts))
        return num_outputs > 1 and bool(torch.isclose(one, other, rtol=1e-9, atol=1e-12))
    except Exception:  # whatever a loss of others may raise
        return False


def _probe(num_outputs: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Logits (4, C) and labels (4,) on which losses are told apart."""
    logits = 3 * torch.arange(4 * num_outputs, dtype=torch.float64, device=device).sin().view(4, num_outputs)
    return logits, torch.tensor([0, max(num_outputs, 2) - 1, 1, 0], device=device)


def _reference(logits: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(both_sides(logits), labels)


def _given(loss: Loss, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """What a loss takes: of a classifier of one output, the two sides for the cross-entropy, else the output."""
    if logits.shape[1] > 1:
        return logits, labels
    if loss is F.cross_entropy or isinstance(loss, nn.CrossEntropyLoss):
        return both_sides(logits), labels
    return logits[:, 0], labels.to(logits.dtype)


def _count(logits: Tensor, labels: Tensor) -> Tensor:
    return logits.new_tensor(len(labels))


def _mean_of(loss: Loss) -> _Summed:
    return lambda logits, labels: (loss(logits, labels) * len(labels), _count(logits, labels))


def _known(loss: Loss) -> _Summed | None:
    """How losses are summed that need no trial."""
    if loss is F.cross_entropy or isinstance(loss, SquareLoss | ExponentialLoss):
        return _mean_of(loss)
    if isinstance(loss, nn.CrossEntropyLoss) and _is_plain(loss):
        return _mean_of(loss)
    if not isinstance(loss, _Loss) or not type(loss).__module__.startswith("torch."):
        return None
    own: Any = copy.deepcopy(loss).double()
    if isinstance(loss, nn.CrossEntropyLoss | nn.NLLLoss):
        own.reduction = "none"
        return lambda logits, labels: (own.to(logits.device)(logits, labels).sum(), _weight(own, logits, labels))
    own.reduction = "mean"
    return lambda logits, labels: _mean_of(own.to(logits.device))(logits, labels)


def _is_plain(loss: nn.CrossEntropyLoss) -> bool:
    return loss.weight is None and loss.reduction == "mean" and loss.ignore_index < 0  # which no label is


def _weight(loss: Any, logits: Tensor, labels: Tensor) -> Tensor:
    """The sum of the weights of the classes of some samples, by which PyTorch's mean divides."""
    weights = logits.new_ones(labels.shape) if loss.weight is None else loss.weight[labels.clamp(min=0)]
    return (weights * (labels != loss.ignore_index)).sum()
