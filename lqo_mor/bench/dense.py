"""Claims about dense equations: against other solvers, the finite horizon, and both Gramians of one system."""

from __future__ import annotations

from functools import lru_cache, partial

import numpy as np
import scipy.linalg

from lqo_mor.bench import peers
from lqo_mor.bench.timing import Row, Tell, compare, measure
from lqo_mor.matrix_equations.factors import factor_pair
from lqo_mor.matrix_equations.lyapunov import lyapunov_factor, solve_lyapunov
from lqo_mor.matrix_equations.residuals import lyapunov_residual, relative_residual, spectral_norm_estimate, stein_residual
from lqo_mor.matrix_equations.stein import solve_stein, stein_factor

STEIN_TARGETS = {64: 1.5, 256: 3.0, 1024: 8.0}
LYAPUNOV_TARGETS = {1024: 3.0}
_MARGIN = 0.1  # distance of the continuous spectrum from the imaginary axis; the matrices have norm 2
_WRAPPERS_UP_TO = 512  # order up to which packages that call the same routine are timed one by one


@lru_cache(maxsize=4)
def _random(n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A Gaussian matrix, its eigenvalues, and a square root of a right-hand side."""
    rng = np.random.default_rng(n)
    G = rng.standard_normal((n, n)) / np.sqrt(n)
    return G, np.linalg.eigvals(G), rng.standard_normal((n, n)) / np.sqrt(n)


def stable_matrix(n: int, continuous: bool, radius: float = 0.99) -> np.ndarray:
    """A random matrix with the given spectral radius, or with spectral abscissa −0.1."""
    G, poles, _ = _random(n)
    return G - (poles.real.max() + _MARGIN) * np.eye(n) if continuous else G * (radius / np.abs(poles).max())


def _against_peers(claim: str, continuous: bool, n: int, case: str, A: np.ndarray, target: float | None) -> list[Row]:
    root = _random(n)[2]
    Q = root @ root.T
    solve, residual = (solve_lyapunov, lyapunov_residual) if continuous else (solve_stein, stein_residual)
    others, absent = peers.solvers(continuous, A, root, wrappers=n <= _WRAPPERS_UP_TO)
    timings = measure({"ours": lambda: solve(A, A, Q), **others})
    return compare(claim, n, case, timings, lambda X: residual(A, A, Q, X), target, absent)


def stein_dense(quick: bool, progress: Tell) -> list[Row]:
    """Real discrete equations with three spectral radii."""
    rows = []
    for n in (64, 256) if quick else (64, 256, 1024):
        for radius in (0.99,) if quick else (0.9, 0.99, 0.999):
            case = f"radius {radius}"
            progress(f"n = {n}, {case}")
            rows += _against_peers("stein_dense", False, n, case, stable_matrix(n, False, radius), STEIN_TARGETS.get(n))
    return rows


def lyapunov_dense(quick: bool, progress: Tell) -> list[Row]:
    """Real continuous equations."""
    rows = []
    for n in (64, 256) if quick else (64, 256, 1024):
        progress(f"n = {n}")
        A = stable_matrix(n, True)
        rows += _against_peers("lyapunov_dense", True, n, f"abscissa −{_MARGIN}", A, LYAPUNOV_TARGETS.get(n))
    return rows


def finite_horizon(quick: bool, progress: Tell) -> list[Row]:
    """The finite horizon against the infinite one, both ours."""
    rows = []
    for n in (256,) if quick else (256, 1024):
        for continuous, horizon in ((False, 1000), (True, 10.0)):
            case = "10 s" if continuous else "1000 samples"
            progress(f"n = {n}, {case}")
            A, root = stable_matrix(n, continuous), _random(n)[2]
            Q = root @ root.T
            solve = solve_lyapunov if continuous else solve_stein
            timings = measure(
                {"finite": partial(solve, A, A, Q, horizon), "infinite": partial(solve, A, A, Q)},
                compiled=("finite", "infinite"),
            )
            flow = scipy.linalg.expm(horizon * A) if continuous else np.linalg.matrix_power(A, int(horizon))
            rest = Q - flow @ Q @ flow.T  # the finite sum solves the equation with this constant term
            residual = lyapunov_residual if continuous else stein_residual
            accuracy = {"finite": partial(residual, A, A, rest), "infinite": partial(residual, A, A, Q)}
            rows += compare("finite_horizon", n, case, timings, accuracy, targets={"infinite": 0.5})
    return rows


def both_gramians(quick: bool, progress: Tell) -> list[Row]:
    """Factors of both Gramians of one system with two inputs and two outputs, against two separate ones."""
    rows = []
    for n in (256,) if quick else (256, 512):
        for continuous in (False, True):
            case = "continuous" if continuous else "discrete, radius 0.99"
            progress(f"n = {n}, {case}")
            rows += _both_factors(continuous, n, case)
    return rows


def _both_factors(continuous: bool, n: int, case: str) -> list[Row]:
    A, rng = stable_matrix(n, continuous), np.random.default_rng(0)
    B, C = rng.standard_normal((n, 2)), rng.standard_normal((2, n))
    factor = lyapunov_factor if continuous else stein_factor
    timings = measure(
        {
            "together": lambda: factor_pair(continuous, A, B, lambda R: C, None),  # a linear system: the rows are C for any R
            "one by one": lambda: (factor(A, B), factor(A.T, C.T)),
        },
        compiled=("together", "one by one"),
    )

    def residual(pair: tuple[np.ndarray, np.ndarray]) -> float:
        return max(factor_residual(continuous, A, B, pair[0]), factor_residual(continuous, A.T, C.T, pair[1]))

    return compare("both_gramians", n, case, timings, residual, targets={"one by one": 1.0})


def factor_residual(continuous: bool, A: np.ndarray, B: np.ndarray, R: np.ndarray, vectors: int = 8) -> float:
    """Relative residual of ``P = R Rᴴ``, estimated by random vectors without forming any n × n matrix."""
    V = np.random.default_rng(1).standard_normal((A.shape[0], vectors))

    def P(X: np.ndarray) -> np.ndarray:
        return R @ (R.conj().T @ X)

    adjoint = A.conj().T
    rest = A @ P(V) + P(adjoint @ V) if continuous else A @ P(adjoint @ V) - P(V)
    rest = (rest + B @ (B.conj().T @ V)) / np.sqrt(vectors)  # its Frobenius norm estimates that of the residual
    norm = spectral_norm_estimate(A)
    factor = 2 * norm if continuous else norm**2 + 1
    return relative_residual(rest, factor, R.conj().T @ R, B.conj().T @ B)
