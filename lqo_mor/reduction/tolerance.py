"""The smallest order that meets a tolerance."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from lqo_mor.analysis.stability import finite
from lqo_mor.errors import InvalidInputError, OrderError
from lqo_mor.reduction._slots import check_budget
from lqo_mor.reduction.balanced import balance
from lqo_mor.reduction.curve import cutter, part_of, solve
from lqo_mor.reduction.result import Reduction

_HOPE = 10.0  # factor by which an optimum may undercut the last balanced truncation


def smallest_order(sys, tolerance: float, name: str, solver: tuple[Callable, dict], horizon: float | None, progress) -> Reduction:
    """The reduction of the smallest order whose relative h² error is at most `tolerance`, in every channel of a batch.

    The orders of balanced truncation, cut from one pair of Gramian factors, bound the search from above; then the order
    is bisected with the method asked for. The order below the one found was tried and misses the tolerance.

    Parameters
    ----------
    sys : LQOSystem or DiagonalLQOSystem
        The full system, or a batch of diagonal ones.
    tolerance : float
        Largest relative h² error.
    name : str
        The method.
    solver : (callable, dict)
        Its function and the options for it.
    horizon : float or None
        Samples or seconds; None for infinite.
    progress : callable or None
        Called as ``progress(done, total)`` with channels, counted once for every step of the search, whose number is an
        estimate.

    Returns
    -------
    Reduction

    Raises
    ------
    OrderError
        If no order below that of the system meets the tolerance.
    InvalidInputError
        If `tolerance` is no positive number.
    """
    number = isinstance(tolerance, (int, float, np.integer, np.floating)) and not isinstance(tolerance, bool)
    if not number or not 0 < tolerance < np.inf:
        raise InvalidInputError(f"tolerance must be a positive number, a relative h2 error; got {tolerance!r}")
    check_budget(sys, 1, None, horizon)
    horizon = finite(horizon)
    limit = int(np.min(sys.order)) - 1
    balanced = balance(sys, horizon, progress if name == "balanced" else None)

    def met(red: Reduction | None) -> bool:
        return red is not None and bool(np.max(red.relative_error) <= tolerance)

    cut = cutter(sys, balanced, horizon, quiet=True)
    order, red = _search(cut, met, 1, limit)
    worst = np.max(red.relative_error)
    if not met(red) and (name == "balanced" or worst > _HOPE * tolerance):
        raise _unreachable(tolerance, "balanced truncation", worst, limit)
    if name == "balanced":
        return cutter(sys, balanced, horizon, quiet=False)(order)
    misses: list[Reduction] = []
    steps, done = order.bit_length() + 1, 0

    def attempt(order: int) -> Reduction | None:
        nonlocal done
        tell = part_of(sys, progress, min(done, steps - 1), steps)
        done += 1
        try:
            red = solve(sys, order, name, solver, horizon, tell, cut, misses[-1] if misses else None)
        except InvalidInputError:
            if order == 1 < limit:  # modal truncation has no single state where every pole is one of a pair
                return None
            raise
        if not met(red):
            misses.append(red)
        return red

    order, red = _search(attempt, met, order, limit)
    if not met(red):
        raise _unreachable(tolerance, f"method {name!r}", np.max(red.relative_error), limit)
    part_of(sys, progress, steps - 1, steps)(1, 1)
    return red


def _search(solve: Callable, met: Callable, order: int, limit: int) -> tuple[int, Reduction]:
    """The smallest order up to `limit` whose reduction is `met`: doubled from `order` until one is, then bisected.

    The last order and its reduction where none is.
    """
    low, found = 0, solve(order)
    while not met(found) and order < limit:
        low, order = order, min(2 * order, limit)
        found = solve(order)
    while met(found) and order - low > 1:
        middle = (low + order) // 2
        trial = solve(middle)
        if met(trial):
            order, found = middle, trial
        else:
            low = middle
    return order, found


def _unreachable(tolerance: float, what: str, error: float, limit: int) -> OrderError:
    return OrderError(
        f"no order below the {limit + 1} of the full system meets the tolerance {tolerance:g}: at order {limit} {what} still has "
        f"the relative h2 error {error:.3g}"
    )
