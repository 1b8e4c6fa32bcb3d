"""Models made of the layers of a family: recognised by the layers, and understood as a whole where the structure is known.

Where it is not, the systems of the layers can still be reduced, and everything else in the file stays as it is.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np

from lqo_mor.checkpoints.contracts import Family, Layer, Original, Structure
from lqo_mor.checkpoints.families.registry import IN_ANY_MODEL
from lqo_mor.checkpoints.settings import Settings
from lqo_mor.checkpoints.structures.registry import STRUCTURES
from lqo_mor.checkpoints.tensors import Tensors, Values, listing, parameter_count, rounded
from lqo_mor.errors import CheckpointError, InvalidInputError, LQOWarning, warn
from lqo_mor.files import memory_bound
from lqo_mor.network.blocks import Block
from lqo_mor.network.layers import BatchNorm
from lqo_mor.network.model import DeepSSM, real_numbers
from lqo_mor.systems.diagonal import DiagonalLQOSystem

_RESTRUCTURED = "the structure of the model was changed; the format stores only changed numbers and sizes"


def find_layers(family: Family, keys: Iterable[str]) -> dict[str, set[str]]:
    """The prefixes of the layers of a family, in the order of the model, and which of its names each has."""
    keys = set(keys)
    prefixes = {
        key.removesuffix(name).removesuffix(".") for key in keys for name in family.markers if f".{key}".endswith(f".{name}")
    }
    layers = {prefix: {name for name in family.names if local_key(prefix, name) in keys} for prefix in prefixes}
    found = {prefix: names for prefix, names in layers.items() if family.recognises(names)}
    return dict(sorted(found.items(), key=lambda item: _natural(item[0])))


def local_key(prefix: str, name: str) -> str:
    """The bare key of a tensor of a layer."""
    return f"{prefix}.{name}" if prefix else name


def _natural(text: str) -> list[tuple[int, str]]:
    """Sorts ``layers.10`` after ``layers.9``, whatever the number of digits."""
    numbers = [part.lstrip("0") if i % 2 else part for i, part in enumerate(re.split("([0-9]+)", text))]
    return [(len(part) if i % 2 else -1, part) for i, part in enumerate(numbers)]


def _label(prefix: str) -> str:
    """The name of a layer for people; a file may hold a single one without a prefix."""
    return prefix or "layer"


def local_tensors(family: Family, prefix: str, names: set[str], state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The tensors of a layer by their names in it."""
    return {name: state[local_key(prefix, name)] for name in family.names if name in names}


def _layers_of(family: Family, state: Tensors, settings: Settings) -> dict[str, Layer]:
    layers, left = {}, memory_bound(sum(value.nbytes for value in state.values()), 2**30)
    for prefix, names in find_layers(family, state).items():
        label = _label(prefix)
        try:
            layers[prefix] = family.read(label, local_tensors(family, prefix, names, state), settings)
        except CheckpointError as err:
            raise CheckpointError(str(err) if label in str(err) else f"{label}: {err}") from None
        left -= layers[prefix].ssm.D.nbytes + layers[prefix].ssm.C.nbytes  # the arrays that a file can hold by their diagonals
        if left < 0:
            raise CheckpointError(f"the systems of its layers up to {label} take more memory than the size of the file explains")
    if not layers:
        raise CheckpointError(f"has no layers of the format {family.name}; expected {family.looks_like}")
    return layers


def recognises(family: Family, keys: Collection[str]) -> bool:
    """Whether a file with these bare keys has layers of a family, in the structure that they need."""
    layers = find_layers(family, keys)
    return bool(layers) if family.structure is None else family.structure.recognises(keys, layers)


def read(family: Family, state: Tensors, extras: Values, settings: Settings) -> DeepSSM:
    """The model in a file with layers of a family, or only its systems."""
    if family.structure is not None and family.structure.check is not None:
        family.structure.check(state, extras, settings)
    layers = _layers_of(family, state, settings)
    structure = structure_of(family, state)
    if family.structure is None:
        _warn_of_others(family, state)
    model = None if structure is None else structure.read(state, extras, layers, settings)
    if model is not None:
        return model
    return DeepSSM(None, tuple(alone(prefix, layer) for prefix, layer in layers.items()), None)


def _warn_of_others(family: Family, state: Tensors) -> None:
    outside = outside_of(family, state)
    others = {other.name: find_layers(other, outside) for other in IN_ANY_MODEL if other is not family}
    left = [f"{_label(prefix)} ({name})" for name, prefixes in others.items() for prefix in prefixes]
    if left:
        warn(f"layers of another format than {family.name} are left as they are: {listing(left)}; format= picks one", LQOWarning)


def alone(prefix: str, layer: Layer) -> Block:
    """A block of which nothing but the system is known."""
    return Block(_label(prefix), layer.ssm, activation="identity", residual=False, backward=layer.backward)


def outside_of(family: Family, state: Tensors) -> Tensors:
    """The tensors that are not in layers of the family."""
    inside = {local_key(prefix, name) for prefix, names in find_layers(family, state).items() for name in names}
    return {key: value for key, value in state.items() if key not in inside}


def structure_of(family: Family, state: Tensors) -> Structure | None:
    """The structure around the layers of a file, where it is known."""
    if family.structure is not None:
        return family.structure
    layers, outside = tuple(find_layers(family, state)), outside_of(family, state)
    return next((structure for structure in STRUCTURES if structure.recognises(outside, layers)), None)


def _tensors(family: Family, model: DeepSSM, original: Original) -> list[dict[str, np.ndarray]]:
    """The tensors of every layer by their bare keys, rounded to the precision of the file.

    Layers that were not changed keep theirs, unless others get tensors of other shapes, for instance one row of poles for each
    head instead of a shared one: classes with one size for all layers take one shape only.
    """
    if [block.name for block in original.model.blocks] != [block.name for block in model.blocks]:
        raise CheckpointError(_RESTRUCTURED)
    found = find_layers(family, original.state)
    layers, kept = {}, {}
    for (prefix, names), block, before in zip(found.items(), model.blocks, original.model.blocks, strict=True):
        tensors, ssm, old = local_tensors(family, prefix, names, original.state), block.ssm, before.ssm
        # It is written again where its tensors hold more numbers than its system needs.
        if ssm is old and (family.parameters is None or family.parameters(ssm) == sum(value.size for value in tensors.values())):
            layers[prefix] = {local_key(prefix, name): value for name, value in tensors.items()}
            kept[prefix] = ssm, tensors
            continue
        if (old.batch, old.n_inputs, old.n_outputs) != (ssm.batch, ssm.n_inputs, ssm.n_outputs):
            raise CheckpointError(f"{block.name}: the numbers of channels, inputs or outputs were changed; {_RESTRUCTURED}")
        layers[prefix] = stored_tensors(family, prefix, ssm, tensors, original.settings)
    shapes = [_shapes(prefix, new) for prefix, new in layers.items() if prefix not in kept]
    if family.same_size and family.structure is None and shapes:  # with a structure of their own they differ in size only
        for prefix, (ssm, tensors) in kept.items():
            if _shapes(prefix, layers[prefix]) not in shapes:
                layers[prefix] = stored_tensors(family, prefix, ssm, tensors, original.settings)
    return list(layers.values())


def _shapes(prefix: str, tensors: dict[str, np.ndarray]) -> dict[str, tuple[int, ...]]:
    return {key.removeprefix(prefix): value.shape for key, value in tensors.items()}


def stored_tensors(
    family: Family, prefix: str, ssm: DiagonalLQOSystem, tensors: dict[str, np.ndarray], settings: Values
) -> dict[str, np.ndarray]:
    """The tensors of a reduced layer by their bare keys, in the precision of those that it had."""
    new, real = family.write(_label(prefix), ssm, tensors, settings), layer_precision(tensors)
    return {
        local_key(prefix, name): rounded(local_key(prefix, name), value, _dtype(tensors.get(name), value, real))
        for name, value in new.items()
    }


def layer_precision(tensors: dict[str, np.ndarray]) -> np.dtype:
    """The real number type of a layer."""
    return next(value.real.dtype for value in tensors.values() if value.dtype.kind in "fc")


def _dtype(old: np.ndarray | None, value: np.ndarray, real: np.dtype) -> np.dtype:
    """The number type of a tensor: that of the one it replaces, or the precision of the layer; integers have their own."""
    kind = np.asarray(value).dtype
    if kind.kind not in "fc":
        return kind
    if old is not None:
        return old.dtype
    return np.result_type(real, np.complex64) if kind.kind == "c" else real


def write(family: Family, model: DeepSSM, original: Original) -> tuple[Tensors, Values]:
    """The tensors of a changed model, and the entries beside them, as like those of the file as they can be."""
    structure = structure_of(family, original.state) if original.model.runs else None
    layers = _tensors(family, model, original)
    _check_outer(model, original.model, structure)
    outer = {} if structure is None else structure.write(model, original.state)
    state = {key: rounded(key, value, original.state[key].dtype) for key, value in outer.items()}
    for tensors in layers:
        state |= tensors
    if structure is not None and structure.finish is not None:
        return structure.finish(model, state, original)
    state = outside_of(family, original.state) | state
    # In the order of the file, new names last.
    return {key: state[key] for key in original.state if key in state} | state, original.extras


def _check_outer(model: DeepSSM, old: DeepSSM, structure: Structure | None) -> None:
    """Raise where a part around the systems was changed to what the file cannot hold."""

    def arrangement(model: DeepSSM) -> list[Any]:
        names = ("prenorm", "activation", "gate", "residual", "backward")
        return [model.pooling, *(getattr(block, name) for block in model.blocks for name in names)]

    def outline(part: Any) -> tuple[type, dict[str, tuple[int, ...]]]:
        return type(part), {} if part is None else {name: np.shape(value) for name, value in vars(part).items()}

    parts, before = _parts(model), _parts(old)
    changed = [name for name, part in parts.items() if part is not before[name]]
    lost = [name for name in changed if structure is None or isinstance(parts[name], BatchNorm)]
    if lost:
        raise CheckpointError(
            f"{', '.join(lost)} changed, but this format stores no changed batch normalisation, and only the systems where the "
            "structure around them is not known; keep these parts, in training with requires_grad_(False)"
        )
    other = arrangement(model) != arrangement(old) or any(outline(parts[name]) != outline(before[name]) for name in changed)
    if structure is not None and other:
        raise CheckpointError(_RESTRUCTURED)


def _parts(model: DeepSSM) -> dict[str, Any]:
    parts = {name: getattr(model, name) for name in ("encoder", "norm", "decoder")}
    return parts | {f"{block.name}: {name}": getattr(block, name) for block in model.blocks for name in ("norm", "mixing")}


def layer_parameters(family: Family, model: DeepSSM, original: Original) -> tuple[int, ...]:
    """How many numbers are stored for the system of every layer; those of its own arrays if the family cannot store it."""
    if family.parameters is not None:
        return tuple(family.parameters(block.ssm) for block in model.blocks)
    try:
        layers = _tensors(family, model, original)
    except InvalidInputError:
        return tuple(real_numbers(block.ssm) for block in model.blocks)
    return tuple(sum(parameter_count(value) for value in tensors.values()) for tensors in layers)
