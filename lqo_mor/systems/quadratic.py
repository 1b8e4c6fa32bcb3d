"""The quadratic part of an output, in factors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import overload

import numpy as np
from numpy.typing import ArrayLike

from lqo_mor.errors import DimensionError, InvalidInputError
from lqo_mor.systems.checks import as_array, check_shape

_SPREAD = 2.0**8  # of units, below which other ones than the given gain no digit


@dataclass(frozen=True, eq=False)
class QuadraticOutput:
    """Quadratic output in factors, ``y_quad = W ((U x) ∘ (V x))``.

    The equivalent symmetric matrices are ``M_i = Σ_j W_ij ½ (u_j v_jᵀ + v_j u_jᵀ)``.
    A gated output ``(C₁x)∘(C₂x)`` has ``W = I``; an energy ``‖E x‖²`` has ``U = V = E``, ``W = 1ᵀ``.

    Parameters
    ----------
    U, V : (..., c, n) array_like
        The two linear maps whose products are taken; `c` is the rank parameter. In a
        `DiagonalLQOSystem` they are complex with one column per slot, and ``U x`` then means the
        real row output ``Σ 2 Re(u_s x_s)`` over pairs plus ``Σ Re(u_s x_s)`` over real poles.
    W : (..., p, c) array_like
        Mixes the `c` products into `p` outputs.

    Raises
    ------
    DimensionError
        If the shapes do not fit together.
    InvalidInputError
        If an entry is not finite.

    Examples
    --------
    >>> import numpy as np, lqo_mor as lqo
    >>> energy = lqo.QuadraticOutput(U=np.eye(2), V=np.eye(2), W=np.ones((1, 2)))
    >>> energy.to_dense()
    array([[[1., 0.],
            [0., 1.]]])
    """

    U: np.ndarray
    V: np.ndarray
    W: np.ndarray

    def __init__(self, U: ArrayLike, V: ArrayLike, W: ArrayLike) -> None:
        U, V, W = (_matrix(name, value) for name, value in (("U", U), ("V", V), ("W", W)))
        check_shape("V", V, U.shape, "the shape of U")
        batch, c = U.shape[:-2], U.shape[-2]
        check_shape("W", W, (*batch, W.shape[-2], c), "(..., p, c)")
        vars(self).update(U=U, V=V, W=W)

    @property
    def rank(self) -> int:
        """The rank parameter `c`, the number of products."""
        return self.U.shape[-2]

    @property
    def n_outputs(self) -> int:
        """The number `p` of outputs."""
        return self.W.shape[-2]

    def to_dense(self) -> np.ndarray:
        """The symmetric matrices ``M``, shape (..., p, n, n).

        The factors of a `DiagonalLQOSystem` raise `InvalidInputError`: in half storage there is no such
        matrix; take ``to_dense(sys).M.to_dense()``, in real coordinates.
        """
        half = 0.5 * np.einsum("...ij,...ja,...jb->...iab", self.W, self.U, self.V)
        return half + np.swapaxes(half, -1, -2)


class HalfStorageOutput(QuadraticOutput):
    """The factors inside a `DiagonalLQOSystem`: one column per slot, so that they have no plain matrices."""

    def to_dense(self) -> np.ndarray:
        """Raise `InvalidInputError`, since a slot stands for a conjugate pair."""
        raise InvalidInputError(
            "these factors are in the half storage of a DiagonalLQOSystem, where a column stands for a conjugate pair, and have "
            "no matrix of their own; convert the system first: to_dense(sys).M.to_dense()"
        )


def _matrix(name: str, value: ArrayLike) -> np.ndarray:
    """An array with at least two axes."""
    array = as_array(name, value)
    if array.ndim < 2:
        raise DimensionError(f"{name} has shape {array.shape}, expected at least two axes")
    return array


def factor_symmetric(M: np.ndarray) -> QuadraticOutput:
    """Factors of real symmetric matrices `M` (p, n, n) by their eigendecompositions, exact to rounding.

    They have ``U = V`` and `c` the sum of the ranks; eigenvalues below ``n eps max|eigenvalue|`` count as zero, in units of the
    states in which the rows of `M` are of one size.
    """
    d = _units(M)
    values, vectors = np.linalg.eigh(M * d[:, np.newaxis] * d[:, :, np.newaxis])
    size = np.abs(values)
    kept = size > M.shape[1] * np.finfo(float).eps * np.max(size, axis=1, keepdims=True, initial=0.0)
    U = (np.swapaxes(vectors, 1, 2) / d[:, np.newaxis])[kept]
    W = np.zeros((M.shape[0], np.count_nonzero(kept)))
    W[np.nonzero(kept)[0], np.arange(W.shape[1])] = values[kept]
    return QuadraticOutput(U, U, W)


def _units(M: np.ndarray) -> np.ndarray:
    """Powers of two (p, n) with ``d_i M_ij d_j`` of one size in all rows; one where the sizes are not far apart."""
    d = np.ones(M.shape[:2])
    for _ in range(6):  # each halves the decades that are left
        rows = np.max(np.abs(M) * d[:, np.newaxis] * d[:, :, np.newaxis], axis=2)
        d = d * 2.0 ** -np.round(0.5 * np.log2(np.where(rows > 0, rows, 1.0)))
    spread = np.max(d, axis=1, keepdims=True) / np.min(d, axis=1, keepdims=True)
    return np.where(spread > _SPREAD, d, 1.0)


@overload
def projected(M: QuadraticOutput, V: np.ndarray) -> QuadraticOutput: ...
@overload
def projected(M: np.ndarray, V: np.ndarray) -> np.ndarray: ...
@overload
def projected(M: None, V: np.ndarray) -> None: ...
def projected(M: np.ndarray | QuadraticOutput | None, V: np.ndarray) -> np.ndarray | QuadraticOutput | None:
    """``Vᵀ M_i V`` of a quadratic output as matrices or factors, in the form given; None stays None."""
    if isinstance(M, QuadraticOutput):
        return QuadraticOutput(M.U @ V, M.V @ V, M.W)
    return None if M is None else V.T @ M @ V
