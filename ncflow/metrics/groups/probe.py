"""How well a linear classifier of the layer's own tells the classes apart."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ncflow.checks import require
from ncflow.metrics.class_means import Geometry, rounding_of
from ncflow.metrics.groups.group import Group, Layer
from ncflow.metrics.rows import cast_rows, chunks

MOST_FEATURES = 4096
"""Features up to which a layer is probed: two matrices (d, d) in float64 of 134 MB."""
RIDGE = 1e-3
"""The penalty, against the mean variance of a feature."""


class SecondMoments:
    """Sums over this rank's features around a point among them, in one pass.

    The point is the first batch's mean: around 0, features far from the origin would lose their variance to rounding.

    Attributes:
        point: a, (d,).
        sums: Sum of h - a, (d,).
        products: Sum of (h - a)(h - a)^T, (d, d).
        count: Samples.
    """

    def __init__(self, dim: int, device: torch.device | str = "cpu") -> None:
        self.point: Tensor | None = None
        self.sums = torch.zeros(dim, dtype=torch.float64, device=device)
        self.products = torch.zeros(dim, dim, dtype=torch.float64, device=device)
        self.count = 0

    def add(self, features: Tensor) -> None:
        """Take in features (B, d)."""
        buffer = None
        for (rows,) in chunks(features):
            exact = buffer = cast_rows(rows, buffer)
            if self.point is None:
                self.point = exact.mean(0)
            exact -= self.point
            self.sums += exact.sum(0)
            self.products.addmm_(exact.T, exact)
            self.count += len(exact)

    def around(self, center: Tensor) -> Tensor:
        """Sum of (h - m)(h - m)^T for another point m (d,), (d, d)."""
        if self.point is None:
            return self.products
        moved = center - self.point
        cross = torch.outer(self.sums, moved)
        return self.products - cross - cross.T + self.count * torch.outer(moved, moved)


@dataclass(frozen=True)
class Ridge:
    """Linear classifier of the classes that it was trained on.

    Attributes:
        center: Mean feature, (d,).
        weight: (d, K); NaN where it is undefined.
        bias: Shares of the classes, (K,).
        names: The classes, (K,).
    """

    center: Tensor
    weight: Tensor
    bias: Tensor
    names: Tensor

    @classmethod
    def fit(cls, means: Geometry, products: Tensor) -> "Ridge":
        """Least squares from features to one-hot labels with a penalty, in closed form.

        Args:
            means: Class means, over all ranks.
            products: Sum of (h - h_mean)(h - h_mean)^T over all samples of all ranks, (d, d).
        """
        counts, rows = means.counts[means.present], means.means[means.present]
        total = counts.sum()
        center, dim = (counts @ rows) / total, len(products)
        targets = (counts[:, None] * (rows - center)).T
        penalty = RIDGE * products.trace() / dim
        identity = torch.eye(dim, dtype=products.dtype, device=products.device)
        factor, wrong = torch.linalg.cholesky_ex(products + penalty * identity)
        weight = torch.cholesky_solve(targets, factor)
        rounding = rounding_of(counts) * torch.linalg.vector_norm(center)
        is_one_point = products.trace() <= total * rounding.square()
        undefined = (wrong != 0) | (len(counts) < 2) | ~weight.isfinite().all() | is_one_point
        return cls(center, torch.where(undefined, torch.nan, weight), counts / total, means.names)

    def outputs(self, rows: Tensor) -> Tensor:
        """Outputs (B, K) of features (B, d) in float64, which are changed in place."""
        rows -= self.center
        return rows @ self.weight + self.bias


class Probe(Group):
    """``probe_accuracy``, in 0..1: accuracy of a linear probe of this layer, trained on the first split measured.

    The probe is ridge regression of one-hot labels, one against all, with an intercept, and the class of the largest
    output is chosen, as scikit-learn's ``RidgeClassifier(alpha=1e-3 tr(S)/d)`` does with S the scatter of the training
    features (linear probes: Alain, Bengio 2016, who take logistic regression). It is chosen for being exact and
    deterministic: it has a closed form in the sums of h and h h^T, so that it is streamed, needs no step size and is
    the same on any number of ranks. Classes without a training sample are never chosen. NaN where a feature is not
    finite, all training features are one, or have one class.

    N d^2 operations, d^3 for the solution, and matrices of (d, d), which also cross ranks; at most
    :data:`MOST_FEATURES` features.
    """

    reads_again = True

    def __init__(self, layer: Layer) -> None:
        super().__init__(layer)
        self._moments: SecondMoments | None = None

    def first(self, features: Tensor) -> None:
        """Take in training features (B, d).

        Raises:
            ArgumentError: If there are more than there may be.
        """
        dim = features.shape[1]
        rule = f"without 'probe' for a layer of more than {MOST_FEATURES} features"
        require(dim <= MOST_FEATURES, "groups", rule, f"{dim} in {self.layer.name or 'last'!r}")
        if "probe" not in self.layer.kept:
            self._moments = self._moments or SecondMoments(dim, features.device)
            self._moments.add(features)

    def begin(self, means: Geometry) -> None:
        """Train the probe if this is the first split."""
        if "probe" not in self.layer.kept:
            rows, counts = means.means, means.counts
            own, self._moments = self._moments or SecondMoments(rows.shape[1], rows.device), None
            products = self.layer.total(own.around((counts @ rows) / counts.sum()))
            self.layer.kept["probe"] = Ridge.fit(means, products)
        self._probe: Ridge = self.layer.kept["probe"]
        self._sums = torch.zeros(3, dtype=torch.float64, device=means.centred.device)

    def second(self, features: Tensor, labels: Tensor) -> None:
        """Count the samples (B, d) whose label (B,) it chooses."""
        buffer = None
        for rows, classes in chunks(features, labels):
            exact = buffer = cast_rows(rows, buffer)
            outputs = self._probe.outputs(exact)
            right = (self._probe.names[outputs.argmax(1)] == classes).sum()
            self._sums += torch.stack([right.double(), right.new_tensor(len(classes)).double(), 0 * outputs.sum()])

    def measures(self, means: Geometry) -> dict[str, Tensor]:
        """The accuracy on this split."""
        right, count, undefined = self.layer.total(self._sums)
        return {"probe_accuracy": right / count + undefined}
