"""Msgpack files of Flax (`flax.serialization.to_bytes`): nested dictionaries of arrays, read and written without JAX.

An array is an extension of code 1 whose content is msgpack again, ``(shape, name of the number type, bytes)``; code 2 is a
complex number, code 3 a scalar of NumPy. An array of more than 2^30 bytes is cut into pieces. Of bfloat16 every number becomes
float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from lqo_mor.checkpoints.tensors import MOST_ENTRIES, Values, from_bfloat16, full_precision
from lqo_mor.errors import CheckpointError, MissingDependencyError

_ARRAY, _COMPLEX, _SCALAR = 1, 2, 3
_CHUNK_BYTES = 2**30
_CHUNKED = "__msgpack_chunked_array__"
_MOST_AXES = 64
_NUMBERS = {"bool", "float16", "float32", "float64", "complex64", "complex128"}
_NUMBERS |= {f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)}

# By the first byte of a value: the width of the number that follows it, further bytes, and whether that number counts values
# (2 for a map, whose keys are values, too) instead of bytes.
_FORMS = [(0, 0, 0)] * 256
_FORMS[0xC4:0xCA] = [(1, 0, 0), (2, 0, 0), (4, 0, 0), (1, 1, 0), (2, 1, 0), (4, 1, 0)]  # bytes, extensions
_FORMS[0xCA:0xD4] = [(0, size, 0) for size in (4, 8, 1, 2, 4, 8, 1, 2, 4, 8)]  # numbers
_FORMS[0xD4:0xD9] = [(0, 1 + size, 0) for size in (1, 2, 4, 8, 16)]  # extensions of a fixed size
_FORMS[0xD9:0xE0] = [(1, 0, 0), (2, 0, 0), (4, 0, 0), (2, 0, 1), (4, 0, 1), (2, 0, 2), (4, 0, 2)]  # texts, lists, maps


def looks_like(head: bytes) -> bool:
    """Whether a file starts with a map whose first key is a text."""
    if not head:
        return False
    first = {0xDE: 3, 0xDF: 5}.get(head[0], 1 if 0x81 <= head[0] <= 0x8F else None)
    if first is None or len(head) <= first:
        return False
    return 0xA0 <= head[first] <= 0xBF or 0xD9 <= head[first] <= 0xDB


def import_msgpack() -> Any:
    """The library, or `MissingDependencyError`."""
    try:
        import msgpack
    except ImportError:
        raise MissingDependencyError("msgpack", "msgpack", "a checkpoint of Flax (.msgpack, .flax)") from None
    return msgpack


def read(path: Path) -> Any:
    """What the file holds, with NumPy arrays; the caller has bounded its size, and no array is larger than its bytes."""
    msgpack = import_msgpack()

    def extension(code: int, data: bytes) -> Any:
        if code not in (_ARRAY, _COMPLEX, _SCALAR):
            raise CheckpointError(f"holds the msgpack extension {code}, which Flax does not write; it is refused")
        _check_entries(data, _MOST_AXES + 4)
        values = msgpack.unpackb(data)
        if code == _COMPLEX:
            return complex(*values)
        array = _array(*values)
        return full_precision(array) if code == _ARRAY else array[()]

    try:
        content = path.read_bytes()
        _check_entries(content, MOST_ENTRIES)
        return _joined(msgpack.unpackb(content, ext_hook=extension))
    except (CheckpointError, MemoryError):
        raise
    except Exception:  # the library raises many classes for damage
        raise CheckpointError("is damaged or truncated: it cannot be read as msgpack") from None


def _check_entries(data: bytes, most: int) -> None:
    """Raise where the data hold more than `most` values: the library takes 64 bytes for one that is a single byte here.

    A first byte says what a value is, and how many bytes, or values, belong to it; see the specification of msgpack.
    """
    place, left, entries = 0, 1, 0
    while left:
        entries += 1
        if entries > most:
            raise CheckpointError(f"has more than {most} entries, which is refused")
        first = data[place]
        width, fixed, inner = _FORMS[first]
        number = int.from_bytes(data[place + 1 : place + 1 + width], "big")
        place += 1 + width + fixed + (0 if inner else number)
        left += inner * number - 1
        if not width and first < 0xC0:  # the number stands in the first byte
            if 0x80 <= first < 0xA0:
                left += (1 if first >= 0x90 else 2) * (first & 0x0F)
            elif first >= 0xA0:
                place += first & 0x1F


def _array(shape: Any, name: Any, data: bytes) -> np.ndarray:
    name = name.decode() if isinstance(name, bytes) else name
    sizes_fit = len(shape) <= _MOST_AXES and all(type(size) is int and size >= 0 for size in shape)
    if not sizes_fit or not isinstance(data, bytes) or (name not in _NUMBERS and name != "bfloat16"):
        raise CheckpointError(f"holds an array of numbers {str(name)[:40]!r} and shape {str(shape)[:60]}, which is refused")
    size = 2 if name == "bfloat16" else np.dtype(name).itemsize
    if prod(shape) * size != len(data):
        raise CheckpointError(f"holds an array {name} of shape {tuple(shape)} in {len(data)} bytes, which do not fit together")
    numbers = (
        from_bfloat16(np.frombuffer(data, "<u2")) if name == "bfloat16" else np.frombuffer(data, np.dtype(name).newbyteorder("<"))
    )
    return numbers.reshape(shape).astype(numbers.dtype.newbyteorder("="))


def _joined(value: Any) -> Any:
    """The same tree with whole arrays in the place of their pieces."""
    if not isinstance(value, dict):
        return value
    if _CHUNKED not in value:
        return {key: _joined(entry) for key, entry in value.items()}
    pieces, shape = (list(value[name].values()) for name in ("chunks", "shape"))
    array = np.concatenate(pieces)
    if prod(shape) != array.size or array.ndim != 1:
        raise CheckpointError(f"holds an array of shape {tuple(shape)} in pieces of {array.size} numbers")
    return array.reshape(shape)


def dump(tree: dict[Any, Any], extras: Values) -> tuple[bytes, list[str]]:
    """The bytes of a file with these nested tensors and entries, and the names of the entries left out."""
    msgpack = import_msgpack()

    def array(code: int, value: np.ndarray) -> Any:
        value = np.ascontiguousarray(value).reshape(value.shape)  # which keeps no axes for a number alone
        little = value.astype(value.dtype.newbyteorder("<"), copy=False)
        return msgpack.ExtType(code, msgpack.packb((value.shape, value.dtype.name, little.tobytes())))

    def default(value: Any) -> Any:
        if isinstance(value, np.ndarray) and value.dtype.name in _NUMBERS:
            return array(_ARRAY, value)
        if isinstance(value, np.generic) and value.dtype.name in _NUMBERS:
            return array(_SCALAR, np.asarray(value))
        if isinstance(value, complex):
            return msgpack.ExtType(_COMPLEX, msgpack.packb((value.real, value.imag)))
        raise TypeError

    def pack(value: Any) -> bytes:
        return msgpack.packb(_in_pieces(value), default=default, strict_types=True)

    left_out = []
    for name, value in extras.items():
        try:
            pack({name: value})
        except (TypeError, ValueError, OverflowError, RecursionError):
            left_out.append(name)
    return pack(tree | {name: value for name, value in extras.items() if name not in left_out}), left_out


def _in_pieces(value: Any) -> Any:
    """The inverse of `_joined`."""
    if isinstance(value, dict):
        return {key: _in_pieces(entry) for key, entry in value.items()}
    if not isinstance(value, np.ndarray) or value.nbytes <= _CHUNK_BYTES:
        return value
    pieces = np.array_split(value.ravel(), -(-value.nbytes // _CHUNK_BYTES))
    return {_CHUNKED: True, "shape": _numbered(value.shape), "chunks": _numbered(pieces)}


def _numbered(values: Sequence[Any]) -> Values:
    return {str(i): value for i, value in enumerate(values)}
