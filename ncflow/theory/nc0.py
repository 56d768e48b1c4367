"""NC0, the norm of the sum of the classifier's rows |1^T W|: what is known of it before training.

The gradient of softmax cross-entropy in the logits sums to 0 over classes, for each sample and whatever the features
do, and so does that of W: 1^T dL/dW = 0. SGD is linear in gradients, so a = 1^T W (d) goes its own way, of which
neither data nor network know anything: from the schedule, decay and momentum alone it is a(t) = c(t) a(0), with one
number c(t) for all of its entries (Zhao et al. 2026 study |a|, their NC0; the recurrence is ours).

It holds for every loss that stays the same if one number is added to all logits: with label smoothing and class weights
too, and for losses of differences of logits, as the exponential one. It does not for the square loss, whose gradient
sums to the sum of the residuals, nor for a normalised W = g V/|V|, where the gradient of V is projected. Adaptive steps
and signs are not linear: under SignSGD, 1^T sign(G) does not vanish with G, and with decoupled decay |a| settles near
|1^T sign(G)|/lambda, whatever the learning rate.
"""

from collections.abc import Sequence

import numpy as np

from ncflow.checks import require


def sum_of_rows(
    rates: Sequence[float],
    steps: int,
    *,
    decay: float,
    coupling: float = 1.0,
    momentum: float = 0.0,
    dampening: float = 0.0,
    nesterov: bool = False,
) -> list[float]:
    """c, the sum of W's rows as a multiple of what it is before training, under SGD as PyTorch has it.

    With s the coupled share of lambda, g = s lambda a is all that the gradient and decay add up to. A step is
    v <- mu v + (1 - dampening) g (v = g at first) and a <- (1 - eta lambda (1 - s)) a - eta v, with Nesterov's momentum
    - eta (g + mu v).

    >>> [round(c, 8) for c in sum_of_rows([0.5, 0.1], 2, decay=0.1)]
    [1.0, 0.9025, 0.88454025]

    Args:
        rates: The learning rate eta of each epoch.
        steps: Optimiser steps an epoch, >= 1.
        decay: lambda >= 0 of W.
        coupling: s in [0, 1].
        momentum: mu >= 0.
        dampening: Of the momentum.
        nesterov: Whether the momentum is Nesterov's.

    Returns:
        Before training and after each epoch.
    """
    require(steps >= 1, "steps", "at least 1", steps)
    require(decay >= 0, "decay", "at least 0", decay)
    require(0 <= coupling <= 1, "coupling", "in [0, 1]", coupling)
    g = coupling * decay

    def step(eta: float, is_first: bool) -> np.ndarray:
        """From (a, v) to (a, v)."""
        velocity = np.array([g, 0.0]) if is_first else np.array([(1 - dampening) * g, momentum])
        move = velocity if momentum else np.array([g, 0.0])
        if nesterov:
            move = np.array([g, 0.0]) + momentum * velocity
        return np.array([[1 - eta * decay * (1 - coupling), 0.0] - eta * move, velocity])

    state, found = np.array([1.0, 0.0]), [1.0]
    for epoch, eta in enumerate(rates):
        if epoch == 0:
            state = step(eta, is_first=True) @ state
        state = np.linalg.matrix_power(step(eta, is_first=False), steps - (epoch == 0)) @ state
        found.append(float(state[0]))
    return found
