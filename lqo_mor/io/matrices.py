"""What the conversions share: the matrices of a linear system for others, and sparse matrices of others for us."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse

from lqo_mor.errors import InvalidInputError
from lqo_mor.io.descriptor import without_descriptor
from lqo_mor.systems.convert import as_dense
from lqo_mor.systems.dense import LQOSystem
from lqo_mor.systems.quadratic import QuadraticOutput
from lqo_mor.systems.sparse import SparseLQOSystem
from lqo_mor.systems.system import AnySystem, check_kind

MAX_DENSE = 4096  # rows or columns of a sparse matrix that is stored dense without asking; a dense reduction takes minutes here


def as_dense_system(sys: AnySystem) -> LQOSystem:
    """`sys` with dense matrices; raises `InvalidInputError` for a batch, a large sparse system and for anything else."""
    if not isinstance(sys, SparseLQOSystem):
        check_kind(sys)
        return as_dense(sys)
    if sys.order > MAX_DENSE:
        raise InvalidInputError(
            f"the sparse system has {sys.order} states, too many to be stored dense; reduce it first, or save it by save_mat or "
            "save_system, which keep it sparse"
        )
    M: Any = sys.M
    if isinstance(M, tuple):
        M = np.stack([np.zeros((sys.order,) * 2) if Mi is None else Mi.toarray() for Mi in M])
    dense = LQOSystem(sys.A.toarray(), sys.B, sys.C, sys.D, M, sys.dt)
    if sys.E is None:
        return dense
    if isinstance(M, QuadraticOutput):
        dense = LQOSystem(dense.A, dense.B, dense.C, dense.D, M.to_dense(), dense.dt)
    return without_descriptor(dense, sys.E.toarray())


def linear_matrices(
    sys: AnySystem, library: str, takes_complex: bool = False
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Writeable copies of `A`, `B`, `C`, `D` of a linear system; raises `InvalidInputError` for what `library` cannot hold."""
    if isinstance(sys, SparseLQOSystem):
        no_quadratic(sys, library)
    dense = as_dense_system(sys)
    no_quadratic(dense, library)
    if not takes_complex:
        for name in "ABCD":
            if np.any(getattr(dense, name).imag):
                raise InvalidInputError(f"{library} computes with real matrices only, but {name} has complex entries")
    A, B, C, D = (matrix.copy() if takes_complex else matrix.real.copy() for matrix in (dense.A, dense.B, dense.C, dense.D))
    return A, B, C, D


def no_quadratic(sys: LQOSystem | SparseLQOSystem, library: str) -> None:
    """Raise `InvalidInputError` if `sys` has a quadratic output."""
    if sys.M is not None:
        raise InvalidInputError(
            f"{library} has no quadratic outputs, and this system has one; to convert the linear part alone, give the same "
            "system without M"
        )


def is_large(*matrices: Any) -> bool:
    """Whether one of them is sparse and too large to be stored dense."""
    return any(scipy.sparse.issparse(matrix) and max(matrix.shape) > MAX_DENSE for matrix in matrices)


def full(matrix: Any) -> Any:
    """A sparse matrix as an array, anything else as it is."""
    return matrix.toarray() if scipy.sparse.issparse(matrix) else matrix
