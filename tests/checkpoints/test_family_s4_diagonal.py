"""Diagonal S4 layers against the formulas of their classes, written once more from the classes' descriptions."""

import json
import warnings
from dataclasses import replace

import numpy as np
import pytest

import lqo_mor as lqo
from lqo_mor.checkpoints.containers.files import read_file, write_file
from lqo_mor.checkpoints.families.registry import FAMILIES
from lqo_mor.checkpoints.layered import recognises
from lqo_mor.errors import AssumptionWarning, CheckpointError
from lqo_mor.systems.quadratic import QuadraticOutput
from tests.checkpoints.heads import outputs, padded_fft

H, N, L = 3, 4, 64
PREFIX = "module.net.blocks.0.seq"
OTHERS = {"module.net.head.weight": np.arange(6.0, dtype=np.float32).reshape(2, 3), "module.step": np.array(7)}
U = np.random.default_rng(0).normal(size=(H, L))


def transformed(name, x):
    if name == "exp":
        return np.exp(x)
    if name == "relu":
        return np.where(x > 0, x, 0) + 1e-4
    if name == "sigmoid":
        return 1 / (1 + np.exp(-x))
    return np.log(1 + np.exp(x)) if name == "softplus" else x


def vandermonde(C, dtA, disc, A, dt, length):
    """Kernels (p, H, length) of the products `C` (p, H, n) as `SSMKernelDiag.forward` sums them up."""
    lags = np.arange(length)
    if disc == "zoh":
        C = C * (np.exp(dtA) - 1) / A
        return 2 * np.einsum("phn,hnl->phl", C, np.exp(dtA[..., None] * lags)).real
    if disc == "bilinear":
        C = C / (1 - dtA / 2) * dt
        return 2 * np.einsum("phn,hnl->phl", C, ((1 + dtA / 2) / (1 - dtA / 2))[..., None] ** lags).real
    x = (np.exp(dtA * length) - 1) * A
    C = C * (np.exp(dtA) - 1) * np.conj(x) / (x * np.conj(x) + 1e-7)
    return np.einsum("phn,hnl->phl", C, np.exp(dtA[..., None] * lags)).real


def v4_output(
    t,
    u,
    disc="zoh",
    dt_transform="softplus",
    dt_fast=False,
    real_transform="exp",
    imag_transform="none",
    bandlimit=None,
    l_max=None,
):
    """Version 4, `FFTConv` around `SSMKernelDiag`; the shapes are those that its constructor makes."""
    t = {key: value.astype(float) for key, value in t.items()}
    p, heads, n = t["kernel.C"].shape[:3]
    S = t["kernel.A_real"].shape[0]
    is_real = "kernel.A_imag" not in t
    assert heads % S == 0
    assert t["kernel.A_real"].shape == (S, n)
    assert t["kernel.B"].shape == ((1, S, n) if is_real else (1, S, n, 2))
    assert t["kernel.inv_dt"].shape in ((heads, 1), (heads, n))
    assert t["D"].shape in ((p, heads), (p // 2, heads))
    if is_real:
        A, B, C = -transformed(real_transform, t["kernel.A_real"]), t["kernel.B"], t["kernel.C"]
    else:
        assert t["kernel.A_imag"].shape == (S, n)
        A = -transformed(real_transform, t["kernel.A_real"]) - 1j * transformed(imag_transform, t["kernel.A_imag"])
        B, C = t["kernel.B"] @ [1, 1j], t["kernel.C"] @ [1, 1j]
    stored = np.sinh(t["kernel.inv_dt"]) if dt_fast else t["kernel.inv_dt"]
    dt = transformed(dt_transform, stored)
    if bandlimit is not None:
        C = C * np.where(dt * np.abs(A.imag) / (2 * np.pi) < bandlimit * 0.5, 1, 0)
    head = np.arange(heads) % S
    kernels = vandermonde(B[:, head] * C, dt * A[head], disc, A[head], dt, u.shape[-1])
    return padded_fft(kernels, p != len(t["D"]), u) + t["D"][:, :, None] * u


def v3_output(t, u, disc="bilinear", real_type="exp", bandlimit=None, l_max=None):
    """Version 3: plus on the imaginary part, bilinear by default, and a parameter A that nothing reads."""
    t = {key: value.astype(float) for key, value in t.items()}
    C, B = (t[f"kernel.kernel.{key}"] @ [1, 1j] for key in ("C", "B"))
    S, n = B.shape
    if "kernel.kernel.A" in t:
        assert t["kernel.kernel.A"].shape == (S, n, 2)
    assert t["kernel.kernel.inv_A_real"].shape == t["kernel.kernel.A_imag"].shape == (S, n)
    A = -transformed(real_type, t["kernel.kernel.inv_A_real"]) + 1j * t["kernel.kernel.A_imag"]
    dt = np.exp(t["kernel.kernel.log_dt"])[:, None]
    if bandlimit is not None:
        C = C * np.where(dt * np.abs(A.imag) / (2 * np.pi) < bandlimit * 0.5, 1, 0)
    head = np.arange(len(dt)) % S
    kernels = vandermonde(B[head] * C, dt * A[head], disc, A[head], dt, u.shape[-1])
    return padded_fft(kernels, len(C) != len(t["D"]), u) + t["D"][:, :, None] * u


def v2_output(t, u, disc="zoh", l_max=None):
    """Version 2 and Safari: no B."""
    t = {key: value.astype(float) for key, value in t.items()}
    C, dt = t["kernel.kernel.C"] @ [1, 1j], np.exp(t["kernel.kernel.log_dt"])[:, None]
    A = -np.exp(t["kernel.kernel.log_w_real"]) + 1j * t["kernel.kernel.w_imag"]
    A = A[np.arange(len(dt)) % len(A)]
    return padded_fft(vandermonde(C, dt * A, disc, A, dt, u.shape[-1]), len(C) != len(t["D"]), u) + t["D"][:, :, None] * u


def v4_tensors(
    seed=1, heads=H, c=1, p=1, S=H, tied=True, is_real=False, real_transform="exp", imag_transform="none", dt_fast=False
):
    rng = np.random.default_rng(seed)
    view = () if is_real else (2,)
    positive = {"exp": lambda x: np.log(x), "sigmoid": lambda x: np.log(x / (1 + x)), "softplus": lambda x: x}
    small = rng.uniform(0.2, 0.9, (S, N))
    large = rng.uniform(1, 30, (S, N))
    t = {
        "D": rng.normal(size=(c, heads)),
        "kernel.C": rng.normal(size=(p, heads, N, *view)),
        "kernel.B": rng.normal(size=(1, S, N, *view)),
        "kernel.inv_dt": rng.uniform(-3, -1, (heads, 1 if tied else N)) * (0.5 if dt_fast else 1),
        "kernel.A_real": positive.get(real_transform, lambda x: x)(small),
    }
    return t if is_real else t | {"kernel.A_imag": positive.get(imag_transform, lambda x: x)(large)}


def v3_tensors(seed=2, c=1, p=1, S=H, dead=True):
    rng = np.random.default_rng(seed)
    t = {
        "D": rng.normal(size=(c, H)),
        "kernel.kernel.C": rng.normal(size=(p, H, N, 2)),
        "kernel.kernel.log_dt": rng.uniform(-3, -1, H),
        "kernel.kernel.B": rng.normal(size=(S, N, 2)),
        "kernel.kernel.inv_A_real": rng.normal(size=(S, N)),
        "kernel.kernel.A_imag": rng.normal(size=(S, N)) * 20,
    }
    return t | {"kernel.kernel.A": rng.normal(size=(S, N, 2))} if dead else t


def v2_tensors(seed=3, c=1, p=1, S=H):
    t = v3_tensors(seed, c, p, S, dead=False)
    names = {"inv_A_real": "log_w_real", "A_imag": "w_imag"}
    return {
        key.replace(last := key.rpartition(".")[2], names.get(last, last)): value
        for key, value in t.items()
        if not key.endswith(".B")
    }


def stored(tmp_path, tensors, dtype=np.float64, name="model.npz"):
    path = tmp_path / name
    layer = {f"{PREFIX}.{key}": value.astype(dtype) for key, value in tensors.items()}
    write_file(path, OTHERS | layer, None, {}, overwrite=True)
    return path


def load(path, **settings):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", RuntimeWarning)
        return lqo.load_checkpoint(path, settings=settings)


def layer_tensors(path):
    tree = read_file(path).tree
    for key, value in OTHERS.items():
        assert np.array_equal(tree.pop(key), value), key
    assert all(key.startswith(PREFIX + ".") for key in tree)
    return {key.removeprefix(PREFIX + "."): value for key, value in tree.items()}


def assert_close(found, wanted, digits):
    np.testing.assert_allclose(found, wanted, rtol=0, atol=10.0**-digits * np.max(np.abs(wanted)))


V4_CASES = {
    "softplus": ({}, {}),
    "exp step": ({}, {"dt_transform": "exp"}),
    "shared": ({"S": 1}, {"dt_transform": "exp"}),
    "untied": ({"S": 1, "tied": False}, {}),
    "channels": ({"c": 2, "p": 2}, {"disc": "bilinear"}),
    "two directions": ({"c": 1, "p": 2}, {"dt_transform": "exp"}),
    "two directions of two channels": ({"c": 2, "p": 4}, {}),
    "dt_fast": ({"dt_fast": True}, {"dt_fast": True, "dt_transform": "exp"}),
    "dt_fast and sigmoid": (
        {"dt_fast": True, "real_transform": "sigmoid"},
        {"dt_fast": True, "real_transform": "sigmoid", "dt_transform": "exp"},
    ),
    "relu": ({"real_transform": "relu"}, {"real_transform": "relu"}),
    "sigmoid": ({"real_transform": "sigmoid"}, {"real_transform": "sigmoid"}),
    "softplus A": (
        {"real_transform": "softplus", "imag_transform": "exp"},
        {"real_transform": "softplus", "imag_transform": "exp"},
    ),
    "no transform": ({"real_transform": "none"}, {"real_transform": "none", "disc": "bilinear"}),
    "imag relu": ({"imag_transform": "relu"}, {"imag_transform": "relu", "dt_transform": "exp"}),
    "bandlimit": ({}, {"bandlimit": 0.8, "dt_transform": "exp"}),
    "bandlimit, shared": ({"S": 1}, {"bandlimit": 0.8, "dt_transform": "exp"}),
    "dss": ({}, {"disc": "dss", "dt_transform": "exp", "l_max": L}),
    "real": ({"is_real": True}, {"dt_transform": "exp"}),
    "real, bilinear, untied": ({"is_real": True, "tied": False}, {"dt_transform": "exp", "disc": "bilinear"}),
}


@pytest.mark.parametrize("case", V4_CASES)
def test_version_4_is_what_its_class_computes(tmp_path, case):
    made, settings = V4_CASES[case]
    tensors = v4_tensors(**made)
    model = load(stored(tmp_path, tensors), **settings)
    assert model.source.format == "s4-diagonal"
    assert model.blocks[0].name == PREFIX.removeprefix("module.")
    wanted = v4_output(tensors, U, **settings)
    assert_close(outputs(model.blocks[0], U), wanted, 12)
    if "bandlimit" in case:
        assert 0 < np.count_nonzero(model.blocks[0].ssm.B) < H * N


@pytest.mark.parametrize(
    ("made", "settings"),
    [
        ({}, {}),
        ({"S": 1, "dead": False}, {"disc": "zoh"}),
        ({"c": 1, "p": 2}, {"bandlimit": 0.3}),
        ({"c": 2, "p": 2}, {"real_type": "softplus"}),
    ],
)
def test_version_3_is_what_its_class_computes(tmp_path, made, settings):
    tensors = v3_tensors(**made)
    model = load(stored(tmp_path, tensors), **settings)
    assert model.source.format == "s4-diagonal-v3"
    assert_close(outputs(model.blocks[0], U), v3_output(tensors, U, **settings), 12)


@pytest.mark.parametrize(("made", "settings"), [({}, {}), ({"S": 1, "p": 2}, {}), ({"c": 2, "p": 2}, {"disc": "bilinear"})])
def test_version_2_is_what_its_class_computes(tmp_path, made, settings):
    tensors = v2_tensors(**made)
    model = load(stored(tmp_path, tensors), **settings)
    assert model.source.format == "s4-diagonal-v2"
    assert_close(outputs(model.blocks[0], U), v2_output(tensors, U, **settings), 12)


@pytest.mark.parametrize("case", [case for case in V4_CASES if not case.startswith("real")])
def test_a_reduced_version_4_layer_is_the_class_with_fewer_slots(tmp_path, case):
    made, settings = V4_CASES[case]
    path = stored(tmp_path, v4_tensors(**made), np.float32, "model.safetensors")
    small = lqo.compress(load(path, **settings), state_size=4).model
    small.save(tmp_path / "small.safetensors")
    tensors = layer_tensors(tmp_path / "small.safetensors")
    assert tensors["kernel.A_real"].shape == (H, 2)  # n_ssm = H, d_state = 4
    assert all(value.dtype == np.float32 for value in tensors.values())
    wanted = outputs(small.blocks[0], U)
    assert_close(v4_output(tensors, U, **settings), wanted, 5)
    assert_close(outputs(load(tmp_path / "small.safetensors").blocks[0], U), wanted, 5)  # the settings are beside the file
    assert small.n_parameters == sum(value.size for value in tensors.values()) + OTHERS["module.net.head.weight"].size


@pytest.mark.parametrize("disc", ["zoh", "bilinear"])
def test_reduced_layers_of_versions_3_and_2(tmp_path, disc):
    for name, tensors, output in (("v3", v3_tensors(S=1, p=2), v3_output), ("v2", v2_tensors(S=1, p=2), v2_output)):
        path = stored(tmp_path, tensors, np.float32, f"{name}.npz")
        small = lqo.compress(load(path, disc=disc), state_size=4).model
        small.save(tmp_path / f"{name}-small.npz")
        new = layer_tensors(tmp_path / f"{name}-small.npz")
        assert set(new) == set(tensors)
        assert new["kernel.kernel.C"].shape == (2, H, 2, 2)
        assert np.array_equal(new["kernel.kernel.log_dt"], tensors["kernel.kernel.log_dt"].astype(np.float32))
        assert_close(output(new, U, disc=disc), outputs(small.blocks[0], U), 5)


def awkward(outputs, D, imaginary=True):
    """Heads with pairs above and below the axis, real poles of both signs, one at zero, and slots without output."""
    rng = np.random.default_rng(5)
    poles = np.array([[0.9 * np.exp(0.3j), -0.7, 0.95], [0.8 * np.exp(-2.8j), 0.0, 0.5], [0.6, 0.99, 0.2]], complex)
    if not imaginary:
        poles = np.abs(poles)
    C = rng.normal(size=(H, outputs, 3)) + 1j * rng.normal(size=(H, outputs, 3))
    C[2, :, 2] = 0
    C = np.where((poles.imag == 0)[:, None], C.real, C)
    return lqo.DiagonalLQOSystem(poles, np.full((H, 3, 1), 0.5), C, D, dt=1.0)


def replaced(model, ssm):
    return replace(model, blocks=(replace(model.blocks[0], ssm=ssm),))


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("case", V4_CASES)
def test_every_kind_of_pole_is_written(tmp_path, case, dtype):
    made, settings = V4_CASES[case]
    settings = {key: value for key, value in settings.items() if key != "bandlimit"}
    model = load(stored(tmp_path, v4_tensors(**made), dtype), **settings)
    old = model.blocks[0].ssm
    new = replaced(model, awkward(old.n_outputs, old.D, imaginary="is_real" not in made))
    new.save(tmp_path / "new.npz")
    tensors = layer_tensors(tmp_path / "new.npz")
    # A bilinear pole at zero is stored as 1e-6; an exact zero is lost in the logarithm that the class takes.
    digits = 5 if dtype == np.float32 or settings.get("disc") == "bilinear" else 10
    wanted = outputs(new.blocks[0], U)
    assert_close(v4_output(tensors, U, **settings), wanted, digits)
    assert_close(outputs(load(tmp_path / "new.npz").blocks[0], U), wanted, digits)
    again = load(tmp_path / "new.npz").blocks[0].ssm
    assert np.count_nonzero(again.B) == 3 * H - 1
    if dtype == np.float64:  # real poles stay real: no order is won or lost by a file
        real, used = new.blocks[0].ssm.is_real_pole, again.B[..., 0] != 0
        assert np.array_equal(again.is_real_pole[used], real[used])


def test_poles_at_minus_one_and_near_the_circle(tmp_path):
    model = load(stored(tmp_path, v3_tensors()))
    poles = np.array([[-1.0, -1 + 1e-9], [1 - 1e-9, 0.9], [np.exp(3j), 0.5]])
    C = np.where(poles.imag == 0, 1.0, 1 + 1j)[:, None]
    new = replaced(model, lqo.DiagonalLQOSystem(poles, np.ones((H, 2, 1)), C, model.blocks[0].ssm.D, dt=1.0))
    new.save(tmp_path / "new.npz")
    assert_close(v3_output(layer_tensors(tmp_path / "new.npz"), U), outputs(new.blocks[0], U), 8)


def test_a_bilinear_pole_at_zero_survives_single_precision(tmp_path):
    """The class takes its logarithm."""
    model = load(stored(tmp_path, v3_tensors(), np.float32))
    new = replaced(
        model, lqo.DiagonalLQOSystem(np.zeros((H, 1)), np.ones((H, 1, 1)), np.ones((H, 1, 1)), model.blocks[0].ssm.D, dt=1.0)
    )
    new.save(tmp_path / "new.npz")
    t = layer_tensors(tmp_path / "new.npz")
    z = np.exp(t["kernel.kernel.log_dt"])[:, None] * -np.exp(t["kernel.kernel.inv_A_real"])
    assert z.dtype == np.float32
    assert np.all(1 + z / 2 != 0)


def test_heads_share_poles_in_turn(tmp_path):
    tensors = v4_tensors(heads=6, S=2)
    u = np.random.default_rng(9).normal(size=(6, L))
    assert_close(outputs(load(stored(tmp_path, tensors)).blocks[0], u), v4_output(tensors, u), 12)


def test_steps_move_only_where_a_transform_needs_it(tmp_path):
    tensors = v4_tensors(real_transform="sigmoid")
    model = load(stored(tmp_path, tensors), real_transform="sigmoid", dt_transform="exp")
    ssm = model.blocks[0].ssm
    poles = np.array([[0.9, 0.1], [0.99 * np.exp(1j), 0.995], [0.995, 0.996]])  # the second and third heads need no change
    C = np.where(poles.imag == 0, 1.0, 1 + 1j)[:, None]
    new = replaced(model, lqo.DiagonalLQOSystem(poles, np.ones((H, 2, 1)), C, ssm.D, dt=1.0))
    new.save(tmp_path / "new.npz")
    step = layer_tensors(tmp_path / "new.npz")["kernel.inv_dt"]
    assert step[0] > tensors["kernel.inv_dt"][0]
    assert np.exp(step[0, 0]) > -np.log(0.1)
    assert np.array_equal(step[1:], tensors["kernel.inv_dt"][1:])


def test_a_layer_that_is_not_reduced_keeps_its_tensors(tmp_path):
    path = stored(tmp_path, v4_tensors(S=1), np.float32)
    load(path).save(tmp_path / "again.npz")
    for key, value in layer_tensors(path).items():
        assert np.array_equal(layer_tensors(tmp_path / "again.npz")[key], value), key


def test_what_is_assumed_is_said_and_recorded(tmp_path):
    path = stored(tmp_path, v4_tensors(), np.float32)
    with pytest.warns(AssumptionWarning, match='dt_transform="softplus"'):
        model = lqo.load_checkpoint(path, settings={"disc": "bilinear"})
    assert set(model.source.assumed) == {"dt_transform", "dt_fast", "real_transform", "imag_transform", "bandlimit", "l_max"}
    model.save(tmp_path / "again.npz")
    beside = json.loads((tmp_path / "again.npz.json").read_text())
    assert beside["settings"]["disc"] == "bilinear"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = lqo.load_checkpoint(tmp_path / "again.npz")
    assert np.array_equal(again.blocks[0].ssm.poles, model.blocks[0].ssm.poles)


def test_a_cut_kernel_is_announced(tmp_path):
    with pytest.warns(lqo.LQOWarning, match="end after l_max = 16 steps"):
        lqo.load_checkpoint(stored(tmp_path, v3_tensors()), settings={"l_max": 16})


def test_unstable_poles_are_read_where_the_class_can_have_them(tmp_path):
    tensors = v4_tensors(real_transform="none")
    tensors["kernel.A_real"][0, 0] = -0.5
    model = load(stored(tmp_path, tensors), real_transform="none", dt_transform="exp")
    assert np.max(np.abs(model.blocks[0].ssm.poles)) > 1
    assert_close(outputs(model.blocks[0], U), v4_output(tensors, U, real_transform="none", dt_transform="exp"), 12)


def without(tensors, name):
    return {key: value for key, value in tensors.items() if key != name}


@pytest.mark.parametrize(
    ("tensors", "settings", "words"),
    [
        (without(v4_tensors(), "kernel.inv_dt"), {}, r"blocks\.0\.seq\.kernel\.inv_dt"),
        (without(v4_tensors(), "kernel.A_real"), {}, "missing: .*kernel.A_real"),
        (without(v4_tensors(), "D"), {}, "missing: .*seq.D"),
        (without(v3_tensors(), "kernel.kernel.B"), {}, "missing: .*kernel.kernel.B"),
        (without(v2_tensors(), "kernel.kernel.w_imag"), {}, "missing: .*w_imag"),
        (v4_tensors() | {"kernel.A_imag": np.ones((H, N + 1))}, {}, r"A_imag has shape \(3, 5\)"),
        (v4_tensors() | {"kernel.inv_dt": np.ones((H, 2))}, {}, r"inv_dt has shape \(3, 2\)"),
        (v4_tensors() | {"kernel.A_real": np.full((H, N), np.nan)}, {}, "not finite"),
        (v4_tensors() | {"kernel.A_real": np.full((H, N), 800.0)}, {}, "not finite"),
        (v4_tensors(S=2), {}, "do not divide 3 heads"),
        (v4_tensors(c=2, p=3), {}, "3 channels and D 2"),
        (v4_tensors(), {"disc": "foh"}, "disc = 'foh' is none of zoh"),
        (v4_tensors(), {"bandlimit": -1}, "bandlimit = -1"),
        (v4_tensors(), {"l_max": 0}, "l_max = 0"),
        (v4_tensors(), {"disc": "dss"}, "give the setting l_max"),
        (v4_tensors(), {"dt_transform": "none"}, "steps that are not positive"),
        (
            v4_tensors(real_transform="none") | {"kernel.A_real": -np.ones((H, N))},
            {"real_transform": "none", "disc": "dss", "l_max": 9},
            "Re A > 0",
        ),
        (v4_tensors(is_real=True) | {"kernel.A_real": np.full((H, N), 6.0)}, {"disc": "bilinear"}, "negative pole"),
        (v4_tensors(is_real=True), {"bandlimit": 1.0}, "no setting bandlimit"),
        (v3_tensors(), {"real_transform": "exp"}, "no setting real_transform"),
        (v2_tensors(), {"disc": "dss"}, "disc = 'dss' is none of zoh, bilinear"),
    ],
)
def test_what_cannot_be_read_is_refused(tmp_path, tensors, settings, words):
    with pytest.raises(CheckpointError, match=words):
        load(stored(tmp_path, tensors), **settings)


def test_what_the_classes_cannot_hold_is_refused(tmp_path):
    def refused(tensors, ssm, words, **settings):
        model = load(stored(tmp_path, tensors), **settings)
        with pytest.raises(CheckpointError, match=words):
            replaced(model, ssm if ssm.D.any() else replace(ssm, D=model.blocks[0].ssm.D)).save(tmp_path / "x.npz")
        assert not (tmp_path / "x.npz").exists()

    one, two = np.ones((H, 1, 1)), np.ones((H, 2, 1))
    high, real = np.full((H, 1), 0.9 * np.exp(2j)), np.full((H, 1), 0.9)
    refused(v4_tensors(), lqo.DiagonalLQOSystem(high, one, one, dt=1.0), "above the bandlimit of 0.5.*native", bandlimit=0.5)
    refused(v4_tensors(is_real=True), lqo.DiagonalLQOSystem(high, one, one, dt=1.0), "positive real ones only.*native")
    refused(v4_tensors(), lqo.DiagonalLQOSystem(real * 1.2, one, one, dt=1.0), "modulus 1.08")
    refused(
        v4_tensors(), lqo.DiagonalLQOSystem(real, one, one, None, QuadraticOutput(one, one, one), dt=1.0), "quadratic.*native"
    )
    refused(v4_tensors(p=2), lqo.DiagonalLQOSystem(real, one, two, two, dt=1.0), "feedthrough in its backward direction.*native")
    slow_and_fast = np.tile([1 - 1e-8, 0.1], (H, 1))
    refused(
        v4_tensors() | {"kernel.A_real": np.ones((H, N))},
        lqo.DiagonalLQOSystem(slow_and_fast, two, np.ones((H, 1, 2)), dt=1.0),
        "no step puts all poles into the ranges.*native",
        real_transform="relu",
        dt_transform="relu",
    )


def test_version_1_is_refused_by_name(tmp_path):
    names = ("log_dt", "w", "B", "C", "nodes", "z")
    with pytest.raises(CheckpointError, match=r"blocks\.0\.seq is of S4 version 1.*load that checkpoint"):
        load(stored(tmp_path, {"D": np.ones((1, H))} | {f"kernel.kernel.{name}": np.ones((H, 2)) for name in names}))


LAYERS = {
    "s4-diagonal": ["D", *(f"kernel.{k}" for k in ("C", "B", "inv_dt", "A_real", "A_imag"))],
    "s4-diagonal-v3": ["D", *(f"kernel.kernel.{k}" for k in ("C", "log_dt", "A", "B", "inv_A_real", "A_imag"))],
    "s4-diagonal-v2": ["D", *(f"kernel.kernel.{k}" for k in ("C", "log_dt", "log_w_real", "w_imag"))],
    "s4-v1": ["D", *(f"kernel.kernel.{k}" for k in ("log_dt", "w", "B", "C", "nodes", "z"))],
    "ema": ["delta", "alpha", "beta", "gamma", "omega"],
    "ema-s4": ["D", *(f"kernel.{k}" for k in ("delta", "alpha", "beta", "gamma"))],
    "s4d-layers": ["D", *(f"kernel.{k}" for k in ("C", "log_dt", "log_A_real", "A_imag"))],
    "s4-dplr": ["D", *(f"kernel.{k}" for k in ("C", "B", "P", "inv_dt", "A_real", "A_imag", "l_kernel"))],
    "s4-dplr-v3": ["D", *(f"kernel.kernel.{k}" for k in ("C", "log_dt", "B", "P", "inv_w_real", "w_imag", "L"))],
    "s4-dplr-v2": ["D", *(f"kernel.kernel.{k}" for k in ("C", "log_dt", "B", "P", "log_w_real", "w_imag", "omega", "z"))],
    "dss": ["D", *(f"kernel.{k}" for k in ("log_dt", "W", "Lambda"))],
    "lru": ["nu_log", "theta_log", "gamma_log", "B_re", "B_im", "C_re", "C_im", "D"],
    "s5": ["Lambda_re", "Lambda_im", "B", "C", "D", "log_step"],
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_complete_layer_belongs_to_one_family(name):
    found = [family.name for family in FAMILIES if recognises(family, {f"net.{key}" for key in LAYERS[name]})]
    assert found == [name]
