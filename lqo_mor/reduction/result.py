"""What a reduction returns."""

from __future__ import annotations

import contextlib
import enum
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeAlias, cast

import numpy as np

from lqo_mor.analysis.differences import error_and_digits, relative_to
from lqo_mor.analysis.norm import Norm
from lqo_mor.analysis.spectrum import InputSpectrum
from lqo_mor.errors import InvalidInputError, LQOError
from lqo_mor.reduction.refit import fitted_to
from lqo_mor.systems.batches import choose
from lqo_mor.systems.diagonal import DiagonalLQOSystem
from lqo_mor.systems.system import System
from lqo_mor.types import FloatOrBatch

Measured: TypeAlias = tuple[FloatOrBatch, FloatOrBatch, int | np.ndarray]  # error, relative error, digits of both

_ROUNDING = 1e-9  # relative error above 1 that rounding may make


class Status(enum.Enum):
    """How a reduction ended; the value is advice."""

    DIRECT = "computed directly, nothing to iterate"
    CONVERGED = "converged to a stationary point"
    MAX_ITERATIONS = "did not converge: raise max_iterations"
    STALLED = "stopped where rounding hides any further decrease"
    START_KEPT = "found nothing better than the start, which has been kept"


KERNEL_STATUS = np.array([Status.CONVERGED, Status.MAX_ITERATIONS, Status.STALLED])  # by the codes of the kernels


@dataclass(frozen=True, eq=False)
class Reduction:
    """A reduced system and how it came about.

    For a batch of systems every number below is an array of the batch shape.

    Attributes
    ----------
    system : LQOSystem or DiagonalLQOSystem
        The reduced system, of the kind of the full one.
    error, relative_error : float
        h² norm of the difference to the full system over `horizon`, and that norm divided by the norm of the
        full system (see `h2_error`).
    start_error : float
        h² error of the start of an iterative method; `error` itself for a direct one.
    method : str
        Name of the method.
    norm : Norm
        In which norm `error`, `relative_error` and `start_error` are; `horizon` and `spectrum` are those of it.
    status : Status
        How it ended.
    iterations : int
        Accepted steps.
    history : ndarray or None
        Squared objective after every accepted step, (iterations + 1,); (..., longest + 1) filled with NaN for
        a batch. None for a direct method.
    hsv : ndarray or None
        Hankel singular values of the full system, if the method computed them.
    bound : float or None
        Bound on the H∞ norm of the error, ``2 Σ_{k>r} σ_k``, where one is known (balanced truncation of a
        linear system over the infinite horizon).
    repaired : bool
        Whether unstable poles were reflected and the outputs refitted.
    refitted : bool
        Whether the relative error was above 1, that of no system at all, and the outputs have been fitted anew.
    kept : int
        Real states at or beyond the stability boundary that were kept as they are. Over the infinite horizon the errors are then
        those of the stable part, divided by the norm of that; for linear outputs the difference to the full system is the same.
    digits : int
        Estimate of how many decimal digits of `error` rounding has left.
    """

    system: System
    error: FloatOrBatch
    relative_error: FloatOrBatch
    start_error: FloatOrBatch
    method: str
    norm: Norm
    status: Status | np.ndarray
    iterations: int | np.ndarray = 0
    history: np.ndarray | None = None
    hsv: np.ndarray | None = None
    bound: FloatOrBatch | None = None
    repaired: bool | np.ndarray = False
    refitted: bool | np.ndarray = False
    kept: int | np.ndarray = 0
    digits: int | np.ndarray = 15

    @property
    def horizon(self) -> float | None:
        """Samples or seconds; None for the infinite horizon."""
        return self.norm.horizon

    @property
    def spectrum(self) -> InputSpectrum | None:
        """That of the input, None for a white one."""
        return self.norm.spectrum

    def __str__(self) -> str:
        lines = [f"Reduction by {self.method} to {self.system!r}"]
        if isinstance(self.status, Status):
            digits = "" if self.digits > 4 else f", {self.digits} digits of it certain"
            lines.append(f"  relative h2 error   {self.relative_error:.4g}  ({self.norm}{digits})")
            if self.history is not None:
                change = f"h2 error of the start {self.start_error:.4g}, now {self.error:.4g}"
                lines.append(f"  iterations          {self.iterations}  ({change})")
            lines.append(f"  status              {self.status.value}")
        else:
            median, worst = np.median(self.relative_error), np.max(self.relative_error)
            lines.append(f"  relative h2 error   median {median:.4g}, worst {worst:.4g}  ({self.norm})")
            for status in Status:
                count = sum(s is status for s in np.ravel(self.status))
                if count:
                    lines.append(f"  {count:5d} of {np.size(self.status)}      {status.value}")
        if self.bound is not None:
            lines.append(f"  H-infinity bound    {np.max(self.bound):.4g}")
        if np.any(self.kept):
            of_rest = "; the error is that of the stable part" if self.horizon is None else ""
            lines.append(f"  kept                {np.sum(self.kept)} unstable state(s){of_rest}")
        if np.any(self.refitted):
            lines.append(
                f"  outputs fitted      {np.count_nonzero(self.refitted)} reduced system(s), whose error was above that of none"
            )
        if np.any(self.repaired):
            lines.append(f"  repaired            {np.count_nonzero(self.repaired)} unstable reduced system(s)")
        return "\n".join(lines)


def finish(
    sys: System,
    system: System,
    norm: Norm,
    *,
    method: str,
    status: Status | np.ndarray | None = None,
    as_given: bool = False,
    **fields: Any,
) -> Reduction:
    """A `Reduction` with its errors computed; `status` defaults to a direct method.

    Where the relative error is above 1, the outputs are fitted anew, unless the system is to stay `as_given`.
    """
    norm.check(system)
    if as_given:
        error, relative, digits = error_and_digits(sys, system, norm)
    else:
        system, (error, relative, digits), refitted = _no_worse_than_nothing(sys, system, norm)
        if np.any(refitted):
            fields = {**fields, "bound": None, "refitted": refitted if refitted.ndim else True}
    if status is None:
        status = Status.DIRECT if np.ndim(error) == 0 else np.full(np.shape(error), Status.DIRECT)
    fields = {"start_error": error, "kept": np.zeros(np.shape(error), int) if np.ndim(error) else 0, **fields}
    fields.setdefault("refitted", np.zeros(np.shape(error), bool) if np.ndim(error) else False)
    return Reduction(system, error, relative, method=method, norm=norm, status=status, digits=digits, **fields)


def _no_worse_than_nothing(sys: System, system: System, norm: Norm) -> tuple[System, Measured, np.ndarray]:
    """The system and its errors, with other outputs in the channels where the error is larger than the full system, and which.

    That is what zero outputs leave. The best outputs for the same states cannot leave more, but by rounding: where states
    hardly differ, outputs grow and cancel.
    """
    best = system, error_and_digits(sys, system, norm)
    lost = ~(np.asarray(best[1][1]) <= 1 + _ROUNDING)
    if not np.any(lost):
        return *best, lost
    if not np.any(np.asarray(relative_to(sys, np.ones(lost.shape), norm)) < np.inf):
        raise InvalidInputError("the norm of the full system is zero to working precision: there is nothing to compare with")
    for other in _with_other_outputs(sys, system, norm):
        measured = error_and_digits(sys, other, norm)
        smaller = np.asarray(measured[1] < np.nan_to_num(best[1][1], nan=np.inf)) & lost
        if np.all(smaller):
            best = other, measured
        elif np.any(smaller):  # a batch
            chosen = choose(smaller, cast(DiagonalLQOSystem, other), cast(DiagonalLQOSystem, best[0]))
            best = chosen, error_and_digits(sys, chosen, norm)
    if not np.all(np.isfinite(best[1][0])):
        raise InvalidInputError("the error of the reduced system overflows; scale the inputs and outputs of the full system")
    return *best, lost


def _with_other_outputs(sys: System, system: System, norm: Norm) -> Iterator[System]:
    """A reduced system with outputs fitted more and more carefully, and in the end without."""
    for cut in (0.0, 1e-12, 1e-8, 1e-4):
        with contextlib.suppress(LQOError, np.linalg.LinAlgError):
            yield fitted_to(sys, system, norm, cut)
    yield replace(system, C=np.zeros_like(system.C), M=None, D=sys.D)


@dataclass(frozen=True)
class Outcome:
    """What an optimiser returns: the system, and for each channel its history, status, steps, and whether it was repaired."""

    system: System
    history: np.ndarray
    status: np.ndarray
    iterations: np.ndarray
    repaired: np.ndarray | bool = False


def kernel_outcome(system: DiagonalLQOSystem, history: np.ndarray, status: np.ndarray, steps: np.ndarray) -> Outcome:
    """The `Outcome` of a batch from what kernels leave of its channels: histories (h, …), codes of the status and steps (h,)."""
    length, batch = int(steps.max(initial=0)) + 1, system.batch
    return Outcome(system, history[:, :length].reshape(*batch, -1), KERNEL_STATUS[status].reshape(batch), steps.reshape(batch))


_OF_ALL = {"sys", "order", "slots", "horizon", "stable", "balancing", "progress"}  # parameters that are no options of one method


@dataclass(frozen=True)
class Method:
    """A method of reduction, as `reduce` knows it."""

    public: Callable[..., Reduction]  # the function of the package, whose signature says which options there are
    # ``solve(sys, budget, norm, *, progress=None, **options) -> Reduction`` for a system, a `Budget` and a `Norm` that were
    # checked, with the options that were given
    solve: Callable[..., Reduction]
    # Whether it ends at a stationary point of the error. For a sparse system steps on that system itself then go on from the
    # result for the intermediate one.
    stationary: bool = False
    poles: bool = False  # whether it goes by the poles of the full system: the intermediate one of a sparse system has others

    @property
    def options(self) -> list[str]:
        """The options that only this method has."""
        return [name for name in inspect.signature(self.public).parameters if name not in _OF_ALL]

    @property
    def iterative(self) -> bool:
        """Whether it can be given a start."""
        return "start" in self.options
