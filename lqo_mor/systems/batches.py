"""Batches of diagonal systems put together from single ones: padding, slots that are not used, choices channel by channel."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from lqo_mor.systems.dense import LQOSystem
from lqo_mor.systems.diagonal import DiagonalLQOSystem
from lqo_mor.systems.quadratic import QuadraticOutput
from lqo_mor.systems.system import System

_APART = 1e-3  # imaginary part of a pair of two equal real poles, in units of their distance to the boundary


def slot_count(poles: np.ndarray) -> int:
    """Slots that a set of poles closed under conjugation needs: pairs plus real poles."""
    return int(np.count_nonzero(poles.imag >= 0))


def stack(systems: list[DiagonalLQOSystem], batch: tuple[int, ...], n_slots: int | None = None) -> DiagonalLQOSystem:
    """Single systems as one batch; shorter ones are filled with slots that have no input and no output."""
    return _joined(systems, batch, np.stack, n_slots)


def concatenate(parts: list[DiagonalLQOSystem], batch: tuple[int, ...]) -> DiagonalLQOSystem:
    """Batches (channels,), one after the other, as one; shorter systems are filled up."""
    return _joined(parts, batch, np.concatenate)


def _joined(
    systems: list[DiagonalLQOSystem], batch: tuple[int, ...], join: Callable[..., np.ndarray], n_slots: int | None = None
) -> DiagonalLQOSystem:
    size = max(sys.n_slots for sys in systems) if n_slots is None else n_slots
    systems = [pad(sys, size) for sys in systems]

    def whole(arrays: list[np.ndarray]) -> np.ndarray:
        axes = arrays[0].shape if join is np.stack else arrays[0].shape[1:]
        return join(arrays).reshape(*batch, *axes)

    quadratic = None
    if systems[0].M is not None:
        quadratic = QuadraticOutput(*(whole([getattr(sys.M, name) for sys in systems]) for name in "UVW"))
    poles, B, C, D = (whole([getattr(sys, name) for sys in systems]) for name in ("poles", "B", "C", "D"))
    return DiagonalLQOSystem(poles, B, C, D, quadratic, dt=systems[0].dt)


def pad(sys: DiagonalLQOSystem, n_slots: int) -> DiagonalLQOSystem:
    """The same systems with slots appended that have a stable real pole, no input and no output."""
    extra = n_slots - sys.n_slots
    if extra <= 0:
        return sys
    q = sys.M
    return DiagonalLQOSystem(
        _widen(sys.poles, -1, extra, -1.0 if sys.is_continuous else 0.5),
        _widen(sys.B, -2, extra),
        _widen(sys.C, -1, extra),
        sys.D,
        None if q is None else QuadraticOutput(_widen(q.U, -1, extra), _widen(q.V, -1, extra), q.W),
        dt=sys.dt,
    )


def _widen(array: np.ndarray, axis: int, extra: int, value: float = 0.0) -> np.ndarray:
    shape = list(array.shape)
    shape[axis] = extra
    return np.concatenate([array, np.full(shape, value)], axis=axis)


def used_order(sys: System) -> int | np.ndarray:
    """Real states of a reduced system (of each channel of a batch), without the slots that only fill up a batch."""
    if isinstance(sys, LQOSystem):
        return sys.order
    return np.sum(np.where(np.any(sys.B, axis=-1), 2 - sys.is_real_pole, 0), axis=-1)


def silent(sys: DiagonalLQOSystem) -> DiagonalLQOSystem:
    """A system of one slot that has no input and no output, in place of a single one without transfer."""
    return slots_at(pad(sys, sys.n_slots + 1), slice(sys.n_slots, None))


def slots_at(sys: DiagonalLQOSystem, kept: slice | np.ndarray) -> DiagonalLQOSystem:
    """Some slots of a single system."""
    q = sys.M
    quadratic = None if q is None else QuadraticOutput(q.U[:, kept], q.V[:, kept], q.W)
    return DiagonalLQOSystem(sys.poles[kept], sys.B[kept], sys.C[:, kept], sys.D, quadratic, dt=sys.dt)


def _products(sys: DiagonalLQOSystem, rank: int) -> QuadraticOutput:
    """The quadratic factors with `rank` products, the missing ones zero."""
    q, batch = sys.M, sys.batch
    if q is None:
        none = np.zeros((*batch, 0, sys.n_slots))
        q = QuadraticOutput(none, none, np.zeros((*batch, sys.n_outputs, 0)))
    extra = rank - q.rank
    return QuadraticOutput(_widen(q.U, -2, extra), _widen(q.V, -2, extra), _widen(q.W, -1, extra))


def trim(sys: DiagonalLQOSystem) -> DiagonalLQOSystem:
    """A single system without its slots that have no input, unless that is all of them."""
    used = np.any(sys.B, axis=-1)
    return sys if np.all(used) or not np.any(used) else slots_at(sys, used)


def within_slots(sys: DiagonalLQOSystem, n_slots: int) -> DiagonalLQOSystem:
    """A single system whose real poles are joined two by two until it fits: neighbours become a pair next to the real axis.

    The states stay, only their poles move to the mean of both: a start for a method that moves poles and fits outputs.
    """
    while sys.n_slots > n_slots and np.count_nonzero(sys.is_real_pole) > 1:
        real = np.flatnonzero(sys.is_real_pole)
        real = real[np.argsort(sys.poles[real].real)]
        k = int(np.argmin(np.diff(sys.poles[real].real)))
        first, second = real[k], real[k + 1]
        mean, gap = 0.5 * (sys.poles[first] + sys.poles[second]).real, np.ptp(sys.poles[[first, second]].real)
        distance = -mean if sys.is_continuous else 1 - abs(mean)
        kept = np.delete(np.arange(sys.n_slots), [first, second])

        def joined(rows: np.ndarray, first: int = first, second: int = second, kept: np.ndarray = kept) -> np.ndarray:
            pair = 0.5 * (rows[..., first] - 1j * rows[..., second])
            return np.concatenate([rows[..., kept], pair[..., np.newaxis]], axis=-1)

        q = sys.M
        sys = DiagonalLQOSystem(
            np.append(sys.poles[kept], mean + 1j * max(0.5 * gap, _APART * distance)),
            np.concatenate([sys.B[kept], (sys.B[first] + 1j * sys.B[second])[np.newaxis]]),
            joined(sys.C),
            sys.D,
            None if q is None else QuadraticOutput(joined(q.U), joined(q.V), q.W),
            dt=sys.dt,
        )
    return sys


def choose(mask: np.ndarray, a: DiagonalLQOSystem, b: DiagonalLQOSystem) -> DiagonalLQOSystem:
    """Channel by channel `a` where `mask` (of the batch shape) holds, else `b`; the one with fewer slots is padded."""
    size = max(a.n_slots, b.n_slots)
    a, b = pad(a, size), pad(b, size)

    def pick(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.where(mask.reshape(mask.shape + (1,) * (x.ndim - mask.ndim)), x, y)

    rank, quadratic = max(0 if sys.M is None else sys.M.rank for sys in (a, b)), None
    if rank:
        q, r = _products(a, rank), _products(b, rank)
        quadratic = QuadraticOutput(pick(q.U, r.U), pick(q.V, r.V), pick(q.W, r.W))
    return DiagonalLQOSystem(pick(a.poles, b.poles), pick(a.B, b.B), pick(a.C, b.C), pick(a.D, b.D), quadratic, dt=a.dt)
