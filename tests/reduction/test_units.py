"""No relative error depends on the units of time, inputs, outputs or states, and no status."""

from dataclasses import replace

import numpy as np
import pytest

import lqo_mor as lqo
from lqo_mor.reduction.result import Status
from tests.cases import dense, diagonal

# time, inputs, outputs, states
POWERS_OF_TWO = [(4.0**30, 1, 1, 1), (4.0**-33, 2.0**20, 1, 1), (1, 1, 2.0**-60, 2.0**40)]
POWERS_OF_TEN = [(1e20, 1, 1, 1), (1e-20, 1, 1, 1), (1, 1e20, 1, 1), (1e-14, 1e-20, 1e20, 1e-10)]
SYSTEMS = {
    "siso": dense(3, n=5, continuous=True),
    "mimo": dense(4, n=6, m=2, p=2, continuous=True),
    "quadratic": dense(5, n=5, M="dense", continuous=True),
    "mixed": dense(6, n=5, m=2, p=2, M=2, continuous=True),
    "diagonal": diagonal(7, pairs=2, reals=3, p=2, continuous=True),
    "batch": diagonal(8, pairs=3, reals=1, batch=(3,), continuous=True),
    "discrete": dense(9, n=6, m=2, p=2),
    "discrete batch": diagonal(10, pairs=3, reals=1, batch=(2,)),
}


def in_units(sys, time, inputs, outputs, states):
    """The system in other units; of time by a factor or, for a batch, one per channel."""
    if sys.M is not None:
        inputs = 1  # linear and quadratic outputs do not scale alike
    root = np.sqrt(time) * inputs * states
    M = sys.M
    if isinstance(M, lqo.QuadraticOutput):
        M = lqo.QuadraticOutput(M.U / states, M.V / states, M.W * outputs)
    elif M is not None:
        M = M * (outputs / states**2)
    matrix = {"A": sys.A * time} if isinstance(sys, lqo.LQOSystem) else {"poles": sys.poles * np.expand_dims(time, -1)}
    return replace(sys, **matrix, B=sys.B * np.expand_dims(root, (-1, -2)), C=sys.C * (outputs / states), M=M)


def reduced(sys, method, horizon):
    options = {"max_iterations": 40} if method == "projected_gradient" else {}
    return lqo.reduce(sys, 2, method=method, horizon=horizon, **options)


@pytest.mark.parametrize("method", ["optimal", "balanced", "tsia", "modal", "hippo", "projected_gradient"])
@pytest.mark.parametrize("name", SYSTEMS)
def test_no_unit_matters(name, method):
    sys = SYSTEMS[name]
    for horizon in (None, 3.0 if sys.is_continuous else 12):
        wanted = reduced(sys, method, horizon)
        for units in POWERS_OF_TWO + POWERS_OF_TEN:
            time, inputs, outputs, _ = units
            if not sys.is_continuous:
                units, time = (1, *units[1:]), 1
            gain = outputs * (inputs if sys.M is None else 1)
            red = reduced(in_units(sys, *units), method, horizon if horizon is None or time == 1 else horizon / time)
            np.testing.assert_allclose(red.relative_error, wanted.relative_error, rtol=1e-6)
            np.testing.assert_allclose(red.error / gain, wanted.error, rtol=1e-6)
            np.testing.assert_allclose(red.start_error / gain, wanted.start_error, rtol=1e-6)
            if wanted.hsv is not None:
                np.testing.assert_allclose(red.hsv / gain * np.sqrt(time), wanted.hsv, rtol=1e-6, atol=1e-9 * np.max(wanted.hsv))
            if wanted.bound is not None:
                np.testing.assert_allclose(red.bound / gain * np.sqrt(time), wanted.bound, rtol=1e-6)
            if units in POWERS_OF_TWO and method in ("optimal", "projected_gradient"):
                assert np.array_equal(red.relative_error, wanted.relative_error)
                assert np.array_equal(red.status, wanted.status)


def test_a_decay_chain_in_seconds():
    """Half-lives from minutes to a hundred thousand years."""
    rates = np.log(2) / np.array([180.0, 3.0e4, 2.4e6, 9.5e8, 5.0e10, 3.2e12])
    A = np.diag(-rates) + np.diag(rates[:-1], -1)
    sys = lqo.LQOSystem(A, np.eye(6)[:, :1], rates[np.newaxis])  # the activity
    for order in (1, 2, 3):
        red = lqo.reduce(sys, order)
        others = [lqo.reduce(sys, order, method=method) for method in ("balanced", "tsia", "modal")]
        assert red.error <= min(other.error for other in others) * (1 + 1e-6)
        years = lqo.reduce(in_units(sys, 3.15576e7, 1, 1, 1), order)
        assert years.relative_error == pytest.approx(red.relative_error, rel=1e-6)


def test_each_channel_has_a_time_of_its_own():
    one = SYSTEMS["diagonal"]
    scales = np.array([1.0, 4.0**-20, 4.0**25])
    many = lqo.DiagonalLQOSystem(*(np.stack([a] * 3) for a in (one.poles, one.B, one.C)), dt=0)
    for method in ("optimal", "projected_gradient"):
        red = lqo.reduce(in_units(many, scales, 1, 1, 1), 2, method=method)
        np.testing.assert_allclose(red.relative_error, red.relative_error[0], rtol=1e-12)
        np.testing.assert_allclose(red.system.poles[1:] / scales[1:, np.newaxis], red.system.poles[[0, 0]], rtol=1e-9)


def test_given_starts_and_margins_are_in_the_units_of_the_system():
    sys, time = SYSTEMS["mimo"], 1e9
    start = lqo.reduce(sys, 2, method="balanced")
    fast = in_units(sys, time, 1, 1, 1)
    for method in ("optimal", "projected_gradient"):
        own = lqo.reduce(fast, 2, method=method, start=in_units(start.system, time, 1, 1, 1))
        wanted = lqo.reduce(sys, 2, method=method, start=start)
        assert own.relative_error == pytest.approx(wanted.relative_error, rel=1e-6)
        assert own.start_error == pytest.approx(start.error, rel=1e-9)
    far = lqo.reduce(fast, 2, margin=1e9)
    assert np.max(np.linalg.eigvals(far.system.A).real) <= -1e9 * (1 - 1e-9)


def test_a_pole_next_to_the_boundary_is_met():
    """The only pole of two channels that counts keeps less distance than the margin would be."""
    for distance in (1e-9, 1e-12):
        sys = lqo.DiagonalLQOSystem([1 - distance, 0.3], [[1.0], [1.0]], [[1.0, 0.1]], dt=1.0)
        for method in ("optimal", "projected_gradient"):
            assert lqo.reduce(sys, 1, method=method).relative_error < 2e-7 + np.sqrt(distance)


def lag_and_lead(*poles):
    """``Σ 1/(1 + s/p)`` with signs that alternate."""
    signs = np.resize([1.0, -0.5], len(poles))
    return lqo.LQOSystem(-np.diag(poles), np.sqrt(np.array(poles))[:, np.newaxis], [signs * np.sqrt(np.array(poles))])


@pytest.mark.parametrize("poles", [(10.0, 1000.0), (1.0, 30.0, 1e4), (1.0, 1e3, 1e6), (0.3, 0.5, 0.7)])
def test_the_certificate_of_the_projected_gradient_means_it(poles):
    """Where it says converged, no pole that moves and no output makes it better."""
    sys = lag_and_lead(*poles)
    red = lqo.projected_gradient(sys, 1)
    assert red.status is Status.CONVERGED
    pole = red.system.A[0, 0]

    def error(z):  # of the best output
        rows = sum(sys.B[i, 0] * sys.C[0, i] / -(sys.A[i, i] + z) for i in range(len(poles)))
        return lqo.h2_error(sys, lqo.LQOSystem([[z]], [[1.0]], [[rows * -2 * z]]))

    for factor in (0.9, 0.99, 0.999, 1.0, 1.001, 1.01, 1.1):
        assert error(factor * pole) >= red.error * (1 - 1e-9)
