"""What one more section would remove of the squared error, and what each section removes, without moving the others.

Of quadratic outputs (all-pass form) ``E₂`` is left out, so that their scores are upper bounds, up to a constant.
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
    _pairing_rows,
)
from lqo_mor.matrix_equations.pairing_kernels import CONTINUOUS
from lqo_mor.matrix_equations.small_dense import _backward, _cholesky, _forward, _rounding
from lqo_mor.reduction.sections.allpass_error import _factors, _to_real, _without_each
from lqo_mor.reduction.sections.kernel_data import (
    ALLPASS,
    CODE,
    FEATURES,
    LAM,
    OUTPUTS,
    PARAMETERS,
    REAL_POLES,
    RIDGE,
    ROOT,
    SQUARED_NORM,
    B,
)
from lqo_mor.reduction.sections.residue_error import _own_pairings, _residue_hessian
from lqo_mor.reduction.sections.residue_slots import _slots
from lqo_mor.reduction.sections.sections import N_CONSTANTS, REAL, _constants, _factor

_ALREADY_THERE = 1e-10  # squared sine of the angle between a candidate and the span of the sections


@njit(cache=True, error_model="numpy", nogil=True)
def _candidate_parts(data, kind, parameters, least):
    """What the scores need of candidate sections of one kind with the parameters (candidates, 2), computed once.

    Their all-pass factors at the full poles (inner form), or poles, features, `K_cc` and `r_c` (projection); theory, eq. (6.16).
    """
    code, lam, inner = data[CODE], data[LAM], data[ALLPASS]
    count = parameters.shape[0]
    size = 1 if kind == REAL else 2
    factors = np.empty((count if inner else 0, lam.size), np.complex128)
    number = 0 if inner else count
    mu, feature = np.zeros((number, size), np.complex128), np.zeros((number, N_FEATURES, size), np.complex128)
    slots, block = np.zeros(number, np.int64), np.zeros((number, size, size))
    right = np.zeros((number, data[OUTPUTS].shape[0], size))
    constants = np.empty(N_CONSTANTS)
    kinds = np.empty(1, np.int64)
    kinds[0] = kind
    slot, unit = np.empty(size, np.int64), np.empty(size, np.complex128)
    slopes, bends = np.empty((size, 2)), np.empty((size, 3))
    P, M = np.empty((4, size, size), np.complex128), np.empty((4, size, size), np.complex128)
    H = np.empty((3, data[OUTPUTS].shape[0], size), np.complex128)
    for c in range(count):
        if inner:
            _constants(code >= CONTINUOUS, kind, parameters[c, 0], parameters[c, 1], least, constants)
            for i in range(lam.size):
                factors[c, i] = _factor(code >= CONTINUOUS, kind, constants, lam[i])[0]
            continue
        s = _slots(code, kinds, parameters[c], least, mu[c], slot, unit, slopes, bends)
        slots[c] = s
        _own_features(code, data[PARAMETERS], mu[c, :s], feature[c, :, :s])
        _own_pairings(code, data[PARAMETERS], mu[c, :s], feature[c, :, :s], data[RIDGE], P[:, :s, :s], M[:, :s, :s])
        _residue_hessian(slot, unit, mu[c, :s], P[0, :s, :s], M[0, :s, :s], block[c])
        _observed(code, data[PARAMETERS], lam, data[FEATURES], data[OUTPUTS], mu[c, :s], feature[c, :, :s], H)
        for a in range(right.shape[1]):
            for u in range(size):
                pair = mu[c, slot[u]].imag != 0.0
                right[c, a, u] = 4.0 * (H[0, a, slot[u]] * (unit[u] if pair else 0.5)).real
    return factors, mu, feature, slots, block, right


@njit(cache=True, error_model="numpy")
def _energies(data, tau, factors):
    """``‖R (σ_c ∘ τ)‖²`` of the inner form for every row `c` of `factors`; theory, eq. (6.15)."""
    columns = np.empty((tau.size, factors.shape[0]), np.complex128)
    for c in range(factors.shape[0]):
        for i in range(tau.size):
            columns[i, c] = factors[c, i] * tau[i]
    root = data[ROOT]
    real_columns = np.empty((root.shape[1], factors.shape[0]))
    _to_real(data[REAL_POLES], columns, real_columns)
    projected = root @ real_columns
    out = np.zeros(factors.shape[0])
    for k in range(projected.shape[0]):
        for c in range(out.size):
            out[c] += projected[k, c] ** 2
    return out


@njit(cache=True, error_model="numpy")
def _without(data, kinds, x, least, tau):
    """``τ`` of all sections into `tau`, and for each section that of the others, (sections, n); theory, eq. (6.15)."""
    s, n = kinds.size, data[LAM].size
    own = (data[CODE] >= CONTINUOUS, data[LAM])
    sigma, d1, d2 = np.empty((s, n), np.complex128), np.empty((s, n), np.complex128), np.empty((s, n), np.complex128)
    d11, d12, d22, others = np.empty_like(sigma), np.empty_like(sigma), np.empty_like(sigma), np.empty_like(sigma)
    _factors(own, kinds, x, least, sigma, d1, d2, d11, d12, d22)
    _without_each(sigma, data[B], tau, others)
    return others


@njit(cache=True, error_model="numpy")
def _normal_equations(data, kinds, x, least, mu, slot, unit, L, right):
    """Slots of the sections, Cholesky factor `L` of `K` and ``L⁻¹ r`` for every output; theory, eq. (6.11).

    Returns the number of slots, 0 if there is no factor.
    """
    r, q = x.size, data[OUTPUTS].shape[0]
    slopes, bends = np.empty((r, 2)), np.empty((r, 3))
    s = _slots(data[CODE], kinds, x, least, mu, slot, unit, slopes, bends)
    feature, H = np.empty((N_FEATURES, s), np.complex128), np.empty((3, q, s), np.complex128)
    P, M, G = np.empty((4, s, s), np.complex128), np.empty((4, s, s), np.complex128), np.empty((r, r))
    _own_features(data[CODE], data[PARAMETERS], mu[:s], feature)
    _own_pairings(data[CODE], data[PARAMETERS], mu[:s], feature, data[RIDGE], P, M)
    _observed(data[CODE], data[PARAMETERS], data[LAM], data[FEATURES], data[OUTPUTS], mu[:s], feature, H)
    _residue_hessian(slot, unit, mu[:s], P[0], M[0], G)
    if not _cholesky(G, L, _rounding(G)):
        return 0
    for u in range(r):
        pair = mu[slot[u]].imag != 0.0
        for a in range(q):
            right[u, a] = 4.0 * (H[0, a, slot[u]] * (unit[u] if pair else 0.5)).real
    _forward(L, right)
    return s


@njit(cache=True, error_model="numpy", nogil=True)
def _additions(data, kinds, x, least, parts):
    """Squared error (or its bound), up to a constant, with each candidate beside the sections `x`; theory, eq. (6.15), (6.16)."""
    factors, mu_c, feature_c, slots_c, block, right_c = parts
    if data[ALLPASS]:
        tau = np.empty(data[LAM].size, np.complex128)
        _without(data, kinds, x, least, tau)
        return _energies(data, tau, factors)
    r, q = x.size, data[OUTPUTS].shape[0]
    mu, slot, unit = np.empty(r, np.complex128), np.empty(r, np.int64), np.empty(r, np.complex128)
    L, right = np.zeros((r, r)), np.empty((r, q))
    out = np.zeros(block.shape[0])
    s = _normal_equations(data, kinds, x, least, mu, slot, unit, L, right)
    if r and not s:
        return out
    feature = np.empty((N_FEATURES, s), np.complex128)
    _own_features(data[CODE], data[PARAMETERS], mu[:s], feature)
    size = block.shape[1]
    X = _coupling(data[CODE], data[PARAMETERS], mu[:s], feature, slot, unit, mu_c, feature_c, slots_c)
    _forward(L, X)
    s11, s12, s22 = block[:, 0, 0].copy(), block[:, 0, size - 1].copy(), block[:, size - 1, size - 1].copy()
    for v in range(r):
        for c in range(out.size):
            first, last = X[v, c * size], X[v, c * size + size - 1]
            s11[c] -= first * first
            s12[c] -= first * last
            s22[c] -= last * last
    b = np.empty(X.shape[1])
    for a in range(q):
        for c in range(out.size):
            for u in range(size):
                b[c * size + u] = right_c[c, a, u]
        for v in range(r):
            for k in range(b.size):
                b[k] -= X[v, k] * right[v, a]
        for c in range(out.size):
            if not s11[c] > _ALREADY_THERE * block[c, 0, 0]:
                continue
            out[c] -= 0.5 * b[c * size] ** 2 / s11[c]
            rest = s22[c] - s12[c] * s12[c] / s11[c]
            if size == 2 and rest > _ALREADY_THERE * block[c, 1, 1]:
                out[c] -= 0.5 * (b[2 * c + 1] - b[2 * c] * s12[c] / s11[c]) ** 2 / rest
    return out


@njit(cache=True, error_model="numpy")
def _coupling(code, parameters, mu, feature, slot, unit, mu_c, feature_c, slots_c):
    """Second derivatives by residues of sections and of candidates, (r, candidates size): `K_·c` of theory, eq. (6.16)."""
    count, size = mu_c.shape
    flat, flat_feature = mu_c.reshape(-1), np.empty((N_FEATURES, count * size), np.complex128)
    which, along = np.empty(count * size, np.int64), np.empty(count * size, np.complex128)
    for c in range(count):
        for u in range(size):
            k, j = c * size + u, min(u, slots_c[c] - 1)
            flat_feature[:, k] = feature_c[c, :, u]
            which[k] = c * size + j
            along[k] = 0.5 if mu_c[c, j].imag == 0.0 else (1.0 if u == 0 else 1.0j)
    X = np.empty((slot.size, count * size))
    plain, hermitian = np.empty((6, flat.size)), np.empty((6, flat.size))
    for v in range(slot.size):
        i = slot[v]
        if v == 0 or slot[v - 1] != i:
            _pairing_rows(code, parameters, flat, flat_feature, mu[i], feature[:, i], plain)
            _pairing_rows(code, parameters, flat, flat_feature, mu[i].conjugate(), feature[:, i].conj(), hermitian)
        step = unit[v] if mu[i].imag != 0.0 else 0.5 + 0.0j
        for k in range(X.shape[1]):
            j, with_pole = which[k], step * along[k]
            with_conjugate = step.conjugate() * along[k]
            X[v, k] = 4.0 * (
                with_pole.real * plain[0, j] - with_pole.imag * plain[1, j]
                + with_conjugate.real * hermitian[0, j] - with_conjugate.imag * hermitian[1, j]
            )  # fmt: skip
    return X


@njit(cache=True, error_model="numpy", nogil=True)
def _removals(data, kinds, x, least):
    """Squared error (or its bound), up to a constant, after taking each of the sections away; theory, eq. (6.15), (6.16)."""
    if data[ALLPASS]:
        tau = np.empty(data[LAM].size, np.complex128)
        others = _without(data, kinds, x, least, tau)
        return _energies(data, np.ones(data[LAM].size, np.complex128), others)
    r, q = x.size, data[OUTPUTS].shape[0]
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


@njit(cache=True, error_model="numpy", nogil=True)
def _squared_norm(code, parameters, lam, f_lam, outputs):
    """Squared norm (theory, eq. (3.2)) of systems with the rows `outputs` (times input entries and pair weights), summed."""
    rows, total = np.empty((6, lam.size)), 0.0
    for j in range(lam.size):
        for half in range(2):
            if half == 0:
                _pairing_rows(code, parameters, lam, f_lam, lam[j], f_lam[:, j], rows)
            else:
                _pairing_rows(code, parameters, lam, f_lam, lam[j].conjugate(), f_lam[:, j].conj(), rows)
            for a in range(outputs.shape[0]):
                z = outputs[a, j] if half == 0 else outputs[a, j].conjugate()
                for i in range(lam.size):
                    total += 2.0 * (outputs[a, i] * z * complex(rows[0, i], rows[1, i])).real
    return total


@njit(cache=True, error_model="numpy", nogil=True)
def _optimal_residues(data, mu, residues, total):
    """Residues of a single output row for given poles in half storage; theory, eq. (6.11), (9.6).

    Into `total` the squared error, and the change of a free feedthrough, of two inputs the feedthrough itself.
    """
    s, r = mu.size, 0
    slot, unit = np.empty(2 * s, np.int64), np.empty(2 * s, np.complex128)
    for j in range(s):
        slot[r], unit[r] = j, 1.0
        r += 1
        if mu[j].imag != 0.0:
            slot[r], unit[r] = j, 1.0j
            r += 1
    slot, unit = slot[:r], unit[:r]
    feature, H = np.empty((N_FEATURES, s), np.complex128), np.empty((3, 1, s), np.complex128)
    P, M, G = np.empty((4, s, s), np.complex128), np.empty((4, s, s), np.complex128), np.empty((r, r))
    _own_features(data[CODE], data[PARAMETERS], mu, feature)
    _observed(data[CODE], data[PARAMETERS], data[LAM], data[FEATURES], data[OUTPUTS], mu, feature, H)
    L, right, ridge = np.zeros((r, r)), np.empty((r, 1)), data[RIDGE]
    while True:
        _own_pairings(data[CODE], data[PARAMETERS], mu, feature, ridge, P, M)
        _residue_hessian(slot, unit, mu, P[0], M[0], G)
        if _cholesky(G, L, _rounding(G)) or ridge > 1.0:
            break
        ridge = max(10.0 * ridge, 1e-15)  # poles that meet: the smallest ridge that works
    for u in range(r):
        right[u, 0] = 4.0 * (H[0, 0, slot[u]] * (unit[u] if mu[slot[u]].imag != 0.0 else 0.5)).real
    _forward(L, right)
    total[0], total[1] = data[SQUARED_NORM], 0.0
    for u in range(r):
        total[0] -= 0.5 * right[u, 0] ** 2
    _backward(L, right)
    for u in range(r):
        residues[slot[u]] += right[u, 0] * unit[u]
    if data[CODE] in (WEIGHTED_FREE, TWO_INPUTS_FREE):
        if data[CODE] == TWO_INPUTS_FREE:
            total[1] = data[PARAMETERS][data[PARAMETERS].size - 1]
        else:
            for i in range(data[LAM].size):
                total[1] += 2.0 * (data[OUTPUTS][0, i] * data[FEATURES][0, i]).real
        for j in range(s):
            total[1] -= (2.0 if mu[j].imag != 0.0 else 1.0) * (residues[j] * feature[0, j]).real
        total[1] /= data[PARAMETERS][0]
