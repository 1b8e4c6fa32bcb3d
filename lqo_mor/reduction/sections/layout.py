"""Which sections a budget has room for, and the poles that their parameters stand for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lqo_mor.reduction.budget import Budget
from lqo_mor.reduction.sections import starting_poles
from lqo_mor.reduction.sections.sections import FREE, PAIR, REAL
from lqo_mor.systems.poles import clamped


@dataclass(frozen=True)
class Layout:
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


def layout_of(budget: Budget, continuous: bool, margin: float) -> Layout:
    """Free sections, and one real pole if `order` is odd; or `slots` pairs."""
    pairs, odd = divmod(budget.order or 0, 2)
    kinds = np.full(budget.slots, PAIR) if budget.slots is not None else np.array([FREE] * pairs + [REAL] * odd)
    least = margin if continuous else -np.log1p(-margin)
    return Layout(kinds, least, np.inf if continuous else 0.5 * np.log(1 / margin - 1), margin, continuous)


def poles_of(size: Layout, kinds: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Half storage of sections (channels, …): poles (channels, s), those not used last, and which are used."""
    poles = np.full((kinds.shape[0], size.n_parameters), -1.0 if size.continuous else 0.5, complex)
    counts = np.empty(kinds.shape[0], np.int64)
    starting_poles._all_poles(size.continuous, kinds, x, size.least, poles, counts)
    width = int(counts.max())
    return clamped(poles[:, :width], size.continuous, size.margin), np.arange(width) < counts[:, np.newaxis]
