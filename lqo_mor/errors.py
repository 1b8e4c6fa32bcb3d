"""Exceptions and warning categories. Every one of ours inherits the builtin that a caller would expect.

Their messages name what stands in files of others, so they are shown as text for people: nothing in them commands a terminal.
"""

from __future__ import annotations

import sys
import warnings

from numpy.linalg import LinAlgError

_LONGEST = 4000  # characters of a message


def shown(text: object, most: int = 100) -> str:
    """A name that a file gives, as text for people: control characters escaped, and cut to `most` characters."""
    text = str(text)
    ends = text if len(text) <= 2 * most else text[:most] + text[-most:]
    plain = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in ends)
    half = (most - 7) // 2
    return plain if len(plain) <= most else f"{plain[:half]} [...] {plain[-half:]}"


class LQOError(Exception):
    """Base of every error that lqo-mor raises on purpose."""

    def __init__(self, *parts: object) -> None:
        super().__init__(*(shown(part, _LONGEST) if isinstance(part, str) else part for part in parts))


class InvalidInputError(LQOError, ValueError):
    """A value that cannot be used: not finite, out of range, or contradictory."""


class DimensionError(InvalidInputError):
    """An array of the wrong shape; the message names the array, its shape and the wanted one."""


class SingularEquationError(InvalidInputError, LinAlgError):
    """A matrix equation without a unique solution to working precision."""


class UnstableSystemError(InvalidInputError):
    """An infinite-horizon quantity was asked of a system that is not asymptotically stable."""


class OrderError(InvalidInputError):
    """A reduced order that is not below the order of the system, or not positive."""


class CheckpointError(InvalidInputError):
    """A checkpoint that is damaged, unsafe, incomplete or of an unknown format."""


class OutputError(LQOError, ValueError):
    """An output path that already exists or cannot be written."""


class ConvergenceError(LQOError, ArithmeticError):
    """An iteration of a solver did not converge."""


class WorkerError(LQOError, RuntimeError):
    """The workers of joblib are gone before the work was done; the message says where the finished part is."""


class MissingDependencyError(LQOError, ImportError):
    """An optional library is needed; the message names the extra that brings it."""

    def __init__(self, library: str, extra: str, purpose: str) -> None:
        super().__init__(f"{purpose} needs {library}; install it with: pip install 'lqo-mor[{extra}]'")
        self._parts = library, extra, purpose

    def __reduce__(self) -> tuple[type[MissingDependencyError], tuple[str, str, str]]:
        return type(self), self._parts  # so that it comes back from a worker process


class LQOWarning(UserWarning):
    """Base of every warning of lqo-mor."""


class SymmetrisedWarning(LQOWarning):
    """A quadratic output matrix was not symmetric and its symmetric part was taken."""


class StabilityWarning(LQOWarning):
    """A reduced model was unstable and has been repaired."""


class AccuracyWarning(LQOWarning):
    """A result holds fewer correct digits than usual."""


class AssumptionWarning(LQOWarning):
    """A checkpoint does not tell all that is needed to read it, and the usual value was assumed."""


def warn(message: str, category: type[LQOWarning]) -> None:
    """Issue a warning that points at the line of the caller outside of lqo-mor."""
    message = shown(message, _LONGEST)
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None and (part := frame.f_globals.get("__name__", "").partition(".")[0]) in (
        "lqo_mor",
        "importlib",
    ):
        level, frame = level + (part == "lqo_mor"), frame.f_back  # Python counts no frames of an import
    warnings.warn(message, category, stacklevel=level)
