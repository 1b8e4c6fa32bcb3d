"""Reductions by the two-sided iteration: starts, channels of a batch, and the better of start and result."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import numpy as np

from lqo_mor.analysis.differences import error_of
from lqo_mor.analysis.gramians import gramian_factors
from lqo_mor.analysis.norm import HorizonNorm, Norm
from lqo_mor.errors import AccuracyWarning, InvalidInputError, LQOError
from lqo_mor.matrix_equations.sparse_sylvester import CrossSolver
from lqo_mor.reduction.best_of import best_of, joined_outcomes, nothing
from lqo_mor.reduction.budget import Budget
from lqo_mor.reduction.refit import fit_outputs
from lqo_mor.reduction.result import Outcome, Reduction
from lqo_mor.reduction.starts import Start, check_options, start_reduction
from lqo_mor.reduction.two_sided.full_system import balancing, full_system
from lqo_mor.reduction.two_sided.iteration import Iterate, two_sided
from lqo_mor.systems.batches import slot_count, trim, within_slots
from lqo_mor.systems.convert import member, to_dense, to_diagonal
from lqo_mor.systems.dense import LQOSystem
from lqo_mor.systems.diagonal import DiagonalLQOSystem
from lqo_mor.systems.poles import unstable
from lqo_mor.systems.system import System
from lqo_mor.types import Progress

_RANK = 1e-14  # singular value, relative, below which a state of a start does not count


@dataclass(frozen=True)
class Steps:
    """How an iteration steps: cross Gramians by ``solver(sys, norm)``, limits, and a `check` that may raise at the start."""

    solver: Callable[[System, Norm], CrossSolver]
    check: Callable[[System], None] = lambda system: None
    max_iterations: int = 300
    tolerance: float = 1e-8


def reduce_two_sided(
    sys: System, budget: Budget, norm: Norm, start: Start | None, steps: Steps, *, method: str, progress: Progress | None
) -> Reduction:
    """The two-sided iteration from one start; see `tsia`."""
    check_options(sys.is_continuous, max_iterations=steps.max_iterations, tolerance=steps.tolerance)
    begun = start_reduction(sys, budget, norm, "balanced" if start is None else start)
    steps.check(begun.system)
    given = isinstance(start, (LQOSystem, DiagonalLQOSystem))  # not by a method, which knows no better
    batch, slots = getattr(sys, "batch", ()), budget.slots
    runs: list[Outcome] = []
    for index in np.ndindex(batch):
        own, initial, where = member(sys, index), member(begun.system, index), norm.channel(index)
        kept, run = initial, None
        initial = initial if isinstance(initial, LQOSystem) else trim(initial)
        if slots is not None and start is None and own.n_inputs > 1 and 2 * slots < own.order:
            initial = _unbounded(own, initial, slots, where, steps)
        run = _run(own, initial, slots, where, steps, given)
        runs.append(nothing(kept) if run is None else run)
        if progress is not None:
            progress(len(runs), int(np.prod(batch)))
    # a start that is a fixed point has converged
    return best_of(sys, [begun], [joined_outcomes(runs, batch)], norm, method=method, runs_first=True)


def _unbounded(sys: System, initial: System, slots: int, norm: Norm, steps: Steps) -> System:
    """A start from the iteration to as many states as the slots may hold, whatever the kinds of their poles.

    With several inputs the kinds of poles hardly change within the budget: one more real pole on the way would end it.
    """
    free = start_reduction(sys, Budget(2 * slots), norm, "balanced").system
    run = _run(sys, free, None, norm, steps, False)
    found = within_slots(cast(DiagonalLQOSystem, free if run is None else run.system), slots)
    if found.n_slots > slots or np.any(unstable(found.poles, sys.is_continuous)):
        return initial
    return fit_outputs(sys, found.poles, found.B, norm)


def _run(sys: System, initial: System, slots: int | None, norm: Norm, steps: Steps, given: bool) -> Outcome | None:
    """One system from one start; None where nothing was found."""
    if isinstance(initial, DiagonalLQOSystem) and not np.any(initial.B):  # a channel without transfer
        return None
    coordinates, best = _coordinates(initial, norm), None
    if coordinates is not None:
        full = full_system(sys, norm, slots, steps.solver(sys, norm), np.linalg.eigvals(coordinates[0]))
        best, history, status = two_sided(full, *coordinates, steps.max_iterations, steps.tolerance)
    if best is None:
        if given:
            raise InvalidInputError(
                "the start is deficient: its states are linearly dependent under every input, so that there is nothing to "
                "project on; leave out states, or start from balanced truncation"
            )
        return None
    system = _system_of(sys, best, slots, norm)
    if system is None:
        return None
    return Outcome(system, history, np.array(status), np.array(history.size - 1), np.array(best.repaired))


def _coordinates(initial: System, norm: Norm) -> tuple[np.ndarray, np.ndarray] | None:
    """``(A_r, B_r)`` of a start in balanced coordinates, or in those with Gramian 1; None if that is singular."""
    dense = to_dense(initial) if isinstance(initial, DiagonalLQOSystem) else initial
    R, S = gramian_factors(initial, norm if norm.white else HorizonNorm(norm.continuous))
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


def _system_of(sys: System, best: Iterate, slots: int | None, norm: Norm) -> System | None:
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
        fitted = fit_outputs(sys, diagonal.poles, diagonal.B, norm)
        return min((diagonal, fitted), key=lambda s: np.nan_to_num(error_of(sys, s, norm), nan=np.inf))
    except LQOError:
        return None
