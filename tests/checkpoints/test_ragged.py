"""The ragged format: written, read back, counted, converted, refused."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lqo_mor.checkpoints.containers.files import read_file, write_file
from lqo_mor.checkpoints.families.ragged import ENTRY, RAGGED, make_entry
from lqo_mor.checkpoints.families.slots import PI32
from lqo_mor.checkpoints.load import load_checkpoint
from lqo_mor.checkpoints.settings import Settings
from lqo_mor.cli.main import main
from lqo_mor.compression.compress import compress
from lqo_mor.errors import CheckpointError, InvalidInputError, OutputError
from lqo_mor.systems.batches import used_order
from lqo_mor.systems.diagonal import DiagonalLQOSystem
from lqo_mor.systems.quadratic import QuadraticOutput
from tests.checkpoints.ragged_states import COUNTS, SLOTS, WIDTH, ragged_channels, ragged_model, s4d_model
from tests.checkpoints.s4d_states import awkward_channels, s4d_state, with_systems


def kernel(ssm, steps):
    """Impulse responses (H, steps) of a batch of channels, with D."""
    powers = ssm.poles[..., np.newaxis] ** np.arange(steps)
    factor = np.where(ssm.is_real_pole, 1, 2)
    K = np.einsum("hs,hsk->hk", factor * ssm.C[:, 0] * ssm.B[..., 0], powers).real
    K[:, 0] += ssm.D[:, 0, 0]
    return K


def _system(tensors):
    return RAGGED.read("layer", tensors, Settings()).ssm


def _tensors(ssm):
    return RAGGED.write("layer", ssm, {}, {})


@pytest.fixture
def u():
    return np.random.default_rng(3).normal(size=(2, 60, 2))


@pytest.mark.parametrize("suffix", [".safetensors", ".npz", ".pt"])
@pytest.mark.parametrize("prenorm", [False, True])
def test_a_model_comes_back(tmp_path, u, suffix, prenorm):
    if suffix == ".pt":
        pytest.importorskip("torch")
    model, path = ragged_model(tmp_path, prenorm=prenorm), tmp_path / f"r{suffix}"
    model.save(path, format="ragged")
    again = load_checkpoint(path)
    assert again.source.format == "ragged"
    assert [block.prenorm for block in again.blocks] == [prenorm, prenorm]
    expected = model(u)
    np.testing.assert_allclose(again(u), expected, atol=2e-6 * np.abs(expected).max())
    content = read_file(path)
    assert (content.extras["acc"], content.extras["epoch"]) == (86.18, 43) if suffix != ".pt" else content.tree["acc"] == 86.18
    for a, b in zip(model.blocks, again.blocks, strict=True):
        assert np.array_equal(used_order(a.ssm), used_order(b.ssm))


def test_what_the_file_holds_is_what_is_counted(tmp_path):
    model = ragged_model(tmp_path)
    model.save(tmp_path / "r.safetensors", format="ragged")
    state, again = read_file(tmp_path / "r.safetensors").tree, load_checkpoint(tmp_path / "r.safetensors")
    assert model.source.layer_parameters(model, "ragged") == again.layer_parameters == (4 * 12 + 10, 4 * 9 + 10)
    assert again.n_parameters == sum(value.size for value in state.values())
    assert [state[f"s4_layers.{i}.slots.count"].tolist() for i in (0, 1)] == [list(count) for count in COUNTS]
    assert state["s4_layers.0.slots.count"].dtype == np.int32
    assert all(value.dtype == np.float32 for key, value in state.items() if not key.endswith("count"))
    outer = {key for key in s4d_state() if ".kernel." not in key}
    slots = {f"s4_layers.{i}.slots.{key}" for i in (0, 1) for key in ("count", "nu_log", "theta", "residue")}
    assert set(state) == outer | slots
    assert "s4_layers.0: 0..12 states" in repr(again)


def test_an_unchanged_model_is_written_bit_by_bit(tmp_path):
    ragged_model(tmp_path).save(tmp_path / "a.safetensors", format="ragged")
    for format in (None, "ragged"):
        load_checkpoint(tmp_path / "a.safetensors").save(tmp_path / "b.npz", overwrite=True, format=format)
        a, b = read_file(tmp_path / "a.safetensors"), read_file(tmp_path / "b.npz")
        assert a.extras == b.extras == {"acc": 86.18, "epoch": 43, ENTRY: {"version": 1, "prenorm": False}}
        assert set(a.tree) == set(b.tree)
        assert all(np.array_equal(value, b.tree[key]) and value.dtype == b.tree[key].dtype for key, value in a.tree.items())


def test_a_read_model_is_changed_and_written_again(tmp_path, u):
    ragged_model(tmp_path).save(tmp_path / "a.npz", format="ragged")
    model = load_checkpoint(tmp_path / "a.npz")
    model = with_systems(model, model.blocks[0].ssm, ragged_channels(7, (1, 0, 1, 0, 7), 8))  # as many slots as before
    model.save(tmp_path / "b.npz")
    again = load_checkpoint(tmp_path / "b.npz")
    np.testing.assert_allclose(again(u), model(u), atol=1e-5)
    a, b = read_file(tmp_path / "a.npz").tree, read_file(tmp_path / "b.npz").tree
    assert all(np.array_equal(b[key], a[key]) for key in a if key.startswith("s4_layers.0"))
    assert again.layer_parameters == load_checkpoint(tmp_path / "a.npz").layer_parameters == (4 * 12 + 10, 4 * 9 + 10)


def test_compress_and_inspect_work_on_it(tmp_path, u, capsys):
    s4d_model(tmp_path).save(tmp_path / "a.safetensors", format="ragged")
    result = compress(load_checkpoint(tmp_path / "a.safetensors"), state_size=6, method="balanced")
    result.model.save(tmp_path / "b.safetensors")
    again = load_checkpoint(tmp_path / "b.safetensors")
    assert result.report.parameters_after == again.n_parameters
    np.testing.assert_allclose(again(u), result.model(u), atol=1e-5)
    assert main(["inspect", str(tmp_path / "b.safetensors")]) == 0
    assert "format ragged, 2 layers" in capsys.readouterr().out


def test_conversion_there_and_back(tmp_path, u):
    """From S4D to ragged to padded S4D: in double precision, so that nothing hides in rounding."""
    model = ragged_model(tmp_path, np.float64)
    model.save(tmp_path / "r.npz", format="ragged")
    read = load_checkpoint(tmp_path / "r.npz")
    read.save(tmp_path / "s.npz", format="s4d")
    content, again = read_file(tmp_path / "s.npz"), load_checkpoint(tmp_path / "s.npz")
    assert again.source.format == "s4d"
    assert content.extras == {"acc": 86.18, "epoch": 43}
    assert {key: value.shape for key, value in content.tree.items()} == {
        key: value.shape for key, value in s4d_state(width=WIDTH, slots=6).items()
    }
    for other in (read, again):
        np.testing.assert_allclose(other(u), model(u), rtol=1e-10, atol=1e-11)
    assert read.source.layer_parameters(read, "s4d") == again.layer_parameters
    again.save(tmp_path / "r2.npz", format="ragged")  # the padding does not come back
    assert load_checkpoint(tmp_path / "r2.npz").layer_parameters == read.layer_parameters
    model.save(tmp_path / "direct.npz")
    direct = read_file(tmp_path / "direct.npz").tree
    assert direct["s4_layers.1.kernel.C"].shape == (WIDTH, 6, 2)
    assert np.array_equal(np.count_nonzero(np.any(direct["s4_layers.1.kernel.C"], axis=-1), axis=1), COUNTS[1])


def test_steps_of_one_lose_nothing_in_single_precision(tmp_path):
    """Slow and fast poles through ragged and S4D files in float32: the poles of both are equally good."""
    rng = np.random.default_rng(0)
    poles = np.exp(-(10 ** rng.uniform(-6, 0, (WIDTH, SLOTS)))) * np.exp(1j * 10 ** rng.uniform(-4, 0.4, (WIDTH, SLOTS)))
    ssm = DiagonalLQOSystem(poles, np.ones((WIDTH, SLOTS, 1)), np.ones((WIDTH, 1, SLOTS)), dt=1.0)
    with_systems(s4d_model(tmp_path, layers=1), ssm).save(tmp_path / "r.npz", format="ragged")
    read = load_checkpoint(tmp_path / "r.npz")
    read.save(tmp_path / "s.npz", format="s4d")
    for other in (read.blocks[0].ssm, load_checkpoint(tmp_path / "s.npz").blocks[0].ssm):
        decay, angle = np.log(np.abs(other.poles)), np.angle(other.poles)
        np.testing.assert_allclose(decay, np.log(np.abs(poles)), rtol=2e-6)
        np.testing.assert_allclose(angle, np.angle(poles), rtol=2e-7)
        np.testing.assert_allclose(other.C * other.B[:, :, 0][:, np.newaxis], 1, rtol=1e-6)


@settings(max_examples=80, deadline=None)
@given(
    modulus=st.floats(1e-6, 1 - 1e-6),
    angle=st.floats(-np.pi, np.pi),
    sign=st.sampled_from([0, 1, -1]),
    size=st.floats(-1, 1),
    dtype=st.sampled_from([np.float32, np.float64]),
)
def test_inverse_map(modulus, angle, sign, size, dtype):
    pole = modulus * (sign or np.exp(1j * angle))
    residue = size * (1.0 if np.imag(pole) == 0 else np.exp(0.7j))
    ssm = DiagonalLQOSystem([[pole]], [[[1.0]]], [[[residue]]], [[[0.3]]], dt=1.0)
    written = {key: value.astype(int if "count" in key else dtype) for key, value in _tensors(ssm).items()}
    again = _system(written)
    assert again.is_real_pole[0, 0] or np.imag(pole) != 0
    eps = 40 * np.finfo(dtype).eps  # a rounded angle costs a little more with every step
    steps = np.arange(40)
    allowed = 4 * (1 + steps) * modulus**steps * eps * abs(size) + 1e-14 + eps * (steps == 0)
    assert np.all(np.abs(kernel(again, 40) - kernel(ssm, 40)) <= allowed)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_real_poles_stay_real_and_count_once(dtype):
    poles, C = np.array([[0.9, -0.7, 0.5j]]), np.array([[[2.0, -3.0, 1.0 + 1.0j]]])
    ssm = DiagonalLQOSystem(poles, np.ones((1, 3, 1)), C, dt=1.0)
    written = {k: v.astype(int if "count" in k else dtype) for k, v in _tensors(ssm).items()}
    assert written["slots.theta"][0] == 0
    assert written["slots.theta"][1] == (PI32 if dtype is np.float32 else np.pi)
    np.testing.assert_array_equal(written["slots.residue"], [[1, 0], [-1.5, 0], [1, 1]])
    again = _system(written)
    assert again.is_real_pole.tolist() == [[True, True, False]]
    np.testing.assert_allclose(again.poles, poles, rtol=3e-7)
    np.testing.assert_allclose(again.C, C, rtol=1e-6)


def test_an_imaginary_part_at_a_real_pole_has_no_effect():
    state = {"slots.nu_log": np.full(3, -1.0), "slots.theta": np.array([0, PI32, -PI32], np.float32)}
    state |= {"slots.residue": np.array([[1, 5], [2, 5], [3, 5]], np.float32), "slots.count": np.array([3]), "D": np.zeros(1)}
    ssm = _system(state)
    assert np.all(ssm.is_real_pole)
    np.testing.assert_array_equal(ssm.C[0, 0], [2, 4, 6])


def test_what_is_left_out(tmp_path):
    """A pole at zero becomes feedthrough, an underflowed one too; slots without output are dropped."""
    model = s4d_model(tmp_path, np.float64, layers=1)
    ssm = awkward_channels(1, WIDTH, 4, model.blocks[0].ssm.D)
    model = with_systems(model, ssm)
    model.save(tmp_path / "r.npz", format="ragged")
    again = load_checkpoint(tmp_path / "r.npz")
    np.testing.assert_allclose(kernel(again.blocks[0].ssm, 30), kernel(ssm, 30), rtol=1e-9, atol=1e-12)
    assert read_file(tmp_path / "r.npz").tree["s4_layers.0.slots.count"].tolist() == [4, 4, 2, 4, 4]
    state = read_file(tmp_path / "r.npz").tree
    state["s4_layers.0.slots.nu_log"][1] = 50.0  # exp(-exp(50)) is 0
    state["s4_layers.0.slots.residue"][2] = 0.0
    write_file(tmp_path / "odd.npz", state, None, make_entry(False))
    odd = load_checkpoint(tmp_path / "odd.npz")
    odd.save(tmp_path / "clean.npz")
    clean = load_checkpoint(tmp_path / "clean.npz")
    np.testing.assert_allclose(kernel(clean.blocks[0].ssm, 30), kernel(odd.blocks[0].ssm, 30), rtol=1e-9, atol=1e-12)
    assert odd.layer_parameters == clean.layer_parameters == (4 * 16 + 10,)
    assert read_file(tmp_path / "clean.npz").tree["s4_layers.0.slots.nu_log"].shape == (16,)


def test_a_layer_without_any_slot(tmp_path, u):
    model = ragged_model(tmp_path, counts=((0,) * WIDTH, COUNTS[0]))
    model.save(tmp_path / "r.safetensors", format="ragged")
    again = load_checkpoint(tmp_path / "r.safetensors")
    assert again.layer_parameters[0] == 2 * WIDTH
    np.testing.assert_allclose(again(u), model(u), atol=1e-5)
    again.save(tmp_path / "s.npz", format="s4d")
    np.testing.assert_allclose(load_checkpoint(tmp_path / "s.npz")(u), model(u), atol=1e-5)
    again.save(tmp_path / "r2.safetensors")


def damaged(folder, **changes):
    ragged_model(folder).save(folder / "good.npz", format="ragged")
    content = read_file(folder / "good.npz")
    state = content.tree
    for key, value in changes.items():
        state[f"s4_layers.0.slots.{key}"] = value
    return state, content.extras


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"count": np.array([4, -1, 6, 1, 2], np.int32)}, "count does not split the 12 slots"),
        ({"count": np.array([3, 0, 6, 1, 1], np.int32)}, "count does not split the 12 slots"),
        ({"count": np.array([2**62, 2**62, 2**62, 2**62, 12])}, "count does not split the 12 slots"),
        ({"count": np.array([3, 0, 6, 1, 2], np.float32)}, "count holds float32, expected integers"),
        ({"count": np.array([3, 0, 6, 3], np.int32)}, "count has shape (4,), expected (5,)"),
        ({"count": np.zeros((5, 1), np.int32)}, "count has shape (5, 1), expected (5,)"),
        ({"nu_log": np.zeros(12, np.int32)}, "nu_log holds int32, expected floating-point numbers"),
        ({"nu_log": np.zeros((12, 1), np.float32)}, "nu_log has shape (12, 1)"),
        ({"theta": np.zeros(11, np.float32)}, "theta has shape (11,), expected (12,)"),
        ({"theta": np.full(12, np.nan, np.float32)}, "theta has 12 entries that are not finite"),
        ({"residue": np.full((12, 2), np.inf, np.float32)}, "residue has 24 entries that are not finite"),
        ({"channel": np.zeros(12, np.int32)}, "unexpected: s4_layers.0.slots.channel"),
    ],
)
def test_damaged_slots_are_named(tmp_path, changes, words):
    state, extras = damaged(tmp_path, **changes)
    write_file(tmp_path / "bad.npz", state, None, extras)
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(tmp_path / "bad.npz")
    assert words in str(caught.value)
    assert "bad.npz" in str(caught.value)


@pytest.mark.parametrize("key", ["count", "nu_log", "theta", "residue"])
def test_missing_slots_are_named(tmp_path, key):
    state, extras = damaged(tmp_path)
    del state[f"s4_layers.1.slots.{key}"]
    write_file(tmp_path / "bad.npz", state, None, extras)
    with pytest.raises(CheckpointError, match=f"missing: s4_layers.1.slots.{key}"):
        load_checkpoint(tmp_path / "bad.npz")


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (None, "'ragged_s4d' with version and prenorm is missing"),
        ([1], "is missing"),
        ({"version": 2, "prenorm": False}, "version 2 of the ragged S4D format is unknown"),
        ({"version": True, "prenorm": False}, "version True"),
        ({"version": 10**400, "prenorm": False}, "version"),
        ({"prenorm": False}, "version of type NoneType"),
        ({"version": 1}, "prenorm in the entry"),
        ({"version": 1, "prenorm": 1}, "prenorm in the entry"),
    ],
)
def test_a_wrong_entry_is_refused(tmp_path, entry, words):
    state, _ = damaged(tmp_path)
    write_file(tmp_path / "bad.npz", state, None, {} if entry is None else {ENTRY: entry})
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(tmp_path / "bad.npz")
    assert words in str(caught.value)
    assert "understood" not in str(caught.value)  # a check of ours, not the safety net


def test_padding_that_would_fill_the_memory_is_refused(tmp_path, monkeypatch):
    state, extras = damaged(tmp_path)
    write_file(tmp_path / "big.npz", state, None, extras)
    monkeypatch.setattr("lqo_mor.checkpoints.families.ragged.memory_bound", lambda size: 64 * WIDTH * 6 - 1)
    with pytest.raises(CheckpointError, match="too much memory"):
        load_checkpoint(tmp_path / "big.npz")


def test_python_objects_in_the_place_of_counts_are_refused(tmp_path):
    torch = pytest.importorskip("torch")
    state, extras = damaged(tmp_path)
    tensors = {key: torch.from_numpy(value) for key, value in state.items()}
    tensors["s4_layers.0.slots.count"] = Exception("not a tensor")
    torch.save({"model": tensors, **extras}, tmp_path / "bad.pt")
    with pytest.raises(CheckpointError):
        load_checkpoint(tmp_path / "bad.pt")


def test_prenorm_of_the_file_holds(tmp_path):
    ragged_model(tmp_path, prenorm=True).save(tmp_path / "r.npz", format="ragged")
    assert load_checkpoint(tmp_path / "r.npz", settings={"prenorm": True}).blocks[0].prenorm
    with pytest.raises(CheckpointError, match="prenorm = True, which cannot be overruled"):
        load_checkpoint(tmp_path / "r.npz", settings={"prenorm": False})


QUADRATIC = QuadraticOutput(*np.ones((2, WIDTH, 1, 1)), np.ones((WIDTH, 1, 1)))


@pytest.mark.parametrize(
    ("ssm", "words"),
    [
        (DiagonalLQOSystem(np.full((WIDTH, 1), 1.1), np.ones((WIDTH, 1, 1)), np.ones((WIDTH, 1, 1)), dt=1.0), "modulus 1.1"),
        (DiagonalLQOSystem(np.full((WIDTH, 1), 0.5), np.ones((WIDTH, 1, 1)), np.full((WIDTH, 1, 1), 1e39), dt=1.0), "overflow"),
        (
            DiagonalLQOSystem(
                np.full((WIDTH, 1), 0.5), np.ones((WIDTH, 1, 1)), np.ones((WIDTH, 1, 1)), None, M=QUADRATIC, dt=1.0
            ),
            "quadratic",
        ),
        (DiagonalLQOSystem([0.5], np.ones((1, WIDTH)), np.ones((WIDTH, 1)), dt=1.0), "structure"),
    ],
)
def test_what_the_format_cannot_store_is_refused(tmp_path, ssm, words):
    model = s4d_model(tmp_path)
    with pytest.raises(CheckpointError, match=words):
        with_systems(model, ssm, ssm).save(tmp_path / "x.npz", format="ragged")
    assert not (tmp_path / "x.npz").exists()


def test_formats_that_cannot_be_written(tmp_path):
    model = s4d_model(tmp_path)
    with pytest.raises(InvalidInputError, match="format s4d cannot be stored in the format lqo"):
        model.save(tmp_path / "x.npz", format="lqo")
    with pytest.raises(InvalidInputError, match=r"'mamba' is unknown, expected one of .*s4d, lqo, ragged"):
        model.save(tmp_path / "x.npz", format="mamba")
    with pytest.raises(OutputError, match="read from"):
        model.save(tmp_path / "s4d.npz", overwrite=True, format="ragged")


def test_a_slow_pole_is_pulled_inside(tmp_path):
    state, extras = damaged(tmp_path, nu_log=np.full(12, -60.0))
    write_file(tmp_path / "slow.npz", state, None, extras)
    model = load_checkpoint(tmp_path / "slow.npz")
    assert np.abs(model.blocks[0].ssm.poles).max() == pytest.approx(1 - 1e-12, abs=2e-16)
