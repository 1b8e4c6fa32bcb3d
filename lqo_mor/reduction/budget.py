"""Budgets: how many states, or slots, a reduced system may have."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lqo_mor.errors import InvalidInputError, OrderError
from lqo_mor.systems.dense import LQOSystem
from lqo_mor.systems.diagonal import DiagonalLQOSystem
from lqo_mor.systems.system import System


@dataclass(frozen=True)
class Budget:
    """What a reduced system may have: `order` real states, or `slots` slots (pairs or real poles); the other one is None."""

    order: int | None = None
    slots: int | None = None


def budget_of(sys: System, order: int | None, slots: int | None) -> Budget:
    """The budget that the keywords of a public function mean, checked for the system.

    Raises `OrderError` if it is not a positive integer below the size of the system, and `InvalidInputError` if both or none is
    given, slots are asked of a dense system, or the system is complex.
    """
    if (order is None) == (slots is None):
        raise InvalidInputError("give exactly one of order (real states) and slots (stored pairs or real poles)")
    if isinstance(sys, LQOSystem):
        if not sys.is_real:
            raise InvalidInputError("reduction is for real systems, but this one has complex matrices")
        if slots is not None:
            raise InvalidInputError("slots are a budget for diagonal systems; give order for a dense one")
    name, value = ("order", order) if slots is None else ("slots", slots)
    size = sys.n_slots if isinstance(sys, DiagonalLQOSystem) and slots is not None else int(np.min(sys.order))
    if size == 1:
        raise OrderError(f"the system has a single {'state' if slots is None else 'slot'}, so there is nothing to reduce")
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or not 1 <= value < size:
        raise OrderError(f"{name} must be an integer from 1 to {size - 1}, below the {size} of the full system; got {value!r}")
    return Budget(order, slots)
