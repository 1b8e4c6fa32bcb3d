"""Unstable and marginal systems: what does not decay is kept, the rest is reduced, and the error means what it says."""

import warnings

import numpy as np
import pytest
import scipy.linalg

import lqo_mor as lqo
from lqo_mor.errors import InvalidInputError, StabilityWarning, UnstableSystemError
from tests import brute, exact

METHODS = ["optimal", "balanced", "projected_gradient", "tsia", "modal", "hippo"]
STABLE = {1.0: [0.9, 0.5, -0.4, 0.2, -0.7], 0: [-0.1, -0.5, -3.0, -0.8, -1.5]}
DOUBLE = np.array([[0.0, 1.0], [0.0, 0.0]])


def plant(kept, dt=1.0, M=None, m=1, p=1, seed=0):
    """A system with the unstable part `kept` in other coordinates, with a quadratic output of the kind `M`."""
    rng, A = np.random.default_rng(seed), scipy.linalg.block_diag(kept, np.diag(STABLE[dt]))
    n = A.shape[0]
    Q, B, C = np.linalg.qr(rng.standard_normal((n, n)))[0], rng.standard_normal((n, m)), rng.standard_normal((p, n))
    quadratic = None
    if M == "dense":
        quadratic = rng.standard_normal((p, n, n))
        quadratic = 0.1 * Q @ (quadratic + quadratic.transpose(0, 2, 1)) @ Q.T
    elif M == "factors":
        quadratic = lqo.QuadraticOutput(
            rng.standard_normal((2, n)) @ Q.T, rng.standard_normal((2, n)) @ Q.T, np.full((p, 2), 0.3)
        )
    return lqo.LQOSystem(Q @ A @ Q.T, Q @ B, C @ Q.T, M=quadratic, dt=dt)


def diagonal(poles, m=1, quadratic=False, seed=1, batch=(), dt=1.0):
    rng, s = np.random.default_rng(seed), len(poles)
    M = lqo.QuadraticOutput(*(rng.standard_normal((*batch, 2, s)) for _ in "UV"), np.ones((*batch, 1, 2))) if quadratic else None
    B, C = rng.standard_normal((*batch, s, m)), rng.standard_normal((*batch, 1, s))
    return lqo.DiagonalLQOSystem(np.broadcast_to(poles, (*batch, s)), B, C, M=M, dt=dt)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("order", [1, 3])
@pytest.mark.parametrize("kind", [lqo.LQOSystem, lqo.DiagonalLQOSystem])
def test_over_a_horizon_the_unstable_pole_is_kept(method, order, kind):
    poles, C = [1.05, 0.9, 0.5, -0.4], [[1.0, 0.3, -0.2, 0.1]]
    sys = kind(np.diag(poles) if kind is lqo.LQOSystem else poles, np.ones((4, 1)), C, dt=1.0)
    red = lqo.reduce(sys, order, horizon=200, method=method)
    values = np.linalg.eigvals(red.system.A) if kind is lqo.LQOSystem else red.system.poles
    assert np.min(np.abs(values - 1.05)) < 1e-14
    assert red.kept == 1 and red.relative_error < 1.1e-5 and "kept" in str(red)
    np.testing.assert_allclose(red.error, brute.error(sys, red.system, 200), rtol=1e-10)
    np.testing.assert_allclose(red.relative_error, red.error / lqo.h2_norm(sys, 200), rtol=1e-12)


@pytest.mark.parametrize("method", ["optimal", "balanced", "tsia", "modal"])
@pytest.mark.parametrize("M", [None, "dense", "factors"])
@pytest.mark.parametrize(
    ("kept", "dt", "horizon"), [(1.05, 1.0, 60), (np.eye(2) + DOUBLE, 1.0, 40), (0.3, 0, 10.0), (DOUBLE, 0, 20.0)]
)
def test_errors_over_a_horizon(method, M, kept, dt, horizon):
    sys = plant(kept, dt, M, m=2)
    n = np.atleast_2d(kept).shape[0]
    errors = []
    for order in (n, n + 2, n + 4):
        red = lqo.reduce(sys, order, horizon=horizon, method=method)
        errors.append(red.error)
        assert red.kept == n and red.system.order <= order
        np.testing.assert_allclose(red.error, exact.error(sys, red.system, horizon), rtol=10.0 ** -min(int(red.digits), 7))
    assert errors[2] < errors[0]


@pytest.mark.parametrize("method", ["optimal", "balanced", "tsia", "irka", "modal"])
@pytest.mark.parametrize(("kept", "dt"), [(np.zeros((1, 1)), 0), (DOUBLE, 0), (np.eye(1), 1.0), (np.diag([1.02, -1.0]), 1.0)])
def test_over_all_time_the_stable_part_is_reduced(method, kept, dt):
    sys, n = plant(kept, dt), kept.shape[0]
    red = lqo.reduce(sys, n + 3, method=method)
    assert red.kept == n and red.system.order == n + 3
    both = scipy.linalg.block_diag(sys.A, red.system.A), np.vstack([sys.B, red.system.B]), np.hstack([sys.C, -red.system.C])
    s = 1j * np.logspace(-2, 1, 50) if dt == 0 else np.exp(1j * np.linspace(0.1, 3, 50))
    size = lambda A, B, C: np.max([np.abs(C @ np.linalg.solve(z * np.eye(len(A)) - A, B)) for z in s])  # noqa: E731
    assert size(*both) < 3 * red.error / min(0.1, 1.0) and red.relative_error < 0.3
    alone = lqo.reduce(plant(np.zeros((0, 0)), dt), 3, method=method)
    assert alone.kept == 0
    if method == "balanced":
        assert size(*both) <= red.bound * (1 + 1e-6)
        assert np.all(np.isinf(red.hsv[:n])) and np.all(np.isfinite(red.hsv[n:]))


@pytest.mark.parametrize("M", ["dense", "factors"])
@pytest.mark.parametrize("dt", [0, 1.0])
def test_coupling_of_both_parts_over_all_time(M, dt):
    """The coupling decays with neither part; over any horizon its error falls with the order."""
    sys = plant(DOUBLE if dt == 0 else np.eye(1), dt, M)
    n = sys.order - 5
    horizon = 30.0 if dt == 0 else 60
    errors = [lqo.h2_error(sys, lqo.reduce(sys, n + r, method="balanced").system, horizon, relative=True) for r in (1, 2, 3, 4)]
    assert errors[3] < 0.1 * errors[0] and errors[3] < 0.02


def test_diagonal_systems_like_dense_ones():
    sys = diagonal([1.01, 0.9 + 0.3j, 0.5, 0.2], quadratic=True)
    sys = lqo.DiagonalLQOSystem(sys.poles, sys.B, sys.C, M=sys.M, dt=1.0)
    for horizon in (50, None):
        a, b = (lqo.reduce(one, 3, method="balanced", horizon=horizon) for one in (sys, lqo.to_dense(sys)))
        np.testing.assert_allclose(a.error, b.error, rtol=1e-8)
        if horizon:
            np.testing.assert_allclose(a.error, brute.error(sys, a.system, horizon), rtol=1e-9)


@pytest.mark.parametrize("method", ["optimal", "balanced"])
@pytest.mark.parametrize("horizon", [64, None])
def test_a_batch_is_as_its_channels(method, horizon):
    poles = np.array([[0.9, 0.8, 0.3, -0.5], [1.02, 0.8, 0.3, -0.5], [0.7, 0.6, 0.1, -0.2], [1.0, -1.01, 0.3, 0.5]])
    rng = np.random.default_rng(3)
    sys = lqo.DiagonalLQOSystem(poles.reshape(2, 2, 4), rng.random((2, 2, 4, 1)), rng.random((2, 2, 1, 4)), dt=1.0)
    seen = []
    red = lqo.reduce(sys, slots=3, method=method, horizon=horizon, progress=lambda done, total: seen.append((done, total)))
    assert red.kept.tolist() == [[0, 1], [0, 2]] and seen[-1] == (4, 4)
    for index in np.ndindex(2, 2):
        one = lqo.reduce(sys[index], slots=3, method=method, horizon=horizon)
        np.testing.assert_allclose(red.error[index], one.error, rtol=1e-3 if method == "optimal" else 1e-9)
        np.testing.assert_allclose(red.relative_error[index], one.relative_error, rtol=1e-3 if method == "optimal" else 1e-9)
    if horizon:
        np.testing.assert_allclose(red.error, lqo.h2_error(sys, red.system, horizon), rtol=1e-8)
    assert "kept" in str(red)


def test_a_stable_result_on_request():
    sys = plant(1.05)
    with pytest.raises(UnstableSystemError, match=r"not asymptotically stable"):
        lqo.reduce(sys, 3, stable=True)
    with pytest.warns(StabilityWarning):
        red = lqo.reduce(sys, 3, horizon=50, method="modal", stable=True)
    assert red.kept == 0 and np.max(np.abs(np.linalg.eigvals(red.system.A))) < 1
    for function in (lqo.balanced_truncation, lqo.variable_projection, lqo.tsia, lqo.irka, lqo.modal_truncation, lqo.hippo):
        with pytest.raises(UnstableSystemError):
            function(sys, 3, stable=True)
        assert function(sys, 3).kept == 1


def test_fewer_states_than_are_unstable():
    sys = plant(np.diag([1.05, 1.02, -1.01]))
    with pytest.raises(UnstableSystemError, match=r"order must be at least 3 here"):
        lqo.reduce(sys, 2)
    red = lqo.reduce(sys, 2, horizon=100)
    assert red.relative_error < 0.1 and red.system.order == 2
    np.testing.assert_allclose(red.error, brute.error(sys, red.system, 100), rtol=1e-9)
    slots = diagonal([1.05, 1.02, -1.01, 0.5])
    assert lqo.reduce(slots, slots=2, horizon=100).relative_error < 0.1
    with pytest.raises(UnstableSystemError, match=r"slots must be at least 3"):
        lqo.reduce(slots, slots=2)
    with pytest.raises(UnstableSystemError):
        lqo.reduce(diagonal([1.05, 1.02, 1.0]), 2)


@pytest.mark.parametrize("horizon", [80, None])
def test_curves_and_accuracies(horizon):
    sys = plant(np.diag([1.03, 1.0]))
    curve = lqo.reduce(sys, orders=[2, 4, 5], method=["balanced", "optimal"], horizon=horizon)
    assert np.all(np.diff(curve.errors["optimal"]) < 0) and np.all(
        curve.errors["optimal"] <= curve.errors["balanced"] * (1 + 1e-9)
    )
    assert np.count_nonzero(np.isinf(curve.hsv)) == 2
    wanted = 1.0001 * float(curve.errors["balanced"][1])
    for method in ("balanced", "optimal"):
        red = lqo.reduce(sys, max_error=wanted, method=method, horizon=horizon)
        assert red.relative_error <= wanted and 2 <= red.system.order <= 4


def test_given_starts():
    sys = plant(1.05)
    begun = lqo.reduce(sys, 3, horizon=50, method="balanced")
    for start in (begun, begun.system, "modal", plant(1.05, seed=4)):
        if getattr(start, "order", 0) > 3:
            with pytest.raises(InvalidInputError, match="more than"):
                lqo.variable_projection(sys, 3, horizon=50, start=start)
            continue
        red = lqo.variable_projection(sys, 3, horizon=50, start=start)
        assert red.kept == 1 and red.error <= begun.error * (1 + 1e-9)


def test_much_growth_costs_no_digits_of_what_decays():
    sys = lqo.DiagonalLQOSystem([1.3, 0.9, 0.5, -0.4], np.ones((4, 1)), [[1.0, 0.3, -0.2, 0.1]], dt=1.0)
    for one in (sys, lqo.to_dense(sys)):
        red = lqo.reduce(one, 3, horizon=200)  # grows to 6e22
        alone = lqo.reduce(lqo.DiagonalLQOSystem(sys.poles[1:], sys.B[1:], sys.C[:, 1:], dt=1.0), 2, horizon=200)
        assert red.error <= alone.error * (1 + 1e-6)


@pytest.mark.parametrize(
    ("kept", "dt", "horizon"), [(np.diag([1.03, 1.0]), 1.0, 80), (np.eye(2) + DOUBLE, 1.0, 40), (DOUBLE, 0, 20.0)]
)
@pytest.mark.parametrize("M", [None, "dense"])
@pytest.mark.parametrize("m", [1, 2])
def test_stable_results_for_poles_on_the_boundary(kept, dt, horizon, M, m):
    """The search divided by zero at a pole of 1, and starts over all time, which do not exist, ended it."""
    sys = plant(kept, dt, M, m)
    for order in (1, 2, 4):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", StabilityWarning)
            red = lqo.reduce(sys, order, horizon=horizon, stable=True)
        poles = np.linalg.eigvals(red.system.A)
        assert np.all(poles.real < 0 if dt == 0 else np.abs(poles) < 1) and red.relative_error <= 1 + 1e-9


def test_stable_results_for_a_batch_with_poles_on_the_boundary():
    rng, poles = np.random.default_rng(0), np.array([[0.9, 0.8, 0.3, -0.5], [1.0, 0.8, 0.3, -0.5]])
    sys = lqo.DiagonalLQOSystem(poles, rng.random((2, 4, 1)), rng.random((2, 1, 4)), dt=1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", StabilityWarning)
        red = lqo.reduce(sys, slots=2, horizon=30, stable=True)
    assert np.all(np.abs(red.system.poles) < 1) and np.all(red.relative_error < 0.2)
