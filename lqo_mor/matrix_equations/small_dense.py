"""Small dense linear algebra in compiled code, where a call to LAPACK would cost more than the work: Cholesky and its solves.

The same as `scipy.linalg.cho_factor` and `cho_solve`, for the matrices of up to some hundred rows of a reduced system: `G`, `K`
and the damped Hessian of theory, eq. (6.1), (6.11) and (6.14).
"""

from __future__ import annotations

import numpy as np

from lqo_mor.compiling import njit


@njit(cache=True, error_model="numpy")
def _cholesky(G, L, least):
    """Lower Cholesky factor ``G = L Lᵀ``; False if a pivot is not above its entry of `least` (r,)."""
    for i in range(G.shape[0]):
        for j in range(i + 1):
            total = G[i, j]
            for k in range(j):
                total -= L[i, k] * L[j, k]
            if i == j:
                if not total > least[i]:
                    return False
                L[i, i] = np.sqrt(total)
            else:
                L[i, j] = total / L[j, j]
    return True


@njit(cache=True, error_model="numpy")
def _rounding(G):
    """The pivots (r,) below which a Gramian is not positive definite to rounding."""
    out = np.empty(G.shape[0])
    for i in range(out.size):
        out[i] = 4e-16 * G[i, i]
    return out


@njit(cache=True, error_model="numpy")
def _forward(L, columns):
    """``L⁻¹ columns`` in place."""
    for i in range(L.shape[0]):
        for k in range(i):
            for c in range(columns.shape[1]):
                columns[i, c] -= L[i, k] * columns[k, c]
        for c in range(columns.shape[1]):
            columns[i, c] /= L[i, i]


@njit(cache=True, error_model="numpy")
def _backward(L, columns):
    """``L⁻ᵀ columns`` in place."""
    for i in range(L.shape[0] - 1, -1, -1):
        for k in range(i + 1, L.shape[0]):
            for c in range(columns.shape[1]):
                columns[i, c] -= L[k, i] * columns[k, c]
        for c in range(columns.shape[1]):
            columns[i, c] /= L[i, i]
