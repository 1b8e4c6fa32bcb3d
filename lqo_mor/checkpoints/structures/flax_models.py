"""Classification models of the S5 and minimal-LRU repositories (Flax).

``encoder.encoder``, then ``encoder.layers_N`` with the system ``seq``, a normalisation ``norm`` or ``normalization`` and dense
maps ``out1``, ``out2``, and ``decoder``; under ``params`` where the statistics of batch normalisation (``batch_stats``) are there
too. Dense kernels are (in, out), the GELU is the tanh approximation, LayerNorm has eps = 1e-6 and BatchNorm 1e-5. The original
models end in a logarithm of a softmax; here the outputs are the logits.

With both maps the gate is ``out1(x) σ(out2(x))`` of ``x = gelu(y)``; with `out2` alone the setting `activation` says whether it
is ``x σ(out2(x))`` ("half_glu1") or ``y σ(out2(x))`` ("half_glu2": then only the systems are known).
"""

from __future__ import annotations

from collections.abc import Collection
from typing import cast

import numpy as np

from lqo_mor.checkpoints.contracts import Layer, Structure
from lqo_mor.checkpoints.settings import Settings
from lqo_mor.checkpoints.structures.parts import numbered, sub_state
from lqo_mor.checkpoints.tensors import Tensors, Values, check_tensors
from lqo_mor.errors import CheckpointError
from lqo_mor.network.blocks import Block
from lqo_mor.network.layers import BatchNorm, LayerNorm, Linear
from lqo_mor.network.model import POOLINGS, DeepSSM

_NORMS = ("norm", "normalization")


def _root(layers: Collection[str]) -> str | None:
    """What stands before ``encoder.layers_N.seq``; None where a layer stands elsewhere or a number is missing."""
    matches = numbered(r"(|params\.)encoder\.layers_(?P<n>\d+)\.seq", layers)
    return None if matches is None else matches[0][1]


def _norm_key(keys: Collection[str], layer: str) -> str | None:
    return next((f"{layer}.{name}" for name in _NORMS if f"{layer}.{name}.scale" in keys), None)


def _statistics(layer: str) -> str:
    return f"batch_stats.{layer.removeprefix('params.')}"


def _recognises(keys: Collection[str], layers: Collection[str]) -> bool:
    root = _root(layers)
    if root is None:
        return False
    expected = {f"{root}{name}.{part}" for name in ("encoder.encoder", "decoder") for part in ("kernel", "bias")}
    optional = set()
    for prefix in layers:
        layer = prefix.removesuffix(".seq")
        expected.add(f"{_norm_key(keys, layer)}.scale")
        optional |= {f"{_norm_key(keys, layer)}.bias"}
        optional |= {f"{layer}.{name}.{part}" for name in ("out1", "out2") for part in ("kernel", "bias")}
        optional |= {f"{_statistics(layer)}.{name}.{part}" for name in _NORMS for part in ("mean", "var")}
    outside = {key for key in keys if not any(key.startswith(f"{prefix}.") for prefix in layers)}
    return expected <= outside <= expected | optional


def _dense(state: Tensors, key: str) -> Linear:
    tensors = {name: value for name, value in sub_state(state, key).items() if name in ("kernel", "bias")}
    kernel = tensors.get("kernel")
    check_tensors(tensors, {"kernel": (None, None), "bias": (kernel.shape[-1] if kernel is not None and kernel.ndim else None,)})
    return Linear(tensors["kernel"].T, tensors["bias"])


def _norm(state: Tensors, layer: str, width: int) -> LayerNorm | BatchNorm:
    key = cast(str, _norm_key(state, layer))
    statistics = _statistics(layer) + key.removeprefix(layer)
    tensors = {name: state[name] for name in (f"{key}.scale", f"{key}.bias")}
    tensors |= {name: state[name] for name in (f"{statistics}.mean", f"{statistics}.var") if name in state}
    check_tensors(tensors, dict.fromkeys(tensors, (width,)))
    if f"{statistics}.mean" in tensors and f"{statistics}.var" in tensors:
        return BatchNorm.from_statistics(
            tensors[f"{statistics}.mean"], tensors[f"{statistics}.var"], tensors[f"{key}.scale"], tensors[f"{key}.bias"]
        )
    return LayerNorm(tensors[f"{key}.scale"], tensors[f"{key}.bias"], eps=1e-6)


def _read(state: Tensors, extras: Values, layers: dict[str, Layer], settings: Settings) -> DeepSSM | None:
    root, blocks = _root(layers), []
    prenorm = settings.flag("prenorm", True)
    pooling = settings.choice("pooling", POOLINGS, "mean")
    for prefix, found in layers.items():
        layer = prefix.removesuffix(".seq")
        width, mixing = found.ssm.n_outputs if found.backward is None else found.ssm.n_outputs // 2, None
        if f"{layer}.out2.kernel" in state:
            gate = _dense(state, f"{layer}.out2")
            if f"{layer}.out1.kernel" in state:
                value = _dense(state, f"{layer}.out1")
            elif settings.choice("activation", ("half_glu1", "half_glu2"), "half_glu1") == "half_glu2":
                return None
            else:
                value = Linear(np.eye(width), np.zeros(width), fixed=width)
            weight, bias = np.concatenate([value.weight, gate.weight]), np.concatenate([value.bias, gate.bias])
            mixing = Linear(weight, bias, value.fixed)
        norm, gated = _norm(state, layer, width), None if mixing is None else "glu"
        blocks.append(Block(prefix, found.ssm, mixing, norm, prenorm, "gelu_tanh", gated, backward=found.backward))
    return DeepSSM(_dense(state, f"{root}encoder.encoder"), tuple(blocks), _dense(state, f"{root}decoder"), None, pooling)


def _write(model: DeepSSM, state: Tensors) -> Tensors:
    root = _root([block.name for block in model.blocks])
    tensors: Tensors = {}
    for key, part in ((f"{root}encoder.encoder", model.encoder), (f"{root}decoder", model.decoder)):
        tensors |= {f"{key}.kernel": cast(Linear, part).weight.T, f"{key}.bias": cast(np.ndarray, cast(Linear, part).bias)}
    for block in model.blocks:
        if isinstance(block.norm, LayerNorm):
            key = cast(str, _norm_key(state, block.name.removesuffix(".seq")))
            tensors |= {f"{key}.scale": block.norm.weight, f"{key}.bias": block.norm.bias}
        if block.mixing is not None:
            tensors |= _mixing_tensors(block.name, block.mixing, state)
    return tensors


def _mixing_tensors(prefix: str, mixing: Linear, state: Tensors) -> Tensors:
    layer, half, bias = prefix.removesuffix(".seq"), mixing.n_outputs // 2, cast(np.ndarray, mixing.bias)
    if f"{layer}.out1.kernel" not in state and (np.any(mixing.weight[:half] != np.eye(half)) or np.any(bias[:half])):
        raise CheckpointError(f"{prefix}: the gate of this class multiplies its input itself, so that half of mixing must stay")
    tensors: Tensors = {}
    for name, rows in (("out1", slice(0, half)), ("out2", slice(half, None))):
        tensors |= {f"{layer}.{name}.kernel": mixing.weight[rows].T, f"{layer}.{name}.bias": bias[rows]}
    return {key: value for key, value in tensors.items() if key in state}


FLAX_MODELS = Structure("a classification model of the S5 or minimal-LRU repository", _recognises, _read, _write)
