"""Decay on the norm of every layer beside unit layers (CBMM Memo 117, appendix H.3, eq. 55 to 65).

The network rho f_V, rho = prod rho_k, with Lagrange multipliers for all layers and a penalty lambda sum_k rho_k^2.
The text's second form (eq. 66 to 73) is the kind ``last_free`` of :func:`ncflow.theory.toy_model.flow.gradient_flow`.

Means over samples, as in :mod:`ncflow.theory.toy_model.fields`.

What is wrong in the text, and what these functions make of it:

- Eq. 56 and 58 to 62 follow from the constraint rho_k^2 |V_k|^2 = 1, which the text names, not from the term
  nu_k rho_k^2 (|V_k|^2 - 1) of eq. 55, whose derivative by rho_k vanishes on the sphere. The multiplier is then chosen
  to keep |V_k|; one multiplier cannot keep rho_k |V_k| as well.
- Eq. 62, rho_k' = -2 lambda rho_k for k < L, has the solution rho_k(0) e^(-2 lambda t). The printed one,
  1 - (1 - rho_k(0)) e^(-2 lambda t), is of rho_k' = 2 lambda (1 - rho_k). So all norms but the last fall to 0 with
  lambda > 0, and rho after them: there is no other equilibrium.
- "An equivalent alternative" (eq. 66 to 71) is not equivalent: there the layers keep their norm, as the multiplier
  takes the decay up entirely, and rho has the equilibrium of eq. 11.
- Under a real BN layer eq. 62 is right: what lies before does not see the scale of W_k, the gradient is orthogonal to
  it, and |W_k| decays until the step size matters. rho is then |W_L| alone, as the output does not depend on |W_k|.
"""

import numpy as np
from numpy.typing import ArrayLike

from ncflow.checks import require
from ncflow.theory.toy_model.network import Array, Matrices, ToyData, forward, pullback


def decaying_norms_field(state: Matrices, data: ToyData, bend: float | None, weight_decay: float) -> Matrices:
    """(rho_1', ..., rho_L') and V_k' of eq. 62 to 65.

    rho_k' = -2 lambda rho_k for k < L, rho_L' = 2 rho/rho_L mean((1 - rho bar f) bar f) - 2 lambda rho_L, and V_k' = 2
    rho mean((1 - rho bar f) (d bar f/dV_k - V_k bar f/|V_k|^2)) for every k.

    Args:
        state: The norms rho_k (L,), then V_k.
        data: Samples.
        bend: As in :class:`ncflow.theory.toy_model.network.ToyNetwork`.
        weight_decay: lambda >= 0 of the penalty lambda sum_k rho_k^2.
    """
    norms, layers = state[0], state[1:]
    rho = float(norms.prod())
    outputs, activations = forward(layers, data.inputs, bend)
    margins = data.labels * outputs
    residuals = 1 - rho * margins
    drifts = -2 * weight_decay * norms
    drifts[-1] += 2 * float(norms[:-1].prod()) * float((residuals * margins).mean())
    gradients = pullback(layers, activations, residuals * data.labels / len(outputs), bend)
    turns = (2 * rho * (g - V * (np.vdot(V, g) / np.vdot(V, V))) for g, V in zip(gradients, layers, strict=True))
    return drifts, *turns


def decaying_norms(times: ArrayLike, norms: ArrayLike, weight_decay: float) -> Array:
    """rho_k(t) = rho_k(0) e^(-2 lambda t) of the normalised layers k < L (eq. 62, its solution mended), (T, L - 1).

    Args:
        times: t >= 0, (T,).
        norms: rho_k(0), (L - 1,).
        weight_decay: lambda >= 0.
    """
    require(weight_decay >= 0, "weight_decay", "at least 0", weight_decay)
    t, start = np.asarray(times, dtype=np.float64), np.asarray(norms, dtype=np.float64)
    return np.exp(-2 * weight_decay * t)[:, None] * start
