"""Model order reduction: every method returns a `Reduction`."""

from __future__ import annotations

import inspect

from lqo_mor.errors import InvalidInputError
from lqo_mor.reduction.balanced import balanced_truncation
from lqo_mor.reduction.modal import hippo, modal_truncation
from lqo_mor.reduction.projected_gradient import projected_gradient
from lqo_mor.reduction.result import Reduction
from lqo_mor.reduction.variable_projection import variable_projection

METHODS = {
    "optimal": variable_projection,
    "balanced": balanced_truncation,
    "projected_gradient": projected_gradient,
    "modal": modal_truncation,
    "hippo": hippo,
}


def reduce(
    sys,
    order: int | None = None,
    *,
    slots: int | None = None,
    method: str = "optimal",
    horizon: float | None = None,
    progress=None,
    **options,
) -> Reduction:
    """Reduce a linear-quadratic-output system by the named method.

    Parameters
    ----------
    sys : LQOSystem or DiagonalLQOSystem
        The full system, or a batch of diagonal ones; real, stable if the horizon is infinite.
    order : int, optional
        Number of real states of the reduced system; a conjugate pair counts as two.
    slots : int, optional
        For diagonal systems, instead of `order`: the number of slots (pairs or real poles), the budget of
        checkpoint formats in which a real pole costs as much as a pair.
    method : {"optimal", "balanced", "projected_gradient", "modal", "hippo"}, default "optimal"
        `variable_projection`, `balanced_truncation` (time-limited over a finite horizon),
        `projected_gradient`, `modal_truncation` or `hippo`.
    horizon : float, optional
        Samples (discrete, an integer) or seconds (continuous); infinite by default.
    progress : callable, optional
        Called as ``progress(done, total)`` with channels of a batch.
    **options
        Further parameters of the method, for instance ``start=`` of an iterative one.

    Returns
    -------
    Reduction

    Raises
    ------
    OrderError
        If the budget is not a positive integer below the size of the system.
    InvalidInputError
        If the method or an option is unknown.
    UnstableSystemError
        If the horizon is infinite and the system is not asymptotically stable.

    Examples
    --------
    >>> import lqo_mor as lqo
    >>> sys = lqo.LQOSystem([[0.9, 0.1], [0.0, 0.2]], [[1.0], [1.0]], [[1.0, 0.0]])
    >>> red = lqo.reduce(sys, order=1)
    >>> red.system
    LQOSystem(order=1, inputs=1, outputs=1, quadratic=none, dt=1.0)
    """
    if not isinstance(method, str) or method not in METHODS:
        raise InvalidInputError(f"unknown method {method!r}; known are {', '.join(METHODS)}")
    function = METHODS[method]
    known = [name for name, p in inspect.signature(function).parameters.items() if p.kind is p.KEYWORD_ONLY]
    for name in options:
        if name not in known:
            others = ", ".join(n for n in known if n not in ("slots", "horizon", "progress")) or "none"
            raise InvalidInputError(f"method {method!r} has no option {name!r}; its own options: {others}")
    return function(sys, order, slots=slots, horizon=horizon, progress=progress, **options)
