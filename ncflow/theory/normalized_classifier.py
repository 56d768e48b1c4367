"""Collapse under the square loss with a normalised last layer (CBMM Memo 117, appendix J.1: Theorem 11, eq. 74 to 79).

f = rho V h (+ b), |V|_F = 1, with the loss 1/2 sum_n |y_n - f_n|^2 + lambda/2 rho^2: a sum over N samples of each of C
classes with one-hot y, as in :mod:`ncflow.theory.quasi_interpolation`, whose |W|_F is rho here.

What is wrong in the text, and what these functions make of it:

- Eq. 76: the denominator is 1 - C e/(C-1), as eq. 78 has it, not 1 - e/(C-1).
- As with Theorem 3, Assumption 2 and a last layer without bias contradict each other: by eq. 76 the V_c sum to 0 and so
  do the outputs, which Assumption 2 makes 1. Eq. 78, <V_c, mu_G> = 1/(rho C), has the same fault: summed over c it is
  0 = 1/rho. With a bias without weight decay (1/C at the optimum) eq. 74 to 77 and 79 hold, and eq. 78 is about the
  bias: <V_c, mu_G> = 0 for features about 0.
- |V_c|^2 = 1/C (eq. 77) and the cosines -1/(C-1) (eq. 79) are right.
- What the text leaves out is that rho is at rest too, which ties e to rho and lambda: :func:`interpolation_gap`.
- The flow of eq. 74 has the factor rho of V_L' = rho S W_L'; section H.1 has 1/rho. The critical points are the same.
"""

from math import sqrt

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ncflow.checks import require

Array = NDArray[np.float64]


def classifier_velocity(
    directions: ArrayLike, rho: float, features: ArrayLike, targets: ArrayLike, bias: ArrayLike = 0.0
) -> Array:
    """V' of eq. 74: rho (G - <V, G> V), G = sum_n (y_n - f_n) h_n^T; 0 at a critical point, where eq. 75 holds.

    Args:
        directions: V, (C, d), of Frobenius norm 1.
        rho: Norm of the classifier, > 0.
        features: h_n, (n, d).
        targets: y_n, (n, C).
        bias: b, (C,), or 0 as in the text.

    Returns:
        (C, d).
    """
    V, H = np.asarray(directions, dtype=np.float64), np.asarray(features, dtype=np.float64)
    norm = float(np.linalg.norm(V))
    require(abs(norm - 1) < 1e-6, "directions", "of Frobenius norm 1", norm)
    require(rho > 0, "rho", "greater than 0", rho)
    gradient = (np.asarray(targets) - rho * H @ V.T - np.asarray(bias)).T @ H
    return rho * (gradient - np.vdot(V, gradient) * V)


def normalized_classifier(class_means: ArrayLike, epsilon: float, rho: float) -> Array:
    """V_c = rho/((C-1) (1 - C e/(C-1))) (mu_c - mu_G), (C, d) (eq. 76, its denominator mended).

    Of outputs 1 - e and e/(C-1) in a network with a bias; then |V_c|^2 = 1/C and |V|_F = 1.

    Args:
        class_means: mu_c, (C, d), C >= 2.
        epsilon: e, below (C-1)/C, where all outputs are 1/C.
        rho: Norm of the classifier, > 0.
    """
    means = np.asarray(class_means, dtype=np.float64)
    require(means.ndim == 2 and len(means) >= 2, "class_means", "a matrix (C, d), C >= 2", means.shape)
    C = len(means)
    require(epsilon < (C - 1) / C, "epsilon", f"below (C-1)/C = {(C - 1) / C:g}", epsilon)
    require(rho > 0, "rho", "greater than 0", rho)
    return rho / (C - 1 - C * epsilon) * (means - means.mean(0))


def interpolation_gap(num_classes: int, samples_per_class: int, rho: float, weight_decay: float) -> float:
    """The e of outputs 1 - e and e/(C-1) at which rho is at rest: C N e (1 - C e/(C-1)) = lambda rho^2.

    e = (C-1)/(2 C) (1 - sqrt(1 - 4 lambda rho^2/((C-1) N))), of two solutions the one nearer to interpolation. It is
    eq. 34 summed over the classes.

    Args:
        num_classes: C >= 2.
        samples_per_class: N >= 1.
        rho: >= 0.
        weight_decay: lambda >= 0 of the text's loss (:func:`ncflow.theory.quasi_interpolation.summed_decay`), at most
            (C-1) N/(4 rho^2): beyond, rho cannot rest.
    """
    require(num_classes >= 2, "num_classes", "at least 2", num_classes)
    require(samples_per_class >= 1, "samples_per_class", "at least 1", samples_per_class)
    require(rho >= 0, "rho", "at least 0", rho)
    pull = 4 * weight_decay * rho**2 / ((num_classes - 1) * samples_per_class)
    require(0 <= pull <= 1, "weight_decay", "in 0..(C-1) N/(4 rho^2)", weight_decay)
    # (1 - sqrt(1 - p)) without cancellation
    return (num_classes - 1) / (2 * num_classes) * pull / (1 + sqrt(1 - pull))
