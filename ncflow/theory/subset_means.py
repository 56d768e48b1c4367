"""Means over subsets of numbers for which Jensen's inequality is nearly tight (Pan and Cao, Lemmas 2.1 and C.3).

The thesis has the same two as its Lemmas 2.4.1 and 2.4.3.
"""

from math import exp, sqrt

from ncflow.checks import require


def subset_mean_bounds(mean: float, epsilon: float, strong_convexity: float, share: float) -> tuple[float, float]:
    """Lemma 2.1: where Jensen's inequality is tight to epsilon, the mean of each subset is near the whole mean.

    If mean f(x_i) <= f(mean x_i) + epsilon for an m-strongly convex f, then the mean over any share delta of the x_i
    is within sqrt(2 epsilon (1-delta)/(m delta)) of the mean over all.

    Args:
        mean: Mean over all x_i.
        epsilon: Jensen's gap, >= 0.
        strong_convexity: m > 0, a lower bound of f''.
        share: delta, size of the subset over the size of the whole, in (0, 1].

    Returns:
        Lower and upper bound of the subset's mean.
    """
    _check(epsilon, share)
    require(strong_convexity > 0, "strong_convexity", "greater than 0", strong_convexity)
    reach = sqrt(2 * epsilon * (1 - share) / (strong_convexity * share))
    return mean - reach, mean + reach


def subset_mean_bound_of_exponentials(mean: float, epsilon: float, share: float) -> float:
    """Lemma C.3: for f = exp an upper bound, mean + sqrt(2 epsilon/(delta e^mean)), that needs no range of the x_i.

    If mean exp(x_i) <= exp(mean x_i) + epsilon, then the mean over any share delta of the x_i is at most that. There is
    no such lower bound: an x_i far below the others hardly changes the gap.

    Args:
        mean: Mean over all x_i.
        epsilon: Jensen's gap, >= 0.
        share: delta, size of the subset over the size of the whole, in (0, 1].

    Example:
        >>> subset_mean_bound_of_exponentials(0.0, 0.02, 0.25)
        0.4
    """
    _check(epsilon, share)
    return mean + sqrt(2 * epsilon / share) * exp(-mean / 2)


def _check(epsilon: float, share: float) -> None:
    require(epsilon >= 0, "epsilon", "at least 0", epsilon)
    require(0 < share <= 1, "share", "in (0, 1]", share)
