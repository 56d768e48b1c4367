"""The norm rho of the toy model on its own: equilibrium, oscillation, logistic growth (CBMM Memo 117, 3.4.3, 5, G, F).

Means over samples throughout, as in :mod:`ncflow.theory.toy_model.fields`: a lambda of the text's sums is N of ours.

What is wrong in the text, and what these functions make of it:

- Eq. 11: its second form, sum f/(lambda + sum f^2), is that of the sums: it is mu/(M + lambda/N), not mu/(M + lambda).
- After eq. 31: "the frequency of the undamped oscillations is 4 (M + 2 lambda)/eta". It is the square of the angular
  frequency, with lambda once: (eta/2) x'' + x' + 2 (M + lambda) x = 0 has omega_0^2 = 4 (M + lambda)/eta. The system
  oscillates where 4 eta (M + lambda) > 1, not where 1 > sqrt(2 M + 2 lambda), which does not even depend on eta.
- For fixed f_n, gradient descent itself multiplies rho - rho_eq by 1 - 2 eta (M + lambda) a step and turns no spirals:
  it falls without oscillation up to eta (M + lambda) = 1/2, where the second-order flow has oscillated since 1/4 (and
  stays stable at any eta, which descent does not beyond 1). That damped oscillation is of the approximation.
- Eq. 51 is the logistic equation for L = 2 alone; for L = 1, and with normalised layers (eq. 17), rho relaxes
  exponentially, for L > 2 it starts more slowly than exponentially.
"""

from dataclasses import dataclass
from math import inf, sqrt

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.integrate import solve_ivp

from ncflow.checks import require


def equilibrium_rho(margins: ArrayLike, weight_decay: float) -> float:
    """rho_eq = mu/(M + lambda) (eq. 11), where rho' = 0 at these margins; lambda = 0 gives rho_0 (eq. 52).

    Args:
        margins: bar f_n of the unit layers, (N,), not all 0 where lambda = 0.
        weight_decay: lambda >= 0 of the penalty lambda rho^2.

    Example:
        >>> equilibrium_rho([0.5, 0.5], 0.0), equilibrium_rho([0.5, 0.5], 0.25)
        (2.0, 1.0)
    """
    mean, second_moment = margin_moments(margins)
    require(weight_decay >= 0, "weight_decay", "at least 0", weight_decay)
    require(second_moment + weight_decay > 0, "margins", "not all 0 without weight decay", margins)
    return mean / (second_moment + weight_decay)


def margin_moments(margins: ArrayLike) -> tuple[float, float]:
    """mu, the mean of the margins (N,), and M, the mean of their squares."""
    f = np.asarray(margins, dtype=np.float64)
    require(f.ndim == 1 and f.size > 0, "margins", "a vector (N,), N >= 1", f.shape)
    return float(f.mean()), float(np.square(f).mean())


def equivalent_decay(weight_decay: float, rho: float, layers: int) -> float:
    """The lambda of the penalty lambda rho^2 under which an equilibrium without normalisation is one with it.

    Un-normalised, each layer pays lambda |W_k|^2 and ends at |W_k|^2 = rho^(2/L). Its equilibrium (rho, V_k) is one of
    the normalised flow for lambda rho^(2/L - 2). The same lambda has the same equilibria for L = 1 or rho = 1 only.

    Args:
        weight_decay: lambda >= 0 of the penalty lambda sum_k |W_k|^2.
        rho: Product of the norms at the equilibrium, > 0.
        layers: L >= 1.
    """
    require(weight_decay >= 0, "weight_decay", "at least 0", weight_decay)
    require(rho > 0, "rho", "greater than 0", rho)
    require(layers >= 1, "layers", "at least 1", layers)
    return weight_decay * rho ** (2 / layers - 2)


@dataclass(frozen=True)
class Oscillation:
    """Linear motion about rho_eq of (eta/2) rho'' + rho' = -2 (M + lambda) (rho - rho_eq), margins fixed (eq. 23).

    Attributes:
        undamped_frequency: omega_0 = 2 sqrt((M + lambda)/eta), radians per unit of time.
        damping: 1/eta; an oscillation falls as exp(-t/eta).
        frequency: sqrt(omega_0^2 - 1/eta^2), radians per unit of time; 0 where it does not oscillate.
        descent_factor: 1 - 2 eta (M + lambda), by which a step of gradient descent multiplies rho - rho_eq.
    """

    undamped_frequency: float
    damping: float
    frequency: float
    descent_factor: float


def oscillation(margins: ArrayLike, weight_decay: float, step: float) -> Oscillation:
    """How the second-order flow and gradient descent move about rho_eq at fixed margins.

    Args:
        margins: bar f_n, (N,).
        weight_decay: lambda >= 0.
        step: eta > 0.
    """
    require(weight_decay >= 0, "weight_decay", "at least 0", weight_decay)
    require(0 < step < inf, "step", "greater than 0 and finite", step)
    stiffness = margin_moments(margins)[1] + weight_decay
    undamped = 2 * sqrt(stiffness / step)
    # max, as below the threshold the root is imaginary: two real rates, no oscillation
    frequency = sqrt(max(undamped**2 - step**-2, 0.0))
    return Oscillation(undamped, 1 / step, frequency, 1 - 2 * step * stiffness)


def logistic_rho(
    times: ArrayLike, rho: float, mean: float, second_moment: float, weight_decay: float = 0.0
) -> NDArray[np.float64]:
    """rho(t) of eq. 51 for two layers and fixed mu, M: K/(1 + (K/rho(0) - 1) e^(-r t)) (figure 10).

    rho' = 4 rho (mu - rho M) - 4 lambda rho, so that r = 4 (mu - lambda) and K = (mu - lambda)/M.

    Args:
        times: t >= 0, (T,).
        rho: rho(0) > 0.
        mean: mu.
        second_moment: M > 0.
        weight_decay: lambda >= 0 of the penalty lambda (|W_1|^2 + |W_2|^2), other than mu.
    """
    _check_growth(rho, second_moment, weight_decay)
    require(mean != weight_decay, "weight_decay", "other than the mean margin", weight_decay)
    t = np.asarray(times, dtype=np.float64)
    rate, capacity = 4 * (mean - weight_decay), (mean - weight_decay) / second_moment
    # Each form keeps its exponential below 1.
    if rate > 0:
        return capacity / (1 + (capacity / rho - 1) * np.exp(-rate * t))
    return capacity * np.exp(rate * t) / (np.exp(rate * t) + (capacity / rho - 1))


def equal_growth_rho(
    times: ArrayLike, rho: float, mean: float, second_moment: float, *, layers: int, weight_decay: float = 0.0
) -> NDArray[np.float64]:
    """rho(t) of eq. 51 for any depth, L layers of equal norm: rho' = 2 L rho^(2-2/L) (mu - rho M) - 2 L lambda rho.

    Args:
        times: From 0, increasing, (T,).
        rho: rho(0) > 0.
        mean: mu.
        second_moment: M > 0.
        layers: L >= 1.
        weight_decay: lambda >= 0 of the penalty lambda sum_k |W_k|^2.
    """
    _check_growth(rho, second_moment, weight_decay)
    require(layers >= 1, "layers", "at least 1", layers)
    t = np.asarray(times, dtype=np.float64)

    def growth(_: float, state: NDArray[np.float64]) -> NDArray[np.float64]:
        now = np.maximum(state, 0)  # a trial step of the solver may fall below 0, where the power is not defined
        return 2 * layers * (now ** (2 - 2 / layers) * (mean - now * second_moment) - weight_decay * now)

    # One smooth equation, stiff for a large rho alone: LSODA sees to both.
    found = solve_ivp(growth, (0, t[-1]), [rho], method="LSODA", t_eval=t, rtol=1e-10, atol=1e-12)
    return found.y[0]


def _check_growth(rho: float, second_moment: float, weight_decay: float) -> None:
    require(0 < rho < inf, "rho", "greater than 0 and finite", rho)
    require(second_moment > 0, "second_moment", "greater than 0", second_moment)
    require(weight_decay >= 0, "weight_decay", "at least 0", weight_decay)
