"""UNC3: whether all classes are aligned with their classifiers equally well."""

from torch import Tensor

from ncflow.metrics.class_means import Geometry
from ncflow.metrics.duality import row_cosines
from ncflow.metrics.groups.group import Group
from ncflow.metrics.groups.moments import Moments


def dual_uniformity_measures(weight: Tensor, means: Geometry) -> dict[str, Tensor]:
    """``unc3_mean`` (1 at collapse) and ``unc3_cov`` (0), float64 scalars.

    Mean, and coefficient of variation (standard deviation, divisor K, over the mean's absolute value), over the
    present classes of cos(w_c, mu_c - mu_G) (Wu, Papyan 2024, "Linguistic collapse", section 3.6, uniform duality). W
    is not centred, other than for ``nc3_cosine_mean``. A class whose mean is at mu_G, or whose w_c is 0, is left out;
    NaN where none is left.

    Args:
        weight: Classifier W, (C, d).
        means: Class means.
    """
    cosines, defined = row_cosines(weight.double()[means.present], means.centred)
    return Moments().add(cosines[defined]).measures("unc3")


class DualUniformity(Group):
    """Uniformity of the duality; of the last layer alone."""

    def measures(self, means: Geometry) -> dict[str, Tensor]:
        """As :func:`dual_uniformity_measures` has them; none of another layer."""
        head = self.layer.head
        return {} if head is None else dual_uniformity_measures(head.weight.detach().to(means.centred.device), means)
