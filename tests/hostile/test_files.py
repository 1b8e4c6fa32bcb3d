"""Hundreds of hostile files in a process of their own, whose memory can be seen."""

import json
import subprocess
import sys

import numpy as np
import pytest
import safetensors.numpy

import lqo_mor as lqo
from lqo_mor.checkpoints.containers.files import read_file, write_file
from lqo_mor.checkpoints.layered import _natural
from tests.hostile.corpus import has
from tests.imports import ROOT

pytest.importorskip("resource")


def test_hostile_files_end_in_one_line_and_leave_nothing(tmp_path):
    command = [sys.executable, "-m", "tests.hostile.corpus", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]
    report = json.loads(done.stdout)
    assert report["wrong"] == {}
    assert report["files"] > (500 if has("torch") and has("msgpack") else 300)
    assert report["MiB"] < 2000  # of the process, PyTorch included; no file has more than a few
    assert report["largest"] < 8


def test_a_file_of_many_layers_of_few_numbers_is_refused(tmp_path, monkeypatch):
    from tests.checkpoints.test_sidecar import s5_state

    write_file(tmp_path / "a.npz", s5_state(width=50), None, {})
    monkeypatch.setattr("lqo_mor.checkpoints.layered.memory_bound", lambda size, floor: 8 * 50**2)
    with pytest.raises(lqo.LQOError, match="more memory than the size of the file explains"):
        lqo.load_checkpoint(tmp_path / "a.npz")


def test_inputs_that_unpack_to_too_much_are_refused(tmp_path, monkeypatch):
    from lqo_mor.network import inputs

    np.savez_compressed(tmp_path / "x.npz", inputs=np.zeros((99, 99, 9)))
    monkeypatch.setattr(inputs, "_FLOOR", 2**10)
    with pytest.raises(lqo.LQOError, match=r"x.npz unpacks to more than 0 MiB"):
        inputs.read_inputs(tmp_path / "x.npz")


def test_layers_are_in_the_order_of_their_numbers():
    names = ["a.2", "a.10", "a.0", "b", "a.010.1", "a.9" + "9" * 5000, "a.²", "a"]
    assert sorted(names, key=_natural) == ["a", "a.0", "a.2", "a.10", "a.010.1", "a.9" + "9" * 5000, "a.²", "b"]


@pytest.mark.parametrize("key", ["__metadata__", "a\ud800"])
def test_names_that_safetensors_cannot_hold(tmp_path, key):
    with pytest.raises(lqo.LQOError, match="cannot hold a tensor of the name"):
        write_file(tmp_path / "x.safetensors", {key: np.zeros(2)}, None, {})


def test_tensors_of_all_kinds_come_back_from_safetensors(tmp_path, rng):
    state = {
        f"{kind}{shape}": np.array(100 * rng.random(shape)).astype(kind)
        for kind in "fdFbhilBHIQ?"
        for shape in ((), (0, 3), (2, 3))
    }
    state["reversed"] = state["d(2, 3)"][:, ::-1]
    state["big"] = state["d(2, 3)"].astype(">f8")
    write_file(tmp_path / "x.safetensors", state, None, {})
    library = safetensors.numpy.load_file(tmp_path / "x.safetensors")
    ours = read_file(tmp_path / "x.safetensors").tree
    for key, value in state.items():
        for read in (library[key], ours[key]):
            assert read.shape == value.shape
            assert read.dtype == value.dtype.newbyteorder("=")
            assert np.array_equal(read, value)
