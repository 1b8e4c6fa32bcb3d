"""Compiled counterpart of `error.py` for batches of diagonal systems with one input.

The same quantities under the same names, one channel at a time; `error.py` is the readable twin that the
tests hold it against. Arrays of a channel: `lam` (n,) poles of the full system, `rows` (q, n) its output rows
times the input entries and the pair weights, `mu` and `b` (s,) of the reduced one, `real` its real poles.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from lqo_mor.compiling import njit
from lqo_mor.matrix_equations.pairing_kernels import _features, _pair
from lqo_mor.matrix_equations.small_dense import _backward, _cholesky, _forward, _rounding

_ROOT2 = np.sqrt(2.0)
LOST = 1e-13  # relative size of a squared coordinate below which it is rounding


@njit(cache=True, error_model="numpy")
def _real_size(real):
    """Number of real coordinates of the slots."""
    r = 0
    for flag in real:
        r += 1 if flag else 2
    return r


@njit(cache=True, error_model="numpy")
def _drop_lost_coordinates(real, G, D):
    """Take out of `G` and `D` the coordinate of a pair on the real axis whose size is only rounding.

    Its diagonal entry is a difference of two nearly equal numbers; the row gets the unit of its partner and no
    coupling, so that the fitted output along it is zero.
    """
    im = real.size
    for i in range(real.size):
        if real[i]:
            continue
        lost = im if G[im, im] < G[i, i] else i
        partner = i if lost == im else im
        if G[lost, lost] <= LOST * G[partner, partner]:
            G[lost, :] = 0.0
            G[:, lost] = 0.0
            G[lost, lost] = G[partner, partner]
            D[:, lost] = 0.0
        im += 1


@njit(cache=True, error_model="numpy")
def _gram_and_cross(code, parameters, lam, f_lam, rows, mu, b, real, G, D, plain, d_plain, hermitian, d_hermitian, H, dH):
    """Gramian `G` (r, r), cross rows `D` (q, r) and the parts of their derivatives; theory, eq. (1.6), (5.4)."""
    s, n, q = mu.size, lam.size, rows.shape[0]
    f_mu, df_mu = np.empty_like(mu), np.empty_like(mu)
    _features(code, parameters, mu, f_mu, df_mu)
    H[:] = 0.0
    dH[:] = 0.0
    for j in range(s):
        for i in range(n):
            g, dg = _pair(code, parameters, lam[i], f_lam[i], mu[j], f_mu[j], df_mu[j])
            h, dh = _pair(code, parameters, lam[i].conjugate(), f_lam[i].conjugate(), mu[j], f_mu[j], df_mu[j])
            for a in range(q):
                H[a, j] += rows[a, i] * g + rows[a, i].conjugate() * h
                dH[a, j] += rows[a, i] * dg + rows[a, i].conjugate() * dh
    im = s
    for j in range(s):
        for a in range(q):
            z = H[a, j] * b[j]
            D[a, j] = z.real if real[j] else _ROOT2 * z.real
            if not real[j]:
                D[a, im] = _ROOT2 * z.imag
        if not real[j]:
            im += 1
    im_i = s
    for i in range(s):
        im_j = s
        for j in range(s):
            plain[i, j], d_plain[i, j] = _pair(code, parameters, mu[j], f_mu[j], mu[i], f_mu[i], df_mu[i])
            hermitian[i, j], d_hermitian[i, j] = _pair(
                code, parameters, mu[j].conjugate(), f_mu[j].conjugate(), mu[i], f_mu[i], df_mu[i]
            )
            t, h = b[i] * b[j] * plain[i, j], b[i] * b[j].conjugate() * hermitian[i, j]
            scale = (1.0 / _ROOT2 if real[i] else 1.0) * (1.0 / _ROOT2 if real[j] else 1.0)
            G[i, j] = (h + t).real * scale
            if not real[j]:
                G[i, im_j] = (t - h).imag * scale
            if not real[i]:
                G[im_i, j] = (h + t).imag * scale
                if not real[j]:
                    G[im_i, im_j] = (h - t).real
            if not real[j]:
                im_j += 1
        if not real[i]:
            im_i += 1
    _drop_lost_coordinates(real, G, D)


@njit(cache=True, error_model="numpy")
def _add_ridge(real, ridge, G):
    """Add `ridge` times the size of each slot, ``Σ |μ^k|²``, to its diagonal entries; theory, eq. (6.2).

    Both coordinates of a pair get the same, so that it is the residues that stay bounded, also where a pair
    comes close to the real axis and one of its coordinates is small. The map is its own adjoint, so that the same
    call carries ``∂f/∂(G + ridge)`` back to ``∂f/∂G``.
    """
    im = real.size
    for i in range(real.size):
        if real[i]:
            G[i, i] += ridge * G[i, i]
        else:
            size = 0.5 * (G[i, i] + G[im, im])
            G[i, i] += ridge * size
            G[im, im] += ridge * size
            im += 1


@njit(cache=True, error_model="numpy")
def _solve_rows(G, D, rows):
    """``Θ = D G⁻¹`` by Cholesky; False if the Gramian is not positive definite to rounding; theory, eq. (6.1)."""
    L, columns = np.empty(G.shape), np.ascontiguousarray(D.T)
    if not _cholesky(G, L, _rounding(G)):
        return False
    _forward(L, columns)
    _backward(L, columns)
    rows[:] = columns.T
    return True


@njit(cache=True, error_model="numpy")
def _error_and_forms(squared_norm, p, W, G, D, rows, W_r, d_own, d_cross, d_W):
    """Squared error and its derivatives by the row covariances and by the mixing matrix `W_r`; theory, eq. (5.5), (5.6)."""
    c = W.shape[1]
    transposed = np.ascontiguousarray(rows.T)
    own, cross = rows @ G @ transposed, D @ transposed
    value = squared_norm
    d_own[:] = 0.0
    d_cross[:] = 0.0
    d_W[:] = 0.0
    for i in range(p):
        value += own[i, i] - 2.0 * cross[i, i]
        d_own[i, i] = 1.0
        d_cross[i, i] = -2.0
    for j in range(c):
        for k in range(c):
            u_j, u_k, v_j, v_k = p + j, p + k, p + c + j, p + c + k
            t, t_r = 0.0, 0.0
            for i in range(p):
                t += W[i, j] * W_r[i, k]
                t_r += W_r[i, j] * W_r[i, k]
            product = own[u_j, u_k] * own[v_j, v_k] + own[u_j, v_k] * own[v_j, u_k]
            product_cross = cross[u_j, u_k] * cross[v_j, v_k] + cross[u_j, v_k] * cross[v_j, u_k]
            value += 0.5 * t_r * product - t * product_cross
            d_own[u_j, u_k] = 0.5 * t_r * own[v_j, v_k]
            d_own[v_j, v_k] = 0.5 * t_r * own[u_j, u_k]
            d_own[u_j, v_k] = 0.5 * t_r * own[v_j, u_k]
            d_own[v_j, u_k] = 0.5 * t_r * own[u_j, v_k]
            d_cross[u_j, u_k] = -t * cross[v_j, v_k]
            d_cross[v_j, v_k] = -t * cross[u_j, u_k]
            d_cross[u_j, v_k] = -t * cross[v_j, u_k]
            d_cross[v_j, u_k] = -t * cross[u_j, v_k]
            for i in range(p):
                d_W[i, k] += W_r[i, j] * product - W[i, j] * product_cross
    return value


@njit(cache=True, error_model="numpy")
def _pole_gradients(d_G, d_D, b, real, plain, d_plain, hermitian, d_hermitian, H, dH, gamma, delta):
    """``γ`` and ``δ`` with ``df = Re Σ γ dμ + Re Σ δ db``, from ``∂f/∂G`` (symmetric) and ``∂f/∂D``; theory, eq. (5.7)."""
    s, q = b.size, H.shape[0]
    im_i = s
    for i in range(s):
        g_total, d_total = 0.0j, 0.0j
        scale_i = 1.0 / _ROOT2 if real[i] else 1.0
        for a in range(q):
            z = complex(d_D[a, i], 0.0) if real[i] else _ROOT2 * complex(d_D[a, i], -d_D[a, im_i])
            g_total += z * dH[a, i] * b[i]
            d_total += z * H[a, i]
        im_j = s
        for j in range(s):
            scale = scale_i * (1.0 / _ROOT2 if real[j] else 1.0)
            rr, ii, ri, ir = d_G[i, j] * scale, 0.0, 0.0, 0.0
            if not real[j]:
                ri = d_G[i, im_j] * scale
            if not real[i]:
                ir = d_G[im_i, j] * scale
                if not real[j]:
                    ii = d_G[im_i, im_j]
            alpha, beta = complex(rr - ii, -(ri + ir)), complex(rr + ii, ri - ir)
            g_total += 2.0 * b[i] * (alpha * b[j] * d_plain[i, j] + beta * b[j].conjugate() * d_hermitian[i, j])
            d_total += 2.0 * (alpha * b[j] * plain[i, j] + beta * b[j].conjugate() * hermitian[i, j])
            if not real[j]:
                im_j += 1
        gamma[i] = complex(g_total.real, 0.0) if real[i] else g_total
        delta[i] = complex(d_total.real, 0.0) if real[i] else d_total
        if not real[i]:
            im_i += 1


@njit(cache=True, error_model="numpy")
def _projected_error(code, parameters, lam, f_lam, rows, p, W, squared_norm, mu, real, ridge, optimal, gamma):
    """Squared error with the optimal outputs (input entries 1), into `optimal`; gradient into `gamma`; theory, section 6."""
    s, q, r = mu.size, rows.shape[0], _real_size(real)
    b = np.ones(s, np.complex128)
    G, D = np.empty((r, r)), np.empty((q, r))
    plain, d_plain = np.empty((s, s), np.complex128), np.empty((s, s), np.complex128)
    hermitian, d_hermitian = np.empty((s, s), np.complex128), np.empty((s, s), np.complex128)
    H, dH = np.empty((q, s), np.complex128), np.empty((q, s), np.complex128)
    _gram_and_cross(code, parameters, lam, f_lam, rows, mu, b, real, G, D, plain, d_plain, hermitian, d_hermitian, H, dH)
    _add_ridge(real, ridge, G)
    if not _solve_rows(G, D, optimal):
        return np.inf
    d_own, d_cross, d_W = np.empty((q, q)), np.empty((q, q)), np.empty_like(W)
    value = _error_and_forms(squared_norm, p, W, G, D, optimal, W, d_own, d_cross, d_W)
    d_G = np.ascontiguousarray(optimal.T) @ (d_own @ optimal)
    _add_ridge(real, ridge, d_G)
    delta = np.empty_like(gamma)
    _pole_gradients(d_G, d_cross @ optimal, b, real, plain, d_plain, hermitian, d_hermitian, H, dH, gamma, delta)
    return value


@njit(cache=True, error_model="numpy")
def _fit_channel(code, parameters, lam, rows, mu, b, real, ridge, optimal):
    """Optimal output rows of given poles and input entries into `optimal` (q, r); theory, eq. (6.1)."""
    s, q, r = mu.size, rows.shape[0], _real_size(real)
    f_lam, unused = np.empty_like(lam), np.empty_like(lam)
    _features(code, parameters, lam, f_lam, unused)
    G, D = np.empty((r, r)), np.empty((q, r))
    plain, d_plain = np.empty((s, s), np.complex128), np.empty((s, s), np.complex128)
    hermitian, d_hermitian = np.empty((s, s), np.complex128), np.empty((s, s), np.complex128)
    H, dH = np.empty((q, s), np.complex128), np.empty((q, s), np.complex128)
    _gram_and_cross(code, parameters, lam, f_lam, rows, mu, b, real, G, D, plain, d_plain, hermitian, d_hermitian, H, dH)
    attempt, regular = ridge, G.copy()
    _add_ridge(real, attempt, regular)
    while not _solve_rows(regular, D, optimal):  # poles that meet: the smallest ridge that works
        attempt = max(10.0 * attempt, 1e-15)
        if attempt > 1.0:
            optimal[:] = np.nan
            return
        regular[:] = G
        _add_ridge(real, attempt, regular)


@njit(cache=True, error_model="numpy", parallel=True)
def _fit(code, parameters, lam, rows, mu, b, real, ridge, optimal):
    """`_fit_channel` for every channel of a batch; `optimal` (channels, q, 2s) is filled as far as it applies."""
    for h in prange(mu.shape[0]):
        fitted = np.empty((rows.shape[1], _real_size(real[h])))
        _fit_channel(code, parameters, lam[h], rows[h], mu[h], b[h], real[h], ridge, fitted)
        optimal[h, :, : fitted.shape[1]] = fitted
