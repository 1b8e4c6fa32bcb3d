"""What iterative methods share: starts, batches in chunks, and keeping the best of what was seen."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias, cast

import numpy as np

from lqo_mor.analysis.differences import h2_error
from lqo_mor.analysis.spectrum import InputSpectrum, channel
from lqo_mor.errors import AccuracyWarning, InvalidInputError, SingularEquationError, UnstableSystemError
from lqo_mor.reduction.refit import densified, warn_of_repair
from lqo_mor.reduction.result import Outcome, Reduction, Status, finish
from lqo_mor.systems.batches import choose, stack, trim
from lqo_mor.systems.convert import as_dense, to_diagonal
from lqo_mor.systems.dense import LQOSystem
from lqo_mor.systems.diagonal import DiagonalLQOSystem
from lqo_mor.systems.system import System
from lqo_mor.types import FloatOrBatch, Progress

One: TypeAlias = "Callable[[Any, DiagonalLQOSystem, InputSpectrum | None], Outcome]"
Batch: TypeAlias = "Callable[[DiagonalLQOSystem, DiagonalLQOSystem, Progress], Outcome]"

_CHUNK = 32  # channels per compiled call, so that progress is seen and an interrupt is heard


def iterate(
    sys: System,
    starts: list[Reduction],
    one: One,
    batch: Batch | None,
    *,
    method: str,
    horizon: float | None,
    progress: Progress | None,
    spectrum: InputSpectrum | None = None,
) -> Reduction:
    """Run an optimiser from every start and keep, channel by channel, the best of all starts and outcomes.

    `one(sys, initial, spectrum)` takes a single system, a diagonal start and the spectrum of its input (or None),
    `batch(sys, initial, progress)` a batch of diagonal systems; both return an `Outcome`. Without `batch`, the members of a
    batch are taken one by one.
    """
    systems: list[System] = []
    reached_errors: list[FloatOrBatch] = []
    outcomes = []
    for number, begun in enumerate(starts):
        outcome = _run(sys, begun.system, spectrum, one, batch, _part_of(progress, number, len(starts)))
        systems += [begun.system, outcome.system]
        try:
            reached = h2_error(sys, outcome.system, horizon, spectrum=spectrum)
        except (SingularEquationError, UnstableSystemError):  # poles at the stability boundary to working precision
            reached = np.inf
        reached_errors += [begun.error, reached]
        outcomes.append(outcome)
    errors = np.nan_to_num(np.array(reached_errors), nan=np.inf)
    winner = np.asarray(np.argmin(errors, axis=0))  # even: a start, odd: the outcome of the start before it
    if winner.ndim:
        batches = cast(list[DiagonalLQOSystem], systems)
        batch_system = batches[0]
        for k in range(1, len(batches)):
            batch_system = choose(winner == k, batches[k], batch_system)
    system = batch_system if winner.ndim else systems[int(winner)]
    length = max(outcome.history.shape[-1] for outcome in outcomes)
    history = np.full((*winner.shape, length), np.nan)
    status, iterations = np.full(winner.shape, Status.START_KEPT), np.zeros(winner.shape, int)
    for k, outcome in enumerate(outcomes):
        own = winner == 2 * k + 1
        history[own, : outcome.history.shape[-1]] = outcome.history[own]
        iterations = np.where(own, outcome.iterations, iterations)
        status = np.where(own, outcome.status, status)
    kept = winner % 2 == 0  # a start that stays the best: no step counts
    history[kept, 0] = np.min(errors[::2], axis=0)[kept] ** 2
    if not winner.ndim:
        history = history[: int(iterations) + 1]
    repaired = np.choose(winner // 2, [np.asarray(begun.repaired) for begun in starts]) & (winner % 2 == 0)
    if np.any(repaired):
        warn_of_repair(repaired)
    return finish(
        sys,
        system,
        method=method,
        horizon=horizon,
        spectrum=spectrum,
        status=status if winner.ndim else status.item(),
        start_error=np.min(errors[::2], axis=0) if winner.ndim else float(np.min(errors[::2])),
        iterations=iterations if winner.ndim else int(iterations),
        history=history,
        hsv=starts[0].hsv,
        repaired=repaired if winner.ndim else bool(repaired),
    )


def _run(
    sys: System, initial: System, spectrum: InputSpectrum | None, one: One, batch: Batch | None, progress: Progress
) -> Outcome:
    if isinstance(sys, LQOSystem) or isinstance(initial, LQOSystem):  # both: a start is of the kind of the full system
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", AccuracyWarning)  # whatever is lost here, the final error is measured
                diagonal = to_diagonal(as_dense(initial))
        except InvalidInputError:  # a defective state matrix: moving single poles cannot start from it
            return Outcome(initial, np.full(1, np.nan), np.array(Status.START_KEPT), np.array(0))
        outcome = one(sys, diagonal, spectrum)
        progress(1, 1)
        return Outcome(densified(outcome.system, as_dense(sys)), outcome.history, outcome.status, outcome.iterations)
    if batch is not None:
        return batch(sys, initial, progress)
    parts, total = [], int(np.prod(sys.batch))
    for index in np.ndindex(sys.batch):
        begun = trim(initial[index])
        if np.any(begun.B):
            parts.append(one(sys[index], begun, channel(spectrum, index)))
        else:  # a channel without transfer
            parts.append(Outcome(begun, np.full(1, np.nan), np.array(Status.START_KEPT), np.array(0)))
        progress(len(parts), total)
    if not sys.batch:
        return parts[0]
    history = np.full((total, max(part.history.size for part in parts)), np.nan)
    for row, part in zip(history, parts, strict=True):
        row[: part.history.size] = part.history
    return Outcome(
        stack([cast(DiagonalLQOSystem, part.system) for part in parts], sys.batch),
        history.reshape(*sys.batch, -1),
        np.reshape([part.status for part in parts], sys.batch),
        np.reshape([part.iterations for part in parts], sys.batch),
    )


def _part_of(progress: Progress | None, number: int, count: int) -> Progress:
    """A callback for one of several runs, which reports the progress of all."""
    if progress is None:
        return lambda done, total: None
    return lambda done, total: progress(number * total + done, count * total)


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
