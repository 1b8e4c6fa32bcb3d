"""What the conversions share: the matrices of a linear system for others, and sparse matrices of others for us."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse

from lqo_mor.errors import InvalidInputError
from lqo_mor.systems.convert import MAX_DENSE, as_dense, to_dense
from lqo_mor.systems.dense import LQOSystem
from lqo_mor.systems.sparse import SparseLQOSystem
from lqo_mor.systems.system import AnySystem, check_kind


def as_dense_system(sys: AnySystem) -> LQOSystem:
    """`sys` with dense matrices; raises `InvalidInputError` for a batch, a large sparse system and for anything else."""
    if isinstance(sys, SparseLQOSystem):
        return to_dense(sys)
    check_kind(sys)
    return as_dense(sys)


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
