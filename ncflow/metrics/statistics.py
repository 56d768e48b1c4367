"""What crosses the data: sums over samples in float64, each of a size that does not depend on the number of samples.

Two passes. The first needs nothing and gives the class means; the second, around these means, gives the rest. Both are
plain sums, so that batches, and ranks, add up. Features may be of any floating type: each chunk of rows is cast.

Features (..., B, d) with labels (..., B): of one run, or of many with a leading axis, which has the same sums.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

EPSILON = torch.finfo(torch.float64).eps
# Closer to its centre than this many ulps of the centre, a feature or a mean is at it: what is left is rounding.
ROUNDING = 64
# Classes up to which products with the matrix of membership are faster.
_FEW_CLASSES = 16
# Elements of a chunk: in float64 it stays in a CPU's cache; a GPU wants few, large kernels.
_CHUNK_ELEMENTS = {"cpu": 2**18}
_GPU_CHUNK_ELEMENTS = 2**24


def chunks(features: Tensor, *beside: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Cut features (..., B, d), and tensors (..., B) beside them, into rows that are worked on at a time."""
    elements = _CHUNK_ELEMENTS.get(features.device.type, _GPU_CHUNK_ELEMENTS)
    count = features.shape[-2]
    pieces = max(1, round(features.numel() / elements))
    rows = max(256, -(-count // pieces))  # of one size: a short last chunk costs nearly as much as a long one
    return zip(features.split(rows, -2), *(tensor.split(rows, -1) for tensor in beside), strict=True)


def _add_product(sums: Tensor, left: Tensor, right: Tensor, sign: int = 1) -> None:
    """Add a product of matrices (n, m) and (m, d), or of as many as there are runs, in place."""
    add = sums.addmm_ if sums.ndim == 2 else sums.baddbmm_
    add(left, right, alpha=sign)


def _rows_of(table: Tensor, index: Tensor) -> Tensor:
    """Rows (..., B, m) of tables (..., C, m) at an index (..., B)."""
    if index.ndim == 1:
        return table.index_select(0, index)
    return table.gather(-2, index[..., None].expand(*index.shape, table.shape[-1]))


class _Membership:
    """Which class each row of a chunk belongs to: adds table rows to feature rows, and sums feature rows by class.

    For a few classes on a CPU, and for many runs, both are products with the 0/1 matrix of membership: on a CPU they
    cost a third of gathering.
    """

    def __init__(self, labels: Tensor, num_classes: int) -> None:
        self.labels = labels
        self.matrix = None
        if labels.ndim > 1 or (labels.device.type == "cpu" and num_classes <= _FEW_CLASSES):
            identity = torch.eye(num_classes, dtype=torch.float64, device=labels.device)
            self.matrix = identity.index_select(0, labels.flatten()).view(*labels.shape, num_classes)

    def add_to(self, rows: Tensor, table: Tensor, sign: int) -> None:
        """Add ``sign`` times its class's row of ``table`` (..., C, d) to each of ``rows`` (..., B, d), in place."""
        if self.matrix is not None:
            _add_product(rows, self.matrix, table, sign)
        else:
            rows.add_(table.index_select(0, self.labels), alpha=sign)

    def sum_into(self, sums: Tensor, rows: Tensor, weights: Tensor | None = None) -> None:
        """Add each of ``rows`` (..., B, d), times its weight (..., B, 1), to the row of ``sums`` of its class."""
        if self.matrix is not None:
            _add_product(sums, (self.matrix if weights is None else self.matrix * weights).mT, rows)
        else:
            sums.index_add_(0, self.labels, rows if weights is None else rows.mul_(weights))


@dataclass
class FirstSums:
    """Of the first pass.

    Attributes:
        sums: Of the features by class, (..., C, d).
        counts: Samples by class, (..., C).
        squares: Sum of |h|^2, (...).
        nonfinite: Samples with a feature that is not finite, (...).
    """

    sums: Tensor
    counts: Tensor
    squares: Tensor
    nonfinite: Tensor

    @classmethod
    def zeros(
        cls, num_classes: int, dim: int, device: torch.device | str = "cpu", runs: tuple[int, ...] = ()
    ) -> "FirstSums":
        """No sample; ``runs`` is the leading shape."""
        zeros = torch.zeros(*runs, num_classes, dim, dtype=torch.float64, device=device)
        return cls(zeros, zeros.new_zeros(*runs, num_classes), zeros.new_zeros(runs), zeros.new_zeros(runs))

    def add(self, features: Tensor, labels: Tensor) -> None:
        """Take in features (..., B, d) with labels (..., B) in 0..C-1; nothing waits for a device."""
        buffer = None
        for rows, classes in chunks(features, labels):
            exact = buffer = _cast(rows, buffer)
            _Membership(classes, self.counts.shape[-1]).sum_into(self.sums, exact)
            self.counts.scatter_add_(-1, classes, self.counts.new_ones(classes.shape))
            squares = torch.linalg.vector_norm(exact, dim=-1).square()
            self.squares += squares.sum(-1)
            self.nonfinite += (~squares.isfinite()).sum(-1)


def _cast(rows: Tensor, buffer: Tensor | None) -> Tensor:
    """The rows in float64, in the memory of an earlier chunk: fresh memory would cost as much as the cast."""
    if buffer is None or buffer.shape[-2] < rows.shape[-2]:
        return rows.double() if rows.dtype != torch.float64 else rows.clone()
    return buffer[..., : rows.shape[-2], :].copy_(rows)


@dataclass(frozen=True)
class Geometry:
    """What the class means determine.

    Attributes:
        counts: n_c, (C,), float64.
        present: Classes with a sample, (C,), bool.
        means: mu_c, (C, d); 0 for an absent class.
        mean_of_means: mu_G, (d,): the mean over present classes.
        centre: h_G of the cosine family, (d,).
        centred: M, (K, d): mu_c - mu_G of the present classes; exactly 0 where only rounding is left.
        gram: G = M M^T, (K, K).
        eigenvalues: Of G, ascending, (K,); those that are 0 by rounding, and the one that is 0 by the centring, are 0.
        eigenvectors: Columns, (K, K).
    """

    counts: Tensor
    present: Tensor
    means: Tensor
    mean_of_means: Tensor
    centre: Tensor
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
    centres = {
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
        first.counts, present, means, mean_of_means, centres[center], centred, gram, eigenvalues, eigenvectors
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
            means.means - means.centre,
            ROUNDING * EPSILON * torch.linalg.vector_norm(means.centre),
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


@dataclass
class SecondSums:
    """Of the second pass, around the class means of the first.

    Attributes:
        directions: Sum of (h - h_G)/|h - h_G| by class, (..., C, d).
        directed: Number of samples that have a direction by class, (..., C).
        squares: Sum of |h - mu_c|^2 by class, (..., C).
        relative: Sum over samples of (h - mu_c)^T pinv(Sigma_B) (h - mu_c) / (K n_c), (...): tr(Sigma_W pinv(Sigma_B)).
        nearest_is_label: Samples whose nearest mu_c is their label's, (...).
        nearest_is_predicted: Samples whose nearest mu_c is the classifier's choice, (...).
        seen: Samples taken in, (...).
    """

    directions: Tensor
    directed: Tensor
    squares: Tensor
    relative: Tensor
    nearest_is_label: Tensor
    nearest_is_predicted: Tensor
    seen: Tensor

    def parts(self) -> list[Tensor]:
        """All sums, to be added up over ranks one by one."""
        return [getattr(self, part.name) for part in fields(self)]

    @classmethod
    def zeros(
        cls, num_classes: int, dim: int, device: torch.device | str = "cpu", runs: tuple[int, ...] = ()
    ) -> "SecondSums":
        """No sample; ``runs`` is the leading shape."""
        zeros = torch.zeros(*runs, num_classes, dim, dtype=torch.float64, device=device)
        by_class, scalar = zeros.new_zeros(*runs, num_classes), zeros.new_zeros(runs)
        return cls(zeros, by_class, by_class.clone(), scalar, scalar.clone(), scalar.clone(), scalar.clone())

    def add(self, features: Tensor, labels: Tensor, predicted: Tensor | None, around: Around) -> None:
        """Take in features (..., B, d), labels and the classifier's choices (..., B), in the order of the first pass.

        With r = h - mu_c, c the own class, and Y = r M^T, the distances to the class means differ by
        |h - mu_k|^2 = const - 2 Y_k + |mu_c - mu_k|^2: nothing large cancels, wherever the mean of the data is.
        """
        beside = [labels] if predicted is None else [labels, predicted]
        buffer = None
        for rows, classes, *choice in chunks(features, *beside):
            residuals = buffer = _cast(rows, buffer)
            member = _Membership(classes, self.squares.shape[-1])
            member.add_to(residuals, around.means, -1)
            self.squares.scatter_add_(-1, classes, torch.linalg.vector_norm(residuals, dim=-1).square())
            products = residuals @ around.centred.mT
            whitened = (products if around.by_products else residuals) @ around.whitening
            weights = around.weights.gather(-1, classes)
            self.relative += (torch.linalg.vector_norm(whitened, dim=-1).square() * weights).sum(-1)
            own = around.places.gather(-1, classes)
            gaps = _rows_of(around.distances, own).sub_(products, alpha=2)
            nearest = around.names.gather(-1, gaps.argmin(-1))
            self.nearest_is_label += (nearest == classes).sum(-1)
            if choice:
                self.nearest_is_predicted += (nearest == choice[0]).sum(-1)
            member.add_to(residuals, around.from_centre, 1)  # in place: now h - h_G
            self._add_directions(residuals, member, around.tolerance)
        self.seen += labels.shape[-1]

    def _add_directions(self, centred: Tensor, member: _Membership, tolerance: Tensor) -> None:
        norms = torch.linalg.vector_norm(centred, dim=-1, keepdim=True)
        # Not `norms > tolerance`: a feature that is not finite must not pass for one at the centre.
        at_centre = norms <= tolerance[..., None, None]
        member.sum_into(self.directions, centred, 1 / norms.masked_fill(at_centre, torch.inf))
        self.directed.scatter_add_(-1, member.labels, (~at_centre).squeeze(-1).double())
