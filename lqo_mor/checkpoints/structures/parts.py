"""Parts of models from tensors, shared by the structures."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import TypeAlias

from lqo_mor.checkpoints.tensors import Shapes, Tensors, check_tensors
from lqo_mor.errors import CheckpointError
from lqo_mor.network.layers import BatchNorm, Embedding, LayerNorm, Linear

ACTIVATIONS = ("gelu", "relu", "identity")
Part: TypeAlias = Linear | Embedding | LayerNorm | BatchNorm | None


def numbered(pattern: str, layers: Collection[str]) -> list[re.Match[str]] | None:
    """The matches of the prefixes of all layers, whose group "n" counts 0, 1, 2, ...; None where a layer stands elsewhere."""
    matches = [match for match in (re.fullmatch(pattern, prefix) for prefix in layers) if match is not None]
    in_order = len(matches) == len(layers) and [int(match["n"]) for match in matches] == list(range(len(layers)))
    return matches if in_order else None


def sub_state(state: Tensors, prefix: str) -> Tensors:
    """The tensors under a prefix, by the rest of their keys."""
    return {key[len(prefix) + 1 :]: value for key, value in state.items() if key.startswith(prefix + ".")}


def linear(state: Tensors, key: str) -> Linear:
    """A `Linear` or `Conv1d` of kernel size 1: weight (out, in) or (out, in, 1), and a bias (out,) or (out, 1), or none."""
    tensors = {name: state[name] for name in (f"{key}.weight", f"{key}.bias") if name in state}
    extra = {name: (1,) * (value.ndim - wanted) for (name, value), wanted in zip(tensors.items(), (2, 1), strict=False)}
    rows = tensors[f"{key}.weight"].shape[0] if tensors[f"{key}.weight"].ndim else None
    check_tensors(tensors, {name: ((None, None) if name.endswith("weight") else (rows,)) + extra[name] for name in tensors})
    weight, bias = tensors[f"{key}.weight"], tensors.get(f"{key}.bias")
    return Linear(weight.reshape(weight.shape[:2]), None if bias is None else bias.ravel())


def tensors_of(places: Mapping[str, Part], state: Tensors) -> Tensors:
    """The inverse of `linear`, `encoder` and `norm`: weights and biases by their keys, in the shapes of `state`.

    A `BatchNorm` has none: its statistics are not known any more.
    """
    tensors: Tensors = {}
    for key, part in places.items():
        values = {} if part is None or isinstance(part, BatchNorm) else vars(part)
        tensors |= {f"{key}.{name}": values[name] for name in ("weight", "bias") if values.get(name) is not None}
    return {key: value.reshape(state[key].shape) for key, value in tensors.items()}


def encoder(state: Tensors, key: str, width: int) -> Linear | Embedding:
    """A `Linear`, or an embedding, which has no bias and rows of the width of the model."""
    weight = state[f"{key}.weight"]
    if f"{key}.bias" in state or (weight.ndim == 2 and weight.shape[1] != width):
        return linear(state, key)
    check_tensors({key: weight}, {key: (None, None)})
    return Embedding(weight)


def norm(state: Tensors, key: str, width: int, eps: float = 1e-5) -> LayerNorm | BatchNorm:
    """A `LayerNorm`, or a `BatchNorm1d` where there are running statistics; both may lack weight and bias."""
    tensors = sub_state(state, key)
    tensors.pop("num_batches_tracked", None)
    shapes: Shapes = {name: (width,) for name in tensors if name in ("weight", "bias", "running_mean", "running_var")}
    if ("running_mean" in shapes) != ("running_var" in shapes) or ("weight" in shapes) != ("bias" in shapes):
        raise CheckpointError(f"{key} has one of two tensors that belong together; found {', '.join(tensors)}")
    check_tensors({f"{key}.{name}": value for name, value in tensors.items()}, {f"{key}.{name}": s for name, s in shapes.items()})
    if "running_mean" in tensors:
        statistics = tensors["running_mean"], tensors["running_var"]
        return BatchNorm.from_statistics(*statistics, tensors.get("weight"), tensors.get("bias"), eps)
    return LayerNorm(tensors["weight"], tensors["bias"], eps)


def is_norm(names: set[str]) -> bool:
    """Whether these are the names in a normalisation that `norm` reads."""
    return names in (
        {"weight", "bias"},
        {"weight", "bias", "running_mean", "running_var", "num_batches_tracked"},
        {"running_mean", "running_var", "num_batches_tracked"},
    )
