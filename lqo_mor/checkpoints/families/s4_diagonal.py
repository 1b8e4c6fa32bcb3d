"""Diagonal S4 layers of state-spaces/s4: the full S4D kernels of versions 4, 3 and 2.

Version 4 (`models/s4/s4.py`, `SSMKernelDiag`) has ``A = -f(A_real) - i g(A_imag)``, learned `B`, and steps ``h(inv_dt)``;
version 3 (`SSKernelDiag` of `src/models/sequence/ss/kernel.py`) ``A = -f(inv_A_real) + i A_imag`` and ``exp(log_dt)``;
version 2, also in HazyResearch/safari, ``w = -exp(log_w_real) + i w_imag`` and no `B`. Heads share S sets of poles, head h the
set ``h mod S``; reduced heads have different poles, so that layers are written with a set per head (n_ssm = H) and ``B = 1``.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from lqo_mor.checkpoints.contracts import Family, Layer
from lqo_mor.checkpoints.families.diagonal_kernels import (
    DISCRETISATIONS,
    TRANSFORMS,
    Kernel,
    forward_feedthrough,
    kernel_v4,
    length_setting,
    linear_parts,
    parameters,
    per_head,
    read_system,
)
from lqo_mor.checkpoints.families.slots import WAY_OUT, check_layer, complex_numbers, real_view
from lqo_mor.checkpoints.settings import Settings
from lqo_mor.checkpoints.tensors import Tensors, Values
from lqo_mor.errors import CheckpointError
from lqo_mor.systems.diagonal import DiagonalLQOSystem

_NAMES = tuple(TRANSFORMS)
_OLD = "kernel.kernel"  # of versions 3 and 2
_V3, _V2 = ("inv_A_real", "A_imag"), ("log_w_real", "w_imag")  # the parts of their poles
_LOW_RANK = {"kernel.P", "kernel.l_kernel", "kernel.A"}  # of the other kernels of version 4


def _sizes(tensors: Tensors, name: str, axes: tuple[int, ...]) -> tuple[int | None, ...]:
    """Lengths of some axes of a tensor, None where it is missing or has fewer axes, so that the check of shapes can tell."""
    array = tensors.get(name)
    return tuple(None if array is None or array.ndim <= max(axes) else array.shape[axis] for axis in axes)


@np.errstate(over="ignore")  # what overflows is reported
def _read_v4(layer: str, tensors: Tensors, settings: Settings) -> Layer:
    is_real = "kernel.A_imag" not in tensors and tensors.get("kernel.C", np.empty(0)).ndim == 3
    (channels,), (sets,) = _sizes(tensors, "D", (0,)), _sizes(tensors, "kernel.A_real", (0,))
    outputs, heads, slots = _sizes(tensors, "kernel.C", (0, 1, 2))
    (steps,) = _sizes(tensors, "kernel.inv_dt", (1,))
    view = () if is_real else (2,)
    shapes = {"D": (channels, heads), "kernel.C": (outputs, heads, slots, *view), "kernel.B": (1, sets, slots, *view)}
    shapes |= {"kernel.inv_dt": (heads, 1 if steps == 1 else slots), "kernel.A_real": (sets, slots)}
    check_layer(layer, tensors, shapes if is_real else shapes | {"kernel.A_imag": (sets, slots)})
    chosen = {
        "disc": settings.choice("disc", DISCRETISATIONS, "zoh"),
        "dt_transform": settings.choice("dt_transform", _NAMES, "softplus"),
        "dt_fast": settings.flag("dt_fast", False),
        "real_transform": settings.choice("real_transform", _NAMES, "exp"),
        "l_max": length_setting(settings, "l_max"),
    }
    if not is_real:
        chosen["imag_transform"] = settings.choice("imag_transform", _NAMES, "none")
        chosen["bandlimit"] = settings.number("bandlimit", None, 0)
    kernel = kernel_v4(chosen)
    A = -kernel.real.forward(tensors["kernel.A_real"].astype(np.float64)) + 0j
    if is_real:
        C, B = (tensors[key].astype(np.float64) for key in ("kernel.C", "kernel.B"))
    else:
        # The file has Im A <= 0; the conjugate slots give the same.
        A = A + 1j * kernel.imag.forward(tensors["kernel.A_imag"].astype(np.float64))
        C, B = (np.conj(complex_numbers(tensors[key])) for key in ("kernel.C", "kernel.B"))
    dt = kernel.step.forward(tensors["kernel.inv_dt"].astype(np.float64))
    read = read_system(layer, kernel, per_head(layer, A, heads), dt, C * per_head(layer, B[0], heads), tensors["D"])
    if is_real and np.any(read.ssm.poles.real < 0):
        raise CheckpointError(f"{layer} (is_real) has a negative pole, of which its class takes the logarithm: its kernel is NaN")
    return read


def _write_v4(layer: str, ssm: DiagonalLQOSystem, tensors: Tensors, settings: Values) -> Tensors:
    is_real = "kernel.A_imag" not in tensors
    residues, D = linear_parts(layer, ssm)
    silent = ~np.any(residues, axis=1)
    if is_real and not np.all(silent | (ssm.is_real_pole & (ssm.poles.real >= 0))):
        raise CheckpointError(
            f"{layer} has complex or negative poles, but its class (is_real) holds positive real ones only; {WAY_OUT}"
        )
    step, real, imag, C = parameters(layer, kernel_v4(settings), ssm, tensors["kernel.inv_dt"])
    B = np.ones((1, *C.shape[1:]))
    new = {
        "D": forward_feedthrough(layer, D, len(tensors["D"])),
        "kernel.C": C.real if is_real else real_view(np.conj(C)),
        "kernel.B": B if is_real else real_view(B + 0j),
        "kernel.inv_dt": step,
        "kernel.A_real": real,
    }
    return new if is_real else new | {"kernel.A_imag": imag}


@np.errstate(over="ignore")  # what overflows is reported
def _read_old(names: tuple[str, str], layer: str, tensors: Tensors, settings: Settings) -> Layer:
    """A layer of version 3 or 2, which differ in the names of the parts of the poles, and in what only version 3 has."""
    (channels,), (sets,) = _sizes(tensors, "D", (0,)), _sizes(tensors, f"{_OLD}.{names[0]}", (0,))
    outputs, heads, slots = _sizes(tensors, f"{_OLD}.C", (0, 1, 2))
    shapes = {"D": (channels, heads), f"{_OLD}.C": (outputs, heads, slots, 2), f"{_OLD}.log_dt": (heads,)}
    shapes |= {f"{_OLD}.{name}": (sets, slots) for name in names}
    if names is _V3:
        shapes |= {f"{_OLD}.{key}": (sets, slots, 2) for key in "AB" if key == "B" or f"{_OLD}.A" in tensors}
    check_layer(layer, tensors, shapes)
    if names is _V3:
        chosen = {
            "disc": settings.choice("disc", DISCRETISATIONS, "bilinear"),
            "real_type": settings.choice("real_type", _NAMES, "exp"),
            "bandlimit": settings.number("bandlimit", None, 0),
        }
    else:
        chosen = {"disc": settings.choice("disc", ("zoh", "bilinear"), "zoh")}
    kernel = _old_kernel(chosen | {"l_max": length_setting(settings, "l_max")})
    real, imag, log_dt = (tensors[f"{_OLD}.{key}"].astype(np.float64) for key in (*names, "log_dt"))
    A = per_head(layer, -kernel.real.forward(real) + 1j * imag, heads)
    C = complex_numbers(tensors[f"{_OLD}.C"])
    if names is _V3:
        C = C * per_head(layer, complex_numbers(tensors[f"{_OLD}.B"]), heads)
    return read_system(layer, kernel, A, np.exp(log_dt)[:, np.newaxis], C, tensors["D"])


def _old_kernel(settings: Values) -> Kernel:
    real, free, step = TRANSFORMS[settings.get("real_type", "exp")], TRANSFORMS["none"], TRANSFORMS["exp"]
    return Kernel(settings["disc"], real, free, step, settings.get("bandlimit"), settings["l_max"])


def _write_old(names: tuple[str, str], layer: str, ssm: DiagonalLQOSystem, tensors: Tensors, settings: Values) -> Tensors:
    log_dt, real, imag, C = parameters(layer, _old_kernel(settings), ssm, tensors[f"{_OLD}.log_dt"][:, np.newaxis])
    new = {"C": real_view(C), "log_dt": log_dt[:, 0], names[0]: real, names[1]: imag}
    if names is _V3:  # whose class registers A as a parameter and never reads it
        new |= dict.fromkeys("AB" if f"{_OLD}.A" in tensors else "B", real_view(np.ones(C.shape[1:]) + 0j))
    D = forward_feedthrough(layer, linear_parts(layer, ssm)[1], len(tensors["D"]))
    return {"D": D} | {f"{_OLD}.{key}": value for key, value in new.items()}


S4_DIAGONAL = Family(
    name="s4-diagonal",
    looks_like="diagonal S4 layers, version 4 (kernel.{C, B, inv_dt, A_real, A_imag}, D)",
    markers=("kernel.A_real", "kernel.inv_dt"),
    names=("D", *(f"kernel.{key}" for key in ("C", "B", "inv_dt", "A_real", "A_imag")), *sorted(_LOW_RANK)),
    recognises=lambda names: not names & _LOW_RANK,
    read=_read_v4,
    write=_write_v4,
)
S4_DIAGONAL_V3 = Family(
    name="s4-diagonal-v3",
    looks_like="diagonal S4 layers, version 3 (kernel.kernel.{C, B, log_dt, inv_A_real, A_imag}, D)",
    markers=("kernel.kernel.inv_A_real",),
    names=("D", *(f"{_OLD}.{key}" for key in ("C", "log_dt", "A", "B", *_V3))),
    read=partial(_read_old, _V3),
    write=partial(_write_old, _V3),
)
S4_DIAGONAL_V2 = Family(
    name="s4-diagonal-v2",
    looks_like="diagonal S4 layers, version 2 or Safari (kernel.kernel.{C, log_dt, log_w_real, w_imag}, D)",
    markers=("kernel.kernel.log_w_real",),
    names=("D", *(f"{_OLD}.{key}" for key in ("C", "log_dt", *_V2, "B", "P"))),
    recognises=lambda names: not names & {f"{_OLD}.B", f"{_OLD}.P"},  # those are low-rank
    read=partial(_read_old, _V2),
    write=partial(_write_old, _V2),
)
