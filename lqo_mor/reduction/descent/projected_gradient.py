"""Projected gradient descent with Armijo backtracking, the published reference method."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeAlias, TypeVar, cast

import numpy as np

from lqo_mor.analysis.norm import Norm
from lqo_mor.analysis.norms import norm_value
from lqo_mor.analysis.rows import stack_rows
from lqo_mor.matrix_equations.pairing_kernels import CONTINUOUS, DISCRETE
from lqo_mor.reduction.best_of import chunks, iterate, used_slots
from lqo_mor.reduction.budget import Budget
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
from lqo_mor.reduction.objective.transfer import well_conditioned_modes
from lqo_mor.reduction.refit import channel_arrays, channel_system, fit_outputs, rows_from_real, rows_to_real, squared_norms
from lqo_mor.reduction.result import Outcome, Reduction, Status, kernel_outcome
from lqo_mor.reduction.starts import Start, check_options, start_reduction
from lqo_mor.reduction.units import Units
from lqo_mor.reduction.unstable import solved
from lqo_mor.systems.convert import real_rows
from lqo_mor.systems.dense import LQOSystem
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
    stable: bool = False,
    start: Start | None = None,
    margin: float | None = None,
    armijo: float = 1e-4,
    max_iterations: int = 3000,
    tolerance: float = 1e-6,
    progress: Progress | None = None,
) -> Reduction:
    """Projected gradient descent on the squared h² error with Armijo backtracking.

    All of ``(μ, B_r, C_r, U_r, V_r, W_r)`` are free. A step goes along the negative gradient, the poles are
    projected onto ``|μ| ≤ 1 − margin`` (continuous time: ``Re μ ≤ −margin``), and the step length `α` is halved
    until ``f(new) ≤ f(old) − armijo/α ‖new − old‖²``. Every accepted step decreases the error; limit points are
    stationary points of the constrained problem. In continuous time poles are measured by their decay at the start, so that
    the unit of time does not matter.

    Parameters
    ----------
    sys, order, slots, horizon, stable
        As for `reduce`.
    start : Reduction, system or str, optional
        Where to start, or the name of the method that makes the start; balanced truncation by default.
    margin : float, optional
        Distance that poles keep from the stability boundary. By default 1e-6, or a thousandth of the distance of the full
        system's slowest pole where that is less (continuous time: 1e-6 of its slowest decay, over a finite horizon of
        ``1/horizon``).
    armijo : float, default 1e-4
        Constant of the sufficient decrease.
    max_iterations : int, default 3000
        Most accepted steps.
    tolerance : float, default 1e-6
        Stop when the cosines of the angles between the error and the changes that each reduced quantity alone can make in the
        output, root of their sum of squares, are at most this (poles within the margin). They depend on no unit.
        `Status.CONVERGED` certifies it, to ten times as much where rounding hides any further decrease.
    progress : callable, optional
        Called as ``progress(done, total)`` with channels of a batch.

    Returns
    -------
    Reduction
        Never worse than the start, and unstable only in states that it keeps; `history` holds the squared error.

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
    return solved(
        "projected_gradient", descend, sys, order, slots, horizon, stable, progress, start=start, margin=margin, armijo=armijo,
        max_iterations=max_iterations, tolerance=tolerance,
    )  # fmt: skip


@dataclass(frozen=True)
class Options:
    """Those of `projected_gradient`."""

    margin: float = 1e-6
    armijo: float = 1e-4
    max_iterations: int = 3000
    tolerance: float = 1e-6


def descend(
    sys: System,
    budget: Budget,
    norm: Norm,
    *,
    start: Start | None = None,
    margin: float | None = None,
    progress: Progress | None = None,
    **given: Any,
) -> Reduction:
    """`projected_gradient` in a norm, in units of time of the system's own."""
    options = Options(**given)
    check_options(sys.is_continuous, **vars(options if margin is None else replace(options, margin=margin)))
    units = Units.of(sys, norm, margin)
    options = replace(options, margin=units.margin(margin, options.margin))
    return units.undone(_descended(units.own(sys), budget, units.norm, units.start(start), options, progress))


def _descended(
    sys: System, budget: Budget, norm: Norm, start: Start | None, options: Options, progress: Progress | None
) -> Reduction:
    begun = start_reduction(sys, budget, norm, "balanced" if start is None else start)

    def one(sys: System, initial: DiagonalLQOSystem, norm: Norm) -> Outcome:
        return _normalised(partial(_descend_single, options=options), sys, initial, norm)

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
    initial = _scaled(_same_products(sys, initial, norm), 1 / size)
    if isinstance(sys, LQOSystem):  # whose factors are ours: their size is not that of the states
        initial = _with_unit_mixing(initial)
    outcome = descend(_scaled(sys, 1 / size), _even(initial), norm)
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


def _with_unit_mixing(sys: DiagonalLQOSystem) -> DiagonalLQOSystem:
    """The same single system with mixing columns of norm one."""
    q = sys.M
    if q is None:
        return sys
    size = np.linalg.norm(q.W, axis=0)
    size = np.where(size > 0, size, 1.0)
    root = np.sqrt(size)[:, np.newaxis]
    return replace(sys, M=QuadraticOutput(q.U * root, q.V * root, q.W / size))


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


def _descend_single(sys: System, initial: DiagonalLQOSystem, norm: Norm, options: Options) -> Outcome:
    """A single system; a dense one with one input compiled, too, where its modes are a basis."""
    if isinstance(sys, LQOSystem) and sys.n_inputs == 1 and norm.compiled:
        modes = well_conditioned_modes(sys)
        if modes is not None:
            return _descend_batch(modes, initial, norm, options, lambda done, total: None)
    return _descend_one(sys, initial, norm, options)


def _descend_one(sys: System, initial: DiagonalLQOSystem, norm: Norm, options: Options) -> Outcome:
    """Any single system; the readable form of the compiled kernel."""
    problem, real = problem_of(sys, norm), initial.is_real_pole
    quadratic = initial.M
    W = np.zeros((problem.p, 0)) if quadratic is None else quadratic.W

    def clamp(poles: np.ndarray) -> np.ndarray:
        return clamped(poles, problem.continuous, options.margin)

    mu = clamp(initial.poles)
    x: Point = (mu, initial.B, real_rows(stack_rows(initial.C, quadratic), real), W)
    squares = np.empty(mu.size), np.empty(mu.size), np.empty(x[2].shape[1])
    projected_gradient_kernels._squared_units(_code(problem), np.array(problem.pairing.parameters), mu, real, *squares)
    units: tuple[Any, ...] = (squares[0], squares[1][:, np.newaxis], squares[2], 1.0)
    value, gradient, possible = free_error(problem, real, *x, margin=options.margin)
    history, step, status = [value], 1.0, Status.MAX_ITERATIONS
    for _ in range(options.max_iterations):
        if possible <= options.tolerance**2 * value:
            status = Status.CONVERGED
            break
        step *= 2.0
        for _ in range(60):
            trial = tuple(a - step * square * g for a, g, square in zip(x, gradient, units, strict=True))
            trial = (clamp(trial[0]), *trial[1:])
            new, new_gradient, new_possible = free_error(problem, real, *trial, margin=options.margin)
            if new <= value - options.armijo / step * _distance(trial, x, units):
                break
            step *= 0.5
        if not new < value:
            roughly = projected_gradient_kernels.ROUGHLY * options.tolerance
            status = Status.CONVERGED if possible <= roughly**2 * value else Status.STALLED
            break
        x, value, gradient, possible = trial, new, new_gradient, new_possible
        history.append(value)
    mu, B, rows, W = x
    system = reduced_system(problem, mu, B, real, rows, W, None, sys.dt)
    return Outcome(system, np.array(history), np.array(status), np.array(len(history) - 1))


def free_error(
    problem: Problem, real: np.ndarray, mu: np.ndarray, B: np.ndarray, rows: np.ndarray, W: np.ndarray, *, margin: float = 0.0
) -> tuple[float, Point, float]:
    """Squared error with every reduced quantity free, its gradient as arrays like ``(mu, B, rows, W)``, the possible decrease.

    A complex gradient holds the derivative by the real part plus `i` times that by the imaginary part. The decrease is the sum
    of what each quantity alone could take off, to first order, poles within the `margin`; theory, eq. (8.3).
    """
    e = evaluate(problem, mu, B, real)
    value, d_own, d_cross, d_W = error_and_forms(problem, e.G, e.D, rows, W)
    d_G = rows.T @ d_own @ rows
    gamma, delta = pole_gradients(e, d_G, d_cross @ rows)
    d_rows = 2 * d_own @ rows @ e.G + d_cross.T @ e.D
    pairing, slope = np.diag(e.hermitian[0]).real.copy(), np.diag(e.hermitian[1]).copy()
    size_b, size_delta = np.sum(np.abs(B) ** 2, axis=1), np.sum(np.abs(delta) ** 2, axis=1)
    possible = projected_gradient_kernels._possible_decrease(
        _code(problem), margin, problem.p, real, mu, size_b, pairing, slope,
        e.G, np.ascontiguousarray(rows), d_own, d_G, gamma, size_delta, d_rows, d_W,
    )  # fmt: skip
    return value, (gamma.conj(), delta.conj(), d_rows, d_W), possible


def _code(problem: Problem) -> int:
    """The pairing, or the kind of time, as the kernels know it."""
    code = problem.pairing.code
    return (CONTINUOUS if problem.continuous else DISCRETE) if code is None else code


def _distance(x: Point, y: Point, squares: tuple[Any, ...]) -> float:
    """Squared, in units of which `squares` are the squares."""
    return sum(float(np.sum(np.abs(a - b) ** 2 / square)) for a, b, square in zip(x, y, squares, strict=True))
