"""Time in units of the system itself, so that no method of reduction depends on whether it is given seconds or years.

In continuous time ``(A / ρ, B / √ρ, C, M)`` is the same system with time in units of ``1/ρ``: its Gramian `P`, and so every h²
norm and error, stays what it was. Rates `ρ` that are powers of four change no digit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar, cast

import numpy as np

from lqo_mor.analysis.norm import WORTH_SQUARING, HorizonNorm, Norm
from lqo_mor.reduction.result import Reduction
from lqo_mor.reduction.starts import Start
from lqo_mor.systems.dense import LQOSystem
from lqo_mor.systems.diagonal import DiagonalLQOSystem
from lqo_mor.systems.system import System

Scaled = TypeVar("Scaled", bound=System)

_EPS = np.finfo(float).eps


@dataclass(frozen=True, eq=False)
class Units:
    """The unit of time of one reduction: its `norm` in own time, and how poles keep away from the stability boundary.

    The unit is the slowest decay of each channel, or the horizon. `rate` (of the batch shape) is 1 where time stays as it is: in
    discrete time, and for norms that may know a time of their own.
    """

    rate: np.ndarray
    norm: Norm
    given: Norm
    slowest: float  # distance of the slowest stable pole to the unit circle

    @classmethod
    def of(cls, sys: System, norm: Norm, margin: float | None) -> Units:
        """The units of a system, one for all channels where a `margin` is given, which has the unit of the system."""
        batch, poles = getattr(sys, "batch", ()), _poles(sys)
        if not sys.is_continuous:
            distance = 1 - np.abs(poles)
            return cls(np.ones(batch), norm, norm, float(np.min(distance, where=distance > 0, initial=1.0)))
        if type(norm) is not HorizonNorm:
            return cls(np.ones(batch), norm, norm, 1.0)
        if norm.horizon is not None:
            rate = _power_of_four(np.full(batch, 1 / norm.horizon))
            return cls(rate, HorizonNorm(True, norm.horizon * float(np.max(rate))), norm, 1.0)
        # rounding of a matrix far from normal may leave nothing of the slowest decay
        size, decay = np.max(np.abs(poles), axis=-1), np.where(poles.real < 0, -poles.real, np.inf)
        slowest = np.minimum(np.maximum(np.min(decay, axis=-1), _EPS**2 * size), size)
        rate = _power_of_four(slowest if margin is None else np.full(batch, np.min(slowest)))
        return cls(rate, norm, norm, 1.0)

    def margin(self, given: float | None, default: float) -> float:
        """The distance that poles keep, in own time: `default`, in discrete time less next to a full system that keeps less."""
        if given is not None:
            return given / float(np.max(self.rate))
        return max(min(default, 1e-3 * self.slowest), 2 * _EPS)

    def own(self, sys: Scaled) -> Scaled:
        """The system in own time."""
        return sys if np.all(self.rate == 1) else _in_time(sys, 1 / self.rate)

    def start(self, start: Start | Sequence[Start] | None) -> Any:
        """Given starts in own time; those that do not fit the system are left to be refused."""
        if isinstance(start, (list, tuple)):
            return [self.start(one) for one in start]
        system = start.system if isinstance(start, Reduction) else start
        if not isinstance(system, (LQOSystem, DiagonalLQOSystem)) or not system.is_continuous:
            return start
        return start if getattr(system, "batch", ()) != self.rate.shape else self.own(system)

    def undone(self, red: Reduction) -> Reduction:
        """A reduction made in own time, in that of the system."""
        if np.all(self.rate == 1):
            return red
        system, root = _in_time(red.system, self.rate), np.sqrt(self.rate)
        hsv = None if red.hsv is None else red.hsv / root[..., np.newaxis]
        bound = None if red.bound is None else cast(Any, red.bound / root)
        return replace(red, system=system, norm=self.given, hsv=hsv, bound=bound)


def _poles(sys: System) -> np.ndarray:
    """The poles of a system; of a large dense one, whose eigenvalues no test of stability has computed, their mean."""
    if isinstance(sys, DiagonalLQOSystem):
        return sys.poles
    return sys.eigenvalues if sys.order <= WORTH_SQUARING else np.array([np.trace(sys.A) / sys.order])


def _power_of_four(values: np.ndarray) -> np.ndarray:
    """The nearest powers of four of positive numbers."""
    return np.asarray(4.0 ** np.round(0.5 * np.log2(np.where(values > 0, values, 1.0))))


def _in_time(sys: Scaled, rate: np.ndarray) -> Scaled:
    """The system with time in units of ``1/rate`` of it, `rate` a power of four."""
    B = sys.B * np.sqrt(rate)[..., np.newaxis, np.newaxis]
    if isinstance(sys, LQOSystem):
        return cast(Scaled, replace(sys, A=sys.A * rate, B=B))
    return cast(Scaled, replace(sys, poles=sys.poles * rate[..., np.newaxis], B=B))
