"""The pairing of two poles with two derivatives by the logarithm of a pole (continuous time: by the pole)."""

from __future__ import annotations

import numpy as np
from numba import njit

from lqo_mor.matrix_equations._kernels import CONTINUOUS, CONTINUOUS_FINITE, DISCRETE_FINITE, _one_minus_product

_SERIES_RADIUS = 0.5  # times the horizon: closer to a removable singularity the closed forms lose digits
_DOUBTFUL = 5e-3  # |1 − λμ| below which one rounding of the product costs a search too much: more than three digits


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
def _pairing_rows(code, parameters, lam, f_lam, mu, feature, out):
    """`_pairing_derivatives` of many poles `lam` with one, (6, n): real and imaginary parts of each derivative in turn.

    The loops have neither branch nor call, so that the compiler makes vector instructions of them; the few entries next to
    a singularity are done again with care.
    """
    m_re, m_im, f_re, f_im = mu.real, mu.imag, feature.real, feature.imag
    radius, close = _DOUBTFUL if code < CONTINUOUS else 0.0, 0
    if code in (DISCRETE_FINITE, CONTINUOUS_FINITE):
        radius = max(radius, _SERIES_RADIUS / parameters[0])
    if code < CONTINUOUS:
        L = parameters[0] if code == DISCRETE_FINITE else 0.0
        for i in range(lam.size):
            w_re, w_im = lam[i].real * m_re - lam[i].imag * m_im, lam[i].real * m_im + lam[i].imag * m_re
            e_re, e_im = f_lam[i].real * f_re - f_lam[i].imag * f_im, f_lam[i].real * f_im + f_lam[i].imag * f_re
            d_re = 1.0 - w_re
            square = d_re * d_re + w_im * w_im
            scale = 1.0 / square
            close += square < radius * radius
            i_re, i_im = d_re * scale, w_im * scale
            g_re, g_im = (1.0 - e_re) * i_re + e_im * i_im, (1.0 - e_re) * i_im - e_im * i_re
            z_re, z_im = w_re * g_re - w_im * g_im, w_re * g_im + w_im * g_re
            t_re, t_im = z_re - L * e_re, z_im - L * e_im
            s_re, s_im = t_re * i_re - t_im * i_im, t_re * i_im + t_im * i_re
            t_re = 2.0 * (w_re * s_re - w_im * s_im) + z_re - L * L * e_re
            t_im = 2.0 * (w_re * s_im + w_im * s_re) + z_im - L * L * e_im
            out[0, i], out[1, i], out[2, i], out[3, i] = g_re, g_im, s_re, s_im
            out[4, i], out[5, i] = t_re * i_re - t_im * i_im, t_re * i_im + t_im * i_re
    else:
        T = parameters[0] if code == CONTINUOUS_FINITE else 0.0
        for i in range(lam.size):
            e_re, e_im = f_lam[i].real * f_re - f_lam[i].imag * f_im, f_lam[i].real * f_im + f_lam[i].imag * f_re
            d_re, d_im = lam[i].real + m_re, lam[i].imag + m_im
            square = d_re * d_re + d_im * d_im
            scale = 1.0 / square
            close += square < radius * radius
            i_re, i_im = d_re * scale, -d_im * scale
            g_re, g_im = (e_re - 1.0) * i_re - e_im * i_im, (e_re - 1.0) * i_im + e_im * i_re
            t_re, t_im = T * e_re - g_re, T * e_im - g_im
            s_re, s_im = t_re * i_re - t_im * i_im, t_re * i_im + t_im * i_re
            t_re, t_im = T * T * e_re - 2.0 * s_re, T * T * e_im - 2.0 * s_im
            out[0, i], out[1, i], out[2, i], out[3, i] = g_re, g_im, s_re, s_im
            out[4, i], out[5, i] = t_re * i_re - t_im * i_im, t_re * i_im + t_im * i_re
    for i in range(lam.size if close else 0):
        d = 1.0 - lam[i] * mu if code < CONTINUOUS else lam[i] + mu
        if d.real * d.real + d.imag * d.imag < radius * radius:
            values = _pairing_derivatives(code, parameters, lam[i], mu, f_lam[i] * feature)
            for k in range(3):
                out[2 * k, i], out[2 * k + 1, i] = values[k].real, values[k].imag


@njit(cache=True, error_model="numpy", fastmath={"reassoc", "contract"})
def _weighted_sums(weights, a, rows, out):
    """Sums of `_pairing_rows` weighted by row `a` of `weights`, (3,); in any order, so that they are vector instructions."""
    for k in range(3):
        re, im = 0.0, 0.0
        for i in range(weights.shape[1]):
            z = weights[a, i]
            re += z.real * rows[2 * k, i] - z.imag * rows[2 * k + 1, i]
            im += z.real * rows[2 * k + 1, i] + z.imag * rows[2 * k, i]
        out[k] = complex(re, im)


@njit(cache=True, error_model="numpy")
def _observed(code, parameters, lam, f_lam, outputs, mu, feature, H):
    """Transfer function of the full system and its first two derivatives at the slots, (3, q, s)."""
    rows, sums = np.empty((6, lam.size)), np.empty(3, np.complex128)
    for j in range(mu.size):
        _pairing_rows(code, parameters, lam, f_lam, mu[j], feature[j], rows)
        for a in range(outputs.shape[0]):
            _weighted_sums(outputs, a, rows, sums)
            for k in range(3):
                H[k, a, j] = sums[k]
        _pairing_rows(code, parameters, lam, f_lam, mu[j].conjugate(), feature[j].conjugate(), rows)  # the conjugate modes
        for a in range(outputs.shape[0]):
            _weighted_sums(outputs, a, rows, sums)
            for k in range(3):
                H[k, a, j] += sums[k].conjugate()
