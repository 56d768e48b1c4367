"""From the mean of vectors to the mean of their directions (Pan and Cao, Lemmas C.6 and C.8, Corollary C.2).

The cosine measures are of mean directions, (1/N) sum v_i/|v_i|, whose squared length is intra_c (Lemma C.5). A loss
near its least value says something of the means (1/N) sum v_i. These lemmas lead from one to the other.

What is wrong in the text, and what these functions make of it:

- Lemma C.8 states -c/(alpha beta) + ... where c < 0, a positive number that says nothing; what it proves, and what
  is used, is +c/(alpha beta) + ... .
- Its proof supposes that epsilon is much below its own root, and puts bounds of Chebyshev's inequality about alpha
  where they hold about the mean norm. The bound is right all the same, for every epsilon: with e = epsilon/(alpha beta)
  Cauchy and Schwarz give w . (mean direction) <= c/alpha + beta sqrt(2 e) in one line, and by Lemma C.6 the mean
  direction is at least 1 - 4 e + 2 e^2 long. That is the better rate: with it the bounds of inter in Theorems 2.1 and
  2.2 would fall as epsilon^(1/4) rather than epsilon^(1/6).
- Corollary C.2 lacks the sum in "1/N |v_i|^2 <= alpha^2". The condition c >= alpha/sqrt(2) is not needed: below it the
  bound is negative.
- The thesis' Lemma 2.4.5 is Lemma C.6 for a u of any length, with c divided by it. Its proof leans on a false
  proposition (sum a = A and sum b^2 <= B give sum a/b >= A sqrt(N/B)): a = (1, 0), b = (1, 0.01).
"""

from ncflow.checks import require


def mean_direction_bound(projection: float, alpha: float) -> float:
    """Lemma C.6: the mean direction of vectors is at least 2 (c/alpha)^2 - 1 long.

    Its component along the unit vector u of ``projection`` is; Corollary C.2 takes the mean's own direction. There is
    no better bound: a share (c/alpha)^2 of equal vectors along u, and tiny ones against it, come as near as one likes.

    Args:
        projection: c in 0..alpha, a lower bound of (1/N) sum <u, v_i> for a unit vector u, such as the length of the
            mean.
        alpha: Bound of sqrt(mean |v|^2), > 0.

    Example:
        >>> mean_direction_bound(3.0, 3.0), mean_direction_bound(1.5, 3.0)
        (1.0, -0.5)
    """
    require(alpha > 0, "alpha", "greater than 0", alpha)
    require(0 <= projection <= alpha * (1 + 1e-9), "projection", f"in 0..alpha = {alpha:g}", projection)  # rounding
    return 2 * min(projection / alpha, 1.0) ** 2 - 1


def mean_direction_cosine_bound(projection: float, alpha: float, beta: float, epsilon: float) -> float:
    """Lemma C.8: cos(w, mean direction) <= c/(alpha beta) + 4 (epsilon/(alpha beta))^(1/3), its sign mended.

    Args:
        projection: c <= 0, the inner product of w and the mean of the vectors.
        alpha: Bound of sqrt(mean |h|^2), > 0; the mean is at least alpha - epsilon/beta long.
        beta: Bound of |w|, > 0.
        epsilon: >= 0.
    """
    require(projection <= 0, "projection", "at most 0", projection)
    require(alpha > 0, "alpha", "greater than 0", alpha)
    require(beta > 0, "beta", "greater than 0", beta)
    require(epsilon >= 0, "epsilon", "at least 0", epsilon)
    return projection / (alpha * beta) + 4 * (epsilon / (alpha * beta)) ** (1 / 3)
