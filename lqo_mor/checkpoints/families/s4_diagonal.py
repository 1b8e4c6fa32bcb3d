"""Diagonal S4 layers of state-spaces/s4: the full S4D kernels of versions 4, 3 and 2.

Version 4 (`models/s4/s4.py`, `SSMKernelDiag`) has ``A = -f(A_real) - i g(A_imag)``, learned `B`, and steps ``h(inv_dt)``;
version 3 (`SSKernelDiag` of `src/models/sequence/ss/kernel.py`) ``A = -f(inv_A_real) + i A_imag`` and ``exp(log_dt)``;
version 2, also in HazyResearch/safari, ``w = -exp(log_w_real) + i w_imag`` and no `B`. Heads share S sets of poles, head h the
set ``h mod S``; reduced heads have different poles, so that layers are written with a set per head (n_ssm = H) and ``B = 1``.
"""

from __future__ import annotations

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
def _read_v3(layer: str, tensors: Tensors, settings: Settings) -> Layer:
    (channels,), (sets,) = _sizes(tensors, "D", (0,)), _sizes(tensors, "kernel.kernel.inv_A_real", (0,))
    outputs, heads, slots = _sizes(tensors, "kernel.kernel.C", (0, 1, 2))
    shapes = {"D": (channels, heads), "kernel.kernel.C": (outputs, heads, slots, 2), "kernel.kernel.log_dt": (heads,)}
    shapes |= {f"kernel.kernel.{key}": (sets, slots) for key in ("inv_A_real", "A_imag")}
    shapes |= {f"kernel.kernel.{key}": (sets, slots, 2) for key in ("A", "B") if key == "B" or "kernel.kernel.A" in tensors}
    check_layer(layer, tensors, shapes)
    chosen = {
        "disc": settings.choice("disc", DISCRETISATIONS, "bilinear"),
        "real_type": settings.choice("real_type", _NAMES, "exp"),
        "bandlimit": settings.number("bandlimit", None, 0),
        "l_max": length_setting(settings, "l_max"),
    }
    kernel = _v3_kernel(chosen)
    real, imag, log_dt = (tensors[f"kernel.kernel.{key}"].astype(np.float64) for key in ("inv_A_real", "A_imag", "log_dt"))
    A = per_head(layer, -kernel.real.forward(real) + 1j * imag, heads)
    C, B = (complex_numbers(tensors[f"kernel.kernel.{key}"]) for key in ("C", "B"))
    return read_system(layer, kernel, A, np.exp(log_dt)[:, np.newaxis], C * per_head(layer, B, heads), tensors["D"])


def _v3_kernel(settings: Values) -> Kernel:
    free, real = TRANSFORMS["none"], TRANSFORMS[settings["real_type"]]
    return Kernel(settings["disc"], real, free, TRANSFORMS["exp"], settings["bandlimit"], settings["l_max"])


def _write_v3(layer: str, ssm: DiagonalLQOSystem, tensors: Tensors, settings: Values) -> Tensors:
    new = _write_old(layer, _v3_kernel(settings), ssm, tensors, "inv_A_real", "A_imag")
    ones = real_view(np.ones(new["kernel.kernel.C"].shape[1:-1]) + 0j)
    # The class registers A as a parameter and never reads it.
    return new | {f"kernel.kernel.{key}": ones for key in "AB" if f"kernel.kernel.{key}" in tensors}


def _write_old(
    layer: str, kernel: Kernel, ssm: DiagonalLQOSystem, tensors: Tensors, real_name: str, imag_name: str
) -> dict[str, np.ndarray]:
    """What versions 2 and 3 have in common."""
    log_dt, real, imag, C = parameters(layer, kernel, ssm, tensors["kernel.kernel.log_dt"][:, np.newaxis])
    new = {"C": real_view(C), "log_dt": log_dt[:, 0], real_name: real, imag_name: imag}
    D = forward_feedthrough(layer, linear_parts(layer, ssm)[1], len(tensors["D"]))
    return {"D": D} | {f"kernel.kernel.{key}": value for key, value in new.items()}


@np.errstate(over="ignore")  # what overflows is reported
def _read_v2(layer: str, tensors: Tensors, settings: Settings) -> Layer:
    (channels,), (sets,) = _sizes(tensors, "D", (0,)), _sizes(tensors, "kernel.kernel.log_w_real", (0,))
    outputs, heads, slots = _sizes(tensors, "kernel.kernel.C", (0, 1, 2))
    shapes = {"D": (channels, heads), "kernel.kernel.C": (outputs, heads, slots, 2), "kernel.kernel.log_dt": (heads,)}
    check_layer(layer, tensors, shapes | {f"kernel.kernel.{key}": (sets, slots) for key in ("log_w_real", "w_imag")})
    disc = settings.choice("disc", ("zoh", "bilinear"), "zoh")
    kernel = _v2_kernel({"disc": disc, "l_max": length_setting(settings, "l_max")})
    real, imag, log_dt = (tensors[f"kernel.kernel.{key}"].astype(np.float64) for key in ("log_w_real", "w_imag", "log_dt"))
    A, C = per_head(layer, -np.exp(real) + 1j * imag, heads), complex_numbers(tensors["kernel.kernel.C"])
    return read_system(layer, kernel, A, np.exp(log_dt)[:, np.newaxis], C, tensors["D"])


def _v2_kernel(settings: Values) -> Kernel:
    return Kernel(settings["disc"], TRANSFORMS["exp"], TRANSFORMS["none"], TRANSFORMS["exp"], l_max=settings["l_max"])


def _write_v2(layer: str, ssm: DiagonalLQOSystem, tensors: Tensors, settings: Values) -> Tensors:
    return _write_old(layer, _v2_kernel(settings), ssm, tensors, "log_w_real", "w_imag")


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
    names=("D", *(f"kernel.kernel.{key}" for key in ("C", "log_dt", "A", "B", "inv_A_real", "A_imag"))),
    read=_read_v3,
    write=_write_v3,
)
S4_DIAGONAL_V2 = Family(
    name="s4-diagonal-v2",
    looks_like="diagonal S4 layers, version 2 or Safari (kernel.kernel.{C, log_dt, log_w_real, w_imag}, D)",
    markers=("kernel.kernel.log_w_real",),
    names=("D", *(f"kernel.kernel.{key}" for key in ("C", "log_dt", "log_w_real", "w_imag", "B", "P"))),
    recognises=lambda names: not names & {"kernel.kernel.B", "kernel.kernel.P"},  # those are low-rank
    read=_read_v2,
    write=_write_v2,
)
