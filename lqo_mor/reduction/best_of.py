"""The finishing room of iterative methods: runs from several starts, and channel by channel the best of all that was seen."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TypeAlias, cast

import numpy as np

from lqo_mor.analysis.differences import error_of
from lqo_mor.analysis.norm import Norm
from lqo_mor.errors import AccuracyWarning, InvalidInputError, SingularEquationError
from lqo_mor.reduction.refit import densified, warn_of_repair
from lqo_mor.reduction.result import Outcome, Reduction, Status, finish
from lqo_mor.systems.batches import choose, stack, trim
from lqo_mor.systems.convert import as_dense, member, to_diagonal
from lqo_mor.systems.dense import LQOSystem
from lqo_mor.systems.diagonal import DiagonalLQOSystem
from lqo_mor.systems.poles import unstable
from lqo_mor.systems.system import System
from lqo_mor.types import Progress

One: TypeAlias = "Callable[[System, DiagonalLQOSystem, Norm], Outcome]"
Batch: TypeAlias = "Callable[[DiagonalLQOSystem, DiagonalLQOSystem, Progress], Outcome]"

_SAME = 1e-9  # relative difference of errors that rounding may make
_CHUNK = 32  # channels per compiled call, so that progress is seen and an interrupt is heard


def iterate(
    sys: System, starts: list[Reduction], one: One, batch: Batch | None, norm: Norm, *, method: str, progress: Progress | None
) -> Reduction:
    """Run an optimiser from every start and keep, channel by channel, the best of all starts and outcomes.

    `one(sys, initial, norm)` takes a single system, a diagonal start and the norm, `batch(sys, initial, progress)` a batch of
    diagonal systems; both return an `Outcome`. Without `batch`, the members of a batch are taken one by one.
    """
    outcomes = []
    for number, begun in enumerate(starts):
        tell = part_of(sys, progress, number, len(starts))
        if isinstance(sys, DiagonalLQOSystem) and isinstance(begun.system, DiagonalLQOSystem):
            run = batch or _one_by_one(one, norm)
            outcomes.append(run(sys, begun.system, tell))
        else:  # both are dense: a start is of the kind of the full system
            outcomes.append(_from_modes(cast(LQOSystem, sys), begun.system, one, norm))
            tell(1, 1)
    return best_of(sys, starts, outcomes, norm, method=method)


def best_of(
    sys: System, starts: list[Reduction], outcomes: list[Outcome], norm: Norm, *, method: str, runs_first: bool = False
) -> Reduction:
    """Channel by channel the best of all starts and of the outcome of a run from each of them.

    Of equal errors that of the start counts, or with `runs_first` that of the run. A start that its run converges to, but for
    rounding, has converged, too.
    """
    shape = np.shape(starts[0].error)
    errors, systems, stationary = [], [], []
    for begun, outcome in zip(starts, outcomes, strict=True):
        reached = _error_of_run(sys, outcome.system, norm)
        stationary.append((reached <= (1 + _SAME) * begun.error) & np.asarray(outcome.status == Status.CONVERGED))
        tie = runs_first & (reached == begun.error) & np.asarray(outcome.status != Status.START_KEPT)
        errors += [np.where(tie, np.inf, begun.error), reached]
        systems += [begun.system, outcome.system]
    rated = np.nan_to_num(np.array(errors), nan=np.inf)
    winner = np.asarray(np.argmin(rated, axis=0))  # even: a start, odd: the outcome of the start before it
    kept = winner % 2 == 0
    status, iterations, repaired = np.full(shape, Status.START_KEPT), np.zeros(shape, int), np.zeros(shape, bool)
    history = np.full((*shape, max(outcome.history.shape[-1] for outcome in outcomes)), np.nan)
    first = np.min([np.asarray(begun.error) for begun in starts], axis=0)
    for k, (begun, outcome) in enumerate(zip(starts, outcomes, strict=True)):
        own = winner == 2 * k + 1
        history[own, : outcome.history.shape[-1]] = outcome.history[own]
        iterations, status = np.where(own, outcome.iterations, iterations), np.where(own, outcome.status, status)
        status = np.where((winner == 2 * k) & stationary[k], np.asarray(Status.CONVERGED), status)
        repaired = np.where(own, outcome.repaired, np.where(winner == 2 * k, begun.repaired, repaired))
    history[kept, 0] = first[kept] ** 2  # a start that stays the best: no step counts
    if np.any(repaired):
        warn_of_repair(repaired)
    measured = finish(sys, _chosen(winner, systems), norm, method=method)
    start_error = np.where(kept, measured.error, first)  # in a batch, padding may change the last digit of a start
    return replace(
        measured,
        start_error=start_error if shape else float(start_error),
        status=status if shape else status.item(),
        iterations=iterations if shape else int(iterations),
        history=history[..., : int(np.max(iterations, initial=0)) + 1],
        hsv=starts[0].hsv,
        repaired=repaired if shape else bool(repaired),
    )


def better(new: Reduction, previous: Reduction) -> Reduction:
    """Channel by channel, the one of two reductions that has the smaller error."""
    worse = np.asarray(previous.error < new.error)
    if not np.any(worse):
        return new
    if np.all(worse):
        return previous
    fields = ("error", "relative_error", "start_error", "status", "iterations", "repaired", "refitted", "kept", "digits")
    merged = {field: np.where(worse, getattr(previous, field), getattr(new, field)) for field in fields}
    if new.history is not None and previous.history is not None:
        old, own = filled([previous.history, new.history])
        merged["history"] = np.where(worse[..., np.newaxis], old, own)
    old_system, new_system = (cast(DiagonalLQOSystem, red.system) for red in (previous, new))  # a batch: neither all nor none
    return replace(new, system=choose(worse, old_system, new_system), **merged)


def filled(arrays: list[np.ndarray], value: float = np.nan) -> list[np.ndarray]:
    """Arrays whose last axis is filled up to the longest."""
    length = max(array.shape[-1] for array in arrays)
    return [
        np.pad(array, [(0, 0)] * (array.ndim - 1) + [(0, length - array.shape[-1])], constant_values=value) for array in arrays
    ]


def joined_outcomes(parts: list[Outcome], batch: tuple[int, ...]) -> Outcome:
    """The outcomes of all channels of a batch as one."""
    if not batch:
        return parts[0]
    history = np.stack(filled([part.history for part in parts]))
    return Outcome(
        stack([cast(DiagonalLQOSystem, part.system) for part in parts], batch),
        history.reshape(*batch, -1),
        np.concatenate([np.ravel(part.status) for part in parts]).reshape(batch),
        np.reshape([part.iterations for part in parts], batch),
        np.reshape([part.repaired for part in parts], batch),
    )


def nothing(start: System) -> Outcome:
    """The outcome for one system where there is nothing to optimise: its start."""
    return Outcome(start, np.full(1, np.nan), np.array(Status.START_KEPT), np.array(0))


def _error_of_run(sys: System, system: System, norm: Norm) -> np.ndarray:
    """The error of an outcome, infinite where poles are at the stability boundary to working precision."""
    poles = np.linalg.eigvals(system.A) if isinstance(system, LQOSystem) else system.poles
    lost = np.any(unstable(poles, sys.is_continuous), axis=-1)
    if np.all(lost):
        return np.full(lost.shape, np.inf)
    try:
        with np.errstate(all="ignore"):
            return np.where(lost, np.inf, error_of(sys, system, norm))
    except SingularEquationError:
        return np.full(lost.shape, np.inf)


def _chosen(winner: np.ndarray, systems: list[System]) -> System:
    if not winner.ndim:
        return systems[int(winner)]
    chosen, *others = cast(list[DiagonalLQOSystem], systems)
    for k, system in enumerate(others, 1):
        chosen = choose(winner == k, system, chosen)
    return chosen


def _one_by_one(one: One, norm: Norm) -> Batch:
    """The members of a batch of diagonal systems, or a single one, in turn."""

    def run(sys: DiagonalLQOSystem, initial: DiagonalLQOSystem, progress: Progress) -> Outcome:
        parts, total = [], int(np.prod(sys.batch))
        for index in np.ndindex(sys.batch):
            begun = trim(cast(DiagonalLQOSystem, member(initial, index)))
            used = np.any(begun.B)  # a channel without transfer has nothing to optimise
            parts.append(one(member(sys, index), begun, norm.channel(index)) if used else nothing(begun))
            progress(len(parts), total)
        return joined_outcomes(parts, sys.batch)

    return run


def _from_modes(sys: LQOSystem, initial: System, one: One, norm: Norm) -> Outcome:
    """A dense system from the modes of its dense start."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", AccuracyWarning)  # whatever is lost here, the final error is measured
            diagonal = trim(to_diagonal(as_dense(initial)))
    except InvalidInputError:  # a defective state matrix: moving single poles cannot start from it
        return nothing(initial)
    outcome = one(sys, diagonal, norm)
    return replace(outcome, system=densified(outcome.system, sys))


def part_of(sys: System, progress: Progress | None, number: int = 0, steps: int = 1) -> Progress:
    """A callback for step `number` of several, which reports the progress of all in channels."""
    channels = int(np.prod(getattr(sys, "batch", ())))
    if progress is None:
        return lambda done, total: None
    return lambda done, total: progress(number * channels + done * channels // total, steps * channels)


def used_slots(initial: DiagonalLQOSystem) -> np.ndarray:
    """How many slots each channel uses, (channels,); padding comes last and has no input."""
    return np.count_nonzero(np.any(initial.B, axis=-1), axis=-1).reshape(-1)


def chunks(used: np.ndarray, progress: Progress) -> Iterator[tuple[np.ndarray, int]]:
    """Channels that can go through a kernel together, with their number of slots, a chunk at a time."""
    done = 0
    for size in np.unique(used):
        members = np.flatnonzero(used == size)
        for first in range(0, members.size, _CHUNK):
            part = members[first : first + _CHUNK]
            if size:  # a channel without transfer has nothing to optimise
                yield part, int(size)
            done += part.size
            progress(done, used.size)
