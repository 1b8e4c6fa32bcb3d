"""The S4D example model of state-spaces/s4, written from its description.

Used by tests, benchmarks and the script that trains the demonstration model. The state dict has the keys and shapes
of that project's example checkpoints, so such files load with ``strict=True``.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class S4DKernel(nn.Module):
    """Convolution kernels of ``d_model`` diagonal systems with B = 1, discretised by zero-order hold.

    Each system stores ``d_state // 2`` complex slots, one of every conjugate pair, hence the factor 2 in the kernel.
    The initial state matrix is S4D-Lin; the initial steps are log-uniform between ``dt_min`` and ``dt_max``.
    """

    def __init__(self, d_model: int, d_state: int = 64, dt_min: float = 0.001, dt_max: float = 0.1):
        super().__init__()
        n = d_state // 2
        log_min, log_max = math.log(dt_min), math.log(dt_max)
        self.C = nn.Parameter(torch.randn(d_model, n, 2) * math.sqrt(0.5))
        self.log_dt = nn.Parameter(log_min + (log_max - log_min) * torch.rand(d_model))
        self.log_A_real = nn.Parameter(torch.full((d_model, n), math.log(0.5)))
        self.A_imag = nn.Parameter(math.pi * torch.arange(n, dtype=torch.get_default_dtype()).repeat(d_model, 1))

    def forward(self, length: int) -> Tensor:
        """Return the first ``length`` samples of every kernel, shape ``(d_model, length)``."""
        a = torch.complex(-torch.exp(self.log_A_real), self.A_imag)
        dt_a = torch.exp(self.log_dt)[:, None] * a
        weight = torch.view_as_complex(self.C) * (torch.exp(dt_a) - 1) / a
        powers = torch.exp(dt_a[..., None] * torch.arange(length, device=a.device))
        return 2 * torch.einsum("hn,hnl->hl", weight, powers).real


class S4D(nn.Module):
    """One layer on ``(batch, d_model, time)``: convolution + feed-through, GELU, dropout, pointwise linear map + GLU."""

    def __init__(self, d_model: int, d_state: int = 64, dropout: float = 0.0, **kernel_args: float):
        super().__init__()
        self.D = nn.Parameter(torch.randn(d_model))
        self.kernel = S4DKernel(d_model, d_state, **kernel_args)
        self.dropout = nn.Dropout(dropout)
        self.output_linear = nn.Sequential(nn.Conv1d(d_model, 2 * d_model, 1), nn.GLU(dim=1))

    def convolve(self, u: Tensor) -> Tensor:
        """Return the output of the linear systems alone."""
        length = u.shape[-1]
        size = 2 * length  # zero padding: no wrap-around
        product = torch.fft.rfft(u, n=size) * torch.fft.rfft(self.kernel(length), n=size)
        return torch.fft.irfft(product, n=size)[..., :length] + self.D[:, None] * u

    def forward(self, u: Tensor) -> Tensor:
        """Return the output of the layer, of the shape of ``u``."""
        return self.output_linear(self.dropout(F.gelu(self.convolve(u))))


class S4DModel(nn.Module):
    """Encoder, residual S4D blocks with LayerNorm before (``prenorm``) or after, mean over time, decoder.

    The input has shape ``(batch, time, d_input)``, the output ``(batch, d_output)``.
    """

    def __init__(
        self,
        d_input: int,
        d_output: int,
        d_model: int,
        n_layers: int,
        d_state: int = 64,
        prenorm: bool = False,
        dropout: float = 0.0,
        **kernel_args: float,
    ):
        super().__init__()
        self.prenorm = prenorm
        self.encoder = nn.Linear(d_input, d_model)
        self.s4_layers = nn.ModuleList(S4D(d_model, d_state, dropout, **kernel_args) for _ in range(n_layers))
        self.norms = nn.ModuleList(nn.LayerNorm(d_model) for _ in range(n_layers))
        self.dropout = nn.Dropout(dropout)
        self.decoder = nn.Linear(d_model, d_output)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of a batch of sequences."""
        x = self.encoder(x)
        for layer, norm in zip(self.s4_layers, self.norms, strict=True):
            z = norm(x) if self.prenorm else x
            z = self.dropout(layer(z.transpose(1, 2)).transpose(1, 2))
            x = x + z if self.prenorm else norm(x + z)
        return self.decoder(x.mean(dim=1))
