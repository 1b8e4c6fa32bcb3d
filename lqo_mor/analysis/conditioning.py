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
from lqo_mor.systems.quadratic import QuadraticOutput, projected
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


def turned(sys: LQOSystem) -> LQOSystem:
    """The system with its states reflected at a plane, which changes no output but for rounding, and all of the rounding."""
    v = np.random.default_rng(1).standard_normal(sys.order)
    Q = np.eye(sys.order) - np.outer(v, v * (2 / (v @ v)))
    return LQOSystem(Q @ sys.A @ Q, Q @ sys.B, sys.C @ Q, sys.D, projected(sys.M, Q), sys.dt)


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


def plain_dense_square(sys: LQOSystem, norm: Norm) -> tuple[np.ndarray, float, float]:
    """The squared norm of a dense system for white input, without the feedthrough, and the size of what it is summed up from.

    And its noise where all of it may be noise, else zero.
    """
    P = _gramian(sys, norm)
    value = _square(sys, P)
    M = sys.M
    if isinstance(M, QuadraticOutput):
        M = QuadraticOutput(*(np.abs(part) for part in (M.U, M.V, M.W)))
    elif M is not None:
        M = np.abs(M)
    sizes = LQOSystem(np.abs(sys.A), np.abs(sys.B), np.abs(sys.C), None, M, sys.dt)
    return np.asarray(value), _square(sizes, np.abs(P)), below_rounding(sys, P, value)


def proper_dense_square(sys: LQOSystem, norm: Norm) -> tuple[float, float]:
    """The squared norm of a dense system for white input, without the feedthrough, and its noise."""
    P = _gramian(sys, norm)
    value = _square(sys, P)
    outputs = np.linalg.norm(sys.C) ** 2 * np.linalg.norm(P)
    if not (risky(sys, P) or _EPS * outputs > _RISKY * abs(value)):
        return value, 0.0
    near = moved(sys)
    return value, max(noise_of_rounding(value, lambda: _square(near, _gramian(near, norm))), below_rounding(sys, P, value))


def _gramian(sys: LQOSystem, norm: Norm) -> np.ndarray:
    return norm.solve(sys.A, sys.A, sys.B @ sys.B.conj().T)


def _square(sys: LQOSystem, P: np.ndarray) -> float:
    return float(sum(output_products(sys, sys, P)).real)


def below_rounding(sys: LQOSystem, P: np.ndarray, squared: float) -> float:
    """The noise of a squared norm that is below what rounding leaves of the Gramian `P` in the outputs, else zero.

    No change of the entries of `A` shows it where these are zero, as in a chain of integrators over a short horizon.
    """
    noise = _EPS * float(np.linalg.norm(sys.C) ** 2 * np.linalg.norm(P))
    return noise if 0 <= squared < noise and sys.M is None and _connected(sys) else 0.0


def _connected(sys: LQOSystem) -> bool:
    """Whether some input reaches some output by the entries that are not zero."""
    reached, steps = np.any(sys.B != 0, axis=1), sys.A != 0
    for _ in range(sys.order):
        further = reached | (steps @ reached)
        if np.array_equal(further, reached):
            break
        reached = further
    return bool(np.any((sys.C != 0) & reached))
