"""Signals through linear maps, normalisations, activations and systems, in NumPy.

Signals are (features, batch, steps): the Fourier transforms then run along contiguous memory, and a linear map of
tokens is one matrix product.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import scipy.fft
from numpy.typing import ArrayLike
from scipy.special import erf

from lqo_mor.network import signal_kernels
from lqo_mor.network.layers import BatchNorm, Embedding, LayerNorm, Linear
from lqo_mor.systems.diagonal import DiagonalLQOSystem

_TANH = np.sqrt(2.0 / np.pi)  # in the tanh form of the GELU

Encoder: TypeAlias = Linear | Embedding
Map: TypeAlias = Callable[[np.ndarray], np.ndarray]  # of signals (features, batch, steps)


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
        x *= 0.5 * (1.0 + np.tanh(_TANH * (x + 0.044715 * x**3)))
    elif name == "relu":
        np.maximum(x, 0.0, out=x)
    return x


def activation_slope(name: str, x: ArrayLike) -> Any:
    """Derivative of an activation, elementwise: x φ(x) + Φ(x) for "gelu"."""
    if name == "relu":
        return (np.asarray(x) > 0).astype(float)
    x = np.clip(x, -1e2, 1e2)  # beyond, it is 0 or 1 to all digits
    if name == "gelu":
        return 0.5 * (1 + erf(x * np.sqrt(0.5))) + x * np.exp(-0.5 * x * x) / np.sqrt(2 * np.pi)
    t = np.tanh(_TANH * (x + 0.044715 * x**3))
    return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * _TANH * (1 + 3 * 0.044715 * x * x)


def output_rows(ssm: DiagonalLQOSystem) -> np.ndarray:
    """The linear rows `C`, then `U` and `V`, (..., q, s), scaled so that each row output is ``Re Σ_s row_s x_s``."""
    q = ssm.M
    rows = ssm.C if q is None else np.concatenate([ssm.C, q.U, q.V], axis=-2)
    return rows * np.where(ssm.is_real_pole, 1.0, 2.0)[..., np.newaxis, :]


def system_map(ssm: DiagonalLQOSystem, steps: int) -> Map:
    """The system as a function from signals to signals, both (features, batch, steps); the result is a new array."""
    return _convolution(ssm, steps) if ssm.batch else _recursion(ssm)


def impulse_responses(ssm: DiagonalLQOSystem, steps: int) -> np.ndarray:
    """The kernels of the rows `C` (with `D` at lag 0), then `U` and `V`.

    Of a batch (width, rows, steps), of a single system (rows, inputs, steps).
    """
    rows, p = output_rows(ssm), ssm.n_outputs
    if ssm.batch:
        kernels = np.empty((*rows.shape[:2], steps))
        signal_kernels.impulse_responses(ssm.poles, rows * ssm.B.transpose(0, 2, 1), kernels)
        kernels[:, :p, 0] += ssm.D[:, :, 0]
        return kernels
    kernels = np.empty((len(rows), ssm.n_inputs, steps))
    for k in range(steps):
        kernels[..., k] = (rows @ ssm.B).real
        rows = rows * ssm.poles
    kernels[:p, :, 0] += ssm.D
    return kernels


def kernel_spectra(ssm: DiagonalLQOSystem, steps: int) -> tuple[np.ndarray, int]:
    """Fourier transforms of the `impulse_responses` of channels, and their length; padded so that nothing wraps around."""
    size = scipy.fft.next_fast_len(2 * steps - 1, real=True)
    return scipy.fft.rfft(impulse_responses(ssm, steps), size, workers=os.cpu_count()), size


def _convolution(ssm: DiagonalLQOSystem, steps: int) -> Map:
    """Channels with one input: products of Fourier transforms. The result has the order (output, channel)."""
    (spectra, size), workers = kernel_spectra(ssm, steps), os.cpu_count()

    def respond(transform: np.ndarray, row: int) -> np.ndarray:
        y = scipy.fft.irfft(transform * spectra[:, row, np.newaxis], size, workers=workers, overwrite_x=True)
        return np.ascontiguousarray(y[..., :steps])

    def apply(x: np.ndarray) -> np.ndarray:
        transform, p, q = scipy.fft.rfft(x, size, workers=workers), ssm.n_outputs, ssm.M
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
    rows, p, q = row_outputs(ssm), ssm.n_outputs, ssm.M

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
