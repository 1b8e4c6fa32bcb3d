"""The two-sided iteration algorithm, over an infinite (TSIA) or a finite horizon (TLH2)."""

from __future__ import annotations

from typing import Any

from lqo_mor.analysis.norm import Norm
from lqo_mor.analysis.spectrum import InputSpectrum
from lqo_mor.reduction.budget import Budget
from lqo_mor.reduction.result import Reduction
from lqo_mor.reduction.starts import Start
from lqo_mor.reduction.two_sided.cross_gramians import cross_solver
from lqo_mor.reduction.two_sided.runs import Steps, reduce_two_sided
from lqo_mor.reduction.unstable import solved
from lqo_mor.systems.system import System
from lqo_mor.types import Progress


def tsia(
    sys: System,
    order: int | None = None,
    *,
    slots: int | None = None,
    horizon: float | None = None,
    spectrum: InputSpectrum | None = None,
    stable: bool = False,
    start: Start | None = None,
    max_iterations: int = 300,
    tolerance: float = 1e-8,
    progress: Progress | None = None,
) -> Reduction:
    """Two-sided iteration: project on the cross Gramians with the last reduced system until it stays the same.

    Each step solves ``X = A X A_rᵀ + B B_rᵀ`` and ``Y = Aᵀ Y A_r + CᵀC_r + 2 Σ M_i X M_{r,i}`` (continuous time and
    finite horizons: the same integrals and sums), and projects on ``V = orth(X)`` and ``W = Y (VᵀY)⁻¹``. Over the
    infinite horizon a fixed point satisfies the first-order conditions of h²-optimality.

    The plain iteration can be slow, oscillate, or leave the stable systems. Here steps near a fixed point are
    extrapolated from the last five, as long as the error does not rise; the poles of an unstable iterate are reflected at
    the stability boundary; after ten steps without a smaller error the iteration goes back to the best iterate and damps
    its steps along a direction in which the error falls. The outputs are the optimal ones, in closed form, throughout, and
    the result is the best iterate.

    Parameters
    ----------
    sys, order, slots
        As for `reduce`.
    horizon : float, optional
        Samples (discrete, an integer) or seconds (continuous); infinite by default. Over a finite one (TLH2) a fixed
        point is near a stationary point only and the best iterate often comes before it, with `Status.STALLED`;
        `variable_projection` goes on from there. Poles then stay off the stability boundary: they decay by a tenth
        within the horizon, or half as fast as those of the full system or as fast as those of the start.
    spectrum : InputSpectrum, optional
        That of a stationary input instead of white noise, for discrete systems over the infinite horizon: its Gramians are
        used, and all errors are the weighted ones (`h2_error` with the spectrum).
    stable : bool, default False
        As for `reduce`.
    start : Reduction, system or str, optional
        Where to start, or the name of the method that makes the start; balanced truncation by default. The result has
        as many states as the start.
    max_iterations : int, default 300
        Most steps.
    tolerance : float, default 1e-8
        Converged when an undamped step changes no pole (matched with those before, relative to its modulus) and the
        part of the squared error that depends on the reduced system by more than this fraction.
    progress : callable, optional
        Called as ``progress(done, total)`` with channels of a batch.

    Returns
    -------
    Reduction
        Never worse than the start, and unstable only in states that it keeps.
        `history` holds the smallest squared error so far, on the way to
        the result; `status` is `Status.CONVERGED` only if both tests hold, and `Status.STALLED` where no step lowers the
        error.

    Warns
    -----
    StabilityWarning
        If the result itself is an iterate whose poles were reflected; its `repaired` is then True.

    Raises
    ------
    OrderError, UnstableSystemError
        As for `reduce`.
    InvalidInputError
        If a system given as the start has states that no input excites, or that are linearly dependent.

    Notes
    -----
    With a `spectrum`, `X` solves ``X = A X A_rᵀ + B F_rᵀ + F B_rᵀ`` (see `controllability_gramian`), and `Y` is as for white
    input, with another factor 2 for quadratic outputs. A fixed point is near a stationary point of the weighted error only,
    since the change of ``F_r`` with the reduced system is left out (Halevi 1992). Every damped step lowers the weighted error,
    and the result is the best iterate; `variable_projection` goes on to a stationary point.

    References
    ----------
    Xu, Zeng, "Optimal H2 model reduction for large scale MIMO systems via tangential interpolation", Int. J. Numerical
    Analysis and Modeling 8 (2011), for linear systems; Gosea, Antoulas, "A two-sided iterative framework for model
    reduction of linear systems with quadratic output", CDC 2019; Goyal, Redmann, "Time-limited H2-optimal model order
    reduction", Appl. Math. Comput. 355 (2019); Walker, Ni, "Anderson acceleration for fixed-point iterations", SIAM J.
    Numer. Anal. 49 (2011), for the extrapolation; Halevi, "Frequency weighted model reduction via optimal projection", IEEE
    Trans. Autom. Control 37 (1992).

    Examples
    --------
    >>> import lqo_mor as lqo
    >>> sys = lqo.LQOSystem([[0.9, 0.1], [0.0, 0.2]], [[1.0], [1.0]], [[1.0, 0.0]], dt=1.0)
    >>> red = lqo.tsia(sys, order=1)
    >>> red.status.name, bool(red.error < red.start_error)
    ('CONVERGED', True)
    """
    steps = {"max_iterations": max_iterations, "tolerance": tolerance}
    return solved("tsia", projecting, sys, order, slots, horizon, stable, progress, spectrum, start=start, **steps)


def projecting(
    sys: System, budget: Budget, norm: Norm, *, start: Start | None = None, progress: Progress | None = None, **options: Any
) -> Reduction:
    """`tsia` in a norm."""
    return reduce_two_sided(sys, budget, norm, start, Steps(cross_solver, **options), method="tsia", progress=progress)
