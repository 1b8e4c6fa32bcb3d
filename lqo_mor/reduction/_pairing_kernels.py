"""The pairing of two poles with two derivatives by the logarithm of a pole (continuous time: by the pole)."""

from __future__ import annotations

from numba import njit

from lqo_mor.matrix_equations._kernels import CONTINUOUS, CONTINUOUS_FINITE, DISCRETE_FINITE, _one_minus_product

_SERIES_RADIUS = 0.5  # times the horizon: closer to a removable singularity the closed forms lose digits


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
