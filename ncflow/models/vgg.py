"""torchvision's VGG with batch normalisation where the papers place it."""

import itertools
import math
from collections.abc import Sequence
from typing import Literal, get_args

from torch import Tensor, nn
from torchvision.models.vgg import cfgs, make_layers

from ncflow.checks import require
from ncflow.models.network import Network
from ncflow.models.norm import VisionPlacement, batch_norm, check_norm
from ncflow.models.simplex import fix_classifier

_PLANS = {11: cfgs["A"], 13: cfgs["B"], 16: cfgs["D"], 19: cfgs["E"]}


class VGG(Network):
    """VGG of images (Pan, Cao, section 3.3); the defaults are torchvision's, layers and initialisation alike.

    The five stages of convolutions are ``stages.0`` to ``stages.4``, each with its max-pool; the two hidden linear
    layers are ``hidden.0`` and ``hidden.1``, each with its ReLU and Dropout. The BN before the classifier ends
    ``hidden.1``, after ReLU and Dropout, so that nothing stands between it and the classifier. Its running variance
    holds what Dropout adds in training, so that alpha = |gamma| (Lemma C.4) needs ``dropout=0``; else alpha is less.

    Args:
        input_shape: (channels, height, width) of one image, height and width >= 32.
        num_classes: C.
        depth: Number of weight matrices: 11, 13, 16 or 19.
        width: Factor > 0 of the channels of each convolution and of ``hidden``, rounded, at least one remains.
        hidden: Width d of the hidden linear layers at ``width=1``; 0: there are none, and the classifier reads the
            pooled map (of one number a channel with ``pool=1``), which is ``hidden.0`` then.
        pool: Side of the map that the stages' output is averaged or repeated to: 7 as published, where the one
            position left of a 32x32 image is repeated 49 times, or 1 without the copies. The first hidden layer then
            starts with weights like the sums of 49, N(0, 0.07^2), so that it starts as it would with the copies.
        dropout: Probability in [0, 1) after each hidden linear layer.
        classifier_bias: Whether the classifier has one.
        norm: ``none``; ``torchvision`` (BN after each convolution, as published); ``last`` (one BN right before the
            classifier, as the theorem assumes) or ``all`` (both).
        norm_bias: Whether the BN before the classifier adds a trained offset.
        affine: False: the BN before the classifier trains nothing, and ``gamma`` must be a number.
        gamma: None: trained; a number: every entry of the BN before the classifier is fixed to it.
        simplex: None: W is trained; a number: it is fixed (see :func:`ncflow.models.simplex.fix_classifier`).
    """

    is_chain = True

    def __init__(
        self,
        input_shape: Sequence[int],
        num_classes: int,
        *,
        depth: Literal[11, 13, 16, 19] = 11,
        width: float = 1.0,
        hidden: int = 4096,
        pool: Literal[1, 7] = 7,
        dropout: float = 0.5,
        classifier_bias: bool = True,
        norm: VisionPlacement = "torchvision",
        norm_bias: bool = False,
        affine: bool = True,
        gamma: float | None = None,
        simplex: float | None = None,
    ) -> None:
        super().__init__()
        shape = tuple(input_shape)
        rule = "(channels, height, width), both sides at least 32 for VGG's five poolings"
        require(len(shape) == 3 and min(shape[1:]) >= 32, "input_shape", rule, shape)
        require(depth in _PLANS, "depth", f"one of {', '.join(map(str, _PLANS))}", depth)
        require(0 < width < math.inf, "width", "a number greater than 0", width)
        require(hidden >= 0, "hidden", "at least 0", hidden)
        require(pool in (1, 7), "pool", "1 or 7", pool)
        require(0 <= dropout < 1, "dropout", "in [0, 1)", dropout)
        check_norm(norm, affine, gamma, norm_bias, get_args(VisionPlacement))
        self.stages = _stages(shape[0], depth, width, norm in ("torchvision", "all"))
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(pool), nn.Flatten())
        sizes = [max(1, round(width * 512)) * pool**2, *[max(1, round(width * hidden))] * (2 if hidden else 0)]
        features = sizes[-1]
        linears = [nn.Linear(fan_in, fan_out) for fan_in, fan_out in itertools.pairwise(sizes)]
        layers = [nn.Sequential(linear, nn.ReLU(inplace=True), nn.Dropout(dropout)) for linear in linears]
        layers = layers or [nn.Sequential()]
        if norm in ("last", "all"):
            layers[-1].append(batch_norm(features, gamma, norm_bias))
        self.hidden = nn.Sequential(*layers)
        self.classifier = nn.Linear(features, num_classes, bias=classifier_bias)
        self.last_norm = layers[-1][-1] if norm in ("last", "all") else None
        self.layer_names = [
            *(f"stages.{index}" for index in range(5)),
            *(f"hidden.{index}" for index in range(len(layers))),
        ]
        _initialise(self)
        if linears and pool == 1:  # at N(0, 0.01^2), a VGG without BN never leaves its first plateau
            nn.init.normal_(linears[0].weight, 0, 0.07)
        fix_classifier(self, simplex)

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits (B, C) of images (B, channels, height, width)."""
        return self.classifier(self.hidden(self.pool(self.stages(inputs))))


def _stages(channels: int, depth: int, width: float, norm: bool) -> nn.Sequential:
    plan = [size if isinstance(size, str) else max(1, round(width * size)) for size in _PLANS[depth]]
    layers = make_layers(plan, batch_norm=norm)
    first = layers[0]
    assert isinstance(first, nn.Conv2d)
    if channels != first.in_channels:  # torchvision knows colour images alone
        layers[0] = nn.Conv2d(channels, first.out_channels, kernel_size=3, padding=1)
    ends = [index + 1 for index, layer in enumerate(layers) if isinstance(layer, nn.MaxPool2d)]
    return nn.Sequential(*[nn.Sequential(*layers[start:end]) for start, end in itertools.pairwise([0, *ends])])


def _initialise(network: nn.Module) -> None:
    """As torchvision does, in its order, so that equal seeds give equal weights."""
    for layer in network.modules():
        if not isinstance(layer, nn.Conv2d | nn.Linear):
            continue
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        else:
            nn.init.normal_(layer.weight, 0, 0.01)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
