"""The LQO format of this package: deep models whose layers have linear-quadratic outputs (`lqo_mor.torch.LQODeepSSM`).

Each layer is one system of width d with `n` slots: ``λ = exp(-exp(nu_log) + i theta)``, complex `B` (n, d),
`C` (d, n), `U`, `V` (c, n) as real views with a trailing 2, real `D` (d) and `W` (d, c). Every slot gives
``2 Re(·)``. A pole within 1e-12 of the unit circle is pulled inside, see `stable_poles`. A configuration beside the
tensors says how the blocks are built; see `lqo_mor.checkpoints.structures.lqo_model`.
"""

from __future__ import annotations

import numpy as np

from lqo_mor.checkpoints.contracts import Family, Layer
from lqo_mor.checkpoints.families.slots import PI32, SMALLEST, complex_numbers, diagonal_feedthrough, real_view
from lqo_mor.checkpoints.settings import Settings
from lqo_mor.checkpoints.structures.lqo_model import LQO_MODEL
from lqo_mor.checkpoints.tensors import Tensors, Values, stable_poles
from lqo_mor.errors import CheckpointError
from lqo_mor.systems.diagonal import DiagonalLQOSystem
from lqo_mor.systems.quadratic import QuadraticOutput

_NUDGE = 1e-12  # an angle far below float32 resolution; see `_read`


def _read(layer: str, tensors: Tensors, settings: Settings) -> Layer:
    def tensor(name: str) -> np.ndarray:
        return tensors[f"ssm.{name}"].astype(np.float64)

    quadratic = "ssm.U" in tensors
    B, C, *products = (complex_numbers(tensors[f"ssm.{name}"]) for name in ("BCUV" if quadratic else "BC"))
    rows = [C, *products]
    with np.errstate(over="ignore"):  # exp(-exp(large)) is 0
        modulus, theta = np.exp(-np.exp(tensor("nu_log"))), tensor("theta")
    # A real pole is one state with real rows. Complex rows need two states: move the pole off the axis, too little to matter.
    real_rows = np.all(B.imag == 0, axis=1) & np.all(np.concatenate(rows).imag == 0, axis=0)
    on_axis = (theta == 0) | (np.abs(theta) == PI32)
    theta = np.where(on_axis & ~real_rows, theta + _NUDGE, theta)
    poles = modulus * np.exp(1j * theta)
    poles = np.where(on_axis & real_rows, modulus * np.where(theta == 0, 1.0, -1.0), poles)
    # A pole that has underflowed to zero acts at lag 0 only, and is real whatever its angle was.
    poles = np.where((poles.imag == 0) & ~real_rows, SMALLEST * np.exp(1j), poles)
    # The file counts a real pole twice, 2 Re(c b) λ^k, our half storage once.
    B = np.where((poles.imag == 0)[:, np.newaxis], 2 * B, B)
    factors = QuadraticOutput(rows[1], rows[2], tensor("W")) if quadratic else None
    return Layer(DiagonalLQOSystem(stable_poles(layer, poles), B, C, diagonal_feedthrough(layer, tensor("D")), factors, dt=1.0))


def _write(layer: str, ssm: DiagonalLQOSystem, tensors: Tensors, settings: Values) -> Tensors:
    if ssm.batch:
        raise CheckpointError(f"{layer} is a batch of channels, which the LQO format cannot store")
    modulus, real = np.abs(stable_poles(layer, ssm.poles)), ssm.is_real_pole
    if np.any(ssm.D - np.diag(np.diag(ssm.D))):
        raise CheckpointError(f"{layer} has a feedthrough that is not diagonal, so the LQO format cannot store it")

    values = {
        "ssm.nu_log": np.log(-np.log(np.maximum(modulus, SMALLEST))),
        "ssm.theta": np.where(real, np.where(ssm.poles.real < 0, PI32, 0.0), np.angle(ssm.poles)),
        "ssm.B": real_view(np.where(real[:, np.newaxis], 0.5, 1.0) * ssm.B),
        "ssm.C": real_view(ssm.C),
        "ssm.D": np.diag(ssm.D),
    }
    q = ssm.M
    if q is not None and q.rank:
        values |= {"ssm.U": real_view(q.U), "ssm.V": real_view(q.V), "ssm.W": q.W}
    return values


def _parameters(ssm: DiagonalLQOSystem) -> int:
    n, d, c = ssm.n_slots, ssm.n_inputs, 0 if ssm.M is None else ssm.M.rank
    return 2 * n + 4 * n * d + d + 4 * c * n + c * d


LQO = Family(
    name="lqo",
    looks_like="an LQO deep model of this package (encoder, blocks.N.ssm.{nu_log, theta, B, C, D, U, V, W}, decoder, config)",
    markers=("ssm.nu_log",),
    names=tuple(f"ssm.{name}" for name in ("nu_log", "theta", "B", "C", "D", "U", "V", "W", "theta_log")),
    read=_read,
    write=_write,
    recognises=lambda names: "ssm.theta_log" not in names,  # an LRU layer has that name
    same_size=False,
    structure=LQO_MODEL,
    parameters=_parameters,
)
