"""The loss over (rho, v) and its degenerate valley, in two dimensions (CBMM Memo 117, section 3.4.4, fig. 7 to 9)."""

from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.integrate import solve_ivp

from ncflow.checks import require
from ncflow.theory.toy_model.network import activate, activation_slope

Array = NDArray[np.float64]


def landscape(rho: ArrayLike, margins: ArrayLike, weight_decay: float = 0.0) -> Array:
    """The loss 1 - 2 rho mu + rho^2 (M + lambda), eq. 1 on the spheres.

    Args:
        rho: Norms, of any shape.
        margins: bar f_n of one sample, or mu where M = mu^2; broadcast against ``rho``.
        weight_decay: lambda >= 0 of the penalty lambda rho^2.
    """
    require(weight_decay >= 0, "weight_decay", "at least 0", weight_decay)
    norm = np.asarray(rho, dtype=np.float64)
    return np.square(1 - norm * np.asarray(margins, dtype=np.float64)) + weight_decay * np.square(norm)


@dataclass(frozen=True)
class CircleNetwork:
    """Two unit layers on one sample x = 1, y = 1; V_1 turns on a great circle by an angle v, V_2 = c/|c| stays.

    V_1(v) = sqrt(2/h) (cos(v - 2 pi j/h))_j, which is a unit vector for every v as h >= 3. The margin is bar f(v) =
    sqrt(2/h) sum_j V_2j s(cos(v - 2 pi j/h)), the loss vanishes on the line rho = 1/bar f(v) > 0, and the angle
    measures length on the sphere: the gradient flow of eq. 6 and 7 is rho' = -dL/drho, v' = -dL/dv.

    Attributes:
        second_layer: c, (h,), h >= 3.
        bend: Width over which the ReLU s bends, or None for a linear network. With a ReLU, neighbouring units are on
            together for some angles and alone for others, and the line has more than one place of locally least
            norm: the twisting valley of figure 9. The linear network has one.
    """

    second_layer: tuple[float, ...] = (1.0, 0.35, 0.6)
    bend: float | None = 0.05

    def __post_init__(self) -> None:
        require(len(self.second_layer) >= 3, "second_layer", "of at least 3 units", self.second_layer)
        require(self.bend is None or self.bend >= 0, "bend", "None, or at least 0", self.bend)
        require(any(self.second_layer), "second_layer", "not all 0", self.second_layer)

    def margin(self, angle: ArrayLike) -> Array:
        """The margin bar f(v), of the shape of ``angle`` (radians)."""
        V_2, turned = self._units(angle)
        return sqrt(2 / len(V_2)) * (V_2 * activate(np.cos(turned), self.bend)).sum(-1)

    def slope(self, angle: ArrayLike) -> Array:
        """The derivative of the margin, of the shape of ``angle`` (radians)."""
        V_2, turned = self._units(angle)
        slopes = activation_slope(activate(np.cos(turned), self.bend), self.bend)
        return -sqrt(2 / len(V_2)) * (V_2 * slopes * np.sin(turned)).sum(-1)

    def _units(self, angle: ArrayLike) -> tuple[Array, Array]:
        """V_2 (h,), and the angles between V_1's row of each unit and the sample, with a last axis (h,)."""
        c = np.asarray(self.second_layer)
        turned = np.asarray(angle, dtype=np.float64)[..., None] - 2 * np.pi * np.arange(len(c)) / len(c)
        return c / np.linalg.norm(c), turned

    def flow(self, rho: float, angle: float, times: ArrayLike, weight_decay: float = 0.0) -> tuple[Array, Array]:
        """rho(t) and v(t) of the gradient flow, each (T,).

        Args:
            rho: rho(0) > 0.
            angle: v(0), radians.
            times: From 0, increasing, (T,).
            weight_decay: lambda >= 0.
        """
        require(rho > 0, "rho", "greater than 0", rho)
        require(weight_decay >= 0, "weight_decay", "at least 0", weight_decay)

        def velocity(_: float, state: Array) -> Array:
            norm, v = state
            f = float(self.margin(v))
            pull = 2 * (1 - norm * f)
            return np.array([pull * f - 2 * weight_decay * norm, pull * norm * float(self.slope(v))])

        moments = np.asarray(times, dtype=np.float64)
        # Across the valley it is stiff against the drift along it, of the order of lambda.
        found = solve_ivp(velocity, (0, moments[-1]), [rho, angle], method="LSODA", t_eval=moments, rtol=1e-8)
        return found.y[0], found.y[1]
