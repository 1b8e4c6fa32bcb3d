"""Reduction that minimises the error for an input with a known spectrum: variable projection and the two-sided iteration."""

import warnings

import numpy as np
import pytest

import lqo_mor as lqo
from lqo_mor.analysis.door import norm_of
from lqo_mor.analysis.spectrum import InputSpectrum
from lqo_mor.errors import AccuracyWarning, DimensionError, InvalidInputError, OrderError
from lqo_mor.reduction.descent.projected_gradient import free_error
from lqo_mor.reduction.objective import error
from lqo_mor.reduction.objective.error import projected_error, reduced_system
from lqo_mor.reduction.refit import fit_outputs
from tests.brute import complex_derivative, derivative
from tests.cases import CASES, dense, diagonal, get, parametrize, select
from tests.reduction.problems import NAMES, free

BAND = InputSpectrum.from_autoregression([2 * 0.9 * np.cos(0.5), -(0.9**2)])  # a resonance at the frequency 0.5
DISCRETE = select(hard=False, real=True, continuous=False)
METHODS = pytest.mark.parametrize("method", ["optimal", "tsia"])


def coloured(m, batch=()):
    """Slow inputs that hang together over time and among each other, both ways."""
    u = np.random.default_rng(1).standard_normal((*batch, 3, 12, m))
    u = u + np.cumsum(u, axis=-2)
    u[..., 1:, :] += 0.7 * u[..., :-1, ::-1]
    return InputSpectrum.from_data(u)


def weighted(sys):
    return coloured(sys.n_inputs, getattr(sys, "batch", ()))


def close(got, wanted, noise=0.0):
    np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-6 * np.abs(wanted).max() + noise)


@pytest.mark.parametrize("modes", [True, False])
@pytest.mark.parametrize(
    "name", [name.format("discrete") for name in [*NAMES, "diagonal {} mimo linear", "dense {} mimo linear"]]
)
def test_error_and_gradients(name, modes, monkeypatch):
    sys = get(name)
    if not modes:  # by the transfer of the dense matrix
        monkeypatch.setattr(error, "well_conditioned_modes", lambda sys: None)
    spectrum, start = weighted(sys), diagonal(98, pairs=2, reals=1, m=sys.n_inputs)
    problem, rng = error.problem_of(sys, norm_of(sys, None, spectrum)), np.random.default_rng(99)
    real, mu, B = start.is_real_pole, start.poles, start.B
    rows, W = rng.standard_normal((problem.p + 2 * problem.c, start.order)), rng.standard_normal(problem.W.shape) / 3

    value, (d_mu, d_B, d_rows, d_W), _ = free_error(problem, real, mu, B, rows, W)
    system = reduced_system(problem, mu, B, real, rows, W, None, sys.dt)
    assert value == pytest.approx(lqo.h2_error(sys, system, spectrum=spectrum) ** 2, rel=1e-9)
    close(d_rows, derivative(lambda rows: free_error(problem, real, mu, B, rows, W)[0], rows))
    if W.size:
        close(d_W, derivative(lambda W: free_error(problem, real, mu, B, rows, W)[0], W))
    close(d_mu, free(complex_derivative(lambda z: free_error(problem, real, free(z, real), B, rows, W)[0], mu), real))
    close(d_B, free(complex_derivative(lambda z: free_error(problem, real, mu, free(z, real), rows, W)[0], B), real))

    for ridge in (0.0, 1e-2):
        _, gamma, delta, _ = projected_error(problem, mu, B, real, ridge)

        def smallest(mu=mu, B=B, ridge=ridge):
            return projected_error(problem, free(mu, real), free(B, real), real, ridge)[0]

        noise = 1e-8 * problem.squared_norm
        close(gamma.conj(), free(complex_derivative(lambda z: smallest(mu=z), mu), real), noise)
        close(delta.conj(), free(complex_derivative(lambda z: smallest(B=z), B), real), noise)


@parametrize([case for case in CASES if case.real and not case.continuous])
@METHODS
def test_no_worse_than_weighted_balanced_truncation(sys, method):
    order, spectrum = max(1, int(np.min(sys.order)) // 2), weighted(sys)
    with warnings.catch_warnings():
        if any(case.sys is sys for case in CASES if case.hard):
            warnings.simplefilter("ignore", AccuracyWarning)
        start = lqo.balanced_truncation(sys, order, spectrum=spectrum)
        red = lqo.reduce(sys, order, method=method, spectrum=spectrum)
    assert np.all(red.error <= start.error * (1 + 1e-9))
    assert np.all(red.error <= red.start_error * (1 + 1e-9))
    np.testing.assert_array_equal(red.error, lqo.h2_error(sys, red.system, spectrum=spectrum))
    np.testing.assert_allclose(red.relative_error, lqo.h2_error(sys, red.system, relative=True, spectrum=spectrum), rtol=1e-14)
    poles = red.system.poles if isinstance(sys, lqo.DiagonalLQOSystem) else np.linalg.eigvals(red.system.A)
    assert np.abs(poles).max() < 1
    assert type(red.system) is type(sys)
    assert np.shape(red.error) == np.shape(red.status) == getattr(sys, "batch", ())
    np.testing.assert_array_equal(red.system.D, sys.D)
    assert red.bound is None
    assert red.spectrum is spectrum
    assert "(weighted by the spectrum of the input" in str(red)


@pytest.mark.parametrize(("m", "p", "c"), [(1, 1, 0), (1, 2, 0), (2, 2, 0), (1, 1, 2), (2, 1, 2)])
@pytest.mark.parametrize("form", ["diagonal", "dense"])
def test_first_order_optimality(m, p, c, form, rng):
    sys = diagonal(31, pairs=5, reals=1, m=m, p=p, c=c)
    full, spectrum = lqo.to_dense(sys) if form == "dense" else sys, coloured(m)
    red = lqo.variable_projection(full, 4, spectrum=spectrum, tolerance=1e-9, max_iterations=2000)
    best = lqo.to_diagonal(red.system) if form == "dense" else red.system
    real = best.is_real_pole

    def moved(size):
        poles = best.poles * (1 + size * free(rng.standard_normal(real.size) + 1j * rng.standard_normal(real.size), real))
        B, C = (a + size * a * rng.standard_normal(a.shape) for a in (best.B, best.C))
        if c:  # the quadratic rows belong to poles and inputs
            return fit_outputs(sys, poles, B, norm_of(sys, None, spectrum))
        return lqo.DiagonalLQOSystem(poles, B, C, best.D, dt=1.0)

    changes = [lqo.h2_error(sys, moved(size), spectrum=spectrum) / red.error - 1 for size in [1e-4] * 20 + [1e-2] * 10]
    assert min(changes) > -1e-7


def test_the_error_is_that_of_the_outputs_for_a_sequence(rng):
    u = np.cumsum(rng.standard_normal((40, 2)), axis=0)
    sys = diagonal(32, pairs=4, m=2, p=2)
    red = lqo.reduce(sys, 4, spectrum=InputSpectrum.from_data(u))
    padded = np.concatenate([u, np.zeros((400, 2))])
    difference = lqo.simulate(sys, padded) - lqo.simulate(red.system, padded)
    assert red.error**2 * len(u) == pytest.approx(np.sum(difference**2), rel=1e-8)


@parametrize([case for case in DISCRETE if case.linear])
@METHODS
def test_white_input_gives_the_plain_optimum(sys, method):
    white = lqo.reduce(sys, 3, method=method, spectrum=InputSpectrum.white(sys.n_inputs))
    plain = lqo.reduce(sys, 3, method=method)
    # where a pair runs into the real axis, quasi-Newton steps creep and stall short of the infimum, wherever rounding says
    crept = plain.status is lqo.Status.STALLED and method == "optimal" and sys.n_inputs > 1
    np.testing.assert_allclose(white.error, plain.error, rtol=1e-6 if crept else 1e-8)


@pytest.mark.parametrize("c", [0, 1])
@pytest.mark.parametrize("order", [3, 4])
def test_an_advantage_where_the_input_is(c, order):
    for seed in range(5):
        sys = diagonal(seed, pairs=8, c=c)
        red, plain = lqo.reduce(sys, order, spectrum=BAND), lqo.reduce(sys, order)
        assert red.error < 0.95 * lqo.h2_error(sys, plain.system, spectrum=BAND)


@pytest.mark.parametrize(("m", "c"), [(1, 0), (1, 1), (2, 0)])
@METHODS
def test_a_batch_is_its_channels(m, c, method):
    sys, spectrum = diagonal(33, pairs=4, m=m, c=c, batch=(2, 2)), coloured(m, (2, 2))
    red = lqo.reduce(sys, 3, method=method, spectrum=spectrum)
    for index in np.ndindex(sys.batch):
        single = lqo.reduce(sys[index], 3, method=method, spectrum=spectrum[index])
        assert red.error[index] >= single.error * (1 - 1e-6)  # which has more starts
        assert red.error[index] <= single.error * 1.05
    shared = lqo.reduce(sys, 3, method=method, spectrum=spectrum[0, 0])
    assert shared.error[0, 0] == pytest.approx(red.error[0, 0], rel=1e-6)


@pytest.mark.parametrize("c", [0, 1])
@METHODS
def test_a_channel_without_input(c, method):
    sys, R = diagonal(34, pairs=4, c=c, batch=(3,)), coloured(1, (3,)).covariances.copy()
    R[1] = 0
    red = lqo.reduce(sys, 3, method=method, spectrum=InputSpectrum(R))
    assert red.error[1] == 0
    assert np.all(np.isfinite(red.error))
    assert np.all(red.error[[0, 2]] > 0)


@pytest.mark.parametrize("m", [1, 2])
def test_several_orders_and_a_tolerance(m):
    sys, spectrum = diagonal(35, pairs=5, m=m, p=2), coloured(m)
    curve = lqo.reduce(sys, orders=[2, 4, 6], method=["balanced", "optimal", "tsia"], spectrum=spectrum)
    for method in ("optimal", "tsia"):
        assert np.all(np.diff(curve.errors[method]) <= 0)
        assert np.all(curve.errors[method] <= curve.errors["balanced"] * (1 + 1e-9))
    for red in curve.reductions["optimal"]:
        assert red.error == lqo.h2_error(sys, red.system, spectrum=spectrum)
    np.testing.assert_allclose(curve.hsv, lqo.hankel_singular_values(sys, spectrum=spectrum), rtol=1e-8, atol=1e-12)
    assert "weighted by the spectrum" in str(curve)
    wanted = curve.errors["optimal"][1] * (1 + 1e-6)
    assert lqo.reduce(sys, max_error=wanted, spectrum=spectrum).system.order <= 4


@pytest.mark.parametrize(("m", "c"), [(1, 0), (2, 1)])
def test_slots_and_starts(m, c):
    sys, spectrum = diagonal(36, pairs=4, reals=3, m=m, c=c), coloured(m)
    red = lqo.reduce(sys, slots=3, spectrum=spectrum)
    assert red.system.n_slots <= 3
    begun = lqo.modal_truncation(sys, slots=3)
    again = lqo.reduce(sys, slots=3, spectrum=spectrum, start=["modal", begun, lqo.modal_truncation(sys, slots=2).system])
    assert again.error <= lqo.h2_error(sys, begun.system, spectrum=spectrum)
    assert lqo.tsia(sys, slots=3, spectrum=spectrum, start=red).error <= red.error * (1 + 1e-9)


@METHODS
def test_what_is_refused(method):
    with pytest.raises(InvalidInputError, match="leave out horizon"):
        lqo.reduce(dense(0), 2, method=method, horizon=5, spectrum=BAND)
    with pytest.raises(InvalidInputError, match="continuous"):
        lqo.reduce(dense(0, continuous=True), 2, method=method, spectrum=BAND)
    with pytest.raises(DimensionError, match="that of 1 inputs"):
        lqo.reduce(dense(0, m=2), 2, method=method, spectrum=BAND)
    with pytest.raises(DimensionError, match="the spectrum has the batch"):
        lqo.reduce(diagonal(0, batch=(2,)), 2, method=method, spectrum=coloured(1, (3,)))
    with pytest.raises(InvalidInputError, match="must be an InputSpectrum"):
        lqo.reduce(dense(0), 2, method=method, spectrum=BAND.covariances)
    with pytest.raises(OrderError):
        lqo.reduce(dense(0), 6, method=method, spectrum=BAND)
    with pytest.raises(InvalidInputError, match="these take none: modal"):
        lqo.reduce(dense(0), orders=[2], method=[method, "modal"], spectrum=BAND)
    with pytest.raises(InvalidInputError, match="no option 'spectrum'"):
        lqo.reduce(dense(0), 2, method="irka", spectrum=BAND)
