"""Multilayer perceptron with batch normalisation where the papers place it."""

import itertools
from collections.abc import Sequence
from math import prod
from typing import Literal

from torch import Tensor, nn

from ncflow.checks import require
from ncflow.models.init import draw_with_norm
from ncflow.models.network import Network
from ncflow.models.norm import Placement, batch_norm, check_norm
from ncflow.models.normalization import Normalization, normalize_weights
from ncflow.models.simplex import fix_classifier

_ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh, "gelu": nn.GELU, "leaky_relu": nn.LeakyReLU}


class MLP(Network):
    """MLP f(x) = W BN(act(... act(W_1 x))) with inputs of any shape, flattened (Pan, Cao, section 2.1).

    Hidden layer l is ``layers[l - 1]``, named ``layers.0`` and so on; its output, after activation and BN, is what the
    next linear layer reads.

    Args:
        input_shape: Shape of one input.
        num_classes: C.
        depth: Number of weight matrices, the classifier's included, 2..10000.
        width: Hidden width d, >= 1.
        activation: ``relu``, ``tanh``, ``gelu`` or ``leaky_relu``.
        bias: Whether the hidden linear layers have one.
        classifier_bias: Whether the classifier has one.
        norm: ``none``, ``last`` (one BN after the last activation, right before the classifier) or ``all``.
        norm_bias: Whether BN adds a trained offset.
        affine: False: BN trains nothing, and ``gamma`` must be a number.
        gamma: None: trained; a number: every entry of every BN is fixed to it.
        init_norm: Frobenius norm of each weight matrix as initialised, > 0; None: as PyTorch does by default.
        normalization: ``weight`` or ``lagrange`` (see :func:`ncflow.models.normalization.normalize_weights`), with
            ``norm="none"`` alone; None: none.
        simplex: None: W is trained; a number: it is fixed (see :func:`ncflow.models.simplex.fix_classifier`).
    """

    is_chain = True

    def __init__(
        self,
        input_shape: Sequence[int],
        num_classes: int,
        *,
        depth: int = 4,
        width: int = 300,
        activation: Literal["relu", "tanh", "gelu", "leaky_relu"] = "relu",
        bias: bool = False,
        classifier_bias: bool = False,
        norm: Placement = "last",
        norm_bias: bool = False,
        affine: bool = True,
        gamma: float | None = None,
        init_norm: float | None = None,
        normalization: Normalization | None = None,
        simplex: float | None = None,
    ) -> None:
        super().__init__()
        require(depth >= 2, "depth", "at least 2 (one hidden layer and the classifier)", depth)
        require(depth <= 10_000, "depth", "at most 10000", depth)
        require(width >= 1, "width", "at least 1", width)
        require(activation in _ACTIVATIONS, "activation", f"one of {', '.join(_ACTIVATIONS)}", activation)
        check_norm(norm, affine, gamma, norm_bias)
        widths = [prod(input_shape), *[width] * (depth - 1)]
        layers = []
        for index, (fan_in, fan_out) in enumerate(itertools.pairwise(widths)):
            parts: list[nn.Module] = [nn.Linear(fan_in, fan_out, bias=bias), _ACTIVATIONS[activation]()]
            if norm == "all" or (norm == "last" and index == depth - 2):
                parts.append(batch_norm(fan_out, gamma, norm_bias))
            layers.append(nn.Sequential(*parts))
        self.flatten = nn.Flatten()
        self.layers = nn.Sequential(*layers)
        self.classifier = nn.Linear(width, num_classes, bias=classifier_bias)
        self.last_norm = None if norm == "none" else layers[-1][-1]
        self.layer_names = [f"layers.{index}" for index in range(len(layers))]
        if init_norm is not None:
            draw_with_norm(self, init_norm)
        normalize_weights(self, normalization, norm)
        fix_classifier(self, simplex)

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits (B, C) of inputs (B, ...)."""
        return self.classifier(self.layers(self.flatten(inputs)))
