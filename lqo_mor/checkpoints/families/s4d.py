"""S4D layers of state-spaces/s4 (`models/s4/s4d.py`) inside of any model.

The same tensors as in the S4D example, ``kernel.{C, log_dt, log_A_real, A_imag}`` and `D`; see `lqo_mor.checkpoints.s4d`.
"""

from __future__ import annotations

import numpy as np

from lqo_mor.checkpoints.contracts import Family, Layer
from lqo_mor.checkpoints.s4d import KERNEL, kernel_tensors, system
from lqo_mor.checkpoints.settings import Settings
from lqo_mor.checkpoints.tensors import Tensors, Values, check_tensors
from lqo_mor.systems.diagonal import DiagonalLQOSystem

_NAMES = ("D", *(f"kernel.{key}" for key in KERNEL))


def _read(layer: str, tensors: Tensors, settings: Settings) -> Layer:
    C = tensors.get("kernel.C")
    width, slots = C.shape[:2] if C is not None and C.ndim == 3 else (None, None)
    shapes = {"D": (width,), "kernel.C": (width, slots, 2), "kernel.log_dt": (width,)}
    check_tensors(tensors, shapes | {"kernel.log_A_real": (width, slots), "kernel.A_imag": (width, slots)})
    return Layer(system(layer, (tensors[f"kernel.{key}"].astype(np.float64) for key in KERNEL), tensors["D"]))


def _write(layer: str, ssm: DiagonalLQOSystem, tensors: Tensors, settings: Values) -> Tensors:
    return tensors | kernel_tensors(layer, ssm, tensors["kernel.log_dt"].astype(np.float64))


S4D_LAYERS = Family(
    name="s4d-layers",
    looks_like="S4D layers in another model (kernel.{C, log_dt, log_A_real, A_imag}, D)",
    markers=("kernel.log_A_real",),
    names=_NAMES,
    recognises=lambda names: True,
    read=_read,
    write=_write,
)
