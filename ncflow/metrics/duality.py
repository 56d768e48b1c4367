"""NC3: the classifier's rows against the class means."""

import torch
from torch import Tensor

from ncflow.metrics.class_means import Geometry
from ncflow.metrics.rows import where
from ncflow.metrics.summary import distance_to_simplex, summarize

_ROWS = 4096


def duality_measures(weight: Tensor, around: Geometry) -> dict[str, Tensor]:
    """``nc3_cosine_min``, ``nc3_cosine_mean`` (1 at collapse), ``nc3_distance`` and ``nc3_etf_error`` (0).

    The cosines are of w_c - mean_c w with mu_c - mu_G (Pan, Cao). The distance is || W/|W|_F - M/|M|_F ||_F with W not
    centred (Papyan, Han, Donoho 2020; notebooks square it). The ETF error is || A/|A|_F - E ||_F with A = W M^T
    (Zhu et al. 2021). All are over the rows of the present classes.

    Args:
        weight: Classifier W, (C, d).
        around: Class means.
    """
    W, M = where(around.present, weight).double(), around.centred
    mean = weight.double().mean(0)
    lengths = torch.linalg.matrix_norm(W), torch.linalg.matrix_norm(M)
    parts, squares = [], M.new_zeros(())
    for left, right in zip(W.split(_ROWS), M.split(_ROWS), strict=True):  # many classes would take much memory
        cosines, defined = row_cosines(left - mean, right)
        parts.append(cosines[defined])
        squares = squares + torch.linalg.matrix_norm(left / lengths[0] - right / lengths[1]).square()
    summary = summarize("nc3_cosine", torch.cat(parts), "min", 0.5)
    summary.pop("nc3_cosine_quantile")
    return {
        **summary,
        "nc3_distance": squares.sqrt(),
        "nc3_etf_error": distance_to_simplex(W, M),
    }


def row_cosines(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine of each row of L with that of R, (K, d), and whether both have a direction, (K,) each; NaN where not."""
    lengths = torch.linalg.vector_norm(left, dim=1) * torch.linalg.vector_norm(right, dim=1)
    return (left * right).sum(1) / lengths, lengths != 0
