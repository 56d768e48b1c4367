"""The bound of the expected error by rho that CBMM Memo 117 compares solutions with (section 4, eq. 19 to 22).

What is wrong or open in the text, and what these functions make of it:

- Eq. 19 leaves c_1 and c_2 open. For the ramp loss, which is 1/gamma-Lipschitz, and the *empirical* Rademacher average
  c_1 = 2/gamma, and the last term is 3 sqrt(log(2/delta)/(2 N)) (Bartlett, Mendelson 2002; Mohri, Rostamizadeh,
  Talwalkar 2018, Theorem 3.3); the printed log(1/delta) with factor 1 belongs to the average over samples too.
- It is a bound from above alone; the printed absolute value costs another factor 2 within the logarithm.
- The error and the ramp loss are ordered by <=, not by <: they agree at margins of 0 or less, and of gamma or more.
- Eq. 20 and 21 take rho from the solution, but the bound is of a class that is chosen before the samples are seen: it
  holds for one rho given in advance. Of two solutions on the same data, the comparison that the memo makes, it says
  which bound is smaller, not which error.
"""

from math import log, sqrt

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ncflow.checks import require


def ramp_loss(margins: ArrayLike, width: float) -> NDArray[np.float64]:
    """1 for margins of 0 or less, 0 from ``width`` on, 1 - margin/width in between; of the shape of ``margins``.

    The ramp loss of rho f at ``width`` is that of f at width/rho. Width 0 gives the error, which no width is below.

    Args:
        margins: y f(x).
        width: gamma >= 0. Solutions that interpolate targets of +-1 have a ramp loss of 0 up to gamma = 1.

    Example:
        >>> ramp_loss([-1.0, 0.25, 2.0], 0.5).tolist()
        [1.0, 0.5, 0.0]
    """
    require(width >= 0, "width", "at least 0", width)
    values = np.asarray(margins, dtype=np.float64)
    return (values <= 0).astype(np.float64) if width == 0 else np.clip(1 - values / width, 0, 1)


def expected_error_bound(
    rho: float,
    complexity: float,
    samples: int,
    *,
    width: float = 1.0,
    empirical_loss: float = 0.0,
    delta: float = 0.05,
) -> float:
    """Upper bound of the expected error, empirical ramp loss + 2/gamma rho R_N(F) + 3 sqrt(log(2/delta)/(2 N)).

    It holds with probability 1 - delta over the samples for every network of norm rho at once (eq. 19 with 20, and so
    21 and 22 with A = 2/gamma R_N(F)); above 1 it says nothing.

    Args:
        rho: Norm of the function, >= 0, given before the samples are seen.
        complexity: R_N(F) >= 0, the empirical Rademacher average of the networks with unit layers, E over signs of
            sup over f of (1/N) sum s_n f(x_n). That of norm rho is rho times it (eq. 20).
        samples: N >= 1.
        width: gamma > 0 of the ramp loss.
        empirical_loss: Mean ramp loss of the samples, in 0..1.
        delta: In (0, 1).
    """
    require(rho >= 0, "rho", "at least 0", rho)
    require(complexity >= 0, "complexity", "at least 0", complexity)
    require(samples >= 1, "samples", "at least 1", samples)
    require(width > 0, "width", "greater than 0", width)
    require(0 <= empirical_loss <= 1, "empirical_loss", "in 0..1", empirical_loss)
    require(0 < delta < 1, "delta", "in (0, 1)", delta)
    return empirical_loss + 2 / width * rho * complexity + 3 * sqrt(log(2 / delta) / (2 * samples))
