"""The bound is never below what is observed: random models, shipped models, inputs that are searched for."""

import warnings
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import numba
import numpy as np
import pytest

from lqo_mor.bounds import gains
from lqo_mor.bounds import lipschitz as lip
from lqo_mor.bounds.output_error import output_error_bound
from lqo_mor.checkpoints.load import load_checkpoint
from lqo_mor.compression.compress import compress
from lqo_mor.errors import DimensionError, InvalidInputError, StabilityWarning
from lqo_mor.network.blocks import Block
from lqo_mor.network.layers import LayerNorm, Linear
from lqo_mor.network.model import DeepSSM
from lqo_mor.network.signals import activate, activation_slope
from lqo_mor.systems.diagonal import DiagonalLQOSystem
from lqo_mor.systems.quadratic import QuadraticOutput
from tests.network.random_models import naive_system, random_model, random_system

DATA = Path(__file__).parents[3] / "shared" / "data"
STEPS = 24
MODELS = {
    "pre-norm": {"prenorm": True},
    "pre-norm, quadratic": {"prenorm": True, "mimo": True, "rank": 2},
    "pre-norm, quadratic channels": {"prenorm": True, "rank": 2, "pooling": "last"},
    "pre-norm, tokens": {"prenorm": True, "tokens": 7, "activation": "relu", "gate": None},
    "post-norm": {"activation": "gelu_tanh"},
    "post-norm, tokens": {"tokens": 7, "layers": 3},
    "post-norm, quadratic": {"tokens": 7, "mimo": True, "rank": 2, "pooling": None},
    "post-norm, identity": {"activation": "identity", "gate": None, "pooling": "last"},
}


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """The models are tiny: starting threads takes longer than the work, by far where the cores are busy."""
    threads = numba.get_num_threads()
    numba.set_num_threads(1)
    yield
    numba.set_num_threads(threads)


def observed(model, reduced, u):
    """The largest error of an output vector for each input."""
    error = np.linalg.norm(model(u) - reduced(u), axis=-1)
    return error if error.ndim == 1 else error.max(axis=1)


def inputs(rng, model, batch, scale=1.0):
    if hasattr(model.encoder, "n_tokens"):
        return rng.integers(0, model.encoder.n_tokens, (batch, STEPS))
    return scale * rng.normal(size=(batch, STEPS, model.encoder.n_inputs))


def moved(model, rng, size):
    """The model with the outputs and poles of all its systems changed a little: another system, not a reduced one."""

    def near(ssm):
        def change(array):
            return array * (1 + size * rng.uniform(-1, 1, array.shape))

        q = ssm.M
        q = None if q is None else QuadraticOutput(change(q.U), change(q.V), change(q.W))
        poles = ssm.poles * (1 - 0.2 * size * rng.uniform(0, 1, ssm.poles.shape))
        return DiagonalLQOSystem(poles, change(ssm.B), change(ssm.C), change(ssm.D), q, dt=1.0)

    return replace(model, blocks=tuple(replace(block, ssm=near(block.ssm)) for block in model.blocks))


def mixed(model, rng, size):
    """The model with the weights and biases of the maps behind all its systems changed."""

    def near(mixing):
        def change(array):
            return array + size * rng.normal(size=array.shape)

        return Linear(change(mixing.weight), change(mixing.bias))

    return replace(model, blocks=tuple(replace(block, mixing=near(block.mixing)) for block in model.blocks))


def search(model, reduced, u, rng, accept=None, rounds=5):
    """Change the inputs at random and keep what makes the observed error larger; `accept` says which are allowed."""
    worst = observed(model, reduced, u)
    tokens = hasattr(model.encoder, "n_tokens")
    for k in range(rounds):
        if tokens:
            trial = np.where(rng.random(u.shape) < 0.1, rng.integers(0, model.encoder.n_tokens, u.shape), u)
        else:
            trial = u + 0.3 * 0.9**k * np.abs(u).max() * rng.normal(size=u.shape) * (rng.random((len(u), STEPS, 1)) < 0.3)
        error = observed(model, reduced, trial)
        better = error > worst
        if accept is not None:
            better &= accept(trial)
        u, worst = np.where(better.reshape(-1, *[1] * (u.ndim - 1)), trial, u), np.where(better, error, worst)
    return u, worst


@pytest.mark.parametrize("case", MODELS)
@pytest.mark.parametrize("size", [1e-6, 1e-2, 1.0])
def test_never_below_the_observed_error(case, size):
    rng = np.random.default_rng(0)
    model = random_model(rng, **MODELS[case])
    reduced = moved(model, rng, size)
    u = np.concatenate([inputs(rng, model, 2, scale) for scale in (0.01, 1.0, 30.0)])
    bound = output_error_bound(model, reduced, horizon=STEPS, calibration=u)
    assert bound.holds_for(u)
    assert bound.calibrated <= bound.bound
    assert np.max(observed(model, reduced, u)) <= bound.calibrated
    for weights in (bound.layer_weights, bound.calibrated_weights):
        assert np.max(observed(model, reduced, u)) <= weights @ bound.layer_errors
    _, worst = search(model, reduced, u, rng, bound.membership)
    assert np.max(worst) <= bound.calibrated
    _, worst = search(model, reduced, u, rng)
    assert np.max(worst) <= bound.bound


@pytest.mark.parametrize("case", MODELS)
@pytest.mark.parametrize("size", [1e-3, 1e-2, 0.3])
@pytest.mark.parametrize("systems", [0.0, 1e-3, 0.3])
def test_changed_mixing(case, size, systems):
    rng = np.random.default_rng(12)
    model = random_model(rng, **MODELS[case])
    reduced = mixed(moved(model, rng, systems) if systems else model, rng, size)
    u = np.concatenate([inputs(rng, model, 2, scale) for scale in (0.01, 1.0, 30.0)])
    bound = output_error_bound(model, reduced, horizon=STEPS, calibration=u)
    assert bound.holds_for(u)
    assert np.max(observed(model, reduced, u)) <= bound.calibrated <= bound.bound < np.inf
    sums = [(bound.layer_weights, bound.mixing_terms), (bound.calibrated_weights, bound.calibrated_mixing_terms)]
    for weights, terms in sums:
        assert np.all(terms > 0)
        assert np.max(observed(model, reduced, u)) <= np.sum(gains.times_each(weights, bound.layer_errors)) + np.sum(terms)
    assert "the changes of the mixing add" in str(bound)
    _, worst = search(model, reduced, u, rng, bound.membership)
    assert np.max(worst) <= bound.calibrated
    _, worst = search(model, reduced, u, rng)
    assert np.max(worst) <= bound.bound


@pytest.mark.parametrize("case", MODELS)
def test_small_changes_of_the_mixing_of_one_block(case):
    """The bound is in proportion to the change, and the terms say which block it is in."""
    rng = np.random.default_rng(13)
    model = random_model(rng, **MODELS[case])
    u, ratios = inputs(rng, model, 8), []
    for size in (1e-9, 1e-8):
        changed = mixed(model, np.random.default_rng(14), size)
        reduced = replace(model, blocks=(*model.blocks[:-1], changed.blocks[-1]))
        bound = output_error_bound(model, reduced, horizon=STEPS, calibration=u)
        assert bound.used["calibrated"] in ("chain", "sum")
        for terms in (bound.mixing_terms, bound.calibrated_mixing_terms):
            assert np.all(terms[:-1] == 0) and terms[-1] > 0
        ratios.append(bound.calibrated / size)
        assert np.max(observed(model, reduced, u)) <= bound.calibrated <= 1e4 * np.max(observed(model, reduced, u))
    np.testing.assert_allclose(ratios[0], ratios[1], rtol=1e-3)


@pytest.mark.parametrize("case", MODELS)
def test_inputs_that_are_new_to_a_changed_mixing(case):
    rng = np.random.default_rng(15)
    model = random_model(rng, **MODELS[case])
    reduced = mixed(compress(model, state_size=4, method="modal", horizon=STEPS).model, rng, 0.03)
    u = inputs(rng, model, 60)
    bound = output_error_bound(model, reduced, horizon=STEPS, calibration=u[:30], margin=1.3)
    inside = bound.membership(u)
    assert np.all(inside[:30]) and np.any(inside[30:])
    assert np.all(observed(model, reduced, u)[inside] <= bound.calibrated)
    assert np.all(observed(model, reduced, u) <= bound.bound)


def test_a_bias_that_is_new():
    rng = np.random.default_rng(16)
    model = random_model(rng, tokens=5, prenorm=True)
    bare = [replace(block, mixing=Linear(block.mixing.weight)) for block in model.blocks]
    new = [replace(block, mixing=Linear(block.mixing.weight, 0.01 * rng.normal(size=6))) for block in bare]
    model, reduced, u = replace(model, blocks=bare), replace(model, blocks=new), inputs(rng, model, 6)
    bound = output_error_bound(model, reduced, horizon=STEPS, calibration=u)
    assert 0 < np.max(observed(model, reduced, u)) <= bound.calibrated <= bound.bound < np.inf


def test_changed_mixing_without_normalisation():
    rng = np.random.default_rng(17)
    model = random_model(rng, layers=2)
    model = replace(model, blocks=tuple(replace(block, norm=None) for block in model.blocks))
    reduced, u = mixed(model, rng, 1e-2), inputs(rng, model, 5)
    bound = output_error_bound(model, reduced, horizon=STEPS, calibration=u)
    assert bound.bound == np.inf
    assert np.max(observed(model, reduced, u)) <= bound.calibrated < np.inf


@pytest.mark.parametrize("case", MODELS)
def test_reduced_models(case):
    rng = np.random.default_rng(1)
    model = random_model(rng, **MODELS[case])
    reduced = compress(model, state_size=4, method="modal", horizon=STEPS).model
    u = inputs(rng, model, 20)
    bound = output_error_bound(model, reduced, horizon=STEPS, calibration=iter([u[:5], u[5:10]]), margin=1.3)
    inside = bound.membership(u)
    assert np.all(inside[:10])
    assert np.all(observed(model, reduced, u)[inside] <= bound.calibrated)
    assert np.all(observed(model, reduced, u) <= bound.bound)


@pytest.mark.parametrize("case", MODELS)
def test_small_changes_need_no_cap(case):
    """Far below the range of normalised tokens the bound is that of the gains, and in proportion to the change."""
    rng = np.random.default_rng(2)
    model = random_model(rng, **MODELS[case])
    u = inputs(rng, model, 8)
    blocks = list(model.blocks)
    ssm = blocks[-1].ssm
    ratios = []
    for size in (1e-10, 1e-9):
        blocks[-1] = replace(blocks[-1], ssm=replace(ssm, C=ssm.C * (1 + size)))
        reduced = replace(model, blocks=tuple(blocks))
        bound = output_error_bound(model, reduced, horizon=STEPS, calibration=u)
        assert bound.used["calibrated"] in ("chain", "sum")
        ratios.append(bound.calibrated / size)
        assert np.max(observed(model, reduced, u)) <= bound.calibrated <= 1e3 * np.max(observed(model, reduced, u))
    np.testing.assert_allclose(ratios[0], ratios[1], rtol=1e-3)


def test_a_model_that_does_not_change_has_no_error():
    model = random_model(np.random.default_rng(3), tokens=5)
    bound = output_error_bound(model, model, horizon=STEPS)
    assert bound.bound == float(bound) == 0
    assert np.all(bound.layer_errors < 1e-14)


def test_shallow_layers_weigh_most():
    model = random_model(np.random.default_rng(4), prenorm=True, layers=4)
    assert np.all(np.diff(output_error_bound(model, model, horizon=STEPS).layer_weights) < 0)


def test_without_normalisation_all_inputs_have_no_bound_but_the_calibrated_ones_do():
    rng = np.random.default_rng(5)
    model = random_model(rng, layers=2)
    model = replace(model, blocks=tuple(replace(block, norm=None) for block in model.blocks))
    reduced, u = moved(model, rng, 1e-3), inputs(rng, model, 5)
    bound = output_error_bound(model, reduced, horizon=STEPS, calibration=u)
    assert bound.bound == np.inf
    assert np.max(observed(model, reduced, u)) <= bound.calibrated < np.inf


def test_inputs_unlike_the_calibration_are_told_apart():
    rng = np.random.default_rng(6)
    model = random_model(rng)
    bound = output_error_bound(model, moved(model, rng, 0.1), horizon=STEPS, calibration=inputs(rng, model, 4))
    assert not np.any(bound.membership(inputs(rng, model, 3, scale=100.0)))
    with pytest.raises(InvalidInputError, match="calibration"):
        output_error_bound(model, model, horizon=STEPS).holds_for(inputs(rng, model, 1))


def test_report():
    rng = np.random.default_rng(7)
    model = random_model(rng, prenorm=True)
    text = str(output_error_bound(model, moved(model, rng, 1e-3), horizon=STEPS, calibration=inputs(rng, model, 2)))
    assert "layer 1" in text and "for all inputs of 24 steps" in text and "like the calibration" in text


def test_bad_arguments():
    rng = np.random.default_rng(8)
    model = random_model(rng)
    other = random_model(rng)
    bare = replace(model, blocks=[replace(model.blocks[0], mixing=None, gate=None)])
    for wrong, match in [
        ((model, other), "differs"),
        ((model, 3), "must be a DeepSSM"),
        ((model, replace(model, blocks=())), "blocks"),
        ((bare, replace(bare, blocks=[replace(bare.blocks[0], mixing=Linear(np.eye(3)))])), "shape of mixing"),
    ]:
        with pytest.raises(InvalidInputError, match=match):
            output_error_bound(*wrong, horizon=STEPS)
    for horizon in (0, 2.0, True):
        with pytest.raises(InvalidInputError, match="horizon"):
            output_error_bound(model, model, horizon=horizon)
    with pytest.raises(InvalidInputError, match="margin"):
        output_error_bound(model, model, horizon=STEPS, margin=0.5)
    with pytest.raises(InvalidInputError, match="no inputs"):
        output_error_bound(model, model, horizon=STEPS, calibration=iter([]))
    with pytest.raises(DimensionError, match="steps"):
        output_error_bound(model, model, horizon=STEPS + 1, calibration=inputs(rng, model, 2))


def small_demo(name, size, steps):
    model = load_checkpoint(files("lqo_mor") / "data" / name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", StabilityWarning)
        reduced = compress(model, state_size=size, method="modal", horizon=steps).model
    return model, reduced


@pytest.mark.parametrize("size", [60, 16])
def test_demo_model(size):
    model, reduced = small_demo("demo_digits.safetensors", size, 64)
    u = np.load(files("lqo_mor") / "data" / "demo_digits.npz")["inputs"]
    bound = output_error_bound(model, reduced, horizon=64, calibration=u[:40], margin=1.2)
    inside = bound.membership(u[40:80])
    assert np.mean(inside) > 0.5
    error = observed(model, reduced, u[:80])
    assert np.max(error) <= bound.bound
    assert np.max(error[:40]) <= bound.calibrated
    assert np.all(error[40:][inside] <= bound.calibrated)


def test_demo_model_with_refitted_mixing():
    model = load_checkpoint(files("lqo_mor") / "data" / "demo_digits.safetensors")
    u = np.load(files("lqo_mor") / "data" / "demo_digits.npz")["inputs"]
    reduced = compress(model, state_size=16, calibration=u[:100]).model
    assert any(np.any(a.mixing.weight != b.mixing.weight) for a, b in zip(model.blocks, reduced.blocks, strict=True))
    bound = output_error_bound(model, reduced, horizon=64, calibration=u[:40], margin=1.2)
    inside = bound.membership(u[40:80])
    assert np.mean(inside) > 0.5
    error = observed(model, reduced, u[:80])
    assert np.max(error) <= bound.bound < np.inf
    assert np.max(error[:40]) <= bound.calibrated
    assert np.all(error[40:][inside] <= bound.calibrated)


def test_quadratic_demo_model():
    model, reduced = small_demo("imdb.safetensors", 320, 64)
    u = np.random.default_rng(9).integers(32, 127, (6, 64))
    bound = output_error_bound(model, reduced, horizon=64, calibration=u)
    assert np.max(observed(model, reduced, u)) <= bound.calibrated <= bound.bound < np.inf


@pytest.mark.skipif(not (DATA / "checkpoints").is_dir(), reason="the folder with real checkpoints is not here")
def test_real_checkpoint():
    pytest.importorskip("torch")
    model = load_checkpoint(DATA / "checkpoints" / "s4d-smnist.pth")
    reduced = compress(model, state_size=32, method="modal", horizon=196).model
    u = np.random.default_rng(10).uniform(size=(3, 196, 1))
    bound = output_error_bound(model, reduced, horizon=196, calibration=u)
    assert np.max(observed(model, reduced, u)) <= bound.calibrated <= bound.bound < np.inf


# The constants, against sampling.

ACTIVATIONS = {name: lambda x, name=name: activate(name, np.array(x)) for name in ("gelu", "gelu_tanh", "relu", "identity")}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_slopes_of_chords(name):
    rng = np.random.default_rng(0)
    x, delta = rng.uniform(-5, 5, 4000), 10 ** rng.uniform(-3, 1, 4000)
    low, high = lip.slope_range(name, x, delta)
    for _ in range(50):
        other = x + delta * rng.uniform(-1, 1, x.shape)
        chord = (ACTIVATIONS[name](other) - ACTIVATIONS[name](x)) / (other - x)
        assert np.all(chord <= high + 1e-9) and np.all(chord >= low - 1e-9)


@pytest.mark.parametrize("name", ["gelu", "gelu_tanh"])
def test_slope_of_gelu(name):
    x = np.linspace(-12, 12, 400_001)
    difference = (ACTIVATIONS[name](x + 1e-5) - ACTIVATIONS[name](x - 1e-5)) / 2e-5
    np.testing.assert_allclose(activation_slope(name, x), difference, atol=1e-8)
    slopes = activation_slope(name, x)
    assert 1.1285 < np.max(slopes) <= lip.largest_slope(name) < 1.1295
    assert np.min(slopes) >= lip.slope_range(name, 0.0, np.inf)[0]
    turns = np.flatnonzero(np.diff(np.sign(np.diff(slopes[np.abs(x) < 5]))))  # beyond, the slope is flat to rounding
    assert len(turns) == 2


def test_slopes_of_the_gate():
    rng = np.random.default_rng(1)
    b, delta = rng.uniform(-6, 6, 4000), 10 ** rng.uniform(-3, 1, 4000)
    low, high = lip.gate_range(b, delta)
    assert np.max(high) <= 0.25
    for _ in range(50):
        other = b + delta * rng.uniform(-1, 1, b.shape)
        chord = (1 / (1 + np.exp(-other)) - 1 / (1 + np.exp(-b))) / (other - b)
        assert np.all(chord <= high + 1e-9) and np.all(chord >= low - 1e-9)


def test_normalised_tokens_by_the_variance_of_one_of_them():
    rng = np.random.default_rng(2)
    worst = 0.0
    for width in (2, 3, 8):
        for eps in (1e-5, 0.1, 3.0):
            x = rng.normal(size=(2000, width)) * 10 ** rng.uniform(-3, 1, (2000, 1))
            y = x * rng.uniform(-1.5, 1, (2000, 1)) + rng.normal(size=x.shape) * 10 ** rng.uniform(-4, 1, (2000, 1))

            def rho(z, eps=eps):
                return np.sqrt(z.var(axis=1) + eps)

            def n(z, rho=rho):
                return (z - z.mean(axis=1, keepdims=True)) / rho(z)[:, None]

            far = np.linalg.norm((x - y) - (x - y).mean(axis=1, keepdims=True), axis=1)
            ratio = np.linalg.norm(n(x) - n(y), axis=1) * rho(x) / far
            most = lip.chord(far / np.sqrt(width) / rho(x))
            assert np.all(ratio <= most * (1 + 1e-9))
            assert np.all(ratio * np.sqrt(eps) / rho(x) <= 1 + 1e-9)
            worst = max(worst, np.max(ratio / most))
    assert worst > 0.99  # and it is attained


@pytest.mark.parametrize("activation", ["gelu", "relu"])
@pytest.mark.parametrize("gate", ["glu", None])
def test_secants_of_the_token_map(activation, gate):
    rng = np.random.default_rng(3)
    width = 4
    mixing = Linear(rng.normal(size=(2 * width if gate else width, width)), rng.normal(size=2 * width if gate else width))
    tokens = lip.TokenMap.of(Block("", random_system(rng, (width,), 2, 1, 1, 0), mixing, activation=activation, gate=gate), width)

    def f(y):
        z = ACTIVATIONS[activation](y) @ mixing.weight.T + mixing.bias
        return z if gate is None else z[:, :width] / (1 + np.exp(-z[:, width:]))

    y = 2 * rng.normal(size=(300, width))
    values = np.max(np.abs(ACTIVATIONS[activation](y) @ tokens.value.T + tokens.value_bias), axis=0)
    assert np.all(values <= tokens.peaks(np.max(np.abs(y), axis=0)))
    for size in (1e-3, 0.3, 5.0):
        peak = size * rng.uniform(0.2, 1, width)
        J, radius = tokens.jacobians(y, peak, np.linalg.norm(peak))
        scales = {"a": np.ones(width), "b": rng.uniform(0.5, 2, width)}
        found = tokens.steepest(y, np.ones(len(y)), peak, np.linalg.norm(peak), scales, False)
        for _ in range(30):
            e = peak * rng.uniform(-1, 1, y.shape)
            change = f(y + e) - f(y)
            centre, around = np.einsum("tij,tj->ti", J, e), np.einsum("tij,tj->ti", radius, np.abs(e))
            assert np.all(np.abs(change - centre) <= around + 1e-9)
            sizes = np.linalg.norm(change, axis=1)
            assert np.all(sizes <= tokens.gain(values) * np.linalg.norm(e, axis=1) * (1 + 1e-9))
            for name, scale in scales.items():
                assert np.all(sizes <= found[f"{name}_most"] * np.linalg.norm(e / scale, axis=1) * (1 + 1e-9))


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("gate", ["glu", None])
def test_changes_of_the_token_map(activation, gate):
    rng = np.random.default_rng(6)
    width, steps = 4, 20
    rows = 2 * width if gate else width
    ssm = random_system(rng, (width,), 2, 1, 1, 0)
    for size in (1e-3, 0.3, 5.0):
        pair = [Linear(rng.normal(size=(rows, width)), rng.normal(size=rows))]
        pair.append(Linear(pair[0].weight + size * rng.normal(size=(rows, width)), pair[0].bias + size * rng.normal(size=rows)))
        old, new = (lip.TokenMap.of(Block("", ssm, mixing, activation=activation, gate=gate), width) for mixing in pair)

        def f(mixing, y):
            z = ACTIVATIONS[activation](y) @ mixing.weight.T + mixing.bias
            return z if gate is None else z[:, :width] / (1 + np.exp(-z[:, width:]))

        for _ in range(50):
            y = 10 ** rng.uniform(-3, 1) * rng.normal(size=(steps, width)) * 10 ** rng.uniform(-2, 0, (steps, 1))
            norms = np.linalg.norm(f(pair[1], y) - f(pair[0], y), axis=1)
            found = new.change(old, np.max(np.abs(y), axis=0), np.linalg.norm(y, axis=0), steps)
            assert np.all(np.array([np.linalg.norm(norms), np.max(norms), np.mean(norms)]) <= found)


@pytest.mark.parametrize("steps", [1, 2, 5, 40])
def test_gains_of_kernels(steps, monkeypatch):
    rng = np.random.default_rng(4)
    K = rng.normal(size=(3, 2, steps)) * 0.9 ** np.arange(steps)
    dense = np.zeros((steps, 3, steps, 2))
    for k in range(steps):
        for j in range(k + 1):
            dense[k, :, j, :] = K[..., k - j]
    rows = np.array([np.linalg.norm(dense[:, i].reshape(steps, -1), 2) for i in range(3)])
    channels = np.array([[np.linalg.norm(dense[:, i, :, j], 2) for j in range(2)] for i in range(3)])
    assert np.linalg.norm(dense.reshape(3 * steps, -1), 2) <= gains.matrix_gain(K)
    assert np.all(rows <= gains.row_gains(K))
    assert np.all(channels <= gains.channel_gains(K) + 1e-12)
    angles = np.exp(1j * np.linspace(0, np.pi, 20_001))
    fine = np.abs(np.einsum("ijk,kw->ijw", K, angles ** np.arange(steps)[:, None])).max(-1)
    monkeypatch.setattr(gains, "_EXACT", 0)
    by_grid = gains.channel_gains(K)
    assert np.all((fine <= by_grid) | (by_grid == np.abs(K).sum(-1)))
    assert np.all(channels <= by_grid + 1e-12)


@pytest.mark.parametrize("batch", [True, False])
def test_responses_of_systems(batch):
    rng = np.random.default_rng(5)
    width, steps = 3, 12
    ssm = random_system(rng, (width,) if batch else (), 3, 1 if batch else width, 1 if batch else width, 2)
    scale = rng.uniform(0.3, 2, width)
    own = gains.SystemGains(ssm, gains.kernels(ssm, steps), scale)
    v = rng.normal(size=(steps, width))
    axes = {"left": ssm.M.U, "right": ssm.M.V}
    signals = {}
    for name, row in axes.items():
        columns = [
            naive_system(replace(ssm, C=row[..., j : j + 1, :], D=np.zeros_like(ssm.D[..., :1, :]), M=None), v) for j in range(2)
        ]
        signals[name] = np.abs(np.stack(columns, -1)).max(0) if batch else np.abs(np.concatenate(columns, 1)).max(0)
    infinite = np.full(signals["left"].shape, np.inf)
    for size in (1e-4, 0.1, 3.0):
        for _ in range(20):
            e = size * rng.normal(size=v.shape) * 10 ** rng.uniform(-2, 0, (steps, 1))
            total, token = np.linalg.norm(e), np.linalg.norm(e, axis=1).max()
            spread, peak, near = own.respond(total, token, signals["left"], signals["right"], (infinite, infinite))
            change = naive_system(ssm, v + scale * e) - naive_system(ssm, v)
            assert np.all(np.abs(change).max(0) <= peak + 1e-12)
            assert np.linalg.norm(change, axis=1).max() <= near + 1e-12
            assert np.linalg.norm(change) <= np.max(spread) * total + 1e-12
            if batch:
                assert np.all(np.linalg.norm(change, axis=0) <= spread * np.linalg.norm(e, axis=0) + 1e-12)


def test_one_block_without_anything_is_nearly_tight():
    """Identity, no gate, no norm: the bound is the gain of the error system."""
    ssm = DiagonalLQOSystem([[0.9]], [[[1.0]]], [[[1.0]]], dt=1.0)
    model = DeepSSM(Linear([[1.0]]), (Block("a", ssm, activation="identity", residual=False),), Linear([[1.0]]))
    reduced = replace(model, blocks=(replace(model.blocks[0], ssm=replace(ssm, C=0.9 * ssm.C)),))
    u = np.ones((1, 40, 1))
    bound = output_error_bound(model, reduced, horizon=40, calibration=u)
    assert observed(model, reduced, u)[0] <= bound.calibrated <= 1.1 * observed(model, reduced, u)[0]


def test_normalisation_without_eps():
    rng = np.random.default_rng(11)
    model = random_model(rng, tokens=6, layers=2)
    model = replace(model, blocks=tuple(replace(b, norm=LayerNorm(b.norm.weight, b.norm.bias, 0.0)) for b in model.blocks))
    reduced, u = moved(model, rng, 1e-5), inputs(rng, model, 6)
    bound = output_error_bound(model, reduced, horizon=STEPS, calibration=u)
    assert np.max(observed(model, reduced, u)) <= bound.calibrated <= bound.bound < np.inf
