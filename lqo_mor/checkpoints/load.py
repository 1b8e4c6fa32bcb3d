"""Find the tensors in a file, recognise the format, and write a changed model back in the same way."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lqo_mor.checkpoints.containers.files import as_path, container_of, read_file, write_file
from lqo_mor.checkpoints.containers.trees import Layout, find_state, further_copies
from lqo_mor.checkpoints.families.lqo import LQO
from lqo_mor.checkpoints.families.ragged import RAGGED, from_s4d, to_s4d
from lqo_mor.checkpoints.layered import LAYERED, TO_NATIVE
from lqo_mor.checkpoints.refused import liquid, refusal
from lqo_mor.checkpoints.s4d import S4D
from lqo_mor.checkpoints.settings import Settings, Sidecar, check_given, read_sidecar, warn_of_assumptions
from lqo_mor.checkpoints.tensors import Format, Original, Tensors, Values, listing
from lqo_mor.errors import CheckpointError, InvalidInputError, LQOWarning, OutputError, warn
from lqo_mor.files import FilePath
from lqo_mor.network.model import DeepSSM
from lqo_mor.systems.batches import pad

FORMATS = (*LAYERED, S4D, LQO, RAGGED)
# From the format that was read to the one that is written: what was read, as if it had come from a file of the other.
_CONVERSIONS: dict[tuple[str, str], Callable[[Original], Original]] = {
    ("s4d", "ragged"): from_s4d,
    ("ragged", "s4d"): to_s4d,
    **TO_NATIVE,
}


def load_checkpoint(
    path: FilePath, format: str | None = None, *, prenorm: bool | None = None, settings: Mapping[str, Any] | None = None
) -> DeepSSM:
    """Read a trained deep state-space model, ``x[k] = λ ∘ x[k-1] + B u[k]`` with maps of tokens between the layers.

    Nothing in the file is ever executed: a pickle is read with tensors and plain values only, and
    objects of other classes are replaced by inert placeholders.

    Parameters
    ----------
    path : path-like
        A .pth, .pt or .ckpt file of PyTorch (needs torch), a .msgpack or .flax file of Flax (needs msgpack), or a .safetensors
        or .npz file; the content decides, not the suffix.
    format : str, optional
        Overrules the recognition of the format; see the page on checkpoints for the names.
    prenorm : bool, optional
        Whether the normalisations stand before the layers: the setting of that name.
    settings : mapping, optional
        What the tensors of a format cannot tell, by name: ``discretization``, ``dt_transform``, ... What is not given is
        read from the file ``<path>.json`` that `save` writes beside a checkpoint, and otherwise assumed as in the
        configurations of the original code, with an `AssumptionWarning`. `model.source.settings` has the values.

    Returns
    -------
    DeepSSM
        In double precision; `model.save` writes it back.

    Raises
    ------
    CheckpointError
        If the file is missing, damaged, unsafe, incomplete or of an unknown format.
    InvalidInputError
        If a setting is unknown or out of range.
    MissingDependencyError
        If the file is one of PyTorch or Flax, and torch or msgpack is not installed.

    Warns
    -----
    AssumptionWarning
        Of the settings that were neither given nor stored.

    Examples
    --------
    >>> import lqo_mor as lqo
    >>> lqo.load_checkpoint("missing.pth")
    Traceback (most recent call last):
    ...
    lqo_mor.errors.CheckpointError: missing.pth does not exist
    """
    path = as_path(path)
    content = read_file(path)
    try:
        given = check_given(settings) | ({} if prenorm is None else {"prenorm": prenorm})
        state, layout, extras = find_state(content.tree, content.extras)
        known = liquid(extras)
        if known is not None:
            raise CheckpointError(known)
        chosen = _choose(state, format)
        asked = Settings(read_sidecar(path, (value.shape for value in state.values())) | given)
        model = chosen.read(state, extras, asked)
        asked.check_used()
    except InvalidInputError as err:
        raise CheckpointError(f"{path.name}: {err}") from None
    except Exception as err:  # the content is untrusted: whatever it breaks is the file's fault
        raise CheckpointError(f"{path.name}: its content cannot be understood, reading it ends in {type(err).__name__}") from err
    warn_of_assumptions(path.name, asked.assumed)
    original = Original(state, extras, model, asked.values)
    source = Source(chosen.name, chosen, path.resolve(), layout, original, content.foreign, asked.assumed)
    return replace(model, source=source)


@dataclass(frozen=True, eq=False)
class Source:
    """Where a model was read from, and how it is written back; see `ModelSource`.

    Attributes
    ----------
    format : str
        Name of the format.
    adapter : Format
        Its functions.
    path : Path
        The file.
    layout : Layout
        How the tensors stood in the file.
    original : Original
        What was read.
    foreign : tuple of str
        Names of the foreign classes in the file that were replaced by placeholders.
    assumed : dict
        The settings that were assumed.
    """

    format: str
    adapter: Format
    path: Path
    layout: Layout
    original: Original
    foreign: tuple[str, ...]
    assumed: Values

    @property
    def settings(self) -> Values:
        """What the tensors do not tell, as given or assumed."""
        return self.original.settings

    def layer_parameters(self, model: DeepSSM, format: str | None = None) -> tuple[int, ...]:
        """How many numbers a format (by default the one that was read) stores for the system of each block."""
        adapter, original = self._target(format)
        return adapter.layer_parameters(padded(model) if adapter.same_size else model, original)

    def other_parameters(self, model: DeepSSM) -> int | None:
        """How many numbers the file holds outside of the systems, or None if those are the arrays of the model."""
        count = self.adapter.other_parameters
        return None if count is None else count(self.original)

    def reduce_in_class(self, model: DeepSSM, state_size: int, horizon: int | None) -> DeepSSM:
        """The model reduced so that the class of its checkpoint can hold it."""
        if self.adapter.in_class is None:
            raise InvalidInputError(
                f"a reduction in class is for formats that hold certain reduced systems only, and {self.format} holds any"
            )
        return self.adapter.in_class(model, state_size, horizon)

    def write(
        self, model: DeepSSM, path: FilePath, overwrite: bool, format: str | None = None, same_size: bool | None = None
    ) -> None:
        """Store `model` at `path`, in the layout of the file that it was read from or in another format."""
        adapter, original = self._target(format)
        if adapter.same_size if same_size is None else same_size:
            model = padded(model)
        path = as_path(path)
        container_of(path)  # refuses an unknown suffix before any work
        with suppress(OSError):  # one of them does not exist
            if path.samefile(self.path):
                raise OutputError(f"{path} is the file that the model was read from; choose another name")
        state, extras = adapter.write(model, original)
        sidecar = Sidecar(path, original.settings if adapter.sidecar else {}, overwrite)
        copies = further_copies(original.state, extras)
        if copies and container_of(path) in ("torch", "msgpack"):
            warn(
                f"the entries {listing(copies)} of {self.path.name} hold the tensors of the model once more; "
                f"they stand in {path.name} as they were, not reduced",
                LQOWarning,
            )
        dropped = write_file(path, self.layout.restored(state), self.layout.nesting, extras, overwrite)
        if dropped:
            warn(
                f"{path.name} does not hold the entries {listing(dropped)} of {self.path.name}: "
                "state of an optimiser, or what this kind of file cannot hold safely",
                LQOWarning,
            )
        sidecar.write(adapter.name, (value.shape for value in state.values()))

    def _target(self, name: str | None) -> tuple[Format, Original]:
        """The format of that name, and what was read as if it had come from a file of that format."""
        if name is None or name == self.format:
            return self.adapter, self.original
        adapter, convert = _by_name(name), _CONVERSIONS.get((self.format, name))
        if convert is None:
            known = ", ".join([self.format, *(to for source, to in _CONVERSIONS if source == self.format)])
            raise InvalidInputError(
                f"a model of the format {self.format} cannot be stored in the format {name}; it can be in {known}"
            )
        return adapter, convert(self.original)


def padded(model: DeepSSM) -> DeepSSM:
    """The model with slots of zero output, so that all of its systems have as many as the largest."""
    slots = max((block.ssm.n_slots for block in model.blocks), default=0)
    blocks = [block if block.ssm.n_slots == slots else replace(block, ssm=pad(block.ssm, slots)) for block in model.blocks]
    return replace(model, blocks=tuple(blocks))


def _by_name(name: str) -> Format:
    chosen = next((f for f in FORMATS if f.name == name), None)
    if chosen is None:
        raise InvalidInputError(f"format {name!r} is unknown, expected one of {', '.join(f.name for f in FORMATS)}")
    return chosen


def _choose(state: Tensors, name: str | None) -> Format:
    """The format by its name, or by the keys."""
    if name is not None:
        return _by_name(name)
    # From the last to the first: the keys of a ragged model look like those of S4D too.
    chosen = next((f for f in reversed(FORMATS) if f.recognises(state)), None)
    if chosen is None:
        known = refusal(state)
        if known is not None:
            raise CheckpointError(known)
        seen = listing([f"{key} {value.shape}" for key, value in state.items()])
        raise CheckpointError(f"format not recognised; found {seen}; expected {' or '.join(f.looks_like for f in FORMATS)}")
    return chosen
