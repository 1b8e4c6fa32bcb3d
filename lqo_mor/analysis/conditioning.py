"""How many digits of a number about a dense system are certain: how it changes where the state matrix is rounded otherwise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from lqo_mor.analysis.norm import Norm
from lqo_mor.analysis.rows import output_products
from lqo_mor.errors import LQOError
from lqo_mor.matrix_equations.residuals import spectral_norm_estimate
from lqo_mor.systems.convert import as_dense
from lqo_mor.systems.dense import LQOSystem
from lqo_mor.systems.system import System

WHY = "the system is so ill-conditioned that rounding its state matrix changes the rest"
_EPS = np.finfo(float).eps
_MOVES = 4  # what a solver does to a number, against a change of every entry of `A` by one unit roundoff
_RISKY = 1e-11  # relative error by a cheap lower bound of the condition, above which it is measured


def moved(sys: System) -> LQOSystem:
    """The system with every entry of its dense state matrix moved by one unit roundoff, equal shapes alike."""
    dense = as_dense(sys)
    signs = np.random.default_rng(0).choice([-1.0, 1.0], dense.A.shape)
    return replace(dense, A=dense.A * (1 + _EPS * signs))


def noise_of_rounding(value: np.ndarray | float, again: Callable[[], np.ndarray | float]) -> float:
    """The noise of a value, by the same of the moved systems, which `again` gives; infinite where that does not exist."""
    try:
        return float(_MOVES * np.linalg.norm(np.atleast_1d(value - again())))
    except LQOError:  # no longer stable
        return np.inf


def risky(sys: LQOSystem, P: np.ndarray) -> bool:
    """Whether the equation of the Gramian `P` may be ill-conditioned: ``‖P‖ / ‖B Bᴴ‖`` is at most the norm of its inverse."""
    size = spectral_norm_estimate(sys.A)
    growth = size if sys.is_continuous else max(1.0, size**2)
    return bool(_EPS * growth * np.linalg.norm(P) > _RISKY * np.linalg.norm(sys.B) ** 2)


def proper_dense_square(sys: LQOSystem, norm: Norm) -> tuple[float, float]:
    """The squared norm of a dense system for white input, without the feedthrough, and its noise."""

    def square(sys: LQOSystem, P: np.ndarray) -> float:
        return float(sum(output_products(sys, sys, P)).real)

    def gramian(sys: LQOSystem) -> np.ndarray:
        return norm.solve(sys.A, sys.A, sys.B @ sys.B.conj().T)

    P = gramian(sys)
    value = square(sys, P)
    outputs = np.linalg.norm(sys.C) ** 2 * np.linalg.norm(P)
    if not (risky(sys, P) or _EPS * outputs > _RISKY * abs(value)):
        return value, 0.0
    near = moved(sys)
    return value, noise_of_rounding(value, lambda: square(near, gramian(near)))
