"""Quasi-Newton steps on poles and input rows: several inputs, and quadratic outputs over a finite horizon."""

from __future__ import annotations

from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from lqo_mor.analysis.norm import Norm
from lqo_mor.matrix_equations.pairing_kernels import CONTINUOUS, DISCRETE
from lqo_mor.reduction.best_of import chunks, used_slots
from lqo_mor.reduction.descent import quasi_newton_kernels
from lqo_mor.reduction.modal import mode_scores
from lqo_mor.reduction.objective.error import problem_of, projected_error
from lqo_mor.reduction.refit import channel_arrays, fit_outputs, fit_to, squared_norms
from lqo_mor.reduction.result import Outcome, Status, kernel_outcome
from lqo_mor.systems.batches import pad
from lqo_mor.systems.diagonal import DiagonalLQOSystem
from lqo_mor.systems.system import System
from lqo_mor.types import Progress

_TINY = 1e-12  # modulus of a pole of the start below which its angle means nothing
_LIMITED_MEMORY = 300  # unknowns above which a full inverse Hessian costs more than it saves
_SMALL = 1000  # order of full systems up to which more threads do not pay in products with a reduced one
_FLAT = 1e-6  # angle, in units of the decay, below which a pair acts as one real pole
_APART = 1e-3  # distance at which two poles of a start count as different


def optimise_batch(
    sys: DiagonalLQOSystem,
    initial: DiagonalLQOSystem,
    norm: Norm,
    progress: Progress,
    *,
    margin: float,
    ridge: float,
    max_iterations: int,
    tolerance: float,
) -> Outcome:
    """Compiled, for diagonal systems with one input."""
    code, parameters, lam, rows, p, W = channel_arrays(sys, norm)
    squared = squared_norms(sys, norm)
    count, s = lam.shape[0], initial.n_slots
    mu, used = _movable(initial.poles.reshape(count, s), sys.is_continuous), used_slots(initial)
    status, iterations = np.zeros(count, np.int64), np.zeros(count, np.int64)
    history = np.full((count, max_iterations + 1), np.nan)
    for part, size in chunks(used, progress):
        poles, past = np.ascontiguousarray(mu[part, :size]), history[part]
        ended, steps = np.empty(part.size, np.int64), np.empty(part.size, np.int64)
        quasi_newton_kernels._optimise(
            code, parameters, lam[part], rows[part], p, W[part], squared[part], poles, poles.imag == 0,
            margin, ridge, max_iterations, tolerance, past, ended, steps,
        )  # fmt: skip
        mu[part, :size], history[part], status[part], iterations[part] = poles, past, ended, steps
    B = np.where(np.arange(s) < used[:, np.newaxis], 1.0 + 0j, 0.0)
    system = fit_outputs(sys, mu.reshape(*sys.batch, s), B.reshape(*sys.batch, s, 1), norm, ridge)
    return kernel_outcome(system, history, status, iterations)


def optimise_one(
    sys: System,
    initial: DiagonalLQOSystem,
    norm: Norm,
    *,
    margin: float,
    ridge: float,
    max_iterations: int,
    tolerance: float,
) -> Outcome:
    """Any single system, by SciPy's BFGS (L-BFGS for many unknowns) on poles and, with several inputs, input rows."""
    import scipy.optimize  # a fifth of the import time of the package

    problem, real = problem_of(sys, norm), initial.is_real_pole
    s, m, n_pole_parameters = real.size, sys.n_inputs, int(initial.order)
    code = CONTINUOUS if problem.continuous else DISCRETE  # all that the parameters of poles depend on
    mu = _movable(initial.poles, problem.continuous)
    x, origin, scale = np.empty(n_pole_parameters), np.empty(s), np.empty(s)
    quasi_newton_kernels._parameters_from(code, mu, real, margin, x, origin, scale)
    if m == 1:
        B = np.ones((s, 1), complex)
    else:
        B = initial.B / np.linalg.norm(initial.B, axis=1, keepdims=True)
        x = np.concatenate([x, B.real.ravel(), B.imag[~real].ravel()])
    pairs = np.flatnonzero(~real)

    def unpack(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        poles = np.empty(s, complex)
        quasi_newton_kernels._poles_from(code, x[:n_pole_parameters], real, margin, origin, scale, poles)
        if m == 1:
            return poles, B
        inputs = x[n_pole_parameters : n_pole_parameters + s * m].reshape(s, m) + 0j
        inputs[pairs] += 1j * x[n_pole_parameters + s * m :].reshape(-1, m)
        return poles, inputs

    def objective(x: np.ndarray) -> tuple[float, np.ndarray]:
        poles, inputs = unpack(x)
        value, gamma, delta, _ = projected_error(problem, poles, inputs, real, ridge)
        if not np.isfinite(value):
            return np.inf, np.zeros_like(x)
        gradient = np.empty(n_pole_parameters)
        quasi_newton_kernels._parameter_gradient(code, x[:n_pole_parameters], real, margin, scale, poles, gamma, gradient)
        if m > 1:
            gradient = np.concatenate([gradient, delta.real.ravel(), -delta.imag[pairs].ravel()])
        return value / unit, gradient / unit

    unit = 1.0
    unit = max(objective(x)[0], 1e-15 * problem.squared_norm, np.finfo(float).tiny)
    history = [objective(x)[0] * unit]

    def remember(intermediate_result: Any) -> None:
        history.append(intermediate_result.fun * unit)

    many = x.size > _LIMITED_MEMORY
    options = {"maxiter": max_iterations, "gtol": tolerance}
    options |= {"maxcor": 30, "ftol": 1e-3 * tolerance, "maxfun": 10 * max_iterations} if many else {}
    # NumPy and SciPy each have a BLAS, whose waiting threads are in the way of those of the other.
    with threadpool_limits(1 if sys.order <= _SMALL else None, user_api="blas"):
        result = scipy.optimize.minimize(
            objective, x, jac=True, method="L-BFGS-B" if many else "BFGS", callback=remember, options=options
        )
    status = Status.CONVERGED if result.status == 0 else Status.MAX_ITERATIONS if result.status == 1 else Status.STALLED
    poles, inputs = unpack(result.x)
    flat = ~real & (poles.imag == 0)  # a pair that ran into the real axis is still stored as one
    poles = np.where(flat, poles + 1e-9j * np.maximum(np.abs(poles), _TINY), poles)
    system = fit_to(problem, sys, poles, inputs, ridge)
    return Outcome(system, np.array(history), np.array(status), np.array(len(history) - 1))


def _movable(poles: np.ndarray, continuous: bool) -> np.ndarray:
    """A start without pairs that have no angle of their own: flat ones become real poles, one at zero gets an angle."""
    if continuous:
        return np.where(np.abs(poles.imag) < _FLAT * np.abs(poles.real), poles.real, poles)
    tiny = (np.abs(poles) < _TINY) & (poles.imag != 0)
    decay = -np.log(np.maximum(np.abs(poles), _TINY))
    flat = np.minimum(np.abs(np.angle(poles)), np.pi - np.abs(np.angle(poles))) < _FLAT * decay
    return np.where(tiny, _TINY * 1j, np.where(flat, poles.real, poles))


def fill(sys: DiagonalLQOSystem, initial: DiagonalLQOSystem, slots: int, norm: Norm) -> DiagonalLQOSystem:
    """The same start with all its slots in use: idle ones take the strongest modes of the full system that it lacks.

    The outputs of the new modes are zero, so that the system stays what it was.
    """
    initial = pad(initial, slots)
    idle = ~np.any(initial.B, axis=-1)
    if not np.any(idle):
        return initial
    poles, B = initial.poles.copy(), initial.B.copy()
    ranking = np.argsort(-mode_scores(sys, norm), axis=-1, kind="stable")
    for index in map(tuple, np.argwhere(np.any(idle, axis=-1))):
        taken = poles[index][~idle[index]]
        candidates = ranking[index]
        distance = np.min(np.abs(sys.poles[index][candidates, np.newaxis] - taken), axis=1, initial=np.inf)
        new = candidates[np.argsort(distance <= _APART, kind="stable")]  # those that are present already come last
        for slot, mode in zip(np.flatnonzero(idle[index]), new, strict=False):
            poles[(*index, slot)], B[(*index, slot)] = sys.poles[(*index, mode)], sys.B[(*index, mode)]
    return DiagonalLQOSystem(poles, B, initial.C, initial.D, initial.quadratic, initial.dt)
