"""What norms and reducers need of the outputs of a system: rows, and quadratic forms of their covariance.

The linear and the factored quadratic output together are a stack of *rows* ``Z = [C; U; V]``. A norm sees
them only through ``S = Z P Zᵀ`` (or ``Z X Z_rᵀ`` between two systems), a small matrix.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np

from lqo_mor.systems.diagonal import DiagonalLQOSystem
from lqo_mor.systems.quadratic import QuadraticOutput
from lqo_mor.systems.system import System

Covariance: TypeAlias = np.ndarray | tuple[np.ndarray, np.ndarray]  # of the states: dense, or plain and hermitian of slots


def stack_rows(C: np.ndarray, quadratic: QuadraticOutput | None) -> np.ndarray:
    """The rows ``[C; U; V]``, shape (..., p + 2c, n)."""
    if quadratic is None:
        return C
    return np.concatenate([np.broadcast_to(C, (*quadratic.U.shape[:-2], *C.shape[-2:])), quadratic.U, quadratic.V], axis=-2)


def unstack_rows(rows: np.ndarray, W: np.ndarray) -> tuple[np.ndarray, QuadraticOutput | None]:
    """`C` and the quadratic output of `stack_rows`, which is None where the mixing matrix `W` (..., p, c) has no columns."""
    p, c = W.shape[-2:]
    return rows[..., :p, :], QuadraticOutput(rows[..., p : p + c, :], rows[..., p + c :, :], W) if c else None


def pair_weights(sys: DiagonalLQOSystem) -> np.ndarray:
    """Weights (..., s) that make sums of ``2 Re(·)`` over slots right at real poles, too: 1 or ½."""
    return np.where(sys.is_real_pole, 0.5, 1.0)


def row_products(left: np.ndarray, plain: np.ndarray, hermitian: np.ndarray, right: np.ndarray) -> np.ndarray:
    """``Z X Z_rᵀ`` over the closed sets of poles, from half storage; theory, eq. (1.5).

    `left` (..., q, s) and `right` (..., t, s_r) are rows already multiplied by `pair_weights`; `plain` and
    `hermitian` are the cross Gramians with the poles and with the conjugate poles of the right system.
    """
    transposed = np.swapaxes(right, -1, -2)
    return 2 * (left @ (plain @ transposed + hermitian @ transposed.conj())).real


def linear_product(left: np.ndarray, plain: np.ndarray, hermitian: np.ndarray, right: np.ndarray) -> np.ndarray:
    """The trace of `row_products`, (...), for as many rows on both sides."""
    transposed = np.swapaxes(right, -1, -2)
    states = plain @ transposed + hermitian @ transposed.conj()
    return 2 * np.sum(left * np.swapaxes(states, -1, -2), axis=(-1, -2)).real


def split(S: np.ndarray, p: int, c: int, p_r: int, c_r: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The blocks of ``Z X Z_rᵀ`` that enter norms: the linear one, and those of the factors U and V."""
    u, v, u_r, v_r = slice(p, p + c), slice(p + c, p + 2 * c), slice(p_r, p_r + c_r), slice(p_r + c_r, p_r + 2 * c_r)
    return S[..., :p, :p_r], S[..., u, u_r], S[..., u, v_r], S[..., v, u_r], S[..., v, v_r]


def quadratic_inner(uu: np.ndarray, uv: np.ndarray, vu: np.ndarray, vv: np.ndarray, W: np.ndarray, W_r: np.ndarray) -> np.ndarray:
    """``Σ_i tr(M_i X M_{r,i} Xᵀ) = ½ Σ (WᵀW_r) ∘ (S_uu ∘ S_vv + S_uv ∘ S_vu)``; theory, eq. (3.3)."""
    weights = np.swapaxes(W, -1, -2) @ W_r
    return 0.5 * np.sum(weights * (uu * vv + uv * vu), axis=(-1, -2))


def output_products(sys: System, other: System, X: Covariance) -> tuple[np.ndarray, np.ndarray]:
    """``tr(C X C'ᴴ)`` and ``Σ_i tr(M_i X M_i'ᴴ Xᵀ)`` of two systems with the cross Gramian `X`; theory, eq. (3.3)."""
    if isinstance(sys, DiagonalLQOSystem) and isinstance(other, DiagonalLQOSystem):
        (plain, hermitian), p, q, r = X, sys.n_outputs, sys.M, other.M
        left, right = (pair_weights(one)[..., np.newaxis, :] for one in (sys, other))
        if q is None or r is None:
            return linear_product(left * sys.C, plain, hermitian, right * other.C), np.zeros(())
        S = row_products(left * stack_rows(sys.C, q), plain, hermitian, right * stack_rows(other.C, r))
        linear, uu, uv, vu, vv = split(S, p, q.rank, p, r.rank)
        return np.trace(linear, axis1=-2, axis2=-1), quadratic_inner(uu, uv, vu, vv, q.W, r.W)
    M, N = sys.M, other.M
    linear = np.sum((sys.C @ X) * other.C.conj())
    if M is None or N is None:
        return linear, np.zeros(())
    if isinstance(M, QuadraticOutput) and isinstance(N, QuadraticOutput):
        uu, uv, vu, vv = (left @ X @ right.conj().T for left in (M.U, M.V) for right in (N.U, N.V))
        return linear, quadratic_inner(uu, uv, vu, vv, M.W, N.W.conj())
    M, N = (one.to_dense() if isinstance(one, QuadraticOutput) else one for one in (M, N))
    return linear, sum(np.sum((Mi @ X) * (X @ Ni.conj())) for Mi, Ni in zip(M, N, strict=True))


def observed_rows(quadratic: QuadraticOutput, root: np.ndarray) -> np.ndarray:
    """Rows `F` with ``FᴴF = Σ_i M_iᴴ conj(P) M_i`` for ``P = root rootᴴ``, without a matrix per output; theory, eq. (3.6).

    ``rootᵀ M_i`` is ``½ [(V root)ᵀ D_i, (U root)ᵀ D_i] [U; V]`` with ``D_i = diag(W_i)``, so a QR decomposition
    of the small left factors leaves at most ``2c`` rows.
    """
    W = quadratic.W
    if W.shape[0] > W.shape[1]:
        W = triangle(W)
    right, left = (quadratic.V @ root).T, (quadratic.U @ root).T
    small = np.concatenate([np.hstack([right * w, left * w]) for w in W]) if W.shape[0] else np.zeros((0, 2 * quadratic.rank))
    if small.shape[0] > small.shape[1]:
        small = triangle(small)
    return 0.5 * small @ np.concatenate([quadratic.U, quadratic.V])


def triangle(rows: np.ndarray) -> np.ndarray:
    """The triangular factor of a QR decomposition: fewer rows with the same ``rowsᴴ rows``."""
    return np.linalg.qr(rows, mode="r")  # type: ignore[return-value]  # NumPy types all modes as pairs
