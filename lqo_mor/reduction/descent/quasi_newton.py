"""Quasi-Newton steps on poles and input rows: several inputs, and quadratic outputs over a finite horizon."""

from __future__ import annotations

from dataclasses import dataclass
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
    progress: Progress,
    *,
    norm: Norm,
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


@dataclass(frozen=True, eq=False)
class Unknowns:
    """Poles of fixed kinds, with several inputs the input rows, too, as one real vector (theory, eq. (8.4)).

    `code` tells the kind of time; real poles stay real; `origin` and `scale` (s,) are the kernels'; with one input its rows `B`
    (s, 1) do not change.
    """

    code: int
    real: np.ndarray
    margin: float
    origin: np.ndarray
    scale: np.ndarray
    B: np.ndarray

    @classmethod
    def of(cls, initial: DiagonalLQOSystem, margin: float) -> tuple[Unknowns, np.ndarray]:
        """Those of a start, and their values there."""
        s, m, real = initial.n_slots, initial.n_inputs, initial.is_real_pole
        code = CONTINUOUS if initial.is_continuous else DISCRETE  # all that the parameters of poles depend on
        x, origin, scale = np.empty(int(initial.order)), np.empty(s), np.empty(s)
        quasi_newton_kernels._parameters_from(
            code, _movable(initial.poles, initial.is_continuous), real, margin, x, origin, scale
        )
        if m == 1:
            return cls(code, real, margin, origin, scale, np.ones((s, 1), complex)), x
        B = initial.B / np.linalg.norm(initial.B, axis=1, keepdims=True)
        return cls(code, real, margin, origin, scale, B), np.concatenate([x, B.real.ravel(), B.imag[~real].ravel()])

    def unpack(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Poles (s,) and input rows (s, m)."""
        (s, m), n = self.B.shape, int(np.sum(2 - self.real))
        poles = np.empty(s, complex)
        quasi_newton_kernels._poles_from(self.code, x[:n], self.real, self.margin, self.origin, self.scale, poles)
        if m == 1:
            return poles, self.B
        inputs = x[n : n + s * m].reshape(s, m) + 0j
        inputs[~self.real] += 1j * x[n + s * m :].reshape(-1, m)
        return poles, inputs

    def gradient(self, x: np.ndarray, poles: np.ndarray, gamma: np.ndarray, delta: np.ndarray) -> np.ndarray:
        """The gradient by `x` from those by poles and input rows."""
        out = np.empty(int(np.sum(2 - self.real)))
        quasi_newton_kernels._parameter_gradient(self.code, x[: out.size], self.real, self.margin, self.scale, poles, gamma, out)
        return out if self.B.shape[1] == 1 else np.concatenate([out, delta.real.ravel(), -delta.imag[~self.real].ravel()])


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

    problem, (unknowns, x) = problem_of(sys, norm), Unknowns.of(initial, margin)
    real, unit = unknowns.real, 1.0

    def objective(x: np.ndarray) -> tuple[float, np.ndarray]:
        poles, inputs = unknowns.unpack(x)
        value, gamma, delta, _ = projected_error(problem, poles, inputs, real, ridge)
        if not np.isfinite(value):
            return np.inf, np.zeros_like(x)
        return value / unit, unknowns.gradient(x, poles, gamma, delta) / unit

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
    poles, inputs = unknowns.unpack(result.x)
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
    return DiagonalLQOSystem(poles, B, initial.C, initial.D, initial.M, dt=initial.dt)
