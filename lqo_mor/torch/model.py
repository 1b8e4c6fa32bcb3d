"""Whole models as PyTorch modules: training, fine-tuning after a compression, and inference step by step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lqo_mor.checkpoints.tensors import listing
from lqo_mor.errors import DimensionError, InvalidInputError
from lqo_mor.network.blocks import Block
from lqo_mor.network.layers import BatchNorm, Embedding, LayerNorm, Linear
from lqo_mor.network.model import DeepSSM
from lqo_mor.torch.layer import check_precision, torch_layer

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "relu": F.relu,
    "identity": lambda x: x,
}


def torch_model(model: DeepSSM, dropout: float = 0.0) -> SSMModel:
    """A whole model as a trainable module, in double precision (``.float()`` makes it single).

    Parameters
    ----------
    model : DeepSSM
        Read by `load_checkpoint`, compressed or not.
    dropout : float
        Dropout probability in training, after the activation of each block and after its gate.

    Returns
    -------
    SSMModel
        With the outputs of `model`.

    Raises
    ------
    InvalidInputError
        If it is no DeepSSM, or only its systems are known; `torch_layer` makes a layer of each.
    """
    if not isinstance(model, DeepSSM):
        raise InvalidInputError(f"expected a DeepSSM, from load_checkpoint or compress(...).model, got {type(model).__name__}")
    if not model.runs:
        raise InvalidInputError(
            "only the systems of this model are known, not what is between them; "
            "take lqo_mor.torch.torch_layer(block.ssm, block.backward) for each of its blocks"
        )
    return SSMModel(model, dropout)


def update_model(model: DeepSSM, module: SSMModel) -> DeepSSM:
    """The way back: a model with the parameters of a trained module, which `save` writes in the original format.

    Parameters
    ----------
    model : DeepSSM
        What the module was made of.
    module : SSMModel
        From `torch_model`, trained.

    Returns
    -------
    DeepSSM
        With the source of `model`. A part that training did not change is the same object as before, and its
        tensors stay as they are in the file.

    Raises
    ------
    InvalidInputError
        If the module was made of a model with other sizes.
    """
    if not isinstance(module, SSMModel):
        raise InvalidInputError(f"expected an SSMModel, from torch_model, got {type(module).__name__}")
    before = torch_model(model).to(next(module.parameters()))
    sizes, wanted = ({key: tuple(value.shape) for key, value in m.state_dict().items()} for m in (module, before))
    different = [key for key in sizes | wanted if sizes.get(key) != wanted.get(key)]
    if different:
        raise InvalidInputError(f"the module was not made of this model; different: {listing(different)}")

    def new(name: str, record: Any) -> Any:
        if record is None or _equal(module.get_submodule(name), before.get_submodule(name)):
            return record
        values = module.get_submodule(name).state_dict()
        return replace(record, **{key: value.cpu().double().numpy() for key, value in values.items()})

    blocks = []
    for i, block in enumerate(model.blocks):
        layer, old = (cast(SSMBlock, m.blocks[i]).ssm for m in (module, before))
        ssm = block.ssm if _equal(layer, old) else layer.system()
        norm, mixing = new(f"blocks.{i}.norm", block.norm), new(f"blocks.{i}.mixing", block.mixing)
        blocks.append(replace(block, ssm=ssm, norm=norm, mixing=mixing))
    outer = {name: new(name, getattr(model, name)) for name in ("encoder", "norm", "decoder")}
    return replace(model, blocks=tuple(blocks), **outer)


def _equal(a: nn.Module, b: nn.Module) -> bool:
    values = ([*module.parameters(), *module.buffers()] for module in (a, b))
    return all(torch.equal(x, y) for x, y in zip(*values, strict=True))


class ModelState(NamedTuple):
    """What `SSMModel.step` carries from step to step: the states of the layers, and the sum of the features over the steps."""

    layers: tuple[Tensor, ...]
    total: Tensor
    steps: int


class SSMModel(nn.Module):
    """Encoder, blocks, final normalisation, pooling over time, decoder; `torch_model` makes it.

    Parameters
    ----------
    model, dropout
        As for `torch_model`.
    """

    def __init__(self, model: DeepSSM, dropout: float = 0.0) -> None:
        super().__init__()
        self.pooling = model.pooling
        self.encoder = _module(model.encoder)
        self.blocks = nn.ModuleList(SSMBlock(block, dropout) for block in model.blocks)
        self.norm = _module(model.norm)
        self.decoder = cast(nn.Linear, _module(model.decoder))

    def forward(self, u: Tensor) -> Tensor:
        """Outputs (batch, outputs) of inputs (batch, steps, features), or of tokens (batch, steps).

        Without pooling they have shape (batch, steps, outputs).
        """
        self._check(u, 2, "(batch, steps)")
        x = self.encoder(u)
        for block in self.blocks:
            x = block(x)
        x = self.norm(x)
        if self.pooling == "mean":
            x = x.mean(dim=1)
        elif self.pooling == "last":
            x = x[:, -1]
        return self.decoder(x)

    def initial_state(self, batch: int) -> ModelState:
        """The state of `batch` sequences before their first step."""
        total = self.decoder.weight.new_zeros(batch, self.decoder.in_features)
        return ModelState(tuple(cast(SSMBlock, block).ssm.initial_state(batch) for block in self.blocks), total, 0)

    def step(self, u: Tensor, state: ModelState) -> tuple[Tensor, ModelState]:
        """One time step.

        Parameters
        ----------
        u : (batch, features) Tensor, or (batch,) Tensor of tokens
        state : ModelState
            From `initial_state`, or from the step before.

        Returns
        -------
        y : (batch, outputs) Tensor
            What `forward` gives for the sequence so far: with the pooling "mean" the decoded mean over its steps, otherwise
            the decoded features of this step.
        state : ModelState
            For the next step.

        Raises
        ------
        InvalidInputError
            If a layer runs backward in time.
        """
        self._check(u, 1, "(batch,)")
        x, layers = self.encoder(u), []
        for block, old in zip(self.blocks, state.layers, strict=True):
            x, new = cast(SSMBlock, block).step(x, old)
            layers.append(new)
        x = self.norm(x)
        state = ModelState(tuple(layers), state.total + x, state.steps + 1)
        return self.decoder(state.total / state.steps if self.pooling == "mean" else x), state

    def _check(self, u: Tensor, axes: int, meaning: str) -> None:
        tokens = isinstance(self.encoder, nn.Embedding)
        fits = u.ndim == axes if tokens else u.ndim == axes + 1 and u.shape[-1] == self.encoder.in_features
        if not fits or 0 in u.shape:
            wanted = f"{meaning} of tokens" if tokens else f"{meaning} and {self.encoder.in_features} features as the last axis"
            raise DimensionError(f"u has shape {tuple(u.shape)}, expected {wanted}")
        if not tokens:
            check_precision(u, cast(Tensor, self.encoder.weight))


class SSMBlock(nn.Module):
    """One block on (batch, steps, features), ``x ↦ x + mix(activation(ssm(x)))`` with a normalisation before or after it.

    Parameters
    ----------
    block : Block
    dropout
        As for `torch_model`.
    """

    def __init__(self, block: Block, dropout: float = 0.0) -> None:
        super().__init__()
        self.prenorm, self.gate, self.residual = block.prenorm, block.gate, block.residual
        self.activation = _ACTIVATIONS[block.activation]
        self.norm = _module(block.norm)
        self.ssm = torch_layer(block.ssm, block.backward)
        self.dropout = nn.Dropout(dropout)
        self.mixing = _module(block.mixing)

    def forward(self, x: Tensor) -> Tensor:
        """Outputs (batch, steps, features)."""
        return self._after(x, self.ssm(self._before(x)))

    def step(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """The output of one time step (batch, features), and the next state; see `SSMLayer.step`."""
        y, state = self.ssm.step(self._before(x), state)
        return self._after(x, y), state

    def _before(self, x: Tensor) -> Tensor:
        return self.norm(x) if self.prenorm else x

    def _after(self, x: Tensor, y: Tensor) -> Tensor:
        y = self.mixing(self.dropout(self.activation(y)))
        if self.gate == "glu":
            y = F.glu(y, dim=-1)
        y = self.dropout(y)
        if self.residual:
            y = x + y
        return y if self.prenorm else self.norm(y)


class FeatureScale(nn.Module):
    """A `BatchNorm` with the stored statistics in its affine map, ``weight ∘ x + bias`` with vectors (width,)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        """Features (..., width) of the same shape."""
        return self.weight * x + self.bias


def _module(record: Linear | Embedding | LayerNorm | BatchNorm | None) -> nn.Module:
    """The module of a map of tokens in double precision; the identity for None."""
    if record is None:
        return nn.Identity()
    module: nn.Module
    if isinstance(record, Linear):
        module = nn.Linear(record.n_inputs, record.n_outputs, bias=record.bias is not None)
    elif isinstance(record, Embedding):
        module = nn.Embedding(record.n_tokens, record.n_outputs)
    elif isinstance(record, LayerNorm):
        module = nn.LayerNorm(len(record.weight), eps=record.eps)
    else:
        module = FeatureScale(len(record.weight))
    module.double().load_state_dict({key: torch.from_numpy(getattr(record, key).copy()) for key in module.state_dict()})
    return module
