"""The linear parameters of a model: output weights of channels, feedthroughs, maps of tokens and the decoder."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np
import scipy.fft

from lqo_mor.network.backward import Passed, decode_backward, pass_model
from lqo_mor.network.forward import Map, ends, pooled, system_map
from lqo_mor.network.layers import Linear
from lqo_mor.network.model import DeepSSM
from lqo_mor.systems.diagonal import DiagonalLQOSystem

_WINDOW = 256  # steps for which powers of poles are kept


@dataclass(frozen=True)
class Part:
    """Parameters that are columns of the equations: of the mixing map or the system of a block, or of the decoder."""

    kind: str
    block: int
    size: int


def linear_parameters(model: DeepSSM, mixing: bool) -> list[Part]:
    """The parameters that may change."""
    systems = [Part("system", k, block.width * (1 + 2 * block.ssm.n_slots)) for k, block in enumerate(model.blocks)]
    if not mixing:
        return systems
    decoder = ends(model)[1]
    maps = [
        Part("mixing", k, block.mixing.n_outputs * (block.mixing.n_inputs + 1))
        for k, block in enumerate(model.blocks)
        if block.mixing is not None
    ]
    return [*systems, Part("decoder", -1, decoder.n_outputs * (decoder.n_inputs + 1)), *maps]


def differentiate(
    model: DeepSSM,
    pieces: Iterable[np.ndarray],
    directions: np.ndarray,
    feedthrough: bool,
    parts: list[Part],
    gradients: list[np.ndarray],
    progress: Callable[[int], object],
) -> None:
    """Write gradients of the outputs along directions (count, outputs) to arrays (sequences * count, size of the part)."""
    row, count = 0, len(directions)
    arrays = {(part.kind, part.block): array for part, array in zip(parts, gradients, strict=True)}
    maps: list[Map] = []
    bases: list[_Basis] = []
    for u in pieces:
        if not maps:
            maps = [system_map(block.ssm, u.shape[1]) for block in model.blocks]
            bases = [_Basis.of(block.ssm, u.shape[1], feedthrough) for block in model.blocks]
        x, passed = pass_model(model, u, maps, np.float32)
        signals = [_Signals.of(kept, ("mixing", k) in arrays) for k, kept in enumerate(passed)]
        read = _with_one(pooled(model, x)[..., 0].T, ends(model)[1])
        for d, direction in enumerate(directions):
            here = slice(row + d, row + len(u) * count, count)
            if ("decoder", -1) in arrays:
                arrays["decoder", -1][here] = (direction[:, np.newaxis] * read[:, np.newaxis]).reshape(len(u), -1)
            g = decode_backward(model, x, np.tile(direction, (len(u), 1)), np.float32)
            for k in reversed(range(len(passed))):
                g, own, mixed = passed[k].backward(g)
                arrays["system", k][here] = bases[k].products(signals[k].by_kernel(own)).reshape(len(u), -1)
                active = signals[k].active
                if active is not None:
                    arrays["mixing", k][here] = np.matmul(mixed.transpose(1, 0, 2), active).reshape(len(u), -1)
        row += len(u) * count
        progress(row // count)


def _with_one(features: np.ndarray, mapping: Linear) -> np.ndarray:
    """Features along the last axis, and one for the bias; zero where the map has none."""
    one = np.full((*features.shape[:-1], 1), 0.0 if mapping.bias is None else 1.0)
    return np.concatenate([features, one], axis=-1)


@dataclass(frozen=True, eq=False)
class _Signals:
    """What gradients by the parameters of a block need of the signals in it, in single precision.

    Attributes
    ----------
    read : (width, batch, frequencies) ndarray
        Conjugate transform of what the system reads.
    steps : int
    active : (batch, steps, features + 1) ndarray or None
        What the mixing map reads, and one for its bias; None where the map stays.
    """

    read: np.ndarray
    steps: int
    active: np.ndarray | None

    @classmethod
    def of(cls, kept: Passed, mixing: bool) -> _Signals:
        """Those of a block that signals went through."""
        steps, mapping = kept.read.shape[-1], kept.block.mixing
        read = scipy.fft.rfft(kept.read.astype(np.float32), scipy.fft.next_fast_len(2 * steps - 1, real=True), workers=-1)
        if mapping is None or not mixing:
            return cls(read.conj(), steps, None)
        return cls(read.conj(), steps, _with_one(kept.active.transpose(1, 2, 0), mapping).astype(np.float32))

    def by_kernel(self, own: np.ndarray) -> np.ndarray:
        """Gradients by the kernels, (width, batch, steps), from those by the outputs of the system."""
        size = scipy.fft.next_fast_len(2 * self.steps - 1, real=True)
        return scipy.fft.irfft(scipy.fft.rfft(own, size, workers=-1) * self.read, size, workers=-1)[..., : self.steps]


@dataclass(frozen=True, eq=False)
class _Basis:
    """Kernels that feedthroughs and output weights add up: a unit impulse, and powers of the poles with norm 1.

    Attributes
    ----------
    impulse : float
        1, or 0 where feedthroughs stay.
    powers : (width, window, 2 slots) ndarray
        Real and imaginary parts of the first powers.
    later : (width, windows, slots) ndarray
        The first power of every window, times what makes the norm 1.
    """

    impulse: float
    powers: np.ndarray
    later: np.ndarray

    @classmethod
    def of(cls, ssm: DiagonalLQOSystem, steps: int, feedthrough: bool) -> _Basis:
        """The kernels of channels."""
        window, poles = min(steps, _WINDOW), ssm.poles[:, np.newaxis]
        powers = poles ** np.arange(window)[:, np.newaxis]
        later = poles ** np.arange(0, steps, window)[:, np.newaxis] * _norms(ssm, steps)[:, np.newaxis]
        powers = np.concatenate([powers.real, powers.imag], axis=-1)
        return cls(float(feedthrough), powers.astype(np.float32), later.astype(np.complex64))

    def products(self, signals: np.ndarray) -> np.ndarray:
        """Products of signals (width, batch, steps) with the kernels, (batch, width, 1 + 2 slots)."""
        width, batch, steps = signals.shape
        n, window = self.later.shape[-1], self.powers.shape[1]
        padded = np.pad(signals, ((0, 0), (0, 0), (0, -steps % window)))
        z = np.matmul(padded.reshape(width, -1, window), self.powers).reshape(width, batch, -1, 2 * n)
        z = np.einsum("hbws,hws->bhs", z[..., :n] + 1j * z[..., n:], self.later)
        first = self.impulse * signals[:, :, :1].transpose(1, 0, 2)
        return np.concatenate([first, z.real, -z.imag], axis=-1)


def _norms(ssm: DiagonalLQOSystem, steps: int) -> np.ndarray:
    """What makes so many powers of the poles have norm 1, (width, slots); zero for slots without input."""
    squared = np.abs(ssm.poles) ** 2
    return np.where(ssm.B[..., 0] != 0, np.sqrt((1 - squared) / (1 - squared**steps)), 0.0)


def moved(model: DeepSSM, parts: list[Part], moves: list[np.ndarray], steps: int) -> DeepSSM:
    """The model with its parameters changed, in the units of `differentiate` for sequences of so many steps."""
    blocks, decoder = list(model.blocks), ends(model)[1]
    for part, move in zip(parts, moves, strict=True):
        if part.kind == "decoder":
            decoder = _added(decoder, move)
        elif part.kind == "mixing":
            blocks[part.block] = replace(blocks[part.block], mixing=_added(blocks[part.block].mixing, move))
        else:
            blocks[part.block] = replace(blocks[part.block], ssm=_with_kernels(blocks[part.block].ssm, move, steps))
    return replace(model, blocks=tuple(blocks), decoder=decoder)


def _added(mapping: Linear | None, move: np.ndarray) -> Linear:
    assert mapping is not None  # by `linear_parameters`
    move = move.reshape(mapping.n_outputs, -1)
    return Linear(mapping.weight + move[:, :-1], None if mapping.bias is None else mapping.bias + move[:, -1])


def _with_kernels(ssm: DiagonalLQOSystem, move: np.ndarray, steps: int) -> DiagonalLQOSystem:
    """The channels with kernels of `_Basis` added, by their output weights."""
    move, n = move.reshape(ssm.batch[0], -1), ssm.n_slots
    norms = _norms(ssm, steps)
    residues = (move[:, 1 : 1 + n] + 1j * move[:, 1 + n :]) * norms
    residues = np.where(ssm.is_real_pole, residues.real, 0.5 * residues)
    C = ssm.C + np.divide(residues, ssm.B[..., 0], out=np.zeros_like(residues), where=norms != 0)[:, np.newaxis]
    D = ssm.D + move[:, :1, np.newaxis]
    return replace(ssm, C=C, D=D)
