"""What a family of layers offers."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from lqo_mor.checkpoints.settings import Settings
from lqo_mor.checkpoints.tensors import Tensors, Values
from lqo_mor.network.blocks import Block
from lqo_mor.network.layers import Linear
from lqo_mor.network.model import DeepSSM
from lqo_mor.systems.diagonal import DiagonalLQOSystem


@dataclass(frozen=True, eq=False)
class Layer:
    """What the tensors of one state-space layer say.

    Attributes
    ----------
    ssm : DiagonalLQOSystem
        With delay 0: a batch (width,) with one input, or a single system; see `lqo_mor.network.Block`.
    backward : {None, 0, 1}
        Delay of the second half of the outputs, if it runs backward in time.
    """

    ssm: DiagonalLQOSystem
    backward: int | None = None


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
    recognises : callable
        ``recognises(names) -> bool`` for the set of names found in a layer; true also where some are missing, so that
        `read` can say which.
    read : callable
        ``read(layer, tensors, settings) -> Layer``; `layer` is its prefix, for messages. Raises `CheckpointError`.
    write : callable
        ``write(layer, ssm, tensors, settings) -> dict``: the tensors of a reduced system, by name, as like the given ones as
        they can be; a name that is left out is left out of the file. `settings` is a dictionary of values. Raises
        `CheckpointError` where the family cannot represent the system, saying what can.
    same_size : bool
        Whether the usual classes give all layers one size.
    in_class : callable, optional
        ``in_class(model, state_size, horizon) -> DeepSSM``: a reduction that the class can hold, of all layers, for families that
        cannot represent just any reduced system.
    """

    name: str
    looks_like: str
    markers: tuple[str, ...]
    names: tuple[str, ...]
    recognises: Callable[[set[str]], bool]
    read: Callable[[str, Tensors, Settings], Layer]
    write: Callable[[str, DiagonalLQOSystem, Tensors, Values], Tensors]
    same_size: bool = True
    in_class: Callable[[DeepSSM, int, int | None], DeepSSM] | None = None


@dataclass(frozen=True)
class Structure:
    """One way to connect layers to a model, as a record of functions.

    Attributes
    ----------
    name : str
        For people.
    recognises : callable
        ``recognises(state, layers) -> bool`` from all tensors of the file, by their bare keys, and the prefixes of its layers.
        True only where every tensor outside of the layers is understood.
    read : callable
        ``read(state, layers, settings) -> DeepSSM``, or None where the settings ask for what cannot be run here; `layers`
        maps prefixes to `Layer`, in the order of the model. One block for every layer, with the prefix as its name and the
        layer's `ssm` and `backward`. Raises `CheckpointError`.
    mixing_tensors : callable
        ``mixing_tensors(block, state) -> dict``: the tensors of the mixing map of a block by their bare keys, in the
        shapes of `state`.
    decoder_tensors : callable
        ``decoder_tensors(decoder, state) -> dict``: the same for the decoder.
    """

    name: str
    recognises: Callable[[Tensors, Collection[str]], bool]
    read: Callable[[Tensors, dict[str, Layer], Settings], DeepSSM | None]
    mixing_tensors: Callable[[Block, Tensors], Tensors]
    decoder_tensors: Callable[[Linear, Tensors], Tensors]
