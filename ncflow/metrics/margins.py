"""Margins of the logits and the product of weight norms (CBMM Memo 117)."""

import torch
from torch import Tensor, nn

_ELEMENTS = 2**20  # at a time: a copy of the logits of 1000 classes would be larger than the features


def margins(logits: Tensor, labels: Tensor) -> Tensor:
    """Logit of the label minus the largest other logit, (..., B), float64; > 0 exactly if the sample is classified.

    Args:
        logits: (..., B, C); or (..., B, 1) for one output whose sign decides between two classes, where the margin is
            (2 y - 1) f.
        labels: (..., B), 0..C-1.
    """
    rows, classes = logits.flatten(0, -2), labels.flatten()
    if rows.shape[1] == 1:
        return ((2 * classes.double() - 1) * rows[:, 0].double()).view(labels.shape)
    parts = zip(rows.split(_at_a_time(rows)), classes.split(_at_a_time(rows)), strict=True)
    return torch.cat([_multiclass(part, own[:, None]) for part, own in parts]).view(labels.shape)


def _multiclass(logits: Tensor, labels: Tensor) -> Tensor:
    own = logits.gather(1, labels)[:, 0]
    others = logits.scatter(1, labels, -torch.inf).amax(1)
    return own.double() - others.double()


def predictions(logits: Tensor) -> Tensor:
    """The classifier's choice, (..., B), of logits (..., B, C) or (..., B, 1); -1, no class, if one is not finite."""
    rows = logits.flatten(0, -2)
    return torch.cat([_choices(part) for part in rows.split(_at_a_time(rows))]).view(logits.shape[:-1])


def _choices(logits: Tensor) -> Tensor:
    chosen = (logits[:, 0] > 0).long() if logits.shape[1] == 1 else logits.argmax(1)
    # By the extremes, which NaN takes part in: twenty times as fast as asking each logit.
    return torch.where(logits.amin(1).isfinite() & logits.amax(1).isfinite(), chosen, -1)


def _at_a_time(rows: Tensor) -> int:
    return max(1, _ELEMENTS // rows.shape[1])


def weight_norm_product(network: nn.Module) -> Tensor:
    """rho: product over the weight matrices of a network of their Frobenius norms, float64.

    A convolution's kernel counts as one matrix, a row for each filter, as those of an attention's queries, keys and
    values do together; biases and normalisation do not count.
    """
    names = ("weight", "in_proj_weight")  # the second one of nn.MultiheadAttention
    weights = [getattr(module, name, None) for module in network.modules() for name in names]
    return _norm_product([weight.detach() for weight in weights if isinstance(weight, Tensor) and weight.ndim >= 2])


def folded_weight_norm_product(network: nn.Module) -> Tensor:
    """Return rho with BN folded in: as :func:`weight_norm_product`, BN's scales gamma/sigma counted with the weights.

    sigma^2 is BN's running variance plus its eps. A BN right after a weight layer scales that matrix's rows; another,
    after an activation, the columns of the next matrix. Offsets change no norm. Without BN it is rho.

    Args:
        network: A chain of modules that were registered in the order in which they are applied. NaN for anything that
            is not: a network says so with an attribute ``is_chain``.
    """
    if not getattr(network, "is_chain", False):
        return torch.tensor(torch.nan, dtype=torch.float64)
    matrices: list[Tensor] = []
    waiting: Tensor | None = None
    previous: nn.Module | None = None
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            matrix = module.weight.detach().double().flatten(1)
            if waiting is not None:
                matrix = matrix * waiting.repeat_interleave(matrix.shape[1] // len(waiting))
            matrices.append(matrix)
            waiting = None
        elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) and module.running_var is not None:
            scale = (module.running_var.double() + module.eps).rsqrt()
            scale = scale if module.weight is None else scale * module.weight.detach().double()
            if isinstance(previous, nn.Linear | nn.Conv2d):
                matrices[-1] = matrices[-1] * scale[:, None]
            else:
                waiting = scale
        if not list(module.children()):
            previous = module
    return _norm_product(matrices)


def _norm_product(matrices: list[Tensor]) -> Tensor:
    if not matrices:
        return torch.tensor(torch.nan, dtype=torch.float64)
    return torch.stack([torch.linalg.vector_norm(matrix.double()) for matrix in matrices]).prod()
