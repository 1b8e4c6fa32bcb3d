"""Where iterative methods start: named starts, given systems, and the checks of their options."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from lqo_mor.analysis.norm import HorizonNorm, Norm, check_comparable
from lqo_mor.errors import AccuracyWarning, InvalidInputError, StabilityWarning, UnstableSystemError
from lqo_mor.reduction.balanced import balanced_start
from lqo_mor.reduction.budget import Budget
from lqo_mor.reduction.modal import fresh, modal
from lqo_mor.reduction.result import Reduction, finish
from lqo_mor.systems.batches import used_order
from lqo_mor.systems.dense import LQOSystem
from lqo_mor.systems.diagonal import DiagonalLQOSystem
from lqo_mor.systems.poles import unstable
from lqo_mor.systems.system import System

Start: TypeAlias = str | Reduction | System
STARTS: dict[str, Callable[[System, Budget, Norm], Reduction]] = {"balanced": balanced_start, "modal": modal, "hippo": fresh}


def start_reduction(sys: System, budget: Budget, norm: Norm, start: Start) -> Reduction:
    """The start of an iterative method: a method's name, a `Reduction`, or a reduced system.

    Raises `InvalidInputError` if the name is unknown, or the system given is larger than the budget or of another kind than
    `sys`, and `UnstableSystemError` if the system given is unstable, whatever the horizon: no result may be.
    """
    if isinstance(start, str):
        return _named_start(sys, budget, norm, start)
    system = start.system if isinstance(start, Reduction) else start
    if type(system) is not type(sys):
        raise InvalidInputError(f"the start is a {type(system).__name__}, but the full system is a {type(sys).__name__}")
    check_comparable(sys, system)
    size, most, what = used_order(system), budget.order, "order"
    if isinstance(system, DiagonalLQOSystem) and budget.slots is not None:
        size, most, what = system.n_slots, budget.slots, "slots"
    if np.max(size) > most:
        raise InvalidInputError(f"the start has {what} {np.max(size)}, more than the {most} asked for")
    if isinstance(system, LQOSystem) and not system.is_real:
        raise InvalidInputError("the start has complex matrices, but reduction is for real systems")
    poles = np.linalg.eigvals(system.A) if isinstance(system, LQOSystem) else system.poles
    if np.any(unstable(poles, system.is_continuous)):
        raise UnstableSystemError("the start is not asymptotically stable, which a reduced system has to be over any horizon")
    return finish(sys, system, norm, method="start", as_given=True)


def _named_start(sys: System, budget: Budget, norm: Norm, name: str) -> Reduction:
    if name not in STARTS:
        raise InvalidInputError(f"unknown start {name!r}; known are {', '.join(STARTS)}, or give a reduced system")
    with warnings.catch_warnings():
        for category in (StabilityWarning, AccuracyWarning):  # of a start that counts only if it is the result
            warnings.simplefilter("ignore", category)
        if norm.white or name == "balanced":
            return STARTS[name](sys, budget, norm)
        begun = STARTS[name](sys, budget, HorizonNorm(norm.continuous, norm.horizon))
    return finish(sys, begun.system, norm, method=name)


def check_options(continuous: bool, **options: Any) -> None:
    """Raise `InvalidInputError` unless the numbers that steer an iteration make sense."""
    for name, value in options.items():
        number = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
        if name == "max_iterations":
            right, wanted = number and not isinstance(value, (float, np.floating)) and value >= 0, "an integer, at least 0"
        elif name == "margin" and continuous:
            right, wanted = number and 0 < value < np.inf, "a positive number"
        elif name in ("margin", "armijo"):
            right, wanted = number and 0 < value < 1, "a number between 0 and 1"
        else:
            right, wanted = number and 0 <= value < np.inf, "a number, at least 0"
        if not right:
            raise InvalidInputError(f"{name} must be {wanted}; got {value!r}")
