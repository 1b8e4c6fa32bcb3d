"""The S4D example model of state-spaces/s4: encoder, S4D layers, normalisations, decoder.

Each of the H channels of a layer has `n` slots with ``A = -exp(log_A_real) + i A_imag``, a step
``dt = exp(log_dt)`` and the zero-order-hold kernel ``K_k = 2 Re Σ C (e^{dt A} - 1)/A e^{dt A k}``, plus `D` at lag 0.
A pole within 1e-12 of the unit circle is pulled inside, see `stable_poles`.
Only the product of input and output row matters for a channel, so the models read here have ``B = 1``.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from typing import cast

import numpy as np

from lqo_mor.checkpoints.settings import Settings
from lqo_mor.checkpoints.tensors import (
    Format,
    Original,
    Shapes,
    Tensors,
    Values,
    check_tensors,
    layer_count,
    rounded,
    stable_poles,
)
from lqo_mor.errors import CheckpointError
from lqo_mor.network.blocks import Block
from lqo_mor.network.layers import LayerNorm, Linear
from lqo_mor.network.model import DeepSSM
from lqo_mor.systems.diagonal import DiagonalLQOSystem

KERNEL = ("C", "log_dt", "log_A_real", "A_imag")
_KEY = re.compile(
    r"(encoder|decoder|norms\.\d+|s4_layers\.\d+\.output_linear\.0)\.(weight|bias)"
    rf"|s4_layers\.\d+\.(D|kernel\.({'|'.join(KERNEL)}))"
)
_ZERO = 1e-30  # a pole below this acts at lag 0 only, and exp(dt A) does not reach it
_FLOAT32_EPS = float(np.finfo(np.float32).eps)


def _recognises(keys: Collection[str]) -> bool:
    """Whether nothing but the example is there.

    S4D layers in another model have a format of their own, and so has an example without biases: with an embedding, or RMSNorm.
    """
    keys = set(keys)
    biased = all(key.removesuffix("weight") + "bias" in keys for key in keys if key.endswith(".weight"))
    kernels = any(re.fullmatch(r"s4_layers\.\d+\.kernel\.(log_A_real|A_imag)", key) for key in keys)
    return kernels and biased and all(_KEY.fullmatch(key) for key in keys)


def _read(state: Tensors, extras: Values, settings: Settings) -> DeepSSM:
    """The model in `state`; whether it normalises first is not in the tensors."""
    prenorm = settings.flag("prenorm", False)
    n_layers = layer_count(state, "s4_layers")
    check_tensors(state, shapes(state, n_layers))
    systems = []
    for layer in (f"s4_layers.{i}" for i in range(n_layers)):
        kernel = [state[f"{layer}.kernel.{key}"].astype(np.float64) for key in KERNEL]
        systems.append(system(layer, kernel, state[f"{layer}.D"]))
    return model_around(systems, state, prenorm)


def model_around(systems: Iterable[DiagonalLQOSystem], state: Tensors, prenorm: bool) -> DeepSSM:
    """The example with these systems, and everything else from `state`."""
    blocks = []
    for i, ssm in enumerate(systems):
        layer, norm = f"s4_layers.{i}", LayerNorm(state[f"norms.{i}.weight"], state[f"norms.{i}.bias"])
        mixing = Linear(state[f"{layer}.output_linear.0.weight"][:, :, 0], state[f"{layer}.output_linear.0.bias"])
        blocks.append(Block(layer, ssm, mixing, norm, prenorm, activation="gelu", gate="glu"))
    encoder = Linear(state["encoder.weight"], state["encoder.bias"])
    return DeepSSM(encoder, tuple(blocks), Linear(state["decoder.weight"], state["decoder.bias"]))


def shapes(state: Tensors, n_layers: int) -> Shapes:
    """The expected shape of every key, with the sizes taken from the encoder and from each `kernel.C`."""
    encoder = state.get("encoder.weight")
    width = encoder.shape[0] if encoder is not None and encoder.ndim == 2 else None
    wanted: Shapes = {"encoder.weight": (None, None), "encoder.bias": (width,)}
    for i in range(n_layers):
        layer = f"s4_layers.{i}"
        C = state.get(f"{layer}.kernel.C")
        slots = C.shape[1] if C is not None and C.ndim == 3 else None
        wanted |= {
            f"{layer}.D": (width,),
            f"{layer}.kernel.C": (width, slots, 2),
            f"{layer}.kernel.log_dt": (width,),
            f"{layer}.kernel.log_A_real": (width, slots),
            f"{layer}.kernel.A_imag": (width, slots),
            f"{layer}.output_linear.0.weight": (None if width is None else 2 * width, width, 1),
            f"{layer}.output_linear.0.bias": (None if width is None else 2 * width,),
            f"norms.{i}.weight": (width,),
            f"norms.{i}.bias": (width,),
        }
    decoder = state.get("decoder.weight")
    outputs = decoder.shape[0] if decoder is not None and decoder.ndim == 2 else None
    return wanted | {"decoder.weight": (outputs, width), "decoder.bias": (outputs,)}


def system(layer: str, kernel: Iterable[np.ndarray], D: np.ndarray) -> DiagonalLQOSystem:
    """The channels of a layer as a batch (H,) of systems with ``B = 1``, from the tensors `KERNEL` and `D`."""
    C, log_dt, log_A_real, A_imag = kernel
    with np.errstate(all="ignore"):  # what overflows is reported below
        A = -np.exp(log_A_real) + 1j * A_imag
        z = np.exp(log_dt)[:, np.newaxis] * A
        poles = np.exp(z)
        residues = (C[..., 0] + 1j * C[..., 1]) * np.expm1(z) / A
    if not (np.all(np.isfinite(poles)) and np.all(np.isfinite(residues))):
        raise CheckpointError(f"{layer}: log_dt, log_A_real and A_imag give poles or residues that are not finite")
    # A negative real pole is stored with the angle π, but float32 misses π a little: undo that rounding.
    angle = np.abs(z.imag)
    negative = (np.abs(angle - np.pi) < 4 * _FLOAT32_EPS * np.pi) & (np.abs(residues.imag) <= 1e-5 * np.abs(residues))
    poles = np.where(negative, -np.abs(poles), poles)
    # The file counts a real pole twice, 2 Re(C B) λ^k, our half storage once.
    residues = np.where(poles.imag == 0, 2 * residues.real, residues)
    poles = stable_poles(layer, poles)
    return DiagonalLQOSystem(poles, np.ones((*poles.shape, 1)), residues[:, np.newaxis], D[:, np.newaxis, np.newaxis])


def kernel_tensors(layer: str, ssm: DiagonalLQOSystem, log_dt: np.ndarray) -> dict[str, np.ndarray]:
    """The inverse of `system`: the tensors of a batch of systems for given steps."""
    poles, D = stable_poles(layer, ssm.poles), ssm.D[:, 0, 0]
    real = ssm.is_real_pole
    residues = ssm.C[:, 0, :] * ssm.B[:, :, 0]
    if ssm.quadratic is not None:
        raise CheckpointError(f"{layer} has a quadratic output, which the S4D format cannot store")
    zero = np.abs(poles) < _ZERO
    D = D + np.sum(np.where(zero, np.where(real, 1, 2) * residues.real, 0), axis=-1)
    poles = np.where(zero, 0.5, poles)  # any pole will do, the slot becomes padding
    A = np.log(poles) / np.exp(log_dt)[:, np.newaxis]
    C = np.where(real, 0.5, 1.0) * residues * A / (poles - 1)
    A, C = np.where(zero, -0.5, A), np.where(zero, 0, C)
    return {"D": D, "kernel.C": np.stack([C.real, C.imag], -1), "kernel.log_A_real": np.log(-A.real), "kernel.A_imag": A.imag}


def _write(model: DeepSSM, original: Original) -> tuple[Tensors, Values]:
    """The tensors of `model`, each layer with its own number of slots."""
    values = outer_tensors(model, original)
    for i, block in enumerate(model.blocks):
        layer = f"s4_layers.{i}"
        if not original.kept(i, model):
            log_dt = original.state[f"{layer}.kernel.log_dt"].astype(np.float64)
            kernel = kernel_tensors(layer, block.ssm, log_dt)
            values |= {f"{layer}.{key}": value for key, value in kernel.items()}
    state = {key: rounded(key, values[key], old.dtype) if key in values else old for key, old in original.state.items()}
    return state, original.extras


def outer_tensors(model: DeepSSM, original: Original) -> Values:
    """The tensors around the systems, the inverse of `model_around`; raises where the structure was changed."""
    _check_representable(model, original)
    maps = {"encoder": cast(Linear, model.encoder), "decoder": cast(Linear, model.decoder)}
    values: Values = {f"{key}.{part}": getattr(layer, part) for key, layer in maps.items() for part in ("weight", "bias")}
    for i, block in enumerate(model.blocks):
        mixing, norm = cast(Linear, block.mixing), cast(LayerNorm, block.norm)
        values[f"s4_layers.{i}.output_linear.0.weight"] = mixing.weight[:, :, np.newaxis]
        values[f"s4_layers.{i}.output_linear.0.bias"] = mixing.bias
        values[f"norms.{i}.weight"], values[f"norms.{i}.bias"] = norm.weight, norm.bias
    return values


def _check_representable(model: DeepSSM, original: Original) -> None:
    """Raise where the model has another structure than the one that was read."""
    old = original.model
    same = len(model.blocks) == len(old.blocks) and type(model.encoder) is Linear and model.norm is None
    same = same and model.pooling == old.pooling
    for a, b in zip(model.blocks, old.blocks, strict=False):
        same = same and all(
            getattr(a, name) == getattr(b, name) for name in ("width", "prenorm", "activation", "gate", "residual")
        )
        same = (
            same and a.ssm.batch == b.ssm.batch and type(a.mixing) is Linear and a.mixing.bias is not None and a.norm is not None
        )
    biases = (getattr(part, "bias", None) for part in (model.encoder, model.decoder))
    if not (same and all(bias is not None for bias in biases)):
        raise CheckpointError("the structure of the model was changed; the S4D format stores only changed numbers")


def _layer_parameters(model: DeepSSM, original: Original) -> tuple[int, ...]:
    slots = max((block.ssm.n_slots for block in model.blocks), default=0)
    return tuple(block.width * (4 * slots + 2) for block in model.blocks)


S4D = Format(
    name="s4d",
    looks_like="the S4D example model (encoder, s4_layers.N.kernel.{C, log_dt, log_A_real, A_imag}, norms.N, decoder)",
    recognises=_recognises,
    read=_read,
    write=_write,
    layer_parameters=_layer_parameters,
    same_size=True,
    sidecar=True,
)
