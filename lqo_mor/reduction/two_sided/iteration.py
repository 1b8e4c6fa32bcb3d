"""The two-sided iteration on one system, shared by `tsia` and `irka`.

A reduced system is its pair ``(A_r, B_r)`` here; the outputs are always the optimal ones. With the cross Gramian `X` and
the reduced Gramian `P`, ``V = X P⁻¹``, they are the projections ``C V``, ``Vᵀ M_i V``, and the squared error is
``‖Σ‖² − ‖Σ_r‖²``. With ``G = CᵀC_r + 2 Σ M_i X M_{r,i}``, its adjoint `Y` and ``W = Y Q⁻¹`` (`Q` the reduced Gramian of
``VᵀG``), the residuals of the projection

    ``D = Wᵀ [A V − V A_r,  B − V B_r]``

vanish at a stationary point. One step of the two-sided iteration is ``(WᵀV)⁻¹ D``, in coordinates of the reduced system
that it does not change. Over the infinite horizon `D` itself is a direction of descent: along it the squared error has the
slope ``−2 tr(D_Aᵀ Q D_A P) − 2 tr(D_Bᵀ Q D_B)`` in discrete and ``−2 tr(D_Bᵀ Q D_B)`` in continuous time. (In coordinates
with ``P = 1`` and with half the gradients `E`, `F` by `A_r`, `B_r`, ``Q D = K [A_r B_r] − [E F]`` in discrete time, where the
rows of ``[A_r B_r]`` are orthonormal and ``K = E A_rᵀ + F B_rᵀ``; in continuous time ``Q D = [E A_r + K, E B_r − F]``. That the
error does not depend on coordinates makes ``K = A_rᵀ E``, so that the slope is zero at stationary points only.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from scipy.optimize import linear_sum_assignment

from lqo_mor.errors import LQOError
from lqo_mor.matrix_equations.lyapunov import Map
from lqo_mor.reduction.result import Status
from lqo_mor.reduction.two_sided.full_system import (
    FullSystem,
    balancing,
    divide,
    gramian,
    inside,
    observed,
    outside,
    squared_error,
)
from lqo_mor.systems.batches import slot_count
from lqo_mor.systems.quadratic import QuadraticOutput, projected

Step: TypeAlias = tuple[np.ndarray, np.ndarray]  # a step and what it changed in the undamped one

_PATIENCE = 10  # undamped steps without a new best iterate that count as an oscillation
_HALVINGS = 25  # of a damped step
_LOCAL, _MEMORY = 0.1, 5  # change of the poles below which steps are extrapolated, and from how many
_NOISE = 1e-12  # rounding of the squared error, relative to the squared norm of the full system


@dataclass(frozen=True)
class Iterate:
    """A reduced system with optimal outputs, what its error needs, and how it came about."""

    A: np.ndarray
    B: np.ndarray
    C: np.ndarray
    M: np.ndarray | QuadraticOutput | None
    poles: np.ndarray
    X: np.ndarray
    P: np.ndarray
    V: np.ndarray
    value: float
    repaired: bool = False
    change: float = np.inf


@dataclass(frozen=True)
class Direction:
    """The residuals `D` (r, r + m) of one iterate, its undamped step, their scale, and coordinates that balance it."""

    D: np.ndarray
    step: np.ndarray | None
    weights: np.ndarray
    coordinates: tuple[np.ndarray, np.ndarray] | None


def two_sided(
    full: FullSystem, A: np.ndarray, B: np.ndarray, max_iterations: int, tolerance: float
) -> tuple[Iterate | None, np.ndarray, Status]:
    """Iterate from ``(A_r, B_r)`` and return the best iterate, the smallest squared errors so far, and the status.

    The start, (r, r) and (r, m), is stable and in real coordinates. Undamped steps are taken as long as they find a new best
    iterate now and then. Where they do not, the iteration goes back to the best one and from there takes only steps that do not
    raise the error, damped where needed. It has converged where the relative change of the poles, and of the squared error, is
    below `tolerance`. The iterate is None if the start is deficient, so that there is nothing to project on.
    """
    now = evaluate(full, A, B)
    if now is None:
        return None, np.full(1, np.nan), Status.START_KEPT
    noise, status = _NOISE * full.squared_norm, Status.MAX_ITERATIONS
    path, best, monotone, waited = [now.value], (0, now), False, 0
    memory: list[Step] = []
    last: Step | None = None
    for _ in range(max_iterations):
        move = direction(full, now)
        if move is None:
            status = Status.STALLED
            break
        if last is not None and move.step is not None:
            memory = [*memory[1 - _MEMORY :], (last[0], move.step - last[1])]
        new, taken = _next(full, now, move, monotone, memory)
        converged = False
        if new is not None and taken is not None:
            slack = tolerance * abs(new.value) + noise
            converged = new.change <= tolerance and abs(now.value - new.value) <= slack
            now, waited = new, waited + 1
            path.append(now.value)
            if _better(now, best[1], noise):
                best, waited = (len(path) - 1, now), 0
            if converged and now.value <= best[1].value + slack:
                status, best = Status.CONVERGED, (len(path) - 1, now)
                break
            carry = _transport(move)
            memory = [(carry(x), carry(r)) for x, r in memory]
            last = None if move.step is None or now.repaired else (carry(taken), carry(move.step))
        if new is None or converged or waited >= _PATIENCE:
            if monotone or (new is None and now is best[1]):
                status = Status.STALLED
                break
            monotone, waited, now, path, memory, last = True, 0, best[1], path[: best[0] + 1], [], None
    return best[1], np.minimum.accumulate(path[: best[0] + 1]), status


def _better(a: Iterate, b: Iterate, noise: float) -> bool:
    """Smaller in error; where rounding hides which one is, closer to a fixed point."""
    return a.value < b.value - noise or (a.value <= b.value + noise and a.change < b.change)


def evaluate(full: FullSystem, A: np.ndarray, B: np.ndarray, **fields: Any) -> Iterate | None:
    """The `Iterate` of ``(A_r, B_r)``; None if it is unstable, over the budget of slots, or not excited in all its states."""
    if not (np.all(np.isfinite(A)) and np.all(np.isfinite(B))):
        return None
    poles = np.linalg.eigvals(A)
    if outside(full, poles) or (full.slots is not None and slot_count(poles) > full.slots):
        return None
    try:
        own, cross = full.products(A, B)
        P = gramian(full, A, own)
        X = full.solve(cross, A)
    except LQOError:  # at the boundary of stability, or without the eigenvectors that a solver needs
        return None
    V = divide(X, P)
    if V is None:
        return None
    C, M = full.C @ V, projected(full.M, V)
    return Iterate(A, B, C, M, poles, X, P, V, squared_error(full, P, C, M), **fields)


def direction(full: FullSystem, now: Iterate) -> Direction | None:
    """The `Direction` from an iterate; None if not all its states are seen in the outputs; theory, eq. (7.3)."""
    G = observed(full, now.X, now.C, now.M)
    own = now.V.T @ G
    try:
        Y = full.solve(G, now.A, True)
        Q = gramian(full, now.A.T, 0.5 * (own + own.T))
    except LQOError:
        return None
    W = divide(Y, Q)
    if W is None:
        return None
    D = W.T @ np.hstack([full.apply(now.V, False) - now.V @ now.A, full.B - now.V @ now.B])
    try:
        step = np.linalg.solve(W.T @ now.V, D)
    except np.linalg.LinAlgError:
        step = None
    try:
        coordinates = balancing(np.linalg.cholesky(now.P), np.linalg.cholesky(Q))
    except np.linalg.LinAlgError:
        coordinates = None
    # continuous: P is in the unit of time of B Bᵀ, and A P in none
    rate = np.exp(np.mean(np.log(np.abs(now.poles)))) if full.norm.continuous else 1.0
    weights = np.sqrt(np.outer(np.diag(Q), np.concatenate([np.diag(now.P) / rate, np.ones(now.B.shape[1])])))
    return Direction(D, step, weights, coordinates)


def _next(
    full: FullSystem, now: Iterate, move: Direction, monotone: bool, memory: list[Step]
) -> tuple[Iterate, np.ndarray] | tuple[None, None]:
    """The next iterate and the step to it, in the coordinates of `now`; None and None where no step lowers the error.

    Near a fixed point the extrapolated step, if the error does not rise; else the undamped one, repaired where it is
    unstable; else a damped one that lowers the error.
    """
    r, noise = now.A.shape[0], _NOISE * full.squared_norm
    if move.step is not None and np.all(np.isfinite(move.step)):
        A = now.A + move.step[:, :r]
        poles = np.linalg.eigvals(A)
        change = pole_change(poles, now.poles, full.norm.continuous)
        if memory and change < _LOCAL:
            step = _extrapolated(move, memory)
            new = _moved(full, now, move, step, change=change)
            if new is not None and new.value <= now.value + noise:
                return new, step
        repaired = outside(full, poles)
        step = np.hstack([_repaired(full, A) - now.A, move.step[:, r:]]) if repaired else move.step
        new = _moved(full, now, move, step, repaired=repaired, change=change)
        if new is not None and (not monotone or new.value <= now.value + noise):
            return new, step
    factor = 1.0
    for _ in range(_HALVINGS):
        new = _moved(full, now, move, factor * move.D)
        if new is not None and new.value < now.value:
            return new, factor * move.D
        factor *= 0.5
    return None, None


def _extrapolated(move: Direction, memory: list[Step]) -> np.ndarray:
    """The undamped step improved by the last ones (Anderson acceleration), which speeds up slow and oscillating convergence."""
    differences = np.stack([(move.weights * r).ravel() for _, r in memory], axis=1)
    size = np.linalg.norm(differences, axis=0)
    size[size == 0] = 1.0
    parts = np.linalg.lstsq(differences / size, (move.weights * move.step).ravel(), rcond=1e-10)[0] / size
    return move.step - sum(part * (x + r) for part, (x, r) in zip(parts, memory, strict=True))


def _moved(full: FullSystem, now: Iterate, move: Direction, step: np.ndarray, **fields: Any) -> Iterate | None:
    """`evaluate` after a step, in the coordinates that balance the iterate before, which keeps the Gramians well scaled."""
    r = now.A.shape[0]
    point = _transport(move)(np.hstack([now.A, now.B]) + step)
    return evaluate(full, point[:, :r], point[:, r:], **fields)


def _transport(move: Direction) -> Map:
    """The map of pairs ``[A, B]`` (r, r + m) to the coordinates that balance an iterate."""
    if move.coordinates is None:
        return lambda pair: pair
    T, inverse = move.coordinates
    r = T.shape[0]
    return lambda pair: inverse @ np.hstack([pair[:, :r] @ T, pair[:, r:]])


def _repaired(full: FullSystem, A: np.ndarray) -> np.ndarray:
    """The state matrix with the same eigenvectors and its poles brought inside; NaN if it is defective."""
    poles, vectors = np.linalg.eig(A)
    try:
        return np.linalg.solve(vectors.T, (vectors * inside(full, poles)).T).T.real
    except np.linalg.LinAlgError:
        return np.full_like(A, np.nan)


def pole_change(new: np.ndarray, old: np.ndarray, continuous: bool) -> float:
    """Largest relative distance between two sets of poles (r,), matched so that the sum of the distances is least.

    Relative to the modulus; in discrete time to the larger one of the modulus and the distance to the unit circle.
    """
    scale = np.abs(old) if continuous else np.maximum(np.abs(old), 1 - np.abs(old))
    distance = np.abs(new[:, np.newaxis] - old) / scale
    return float(np.max(distance[linear_sum_assignment(distance)]))
