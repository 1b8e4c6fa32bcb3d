"""The file of settings beside a checkpoint: it belongs to the checkpoint that it was written with."""

import json

import numpy as np
import pytest

import lqo_mor as lqo
from lqo_mor.checkpoints.containers.files import write_file
from lqo_mor.errors import AssumptionWarning, InvalidInputError, LQOWarning

BILINEAR = {"conj_sym": False, "discretization": "bilinear"}


def s5_state(n=4, width=2, seed=0):
    rng = np.random.default_rng(seed)
    shapes = {"Lambda_im": (n,), "B": (n, width, 2), "C": (width, n, 2), "D": (width,), "log_step": (n, 1)}
    state = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    state["Lambda_re"] = -rng.uniform(0.5, 1, n).astype(np.float32)
    return {f"seq.{name}": value for name, value in state.items()}


def lru_state(n=4, width=2):
    rng = np.random.default_rng(1)
    shapes = dict.fromkeys(("nu_log", "theta_log", "gamma_log"), (n,)) | dict.fromkeys(("B_re", "B_im"), (n, width))
    shapes |= dict.fromkeys(("C_re", "C_im"), (width, n)) | {"D": (width,)}
    return {f"seq.{name}": rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def stored(path, state, settings):
    """The model of a file with a sidecar, at `path`."""
    write_file(path.with_name("source.npz"), state, None, {}, overwrite=True)
    lqo.load_checkpoint(path.with_name("source.npz"), settings=settings).save(path, overwrite=True)


def test_settings_come_back_whatever_the_container_and_the_prefix_are(tmp_path):
    stored(tmp_path / "a.npz", s5_state(), BILINEAR)
    assert lqo.load_checkpoint(tmp_path / "a.npz").source.settings == BILINEAR
    trained_on = {f"module.{key}": value + np.float32(0.001) for key, value in s5_state().items()}
    write_file(tmp_path / "a.npz", trained_on, None, {}, overwrite=True)
    assert lqo.load_checkpoint(tmp_path / "a.npz").source.settings == BILINEAR


def test_settings_of_another_checkpoint_of_that_name_are_not_used(tmp_path):
    stored(tmp_path / "a.npz", s5_state(), BILINEAR)
    write_file(tmp_path / "a.npz", s5_state(n=6), None, {}, overwrite=True)
    with pytest.warns() as caught:
        model = lqo.load_checkpoint(tmp_path / "a.npz")
    assert [w.category for w in caught] == [LQOWarning, AssumptionWarning]
    assert "a.npz.json was written for another checkpoint" in str(caught[0].message)
    assert model.source.assumed == {"conj_sym": True, "discretization": "zoh"}


def test_a_sidecar_written_by_hand_needs_the_settings_only(tmp_path):
    write_file(tmp_path / "a.npz", s5_state(), None, {})
    (tmp_path / "a.npz.json").write_text(json.dumps({"lqo_mor_settings": 1, "settings": BILINEAR}))
    assert lqo.load_checkpoint(tmp_path / "a.npz").source.settings == BILINEAR


def test_a_model_without_settings_leaves_no_sidecar_of_the_one_it_replaces(tmp_path):
    stored(tmp_path / "a.npz", s5_state(), BILINEAR)
    stored(tmp_path / "a.npz", lru_state(), None)
    assert not (tmp_path / "a.npz.json").exists()
    assert lqo.load_checkpoint(tmp_path / "a.npz").source.format == "lru"
    (tmp_path / "a.npz.json").write_text("somebody else's notes")
    stored(tmp_path / "a.npz", lru_state(), None)
    assert (tmp_path / "a.npz.json").read_text() == "somebody else's notes"


@pytest.mark.parametrize("settings", [[1], "disc=zoh", 3])
def test_settings_that_are_no_mapping_are_refused(tmp_path, settings):
    write_file(tmp_path / "a.npz", s5_state(), None, {})
    with pytest.raises(InvalidInputError, match="settings must be a mapping"):
        lqo.load_checkpoint(tmp_path / "a.npz", settings=settings)
