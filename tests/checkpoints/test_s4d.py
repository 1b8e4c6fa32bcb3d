import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lqo_mor.checkpoints.containers.files import read_file, write_file
from lqo_mor.checkpoints.families.s4d import S4D
from lqo_mor.checkpoints.load import load_checkpoint
from lqo_mor.checkpoints.settings import Settings
from lqo_mor.compression.compress import compress
from lqo_mor.errors import CheckpointError
from lqo_mor.systems.diagonal import DiagonalLQOSystem
from lqo_mor.systems.quadratic import QuadraticOutput
from tests.checkpoints.s4d_states import awkward_channels, s4d_state, with_systems


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "model.npz"
    write_file(path, s4d_state(), None, {"acc": 86.18, "epoch": 43})
    return path


def kernel(ssm, steps):
    """Impulse responses (H, steps) of a batch of channels, without D."""
    powers = ssm.poles[..., np.newaxis] ** np.arange(steps)
    factor = np.where(ssm.is_real_pole, 1, 2)
    return np.einsum("hs,hsk->hk", factor * ssm.C[:, 0] * ssm.B[..., 0], powers).real


def system(tensors):
    return S4D.read("layer", tensors, Settings()).ssm


def kernel_tensors(ssm, log_dt):
    """The tensors of a layer for given steps."""
    return S4D.write("layer", ssm, {"kernel.log_dt": log_dt}, {})


def test_kernel_is_that_of_the_format(path):
    state, ssm = s4d_state(dtype=float), load_checkpoint(path).blocks[1].ssm
    state = {key: value.astype(np.float32).astype(float) for key, value in state.items()}
    C = state["s4_layers.1.kernel.C"] @ [1, 1j]
    A = -np.exp(state["s4_layers.1.kernel.log_A_real"]) + 1j * state["s4_layers.1.kernel.A_imag"]
    dtA = np.exp(state["s4_layers.1.kernel.log_dt"])[:, np.newaxis] * A
    expected = 2 * np.einsum("hs,hsk->hk", C * (np.exp(dtA) - 1) / A, np.exp(dtA[..., np.newaxis] * np.arange(60))).real
    np.testing.assert_allclose(kernel(ssm, 60), expected, rtol=1e-10, atol=1e-12)
    assert np.array_equal(ssm.D[:, 0, 0], state["s4_layers.1.D"])


def test_structure(path):
    model = load_checkpoint(path)
    block = model.blocks[0]
    assert (block.name, block.prenorm, block.activation, block.gate, block.state_size) == ("s4_layers.0", False, "gelu", "glu", 8)
    assert load_checkpoint(path, settings={"prenorm": True}).blocks[0].prenorm
    assert model.n_parameters == sum(value.size for value in s4d_state().values())
    assert model.source.format == "s4d"


def test_unchanged_model_is_written_bit_by_bit(path, tmp_path):
    load_checkpoint(path).save(tmp_path / "again.npz")
    again = read_file(tmp_path / "again.npz")
    assert again.extras == {"acc": 86.18, "epoch": 43}
    for key, value in s4d_state().items():
        assert again.tree[key].dtype == np.float32
        assert np.array_equal(again.tree[key], value), key


def test_reduced_models_come_back(path, tmp_path):
    """All kinds of poles, layers of different size; double precision, so that nothing hides in rounding."""
    write_file(tmp_path / "double.npz", s4d_state(dtype=np.float64), None, {})
    model = load_checkpoint(tmp_path / "double.npz")
    systems = [awkward_channels(1, 3, 3, model.blocks[0].ssm.D), awkward_channels(2, 3, 2, model.blocks[1].ssm.D)]
    small = with_systems(model, *systems)
    small.save(tmp_path / "small.npz")
    state = read_file(tmp_path / "small.npz").tree
    assert state["s4_layers.1.kernel.A_imag"].shape == (3, 3)  # padded to the largest layer
    assert small.n_parameters == sum(value.size for value in state.values())
    u = np.random.default_rng(3).normal(size=(2, 30, 2))
    again = load_checkpoint(tmp_path / "small.npz")
    np.testing.assert_allclose(again(u), small(u), rtol=1e-9, atol=1e-10)
    # Real poles stay real: no order is won or lost by a file.
    assert again.blocks[0].ssm.is_real_pole.sum() == 3


def test_untouched_layers_keep_their_tensors(path, tmp_path):
    model = load_checkpoint(path)
    small = with_systems(model, awkward_channels(1, 3, 4, model.blocks[0].ssm.D), model.blocks[1].ssm)
    small.save(tmp_path / "small.npz")
    state = read_file(tmp_path / "small.npz").tree
    for key, value in s4d_state().items():
        if not key.startswith("s4_layers.0.kernel.") and key != "s4_layers.0.D":
            assert np.array_equal(state[key], value), key
    assert np.array_equal(state["s4_layers.0.kernel.log_dt"], s4d_state()["s4_layers.0.kernel.log_dt"])


@settings(max_examples=60, deadline=None)
@given(
    modulus=st.floats(1e-6, 1 - 1e-6),
    angle=st.floats(-np.pi, np.pi),
    real=st.booleans(),
    log_dt=st.floats(-7, 0),
    size=st.floats(-1, 1),
)
def test_inverse_map(modulus, angle, real, log_dt, size):
    pole = modulus * np.exp(1j * angle)
    pole = pole.real if real else pole
    if abs(pole) < 1e-6:
        pole = 1e-6
    residue = size * (1.0 if np.imag(pole) == 0 else np.exp(0.7j))
    ssm = DiagonalLQOSystem([[pole]], [[[1.0]]], [[[residue]]], [[[0.3]]], dt=1.0)
    written = kernel_tensors(ssm, np.array([log_dt]))
    again = system(written)
    np.testing.assert_allclose(kernel(again, 40), kernel(ssm, 40), rtol=0, atol=1e-9 * max(1e-3, abs(size)))


def test_a_pole_at_zero_becomes_feedthrough():
    for pole, c in [(0.0, 2.0), (1e-40, 2.0), (1e-40j, 1.0 + 1j)]:
        ssm = DiagonalLQOSystem([[pole]], [[[1.0]]], [[[c]]], [[[0.5]]], dt=1.0)
        written = kernel_tensors(ssm, np.zeros(1))
        assert written["D"] == pytest.approx(2.5)
        assert not np.any(written["kernel.C"])


@pytest.mark.parametrize("pole", [1.0, -1.0, (1 + 2e-16) * np.exp(0.3j)])
def test_a_pole_that_rounding_put_onto_the_unit_circle_is_stored(pole):
    ssm = DiagonalLQOSystem([[pole]], [[[1.0]]], [[[2.0]]], dt=1.0)
    written = kernel_tensors(ssm, np.zeros(1))
    again = system(written)
    assert np.all(np.abs(again.poles) < 1)
    np.testing.assert_allclose(kernel(again, 1000), kernel(ssm, 1000), atol=1e-8)


@pytest.mark.parametrize(
    ("ssm", "words"),
    [
        (DiagonalLQOSystem(np.full((3, 2), 1.01), np.ones((3, 2, 1)), np.ones((3, 1, 2)), dt=1.0), "modulus 1.01"),
        (
            DiagonalLQOSystem(
                np.full((3, 1), 0.5),
                np.ones((3, 1, 1)),
                np.ones((3, 1, 1)),
                M=QuadraticOutput(np.ones((3, 1, 1)), np.ones((3, 1, 1)), np.ones((3, 1, 1))),
                dt=1.0,
            ),
            "quadratic",
        ),
        (DiagonalLQOSystem(np.full((3, 1), 0.5), np.ones((3, 1, 1)), np.full((3, 1, 1), 1e39), dt=1.0), "overflow"),
        (DiagonalLQOSystem([0.5], np.ones((1, 3)), np.ones((3, 1)), dt=1.0), "structure"),
    ],
)
def test_what_the_format_cannot_store_is_refused(path, tmp_path, ssm, words):
    model = load_checkpoint(path)
    with pytest.raises(CheckpointError, match=words):
        with_systems(model, ssm, ssm).save(tmp_path / "x.npz")
    assert not (tmp_path / "x.npz").exists()


def damaged(change):
    state = s4d_state()
    change(state)
    return state


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s.pop("s4_layers.1.kernel.log_dt"), "missing: s4_layers.1.kernel.log_dt"),
        (lambda s: s.pop("encoder.weight"), "missing: encoder.weight"),
        (lambda s: s.update({"s4_layers.0.D": np.ones(4)}), "s4_layers.0.D has shape (4,), expected (3,)"),
        (lambda s: s.update({"s4_layers.0.kernel.C": np.ones((3, 4))}), "s4_layers.0.kernel.C"),
        (
            lambda s: s.update({"s4_layers.0.kernel.C": np.ones((3, 0, 2))}),
            "s4_layers.0.kernel.C is empty: it has shape (3, 0, 2)",
        ),
        (lambda s: s.update({"norms.0.bias": np.full(3, np.nan)}), "norms.0.bias has 3 entries that are not finite"),
        (lambda s: s.update({"decoder.bias": np.ones(5, int)}), "decoder.bias holds int64"),
        (lambda s: s.update({"s4_layers.0.kernel.log_A_real": np.full((3, 4), 800.0)}), "s4_layers.0: log_dt"),
        (lambda s: s.update({"s4_layers.5.D": np.ones(3)}), "not numbered"),
    ],
)
def test_damaged_tensors_are_named(tmp_path, change, words):
    write_file(tmp_path / "bad.npz", damaged(change), None, {})
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(tmp_path / "bad.npz")
    assert words in str(caught.value)
    assert "bad.npz" in str(caught.value)


def test_whether_it_normalises_first_stays_with_the_file(tmp_path):
    write_file(tmp_path / "a.npz", s4d_state(), None, {})
    model = load_checkpoint(tmp_path / "a.npz", settings={"prenorm": True})
    model.save(tmp_path / "b.npz")
    again = load_checkpoint(tmp_path / "b.npz")
    assert again.blocks[0].prenorm
    assert again.source.assumed == {}
    model.save(tmp_path / "ragged.npz", format="ragged")
    load_checkpoint(tmp_path / "ragged.npz").save(tmp_path / "c.npz", format="s4d")
    assert load_checkpoint(tmp_path / "c.npz").blocks[0].prenorm


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s.update({"extra.weight": np.ones(2, np.float32)}),
        lambda s: s.pop("encoder.bias"),
        lambda s: [s.pop(f"norms.{i}.bias") for i in range(2)],  # RMSNorm: only the systems are understood
        lambda s: (s.pop("encoder.bias"), s.update({"encoder.weight": np.ones((7, 3), np.float32)})),  # an embedding
        lambda s: s.update({"s4_layers.1.gate.weight": np.ones(2, np.float32)}),
    ],
)
def test_a_model_that_is_more_than_the_example_is_one_with_s4d_layers(tmp_path, change):
    state = damaged(change)
    write_file(tmp_path / "a.npz", state, None, {})
    model = load_checkpoint(tmp_path / "a.npz")
    assert model.source.format == "s4d-layers"
    if "encoder.bias" not in state:  # the model is understood as a whole
        tokens = state["encoder.weight"].shape[0] == 7
        inputs = np.array([[0, 1, 6]]) if tokens else np.ones((1, 3, state["encoder.weight"].shape[1]))
        assert model(inputs).shape == (1, 5)
    compress(model, state_size=4, method="modal").model.save(tmp_path / "b.npz")
    again = read_file(tmp_path / "b.npz").tree
    assert again.keys() == state.keys()
    assert again["s4_layers.1.kernel.C"].shape == (3, 2, 2)


def test_a_pole_on_the_unit_circle_is_pulled_inside(tmp_path):
    state = s4d_state(dtype=np.float64)
    state["s4_layers.0.kernel.log_A_real"][0, 0] = -60.0  # exp(-exp(-60)) is 1
    write_file(tmp_path / "slow.npz", state, None, {})
    model = load_checkpoint(tmp_path / "slow.npz")
    modulus = np.abs(model.blocks[0].ssm.poles)
    assert modulus.max() == pytest.approx(1 - 1e-12, abs=2e-16)
    small = compress(model, state_size=4, method="balanced").model
    small.save(tmp_path / "small.npz")
    assert np.abs(load_checkpoint(tmp_path / "small.npz").blocks[0].ssm.poles).max() < 1
    model.save(tmp_path / "again.npz")
    assert np.array_equal(
        read_file(tmp_path / "again.npz").tree["s4_layers.0.kernel.log_A_real"], state["s4_layers.0.kernel.log_A_real"]
    )
