import numpy as np
import pytest
import scipy.linalg

from lqo_mor.errors import ConvergenceError
from lqo_mor.matrix_equations import stein
from lqo_mor.matrix_equations.residuals import stein_residual
from lqo_mor.matrix_equations.stein import compress_factor, solve_stein, stein_factor
from tests.cases import normal

EPS = np.finfo(float).eps
KINDS = pytest.mark.parametrize("is_complex", [False, True], ids=["real", "complex"])


def matrix(rng, n, radius, is_complex=False):
    A = normal(rng, (n, n), is_complex)
    return radius * A / np.abs(np.linalg.eigvals(A)).max()


def brute_sum(A, B, Q, terms):
    return sum(np.linalg.matrix_power(A, k) @ Q @ np.linalg.matrix_power(B, k).conj().T for k in range(terms))


@KINDS
@pytest.mark.parametrize(("n", "r", "radius"), [(6, 6, 0.9), (7, 3, 0.99), (2, 8, 0.5), (1, 1, 0.999), (5, 4, 0.0)])
def test_solution_has_a_small_residual_and_is_the_infinite_sum(rng, is_complex, n, r, radius):
    A, B, Q = matrix(rng, n, radius, is_complex), matrix(rng, r, 0.9, is_complex), normal(rng, (n, r), is_complex)
    X = solve_stein(A, B, Q)
    assert X.shape == (n, r)
    assert np.iscomplexobj(X) == is_complex
    assert np.linalg.norm(A @ X @ B.conj().T - X + Q) <= 1e-13 * np.linalg.norm(X) * (
        1 + np.linalg.norm(A, 2) * np.linalg.norm(B, 2)
    )
    np.testing.assert_allclose(X, brute_sum(A, B, Q, 500), rtol=0, atol=1e-11 * np.linalg.norm(X))


@pytest.mark.parametrize("which", ["A", "B", "Q"])
def test_one_complex_operand_among_real_ones(rng, which):
    n = 12  # SciPy's own solver is wrong for real a with complex q from n = 10 on
    operands = {"A": matrix(rng, n, 0.8), "B": matrix(rng, n, 0.7), "Q": normal(rng, (n, n))}
    operands[which] = operands[which] * (1 + 0.5j) / abs(1 + 0.5j)
    X = solve_stein(**operands)
    assert stein_residual(X=X, **operands) < 50 * EPS
    np.testing.assert_allclose(X, brute_sum(*operands.values(), 300), atol=1e-11 * np.linalg.norm(X))


@KINDS
@pytest.mark.parametrize("terms", [1, 2, 3, 7, 8, 13, 64])
@pytest.mark.parametrize("radius", [0.9, 1.0, 1.1])
def test_finite_sum_is_the_sum_of_its_terms(rng, is_complex, terms, radius):
    A, B, Q = matrix(rng, 5, radius, is_complex), matrix(rng, 3, 1.0, is_complex), normal(rng, (5, 3), is_complex)
    X, wanted = solve_stein(A, B, Q, terms), brute_sum(A, B, Q, terms)
    np.testing.assert_allclose(X, wanted, atol=1e-12 * np.linalg.norm(wanted))


def test_long_finite_sum_tends_to_the_infinite_one(rng):
    A, Q = matrix(rng, 6, 0.9), normal(rng, (6, 6))
    np.testing.assert_allclose(solve_stein(A, A, Q, 1000), solve_stein(A, A, Q), rtol=1e-11, atol=1e-12)
    assert np.linalg.norm(solve_stein(A, A, Q, 10) - solve_stein(A, A, Q)) > 1e-3


@KINDS
def test_schur_method_agrees_with_doubling(rng, is_complex):
    A, B, Q = matrix(rng, 8, 0.9, is_complex), matrix(rng, 5, 0.9, is_complex), normal(rng, (8, 5), is_complex)
    by_doubling, converged = stein.double(A, B, Q)
    assert converged
    np.testing.assert_allclose(stein._solve_by_schur(A, B, Q), by_doubling, rtol=1e-11, atol=1e-12)
    Q = Q @ Q.conj().T
    np.testing.assert_allclose(stein._solve_by_schur(A, A, Q), stein.double(A, A, Q)[0], rtol=1e-11, atol=1e-11)


@KINDS
def test_solvable_equations_without_a_convergent_sum(rng, is_complex):
    A, B, Q = matrix(rng, 6, 1.3, is_complex), matrix(rng, 4, 1.2, is_complex), normal(rng, (6, 4), is_complex)
    X = solve_stein(A, B, Q)
    assert np.iscomplexobj(X) == is_complex
    assert stein_residual(A, B, Q, X) < 100 * EPS


@pytest.mark.parametrize("delta", [1e-4, 1e-8, 1e-12])
def test_close_to_the_unit_circle(delta):
    basis = np.linalg.qr(np.random.default_rng(0).standard_normal((4, 4)))[0]
    A = basis @ np.diag([1 - delta, 0.5, -0.3, 0.1]) @ basis.T
    X = solve_stein(A, A, np.eye(4))
    assert stein_residual(A, A, np.eye(4), X) < 100 * EPS
    exact = 1 / (delta * (2 - delta)) + 1 / 0.75 + 1 / 0.91 + 1 / 0.99
    assert X.trace() == pytest.approx(exact, rel=100 * EPS / delta)


def test_against_scipy(rng):
    A, Q = matrix(rng, 8, 0.9), normal(rng, (8, 8))
    np.testing.assert_allclose(solve_stein(A, A, Q), scipy.linalg.solve_discrete_lyapunov(A, Q), rtol=1e-10, atol=1e-11)
    A, Q = matrix(rng, 8, 0.9, True), normal(rng, (8, 8), True)
    np.testing.assert_allclose(solve_stein(A, A, Q), scipy.linalg.solve_discrete_lyapunov(A, Q), rtol=1e-10, atol=1e-11)


def test_against_python_control(rng):
    control = pytest.importorskip("control")
    A, B, Q = matrix(rng, 6, 0.9), matrix(rng, 6, 0.8), normal(rng, (6, 6))
    np.testing.assert_allclose(solve_stein(A, A, Q @ Q.T), control.dlyap(A, Q @ Q.T), rtol=1e-10, atol=1e-11)
    pytest.importorskip("slycot")
    np.testing.assert_allclose(solve_stein(A, B, Q), control.dlyap(A, B, Q), rtol=1e-10, atol=1e-11)


def test_against_slycot(rng):
    slycot = pytest.importorskip("slycot")
    A, F = matrix(rng, 8, 0.95), normal(rng, (8, 2))
    _, _, X, scale, *_ = slycot.sb03md57(A.copy(), C=-F @ F.T, dico="D", trana="T")
    np.testing.assert_allclose(solve_stein(A, A, F @ F.T), X / scale, rtol=1e-10, atol=1e-11)


@KINDS
@pytest.mark.parametrize("terms", [None, 1, 2, 5, 16, 21])
@pytest.mark.parametrize("m", [1, 3, 9])
def test_factor_gives_the_solution(rng, is_complex, terms, m):
    A, B = matrix(rng, 6, 0.9, is_complex), normal(rng, (6, m), is_complex)
    R = stein_factor(A, B, terms)
    P = solve_stein(A, A, B @ B.conj().T, terms)
    assert R.shape[0] == 6
    assert R.shape[1] <= max(6, m if terms == 1 else 6)
    np.testing.assert_allclose(R @ R.conj().T, P, atol=1e-13 * np.linalg.norm(P))


def test_factor_keeps_small_singular_values():
    # Two decoupled states of very different size: P = diag(1/(1 − a²), ε²/(1 − b²)), far below eps relative to its norm.
    R = stein_factor(np.diag([0.9, 0.5]), np.diag([1.0, 1e-12]))
    np.testing.assert_allclose(np.linalg.svd(R, compute_uv=False), [1 / np.sqrt(0.19), 1e-12 / np.sqrt(0.75)], rtol=1e-12)


def test_finite_factor_of_an_unstable_matrix(rng):
    A, B = matrix(rng, 5, 1.2), normal(rng, (5, 2))
    R, P = stein_factor(A, B, 11), brute_sum(A, A, B @ B.T, 11)
    np.testing.assert_allclose(R @ R.T, P, atol=1e-12 * np.linalg.norm(P))


@pytest.mark.parametrize("radius", [1.0, 1.2])
def test_factor_of_an_unstable_matrix_raises(radius):
    with np.errstate(over="ignore", invalid="ignore"), pytest.raises(ConvergenceError, match="not stable"):
        stein_factor(np.diag([radius, 0.5]), np.ones((2, 1)))


@KINDS
def test_compressed_factor_has_the_same_product(rng, is_complex):
    R = normal(rng, (4, 11), is_complex)
    T = compress_factor(R)
    assert T.shape == (4, 4)
    np.testing.assert_allclose(T @ T.conj().T, R @ R.conj().T, rtol=1e-12, atol=1e-13)
    low_rank = np.outer(np.arange(1.0, 10.0), np.ones(4))
    assert compress_factor(low_rank).shape in ((9, 1), (9, 2))  # by the rounding of what is beyond the first column
    np.testing.assert_allclose(compress_factor(low_rank) @ compress_factor(low_rank).T, low_rank @ low_rank.T)
    np.testing.assert_array_equal(compress_factor(np.zeros((5, 2))), np.zeros((5, 1)))


def test_inputs_are_not_modified(rng):
    A, B, Q = matrix(rng, 5, 0.9), matrix(rng, 5, 1.3), normal(rng, (5, 5))
    copies = A.copy(), B.copy(), Q.copy()
    for terms in (None, 6):
        solve_stein(A, A, Q, terms)
        stein_factor(A, Q, terms)
    solve_stein(B, B, Q)
    compress_factor(np.hstack([Q, Q]))
    for array, copy in zip((A, B, Q), copies, strict=True):
        np.testing.assert_array_equal(array, copy)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_entries_that_are_not_finite_raise(bad):
    A, Q = np.diag([0.5, 0.2]), np.eye(2)
    spoilt = A.copy()
    spoilt[0, 1] = bad
    with pytest.raises(ValueError, match="not finite"):
        solve_stein(spoilt, A, Q)
    with pytest.raises(ValueError, match="not finite"):
        solve_stein(A, A, spoilt)
    with pytest.raises(ValueError, match="not finite"):
        stein_factor(spoilt, Q)


@pytest.mark.parametrize("terms", [0, -1, -4, 2.5])
def test_wrong_numbers_of_terms_raise(terms):
    A = np.diag([0.5, 0.2])
    with pytest.raises(ValueError, match="horizon must be a positive integer"):
        solve_stein(A, A, np.eye(2), terms)
    with pytest.raises(ValueError, match="horizon must be a positive integer"):
        stein_factor(A, np.eye(2), terms)


def test_singular_equation_raises():
    with pytest.raises(np.linalg.LinAlgError):
        solve_stein(np.diag([2.0, 0.3]), np.diag([0.5, 0.4]), np.ones((2, 2)))
