"""Exact conversion between dense and diagonal systems.

Both sides share one set of real coordinates: for the slots ``x_s`` of a diagonal system, ``√2 Re x_s``
(``x_s`` itself at a real pole) for every slot, followed by ``√2 Im x_s`` for the slots with a non-real
pole. The change of coordinates from the set of states closed under conjugation is unitary, so Gramians
keep their eigenvalues.
"""

from __future__ import annotations

import numpy as np
import scipy.linalg

from lqo_mor.errors import AccuracyWarning, InvalidInputError, warn
from lqo_mor.systems.dense import LQOSystem
from lqo_mor.systems.descriptor import without_descriptor
from lqo_mor.systems.diagonal import DiagonalLQOSystem
from lqo_mor.systems.quadratic import QuadraticOutput, factor_symmetric
from lqo_mor.systems.sparse import SparseLQOSystem
from lqo_mor.systems.system import instead_of

_ROOT2 = np.sqrt(2.0)
MAX_DENSE = 4096  # rows or columns of a sparse matrix that is stored dense without asking; a dense reduction takes minutes here


def real_states(slots: np.ndarray, real: np.ndarray) -> np.ndarray:
    """State rows (s, m) of half storage in real coordinates, (n, m)."""
    return np.concatenate([np.where(real, 1.0, _ROOT2)[:, np.newaxis] * slots.real, _ROOT2 * slots.imag[~real]])


def real_rows(rows: np.ndarray, real: np.ndarray) -> np.ndarray:
    """Output rows (q, s) of half storage in real coordinates, (q, n)."""
    return np.concatenate([np.where(real, 1.0, _ROOT2) * rows.real, -_ROOT2 * rows.imag[:, ~real]], axis=1)


def slot_rows(rows: np.ndarray, real: np.ndarray) -> np.ndarray:
    """Inverse of `real_rows`: output rows (q, n) in real coordinates as half storage, (q, s)."""
    s = real.size
    slots = rows[:, :s] / np.where(real, 1.0, _ROOT2) + 0j
    slots[:, ~real] -= 1j * rows[:, s:] / _ROOT2
    return slots


def real_state_matrix(poles: np.ndarray, real: np.ndarray) -> np.ndarray:
    """The state matrix (n, n) of half storage in real coordinates."""
    s, pairs = poles.size, np.flatnonzero(~real)
    A = np.zeros((s + pairs.size,) * 2)
    A[np.arange(s), np.arange(s)] = poles.real
    lower = s + np.arange(pairs.size)
    A[lower, lower] = poles.real[pairs]
    A[pairs, lower] = -poles.imag[pairs]
    A[lower, pairs] = poles.imag[pairs]
    return A


def to_dense(sys: DiagonalLQOSystem | SparseLQOSystem) -> LQOSystem:
    """The same system with real dense matrices, a diagonal one in the coordinates of this module.

    Parameters
    ----------
    sys : DiagonalLQOSystem or SparseLQOSystem
        A single system (index a batch first); a sparse one of up to 4096 states, whose `E` is solved for.

    Returns
    -------
    LQOSystem
        Of order `sys.order`; a quadratic output in factors stays so, unless there is an `E`.

    Warns
    -----
    AccuracyWarning
        If the condition number of `E` exceeds 1e8, with its value.

    Raises
    ------
    InvalidInputError
        If `sys` is a batch, a larger sparse system, already dense or no system, or its `E` is singular.

    Examples
    --------
    >>> import lqo_mor as lqo
    >>> sys = lqo.DiagonalLQOSystem(poles=[0.5j], B=[[1.0]], C=[[1.0]], dt=1.0)
    >>> lqo.to_dense(sys).A
    array([[ 0. , -0.5],
           [ 0.5,  0. ]])
    """
    if isinstance(sys, SparseLQOSystem):
        return _from_sparse(sys)
    if not isinstance(sys, DiagonalLQOSystem):
        known = ", which is dense already" if isinstance(sys, LQOSystem) else ""
        raise InvalidInputError(f"to_dense takes a DiagonalLQOSystem, got {type(sys).__name__}{known}")
    if sys.batch:
        raise InvalidInputError(f"to_dense takes one system, got a batch of shape {sys.batch}; index it first")
    real = sys.is_real_pole
    q = sys.M
    return LQOSystem(
        real_state_matrix(sys.poles, real),
        real_states(sys.B, real),
        real_rows(sys.C, real),
        sys.D,
        None if q is None else QuadraticOutput(real_rows(q.U, real), real_rows(q.V, real), q.W),
        sys.dt,
    )


def _from_sparse(sys: SparseLQOSystem) -> LQOSystem:
    """A sparse system with dense matrices, without its `E`."""
    n, M = sys.order, sys.M
    if n > MAX_DENSE:
        raise InvalidInputError(f"the sparse system has {n} states, too many to be stored dense{instead_of(sys)}")
    forms: np.ndarray | QuadraticOutput | None = M if not isinstance(M, tuple) else None
    if isinstance(M, tuple):
        forms = np.stack([np.zeros((n, n)) if Mi is None else Mi.toarray() for Mi in M])
    if sys.E is None:
        return LQOSystem(sys.A.toarray(), sys.B, sys.C, sys.D, forms, sys.dt)
    forms = forms.to_dense() if isinstance(forms, QuadraticOutput) else forms
    return without_descriptor(LQOSystem(sys.A.toarray(), sys.B, sys.C, sys.D, forms, sys.dt), sys.E.toarray())


def as_dense(sys: LQOSystem | DiagonalLQOSystem) -> LQOSystem:
    """A dense system as it is, a single diagonal one by `to_dense`."""
    return to_dense(sys) if isinstance(sys, DiagonalLQOSystem) else sys


def member(sys: LQOSystem | DiagonalLQOSystem, index: tuple[int, ...]) -> LQOSystem | DiagonalLQOSystem:
    """The system at `index` of a batch; a single one, which has the index ``()``, is itself."""
    return sys[index] if index and isinstance(sys, DiagonalLQOSystem) else sys


def to_diagonal(sys: LQOSystem) -> DiagonalLQOSystem:
    """The same system with a diagonal state matrix, in half storage.

    Parameters
    ----------
    sys : LQOSystem
        Real, with a diagonalisable state matrix. A dense `M` is factored by its eigendecompositions.

    Returns
    -------
    DiagonalLQOSystem
        Exact up to rounding, which grows with the condition number of the eigenvectors.

    Warns
    -----
    AccuracyWarning
        If that condition number exceeds 1e8, with its value.

    Raises
    ------
    InvalidInputError
        If `sys` is complex or no dense system, or its state matrix is not diagonalisable to working precision.

    Examples
    --------
    >>> import lqo_mor as lqo
    >>> lqo.to_diagonal(lqo.LQOSystem([[0.0, -0.25], [1.0, 0.0]], [[1.0], [0.0]], [[0.0, 1.0]], dt=1.0)).poles
    array([0.+0.5j])
    """
    if not isinstance(sys, LQOSystem):
        known = ", which is diagonal already" if isinstance(sys, DiagonalLQOSystem) else instead_of(sys)
        raise InvalidInputError(f"to_diagonal takes an LQOSystem, got {type(sys).__name__}{known}")
    diagonal, condition = diagonalised(sys)
    if condition > 1e8:
        warn(
            f"the eigenvectors have condition number {condition:.1e}; the diagonal form loses as many digits",
            AccuracyWarning,
        )
    return diagonal


def diagonalised(sys: LQOSystem) -> tuple[DiagonalLQOSystem, float]:
    """`to_diagonal`, and the condition number of the eigenvectors."""
    if not sys.is_real:
        raise InvalidInputError("the half storage of conjugate pairs is for real systems, but this one is complex")
    poles, vectors = scipy.linalg.eig(sys.A)
    condition = np.linalg.cond(vectors)
    if not condition < 1 / (sys.order * np.finfo(float).eps):
        raise InvalidInputError("the state matrix is not diagonalisable to working precision; keep the system dense")
    half = poles.imag >= 0
    real = poles.imag[half] == 0
    right = vectors[:, half]

    def rows(matrix: np.ndarray) -> np.ndarray:
        return np.where(real, (matrix @ right).real, matrix @ right)

    B = scipy.linalg.solve(vectors, sys.B)[half]
    M = factor_symmetric(sys.M) if isinstance(sys.M, np.ndarray) else sys.M
    diagonal = DiagonalLQOSystem(
        poles[half],
        np.where(real[:, np.newaxis], B.real, B),
        rows(sys.C),
        sys.D,
        None if M is None else QuadraticOutput(rows(M.U), rows(M.V), M.W),
        dt=sys.dt,
    )
    return diagonal, float(condition)
