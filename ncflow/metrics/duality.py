"""NC3: the classifier's rows against the class means."""

import torch
from torch import Tensor

from ncflow.metrics.class_means import Geometry
from ncflow.metrics.summary import distance_to_simplex, summarize


def duality_measures(weight: Tensor, around: Geometry) -> dict[str, Tensor]:
    """``nc3_cosine_min``, ``nc3_cosine_mean`` (1 at collapse), ``nc3_distance`` and ``nc3_etf_error`` (0).

    The cosines are of w_c - mean_c w with mu_c - mu_G (Pan, Cao). The distance is || W/|W|_F - M/|M|_F ||_F with W not
    centred (Papyan, Han, Donoho 2020; notebooks square it). The ETF error is || A/|A|_F - E ||_F with A = W M^T
    (Zhu et al. 2021). All are over the rows of the present classes.

    Args:
        weight: Classifier W, (C, d).
        around: Class means.
    """
    W = weight.double()
    M = around.centred
    cosines, defined = row_cosines((W - W.mean(0))[around.present], M)
    W = W[around.present]
    summary = summarize("nc3_cosine", cosines[defined], "min", 0.5)
    summary.pop("nc3_cosine_quantile")
    scaled = W / torch.linalg.matrix_norm(W) - M / torch.linalg.matrix_norm(M)
    return {
        **summary,
        "nc3_distance": torch.linalg.matrix_norm(scaled),
        "nc3_etf_error": distance_to_simplex(W, M),
    }


def row_cosines(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine of each row of L with that of R, (K, d), and whether both have a direction, (K,) each; NaN where not."""
    lengths = torch.linalg.vector_norm(left, dim=1) * torch.linalg.vector_norm(right, dim=1)
    return (left * right).sum(1) / lengths, lengths != 0
