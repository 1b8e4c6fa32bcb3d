"""Safetensors files that stay on the disk: tensors read one by one, and files written from parts of others."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np
import safetensors

from lqo_mor.checkpoints.tensors import Values
from lqo_mor.errors import CheckpointError

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
}
NUMBER_NAMES = {np.dtype(code): name for name, code in _NUMBERS.items()}
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
        except CheckpointError:
            raise
        except FileNotFoundError:
            raise CheckpointError(f"{path} does not exist") from None
        except Exception:  # the library raises its own class for damage, and others
            raise CheckpointError(f"{path.name} is no safetensors file, or it is damaged or truncated") from None
        header.pop("__metadata__", None)
        self._path, self._start, self.entries = path, 8 + size, header

    def __getitem__(self, key: str) -> np.ndarray:
        entry = self.entries[key]
        code = _NUMBERS.get(entry["dtype"])
        if code is None:
            raise CheckpointError(f"{key} holds {entry['dtype']} numbers, which are not read layer by layer; convert it to F32")
        first, last = entry["data_offsets"]
        count = (last - first) // np.dtype(code).itemsize
        values = np.fromfile(self._path, code, count, offset=self._start + first).reshape(entry["shape"])
        return values.astype(np.float32) if values.dtype == np.float16 else values

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
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    out.write(len(text).to_bytes(8, "little") + text)
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
            raise CheckpointError("the file has become shorter while it was read")
        out.write(part)
        count -= len(part)
