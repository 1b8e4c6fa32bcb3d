"""Unstable systems: the states at and beyond the stability boundary are kept, and only the stable part is reduced.

Over the infinite horizon the error is that of the stable part, which for linear outputs is that of the whole; over a finite one
the outputs are fitted to the whole system once more.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeAlias, cast

import numpy as np

from lqo_mor.analysis.door import balanced_units, norm_asked
from lqo_mor.analysis.gramians import gramian_factors
from lqo_mor.analysis.norm import WORTH_SQUARING, Norm, check_comparable, is_stable
from lqo_mor.errors import LQOError, LQOWarning, UnstableSystemError
from lqo_mor.reduction.budget import Budget, budget_of
from lqo_mor.reduction.kept_states import Parts
from lqo_mor.reduction.pieces import joined, piece_of, reordered, single_as_batch
from lqo_mor.reduction.refit import fitted_to, warn_of_repair
from lqo_mor.reduction.result import Reduction, finish
from lqo_mor.reduction.square_root import Balancing, cut_to, project, projections
from lqo_mor.systems.convert import as_dense
from lqo_mor.systems.dense import LQOSystem
from lqo_mor.systems.diagonal import DiagonalLQOSystem
from lqo_mor.systems.poles import unstable
from lqo_mor.systems.splitting import next_to_the_boundary
from lqo_mor.systems.system import System
from lqo_mor.types import Progress

Solve: TypeAlias = Callable[..., Reduction]
Keeping: TypeAlias = Callable[[str, Solve], Solve]


def opened(sys: System, horizon: Any, spectrum: Any, stable: bool) -> tuple[System, Norm, Keeping | None]:
    """The door of the methods of reduction: the system in balanced units, the norm, and what keeps unstable states.

    The last is None for a stable system and where a `stable` result is asked for. Otherwise it makes of the name and the
    ``solve(sys, budget, norm, …)`` of a method one that keeps the unstable states and reduces the rest. Raises as `prepared`,
    but for an unstable system over the infinite horizon only where a stable result is asked for.
    """
    norm, full = norm_asked(sys, horizon, spectrum), balanced_units(sys)[0]
    try:
        norm.check(sys)
        lost = not stable and _is_unstable(full, norm)
    except UnstableSystemError:
        if stable or norm.horizon is not None:
            raise
        lost = True
    return full, norm, (lambda name, solve: partial(_keeping, name, solve)) if lost else None


def _is_unstable(sys: System, norm: Norm) -> bool:
    """Whether a system that has the norm is unstable, or stable by rounding alone."""
    if norm.horizon is not None and not is_stable(sys):
        return True
    return isinstance(sys, LQOSystem) and sys.is_real and sys.order <= WORTH_SQUARING and next_to_the_boundary(sys)


# as many parameters as the methods have in common
def solved(
    name: str,
    solve: Solve,
    sys: System,
    order: int | None,
    slots: int | None,
    horizon: Any,
    stable: bool,
    progress: Progress | None,
    spectrum: Any = None,
    **options: Any,
) -> Reduction:
    """What the public function of a method returns, from its keywords."""
    full, norm, keep = opened(sys, horizon, spectrum, stable)
    run = solve if keep is None else keep(name, solve)
    return run(full, budget_of(full, order, slots), norm, progress=progress, **options)


def cuts_keeping(
    solve: Solve, sys: System, norm: Norm, progress: Progress | None
) -> tuple[Callable[[int], Reduction], np.ndarray]:
    """Balanced truncations of an unstable system to any order, and its Hankel singular values, infinite for states it keeps."""
    hsv = solve(sys, Budget(int(np.min(sys.order)) - 1), norm, progress=progress).hsv
    return lambda order: solve(sys, Budget(order), norm), np.full((*getattr(sys, "batch", ()), 1), np.inf) if hsv is None else hsv


def _keeping(
    name: str, solve: Solve, sys: System, budget: Budget, norm: Norm, *, progress: Progress | None = None, **options: Any
) -> Reduction:
    """The reduction of an unstable system, or of a batch of which some channels are, by a method for stable ones."""
    batch = getattr(sys, "batch", ())
    if not batch:
        return _Task(name, solve, budget, norm, options, progress).run(sys)
    sys = cast(DiagonalLQOSystem, sys)
    lost, count = np.any(unstable(sys.poles, sys.is_continuous), axis=-1).ravel(), int(np.prod(batch))
    order, parts = np.argsort(lost, kind="stable"), []  # the stable channels first, in one call
    places, done = np.unravel_index(order, batch), count - np.count_nonzero(lost)

    def task(index: Any, progress: Progress | None) -> _Task:
        own = {option: piece_of(value, index, batch) for option, value in options.items()}
        return _Task(name, solve, budget, norm.channel(index), own, progress)

    if done:
        index = tuple(axis[:done] for axis in places)
        tell = None if progress is None else lambda k, total: progress(k * done // total, count)
        parts.append(task(index, tell).plain(sys[index]))
    for number in range(done, count):
        one: Any = tuple(int(axis[number]) for axis in places)
        parts.append(single_as_batch(task(one, None).run(sys[one])))
        if progress is not None:
            progress(number + 1, count)
    return replace(reordered(joined(parts, (count,)), np.argsort(order), batch), norm=norm)


@dataclass(frozen=True, eq=False)
class _Task:
    """One method with its budget, norm and options."""

    name: str
    solve: Solve
    budget: Budget
    norm: Norm
    options: dict[str, Any]
    progress: Progress | None

    def plain(self, sys: System) -> Reduction:
        """The method by itself."""
        return self.solve(sys, self.budget, self.norm, progress=self.progress, **self.options)

    def run(self, sys: System) -> Reduction:
        """Keep what is unstable of one system, and reduce the rest."""
        parts = Parts.of(sys)
        size, kept = "order" if self.budget.slots is None else "slots", cast(System, parts.unstable)
        least = kept.n_slots if size == "slots" and isinstance(kept, DiagonalLQOSystem) else int(kept.order)
        left = cast(int, getattr(self.budget, size)) - least
        if left < 0 and self.norm.horizon is not None:
            return self._of_too_few_states(sys, kept)
        if left < 0 or parts.stable is None:
            raise UnstableSystemError(
                f"{size} must be at least {least} here: so many unstable or marginal ones are kept over the infinite horizon, "
                "and only the stable part is reduced; give a finite horizon to work with the first samples or seconds"
            )
        part, red = parts.with_couplings(self.norm), None
        if left:
            own = {name: _of_stable_part(value, sys, part, self.norm) for name, value in self.options.items()}
            red = self.solve(part, Budget(**{size: left}), self.norm, progress=self.progress, **own)
        return parts.joined(red, self.norm, self.name)

    def _of_too_few_states(self, sys: System, kept: System) -> Reduction:
        """The better one of a balanced truncation of the unstable part alone and of the stable result of the method."""
        red = self._truncated(sys, kept)
        with warnings.catch_warnings(), contextlib.suppress(LQOError):
            warnings.simplefilter("ignore", LQOWarning)  # of a result that need not be taken
            red = min(red, self.plain(sys), key=lambda red: np.nan_to_num(float(red.error), nan=np.inf))
        if red.repaired:
            warn_of_repair(True)
        return red

    def _truncated(self, sys: System, kept: System) -> Reduction:
        V, W, hsv = projections(*gramian_factors(kept, self.norm), int(kept.order))
        found: System
        if isinstance(sys, LQOSystem):
            found = project(as_dense(kept), V[:, : self.budget.order], W[:, : self.budget.order])
        else:
            found = cut_to(Balancing(as_dense(kept), V, W, hsv), self.budget)
        found = replace(found, D=sys.D)
        both = [finish(sys, system, self.norm, method=self.name) for system in (found, fitted_to(sys, found, self.norm))]
        return min(both, key=lambda red: np.nan_to_num(float(red.error), nan=np.inf))


def _of_stable_part(option: Any, sys: System, part: System, norm: Norm) -> Any:
    """An option of a method for the stable part: of a given start the stable states, with outputs for that part."""
    if isinstance(option, (list, tuple)):
        return [_of_stable_part(one, sys, part, norm) for one in option]
    start = option.system if isinstance(option, Reduction) else option
    if type(start) is not type(sys):
        return option
    check_comparable(sys, start)
    stable = Parts.of(start).stable
    return "balanced" if stable is None else fitted_to(part, stable, norm)
