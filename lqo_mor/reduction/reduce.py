"""Model order reduction: every method returns a `Reduction`."""

from __future__ import annotations

from collections.abc import Sequence, Sized
from dataclasses import replace
from functools import partial
from typing import Any, overload

import numpy as np

from lqo_mor.analysis.door import check_keywords
from lqo_mor.analysis.norm import Norm
from lqo_mor.analysis.spectrum import InputSpectrum
from lqo_mor.errors import InvalidInputError
from lqo_mor.reduction.balanced import balanced, balanced_truncation
from lqo_mor.reduction.budget import budget_of
from lqo_mor.reduction.descent.projected_gradient import descend, projected_gradient
from lqo_mor.reduction.large import LowRankBalancing, lifted, measured, on_intermediate
from lqo_mor.reduction.modal import fresh, hippo, modal, modal_truncation
from lqo_mor.reduction.pieces import in_pieces
from lqo_mor.reduction.result import Method, Reduction
from lqo_mor.reduction.sweep import Cut, Cuts, ErrorCurve, Solver, balanced_cuts, error_curve, smallest_order
from lqo_mor.reduction.two_sided.irka import interpolating, irka
from lqo_mor.reduction.two_sided.tsia import projecting, tsia
from lqo_mor.reduction.unstable import cuts_keeping, opened
from lqo_mor.reduction.variable_projection import optimal, variable_projection
from lqo_mor.systems.sparse import SparseLQOSystem
from lqo_mor.systems.system import AnySystem, System, instead_of
from lqo_mor.types import Progress

# By name. Another method: a file with its public function and that of a system, a budget and a norm, and its line here.
METHODS: dict[str, Method] = {
    "optimal": Method(variable_projection, optimal, stationary=True),
    "balanced": Method(balanced_truncation, balanced),
    "projected_gradient": Method(projected_gradient, descend),
    "tsia": Method(tsia, projecting, stationary=True),
    "irka": Method(irka, interpolating, stationary=True),
    "modal": Method(modal_truncation, modal, poles=True),
    "hippo": Method(hippo, fresh, poles=True),
}


@overload
def reduce(
    sys: AnySystem,
    order: int | None = None,
    *,
    slots: int | None = None,
    orders: None = None,
    max_error: float | None = None,
    method: str = "optimal",
    horizon: float | None = None,
    spectrum: InputSpectrum | None = None,
    stable: bool = False,
    balancing: LowRankBalancing | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Reduction: ...
@overload
def reduce(
    sys: AnySystem,
    *,
    orders: Sequence[int],
    method: str | Sequence[str] = "optimal",
    horizon: float | None = None,
    spectrum: InputSpectrum | None = None,
    stable: bool = False,
    balancing: LowRankBalancing | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> ErrorCurve: ...
def reduce(
    sys: AnySystem,
    order: int | None = None,
    *,
    slots: int | None = None,
    orders: Sequence[int] | None = None,
    max_error: float | None = None,
    method: str | Sequence[str] = "optimal",
    horizon: float | None = None,
    spectrum: InputSpectrum | None = None,
    stable: bool = False,
    balancing: LowRankBalancing | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Reduction | ErrorCurve:
    """Reduce a linear-quadratic-output system by the named method, to a given size or to a given accuracy.

    Exactly one of `order`, `slots`, `orders` and `max_error` says how far. Inside ``joblib.parallel_config`` the channels of a
    batch are spread over its workers, with the same results (see `lqo_mor.parallel`). A sparse system is balanced to an
    intermediate dense one (`balance`), which the method reduces; "optimal", "tsia" and "irka" go on from there on the sparse
    system itself (see Notes), and every error is that to the sparse system.

    Parameters
    ----------
    sys : LQOSystem, DiagonalLQOSystem or SparseLQOSystem
        The full system, or a batch of diagonal ones; real.
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
        `projected_gradient`, `tsia`, `irka`, `modal_truncation` or `hippo`; the last two not for sparse systems. With `orders`
        also a list of them.
    horizon : float, optional
        Samples (discrete, an integer) or seconds (continuous); infinite by default.
    spectrum : InputSpectrum, optional
        For "optimal", "balanced" and "tsia", in discrete time: that of a stationary input, with which every error, `max_error`
        included, is that for such an input.
    stable : bool, default False
        Whether the reduced system has to be stable if the full one is not, which is then an error over the infinite horizon. By
        default the unstable states, those at the stability boundary included, are kept as they are, and the budget counts them;
        the rest is reduced (`Reduction.kept`). Not for sparse systems.
    balancing : LowRankBalancing, optional
        For a sparse system: by `balance`, to share the work among several reductions; made with the default tolerances if not
        given.
    progress : callable, optional
        Called as ``progress(done, total)`` with channels of a batch, times the steps of a curve or search; for a sparse system
        with the stages of its balancing and what follows.
    **options
        Further parameters of the method, for instance ``start=`` and ``tolerance=`` of an iterative one. For a sparse system
        ``max_iterations=`` holds for the intermediate system and again for the sparse one, where the default is 50.

    Returns
    -------
    Reduction or ErrorCurve
        The curve for `orders`.

    Raises
    ------
    OrderError
        If the budget is not a positive integer below the size of the system, for a sparse one that of the intermediate system,
        or no order below it meets `max_error`.
    InvalidInputError
        If the method or an option is unknown, not exactly one budget is given, or something that the kind of system does not
        have: `slots`, `horizon` and `spectrum` are not for sparse systems, `balancing` is only for them.
    UnstableSystemError
        If the horizon is infinite, the system is not asymptotically stable, and the result has to be (`stable`), the budget does
        not suffice for the unstable states, or the system is sparse.
    SingularEquationError, ConvergenceError, MissingDependencyError
        For a sparse system as `controllability_gramian`.

    Notes
    -----
    The two-sided iteration on a sparse system solves

    ``A X + E X A_rᵀ + B B_rᵀ = 0`` and ``Aᵀ Y + Eᵀ Y A_r + CᵀC_r + 2 Σ_i M_i X M_{r,i} = 0``

    (discrete: ``A X A_rᵀ − E X + … = 0``, ``Aᵀ Y A_r − Eᵀ Y + … = 0``) by one sparse factorisation of ``A + λ E`` per real
    pole or complex pair. With `Status.CONVERGED` the result satisfies the first-order conditions of h²-optimality for the sparse
    system, whatever the error of the intermediate one. The better one of the reductions before and after is returned, with
    `Status.START_KEPT` the one before. Steps and `history` are those on the intermediate system and then those on the sparse one;
    `start_error` is that of the start on the intermediate one. With `margin` or `ridge`, which stationary points need not meet,
    "optimal" is optimal for the intermediate system only.

    References
    ----------
    For sparse systems: Gosea, Antoulas, "A two-sided iterative framework for model reduction of linear systems with quadratic
    output", CDC 2019; Benner, Köhler, Saak, "Sparse-dense Sylvester equations in H2-model order reduction", MPI Magdeburg
    preprint 11-11 (2011).

    Examples
    --------
    >>> import lqo_mor as lqo
    >>> sys = lqo.LQOSystem([[0.9, 0.1], [0.0, 0.2]], [[1.0], [1.0]], [[1.0, 0.0]], dt=1.0)
    >>> red = lqo.reduce(sys, order=1)
    >>> red.system
    LQOSystem(order=1, inputs=1, outputs=1, quadratic=none, dt=1.0)
    >>> lqo.reduce(lqo.examples.advection_diffusion(50), max_error=0.05, method="balanced").system.order
    7
    """
    names = _methods(method, several=orders is not None)
    check_keywords(sys, horizon, spectrum, slots=slots, balancing=balancing)
    solvers = _solvers(names, options, spectrum is not None)
    if sum(budget is not None for budget in (order, slots, orders, max_error)) != 1:
        raise InvalidInputError(
            "give exactly one of order (real states), slots (stored pairs or real poles), orders (several, for a curve) and "
            "max_error (the largest relative h2 error)"
        )

    def run(
        sys: System, solvers: dict[str, Solver], norm: Norm, progress: Progress | None, cuts: Cuts = balanced_cuts
    ) -> Reduction | ErrorCurve:
        if orders is not None:
            return error_curve(sys, orders, solvers, norm, progress, cuts)
        if max_error is not None:
            return smallest_order(sys, max_error, names[0], solvers[names[0]], norm, progress, cuts)
        chosen, own = solvers[names[0]]
        return chosen.solve(sys, budget_of(sys, order, slots), norm, progress=progress, **own)

    if not isinstance(sys, SparseLQOSystem):
        sys, norm, keep = opened(sys, horizon, spectrum, stable)
        if keep is None:
            return run(sys, solvers, norm, progress)
        for name, (chosen, own) in solvers.items():
            solvers[name] = replace(chosen, solve=keep(name, chosen.solve)), own
        return run(sys, solvers, norm, progress, partial(cuts_keeping, keep("balanced", balanced)))
    for name in names:
        if METHODS[name].poles:
            raise InvalidInputError(f"method {name!r} goes by the poles of the system, which are not known{instead_of(sys)}")

    def on_small(balancing: LowRankBalancing, norm: Norm, tell: Progress) -> Reduction | ErrorCurve:
        own = {name: (lifted(method, sys, balancing), options) for name, (method, options) in solvers.items()}
        within = tell if orders is not None else None

        def large_cuts(small: System, norm: Norm, progress: Progress | None) -> tuple[Cut, np.ndarray]:
            cut, hsv = balanced_cuts(small, norm, progress)
            return lambda order: measured(sys, balancing, cut(order)), hsv

        result = run(balancing.system, own, norm, within, large_cuts)
        if within is None:
            tell(1, 1)
        return replace(result, hsv=balancing.hsv)

    steps = len(orders) * len(names) if isinstance(orders, Sized) else 1
    return on_intermediate(sys, balancing, on_small, progress, steps)


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
