"""Compiled quasi-Newton steps on the poles of channels with one input; see `variable_projection`."""

from __future__ import annotations

import numpy as np
from numba import prange

from lqo_mor.compiling import njit
from lqo_mor.matrix_equations.pairing_kernels import CONTINUOUS, _features
from lqo_mor.reduction.objective.error_kernels import _projected_error, _real_size

FARTHEST = 1.0 - 1e-9  # of the allowed modulus, where a real pole may start; further out its parameter has no slope


@njit(cache=True, error_model="numpy")
def _parameters_from(code, mu, real, margin, x, origin, scale):
    """Free parameters of stable poles: a decay (logarithmic) and an angle per pair, one number per real pole; theory, eq. (8.4).

    Decays count from the least one that `margin` allows; a pole beyond it starts just inside. Angles count from
    their `origin` in units of `scale`, the decay of the start: the change that matters.
    """
    least = margin if code >= CONTINUOUS else -np.log1p(-margin)
    k = 0
    for i in range(real.size):
        origin[i], scale[i] = 0.0, 1.0
        if real[i] and code < CONTINUOUS:
            x[k] = np.arctanh(min(max(mu[i].real / (1.0 - margin), -FARTHEST), FARTHEST))
            k += 1
            continue
        decay = -mu[i].real if code >= CONTINUOUS else -np.log(abs(mu[i]))
        x[k] = np.log(max(decay - least, 0.01 * least, 1e-300))
        k += 1
        if not real[i]:
            origin[i] = mu[i].imag if code >= CONTINUOUS else np.arctan2(mu[i].imag, mu[i].real)
            scale[i] = max(decay, least) if code >= CONTINUOUS else min(max(decay, least), 1.0)
            x[k] = 0.0
            k += 1


@njit(cache=True, error_model="numpy")
def _poles_from(code, x, real, margin, origin, scale, mu):
    """Stable poles from their free parameters, the inverse of `_parameters_from`; theory, eq. (8.4)."""
    least = margin if code >= CONTINUOUS else -np.log1p(-margin)
    k = 0
    for i in range(real.size):
        if real[i]:
            mu[i] = -np.exp(x[k]) - least if code >= CONTINUOUS else np.tanh(x[k]) * (1.0 - margin)
            k += 1
        else:
            exponent = complex(-np.exp(x[k]) - least, origin[i] + scale[i] * x[k + 1])
            mu[i] = exponent if code >= CONTINUOUS else np.exp(exponent)
            k += 2


@njit(cache=True, error_model="numpy")
def _parameter_gradient(code, x, real, margin, scale, mu, gamma, gradient):
    """Chain rule of `_poles_from`; theory, eq. (8.5)."""
    k = 0
    for i in range(real.size):
        if real[i]:
            slope = -np.exp(x[k]) if code >= CONTINUOUS else (1.0 - margin) - mu[i].real ** 2 / (1.0 - margin)
            gradient[k] = gamma[i].real * slope
            k += 1
        else:
            z = gamma[i] if code >= CONTINUOUS else gamma[i] * mu[i]
            gradient[k] = -np.exp(x[k]) * z.real
            gradient[k + 1] = -scale[i] * z.imag
            k += 2


@njit(cache=True, error_model="numpy")
def _optimise_channel(
    code, parameters, lam, rows, p, W, squared_norm, mu, real, margin, ridge, max_iterations, tolerance, history
):
    """BFGS on the poles of one channel, in place, with a weak Wolfe line search; status and iterations; theory, eq. (8.6).

    `mu` holds the start and then the best poles. Status 0: converged, 1: iterations used up, 2: the line search
    finds no decrease, which at a smooth minimum means rounding.
    """
    s, q, r = mu.size, rows.shape[0], _real_size(real)
    f_lam, unused = np.empty_like(lam), np.empty_like(lam)
    _features(code, parameters, lam, f_lam, unused)
    origin, scale, x = np.empty(s), np.empty(s), np.empty(r)
    _parameters_from(code, mu, real, margin, x, origin, scale)
    _poles_from(code, x, real, margin, origin, scale, mu)
    optimal, gamma, trial = np.empty((q, r)), np.empty(s, np.complex128), np.empty_like(mu)
    g, g_new = np.empty(r), np.empty(r)
    value = _projected_error(code, parameters, lam, f_lam, rows, p, W, squared_norm, mu, real, ridge, optimal, gamma)
    history[0] = value
    if not np.isfinite(value):
        return 2, 0
    _parameter_gradient(code, x, real, margin, scale, mu, gamma, g)
    unit = max(value, 1e-15 * squared_norm)  # makes the first step independent of the size of the system
    inverse = np.eye(r) / unit
    fresh, small = True, 0
    for iteration in range(max_iterations):
        floor = max(value, 1e-15 * squared_norm)
        if np.max(np.abs(g)) <= tolerance * floor:
            return 0, iteration
        direction = -(inverse @ g)
        slope = direction @ g
        if not slope < 0.0:
            inverse = np.eye(r) / unit
            direction, slope, fresh = -g / unit, -(g @ g) / unit, True
        step, low, high, found = 1.0, 0.0, np.inf, False
        largest = np.max(np.abs(direction))
        if largest > 1.0:  # one unit is already a factor e in a decay
            step = 1.0 / largest
        for _ in range(30):
            x_new = x + step * direction
            _poles_from(code, x_new, real, margin, origin, scale, trial)
            new = _projected_error(code, parameters, lam, f_lam, rows, p, W, squared_norm, trial, real, ridge, optimal, gamma)
            if not new <= value + 1e-4 * step * slope:
                high = step
            else:
                _parameter_gradient(code, x_new, real, margin, scale, trial, gamma, g_new)
                found = True
                if g_new @ direction >= 0.9 * slope or step * largest >= 4.0:
                    break
                low = step
            step = 2.0 * low if high == np.inf else 0.5 * (low + high)
        if not found:
            if fresh:
                return 2, iteration
            inverse, fresh = np.eye(r) / unit, True
            history[iteration + 1] = value
            continue
        if not new <= value + 1e-4 * step * slope:  # the bisection ended on a failed trial: back to the last good one
            step = low
            x_new = x + step * direction
            _poles_from(code, x_new, real, margin, origin, scale, trial)
            new = _projected_error(code, parameters, lam, f_lam, rows, p, W, squared_norm, trial, real, ridge, optimal, gamma)
            _parameter_gradient(code, x_new, real, margin, scale, trial, gamma, g_new)
        small = small + 1 if value - new <= 1e-3 * tolerance * floor else 0
        change, y = x_new - x, g_new - g
        curvature = change @ y
        if curvature > 1e-12 * np.sqrt((change @ change) * (y @ y)):
            if fresh:
                inverse = np.eye(r) * (curvature / (y @ y))
            hy = inverse @ y
            factor = (1.0 + (y @ hy) / curvature) / curvature
            for i in range(r):
                for j in range(r):
                    inverse[i, j] += factor * change[i] * change[j] - (hy[i] * change[j] + change[i] * hy[j]) / curvature
            fresh = False
        x, value = x_new, new
        g[:] = g_new
        mu[:] = trial
        history[iteration + 1] = value
        if small >= 3:
            return 0, iteration + 1
    return 1, max_iterations


@njit(cache=True, error_model="numpy", parallel=True)
def _optimise(
    code,
    parameters,
    lam,
    rows,
    p,
    W,
    squared_norm,
    mu,
    real,
    margin,
    ridge,
    max_iterations,
    tolerance,
    history,
    status,
    iterations,
):
    """`_optimise_channel` for every channel of a batch."""
    for h in prange(mu.shape[0]):
        status[h], iterations[h] = _optimise_channel(
            code,
            parameters,
            lam[h],
            rows[h],
            p,
            W[h],
            squared_norm[h],
            mu[h],
            real[h],
            margin,
            ridge,
            max_iterations,
            tolerance,
            history[h],
        )
