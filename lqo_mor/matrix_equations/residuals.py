"""Relative residuals of the matrix equations, shared by solvers, tests and benchmarks."""

from __future__ import annotations

import math

import numpy as np

from lqo_mor.errors import SingularEquationError


def frobenius(X: np.ndarray) -> float:
    """The Frobenius norm, as `numpy.linalg.norm` takes it, at a fifth of the time for small matrices."""
    entries = X.ravel(order="K")
    return math.sqrt(np.vdot(entries, entries).real)


def negligible(step: np.ndarray, X: np.ndarray, factor: float) -> bool:
    """Whether `step` is below `factor` times `X`, and its rows, whose units may differ much, below ten times that of theirs."""
    if not frobenius(step) <= factor * frobenius(X):
        return False
    return bool((np.abs(step).max(axis=1) <= 10 * factor * np.abs(X).max(axis=1)).all())


def spectral_norm_estimate(A: np.ndarray) -> float:
    """The 2-norm of a matrix to about 10 %, by a few power steps on ``AᴴA``; n² work."""
    x = np.random.default_rng(0).standard_normal(A.shape[1])
    norm = 0.0
    with np.errstate(over="ignore", invalid="ignore"):  # of a matrix whose norm overflows: infinite
        for _ in range(8):
            size = np.linalg.norm(x)
            if size == 0 or not np.isfinite(size):
                break
            y = A @ (x / size)
            norm = float(np.linalg.norm(y))
            x = A.conj().T @ y
    return norm


def stein_residual(A: np.ndarray, B: np.ndarray, Q: np.ndarray, X: np.ndarray) -> float:
    """Relative residual of ``A X Bᴴ − X + Q = 0`` in the Frobenius norm.

    Relative to ``‖A‖ ‖X‖ ‖B‖ + ‖X‖ + ‖Q‖``, so that a backward stable solver gives a small multiple of
    the unit roundoff.
    """
    return relative_residual(A @ X @ B.conj().T - X + Q, spectral_norm_estimate(A) * spectral_norm_estimate(B) + 1.0, X, Q)


def lyapunov_residual(A: np.ndarray, B: np.ndarray, Q: np.ndarray, X: np.ndarray) -> float:
    """Relative residual of ``A X + X Bᴴ + Q = 0`` in the Frobenius norm, relative to its terms."""
    return relative_residual(A @ X + X @ B.conj().T + Q, spectral_norm_estimate(A) + spectral_norm_estimate(B), X, Q)


def relative_residual(residual: np.ndarray, factor: float, X: np.ndarray, Q: np.ndarray) -> float:
    """``‖residual‖ / (factor ‖X‖ + ‖Q‖)`` in the Frobenius norm."""
    scale = factor * frobenius(X) + frobenius(Q)
    return frobenius(residual) / scale if scale else 0.0


def refuse_singular(equation: str, factor: float, X: np.ndarray, Q: np.ndarray) -> None:
    """Raise `SingularEquationError` unless `X` can be a solution of an equation that is not singular to working precision.

    A solution with ``‖Q‖ ≤ 50 ε factor ‖X‖`` is a null vector of an equation within rounding of the given one, `factor` being
    the size of its operator.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        size = factor * np.linalg.norm(X)
    if np.any(Q) and not np.linalg.norm(Q) > 50 * np.finfo(float).eps * size:
        raise SingularEquationError(
            f"the {equation} equation has no unique solution to working precision: an eigenvalue of one coefficient "
            f"{'is the reciprocal' if equation == 'Stein' else 'is the negative'} of a conjugate eigenvalue of the other"
        )
