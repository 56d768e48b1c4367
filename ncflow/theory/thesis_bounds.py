"""Theorem 2.3.1 of Pan's thesis: Theorem 2.1 of Pan and Cao with the rate e^(O(alpha beta))/(alpha beta).

What is wrong or open in the text, and what these functions make of it:

- The theorem hides its constants; here they are those of its proof (the end of section 2.4). Where Pan and Cao have
  e^(O(C alpha beta)), the thesis has e^(O(alpha beta)) and calls it "about e^(C/(C-1) alpha beta)". That is 1/f'' of
  f(x) = log(1 + (C-1) e^x) where all classes lie if the loss is least, x = -C/(C-1) alpha beta, but for a factor
  (C-1)/(1 + (C-1) e^x)^2. The proof needs the least f'' over all x that the classes may have, for which it says
  |x| <= C alpha beta, and there it is e^(-O(C alpha beta)): the thesis counts C as a constant. It also takes
  |mean of class c| <= alpha; only the root mean square over all classes is, one class may have up to sqrt(C) alpha.
  Take the bounds with e^(C/(C-1) alpha beta) as the thesis' claim.
- As in the paper, the proof bounds |u_c| and calls it intra_c, which is |u_c|^2.
- The last step, cos(a - b) <= cos a + sqrt(1 - 2 cos b), should be cos a + sqrt(2 (1 - cos b)); its constant, of which
  the thesis says nothing, is taken from that.
"""

from math import e, exp, sqrt

from ncflow.checks import require
from ncflow.theory.bounds import ProximityBounds, check_gap, exp_or_inf, proximity_bounds, root, times
from ncflow.theory.simplex import inter_limit


def thesis_bounds(
    num_classes: int, alpha: float, beta: float, epsilon: float, *, delta: float = 0.05, kappa: float | None = None
) -> ProximityBounds:
    """Theorem 2.3.1: collapse from bounded norms and a loss within epsilon of m(alpha, beta).

    |u_c| >= 1 - 8 r and inter <= -1/(C-1) + C/(C-1) r + 4 (2 r)^(1/3) + sqrt(2 r), where r = E/(alpha beta)
    sqrt(2 epsilon/delta) and E = exp(kappa alpha beta); of the proof only is cos(w_c, mu_c) >= 1 - 2 sqrt(2 epsilon
    (1-delta) E/delta).

    Args:
        num_classes: C >= 3.
        alpha: Bound of sqrt(mean |h|^2), > 0.
        beta: Bound of |W|_F/sqrt(C), > 0.
        epsilon: Gap of the mean cross-entropy to its least value, >= 0; the theorem assumes epsilon << delta.
        delta: Share of classes and pairs that may violate the bounds, in (0, 1).
        kappa: The constant of the theorem's O(alpha beta), > 0; None takes C/(C-1), the thesis' "about".

    Returns:
        With ``intra`` the square of the printed bound ``intra_printed``.
    """
    require(num_classes >= 3, "num_classes", "at least 3", num_classes)
    require(alpha > 0, "alpha", "greater than 0", alpha)
    require(beta > 0, "beta", "greater than 0", beta)
    C, product = num_classes, alpha * beta
    rate = C / (C - 1) if kappa is None else kappa
    check_gap(epsilon, delta, rate)
    growth = exp_or_inf(rate * product)
    r = times(growth / product, sqrt(2 * epsilon / delta))
    inter = inter_limit(C) + C / (C - 1) * r + 4 * (2 * r) ** (1 / 3) + sqrt(2 * r)
    return proximity_bounds(8 * r, root(2 * epsilon * (1 - delta) / delta, growth), inter)


def thesis_rate(num_classes: int, norm_product: float) -> float:
    """e^(C g/(C-1))/g, by which the thesis' bounds grow with g = alpha beta at the same loss gap (section 2.3).

    It falls up to g = (C-1)/C and rises beyond.

    Args:
        num_classes: C >= 2.
        norm_product: g > 0.
    """
    require(num_classes >= 2, "num_classes", "at least 2", num_classes)
    require(norm_product > 0, "norm_product", "greater than 0", norm_product)
    return exp(num_classes / (num_classes - 1) * norm_product) / norm_product


def largest_decay_with_rising_rate(num_classes: int) -> float:
    """The lambda = sqrt(C)/(C - 1 + e) up to which the regularised optimum lies where :func:`thesis_rate` rises.

    There g* of :func:`ncflow.theory.layer_peeled.optimal_norm_product` is (C-1)/C. The thesis says that "in practice"
    alpha beta is always beyond, so that more weight decay makes the bound better; with 1000 classes that ends at
    lambda = 0.032, with 4 at 0.35.

    Args:
        num_classes: C >= 2.
    """
    require(num_classes >= 2, "num_classes", "at least 2", num_classes)
    return sqrt(num_classes) / (num_classes - 1 + e)
