"""The error of a reduced model, followed from block to block; `bound` says how."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np

from lqo_mor.analysis.differences import h2_error
from lqo_mor.network._gains import SystemGains, channel_gains, kernels, matrix_gain, row_gains, spectral, times, times_each
from lqo_mor.network._lipschitz import TokenMap, chord
from lqo_mor.network.forward import ends
from lqo_mor.network.layers import Embedding, LayerNorm, Linear
from lqo_mor.network.model import Block, DeepSSM
from lqo_mor.network.support import layer_norm
from lqo_mor.systems.diagonal import DiagonalLQOSystem

Limits: TypeAlias = dict[str, Any]  # bounds by name: numbers and arrays
Neighbourhood: TypeAlias = tuple[Any, ...]  # of tokens: see `_neighbourhood`, and the gains of the system behind it
Record: TypeAlias = tuple[dict[str, Any], Neighbourhood | None]
Seen: TypeAlias = Generator[dict[str, np.ndarray], Neighbourhood | None, None]  # see `_signals.measure`
Known: TypeAlias = Callable[..., Limits]


@dataclass(frozen=True, eq=False)
class Layer:
    """One block, the reduced one, and what follows from the weights: gains, and limits of the signals of all inputs."""

    block: Block
    other: Block
    moved: bool  # whether the map of tokens of the reduced block is another one
    gains: SystemGains
    tokens: TokenMap
    limits: Limits
    centred: bool  # whether all that follows takes no notice of the mean of a token

    @property
    def small(self) -> DiagonalLQOSystem:
        """The reduced system."""
        return self.other.ssm

    def h2_factor(self, size: float) -> float:
        """What the h2 error times `√steps` is multiplied with, for inputs of that ℓ2 norm, to bound the ℓ2 norm of the error."""
        return float(size) if self.block.ssm.quadratic is None else float(np.sqrt(size**2 + size**4))

    @property
    def norm(self) -> LayerNorm | None:
        """The normalisation of the block."""
        return layer_norm(self.block.norm)

    @property
    def before(self) -> bool:
        """Whether there is a normalisation before the system."""
        return self.block.norm is not None and self.block.prenorm

    @property
    def after(self) -> bool:
        """Whether there is a normalisation after the sum."""
        return self.block.norm is not None and not self.block.prenorm


@dataclass(frozen=True, eq=False)
class Analysis:
    """Everything that does not depend on calibration."""

    model: DeepSSM
    steps: int
    layers: tuple[Layer, ...]
    final: Limits
    decoder: Linear  # that of the reduced model

    @property
    def decoder_change(self) -> Linear:
        """What the decoder of the reduced model gives more than that of the full one."""
        old = ends(self.model)[1]
        bias = None if old.bias is None or self.decoder.bias is None else self.decoder.bias - old.bias
        return Linear(self.decoder.weight - old.weight, bias)

    @property
    def decoder_moved(self) -> bool:
        """Whether the reduced model has another decoder."""
        change = self.decoder_change
        return bool(np.any(change.weight)) or (change.bias is not None and bool(np.any(change.bias)))

    @property
    def last_norm(self) -> LayerNorm | None:
        """The normalisation that nothing but the decoder follows, or None."""
        if self.model.norm is not None or not self.layers:
            return layer_norm(self.model.norm)
        return self.layers[-1].norm if self.layers[-1].after else None

    @classmethod
    def of(cls, model: DeepSSM, reduced: DeepSSM, steps: int) -> Analysis:
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
        return cls(model, int(steps), tuple(layers), {"final": _steepest(layer_norm(model.norm))}, ends(reduced)[1])


def _tokens_after(norm: LayerNorm | None, width: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Scale of the features of tokens behind a normalisation, their largest values, and the largest 2-norm of a token."""
    if norm is None:
        return np.ones(width), np.full(width, np.inf), np.inf
    weight = np.abs(norm.weight)
    token = np.sqrt(width) * np.max(weight) + np.linalg.norm(norm.bias)
    return weight, weight * np.sqrt(width - 1) + np.abs(norm.bias), token


def _steepest(norm: LayerNorm | None) -> float:
    """Lipschitz constant of ``(x - mean) / ρ`` for all tokens."""
    return np.inf if norm is None or norm.eps == 0 else norm.eps**-0.5


def _layer(block: Block, other: Block, scale: np.ndarray, sizes: np.ndarray, total: float, steps: int, centred: bool) -> Layer:
    """`sizes` (width,) and `total` bound the ℓ2 norms of the inputs of the system, over time, each and in all."""
    ssm, small, batch = block.ssm, other.ssm, bool(block.ssm.batch)
    parts, parts_r = kernels(ssm, steps), kernels(small, steps)
    W = np.abs(np.zeros((ssm.n_outputs, 0)) if ssm.quadratic is None else ssm.quadratic.W)
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
    moved = any(not np.array_equal(part, getattr(old, name)) for name, part in vars(tokens).items())
    if moved:
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
        "pre": _steepest(layer_norm(block.norm)) if block.prenorm else np.inf,
        "post": np.inf if block.prenorm else _steepest(layer_norm(block.norm)),
    }
    return Layer(block, other, moved, SystemGains(small, parts_r, scale), tokens, limits, centred)


def _h2_of_products(ssm: DiagonalLQOSystem, small: DiagonalLQOSystem, steps: int) -> np.ndarray:
    """h2 norm of the difference of the quadratic parts, (width,) or a number."""
    if ssm.quadratic is None and small.quadratic is None:
        return np.zeros(ssm.batch)
    full, reduced = (replace(s, C=np.zeros_like(s.C), D=np.zeros_like(s.D)) for s in (ssm, small))
    return np.asarray(h2_error(full, reduced, horizon=steps, delay=0))


def follow(analysis: Analysis, seen: Seen | None = None, margin: float = 1.0) -> tuple[float, np.ndarray, list[Record], bool]:
    """Follow the error through the model, by the limits of all inputs or, with `seen`, by what is measured.

    Returns
    -------
    bound : float
        By the chain of gains.
    weights : (2, layers) ndarray
        The gains from the h2 error of each layer to the output, and what the change of its map of tokens adds there.
    records : list
        The limits of every stage, and the neighbourhood of tokens that they are for.
    capped : bool
        Whether it is the last normalisation that keeps the error down.
    """
    model, steps = analysis.model, analysis.steps
    encoder, decoder, records = ends(model)[0], analysis.decoder, []

    def known(before: Limits, neighbourhood: Neighbourhood | None = None) -> Limits:
        if seen is None:
            return before
        measured = seen.send(neighbourhood)
        found = {name: np.minimum(margin * np.max(value, axis=0), before.get(name, np.inf)) for name, value in measured.items()}
        records.append((found, neighbourhood))
        return {**before, **found}

    error, weights, scale, capped = np.zeros(3), np.zeros((2, 0)), np.ones(encoder.n_outputs), False
    for layer in analysis.layers:
        error, weights, scale, capped = _through_block(layer, known, steps, error, weights, scale, capped)
    final = layer_norm(model.norm)
    if final is not None:
        most, limits = float(np.max(scale)), known(analysis.final)
        scale = np.abs(final.weight)
        slope: float = limits["final"]
        gain, error, capped = _through_norm(final, steps, times_each(most, error), slope, limits.get("final_rms", slope))
        weights = times_each(gain * most, weights)
    weight, norm = decoder.weight * scale, analysis.last_norm
    if norm is not None:
        weight = weight - weight.mean(axis=1, keepdims=True)  # of normalised tokens the mean is zero
    steepest, mean = spectral(weight), model.pooling == "mean"
    bound = times_each(steepest, min(error[1:]) if mean else error[1])
    if norm is not None:  # no output is further from that of a zero token than this
        reach = steepest * np.sqrt(norm.weight.size)
        reach += float(known({"output": reach})["output"])
        bound, capped = min(bound, reach), bool(capped or bound > reach)
    weights = (steepest / np.sqrt(steps) if mean else steepest) * weights
    if analysis.decoder_moved:
        change = float(known({"decoder": _decoder_limit(analysis)})["decoder"])
        bound += change
        weights[1, -1:] += change
    return float(bound), weights, records, capped


def _decoder_limit(analysis: Analysis) -> float:
    """How far the decoder of the reduced model moves the output at most, at the same features."""
    change, norm = analysis.decoder_change, analysis.last_norm
    if norm is None:
        return np.inf
    weight = change.weight * norm.weight
    weight = weight - weight.mean(axis=1, keepdims=True)  # of normalised tokens the mean is zero
    offset = change.weight @ norm.bias + (0.0 if change.bias is None else change.bias)
    return float(spectral(weight) * np.sqrt(norm.weight.size) + np.linalg.norm(offset))


def _through_block(
    layer: Layer, known: Known, steps: int, error: np.ndarray, weights: np.ndarray, scale: np.ndarray, capped: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray, bool]:
    """Follow the error through a block.

    Parameters
    ----------
    layer : Layer
    known : callable
        Gives limits and, if there are any, what is measured.
    steps : int
    error : (3,) ndarray
        ℓ2 norm, largest token, mean over the steps.
    weights : (2, layers so far) ndarray
        The gains from the h2 errors to that ℓ2 norm, and what the changes of the maps of tokens add to it.
    scale : (width,) ndarray
        What the error is yet to be multiplied with, by feature.
    capped : bool
        Whether it is the last normalisation that keeps the error down.

    Returns
    -------
    error, weights, scale, capped
    """
    block, most, limits = layer.block, float(np.max(scale)), known(layer.limits)
    norm, keep = layer.norm, float(block.residual)
    inside, inside_weights = error, weights  # the gains of the system have the scale in them
    error, weights = times_each(most, error), times_each(most, weights)
    if norm is not None and layer.before:
        gain, inside, capped = _through_norm(norm, steps, error, limits["pre"])
        inside_weights = times_each(gain, weights)
    reach = layer.limits["left"], layer.limits["right"]
    spread, peak, near = layer.gains.respond(inside[0], inside[1], limits["left"], limits["right"], reach)
    neighbourhood = _neighbourhood(float(np.max(times_each(spread, inside[0]))), peak, near, limits)
    limits = known(limits, (*neighbourhood, spread))
    steep, slope = layer.tokens.gain(limits["values"]), float(limits["post"]) if layer.after else 1.0

    def gains(slope: float, kind: str) -> np.ndarray:
        """From the errors of the block's input, of the system's input and of the system itself to `slope` times the sum."""
        system = min(limits.get(f"spread_{kind}", np.inf), times_each(steep * slope, np.max(spread)))
        return np.array([times_each(keep, slope), system, min(limits.get(f"local_{kind}", np.inf), steep * slope)])

    stage, rms = gains(slope, "most"), gains(slope, "rms")
    change = np.minimum(limits.get("change_post", np.inf), times_each(slope, limits["change"]))  # `slope` times that of the map
    token = times_each(stage[0], error[1]) + times_each(stage[2], neighbourhood[1]) + change[1]
    scale = np.ones(block.n_outputs)
    if norm is not None and layer.after:
        rms[0] = times_each(keep, limits.get("post_rms", slope))
        # every token has one slope, which is at most both: so the least may be taken for each part of the error
        factor = float(chord(token / np.sqrt(len(scale))))
        stage, rms = np.minimum(factor * stage, times_each(_steepest(norm), gains(1.0, "free"))), factor * rms
        change = np.minimum(factor * change, times_each(_steepest(norm), limits["change"]))
        token, scale = factor * token, np.abs(norm.weight)
    parts = np.array([error[0], inside[0], float(limits["local"])])
    total = float(np.sum(times_each(stage, parts))) + change[0]
    average = float(np.sum(times_each(rms, parts))) / np.sqrt(steps) + change[2]
    error = np.array([total, min(token, total), min(total / np.sqrt(steps), average)])
    weights = times_each(stage[0], weights) + times_each(stage[1], inside_weights)
    system = times_each(stage[2] * np.sqrt(steps), layer.h2_factor(limits["size"]))
    weights = np.column_stack([weights, [system, change[0]]])
    if norm is not None and layer.after:
        error, capped = _capped(norm, steps, error)
    return error, weights, scale, capped


def _neighbourhood(grown: float, peak: np.ndarray, near: float, limits: Limits) -> tuple[np.ndarray, float]:
    """How far tokens behind the system move at most, by feature and in the 2-norm: from the input, and by the system itself."""
    total = grown + float(limits["local"])
    peak = np.minimum(peak + limits["local_peak"], total)
    near = min(near + float(limits["local_token"]), float(np.linalg.norm(peak)), total)
    return np.minimum(peak, near), near


def _through_norm(
    norm: LayerNorm, steps: int, error: np.ndarray, slope: float, slope_rms: float = np.inf
) -> tuple[float, np.ndarray, bool]:
    """The gain of ``(x - mean) / ρ``, by the largest ``1 / ρ`` and their root mean square, and the error behind it."""
    factor = float(chord(times_each(slope, error[1]) / np.sqrt(norm.weight.size)))
    gain = float(min(times_each(factor, slope), _steepest(norm)))
    average = times_each(factor * slope_rms, error[0]) / np.sqrt(steps)
    return gain, *_capped(norm, steps, np.minimum(times_each(gain, error), [np.inf, np.inf, average]))


def _capped(norm: LayerNorm, steps: int, error: np.ndarray) -> tuple[np.ndarray, bool]:
    """The error behind a normalisation, whose tokens lie in a ball of radius √width, and whether that is the least."""
    cap = 2 * np.sqrt(norm.weight.size)
    return np.minimum(error, [cap * np.sqrt(steps), cap, cap]), bool(min(error[1:]) >= cap)
