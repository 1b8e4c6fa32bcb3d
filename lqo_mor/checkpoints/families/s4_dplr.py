"""S4 layers with a diagonal plus low-rank state matrix, of versions 2, 3 and 4 of state-spaces/s4.

Every head is the continuous system ``A = diag(w, w̄) - [P; P̄] [Q; Q̄]ᵀ`` with input ``[B; B̄]`` and output ``[C; C̄]``, of order 2n
for n stored numbers, discretised bilinearly; only version 2 has another Q than the conjugate of P. The file holds
``C̃ = (I - Ā^L)ᵀ C`` for the length L of the kernel; see Gu, Goel and Ré, "Efficiently modeling long sequences with structured
state spaces", ICLR 2022. Reduced heads have different poles and are diagonal: they are written with a state matrix per head
(n_ssm = H, or tie_state off), ``P = 0`` and ``B = 1``, which the same classes load. Layers of version 1 are recognised to be
refused.
"""

from __future__ import annotations

from typing import NoReturn

import numpy as np

from lqo_mor.checkpoints.contracts import Family, Layer
from lqo_mor.checkpoints.families.diagonal_kernels import (
    TRANSFORMS,
    Kernel,
    Transform,
    forward_feedthrough,
    kernel_v4,
    length_setting,
    linear_parts,
    parameters,
    under_sinh,
)
from lqo_mor.checkpoints.families.low_rank import LowRank, diagonal_layer
from lqo_mor.checkpoints.families.slots import complex_numbers, real_view, size
from lqo_mor.checkpoints.settings import Settings
from lqo_mor.checkpoints.tensors import Shapes, Tensors, Values, check_tensors
from lqo_mor.errors import CheckpointError
from lqo_mor.systems.diagonal import DiagonalLQOSystem

_V2_V3 = "kernel.kernel"
_NAMES = tuple(TRANSFORMS)
# Version 3 rectifies without the floor of version 4 and of the diagonal kernel.
_V3_TRANSFORMS = TRANSFORMS | {"relu": Transform(lambda x: np.maximum(x, 0), lambda y: y)}


def _shapes(tensors: Tensors, kernel: str) -> tuple[Shapes, tuple[int | None, ...], int | None]:
    """The shapes of what all versions have, those of the rows (S, n), and H, from the tensors `C` and `P`."""
    p, H, n = (size(tensors, f"{kernel}.C", axis, 4) for axis in range(3))
    r, S, c = size(tensors, f"{kernel}.P", 0, 4), size(tensors, f"{kernel}.P", 1, 4), size(tensors, "D", 0, 2)
    shapes: Shapes = {"D": (c, H), f"{kernel}.C": (p, H, n, 2), f"{kernel}.B": (1, S, n, 2), f"{kernel}.P": (r, S, n, 2)}
    return shapes, (S, n), H


def _common(kernel: str, layer: str, ssm: DiagonalLQOSystem, C: np.ndarray, tensors: Tensors) -> dict[str, np.ndarray]:
    """What all versions have: ``B = 1``, ``P = 0`` of the rank that there is."""
    ones = real_view(np.ones((1, *C.shape[1:])) + 0j)
    return {
        "D": forward_feedthrough(layer, linear_parts(layer, ssm)[1], len(tensors["D"])),
        f"{kernel}.C": real_view(C),
        f"{kernel}.B": ones,
        f"{kernel}.P": np.zeros((len(tensors[f"{kernel}.P"]), *ones.shape[1:])),
    }


def _length(layer: str, name: str, tensors: Tensors) -> int:
    if tensors[name] < 0:
        raise CheckpointError(f"{layer}: {name} = {int(tensors[name])} is negative, expected the length of the kernel, or 0")
    return int(tensors[name])


def _read_v4(layer: str, tensors: Tensors, settings: Settings) -> Layer:
    shapes, rows, H = _shapes(tensors, "kernel")
    inv_dt = tensors.get("kernel.inv_dt")
    tied = inv_dt is None or inv_dt.ndim != 2 or inv_dt.shape[1] == 1
    shapes |= {"kernel.inv_dt": (H, 1 if tied else rows[1]), "kernel.A_real": rows, "kernel.A_imag": rows, "kernel.l_kernel": ()}
    check_tensors(tensors, shapes, integers=("kernel.l_kernel",))
    kernel = kernel_v4(
        {
            "dt_transform": settings.choice("dt_transform", _NAMES, "softplus"),
            "dt_fast": settings.flag("dt_fast", False),
            "real_transform": settings.choice("real_transform", _NAMES, "exp"),
            "imag_transform": settings.choice("imag_transform", _NAMES, "none"),
            "bandlimit": settings.number("bandlimit", None, 0),
        }
    )
    real, imag, step = (tensors[f"kernel.{key}"].astype(np.float64) for key in ("A_real", "A_imag", "inv_dt"))
    with np.errstate(over="ignore"):  # what is not finite is reported
        w, dt = -kernel.real.forward(real) - 1j * kernel.imag.forward(imag), kernel.step.forward(step)
    B, P, C = (complex_numbers(tensors[f"kernel.{key}"]) for key in "BPC")
    if kernel.bandlimit is not None:
        if len(w) not in (1, len(dt)):
            raise CheckpointError(f"{layer}: with a bandlimit, {len(w)} state matrices (n_ssm) do not fit {len(dt)} heads")
        C = np.where(dt * np.abs(w.imag) < np.pi * kernel.bandlimit, C, 0)
    length_setting(settings, "l_max")
    length = _length(layer, "kernel.l_kernel", tensors)
    return diagonal_layer(layer, LowRank(w, B[0], P, P.conj(), C, dt, length, tensors["D"]), kernel.is_stable)


def _write_v4(layer: str, ssm: DiagonalLQOSystem, tensors: Tensors, settings: Values) -> Tensors:
    step, real, imag, C = parameters(layer, kernel_v4(settings), ssm, tensors["kernel.inv_dt"])
    new = {"kernel.inv_dt": step, "kernel.A_real": real, "kernel.A_imag": imag, "kernel.l_kernel": np.zeros((), np.int64)}
    return _common("kernel", layer, ssm, C.conj(), tensors) | new  # the class has -Im A


def _read_v3(layer: str, tensors: Tensors, settings: Settings) -> Layer:
    shapes, rows, H = _shapes(tensors, _V2_V3)
    shapes |= {f"{_V2_V3}.log_dt": (H,), f"{_V2_V3}.inv_w_real": rows, f"{_V2_V3}.w_imag": rows, f"{_V2_V3}.L": ()}
    check_tensors(tensors, shapes, integers=(f"{_V2_V3}.L",))
    chosen = {"real_type": settings.choice("real_type", _NAMES, "exp"), "dt_fast": settings.flag("dt_fast", False)}
    length_setting(settings, "l_max")
    kernel, length = _v3_kernel(chosen), _length(layer, f"{_V2_V3}.L", tensors)
    real, imag, step = (tensors[f"{_V2_V3}.{key}"].astype(np.float64) for key in ("inv_w_real", "w_imag", "log_dt"))
    with np.errstate(over="ignore"):
        w, dt = -kernel.real.forward(real) + 1j * imag, kernel.step.forward(step)[:, np.newaxis]
    B, P, C = (complex_numbers(tensors[f"{_V2_V3}.{key}"]) for key in "BPC")
    return diagonal_layer(layer, LowRank(w, B[0], P, P.conj(), C, dt, length, tensors["D"]), kernel.is_stable)


def _v3_kernel(settings: Values) -> Kernel:
    step = under_sinh(TRANSFORMS["exp"]) if settings["dt_fast"] else TRANSFORMS["exp"]
    return Kernel("bilinear", _V3_TRANSFORMS[settings["real_type"]], TRANSFORMS["none"], step)


def _write_v3(layer: str, ssm: DiagonalLQOSystem, tensors: Tensors, settings: Values) -> Tensors:
    step, real, imag, C = parameters(layer, _v3_kernel(settings), ssm, tensors[f"{_V2_V3}.log_dt"][:, np.newaxis])
    new = {"log_dt": step[:, 0], "inv_w_real": real, "w_imag": imag, "L": np.zeros((), np.int64)}
    return _common(_V2_V3, layer, ssm, C, tensors) | {f"{_V2_V3}.{key}": value for key, value in new.items()}


def _read_v2(layer: str, tensors: Tensors, settings: Settings) -> Layer:
    shapes, rows, H = _shapes(tensors, _V2_V3)
    names = ("log_w_real", "w_imag") if _is_hurwitz(tensors) else ("w", "Q")
    matrix = dict(zip(names, (rows, rows) if _is_hurwitz(tensors) else ((*rows, 2), shapes[f"{_V2_V3}.P"]), strict=True))
    nodes = (size(tensors, f"{_V2_V3}.omega", 0, 2), 2)
    shapes |= {f"{_V2_V3}.{key}": shape for key, shape in (matrix | {"log_dt": (H,), "omega": nodes, "z": nodes}).items()}
    check_tensors(tensors, shapes)
    B, P, C = (complex_numbers(tensors[f"{_V2_V3}.{key}"]) for key in "BPC")
    with np.errstate(over="ignore"):
        dt = np.exp(tensors[f"{_V2_V3}.log_dt"].astype(np.float64))[:, np.newaxis]
        if _is_hurwitz(tensors):
            real, imag = (tensors[f"{_V2_V3}.{key}"].astype(np.float64) for key in names)
            w, Q = -np.exp(real) + 1j * imag, P.conj()
        else:
            w, Q = (complex_numbers(tensors[f"{_V2_V3}.{key}"]) for key in names)
    matrices = LowRank(w, B[0], P, Q, C, dt, _nodes_length(layer, tensors), tensors["D"])
    return diagonal_layer(layer, matrices, _is_hurwitz(tensors))


def _is_hurwitz(tensors: Tensors) -> bool:
    return f"{_V2_V3}.log_w_real" in tensors


def _nodes_length(layer: str, tensors: Tensors) -> int:
    """The length L of the kernel that the class computes from its nodes ``exp(-2πi k/L)``, k = 0 ... L/2."""
    omega = complex_numbers(tensors[f"{_V2_V3}.omega"])
    length = 2 * (omega.size - 1)
    if length == 0 or np.any(np.abs(omega - np.exp(-2j * np.pi * np.arange(omega.size) / length)) > 1e-3):
        raise CheckpointError(f"{layer}: kernel.kernel.omega does not hold the nodes exp(-2πi k/L) of an even length L")
    return length


def _write_v2(layer: str, ssm: DiagonalLQOSystem, tensors: Tensors, settings: Values) -> Tensors:
    """With the nodes of the file, and C̃ for their length."""
    kernel = Kernel("bilinear", TRANSFORMS["exp" if _is_hurwitz(tensors) else "none"], TRANSFORMS["none"], TRANSFORMS["exp"])
    step, real, imag, C = parameters(layer, kernel, ssm, tensors[f"{_V2_V3}.log_dt"][:, np.newaxis])
    w = -kernel.real.forward(real) + 1j * imag
    z = w * np.exp(step.astype(np.float64))
    with np.errstate(over="ignore", invalid="ignore"):  # not finite: refused when it is rounded
        C = C * (1 - ((1 + z / 2) / (1 - z / 2)) ** _nodes_length(layer, tensors))
    new = _common(_V2_V3, layer, ssm, C, tensors)
    hurwitz = {"log_w_real": real, "w_imag": imag}
    matrix = hurwitz if _is_hurwitz(tensors) else {"w": real_view(w), "Q": new[f"{_V2_V3}.P"]}
    kept = {key: tensors[f"{_V2_V3}.{key}"] for key in ("omega", "z")}
    return new | {f"{_V2_V3}.{key}": value for key, value in ({"log_dt": step[:, 0]} | matrix | kept).items()}


def _refuse_v1(layer: str, *_: object) -> NoReturn:
    raise CheckpointError(
        f"{layer} is of S4 version 1 (it has kernel.kernel.nodes), whose tensors mean something else than those of later "
        "versions: C is conjugated, and the low-rank factors are stacked below B and C. Train the model with version 2 or later "
        "of state-spaces/s4, or store its tensors in the layout of one of them, and load that checkpoint"
    )


def _names(kernel: str, names: str) -> tuple[str, ...]:
    return ("D", *(f"{kernel}.{name}" for name in f"C B P {names}".split()))


S4_DPLR = Family(
    name="s4-dplr",
    looks_like="S4 layers of version 4 with a low-rank term (kernel.{C, B, P, inv_dt, A_real, A_imag, l_kernel}, D)",
    markers=("kernel.P", "kernel.l_kernel"),
    names=_names("kernel", "inv_dt A_real A_imag l_kernel"),
    recognises=lambda names: "kernel.l_kernel" in names or {"kernel.P", "kernel.inv_dt"} <= names,
    read=_read_v4,
    write=_write_v4,
)
S4_DPLR_V3 = Family(
    name="s4-dplr-v3",
    looks_like="S4 layers of version 3 with a low-rank term (kernel.kernel.{C, B, P, log_dt, inv_w_real, w_imag, L}, D)",
    markers=("kernel.kernel.inv_w_real",),
    names=_names("kernel.kernel", "log_dt inv_w_real w_imag L"),
    read=_read_v3,
    write=_write_v3,
)
S4_DPLR_V2 = Family(
    name="s4-dplr-v2",
    looks_like="S4 layers of version 2 with a low-rank term (kernel.kernel.{C, B, P, log_dt, w, Q, omega, z}, D)",
    markers=("kernel.kernel.omega", "kernel.kernel.Q"),
    names=_names("kernel.kernel", "log_dt w Q log_w_real w_imag omega z"),
    recognises=lambda names: "kernel.kernel.P" in names or {"kernel.kernel.omega", "kernel.kernel.z"} <= names,
    read=_read_v2,
    write=_write_v2,
)
S4_V1 = Family(
    name="s4-v1",
    looks_like="S4 layers, version 1, which are refused (kernel.kernel.{log_dt, w, B, C, nodes, z}, D)",
    markers=("kernel.kernel.nodes",),
    names=("D", *(f"kernel.kernel.{key}" for key in ("log_dt", "w", "B", "C", "nodes", "z"))),
    read=_refuse_v1,
    write=_refuse_v1,
)
