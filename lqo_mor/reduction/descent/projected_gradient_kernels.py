"""Compiled projected gradient for batches of diagonal systems with one input; twin: `projected_gradient._descend_one`."""

from __future__ import annotations

import numpy as np
from numba import prange

from lqo_mor.compiling import njit
from lqo_mor.matrix_equations.pairing_kernels import CONTINUOUS, CONTINUOUS_FINITE, _features
from lqo_mor.reduction.objective.error_kernels import _error_and_forms, _gram_and_cross, _pole_gradients

ROUGHLY = 10.0  # times the tolerance: converged, too, where rounding hides any further decrease


@njit(cache=True, error_model="numpy")
def _project_pole(code, z, margin):
    """The nearest pole with ``|z| ≤ 1 − margin``, or ``Re z ≤ −margin`` in continuous time; theory, eq. (8.1)."""
    if code >= CONTINUOUS:
        return complex(min(z.real, -margin), z.imag)
    size = abs(z)
    return z if size <= 1.0 - margin else z * ((1.0 - margin) / size)


@njit(cache=True, error_model="numpy")
def _possible_decrease(code, margin, p, real, mu, size_b, pairing, slope, G, rows, d_own, d_G, gamma, size_delta, d_rows, d_W):
    """What every reduced quantity could take off the squared error, each alone and to first order, summed; theory, eq. (8.3).

    `size_b`, `size_delta` (s,) are squared norms of the input rows and of the gradients by them, `pairing` and its derivative
    `slope` those of every pole with its own conjugate.
    """
    total, im = 0.0, real.size
    for i in range(real.size):
        weight = d_G[i, i]
        if not real[i]:
            weight += d_G[im, im]
            im += 1
        bend = abs(slope[i]) ** 2 / pairing[i]
        bend = weight * size_b[i] * (2.0 * bend if code >= CONTINUOUS else max(bend, pairing[i]))
        if bend > 0.0:
            total += bend * abs(_project_pole(code, mu[i] - 0.5 * gamma[i].conjugate() / bend, margin) - mu[i]) ** 2
        if weight > 0.0:
            total += 0.25 * size_delta[i] / (weight * pairing[i])
    for a in range(rows.shape[0]):
        for j in range(rows.shape[1]):
            if d_own[a, a] > 0.0 and G[j, j] > 0.0:
                total += 0.25 * d_rows[a, j] ** 2 / (d_own[a, a] * G[j, j])
    for k in range(d_W.shape[1]):
        uu, uv, vv, size = 0.0, 0.0, 0.0, 0.0
        for i in range(G.shape[0]):
            for j in range(G.shape[0]):
                u, v = rows[p + k, i] * G[i, j], rows[p + d_W.shape[1] + k, i] * G[i, j]
                uu += u * rows[p + k, j]
                uv += v * rows[p + k, j]
                vv += v * rows[p + d_W.shape[1] + k, j]
        for a in range(p):
            size += d_W[a, k] ** 2
        if uu * vv > 0.0:
            total += 0.5 * size / (uu * vv + uv * uv)
    return total


@njit(cache=True, error_model="numpy")
def _free_error(
    code, parameters, lam, f_lam, rows, p, W, squared_norm, margin, mu, b, real, rows_r, W_r, gamma, delta, d_rows, d_W
):  # fmt: skip
    """Squared error with everything free, and the possible decrease; gradient in poles, inputs, rows and mixing.

    Theory, eq. (5.5) to (5.7), (8.3).
    """
    s, q, r = mu.size, rows.shape[0], rows_r.shape[1]
    G, D = np.empty((r, r)), np.empty((q, r))
    plain, d_plain = np.empty((s, s), np.complex128), np.empty((s, s), np.complex128)
    hermitian, d_hermitian = np.empty((s, s), np.complex128), np.empty((s, s), np.complex128)
    H, dH = np.empty((q, s), np.complex128), np.empty((q, s), np.complex128)
    _gram_and_cross(code, parameters, lam, f_lam, rows, mu, b, real, G, D, plain, d_plain, hermitian, d_hermitian, H, dH)
    d_own, d_cross = np.empty((q, q)), np.empty((q, q))
    value = _error_and_forms(squared_norm, p, W, G, D, rows_r, W_r, d_own, d_cross, d_W)
    d_G = np.ascontiguousarray(rows_r.T) @ (d_own @ rows_r)
    _pole_gradients(d_G, d_cross @ rows_r, b, real, plain, d_plain, hermitian, d_hermitian, H, dH, gamma, delta)
    d_rows[:] = 2.0 * (d_own @ rows_r) @ G + np.ascontiguousarray(d_cross.T) @ D
    size_b, size_delta, pairing, slope = np.empty(s), np.empty(s), np.empty(s), np.empty(s, np.complex128)
    for i in range(s):
        size_b[i], size_delta[i] = abs(b[i]) ** 2, abs(delta[i]) ** 2
        pairing[i], slope[i] = hermitian[i, i].real, d_hermitian[i, i]
    return value, _possible_decrease(
        code, margin, p, real, mu, size_b, pairing, slope, G, rows_r, d_own, d_G, gamma, size_delta, d_rows, d_W
    )


@njit(cache=True, error_model="numpy")
def _step(old, gradient, step, square, new):
    """A step along the negative gradient into `new`, columns in units of which `square` are the squares; its squared length."""
    moved = 0.0
    for a in range(old.shape[0]):
        for j in range(old.shape[1]):
            new[a, j] = old[a, j] - step * square[j] * gradient[a, j]
            moved += (new[a, j] - old[a, j]) ** 2 / square[j]
    return moved


@njit(cache=True, error_model="numpy")
def _squared_units(code, parameters, mu, real, poles, inputs, rows):
    """Squares of the units in which poles, inputs and rows (r,) move: 1 in discrete time, else by the decay; see eq. (8.2)."""
    least = 0.5 / parameters[0] if code == CONTINUOUS_FINITE else 0.0  # what is slower is constant over the horizon
    im = mu.size
    for i in range(mu.size):
        decay = max(-mu[i].real, least)
        poles[i], inputs[i] = (decay * decay, np.sqrt(2.0 * decay)) if code >= CONTINUOUS else (1.0, 1.0)
        rows[i] = inputs[i]
        if not real[i]:
            rows[im] = inputs[i]
            im += 1


@njit(cache=True, error_model="numpy")
def _descend_channel(
    code, parameters, lam, rows, p, W, squared_norm, mu, b, real, rows_r, W_r, margin, armijo, max_iterations, tolerance, history
):  # fmt: skip
    """Armijo projected gradient for one channel, in place; status (as `_optimise_channel`) and iterations; theory, eq. (8.2)."""
    s = mu.size
    f_lam, unused = np.empty_like(lam), np.empty_like(lam)
    _features(code, parameters, lam, f_lam, unused)
    gamma, delta, d_rows, d_W = np.empty_like(mu), np.empty_like(b), np.empty_like(rows_r), np.empty_like(W_r)
    mu_new, b_new, rows_new, W_new = np.empty_like(mu), np.empty_like(b), np.empty_like(rows_r), np.empty_like(W_r)
    g_new, h_new, r_new, w_new = np.empty_like(mu), np.empty_like(b), np.empty_like(rows_r), np.empty_like(W_r)
    of_poles, of_inputs, of_rows, of_mixing = np.empty(s), np.empty(s), np.empty(rows_r.shape[1]), np.ones(W.shape[1])
    for i in range(s):
        mu[i] = _project_pole(code, mu[i], margin)
    _squared_units(code, parameters, mu, real, of_poles, of_inputs, of_rows)
    value, possible = _free_error(
        code, parameters, lam, f_lam, rows, p, W, squared_norm, margin, mu, b, real, rows_r, W_r, gamma, delta, d_rows, d_W
    )
    history[0] = value
    step = 1.0
    for iteration in range(max_iterations):
        if possible <= tolerance**2 * value:
            return 0, iteration
        step *= 4.0
        accepted = False
        for _ in range(60):
            step *= 0.5
            moved = 0.0
            for i in range(s):
                mu_new[i] = _project_pole(code, mu[i] - step * of_poles[i] * gamma[i].conjugate(), margin)
                b_new[i] = b[i] - step * of_inputs[i] * delta[i].conjugate()
                moved += abs(mu_new[i] - mu[i]) ** 2 / of_poles[i] + abs(b_new[i] - b[i]) ** 2 / of_inputs[i]
            moved += _step(rows_r, d_rows, step, of_rows, rows_new) + _step(W_r, d_W, step, of_mixing, W_new)
            new, new_possible = _free_error(
                code, parameters, lam, f_lam, rows, p, W, squared_norm, margin, mu_new, b_new, real, rows_new, W_new,
                g_new, h_new, r_new, w_new,
            )  # fmt: skip
            if new <= value - armijo / step * moved:
                accepted = True
                break
        if not accepted or not new < value:
            return 0 if possible <= (ROUGHLY * tolerance) ** 2 * value else 2, iteration
        value, possible = new, new_possible
        mu[:], b[:], gamma[:], delta[:] = mu_new, b_new, g_new, h_new
        rows_r[:], W_r[:], d_rows[:], d_W[:] = rows_new, W_new, r_new, w_new
        history[iteration + 1] = value
    return 1, max_iterations


@njit(cache=True, error_model="numpy", parallel=True)
def _descend(
    code, parameters, lam, rows, p, W, squared_norm, mu, b, real, rows_r, W_r, margin, armijo, max_iterations, tolerance,
    history, status, iterations,
):  # fmt: skip
    """`_descend_channel` for every channel of a batch; `rows_r` (channels, q, ≥ r) in real coordinates."""
    for h in prange(mu.shape[0]):
        r = 0
        for flag in real[h]:
            r += 1 if flag else 2
        own = np.ascontiguousarray(rows_r[h, :, :r])
        status[h], iterations[h] = _descend_channel(
            code, parameters, lam[h], rows[h], p, W[h], squared_norm[h], mu[h], b[h], real[h], own, W_r[h],
            margin, armijo, max_iterations, tolerance, history[h],
        )  # fmt: skip
        rows_r[h, :, :r] = own
