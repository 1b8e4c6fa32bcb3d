"""The pairing of two poles with two derivatives by the logarithm of a pole (continuous time: by the pole).

Beside the pairings of `pairing_kernels` there is that of an input with autocovariances ``R_j`` (the parameters),
``w(λ, μ) = (Φ(λ) + Φ(μ) − R_0) / (1 − λμ)`` with ``Φ(λ) = Σ_j R_j λ^j``. With the feedthrough among the unknowns, whose
pairings are ``Φ(μ)`` and ``R_0``, its elimination leaves ``w(λ, μ) − Φ(λ) Φ(μ) / R_0``. A third pairing is that of two inputs,
`v` of the full system and `u` of the reduced one: the response to `v` is projected onto responses to `u`. Its parameters are,
one after the other, the autocovariances of `u`, the cross covariances ``E[v_{t+j} u_t]`` for j ≥ 0, the feedthrough of the full
system and the covariance of its output with `u`, where the feedthrough is free. Where it is not, the last parameter is the
feedthrough times ``R_0``, whose response to `u` is taken from the full one.

A feature is ``Φ`` with two derivatives, for the autocovariances and then for the cross covariances, (6,); of the other
pairings only its first entry counts. Theory, section 2.
"""

from __future__ import annotations

import numpy as np

from lqo_mor.compiling import njit
from lqo_mor.matrix_equations.pairing_kernels import CONTINUOUS, CONTINUOUS_FINITE, DISCRETE_FINITE, _one_minus_product, _pairing

# Codes: an input with autocovariances, without and with a free feedthrough; two inputs, in the same order.
WEIGHTED, WEIGHTED_FREE, TWO_INPUTS, TWO_INPUTS_FREE = -1, -2, -3, -4
N_FEATURES = 6
_SERIES_RADIUS = 0.5  # times the horizon: closer to a removable singularity the closed forms lose digits
_DOUBTFUL = 5e-3  # |1 − λμ| below which one rounding of the product costs a search too much: more than three digits


@njit(cache=True, error_model="numpy")
def _pairing_derivatives(code, parameters, lam, mu, feature):
    """``g(λ, μ)`` and its first and second derivative by ``log μ``, in continuous time by `μ`; theory, eq. (2.3), (2.4).

    `feature` is the product of the features of both poles.
    """
    g, near, w, x, bend = _pairing(code, parameters, lam, mu, feature)
    if code < CONTINUOUS:
        if near:
            return g, w * x, w * x + w * w * bend
        L = parameters[0] if code == DISCRETE_FINITE else 0.0
        first = (w * g - L * feature) * x
        return g, first, (2.0 * w * first + w * g - L * L * feature) * x
    if near:
        return g, x, bend
    T = parameters[0] if code == CONTINUOUS_FINITE else 0.0
    first = (T * feature - g) * x
    return g, first, (T * T * feature - 2.0 * first) * x


@njit(cache=True, error_model="numpy")
def _own_features(code, parameters, poles, out):
    """Features of poles, (6, s)."""
    out[:] = 0.0
    if code <= TWO_INPUTS:
        lags = (parameters.size - 2) // 2
        _correlation_series(parameters[:lags], poles, out[:3])
        _correlation_series(parameters[lags : 2 * lags], poles, out[3:])
        return
    if code < 0:
        _correlation_series(parameters, poles, out[:3])
        return
    for j in range(poles.size):
        if code == DISCRETE_FINITE:
            out[0, j] = poles[j] ** parameters[0]
        elif code == CONTINUOUS_FINITE:
            out[0, j] = np.exp(poles[j] * parameters[0])


@njit(cache=True, error_model="numpy")
def _correlation_series(R, poles, out):
    """``Φ(μ) = Σ_j R_j μ^j`` and two derivatives by ``log μ``, by Horner's rule for all poles at once; theory, eq. (2.8)."""
    s = poles.size
    re, im, sums = poles.real.copy(), poles.imag.copy(), np.zeros((6, s))
    for j in range(R.size - 1, -1, -1):
        a = R[j]
        b, c = j * a, j * j * a
        for i in range(s):
            x, y = re[i], im[i]
            f, g = sums[0, i], sums[1, i]
            sums[0, i], sums[1, i] = f * x - g * y + a, f * y + g * x
            f, g = sums[2, i], sums[3, i]
            sums[2, i], sums[3, i] = f * x - g * y + b, f * y + g * x
            f, g = sums[4, i], sums[5, i]
            sums[4, i], sums[5, i] = f * x - g * y + c, f * y + g * x
    for k in range(3):
        for i in range(s):
            out[k, i] = complex(sums[2 * k, i], sums[2 * k + 1, i])


@njit(cache=True, error_model="numpy")
def _weighted_pair(code, parameters, lam, mu, f_lam, f_mu):
    """``w(λ, μ)``, two derivatives by the logarithm of μ, and the mixed one by those of λ and of μ; theory, eq. (2.8), (2.9)."""
    d = _one_minus_product(lam, mu)
    p, inverse = 1.0 - d, d.conjugate() / (d.real * d.real + d.imag * d.imag)
    w = (f_lam[0] + f_mu[0] - parameters[0]) * inverse
    first, other = (f_mu[1] + p * w) * inverse, (f_lam[1] + p * w) * inverse
    second = (f_mu[2] + p * (w + 2.0 * first)) * inverse
    mixed = p * (w + first + other) * inverse
    if code in (WEIGHTED_FREE, TWO_INPUTS_FREE):
        scale = 1.0 / parameters[0]
        w, first = w - scale * f_lam[0] * f_mu[0], first - scale * f_lam[0] * f_mu[1]
        second, mixed = second - scale * f_lam[0] * f_mu[2], mixed - scale * f_lam[1] * f_mu[1]
    return w, first, second, mixed


@njit(cache=True, error_model="numpy")
def _weighted_rows(code, parameters, lam, f_lam, mu, f_mu, out):
    """`_pairing_rows` of a weighted pairing; theory, eq. (2.8), (2.9)."""
    for i in range(lam.size):
        p = lam[i] * mu
        d = 1.0 - p
        inverse = d.conjugate() * (1.0 / (d.real * d.real + d.imag * d.imag))
        w = (f_lam[0, i] + f_mu[0] - parameters[0]) * inverse
        first = (f_mu[1] + p * w) * inverse
        second = (f_mu[2] + p * (w + 2.0 * first)) * inverse
        if code in (WEIGHTED_FREE, TWO_INPUTS_FREE):
            z = f_lam[0, i] * (1.0 / parameters[0])
            w, first, second = w - z * f_mu[0], first - z * f_mu[1], second - z * f_mu[2]
        out[0, i], out[1, i], out[2, i], out[3, i] = w.real, w.imag, first.real, first.imag
        out[4, i], out[5, i] = second.real, second.imag


@njit(cache=True, error_model="numpy")
def _crossed_rows(start, lam, f_lam, mu, f_mu, out):
    """`_pairing_rows` of responses of `lam` to one input with those of `mu` to another, ``c_0 = start``; theory, eq. (2.10)."""
    for i in range(lam.size):
        p = lam[i] * mu
        d = 1.0 - p
        inverse = d.conjugate() * (1.0 / (d.real * d.real + d.imag * d.imag))
        w = (f_lam[0, i] + f_mu[3] - start) * inverse
        first = (f_mu[4] + p * w) * inverse
        second = (f_mu[5] + p * (w + 2.0 * first)) * inverse
        out[0, i], out[1, i], out[2, i], out[3, i] = w.real, w.imag, first.real, first.imag
        out[4, i], out[5, i] = second.real, second.imag


@njit(cache=True, error_model="numpy")
def _pairing_rows(code, parameters, lam, f_lam, mu, f_mu, out):
    """`_pairing_derivatives` of many poles `lam` with one, (6, n): real and imaginary parts of each derivative in turn.

    The loops have neither branch nor call, so that the compiler makes vector instructions of them; the few entries next to
    a singularity are done again with care.
    """
    if code < 0:
        _weighted_rows(code, parameters, lam, f_lam, mu, f_mu, out)
        return
    m_re, m_im, f_re, f_im = mu.real, mu.imag, f_mu[0].real, f_mu[0].imag
    radius, close = _DOUBTFUL if code < CONTINUOUS else 0.0, 0
    if code in (DISCRETE_FINITE, CONTINUOUS_FINITE):
        radius = max(radius, _SERIES_RADIUS / parameters[0])
    if code < CONTINUOUS:
        L = parameters[0] if code == DISCRETE_FINITE else 0.0
        for i in range(lam.size):
            w_re, w_im = lam[i].real * m_re - lam[i].imag * m_im, lam[i].real * m_im + lam[i].imag * m_re
            e = f_lam[0, i]
            e_re, e_im = e.real * f_re - e.imag * f_im, e.real * f_im + e.imag * f_re
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
            e = f_lam[0, i]
            e_re, e_im = e.real * f_re - e.imag * f_im, e.real * f_im + e.imag * f_re
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
            values = _pairing_derivatives(code, parameters, lam[i], mu, f_lam[0, i] * f_mu[0])
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
    """Cross rows of the full system with the slots (white input: its transfer function) and two derivatives, (3, q, s).

    Without what a free feedthrough takes of them, of two inputs also a fixed one; `H` of theory, eq. (6.10), and (2.10).
    """
    rows, sums, lags = np.empty((6, lam.size)), np.empty(3, np.complex128), (parameters.size - 2) // 2
    f = np.empty(N_FEATURES, np.complex128)
    for j in range(mu.size):
        for half in range(2):
            z = mu[j] if half == 0 else mu[j].conjugate()  # the modes, then their conjugates
            for k in range(N_FEATURES):
                f[k] = feature[k, j] if half == 0 else feature[k, j].conjugate()
            if code <= TWO_INPUTS:
                _crossed_rows(parameters[lags], lam, f_lam, z, f, rows)
            else:
                _pairing_rows(code, parameters, lam, f_lam, z, f, rows)
            for a in range(outputs.shape[0]):
                _weighted_sums(outputs, a, rows, sums)
                for k in range(3):
                    H[k, a, j] = sums[k] if half == 0 else H[k, a, j] + sums[k].conjugate()
        if code <= TWO_INPUTS:
            for a in range(outputs.shape[0]):
                for k in range(3):
                    H[k, a, j] += parameters[2 * lags] * feature[3 + k, j]
                    H[k, a, j] -= parameters[2 * lags + 1] / parameters[0] * feature[k, j]
