"""GNC2: whether the directions of the class means are spread evenly over the sphere, also where C > d + 1."""

from dataclasses import replace

import torch
from torch import Tensor

from ncflow.metrics.class_means import Geometry
from ncflow.metrics.groups.group import Group
from ncflow.metrics.groups.moments import Moments
from ncflow.metrics.pairs import tiles

RIESZ = 2.0
"""The exponent s of the Riesz kernel."""


def uniformity_measures(means: Geometry, s: float = RIESZ) -> dict[str, Tensor]:
    """``gnc2_log_mean``, ``gnc2_log_cov``, ``gnc2_riesz_mean`` and ``gnc2_riesz_cov``, float64 scalars.

    With m_c = mu_c - mu_G, mean and coefficient of variation (standard deviation, divisor n, over the mean's absolute
    value) over pairs of classes of the kernels of r = |m_c/|m_c| - m_k/|m_k||: log(1/r), and Riesz' r^-s for s > 0,
    -r^-s for s < 0 (Liu, Yu, Weller, Schoelkopf 2023, "Generalizing and decoupling neural collapse via hyperspherical
    uniformity gap", section 3; Wu, Papyan 2024, "Linguistic collapse", section 3.5, whose measure of GNC2 is the
    variation under the logarithm). Their code takes s = d - 2, under which a kernel of 510 powers compares with no
    other width; here s is 2 at every width.

    At a simplex ETF r^2 = 2 K/(K - 1) for every pair: the means are -log(2 K/(K - 1))/2 and, with s = 2, (K - 1)/(2 K),
    and both variations 0. A mean at mu_G has no direction and is left out. Infinite where two directions coincide, the
    variations then NaN; all NaN where fewer than two classes have a direction.
    """
    lengths = torch.linalg.vector_norm(means.centred, dim=1, keepdim=True)
    units = (means.centred / lengths + 0 * lengths)[lengths[:, 0] != 0]  # what is not finite stays, as NaN
    logarithmic, riesz = Moments(), Moments()
    sign = -1.0 if s < 0 else 1.0
    for squares in tiles(len(units), replace(means, centred=units).distances):
        logarithmic.add(-squares.log() / 2)
        riesz.add(sign * squares.pow(-s / 2))
    return {**logarithmic.measures("gnc2_log"), **riesz.measures("gnc2_riesz")}


class Uniformity(Group):
    """Uniformity of the class means; K^2 d operations in tiles, no pass over the data."""

    def measures(self, means: Geometry) -> dict[str, Tensor]:
        """As :func:`uniformity_measures` has them."""
        return uniformity_measures(means)
