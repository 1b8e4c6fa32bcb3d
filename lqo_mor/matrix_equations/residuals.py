"""Relative residuals of the matrix equations, shared by solvers, tests and benchmarks."""

from __future__ import annotations

import numpy as np


def stein_residual(A: np.ndarray, B: np.ndarray, Q: np.ndarray, X: np.ndarray) -> float:
    """Relative residual of ``A X Bᴴ − X + Q = 0`` in the Frobenius norm.

    Relative to ``‖A‖ ‖X‖ ‖B‖ + ‖X‖ + ‖Q‖``, so that a backward stable solver gives a small multiple of
    the unit roundoff.
    """
    norm = np.linalg.norm
    scale = norm(A, 2) * norm(X) * norm(B, 2) + norm(X) + norm(Q) if X.size else 1.0
    return float(norm(A @ X @ B.conj().T - X + Q) / scale) if scale else 0.0


def lyapunov_residual(A: np.ndarray, B: np.ndarray, Q: np.ndarray, X: np.ndarray) -> float:
    """Relative residual of ``A X + X Bᴴ + Q = 0`` in the Frobenius norm, relative to its terms."""
    norm = np.linalg.norm
    scale = (norm(A, 2) + norm(B, 2)) * norm(X) + norm(Q) if X.size else 1.0
    return float(norm(A @ X + X @ B.conj().T + Q) / scale) if scale else 0.0
