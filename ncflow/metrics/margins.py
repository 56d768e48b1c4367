"""Margins of the logits and the product of weight norms (CBMM Memo 117)."""

import torch
from torch import Tensor, nn

_ROWS = 1024  # at a time: a copy of the logits of 1000 classes would be larger than the features


def margins(logits: Tensor, labels: Tensor) -> Tensor:
    """Logit of the label minus the largest other logit, (B,), float64; > 0 exactly where the sample is classified.

    Args:
        logits: (B, C); or (B, 1) for one output whose sign decides between two classes, where the margin is
            (2 y - 1) f.
        labels: (B,), 0..C-1.
    """
    if logits.shape[1] == 1:
        return (2 * labels.double() - 1) * logits[:, 0].double()
    parts = zip(logits.split(_ROWS), labels.split(_ROWS), strict=True)
    return torch.cat([_multiclass(rows, classes[:, None]) for rows, classes in parts])


def _multiclass(logits: Tensor, labels: Tensor) -> Tensor:
    own = logits.gather(1, labels)[:, 0]
    others = logits.scatter(1, labels, -torch.inf).amax(1)
    return own.double() - others.double()


def predictions(logits: Tensor) -> Tensor:
    """The classifier's choice, (B,), from logits (B, C) or (B, 1); -1, no class, where a logit is not finite."""
    return torch.cat([_choices(rows) for rows in logits.split(_ROWS)])


def _choices(logits: Tensor) -> Tensor:
    chosen = (logits[:, 0] > 0).long() if logits.shape[1] == 1 else logits.argmax(1)
    return torch.where(logits.isfinite().all(1), chosen, -1)


def weight_norm_product(network: nn.Module) -> Tensor:
    """rho: product over the weight matrices of a network of their Frobenius norms, float64.

    A convolution's kernel counts as one matrix, a row for each filter; biases and normalisation do not count.
    """
    weights = [getattr(module, "weight", None) for module in network.modules()]
    matrices = [weight.detach().double() for weight in weights if isinstance(weight, Tensor) and weight.ndim >= 2]
    if not matrices:
        return torch.tensor(torch.nan, dtype=torch.float64)
    return torch.stack([torch.linalg.vector_norm(matrix) for matrix in matrices]).prod()
