"""Intra- and inter-class cosine similarity (Pan, Cao, section 2.2), and without centring (Pan's thesis)."""

import torch
from torch import Tensor

from ncflow.metrics.pairs import products, summarize_pairs
from ncflow.metrics.rows import where
from ncflow.metrics.summary import summarize


def cosine_measures(
    directions: Tensor, directed: Tensor, delta: float, self_pairs: bool, suffix: str = ""
) -> dict[str, Tensor]:
    """``intra_min/mean/quantile`` and ``inter_max/mean/quantile``, float64 scalars; 1 and -1/(C-1) at collapse.

    With h_G = 0 they are ``intra_raw_*`` and ``inter_raw_*``, of cos(h_i, h_j) (Pan's thesis, section 2.2). Collapsed
    to a simplex, these have the same limits if the class means sum to 0.

    With u_c the mean over class c of the centred, normalised features, the mean cosine over all pairs of class c is
    |u_c|^2, and over the pairs of two classes u_c . u_c' (Lemma C.5). Nothing of size N x N is ever formed. Each class,
    and each pair of classes, counts once, whatever its number of samples.

    Args:
        directions: Sum of (h - h_G)/|h - h_G| of each class, (C, d).
        directed: Number of samples of each class that have a direction, (C,).
        delta: The quantiles are at delta for intra and at 1 - delta for inter, interpolated linearly.
        self_pairs: Whether intra counts the pairs i = j, as the text of Pan and Cao does; their published numbers
            do not. Without them intra is (n |u|^2 - 1)/(n - 1), undefined for a class of one.
        suffix: Of ``intra`` and ``inter`` in the names.
    """
    n = directed.double()
    means = mean_directions(directions, n)
    intra, defined = intra_cosines(means, n, self_pairs), where(n > 0, means)
    return {
        **summarize(f"intra{suffix}", intra[n > (0 if self_pairs else 1)], "min", delta),
        **summarize_pairs(f"inter{suffix}", len(defined), products(defined), 1 - delta),
    }


def mean_directions(directions: Tensor, directed: Tensor) -> Tensor:
    """u_c, (C, d), of such sums and numbers; NaN for a class without a direction."""
    return directions / torch.where(directed > 0, directed, torch.nan)[:, None]


def intra_cosines(means: Tensor, directed: Tensor, self_pairs: bool) -> Tensor:
    """Intra of each class, (C,), of u_c and such numbers; NaN where it is undefined."""
    squares = means.square().sum(1)
    return squares if self_pairs else (directed * squares - 1) / torch.where(directed > 1, directed - 1, torch.nan)
