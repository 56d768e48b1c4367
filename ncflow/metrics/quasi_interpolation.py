"""Quasi-interpolation under the square loss with weight decay (CBMM Memo 117, section 6).

There the outputs of a trained network are 1 - e for the label and e/(C-1) for every other class, and the classifier is
fixed by e and the class means (eq. 33, 34). The memo's loss is 1/2 of a sum over all C N samples with decay Lambda; the
loss here is a mean over samples without the 1/2, with decay lambda/2 |W|^2, which is the same problem for
Lambda = C N lambda/2. In terms of lambda, N drops out.

What the memo does not say: eq. 33 makes the rows W_c sum to 0, so that without a bias the outputs sum to 0, while those
of quasi-interpolation sum to 1. Both can hold only if a classifier bias adds 1/C, or for two classes with targets +-1,
which are the one-hot ones of (1 + f)/2. Otherwise the spread cannot vanish: free features, for one, settle at 1 - e
and 0.
"""

import torch
from torch import Tensor


def output_sums(logits: Tensor, labels: Tensor, signs: bool = False) -> Tensor:
    """What :func:`fitted_gap` needs of a batch; sums over batches and ranks add up.

    Args:
        logits: Outputs f, (..., B, C).
        labels: (..., B), 0..C-1.
        signs: Whether the targets are 1 and -1 rather than 1 and 0; then (1 + f)/2 takes the place of f.

    Returns:
        (..., 5), float64: sums over the samples of 1 - f_y, (1 - f_y)^2, the other outputs' mean, their squares, and 1.
    """
    exact = (1 + logits.double()) / 2 if signs else logits.double()
    own = exact.gather(-1, labels[..., None])[..., 0]
    miss = 1 - own
    others = exact.sum(-1) - own
    squares = exact.square().sum(-1) - own.square()
    count = miss.new_full(miss.shape[:-1], float(miss.shape[-1]))
    parts = [miss.sum(-1), miss.square().sum(-1), others.sum(-1) / (exact.shape[-1] - 1), squares.sum(-1), count]
    return torch.stack(parts, -1)


def fitted_gap(sums: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """The e whose outputs (1 - e, e/(C-1)) are nearest to all outputs in squares, and the root mean square distance.

    Spreads below about 1e-8 are rounding.

    Args:
        sums: Of :func:`output_sums`, added up.
        num_classes: C.

    Returns:
        e and the spread over outputs and samples; both 0 and 0 for exact interpolation.
    """
    miss, miss_squares, others, other_squares, count = sums
    share = 1 / (num_classes - 1)
    gap = (miss + others) / (count * (1 + share))
    distance = miss_squares + other_squares - 2 * gap * (miss + others) + count * gap**2 * (1 + share)
    return gap, (distance.clamp(min=0) / (count * num_classes)).sqrt()


def classifier_residuals(
    gap: Tensor, weight: Tensor, centred_means: Tensor, weight_decay: float, signs: bool = False
) -> tuple[Tensor, Tensor]:
    """How far a classifier is from what quasi-interpolation fixes, relative; both 0 at the optimum.

    Eq. 33: W_c = 2 e/(lambda (C-1)) (mu_c - mu_G). Eq. 34: |W_c|^2 = 2/(C lambda) (e - C/(C-1) e^2).

    Args:
        gap: e.
        weight: W, (C, d).
        centred_means: mu_c - mu_G, (C, d).
        weight_decay: lambda > 0 of the run, a penalty lambda/2 |W|^2 beside the mean over samples of the square loss.
        signs: Whether the targets are 1 and -1; then W/2 takes the place of W.

    Returns:
        |W - that of eq. 33|_F/|W|_F, and the largest of | |W_c|^2/that of eq. 34 - 1 | over the classes.
    """
    C, W = len(weight), weight.double() / (2 if signs else 1)
    expected = 2 * gap / (weight_decay * (C - 1)) * centred_means.double()
    norm = 2 / (C * weight_decay) * (gap - C / (C - 1) * gap**2)
    rows = W.square().sum(1)
    return (W - expected).norm() / W.norm(), (rows / norm - 1).abs().max()
