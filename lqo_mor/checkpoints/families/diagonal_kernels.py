"""Diagonal kernels with a step per head: between their continuous parameters and batches of discrete systems.

Each of the H heads has `n` slots ``A = -f(real) + i g(imag)`` and steps ``dt = h(step)`` with transforms f, g, h, and with
``z = dt A`` the kernels ``K_j = 2 Re Σ C γ λ^j`` of p channels:

- "zoh": ``λ = e^z`` and ``γ = (e^z - 1)/A``,
- "bilinear": ``λ = (1 + z/2)/(1 - z/2)`` and ``γ = dt/(1 - z/2)``,
- "dss": ``λ = e^z`` and ``γ = (e^z - 1) x*/(|x|² + 1e-7)`` with ``x = (e^{zL} - 1) A`` for the length L, without the factor 2.

For real signals a slot may be replaced by its conjugate, so systems are written with Im A ≥ 0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import expit, logit

from lqo_mor.checkpoints.contracts import Layer
from lqo_mor.checkpoints.families.slots import NO_ANGLE, WAY_OUT, check_linear, discrete, per_slot, to_half_storage
from lqo_mor.checkpoints.settings import Settings
from lqo_mor.checkpoints.tensors import Values, stable_poles
from lqo_mor.errors import CheckpointError, LQOWarning, warn
from lqo_mor.systems.diagonal import DiagonalLQOSystem

# Moduli that stand for a pole at zero: e^z does not reach it, and the classes take the logarithm of a bilinear pole, which
# float32 must not round to zero.
_ZERO = {"zoh": 1e-30, "dss": 1e-30, "bilinear": 1e-6}
_INSIDE = 1.001  # how far a step that had to be moved stands inside of its range
DISCRETISATIONS = ("zoh", "bilinear", "dss")


@dataclass(frozen=True)
class Transform:
    """A map of stored numbers onto the open interval from `least` to `most`."""

    forward: Callable[[Any], Any]
    inverse: Callable[[Any], Any]
    least: float = 0.0
    most: float = np.inf


TRANSFORMS = {
    "none": Transform(lambda x: x, lambda y: y, -np.inf),
    "exp": Transform(np.exp, np.log),
    "relu": Transform(lambda x: np.maximum(x, 0) + 1e-4, lambda y: y - 1e-4, 1e-4),
    "sigmoid": Transform(expit, logit, most=1.0),
    "softplus": Transform(lambda x: np.logaddexp(0, x), lambda y: y + np.log(-np.expm1(-y))),
}


def under_sinh(step: Transform) -> Transform:
    """The transform of ``sinh(x)``, the option dt_fast."""
    return Transform(lambda x: step.forward(np.sinh(x)), lambda y: np.arcsinh(step.inverse(y)), step.least, step.most)


@dataclass(frozen=True)
class Kernel:
    """What the tensors of a diagonal kernel do not tell."""

    disc: str  # "zoh", "bilinear" or "dss"
    real: Transform  # of -Re A
    imag: Transform  # of Im A
    step: Transform  # of dt
    bandlimit: float | None = None  # slots with ``|Im z| >= π bandlimit`` are silent
    l_max: int | None = None  # longest kernel; "dss" depends on it

    @property
    def scale(self) -> int:
        """How often a slot counts; see `to_half_storage`."""
        return 1 if self.disc == "dss" else 2

    @property
    def is_stable(self) -> bool:
        """Whether all poles are inside of the unit circle."""
        return self.real.least >= 0


def kernel_v4(settings: Values) -> Kernel:
    """The kernel by the settings of version 4 of state-spaces/s4; that of a low-rank layer is bilinear."""
    step = TRANSFORMS[settings["dt_transform"]]
    return Kernel(
        settings.get("disc", "bilinear"),
        TRANSFORMS[settings["real_transform"]],
        TRANSFORMS[settings.get("imag_transform", "none")],
        under_sinh(step) if settings["dt_fast"] else step,
        settings.get("bandlimit"),
        settings.get("l_max"),
    )


def length_setting(settings: Settings, name: str) -> int | None:
    """The longest kernel, a setting; warns where there is one."""
    length = settings.integer(name, None)
    if length is not None:
        warn(
            f"the kernels of the model end after {name} = {length} steps, which no system of finite order does: the systems "
            "agree with the layers on sequences of up to that length",
            LQOWarning,
        )
    return length


def per_head(layer: str, array: np.ndarray, heads: int | None) -> np.ndarray:
    """Rows (S, n) that heads share, as (heads, n): head h has row ``h mod S``."""
    heads = heads or 0  # None only where a tensor is missing, which is refused before
    if heads % len(array):
        raise CheckpointError(f"{layer}: {len(array)} sets of poles (n_ssm) do not divide {heads} heads")
    return np.tile(array, (heads // len(array), 1))


def backward_delay(layer: str, name: str, outputs: int | None, D: np.ndarray) -> int | None:
    """The delay of the half of the outputs that runs backward; None where there are as many as `D` (c, H) has channels."""
    if outputs not in (len(D), 2 * len(D)):
        raise CheckpointError(
            f"{layer}: {name} has {outputs} channels and D {len(D)}; expected as many, or half for two directions"
        )
    return None if outputs == len(D) else 1


def half_storage(
    layer: str, poles: np.ndarray, residues: np.ndarray, scale: int, D: np.ndarray, stable: bool = True
) -> DiagonalLQOSystem:
    """A batch (H,) of systems with one input from slots that give ``scale Re(residue λ^k)`` each, by `to_half_storage`.

    `poles` (H, n), `residues` (H, p, n), and `scale` (1 or 2) for how often the format counts the real part of a slot. The
    feedthrough `D` (c, H) is that of the first `c` channels; where p = 2c the others run backward in time and have none. Stable
    poles are inside of the unit circle but for rounding. Slots without output get B = 0.
    """
    if not (np.all(np.isfinite(poles)) and np.all(np.isfinite(residues))):
        raise CheckpointError(f"{layer}: its tensors give poles or residues that are not finite")
    poles, _, residues = to_half_storage(poles, np.ones((*poles.shape, 1)), residues, scale)
    B = np.any(residues, axis=1)[..., np.newaxis].astype(float)
    D = np.concatenate([D, np.zeros((residues.shape[1] - len(D), len(poles)))])
    return DiagonalLQOSystem(stable_poles(layer, poles) if stable else poles, B, residues, D.T[..., np.newaxis], dt=1.0)


def linear_parts(layer: str, ssm: DiagonalLQOSystem) -> tuple[np.ndarray, np.ndarray]:
    """Residues (H, p, n) and feedthrough (p, H) of a batch of systems with linear outputs."""
    check_linear(layer, ssm)
    return ssm.C * np.swapaxes(ssm.B, -1, -2), ssm.D[:, :, 0].T


def forward_feedthrough(layer: str, D: np.ndarray, channels: int) -> np.ndarray:
    """The feedthrough (channels, H) of the outputs that run forward in time; raises if the others have one."""
    if np.any(D[channels:]):
        raise CheckpointError(f"{layer} has a feedthrough in its backward direction, which its class has not; {WAY_OUT}")
    return D[:channels]


def read_system(layer: str, kernel: Kernel, A: np.ndarray, dt: np.ndarray, C: np.ndarray, D: np.ndarray) -> Layer:
    """The layer with the poles `A` (H, n), steps `dt` (H, 1 or n), products `C` (p, H, n) and feedthrough `D` (c, H)."""
    backward = backward_delay(layer, "C", len(C), D)
    if not np.all(dt > 0):
        raise CheckpointError(f"{layer} has steps that are not positive; check the setting dt_transform")
    if kernel.disc == "dss" and kernel.l_max is None:
        raise CheckpointError(
            "the kernel of disc = 'dss' depends on its length: give the setting l_max, the smaller one of the length of the "
            "sequences and of l_max in the model's configuration"
        )
    if kernel.disc == "dss" and np.any(A.real > 0):
        raise CheckpointError(f"{layer} has Re A > 0 with disc = 'dss', whose kernel is that of no system with a state")
    with np.errstate(all="ignore"):  # what is not finite is reported
        poles, gains = _discrete(kernel, A, dt)
        residues = np.swapaxes(C * gains, 0, 1)
    if kernel.bandlimit is not None:
        residues = np.where((dt * np.abs(A.imag) >= np.pi * kernel.bandlimit)[:, np.newaxis], 0, residues)
    return Layer(half_storage(layer, poles, residues, kernel.scale, D.astype(np.float64), kernel.is_stable), backward)


def _discrete(kernel: Kernel, A: np.ndarray, dt: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Poles λ and gains γ, see above."""
    if kernel.disc != "dss":
        return discrete(A, dt, kernel.disc)
    z = dt * A
    x = np.expm1(z * kernel.l_max) * A
    return np.exp(z), np.expm1(z) * np.conj(x) / (np.abs(x) ** 2 + 1e-7)


def parameters(layer: str, kernel: Kernel, ssm: DiagonalLQOSystem, step: np.ndarray) -> tuple[np.ndarray, ...]:
    """The inverse of `read_system`: the stored numbers for a batch of systems.

    Returns `step` (H, 1 or slots) in the number type of the stored one, `real` and `imag` (H, slots) before the transforms, and
    complex `C` (p, H, slots), the products of the input and output rows. The steps so far, (H, 1 or n), stay where the
    transforms allow it.
    """
    residues, _ = linear_parts(layer, ssm)
    silent = ~np.any(residues, axis=1)
    z = _continuous(layer, kernel, ssm, silent)
    if step.shape[1] > 1:  # one step a slot: the slots are others now, and all start from the mean of the old steps
        step = np.broadcast_to(step.mean(axis=1, keepdims=True), z.shape)
    step = _moved_steps(layer, kernel, z, silent, step)
    dt = kernel.step.forward(step.astype(np.float64))
    A = np.where(silent, -0.5 + 0.5j, z / dt)  # any stable one for the silent slots
    C = np.swapaxes(np.where((ssm.poles.imag < 0)[:, np.newaxis], np.conj(residues), residues), 0, 1)
    C = C * per_slot(ssm, kernel.scale) / _discrete(kernel, A, dt)[1]
    return step, kernel.real.inverse(-A.real), kernel.imag.inverse(A.imag), C


def _continuous(layer: str, kernel: Kernel, ssm: DiagonalLQOSystem, silent: np.ndarray) -> np.ndarray:
    """``z = dt A`` with Im z ≥ 0 of the slots that are not silent."""
    poles = np.where(silent, 0.5, ssm.poles)
    if kernel.is_stable:
        poles = stable_poles(layer, poles)
    poles = np.where(np.abs(poles) < _ZERO[kernel.disc], _ZERO[kernel.disc], poles)
    if kernel.disc == "bilinear":
        with np.errstate(divide="ignore", invalid="ignore"):
            z = 2 * (poles - 1) / (poles + 1)
        if not np.all(np.isfinite(z)):
            raise CheckpointError(f"{layer} has a pole at -1, which no bilinear step gives; {WAY_OUT}")
    else:
        z = np.log(poles)
    z = z.real + 1j * np.abs(z.imag)
    if kernel.bandlimit is not None and np.any((z.imag >= np.pi * kernel.bandlimit) & ~silent):
        raise CheckpointError(
            f"{layer} has a pole above the bandlimit of {kernel.bandlimit}, which its class makes silent; {WAY_OUT}"
        )
    return z.real + 1j * np.maximum(z.imag, NO_ANGLE) if kernel.imag.least >= 0 else z


def _moved_steps(layer: str, kernel: Kernel, z: np.ndarray, silent: np.ndarray, step: np.ndarray) -> np.ndarray:
    """The stored steps, moved only as far as -Re z/dt, Im z/dt and dt must lie in the ranges of their transforms."""
    low, high = np.zeros(z.shape), np.full(z.shape, kernel.step.most)
    for size, transform in ((-z.real, kernel.real), (z.imag, kernel.imag)):
        low = np.where(silent, low, np.maximum(low, size / transform.most))
        if transform.least > 0:
            high = np.where(silent, high, np.minimum(high, size / transform.least))
    low = np.maximum(low, kernel.step.least)
    if step.shape[1] == 1:
        low, high = low.max(axis=1, keepdims=True), high.min(axis=1, keepdims=True)
    dt = kernel.step.forward(step.astype(np.float64))
    inside = (low < dt) & (dt < high)
    low, high = low * _INSIDE, high / _INSIDE
    if np.any(~inside & (low > high)):
        raise CheckpointError(
            f"{layer}: no step puts all poles into the ranges of the transforms that its class was built with; {WAY_OUT}"
        )
    moved = kernel.step.inverse(np.clip(dt, low, high)).astype(step.dtype)
    return np.where(inside, step, moved)
