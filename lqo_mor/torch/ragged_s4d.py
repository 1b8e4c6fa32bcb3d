"""S4D layers whose channels have different numbers of slots, as PyTorch modules.

They load files of the ragged format: as a whole model (`RaggedS4DModel`), or put into a model of the original classes
in place of its S4D layers (`replace_s4d_layers`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lqo_mor.checkpoints.families.ragged import check_entry, make_entry
from lqo_mor.checkpoints.families.slots import PI32
from lqo_mor.checkpoints.tensors import listing
from lqo_mor.errors import DimensionError, InvalidInputError
from lqo_mor.files import FilePath
from lqo_mor.torch.layer import powers, random_poles
from lqo_mor.torch.lqo_deep_ssm import store, stored


class RaggedSlots(nn.Module):
    """The slots of all channels of a layer, and their kernels ``K_k = Σ 2 Re(R λ^k)`` with ``λ = exp(-exp(nu_log) + i theta)``.

    Every value of the parameters gives stable systems. An angle of 0 or ±π stands for a real pole: its gradient is zero,
    so the pole stays real in training.

    Parameters
    ----------
    counts : sequence of int
        How many slots each channel has, 0 or more.

    Attributes
    ----------
    count : (H,) int32 Tensor
        The same, as a buffer.
    nu_log, theta : (S,) Parameter
        Poles of the slots, channel after channel.
    residue : (S, 2) Parameter
        Real and imaginary part of R.
    """

    count: Tensor

    def __init__(self, counts: Sequence[int] | Tensor) -> None:
        super().__init__()
        count = torch.as_tensor(counts)
        if count.ndim != 1 or not len(count) or count.is_floating_point() or count.min() < 0:
            raise InvalidInputError("counts must hold one integer from 0 up for every channel, and at least one channel")
        self.register_buffer("count", count.to(torch.int32))
        n = int(count.sum())
        self.nu_log, self.theta = (nn.Parameter(value) for value in random_poles(n))
        # As in `random_system`: scaled so that white inputs of variance 1 give outputs with a variance of order 1.
        energy = -torch.expm1(-2 * torch.exp(self.nu_log.detach())) / torch.repeat_interleave(count, count)
        self.residue = nn.Parameter(torch.randn(n, 2) * torch.sqrt(energy / 4)[:, None])
        for parameter in (self.nu_log, self.theta):
            cast(Any, parameter)._optim = {"weight_decay": 0.0}  # as the original class marks its poles, for its training script

    def forward(self, steps: int) -> Tensor:
        """The kernels, shape (H, steps)."""
        # A negative real pole has the angle π and not its rounding: there the half turn is taken out, as exact signs.
        angle = self.theta.detach()
        negative = (angle.abs() == PI32) | (angle.abs() == math.pi)
        real, imag = powers(self.nu_log, self.theta - torch.where(negative, angle, 0.0), steps, negative)
        waves = 2 * (self.residue[:, :1] * real - self.residue[:, 1:] * imag)
        channels = torch.arange(len(self.count), device=waves.device)
        channel = torch.repeat_interleave(channels, self.count, output_size=len(waves))
        return waves.new_zeros(len(channels), steps).index_add(0, channel, waves)


class RaggedS4D(nn.Module):
    """Drop-in for an S4D layer, on ``(batch, d_model, time)``: convolution with feedthrough, GELU, dropout, map with GLU.

    Parameters
    ----------
    counts
        As for `RaggedSlots`, for d_model channels.
    dropout : float
        Dropout probability in training.
    returns_state : bool
        Whether the layer returns a pair ``(y, None)``, as the original class does, or `y` alone.
    """

    def __init__(self, counts: Sequence[int] | Tensor, dropout: float = 0.0, returns_state: bool = True) -> None:
        super().__init__()
        self.slots = RaggedSlots(counts)
        self.d_output = d_model = len(self.slots.count)
        self.returns_state = returns_state
        self.D = nn.Parameter(torch.randn(d_model))
        self.dropout = nn.Dropout(dropout)
        self.output_linear = nn.Sequential(nn.Conv1d(d_model, 2 * d_model, 1), nn.GLU(dim=1))

    def convolve(self, u: Tensor) -> Tensor:
        """Output of the linear systems alone."""
        steps = u.shape[-1]
        size = 2 * steps  # zero padding: no wrap-around
        product = torch.fft.rfft(u, n=size) * torch.fft.rfft(self.slots(steps), n=size)
        return torch.fft.irfft(product, n=size)[..., :steps] + self.D[:, None] * u

    def forward(self, u: Tensor, **kwargs: object) -> Tensor | tuple[Tensor, None]:
        """Output of the shape of `u`, by default in a pair with None; other arguments are ignored, as in the original."""
        if u.ndim != 3 or u.shape[1] != self.d_output:
            raise DimensionError(f"u has shape {tuple(u.shape)}, expected (batch, {self.d_output}, time)")
        y = self.output_linear(self.dropout(F.gelu(self.convolve(u))))
        return (y, None) if self.returns_state else y


class RaggedS4DModel(nn.Module):
    """The S4D example model with `RaggedS4D` layers; its state dict has the keys of a ragged file.

    Parameters
    ----------
    d_input : int
        Features of an input time step.
    d_output : int
        Outputs.
    counts : sequence of sequences of int
        For each layer, how many slots each channel has.
    prenorm : bool
        Whether the normalisation stands before the layer or after the residual sum.
    dropout : float
        Dropout probability in training.
    """

    def __init__(
        self, d_input: int, d_output: int, counts: Sequence[Sequence[int] | Tensor], prenorm: bool = False, dropout: float = 0.0
    ) -> None:
        super().__init__()
        d_model = len(counts[0])
        self.prenorm = prenorm
        self.encoder = nn.Linear(d_input, d_model)
        self.s4_layers = nn.ModuleList(RaggedS4D(count, dropout) for count in counts)
        self.norms = nn.ModuleList(nn.LayerNorm(d_model) for _ in counts)
        self.dropout = nn.Dropout(dropout)
        self.decoder = nn.Linear(d_model, d_output)

    def forward(self, u: Tensor) -> Tensor:
        """Outputs (batch, d_output) of inputs (batch, time, d_input)."""
        x = self.encoder(u)
        for layer, norm in zip(self.s4_layers, self.norms, strict=True):
            z, _ = layer((norm(x) if self.prenorm else x).transpose(1, 2))
            z = self.dropout(z.transpose(1, 2))
            x = x + z if self.prenorm else norm(x + z)
        return self.decoder(x.mean(dim=1))

    def save(self, path: FilePath, *, overwrite: bool = False) -> None:
        """Write the model in the ragged format, as `LQODeepSSM.save` does in its own."""
        store(self, path, make_entry(self.prenorm), overwrite)

    @classmethod
    def load(cls, path: FilePath, dropout: float = 0.0) -> RaggedS4DModel:
        """The model in a file of the ragged format.

        Parameters
        ----------
        path : path-like
            File written by `save` or by ``DeepSSM.save(path, format="ragged")``.
        dropout : float
            Dropout probability in training, which the file does not hold.

        Otherwise as for `LQODeepSSM.load`.
        """
        tensors, extras = stored(path, "ragged")
        d_output, d_input = len(tensors["decoder.weight"]), tensors["encoder.weight"].shape[1]
        model = cls(d_input, d_output, _counts(tensors), check_entry(extras), dropout)
        model.to(tensors["encoder.weight"].dtype)
        model.load_state_dict(tensors)
        return model


def replace_s4d_layers(model: nn.Module, path: FilePath, returns_state: bool = True) -> nn.Module:
    """Put the layers of a ragged file into a model of the S4D example, and load the other tensors of the file too.

    Parameters
    ----------
    model : nn.Module
        A model with `encoder`, `s4_layers`, `norms` and `decoder` of the sizes of the file; it is changed. The state size
        of its layers does not matter. The new layers take over the dropout of the old ones.
    path : path-like
        File of the ragged format.
    returns_state
        As for `RaggedS4D`; the original model takes pairs (``z, _ = layer(z)``).

    Returns
    -------
    nn.Module
        The same `model`.

    Raises
    ------
    CheckpointError
        If the file is damaged or of another format.
    InvalidInputError
        If the model does not fit the file; it is then unchanged.
    """
    tensors, extras = stored(path, "ragged")
    _check_fits(model, tensors, check_entry(extras))
    layers = []
    for old, count in zip(cast(nn.ModuleList, model.s4_layers), _counts(tensors), strict=True):
        layer = RaggedS4D(count, returns_state=returns_state).to(cast(Tensor, old.D))
        layer.dropout = cast(nn.Dropout, old.dropout)
        layers.append(layer.train(old.training))
    model.s4_layers = nn.ModuleList(layers)
    model.load_state_dict(tensors)
    return model


def _counts(tensors: dict[str, Tensor]) -> list[Tensor]:
    return [tensors[f"s4_layers.{i}.slots.count"] for i in range(sum(key.endswith(".slots.count") for key in tensors))]


def _check_fits(model: nn.Module, tensors: dict[str, Tensor], prenorm: bool) -> None:
    """Raise where the tensors outside the kernels have other names or shapes in the model than in the file."""

    def outer(state: dict[str, Any]) -> dict[str, tuple[int, ...]]:
        return {key: tuple(value.shape) for key, value in state.items() if not re.search(r"\.(kernel|slots)\.", key)}

    own, wanted = outer(model.state_dict()), outer(tensors)
    different = [key for key in wanted | own if own.get(key) != wanted.get(key)]
    if different:
        shown = [f"{key}: {own.get(key, 'missing')} in the model, {wanted.get(key, 'missing')} in the file" for key in different]
        raise InvalidInputError(f"the model does not fit the file; {listing(shown, 3)}")
    if not all(getattr(layer, "transposed", True) for layer in cast(nn.ModuleList, model.s4_layers)):
        raise InvalidInputError("the layers of the model take (batch, time, d_model); only (batch, d_model, time) is supported")
    if getattr(model, "prenorm", prenorm) != prenorm:
        raise InvalidInputError(f"the model has prenorm = {model.prenorm}, the file says {prenorm}")
