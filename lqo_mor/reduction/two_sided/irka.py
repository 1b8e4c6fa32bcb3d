"""The iterative rational Krylov algorithm for linear-quadratic-output systems (LQO-IRKA)."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.linalg

from lqo_mor.analysis.norm import Norm
from lqo_mor.errors import InvalidInputError
from lqo_mor.matrix_equations.sparse_sylvester import CrossSolver
from lqo_mor.reduction.budget import Budget
from lqo_mor.reduction.result import Reduction
from lqo_mor.reduction.starts import Start
from lqo_mor.reduction.two_sided.cross_gramians import ModalSolver, modal_solver, state_map
from lqo_mor.reduction.two_sided.runs import Steps, reduce_two_sided
from lqo_mor.reduction.unstable import solved
from lqo_mor.systems.convert import as_dense
from lqo_mor.systems.dense import LQOSystem
from lqo_mor.systems.system import System
from lqo_mor.types import Progress

_WELL_CONDITIONED = 1e3  # modes of a reduced system that cost no more than three of sixteen digits


def irka(
    sys: System,
    order: int | None = None,
    *,
    slots: int | None = None,
    horizon: float | None = None,
    stable: bool = False,
    start: Start | None = None,
    max_iterations: int = 300,
    tolerance: float = 1e-8,
    progress: Progress | None = None,
) -> Reduction:
    """Iterative rational Krylov algorithm: interpolate at the mirror images of the last poles until they stay the same.

    With the reduced system in modal form, poles `μ_j`, input rows `b_j` and output columns `c_j`, `m_{i,jk}`, each step
    projects on the columns ``v_j = (I − μ_j A)⁻¹ B b_j`` and
    ``w_j = (I − μ_j Aᵀ)⁻¹ (Cᵀ c_j + 2 Σ_i Σ_k M_i v_k m_{i,kj})`` (continuous: ``(−μ_j I − A)⁻¹`` and so on), in real
    arithmetic. These span the spaces of `tsia`, so that both methods take the same steps up to rounding; this one solves
    one shifted system per pole and needs a reduced system that is diagonalisable. Extrapolation, damping, repair and
    convergence are those of `tsia`.

    Parameters
    ----------
    sys, order, slots
        As for `reduce`.
    horizon : float, optional
        Must be infinite, the default; `tsia` does finite ones.
    stable, start, max_iterations, tolerance, progress
        As for `tsia`.

    Returns
    -------
    Reduction
        Never worse than the start, and unstable only in states that it keeps.

    Warns
    -----
    StabilityWarning
        As for `tsia`.

    Raises
    ------
    OrderError, UnstableSystemError
        As for `reduce`.
    InvalidInputError
        If the horizon is finite, or the start is deficient or not diagonalisable.

    References
    ----------
    Gugercin, Antoulas, Beattie, "H2 model reduction for large-scale linear dynamical systems", SIAM J. Matrix Anal. Appl.
    30 (2008); Reiter, Gosea, Pontes Duff, Gugercin, "H2-optimal model reduction of linear systems with multiple quadratic
    outputs", arXiv:2405.05951.

    Examples
    --------
    >>> import lqo_mor as lqo
    >>> sys = lqo.LQOSystem([[0.9, 0.1], [0.0, 0.2]], [[1.0], [1.0]], [[1.0, 0.0]], dt=1.0)
    >>> red = lqo.irka(sys, order=1)
    >>> red.status.name, bool(red.error < red.start_error)
    ('CONVERGED', True)
    """
    steps = {"max_iterations": max_iterations, "tolerance": tolerance}
    return solved("irka", interpolating, sys, order, slots, horizon, stable, progress, start=start, **steps)


def interpolating(
    sys: System, budget: Budget, norm: Norm, *, start: Start | None = None, progress: Progress | None = None, **options: Any
) -> Reduction:
    """`irka` in a norm, which has to be the usual one."""
    if not norm.plain:
        raise InvalidInputError(f"irka is for the infinite horizon; tsia takes a finite one, here {norm.horizon!r}")
    steps = Steps(_shifted_solver, _check_start, **options)
    return reduce_two_sided(sys, budget, norm, start, steps, method="irka", progress=progress)


def _check_start(system: System) -> None:
    if isinstance(system, LQOSystem) and not _have_modes(np.linalg.eig(system.A)[1]):
        raise InvalidInputError('the start is not diagonalisable to working precision, as irka needs; use method "tsia"')


def _have_modes(vectors: np.ndarray) -> bool:
    """Whether these are the eigenvectors of a matrix that is diagonalisable to working precision."""
    return bool(np.linalg.cond(vectors) < 1 / (vectors.shape[0] * np.finfo(float).eps))


def _shifted_solver(sys: System, norm: Norm) -> CrossSolver:
    """Cross Gramians over all time with one shifted solve per reduced pole, see `cross_solver`; theory, eq. (7.6).

    Elementwise where the eigenvectors of `A` are known and well conditioned; in a Schur basis of `A`, O(n²) per pole,
    otherwise.
    """
    columns, apply = modal_solver(sys, norm) or _schur_solver(as_dense(sys)), state_map(sys)

    def solve(Q: np.ndarray, A_r: np.ndarray, adjoint: bool = False) -> np.ndarray:
        poles, T = np.linalg.eig(A_r)
        if not _have_modes(T):
            raise InvalidInputError(
                'a reduced state matrix is not diagonalisable to working precision, as irka needs; use method "tsia"'
            )
        X = columns(Q, poles, T, adjoint)
        if np.linalg.cond(T) > _WELL_CONDITIONED:  # the modes have cost digits, which one correction brings back
            right = A_r if adjoint else A_r.T
            rest = apply(X, adjoint) + X @ right + Q if sys.is_continuous else apply(X, adjoint) @ right - X + Q
            X = X + columns(rest, poles, T, adjoint)
        return X

    return solve


def _schur_solver(sys: LQOSystem) -> ModalSolver:
    """Cross Gramians by triangular solves in a Schur basis of `A`, from the reduced modes; theory, eq. (7.6)."""
    triangular, basis = scipy.linalg.schur(sys.A, output="complex")
    identity = np.eye(sys.order)

    def solve(Q: np.ndarray, poles: np.ndarray, T: np.ndarray, adjoint: bool) -> np.ndarray:
        right = Q @ T if adjoint else np.linalg.solve(T, Q.T).T
        right = (basis.T if adjoint else basis.conj().T) @ right
        columns = np.empty_like(right)
        for j, mu in enumerate(poles):
            shifted = -triangular - mu * identity if sys.is_continuous else identity - mu * triangular
            columns[:, j] = scipy.linalg.solve_triangular(shifted, right[:, j], trans=int(adjoint), check_finite=False)
        columns = (basis.conj() if adjoint else basis) @ columns
        return (np.linalg.solve(T.T, columns.T).T if adjoint else columns @ T.T).real

    return solve
