"""The first pass over the features: sums by class, and what the class means determine.

Its sums and those of the second pass, in :mod:`ncflow.metrics.scatter`, are what crosses the data. They are in float64
and of sizes that do not depend on the number of samples, so that batches, and ranks, add up. Features may be of any
floating type, as each chunk of rows is cast.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from ncflow.metrics.rows import Membership, cast_rows, chunks

EPSILON = torch.finfo(torch.float64).eps
# Closer to its centre than this many ulps of the centre, a feature or a mean is at it: what is left is rounding.
ROUNDING = 64


@dataclass
class FirstSums:
    """Of the first pass.

    Attributes:
        sums: Of the features by class, (..., C, d).
        counts: Samples by class, (..., C).
        squares: Sum of |h|^2, (...).
        nonfinite: Samples with a feature that is not finite, (...).
        directions: Sum of h/|h| by class, (..., C, d).
        directed: Number of samples by class whose feature is not 0, which has no direction, (..., C).
    """

    sums: Tensor
    counts: Tensor
    squares: Tensor
    nonfinite: Tensor
    directions: Tensor
    directed: Tensor

    @classmethod
    def zeros(
        cls, num_classes: int, dim: int, device: torch.device | str = "cpu", runs: tuple[int, ...] = ()
    ) -> "FirstSums":
        """No sample; ``runs`` is the leading shape."""
        zeros = torch.zeros(*runs, num_classes, dim, dtype=torch.float64, device=device)
        by_class, scalar = zeros.new_zeros(*runs, num_classes), zeros.new_zeros(runs)
        return cls(zeros, by_class, scalar, scalar.clone(), zeros.clone(), by_class.clone())

    def add(self, features: Tensor, labels: Tensor) -> None:
        """Take in features (..., B, d) with labels (..., B) in 0..C-1; nothing waits for a device."""
        buffer = None
        for rows, classes in chunks(features, labels):
            exact = buffer = cast_rows(rows, buffer)
            member = Membership(classes, self.counts.shape[-1])
            member.sum_into(self.sums, exact)
            self.counts.scatter_add_(-1, classes, self.counts.new_ones(classes.shape))
            norms = torch.linalg.vector_norm(exact, dim=-1)
            squares = norms.square()
            self.squares += squares.sum(-1)
            self.nonfinite += (~squares.isfinite()).sum(-1)
            member.sum_directions_into(self.directions, self.directed, exact, norms)


@dataclass(frozen=True)
class Geometry:
    """What the class means determine.

    Attributes:
        counts: n_c, (C,), float64.
        present: Classes with a sample, (C,), bool.
        means: mu_c, (C, d); 0 for an absent class.
        mean_of_means: mu_G, (d,): the mean over present classes.
        center: h_G of the cosine family, (d,).
        centred: M, (K, d): mu_c - mu_G of the present classes; exactly 0 where only rounding is left.
        gram: G = M M^T, (K, K).
        eigenvalues: Of G, ascending, (K,); those that are 0 by rounding, and the one that is 0 by the centring, are 0.
        eigenvectors: Columns, (K, K).
    """

    counts: Tensor
    present: Tensor
    means: Tensor
    mean_of_means: Tensor
    center: Tensor
    centred: Tensor
    gram: Tensor
    eigenvalues: Tensor
    eigenvectors: Tensor

    @property
    def num_present(self) -> int:
        """K."""
        return len(self.centred)

    @cached_property
    def finite(self) -> bool:
        """Whether every feature was finite."""
        return bool(self.gram.isfinite().all())

    @cached_property
    def places(self) -> Tensor:
        """Row of M of each present class, (C,)."""
        return self.present.cumsum(0) - 1

    @cached_property
    def names(self) -> Tensor:
        """Class of each row of M, (K,)."""
        return self.present.nonzero().flatten()

    @cached_property
    def distances(self) -> Tensor:
        """|mu_c - mu_k|^2 of the present classes, (K, K).

        By the Gram matrix; pairs that are close against their distance to the mean, where that cancels, one by one.
        """
        lengths = self.gram.diagonal()
        total = lengths[:, None] + lengths
        distances = (total - 2 * self.gram).fill_diagonal_(0).clamp(min=0)
        near = distances < 1e-4 * total
        for pairs in near.triu(1).nonzero().split(4096):
            exact = (self.centred[pairs[:, 0]] - self.centred[pairs[:, 1]]).square().sum(1)
            distances[pairs[:, 0], pairs[:, 1]] = exact
            distances[pairs[:, 1], pairs[:, 0]] = exact
        return distances

    @cached_property
    def whitening(self) -> tuple[bool, Tensor]:
        """(True, B) with |Y B|^2 = r^T pinv(Sigma_B) r for Y = r M^T, or (False, B) with |r B|^2: the cheaper one.

        Sigma_B = M^T M / K and G = V S V^T give pinv(Sigma_B) = K M^T V S^-2 V^T M.
        """
        S = self.eigenvalues
        inverse = torch.where(S > 0, 1 / S, 0.0) + 0 * S  # NaN stays NaN
        on_products = self.num_present**0.5 * self.eigenvectors * inverse
        K, dim = self.centred.shape
        if dim >= K:
            return True, on_products
        kept = S > 0 if self.finite else torch.ones_like(S, dtype=torch.bool)
        return False, self.centred.T @ on_products[:, kept]


def geometry(first: FirstSums, center: str) -> Geometry:
    """Class means and the spectrum of their Gram matrix.

    Eigenvalues of G under K * 2.2e-16 * the largest are dropped, and always the smallest: rows of M sum to 0.

    Args:
        first: Sums of the first pass, over all ranks.
        center: h_G: ``samples``, the mean over all samples; ``classes``, mu_G; ``none``, 0.
    """
    present = first.counts > 0
    means = first.sums / first.counts.clamp(min=1)[:, None]
    mean_of_means = means[present].mean(0)
    centers = {
        "samples": first.sums.sum(0) / first.counts.sum(),
        "classes": mean_of_means,
        "none": torch.zeros_like(mean_of_means),
    }
    centred = means[present] - mean_of_means
    rounding = ROUNDING * EPSILON * torch.linalg.vector_norm(means[present], dim=1).amax()
    centred[torch.linalg.vector_norm(centred, dim=1) <= rounding] = 0
    gram = centred @ centred.T
    K = len(gram)
    if bool(gram.isfinite().all()):
        eigenvalues, eigenvectors = torch.linalg.eigh(gram)
        eigenvalues[eigenvalues <= K * EPSILON * eigenvalues[-1]] = 0
        eigenvalues[0] = 0
    else:
        eigenvalues, eigenvectors = torch.full_like(gram[0], torch.nan), torch.full_like(gram, torch.nan)
    return Geometry(
        first.counts, present, means, mean_of_means, centers[center], centred, gram, eigenvalues, eigenvectors
    )


class Around(NamedTuple):
    """What the second pass reads of the class means: of one run, or of many with a leading axis.

    Attributes:
        means: mu_c, (..., C, d).
        from_centre: mu_c - h_G, (..., C, d).
        tolerance: Distance from h_G below which only rounding is left, (...).
        centred: M, (..., K, d).
        by_products: Whether ``whitening`` is applied to products with M.
        whitening: As :attr:`Geometry.whitening` has it.
        weights: 1 / (K n_c), (..., C).
        distances: As :attr:`Geometry.distances` has them, (..., K, K).
        places: Row of M of each class, (..., C).
        names: Class of each row of M, (..., K).
    """

    means: Tensor
    from_centre: Tensor
    tolerance: Tensor
    centred: Tensor
    by_products: bool
    whitening: Tensor
    weights: Tensor
    distances: Tensor
    places: Tensor
    names: Tensor

    @classmethod
    def of(cls, means: Geometry) -> "Around":
        """Of the class means of one run."""
        by_products, whitening = means.whitening
        return cls(
            means.means,
            means.means - means.center,
            ROUNDING * EPSILON * torch.linalg.vector_norm(means.center),
            means.centred,
            by_products,
            whitening,
            1 / (means.num_present * means.counts),
            means.distances,
            means.places,
            means.names,
        )

    @classmethod
    def stack(cls, runs: Sequence["Around"], device: torch.device) -> "Around":
        """Of many runs with the same classes present, whose whitening is applied in the same way."""
        parts = {
            name: torch.stack([getattr(run, name) for run in runs]).to(device)
            for name in cls._fields
            if name != "by_products"
        }
        return cls(by_products=runs[0].by_products, **parts)
