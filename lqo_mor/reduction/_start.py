"""Where iterative methods start."""

from __future__ import annotations

import numpy as np

from lqo_mor.errors import InvalidInputError
from lqo_mor.reduction.balanced import balanced_truncation
from lqo_mor.reduction.modal import hippo, modal_truncation
from lqo_mor.reduction.result import Reduction, finish

STARTS = {"balanced": balanced_truncation, "modal": modal_truncation, "hippo": hippo}


def start_reduction(sys, order, slots, horizon, start) -> Reduction:
    """The start of an iterative method: a method's name, a `Reduction`, a reduced system, or None for balanced.

    Raises
    ------
    InvalidInputError
        If the name is unknown, or the system given is larger than the budget.
    """
    if start is None or isinstance(start, str):
        name = start or "balanced"
        if name not in STARTS:
            raise InvalidInputError(f"unknown start {name!r}; known are {', '.join(STARTS)}, or give a reduced system")
        return STARTS[name](sys, order, slots=slots, horizon=horizon)
    system = start.system if isinstance(start, Reduction) else start
    size, budget, what = (system.order, order, "order") if slots is None else (system.n_slots, slots, "slots")
    if np.max(size) > budget:
        raise InvalidInputError(f"the start has {what} {np.max(size)}, more than the {budget} asked for")
    return finish(sys, system, method="start", horizon=horizon)
