"""Sparse-dense Sylvester equations: residuals, SciPy's dense solutions, and how many factorisations they take."""

import numpy as np
import pytest
import scipy.linalg
import scipy.sparse

from lqo_mor.errors import SingularEquationError
from lqo_mor.matrix_equations import sparse_sylvester
from lqo_mor.matrix_equations.sparse_sylvester import sylvester_solver

N_STATES = 400
EPS = np.finfo(float).eps


def pencil():
    """``(A, E)``, neither symmetric, with eigenvalues in the left half-plane and off the real axis."""
    A = scipy.sparse.diags_array([1.5, -2.2, 0.6], offsets=[-1, 0, 1], shape=(N_STATES, N_STATES), format="csc")
    A = A + scipy.sparse.csc_array(([0.7, -0.7], ([0, N_STATES - 1], [N_STATES - 1, 0])), shape=A.shape)
    return A, scipy.sparse.diags_array([0.15, 1.0, 0.1], offsets=[-1, 0, 1], shape=A.shape, format="csc")


def coefficients(continuous):
    """``(L, N)`` of the equations; in discrete time those of the implicit Euler method with step 1/2."""
    A, E = pencil()
    return (A, E) if continuous else (0.5 * A - E, E)


def turned(blocks, rng):
    """Diagonal blocks in other, not orthogonal coordinates."""
    T = rng.standard_normal((sum(map(len, blocks)),) * 2) + 3 * np.eye(sum(map(len, blocks)))
    return T @ scipy.linalg.block_diag(*blocks) @ np.linalg.inv(T)


def pair(real, imag, ratio=1.0):
    return np.array([[real, imag * ratio], [-imag / ratio, real]])


SMALL = {  # eigenvalues in the unit circle and in the left half-plane
    "real": [[[-0.1]], [[-0.5]], [[-0.7]]],
    "pairs": [pair(-0.1, 0.8), pair(-0.2, 0.3)],
    "mixed": [[[-0.3]], pair(-0.1, 0.8), [[-0.9]], pair(-0.2, 0.3, 50.0), pair(-0.5, 1e-5)],
    "defective": [[[-0.5, 1.0, 0.0], [0.0, -0.5, 1.0], [0.0, 0.0, -0.5]]],
    "zero": [[[-0.4]]],
}


def residual(L, N, A_r, Q, X, adjoint):
    if adjoint:
        return L.T @ X + N.T @ X @ A_r + Q
    return L @ X + N @ X @ A_r.T + Q


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("continuous", [True, False])
def test_residuals_of_both_equations(name, continuous, rng):
    L, N = coefficients(continuous)
    A_r = turned([np.asarray(block) for block in SMALL[name]], rng) if name != "zero" else np.zeros((1, 1))
    Q = rng.standard_normal((N_STATES, len(A_r)))
    given = Q.copy(), A_r.copy()
    solve = sylvester_solver(L, N)
    for adjoint in (False, True):
        X = solve(Q, A_r, adjoint)
        assert X.dtype == float
        terms = np.linalg.norm(X) * (1 + np.linalg.norm(A_r)) + np.linalg.norm(Q)
        assert np.linalg.norm(residual(L, N, A_r, Q, X, adjoint)) < 50 * EPS * terms
    np.testing.assert_array_equal(Q, given[0])
    np.testing.assert_array_equal(A_r, given[1])


def test_every_column_is_accurate_where_the_pencil_is_ill_conditioned(rng):
    L = 1e9 * scipy.sparse.diags_array([1.0, -2.0, 1.0], offsets=[-1, 0, 1], shape=(N_STATES, N_STATES), format="csc")
    L, N = L - scipy.sparse.eye_array(N_STATES), scipy.sparse.eye_array(N_STATES, format="csc")
    A_r, Q = -np.diag([1.0, 1e4, 1e8]), rng.standard_normal((N_STATES, 3))
    k = np.arange(1, N_STATES + 1)
    values = 4e9 * np.sin(0.5 * np.pi * k / (N_STATES + 1)) ** 2 + 1.0  # of −L, to full accuracy
    modes = np.sin(np.pi * np.outer(k, k) / (N_STATES + 1)) * np.sqrt(2 / (N_STATES + 1))
    wanted = modes @ ((modes @ Q) / (values[:, np.newaxis] - np.diag(A_r)))
    error = np.linalg.norm(sylvester_solver(L, N)(Q, A_r) - wanted, axis=0) / np.linalg.norm(wanted, axis=0)
    assert np.all(error < (1e-13 if np.finfo(np.longdouble).eps < EPS else 1e-9))


def test_it_is_the_solution_of_scipy(rng):
    L, N = coefficients(True)
    A_r, Q = turned([np.asarray(block) for block in SMALL["mixed"]], rng), rng.standard_normal((N_STATES, 8))
    mass = N.toarray()
    wanted = scipy.linalg.solve_sylvester(np.linalg.solve(mass, L.toarray()), A_r.T, -np.linalg.solve(mass, Q))
    np.testing.assert_allclose(sylvester_solver(L, N)(Q, A_r), wanted, rtol=0, atol=1e-11 * np.abs(wanted).max())


def count_factorisations(monkeypatch):
    shifts, splu = [], sparse_sylvester.splu
    monkeypatch.setattr(sparse_sylvester, "splu", lambda *args, **options: shifts.append(args[0].dtype) or splu(*args, **options))
    return shifts


def test_a_pair_takes_one_factorisation_and_the_dual_equation_none(monkeypatch, rng):
    shifts, (L, N) = count_factorisations(monkeypatch), coefficients(True)
    A_r, Q = turned([np.asarray(block) for block in SMALL["mixed"]], rng), rng.standard_normal((N_STATES, 8))
    solve = sylvester_solver(L, N)
    solve(Q, A_r)
    assert sorted(shifts, key=str) == [np.dtype(complex)] * 3 + [np.dtype(float)] * 2
    dual = solve(Q, A_r, True)
    assert len(shifts) == 5
    solve(Q, A_r - 0.01 * np.eye(8))
    assert len(shifts) == 10
    monkeypatch.setattr(sparse_sylvester, "_MOST_COLUMNS", 0)  # none are kept: as many for every correction
    again = sylvester_solver(L, N)
    again(Q, A_r)
    np.testing.assert_allclose(again(Q, A_r, True), dual, rtol=0, atol=1e-12 * np.abs(dual).max())
    assert len(shifts) == 30


def test_a_common_eigenvalue_is_refused(rng):
    L = scipy.sparse.diags_array(-np.arange(1.0, 51.0), format="csc")
    N, Q = scipy.sparse.eye_array(50, format="csc"), rng.standard_normal((50, 1))
    with pytest.raises(SingularEquationError, match="-3 is an eigenvalue of the large pencil"):
        sylvester_solver(L, N)(Q, np.array([[3.0]]))
    L = scipy.sparse.diags_array([1.0, -2.0, 1.0], offsets=[-1, 0, 1], shape=(50, 50), format="csc")
    with pytest.raises(SingularEquationError, match="no unique solution"):
        sylvester_solver(L, N)(Q, np.array([[2 - 2 * np.cos(7 * np.pi / 51)]]))
