"""Low-rank Gramians of large sparse systems."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg

from lqo_mor.analysis.rows import observed_rows
from lqo_mor.errors import DimensionError, InvalidInputError
from lqo_mor.matrix_equations.low_rank import check_stable, residual_norm, solve_low_rank
from lqo_mor.systems.quadratic import QuadraticOutput
from lqo_mor.systems.sparse import SparseLQOSystem

_EPS = np.finfo(float).eps


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


def low_rank_controllability(sys: SparseLQOSystem, tol: float = 1e-12) -> LowRankGramian:
    """Controllability Gramian of a large sparse system in low rank.

    ``P ≈ Z Zᵀ`` with ``A P Eᵀ + E P Aᵀ + B Bᵀ = 0`` (discrete: ``A P Aᵀ − E P Eᵀ + B Bᵀ = 0``), by pyMOR's low-rank ADI
    iteration with sparse factorisations. Solvable for a stable system; with a few inputs and a damping that is not too weak
    the Gramian is close to one of low rank.

    Parameters
    ----------
    sys : SparseLQOSystem
        Asymptotically stable.
    tol : float, default 1e-12
        The iteration stops at this residual in the spectral norm, relative to ``‖B Bᵀ‖``.

    Returns
    -------
    LowRankGramian

    Raises
    ------
    MissingDependencyError
        Without pyMOR.
    InvalidInputError
        If `sys` is no SparseLQOSystem, `tol` is not between 0 and 1, or `B` is zero.
    SingularEquationError
        If `E` is singular.
    UnstableSystemError
        If one of the eigenvalues of smallest modulus is unstable (discrete: of those next to 1).
    ConvergenceError
        If the iteration does not converge, which an unstable pole elsewhere causes, too.

    References
    ----------
    Li, White, "Low rank solution of Lyapunov equations", SIAM J. Matrix Anal. Appl. 24 (2002); Benner, Kürschner, Saak,
    "Self-generating and efficient shift parameters in ADI methods for large Lyapunov and Sylvester equations", ETNA 43
    (2014); pyMOR, Milk, Rave, Schindler, SIAM J. Sci. Comput. 38 (2016).

    Examples
    --------
    >>> from lqo_mor import heat_equation_2d, low_rank_controllability
    >>> P = low_rank_controllability(heat_equation_2d(20))
    >>> P.factor.shape[0], P.residual < 1e-11
    (400, True)
    """
    check_large(sys, tol)
    if not np.any(sys.B):
        raise InvalidInputError("B is zero: no input reaches the state, and its controllability Gramian is zero")
    A, E, scale = continuous_pencil(sys)
    check_stable(A, E)
    return _solved(A, E, scale * sys.B, scale * sys.B, tol)


def low_rank_observability(sys: SparseLQOSystem, controllability: LowRankGramian, tol: float = 1e-12) -> LowRankGramian:
    """Observability Gramian of a large sparse linear-quadratic-output system in low rank.

    ``Q ≈ S Sᵀ`` with ``Aᵀ Q E + Eᵀ Q A + CᵀC + Σ_i M_i P M_i = 0`` (discrete: ``Aᵀ Q A − Eᵀ Q E + … = 0``), where ``P = Z Zᵀ``
    is given. The constant term has the factor ``[Cᵀ, M_1 Z, …, M_p Z]``; the singular values of this factor at the level of
    the tolerance are dropped, which leaves few columns, and pyMOR's ADI iteration does the rest. Hankel singular values are
    those of ``Sᵀ E Z``.

    Parameters
    ----------
    sys : SparseLQOSystem
        Asymptotically stable.
    controllability : LowRankGramian
        Of the same system, by `low_rank_controllability`.
    tol : float, default 1e-12
        Largest residual in the spectral norm relative to the constant term; dropping columns adds a tenth of it.

    Returns
    -------
    LowRankGramian
        Its `residual` is that of the equation with all columns.

    Raises
    ------
    MissingDependencyError
        Without pyMOR.
    InvalidInputError
        If `sys` is no SparseLQOSystem, `controllability` is not of it, `tol` is not between 0 and 1, or the output is zero.
    ConvergenceError
        If the iteration does not converge.

    References
    ----------
    Benner, Goyal, Pontes Duff, "Gramians, energy functionals, and balanced truncation for linear dynamical systems with
    quadratic outputs", IEEE Trans. Autom. Control 67 (2022).

    Examples
    --------
    >>> from lqo_mor import heat_equation_2d, low_rank_controllability, low_rank_observability
    >>> sys = heat_equation_2d(20)
    >>> Q = low_rank_observability(sys, low_rank_controllability(sys))
    >>> Q.factor.shape[0], Q.residual < 1e-11
    (400, True)
    """
    check_large(sys, tol)
    check_gramian(sys, controllability)
    A, E, scale = continuous_pencil(sys)
    full = scale * _observed_columns(sys, controllability.factor)
    left, values, _ = scipy.linalg.svd(full, full_matrices=False, check_finite=False)
    if not values.size or values[0] == 0:
        raise InvalidInputError("C and M are zero: the output does not see any state that the inputs reach")
    kept = values > np.sqrt(0.1 * tol) * values[0]
    return _solved(A, E, left[:, kept] * values[kept], full, tol, transposed=True)


def check_large(sys: object, tol: float = 0.5) -> None:
    """Raise `InvalidInputError` unless `sys` is a sparse system and `tol` a tolerance."""
    if not isinstance(sys, SparseLQOSystem):
        raise InvalidInputError(f"expected a SparseLQOSystem, got {type(sys).__name__}")
    if not isinstance(tol, (float, np.floating)) or not 0 < tol < 1:
        raise InvalidInputError(f"tol must be a number between 0 and 1; got {tol!r}")


def check_gramian(sys: SparseLQOSystem, controllability: object) -> None:
    """Raise `InvalidInputError` unless this is the Gramian of `sys`, solving its equation as well as it says."""
    if not isinstance(controllability, LowRankGramian):
        raise InvalidInputError(f"expected a LowRankGramian, by low_rank_controllability, got {type(controllability).__name__}")
    if controllability.factor.shape[0] != sys.order:
        raise DimensionError(f"the Gramian is of a system of order {controllability.factor.shape[0]}, not {sys.order}")
    A, E, scale = continuous_pencil(sys)
    residual = residual_norm(A, E, scale * sys.B, controllability.factor)
    if not residual <= 10 * max(controllability.residual, _EPS):
        raise InvalidInputError(
            f"the Gramian is of another system: the residual of its equation is {controllability.residual:.1e}, but "
            f"{residual:.1e} with the matrices of this system"
        )


def _observed_columns(sys: SparseLQOSystem, Z: np.ndarray) -> np.ndarray:
    """A factor ``[Cᵀ, M_1 Z, …]`` of the constant term of the equation for `Q`."""
    columns = [sys.C[np.any(sys.C, axis=1)].T]
    if isinstance(sys.M, QuadraticOutput):
        columns.append(observed_rows(sys.M, Z).T)
    elif sys.M is not None:
        columns += [Mi @ Z for Mi in sys.M if Mi is not None]
    return np.hstack(columns)


def _solved(
    A: scipy.sparse.csc_array,
    E: scipy.sparse.csc_array | None,
    F: np.ndarray,
    full: np.ndarray,
    tol: float,
    transposed: bool = False,
) -> LowRankGramian:
    """The solution for the factor `F` of the constant term, with its residual for the `full` factor."""
    Z, shifts = solve_low_rank(A, E, F, tol, transposed)
    return LowRankGramian(Z, residual_norm(A, E, full, Z, transposed), shifts)


def continuous_pencil(sys: SparseLQOSystem) -> tuple[scipy.sparse.csc_array, scipy.sparse.csc_array | None, float]:
    """``(A_c, E_c, s)`` of theory, eq. (4.9), with ``F`` to be multiplied by `s`; ``E_c`` None for the identity."""
    if sys.is_continuous:
        return sys.A, sys.E, 1.0
    E = scipy.sparse.eye_array(sys.order, format="csc") if sys.E is None else sys.E
    return sys.A - E, sys.A + E, np.sqrt(2.0)
