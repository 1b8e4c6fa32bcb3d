"""Moving averages against the loops that define them."""

import warnings
from dataclasses import replace

import numpy as np
import pytest

import lqo_mor as lqo
from lqo_mor.checkpoints.containers.files import read_file, write_file
from lqo_mor.errors import CheckpointError
from tests.checkpoints.heads import outputs, padded_fft

H, N, L = 3, 4, 64
PREFIX = "module.encoder.layers.0.move"
OTHERS = {"module.embed.weight": np.arange(6.0, dtype=np.float32).reshape(2, 3), "module.encoder.layers.0.mx.bias": np.ones(2)}
U = np.random.default_rng(0).normal(size=(H, L))
TRANSFORMERS = {
    "delta": "damping_factor",
    "alpha": "decay_factor",
    "beta": "ema_expansion_matrix",
    "gamma": "kernel_projection_matrix",
    "omega": "residual_weight",
}


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def recurrence(delta, alpha, beta, gamma, u):
    """``h = q h + p beta u``, ``y = gamma h / sqrt(n)`` step by step, as `MultiHeadEMA.one_step`; `u` and result (rows, L)."""
    rows, n = gamma.shape
    p, a = sigmoid(delta[..., 0]), sigmoid(alpha[..., 0])
    h, y = np.zeros((rows, n)), np.zeros(u.shape)
    for k in range(u.shape[1]):
        h = (1 - p * a) * h + p * beta[..., 0] * u[:, k : k + 1]
        y[:, k] = np.sum(h * gamma, axis=1) / np.sqrt(n)
    return y


def mega_output(t, u):
    """Mega: in two directions the second half of the rows reads the sequence from its end."""
    t = {key: value.astype(float) for key, value in t.items()}
    rows, n = t["gamma"].shape
    assert t["delta"].shape == t["alpha"].shape == t["beta"].shape == (rows, n, 1)
    parts = [t[key] for key in ("delta", "alpha", "beta", "gamma")]
    y = recurrence(*(part[: len(u)] for part in parts), u) + t["omega"][:, None] * u
    if rows == 2 * len(u):
        y = y + recurrence(*(part[len(u) :] for part in parts), u[:, ::-1])[:, ::-1]
    return y[None]


def s4_output(t, u):
    """`EMAKernel` in `FFTConv`: rows (channel, head); shared among the channels, or of each its own."""
    t = {key: value.astype(float) for key, value in t.items()}
    K, n = t["kernel.gamma"].shape
    assert t["kernel.alpha"].shape == t["kernel.beta"].shape
    assert t["kernel.alpha"].shape in ((H, n, 1), (K, n, 1))
    assert t["kernel.delta"].shape in ((len(t["kernel.alpha"]), n, 1), (len(t["kernel.alpha"]), 1, 1))
    p = sigmoid(t["kernel.delta"])
    kernel = p * t["kernel.beta"] * (1 - p * sigmoid(t["kernel.alpha"])) ** np.arange(u.shape[1])
    kernel = np.tile(kernel, (K // len(kernel), 1, 1))
    kernels = np.einsum("dnl,dn->dl", kernel, t["kernel.gamma"] / np.sqrt(n)).reshape(K // H, H, -1)
    return padded_fft(kernels, len(kernels) != len(t["D"]), u) + t["D"][:, :, None] * u


def mega_tensors(directions=1, seed=1):
    rng = np.random.default_rng(seed)
    rows = directions * H
    t = {name: rng.normal(size=(rows, N, 1)) for name in ("delta", "alpha", "beta")}
    return t | {"gamma": rng.normal(size=(rows, N)), "omega": rng.normal(size=H)}


def s4_tensors(c=1, p=1, shared=False, tied=False, seed=2):
    rng = np.random.default_rng(seed)
    rows = H if shared else p * H
    t = {f"kernel.{name}": rng.normal(size=(rows, N, 1)) for name in ("alpha", "beta")}
    t["kernel.delta"] = rng.normal(size=(rows, 1 if tied else N, 1))
    return t | {"kernel.gamma": rng.normal(size=(p * H, N)), "D": rng.normal(size=(c, H))}


def stored(tmp_path, tensors, dtype=np.float64, name="model.npz"):
    path = tmp_path / name
    write_file(
        path, OTHERS | {f"{PREFIX}.{key}": value.astype(dtype) for key, value in tensors.items()}, None, {}, overwrite=True
    )
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
    return {key.removeprefix(PREFIX + "."): value for key, value in tree.items()}


def assert_close(found, wanted, digits):
    np.testing.assert_allclose(found, wanted, rtol=0, atol=10.0**-digits * np.max(np.abs(wanted)))


CASES = {
    "Mega": ("ema", mega_tensors(), mega_output, {"truncation"}),
    "Mega, two directions": ("ema", mega_tensors(2), mega_output, {"truncation"}),
    "S4": ("ema-s4", s4_tensors(), s4_output, {"l_max"}),
    "S4, channels": ("ema-s4", s4_tensors(c=2, p=2), s4_output, {"l_max"}),
    "S4, two directions": ("ema-s4", s4_tensors(p=2, tied=True), s4_output, {"l_max"}),
    "S4, two directions with shared poles": ("ema-s4", s4_tensors(p=2, shared=True, tied=True), s4_output, {"l_max"}),
}


@pytest.mark.parametrize("case", CASES)
def test_the_systems_are_what_the_class_computes(tmp_path, case):
    name, tensors, output, asked = CASES[case]
    model = load(stored(tmp_path, tensors))
    assert model.source.format == name
    assert set(model.source.settings) == asked
    assert_close(outputs(model.blocks[0], U), output(tensors, U), 12)


def test_mega_in_transformers_has_other_names(tmp_path):
    tensors = mega_tensors(2)
    model = load(stored(tmp_path, {TRANSFORMERS[key]: value for key, value in tensors.items()}))
    assert model.source.format == "ema-transformers"
    assert_close(outputs(model.blocks[0], U), mega_output(tensors, U), 12)


def replaced(model, ssm):
    return replace(model, blocks=(replace(model.blocks[0], ssm=ssm),))


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("case", CASES)
def test_decays_are_written(tmp_path, case, dtype):
    """Slow and fast ones, one at zero, and a slot without output; the file has fewer slots than before."""
    _, tensors, output, _ = CASES[case]
    model = load(stored(tmp_path, tensors, dtype))
    old = model.blocks[0].ssm
    C = np.random.default_rng(4).normal(size=(H, old.n_outputs, 3))
    C[2, :, 1] = 0
    poles = np.array([[0.9, 0.2, 0.999], [0.0, 0.5, 1e-3], [0.6, -0.4, 0.3]])
    new = replaced(model, lqo.DiagonalLQOSystem(poles, np.full((H, 3, 1), 0.5), C, old.D, dt=1.0))
    new.save(tmp_path / "new.npz")
    written = layer_tensors(tmp_path / "new.npz")
    wanted = outputs(new.blocks[0], U)
    assert_close(output(written, U), wanted, 5)  # a pole at zero is stored as 1e-6
    assert_close(outputs(load(tmp_path / "new.npz").blocks[0], U), wanted, 5)
    assert {key: value.ndim for key, value in written.items()} == {key: value.ndim for key, value in tensors.items()}
    assert written[next(key for key in written if key.endswith("gamma"))].shape[1] == 3


def test_a_model_reduced_to_its_strongest_decays_comes_back(tmp_path):
    model = load(stored(tmp_path, mega_tensors(2), np.float32, "model.safetensors"))
    small = lqo.compress(model, state_size=6, method="modal").model
    small.save(tmp_path / "small.safetensors")
    tensors = layer_tensors(tmp_path / "small.safetensors")
    assert all(value.dtype == np.float32 for value in tensors.values())
    assert_close(mega_output(tensors, U), outputs(small.blocks[0], U), 5)


def test_both_directions_of_mega_share_the_feedthrough(tmp_path):
    model = load(stored(tmp_path, mega_tensors(2)))
    D = np.random.default_rng(1).normal(size=(H, 2, 1))
    new = replaced(model, replace(model.blocks[0].ssm, D=D))
    new.save(tmp_path / "new.npz")
    assert_close(mega_output(layer_tensors(tmp_path / "new.npz"), U), outputs(new.blocks[0], U), 10)


@pytest.mark.parametrize(
    ("poles", "words"),
    [(0.5 * np.exp(0.3j), "complex or negative"), (-0.5, "complex or negative.*native"), (1.5, "modulus 1.5")],
)
def test_other_poles_are_refused(tmp_path, poles, words):
    model = load(stored(tmp_path, mega_tensors()))
    ssm = lqo.DiagonalLQOSystem(np.full((H, 1), poles), np.ones((H, 1, 1)), np.ones((H, 1, 1)), model.blocks[0].ssm.D, dt=1.0)
    with pytest.raises(CheckpointError, match=words):
        replaced(model, ssm).save(tmp_path / "x.npz")
    assert not (tmp_path / "x.npz").exists()


def test_a_backward_feedthrough_is_refused_by_s4(tmp_path):
    model = load(stored(tmp_path, s4_tensors(p=2)))
    with pytest.raises(CheckpointError, match=r"feedthrough in its backward direction.*native"):
        replaced(model, replace(model.blocks[0].ssm, D=np.ones((H, 2, 1)))).save(tmp_path / "x.npz")


def test_a_truncated_kernel_is_announced(tmp_path):
    with pytest.warns(lqo.LQOWarning, match="end after truncation = 16 steps"):
        lqo.load_checkpoint(stored(tmp_path, mega_tensors()), settings={"truncation": 16})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"beta": None}, r"missing: encoder\.layers\.0\.move\.beta"),
        ({"gamma": None}, "missing: .*gamma"),
        ({"gamma": np.ones((H, N + 1))}, r"gamma has shape \(3, 5\)"),
        ({"alpha": np.ones((H, N))}, r"alpha has shape \(3, 4\)"),
        ({"delta": np.ones((H, 1, 1))}, r"delta has shape \(3, 1, 1\)"),
        ({"omega": np.ones(H + 1)}, "expected as many rows"),
        ({"delta": np.full((H, N, 1), np.inf)}, "not finite"),
    ],
)
def test_what_cannot_be_read_is_refused(tmp_path, change, words):
    tensors = {key: value for key, value in (mega_tensors() | change).items() if value is not None}
    with pytest.raises(CheckpointError, match=words):
        load(stored(tmp_path, tensors))
