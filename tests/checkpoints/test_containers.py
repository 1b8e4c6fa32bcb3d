"""Containers beside flat PyTorch, safetensors and npz files: nested trees, keys of other styles, msgpack, wrappers."""

import io
import json
import struct
from contextlib import suppress

import numpy as np
import pytest
import safetensors.numpy

import lqo_mor as lqo
from lqo_mor.checkpoints.containers import msgpack_files, trees
from lqo_mor.checkpoints.containers.files import check_output, read_file, write_file
from lqo_mor.checkpoints.load import load_checkpoint
from lqo_mor.errors import CheckpointError, LQOWarning, MissingDependencyError, OutputError
from tests.checkpoints.s4d_states import s4d_state

LAYER = ("params", "encoder", "layers_0", "seq")


def lru_tree(seed=0):
    """A tree as Flax writes it, with one LRU layer of four states."""
    rng = np.random.default_rng(seed)
    shapes = {"B_re": (4, 3), "B_im": (4, 3), "C_re": (3, 4), "C_im": (3, 4), "D": (3,), "gamma_log": (4,)}
    layer = {name: rng.normal(size=shape) for name, shape in shapes.items()}
    layer |= {"nu_log": np.log(rng.uniform(0.01, 0.5, 4)), "theta_log": np.log(rng.uniform(0.1, 3, 4))}
    layer = {name: value.astype(np.float32) for name, value in layer.items()}
    encoder = {"layers_0": {"seq": layer}, "other": {"kernel": np.ones((2, 3), np.float32), "0": np.arange(3)}}
    return {"params": {"encoder": encoder}}


def leaves(tree, path=()):
    for key, value in tree.items():
        yield from leaves(value, (*path, key)) if isinstance(value, dict) else [((*path, key), value)]


def keystr(path):
    return "".join(f"['{name}']" for name in path)


def attributes(path):
    return "." + ".".join(path[:-2]) + f"['{path[-2]}'].{path[-1]}"


STYLES = {"slash": "/".join, "dot": ".".join, "keystr": keystr, "attributes": attributes}


def same(tree, other):
    a, b = dict(leaves(tree)), dict(leaves(other))
    assert a.keys() == b.keys()
    for path, value in a.items():
        assert isinstance(b[path], np.ndarray)
        assert value.dtype == b[path].dtype, path
        assert np.array_equal(value, b[path]), path


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
@pytest.mark.parametrize("style", STYLES)
def test_keys_of_every_style_are_read_and_kept(tmp_path, style, suffix):
    flat = {STYLES[style](path): value for path, value in leaves(lru_tree())}
    write_file(tmp_path / f"a{suffix}", flat, None, {"epoch": 3})
    model = load_checkpoint(tmp_path / f"a{suffix}")
    assert (model.source.format, model.blocks[0].name) == ("lru", "encoder.layers_0.seq")
    model.save(tmp_path / f"same{suffix}")
    same(flat, read_file(tmp_path / f"same{suffix}").tree)
    lqo.compress(model, state_size=4).model.save(tmp_path / f"small{suffix}")
    content = read_file(tmp_path / f"small{suffix}")
    assert content.tree.keys() == flat.keys()
    assert content.tree[STYLES[style]((*LAYER, "nu_log"))].shape == (2,)
    assert content.extras == {"epoch": 3}


@pytest.mark.parametrize("style", STYLES)
def test_new_tensors_get_keys_in_the_style_of_their_layer(tmp_path, style):
    flat = {STYLES[style](path): value for path, value in leaves(lru_tree())}
    write_file(tmp_path / "a.npz", flat, None, {})
    load_checkpoint(tmp_path / "a.npz").save(tmp_path / "b.npz", format="native")
    keys = set(read_file(tmp_path / "b.npz").tree)
    assert STYLES[style]((*LAYER[:-1], "other", "kernel")) not in keys
    assert STYLES[style](("params", "encoder", "other", "kernel")) in keys
    here = {
        "slash": "params/encoder/layers_0/seq/lqo/theta",
        "dot": "params.encoder.layers_0.seq.lqo.theta",
        "keystr": "['params']['encoder']['layers_0']['seq']['lqo']['theta']",
        "attributes": ".params.encoder.layers_0['seq'].lqo.theta",
    }
    assert here[style] in keys
    assert load_checkpoint(tmp_path / "b.npz").blocks[0].name == "encoder.layers_0.seq"


@pytest.mark.parametrize("suffix", [".pth", ".msgpack"])
def test_nested_trees_come_back_nested(tmp_path, suffix):
    pytest.importorskip({".pth": "torch", ".msgpack": "msgpack"}[suffix])
    tree = lru_tree() | {"batch_stats": {"encoder": {"layers_0": {"norm": {"mean": np.ones(3, np.float32)}}}}}
    write_file(tmp_path / f"a{suffix}", dict(leaves(tree)), None, {"step": 7})
    same(tree, {key: value for key, value in read_file(tmp_path / f"a{suffix}").tree.items() if key != "step"})
    model = load_checkpoint(tmp_path / f"a{suffix}")
    assert model.blocks[0].name == "params.encoder.layers_0.seq"
    model.save(tmp_path / f"same{suffix}")
    again = read_file(tmp_path / f"same{suffix}").tree
    assert again.pop("step") == 7
    same(tree, again)
    lqo.compress(model, state_size=4).model.save(tmp_path / f"small{suffix}")
    again = read_file(tmp_path / f"small{suffix}").tree
    assert again.pop("step") == 7
    assert dict(leaves(again)).keys() == dict(leaves(tree)).keys()
    assert again["params"]["encoder"]["layers_0"]["seq"]["B_re"].shape == (2, 3)
    same(tree["batch_stats"], again["batch_stats"])


def test_optimiser_states_of_jax_and_lightning_are_left_out(tmp_path):
    torch = pytest.importorskip("torch")
    state = {f"model.net.{key}": torch.from_numpy(value) for key, value in s4d_state().items()}
    moments = {0: {"exp_avg": torch.zeros(3)}}
    content = {
        "epoch": 4,
        "pytorch-lightning_version": "2.1",
        "state_dict": state,
        "hyper_parameters": {"lr": 0.1, "layer": {"d_state": 8}},
        "optimizer_states": [{"state": moments}],
        "opt_state": {"mu": torch.zeros(2)},
        "lr_schedulers": [{"last_epoch": 4}],
    }
    torch.save(content, tmp_path / "a.ckpt")
    model = load_checkpoint(tmp_path / "a.ckpt")
    assert [block.name for block in model.blocks] == ["net.s4_layers.0", "net.s4_layers.1"]
    with pytest.warns(LQOWarning, match="optimizer_states, opt_state"):
        lqo.compress(model, state_size=4, horizon=32).model.save(tmp_path / "b.ckpt")
    again = torch.load(tmp_path / "b.ckpt", weights_only=True)
    assert again["state_dict"].keys() == state.keys()
    assert again["state_dict"]["model.net.s4_layers.0.kernel.C"].shape == (3, 2, 2)
    assert {k: v for k, v in again.items() if k != "state_dict"} == {
        k: v for k, v in content.items() if k not in ("state_dict", "optimizer_states", "opt_state")
    }


@pytest.mark.parametrize("name", ["opt", "adam", "optimizer", "g_state"])
@pytest.mark.parametrize("nesting", ["model", "net"])
def test_the_state_of_an_optimiser_is_known_by_its_content(tmp_path, name, nesting):
    torch = pytest.importorskip("torch")
    state = {key: torch.from_numpy(value) for key, value in s4d_state().items()}
    weight = torch.nn.Parameter(torch.ones(3))
    optimiser = torch.optim.Adam([weight])
    weight.sum().backward()
    optimiser.step()
    torch.save({nesting: state, name: optimiser.state_dict(), "epoch": 3}, tmp_path / "a.pth")
    with pytest.warns(LQOWarning, match=f"entries {name} of a.pth"):
        load_checkpoint(tmp_path / "a.pth").save(tmp_path / "b.pth")
    assert torch.load(tmp_path / "b.pth", weights_only=True).keys() == {nesting, "epoch"}


def test_a_second_copy_of_the_tensors_is_reported(tmp_path):
    torch = pytest.importorskip("torch")
    state = {key: torch.from_numpy(value) for key, value in s4d_state().items()}
    averaged = {f"module.{key}": value for key, value in state.items()} | {"n_averaged": torch.tensor(3)}
    torch.save({"model": state, "model_ema": averaged, "criterion": {"weight": torch.ones(2)}}, tmp_path / "a.pth")
    model = lqo.compress(load_checkpoint(tmp_path / "a.pth"), state_size=4, horizon=32).model
    with pytest.warns(LQOWarning, match="entries model_ema of a.pth hold the tensors of the model once more"):
        model.save(tmp_path / "b.pth")
    assert torch.load(tmp_path / "b.pth", weights_only=True).keys() == {"model", "model_ema", "criterion"}


def test_modules_one_by_one_with_entries_beside_them(tmp_path):
    torch = pytest.importorskip("torch")
    state = {key: torch.from_numpy(value) for key, value in s4d_state().items()}
    torch.save({"net": state, "head": {"w": torch.ones(2)}, "epoch": 3, "optimizer": {"m": torch.ones(2)}}, tmp_path / "a.pth")
    model = load_checkpoint(tmp_path / "a.pth")
    with pytest.warns(LQOWarning, match="optimizer"):
        lqo.compress(model, state_size=4, horizon=32).model.save(tmp_path / "b.pth")
    again = torch.load(tmp_path / "b.pth", weights_only=True)
    assert again.keys() == {"net", "head", "epoch"}
    assert again["net"].keys() == state.keys()
    with pytest.warns(LQOWarning, match="optimizer"):
        model.save(tmp_path / "c.npz")
    assert "net/s4_layers.0.D" in read_file(tmp_path / "c.npz").tree
    load_checkpoint(tmp_path / "c.npz")
    with pytest.warns(LQOWarning, match="optimizer"):
        model.save(tmp_path / "d.pth", format="native")
    assert "s4_layers.0.lqo.theta" in torch.load(tmp_path / "d.pth", weights_only=True)["net"]


def test_tied_tensors_are_all_kept(tmp_path):
    torch = pytest.importorskip("torch")
    state = {key: torch.from_numpy(value) for key, value in s4d_state().items()}
    shared = torch.randn(4, 6)
    state |= {"task.embedding.weight": shared, "task.decoder.weight": shared, "task.view": shared.T[1:3]}
    state = {f"net.{key}": value for key, value in state.items()}
    torch.save(state, tmp_path / "a.pth")
    for before, after in [("a.pth", "b.safetensors"), ("b.safetensors", "c.pth")]:
        load_checkpoint(tmp_path / before).save(tmp_path / after)
    again = torch.load(tmp_path / "c.pth", weights_only=True)
    assert again.keys() == state.keys()
    assert all(torch.equal(again[key], state[key]) for key in state)


@pytest.mark.parametrize("suffix", [".npz", ".safetensors", ".pth", ".msgpack"])
def test_a_tree_changes_its_container(tmp_path, suffix):
    pytest.importorskip({".pth": "torch", ".msgpack": "msgpack"}.get(suffix, "numpy"))
    write_file(tmp_path / "a.npz", {"/".join(path): value for path, value in leaves(lru_tree())}, None, {"epoch": 3})
    load_checkpoint(tmp_path / "a.npz").save(tmp_path / f"b{suffix}")
    load_checkpoint(tmp_path / f"b{suffix}").save(tmp_path / "c.msgpack" if suffix == ".msgpack" else tmp_path / "c.npz")
    model = load_checkpoint(tmp_path / f"b{suffix}")
    assert model.source.format == "lru"
    assert model.source.original.extras["epoch"] == 3
    tensors = {path[-1]: value for path, value in leaves(lru_tree()) if path[:4] == LAYER}
    stored = {key.rpartition(".")[2]: value for key, value in model.source.original.state.items() if ".seq." in key}
    same(tensors, stored)


@pytest.mark.parametrize("suffix", [".npz", ".safetensors", ".pth", ".msgpack"])
def test_complex_numbers_in_single_precision(tmp_path, suffix):
    pytest.importorskip({".pth": "torch", ".msgpack": "msgpack"}.get(suffix, "numpy"))
    rng = np.random.default_rng(0)
    array = (rng.normal(size=(3, 2)) + 1j * rng.normal(size=(3, 2))).astype(np.complex64)
    write_file(tmp_path / f"x{suffix}", {"w": array}, None, {})
    again = read_file(tmp_path / f"x{suffix}").tree["w"]
    assert again.dtype == np.complex64
    assert np.array_equal(again, array)


def test_double_precision_complex_numbers_do_not_fit_into_safetensors(tmp_path):
    with pytest.raises(OutputError, match=r"complex numbers in double precision \(w\); write \.npz or \.pth"):
        write_file(tmp_path / "x.safetensors", {"w": np.ones(2, complex)}, None, {})


def bf16_safetensors(arrays, number="BF16"):
    header, data = {"__metadata__": {"epoch": "3"}}, b""
    for key, array in arrays.items():
        raw = (array.astype(np.float32).view(np.uint32) >> 16).astype("<u2").tobytes()
        header[key] = {"dtype": number, "shape": list(array.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def test_bfloat16_in_safetensors_is_read_by_hand(tmp_path):
    values = np.array([[1.0, -2.5], [3e38, 1e-30], [0.0, np.inf]], np.float32)
    values = (values.view(np.uint32) & 0xFFFF0000).view(np.float32)
    (tmp_path / "x.safetensors").write_bytes(bf16_safetensors({"a": values, "b": values[:1]}))
    content = read_file(tmp_path / "x.safetensors")
    assert content.extras == {"epoch": 3}
    same({"a": values, "b": values[:1]}, content.tree)


def test_bfloat16_checkpoints_are_written_in_single_precision(tmp_path):
    (tmp_path / "a.safetensors").write_bytes(bf16_safetensors(s4d_state()))
    load_checkpoint(tmp_path / "a.safetensors").save(tmp_path / "b.safetensors")
    again = safetensors.numpy.load_file(tmp_path / "b.safetensors")
    for key, value in s4d_state().items():
        assert again[key].dtype == np.float32
        np.testing.assert_allclose(again[key], value, rtol=2**-7)


def test_other_number_formats_in_safetensors_are_named(tmp_path):
    header = json.dumps({"w": {"dtype": "F8_E4M3", "shape": [2], "data_offsets": [0, 2]}}).encode()
    (tmp_path / "x.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + b"ab")
    with pytest.raises(CheckpointError, match="w holds F8_E4M3 numbers"):
        read_file(tmp_path / "x.safetensors")


def flax_bytes(tree):
    """`flax.serialization.to_bytes` from its description: an array is extension 1 of (shape, name of the type, bytes)."""
    msgpack = pytest.importorskip("msgpack")

    def default(value):
        code = 1 if isinstance(value, np.ndarray) else 3
        return msgpack.ExtType(code, msgpack.packb((value.shape, value.dtype.name, value.tobytes()), use_bin_type=True))

    return msgpack.packb(tree, default=default, strict_types=True)


def test_a_file_of_flax(tmp_path):
    tree = lru_tree() | {"step": np.int32(12), "rate": 0.5}
    (tmp_path / "a.msgpack").write_bytes(flax_bytes(tree))
    model = load_checkpoint(tmp_path / "a.msgpack")
    assert model.blocks[0].name == "encoder.layers_0.seq"
    model.save(tmp_path / "b.flax")
    assert (tmp_path / "b.flax").read_bytes() == (tmp_path / "a.msgpack").read_bytes()


def test_bfloat16_half_precision_and_pieces_in_msgpack(tmp_path, monkeypatch):
    msgpack = pytest.importorskip("msgpack")
    half = np.arange(6, dtype=np.float16).reshape(2, 3)
    raw = msgpack.ExtType(1, msgpack.packb(((2,), "bfloat16", np.array([0x3F80, 0xC000], "<u2").tobytes())))
    pieces = {
        "__msgpack_chunked_array__": True,
        "shape": {"0": 2, "1": 3},
        "chunks": {"0": half.ravel()[:4], "1": half.ravel()[4:]},
    }
    tree = {"params": {"a": half, "b": raw, "c": pieces}}
    (tmp_path / "a.msgpack").write_bytes(flax_bytes(tree))
    found = read_file(tmp_path / "a.msgpack").tree["params"]
    same({"a": half.astype(np.float32), "b": np.array([1, -2], np.float32), "c": half.astype(np.float32)}, found)
    monkeypatch.setattr(msgpack_files, "_CHUNK_BYTES", 10)
    write_file(tmp_path / "b.msgpack", {("params", "a"): found["a"], ("params", "z"): np.array(2.0)}, None, {"c": 1 + 2j})
    plain = msgpack.unpackb((tmp_path / "b.msgpack").read_bytes())
    assert list(plain["params"]["a"]["chunks"]) == ["0", "1", "2"]
    again = read_file(tmp_path / "b.msgpack").tree
    same({"a": found["a"], "z": np.array(2.0)}, again["params"])
    assert again["c"] == 1 + 2j


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (((3,), "float32", b"1234"), "do not fit together"),
        (((-1,), "float32", b""), "refused"),
        (((10**12, 10**12), "float32", b""), "do not fit together"),
        (((1,), "object", b"12345678"), "refused"),
        (((1,), "O", b"12345678"), "refused"),
        (((1,) * 65, "uint8", b"1"), "refused"),
        (((2,), "float32", "12345678"), "refused"),
        (("x", "float32", b""), "refused"),
        ((1, 2), "damaged"),
    ],
)
def test_crafted_arrays_in_msgpack_are_refused(tmp_path, fields, words):
    msgpack = pytest.importorskip("msgpack")
    (tmp_path / "x.msgpack").write_bytes(msgpack.packb({"params": {"w": msgpack.ExtType(1, msgpack.packb(fields))}}))
    with pytest.raises(CheckpointError, match=words):
        load_checkpoint(tmp_path / "x.msgpack")


def test_other_extensions_and_pieces_that_do_not_fit(tmp_path):
    msgpack = pytest.importorskip("msgpack")
    (tmp_path / "x.msgpack").write_bytes(msgpack.packb({"w": msgpack.ExtType(5, b"x")}))
    with pytest.raises(CheckpointError, match="extension 5"):
        load_checkpoint(tmp_path / "x.msgpack")
    pieces = {"__msgpack_chunked_array__": True, "shape": {"0": 5}, "chunks": {"0": np.ones(4)}}
    (tmp_path / "y.msgpack").write_bytes(flax_bytes({"params": {"w": pieces}}))
    with pytest.raises(CheckpointError, match=r"shape \(5,\) in pieces of 4"):
        load_checkpoint(tmp_path / "y.msgpack")


def test_damaged_msgpack_never_escapes_as_another_error(tmp_path):
    data, rng = flax_bytes(lru_tree()), np.random.default_rng(0)
    path = tmp_path / "x.msgpack"
    for _ in range(60):
        damaged = bytearray(data)
        for position in rng.integers(0, len(data), 6):
            damaged[position] = rng.integers(0, 256)
        path.write_bytes(damaged)
        with suppress(CheckpointError):
            load_checkpoint(path)
    for part in (0.05, 0.5, 0.99):
        path.write_bytes(data[: int(part * len(data))])
        with pytest.raises(CheckpointError, match=r"x\.msgpack"):
            load_checkpoint(path)
    path.write_bytes(b"\x81\xa1a" * 100_000 + b"\x01")  # nested far deeper than any model
    with pytest.raises(CheckpointError, match=r"x\.msgpack"):
        load_checkpoint(path)


def test_without_msgpack_the_message_names_the_extra(tmp_path, monkeypatch):
    (tmp_path / "a.msgpack").write_bytes(flax_bytes(lru_tree()))
    monkeypatch.setitem(__import__("sys").modules, "msgpack", None)
    with pytest.raises(MissingDependencyError, match=r"lqo-mor\[msgpack\]"):
        load_checkpoint(tmp_path / "a.msgpack")
    with pytest.raises(MissingDependencyError, match=r"lqo-mor\[msgpack\]"):
        check_output(tmp_path / "b.msgpack", False)


@pytest.mark.parametrize("header", [b"", b'{"width": 3}\n'])
def test_arrays_without_names_are_explained(tmp_path, header):
    buffer = io.BytesIO(header)
    buffer.seek(0, 2)
    for array in (np.ones(3), np.zeros((2, 2))):
        np.save(buffer, array)
    (tmp_path / "x.eqx").write_bytes(buffer.getvalue())
    with pytest.raises(CheckpointError, match=r"x\.eqx holds arrays without their names.*keystr.*eqx\.filter"):
        load_checkpoint(tmp_path / "x.eqx")


def test_folders_of_orbax_and_hdf5_files_are_explained(tmp_path):
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    with pytest.raises(CheckpointError, match="is not a file"):
        load_checkpoint(folder)
    (folder / "manifest.ocdbt").write_bytes(b"x")
    with pytest.raises(CheckpointError, match=r"Orbax.*keystr"):
        load_checkpoint(folder)
    (tmp_path / "x.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(50))
    with pytest.raises(CheckpointError, match="HDF5"):
        load_checkpoint(tmp_path / "x.h5")


def test_the_conversion_that_the_messages_name_works(tmp_path):
    """The keys as ``jax.tree_util.keystr`` writes them: attributes, sequences and dictionaries in one path."""
    layer = dict(leaves(lru_tree()["params"]["encoder"]["layers_0"]["seq"]))
    flat = {f".blocks[0].lru['core'].{path[0]}": value for path, value in layer.items()}
    np.savez(tmp_path / "a.npz", **flat, **{"[<flat index 1>]": np.ones(2)})
    model = load_checkpoint(tmp_path / "a.npz")
    assert model.blocks[0].name == "blocks.0.lru.core"
    model.save(tmp_path / "b.npz")
    assert read_file(tmp_path / "b.npz").tree.keys() == flat.keys() | {"[<flat index 1>]"}


def test_two_places_with_the_same_path(tmp_path):
    torch = pytest.importorskip("torch")
    torch.save({"net": {"a.b": torch.ones(1), "a": {"b": torch.ones(1)}}}, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=r"several tensors have the same path: net\.a\.b"):
        load_checkpoint(tmp_path / "x.pth")
    state, layout, _ = trees.find_state({"a/b": np.ones(1), "a.b": np.zeros(1)}, {})
    assert state.keys() == {"a/b", "a.b"}  # flat keys stay as they are
    assert layout.restored(state) == state


def test_entries_that_would_hide_tensors_are_named(tmp_path):
    pytest.importorskip("msgpack")
    dropped = write_file(tmp_path / "x.msgpack", {("params", "a"): np.ones(2)}, None, {"params": 3, "bad": object(), "n": 1})
    assert dropped == ["params", "bad"]
    assert read_file(tmp_path / "x.msgpack").tree["n"] == 1


@pytest.mark.parametrize(
    ("place", "new", "expected"),
    [
        ("D", "lqo.theta", "lqo.theta"),
        ("/D", "lqo.theta", "/lqo/theta"),
        ("['D']", "lqo.theta", "['lqo']['theta']"),
        (".D", "lqo.theta", ".lqo.theta"),
        ("module.a.D", "b.x", "module.b.x"),
        ("params/a/D", "a.lqo.theta", "params/a/lqo/theta"),
        ("a/D", "b.x", "b/x"),
        ("layers[3].D", "layers.3.x", "layers[3].x"),
        (("net", "a.b.D"), "net.a.x", ("net", "a.x")),
        (("net", "a", "D"), "net.a.lqo.x", ("net", "a", "lqo", "x")),
        (("net", "a", "D"), "net.b.x", ("net", "b", "x")),
    ],
)
def test_places_of_new_tensors(place, new, expected):
    tree = {place: np.ones(1)} if isinstance(place, str) else trees.nested({place: np.ones(1)})
    state, layout, _ = trees.find_state(tree, {})
    assert list(layout.restored({**state, new: np.zeros(1)})) == [place, expected]
