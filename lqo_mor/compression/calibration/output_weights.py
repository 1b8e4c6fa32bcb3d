"""Output weights of systems: signals that they add up, gradients by them, and systems with other ones.

Of a channel they are its feedthrough and residues, which add up kernels; of a system with many inputs its rows `C`, the matrix
`W` of its products and the diagonal of its feedthrough, which add up states, products and inputs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import scipy.fft

from lqo_mor.analysis.norms import h2_norm
from lqo_mor.network.signals import Map, system_map
from lqo_mor.systems.diagonal import DiagonalLQOSystem
from lqo_mor.systems.quadratic import QuadraticOutput

Gradient: TypeAlias = Callable[[np.ndarray], np.ndarray]  # by parameters, (batch, size), of that by outputs

_WINDOW = 256  # steps for which powers of poles are kept


@dataclass(frozen=True, eq=False)
class ChannelWeights:
    """Kernels that feedthroughs and output weights of channels add up: a unit impulse, and powers of the poles with norm 1.

    Attributes
    ----------
    impulse : float
        1, or 0 where feedthroughs stay.
    powers : (width, window, 2 slots) ndarray
        Real and imaginary parts of the first powers.
    later : (width, windows, slots) ndarray
        The first power of every window, times what makes the norm 1.
    steps : int
    """

    impulse: float
    powers: np.ndarray
    later: np.ndarray
    steps: int

    @classmethod
    def of(cls, ssm: DiagonalLQOSystem, steps: int, feedthrough: bool) -> ChannelWeights:
        """Those of channels, for so many steps."""
        window, poles = min(steps, _WINDOW), ssm.poles[:, np.newaxis]
        powers = poles ** np.arange(window)[:, np.newaxis]
        later = poles ** np.arange(0, steps, window)[:, np.newaxis] * _pole_norms(ssm, steps)[:, np.newaxis]
        powers = np.concatenate([powers.real, powers.imag], axis=-1)
        return cls(float(feedthrough), powers.astype(np.float32), later.astype(np.complex64), steps)

    def of_inputs(self, read: np.ndarray) -> Gradient:
        """The gradients, (batch, width (1 + 2 slots)), for inputs (width, batch, steps)."""
        size = scipy.fft.next_fast_len(2 * self.steps - 1, real=True)
        conjugate = scipy.fft.rfft(read.astype(np.float32), size, workers=-1).conj()

        def gradient(own: np.ndarray) -> np.ndarray:
            by_kernel = scipy.fft.irfft(scipy.fft.rfft(own, size, workers=-1) * conjugate, size, workers=-1)
            return self._products(by_kernel[..., : self.steps])

        return gradient

    def _products(self, by_kernel: np.ndarray) -> np.ndarray:
        """Products with the kernels, of gradients by the kernel of every channel (width, batch, steps)."""
        width, batch, steps = by_kernel.shape
        n, window = self.later.shape[-1], self.powers.shape[1]
        padded = np.pad(by_kernel, ((0, 0), (0, 0), (0, -steps % window)))
        z = np.matmul(padded.reshape(width, -1, window), self.powers).reshape(width, batch, -1, 2 * n)
        z = np.einsum("hbws,hws->bhs", z[..., :n] + 1j * z[..., n:], self.later)
        first = self.impulse * by_kernel[:, :, :1].transpose(1, 0, 2)
        return np.concatenate([first, z.real, -z.imag], axis=-1).reshape(batch, -1)


@dataclass(frozen=True, eq=False)
class SystemWeights:
    """Signals that the outputs of one system add up, each divided by the h2 norm of what it answers.

    Attributes
    ----------
    features : callable
        See `features`.
    units : (count,) ndarray
        One over the norms.
    through : float
        1, or 0 where the feedthrough stays.
    """

    features: Map
    units: np.ndarray
    through: float

    @classmethod
    def of(cls, ssm: DiagonalLQOSystem, steps: int, feedthrough: bool) -> SystemWeights:
        """Those of a system, for so many steps."""
        return cls(features(ssm), _units(ssm, steps), float(feedthrough))

    def of_inputs(self, read: np.ndarray) -> Gradient:
        """The gradients, (batch, p (count + 1)) or (batch, p count) unless square, for inputs (width, batch, steps)."""
        signals = (self.features(read) * self.units[:, np.newaxis, np.newaxis]).astype(np.float32).transpose(1, 2, 0)

        def gradient(own: np.ndarray) -> np.ndarray:
            found = np.matmul(own.transpose(1, 0, 2), signals).reshape(len(signals), -1)
            if len(read) != len(own):
                return found
            return np.concatenate([found, self.through * np.einsum("pbt,pbt->bp", own, read)], axis=1)

        return gradient


Weights: TypeAlias = ChannelWeights | SystemWeights


def output_weights(ssm: DiagonalLQOSystem, steps: int, feedthrough: bool) -> Weights:
    """The output weights of channels or of one system, for so many steps."""
    return (ChannelWeights if ssm.batch else SystemWeights).of(ssm, steps, feedthrough)


def n_weights(ssm: DiagonalLQOSystem) -> int:
    """How many output weights there are."""
    if ssm.batch:
        return ssm.batch[0] * (1 + 2 * ssm.n_slots)
    products = 0 if ssm.quadratic is None else ssm.quadratic.rank
    return ssm.n_outputs * (2 * ssm.n_slots + products + (ssm.n_inputs == ssm.n_outputs))


def with_moved(ssm: DiagonalLQOSystem, move: np.ndarray, steps: int) -> DiagonalLQOSystem:
    """The system with its output weights changed, in the units of `output_weights` for so many steps."""
    if ssm.batch:
        return _with_kernels(ssm, move.reshape(ssm.batch[0], -1), steps)
    old, square = coefficients(ssm), ssm.n_inputs == ssm.n_outputs
    new = old + move[: old.size].reshape(old.shape) * _units(ssm, steps)
    return with_coefficients(ssm, new, ssm.D + np.diag(move[old.size :]) if square else ssm.D)


def _pole_norms(ssm: DiagonalLQOSystem, steps: int) -> np.ndarray:
    """What makes so many powers of the poles have norm 1, (..., slots); zero for slots without input."""
    squared = np.abs(ssm.poles) ** 2
    return np.where(np.any(ssm.B != 0, axis=-1), np.sqrt((1 - squared) / (1 - squared**steps)), 0.0)


def _with_kernels(ssm: DiagonalLQOSystem, move: np.ndarray, steps: int) -> DiagonalLQOSystem:
    """The channels with multiples of the kernels of `ChannelWeights` added, by their output weights."""
    n, norms = ssm.n_slots, _pole_norms(ssm, steps)
    residues = (move[:, 1 : 1 + n] + 1j * move[:, 1 + n :]) * norms
    residues = np.where(ssm.is_real_pole, residues.real, 0.5 * residues)
    C = ssm.C + np.divide(residues, ssm.B[..., 0], out=np.zeros_like(residues), where=norms != 0)[:, np.newaxis]
    D = ssm.D + move[:, :1, np.newaxis]
    return replace(ssm, C=C, D=D)


def _units(ssm: DiagonalLQOSystem, steps: int) -> np.ndarray:
    """One over the h2 norms of states and, for products, over those of both factors; zero where nothing answers."""
    inputs, q = np.linalg.norm(ssm.B, axis=1), ssm.quadratic
    states = np.divide(_pole_norms(ssm, steps), inputs, out=np.zeros(ssm.n_slots), where=inputs > 0)
    if q is None:
        return np.tile(states, 2)
    rows = [DiagonalLQOSystem(ssm.poles, ssm.B, row[np.newaxis], None, None, ssm.dt) for row in (*q.U, *q.V)]
    norms = [float(h2_norm(row, horizon=steps)) for row in rows]
    products = np.multiply(norms[: q.rank], norms[q.rank :])
    return np.concatenate([states, states, np.divide(1.0, products, out=np.zeros(q.rank), where=products > 0)])


def features(ssm: DiagonalLQOSystem) -> Map:
    """A function from inputs to real and imaginary parts of all states, in the units of outputs, and the products."""
    n, q = ssm.n_slots, ssm.quadratic
    real, imaginary = np.eye(n) * np.where(ssm.is_real_pole, 1.0, 0.5), -0.5j * np.diag(~ssm.is_real_pole)
    rows = [real, imaginary] if q is None else [real, imaginary, q.U, q.V]
    c = 0 if q is None else q.rank
    states = system_map(DiagonalLQOSystem(ssm.poles, ssm.B, np.concatenate(rows), None, None, ssm.dt), 0)

    def apply(u: np.ndarray) -> np.ndarray:
        x = states(u)
        return np.concatenate([x[: 2 * n], x[2 * n : 2 * n + c] * x[2 * n + c :]])

    return apply


def coefficients(ssm: DiagonalLQOSystem) -> np.ndarray:
    """The outputs of a system, without the feedthrough, as coefficients (p, count) of its `features`."""
    weights = np.where(ssm.is_real_pole, 1.0, 2.0)
    parts = [ssm.C.real * weights, -ssm.C.imag * weights]
    return np.concatenate(parts if ssm.quadratic is None else [*parts, ssm.quadratic.W], axis=1)


def with_coefficients(ssm: DiagonalLQOSystem, values: np.ndarray, D: np.ndarray) -> DiagonalLQOSystem:
    """The inverse of `coefficients`, and another feedthrough."""
    n, q, weights = ssm.n_slots, ssm.quadratic, np.where(ssm.is_real_pole, 1.0, 2.0)
    C = (values[:, :n] - 1j * np.where(ssm.is_real_pole, 0.0, values[:, n : 2 * n])) / weights
    quadratic = None if q is None else QuadraticOutput(q.U, q.V, values[:, 2 * n :])
    return DiagonalLQOSystem(ssm.poles, ssm.B, C, D, quadratic, ssm.dt)
