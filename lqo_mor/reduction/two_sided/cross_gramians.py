"""Cross Gramians between a full system and small ones, with all that depends on the full one alone done once.

``X = Σ_k A^k Q (A_rᵀ)^k`` and ``Y = Σ_k (Aᵀ)^k Q A_rᵏ`` over the horizon (continuous: the integrals). With ``Q = B B_rᵀ``
the first is the cross Gramian of the states; an iteration on the reduced system solves both in every step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import scipy.linalg

from lqo_mor.analysis.norm import HorizonNorm, Norm
from lqo_mor.matrix_equations.lyapunov import cayley_transform, solve_lyapunov
from lqo_mor.matrix_equations.residuals import relative_residual, spectral_norm_estimate
from lqo_mor.matrix_equations.sparse_sylvester import CrossSolver
from lqo_mor.matrix_equations.stein import solve_stein
from lqo_mor.systems.convert import as_dense, real_states
from lqo_mor.systems.dense import LQOSystem
from lqo_mor.systems.diagonal import DiagonalLQOSystem
from lqo_mor.systems.system import System

Map: TypeAlias = Callable[[np.ndarray, bool], np.ndarray]  # of columns; of the adjoint where the flag says so
ModalSolver: TypeAlias = Callable[[np.ndarray, np.ndarray, np.ndarray, bool], np.ndarray]

_EPS = np.finfo(float).eps
_MODES = 1e4  # condition of the eigenvectors of the full system that costs no more than four of sixteen digits
_SMALL_MODES = 1e6  # condition of those of a reduced one above which the equations are solved without them
_MAX_DOUBLINGS = 60
_NEXT_IS_NOTHING = 0.1 * np.sqrt(_EPS)  # a step whose square is below rounding, as the next one will be
_REFINE, _ACCEPT = 10 * _EPS, 1e4 * _EPS  # relative residuals that call for a correction, and that a solution may have


def cross_solver(sys: System, norm: Norm) -> CrossSolver:
    """A function ``solve(Q, A_r, adjoint=False)`` for the sums of this module, in a norm and with one real system of order `n`.

    It maps real `Q` (n, r) and `A_r` (r, r) to `X`, or to `Y` if `adjoint`, in the coordinates of `to_dense` if the system is
    diagonal. Modal where the eigenvectors of both state matrices are well conditioned, O(n r) for diagonal systems; by doubling
    with stored powers of `A` otherwise, O(n² r). Over an infinite horizon both systems have to be stable.
    """
    modal = modal_solver(sys, norm)
    stored: list[CrossSolver] = []

    def solve(Q: np.ndarray, A_r: np.ndarray, adjoint: bool = False) -> np.ndarray:
        if modal is not None:
            poles, T = np.linalg.eig(A_r)
            if np.linalg.cond(T) < _SMALL_MODES:
                return modal(Q, poles, T, adjoint)
        if not stored:
            stored.append(_doubling_solver(as_dense(sys).A, norm))
        return stored[0](Q, A_r, adjoint)

    return solve


def modal_solver(sys: System, norm: Norm) -> ModalSolver | None:
    """``solve(Q, poles, T, adjoint)``: the sums with the eigenvalues of both matrices, ``A_r = T diag(poles) T⁻¹``.

    In the half storage of the full system (theory, eq. (4.7)); None if its eigenvectors are ill conditioned.
    """
    basis = (sys.poles, *slot_maps(sys.is_real_pole)) if isinstance(sys, DiagonalLQOSystem) else _modal_basis(sys)
    if basis is None:
        return None
    lam, to_slots, from_slots = basis
    pairing = norm.pairing

    def solve(Q: np.ndarray, poles: np.ndarray, T: np.ndarray, adjoint: bool) -> np.ndarray:
        g = pairing.outer(lam.conj() if adjoint and isinstance(sys, DiagonalLQOSystem) else lam, poles)
        slots = to_slots(Q, adjoint)
        if adjoint:
            return from_slots(np.linalg.solve(T.T, (slots @ T * g).T).T, adjoint)
        return from_slots(np.linalg.solve(T, slots.T).T * g @ T.T, adjoint)

    return solve


def slot_maps(real: np.ndarray) -> tuple[Map, Map]:
    """Maps of columns in real coordinates to half storage and back; their adjoints are themselves, poles conjugated."""
    s, pairs = real.size, np.flatnonzero(~real)

    def to_slots(Q: np.ndarray, adjoint: bool) -> np.ndarray:
        slots = Q[:s] * np.where(real, 1.0, np.sqrt(0.5))[:, np.newaxis] + 0j
        slots[pairs] += 1j * np.sqrt(0.5) * Q[s:]
        return slots

    return to_slots, lambda slots, adjoint: real_states(slots, real)


def state_map(sys: System) -> Map:
    """``apply(V, adjoint)``: `A V` or `Aᵀ V` of real columns; elementwise for a diagonal system."""
    if isinstance(sys, LQOSystem):
        A = sys.A
        return lambda V, adjoint: (A.T if adjoint else A) @ V
    to_slots, from_slots = slot_maps(sys.is_real_pole)
    poles = sys.poles[:, np.newaxis]
    return lambda V, adjoint: from_slots((poles.conj() if adjoint else poles) * to_slots(V, adjoint), adjoint)


def _modal_basis(sys: LQOSystem) -> tuple[np.ndarray, Map, Map] | None:
    """Poles in half storage and the maps to and from modal coordinates; None where they are ill conditioned."""
    poles, vectors = scipy.linalg.eig(sys.A)
    try:
        inverse = np.linalg.inv(vectors)
    except np.linalg.LinAlgError:
        return None
    if not spectral_norm_estimate(vectors) * spectral_norm_estimate(inverse) < _MODES:
        return None
    half = poles.imag >= 0
    right, left = vectors[:, half], inverse[half].T
    weights = np.where(poles[half].imag == 0, 1.0, 2.0)[:, np.newaxis]

    def to_slots(Q: np.ndarray, adjoint: bool) -> np.ndarray:
        return (right if adjoint else left).T @ Q

    def from_slots(slots: np.ndarray, adjoint: bool) -> np.ndarray:
        return ((left if adjoint else right) @ (weights * slots)).real

    return poles[half], to_slots, from_slots


def _doubling_solver(A: np.ndarray, norm: Norm) -> CrossSolver:
    if norm.white and not isinstance(norm, HorizonNorm):
        return lambda Q, A_r, adjoint=False: norm.solve(A.T, A_r.T, Q) if adjoint else norm.solve(A, A_r, Q)
    if norm.horizon is None:
        return _infinite_continuous(A) if norm.continuous else _infinite_discrete(A)
    return _finite_continuous(A, norm.horizon) if norm.continuous else _finite_discrete(A, int(norm.horizon))


def _infinite_discrete(A: np.ndarray) -> CrossSolver:
    squares = [A]

    def solve(Q: np.ndarray, A_r: np.ndarray, adjoint: bool = False) -> np.ndarray:
        X, converged = _sum_with_squares(squares, Q, A_r if adjoint else A_r.T, adjoint)
        left, right = (A.T, A_r) if adjoint else (A, A_r.T)
        rest = left @ X @ right - X + Q
        if converged and np.linalg.norm(rest) > _REFINE * np.linalg.norm(X):
            X = X + _sum_with_squares(squares, rest, right, adjoint)[0]
            rest = left @ X @ right - X + Q
        if converged and np.linalg.norm(rest) < _ACCEPT * (np.linalg.norm(X) + np.linalg.norm(Q)):
            return X
        return solve_stein(left, right.T, Q)

    return solve


def _infinite_continuous(A: np.ndarray) -> CrossSolver:
    """By the Cayley transform of both matrices, which keeps the solution; theory, eq. (4.5)."""
    modulus = np.abs(np.linalg.eigvals(A))
    shift = float(np.sqrt(modulus.min() * modulus.max()))
    transform, apply, apply_adjoint = cayley_transform(A, shift)
    squares, size = [transform], spectral_norm_estimate(A)

    def solve(Q: np.ndarray, A_r: np.ndarray, adjoint: bool = False) -> np.ndarray:
        left, right = (A.T, A_r) if adjoint else (A, A_r.T)
        small, small_apply, _ = cayley_transform(right.T, shift)
        left_apply = apply_adjoint if adjoint else apply

        def once(Q: np.ndarray) -> tuple[np.ndarray, bool]:
            return _sum_with_squares(squares, small_apply(left_apply(Q).T).T, small.T, adjoint)

        X, converged = once(Q)
        factor = size + float(np.linalg.norm(A_r))
        rest = left @ X + X @ right + Q
        if converged and relative_residual(rest, factor, X, Q) > _REFINE:
            X = X + once(rest)[0]
            rest = left @ X + X @ right + Q
        if converged and relative_residual(rest, factor, X, Q) < _ACCEPT:
            return X
        return solve_lyapunov(left, right.T, Q)

    return solve


def _sum_with_squares(squares: list[np.ndarray], Q: np.ndarray, S: np.ndarray, adjoint: bool) -> tuple[np.ndarray, bool]:
    """``Σ_k P^k Q S^k`` (`adjoint`: with ``Pᵀ``) from the powers ``P^(2^k)``, which are added to; theory, eq. (4.1)."""
    X = Q
    with np.errstate(over="ignore", invalid="ignore"):
        for k in range(_MAX_DOUBLINGS):
            if k == len(squares):
                squares.append(squares[-1] @ squares[-1])
            step = (squares[k].T if adjoint else squares[k]) @ X @ S
            X = X + step
            size = np.linalg.norm(step)
            if not np.isfinite(size):
                return X, False
            if size <= _NEXT_IS_NOTHING * np.linalg.norm(X):
                return X, True
            S = S @ S
    return X, False


def _finite_discrete(A: np.ndarray, terms: int) -> CrossSolver:
    """Doubling over the binary digits of `terms`, leading digit first; theory, eq. (4.3)."""
    digits, powers = bin(terms)[3:], [A]
    for digit in digits[:-1]:
        square = powers[-1] @ powers[-1]
        powers.append(square @ A if digit == "1" else square)

    def solve(Q: np.ndarray, A_r: np.ndarray, adjoint: bool = False) -> np.ndarray:
        left, right = (A.T, A_r) if adjoint else (A, A_r.T)
        X, S = Q, right
        for P, digit in zip(powers, digits, strict=False):
            X = X + (P.T if adjoint else P) @ X @ S
            S = S @ S
            if digit == "1":
                X = Q + left @ X @ right
                S = S @ right
        return X

    return solve


def _finite_continuous(A: np.ndarray, duration: float) -> CrossSolver:
    """A Taylor series over a short step, then doubling of the step; theory, eq. (4.6)."""
    doublings = max(0, int(np.ceil(np.log2(np.linalg.norm(A, 1) * duration))) + 1) if np.any(A) else 0
    step = duration / 2**doublings
    flows = [scipy.linalg.expm(step * A)]
    for _ in range(doublings - 1):
        flows.append(flows[-1] @ flows[-1])

    def solve(Q: np.ndarray, A_r: np.ndarray, adjoint: bool = False) -> np.ndarray:
        left, right = (A.T, A_r) if adjoint else (A, A_r.T)
        X = term = step * Q
        for j in range(2, 200):
            term = (left @ term + term @ right) * (step / j)
            X = X + term
            if np.linalg.norm(term) <= 0.01 * _EPS * np.linalg.norm(X):
                break
        S = scipy.linalg.expm(step * right)
        for flow in flows[:doublings]:
            X = X + (flow.T if adjoint else flow) @ X @ S
            S = S @ S
        return X

    return solve
