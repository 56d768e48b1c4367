"""Initial weights of a given Frobenius norm (CBMM Memo 117, section 7)."""

import math

import torch
from torch import nn

from ncflow.checks import require


def weight_layers(network: nn.Module) -> list[nn.Linear | nn.Conv2d]:
    """The layers whose weights are matrices, in order; a convolution's kernel is one, with a row for each filter."""
    return [layer for layer in network.modules() if isinstance(layer, nn.Linear | nn.Conv2d)]


def draw_with_norm(network: nn.Module, norm: float) -> None:
    """Draw each weight matrix anew from a normal distribution and scale it to one Frobenius norm; biases stay.

    Args:
        network: The network.
        norm: Frobenius norm of each matrix, > 0; rho, their product over L matrices, starts at its L-th power.
    """
    require(0 < norm < math.inf, "init_norm", "null or a number greater than 0", norm)
    for layer in weight_layers(network):
        nn.init.normal_(layer.weight)
        with torch.no_grad():
            layer.weight.mul_(norm / layer.weight.double().norm())
