"""Files that are damaged or made to attack, from a fixed seed; ``python -m tests.hostile.corpus FOLDER`` reads them all.

Every reader of the package gets every file that it might be given. It may read it, or raise an error of ours whose message is
one plain line; nothing in the file is executed, no file appears, and memory stays near the size of the file.
"""

from __future__ import annotations

import io
import json
import pickle
import resource
import struct
import sys
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from safetensors import numpy

import lqo_mor as lqo
from lqo_mor.checkpoints.containers.files import write_file
from lqo_mor.errors import LQOError
from lqo_mor.io import load_mat, load_system, save_mat, save_system
from lqo_mor.network.inputs import read_inputs
from tests.checkpoints.s4d_states import s4d_state
from tests.checkpoints.test_sidecar import lru_state, s5_state

SEED = 20260101
TRACE = "trace"  # the file that executed code would make
Files = Iterator[tuple[str, bytes]]


def everything(folder: Path) -> Files:
    """Names and contents of all files; those of PyTorch and msgpack where the libraries are there."""
    yield from damaged(folder)
    yield from safetensors_files()
    yield from npz_files()
    yield from pickles(folder)
    yield from msgpack_files()
    yield from torch_files()
    yield from tensors_of_odd_values()
    yield from odd_keys()
    yield from systems()


def valid(folder: Path) -> dict[str, bytes]:
    """One good file of every kind, by its name."""

    def made(name: str, make: Callable[[Path], object]) -> bytes:
        make(folder / name)
        content = (folder / name).read_bytes()
        (folder / name).unlink()
        return content

    system = lqo.LQOSystem([[0.5, 0.1], [0.0, 0.3]], [[1.0], [1.0]], [[1.0, 2.0]], M=[np.eye(2)], dt=1.0)
    inputs = {"inputs": np.zeros((3, 5, 1)), "labels": np.arange(3)}
    files = {"s4d.safetensors": lambda path: write_file(path, s4d_state(), None, {"epoch": 3})}
    files["s5.npz"] = lambda path: write_file(path, s5_state(), None, {"note": "x"})
    files["system.npz"] = lambda path: save_system(path, system)
    files["system.json"] = lambda path: save_system(path, system)
    files["system.mat"] = lambda path: save_mat(path, system)
    files["inputs.npz"] = lambda path: np.savez_compressed(path, **inputs)
    if has("torch"):
        files["s4d.pth"] = lambda path: write_file(path, s4d_state(), None, {"epoch": 3})
    if has("msgpack"):
        files["lru.msgpack"] = lambda path: write_file(path, lru_state(), None, {})
    return {name: made(name, make) for name, make in files.items()}


def has(library: str) -> bool:
    """Whether an optional library is there."""
    try:
        __import__(library)
    except ImportError:
        return False
    return True


def damaged(folder: Path) -> Files:
    """Good files cut, with bytes changed, left out, repeated or set to zero."""
    rng = np.random.default_rng(SEED)
    for name, content in valid(folder).items():
        size = len(content)
        for part in (0.1, 0.5, 0.9, 0.99):
            yield f"cut-{part}-{name}", content[: int(part * size)]
        for number in range(10):
            changed = bytearray(content)
            near = size if number % 2 else min(size, 200)  # headers are at the start
            for place in rng.integers(0, near, 1 + number):
                changed[place] = rng.integers(256)
            yield f"changed-{number}-{name}", bytes(changed)
        first, last = np.sort(rng.integers(0, size, 2))
        yield f"hole-{name}", content[:first] + content[last:]
        yield f"zeros-{name}", content[:first] + bytes(last - first) + content[last:]
        yield f"twice-{name}", content + content
        yield f"after-{name}", content + rng.bytes(300)
        yield f"before-{name}", rng.bytes(3) + content


def safetensors(header: object, data: bytes = b"", size: int | None = None) -> bytes:
    """A file with this header, as JSON or as it is."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if size is None else size) + text + data


def safetensors_files() -> Files:
    """Headers that lie."""

    def entry(dtype: object = "F32", shape: object = (2,), offsets: object = (0, 8), **more: object) -> dict[str, object]:
        return {"dtype": dtype, "shape": shape, "data_offsets": offsets, **more}

    tensors = {
        "shape-negative": entry(shape=[-2]),
        "shape-huge": entry(shape=[2**40]),
        "shape-overflows": entry(shape=[2**32, 2**32]),
        "shape-of-zeros": entry(shape=[2**62, 0], offsets=[0, 0]),
        "shape-of-floats": entry(shape=[2.0]),
        "shape-long": entry(shape=[1] * 5000 + [2]),
        "offsets-reversed": entry(offsets=[8, 0]),
        "offsets-outside": entry(offsets=[0, 800]),
        "offsets-huge": entry(offsets=[2**63, 2**63 + 8]),
        "offsets-negative": entry(offsets=[-8, 0]),
        "offsets-inside": entry(offsets=[4, 12]),
        "missing": {"dtype": "F32"},
        "more": entry(strides=[0]),
        "list": [1, 2],
        "number": 3,
        **{f"type-{name}": entry(dtype=name) for name in ("F8_E4M3", "F4", "Q4", "", "object", 7, None, "C64")},
    }
    for name, tensor in tensors.items():
        yield f"entry-{name}.safetensors", safetensors({"w": tensor}, bytes(8))
    yield "overlap.safetensors", safetensors({"a": entry(), "b": entry(offsets=[4, 12])}, bytes(12))
    yield (
        "same.safetensors",
        safetensors(b'{"a":' + json.dumps(entry()).encode() + b',"a":' + json.dumps(entry()).encode() + b"}", bytes(8)),
    )
    for name, header in {"list": [], "text": "x", "null": None, "none": {}, "nested": [[[{}]]]}.items():
        yield f"header-{name}.safetensors", safetensors(header)
    for name, text in {"deep": b'{"a":' + b"[" * 50_000, "nan": b'{"a":NaN}', "bytes": b"{\xff\xfe}", "open": b"{"}.items():
        yield f"header-{name}.safetensors", safetensors(text)
    for size in (0, 1, 2**31, 2**40, 2**63, 2**64 - 1):
        yield f"size-{size}.safetensors", safetensors({"w": entry()}, bytes(8), size=size)
    for name, text in {"deep": "[" * 50_000, "number": "9" * 10_000, "text": "\x1b[2J", "map": json.dumps({"a": {}})}.items():
        yield f"metadata-{name}.safetensors", safetensors({"__metadata__": {"x": text, "\x1b[31m": text}, "w": entry()}, bytes(8))
    yield "metadata-list.safetensors", safetensors({"__metadata__": [1], "w": entry()}, bytes(8))
    many = {f"layers.{i}.w": entry("BF16", [1], [2 * i, 2 * i + 2]) for i in range(4000)}
    yield "many.safetensors", safetensors(many, bytes(8000))


def npy(header: str, data: bytes = bytes(16), version: bytes = b"\x01\x00") -> bytes:
    """An array file with this header."""
    text = header.encode() + b"\n"
    size = struct.pack("<H" if version == b"\x01\x00" else "<I", len(text))
    return b"\x93NUMPY" + version + size + text + data


def archive(members: dict[str, bytes], how: int = zipfile.ZIP_STORED) -> bytes:
    """A zip file."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", how) as target, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, content in members.items():
            target.writestr(name, content)
    return file.getvalue()


def zeros(mebibytes: int) -> bytes:
    """So many zeros in the way of deflate, without an end: of blocks that stand for themselves."""
    stream = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = stream.compress(bytes(2**24)) + stream.flush(zlib.Z_FULL_FLUSH)
    return block * (mebibytes // 16)


def bomb(name: str, mebibytes: int) -> bytes:
    """An archive with one member that unpacks to so much."""
    packed, size, text = zeros(mebibytes), mebibytes * 2**20, name.encode()
    fields = struct.pack("<HHHHHIIIHH", 20, 0, 8, 0, 0, 0, len(packed), size, len(text), 0)
    directory = b"PK\x01\x02\x14\x00" + fields + bytes(14) + text
    start = b"PK\x03\x04" + fields + text + packed
    return start + directory + b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, 1, 1, len(directory), len(start), 0)


def npz_files() -> Files:
    """Arrays whose headers lie, and archives that are odd."""
    header = "{{'descr': {}, 'fortran_order': {}, 'shape': {}, }}"
    for number, descr in enumerate(
        ("'|O'", "'<U999999999'", "'V9999999999'", "[('a', '<f8'), ('b', '|O')]", "'<f3'", "'<m8[s]'", "''", "3")
    ):
        yield f"type-{number}.npz", archive({"inputs.npy": npy(header.format(descr, False, "(2,)"))})
    for number, shape in enumerate(
        ("(10**9,)", "(1000000000000,)", "(-1,)", "(2.0,)", "(True, 2)", "2", "(0, 9999999999999)", "(1,)*70")
    ):
        yield f"shape-{number}.npz", archive({"inputs.npy": npy(header.format("'<f8'", False, shape))})
    code = f"__import__('pathlib').Path('{TRACE}').touch()"
    for number, text in enumerate((code, f"{{'descr': {code}}}", "(" * 3000, "[" * 100_000, "{" * 90, "\0", "{'descr': '<f8'}")):
        yield f"header-{number}.npz", archive({"inputs.npy": npy(text, version=b"\x02\x00")})
    for name, version in {"zero": b"\0\0", "four": b"\x04\0", "high": b"\xff\xff"}.items():
        yield f"version-{name}.npz", archive({"inputs.npy": npy(header.format("'<f8'", False, "(2,)"), version=version)})
    good = npy(header.format("'<f8'", False, "(2,)"))
    for name in ("../../trace", "/tmp/trace", "a\x1b[2J", "", ".", "a" * 60_000, "file", "allow_pickle"):
        yield f"member-{abs(hash(len(name)))}.npz", archive({f"{name}.npy": good})
    for name in ("inputs.npy", "archive/data.pkl", "archive/data/0"):
        yield f"bomb-{Path(name).name}.npz", bomb(name, 3000)
    for name, how in {"bzip2": zipfile.ZIP_BZIP2, "lzma": zipfile.ZIP_LZMA}.items():
        yield f"{name}.npz", archive({"inputs.npy": good}, how)
    whole = archive({"inputs.npy": good})
    for number, (place, text) in enumerate(((8, b"\x63"), (6, b"\x01"), (18, b"\xff\xff\xff\x7f"), (22, b"\xff\xff\xff\x7f"))):
        changed = bytearray(whole)
        directory = whole.index(b"PK\x01\x02")
        for start in (place, directory + place + 2):  # in the member and in the directory: method, flag, sizes
            changed[start : start + len(text)] = text
        yield f"lie-{number}.npz", bytes(changed)


class Attack:
    """An object whose pickle calls a function."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.parts = function, arguments

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.parts


def pickles(folder: Path) -> Files:
    """Pickles that call functions, or whose numbers lie."""
    import builtins
    import os
    import runpy
    import shutil
    import subprocess

    trace = str(folder / TRACE)
    calls = {
        "system": Attack(os.system, f"touch {trace}"),
        "popen": Attack(subprocess.Popen, ["touch", trace]),
        "eval": Attack(eval, f"open({trace!r}, 'w')"),
        "exec": Attack(exec, f"open({trace!r}, 'w')"),
        "open": Attack(open, trace, "w"),
        "getattr": Attack(getattr, os, "system"),
        "import": Attack(builtins.__import__, "antigravity"),
        "run": Attack(runpy.run_path, trace),
        "copy": Attack(shutil.copy, __file__, trace),
        "load": Attack(pickle.loads, pickle.dumps(Attack(os.system, f"touch {trace}"))),
        "array": Attack(np.load, trace),
        "path": Attack(Path.touch, Path(trace)),
        "bytes": Attack(bytearray, 2**33),
        "list": Attack(list, range(10)),
    }
    for name, attack in calls.items():
        for protocol in (2, 4):
            with_module = pickle.dumps(
                {"state_dict": {}, "x": attack} if name != "getattr" else Attack(getattr, "x", "y"), protocol
            )
            yield f"call-{name}-{protocol}.pth", with_module
            members = {"archive/data.pkl": with_module, "archive/version": b"3\n", "archive/byteorder": b"little"}
            yield f"call-{name}-{protocol}-zip.pth", archive(members)
    lies = {
        "text": b"\x8d" + struct.pack("<Q", 2**62),
        "bytes": b"\x8e" + struct.pack("<Q", 2**40),
        "frame": b"\x95" + struct.pack("<Q", 2**63 - 1),
        "number": b"\x8b" + struct.pack("<i", 2**31 - 1),
        "memo": b"N" + b"r" + struct.pack("<I", 2**32 - 1) + b".",
        "mark": b"(" * 10**5 + b".",
        "pop": b"0" * 50 + b".",
        "deep": b"]" * 20_000 + b"a" * 19_999 + b".",
        "maps": b"}" * 10**6 + b".",
        "itself": b"}q\x00X\x01\x00\x00\x00ah\x00s.",
        "persistent": b"U\x01xQ.",
        "extension": b"\x82\x01.",
        "instance": b"(S'touch'\niposix\nsystem\n.",
    }
    for name, text in lies.items():
        yield f"pickle-{name}.pth", b"\x80\x02" + text
        yield f"pickle-{name}-zip.pth", archive({"archive/data.pkl": b"\x80\x02" + text, "archive/version": b"3\n"})
    doubled = b"]q\x00" + b"".join(b"](h" + bytes([i]) + b"h" + bytes([i]) + b"eq" + bytes([i + 1]) for i in range(60)) + b"."
    yield "pickle-doubled.pth", b"\x80\x02" + doubled
    yield "pickle-doubled-zip.pth", archive({"archive/data.pkl": b"\x80\x02" + doubled, "archive/version": b"3\n"})
    yield "pickle-large-zip.pth", archive({"archive/data.pkl": bytes(2 * 10**7), "archive/version": b"3\n"}, zipfile.ZIP_DEFLATED)


def torch_files() -> Files:
    """Tensors that claim more than there is, and values that are none."""
    if not has("torch"):
        return
    import torch

    def torch_file(value: object) -> bytes:
        file = io.BytesIO()
        torch.save(value, file)
        return file.getvalue()

    zero = torch.zeros(1)
    doubled: object = [zero]
    for _ in range(50):
        doubled = [doubled, doubled]
    values = {
        "stride-0": zero.expand(10**12),
        "strides-0": {f"w{i}": zero.expand(10**8) for i in range(99)},
        "strided": {"model": {"w": torch.as_strided(torch.zeros(10), (9, 9, 9, 9, 9, 9, 9, 9), (0,) * 8)}},
        "doubled": {"model": {"w": zero}, "x": doubled},
        "sparse": {"w": torch.eye(3).to_sparse()},
        "quantised": {"w": torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)},
        "meta": {"w": torch.empty(10**9, device="meta")},
        "module": torch.nn.Linear(2, 2),
        "tensor": torch.zeros(3),
        "empty": {},
        "numbers": {1: zero, (2, 3): zero, None: zero},
        "prefixes": {"module." * 150_000 + "w": zero},
        "half": {"w": torch.zeros(2, dtype=torch.bfloat16), "v": torch.zeros(2, dtype=torch.float16)},
        "names": {"\x1b[2J\x07": zero, "\u202e": zero},
        "complex": {"w": torch.zeros(2, dtype=torch.complex32)},
    }
    for name, value in values.items():
        yield (
            f"torch-{name}.pth",
            torch_file(value if isinstance(value, dict) else {"model": {"w": value}} if name != "tensor" else value),
        )
    good = torch_file({"w": torch.zeros(4)})
    members = {
        info.filename: zipfile.ZipFile(io.BytesIO(good)).read(info) for info in zipfile.ZipFile(io.BytesIO(good)).infolist()
    }
    for name in members:
        yield f"torch-without-{Path(name).name}.pth", archive({key: value for key, value in members.items() if key != name})
        yield (
            f"torch-short-{Path(name).name}.pth",
            archive({key: value[: len(value) // 2 if key == name else None] for key, value in members.items()}),
        )


def msgpack_files() -> Files:
    """Maps and arrays that are larger than what holds them."""
    if not has("msgpack"):
        return
    import msgpack

    def array(shape: object, name: object = "float32", data: object = bytes(8), code: int = 1) -> msgpack.ExtType:
        return msgpack.ExtType(code, msgpack.packb((shape, name, data)))

    values = {
        "shape": array((3,)),
        "negative": array((-2, -1)),
        "bool": array((True, 2)),
        "floats": array((2.0,)),
        "huge": array((2**40,)),
        "overflow": array((2**32, 2**32)),
        "empty": array((2**62, 0), data=b""),
        "long": array((1,) * 70, data=bytes(4)),
        "text": array((2,), data="x" * 8),
        "object": array((1,), "object"),
        "name": array((1,), "\x1b[2J"),
        "name-list": array((1,), [1]),
        "shape-map": array({}),
        "scalar": array((2,), code=3),
        "extension": msgpack.ExtType(7, b"x"),
        "time": msgpack.Timestamp(3),
        "complex": msgpack.ExtType(2, msgpack.packb((1, 2, 3))),
        "maps-inside": msgpack.ExtType(1, b"\xdd" + struct.pack(">I", 10**6) + b"\x80" * 10**6),
        "pieces": {"__msgpack_chunked_array__": True, "shape": {"0": 2**40}, "chunks": {"0": array((2,))}},
        "no-pieces": {"__msgpack_chunked_array__": True, "shape": {}, "chunks": {}},
        "odd-pieces": {"__msgpack_chunked_array__": True, "shape": [1], "chunks": 3},
    }
    for name, value in values.items():
        yield f"msgpack-{name}.msgpack", msgpack.packb({"params": {"w": value}})
    texts = {
        "maps": b"\xdd" + struct.pack(">I", 4 * 10**6) + b"\x80" * (4 * 10**6),
        "claims": b"\xdd\xff\xff\xff\xff",
        "map-claims": b"\xdf\xff\xff\xff\xff",
        "bytes": b"\xc6\xff\xff\xff\xff",
        "text": b"\xdb\xff\xff\xff\xff",
        "deep": b"\x81\xa1a" * 30_000 + b"\xc0",
        "lists": b"\x91" * 30_000 + b"\xc0",
        "never": b"\xc1",
        "not-utf8": b"\xa2\xff\xfe",
    }
    for name, text in texts.items():
        yield f"raw-{name}.msgpack", b"\x81\xa1a" + text
    yield (
        "same-paths.msgpack",
        msgpack.packb({"a": {f"{i}.b": array((2,)) for i in range(9000)}} | {f"a.{i}": {"b": array((2,))} for i in range(9000)}),
    )
    yield "numbers.msgpack", b"\x82\xa1a\x01\x02\x03"


def saved(arrays: dict[str, np.ndarray]) -> bytes:
    """The bytes of an npz file."""
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def tensors_of_odd_values() -> Files:
    """Layers of which one tensor is odd."""
    rng = np.random.default_rng(SEED)
    odd: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "nan": lambda x: np.where(rng.random(x.shape) < 0.5, np.nan, x),
        "large": lambda x: np.full_like(x, 3e38),
        "negative": lambda x: -np.abs(x) - 1e30,
        "empty": lambda x: x[:0],
        "flat": np.ravel,
        "deep": lambda x: x[np.newaxis],
        "integers": lambda x: np.ones(x.shape, np.int8),
        "truth": lambda x: np.ones(x.shape, bool),
        "complex": lambda x: x.astype(np.complex64),
        "long": lambda x: np.zeros(10**5, np.float32),
    }
    for family, state in {"s5": s5_state(), "lru": lru_state(), "s4d": s4d_state()}.items():
        for number, (kind, change) in enumerate(odd.items()):
            for key in sorted(state)[number % 2 :: 2][:6]:
                yield f"{family}-{kind}-{key}.npz", saved(state | {key: change(state[key])})
    for family, state in {"s5": s5_state(n=1, width=30_000), "lru": lru_state(n=1, width=30_000)}.items():
        yield f"{family}-wide.npz", saved(state)  # the diagonal of a feedthrough of 7 GB


def odd_keys() -> Files:
    """Layers under names that are no names."""
    for number, key in enumerate(
        (
            "",
            ".",
            "...",
            "/",
            "\x1b[2J",
            "\u202e",
            "a" * 10**6,
            "." * 10**5,
            "[" * 10**5,
            "['a']" * 10**4,
            "1" * 5000,
            "-1",
            "²",
            "a\nb",
        )
    ):
        state = {f"{key}.{name.partition('.')[2]}": value for name, value in s5_state().items()}
        yield f"key-{number}.safetensors", numpy.save(state)


def systems() -> Files:
    """Systems in JSON and MATLAB files whose sizes lie."""
    array = {"shape": [1, 1], "real": [0.5]}
    good: dict[str, object] = {"format": "lqo-mor system", "version": 1, "kind": "dense", "dt": 1.0} | dict.fromkeys(
        "ABCD", array
    )
    odd = {
        "shape-huge": {"shape": [2**40, 2**40], "real": [1]},
        "shape-long": {"shape": [1] * 99, "real": [1]},
        "zero": {"shape": [0, 2**62], "real": []},
    }
    odd |= {
        "texts": {"shape": [1], "real": ["x"]},
        "ragged": {"shape": [2], "real": [[1], [2, 3]]},
        "nan": {"shape": [1, 1], "real": [float("nan")]},
    }
    odd |= {"large": {"shape": [1, 1], "real": [10**400]}, "truth": {"shape": [1, 1], "real": [True]}, "nothing": {}}
    for name, value in odd.items():
        yield f"field-{name}.json", json.dumps(good | {"A": value}).encode()
    for name, value in {"version": "\x1b[2J", "kind": "x" * 10**6, "dt": "1", "format": 3, "\x1b[31m": array}.items():
        yield f"value-{len(name)}.json", json.dumps(good | {name: value}).encode()
    yield "deep.json", b'{"a":' * 50_000
    yield "lists.json", b"[" * 50_000
    start = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM"
    for number, (kind, size, data) in enumerate(
        ((14, 2**31, b""), (15, 20, zlib.compress(bytes(2**20))), (14, 8, bytes(8)), (1, 0, b""), (255, 8, bytes(8)))
    ):
        yield f"element-{number}.mat", start + struct.pack("<II", kind, size) + data
    packed = b"\x78\x9c" + zeros(2**11)
    yield "bomb.mat", start + struct.pack("<II", 15, len(packed)) + packed


def readers(path: Path) -> list[Callable[[Path], object]]:
    """The functions that a file might be given to."""
    found: list[Callable[[Path], object]] = [lqo.load_checkpoint]
    if path.suffix == ".safetensors":
        found.append(lambda path: lqo.compress_file(path, path.with_name("out.safetensors"), state_size=2, method="modal"))
    if path.suffix in (".npz", ".json", ".mat"):
        found += [load_system, load_mat, read_inputs]
    return found


def outcome(read: Callable[[Path], object], path: Path) -> str:
    """What reading ends in; "" where it is as it should be."""
    try:
        read(path)
    except LQOError as error:
        message = str(error)
        return "" if message.isprintable() and len(message) <= 4000 else f"a message that is no plain line: {message[:200]!a}"
    except BaseException as error:
        return f"{type(error).__name__}: {str(error)[:200]!a}"
    return ""


def main(folder: Path) -> None:
    """Write and read all files; print a report as JSON."""
    warnings.simplefilter("ignore")
    count, wrong, largest = 0, {}, 0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for name, content in everything(folder):
        count, largest = count + 1, max(largest, len(content))
        path = folder / name.replace("/", "_")[-200:]
        path.write_bytes(content)
        print(path.name, file=sys.stderr, flush=True)  # the last one, if the process dies
        for read in readers(path):
            if said := outcome(read, path):
                wrong[path.name] = said
        if path.read_bytes() != content:
            wrong[path.name] = "the file was changed"
        path.unlink()
        (folder / "out.safetensors").unlink(missing_ok=True)
        (folder / "out.safetensors.json").unlink(missing_ok=True)
        if left := [other.name for other in folder.iterdir()]:
            wrong[path.name] = f"files appeared: {left}"
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(json.dumps({"files": count, "wrong": wrong, "MiB": grown, "largest": largest / 2**20}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
