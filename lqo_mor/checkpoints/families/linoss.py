"""LinOSS: forced oscillators without damping, ``w'' = -A w + B u``, ``y = Re(C w) + D u`` (arXiv:2410.03943).

With ``A = relu(A_diag)`` and the step ``s = sigmoid(steps)``, velocity v and position w of an oscillator follow

    IM    v[k] = v[k-1] + s (f[k] - A w[k]),    w[k] = w[k-1] + s v[k]
    IMEX  v[k] = v[k-1] + s (f[k] - A w[k-1]),  w[k] = w[k-1] + s v[k]

for the complex ``f = B u``. Its impulse response is ``g Im(λ^{k+1}) / Im λ`` with ``λ = 1/(1 - i s √A)``, ``g = s² |λ|²`` (IM)
or ``λ = 1 - s² A / 2 + i s √(A - s² A² / 4)``, ``g = s²`` (IMEX, on the unit circle), times ``Re C Re B - Im C Im B``, of rank
two. So it takes two neighbouring slots with the pole λ, rows ``Re B`` and ``Im B``, and columns ``r Re C`` and ``-r Im C`` with
the common factor ``r = g λ / (2i Im λ)``.

Frequency, decay and phase of an oscillator are tied: a reduced system fits only if its slots are oscillators of the file.
"""

from __future__ import annotations

import numpy as np

from lqo_mor.checkpoints.contracts import Family, Layer
from lqo_mor.checkpoints.families.in_class import keep_oscillators
from lqo_mor.checkpoints.families.slots import check_linear, diagonal_feedthrough, diagonal_of, size
from lqo_mor.checkpoints.settings import Settings
from lqo_mor.checkpoints.tensors import Tensors, Values, check_tensors
from lqo_mor.errors import CheckpointError
from lqo_mor.systems.diagonal import DiagonalLQOSystem

_STEPS = ("steps", "dt")  # the names of the original and of the later repository
_SLOWEST = 1e-8  # s √A, the angle of the pole: A = 0 is a double pole at 1, two ramps that no sequence in use tells from it
_SAME = 1e-9  # of tensors in single precision two poles differ by more, or are equal
_FLAT = 1e-6  # imaginary part of a real column after rounding


def _step_name(tensors: Tensors) -> str:
    return next((name for name in _STEPS if name in tensors), _STEPS[0])


def _read(layer: str, tensors: Tensors, settings: Settings) -> Layer:
    rule = settings.choice("discretization", ("IM", "IMEX"), "IM")
    count, width = size(tensors, "A_diag", 0, 1), size(tensors, "B", 1, 3)
    shapes = {"A_diag": (count,), _step_name(tensors): (count,), "B": (count, width, 2), "C": (width, count, 2), "D": (width,)}
    check_tensors(tensors, shapes)
    poles, factor = _poles(layer, tensors, rule)
    B, C = tensors["B"].astype(np.float64), tensors["C"].astype(np.float64)
    columns = np.stack([C[..., 0], -C[..., 1]], axis=-1) * factor[:, np.newaxis]
    rows, columns = np.moveaxis(B, -1, 1).reshape(2 * len(poles), -1), columns.reshape(-1, 2 * len(poles))
    return Layer(DiagonalLQOSystem(np.repeat(poles, 2), rows, columns, diagonal_feedthrough(layer, tensors["D"]), dt=1.0))


def _poles(layer: str, tensors: Tensors, rule: str) -> tuple[np.ndarray, np.ndarray]:
    """Pole λ and factor r of every oscillator."""
    A = np.maximum(tensors["A_diag"].astype(np.float64), 0)
    with np.errstate(over="ignore"):  # 1 / (1 + e^large) is 0
        s = 1 / (1 + np.exp(-tensors[_step_name(tensors)].astype(np.float64)))
    x = np.maximum(s * np.sqrt(A), _SLOWEST)
    if rule == "IM":
        angle = np.arctan(x)
        modulus = np.cos(angle)
    else:
        if np.any(x >= 2):
            worst = int(np.argmax(x))
            raise CheckpointError(
                f"{layer}: with IMEX the oscillator {worst} grows without bound, since s² A = {x[worst] ** 2:.4g} is not "
                "below 4; is the discretization IM?"
            )
        angle, modulus = 2 * np.arcsin(x / 2), np.ones(len(x))
    poles = modulus * np.exp(1j * angle)
    return poles, (s * modulus) ** 2 * np.exp(1j * angle) / (2j * np.sin(angle))


def _write(layer: str, ssm: DiagonalLQOSystem, tensors: Tensors, settings: Values) -> Tensors:
    check_linear(layer, ssm)
    poles, factor = _poles(layer, tensors, settings["discretization"])
    D = diagonal_of(layer, ssm.D)
    silent = ~np.any(ssm.B, axis=1) & ~np.any(ssm.C, axis=0)
    end = ssm.n_slots - int(np.argmin(silent[::-1])) if not np.all(silent) else 0  # the rest fills up to the size of other layers
    end += end % 2
    kept, columns = [], []
    for first in range(0, end, 2):
        pair = slice(first, first + 2)
        there = np.all(np.abs(poles[:, np.newaxis] - ssm.poles[pair]) <= _SAME * np.abs(poles)[:, np.newaxis], axis=1)
        rows = np.zeros((2, ssm.n_inputs), complex)
        rows[: len(ssm.B[pair])] = ssm.B[pair]
        there &= np.all(np.moveaxis(tensors["B"], -1, 1) == rows, axis=(1, 2))
        index = int(np.argmax(there))
        column = ssm.C[:, pair] / factor[index]
        if not np.any(there) or np.max(np.abs(column.imag)) > _FLAT * np.max(np.abs(column)):
            raise CheckpointError(
                f"{layer} holds a system that is not made of oscillators of its file, and a LinOSS layer can hold nothing else; "
                "keep_oscillators(model, count) of lqo_mor.checkpoints.families.in_class keeps the most important "
                'ones, and save(..., format="native") stores any system'
            )
        kept.append(index)
        columns.append(column.real * [1, -1])
    step, width, empty = _step_name(tensors), ssm.n_inputs, (ssm.n_slots + 1) // 2 - len(kept)
    C = np.stack(columns, axis=1) if columns else np.zeros((width, 0, 2))
    return {
        "A_diag": np.append(tensors["A_diag"][kept], np.ones(empty)),
        step: np.append(tensors[step][kept], np.zeros(empty)),
        "B": np.concatenate([tensors["B"][kept], np.zeros((empty, width, 2))]),
        "C": np.concatenate([C, np.zeros((width, empty, 2))], axis=1),
        "D": D,
    }


LINOSS = Family(
    name="linoss",
    looks_like="LinOSS layers ({A_diag, steps, B, C, D})",
    markers=("A_diag",),
    names=("A_diag", *_STEPS, "B", "C", "D", "G_diag"),
    recognises=lambda names: "G_diag" not in names,
    read=_read,
    write=_write,
    in_class=lambda model, state_size, horizon: keep_oscillators(model, state_size // 4, horizon),
)
