"""Margins at rest under the exponential loss with weight decay (CBMM Memo 117, appendix J.2, eq. 80 and 81).

Two classes, unit layers, margins bar f_n = y_n f_n and the loss (1/N) sum exp(-rho bar f_n) + lambda/2 rho^2. An
optimiser's weight decay on the last layer is this lambda.

What is wrong in the text, and what these functions make of it:

- Eq. 81, at rest for every single sample, "suggests" equal margins. But x e^(-rho x) rises up to x = 1/rho and falls
  beyond: two margins solve it, one on either side of 1/rho (:func:`resting_margins`), and both are in 0..1 if rho > 1
  and e^-rho < lambda rho. It makes all margins equal only if all outputs rho bar f_n are above 1, or all below.
- Eq. 80 does not make margins equal, as the text says; it fixes rho (:func:`equilibrium_rho`).
"""

from math import e, log

import numpy as np
from numpy.typing import ArrayLike

from ncflow.checks import require


def equilibrium_rho(margins: ArrayLike, weight_decay: float) -> float:
    """The rho at which mean(e^(-rho bar f) bar f) = lambda rho (eq. 80); it is the only one.

    Args:
        margins: bar f_n of the unit layers, (N,), with a mean above 0 (average separability): else rho falls to 0.
        weight_decay: lambda > 0.
    """
    from scipy.optimize import brentq

    f = np.asarray(margins, dtype=np.float64)
    require(f.ndim == 1 and f.size > 0, "margins", "a vector (N,), N >= 1", f.shape)
    mean = float(f.mean())
    require(mean > 0, "margins", "of a mean above 0", mean)
    require(weight_decay > 0, "weight_decay", "greater than 0", weight_decay)

    def excess(rho: float) -> float:
        # 700: beyond, a double overflows; the sign, which is all that counts there, is that of the least margin
        return float((np.exp(np.minimum(-rho * f, 700)) * f).mean()) - weight_decay * rho

    # The left side of eq. 80 falls from the mean margin on, the right side rises.
    return float(brentq(excess, 0.0, mean / weight_decay, xtol=1e-12, rtol=1e-14))


def resting_margins(rho: float, weight_decay: float) -> tuple[float, float]:
    """The two margins that a sample can have where e^(-rho bar f) bar f = lambda rho (eq. 81).

    -W(-lambda rho^2)/rho on the two real branches of Lambert's W.

    Args:
        rho: > 0.
        weight_decay: lambda > 0, at most 1/(e rho^2): beyond, there is none.

    Returns:
        The lower one, at most 1/rho, and the higher one, at least 1/rho.
    """
    from scipy.optimize import brentq

    require(rho > 0, "rho", "greater than 0", rho)
    limit = 1 / (e * rho**2)
    require(0 < weight_decay <= limit, "weight_decay", f"in (0, 1/(e rho^2)] = (0, {limit:g}]", weight_decay)
    pull = weight_decay * rho**2

    def excess(output: float) -> float:
        return log(output) - output - log(pull)

    # SciPy's lambertw is NaN at the limit, where the branches meet.
    if excess(1.0) <= 0:
        return 1 / rho, 1 / rho
    # u e^-u = s has u >= s, and as log u <= u/2, u <= -2 log s.
    lower, higher = (brentq(excess, *ends, xtol=1e-300, rtol=1e-14) for ends in ((pull, 1.0), (1.0, -2 * log(pull))))
    return float(lower) / rho, float(higher) / rho
