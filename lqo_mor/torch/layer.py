"""Systems as PyTorch layers; `lqo_mor.torch.model` makes whole models of them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lqo_mor.checkpoints.families.native import on_axis, system_arrays, system_from
from lqo_mor.errors import DimensionError, InvalidInputError
from lqo_mor.systems.diagonal import DiagonalLQOSystem
from lqo_mor.systems.quadratic import QuadraticOutput

_MARGIN = 1e-12  # from the unit circle: no sequence in use sees it
_NUDGE = 1e-12  # an angle far below single precision
_PAIR, _PADDING = 0, 2  # values of `kind`; 1 and -1 are the signs of real poles
_KERNELS_PER_SLOT = 24  # with more kernels than that, a training step is faster through the states (measured on CPUs)


def torch_layer(ssm: DiagonalLQOSystem, backward: int | None = None) -> SSMLayer:
    """A discrete system with delay 0 as a trainable layer, in double precision (``.float()`` makes it single).

    Parameters
    ----------
    ssm : DiagonalLQOSystem
        A batch (H,) of systems with one input each, or a single system, as in a `Block`.
    backward : {None, 0, 1}
        Delay of the second half of the outputs, if it runs backward in time; see `Block`.

    Returns
    -------
    SSMLayer

    Raises
    ------
    InvalidInputError
        If it is no diagonal system, or a continuous one, or `backward` does not fit.
    DimensionError
        If the batch has several axes, or several inputs.

    Examples
    --------
    >>> import torch, lqo_mor as lqo
    >>> layer = lqo.torch.torch_layer(lqo.DiagonalLQOSystem(poles=[0.5], B=[[1.0]], C=[[1.0]], dt=1.0))
    >>> layer(torch.tensor([[[1.0], [0.0], [0.0]]]).double()).round(decimals=9).flatten().tolist()
    [1.0, 0.5, 0.25]
    >>> state = layer.initial_state(1)
    >>> for u in (1.0, 0.0):
    ...     y, state = layer.step(torch.tensor([[u]]).double(), state)
    >>> y.item()
    0.5
    """
    if not isinstance(ssm, DiagonalLQOSystem):
        raise InvalidInputError(f"expected a DiagonalLQOSystem, got {type(ssm).__name__}; to_diagonal converts an LQOSystem")
    if ssm.is_continuous:
        raise InvalidInputError("the system is continuous, a layer needs a discrete one")
    if len(ssm.batch) > 1 or (ssm.batch and ssm.n_inputs != 1):
        raise DimensionError(
            f"a batch of systems must have one axis and one input, got batch {ssm.batch} with {ssm.n_inputs} inputs"
        )
    if backward not in (None, 0, 1):
        raise InvalidInputError(f"backward must be None, 0 or 1, got {backward!r}")
    if backward is not None and (ssm.n_outputs % 2 or ssm.M is not None):
        raise InvalidInputError("half of the outputs run backward: an even number, none quadratic")
    return SSMLayer(ssm, backward)


def random_system(width: int, n_slots: int, quadratic_rank: int = 0) -> DiagonalLQOSystem:
    """A random system to train from scratch, with as many inputs as outputs, by the random numbers of torch.

    Parameters
    ----------
    width : int
        Inputs and outputs d.
    n_slots : int
        Conjugate pairs of states.
    quadratic_rank : int
        Number of products c; 0 for a linear system.

    Returns
    -------
    DiagonalLQOSystem
        Its decay rates are log-uniform between 0.001 and 0.7, the angles between 0.002 and 3.1. The rows are scaled so that
        for white inputs of variance 1 each state and both outputs have variance of order 1.
    """

    def rows(count: int) -> np.ndarray:
        return torch.view_as_complex(torch.randn(count, n_slots, 2) / (2 * math.sqrt(n_slots))).numpy()

    nu_log, theta = random_poles(n_slots)
    gamma = torch.sqrt(1 - torch.exp(-2 * torch.exp(nu_log)))
    B = torch.view_as_complex(torch.randn(n_slots, width, 2) * gamma[:, None, None] / math.sqrt(2 * width)).numpy()
    C, D, quadratic = rows(width), np.diag(torch.randn(width).numpy()), None
    if quadratic_rank:
        U, V = rows(quadratic_rank), rows(quadratic_rank)
        quadratic = QuadraticOutput(U, V, (torch.randn(width, quadratic_rank) / math.sqrt(quadratic_rank)).numpy())
    return DiagonalLQOSystem(
        torch.exp(torch.complex(-torch.exp(nu_log.double()), theta.double())).numpy(), B, C, D, quadratic, dt=1.0
    )


def random_poles(n: int) -> tuple[Tensor, Tensor]:
    """Parameters `nu_log` and `theta` (n,) to start with."""

    def log_uniform(low: float, high: float) -> Tensor:
        return math.log(low) + (math.log(high) - math.log(low)) * torch.rand(n)

    return log_uniform(0.001, 0.7), torch.exp(log_uniform(0.002, 3.1))


def powers(
    nu_log: Tensor, theta: Tensor, steps: int, negative: Tensor | None = None, growing: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Real and imaginary parts of ``λ^0 ... λ^(steps-1)`` for ``λ = exp(-exp(nu_log) + i theta)``, each (..., steps).

    ``λ`` has the opposite sign where `negative` is true, which an angle of π would only round, and the inverse modulus where
    `growing` is.
    """
    # The phase grows to thousands of radians: in single precision it would lose its digits.
    time = torch.arange(steps, device=theta.device, dtype=torch.float64)
    phase = torch.remainder(theta.double()[..., None] * time, 2 * math.pi).to(nu_log.dtype)
    modulus = torch.exp(-_decay(nu_log, growing)[..., None] * time.to(nu_log.dtype))
    if negative is not None:
        modulus = modulus * torch.where(negative[..., None] & (time % 2 == 1), -1, 1)
    return modulus * torch.cos(phase), modulus * torch.sin(phase)


def _decay(nu_log: Tensor, growing: Tensor | None) -> Tensor:
    """The decay rates of poles, negative where they are growing."""
    rate = torch.exp(nu_log)
    return rate if growing is None else torch.where(growing, -rate, rate)


class _Convolution(torch.autograd.Function):
    """Causal convolution of kernels (rows, d, steps) with inputs (batch, d, steps), to (batch, rows, steps).

    The backward pass transforms real signals only, which automatic differentiation of the transforms would not do, and
    all transforms and products see contiguous arrays. The spectra are outputs, too, for the backward pass alone.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(kernels: Tensor, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        transfer, spectrum = _spectrum(kernels, (2, 0, 1)), _spectrum(u, (2, 1, 0))
        return _signal(transfer @ spectrum, (2, 1, 0)), transfer, spectrum

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(*inputs, *output[1:])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor | None, Tensor | None]:
        kernels, u, transfer, spectrum = ctx.saved_tensors
        if torch.is_grad_enabled():  # the gradients are to be differentiated again
            transfer, spectrum = _spectrum(kernels, (2, 0, 1)), _spectrum(u, (2, 1, 0))
        outer = _spectrum(gradient, (2, 1, 0))
        to_kernels = _signal(outer @ _adjoint(spectrum), (1, 2, 0)) if ctx.needs_input_grad[0] else None
        return to_kernels, _signal(_adjoint(transfer) @ outer, (2, 1, 0)) if ctx.needs_input_grad[1] else None


def _spectrum(signals: Tensor, order: tuple[int, int, int]) -> Tensor:
    """Spectra of signals, padded so that nothing wraps around, with the axes in another order."""
    return torch.fft.rfft(signals, n=2 * signals.shape[-1]).permute(order).contiguous()


def _signal(spectra: Tensor, order: tuple[int, int, int]) -> Tensor:
    """The causal part of the signals of spectra whose first axis is the frequency; `order` puts it last."""
    steps = spectra.shape[0] - 1
    return torch.fft.irfft(spectra.permute(order).contiguous(), n=2 * steps)[..., :steps]


def _adjoint(matrices: Tensor) -> Tensor:
    return matrices.mT.conj().resolve_conj().contiguous()


def check_precision(u: Tensor, parameter: Tensor) -> None:
    """Raise `InvalidInputError` unless inputs have the precision of a module, which its FFT would hide and its maps refuse."""
    if u.dtype != parameter.dtype:
        raise InvalidInputError(
            f"u is {u.dtype} and the module {parameter.dtype}; convert u, or the module by .float() or .double()"
        )


class SSMLayer(nn.Module):
    """The systems of one layer, on signals (batch, steps, features); `torch_layer` makes it.

    ``x[k] = λ ∘ x[k-1] + B u[k]``, ``y[k] = Re(C x[k]) + D u[k] + W (Re(U x[k]) ∘ Re(V x[k]))`` with twice the real parts for
    slots that stand for a conjugate pair, and ``λ = exp(-exp(nu_log) + i theta)``, so that every value gives a stable system;
    a pole outside of the unit circle stays there, with the other sign of its rate.
    A real pole stays real, one state with real rows, in training, and padding (slots without output) stays padding.

    Parameters
    ----------
    ssm, backward
        As for `torch_layer`; of a batch (H,) of systems, feature `i H + h` is output i of system h.

    Attributes
    ----------
    nu_log, theta : (H, n) or (n,) Parameter
        Poles of the slots.
    residue : (H, p, n, 2) Parameter, of a batch
        The product of output and input row, as a real view.
    B, C : (n, m, 2), (p, n, 2) Parameter, of a single system
        Input and output rows.
    D : Parameter
        (H, p) for a batch, (p, m) for a single system, and (p,) where its feedthrough is diagonal: it stays so.
    U, V, W : Parameter
        The quadratic output, where there is one: (H, c, n, 2) twice and (H, p, c), or the same without H.
    kind : (H, n) or (n,) int8 Tensor
        0 for a pair, 1 and -1 for a real pole of that sign, 2 for padding. As a buffer that the state dict leaves out.
    growing : (H, n) or (n,) bool Tensor or None
        Which poles lie outside of the unit circle, None where none does; a buffer like `kind`.
    """

    kind: Tensor
    growing: Tensor | None
    mask: Tensor
    weights: Tensor
    nu_log: nn.Parameter
    theta: nn.Parameter
    residue: nn.Parameter
    B: nn.Parameter
    C: nn.Parameter
    D: nn.Parameter
    U: nn.Parameter
    V: nn.Parameter
    W: nn.Parameter

    def __init__(self, ssm: DiagonalLQOSystem, backward: int | None = None) -> None:
        super().__init__()
        self.backward, self.dt, self.is_batch, self.n_outputs = backward, ssm.dt, bool(ssm.batch), ssm.n_outputs
        arrays = system_arrays(ssm)
        log_modulus = arrays.pop("log_modulus")
        growing = log_modulus > _MARGIN  # nearer to the circle is rounding
        arrays["nu_log"] = np.log(np.maximum(np.where(growing, log_modulus, -log_modulus), _MARGIN))
        D = arrays["D"]
        if not self.is_batch and D.shape[0] == D.shape[1] and np.array_equal(D, np.diag(np.diag(D))):
            arrays["D"] = np.diag(D)
        for name in ("nu_log", "theta", "residue", "B", "C", "D", "U", "V", "W"):  # the order in a file of `LQODeepSSM.save`
            if name in arrays:
                self.register_parameter(name, nn.Parameter(torch.from_numpy(np.array(arrays[name]))))
        self.has_quadratic = "W" in arrays
        rows = ssm.C if ssm.M is None else np.concatenate([ssm.C, ssm.M.U, ssm.M.V], axis=-2)
        heard = np.any(ssm.B, axis=-1) & np.any(rows, axis=-2)
        kind = np.where(~heard, _PADDING, np.where(ssm.is_real_pole, np.where(ssm.poles.real < 0, -1, 1), _PAIR))
        self._has_negative = bool(np.any(kind == -1))
        self.register_buffer("kind", torch.from_numpy(kind.astype(np.int8)), persistent=False)
        self.register_buffer("growing", torch.from_numpy(growing) if np.any(growing) else None, persistent=False)
        # Which parts of a complex row count, (..., n, 2): both for a pair, the real one for a real pole, none for padding.
        # The others are zero, and their gradients exactly zero, so that no optimiser moves them.
        mask = torch.stack([self.kind != _PADDING, self.kind == _PAIR], dim=-1)
        self.register_buffer("mask", mask.double(), persistent=False)
        self.register_buffer("weights", self.mask * (1 + self.mask[..., 1:]), persistent=False)

    @property
    def n_features(self) -> int:
        """Number of features that go in."""
        return self.kind.shape[0] if self.is_batch else self.B.shape[1]

    def forward(self, u: Tensor) -> Tensor:
        """Outputs (batch, steps, outputs) of inputs (batch, steps, features), from rest."""
        if u.ndim != 3 or u.shape[2] != self.n_features or 0 in u.shape:
            raise DimensionError(
                f"u has shape {tuple(u.shape)}, expected (batch, steps, {self.n_features}) with at least one sequence and step"
            )
        check_precision(u, self.nu_log)
        y = self._outputs(self.row_signals(u), u)
        if self.backward is None:
            return y
        half, reversed_u = y.shape[2] // 2, u.flip(1)
        reverse = self._outputs(self.row_signals(reversed_u), reversed_u)[..., half:].flip(1)
        return y[..., :half] + F.pad(reverse, (0, 0, 0, self.backward))[:, self.backward :]

    def initial_state(self, batch: int) -> Tensor:
        """The state at rest of `batch` sequences, complex (batch, H, n) or (batch, n)."""
        return torch.complex(self.nu_log.detach(), self.nu_log.detach()).new_zeros(batch, *self.kind.shape)

    def step(self, u: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """One time step.

        Parameters
        ----------
        u : (batch, features) Tensor
        state : Tensor
            From `initial_state`, or from the step before.

        Returns
        -------
        y : (batch, outputs) Tensor
            The output that `forward` gives at this step.
        state : Tensor
            For the next step; the given one is not changed.

        Raises
        ------
        InvalidInputError
            If the layer runs backward in time, or `u` has another precision.
        DimensionError
            If `u` or `state` has the wrong shape.
        """
        if self.backward is not None:
            raise InvalidInputError("this layer also runs backward in time: an output needs the inputs after it, so call forward")
        if u.ndim != 2 or u.shape[1] != self.n_features or state.shape != (len(u), *self.kind.shape):
            raise DimensionError(
                f"u and state have shapes {tuple(u.shape)} and {tuple(state.shape)}, expected (batch, {self.n_features}) and "
                f"(batch, {', '.join(map(str, self.kind.shape))})"
            )
        check_precision(u, self.nu_log)
        modulus, theta = torch.exp(-_decay(self.nu_log, self.growing)), self.theta * self.mask[..., 1]
        if self._has_negative:
            modulus = torch.where(self.kind == -1, -modulus, modulus)
        state = torch.complex(modulus * torch.cos(theta), modulus * torch.sin(theta)) * state + (
            u[..., None] if self.is_batch else self._drive(u)
        )
        signals = torch.view_as_real(state).flatten(-2)
        rows = torch.view_as_real(self._rows().conj().resolve_conj()).flatten(-2)
        rows = torch.einsum("bhs,hqs->bhq", signals, rows) if self.is_batch else signals @ rows.T
        return self._outputs(rows, u), state

    def system(self) -> DiagonalLQOSystem:
        """The layer as it is now, as a system in double precision."""
        kind, mask = self.kind.cpu().numpy(), self.mask[..., None, :, :]
        values = {name: value.detach() for name, value in self.named_parameters()}
        values |= {name: values[name] * mask for name in ("residue", "C", "U", "V") if name in values}
        if not self.is_batch:
            values["B"] = values["B"] * self.mask[:, None]
        arrays = {name: value.cpu().double().numpy() for name, value in values.items()}
        rate = np.exp(arrays.pop("nu_log"))
        arrays["log_modulus"] = -rate if self.growing is None else np.where(self.growing.cpu().numpy(), rate, -rate)
        theta = np.select([kind == 1, kind == -1], [0.0, np.pi], arrays["theta"])
        # A pair whose angle training has put onto the real axis stays a pair.
        arrays["theta"] = np.where((kind == _PAIR) & on_axis(theta), theta + _NUDGE, theta)
        if not self.is_batch and arrays["D"].ndim == 1:
            arrays["D"] = np.diag(arrays["D"])
        ssm = system_from(arrays)
        return DiagonalLQOSystem(ssm.poles, ssm.B, ssm.C, ssm.D, ssm.M, dt=self.dt)

    def kernels(self, steps: int) -> Tensor:
        """Impulse responses of the rows C, U and V, (H, q, steps) of a batch, (q, m, steps) of a single system.

        They do not depend on the inputs, and are one real matrix product of the residues with the powers of the poles.
        """
        residues, (real, imag) = self._rows(), self._powers(steps)
        if not self.is_batch:
            residues = residues[:, None] * self._input_rows().T
        return torch.view_as_real(residues).flatten(-2) @ torch.stack([real, -imag], dim=-2).flatten(-3, -2)

    def row_signals(self, u: Tensor) -> Tensor:
        """Signals of the rows C, U and V for inputs (batch, steps, features): (batch, steps, H, q) or (batch, steps, q)."""
        steps, size = u.shape[1], 2 * u.shape[1]  # zero padding: no wrap-around
        if self.is_batch:
            product = torch.fft.rfft(u.mT, n=size)[:, :, None] * torch.fft.rfft(self.kernels(steps), n=size)
            return torch.fft.irfft(product, n=size)[..., :steps].permute(0, 3, 1, 2)
        n_rows = self.n_outputs + (2 * self.U.shape[0] if self.has_quadratic else 0)
        if n_rows * self.n_features <= _KERNELS_PER_SLOT * len(self.kind):
            return _Convolution.apply(self.kernels(steps), u.mT)[0].mT  # type: ignore[no-untyped-call]  # torch does not type it
        rows, powers = self._rows(), torch.complex(*self._powers(steps))
        product = torch.fft.fft(self._drive(u).mT, n=size) * torch.fft.fft(powers, n=size)
        states = torch.fft.ifft(product, n=size)[..., :steps]
        return (rows.real @ states.real - rows.imag @ states.imag).mT

    def _rows(self) -> Tensor:
        """The complex rows of the linear outputs, then U and V, (..., q, n), with the factor 2 of the pairs."""
        rows: list[Tensor] = [self.residue if self.is_batch else self.C, *([self.U, self.V] if self.has_quadratic else [])]
        return torch.view_as_complex(torch.cat(rows, dim=-3) * self.weights[..., None, :, :])

    def _input_rows(self) -> Tensor:
        """The complex B (n, m) of a single system."""
        return torch.view_as_complex(self.B * self.mask[:, None])

    def _drive(self, u: Tensor) -> Tensor:
        """What drives the states of a single system, complex (..., n), for inputs (..., m)."""
        B = self._input_rows()
        return torch.complex(u @ B.real.T, u @ B.imag.T)

    def _powers(self, steps: int) -> tuple[Tensor, Tensor]:
        """Real and imaginary parts of the powers of the poles, each (..., n, steps)."""
        negative = self.kind == -1 if self._has_negative else None
        return powers(self.nu_log, self.theta * self.mask[..., 1], steps, negative, self.growing)

    def _outputs(self, rows: Tensor, u: Tensor) -> Tensor:
        """Outputs (..., features) from the signals of all rows and the inputs."""
        p = self.n_outputs
        if self.is_batch:
            y = rows[..., :p] + self.D * u[..., None]
        else:
            y = rows[..., :p] + (self.D * u if self.D.ndim == 1 else u @ self.D.T)
        if self.has_quadratic:
            left, right = rows[..., p:].chunk(2, dim=-1)
            product = left * right
            y = y + (torch.einsum("...hc,hpc->...hp", product, self.W) if self.is_batch else (self.W @ product.mT).mT)
        return y.mT.flatten(-2) if self.is_batch else y
