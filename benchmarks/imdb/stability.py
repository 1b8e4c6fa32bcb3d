"""Which orders make TLBT and TLH2 unstable, and what the repair costs.

TLBT without repair is the bare projection; TLH2 without it the plain fixed-point iteration. Both can be judged over a finite
horizon even if they are unstable, but a model that reads longer sequences than that explodes.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

import lqo_mor as lqo
from benchmarks.imdb.methods import HORIZON
from lqo_mor.analysis.door import norm_of
from lqo_mor.errors import AccuracyWarning, LQOError, StabilityWarning
from lqo_mor.matrix_equations.stein import solve_stein
from lqo_mor.network.blocks import Block
from lqo_mor.reduction.balanced import Balancing, balance
from lqo_mor.reduction.refit import stabilise
from lqo_mor.systems.quadratic import QuadraticOutput, projected

_STEPS = 30  # of the plain iteration
_SETTLED = 1e-6  # change of the largest modulus at which it ends


def truncated(balancing: Balancing, order: int) -> lqo.LQOSystem:
    """Balanced truncation as it comes, stable or not."""
    return project(balancing.sys, balancing.V[:, :order], balancing.W[:, :order])


def project(sys: lqo.LQOSystem, V: np.ndarray, W: np.ndarray) -> lqo.LQOSystem:
    """The Petrov-Galerkin projection with ``WᵀV = 1``."""
    return lqo.LQOSystem(W.T @ sys.A @ V, W.T @ sys.B, sys.C @ V, sys.D, projected(sys.M, V), sys.dt)


def plain_iteration(sys: lqo.LQOSystem, start: lqo.LQOSystem, horizon: int) -> tuple[lqo.LQOSystem, int, int]:
    """TLH2 without any safeguard: the last system, the number of iterates, and how many of them were unstable."""
    now, unstable, radius = start, 0, np.inf
    for step in range(1, _STEPS + 1):
        with np.errstate(all="ignore"):
            X = solve_stein(sys.A, now.A, sys.B @ now.B.T, horizon)
            Y = solve_stein(sys.A.T, now.A.T, sys.C.T @ now.C + _quadratic_side(sys.M, now.M, X), horizon)
        if not (np.all(np.isfinite(X)) and np.all(np.isfinite(Y))):
            return now, step - 1, unstable
        V = np.linalg.qr(X)[0]
        try:
            now = project(sys, V, np.linalg.solve((V.T @ Y).T, Y.T).T)
        except np.linalg.LinAlgError:  # far beyond the stable systems one pole outgrows all others
            return now, step - 1, unstable
        last, radius = radius, spectral_radius(now)
        unstable += radius >= 1
        if abs(radius - last) <= _SETTLED:
            return now, step, unstable
    return now, _STEPS, unstable


def _quadratic_side(M: QuadraticOutput, small: QuadraticOutput, X: np.ndarray) -> np.ndarray:
    """``2 Σ_i M_i X M_{r,i}`` for factors."""
    T, left, right = M.W.T @ small.W, M.U @ X, M.V @ X
    uu, uv, vu, vv = left @ small.U.T, left @ small.V.T, right @ small.U.T, right @ small.V.T
    return 0.5 * (M.U.T @ ((T * vv) @ small.U + (T * vu) @ small.V) + M.V.T @ ((T * uv) @ small.U + (T * uu) @ small.V))


def spectral_radius(sys: lqo.LQOSystem) -> float:
    """Largest modulus of the poles."""
    return float(np.max(np.abs(np.linalg.eigvals(sys.A))))


def described(full: lqo.DiagonalLQOSystem, small: lqo.LQOSystem, horizon: int) -> dict:
    """Unstable poles of a reduced system and its relative error over the horizon, before and after the repair."""
    moduli = np.abs(np.linalg.eigvals(small.A))
    row = {"unstable_poles": int(np.sum(moduli >= 1)), "largest_modulus": float(np.max(moduli))}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AccuracyWarning)
        warnings.simplefilter("ignore", StabilityWarning)
        row["error"] = _error(full, lambda: small, horizon)
        if row["unstable_poles"]:
            row["repaired_error"] = _error(
                full, lambda: stabilise(full, lqo.to_diagonal(small), norm_of(full, horizon))[0], horizon
            )
    return row


def _error(full: lqo.DiagonalLQOSystem, make: Callable, horizon: int) -> float | None:
    """The relative error of a system; None where it overflows or cannot be made."""
    try:
        small = make()
        own = full if isinstance(small, lqo.DiagonalLQOSystem) else lqo.to_dense(full)
        return float(lqo.h2_error(own, small, horizon, relative=True, delay=0))
    except LQOError:
        return None


def guarded(sys: lqo.LQOSystem, order: int, horizon: int, start: lqo.LQOSystem) -> lqo.LQOSystem:
    """TLH2 by the package, which repairs and damps single steps."""
    return lqo.tsia(sys, order, horizon=horizon, start=start).system


def orders_study(block: Block, orders, horizon: int = HORIZON) -> Iterator[dict]:
    """Rows for one layer: the orders at which TLBT is unstable, then TLBT and TLH2 from it at some `orders`."""
    balancing = balance(block.ssm, norm_of(block.ssm, horizon))[0]
    scanned = range(1, block.state_size // 2 + 1)
    unstable = [order for order in scanned if spectral_radius(truncated(balancing, order)) >= 1]
    row = {"layer": block.name, "horizon": horizon}
    yield {**row, "method": "balanced", "order": f"1 to {scanned[-1]}", "unstable_orders": unstable, "unstable": len(unstable)}
    dense = balancing.sys
    for order in orders:
        start = truncated(balancing, order)
        yield {**row, "method": "balanced", "order": int(order), **described(block.ssm, start, horizon)}
        found, steps, unstable_steps = plain_iteration(dense, start, horizon)
        more = {"iterates": steps, "unstable": unstable_steps}
        more |= described(block.ssm, found, horizon)
        if more["unstable"]:
            more["guarded_error"] = _error(block.ssm, partial(guarded, dense, order, horizon, start), horizon)
        yield {**row, "method": "tsia", "order": int(order), **more}
