"""Low-rank Gramians of large sparse systems.

``P ≈ Z Zᵀ`` and ``Q ≈ S Sᵀ`` by pyMOR's low-rank ADI iteration with sparse factorisations. With a few inputs and a damping that
is not too weak the Gramians are close to such of low rank.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg

from lqo_mor.analysis.rows import observed_rows
from lqo_mor.errors import DimensionError, InvalidInputError
from lqo_mor.matrix_equations.low_rank import check_stable, residual_norm, solve_low_rank
from lqo_mor.systems.quadratic import QuadraticOutput
from lqo_mor.systems.sparse import SparseLQOSystem, mass_times

_EPS = np.finfo(float).eps
_TOLERANCE = 1e-12  # of residuals, relative to the constant term


@dataclass(frozen=True, eq=False)
class LowRankGramian:
    """A Gramian ``Z Zᵀ`` of a large system, by its factor.

    Attributes
    ----------
    factor : (n, k) ndarray
        The factor `Z`.
    residual : float
        Residual of the Lyapunov equation in the spectral norm relative to its constant term, computed from the factor.
    shifts : (s,) complex ndarray
        Shifts of the iteration in the order of their use, a complex one for a pair; those of the continuous-time equation of
        the same solution for a discrete system.
    """

    factor: np.ndarray
    residual: float
    shifts: np.ndarray

    @property
    def columns(self) -> int:
        """The number `k` of columns, at least the rank."""
        return self.factor.shape[1]

    def __repr__(self) -> str:
        n, k = self.factor.shape
        return f"LowRankGramian(order={n}, columns={k}, residual={self.residual:.1e})"


def solve_controllability(sys: SparseLQOSystem, tol: float | None = None) -> LowRankGramian:
    """The `controllability_gramian` of a sparse system."""
    tol = _tolerance(tol)
    if not np.any(sys.B):
        raise InvalidInputError("B is zero: no input reaches the state, and its controllability Gramian is zero")
    A, E, scale = continuous_pencil(sys)
    check_stable(A, E)
    F = scale * sys.B
    Z, shifts = solve_low_rank(A, E, F, tol)
    return LowRankGramian(Z, residual_norm(A, E, F, Z), shifts)


def solve_observability(sys: SparseLQOSystem, controllability: LowRankGramian, tol: float | None = None) -> LowRankGramian:
    """The `observability_gramian` of a sparse system.

    The constant term ``CᵀC + Σ_i M_i P M_i`` has the factor ``[Cᵀ, M_1 Z, …, M_p Z]``; the singular values of this factor at
    the level of the tolerance are dropped, which adds a tenth of it to the residual and leaves few columns.
    """
    tol = _tolerance(tol)
    A, E, scale = continuous_pencil(sys)
    full = scale * _observed_columns(sys, controllability.factor)
    left, values, _ = scipy.linalg.svd(full, full_matrices=False, check_finite=False)
    if not values.size or values[0] == 0:
        raise InvalidInputError("C and M are zero: the output does not see any state that the inputs reach")
    kept = values > np.sqrt(0.1 * tol) * values[0]
    S, shifts = solve_low_rank(A, E, left[:, kept] * values[kept], tol, transposed=True)
    return LowRankGramian(S, residual_norm(A, E, full, S, transposed=True), shifts)


def given_or_solved(sys: SparseLQOSystem, controllability: LowRankGramian | None, tol: float | None = None) -> LowRankGramian:
    """The controllability Gramian that was given, checked, or else computed."""
    if controllability is None:
        return solve_controllability(sys, tol)
    check_gramian(sys, controllability)
    return controllability


def check_gramian(sys: SparseLQOSystem, controllability: object) -> None:
    """Raise `InvalidInputError` unless this is the Gramian of `sys`, solving its equation as well as it says."""
    if not isinstance(controllability, LowRankGramian):
        raise InvalidInputError(f"expected a LowRankGramian, by controllability_gramian, got {type(controllability).__name__}")
    if controllability.factor.shape[0] != sys.order:
        raise DimensionError(f"the Gramian is of a system of order {controllability.factor.shape[0]}, not {sys.order}")
    A, E, scale = continuous_pencil(sys)
    residual = residual_norm(A, E, scale * sys.B, controllability.factor)
    if not residual <= 10 * max(controllability.residual, _EPS):
        raise InvalidInputError(
            f"the Gramian is of another system: the residual of its equation is {controllability.residual:.1e}, but "
            f"{residual:.1e} with the matrices of this system"
        )


def hankel_svd(sys: SparseLQOSystem, P: LowRankGramian, Q: LowRankGramian) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The singular value decomposition ``U Σ Yᵀ`` of ``Sᵀ E Z``, whose singular values are the Hankel singular values."""
    return scipy.linalg.svd(Q.factor.T @ mass_times(sys, P.factor), full_matrices=False)


def _tolerance(tol: float | None) -> float:
    """`tol`, checked, or that by default."""
    if tol is None:
        return _TOLERANCE
    if not isinstance(tol, (float, np.floating)) or not 0 < tol < 1:
        raise InvalidInputError(f"tol must be a number between 0 and 1; got {tol!r}")
    return float(tol)


def _observed_columns(sys: SparseLQOSystem, Z: np.ndarray) -> np.ndarray:
    """A factor ``[Cᵀ, M_1 Z, …]`` of the constant term of the equation for `Q`."""
    columns = [sys.C[np.any(sys.C, axis=1)].T]
    if isinstance(sys.M, QuadraticOutput):
        columns.append(observed_rows(sys.M, Z).T)
    elif sys.M is not None:
        columns += [Mi @ Z for Mi in sys.M if Mi is not None]
    return np.hstack(columns)


def continuous_pencil(sys: SparseLQOSystem) -> tuple[scipy.sparse.csc_array, scipy.sparse.csc_array | None, float]:
    """``(A_c, E_c, s)`` of theory, eq. (4.9), with ``F`` to be multiplied by `s`; ``E_c`` None for the identity."""
    if sys.is_continuous:
        return sys.A, sys.E, 1.0
    E = scipy.sparse.eye_array(sys.order, format="csc") if sys.E is None else sys.E
    return sys.A - E, sys.A + E, np.sqrt(2.0)
