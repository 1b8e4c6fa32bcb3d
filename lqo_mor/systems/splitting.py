"""A system as its stable part and the rest: unstable poles and those on the stability boundary to working precision."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.linalg

from lqo_mor.errors import AccuracyWarning, warn
from lqo_mor.systems.batches import slots_at
from lqo_mor.systems.dense import LQOSystem
from lqo_mor.systems.diagonal import DiagonalLQOSystem
from lqo_mor.systems.poles import unstable
from lqo_mor.systems.quadratic import projected

_EPS = np.finfo(float).eps
_FAR = 1e7  # size of the solution of the Sylvester equation that leaves half of the digits


@dataclass(frozen=True, eq=False)
class Splitting:
    """The parts of a system; with ``x = V_s x_s + V_u x_u`` a quadratic output couples them by ``2 x_sᵀ V_sᵀ M V_u x_u``."""

    stable: LQOSystem | None  # with the feedthrough, which the other part has, too, if this one has no state and is None
    unstable: LQOSystem | None
    V_s: np.ndarray
    V_u: np.ndarray


def split_slots(sys: DiagonalLQOSystem) -> tuple[DiagonalLQOSystem | None, DiagonalLQOSystem | None]:
    """The stable slots of a single diagonal system, and the others, both with the feedthrough; None where there is no slot."""
    lost = unstable(sys.poles, sys.is_continuous)
    return None if np.all(lost) else slots_at(sys, ~lost), slots_at(sys, lost) if np.any(lost) else None


def split_stable(sys: LQOSystem) -> Splitting:
    """Split a dense real system by an ordered Schur form and one Sylvester equation; theory, eq. (1.8).

    A pole counts as stable if it is so by more than its own rounding error, so the poles ±1e-8 of a double integrator do not.
    """
    limit, n = _limit(sys.A, sys.is_continuous), sys.order

    def stable(x: Any, y: Any = None) -> bool:  # older SciPy gives one complex number
        return bool(_reach(np.asarray(x if y is None else x + 1j * y), sys.is_continuous) < limit)

    T, Q, k = scipy.linalg.schur(sys.A, sort=stable)
    X = np.zeros((k, n - k))
    if 0 < k < n:
        X = scipy.linalg.solve_sylvester(T[:k, :k], -T[k:, k:], -T[:k, k:])
        if not np.linalg.norm(X) < _FAR:
            warn("stable and unstable poles lie so close together that splitting them costs half of the digits", AccuracyWarning)
    V_s, V_u = Q[:, :k], Q[:, :k] @ X + Q[:, k:]
    W_s, W_u = Q[:, :k] - Q[:, k:] @ X.T, Q[:, k:]

    def part(A: np.ndarray, W: np.ndarray, V: np.ndarray, D: np.ndarray) -> LQOSystem | None:
        return LQOSystem(A, W.T @ sys.B, sys.C @ V, D, projected(sys.M, V), sys.dt) if A.size else None

    return Splitting(
        part(T[:k, :k], W_s, V_s, sys.D), part(T[k:, k:], W_u, V_u, sys.D if k == 0 else np.zeros_like(sys.D)), V_s, V_u
    )


def _reach(poles: np.ndarray, continuous: bool) -> np.ndarray:
    return poles.real if continuous else np.abs(poles) - 1


def next_to_the_boundary(sys: LQOSystem) -> bool:
    """Whether rounding alone may have put a pole of a dense system on the stable side."""
    nearest = np.max(_reach(sys.eigenvalues, sys.is_continuous))
    return bool(nearest >= -_most_moved(sys.A)) and _limit(sys.A, sys.is_continuous) != np.inf


def _most_moved(A: np.ndarray) -> float:
    return float(10 * np.sqrt(_EPS) * max(np.linalg.norm(A), _EPS))


def _limit(A: np.ndarray, continuous: bool) -> float:
    """What separates both kinds of poles, half-way between them: rounding moves a pole by ε‖A‖ times its condition number."""
    poles, left, right = scipy.linalg.eig(A, left=True)
    cosine = np.abs(np.sum(left.conj() * right, axis=0))
    moved = 10 * A.shape[0] * _EPS * np.linalg.norm(A) / np.maximum(cosine, _EPS)
    reach = _reach(poles, continuous)
    kept = reach >= -np.minimum(moved, _most_moved(A))
    if not np.any(kept):
        return float(np.inf)
    lowest = np.min(reach[kept])
    below = reach[reach < lowest]
    return float(0.5 * (lowest + np.max(below))) if below.size else -np.inf
