"""torchvision's Vision Transformer at a size for small images."""

import math
from collections.abc import Sequence
from typing import Literal, get_args

from torch import Tensor, nn
from torchvision.models import VisionTransformer

from ncflow.checks import require
from ncflow.models.network import Network
from ncflow.models.norm import batch_norm, check_norm
from ncflow.models.simplex import fix_classifier

_Placement = Literal["none", "last"]


class ViT(Network):
    """Vision Transformer of torchvision's blocks and with their initialisation; the classifier starts as PyTorch's do.

    (torchvision's own head starts at 0, where no direction of W could be measured.) The defaults are the sizes of Zhao
    et al. (ICLR 2026) for CIFAR-10, whose network has no LayerNorm after its last block. The feature is the class token
    after that LayerNorm. Block l is ``vit.encoder.layers.encoder_layer_<l - 1>``; measured there, all of its tokens are
    one long vector. ``feature`` is what the classifier reads.

    Every block has its LayerNorms, and the network has no BN of its own: the norm before the classifier, ``last_norm``,
    is the last LayerNorm, so that ``gamma_norm`` is of its scale, ``last_layer`` decay is of its scale and offset too,
    and the gaps to the optimum of a regularised loss, which knows BN alone, are NaN.

    Args:
        input_shape: (channels, side, side) of one image, the side a multiple of ``patch``.
        num_classes: C.
        depth: Number of blocks, >= 1.
        width: d, of the tokens, a multiple of ``heads``.
        heads: Of the attention in each block, >= 1.
        mlp_width: Hidden width of the MLP in each block, >= 1.
        patch: Side of the square that makes a token, >= 1.
        dropout: Probability in [0, 1), of tokens and of attention weights.
        classifier_bias: Whether the classifier has one.
        norm: ``none`` (LayerNorms alone) or ``last`` (one BN more, between the last of them and the classifier).
        norm_bias: Whether that BN adds a trained offset.
        affine: False: that BN trains nothing, and ``gamma`` must be a number.
        gamma: None: trained; a number: every entry of that BN is fixed to it.
        simplex: None: W is trained; a number: it is fixed (see :func:`ncflow.models.simplex.fix_classifier`).
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        num_classes: int,
        *,
        depth: int = 6,
        width: int = 512,
        heads: int = 8,
        mlp_width: int = 512,
        patch: int = 4,
        dropout: float = 0.1,
        classifier_bias: bool = True,
        norm: _Placement = "none",
        norm_bias: bool = False,
        affine: bool = True,
        gamma: float | None = None,
        simplex: float | None = None,
    ) -> None:
        super().__init__()
        shape = tuple(input_shape)
        for name, value in (("depth", depth), ("heads", heads), ("mlp_width", mlp_width), ("patch", patch)):
            require(value >= 1, name, "at least 1", value)
        fits = len(shape) == 3 and shape[1] == shape[2] and shape[1] % patch == 0
        require(fits, "input_shape", f"(channels, side, side), the side a multiple of patch={patch}", shape)
        require(width >= 1 and width % heads == 0, "width", f"a multiple of heads={heads}", width)
        require(0 <= dropout < 1, "dropout", "in [0, 1)", dropout)
        check_norm(norm, affine, gamma, norm_bias, get_args(_Placement))
        self.vit = VisionTransformer(shape[1], patch, depth, heads, width, mlp_width, dropout, dropout, num_classes)
        self.vit.heads = nn.Identity()  # type: ignore[assignment]
        if shape[0] != 3:  # torchvision knows colour images alone
            self.vit.conv_proj = _patches(shape[0], width, patch)
        self.feature = nn.Sequential(*([batch_norm(width, gamma, norm_bias)] if norm == "last" else []))
        self.classifier = nn.Linear(width, num_classes, bias=classifier_bias)
        self.last_norm = self.feature[0] if norm == "last" else self.vit.encoder.ln
        self.layer_names = [*(f"vit.encoder.layers.encoder_layer_{index}" for index in range(depth)), "feature"]
        fix_classifier(self, simplex)

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits (B, C) of images (B, channels, side, side)."""
        return self.classifier(self.feature(self.vit(inputs)))


def _patches(channels: int, width: int, patch: int) -> nn.Conv2d:
    """As torchvision begins it for colour images."""
    projection = nn.Conv2d(channels, width, kernel_size=patch, stride=patch)
    nn.init.trunc_normal_(projection.weight, std=math.sqrt(1 / (channels * patch**2)))
    assert projection.bias is not None
    nn.init.zeros_(projection.bias)
    return projection
