"""NC5: whether what belongs to no class lies across the class means."""

import torch
from torch import Tensor

from ncflow.metrics.class_means import Geometry, rounding_of
from ncflow.metrics.groups.group import Group
from ncflow.metrics.rows import cast_rows, chunks


class OodMean:
    """The mean feature of a second data set, over its batches.

    Args:
        dim: d.
        device: Of the sums.
    """

    def __init__(self, dim: int, device: torch.device | str = "cpu") -> None:
        # The sum of h, of |h|^2, and the number of samples, in one tensor for one transfer between ranks.
        self.sums = torch.zeros(dim + 2, dtype=torch.float64, device=device)

    def add(self, features: Tensor) -> None:
        """Take in features (B, d)."""
        buffer = None
        for (rows,) in chunks(features):
            exact = buffer = cast_rows(rows, buffer)
            self.sums[:-2] += exact.sum(0)
            self.sums[-2] += exact.square().sum()
            self.sums[-1] += len(exact)

    @staticmethod
    def of(sums: Tensor) -> Tensor:
        """The mean, (d,), of the sums over all ranks; exactly 0 where only rounding is left, NaN of no sample."""
        mean, rms = sums[:-2] / sums[-1], torch.sqrt(sums[-2] / sums[-1])
        is_zero = torch.linalg.vector_norm(mean) <= rounding_of(sums[-1:]) * rms
        return torch.where(is_zero, torch.zeros_like(mean), mean)


def ood_measures(means: Geometry, ood: Tensor) -> dict[str, Tensor]:
    """``nc5_ood_cosine``, a float64 scalar in 0..1; 0 where the class means are orthogonal to the other data's mean.

    The mean over the present classes of |cos(mu_c, mu_OOD)|, neither being centred (Ben Ammar et al. 2024, "NECO",
    section 4, NC5). A class mean at 0 has no direction and is left out; NaN if mu_OOD is 0, or no class is left.

    Args:
        means: Class means.
        ood: mu_OOD, (d,).
    """
    rows = means.means[means.present]
    lengths = torch.linalg.vector_norm(rows, dim=1)
    kept = ~(lengths <= rounding_of(means.counts) * lengths.amax())  # what is not finite stays
    cosines = (rows @ ood).abs() / (lengths * torch.linalg.vector_norm(ood))
    return {"nc5_ood_cosine": cosines[kept].mean()}


class Ood(Group):
    """Orthogonality to a second data set, which is read once a measurement."""

    def measures(self, means: Geometry) -> dict[str, Tensor]:
        """As :func:`ood_measures` has them."""
        assert self.layer.ood is not None
        return ood_measures(means, self.layer.ood)
