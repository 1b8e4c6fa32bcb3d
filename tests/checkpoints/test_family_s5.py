"""S5 layers: the maps against recursions written from the description and the published module, and what is refused."""

import json

import numpy as np
import pytest

import lqo_mor as lqo
from lqo_mor.checkpoints.containers.files import read_file, write_file
from lqo_mor.checkpoints.families.registry import FAMILIES
from lqo_mor.checkpoints.layered import recognises
from lqo_mor.checkpoints.load import load_checkpoint
from lqo_mor.errors import AssumptionWarning, CheckpointError
from lqo_mor.systems.diagonal import DiagonalLQOSystem
from lqo_mor.systems.quadratic import QuadraticOutput
from tests.checkpoints.s4d_states import with_systems

PREFIX = "module.net.blocks.0.seq."
OTHERS = {"module.net.encoder.kernel": np.ones((3, 2), np.float32), "module.net.steps": np.arange(3)}
SETTINGS = {"conj_sym": True, "discretization": "zoh"}


def view(array):
    return np.stack([array.real, array.imag], axis=-1)


def s5_tensors(style, n=4, width=3, seed=0, precision=np.float64):
    """Random tensors; `style` is "jax", "jax-halves" (C1, C2), "jax-columns" (C with 2n columns), "torch" or "torch-columns"."""
    rng = np.random.default_rng(seed)
    columns = 2 * n if style.endswith("columns") else n

    def rows(*shape):
        return rng.normal(size=shape) + 1j * rng.normal(size=shape)

    A = -rng.uniform(0.2, 2, n) + 1j * rng.uniform(-20, 20, n)
    B, log_step, D = view(rows(n, width)), rng.uniform(-4, -2, n), rng.normal(size=width)
    if style.startswith("torch"):
        tensors = {"Lambda": A, "B": B, "C": rows(width, columns), "D": D, "log_step": log_step}
    else:
        names = ("C1", "C2") if style == "jax-halves" else ("C",)
        outputs = {name: view(rows(width, columns)) for name in names}
        tensors = {"Lambda_re": A.real, "Lambda_im": A.imag, "B": B, **outputs, "D": D, "log_step": log_step[:, np.newaxis]}
    kinds = {"f": precision, "c": np.result_type(precision, np.complex64)}
    return {name: value.astype(kinds[value.dtype.kind]) for name, value in tensors.items()}


def s5_output(t, u, conj_sym=True, discretization="zoh", clip_eigs=False, step_rescale=1.0):
    """The layer step by step, in the precision of the tensors: two recursions, one from each end, where C has 2n columns."""
    real = t["D"].dtype.type
    B = t["B"][..., 0] + 1j * t["B"][..., 1]
    if "Lambda" in t:
        A, C, dt, scale = t["Lambda"], t["C"], np.exp(t["log_step"]), 1
    else:
        A = (np.minimum(t["Lambda_re"], real(-1e-4)) if clip_eigs else t["Lambda_re"]) + 1j * t["Lambda_im"]
        C = np.concatenate([t[name][..., 0] + 1j * t[name][..., 1] for name in ("C", "C1", "C2") if name in t], axis=1)
        dt, scale = np.exp(t["log_step"][:, 0]), 2 if conj_sym else 1
    dt = real(step_rescale) * dt
    if discretization == "zoh":
        pole = np.exp(dt * A)
        factor = (pole - 1) / A
    else:
        pole, factor = (1 + dt / 2 * A) / (1 - dt / 2 * A), dt / (1 - dt / 2 * A)

    def states(sequence):
        x = np.zeros_like(pole)
        for now in sequence:
            x = pole * x + factor * (B @ now)
            yield x

    u = u.astype(real)
    x = np.array(list(states(u)))
    if C.shape[1] > len(pole):
        x = np.concatenate([x, np.array(list(states(u[::-1])))[::-1]], axis=1)
    return scale * (x @ C.T).real + t["D"] * u


def our_output(block, u):
    """Output of the system of a block, of which the second half of the outputs may run backward."""
    y = lqo.simulate(block.ssm, u, delay=0)
    if block.backward is None:
        return y
    assert block.backward == 0
    half = y.shape[1] // 2
    return y[:, :half] + lqo.simulate(block.ssm, u[::-1], delay=0)[::-1, half:]


def save_layer(path, tensors, **settings):
    write_file(path, OTHERS | {PREFIX + name: value for name, value in tensors.items()}, None, {}, overwrite=True)
    return load_checkpoint(path, settings=settings)


def stored_layer(path):
    state = read_file(path).tree
    assert OTHERS.keys() <= state.keys()
    return {key.removeprefix(PREFIX): value for key, value in state.items() if key.startswith(PREFIX)}


def difference(y, expected):
    return np.max(np.abs(y - expected)) / np.max(np.abs(expected))


@pytest.fixture
def u():
    return np.random.default_rng(5).normal(size=(64, 3))


def awkward_system(outputs=3, width=3):
    """A pair above and one below the axis, slow and negative real poles, a pole at zero, and an empty slot."""
    rng = np.random.default_rng(2)
    poles = np.array([0.9 * np.exp(0.4j), 0.8 * np.exp(-2j), 0.97, -0.9, 0.0, 0.5])
    B = rng.normal(size=(6, width)) + 1j * rng.normal(size=(6, width))
    C = rng.normal(size=(outputs, 6)) + 1j * rng.normal(size=(outputs, 6))
    B[2:], C[:, 2:] = B[2:].real, C[:, 2:].real
    B[5], C[:, 5] = 0, 0
    D = np.concatenate([np.diag(rng.normal(size=width)) for _ in range(outputs // width)])
    return DiagonalLQOSystem(poles, B, C, D, dt=1.0)


@pytest.mark.parametrize("style", ["jax", "jax-halves", "jax-columns"])
@pytest.mark.parametrize("discretization", ["zoh", "bilinear"])
@pytest.mark.parametrize("conj_sym", [True, False])
def test_system_is_that_of_the_layer(tmp_path, u, style, discretization, conj_sym):
    tensors, settings = s5_tensors(style), {"conj_sym": conj_sym, "discretization": discretization, "step_rescale": 0.7}
    model = save_layer(tmp_path / "model.npz", tensors, **settings)
    assert (model.source.format, model.source.settings, model.blocks[0].name) == ("s5", settings, "net.blocks.0.seq")
    assert difference(our_output(model.blocks[0], u), s5_output(tensors, u, **settings)) < 1e-12


@pytest.mark.parametrize("style", ["torch", "torch-columns"])
def test_system_is_that_of_the_torch_layer(tmp_path, u, style):
    tensors = s5_tensors(style)
    model = save_layer(tmp_path / "model.npz", tensors)
    assert (model.source.format, model.source.settings) == ("s5-torch", {})
    assert difference(our_output(model.blocks[0], u), s5_output(tensors, u)) < 1e-12
    model = save_layer(tmp_path / "other.npz", tensors, discretization="bilinear", step_rescale=2.0)
    assert difference(our_output(model.blocks[0], u), s5_output(tensors, u, discretization="bilinear", step_rescale=2)) < 1e-12


@pytest.mark.parametrize(
    ("names", "format"),
    [
        ("Lambda_re Lambda_im B C D log_step", "s5"),
        ("Lambda_re Lambda_im B C1 C2 D log_step", "s5"),
        ("Lambda B C D log_step", "s5-torch"),
        ("nu_log theta_log gamma_log B_re B_im C_re C_im D", "lru"),
        ("nu_log theta_log gamma_log B C D", "lru-torch"),
        ("A_re A_im B_re B_im C D log_step", "s4d-flax"),
        ("A_diag steps B C D", "linoss"),
        ("kernel.log_dt kernel.W kernel.Lambda D", "dss"),
        ("kernel.log_dt kernel.W kernel.Lambda_log_neg_re kernel.Lambda_im D", "dss"),
    ],
)
def test_names_that_look_alike_are_told_apart(names, format):
    keys = [f"net.layers.0.seq.{name}" for name in names.split()]
    assert [family.name for family in FAMILIES if recognises(family, keys)] == [format]


def test_settings_are_asked_where_they_matter(tmp_path, u):
    tensors = s5_tensors("jax")
    with pytest.warns(AssumptionWarning):
        model = save_layer(tmp_path / "model.npz", tensors)
    assert model.source.assumed == SETTINGS
    tensors["Lambda_re"][0] = 1e-3
    with pytest.warns(AssumptionWarning):
        model = save_layer(tmp_path / "model.npz", tensors)
    assert model.source.assumed == SETTINGS | {"clip_eigs": False}
    assert np.max(np.abs(model.blocks[0].ssm.poles)) > 1
    small = lqo.compress(model, state_size=4).model
    assert np.max(np.abs(small.blocks[0].ssm.poles)) == pytest.approx(np.max(np.abs(model.blocks[0].ssm.poles)), rel=1e-12)
    clipped = load_checkpoint(tmp_path / "model.npz", settings={"clip_eigs": True})
    assert np.max(np.abs(clipped.blocks[0].ssm.poles)) < 1
    assert difference(our_output(clipped.blocks[0], u), s5_output(tensors, u, clip_eigs=True)) < 1e-12


def test_settings_are_written_beside_the_file(tmp_path, u):
    settings = {"conj_sym": False, "discretization": "bilinear", "clip_eigs": True}
    model = save_layer(tmp_path / "model.npz", s5_tensors("jax"), **settings)
    result = lqo.compress(model, state_size=4, method="balanced")
    result.model.save(tmp_path / "small.npz")
    assert json.loads((tmp_path / "small.npz.json").read_text())["settings"] == settings
    again = load_checkpoint(tmp_path / "small.npz")
    assert (again.source.settings, again.source.assumed) == (settings, {})
    expected = our_output(result.model.blocks[0], u)
    assert difference(our_output(again.blocks[0], u), expected) < 1e-10
    assert difference(s5_output(stored_layer(tmp_path / "small.npz"), u, **settings), expected) < 1e-10


@pytest.mark.parametrize("conj_sym", [True, False])
def test_real_poles_with_complex_rows(tmp_path, u, conj_sym):
    """``Re(c b)`` has rank two: such a slot has two states, and one with real rows has one."""
    tensors = s5_tensors("jax")
    tensors["Lambda_im"][:2] = 0
    tensors["B"][1, :, 1] = tensors["C"][:, 1, 1] = 0
    ssm = save_layer(tmp_path / "model.npz", tensors, conj_sym=conj_sym).blocks[0].ssm
    assert ssm.order == 7
    assert difference(lqo.simulate(ssm, u, delay=0), s5_output(tensors, u, conj_sym=conj_sym)) < 1e-10


@pytest.mark.parametrize("style", ["jax", "jax-halves", "jax-columns", "torch", "torch-columns"])
@pytest.mark.parametrize("discretization", ["zoh", "bilinear"])
def test_all_kinds_of_poles_come_back(tmp_path, u, style, discretization):
    for precision, most in [(np.float64, 1e-10), (np.float32, 1e-5)]:
        tensors = s5_tensors(style, precision=precision)
        model = save_layer(tmp_path / "model.npz", tensors, discretization=discretization, step_rescale=0.5)
        ssm = awkward_system(model.blocks[0].ssm.n_outputs)
        small = with_systems(model, ssm)
        small.save(tmp_path / "new.npz", overwrite=True)
        new, expected = stored_layer(tmp_path / "new.npz"), our_output(small.blocks[0], u)
        assert {name: value.dtype for name, value in new.items()} == {name: value.dtype for name, value in tensors.items()}
        assert new["log_step"].shape == ((6, 1) if style.startswith("jax") else (6,))
        y = s5_output(new, u, discretization=discretization, step_rescale=0.5)
        assert difference(y, expected) < most
        again = load_checkpoint(tmp_path / "new.npz").blocks[0]
        assert np.array_equal(again.ssm.is_real_pole, ssm.is_real_pole)  # no order is won or lost
        assert difference(our_output(again, u), expected) < most


@pytest.mark.parametrize("suffix", ["safetensors", "npz", "pth"])
def test_reduced_layer(tmp_path, u, suffix):
    """Through a file in single precision, complex tensors included."""
    if suffix == "pth":
        pytest.importorskip("torch")
    old = s5_tensors("torch", n=6, precision=np.float32)
    model = save_layer(tmp_path / f"model.{suffix}", old)
    result = lqo.compress(model, state_size=6, method="balanced")
    result.model.save(tmp_path / f"small.{suffix}")
    new = stored_layer(tmp_path / f"small.{suffix}")
    assert {name: (value.shape, value.dtype) for name, value in new.items()} == {
        "Lambda": ((3,), np.complex64),
        "B": ((3, 3, 2), np.float32),
        "C": ((3, 3), np.complex64),
        "D": ((3,), np.float32),
        "log_step": ((3,), np.float32),
    }
    expected = our_output(result.model.blocks[0], u)
    assert difference(s5_output(new, u), expected) < 1e-5
    assert difference(expected, s5_output(old, u)) > 1e-4  # it was reduced


@pytest.mark.parametrize("bidirectional", [False, True])
def test_published_module(tmp_path, u, bidirectional):
    """s5-pytorch: its layer is read, reduced, and loads into the module with fewer states."""
    torch, s5 = pytest.importorskip("torch"), pytest.importorskip("s5")
    torch.manual_seed(1)

    class Net(torch.nn.Module):
        def __init__(self, states):
            super().__init__()
            self.encoder = torch.nn.Linear(2, 3)
            self.block = s5.S5Block(3, states, bidirectional)

    def output(net):
        return net.block.s5(torch.from_numpy(u[np.newaxis].astype(np.float32)))[0].detach().numpy()

    net = Net(8)
    torch.save(net.state_dict(), tmp_path / "model.pth")
    model = load_checkpoint(tmp_path / "model.pth", format="s5-torch")
    block = model.blocks[0]
    assert (block.name, block.backward) == ("block.s5.seq", 0 if bidirectional else None)
    assert difference(our_output(block, u), output(net)) < 1e-5
    for i, small in enumerate(
        [lqo.compress(model, state_size=8, method="balanced").model, with_systems(model, awkward_system(block.ssm.n_outputs))]
    ):
        path = tmp_path / f"small{i}.pth"
        small.save(path)
        new = Net(small.blocks[0].ssm.n_slots)
        new.load_state_dict(torch.load(path, weights_only=True))
        assert difference(output(new), our_output(small.blocks[0], u)) < 1e-5


def test_clipped_classes_get_a_smaller_step(tmp_path, u):
    """A decay slower than clip_eigs allows for the usual step."""
    tensors = s5_tensors("jax")
    model = save_layer(tmp_path / "model.npz", tensors, clip_eigs=True)
    rng = np.random.default_rng(3)
    poles = np.array([(1 - 1e-8) * np.exp(0.3j), 0.8 * np.exp(1j)])
    ssm = DiagonalLQOSystem(poles, rng.normal(size=(2, 3)), rng.normal(size=(3, 2)), dt=1.0)
    with_systems(model, ssm).save(tmp_path / "new.npz")
    new = stored_layer(tmp_path / "new.npz")
    assert np.all(new["Lambda_re"] < -1e-4)
    assert new["log_step"][1, 0] == pytest.approx(np.mean(tensors["log_step"]))
    assert difference(s5_output(new, u, clip_eigs=True), lqo.simulate(ssm, u, delay=0)) < 1e-10


def test_unstable_poles_are_written_where_the_class_has_them(tmp_path, u):
    ssm = DiagonalLQOSystem([1.01 * np.exp(0.3j), -1.02], np.ones((2, 3)), np.ones((3, 2)), dt=1.0)
    model = save_layer(tmp_path / "torch.npz", s5_tensors("torch"))
    with_systems(model, ssm).save(tmp_path / "new.npz")
    assert difference(s5_output(stored_layer(tmp_path / "new.npz"), u), lqo.simulate(ssm, u, delay=0)) < 1e-10
    model = save_layer(tmp_path / "jax.npz", s5_tensors("jax"), clip_eigs=False)
    with_systems(model, ssm).save(tmp_path / "new2.npz")
    assert difference(s5_output(stored_layer(tmp_path / "new2.npz"), u), lqo.simulate(ssm, u, delay=0)) < 1e-10
    for settings in ({}, {"clip_eigs": True}):
        model = load_checkpoint(tmp_path / "jax.npz", settings=settings)
        with pytest.raises(CheckpointError, match=r"modulus 1\.02.*clip_eigs"):
            with_systems(model, ssm).save(tmp_path / "x.npz")


@pytest.mark.parametrize(
    ("style", "change", "words"),
    [
        ("jax", lambda t: t.pop("log_step"), "missing: net.blocks.0.seq.log_step"),
        ("jax", lambda t: t.pop("Lambda_im"), "missing: net.blocks.0.seq.Lambda_im"),
        ("jax-halves", lambda t: t.pop("C2"), "missing: net.blocks.0.seq.C2"),
        ("jax-halves", lambda t: t.update(C=t["C1"]), "unexpected: net.blocks.0.seq.C"),
        ("torch", lambda t: t.pop("D"), "missing: net.blocks.0.seq.D"),
        ("jax", lambda t: t.update(C=t["C"][:, :3]), "net.blocks.0.seq.C has shape (3, 3, 2), expected (3, 4, 2)"),
        ("torch", lambda t: t.update(log_step=t["log_step"][:3]), "net.blocks.0.seq.log_step has shape (3,), expected (4,)"),
        ("torch", lambda t: t.update(C=t["C"].real), "net.blocks.0.seq.C holds float64, expected complex"),
        ("jax", lambda t: t.update(B=t["B"] * np.nan), "net.blocks.0.seq.B has 24 entries that are not finite"),
        ("jax", lambda t: t.update(log_step=np.full((4, 1), 800.0)), "net.blocks.0.seq: the state matrix and the steps"),
        ("torch", lambda t: t.update(Lambda=np.zeros(4, complex)), "net.blocks.0.seq: the state matrix and the steps"),
        ("torch", lambda t: t.update(BH=np.ones((3, 2))), "net.blocks.0.seq has factors BH"),
        ("jax", lambda t: t.update(P=np.ones((4, 3, 2))), "net.blocks.0.seq is a diagonal-plus-low-rank S4 layer"),
    ],
)
def test_damaged_tensors_are_named(tmp_path, style, change, words):
    tensors = s5_tensors(style)
    change(tensors)
    with pytest.raises(CheckpointError) as caught:
        save_layer(tmp_path / "bad.npz", tensors)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"conj_sym": 1}, "conj_sym = 1 is none of"),
        ({"discretization": "euler"}, "discretization = 'euler' is none of zoh, bilinear"),
        ({"step_rescale": 0}, "step_rescale = 0 must be"),
        ({"clip_eigs": "yes"}, "clip_eigs = 'yes' is none of"),
        ({"bidirectional": True}, "no setting bidirectional"),
    ],
)
def test_settings_out_of_range(tmp_path, settings, words):
    with pytest.raises(CheckpointError, match=words):
        save_layer(tmp_path / "model.npz", s5_tensors("jax"), **settings)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"D": np.ones((3, 3))}, 'feedthrough D from features.*format="native"'),
        ({"M": QuadraticOutput(np.ones((1, 1)), np.ones((1, 1)), np.ones((3, 1)))}, 'quadratic.*format="native"'),
        ({"B": np.full((1, 3), 1e39)}, "overflow"),
    ],
)
@pytest.mark.parametrize("style", ["jax", "torch"])
def test_what_the_class_cannot_hold_is_refused(tmp_path, style, change, words):
    model = save_layer(tmp_path / "model.npz", s5_tensors(style, precision=np.float32))
    fields = {"poles": [0.5], "B": np.ones((1, 3)), "C": np.ones((3, 1))} | change
    with pytest.raises(CheckpointError, match=words):
        with_systems(model, DiagonalLQOSystem(**fields, dt=1.0)).save(tmp_path / "x.npz")
