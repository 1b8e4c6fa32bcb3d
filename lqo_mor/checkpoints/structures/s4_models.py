"""Models of the repository state-spaces/s4 and its relatives: S4, S4D or DSS layers with a map of tokens and a normalisation.

The example script, ``encoder``, ``s4_layers.N``, ``norms.N``, ``decoder``, and the framework (PyTorch Lightning), ``encoder.0``,
``model.layers.N.layer``, ``model.layers.N.norm.norm``, ``model.norm.norm``, ``decoder.0.output_transform``. A block is
``x + GLU(W gelu(ssm(x)))`` with the normalisation before or after it; without the gate where the map has as many outputs as
features.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import cast

from lqo_mor.checkpoints.contracts import Layer, Structure
from lqo_mor.checkpoints.settings import Settings
from lqo_mor.checkpoints.structures import parts
from lqo_mor.checkpoints.tensors import Tensors
from lqo_mor.errors import CheckpointError
from lqo_mor.network.blocks import Block
from lqo_mor.network.layers import Linear
from lqo_mor.network.model import POOLINGS, DeepSSM

_MAP = ("output_linear.0", "output_linear")


@dataclass(frozen=True)
class _Layout:
    """Where things are."""

    block: str  # pattern of the prefix of the module that holds a layer and its map
    norm: str  # of its normalisation, with the number of the block
    encoder: str
    decoder: str
    final_norm: str | None


_EXAMPLE = _Layout(r"s4_layers\.(\d+)", "norms.{}", "encoder", "decoder", None)
_FRAMEWORK = _Layout(
    r"model\.layers\.(\d+)\.layer", "model.layers.{}.norm.norm", "encoder.0", "decoder.0.output_transform", "model.norm.norm"
)


def _module(layout: _Layout, prefix: str) -> tuple[str, int] | None:
    """The module that holds a layer, and its number; None where the layer stands elsewhere."""
    match = re.fullmatch(rf"({layout.block})(\.layer)?", prefix)  # S4 version 4 puts the system one level deeper
    return None if match is None else (match[1], int(match[2]))


def _map_of(module: str, state: Tensors) -> str | None:
    """The key of the map of tokens in a module."""
    return next((f"{module}.{name}" for name in _MAP if f"{module}.{name}.weight" in state), None)


def _recognises(layout: _Layout, state: Tensors, layers: Collection[str]) -> bool:
    modules = [module for module in (_module(layout, prefix) for prefix in layers) if module is not None]
    if [number for _, number in modules] != list(range(len(layers))):
        return False
    left = {key for key in state if not any(key == f"{prefix}.D" or key.startswith(f"{prefix}.kernel.") for prefix in layers)}
    for norm in [layout.norm.format(number) for _, number in modules] + [layout.final_norm]:
        names = {key.removeprefix(f"{norm}.") for key in left if key.startswith(f"{norm}.")}
        if names and not parts.is_norm(names):
            return False
        left -= {f"{norm}.{name}" for name in names}
    for key in [_map_of(module, state) for module, _ in modules] + [layout.encoder, layout.decoder]:
        if f"{key}.weight" not in left:
            return False
        left -= {f"{key}.weight", f"{key}.bias"}
    return not left


def _read(layout: _Layout, state: Tensors, layers: dict[str, Layer], settings: Settings) -> DeepSSM:
    has_final = f"{layout.final_norm}.weight" in state
    prenorm = settings.flag("prenorm", has_final)
    activation = settings.choice("activation", parts.ACTIVATIONS, "gelu")
    pooling = settings.choice("pooling", POOLINGS, "mean")
    if has_final and not prenorm:
        raise CheckpointError(f"{layout.final_norm} is there, which only a pre-norm model has, but prenorm is false")
    blocks = []
    for number, (prefix, layer) in enumerate(layers.items()):
        mixing, width = parts.linear(state, _mixing_key(layout, prefix, state)), layer.ssm.batch[0]
        gate, place = "glu" if mixing.n_outputs == 2 * width else None, layout.norm.format(number)
        norm = parts.norm(state, place, width) if any(key.startswith(f"{place}.") for key in state) else None
        blocks.append(Block(prefix, layer.ssm, mixing, norm, prenorm, activation, gate, backward=layer.backward))
    final = parts.norm(state, str(layout.final_norm), blocks[-1].n_outputs) if has_final else None
    return DeepSSM(
        parts.encoder(state, layout.encoder, blocks[0].width),
        tuple(blocks),
        parts.linear(state, layout.decoder),
        final,
        pooling,
    )


def _mixing_tensors(layout: _Layout, block: Block, state: Tensors) -> Tensors:
    return parts.linear_tensors(cast(Linear, block.mixing), state, _mixing_key(layout, block.name, state))


def _mixing_key(layout: _Layout, prefix: str, state: Tensors) -> str:
    """The key of the map of tokens behind a layer of a model that is recognised."""
    module, _ = cast("tuple[str, int]", _module(layout, prefix))
    return cast(str, _map_of(module, state))


def _structure(name: str, layout: _Layout) -> Structure:
    return Structure(
        name=name,
        recognises=lambda state, layers: _recognises(layout, state, layers),
        read=lambda state, layers, settings: _read(layout, state, layers, settings),
        mixing_tensors=lambda block, state: _mixing_tensors(layout, block, state),
        decoder_tensors=lambda decoder, state: parts.linear_tensors(decoder, state, layout.decoder),
    )


S4_EXAMPLE = _structure("the example model of state-spaces/s4", _EXAMPLE)
S4_FRAMEWORK = _structure("a model of the framework of state-spaces/s4", _FRAMEWORK)
