"""The smallest order that meets a tolerance."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import cast

import numpy as np

from lqo_mor.analysis.norm import finite
from lqo_mor.errors import InvalidInputError, OrderError, StabilityWarning
from lqo_mor.reduction.balanced import balance, truncate
from lqo_mor.reduction.budget import check_budget
from lqo_mor.reduction.result import Reduction
from lqo_mor.reduction.sweep import Solver, part_of, solve
from lqo_mor.types import Progress, System

_GAIN = 1.25  # factor by which an optimum usually undercuts balanced truncation; a first guess of its order
_HOPE = 10.0  # factor by which it may undercut the last balanced truncation, beyond which no order is worth a try


def smallest_order(
    sys: System, tolerance: float, name: str, solver: Solver, horizon: float | None, progress: Progress | None
) -> Reduction:
    """The reduction of the smallest order whose relative h² error is at most `tolerance`, in every channel of a batch.

    Balanced truncations, cut from one pair of Gramian factors, give a first guess; from there the search goes on with the
    method asked for, in steps that double until the order is bracketed, and bisects it. The order below the one found
    was tried and misses the tolerance.

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
    spectrum = solver[1].get("spectrum")
    balanced = balance(sys, horizon, progress if name == "balanced" else None, spectrum)

    def met(red: Reduction | None, tolerance: float = tolerance) -> bool:
        return red is not None and bool(np.max(red.relative_error) <= tolerance)

    def quiet(order: int) -> Reduction:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", StabilityWarning)  # only a guess
            return truncate(sys, balanced, order, None, horizon, spectrum)

    wanted = tolerance if name == "balanced" else _GAIN * tolerance
    order, red = _search(quiet, lambda red: met(red, wanted), 1, limit)
    if not met(red, wanted if name == "balanced" else _HOPE * tolerance):
        raise _unreachable(tolerance, "balanced truncation", np.max(red.relative_error), limit)
    if name == "balanced":
        return truncate(sys, balanced, order, None, horizon, spectrum)  # once more, with its warning
    misses: list[Reduction] = []
    steps, done = order.bit_length() + 1, 0

    def attempt(order: int) -> Reduction | None:
        nonlocal done
        tell = part_of(sys, progress, min(done, steps - 1), steps)
        done += 1
        try:
            red = solve(sys, order, name, solver, horizon, tell, misses[-1] if misses else None)
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


def _search(
    solve: Callable[[int], Reduction | None], met: Callable[[Reduction | None], bool], order: int, limit: int
) -> tuple[int, Reduction]:
    """The smallest order up to `limit` whose reduction is `met`, looked for from a guess on, and that reduction.

    `limit` and its reduction where none is.
    """
    low, step = 0, 1
    high: int | None = None
    found: Reduction | None = None
    while high is None or high - low > 1:
        red = solve(order)
        if met(red):
            high, found = order, red
        elif order == limit:
            return order, cast(Reduction, red)  # only below the limit there may be none
        else:
            low = order
        if high is None:
            order, step = min(low + step, limit), 2 * step
        elif low == 0:
            order, step = max(high - step, 1), 2 * step
        else:
            order = (low + high) // 2
    return high, cast(Reduction, found)


def _unreachable(tolerance: float, what: str, error: float, limit: int) -> OrderError:
    return OrderError(
        f"no order below the {limit + 1} of the full system meets the tolerance {tolerance:g}: at order {limit} {what} still has "
        f"the relative h2 error {error:.3g}"
    )
