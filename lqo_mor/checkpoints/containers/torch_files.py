"""PyTorch files: always read with ``weights_only=True``, with inert placeholders for foreign classes.

torch is imported inside the functions, so that the package works without it.
"""

from __future__ import annotations

import io
import mmap
import re
import warnings
import zipfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from lqo_mor.checkpoints.tensors import MOST_ENTRIES, Values
from lqo_mor.errors import CheckpointError, MissingDependencyError

# Placeholders would make these harmless too, but such a file was made to attack: say so and stop.
# With their names in Python 2, which pickles of protocol 2 use: subprocess.Popen is stored as commands.Popen.
_REFUSED_MODULES = {"os", "posix", "nt", "sys", "subprocess", "shutil", "socket", "importlib", "runpy", "pty", "ctypes", "pdb"}
_REFUSED_MODULES |= {"commands", "popen2"}
_REFUSED_BUILTINS = {"eval", "exec", "compile", "open", "getattr", "setattr", "delattr", "__import__", "breakpoint", "input"}
_REFUSED_BUILTINS |= {"execfile", "file", "apply", "raw_input"}
_PLAIN = (type(None), bool, int, float, complex, str, bytes)
_DAMAGED = "is damaged or truncated: it cannot be read as a PyTorch file"


def import_torch() -> Any:
    """The library, or `MissingDependencyError`."""
    try:
        import torch
    except ImportError:
        raise MissingDependencyError("torch", "torch", "a PyTorch checkpoint (.pth, .pt, .ckpt)") from None
    return torch


class Foreign:
    """Inert placeholder for an object of a class that is not needed; it accepts any state and does nothing."""

    foreign_name = ""

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:  # noqa: D102 (a magic method)
        return object.__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


class _NumberType:
    """Inert stand-in for ``numpy.dtype``: keeps the code of a plain number type and nothing else."""

    code, order = "", "="

    def __init__(self, code: Any = None, *args: Any) -> None:
        if isinstance(code, str) and re.fullmatch(r"[biufc]\d{1,2}", code):
            self.code = code

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, tuple) and len(state) > 1 and isinstance(state[1], str) and state[1] in "<>":
            self.order = state[1]


class _Scalar(Foreign):
    """Stand-in for the function that restores a NumPy scalar; it gives a number of Python, or a placeholder."""

    foreign_name = "numpy scalar"

    def __new__(cls, number_type: Any = None, data: Any = None, *args: Any) -> Any:
        if isinstance(number_type, _NumberType) and isinstance(data, bytes):
            with suppress(TypeError, ValueError):
                (value,) = np.frombuffer(data, np.dtype(number_type.order + number_type.code)).tolist()
                return value
        return object.__new__(cls)


_NUMPY_SCALARS = {
    "numpy.dtype": _NumberType,
    "numpy.core.multiarray.scalar": _Scalar,
    "numpy._core.multiarray.scalar": _Scalar,
}


def _placeholder(name: str, index: int, kind: str) -> type[Any]:
    """An inert class for the foreign one `name`. The loader fills plain lists and dictionaries only, hence the kinds."""
    if kind == "object":
        return type(f"Foreign{index}", (Foreign,), {"foreign_name": name})
    make: dict[Any, Any] | list[Any] = {} if kind == "dict" else []
    return type("ForeignContainer", (), {"__new__": lambda cls, *args, **kwargs: make.copy()})


def read_zip(path: Path, bound: int) -> tuple[object, tuple[str, ...]]:
    """What a PyTorch zip file holds, with NumPy arrays for tensors, and the names of the foreign classes in it."""
    torch = import_torch()
    try:
        with zipfile.ZipFile(path) as archive:
            pickled = b"".join(archive.read(name) for name in archive.namelist() if name.endswith("data.pkl"))
        foreign = sorted(set(torch.serialization.get_unsafe_globals_in_checkpoint(path)) - _NUMPY_SCALARS.keys())
    except Exception as err:
        if "torchscript" in str(err).lower():
            raise CheckpointError("is a TorchScript archive; save model.state_dict() instead") from None
        raise CheckpointError(_DAMAGED) from None
    _check_allocations(pickled)
    for name in foreign:
        module, _, attribute = name.rpartition(".")
        builtin = module in ("builtins", "__builtin__")
        if module.partition(".")[0] in _REFUSED_MODULES or (builtin and attribute in _REFUSED_BUILTINS):
            raise CheckpointError(f"refers to {name}, which can run commands; it is refused as unsafe")
    kinds = ["object"] * len(foreign)
    # Which class is filled like a list or a dictionary shows only when the loader comes to it; each try settles one more.
    for _ in range(len(foreign) + 1):
        placeholders = [(_placeholder(name, i, kind), name) for i, (name, kind) in enumerate(zip(foreign, kinds, strict=True))]
        try:
            loaded = _load(torch, path, placeholders)
        except Exception as err:  # the loader raises many classes for damage
            filled = re.search(r"Foreign(\d+)", str(err))
            if filled is None or kinds[int(filled[1])] != "object":
                break
            kinds[int(filled[1])] = "dict" if "SETITEM" in str(err) else "list"
        else:
            return _to_numpy(torch, loaded, bound), tuple(foreign)
    if not foreign:
        raise CheckpointError(_DAMAGED)
    raise CheckpointError(
        f"cannot be read safely, because of objects of {', '.join(foreign[:4])}; save it again with tensors and plain values only"
    )


def read_legacy(path: Path, bound: int) -> object:
    """As `read_zip` for the file layout before PyTorch 1.6, without placeholders."""
    torch = import_torch()
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        _check_allocations(content)
    try:
        loaded = _load(torch, path)
    except Exception:
        raise CheckpointError(
            "is a pickle that is damaged or holds more than tensors and plain values; it is refused, nothing in it was run"
        ) from None
    return _to_numpy(torch, loaded, bound)


def _check_allocations(pickled: bytes | mmap.mmap) -> None:
    """Refuse a class that torch holds for safe, but which allocates as many bytes as a number says."""
    if pickled.find(b"bytearray") >= 0:
        raise CheckpointError("holds a bytearray, which can ask for any memory; it is refused, save it as bytes or as a tensor")


def _load(torch: Any, path: Path, placeholders: Sequence[tuple[type[Any], str]] = ()) -> Any:
    allowed = [*placeholders, *((stand_in, name) for name, stand_in in _NUMPY_SCALARS.items())]
    with warnings.catch_warnings(), torch.serialization.safe_globals(allowed):
        warnings.simplefilter("ignore")  # about the pickle protocol and old storage classes
        return torch.load(path, map_location="cpu", weights_only=True)


def _to_numpy(torch: Any, loaded: Any, bound: int) -> Any:
    """The same tree with arrays for tensors, of at most so many bytes; half precision becomes float32."""
    left, entries = bound, MOST_ENTRIES

    def convert(value: Any) -> Any:
        nonlocal left, entries
        entries -= 1  # a pickle can hold one value in many places, in lists of lists of lists
        if entries < 0:
            raise CheckpointError(f"has more than {MOST_ENTRIES} entries, which is refused")
        if isinstance(value, torch.Tensor):
            if value.layout != torch.strided or value.is_quantized:
                raise CheckpointError("holds sparse or quantised tensors, which are not supported")
            left -= value.numel() * max(4, value.element_size())  # a tensor may claim far more than the file stores
            if left < 0:
                raise CheckpointError(f"has tensors of more than {bound // 2**20} MiB, which is refused for its size")
            value = value.detach()
            if value.dtype in (torch.float16, torch.bfloat16):
                value = value.float()
            return np.array(value.resolve_conj().resolve_neg().numpy())
        if isinstance(value, dict):
            return {key: convert(entry) for key, entry in value.items()}
        if isinstance(value, (list, tuple)) and type(value).__module__ == "builtins":
            return type(value)(convert(entry) for entry in value)
        return value

    try:
        return convert(loaded)
    except (RecursionError, TypeError, RuntimeError):
        raise CheckpointError("holds tensors or nested values that cannot be converted to NumPy") from None


def dump(tree: dict[Any, Any], extras: Values) -> tuple[bytes, list[str]]:
    """The bytes of a PyTorch file with these nested tensors and entries, and the names of the entries left out."""
    torch = import_torch()

    def storable(value: Any) -> bool:
        if isinstance(value, dict):
            return all(storable(key) and storable(entry) for key, entry in value.items())
        if isinstance(value, (list, tuple, set)):
            return all(storable(entry) for entry in value)
        return isinstance(value, (np.ndarray, *_PLAIN))

    def convert(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            return torch.from_numpy(np.array(value))
        if isinstance(value, dict):
            return {key: convert(entry) for key, entry in value.items()}
        if isinstance(value, (list, tuple)):
            return type(value)(convert(entry) for entry in value)
        return value

    left_out = [key for key, value in extras.items() if not storable(value)]
    kept = {key: convert(value) for key, value in extras.items() if key not in left_out}
    buffer = io.BytesIO()
    try:
        torch.save({**convert(tree), **kept}, buffer)
    except RuntimeError as err:  # what can be stored was checked: the memory is used up
        raise MemoryError(str(err).partition("\n")[0]) from None
    return buffer.getvalue(), left_out
