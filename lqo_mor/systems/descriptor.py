"""Systems with a matrix in front of the derivative, ``E ẋ = A x + B u``, in the form without one."""

from __future__ import annotations

import numpy as np
import scipy.linalg
from numpy.typing import ArrayLike
from scipy.linalg import solve_triangular

from lqo_mor.errors import AccuracyWarning, InvalidInputError, warn
from lqo_mor.systems.checks import as_array, check_shape
from lqo_mor.systems.dense import LQOSystem

_EPS = np.finfo(float).eps


def without_descriptor(sys: LQOSystem, E: ArrayLike) -> LQOSystem:
    """The system ``E ẋ = A x + B u`` (or ``E x[k+1] = ...``) with the outputs of `sys`, as an `LQOSystem`.

    A Hermitian positive definite ``E = L Lᴴ`` gives the states ``Lᴴ x`` and keeps the symmetry of `A`, ``L⁻¹ A L⁻ᴴ``; any other
    one gives ``E⁻¹ A`` by its LU decomposition and keeps the states.

    The `M` of `sys` is dense or None; `E` (n, n) is nonsingular. Transfer function and quadratic outputs stay the same. Warns
    with an `AccuracyWarning` if the condition number of `E`, once its rows and columns have comparable sizes, exceeds 1e8;
    raises `InvalidInputError` if `E` has another shape than `A` or is singular to working precision.
    """
    E = as_array("E", E)
    check_shape("E", E, sys.A.shape, "(n, n)")
    lower, reciprocal = _cholesky(E)
    if lower is not None:
        _check_condition(reciprocal)
        return _congruent(sys, lower)
    rows, columns = _scales(E)
    scaled = rows[:, np.newaxis] * E * columns
    getrf, gecon, getrs = scipy.linalg.get_lapack_funcs(("getrf", "gecon", "getrs"), (scaled, sys.A, sys.B))
    lu, pivots, _ = getrf(scaled)
    _check_condition(gecon(lu, np.linalg.norm(scaled, 1))[0])
    A, B = (columns[:, np.newaxis] * getrs(lu, pivots, rows[:, np.newaxis] * right)[0] for right in (sys.A, sys.B))
    return LQOSystem(A, B, sys.C, sys.D, sys.M, sys.dt)


def _cholesky(E: np.ndarray) -> tuple[np.ndarray | None, float]:
    """The factor `L` and the reciprocal condition number of the scaled matrix; None unless `E` is Hermitian positive definite."""
    diagonal = E.diagonal().real
    if not np.all(diagonal > 0):
        return None, 0.0
    scale = _power_of_two(np.sqrt(diagonal))
    scaled = scale[:, np.newaxis] * E * scale
    if not np.max(np.abs(scaled - scaled.conj().T)) <= 8 * _EPS:  # no more than the rounding of an assembled matrix
        return None, 0.0
    try:
        lower = scipy.linalg.cholesky(scaled, lower=True)
    except np.linalg.LinAlgError:
        return None, 0.0
    pocon = scipy.linalg.get_lapack_funcs("pocon", (lower,))
    return lower / scale[:, np.newaxis], pocon(lower, np.linalg.norm(scaled, 1), uplo="L")[0]


def _congruent(sys: LQOSystem, lower: np.ndarray) -> LQOSystem:
    """`sys` with ``E = L Lᴴ`` in the states ``Lᴴ x``."""

    def both_sides(left: np.ndarray, matrix: np.ndarray) -> np.ndarray:
        """``left⁻¹ matrix L⁻ᴴ``."""
        half = solve_triangular(left, matrix, lower=True, check_finite=False)
        return solve_triangular(lower, half.conj().T, lower=True, check_finite=False).conj().T

    A = both_sides(lower, sys.A)
    if np.array_equal(sys.A, sys.A.conj().T):
        A = 0.5 * (A + A.conj().T)
    B = solve_triangular(lower, sys.B, lower=True, check_finite=False)
    C = solve_triangular(lower, sys.C.conj().T, lower=True, check_finite=False).conj().T
    M = sys.M
    if isinstance(M, np.ndarray):  # xᵀ M x has a plain transpose, so that one factor is the conjugate of the other
        M = np.array([both_sides(lower.conj(), matrix) for matrix in M])
        M = 0.5 * (M + M.transpose(0, 2, 1))
    return LQOSystem(A, B, C, sys.D, M, sys.dt)


def _scales(E: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Factors for the rows and columns of `E` that bring their largest entries near one; powers of two, without rounding."""
    size = np.abs(E)
    if not (np.all(size.max(axis=1) > 0) and np.all(size.max(axis=0) > 0)):
        _check_condition(0.0)
    rows = _power_of_two(size.max(axis=1))
    return rows, _power_of_two((rows[:, np.newaxis] * size).max(axis=0))


def _power_of_two(size: np.ndarray) -> np.ndarray:
    return np.exp2(-np.round(np.log2(size)))


def _check_condition(reciprocal: float) -> None:
    """Raise or warn by the reciprocal condition number of the scaled `E`."""
    if not reciprocal > _EPS:
        raise InvalidInputError(
            "E is singular to working precision, and descriptor systems with a singular E are not supported; eliminate the "
            "algebraic equations first"
        )
    if reciprocal < 1e-8:
        warn(f"E has condition number {1 / reciprocal:.1e}; the system without E loses as many digits", AccuracyWarning)
