"""Poles in real second-order sections: free parameters, and the all-pass factor that each section puts on a pole.

A section holds two poles: a conjugate pair, two real poles, or anything between. Its parameters are the reflection
coefficients of ``z² − k₁(1 + k₂) z + k₂`` through ``k = tanh y``, or the logarithms of the coefficients of
``s² + a₁ s + a₂``: every real number gives a stable section, and poles meet and part on the real axis without a seam.
Where a format has no place for two real poles a section stays a pair, with a decay and an angle; an odd pole is alone.

The all-pass factor of a section at a pole λ of the full system is ``Π (λ − μ)/(1 − μλ)`` over its poles μ (continuous
time: ``Π (λ − μ)/(λ + μ)``). Theory, section 6.
"""

from __future__ import annotations

import numpy as np

from lqo_mor.compiling import njit

FREE, PAIR, REAL = 0, 1, 2
N_CONSTANTS = 8


@njit(cache=True, error_model="numpy")
def _size(kind):
    """Parameters, and poles, of a section."""
    return 1 if kind == REAL else 2


@njit(cache=True, error_model="numpy")
def _constants(continuous, kind, first, second, least, out):
    """What `_factor` needs of a section, from its parameters; theory, eq. (6.4). `least` is the smallest decay of a pair."""
    if kind == PAIR:
        slope = np.exp(first)
        z = complex(-slope - least, second)
        mu = z if continuous else np.exp(z)
        out[0], out[1], out[2] = mu.real, mu.imag, slope
    elif continuous:
        out[0], out[1] = np.exp(first), np.exp(second)
    elif kind == REAL:
        rest = 2.0 / (1.0 + np.exp(2.0 * abs(first)))
        out[0] = 1.0 if first >= 0 else -1.0
        out[1], out[2] = rest, rest * (2.0 - rest)
        out[3] = out[0] * (1.0 - rest)
    else:
        sign = 1.0 if first >= 0 else -1.0
        rest = 2.0 / (1.0 + np.exp(2.0 * abs(first)))  # 1 − |k₁|, without cancellation
        below, above = 2.0 / (1.0 + np.exp(2.0 * second)), 2.0 / (1.0 + np.exp(-2.0 * second))  # 1 − k₂, 1 + k₂
        out[0], out[1] = sign, rest
        out[2] = rest + 0.5 * below - 0.5 * rest * below  # 1 − |centre of the two poles|
        out[3] = -rest * (2.0 - below) + out[2] ** 2  # square of half their distance, negative for a pair
        out[4], out[5] = rest * (2.0 - rest), below * above  # 1 − k₁², 1 − k₂²
        out[6], out[7] = sign * (1.0 - rest), 0.5 * (above - below)


@njit(cache=True, error_model="numpy")
def _poles(continuous, kind, constants):
    """The two poles of a section; the second of a single real pole is not used; theory, eq. (6.4)."""
    c = constants
    if kind == PAIR:
        return complex(c[0], c[1]), complex(c[0], -c[1])
    if kind == REAL:
        return complex(-c[0] if continuous else c[3], 0.0), 0.0j
    if continuous:
        centre, q, product = -0.5 * c[0], 0.25 * c[0] ** 2 - c[1], c[1]
    else:
        centre, q, product = c[0] * (1.0 - c[2]), c[3], c[7]
    if q < 0:
        root = np.sqrt(-q)
        return complex(centre, root), complex(centre, -root)
    outer = centre + np.copysign(np.sqrt(q), centre)
    return complex(outer, 0.0), complex(product / outer if outer != 0.0 else 0.0, 0.0)


@njit(cache=True, error_model="numpy")
def _factor(continuous, kind, c, lam):
    """All-pass factor of a section at `lam`, its derivatives (2) and second ones (3) by the parameters; theory, eq. (6.8)."""
    if kind == FREE and continuous:
        den = lam * lam - c[0] * lam + c[1]
        num = lam * lam + c[0] * lam + c[1]
        inverse = 1.0 / den
        first, second = 2.0 * lam * (lam * lam + c[1]) * inverse * inverse, -2.0 * c[0] * lam * inverse * inverse
        d11 = 2.0 * lam * first * inverse * c[0] ** 2 + first * c[0]
        d22 = -2.0 * second * inverse * c[1] ** 2 + second * c[1]
        d12 = -2.0 * lam * num * inverse**3 * c[0] * c[1]
        return num * inverse, first * c[0], second * c[1], d11, d12, d22
    if kind == FREE:
        turned = c[0] * lam
        near = 1.0 - turned
        left, right = c[0] * (c[2] - near), near + turned * c[2]
        inverse = 1.0 / (right * right - c[3] * lam * lam)
        w = near * (1.0 + turned) * inverse
        k1, k2 = c[6], c[7]
        den1, den2 = -(1.0 + k2) * lam * inverse, lam * (lam - k1) * inverse
        first, second = -lam * w * c[5] * inverse, w * (near * near + 2.0 * turned * c[1]) * inverse
        mixed = 2.0 * lam * w * (k2 + c[5] * den2) * inverse
        d11 = -2.0 * first * c[4] * (den1 * c[4] + k1)
        d22 = -2.0 * second * c[5] * (den2 * c[5] + k2)
        return (left * left - c[3]) * inverse, first * c[4], second * c[5], d11, mixed * c[4] * c[5], d22
    if kind == REAL and continuous:
        inverse = 1.0 / (lam - c[0])
        first = 2.0 * lam * c[0] * inverse * inverse
        return (lam + c[0]) * inverse, first, 0.0j, 2.0 * first * c[0] * inverse + first, 0.0j, 0.0j
    if kind == REAL:
        turned = c[0] * lam
        near = 1.0 - turned
        inverse = 1.0 / (near + turned * c[1])
        first = -near * (1.0 + turned) * inverse * inverse * c[2]
        second = 2.0 * first * (lam * inverse * c[2] - c[3])
        return c[0] * (c[1] - near) * inverse, first, 0.0j, second, 0.0j, 0.0j
    mu, bar = complex(c[0], c[1]), complex(c[0], -c[1])
    a, pa, ppa = _single(continuous, mu, lam)
    b, pb, ppb = _single(continuous, bar, lam)
    along, against = pa * b, a * pb
    second, across = ppa * b + a * ppb, pa * pb
    decay = -(along + against)
    d11 = (second + 2.0 * across) * c[2] ** 2 + decay * c[2]
    d12 = -1j * (ppa * b - a * ppb) * c[2]
    return a * b, decay * c[2], 1j * (along - against), d11, d12, 2.0 * across - second


@njit(cache=True, error_model="numpy")
def _single(continuous, mu, lam):
    """The factor of one pole, and its first two derivatives by `mu` (continuous time) or by ``log mu``; theory, eq. (6.5)."""
    if continuous:
        inverse = 1.0 / (lam + mu)
        first = -2.0 * lam * inverse * inverse
        return (lam - mu) * inverse, first, -2.0 * first * inverse
    inverse = 1.0 / (1.0 - mu * lam)
    first = -(1.0 - lam * lam) * inverse * inverse * mu
    return (lam - mu) * inverse, first, first * (1.0 + 2.0 * lam * mu * inverse)


@njit(cache=True, error_model="numpy")
def _within(kind, place, parameter, limit):
    """A parameter of a section within its bounds: at `limit` ``1 ∓ k`` is the distance of a pole, or of a product of two.

    Of a free section ``(1 + k₂)(1 − k₁)`` is the *product* of the distances of its poles, so that `k₁` goes twice as far.
    """
    if kind == PAIR:
        return parameter
    most = 2.0 * limit + 1.0 if kind == FREE and place == 0 else limit
    return min(max(parameter, -most), most)


@njit(cache=True, error_model="numpy")
def _parameters_of(continuous, kind, mu, nu, least, limit):
    """Parameters of a section with the poles `mu`, `nu`; within their bounds in discrete time; theory, eq. (6.3)."""
    if kind == PAIR:
        decay = -mu.real if continuous else -np.log(max(abs(mu), 1e-300))
        angle = mu.imag if continuous else np.arctan2(mu.imag, mu.real)
        return np.log(max(decay - least, 0.01 * least, 1e-300)), angle
    if kind == REAL:
        if continuous:
            return np.log(-mu.real), 0.0
        return min(max(0.5 * np.log((1.0 + mu.real) / (1.0 - mu.real)), -limit), limit), 0.0
    product = (mu * nu).real
    if continuous:
        return np.log(-(mu + nu).real), np.log(product)
    first = 0.5 * np.log(((1.0 + mu) * (1.0 + nu)).real / ((1.0 - mu) * (1.0 - nu)).real)
    second = 0.5 * np.log((1.0 + product) / (1.0 - product))
    return _within(kind, 0, first, limit), _within(kind, 1, second, limit)
