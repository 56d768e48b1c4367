"""The second pass over the features: sums around the class means of the first."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

import torch
from torch import Tensor

from ncflow.metrics.class_means import Geometry, rounding_of
from ncflow.metrics.nearest import NearestMean
from ncflow.metrics.rows import Membership, cast_rows, chunks, rows_of


class Around(NamedTuple):
    """What the second pass reads of the class means: of one run, or of many with a leading axis.

    Attributes:
        means: mu_c, (..., C, d).
        from_centre: mu_c - h_G, (..., C, d).
        tolerance: Distance from h_G below which only rounding is left, (...).
        centred: M, (..., K, d).
        whitening: As :attr:`Geometry.whitening` has it.
        weights: 1 / (K n_c), (..., C).
        places: Row of M of each class, (..., C).
        names: Class of each row of M, (..., K).
        distances: |mu_c - mu_k|^2, (..., K, K), where K <= d; else None.
        search: What finds the nearest of more class means than there are dimensions; else None.
    """

    means: Tensor
    from_centre: Tensor
    tolerance: Tensor
    centred: Tensor
    whitening: Tensor
    weights: Tensor
    places: Tensor
    names: Tensor
    distances: Tensor | None
    search: NearestMean | None

    @classmethod
    def of(cls, means: Geometry) -> "Around":
        """Of the class means of one run."""
        return cls(
            means.means,
            means.means - means.center,
            rounding_of(means.counts) * torch.linalg.vector_norm(means.center),
            means.centred,
            means.whitening,
            1 / (means.num_present * means.counts),
            means.places,
            means.names,
            means.distances(slice(None)) if means.is_wide else None,
            None if means.is_wide else NearestMean(means),
        )

    @classmethod
    def stack(cls, runs: Sequence["Around"], device: torch.device) -> "Around":
        """Of many runs with the same classes present, no more than there are dimensions."""
        names = [name for name in cls._fields if name != "search"]
        parts = {name: torch.stack([getattr(run, name) for run in runs]).to(device) for name in names}
        return cls(**parts, search=None)


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
            residuals = buffer = cast_rows(rows, buffer)
            member = Membership(classes, self.squares.shape[-1])
            member.add_to(residuals, around.means, -1)
            self.squares.scatter_add_(-1, classes, torch.linalg.vector_norm(residuals, dim=-1).square())
            own = around.places.gather(-1, classes)
            if around.distances is not None:
                products = residuals @ around.centred.mT
                whitened = products @ around.whitening
                closest = rows_of(around.distances, own).sub_(products, alpha=2).argmin(-1)
            else:
                assert around.search is not None
                whitened = residuals @ around.whitening
                closest = around.search(residuals, own)
            weights = around.weights.gather(-1, classes)
            self.relative += (torch.linalg.vector_norm(whitened, dim=-1).square() * weights).sum(-1)
            nearest = around.names.gather(-1, closest)
            self.nearest_is_label += (nearest == classes).sum(-1)
            if choice:
                self.nearest_is_predicted += (nearest == choice[0]).sum(-1)
            member.add_to(residuals, around.from_centre, 1)  # in place: now h - h_G
            norms, tolerance = torch.linalg.vector_norm(residuals, dim=-1), around.tolerance[..., None]
            member.sum_directions_into(self.directions, self.directed, residuals, norms, tolerance)
        self.seen += labels.shape[-1]
