"""Output weights of systems: signals that they add up, gradients by them, and systems with other ones.

Of a channel they are its feedthrough and residues, which add up kernels; of a system with many inputs its rows `C`, the matrix
`W` of its products and the diagonal of its feedthrough, which add up states, products and inputs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeAlias

import numpy as np
import scipy.fft

from lqo_mor.analysis.norms import h2_norm
from lqo_mor.network.signals import Map, system_map
from lqo_mor.systems.diagonal import DiagonalLQOSystem
from lqo_mor.systems.quadratic import QuadraticOutput

Gradient: TypeAlias = Callable[[np.ndarray], np.ndarray]  # by parameters, (batch, size), of that by outputs

_WINDOW = 256  # steps for which powers of poles are kept


def output_gradients(ssm: DiagonalLQOSystem, steps: int, feedthrough: bool) -> Callable[[np.ndarray], Gradient]:
    """A function from inputs (width, batch, steps) to gradients by the output weights, zero by a feedthrough that stays."""
    return _channel_gradients(ssm, steps, feedthrough) if ssm.batch else _system_gradients(ssm, steps, feedthrough)


def _channel_gradients(ssm: DiagonalLQOSystem, steps: int, feedthrough: bool) -> Callable[[np.ndarray], Gradient]:
    """Of channels, (batch, width (1 + 2 slots)): kernels are a unit impulse, and powers of the poles with norm 1.

    The powers are the first ones, those of a window, times the first power of every window.
    """
    window, poles, n = min(steps, _WINDOW), ssm.poles[:, np.newaxis], ssm.n_slots
    first = poles ** np.arange(window)[:, np.newaxis]
    later = poles ** np.arange(0, steps, window)[:, np.newaxis] * _pole_norms(ssm, steps)[:, np.newaxis]
    first, later = np.concatenate([first.real, first.imag], axis=-1).astype(np.float32), later.astype(np.complex64)
    size = scipy.fft.next_fast_len(2 * steps - 1, real=True)

    def products(by_kernel: np.ndarray) -> np.ndarray:  # with the kernels, of gradients by that of every channel
        width, batch, _ = by_kernel.shape
        padded = np.pad(by_kernel, ((0, 0), (0, 0), (0, -steps % window)))
        z = np.matmul(padded.reshape(width, -1, window), first).reshape(width, batch, -1, 2 * n)
        z = np.einsum("hbws,hws->bhs", z[..., :n] + 1j * z[..., n:], later)
        impulse = float(feedthrough) * by_kernel[:, :, :1].transpose(1, 0, 2)
        return np.concatenate([impulse, z.real, -z.imag], axis=-1).reshape(batch, -1)

    def of_inputs(read: np.ndarray) -> Gradient:
        conjugate = scipy.fft.rfft(read.astype(np.float32), size, workers=-1).conj()

        def gradient(own: np.ndarray) -> np.ndarray:
            by_kernel = scipy.fft.irfft(scipy.fft.rfft(own, size, workers=-1) * conjugate, size, workers=-1)
            return products(by_kernel[..., :steps])

        return gradient

    return of_inputs


def _system_gradients(ssm: DiagonalLQOSystem, steps: int, feedthrough: bool) -> Callable[[np.ndarray], Gradient]:
    """Of one system, (batch, p (count + 1)), or (batch, p count) unless square: of `features` with norm 1, and of inputs."""
    own_features, units = features(ssm), _units(ssm, steps)[:, np.newaxis, np.newaxis]

    def of_inputs(read: np.ndarray) -> Gradient:
        signals = (own_features(read) * units).astype(np.float32).transpose(1, 2, 0)

        def gradient(own: np.ndarray) -> np.ndarray:
            by_features = np.matmul(own.transpose(1, 0, 2), signals).reshape(len(signals), -1)
            if len(read) != len(own):
                return by_features
            return np.concatenate([by_features, float(feedthrough) * np.einsum("pbt,pbt->bp", own, read)], axis=1)

        return gradient

    return of_inputs


def n_weights(ssm: DiagonalLQOSystem) -> int:
    """How many output weights there are."""
    if ssm.batch:
        return ssm.batch[0] * (1 + 2 * ssm.n_slots)
    products = 0 if ssm.M is None else ssm.M.rank
    return ssm.n_outputs * (2 * ssm.n_slots + products + (ssm.n_inputs == ssm.n_outputs))


def with_changed_weights(ssm: DiagonalLQOSystem, change: np.ndarray, steps: int) -> DiagonalLQOSystem:
    """The system with its output weights changed, in the units of `output_gradients` for so many steps."""
    if ssm.batch:
        return _with_kernels(ssm, change.reshape(ssm.batch[0], -1), steps)
    old, square = coefficients(ssm), ssm.n_inputs == ssm.n_outputs
    new = old + change[: old.size].reshape(old.shape) * _units(ssm, steps)
    return with_coefficients(ssm, new, ssm.D + np.diag(change[old.size :]) if square else ssm.D)


def _pole_norms(ssm: DiagonalLQOSystem, steps: int) -> np.ndarray:
    """What makes so many powers of the poles have norm 1, (..., slots); zero for slots without input."""
    squared = np.abs(ssm.poles) ** 2
    return np.where(np.any(ssm.B != 0, axis=-1), np.sqrt((1 - squared) / (1 - squared**steps)), 0.0)


def _with_kernels(ssm: DiagonalLQOSystem, change: np.ndarray, steps: int) -> DiagonalLQOSystem:
    """The channels with multiples of the kernels of `_channel_gradients` added, by their output weights."""
    n, norms = ssm.n_slots, _pole_norms(ssm, steps)
    residues = (change[:, 1 : 1 + n] + 1j * change[:, 1 + n :]) * norms
    residues = np.where(ssm.is_real_pole, residues.real, 0.5 * residues)
    C = ssm.C + np.divide(residues, ssm.B[..., 0], out=np.zeros_like(residues), where=norms != 0)[:, np.newaxis]
    return replace(ssm, C=C, D=ssm.D + change[:, :1, np.newaxis])


def _units(ssm: DiagonalLQOSystem, steps: int) -> np.ndarray:
    """One over the h2 norms of states and, for products, over those of both factors; zero where nothing answers."""
    inputs, q = np.linalg.norm(ssm.B, axis=1), ssm.M
    states = np.divide(_pole_norms(ssm, steps), inputs, out=np.zeros(ssm.n_slots), where=inputs > 0)
    if q is None:
        return np.tile(states, 2)
    rows = [DiagonalLQOSystem(ssm.poles, ssm.B, row[np.newaxis], None, None, dt=ssm.dt) for row in (*q.U, *q.V)]
    norms = [float(h2_norm(row, horizon=steps)) for row in rows]
    products = np.multiply(norms[: q.rank], norms[q.rank :])
    return np.concatenate([states, states, np.divide(1.0, products, out=np.zeros(q.rank), where=products > 0)])


def features(ssm: DiagonalLQOSystem) -> Map:
    """A function from inputs to real and imaginary parts of all states, in the units of outputs, and the products."""
    n, q = ssm.n_slots, ssm.M
    real, imaginary = np.eye(n) * np.where(ssm.is_real_pole, 1.0, 0.5), -0.5j * np.diag(~ssm.is_real_pole)
    rows = [real, imaginary] if q is None else [real, imaginary, q.U, q.V]
    c = 0 if q is None else q.rank
    states = system_map(DiagonalLQOSystem(ssm.poles, ssm.B, np.concatenate(rows), None, None, dt=ssm.dt), 0)

    def apply(u: np.ndarray) -> np.ndarray:
        x = states(u)
        return np.concatenate([x[: 2 * n], x[2 * n : 2 * n + c] * x[2 * n + c :]])

    return apply


def coefficients(ssm: DiagonalLQOSystem) -> np.ndarray:
    """The outputs of a system, without the feedthrough, as coefficients (p, count) of its `features`."""
    weights = np.where(ssm.is_real_pole, 1.0, 2.0)
    parts = [ssm.C.real * weights, -ssm.C.imag * weights]
    return np.concatenate(parts if ssm.M is None else [*parts, ssm.M.W], axis=1)


def with_coefficients(ssm: DiagonalLQOSystem, values: np.ndarray, D: np.ndarray) -> DiagonalLQOSystem:
    """The inverse of `coefficients`, and another feedthrough."""
    n, q, weights = ssm.n_slots, ssm.M, np.where(ssm.is_real_pole, 1.0, 2.0)
    C = (values[:, :n] - 1j * np.where(ssm.is_real_pole, 0.0, values[:, n : 2 * n])) / weights
    quadratic = None if q is None else QuadraticOutput(q.U, q.V, values[:, 2 * n :])
    return DiagonalLQOSystem(ssm.poles, ssm.B, C, D, quadratic, dt=ssm.dt)
