"""h²-optimal reduction: the outputs eliminated in closed form, the poles found by Newton steps and a search."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np

from lqo_mor.analysis.norm import HorizonNorm, Norm
from lqo_mor.analysis.spectrum import InputSpectrum
from lqo_mor.errors import InvalidInputError, LQOError, LQOWarning, StabilityWarning
from lqo_mor.reduction.balanced import balanced
from lqo_mor.reduction.best_of import One, iterate
from lqo_mor.reduction.budget import Budget
from lqo_mor.reduction.descent.quasi_newton import fill
from lqo_mor.reduction.modal import modal
from lqo_mor.reduction.refit import densified, fit_outputs, warn_of_repair
from lqo_mor.reduction.result import Reduction, finish
from lqo_mor.reduction.sections.search import searchable
from lqo_mor.reduction.starts import Start, check_options, start_reduction
from lqo_mor.reduction.strategies import Search, many_channels, optimiser, search_everywhere
from lqo_mor.reduction.two_sided.tsia import projecting
from lqo_mor.reduction.units import Units
from lqo_mor.reduction.unstable import solved
from lqo_mor.systems.batches import choose
from lqo_mor.systems.convert import to_diagonal
from lqo_mor.systems.dense import LQOSystem
from lqo_mor.systems.diagonal import DiagonalLQOSystem
from lqo_mor.systems.poles import clamped
from lqo_mor.systems.system import System
from lqo_mor.types import Progress

_FEW = 300  # unknowns of dense systems up to which a third start takes little time
_SMALL = 30  # states, up to which all other methods together take less time than the search
_SAME = 1e-9  # relative difference of errors that rounding may make
_TWO_SIDED = 300  # steps of the two-sided iteration that makes a start


def variable_projection(
    sys: System,
    order: int | None = None,
    *,
    slots: int | None = None,
    horizon: float | None = None,
    spectrum: InputSpectrum | None = None,
    stable: bool = False,
    start: Start | Sequence[Start] | None = None,
    margin: float | None = None,
    ridge: float = 1e-13,
    exchanges: int | None = None,
    max_iterations: int = 500,
    tolerance: float = 1e-6,
    progress: Progress | None = None,
) -> Reduction:
    """h²-optimal reduction with the outputs eliminated in closed form.

    For fixed poles and inputs the optimal outputs are known, ``C_r = C X P_r⁻¹`` and so on, so that only the
    poles (and with several inputs the input rows) are free. With one input the poles lie two by two in real sections
    ``z² − k₁(1 + k₂) z + k₂``, ``k = tanh y``, which are stable for every `y` and in which pairs meet and part on the real
    axis; Newton steps with exact second derivatives start from balanced truncation, from dominant modes, and from nothing,
    adding the section that removes most each time (one or two too many, which are taken away again); then sections that
    contribute least are exchanged for better ones. Over the infinite horizon the error is computed without a reduced
    Gramian and without cancellation. With several inputs, or a quadratic output over a finite horizon or with a `spectrum`,
    BFGS steps move poles of fixed kinds, from balanced truncation, from dominant modes, and with several inputs from `tsia`
    over the infinite horizon.

    Parameters
    ----------
    sys, order, slots, horizon
        As for `reduce`; one input and a diagonal state matrix is the compiled fast path.
    spectrum : InputSpectrum, optional
        That of a stationary input instead of white noise, for discrete systems over the infinite horizon: the expected power
        of the output error for that input is minimised (`h2_error` with the spectrum), and all errors of the result are so.
    stable : bool, default False
        As for `reduce`.
    start : Reduction, system or str, or a sequence of those, optional
        Where to start, or the name of the method that makes the start ("balanced", "modal", "hippo"). A start
        of fewer states is filled up. Without it the search described above, which none of the named starts gets.
    margin : float, optional
        Distance that poles keep from the stability boundary, ``|μ| ≤ 1 − margin`` (continuous time:
        ``Re μ ≤ −margin``). Over a finite horizon the optimum may be a pole close to 1, which beyond the horizon
        integrates. By default 1e-12, or a thousandth of the distance of the full system's slowest pole where that is less
        (continuous time: 1e-12 of its slowest decay, over a finite horizon of ``1/horizon``).
    ridge : float, default 1e-13
        Penalty on the squared residues, relative to the squared error (where it is below 1e-10 and the horizon is infinite,
        in the outputs only). It bounds outputs that grow and cancel
        where poles meet: about 1e-6 suits outputs that will be stored in single precision, since no residue then
        exceeds about 1000 times the norm of the full system.
    exchanges : int, optional
        How often at most a section is exchanged for a better one, with steps to the end each time, and how many are tried
        each time; by default 6, and none in a batch, where time counts and two short tries have to do.
    max_iterations : int, default 500
        Most steps of one run.
    tolerance : float, default 1e-6
        Stop when no component of the gradient exceeds this fraction of the squared error.
    progress : callable, optional
        Called as ``progress(done, total)`` with channels of a batch.

    Returns
    -------
    Reduction
        Never worse than the start, and unstable only in states that it keeps. `history` holds the squared error.

    Raises
    ------
    OrderError, UnstableSystemError
        As for `reduce`.

    Notes
    -----
    With a `spectrum` and quadratic outputs the quadratic rows are those projected, ``U X P_r⁻¹``, and the mixing matrix is
    that of `sys`, which is the optimum but for the mean of the output, and keeps the number of products; poles and input rows
    minimise the whole error, mean included.

    References
    ----------
    Golub, Pereyra, "Separable nonlinear least squares: the variable projection method", Inverse Problems 19
    (2003), for the elimination; Walsh, "Interpolation and approximation by rational functions in the complex domain"
    (1935), for the error by all-pass factors.

    Examples
    --------
    >>> import lqo_mor as lqo
    >>> sys = lqo.DiagonalLQOSystem([0.9, 0.8, -0.3], [[1.0]] * 3, [[1.0, 0.5, 0.2]], dt=1.0)
    >>> red = lqo.variable_projection(sys, order=2)
    >>> bool(red.error <= red.start_error)
    True
    """
    return solved(
        "optimal", optimal, sys, order, slots, horizon, stable, progress, spectrum, start=start, margin=margin, ridge=ridge,
        exchanges=exchanges, max_iterations=max_iterations, tolerance=tolerance,
    )  # fmt: skip


def optimal(
    sys: System,
    budget: Budget,
    norm: Norm,
    *,
    start: Start | Sequence[Start] | None = None,
    margin: float | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Reduction:
    """`variable_projection` in a norm, in units of time of the system's own."""
    search = Search(budget, norm, start is None, **options)
    steps = search.steps if margin is None else {**search.steps, "margin": margin}
    check_options(sys.is_continuous, **steps, exchanges=0 if search.exchanges is None else search.exchanges)
    units = Units.of(sys, norm, margin)
    search = replace(search, norm=units.norm, margin=units.margin(margin, search.margin))
    return units.undone(_optimum(units.own(sys), search, units.start(start), progress))


def _optimum(sys: System, search: Search, start: Start | Sequence[Start] | None, progress: Progress | None) -> Reduction:
    if search.free and search.norm.white and many_channels(sys, search.norm):
        return search_everywhere(cast(DiagonalLQOSystem, sys), search, progress)
    starts = [_within(sys, begun, search) for begun in _starts(sys, search, start)]
    if search.budget.slots is not None and not searchable(sys, search.norm, search.ridge):
        starts = [replace(begun, system=_filled(sys, begun.system, search)) for begun in starts]
    one, batch = optimiser(sys, search)
    found = iterate(sys, starts, one, batch, search.norm, method="optimal", progress=progress)
    single = not getattr(sys, "batch", ())
    if not single or not search.free:
        return found
    return _best_known(sys, found, search, one, _rivals(sys, search, bool(starts[0].repaired)))


def _rivals(sys: System, search: Search, repaired: bool) -> list[Callable[..., Reduction]]:
    """The cheaper methods that may be better than the optimum found, since no start is what they return.

    `repaired` is whether the balanced start was: the method may return fewer states then.
    """
    norm, small = search.norm, cast(int, sys.order) <= _SMALL
    rivals: list[Callable[..., Reduction]] = []
    if isinstance(sys, LQOSystem) and repaired:
        rivals.append(balanced)
    if small and (searchable(sys, norm, search.ridge) or not norm.white):
        rivals.append(modal)
    among_starts = _with_two_sided(sys, search) and (norm.plain or not norm.white)
    if not among_starts and (small or not norm.plain or sys.n_inputs > 1):
        rivals.append(projecting)
    return rivals


def _best_known(sys: System, found: Reduction, search: Search, one: One, rivals: list[Callable[..., Reduction]]) -> Reduction:
    """The optimum found for a single system, or that from the result of a rival that is better."""
    first = found
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LQOWarning)  # of results that need not be taken
        for method in rivals:
            with contextlib.suppress(LQOError):
                other = method(sys, search.budget, search.norm)
                if other.error < (1 - _SAME) * found.error and _keeps_margin(sys, other.system, search):
                    best = iterate(sys, [other], one, None, search.norm, method="optimal", progress=None)
                    found = replace(best, start_error=found.start_error, hsv=found.hsv)
    if found is not first and found.repaired:
        warn_of_repair(True)
    return found


def _keeps_margin(sys: System, system: System, search: Search) -> bool:
    poles = np.linalg.eigvals(system.A) if isinstance(system, LQOSystem) else system.poles
    return bool(np.max(poles.real if sys.is_continuous else np.abs(poles) - 1) <= -search.margin)


def _starts(sys: System, search: Search, start: Start | Sequence[Start] | None) -> list[Reduction]:
    """The given starts; without any balanced truncation, and where poles are not searched for some more."""
    if start is not None:
        given = list(start) if isinstance(start, (list, tuple)) else [cast(Start, start)]
        if not given:
            raise InvalidInputError("start is empty; give at least one start")
        return [start_reduction(sys, search.budget, search.norm, one) for one in given]
    starts = [start_reduction(sys, search.budget, search.norm, "balanced")]
    if not searchable(sys, search.norm, search.ridge):
        with contextlib.suppress(InvalidInputError):
            starts.append(start_reduction(sys, search.budget, search.norm, "modal"))
        if sys.n_inputs == 1:
            with contextlib.suppress(LQOError):
                starts.append(start_reduction(sys, search.budget, search.norm, _over_all_time(sys, search).system))
    if _with_two_sided(sys, search):
        with contextlib.suppress(LQOError):
            starts.append(_two_sided(sys, search))
    return starts


def _with_two_sided(sys: System, search: Search) -> bool:
    """Whether a start by two-sided steps is made: for several inputs, where it takes little time beside the other steps."""
    single, dense = not getattr(sys, "batch", ()), isinstance(sys, LQOSystem)
    slow = dense and search.norm.white and (search.budget.order or 0) * (1 + sys.n_inputs) > _FEW
    return sys.n_inputs > 1 and single and not slow


def _over_all_time(sys: System, search: Search) -> Reduction:
    """The optimum over all time for white input, which is near that of a quadratic output over a horizon or for a spectrum."""
    norm, single = HorizonNorm(search.norm.continuous), not getattr(sys, "batch", ())
    norm.check(sys)
    few = search.exchanges if single else 0
    return _optimum(sys, replace(search, norm=norm, ridge=1e-13, exchanges=few), None, None)


def _two_sided(sys: System, search: Search) -> Reduction:
    """A start by some steps of `tsia`, over all time where the input is white."""
    norm = search.norm
    if norm.white and not norm.plain:
        norm = HorizonNorm(norm.continuous)
        norm.check(sys)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", StabilityWarning)  # said at the end, if it is the result
        run = projecting(sys, search.budget, norm, max_iterations=_TWO_SIDED)
        return run if norm is search.norm else start_reduction(sys, search.budget, search.norm, run.system)


def _filled(sys: System, start: System, search: Search) -> System:
    """A start of a diagonal system with all its slots in use."""
    return fill(cast(DiagonalLQOSystem, sys), cast(DiagonalLQOSystem, start), cast(int, search.budget.slots), search.norm)


def _within(sys: System, begun: Reduction, search: Search) -> Reduction:
    """A start whose poles keep the margin: they are moved there, and the outputs fitted, in the channels where they do not."""
    system, margin, norm = begun.system, search.margin, search.norm
    poles = np.linalg.eigvals(system.A) if isinstance(system, LQOSystem) else system.poles
    over = np.asarray(np.max(poles.real if sys.is_continuous else np.abs(poles) - 1, axis=-1) > -margin)
    if not np.any(over):
        return begun
    diagonal = to_diagonal(system) if isinstance(system, LQOSystem) else system
    poles = clamped(diagonal.poles, sys.is_continuous, margin)
    moved = fit_outputs(sys, poles, diagonal.B, norm, search.ridge)
    kept = densified(moved, sys) if isinstance(sys, LQOSystem) else choose(over, moved, cast(DiagonalLQOSystem, system))
    measured = finish(sys, kept, norm, method=begun.method)
    return replace(measured, hsv=begun.hsv, repaired=begun.repaired)
