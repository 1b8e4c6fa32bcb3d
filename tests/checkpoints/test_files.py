import os
import pickle
import subprocess
import zipfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from lqo_mor.checkpoints.containers.files import check_output, read_file, write_file
from lqo_mor.checkpoints.load import load_checkpoint
from lqo_mor.errors import CheckpointError, InvalidInputError, MissingDependencyError, OutputError
from tests.checkpoints.s4d_states import s4d_state

SUFFIXES = [".safetensors", ".npz", ".pth"]


def need_torch(suffix):
    if suffix == ".pth":
        pytest.importorskip("torch")


@pytest.fixture(params=SUFFIXES)
def saved(request, tmp_path):
    need_torch(request.param)
    path = tmp_path / f"model{request.param}"
    write_file(path, s4d_state(), None, {"acc": 86.18, "epoch": 43, "note": "a text", "config": {"a": [1, None]}})
    return path


def test_round_trip_of_tensors_and_entries(saved):
    content = read_file(saved)
    tree = content.tree["model"] if saved.suffix == ".pth" else content.tree
    extras = {key: value for key, value in content.tree.items() if key != "model"} if saved.suffix == ".pth" else content.extras
    assert extras == {"acc": 86.18, "epoch": 43, "note": "a text", "config": {"a": [1, None]}}
    for key, value in s4d_state().items():
        assert tree[key].dtype == np.float32
        assert np.array_equal(tree[key], value)


def test_the_content_decides_and_not_the_suffix(saved, tmp_path):
    other = tmp_path / "checkpoint.bin"
    other.write_bytes(saved.read_bytes())
    assert load_checkpoint(other).n_parameters == load_checkpoint(saved).n_parameters


@pytest.mark.parametrize("part", [0.02, 0.5, 0.98])
def test_truncated_files_are_refused(saved, part):
    data = saved.read_bytes()
    saved.write_bytes(data[: int(part * len(data))])
    with pytest.raises(CheckpointError, match=saved.name) as caught:
        load_checkpoint(saved)
    assert "\n" not in str(caught.value)


def test_flipped_bytes_never_escape_as_another_error(saved):
    data = saved.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(40):
        damaged = bytearray(data)
        for position in rng.integers(0, len(data), 30):
            damaged[position] = rng.integers(0, 256)
        saved.write_bytes(damaged)
        with suppress(CheckpointError):  # a lucky file may still be readable
            load_checkpoint(saved)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"hello, this is a text file", "not a checkpoint"),
        (b"\x89PNG\r\n\x1a\n" + bytes(99), "not a checkpoint"),
    ],
)
def test_other_files_are_refused(tmp_path, content, words):
    path = tmp_path / "x.pth"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=words):
        load_checkpoint(path)


def test_missing_file_directory_and_foreign_archive(tmp_path):
    with pytest.raises(CheckpointError, match="does not exist"):
        load_checkpoint(tmp_path / "nothing.pth")
    with pytest.raises(CheckpointError, match="is not a file"):
        load_checkpoint(tmp_path)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(CheckpointError, match="neither a PyTorch checkpoint nor NumPy arrays"):
        load_checkpoint(tmp_path / "a.zip")


def test_a_file_that_unpacks_to_too_much_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "bomb.npz"
    np.savez_compressed(path, x=np.zeros(100_000))
    monkeypatch.setattr("lqo_mor.checkpoints.containers.files.MAX_BYTES", 50_000)
    with pytest.raises(CheckpointError, match="unpacks to more than"):
        load_checkpoint(path)


def test_half_precision_is_read_as_single_precision(tmp_path):
    safetensors.numpy.save_file({"x": np.ones(3, np.float16)}, tmp_path / "h.safetensors")
    assert read_file(tmp_path / "h.safetensors").tree["x"].dtype == np.float32


def test_npz_with_objects_is_refused(tmp_path):
    np.savez(tmp_path / "o.npz", x=np.array([{"a": 1}], dtype=object))
    with pytest.raises(CheckpointError, match="Python objects"):
        load_checkpoint(tmp_path / "o.npz")


class Attack:
    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize("layout", ["zip", "old", "pickle"])
def test_a_hostile_pickle_is_refused_and_not_run(tmp_path, layout):
    torch = pytest.importorskip("torch")
    path, trace = tmp_path / "evil.pth", tmp_path / "trace"
    value = {"model": {"w": torch.zeros(2)}, "attack": Attack(f"touch {trace}")}
    if layout == "pickle":
        path.write_bytes(pickle.dumps(value["attack"]))
    else:
        torch.save(value, path, _use_new_zipfile_serialization=layout == "zip")
    with pytest.raises(CheckpointError, match="refused"):
        load_checkpoint(path)
    assert not trace.exists()


class EvalAttack:
    def __reduce__(self):
        return eval, ("1 + 1",)


def test_builtins_that_run_code_are_refused_by_name(tmp_path):
    torch = pytest.importorskip("torch")
    torch.save(EvalAttack(), tmp_path / "evil.pth")
    with pytest.raises(CheckpointError, match=r"builtins\.eval"):
        load_checkpoint(tmp_path / "evil.pth")


def test_a_tensor_that_claims_more_than_it_stores_is_refused(tmp_path):
    torch = pytest.importorskip("torch")
    torch.save({"model": {"w": torch.zeros(1).expand(10**12)}}, tmp_path / "big.pth")
    with pytest.raises(CheckpointError, match="more than 256 MiB"):
        load_checkpoint(tmp_path / "big.pth")


def test_sparse_tensors_scripts_and_whole_modules_are_refused(tmp_path):
    torch = pytest.importorskip("torch")
    torch.save({"w": torch.eye(3).to_sparse()}, tmp_path / "sparse.pth")
    with pytest.raises(CheckpointError, match="sparse"):
        load_checkpoint(tmp_path / "sparse.pth")
    torch.save(torch.nn.Linear(2, 2), tmp_path / "module.pth")
    with pytest.raises(CheckpointError, match="state_dict"):
        load_checkpoint(tmp_path / "module.pth")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_existing_files_are_kept(tmp_path, suffix):
    need_torch(suffix)
    path = tmp_path / f"x{suffix}"
    path.write_text("precious")
    with pytest.raises(OutputError, match="exists already"):
        write_file(path, s4d_state(), None, {})
    assert path.read_text() == "precious"
    write_file(path, s4d_state(), None, {}, overwrite=True)
    assert load_checkpoint(path).n_parameters > 0
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_impossible_outputs_are_refused(tmp_path):
    for path, words in [
        (tmp_path / "x.bin", "suffix"),
        (tmp_path / "no" / "x.npz", "does not exist"),
        (tmp_path / "folder.npz", "is a directory"),
    ]:
        if words == "is a directory":
            path.mkdir()
        with pytest.raises(OutputError, match=words):
            write_file(path, s4d_state(), None, {}, overwrite=True)


def test_nothing_is_left_when_writing_fails(tmp_path, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OutputError, match="No space left"):
        write_file(tmp_path / "x.npz", s4d_state(), None, {})
    assert list(tmp_path.iterdir()) == []


def test_an_unwritable_folder_is_an_output_error(tmp_path, monkeypatch):
    def refuse(self, *args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)  # a read-only folder does not stop the superuser
    with pytest.raises(OutputError, match="Permission denied"):
        write_file(tmp_path / "x.npz", s4d_state(), None, {})


def test_a_name_taken_meanwhile_is_not_overwritten(tmp_path, monkeypatch):
    path = tmp_path / "x.npz"
    monkeypatch.setattr("lqo_mor.checkpoints.containers.files.check_output", lambda *args: path.write_text("precious"))
    with pytest.raises(OutputError, match="exists already"):
        write_file(path, s4d_state(), None, {})
    assert path.read_text() == "precious"


def test_file_systems_without_links_are_served(tmp_path, monkeypatch):
    def no_links(*args):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("os.link", no_links)
    write_file(tmp_path / "x.npz", s4d_state(), None, {})
    assert load_checkpoint(tmp_path / "x.npz").n_parameters > 0


def test_what_cannot_be_stored_is_named(tmp_path):
    dropped = write_file(
        tmp_path / "x.safetensors", s4d_state(), None, {"optimizer": {"a": 1}, "scheduler": object(), "epoch": 3}
    )
    assert dropped == ["optimizer", "scheduler"]
    assert read_file(tmp_path / "x.safetensors").extras == {"epoch": 3}


def test_damage_inside_a_compressed_npz_is_refused(tmp_path):
    path = tmp_path / "z.npz"
    np.savez_compressed(path, **s4d_state())
    data = bytearray(path.read_bytes())
    rng = np.random.default_rng(0)
    for _ in range(60):
        damaged = bytearray(data)
        for position in rng.integers(0, len(data), 5):
            damaged[position] ^= int(rng.integers(1, 256))
        path.write_bytes(damaged)
        with suppress(CheckpointError):
            load_checkpoint(path)
    damaged = bytearray(data)
    damaged[60:200] = bytes(140)
    path.write_bytes(damaged)
    with pytest.raises(CheckpointError, match=r"z\.npz"):
        load_checkpoint(path)


@pytest.mark.parametrize("error", [ZeroDivisionError, RecursionError, MemoryError, PermissionError(13, "Permission denied")])
def test_whatever_a_library_raises_names_the_file(tmp_path, monkeypatch, error):
    def fail(*args):
        raise error

    write_file(tmp_path / "x.npz", s4d_state(), None, {})
    monkeypatch.setattr("lqo_mor.checkpoints.containers.files._read", fail)
    with pytest.raises(CheckpointError, match=r"x\.npz .*(ZeroDivision|Recursion|memory|Permission)"):
        load_checkpoint(tmp_path / "x.npz")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_awkward_entries_are_kept_or_left_out(tmp_path, suffix):
    need_torch(suffix)
    odd = {"note": "\ud800", "zero": "a\0", "file": "log.txt", "allow_pickle": 1, "model": "s4d"}
    left_out = write_file(tmp_path / f"x{suffix}", s4d_state(), None, {**odd, "\udfff": 1})
    content = read_file(tmp_path / f"x{suffix}")
    if suffix == ".pth":
        assert left_out == ["model"]  # the tensors are there
        assert {key: content.tree[key] for key in odd if key != "model"} | {"model": "s4d"} == odd
    else:
        assert left_out == ["\udfff"]
        assert content.extras == odd
    assert load_checkpoint(tmp_path / f"x{suffix}").n_parameters > 0


@pytest.mark.parametrize("dtype", [">f4", ">f8", np.longdouble])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_other_floats_of_numpy_are_read_as_those_of_the_machine(tmp_path, suffix, dtype):
    need_torch(suffix)
    np.savez(tmp_path / "x.npz", **s4d_state(dtype=dtype))
    model = load_checkpoint(tmp_path / "x.npz")
    model.save(tmp_path / f"y{suffix}")
    again = load_checkpoint(tmp_path / f"y{suffix}").source.original.state["decoder.bias"]
    assert again.dtype == (np.float32 if dtype == ">f4" else np.float64)
    assert np.array_equal(again, s4d_state(dtype=again.dtype)["decoder.bias"])


def test_the_longest_names_can_be_written(tmp_path):
    path = tmp_path / ("n" * 251 + ".npz")
    write_file(path, s4d_state(), None, {})
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_an_output_is_checked_before_any_work(tmp_path, monkeypatch):
    check_output(tmp_path / "x.npz", False)
    for path, words in [
        (tmp_path / "x", "suffix"),
        (tmp_path / "x.bin", "suffix"),
        (tmp_path / ("n" * 300 + ".npz"), "too long"),
        (tmp_path / "a\0b.npz", "null"),
        (tmp_path / "no" / "x.npz", "does not exist"),
    ]:
        with pytest.raises(OutputError, match=words):
            check_output(path, False)
    (tmp_path / "dangling.npz").symlink_to(tmp_path / "nothing")
    with pytest.raises(OutputError, match="exists already"):
        check_output(tmp_path / "dangling.npz", False)
    monkeypatch.setattr("os.access", lambda *args, **kwargs: False)  # the superuser may write everywhere
    with pytest.raises(OutputError, match="no permission to write into the folder"):
        check_output(tmp_path / "x.npz", False)


def test_a_pytorch_file_without_torch_is_refused_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    with pytest.raises(MissingDependencyError, match=r"lqo-mor\[torch\]"):
        check_output(tmp_path / "x.pth", False)


class PopenAttack:
    def __reduce__(self):
        return subprocess.Popen, (["true"],)


def test_names_of_python_2_do_not_hide_an_attack(tmp_path):
    torch = pytest.importorskip("torch")
    torch.save({"w": torch.zeros(2), "x": PopenAttack()}, tmp_path / "evil.pth")  # stored as commands.Popen
    with pytest.raises(CheckpointError, match=r"Popen, which can run commands"):
        load_checkpoint(tmp_path / "evil.pth")


@pytest.mark.parametrize("path", [None, 3, b"x.pth"])
def test_what_is_no_path_is_refused(tmp_path, path):
    with pytest.raises(InvalidInputError, match="expected the path of a file"):
        load_checkpoint(path)
    write_file(tmp_path / "x.npz", s4d_state(), None, {})
    with pytest.raises(InvalidInputError, match="expected the path of a file"):
        load_checkpoint(tmp_path / "x.npz").save(path)


def test_a_name_that_no_file_can_have(tmp_path):
    for name in ("n" * 300, "a\0b"):
        with pytest.raises(CheckpointError, match=r"too long|does not exist"):
            load_checkpoint(tmp_path / name)
