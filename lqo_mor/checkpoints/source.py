"""Where a model was read from, and how it is written back in the same way or in another format."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from lqo_mor.checkpoints.containers.files import as_path, container_of, write_file
from lqo_mor.checkpoints.containers.trees import Layout, further_copies
from lqo_mor.checkpoints.contracts import Family, Layer, Original
from lqo_mor.checkpoints.families.native import NATIVE, layer_tensors
from lqo_mor.checkpoints.families.registry import CONVERSIONS, FAMILIES, IN_ANY_MODEL
from lqo_mor.checkpoints.layered import (
    find_layers,
    layer_parameters,
    layer_precision,
    local_key,
    local_tensors,
    outside_of,
    read,
    write,
)
from lqo_mor.checkpoints.settings import Settings, Sidecar
from lqo_mor.checkpoints.tensors import Values, listing, parameter_count, rounded
from lqo_mor.errors import InvalidInputError, LQOWarning, OutputError, warn
from lqo_mor.files import FilePath
from lqo_mor.network.model import DeepSSM
from lqo_mor.systems.batches import pad


def family_of(name: str) -> Family:
    """The family whose layers are the format of that name; raises `InvalidInputError` where there is none."""
    family = next((family for family in FAMILIES if family.name == name), None)
    if family is None:
        known = ", ".join(family.name for family in reversed(FAMILIES))
        raise InvalidInputError(f"format {name!r} is unknown, expected one of {known}")
    return family


@dataclass(frozen=True, eq=False)
class Source:
    """Where a model was read from, and how it is written back; see `ModelSource`."""

    family: Family  # of its layers; it has the name of the format
    path: Path
    layout: Layout  # how the tensors stood in the file
    original: Original  # what was read
    foreign: tuple[str, ...]  # names of the foreign classes in the file that were replaced by placeholders
    assumed: Values  # the settings that were assumed

    @property
    def format(self) -> str:
        """The name of the format."""
        return self.family.name

    @property
    def settings(self) -> Values:
        """What the tensors do not tell, as given or assumed."""
        return self.original.settings

    def layer_parameters(self, model: DeepSSM, format: str | None = None) -> tuple[int, ...]:
        """How many numbers a format (by default the one that was read) stores for the system of each block."""
        family, original = self._target(format)
        return layer_parameters(family, padded(model) if family.same_size else model, original)

    @property
    def other_parameters(self) -> int:
        """How many numbers the file holds outside of the systems."""
        return sum(map(parameter_count, outside_of(self.family, self.original.state).values()))

    def reduce_in_class(self, model: DeepSSM, state_size: int, horizon: int | None) -> DeepSSM:
        """The model reduced so that the class of its checkpoint can hold it."""
        if self.family.in_class is None:
            raise InvalidInputError(
                f"a reduction in class is for formats that hold certain reduced systems only, and {self.format} holds any"
            )
        return self.family.in_class(model, state_size, horizon)

    def write(
        self, model: DeepSSM, path: FilePath, *, overwrite: bool, format: str | None = None, same_size: bool | None = None
    ) -> None:
        """Store `model` at `path`, in the layout of the file that it was read from or in another format."""
        family, original = self._target(format)
        if family.same_size if same_size is None else same_size:
            model = padded(model)
        path = as_path(path)
        container_of(path)  # refuses an unknown suffix before any work
        with suppress(OSError):  # one of them does not exist
            if path.samefile(self.path):
                raise OutputError(f"{path} is the file that the model was read from; choose another name")
        state, extras = write(family, model, original)
        beside = family.structure is None or family.structure.sidecar
        copies = further_copies(original.state, extras)
        if copies and container_of(path) in ("torch", "msgpack"):
            warn(
                f"the entries {listing(copies)} of {self.path.name} hold the tensors of the model once more; "
                f"they stand in {path.name} as they were, not reduced",
                LQOWarning,
            )
        shapes = [value.shape for value in state.values()]
        with Sidecar(path, original.settings if beside else {}, overwrite) as sidecar:
            last = partial(sidecar.write, family.name, shapes)
            dropped = write_file(path, self.layout.restored(state), self.layout.nesting, extras, overwrite=overwrite, last=last)
        if dropped:
            warn(
                f"{path.name} does not hold the entries {listing(dropped)} of {self.path.name}: "
                "state of an optimiser, or what this kind of file cannot hold safely",
                LQOWarning,
            )

    def _target(self, name: str | None) -> tuple[Family, Original]:
        """The family of that name, and what was read as if it had come from a file of its layers."""
        if name is None or name == self.format:
            return self.family, self.original
        family, convert = family_of(name), _CONVERSIONS.get((self.format, name))
        if convert is None:
            known = ", ".join([self.format, *(to for source, to in _CONVERSIONS if source == self.format)])
            raise InvalidInputError(
                f"a model of the format {self.format} cannot be stored in the format {name}; it can be in {known}"
            )
        return family, convert(self.original)


def padded(model: DeepSSM) -> DeepSSM:
    """The model with slots of zero output, so that all of its systems have as many as the largest."""
    slots = max((block.ssm.n_slots for block in model.blocks), default=0)
    blocks = [block if block.ssm.n_slots == slots else replace(block, ssm=pad(block.ssm, slots)) for block in model.blocks]
    return replace(model, blocks=tuple(blocks))


def _as_native(family: Family, original: Original) -> Original:
    """What was read, as if it had come from a file of native layers: theirs are replaced, all other tensors stay."""
    state = dict(original.state)
    for block, (prefix, names) in zip(original.model.blocks, find_layers(family, original.state).items(), strict=True):
        dtype = np.result_type(layer_precision(local_tensors(family, prefix, names, state)), np.float32)
        for name in names:
            del state[local_key(prefix, name)]
        for name, value in layer_tensors(Layer(block.ssm, block.backward), dtype).items():
            key = local_key(prefix, name)
            state[key] = rounded(key, value, dtype if value.dtype.kind == "f" else value.dtype)
    asked = Settings(original.settings)  # the structure asks for its settings again, the layers need none any more
    read(NATIVE, state, original.extras, asked)
    return Original(state, original.extras, original.model, asked.values)


# By the names of two formats. The S4D example has a structure that native layers are read in, too.
_CONVERSIONS: dict[tuple[str, str], Callable[[Original], Original]] = CONVERSIONS | {
    (family.name, NATIVE.name): partial(_as_native, family)
    for family in FAMILIES
    if family is not NATIVE and (family in IN_ANY_MODEL or family.name == "s4d")
}
