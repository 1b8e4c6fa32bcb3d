"""What a reduction returns."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from lqo_mor.analysis.differences import error_and_digits
from lqo_mor.analysis.spectrum import InputSpectrum
from lqo_mor.errors import InvalidInputError
from lqo_mor.systems.system import System
from lqo_mor.types import FloatOrBatch


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
    horizon : float or None
        Samples or seconds; None for the infinite horizon.
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
    digits : int
        Estimate of how many decimal digits of `error` rounding has left.
    spectrum : InputSpectrum or None
        That of the input for which `error`, `relative_error` and `start_error` are (see `h2_error`); None for white input.
    """

    system: System
    error: FloatOrBatch
    relative_error: FloatOrBatch
    start_error: FloatOrBatch
    method: str
    horizon: float | None
    status: Status | np.ndarray
    iterations: int | np.ndarray = 0
    history: np.ndarray | None = None
    hsv: np.ndarray | None = None
    bound: FloatOrBatch | None = None
    repaired: bool | np.ndarray = False
    digits: int | np.ndarray = 15
    spectrum: InputSpectrum | None = None

    def __str__(self) -> str:
        horizon = "infinite horizon" if self.horizon is None else f"horizon {self.horizon:g}"
        horizon = horizon if self.spectrum is None else "weighted by the spectrum of the input"
        lines = [f"Reduction by {self.method} to {self.system!r}"]
        if isinstance(self.status, Status):
            digits = "" if self.digits > 4 else f", {self.digits} digits of it certain"
            lines.append(f"  relative h2 error   {self.relative_error:.4g}  ({horizon}{digits})")
            if self.history is not None:
                change = f"h2 error of the start {self.start_error:.4g}, now {self.error:.4g}"
                lines.append(f"  iterations          {self.iterations}  ({change})")
            lines.append(f"  status              {self.status.value}")
        else:
            median, worst = np.median(self.relative_error), np.max(self.relative_error)
            lines.append(f"  relative h2 error   median {median:.4g}, worst {worst:.4g}  ({horizon})")
            for status in Status:
                count = sum(s is status for s in np.ravel(self.status))
                if count:
                    lines.append(f"  {count:5d} of {np.size(self.status)}      {status.value}")
        if self.bound is not None:
            lines.append(f"  H-infinity bound    {np.max(self.bound):.4g}")
        if np.any(self.repaired):
            lines.append(f"  repaired            {np.count_nonzero(self.repaired)} unstable reduced system(s)")
        return "\n".join(lines)


Method: TypeAlias = Callable[..., Reduction]


def finish(
    sys: System,
    system: System,
    *,
    method: str,
    horizon: float | None,
    spectrum: InputSpectrum | None = None,
    status: Status | np.ndarray | None = None,
    **fields: Any,
) -> Reduction:
    """A `Reduction` with its errors computed; `status` defaults to a direct method."""
    error, relative, digits = error_and_digits(sys, system, horizon, spectrum=spectrum)
    if not np.all(np.isfinite(error)):
        raise InvalidInputError("the error of the reduced system overflows; scale the inputs and outputs of the full system")
    if status is None:
        status = Status.DIRECT if np.ndim(error) == 0 else np.full(np.shape(error), Status.DIRECT)
    fields.setdefault("start_error", error)
    fields |= {"digits": digits, "spectrum": spectrum}
    return Reduction(system, error, relative, method=method, horizon=horizon, status=status, **fields)


@dataclass(frozen=True)
class Outcome:
    """What an optimiser returns: the system, and per channel its history, status and number of steps."""

    system: System
    history: np.ndarray
    status: np.ndarray
    iterations: np.ndarray
