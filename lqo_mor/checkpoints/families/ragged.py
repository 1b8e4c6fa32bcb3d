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

from lqo_mor.checkpoints.contracts import Family, Layer, Original
from lqo_mor.checkpoints.families.s4d import channels
from lqo_mor.checkpoints.families.slots import PI32, SMALLEST, complex_numbers, real_view
from lqo_mor.checkpoints.settings import Settings
from lqo_mor.checkpoints.structures.s4_models import example_model
from lqo_mor.checkpoints.tensors import Shapes, Tensors, Values, rounded, stable_poles
from lqo_mor.errors import CheckpointError
from lqo_mor.files import memory_bound
from lqo_mor.network.model import DeepSSM
from lqo_mor.systems.diagonal import DiagonalLQOSystem

ENTRY = "ragged_s4d"
_SILENT = 1e-37  # a residue below this is padding: single precision does not hold it
_COUNT, _FLAT = "slots.count", ("slots.nu_log", "slots.theta", "slots.residue")
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


def _prenorm(extras: Values, settings: Settings) -> bool:
    stored = check_entry(extras)
    settings.check_stored("prenorm", stored)
    return stored


def _recognises(keys: Collection[str], layers: Collection[str]) -> bool:
    return any(key.startswith("s4_layers.") and ".slots." in key for key in keys)


def _shapes(tensors: Tensors, width: int | None) -> Shapes:
    nu_log = tensors.get(_FLAT[0])
    n = None if nu_log is None else nu_log.size
    return {"D": (width,), **dict(zip(_FLAT, [(n,), (n,), (n, 2)], strict=True)), _COUNT: (width,)}


def _read(layer: str, tensors: Tensors, settings: Settings) -> Layer:
    """The channels of a layer as a batch (H,) with ``B = 1`` in used slots, and ``B = C = 0`` in those that fill it up."""
    count, n = tensors[_COUNT], tensors[_FLAT[0]].size
    if np.any(count < 0) or np.any(count > n) or int(np.sum(count, dtype=np.int64)) != n:
        raise CheckpointError(f"{layer}.{_COUNT} does not split the {n} slots of the layer: from 0 up, with the sum {n}")
    if 64 * count.size * int(count.max()) > memory_bound(64 * n):  # the file holds n of so many bytes
        raise CheckpointError(
            f"{layer}.{_COUNT}: a channel of {count.max()} slots beside {count.size} channels needs too much memory"
        )
    nu_log, theta, D = (tensors[key].astype(np.float64) for key in (*_FLAT[:2], "D"))
    residue, count = complex_numbers(tensors[_FLAT[2]]), count.astype(np.int64)
    with np.errstate(over="ignore"):  # exp(-exp(large)) is 0
        modulus = np.exp(-np.exp(nu_log))
    flat = np.where(np.isin(np.abs(theta), (np.pi, PI32)), -modulus, modulus * np.exp(1j * theta))
    # The file counts every slot twice, 2 Re(R λ^k), our half storage a real pole once (also one that has underflowed to 0).
    residue = np.where(flat.imag == 0, 2 * residue.real, residue)
    used = np.arange(max(1, count.max())) < count[:, np.newaxis]  # row by row, as the flat slots are
    poles, C = np.full(used.shape, _PADDING, complex), np.zeros(used.shape, complex)
    poles[used], C[used] = stable_poles(layer, flat), residue
    return Layer(DiagonalLQOSystem(poles, used[..., np.newaxis], C[:, np.newaxis], D[:, np.newaxis, np.newaxis], dt=1.0))


def _used(ssm: DiagonalLQOSystem) -> np.ndarray:
    """Mask of the slots that the file stores; one of no output is left out, one of a pole at zero becomes part of D."""
    return (np.abs(ssm.C[..., 0, :] * ssm.B[..., 0]) > _SILENT) & (np.abs(ssm.poles) >= SMALLEST)


def _write(layer: str, ssm: DiagonalLQOSystem, tensors: Tensors, settings: Values) -> Tensors:
    """The inverse of `_read`."""
    poles, residues, D = channels(layer, ssm, "ragged S4D")
    used = _used(ssm)
    poles, real = poles[used], ssm.is_real_pole[used]
    return {
        "D": D,
        "slots.count": np.count_nonzero(used, axis=-1),
        "slots.nu_log": np.log(-np.log(np.abs(poles))),
        "slots.theta": np.where(real, np.where(poles.real < 0, np.pi, 0.0), np.angle(poles)),
        "slots.residue": real_view(residues[used]),
    }


def _finish(model: DeepSSM, tensors: Tensors, original: Original) -> tuple[Tensors, Values]:
    """The tensors of a file in one order, whatever that of the original was, those of a layer in the precision of its `D`."""
    state = {}
    for key, value in tensors.items():
        layer, within, name = key.partition(".slots.")
        precision = np.dtype(np.int32) if name == "count" else tensors[f"{layer}.D"].dtype if within else value.dtype
        state[key] = rounded(key, value, precision)
    return state, original.extras


def from_s4d(original: Original) -> Original:
    """The content of an S4D file as that of a ragged one whose layers have no slots yet: writing fills them in."""
    state = {key: value for key, value in original.state.items() if ".kernel." not in key}
    state |= {key.removesuffix("D") + _COUNT: np.zeros(D.shape, np.int32) for key, D in state.items() if key.endswith(".D")}
    return _as_new(original, state, original.extras | make_entry(original.model.blocks[0].prenorm), {})


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
    extras = {key: value for key, value in original.extras.items() if key != ENTRY}
    return _as_new(original, state, extras, {"prenorm": original.model.blocks[0].prenorm})


def _as_new(original: Original, state: Tensors, extras: Values, settings: Values) -> Original:
    """That content with copies of the systems: to the other format all of them are new."""
    blocks = tuple(replace(block, ssm=replace(block.ssm)) for block in original.model.blocks)
    return Original(state, extras, replace(original.model, blocks=blocks), settings)


RAGGED = Family(
    name="ragged",
    looks_like="a ragged S4D model of this package (as s4d, with s4_layers.N.slots.{count, nu_log, theta, residue} for kernel.*)",
    markers=(_COUNT,),
    names=(_COUNT, *_FLAT, "D"),
    read=_read,
    write=_write,
    same_size=False,
    structure=replace(
        example_model(_recognises, _shapes, _prenorm, integers=(_COUNT,), empty=_FLAT), finish=_finish, sidecar=False
    ),
    # Four numbers a slot; a count and D for every channel.
    parameters=lambda ssm: 4 * int(np.count_nonzero(_used(ssm))) + 2 * len(ssm.D),
)
