import argparse
from collections import defaultdict

import numpy as np
import pytest

from lqo_mor.checkpoints.containers.files import write_file
from lqo_mor.checkpoints.load import load_checkpoint
from lqo_mor.errors import CheckpointError, LQOWarning, MissingDependencyError, OutputError
from tests.checkpoints.s4d_states import s4d_state


class SizeList(list):
    """A foreign class that is filled like a list."""


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "model.", "module._orig_mod."])
@pytest.mark.parametrize("nesting", ["state_dict", "model", "model_state_dict", "params", None])
def test_nesting_and_prefix_are_found_and_restored(tmp_path, prefix, nesting):
    torch = pytest.importorskip("torch")
    state = {prefix + key: torch.from_numpy(value) for key, value in s4d_state().items()}
    torch.save(state if nesting is None else {nesting: state, "acc": 86.18, "epoch": 43}, tmp_path / "a.pth")
    load_checkpoint(tmp_path / "a.pth").save(tmp_path / "b.pth")
    again = torch.load(tmp_path / "b.pth", weights_only=True)
    if nesting is not None:
        assert (again["acc"], again["epoch"]) == (86.18, 43)
        again = again[nesting]
    assert again.keys() == state.keys()
    assert all(torch.equal(again[key], state[key]) for key in state)


def test_foreign_objects_are_ignored_and_left_out(tmp_path):
    torch = pytest.importorskip("torch")
    state = {key: torch.from_numpy(value) for key, value in s4d_state().items()}
    entries = {
        "model": state,
        "args": argparse.Namespace(lr=0.1),
        "acc": np.float64(3.25),
        "best": {"epoch": np.int64(7), "loss": np.float32(0.5), "flags": [np.bool_(True), np.complex128(1j)]},
        "when": np.datetime64("2020-01-01"),
        "curve": np.ones(3),
        "history": defaultdict(list, {"loss": [1.0]}),
        "sizes": SizeList([1, 2]),
        "optimizer": {"state": {}},
        "epoch": 3,
    }
    torch.save(entries, tmp_path / "a.pth")
    model = load_checkpoint(tmp_path / "a.pth")
    assert "argparse.Namespace" in model.source.foreign
    with pytest.warns(LQOWarning, match="args, when, curve"):
        model.save(tmp_path / "b.pth")
    again = torch.load(tmp_path / "b.pth", weights_only=True)
    assert set(again) == {"model", "history", "sizes", "epoch", "acc", "best"}
    assert (again["acc"], again["best"]) == (3.25, {"epoch": 7, "loss": 0.5, "flags": [True, 1j]})
    assert (again["history"], again["sizes"]) == ({"loss": [1.0]}, [1, 2])


def test_containers_can_be_changed(tmp_path):
    torch = pytest.importorskip("torch")
    state = {key: torch.from_numpy(value) for key, value in s4d_state().items()}
    torch.save({"model": state, "acc": 86.18}, tmp_path / "a.pth")
    u = np.random.default_rng(0).normal(size=(1, 10, 2))
    expected = load_checkpoint(tmp_path / "a.pth")(u)
    for before, after in [("a.pth", "b.safetensors"), ("b.safetensors", "c.npz"), ("c.npz", "d.pt")]:
        load_checkpoint(tmp_path / before).save(tmp_path / after)
        assert np.array_equal(load_checkpoint(tmp_path / after)(u), expected)
    assert torch.load(tmp_path / "d.pt", weights_only=True)["acc"] == 86.18


def test_half_precision_is_accepted(tmp_path):
    torch = pytest.importorskip("torch")
    torch.save({key: torch.from_numpy(value).bfloat16() for key, value in s4d_state().items()}, tmp_path / "a.pth")
    assert load_checkpoint(tmp_path / "a.pth").source.original.state["decoder.bias"].dtype == np.float32


def test_the_input_file_is_never_overwritten(tmp_path):
    path = tmp_path / "a.npz"
    write_file(path, s4d_state(), None, {})
    before = path.read_bytes()
    link = tmp_path / "link.npz"
    link.symlink_to(path)
    for target in (path, link):
        with pytest.raises(OutputError, match="read from"):
            load_checkpoint(path).save(target, overwrite=True)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ({"w": np.ones((2, 3))}, ["w (2, 3)", "s4_layers", "blocks"]),
        ({"layers.0.mixer.A_log": np.ones(2), "layers.0.mixer.x_proj.weight": np.ones(2)}, ["Mamba", "layers.0.mixer.A_log"]),
    ],
)
def test_unknown_formats_are_described(tmp_path, state, words):
    write_file(tmp_path / "x.npz", state, None, {})
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(tmp_path / "x.npz")
    assert all(word in str(caught.value) for word in words)


def test_the_format_can_be_forced(tmp_path):
    write_file(tmp_path / "x.npz", s4d_state(), None, {})
    assert load_checkpoint(tmp_path / "x.npz", format="s4d").source.format == "s4d"
    with pytest.raises(CheckpointError, match="config"):
        load_checkpoint(tmp_path / "x.npz", format="lqo")
    with pytest.raises(CheckpointError, match=r"'mamba' is unknown, expected one of .*s4d, lqo"):
        load_checkpoint(tmp_path / "x.npz", format="mamba")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([1, 2], "a list"),
        ({}, "no tensors"),
        ({"model": argparse.Namespace(a=1)}, "argparse.Namespace"),
        ({"s4_layers.0.D": [1.0]}, "other entries"),
    ],
)
def test_pytorch_files_without_tensors_are_refused(tmp_path, content, words):
    torch = pytest.importorskip("torch")
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=words):
        load_checkpoint(tmp_path / "x.pth")


def test_without_torch_the_message_names_the_extra(tmp_path, monkeypatch):
    torch = pytest.importorskip("torch")
    torch.save({"model": {}}, tmp_path / "x.pth")
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    with pytest.raises(MissingDependencyError, match=r"lqo-mor\[torch\]"):
        load_checkpoint(tmp_path / "x.pth")


def test_a_damaged_scalar_of_numpy_is_left_out(tmp_path):
    torch = pytest.importorskip("torch")
    scalar = np.float64(3).__reduce__()[0]

    class Odd:
        def __init__(self, *arguments):
            self.arguments = arguments

        def __reduce__(self):
            return scalar, self.arguments

    state = {key: torch.from_numpy(value) for key, value in s4d_state().items()}
    odd = {"short": Odd(np.dtype("f8"), b"123"), "long": Odd(np.dtype("f8"), bytes(16)), "text": Odd(np.dtype("f8"), "x")}
    torch.save({"model": state, **odd, "swapped": np.array(2.5, ">f8")[()], "loss": 1.0}, tmp_path / "a.pth")
    with pytest.warns(LQOWarning, match="short, long, text"):
        load_checkpoint(tmp_path / "a.pth").save(tmp_path / "b.pth")
    again = torch.load(tmp_path / "b.pth", weights_only=True)
    assert (again["swapped"], again["loss"]) == (2.5, 1.0)


def test_scalars_of_numpy_in_files_of_the_old_layout(tmp_path):
    torch = pytest.importorskip("torch")
    state = {key: torch.from_numpy(value) for key, value in s4d_state().items()}
    torch.save({"model": state, "acc": np.float64(3.25)}, tmp_path / "a.pth", _use_new_zipfile_serialization=False)
    load_checkpoint(tmp_path / "a.pth").save(tmp_path / "b.pth")
    assert torch.load(tmp_path / "b.pth", weights_only=True)["acc"] == 3.25


def test_content_that_breaks_a_format_names_the_file(tmp_path, monkeypatch):
    def fail(*args):
        raise ZeroDivisionError

    write_file(tmp_path / "x.npz", s4d_state(), None, {})
    monkeypatch.setattr("lqo_mor.checkpoints.load.find_state", fail)
    with pytest.raises(CheckpointError, match=r"x\.npz: its content cannot be understood, reading it ends in ZeroDivisionError"):
        load_checkpoint(tmp_path / "x.npz")
