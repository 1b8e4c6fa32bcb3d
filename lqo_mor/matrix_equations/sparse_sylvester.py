"""Sylvester equations with a large sparse pencil and a small dense matrix.

``L X + N X A_rᵀ + Q = 0`` and the dual ``Lᵀ Y + Nᵀ Y A_r + Q = 0`` for columns `Q` (n, r). With a real Schur form
``A_r = U T Uᵀ`` the columns of ``X U`` follow one from another: a real eigenvalue `λ` of `A_r` takes one sparse factorisation of
``L + λ N``, and a complex pair one, too. The dual equation takes the transposes of the same factorisations.

With ``(L, N) = (A, E)`` these are the equations of continuous time. With ``(−E, A)`` they are ``A X A_rᵀ − E X + Q = 0`` and
``Aᵀ Y A_r − Eᵀ Y + Q = 0``, those of discrete time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import scipy.linalg
import scipy.sparse
from scipy.sparse.linalg import SuperLU, splu

from lqo_mor.errors import SingularEquationError
from lqo_mor.matrix_equations.low_rank import ordering

_NEXT_IS_NOTHING = np.sqrt(np.finfo(float).eps)  # a correction, relative to the solution, whose square is rounding
_MOST_STEPS = 5  # the first solution and its corrections, of which one is the rule
_MOST_COLUMNS = 2000  # of n numbers: memory for factorisations, about that of low-rank balancing; others are made again


@dataclass(frozen=True, eq=False)
class _SmallMatrix:
    """`A_r` in real Schur form, its diagonal blocks, and the factorisations of shifted pencils that are kept, with bytes."""

    A_r: np.ndarray
    T: np.ndarray
    U: np.ndarray
    blocks: list[slice]
    kept: dict[int, SuperLU] = field(default_factory=dict)
    sizes: list[int] = field(default_factory=list)


def sylvester_solver(L: scipy.sparse.csc_array, N: scipy.sparse.csc_array) -> CrossSolver:
    """A function ``solve(Q, A_r, adjoint=False)`` for the equations of this module, with real sparse `L` and `N` (n, n).

    It maps real `Q` (n, r) and `A_r` (r, r) to `X`, or to `Y` if `adjoint`, both (n, r). The factorisations of the last `A_r`
    are kept, as far as the memory of 2000 columns of `n` numbers holds them, so that `Y` takes none of its own after `X`. The
    function raises `SingularEquationError` where the corrections do not converge: if the pencil has an eigenvalue
    ``L x = −λ N x`` with `λ` (close to) one of `A_r`.

    The condition number of a fine grid takes many digits of `X`, and with them those of the small differences that decide about
    the next step of an iteration. So the residual is computed in extended precision (where NumPy has it), and solved for again
    with the same factorisations, until `X` is accurate to double precision in every column. Benner, Köhler, Saak, "Sparse-dense
    Sylvester equations in H2-model order reduction", MPI Magdeburg preprint 11-11 (2011).
    """
    permutation = ordering(abs(L) + abs(N))
    last: list[_SmallMatrix] = []

    def solve(Q: np.ndarray, A_r: np.ndarray, adjoint: bool = False) -> np.ndarray:
        if not last or not np.array_equal(last[0].A_r, A_r):
            last[:] = [_schur(A_r)]
        left, right, S = (L.T, N.T, A_r) if adjoint else (L, N, A_r.T)
        X, rest = np.zeros(Q.shape, np.longdouble), Q  # products with X are in extended precision, too
        with np.errstate(over="ignore", invalid="ignore"):
            for _ in range(_MOST_STEPS):
                step = _substituted(L, N, last[0], rest, adjoint, permutation)
                X = X + step
                if np.all(np.linalg.norm(step, axis=0) <= _NEXT_IS_NOTHING * np.linalg.norm(X.astype(float), axis=0)):
                    return X.astype(float)
                rest = (left @ X + (right @ X) @ S + Q).astype(float)
        raise SingularEquationError(
            "a Sylvester equation has no unique solution to working precision: the large pencil has an eigenvalue close to "
            "the mirror image of one of the small matrix"
        )

    return solve


def _schur(A_r: np.ndarray) -> _SmallMatrix:
    T, U = scipy.linalg.schur(A_r, output="real")
    blocks, k = [], 0
    while k < len(T):
        size = 2 if k + 1 < len(T) and T[k + 1, k] != 0 else 1
        blocks.append(slice(k, k + size))
        k += size
    return _SmallMatrix(A_r.copy(), T, U, blocks)


def _substituted(
    L: scipy.sparse.csc_array, N: scipy.sparse.csc_array, small: _SmallMatrix, Q: np.ndarray, adjoint: bool, permutation: str
) -> np.ndarray:
    """Block by block, from the last one (`adjoint`: the first); theory, eq. (4.13), (4.14)."""
    S, trans = (small.T, "T") if adjoint else (small.T.T, "N")
    N_side = N.T if adjoint else N
    rest = -(Q @ small.U)
    X = np.zeros_like(rest)
    for b in small.blocks if adjoint else small.blocks[::-1]:
        lu = _factorised(L, N, small, b, permutation)
        if b.stop - b.start == 1:
            X[:, b] = lu.solve(rest[:, b], trans)
        else:  # an eigenvector of [[a, s], [c, a]] is (1, iω/s), with the eigenvalue a + iω
            s, omega = S[b.start, b.start + 1], _omega(small.T, b)
            z = lu.solve(rest[:, b] @ np.array([1.0, 1j * omega / s]), trans)
            X[:, b] = np.stack([z.real, z.imag * (s / omega)], axis=1)
        others = slice(b.stop, None) if adjoint else slice(0, b.start)
        rest[:, others] -= (N_side @ X[:, b]) @ S[b, others]
    return X @ small.U.T


def _omega(T: np.ndarray, b: slice) -> float:
    """The imaginary part of the eigenvalues of a block of order two, whose diagonal has two equal entries."""
    return float(np.sqrt(-T[b.start, b.start + 1] * T[b.start + 1, b.start]))


def _factorised(L: scipy.sparse.csc_array, N: scipy.sparse.csc_array, small: _SmallMatrix, b: slice, permutation: str) -> SuperLU:
    """The factorisation of ``L + λ N`` for an eigenvalue `λ` of a block."""
    lu = small.kept.get(b.start)
    if lu is None:
        k = b.start
        shift = float(small.T[k, k]) if b.stop - k == 1 else complex(small.T[k, k], _omega(small.T, b))
        try:
            lu = splu(scipy.sparse.csc_array(L + shift * N), permc_spec=permutation)
        except RuntimeError as err:
            raise SingularEquationError(
                f"a Sylvester equation is singular: {-shift:.6g} is an eigenvalue of the large pencil"
            ) from err
        size = lu.nnz * (20 if isinstance(shift, complex) else 12)  # a number and the index of its row
        if size + sum(small.sizes) <= 8 * _MOST_COLUMNS * L.shape[0]:
            small.kept[k] = lu
            small.sizes.append(size)
    return lu


class CrossSolver(Protocol):
    """Solves for columns `Q` (n, r) and a small matrix `A_r` (r, r), sparse or (`two_sided.cross_gramians`) dense systems."""

    def __call__(self, Q: np.ndarray, A_r: np.ndarray, adjoint: bool = False) -> np.ndarray:
        """`X`, or `Y` if `adjoint`."""
        ...
