"""Reductions by the two-sided iteration: starts, channels of a batch, and the better of start and result."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np

from lqo_mor.analysis.differences import h2_error
from lqo_mor.analysis.gramians import gramian_factors
from lqo_mor.analysis.norm import finite
from lqo_mor.analysis.spectrum import InputSpectrum, channel
from lqo_mor.analysis.weighted import check_spectrum
from lqo_mor.errors import AccuracyWarning, InvalidInputError, LQOError
from lqo_mor.matrix_equations.sparse_sylvester import CrossSolver
from lqo_mor.reduction.budget import check_budget
from lqo_mor.reduction.refit import fit_outputs, warn_of_repair
from lqo_mor.reduction.result import Reduction, Status, finish
from lqo_mor.reduction.starts import Start, check_options, start_reduction
from lqo_mor.reduction.two_sided.full_system import balancing, full_system
from lqo_mor.reduction.two_sided.iteration import Iterate, two_sided
from lqo_mor.systems.batches import choose, slot_count, stack, trim, within_slots
from lqo_mor.systems.convert import member, to_dense, to_diagonal
from lqo_mor.systems.dense import LQOSystem
from lqo_mor.systems.diagonal import DiagonalLQOSystem
from lqo_mor.systems.poles import unstable
from lqo_mor.systems.system import System
from lqo_mor.types import Progress

_RANK = 1e-14  # singular value, relative, below which a state of a start does not count


@dataclass(frozen=True)
class Run:
    """What one run returns; `system` is None where it found nothing."""

    system: System | None
    history: np.ndarray
    status: Status
    repaired: bool = False


_NOTHING = Run(None, np.full(1, np.nan), Status.START_KEPT)


def reduce_two_sided(
    sys: System,
    order: int | None,
    slots: int | None,
    horizon: float | None,
    start: Start | None,
    solver: Callable[[System, float | None], CrossSolver],
    method: str,
    progress: Progress | None,
    check: Callable[[System], None] | None = None,
    spectrum: InputSpectrum | None = None,
    **options: Any,
) -> Reduction:
    """The two-sided iteration from one start, with the cross Gramians of ``solver(sys, horizon)``; see `tsia`.

    `check` may raise at the reduced system that is the start; `options` are `max_iterations` and `tolerance`.
    """
    check_budget(sys, order, slots, horizon)
    if spectrum is not None:
        check_spectrum(sys, spectrum, horizon)
    horizon = finite(horizon)
    check_options(sys.is_continuous, **options)
    begun = start_reduction(sys, order, slots, horizon, "balanced" if start is None else start, spectrum)
    if check is not None:
        check(begun.system)
    given = isinstance(start, (LQOSystem, DiagonalLQOSystem))  # not by a method, which knows no better
    batch = getattr(sys, "batch", ())

    def one(sys: System, initial: System, spectrum: InputSpectrum | None) -> Run:
        if slots is not None and start is None and sys.n_inputs > 1 and 2 * slots < sys.order:
            initial = _unbounded(sys, initial, slots, horizon, spectrum, solver, **options)
        return _run(sys, initial, slots, horizon, spectrum, solver, given, **options)

    runs = []
    for index in np.ndindex(batch):
        initial = member(begun.system, index)
        initial = initial if isinstance(initial, LQOSystem) else trim(initial)
        runs.append(one(member(sys, index), initial, channel(spectrum, index)))
        if progress is not None:
            progress(len(runs), int(np.prod(batch)))
    return _assembled(sys, begun, runs, method, horizon, spectrum)


def _unbounded(
    sys: System,
    initial: System,
    slots: int,
    horizon: float | None,
    spectrum: InputSpectrum | None,
    solver: Callable[[System, float | None], CrossSolver],
    **options: Any,
) -> System:
    """A start from the iteration to as many states as the slots may hold, whatever the kinds of their poles.

    With several inputs the kinds of poles hardly change within the budget: one more real pole on the way would end it.
    """
    free = start_reduction(sys, 2 * slots, None, horizon, "balanced", spectrum)
    run = _run(sys, free.system, None, horizon, spectrum, solver, False, **options)
    found = within_slots(cast(DiagonalLQOSystem, free.system if run.system is None else run.system), slots)
    if found.n_slots > slots or np.any(unstable(found.poles, sys.is_continuous)):
        return initial
    return fit_outputs(sys, found.poles, found.B, horizon, spectrum=spectrum)


def _run(
    sys: System,
    initial: System,
    slots: int | None,
    horizon: float | None,
    spectrum: InputSpectrum | None,
    solver: Callable[[System, float | None], CrossSolver],
    given: bool,
    *,
    max_iterations: int,
    tolerance: float,
) -> Run:
    """One system from one start."""
    if isinstance(initial, DiagonalLQOSystem) and not np.any(initial.B):  # a channel without transfer
        return _NOTHING
    coordinates, best = _coordinates(initial, horizon), None
    if coordinates is not None:
        full = full_system(sys, horizon, slots, solver(sys, horizon), np.linalg.eigvals(coordinates[0]), spectrum)
        best, history, status = two_sided(full, *coordinates, max_iterations, tolerance)
    if best is None:
        if given:
            raise InvalidInputError(
                "the start is deficient: its states are linearly dependent under every input, so that there is nothing to "
                "project on; leave out states, or start from balanced truncation"
            )
        return _NOTHING
    system = _system_of(sys, best, slots, horizon, spectrum)
    return _NOTHING if system is None else Run(system, history, status, best.repaired)


def _coordinates(initial: System, horizon: float | None) -> tuple[np.ndarray, np.ndarray] | None:
    """``(A_r, B_r)`` of a start in balanced coordinates, or in those with Gramian 1; None if that is singular."""
    dense = to_dense(initial) if isinstance(initial, DiagonalLQOSystem) else initial
    R, S = gramian_factors(initial, horizon)
    T = balancing(R, S)
    if T is None:  # not all states are seen in the outputs, which will be fitted anew
        size = np.linalg.norm(R, axis=1, keepdims=True)
        if not np.all(size > 0):
            return None
        left, values, _ = np.linalg.svd(R / size, full_matrices=False)
        if values.size < dense.order or not values[-1] > _RANK * values[0]:
            return None
        T = size * left * values, (left / values / size).T
    return T[1] @ dense.A @ T[0], T[1] @ dense.B


def _system_of(
    sys: System, best: Iterate, slots: int | None, horizon: float | None, spectrum: InputSpectrum | None
) -> System | None:
    """The reduced system of an iterate, of the kind of `sys`; None if it has no diagonal form, or no stable one."""
    system = LQOSystem(best.A, best.B, best.C, sys.D, best.M, sys.dt)
    if isinstance(sys, LQOSystem):
        return system
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", AccuracyWarning)  # whatever is lost here, the final error is measured
            diagonal = to_diagonal(system)
        if np.any(unstable(diagonal.poles, sys.is_continuous)) or (slots is not None and slot_count(diagonal.poles) > slots):
            return None
        fitted = fit_outputs(sys, diagonal.poles, diagonal.B, horizon, spectrum=spectrum)
        return min((diagonal, fitted), key=lambda s: np.nan_to_num(h2_error(sys, s, horizon, spectrum=spectrum), nan=np.inf))
    except LQOError:
        return None


def _assembled(
    sys: System, begun: Reduction, runs: list[Run], method: str, horizon: float | None, spectrum: InputSpectrum | None
) -> Reduction:
    """The better of start and run, channel by channel."""
    where: dict[str, Any] = {"method": method, "horizon": horizon, "spectrum": spectrum}
    batch = getattr(sys, "batch", ())
    indices = list(np.ndindex(batch))
    found = np.reshape([run.system is not None for run in runs], batch)
    parts = [member(begun.system, i) if run.system is None else run.system for i, run in zip(indices, runs, strict=True)]
    candidate = stack(cast(list[DiagonalLQOSystem], parts), batch) if batch else parts[0]
    measured = finish(sys, candidate, **where) if np.any(found) else begun
    won = found & (measured.error <= begun.error)
    if not np.all(won):
        if batch:
            both = (cast(DiagonalLQOSystem, system) for system in (candidate, begun.system))
            measured = finish(sys, choose(won, *both), **where)
        else:
            measured = begun
    history = np.full((*batch, max(run.history.size for run in runs)), np.nan)
    history[..., 0] = np.asarray(begun.error) ** 2
    status, iterations, repaired = (
        np.full(batch, Status.START_KEPT),
        np.zeros(batch, int),
        np.array(np.broadcast_to(begun.repaired, batch)),
    )
    for index, run in zip(indices, runs, strict=True):
        if won[index]:
            history[index][: run.history.size] = run.history
            status[index], iterations[index], repaired[index] = run.status, run.history.size - 1, run.repaired
    if np.any(repaired):
        warn_of_repair(repaired)
    # in a batch, padding may change the last digit of a start
    start_error = np.where(won, np.asarray(begun.error), np.asarray(measured.error))
    return replace(
        measured,
        method=method,
        start_error=start_error if batch else float(start_error),
        status=status if batch else status.item(),
        iterations=iterations if batch else int(iterations),
        history=history[..., : int(np.max(iterations)) + 1],
        hsv=begun.hsv,
        bound=None,
        repaired=repaired if batch else bool(repaired),
    )
