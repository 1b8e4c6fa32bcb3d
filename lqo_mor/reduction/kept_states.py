"""A system as its stable part and the unstable states that a reduction keeps, and both put together again; theory, eq. (7.10)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import scipy.linalg

from lqo_mor.analysis.differences import relative_to
from lqo_mor.analysis.norm import HorizonNorm, Norm
from lqo_mor.analysis.rows import stack_rows, unstack_rows
from lqo_mor.reduction.refit import fit_outputs, nothing, states_on, white
from lqo_mor.reduction.result import Reduction, finish
from lqo_mor.systems.convert import as_dense
from lqo_mor.systems.dense import LQOSystem
from lqo_mor.systems.diagonal import DiagonalLQOSystem
from lqo_mor.systems.quadratic import QuadraticOutput, projected
from lqo_mor.systems.splitting import split_slots, split_stable
from lqo_mor.systems.system import System

_MOST_GROWTH = 50.0  # logarithm of what unstable states grow by in the time over which their couplings are weighed


@dataclass(frozen=True, eq=False)
class Parts:
    """The parts of a system: of a dense one ``x = V_s x_s + V_u x_u``, of a diagonal one its slots."""

    sys: System
    stable: System | None
    unstable: System | None
    V_s: np.ndarray | None = None
    V_u: np.ndarray | None = None

    @classmethod
    def of(cls, sys: System) -> Parts:
        """The parts of one system."""
        if isinstance(sys, DiagonalLQOSystem):
            return cls(sys, *split_slots(sys))
        split = split_stable(sys)
        return cls(sys, split.stable, split.unstable, split.V_s, split.V_u)

    def with_couplings(self, norm: Norm) -> System:
        """The stable part, with a further linear output for everything that a quadratic output multiplies by unstable states."""
        stable, kept = self.stable, self.unstable
        if stable is None or kept is None or self.sys.M is None:
            return cast(System, stable)
        dense = as_dense(kept)
        R = HorizonNorm(norm.continuous, norm.horizon or _memory(stable, dense)).factor(dense.A, dense.B)
        if isinstance(dense.M, QuadraticOutput):
            q, weight = cast(QuadraticOutput, stable.M), np.sqrt(0.5) * np.linalg.norm(dense.M.W, axis=0)
            sizes = (weight * np.linalg.norm(rows @ R, axis=1) for rows in (dense.M.V, dense.M.U))
            rows = np.concatenate([part * size[:, np.newaxis] for part, size in zip((q.U, q.V), sizes, strict=True)])
        else:
            coupling = cast(np.ndarray, self.V_u).T @ cast(np.ndarray, self.sys.M) @ cast(np.ndarray, self.V_s)
            rows = (np.sqrt(2.0) * np.linalg.norm(R, axis=1)[:, np.newaxis] * coupling).reshape(-1, int(stable.order))
            if rows.shape[0] > rows.shape[1]:
                rows = np.asarray(np.linalg.qr(rows, mode="r"))
        return _with_rows(stable, rows)

    def joined(self, red: Reduction | None, norm: Norm, method: str) -> Reduction:
        """The kept states beside a reduction of `with_couplings`, None for no state, with outputs for both and the error."""
        sys, stable, kept = self.sys, cast(System, self.stable), cast(System, self.unstable)
        found, finite = [], norm.horizon is not None
        if sys.M is None and red is not None:
            found.append(replace(red, system=_beside(kept, red.system)))
        elif sys.M is None and not finite:
            found.append(replace(finish(stable, nothing(stable), norm, method=method), system=replace(kept, D=sys.D)))
        if sys.M is not None or finite:
            found.append(self._fitted(None if red is None else red.system, norm, method))
        if sys.M is None and finite:
            found = [replace(one, relative_error=relative_to(sys, one.error, norm)) for one in found]
        best = min(found, key=lambda one: np.nan_to_num(float(one.error), nan=np.inf))
        if red is not None:
            told = ("status", "iterations", "repaired", *(("history", "start_error") if sys.M is None else ()))
            hsv = None if red.hsv is None else np.concatenate([np.full(int(kept.order), np.inf), red.hsv])
            best = replace(best, **{name: getattr(red, name) for name in told}, hsv=hsv)
        return replace(best, kept=int(kept.order))

    def _fitted(self, small: System | None, norm: Norm, method: str) -> Reduction:
        """The kept states beside those of a stable system, with the best outputs in the norm."""
        finite, states = norm.horizon is not None, [cast(System, self.unstable), *([] if small is None else [small])]
        basis = states if finite else states[1:]  # those that have a norm
        whole, rest = (_dense_outputs if isinstance(self.sys, LQOSystem) else _slot_outputs)(self, states, basis, norm)
        full, reduced = (self.sys, whole) if finite and self.sys.M is not None else (cast(System, self.stable), rest)
        return replace(finish(full, reduced, norm, method=method), system=whole)


def _dense_outputs(parts: Parts, states: list[Any], basis: list[Any], norm: Norm) -> tuple[System, System]:
    """The system of all `states` with the best outputs, and that of those in the `basis` for the stable part alone."""
    sys, stable = cast(LQOSystem, parts.sys), cast(LQOSystem, parts.stable)
    K = states_on(stable, basis, norm)
    A, B = scipy.linalg.block_diag(*(part.A for part in states)), np.concatenate([part.B for part in states])
    lost, kept = B.shape[0] - K.shape[1], states[0].order
    T = np.pad(cast(np.ndarray, parts.V_s) @ K, [(0, 0), (lost, 0)])
    T[:, :kept] += cast(np.ndarray, parts.V_u)
    whole = LQOSystem(A, B, sys.C @ T, sys.D, projected(sys.M, T), sys.dt)
    if not basis:
        return whole, nothing(stable)
    return whole, LQOSystem(A[lost:, lost:], B[lost:], stable.C @ K, stable.D, projected(stable.M, K), sys.dt)


def _slot_outputs(parts: Parts, states: list[Any], basis: list[Any], norm: Norm) -> tuple[System, System]:
    """`_dense_outputs` for diagonal systems."""
    stable = cast(DiagonalLQOSystem, parts.stable)
    poles, B = np.concatenate([part.poles for part in states]), np.concatenate([part.B for part in states])
    lost, p = 0 if basis and basis[0] is states[0] else states[0].n_slots, stable.n_outputs
    rows = stack_rows(stable.C, stable.M)
    W = np.zeros((p, 0)) if stable.M is None else stable.M.W

    def system(rows: np.ndarray, first: int) -> DiagonalLQOSystem:
        C, quadratic = unstack_rows(rows, W)
        return DiagonalLQOSystem(poles[first:], B[first:], C, stable.D, quadratic, dt=stable.dt)

    fitted = np.zeros((rows.shape[0], 0), complex)
    if basis:
        linear = DiagonalLQOSystem(stable.poles, stable.B, rows, dt=stable.dt)
        fitted = fit_outputs(linear, poles[lost:], B[lost:], white(norm)).C
    whole = np.pad(fitted, [(0, 0), (lost, 0)])
    whole[:, : states[0].n_slots] += stack_rows(states[0].C, states[0].M)
    return system(whole, 0), system(fitted, lost) if basis else nothing(stable)


def _beside(kept: System, small: System) -> System:
    """Two linear systems, their states side by side and their outputs added; the feedthrough is that of the second."""
    if isinstance(kept, LQOSystem):
        small = cast(LQOSystem, small)
        A, B = scipy.linalg.block_diag(kept.A, small.A), np.concatenate([kept.B, small.B])
        return LQOSystem(A, B, np.hstack([kept.C, small.C]), small.D, None, small.dt)
    small = cast(DiagonalLQOSystem, small)
    poles, B = np.concatenate([kept.poles, small.poles]), np.concatenate([kept.B, small.B])
    return DiagonalLQOSystem(poles, B, np.hstack([kept.C, small.C]), small.D, dt=small.dt)


def _memory(stable: System, kept: LQOSystem) -> float:
    """Samples or seconds in which the slowest stable state decays, or less where the unstable ones grow much within them."""
    poles = stable.poles if isinstance(stable, DiagonalLQOSystem) else stable.eigenvalues
    with np.errstate(divide="ignore"):
        decay = np.min(-poles.real if stable.is_continuous else -np.log(np.abs(poles)))
        growth = np.max(kept.eigenvalues.real if stable.is_continuous else np.log(np.abs(kept.eigenvalues)))
    time = min(1 / decay, _MOST_GROWTH / max(growth, np.finfo(float).tiny))
    return time if stable.is_continuous else float(min(max(np.ceil(time), 1.0), 2.0**40))


def _with_rows(sys: System, rows: np.ndarray) -> System:
    """The system with further linear outputs."""
    C, extra = np.concatenate([sys.C, rows]), rows.shape[0]
    D = np.concatenate([sys.D, np.zeros((extra, sys.n_inputs))])
    if isinstance(sys.M, QuadraticOutput):
        M: Any = QuadraticOutput(sys.M.U, sys.M.V, np.concatenate([sys.M.W, np.zeros((extra, sys.M.rank))]))
    else:
        M = None if sys.M is None else np.concatenate([sys.M, np.zeros((extra, *sys.M.shape[1:]))])
    if isinstance(sys, DiagonalLQOSystem):
        return DiagonalLQOSystem(sys.poles, sys.B, C, D, M, dt=sys.dt)
    return LQOSystem(sys.A, sys.B, C, D, M, sys.dt)
