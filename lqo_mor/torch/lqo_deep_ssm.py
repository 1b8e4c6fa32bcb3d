"""Deep models with linear-quadratic outputs to train from scratch, and their files."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from lqo_mor.checkpoints.containers.files import write_file
from lqo_mor.checkpoints.load import load_checkpoint
from lqo_mor.checkpoints.structures.lqo_model import check_config, make_config
from lqo_mor.checkpoints.tensors import Values
from lqo_mor.errors import CheckpointError, InvalidInputError
from lqo_mor.files import FilePath
from lqo_mor.network.blocks import Block
from lqo_mor.network.layers import Embedding, LayerNorm, Linear
from lqo_mor.network.model import DeepSSM
from lqo_mor.torch.layer import random_system
from lqo_mor.torch.model import SSMModel


class LQODeepSSM(SSMModel):
    """A model with linear and quadratic outputs to train from scratch (the model class of arXiv:2510.14542).

    It has random parameters, in the default precision of torch, and those of its state dict are the tensors of the format
    "lqo": `save` writes a file for `load_checkpoint`, and `load` takes a compressed one. All slots train as conjugate pairs.

    Parameters
    ----------
    n_features : int or None
        Features of an input time step, for signals; or `vocabulary`.
    vocabulary : int or None
        Number of tokens, for inputs that are integers.
    n_outputs : int
        Outputs, for instance classes.
    width : int
        Features inside the model.
    n_layers : int
        Number of blocks.
    n_slots : int or list of int
        Conjugate pairs of states of every layer, or one number per layer.
    quadratic_rank : int or list of int
        Products in the quadratic output, likewise; 0 for a linear layer.
    prenorm, activation, gate
        As for `Block`; with `prenorm`, the features are normalised once more at the end.
    pooling : {"mean", "last", None}
        As for `DeepSSM`.
    dropout : float
        As for `torch_model`.

    Raises
    ------
    InvalidInputError
        If a value is of the wrong kind or out of range.
    """

    def __init__(  # the arguments are the configuration in a file
        self,
        *,
        n_features: int | None = None,
        vocabulary: int | None = None,
        n_outputs: int,
        width: int,
        n_layers: int,
        n_slots: int | list[int],
        quadratic_rank: int | list[int] = 4,
        prenorm: bool = True,
        activation: str = "gelu",
        gate: str | None = "glu",
        pooling: str | None = "mean",
        dropout: float = 0.0,
    ) -> None:
        config = make_config(**{name: value for name, value in locals().items() if name not in ("self", "__class__")})
        try:
            check_config({"config": config})
        except CheckpointError as err:
            raise InvalidInputError(str(err)) from None
        slots = n_slots if isinstance(n_slots, list) else [n_slots] * n_layers
        ranks = quadratic_rank if isinstance(quadratic_rank, list) else [quadratic_rank] * n_layers
        encoder = _linear(cast(int, n_features), width) if vocabulary is None else _embedding(vocabulary, width)
        norm, mixed = LayerNorm(np.ones(width), np.zeros(width)), 2 * width if gate == "glu" else width
        blocks = tuple(
            Block(f"blocks.{i}", random_system(width, n, c), _linear(width, mixed), norm, prenorm, activation, gate)
            for i, (n, c) in enumerate(zip(slots, ranks, strict=True))
        )
        super().__init__(DeepSSM(encoder, blocks, _linear(width, n_outputs), norm if prenorm else None, pooling), dropout)
        self.to(torch.get_default_dtype())
        self.config = config

    def save(self, path: FilePath, *, overwrite: bool = False) -> None:
        """Write the parameters and the configuration; the suffix picks the container (.pth, .safetensors, .npz).

        Parameters
        ----------
        path : path-like
            New file.
        overwrite : bool
            Whether an existing file may be replaced.
        """
        store(self, path, {"config": self.config}, overwrite)

    @classmethod
    def load(cls, path: FilePath) -> LQODeepSSM:
        """The module stored in a file of the LQO format, for instance a compressed one.

        Parameters
        ----------
        path : path-like
            File written by `save` or by ``DeepSSM.save``.

        Returns
        -------
        LQODeepSSM
            In the precision of the file, in training mode.

        Raises
        ------
        CheckpointError
            If the file is damaged or of another format.
        """
        tensors, extras = stored(path, "lqo")
        model = cls(**check_config(extras))
        model.to(tensors["decoder.weight"].dtype)
        model.load_state_dict(tensors)
        return model


def _linear(n_inputs: int, n_outputs: int) -> Linear:
    weight, bias = (value.detach().double().numpy() for value in nn.Linear(n_inputs, n_outputs).parameters())
    return Linear(weight, bias)


def _embedding(n_tokens: int, width: int) -> Embedding:
    return Embedding(nn.Embedding(n_tokens, width).weight.detach().double().numpy())


def store(module: nn.Module, path: FilePath, extras: Values, overwrite: bool) -> None:
    """Write the state dict of a module and the other entries of its format."""
    state = {key: value.detach().cpu().numpy() for key, value in module.state_dict().items()}
    write_file(Path(path), state, None, extras, overwrite=overwrite)


def stored(path: FilePath, format: str) -> tuple[dict[str, Tensor], Values]:
    """The tensors and the other entries of a file, which is checked completely."""
    original = cast(Any, load_checkpoint(path, format).source).original
    return {key: torch.from_numpy(value) for key, value in original.state.items()}, original.extras
