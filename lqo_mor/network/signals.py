"""Forward pass of a deep state-space model in NumPy.

Signals are (features, batch, steps): the Fourier transforms then run along contiguous memory, and a linear map of
tokens is one matrix product. The batch is cut into chunks, so that memory does not grow with it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import scipy.fft
from numpy.typing import ArrayLike

from lqo_mor.errors import DimensionError, InvalidInputError
from lqo_mor.network import signal_kernels
from lqo_mor.network.layers import BatchNorm, Embedding, LayerNorm, Linear
from lqo_mor.systems.diagonal import DiagonalLQOSystem
from lqo_mor.types import Progress

if TYPE_CHECKING:
    from lqo_mor.network.model import Block, DeepSSM

Encoder: TypeAlias = Linear | Embedding
Map: TypeAlias = Callable[[np.ndarray], np.ndarray]  # of signals (features, batch, steps)

_CHUNK_BYTES = 2**27  # of intermediate arrays: a few examples, enough to keep the cores busy
_SYSTEMS_ONLY = "only the systems of this model are known, not what is between them: it can be reduced and stored, but not run"


def forward(model: DeepSSM, u: ArrayLike, progress: Progress | None = None) -> np.ndarray:
    """Output of `model` (a `DeepSSM`) for the inputs `u`; see `DeepSSM.__call__`."""
    u, encoder = check_inputs(model.encoder, u), ends(model)[0]
    batch, steps = u.shape[:2]
    layers = [block_map(block, steps) for block in model.blocks]
    chunk = chunk_size(model, steps)
    outputs = []
    for start in range(0, batch, chunk):
        x = encode(encoder, u[start : start + chunk])
        for block, layer in zip(model.blocks, layers, strict=True):
            x = block_output(block, x, layer(block_input(block, x)))
        outputs.append(decode(model, x))
        if progress is not None:
            progress(min(start + chunk, batch), batch)
    return np.concatenate(outputs)


def ends(model: DeepSSM) -> tuple[Encoder, Linear]:
    """Encoder and decoder of a model; raises where only its systems are known."""
    if model.encoder is None or model.decoder is None:
        raise InvalidInputError(_SYSTEMS_ONLY)
    return model.encoder, model.decoder


def check_inputs(encoder: Encoder | None, u: ArrayLike) -> np.ndarray:
    """The inputs as an array; raises unless they fit the encoder."""
    if encoder is None:
        raise InvalidInputError(_SYSTEMS_ONLY)
    u = np.asarray(u)
    if isinstance(encoder, Embedding):
        if u.ndim != 2 or 0 in u.shape:
            raise DimensionError(f"u has shape {u.shape}, expected (batch, steps) of tokens")
        if u.dtype.kind not in "iu":
            raise InvalidInputError(f"u holds {u.dtype}, but the model reads tokens: give integers")
        if u.min() < 0 or u.max() >= encoder.n_tokens:
            raise InvalidInputError(f"u has tokens from {u.min()} to {u.max()}, expected 0 to {encoder.n_tokens - 1}")
        return u
    if u.dtype.kind not in "biuf":
        raise InvalidInputError(f"u holds {u.dtype}, expected real numbers")
    if u.ndim != 3 or 0 in u.shape or u.shape[2] != encoder.n_inputs:
        raise DimensionError(f"u has shape {u.shape}, expected (batch, steps, features) with {encoder.n_inputs} features")
    if not np.all(np.isfinite(u)):
        raise InvalidInputError("u has entries that are not finite")
    return u


def chunk_size(model: DeepSSM, steps: int) -> int:
    """How many sequences go through the layers at once."""
    return max(1, _CHUNK_BYTES // (8 * steps * _numbers_per_step(model)))


def _numbers_per_step(model: DeepSSM) -> int:
    """Rough number of real numbers that one example needs for one time step inside a layer."""

    def numbers(block: Block) -> int:
        if block.ssm.batch:
            inside = (8 + 2 * block.ssm.n_outputs) * block.width  # transforms of padded signals
        else:
            rank = 0 if block.ssm.quadratic is None else block.ssm.quadratic.rank
            inside = block.state_size + 2 * block.ssm.n_outputs + 3 * rank
        mixed = 0 if block.mixing is None else 2 * block.mixing.n_outputs
        return 3 * block.width + inside + mixed

    return max((numbers(block) for block in model.blocks), default=ends(model)[0].n_outputs)


def linear(mapping: Linear, x: np.ndarray) -> np.ndarray:
    """A `Linear` map of every token."""
    y = mapping.weight @ x.reshape(x.shape[0], -1)
    if mapping.bias is not None:
        y += mapping.bias[:, np.newaxis]
    return y.reshape(-1, *x.shape[1:])


def encode(encoder: Encoder, u: np.ndarray) -> np.ndarray:
    """The features that the first block reads."""
    if isinstance(encoder, Embedding):
        return np.ascontiguousarray(encoder.weight.T[:, u])
    return linear(encoder, u.transpose(2, 0, 1).astype(np.float64))


def normalise(norm: LayerNorm | BatchNorm, x: np.ndarray) -> np.ndarray:
    """A `LayerNorm` or `BatchNorm` of every token."""
    if isinstance(norm, BatchNorm):
        return norm.weight[:, np.newaxis, np.newaxis] * x + norm.bias[:, np.newaxis, np.newaxis]
    x = x - np.mean(x, axis=0)
    x /= np.sqrt(np.mean(x * x, axis=0) + norm.eps)
    x *= norm.weight[:, np.newaxis, np.newaxis]
    x += norm.bias[:, np.newaxis, np.newaxis]
    return x


def activate(name: str, x: np.ndarray) -> np.ndarray:
    """The activation, in place where that is possible; `x` is contiguous and belongs to the caller."""
    if name == "gelu":
        signal_kernels.gelu(x.reshape(-1, x.shape[-1]))
    elif name == "gelu_tanh":
        x *= 0.5 * (1.0 + np.tanh(np.sqrt(2.0 / np.pi) * (x + 0.044715 * x**3)))
    elif name == "relu":
        np.maximum(x, 0.0, out=x)
    return x


def block_input(block: Block, x: np.ndarray) -> np.ndarray:
    """What the system of a block reads; `x` itself where no normalisation stands before it."""
    return normalise(block.norm, x) if block.norm is not None and block.prenorm else x


def block_output(block: Block, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The block after its system, whose output `y` belongs to the caller and is overwritten."""
    y = activate(block.activation, y)
    if block.mixing is not None:
        y = linear(block.mixing, y)
    if block.gate == "glu":
        signal_kernels.glu(y.reshape(y.shape[0], -1))
        y = y[: y.shape[0] // 2]
    if block.residual:
        y += x
    return normalise(block.norm, y) if block.norm is not None and not block.prenorm else y


def pooled(model: DeepSSM, x: np.ndarray) -> np.ndarray:
    """What the decoder reads, (features, batch, steps), a single step after pooling, from the features of the last block."""
    if model.norm is not None:
        x = normalise(model.norm, x)
    if model.pooling == "mean":
        return x.mean(axis=2, keepdims=True)
    return x[:, :, -1:] if model.pooling == "last" else x


def decode(model: DeepSSM, x: np.ndarray) -> np.ndarray:
    """The outputs from the features of the last block."""
    y = linear(ends(model)[1], pooled(model, x)).transpose(1, 2, 0)
    return y if model.pooling is None else y[:, 0]


def output_rows(ssm: DiagonalLQOSystem) -> np.ndarray:
    """The linear rows `C`, then `U` and `V`, (..., q, s), scaled so that each row output is ``Re Σ_s row_s x_s``."""
    q = ssm.quadratic
    rows = ssm.C if q is None else np.concatenate([ssm.C, q.U, q.V], axis=-2)
    return rows * np.where(ssm.is_real_pole, 1.0, 2.0)[..., np.newaxis, :]


def block_map(block: Block, steps: int) -> Map:
    """As `system_map` for the system of a block, of which some outputs may run backward in time."""
    apply = system_map(block.ssm, steps)
    if block.backward is None:
        return apply

    def both(x: np.ndarray) -> np.ndarray:
        forward = apply(x)
        half = forward.shape[0] // 2
        reverse = apply(np.ascontiguousarray(x[..., ::-1]))[half:, :, ::-1]
        if block.backward:
            forward[:half, :, :-1] += reverse[:, :, 1:]
        else:
            forward[:half] += reverse
        return np.ascontiguousarray(forward[:half])

    return both


def system_map(ssm: DiagonalLQOSystem, steps: int) -> Map:
    """The system as a function from signals to signals, both (features, batch, steps); the result is a new array."""
    return _convolution(ssm, steps) if ssm.batch else _recursion(ssm)


def kernel_spectra(ssm: DiagonalLQOSystem, steps: int) -> tuple[np.ndarray, int]:
    """Fourier transforms of the kernels of channels, a row each for the linear outputs, `U` and `V`, and their length.

    They are padded so that nothing wraps around.
    """
    residues = output_rows(ssm) * ssm.B.transpose(0, 2, 1)
    kernels = np.empty((*residues.shape[:2], steps))
    signal_kernels.impulse_responses(ssm.poles, residues, kernels)
    kernels[:, : ssm.n_outputs, 0] += ssm.D[:, :, 0]
    size = scipy.fft.next_fast_len(2 * steps - 1, real=True)
    return scipy.fft.rfft(kernels, size, workers=os.cpu_count()), size


def _convolution(ssm: DiagonalLQOSystem, steps: int) -> Map:
    """Channels with one input: products of Fourier transforms. The result has the order (output, channel)."""
    (spectra, size), workers = kernel_spectra(ssm, steps), os.cpu_count()

    def respond(transform: np.ndarray, row: int) -> np.ndarray:
        y = scipy.fft.irfft(transform * spectra[:, row, np.newaxis], size, workers=workers, overwrite_x=True)
        return np.ascontiguousarray(y[..., :steps])

    def apply(x: np.ndarray) -> np.ndarray:
        transform, p, q = scipy.fft.rfft(x, size, workers=workers), ssm.n_outputs, ssm.quadratic
        if q is None:
            return respond(transform, 0) if p == 1 else np.concatenate([respond(transform, i) for i in range(p)])
        y = [respond(transform, i) for i in range(p)]
        for j in range(q.rank):
            product = respond(transform, p + j) * respond(transform, p + q.rank + j)
            for i in range(p):
                y[i] += q.W[:, i, j, np.newaxis, np.newaxis] * product
        return np.concatenate(y)

    return apply


def _recursion(ssm: DiagonalLQOSystem) -> Map:
    """One system with all of its row outputs."""
    rows, p, q = row_outputs(ssm), ssm.n_outputs, ssm.quadratic

    def apply(x: np.ndarray) -> np.ndarray:
        outputs = rows(x)
        if q is None:
            return outputs
        return outputs[:p] + np.tensordot(q.W, outputs[p : p + q.rank] * outputs[p + q.rank :], axes=1)

    return apply


def row_outputs(ssm: DiagonalLQOSystem) -> Map:
    """A function from signals to the outputs of all rows of one system: ``C x + D u``, then ``U x`` and ``V x``.

    Forcings and row outputs are real matrix products, with a scan over time between them.
    """
    B = np.concatenate([ssm.B.real, ssm.B.imag])
    rows = output_rows(ssm)
    rows = np.concatenate([rows.real, -rows.imag], axis=1)

    def apply(x: np.ndarray) -> np.ndarray:
        signal = x.reshape(x.shape[0], -1)
        states = B @ signal
        signal_kernels.scan(ssm.poles, states.reshape(-1, *x.shape[1:]))
        outputs = rows @ states
        outputs[: ssm.n_outputs] += ssm.D @ signal
        return outputs.reshape(-1, *x.shape[1:])

    return apply
