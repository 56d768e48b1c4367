"""The layer-peeled model: the features themselves are trained, the ground truth of the theory."""

from collections.abc import Sequence
from math import sqrt
from typing import Literal

import torch
from torch import Tensor, nn

from ncflow.checks import require
from ncflow.models.network import Network
from ncflow.models.norm import batch_norm, check_norm


class _FreeFeatures(nn.Module):
    """A table of features, h_i = sqrt(N) times row i of ``weight``, so that |weight|_F^2 = mean |h|^2 = alpha^2."""

    def __init__(self, num_samples: int, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(num_samples, dim) / sqrt(num_samples))

    def forward(self) -> Tensor:
        return self.weight * sqrt(len(self.weight))


class Unconstrained(Network):
    """Free features h_i, BN where asked, and a linear classifier: W BN(h_i) (Pan, Cao, eq. 2).

    Its inputs are numbers of samples (``data=sample_index``). With ``weight_decay_scope: last_layer`` training
    minimises L + lambda/2 (|gamma|^2 + |W|_F^2) with BN and L + lambda/2 (alpha^2 + |W|_F^2), alpha^2 = mean |h|^2,
    without. Both have the least value m_reg of :func:`ncflow.theory.layer_peeled.minimum_regularized_loss`, which
    collapse alone reaches.

    BN always normalises over all N samples, whatever the batch, also in evaluation mode, and adds nothing to the
    variance: as the theorem has it.

    Args:
        input_shape: (1,), the number of the sample.
        num_classes: C.
        num_samples: N, the size of the training split.
        dim: d; collapse to the simplex needs d >= C - 1.
        classifier_bias: Whether the classifier has one.
        norm: ``last`` (BN before the classifier) or ``none``.
        norm_bias: Whether BN adds a trained offset.
        affine: False: BN trains nothing, and ``gamma`` must be a number.
        gamma: None: trained; a number: every entry is fixed to it.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        num_classes: int,
        num_samples: int,
        *,
        dim: int = 512,
        classifier_bias: bool = False,
        norm: Literal["none", "last"] = "last",
        norm_bias: bool = False,
        affine: bool = True,
        gamma: float | None = None,
    ) -> None:
        super().__init__()
        require(tuple(input_shape) == (1,), "input_shape", "(1,), as of data=sample_index", tuple(input_shape))
        require(dim >= 1, "dim", "at least 1", dim)
        require(norm in ("none", "last"), "norm", "one of 'none', 'last'", norm)
        check_norm(norm, affine, gamma, norm_bias)
        self.features = _FreeFeatures(num_samples, dim)
        self.last_norm = _whole_batch_norm(dim, gamma, norm_bias) if norm == "last" else None
        self.peeled_features = self.features if norm == "none" else None
        self.classifier = nn.Linear(dim, num_classes, bias=classifier_bias)
        self.layer_names = ["features"]

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits (B, C) of the samples with the numbers ``inputs`` (B, 1), int64."""
        features = self.features()
        if self.last_norm is not None:
            features = self.last_norm(features)
        return self.classifier(features[inputs.flatten()])


def _whole_batch_norm(dim: int, gamma: float | None, bias: bool) -> nn.BatchNorm1d:
    layer = batch_norm(dim, gamma, bias)
    layer.eps = 1e-14  # nothing beside a variance of order 1, and no division by 0 for a constant feature
    layer.track_running_stats = False
    layer.running_mean = layer.running_var = layer.num_batches_tracked = None
    return layer
