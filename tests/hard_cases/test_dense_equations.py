"""Dense Stein and Lyapunov equations with highly non-normal, defective, singular and nearly unstable coefficients."""

import numpy as np
import pytest
import scipy.linalg

from lqo_mor.errors import ConvergenceError, SingularEquationError
from lqo_mor.matrix_equations.lyapunov import lyapunov_factor, solve_lyapunov
from lqo_mor.matrix_equations.residuals import lyapunov_residual, stein_residual
from lqo_mor.matrix_equations.stein import solve_stein, stein_factor
from tests import extended

EPS = np.finfo(float).eps
RESIDUAL = 1e-13


def similar(eigenvalues, seed=0):
    """A complex matrix with these eigenvalues and moderately conditioned random eigenvectors."""
    rng = np.random.default_rng(seed)
    n = len(eigenvalues)
    V = np.eye(n) + 0.4 * (rng.standard_normal((n, n)) + 1j * rng.standard_normal((n, n))) / np.sqrt(n)
    return V @ np.diag(eigenvalues) @ np.linalg.inv(V)


def grcar(n):
    A = np.triu(np.tril(np.ones((n, n)), 3)) - np.eye(n, k=-1)
    return 0.9 * A / np.abs(np.linalg.eigvals(A)).max()


def kahan(n, angle=1.2):
    s, c = np.sin(angle), np.cos(angle)
    return s ** np.arange(n)[:, np.newaxis] * (np.eye(n) - c * np.triu(np.ones((n, n)), 1))


def jordan(eigenvalue, n, coupling=1.0):
    return eigenvalue * np.eye(n) + coupling * np.eye(n, k=1)


STABLE = {
    "Grcar": grcar(12),
    "Grcar complex": grcar(10) * np.exp(0.4j),
    "Kahan": 0.9 * kahan(12),
    "Kahan complex": 0.9j * kahan(10),
    "Jordan block": jordan(0.5, 12),
    "Jordan block near the boundary": jordan(0.9, 8),
    "Jordan block complex": jordan(0.6 + 0.3j, 6, 3.0),
    "companion": scipy.linalg.companion(np.poly([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, -0.3, 0.2])),
    "companion complex": scipy.linalg.companion(np.poly([0.9j, 0.8, -0.7j, 0.6, 0.5, 0.4])),
    "nilpotent": 3 * np.eye(10, k=1),
    "zero": np.zeros((4, 4)),
    "zero eigenvalues": similar([0, 0, 0.5, 0.9j]),
    "near the boundary 1e-10": similar([1 - 1e-10, 0.5, 0.3j, -0.2]),
    "near the boundary 1e-13": similar([1 - 1e-13, 0.5, 0.3j, -0.2]),
}
# inside and outside of the circle, no product λ conj(μ) equal to one; with 1 subtracted, no sum equal to zero
UNSTABLE = {
    "saddle": similar([2.0, 0.3, 0.9j, -0.8, 1.5j]),
    "strong saddle": similar([10.0, 0.3, 0.9j, -0.8, 1.5j, 100.0]),
    "outside": np.diag([3.0, -2.0, 1.5]) + np.eye(3, k=1),
    "just outside": similar([1 + 1e-8, 0.5, 0.3j]),
}
# An upper bound of the forward error where structure makes it far better than the condition number of the equation
BETTER = {"Jordan block near the boundary": 1e-12, "Jordan block": 1e-13, "Jordan block complex": 1e-13, "nilpotent": 1e-13}
SHIFTS = {"stein": 0.0, "lyapunov": 1.0}
SOLVE = {"stein": solve_stein, "lyapunov": solve_lyapunov}
RESIDUALS = {"stein": stein_residual, "lyapunov": lyapunov_residual}
REFERENCE = {"stein": extended.stein, "lyapunov": extended.lyapunov}


def constant(A, columns=None, seed=1):
    rng = np.random.default_rng(seed)
    shape = (A.shape[0], columns or A.shape[0])
    return rng.standard_normal(shape) + (1j * rng.standard_normal(shape) if np.iscomplexobj(A) else 0)


def operator(equation, A, B):
    if equation == "stein":
        return np.kron(A, B.conj()) - np.eye(A.shape[0] * B.shape[0])
    return np.kron(A, np.eye(B.shape[0])) + np.kron(np.eye(A.shape[0]), B.conj())


def check(equation, A, B, tolerance=None):
    A, B = (F - SHIFTS[equation] * np.eye(F.shape[0]) for F in (A, B))
    Q = constant(A, B.shape[0])
    X = SOLVE[equation](A, B, Q)
    assert np.iscomplexobj(X) == (np.iscomplexobj(A) or np.iscomplexobj(B))
    assert RESIDUALS[equation](A, B, Q, X) < RESIDUAL
    wanted = REFERENCE[equation](*(extended.exact(F) for F in (A, B, Q)))
    bound = 20 * EPS * np.linalg.cond(operator(equation, A, B))
    assert extended.relative_error(X, wanted) < min(bound, tolerance or 1.0)


@pytest.mark.parametrize("equation", SOLVE)
@pytest.mark.parametrize("name", [*STABLE, *UNSTABLE])
def test_residual_and_forward_error(name, equation):
    A = {**STABLE, **UNSTABLE}[name]
    check(equation, A, A, BETTER.get(name))


@pytest.mark.parametrize("equation", SOLVE)
@pytest.mark.parametrize(
    "names", [("Grcar", "Jordan block complex"), ("companion", "zero eigenvalues"), ("saddle", "Grcar complex")]
)
def test_two_different_coefficients(names, equation):
    check(equation, *({**STABLE, **UNSTABLE}[name] for name in names))


@pytest.mark.parametrize("terms", [1, 2, 37, 1000])
@pytest.mark.parametrize("name", ["Grcar complex", "Jordan block complex", "nilpotent", "saddle", "near the boundary 1e-13"])
def test_sums_of_a_non_normal_matrix(name, terms):
    A = {**STABLE, **UNSTABLE}[name]
    if name == "saddle":
        terms = min(terms, 37)
    Q = constant(A)
    wanted = extended.stein(*(extended.exact(F) for F in (A, A, Q)), terms)
    assert extended.relative_error(solve_stein(A, A, Q, terms), wanted) < 1e-11


@pytest.mark.parametrize("duration", [1e-8, 1.0, 20.0])
@pytest.mark.parametrize("name", ["Grcar complex", "Jordan block complex", "nilpotent", "saddle", "near the boundary 1e-13"])
def test_integrals_of_a_non_normal_matrix(name, duration):
    A = {**STABLE, **UNSTABLE}[name]
    A = A - np.eye(A.shape[0])
    Q = constant(A)
    wanted = extended.lyapunov(*(extended.exact(F) for F in (A, A, Q)), duration)
    assert extended.relative_error(solve_lyapunov(A, A, Q, duration), wanted) < 1e-11


@pytest.mark.parametrize("equation", SOLVE)
@pytest.mark.parametrize("n", [40, 100])
def test_larger_grcar(n, equation):
    A = grcar(n) - SHIFTS[equation] * np.eye(n)
    Q = constant(A)
    assert RESIDUALS[equation](A, A, Q, SOLVE[equation](A, A, Q)) < RESIDUAL


SINGULAR = {
    "reciprocal": (np.diag([2.0, 0.3]), np.diag([0.5, 0.1])),
    "one": (np.array([[1.0]]), np.array([[1.0]])),
    "swap": (np.array([[0.0, 1.0], [1.0, 0.0]]),) * 2,
    "reciprocal complex": (similar([2, 0.5]),) * 2,
    "cycle": (np.roll(np.eye(4), 1, axis=0),) * 2,
    "cycle complex": (1j * np.roll(np.eye(3), 1, axis=0),) * 2,
}


@pytest.mark.parametrize("name", SINGULAR)
def test_equations_without_a_unique_solution_are_refused(name):
    A, B = SINGULAR[name]
    Q = constant(A, B.shape[0])
    with pytest.raises(SingularEquationError, match="Stein equation has no unique solution"):
        solve_stein(A, B, Q)
    # the Cayley transform takes λ conj(μ) = 1 to a sum of zero
    identity = np.eye(A.shape[0])
    if name == "one":
        C, D = np.array([[0.0]]), np.array([[0.0]])
    else:
        shift = 1.0 if name not in ("swap", "cycle", "cycle complex") else np.exp(0.3j)
        C = np.linalg.solve(A + shift * identity, A - shift * identity)
        D = np.linalg.solve(B + shift * identity, B - shift * identity)
    with pytest.raises(SingularEquationError, match="Lyapunov equation has no unique solution"):
        solve_lyapunov(C, D, Q)


def test_a_zero_constant_term_has_the_zero_solution():
    A = np.diag([2.0, 0.3])
    assert not np.any(solve_stein(A, A, np.zeros((2, 2))))
    assert not np.any(solve_lyapunov(A, A, np.zeros((2, 2))))


@pytest.mark.parametrize("factor", [stein_factor, lyapunov_factor])
def test_factors_refuse_unstable_matrices(factor):
    for A in (np.diag([2.0, 0.3]), np.eye(2), similar([1.5j, 0.2])):
        with pytest.raises(ConvergenceError):
            factor(A, np.ones((2, 1)))
