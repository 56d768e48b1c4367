"""The small convolutional network of CBMM Memo 117."""

import itertools
import math
from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from ncflow.checks import require
from ncflow.models.init import draw_with_norm
from ncflow.models.network import Network
from ncflow.models.normalization import Normalization, normalize_weights
from ncflow.models.simplex import fix_classifier


class ConvNet(Network):
    """Three convolutions 3x3 without biases and a linear classifier (CBMM Memo 117, section 7).

    ReLU and then BN follow each convolution. The memo names neither strides nor poolings: here each convolution halves
    the sides, rounded up, by its stride of 2, and the classifier reads each channel's average over the positions, as
    ``pool`` has it. Flattened instead, 32x32 images have 16 times the features, each of variance 1 after BN, and the
    memo's learning rate and momentum diverge on the bundled digits at that size. The convolutions with what follows
    them are ``layers.0`` to ``layers.2``; ``feature`` is what the classifier reads. Without BN the output is
    homogeneous: f_W = rho f_V (section 3.3).

    BN is of channels, with one gamma for all positions of a channel, so that |gamma| is not the features' norm (Pan,
    Cao, Lemma C.4): ``last_norm`` is None. Pooled, or of images of up to 8x8, BN without offset leaves each output a
    mean of 0, that of one-hot targets being 1/C: for balanced classes the square loss stays above 1/C. There the
    targets +-1 of two classes, or ``classifier_bias``, fit.

    Args:
        input_shape: (channels, height, width) of one image.
        num_classes: C.
        width: Factor > 0 of the channels of each convolution, 32, 64 and 128, rounded, at least one remains.
        pool: Whether the classifier reads averages over the positions, else all positions of all channels.
        classifier_bias: Whether the classifier has one.
        norm: ``none`` or ``all`` (after the ReLU of each convolution).
        affine: Whether BN trains a gamma and an offset for each channel; the memo's does not.
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
        width: float = 1.0,
        pool: bool = True,
        classifier_bias: bool = False,
        norm: Literal["none", "all"] = "all",
        affine: bool = False,
        init_norm: float | None = None,
        normalization: Normalization | None = None,
        simplex: float | None = None,
    ) -> None:
        super().__init__()
        shape = tuple(input_shape)
        require(len(shape) == 3, "input_shape", "(channels, height, width)", shape)
        require(0 < width < math.inf, "width", "a number greater than 0", width)
        require(norm in ("none", "all"), "norm", "one of 'none', 'all'", norm)
        require(norm == "all" or not affine, "affine", "false where norm is 'none': there is no BN", affine)
        channels = [shape[0], *(max(1, round(width * size)) for size in (32, 64, 128))]
        layers = []
        for fan_in, fan_out in itertools.pairwise(channels):
            convolution = nn.Conv2d(fan_in, fan_out, kernel_size=3, stride=2, padding=1, bias=False)
            layers.append(nn.Sequential(convolution, nn.ReLU()))
            if norm == "all":
                layers[-1].append(nn.BatchNorm2d(fan_out, affine=affine))
        self.layers = nn.Sequential(*layers)
        self.feature = nn.Sequential(nn.AdaptiveAvgPool2d(1) if pool else nn.Identity(), nn.Flatten())
        positions = 1 if pool else math.prod(math.ceil(side / 2 ** len(layers)) for side in shape[1:])
        self.classifier = nn.Linear(channels[-1] * positions, num_classes, bias=classifier_bias)
        self.last_norm = None
        self.layer_names = [*(f"layers.{index}" for index in range(len(layers))), *(["feature"] if pool else [])]
        if init_norm is not None:
            draw_with_norm(self, init_norm)
        normalize_weights(self, normalization, norm)
        fix_classifier(self, simplex)

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits (B, C) of images (B, channels, height, width)."""
        return self.classifier(self.feature(self.layers(inputs)))
