"""Collapse under the square loss with weight decay: symmetric quasi-interpolation (CBMM Memo 117, section 6).

The text's loss is a sum, L = 1/2 sum_n sum_c (y_nc - f_nc)^2 + lambda/2 |W|^2, over N samples of each of C classes
with one-hot y. All functions here take its lambda; :func:`summed_decay` makes it from the weight decay of a mean loss.

What is wrong in the text, and what these functions make of it:

- Assumption 1 (outputs 1 - e, and e/(C-1) for the other classes) contradicts the network of Theorem 3, whose last
  layer has no bias. The outputs of a sample then sum to 1, and so do the targets: stationarity of W, summed over the
  classes, gives lambda sum_c W_c = 0, so that the outputs sum to 0. No critical point has both. All is well with a
  bias without weight decay: its stationarity is the very condition that the other outputs are e/(C-1). Eq. 33, 34 and
  36 are right there, the bias is 1/C, and mu_G . W_c = 0 for centred features: the 1/C of eq. 35 is the bias.
- Without a bias the optimum of free features has outputs 1 - e and 0, W_c = (N e/lambda) mu_c and |W_c|^2 =
  (N/lambda) e (1 - e): means and classifier are orthogonal, an ETF only after centring. (C = 4, N = 5, lambda = 0.3,
  lambda_H = 0.02: |W_c|^2 = 0.55735, eq. 34 gives 0.55068, and eq. 33 is off by 0.36.)
- Eq. 35 and 36 cite 76 and 77 where 33 and 34 are meant. Eq. 36 lacks a tilde: it is the cosine. Eq. 76: the
  denominator is 1 - C e/(C-1), as eq. 78 has it, not 1 - e/(C-1).
"""

from dataclasses import dataclass
from math import sqrt
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ncflow.checks import require

Loss = Literal["mean", "half_mean", "mse"]
Array = NDArray[np.float64]


@dataclass(frozen=True)
class QuasiInterpolation:
    """An optimum at which every sample has the same outputs but for the order of the classes.

    Attributes:
        epsilon: e, the output of the sample's own class is 1 - e.
        other_output: Output for each other class: e/(C-1) with a bias, 0 without.
        weight_norm_squared: |W_c|^2 of each class.
        feature_norm_squared: |mu_c|^2, of the centred mean where there is a bias (mu_G is then 0).
        loss: The text's summed loss with all penalties.
    """

    epsilon: float
    other_output: float
    weight_norm_squared: float
    feature_norm_squared: float
    loss: float


def summed_decay(weight_decay: float, samples_per_class: int, num_classes: int, loss: Loss = "mean") -> float:
    """The text's lambda, for which its loss has the critical points of a mean loss with an optimiser's weight decay.

    With the penalty wd/2 |W|^2 (torch's ``weight_decay``) lambda is N C wd/2 for ``mean``, mean_n sum_c (y - f)^2; N C
    wd for ``half_mean``, half of it; and N C^2 wd/2 for ``mse``, which divides by C too (``torch.nn.MSELoss``). The
    text's loss is lambda/wd times the mean one.

    Args:
        weight_decay: wd >= 0.
        samples_per_class: N >= 1.
        num_classes: C >= 2.
        loss: Which mean.
    """
    require(weight_decay >= 0, "weight_decay", "at least 0", weight_decay)
    _check(num_classes, samples_per_class)
    require(loss in get_args(Loss), "loss", f"one of {get_args(Loss)}", loss)
    factors = {"mean": 1 / 2, "half_mean": 1.0, "mse": num_classes / 2}
    return samples_per_class * num_classes * factors[loss] * weight_decay


def symmetric_outputs(num_classes: int, epsilon: float) -> Array:
    """Outputs (C, C) of Assumption 1, a row a class: 1 - e on the diagonal, e/(C-1) elsewhere.

    Args:
        num_classes: C >= 2.
        epsilon: e.
    """
    _check(num_classes)
    C = num_classes
    return (1 - epsilon) * np.eye(C) + epsilon / (C - 1) * (1 - np.eye(C))


def classifier_from_means(class_means: ArrayLike, epsilon: float, samples_per_class: int, weight_decay: float) -> Array:
    """W_c = C N e/(lambda (C-1)) (mu_c - mu_G), (C, d) (eq. 33; for a network with a bias, see the module's notes).

    Args:
        class_means: mu_c, (C, d).
        epsilon: e.
        samples_per_class: N >= 1.
        weight_decay: lambda > 0 of the text's loss.
    """
    means = np.asarray(class_means, dtype=np.float64)
    require(means.ndim == 2, "class_means", "a matrix (C, d)", means.shape)
    C = len(means)
    _check(C, samples_per_class, weight_decay)
    return C * samples_per_class * epsilon / (weight_decay * (C - 1)) * (means - means.mean(0))


def weight_norm_squared(num_classes: int, epsilon: float, samples_per_class: int, weight_decay: float) -> float:
    """|W_c|^2 = (N/lambda) (e - C/(C-1) e^2) = (N e/lambda) times the margin 1 - C/(C-1) e (eq. 34; with a bias).

    Args:
        num_classes: C >= 2.
        epsilon: e.
        samples_per_class: N >= 1.
        weight_decay: lambda > 0 of the text's loss.
    """
    _check(num_classes, samples_per_class, weight_decay)
    return samples_per_class / weight_decay * (epsilon - num_classes / (num_classes - 1) * epsilon**2)


def free_features(
    num_classes: int,
    samples_per_class: int,
    weight_decay: float,
    feature_decay: float | None = None,
    *,
    bias: bool = True,
) -> QuasiInterpolation:
    """Optimum of the unconstrained-features model, f = W H + b, a linear network of two layers on one-hot inputs.

    1/2 |Y - W H - b|^2 + lambda/2 |W|^2 + lambda_H/2 |H|^2 is least where the singular values sqrt(N) of Y (centred
    over classes, if there is a bias) are lowered by tau = sqrt(lambda lambda_H) (the penalty is tau times W H's
    nuclear norm): e = tau/sqrt(N) (C-1)/C with a bias, tau/sqrt(N) without. For tau >= sqrt(N), W = H = 0.

    Args:
        num_classes: C >= 2.
        samples_per_class: N >= 1.
        weight_decay: lambda > 0.
        feature_decay: lambda_H > 0; None takes lambda.
        bias: Whether there is a bias b, without weight decay.
    """
    _check(num_classes, samples_per_class, weight_decay)
    C, N, decay = num_classes, samples_per_class, weight_decay
    decay_H = decay if feature_decay is None else feature_decay
    require(decay_H > 0, "feature_decay", "greater than 0", decay_H)
    rank = C - 1 if bias else C
    kept = max(1 - sqrt(decay * decay_H / N), 0.0)
    nuclear = rank * sqrt(N) * kept
    loss = rank * N * (1 - kept) ** 2 / 2 + sqrt(decay * decay_H) * nuclear
    own = (1 - kept) * rank / C
    other = (1 - kept) / C if bias else 0.0
    return QuasiInterpolation(
        own, other, sqrt(decay_H / decay) * nuclear / C, sqrt(decay / decay_H) * nuclear / (C * N), loss
    )


def simplex_features(
    num_classes: int, samples_per_class: int, weight_decay: float, feature_norm: float
) -> QuasiInterpolation:
    """Optimum of the last layer with a bias for given features that are collapsed to a simplex about 0.

    Ridge regression keeps the share s/(s + lambda) of the centred targets, s = N C/(C-1) |mu|^2, so that
    e = (C-1)/C lambda/(s + lambda).

    Args:
        num_classes: C >= 2.
        samples_per_class: N >= 1.
        weight_decay: lambda > 0.
        feature_norm: |mu_c| > 0.
    """
    _check(num_classes, samples_per_class, weight_decay)
    require(feature_norm > 0, "feature_norm", "greater than 0", feature_norm)
    C, N = num_classes, samples_per_class
    lost = weight_decay / (N * C / (C - 1) * feature_norm**2 + weight_decay)
    epsilon = (C - 1) / C * lost
    squared = weight_norm_squared(C, epsilon, N, weight_decay)
    loss = N * (C - 1) * lost**2 / 2 + weight_decay / 2 * C * squared
    return QuasiInterpolation(epsilon, lost / C, squared, feature_norm**2, loss)


def ridge_classifier(
    features: ArrayLike, targets: ArrayLike, weight_decay: float, *, bias: bool = True
) -> tuple[Array, Array]:
    """W (C, d) and b (C,) that minimise 1/2 |Y - W H - b|^2 + lambda/2 |W|^2 for given features (eq. 32 at 0).

    Args:
        features: h_n, (n, d).
        targets: y_n, (n, C).
        weight_decay: lambda > 0.
        bias: Whether there is a bias, without weight decay; otherwise b = 0.
    """
    H, Y = np.asarray(features, dtype=np.float64), np.asarray(targets, dtype=np.float64)
    require(H.ndim == 2, "features", "a matrix (n, d)", H.shape)
    require(Y.ndim == 2 and len(Y) == len(H), "targets", f"a matrix (n, C) with n = {len(H)}", Y.shape)
    require(weight_decay > 0, "weight_decay", "greater than 0", weight_decay)
    h, y = (H.mean(0), Y.mean(0)) if bias else (np.zeros(H.shape[1]), np.zeros(Y.shape[1]))
    gram = (H - h).T @ (H - h) + weight_decay * np.eye(H.shape[1])
    W = np.linalg.solve(gram, (H - h).T @ (Y - y)).T
    return W, y - W @ h


def _check(num_classes: int, samples_per_class: int = 1, weight_decay: float = 1.0) -> None:
    require(num_classes >= 2, "num_classes", "at least 2", num_classes)
    require(samples_per_class >= 1, "samples_per_class", "at least 1", samples_per_class)
    require(weight_decay > 0, "weight_decay", "greater than 0", weight_decay)
