"""Gramian factors of diagonal systems in twice the working precision, so that small Hankel singular values survive.

A number is an unevaluated sum ``high + low`` of two doubles (about 32 digits); complex numbers are four doubles. The
Gramian is formed elementwise and factored by a Cholesky decomposition with complete pivoting, both in this
arithmetic; only the factor is rounded. Algorithms for the arithmetic: Dekker (1971), Knuth, Hida, Li, Bailey (2001).
"""

from __future__ import annotations

import numpy as np

from lqo_mor.compiling import njit
from lqo_mor.matrix_equations.pairing_kernels import CONTINUOUS, CONTINUOUS_FINITE, DISCRETE, _product, _sum

_SERIES_RADIUS, _TERMS = 0.5, 28.0  # where the closed finite-horizon form loses a digit; 0.5^28 / 29! is below 1e-38


@njit(cache=True, error_model="numpy")
def _quick(a, b):
    """A sum with ``|a| ≥ |b|`` and its rounding error."""
    s = a + b
    return s, b - (s - a)


@njit(cache=True, error_model="numpy")
def _add(a, al, b, bl):
    s, e = _sum(a, b)
    t, f = _sum(al, bl)
    s, e = _quick(s, e + t)
    return _quick(s, e + f)


@njit(cache=True, error_model="numpy")
def _multiply(a, al, b, bl):
    p, e = _product(a, b)
    return _quick(p, e + (a * bl + al * b))


@njit(cache=True, error_model="numpy")
def _divide(a, al, b, bl):
    q = a / b
    p, pl = _multiply(q, 0.0, b, bl)
    r, rl = _add(a, al, -p, -pl)
    q2 = r / b
    p, pl = _multiply(q2, 0.0, b, bl)
    r, rl = _add(r, rl, -p, -pl)
    s, e = _quick(q, q2)
    return _add(s, e, r / b, 0.0)


@njit(cache=True, error_model="numpy")
def _c_add(x, y):
    a, al = _add(x[0], x[1], y[0], y[1])
    b, bl = _add(x[2], x[3], y[2], y[3])
    return a, al, b, bl


@njit(cache=True, error_model="numpy")
def _c_multiply(x, y):
    p, pl = _multiply(x[0], x[1], y[0], y[1])
    q, ql = _multiply(x[2], x[3], y[2], y[3])
    a, al = _add(p, pl, -q, -ql)
    p, pl = _multiply(x[0], x[1], y[2], y[3])
    q, ql = _multiply(x[2], x[3], y[0], y[1])
    b, bl = _add(p, pl, q, ql)
    return a, al, b, bl


@njit(cache=True, error_model="numpy")
def _c_scale(x, r):
    """Times a double."""
    a, al = _multiply(x[0], x[1], r, 0.0)
    b, bl = _multiply(x[2], x[3], r, 0.0)
    return a, al, b, bl


@njit(cache=True, error_model="numpy")
def _c_minus(x):
    return -x[0], -x[1], -x[2], -x[3]


@njit(cache=True, error_model="numpy")
def _c_divide(x, y):
    p, pl = _multiply(y[0], y[1], y[0], y[1])
    q, ql = _multiply(y[2], y[3], y[2], y[3])
    n, nl = _add(p, pl, q, ql)
    z = _c_multiply(x, (y[0], y[1], -y[2], -y[3]))
    a, al = _divide(z[0], z[1], n, nl)
    b, bl = _divide(z[2], z[3], n, nl)
    return a, al, b, bl


@njit(cache=True, error_model="numpy")
def _c_power(z, count):
    """``z^count`` for a positive integer, by squaring."""
    out = (1.0, 0.0, 0.0, 0.0)
    base = (z.real, 0.0, z.imag, 0.0)
    while count > 0:
        if count & 1:
            out = _c_multiply(out, base)
        base = _c_multiply(base, base)
        count >>= 1
    return out


@njit(cache=True, error_model="numpy")
def _c_exp(z, time):
    """``exp(z time)``: Taylor series of a halved argument, squared back."""
    x = _c_scale((z.real, 0.0, z.imag, 0.0), time)
    halvings, size = 0, abs(x[0]) + abs(x[2])
    while size > 0.25:
        size *= 0.5
        halvings += 1
    x = _c_scale(x, 0.5**halvings)
    term, total = x, _c_add((1.0, 0.0, 0.0, 0.0), x)
    for j in range(2, 30):
        term = _c_multiply(term, x)
        inverse, low = _divide(1.0, 0.0, float(j), 0.0)
        a, al = _multiply(term[0], term[1], inverse, low)
        b, bl = _multiply(term[2], term[3], inverse, low)
        term = (a, al, b, bl)
        total = _c_add(total, term)
    for _ in range(halvings):
        total = _c_multiply(total, total)
    return total


@njit(cache=True, error_model="numpy")
def _one_minus_product(lam, mu):
    """``1 − λμ`` of two doubles, to full relative accuracy also where it is small: products of doubles are exact here."""
    p, e = _product(-lam.real, mu.real)
    q, f = _product(lam.imag, mu.imag)
    s, t = _sum(1.0, p)
    s, u = _sum(s, q)
    rest, low = _add(*_sum(t, u), *_sum(e, f))
    re, re_low = _add(s, 0.0, rest, low)
    p, e = _product(-lam.real, mu.imag)
    q, f = _product(-lam.imag, mu.real)
    s, t = _sum(p, q)
    rest, low = _add(t, 0.0, *_sum(e, f))
    im, im_low = _add(s, 0.0, rest, low)
    return re, re_low, im, im_low


@njit(cache=True, error_model="numpy")
def _pair(code, parameters, lam, f_lam, mu, f_mu):
    """The pairing ``g(λ, μ)`` of `pairing_kernels._pairing`, from the poles and their features; theory, eq. (2.1)."""
    one = (1.0, 0.0, 0.0, 0.0)
    if code < CONTINUOUS:
        d = _one_minus_product(lam, mu)
        if code == DISCRETE:
            return _c_divide(one, d)
        L = parameters[0]
        if L * (abs(d[0]) + abs(d[2])) < _SERIES_RADIUS:
            term, total, j = (L, 0.0, 0.0, 0.0), (L, 0.0, 0.0, 0.0), 1.0
            while j < L and j < _TERMS:
                factor, low = _divide(L - j, 0.0, j + 1.0, 0.0)
                term = _c_multiply(_c_multiply(term, _c_minus(d)), (factor, low, 0.0, 0.0))
                total = _c_add(total, term)
                j += 1.0
            return total
        return _c_divide(_c_add(one, _c_minus(_c_multiply(f_lam, f_mu))), d)
    re, re_low = _sum(lam.real, mu.real)
    im, im_low = _sum(lam.imag, mu.imag)
    s = re, re_low, im, im_low
    if code != CONTINUOUS_FINITE:
        return _c_divide((-1.0, 0.0, 0.0, 0.0), s)
    T = parameters[0]
    z = _c_scale(s, T)
    if abs(z[0]) + abs(z[2]) < _SERIES_RADIUS:
        term, total, j = one, one, 1.0
        while j < _TERMS:
            factor, low = _divide(1.0, 0.0, j + 1.0, 0.0)
            term = _c_multiply(_c_multiply(term, z), (factor, low, 0.0, 0.0))
            total = _c_add(total, term)
            j += 1.0
        return _c_scale(total, T)
    return _c_divide(_c_add(_c_multiply(f_lam, f_mu), (-1.0, 0.0, 0.0, 0.0)), s)


@njit(cache=True, error_model="numpy")
def _products(B, i, j, conjugate):
    """``b_i · b_j`` or ``b_i · conj(b_j)``."""
    total = (0.0, 0.0, 0.0, 0.0)
    sign = -1.0 if conjugate else 1.0
    for k in range(B.shape[1]):
        x, y = B[i, k], B[j, k]
        total = _c_add(total, _c_multiply((x.real, 0.0, x.imag, 0.0), (y.real, 0.0, sign * y.imag, 0.0)))
    return total


@njit(cache=True, error_model="numpy")
def _features(code, parameters, poles):
    """What a pairing over a finite horizon needs of every pole, ``λ^L`` or ``e^{λT}``, (s, 4)."""
    features = np.zeros((poles.size, 4))
    for i in range(poles.size):
        f = (0.0, 0.0, 0.0, 0.0)
        if code == CONTINUOUS_FINITE:
            f = _c_exp(poles[i], parameters[0])
        elif code < CONTINUOUS and code != DISCRETE:
            f = _c_power(poles[i], int(parameters[0]))
        for k in range(4):
            features[i, k] = f[k]
    return features


@njit(cache=True, error_model="numpy")
def _plain_and_hermitian(code, parameters, poles, features, B, i, j):
    """``(b_i · b_j) g(λ_i, λ_j)``, and the same with the conjugate of `j`."""
    f_i = (features[i, 0], features[i, 1], features[i, 2], features[i, 3])
    f_j = (features[j, 0], features[j, 1], features[j, 2], features[j, 3])
    t = _c_multiply(_products(B, i, j, False), _pair(code, parameters, poles[i], f_i, poles[j], f_j))
    h = _pair(code, parameters, poles[i], f_i, poles[j].conjugate(), (f_j[0], f_j[1], -f_j[2], -f_j[3]))
    return t, _c_multiply(_products(B, i, j, True), h)


@njit(cache=True, error_model="numpy")
def gramian(code, parameters, poles, B, real, high, low):
    """The Gramian in the real coordinates ``√2 Re x`` (real pole: ``x``), ``√2 Im x``, as two matrices; theory, eq. (1.6)."""
    s, features = poles.size, _features(code, parameters, poles)
    im = np.empty(s, np.int64)
    n = s
    for i in range(s):
        im[i] = n
        n += 0 if real[i] else 1
    for i in range(s):
        for j in range(i + 1):
            t, h = _plain_and_hermitian(code, parameters, poles, features, B, i, j)
            total, difference = _c_add(h, t), _c_add(h, _c_minus(t))
            _put(high, low, i, j, total[0], total[1])
            if real[i] or real[j]:  # scaled by 1/√2 once (an exact factor would do as well) or by 1/2
                scale = 0.5 if real[i] and real[j] else np.sqrt(0.5)
                rest = 0.0 if real[i] and real[j] else -4.833646656726457e-17  # √½ to 32 digits
                a, al = _multiply(total[0], total[1], scale, rest)
                _put(high, low, i, j, a, al)
                if not real[i]:
                    a, al = _multiply(total[2], total[3], scale, rest)
                    _put(high, low, im[i], j, a, al)
                if not real[j]:
                    a, al = _multiply(-difference[2], -difference[3], scale, rest)
                    _put(high, low, i, im[j], a, al)
            else:
                _put(high, low, im[i], j, total[2], total[3])
                _put(high, low, i, im[j], -difference[2], -difference[3])
                _put(high, low, im[i], im[j], difference[0], difference[1])


@njit(cache=True, error_model="numpy")
def _put(high, low, i, j, value, rest):
    high[i, j], low[i, j] = value, rest
    high[j, i], low[j, i] = value, rest


@njit(cache=True, error_model="numpy")
def row_covariance(code, parameters, poles, B, real, rows, high, low):
    """``Z P Zᵀ`` (q, q) of output rows `Z` (q, s) in half storage, as two matrices; theory, eq. (1.5)."""
    s, q, features = poles.size, rows.shape[0], _features(code, parameters, poles)
    states = np.zeros((s, q, 4))  # P Zᵀ
    for i in range(s):
        for j in range(i + 1):
            t, h = _plain_and_hermitian(code, parameters, poles, features, B, i, j)
            weight = 2.0 * (0.5 if real[i] else 1.0) * (0.5 if real[j] else 1.0)
            for b in range(q):
                _accumulate(states, i, b, t, h, weight * rows[b, j])
                if j < i:
                    _accumulate(states, j, b, t, (h[0], h[1], -h[2], -h[3]), weight * rows[b, i])
    high[:], low[:] = 0.0, 0.0
    for a in range(q):
        for i in range(s):
            re, im = rows[a, i].real, rows[a, i].imag
            for b in range(a + 1):
                x, xl = _multiply(states[i, b, 0], states[i, b, 1], re, 0.0)
                y, yl = _multiply(states[i, b, 2], states[i, b, 3], -im, 0.0)
                x, xl = _add(x, xl, y, yl)
                high[a, b], low[a, b] = _add(high[a, b], low[a, b], x, xl)
        for b in range(a):
            high[b, a], low[b, a] = high[a, b], low[a, b]


@njit(cache=True, error_model="numpy")
def _accumulate(states, i, b, t, h, z):
    """Add ``t z + h conj(z)`` to an entry of `states`."""
    term = _c_add(_c_multiply(t, (z.real, 0.0, z.imag, 0.0)), _c_multiply(h, (z.real, 0.0, -z.imag, 0.0)))
    total = _c_add((states[i, b, 0], states[i, b, 1], states[i, b, 2], states[i, b, 3]), term)
    for k in range(4):
        states[i, b, k] = total[k]


@njit(cache=True, error_model="numpy")
def squared_norm(high, low, W):
    """The squared norm of outputs from the covariance of their rows ``[C; U; V]``, as two doubles; theory, eq. (3.2), (3.3)."""
    p, c = W.shape
    total, rest = 0.0, 0.0
    for a in range(p):
        total, rest = _add(total, rest, high[a, a], low[a, a])
    for k in range(c):
        for m in range(c):
            weight, light = 0.0, 0.0
            for a in range(p):
                weight, light = _add(weight, light, *_product(W[a, k], 0.5 * W[a, m]))
            u, v, u_m, v_m = p + k, p + c + k, p + m, p + c + m
            x, xl = _multiply(high[u, u_m], low[u, u_m], high[v, v_m], low[v, v_m])
            y, yl = _multiply(high[u, v_m], low[u, v_m], high[v, u_m], low[v, u_m])
            x, xl = _add(x, xl, y, yl)
            x, xl = _multiply(x, xl, weight, light)
            total, rest = _add(total, rest, x, xl)
    return total, rest


@njit(cache=True, error_model="numpy")
def with_feedthrough(total, rest, B, C, D, real, early):
    """The squared norm plus ``‖D‖²``, and ``2 ⟨D, C B⟩`` where the output reads the updated state; theory, eq. (1.3)."""
    for a in range(D.shape[0]):
        for k in range(D.shape[1]):
            total, rest = _add(total, rest, *_product(D[a, k], D[a, k]))
            if early:
                for i in range(real.size):
                    weight = (2.0 if real[i] else 4.0) * D[a, k]
                    x, xl = _add(*_product(C[a, i].real, B[i, k].real), *_product(-C[a, i].imag, B[i, k].imag))
                    total, rest = _add(total, rest, *_multiply(x, xl, weight, 0.0))
    return total, rest


@njit(cache=True, error_model="numpy")
def cholesky(high, low, tolerance, pivots):
    """Cholesky decomposition with complete pivoting, its factor in place of the lower part; the rank; theory, eq. (4.8).

    Pivots below `tolerance` times the first one end the decomposition.
    """
    n = high.shape[0]
    for i in range(n):
        pivots[i] = i
    first = 0.0
    for k in range(n):
        best = k
        for i in range(k + 1, n):
            if high[i, i] > high[best, best]:
                best = i
        if k == 0:
            first = high[best, best]
        if not high[best, best] > tolerance * first:
            return k
        if best != k:
            pivots[k], pivots[best] = pivots[best], pivots[k]
            for j in range(n):
                high[k, j], high[best, j] = high[best, j], high[k, j]
                low[k, j], low[best, j] = low[best, j], low[k, j]
            for j in range(n):
                high[j, k], high[j, best] = high[j, best], high[j, k]
                low[j, k], low[j, best] = low[j, best], low[j, k]
        # the root of the pivot: one Newton step from that of its leading part
        root = np.sqrt(high[k, k])
        p, pl = _multiply(root, 0.0, root, 0.0)
        r = _add(high[k, k], low[k, k], -p, -pl)[0]
        d, dl = _quick(root, r / (2.0 * root))
        high[k, k], low[k, k] = d, dl
        for i in range(k + 1, n):
            high[i, k], low[i, k] = _divide(high[i, k], low[i, k], d, dl)
        _update(high, low, k)
    return n


@njit(cache=True, error_model="numpy")
def _update(high, low, k):
    """Subtract the outer product of column `k` from the lower part behind it; theory, eq. (4.8)."""
    n = high.shape[0]
    for i in range(k + 1, n):
        a, al = -high[i, k], -low[i, k]
        for j in range(k + 1, i + 1):
            p, pl = _multiply(a, al, high[j, k], low[j, k])
            high[i, j], low[i, j] = _add(high[i, j], low[i, j], p, pl)
            high[j, i], low[j, i] = high[i, j], low[i, j]
