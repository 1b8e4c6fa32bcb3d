"""The squared h² error with optimal linear outputs by normal equations, over any horizon, with exact second derivatives.

A slot is ``2 Re(c μ^k)`` (half of that at a real pole). Everything is analytic in ``c`` and in the logarithm ``z`` of the pole
(continuous time: in the pole itself), and in ``z`` all derivatives of a white input's pairing are derivatives of one function
of ``z_i + z_j``. The residues are eliminated: the Hessian by the poles is the Schur complement of the one by both. A ridge
multiplies the pairing of every pole with its own conjugate, as it is before a free feedthrough is eliminated.
"""

from __future__ import annotations

import numpy as np

from lqo_mor.compiling import njit
from lqo_mor.matrix_equations.pairing_jets import (
    N_FEATURES,
    TWO_INPUTS_FREE,
    WEIGHTED_FREE,
    _observed,
    _own_features,
    _pairing_derivatives,
    _weighted_pair,
)
from lqo_mor.matrix_equations.small_dense import _cholesky, _forward, _rounding
from lqo_mor.reduction.sections.residue_slots import _slots
from lqo_mor.reduction.sections.sections import _size


@njit(cache=True, error_model="numpy")
def _own_pairings(code, parameters, mu, feature, ridge, plain, hermitian):
    """Pairings of the slots with each other and with their conjugates, (4, s, s); theory, eq. (6.10).

    Values, first and second derivatives by the second pole, and mixed ones by both (in `hermitian` by the conjugate of the
    second).
    """
    for i in range(mu.size):
        for j in range(i + 1):
            if code < 0:
                p = _weighted_pair(code, parameters, mu[i], mu[j], feature[:, i], feature[:, j])
                h = _weighted_pair(code, parameters, mu[i], mu[j].conjugate(), feature[:, i], feature[:, j].conj())
                for d in range(4):
                    plain[d, i, j], hermitian[d, i, j] = p[d], h[d]
                p = _weighted_pair(code, parameters, mu[j], mu[i], feature[:, j], feature[:, i])
                h = _weighted_pair(code, parameters, mu[j], mu[i].conjugate(), feature[:, j], feature[:, i].conj())
                for d in range(4):
                    plain[d, j, i], hermitian[d, j, i] = p[d], h[d]
            else:
                e, f = feature[0, i], feature[0, j]
                a = _pairing_derivatives(code, parameters, mu[i], mu[j], e * f)
                b = _pairing_derivatives(code, parameters, mu[i], mu[j].conjugate(), e * f.conjugate())
                for d in range(4):
                    k = min(d, 2)  # one function of the sum of both logarithms: the mixed derivative is the second one
                    plain[d, i, j] = plain[d, j, i] = a[k]
                    hermitian[d, i, j], hermitian[d, j, i] = b[k], b[k].conjugate()
        part = ridge if mu[i].imag != 0.0 else 2.0 * ridge
        for d in range(4):
            hermitian[d, i, i] *= 1.0 + part
            if code in (WEIGHTED_FREE, TWO_INPUTS_FREE):  # fast modes may not grow against the feedthrough
                left, right = (1, 1) if d == 3 else (0, d)
                hermitian[d, i, i] += part * feature[left, i] * feature[right, i].conjugate() / parameters[0]


@njit(cache=True, error_model="numpy")
def _residue_hessian(slot, unit, mu, plain, hermitian, G):
    """Second derivatives of the squared error by the real coordinates of the residues, twice a Gramian; theory, eq. (6.11)."""
    for u in range(slot.size):
        i = slot[u]
        left = unit[u] if mu[i].imag != 0.0 else 0.5
        for v in range(u + 1):
            j = slot[v]
            right = unit[v] if mu[j].imag != 0.0 else 0.5
            G[u, v] = G[v, u] = 4.0 * (left * (right * plain[i, j] + np.conj(right) * hermitian[i, j])).real


@njit(cache=True, error_model="numpy")
def _projected_newton(code, parameters, lam, f_lam, outputs, squared_norm, ridge, kinds, x, least, gradient, hessian):
    """Squared error with optimal outputs, its gradient and its Hessian by the parameters `x` of the sections.

    `lam` (n,) are the full poles, `f_lam` their features, `outputs` (q, n) their output rows times input entries and pair
    weights. Theory, eq. (6.11), (6.12).
    """
    r, q = x.size, outputs.shape[0]
    mu, slot, unit = np.empty(r, np.complex128), np.empty(r, np.int64), np.empty(r, np.complex128)
    slopes, bends = np.zeros((r, 2)), np.zeros((r, 3))
    s = _slots(code, kinds, x, least, mu, slot, unit, slopes, bends)
    mu = mu[:s]
    feature = np.empty((N_FEATURES, s), np.complex128)
    _own_features(code, parameters, mu, feature)
    P, M = np.empty((4, s, s), np.complex128), np.empty((4, s, s), np.complex128)
    _own_pairings(code, parameters, mu, feature, ridge, P, M)
    H = np.empty((3, q, s), np.complex128)
    _observed(code, parameters, lam, f_lam, outputs, mu, feature, H)
    G, L = np.empty((r, r)), np.zeros((r, r))
    _residue_hessian(slot, unit, mu, P[0], M[0], G)
    if not _cholesky(G, L, _rounding(G)):
        return np.inf
    value, slope, bend = squared_norm, np.zeros(r), np.zeros((r, r))  # by the real coordinates of the poles
    right, mixed = np.empty((r, 1)), np.empty((r, r))
    c, v1, v2 = np.empty(s, np.complex128), np.empty(s, np.complex128), np.empty(s, np.complex128)
    dc = np.empty(r, np.complex128)
    for u in range(r):
        dc[u] = unit[u] if mu[slot[u]].imag != 0.0 else 0.5 + 0.0j
    for a in range(q):
        for u in range(r):
            right[u, 0] = 4.0 * (H[0, a, slot[u]] * dc[u]).real
        _forward(L, right)
        for u in range(r):
            value -= 0.5 * right[u, 0] ** 2
        c[:] = 0.0
        for u in range(r - 1, -1, -1):
            total = right[u, 0]
            for v in range(u + 1, r):
                total -= L[v, u] * right[v, 0]
            right[u, 0] = total / L[u, u]
            c[slot[u]] += right[u, 0] * dc[u]
        for j in range(s):
            first, second = -2.0 * H[1, a, j], -2.0 * H[2, a, j]
            for i in range(s):
                first += 2.0 * (c[i] * P[1, i, j] + (c[i] * M[1, i, j]).conjugate())
                second += 2.0 * (c[i] * P[2, i, j] + (c[i] * M[2, i, j]).conjugate())
            v1[j], v2[j] = first, second
        for v in range(r):
            j = slot[v]
            step = c[j] * unit[v]
            slope[v] += 2.0 * (step * v1[j]).real
            for u in range(r):
                i = slot[u]
                own = v1[j] * unit[v] if i == j else 0.0j
                mixed[u, v] = 2.0 * (dc[u] * (own + 2.0 * (step * P[1, i, j] + step.conjugate() * M[1, i, j]))).real
                if u >= v:
                    own = step * v2[j] * unit[u] if i == j else 0.0j
                    back = 2.0 * c[i] * unit[u]
                    bend[u, v] += 2.0 * (own + back * (step * P[3, i, j] + step.conjugate() * M[3, i, j])).real
        _forward(L, mixed)
        for k in range(r):
            for u in range(r):
                factor = mixed[k, u]
                for v in range(u + 1):
                    bend[u, v] -= factor * mixed[k, v]
    for u in range(r):
        for v in range(u):
            bend[v, u] = bend[u, v]
    _by_parameters(kinds, slopes, bends, slope, bend, gradient, hessian)
    return value


@njit(cache=True, error_model="numpy")
def _by_parameters(kinds, slopes, bends, slope, bend, gradient, hessian):
    """Chain rule from the coordinates of the poles to the parameters of their sections, by theory, eq. (6.13)."""
    r, k = slope.size, 0
    half = np.zeros((r, r))  # the chain rule on the left only: rows of parameters, columns of coordinates
    for kind in kinds:
        size = _size(kind)
        for i in range(k, k + size):
            gradient[i] = 0.0
            for u in range(k, k + size):
                gradient[i] += slope[u] * slopes[u, i - k]
                factor = slopes[u, i - k]
                for v in range(r):
                    half[i, v] += factor * bend[u, v]
        k += size
    k = 0
    for kind in kinds:
        size = _size(kind)
        for j in range(k, k + size):
            for i in range(r):
                total = 0.0
                for v in range(k, k + size):
                    total += half[i, v] * slopes[v, j - k]
                hessian[i, j] = total
            for i in range(k, k + size):
                for u in range(k, k + size):
                    hessian[i, j] += slope[u] * bends[u, i + j - 2 * k]
        k += size
