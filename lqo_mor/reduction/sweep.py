"""Reduction to several orders at once: the error against the order."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np

from lqo_mor.analysis.norm import Norm
from lqo_mor.errors import InvalidInputError, OrderError, StabilityWarning, UnstableSystemError
from lqo_mor.figures import error_curve_figure
from lqo_mor.files import FilePath
from lqo_mor.reduction.balanced import balance, joint_values, truncate
from lqo_mor.reduction.best_of import better, part_of
from lqo_mor.reduction.budget import Budget, budget_of
from lqo_mor.reduction.result import Method, Reduction
from lqo_mor.systems.system import System
from lqo_mor.text_table import text_table
from lqo_mor.types import Progress

_GAIN = 1.25  # factor by which an optimum usually undercuts balanced truncation; a first guess of its order
_HOPE = 10.0  # factor by which it may undercut the last balanced truncation, beyond which no order is worth a try

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Solver: TypeAlias = tuple[Method, dict[str, Any]]  # a method and the options for it
Cut: TypeAlias = Callable[[int], Reduction]  # the balanced truncation to an order
Cuts: TypeAlias = Callable[[System, Norm, Progress | None], tuple[Cut, np.ndarray]]  # and the Hankel singular values

_GROWING = ("optimal",)  # methods that can start from a smaller reduced system and fill up the order


@dataclass(frozen=True, eq=False)
class ErrorCurve:
    """Reductions of one system, or one batch, to several orders by one method or more.

    Attributes
    ----------
    orders : tuple of int
        The orders asked for, ascending.
    reductions : dict of str to tuple of Reduction
        By method, one for every order. Those of an iterative method never get worse with the order; where an order brings
        nothing, its entry is that of the order before.
    hsv : (..., k) ndarray
        Hankel singular values of the full system, of every channel of a batch.
    norm : Norm
        In which norm the errors are; `horizon` is that of it.

    Examples
    --------
    >>> import lqo_mor as lqo
    >>> sys = lqo.LQOSystem([[0.9, 0.1], [0.0, 0.2]], [[1.0], [1.0]], [[1.0, 0.0]], dt=1.0)
    >>> curve = lqo.reduce(sys, orders=[1], method=["balanced", "optimal"])
    >>> bool(curve.errors["optimal"][0] <= curve.errors["balanced"][0])
    True
    """

    orders: tuple[int, ...]
    reductions: dict[str, tuple[Reduction, ...]]
    hsv: np.ndarray
    norm: Norm

    @property
    def horizon(self) -> float | None:
        """Samples or seconds; None for the infinite horizon."""
        return self.norm.horizon

    @property
    def errors(self) -> dict[str, np.ndarray]:
        """Relative h² errors by method, (orders, ...)."""
        return {name: np.array([red.relative_error for red in reds]) for name, reds in self.reductions.items()}

    def plot(self, path: FilePath | None = None, *, max_error: float | None = None) -> Figure:
        """The errors against the order, Hankel singular values underneath, with Matplotlib (extra ``plot``).

        Of a batch the median over the channels is drawn, and the worst as a dotted line.

        Parameters
        ----------
        path : path-like, optional
            Where to save the picture; its suffix says the format.
        max_error : float, optional
            Draws a line at this relative error.

        Returns
        -------
        matplotlib.figure.Figure
        """
        figure = error_curve_figure(self.orders, self.errors, self.hsv, str(self.norm), max_error)
        if path is not None:
            figure.savefig(path, dpi=150)
        return figure

    def __str__(self) -> str:
        columns = []
        for name, errors in self.errors.items():
            if errors.ndim == 1:
                columns.append((name, errors))
            else:
                channels = errors.reshape(len(errors), -1)
                columns += [(f"{name}, median", np.median(channels, axis=1)), ("worst", channels.max(axis=1))]
        rows = [[" order", *(f"{title:>9}" for title, _ in columns)]]
        rows += [[str(order), *(f"{errors[i]:.4g}" for _, errors in columns)] for i, order in enumerate(self.orders)]
        return "\n".join([f"Relative h2 error by order  ({self.norm})", *text_table(rows, str.rjust)])


def balanced_cuts(sys: System, norm: Norm, progress: Progress | None = None) -> tuple[Cut, np.ndarray]:
    """Balanced truncations to any order from one pair of Gramian factors and one SVD, and the Hankel singular values."""
    projections = balance(sys, norm, progress)
    return lambda order: truncate(sys, projections, Budget(order), norm), joint_values(sys, projections)


def error_curve(
    sys: System,
    orders: Sequence[int],
    solvers: dict[str, Solver],
    norm: Norm,
    progress: Progress | None,
    cuts: Cuts = balanced_cuts,
) -> ErrorCurve:
    """Reduce to all `orders`, given in any order, by every method with its options.

    Balanced truncations come from one pair of Gramian factors and one SVD. Iterative methods go up from order to order and never
    get worse, since the neighbour is at hand as a start and as a result. Progress is in channels, counted once for every order
    and method. Raises `OrderError` if an order is not a positive integer below the size of the system, and `InvalidInputError`
    if `orders` is no sequence, or empty. `cuts` makes the balanced truncations, which come from no solver.
    """
    orders = _ascending(sys, orders)
    cut, hsv = cuts(sys, norm, None)
    reductions: dict[str, list[Reduction]] = {name: [] for name in solvers}
    steps = len(orders) * len(solvers)
    for number, (order, name) in enumerate(product(orders, solvers)):
        tell = part_of(sys, progress, number, steps)
        if name == "balanced":
            red = cut(order)
            tell(1, 1)
        else:
            red = solve(sys, order, name, solvers[name], norm, tell, reductions[name][-1] if reductions[name] else None)
        reductions[name].append(red)
    return ErrorCurve(orders, {name: tuple(reds) for name, reds in reductions.items()}, hsv, norm)


def solve(
    sys: System, order: int, name: str, solver: Solver, norm: Norm, progress: Progress | None, previous: Reduction | None
) -> Reduction:
    """Reduce to one order; an iterative method gives nothing worse than `previous`, of a smaller order.

    Its own starts are usually the better ones; where they end above `previous`, that is filled up to the order, too.
    """
    (method, options), budget = solver, Budget(order)
    red = method.solve(sys, budget, norm, progress=progress, **options)
    if previous is None or not method.iterative:
        return red
    if name in _GROWING and np.any(previous.error < red.error):
        red = better(method.solve(sys, budget, norm, **{**options, "start": previous}), red)
    return better(red, previous)


def _ascending(sys: System, orders: Sequence[int]) -> tuple[int, ...]:
    try:
        orders = list(orders)
    except TypeError:
        raise InvalidInputError(f"orders must be a sequence of orders; got {orders!r}") from None
    if not orders:
        raise InvalidInputError("orders is empty; give at least one order")
    for order in orders:
        budget_of(sys, order, None)
    return tuple(sorted({int(order) for order in orders}))


def smallest_order(
    sys: System,
    max_error: float,
    name: str,
    solver: Solver,
    norm: Norm,
    progress: Progress | None,
    cuts: Cuts = balanced_cuts,
) -> Reduction:
    """The reduction of the smallest order whose relative h² error is at most `max_error`, in every channel of a batch.

    Balanced truncations, cut from one pair of Gramian factors, give a first guess; from there the search goes on with the
    method asked for, in steps that double until the order is bracketed, and bisects it. The order below the one found
    was tried and misses it.

    Progress is in channels, counted once for every step of the search, whose number is an estimate. Raises `OrderError` if no
    order below that of the system meets it, and `InvalidInputError` if `max_error` is no positive number.
    `cuts` is as for `error_curve`; below the unstable states that are kept over the infinite horizon there is no reduction.
    """
    number = isinstance(max_error, (int, float, np.integer, np.floating)) and not isinstance(max_error, bool)
    if not number or not 0 < max_error < np.inf:
        raise InvalidInputError(f"max_error must be a positive number, a relative h2 error; got {max_error!r}")
    budget_of(sys, 1, None)
    limit = int(np.min(sys.order)) - 1
    cut, _ = cuts(sys, norm, progress if name == "balanced" else None)

    def met(red: Reduction | None, wanted: float = max_error) -> bool:
        return red is not None and bool(np.max(red.relative_error) <= wanted)

    def quiet(order: int) -> Reduction | None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", StabilityWarning)  # only a guess
            return _possible(cut, order, limit)

    wanted = max_error if name == "balanced" else _GAIN * max_error
    order, red = _search(quiet, lambda red: met(red, wanted), 1, limit)
    if not met(red, wanted if name == "balanced" else _HOPE * max_error):
        raise _unreachable(max_error, "balanced truncation", np.max(red.relative_error), limit)
    if name == "balanced":
        return cut(order)  # once more, with its warning
    misses: list[Reduction] = []
    steps, done = order.bit_length() + 1, 0

    def attempt(order: int) -> Reduction | None:
        nonlocal done
        tell = part_of(sys, progress, min(done, steps - 1), steps)
        done += 1
        try:
            last = misses[-1] if misses else None
            red = _possible(lambda order: solve(sys, order, name, solver, norm, tell, last), order, limit)
        except InvalidInputError:
            if order == 1 < limit:  # modal truncation has no single state where every pole is one of a pair
                return None
            raise
        if red is not None and not met(red):
            misses.append(red)
        return red

    order, red = _search(attempt, met, order, limit)
    if not met(red):
        raise _unreachable(max_error, f"method {name!r}", np.max(red.relative_error), limit)
    part_of(sys, progress, steps - 1, steps)(1, 1)
    return red


def _possible(cut: Cut, order: int, limit: int) -> Reduction | None:
    """The reduction, or None below the number of states that have to be kept."""
    try:
        return cut(order)
    except UnstableSystemError:
        if order == limit:
            raise
        return None


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


def _unreachable(max_error: float, what: str, error: float, limit: int) -> OrderError:
    return OrderError(
        f"no order below the {limit + 1} of the full system meets max_error = {max_error:g}: at order {limit} {what} still has "
        f"the relative h2 error {error:.3g}"
    )
