"""Systems as PyTorch layers, for training and for inference step by step (needs torch).

`lqo_mor.torch.model` makes whole models of them. ``import lqo_mor`` does not import this file.
"""

from __future__ import annotations

import numpy as np

from lqo_mor.checkpoints.families.native import on_axis, system_arrays, system_from
from lqo_mor.errors import DimensionError, InvalidInputError, MissingDependencyError, UnstableSystemError
from lqo_mor.systems.diagonal import DiagonalLQOSystem

try:
    import torch
    from torch import Tensor, nn
    from torch.nn import functional as F
except ImportError:
    raise MissingDependencyError("torch", "torch", "lqo_mor.torch.layer") from None

from lqo_mor.torch.trainable import powers

_MARGIN = 1e-12  # from the unit circle: no sequence in use sees it
_NUDGE = 1e-12  # an angle far below single precision
_PAIR, _PADDING = 0, 2  # values of `kind`; 1 and -1 are the signs of real poles


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
    UnstableSystemError
        If a pole lies outside of the unit circle.
    DimensionError
        If the batch has several axes, or several inputs.

    Examples
    --------
    >>> import torch, lqo_mor as lqo
    >>> from lqo_mor.torch.layer import torch_layer
    >>> layer = torch_layer(lqo.DiagonalLQOSystem(poles=[0.5], B=[[1.0]], C=[[1.0]]))
    >>> layer(torch.tensor([[[1.0], [0.0], [0.0]]]).double()).flatten().tolist()
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
    if backward is not None and (ssm.n_outputs % 2 or ssm.quadratic is not None):
        raise InvalidInputError("half of the outputs run backward: an even number, none quadratic")
    largest = np.max(np.abs(ssm.poles))
    if largest > 1 + _MARGIN:
        raise UnstableSystemError(f"a pole has modulus {largest:.6g}, but every value of a layer's parameters is a stable system")
    return SSMLayer(ssm, backward)


def check_precision(u: Tensor, parameter: Tensor) -> None:
    """Raise `InvalidInputError` unless inputs have the precision of a module, which its FFT would hide and its maps refuse."""
    if u.dtype != parameter.dtype:
        raise InvalidInputError(
            f"u is {u.dtype} and the module {parameter.dtype}; convert u, or the module by .float() or .double()"
        )


class SSMLayer(nn.Module):
    """The systems of one layer, on signals (batch, steps, features); `torch_layer` makes it.

    ``x[k] = λ ∘ x[k-1] + B u[k]``, ``y[k] = Re(C x[k]) + D u[k] + W (Re(U x[k]) ∘ Re(V x[k]))`` with twice the real parts for
    slots that stand for a conjugate pair, and ``λ = exp(-exp(nu_log) + i theta)``, so that every value gives a stable system.
    A real pole stays real, one state with real rows, in training, and padding (slots without output) stays padding.

    Parameters
    ----------
    ssm : DiagonalLQOSystem
        A batch (H,) of systems, whose feature `i H + h` is output i of system h, or a single system with m inputs.
    backward : {None, 0, 1}
        Delay of the second half of the outputs, if it runs backward in time.

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
        As a buffer: 0 for a pair, 1 and -1 for a real pole of that sign, 2 for padding.
    """

    kind: Tensor
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
        arrays["nu_log"] = np.log(np.maximum(-arrays.pop("log_modulus"), _MARGIN))
        D = arrays["D"]
        if not self.is_batch and D.shape[0] == D.shape[1] and np.array_equal(D, np.diag(np.diag(D))):
            arrays["D"] = np.diag(D)
        for name, value in arrays.items():
            self.register_parameter(name, nn.Parameter(torch.from_numpy(np.array(value))))
        self.has_quadratic = "W" in arrays
        rows = ssm.C if ssm.quadratic is None else np.concatenate([ssm.C, ssm.quadratic.U, ssm.quadratic.V], axis=-2)
        heard = np.any(ssm.B, axis=-1) & np.any(rows, axis=-2)
        kind = np.where(~heard, _PADDING, np.where(ssm.is_real_pole, np.where(ssm.poles.real < 0, -1, 1), _PAIR))
        self.register_buffer("kind", torch.from_numpy(kind.astype(np.int8)))

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
        y = self._outputs(self._row_signals(u), u)
        if self.backward is None:
            return y
        half, reversed_u = y.shape[2] // 2, u.flip(1)
        reverse = self._outputs(self._row_signals(reversed_u), reversed_u)[..., half:].flip(1)
        return y[..., :half] + F.pad(reverse, (0, 0, 0, self.backward))[:, self.backward :]

    def initial_state(self, batch: int) -> Tensor:
        """The state at rest of `batch` sequences, complex (batch, H, n) or (batch, n)."""
        return torch.complex(self.nu_log.detach(), self.nu_log.detach()).new_zeros(batch, *self.kind.shape)

    def step(self, u: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """One time step.

        Parameters
        ----------
        u : (batch, features) Tensor
            The input.
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
        modulus = torch.exp(-torch.exp(self.nu_log))
        pair = self.kind == _PAIR
        cosine = torch.where(pair, torch.cos(self.theta), torch.where(self.kind == -1, -1, 1))
        poles = torch.complex(modulus * cosine, modulus * torch.where(pair, torch.sin(self.theta), 0.0))
        state = poles * state + (u[..., None] if self.is_batch else self._drive(u))
        signals = torch.view_as_real(state).flatten(-2)
        rows = torch.view_as_real(self._rows().conj().resolve_conj()).flatten(-2)
        rows = torch.einsum("bhs,hqs->bhq", signals, rows) if self.is_batch else signals @ rows.T
        return self._outputs(rows, u), state

    def system(self) -> DiagonalLQOSystem:
        """The layer as it is now, as a system in double precision."""
        kind = self.kind.cpu().numpy()
        mask = self._mask().detach()
        arrays = {}
        for name, parameter in self.named_parameters():
            value: Tensor = parameter
            if name in ("residue", "C", "U", "V"):
                value = value * mask[..., None, :, :]
            elif name == "B":
                value = value * mask[:, None, :]
            arrays[name] = value.detach().cpu().double().numpy()
        arrays["log_modulus"] = -np.exp(arrays.pop("nu_log"))
        theta = np.select([kind == 1, kind == -1], [0.0, np.pi], arrays["theta"])
        # A pair whose angle training has put onto the real axis stays a pair.
        arrays["theta"] = np.where((kind == _PAIR) & on_axis(theta), theta + _NUDGE, theta)
        if not self.is_batch and arrays["D"].ndim == 1:
            arrays["D"] = np.diag(arrays["D"])
        ssm = system_from(arrays)
        return DiagonalLQOSystem(ssm.poles, ssm.B, ssm.C, ssm.D, ssm.quadratic, self.dt)

    def _mask(self) -> Tensor:
        """Which parts of a complex row count, (..., n, 2): both for a pair, the real one for a real pole, none for padding.

        The others are zero, and their gradients exactly zero, so that no optimiser moves them.
        """
        return torch.stack([self.kind != _PADDING, self.kind == _PAIR], dim=-1).to(self.nu_log.dtype)

    def _rows(self) -> Tensor:
        """The complex rows of the linear outputs, then U and V, (..., q, n), with the factor 2 of the pairs."""
        rows: list[Tensor] = [self.residue if self.is_batch else self.C, *([self.U, self.V] if self.has_quadratic else [])]
        weights = self._mask() * torch.where(self.kind == _PAIR, 2.0, 1.0)[..., None]
        return torch.view_as_complex(torch.cat(rows, dim=-3) * weights.to(self.nu_log.dtype)[..., None, :, :])

    def _drive(self, u: Tensor) -> Tensor:
        """What drives the states of a single system, complex (..., n), for inputs (..., m)."""
        B = self.B * self._mask()[:, None, :]
        return torch.complex(u @ B[..., 0].T, u @ B[..., 1].T)

    def _powers(self, steps: int) -> tuple[Tensor, Tensor]:
        """Real and imaginary parts of the powers of the poles, each (..., n, steps)."""
        theta = torch.where(self.kind == _PAIR, self.theta, 0.0)
        real, imag = powers(self.nu_log.flatten(), theta.flatten(), steps)
        odd = torch.arange(steps, device=real.device) % 2 == 1
        signs = torch.where((self.kind.flatten() == -1)[:, None] & odd, -1.0, 1.0).to(real.dtype)
        return (real * signs).unflatten(0, self.kind.shape), imag.unflatten(0, self.kind.shape)

    def _row_signals(self, u: Tensor) -> Tensor:
        """The signals of all rows, (batch, steps, H, q) or (batch, steps, q), by fast convolution."""
        steps, (real, imag), rows = u.shape[1], self._powers(u.shape[1]), self._rows()
        size = 2 * steps  # zero padding: no wrap-around
        if self.is_batch:
            kernels = torch.cat([rows.real, rows.imag], dim=-1) @ torch.cat([real, -imag], dim=-2)
            product = torch.fft.rfft(u.mT, n=size)[:, :, None] * torch.fft.rfft(kernels, n=size)
            return torch.fft.irfft(product, n=size)[..., :steps].permute(0, 3, 1, 2)
        # The states and not the kernels: their number does not grow with that of inputs times outputs.
        product = torch.fft.fft(self._drive(u).mT, n=size) * torch.fft.fft(torch.complex(real, imag), n=size)
        states = torch.fft.ifft(product, n=size)[..., :steps]
        return (rows.real @ states.real - rows.imag @ states.imag).mT

    def _outputs(self, rows: Tensor, u: Tensor) -> Tensor:
        """Outputs (..., features) from the signals of all rows and the inputs."""
        p = self.n_outputs
        if self.is_batch:
            y = rows[..., :p] + self.D * u[..., None]
        else:
            y = rows[..., :p] + (self.D * u if self.D.ndim == 1 else u @ self.D.T)
        if self.has_quadratic:
            left, right = rows[..., p:].chunk(2, dim=-1)
            y = y + torch.einsum("...hc,hpc->...hp" if self.is_batch else "...c,pc->...p", left * right, self.W)
        return y.mT.flatten(-2) if self.is_batch else y
