"""Tensors of checkpoints by their keys: the checks and the rounding that all formats share."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import DTypeLike

from lqo_mor.errors import CheckpointError, shown

Tensors: TypeAlias = dict[str, np.ndarray]  # by their keys
Shapes: TypeAlias = dict[str, tuple[int | None, ...]]  # None for any size
Values: TypeAlias = dict[str, Any]  # settings, or entries of a file beside its tensors

MOST_ENTRIES = 2**20  # tensors, numbers and texts in a file that nests them; models have thousands
_MARGIN = 1e-12  # far above rounding, far below what a sequence of any length or a float32 could notice


def layer_count(keys: Iterable[str], prefix: str) -> int:
    """The number of layers ``prefix.0 ... prefix.{n-1}``; raises when one is missing between them."""
    numbers = {key.split(".")[1] for key in keys if key.startswith(prefix + ".") and key.count(".") >= 2}
    expected = {str(i) for i in range(len(numbers))}
    if not numbers or numbers != expected:
        found = ", ".join(sorted(numbers, key=lambda n: (len(n), n))[:8]) or "none"
        raise CheckpointError(f"the layers {prefix}.* are not numbered 0, 1, 2, ...; found {found}")
    return len(numbers)


def check_tensors(
    state: Tensors,
    shapes: Shapes,
    integers: Collection[str] = (),
    empty: Collection[str] = (),
    complexes: Collection[str] = (),
) -> None:
    """Raise unless `state` holds exactly the tensors of `shapes`, real floating-point and finite.

    A None in a shape stands for any size of at least one. The tensors named in `integers` and `complexes` hold such
    numbers instead, and those named in `empty` may have no entries.
    """
    missing = [key for key in shapes if key not in state]
    unexpected = [key for key in state if key not in shapes]
    problems = [f"missing: {listing(missing)}"] if missing else []
    if unexpected:
        problems.append(f"unexpected: {listing(unexpected)}")
    if problems:
        raise CheckpointError("the tensors do not fit the format; " + "; ".join(problems))
    for key, wanted in shapes.items():
        value = state[key]
        kinds, wanted_kind = "f", "floating-point numbers"
        if key in integers or key in complexes:
            kinds, wanted_kind = ("iu", "integers") if key in integers else ("c", "complex numbers")
        if value.dtype.kind not in kinds:
            raise CheckpointError(f"{key} holds {value.dtype}, expected {wanted_kind}")
        if value.size == 0 and key not in empty:
            raise CheckpointError(f"{key} is empty: it has shape {value.shape}")
        if value.ndim != len(wanted) or any(w not in (None, n) for w, n in zip(wanted, value.shape, strict=True)):
            meaning = ", ".join("any" if w is None else str(w) for w in wanted)
            raise CheckpointError(f"{key} has shape {value.shape}, expected ({meaning}{',' if len(wanted) == 1 else ''})")
        if not np.all(np.isfinite(value)):
            raise CheckpointError(f"{key} has {np.sum(~np.isfinite(value))} entries that are not finite")


def parameter_count(array: np.ndarray) -> int:
    """Real numbers in a tensor; integers are no parameters."""
    return array.size * {"f": 1, "c": 2}.get(array.dtype.kind, 0)


def listing(keys: list[str], most: int = 6) -> str:
    """The first keys as text, with the number of the others."""
    rest = f" and {len(keys) - most} more" if len(keys) > most else ""
    return ", ".join(map(shown, keys[:most])) + rest


def stable_poles(layer: str, poles: np.ndarray) -> np.ndarray:
    """The poles inside the unit circle: within 1e-12 of the circle they are pulled inside, one farther out raises.

    Rounding puts a very slow pole onto the circle, ``exp(-exp(-60))``; at 1e-12 from it no sequence in use sees the change.
    """
    modulus = np.abs(poles)
    if np.any(modulus > 1 + _MARGIN):
        raise CheckpointError(f"{layer} has a pole of modulus {np.max(modulus):.6g}; the format stores stable systems only")
    return np.where(modulus > 1 - _MARGIN, poles * ((1 - _MARGIN) / np.maximum(modulus, 0.5)), poles)


def full_precision(array: np.ndarray) -> np.ndarray:
    """Half precision as float32 (poles need the digits), extended precision as float64, all in the machine's byte order."""
    if array.dtype.kind != "f":
        return array
    with np.errstate(over="ignore"):
        return array.astype(np.float32 if array.dtype.itemsize <= 4 else np.float64, copy=False)


def from_bfloat16(array: np.ndarray) -> np.ndarray:
    """The numbers, of which NumPy sees 16 bits, as float32, which holds every one of them: bfloat16 is its first half."""
    bits = array.astype(np.uint32)
    bits <<= 16
    return bits.view(np.float32)


def rounded(key: str, value: np.ndarray, dtype: DTypeLike) -> np.ndarray:
    """`value` in the precision of the file; raises where that overflows."""
    with np.errstate(over="ignore"):
        array = np.asarray(value, dtype=dtype, order="C")  # a single number stays without axes
    if not np.all(np.isfinite(array)):
        raise CheckpointError(f"{key} cannot be stored: its values overflow {np.dtype(dtype)}")
    return array
