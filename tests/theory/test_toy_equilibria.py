"""Where the toy model rests: lagging margins, descent on batches, decay in all layers; against minimisers and ODEs."""

from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import solve_ivp
from scipy.optimize import minimize

from ncflow.checks import ArgumentError
from ncflow.theory.toy_model.decaying_norms import decaying_norms, decaying_norms_field
from ncflow.theory.toy_model.fields import last_free_field, normalized_field
from ncflow.theory.toy_model.flow import gradient_descent, gradient_flow
from ncflow.theory.toy_model.lagging_margins import lagging_margins
from ncflow.theory.toy_model.network import ToyData, ToyNetwork, forward, pullback, random_data, random_network
from ncflow.theory.toy_model.norm import equilibrium_rho
from ncflow.theory.toy_model.sgd import (
    determines_gradients,
    least_epochs,
    mean_square_of_batches,
    resting_margins,
    sample_velocities,
)


@pytest.mark.parametrize("lagging", [1, 3, 8])
@pytest.mark.parametrize(("decay", "rho_0"), [(0.01, 2.0), (0.001, 10.0)])
def test_lagging_margins_are_the_minimum_over_rho_and_all_margins(decay, rho_0, lagging):
    """The loss minimised over rho and N margins of which M are at most 1/rho_0."""
    N = 8
    limits = [(1e-3, None), *[(0, 1 / rho_0)] * lagging, *[(0, None)] * (N - lagging)]

    def loss(x):
        rho, f = x[0], x[1:]
        value = ((1 - rho * f) ** 2).mean() + decay * rho**2
        return value, np.concatenate(
            [[(-2 * (1 - rho * f) * f).mean() + 2 * decay * rho], -2 * (1 - rho * f) * rho / N]
        )

    start = np.concatenate([[rho_0 / 2], np.full(N, 1 / rho_0)])
    options = {"ftol": 0, "gtol": 1e-11, "maxiter": 20000, "maxfun": 50000}
    found = minimize(loss, start, jac=True, bounds=limits, method="L-BFGS-B", options=options)
    expected = lagging_margins(decay, rho_0, lagging / N)
    assert found.fun == pytest.approx(expected.loss, rel=1e-8)
    if lagging == N:
        # The sums of eq. 42: L = lambda rho_0^2/(1 + lambda rho_0^2/N) for lambda = N decay.
        assert N * expected.loss == pytest.approx(N * decay * rho_0**2 / (1 + N * decay * rho_0**2 / N))
    margins = np.full(N, 1 / rho_0)
    margins[lagging:] += expected.difference
    np.testing.assert_allclose(found.x, [expected.rho, *margins], rtol=2e-3)
    np.testing.assert_allclose(1 - expected.rho * margins[:lagging], expected.gap, rtol=1e-12)
    np.testing.assert_allclose(expected.rho * margins[lagging:], 1, rtol=1e-12)
    assert equilibrium_rho(margins, decay) == pytest.approx(expected.rho, rel=1e-12)


def test_fewer_lagging_points_have_the_lower_loss_and_the_printed_gap_is_off():
    losses = [lagging_margins(0.01, 3.0, share).loss for share in (0.1, 0.5, 1.0)]
    assert losses == sorted(losses)
    found = lagging_margins(1e-3, 10.0)
    assert found.gap == pytest.approx(0.0909, abs=1e-4)  # the text's lambda rho_0 is 0.01
    data, scalar = ToyData(np.array([[0.1]]), np.ones(1)), ToyNetwork((np.ones((1, 1)),), 3.0)
    end = gradient_flow(scalar, data, [0, 2000], weight_decay=1e-3)
    assert 1 - end.rho[-1] * end.margins[-1, 0] == pytest.approx(found.gap, rel=1e-6)


@pytest.mark.parametrize("bend", [None, 0.0])
def test_velocities_of_samples_are_eq_44_and_45_and_their_mean_is_the_flow(bend):
    network, data, decay = random_network((3, 5, 4), 1.7, 1, bend=bend), random_data(5, 3, 0), 0.1
    found = sample_velocities(network, data, decay)
    state = (np.array([network.rho]), *network.layers)
    flow = np.concatenate([part.ravel() for part in normalized_field(state, data, bend, decay)])
    np.testing.assert_allclose(found.mean(0), flow, atol=1e-12)
    rho, (outputs, _) = network.rho, forward(network.layers, data.inputs, bend)
    for n, (y, f) in enumerate(zip(data.labels, outputs, strict=True)):
        assert found[n, 0] == pytest.approx(-2 * (rho * f - y) * f - 2 * decay * rho, rel=1e-12)
        here, cut = data.inputs[n : n + 1], 1
        gradients = pullback(network.layers, forward(network.layers, here, bend)[1], np.ones(1), bend)
        for V, df in zip(network.layers, gradients, strict=True):
            turn = -2 * (rho * f - y) * rho * df + 2 * V * (rho**2 * f**2 - rho * y * f)
            np.testing.assert_allclose(found[n, cut : cut + V.size], turn.ravel(), atol=1e-12)
            cut += V.size


@settings(max_examples=30)
@given(st.integers(2, 7), st.integers(0, 100), st.booleans())
def test_mean_square_of_batches_is_that_of_all_batches(N, seed, balanced):
    g = np.random.default_rng(seed).standard_normal((N, 3))
    g -= g.mean(0) * balanced
    for M in range(1, N + 1):
        all_batches = [(g[list(batch)].mean(0) ** 2).sum() for batch in combinations(range(N), M)]
        assert mean_square_of_batches(g, M) == pytest.approx(np.mean(all_batches), rel=1e-10, abs=1e-14)


def test_lemma_8_needs_batches_below_the_whole():
    """A point where full-batch descent rests and descent on batches does not; it does where all gradients vanish."""
    data = ToyData(np.array([[0.5], [0.8]]), np.ones(2))
    rho = equilibrium_rho([0.5, 0.8], 0.1)
    velocities = sample_velocities(ToyNetwork((np.ones((1, 1)),), rho), data, 0.1)
    assert mean_square_of_batches(velocities, 2) < 1e-28
    assert mean_square_of_batches(velocities, 1) > 1e-3
    same = ToyData(np.array([[0.5], [0.5]]), np.ones(2))
    rest = sample_velocities(ToyNetwork((np.ones((1, 1)),), equilibrium_rho([0.5], 0.1)), same, 0.1)
    assert mean_square_of_batches(rest, 1) < 1e-28


@pytest.mark.parametrize(("N", "M"), [(4, 2), (5, 3), (6, 2), (6, 5)])
def test_enough_draws(N, M):
    every = list(combinations(range(N), M))
    assert determines_gradients(every, N)
    assert not determines_gradients(every[: N - 1], N)
    assert not determines_gradients([range(N)] * 50, N)
    # Gradients that sum to 0 over every batch, if there are such.
    rng = np.random.default_rng(0)
    for _ in range(20):
        batches = [every[i] for i in rng.integers(len(every), size=N)]
        sums = np.array([[index in batch for index in range(N)] for batch in batches], dtype=float)
        smallest = np.linalg.svd(sums, compute_uv=False)[-1]
        assert determines_gradients(batches, N) == (smallest > 1e-9)


@pytest.mark.parametrize(("N", "M"), [(4, 2), (6, 2), (6, 5), (9, 4), (12, 3)])
def test_fewer_epochs_are_never_enough_and_so_many_can_be(N, M):
    rng, least = np.random.default_rng(0), least_epochs(N, M)

    def epochs(count):
        order = (rng.permutation(N) for _ in range(count))
        return [part for o in order for part in np.split(o, range(M, N, M))]

    assert not any(determines_gradients(epochs(least - 1), N) for _ in range(100))
    assert any(determines_gradients(epochs(least), N) for _ in range(100))


@pytest.mark.parametrize(("rho", "decay"), [(2.0, 0.05), (10.0, 1e-3), (3.0, 0.0), (2.0, 1 / 16)])
def test_resting_margins_are_where_rho_rests_under_one_sample(rho, decay):
    lower, higher = resting_margins(rho, decay)
    assert lower <= higher
    for margin in (lower, higher):
        data = ToyData(np.array([[margin]]), np.ones(1))
        assert sample_velocities(ToyNetwork((np.ones((1, 1)),), rho), data, decay)[0, 0] == pytest.approx(0, abs=1e-12)
    assert (lower + higher, lower * higher) == pytest.approx((1 / rho, decay))
    grid = np.linspace(0, 1, 200_001)
    speed = (1 - rho * grid) * grid - decay * rho
    changes = grid[:-1][np.diff(np.sign(speed)) != 0]
    assert len(changes) <= 2
    assert all(min(abs(root - lower), abs(root - higher)) < 2e-5 for root in changes)


def test_two_margins_rest_under_batches_of_one():
    """Eq. 44 alone does not make margins equal: one output is near 1, the other near lambda rho^2."""
    rho, decay = 5.0, 2e-3
    margins = np.array([resting_margins(rho, decay)]).T
    velocities = sample_velocities(ToyNetwork((np.ones((1, 1)),), rho), ToyData(margins, np.ones(2)), decay)
    assert mean_square_of_batches(velocities, 1) < 1e-24
    np.testing.assert_allclose(rho * margins[:, 0], [decay * rho**2, 1 - decay * rho**2], atol=0.01)


def loss_of(norms, layers, data, decay):
    """Eq. 55 on the spheres: mean square error and lambda sum rho_k^2."""
    unit = [V / np.linalg.norm(V) for V in layers]
    outputs = np.prod(norms) * forward(unit, data.inputs, None)[0]
    return ((outputs - data.labels) ** 2).mean() + decay * (norms**2).sum()


def test_decaying_norms_field_is_the_gradient_but_for_the_multipliers_of_the_norms():
    """V_k' and rho_L' are minus the gradient; rho_k' is too, but for nu_k, which leaves the decay alone."""
    norms, decay, data = np.array([0.7, 1.3, 2.0]), 0.2, random_data(5, 3, 0)
    layers = random_network((3, 4, 5), 1.0, 1).layers
    found = decaying_norms_field((norms, *layers), data, None, decay)
    for part, velocity in zip((norms, *layers), found, strict=True):
        for index in np.ndindex(part.shape):
            ends = []
            for shift in (1e-6, -1e-6):
                part[index] += shift
                ends.append(loss_of(norms, layers, data, decay))
                part[index] -= shift
            slope = -(ends[0] - ends[1]) / 2e-6
            if part is norms and index[0] < 2:
                assert velocity[index] == pytest.approx(-2 * decay * norms[index], rel=1e-12)
                assert abs(slope - velocity[index]) > 1e-3
            else:
                assert velocity[index] == pytest.approx(slope, abs=1e-7)


def test_with_decay_on_normalised_norms_everything_decays():
    """Eq. 62 to 65 integrated: rho_k as the closed form, which the printed solution is not, and rho to 0."""
    norms, decay, data = np.array([0.7, 1.3, 2.0]), 0.05, random_data(3, 4, 0)
    layers = random_network((4, 6, 5), 1.0, 1).layers
    shapes, cuts = [V.shape for V in layers], np.cumsum([3, *[V.size for V in layers]])[:-1]

    def velocity(_, x):
        n, *flat = np.split(x, cuts)
        state = (n, *[v.reshape(shape) for v, shape in zip(flat, shapes, strict=True)])
        return np.concatenate([part.ravel() for part in decaying_norms_field(state, data, None, decay)])

    times = np.linspace(0, 100, 41)
    start = np.concatenate([norms, *[V.ravel() for V in layers]])
    path = solve_ivp(velocity, (0, 100), start, method="LSODA", t_eval=times, rtol=1e-9, atol=1e-12).y
    np.testing.assert_allclose(path[:2].T, decaying_norms(times, norms[:2], decay), rtol=1e-6, atol=1e-10)
    printed = 1 - (1 - norms[0]) * np.exp(-2 * decay * times)
    assert np.abs(path[0] - printed).max() > 0.9
    rho = path[:3].prod(0)
    assert rho[-1] < 1e-3 * rho.max()
    np.testing.assert_allclose([(path[a:b] ** 2).sum(0) for a, b in zip(cuts, [*cuts[1:], None], strict=True)], 1)


@pytest.mark.parametrize("bend", [None, 0.0])
def test_last_free_flow_moves_rho_and_the_lower_layers_as_the_normalised_one_and_the_last_more_slowly(bend):
    network, data, decay = random_network((3, 5, 4), 1.7, 1, bend=bend), random_data(5, 3, 0), 0.1
    rho, (*lower, last) = network.rho, network.layers
    rho_dot, *turns = normalized_field((np.array([rho]), *network.layers), data, bend, decay)
    *found, W_dot = last_free_field((*lower, rho * last), data, bend, decay)
    for ours, normalised in zip(found, turns[:-1], strict=True):
        np.testing.assert_allclose(ours, normalised, atol=1e-12)
    assert np.vdot(last, W_dot) == pytest.approx(rho_dot[0], rel=1e-12)
    np.testing.assert_allclose((W_dot - np.vdot(last, W_dot) * last) / rho, turns[-1] / rho**2, atol=1e-12)


def test_last_free_flow_is_descent_with_projection_and_its_decay_moves_no_lower_layer():
    """Each layer but the last scaled back to norm 1 after every small step: the same path for decay and none."""
    network, data, decay, step = random_network((3, 4), 2.0, 1, bend=None), random_data(4, 3, 0), 0.2, 1e-3
    W, V = network.layers[0].copy(), network.rho * network.layers[1]
    for _ in range(1000):
        outputs, activations = forward((W, V), data.inputs, None)
        slopes = pullback((W, V), activations, (data.labels - outputs) / 4, None)
        W, V = (x + step * (2 * g - 2 * decay * x) for x, g in zip((W, V), slopes, strict=True))
        W = W / np.linalg.norm(W)
    found = gradient_flow(network, data, [0, 1], weight_decay=decay, kind="last_free")
    np.testing.assert_allclose(found.norms[:, 0], 1, atol=1e-7)
    np.testing.assert_allclose(found.layers[0][-1], W, atol=3e-3)
    np.testing.assert_allclose(found.layers[1][-1], V, atol=3e-3)
    assert np.abs(found.layers[0][-1] - network.layers[0]).max() > 0.03


def test_last_free_flow_ends_where_the_normalised_one_does_and_descends():
    network, data = random_network((3, 20), 3.0, 1, bend=None), random_data(5, 3, 0)
    free, normalised = (
        gradient_flow(network, data, [0, 1, 400], weight_decay=0.02, kind=kind) for kind in ("last_free", "normalized")
    )
    assert free.rho[-1] == pytest.approx(equilibrium_rho(free.margins[-1], 0.02), rel=1e-6)
    state = (free.rho[-1:], free.layers[0][-1], free.layers[1][-1] / free.rho[-1])
    assert max(np.abs(v).max() for v in normalized_field(state, data, None, 0.02)) < 1e-6
    assert free.rho[-1] == pytest.approx(normalised.rho[-1], rel=1e-5)
    assert (np.diff(free.loss) < -0.1).all()


def test_second_order_flow_of_all_layers_follows_descent():
    """Eq. 72 and 73: to second order in the step."""
    network, data = random_network((3, 4), 2.0, 1, bend=None), random_data(4, 3, 0)
    gaps = []
    for step in (0.02, 0.01):
        descent = gradient_descent(network, data, round(1 / step), step=step, weight_decay=0.05, kind="last_free")
        flow = gradient_flow(network, data, descent.time, weight_decay=0.05, kind="last_free", step=step)
        gaps.append(max(np.abs(a[-1] - b[-1]).max() for a, b in zip(flow.layers, descent.layers, strict=True)))
    assert gaps[0] / gaps[1] == pytest.approx(4, rel=0.15)


def test_gradient_before_batch_norm_is_orthogonal_to_the_weights():
    """Eq. 62 under a real BN: weight decay is all that changes |W_k| under gradient flow."""
    rng = torch.Generator().manual_seed(0)
    first, norm = torch.nn.Linear(6, 8, bias=False), torch.nn.BatchNorm1d(8, affine=False, eps=1e-12)
    last = torch.nn.Linear(8, 2, bias=False)
    network = torch.nn.Sequential(first, torch.nn.ReLU(), norm, last).double()
    outputs = network(torch.randn(64, 6, generator=rng, dtype=torch.float64))
    (outputs - torch.randn(64, 2, generator=rng, dtype=torch.float64)).square().sum(1).mean().backward()
    along = (first.weight.grad * first.weight).sum() / (first.weight.grad.norm() * first.weight.norm())
    assert abs(along) < 1e-10
    assert abs((last.weight.grad * last.weight).sum()) > 1e-3


NETWORK, DATA = random_network((3, 4), 1.0, 1), random_data(4, 3, 0)


@pytest.mark.parametrize(
    ("call", "argument"),
    [
        (lambda: lagging_margins(-0.1, 1.0), "weight_decay"),
        (lambda: lagging_margins(0.1, 0.0), "rho_0"),
        (lambda: lagging_margins(0.1, 1.0, 0.0), "share"),
        (lambda: sample_velocities(NETWORK, DATA, -0.1), "weight_decay"),
        (lambda: mean_square_of_batches(np.ones((3, 2)), 4), "batch_size"),
        (lambda: mean_square_of_batches(np.ones(3), 1), "velocities"),
        (lambda: determines_gradients([], 0), "samples"),
        (lambda: least_epochs(4, 4), "batch_size"),
        (lambda: resting_margins(1.0, 0.3), "weight_decay"),
        (lambda: resting_margins(0.0, 0.3), "rho"),
        (lambda: decaying_norms([0, 1], [1.0], -0.1), "weight_decay"),
    ],
)
def test_bad_arguments_are_named(call, argument):
    with pytest.raises(ArgumentError, match=f"^{argument} must be"):
        call()
