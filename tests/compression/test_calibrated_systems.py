"""Calibrated compression of layers that are single systems with quadratic outputs."""

from dataclasses import replace

import numpy as np
import pytest

import lqo_mor as lqo
from lqo_mor.compression.calibration.calibration import CalibrationOptions
from lqo_mor.compression.calibration.output_weights import coefficients, features, with_coefficients
from lqo_mor.compression.calibration.spectra import layer_signals
from lqo_mor.compression.calibration.systems import SystemCalibration
from lqo_mor.compression.compress import compress
from lqo_mor.errors import InvalidInputError, OrderError
from lqo_mor.network.blocks import Block, block_input, block_output
from lqo_mor.network.layers import LayerNorm, Linear
from lqo_mor.network.signals import encode, system_map

WIDTH, SLOTS, STEPS = 3, 8, 40
NONE = CalibrationOptions(sensitivity=False, sequential=False, feedthrough=False, mixing=False, joint=False)


def system(rng, slots=SLOTS, rank=2, real=1) -> lqo.DiagonalLQOSystem:
    def draw(*shape):
        return rng.normal(size=shape) + 1j * rng.normal(size=shape)

    poles = rng.uniform(0.3, 0.95, slots) * np.exp(1j * rng.uniform(0.1, 2.5, slots))
    is_real = np.arange(slots) < real
    poles = np.where(is_real, np.abs(poles), poles)
    B, C, U, V = draw(slots, WIDTH), 0.3 * draw(WIDTH, slots), 0.2 * draw(rank, slots), 0.2 * draw(rank, slots)
    B[is_real] = B[is_real].real
    for rows in (C, U, V):
        rows[:, is_real] = rows[:, is_real].real
    q = lqo.QuadraticOutput(U, V, rng.normal(size=(WIDTH, rank))) if rank else None
    return lqo.DiagonalLQOSystem(poles, B, C, np.diag(rng.normal(size=WIDTH)), q, dt=1.0)


def model_of(rng, layers=2, rank=2, prenorm=True, pooling="mean") -> lqo.DeepSSM:
    def block(i):
        norm = LayerNorm(np.ones(WIDTH), np.zeros(WIDTH))
        mixing = Linear(rng.normal(size=(2 * WIDTH, WIDTH)), rng.normal(size=2 * WIDTH))
        return Block(f"layers.{i}", system(rng, rank=rank), mixing, norm, prenorm, activation="gelu", gate="glu")

    encoder, decoder = Linear(rng.normal(size=(WIDTH, 2))), Linear(rng.normal(size=(2, WIDTH)))
    return lqo.DeepSSM(encoder, tuple(block(i) for i in range(layers)), decoder, None, pooling)


@pytest.fixture
def rng():
    return np.random.default_rng(3)


def slow(rng, count=32):
    return 0.3 * np.cumsum(rng.normal(size=(count, STEPS, 2)), axis=1)


def relative(a, b):
    return np.linalg.norm(a - b) / np.linalg.norm(a)


@pytest.mark.parametrize("prenorm", [False, True])
@pytest.mark.parametrize("pooling", ["mean", None])
@pytest.mark.parametrize("rank", [0, 2])
def test_gradients_by_the_outputs_of_quadratic_systems(prenorm, pooling, rank, rng):
    model, u = model_of(rng, 3, rank, prenorm, pooling), rng.normal(size=(2, 9, 2))
    read, gradients, _ = layer_signals(model, u, np.random.default_rng(1))
    weights = np.random.default_rng(1).normal(size=(*((2, 9) if pooling is None else (2,)), 2))
    for i, block in enumerate(model.blocks):
        slopes = []
        for sign in (1, -1):
            D = block.ssm.D.copy()
            D[1, 1] += sign * 1e-6
            moved = replace(block, ssm=lqo.DiagonalLQOSystem(block.ssm.poles, block.ssm.B, block.ssm.C, D, block.ssm.M, dt=1.0))
            other = replace(model, blocks=(*model.blocks[:i], moved, *model.blocks[i + 1 :]))
            slopes.append(np.sum(weights * other(u)))
        assert np.sum(gradients[i][1] * read[i][1]) == pytest.approx((slopes[0] - slopes[1]) / 2e-6, rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("rank", [0, 2])
def test_outputs_as_coefficients_of_features(rank, rng):
    ssm, u = system(rng, rank=rank, real=3), rng.normal(size=(WIDTH, 2, 11))
    values = coefficients(ssm)
    answer = np.tensordot(values, features(ssm)(u), axes=1) + np.tensordot(ssm.D, u, axes=1)
    np.testing.assert_allclose(answer, system_map(ssm, 11)(u), atol=1e-12)
    again = with_coefficients(ssm, values, ssm.D)
    np.testing.assert_allclose(again.C, ssm.C, atol=1e-14)
    if rank:
        np.testing.assert_array_equal(again.M.W, ssm.M.W)


def test_the_fit_finds_outputs_that_answer_exactly(rng):
    """Half of the slots do nothing: a system of the other half, with wrong outputs, is put right by the fit."""
    model = model_of(rng, 1)
    full, kept = model.blocks[0].ssm, np.arange(SLOTS) < SLOTS // 2
    q = full.M
    silent = lqo.DiagonalLQOSystem(full.poles, full.B * kept[:, np.newaxis], full.C, full.D, q, dt=1.0)
    model = replace(model, blocks=(replace(model.blocks[0], ssm=silent),))
    small = lqo.QuadraticOutput(q.U[:, kept], q.V[:, kept], 0.9 * q.W)
    wrong = lqo.DiagonalLQOSystem(full.poles[kept], full.B[kept], 0.8 * full.C[:, kept], 1.1 * full.D, small, dt=1.0)
    with SystemCalibration(model, slow(rng), CalibrationOptions(), lambda *_: None) as work:
        stream = _stream(model, work)
        fitted = work._fit_outputs(model.blocks[0], wrong, stream, stream)
    exact = lqo.DiagonalLQOSystem(
        wrong.poles, wrong.B, full.C[:, kept], full.D, lqo.QuadraticOutput(small.U, small.V, q.W), dt=1.0
    )
    u = block_input(model.blocks[0], encode(model.encoder, slow(rng)))
    answer = system_map(silent, STEPS)(u)
    np.testing.assert_allclose(system_map(exact, STEPS)(u), answer, atol=1e-10)
    assert relative(answer, system_map(fitted, STEPS)(u)) < 0.1 * relative(answer, system_map(wrong, STEPS)(u))


def _stream(model, work):
    return [encode(model.encoder, u) for u in work._inputs]


def test_calibration_pays_on_other_inputs_and_predicts_its_error(rng):
    model = model_of(rng)
    inputs, others = slow(rng, 96), slow(rng, 64)
    plain, result = compress(model, state_size=6), compress(model, state_size=6, calibration=inputs)
    error = relative(model(others), result.model(others))
    assert error < 0.8 * relative(model(others), plain.model(others))
    assert result.report.calibration_error == pytest.approx(relative(model(inputs), result.model(inputs)), rel=1e-5)
    assert error / 2 < result.report.predicted_error < 2 * error
    assert [layer.states_after for layer in result.report.layers] == [6, 6]
    assert all(np.all(np.abs(block.ssm.poles) < 1) for block in result.model.blocks)


@pytest.mark.parametrize("lever", ["sensitivity", "sequential", "feedthrough"])
def test_each_option_changes_the_result(lever, rng):
    model, inputs = model_of(rng), slow(rng)
    everything = compress(model, state_size=6, calibration=inputs)
    without = compress(model, state_size=6, calibration=inputs, options=replace(CalibrationOptions(), **{lever: False}))
    assert relative(everything.model(inputs), without.model(inputs)) > 1e-6
    if lever == "feedthrough":
        for block, small in zip(model.blocks, without.model.blocks, strict=True):
            np.testing.assert_array_equal(block.ssm.D, small.ssm.D)
    assert (without.report.predicted_error is None) == (lever == "sensitivity")


def test_pieces_are_as_good_as_an_array(rng):
    model, inputs = model_of(rng), slow(rng)
    whole = compress(model, state_size=6, calibration=inputs, options=NONE).model
    parts = compress(model, state_size=6, calibration=iter([inputs[:10], inputs[10:]]), options=NONE).model
    assert relative(whole(inputs), parts(inputs)) < 1e-5  # streams are kept in single precision


def test_a_split_over_layers_keeps_the_budget_and_gives_states_where_they_count(rng):
    model, inputs = model_of(rng), slow(rng)
    quiet = model.blocks[1].ssm
    quiet = lqo.DiagonalLQOSystem(quiet.poles, quiet.B, 1e-3 * quiet.C, quiet.D, None, dt=1.0)
    model = replace(model, blocks=(model.blocks[0], replace(model.blocks[1], ssm=quiet)))
    result = compress(model, state_size=6, calibration=inputs, options=CalibrationOptions(split=True))
    sizes = [block.ssm.n_slots for block in result.model.blocks]
    assert sum(sizes) <= 6
    assert sizes[0] > sizes[1]


def test_the_smallest_model_within_an_error(rng):
    model, inputs = model_of(rng), slow(rng)
    result = compress(model, max_error=0.2, calibration=inputs)
    assert result.report.calibration_error <= 0.2
    assert result.model.blocks[0].ssm.n_slots < SLOTS
    with pytest.raises(OrderError, match="allow a larger one"):
        compress(model, max_error=1e-9, calibration=inputs)


def test_layers_of_different_kinds_are_refused(rng):
    model = model_of(rng)
    channels = lqo.DiagonalLQOSystem(
        np.full((WIDTH, 2), 0.5), np.ones((WIDTH, 2, 1)), np.ones((WIDTH, 1, 2)), np.zeros((WIDTH, 1, 1)), dt=1.0
    )
    mixed = replace(model, blocks=(model.blocks[0], replace(model.blocks[1], ssm=channels)))
    with pytest.raises(InvalidInputError, match="mixes its inputs"):
        compress(mixed, state_size=2, calibration=slow(rng))


def test_without_pooling_the_decoder_is_refitted(rng):
    model = model_of(rng, pooling=None)
    inputs, others = slow(rng, 64), slow(rng, 64)
    without = compress(model, state_size=4, calibration=inputs, options=CalibrationOptions(mixing=False))
    result = compress(model, state_size=4, calibration=inputs)
    assert np.any(result.model.decoder.weight != model.decoder.weight)
    assert relative(model(others), result.model(others)) < relative(model(others), without.model(others))
    assert result.report.predicted_error == pytest.approx(relative(model(others), result.model(others)), rel=0.5)


def test_without_a_fit_that_changes_something_the_prediction_is_not_from_within(rng, monkeypatch):
    """The old decoder stays: the error on the calibration inputs is no cross-validation."""
    monkeypatch.setattr(
        "lqo_mor.compression.calibration.calibration.refitted_decoder", lambda decoder, pieces: (decoder, [*pieces] and 0.0)
    )
    model, inputs = model_of(rng), slow(rng, 64)
    result = compress(model, state_size=4, calibration=inputs, options=CalibrationOptions(joint=False))
    plain = compress(model, state_size=4, calibration=inputs, options=CalibrationOptions(joint=False, mixing=False))
    assert result.model.decoder is model.decoder
    assert result.report.predicted_error == pytest.approx(plain.report.predicted_error)


def test_the_streams_follow_the_reduced_layers(rng):
    model, inputs = model_of(rng), slow(rng)
    small = compress(model, state_size=6, calibration=inputs).model
    x = encode(small.encoder, inputs)
    for block in small.blocks:
        x = block_output(block, x, system_map(block.ssm, STEPS)(block_input(block, x)))
    np.testing.assert_allclose(np.mean(x, axis=2).T @ small.decoder.weight.T, small(inputs), atol=1e-10)
