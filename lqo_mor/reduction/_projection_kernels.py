"""The squared h² error with optimal linear outputs by normal equations, over any horizon, with exact second derivatives.

A slot is ``2 Re(c μ^k)`` (half of that at a real pole). Everything is analytic in ``c`` and in the logarithm ``z`` of the pole
(continuous time: in the pole itself), and in ``z`` all derivatives of a pairing are derivatives of one function of
``z_i + z_j``. The residues are eliminated: the Hessian by the poles is the Schur complement of the one by both. A ridge
multiplies the pairing of every pole with its own conjugate.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from lqo_mor.matrix_equations._kernels import CONTINUOUS, CONTINUOUS_FINITE, DISCRETE_FINITE, _one_minus_product
from lqo_mor.reduction._sections import FREE, N_CONSTANTS, PAIR, REAL, _constants, _poles, _size

_SERIES_RADIUS = 0.5  # times the horizon: closer to a removable singularity the closed forms lose digits
_SMALLEST = 1e-12  # modulus of a real pole in discrete time, whose logarithm is needed
_PARTED = 1e-4  # distance of the two poles of a section, in units of the decay, that residues can tell


@njit(cache=True, error_model="numpy")
def _series(first, L, t):
    """``Σ a_j t^j`` and two derivatives; ``a_0 = first``, ``a_{j+1}/a_j = (L − j − 1)/(j + 2)``, or ``1/(j + 2)`` for L = 0."""
    g, slope, bend, a, j = 0.0j, 0.0j, 0.0j, first, 0.0
    power, lower, lowest = 1.0 + 0.0j, 0.0j, 0.0j
    while a != 0.0 and j < 60.0:
        g += a * power
        slope += j * a * lower
        bend += j * (j - 1.0) * a * lowest
        lowest, lower, power = lower, power, power * t
        a *= (1.0 if L == 0.0 else L - j - 1.0) / (j + 2.0)
        j += 1.0
    return g, slope, bend


@njit(cache=True, error_model="numpy")
def _pairing_derivatives(code, parameters, lam, mu, feature):
    """``g(λ, μ)`` and its first and second derivative by `z`; `feature` is the product of the features of both poles."""
    if code < CONTINUOUS:
        d = _one_minus_product(lam, mu)
        L = parameters[0] if code == DISCRETE_FINITE else 0.0
        w = 1.0 - d
        if L * (abs(d.real) + abs(d.imag)) < _SERIES_RADIUS and code == DISCRETE_FINITE:
            g, slope, bend = _series(L, L, -d)
            return g, w * slope, w * slope + w * w * bend
        inverse = d.conjugate() / (d.real * d.real + d.imag * d.imag)
        g = (1.0 - feature) * inverse
        first = (w * g - L * feature) * inverse
        return g, first, (2.0 * w * first + w * g - L * L * feature) * inverse
    s = lam + mu
    T = parameters[0] if code == CONTINUOUS_FINITE else 0.0
    if T * (abs(s.real) + abs(s.imag)) < _SERIES_RADIUS and code == CONTINUOUS_FINITE:
        g, slope, bend = _series(1.0, 0.0, s * T)
        return T * g, T * T * slope, T * T * T * bend
    inverse = s.conjugate() / (s.real * s.real + s.imag * s.imag)
    g = (feature - 1.0) * inverse
    first = (T * feature - g) * inverse
    return g, first, (T * T * feature - 2.0 * first) * inverse


@njit(cache=True, error_model="numpy")
def _root_jet(continuous, mu, a1, first, second, out):
    """Derivatives of ``log μ`` (continuous time: of ``μ``) for a root of ``μ² − a₁ μ + a₂``, by two parameters.

    `first` and `second` hold the derivatives of the coefficients: by each parameter, then second ones, (5,). `out` (5,) too.
    """
    inverse = 1.0 / (2.0 * mu - a1)
    for k in range(2):
        out[k] = (mu * first[k] - second[k]) * inverse
    for k in range(3):
        i, j = k // 2, (k + 1) // 2
        cross = out[i] * first[j] + out[j] * first[i] - 2.0 * out[i] * out[j]
        out[2 + k] = (cross + mu * first[2 + k] - second[2 + k]) * inverse
    if not continuous:
        inverse = 1.0 / mu
        for k in range(3):
            out[2 + k] = (out[2 + k] - out[k // 2] * out[(k + 1) // 2] * inverse) * inverse
        out[0] *= inverse
        out[1] *= inverse


@njit(cache=True, error_model="numpy")
def _coefficients(continuous, c, first, second):
    """Derivatives of both coefficients of a free section by its parameters, as `_root_jet` takes them."""
    first[:] = 0.0
    second[:] = 0.0
    if continuous:
        first[0] = first[2] = -c[0]
        second[1] = second[4] = c[1]
        return
    k1, k2, slope1, slope2 = c[6], c[7], c[4], c[5]
    first[0], first[1] = slope1 * (1.0 + k2), k1 * slope2
    first[2], first[3], first[4] = -2.0 * k1 * slope1 * (1.0 + k2), slope1 * slope2, -2.0 * k1 * k2 * slope2
    second[1], second[4] = slope2, -2.0 * k2 * slope2


@njit(cache=True, error_model="numpy")
def _parted(continuous, c):
    """The constants of a free section, its poles moved apart where they meet: residues need two of them."""
    if continuous:
        least, q = (_PARTED * c[0]) ** 2, 0.25 * c[0] ** 2 - c[1]
        if abs(q) < least:
            c[1] = 0.25 * c[0] ** 2 - (least if q >= 0 else -least)
    else:
        least = (_PARTED * c[2]) ** 2
        if abs(c[3]) < least:
            c[3] = least if c[3] >= 0 else -least


@njit(cache=True, error_model="numpy")
def _slots(code, kinds, x, least, mu, slot, unit, slopes, bends):
    """Slots of all sections, their number, and per real coordinate of the residues and poles its slot and derivatives.

    A pair has the coordinates ``Re c, Im c`` and ``Re z, Im z`` along `unit` 1 and i; a real pole ``c`` and ``z``. `slopes`
    (r, 2) and `bends` (r, 3) are the derivatives of the coordinates of ``z`` by the parameters of their section.
    """
    continuous, constants = code >= CONTINUOUS, np.empty(N_CONSTANTS)
    first, second, jet, other = np.empty(5), np.empty(5), np.zeros(5, np.complex128), np.zeros(5, np.complex128)
    k, count = 0, 0
    for kind in kinds:
        _constants(continuous, kind, x[k], x[k + 1] if kind != REAL else 0.0, least, constants)
        if kind == FREE:
            _parted(continuous, constants)
        one, two = _poles(continuous, kind, constants)
        if kind == FREE:
            if not continuous:  # the logarithm of a pole is needed
                one = one if abs(one) > _SMALLEST else complex(_SMALLEST, 0.0)
                two = two if abs(two) > _SMALLEST else complex(_SMALLEST, 0.0)
            _coefficients(continuous, constants, first, second)
            _root_jet(continuous, one, (one + two).real, first, second, jet)
            _root_jet(continuous, two, (one + two).real, first, second, other)
        elif kind == PAIR:
            jet[:] = 0.0
            jet[0] = jet[2] = -constants[2]
            jet[1] = 1.0j
        elif continuous:
            jet[:] = 0.0
            jet[0] = jet[2] = one
        else:
            one = complex(np.copysign(max(abs(one.real), _SMALLEST), one.real), 0.0)
            jet[:] = 0.0
            m = one.real
            jet[0], jet[2] = constants[2] / m, -constants[2] * (1.0 / (m * m) + 1.0)
        mu[count], slot[k], unit[k] = one, count, 1.0
        slopes[k, 0], slopes[k, 1] = jet[0].real, jet[1].real
        for d in range(3):
            bends[k, d] = jet[2 + d].real
        if kind == PAIR or (kind == FREE and one.imag != 0.0):
            slot[k + 1], unit[k + 1] = count, 1.0j
            slopes[k + 1, 0], slopes[k + 1, 1] = jet[0].imag, jet[1].imag
            for d in range(3):
                bends[k + 1, d] = jet[2 + d].imag
        elif kind == FREE:
            count += 1
            mu[count], slot[k + 1], unit[k + 1] = two, count, 1.0
            slopes[k + 1, 0], slopes[k + 1, 1] = other[0].real, other[1].real
            for d in range(3):
                bends[k + 1, d] = other[2 + d].real
        count += 1
        k += _size(kind)
    return count


@njit(cache=True, error_model="numpy")
def _own_features(code, parameters, poles, out):
    """Features of the slots, see `matrix_equations._kernels`."""
    for j in range(poles.size):
        if code == DISCRETE_FINITE:
            out[j] = poles[j] ** parameters[0]
        elif code == CONTINUOUS_FINITE:
            out[j] = np.exp(poles[j] * parameters[0])
        else:
            out[j] = 0.0


@njit(cache=True, error_model="numpy")
def _own_pairings(code, parameters, mu, feature, ridge, plain, hermitian):
    """Pairings of the slots with each other and with their conjugates, (3, s, s): values and two derivatives."""
    for i in range(mu.size):
        for j in range(i + 1):
            p = _pairing_derivatives(code, parameters, mu[i], mu[j], feature[i] * feature[j])
            h = _pairing_derivatives(code, parameters, mu[i], mu[j].conjugate(), feature[i] * feature[j].conjugate())
            for d in range(3):
                plain[d, i, j] = plain[d, j, i] = p[d]
                hermitian[d, i, j], hermitian[d, j, i] = h[d], h[d].conjugate()
        factor = 1.0 + (ridge if mu[i].imag != 0.0 else 2.0 * ridge)
        for d in range(3):
            hermitian[d, i, i] *= factor


@njit(cache=True, error_model="numpy")
def _value(code, parameters, lam, mu, feature):
    """``g(λ, μ)`` alone, away from the removable singularities; there `_pairing_derivatives`."""
    if code < CONTINUOUS:
        d = 1.0 - lam * mu
        near = abs(d.real) + abs(d.imag) < (_SERIES_RADIUS / parameters[0] if code == DISCRETE_FINITE else 1e-3)
        if near:
            return _pairing_derivatives(code, parameters, lam, mu, feature)[0]
        return (1.0 - feature) * d.conjugate() / (d.real * d.real + d.imag * d.imag)
    s = lam + mu
    if code == CONTINUOUS_FINITE and parameters[0] * (abs(s.real) + abs(s.imag)) < _SERIES_RADIUS:
        return _pairing_derivatives(code, parameters, lam, mu, feature)[0]
    return (feature - 1.0) * s.conjugate() / (s.real * s.real + s.imag * s.imag)


@njit(cache=True, error_model="numpy")
def _transfer(code, parameters, lam, f_lam, outputs, mu, feature, H):
    """Transfer function of the full system at the slots, (q, s)."""
    H[:] = 0.0
    for j in range(mu.size):
        for i in range(lam.size):
            g = _value(code, parameters, lam[i], mu[j], f_lam[i] * feature[j])
            h = _value(code, parameters, lam[i].conjugate(), mu[j], f_lam[i].conjugate() * feature[j])
            for a in range(outputs.shape[0]):
                H[a, j] += outputs[a, i] * g + outputs[a, i].conjugate() * h


@njit(cache=True, error_model="numpy")
def _observed(code, parameters, lam, f_lam, outputs, mu, feature, H):
    """Transfer function of the full system and its first two derivatives at the slots, (3, q, s)."""
    H[:] = 0.0
    for j in range(mu.size):
        for i in range(lam.size):
            g = _pairing_derivatives(code, parameters, lam[i], mu[j], f_lam[i] * feature[j])
            h = _pairing_derivatives(code, parameters, lam[i].conjugate(), mu[j], f_lam[i].conjugate() * feature[j])
            for a in range(outputs.shape[0]):
                z = outputs[a, i]
                for d in range(3):
                    H[d, a, j] += z * g[d] + z.conjugate() * h[d]


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


@njit(cache=True, error_model="numpy")
def _residue_hessian(slot, unit, mu, plain, hermitian, G):
    """Second derivatives of the squared error by the real coordinates of the residues, twice a Gramian."""
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
    weights.
    """
    r, q = x.size, outputs.shape[0]
    mu, slot, unit = np.empty(r, np.complex128), np.empty(r, np.int64), np.empty(r, np.complex128)
    slopes, bends = np.zeros((r, 2)), np.zeros((r, 3))
    s = _slots(code, kinds, x, least, mu, slot, unit, slopes, bends)
    mu = mu[:s]
    feature = np.empty(s, np.complex128)
    _own_features(code, parameters, mu, feature)
    P, M = np.empty((3, s, s), np.complex128), np.empty((3, s, s), np.complex128)
    _own_pairings(code, parameters, mu, feature, ridge, P, M)
    H = np.empty((3, q, s), np.complex128)
    _observed(code, parameters, lam, f_lam, outputs, mu, feature, H)
    G, L = np.empty((r, r)), np.zeros((r, r))
    _residue_hessian(slot, unit, mu, P[0], M[0], G)
    if not _cholesky(G, L):
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
                first += 2.0 * (c[i] * P[1, i, j] + c[i].conjugate() * M[1, j, i])
                second += 2.0 * (c[i] * P[2, i, j] + c[i].conjugate() * M[2, j, i])
            v1[j], v2[j] = first, second
        for v in range(r):
            j = slot[v]
            step = c[j] * unit[v]
            slope[v] += 2.0 * (step * v1[j]).real
            for u in range(r):
                i = slot[u]
                own = v1[j] * unit[v] if i == j else 0.0j
                mixed[u, v] = 2.0 * (dc[u] * (own + 2.0 * (step * P[1, i, j] + step.conjugate() * M[1, i, j]))).real
                own = step * v2[j] * unit[u] if i == j else 0.0j
                back = 2.0 * c[i] * unit[u]
                bend[u, v] += 2.0 * (own + back * (step * P[2, i, j] + step.conjugate() * M[2, i, j])).real
        _forward(L, mixed)
        for u in range(r):
            for v in range(r):
                total = 0.0
                for k in range(r):
                    total += mixed[k, u] * mixed[k, v]
                bend[u, v] -= total
    _by_parameters(kinds, slopes, bends, slope, bend, gradient, hessian)
    return value


@njit(cache=True, error_model="numpy")
def _by_parameters(kinds, slopes, bends, slope, bend, gradient, hessian):
    """Chain rule from the coordinates of the poles to the parameters of their sections, section by section."""
    k = 0
    for kind in kinds:
        size, m = _size(kind), 0
        for i in range(size):
            gradient[k + i] = 0.0
            for u in range(k, k + size):
                gradient[k + i] += slope[u] * slopes[u, i]
        for kind_other in kinds:
            size_other = _size(kind_other)
            for i in range(size):
                for j in range(size_other):
                    total = 0.0
                    for u in range(k, k + size):
                        for v in range(m, m + size_other):
                            total += slopes[u, i] * bend[u, v] * slopes[v, j]
                    if k == m:
                        for u in range(k, k + size):
                            total += slope[u] * bends[u, i + j]
                    hessian[k + i, m + j] = total
            m += size_other
        k += size
