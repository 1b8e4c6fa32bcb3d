"""h²-optimal poles of systems with one input: the search for sections, from Python's side.

`_inner_kernels` and `_projection_kernels` hold the two forms of the error, `_newton_kernels` the steps and the search.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lqo_mor.analysis._rows import pair_weights, stack_rows
from lqo_mor.analysis.gramians import gramian_factors
from lqo_mor.analysis.norms import h2_norm
from lqo_mor.matrix_equations.diagonal import pairing
from lqo_mor.reduction import _newton_kernels, _start_kernels
from lqo_mor.reduction._problem import without_feedthrough
from lqo_mor.reduction._sections import FREE, PAIR, REAL
from lqo_mor.systems.convert import real_rows
from lqo_mor.systems.diagonal import DiagonalLQOSystem
from lqo_mor.systems.quadratic import QuadraticOutput

_CHUNK = 64  # channels per compiled call, so that progress is seen and an interrupt is heard
BOUNDLESS = 1e-10  # ridge below which it changes nothing but the outputs


@dataclass(frozen=True)
class Found:
    """Poles that a search ended with, in half storage (..., s), unused slots last; squared errors at the start and per step."""

    poles: np.ndarray
    used: np.ndarray
    squared: np.ndarray
    start: np.ndarray
    history: np.ndarray
    status: np.ndarray
    steps: np.ndarray


@dataclass(frozen=True)
class Budget:
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


def budget(order: int | None, slots: int | None, continuous: bool, margin: float) -> Budget:
    """Free sections, and one real pole if `order` is odd; or `slots` pairs."""
    kinds = np.full(slots, PAIR) if slots is not None else np.array([FREE] * (order // 2) + [REAL] * (order % 2))
    least = margin if continuous else -np.log1p(-margin)
    return Budget(kinds, least, np.inf if continuous else 0.5 * np.log(1 / margin - 1), margin, continuous)


def searchable(sys, horizon: float | None, ridge: float) -> bool:
    """Whether the search covers a diagonal system: one input, and outputs that are linear or seen over all time."""
    return sys.n_inputs == 1 and (sys.quadratic is None or (horizon is None and ridge <= BOUNDLESS))


def search_batch(
    sys: DiagonalLQOSystem, size: Budget, horizon, *, ridge, exchanges, max_iterations, tolerance, progress
) -> Found:
    """Every channel of a batch with linear outputs, from its own balanced truncation and from nothing; compiled."""
    norm, count = pairing(sys.is_continuous, horizon), int(np.prod(sys.batch))
    lam = np.array(sys.poles.reshape(count, -1))
    outputs = np.array((sys.C * (pair_weights(sys) * sys.B[..., 0])[..., np.newaxis, :]).reshape(count, sys.n_outputs, -1))
    squared_norm = np.reshape(h2_norm(without_feedthrough(sys), horizon), count) ** 2
    kinds, x = np.empty((count, size.kinds.size), np.int64), np.zeros((count, size.n_parameters))
    start, squared = np.empty(count), np.empty(count)
    status, steps, history = np.empty(count, np.int64), np.empty(count, np.int64), np.full((count, max_iterations + 1), np.nan)
    for first in range(0, count, _CHUNK):
        part = slice(first, first + _CHUNK)
        _newton_kernels._search_batch(
            norm.code, np.array(norm.parameters), lam[part], norm.features(lam[part]), outputs[part], squared_norm[part],
            size.kinds, size.least, size.limit, ridge, exchanges, max_iterations, tolerance,
            kinds[part], x[part], start[part], squared[part], status[part], steps[part], history[part],
        )  # fmt: skip
        progress(min(first + _CHUNK, count), count)
    history[np.arange(history.shape[1]) > steps[:, np.newaxis]] = np.nan
    poles, used = poles_of(size, kinds, x)
    return Found(poles, used, squared, start, history, status, steps)


def search_one(
    sys: DiagonalLQOSystem, size: Budget, starts: list[np.ndarray], horizon, *, ridge, exchanges, max_iterations, tolerance
) -> Found:
    """One system, from each set of poles in `starts` (closed under conjugation, filled up if there are too few)."""
    data = search_data(sys, horizon, ridge)
    n = sys.n_slots + _start_kernels.N_DECAYS * (_start_kernels.N_ANGLES + 2)
    sections, reals = np.empty((n, 2)), np.empty((_start_kernels.N_DECAYS, 2))
    _start_kernels._candidates(sys.is_continuous, size.kinds[0], data[2], size.least, size.limit, sections, reals)
    kinds = np.tile(size.kinds, (len(starts), 1))
    x, counts = np.zeros((len(starts), size.n_parameters)), np.zeros(len(starts), np.int64)
    for k, poles in enumerate(starts):
        counts[k] = _start_kernels._sections_of(sys.is_continuous, poles + 0j, kinds[k], size.least, size.limit, x[k])
    history = np.full(max_iterations + 1, np.nan)
    winner, best, squared, status, steps, first = _newton_kernels._search(
        data, kinds, x, counts, sections, size.kinds[0], reals, max_iterations, exchanges, size.least, size.limit,
        max_iterations, tolerance, history,
    )  # fmt: skip
    poles, used = poles_of(size, kinds[winner : winner + 1], best[np.newaxis])
    return Found(poles[0, used[0]], used[0, used[0]], squared, first, history[: steps + 1], np.asarray(status), np.asarray(steps))


def search_data(sys: DiagonalLQOSystem, horizon, ridge: float) -> tuple:
    """What the kernels need of one system: the inner form over the infinite horizon, else the projection."""
    norm, q, real = pairing(sys.is_continuous, horizon), sys.quadratic, np.array(sys.is_real_pole)
    lam, b = np.array(sys.poles), np.array(sys.B[:, 0])
    inner = horizon is None and ridge <= BOUNDLESS
    root = rows = T = np.zeros((0, 0))
    plain = hermitian = np.zeros((0, 0), complex)
    if inner:
        twice = None if q is None else QuadraticOutput(q.U, q.V, np.sqrt(2.0) * q.W)
        _, S = gramian_factors(DiagonalLQOSystem(sys.poles, sys.B, sys.C, None, twice, sys.dt))
        root = np.ascontiguousarray(S.T)
        if q is not None:
            rows, T = np.concatenate([real_rows(q.U, real), real_rows(q.V, real)]), q.W.T @ q.W
            plain, hermitian = norm.outer(lam, lam), norm.outer(lam, lam.conj())
    outputs = np.ascontiguousarray(stack_rows(sys.C, None) * (pair_weights(sys) * b))
    squared = float(h2_norm(without_feedthrough(sys), horizon)) ** 2
    return (
        norm.code, np.array(norm.parameters), lam, b, real, root, rows, T, plain, hermitian,
        norm.features(lam), outputs, squared, ridge, inner,
    )  # fmt: skip


def poles_of(size: Budget, kinds: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Half storage of sections (channels, …): poles (channels, s), those not used last, and which are used."""
    poles, used = np.empty((kinds.shape[0], size.n_parameters), complex), np.zeros((kinds.shape[0], size.n_parameters), bool)
    poles[:] = -1.0 if size.continuous else 0.5
    counts = np.empty(kinds.shape[0], np.int64)
    _start_kernels._all_poles(size.continuous, kinds, x, size.least, poles, counts)
    width = int(counts.max())
    poles, used = poles[:, :width], np.arange(width) < counts[:, np.newaxis]
    if size.continuous:
        return np.minimum(poles.real, -size.margin) + 1j * poles.imag, used
    modulus = np.abs(poles)
    return np.where(modulus > 1 - size.margin, poles * ((1 - size.margin) / np.maximum(modulus, 0.5)), poles), used
