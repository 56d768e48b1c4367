"""Gradient flow and gradient descent on the square loss, labels +-1 (CBMM Memo 117, sections 3, 5, appendices G, H).

Their velocities, the convention of the means and what is wrong in the equations are in
:mod:`ncflow.theory.toy_model.fields`. Of the second-order flow:

- Eq. 24 does not keep |V_k| = 1: |V_k|^2 grows as eta |V_k'|^2, just as under gradient descent. With the centrifugal
  term that eq. 26 has and eq. 23 lacks, the two systems differ; the conclusion after eq. 31 (V_L' = 0 where rho' = 0)
  comes from combining them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike
from scipy.integrate import solve_ivp

from ncflow.checks import require
from ncflow.theory.toy_model.fields import FIELDS
from ncflow.theory.toy_model.network import Array, Matrices, ToyData, ToyNetwork, forward

Kind = Literal["normalized", "unnormalized", "last_free"]


@dataclass(frozen=True)
class Trajectory:
    """A path of the parameters, T points of time.

    Attributes:
        time: (T,), from 0.
        rho: (T,). Normalised: the parameter; otherwise the product of the layers' norms.
        margins: bar f_n = y_n f_n of the unit layers, (T, N); the outputs are rho times that.
        loss: Mean square error with the penalty, lambda rho^2 or lambda sum_k |W_k|^2, (T,).
        norms: |V_k| (normalised; 1 in theory) or rho_k = |W_k|, (T, L).
        layers: V_k or W_k, each (T, d_k, d_{k-1}).
    """

    time: Array
    rho: Array
    margins: Array
    loss: Array
    norms: Array
    layers: Matrices

    @property
    def square_error(self) -> Array:
        """Mean square error without the penalty, (T,)."""
        return np.square(1 - self.rho[:, None] * self.margins).mean(1)


# About 20 seconds; a path that does not slide takes some ten thousand.
_MOST_EVALUATIONS = 300_000


def gradient_flow(
    network: ToyNetwork,
    data: ToyData,
    times: ArrayLike,
    *,
    weight_decay: float = 0.0,
    kind: Kind = "normalized",
    step: float = 0.0,
) -> Trajectory:
    """Gradient flow x' = F(x), or the second-order flow (eta/2) x'' + x' = F(x) of gradient descent (eq. 23 and 24).

    The second-order flow starts with x'(0) = F(x(0)); it then stays within O(eta^2) of gradient descent where F is
    smooth. Started at rest it would fall behind by O(eta). Where a ReLU switches, F jumps, descent oversteps the
    jump by up to a whole step, and only O(eta) is left, as for the first-order flow.

    Args:
        network: Start; ``unnormalized``, each layer gets the norm rho^(1/L); ``last_free``, the last one gets rho.
        data: Samples.
        times: Points of time to report, (T,), from 0, increasing.
        weight_decay: lambda >= 0, with the penalty lambda rho^2 (normalised) or lambda sum_k |W_k|^2.
        kind: ``normalized`` (layers on the sphere, network B of figure 1), ``unnormalized`` (network A), or
            ``last_free`` (all layers decay and all but the last are on the sphere, eq. 66 to 73).
        step: eta >= 0; 0 is gradient flow.

    Raises:
        ArgumentError: If an argument breaks its rule.
        RuntimeError: If the solver does not arrive, as where the flow slides along the kink of a ReLU, or where eta
            rho^2 is so large that descent itself would diverge.
    """
    moments = np.asarray(times, dtype=np.float64)
    rising = moments.ndim == 1 and len(moments) > 1 and moments[0] == 0 and bool((np.diff(moments) > 0).all())
    require(rising and bool(np.isfinite(moments).all()), "times", "finite, from 0, increasing", moments.tolist())
    require(step >= 0, "step", "at least 0", step)
    start, field = _problem(network, data, weight_decay, kind)

    def velocity(x: Array) -> Array:
        return _pack(field(_unpack(x, start)))

    def acceleration(x: Array) -> Array:
        place, speed = np.split(x, 2)
        return np.concatenate([speed, 2 / step * (velocity(place) - speed)])

    # Rates span rho^2 (layers), M (norm), lambda (along the valley) and 2/eta: stiff in the end but not at first, which
    # LSODA is made for, at a tolerance that resolves differences of O(eta^2). Sliding along the bend of a ReLU is stiff
    # from the first contact on: there BDF, damped more strongly, arrives where LSODA and Radau crawl. With inertia the
    # path swings about the bend instead, which an explicit method follows for the price of descent itself.
    x = _pack(start)
    if step > 0:
        solver = ("RK45", 1e-6) if network.bend else ("LSODA", 1e-10)
        places = _solve(acceleration, np.concatenate([x, velocity(x)]), moments, *solver)[:, : x.size]
    else:
        places = _solve(velocity, x, moments, *(("BDF", 1e-7) if network.bend else ("LSODA", 1e-10)))
    return _trajectory(moments, [_unpack(place, start) for place in places], data, network.bend, weight_decay, kind)


def _solve(velocity: Callable[[Array], Array], start: Array, times: Array, method: str, tolerance: float) -> Array:
    """States (T, n) of x' = velocity(x), by a method of SciPy's at a relative tolerance."""
    evaluations = 0

    def counted(_: float, x: Array) -> Array:
        nonlocal evaluations
        evaluations += 1
        if evaluations > _MOST_EVALUATIONS:
            raise RuntimeError(
                "the solver crawls: take a wider bend of the ReLU (its kink stops a flow), a lower rho, or less time"
            )
        return velocity(x)

    found = solve_ivp(counted, (0, times[-1]), start, method=method, t_eval=times, rtol=tolerance, atol=tolerance / 100)
    if not found.success:
        raise RuntimeError(f"the solver stopped: {found.message}")
    return found.y.T


def gradient_descent(
    network: ToyNetwork,
    data: ToyData,
    steps: int,
    *,
    step: float,
    weight_decay: float = 0.0,
    kind: Kind = "normalized",
) -> Trajectory:
    """Gradient descent x <- x + eta F(x), time eta a step, with the F of :func:`gradient_flow`; T = steps + 1.

    Args:
        network: Start; ``unnormalized``, each layer gets the norm rho^(1/L); ``last_free``, the last one gets rho.
        data: Samples.
        steps: Number of steps, >= 1.
        step: eta > 0.
        weight_decay: lambda >= 0.
        kind: ``normalized``, ``unnormalized`` or ``last_free``.
    """
    require(steps >= 1, "steps", "at least 1", steps)
    require(step > 0, "step", "greater than 0", step)
    state, field = _problem(network, data, weight_decay, kind)
    states = [state]
    for _ in range(steps):
        state = tuple(x + step * v for x, v in zip(state, field(state), strict=True))
        states.append(state)
    return _trajectory(np.arange(steps + 1) * np.float64(step), states, data, network.bend, weight_decay, kind)


def _problem(
    network: ToyNetwork, data: ToyData, weight_decay: float, kind: Kind
) -> tuple[Matrices, Callable[[Matrices], Matrices]]:
    """State to start from, and the velocity at a state."""
    require(kind in get_args(Kind), "kind", f"one of {get_args(Kind)}", kind)
    require(0 <= weight_decay < np.inf, "weight_decay", "at least 0 and finite", weight_decay)
    dim = network.layers[0].shape[1]
    require(data.inputs.shape[1] == dim, "inputs", f"of the dimension {dim} of the network", data.inputs.shape)
    if kind == "normalized":
        start: Matrices = (np.array([network.rho]), *network.layers)
    elif kind == "last_free":
        start = (*network.layers[:-1], network.rho * network.layers[-1])
    else:
        start = tuple(network.rho ** (1 / len(network.layers)) * layer for layer in network.layers)
    return start, lambda state: FIELDS[kind](state, data, network.bend, weight_decay)


def _pack(state: Matrices) -> Array:
    return np.concatenate([part.ravel() for part in state])


def _unpack(x: Array, like: Matrices) -> Matrices:
    cuts = np.cumsum([part.size for part in like])[:-1]
    return tuple(part.reshape(shape.shape) for part, shape in zip(np.split(x, cuts), like, strict=True))


def _trajectory(
    time: Array, states: list[Matrices], data: ToyData, bend: float | None, weight_decay: float, kind: Kind
) -> Trajectory:
    layers = [state[1:] if kind == "normalized" else state for state in states]
    norms = np.array([[np.linalg.norm(layer) for layer in network] for network in layers])
    margins = np.array([data.labels * forward(network, data.inputs, bend)[0] for network in layers])
    if kind == "normalized":
        rho = np.array([float(state[0][0]) for state in states])
        penalty = np.square(rho)
    else:
        rho, penalty = norms.prod(1), np.square(norms).sum(1)
        margins = margins / rho[:, None]
    loss = np.square(1 - rho[:, None] * margins).mean(1) + weight_decay * penalty
    stacked = tuple(np.stack(parts) for parts in zip(*layers, strict=True))
    return Trajectory(time, rho, margins, loss, norms, stacked)
