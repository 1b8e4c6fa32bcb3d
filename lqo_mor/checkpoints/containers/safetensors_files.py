"""Safetensors files: tensors read one by one from the disk, and files written from arrays or from parts of others.

The library checks a file; its bytes are read and written here, since the library ends the process where memory runs out.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np
import safetensors

from lqo_mor.checkpoints.tensors import Tensors, Values, from_bfloat16, full_precision
from lqo_mor.errors import CheckpointError, OutputError

_NUMBERS = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "C64": "<c8",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "|i1",
    "U8": "|u1",
    "U16": "<u2",
    "U32": "<u4",
    "U64": "<u8",
    "BOOL": "|b1",
}
NUMBER_NAMES = {np.dtype(code): name for name, code in _NUMBERS.items()}
_HALF = "BF16"  # a number format that NumPy does not have
_SHORTER = "the file has become shorter while it was read"
_LONGEST_HEADER = 100_000_000  # bytes, the limit of the safetensors library


class LazyFile(Mapping[str, np.ndarray]):
    """The tensors of a safetensors file by their keys, read from the disk one by one; nothing of it stays in memory."""

    def __init__(self, path: Path) -> None:
        try:
            if path.exists() and not path.is_file():  # a pipe would be waited for
                raise CheckpointError(f"{path} is not a file")
            with safetensors.safe_open(path, framework="numpy") as checked:
                self.metadata = dict(checked.metadata() or {})
            with path.open("rb") as file:
                size = int.from_bytes(file.read(8), "little")
                header = json.loads(file.read(min(size, _LONGEST_HEADER)))
        except (CheckpointError, MemoryError):
            raise
        except FileNotFoundError:
            raise CheckpointError(f"{path} does not exist") from None
        except Exception:  # the library raises its own class for damage, and others
            raise CheckpointError(f"{path.name} is no safetensors file, or it is damaged or truncated") from None
        header.pop("__metadata__", None)
        self._path, self._start, self.entries = path, 8 + size, header

    def __getitem__(self, key: str) -> np.ndarray:
        with self._path.open("rb") as file:
            return self._read(file, key)

    def everything(self) -> Tensors:
        """All tensors, in memory."""
        with self._path.open("rb") as file:
            return {key: self._read(file, key) for key in self}

    def _read(self, file: BinaryIO, key: str) -> np.ndarray:
        entry = self.entries[key]
        code = "<u2" if entry["dtype"] == _HALF else _NUMBERS.get(entry["dtype"])
        if code is None:
            raise CheckpointError(f"{key} holds {entry['dtype']} numbers, which are not read here; convert it to float32")
        values = np.empty(entry["shape"], code)
        file.seek(self._start + entry["data_offsets"][0])
        if file.readinto(values.data) != values.nbytes:  # type: ignore[attr-defined]
            raise CheckpointError(_SHORTER)
        return from_bfloat16(values) if entry["dtype"] == _HALF else full_precision(values)

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def size(self, key: str) -> int:
        """Bytes of a tensor."""
        first, last = self.entries[key]["data_offsets"]
        return last - first

    def copy(self, key: str, out: BinaryIO) -> None:
        """Append the bytes of a tensor to another file."""
        with self._path.open("rb") as file:
            file.seek(self._start + self.entries[key]["data_offsets"][0])
            _copy(file, out, self.size(key))


class Renamed(Mapping[str, np.ndarray]):
    """A mapping under other keys."""

    def __init__(self, inner: Mapping[str, np.ndarray], names: Mapping[str, str]) -> None:
        self._inner, self._names = inner, names

    def __getitem__(self, key: str) -> np.ndarray:
        return self._inner[self._names[key]]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def dump(tensors: Tensors, texts: dict[str, str]) -> bytes:
    """The bytes of a file with these tensors, wide numbers first as the library has them, and texts."""
    header: Values = {"__metadata__": texts} if texts else {}
    ordered, place = sorted(tensors.items(), key=lambda item: (-item[1].dtype.itemsize, item[0])), 0
    for key, value in ordered:
        if key == "__metadata__" or (not key.isascii() and key != key.encode(errors="replace").decode()):
            raise OutputError(f"safetensors cannot hold a tensor of the name {key}; write .npz or .pth")
        name = NUMBER_NAMES.get(value.dtype.newbyteorder("<"))
        if name is None:
            kind = "complex numbers in double precision" if value.dtype.kind == "c" else f"numbers of type {value.dtype}"
            raise OutputError(f"safetensors cannot hold {kind} ({key}); write .npz or .pth")
        header[key] = {"dtype": name, "shape": list(value.shape), "data_offsets": [place, place + value.nbytes]}
        place += value.nbytes
    little = (value.astype(value.dtype.newbyteorder("<"), copy=False).tobytes() for _, value in ordered)
    return b"".join([_packed(header), *little])


def _packed(header: Values) -> bytes:
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def write(file: LazyFile, entries: Values, spool: BinaryIO, out: BinaryIO) -> list[tuple[int, ...]]:
    """A safetensors file: the tensors of `file` in its order, those of reduced layers from the spool, new names last.

    Returns the shapes of all tensors.
    """
    keys = [key for key in [*file, *(key for key in entries if key not in file)] if entries.get(key, ()) is not None]
    header, place = {"__metadata__": file.metadata} if file.metadata else {}, 0
    for key in keys:
        if key in entries:
            name, shape, _ = entries[key]
            size = int(np.prod(shape, dtype=np.int64)) * np.dtype(_NUMBERS[name]).itemsize
        else:
            name, shape, size = file.entries[key]["dtype"], file.entries[key]["shape"], file.size(key)
        header[key] = {"dtype": name, "shape": list(shape), "data_offsets": [place, place + size]}
        place += size
    out.write(_packed(header))
    for key in keys:
        if key in entries:
            first, last = header[key]["data_offsets"]
            spool.seek(entries[key][2])
            _copy(spool, out, last - first)
        else:
            file.copy(key, out)
    return [header[key]["shape"] for key in keys]


def _copy(source: BinaryIO, out: BinaryIO, count: int) -> None:
    """The next `count` bytes from one file to another."""
    while count:
        part = source.read(min(count, 2**24))
        if not part:
            raise CheckpointError(_SHORTER)
        out.write(part)
        count -= len(part)
