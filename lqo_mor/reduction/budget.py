"""Budgets in states or slots, and batches put together from single reduced systems."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lqo_mor.analysis.norm import check_system
from lqo_mor.errors import InvalidInputError, OrderError
from lqo_mor.reduction.sections import starting_poles
from lqo_mor.reduction.sections.sections import FREE, PAIR, REAL
from lqo_mor.systems.dense import LQOSystem
from lqo_mor.systems.diagonal import DiagonalLQOSystem
from lqo_mor.systems.poles import clamped
from lqo_mor.systems.system import System


def check_budget(sys: System, order: int | None, slots: int | None, horizon: float | None = None) -> None:
    """Raise unless `sys` can be reduced to exactly one of `order` states and `slots` slots over `horizon`.

    Raises
    ------
    OrderError
        If the budget is not a positive integer below the size of the system.
    InvalidInputError
        If both or none is given, slots are asked of a dense system, or the system is complex.
    """
    check_system(sys, horizon)
    if (order is None) == (slots is None):
        raise InvalidInputError("give exactly one of order (real states) and slots (stored pairs or real poles)")
    if isinstance(sys, LQOSystem):
        if not sys.is_real:
            raise InvalidInputError("reduction is for real systems, but this one has complex matrices")
        if slots is not None:
            raise InvalidInputError("slots are a budget for diagonal systems; give order for a dense one")
    name, value = ("order", order) if slots is None else ("slots", slots)
    size = sys.n_slots if isinstance(sys, DiagonalLQOSystem) and slots is not None else int(np.min(sys.order))
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or not 1 <= value < size:
        raise OrderError(f"{name} must be an integer from 1 to {size - 1}, below the {size} of the full system; got {value!r}")


@dataclass(frozen=True)
class Budget:
    """The layout of the sections and what bounds their parameters."""

    kinds: np.ndarray
    least: float
    limit: float
    margin: float
    continuous: bool

    @property
    def n_parameters(self) -> int:
        """Number of parameters, and of states of a budget in states."""
        return int(np.sum(np.where(self.kinds == REAL, 1, 2)))


def budget(order: int | None, slots: int | None, continuous: bool, margin: float) -> Budget:
    """Free sections, and one real pole if `order` is odd; or `slots` pairs."""
    pairs, odd = divmod(order or 0, 2)
    kinds = np.full(slots, PAIR) if slots is not None else np.array([FREE] * pairs + [REAL] * odd)
    least = margin if continuous else -np.log1p(-margin)
    return Budget(kinds, least, np.inf if continuous else 0.5 * np.log(1 / margin - 1), margin, continuous)


def poles_of(size: Budget, kinds: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Half storage of sections (channels, …): poles (channels, s), those not used last, and which are used."""
    poles = np.full((kinds.shape[0], size.n_parameters), -1.0 if size.continuous else 0.5, complex)
    counts = np.empty(kinds.shape[0], np.int64)
    starting_poles._all_poles(size.continuous, kinds, x, size.least, poles, counts)
    width = int(counts.max())
    return clamped(poles[:, :width], size.continuous, size.margin), np.arange(width) < counts[:, np.newaxis]
