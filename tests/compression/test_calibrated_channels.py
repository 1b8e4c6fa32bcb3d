"""Compression with calibration inputs: what is measured on them, the split over channels, and the result."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

import lqo_mor as lqo
from lqo_mor.compression.calibration.calibration import CalibrationOptions, split
from lqo_mor.compression.calibration.channel_curves import WeightedCurves
from lqo_mor.compression.calibration.spectra import Grid, layer_signals, measure
from lqo_mor.compression.calibration.spool import Spool
from lqo_mor.compression.compress import compress
from lqo_mor.errors import DimensionError, InvalidInputError, OrderError
from lqo_mor.network.blocks import block_input, block_output
from lqo_mor.network.model import decode
from lqo_mor.network.signals import encode, system_map
from tests.network.random_models import random_model

NONE = CalibrationOptions(split=False, sensitivity=False, sequential=False, feedthrough=False, mixing=False, joint=False)


@pytest.fixture
def rng():
    return np.random.default_rng(5)


@pytest.fixture
def model(rng):
    return random_model(rng, width=4, slots=6, layers=3)


@pytest.fixture
def inputs(model, rng):
    """Slow signals, (sequences, steps, features)."""
    return np.cumsum(rng.normal(size=(24, 50, model.encoder.n_inputs)), axis=1) * 0.3


@pytest.mark.parametrize("prenorm", [False, True])
@pytest.mark.parametrize("pooling", ["mean", "last", None])
@pytest.mark.parametrize("activation", ["gelu", "gelu_tanh", "relu", "identity"])
def test_gradients_by_the_outputs_of_the_systems(prenorm, pooling, activation, rng):
    gate = "glu" if activation == "gelu" else None
    model = random_model(rng, width=3, slots=3, prenorm=prenorm, pooling=pooling, activation=activation, gate=gate)
    u = rng.normal(size=(2, 7, model.encoder.n_inputs))
    directions = np.random.default_rng(1)
    read, gradients, _ = layer_signals(model, u, np.random.default_rng(1))
    weights = directions.normal(size=(*((2, 7) if pooling is None else (2,)), model.decoder.n_outputs))
    x = encode(model.encoder, u)
    for i, block in enumerate(model.blocks):
        np.testing.assert_array_equal(read[i], block_input(block, x))
        h = i % block.width
        slopes = []
        for sign in (1, -1):  # another feedthrough of one channel moves its output along its input
            D = block.ssm.D.copy()
            D[h] += sign * 1e-6
            moved = replace(block, ssm=lqo.DiagonalLQOSystem(block.ssm.poles, block.ssm.B, block.ssm.C, D, dt=1.0))
            other = replace(model, blocks=(*model.blocks[:i], moved, *model.blocks[i + 1 :]))
            slopes.append(np.sum(weights * other(u)))
        assert np.sum(gradients[i][h] * read[i][h]) == pytest.approx((slopes[0] - slopes[1]) / 2e-6, rel=1e-5, abs=1e-7)
        x = block_output(block, x, system_map(block.ssm, 7)(read[i]))


def test_spectra_and_covariances(rng):
    grid, a, b = Grid(9), rng.normal(size=(2, 3, 9)), rng.normal(size=(2, 3, 9))
    later, sooner = np.moveaxis(grid.both_sides(grid.cross_and_power(a, b)[0]), 1, 0)
    for j in range(9):
        np.testing.assert_allclose(later[:, j], np.sum(a[..., j:] * b[..., : 9 - j], axis=(1, 2)), atol=1e-12)
        np.testing.assert_allclose(sooner[:, j], np.sum(b[..., j:] * a[..., : 9 - j], axis=(1, 2)), atol=1e-12)
    np.testing.assert_allclose(grid.covariances(grid.power(a)), grid.both_sides(grid.power(a))[:, 1], atol=1e-12)


def test_sensitivities_predict_the_error_of_white_disturbances(model, inputs, rng):
    with Spool() as outputs:
        found = measure(model, [inputs], True, outputs)
    grid, errors = found.grid, []
    for i in range(3):
        power = 1e-6 * np.ones(grid.size // 2 + 1)  # of white noise added to channel 1 of the block's system
        predicted = grid.covariances((power * found.sensitivity[i][1])[np.newaxis])[0, 0]
        changes = []
        for _ in range(30):
            x = encode(model.encoder, inputs)
            for k, other in enumerate(model.blocks):
                y = system_map(other.ssm, 50)(block_input(other, x))
                if k == i:
                    y[1] += 1e-3 * rng.normal(size=y[1].shape)
                x = block_output(other, x, y)
            change = decode(model, x) - model(inputs)
            changes.append(np.mean(np.sum(change**2, axis=1)))
        errors.append(predicted / np.mean(changes))
    assert 0.5 < min(errors) <= max(errors) < 2


def test_split_is_the_best_that_the_hulls_allow(rng):
    slots = (0, 1, 2, 4)
    for _ in range(20):
        steps = np.sort(rng.exponential(size=(4, 3)) * [1, 1, 2], axis=1)[:, ::-1] / [1, 1, 2]
        curve = np.concatenate([np.zeros((4, 1)), -np.cumsum(steps * [1, 1, 2], axis=1)], axis=1)
        curve -= curve.min()
        chosen = split([WeightedCurves(slots, curve[:2]), WeightedCurves(slots, curve[2:])], 6)
        flat = np.concatenate(chosen)
        used = sum(slots[k] for k in flat)
        assert used <= 6
        best = min(
            sum(curve[h, k] for h, k in enumerate(which))
            for which in itertools.product(range(4), repeat=4)
            if sum(slots[k] for k in which) <= used
        )
        assert sum(curve[h, k] for h, k in enumerate(flat)) <= best + max(np.max(steps), 0) + 1e-12


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("lever", [None, "feedthrough", "sequential", "mixing", "joint"])
def test_calibrated_models_beat_those_for_white_inputs(model, inputs, split, lever):
    options = replace(NONE, **({lever: True} if lever else {}))
    small = compress(model, state_size=2, calibration=inputs, options=replace(options, split=split)).model
    white = compress(model, state_size=2).model
    assert np.linalg.norm(small(inputs) - model(inputs)) < 0.5 * np.linalg.norm(white(inputs) - model(inputs))


def test_report(model, inputs):
    calls = []
    result = compress(
        model, state_size=4, calibration=inputs, options=CalibrationOptions(split=True),
        progress=lambda done, total: calls.append((done, total)),
    )  # fmt: skip
    report = result.report
    measured = np.linalg.norm(result.model(inputs) - model(inputs)) / np.linalg.norm(model(inputs))
    assert report.calibration_error == pytest.approx(measured, rel=1e-4)
    assert measured / 3 < report.predicted_error < 3 * measured
    assert sum(layer.mean_states for layer in report.layers) <= 3 * 4
    assert all(layer.weighted_error.shape == (4,) for layer in report.layers)
    assert "predicted" in str(report)
    assert calls == sorted(calls)
    assert calls[-1] == (100, 100)
    for block in result.model.blocks:
        assert np.all(np.abs(block.ssm.poles) < 1)


def test_calibration_in_pieces_is_the_same(model, inputs):
    whole = compress(model, state_size=4, calibration=inputs).model
    pieces = compress(model, state_size=4, calibration=(inputs[k : k + 5] for k in range(0, 24, 5))).model
    np.testing.assert_allclose(pieces(inputs), whole(inputs), atol=2e-2 * np.abs(whole(inputs)).max())


def test_a_model_without_its_levers_keeps_what_is_around_the_systems(model, inputs):
    small = compress(model, state_size=4, calibration=inputs, options=NONE).model
    assert all(a.mixing is b.mixing for a, b in zip(small.blocks, model.blocks, strict=True))
    assert all(np.array_equal(a.ssm.D, b.ssm.D) for a, b in zip(small.blocks, model.blocks, strict=True))


@pytest.mark.parametrize("split", [False, True])
def test_max_error(model, inputs, split):
    options = CalibrationOptions(split=split)
    loose, tight = (compress(model, max_error=e, calibration=inputs, options=options) for e in (0.3, 0.002))
    for result, bound in ((loose, 0.3), (tight, 0.002)):
        error = np.linalg.norm(result.model(inputs) - model(inputs)) / np.linalg.norm(model(inputs))
        assert error <= bound * 1.001
    assert loose.report.parameters_after < tight.report.parameters_after < tight.report.parameters_before


def test_an_error_that_no_smaller_model_keeps(model, inputs):
    with pytest.raises(OrderError, match="no smaller model"):
        compress(model, max_error=1e-9, calibration=inputs)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"method": "balanced"}, "optimal"),
        ({"horizon": 10}, "infinite"),
        ({"max_error": 0.1}, "exactly one"),
        ({"state_size": None, "max_error": 2.0}, "between 0 and 1"),
        ({"state_size": None, "max_error": 0.1, "options": NONE}, "needs"),
        ({"calibration": []}, "no calibration"),
        ({"calibration": None, "options": NONE}, "calibration"),
        ({"calibration": None, "state_size": None, "max_error": 0.1}, "calibration"),
    ],
)
def test_bad_arguments(model, inputs, change, words):
    with pytest.raises(InvalidInputError, match=words):
        compress(model, **({"state_size": 4, "calibration": inputs} | change))


def test_sequences_of_different_lengths(model, inputs):
    with pytest.raises(DimensionError, match="one length"):
        compress(model, state_size=4, calibration=[inputs, inputs[:, :20]])


def test_layers_that_cannot_be_calibrated(rng):
    model = random_model(rng, rank=1)
    with pytest.raises(InvalidInputError, match="calibration is for"):
        compress(model, state_size=4, calibration=rng.normal(size=(2, 5, model.encoder.n_inputs)))
