"""Native layers: the map against a recursion written from the page, conversions through files, and what is refused."""

import json
from dataclasses import replace

import numpy as np
import pytest

from lqo_mor.checkpoints.containers.files import read_file, write_file
from lqo_mor.checkpoints.families.registry import FAMILIES
from lqo_mor.checkpoints.layered import recognises
from lqo_mor.checkpoints.load import load_checkpoint
from lqo_mor.compression.compress import compress
from lqo_mor.errors import CheckpointError, UnstableSystemError
from lqo_mor.network.layers import Linear
from lqo_mor.systems.diagonal import DiagonalLQOSystem
from lqo_mor.systems.quadratic import QuadraticOutput
from tests.checkpoints.s4d_states import awkward_channels, s4d_state, with_systems

PREFIX = "module.net.blocks.0.seq"
PI32 = np.float32(np.pi)


def responses(tensors, u):
    """Outputs of native tensors for an input (steps, features), by a recursion over the real states of each slot.

    A pair has two real states and the matrix ``|λ| [[cos, -sin], [sin, cos]]``; (steps, H, p) for a batch, otherwise (steps, p).
    """
    t = {name: np.asarray(value, float) for name, value in tensors.items()}
    if t["lqo.log_modulus"].ndim == 2:
        outputs = []
        for h in range(len(t["lqo.log_modulus"])):
            one = {name: value[h] for name, value in t.items() if name != "lqo.backward"}
            n = one["lqo.theta"].size
            one |= {"lqo.B": np.stack([np.ones(n), np.zeros(n)], -1)[:, np.newaxis], "lqo.C": one.pop("lqo.residue")}
            outputs.append(responses(one | {"lqo.D": one["lqo.D"][:, np.newaxis]}, u[:, h : h + 1]))
        return np.stack(outputs, axis=1)
    modulus, theta = np.exp(t["lqo.log_modulus"]), t["lqo.theta"]
    real = (theta == 0) | (abs(theta) == np.pi) | (abs(theta) == PI32)
    cosine, sine = np.where(real, np.where(theta == 0, 1, -1), np.cos(theta)), np.where(real, 0, np.sin(theta))
    count, a, b, rows = np.where(real, 1, 2), np.zeros(theta.size), np.zeros(theta.size), []
    for uk in u:
        a, b = modulus * (cosine * a - sine * b), modulus * (sine * a + cosine * b)
        a, b = a + t["lqo.B"][..., 0] @ uk, b + t["lqo.B"][..., 1] @ uk

        def out(name, a=a, b=b):
            return (t[name][..., 0] * a - t[name][..., 1] * b) @ count

        y = out("lqo.C") + t["lqo.D"] @ uk
        rows.append(y + t["lqo.W"] @ (out("lqo.U") * out("lqo.V")) if "lqo.W" in t else y)
    return np.array(rows)


def batch_tensors(seed=0, width=3, slots=4, outputs=2, dtype=np.float64, quadratic=False):
    """Random channels with a positive and a negative real pole, and a silent slot."""
    rng = np.random.default_rng(seed)
    theta = rng.uniform(-3, 3, (width, slots))
    theta[0, 0], theta[1, 1] = 0, np.pi
    residue = rng.normal(size=(width, outputs, slots, 2))
    residue[0, :, 0, 1] = residue[1, :, 1, 1] = residue[2, :, 3] = 0
    tensors = {
        "lqo.log_modulus": -rng.uniform(1e-3, 1, (width, slots)),
        "lqo.theta": theta,
        "lqo.residue": residue,
        "lqo.D": rng.normal(size=(width, outputs)),
    }
    if quadratic:
        U, V = rng.normal(size=(2, width, 3, slots, 2))
        for rows in (U, V):
            rows[0, :, 0, 1] = rows[1, :, 1, 1] = rows[2, :, 3] = 0
        tensors |= {"lqo.U": U, "lqo.V": V, "lqo.W": rng.normal(size=(width, outputs, 3))}
    return {name: value.astype(dtype) for name, value in tensors.items()}


def single_tensors(seed=0, slots=5, inputs=3, outputs=2, rank=2, dtype=np.float64):
    rng = np.random.default_rng(seed)
    theta = rng.uniform(-3, 3, slots)
    theta[:3] = 0, np.pi, -np.pi
    shapes = {"B": (slots, inputs, 2), "C": (outputs, slots, 2), "U": (rank, slots, 2), "V": (rank, slots, 2)}
    rows = {name: rng.normal(size=shape) for name, shape in shapes.items()}
    rows["B"][:3, :, 1] = 0
    for name in "CUV":
        rows[name][:, :3, 1] = 0
    weights = {"D": rng.normal(size=(outputs, inputs)), "W": rng.normal(size=(outputs, rank))}
    poles = {"log_modulus": -rng.uniform(1e-3, 1, slots), "theta": theta}
    return {f"lqo.{name}": value.astype(dtype) for name, value in (poles | rows | weights).items()}


def stored(path, tensors, prefix=PREFIX):
    """A file with native tensors and others beside them."""
    others = {"module.head.weight": np.ones((2, 2)), f"{prefix}.dropout": np.zeros(1)}
    write_file(path, {f"{prefix}.{name}": value for name, value in tensors.items()} | others, None, {})
    return load_checkpoint(path)


def inside(path, prefix=PREFIX):
    return {key.removeprefix(f"{prefix}."): v for key, v in read_file(path).tree.items() if key.startswith(f"{prefix}.lqo.")}


def system_responses(ssm, u):
    """The system by its definition, 2 Re for pairs, with complex numbers; as `responses`."""
    if ssm.batch:
        return np.stack([system_responses(ssm[h], u[:, h : h + 1]) for h in range(ssm.batch[0])], axis=1)
    count, x, rows = np.where(ssm.poles.imag == 0, 1, 2), np.zeros(ssm.n_slots, complex), []
    for uk in u:
        x = ssm.poles * x + ssm.B @ uk
        y, q = (ssm.C @ (count * x)).real + ssm.D @ uk, ssm.M
        rows.append(y if q is None else y + q.W @ ((q.U @ (count * x)).real * (q.V @ (count * x)).real))
    return np.array(rows)


INPUT = np.random.default_rng(9).normal(size=(64, 3))


def close(a, b, tolerance):
    assert np.abs(a - b).max() <= tolerance * np.abs(b).max()


@pytest.mark.parametrize(
    "tensors",
    [batch_tensors(), batch_tensors(quadratic=True), batch_tensors(outputs=1), single_tensors(), single_tensors(rank=0)],
)
def test_the_map_is_that_of_the_page(tmp_path, tensors):
    if tensors.get("lqo.W", np.ones(1)).size == 0:
        tensors = {name: value for name, value in tensors.items() if name[-1] not in "UVW"}
    model = stored(tmp_path / "m.npz", tensors)
    assert model.source.format == "native" and model.blocks[0].name == "net.blocks.0.seq"
    close(system_responses(model.blocks[0].ssm, INPUT), responses(tensors, INPUT), 1e-12)


@pytest.mark.parametrize("suffix", [".npz", ".safetensors", ".pth"])
@pytest.mark.parametrize("backward", [None, 0, 1])
def test_reduced_batches_come_back(tmp_path, suffix, backward):
    if suffix == ".pth":
        pytest.importorskip("torch")
    tensors = batch_tensors(dtype=np.float32) | ({} if backward is None else {"lqo.backward": np.array([backward], np.int32)})
    model = stored(tmp_path / f"m{suffix}", tensors)
    assert model.blocks[0].backward == backward
    small = compress(model, state_size=4, method="balanced").model
    small.save(tmp_path / f"s{suffix}")
    written = inside(tmp_path / f"s{suffix}")
    assert written["lqo.residue"].shape == (3, 2, 2, 2) and written["lqo.residue"].dtype == np.float32
    assert small.n_parameters == sum(v.size for v in written.values() if v.dtype.kind == "f") + 5
    close(responses(written, INPUT), system_responses(small.blocks[0].ssm, INPUT), 2e-6)
    again = load_checkpoint(tmp_path / f"s{suffix}")
    assert again.blocks[0].backward == backward
    close(system_responses(again.blocks[0].ssm, INPUT), system_responses(small.blocks[0].ssm, INPUT), 2e-6)
    assert np.array_equal(read_file(tmp_path / f"s{suffix}").tree["module.head.weight"], np.ones((2, 2)))


def test_reduced_systems_come_back(tmp_path):
    model = stored(tmp_path / "m.npz", single_tensors(dtype=np.float32))
    small = compress(model, state_size=6, method="balanced").model
    small.save(tmp_path / "s.npz")
    close(responses(inside(tmp_path / "s.npz"), INPUT), system_responses(small.blocks[0].ssm, INPUT), 5e-6)
    linear = with_systems(model, replace(small.blocks[0].ssm, M=None))
    linear.save(tmp_path / "linear.npz")
    assert "lqo.W" not in inside(tmp_path / "linear.npz")
    close(responses(inside(tmp_path / "linear.npz"), INPUT), system_responses(linear.blocks[0].ssm, INPUT), 5e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_all_kinds_of_poles(tmp_path, dtype):
    """At zero, unstable, on the circle, very slow, and pairs whose angle rounds to that of a real pole."""
    poles = [0.0, 1.05, -1.02, 1.0, 1 - 1e-7, 0.9 * np.exp(1j * (np.pi - 1e-9)), 0.8 * np.exp(-1j * (np.pi - 1e-9)), 0.7 + 1e-60j]
    poles = np.array([poles, [0.5 * np.exp(1j)] * 8, [1.01 * np.exp(2j)] * 8])
    rng = np.random.default_rng(0)
    C = rng.normal(size=(3, 2, 8)) + 1j * rng.normal(size=(3, 2, 8))
    ssm = DiagonalLQOSystem(poles, np.ones((3, 8, 1)), np.where(poles.imag[:, np.newaxis] == 0, C.real, C), dt=1.0)
    model = stored(tmp_path / "m.npz", batch_tensors(dtype=dtype))
    with_systems(model, ssm).save(tmp_path / "s.npz")
    again = load_checkpoint(tmp_path / "s.npz")
    assert np.array_equal(again.blocks[0].ssm.is_real_pole, ssm.is_real_pole)
    expected = system_responses(ssm, INPUT)
    close(system_responses(again.blocks[0].ssm, INPUT), expected, 2e-5 if dtype == np.float32 else 1e-12)
    close(responses(inside(tmp_path / "s.npz"), INPUT), expected, 2e-5 if dtype == np.float32 else 1e-12)
    rate = -np.log(np.abs(again.blocks[0].ssm.poles[0, 4]))
    assert rate == pytest.approx(1e-7, rel=1e-6)
    with pytest.raises(UnstableSystemError):
        compress(again, state_size=4, method="balanced")
    small = compress(again, state_size=4, method="balanced", horizon=64).model
    assert np.all(np.max(np.abs(small.blocks[0].ssm.poles[[0, 2]]), axis=-1) > 1)


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_layers_of_another_format_become_native(tmp_path, suffix):
    state = {f"module.net.{key}": value for key, value in s4d_state().items() if ".kernel." in key or key.endswith(".D")}
    state |= {"module.mix.weight": np.ones((3, 3), np.float32)}
    write_file(tmp_path / f"m{suffix}", state, None, {})
    model = load_checkpoint(tmp_path / f"m{suffix}")
    assert model.source.format == "s4d-layers"
    small = with_systems(model, awkward_channels(1, 3, 3, model.blocks[0].ssm.D), model.blocks[1].ssm)
    small.save(tmp_path / f"s{suffix}", format="native")
    tree = read_file(tmp_path / f"s{suffix}").tree
    assert not any(".kernel." in key for key in tree)
    assert tree["module.net.s4_layers.0.lqo.theta"].shape == (3, 3) and tree["module.net.s4_layers.1.lqo.theta"].shape == (3, 4)
    assert np.array_equal(tree["module.mix.weight"], np.ones((3, 3)))
    again = load_checkpoint(tmp_path / f"s{suffix}")
    assert again.source.format == "native"
    for a, b in zip(again.blocks, small.blocks, strict=True):
        close(system_responses(a.ssm, INPUT), system_responses(b.ssm, INPUT), 2e-6)
    numbers = sum(value.size for key, value in tree.items() if ".lqo." in key)
    assert sum(small.source.layer_parameters(small, "native")) == sum(again.layer_parameters) == numbers
    again.save(tmp_path / f"again{suffix}")  # bit by bit
    assert all(np.array_equal(value, tree[key]) for key, value in read_file(tmp_path / f"again{suffix}").tree.items())


def test_a_single_system_becomes_native(tmp_path):
    """An LRU layer, whose class has a diagonal feedthrough; after the reduction its own is full."""
    rng = np.random.default_rng(0)
    shapes = {"nu_log": (5,), "theta_log": (5,), "gamma_log": (5,), "D": (3,)}
    shapes |= {"B_re": (5, 3), "B_im": (5, 3), "C_re": (3, 5), "C_im": (3, 5)}
    state = {f"a.lru.{name}": 0.5 * rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    write_file(tmp_path / "m.npz", state, None, {})
    model = load_checkpoint(tmp_path / "m.npz")
    old = compress(model, state_size=6, method="balanced").model.blocks[0].ssm
    full = with_systems(model, replace(old, D=rng.normal(size=(3, 3))))
    with pytest.raises(CheckpointError, match="native"):
        full.save(tmp_path / "bad.npz")
    full.save(tmp_path / "s.npz", format="native")
    assert inside(tmp_path / "s.npz", "a.lru")["lqo.B"].shape == (3, 3, 2)
    close(responses(inside(tmp_path / "s.npz", "a.lru"), INPUT), system_responses(full.blocks[0].ssm, INPUT), 2e-6)


def test_what_the_class_cannot_hold_is_stored(tmp_path):
    """A quadratic output and an unstable pole, which S4D layers refuse."""
    state = {f"a.{key}": value for key, value in s4d_state(layers=1).items() if ".kernel." in key or key.endswith(".D")}
    write_file(tmp_path / "m.npz", state, None, {})
    model = load_checkpoint(tmp_path / "m.npz")
    old = model.blocks[0].ssm
    poles = np.array(old.poles)
    poles[0, 0] = 1.01
    C = np.array(old.C)
    C[0, 0, 0] = C[0, 0, 0].real
    rows = np.ones((3, 2, 4))
    bad = DiagonalLQOSystem(poles, old.B, C, old.D, QuadraticOutput(rows, 2 * rows, np.ones((3, 1, 2))), dt=1.0)
    with pytest.raises(CheckpointError):
        with_systems(model, bad).save(tmp_path / "bad.npz")
    with_systems(model, bad).save(tmp_path / "s.npz", format="native")
    again = load_checkpoint(tmp_path / "s.npz").blocks[0].ssm
    close(system_responses(again, INPUT), system_responses(bad, INPUT), 5e-6)


def test_the_s4d_example_with_its_structure(tmp_path):
    write_file(tmp_path / "m.npz", s4d_state(), None, {"epoch": 3})
    model = load_checkpoint(tmp_path / "m.npz", settings={"prenorm": True})
    small = compress(model, state_size=4, method="balanced").model
    small.save(tmp_path / "s.npz", format="native")
    again = load_checkpoint(tmp_path / "s.npz")
    for a, b in zip(again.blocks, small.blocks, strict=True):
        close(system_responses(a.ssm, INPUT), system_responses(b.ssm, INPUT), 2e-6)
    assert read_file(tmp_path / "s.npz").extras == {"epoch": 3}
    outer = [key for key in s4d_state() if ".kernel." not in key and not key.endswith(".D")]
    assert all(np.array_equal(read_file(tmp_path / "s.npz").tree[key], s4d_state()[key]) for key in outer)
    settings = json.loads((tmp_path / "s.npz.json").read_text())["settings"]
    assert settings == {"prenorm": True, "activation": "gelu", "pooling": "mean"}
    u = np.random.default_rng(0).normal(size=(2, 30, 2))
    close(again(u), small(u), 1e-5)
    mixed = replace(small.blocks[0], mixing=Linear(2 * small.blocks[0].mixing.weight, small.blocks[0].mixing.bias))
    changed = replace(small, blocks=(mixed, small.blocks[1]))
    changed.save(tmp_path / "c.npz", format="native")
    close(load_checkpoint(tmp_path / "c.npz")(u), changed(u), 1e-5)


def damaged(change, tensors):
    change(tensors)
    return tensors


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.pop("lqo.theta"), "missing: lqo.theta"),
        (lambda t: t.pop("lqo.residue"), "missing: lqo.residue"),
        (lambda t: t.update({"lqo.B": np.ones((4, 3, 2))}), "unexpected: lqo.B"),
        (lambda t: t.update({"lqo.D": np.ones(3)}), "lqo.D has shape (3,), expected (3, 2)"),
        (lambda t: t.update({"lqo.residue": np.ones((3, 2, 4))}), "lqo.residue has shape (3, 2, 4)"),
        (lambda t: t.update({"lqo.theta": np.full((3, 4), np.nan)}), "lqo.theta has 12 entries that are not finite"),
        (lambda t: t.update({"lqo.log_modulus": np.full((3, 4), 800.0)}), "lqo.log_modulus has an entry 800"),
        (lambda t: t.update({"lqo.theta": np.zeros((3, 4))}), "lqo.residue is complex at a slot"),
        (lambda t: t.update({"lqo.backward": np.array([2])}), "lqo.backward is 2"),
        (lambda t: t.update({"lqo.backward": np.array([1.0])}), "expected integers"),
        (lambda t: t.update({"lqo.U": np.ones((3, 1, 4, 2))}), "missing: lqo.V, lqo.W"),
    ],
)
def test_damaged_tensors_are_named(tmp_path, change, words):
    with pytest.raises(CheckpointError) as caught:
        stored(tmp_path / "bad.npz", damaged(change, batch_tensors()))
    assert words in str(caught.value)
    assert "bad.npz" in str(caught.value)


def test_backward_needs_an_even_number_of_outputs(tmp_path):
    with pytest.raises(CheckpointError, match="even number"):
        stored(tmp_path / "m.npz", batch_tensors(outputs=1) | {"lqo.backward": np.array([1])})


def test_unknown_settings_and_overflows_are_refused(tmp_path):
    model = stored(tmp_path / "m.npz", batch_tensors(dtype=np.float32))
    with pytest.raises(CheckpointError, match="no setting discretization"):
        load_checkpoint(tmp_path / "m.npz", settings={"discretization": "zoh"})
    big = replace(model.blocks[0].ssm, D=np.full((3, 2, 1), 1e39))
    with pytest.raises(CheckpointError, match=r"lqo\.D cannot be stored"):
        with_systems(model, big).save(tmp_path / "s.npz")


def test_only_native_layers_are_recognised_as_such():
    keys = [f"a.{name}" for name in batch_tensors()]
    assert [family.name for family in FAMILIES if recognises(family, keys)] == ["native"]
