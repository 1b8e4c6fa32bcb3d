"""Model order reduction: every method returns a `Reduction`."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, overload

from lqo_mor.errors import InvalidInputError
from lqo_mor.reduction.balanced import balanced_truncation
from lqo_mor.reduction.descent.projected_gradient import projected_gradient
from lqo_mor.reduction.modal import hippo, modal_truncation
from lqo_mor.reduction.pieces import in_pieces
from lqo_mor.reduction.result import Method, Reduction
from lqo_mor.reduction.sweep import ErrorCurve, Solver, error_curve, smallest_order
from lqo_mor.reduction.two_sided.irka import irka
from lqo_mor.reduction.two_sided.tsia import tsia
from lqo_mor.reduction.variable_projection import variable_projection
from lqo_mor.systems.system import System
from lqo_mor.types import Progress

__all__ = [
    "ErrorCurve",
    "Reduction",
    "balanced_truncation",
    "hippo",
    "irka",
    "modal_truncation",
    "projected_gradient",
    "reduce",
    "tsia",
    "variable_projection",
]

METHODS: dict[str, Method] = {
    "optimal": variable_projection,
    "balanced": balanced_truncation,
    "projected_gradient": projected_gradient,
    "tsia": tsia,
    "irka": irka,
    "modal": modal_truncation,
    "hippo": hippo,
}

_SHARED = ("slots", "horizon", "progress", "tolerance")  # parameters of `reduce` itself


@overload
def reduce(
    sys: System,
    order: int | None = None,
    *,
    slots: int | None = None,
    orders: None = None,
    tolerance: float | None = None,
    method: str = "optimal",
    horizon: float | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Reduction: ...
@overload
def reduce(
    sys: System,
    *,
    orders: Sequence[int],
    method: str | Sequence[str] = "optimal",
    horizon: float | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> ErrorCurve: ...
def reduce(
    sys: System,
    order: int | None = None,
    *,
    slots: int | None = None,
    orders: Sequence[int] | None = None,
    tolerance: float | None = None,
    method: str | Sequence[str] = "optimal",
    horizon: float | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Reduction | ErrorCurve:
    """Reduce a linear-quadratic-output system by the named method, to a given size or to a given accuracy.

    Exactly one of `order`, `slots`, `orders` and `tolerance` says how far. Inside ``joblib.parallel_config`` the channels of a
    batch are spread over its workers, with the same results (see `lqo_mor.parallel`).

    Parameters
    ----------
    sys : LQOSystem or DiagonalLQOSystem
        The full system, or a batch of diagonal ones; real, stable if the horizon is infinite.
    order : int, optional
        Number of real states of the reduced system; a conjugate pair counts as two.
    slots : int, optional
        For diagonal systems, instead of `order`: the number of slots (pairs or real poles), the budget of
        checkpoint formats in which a real pole costs as much as a pair.
    orders : sequence of int, optional
        Several orders, for the error against the order. Balanced truncations to all of them cost one pair of Gramians; an
        iterative method never gets worse on the way up, since the order before is a start and a result, too.
    tolerance : float, optional
        The largest relative h² error; the smallest order that meets it is looked for, one for all channels of a batch. (The
        number by which an iterative method stops, of the same name, is an option of its own function.)
    method : {"optimal", "balanced", "projected_gradient", "tsia", "irka", "modal", "hippo"}, default "optimal"
        `variable_projection`, `balanced_truncation` (time-limited over a finite horizon),
        `projected_gradient`, `tsia`, `irka`, `modal_truncation` or `hippo`. With `orders` also a list of them.
    horizon : float, optional
        Samples (discrete, an integer) or seconds (continuous); infinite by default.
    progress : callable, optional
        Called as ``progress(done, total)`` with channels of a batch, times the steps of a curve or search.
    **options
        Further parameters of the method, for instance ``start=`` of an iterative one, or ``spectrum=`` of "optimal",
        "balanced" and "tsia", with which every error, `tolerance` included, is that for an input with this `InputSpectrum`.

    Returns
    -------
    Reduction or ErrorCurve
        The curve for `orders`.

    Raises
    ------
    OrderError
        If the budget is not a positive integer below the size of the system, or no order below it meets the tolerance.
    InvalidInputError
        If the method or an option is unknown, or not exactly one budget is given.
    UnstableSystemError
        If the horizon is infinite and the system is not asymptotically stable.

    Examples
    --------
    >>> import lqo_mor as lqo
    >>> sys = lqo.LQOSystem([[0.9, 0.1], [0.0, 0.2]], [[1.0], [1.0]], [[1.0, 0.0]])
    >>> red = lqo.reduce(sys, order=1)
    >>> red.system
    LQOSystem(order=1, inputs=1, outputs=1, quadratic=none, dt=1.0)
    >>> lqo.reduce(lqo.examples.advection_diffusion(50), tolerance=0.05, method="balanced").system.order
    7
    """
    names = _methods(method, several=orders is not None)
    solvers: dict[str, Solver] = {name: (in_pieces(METHODS[name]), {}) for name in names}
    for option, value in options.items():
        takers = [name for name in names if option in _options(name)]
        if not takers:
            others = ", ".join(dict.fromkeys(o for name in names for o in _options(name))) or "none"
            what = f"method {names[0]!r} has" if len(names) == 1 else "none of these methods has"
            raise InvalidInputError(f"{what} no option {option!r}; its own options: {others}")
        if option == "spectrum" and len(takers) < len(names):  # errors of another kind would stand side by side
            without = ", ".join(name for name in names if name not in takers)
            raise InvalidInputError(f"a spectrum weights the errors of all methods, but these take none: {without}")
        for name in takers:
            solvers[name][1][option] = value
    if sum(budget is not None for budget in (order, slots, orders, tolerance)) != 1:
        raise InvalidInputError(
            "give exactly one of order (real states), slots (stored pairs or real poles), orders (several, for a curve) and "
            "tolerance (the largest relative h2 error; the number by which a method stops is an option of its own function)"
        )
    if orders is not None:
        return error_curve(sys, orders, solvers, horizon, progress)
    if tolerance is not None:
        return smallest_order(sys, tolerance, names[0], solvers[names[0]], horizon, progress)
    return solvers[names[0]][0](sys, order, slots=slots, horizon=horizon, progress=progress, **options)


def _methods(method: str | Sequence[str], several: bool) -> list[str]:
    """The names of the methods asked for, checked."""
    names: list[Any] = list(method) if several and isinstance(method, (list, tuple)) and method else [method]
    for name in names:
        if not isinstance(name, str) or name not in METHODS:
            hint = "; a list of methods needs orders" if isinstance(name, (list, tuple)) else ""
            raise InvalidInputError(f"unknown method {name!r}; known are {', '.join(METHODS)}{hint}")
    return list(dict.fromkeys(names))


def _options(name: str) -> list[str]:
    """The options that only this method has."""
    parameters = inspect.signature(METHODS[name]).parameters.items()
    return [option for option, p in parameters if p.kind is p.KEYWORD_ONLY and option not in _SHARED]
