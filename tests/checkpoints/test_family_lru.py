"""LRU layers: the maps against recursions written from the description, reduced layers in classes, and what is refused."""

import numpy as np
import pytest

import lqo_mor as lqo
from lqo_mor.checkpoints.containers.files import read_file, write_file
from lqo_mor.checkpoints.load import load_checkpoint
from lqo_mor.errors import CheckpointError
from lqo_mor.systems.diagonal import DiagonalLQOSystem
from lqo_mor.systems.quadratic import QuadraticOutput
from tests.checkpoints.s4d_states import with_systems

PREFIX = "module.net.blocks.0.seq."
OTHERS = {"module.net.encoder.weight": np.ones((3, 2), np.float32), "module.net.steps": np.arange(3)}


def lru_tensors(style, n=4, width=3, outputs=None, seed=0, precision=np.float64):
    """Random tensors; `style` is "jax", "torch" (D full) or "torch-diagonal"."""
    rng = np.random.default_rng(seed)
    p = outputs or width
    tensors = {
        "nu_log": np.log(-np.log(rng.uniform(0.5, 0.999, n))),
        "theta_log": np.log(rng.uniform(0.05, 6.28, n)),
        "gamma_log": rng.normal(size=n),
    }
    B = rng.normal(size=(n, width)) + 1j * rng.normal(size=(n, width))
    C = rng.normal(size=(p, n)) + 1j * rng.normal(size=(p, n))
    if style == "jax":
        tensors |= {"B_re": B.real, "B_im": B.imag, "C_re": C.real, "C_im": C.imag}
    tensors = {name: value.astype(precision) for name, value in tensors.items()}
    if style != "jax":
        tensors |= {name: value.astype(np.result_type(precision, np.complex64)) for name, value in {"B": B, "C": C}.items()}
    return tensors | {"D": rng.normal(size=(p, width) if style == "torch" else p).astype(precision)}


def lru_output(tensors, u):
    """``x = λ x + γ B u, y = Re(C x) + D u`` step by step, in the precision of the tensors."""
    t = tensors
    B, C = (t["B_re"] + 1j * t["B_im"], t["C_re"] + 1j * t["C_im"]) if "B_re" in t else (t["B"], t["C"])
    pole = np.exp(-np.exp(t["nu_log"]) + 1j * np.exp(t["theta_log"]))
    x, y = np.zeros_like(pole), []
    for now in u.astype(t["D"].dtype):
        x = pole * x + np.exp(t["gamma_log"]) * (B @ now)
        y.append((C @ x).real + (t["D"] * now if t["D"].ndim == 1 else t["D"] @ now))
    return np.array(y)


def save_layer(path, tensors):
    write_file(path, OTHERS | {PREFIX + name: value for name, value in tensors.items()}, None, {}, overwrite=True)
    return load_checkpoint(path)


def stored_layer(path):
    state = read_file(path).tree
    assert OTHERS.keys() <= state.keys()
    return {key.removeprefix(PREFIX): value for key, value in state.items() if key.startswith(PREFIX)}


def difference(y, expected):
    return np.max(np.abs(y - expected)) / np.max(np.abs(expected))


@pytest.fixture
def u():
    return np.random.default_rng(5).normal(size=(64, 3))


def awkward_system(D, outputs=3):
    """A pair above and one below the axis, real poles of both signs, a pole at zero, and an empty slot."""
    rng = np.random.default_rng(2)
    poles = np.array([0.9 * np.exp(0.4j), 0.8 * np.exp(-2j), 0.97, -0.9, 0.0, 0.5])
    B = rng.normal(size=(6, 3)) + 1j * rng.normal(size=(6, 3))
    C = rng.normal(size=(outputs, 6)) + 1j * rng.normal(size=(outputs, 6))
    B[2:], C[:, 2:] = B[2:].real, C[:, 2:].real
    B[5], C[:, 5] = 0, 0
    return DiagonalLQOSystem(poles, B, C, D, dt=1.0)


@pytest.mark.parametrize(
    ("style", "format", "outputs"),
    [("jax", "lru", 3), ("torch", "lru-torch", 3), ("torch", "lru-torch", 2), ("torch-diagonal", "lru-torch", 3)],
)
def test_system_is_that_of_the_layer(tmp_path, u, style, format, outputs):
    tensors = lru_tensors(style, outputs=outputs)
    model = save_layer(tmp_path / "model.npz", tensors)
    assert (model.source.format, model.source.settings, model.blocks[0].name) == (format, {}, "net.blocks.0.seq")
    assert difference(lqo.simulate(model.blocks[0].ssm, u, delay=0), lru_output(tensors, u)) < 1e-12


def test_a_real_pole_with_complex_rows_has_two_states(tmp_path, u):
    """``Re(c b)`` has rank two; at the angle 0, at π, and at a modulus that underflows."""
    tensors = lru_tensors("jax")
    tensors["theta_log"][:3] = -800.0, np.log(np.pi), 0.3
    tensors["nu_log"][2] = 7.0
    ssm = save_layer(tmp_path / "model.npz", tensors).blocks[0].ssm
    assert ssm.order == 8
    assert difference(lqo.simulate(ssm, u, delay=0), lru_output(tensors, u)) < 1e-10


@pytest.mark.parametrize(
    ("suffix", "style"), [("safetensors", "jax"), ("safetensors", "torch"), ("npz", "torch"), ("pth", "torch")]
)
def test_reduced_layer(tmp_path, u, suffix, style):
    """Through a file in single precision; the recursion in single precision reads what was written."""
    if suffix == "pth":
        pytest.importorskip("torch")
    old = lru_tensors(style, n=6, precision=np.float32)
    model = save_layer(tmp_path / f"model.{suffix}", old)
    result = lqo.compress(model, state_size=6, method="balanced")
    result.model.save(tmp_path / f"small.{suffix}")
    new = stored_layer(tmp_path / f"small.{suffix}")
    assert {name: value.dtype for name, value in new.items()} == {name: value.dtype for name, value in old.items()}
    assert new["nu_log"].shape == new["gamma_log"].shape == (3,)
    if style == "torch":
        assert (new["B"].shape, new["C"].shape, new["B"].dtype) == ((3, 3), (3, 3), np.complex64)
    expected = lqo.simulate(result.model.blocks[0].ssm, u, delay=0)
    assert difference(lru_output(new, u), expected) < 3e-6
    assert difference(expected, lru_output(old, u)) > 1e-4  # it was reduced


@pytest.mark.parametrize(("style", "precision", "most"), [("jax", np.float64, 1e-12), ("torch", np.float32, 1e-5)])
def test_all_kinds_of_poles_come_back(tmp_path, u, style, precision, most):
    tensors = lru_tensors(style, precision=precision)
    model = save_layer(tmp_path / "model.npz", tensors)
    ssm = awkward_system(model.blocks[0].ssm.D)
    with_systems(model, ssm).save(tmp_path / "new.npz")
    new, expected = stored_layer(tmp_path / "new.npz"), lqo.simulate(ssm, u, delay=0)
    assert difference(lru_output(new, u), expected) < most
    angles = np.exp(new["theta_log"].astype(float))
    assert np.all(angles <= np.pi + 1e-6)
    again = load_checkpoint(tmp_path / "new.npz").blocks[0].ssm
    assert np.array_equal(again.is_real_pole, ssm.is_real_pole)  # no order is won or lost
    assert difference(lqo.simulate(again, u, delay=0), expected) < most


def test_reduced_layer_loads_into_a_module(tmp_path, u):
    torch = pytest.importorskip("torch")

    class LRU(torch.nn.Module):
        def __init__(self, inputs, outputs, states):
            super().__init__()
            for name in ("nu_log", "theta_log", "gamma_log"):
                setattr(self, name, torch.nn.Parameter(torch.zeros(states)))
            self.B = torch.nn.Parameter(torch.zeros(states, inputs, dtype=torch.complex64))
            self.C = torch.nn.Parameter(torch.zeros(outputs, states, dtype=torch.complex64))
            self.D = torch.nn.Parameter(torch.zeros(outputs, inputs))

        def forward(self, u):
            modulus, angle = torch.exp(-torch.exp(self.nu_log)), torch.exp(self.theta_log)
            pole = torch.complex(modulus * torch.cos(angle), modulus * torch.sin(angle))
            B, x, y = torch.exp(self.gamma_log).unsqueeze(-1) * self.B, torch.zeros_like(pole), []
            for now in u:
                x = pole * x + B @ now.to(B.dtype)
                y.append((self.C @ x).real + self.D @ now)
            return torch.stack(y)

    model = save_layer(tmp_path / "model.pth", lru_tensors("torch", precision=np.float32))
    ssm = awkward_system(model.blocks[0].ssm.D)
    with_systems(model, ssm).save(tmp_path / "new.pth")
    state = torch.load(tmp_path / "new.pth", weights_only=True)
    module = LRU(3, 3, 6)
    module.load_state_dict({key.removeprefix(PREFIX): value for key, value in state.items() if key.startswith(PREFIX)})
    y = module(torch.from_numpy(u.astype(np.float32))).detach().numpy()
    assert difference(y, lqo.simulate(ssm, u, delay=0)) < 1e-5


def test_unchanged_layer_is_written_bit_by_bit(tmp_path):
    tensors = lru_tensors("torch", precision=np.float32)
    save_layer(tmp_path / "model.safetensors", tensors).save(tmp_path / "again.safetensors")
    again = stored_layer(tmp_path / "again.safetensors")
    assert all(np.array_equal(again[name], value) and again[name].dtype == value.dtype for name, value in tensors.items())


@pytest.mark.parametrize(
    ("style", "change", "words"),
    [
        ("jax", lambda t: t.pop("C_im"), "missing: net.blocks.0.seq.C_im"),
        ("jax", lambda t: t.pop("theta_log"), "missing: net.blocks.0.seq.theta_log"),
        ("torch", lambda t: t.pop("nu_log"), "missing: net.blocks.0.seq.nu_log"),
        ("jax", lambda t: t.update(B_re=t["B_re"].T), "net.blocks.0.seq.B_re has shape (3, 4)"),
        ("torch", lambda t: t.update(B=t["B"].real), "net.blocks.0.seq.B holds float64, expected complex"),
        ("torch", lambda t: t.update(D=np.ones((3, 4))), "net.blocks.0.seq.D has shape (3, 4), expected (3, 3)"),
        ("torch", lambda t: t.update(D=np.ones(3), C=t["C"][:2]), "net.blocks.0.seq.B has shape (4, 3), expected (4, 2)"),
        ("jax", lambda t: t.update(nu_log=np.full(4, np.nan)), "net.blocks.0.seq.nu_log has 4 entries that are not finite"),
        ("jax", lambda t: t.update(theta_log=np.full(4, 800.0)), "net.blocks.0.seq: theta_log or gamma_log"),
        ("jax", lambda t: t.update(gamma_log=np.full(4, 800.0)), "net.blocks.0.seq: theta_log or gamma_log"),
    ],
)
def test_damaged_tensors_are_named(tmp_path, style, change, words):
    tensors = lru_tensors(style)
    change(tensors)
    with pytest.raises(CheckpointError) as caught:
        save_layer(tmp_path / "bad.npz", tensors)
    assert words in str(caught.value)


def test_an_unknown_setting_is_refused(tmp_path):
    save_layer(tmp_path / "model.npz", lru_tensors("jax"))
    with pytest.raises(CheckpointError, match="no setting conj_sym"):
        load_checkpoint(tmp_path / "model.npz", settings={"conj_sym": True})


@pytest.mark.parametrize(
    ("style", "change", "words"),
    [
        ("jax", {"D": np.ones((3, 3))}, 'feedthrough D from features.*format="native"'),
        ("torch", {"poles": np.full(6, 1.01)}, "modulus 1.01"),
        ("jax", {"M": QuadraticOutput(np.ones((1, 1)), np.ones((1, 1)), np.ones((3, 1)))}, 'quadratic.*format="native"'),
    ],
)
def test_what_the_class_cannot_hold_is_refused(tmp_path, style, change, words):
    model = save_layer(tmp_path / "model.npz", lru_tensors(style))
    n = change.get("poles", np.ones(1)).size
    fields = {"poles": np.full(1, 0.5), "B": np.ones((n, 3)), "C": np.ones((3, n))} | change
    with pytest.raises(CheckpointError, match=words):
        with_systems(model, DiagonalLQOSystem(**fields, dt=1.0)).save(tmp_path / "x.npz")


def test_full_feedthrough_is_stored_where_the_class_has_it(tmp_path, u):
    model = save_layer(tmp_path / "model.npz", lru_tensors("torch"))
    ssm = awkward_system(np.random.default_rng(8).normal(size=(3, 3)))
    with_systems(model, ssm).save(tmp_path / "new.npz")
    assert difference(lru_output(stored_layer(tmp_path / "new.npz"), u), lqo.simulate(ssm, u, delay=0)) < 1e-12
