"""The ragged S4D format of this package: the S4D example model whose channels have different numbers of slots.

The slots of all channels of a layer are flat, channel after channel; `slots.count` says how many each channel has. A
slot is a pole ``λ = exp(-exp(nu_log) + i theta)`` and a complex `residue` R (the product of output and input row), and
adds ``2 Re(R λ^k)`` to the kernel of its channel; `D` is added at lag 0. An angle of 0 or ±π (as rounded to the
precision of the file) makes the pole real, and the slot one real state with the kernel ``2 Re(R) λ^k``. The tensors
around the systems have the keys of the S4D example; an entry beside the tensors says where the normalisation stands.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import numpy as np
from numpy.typing import DTypeLike

from lqo_mor.checkpoints.containers.files import MAX_BYTES
from lqo_mor.checkpoints.s4d import model_around, outer_tensors
from lqo_mor.checkpoints.s4d import shapes as s4d_shapes
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
from lqo_mor.network.model import DeepSSM
from lqo_mor.systems.diagonal import DiagonalLQOSystem

ENTRY = "ragged_s4d"
PI32 = float(np.float32(np.pi))  # the angle of a negative real pole in a file of single precision
_ZERO = 1e-30  # a pole below this acts at lag 0 only
_SILENT = 1e-37  # a residue below this is padding: single precision does not hold it
_PADDING = 0.5  # pole of the slots that only fill up the batch in memory


def make_entry(prenorm: bool) -> Values:
    """The entry beside the tensors, by its name."""
    return {ENTRY: {"version": 1, "prenorm": bool(prenorm)}}


def check_entry(extras: Values) -> bool:
    """Whether the normalisations stand before the layers; an entry that is missing or wrong raises `CheckpointError`."""
    entry = extras.get(ENTRY)
    if not isinstance(entry, dict):
        raise CheckpointError(f"the entry '{ENTRY}' with version and prenorm is missing, which a ragged S4D model needs")
    version, prenorm = entry.get("version"), entry.get("prenorm")
    if type(version) is not int or version != 1:
        shown = repr(version)[:40] if isinstance(version, (int, float, str)) else f"of type {type(version).__name__}"
        raise CheckpointError(f"version {shown} of the ragged S4D format is unknown, expected 1")
    if type(prenorm) is not bool:
        raise CheckpointError(f"prenorm in the entry '{ENTRY}' must be true or false, got a {type(prenorm).__name__}")
    return prenorm


def _recognises(keys: Collection[str]) -> bool:
    return any(key.startswith("s4_layers.") and ".slots." in key for key in keys)


def _outer_shapes(state: Tensors, n_layers: int) -> Shapes:
    """The expected shapes of what is outside the slots: that of the S4D example."""
    return {key: shape for key, shape in s4d_shapes(state, n_layers).items() if ".kernel." not in key}


def _check(state: Tensors, n_layers: int) -> None:
    shapes, counts, flat = _outer_shapes(state, n_layers), [], []
    for i in range(n_layers):
        slots = f"s4_layers.{i}.slots"
        nu_log = state.get(f"{slots}.nu_log")
        n = nu_log.size if nu_log is not None else None
        counts.append(f"{slots}.count")
        flat += [f"{slots}.{key}" for key in ("nu_log", "theta", "residue")]
        shapes |= dict(zip(flat[-3:], [(n,), (n,), (n, 2)], strict=True)) | {counts[-1]: shapes[f"s4_layers.{i}.D"]}
    check_tensors(state, shapes, integers=counts, empty=flat)
    for key in counts:
        count, n = state[key], state[key.replace(".count", ".nu_log")].size
        if np.any(count < 0) or np.any(count > n) or int(np.sum(count, dtype=np.int64)) != n:
            raise CheckpointError(f"{key} does not split the {n} slots of the layer: from 0 up, with the sum {n}")
        if 64 * count.size * int(count.max()) > MAX_BYTES:
            raise CheckpointError(f"{key}: a channel of {count.max()} slots beside {count.size} channels needs too much memory")


def _read(state: Tensors, extras: Values, settings: Settings) -> DeepSSM:
    stored = check_entry(extras)
    if settings.given("prenorm") not in (None, stored):
        raise CheckpointError(f"the file says prenorm = {stored}, which cannot be overruled")
    n_layers = layer_count(state, "s4_layers")
    _check(state, n_layers)
    return model_around([_system(f"s4_layers.{i}", state) for i in range(n_layers)], state, stored)


def _system(layer: str, state: Tensors) -> DiagonalLQOSystem:
    """The channels of a layer as a batch (H,) with ``B = 1`` in used slots, and ``B = C = 0`` in those that fill it up."""
    nu_log, theta, residue, D = (
        state[f"{layer}.{key}"].astype(np.float64) for key in ("slots.nu_log", "slots.theta", "slots.residue", "D")
    )
    count = state[f"{layer}.slots.count"].astype(np.int64)
    with np.errstate(over="ignore"):  # exp(-exp(large)) is 0
        modulus = np.exp(-np.exp(nu_log))
    flat = np.where(np.isin(np.abs(theta), (np.pi, PI32)), -modulus, modulus * np.exp(1j * theta))
    residue = residue @ np.array([1, 1j])
    # The file counts every slot twice, 2 Re(R λ^k), our half storage a real pole once (also one that has underflowed to 0).
    residue = np.where(flat.imag == 0, 2 * residue.real, residue)
    used = np.arange(max(1, count.max())) < count[:, np.newaxis]  # row by row, as the flat slots are
    poles, C = np.full(used.shape, _PADDING, complex), np.zeros(used.shape, complex)
    poles[used], C[used] = stable_poles(layer, flat), residue
    return DiagonalLQOSystem(poles, used[..., np.newaxis], C[:, np.newaxis], D[:, np.newaxis, np.newaxis])


def _residues(ssm: DiagonalLQOSystem) -> np.ndarray:
    return ssm.C[..., 0, :] * ssm.B[..., 0]


def _used(ssm: DiagonalLQOSystem) -> np.ndarray:
    """Mask of the slots that the file stores; one of no output is left out, one of a pole at zero becomes part of D."""
    return (np.abs(_residues(ssm)) > _SILENT) & (np.abs(ssm.poles) >= _ZERO)


def _tensors(layer: str, ssm: DiagonalLQOSystem) -> dict[str, np.ndarray]:
    """The inverse of `_system`, with bare names."""
    if ssm.quadratic is not None:
        raise CheckpointError(f"{layer} has a quadratic output, which the ragged S4D format cannot store")
    poles, residues, real, used = stable_poles(layer, ssm.poles), _residues(ssm), ssm.is_real_pole, _used(ssm)
    at_zero = np.abs(poles) < _ZERO
    D = ssm.D[:, 0, 0] + np.sum(np.where(at_zero, np.where(real, 1, 2) * residues.real, 0), axis=-1)
    residues = (np.where(real, 0.5, 1.0) * residues)[used]
    poles, real = poles[used], real[used]
    return {
        "D": D,
        "slots.count": np.count_nonzero(used, axis=-1),
        "slots.nu_log": np.log(-np.log(np.abs(poles))),
        "slots.theta": np.where(real, np.where(poles.real < 0, np.pi, 0.0), np.angle(poles)),
        "slots.residue": np.stack([residues.real, residues.imag], axis=-1),
    }


def _write(model: DeepSSM, original: Original) -> tuple[Tensors, Values]:
    """The tensors of `model`; a layer that was not changed keeps its own, unless the file holds slots without output."""
    values = outer_tensors(model, original)
    for i, block in enumerate(model.blocks):
        layer = f"s4_layers.{i}"
        count = original.state.get(f"{layer}.slots.count")
        if count is not None and original.kept(i, model) and np.count_nonzero(_used(block.ssm)) == np.sum(count):
            values |= {key: value for key, value in original.state.items() if key.startswith(f"{layer}.slots.")}
            values[f"{layer}.D"] = original.state[f"{layer}.D"]
        else:
            values |= {f"{layer}.{key}": value for key, value in _tensors(layer, block.ssm).items()}

    def dtype(key: str) -> DTypeLike:
        layer, within, name = key.partition(".slots.")
        if not within:
            return original.state[key].dtype
        return np.int32 if name == "count" else original.state[f"{layer}.D"].dtype

    return {key: rounded(key, value, dtype(key)) for key, value in values.items()}, original.extras


def _layer_parameters(model: DeepSSM, original: Original) -> tuple[int, ...]:
    """Four numbers a slot; a count and D for every channel."""
    return tuple(4 * int(np.count_nonzero(_used(block.ssm))) + 2 * block.width for block in model.blocks)


def from_s4d(original: Original) -> Original:
    """The content of an S4D file as that of a ragged one, still without slots: writing fills them in."""
    state = {key: value for key, value in original.state.items() if ".kernel." not in key}
    return Original(state, original.extras | make_entry(original.model.blocks[0].prenorm), original.model)


def to_s4d(original: Original) -> Original:
    """The content of a ragged file as that of an S4D file with steps of 1 and empty kernels: writing fills them in.

    Only the product of step and state matrix counts; with a step of 1 it is stored without another rounding.
    """
    state = {}
    for key, value in original.state.items():
        layer, within, name = key.partition(".slots.")
        if not within:
            state[key] = value
        elif name == "count":
            dtype = original.state[f"{layer}.D"].dtype
            kernel = {"C": (1,), "log_dt": value.shape, "log_A_real": (1,), "A_imag": (1,)}
            state |= {f"{layer}.kernel.{tensor}": np.zeros(shape, dtype) for tensor, shape in kernel.items()}
    # Copies of the systems: to the other format all of them are new.
    blocks = tuple(replace(block, ssm=replace(block.ssm)) for block in original.model.blocks)
    extras = {key: value for key, value in original.extras.items() if key != ENTRY}
    return Original(state, extras, replace(original.model, blocks=blocks), {"prenorm": blocks[0].prenorm})


RAGGED = Format(
    name="ragged",
    looks_like="a ragged S4D model of this package (as s4d, with s4_layers.N.slots.{count, nu_log, theta, residue} for kernel.*)",
    recognises=_recognises,
    read=_read,
    write=_write,
    layer_parameters=_layer_parameters,
)
