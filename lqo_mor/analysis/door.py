"""The public door: which norm the keywords `horizon` and `spectrum` mean, checked once for the system that it is for."""

from __future__ import annotations

from typing import Any

from lqo_mor.analysis.norm import HorizonNorm, Norm, check_kind
from lqo_mor.analysis.weighted import SpectrumNorm
from lqo_mor.errors import InvalidInputError
from lqo_mor.systems.system import System

NORMS: tuple[type[Norm], ...] = (HorizonNorm, SpectrumNorm)  # another norm: a file with a subclass of `Norm`, and its line here


def norm_of(sys: System, horizon: Any = None, spectrum: Any = None) -> Norm:
    """The norm that the keywords of a public function mean.

    Parameters
    ----------
    sys : LQOSystem or DiagonalLQOSystem
        The system, or a batch of diagonal ones.
    horizon : float, optional
        Samples (discrete, an integer) or seconds (continuous); infinite by default.
    spectrum : InputSpectrum, optional
        That of a stationary input instead of white noise, for discrete systems over the infinite horizon.

    Returns
    -------
    Norm
        To be handed inward; what takes a `Norm` checks nothing again.

    Raises
    ------
    InvalidInputError
        If `sys` is no system of lqo-mor, `horizon` is not a positive length of time, or `spectrum` no spectrum for it.
    DimensionError
        If the spectrum has other inputs, or a batch that is not that of the system.
    UnstableSystemError
        If the norm of `sys` does not exist: it is unstable and the horizon infinite, or what grows overflows within it.
    """
    check_kind(sys)
    for kind in NORMS:
        norm = kind.asked(sys.is_continuous, horizon, spectrum)
        if norm is not None:
            norm.check(sys)
            return norm
    raise InvalidInputError(f"spectrum must be an InputSpectrum, got {type(spectrum).__name__}")
