"""What a model's logits say over a split: loss, accuracy; under the square loss quasi-interpolation and rho_eq."""

from collections.abc import Callable, Iterator
from math import nan

import torch
from torch import Tensor, nn

from ncflow.measuring.heads import both_sides
from ncflow.measuring.losses import Loss, SplitLoss, is_cross_entropy
from ncflow.measuring.ranks import over_ranks
from ncflow.metrics.equilibrium import equilibrium_rho, normalized_moments, output_moments
from ncflow.metrics.head import LinearHead
from ncflow.metrics.margins import predictions
from ncflow.metrics.quasi_interpolation import classifier_residuals, fitted_gap, output_sums

# The targets of a loss whose outputs are compared with quasi-interpolation, and whether they are 1 and -1.
_SIGNS = {"one_hot": False, "signs": True}
_CROSS_ENTROPY = nn.CrossEntropyLoss()


def exact_device(device: torch.device) -> torch.device:
    """Where sums in float64 can be made: Apple's GPUs have none, there it is the CPU."""
    return torch.device("cpu") if device.type == "mps" else device


class Outputs:
    """What the logits say, over all samples of all ranks: of one run, or of many with a leading axis.

    Args:
        loss: The loss of a run; the mean where there are several.
        device: The network's.
        runs: The leading shape.
        each: Of several runs: from a loss, logits (..., B, C) and labels (..., B) to the mean losses (...).
        is_found: As for :class:`ncflow.measuring.losses.SplitLoss`.

    Attributes:
        sums: Of loss, its weights, cross-entropy, correct samples and samples, (..., 5).
        signs: Whether the targets that the outputs are compared with are 1 and -1; None: they are not compared.
        quasi: Sums of :func:`ncflow.metrics.quasi_interpolation.output_sums`, (..., 5).
        moments: Sums of :func:`ncflow.metrics.equilibrium.output_moments`, (..., 2).
        of_cross_entropy: Whether the loss is the mean cross-entropy; None before the first batch.
    """

    def __init__(
        self,
        loss: Loss,
        device: torch.device,
        runs: tuple[int, ...] = (),
        each: Callable[[Loss, Tensor, Tensor], Tensor] | None = None,
        is_found: bool = False,
    ) -> None:
        self.loss, self.each = loss, each
        self.of_split = SplitLoss(loss, is_found)
        self.device = exact_device(device)
        self.sums = torch.zeros(*runs, 5, dtype=torch.float64, device=self.device)
        self.signs = _SIGNS.get(getattr(loss, "targets", ""))
        self.quasi = torch.zeros(*runs, 5, dtype=torch.float64, device=self.device)
        self.moments = torch.zeros(*runs, 2, dtype=torch.float64, device=self.device)
        self.of_cross_entropy: bool | None = None

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Take in a batch of logits (..., B, C) and labels (..., B)."""
        logits, labels = logits.to(self.device), labels.to(self.device)
        if self.of_cross_entropy is None:  # asked here, where what a loss draws at random is not missed in training
            self.of_cross_entropy = is_cross_entropy(self.loss, logits.shape[-1], self.device)
        correct = (predictions(logits) == labels).sum(-1)
        count, exact = labels.shape[-1], logits.double()
        if self.each is None:
            sides = both_sides(exact)
            own, cross_entropy = self.of_split(exact, labels), _CROSS_ENTROPY(sides, labels) * count
        else:
            own = (self.each(self.loss, exact, labels) * count, torch.full_like(correct, count))
            cross_entropy = self.each(_CROSS_ENTROPY, exact, labels) * count
        self.sums += torch.stack([*own, cross_entropy, correct, torch.full_like(correct, count)], -1)
        if self.signs is not None:
            self.quasi += output_sums(exact, labels, self.signs)
            self.moments += output_moments(exact, labels, self.signs)

    def of_each(self) -> Iterator["Outputs"]:
        """Those of each run, on the CPU."""
        for sums, quasi, moments in zip(self.sums.cpu(), self.quasi.cpu(), self.moments.cpu(), strict=True):
            one = Outputs(self.loss, sums.device)
            one.sums, one.quasi, one.moments = sums, quasi, moments
            one.of_cross_entropy = self.of_cross_entropy
            yield one

    def compute(self) -> dict[str, Tensor]:
        """Loss, cross-entropy and accuracy."""
        rest = self.of_split.rest()
        if rest is not None:
            self.sums[:2] += torch.stack(rest)
        loss, weight, cross_entropy, correct, count = over_ranks(self.sums)
        return {"loss": loss / weight, "cross_entropy": cross_entropy / count, "accuracy": correct / count}

    def quasi_measures(self, head: LinearHead, means: Tensor | None, decay: float) -> dict[str, Tensor]:
        """Under the square loss e, its spread, and the residuals of eq. 33 and 34 (CBMM Memo 117).

        The residuals are NaN without decay or where a class is missing.
        """
        if self.signs is None or means is None:
            return {}
        gap, spread = fitted_gap(over_ranks(self.quasi), head.out_features)
        residuals = (gap.new_tensor(nan), gap.new_tensor(nan))
        if decay > 0 and len(means) == head.out_features:
            weight = head.weight.detach().to(means.device)
            residuals = classifier_residuals(gap, weight, means, decay, self.signs)
        names = ("quasi_gap", "quasi_spread", "quasi_residual_means", "quasi_residual_norms")
        return dict(zip(names, (gap, spread, *residuals), strict=True))

    def norm_measures(self, head: LinearHead, rho: Tensor, decay: float) -> dict[str, Tensor]:
        """Under the square loss mu, M and rho_eq (CBMM Memo 117, eq. 11); see :mod:`ncflow.metrics.equilibrium`."""
        if self.signs is None:
            return {}
        count = over_ranks(self.sums)[-1]
        moments = over_ranks(self.moments)
        rho = rho.to(moments.device)
        mean, square = normalized_moments(moments, count, rho, head.out_features, self.signs)
        equilibrium = equilibrium_rho(mean, square, rho, head, decay, self.signs)
        return {"normalized_output_mean": mean, "normalized_output_square": square, "rho_eq": equilibrium}
