"""The public door: which norm the keywords `horizon` and `spectrum` mean, and which keywords a kind of system has."""

from __future__ import annotations

from typing import Any, cast

import numpy as np

from lqo_mor.analysis.norm import HorizonNorm, Norm, finite
from lqo_mor.analysis.weighted import SpectrumNorm
from lqo_mor.errors import InvalidInputError
from lqo_mor.matrix_equations.balancing import rescale, state_scales
from lqo_mor.systems.dense import LQOSystem
from lqo_mor.systems.quadratic import QuadraticOutput
from lqo_mor.systems.sparse import SparseLQOSystem
from lqo_mor.systems.system import System, check_kind, instead_of

NORMS: tuple[type[Norm], ...] = (HorizonNorm, SpectrumNorm)  # another norm: a file with a subclass of `Norm`, and its line here


def norm_of(sys: System, horizon: Any = None, spectrum: Any = None) -> Norm:
    """The norm that the keywords of a public function mean.

    The one place of these checks, but for `reduction.unstable.opened`: what takes a `Norm` makes none again. Raises
    `InvalidInputError` where `sys` is no system of lqo-mor, the horizon no positive length of time (an integer in discrete time)
    or the spectrum none for it, `DimensionError` where the spectrum has other inputs or another batch, and `UnstableSystemError`
    where the norm does not exist: `sys` is unstable and the horizon infinite, or what grows overflows within it.
    """
    norm = norm_asked(sys, horizon, spectrum)
    norm.check(sys)
    return norm


def norm_asked(sys: System, horizon: Any = None, spectrum: Any = None) -> Norm:
    """`norm_of`, whether or not it exists for the system."""
    check_kind(sys)
    for kind in NORMS:
        norm = kind.asked(sys.is_continuous, horizon, spectrum)
        if norm is not None:
            return norm
    raise InvalidInputError(f"spectrum must be an InputSpectrum, got {type(spectrum).__name__}")


def prepared(sys: System, horizon: Any = None, spectrum: Any = None) -> tuple[System, Norm]:
    """The system with its states in balanced units, and the norm; raises as `norm_of`."""
    norm = norm_of(sys, horizon, spectrum)
    return balanced_units(sys)[0], norm


def balanced_units(sys: System) -> tuple[System, np.ndarray]:
    """The system with its states in balanced units, and these units, (n,): one where nothing is to be gained."""
    d = state_scales(sys.A) if isinstance(sys, LQOSystem) else None
    if d is None:
        return sys, np.ones(1)
    sys = cast(LQOSystem, sys)
    M = sys.M
    if isinstance(M, QuadraticOutput):
        M = QuadraticOutput(M.U * d, M.V * d, M.W)
    elif M is not None:
        M = M * d * d[:, np.newaxis]
    return LQOSystem(rescale(sys.A, d), sys.B / d[:, np.newaxis], sys.C * d, sys.D, M, sys.dt), d


def check_keywords(sys: object, horizon: Any, spectrum: Any, *, delay: Any = 1, slots: Any = None, **of_sparse: Any) -> None:
    """Raise `InvalidInputError` where a keyword of a public function is given that this kind of system does not have.

    Sparse systems have an infinite horizon, white input, delay 1, and budgets in states; `of_sparse` are keywords that only
    they have, None by default.
    """
    sparse = isinstance(sys, SparseLQOSystem)
    of_dense = {"horizon": finite(horizon), "spectrum": spectrum, "delay": None if delay == 1 else delay, "slots": slots}
    given = ", ".join(name for name, value in (of_dense if sparse else of_sparse).items() if value is not None)
    if given:
        kind = "not for a SparseLQOSystem" if sparse else f"only for a SparseLQOSystem, got {type(sys).__name__}"
        raise InvalidInputError(f"{given}: {kind}{instead_of(sys)}")


def check_delay(delay: int) -> None:
    """Raise `InvalidInputError` unless a delay is 0 or 1."""
    if not isinstance(delay, (int, np.integer)) or delay not in (0, 1):
        raise InvalidInputError(f"delay must be 0 or 1, got {delay!r}")
