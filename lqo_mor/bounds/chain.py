"""The error of a reduced model, followed from block to block; `output_error` says how."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from lqo_mor.bounds.analysis import Analysis, Layer, Limits, steepest_slope
from lqo_mor.bounds.gains import spectral, times_each
from lqo_mor.bounds.lipschitz import chord
from lqo_mor.network.layers import LayerNorm
from lqo_mor.network.model import ends, layer_norm

Neighbourhood: TypeAlias = tuple[Any, ...]  # of tokens: see `_neighbourhood`, and the gains of the system behind it
Record: TypeAlias = tuple[dict[str, Any], Neighbourhood | None]
Seen: TypeAlias = Generator[dict[str, np.ndarray], Neighbourhood | None, None]  # see `measured.measure`
Known: TypeAlias = Callable[..., Limits]  # limits with what is measured beside them


@dataclass(frozen=True, eq=False)
class _Error:
    """The error between two blocks."""

    size: np.ndarray  # (3,): ℓ2 norm, largest token, mean over the steps
    # (2, layers so far): gains from the h2 errors to that ℓ2 norm, and what the changes of the maps of tokens add to it
    weights: np.ndarray
    scale: np.ndarray  # (width,): what the error is yet to be multiplied with, by feature
    capped: bool = False  # whether it is the last normalisation that keeps the error down


def follow(analysis: Analysis, seen: Seen | None = None, margin: float = 1.0) -> tuple[float, np.ndarray, list[Record], bool]:
    """Follow the error through the model, by the limits of all inputs or, with `seen`, by what is measured; theory, eq. (10.9).

    Returns the bound by the chain of gains; the weights (2, layers): the gains from the h2 error of each layer to the output,
    and what the change of its map of tokens adds there; the limits of every stage with the neighbourhood of tokens that they are
    for; and whether it is the last normalisation that keeps the error down.
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

    state = _Error(np.zeros(3), np.zeros((2, 0)), np.ones(encoder.n_outputs))
    for layer in analysis.layers:
        state = _through_block(layer, known, steps, state)
    error, weights, scale, capped = state.size, state.weights, state.scale, state.capped
    if (final := layer_norm(model.norm)) is not None:
        most, limits = float(np.max(scale)), known({"final": steepest_slope(final)})
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
    if analysis.decoder_changed:
        change = float(known({"decoder": _decoder_limit(analysis)})["decoder"])
        bound += change
        weights[1, -1:] += change
    return float(bound), weights, records, capped


def _decoder_limit(analysis: Analysis) -> float:
    """How far the decoder of the reduced model changes the output at most, at the same features."""
    change, norm = analysis.decoder_change, analysis.last_norm
    if norm is None:
        return np.inf
    weight = change.weight * norm.weight
    weight = weight - weight.mean(axis=1, keepdims=True)  # of normalised tokens the mean is zero
    offset = change.weight @ norm.bias + (0.0 if change.bias is None else change.bias)
    return float(spectral(weight) * np.sqrt(norm.weight.size) + np.linalg.norm(offset))


def _through_block(layer: Layer, known: Known, steps: int, before: _Error) -> _Error:
    """Follow the error through a block; theory, eq. (10.8)."""
    block, most, limits = layer.block, float(np.max(before.scale)), known(layer.limits)
    keep, capped = float(block.residual), before.capped
    inside, inside_weights = before.size, before.weights  # the gains of the system have the scale in them
    error, weights = times_each(most, before.size), times_each(most, before.weights)
    if layer.before is not None:
        gain, inside, capped = _through_norm(layer.before, steps, error, limits["pre"])
        inside_weights = times_each(gain, weights)
    reach = layer.limits["left"], layer.limits["right"]
    spread, peak, near = layer.gains.respond(inside[0], inside[1], limits["left"], limits["right"], reach)
    neighbourhood = _neighbourhood(float(np.max(times_each(spread, inside[0]))), peak, near, limits)
    limits = known(limits, (*neighbourhood, spread))
    steep, slope = layer.tokens.gain(limits["values"]), 1.0 if layer.after is None else float(limits["post"])

    def gains(slope: float, kind: str) -> np.ndarray:
        """From the errors of the block's input, of the system's input and of the system itself to `slope` times the sum."""
        system = min(limits.get(f"spread_{kind}", np.inf), times_each(steep * slope, np.max(spread)))
        return np.array([times_each(keep, slope), system, min(limits.get(f"local_{kind}", np.inf), steep * slope)])

    stage, rms = gains(slope, "most"), gains(slope, "rms")
    change = np.minimum(limits.get("change_post", np.inf), times_each(slope, limits["change"]))  # `slope` times that of the map
    token = times_each(stage[0], error[1]) + times_each(stage[2], neighbourhood[1]) + change[1]
    scale = np.ones(block.n_outputs)
    norm = layer.after
    if norm is not None:
        rms[0] = times_each(keep, limits.get("post_rms", slope))
        # every token has one slope, which is at most both: so the least may be taken for each part of the error
        factor = float(chord(token / np.sqrt(len(scale))))
        stage, rms = np.minimum(factor * stage, times_each(steepest_slope(norm), gains(1.0, "free"))), factor * rms
        change = np.minimum(factor * change, times_each(steepest_slope(norm), limits["change"]))
        token, scale = factor * token, np.abs(norm.weight)
    parts = np.array([error[0], inside[0], float(limits["local"])])
    total = float(np.sum(times_each(stage, parts))) + change[0]
    average = float(np.sum(times_each(rms, parts))) / np.sqrt(steps) + change[2]
    error = np.array([total, min(token, total), min(total / np.sqrt(steps), average)])
    weights = times_each(stage[0], weights) + times_each(stage[1], inside_weights)
    system = times_each(stage[2] * np.sqrt(steps), layer.h2_factor(limits["size"]))
    weights = np.column_stack([weights, [system, change[0]]])
    if norm is not None:
        error, capped = _capped(norm, steps, error)
    return _Error(error, weights, scale, capped)


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
    gain = float(min(times_each(factor, slope), steepest_slope(norm)))
    average = times_each(factor * slope_rms, error[0]) / np.sqrt(steps)
    return gain, *_capped(norm, steps, np.minimum(times_each(gain, error), [np.inf, np.inf, average]))


def _capped(norm: LayerNorm, steps: int, error: np.ndarray) -> tuple[np.ndarray, bool]:
    """The error behind a normalisation, whose tokens lie in a ball of radius √width, and whether that is the least."""
    cap = 2 * np.sqrt(norm.weight.size)
    return np.minimum(error, [cap * np.sqrt(steps), cap, cap]), bool(min(error[1:]) >= cap)
