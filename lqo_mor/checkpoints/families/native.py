"""The native layers of this package: they hold every system that a model can have, under the prefix of the layer they replace.

The pole of a slot is ``λ = exp(log_modulus + i theta)``. An angle of 0 or ±π (as rounded to the precision of the file) makes it
real: one state, counted once, ``Re(c b) λ^k``; every other slot gives ``2 Re(c b λ^k)``. The modulus is stored as its logarithm,
which single precision holds to 6e-8 of the decay rate however slow the decay is (its logarithm again, as in LRU layers, loses a
factor ``|log(rate)|``), and which is positive for an unstable pole. Complex numbers are real views with a trailing 2.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import DTypeLike

from lqo_mor.checkpoints.contracts import Family, Layer
from lqo_mor.checkpoints.families.slots import PI32, SMALLEST, real_view, size
from lqo_mor.checkpoints.settings import Settings
from lqo_mor.checkpoints.tensors import Shapes, Tensors, Values, check_tensors
from lqo_mor.errors import CheckpointError
from lqo_mor.systems.diagonal import DiagonalLQOSystem
from lqo_mor.systems.quadratic import QuadraticOutput

_LARGEST = 700.0  # log modulus whose exponential is still finite
_MARK = "lqo.log_modulus"
_NAMES = tuple(f"lqo.{name}" for name in ("log_modulus", "theta", "residue", "B", "C", "D", "U", "V", "W", "backward"))


def system_arrays(ssm: DiagonalLQOSystem, dtype: DTypeLike = np.float64) -> dict[str, np.ndarray]:
    """A discrete system as real arrays, by the names of the format without ``lqo.``.

    From a batch (H,) with one input, or a single system, of n slots, p outputs, m inputs, c products: `log_modulus`, `theta`
    (H, n) or (n,); for a batch `residue` (H, p, n, 2) and `D` (H, p), otherwise `B` (n, m, 2), `C` (p, n, 2) and `D` (p, m);
    with a quadratic output `U` and `V` (H, c, n, 2) or (c, n, 2), those of a batch multiplied by `B`, and `W` (H, p, c) or
    (p, c). The arrays will be rounded to `dtype`: no pair gets an angle there that stands for a real pole.
    """
    theta = np.angle(ssm.poles).astype(dtype)
    # Rounding must not turn a pair into a real pole: the next number off the axis is as near as the rounded angle.
    aside = np.nextafter(theta, np.copysign(np.pi / 2, ssm.poles.imag).astype(dtype), dtype=dtype)
    theta = np.where(on_axis(theta) & ~ssm.is_real_pole, aside, theta)
    q = ssm.M if ssm.M is not None and ssm.M.rank else None
    quadratic = {} if q is None else {"U": q.U, "V": q.V}
    if ssm.batch:
        B = ssm.B[..., 0][:, np.newaxis]
        rows = {"residue": ssm.C * B} | {name: row * B for name, row in quadratic.items()}
        D = ssm.D[..., 0]
    else:
        rows, D = {"B": ssm.B, "C": ssm.C} | quadratic, ssm.D
    views = {name: real_view(row) for name, row in rows.items()}
    weights = {} if q is None else {"W": q.W}
    return {"log_modulus": np.log(np.maximum(np.abs(ssm.poles), SMALLEST)), "theta": theta, **views, "D": D, **weights}


def system_from(arrays: dict[str, np.ndarray]) -> DiagonalLQOSystem:
    """The inverse of `system_arrays`; the systems of a batch get ``B = 1``, and 0 in slots without output.

    Raises `CheckpointError` if a pole overflows, or a row is complex at a real pole.
    """
    arrays = {name: np.asarray(value, np.float64) for name, value in arrays.items()}
    if np.any(arrays["log_modulus"] > _LARGEST):
        raise CheckpointError(f"log_modulus has an entry {np.max(arrays['log_modulus']):.6g}, whose pole overflows")
    modulus, theta = np.maximum(np.exp(arrays["log_modulus"]), SMALLEST), arrays["theta"]
    real = on_axis(theta)
    poles = np.where(real, np.where(theta == 0, modulus, -modulus), modulus * np.exp(1j * theta))
    rows = {name: arrays[name] @ np.array([1, 1j]) for name in ("residue", "B", "C", "U", "V") if name in arrays}
    for name, row in rows.items():
        slots = np.swapaxes(row, -1, -2) if name != "B" else row
        if np.any(slots[real].imag):
            raise CheckpointError(f"{name} is complex at a slot with the angle 0 or π, a real pole, which needs real rows")
    D, C = arrays["D"], rows.get("C")
    if C is None:
        C, D = rows["residue"], D[..., np.newaxis]
        B = np.any(np.concatenate(list(rows.values()), axis=-2), axis=-2)[..., np.newaxis]
    else:
        B = rows["B"]
    quadratic = QuadraticOutput(rows["U"], rows["V"], arrays["W"]) if "W" in arrays else None
    return DiagonalLQOSystem(poles, B, C, D, quadratic, dt=1.0)


def on_axis(theta: np.ndarray) -> np.ndarray:
    """Mask of the angles that stand for real poles: 0 and ±π, also in single precision."""
    return (theta == 0) | np.isin(np.abs(theta), (np.pi, PI32))


def layer_tensors(layer: Layer, dtype: DTypeLike) -> dict[str, np.ndarray]:
    """The tensors of a layer by their names in it, not yet rounded."""
    backward = {} if layer.backward is None else {"lqo.backward": np.array([layer.backward])}
    return {f"lqo.{name}": value for name, value in system_arrays(layer.ssm, dtype).items()} | backward


def _read(layer: str, tensors: Tensors, settings: Settings) -> Layer:
    check_tensors(tensors, _shapes(tensors), integers=("lqo.backward",))
    backward = None if "lqo.backward" not in tensors else int(tensors["lqo.backward"][0])
    if backward not in (None, 0, 1):
        raise CheckpointError(f"{layer}: lqo.backward is {backward}, expected 0 or 1")
    try:
        ssm = system_from({name.removeprefix("lqo."): value for name, value in tensors.items() if name != "lqo.backward"})
    except CheckpointError as err:
        raise CheckpointError(f"{layer}: lqo.{err}") from None
    if backward is not None and (ssm.n_outputs % 2 or ssm.M is not None):
        raise CheckpointError(f"{layer}: lqo.backward needs an even number of outputs and no quadratic one")
    return Layer(ssm, backward)


def _shapes(tensors: Tensors) -> Shapes:
    """The expected shapes, with the sizes taken from the poles, the output rows and the input rows."""
    batch = "lqo.residue" in tensors or not ("lqo.B" in tensors or "lqo.C" in tensors)
    lead = (size(tensors, _MARK, 0, 2),) if batch else ()
    n, m = size(tensors, _MARK, -1, len(lead) + 1), size(tensors, "lqo.B", 1, 3)
    p, c = (size(tensors, f"lqo.{name}", -3, len(lead) + 3) for name in ("residue" if batch else "C", "U"))
    rows = {"residue": (*lead, p, n, 2), "D": (*lead, p)} if batch else {"B": (n, m, 2), "C": (p, n, 2), "D": (p, m)}
    if any(f"lqo.{name}" in tensors for name in "UVW"):
        rows |= {"U": (*lead, c, n, 2), "V": (*lead, c, n, 2), "W": (*lead, p, c)}
    shapes = {f"lqo.{name}": shape for name, shape in ({"log_modulus": (*lead, n), "theta": (*lead, n)} | rows).items()}
    return shapes | ({"lqo.backward": (1,)} if "lqo.backward" in tensors else {})


def _write(layer: str, ssm: DiagonalLQOSystem, tensors: Tensors, settings: Values) -> Tensors:
    backward = {name: value for name, value in tensors.items() if name == "lqo.backward"}
    return layer_tensors(Layer(ssm), tensors["lqo.theta"].dtype) | backward


NATIVE = Family(
    name="native",
    looks_like="layers of this package in any model (lqo.{log_modulus, theta, residue or B and C, D})",
    markers=(_MARK,),
    names=_NAMES,
    read=_read,
    write=_write,
    same_size=False,
)
