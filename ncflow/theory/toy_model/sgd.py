"""Where stochastic gradient descent rests on the toy model (CBMM Memo 117, appendices D and F, eq. 38 to 45).

Full-batch descent rests where the gradients of the samples sum to 0, descent on batches only where each is 0
(Lemma 8). For a batch of one sample the square loss then fixes the margin of every sample.

What is wrong in the text, and what these functions make of it:

- Eq. 39 is the flow uphill and lacks a factor 2. Eq. 40 has v_i l_i where v_i l_i^2 is meant.
- Lemma 8 says "for enough draws". All draws of M < N samples are enough, as two that differ in one sample give equal
  gradients; in general the 0-1 matrix of draws by samples must have rank N (:func:`determines_gradients`). For M = N
  no number is. In exact numbers, :func:`mean_square_of_batches` falls to 0 only where every gradient does.
- Eq. 45 is of one sample but for its sum over n in the multiplier, which would not keep |V_k| = 1.
- At rest eq. 44 is rho f^2 - f + lambda rho = 0 for each margin f: two margins (:func:`resting_margins`), the lower one
  with an output of about lambda rho^2. It does not by itself make all margins equal; that no output is below 1/2 does.
"""

from collections.abc import Sequence
from math import ceil, sqrt

import numpy as np
from numpy.typing import ArrayLike

from ncflow.checks import require
from ncflow.theory.toy_model.fields import normalized_field
from ncflow.theory.toy_model.network import Array, ToyData, ToyNetwork


def sample_velocities(network: ToyNetwork, data: ToyData, weight_decay: float) -> Array:
    """(rho', V_k') that each sample alone gives (eq. 44 and 45, mended), (N, P); their mean is the flow of all samples.

    Args:
        network: Where.
        data: Samples.
        weight_decay: lambda >= 0 of the penalty lambda rho^2; each sample has all of it.

    Returns:
        A row a sample: rho', then every V_k' flattened.
    """
    require(weight_decay >= 0, "weight_decay", "at least 0", weight_decay)
    state = (np.array([network.rho]), *network.layers)
    rows = []
    for x, y in zip(data.inputs, data.labels, strict=True):
        field = normalized_field(state, ToyData(x[None], np.array([y])), network.bend, weight_decay)
        rows.append(np.concatenate([part.ravel() for part in field]))
    return np.array(rows)


def mean_square_of_batches(velocities: ArrayLike, batch_size: int) -> float:
    """Expected squared length of the mean velocity of a batch of M samples, drawn without replacement (Lemma 8).

    |g|^2 + (N-M)/(M (N-1)) (mean |g_n|^2 - |g|^2), g the mean of all. For M < N it is 0 only where every g_n is 0; for
    M = N it is |g|^2.

    Args:
        velocities: g_n, or gradients, (N, P).
        batch_size: M in 1..N.
    """
    g = np.asarray(velocities, dtype=np.float64)
    require(g.ndim == 2 and len(g) > 0, "velocities", "a matrix (N, P), N >= 1", g.shape)
    N, M = len(g), batch_size
    require(1 <= M <= N, "batch_size", f"in 1..N = {N}", M)
    mean = g.mean(0)
    scatter = float(np.square(g - mean).sum()) / N
    return float(mean @ mean) + (scatter * (N - M) / (M * (N - 1)) if M < N else 0.0)


def determines_gradients(batches: Sequence[Sequence[int]], samples: int) -> bool:
    """Whether gradients that sum to 0 over each of these batches must all be 0: "enough draws" of Lemma 8.

    Args:
        batches: Indices 0..N-1 of the samples of each batch, none twice in one.
        samples: N >= 1.
    """
    require(samples >= 1, "samples", "at least 1", samples)
    draws = np.zeros((len(batches), samples))
    for row, batch in zip(draws, batches, strict=True):
        row[list(batch)] = 1
    return bool(len(batches) >= samples and np.linalg.matrix_rank(draws) == samples)


def least_epochs(samples: int, batch_size: int) -> int:
    """Epochs of shuffled batches without which :func:`determines_gradients` cannot hold.

    The batches of an epoch sum to the same vector of ones in every epoch: E epochs of B batches have a rank of at most
    1 + E (B - 1).

    Args:
        samples: N >= 2.
        batch_size: M in 1..N-1.

    Example:
        >>> least_epochs(10_000, 128)
        129
    """
    require(samples >= 2, "samples", "at least 2", samples)
    require(1 <= batch_size < samples, "batch_size", f"in 1..N-1 = {samples - 1}", batch_size)
    return ceil((samples - 1) / (ceil(samples / batch_size) - 1))


def resting_margins(rho: float, weight_decay: float) -> tuple[float, float]:
    """The two margins that a sample can have where rho rests under every single sample (eq. 44 at 0).

    Of (1 - rho f) f = lambda rho, f = (1 -+ sqrt(1 - 4 lambda rho^2))/(2 rho); without weight decay 0 and 1/rho.

    Args:
        rho: > 0.
        weight_decay: lambda >= 0 of the penalty lambda rho^2, at most 1/(4 rho^2): beyond, there is none.

    Returns:
        The lower and the higher one. Their sum is 1/rho, their product lambda.
    """
    require(rho > 0, "rho", "greater than 0", rho)
    limit = 1 / (4 * rho**2)
    require(0 <= weight_decay <= limit, "weight_decay", f"in 0..1/(4 rho^2) = {limit:g}", weight_decay)
    higher = (1 + sqrt(1 - 4 * weight_decay * rho**2)) / (2 * rho)
    return weight_decay / higher, higher
