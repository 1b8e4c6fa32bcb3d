"""Projected gradient descent with Armijo backtracking, the published reference method."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeAlias, TypeVar, cast

import numpy as np

from lqo_mor.analysis.door import prepared
from lqo_mor.analysis.norm import Norm
from lqo_mor.analysis.norms import norm_value
from lqo_mor.analysis.rows import stack_rows
from lqo_mor.reduction.best_of import chunks, iterate, used_slots
from lqo_mor.reduction.budget import Budget, budget_of
from lqo_mor.reduction.descent import projected_gradient_kernels
from lqo_mor.reduction.objective.error import (
    Problem,
    error_and_forms,
    evaluate,
    pole_gradients,
    problem_of,
    reduced_system,
    without_feedthrough,
)
from lqo_mor.reduction.refit import channel_arrays, channel_system, fit_outputs, rows_from_real, rows_to_real, squared_norms
from lqo_mor.reduction.result import Outcome, Reduction, Status, kernel_outcome
from lqo_mor.reduction.starts import Start, check_options, start_reduction
from lqo_mor.systems.convert import real_rows
from lqo_mor.systems.diagonal import DiagonalLQOSystem
from lqo_mor.systems.poles import clamped
from lqo_mor.systems.quadratic import QuadraticOutput, factor_symmetric
from lqo_mor.systems.system import System
from lqo_mor.types import Progress


def projected_gradient(
    sys: System,
    order: int | None = None,
    *,
    slots: int | None = None,
    horizon: float | None = None,
    start: Start | None = None,
    margin: float = 1e-6,
    armijo: float = 1e-4,
    max_iterations: int = 3000,
    tolerance: float = 1e-6,
    progress: Progress | None = None,
) -> Reduction:
    """Projected gradient descent on the squared h² error with Armijo backtracking.

    All of ``(μ, B_r, C_r, U_r, V_r, W_r)`` are free. A step goes along the negative gradient, the poles are
    projected onto ``|μ| ≤ 1 − margin`` (continuous time: ``Re μ ≤ −margin``), and the step length `α` is halved
    until ``f(new) ≤ f(old) − armijo/α ‖new − old‖²``. Every accepted step decreases the error; limit points are
    stationary points of the constrained problem.

    Parameters
    ----------
    sys, order, slots, horizon
        As for `reduce`.
    start : Reduction, system or str, optional
        Where to start, or the name of the method that makes the start; balanced truncation by default.
    margin : float, default 1e-6
        Distance that poles keep from the stability boundary.
    armijo : float, default 1e-4
        Constant of the sufficient decrease.
    max_iterations : int, default 3000
        Most accepted steps.
    tolerance : float, default 1e-6
        Stop when the norm of the projected gradient of the squared error, relative to the squared norm of the
        full system, is at most this. `Status.CONVERGED` certifies it.
    progress : callable, optional
        Called as ``progress(done, total)`` with channels of a batch.

    Returns
    -------
    Reduction
        Never worse than the start and never unstable; `history` holds the squared error.

    Raises
    ------
    OrderError, UnstableSystemError
        As for `reduce`.

    References
    ----------
    arXiv:2510.14542, Algorithm 1.

    Examples
    --------
    >>> import numpy as np, lqo_mor as lqo
    >>> sys = lqo.DiagonalLQOSystem([0.9, 0.8, -0.3], [[1.0]] * 3, [[1.0, 0.5, 0.2]], dt=1.0)
    >>> red = lqo.projected_gradient(sys, order=2)
    >>> bool(np.all(np.diff(red.history) < 0))
    True
    """
    sys, norm = prepared(sys, horizon)
    return descend(
        sys, budget_of(sys, order, slots), norm, start=start, margin=margin, armijo=armijo, max_iterations=max_iterations,
        tolerance=tolerance, progress=progress,
    )  # fmt: skip


@dataclass(frozen=True)
class Options:
    """Those of `projected_gradient`."""

    margin: float = 1e-6
    armijo: float = 1e-4
    max_iterations: int = 3000
    tolerance: float = 1e-6


def descend(
    sys: System, budget: Budget, norm: Norm, *, start: Start | None = None, progress: Progress | None = None, **given: Any
) -> Reduction:
    """`projected_gradient` in a norm."""
    options = Options(**given)
    check_options(sys.is_continuous, **vars(options))
    begun = start_reduction(sys, budget, norm, "balanced" if start is None else start)

    def one(sys: System, initial: DiagonalLQOSystem, norm: Norm) -> Outcome:
        return _normalised(partial(_descend_one, options=options), sys, initial, norm)

    def batch(sys: DiagonalLQOSystem, initial: DiagonalLQOSystem, progress: Progress) -> Outcome:
        return _normalised(partial(_descend_batch, options=options, progress=progress), sys, initial, norm)

    compiled = batch if sys.n_inputs == 1 and norm.compiled else None
    return iterate(sys, [begun], one, compiled, norm, method="projected_gradient", progress=progress)


Point: TypeAlias = tuple[np.ndarray, ...]  # poles, input rows, output rows and mixing matrix
Scaled = TypeVar("Scaled", bound=System)


def _normalised(descend: Callable[..., Outcome], sys: System, initial: DiagonalLQOSystem, norm: Norm) -> Outcome:
    """Descend with the full system scaled to norm one and the states of the start to inputs as large as outputs."""
    size = np.asarray(norm_value(without_feedthrough(sys), norm))
    size = np.where(size > 0, size, 1.0)
    initial = _same_products(sys, initial, norm)
    outcome = descend(_scaled(sys, 1 / size), _even(_scaled(initial, 1 / size)), norm)
    system = replace(_scaled(cast(DiagonalLQOSystem, outcome.system), size), D=sys.D)
    return Outcome(system, outcome.history * size[..., np.newaxis] ** 2, outcome.status, outcome.iterations)


def _same_products(sys: System, initial: DiagonalLQOSystem, norm: Norm) -> DiagonalLQOSystem:
    """A start with as many quadratic products as `sys`; where it has others, its outputs are fitted anew."""
    q = sys.M
    q = factor_symmetric(q) if isinstance(q, np.ndarray) else q
    rank, own = (0 if part is None else part.rank for part in (q, initial.M))
    return initial if rank == own else fit_outputs(sys, initial.poles, initial.B, norm)


def _scaled(sys: Scaled, factor: np.ndarray) -> Scaled:
    """The system with its outputs multiplied by `factor`, of the batch shape, and no feedthrough."""
    factor = factor[..., np.newaxis, np.newaxis]
    q = sys.M
    if isinstance(q, QuadraticOutput):
        q = QuadraticOutput(q.U, q.V, q.W * factor)
    elif q is not None:
        q = q * factor
    return replace(sys, C=sys.C * factor, D=np.zeros_like(sys.D), M=q)


def _even(sys: DiagonalLQOSystem) -> DiagonalLQOSystem:
    """The same system with the input row of every slot as large as its output column."""
    rows = stack_rows(sys.C, sys.M)
    inputs, outputs = np.linalg.norm(sys.B, axis=-1), np.linalg.norm(rows, axis=-2)
    t = np.sqrt(np.where((inputs > 0) & (outputs > 0), outputs, 1.0) / np.where((inputs > 0) & (outputs > 0), inputs, 1.0))
    q, column = sys.M, t[..., np.newaxis, :]
    if q is not None:
        q = QuadraticOutput(q.U / column, q.V / column, q.W)
    return replace(sys, B=sys.B * t[..., np.newaxis], C=sys.C / column, M=q)


def _descend_batch(
    sys: DiagonalLQOSystem, initial: DiagonalLQOSystem, norm: Norm, options: Options, progress: Progress
) -> Outcome:
    """Compiled, for diagonal systems with one input."""
    code, parameters, lam, rows, p, W = channel_arrays(sys, norm)
    squared = squared_norms(sys, norm)
    count, s = lam.shape[0], initial.n_slots
    used = used_slots(initial)
    mu, b = initial.poles.reshape(count, s).copy(), initial.B.reshape(count, s).copy()
    rows_r = stack_rows(initial.C, initial.M).reshape(count, -1, s).copy()
    W_r = W.copy() if initial.M is None else initial.M.W.reshape(W.shape).copy()
    status, iterations = np.zeros(count, np.int64), np.zeros(count, np.int64)
    history = np.full((count, options.max_iterations + 1), np.nan)
    for part, size in chunks(used, progress):
        own_mu, own_b = (np.ascontiguousarray(array[part, :size]) for array in (mu, b))
        real = own_mu.imag == 0
        own_rows, own_W, past = rows_to_real(rows_r[part][..., :size], real), W_r[part], history[part]
        ended, steps = status[part], iterations[part]
        projected_gradient_kernels._descend(
            code, parameters, lam[part], rows[part], p, W[part], squared[part], own_mu, own_b, real, own_rows, own_W,
            options.margin, options.armijo, options.max_iterations, options.tolerance, past, ended, steps,
        )  # fmt: skip
        mu[part, :size], b[part, :size], W_r[part], history[part] = own_mu, own_b, own_W, past
        rows_r[part, :, :size] = rows_from_real(own_rows, real)
        status[part], iterations[part] = ended, steps
    return kernel_outcome(channel_system(sys, mu, b, rows_r, W_r), history, status, iterations)


def _descend_one(sys: System, initial: DiagonalLQOSystem, norm: Norm, options: Options) -> Outcome:
    """Any single system; the readable form of the compiled kernel."""
    problem, real = problem_of(sys, norm), initial.is_real_pole
    quadratic = initial.M
    W = np.zeros((problem.p, 0)) if quadratic is None else quadratic.W

    def clamp(poles: np.ndarray) -> np.ndarray:
        return clamped(poles, problem.continuous, options.margin)

    mu = clamp(initial.poles)
    x: Point = (mu, initial.B, real_rows(stack_rows(initial.C, quadratic), real), W)
    value, gradient = free_error(problem, real, *x)
    history, step, status = [value], 1.0, Status.MAX_ITERATIONS
    for _ in range(options.max_iterations):
        if _distance((clamp(x[0] - gradient[0]), *_moved(x, gradient, 1.0)[1:]), x) <= options.tolerance**2:
            status = Status.CONVERGED
            break
        step *= 2.0
        for _ in range(60):
            trial = _moved(x, gradient, step)
            trial = (clamp(trial[0]), *trial[1:])
            new, new_gradient = free_error(problem, real, *trial)
            if new <= value - options.armijo / step * _distance(trial, x):
                break
            step *= 0.5
        if not new < value:
            status = Status.STALLED
            break
        x, value, gradient = trial, new, new_gradient
        history.append(value)
    mu, B, rows, W = x
    system = reduced_system(problem, mu, B, real, rows, W, None, sys.dt)
    return Outcome(system, np.array(history), np.array(status), np.array(len(history) - 1))


def free_error(
    problem: Problem, real: np.ndarray, mu: np.ndarray, B: np.ndarray, rows: np.ndarray, W: np.ndarray
) -> tuple[float, Point]:
    """Squared error with every reduced quantity free, and its gradient as arrays like ``(mu, B, rows, W)``.

    A complex gradient holds the derivative by the real part plus `i` times that by the imaginary part.
    """
    e = evaluate(problem, mu, B, real)
    value, d_own, d_cross, d_W = error_and_forms(problem, e.G, e.D, rows, W)
    gamma, delta = pole_gradients(e, rows.T @ d_own @ rows, d_cross @ rows)
    d_rows = 2 * d_own @ rows @ e.G + d_cross.T @ e.D
    return value, (gamma.conj(), delta.conj(), d_rows, d_W)


def _moved(x: Point, gradient: Point, step: float) -> Point:
    return tuple(a - step * g for a, g in zip(x, gradient, strict=True))


def _distance(x: Point, y: Point) -> float:
    return sum(float(np.sum(np.abs(a - b) ** 2)) for a, b in zip(x, y, strict=True))
