"""Compiled projected gradient for batches of diagonal systems with one input; twin: `projected_gradient._descend_one`."""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from lqo_mor.matrix_equations.pairing_kernels import CONTINUOUS, _features
from lqo_mor.reduction.objective.error_kernels import _error_and_forms, _gram_and_cross, _pole_gradients


@njit(cache=True, error_model="numpy")
def _free_error(code, parameters, lam, f_lam, rows, p, W, squared_norm, mu, b, real, rows_r, W_r, gamma, delta, d_rows, d_W):
    """Squared error with everything free; gradient in poles, inputs, rows and mixing; theory, eq. (5.5) to (5.7)."""
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
    return value


@njit(cache=True, error_model="numpy")
def _project_pole(code, z, margin):
    """The nearest pole with ``|z| ≤ 1 − margin``, or ``Re z ≤ −margin`` in continuous time; theory, eq. (8.1)."""
    if code >= CONTINUOUS:
        return complex(min(z.real, -margin), z.imag)
    size = abs(z)
    return z if size <= 1.0 - margin else z * ((1.0 - margin) / size)


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
    for i in range(s):
        mu[i] = _project_pole(code, mu[i], margin)
    value = _free_error(
        code, parameters, lam, f_lam, rows, p, W, squared_norm, mu, b, real, rows_r, W_r, gamma, delta, d_rows, d_W
    )
    history[0] = value
    step = 1.0
    for iteration in range(max_iterations):
        norm = np.sum(d_rows**2) + np.sum(d_W**2)
        for i in range(s):
            norm += abs(_project_pole(code, mu[i] - gamma[i].conjugate(), margin) - mu[i]) ** 2 + abs(delta[i]) ** 2
        if np.sqrt(norm) <= tolerance:
            return 0, iteration
        step *= 4.0
        accepted = False
        for _ in range(60):
            step *= 0.5
            moved = 0.0
            for i in range(s):
                mu_new[i] = _project_pole(code, mu[i] - step * gamma[i].conjugate(), margin)
                b_new[i] = b[i] - step * delta[i].conjugate()
                moved += abs(mu_new[i] - mu[i]) ** 2 + abs(b_new[i] - b[i]) ** 2
            rows_new[:] = rows_r - step * d_rows
            W_new[:] = W_r - step * d_W
            moved += np.sum((rows_new - rows_r) ** 2) + np.sum((W_new - W_r) ** 2)
            new = _free_error(
                code, parameters, lam, f_lam, rows, p, W, squared_norm, mu_new, b_new, real, rows_new, W_new,
                g_new, h_new, r_new, w_new,
            )  # fmt: skip
            if new <= value - armijo / step * moved:
                accepted = True
                break
        if not accepted or not new < value:
            return 2, iteration
        value = new
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
