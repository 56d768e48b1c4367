"""The variability along the line between two classes, which decides how few samples of a class tell it from another."""

import torch
from torch import Tensor

from ncflow.checks import require
from ncflow.metrics.class_means import Geometry
from ncflow.metrics.groups.group import Group
from ncflow.metrics.rows import cast_rows, chunks

MOST_CLASSES = 5000
"""Classes up to which the table of pairs, (K, K) in float64, is held: 200 MB."""


class DirectionalSums:
    """Sums over the samples of class c of ((h - mu_c) . (mu_k - mu_c))^2 and of |h - mu_c|^2.

    Args:
        means: Class means.

    Attributes:
        table: The former, by c and k, with the latter as a last column, (K, K + 1).
    """

    def __init__(self, means: Geometry) -> None:
        K = means.num_present
        self.means = means
        self.table = torch.zeros(K, K + 1, dtype=torch.float64, device=means.centred.device)

    def add(self, features: Tensor, labels: Tensor) -> None:
        """Take in features (B, d) with labels (B,)."""
        buffer = None
        for rows, classes in chunks(features, labels):
            residuals = buffer = cast_rows(rows, buffer)
            residuals -= self.means.means.index_select(0, classes)
            places = self.means.places.index_select(0, classes)
            products = residuals @ self.means.centred.T
            along = (products - products.gather(1, places[:, None])).square_()
            self.table[:, :-1].index_add_(0, places, along)
            self.table[:, -1].index_add_(0, places, residuals.square().sum(1))


def few_shot_measures(means: Geometry, table: Tensor) -> dict[str, Tensor]:
    """``few_shot_cdnv``, a float64 scalar of at least 0; 0 at collapse.

    The directional CDNV: the mean over ordered pairs of classes of Var_c(u . h)/|mu_k - mu_c|^2, where
    u = (mu_k - mu_c)/|mu_k - mu_c| and the variance is over class c, with divisor n_c (Luthra, Yang, Galanti 2025,
    "Self-supervised contrastive learning is approximately supervised contrastive learning"; Luthra, Salunkhe, Galanti
    2026, "Directional neural collapse explains few-shot transfer"). Of their bounds on the few-shot error of the
    nearest class mean it is the term that stays when shots are many. By Chebyshev's inequality 4 times a pair's value
    bounds the share of class c that lies nearer to mu_k; the bounds for few shots, which need an optimised constant or
    fourth moments, are not made here.

    It is at most ``cdnv``, and d times smaller where the variability has no direction. Infinite where two class means
    coincide, unless class c does not vary: such a pair is undefined, and left out. NaN where no pair is left, or all
    class means coincide.

    Args:
        means: Class means.
        table: Of :class:`DirectionalSums`, over all ranks.
    """
    counts = means.counts[means.present][:, None]
    squares = means.distances(slice(None))
    along, whole = table[:, :-1], table[:, -1:]
    ratios = torch.where(squares == 0, whole / squares, along / squares.square()) / counts
    undefined = (squares == 0) & (whole == 0)
    undefined.fill_diagonal_(True)
    apart = torch.where((means.centred != 0).any(), 0.0, torch.nan)
    return {"few_shot_cdnv": ratios[~undefined].mean() + apart}


class FewShot(Group):
    """Directional CDNV: N K d operations more, on the passes over the data that are made anyway.

    At most :data:`MOST_CLASSES` classes.
    """

    reads_again = True

    def begin(self, means: Geometry) -> None:
        """Begin the sums.

        Raises:
            ArgumentError: For more classes than there may be.
        """
        rule = f"without 'few_shot' for more than {MOST_CLASSES} classes"
        require(means.num_present <= MOST_CLASSES, "groups", rule, f"{means.num_present} classes")
        self.sums = DirectionalSums(means)

    def second(self, features: Tensor, labels: Tensor) -> None:
        """Take in features (B, d) with labels (B,)."""
        self.sums.add(features, labels)

    def measures(self, means: Geometry) -> dict[str, Tensor]:
        """As :func:`few_shot_measures` has them."""
        return few_shot_measures(means, self.layer.total(self.sums.table))
