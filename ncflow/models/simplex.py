"""A classifier that is not trained: W fixed to a simplex equiangular tight frame (ETF)."""

import math

import torch
from torch import Tensor
from torch.nn.utils.parametrize import is_parametrized

from ncflow.checks import require
from ncflow.models.network import Network


def fix_classifier(network: Network, norm: float | None) -> None:
    """Fix W to the rows of a simplex ETF in random directions; the classifier's bias, if it has one, stays trained.

    W has these rows whatever the initial norm of the other matrices is. It is no part of what is optimised or decayed,
    as in Zhu et al., A Geometric Analysis of Neural Collapse with Unconstrained Features (2021), and Yang et al.,
    Inducing Neural Collapse in Imbalanced Learning (2022). Its directions are drawn last, so that all other weights
    start as they do beside a trained W.

    Args:
        network: The network, its other weights as they start.
        norm: Norm > 0 of each row, which makes |W|_F sqrt(C) of it; None leaves the classifier trained.

    Raises:
        ArgumentError: For no such norm, beside normalised weight matrices, and where d < C - 1: C vectors with all
            cosines -1/(C-1) span C - 1 dimensions.
    """
    if norm is None:
        return
    require(0 < norm < math.inf, "simplex", "null or a number greater than 0", norm)
    normalised = any(is_parametrized(layer) for layer in network.modules())
    require(not normalised, "simplex", "null where normalization is not, which is of the classifier too", norm)
    weight = network.classifier.weight
    C, d = weight.shape
    rule = f"null where the classifier reads fewer than C - 1 = {C - 1} features, of which it reads {d}"
    require(d >= C - 1, "simplex", rule, norm)
    weight.requires_grad_(False)
    weight.copy_(norm * random_simplex(C, d))


def random_simplex(num_classes: int, dim: int) -> Tensor:
    """Rows (C, d) of a simplex ETF in directions that are drawn evenly, float64: of norm 1, with sum 0.

    They are the nearest ones to a matrix of normal numbers: of its singular values, those of its rows around their mean
    are set to sqrt(C/(C-1)).

    Args:
        num_classes: C >= 2.
        dim: d >= C - 1.
    """
    C = num_classes
    drawn = torch.randn(C, dim, dtype=torch.float64)
    left, _, right = torch.linalg.svd(drawn - drawn.mean(0), full_matrices=False)
    return math.sqrt(C / (C - 1)) * left[:, : C - 1] @ right[: C - 1]
