"""S4D layers of the annotated S4D: the map against its kernel, reduced layers, and what is refused."""

import numpy as np
import pytest

import lqo_mor as lqo
from lqo_mor.checkpoints.containers.files import read_file, write_file
from lqo_mor.checkpoints.load import load_checkpoint
from lqo_mor.errors import CheckpointError
from lqo_mor.systems.quadratic import QuadraticOutput
from tests.checkpoints.s4d_states import awkward_channels, with_systems

PREFIX = "params.encoder.layers_0.seq."
OTHERS = {"params.encoder.encoder.kernel": np.ones((1, 3), np.float32)}
STEPS = 64


def tensors_of_layer(n=4, width=3, seed=0, precision=np.float64):
    rng = np.random.default_rng(seed)
    tensors = {
        "A_re": -rng.uniform(0.1, 1, (n, width)),
        "A_im": rng.uniform(-30, 30, (n, width)),
        "B_re": rng.normal(size=(n, width)),
        "B_im": rng.normal(size=(n, width)),
        "C": rng.normal(size=(n, width, 2)),
        "D": rng.normal(size=(1, width)),
        "log_step": rng.uniform(-4, -2, (1, width)),
    }
    tensors["A_re"][0, 0] = 0.5  # the class takes -1e-4
    return {name: value.astype(precision) for name, value in tensors.items()}


def kernels(t):
    """``Re Σ C B (e^{dt A} - 1)/A e^{l dt A}`` and D at lag 0, feature by feature: (features, steps)."""
    rows = []
    for h in range(t["D"].shape[1]):
        A = np.minimum(t["A_re"][:, h], t["D"].dtype.type(-1e-4)) + 1j * t["A_im"][:, h]
        dt, C = np.exp(t["log_step"][0, h]), t["C"][:, h, 0] + 1j * t["C"][:, h, 1]
        weights = C * (t["B_re"][:, h] + 1j * t["B_im"][:, h]) * (np.exp(dt * A) - 1) / A
        rows.append((weights @ np.exp(np.outer(dt * A, np.arange(STEPS)))).real)
        rows[-1][0] += t["D"][0, h]
    return np.array(rows)


def our_kernels(ssm):
    impulse = np.zeros((STEPS, 1))
    impulse[0] = 1
    return lqo.simulate(ssm, impulse, delay=0)[..., 0]


def save_layer(path, tensors):
    write_file(path, OTHERS | {PREFIX + name: value for name, value in tensors.items()}, None, {}, overwrite=True)
    return load_checkpoint(path)


def stored_layer(path):
    state = read_file(path).tree
    assert OTHERS.keys() <= state.keys()
    return {key.removeprefix(PREFIX): value for key, value in state.items() if key.startswith(PREFIX)}


def difference(y, expected):
    return np.max(np.abs(y - expected)) / np.max(np.abs(expected))


def test_system_is_that_of_the_layer(tmp_path):
    tensors = tensors_of_layer()
    tensors["A_im"][1, 1] = 0  # real, with a complex product of which the real part counts
    model = save_layer(tmp_path / "model.npz", tensors)
    assert (model.source.format, model.source.settings, model.blocks[0].ssm.batch) == ("s4d-flax", {}, (3,))
    assert model.blocks[0].ssm.order.tolist() == [8, 7, 8]
    assert difference(our_kernels(model.blocks[0].ssm), kernels(tensors)) < 1e-12


def test_reduced_layer(tmp_path):
    old = tensors_of_layer(n=6, precision=np.float32)
    result = lqo.compress(save_layer(tmp_path / "model.safetensors", old), state_size=6, method="balanced")
    result.model.save(tmp_path / "small.safetensors")
    new = stored_layer(tmp_path / "small.safetensors")
    assert (new["A_re"].shape, new["C"].shape, new["C"].dtype) == ((3, 3), (3, 3, 2), np.float32)
    expected = our_kernels(result.model.blocks[0].ssm)
    assert difference(kernels(new), expected) < 1e-5
    assert difference(expected, kernels(old)) > 1e-5  # it was reduced


@pytest.mark.parametrize(("precision", "most"), [(np.float64, 1e-10), (np.float32, 1e-5)])
def test_all_kinds_of_poles_come_back(tmp_path, precision, most):
    model = save_layer(tmp_path / "model.npz", tensors_of_layer(precision=precision))
    ssm = awkward_channels(1, 3, 3, model.blocks[0].ssm.D)
    with_systems(model, ssm).save(tmp_path / "new.npz")
    new, expected = stored_layer(tmp_path / "new.npz"), our_kernels(ssm)
    assert difference(kernels(new), expected) < most
    again = load_checkpoint(tmp_path / "new.npz").blocks[0].ssm
    assert np.array_equal(again.is_real_pole, ssm.is_real_pole)
    assert difference(our_kernels(again), expected) < most


def test_slow_poles_get_a_smaller_step(tmp_path):
    model = save_layer(tmp_path / "model.npz", tensors_of_layer())
    ssm = awkward_channels(1, 3, 3, None)
    ssm = lqo.DiagonalLQOSystem(np.where(ssm.is_real_pole, 1 - 1e-9, ssm.poles), ssm.B, ssm.C, dt=1.0)
    with_systems(model, ssm).save(tmp_path / "new.npz")
    new = stored_layer(tmp_path / "new.npz")
    assert np.all(new["A_re"] < -1e-4)
    assert difference(kernels(new), our_kernels(ssm)) < 1e-7  # the published formula loses digits of (e^{dt A} - 1)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.pop("B_im"), "missing: encoder.layers_0.seq.B_im"),
        (lambda t: t.update(C=t["C"][:3]), "seq.C has shape (3, 3, 2), expected (4, 3, 2)"),
        (lambda t: t.update(D=np.full((1, 3), np.inf)), "seq.D has 3 entries that are not finite"),
        (lambda t: t.update(log_step=np.full((1, 3), 800.0)), "seq: the state matrix and the steps"),
    ],
)
def test_damaged_tensors_are_named(tmp_path, change, words):
    tensors = tensors_of_layer()
    change(tensors)
    with pytest.raises(CheckpointError) as caught:
        save_layer(tmp_path / "bad.npz", tensors)
    assert words in str(caught.value)


@pytest.mark.parametrize("words", ["modulus 1.01", 'quadratic.*format="native"'])
def test_what_the_class_cannot_hold_is_refused(tmp_path, words):
    model = save_layer(tmp_path / "model.npz", tensors_of_layer())
    shapes = (np.ones((3, 1, 1)), np.ones((3, 1, 1)), np.ones((3, 1, 1)))
    quadratic = QuadraticOutput(*shapes) if "quadratic" in words else None
    pole = 0.5 if quadratic else 1.01
    ssm = lqo.DiagonalLQOSystem(np.full((3, 1), pole), *shapes, M=quadratic, dt=1.0)
    with pytest.raises(CheckpointError, match=words):
        with_systems(model, ssm).save(tmp_path / "x.npz")
