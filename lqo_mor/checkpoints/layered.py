"""Models made of the layers of a family: recognised by the layers, and understood as a whole where the structure is known.

Where it is not, the systems of the layers can still be reduced, and everything else in the file stays as it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial

import numpy as np

from lqo_mor.checkpoints.contracts import Family, Layer, Structure
from lqo_mor.checkpoints.families.native import NATIVE, layer_tensors
from lqo_mor.checkpoints.families.registry import FAMILIES
from lqo_mor.checkpoints.families.s4d import S4D_LAYERS
from lqo_mor.checkpoints.settings import Settings
from lqo_mor.checkpoints.structures.registry import STRUCTURES
from lqo_mor.checkpoints.tensors import Format, Original, Tensors, Values, listing, parameter_count, rounded
from lqo_mor.errors import CheckpointError, InvalidInputError, LQOWarning, warn
from lqo_mor.network.blocks import Block
from lqo_mor.network.model import DeepSSM, ends, real_numbers
from lqo_mor.systems.diagonal import DiagonalLQOSystem


def find_layers(family: Family, keys: Iterable[str]) -> dict[str, set[str]]:
    """The prefixes of the layers of a family, in the order of the model, and which of its names each has."""
    keys = set(keys)
    prefixes = {_prefix(key, name) for key in keys for name in family.markers if _ends(key, name)}
    layers = {prefix: {name for name in family.names if local_key(prefix, name) in keys} for prefix in prefixes}
    found = {prefix: names for prefix, names in layers.items() if family.recognises(names)}
    return dict(sorted(found.items(), key=lambda item: _natural(item[0])))


def _ends(key: str, name: str) -> bool:
    return key == name or key.endswith("." + name)


def _prefix(key: str, name: str) -> str:
    return key[: -len(name)].removesuffix(".")


def local_key(prefix: str, name: str) -> str:
    """The bare key of a tensor of a layer."""
    return f"{prefix}.{name}" if prefix else name


def _natural(text: str) -> list[tuple[int, str]]:
    """Sorts ``layers.10`` after ``layers.9``."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", text)]


def _label(prefix: str) -> str:
    """The name of a layer for people; a file may hold a single one without a prefix."""
    return prefix or "layer"


def local_tensors(family: Family, prefix: str, names: set[str], state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The tensors of a layer by their names in it."""
    return {name: state[local_key(prefix, name)] for name in family.names if name in names}


def _layers_of(family: Family, state: Tensors, settings: Settings) -> dict[str, Layer]:
    layers = {}
    for prefix, names in find_layers(family, state).items():
        label = _label(prefix)
        try:
            layers[prefix] = family.read(label, local_tensors(family, prefix, names, state), settings)
        except CheckpointError as err:
            raise CheckpointError(str(err) if label in str(err) else f"{label}: {err}") from None
    if not layers:
        raise CheckpointError(f"has no layers of the format {family.name}; expected {family.looks_like}")
    return layers


def _read(family: Family, state: Tensors, settings: Settings) -> DeepSSM:
    layers = _layers_of(family, state, settings)
    outside = _outside(family, state)
    found = {other.name: [_label(prefix) for prefix in find_layers(other, outside)] for other in FAMILIES if other is not family}
    left = [f"{prefix} ({name})" for name, prefixes in found.items() for prefix in prefixes]
    if left:
        warn(f"layers of another format than {family.name} are left as they are: {listing(left)}; format= picks one", LQOWarning)
    structure = _structure(family, state)
    model = None if structure is None else structure.read(state, layers, settings)
    if model is not None:
        return model
    return DeepSSM(None, tuple(alone(prefix, layer) for prefix, layer in layers.items()), None)


def alone(prefix: str, layer: Layer) -> Block:
    """A block of which nothing but the system is known."""
    return Block(_label(prefix), layer.ssm, activation="identity", residual=False, backward=layer.backward)


def _outside(family: Family, state: Tensors) -> Tensors:
    """The tensors that are not in layers of the family."""
    inside = {local_key(prefix, name) for prefix, names in find_layers(family, state).items() for name in names}
    return {key: value for key, value in state.items() if key not in inside}


def _structure(family: Family, state: Tensors) -> Structure | None:
    layers, outside = tuple(find_layers(family, state)), _outside(family, state)
    return next((structure for structure in STRUCTURES if structure.recognises(outside, layers)), None)


def _tensors(family: Family, model: DeepSSM, original: Original) -> list[dict[str, np.ndarray]]:
    """The tensors of every layer by their bare keys, rounded to the precision of the file.

    Layers that were not changed keep theirs, unless others get tensors of other shapes, for instance one row of poles for each
    head instead of a shared one: classes with one size for all layers take one shape only.
    """
    found = find_layers(family, original.state)
    if [_label(prefix) for prefix in found] != [block.name for block in model.blocks]:
        raise CheckpointError("the structure of the model was changed; the format stores only changed numbers and sizes")
    layers, kept = {}, {}
    for i, (prefix, names) in enumerate(found.items()):
        tensors = local_tensors(family, prefix, names, original.state)
        ssm, old = model.blocks[i].ssm, original.model.blocks[i].ssm
        if original.kept(i, model):
            kept[prefix] = tensors
            continue
        if (old.batch, old.n_inputs, old.n_outputs) != (ssm.batch, ssm.n_inputs, ssm.n_outputs):
            raise CheckpointError(f"{_label(prefix)}: the numbers of channels, inputs or outputs were changed")
        layers[prefix] = stored_tensors(family, prefix, ssm, tensors, original.settings)
    shapes = [_shapes(prefix, new) for prefix, new in layers.items()]
    for i, prefix in enumerate(found):
        if prefix in kept:
            layers[prefix] = {local_key(prefix, name): value for name, value in kept[prefix].items()}
            if family.same_size and shapes and _shapes(prefix, layers[prefix]) not in shapes:
                layers[prefix] = stored_tensors(family, prefix, model.blocks[i].ssm, kept[prefix], original.settings)
    return [layers[prefix] for prefix in found]


def _shapes(prefix: str, tensors: dict[str, np.ndarray]) -> dict[str, tuple[int, ...]]:
    return {key.removeprefix(prefix): value.shape for key, value in tensors.items()}


def stored_tensors(
    family: Family, prefix: str, ssm: DiagonalLQOSystem, tensors: dict[str, np.ndarray], settings: Values
) -> dict[str, np.ndarray]:
    """The tensors of a reduced layer by their bare keys, in the precision of those that it had."""
    new, real = family.write(_label(prefix), ssm, tensors, settings), _precision(tensors)
    return {
        local_key(prefix, name): rounded(local_key(prefix, name), value, _dtype(tensors.get(name), value, real))
        for name, value in new.items()
    }


def _precision(tensors: dict[str, np.ndarray]) -> np.dtype:
    """The real number type of a layer."""
    return next(value.real.dtype for value in tensors.values() if value.dtype.kind in "fc")


def _dtype(old: np.ndarray | None, value: np.ndarray, real: np.dtype) -> np.dtype:
    """The number type of a tensor: that of the one it replaces, or the precision of the layer."""
    if old is not None:
        return old.dtype
    kind = np.asarray(value).dtype
    return np.result_type(real, np.complex64) if kind.kind == "c" else real if kind.kind == "f" else kind


def _write(family: Family, model: DeepSSM, original: Original) -> tuple[Tensors, Values]:
    state = _outside(family, original.state)
    for tensors in _tensors(family, model, original):
        state |= tensors
    _check_kept(model, original.model)
    structure = _structure(family, original.state)
    changed: Tensors = {}
    for block, old in zip(model.blocks, original.model.blocks, strict=True):
        if block.mixing is not old.mixing and structure is not None:
            changed |= structure.mixing_tensors(block, original.state)
    if model.decoder is not original.model.decoder and structure is not None:
        changed |= structure.decoder_tensors(ends(model)[1], original.state)
    state |= {key: rounded(key, value, original.state[key].dtype) for key, value in changed.items()}
    # In the order of the file, new names last.
    return {key: state[key] for key in sorted(state, key=_order(original.state))}, original.extras


def _check_kept(model: DeepSSM, old: DeepSSM) -> None:
    """Raise where a part was changed that `_write` takes from the file."""
    parts = ("encoder", "norm") if old.runs else ("encoder", "norm", "decoder")
    changed = [part for part in parts if getattr(model, part) is not getattr(old, part)]
    changed += [f"{a.name}: norm" for a, b in zip(model.blocks, old.blocks, strict=True) if a.norm is not b.norm]
    if not old.runs:
        changed += [f"{a.name}: mixing" for a, b in zip(model.blocks, old.blocks, strict=True) if a.mixing is not b.mixing]
    if changed:
        raise CheckpointError(
            f"{', '.join(changed)} changed, but this format stores changed systems, the maps after them and the decoder only; "
            "keep the other parts, in training with requires_grad_(False)"
        )


def _order(keys: Iterable[str]) -> Callable[[str], int]:
    places = {key: i for i, key in enumerate(keys)}
    return lambda key: places.get(key, len(places))


def _layer_parameters(family: Family, model: DeepSSM, original: Original) -> tuple[int, ...]:
    """Real numbers in the tensors of every layer; of a system that the family cannot store, in its own arrays."""
    try:
        layers = _tensors(family, model, original)
    except InvalidInputError:
        return tuple(real_numbers(block.ssm) for block in model.blocks)
    return tuple(sum(parameter_count(value) for value in tensors.values()) for tensors in layers)


def _other_parameters(family: Family, original: Original) -> int:
    return sum(parameter_count(value) for value in _outside(family, original.state).values())


def _format(family: Family) -> Format:
    return Format(
        name=family.name,
        looks_like=family.looks_like,
        recognises=lambda keys: bool(find_layers(family, keys)),
        read=lambda state, extras, settings: _read(family, state, settings),
        write=lambda model, original: _write(family, model, original),
        layer_parameters=lambda model, original: _layer_parameters(family, model, original),
        same_size=family.same_size,
        sidecar=True,
        other_parameters=lambda original: _other_parameters(family, original),
        in_class=family.in_class,
    )


def _as_native(family: Family, original: Original) -> Original:
    """What was read, as if it had come from a file of native layers: theirs are replaced, all other tensors stay."""
    state = dict(original.state)
    for block, (prefix, names) in zip(original.model.blocks, find_layers(family, original.state).items(), strict=True):
        dtype = np.result_type(_precision(local_tensors(family, prefix, names, state)), np.float32)
        for name in names:
            del state[local_key(prefix, name)]
        for name, value in layer_tensors(Layer(block.ssm, block.backward), dtype).items():
            state[local_key(prefix, name)] = rounded(local_key(prefix, name), value, _dtype(None, value, dtype))
    asked = Settings(original.settings)  # the structure asks for its settings again, the layers need none any more
    _read(NATIVE, state, asked)
    return Original(state, original.extras, original.model, asked.values)


# By the names of two formats, as in the registry. The S4D example has S4D layers.
TO_NATIVE = {
    (name, NATIVE.name): partial(_as_native, family)
    for name, family in {"s4d": S4D_LAYERS, **{family.name: family for family in FAMILIES if family is not NATIVE}}.items()
}

# From the last to the first is the registry's order, so the first family of the table comes last.
LAYERED = tuple(_format(family) for family in reversed(FAMILIES))
