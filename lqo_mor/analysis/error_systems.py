"""Two systems side by side as one, and the squared norm of a system from a factor of its Gramian."""

from __future__ import annotations

from typing import cast

import numpy as np
import scipy.linalg

from lqo_mor.analysis.gramians import state_factor
from lqo_mor.analysis.norm import Norm
from lqo_mor.systems.convert import as_dense, real_rows
from lqo_mor.systems.dense import LQOSystem
from lqo_mor.systems.diagonal import DiagonalLQOSystem
from lqo_mor.systems.quadratic import QuadraticOutput
from lqo_mor.systems.system import System

_EPS = np.finfo(float).eps


def joined(sys: System, other: System, factor: float = -1.0) -> System:
    """The system with the states of two single ones, whose output is that of `sys` plus `factor` times that of `other`."""
    D = sys.D + factor * other.D
    if isinstance(sys, DiagonalLQOSystem) and isinstance(other, DiagonalLQOSystem):
        poles, B = np.concatenate([sys.poles, other.poles]), np.concatenate([sys.B, other.B])
        factors = cast(QuadraticOutput | None, _joined_outputs(sys, other, factor))  # as both have
        return DiagonalLQOSystem(poles, B, np.hstack([sys.C, factor * other.C]), D, factors, dt=sys.dt)
    a, b = as_dense(sys), as_dense(other)
    A, M = scipy.linalg.block_diag(a.A, b.A), _joined_outputs(a, b, factor)
    return LQOSystem(A, np.vstack([a.B, b.B]), np.hstack([a.C, factor * b.C]), D, M, a.dt)


def _joined_outputs(sys: System, other: System, factor: float) -> np.ndarray | QuadraticOutput | None:
    if sys.M is None and other.M is None:
        return None
    M, N = (_no_products(one) if one.M is None else one.M for one in (sys, other))
    if isinstance(M, QuadraticOutput) and isinstance(N, QuadraticOutput):
        U, V = (scipy.linalg.block_diag(*parts) for parts in ((M.U, N.U), (M.V, N.V)))
        return QuadraticOutput(U, V, np.hstack([M.W, factor * N.W]))
    M, N = (one.to_dense() if isinstance(one, QuadraticOutput) else one for one in (M, N))
    return np.stack([scipy.linalg.block_diag(Mi, factor * Ni) for Mi, Ni in zip(M, N, strict=True)])


def _no_products(sys: System) -> QuadraticOutput:
    none = np.zeros((0, sys.B.shape[-2]))
    return QuadraticOutput(none, none, np.zeros((sys.n_outputs, 0)))


def _with_inputs(sys: System, delay: int) -> System:
    """The system with its input among its states where a feedthrough reads it."""
    m = sys.n_inputs
    if not np.any(sys.D):
        return sys
    if isinstance(sys, DiagonalLQOSystem) and delay == 0:
        poles, B = np.concatenate([sys.poles, np.zeros(m)]), np.concatenate([sys.B, np.eye(m)])
        M = cast(QuadraticOutput | None, _padded(sys.M, m))
        return DiagonalLQOSystem(poles, B, np.hstack([sys.C, sys.D]), None, M, dt=sys.dt)
    dense = as_dense(sys)
    A, B = scipy.linalg.block_diag(dense.A, np.zeros((m, m))), np.vstack([dense.B, np.eye(m)])
    if delay == 1:  # the state sees the input one step after the feedthrough
        A = A.astype(np.result_type(A, B))
        A[:-m, -m:], B[:-m] = dense.B, 0.0
    return LQOSystem(A, B, np.hstack([dense.C, dense.D]), None, _padded(dense.M, m), dense.dt)


def _padded(M: np.ndarray | QuadraticOutput | None, m: int) -> np.ndarray | QuadraticOutput | None:
    """The quadratic output with `m` more states (slots), which it does not read."""
    if isinstance(M, QuadraticOutput):
        return QuadraticOutput(np.pad(M.U, ((0, 0), (0, m))), np.pad(M.V, ((0, 0), (0, m))), M.W)
    return None if M is None else np.pad(M, ((0, 0), (0, m), (0, m)))


def squared_by_factor(sys: System, norm: Norm, delay: int) -> tuple[float, float]:
    """The squared norm of one system from a factor of its Gramian, and the noise of the norm; theory, eq. (3.8).

    For white input without the feedthrough; for one with a spectrum the power, of a dense system without the mean.
    """
    diagonal = isinstance(sys, DiagonalLQOSystem)
    sys = sys if norm.white else _with_inputs(sys, delay)
    R, C, M = state_factor(sys, norm), sys.C, sys.M
    if isinstance(sys, DiagonalLQOSystem):
        real = sys.is_real_pole
        C = real_rows(C, real)
        M = QuadraticOutput(real_rows(M.U, real), real_rows(M.V, real), M.W) if isinstance(M, QuadraticOutput) else None
    weight = 1.0 if norm.white else 2.0
    squared, size = np.linalg.norm(C @ R) ** 2, np.linalg.norm(np.abs(C) @ np.abs(R)) ** 2
    if isinstance(M, QuadraticOutput):
        left, right = M.U @ R, M.V @ R
        sizes = np.abs(M.U) @ np.abs(R), np.abs(M.V) @ np.abs(R)
        for w in M.W:
            half = left.T @ (w[:, np.newaxis] * right)
            squared += weight * np.linalg.norm(0.5 * (half + half.T)) ** 2
            moved = [x.T @ (np.abs(w[:, np.newaxis]) * y) for x, y in ((sizes[0], np.abs(right)), (np.abs(left), sizes[1]))]
            size += weight * np.linalg.norm(0.5 * (moved[0] + moved[1])) ** 2
        if diagonal and not norm.white:  # the mean
            squared += np.linalg.norm(M.W @ np.sum(left * right, axis=1)) ** 2
            moved = sizes[0] * np.abs(right) + np.abs(left) * sizes[1]
            size += np.linalg.norm(np.abs(M.W) @ np.sum(moved, axis=1)) ** 2
    elif M is not None:
        squared += weight * sum(np.linalg.norm(R.T @ Mi @ R) ** 2 for Mi in M)
        size += weight * sum(np.linalg.norm(np.abs(R).T @ np.abs(Mi) @ np.abs(R)) ** 2 for Mi in M)
    if diagonal and not norm.compiled:  # a factor of working precision, not of twice that
        return float(squared), float(_EPS * size / np.sqrt(max(squared, _EPS**2 * size)))
    return float(squared), float(_EPS * np.sqrt(size))
