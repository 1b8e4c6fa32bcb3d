"""Safetensors files compressed layer by layer, for models larger than memory."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import BinaryIO

import numpy as np
import safetensors

from lqo_mor.checkpoints.contract import listing
from lqo_mor.checkpoints.families import FAMILIES
from lqo_mor.checkpoints.files import as_path
from lqo_mor.checkpoints.layered import alone, find_layers, local_tensors, stored_tensors
from lqo_mor.checkpoints.settings import Settings, read_sidecar, sidecar_path, sidecar_text, warn_of_assumptions
from lqo_mor.checkpoints.trees import find_state
from lqo_mor.errors import CheckpointError, InvalidInputError, OrderError, OutputError
from lqo_mor.network.compress import compress
from lqo_mor.network.compression_report import CompressionReport, LayerReport
from lqo_mor.network.model import DeepSSM
from lqo_mor.output_files import check_new, new_file, write_atomically
from lqo_mor.reduction._slots import pad

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
_NAMES = {np.dtype(code): name for name, code in _NUMBERS.items()}
_NOTHING = np.zeros(1)  # stands for a tensor that is not read yet
_LONGEST_HEADER = 100_000_000  # bytes, the limit of the safetensors library


class _LazyFile(Mapping):
    """The tensors of a safetensors file by their keys, read from the disk one by one; nothing of it stays in memory."""

    def __init__(self, path: Path):
        try:
            with safetensors.safe_open(path, framework="numpy") as checked:
                self.metadata = dict(checked.metadata() or {})
            with path.open("rb") as file:
                size = int.from_bytes(file.read(8), "little")
                header = json.loads(file.read(min(size, _LONGEST_HEADER)))
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


def compress_file(
    path: str | PathLike,
    output: str | PathLike,
    *,
    state_size: int | None = None,
    keep: float | None = None,
    method: str = "optimal",
    horizon: int | None = None,
    format: str | None = None,
    settings: Mapping | None = None,
    overwrite: bool = False,
    progress=None,
) -> CompressionReport:
    """Reduce the state-space layers of a safetensors file one after the other, without reading it as a whole.

    For checkpoints larger than memory: only one layer is in memory at a time, and all other tensors are copied from file
    to file. There is no calibration, which needs the whole model; for a model that fits use `load_checkpoint` and `compress`.

    Parameters
    ----------
    path : path-like
        A .safetensors file with layers of a known family.
    output : path-like
        New .safetensors file; it appears complete or not at all.
    state_size : int, optional
        Real states of every system, even. A layer that has no more stays as it is.
    keep : float, optional
        Instead of `state_size`: the fraction of the states to keep.
    method, horizon
        As for `compress`.
    format, settings
        As for `load_checkpoint`.
    overwrite : bool
        Whether another existing file may be replaced; the input file never is.
    progress : callable, optional
        Called as ``progress(done, total)`` with numbers of layers.

    Returns
    -------
    CompressionReport
        Without models; parameters are the numbers in the files.

    Raises
    ------
    CheckpointError
        If the file is damaged or has no layers of a known family, or a reduced layer cannot be stored in it.
    OutputError
        If the output cannot be written.
    OrderError
        If no layer has more states than are to be kept.

    Examples
    --------
    >>> import lqo_mor as lqo
    >>> lqo.compress_file("missing.safetensors", "small.safetensors", state_size=16)
    Traceback (most recent call last):
    ...
    lqo_mor.errors.CheckpointError: missing.safetensors does not exist
    """
    path, output = as_path(path), as_path(output)
    if output.suffix.lower() != ".safetensors":
        raise OutputError(f"{output} must be a .safetensors file: only those are written layer by layer")
    file = _LazyFile(path)
    check_new(output, overwrite)
    if output.exists() and output.samefile(path):
        raise OutputError(f"{output} is the file that is read; choose another name")
    _, layout, _ = find_state(dict.fromkeys(file, _NOTHING), {})
    state, asked = _Renamed(file, layout.places), Settings(read_sidecar(path) | dict(settings or {}))
    family = _family(state, format)
    layers, reports, refused = find_layers(family, state), [], None
    with tempfile.TemporaryFile() as spool:
        entries = {}  # of the reduced layers: number type, shape and place in the spool
        for done, (prefix, names) in enumerate(layers.items()):
            tensors = local_tensors(family, prefix, names, state)
            try:
                block = alone(prefix, family.read(prefix or "layer", tensors, asked))
                new, report, refused = _reduced(family, prefix, block, tensors, asked, refused, state_size, keep, method, horizon)
            except InvalidInputError as err:
                raise type(err)(f"{path.name}: {err}") from None
            reports.append(report)
            for name in names:
                entries[layout.places[f"{prefix}.{name}" if prefix else name]] = None  # gone, unless it comes back
            for key, value in layout.restored(new).items():
                entries[key] = (_NAMES[value.dtype], value.shape, spool.tell())
                spool.write(np.ascontiguousarray(value).tobytes())
            if progress is not None:
                progress(done + 1, len(layers))
        asked.check_used()
        if refused is not None and len(reports) == sum(r.states_after == r.states_before for r in reports):
            raise refused
        warn_of_assumptions(path.name, asked.assumed)
        beside = sidecar_path(output) if asked.values else None
        if beside is not None:
            check_new(beside, overwrite)
        with new_file(output, overwrite) as out:
            _write(file, entries, spool, out)
    if beside is not None:
        write_atomically(beside, sidecar_text(family.name, asked.values).encode(), overwrite)
    before = sum(_numbers(entry["dtype"], entry["shape"]) for entry in file.entries.values())
    change = sum(report.parameters_after - report.parameters_before for report in reports)
    return CompressionReport(tuple(reports), before, before + change, method, horizon)


class _Renamed(Mapping):
    """A mapping under other keys."""

    def __init__(self, inner: Mapping, names: Mapping[str, str]):
        self._inner, self._names = inner, names

    def __getitem__(self, key: str):
        return self._inner[self._names[key]]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def _family(state: Mapping, name: str | None):
    """The family of layers by its name, or by the keys."""
    for family in FAMILIES:
        if name in (None, family.name) and find_layers(family, state):
            return family
    expected = " or ".join(family.looks_like for family in FAMILIES if name in (None, family.name))
    if not expected:
        raise InvalidInputError(f"there are no layers of the format {name!r}; known are {', '.join(f.name for f in FAMILIES)}")
    raise CheckpointError(f"no layers recognised; found {listing(list(state))}; expected {expected}")


def _reduced(family, prefix, block, tensors, asked, refused, state_size, keep, method, horizon):
    """The new tensors and the report of one layer; a layer that is small enough keeps its own."""
    before = sum(_count(value) for value in tensors.values())
    try:
        result = compress(DeepSSM(None, (block,), None), state_size=state_size, keep=keep, method=method, horizon=horizon)
    except OrderError as err:  # which is raised in the end if it holds for all layers
        size, zero = block.state_size, np.zeros(block.ssm.batch)
        own = {(f"{prefix}.{name}" if prefix else name): value for name, value in tensors.items()}
        return own, LayerReport(block.name, size, size, before, before, zero, 0, 0.0, float(size)), err
    (report,), small = result.report.layers, result.model.blocks[0].ssm
    new = stored_tensors(family, prefix, pad(small, report.states_after // 2), tensors, asked.values)
    return new, replace(report, parameters_before=before, parameters_after=sum(map(_count, new.values()))), refused


def _count(array: np.ndarray) -> int:
    """Real numbers; integers are no parameters."""
    return array.size * {"f": 1, "c": 2}.get(array.dtype.kind, 0)


def _numbers(dtype: str, shape) -> int:
    return int(np.prod(shape, dtype=np.int64)) * {"F": 1, "B": 1, "C": 2}.get(dtype[0] if dtype != "BOOL" else "", 0)


def _write(file: _LazyFile, entries: dict, spool: BinaryIO, out: BinaryIO) -> None:
    """A safetensors file: the tensors of `file` in its order, those of reduced layers from the spool, new names last."""
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


def _copy(source: BinaryIO, out: BinaryIO, count: int) -> None:
    """The next `count` bytes from one file to another."""
    while count:
        part = source.read(min(count, 2**24))
        if not part:
            raise CheckpointError("the file has become shorter while it was read")
        out.write(part)
        count -= len(part)
