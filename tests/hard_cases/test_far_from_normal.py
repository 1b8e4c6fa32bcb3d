"""Dense systems whose powers grow before they decay, and states in bad units, against interval arithmetic and SciPy."""

import numpy as np
import pytest
import scipy.linalg

from lqo_mor import LQOSystem, controllability_gramian, h2_error, h2_norm, hankel_singular_values, observability_gramian, reduce
from lqo_mor.analysis.door import norm_of
from lqo_mor.analysis.gramians import gramian_factors
from lqo_mor.matrix_equations.lyapunov import solve_lyapunov
from lqo_mor.matrix_equations.stein import solve_stein
from tests import cases

exact = pytest.importorskip("tests.exact")


def rotated(A, seed=0):
    n = A.shape[0]
    Q = np.linalg.qr(np.random.default_rng(seed).standard_normal((n, n)))[0]
    return LQOSystem(Q @ A @ Q.T, Q @ np.ones((n, 1)), np.ones((1, n)) @ Q.T, dt=True), Q


def jordan(n, pole, coupling):
    return pole * np.eye(n) + coupling * np.eye(n, k=1)


GROWING = {
    "discrete": (jordan(8, 0.9, 1.0), True, (1, 10, 200, 1000, 100_000, None)),
    "discrete, nine": (jordan(9, 0.9, 1.0), True, (200, 1000, 5000)),
    "discrete, nilpotent nearly": (jordan(30, 0.5, 1.0), True, (10, 200, 1000, None)),
    "unstable": (jordan(6, 1.01, 1.0), True, (10, 300)),
    "continuous": (jordan(8, -0.1, 1.5), 0, (10.0, 100.0, 1e3, 1e5, None)),
    "continuous, more states": (jordan(16, -1.0, 2.0), 0, (1.0, 10.0, 100.0, None)),
}


@pytest.mark.parametrize("name", GROWING)
def test_norms_and_factors_of_matrices_whose_powers_grow(name):
    A, dt, horizons = GROWING[name]
    sys, _ = rotated(A)
    sys = LQOSystem(sys.A, sys.B, sys.C, dt=dt)
    for horizon in horizons:
        wanted = exact.norm(sys, horizon)
        R, S = gramian_factors(sys, norm_of(sys, horizon))
        for value in (h2_norm(sys, horizon), np.linalg.norm(sys.C @ R), np.linalg.norm(sys.B.T @ S)):
            assert abs(value / wanted - 1) < 2e-6, (horizon, value, wanted)  # their condition allows no more


@pytest.mark.parametrize("n", [4, 8, 16])
@pytest.mark.parametrize("seed", range(3))
def test_equations_lose_no_more_digits_than_those_of_scipy(n, seed):
    """Rotated companion matrices and shifts, continuous and discrete."""
    for A, solve, scipys in (
        (scipy.linalg.companion(np.poly(np.linspace(-3, -0.3, n))), solve_lyapunov, scipy.linalg.solve_continuous_lyapunov),
        (np.eye(n, k=1), solve_stein, scipy.linalg.solve_discrete_lyapunov),
        (scipy.linalg.companion(np.poly(np.linspace(0.1, 0.9, n))), solve_stein, scipy.linalg.solve_discrete_lyapunov),
    ):
        sys, Q = rotated(A, seed)
        F, B = sys.A, Q[:, :1]
        sign = -1 if solve is solve_lyapunov else 1
        wanted = exact.gramian(LQOSystem(F, B, np.ones((1, n)), dt=0 if solve is solve_lyapunov else True))
        ours, theirs = (np.linalg.norm(X - wanted) for X in (solve(F, F, B @ B.T), scipys(F, sign * B @ B.T)))
        assert ours <= 10 * theirs + 1e-14 * np.linalg.norm(wanted)


@pytest.mark.parametrize("continuous", [False, True])
@pytest.mark.parametrize("powers", [10, 25, 40])
@pytest.mark.parametrize("M", [None, "dense", 2])
def test_units_of_states(continuous, powers, M):
    sys = cases.dense(4, 6, 2, 2, M=M, continuous=continuous)
    d = 2.0 ** np.random.default_rng(powers).integers(-powers, powers + 1, 6)
    q = sys.M
    if M == 2:
        q = type(q)(q.U / d, q.V / d, q.W)
    elif M is not None:
        q = q / d / d[:, np.newaxis]
    other = LQOSystem(sys.A * d[:, np.newaxis] / d, sys.B * d[:, np.newaxis], sys.C / d, sys.D, q, sys.dt)
    for horizon in (None, 20):
        np.testing.assert_allclose(h2_norm(other, horizon), h2_norm(sys, horizon), rtol=1e-12)
        np.testing.assert_allclose(
            hankel_singular_values(other, horizon)[:3], hankel_singular_values(sys, horizon)[:3], rtol=1e-12
        )
        np.testing.assert_allclose(
            controllability_gramian(other, horizon), controllability_gramian(sys, horizon) * d * d[:, np.newaxis], rtol=1e-8
        )
        np.testing.assert_allclose(
            observability_gramian(other, horizon), observability_gramian(sys, horizon) / d / d[:, np.newaxis], rtol=1e-8
        )
        assert h2_error(sys, other, horizon) < 1e-12 * h2_norm(sys, horizon)
        for method in ("balanced", "tsia", "modal", "optimal"):
            got, wanted = (reduce(s, 2, method=method, horizon=horizon).error for s in (other, sys))
            np.testing.assert_allclose(got, wanted, rtol=1e-8)
