"""Linear-quadratic-output systems with large sparse matrices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import ArrayLike

from lqo_mor.errors import DimensionError, InvalidInputError, SymmetrisedWarning, warn
from lqo_mor.systems.checks import as_array, check_dt, check_shape
from lqo_mor.systems.quadratic import QuadraticOutput
from lqo_mor.systems.state_space import StateSpace, output_matrices


@dataclass(frozen=True, eq=False)
class SparseLQOSystem(StateSpace):
    """Linear-quadratic-output system with large sparse real matrices.

    Continuous time, ``E ẋ = A x + B u``, or discrete, ``E x[k+1] = A x[k] + B u[k]``, with the output
    ``y_i = (C x + D u)_i + xᵀ M_i x``. Nothing of size n × n is ever stored dense.

    Parameters
    ----------
    A : (n, n) sparse array
        State matrix, real, any sparse format of SciPy.
    B : (n, m) array_like or sparse array
        Input matrix, stored dense: few inputs are assumed, and few outputs.
    C : (p, n) array_like or sparse array, optional
        Linear output matrix, stored dense; None for a purely quadratic output, which then needs `M`.
    D : (p, m) array_like, optional
        Feedthrough; zero by default.
    M : sequence of p sparse arrays (n, n) or QuadraticOutput, optional
        Quadratic output, one symmetric matrix per output (None for an output without one; a single matrix is that of a
        single output), or its dense factors with few rows. Only the symmetric part of a matrix matters; another one is
        symmetrised, with a `SymmetrisedWarning` if its asymmetry exceeds rounding.
    E : (n, n) sparse array, optional
        Mass matrix, nonsingular; the identity by default.
    dt : float or True, default 0.0
        0 continuous, a positive number (seconds) or True discrete.

    Raises
    ------
    DimensionError
        If the shapes do not fit together.
    InvalidInputError
        If a matrix that must be sparse is not, an entry is complex or not finite, or `dt` is not a time step.

    Examples
    --------
    >>> import scipy.sparse
    >>> from lqo_mor import SparseLQOSystem
    >>> I = scipy.sparse.eye_array(1000)
    >>> SparseLQOSystem(-2 * I, B=[[1.0]] * 1000, M=[I])
    SparseLQOSystem(order=1000, inputs=1, outputs=1, quadratic=sparse, dt=0.0)
    """

    A: scipy.sparse.csc_array
    B: np.ndarray
    C: np.ndarray
    D: np.ndarray
    M: tuple[scipy.sparse.csc_array | None, ...] | QuadraticOutput | None
    E: scipy.sparse.csc_array | None
    dt: float | bool

    def __init__(
        self,
        A: scipy.sparse.csc_array,
        B: ArrayLike,
        C: ArrayLike | None = None,
        D: ArrayLike | None = None,
        M: Sequence[scipy.sparse.csc_array | None] | QuadraticOutput | None = None,
        E: scipy.sparse.csc_array | None = None,
        dt: float | bool = 0.0,
    ) -> None:
        A = _square("A", A, None)
        n = A.shape[0]
        E = None if E is None else _square("E", E, n)
        B = as_array("B", B, np.float64)
        m = B.shape[1] if B.ndim == 2 else 1
        check_shape("B", B, (n, m), "(n, m)")
        if isinstance(M, QuadraticOutput):
            U, V, W = (as_array(f"M.{name}", getattr(M, name), np.float64) for name in "UVW")
            M = QuadraticOutput(U, V, W)
        elif M is not None:
            M = (M,) if scipy.sparse.issparse(M) else M
            if not isinstance(M, (list, tuple)):
                raise InvalidInputError(
                    f"M must be a list of sparse arrays of SciPy, one per output, or a QuadraticOutput; got {type(M).__name__}"
                )
            M = tuple(None if Mi is None else _symmetric(f"M[{i}]", _square(f"M[{i}]", Mi, n)) for i, Mi in enumerate(M))
        C, D = output_matrices(C, D, M, n, m, np.float64)
        p = C.shape[0]
        if isinstance(M, tuple) and len(M) != p:
            raise DimensionError(f"M has {len(M)} matrices for {p} outputs; give one per output, None for an output without one")
        vars(self).update(A=A, B=B, C=C, D=D, M=M, E=E, dt=check_dt(dt))

    @property
    def order(self) -> int:
        """Number of states `n`."""
        return self.A.shape[0]

    def __repr__(self) -> str:
        kind = "none" if self.M is None else f"rank {self.M.rank}" if isinstance(self.M, QuadraticOutput) else "sparse"
        return (
            f"SparseLQOSystem(order={self.order}, inputs={self.n_inputs}, outputs={self.n_outputs}, "
            f"quadratic={kind}, dt={self.dt})"
        )


def mass_times(sys: SparseLQOSystem, X: np.ndarray) -> np.ndarray:
    """``E X``."""
    return X if sys.E is None else sys.E @ X


def quadratic_forms(M: tuple[scipy.sparse.csc_array | None, ...], V: np.ndarray) -> np.ndarray:
    """``Vᵀ M_i V`` of sparse quadratic outputs, (p, k, k), symmetric to the last bit."""
    forms = np.stack([np.zeros((V.shape[1],) * 2) if Mi is None else V.T @ (Mi @ V) for Mi in M])
    return 0.5 * (forms + forms.transpose(0, 2, 1))


def _square(name: str, value: Any, n: int | None) -> scipy.sparse.csc_array:
    """A sparse matrix as a float64 CSC array of its own, square and finite, and of order `n` if that is known."""
    if not scipy.sparse.issparse(value):
        raise InvalidInputError(
            f"{name} must be a sparse array of SciPy, got {type(value).__name__}; systems with dense matrices are LQOSystem"
        )
    n = value.shape[0] if n is None else n
    if value.shape != (n, n) or n == 0:
        raise DimensionError(f"{name} has shape {value.shape}, expected a square matrix (n, n) = ({n}, {n}) with n at least 1")
    if value.dtype.kind not in "biuf":
        raise InvalidInputError(f"{name} must be real, but its dtype is {value.dtype}")
    matrix = scipy.sparse.csc_array(value, dtype=np.float64, copy=True)
    if not np.all(np.isfinite(matrix.data)):
        raise InvalidInputError(f"{name} has {np.sum(~np.isfinite(matrix.data))} entries that are not finite")
    return matrix


def _symmetric(name: str, M: scipy.sparse.csc_array) -> scipy.sparse.csc_array:
    """The symmetric part of a quadratic output."""
    asymmetry = abs(M - M.T).max()
    if asymmetry > 1e-12 * abs(M).max():
        warn(
            f"{name} is not symmetric (largest difference to its transpose {asymmetry:.2g}); its symmetric part gives the same "
            "output and is used",
            SymmetrisedWarning,
        )
    return M if asymmetry == 0 else scipy.sparse.csc_array(0.5 * (M + M.T))
