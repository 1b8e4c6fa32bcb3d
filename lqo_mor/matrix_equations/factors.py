"""Factors of both Gramians of one dense system, with the work that they share done once."""

from __future__ import annotations

import contextlib

import numpy as np

from lqo_mor.matrix_equations.lyapunov import Map, cayley_transform, lyapunov_factor
from lqo_mor.matrix_equations.schur_basis import FarFromNormal
from lqo_mor.matrix_equations.stein import double_factor, stein_factor

_KEEP_SQUARES = 2048  # order up to which the powers of A are kept for the second factor (16 n² bytes per power)


def factor_pair(
    continuous: bool, A: np.ndarray, B: np.ndarray, rows: Map, horizon: float | None
) -> tuple[np.ndarray, np.ndarray]:
    """Factors `R` (n, k) and `S` (n, l) of the Gramians ``P = R Rᴴ`` and ``Q = S Sᴴ`` of `A` (n, n) and `B` (n, m).

    ``A P Aᴴ − P + B Bᴴ = 0``, ``Aᴴ Q A − Q + CᴴC = 0`` (continuous: ``A P + P Aᴴ + B Bᴴ = 0`` and so on), or the sums and
    integrals over a finite horizon. ``rows(R)`` gives the output rows `C`, (q, n): with a quadratic output they depend on the
    first factor. Raises `ConvergenceError` if the horizon is infinite and `A` is not stable to working precision.
    """
    if horizon is None:
        with contextlib.suppress(FarFromNormal):
            return _doubled(continuous, A, B, rows)
    factor = lyapunov_factor if continuous else stein_factor
    R = factor(A, B, horizon)
    return R, factor(A.conj().T, rows(R).conj().T, horizon)


def _doubled(continuous: bool, A: np.ndarray, B: np.ndarray, rows: Map) -> tuple[np.ndarray, np.ndarray]:
    """Both factors over the infinite horizon, by doubling with the powers in common."""
    squares: list[np.ndarray] | None = [] if A.shape[0] <= _KEEP_SQUARES else None
    if continuous:
        transform, apply, apply_adjoint = cayley_transform(A)
    else:
        transform, apply, apply_adjoint = A, lambda X: X, lambda X: X
    R = double_factor(transform, apply(B), squares)
    adjoint = None if squares is None else [power.conj().T for power in squares]
    return R, double_factor(transform.conj().T, apply_adjoint(rows(R).conj().T), adjoint)
