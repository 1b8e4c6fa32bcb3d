"""What layers with a diagonal state matrix share: discretisation, and slots that all count alike.

Such a layer gives ``scale Re(c λ^k b)`` for every slot, whether its pole is real or not, while our half storage counts a
pair twice and a real pole once.
"""

from __future__ import annotations

import numpy as np

from lqo_mor.checkpoints.contract import check_tensors, stable_poles
from lqo_mor.errors import CheckpointError
from lqo_mor.systems.diagonal import DiagonalLQOSystem

SMALLEST = 1e-30  # modulus that stands for a pole at zero: it acts at lag 0 only
_NUDGE = 1e-12  # an angle that no sequence in use sees
_PI_ROUNDED = 4 * np.pi * float(np.finfo(np.float32).eps)  # how far single precision misses the angle π
_FLAT = 1e-5  # imaginary part of a real row after the rounding of all that it was computed from


def check_layer(layer: str, tensors: dict, shapes: dict[str, tuple], complexes: tuple[str, ...] = ()) -> None:
    """`check_tensors` with the layer in the names."""
    tensors, shapes = ({f"{layer}.{name}": value for name, value in table.items()} for table in (tensors, shapes))
    check_tensors(tensors, shapes, complexes=[f"{layer}.{name}" for name in complexes])


def discretise(layer: str, A: np.ndarray, log_dt: np.ndarray, rule: str) -> tuple[np.ndarray, np.ndarray]:
    """Poles and input factors of ``x' = A x + b u``: ``λ`` and ``g`` in ``x[k] = λ x[k-1] + g b u[k]``.

    Parameters
    ----------
    layer : str
        Its name, for messages.
    A : (..., s) ndarray
        Continuous poles.
    log_dt : ndarray
        Logarithms of the steps; any shape that broadcasts with `A`.
    rule : {"zoh", "bilinear"}
        ``λ = e^{dt A}``, ``g = (λ - 1)/A``, or ``λ = (1 + dt A/2)/(1 - dt A/2)``, ``g = dt/(1 - dt A/2)``.

    Raises
    ------
    CheckpointError
        If they are not finite; a zero-order hold divides by ``A``.
    """
    with np.errstate(all="ignore"):  # what overflows is reported below
        dt = np.exp(log_dt)
        z = dt * A
        poles, factors = (np.exp(z), np.expm1(z) / A) if rule == "zoh" else ((1 + z / 2) / (1 - z / 2), dt / (1 - z / 2))
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
    1e-12. One with real rows becomes a real pole, also if single precision misses the axis.

    Parameters
    ----------
    poles : (..., s) ndarray
        Poles.
    B : (..., s, m) ndarray
        Input rows.
    C : (..., p, s) ndarray
        Output columns.
    scale : {1, 2}
        How often the format counts the real part of a slot.

    Returns
    -------
    tuple of ndarray
        The three in half storage.
    """
    if B.shape[-1] == 1:  # only the products matter, and of a real pole only their real parts
        B, C = np.ones_like(B), C * np.swapaxes(B, -1, -2)
        C = np.where((poles.imag == 0)[..., np.newaxis, :], C.real, C)
    angle = np.abs(np.angle(poles))
    beside = (angle <= _NUDGE) | (np.abs(angle - np.pi) <= _PI_ROUNDED)
    real = beside & _flat(B, -1) & _flat(C, -2)
    on_axis = poles.imag == 0
    aside = np.where(np.abs(poles) < SMALLEST, SMALLEST * np.exp(1j), poles * np.exp(1j * _NUDGE))
    poles = np.where(real, np.where(poles.real < 0, -1, 1) * np.abs(poles), np.where(on_axis, aside, poles))
    B = np.where(real[..., :, np.newaxis], B.real, B)
    C = np.where(real[..., np.newaxis, :], scale * C.real, scale / 2 * C)
    return poles, B, C


def _flat(rows: np.ndarray, axis: int) -> np.ndarray:
    """Which slots have rows that are real but for rounding."""
    return np.max(np.abs(rows.imag), axis=axis) <= _FLAT * np.max(np.abs(rows), axis=axis)


def from_half_storage(ssm: DiagonalLQOSystem, scale: int) -> np.ndarray:
    """The inverse of `to_half_storage` for the output columns; poles and input rows stay."""
    return ssm.C * (np.where(ssm.is_real_pole, 1, 2) / scale)[..., np.newaxis, :]


def check_linear(layer: str, ssm: DiagonalLQOSystem) -> None:
    """Raise `CheckpointError` where the system has a quadratic output, which no class of these layers has."""
    if ssm.quadratic is not None:
        raise CheckpointError(
            f'{layer} has a quadratic output, which its format cannot store; save(..., format="native") stores it'
        )


def diagonal_of(layer: str, D: np.ndarray) -> np.ndarray:
    """The diagonal of a feedthrough (H, H); raises `CheckpointError` where there is more than that."""
    diagonal = np.diagonal(D)
    if D.shape[0] != D.shape[1] or np.any(np.diag(diagonal) != D):
        raise CheckpointError(
            f"{layer} has a feedthrough D from features to other features, and its format stores one number a feature; "
            'save(..., format="native") stores it'
        )
    return diagonal
