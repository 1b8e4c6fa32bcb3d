"""What a family of layers and a structure around layers offer: the two records of functions that a format is made of."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field

import numpy as np

from lqo_mor.checkpoints.settings import Settings
from lqo_mor.checkpoints.tensors import Tensors, Values
from lqo_mor.network.model import DeepSSM
from lqo_mor.systems.diagonal import DiagonalLQOSystem


@dataclass(frozen=True, eq=False)
class Layer:
    """What the tensors of one state-space layer say."""

    ssm: DiagonalLQOSystem  # with delay 0: a batch (width,) with one input, or a single system; see `lqo_mor.network.Block`
    backward: int | None = None  # delay (0 or 1) of the second half of the outputs, if it runs backward in time


@dataclass(frozen=True, eq=False)
class Original:
    """The content of the file that a model was read from: tensors, other entries, the model as read, and the settings."""

    state: dict[str, np.ndarray]
    extras: Values
    model: DeepSSM
    settings: Values = field(default_factory=dict)


@dataclass(frozen=True)
class Structure:
    """One way to connect layers to a model, as a record of functions of all tensors of a file by their bare keys.

    Attributes
    ----------
    name : str
        For people.
    recognises : callable
        ``recognises(keys, layers) -> bool`` from the keys of the tensors outside of layers and the prefixes of the layers.
        True only where every tensor outside of the layers is understood. That of a family of its own gets all keys, and is
        true also where some are missing, so that `check` can say which.
    read : callable
        ``read(state, extras, layers, settings) -> DeepSSM``, or None where the settings ask for what cannot be run here;
        `extras` are the entries of the file beside the tensors, and `layers` maps prefixes to `Layer`, in the order of the
        model. One block for every layer, with the prefix as its name and the layer's `ssm` and `backward`. Raises
        `CheckpointError`.
    write : callable
        ``write(model, state) -> dict``: all tensors around the layers by their bare keys, in the shapes of `state`, but for
        those of a `BatchNorm`, whose statistics the model does not have.
    check : callable, optional
        ``check(state, extras, settings)`` raises `CheckpointError` for a file that is no such model, before its layers are read.
    finish : callable, optional
        ``finish(model, tensors, original) -> (state, extras)``: the new file from its tensors, for entries beside them that
        hold sizes. By default the tensors in the order of the original and its entries.
    sidecar : bool
        Whether settings are stored in a file beside the checkpoint; not where the checkpoint itself has them.
    """

    name: str
    recognises: Callable[[Collection[str], Collection[str]], bool]
    read: Callable[[Tensors, Values, dict[str, Layer], Settings], DeepSSM | None]
    write: Callable[[DeepSSM, Tensors], Tensors]
    check: Callable[[Tensors, Values, Settings], None] | None = None
    finish: Callable[[DeepSSM, Tensors, Original], tuple[Tensors, Values]] | None = None
    sidecar: bool = True


@dataclass(frozen=True)
class Family:
    """One family of layers as a record of functions; tensors are NumPy arrays by their names inside the layer.

    Attributes
    ----------
    name : str
        The name for ``load_checkpoint(..., format=name)``.
    looks_like : str
        One phrase for people: what the names look like.
    markers : tuple of str
        Names that no other kind of layer has; each of them, after a prefix, is a layer with that prefix.
    names : tuple of str
        All names that belong to a layer; whatever else stands under its prefix is left alone.
    read : callable
        ``read(layer, tensors, settings) -> Layer``; `layer` is its prefix, for messages. Raises `CheckpointError`.
    write : callable
        ``write(layer, ssm, tensors, settings) -> dict``: the tensors of a reduced system, by name, as like the given ones as
        they can be; a name that is left out is left out of the file. `settings` is a dictionary of values. Raises
        `CheckpointError` where the family cannot represent the system, saying what can.
    recognises : callable, optional
        ``recognises(names) -> bool`` for the set of names found in a layer; true also where some are missing, so that
        `read` can say which. By default a marker is enough.
    same_size : bool
        Whether the usual classes give all layers one size, so that smaller ones are padded.
    in_class : callable, optional
        ``in_class(model, state_size, horizon) -> DeepSSM``: a reduction that the class can hold, of all layers, for families that
        cannot represent just any reduced system.
    structure : Structure, optional
        The one structure that these layers are read in. By default it is any of the registered ones, or none: then only the
        systems are known, and everything else in the file stays as it is.
    parameters : callable, optional
        ``parameters(ssm) -> int``: how many numbers are stored for a system, by default those of the tensors that `write` gives.
        A layer that was not changed, but takes more in its file, is written again.
    """

    name: str
    looks_like: str
    markers: tuple[str, ...]
    names: tuple[str, ...]
    read: Callable[[str, Tensors, Settings], Layer]
    write: Callable[[str, DiagonalLQOSystem, Tensors, Values], Tensors]
    recognises: Callable[[set[str]], bool] = lambda names: True
    same_size: bool = True
    in_class: Callable[[DeepSSM, int, int | None], DeepSSM] | None = None
    structure: Structure | None = None
    parameters: Callable[[DiagonalLQOSystem], int] | None = None
