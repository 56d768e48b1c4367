"""torchvision's ResNet with batch normalisation where the papers place it."""

import itertools
import math
from collections.abc import Sequence
from typing import Literal, get_args

from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, conv1x1

from ncflow.checks import require
from ncflow.models.network import Network
from ncflow.models.norm import VisionPlacement, batch_norm, check_norm
from ncflow.models.simplex import fix_classifier

_BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}


class ResNet(Network):
    """ResNet of images (Pan, Cao, section 3.3), of torchvision's blocks and with its initialisation.

    The defaults are the authors' published network for 32x32 images: a 3x3 stem without max-pool, and a BN between
    pooling and classifier beside torchvision's own; ``stem="7x7"`` with ``norm="torchvision"`` is torchvision's
    network. The four stages are ``stages.0`` to ``stages.3``; ``feature`` pools and, with a BN before the classifier,
    normalises what the classifier reads.

    Args:
        input_shape: (channels, height, width) of one image.
        num_classes: C.
        depth: Number of weight matrices: 18 or 34.
        width: Factor > 0 of the channels of each convolution, 64 to 512, rounded, at least one remains.
        stem: First convolution: ``3x3`` of stride 1, or ``7x7`` of stride 2 with a max-pool, for large images.
        classifier_bias: Whether the classifier has one.
        norm: ``none``; ``torchvision`` (BN after each convolution); ``last`` (one BN right before the classifier, as
            the theorem assumes) or ``all`` (both, as published). The convolutions have no biases, with BN or without.
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
        depth: Literal[18, 34] = 18,
        width: float = 1.0,
        stem: Literal["3x3", "7x7"] = "3x3",
        classifier_bias: bool = True,
        norm: VisionPlacement = "all",
        norm_bias: bool = False,
        affine: bool = True,
        gamma: float | None = None,
        simplex: float | None = None,
    ) -> None:
        super().__init__()
        shape = tuple(input_shape)
        require(len(shape) == 3, "input_shape", "(channels, height, width)", shape)
        require(depth in _BLOCKS, "depth", f"one of {', '.join(map(str, _BLOCKS))}", depth)
        require(0 < width < math.inf, "width", "a number greater than 0", width)
        require(stem in ("3x3", "7x7"), "stem", "'3x3' or '7x7'", stem)
        check_norm(norm, affine, gamma, norm_bias, get_args(VisionPlacement))
        inner_norm = nn.BatchNorm2d if norm in ("torchvision", "all") else nn.Identity
        channels = [max(1, round(width * size)) for size in (64, 64, 128, 256, 512)]
        self.stem = _stem(stem, shape[0], channels[0], inner_norm)
        pairs = zip(itertools.pairwise(channels), _BLOCKS[depth], strict=True)
        stages = [
            _stage(fan_in, fan_out, blocks, 1 if index == 0 else 2, inner_norm)
            for index, ((fan_in, fan_out), blocks) in enumerate(pairs)
        ]
        self.stages = nn.Sequential(*stages)
        self.feature = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        if norm in ("last", "all"):
            self.feature.append(batch_norm(channels[-1], gamma, norm_bias))
        self.classifier = nn.Linear(channels[-1], num_classes, bias=classifier_bias)
        self.last_norm = self.feature[-1] if norm in ("last", "all") else None
        self.layer_names = [*(f"stages.{index}" for index in range(4)), "feature"]
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        fix_classifier(self, simplex)

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits (B, C) of images (B, channels, height, width)."""
        return self.classifier(self.feature(self.stages(self.stem(inputs))))


def _stem(kind: str, fan_in: int, fan_out: int, norm: type[nn.Module]) -> nn.Sequential:
    if kind == "3x3":
        convolution = nn.Conv2d(fan_in, fan_out, kernel_size=3, padding=1, bias=False)
        return nn.Sequential(convolution, norm(fan_out), nn.ReLU(inplace=True))
    convolution = nn.Conv2d(fan_in, fan_out, kernel_size=7, stride=2, padding=3, bias=False)
    return nn.Sequential(convolution, norm(fan_out), nn.ReLU(inplace=True), nn.MaxPool2d(3, stride=2, padding=1))


def _stage(fan_in: int, fan_out: int, blocks: int, stride: int, norm: type[nn.Module]) -> nn.Sequential:
    """As torchvision's ``_make_layer``, the shortcut's convolution first, so that equal seeds give equal weights."""
    shortcut = None
    if stride != 1 or fan_in != fan_out:
        shortcut = nn.Sequential(conv1x1(fan_in, fan_out, stride), norm(fan_out))
    first = BasicBlock(fan_in, fan_out, stride, shortcut, norm_layer=norm)
    return nn.Sequential(first, *[BasicBlock(fan_out, fan_out, norm_layer=norm) for _ in range(1, blocks)])
