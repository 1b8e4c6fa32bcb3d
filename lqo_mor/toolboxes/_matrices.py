"""What the conversions share: the matrices of a linear system for others, and sparse matrices of others for us."""

from __future__ import annotations

import numpy as np
import scipy.sparse

from lqo_mor.errors import InvalidInputError
from lqo_mor.systems.convert import to_dense
from lqo_mor.systems.dense import LQOSystem
from lqo_mor.systems.diagonal import DiagonalLQOSystem

MAX_DENSE = 4096  # rows or columns of a sparse matrix that is stored dense without asking; a dense reduction takes minutes here


def as_dense_system(sys) -> LQOSystem:
    """`sys` with dense matrices; raises `InvalidInputError` for a batch and for anything that is no system."""
    if isinstance(sys, DiagonalLQOSystem):
        return to_dense(sys)
    if not isinstance(sys, LQOSystem):
        raise InvalidInputError(f"expected an LQOSystem or a DiagonalLQOSystem, got {type(sys).__name__}")
    return sys


def linear_matrices(sys, library: str, takes_complex: bool = False) -> tuple[np.ndarray, ...]:
    """Writeable copies of `A`, `B`, `C`, `D` of a linear system; raises `InvalidInputError` for what `library` cannot hold."""
    sys = as_dense_system(sys)
    if sys.M is not None:
        raise InvalidInputError(
            f"{library} has no quadratic outputs, and this system has one; to convert the linear part alone, give "
            "LQOSystem(sys.A, sys.B, sys.C, sys.D, dt=sys.dt) of the dense system"
        )
    matrices = {"A": sys.A, "B": sys.B, "C": sys.C, "D": sys.D}
    if takes_complex:
        return tuple(matrix.copy() for matrix in matrices.values())
    for name, matrix in matrices.items():
        if np.any(matrix.imag):
            raise InvalidInputError(f"{library} computes with real matrices only, but {name} has complex entries")
    return tuple(matrix.real.copy() for matrix in matrices.values())


def full(name: str, matrix):
    """A sparse matrix as an array, anything else as it is; raises `InvalidInputError` for a sparse one that is too large."""
    if not scipy.sparse.issparse(matrix):
        return matrix
    if max(matrix.shape) > MAX_DENSE:
        raise InvalidInputError(
            f"{name} is sparse, of shape {matrix.shape}, and an LQOSystem is dense: sparse matrices are taken up to {MAX_DENSE} "
            "rows and columns; give the sparse matrices of a larger system to SparseLQOSystem(A, B, C, M, E, D, dt)"
        )
    return matrix.toarray()
