"""Model order reduction: every method returns a `Reduction`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, overload

from lqo_mor.analysis.door import norm_of
from lqo_mor.analysis.spectrum import InputSpectrum
from lqo_mor.errors import InvalidInputError
from lqo_mor.reduction.balanced import balanced
from lqo_mor.reduction.budget import budget_of
from lqo_mor.reduction.descent.projected_gradient import descend
from lqo_mor.reduction.modal import fresh, modal
from lqo_mor.reduction.pieces import in_pieces
from lqo_mor.reduction.result import Method, Reduction
from lqo_mor.reduction.sweep import ErrorCurve, Solver, error_curve, smallest_order
from lqo_mor.reduction.two_sided.irka import interpolating
from lqo_mor.reduction.two_sided.tsia import projecting
from lqo_mor.reduction.variable_projection import optimal
from lqo_mor.systems.system import System
from lqo_mor.types import Progress

# By name. Another method: a file with its function of a system, a budget and a norm, and its line here.
METHODS: dict[str, Method] = {
    "optimal": Method(optimal, weighted=True),
    "balanced": Method(balanced, weighted=True),
    "projected_gradient": Method(descend),
    "tsia": Method(projecting, weighted=True),
    "irka": Method(interpolating),
    "modal": Method(modal),
    "hippo": Method(fresh),
}


@overload
def reduce(
    sys: System,
    order: int | None = None,
    *,
    slots: int | None = None,
    orders: None = None,
    max_error: float | None = None,
    method: str = "optimal",
    horizon: float | None = None,
    spectrum: InputSpectrum | None = None,
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
    spectrum: InputSpectrum | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> ErrorCurve: ...
def reduce(
    sys: System,
    order: int | None = None,
    *,
    slots: int | None = None,
    orders: Sequence[int] | None = None,
    max_error: float | None = None,
    method: str | Sequence[str] = "optimal",
    horizon: float | None = None,
    spectrum: InputSpectrum | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Reduction | ErrorCurve:
    """Reduce a linear-quadratic-output system by the named method, to a given size or to a given accuracy.

    Exactly one of `order`, `slots`, `orders` and `max_error` says how far. Inside ``joblib.parallel_config`` the channels of a
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
    max_error : float, optional
        The largest relative h² error; the smallest order that meets it is looked for, one for all channels of a batch.
    method : {"optimal", "balanced", "projected_gradient", "tsia", "irka", "modal", "hippo"}, default "optimal"
        `variable_projection`, `balanced_truncation` (time-limited over a finite horizon),
        `projected_gradient`, `tsia`, `irka`, `modal_truncation` or `hippo`. With `orders` also a list of them.
    horizon : float, optional
        Samples (discrete, an integer) or seconds (continuous); infinite by default.
    spectrum : InputSpectrum, optional
        For "optimal", "balanced" and "tsia", in discrete time: that of a stationary input, with which every error, `max_error`
        included, is that for such an input.
    progress : callable, optional
        Called as ``progress(done, total)`` with channels of a batch, times the steps of a curve or search.
    **options
        Further parameters of the method, for instance ``start=`` and ``tolerance=`` of an iterative one.

    Returns
    -------
    Reduction or ErrorCurve
        The curve for `orders`.

    Raises
    ------
    OrderError
        If the budget is not a positive integer below the size of the system, or no order below it meets `max_error`.
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
    >>> lqo.reduce(lqo.examples.advection_diffusion(50), max_error=0.05, method="balanced").system.order
    7
    """
    names = _methods(method, several=orders is not None)
    solvers = _solvers(names, options, spectrum is not None)
    if sum(budget is not None for budget in (order, slots, orders, max_error)) != 1:
        raise InvalidInputError(
            "give exactly one of order (real states), slots (stored pairs or real poles), orders (several, for a curve) and "
            "max_error (the largest relative h2 error)"
        )
    norm = norm_of(sys, horizon, spectrum)
    if orders is not None:
        return error_curve(sys, orders, solvers, norm, progress)
    if max_error is not None:
        return smallest_order(sys, max_error, names[0], solvers[names[0]], norm, progress)
    chosen, own = solvers[names[0]]
    return chosen.solve(sys, budget_of(sys, order, slots), norm, progress=progress, **own)


def _solvers(names: list[str], options: dict[str, Any], weighted: bool) -> dict[str, Solver]:
    """The methods with the options that each of them takes."""
    solvers: dict[str, Solver] = {name: (in_pieces(METHODS[name]), {}) for name in names}
    for option in [*["spectrum"] * weighted, *options]:
        takers = [name for name in names if option in METHODS[name].options]
        if not takers:
            others = ", ".join(dict.fromkeys(o for name in names for o in METHODS[name].options)) or "none"
            what = f"method {names[0]!r} has" if len(names) == 1 else "none of these methods has"
            raise InvalidInputError(f"{what} no option {option!r}; its own options: {others}")
        if option == "spectrum":
            if len(takers) < len(names):  # errors of another kind would stand side by side
                without = ", ".join(name for name in names if name not in takers)
                raise InvalidInputError(f"a spectrum weights the errors of all methods, but these take none: {without}")
            continue
        for name in takers:
            solvers[name][1][option] = options[option]
    return solvers


def _methods(method: str | Sequence[str], several: bool) -> list[str]:
    """The names of the methods asked for, checked."""
    names: list[Any] = list(method) if several and isinstance(method, (list, tuple)) and method else [method]
    for name in names:
        if not isinstance(name, str) or name not in METHODS:
            hint = "; a list of methods needs orders" if isinstance(name, (list, tuple)) else ""
            raise InvalidInputError(f"unknown method {name!r}; known are {', '.join(METHODS)}{hint}")
    return list(dict.fromkeys(names))
