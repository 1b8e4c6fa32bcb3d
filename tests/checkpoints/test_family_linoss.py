"""LinOSS layers: the map against a recursion written from the description, oscillators kept in the class, and what is refused."""

import json
from dataclasses import replace

import numpy as np
import pytest

import lqo_mor as lqo
from lqo_mor.checkpoints.containers.files import read_file, write_file
from lqo_mor.checkpoints.families.in_class import keep_oscillators
from lqo_mor.checkpoints.load import load_checkpoint
from lqo_mor.errors import CheckpointError, InvalidInputError, OrderError, UnstableSystemError
from tests.checkpoints.s4d_states import with_systems

PREFIXES = ["module.net.blocks.0.lin.", "module.net.blocks.1.lin."]
OTHERS = {"module.net.encoder.weight": np.ones((3, 2), np.float32), "module.net.steps": np.arange(3)}
RULES = ["IM", "IMEX"]


def linoss_tensors(n=4, width=3, seed=0, dtype=np.float64):
    rng = np.random.default_rng(seed)
    shapes = {"A_diag": (n,), "steps": (n,), "B": (n, width, 2), "C": (width, n, 2), "D": (width,)}
    tensors = {name: rng.normal(size=shape) for name, shape in shapes.items()}
    return {name: (np.abs(value) if name == "A_diag" else value).astype(dtype) for name, value in tensors.items()}


def linoss_output(tensors, u, rule):
    """Velocity and position step by step, in the precision of the tensors; IM solves for both at once."""
    t = tensors
    A, s = np.maximum(t["A_diag"], 0), 1 / (1 + np.exp(-t["steps"]))
    B, C = t["B"][..., 0] + 1j * t["B"][..., 1], t["C"][..., 0] + 1j * t["C"][..., 1]
    v, w, y = np.zeros_like(B[:, 0]), np.zeros_like(B[:, 0]), []
    for now in u.astype(t["D"].dtype):
        f = B @ now
        v = (v + s * (f - A * w)) / (1 + s**2 * A) if rule == "IM" else v + s * (f - A * w)
        w = w + s * v
        y.append((C @ w).real + t["D"] * now)
    return np.array(y)


def save_layers(path, *layers):
    state = {prefix + name: value for prefix, tensors in zip(PREFIXES, layers, strict=False) for name, value in tensors.items()}
    write_file(path, OTHERS | state, None, {})
    return path


def difference(y, expected):
    return np.max(np.abs(y - expected)) / np.max(np.abs(expected))


def output(ssm, u):
    return lqo.simulate(ssm, u, delay=0)


@pytest.fixture
def u():
    return np.random.default_rng(5).normal(size=(64, 3))


@pytest.mark.parametrize("rule", RULES)
def test_layer_is_the_recursion(tmp_path, u, rule):
    tensors = linoss_tensors()
    model = load_checkpoint(save_layers(tmp_path / "x.npz", tensors), settings={"discretization": rule})
    assert (model.source.format, model.blocks[0].name, model.blocks[0].ssm.n_slots) == ("linoss", "net.blocks.0.lin", 8)
    expected = linoss_output(tensors, u, rule)
    assert difference(output(model.blocks[0].ssm, u), expected) < 1e-12
    other = {"IM": "IMEX", "IMEX": "IM"}[rule]
    assert difference(output(model.blocks[0].ssm, u), linoss_output(tensors, u, other)) > 0.01


@pytest.mark.parametrize("rule", RULES)
def test_an_oscillator_without_a_spring_is_a_ramp(tmp_path, u, rule):
    tensors = linoss_tensors()
    tensors["A_diag"][:2] = [-0.3, 0.0]  # relu gives zero for both: a double pole at 1
    model = load_checkpoint(save_layers(tmp_path / "x.npz", tensors), settings={"discretization": rule})
    assert difference(output(model.blocks[0].ssm, u), linoss_output(tensors, u, rule)) < 1e-7


def test_the_name_of_the_steps_in_the_later_repository(tmp_path, u):
    tensors = linoss_tensors()
    tensors["dt"] = tensors.pop("steps")
    model = load_checkpoint(save_layers(tmp_path / "x.npz", tensors))
    assert difference(output(model.blocks[0].ssm, u), linoss_output(linoss_tensors(), u, "IM")) < 1e-12
    keep_oscillators(model, 3).save(tmp_path / "y.npz")
    assert read_file(tmp_path / "y.npz").tree[PREFIXES[0] + "dt"].shape == (3,)


@pytest.mark.parametrize("suffix", [".npz", ".safetensors", ".pth"])
@pytest.mark.parametrize(("rule", "horizon"), [("IM", None), ("IM", 64), ("IMEX", 64)])
def test_kept_oscillators_load_into_the_class(tmp_path, u, rule, horizon, suffix):
    if suffix == ".pth":
        pytest.importorskip("torch")
    tensors = linoss_tensors(6, dtype=np.float32)
    path = save_layers(tmp_path / f"x{suffix}", tensors)
    small = keep_oscillators(load_checkpoint(path, settings={"discretization": rule}), 4, horizon)
    small.save(tmp_path / f"y{suffix}")
    state = read_file(tmp_path / f"y{suffix}").tree
    assert all(np.array_equal(state[key], value) for key, value in OTHERS.items())
    stored = {key.removeprefix(PREFIXES[0]): value for key, value in state.items() if key not in OTHERS}
    shapes = {"A_diag": (4,), "steps": (4,), "B": (4, 3, 2), "C": (3, 4, 2), "D": (3,)}
    assert {name: (value.shape, value.dtype) for name, value in stored.items()} == {
        name: (shape, np.float32) for name, shape in shapes.items()
    }
    assert set(stored["A_diag"]) < set(tensors["A_diag"])
    expected = linoss_output({name: value.astype(float) for name, value in stored.items()}, u, rule)
    assert difference(output(small.blocks[0].ssm, u), expected) < 1e-6
    again = load_checkpoint(tmp_path / f"y{suffix}")
    assert again.source.settings == {"discretization": rule}
    assert again.source.assumed == {}
    assert json.loads((tmp_path / f"y{suffix}.json").read_text())["settings"] == {"discretization": rule}


@pytest.mark.parametrize(("rule", "horizon"), [("IM", None), ("IMEX", 40)])
def test_output_weights_are_a_least_squares_fit(tmp_path, rule, horizon):
    """The best weights for the oscillators that were kept, from impulse responses of the recursion."""
    tensors, steps = linoss_tensors(7), horizon or 3000
    model = load_checkpoint(save_layers(tmp_path / "x.npz", tensors), settings={"discretization": rule})
    small = keep_oscillators(model, 4, horizon)
    impulse, zero = np.zeros((steps, 3)), {name: np.zeros_like(value) for name, value in tensors.items() if name in "CD"}

    def responses(**changed):
        outputs = []
        for channel in range(3):
            impulse[0] = np.eye(3)[channel]
            outputs.append(linoss_output(tensors | zero | changed, impulse, rule))
        return np.array(outputs)  # input, step, output

    full = responses(C=tensors["C"])
    kept = [int(np.argmin(np.abs(model.blocks[0].ssm.poles[::2] - pole))) for pole in small.blocks[0].ssm.poles[::2]]
    regressors = []
    for oscillator in kept:
        for part in range(2):
            C = np.zeros_like(tensors["C"])
            C[0, oscillator, part] = 1
            regressors.append(responses(C=C)[..., 0].ravel())
    design = np.array(regressors).T
    target = full.transpose(2, 0, 1).reshape(3, -1).T
    best = np.linalg.norm(target - design @ np.linalg.lstsq(design, target, rcond=None)[0])
    error = lqo.h2_error(model.blocks[0].ssm, small.blocks[0].ssm, horizon)
    assert best <= error * (1 + 1e-9)
    assert error <= best * (1 + 2e-4)  # the ridge
    plain = full - responses(C=np.where(np.isin(np.arange(7), kept)[:, None], tensors["C"], 0))
    assert error < 0.99 * np.linalg.norm(plain)


def test_important_oscillators_are_kept(tmp_path):
    tensors = linoss_tensors(6)
    tensors["C"][:, [0, 2, 5]] *= 1e-3
    small = keep_oscillators(load_checkpoint(save_layers(tmp_path / "x.npz", tensors)), 3)
    small.save(tmp_path / "y.npz")
    assert np.array_equal(read_file(tmp_path / "y.npz").tree[PREFIXES[0] + "A_diag"], tensors["A_diag"][[1, 3, 4]])


def test_layers_of_different_size_are_filled_up(tmp_path, u):
    layers = linoss_tensors(5), linoss_tensors(3, seed=1)
    small = keep_oscillators(load_checkpoint(save_layers(tmp_path / "x.npz", *layers)), 4)
    assert small.blocks[1] is not None
    assert small.blocks[1].ssm.n_slots == 6
    small.save(tmp_path / "y.npz")
    state = read_file(tmp_path / "y.npz").tree
    for prefix, block in zip(PREFIXES, small.blocks, strict=True):
        stored = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
        assert stored["B"].shape == (4, 3, 2)
        assert difference(linoss_output(stored, u, "IM"), output(block.ssm, u)) < 1e-10
    smaller = keep_oscillators(load_checkpoint(tmp_path / "y.npz"), 3)
    smaller.save(tmp_path / "z.npz")
    assert load_checkpoint(tmp_path / "z.npz").blocks[1].ssm.n_slots == 6


def test_oscillators_without_input_or_output_do_no_harm(tmp_path):
    tensors = linoss_tensors(5)
    tensors["B"][1], tensors["C"][:, 2], tensors["B"][3, :, 1] = 0, 0, 0
    model = load_checkpoint(save_layers(tmp_path / "x.npz", tensors))
    small = keep_oscillators(model, 3)
    assert lqo.h2_error(model.blocks[0].ssm, small.blocks[0].ssm, relative=True) < 1e-6
    small.save(tmp_path / "y.npz")


def test_reduced_systems_do_not_fit_but_can_be_stored(tmp_path, u):
    model = load_checkpoint(save_layers(tmp_path / "x.npz", linoss_tensors()), settings={"discretization": "IMEX"})
    with pytest.raises(UnstableSystemError):
        lqo.compress(model, state_size=8)
    small = lqo.compress(model, state_size=8, horizon=64).model
    with pytest.raises(CheckpointError, match=r"net\.blocks\.0\.lin .* keep_oscillators.* save\(\.\.\., format=\"native\"\)"):
        small.save(tmp_path / "y.npz")
    assert not (tmp_path / "y.npz").exists()
    small.save(tmp_path / "z.npz", format="native")
    again = load_checkpoint(tmp_path / "z.npz")
    assert difference(output(again.blocks[0].ssm, u), output(small.blocks[0].ssm, u)) < 1e-9


def test_systems_that_only_look_like_oscillators(tmp_path):
    model = load_checkpoint(save_layers(tmp_path / "x.npz", linoss_tensors()))
    ssm = model.blocks[0].ssm
    for changed in (
        replace(ssm, C=ssm.C * 1j),
        replace(ssm, B=ssm.B * 2),
        replace(ssm, poles=ssm.poles * 0.99),
        replace(ssm, poles=ssm.poles[1:], B=ssm.B[1:], C=ssm.C[:, 1:]),
        replace(ssm, poles=ssm.poles[:3], B=ssm.B[:3], C=ssm.C[:, :3]),
    ):
        with pytest.raises(CheckpointError, match="not made of oscillators"):
            with_systems(model, changed).save(tmp_path / "y.npz")
    with pytest.raises(CheckpointError, match="feedthrough"):
        with_systems(model, replace(ssm, D=np.ones((3, 3)))).save(tmp_path / "y.npz")


def test_an_unchanged_model_is_written_bit_by_bit(tmp_path):
    path = save_layers(tmp_path / "x.npz", linoss_tensors())
    load_checkpoint(path).save(tmp_path / "y.npz")
    again = read_file(tmp_path / "y.npz").tree
    assert all(np.array_equal(again[key], value) for key, value in read_file(path).tree.items())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.pop("steps"), "missing: steps"),
        (lambda t: t.pop("B"), "missing: B"),
        (lambda t: t.update(C=t["C"][:, :2]), "C has shape"),
        (lambda t: t.update(D=np.ones((3, 3))), "D has shape"),
        (lambda t: t["B"].__setitem__((0, 0, 0), np.nan), "B has 1 entries that are not finite"),
        (lambda t: t.update(G_diag=np.ones(4)), "D-LinOSS"),
    ],
)
def test_damaged_layers_are_named(tmp_path, change, words):
    tensors = linoss_tensors()
    change(tensors)
    with pytest.raises(CheckpointError, match=words):
        load_checkpoint(save_layers(tmp_path / "x.npz", tensors))


def test_settings_out_of_range_and_oscillators_that_grow(tmp_path):
    tensors = linoss_tensors()
    with pytest.raises(CheckpointError, match="discretization = 'ZOH' is none of IM, IMEX"):
        load_checkpoint(save_layers(tmp_path / "x.npz", tensors), settings={"discretization": "ZOH"})
    tensors["A_diag"][2], tensors["steps"][2] = 5.0, 10.0
    path = save_layers(tmp_path / "y.npz", tensors)
    with pytest.raises(CheckpointError, match=r"oscillator 2 grows .* is the discretization IM\?"):
        load_checkpoint(path, settings={"discretization": "IMEX"})
    assert load_checkpoint(path, settings={"discretization": "IM"}).blocks[0].ssm.n_slots == 8


def test_numbers_of_oscillators_are_checked(tmp_path):
    model = load_checkpoint(save_layers(tmp_path / "x.npz", linoss_tensors()))
    for count, words in [(0, "positive integer"), (True, "positive integer"), (4, "no more than 4 oscillators")]:
        with pytest.raises(OrderError, match=words):
            keep_oscillators(model, count)
    with pytest.raises(InvalidInputError, match="not made of oscillators"):
        keep_oscillators(lqo.compress(model, state_size=8).model, 1)
    with pytest.raises(InvalidInputError, match="LinOSS checkpoint"):
        keep_oscillators(replace(model, source=None), 1)
    with pytest.raises(UnstableSystemError):
        keep_oscillators(load_checkpoint(tmp_path / "x.npz", settings={"discretization": "IMEX"}), 2)
    with pytest.raises(InvalidInputError, match="horizon"):
        keep_oscillators(model, 2, 0)
