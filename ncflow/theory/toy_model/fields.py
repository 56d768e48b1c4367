"""The velocities of gradient flow on the square loss, labels +-1 (CBMM Memo 117, sections 3 and 5, appendices G, H).

Losses are means over the N samples, as in eq. 1, 3 and 6. Section 5 and the appendices D, F, G and H sum instead. The
sum with the penalty lambda_sum is N times the mean with lambda = lambda_sum/N, and its flow is the same one in a time
that runs N times as fast; Lemma 2 has lambda/N for this reason. f_n = f_V(x_n) is the output of the network with unit
layers, bar f_n = y_n f_n the margin, mu its mean and M the mean of its square.

What is wrong in the text, and what these functions make of it:

- Eq. 5: the last bracket is 1 - rho bar f_n, not 1 - rho f_n. It holds on |V_k| = 1 only: with eq. 7 as printed d =
  |V_k|^2 - 1 obeys d' = -4 rho (mu - rho M) d, so that d(t) = d(0) exp(rho(0)^2 - rho(t)^2 - 4 lambda int rho^2). From
  a large rho(0) rounding alone leaves the sphere. Here the multiplier is divided by |V_k|^2, as in eq. 60 and 61:
  the same flow on the sphere, and V_k . V_k' = 0 everywhere.
- Eq. 9 should read V_k' = 2 rho dmu/dV_k - rho^2 dM/dV_k - 2 V_k rho mu + 2 V_k rho^2 M, and eq. 10 follows from it.
- Eq. 12 has a factor 1/N too many. Eq. 16, 18, 24 and 25 have the sign of eq. 7 (and 63, 70, 72) reversed, and climb.
  So do eq. 48 and 49; what eq. 49 calls |W_k'|^2 is half of d|W_k|^2/dt.
- Eq. 50: with the penalty lambda sum_k |W_k|^2 it is d|W_k|^2/dt = (4/N) sum_n (1 - rho bar f_n) rho bar f_n
  - 4 lambda |W_k|^2. Differences of the |W_k|^2 decay as exp(-4 lambda t), so equal norms do stay equal.
- "The equilibria with and without normalization are the same" (section 3.5.2) for lambda = 0 as a set: which of them is
  reached differs. With the penalties of eq. 1 and eq. 48 they are the same at different lambda, see
  :func:`ncflow.theory.toy_model.norm.equivalent_decay`.
"""

from collections.abc import Callable

import numpy as np

from ncflow.theory.toy_model.network import Matrices, ToyData, forward, pullback

Field = Callable[[Matrices, ToyData, float | None, float], Matrices]


def normalized_field(state: Matrices, data: ToyData, bend: float | None, weight_decay: float) -> Matrices:
    """(rho', V_k') of eq. 6 and 7, minus the gradient of (1/N) sum (1 - rho bar f_n)^2 + lambda rho^2 on the spheres.

    rho' = 2 mean((1 - rho bar f) bar f) - 2 lambda rho and V_k' = 2 rho mean((1 - rho bar f) (d bar f/dV_k - V_k bar
    f/|V_k|^2)).

    Args:
        state: rho (1,), then V_k.
        data: Samples.
        bend: As in :class:`ncflow.theory.toy_model.network.ToyNetwork`.
        weight_decay: lambda >= 0.
    """
    rho, layers = float(state[0][0]), state[1:]
    outputs, activations = forward(layers, data.inputs, bend)
    margins = data.labels * outputs
    residuals = 1 - rho * margins
    drift = 2 * float((residuals * margins).mean()) - 2 * weight_decay * rho
    gradients = pullback(layers, activations, residuals * data.labels / len(outputs), bend)
    # <V, g> rather than mean((1 - rho bar f) bar f): equal for the ReLU, and exact where it bends
    turns = (2 * rho * (g - V * (np.vdot(V, g) / np.vdot(V, V))) for g, V in zip(gradients, layers, strict=True))
    return np.array([drift]), *turns


def unnormalized_field(state: Matrices, data: ToyData, bend: float | None, weight_decay: float) -> Matrices:
    """W_k' of eq. 48 (its sign mended), minus the gradient of (1/N) sum (1 - y_n g_n)^2 + lambda sum_k |W_k|^2.

    With equal norms rho_k it moves rho and V_k as eq. 51 and 53 say.

    Args:
        state: W_k.
        data: Samples.
        bend: As in :class:`ncflow.theory.toy_model.network.ToyNetwork`.
        weight_decay: lambda >= 0.
    """
    outputs, activations = forward(state, data.inputs, bend)
    gradients = pullback(state, activations, (data.labels - outputs) / len(outputs), bend)
    return tuple(2 * g - 2 * weight_decay * W for g, W in zip(gradients, state, strict=True))


def last_free_field(state: Matrices, data: ToyData, bend: float | None, weight_decay: float) -> Matrices:
    """W_k' of eq. 70 and 71: all layers decay and all but the last keep their norm by a Lagrange multiplier.

    W_k' = 2 mean((1 - bar g) (d bar g/dW_k - W_k bar g/|W_k|^2)) for k < L: the multiplier takes the decay up, whatever
    lambda is. W_L' = 2 mean((1 - bar g) d bar g/dW_L) - 2 lambda W_L. With W_L = rho V_L this moves rho as eq. 6 and
    V_k, k < L, as eq. 7, but V_L at 1/rho^2 of its speed there. Eq. 69 has a factor rho too many: g_n is rho f_n.

    Args:
        state: W_k.
        data: Samples.
        bend: As in :class:`ncflow.theory.toy_model.network.ToyNetwork`.
        weight_decay: lambda >= 0 of the penalty lambda sum_k |W_k|^2.
    """
    *normalized, last = unnormalized_field(state, data, bend, weight_decay)
    turns = (v - W * (np.vdot(W, v) / np.vdot(W, W)) for v, W in zip(normalized, state, strict=False))
    return *turns, last


FIELDS: dict[str, Field] = {
    "normalized": normalized_field,
    "unnormalized": unnormalized_field,
    "last_free": last_free_field,
}
