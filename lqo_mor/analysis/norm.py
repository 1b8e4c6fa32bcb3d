"""Whether a quantity over a horizon exists: stability, and growth over a finite horizon."""

from __future__ import annotations

import warnings

import numpy as np
import scipy.linalg

from lqo_mor.errors import InvalidInputError, UnstableSystemError
from lqo_mor.matrix_equations.lyapunov import cayley_transform
from lqo_mor.matrix_equations.pairing import check_horizon
from lqo_mor.systems.dense import LQOSystem
from lqo_mor.systems.diagonal import DiagonalLQOSystem
from lqo_mor.systems.system import System

_WORTH_SQUARING = 200  # order from which squaring beats the eigenvalues as a test of stability
_MOST_SQUARINGS, _HOPELESS = 40, 1e100
_MOST_GROWTH = 300.0  # logarithm; squares of e^350 overflow


def check_system(sys: System, horizon: float | None = None) -> None:
    """Raise unless `sys` is a system and `horizon` fits it; an infinite one needs asymptotic stability.

    Raises
    ------
    InvalidInputError
        If `sys` is no system of lqo-mor, or `horizon` is not a positive length of time.
    UnstableSystemError
        If the horizon is infinite and an eigenvalue is not strictly stable.
    """
    if not isinstance(sys, (LQOSystem, DiagonalLQOSystem)):
        raise InvalidInputError(f"expected an LQOSystem or a DiagonalLQOSystem, got {type(sys).__name__}")
    length = finite(horizon)
    if length is not None:
        check_horizon(sys.is_continuous, length)
        _check_growth(sys, length)
        return
    if isinstance(sys, LQOSystem) and sys.order > _WORTH_SQUARING and _stable_by_squaring(sys):
        return
    poles = sys.poles if isinstance(sys, DiagonalLQOSystem) else np.linalg.eigvals(sys.A)
    if sys.is_continuous:
        largest, limit, what = poles.real.max(), 0.0, "spectral abscissa (largest real part of a pole)"
    else:
        largest, limit, what = np.abs(poles).max(), 1.0, "spectral radius (largest modulus of a pole)"
    if not largest < limit:
        where, hint = "", ""
        if isinstance(sys, DiagonalLQOSystem) and sys.batch:
            worst = np.argmax(poles.real if sys.is_continuous else np.abs(poles))
            where = f" in channel {tuple(int(i) for i in np.unravel_index(worst, poles.shape)[:-1])}"
        if not sys.is_continuous and np.all(poles.real < 0):
            hint = "; if it is meant to be continuous, pass dt=0"
        raise UnstableSystemError(
            f"the system is not asymptotically stable: its {what} is {largest:.10g}{where}, which must be below {limit:g}; "
            f"give a finite horizon to work with its first samples or seconds{hint}"
        )


def _check_growth(sys: System, horizon: float) -> None:
    """Raise where a state that grows over a finite horizon would overflow."""
    if isinstance(sys, LQOSystem):
        if sys.order > _WORTH_SQUARING:
            return
        poles = np.linalg.eigvals(sys.A)
    else:
        poles = sys.poles
    with np.errstate(divide="ignore"):
        growth = horizon * np.max(poles.real if sys.is_continuous else np.log(np.abs(poles)))
    if growth > _MOST_GROWTH:
        raise UnstableSystemError(
            f"over the horizon {horizon:g} the unstable system grows by a factor e^{growth:.0f}, which overflows; shorten it"
        )


def _stable_by_squaring(sys: LQOSystem) -> bool:
    """Whether a power of the (Cayley-transformed) state matrix has a norm below 1, which proves stability.

    A few matrix products instead of the eigenvalues, which cost as much as several solutions of the equations.
    """
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", scipy.linalg.LinAlgWarning)
        power = cayley_transform(sys.A)[0] if sys.is_continuous else sys.A
        for _ in range(_MOST_SQUARINGS):
            norm = np.linalg.norm(power)
            if norm < 1:
                return True
            if not norm < _HOPELESS:
                return False
            power = power @ power
    return False


def finite(horizon: float | None) -> float | None:
    """`horizon`, with infinity written as None."""
    return None if horizon is None or (isinstance(horizon, float) and horizon == np.inf) else horizon
