"""The backward pass through a model in NumPy: gradients of linear functions of its output."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import scipy.fft
from scipy.special import expit

from lqo_mor.errors import InvalidInputError
from lqo_mor.network import signal_kernels
from lqo_mor.network.blocks import Block, block_input
from lqo_mor.network.layers import LayerNorm
from lqo_mor.network.model import DeepSSM, ends, layer_norm
from lqo_mor.network.signals import (
    Map,
    activate,
    activation_slope,
    encode,
    kernel_spectra,
    linear,
    normalise,
    row_outputs,
    system_map,
)
from lqo_mor.systems.diagonal import DiagonalLQOSystem
from lqo_mor.systems.quadratic import QuadraticOutput


@dataclass(frozen=True, eq=False)
class Normalised:
    """What the backward pass through a layer normalisation needs: normalised tokens, their scale, and the weight."""

    centred: np.ndarray
    scale: np.ndarray
    weight: np.ndarray

    def backward(self, g: np.ndarray) -> np.ndarray:
        """The gradient by the input from that by the output."""
        g = g * self.weight[:, np.newaxis, np.newaxis]
        return self.scale * (g - np.mean(g, axis=0) - self.centred * np.mean(g * self.centred, axis=0))


@dataclass(frozen=True, eq=False)
class Passed:
    """A block that signals went through, with what its backward pass needs of them; all (features, batch, steps)."""

    block: Block
    read: np.ndarray  # what the system read
    active: np.ndarray  # what the mixing map read
    slope: np.ndarray | None  # derivative of the activation; None for the identity
    halves: tuple[np.ndarray, np.ndarray] | None  # the derivatives of the gate by its two halves
    norm: Normalised | None
    adjoint: Map

    def backward(self, g: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Gradients by the input of the block, the output of its system and that of its mixing, from that by its output."""
        block = self.block
        if self.norm is not None and not block.prenorm:
            g = self.norm.backward(g)
        mixed = g if self.halves is None else np.concatenate([g * half for half in self.halves])
        own = mixed if block.mixing is None else np.tensordot(block.mixing.weight.astype(g.dtype).T, mixed, axes=1)
        if self.slope is not None:
            own = own * self.slope
        back = self.adjoint(own)
        if self.norm is not None and block.prenorm:
            back = self.norm.backward(back)
        return (back + g if block.residual else back), own, mixed


def _pass_block(block: Block, x: np.ndarray, apply: Map, dtype: type) -> tuple[np.ndarray, Passed]:
    """The output of a block for the input `x`, `apply` being the map of its system, and what a backward pass needs."""
    read = block_input(block, x)
    y = apply(read)
    adjoint = _adjoint(block.ssm, read)
    slope: np.ndarray | None = None if block.activation == "identity" else activation_slope(block.activation, y).astype(dtype)
    active = activate(block.activation, y)
    out, halves = active.copy() if block.mixing is None else linear(block.mixing, active), None
    if block.gate == "glu":
        half = out.shape[0] // 2
        gate = expit(out[half:])
        halves = gate.astype(dtype), (out[:half] * gate * (1 - gate)).astype(dtype)
        signal_kernels.glu(out.reshape(out.shape[0], -1))
        out = out[:half]
    if block.residual:
        out += x
    norm, normalised = layer_norm(block.norm), None
    if norm is not None:
        normalised = _normalised(norm, x if block.prenorm else out, dtype)
        out = out if block.prenorm else normalise(norm, out)
    return out, Passed(block, read, active, slope, halves, normalised, adjoint)


def pass_model(model: DeepSSM, u: np.ndarray, maps: Iterable[Map], dtype: type = np.float64) -> tuple[np.ndarray, list[Passed]]:
    """The features of the last block for inputs `u`, `maps` being those of the systems, and the blocks that were passed."""
    x, passed = encode(ends(model)[0], u), []
    for block, apply in zip(model.blocks, maps, strict=True):
        x, kept = _pass_block(block, x, apply, dtype)
        passed.append(kept)
    return x, passed


def decode_backward(model: DeepSSM, x: np.ndarray, directions: np.ndarray, dtype: type = np.float64) -> np.ndarray:
    """The gradient of the products of outputs and `directions` by the features `x` of the last block.

    Directions are (batch, outputs), or (batch, steps, outputs) without pooling.
    """
    steps, weight = x.shape[-1], ends(model)[1].weight
    if model.pooling is None:
        g = np.einsum("of,bto->fbt", weight, directions)
    else:
        g = (weight.T @ directions.T)[:, :, np.newaxis]
        if model.pooling == "mean":
            g = np.broadcast_to(g / steps, x.shape)
        else:
            last = np.zeros_like(x)
            last[..., -1:] = g
            g = last
    g, norm = g.astype(dtype), layer_norm(model.norm)
    return g if norm is None else _normalised(norm, x, dtype).backward(g)


def _normalised(norm: LayerNorm, x: np.ndarray, dtype: type) -> Normalised:
    centred = x - np.mean(x, axis=0)
    scale = 1 / np.sqrt(np.mean(centred * centred, axis=0) + norm.eps)
    centred *= scale
    return Normalised(centred.astype(dtype), scale.astype(dtype), norm.weight.astype(dtype))


def _adjoint(ssm: DiagonalLQOSystem, v: np.ndarray) -> Map:
    """The map from gradients by the output of a system to those by its input `v`."""
    if not ssm.batch:
        q = ssm.M
        if q is None:
            return lambda g: _system_adjoint(ssm, g)
        outputs = row_outputs(ssm)(v)
        return lambda g: _system_adjoint(ssm, _row_gradients(q, outputs, g))
    if ssm.M is not None:
        raise InvalidInputError("sensitivities are for linear channels and for single systems; these channels are quadratic")
    steps = v.shape[-1]
    spectra, size = kernel_spectra(ssm, steps)
    conjugate = spectra[:, :1].conj()

    def apply(g: np.ndarray) -> np.ndarray:
        transform = scipy.fft.rfft(g, size, workers=-1)
        transform *= conjugate
        return scipy.fft.irfft(transform, size, workers=-1, overwrite_x=True)[..., :steps]

    return apply


def _row_gradients(q: QuadraticOutput, outputs: np.ndarray, g: np.ndarray) -> np.ndarray:
    """Gradients by the outputs of all rows: a product passes its gradient to either factor, times the other one."""
    p, c = q.n_outputs, q.rank
    products = np.tensordot(q.W.T, g, axes=1)
    return np.concatenate([g, products * outputs[p + c :], products * outputs[p : p + c]])


def _system_adjoint(ssm: DiagonalLQOSystem, gradients: np.ndarray) -> np.ndarray:
    """The gradient by the input of one system from those by all of its rows: the transposed system, run backwards in time."""
    q = ssm.M
    rows = ssm.C if q is None else np.concatenate([ssm.C, q.U, q.V])
    D = np.zeros((ssm.n_inputs, len(rows)))
    D[:, : ssm.n_outputs] = ssm.D.T
    transposed = DiagonalLQOSystem(ssm.poles, rows.T, ssm.B.T, D, None, dt=ssm.dt)
    return system_map(transposed, gradients.shape[-1])(np.ascontiguousarray(gradients[..., ::-1]))[..., ::-1]
