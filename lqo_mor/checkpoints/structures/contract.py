"""What a structure of models offers."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from lqo_mor.checkpoints.contracts import Layer
from lqo_mor.checkpoints.settings import Settings
from lqo_mor.checkpoints.tensors import Tensors
from lqo_mor.network.layers import Linear
from lqo_mor.network.model import Block, DeepSSM


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
