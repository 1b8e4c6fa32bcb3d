"""What is measured of the signals of the full model on given inputs, for the calibrated bound."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import numpy as np

from lqo_mor.bounds.analysis import Analysis, Layer
from lqo_mor.bounds.chain import Neighbourhood, Seen
from lqo_mor.network.blocks import block_input, block_output
from lqo_mor.network.layers import LayerNorm, Linear
from lqo_mor.network.model import DeepSSM, decode, ends, layer_norm
from lqo_mor.network.signals import encode, normalise, system_map
from lqo_mor.systems.diagonal import DiagonalLQOSystem


def measure(analysis: Analysis, inputs: np.ndarray) -> Seen:
    """Yield what is measured at one stage after the other, in arrays (batch, ...): before and after each system, and at the end.

    After a system the neighbourhood of tokens is sent, as the largest error of each feature and that of a token.
    """
    model, steps = analysis.model, analysis.steps
    x = encode(ends(model)[0], inputs)
    for layer in analysis.layers:
        block, small, norm = layer.block, layer.other.ssm, layer.after
        v = block_input(block, x)
        y = system_map(block.ssm, steps)(v)
        local = system_map(small, steps)(v) - y
        rows = [] if small.M is None else [small.M.U, small.M.V]
        left, right = (_row_peaks(small, row, v, steps) for row in rows) if rows else (layer.limits["left"][np.newaxis],) * 2
        sizes = np.sqrt(np.sum(v**2, axis=2))
        neighbourhood = yield {
            "local": np.sqrt(np.sum(local**2, axis=(0, 2))),
            "local_peak": np.max(np.abs(local), axis=2).T,
            "local_token": np.sqrt(np.max(np.sum(local**2, axis=0), axis=1)),
            "left": left,
            "right": right,
            "values": layer.tokens.largest(y),
            "size": np.max(sizes, axis=0) if block.ssm.batch else np.linalg.norm(sizes, axis=0),
            "pre": np.zeros(1) if layer.before is None else np.max(_slopes(layer.before, x), axis=1),
        }
        out = block_output(replace(block, norm=None), x, y.copy())  # in front of a post-normalisation
        change = _change_of_map(layer, x, y)
        slopes = np.ones(out.shape[1:]) if norm is None else _slopes(norm, out)
        peak, near, spread = cast(Neighbourhood, neighbourhood)  # sent after a system
        scales = {"local": np.ones(len(y)), "spread": spread}
        bounds = [layer.tokens.steepest(y[:, i].T, slopes[i], peak, near, scales, layer.centred) for i in range(len(slopes))]
        found = {name: np.array([one[name] for one in bounds]) for name in bounds[0]}
        found |= {"change": _sizes(change), "change_post": _sizes(change * slopes)}
        yield {**found, "post": np.max(slopes, axis=1), "post_rms": _rms(slopes)}
        x = out if norm is None else normalise(norm, out)
    if (final := layer_norm(model.norm)) is not None:
        slopes = _slopes(final, x)
        yield {"final": np.max(slopes, axis=1), "final_rms": _rms(slopes)}
        x = normalise(final, x)
    if analysis.last_norm is not None:
        centred = x - analysis.last_norm.bias[:, np.newaxis, np.newaxis]
        yield {"output": _largest_outputs(model, Linear(analysis.decoder.weight), centred)}
    if analysis.decoder_changed:
        yield {"decoder": _largest_outputs(model, analysis.decoder_change, x)}


def _largest_outputs(model: DeepSSM, decoder: Linear, x: np.ndarray) -> np.ndarray:
    """2-norms (batch,) of the largest outputs that a decoder gives for features behind the last normalisation."""
    y = decode(replace(model, norm=None, decoder=decoder), x)
    sizes = np.linalg.norm(y, axis=-1)
    return sizes if y.ndim == 2 else np.max(sizes, axis=1)


def _change_of_map(layer: Layer, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """2-norms (batch, steps) of what the map of tokens of the reduced block gives differently, at the same outputs `y`."""
    if not layer.changed:
        return np.zeros(y.shape[1:])
    alone = replace(layer.block, norm=None, residual=False)
    change = block_output(replace(alone, mixing=layer.other.mixing), x, y.copy())
    change -= block_output(alone, x, y.copy())
    if layer.centred:
        change -= change.mean(axis=0)
    return np.linalg.norm(change, axis=0)


def _sizes(norms: np.ndarray) -> np.ndarray:
    """ℓ2 norm, largest and mean over the steps, (batch, 3)."""
    return np.stack([np.linalg.norm(norms, axis=1), np.max(norms, axis=1), np.mean(norms, axis=1)], axis=1)


def _rms(slopes: np.ndarray) -> np.ndarray:
    return np.sqrt(np.mean(slopes**2, axis=1))


def _slopes(norm: LayerNorm, x: np.ndarray) -> np.ndarray:
    """``1 / ρ`` of every token, (batch, steps)."""
    return 1 / np.sqrt(np.var(x, axis=0) + norm.eps)


def _row_peaks(ssm: DiagonalLQOSystem, rows: np.ndarray, v: np.ndarray, steps: int) -> np.ndarray:
    """Largest values over time of the signals of `rows`, (batch, c) or (batch, width, c)."""
    plain = replace(ssm, C=rows, D=np.zeros((*rows.shape[:-1], ssm.n_inputs)), M=None)
    peaks = np.max(np.abs(system_map(plain, steps)(v)), axis=2).T
    return peaks.reshape(len(peaks), -1, ssm.batch[0]).swapaxes(1, 2) if ssm.batch else peaks
