"""Small dense linear algebra in compiled code: Cholesky factorisation and triangular solves."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, error_model="numpy")
def _cholesky(G, L):
    """Lower Cholesky factor; False if `G` is not positive definite to rounding."""
    for i in range(G.shape[0]):
        for j in range(i + 1):
            total = G[i, j]
            for k in range(j):
                total -= L[i, k] * L[j, k]
            if i == j:
                if not total > 4e-16 * G[i, i]:
                    return False
                L[i, i] = np.sqrt(total)
            else:
                L[i, j] = total / L[j, j]
    return True


@njit(cache=True, error_model="numpy")
def _forward(L, columns):
    """``L⁻¹ columns`` in place."""
    for i in range(L.shape[0]):
        for k in range(i):
            for c in range(columns.shape[1]):
                columns[i, c] -= L[i, k] * columns[k, c]
        for c in range(columns.shape[1]):
            columns[i, c] /= L[i, i]
