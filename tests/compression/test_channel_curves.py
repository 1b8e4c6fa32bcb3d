"""Systems reduced for inputs with known covariances: errors against sums over samples, derivatives, curves."""

import numpy as np
import pytest
from scipy.signal import lfilter

import lqo_mor as lqo
from lqo_mor.compression.calibration.channel_curves import (
    ChannelSearch,
    InputCovariances,
    _fitted,
    assembled,
    refit_channels,
    weighted_curves,
)
from lqo_mor.matrix_equations import pairing_jets
from lqo_mor.matrix_equations.pairing_jets import TWO_INPUTS, TWO_INPUTS_FREE, WEIGHTED, WEIGHTED_FREE
from lqo_mor.reduction.sections.data import _LEAST_RIDGE, _weighted_data
from lqo_mor.reduction.sections.kernel_data import SQUARED_NORM, kernel_data
from lqo_mor.reduction.sections.sections import FREE, PAIR, REAL
from tests.brute import derivative
from tests.reduction.section_checks import jet, parameters

STEPS, LONG = 60, 2500  # of the inputs, and of the responses with their tails
FEEDTHROUGH = 0.7
CODES = pytest.mark.parametrize("code", [WEIGHTED, WEIGHTED_FREE, TWO_INPUTS, TWO_INPUTS_FREE])


@pytest.fixture
def rng():
    return np.random.default_rng(3)


def channels(rng, count=1, pairs=5, reals=2):
    n = pairs + reals
    pair = np.arange(n) < pairs
    decay, angle = rng.uniform(0.02, 0.6, (count, n)), np.where(pair, rng.uniform(0.1, 3.0, (count, n)), 0.0)
    C = rng.normal(size=(count, n)) + 1j * pair * rng.normal(size=(count, n))
    return lqo.DiagonalLQOSystem(
        np.where(pair, np.exp(-decay + 1j * angle), np.exp(-decay)),
        np.ones((count, n, 1)),
        C[:, np.newaxis],
        np.full((count, 1, 1), FEEDTHROUGH),
        dt=1.0,
    )


def inputs(rng, count=1):
    """Two inputs that resemble each other, (count, STEPS) each."""
    v = lfilter([1], [1, -0.8], rng.normal(size=(count, STEPS)))
    return v, v + 0.3 * rng.normal(size=v.shape)


def covariances(a, b):
    """``Σ_t a_{t+j} b_t`` for j = 0, 1, ... and 0, -1, ..."""
    full = np.correlate(a, b, "full")
    return full[STEPS - 1 :], full[:STEPS][::-1]


def response(poles, residues, feedthrough, u):
    """The output with delay 0, tail included."""
    powers = poles[:, np.newaxis] ** np.arange(LONG)
    kernel = ((residues * np.where(poles.imag == 0, 1, 2))[:, np.newaxis] * powers).sum(axis=0).real
    kernel[0] += feedthrough
    return np.convolve(kernel, u)[:LONG]


def form(code, sys, v, u, ridge=0.0):
    """What the kernels need of a single channel."""
    lam, outputs = np.array(sys.poles[0]), np.array(sys.C[0]) * np.where(sys.poles[0].imag == 0, 0.5, 1.0)
    D = float(sys.D[0, 0, 0])
    if code in (WEIGHTED, WEIGHTED_FREE):
        return _weighted_data(lam, outputs, covariances(v, v)[0], ridge, code == WEIGHTED_FREE)
    own, (later, sooner) = covariances(u, u)[0], covariances(v, u)
    features = np.zeros((pairing_jets.N_FEATURES, lam.size), complex)
    pairing_jets._correlation_series(np.ascontiguousarray(sooner), lam, features[:3])
    y = response(lam, sys.C[0, 0], D, v)
    shared = float(y[:STEPS] @ u)
    last, left = (
        (shared, y @ y - shared**2 / own[0])
        if code == TWO_INPUTS_FREE
        else (D * own[0], np.sum((y - np.pad(D * u, (0, LONG - STEPS))) ** 2))
    )
    pairing = code, np.concatenate([own, later, [D, last]])
    return kernel_data(pairing, lam, features, outputs, left, max(ridge, _LEAST_RIDGE))


def best(code, sys, v, u, mu):
    """The smallest squared error with the poles `mu`, by least squares on the responses."""
    read = v if code in (WEIGHTED, WEIGHTED_FREE) else u
    D = float(sys.D[0, 0, 0])
    target = response(sys.poles[0], sys.C[0, 0], D, v)
    columns = []
    for z in mu:
        columns += [response(np.array([z]), np.array([c]), 0.0, read) for c in ((1.0,) if z.imag == 0 else (1.0, 1.0j))]
    through = np.pad(read, (0, LONG - STEPS))
    if code in (WEIGHTED_FREE, TWO_INPUTS_FREE):
        columns.append(through)
    else:
        target = target - D * through
    columns = np.array(columns).T
    return np.sum((target - columns @ np.linalg.lstsq(columns, target, rcond=None)[0]) ** 2)


@CODES
def test_error_is_that_of_the_best_outputs(code, rng):
    sys = channels(rng)
    v, u = (part[0] for part in inputs(rng))
    data, mu = form(code, sys, v, u), np.array([0.9 * np.exp(0.4j), 0.8, 0.6 * np.exp(2j)])
    residues, change, squared = _fitted(data, mu)
    assert squared == pytest.approx(best(code, sys, v, u, mu), rel=1e-8)
    D = {WEIGHTED: FEEDTHROUGH, WEIGHTED_FREE: FEEDTHROUGH + change, TWO_INPUTS: FEEDTHROUGH, TWO_INPUTS_FREE: change}[code]
    read = v if code in (WEIGHTED, WEIGHTED_FREE) else u
    error = response(sys.poles[0], sys.C[0, 0], FEEDTHROUGH, v) - response(mu, residues, D, read)
    assert squared == pytest.approx(error @ error, rel=1e-8)


@CODES
@pytest.mark.parametrize("kinds", [(FREE, FREE, REAL), (PAIR, REAL), (PAIR, PAIR)])
@pytest.mark.parametrize("ridge", [0.0, 1e-3])
def test_derivatives(code, kinds, ridge, rng):
    data = form(code, channels(rng), *(part[0] for part in inputs(rng)), ridge=ridge)
    x = parameters(rng, False, kinds)
    _, gradient, hessian = jet(data, kinds, x)
    slopes = derivative(lambda y: jet(data, kinds, y)[0], x, step=3e-4)
    bends = np.array([derivative(lambda y, i=i: jet(data, kinds, y)[1][i], x, step=3e-4) for i in range(x.size)])
    np.testing.assert_allclose(gradient, slopes, rtol=0, atol=1e-7 * np.abs(gradient).max())
    np.testing.assert_allclose(hessian, bends, rtol=0, atol=1e-6 * np.abs(hessian).max())


def test_white_input_gives_the_plain_norm(rng):
    sys = channels(rng)
    data = _weighted_data(
        np.array(sys.poles[0]), np.array(sys.C[0]) * np.where(sys.poles[0].imag == 0, 0.5, 1.0), [1.0], 0.0, False
    )
    strictly = lqo.DiagonalLQOSystem(sys.poles, sys.B, sys.C, dt=1.0)
    assert data[SQUARED_NORM] == pytest.approx(lqo.h2_norm(strictly)[0] ** 2, rel=1e-12)


@pytest.mark.parametrize("discount", [1.0, 0.95])
@pytest.mark.parametrize("free", [False, True])
def test_curves(free, discount, rng):
    sys = channels(rng, count=3)
    v, _ = inputs(rng, 3)
    R = np.array([covariances(row, row)[0] for row in v])
    curves = weighted_curves(sys, R, [0, 1, 2, 3, 5, 7], ChannelSearch(free, discount=discount, ridge=1e-11, exchanges=1))
    assert np.all(np.diff(curves.squared, axis=1) <= 0)
    assert np.all(curves.squared[:, -1] == 0)
    for k, slots in enumerate(curves.slots[:-1]):
        reduced = assembled(curves.pick([k] * 3), sys.dt)
        assert np.all(np.count_nonzero(np.any(reduced.B, axis=-1), axis=-1) <= slots)
        assert np.all(np.abs(reduced.poles) < 1)
        for h in range(3):
            error = response(discount * sys.poles[h], sys.C[h, 0], FEEDTHROUGH, v[h])
            residues = reduced.C[h, 0] * reduced.B[h, :, 0]
            error = error - response(discount * reduced.poles[h], residues, reduced.D[h, 0, 0], v[h])
            assert error @ error == pytest.approx(curves.squared[h, k], rel=1e-2)  # which has the ridge in it
    # The system that is best for white inputs is no better for these.
    white = lqo.reduce(lqo.DiagonalLQOSystem(sys.poles, sys.B, sys.C, dt=1.0), slots=2)
    for h in range(3):
        error = response(discount * sys.poles[h], sys.C[h, 0], 0.0, v[h]) - response(
            discount * white.system.poles[h], white.system.C[h, 0] * white.system.B[h, :, 0], 0.0, v[h]
        )
        assert curves.squared[h, 2] <= error @ error * (1 + 1e-6)


@pytest.mark.parametrize("discount", [1.0, 0.95])
@pytest.mark.parametrize("free", [False, True])
def test_refit_to_another_input(free, discount, rng):
    sys = channels(rng, count=2)
    v, u = inputs(rng, 2)
    R = np.array([covariances(row, row)[0] for row in v])
    systems = weighted_curves(sys, R, [1, 2], ChannelSearch(free, discount=discount, ridge=0.0)).pick([1, 1])
    new = np.array([covariances(row, row)[0] for row in u])
    crossed = np.array([covariances(a, b) for a, b in zip(v, u, strict=True)])
    options = ChannelSearch(free, discount=discount, ridge=1e-11)
    refitted, squared = refit_channels(sys, systems, InputCovariances(R, new, crossed), options)

    def error(system, h):
        full = response(discount * sys.poles[h], sys.C[h, 0], FEEDTHROUGH, v[h])
        small = response(discount * system[0], *system[1:], u[h])
        return np.sum((full - small) ** 2)

    for h in range(2):
        assert squared[h] == pytest.approx(error(refitted[h], h), rel=1e-3)
        assert squared[h] <= error(systems[h], h) * (1 + 1e-6)


@pytest.mark.parametrize("code", [WEIGHTED_FREE, TWO_INPUTS_FREE])
def test_fast_modes_do_not_grow_against_the_feedthrough(code, rng):
    # A mode that has died after one step is a feedthrough but for that step: the faster it is, the larger both may be.
    sys, (v, u) = channels(rng), inputs(rng)
    residues, change, _ = _fitted(form(code, sys, v[0], u[0], ridge=1e-6), np.array([1e-6, 1e-5j]))
    assert np.abs(residues).max() < 1e3 and abs(change) < 1e3


def test_channels_without_input_or_output(rng):
    sys = channels(rng, count=2)
    silent = lqo.DiagonalLQOSystem(sys.poles, sys.B, sys.C * np.array([0.0, 1.0])[:, np.newaxis, np.newaxis], sys.D, dt=1.0)
    curves = weighted_curves(silent, np.array([[1.0, 0.5], [0.0, 0.0]]), [0, 1, 2], ChannelSearch(True))
    assert np.all(curves.squared == 0)
    nothing = InputCovariances(*np.zeros((2, 2, 2)), np.zeros((2, 2, 2)))
    refitted, squared = refit_channels(silent, curves.pick([1, 1]), nothing, ChannelSearch(True))
    assert np.all(squared == 0)
    assert all(np.all(np.isfinite(part)) for system in refitted for part in system)
