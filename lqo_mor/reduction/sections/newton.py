"""Compiled Newton steps on the sections of one reduced system."""

from __future__ import annotations

import numpy as np

from lqo_mor.compiling import njit
from lqo_mor.matrix_equations.pairing_kernels import CONTINUOUS
from lqo_mor.matrix_equations.small_dense import _backward, _cholesky, _forward
from lqo_mor.reduction.sections.allpass_error import _inner_error
from lqo_mor.reduction.sections.residue_error import _projected_newton
from lqo_mor.reduction.sections.sections import PAIR, REAL, _size, _within

_LONGEST = 2.0  # of a step in a logarithmic parameter


@njit(cache=True, error_model="numpy")
def _largest(values):
    """Largest modulus."""
    out = 0.0
    for value in values:
        out = max(out, abs(value))
    return out


@njit(cache=True, error_model="numpy")
def _damped_step(gradient, hessian, scale, damping, step):
    """``−(H + damping diag(scale))⁻¹ g`` by Cholesky; False if that matrix is not positive definite; theory, eq. (6.14)."""
    L, damped, column = np.empty(hessian.shape), hessian.copy(), np.empty((gradient.size, 1))
    for i in range(gradient.size):
        damped[i, i] += damping * scale[i]
        column[i, 0] = -gradient[i]
    if not _cholesky(damped, L, 1e-14 * scale):
        return False
    _forward(L, column)
    _backward(L, column)
    step[:] = column[:, 0]
    return True


@njit(cache=True, error_model="numpy")
def _limit_step(kinds, step):
    """Shorten a step so that no logarithmic parameter moves by more than `_LONGEST`."""
    largest, k = 0.0, 0
    for kind in kinds:
        largest = max(largest, abs(step[k]))
        if kind != REAL and kind != PAIR:
            largest = max(largest, abs(step[k + 1]))
        k += _size(kind)
    if largest > _LONGEST:
        step *= _LONGEST / largest


@njit(cache=True, error_model="numpy")
def _objective(data, kinds, x, least, gradient, hessian):
    """The squared error with optimal outputs, its gradient and its Hessian, in the form that the data ask for."""
    code, parameters, lam, b, real, root, rows, T, plain, hermitian, f_lam, outputs, squared_norm, ridge, inner = data
    if inner:
        own = (code >= CONTINUOUS, lam, b, real, root, rows, T, plain, hermitian)
        return _inner_error(own, kinds, x, least, gradient, hessian)
    return _projected_newton(code, parameters, lam, f_lam, outputs, squared_norm, ridge, kinds, x, least, gradient, hessian)


@njit(cache=True, error_model="numpy", nogil=True)
def _newton(data, kinds, x, least, limit, max_iterations, tolerance, history):
    """Damped Newton steps on `x`, in place; the squared error, a status and the number of accepted steps; theory, eq. (6.14).

    Status 0: no component of the gradient exceeds `tolerance` times the squared error; 1: steps used up; 2: no decrease.
    """
    r = x.size
    gradient, hessian = np.empty(r), np.empty((r, r))
    new_gradient, new_hessian = np.empty(r), np.empty((r, r))
    value = _objective(data, kinds, x, least, gradient, hessian)
    history[0] = value
    step, scale, trial = np.empty(r), np.empty(r), np.empty(r)
    damping, floor, accepted = 1e-3, 1e-30 * value, 0
    for _ in range(2 * max_iterations):
        if _largest(gradient) <= tolerance * value or value <= floor:
            return value, 0, accepted
        if accepted == max_iterations:
            return value, 1, accepted
        for i in range(r):
            scale[i] = max(abs(hessian[i, i]), 1e-8 * value)
        while not _damped_step(gradient, hessian, scale, damping, step):
            damping = max(4.0 * damping, 1e-3)
            if damping > 1e12:
                return value, 2, accepted
        _limit_step(kinds, step)
        k = 0
        for kind in kinds:
            for j in range(_size(kind)):
                trial[k + j] = _within(kind, j, x[k + j] + step[k + j], limit)
            k += _size(kind)
        step[:] = trial - x
        predicted = -(gradient @ step + 0.5 * (step @ (hessian @ step)))
        new = _objective(data, kinds, trial, least, new_gradient, new_hessian)
        if new < value and np.isfinite(new):
            ratio = (value - new) / predicted if predicted > 0 else 0.0
            small = value - new <= 1e-13 * value
            x[:], gradient[:], hessian[:] = trial, new_gradient, new_hessian
            value = new
            accepted += 1
            history[accepted] = value
            if ratio > 0.75:
                damping = 0.1 * damping if damping > 1e-9 else 0.0
            elif ratio < 0.25:
                damping = max(4.0 * damping, 1e-6)
            if small:
                return value, 0 if _largest(gradient) <= 1e3 * tolerance * value else 2, accepted
        else:
            damping = max(6.0 * damping, 1e-6)
            if damping > 1e12:
                return value, 2, accepted
    return value, 1, accepted
