"""Normalisation of whole weight matrices, W = g V/|V|_F, in place of BN (CBMM Memo 117, sections 3.3 and 3.4)."""

from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList, register_parametrization

from ncflow.checks import require
from ncflow.models.init import weight_layers
from ncflow.models.network import Network

Normalization = Literal["weight", "lagrange"]


class _OnSphere(nn.Module):
    """W = V/|V|_F. Where |V|_F = 1, the gradient of V is that of W, projected onto the sphere's tangent."""

    def forward(self, direction: Tensor) -> Tensor:
        return direction / torch.linalg.vector_norm(direction)

    def right_inverse(self, weight: Tensor) -> Tensor:
        return weight / torch.linalg.vector_norm(weight)


class _ScaledDirection(nn.Module):
    """W = g V/|V|_F, its norm |g| trained apart from its direction."""

    def forward(self, scale: Tensor, direction: Tensor) -> Tensor:
        return direction * (scale / torch.linalg.vector_norm(direction))

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        norm = torch.linalg.vector_norm(weight)
        return norm, weight / norm


def normalize_weights(network: Network, normalization: Normalization | None, norm: str) -> None:
    """Normalise the weight matrices of a network.

    ``weight``: each matrix is g_k V_k/|V_k|_F with a trained number g_k, as in weight normalisation, but by the norm
    of the whole matrix. V_k starts on the unit sphere; g_k alone is decayed, which is the same penalty as on W_k.

    ``lagrange``: all matrices but the last are held on the unit sphere, as by the multipliers of eq. 1. The gradient
    is projected onto the tangent, which is what the multiplier of eq. 5 does in the flow of eq. 7, and
    :func:`retract` follows each step. The last matrix W_L = rho V_L is free and alone decayed (eq. 26), and
    rho = |W_L|_F.

    A layer's ``weight`` is W itself in every case; what is trained is in its ``parametrizations``.

    Args:
        network: The network; its matrices are those of its linear layers and convolutions.
        normalization: ``weight``, ``lagrange``, or None for none.
        norm: The network's BN placement.

    Raises:
        ArgumentError: For an unknown kind, or if there is BN: the memo has one normalisation for each network, BN,
            weight normalisation or the multipliers that model them, and only without BN does the output scale with rho.
    """
    if normalization is None:
        return
    kinds = get_args(Normalization)
    require(normalization in kinds, "normalization", f"null or one of {', '.join(map(repr, kinds))}", normalization)
    require(
        norm == "none", "norm", f"'none' where normalization is {normalization!r}, which takes the place of BN", norm
    )
    for layer in weight_layers(network):
        if normalization == "weight":
            register_parametrization(layer, "weight", _ScaledDirection())
        elif layer is not network.classifier:
            register_parametrization(layer, "weight", _OnSphere())


def directions(network: nn.Module) -> list[Tensor]:
    """The V_k of all normalised matrices: their length is no part of the function, and so nothing to decay."""
    return [*_held(network), *(layer.original1 for layer in _parametrized(network, _ScaledDirection))]


def retract(network: nn.Module) -> None:
    """Put the matrices that ``lagrange`` holds back onto the unit sphere."""
    with torch.no_grad():
        for direction in _held(network):
            direction.div_(torch.linalg.vector_norm(direction))


def retract_after_each_step(network: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Let an optimiser call :func:`retract`, where the network has matrices that are held."""
    if _held(network):
        optimizer.register_step_post_hook(lambda *_: retract(network))


def _held(network: nn.Module) -> list[Tensor]:
    return [layer.original for layer in _parametrized(network, _OnSphere)]


def _parametrized(network: nn.Module, kind: type[nn.Module]) -> list[Any]:
    """What PyTorch keeps of each layer with a parametrisation of one kind: the tensors that are trained."""
    return [part for part in network.modules() if isinstance(part, ParametrizationList) and isinstance(part[0], kind)]
