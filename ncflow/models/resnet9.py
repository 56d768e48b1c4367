"""The 9-layer residual network for 32x32 images."""

import math
from collections.abc import Sequence
from typing import get_args

from torch import Tensor, nn

from ncflow.checks import require
from ncflow.models.network import Network
from ncflow.models.norm import VisionPlacement, batch_norm, check_norm
from ncflow.models.simplex import fix_classifier


class _Residual(nn.Module):
    """x + f(x)."""

    def __init__(self, *body: nn.Module) -> None:
        super().__init__()
        self.body = nn.Sequential(*body)

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs + self.body(inputs)


class ResNet9(Network):
    """ResNet-9, eight convolutions 3x3 and a linear classifier, with PyTorch's own initialisation.

    It is the network of the DAWNBench entries on CIFAR-10 as it is used since, by Zhao et al. (Optimizer choice matters
    for the emergence of Neural Collapse, ICLR 2026) too: ``stages.0`` has 64 channels, ``stages.1`` 128, ``stages.2``
    256 and ``stages.3`` 512; all but the first halve the sides by a max-pool, and ``stages.1`` and ``stages.3`` end in
    a residual block of two convolutions. ``feature`` takes the maximum over the positions that are left and, with a BN
    before the classifier, normalises what the classifier reads. ReLU follows each convolution and its BN. The
    convolutions have no biases, with BN or without.

    Args:
        input_shape: (channels, height, width) of one image, height and width >= 8.
        num_classes: C.
        width: Factor > 0 of the channels of each convolution, rounded, at least one remains.
        classifier_bias: Whether the classifier has one.
        norm: ``none``; ``torchvision`` (BN after each convolution, where torchvision's networks have it, as published);
            ``last`` (one BN right before the classifier, as the theorem assumes) or ``all`` (both).
        norm_bias: Whether the BN before the classifier adds a trained offset.
        affine: False: the BN before the classifier trains nothing, and ``gamma`` must be a number.
        gamma: None: trained; a number: every entry of the BN before the classifier is fixed to it.
        simplex: None: W is trained; a number: it is fixed (see :func:`ncflow.models.simplex.fix_classifier`).
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        num_classes: int,
        *,
        width: float = 1.0,
        classifier_bias: bool = True,
        norm: VisionPlacement = "torchvision",
        norm_bias: bool = False,
        affine: bool = True,
        gamma: float | None = None,
        simplex: float | None = None,
    ) -> None:
        super().__init__()
        shape = tuple(input_shape)
        rule = "(channels, height, width), both sides at least 8 for three poolings"
        require(len(shape) == 3 and min(shape[1:]) >= 8, "input_shape", rule, shape)
        require(0 < width < math.inf, "width", "a number greater than 0", width)
        check_norm(norm, affine, gamma, norm_bias, get_args(VisionPlacement))
        inner_norm = nn.BatchNorm2d if norm in ("torchvision", "all") else nn.Identity

        def convolution(fan_in: int, fan_out: int, *more: nn.Module) -> nn.Sequential:
            layer = nn.Conv2d(fan_in, fan_out, kernel_size=3, padding=1, bias=False)
            return nn.Sequential(layer, inner_norm(fan_out), nn.ReLU(inplace=True), *more)

        def residual(channels: int) -> nn.Module:
            return _Residual(convolution(channels, channels), convolution(channels, channels))

        a, b, c, d = (max(1, round(width * size)) for size in (64, 128, 256, 512))
        self.stages = nn.Sequential(
            convolution(shape[0], a),
            convolution(a, b, nn.MaxPool2d(2), residual(b)),
            convolution(b, c, nn.MaxPool2d(2)),
            convolution(c, d, nn.MaxPool2d(2), residual(d)),
        )
        self.feature = nn.Sequential(nn.AdaptiveMaxPool2d(1), nn.Flatten())
        if norm in ("last", "all"):
            self.feature.append(batch_norm(d, gamma, norm_bias))
        self.classifier = nn.Linear(d, num_classes, bias=classifier_bias)
        self.last_norm = self.feature[-1] if norm in ("last", "all") else None
        self.layer_names = [*(f"stages.{index}" for index in range(4)), "feature"]
        fix_classifier(self, simplex)

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits (B, C) of images (B, channels, height, width)."""
        return self.classifier(self.feature(self.stages(inputs)))
