"""The squared h² error over the infinite horizon, with optimal outputs, as a function of the sections alone.

For one input, project the full system off the span of the reduced poles: what is left is the full system with its
inputs ``b`` replaced by ``τ = Π σ ∘ b``, where ``σ`` are the all-pass factors of the sections at the full poles
(Beurling, Walsh). So the linear part of the error is ``‖R τ‖²`` with a factor of the observability Gramian of the full system,
computed once: no reduced Gramian, nothing to invert, and no difference of large numbers, however small the error (theory,
section 6).

A quadratic output lives on two copies of that space; projected on both it leaves ``2 E₁ − E₂``, with one and with both
copies off the span. ``2 E₁`` joins the linear part in `root`, the Gramian of which contains ``Σ M_i P M_i`` twice;
``E₂ = Σ tr(M_i P_τ M_i P_τ)`` with the Gramian of ``(A, τ)``.
"""

from __future__ import annotations

import numpy as np

from lqo_mor.compiling import njit
from lqo_mor.reduction.sections.sections import N_CONSTANTS, REAL, _constants, _factor, _size

_ROOT2 = np.sqrt(2.0)


@njit(cache=True, error_model="numpy")
def _parameter_count(kinds):
    """Free parameters of all sections."""
    r = 0
    for kind in kinds:
        r += _size(kind)
    return r


@njit(cache=True, error_model="numpy")
def _to_real(real, slots, out):
    """Columns of half storage in the real coordinates of `systems.convert`; theory, eq. (1.6)."""
    im = real.size
    for i in range(real.size):
        scale = 1.0 if real[i] else _ROOT2
        for j in range(slots.shape[1]):
            out[i, j] = scale * slots[i, j].real
            if not real[i]:
                out[im, j] = _ROOT2 * slots[i, j].imag
        if not real[i]:
            im += 1


@njit(cache=True, error_model="numpy")
def _covector(real, gradient, out):
    """``ω`` with ``df = Re Σ ω dτ``, from the gradient in real coordinates; theory, eq. (1.7)."""
    im = real.size
    for i in range(real.size):
        if real[i]:
            out[i] = gradient[i]
        else:
            out[i] = _ROOT2 * complex(gradient[i], -gradient[im])
            im += 1


@njit(cache=True, error_model="numpy")
def _gramian(real, plain, hermitian, tau, out):
    """Gramian of ``(A, τ)`` in real coordinates, from the pairings of the full poles; theory, eq. (1.6)."""
    im_i = real.size
    for i in range(real.size):
        im_j = real.size
        scale_i = 1.0 / _ROOT2 if real[i] else 1.0
        for j in range(real.size):
            scale = scale_i * (1.0 / _ROOT2 if real[j] else 1.0)
            t, h = tau[i] * tau[j] * plain[i, j], tau[i] * tau[j].conjugate() * hermitian[i, j]
            out[i, j] = (h + t).real * scale
            if not real[j]:
                out[i, im_j] = (t - h).imag * scale
            if not real[i]:
                out[im_i, j] = (h + t).imag * scale
                if not real[j]:
                    out[im_i, im_j] = (h - t).real
            if not real[j]:
                im_j += 1
        if not real[i]:
            im_i += 1


@njit(cache=True, error_model="numpy")
def _adjoint_gramian(real, plain, hermitian, d_P, left, right):
    """``left``, ``right``: ``tr(d_P · P_τ)`` has the covector ``2 (left τ + right conj τ)``; Λ and Ρ of theory, eq. (6.9)."""
    im_i = real.size
    for i in range(real.size):
        im_j = real.size
        scale_i = 1.0 / _ROOT2 if real[i] else 1.0
        for j in range(real.size):
            scale = scale_i * (1.0 / _ROOT2 if real[j] else 1.0)
            rr, ii, ri, ir = d_P[i, j] * scale, 0.0, 0.0, 0.0
            if not real[j]:
                ri = d_P[i, im_j] * scale
            if not real[i]:
                ir = d_P[im_i, j] * scale
                if not real[j]:
                    ii = d_P[im_i, im_j]
            left[i, j] = complex(rr - ii, -(ri + ir)) * plain[i, j]
            right[i, j] = complex(rr + ii, ri - ir) * hermitian[i, j]
            if not real[j]:
                im_j += 1
        if not real[i]:
            im_i += 1


@njit(cache=True, error_model="numpy")
def _twice_projected(real, plain, hermitian, rows, T, tau, left, right):
    """``E₂`` (theory, eq. (6.7)) for `rows` ``[U; V]`` and ``T = WᵀW``, and its derivative as `left`, `right`."""
    c = T.shape[0]
    n = rows.shape[1]
    P = np.empty((n, n))
    _gramian(real, plain, hermitian, tau, P)
    S = rows @ P @ np.ascontiguousarray(rows.T)
    d_S = np.empty_like(S)
    value = 0.0
    for j in range(c):
        for k in range(c):
            uu, vv, uv, vu = S[j, k], S[c + j, c + k], S[j, c + k], S[c + j, k]
            value += 0.5 * T[j, k] * (uu * vv + uv * vu)
            d_S[j, k], d_S[c + j, c + k] = 0.5 * T[j, k] * vv, 0.5 * T[j, k] * uu
            d_S[j, c + k], d_S[c + j, k] = 0.5 * T[j, k] * vu, 0.5 * T[j, k] * uv
    d_P = np.ascontiguousarray(rows.T) @ (d_S @ rows)
    _adjoint_gramian(real, plain, hermitian, 0.5 * (d_P + d_P.T), left, right)
    return value


@njit(cache=True, error_model="numpy")
def _factors(data, kinds, x, least, sigma, d1, d2, d11, d12, d22):
    """All-pass factors (sections, n) of all sections at the full poles, and their derivatives; theory, eq. (6.8)."""
    continuous, lam = data[0], data[1]
    constants, k = np.empty(N_CONSTANTS), 0
    for p in range(kinds.size):
        _constants(continuous, kinds[p], x[k], x[k + 1] if kinds[p] != REAL else 0.0, least, constants)
        for i in range(lam.size):
            value, a, b, aa, ab, bb = _factor(continuous, kinds[p], constants, lam[i])
            sigma[p, i] = value if value != 0.0 else 1e-100 + 0.0j  # so that products without it are quotients by it
            d1[p, i], d2[p, i], d11[p, i], d12[p, i], d22[p, i] = a, b, aa, ab, bb
        k += _size(kinds[p])


@njit(cache=True, error_model="numpy")
def _without_each(sigma, b, tau, others):
    """``τ``, and for every section the product of the other factors with `b`, (sections, n); theory, eq. (6.6)."""
    s, n = sigma.shape
    for i in range(n):
        product = b[i]
        for p in range(s):
            others[p, i] = product
            product *= sigma[p, i]
        tau[i] = product
        product = 1.0 + 0.0j
        for p in range(s - 1, -1, -1):
            others[p, i] *= product
            product *= sigma[p, i]


@njit(cache=True, error_model="numpy")
def _inner_error(data, kinds, x, least, gradient, hessian):
    """Squared error of the best outputs, gradient and Hessian without ``−2 Σ tr(M_i dP_τ M_i dP_τ)``; theory, eq. (6.9).

    `data` is ``(continuous, lam, b, real, root, rows, T, plain, hermitian)``: per full slot the pole, the input entry and
    whether it is real; `root` (k, n) in real coordinates; ``[U; V]`` in real coordinates, ``WᵀW`` and the pairings.
    """
    lam, b, real, root, rows, T, plain, hermitian = data[1:]
    s, n, r = kinds.size, lam.size, x.size
    sigma, d1, d2 = np.empty((s, n), np.complex128), np.empty((s, n), np.complex128), np.empty((s, n), np.complex128)
    d11, d12, d22 = np.empty_like(sigma), np.empty_like(sigma), np.empty_like(sigma)
    _factors(data, kinds, x, least, sigma, d1, d2, d11, d12, d22)
    tau, others = np.empty((n, 1), np.complex128), np.empty((s, n), np.complex128)
    _without_each(sigma, b, tau[:, 0], others)
    J = np.empty((n, r), np.complex128)
    k = 0
    for p in range(s):
        for i in range(n):
            J[i, k] = others[p, i] * d1[p, i]
            if kinds[p] != REAL:
                J[i, k + 1] = others[p, i] * d2[p, i]
        k += _size(kinds[p])
    t, slopes = np.empty((root.shape[1], 1)), np.empty((root.shape[1], r))
    _to_real(real, tau, t)
    _to_real(real, J, slopes)
    residual, slopes = root @ t, root @ slopes
    value = 0.0
    for k in range(residual.shape[0]):
        value += residual[k, 0] ** 2
    omega = np.empty(n, np.complex128)
    _covector(real, (2.0 * residual.T @ root)[0], omega)
    hessian[:] = 2.0 * np.ascontiguousarray(slopes.T) @ slopes
    if T.shape[0]:
        left, right = np.empty((n, n), np.complex128), np.empty((n, n), np.complex128)
        value -= _twice_projected(real, plain, hermitian, rows, T, tau[:, 0], left, right)
        omega -= 2.0 * (left @ tau + right @ tau.conj())[:, 0]
        hessian -= 2.0 * (np.ascontiguousarray(J.T) @ (left @ J + right @ J.conj())).real
    for j in range(r):
        gradient[j] = 0.0
        for i in range(n):
            gradient[j] += (omega[i] * J[i, j]).real
    # Second derivatives of τ: across sections the slopes J over the other section's factor, within one its own.
    ratio = np.empty((n, r), np.complex128)  # times ω
    k = 0
    for p in range(s):
        for i in range(n):
            ratio[i, k] = omega[i] * d1[p, i] / sigma[p, i]
            if kinds[p] != REAL:
                ratio[i, k + 1] = omega[i] * d2[p, i] / sigma[p, i]
        k += _size(kinds[p])
    curvature = (np.ascontiguousarray(J.T) @ ratio).real
    k = 0
    for p in range(s):
        own11, own12, own22 = 0.0, 0.0, 0.0
        for i in range(n):
            z = omega[i] * others[p, i]
            own11 += (z * d11[p, i]).real
            own12 += (z * d12[p, i]).real
            own22 += (z * d22[p, i]).real
        curvature[k, k] = own11
        if kinds[p] != REAL:
            curvature[k, k + 1], curvature[k + 1, k], curvature[k + 1, k + 1] = own12, own12, own22
        k += _size(kinds[p])
    hessian += 0.5 * (curvature + curvature.T)
    return value
