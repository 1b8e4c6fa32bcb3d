"""Lyapunov and Sylvester equations ``A X + X Bᴴ + Q = 0``: infinite and finite horizon, and a factor."""

from __future__ import annotations

import numpy as np
import scipy.linalg

from lqo_mor.matrix_equations.diagonal import check_horizon
from lqo_mor.matrix_equations.stein import compress_factor, operands, stein_factor

_EPS = np.finfo(float).eps


def solve_lyapunov(A: np.ndarray, B: np.ndarray, Q: np.ndarray, duration: float | None = None) -> np.ndarray:
    """Solve ``A X + X Bᴴ + Q = 0``, or integrate ``X = ∫₀^T e^{At} Q e^{Bᴴt} dt``.

    Solvable if no sum ``λ_i(A) + conj(λ_j(B))`` is zero; the integral over a finite `duration` always exists.

    Parameters
    ----------
    A, B : (n, n) and (r, r) ndarray
        Coefficients, real or complex.
    Q : (n, r) ndarray
        Constant term.
    duration : float, optional
        Upper end `T` of the integral, in seconds; infinite by default.

    Returns
    -------
    (n, r) ndarray
        Real if all inputs are real.

    Raises
    ------
    InvalidInputError
        If an entry is not finite, or `duration` is not a positive finite number.

    Notes
    -----
    Infinite horizon: Bartels and Stewart (1972), by SciPy. Finite: Van Loan's (1978) exponential over a
    short step, then ``X_{2t} = X_t + e^{At} X_t e^{Bᴴt}``; nothing cancels and nothing has to be solvable.

    Examples
    --------
    >>> import numpy as np
    >>> solve_lyapunov(np.array([[-1.0]]), np.array([[-1.0]]), np.array([[2.0]]))
    array([[1.]])
    """
    A, B, Q = operands(A, B, Q)
    if duration is None:
        return scipy.linalg.solve_sylvester(A, B.conj().T, -Q)
    check_horizon(True, duration)
    n, r = Q.shape
    step, doublings = _short_step(duration, A, B)
    block = np.block([[-A, Q], [np.zeros((r, n)), B.conj().T]])
    exponential = scipy.linalg.expm(step * block)
    flow_A, flow_B = scipy.linalg.expm(step * A), exponential[n:, n:]
    X = flow_A @ exponential[:n, n:]
    for _ in range(doublings):
        X = X + flow_A @ X @ flow_B
        flow_A, flow_B = flow_A @ flow_A, flow_B @ flow_B
    return X


def lyapunov_factor(A: np.ndarray, B: np.ndarray, duration: float | None = None) -> np.ndarray:
    """A factor `R` of ``P = R Rᴴ``, the solution of ``A P + P Aᴴ + B Bᴴ = 0``, without forming `P`.

    Needs all eigenvalues of `A` in the open left half-plane; over a finite `duration` it factors
    ``∫₀^T e^{At} B Bᴴ e^{Aᴴt} dt`` of any `A`.

    Parameters
    ----------
    A : (n, n) ndarray
        State matrix.
    B : (n, m) ndarray
        Factor of the constant term.
    duration : float, optional
        Upper end `T` of the integral, in seconds; infinite by default.

    Returns
    -------
    (n, k) ndarray
        With at most `n` columns.

    Raises
    ------
    InvalidInputError
        If an entry is not finite, or `duration` is not a positive finite number.
    ConvergenceError
        If the iteration does not converge because `A` is not stable to working precision.

    Notes
    -----
    Infinite horizon: the Cayley transform ``A ← (A − σI)⁻¹(A + σI)``, ``B ← √(2σ) (A − σI)⁻¹ B`` keeps `P` and
    turns the equation into a Stein equation, solved by `stein_factor`. Finite horizon: Gauss–Legendre
    quadrature, exact to rounding over a short step, then doubling of the step.
    """
    A, B = operands(A, B)
    n = A.shape[0]
    if duration is None:
        moduli = np.abs(np.linalg.eigvals(A))
        shift = np.sqrt(max(moduli.min(), _EPS * moduli.max()) * moduli.max())
        lu = scipy.linalg.lu_factor(A - shift * np.eye(n))
        cayley = scipy.linalg.lu_solve(lu, A + shift * np.eye(n))
        return stein_factor(cayley, np.sqrt(2 * shift) * scipy.linalg.lu_solve(lu, B))
    check_horizon(True, duration)
    step, doublings = _short_step(duration, A, A)
    nodes, weights = np.polynomial.legendre.leggauss(12)
    times = 0.5 * step * (nodes + 1)
    R = np.hstack([np.sqrt(0.5 * step * w) * (scipy.linalg.expm(t * A) @ B) for t, w in zip(times, weights, strict=True)])
    R, flow = compress_factor(R), scipy.linalg.expm(step * A)
    for _ in range(doublings):
        R, flow = compress_factor(np.hstack([R, flow @ R])), flow @ flow
    return R


def _short_step(duration, A, B):
    """A step ``duration / 2^k`` over which the exponentials are tame, and `k`."""
    size = max(np.linalg.norm(A, 1), np.linalg.norm(B, 1)) * duration
    doublings = max(0, int(np.ceil(np.log2(size))) + 1) if size > 0 else 0
    return duration / 2**doublings, doublings
