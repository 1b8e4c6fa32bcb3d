"""Stein equations ``A X Bᴴ − X + Q = 0``: the infinite sum, its first terms, and a factor of the solution."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import scipy.linalg

from lqo_mor.errors import ConvergenceError, InvalidInputError
from lqo_mor.matrix_equations.pairing import check_horizon
from lqo_mor.matrix_equations.residuals import (
    frobenius,
    negligible,
    refuse_singular,
    relative_residual,
    spectral_norm_estimate,
    stein_residual,
)
from lqo_mor.matrix_equations.schur_basis import FarFromNormal, Watch, factor_in_schur_basis, solve_in_schur_basis

_EPS = np.finfo(float).eps
_MAX_DOUBLINGS = 60
_SMALL_CORRECTION = 1e-3
_NEXT_IS_NOTHING = 0.1 * np.sqrt(_EPS)
_REFINE, _ACCEPT = 10 * _EPS, 100 * _EPS  # relative residuals that call for a correction, and that a solution may have


def solve_stein(A: np.ndarray, B: np.ndarray, Q: np.ndarray, terms: float | None = None) -> np.ndarray:
    """Solve ``A X Bᴴ − X + Q = 0``, or sum the first terms of ``X = Σ_k A^k Q (Bᴴ)^k``.

    Solvable if no product ``λ_i(A) conj(λ_j(B))`` equals 1; the sum of `terms` terms always exists.

    The coefficients `A` (n, n) and `B` (r, r) and the constant term `Q` (n, r) are real or complex; `X` (n, r) is real if all of
    them are. Raises `InvalidInputError` if an entry is not finite or `terms` is not a positive integer, and
    `SingularEquationError` if the equation has no unique solution to working precision.

    Notes
    -----
    Doubling (squared Smith iteration, R. A. Smith 1968): ``X ← X + A X Bᴴ, A ← A², B ← B²``. Where it does
    not converge, or its residual stays poor after one correction, a Schur method (Kitagawa 1977) takes over. A matrix
    whose powers grow is brought to Schur form first.

    Examples
    --------
    >>> import numpy as np
    >>> solve_stein(np.array([[0.5]]), np.array([[0.5]]), np.array([[3.0]]))
    array([[4.]])
    """
    A, B, Q = operands(A, B, Q)
    if terms is None:
        return _solve(A, B, Q)
    check_horizon(False, terms)
    return _first_terms(A, B, Q, int(terms))


def _solve(A: np.ndarray, B: np.ndarray, Q: np.ndarray) -> np.ndarray:
    """The solution of the equation."""
    try:
        X, converged = double(A, B, Q)
    except FarFromNormal:
        return _solve_by_schur(A, B, Q)
    if not converged:
        return _solve_by_schur(A, B, Q)
    rest = A @ X @ B.conj().T - X + Q
    if frobenius(rest) <= _REFINE * frobenius(X):  # without the other terms of the scale, which only help
        return X
    if relative_residual(rest, spectral_norm_estimate(A) * spectral_norm_estimate(B) + 1.0, X, Q) > _REFINE:
        X = X + double(A, B, rest)[0]
        if not stein_residual(A, B, Q, X) < _ACCEPT:
            return _solve_by_schur(A, B, Q)
    return X


def operands(*arrays: np.ndarray) -> list[np.ndarray]:
    """The arrays as float64, or all as complex128 if one is complex; raises where an entry is not finite."""
    dtype = np.result_type(*arrays, float)
    converted = [np.asarray(array, dtype) for array in arrays]
    if not all(np.all(np.isfinite(array)) for array in converted):
        raise InvalidInputError("a matrix equation was given coefficients with entries that are not finite")
    return converted


def double(A: np.ndarray, B: np.ndarray, Q: np.ndarray, watched: bool = True) -> tuple[np.ndarray, bool]:
    """The infinite sum by doubling, and whether it converged; theory, eq. (4.1).

    Raises `FarFromNormal` where powers grow and are `watched`.

    A step is about the square of the one before, relative to the sum; so the iteration stops one step early, when
    the next step would be below rounding. Where that guess is wrong, the residual of the caller shows it.
    """
    X, same, watch_A, watch_B = Q, B is A, Watch(watched), Watch(watched)
    with np.errstate(over="ignore", invalid="ignore"):
        for _ in range(_MAX_DOUBLINGS):
            step = A @ X @ B.conj().T
            X = X + step
            if not math.isfinite(frobenius(step)):
                return X, False
            if negligible(step, X, _NEXT_IS_NOTHING):
                return X, True
            A = watch_A(A) @ A
            B = A if same else watch_B(B) @ B
    return X, False


def _first_terms(A: np.ndarray, B: np.ndarray, Q: np.ndarray, terms: int) -> np.ndarray:
    """The sum of the first terms."""
    try:
        return _sum_terms(A, B, Q, terms, watched=True)
    except FarFromNormal:
        return solve_in_schur_basis(partial(_sum_terms, terms=terms, watched=False), A, B, Q)


def _sum_terms(A: np.ndarray, B: np.ndarray, Q: np.ndarray, terms: int, watched: bool) -> np.ndarray:
    """``Σ_{k<terms} A^k Q (Bᴴ)^k`` by doubling over the binary digits of `terms`, leading digit first; theory, eq. (4.3).

    Raises `FarFromNormal` where powers grow and are `watched`.
    """
    X, power_A, power_B, same, watch_A, watch_B = Q, A, B, B is A, Watch(watched), Watch(watched)
    for digit in bin(terms)[3:]:
        step = power_A @ X @ power_B.conj().T
        X = X + step
        if negligible(step, X, 0.01 * _EPS):  # the remaining terms no longer count
            return X
        power_A = watch_A(power_A) @ power_A
        power_B = power_A if same else watch_B(power_B) @ power_B
        if digit == "1":
            X = Q + A @ X @ B.conj().T
            power_A = power_A @ A
            power_B = power_A if same else power_B @ B
    return X


def _solve_by_schur(A: np.ndarray, B: np.ndarray, Q: np.ndarray) -> np.ndarray:
    """In the Schur bases of both coefficients: by doubling, else column by column from the last one; theory, eq. (4.2)."""
    T, U = scipy.linalg.schur(A, output="complex")
    S, V = (T, U) if B is A else scipy.linalg.schur(B, output="complex")

    def solve(Q: np.ndarray) -> np.ndarray:
        F = U.conj().T @ Q @ V
        Y, converged = double(T, S, F, watched=False) if stable else (F, False)
        if not converged:
            Y = _substitute(T, S, F)
            refuse_singular("Stein", factor, Y, Q)
        X = U @ Y @ V.conj().T
        return X if np.iscomplexobj(Q) else X.real

    stable = np.max(np.abs(np.diag(T))) * np.max(np.abs(np.diag(S))) < 1 - 100 * _EPS
    factor = spectral_norm_estimate(A) * spectral_norm_estimate(B) + 1.0
    X = solve(Q)
    rest = A @ X @ B.conj().T - X + Q
    if relative_residual(rest, factor, X, Q) > _REFINE:
        correction = solve(rest)
        if frobenius(correction) < _SMALL_CORRECTION * frobenius(X):  # else it is rounding, magnified
            return X + correction
    return X


def _substitute(T: np.ndarray, S: np.ndarray, F: np.ndarray) -> np.ndarray:
    """The solution of ``T Y Sᴴ − Y + F = 0`` for triangular coefficients, column by column from the last one."""
    Y, identity = np.zeros_like(F), np.eye(T.shape[0])
    for j in reversed(range(S.shape[0])):
        known = T @ (Y[:, j + 1 :] @ S[j, j + 1 :].conj())
        try:
            Y[:, j] = scipy.linalg.solve_triangular(S[j, j].conj() * T - identity, -F[:, j] - known, check_finite=False)
        except scipy.linalg.LinAlgError:  # a pivot of exactly zero
            Y[:, j] = np.inf
            break
    return Y


def stein_factor(A: np.ndarray, B: np.ndarray, terms: float | None = None, squares: list[np.ndarray] | None = None) -> np.ndarray:
    """A factor `R` of ``P = R Rᴴ``, the solution of ``A P Aᴴ − P + B Bᴴ = 0``, without forming `P`.

    Needs a spectral radius of `A` below 1; with `terms` it factors the sum of the first terms
    ``Σ_{k<terms} A^k B Bᴴ (Aᴴ)^k`` of any `A`.

    For `A` (n, n) and `B` (n, m), `R` has at most `n` columns. Small singular values of `P` keep half as many digits more than
    those of a computed `P` (they are squares of singular values of `R`). `squares` are the matrices ``A^(2^k)``, k = 0, 1, …, as
    far as they are known; the list is extended by those that the infinite sum needs, for a second factor with the same `A` or its
    adjoint. Without it they are not kept.

    Raises `InvalidInputError` if an entry is not finite or `terms` is not a positive integer, and `ConvergenceError` if the
    iteration does not converge because `A` is not stable to working precision.

    Notes
    -----
    Doubling on the factor: ``R ← [R, A R]``, ``A ← A²``, compressed by QR decompositions; theory, eq. (4.4).
    """
    A, B = operands(A, B)
    factor: Callable[..., np.ndarray] = partial(double_factor, squares=squares)
    if terms is not None:
        check_horizon(False, terms)
        factor = partial(_factor_terms, terms=int(terms))
    try:
        return factor(A, B, watched=True)
    except FarFromNormal:
        factor = double_factor if terms is None else factor  # the squares were those of A
        return compress_factor(factor_in_schur_basis(partial(factor, watched=False), A, B))


def _factor_terms(A: np.ndarray, B: np.ndarray, terms: int, watched: bool) -> np.ndarray:
    """A factor of the sum of the first terms; raises `FarFromNormal` where powers grow and are `watched`."""
    R, power, watch = compress_factor(B), A, Watch(watched)
    for digit in bin(terms)[3:]:
        step = power @ R
        R = compress_factor(np.hstack([R, step]))
        if negligible(step, R, 0.01 * _EPS):  # the remaining terms no longer count
            return R
        power = watch(power) @ power
        if digit == "1":
            R, power = compress_factor(np.hstack([B, A @ R])), power @ A
    return R


def double_factor(A: np.ndarray, B: np.ndarray, squares: list[np.ndarray] | None = None, watched: bool = True) -> np.ndarray:
    """A factor of the infinite sum; raises `FarFromNormal` where powers grow and are `watched`."""
    R, squares, watch = compress_factor(B), [] if squares is None else squares, Watch(watched)
    for k in range(_MAX_DOUBLINGS):
        with np.errstate(over="ignore", invalid="ignore"):
            if k == len(squares):
                squares.append(watch(squares[-1]) @ squares[-1] if k else A)
            step = squares[k] @ R
        if not math.isfinite(frobenius(step)):
            break
        if negligible(step, R, _EPS):
            return R
        R = compress_factor(np.hstack([R, step]))
    raise ConvergenceError("the doubling iteration for a Gramian factor did not converge: A is not stable to working precision")


def compress_factor(R: np.ndarray) -> np.ndarray:
    """A factor with the same ``R Rᴴ`` and fewer columns where that is cheap: never more than `n`.

    A narrow factor is cut to its numerical rank by a pivoted QR decomposition; one wider than `n` becomes square
    by a plain one, which is many times as fast.
    """
    n, k = R.shape
    if k > n:
        return scipy.linalg.qr(R.conj().T, mode="r", check_finite=False)[0][:n].conj().T
    if k > n // 2:
        return R
    T, pivots = scipy.linalg.qr(R.conj().T, mode="r", pivoting=True, check_finite=False)
    rank = max(1, int(np.count_nonzero(np.abs(np.diag(T)) > _EPS * abs(T[0, 0]))))
    out = np.empty((n, rank), R.dtype)
    out[pivots] = T[:rank].conj().T
    return out
