"""The toy model's dynamics against gradient descent, finite differences, closed forms and conserved quantities."""

import math

import numpy as np
import pytest
from scipy.integrate import cumulative_simpson, solve_ivp
from scipy.signal import argrelmax

from ncflow.checks import ArgumentError
from ncflow.theory.toy_model.fields import normalized_field, unnormalized_field
from ncflow.theory.toy_model.flow import gradient_descent, gradient_flow
from ncflow.theory.toy_model.landscape import CircleNetwork, landscape
from ncflow.theory.toy_model.network import ToyData, ToyNetwork, forward, pullback, random_data, random_network
from ncflow.theory.toy_model.norm import (
    equal_growth_rho,
    equilibrium_rho,
    equivalent_decay,
    logistic_rho,
    margin_moments,
    oscillation,
)

TIMES = np.linspace(0, 4, 41)
LINEAR = pytest.param(None, id="linear")
BENT = pytest.param(1e-2, id="bent")


def problem(bend, *, rho=1.0, widths=(3, 5, 4), samples=5, seed=0):
    return random_network(widths, rho, seed + 1, bend=bend), random_data(samples, widths[0], seed)


def positive_problem():
    """All weights and inputs positive: no ReLU ever switches on a short path."""
    rng = np.random.default_rng(0)
    network = ToyNetwork.of([rng.uniform(0.5, 1, (3, 2)), rng.uniform(0.5, 1, (1, 3))])
    return network, ToyData(rng.uniform(0.2, 0.7, (4, 2)), np.ones(4))


def loss(state, data, bend, decay, kind):
    """A transcription of eq. 1 on the spheres, and of the loss above eq. 48."""
    if kind == "normalized":
        outputs = state[0] * forward([V / np.linalg.norm(V) for V in state[1:]], data.inputs, bend)[0]
        penalty = state[0][0] ** 2
    else:
        outputs = forward(state, data.inputs, bend)[0]
        penalty = sum((W**2).sum() for W in state)
    return ((outputs - data.labels) ** 2).mean() + decay * penalty


@pytest.mark.parametrize("kind", ["normalized", "unnormalized"])
@pytest.mark.parametrize("bend", [LINEAR, BENT, pytest.param(0.0, id="relu")])
def test_fields_are_minus_the_gradient_of_the_loss(bend, kind):
    network, data = problem(bend, rho=1.7)
    field = normalized_field if kind == "normalized" else unnormalized_field
    state = (np.array([network.rho]), *network.layers) if kind == "normalized" else network.layers
    found = field(state, data, bend, 0.3)
    for part, velocity in zip(state, found, strict=True):
        for index in np.ndindex(part.shape):
            ends = []
            for shift in (1e-6, -1e-6):
                part[index] += shift
                ends.append(loss(state, data, bend, 0.3, kind))
                part[index] -= shift
            assert velocity[index] == pytest.approx(-(ends[0] - ends[1]) / 2e-6, abs=1e-7)


@pytest.mark.parametrize("bend", [LINEAR, pytest.param(0.0, id="relu")])
def test_structural_lemma(bend):
    network, data = problem(bend, widths=(3, 6, 5, 4))
    c = np.arange(1.0, 6)
    outputs, activations = forward(network.layers, data.inputs, bend)
    for layer, gradient in zip(network.layers, pullback(network.layers, activations, c, bend), strict=True):
        assert np.vdot(layer, gradient) == pytest.approx((c * outputs).sum(), rel=1e-12)


def order(network, data, kind, second_order):
    """Ratio of the distances of descent and flow at steps eta and eta/2: 2^p for a difference of order p."""
    gaps = []
    for step in (0.02, 0.01):
        descent = gradient_descent(network, data, round(2 / step), step=step, weight_decay=0.01, kind=kind)
        times = descent.time
        flow = gradient_flow(network, data, times, weight_decay=0.01, kind=kind, step=step if second_order else 0.0)
        gaps.append(max(np.abs(a[-1] - b[-1]).max() for a, b in zip(flow.layers, descent.layers, strict=True)))
    return gaps[0] / gaps[1]


@pytest.mark.parametrize("kind", ["normalized", "unnormalized"])
@pytest.mark.parametrize("name", ["linear", "relu"])
def test_descent_is_the_flow_to_first_and_the_second_order_flow_to_second_order(name, kind):
    network, data = problem(None, rho=2.0) if name == "linear" else positive_problem()
    assert order(network, data, kind, second_order=False) == pytest.approx(2, rel=0.1)
    assert order(network, data, kind, second_order=True) == pytest.approx(4, rel=0.15)


@pytest.mark.parametrize("rho", [0.1, 5.0, 12.0])
@pytest.mark.parametrize("bend", [LINEAR, BENT])
def test_normalized_flow_stays_on_the_spheres_and_descends(bend, rho):
    network, data = problem(bend, rho=rho)
    found = gradient_flow(network, data, 10 * TIMES, weight_decay=0.01)
    np.testing.assert_allclose(found.norms, 1, atol=1e-6)
    assert (np.diff(found.loss) < 1e-9).all()
    assert found.loss[0] - found.loss[-1] > 0.01


def test_printed_multiplier_leaves_the_spheres_by_the_stated_law():
    """Eq. 7 as printed: |V|^2 - 1 grows by exp(rho(0)^2 - rho(t)^2 - 4 lambda int rho^2)."""
    network, data = problem(None, rho=4.0, widths=(1, 3))
    decay, shapes = 0.01, [V.shape for V in network.layers]
    cuts = np.cumsum([V.size for V in network.layers])[:-1]

    def printed(_, x):
        rho, layers = x[0], [v.reshape(s) for v, s in zip(np.split(x[1:], cuts), shapes, strict=True)]
        outputs, activations = forward(layers, data.inputs, None)
        f = data.labels * outputs
        r = (1 - rho * f) / len(f)
        gradients = pullback(layers, activations, r * data.labels, None)
        turns = [2 * rho * (g - V * (r * f).sum()).ravel() for g, V in zip(gradients, layers, strict=True)]
        return np.concatenate([[2 * (r * f).sum() - 2 * decay * rho], *turns])

    start = np.concatenate([[network.rho], *[1.001 * V.ravel() for V in network.layers]])
    path = solve_ivp(printed, (0, 2), start, t_eval=np.linspace(0, 2, 201), rtol=1e-11, atol=1e-13)
    rho, first = path.y[0], path.y[1 : 1 + network.layers[0].size]
    area = cumulative_simpson(rho**2, x=path.t, initial=0)
    law = (1.001**2 - 1) * np.exp(rho[0] ** 2 - rho**2 - 4 * decay * area)
    np.testing.assert_allclose((first**2).sum(0) - 1, law, rtol=1e-5)
    assert law[-1] > 4 * law[0]


def test_rho_ends_at_the_equilibrium_of_the_margins_and_lemma_9_holds_on_the_way():
    network, data = problem(BENT.values[0], rho=3.0, widths=(3, 20))
    decay = 0.02
    found = gradient_flow(network, data, np.linspace(0, 600, 301), weight_decay=decay)
    assert found.rho[-1] == pytest.approx(equilibrium_rho(found.margins[-1], decay), rel=1e-4)
    for rho, margins, loss_here in zip(found.rho, found.margins, found.loss, strict=True):
        mean, second = margin_moments(margins)
        rho_dot = 2 * (mean - rho * (second + decay))
        assert loss_here == pytest.approx(1 - rho * (rho_dot / 2 + mean), abs=1e-12)


@pytest.mark.parametrize("kind", ["normalized", "unnormalized"])
def test_without_weight_decay_it_interpolates_and_all_margins_are_one_over_rho(kind):
    network, data = problem(None, rho=2.0, widths=(6, 8), samples=4)
    found = gradient_flow(network, data, np.linspace(0, 300, 31), kind=kind)
    assert found.square_error[-1] < 1e-8
    np.testing.assert_allclose(found.margins[-1], 1 / found.rho[-1], rtol=1e-4)


def test_least_norm_interpolation_from_a_small_start():
    """A linear layer from near 0 without normalisation ends at the pseudo-inverse's solution, of norm rho_0."""
    data = random_data(4, 6, 0)
    best = np.linalg.pinv(data.inputs) @ data.labels
    found = gradient_flow(random_network((6,), 1e-6, 0, bend=None), data, np.linspace(0, 400, 5), kind="unnormalized")
    np.testing.assert_allclose(found.layers[0][-1, 0], best, atol=1e-5)
    assert found.rho[-1] == pytest.approx(equilibrium_rho(found.margins[-1], 0.0), rel=1e-6)
    larger = gradient_flow(random_network((6,), 5.0, 0, bend=None), data, np.linspace(0, 400, 5), kind="unnormalized")
    assert larger.rho[-1] > 1.1 * found.rho[-1]


@pytest.mark.parametrize("widths", [(3,), (3, 8), (3, 8, 5)])
def test_an_equilibrium_without_normalization_is_one_with_it_at_the_equivalent_decay(widths):
    """Appendix G; with the same lambda only for one layer."""
    network, data = problem(None, rho=2.0, widths=widths)
    decay, layers = 0.02, len(widths)
    found = gradient_flow(network, data, np.linspace(0, 3000, 4), weight_decay=decay, kind="unnormalized")
    end = ToyNetwork.of([W[-1] for W in found.layers], bend=None)
    state = (np.array([end.rho]), *end.layers)
    same = equivalent_decay(decay, end.rho, layers)
    assert max(np.abs(v).max() for v in normalized_field(state, data, None, same)) < 1e-7
    stays = gradient_flow(end, data, [0, 50], weight_decay=same)
    np.testing.assert_allclose(stays.margins[-1], found.margins[-1], atol=1e-6)
    if layers > 1:
        assert max(np.abs(v).max() for v in normalized_field(state, data, None, decay)) > 1e-4


@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_layers_grow_equally_but_for_weight_decay(decay):
    """Lemma 10: differences of |W_k|^2 are constant, with weight decay they fall as exp(-4 lambda t)."""
    data = random_data(5, 3, 0)
    network = random_network((3, 4, 5), 2.0, 1)
    state = tuple(s * V for s, V in zip((0.5, 2.0, 1.0), network.layers, strict=True))
    found = unnormalized_field(state, data, 0.0, decay)
    speeds = [2 * np.vdot(W, v) + 4 * decay * (W**2).sum() for W, v in zip(state, found, strict=True)]
    np.testing.assert_allclose(speeds, speeds[0], rtol=1e-12)
    assert abs(speeds[0]) > 1e-3
    path = gradient_flow(random_network((3, 4, 5), 2.0, 1, bend=None), data, TIMES, kind="unnormalized")
    np.testing.assert_allclose(path.norms, path.norms[:, :1] * np.ones(3), rtol=1e-8)


def test_unnormalized_flow_of_equal_layers_moves_rho_as_eq_51():
    network, data = problem(None, rho=1.5, widths=(3, 4, 5))
    found = gradient_flow(network, data, np.linspace(0, 1, 1001), kind="unnormalized")
    mean, second = np.array([margin_moments(f) for f in found.margins]).T
    L = 3
    expected = 2 * L * found.rho ** ((2 * L - 2) / L) * (mean - found.rho * second)
    np.testing.assert_allclose(np.gradient(found.rho, found.time)[1:-1], expected[1:-1], rtol=1e-3)


@pytest.mark.parametrize("decay", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("rho", [0.01, 0.4, 3.0])
def test_logistic_growth(rho, decay):
    """The closed form is eq. 51 for L = 2; and the flow itself where mu and M cannot change (N = d = 1)."""
    times = np.linspace(0, 12, 50)
    closed = logistic_rho(times, rho, 0.4, 0.16, decay)
    np.testing.assert_allclose(
        equal_growth_rho(times, rho, 0.4, 0.16, layers=2, weight_decay=decay), closed, rtol=1e-6, atol=1e-9
    )
    network = ToyNetwork((np.ones((1, 1)), np.ones((1, 1))), rho)
    data = ToyData(np.array([[0.4]]), np.ones(1))
    flow = gradient_flow(network, data, times, weight_decay=decay, kind="unnormalized")
    np.testing.assert_allclose(flow.rho, closed, rtol=1e-6, atol=1e-9)


def test_one_normalized_layer_relaxes_exponentially():
    times = np.linspace(0, 8, 20)
    found = equal_growth_rho(times, 0.1, 0.4, 0.16, layers=1)
    np.testing.assert_allclose(found, 2.5 + (0.1 - 2.5) * np.exp(-2 * 0.16 * times), rtol=1e-7)


SCALAR = ToyNetwork((np.ones((1, 1)),), 3.0)


@pytest.mark.parametrize(("margin", "decay", "step"), [(0.8, 0.05, 1.0), (0.5, 0.2, 2.0)])
def test_frequency_is_that_of_the_second_order_flow(margin, decay, step):
    data = ToyData(np.array([[margin]]), np.ones(1))
    times = np.linspace(0, 16 * step, 20001)
    found = gradient_flow(SCALAR, data, times, weight_decay=decay, step=step)
    away = (found.rho - equilibrium_rho([margin], decay)) * np.exp(times / step)
    (peaks,) = argrelmax(away)
    expected = oscillation([margin], decay, step)
    assert len(peaks) >= 3
    assert 2 * math.pi / np.diff(times[peaks]).mean() == pytest.approx(expected.frequency, rel=1e-3)
    assert expected.undamped_frequency**2 == pytest.approx(4 * (margin**2 + decay) / step)
    printed = 4 * (margin**2 + 2 * decay) / step
    assert abs(printed / expected.undamped_frequency - 1) > 0.1


def test_descent_does_not_oscillate_where_the_second_order_flow_does():
    """eta (M + lambda) = 0.4, between 1/4 and 1/2."""
    data = ToyData(np.array([[0.8]]), np.ones(1))
    step = 0.4 / 0.64
    kinds = oscillation([0.8], 0.0, step)
    assert kinds.frequency > 0
    descent = gradient_descent(SCALAR, data, 10, step=step)
    away = descent.rho - 1 / 0.8
    np.testing.assert_allclose(away[1:] / away[:-1], kinds.descent_factor, rtol=1e-4)
    assert kinds.descent_factor == pytest.approx(0.2)
    flow = gradient_flow(SCALAR, data, np.linspace(0, 10, 200), step=step)
    assert flow.rho.min() < 1 / 0.8 - 1e-3 < descent.rho.min()
    assert oscillation([0.8], 0.0, 0.2 / 0.64).frequency == 0


def test_second_order_flow_drifts_off_the_spheres_as_descent_does():
    network, data = problem(None, rho=2.0)
    step = 0.01
    descent = gradient_descent(network, data, 200, step=step)
    flow = gradient_flow(network, data, descent.time, step=step)
    assert np.abs(descent.norms - 1).max() > 1e-4
    np.testing.assert_allclose(flow.norms - 1, descent.norms - 1, atol=0.05 * np.abs(descent.norms - 1).max())


def test_a_relu_that_slides_is_refused_in_words(monkeypatch):
    monkeypatch.setattr("ncflow.theory.toy_model.flow._MOST_EVALUATIONS", 20_000)
    network, data = random_network((4, 16), 0.1, 1), random_data(8, 4, 0)
    with pytest.raises(RuntimeError, match="bend"):
        gradient_flow(network, data, [0, 1000], weight_decay=0.01)


@pytest.mark.parametrize("bend", [None, 0.05])
def test_circle_flow_is_the_gradient_of_the_landscape(bend):
    network, h = CircleNetwork(bend=bend), 1e-6
    for rho, angle in ((0.5, 0.3), (4.0, 2.0), (2.0, 4.0)):
        rhos, angles = network.flow(rho, angle, [0, h], 0.1)
        slopes = [
            (landscape(rho + h, network.margin(angle), 0.1) - landscape(rho - h, network.margin(angle), 0.1)) / (2 * h),
            (landscape(rho, network.margin(angle + h), 0.1) - landscape(rho, network.margin(angle - h), 0.1)) / (2 * h),
        ]
        np.testing.assert_allclose([(rhos[1] - rho) / h, (angles[1] - angle) / h], -np.array(slopes), rtol=1e-4)


def test_valley_is_degenerate_and_holds_more_than_one_least_norm():
    network = CircleNetwork()
    angles = np.linspace(-math.pi, math.pi, 721)
    margins = network.margin(angles)
    np.testing.assert_allclose(landscape(1 / margins, margins), 0, atol=1e-20)
    assert len(argrelmax(margins, mode="wrap")[0]) >= 2
    assert len(argrelmax(CircleNetwork(bend=None).margin(angles))[0]) == 1
    times = np.linspace(0, 4000, 11)
    best, stuck = (network.flow(3.0, angle, times, 1e-3) for angle in (0.6, 2.2))
    assert best[0][-1] < 0.5 * stuck[0][-1]
    assert best[1][-1] == pytest.approx(0, abs=1e-3)
    assert stuck[1][-1] == pytest.approx(2 * math.pi / 3, abs=1e-3)


NETWORK, DATA = problem(None)


@pytest.mark.parametrize(
    ("call", "argument"),
    [
        (lambda: ToyData(np.ones(3), np.ones(3)), "inputs"),
        (lambda: ToyData(np.full((2, 2), np.nan), np.ones(2)), "inputs"),
        (lambda: ToyData(np.ones((2, 2)), np.array([0.0, 1.0])), "labels"),
        (lambda: ToyNetwork((np.ones((1, 3)),), 1.0), "layers"),
        (lambda: ToyNetwork(NETWORK.layers, -1.0), "rho"),
        (lambda: ToyNetwork(NETWORK.layers[:1], 1.0), "layers"),
        (lambda: ToyNetwork(NETWORK.layers, 1.0, -0.1), "bend"),
        (lambda: random_network((), 1.0, 0), "widths"),
        (lambda: random_data(1, 3, 0), "samples"),
        (lambda: gradient_flow(NETWORK, DATA, [1, 2]), "times"),
        (lambda: gradient_flow(NETWORK, DATA, TIMES, step=-0.1), "step"),
        (lambda: gradient_flow(NETWORK, DATA, TIMES, weight_decay=-1), "weight_decay"),
        (lambda: gradient_flow(NETWORK, DATA, TIMES, kind="batch"), "kind"),
        (lambda: gradient_flow(NETWORK, random_data(4, 5, 0), TIMES), "inputs"),
        (lambda: gradient_descent(NETWORK, DATA, 0, step=0.1), "steps"),
        (lambda: equilibrium_rho([0.0], 0.0), "margins"),
        (lambda: oscillation([0.1], 0.0, 0.0), "step"),
        (lambda: equivalent_decay(0.1, 0.0, 2), "rho"),
        (lambda: logistic_rho(TIMES, 1.0, 0.1, 0.1, 0.1), "weight_decay"),
        (lambda: equal_growth_rho(TIMES, 1.0, 0.1, 0.1, layers=0), "layers"),
        (lambda: CircleNetwork((1.0, 1.0)), "second_layer"),
        (lambda: landscape(1.0, 0.5, -1), "weight_decay"),
    ],
)
def test_bad_arguments_are_named(call, argument):
    with pytest.raises(ArgumentError, match=f"^{argument} must be"):
        call()
