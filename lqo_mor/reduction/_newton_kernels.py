"""Compiled Newton steps on the sections of one reduced system, and a search that exchanges sections."""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from lqo_mor.matrix_equations._kernels import CONTINUOUS
from lqo_mor.reduction._candidate_kernels import _additions, _candidate_parts, _removals
from lqo_mor.reduction._inner_kernels import _inner_error, _parameter_count
from lqo_mor.reduction._projection_kernels import _projected_newton
from lqo_mor.reduction._sections import PAIR, REAL, _size
from lqo_mor.reduction._start_kernels import N_ANGLES, N_DECAYS, _balanced_poles, _candidates, _sections_of

_LONGEST = 2.0  # of a step in a logarithmic parameter
_ON_THE_WAY = 5  # steps while sections are still being added
_TRIAL = 10  # steps that every start gets


@njit(cache=True, error_model="numpy")
def _damped_step(gradient, hessian, scale, damping, step):
    """``−(H + damping diag(scale))⁻¹ g`` by Cholesky; False if that matrix is not positive definite."""
    r = gradient.size
    L = np.empty((r, r))
    for i in range(r):
        for j in range(i + 1):
            total = hessian[i, j]
            if i == j:
                total += damping * scale[i]
            for k in range(j):
                total -= L[i, k] * L[j, k]
            if i == j:
                if not total > 1e-14 * scale[i]:
                    return False
                L[i, i] = np.sqrt(total)
            else:
                L[i, j] = total / L[j, j]
    for i in range(r):
        total = -gradient[i]
        for k in range(i):
            total -= L[i, k] * step[k]
        step[i] = total / L[i, i]
    for i in range(r - 1, -1, -1):
        total = step[i]
        for k in range(i + 1, r):
            total -= L[k, i] * step[k]
        step[i] = total / L[i, i]
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


@njit(cache=True, error_model="numpy")
def _newton(data, kinds, x, least, limit, max_iterations, tolerance, history):
    """Damped Newton steps on `x`, in place; the squared error, a status and the number of accepted steps.

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
        if np.max(np.abs(gradient)) <= tolerance * value or value <= floor:
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
            for j in range(k, k + _size(kind)):
                trial[j] = x[j] + step[j] if kind == PAIR else min(max(x[j] + step[j], -limit), limit)
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
                return value, 0 if np.max(np.abs(gradient)) <= 1e3 * tolerance * value else 2, accepted
        else:
            damping = max(6.0 * damping, 1e-6)
            if damping > 1e12:
                return value, 2, accepted
    return value, 1, accepted


@njit(cache=True, error_model="numpy")
def _grow(data, kinds, x, count, sections, parts, reals, real_parts, least, limit, history):
    """Fill `x` from `count` sections on, each time with the candidate that leaves least, and a few steps on all of them."""
    for p in range(count, kinds.size):
        k = _parameter_count(kinds[:p])
        if kinds[p] == REAL:
            x[k] = reals[np.argmin(_additions(data, kinds[:p], x[:k], least, real_parts)), 0]
        else:
            x[k : k + 2] = sections[np.argmin(_additions(data, kinds[:p], x[:k], least, parts))]
        if p + 1 < kinds.size:
            k += _size(kinds[p])
            _newton(data, kinds[: p + 1], x[:k], least, limit, _ON_THE_WAY, 1e-2, history)


@njit(cache=True, error_model="numpy")
def _exchange(data, kinds, x, value, tries, sections, parts, reals, real_parts, least, limit, steps, tolerance, past):
    """Replace the section that is missed least by the best candidate and optimise; squared error, status and steps.

    `x` and the history `past` change only if the error falls by more than a tenth of a per mille; status -1 if it does not.
    Sections are tried in the order of what they contribute, `tries` of them.
    """
    missed = _removals(data, kinds, x, least)
    trial, history = np.empty_like(x), np.empty_like(past)
    rest, others = np.empty_like(x), np.empty_like(kinds)
    for p in np.argsort(missed)[:tries]:
        k, size = _parameter_count(kinds[:p]), _size(kinds[p])
        others[:p], others[p:-1] = kinds[:p], kinds[p + 1 :]
        rest[:k], rest[k : x.size - size] = x[:k], x[k + size :]
        trial[:] = x
        if kinds[p] == REAL:
            scores = _additions(data, others[:-1], rest[: x.size - size], least, real_parts)
            trial[k] = reals[np.argmin(scores), 0]
        else:
            scores = _additions(data, others[:-1], rest[: x.size - size], least, parts)
            trial[k : k + 2] = sections[np.argmin(scores)]
        new, status, accepted = _newton(data, kinds, trial, least, limit, steps, tolerance, history)
        if new < (1.0 - 1e-4) * value:
            x[:], past[:] = trial, history
            return new, status, accepted
    return value, -1, 0


@njit(cache=True, error_model="numpy")
def _search(
    data,
    kinds,
    starts,
    counts,
    sections,
    section_kind,
    reals,
    trial_steps,
    exchanges,
    least,
    limit,
    max_iterations,
    tolerance,
    history,
):
    """The best of several starts, improved by exchanging sections.

    `starts` (number, r) hold the parameters, complete up to `counts` sections; `kinds` (number, sections) may differ. Each
    gets `trial_steps`, the best goes on.
    Returns which start won, its parameters, the squared error, status, steps and the squared error of the first start;
    `history` is that of the last run.
    """
    parts = _candidate_parts(data, section_kind, sections, least)
    real_parts = _candidate_parts(data, REAL, reals, least)
    best, winner, status, steps, first = np.inf, 0, 2, 0, np.inf
    x, past = np.zeros(starts.shape[1]), np.empty(history.size)
    for k in range(starts.shape[0]):
        own = kinds[k]
        trial = starts[k, : _parameter_count(own)].copy()
        _grow(data, own, trial, counts[k], sections, parts, reals, real_parts, least, limit, past)
        value, ended, accepted = _newton(data, own, trial, least, limit, min(trial_steps, max_iterations), tolerance, past)
        if k == 0:
            first = past[0]
        if value < best:
            best, winner, status, steps = value, k, ended, accepted
            x[: trial.size], history[:] = trial, past
    own = kinds[winner].copy()
    r = _parameter_count(own)
    if status == 1:  # only the most promising start is followed to its end
        best, status, accepted = _newton(data, own, x[:r], least, limit, max_iterations - steps, tolerance, past)
        history[steps : steps + accepted + 1] = past[: accepted + 1]
        steps += accepted
    for _ in range(exchanges):
        value, ended, accepted = _exchange(
            data,
            own,
            x[:r],
            best,
            exchanges,
            sections,
            parts,
            reals,
            real_parts,
            least,
            limit,
            max_iterations,
            tolerance,
            history,
        )
        if ended < 0:
            break
        best, status, steps = value, ended, accepted
    return winner, x, best, status, steps, first


@njit(cache=True, error_model="numpy", parallel=True)
def _search_batch(
    code, parameters, lam, f_lam, outputs, squared_norm, kinds, least, limit, ridge, exchanges, max_iterations, tolerance,
    ended_kinds, x, start, squared, status, steps, history,
):  # fmt: skip
    """`_search` for every channel of a batch with one input and linear outputs, from balanced truncation and from nothing."""
    for h in prange(lam.shape[0]):
        if not squared_norm[h] > 0.0:  # no transfer: any poles will do
            x[h], ended_kinds[h] = np.linspace(0.1, 1.0, x.shape[1]), kinds
            start[h], squared[h], status[h], steps[h], history[h, 0] = 0.0, 0.0, 0, 0, 0.0
            continue
        real = lam[h].imag == 0.0
        none, nothing = np.zeros((0, 0)), np.zeros((0, 0), np.complex128)
        data = (
            code, parameters, lam[h], np.ones(lam.shape[1], np.complex128), real, none, none, none, nothing, nothing,
            f_lam[h], outputs[h], squared_norm[h], ridge, False,
        )  # fmt: skip
        n_parameters = _parameter_count(kinds)
        sections, reals = np.empty((lam.shape[1] + N_DECAYS * (N_ANGLES + 2), 2)), np.empty((N_DECAYS, 2))
        _candidates(code >= CONTINUOUS, kinds[0], lam[h], least, limit, sections, reals)
        layouts, starts, counts = np.empty((2, kinds.size), np.int64), np.zeros((2, n_parameters)), np.zeros(2, np.int64)
        layouts[0], layouts[1] = kinds, kinds
        order = n_parameters
        while order > 0:  # of a budget in slots each real pole takes one
            poles = _balanced_poles(code, parameters, lam[h], f_lam[h], data[3], outputs[h], real, order)
            needed = np.sum(poles.imag > 0.0) + np.sum(poles.imag == 0.0)
            if kinds[0] != PAIR or needed <= kinds.size:
                break
            order -= 1
        counts[0] = _sections_of(code >= CONTINUOUS, poles, layouts[0], least, limit, starts[0])
        winner, best, squared[h], status[h], steps[h], start[h] = _search(
            data, layouts, starts, counts, sections, kinds[0], reals, _TRIAL, exchanges, least, limit, max_iterations,
            tolerance, history[h],
        )  # fmt: skip
        x[h], ended_kinds[h] = best, layouts[winner]
