"""The linear parameters of a model: output weights of systems, feedthroughs, maps of tokens and the decoder."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np

from lqo_mor.compression.calibration.output_weights import Gradient, n_weights, output_gradients, with_changed_weights
from lqo_mor.network.backward import Passed, decode_backward, pass_model
from lqo_mor.network.layers import Linear
from lqo_mor.network.model import DeepSSM, ends, pooled
from lqo_mor.network.signals import Map, system_map


@dataclass(frozen=True)
class Part:
    """Parameters that are columns of the equations: of the mixing map or the system of a block, or of the decoder."""

    kind: str
    block: int
    size: int


def linear_parameters(model: DeepSSM, mixing: bool) -> list[Part]:
    """The parameters that may change."""
    systems = [Part("system", k, n_weights(block.ssm)) for k, block in enumerate(model.blocks)]
    if not mixing:
        return systems
    maps = [Part("mixing", k, _size(block.mixing)) for k, block in enumerate(model.blocks) if block.mixing is not None]
    return [*systems, Part("decoder", -1, _size(ends(model)[1])), *maps]


def _size(mapping: Linear) -> int:
    return (mapping.n_outputs - mapping.fixed) * (mapping.n_inputs + 1)


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
    by_weights: list[Callable[[np.ndarray], Gradient]] = []
    for u in pieces:
        if not maps:
            maps = [system_map(block.ssm, u.shape[1]) for block in model.blocks]
            by_weights = [output_gradients(block.ssm, u.shape[1], feedthrough) for block in model.blocks]
        x, passed = pass_model(model, u, maps, np.float32)
        by_system = [of_inputs(kept.read) for of_inputs, kept in zip(by_weights, passed, strict=True)]
        by_map = {k: _gradient_by_map(kept) for k, kept in enumerate(passed) if ("mixing", k) in arrays}
        read = _with_one(pooled(model, x)[..., 0].T, ends(model)[1])
        for d, direction in enumerate(directions):
            here = slice(row + d, row + len(u) * count, count)
            if ("decoder", -1) in arrays:
                arrays["decoder", -1][here] = (direction[:, np.newaxis] * read[:, np.newaxis]).reshape(len(u), -1)
            g = decode_backward(model, x, np.tile(direction, (len(u), 1)), np.float32)
            for k in reversed(range(len(passed))):
                g, own, mixed = passed[k].backward(g)
                arrays["system", k][here] = by_system[k](own)
                if k in by_map:
                    arrays["mixing", k][here] = by_map[k](mixed)
        row += len(u) * count
        progress(row // count)


def _gradient_by_map(kept: Passed) -> Gradient:
    """The gradients by a mixing map, (batch, size), as a function of those by its outputs."""
    mapping = kept.block.mixing
    assert mapping is not None  # by `linear_parameters`
    fixed, tokens = mapping.fixed, _with_one(kept.active.transpose(1, 2, 0), mapping).astype(np.float32)
    return lambda mixed: np.matmul(mixed[fixed:].transpose(1, 0, 2), tokens).reshape(len(tokens), -1)


def _with_one(features: np.ndarray, mapping: Linear) -> np.ndarray:
    """Features along the last axis, and one for the bias; zero where the map has none."""
    one = np.full((*features.shape[:-1], 1), 0.0 if mapping.bias is None else 1.0)
    return np.concatenate([features, one], axis=-1)


def with_changes(model: DeepSSM, parts: list[Part], changes: list[np.ndarray], steps: int) -> DeepSSM:
    """The model with its parameters changed, in the units of `differentiate` for sequences of so many steps."""
    blocks, decoder = list(model.blocks), ends(model)[1]
    for part, change in zip(parts, changes, strict=True):
        if part.kind == "decoder":
            decoder = _added(decoder, change)
        elif part.kind == "mixing":
            blocks[part.block] = replace(blocks[part.block], mixing=_added(blocks[part.block].mixing, change))
        else:
            blocks[part.block] = replace(blocks[part.block], ssm=with_changed_weights(blocks[part.block].ssm, change, steps))
    return replace(model, blocks=tuple(blocks), decoder=decoder)


def _added(mapping: Linear | None, change: np.ndarray) -> Linear:
    assert mapping is not None  # by `linear_parameters`
    change = np.pad(change.reshape(-1, mapping.n_inputs + 1), ((mapping.fixed, 0), (0, 0)))
    bias = None if mapping.bias is None else mapping.bias + change[:, -1]
    return replace(mapping, weight=mapping.weight + change[:, :-1], bias=bias)
