"""Where the search for sections begins: balanced truncation in double precision, and candidates for single sections.

Poles become parameters of sections, and parameters poles, by theory, eq. (6.3) and (6.4).
"""

from __future__ import annotations

import numpy as np

from lqo_mor.compiling import njit
from lqo_mor.matrix_equations.pairing_jets import _pairing_rows
from lqo_mor.matrix_equations.pairing_kernels import CONTINUOUS
from lqo_mor.reduction.sections.allpass_error import _gramian
from lqo_mor.reduction.sections.sections import FREE, N_CONSTANTS, PAIR, REAL, _constants, _parameters_of, _poles, _size

N_DECAYS, N_ANGLES = 6, 8
_OVERSAMPLED = 4
_NEAR = 0.1  # distance of real poles, in units of their decay, at which they may want to be a pair
_DECOUPLED = 1e-10  # pivots of a Gramian, relative to the largest, that a start can do without


@njit(cache=True, error_model="numpy")
def _pole_at(continuous, decay, angle):
    """The pole with a decay and an angle per sample (per second)."""
    return complex(-decay, angle) if continuous else np.exp(complex(-decay, angle))


@njit(cache=True, error_model="numpy", nogil=True)
def _candidates(continuous, kind, lam, least, limit, sections, reals):
    """Parameters of single sections: the modes of the full system, then a grid over their decays and angles.

    `sections` (n + N_DECAYS (N_ANGLES + 2), 2); free ones contain two real poles too. `reals` (N_DECAYS, 2).
    """
    slowest, fastest, lowest, highest = np.inf, 0.0, np.inf, 0.0
    for i in range(lam.size):
        decay = -lam[i].real if continuous else -np.log(min(max(abs(lam[i]), 1e-8), 1.0 - 2e-16))
        angle = abs(lam[i].imag if continuous else np.arctan2(lam[i].imag, lam[i].real))
        decay = max(decay, 1e-9 * np.hypot(decay, angle))
        slowest, fastest = min(slowest, decay), max(fastest, decay)
        if angle > 0.0:
            lowest, highest = min(lowest, angle), max(highest, angle)
        z = _pole_at(continuous, max(decay, 2.0 * least), angle)
        sections[i, 0], sections[i, 1] = _parameters_of(continuous, kind, z, z.conjugate(), least, limit)
    if highest == 0.0:
        lowest = highest = slowest
    slowest, fastest, lowest, highest = 0.5 * slowest, 2.0 * fastest, 0.5 * lowest, 2.0 * highest
    if not continuous:
        highest = min(highest, 3.1)
    k = lam.size
    for i in range(N_DECAYS):
        decay = max(slowest * (fastest / slowest) ** (i / (N_DECAYS - 1.0)), 2.0 * least)
        for j in range(N_ANGLES):
            z = _pole_at(continuous, decay, lowest * (highest / lowest) ** (j / (N_ANGLES - 1.0)))
            sections[k, 0], sections[k, 1] = _parameters_of(continuous, kind, z, z.conjugate(), least, limit)
            k += 1
        for factor in (1.0, 3.0):
            if kind == FREE:
                a, b = _pole_at(continuous, decay, 0.0), _pole_at(continuous, factor * decay, 0.0)
            else:
                a = b = _pole_at(continuous, decay, 0.1 * factor * min(lowest, decay))
            sections[k, 0], sections[k, 1] = _parameters_of(continuous, kind, a, b, least, limit)
            k += 1
        reals[i, 0], reals[i, 1] = _parameters_of(continuous, REAL, _pole_at(continuous, decay, 0.0), 0.0j, least, limit)


@njit(cache=True, error_model="numpy")
def _pivoted_factor(P):
    """``R`` (n, rank) with ``P ≈ R Rᵀ``, by Cholesky with complete pivoting; overwrites `P`; theory, eq. (4.8)."""
    n = P.shape[0]
    columns = np.zeros((n, n))
    rank, first = 0, 0.0
    for k in range(n):
        p, largest = 0, 0.0
        for i in range(n):
            if P[i, i] > largest:
                p, largest = i, P[i, i]
        first = max(first, largest)
        if not largest > _DECOUPLED * first:
            break
        root = np.sqrt(largest)
        for i in range(n):
            columns[k, i] = P[p, i] / root
        for i in range(n):
            factor = columns[k, i]
            if factor != 0.0:
                for j in range(n):
                    P[i, j] -= factor * columns[k, j]
        P[p, p] = 0.0
        rank += 1
    return np.ascontiguousarray(columns[:rank].T)


@njit(cache=True, error_model="numpy")
def _leading_values(product, count):
    """About `count` leading singular values and vectors, by a subspace step from the columns of the largest pivots."""
    if product.shape[1] <= count or product.shape[0] <= count:
        return np.linalg.svd(product, full_matrices=False)
    transposed = np.ascontiguousarray(product.T)
    basis = np.linalg.qr(np.ascontiguousarray(product[:, :count]))[0]
    basis = np.linalg.qr(product @ (transposed @ np.ascontiguousarray(basis)))[0]
    basis = np.ascontiguousarray(basis)
    Z, values, Y = np.linalg.svd(np.ascontiguousarray(basis.T) @ product, full_matrices=False)
    return basis @ np.ascontiguousarray(Z), values, Y


@njit(cache=True, error_model="numpy")
def _state_rows(real, lam, R, out):
    """``A R`` in the real coordinates of `systems.convert`."""
    im = real.size
    for i in range(real.size):
        for j in range(R.shape[1]):
            out[i, j] = lam[i].real * R[i, j]
            if not real[i]:
                out[i, j] -= lam[i].imag * R[im, j]
                out[im, j] = lam[i].imag * R[i, j] + lam[i].real * R[im, j]
        if not real[i]:
            im += 1


@njit(cache=True, error_model="numpy")
def _pairing_matrices(code, parameters, lam, f_lam, plain, hermitian):
    """Pairings of the full poles with each other and with their conjugates."""
    rows = np.empty((6, lam.size))
    for j in range(lam.size):
        _pairing_rows(code, parameters, lam, f_lam, lam[j], f_lam[:, j], rows)
        for i in range(lam.size):
            plain[j, i] = complex(rows[0, i], rows[1, i])
        _pairing_rows(code, parameters, lam, f_lam, lam[j].conjugate(), f_lam[:, j].conj(), rows)
        for i in range(lam.size):
            hermitian[j, i] = complex(rows[0, i], -rows[1, i])


@njit(cache=True, error_model="numpy", nogil=True)
def _balanced_poles(code, parameters, lam, f_lam, b, outputs, real, order):
    """Poles of the (time-limited) balanced truncation to at most `order` states, stable ones as they are, others reflected.

    `outputs` (q, n) are the output rows times input entries and pair weights. Theory, eq. (7.7), (7.8).
    """
    n, states = lam.size, 0
    for flag in real:
        states += 1 if flag else 2
    plain, hermitian = np.empty((n, n), np.complex128), np.empty((n, n), np.complex128)
    _pairing_matrices(code, parameters, lam, f_lam, plain, hermitian)
    one, P, Q, sum_Q = (
        np.ones(n, np.complex128),
        np.empty((states, states)),
        np.empty((states, states)),
        np.zeros((states, states)),
    )
    _gramian(real, plain, hermitian, one, P)  # inputs 1, outputs with the input entries: the same transfer
    # A row acts on the real coordinates like a state with the conjugate entries.
    plain, hermitian = plain.conj(), hermitian.conj()
    for a in range(outputs.shape[0]):
        row = np.empty(n, np.complex128)
        for i in range(n):
            row[i] = outputs[a, i].conjugate() * (2.0 if real[i] else 1.0)  # without the weight of the pairs
        _gramian(real, plain, hermitian, row, Q)
        sum_Q += Q
    R, S = _pivoted_factor(P), _pivoted_factor(sum_Q)
    Z, hsv, Y = _leading_values(np.ascontiguousarray(S.T) @ R, order + _OVERSAMPLED)
    size = 0
    while size < min(order, hsv.size) and hsv[size] > 1e-12 * hsv[0]:
        size += 1
    if size == 0:
        return np.zeros(0, np.complex128)
    moved = np.empty_like(R)
    _state_rows(real, lam, R, moved)
    root = np.sqrt(hsv[:size])
    left = np.ascontiguousarray((S @ np.ascontiguousarray(Z[:, :size]) / root).T)
    reduced = left @ (moved @ np.ascontiguousarray(Y[:size].T / root))
    poles = np.linalg.eigvals(reduced.astype(np.complex128))
    for i in range(size):
        if abs(poles[i].imag) <= 1e-12 * abs(poles[i]):
            poles[i] = poles[i].real
        if code >= CONTINUOUS:
            poles[i] = complex(-abs(poles[i].real), poles[i].imag)
        elif abs(poles[i]) >= 1.0:
            poles[i] = 1.0 / poles[i].conjugate()
    return poles


@njit(cache=True, error_model="numpy", nogil=True)
def _sections_of(continuous, poles, kinds, least, limit, x):
    """Fill kinds and parameters from poles closed under conjugation; the number of sections that these fill.

    `kinds` comes with the layout of the budget, all free (and one real pole at an odd order) or all pairs; of slots a real
    pole takes one. Pairs come first, then neighbouring real poles two by two.
    """
    slots = kinds[0] == PAIR
    lone = (not slots) and kinds[-1] == REAL
    p, k = 0, 0
    real_parts, count = np.empty(poles.size), 0
    for z in poles:  # sorted by insertion
        if z.imag == 0.0:
            i = count
            while i > 0 and real_parts[i - 1] > z.real:
                real_parts[i] = real_parts[i - 1]
                i -= 1
            real_parts[i] = z.real
            count += 1
    for z in poles:
        if z.imag > 0.0 and p < kinds.size - (1 if lone else 0):
            x[k], x[k + 1] = _parameters_of(continuous, PAIR if slots else FREE, z, z.conjugate(), least, limit)
            p, k = p + 1, k + 2
    if slots:
        for i in range(count - 1, -1, -1):
            if p < kinds.size:
                kinds[p] = REAL
                x[k] = _parameters_of(continuous, REAL, complex(real_parts[i], 0.0), 0.0j, least, limit)[0]
                p, k = p + 1, k + 1
        return p
    i = count - 1  # slow ones first: what does not fit is fast
    while i >= 1 and p < kinds.size - (1 if lone else 0):
        a, b = complex(real_parts[i], 0.0), complex(real_parts[i - 1], 0.0)
        x[k], x[k + 1] = _parameters_of(continuous, FREE, a, b, least, limit)
        i, p, k = i - 2, p + 1, k + 2
    if lone and i >= 0 and p == kinds.size - 1:
        x[k] = _parameters_of(continuous, REAL, complex(real_parts[i], 0.0), 0.0j, least, limit)[0]
        p += 1
    return p


@njit(cache=True, error_model="numpy", nogil=True)
def _regrouped(continuous, kinds, x, least, limit, out):
    """Fill `out` with the same poles, the two nearest real ones of different sections in one; False if none are near."""
    constants, values, owner = np.empty(N_CONSTANTS), np.empty(x.size), np.empty(x.size, np.int64)
    count, k = 0, 0
    for p in range(kinds.size):
        _constants(continuous, kinds[p], x[k], x[k + 1] if kinds[p] != REAL else 0.0, least, constants)
        first, second = _poles(continuous, kinds[p], constants)
        if first.imag == 0.0 and kinds[p] != PAIR:
            values[count], owner[count] = first.real, p
            count += 1
            if kinds[p] == FREE:
                values[count], owner[count] = second.real, p
                count += 1
        k += _size(kinds[p])
    if not np.any(kinds == FREE):
        return False
    order = np.argsort(values[:count])
    nearest, at = _NEAR, -1
    for i in range(count - 1):
        low, high = values[order[i]], values[order[i + 1]]
        decay = min(abs(low), abs(high)) if continuous else 1.0 - max(abs(low), abs(high))
        if owner[order[i]] != owner[order[i + 1]] and high - low < nearest * decay:
            nearest, at = (high - low) / decay, i
    if at < 0:
        return False
    rest, m = np.empty(count, np.float64), 2  # two by two: the nearest ones, then the others in their order
    rest[0], rest[1] = values[order[at]], values[order[at + 1]]
    for i in range(count):
        if i != at and i != at + 1:
            rest[m] = values[order[i]]
            m += 1
    k, m = 0, 0
    out[:] = x
    for p in range(kinds.size):
        if kinds[p] == REAL:
            out[k] = _parameters_of(continuous, REAL, complex(rest[count - 1], 0.0), 0.0j, least, limit)[0]
        elif kinds[p] == FREE and np.any(owner[:count] == p):
            a, b = complex(rest[m], 0.0), complex(rest[m + 1], 0.0)
            out[k], out[k + 1] = _parameters_of(continuous, FREE, a, b, least, limit)
            m += 2
        k += _size(kinds[p])
    return True


@njit(cache=True, error_model="numpy")
def _all_poles(continuous, kinds, x, least, poles, counts):
    """Poles of the sections of every channel in half storage, and their number."""
    constants = np.empty(N_CONSTANTS)
    for h in range(kinds.shape[0]):
        k, count = 0, 0
        for kind in kinds[h]:
            _constants(continuous, kind, x[h, k], x[h, k + 1] if kind != REAL else 0.0, least, constants)
            first, second = _poles(continuous, kind, constants)
            poles[h, count] = first if first.imag >= 0.0 else first.conjugate()
            count += 1
            if kind == FREE and first.imag == 0.0:
                poles[h, count] = second
                count += 1
            k += _size(kind)
        counts[h] = count
