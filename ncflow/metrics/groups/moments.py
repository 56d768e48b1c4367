"""Mean and coefficient of variation of values that are never held at once."""

import torch
from torch import Tensor


class Moments:
    """Of values given part by part: their mean, and their standard deviation (divisor n) over it.

    Parts are joined by their own means (Chan, Golub, LeVeque 1983), so that nothing cancels where all are nearly equal.
    """

    def __init__(self) -> None:
        self.count = 0
        self.sum = torch.zeros((), dtype=torch.float64)
        self.deviations = torch.zeros((), dtype=torch.float64)

    def add(self, values: Tensor) -> "Moments":
        """Take in values (n,)."""
        count = len(values)
        if count > 0:
            own = values.double().sum().cpu()
            if self.count > 0:
                gap = own / count - self.sum / self.count
                self.deviations += gap.square() * (self.count * count / (self.count + count))
            self.deviations += (values - values.mean()).square().sum().cpu()
            self.sum, self.count = self.sum + own, self.count + count
        return self

    def measures(self, family: str) -> dict[str, Tensor]:
        """``{family}_mean`` and ``{family}_cov``, the deviation over the mean's absolute value; NaN of no value."""
        nan = self.sum.new_full((), torch.nan)
        if self.count == 0:
            return {f"{family}_mean": nan, f"{family}_cov": nan}
        mean = self.sum / self.count
        return {f"{family}_mean": mean, f"{family}_cov": torch.sqrt(self.deviations / self.count) / mean.abs()}
