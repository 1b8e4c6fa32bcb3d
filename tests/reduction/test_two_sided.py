"""The parts of the two-sided iteration: cross Gramians, the direction of descent, and the distance of two sets of poles."""

import numpy as np
import pytest

import lqo_mor as lqo
from lqo_mor.analysis.door import norm_of
from lqo_mor.analysis.norm import HorizonNorm
from lqo_mor.matrix_equations.lyapunov import solve_lyapunov
from lqo_mor.matrix_equations.stein import solve_stein
from lqo_mor.reduction.result import Status
from lqo_mor.reduction.two_sided import cross_gramians, iteration
from lqo_mor.reduction.two_sided.full_system import full_system, gramian, observed
from tests.cases import dense, diagonal, get, parametrize, select
from tests.reduction.two_sided_checks import as_dense

SINGLE = select(real=True, batch=False, hard=False)


@pytest.mark.parametrize("name", ["dense {} siso quadratic", "dense {} mimo factored", "diagonal {} mimo factored"])
@pytest.mark.parametrize("time", ["discrete", "continuous"])
def test_the_error_falls_along_the_damped_direction_at_the_rate_of_the_theory(name, time):
    sys = get(name.format(time))
    start = as_dense(diagonal(31, pairs=1, reals=1, m=sys.n_inputs, continuous=sys.is_continuous))
    full = full_system(sys, norm_of(sys), None, cross_gramians.cross_solver(sys, norm_of(sys)), np.zeros(3))
    now = evaluated(full, start.A, start.B)
    D = iteration.direction(full, now).D
    own = now.V.T @ observed(full, now.X, now.C, now.M)
    Q, (A, B) = gramian(full, now.A.T, own), (D[:, :3], D[:, 3:])
    slope = -2 * np.trace(B.T @ Q @ B) - (0 if sys.is_continuous else 2 * np.trace(A.T @ Q @ A @ now.P))
    ends = [evaluated(full, start.A + step * A, start.B + step * B).value for step in (1e-5, -1e-5)]
    assert slope < -1e-3 * full.squared_norm
    assert (ends[0] - ends[1]) / 2e-5 == pytest.approx(slope, rel=1e-5)


def evaluated(full, A, B):
    return iteration.evaluate(full, A, B)


@parametrize([case for case in SINGLE if case.name.endswith(("siso linear", "mimo factored", "real poles"))])
@pytest.mark.parametrize("horizon", [None, 3, 22])
def test_cross_gramians(sys, horizon):
    """The modal and the doubling solver against the solvers of the matrix equations."""
    rng, full = np.random.default_rng(5), as_dense(sys)
    small = dense(7, n=3, continuous=sys.is_continuous).A
    Q = rng.standard_normal((full.order, 3))
    solve = solve_lyapunov if sys.is_continuous else solve_stein
    doubling = cross_gramians._doubling_solver(full.A, norm_of(sys, horizon))
    for adjoint in (False, True):
        A, B = (full.A.T, small.T) if adjoint else (full.A, small)
        wanted = solve(A, B, Q, horizon)
        for found in (cross_gramians.cross_solver(sys, norm_of(sys, horizon))(Q, small, adjoint), doubling(Q, small, adjoint)):
            np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-10 * np.abs(wanted).max())


def test_a_defective_reduced_matrix_does_not_matter():
    block = np.array([[0.5, 1.0], [0.0, 0.5]])
    Q = np.ones((7, 2))
    for sys in (get("diagonal discrete siso linear"), get("dense discrete siso linear")):
        wanted = solve_stein(as_dense(sys).A, block, Q[: sys.order])
        np.testing.assert_allclose(cross_gramians.cross_solver(sys, norm_of(sys))(Q[: sys.order], block), wanted, rtol=1e-10)
    sys = dense(3, n=8)
    start = lqo.LQOSystem(block, [[0.0], [1.0]], [[1.0, 0.0]], dt=1.0)
    red = lqo.tsia(sys, 2, start=start)
    assert red.status is Status.CONVERGED
    assert red.error < red.start_error


def test_pole_changes_are_matched_and_relative():
    old = np.array([-1.0, -100.0 + 5j, -100.0 - 5j, -1e-3])
    assert iteration.pole_change(old[[2, 3, 1, 0]], old, True) == 0
    moved = old + np.array([0, 0, 0, 1e-6])
    assert iteration.pole_change(moved[[3, 1, 0, 2]], old, True) == pytest.approx(1e-3, rel=1e-6)
    assert iteration.pole_change(np.array([0.0, 1e-4]), np.array([0.0, 0.0]), False) == pytest.approx(1e-4)


def test_stiff_systems_keep_their_digits():
    """The Cayley transform loses digits of poles that are far apart, which one correction brings back."""
    rng = np.random.default_rng(4)
    A = np.triu(rng.standard_normal((12, 12)), 1) * 1e3 - np.diag(np.geomspace(1e-4, 1e4, 12))
    Q, small = rng.standard_normal((12, 2)), np.array([[-1e-3, 1.0], [0.0, -1e2]])
    solve = cross_gramians._doubling_solver(A, HorizonNorm(True))
    for left, right, adjoint in ((A, small.T, False), (A.T, small, True)):
        X = solve(Q, small, adjoint)
        rest = left @ X + X @ right + Q
        assert np.linalg.norm(rest) < 1e-14 * np.linalg.norm(A, 2) * np.linalg.norm(X)
