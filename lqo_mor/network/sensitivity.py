"""How much the model's output moves with the output of every system, by one backward pass in NumPy."""

from __future__ import annotations

import numpy as np
import scipy.fft
from scipy.special import erf, expit

from lqo_mor.errors import InvalidInputError
from lqo_mor.network import _kernels
from lqo_mor.network.forward import (
    activate,
    block_input,
    block_output,
    encode,
    ends,
    kernel_spectra,
    linear,
    row_outputs,
    system_map,
)
from lqo_mor.network.layers import LayerNorm
from lqo_mor.network.model import Block, DeepSSM
from lqo_mor.network.support import layer_norm
from lqo_mor.systems.diagonal import DiagonalLQOSystem
from lqo_mor.systems.quadratic import QuadraticOutput


def layer_signals(
    model: DeepSSM, u: np.ndarray, rng: np.random.Generator | None = None
) -> tuple[list[np.ndarray], list[np.ndarray], np.ndarray]:
    """What the systems of all blocks read, the gradients of random combinations of outputs by theirs, and the last features.

    Parameters
    ----------
    model : DeepSSM
        Its systems are batches of linear channels, or single ones of any kind.
    u : (batch, steps, ...) ndarray
        Inputs, as the model takes them.
    rng : numpy.random.Generator, optional
        Draws the directions, standard normal for every sequence (and step, without pooling); no gradients without it.

    Returns
    -------
    read, gradients : list of (width, batch, steps) ndarray
    features : (width, batch, steps) ndarray
    """
    encoder, decoder = ends(model)
    x, kept, read = encode(encoder, u), [], []
    for block in model.blocks:
        v = block_input(block, x)
        y = system_map(block.ssm, x.shape[-1])(v)
        read.append(v)
        kept.append((x, y.copy()))
        x = block_output(block, x, y)
    if rng is None:
        return read, [], x
    shape = x.shape[1:] if model.pooling is None else x.shape[1:2]
    gradient, gradients = _decode_backward(model, x, rng.normal(size=(*shape, decoder.n_outputs))), []
    for block, (before, y) in zip(reversed(model.blocks), reversed(kept), strict=True):
        gradient, own = _block_backward(block, before, y, gradient)
        gradients.append(own)
    return read, gradients[::-1], x


def _decode_backward(model: DeepSSM, x: np.ndarray, directions: np.ndarray) -> np.ndarray:
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
    norm = layer_norm(model.norm)
    return g if norm is None else _normalise_backward(norm, x, g)


def _normalise_backward(norm: LayerNorm, x: np.ndarray, g: np.ndarray) -> np.ndarray:
    centred = x - np.mean(x, axis=0)
    scale = 1 / np.sqrt(np.mean(centred * centred, axis=0) + norm.eps)
    centred *= scale
    g = g * norm.weight[:, np.newaxis, np.newaxis]
    return scale * (g - np.mean(g, axis=0) - centred * np.mean(g * centred, axis=0))


def _activation_slope(name: str, y: np.ndarray) -> np.ndarray:
    if name == "gelu":
        return 0.5 * (1 + erf(y * np.sqrt(0.5))) + y * np.exp(-0.5 * y * y) / np.sqrt(2 * np.pi)
    if name == "gelu_tanh":
        t = np.tanh(np.sqrt(2 / np.pi) * (y + 0.044715 * y**3))
        return 0.5 * (1 + t) + 0.5 * y * (1 - t * t) * np.sqrt(2 / np.pi) * (1 + 3 * 0.044715 * y * y)
    return (y > 0).astype(float) if name == "relu" else np.ones_like(y)


def _block_backward(block: Block, x: np.ndarray, y: np.ndarray, g: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Gradients by the input of a block and by the output `y` of its system, from that by its output."""
    active, norm = activate(block.activation, y.copy()), layer_norm(block.norm)
    mixed = active if block.mixing is None else linear(block.mixing, active)
    half = mixed.shape[0] // 2
    if norm is not None and not block.prenorm:
        z = mixed.copy()
        if block.gate == "glu":
            _kernels.glu(z.reshape(z.shape[0], -1))
            z = z[:half]
        g = _normalise_backward(norm, z + x if block.residual else z, g)
    through = g
    if block.gate == "glu":
        gate = expit(mixed[half:])
        through = np.concatenate([g * gate, g * mixed[:half] * gate * (1 - gate)])
    own = through if block.mixing is None else np.tensordot(block.mixing.weight, through, axes=(0, 0))
    own = own * _activation_slope(block.activation, y)
    back = _adjoint(block.ssm, block_input(block, x), own)
    if norm is not None and block.prenorm:
        back = _normalise_backward(norm, x, back)
    return (back + g if block.residual else back), own


def _adjoint(ssm: DiagonalLQOSystem, v: np.ndarray, g: np.ndarray) -> np.ndarray:
    """The gradient by the input `v` of a system from the gradient `g` by its output."""
    if not ssm.batch:
        q = ssm.quadratic
        return _system_adjoint(ssm, g if q is None else _row_gradients(q, row_outputs(ssm)(v), g))
    if ssm.quadratic is not None:
        raise InvalidInputError("sensitivities are for linear channels and for single systems; these channels are quadratic")
    steps = g.shape[-1]
    spectra, size = kernel_spectra(ssm, steps)
    adjoint = scipy.fft.rfft(g, size, workers=-1) * spectra[:, :1].conj()
    return scipy.fft.irfft(adjoint, size, workers=-1)[..., :steps]


def _row_gradients(q: QuadraticOutput, outputs: np.ndarray, g: np.ndarray) -> np.ndarray:
    """Gradients by the outputs of all rows: a product passes its gradient to either factor, times the other one."""
    p, c = q.n_outputs, q.rank
    products = np.tensordot(q.W.T, g, axes=1)
    return np.concatenate([g, products * outputs[p + c :], products * outputs[p : p + c]])


def _system_adjoint(ssm: DiagonalLQOSystem, gradients: np.ndarray) -> np.ndarray:
    """The gradient by the input of one system from those by all of its rows: the transposed system, run backwards in time."""
    q = ssm.quadratic
    rows = ssm.C if q is None else np.concatenate([ssm.C, q.U, q.V])
    D = np.zeros((ssm.n_inputs, len(rows)))
    D[:, : ssm.n_outputs] = ssm.D.T
    transposed = DiagonalLQOSystem(ssm.poles, rows.T, ssm.B.T, D, None, ssm.dt)
    return system_map(transposed, gradients.shape[-1])(np.ascontiguousarray(gradients[..., ::-1]))[..., ::-1]
