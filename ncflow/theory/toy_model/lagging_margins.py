"""Margins at equilibrium if weight decay keeps some points from the targets (CBMM Memo 117, Lemma 2, eq. 42 and 43).

Of N points M cannot have a larger margin bar f_n than 1/rho_0, that of the interpolating network of least norm. With
weight decay rho falls below rho_0 and the outputs rho bar f_n of these M points fall short of 1; the others' margins
grow to 1/rho, so that they interpolate still. M = N is the network whose margins all stay 1/rho_0.

Means over samples, as in :mod:`ncflow.theory.toy_model.fields`: the text's lambda/M is lambda N/M here.

What is wrong in the text, and what these functions make of it:

- Lemma 2 gives the gap to interpolation as 1 - rho_0/rho_lambda = lambda rho_0. It is 1 - rho_lambda/rho_0 =
  x/(1 + x), x = lambda rho_0^2 N/M: a power of rho_0 is missing (rho_0 = 10, lambda = 1e-3, M = N: 0.0909, not 0.01).
  Section 6 goes on with it as the e of neural collapse.
- lambda rho_0/M, for which the text has one name with the gap, is right as a difference of margins bar f_n; that of
  the outputs is the gap.
- Eq. 42 and 43 are right, and the loss is the lower the fewer points lag, as the text says.
"""

from dataclasses import dataclass

from ncflow.checks import require


@dataclass(frozen=True)
class LaggingMargins:
    """The equilibrium with M of N points at the margin 1/rho_0 and the others interpolating.

    Attributes:
        rho: Norm, rho_0/(1 + x), x = lambda rho_0^2 N/M.
        gap: 1 - rho/rho_0 = x/(1 + x), by which the outputs of the M points miss 1.
        difference: lambda rho_0 N/M, by which the margins of the others exceed 1/rho_0.
        loss: Mean square error with the penalty, lambda rho_0^2/(1 + x) (eq. 42 for M = N, 43).
    """

    rho: float
    gap: float
    difference: float
    loss: float


def lagging_margins(weight_decay: float, rho_0: float, share: float = 1.0) -> LaggingMargins:
    """The equilibrium of Lemma 2.

    Args:
        weight_decay: lambda >= 0 of the penalty lambda rho^2.
        rho_0: Least norm that interpolates, > 0.
        share: M/N in (0, 1], of the points whose margins stay at 1/rho_0.

    Example:
        >>> lagging_margins(0.25, 2.0).rho, lagging_margins(0.25, 2.0, share=0.5).rho
        (1.0, 0.6666666666666666)
    """
    require(weight_decay >= 0, "weight_decay", "at least 0", weight_decay)
    require(rho_0 > 0, "rho_0", "greater than 0", rho_0)
    require(0 < share <= 1, "share", "in (0, 1]", share)
    x = weight_decay * rho_0**2 / share
    return LaggingMargins(rho_0 / (1 + x), x / (1 + x), weight_decay * rho_0 / share, weight_decay * rho_0**2 / (1 + x))
