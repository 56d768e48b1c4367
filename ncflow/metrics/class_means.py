"""The first pass over the features: sums by class, and what the class means determine.

Its sums and those of the second pass, in :mod:`ncflow.metrics.scatter`, are what crosses the data. They are in float64
and of sizes that do not depend on the number of samples, so that batches, and ranks, add up. Features may be of any
floating type, as each chunk of rows is cast.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ncflow.metrics.rows import Membership, cast_rows, chunks, where

EPSILON = torch.finfo(torch.float64).eps
# Closer to its centre than this many ulps of the centre, or than there are samples, a feature or a mean is at it: what
# is left is rounding.
ROUNDING = 64
Index = slice | Tensor


@dataclass
class FirstSums:
    """Of the first pass.

    Attributes:
        sums: Of the features by class, (..., C, d).
        counts: Samples by class, (..., C).
        squares: Sum of |h|^2, (...).
        nonfinite: Samples with a feature that is not finite, or with |h| above 1e154, whose square is not, (...).
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
    """What the class means determine. Nothing in it is larger than (C, d) but for what is (K, K) where K <= d.

    Attributes:
        counts: n_c, (C,), float64.
        present: Classes with a sample, (C,), bool.
        means: mu_c, (C, d); 0 for an absent class.
        mean_of_means: mu_G, (d,): the mean over present classes.
        center: h_G of the cosine family, (d,).
        centred: M, (K, d): mu_c - mu_G of the present classes; exactly 0 where only rounding is left.
    """

    counts: Tensor
    present: Tensor
    means: Tensor
    mean_of_means: Tensor
    center: Tensor
    centred: Tensor

    @property
    def num_present(self) -> int:
        """K."""
        return len(self.centred)

    @property
    def is_wide(self) -> bool:
        """Whether K <= d, so that (K, K) is the smaller Gram matrix of M."""
        return self.centred.shape[0] <= self.centred.shape[1]

    @cached_property
    def gram(self) -> Tensor:
        """The smaller Gram matrix of M: M M^T, (K, K), where K <= d, else M^T M, (d, d)."""
        return self.centred @ self.centred.T if self.is_wide else self.centred.T @ self.centred

    @cached_property
    def finite(self) -> bool:
        """Whether every feature was finite, and the squares of the means are."""
        return bool(self.gram.isfinite().all())

    @cached_property
    def spectrum(self) -> tuple[Tensor, Tensor]:
        """Eigenvalues of :attr:`gram`, ascending, and its eigenvectors as columns; NaN where it is not finite.

        Eigenvalues under K * 2.2e-16 * the largest are 0 by rounding, and set to it, as is always the smallest of K:
        rows of M sum to 0.
        """
        if not self.finite:
            return torch.full_like(self.gram[0], torch.nan), torch.full_like(self.gram, torch.nan)
        eigenvalues, eigenvectors = torch.linalg.eigh(self.gram)
        eigenvalues[eigenvalues <= self.num_present * EPSILON * eigenvalues[-1]] = 0
        if self.is_wide:
            eigenvalues[0] = 0
        return eigenvalues, eigenvectors

    @cached_property
    def places(self) -> Tensor:
        """Row of M of each present class, (C,)."""
        return self.present.cumsum(0) - 1

    @cached_property
    def names(self) -> Tensor:
        """Class of each row of M, (K,)."""
        return self.present.nonzero().flatten()

    @cached_property
    def lengths(self) -> Tensor:
        """|mu_c - mu_G|^2, (K,)."""
        return self.centred.square().sum(1)

    def distances(self, rows: Index, columns: Index = slice(None)) -> Tensor:
        """|mu_c - mu_k|^2 between some rows of M and others, (A, B).

        By products of M; pairs that are close against their distance to the mean, where that cancels, one by one.
        """
        left, right = self.centred[rows], self.centred[columns]
        total = self.lengths[rows, None] + self.lengths[columns]
        distances = torch.addmm(total, left, right.T, alpha=-2).clamp_(min=0)
        near = distances < 1e-4 * total
        for pairs in near.nonzero().split(4096):
            distances[pairs[:, 0], pairs[:, 1]] = (left[pairs[:, 0]] - right[pairs[:, 1]]).square().sum(1)
        return distances

    @cached_property
    def whitening(self) -> Tensor:
        """B: where K <= d with |Y B|^2 = r^T pinv(Sigma_B) r for Y = r M^T, else with |r B|^2.

        Sigma_B = M^T M / K. From M M^T = V S V^T comes pinv(Sigma_B) = K M^T V S^-2 V^T M, from M^T M = V S V^T it is
        K V S^-1 V^T.
        """
        S, V = self.spectrum
        inverse = torch.where(S > 0, 1 / S, 0.0) + 0 * S  # NaN stays NaN
        return self.num_present**0.5 * V * (inverse if self.is_wide else inverse.sqrt())


def geometry(first: FirstSums, center: str) -> Geometry:
    """Class means, and where they are from their mean.

    Args:
        first: Sums of the first pass, over all ranks.
        center: h_G: ``samples``, the mean over all samples; ``classes``, mu_G; ``none``, 0.
    """
    present = first.counts > 0
    means = first.sums / first.counts.clamp(min=1)[:, None]
    of_present = where(present, means)
    mean_of_means = of_present.mean(0)
    centers = {
        "samples": first.sums.sum(0) / first.counts.sum(),
        "classes": mean_of_means,
        "none": torch.zeros_like(mean_of_means),
    }
    centred = of_present - mean_of_means
    rounding = rounding_of(first.counts) * torch.linalg.vector_norm(of_present, dim=1).amax()
    centred[torch.linalg.vector_norm(centred, dim=1) <= rounding] = 0
    return Geometry(first.counts, present, means, mean_of_means, centers[center], centred)


def rounding_of(counts: Tensor) -> Tensor:
    """What the mean over samples of these counts (C,) may be off by rounding, against what it is a mean of.

    A sum of n equal numbers, added one by one, is off by up to n/2 ulps, and it is if the numbers are not short.
    """
    return EPSILON * counts.sum().clamp(min=ROUNDING)
