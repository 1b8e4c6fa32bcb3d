"""Which h² norm is meant: what all of analysis and reduction need to know of it, and whether it exists for a system.

A `Norm` is made and checked once, at the public door (`door.norm_of`), and handed inward. Another norm joins by a subclass of
`Norm` in a file of its own and a line in `door.NORMS`.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import scipy.linalg

from lqo_mor.analysis.spectrum import InputSpectrum
from lqo_mor.errors import DimensionError, InvalidInputError, UnstableSystemError
from lqo_mor.matrix_equations.factors import factor_pair
from lqo_mor.matrix_equations.lyapunov import cayley_transform, lyapunov_factor, solve_lyapunov
from lqo_mor.matrix_equations.pairing import Pairing, check_horizon, pairing
from lqo_mor.matrix_equations.stein import solve_stein, stein_factor
from lqo_mor.systems.dense import LQOSystem
from lqo_mor.systems.diagonal import DiagonalLQOSystem
from lqo_mor.systems.system import AnySystem, System

Rows: TypeAlias = Callable[[np.ndarray], np.ndarray]  # the output rows that an observability Gramian is of, by the factor R

WORTH_SQUARING = 200  # order from which squaring beats the eigenvalues as a test of stability
_MOST_SQUARINGS, _HOPELESS = 40, 1e100
_MOST_GROWTH = 300.0  # logarithm; squares of e^350 overflow


@dataclass(frozen=True, eq=False)
class Norm(ABC):
    """An h² norm ``Σ_k w_k ‖h(k)‖²`` (continuous time: an integral), given by how it pairs two poles or two state matrices."""

    continuous: bool
    horizon: float | None = None  # samples or seconds after which kernels do not count; None if all of them do
    spectrum: InputSpectrum | None = None  # of the input: its covariance takes the place of the Gramian (`analysis.weighted`)

    @classmethod
    @abstractmethod
    def asked(cls, continuous: bool, horizon: Any, spectrum: Any) -> Norm | None:
        """This norm, if it is the one that the keywords `horizon` and `spectrum` of a public function mean, else None."""

    @abstractmethod
    def check(self, sys: System) -> None:
        """Raise `UnstableSystemError` or `InvalidInputError` unless the norm of `sys` exists."""

    @property
    @abstractmethod
    def pairing(self) -> Pairing:
        """The function ``g(λ, μ)`` of two poles; its `code` is None where the compiled kernels do not know it."""

    @abstractmethod
    def solve(self, A: np.ndarray, A_r: np.ndarray, Q: np.ndarray) -> np.ndarray:
        """``Σ_k w_k A^k Q (A_rᴴ)^k`` (n, r) for two state matrices, or the integral: a cross Gramian for ``Q = B B_rᴴ``."""

    @abstractmethod
    def factor(self, A: np.ndarray, B: np.ndarray) -> np.ndarray:
        """A factor `R` of the Gramian ``R Rᴴ = Σ_k w_k A^k B Bᴴ (Aᴴ)^k``, (n, k)."""

    def factors(self, A: np.ndarray, B: np.ndarray, rows: Rows) -> tuple[np.ndarray, np.ndarray]:
        """Factors of both Gramians, that of the observability Gramian for the output rows ``rows(R)``."""
        R = self.factor(A, B)
        return R, self.factor(A.conj().T, rows(R).conj().T)

    def channel(self, index: Any) -> Norm:
        """The norm for some channels of a batch, or for one."""
        return self

    @property
    def white(self) -> bool:
        """Whether the input is white."""
        return self.spectrum is None

    @property
    def compiled(self) -> bool:
        """Whether the compiled kernels know its pairing."""
        return self.pairing.code is not None

    @property
    def plain(self) -> bool:
        """Whether it is the usual h² norm: white input, all time, all samples alike."""
        return self.white and self.horizon is None

    @abstractmethod
    def __str__(self) -> str: ...


@dataclass(frozen=True, eq=False)
class HorizonNorm(Norm):
    """The h² norm for white input, over all time or over a horizon."""

    @classmethod
    def asked(cls, continuous: bool, horizon: Any, spectrum: Any) -> HorizonNorm | None:
        """The norm without a spectrum."""
        if spectrum is not None:
            return None
        length = finite(horizon)
        if length is not None:
            check_horizon(continuous, length)
        return cls(continuous, length)

    def check(self, sys: System) -> None:
        """Raise unless all poles are stable; over a horizon, unless what grows overflows."""
        if self.horizon is None:
            check_stable(sys)
        else:
            _check_growth(sys, self.horizon)

    @property
    def pairing(self) -> Pairing:
        """The pairing of this kind of time and horizon."""
        return pairing(self.continuous, self.horizon)

    def solve(self, A: np.ndarray, A_r: np.ndarray, Q: np.ndarray) -> np.ndarray:
        """By a Lyapunov or Stein equation, or its finite integral or sum."""
        if self.continuous:
            return solve_lyapunov(A, A_r, Q, self.horizon)
        return solve_stein(A, A_r, Q, None if self.horizon is None else int(self.horizon))

    def factor(self, A: np.ndarray, B: np.ndarray) -> np.ndarray:
        """A factor of the Gramian, without forming it."""
        if self.continuous:
            return lyapunov_factor(A, B, self.horizon)
        return stein_factor(A, B, None if self.horizon is None else int(self.horizon))

    def factors(self, A: np.ndarray, B: np.ndarray, rows: Rows) -> tuple[np.ndarray, np.ndarray]:
        """Both factors, with the powers of `A` in common."""
        return factor_pair(self.continuous, A, B, rows, self.horizon)

    def __str__(self) -> str:
        return "infinite horizon" if self.horizon is None else f"horizon {self.horizon:g}"


def check_comparable(sys: AnySystem, other: System) -> None:
    """Raise `DimensionError` unless two systems have the same inputs, outputs, batch and kind of time."""
    for name in ("n_inputs", "n_outputs"):
        if getattr(sys, name) != getattr(other, name):
            raise DimensionError(f"the systems differ in {name}: {getattr(sys, name)} and {getattr(other, name)}")
    if getattr(sys, "batch", ()) != getattr(other, "batch", ()):
        raise DimensionError(f"the systems differ in their batch: {getattr(sys, 'batch', ())} and {getattr(other, 'batch', ())}")
    if sys.is_continuous != other.is_continuous:
        raise InvalidInputError(f"one system is continuous and the other discrete: dt is {sys.dt!r} and {other.dt!r}")
    if sys.dt is not True and other.dt is not True and sys.dt != other.dt:
        raise InvalidInputError(f"the systems have different sampling times: dt is {sys.dt!r} and {other.dt!r}")


def is_stable(sys: System) -> bool:
    """Whether all eigenvalues are strictly stable."""
    if isinstance(sys, LQOSystem) and sys.order > WORTH_SQUARING and _stable_by_squaring(sys):
        return True
    poles = sys.poles if isinstance(sys, DiagonalLQOSystem) else sys.eigenvalues
    return bool(np.all(poles.real < 0) if sys.is_continuous else np.all(np.abs(poles) < 1))


def check_stable(sys: System) -> None:
    """Raise `UnstableSystemError` unless all eigenvalues are strictly stable."""
    if is_stable(sys):
        return
    poles = sys.poles if isinstance(sys, DiagonalLQOSystem) else sys.eigenvalues
    if sys.is_continuous:
        largest, limit, what = poles.real.max(), 0.0, "spectral abscissa (largest real part of a pole)"
    else:
        largest, limit, what = np.abs(poles).max(), 1.0, "spectral radius (largest modulus of a pole)"
    where, hint = "", ""
    if isinstance(sys, DiagonalLQOSystem) and sys.batch:
        worst = np.argmax(poles.real if sys.is_continuous else np.abs(poles))
        where = f" in channel {tuple(int(i) for i in np.unravel_index(worst, poles.shape)[:-1])}"
    if not sys.is_continuous and np.all(poles.real < 0):
        hint = "; if it is meant to be continuous, pass dt=0"
    elif sys.is_continuous and np.all(np.abs(poles) < 1):
        hint = "; if it is meant to be discrete, pass dt=True or the time step"
    raise UnstableSystemError(
        f"the system is not asymptotically stable: its {what} is {largest:.10g}{where}, which must be below {limit:g}; "
        f"give a finite horizon to work with its first samples or seconds{hint}"
    )


def _check_growth(sys: System, horizon: float) -> None:
    """Raise where a state that grows over a finite horizon would overflow."""
    if isinstance(sys, LQOSystem):
        if sys.order > WORTH_SQUARING:
            return
        poles = sys.eigenvalues
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
