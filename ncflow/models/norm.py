"""Batch normalisation with a trained, a fixed or no gamma."""

import math
from typing import Literal

from torch import nn

from ncflow.checks import ArgumentError, require

Placement = Literal["none", "last", "all"]


def check_norm(norm: str, affine: bool, gamma: float | None, norm_bias: bool) -> None:
    """Refuse combinations of the BN options that contradict each other.

    Raises:
        ArgumentError: For a gamma, a bias or ``affine=False`` without BN, or ``affine=False`` with something to train.
    """
    require(norm in ("none", "last", "all"), "norm", "one of 'none', 'last', 'all'", norm)
    if norm == "none":
        require(gamma is None, "gamma", "null where norm is 'none': there is no BN", gamma)
        require(not norm_bias, "norm_bias", "false where norm is 'none': there is no BN", norm_bias)
        require(affine, "affine", "true where norm is 'none': there is no BN", affine)
    if gamma is not None:
        require(math.isfinite(gamma), "gamma", "null or a finite number", gamma)
    if not affine:
        if gamma is None:
            raise ArgumentError(
                "gamma must be a number where affine is false (1 for plain BN without parameters), found null: "
                "a gamma that is null is trained"
            )
        require(not norm_bias, "norm_bias", "false where affine is false", norm_bias)


def batch_norm(width: int, gamma: float | None = None, bias: bool = False) -> nn.BatchNorm1d:
    """BN over features of a given width.

    Args:
        width: Number of features.
        gamma: None trains the multiplicative parameter from 1; a number fixes each entry, and the optimiser and
            weight decay never see it.
        bias: Whether BN adds a trained offset.
    """
    layer = nn.BatchNorm1d(width)
    if gamma is not None:
        nn.init.constant_(layer.weight, gamma)
        layer.weight.requires_grad_(False)
    if not bias:
        layer.register_parameter("bias", None)
    return layer
