"""The deep LRU of the lru-reduction repository: pre-norm blocks of LayerNorm, LRU and a gated linear map, one output per step.

``encoder``, ``blocks.N.{ln, lru, ff.output_linear.0}``, ``decoder``; a block is ``x + GLU(W gelu(lru(LN(x))))``. The variant
whose map is a small network (``ff.c_fc``, ``ff.c_proj``) is not understood as a whole.
"""

from __future__ import annotations

from collections.abc import Collection

from lqo_mor.checkpoints.contracts import Layer, Structure
from lqo_mor.checkpoints.settings import Settings
from lqo_mor.checkpoints.structures import parts
from lqo_mor.checkpoints.tensors import Tensors, Values
from lqo_mor.network.blocks import Block
from lqo_mor.network.model import DeepSSM


def _recognises(keys: Collection[str], layers: Collection[str]) -> bool:
    if parts.numbered(r"blocks\.(?P<n>\d+)\.lru", layers) is None:
        return False
    modules = ["encoder", "decoder", *(module for prefix in layers for module in _places(prefix))]
    outside = {key for key in keys if not any(key.startswith(f"{prefix}.") for prefix in layers)}
    return outside == {f"{module}.{part}" for module in modules for part in ("weight", "bias")}


def _places(prefix: str) -> tuple[str, str]:
    """The keys of the map and of the normalisation of the block with that layer."""
    module = prefix.removesuffix(".lru")
    return f"{module}.ff.output_linear.0", f"{module}.ln"


def _read(state: Tensors, extras: Values, layers: dict[str, Layer], settings: Settings) -> DeepSSM:
    blocks = []
    for prefix, layer in layers.items():
        mixing, norm = _places(prefix)
        maps = parts.linear(state, mixing), parts.norm(state, norm, layer.ssm.n_inputs)
        blocks.append(Block(prefix, layer.ssm, *maps, prenorm=True, activation="gelu", gate="glu"))
    return DeepSSM(parts.linear(state, "encoder"), tuple(blocks), parts.linear(state, "decoder"), None, None)


def _write(model: DeepSSM, state: Tensors) -> Tensors:
    places: dict[str, parts.Part] = {"encoder": model.encoder, "decoder": model.decoder}
    for block in model.blocks:
        places |= dict(zip(_places(block.name), (block.mixing, block.norm), strict=True))
    return parts.tensors_of(places, state)


DLRU = Structure("a deep LRU of the lru-reduction repository", _recognises, _read, _write)
