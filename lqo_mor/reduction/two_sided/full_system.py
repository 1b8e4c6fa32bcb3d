"""The full system in real coordinates, and what a projection of it on a small one needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import scipy.linalg

from lqo_mor.analysis.norm import Norm
from lqo_mor.analysis.norms import norm_value
from lqo_mor.analysis.weighted import spectrum_of
from lqo_mor.matrix_equations.sparse_sylvester import CrossSolver
from lqo_mor.reduction.objective.error import weighted_power, without_feedthrough
from lqo_mor.reduction.two_sided.cross_gramians import Map, state_map
from lqo_mor.systems.convert import real_rows, real_states
from lqo_mor.systems.dense import LQOSystem
from lqo_mor.systems.poles import reflect, unstable
from lqo_mor.systems.quadratic import QuadraticOutput
from lqo_mor.systems.system import System

Products: TypeAlias = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]

_DECAY = 0.1  # least decay of a reduced pole within a finite horizon
_SINGULAR = 10 * np.finfo(float).eps  # ratio of Hankel singular values below which a state does not count


@dataclass(frozen=True)
class FullSystem:
    """The full system as the iteration sees it, in real coordinates."""

    apply: Map  # ``apply(V, False)`` is ``A V`` for real columns `V` (n, r)
    B: np.ndarray  # (n, m)
    C: np.ndarray  # (p, n)
    M: np.ndarray | QuadraticOutput | None  # (p, n, n) where it is dense
    solve: CrossSolver  # cross Gramians, see `cross_solver`
    squared_norm: float  # without the feedthrough
    norm: Norm
    slots: int | None  # most slots (pairs or real poles) that the reduced system may have
    limit: float  # modulus (continuous: real part) that a reduced pole stays below
    # maps ``(A_r, B_r)`` to what the equations of the reduced and of the cross Gramian have on their right-hand sides
    products: Products
    # (p,), of the quadratic output for a Gaussian input with a spectrum, whose quadratic part counts twice
    mean: np.ndarray | None = None


def full_system(sys: System, norm: Norm, slots: int | None, solve: CrossSolver, start: np.ndarray) -> FullSystem:
    """The `FullSystem` of one real dense or diagonal system; the latter in the coordinates of `to_dense`.

    Over a finite horizon many steps would leave the stable systems. Poles that are pressed against the boundary integrate
    beyond the horizon, and rounding to single precision makes them unstable; so they decay by a tenth within the horizon,
    or half as fast as those of the full system or as fast as those of the `start` (r,), whichever is slowest.
    """
    if isinstance(sys, LQOSystem):
        B, C, M = sys.B, sys.C, sys.M
    else:
        real, q = sys.is_real_pole, sys.M
        B, C = real_states(sys.B, real), real_rows(sys.C, real)
        M = None if q is None else QuadraticOutput(real_rows(q.U, real), real_rows(q.V, real), q.W)
    if not norm.white:
        spectrum = spectrum_of(norm)
        weighted, squared, mean = weighted_power(sys, spectrum)
        F = weighted.F if isinstance(sys, LQOSystem) else real_states(weighted.F, sys.is_real_pole)
        products = _coloured(B, F, spectrum.covariances)
        return FullSystem(state_map(sys), B, C, M, solve, squared, norm, slots, 1.0, products, mean)
    squared = float(norm_value(without_feedthrough(sys), norm)) ** 2
    limit = boundary = 0.0 if sys.is_continuous else 1.0
    if norm.horizon is not None:
        poles = np.linalg.eigvals(sys.A) if isinstance(sys, LQOSystem) else sys.poles
        half = 0.5 * (boundary + np.max(_reach(poles, sys.is_continuous)))
        limit = min(boundary, max(half, boundary - _DECAY / norm.horizon, np.max(_reach(start, sys.is_continuous))))
    return FullSystem(state_map(sys), B, C, M, solve, squared, norm, slots, limit, lambda _, B_r: (B_r @ B_r.T, B @ B_r.T))


def _coloured(B: np.ndarray, F: np.ndarray, R: np.ndarray) -> Products:
    """`FullSystem.products` for an input with the autocovariances `R`: ``F_r`` by Horner's rule, see `analysis.weighted`."""

    def products(A_r: np.ndarray, B_r: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        steps = np.tensordot(R, B_r, axes=([2], [1])).transpose(0, 2, 1)  # B_r R_jᵀ
        F_r = 0.5 * steps[0]
        ahead = np.zeros_like(F_r)
        for step in steps[:0:-1]:
            ahead = A_r @ ahead + step
        F_r = F_r + A_r @ ahead
        own = F_r @ B_r.T
        return own + own.T, B @ F_r.T + F @ B_r.T

    return products


def _reach(poles: np.ndarray, continuous: bool) -> np.ndarray:
    """What decides on stability: modulus or real part."""
    return poles.real if continuous else np.abs(poles)


def outside(full: FullSystem, poles: np.ndarray) -> bool:
    """Whether a pole is unstable, or over the limit."""
    return bool(np.any(unstable(poles, full.norm.continuous) | (_reach(poles, full.norm.continuous) > full.limit)))


def inside(full: FullSystem, poles: np.ndarray) -> np.ndarray:
    """The poles with unstable ones mirrored at the stability boundary, and none over the limit."""
    poles = reflect(poles, full.norm.continuous)
    over = _reach(poles, full.norm.continuous) > full.limit
    if full.norm.continuous:
        return np.where(over, 1.001 * full.limit + 1j * poles.imag, poles)
    return np.where(over, (1 - 1.001 * (1 - full.limit)) * poles / np.maximum(np.abs(poles), 0.5), poles)


def gramian(full: FullSystem, A: np.ndarray, Q: np.ndarray) -> np.ndarray:
    """The Gramian (r, r) of a small system over the horizon."""
    P = full.norm.solve(A, A, Q)
    return 0.5 * (P + P.T)


def divide(X: np.ndarray, P: np.ndarray) -> np.ndarray | None:
    """``X P⁻¹`` by a Cholesky decomposition of `P` scaled to unit diagonal; None if `P` is singular to rounding."""
    diagonal = np.diag(P)
    if not np.all(diagonal > 0):
        return None
    scale = 1 / np.sqrt(diagonal)
    try:
        factor = scipy.linalg.cho_factor(P * np.outer(scale, scale))
    except (scipy.linalg.LinAlgError, ValueError):
        return None
    return scipy.linalg.cho_solve(factor, (X * scale).T).T * scale


def balancing(R: np.ndarray, S: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """`T` and its inverse that make the Gramians ``R Rᵀ`` and ``S Sᵀ`` equal and diagonal; None if one is singular."""
    Z, values, Yt = np.linalg.svd(S.T @ R, full_matrices=False)
    r = R.shape[0]
    if values.size < r or not values[-1] > _SINGULAR * values[0]:
        return None
    root = np.sqrt(values)
    return R @ Yt.T / root, (S @ Z / root).T


def observed(full: FullSystem, X: np.ndarray, C: np.ndarray, M: np.ndarray | QuadraticOutput | None) -> np.ndarray:
    """``G = CᵀC_r + 2 Σ_i M_i X M_{r,i}``, (n, r), for reduced outputs `C` and `M`; theory, eq. (7.1).

    Minus half the derivative of the squared error by `X`; hence the factor 2, and another one for a Gaussian input.
    """
    G, times = full.C.T @ C, 1.0 if full.mean is None else 2.0
    if isinstance(M, QuadraticOutput) and isinstance(full.M, QuadraticOutput):
        U, V, T = full.M.U, full.M.V, times * M.W.T @ M.W
        left, right = U @ X, V @ X
        uu, uv, vu, vv = left @ M.U.T, left @ M.V.T, right @ M.U.T, right @ M.V.T
        G = G + 0.5 * (U.T @ ((T * vv) @ M.U + (T * vu) @ M.V) + V.T @ ((T * uv) @ M.U + (T * uu) @ M.V))
    elif M is not None:
        G = G + 2 * times * np.sum(full.M @ X @ M, axis=0)
    return G


def squared_error(full: FullSystem, P: np.ndarray, C: np.ndarray, M: np.ndarray | QuadraticOutput | None) -> float:
    """Squared error of the reduced system with Gramian `P` and projected outputs; theory, eq. (6.1), (9.4)."""
    total = full.squared_norm - np.sum((C @ P) * C)
    quadratic: float = 0.0
    mean: np.ndarray | float = 0.0
    if isinstance(M, QuadraticOutput):
        uu, uv, vv = M.U @ P @ M.U.T, M.U @ P @ M.V.T, M.V @ P @ M.V.T
        quadratic, mean = 0.5 * np.sum((M.W.T @ M.W) * (uu * vv + uv * uv.T)), M.W @ np.diag(uv)
    elif M is not None:
        MP = M @ P
        quadratic, mean = np.sum(MP * MP.transpose(0, 2, 1)), np.trace(MP, axis1=1, axis2=2)
    if full.mean is None:
        return float(total - quadratic)
    return float(total - 2 * quadratic + np.sum((full.mean - mean) ** 2))
