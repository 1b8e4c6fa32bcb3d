import numpy as np
import pytest
import scipy.linalg

from lqo_mor.errors import ConvergenceError
from lqo_mor.matrix_equations.lyapunov import lyapunov_factor, solve_lyapunov
from lqo_mor.matrix_equations.residuals import lyapunov_residual
from tests.cases import normal

EPS = np.finfo(float).eps
KINDS = pytest.mark.parametrize("is_complex", [False, True], ids=["real", "complex"])


def matrix(rng, n, abscissa, is_complex=False):
    A = normal(rng, (n, n), is_complex)
    return A - (np.linalg.eigvals(A).real.max() - abscissa) * np.eye(n)


def quadrature(A, B, Q, duration):
    """``∫₀^T e^{At} Q e^{Bᴴt} dt`` by Gauss–Legendre rules on short panels."""
    panels = int(np.ceil(4 * duration))
    nodes, weights = np.polynomial.legendre.leggauss(16)
    total = 0.0
    for k in range(panels):
        for t, w in zip(nodes, weights, strict=True):
            time = duration / panels * (k + (t + 1) / 2)
            left, right = scipy.linalg.expm(A * time), scipy.linalg.expm(B * time)
            total = total + 0.5 * duration / panels * w * left @ Q @ right.conj().T
    return total


@KINDS
@pytest.mark.parametrize(("n", "r"), [(6, 6), (7, 3), (2, 8), (1, 1)])
def test_solution_has_a_small_residual(rng, is_complex, n, r):
    A, B, Q = matrix(rng, n, -0.1, is_complex), matrix(rng, r, -0.3, is_complex), normal(rng, (n, r), is_complex)
    X = solve_lyapunov(A, B, Q)
    assert X.shape == (n, r)
    assert np.iscomplexobj(X) == is_complex
    scale = (np.linalg.norm(A, 2) + np.linalg.norm(B, 2)) * np.linalg.norm(X)
    assert np.linalg.norm(A @ X + X @ B.conj().T + Q) < 1e-13 * scale


@pytest.mark.parametrize("which", ["A", "B", "Q"])
def test_one_complex_operand_among_real_ones(rng, which):
    operands = {"A": matrix(rng, 12, -0.2), "B": matrix(rng, 12, -0.3), "Q": normal(rng, (12, 12))}
    operands[which] = operands[which] + 0.2j * normal(rng, (12, 12))
    X = solve_lyapunov(**operands)
    assert lyapunov_residual(X=X, **operands) < 100 * EPS


@KINDS
@pytest.mark.parametrize("duration", [0.1, 1.0, 3.7])
@pytest.mark.parametrize("abscissa", [-0.5, 0.0, 0.4])
def test_finite_horizon_is_the_integral(rng, is_complex, duration, abscissa):
    A, B, Q = matrix(rng, 4, abscissa, is_complex), matrix(rng, 3, -0.1, is_complex), normal(rng, (4, 3), is_complex)
    X, wanted = solve_lyapunov(A, B, Q, duration), quadrature(A, B, Q, duration)
    np.testing.assert_allclose(X, wanted, atol=1e-11 * np.linalg.norm(wanted))


def test_finite_horizon_solves_its_differential_identity(rng):
    A, Q, T = matrix(rng, 5, -0.2), normal(rng, (5, 5)), 2.5
    X, flow = solve_lyapunov(A, A, Q, T), scipy.linalg.expm(A * T)
    np.testing.assert_allclose(A @ X + X @ A.T + Q - flow @ Q @ flow.T, 0, atol=1e-12 * np.linalg.norm(A) * np.linalg.norm(X))


def test_long_horizon_tends_to_the_infinite_one(rng):
    A, Q = matrix(rng, 5, -0.5), normal(rng, (5, 5))
    np.testing.assert_allclose(solve_lyapunov(A, A, Q, 80.0), solve_lyapunov(A, A, Q), rtol=1e-11, atol=1e-12)
    assert np.linalg.norm(solve_lyapunov(A, A, Q, 1.0) - solve_lyapunov(A, A, Q)) > 1e-3


def test_zero_state_matrix_gives_time_times_the_constant():
    np.testing.assert_allclose(solve_lyapunov(np.zeros((2, 2)), np.zeros((2, 2)), np.eye(2), 3.0), 3 * np.eye(2), rtol=1e-14)


def test_against_scipy(rng):
    for is_complex in (False, True):
        A, Q = matrix(rng, 7, -0.2, is_complex), normal(rng, (7, 7), is_complex)
        wanted = scipy.linalg.solve_continuous_lyapunov(A, -Q)
        np.testing.assert_allclose(solve_lyapunov(A, A, Q), wanted, rtol=1e-10, atol=1e-11)


def test_against_python_control(rng):
    control = pytest.importorskip("control")
    A, F = matrix(rng, 6, -0.2), normal(rng, (6, 2))
    np.testing.assert_allclose(solve_lyapunov(A, A, F @ F.T), control.lyap(A, F @ F.T), rtol=1e-10, atol=1e-11)


def test_against_slycot(rng):
    slycot = pytest.importorskip("slycot")
    A, F = matrix(rng, 8, -0.1), normal(rng, (8, 2))
    _, _, X, scale, *_ = slycot.sb03md57(A.copy(), C=-F @ F.T, dico="C", trana="T")
    np.testing.assert_allclose(solve_lyapunov(A, A, F @ F.T), X / scale, rtol=1e-10, atol=1e-11)


@KINDS
@pytest.mark.parametrize("duration", [None, 0.3, 5.0])
@pytest.mark.parametrize("m", [1, 3, 8])
def test_factor_gives_the_solution(rng, is_complex, duration, m):
    A, B = matrix(rng, 5, -0.2, is_complex), normal(rng, (5, m), is_complex)
    R, P = lyapunov_factor(A, B, duration), solve_lyapunov(A, A, B @ B.conj().T, duration)
    assert R.shape[0] == 5
    assert R.shape[1] <= 5
    np.testing.assert_allclose(R @ R.conj().T, P, atol=1e-12 * np.linalg.norm(P))


def test_factor_keeps_small_singular_values():
    R = lyapunov_factor(np.diag([-0.1, -2.0]), np.diag([1.0, 1e-12]))
    np.testing.assert_allclose(np.linalg.svd(R, compute_uv=False), [1 / np.sqrt(0.2), 1e-12 / 2], rtol=1e-11)


def test_finite_factor_of_an_unstable_matrix(rng):
    A, B = matrix(rng, 4, 0.5), normal(rng, (4, 2))
    R, P = lyapunov_factor(A, B, 2.0), quadrature(A, A, B @ B.T, 2.0)
    np.testing.assert_allclose(R @ R.T, P, atol=1e-11 * np.linalg.norm(P))


def test_factor_of_an_unstable_matrix_raises():
    with np.errstate(all="ignore"), pytest.raises(ConvergenceError, match="not stable"):
        lyapunov_factor(np.diag([0.5, -0.7]), np.ones((2, 1)))


def test_inputs_are_not_modified(rng):
    A, B, Q = matrix(rng, 4, -0.2), matrix(rng, 4, -0.2), normal(rng, (4, 4))
    copies = A.copy(), B.copy(), Q.copy()
    for duration in (None, 1.5):
        solve_lyapunov(A, B, Q, duration)
        lyapunov_factor(A, Q, duration)
    for array, copy in zip((A, B, Q), copies, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_entries_that_are_not_finite_raise():
    A, spoilt = -np.eye(2), np.array([[-1.0, np.nan], [0.0, -1.0]])
    for duration in (None, 2.0):
        with pytest.raises(ValueError, match="not finite"):
            solve_lyapunov(spoilt, A, np.eye(2), duration)
        with pytest.raises(ValueError, match="not finite"):
            lyapunov_factor(spoilt, np.eye(2), duration)
    with pytest.raises(ValueError, match="not finite"):
        solve_lyapunov(A, A, spoilt)


@pytest.mark.parametrize("duration", [0.0, -1.0, np.nan, np.inf])
def test_wrong_durations_raise(duration):
    with pytest.raises(ValueError, match="horizon must be a positive number"):
        solve_lyapunov(-np.eye(2), -np.eye(2), np.eye(2), duration)
    with pytest.raises(ValueError, match="horizon must be a positive number"):
        lyapunov_factor(-np.eye(2), np.eye(2), duration)
