import numpy as np
import pytest

import lqo_mor as lqo
from lqo_mor.analysis.door import norm_of
from lqo_mor.matrix_equations.pairing_kernels import _features
from lqo_mor.reduction.descent import projected_gradient_kernels, quasi_newton_kernels
from lqo_mor.reduction.descent.projected_gradient import free_error
from lqo_mor.reduction.objective import error_kernels
from lqo_mor.reduction.objective.error import evaluate, projected_error, reduced_system, solve_rows
from lqo_mor.reduction.refit import channel_arrays, squared_norms
from tests.brute import complex_derivative, derivative
from tests.reduction.problems import POINTS, WHERE, free, point

RIDGES = pytest.mark.parametrize("ridge", [0.0, 1e-2])
COMPILED = pytest.mark.parametrize(
    ("name", "horizon"), [(name, horizon) for name, horizon in WHERE if name.startswith("diagonal") and "siso" in name]
)


def close(got, wanted, rtol=1e-6, noise=0.0):
    """Relative to the largest entry, plus what rounding of the function values leaves in the reference."""
    np.testing.assert_allclose(got, wanted, rtol=0, atol=rtol * np.abs(wanted).max() + noise)


def system_at(p, mu, B, rows, W):
    system = reduced_system(p.problem, mu, B, p.real, rows, W, None, p.sys.dt)
    return lqo.to_dense(system) if isinstance(p.sys, lqo.LQOSystem) else system


def full_without_feedthrough(p):
    return p.sys  # the systems of these tests have none


@POINTS
def test_free_error_is_the_squared_h2_error(name, horizon):
    p = point(name, horizon)
    value, *_ = free_error(p.problem, p.real, p.mu, p.B, p.rows, p.W)
    wanted = lqo.h2_error(full_without_feedthrough(p), system_at(p, p.mu, p.B, p.rows, p.W), horizon) ** 2
    assert value == pytest.approx(wanted, rel=1e-11)


@POINTS
def test_gradient_of_the_free_error(name, horizon):
    p = point(name, horizon)
    _, (d_mu, d_B, d_rows, d_W), _ = free_error(p.problem, p.real, p.mu, p.B, p.rows, p.W)

    def value(mu=p.mu, B=p.B, rows=p.rows, W=p.W):
        return free_error(p.problem, p.real, mu, B, rows, W)[0]

    close(d_mu, free(complex_derivative(lambda mu: value(mu=free(mu, p.real)), p.mu), p.real))
    close(d_B, free(complex_derivative(lambda B: value(B=free(B, p.real)), p.B), p.real))
    close(d_rows, derivative(lambda rows: value(rows=rows), p.rows))
    if p.W.size:
        close(d_W, derivative(lambda W: value(W=W), p.W))


@POINTS
@RIDGES
def test_gradient_of_the_projected_error(name, horizon, ridge):
    p = point(name, horizon, pairs=1)
    _, gamma, delta, _ = projected_error(p.problem, p.mu, p.B, p.real, ridge)
    noise = 1e-9 * p.problem.squared_norm

    def value(mu=p.mu, B=p.B):
        return projected_error(p.problem, free(mu, p.real), free(B, p.real), p.real, ridge)[0]

    close(gamma.conj(), free(complex_derivative(lambda mu: value(mu=mu), p.mu), p.real), noise=noise)
    close(delta.conj(), free(complex_derivative(lambda B: value(B=B), p.B), p.real), noise=10 * noise)


@POINTS
def test_projected_error_is_the_smallest_over_the_outputs(name, horizon, rng):
    p = point(name, horizon)
    value, _, _, rows = projected_error(p.problem, p.mu, p.B, p.real)
    best = free_error(p.problem, p.real, p.mu, p.B, rows, p.problem.W)
    assert value == pytest.approx(best[0], rel=1e-10)
    scale = np.sqrt(p.problem.squared_norm) * np.linalg.norm(evaluate(p.problem, p.mu, p.B, p.real).G)
    np.testing.assert_allclose(best[1][2], 0, atol=1e-9 * max(1.0, scale) * max(1.0, np.linalg.norm(rows) ** 3))
    for _ in range(10):
        other = rows + 1e-3 * rng.standard_normal(rows.shape)
        assert free_error(p.problem, p.real, p.mu, p.B, other, p.problem.W)[0] >= value * (1 - 1e-12)


@POINTS
def test_ridge_costs_and_bounds_the_rows(name, horizon):
    p = point(name, horizon)
    values, sizes = [], []
    for ridge in (0.0, 1e-4, 1e-1):
        value, _, _, rows = projected_error(p.problem, p.mu, p.B, p.real, ridge)
        values.append(value)
        sizes.append(np.linalg.norm(rows * np.sqrt(np.diag(evaluate(p.problem, p.mu, p.B, p.real).G))))
    assert values[0] <= values[1] <= values[2]
    assert sizes[2] < sizes[0]


def test_rows_where_poles_meet():
    G = np.array([[1.0, 1.0, 0.2], [1.0, 1.0, 0.2], [0.2, 0.2, 1.0]])  # singular: the first two states are the same
    rows = solve_rows(G, np.array([[1.0, 1.0, 0.5]]))
    np.testing.assert_allclose(rows @ G, [[1.0, 1.0, 0.5]], rtol=1e-12)
    assert np.abs(rows).max() < 10


def channel(p):
    """The arguments of the kernels for the one channel of a system with one input."""
    norm = norm_of(p.sys, p.horizon)
    code, parameters, lam, rows, count, W = channel_arrays(p.sys, norm)
    f_lam, unused = np.empty_like(lam[0]), np.empty_like(lam[0])
    _features(code, parameters, lam[0], f_lam, unused)
    return code, parameters, lam[0], f_lam, rows[0], count, W[0], squared_norms(p.sys, norm)[0]


@COMPILED
@RIDGES
@pytest.mark.parametrize(("pairs", "reals"), [(2, 1), (0, 2), (2, 0)])
def test_compiled_projected_error(name, horizon, ridge, pairs, reals):
    p = point(name, horizon, pairs, reals)
    ones = np.ones((p.mu.size, 1), complex)
    value, gamma, _, rows = projected_error(p.problem, p.mu, ones, p.real, ridge)
    optimal, compiled = np.empty(rows.shape), np.empty_like(p.mu)
    got = error_kernels._projected_error(*channel(p), p.mu, p.real, ridge, optimal, compiled)
    noise = 1e-11 * p.problem.squared_norm
    assert got == pytest.approx(value, rel=1e-9, abs=noise)
    close(optimal, rows, 1e-8)
    close(compiled, gamma, 1e-9, noise)


@COMPILED
@pytest.mark.parametrize(("pairs", "reals"), [(2, 1), (0, 2), (2, 0)])
def test_compiled_free_error(name, horizon, pairs, reals):
    p = point(name, horizon, pairs, reals)
    value, (d_mu, d_B, d_rows, d_W), possible = free_error(p.problem, p.real, p.mu, p.B, p.rows, p.W, margin=1e-3)
    gamma, delta = np.empty_like(p.mu), np.empty_like(p.mu)
    rows, W = np.empty_like(p.rows), np.empty_like(p.W)
    own = (p.mu, p.B[:, 0].copy(), p.real, p.rows, p.W)
    got = projected_gradient_kernels._free_error(*channel(p), 1e-3, *own, gamma, delta, rows, W)
    assert got == pytest.approx((value, possible), rel=1e-12)
    close(gamma.conj(), d_mu, 1e-11)
    close(delta.conj(), d_B[:, 0], 1e-11)
    close(rows, d_rows, 1e-11)
    if W.size:
        close(W, d_W, 1e-11)


@pytest.mark.parametrize("continuous", [False, True])
def test_parameters_of_poles_and_back(continuous):
    code = 2 if continuous else 0
    margin, mu = 1e-4, np.array([-0.2 + 3j, -1.5, -1e-3 - 1j, -4.0])
    if not continuous:
        mu = np.array([0.9 * np.exp(2j), -0.7, 0.99 * np.exp(-0.1j), 0.3])
    real = mu.imag == 0
    x, origin, scale, again = np.empty(6), np.empty(4), np.empty(4), np.empty_like(mu)
    quasi_newton_kernels._parameters_from(code, mu, real, margin, x, origin, scale)
    quasi_newton_kernels._poles_from(code, x, real, margin, origin, scale, again)
    np.testing.assert_allclose(again, mu, rtol=1e-13)

    rng = np.random.default_rng(3)
    gamma = np.where(real, rng.standard_normal(4), rng.standard_normal(4) + 1j * rng.standard_normal(4))

    def linear(x):
        poles = np.empty_like(mu)
        quasi_newton_kernels._poles_from(code, x, real, margin, origin, scale, poles)
        return (gamma @ poles).real

    gradient = np.empty(6)
    quasi_newton_kernels._parameter_gradient(code, x, real, margin, scale, mu, gamma, gradient)
    np.testing.assert_allclose(gradient, derivative(linear, x), rtol=1e-8, atol=1e-9)
    # Whatever the parameters, the poles are stable, by the margin.
    wild = 5 * rng.standard_normal(6)
    quasi_newton_kernels._poles_from(code, wild, real, margin, origin, scale, again)
    assert np.max(again.real if continuous else np.abs(again) - 1) <= -margin * (1 - 1e-9)
