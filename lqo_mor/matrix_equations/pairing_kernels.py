"""Numba kernels of the pairing ``g(λ, μ)`` of two poles, each with a readable NumPy twin.

A pairing is known to the kernels by a code and a vector of real parameters. Each pole brings one *feature*,
computed once per pole, so that a pairing of two poles costs a few operations only:

=================  ===============  ===========  ====================================
code               parameters       feature      g(λ, μ)
=================  ===============  ===========  ====================================
DISCRETE           none             none         1 / (1 − λμ)
DISCRETE_FINITE    samples L        λ^L          (1 − λ^L μ^L) / (1 − λμ)
CONTINUOUS         none             none         −1 / (λ + μ)
CONTINUOUS_FINITE  duration T       e^{λT}       (e^{λT} e^{μT} − 1) / (λ + μ)
=================  ===============  ===========  ====================================

The pairing itself is `_pairing`; the vector loops over many poles leave the entries next to a singularity to it.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from lqo_mor.compiling import njit

DISCRETE, DISCRETE_FINITE, CONTINUOUS, CONTINUOUS_FINITE = range(4)

_SERIES_RADIUS = 0.5  # below it the closed finite-horizon form has lost a digit and the series converges fast
_SPLITTER = 134217729.0  # 2^27 + 1, Dekker's constant for splitting a double in two halves
_CLOSE = 0.05  # |1 − λμ| below which the product needs more than one rounding


@njit(cache=True, error_model="numpy")
def _product(a, b):
    """The product of two doubles and its rounding error (Dekker); theory, eq. (2.5)."""
    p = a * b
    c = _SPLITTER * a
    a_high = c - (c - a)
    a_low = a - a_high
    c = _SPLITTER * b
    b_high = c - (c - b)
    b_low = b - b_high
    return p, ((a_high * b_high - p) + a_high * b_low + a_low * b_high) + a_low * b_low


@njit(cache=True, error_model="numpy")
def _sum(a, b):
    """The sum of two doubles and its rounding error (Knuth); theory, eq. (2.5)."""
    s = a + b
    z = s - a
    return s, (a - (s - z)) + (b - z)


@njit(cache=True, error_model="numpy")
def _one_minus_product(lam, mu):
    """``1 − λμ`` to full relative accuracy, also where λμ is close to 1; theory, eq. (2.5)."""
    d = 1.0 - lam * mu
    if abs(d.real) + abs(d.imag) > _CLOSE:
        return d
    p1, e1 = _product(-lam.real, mu.real)
    p2, e2 = _product(lam.imag, mu.imag)
    s1, t1 = _sum(1.0, p1)
    s2, t2 = _sum(s1, p2)
    q1, f1 = _product(-lam.real, mu.imag)
    q2, f2 = _product(-lam.imag, mu.real)
    r1, v1 = _sum(q1, q2)
    return complex(s2 + (t1 + t2 + e1 + e2), r1 + (v1 + f1 + f2))


@njit(cache=True, error_model="numpy")
def _features(code, parameters, poles, out, derivative):
    """Feature of every pole and its derivative with respect to the pole; theory, eq. (2.1)."""
    for i in range(poles.size):
        z = poles[i]
        if code == DISCRETE_FINITE:
            L = parameters[0]
            power = 1.0 + 0.0j if L == 1.0 else (0.0j if z == 0 else z ** (L - 1.0))
            out[i] = power * z
            derivative[i] = L * power
        elif code == CONTINUOUS_FINITE:
            out[i] = np.exp(z * parameters[0])
            derivative[i] = parameters[0] * out[i]
        else:
            out[i] = 0.0
            derivative[i] = 0.0


@njit(cache=True, error_model="numpy")
def _series(first, L, t):
    """``Σ a_j t^j`` and two derivatives; ``a_0 = first``, ``a_{j+1}/a_j = (L − j − 1)/(j + 2)``, or ``1/(j + 2)`` for L = 0.

    Theory, eq. (2.6), (2.7).
    """
    g, slope, bend, a, j = 0.0j, 0.0j, 0.0j, first, 0.0
    power, lower, lowest = 1.0 + 0.0j, 0.0j, 0.0j
    while a != 0.0 and j < 60.0:
        last = j * (j - 1.0) * a * lowest  # of the three terms the one that is the last to vanish against its sum
        g += a * power
        slope += j * a * lower
        bend += last
        if j > 2.0 and abs(last.real) + abs(last.imag) < 1e-18 * (abs(bend.real) + abs(bend.imag)):
            break
        lowest, lower, power = lower, power, power * t
        a *= (1.0 if L == 0.0 else L - j - 1.0) / (j + 2.0)
        j += 1.0
    return g, slope, bend


@njit(cache=True, error_model="numpy", forceinline=True)  # a call for each pair of poles costs half of a gradient step
def _pairing(code, parameters, lam, mu, feature):
    """``g(λ, μ)`` for the product of the features of both poles, and what its derivatives follow from; theory, eq. (2.3), (2.4).

    Whether the poles are next to the removable singularity of a finite horizon; the product ``λμ``; and there the first and
    second derivative of `g` by that product (continuous time: by the sum), elsewhere ``1/(1 − λμ)`` (``1/(λ + μ)``) and nothing.
    """
    if code <= DISCRETE_FINITE:
        d = _one_minus_product(lam, mu)
        L = parameters[0] if code == DISCRETE_FINITE else 0.0
        if L * (abs(d.real) + abs(d.imag)) < _SERIES_RADIUS and code == DISCRETE_FINITE:
            g, slope, bend = _series(L, L, -d)  # Σ_{k<L} z^k = Σ_j binom(L, j+1) (z − 1)^j
            return g, True, 1.0 - d, slope, bend
        inverse = d.conjugate() / (d.real * d.real + d.imag * d.imag)
        return (1.0 - feature) * inverse, False, 1.0 - d, inverse, 0.0j
    s = lam + mu
    T = parameters[0] if code == CONTINUOUS_FINITE else 0.0
    if T * (abs(s.real) + abs(s.imag)) < _SERIES_RADIUS and code == CONTINUOUS_FINITE:
        g, slope, bend = _series(1.0, 0.0, s * T)  # (e^z − 1)/z = Σ_j z^j / (j+1)!
        return T * g, True, 0.0j, T * T * slope, T * T * T * bend
    inverse = s.conjugate() / (s.real * s.real + s.imag * s.imag)
    return (feature - 1.0) * inverse, False, 0.0j, inverse, 0.0j


@njit(cache=True, error_model="numpy")
def _pair(code, parameters, lam, f_lam, mu, f_mu, df_mu):
    """``g(λ, μ)`` and ``∂g/∂μ`` from the two poles and their features; theory, eq. (2.2)."""
    g, near, _, first, _ = _pairing(code, parameters, lam, mu, f_lam * f_mu)
    if code <= DISCRETE_FINITE:
        return g, lam * first if near else (lam * g - f_lam * df_mu) * first
    return g, first if near else (f_lam * df_mu - g) * first


@njit(cache=True, error_model="numpy")
def _outer(code, parameters, lam, mu, out, derivative):
    """``out[i, j] = g(λ_i, μ_j)`` and its derivative in μ, for two sets of poles."""
    f_lam, f_mu = np.empty_like(lam), np.empty_like(mu)
    unused, df_mu = np.empty_like(lam), np.empty_like(mu)
    _features(code, parameters, lam, f_lam, unused)
    _features(code, parameters, mu, f_mu, df_mu)
    for i in range(lam.size):
        for j in range(mu.size):
            out[i, j], derivative[i, j] = _pair(code, parameters, lam[i], f_lam[i], mu[j], f_mu[j], df_mu[j])


@njit(cache=True, error_model="numpy")
def _outer_batch(code, parameters, lam, mu, out, derivative):
    """`_outer` for a batch of pole sets."""
    for b in range(lam.shape[0]):
        _outer(code, parameters, lam[b], mu[b], out[b], derivative[b])


@njit(cache=True, error_model="numpy", parallel=True)
def _outer_batch_parallel(code, parameters, lam, mu, out, derivative):
    """`_outer_batch` over all cores; starting them costs more than a small batch takes."""
    for b in prange(lam.shape[0]):
        _outer(code, parameters, lam[b], mu[b], out[b], derivative[b])


@njit(cache=True, error_model="numpy")
def _careful_radius(code, parameters):
    """The distance from the singularity of a pairing below which its plain form loses digits; 0 where it never does."""
    if code == CONTINUOUS:
        return 0.0
    near = _SERIES_RADIUS / parameters[0] if code in (DISCRETE_FINITE, CONTINUOUS_FINITE) else 0.0
    return max(near, _CLOSE) if code <= DISCRETE_FINITE else near


@njit(cache=True, error_model="numpy")
def _cross_row(code, parameters, lam, f_lam, B, mu, f_mu, right, scratch, out, h, i):
    """Row `i` of the cross Gramian of channel `h` (theory, eq. (3.1)), real and imaginary parts interleaved.

    `right` (2 + 2 m, r) holds the poles and the input rows of the right system, real parts and imaginary parts in
    turn. The loops over `j` have neither branch nor call, so that the compiler makes vector instructions of them; the
    few entries next to the stability boundary are then done again with care. No array is sliced: each slice would
    count references, which cores share.
    """
    r, m, l_re, l_im = right.shape[1], B.shape[2], lam.real, lam.imag
    b_re, b_im = B[h, i, 0].real, B[h, i, 0].imag
    close = r
    if code == DISCRETE and m == 1:  # by far the most frequent case, in one loop
        close = 0
        for j in range(r):
            d_re = 1.0 - l_re * right[0, j] + l_im * right[1, j]
            d_im = -(l_re * right[1, j] + l_im * right[0, j])
            p_re, p_im = b_re * right[2, j] - b_im * right[3, j], b_re * right[3, j] + b_im * right[2, j]
            square = d_re * d_re + d_im * d_im
            close += square < _CLOSE * _CLOSE
            scale = 1.0 / square
            out[h, i, 2 * j] = (p_re * d_re + p_im * d_im) * scale
            out[h, i, 2 * j + 1] = (p_im * d_re - p_re * d_im) * scale
        if close == 0:
            return
    for j in range(r):
        scratch[0, j] = b_re * right[2, j] - b_im * right[3, j]
        scratch[1, j] = b_re * right[3, j] + b_im * right[2, j]
    for k in range(1, m):
        b_re, b_im = B[h, i, k].real, B[h, i, k].imag
        for j in range(r):
            scratch[0, j] += b_re * right[2 + 2 * k, j] - b_im * right[3 + 2 * k, j]
            scratch[1, j] += b_re * right[3 + 2 * k, j] + b_im * right[2 + 2 * k, j]
    if code in (DISCRETE_FINITE, CONTINUOUS_FINITE):
        f_re, f_im = f_lam.real, f_lam.imag
        for j in range(r):
            e_re, e_im = 1.0 - f_re * f_mu[j].real + f_im * f_mu[j].imag, -(f_re * f_mu[j].imag + f_im * f_mu[j].real)
            p_re, p_im = scratch[0, j], scratch[1, j]
            scratch[0, j], scratch[1, j] = p_re * e_re - p_im * e_im, p_re * e_im + p_im * e_re
    radius, discrete = _careful_radius(code, parameters), code <= DISCRETE_FINITE
    if not (code == DISCRETE and m == 1):
        close = 0
        for j in range(r):
            d_re, d_im = -l_re - right[0, j], -l_im - right[1, j]
            if discrete:
                d_re = 1.0 - l_re * right[0, j] + l_im * right[1, j]
                d_im = -(l_re * right[1, j] + l_im * right[0, j])
            square = d_re * d_re + d_im * d_im
            close += square < radius * radius
            scale = 1.0 / square
            out[h, i, 2 * j] = (scratch[0, j] * d_re + scratch[1, j] * d_im) * scale
            out[h, i, 2 * j + 1] = (scratch[1, j] * d_re - scratch[0, j] * d_im) * scale
        if close == 0:
            return
    for j in range(r):
        d = 1.0 - lam * mu[h, j] if discrete else lam + mu[h, j]
        if not d.real * d.real + d.imag * d.imag < radius * radius:
            continue
        p_re, p_im = 0.0, 0.0
        for k in range(m):
            b, z = B[h, i, k], complex(right[2 + 2 * k, j], right[3 + 2 * k, j])
            p_re, p_im = p_re + (b * z).real, p_im + (b * z).imag
        g = _pair(code, parameters, lam, f_lam, mu[h, j], f_mu[j], 0.0j)[0]
        out[h, i, 2 * j] = p_re * g.real - p_im * g.imag
        out[h, i, 2 * j + 1] = p_re * g.imag + p_im * g.real


@njit(cache=True, error_model="numpy")
def _cross_prepare(code, parameters, lam, mu, B_r, h, f_lam, f_mu, unused, right):
    """Features of both pole sets of channel `h`, and the right system as `_cross_row` takes it."""
    if code != DISCRETE and code != CONTINUOUS:
        _features(code, parameters, lam[h], f_lam, unused[: f_lam.size])
        _features(code, parameters, mu[h], f_mu, unused[: f_mu.size])
    for j in range(mu.shape[1]):
        right[0, j], right[1, j] = mu[h, j].real, mu[h, j].imag
        for k in range(B_r.shape[2]):
            right[2 + 2 * k, j], right[3 + 2 * k, j] = B_r[h, j, k].real, B_r[h, j, k].imag


@njit(cache=True, error_model="numpy")
def _cross(code, parameters, lam, B, mu, B_r, out, first, last):
    """Cross Gramians (h, n, 2 r), real and imaginary parts interleaved, of the channels from `first` to `last`."""
    n, r = lam.shape[1], mu.shape[1]
    f_lam, f_mu, unused = np.zeros(n, np.complex128), np.zeros(r, np.complex128), np.empty(max(n, r), np.complex128)
    right, scratch = np.empty((2 + 2 * B.shape[2], r)), np.empty((2, r))
    for h in range(first, last):
        _cross_prepare(code, parameters, lam, mu, B_r, h, f_lam, f_mu, unused, right)
        for i in range(n):
            _cross_row(code, parameters, lam[h, i], f_lam[i], B, mu, f_mu, right, scratch, out, h, i)


@njit(cache=True, error_model="numpy", parallel=True)
def _cross_channels(code, parameters, lam, B, mu, B_r, out, runs):
    """`_cross` over all cores, in `runs` of channels."""
    for k in prange(runs):
        _cross(code, parameters, lam, B, mu, B_r, out, k * lam.shape[0] // runs, (k + 1) * lam.shape[0] // runs)


@njit(cache=True, error_model="numpy", parallel=True)
def _cross_rows(code, parameters, lam, B, mu, B_r, out, runs):
    """`_cross` of one channel over all cores, in `runs` of rows."""
    n, r = lam.shape[1], mu.shape[1]
    f_lam, f_mu, unused = np.zeros(n, np.complex128), np.zeros(r, np.complex128), np.empty(max(n, r), np.complex128)
    right = np.empty((2 + 2 * B.shape[2], r))
    _cross_prepare(code, parameters, lam, mu, B_r, 0, f_lam, f_mu, unused, right)
    for k in prange(runs):
        scratch = np.empty((2, r))
        for i in range(k * n // runs, (k + 1) * n // runs):
            _cross_row(code, parameters, lam[0, i], f_lam[i], B, mu, f_mu, right, scratch, out, 0, i)


def _outer_numpy(code, parameters, lam, mu):
    """NumPy twin of `_outer`, for batches too; accurate unless λμ is within 1e-8 of 1 (or λ + μ of 0)."""
    lam, mu = lam[..., :, np.newaxis], mu[..., np.newaxis, :]
    if code <= DISCRETE_FINITE:
        z, d = lam * mu, 1 - lam * mu
        if code == DISCRETE:
            return 1 / d, lam / d**2
        L = int(parameters[0])
        g = (1 - z**L) / d
        return g, lam * (g - L * z ** (L - 1)) / d
    s = lam + mu
    if code == CONTINUOUS:
        return -1 / s, 1 / s**2
    T = parameters[0]
    g = np.expm1(s * T) / s
    return g, (T * np.exp(s * T) - g) / s
