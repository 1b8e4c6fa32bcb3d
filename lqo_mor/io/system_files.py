"""Systems in files of our own, npz or JSON, every number kept bit for bit.

Both hold the same fields: ``format = "lqo-mor system"``, ``version = 1``, ``kind``, ``dt`` (0, a number or true) and the arrays
of the system. A ``"dense"`` one has `A`, `B`, `C`, `D` and, for a quadratic output, `M` (p, n, n) or the factors `U`, `V`, `W`; a
``"diagonal"`` one `poles`, `B`, `C`, `D` and where it has them `U`, `V`, `W`. In JSON an array is
``{"shape": [...], "real": [...], "imag": [...]}``, flat in C order, `imag` for a complex one only.
"""

from __future__ import annotations

import io
import json
import math
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np

from lqo_mor.errors import InvalidInputError, OutputError
from lqo_mor.files import FilePath, write_atomically
from lqo_mor.io.system_checks import naming, new_path, read_bytes, unpacked_bound
from lqo_mor.systems.dense import LQOSystem
from lqo_mor.systems.diagonal import DiagonalLQOSystem
from lqo_mor.systems.quadratic import QuadraticOutput
from lqo_mor.systems.system import System, check_kind

FORMAT = "lqo-mor system"
VERSION = 1
_KINDS = {"dense": ("A", "B", "C", "D"), "diagonal": ("poles", "B", "C", "D")}
_FACTORS = ("U", "V", "W")


def save_system(path: FilePath, sys: System, *, overwrite: bool = False) -> None:
    """Write a system to a file that `load_system` reads back exactly.

    Parameters
    ----------
    path : str or path-like
        File to write, with the suffix ``.npz`` or ``.json`` (readable as text, about twice as large). It is complete or not there
        at all.
    sys : LQOSystem or DiagonalLQOSystem
        Real or complex, with or without quadratic output, also a batch.
    overwrite : bool, default False
        Whether an existing file may be replaced.

    Raises
    ------
    OutputError
        If the file exists already, has another suffix or cannot be written.
    InvalidInputError
        If `sys` is no such system.

    Examples
    --------
    >>> import tempfile, lqo_mor as lqo
    >>> from lqo_mor.io import load_system, save_system
    >>> folder = tempfile.TemporaryDirectory()
    >>> save_system(folder.name + "/system.json", lqo.DiagonalLQOSystem([0.5j], [[1.0]], [[1.0]], dt=1.0))
    >>> load_system(folder.name + "/system.json").poles
    array([0.+0.5j])
    """
    path = new_path(path, overwrite)
    if path.suffix.lower() not in (".npz", ".json"):
        raise OutputError(f"the suffix of {path} is unknown, expected .npz or .json")
    fields = _fields(sys)
    if path.suffix.lower() == ".npz":
        file = io.BytesIO()
        np.savez(file, **fields)
        payload = file.getvalue()
    else:
        payload = json.dumps({k: _listed(v) if isinstance(v, np.ndarray) else v for k, v in fields.items()}).encode()
    write_atomically(path, payload, overwrite)


def load_system(path: FilePath) -> LQOSystem | DiagonalLQOSystem:
    """Read a system that `save_system` has written.

    Parameters
    ----------
    path : str or path-like
        An npz or JSON file of this format; the content decides which. Nothing in it is executed.

    Returns
    -------
    LQOSystem or DiagonalLQOSystem
        With the same bits in every array as the one that was saved.

    Raises
    ------
    InvalidInputError
        If the file is missing, damaged or of an unknown version, or a field is missing, unknown, misshaped or not finite; the
        message names file and field.

    Examples
    --------
    >>> import tempfile, lqo_mor as lqo
    >>> from lqo_mor.io import load_system, save_system
    >>> folder = tempfile.TemporaryDirectory()
    >>> save_system(folder.name + "/system.npz", lqo.LQOSystem([[0.5]], [[1.0]], [[1.0]], dt=True))
    >>> load_system(folder.name + "/system.npz")
    LQOSystem(order=1, inputs=1, outputs=1, quadratic=none, dt=True)
    """
    path, content = read_bytes(path)
    with naming(path):
        return _system(_read_npz(content) if content[:2] == b"PK" else _read_json(content))


def _fields(sys: System) -> dict[str, Any]:
    """What the file holds."""
    check_kind(sys)
    kind, quadratic = ("dense", sys.M) if isinstance(sys, LQOSystem) else ("diagonal", sys.M)
    fields = {"format": FORMAT, "version": VERSION, "kind": kind, "dt": sys.dt}
    fields |= {name: getattr(sys, name) for name in _KINDS[kind]}
    if isinstance(quadratic, QuadraticOutput):
        fields |= {name: getattr(quadratic, name) for name in _FACTORS}
    elif quadratic is not None:
        fields["M"] = quadratic
    return fields


def _system(fields: dict[str, Any]) -> LQOSystem | DiagonalLQOSystem:
    """The system of these fields."""
    if not _is(fields.get("format"), FORMAT):
        raise InvalidInputError(f"is no system of lqo-mor: its field 'format' is not {FORMAT!r}")
    if not _is(fields.get("version"), VERSION):
        raise InvalidInputError(f"has version {_short(fields.get('version'))}, but only version {VERSION} is known here")
    kind = next((name for name in _KINDS if _is(fields.get("kind"), name)), None)
    if kind is None:
        raise InvalidInputError(f"its field 'kind' is {_short(fields.get('kind'))}, expected one of {', '.join(_KINDS)}")
    quadratic = ("M",) if kind == "dense" and "M" in fields else _FACTORS if set(_FACTORS) & fields.keys() else ()
    arrays = (*_KINDS[kind], *quadratic)
    wrong = [f"lacks {name!r}" for name in ("dt", *arrays) if name not in fields]
    wrong += [f"has unknown {name!r}" for name in fields if name not in ("format", "version", "kind", "dt", *arrays)]
    if wrong:
        raise InvalidInputError(f"is a {kind} system of version {VERSION}, but it {', '.join(wrong)[:300]}")
    for name in arrays:
        if not isinstance(fields[name], np.ndarray):
            raise InvalidInputError(f"its field {name!r} is {_short(fields[name])}, expected an array")
    first, B, C, D = (fields[name] for name in _KINDS[kind])
    M = QuadraticOutput(*(fields[name] for name in _FACTORS)) if quadratic == _FACTORS else fields.get("M")
    return (LQOSystem if kind == "dense" else DiagonalLQOSystem)(first, B, C, D, M, dt=fields["dt"])


def _is(value: object, wanted: object) -> bool:
    """Equal and of the same type: a file may hold an array here, or true for 1."""
    return type(value) is type(wanted) and value == wanted


def _short(value: object) -> str:
    """A value of a file for a message."""
    return repr(value)[:80] if isinstance(value, (bool, int, float, str)) else f"of type {type(value).__name__}"


def _read_npz(content: bytes) -> dict[str, Any]:
    """Arrays, and the scalars among them as Python's."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            total = sum(entry.file_size for entry in archive.infolist())
        if total > (bound := unpacked_bound(content)):
            raise InvalidInputError(f"unpacks to more than {bound / 2**30:.2g} GiB, which is refused for its size")
        fields = {}
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            for name in file.files:
                fields[name] = _npz_field(name, file)
    except (InvalidInputError, MemoryError):
        raise
    except Exception as err:  # damage: BadZipFile, zlib.error, NotImplementedError and more
        raise InvalidInputError(f"is damaged: reading it ends in {type(err).__name__}") from None
    return {name: value.item() if value.ndim == 0 else value for name, value in fields.items()}


def _npz_field(name: str, file: Mapping[str, Any]) -> np.ndarray:
    try:
        value = file[name]
    except ValueError:
        raise InvalidInputError(f"its field {name!r} is damaged, or holds Python objects, which are refused") from None
    if not isinstance(value, np.ndarray):  # an entry of the archive that is no array
        raise InvalidInputError(f"its field {name!r} is no array of NumPy")
    return value


def _read_json(content: bytes) -> dict[str, Any]:
    """Values, and the arrays among them as NumPy's."""
    try:
        fields = json.loads(content)
    except (ValueError, RecursionError) as err:
        raise InvalidInputError(f"is neither an npz nor a JSON file: {str(err)[:100]}") from None
    if not isinstance(fields, dict):
        raise InvalidInputError("is no system of lqo-mor: a JSON object is expected")
    return {name: _array(name, value) if isinstance(value, dict) else value for name, value in fields.items()}


def _listed(array: np.ndarray) -> dict[str, Any]:
    """An array for JSON; `repr` of a float, which `json` writes, gives back the same bits."""
    parts = {"real": array.real.ravel().tolist()}
    if np.iscomplexobj(array):
        parts["imag"] = array.imag.ravel().tolist()
    return {"shape": list(array.shape), **parts}


def _array(name: str, value: dict[str, Any]) -> np.ndarray:
    """The array that `_listed` has written."""
    shape = value.get("shape")
    if not isinstance(shape, list) or len(shape) > 32 or not all(type(k) is int and k >= 0 for k in shape):
        raise InvalidInputError(f"the shape of its field {name!r} is no list of sizes")
    real = _numbers(name, value, "real", math.prod(shape))
    array = real
    if "imag" in value:
        array = real.astype(complex)
        array.imag = _numbers(name, value, "imag", array.size)
    try:
        return array.reshape(shape)
    except ValueError:  # sizes beyond those of NumPy, beside a zero
        raise InvalidInputError(f"the shape of its field {name!r} is no list of sizes") from None


def _numbers(name: str, value: dict[str, Any], part: str, size: int) -> np.ndarray:
    """The real or imaginary part of a field, flat."""
    try:
        numbers = np.array(value.get(part))
    except ValueError:  # lists of different lengths
        numbers = np.array(None)
    if numbers.dtype.kind not in "iuf" or numbers.shape != (size,):
        raise InvalidInputError(f"{part!r} of its field {name!r} is no flat list of {size} numbers")
    return numbers.astype(float)
