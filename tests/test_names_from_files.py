"""Names that stand in files reach messages and terminals as text, whatever is in them."""

import pickle

import numpy as np
import pytest

import lqo_mor as lqo
from lqo_mor.checkpoints.containers.files import write_file
from lqo_mor.cli.main import main
from lqo_mor.errors import CheckpointError, LQOError, LQOWarning, MissingDependencyError, shown, warn
from tests.checkpoints.test_sidecar import BILINEAR, s5_state

NAMES = ["a\x1b]0;title\x07", "\x1b[2J\x1b[31m", "line\nline\r", "\u202egnp", "\udcff", "x" * 10**7, "[bold]x"]


def is_plain(text):
    return text.isprintable() and len(text) <= 4000


def test_messages_are_text_and_stay_so_when_they_are_sent():
    assert shown("λ‖x‖ → [3]") == "λ‖x‖ → [3]"
    assert shown("\x1b[2J\n\u202e\udcff") == r"\x1b[2J\n\u202e\udcff"
    assert shown("\x1b" * 10**6).startswith(r"\x1b\x1b")
    for name in NAMES:
        assert is_plain(shown(name))
        error = CheckpointError(f"{name} is damaged")
        assert is_plain(str(error))
        assert str(error).endswith("is damaged")
        assert str(pickle.loads(pickle.dumps(error))) == str(error)
        with pytest.warns(LQOWarning) as caught:
            warn(f"{name} is odd", LQOWarning)
        assert is_plain(str(caught[0].message))
    assert "lqo-mor[b]" in str(pickle.loads(pickle.dumps(MissingDependencyError("a", "b", "c"))))


@pytest.mark.parametrize("name", [name for name in NAMES if "\udcff" not in name])
def test_names_of_layers_are_shown_as_text(tmp_path, capsys, name):
    state = {key.replace("seq", name.replace(".", "_")): value for key, value in s5_state().items()}
    write_file(tmp_path / "a.safetensors", state, None, {})
    model = lqo.load_checkpoint(tmp_path / "a.safetensors", settings=BILINEAR)
    assert len(model.blocks) == 1
    assert all(map(is_plain, repr(model).split("\n")))
    for command in ("inspect", "compare"):
        assert main([command, *[str(tmp_path / "a.safetensors")] * (1 + (command == "compare"))]) == 0
        out, err = capsys.readouterr()
        assert all(map(is_plain, (out + err).split("\n")))
        assert shown(name, 50) in out
    report = lqo.compress(model, state_size=2, method="modal").report
    assert all(map(is_plain, str(report).split("\n")))


@pytest.mark.parametrize("name", NAMES)
def test_names_of_tensors_that_are_refused_are_shown_as_text(tmp_path, capsys, name):
    write_file(tmp_path / "a.safetensors", {name.replace("\udcff", "\xff"): np.zeros(2)}, None, {})
    with pytest.raises(LQOError) as caught:
        lqo.load_checkpoint(tmp_path / "a.safetensors")
    assert is_plain(str(caught.value))
    assert "expected" in str(caught.value)
    assert main(["inspect", str(tmp_path / "a.safetensors")]) == 1
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert is_plain(err[:-1])
