"""What norms and reducers need of the outputs of a system: rows, and quadratic forms of their covariance.

The linear and the factored quadratic output together are a stack of *rows* ``Z = [C; U; V]``. A norm sees
them only through ``S = Z P Zᵀ`` (or ``Z X Z_rᵀ`` between two systems), a small matrix.
"""

from __future__ import annotations

import numpy as np

from lqo_mor.systems.diagonal import DiagonalLQOSystem
from lqo_mor.systems.quadratic import QuadraticOutput


def stack_rows(C: np.ndarray, quadratic: QuadraticOutput | None) -> np.ndarray:
    """The rows ``[C; U; V]``, shape (..., p + 2c, n)."""
    if quadratic is None:
        return C
    return np.concatenate([np.broadcast_to(C, (*quadratic.U.shape[:-2], *C.shape[-2:])), quadratic.U, quadratic.V], axis=-2)


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


def split(S: np.ndarray, p: int, c: int, p_r: int, c_r: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The blocks of ``Z X Z_rᵀ`` that enter norms: the linear one, and those of the factors U and V."""
    u, v, u_r, v_r = slice(p, p + c), slice(p + c, p + 2 * c), slice(p_r, p_r + c_r), slice(p_r + c_r, p_r + 2 * c_r)
    return S[..., :p, :p_r], S[..., u, u_r], S[..., u, v_r], S[..., v, u_r], S[..., v, v_r]


def quadratic_inner(uu: np.ndarray, uv: np.ndarray, vu: np.ndarray, vv: np.ndarray, W: np.ndarray, W_r: np.ndarray) -> np.ndarray:
    """``Σ_i tr(M_i X M_{r,i} Xᵀ) = ½ Σ (WᵀW_r) ∘ (S_uu ∘ S_vv + S_uv ∘ S_vu)``; theory, eq. (3.3)."""
    weights = np.swapaxes(W, -1, -2) @ W_r
    return 0.5 * np.sum(weights * (uu * vv + uv * vu), axis=(-1, -2))


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
