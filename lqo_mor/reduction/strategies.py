"""The strategies of h²-optimal reduction: which optimiser a system gets; `variable_projection` says where it starts."""

from __future__ import annotations

import contextlib
import warnings
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import numpy as np

from lqo_mor.analysis.differences import error_of
from lqo_mor.analysis.norm import Norm
from lqo_mor.errors import AccuracyWarning, InvalidInputError, StabilityWarning
from lqo_mor.reduction.best_of import Batch, One, part_of
from lqo_mor.reduction.budget import Budget
from lqo_mor.reduction.descent import quasi_newton
from lqo_mor.reduction.objective.transfer import well_conditioned_modes
from lqo_mor.reduction.refit import fit_outputs
from lqo_mor.reduction.result import KERNEL_STATUS, Outcome, Reduction, finish, kernel_outcome
from lqo_mor.reduction.sections.data import balanced_start, channel_data, further_starts, search_data
from lqo_mor.reduction.sections.kernel_data import Data
from lqo_mor.reduction.sections.layout import Layout, layout_of
from lqo_mor.reduction.sections.orthonormal import diagonal_image, realise
from lqo_mor.reduction.sections.search import TRIAL, Effort, Found, search_batch, search_one, searchable
from lqo_mor.reduction.two_sided.tsia import projecting
from lqo_mor.systems.batches import stack
from lqo_mor.systems.convert import as_dense, to_diagonal
from lqo_mor.systems.dense import LQOSystem
from lqo_mor.systems.diagonal import DiagonalLQOSystem
from lqo_mor.systems.poles import closed, unstable
from lqo_mor.systems.system import System
from lqo_mor.types import Progress

_EXCHANGES = 6  # of one system; a batch, where time counts, has quick ones only
_SMALL = 1e-5  # relative error below which residues of single poles cost digits


@dataclass(frozen=True)
class Search:
    """What is looked for and how: the budget, the norm, and the options of `variable_projection`."""

    budget: Budget
    norm: Norm
    free: bool  # whether no start was given, so that it is looked everywhere
    margin: float = 1e-12
    ridge: float = 1e-13
    exchanges: int | None = None
    max_iterations: int = 500
    tolerance: float = 1e-6

    @property
    def stop(self) -> dict[str, Any]:
        """When a run ends."""
        return {"max_iterations": self.max_iterations, "tolerance": self.tolerance}

    @property
    def steps(self) -> dict[str, Any]:
        """The options of quasi-Newton steps."""
        return {"margin": self.margin, "ridge": self.ridge, **self.stop}

    def effort(self, many: bool) -> Effort:
        """How hard one system, or each of many channels, is searched; from a given start to the local minimum below it."""
        if many and self.free:
            return Effort(**self.stop, trial_steps=TRIAL, extra=1, exchanges=self.exchanges or 0)
        tries = self.exchanges if self.exchanges is not None else _EXCHANGES if self.free else 0
        return Effort(**self.stop, extra=2 if self.free or tries else None, exchanges=tries)

    def layout(self, sys: System) -> Layout:
        """The sections that there is room for."""
        return layout_of(self.budget, sys.is_continuous, self.margin)


def many_channels(sys: System, norm: Norm) -> bool:
    """Whether a system is a batch whose channels can be searched side by side: one input, linear outputs, no unstable pole."""
    if not isinstance(sys, DiagonalLQOSystem) or not sys.batch or sys.M is not None or not searchable(sys, norm, 0.0):
        return False
    return not np.any(unstable(sys.poles, sys.is_continuous))


def optimiser(sys: System, search: Search) -> tuple[One, Batch | None]:
    """How a system of this kind is optimised from a start: one of its channels, and all of a batch at once if that can be."""
    if not searchable(sys, search.norm, search.ridge):
        compiled = isinstance(sys, DiagonalLQOSystem) and sys.n_inputs == 1 and search.norm.white and search.norm.compiled

        batch = partial(quasi_newton.optimise_batch, norm=search.norm, **search.steps)
        return partial(quasi_newton.optimise_one, **search.steps), batch if compiled else None

    def one(sys: System, initial: DiagonalLQOSystem, norm: Norm) -> Outcome:
        own = closed(initial.poles[np.any(initial.B, axis=-1)])
        full = well_conditioned_modes(sys) if isinstance(sys, LQOSystem) else sys
        if full is not None:
            with contextlib.suppress(ZeroDivisionError):  # a pole of the full system on the stability boundary, over a horizon
                return _search_modes(sys, full, own, norm, search)
            return quasi_newton.optimise_one(sys, initial, norm, **search.steps)
        if norm.plain:
            return _search_image(as_dense(sys), own, norm, search)
        return quasi_newton.optimise_one(sys, initial, norm, **search.steps)

    return one, partial(_search_channels, search=search) if many_channels(sys, search.norm) else None


def _search_modes(sys: System, full: DiagonalLQOSystem, own: np.ndarray, norm: Norm, search: Search) -> Outcome:
    """The search for sections, the full system given by its modes."""
    size, data = search.layout(sys), search_data(full, norm, search.ridge)
    found = search_one(data, size, [own, *(further_starts(full, size, norm) if search.free else [])], search.effort(many=False))
    system = _system(sys, full, found.poles, norm, search.ridge)
    return Outcome(system, found.history, KERNEL_STATUS[found.status], found.steps)


def _search_image(sys: LQOSystem, own: np.ndarray, norm: Norm, search: Search) -> Outcome:
    """A dense system whose modes are no basis: the best poles for its diagonal image, then two-sided steps on itself."""
    image, systems, size = diagonal_image(sys, norm), [realise(sys, own[own.imag >= 0], norm)], search.layout(sys)
    if image is not None:
        starts = [own, *(further_starts(image, size, norm) if search.free else [])]
        found = search_one(search_data(image, norm, search.ridge), size, starts, search.effort(many=False))
        systems.append(realise(sys, found.poles, norm))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", StabilityWarning)  # said at the end, if it is the result
        runs = [projecting(sys, Budget(system.order), norm, start=system, **search.stop) for system in systems]
    best = min(runs, key=lambda run: run.error)
    return Outcome(best.system, cast(np.ndarray, best.history), np.asarray(best.status), np.asarray(best.iterations))


def _search_channels(sys: DiagonalLQOSystem, initial: DiagonalLQOSystem, progress: Progress, search: Search) -> Outcome:
    """Every channel of a batch on all threads, from the poles of a start and, where none was given, from nothing."""
    norm, indices = search.norm, list(np.ndindex(sys.batch))

    def data_of(h: int) -> Data:
        return search_data(sys[indices[h]], norm.channel(indices[h]), search.ridge)

    def start_of(h: int, _: Data) -> np.ndarray:
        return closed(initial.poles[indices[h]][np.any(initial.B[indices[h]], axis=-1)])

    found = search_batch(len(indices), data_of, start_of, search.layout(sys), search.effort(many=True), progress)
    system = _fitted(sys, found, norm, search.ridge)
    small = np.flatnonzero(np.asarray(error_of(sys, system, norm, relative=True)) < _SMALL) if norm.plain else np.zeros(0, int)
    if small.size:
        parts = [cast(System, system[index]) for index in indices]
        for h in small:
            full = sys[indices[h]]
            parts[h] = _system(full, full, found.poles[h][found.used[h]], norm, search.ridge)
        system = stack(cast(list[DiagonalLQOSystem], parts), sys.batch)
    return kernel_outcome(system, found.history, found.status, found.steps)


def search_everywhere(sys: DiagonalLQOSystem, search: Search, progress: Progress | None) -> Reduction:
    """A batch with one input and linear outputs, compiled from end to end: no start is made or measured."""
    norm, size, data_of = search.norm, search.layout(sys), channel_data(sys, search.norm, search.ridge)
    count, effort = int(np.prod(sys.batch)), search.effort(many=True)
    found = search_batch(count, data_of, lambda h, data: balanced_start(data, size), size, effort, part_of(sys, progress))
    outcome = kernel_outcome(_fitted(sys, found, norm, search.ridge), found.history, found.status, found.steps)
    own: dict[str, Any] = {"history": outcome.history, "iterations": outcome.iterations, "repaired": np.zeros(sys.batch, bool)}
    start_error = np.sqrt(np.maximum(found.start, 0.0)).reshape(sys.batch)
    return finish(sys, outcome.system, norm, method="optimal", status=outcome.status, start_error=start_error, **own)


def _fitted(sys: DiagonalLQOSystem, found: Found, norm: Norm, ridge: float) -> DiagonalLQOSystem:
    """The batch of reduced systems of the poles found."""
    B = np.where(found.used, 1.0 + 0j, 0.0).reshape(*sys.batch, -1, 1)
    return fit_outputs(sys, found.poles.reshape(*sys.batch, -1), B, norm, ridge)


def _system(sys: System, full: DiagonalLQOSystem, poles: np.ndarray, norm: Norm, ridge: float) -> System:
    """The reduced system of the poles found, its outputs optimal; over all time in orthonormal coordinates where that counts."""
    if isinstance(sys, LQOSystem) and norm.plain:
        return realise(full, poles, norm)
    fitted = fit_outputs(full, poles, np.ones((poles.size, 1), complex), norm, ridge)
    if isinstance(sys, DiagonalLQOSystem) and norm.plain and error_of(sys, fitted, norm, relative=True) < _SMALL:
        with warnings.catch_warnings(), contextlib.suppress(InvalidInputError):
            warnings.simplefilter("ignore", AccuracyWarning)  # the error of both is measured
            other = to_diagonal(realise(full, poles, norm))
            if other.n_slots == fitted.n_slots and error_of(sys, other, norm) < error_of(sys, fitted, norm):
                return other
    return fitted
