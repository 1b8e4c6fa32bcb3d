"""What one more section would remove of the squared error, and what each section removes, without moving the others."""

from __future__ import annotations

import numpy as np
from numba import njit

from lqo_mor.matrix_equations._kernels import CONTINUOUS
from lqo_mor.reduction._inner_kernels import _factors, _to_real, _without_each
from lqo_mor.reduction._pairing_kernels import _value
from lqo_mor.reduction._projection_kernels import (
    _cholesky,
    _forward,
    _own_features,
    _own_pairings,
    _residue_hessian,
    _transfer,
)
from lqo_mor.reduction._sections import N_CONSTANTS, REAL, _constants, _factor
from lqo_mor.reduction._slot_kernels import _slots

_ALREADY_THERE = 1e-10  # squared sine of the angle between a candidate and the span of the sections


@njit(cache=True, error_model="numpy", nogil=True)
def _candidate_parts(data, kind, parameters, least):
    """What the scores need of candidate sections of one kind with the parameters (candidates, 2), computed once.

    Their all-pass factors at the full poles (inner form), or poles, features, own Hessian and right-hand sides (projection).
    """
    code, lam, inner = data[0], data[2], data[14]
    count = parameters.shape[0]
    size = 1 if kind == REAL else 2
    factors = np.empty((count if inner else 0, lam.size), np.complex128)
    number = 0 if inner else count
    mu, feature = np.zeros((number, size), np.complex128), np.zeros((number, size), np.complex128)
    slots, block = np.zeros(number, np.int64), np.zeros((number, size, size))
    right = np.zeros((number, data[11].shape[0], size))
    constants = np.empty(N_CONSTANTS)
    kinds = np.empty(1, np.int64)
    kinds[0] = kind
    slot, unit = np.empty(size, np.int64), np.empty(size, np.complex128)
    slopes, bends = np.empty((size, 2)), np.empty((size, 3))
    P, M = np.empty((3, size, size), np.complex128), np.empty((3, size, size), np.complex128)
    H = np.empty((data[11].shape[0], size), np.complex128)
    for c in range(count):
        if inner:
            _constants(code >= CONTINUOUS, kind, parameters[c, 0], parameters[c, 1], least, constants)
            for i in range(lam.size):
                factors[c, i] = _factor(code >= CONTINUOUS, kind, constants, lam[i])[0]
            continue
        s = _slots(code, kinds, parameters[c], least, mu[c], slot, unit, slopes, bends)
        slots[c] = s
        _own_features(code, data[1], mu[c, :s], feature[c, :s])
        _own_pairings(code, data[1], mu[c, :s], feature[c, :s], data[13], P[:, :s, :s], M[:, :s, :s])
        _residue_hessian(slot, unit, mu[c, :s], P[0, :s, :s], M[0, :s, :s], block[c])
        _transfer(code, data[1], lam, data[10], data[11], mu[c, :s], feature[c, :s], H[:, :s])
        for a in range(right.shape[1]):
            for u in range(size):
                pair = mu[c, slot[u]].imag != 0.0
                right[c, a, u] = 4.0 * (H[a, slot[u]] * (unit[u] if pair else 0.5)).real
    return factors, mu, feature, slots, block, right


@njit(cache=True, error_model="numpy")
def _energies(data, tau, factors):
    """``‖R (σ_c ∘ τ)‖²`` of the inner form for every row `c` of `factors`."""
    columns = np.empty((tau.size, factors.shape[0]), np.complex128)
    for c in range(factors.shape[0]):
        for i in range(tau.size):
            columns[i, c] = factors[c, i] * tau[i]
    root = data[5]
    real_columns = np.empty((root.shape[1], factors.shape[0]))
    _to_real(data[4], columns, real_columns)
    projected = root @ real_columns
    out = np.zeros(factors.shape[0])
    for k in range(projected.shape[0]):
        for c in range(out.size):
            out[c] += projected[k, c] ** 2
    return out


@njit(cache=True, error_model="numpy")
def _without(data, kinds, x, least, tau):
    """``τ`` of all sections into `tau`, and for each section that of the others, (sections, n)."""
    s, n = kinds.size, data[2].size
    own = (data[0] >= CONTINUOUS, data[2])
    sigma, d1, d2 = np.empty((s, n), np.complex128), np.empty((s, n), np.complex128), np.empty((s, n), np.complex128)
    d11, d12, d22, others = np.empty_like(sigma), np.empty_like(sigma), np.empty_like(sigma), np.empty_like(sigma)
    _factors(own, kinds, x, least, sigma, d1, d2, d11, d12, d22)
    _without_each(sigma, data[3], tau, others)
    return others


@njit(cache=True, error_model="numpy")
def _normal_equations(data, kinds, x, least, mu, slot, unit, L, right):
    """Slots of the sections, the Cholesky factor of the Hessian by the residues and ``L⁻¹`` times the right-hand sides.

    Returns the number of slots, 0 if there is no factor.
    """
    r, q = x.size, data[11].shape[0]
    slopes, bends = np.empty((r, 2)), np.empty((r, 3))
    s = _slots(data[0], kinds, x, least, mu, slot, unit, slopes, bends)
    feature, H = np.empty(s, np.complex128), np.empty((q, s), np.complex128)
    P, M, G = np.empty((3, s, s), np.complex128), np.empty((3, s, s), np.complex128), np.empty((r, r))
    _own_features(data[0], data[1], mu[:s], feature)
    _own_pairings(data[0], data[1], mu[:s], feature, data[13], P, M)
    _transfer(data[0], data[1], data[2], data[10], data[11], mu[:s], feature, H)
    _residue_hessian(slot, unit, mu[:s], P[0], M[0], G)
    if not _cholesky(G, L):
        return 0
    for u in range(r):
        pair = mu[slot[u]].imag != 0.0
        for a in range(q):
            right[u, a] = 4.0 * (H[a, slot[u]] * (unit[u] if pair else 0.5)).real
    _forward(L, right)
    return s


@njit(cache=True, error_model="numpy", nogil=True)
def _additions(data, kinds, x, least, parts):
    """Squared error, up to a constant, after adding each of the candidates to the sections `x`."""
    factors, mu_c, feature_c, slots_c, block, right_c = parts
    if data[14]:
        tau = np.empty(data[2].size, np.complex128)
        _without(data, kinds, x, least, tau)
        return _energies(data, tau, factors)
    r, q = x.size, data[11].shape[0]
    mu, slot, unit = np.empty(r, np.complex128), np.empty(r, np.int64), np.empty(r, np.complex128)
    L, right = np.zeros((r, r)), np.empty((r, q))
    out = np.zeros(block.shape[0])
    s = _normal_equations(data, kinds, x, least, mu, slot, unit, L, right)
    if r and not s:
        return out
    feature = np.empty(s, np.complex128)
    _own_features(data[0], data[1], mu[:s], feature)
    size = block.shape[1]
    X, b = np.empty((r, size)), np.empty(size)
    plain, hermitian = np.empty(s, np.complex128), np.empty(s, np.complex128)
    for c in range(out.size):
        for u in range(size):
            j = min(u, slots_c[c] - 1)
            if u == 0 or slots_c[c] == 2:
                for i in range(s):
                    z = mu_c[c, j]
                    plain[i] = _value(data[0], data[1], mu[i], z, feature[i] * feature_c[c, j])
                    hermitian[i] = _value(data[0], data[1], mu[i], z.conjugate(), feature[i] * feature_c[c, j].conjugate())
            along = 0.5 + 0.0j if mu_c[c, j].imag == 0.0 else (1.0 + 0.0j if u == 0 else 1.0j)
            for v in range(r):
                i = slot[v]
                step = unit[v] if mu[i].imag != 0.0 else 0.5 + 0.0j
                X[v, u] = 4.0 * (step * (along * plain[i] + along.conjugate() * hermitian[i])).real
        _forward(L, X)
        s11 = block[c, 0, 0]
        for v in range(r):
            s11 -= X[v, 0] ** 2
        if not s11 > _ALREADY_THERE * block[c, 0, 0]:
            continue
        s12, s22 = 0.0, 0.0
        if size == 2:
            s12, s22 = block[c, 0, 1], block[c, 1, 1]
            for v in range(r):
                s12 -= X[v, 0] * X[v, 1]
                s22 -= X[v, 1] ** 2
        for a in range(q):
            for u in range(size):
                b[u] = right_c[c, a, u]
                for v in range(r):
                    b[u] -= X[v, u] * right[v, a]
            out[c] -= 0.5 * b[0] ** 2 / s11
            if size == 2:
                rest = s22 - s12 * s12 / s11
                if rest > _ALREADY_THERE * block[c, 1, 1]:
                    out[c] -= 0.5 * (b[1] - b[0] * s12 / s11) ** 2 / rest
    return out


@njit(cache=True, error_model="numpy", nogil=True)
def _removals(data, kinds, x, least):
    """Squared error, up to a constant, after taking each of the sections away."""
    if data[14]:
        tau = np.empty(data[2].size, np.complex128)
        others = _without(data, kinds, x, least, tau)
        return _energies(data, np.ones(data[2].size, np.complex128), others)
    r, q = x.size, data[11].shape[0]
    mu, slot, unit = np.empty(r, np.complex128), np.empty(r, np.int64), np.empty(r, np.complex128)
    L, right = np.zeros((r, r)), np.empty((r, q))
    out = np.zeros(kinds.size)
    if not _normal_equations(data, kinds, x, least, mu, slot, unit, L, right):
        return out
    inverse = np.eye(r)
    _forward(L, inverse)  # rows of L⁻¹: the inverse is its square, the residues its product with `right`
    k = 0
    for p in range(kinds.size):
        size = 1 if kinds[p] == REAL else 2
        g11, g12, g22 = 0.0, 0.0, 0.0
        for u in range(r):
            g11 += inverse[u, k] ** 2
            if size == 2:
                g12 += inverse[u, k] * inverse[u, k + 1]
                g22 += inverse[u, k + 1] ** 2
        for a in range(q):
            c1, c2 = 0.0, 0.0
            for u in range(r):
                c1 += inverse[u, k] * right[u, a]
                if size == 2:
                    c2 += inverse[u, k + 1] * right[u, a]
            if size == 1:
                out[p] += 0.5 * c1 * c1 / g11
            else:
                out[p] += 0.5 * (g22 * c1 * c1 - 2.0 * g12 * c1 * c2 + g11 * c2 * c2) / (g11 * g22 - g12 * g12)
        k += size
    return out
