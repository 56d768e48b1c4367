"""Where a loss gap goes in the proof of Theorem 2.1, and what of a class it leaves open (Pan and Cao, eq. 10 to 27).

The proof goes down from the mean cross-entropy to its least value m(alpha, beta) by Jensen's inequality over the
samples of a class, over the other classes (gap epsilon_1,c), over the classes (epsilon_2), and by Cauchy's and
Schwarz' (epsilon_3). w_c are the classifier's rows less their mean, h_c the class means of the features, g = alpha beta
and x_c = -C/(C-1) w_c . h_c.

What is wrong in the text, and what these functions make of it:

- Eq. 18 takes log(a + e) >= log a + e/a, but the logarithm is concave: it is at least log a + e/(a + e). With a + e =
  exp(loss of class c at its mean), eq. 19 holds where that loss is at most log C. epsilon_1,c is printed with the
  opposite sign and without the factor C - 1, and is a sum over classes where Lemma C.3 has a mean.
- Eq. 27: the root has the wrong sign. It is 1 - (C-1)/(C g) (epsilon_3/delta + 2 sqrt(...)); as printed the bound
  exceeds 1 for epsilon_3 = 0. The line after it drops (C-1)/(C g), so that the theorem's bound of the NC3 cosine does
  not follow where g < (C-1)/C.
"""

from dataclasses import dataclass
from math import exp, sqrt

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ncflow.checks import require


@dataclass(frozen=True)
class JensenGaps:
    """The gaps of a classifier and class means, each >= 0, and 0 if they are simplices that point the same way.

    Attributes:
        num_classes: C.
        norm_product: g = alpha beta.
        other_classes: epsilon_1,c, (C,): sum over c' != c of e^z_c' less (C-1) e^(mean z), z_c' = (w_c' - w_c) . h_c.
        classes: epsilon_2: mean over c of log(1 + (C-1) e^x_c), less its value at the mean of x_c.
        norms: epsilon_3: (C g - sum_c w_c . h_c)/(C-1).
        class_losses: Cross-entropy of each class mean, (C,).
    """

    num_classes: int
    norm_product: float
    other_classes: NDArray[np.float64]
    classes: float
    norms: float
    class_losses: NDArray[np.float64]

    @property
    def loss_gap(self) -> float:
        """Least gap of the mean cross-entropy to m(alpha, beta) with these gaps (eq. 24, eq. 18 mended)."""
        wrong = (self.num_classes - 1) * exp(-self.num_classes / (self.num_classes - 1) * self.norm_product)
        within = float((self.other_classes * np.exp(-self.class_losses)).mean())
        return within + self.classes + wrong / (1 + wrong) * self.norms


def jensen_gaps(classifier: ArrayLike, class_means: ArrayLike, alpha: float) -> JensenGaps:
    """The gaps of a run's last layer, for classes of equal size.

    Args:
        classifier: W, (C, d), C >= 2; beta = |W|_F/sqrt(C).
        class_means: h_c, (C, d), not centred.
        alpha: sqrt(mean |h|^2) over all samples, > 0.
    """
    W, means = np.asarray(classifier, dtype=np.float64), np.asarray(class_means, dtype=np.float64)
    require(W.ndim == 2 and len(W) >= 2, "classifier", "a matrix (C, d), C >= 2", W.shape)
    require(means.shape == W.shape, "class_means", f"of shape {W.shape}", means.shape)
    require(alpha > 0, "alpha", "greater than 0", alpha)
    C, product = len(W), alpha * float(np.linalg.norm(W)) / sqrt(len(W))
    z = means @ W.T
    z = z - np.diag(z)[:, None]
    x = z.sum(1) / (C - 1)
    exponentials = np.exp(z).sum(1)
    classes = np.logaddexp(0, x + np.log(C - 1)).mean() - np.logaddexp(0, x.mean() + np.log(C - 1))
    norms = (C * product + (C - 1) * x.sum() / C) / (C - 1)
    others = exponentials - 1 - (C - 1) * np.exp(x)
    return JensenGaps(C, product, others, float(classes), float(norms), np.log(exponentials))


@dataclass(frozen=True)
class OwnClassBounds:
    """What holds of a class and its own row of the classifier; each line for more than a share 1 - delta of classes.

    Attributes:
        projection: Lower bound of w_c . h_c (eq. 25).
        norms: Upper bound of alpha_c |w_c|, alpha_c = sqrt(mean |h|^2) over the class (eq. 26).
        cosine: Lower bound of cos(w_c, h_c) where both hold, so for more than 1 - 2 delta (eq. 27, mended); -1 where
            ``projection`` is negative, as it does not follow there.
    """

    projection: float
    norms: float
    cosine: float


def own_class_bounds(
    num_classes: int,
    norm_product: float,
    classes_gap: float,
    norms_gap: float,
    *,
    strong_convexity: float,
    delta: float = 0.05,
) -> OwnClassBounds:
    """Eq. 25 to 27. With delta <= 1/C they hold for every class.

    Args:
        num_classes: C >= 2.
        norm_product: g = alpha beta > 0.
        classes_gap: epsilon_2 >= 0, or a bound of it, such as the loss gap.
        norms_gap: epsilon_3 >= 0, or a bound of it.
        strong_convexity: > 0, the least second derivative of log(1 + (C-1) e^x) between the x_c. The proof's range has
            exp(-kappa C g) with the kappa of :func:`ncflow.theory.bounds.proof_kappa`.
        delta: In (0, 1).

    Example:
        >>> own_class_bounds(4, 3.0, 0.0, 0.0, strong_convexity=0.1)
        OwnClassBounds(projection=3.0, norms=3.0, cosine=1.0)
    """
    require(num_classes >= 2, "num_classes", "at least 2", num_classes)
    require(norm_product > 0, "norm_product", "greater than 0", norm_product)
    require(classes_gap >= 0, "classes_gap", "at least 0", classes_gap)
    require(norms_gap >= 0, "norms_gap", "at least 0", norms_gap)
    require(strong_convexity > 0, "strong_convexity", "greater than 0", strong_convexity)
    require(0 < delta < 1, "delta", "in (0, 1)", delta)
    factor = (num_classes - 1) / num_classes
    root = sqrt(2 * classes_gap * (1 - delta) / (delta * strong_convexity))
    projection = norm_product - factor * (norms_gap + root)
    norms = norm_product + factor * ((1 - delta) / delta * norms_gap + root)
    cosine = 1 - factor / norm_product * (norms_gap / delta + 2 * root)
    return OwnClassBounds(projection, norms, max(cosine, -1.0) if projection >= 0 else -1.0)
