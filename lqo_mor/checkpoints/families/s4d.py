"""S4D layers of state-spaces/s4 (`models/s4/s4d.py`), and the example model of that repository as a whole.

Each of the H channels of a layer has `n` slots with ``A = -exp(log_A_real) + i A_imag``, a step
``dt = exp(log_dt)`` and the zero-order-hold kernel ``K_k = 2 Re Σ C (e^{dt A} - 1)/A e^{dt A k}``, plus `D` at lag 0.
A pole within 1e-12 of the unit circle is pulled inside, see `stable_poles`.
Only the product of input and output row matters for a channel, so the systems read here have ``B = 1``.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import replace

import numpy as np

from lqo_mor.checkpoints.contracts import Family, Layer
from lqo_mor.checkpoints.families.slots import SMALLEST, complex_numbers, real_view, size
from lqo_mor.checkpoints.settings import Settings
from lqo_mor.checkpoints.structures.s4_models import example_model
from lqo_mor.checkpoints.tensors import Shapes, Tensors, Values, check_tensors, stable_poles
from lqo_mor.errors import CheckpointError
from lqo_mor.systems.diagonal import DiagonalLQOSystem

_KERNEL = ("C", "log_dt", "log_A_real", "A_imag")
_EXAMPLE_KEY = re.compile(
    r"(encoder|decoder|norms\.\d+|s4_layers\.\d+\.output_linear\.0)\.(weight|bias)"
    rf"|s4_layers\.\d+\.(D|kernel\.({'|'.join(_KERNEL)}))"
)
_FLOAT32_EPS = float(np.finfo(np.float32).eps)


def _is_example(keys: Collection[str], layers: Collection[str]) -> bool:
    """Whether nothing but the example is there.

    S4D layers in another model have a format of their own, and so has an example without biases: with an embedding, or RMSNorm.
    """
    keys = set(keys)
    biased = all(key.removesuffix("weight") + "bias" in keys for key in keys if key.endswith(".weight"))
    kernels = any(re.fullmatch(r"s4_layers\.\d+\.kernel\.(log_A_real|A_imag)", key) for key in keys)
    return kernels and biased and all(_EXAMPLE_KEY.fullmatch(key) for key in keys)


def _shapes(tensors: Tensors, width: int | None) -> Shapes:
    slots = size(tensors, "kernel.C", 1, 3)
    shapes: Shapes = {"D": (width,), "kernel.C": (width, slots, 2), "kernel.log_dt": (width,)}
    return shapes | {"kernel.log_A_real": (width, slots), "kernel.A_imag": (width, slots)}


def _read(layer: str, tensors: Tensors, settings: Settings) -> Layer:
    """The channels of a layer as a batch (H,) of systems with ``B = 1``."""
    check_tensors(tensors, _shapes(tensors, size(tensors, "kernel.C", 0, 3)))
    log_dt, log_A_real, A_imag = (tensors[f"kernel.{key}"].astype(np.float64) for key in _KERNEL[1:])
    with np.errstate(all="ignore"):  # what overflows is reported below
        A = -np.exp(log_A_real) + 1j * A_imag
        z = np.exp(log_dt)[:, np.newaxis] * A
        poles = np.exp(z)
        residues = complex_numbers(tensors["kernel.C"]) * np.expm1(z) / A
    if not (np.all(np.isfinite(poles)) and np.all(np.isfinite(residues))):
        raise CheckpointError(f"{layer}: log_dt, log_A_real and A_imag give poles or residues that are not finite")
    # A negative real pole is stored with the angle π, but float32 misses π a little: undo that rounding.
    angle = np.abs(z.imag)
    negative = (np.abs(angle - np.pi) < 4 * _FLOAT32_EPS * np.pi) & (np.abs(residues.imag) <= 1e-5 * np.abs(residues))
    poles = np.where(negative, -np.abs(poles), poles)
    # The file counts a real pole twice, 2 Re(C B) λ^k, our half storage once.
    residues = np.where(poles.imag == 0, 2 * residues.real, residues)
    D = tensors["D"][:, np.newaxis, np.newaxis]
    return Layer(DiagonalLQOSystem(stable_poles(layer, poles), np.ones((*poles.shape, 1)), residues[:, np.newaxis], D, dt=1.0))


def channels(layer: str, ssm: DiagonalLQOSystem, format: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Poles and residues (H, s) of slots that all count twice, and the feedthrough (H) with what the poles at zero add to it."""
    if ssm.M is not None:
        raise CheckpointError(f"{layer} has a quadratic output, which the {format} format cannot store")
    poles, residues, real = stable_poles(layer, ssm.poles), ssm.C[:, 0] * ssm.B[..., 0], ssm.is_real_pole
    D = ssm.D[:, 0, 0] + np.sum(np.where(np.abs(poles) < SMALLEST, np.where(real, 1, 2) * residues.real, 0), axis=-1)
    return poles, np.where(real, 0.5, 1.0) * residues, D


def _write(layer: str, ssm: DiagonalLQOSystem, tensors: Tensors, settings: Values) -> Tensors:
    """The inverse of `_read` for the steps that the layer has."""
    poles, residues, D = channels(layer, ssm, "S4D")
    zero = np.abs(poles) < SMALLEST  # exp(dt A) does not reach it
    poles = np.where(zero, 0.5, poles)  # any pole will do, the slot becomes padding
    A = np.log(poles) / np.exp(tensors["kernel.log_dt"].astype(np.float64))[:, np.newaxis]
    C = residues * A / (poles - 1)
    A, C = np.where(zero, -0.5, A), np.where(zero, 0, C)
    return tensors | {"D": D, "kernel.C": real_view(C), "kernel.log_A_real": np.log(-A.real), "kernel.A_imag": A.imag}


S4D_LAYERS = Family(
    name="s4d-layers",
    looks_like="S4D layers in another model (kernel.{C, log_dt, log_A_real, A_imag}, D)",
    markers=("kernel.log_A_real",),
    names=("D", *(f"kernel.{key}" for key in _KERNEL)),
    read=_read,
    write=_write,
)
S4D = replace(
    S4D_LAYERS,
    name="s4d",
    looks_like="the S4D example model (encoder, s4_layers.N.kernel.{C, log_dt, log_A_real, A_imag}, norms.N, decoder)",
    structure=example_model(_is_example, _shapes, lambda extras, settings: settings.flag("prenorm", False)),
    parameters=lambda ssm: len(ssm.D) * (4 * ssm.n_slots + 2),
)
