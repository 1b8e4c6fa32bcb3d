"""Against the layer's own way to its kernel: exponentials of ``z k``, scaled as each version does it."""

import json
import warnings
from dataclasses import replace

import numpy as np
import pytest

from lqo_mor.analysis.differences import h2_error
from lqo_mor.analysis.door import norm_of
from lqo_mor.checkpoints.containers.files import read_file, write_file
from lqo_mor.checkpoints.families.in_class import keep_shared_poles
from lqo_mor.checkpoints.families.registry import FAMILIES
from lqo_mor.checkpoints.layered import recognises
from lqo_mor.checkpoints.load import load_checkpoint
from lqo_mor.compression.compress import compress
from lqo_mor.errors import AssumptionWarning, CheckpointError, InvalidInputError, LQOWarning, OrderError
from lqo_mor.network.blocks import Block
from lqo_mor.network.model import DeepSSM
from lqo_mor.reduction.refit import fit_outputs
from lqo_mor.systems.diagonal import DiagonalLQOSystem
from tests.checkpoints.s4d_states import with_systems

WIDTH, SLOTS, LENGTH = 3, 5, 64
PREFIX = "net.blocks.0.seq"
VERSIONS = ("softmax", "clip", "clip-no-scale", "exp", "exp-no-scale", "exp-re-im")


def dss_state(version, seed=0, channels=1, width=WIDTH, split=False, one_dt=False, bidirectional=False):
    rng = np.random.default_rng(seed)
    real, imag = -rng.uniform(0.2, 2, SLOTS), rng.uniform(0.1, 15, SLOTS)
    log_dt = rng.uniform(-3, -1.5, (width, 2) if split else width)
    if one_dt:
        log_dt[:] = log_dt[0]
    if version == "exp-re-im":
        Lambda = {"Lambda_log_neg_re": np.log(-real), "Lambda_log_im": np.log(imag)}
    elif version.startswith("exp"):
        Lambda = {"Lambda_log_neg_re": np.log(-real), "Lambda_im": imag}
    else:
        Lambda = {"Lambda": np.stack([real, imag], axis=-1)}
    kernel = Lambda | {"log_dt": log_dt, "W": rng.normal(size=(channels, width, SLOTS, 2))}
    D = rng.normal(size=(channels // 2 if bidirectional else channels, width))
    return {"D": D} | {f"kernel.{key}": value for key, value in kernel.items()}


def reciprocal(x, clamp=False):
    square = (x * x.conj()).real
    return x.conj() / (np.maximum(square, 1e-7) if clamp else square + 1e-7)


def dss_kernel(state, version, length=LENGTH, highest=1e-4):
    """(channels, H, length)."""
    if "kernel.Lambda" in state:
        Lambda = state["kernel.Lambda"] @ [1, 1j]
        if "clip" in version:
            Lambda = np.minimum(Lambda.real, highest) + 1j * Lambda.imag
    elif version == "exp-re-im":
        Lambda = -np.exp(state["kernel.Lambda_log_neg_re"]) + 1j * np.exp(state["kernel.Lambda_log_im"])
    else:
        Lambda = -np.exp(state["kernel.Lambda_log_neg_re"]) + 1j * state["kernel.Lambda_im"]
    W, dt = state["kernel.W"] @ [1, 1j], np.exp(state["kernel.log_dt"])
    if dt.ndim == 1:
        z = dt[:, np.newaxis] * Lambda
    else:
        z = dt[:, :1] * Lambda.real + 1j * dt[:, 1:] * Lambda.imag
    P = z[..., np.newaxis] * np.arange(length)
    if version == "softmax":
        grows = Lambda.real > 0
        P = P - (z * grows * (length - 1))[..., np.newaxis]
        falling = z * (1 - 2 * grows)
        W = W * (np.exp(falling) - 1) * reciprocal((np.exp(falling * length) - 1) * Lambda)
    elif "no-scale" not in version:
        W = W * (np.exp(z) - 1) * reciprocal(Lambda, clamp=True)
    return np.einsum("chn,hnl->chl", W, np.exp(P)).real


def write(path, layer, dtype=np.float64, prefix=PREFIX):
    other = {"head.weight": np.ones((2, 3), dtype)}
    tensors = {f"{prefix}.{key}": value.astype(dtype) for key, value in layer.items()}
    write_file(path, tensors | other, None, {})
    return path


def load(path, version=None, **settings):
    settings |= {} if version is None else {"version": version}
    if version == "softmax":
        settings.setdefault("max_kernel_length", LENGTH)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LQOWarning)
        return load_checkpoint(path, settings=settings)


def layer_of(path, prefix=PREFIX):
    """The tensors of the layer in a file, in double precision."""
    tree = read_file(path).tree
    return {key.removeprefix(prefix + "."): value.astype(float) for key, value in tree.items() if key.startswith(prefix)}


def kernel_of(ssm, steps=LENGTH):
    """Impulse responses (p, H, steps), without D, by powers of the poles."""
    powers = ssm.poles[..., np.newaxis] ** np.arange(steps)
    weights = np.where(ssm.is_real_pole, 1, 2)[:, np.newaxis] * ssm.C * ssm.B[:, np.newaxis, :, 0]
    return np.einsum("hps,hsk->phk", weights, powers).real


def close(a, b, digits):
    np.testing.assert_allclose(a, b, rtol=0, atol=digits * np.max(np.abs(b)))


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("split", [True, False])
def test_kernel_is_that_of_the_class(tmp_path, version, split):
    state = dss_state(version, split=split, channels=2)
    model = load(write(tmp_path / "m.npz", state), version)
    ssm = model.blocks[0].ssm
    assert (model.source.format, model.blocks[0].name, ssm.batch, ssm.n_slots) == ("dss", PREFIX, (WIDTH,), SLOTS)
    close(kernel_of(ssm), dss_kernel(state, version), 1e-10)
    np.testing.assert_array_equal(ssm.D[:, :, 0].T, state["D"])


def test_real_poles_count_once(tmp_path):
    """Positive and negative, in single precision, with residues that have an imaginary part where it has no effect."""
    state = dss_state("exp")
    state["kernel.Lambda_im"][:2] = 0, np.pi / np.exp(state["kernel.log_dt"][0])
    state["kernel.W"][:, 0, 1, 1] = 0  # W (e^z - 1)/Lambda of a negative pole is not real for a real W
    path = write(tmp_path / "m.npz", state, np.float32)
    model = load(path, "exp-no-scale")
    ssm = model.blocks[0].ssm
    assert np.all(ssm.is_real_pole[:, 0])
    assert ssm.is_real_pole[0, 1]
    close(kernel_of(ssm), dss_kernel(state, "exp-no-scale"), 5e-6)
    with_systems(model, replace(ssm, D=2 * ssm.D)).save(tmp_path / "again.npz")
    again = layer_of(tmp_path / "again.npz")
    np.testing.assert_array_equal(again["kernel.Lambda_im"], layer_of(path)["kernel.Lambda_im"])
    close(dss_kernel(again, "exp-no-scale"), dss_kernel(state, "exp-no-scale"), 5e-6)


@pytest.mark.parametrize("version", ["softmax", "clip"])
def test_growing_modes(tmp_path, version):
    state = dss_state(version)
    state["kernel.Lambda"][1, 0] = 0.5
    model = load(write(tmp_path / "m.npz", state), version, **({"max_real_Lambda": 0.1} if version == "clip" else {}))
    ssm = model.blocks[0].ssm
    assert np.max(np.abs(ssm.poles)) > 1
    close(kernel_of(ssm), dss_kernel(state, version, highest=0.1), 1e-10)
    small = compress(model, state_size=4).model
    assert np.max(np.abs(small.blocks[0].ssm.poles)) == pytest.approx(np.max(np.abs(ssm.poles)), rel=1e-12)
    small = keep_shared_poles(model, 3, horizon=LENGTH)
    small.save(tmp_path / "small.npz")
    close(dss_kernel(layer_of(tmp_path / "small.npz"), version, highest=0.1), kernel_of(small.blocks[0].ssm), 1e-10)


def test_softmax_depends_on_the_length(tmp_path):
    path = write(tmp_path / "m.npz", dss_state("softmax"))
    with pytest.raises(CheckpointError, match="max_kernel_length"):
        load_checkpoint(path)
    for length in (16, 64):
        with pytest.warns(LQOWarning, match=f"max_kernel_length = {length}"):
            model = load_checkpoint(path, settings={"version": "softmax", "max_kernel_length": length})
        close(kernel_of(model.blocks[0].ssm, length), dss_kernel(dss_state("softmax"), "softmax", length), 1e-10)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_shared_poles_load_into_the_class(tmp_path, version, suffix):
    pytest.importorskip("torch" if suffix == "pth" else "safetensors")
    state = dss_state(version, 1, channels=2, split=True)
    model = load(write(tmp_path / f"m.{suffix}", state, np.float32, f"module.{PREFIX}"), version)
    small = keep_shared_poles(model, 3)
    small.save(tmp_path / f"small.{suffix}")
    again = layer_of(tmp_path / f"small.{suffix}", f"module.{PREFIX}")
    shapes = {key: tuple(3 if n == SLOTS else n for n in value.shape) for key, value in state.items()}
    assert {key: value.shape for key, value in again.items()} == shapes
    assert np.all(np.isin(again["kernel.log_dt"], state["kernel.log_dt"].astype(np.float32)))
    close(dss_kernel(again, version), kernel_of(small.blocks[0].ssm), 5e-6)
    assert small.layer_parameters[0] == sum(value.size for value in again.values())
    read = load(tmp_path / f"small.{suffix}")  # its settings are in the file beside it
    assert read.source.settings == model.source.settings
    np.testing.assert_array_equal(read.blocks[0].ssm.poles, small.blocks[0].ssm.poles)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("width", [1, 3])
def test_new_poles_where_all_heads_have_one_step(tmp_path, version, width):
    model = load(write(tmp_path / "m.npz", dss_state(version, 2, width=width, one_dt=True, split=True)), version)
    poles = np.broadcast_to(np.array([0.8 * np.exp(0.4j), 0.6 * np.exp(-2j), 0.9, -0.7, 0.0]), (width, 5))
    C = np.random.default_rng(0).normal(size=(2, width, 1, 5)).T @ np.array([1, 1j])
    C = np.where(poles.imag.T[:, np.newaxis] == 0, C.real, C).T
    changed = with_systems(model, DiagonalLQOSystem(poles, np.ones((width, 5, 1)), C, model.blocks[0].ssm.D, dt=1.0))
    changed.save(tmp_path / "small.npz")
    again = layer_of(tmp_path / "small.npz")
    expected = kernel_of(changed.blocks[0].ssm)
    expected[:, :, 0] += changed.blocks[0].ssm.D[:, :, 0].T
    found = dss_kernel(again, version)
    found[:, :, 0] += again["D"]
    close(found, expected, 1e-9)
    read = load(tmp_path / "small.npz").blocks[0].ssm
    assert np.all(np.sum(read.is_real_pole[:, :4], axis=1) == 2)


def test_both_directions(tmp_path):
    state = dss_state("exp", 3, channels=2, bidirectional=True)
    model = load(write(tmp_path / "m.npz", state), "exp")
    block = model.blocks[0]
    assert block.backward == 1
    close(kernel_of(block.ssm), dss_kernel(state, "exp"), 1e-10)
    small = keep_shared_poles(model, 2)
    small.save(tmp_path / "small.npz")
    close(dss_kernel(layer_of(tmp_path / "small.npz"), "exp"), kernel_of(small.blocks[0].ssm), 1e-10)


def test_heads_with_poles_of_their_own_are_refused(tmp_path):
    model = load(write(tmp_path / "m.npz", dss_state("exp", 4)), "exp")
    small = compress(model, state_size=4).model
    assert small.layer_parameters[0] > 0
    with pytest.raises(CheckpointError, match="keep_shared_poles"):
        small.save(tmp_path / "x.npz")
    assert not (tmp_path / "x.npz").exists()
    small.save(tmp_path / "native.npz", format="native")
    close(kernel_of(load(tmp_path / "native.npz").blocks[0].ssm), kernel_of(small.blocks[0].ssm), 1e-12)


def test_kept_poles_are_the_best_of_their_number():
    """Every head has the h2 projection, and for one slot less than all the choice is the best of all."""
    rng = np.random.default_rng(5)
    z = np.exp(rng.uniform(-3, -1, (4, 1))) * (-rng.uniform(0.2, 2, 6) + 1j * rng.uniform(0, 15, 6))
    z[:, 0] = z[:, 0].real
    C = rng.normal(size=(4, 2, 6)) + 1j * rng.normal(size=(4, 2, 6))
    C[..., 0] = C[..., 0].real
    ssm = DiagonalLQOSystem(np.exp(z), np.ones((4, 6, 1)), C, dt=1.0)
    model = DeepSSM(None, (Block("layer", ssm, residual=False),), None)

    def error(slots):
        reduced = fit_outputs(ssm, ssm.poles[:, slots], ssm.B[:, slots], norm_of(ssm))
        return np.sum(h2_error(ssm, reduced) ** 2)

    for count, slack in ((1, 1.0), (3, 1.5), (5, 1.5)):
        small = keep_shared_poles(model, count).blocks[0].ssm
        errors = [error([i for i in range(6) if mask >> i & 1]) for mask in range(64) if mask.bit_count() == count]
        found = np.sum(h2_error(ssm, small) ** 2)
        assert found <= slack * min(errors) * (1 + 1e-9)
        assert found < np.median(errors)
    # The projection of each head: no change of its outputs lowers the error.
    base = h2_error(ssm, small)
    for change in (1e-3, -1e-3):
        assert np.all(h2_error(ssm, replace(small, C=small.C * (1 + change))) > base)


def test_silent_slots_are_kept_last():
    C = np.zeros((2, 1, 4))
    C[..., 0] = 1.0
    ssm = DiagonalLQOSystem(np.exp([[-0.1 + 1j, -0.2 + 2j, -0.3 + 3j, -0.4 + 4j]] * 2), np.ones((2, 4, 1)), C, dt=1.0)
    small = keep_shared_poles(DeepSSM(None, (Block("layer", ssm, residual=False),), None), 3).blocks[0].ssm
    assert len(set(small.poles[0])) == 3
    assert ssm.poles[0, 0] in small.poles[0]
    close(kernel_of(small), kernel_of(ssm), 1e-12)


def test_what_keep_shared_poles_refuses(tmp_path):
    model = load(write(tmp_path / "m.npz", dss_state("exp")), "exp")
    for slots in (0, -1, 2.0, True):
        with pytest.raises(OrderError, match="positive integer"):
            keep_shared_poles(model, slots)
    assert keep_shared_poles(model, SLOTS).blocks[0].ssm is model.blocks[0].ssm
    single = DeepSSM(None, (Block("one", DiagonalLQOSystem([0.5], [[1.0]], [[1.0]], dt=1.0)),), None)
    with pytest.raises(InvalidInputError, match="one is no batch"):
        keep_shared_poles(single, 1)


@pytest.mark.parametrize(
    ("version", "change", "words"),
    [
        ("exp", lambda s: s.pop("kernel.log_dt"), "missing: kernel.log_dt"),
        ("exp", lambda s: s.pop("kernel.Lambda_im"), "missing: kernel.Lambda_im"),
        ("exp", lambda s: s.pop("D"), "missing: D"),
        ("exp", lambda s: s.pop("kernel.W"), "missing: kernel.W"),
        ("clip", lambda s: s.pop("kernel.Lambda"), "missing: kernel.Lambda"),
        ("exp", lambda s: s.update({"kernel.Lambda_im": np.ones(4)}), "kernel.Lambda_im has shape (4,), expected (5,)"),
        ("exp", lambda s: s.update({"kernel.W": np.ones((3, 3, 5, 2))}), "W has 3 channels"),
        ("exp", lambda s: s["kernel.W"].__setitem__(0, np.nan), "kernel.W has 30 entries that are not finite"),
        ("exp", lambda s: s.update({"kernel.log_dt": np.full(3, 800.0)}), "not finite"),
        ("exp-re-im", lambda s: s.update({"kernel.Lambda_im": np.ones(5)}), "unexpected: kernel.Lambda_im"),
    ],
)
def test_damaged_layers_are_named(tmp_path, version, change, words):
    state = dss_state(version)
    change(state)
    with pytest.raises(CheckpointError) as caught:
        load(write(tmp_path / "bad.npz", state), version)
    assert words in str(caught.value)


@pytest.mark.parametrize("version", VERSIONS)
def test_no_other_family_takes_a_complete_layer(version):
    keys = {f"{PREFIX}.{key}" for key in dss_state(version)}
    assert [family.name for family in FAMILIES if recognises(family, keys)] == ["dss"]


def test_growth_beyond_double_precision(tmp_path):
    state = dss_state("softmax")
    state["kernel.Lambda"][0, 0] = 100.0
    with pytest.raises(CheckpointError, match="double precision"):
        load(write(tmp_path / "m.npz", state), "softmax", max_kernel_length=4096)


def test_settings(tmp_path):
    path = write(tmp_path / "m.npz", dss_state("clip"))
    with pytest.raises(CheckpointError, match="version = 'exp' is none of softmax, clip, clip-no-scale"):
        load(path, "exp")
    for settings in ({"max_kernel_length": 0}, {"max_real_Lambda": "high"}):
        with pytest.raises(CheckpointError, match=next(iter(settings))):
            load(path, "clip", **settings)
    with pytest.warns(AssumptionWarning, match="max_real_Lambda=0.0001"):
        model = load_checkpoint(path, settings={"version": "clip"})
    keep_shared_poles(model, 2).save(tmp_path / "small.npz")
    wanted = {"version": "clip", "max_kernel_length": None, "max_real_Lambda": 1e-4}
    assert json.loads((tmp_path / "small.npz.json").read_text())["settings"] == wanted
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_checkpoint(tmp_path / "small.npz").source.settings == wanted
    only = write(tmp_path / "only.npz", dss_state("exp-re-im"))
    with pytest.warns(AssumptionWarning) as caught:
        load_checkpoint(only)
    assert "version" not in str(caught[0].message)
