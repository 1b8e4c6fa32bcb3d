"""What follows from the weights of a full and a reduced model: gains, and limits of the signals of all inputs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np

from lqo_mor.analysis.differences import h2_error
from lqo_mor.bounds.gains import SystemGains, channel_gains, kernels, matrix_gain, row_gains, times, times_each
from lqo_mor.bounds.lipschitz import TokenMap
from lqo_mor.network.blocks import Block
from lqo_mor.network.layers import Embedding, LayerNorm, Linear
from lqo_mor.network.model import DeepSSM, ends, layer_norm
from lqo_mor.systems.diagonal import DiagonalLQOSystem

Limits: TypeAlias = dict[str, Any]  # bounds by name: numbers and arrays


@dataclass(frozen=True, eq=False)
class Layer:
    """One block, the reduced one, and what follows from the weights: gains, and limits of the signals of all inputs."""

    block: Block
    other: Block
    changed: bool  # whether the map of tokens of the reduced block is another one
    gains: SystemGains
    tokens: TokenMap
    limits: Limits
    centred: bool  # whether all that follows takes no notice of the mean of a token

    def h2_factor(self, size: float) -> float:
        """What times `√steps` and the h2 error bounds the ℓ2 norm of the error, for inputs of that norm; theory, eq. (10.3)."""
        return float(size) if self.block.ssm.M is None else float(np.sqrt(size**2 + size**4))

    @property
    def before(self) -> LayerNorm | None:
        """The normalisation before the system, or None."""
        return layer_norm(self.block.norm) if self.block.prenorm else None

    @property
    def after(self) -> LayerNorm | None:
        """The normalisation after the sum, or None."""
        return None if self.block.prenorm else layer_norm(self.block.norm)


@dataclass(frozen=True, eq=False)
class Analysis:
    """Everything that does not depend on calibration."""

    model: DeepSSM
    steps: int
    layers: tuple[Layer, ...]
    decoder: Linear  # that of the reduced model

    @property
    def decoder_change(self) -> Linear:
        """What the decoder of the reduced model gives more than that of the full one."""
        old = ends(self.model)[1]
        bias = None if old.bias is None or self.decoder.bias is None else self.decoder.bias - old.bias
        return Linear(self.decoder.weight - old.weight, bias)

    @property
    def decoder_changed(self) -> bool:
        """Whether the reduced model has another decoder."""
        change = self.decoder_change
        return bool(np.any(change.weight)) or (change.bias is not None and bool(np.any(change.bias)))

    @property
    def last_norm(self) -> LayerNorm | None:
        """The normalisation that nothing but the decoder follows, or None."""
        if self.model.norm is not None or not self.layers:
            return layer_norm(self.model.norm)
        return self.layers[-1].after

    @classmethod
    def of(cls, model: DeepSSM, reduced: DeepSSM, steps: int) -> Analysis:
        """The analysis of a model and its reduced one over `steps` samples."""
        encoder, layers = ends(model)[0], []
        mean_is_lost = model.norm is not None and all(block.prenorm and block.norm is not None for block in model.blocks)
        scale, peaks, token = _tokens_after(None, encoder.n_outputs)
        if isinstance(encoder, Embedding):
            peaks, token = np.max(np.abs(encoder.weight), axis=0), np.max(np.linalg.norm(encoder.weight, axis=1))
        for block, other in zip(model.blocks, reduced.blocks, strict=True):
            if block.norm is not None and block.prenorm:
                scale, peaks, token = _tokens_after(layer_norm(block.norm), block.n_outputs)
            centred = block.norm is not None and (mean_is_lost or not block.prenorm)
            layers.append(_layer(block, other, scale, np.sqrt(steps) * peaks, np.sqrt(steps) * token, steps, centred))
            scale, peaks, token = _tokens_after(None if block.prenorm else layer_norm(block.norm), block.n_outputs)
        return cls(model, int(steps), tuple(layers), ends(reduced)[1])


def _tokens_after(norm: LayerNorm | None, width: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Scale of the features of tokens behind a normalisation, their largest values, and the largest 2-norm of a token."""
    if norm is None:
        return np.ones(width), np.full(width, np.inf), np.inf
    weight = np.abs(norm.weight)
    token = np.sqrt(width) * np.max(weight) + np.linalg.norm(norm.bias)
    return weight, weight * np.sqrt(width - 1) + np.abs(norm.bias), token


def steepest_slope(norm: LayerNorm | None) -> float:
    """Lipschitz constant of ``(x - mean) / ρ`` for all tokens."""
    return np.inf if norm is None or norm.eps == 0 else norm.eps**-0.5


def _layer(block: Block, other: Block, scale: np.ndarray, sizes: np.ndarray, total: float, steps: int, centred: bool) -> Layer:
    """`sizes` (width,) and `total` bound the ℓ2 norms of the inputs of the system, over time, each and in all."""
    ssm, small, batch = block.ssm, other.ssm, bool(block.ssm.batch)
    parts, parts_r = kernels(ssm, steps), kernels(small, steps)
    W = np.abs(np.zeros((ssm.n_outputs, 0)) if ssm.M is None else ssm.M.W)
    dK = parts[0] - parts_r[0]

    def peaks(rows: np.ndarray) -> np.ndarray:  # of the rows for inputs of that size, by Cauchy and Schwarz
        axes, size = (-1, sizes[:, np.newaxis]) if batch else ((1, 2), total)
        return times_each(np.sqrt(np.sum(rows**2, axis=axes)), size)

    size: np.ndarray | float = total
    if batch:
        gains, size = channel_gains(dK)[:, 0], sizes
        local = min(np.linalg.norm(times_each(gains, sizes)), times_each(np.max(gains), total))
    else:
        local = times_each(matrix_gain(dK), total)
    squared = times_each(_h2_of_products(ssm, small, steps), size * size)
    old, tokens = (TokenMap.of(one, ssm.batch[0] if batch else ssm.n_outputs) for one in (block, other))
    products = times(W, (peaks(parts[1]) * peaks(parts[2]))[..., np.newaxis]).ravel()
    outputs, change = peaks(parts[0]).ravel() + products, np.zeros(3)
    changed = any(not np.array_equal(part, getattr(old, name)) for name, part in vars(tokens).items())
    if changed:
        rows = times_each(channel_gains(parts[0])[:, 0], sizes) if batch else times_each(row_gains(parts[0]), total)
        change = tokens.change(old, outputs, rows + np.sqrt(steps) * products, steps)
    limits = {
        "local": local + np.sqrt(steps) * np.linalg.norm(squared),
        "local_peak": peaks(dK).ravel() + squared,
        "local_token": np.inf,
        "left": peaks(parts_r[1]),
        "right": peaks(parts_r[2]),
        "values": tokens.peaks(outputs),
        "change": change,
        "size": np.max(size),
        "pre": steepest_slope(layer_norm(block.norm)) if block.prenorm else np.inf,
        "post": np.inf if block.prenorm else steepest_slope(layer_norm(block.norm)),
    }
    return Layer(block, other, changed, SystemGains(small, parts_r, scale), tokens, limits, centred)


def _h2_of_products(ssm: DiagonalLQOSystem, small: DiagonalLQOSystem, steps: int) -> np.ndarray:
    """h2 norm of the difference of the quadratic parts, (width,) or a number."""
    if ssm.M is None and small.M is None:
        return np.zeros(ssm.batch)
    full, reduced = (replace(s, C=np.zeros_like(s.C), D=np.zeros_like(s.D)) for s in (ssm, small))
    return np.asarray(h2_error(full, reduced, horizon=steps, delay=0))
