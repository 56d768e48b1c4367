"""Batch normalisation with a trained, a fixed or no gamma."""

import math
from collections.abc import Sequence
from typing import Literal, get_args

from torch import nn

from ncflow.checks import ArgumentError, require

Placement = Literal["none", "last", "all"]
VisionPlacement = Literal["none", "torchvision", "last", "all"]
"""``torchvision``: the BN layers of its own model alone; ``last``: one right before the classifier; ``all``: both."""
_WITHOUT_LAST = {"none": "there is no BN", "torchvision": "there is no BN before the classifier"}


def check_norm(
    norm: str, affine: bool, gamma: float | None, norm_bias: bool, placements: Sequence[str] = get_args(Placement)
) -> None:
    """Refuse a placement that the model does not have, and BN options that contradict each other.

    Args:
        norm: Where BN is.
        affine: Whether the BN before the classifier may train anything.
        gamma: What its gamma is fixed to, None if it is trained.
        norm_bias: Whether it adds a trained offset.
        placements: The placements that the model has.

    Raises:
        ArgumentError: For an unknown placement, for a gamma, a bias or ``affine=False`` without BN before the
            classifier, or for ``affine=False`` with something to train.
    """
    require(norm in placements, "norm", f"one of {', '.join(map(repr, placements))}", norm)
    if norm in _WITHOUT_LAST:
        reason = f"where norm is {norm!r}: {_WITHOUT_LAST[norm]}"
        require(gamma is None, "gamma", f"null {reason}", gamma)
        require(not norm_bias, "norm_bias", f"false {reason}", norm_bias)
        require(affine, "affine", f"true {reason}", affine)
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
