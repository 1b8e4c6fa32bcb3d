"""Deep models with linear-quadratic outputs as PyTorch modules, for training (needs torch).

A model trained here is saved in the LQO format, read by `lqo_mor.load_checkpoint`, compressed, and loaded again with
`LQODeepSSM.load` for fine-tuning. ``import lqo_mor`` does not import this file.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from lqo_mor.files import FilePath

try:
    import torch
    from torch import Tensor, nn
    from torch.nn import functional as F
except ImportError:
    from lqo_mor.errors import MissingDependencyError

    raise MissingDependencyError("torch", "torch", "lqo_mor.torch.trainable") from None

from lqo_mor.checkpoints.containers.files import write_file
from lqo_mor.checkpoints.families.lqo import check_config, make_config
from lqo_mor.checkpoints.load import load_checkpoint
from lqo_mor.errors import CheckpointError, DimensionError, InvalidInputError

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "relu": F.relu,
    "identity": lambda x: x,
}


class _Convolution(torch.autograd.Function):
    """Causal convolution of kernels (rows, d, steps) with inputs (batch, d, steps), to (batch, rows, steps).

    The backward pass transforms real signals only, which automatic differentiation of the transforms would not do, and
    all transforms and products see contiguous arrays.
    """

    @staticmethod
    def forward(ctx: Any, kernels: Tensor, u: Tensor) -> Tensor:
        transfer, spectrum = _spectrum(kernels, (2, 0, 1)), _spectrum(u, (2, 1, 0))
        ctx.save_for_backward(transfer, spectrum)
        return _signal(transfer @ spectrum, (2, 1, 0))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
        transfer, spectrum = ctx.saved_tensors
        outer = _spectrum(gradient, (2, 1, 0))
        kernels = _signal(outer @ _adjoint(spectrum), (1, 2, 0)) if ctx.needs_input_grad[0] else None
        u = _signal(_adjoint(transfer) @ outer, (2, 1, 0)) if ctx.needs_input_grad[1] else None
        return kernels, u


def _spectrum(signals: Tensor, order: tuple[int, int, int]) -> Tensor:
    """Spectra of signals, padded so that nothing wraps around, with the axes in another order."""
    return torch.fft.rfft(signals, n=2 * signals.shape[-1]).permute(order).contiguous()


def _signal(spectra: Tensor, order: tuple[int, int, int]) -> Tensor:
    """The causal part of the signals of spectra whose first axis is the frequency; `order` puts it last."""
    steps = spectra.shape[0] - 1
    return torch.fft.irfft(spectra.permute(order).contiguous(), n=2 * steps)[..., :steps]


def _adjoint(matrices: Tensor) -> Tensor:
    return matrices.mT.conj().resolve_conj().contiguous()


def powers(nu_log: Tensor, theta: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Real and imaginary parts of ``λ^0 ... λ^(steps-1)`` for ``λ = exp(-exp(nu_log) + i theta)``, each (slots, steps)."""
    # The phase grows to thousands of radians: in single precision it would lose its digits.
    time = torch.arange(steps, device=theta.device, dtype=torch.float64)
    phase = torch.remainder(theta.double()[:, None] * time, 2 * math.pi).to(nu_log.dtype)
    modulus = torch.exp(-torch.exp(nu_log)[:, None] * time.to(nu_log.dtype))
    return modulus * torch.cos(phase), modulus * torch.sin(phase)


class LQOLayer(nn.Module):
    """One system of width d with a linear and a quadratic output, on signals (batch, d, steps).

    ``x[k] = λ ∘ x[k-1] + B u[k]``, ``y[k] = 2 Re(C x[k]) + D ∘ u[k] + W ((2 Re U x[k]) ∘ (2 Re V x[k]))`` with
    ``λ = exp(-exp(nu_log) + i theta)``, so that every parameter gives a stable system.

    Parameters
    ----------
    width : int
        Inputs and outputs d.
    n_slots : int
        Conjugate pairs of states.
    quadratic_rank : int
        Number of products c; 0 for a linear system.

    Notes
    -----
    At the start the decay rates are log-uniform between 0.001 and 0.7, the angles between 0.002 and 3.1. The rows are
    scaled so that for white inputs of variance 1 each state and both outputs have variance of order 1.
    """

    def __init__(self, width: int, n_slots: int, quadratic_rank: int = 0) -> None:
        super().__init__()
        self.quadratic_rank = quadratic_rank

        def log_uniform(low: float, high: float) -> Tensor:
            return math.log(low) + (math.log(high) - math.log(low)) * torch.rand(n_slots)

        self.nu_log = nn.Parameter(log_uniform(0.001, 0.7))
        self.theta = nn.Parameter(torch.exp(log_uniform(0.002, 3.1)))
        gamma = torch.sqrt(1 - torch.exp(-2 * torch.exp(self.nu_log.detach())))
        self.B = nn.Parameter(torch.randn(n_slots, width, 2) * gamma[:, None, None] / math.sqrt(2 * width))
        self.C = nn.Parameter(torch.randn(width, n_slots, 2) / (2 * math.sqrt(n_slots)))
        self.D = nn.Parameter(torch.randn(width))
        if quadratic_rank:
            self.U = nn.Parameter(torch.randn(quadratic_rank, n_slots, 2) / (2 * math.sqrt(n_slots)))
            self.V = nn.Parameter(torch.randn(quadratic_rank, n_slots, 2) / (2 * math.sqrt(n_slots)))
            self.W = nn.Parameter(torch.randn(width, quadratic_rank) / math.sqrt(quadratic_rank))

    def kernels(self, steps: int) -> Tensor:
        """Impulse responses of the rows C, U and V, shape (d + 2c, d, steps).

        They do not depend on the batch, and are one real matrix product of the residues with the powers of the poles.
        """
        rows = torch.cat([self.C, self.U, self.V]) if self.quadratic_rank else self.C
        rows, B = torch.view_as_complex(rows), torch.view_as_complex(self.B)
        residues = 2 * rows[:, None, :] * B.T
        real, imag = powers(self.nu_log, self.theta, steps)
        return torch.cat([residues.real, residues.imag], dim=-1) @ torch.cat([real, -imag])

    def rows(self, u: Tensor) -> Tensor:
        """Signals ``2 Re(C x)``, ``2 Re(U x)`` and ``2 Re(V x)`` of inputs (batch, d, steps), shape (batch, d + 2c, steps)."""
        return _Convolution.apply(self.kernels(u.shape[-1]), u)  # type: ignore[no-untyped-call]  # torch does not type it

    def forward(self, u: Tensor) -> Tensor:
        """Outputs (batch, d, steps) of inputs of the same shape."""
        width = u.shape[1]
        rows = self.rows(u)
        y = rows[:, :width] + self.D[:, None] * u
        if self.quadratic_rank:
            left, right = rows[:, width:].chunk(2, dim=1)
            y = y + self.W @ (left * right)
        return y


class LQOBlock(nn.Module):
    """Residual block on (batch, steps, d): normalisation before or after, system, activation, dropout, linear map with gate."""

    def __init__(
        self, width: int, n_slots: int, quadratic_rank: int, prenorm: bool, activation: str, gate: str | None, dropout: float
    ) -> None:
        super().__init__()
        self.prenorm, self.gate = prenorm, gate
        self.activation = _ACTIVATIONS[activation]
        self.norm = nn.LayerNorm(width)
        self.ssm = LQOLayer(width, n_slots, quadratic_rank)
        self.dropout = nn.Dropout(dropout)
        self.mixing = nn.Linear(width, 2 * width if gate == "glu" else width)

    def forward(self, x: Tensor) -> Tensor:
        """Outputs of the shape of `x`."""
        z = self.norm(x) if self.prenorm else x
        z = self.ssm(z.transpose(1, 2)).transpose(1, 2)
        z = self.mixing(self.dropout(self.activation(z)))
        if self.gate == "glu":
            z = F.glu(z, dim=-1)
        x = x + self.dropout(z)
        return x if self.prenorm else self.norm(x)


class LQODeepSSM(nn.Module):
    """Deep state-space model whose layers have linear and quadratic outputs (the model class of arXiv:2510.14542).

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
    prenorm : bool
        Normalise before the layers, and once more at the end; otherwise after each residual sum.
    activation : {"gelu", "gelu_tanh", "relu", "identity"}
        Nonlinearity after the system.
    gate : {"glu", None}
        Gated or plain linear map at the end of each block.
    pooling : {"mean", "last", None}
        Mean over time, last step, or an output for every step.
    dropout : float
        Dropout probability in training.
    """

    def __init__(
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
        super().__init__()
        self.config = make_config(
            n_features=n_features,
            vocabulary=vocabulary,
            n_outputs=n_outputs,
            width=width,
            n_layers=n_layers,
            n_slots=n_slots,
            quadratic_rank=quadratic_rank,
            prenorm=prenorm,
            activation=activation,
            gate=gate,
            pooling=pooling,
            dropout=dropout,
        )
        try:
            check_config({"config": self.config})
        except CheckpointError as err:
            raise InvalidInputError(str(err)) from None
        slots = n_slots if isinstance(n_slots, list) else [n_slots] * n_layers
        ranks = quadratic_rank if isinstance(quadratic_rank, list) else [quadratic_rank] * n_layers
        self.encoder = nn.Linear(cast(int, n_features), width) if vocabulary is None else nn.Embedding(vocabulary, width)
        self.blocks = nn.ModuleList(
            LQOBlock(width, n, c, prenorm, activation, gate, dropout) for n, c in zip(slots, ranks, strict=True)
        )
        self.norm = nn.LayerNorm(width) if prenorm else None
        self.decoder = nn.Linear(width, n_outputs)

    def forward(self, u: Tensor) -> Tensor:
        """Outputs (batch, n_outputs) of inputs (batch, steps, n_features), or of tokens (batch, steps).

        Without pooling they have shape (batch, steps, n_outputs).
        """
        if u.ndim != (3 if self.config["vocabulary"] is None else 2):
            raise DimensionError(f"u has shape {tuple(u.shape)}, expected (batch, steps, features), or (batch, steps) of tokens")
        x = self.encoder(u)
        for block in self.blocks:
            x = block(x)
        if self.norm is not None:
            x = self.norm(x)
        if self.config["pooling"] == "mean":
            x = x.mean(dim=1)
        elif self.config["pooling"] == "last":
            x = x[:, -1]
        return self.decoder(x)

    def save(self, path: FilePath, overwrite: bool = False) -> None:
        """Write the parameters and the configuration; the suffix picks the container (.pth, .safetensors, .npz).

        Parameters
        ----------
        path : path-like
            New file.
        overwrite : bool
            Whether an existing file may be replaced.
        """
        state = {key: value.detach().cpu().numpy() for key, value in self.state_dict().items()}
        write_file(Path(path), state, None, {"config": self.config}, overwrite)

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
        """
        original = cast(Any, load_checkpoint(path, "lqo").source).original  # checks the file completely
        model = cls(**check_config(original.extras))
        tensors = {key: torch.from_numpy(value) for key, value in original.state.items()}
        model.to(next(iter(tensors.values())).dtype)
        model.load_state_dict(tensors)
        return model
