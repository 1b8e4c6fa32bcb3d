"""h²-optimal reduction: the outputs eliminated in closed form, the poles found by Newton steps and a search."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np

from lqo_mor.analysis.differences import h2_error
from lqo_mor.analysis.norm import finite
from lqo_mor.analysis.spectrum import InputSpectrum
from lqo_mor.analysis.weighted import check_spectrum
from lqo_mor.errors import AccuracyWarning, InvalidInputError, StabilityWarning, UnstableSystemError
from lqo_mor.reduction.best_of import iterate
from lqo_mor.reduction.budget import Budget, budget, check_budget
from lqo_mor.reduction.descent import quasi_newton
from lqo_mor.reduction.objective.transfer import well_conditioned_modes
from lqo_mor.reduction.refit import densified, fit_outputs
from lqo_mor.reduction.result import KERNEL_STATUS, Outcome, Reduction, finish
from lqo_mor.reduction.sections.data import Data, balanced_start, channel_data, further_starts, search_data, weighted_data
from lqo_mor.reduction.sections.orthonormal import diagonal_image, realise, realise_dense
from lqo_mor.reduction.sections.search import Found, search_batch, search_channels, search_one, searchable
from lqo_mor.reduction.starts import Start, check_options, start_reduction
from lqo_mor.reduction.two_sided.tsia import tsia
from lqo_mor.systems.batches import choose
from lqo_mor.systems.convert import as_dense, to_diagonal
from lqo_mor.systems.dense import LQOSystem
from lqo_mor.systems.diagonal import DiagonalLQOSystem
from lqo_mor.systems.poles import clamped, closed
from lqo_mor.systems.system import System
from lqo_mor.types import Progress

_EXCHANGES = 6  # of one system; a batch, where time counts, has quick ones only
_FEW = 300  # unknowns of dense systems up to which a third start takes little time
_TWO_SIDED = 100  # steps of the two-sided iteration that makes a start
_SMALL = 1e-5  # relative error below which residues of single poles cost digits


def variable_projection(
    sys: System,
    order: int | None = None,
    *,
    slots: int | None = None,
    horizon: float | None = None,
    spectrum: InputSpectrum | None = None,
    start: Start | Sequence[Start] | None = None,
    margin: float = 1e-12,
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
    sys : LQOSystem or DiagonalLQOSystem
        The full system, or a batch of diagonal ones. A real system of any kind; one input and a diagonal
        state matrix is the compiled fast path.
    order : int, optional
        Number of real states of the reduced system, a conjugate pair counts as two.
    slots : int, optional
        For diagonal systems, instead of `order`: the number of slots (pairs or real poles).
    horizon : float, optional
        Samples (discrete, an integer) or seconds (continuous); infinite by default.
    spectrum : InputSpectrum, optional
        That of a stationary input instead of white noise, for discrete systems over the infinite horizon: the expected power
        of the output error for that input is minimised (`h2_error` with the spectrum), and all errors of the result are so.
    start : Reduction, system or str, or a sequence of those, optional
        Where to start, or the name of the method that makes the start ("balanced", "modal", "hippo"). A start
        of fewer states is filled up. Without it the search described above, which none of the named starts gets.
    margin : float, default 1e-12
        Distance that poles keep from the stability boundary, ``|μ| ≤ 1 − margin`` (continuous time:
        ``Re μ ≤ −margin``). Over a finite horizon the optimum may be a pole close to 1, which beyond the horizon
        integrates.
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
        Never worse than the start and never unstable. `history` holds the squared error.

    Raises
    ------
    OrderError
        If the budget is not a positive integer below the size of the system.
    UnstableSystemError
        If the horizon is infinite and the system is not asymptotically stable.

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
    >>> sys = lqo.DiagonalLQOSystem([0.9, 0.8, -0.3], [[1.0]] * 3, [[1.0, 0.5, 0.2]])
    >>> red = lqo.variable_projection(sys, order=2)
    >>> bool(red.error <= red.start_error)
    True
    """
    check_budget(sys, order, slots, horizon)
    if spectrum is not None:
        check_spectrum(sys, spectrum, horizon)
    horizon = finite(horizon)
    check_options(sys.is_continuous, margin=margin, ridge=ridge, max_iterations=max_iterations, tolerance=tolerance)
    check_options(sys.is_continuous, exchanges=0 if exchanges is None else exchanges)
    stop: dict[str, Any] = {"max_iterations": max_iterations, "tolerance": tolerance}
    size = budget(order, slots, sys.is_continuous, margin)
    dense = isinstance(sys, LQOSystem)
    default, searched = start is None, searchable(sys, horizon, ridge, spectrum)
    diagonal = sys if isinstance(sys, DiagonalLQOSystem) else None
    many = default and diagonal is not None and bool(diagonal.batch) and diagonal.quadratic is None and sys.n_inputs == 1
    if many and diagonal is not None and spectrum is None:
        return _reduce_batch(diagonal, size, horizon, ridge, exchanges or 0, stop, progress)
    tries = exchanges if exchanges is not None else _EXCHANGES if default else 0

    def one(sys: System, initial: DiagonalLQOSystem, spectrum: InputSpectrum | None) -> Outcome:
        full = well_conditioned_modes(sys) if isinstance(sys, LQOSystem) else sys
        own = [closed(initial.poles[np.any(initial.B, axis=-1)])]
        options: dict[str, Any] = {"exchanges": tries, "widely": default, **stop}
        if full is not None and searched:
            data = search_data(full, horizon, ridge) if spectrum is None else weighted_data(full, spectrum, ridge)
            found = search_one(data, size, own + further_starts(full, size, horizon, spectrum) * default, **options)
            system = _system(sys, full, found, horizon, ridge, spectrum)
            return Outcome(system, found.history, KERNEL_STATUS[found.status], found.steps)
        if full is None and searched and horizon is None and spectrum is None:
            return _search_image(as_dense(sys), size, own, default, ridge, options)
        return quasi_newton.optimise_one(sys, initial, horizon, spectrum, margin=margin, ridge=ridge, **stop)

    def batch(sys: DiagonalLQOSystem, initial: DiagonalLQOSystem, progress: Progress) -> Outcome:
        if many and spectrum is not None:
            return search_channels(sys, initial, spectrum, size, progress, ridge=ridge, exchanges=exchanges or 0, **stop)
        return quasi_newton.optimise_batch(sys, initial, horizon, progress, margin=margin, ridge=ridge, **stop)

    names: list[Start] = ["balanced"]
    if start is not None:
        names = list(start) if isinstance(start, (list, tuple)) else [cast(Start, start)]
    starts = []
    if default and not searched:
        names.append("modal")
        if sys.n_inputs == 1:  # a quadratic output: the optimum over all time is near
            few = 0 if getattr(sys, "batch", ()) else exchanges
            with contextlib.suppress(UnstableSystemError):
                names.append(variable_projection(sys, order, slots=slots, margin=margin, exchanges=few, **stop).system)
    for name in names:
        with contextlib.suppress(InvalidInputError) if default and name == "modal" else contextlib.nullcontext():
            starts.append(start_reduction(sys, order, slots, horizon, name, spectrum))
    slow = dense and spectrum is None and (order or 0) * (1 + sys.n_inputs) > _FEW  # elsewhere other steps take more time anyway
    if default and sys.n_inputs > 1 and not getattr(sys, "batch", ()) and not slow:
        with warnings.catch_warnings(), contextlib.suppress(UnstableSystemError):
            warnings.simplefilter("ignore", StabilityWarning)  # said by `iterate`, if it is the result
            run = tsia(sys, order, slots=slots, spectrum=spectrum, max_iterations=_TWO_SIDED)
            starts.append(run if horizon is None else start_reduction(sys, order, slots, horizon, run.system))
    starts = [_within(sys, begun, margin, horizon, ridge, spectrum) for begun in starts]
    if not starts:
        raise InvalidInputError("start is empty; give at least one start")
    if slots is not None and diagonal is not None and not searched:
        before = [cast(DiagonalLQOSystem, begun.system) for begun in starts]
        filled = [quasi_newton.fill(diagonal, system, slots, horizon, spectrum) for system in before]
        starts = [replace(begun, system=system) for begun, system in zip(starts, filled, strict=True)]
    compiled = many or not (dense or searched or sys.n_inputs > 1 or spectrum is not None)
    where: dict[str, Any] = {"horizon": horizon, "spectrum": spectrum}
    return iterate(sys, starts, one, batch if compiled else None, method="optimal", progress=progress, **where)


def _search_image(
    sys: LQOSystem, size: Budget, own: list[np.ndarray], default: bool, ridge: float, options: dict[str, Any]
) -> Outcome:
    """A dense system whose modes are no basis: the best poles for its diagonal image, then two-sided steps on itself."""
    image, systems = diagonal_image(sys), [realise_dense(sys, own[0][own[0].imag >= 0])]
    if image is not None:
        data = search_data(image, None, ridge)
        found = search_one(data, size, own + further_starts(image, size, None) * default, **options)
        systems.append(realise_dense(sys, found.poles))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", StabilityWarning)  # said by `iterate`, if it is the result
        steps, tolerance = options["max_iterations"], options["tolerance"]
        runs = [tsia(sys, system.order, start=system, max_iterations=steps, tolerance=tolerance) for system in systems]
    best = min(runs, key=lambda run: run.error)
    return Outcome(best.system, cast(np.ndarray, best.history), np.asarray(best.status), np.asarray(best.iterations))


def _within(
    sys: System, begun: Reduction, margin: float, horizon: float | None, ridge: float, spectrum: InputSpectrum | None
) -> Reduction:
    """A start whose poles keep the margin: they are moved there, and the outputs fitted, in the channels where they do not."""
    system = begun.system
    poles = np.linalg.eigvals(system.A) if isinstance(system, LQOSystem) else system.poles
    over = np.asarray(np.max(poles.real if sys.is_continuous else np.abs(poles) - 1, axis=-1) > -margin)
    if not np.any(over):
        return begun
    diagonal = to_diagonal(system) if isinstance(system, LQOSystem) else system
    poles = clamped(diagonal.poles, sys.is_continuous, margin)
    moved = fit_outputs(sys, poles, diagonal.B, horizon, ridge, spectrum)
    kept = densified(moved, sys) if isinstance(sys, LQOSystem) else choose(over, moved, cast(DiagonalLQOSystem, system))
    measured = finish(sys, kept, method=begun.method, horizon=horizon, spectrum=spectrum)
    return replace(measured, hsv=begun.hsv, repaired=begun.repaired)


def _system(
    sys: System, full: DiagonalLQOSystem, found: Found, horizon: float | None, ridge: float, spectrum: InputSpectrum | None
) -> System:
    """The reduced system of the poles found, its outputs optimal; over all time in orthonormal coordinates where that counts."""
    B = np.ones((found.poles.size, 1), complex)
    exact = horizon is None and spectrum is None
    if isinstance(sys, LQOSystem) and exact:
        return realise(full, found.poles, sys.dt)
    fitted = fit_outputs(full, found.poles, B, horizon, ridge, spectrum)
    if isinstance(sys, DiagonalLQOSystem) and exact and h2_error(sys, fitted, relative=True) < _SMALL:
        with warnings.catch_warnings(), contextlib.suppress(InvalidInputError):
            warnings.simplefilter("ignore", AccuracyWarning)  # the error of both is measured
            other = to_diagonal(realise(full, found.poles, sys.dt))
            if other.n_slots == fitted.n_slots and h2_error(sys, other) < h2_error(sys, fitted):
                return other
    return fitted


def _reduce_batch(
    sys: DiagonalLQOSystem,
    size: Budget,
    horizon: float | None,
    ridge: float,
    exchanges: int,
    stop: dict[str, Any],
    progress: Progress | None,
) -> Reduction:
    """A batch with one input and linear outputs, compiled from end to end."""
    tell, count, data_of = progress or (lambda done, total: None), int(np.prod(sys.batch)), channel_data(sys, horizon, ridge)

    def start_of(h: int, data: Data) -> np.ndarray:
        return balanced_start(data, size)

    found = search_batch(count, data_of, start_of, size, exchanges=exchanges, progress=tell, **stop)
    B = np.where(found.used, 1.0 + 0j, 0.0)
    system = fit_outputs(sys, found.poles.reshape(*sys.batch, -1), B.reshape(*sys.batch, -1, 1), horizon, ridge)
    start_error = np.sqrt(np.maximum(found.start, 0.0)).reshape(sys.batch)
    length = int(found.steps.max(initial=0)) + 1
    return finish(
        sys,
        system,
        method="optimal",
        horizon=horizon,
        status=KERNEL_STATUS[found.status].reshape(sys.batch),
        start_error=start_error,
        iterations=found.steps.reshape(sys.batch),
        history=found.history[:, :length].reshape(*sys.batch, -1),
        repaired=np.zeros(sys.batch, bool),
    )
