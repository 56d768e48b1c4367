"""NC1 and NC2: variability within classes against the spread of their means, and the shape of that spread.

Classes weigh the same whatever their number of samples (Sigma_W is the mean over classes of each class's covariance,
divided by n_c), as in CBMM Memo 117, eq. 83-84; for balanced classes this is the sample-weighted form of Papyan, Han
and Donoho (2020) and of Zhu et al. (2021).
"""

import torch
from torch import Tensor

from ncflow.metrics.class_means import Geometry
from ncflow.metrics.pairs import mean_over_pairs
from ncflow.metrics.rows import where
from ncflow.metrics.scatter import SecondSums
from ncflow.metrics.summary import distance_to_simplex


def variability_measures(around: Geometry, second: SecondSums) -> dict[str, Tensor]:
    """``nc1``, ``nc1_rank``, ``nc1_trace_ratio`` and ``cdnv``; 0 at collapse.

    ``nc1`` = tr(Sigma_W pinv(Sigma_B))/K, Zhu's convention; Papyan's notebook leaves out 1/K. Nothing of size d x d is
    formed: pinv(Sigma_B) lives in the span of the K centred means. ``nc1_rank`` is the number of eigenvalues kept.
    ``nc1_trace_ratio`` = tr Sigma_W / tr Sigma_B. ``cdnv`` is the mean over pairs of classes of
    (v_c + v_c')/(2 |mu_c - mu_c'|^2) (Galanti et al. 2022); infinite where two class means coincide.

    NaN where all class means coincide: there is nothing to compare with.
    """
    K, eigenvalues = around.num_present, around.spectrum[0]
    rank = (eigenvalues > 0).sum().double() if around.finite else around.gram.new_full((), torch.nan)
    variances = (second.squares / around.counts)[around.present]
    between = around.lengths.sum() / K
    undefined = torch.where(rank > 0, 0.0, torch.nan)

    def ratios(some: slice, others: slice) -> Tensor:
        return (variances[some, None] + variances[others]) / (2 * around.distances(some, others))

    return {
        "nc1": second.relative / K + undefined,
        "nc1_trace_ratio": variances.mean() / between + undefined,
        "cdnv": mean_over_pairs(K, ratios, skip_nan=around.finite) + undefined,
        "nc1_rank": rank,
    }


def simplex_measures(around: Geometry) -> dict[str, Tensor]:
    """``nc2_equinorm_means``, ``nc2_equiangular_means``, ``nc2_etf_error`` (0 at collapse) and ``feature_rank`` (C-1).

    Equinorm is std/mean of |mu_c - mu_G| with divisor K (notebooks divide by K - 1); equiangular the mean over pairs
    of |cos + 1/(K-1)|; the ETF error || G/|G|_F - E ||_F; the rank (nuclear norm/Frobenius norm)^2 of M.
    """
    M, eigenvalues = around.centred, around.spectrum[0]
    return {
        "nc2_equinorm_means": _equinorm(torch.linalg.vector_norm(M, dim=1)),
        "nc2_equiangular_means": _equiangular(M, around.num_present),
        "nc2_etf_error": distance_to_simplex(M, M),
        "feature_rank": eigenvalues.sqrt().sum().square() / eigenvalues.sum(),
    }


def weight_measures(weight: Tensor) -> dict[str, Tensor]:
    """Of all rows of W (C, d), not centred.

    ``nc0``, the norm of their sum |1^T W|, and ``nc0_relative``, that over |W|_F (Zhao et al. 2026; both are 0 at
    collapse, and always of a classifier with one output, whose two rows are w/2 and -w/2);
    ``nc2_equinorm_weights``, ``nc2_equiangular_weights``; ``weight_norm``, |W|_F.
    """
    rows = weight.double()
    norms = torch.linalg.vector_norm(rows, dim=1)
    whole, length = torch.linalg.vector_norm(rows.sum(0)), torch.linalg.vector_norm(norms)
    return {
        "nc0": whole,
        "nc0_relative": whole / length,
        "nc2_equinorm_weights": _equinorm(norms),
        "nc2_equiangular_weights": _equiangular(rows, len(rows)),
        "weight_norm": length,
    }


def _equinorm(norms: Tensor) -> Tensor:
    return norms.std(correction=0) / norms.mean()


def _equiangular(rows: Tensor, size: int) -> Tensor:
    """Rows that are 0 have no angle and are left out."""
    norms = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    defined = norms.flatten() != 0
    rows, norms = where(defined, rows), where(defined, norms)

    def deviations(some: slice, others: slice) -> Tensor:
        cosines = (rows[some] / norms[some]) @ (rows[others] / norms[others]).T
        return cosines.add_(1 / max(size - 1, 1)).abs_()

    return mean_over_pairs(len(rows), deviations)
