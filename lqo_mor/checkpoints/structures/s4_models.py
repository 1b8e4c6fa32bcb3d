"""Models of the repository state-spaces/s4 and its relatives: S4, S4D or DSS layers with a map of tokens and a normalisation.

The example script, ``encoder``, ``s4_layers.N``, ``norms.N``, ``decoder``, and the framework (PyTorch Lightning), ``encoder.0``,
``model.layers.N.layer``, ``model.layers.N.norm.norm``, ``model.norm.norm``, ``decoder.0.output_transform``. A block is
``x + GLU(W gelu(ssm(x)))`` with the normalisation before or after it; without the gate where the map has as many outputs as
features.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from functools import partial
from typing import cast

from lqo_mor.checkpoints.contracts import Layer, Structure
from lqo_mor.checkpoints.settings import Settings
from lqo_mor.checkpoints.structures import parts
from lqo_mor.checkpoints.tensors import Shapes, Tensors, Values, check_tensors, layer_count
from lqo_mor.errors import CheckpointError
from lqo_mor.network.blocks import Block
from lqo_mor.network.model import POOLINGS, DeepSSM

_MAP = ("output_linear.0", "output_linear")
_ENDS = ("encoder.weight", "decoder.weight")


@dataclass(frozen=True)
class _Layout:
    """Where things are."""

    block: str  # pattern of the prefix of the module that holds a layer and its map
    norm: str  # of its normalisation, with the number of the block
    encoder: str
    decoder: str
    final_norm: str | None


_EXAMPLE = _Layout(r"s4_layers\.(?P<n>\d+)", "norms.{}", "encoder", "decoder", None)
_FRAMEWORK = _Layout(
    r"model\.layers\.(?P<n>\d+)\.layer", "model.layers.{}.norm.norm", "encoder.0", "decoder.0.output_transform", "model.norm.norm"
)


def _mixing_key(layout: _Layout, prefix: str, keys: Collection[str]) -> str | None:
    """The key of the map of tokens behind a layer, in the module that holds both."""
    module = cast("re.Match[str]", re.match(layout.block, prefix))[0]
    return next((f"{module}.{name}" for name in _MAP if f"{module}.{name}.weight" in keys), None)


def _recognises(layout: _Layout, keys: Collection[str], layers: Collection[str]) -> bool:
    if parts.numbered(rf"{layout.block}(\.layer)?", layers) is None:  # S4 version 4 puts the system one level deeper
        return False
    left = {key for key in keys if not any(key == f"{prefix}.D" or key.startswith(f"{prefix}.kernel.") for prefix in layers)}
    for norm in [*map(layout.norm.format, range(len(layers))), layout.final_norm]:
        names = {key.removeprefix(f"{norm}.") for key in left if key.startswith(f"{norm}.")}
        if names and not parts.is_norm(names):
            return False
        left -= {f"{norm}.{name}" for name in names}
    for key in [*(_mixing_key(layout, prefix, keys) for prefix in layers), layout.encoder, layout.decoder]:
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
    return _model(layout, state, layers, prenorm, activation, pooling)


def _model(
    layout: _Layout, state: Tensors, layers: dict[str, Layer], prenorm: bool, activation: str, pooling: str | None
) -> DeepSSM:
    blocks = []
    for number, (prefix, layer) in enumerate(layers.items()):
        mixing, width = parts.linear(state, str(_mixing_key(layout, prefix, state))), layer.ssm.batch[0]
        gate, place = "glu" if mixing.n_outputs == 2 * width else None, layout.norm.format(number)
        norm = parts.norm(state, place, width) if any(key.startswith(f"{place}.") for key in state) else None
        blocks.append(Block(prefix, layer.ssm, mixing, norm, prenorm, activation, gate, backward=layer.backward))
    has_final = f"{layout.final_norm}.weight" in state
    final = parts.norm(state, str(layout.final_norm), blocks[-1].n_outputs) if has_final else None
    encoder, decoder = parts.encoder(state, layout.encoder, blocks[0].width), parts.linear(state, layout.decoder)
    return DeepSSM(encoder, tuple(blocks), decoder, final, pooling)


def _write(layout: _Layout, model: DeepSSM, state: Tensors) -> Tensors:
    places: dict[str, parts.Part] = {layout.encoder: model.encoder, layout.decoder: model.decoder}
    for number, block in enumerate(model.blocks):
        places |= {str(_mixing_key(layout, block.name, state)): block.mixing, layout.norm.format(number): block.norm}
    return parts.tensors_of(places | {str(layout.final_norm): model.norm}, state)


def _structure(name: str, layout: _Layout) -> Structure:
    return Structure(
        name=name,
        recognises=partial(_recognises, layout),
        read=lambda state, extras, layers, settings: _read(layout, state, layers, settings),
        write=partial(_write, layout),
    )


S4_EXAMPLE = _structure("the example model of state-spaces/s4", _EXAMPLE)
S4_FRAMEWORK = _structure("a model of the framework of state-spaces/s4", _FRAMEWORK)


def example_model(
    recognises: Callable[[Collection[str], Collection[str]], bool],
    layer_shapes: Callable[[Tensors, int | None], Shapes],
    prenorm: Callable[[Values, Settings], bool],
    integers: Collection[str] = (),
    empty: Collection[str] = (),
) -> Structure:
    """The example script's model and nothing else, for a family of its own: gated, with all biases, and the mean over time.

    ``layer_shapes(tensors, width)`` gives the expected shapes of a layer by the names in it; other sizes than the width are
    those of its tensors. ``prenorm(extras, settings)`` says whether the normalisations stand before the layers. Tensors named in
    `integers` hold integers, and those in `empty` may have no entries.
    """

    def check(state: Tensors, extras: Values, settings: Settings) -> None:
        prenorm(extras, settings)
        layers = [f"s4_layers.{i}" for i in range(layer_count(state, "s4_layers"))]
        keys = ([f"{layer}.{name}" for layer in layers for name in names] for names in (integers, empty))
        check_tensors(state, _example_shapes(state, layers, layer_shapes), *keys)

    return replace(
        S4_EXAMPLE,
        recognises=recognises,
        read=lambda state, extras, layers, settings: _model(_EXAMPLE, state, layers, prenorm(extras, settings), "gelu", "mean"),
        check=check,
    )


def _example_shapes(state: Tensors, layers: list[str], layer_shapes: Callable[[Tensors, int | None], Shapes]) -> Shapes:
    """The expected shape of every key of the example, with the sizes taken from the encoder, the decoder and the layers."""
    encoder, decoder = (None if value is None or value.ndim != 2 else value.shape[0] for value in map(state.get, _ENDS))
    width, double = encoder, None if encoder is None else 2 * encoder
    shapes: Shapes = {"encoder.weight": (None, None), "encoder.bias": (width,)}
    for i, layer in enumerate(layers):
        inside = layer_shapes(parts.sub_state(state, layer), width)
        shapes |= {f"{layer}.{name}": shape for name, shape in inside.items()}
        shapes |= {f"{layer}.output_linear.0.weight": (double, width, 1), f"{layer}.output_linear.0.bias": (double,)}
        shapes |= {f"norms.{i}.weight": (width,), f"norms.{i}.bias": (width,)}
    return shapes | {"decoder.weight": (decoder, width), "decoder.bias": (decoder,)}
