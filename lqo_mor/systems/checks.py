"""Validation of the arrays of a system; each message names the array, its shape and the wanted one."""

from __future__ import annotations

import numbers

import numpy as np
from numpy.typing import ArrayLike

from lqo_mor.errors import DimensionError, InvalidInputError


def as_array(name: str, value: ArrayLike, dtype: type[np.float64] | type[np.complex128] | None = None) -> np.ndarray:
    """A read-only float64 or complex128 copy of `value`, every entry finite."""
    try:
        array = np.asarray([_full(v) for v in value] if isinstance(value, (list, tuple)) else _full(value))
        if array.dtype.kind not in "biufc":
            raise TypeError(f"dtype {array.dtype}")
    except (TypeError, ValueError) as err:
        raise InvalidInputError(f"{name} is not a numeric array: {err}") from None
    if array.dtype.kind == "c" and dtype == np.float64:
        if np.any(array.imag):
            raise InvalidInputError(f"{name} must be real, but has complex entries")
        array = array.real
    array = np.array(array, dtype or (np.complex128 if array.dtype.kind == "c" else np.float64), order="C")
    if not np.all(np.isfinite(array)):
        where = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise InvalidInputError(f"{name} has {np.sum(~np.isfinite(array))} entries that are not finite, first at {where}")
    array.flags.writeable = False
    return array


def _full(value: ArrayLike) -> ArrayLike:
    """SciPy's sparse matrices as arrays, anything else as it is."""
    return value.toarray() if hasattr(value, "toarray") else value


def check_shape(name: str, array: np.ndarray, wanted: tuple[int, ...], meaning: str) -> None:
    """Raise unless `array.shape == wanted`; `meaning` spells the symbols, for instance ``"(n, m)"``."""
    if array.shape != wanted:
        hint = ""
        if array.ndim == len(wanted) - 1 and array.size == np.prod(wanted, dtype=int):
            hint = f"; reshape it with {name}.reshape{wanted}"
        raise DimensionError(f"{name} has shape {array.shape}, expected {meaning} = {wanted}{hint}")


def check_dt(dt: object) -> float | bool:
    """`dt` as in python-control: 0 continuous, a positive number or True discrete."""
    wanted = "dt must be 0 (continuous), a positive number or True (discrete)"
    if isinstance(dt, (bool, np.bool_)) and dt:
        return True
    if isinstance(dt, (bool, np.bool_)) or not isinstance(dt, numbers.Real):
        raise InvalidInputError(f"{wanted}, got {dt!r}")
    try:
        step = float(dt)
    except OverflowError:
        raise InvalidInputError(f"{wanted}, got a number too large for double precision") from None
    if not np.isfinite(step) or step < 0:
        raise InvalidInputError(f"{wanted}, got {dt!r}")
    return step
