"""Against the layers' own way to their kernels: Cauchy products at the roots of unity, Woodbury's identity, an inverse FFT."""

import json
import warnings

import numpy as np
import pytest

from lqo_mor.checkpoints.containers.files import read_file, write_file
from lqo_mor.checkpoints.families.registry import FAMILIES
from lqo_mor.checkpoints.layered import recognises
from lqo_mor.checkpoints.load import load_checkpoint
from lqo_mor.compression.compress import compress
from lqo_mor.errors import AccuracyWarning, AssumptionWarning, CheckpointError, UnstableSystemError
from lqo_mor.systems.batches import used_order
from lqo_mor.systems.diagonal import DiagonalLQOSystem
from tests.checkpoints.s4d_states import with_systems

WIDTH, SLOTS, LENGTH = 3, 4, 64
PREFIX = "net.blocks.0.seq"
DEFAULTS = {"dt_transform": "softplus", "dt_fast": False, "real_transform": "exp", "imag_transform": "none"}
DEFAULTS |= {"bandlimit": None, "l_max": None}


def complex_of(state, name):
    return state[name] @ np.array([1, 1j])


def discrete(w, P, Q, B, dt):
    """The doubled discrete system (2n, 2n), (2n) of one head."""
    double = np.concatenate
    P, Q = double([P, P.conj()], axis=1), double([Q, Q.conj()], axis=1)
    A = np.diag(double([w, w.conj()])) - P.T @ Q
    dt = np.diag(np.tile(dt, 2 * w.size // np.size(dt)))
    left = np.eye(2 * w.size) - dt @ A / 2
    return np.linalg.solve(left, np.eye(2 * w.size) + dt @ A / 2), np.linalg.solve(left, dt @ double([B, B.conj()]))


def tilde(w, P, Q, B, C, dt, length):
    """C~ of every head and channel for a length, (p, H, n)."""
    out = np.zeros(C.shape, complex)
    for h in range(C.shape[1]):
        row = h % len(w)
        A, _ = discrete(w[row], P[:, row], Q[:, row], B[row], dt[h])
        full = np.concatenate([C[:, h], C[:, h].conj()], axis=1)
        out[:, h] = (full - full @ np.linalg.matrix_power(A, length))[:, : C.shape[2]]
    return out


def class_kernel(w, P, Q, B, C, dt, length):
    """What the classes compute from C~, (p, H, length)."""
    H, rank = C.shape[1], len(P)
    rows = np.arange(H) % len(w)
    w, B, P, Q = w[rows] * dt, B[rows], P[:, rows], Q[:, rows]
    omega = np.exp(-2j * np.pi * np.arange(length // 2 + 1) / length)
    z = 2 * (1 - omega) / (1 + omega)
    left, right = np.concatenate([B[np.newaxis], P]), np.concatenate([C, Q])
    v = left[:, np.newaxis] * right[np.newaxis] * dt
    r = np.sum(
        v[..., np.newaxis] / (z - w[..., np.newaxis]) + v.conj()[..., np.newaxis] / (z - w.conj()[..., np.newaxis]), axis=-2
    )
    p = len(C)
    r00, r01, r10, r11 = r[:1, :p], r[:1, p:], r[1:, :p], r[1:, p:]
    inverse = np.linalg.inv(np.eye(rank) + np.moveaxis(r11, (0, 1), (2, 3)))
    k = r00 - np.einsum("ijhn,hnjk,klhn->ilhn", r01, inverse, r10)
    return np.fft.irfft((k * 2 / (1 + omega))[0], n=length)


def numbers(seed, sets=WIDTH, channels=1, rank=1, slots=SLOTS):
    rng = np.random.default_rng(seed)

    def normal(*shape):
        return rng.normal(size=shape) + 1j * rng.normal(size=shape)

    w = -rng.uniform(0.3, 1, (sets, slots)) - 1j * rng.uniform(0, 12, (sets, slots))
    dt = np.exp(rng.uniform(-3, -1.5, (WIDTH, 1)))
    return (
        w,
        normal(rank, sets, slots),
        normal(sets, slots),
        normal(channels, WIDTH, slots),
        dt,
        rng.normal(size=(channels, WIDTH)),
    )


def view(array):
    return np.stack([array.real, array.imag], axis=-1)


def softplus_inverse(y):
    return np.log(np.expm1(y))


def v4_state(seed=0, length=LENGTH, bidirectional=False, **sizes):
    w, P, B, C, dt, D = numbers(seed, **sizes)
    C = tilde(w, P, P.conj(), B, C, dt, length) if length else C
    return {
        "D": D[: len(D) // 2] if bidirectional else D,
        "kernel.C": view(C),
        "kernel.B": view(B)[np.newaxis],
        "kernel.P": view(P),
        "kernel.inv_dt": softplus_inverse(dt),
        "kernel.A_real": np.log(-w.real),
        "kernel.A_imag": -w.imag,
        "kernel.l_kernel": np.array(length),
    }


def v4_kernel(state, length=LENGTH):
    """The class of version 4 with softplus steps; raw C is made C~ at the first call."""
    w = -np.exp(state["kernel.A_real"]) - 1j * state["kernel.A_imag"]
    B, P, C = complex_of(state, "kernel.B")[0], complex_of(state, "kernel.P"), complex_of(state, "kernel.C")
    dt = np.log1p(np.exp(state["kernel.inv_dt"]))
    attuned = int(state["kernel.l_kernel"])
    C = C if attuned else tilde(w, P, P.conj(), B, C, dt, length)
    return class_kernel(w, P, P.conj(), B, C, dt, attuned or length)[..., :length]


def v3_state(seed=0, length=LENGTH, **sizes):
    state = v4_state(seed, length, **sizes)
    k = "kernel.kernel"
    return {"D": state["D"]} | {
        f"{k}.C": state["kernel.C"] * [1, -1],
        f"{k}.B": state["kernel.B"] * [1, -1],
        f"{k}.P": state["kernel.P"] * [1, -1],
        f"{k}.log_dt": np.log(np.log1p(np.exp(state["kernel.inv_dt"][:, 0]))),
        f"{k}.inv_w_real": state["kernel.A_real"],
        f"{k}.w_imag": state["kernel.A_imag"],
        f"{k}.L": state["kernel.l_kernel"],
    }


def v3_kernel(state, length=LENGTH):
    k = "kernel.kernel"
    w = -np.exp(state[f"{k}.inv_w_real"]) + 1j * state[f"{k}.w_imag"]
    B, P, C = complex_of(state, f"{k}.B")[0], complex_of(state, f"{k}.P"), complex_of(state, f"{k}.C")
    dt, attuned = np.exp(state[f"{k}.log_dt"])[:, np.newaxis], int(state[f"{k}.L"])
    C = C if attuned else tilde(w, P, P.conj(), B, C, dt, length)
    return class_kernel(w, P, P.conj(), B, C, dt, attuned or length)[..., :length]


def v2_state(seed=0, length=LENGTH, hurwitz=False, **sizes):
    w, P, B, C, dt, D = numbers(seed, **sizes)
    Q = P.conj() if hurwitz else P.conj() + 0.1 * numbers(seed + 1, **sizes)[1]
    omega = np.exp(-2j * np.pi * np.arange(length // 2 + 1) / length)
    matrix = {"log_w_real": np.log(-w.real), "w_imag": w.imag} if hurwitz else {"w": view(w), "Q": view(Q)}
    kernel = {
        "C": view(tilde(w, P, Q, B, C, dt, length)),
        "B": view(B)[np.newaxis],
        "P": view(P),
        "log_dt": np.log(dt[:, 0]),
        "omega": view(omega),
        "z": view(2 * (1 - omega) / (1 + omega)),
    }
    return {"D": D} | {f"kernel.kernel.{key}": value for key, value in (kernel | matrix).items()}


def v2_kernel(state, length=LENGTH):
    k = "kernel.kernel"
    B, P, C = complex_of(state, f"{k}.B")[0], complex_of(state, f"{k}.P"), complex_of(state, f"{k}.C")
    if f"{k}.w" in state:
        w, Q = complex_of(state, f"{k}.w"), complex_of(state, f"{k}.Q")
    else:
        w, Q = -np.exp(state[f"{k}.log_w_real"]) + 1j * state[f"{k}.w_imag"], P.conj()
    nodes = 2 * (len(state[f"{k}.omega"]) - 1)
    return class_kernel(w, P, Q, B, C, np.exp(state[f"{k}.log_dt"])[:, np.newaxis], nodes)[..., :length]


VERSIONS = {"s4-dplr": (v4_state, v4_kernel), "s4-dplr-v3": (v3_state, v3_kernel), "s4-dplr-v2": (v2_state, v2_kernel)}


def write(path, layer, dtype=np.float64, prefix=PREFIX):
    other = {"head.weight": np.ones((2, 3), dtype), "net.norm.bias": np.arange(3.0).astype(dtype)}
    cast = {key: value if value.dtype.kind == "i" else value.astype(dtype) for key, value in layer.items()}
    write_file(path, {f"{prefix}.{key}": value for key, value in cast.items()} | other, None, {})
    return path


def load(path, **settings):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AssumptionWarning)
        return load_checkpoint(path, settings=settings)


def layer_of(path):
    """The tensors of the layer in a file, in double precision."""
    tree = read_file(path).tree
    mine = {key.removeprefix(PREFIX + "."): value for key, value in tree.items() if key.startswith(PREFIX)}
    return {key: value if value.dtype.kind == "i" else value.astype(float) for key, value in mine.items()}


def kernel_of(ssm, steps=LENGTH):
    """Impulse responses (p, H, steps), without D, by powers of the poles."""
    powers = ssm.poles[..., np.newaxis] ** np.arange(steps)
    weights = np.where(ssm.is_real_pole, 1, 2)[:, np.newaxis] * ssm.C * ssm.B[:, np.newaxis, :, 0]
    return np.einsum("hps,hsk->phk", weights, powers).real


def close(a, b, digits):
    np.testing.assert_allclose(a, b, rtol=0, atol=digits * np.max(np.abs(b)))


@pytest.mark.parametrize("format", VERSIONS)
@pytest.mark.parametrize(("sizes"), [{}, {"sets": 1, "channels": 2}, {"rank": 2}, {"rank": 3, "channels": 2}])
def test_kernel_is_that_of_the_class(tmp_path, format, sizes):
    make, kernel = VERSIONS[format]
    state = make(1, **sizes)
    model = load(write(tmp_path / "model.npz", state))
    block = model.blocks[0]
    assert (model.source.format, block.name, block.backward) == (format, PREFIX, None)
    assert block.ssm.n_slots >= SLOTS
    assert np.all(used_order(block.ssm) == 2 * SLOTS)
    close(kernel_of(block.ssm), kernel(state), 1e-10)
    np.testing.assert_array_equal(block.ssm.D[:, :, 0].T, state["D"])


@pytest.mark.parametrize("format", ["s4-dplr", "s4-dplr-v3"])
def test_raw_outputs_and_other_lengths(tmp_path, format):
    make, kernel = VERSIONS[format]
    expected = kernel(make(2, length=0), 48)
    for length in (0, 64, 200):
        ssm = load(write(tmp_path / f"{length}.npz", make(2, length=length))).blocks[0].ssm
        close(kernel_of(ssm, 48), expected, 1e-10)


def test_hurwitz_form_of_version_2(tmp_path):
    state = v2_state(3, hurwitz=True)
    close(kernel_of(load(write(tmp_path / "m.npz", state)).blocks[0].ssm), v2_kernel(state), 1e-10)


def test_a_step_for_every_slot(tmp_path):
    state = v4_state(4, length=0, sets=1)
    dt = np.exp(np.random.default_rng(4).uniform(-3, -1.5, (WIDTH, SLOTS)))
    path = write(tmp_path / "m.npz", state | {"kernel.inv_dt": softplus_inverse(dt)})
    model = load(path)
    close(kernel_of(model.blocks[0].ssm), v4_kernel(layer_of(path)), 1e-10)
    small = compress(model, state_size=6, horizon=LENGTH).model
    small.save(tmp_path / "small.npz")
    again = layer_of(tmp_path / "small.npz")
    assert again["kernel.inv_dt"].shape == (WIDTH, 3)
    close(v4_kernel(again), kernel_of(small.blocks[0].ssm), 1e-10)


@pytest.mark.parametrize(
    ("name", "value"), [("dt_transform", "exp"), ("dt_fast", True), ("real_transform", "softplus"), ("imag_transform", "exp")]
)
def test_other_transforms(tmp_path, name, value):
    """The tensors of the same numbers under another transform give the same kernel."""
    state = v4_state(5)
    w = np.exp(state["kernel.A_real"])
    dt = np.log1p(np.exp(state["kernel.inv_dt"]))
    change = {
        "dt_transform": {"kernel.inv_dt": np.log(dt)},
        "dt_fast": {"kernel.inv_dt": np.arcsinh(state["kernel.inv_dt"])},
        "real_transform": {"kernel.A_real": softplus_inverse(w)},
        "imag_transform": {"kernel.A_imag": np.log(state["kernel.A_imag"])},
    }[name]
    model = load(write(tmp_path / "m.npz", state | change), **{name: value})
    close(kernel_of(model.blocks[0].ssm), v4_kernel(state), 1e-10)
    small = with_systems(model, awkward(model.blocks[0].ssm.D))
    small.save(tmp_path / "small.npz")
    again = load(tmp_path / "small.npz")  # the settings are in the file beside it
    assert again.source.settings == model.source.settings
    close(kernel_of(again.blocks[0].ssm), kernel_of(small.blocks[0].ssm), 1e-9)


def test_rectified_decay_of_version_3(tmp_path):
    """Without the floor that version 4 adds."""
    state = v3_state(5)
    change = {"kernel.kernel.inv_w_real": np.exp(state["kernel.kernel.inv_w_real"])}
    model = load(write(tmp_path / "m.npz", state | change), real_type="relu")
    close(kernel_of(model.blocks[0].ssm), v3_kernel(state), 1e-10)
    small = with_systems(model, awkward(model.blocks[0].ssm.D))
    small.save(tmp_path / "small.npz")
    close(kernel_of(load(tmp_path / "small.npz").blocks[0].ssm), kernel_of(small.blocks[0].ssm), 1e-9)


@pytest.mark.parametrize("format", VERSIONS)
def test_no_other_family_takes_a_complete_layer(format):
    keys = {f"{PREFIX}.{key}" for key in VERSIONS[format][0](0)}
    assert [family.name for family in FAMILIES if recognises(family, keys)] == [format]


def awkward(D, smallest=0.3, slots=3):
    """Pairs, real poles of both signs, and an empty slot."""
    rng = np.random.default_rng(0)
    poles = rng.uniform(0.5, 0.95, (WIDTH, slots)) * np.exp(1j * rng.uniform(-3, 3, (WIDTH, slots)))
    C = rng.normal(size=(WIDTH, 1, slots)) + 1j * rng.normal(size=(WIDTH, 1, slots))
    B = np.full((WIDTH, slots, 1), 0.5)
    poles[0, 0], poles[1, 0], poles[2, 0], poles[0, 1] = 0.9, -0.7, smallest, 0.5
    B[0, 1], C[0, :, 1] = 0, 0
    C = np.where((poles.imag == 0)[:, np.newaxis], C.real, C)
    return DiagonalLQOSystem(poles, B, C, D, dt=1.0)


@pytest.mark.parametrize("format", VERSIONS)
@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_reduced_models_load_into_the_class(tmp_path, format, suffix):
    pytest.importorskip("torch" if suffix == "pth" else "safetensors")
    make, kernel = VERSIONS[format]
    path = write(tmp_path / f"model.{suffix}", make(6, sets=1, rank=2), np.float32, f"module.{PREFIX}")
    model = load(path)
    small = compress(model, state_size=4).model
    for name, changed in (("small", small), ("awkward", with_systems(model, awkward(model.blocks[0].ssm.D, 0.0)))):
        changed.save(tmp_path / f"{name}.{suffix}")
        tree = read_file(tmp_path / f"{name}.{suffix}").tree
        tree = {key.removeprefix("module."): value for key, value in tree.items()}
        assert np.array_equal(tree["net.norm.bias"], np.arange(3.0))
        state = {key.removeprefix(PREFIX + "."): value for key, value in tree.items() if key.startswith(PREFIX)}
        slots = changed.blocks[0].ssm.n_slots
        wanted = make(0, sets=WIDTH, rank=2, slots=slots)  # as its constructor makes them, for n_ssm = H
        assert {key: value.shape for key, value in state.items()} == {key: value.shape for key, value in wanted.items()}
        assert all(value.dtype == (np.int64 if value.ndim == 0 else np.float32) for value in state.values())
        state = {key: value.astype(float) if value.ndim else value for key, value in state.items()}
        close(kernel(state), kernel_of(changed.blocks[0].ssm), 5e-6)
        again = load(tmp_path / f"{name}.{suffix}").blocks[0].ssm
        np.testing.assert_array_equal(used_order(again), used_order(changed.blocks[0].ssm))


@pytest.mark.parametrize("hurwitz", [True, False])
def test_version_2_keeps_its_nodes(tmp_path, hurwitz):
    state = v2_state(7, hurwitz=hurwitz)
    model = load(write(tmp_path / "m.npz", state))
    small = with_systems(model, awkward(model.blocks[0].ssm.D))
    small.save(tmp_path / "small.npz")
    again = layer_of(tmp_path / "small.npz")
    np.testing.assert_array_equal(again["kernel.kernel.omega"], state["kernel.kernel.omega"])
    close(v2_kernel(again), kernel_of(small.blocks[0].ssm), 1e-10)


def test_both_directions(tmp_path):
    """The second half of the channels reads the sequence from its end, one step late, as in the classes."""
    state = v4_state(8, channels=2, bidirectional=True)
    model = load(write(tmp_path / "m.npz", state))
    block = model.blocks[0]
    assert block.backward == 1
    assert np.all(block.ssm.D[:, 1] == 0)
    close(kernel_of(block.ssm), v4_kernel(state), 1e-10)
    small = compress(model, state_size=6).model
    small.save(tmp_path / "small.npz")
    close(v4_kernel(layer_of(tmp_path / "small.npz")), kernel_of(small.blocks[0].ssm), 1e-10)
    with_feedthrough = DiagonalLQOSystem(block.ssm.poles, block.ssm.B, block.ssm.C, np.ones((WIDTH, 2, 1)), dt=1.0)
    with pytest.raises(CheckpointError, match="backward"):
        with_systems(model, with_feedthrough).save(tmp_path / "x.npz")


def test_bandlimit(tmp_path):
    state = v4_state(9, length=0)
    frequency = np.log1p(np.exp(state["kernel.inv_dt"])) * state["kernel.A_imag"] / (2 * np.pi)
    limit = float(2 * np.median(frequency))
    path = write(tmp_path / "m.npz", state)
    model = load(path, bandlimit=limit)
    state["kernel.C"] = np.where((frequency < limit / 2)[..., np.newaxis], state["kernel.C"], 0)
    close(kernel_of(model.blocks[0].ssm), v4_kernel(state), 1e-10)
    with pytest.raises(CheckpointError, match="bandlimit"):
        with_systems(model, awkward(model.blocks[0].ssm.D)).save(tmp_path / "x.npz")


def test_real_poles_and_their_condition(tmp_path):
    """The HiPPO matrix has real poles and very skew eigenvectors, which the reader says."""
    n = 8
    q = np.arange(2 * n)
    root = np.sqrt(2 * q + 1.0)
    A = -np.tril(np.outer(root, root), -1) - np.diag(q + 1.0)
    P = np.sqrt(q + 0.5)
    skew = A + np.outer(P, P) + 0.5 * np.eye(2 * n)
    omega, V = np.linalg.eigh(-1j * skew)
    kept = omega < 0
    P, B, w = (V.conj().T @ P)[kept], (V.conj().T @ root)[kept], -0.5 + 1j * omega[kept]
    C, dt = np.random.default_rng(0).normal(size=(1, WIDTH, n, 2)) @ [1, 1j], np.full((WIDTH, 1), 0.05)
    state = v4_state(0, length=0, sets=1, slots=n) | {
        "kernel.C": view(C),
        "kernel.B": view(B)[np.newaxis, np.newaxis],
        "kernel.P": view(P)[np.newaxis, np.newaxis],
        "kernel.A_real": np.log(-w.real)[np.newaxis],
        "kernel.A_imag": -w.imag[np.newaxis],
        "kernel.inv_dt": softplus_inverse(dt),
    }
    with pytest.warns(AccuracyWarning, match="condition number"):
        model = load(write(tmp_path / "m.npz", state))
    ssm = model.blocks[0].ssm
    assert ssm.n_slots > n
    close(kernel_of(ssm), v4_kernel(state), 1e-5)


def test_not_diagonalisable(tmp_path):
    """Equal poles with a nilpotent coupling: a Jordan block."""
    state = v2_state(0, sets=1)
    w, zero = np.full((1, SLOTS), -0.5 - 1j), np.zeros((1, 1, SLOTS), complex)
    P, Q = zero.copy(), zero.copy()
    P[..., 0], Q[..., 1] = 1, 1
    state |= {"kernel.kernel.w": view(w), "kernel.kernel.P": view(P), "kernel.kernel.Q": view(Q)}
    with pytest.raises(CheckpointError, match="not diagonalisable"):
        load(write(tmp_path / "m.npz", state))


def test_unstable_systems_of_version_2(tmp_path):
    state = v2_state(10)
    state["kernel.kernel.w"] = state["kernel.kernel.w"] * [-1, 1]
    model = load(write(tmp_path / "m.npz", state))
    assert np.max(np.abs(model.blocks[0].ssm.poles)) > 1
    close(kernel_of(model.blocks[0].ssm), v2_kernel(state), 1e-8)
    with pytest.raises(UnstableSystemError):
        compress(model, state_size=4)


@pytest.mark.parametrize(
    ("format", "system", "words"),
    [
        ("s4-dplr", DiagonalLQOSystem(np.full((3, 1), 1.01), np.ones((3, 1, 1)), np.ones((3, 1, 1)), dt=1.0), "modulus 1.01"),
        ("s4-dplr-v3", DiagonalLQOSystem(np.full((3, 1), 1.01), np.ones((3, 1, 1)), np.ones((3, 1, 1)), dt=1.0), "modulus 1.01"),
        ("s4-dplr-v2", DiagonalLQOSystem(np.full((3, 1), -1.0), np.ones((3, 1, 1)), np.ones((3, 1, 1)), dt=1.0), "pole at -1"),
        ("s4-dplr", DiagonalLQOSystem(np.full((3, 1), 0.5), np.ones((3, 1, 1)), np.full((3, 1, 1), 1e39), dt=1.0), "overflow"),
    ],
)
def test_what_a_class_cannot_hold_is_refused(tmp_path, format, system, words):
    model = load(write(tmp_path / "m.npz", VERSIONS[format][0](0), np.float32))
    with pytest.raises(CheckpointError, match=words):
        with_systems(model, system).save(tmp_path / "x.npz")
    assert not (tmp_path / "x.npz").exists()


@pytest.mark.parametrize(
    ("format", "change", "words"),
    [
        ("s4-dplr", lambda s: s.pop("kernel.l_kernel"), "missing: kernel.l_kernel"),
        ("s4-dplr", lambda s: s.pop("kernel.P"), "missing: kernel.P"),
        ("s4-dplr", lambda s: s.pop("D"), "missing: D"),
        ("s4-dplr", lambda s: s.update({"kernel.l_kernel": np.array(-4)}), "negative"),
        ("s4-dplr", lambda s: s.update({"kernel.l_kernel": np.array(4.0)}), "integers"),
        ("s4-dplr", lambda s: s.update({"kernel.B": np.ones((1, 2, 4, 2))}), "kernel.B has shape"),
        ("s4-dplr", lambda s: s.update({"kernel.C": np.ones((3, 3, 4, 2))}), "3 channels"),
        ("s4-dplr", lambda s: s["kernel.P"].__setitem__(0, np.nan), "kernel.P has 24 entries that are not finite"),
        ("s4-dplr", lambda s: s.update({"kernel.A_real": np.full((3, 4), 800.0)}), "not finite"),
        ("s4-dplr", lambda s: s.update({"kernel.inv_dt": np.full((3, 1), -800.0)}), "not positive"),
        ("s4-dplr-v3", lambda s: s.pop("kernel.kernel.L"), "missing: kernel.kernel.L"),
        ("s4-dplr-v3", lambda s: s.pop("kernel.kernel.w_imag"), "missing: kernel.kernel.w_imag"),
        ("s4-dplr-v2", lambda s: s.pop("kernel.kernel.omega"), "missing: kernel.kernel.omega"),
        ("s4-dplr-v2", lambda s: s.pop("kernel.kernel.Q"), "missing: kernel.kernel.Q"),
        ("s4-dplr-v2", lambda s: s.update({"kernel.kernel.omega": np.ones((33, 2))}), "nodes"),
    ],
)
def test_damaged_layers_are_named(tmp_path, format, change, words):
    state = VERSIONS[format][0](0)
    change(state)
    with pytest.raises(CheckpointError) as caught:
        load(write(tmp_path / "bad.npz", state))
    assert words in str(caught.value)


def test_a_number_of_state_matrices_that_does_not_divide_the_heads(tmp_path):
    state = v4_state(0)
    for key in ("kernel.A_real", "kernel.A_imag"):
        state[key] = state[key][:2]
    state["kernel.B"], state["kernel.P"] = state["kernel.B"][:, :2], state["kernel.P"][:, :2]
    with pytest.raises(CheckpointError, match="do not divide 3 heads"):
        load(write(tmp_path / "bad.npz", state))


def test_settings(tmp_path):
    path = write(tmp_path / "m.npz", v4_state(0))
    with pytest.warns(AssumptionWarning, match="dt_transform"):
        model = load_checkpoint(path)
    assert model.source.settings == DEFAULTS
    for name, value in {"dt_transform": "tanh", "bandlimit": -1.0, "dt_fast": 3}.items():
        with pytest.raises(CheckpointError, match=name):
            load(path, **{name: value})
    compress(model, state_size=4).model.save(tmp_path / "small.npz")
    assert json.loads((tmp_path / "small.npz.json").read_text())["settings"] == DEFAULTS
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_checkpoint(tmp_path / "small.npz").source.settings == DEFAULTS
