"""Containers of tensors: safe reading and atomic writing of PyTorch, safetensors, npz and msgpack files.

A file is untrusted input. Its content decides what it is, nothing in it is executed, and sizes are bounded before
memory is taken.
"""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lqo_mor.checkpoints.containers import msgpack_files, safetensors_files, torch_files, trees
from lqo_mor.checkpoints.refused import explain_file, explain_folder
from lqo_mor.checkpoints.tensors import Values, full_precision
from lqo_mor.errors import CheckpointError, InvalidInputError, MissingDependencyError, OutputError
from lqo_mor.files import FilePath, check_new, memory_bound, out_of_memory, write_atomically

MAX_BYTES = 8 * 2**30  # far above any model of this kind, and below what a crafted file could ask for
_MOST_PICKLE = 2**24  # bytes of a pickle without its tensors: an object of Python may take 64 times the byte that asks for it
_MOST_TEXT = 2**24  # bytes of JSON in an entry, of which the same holds
_SUFFIXES = {".pth": "torch", ".pt": "torch", ".ckpt": "torch", ".safetensors": "safetensors", ".npz": "npz"}
_SUFFIXES |= {".msgpack": "msgpack", ".flax": "msgpack"}


@dataclass(frozen=True, eq=False)
class FileContent:
    """What a file holds."""

    tree: object  # for PyTorch and msgpack what was saved, with NumPy arrays for tensors; otherwise a dictionary of arrays
    extras: Values  # entries that the container stores beside its tensors (safetensors metadata, text in npz)
    foreign: tuple[str, ...] = ()  # names of the foreign classes in a pickle that were replaced by placeholders


def as_path(path: FilePath) -> Path:
    """`path` as a `Path`; raises `InvalidInputError` where it is none."""
    try:
        return Path(path)
    except TypeError:
        raise InvalidInputError(f"expected the path of a file, got {type(path).__name__}") from None


def read_file(path: Path) -> FileContent:
    """Read a checkpoint file of any known container; every failure is a `CheckpointError` that names the file."""
    try:
        exists, regular = path.exists(), path.is_file()
        folder = explain_folder(path) if exists and not regular else None
    except OSError as err:
        raise CheckpointError(f"{path} cannot be read: {err.strerror or err}") from None
    if not regular:
        raise CheckpointError(f"{path} {folder or 'is not a file'}" if exists else f"{path} does not exist")
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(16)
        if size == 0:
            raise CheckpointError("is empty")
        if size > MAX_BYTES:
            raise CheckpointError(f"has {size / 2**30:.1f} GiB; more than {MAX_BYTES // 2**30} GiB are refused")
        return _read(path, head, min(MAX_BYTES, memory_bound(size)))
    except MissingDependencyError:
        raise
    except CheckpointError as err:
        raise CheckpointError(f"{path.name} {err}") from None
    except OSError as err:
        raise CheckpointError(f"{path.name} cannot be read: {err.strerror or err}") from None
    except MemoryError:
        raise CheckpointError(f"{path.name} cannot be read: it needs more memory than there is") from None
    except Exception as err:  # a damaged file makes the libraries below raise nearly anything
        raise CheckpointError(f"{path.name} is damaged: reading it ends in {type(err).__name__}") from err


def _read(path: Path, head: bytes, bound: int) -> FileContent:
    """The content of a file that starts with `head`, which may take `bound` bytes of memory."""
    if head.startswith(b"PK\x03\x04"):
        names = _zip_names(path, bound)
        if any(name.endswith("data.pkl") for name in names):
            tree, foreign = torch_files.read_zip(path, bound)
            return FileContent(tree, {}, foreign)
        if names and all(name.endswith(".npy") for name in names):
            return _read_npz(path)
        raise CheckpointError("is a zip archive, but holds neither a PyTorch checkpoint nor NumPy arrays")
    if len(head) > 8 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= MAX_BYTES:
        return _read_safetensors(path)
    if head[:1] == b"\x80":
        return FileContent(torch_files.read_legacy(path, bound), {})
    if msgpack_files.looks_like(head):
        return FileContent(msgpack_files.read(path), {})
    known = explain_file(path, head)
    raise CheckpointError(known or "is not a checkpoint: neither a PyTorch file, nor safetensors, npz or msgpack")


def _zip_names(path: Path, bound: int) -> list[str]:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except Exception:  # damage: BadZipFile, NotImplementedError, ValueError, struct.error and more
        raise CheckpointError("is damaged or truncated: its zip directory cannot be read") from None
    if sum(entry.file_size for entry in entries) > bound:
        raise CheckpointError(f"unpacks to more than {bound // 2**20} MiB, which is refused for its size; store it uncompressed")
    if any(entry.filename.endswith("data.pkl") and entry.file_size > _MOST_PICKLE for entry in entries):
        raise CheckpointError(f"has more than {_MOST_PICKLE // 2**20} MiB beside its tensors, which is refused")
    return [entry.filename for entry in entries]


def _read_safetensors(path: Path) -> FileContent:
    try:
        file = safetensors_files.LazyFile(path)
    except CheckpointError:
        raise CheckpointError("is damaged or truncated: its tensors cannot be read as safetensors") from None
    return FileContent(file.everything(), {key: _from_text(value) for key, value in file.metadata.items()})


def _read_npz(path: Path) -> FileContent:
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
    except MemoryError:
        raise
    except Exception:  # damage: BadZipFile, zlib.error, NotImplementedError, SyntaxError and more
        raise CheckpointError("is damaged, or holds Python objects, which are refused") from None
    texts = {key: _from_text(str(value)) for key, value in arrays.items() if value.dtype.kind == "U" and value.ndim == 0}
    return FileContent({key: full_precision(value) for key, value in arrays.items() if key not in texts}, texts)


def _from_text(text: str) -> Any:
    """A metadata entry: JSON where it is JSON, otherwise the text itself."""
    try:
        return json.loads(text) if len(text) <= _MOST_TEXT else text
    except (ValueError, RecursionError):
        return text


def container_of(path: Path) -> str:
    """The container that the suffix of an output path asks for."""
    container = _SUFFIXES.get(path.suffix.lower())
    if container is None:
        raise OutputError(f"the suffix of {path} is unknown, expected one of {', '.join(_SUFFIXES)}")
    return container


def write_file(
    path: Path,
    state: Mapping[Any, np.ndarray],
    nesting: str | None,
    extras: Values,
    *,
    overwrite: bool = False,
    last: Callable[[], None] | None = None,
) -> list[str]:
    """Write tensors and the entries beside them, atomically; the suffix picks the container.

    A key of `state` that is a tuple is a path through nested dictionaries, and in a PyTorch or msgpack file `nesting` is the
    entry to put all of them under. `last` is done just before the file gets its name. Returns the names of the entries that
    were left out: optimiser states, which no longer fit the tensors, and what the container cannot hold.
    """
    check_output(path, overwrite)
    try:
        payload, left_out = _packed(path, state, nesting, extras)
        write_atomically(path, payload, overwrite, last)
    except MemoryError as err:
        raise out_of_memory(path, err) from None
    return left_out


def _packed(path: Path, state: Mapping[Any, np.ndarray], nesting: str | None, extras: Values) -> tuple[bytes, list[str]]:
    """The bytes of the file, and the names of the entries that were left out."""
    container = container_of(path)
    kept = {key: value for key, value in extras.items() if not trees.is_optimiser(key, value)}
    if container in ("torch", "msgpack"):
        tree = trees.nested(state) if container == "torch" else trees.by_names(state)
        if nesting is None and kept and all(isinstance(key, str) for key in state):
            nesting = "model" if container == "torch" else "params"
        tree = tree if nesting is None else {nesting: tree}
        shadowed = [key for key in kept if key in tree]  # it would take the place of tensors
        dump = torch_files.dump if container == "torch" else msgpack_files.dump
        payload, unstorable = dump(tree, {key: value for key, value in kept.items() if key not in shadowed})
        unstorable = shadowed + unstorable
    else:
        tensors = trees.flat(state)
        plain = {str(key): _to_text(value) for key, value in kept.items()}
        unstorable = [key for key, text in plain.items() if text is None or key in tensors or not _is_plain(key)]
        texts = {key: text for key, text in plain.items() if text is not None and key not in unstorable}
        if container == "safetensors":
            payload = safetensors_files.dump(tensors, texts)
        else:
            payload = _npz({key: np.array(text) for key, text in texts.items()} | tensors)
    return payload, [str(key) for key in extras if key not in kept] + [str(key) for key in unstorable]


def _npz(arrays: dict[str, np.ndarray]) -> bytes:
    """The bytes of an .npz file. `numpy.savez` takes some names (file, allow_pickle) for arguments of its own."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for key, array in arrays.items():
            with archive.open(zipfile.ZipInfo(f"{key}.npy"), "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.asanyarray(array), allow_pickle=False)
    return buffer.getvalue()


def _is_plain(text: str) -> bool:
    """Whether every container can hold the text as it is: no lone surrogates, no NUL."""
    return "\0" not in text and text.encode(errors="replace").decode() == text


def _to_text(value: Any) -> str | None:
    """The inverse of `_from_text`, or None if the value is not plain."""
    if isinstance(value, str) and _is_plain(value) and _from_text(value) == value:
        return value
    try:
        return json.dumps(value)
    except (TypeError, ValueError, RecursionError):
        return None


def check_output(path: Path, overwrite: bool) -> None:
    """Raise `OutputError` where no checkpoint can be written at `path`, so that no work is done in vain.

    A PyTorch file without torch, or a msgpack file without msgpack, raises `MissingDependencyError`.
    """
    container = None if os.path.isdir(path) else container_of(path)  # noqa: PTH112 (Path.is_dir raises for a name too long)
    check_new(path, overwrite)
    if container == "torch":
        torch_files.import_torch()
    elif container == "msgpack":
        msgpack_files.import_msgpack()
