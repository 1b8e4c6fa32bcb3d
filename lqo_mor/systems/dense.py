"""Linear-quadratic-output systems with dense matrices."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike

from lqo_mor.errors import DimensionError, SymmetrisedWarning, warn
from lqo_mor.systems.checks import as_array, check_dt, check_shape
from lqo_mor.systems.quadratic import QuadraticOutput
from lqo_mor.systems.state_space import StateSpace, output_matrices


@dataclass(frozen=True, eq=False)
class LQOSystem(StateSpace):
    """Linear-quadratic-output system with dense matrices.

    Discrete time, ``x[k+1] = A x[k] + B u[k]``, or continuous, ``ẋ = A x + B u``, with the output
    ``y_i = (C x + D u)_i + xᵀ M_i x`` (plain transpose, also for complex data).

    Parameters
    ----------
    A : (n, n) array_like
        State matrix, real or complex. Sparse matrices of SciPy are taken too, here and below, and stored dense.
    B : (n, m) array_like
        Input matrix.
    C : (p, n) array_like or None
        Linear output matrix; None for a purely quadratic output, which then needs `M`.
    D : (p, m) array_like, optional
        Feedthrough; zero by default.
    M : (p, n, n) array_like or QuadraticOutput, optional
        Quadratic output, one symmetric matrix per output (a list of matrices, also sparse ones, will do),
        or its factors; None for a linear system.
        Only the symmetric part of a matrix matters; another one is symmetrised, with a
        `SymmetrisedWarning` if its asymmetry exceeds rounding.
    dt : float or True, default 0
        As in python-control: 0 continuous, a positive number (seconds) or True discrete.

    Raises
    ------
    DimensionError
        If the shapes do not fit together.
    InvalidInputError
        If an entry is not finite or `dt` is not a time step.

    Examples
    --------
    >>> import lqo_mor as lqo
    >>> sys = lqo.LQOSystem(A=[[0.5]], B=[[1.0]], C=[[1.0]], M=[[[2.0]]], dt=1.0)
    >>> sys
    LQOSystem(order=1, inputs=1, outputs=1, quadratic=dense, dt=1.0)
    """

    A: np.ndarray
    B: np.ndarray
    C: np.ndarray
    D: np.ndarray
    M: np.ndarray | QuadraticOutput | None
    dt: float | bool

    def __init__(
        self,
        A: ArrayLike,
        B: ArrayLike,
        C: ArrayLike | None = None,
        D: ArrayLike | None = None,
        M: ArrayLike | QuadraticOutput | None = None,
        dt: float | bool = 0,
    ) -> None:
        A, B = as_array("A", A), as_array("B", B)
        if A.size == 0:
            raise DimensionError(f"A is empty, of shape {A.shape}: a system needs at least one state")
        n = A.shape[0] if A.ndim else 1
        check_shape("A", A, (n, n), "(n, n)")
        m = B.shape[1] if B.ndim == 2 else 1
        check_shape("B", B, (n, m), "(n, m)")
        if isinstance(M, QuadraticOutput):
            M = QuadraticOutput(M.U, M.V, M.W)  # here the factors mean what they say, wherever they come from
        elif M is not None:
            M = _symmetric(M, n)
        C, D = output_matrices(C, D, M, n, m)
        if isinstance(M, np.ndarray):
            check_shape("M", M, (C.shape[0], n, n), "(p, n, n)")
        vars(self).update(A=A, B=B, C=C, D=D, M=M, dt=check_dt(dt))

    @property
    def order(self) -> int:
        """Number of states `n`."""
        return self.A.shape[0]

    @cached_property
    def eigenvalues(self) -> np.ndarray:
        """Those of the state matrix, (n,); computed once."""
        values = np.linalg.eigvals(self.A)
        values.flags.writeable = False
        return values

    @property
    def is_real(self) -> bool:
        """True if every matrix is real."""
        M = () if self.M is None else (self.M.U, self.M.V, self.M.W) if isinstance(self.M, QuadraticOutput) else (self.M,)
        return not any(np.iscomplexobj(a) for a in (self.A, self.B, self.C, self.D, *M))

    def __repr__(self) -> str:
        kind = "none" if self.M is None else f"rank {self.M.rank}" if isinstance(self.M, QuadraticOutput) else "dense"
        return f"LQOSystem(order={self.order}, inputs={self.n_inputs}, outputs={self.n_outputs}, quadratic={kind}, dt={self.dt})"


def _symmetric(M: ArrayLike, n: int) -> np.ndarray:
    """`M` as (p, n, n), its symmetric part; a single (n, n) matrix is taken as one output."""
    M = as_array("M", M)
    if M.ndim == 2:
        M = M[np.newaxis]
    if M.ndim != 3 or M.shape[1:] != (n, n):
        hint = "; move the last axis first: M.transpose(2, 0, 1)" if M.ndim == 3 and M.shape[:2] == (n, n) else ""
        raise DimensionError(f"M has shape {M.shape}, expected (p, n, n) = (p, {n}, {n}), one matrix per output{hint}")
    transposed = M.transpose(0, 2, 1)
    asymmetry = np.max(np.abs(M - transposed), initial=0.0)
    if asymmetry > 1e-12 * np.max(np.abs(M), initial=0.0):
        warn(
            f"M is not symmetric (largest |M - Mᵀ| is {asymmetry:.2g}); its symmetric part gives the same output and is used",
            SymmetrisedWarning,
        )
    return as_array("M", 0.5 * (M + transposed))
