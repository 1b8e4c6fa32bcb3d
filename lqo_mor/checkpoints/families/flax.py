"""S4D layers of the annotated S4D (`s4/s4d.py` of srush/annotated-s4, Flax).

A layer is copied for every feature, and the axis of the features is the second: ``A = min(A_re, -1e-4) + i A_im`` (n, H), a
step ``exp(log_step)`` (1, H), a zero-order hold, and the kernel ``Re Σ C B g λ^k``. The kernel of the published code leaves out
`B`, which then stays at 1; other versions learn it. Only the product matters, so both are read, and written with ``B = 1``.
"""

from __future__ import annotations

import numpy as np

from lqo_mor.checkpoints.contracts import Family, Layer
from lqo_mor.checkpoints.families.slots import (
    check_layer,
    check_linear,
    complex_numbers,
    discretise,
    from_half_storage,
    real_view,
    size,
    to_half_storage,
    undiscretise,
)
from lqo_mor.checkpoints.settings import Settings
from lqo_mor.checkpoints.tensors import Tensors, Values, stable_poles
from lqo_mor.systems.diagonal import DiagonalLQOSystem

_CLIP = -1e-4  # the largest real part
_SLOTS = ("A_re", "A_im", "B_re", "B_im")


def _read(layer: str, tensors: Tensors, settings: Settings) -> Layer:
    n, width = (size(tensors, "A_re", axis, 2) for axis in (0, 1))
    check_layer(layer, tensors, dict.fromkeys(_SLOTS, (n, width)) | {"C": (n, width, 2), "D": (1, width), "log_step": (1, width)})
    # The features first, as in all of our batches.
    A_re, A_im, B_re, B_im, D, log_step = (tensors[name].astype(np.float64).T for name in (*_SLOTS, "D", "log_step"))
    C = complex_numbers(tensors["C"]).T
    poles, factors = discretise(layer, np.minimum(A_re, _CLIP) + 1j * A_im, log_step, "zoh")
    B = factors * (B_re + 1j * B_im)
    poles, B, C = to_half_storage(poles, B[..., np.newaxis], C[:, np.newaxis], scale=1)
    return Layer(DiagonalLQOSystem(poles, B, C, D[..., np.newaxis], dt=1.0))


def _write(layer: str, ssm: DiagonalLQOSystem, tensors: Tensors, settings: Values) -> Tensors:
    check_linear(layer, ssm)
    z, factors = undiscretise(stable_poles(layer, ssm.poles), "zoh")
    # Only z = dt A matters: a smaller step where the class would cut the decay rate.
    most = np.log(np.max(z.real, axis=1) / (2 * _CLIP))
    log_step = np.minimum(tensors["log_step"][0].astype(np.float64), most)
    log_step = log_step.astype(tensors["log_step"].dtype).astype(np.float64)  # as the class will read it
    dt = np.exp(log_step)[:, np.newaxis]
    A, C = z / dt, from_half_storage(ssm, scale=1)[:, 0] * ssm.B[..., 0] / (dt * factors)
    return {
        "A_re": A.real.T,
        "A_im": A.imag.T,
        "B_re": np.ones(A.T.shape),
        "B_im": np.zeros(A.T.shape),
        "C": real_view(C.T),
        "D": ssm.D[:, 0].T,
        "log_step": log_step[np.newaxis],
    }


S4D_FLAX = Family(
    name="s4d-flax",
    looks_like="S4D layers of the annotated S4D (A_re, A_im, B_re, B_im, C, D, log_step)",
    markers=("A_re",),
    names=(*_SLOTS, "C", "D", "log_step"),
    read=_read,
    write=_write,
)
