"""Reader of the matrices in MATLAB files of versions 5 to 7, for files that are not trusted.

SciPy's reader ends the process on some damaged files, by an invalid memory access. This one checks every size before it is used,
bounds what a file unpacks to and leaves out what is no matrix. The layout is that of MathWorks, "MAT-File Format", version 5:
elements of a type, a size and data; the data of a matrix are elements again.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
import scipy.sparse

from lqo_mor.errors import InvalidInputError

_MATRIX, _COMPRESSED = 14, 15  # types of elements
_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_STRUCTURE, _SPARSE, _OPAQUE = 2, 5, 17  # classes of matrices
_NUMERIC = range(6, 16)
_OTHER = {1: "a cell array", 2: "a structure", 3: "an object", 4: "text", 16: "a function", _OPAQUE: "an object"}
_COMPLEX = 1 << 11  # a flag of a matrix


def read_mat5(content: bytes, limit: int) -> dict[str, Any]:
    """The variables of a MATLAB file by their names.

    A numeric matrix is an array or a `scipy.sparse.csc_array`, a single structure a dictionary of such values, and anything else
    a text that says what it is. Raises `InvalidInputError` if the file is damaged, of another version or unpacks to more than
    `limit` bytes.
    """
    mark = content[124:128]
    if content.startswith(b"\x89HDF") or mark in (b"\x00\x02IM", b"\x02\x00MI"):
        raise InvalidInputError("is of version 7.3 (HDF5), which is not read; in MATLAB, save it with save(name, '-v7')")
    if mark not in (b"\x00\x01IM", b"\x01\x00MI"):
        raise InvalidInputError("is no MATLAB file of version 5, 6 or 7, or damaged at its start")
    order, room = "<" if mark.endswith(b"IM") else ">", limit
    variables: dict[str, Any] = {}
    for kind, data in _elements(memoryview(content)[128:], order):
        if kind == _COMPRESSED:
            unpacked = _unpacked(data, room)
            room -= len(unpacked)
            if room < 0:
                raise InvalidInputError(f"unpacks to more than {limit / 2**30:.2g} GiB, which is refused")
            kind, data = _next(_elements(memoryview(unpacked), order))
        if kind == _MATRIX:
            name, value = _variable(data, order)
            variables[name] = value
    return variables


def _damaged(what: str) -> InvalidInputError:
    return InvalidInputError(f"is damaged or truncated: {what}")


Elements: TypeAlias = Iterator[tuple[int, memoryview]]  # type and data


def _elements(data: memoryview, order: str) -> Elements:
    """Type and data of one element after the other."""
    while len(data):
        if len(data) < 8:
            raise _damaged("an element without a type")
        kind, size = struct.unpack(order + "II", data[:8])
        start, after = 8, 8 + size + (0 if kind == _COMPRESSED else -size % 8)
        if kind >> 16:  # a small element: size and type in one number, then up to four bytes of data
            kind, size, start, after = kind & 0xFFFF, kind >> 16, 4, 8
        if start + size > min(after, len(data)):
            raise _damaged("an element is longer than what holds it")
        yield kind, data[start : start + size]
        data = data[after:]


def _next(elements: Elements) -> tuple[int, memoryview]:
    element = next(elements, None)
    if element is None:
        raise _damaged("an element is missing")
    return element


def _unpacked(data: memoryview, room: int) -> bytes:
    """The data in full, or one byte more than there is room for."""
    stream = zlib.decompressobj()
    try:
        unpacked = stream.decompress(data, room + 1)
    except zlib.error:
        raise _damaged("compressed data") from None
    if len(unpacked) <= room and not stream.eof:
        raise _damaged("compressed data")
    return unpacked


def _numbers(element: tuple[int, memoryview], order: str) -> np.ndarray:
    """The numbers of an element, in one axis."""
    kind, data = element
    if kind not in _NUMBERS or len(data) % int(_NUMBERS[kind][1]):
        raise _damaged("an element that should hold numbers")
    return np.frombuffer(data, order + _NUMBERS[kind]) if len(data) else np.empty(0)


def _variable(data: memoryview, order: str, is_field: bool = False) -> tuple[str, object]:
    """Name and value of a matrix; a structure in a structure is not read."""
    parts = _elements(data, order)
    flags = _numbers(_next(parts), order)
    if flags.size != 2 or flags.dtype.kind != "u":
        raise _damaged("the flags of a variable")
    kind, is_complex = int(flags[0]) & 0xFF, bool(int(flags[0]) & _COMPLEX)
    shape = () if kind == _OPAQUE else tuple(int(k) for k in _numbers(_next(parts), order))
    name = bytes(_next(parts)[1]).decode("latin-1")
    if kind in _NUMERIC or kind == _SPARSE:
        if not 2 <= len(shape) <= 32 or min(shape) < 0:
            raise _damaged(f"the shape of {name!r}")
        return name, (_sparse if kind == _SPARSE else _dense)(name, shape, is_complex, parts, order)
    if kind == _STRUCTURE and shape == (1, 1) and not is_field:
        return name, _structure(name, parts, order)
    return name, _OTHER.get(kind, "of an unknown class")


def _values(name: str, is_complex: bool, parts: Elements, order: str) -> np.ndarray:
    """Real or complex numbers in one axis, every bit as in the file."""
    real = _numbers(_next(parts), order)
    if not is_complex:
        return real
    values, imag = real.astype(complex), _numbers(_next(parts), order)
    if imag.size != real.size:
        raise _damaged(f"the imaginary part of {name!r}")
    values.imag = imag
    return values


def _dense(name: str, shape: tuple[int, ...], is_complex: bool, parts: Elements, order: str) -> np.ndarray:
    values = _values(name, is_complex, parts, order)
    if values.size != math.prod(shape):
        raise _damaged(f"{name!r} has {values.size} entries, but its shape is {shape}")
    return values.reshape(shape, order="F")


def _sparse(name: str, shape: tuple[int, ...], is_complex: bool, parts: Elements, order: str) -> scipy.sparse.csc_array:
    rows, starts = (_numbers(_next(parts), order).astype(np.int64) for _ in range(2))
    values = _values(name, is_complex, parts, order).astype(complex if is_complex else float)
    if not starts.size or starts[0] != 0 or np.any(np.diff(starts) < 0):
        raise _damaged(f"the columns of the sparse matrix {name!r}")
    try:
        matrix = scipy.sparse.csc_array((values[: starts[-1]], rows[: starts[-1]], starts), shape)  # unused room may follow
        matrix.check_format(full_check=True)  # the conversion to an array relies on the indices
    except (ValueError, IndexError):
        raise _damaged(f"the indices of the sparse matrix {name!r}") from None
    return matrix


def _structure(name: str, parts: Elements, order: str) -> dict[str, Any]:
    length, names = _numbers(_next(parts), order), bytes(_next(parts)[1]).decode("latin-1")
    if length.size != 1 or length[0] < 1:
        raise _damaged(f"the field names of {name!r}")
    step, fields = int(length[0]), {}
    for start in range(0, len(names), step):
        kind, data = _next(parts)
        if kind != _MATRIX:
            raise _damaged(f"a field of {name!r}")
        value = _variable(data, order, is_field=True)[1] if len(data) else np.empty((0, 0))
        fields[names[start : start + step].split("\0")[0]] = value
    return fields
