"""What layers with a diagonal state matrix share: shapes, complex numbers, discretisation, and slots that all count alike.

Such a layer gives ``scale Re(c λ^k b)`` for every slot, whether its pole is real or not, while our half storage counts a
pair twice and a real pole once.
"""

from __future__ import annotations

import numpy as np

from lqo_mor.checkpoints.tensors import Shapes, Tensors, check_tensors, stable_poles
from lqo_mor.errors import CheckpointError
from lqo_mor.systems.diagonal import DiagonalLQOSystem

SMALLEST = 1e-30  # modulus that stands for a pole at zero: it acts at lag 0 only
PI32 = float(np.float32(np.pi))  # the angle of a negative real pole in a file of single precision
NO_ANGLE = 1e-12  # an angle that no sequence in use sees: it stands for none, or for one where there is none
WAY_OUT = 'save(..., format="native") stores it'
_MOST_CHANNELS = 2**13  # of a square feedthrough: half a gigabyte
_PI_ROUNDED = 4 * np.pi * float(np.finfo(np.float32).eps)  # how far single precision misses the angle π
_FLAT = 1e-5  # imaginary part of a real row after the rounding of all that it was computed from


def check_layer(layer: str, tensors: Tensors, shapes: Shapes, complexes: tuple[str, ...] = ()) -> None:
    """`check_tensors` with the layer in the names."""
    found = {f"{layer}.{name}": value for name, value in tensors.items()}
    wanted = {f"{layer}.{name}": shape for name, shape in shapes.items()}
    check_tensors(found, wanted, complexes=[f"{layer}.{name}" for name in complexes])


def size(tensors: Tensors, name: str, axis: int, ndim: int) -> int | None:
    """Length of an axis of a tensor, None where it is missing or has another number of axes, so that the check can tell."""
    value = tensors.get(name)
    return value.shape[axis] if value is not None and value.ndim == ndim else None


def complex_numbers(view: np.ndarray) -> np.ndarray:
    """Complex numbers in double precision, of a real view with a trailing 2."""
    return view[..., 0].astype(np.float64) + 1j * view[..., 1]


def real_view(array: np.ndarray) -> np.ndarray:
    """The inverse of `complex_numbers`."""
    return np.stack([array.real, array.imag], axis=-1)


def diagonal_feedthrough(layer: str, D: np.ndarray) -> np.ndarray:
    """The matrix of a feedthrough that a file stores by its diagonal; refused where a small file would ask for gigabytes."""
    if D.size > _MOST_CHANNELS:
        raise CheckpointError(f"{layer} has {D.size} channels; a feedthrough of more than {_MOST_CHANNELS} is refused")
    return np.diag(D.astype(np.float64))


def discrete(A: np.ndarray, dt: np.ndarray | float, rule: str) -> tuple[np.ndarray, np.ndarray]:
    """`discretise` for steps instead of their logarithms, without its checks."""
    z = dt * A
    if rule == "zoh":
        return np.exp(z), np.expm1(z) / A
    return (1 + z / 2) / (1 - z / 2), dt / (1 - z / 2)


def discretise(layer: str, A: np.ndarray, log_dt: np.ndarray, rule: str) -> tuple[np.ndarray, np.ndarray]:
    """Poles and input factors of ``x' = A x + b u``: ``λ`` and ``g`` in ``x[k] = λ x[k-1] + g b u[k]``.

    By the rule "zoh", ``λ = e^{dt A}``, ``g = (λ - 1)/A``, or "bilinear", ``λ = (1 + dt A/2)/(1 - dt A/2)``,
    ``g = dt/(1 - dt A/2)``, of continuous poles `A` (..., s) and steps that broadcast with them. Raises `CheckpointError` if
    they are not finite; a zero-order hold divides by `A`.
    """
    with np.errstate(all="ignore"):  # what overflows is reported below
        poles, factors = discrete(A, np.exp(log_dt), rule)
    if not (np.all(np.isfinite(poles)) and np.all(np.isfinite(factors))):
        raise CheckpointError(f"{layer}: the state matrix and the steps give poles or input rows that are not finite")
    return pulled_inside(layer, poles, A.real < 0), factors


def pulled_inside(layer: str, poles: np.ndarray, stable: np.ndarray) -> np.ndarray:
    """`stable_poles` for some of the poles; the others stay."""
    return np.where(stable, stable_poles(layer, np.where(stable, poles, 0.5)), poles)


def undiscretise(poles: np.ndarray, rule: str) -> tuple[np.ndarray, np.ndarray]:
    """The inverse of `discretise`: ``z = dt A`` and ``dt g``; the pole 1 has none."""
    poles = np.where(np.abs(poles) < SMALLEST, SMALLEST, poles).astype(np.complex128)
    if rule == "zoh":
        z = np.log(poles)
        return z, (poles - 1) / z
    z = 2 * (poles - 1) / (poles + 1)
    return z, 1 / (1 - z / 2)


def to_half_storage(poles: np.ndarray, B: np.ndarray, C: np.ndarray, scale: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Half storage of slots that give ``scale Re(C λ^k B)`` each.

    A pole on the real axis with complex rows has a residue of rank two and needs two states: it is moved off the axis by
    1e-12. One with real rows becomes a real pole, also if single precision misses the axis. With one input only the products
    of the rows matter, and of a real pole only their real parts.

    Takes and returns `poles` (..., s), input rows `B` (..., s, m) and output columns `C` (..., p, s); `scale` (1 or 2) says how
    often the format counts the real part of a slot.
    """
    if B.shape[-1] == 1:
        B, C = np.ones_like(B), C * np.swapaxes(B, -1, -2)
        C = np.where((poles.imag == 0)[..., np.newaxis, :], C.real, C)
    real = beside_axis(poles) & _flat(B, -1) & _flat(C, -2)
    on_axis = poles.imag == 0
    aside = np.where(np.abs(poles) < SMALLEST, SMALLEST * np.exp(1j), poles * np.exp(1j * NO_ANGLE))
    poles = np.where(real, np.where(poles.real < 0, -1, 1) * np.abs(poles), np.where(on_axis, aside, poles))
    B = np.where(real[..., :, np.newaxis], B.real, B)
    C = np.where(real[..., np.newaxis, :], scale * C.real, scale / 2 * C)
    return poles, B, C


def beside_axis(poles: np.ndarray) -> np.ndarray:
    """Which poles are on the real axis, or were before their angle was rounded to single precision or replaced by `NO_ANGLE`."""
    angle = np.abs(np.angle(poles))
    return (angle < 10 * NO_ANGLE) | (np.pi - angle < _PI_ROUNDED)


def _flat(rows: np.ndarray, axis: int) -> np.ndarray:
    """Which slots have rows that are real but for rounding."""
    return np.all(np.abs(rows.imag) <= _FLAT * np.abs(rows), axis=axis)


def from_half_storage(ssm: DiagonalLQOSystem, scale: int) -> np.ndarray:
    """The inverse of `to_half_storage` for the output columns; poles and input rows stay."""
    return ssm.C * per_slot(ssm, scale)[..., np.newaxis, :]


def per_slot(ssm: DiagonalLQOSystem, scale: int) -> np.ndarray:
    """What the residues of a system are multiplied by where every slot counts `scale` times."""
    return np.where(ssm.is_real_pole, 1, 2) / scale


def check_linear(layer: str, ssm: DiagonalLQOSystem) -> None:
    """Raise `CheckpointError` where the system has a quadratic output, which no class of these layers has."""
    if ssm.M is not None:
        raise CheckpointError(f"{layer} has a quadratic output, which its format cannot store; {WAY_OUT}")


def diagonal_of(layer: str, D: np.ndarray) -> np.ndarray:
    """The diagonal of a feedthrough (H, H); raises `CheckpointError` where there is more than that."""
    diagonal = np.diagonal(D)
    if D.shape[0] != D.shape[1] or np.any(np.diag(diagonal) != D):
        raise CheckpointError(
            f"{layer} has a feedthrough D from features to other features, and its format stores one number a feature; {WAY_OUT}"
        )
    return diagonal
