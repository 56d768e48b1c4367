"""The network of the toy model: deep and homogeneous, without biases, one output (CBMM Memo 117, sections 3.2, 3.3).

The gradient of a ReLU network jumps where a unit switches on or off, and gradient flow is often pushed onto such a
place from both sides and slides along it; no solver with error control gets past (descent with a step zigzags). The
text's appendix A speaks of a "smooth ReLU". Ours is z^2/(2 b) on 0 < z < b and z - b/2 beyond: the flow is then
smooth, and homogeneity holds but for terms of order b.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ncflow.checks import require

Array = NDArray[np.float64]
Matrices = tuple[Array, ...]


@dataclass(frozen=True)
class ToyData:
    """Samples of a binary problem.

    Attributes:
        inputs: x_n, (N, d), finite. The text scales them to |x_n| <= 1, so that no margin exceeds 1.
        labels: y_n, (N,), each +1 or -1.
    """

    inputs: Array
    labels: Array

    def __post_init__(self) -> None:
        shape = np.shape(self.inputs)
        require(len(shape) == 2 and min(shape) > 0, "inputs", "a matrix (N, d) with N, d >= 1", shape)
        require(bool(np.isfinite(self.inputs).all()), "inputs", "finite", "NaN or infinity")
        require(np.shape(self.labels) == shape[:1], "labels", f"of shape {shape[:1]}", np.shape(self.labels))
        require(bool((np.abs(self.labels) == 1).all()), "labels", "+1 or -1", np.unique(self.labels).tolist())


@dataclass(frozen=True)
class ToyNetwork:
    """rho f_V(x) = rho V_L s(V_{L-1} ... s(V_1 x)), every |V_k| = 1 (Frobenius norm).

    Attributes:
        layers: V_k, (d_k, d_{k-1}) with d_L = 1.
        rho: Norm of the function, the product of all layers' norms, > 0.
        bend: Width b >= 0 over which the ReLU s bends, 0 for the ReLU itself; None for a linear network, s(z) = z.
    """

    layers: Matrices
    rho: float
    bend: float | None = 0.0

    def __post_init__(self) -> None:
        shapes = [layer.shape for layer in self.layers]
        fits = bool(shapes) and all(below[0] == above[1] for below, above in pairwise(shapes)) and shapes[-1][0] == 1
        require(fits, "layers", "matrices (d_k, d_{k-1}) that follow each other, the last with one row", shapes)
        norms = [float(np.linalg.norm(layer)) for layer in self.layers]
        require(bool(np.allclose(norms, 1, atol=1e-9)), "layers", "of Frobenius norm 1", norms)
        require(0 < self.rho < np.inf, "rho", "greater than 0 and finite", self.rho)
        require(self.bend is None or 0 <= self.bend < np.inf, "bend", "None, or at least 0 and finite", self.bend)

    @classmethod
    def of(cls, weights: Sequence[Array], bend: float | None = 0.0) -> "ToyNetwork":
        """The network with the weights W_k = rho_k V_k; rho is the product of their norms (section 3.3)."""
        norms = [float(np.linalg.norm(weight)) for weight in weights]
        require(min(norms, default=0) > 0, "weights", "matrices other than 0", norms)
        layers = tuple(np.asarray(weight) / norm for weight, norm in zip(weights, norms, strict=True))
        return cls(layers, float(np.prod(norms)), bend)


def random_data(samples: int, dim: int, seed: int) -> ToyData:
    """Inputs uniform on the unit sphere of R^d, labels drawn independently of them, as many +1 as -1 (or one more).

    Args:
        samples: N >= 2.
        dim: d >= 1.
        seed: Seed, >= 0.
    """
    require(samples >= 2, "samples", "at least 2", samples)
    require(dim >= 1, "dim", "at least 1", dim)
    require(seed >= 0, "seed", "at least 0", seed)
    rng = np.random.default_rng(seed)
    inputs = rng.standard_normal((samples, dim))
    labels = rng.permutation(np.where(np.arange(samples) % 2, -1.0, 1.0))
    return ToyData(inputs / np.linalg.norm(inputs, axis=1, keepdims=True), labels)


def random_network(widths: Sequence[int], rho: float, seed: int, *, bend: float | None = 0.0) -> ToyNetwork:
    """Normal weights, each matrix scaled to Frobenius norm 1, as the text initialises its networks (section 7).

    Args:
        widths: d, d_1, ..., d_{L-1}: the input and the hidden layers; the output is one number.
        rho: Norm of the function, > 0.
        seed: Seed, >= 0.
        bend: As in :class:`ToyNetwork`.
    """
    require(len(widths) > 0 and min(widths) >= 1, "widths", "at least one number, each at least 1", tuple(widths))
    require(seed >= 0, "seed", "at least 0", seed)
    rng = np.random.default_rng([seed, 1])  # not the numbers that made the data of the same seed
    layers = [rng.standard_normal((above, below)) for below, above in pairwise((*widths, 1))]
    return ToyNetwork(tuple(layer / np.linalg.norm(layer) for layer in layers), rho, bend)


def forward(layers: Matrices, inputs: Array, bend: float | None) -> tuple[Array, list[Array]]:
    """Outputs (N,) of the network with these matrices, and the inputs (N, d_{k-1}) of each layer."""
    activations = [inputs]
    for layer in layers[:-1]:
        activations.append(activate(activations[-1] @ layer.T, bend))
    return (activations[-1] @ layers[-1].T)[:, 0], activations


def pullback(layers: Matrices, activations: Sequence[Array], coefficients: Array, bend: float | None) -> Matrices:
    """Gradients sum_n c_n df_n/dV_k for each layer, by backpropagation.

    By homogeneity <V_k, df_n/dV_k> = f_n for every k (the structural lemma, Lemma 6).

    Args:
        layers: V_k, of any norm.
        activations: Inputs of each layer, from :func:`forward`.
        coefficients: c_n, (N,).
        bend: As in :class:`ToyNetwork`; the slope of the ReLU at 0 is taken as 0.
    """
    gradients, signal = [], coefficients[:, None]
    for layer, below in zip(reversed(layers), reversed(activations), strict=True):
        gradients.append(signal.T @ below)
        if below is not activations[0]:
            signal = (signal @ layer) * activation_slope(below, bend)
    return tuple(reversed(gradients))


def activate(z: Array, bend: float | None) -> Array:
    """s(z): the identity (``bend`` None), the ReLU (0), or z^2/(2 b) on 0 < z < b and z - b/2 beyond."""
    if bend is None:
        return z
    if bend == 0:
        return np.maximum(z, 0)
    return np.where(z > bend, z - bend / 2, np.square(np.maximum(z, 0)) / (2 * bend))


def activation_slope(activation: Array, bend: float | None) -> Array | float:
    """The slope s'(z) from the value s(z)."""
    if bend is None:
        return 1.0
    if bend == 0:
        return np.asarray(activation > 0, dtype=np.float64)
    return np.minimum(1, np.sqrt(2 * activation / bend))
