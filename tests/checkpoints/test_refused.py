"""Models that are known but cannot be reduced, and files of unknown content."""

import numpy as np
import pytest

from lqo_mor.checkpoints.containers.files import write_file
from lqo_mor.checkpoints.families.registry import FAMILIES
from lqo_mor.checkpoints.layered import recognises
from lqo_mor.checkpoints.load import load_checkpoint
from lqo_mor.errors import CheckpointError
from tests.checkpoints.s4d_states import s4d_state

MAMBA = ["in_proj.weight", "conv1d.weight", "conv1d.bias", "x_proj.weight", "dt_proj.weight", "dt_proj.bias", "A_log", "D"]
KINDS = {
    "Mamba kind": [f"backbone.layers.3.mixer.{name}" for name in [*MAMBA, "out_proj.weight"]],
    "Mamba-2 kind": [
        f"backbone.layers.0.mixer.{name}" for name in ["dt_bias", "A_log", "D", "in_proj.weight", "conv1d.weight", "norm.weight"]
    ],
    "RG-LRU kind": [f"model.layers.0.temporal_block.rg_lru.{name}" for name in ["recurrent_param", "input_gate_weight"]],
    "Griffin": [f"blocks.0.recurrent_block.rg_lru.{name}" for name in ["a_param", "input_gate.w", "a_gate.w"]],
    "RWKV kind": [f"blocks.0.att.{name}" for name in ["time_decay", "time_first", "time_mix_k", "key.weight"]],
    "H3 kind": [f"backbone.layers.0.mixer.{name}" for name in ["ssm_k_D", "ssm_k_kernel.C", "q_proj.weight"]],
    "D-LinOSS kind": [f"blocks.0.layer.{name}" for name in ["A_diag", "G_diag", "B", "C", "D", "dt"]],
    "LSTM": ["rnn.weight_ih_l0", "rnn.weight_hh_l0", "rnn.bias_ih_l0"],
}
REASONS = {"H3 kind": "products of the inputs", "D-LinOSS kind": "damping", "LSTM": "not linear"}


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_are_named_with_the_reason(tmp_path, kind):
    write_file(tmp_path / "x.npz", {key: np.ones(3) for key in KINDS[kind]}, None, {})
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(tmp_path / "x.npz")
    assert kind in str(caught.value)
    assert REASONS.get(kind, "depends on the input") in str(caught.value)
    assert any(key.removeprefix("model.") in str(caught.value) for key in KINDS[kind])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
def test_no_family_takes_their_layers(kind):
    assert not any(recognises(family, KINDS[kind]) for family in FAMILIES)


def test_readable_layers_beside_a_gated_one_are_read(tmp_path):
    state = {f"net.{key}": value for key, value in s4d_state().items()} | {"mixer.A_log": np.ones(3, np.float32)}
    write_file(tmp_path / "x.npz", state, None, {})
    assert len(load_checkpoint(tmp_path / "x.npz").blocks) == 2


@pytest.mark.parametrize("entry", [{"layer": {"liquid_kernel": "polyb", "liquid_degree": 2}}, {"liquid": True}])
def test_liquid_layers_are_known_by_their_settings_only(tmp_path, entry):
    write_file(tmp_path / "x.npz", s4d_state(), None, {"hyper_parameters": entry})
    with pytest.raises(CheckpointError, match=r"liquid\w* = .* depends on the input"):
        load_checkpoint(tmp_path / "x.npz")
    plain = {"layer": {"liquid_kernel": None}, "liquid": False}
    write_file(tmp_path / "y.npz", s4d_state(), None, {"hyper_parameters": plain})
    assert len(load_checkpoint(tmp_path / "y.npz").blocks) == 2


def test_an_unknown_file_is_described_in_bounded_length(tmp_path):
    write_file(tmp_path / "x.npz", {f"blocks.{i}.attention.weight": np.ones((2, 3)) for i in range(500)}, None, {})
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(tmp_path / "x.npz")
    message = str(caught.value)
    assert "blocks.0.attention.weight (2, 3)" in message
    assert "and 494 more" in message
    assert all(
        family.name.split("-")[0] in message.lower() for family in FAMILIES if family.name in ("s4d-layers", "linoss", "lru")
    )
    assert len(message) < 3000
