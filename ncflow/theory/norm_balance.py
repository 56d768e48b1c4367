"""The square loss from the norm of the last layer and its speed, on a run (CBMM Memo 117, Lemma 9, eq. 14 and 41).

Eq. 14, loss = 1 - rho (mu + rho'/2), holds for the toy model, where all layers but the last have norm 1. It needs
neither one output nor unit layers below: for any network that ends in f = W h, without a bias, under gradient flow on
the mean of |y_n - f_n|^2 with the penalty lambda |W|^2, and rho = |W|_F,

    mean |y_n - f_n|^2 + lambda rho^2 = mean |y_n|^2 - mean <y_n, f_n> - rho rho'/2,

as <W, -dL/dW> = rho rho'. With one output and y = +-1, mean |y|^2 = 1 and mean <y, f> = rho mu is the mean margin: eq.
14. With two outputs and targets +-1 they are 2 and the mean margin f_y - f_other; with one-hot targets 1 and the mean
of f_y. So both sides come from what a run measures: loss, margin and |W|_F over time.

On a run three things stand in between. Steps of finite length: on two digits without BN, in full batches, the sides
agree within 1 % of the loss once the first oscillations are over. Mini-batches: W moves by the gradients of batches,
and the sides scatter about each other. BN: measures are taken with its running averages, which lag behind weights that
decay; outputs that are 4 % too small are several times a loss of 0.01.

Lemma 9 asks for rho sum bar f_n < 1, which its proof does not use. The product of all layers' norms does not obey
eq. 14 on a run: there every layer has weight decay, and what lies before BN only decays.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ncflow.checks import require

Array = NDArray[np.float64]


@dataclass(frozen=True)
class NormBalance:
    """Both sides of eq. 14 over T points of time, and the norm's speed.

    Attributes:
        loss: mean |y - f|^2 + lambda rho^2, as measured, (T,).
        from_norm: mean |y|^2 - mean <y, f> - rho rho'/2, (T,).
        speed: rho', by differences of second order, (T,).
    """

    loss: Array
    from_norm: Array
    speed: Array


def norm_balance(
    time: ArrayLike,
    norm: ArrayLike,
    square_error: ArrayLike,
    agreement: ArrayLike,
    weight_decay: float,
    target_square: float = 1.0,
) -> NormBalance:
    """Eq. 14 on a run: the sides agree under gradient flow, and differ by the error of discrete steps otherwise.

    Args:
        time: Of gradient flow, increasing, (T,), T >= 3, see :func:`flow_time`. Points must be so near that the norm's
            speed can be told from differences.
        norm: rho = |W|_F, (T,).
        square_error: mean |y - f|^2, summed over the outputs, (T,).
        agreement: mean <y, f>, (T,): the mean margin for targets +-1 and one or two outputs, the mean output of the
            label for one-hot targets.
        weight_decay: lambda >= 0 of the penalty lambda |W|^2: half of an optimiser's weight decay.
        target_square: mean |y|^2: 1 for one-hot targets or one output, C for targets +-1 and C outputs.
    """
    columns = [np.asarray(values, dtype=np.float64) for values in (time, norm, square_error, agreement)]
    t, rho, error, product = columns
    require(t.ndim == 1 and len(t) >= 3 and bool((np.diff(t) > 0).all()), "time", "increasing, of 3 or more", t.shape)
    for name, values in (("norm", rho), ("square_error", error), ("agreement", product)):
        require(values.shape == t.shape, name, f"of shape {t.shape}", values.shape)
    require(weight_decay >= 0, "weight_decay", "at least 0", weight_decay)
    speed = np.gradient(rho, t, edge_order=2)
    return NormBalance(error + weight_decay * rho**2, target_square - product - rho * speed / 2, speed)


def flow_time(steps: ArrayLike, learning_rate: float, momentum: float = 0.0) -> Array:
    """The time of gradient flow after so many steps of SGD at a constant rate: steps times rate/(1 - momentum).

    To first order in the rate, once momentum has built up, which takes 1/(1 - momentum) steps.

    Args:
        steps: Numbers of optimiser steps.
        learning_rate: > 0.
        momentum: In 0..1, without damping; below 1.
    """
    require(learning_rate > 0, "learning_rate", "greater than 0", learning_rate)
    require(0 <= momentum < 1, "momentum", "at least 0 and below 1", momentum)
    return np.asarray(steps, dtype=np.float64) * learning_rate / (1 - momentum)
