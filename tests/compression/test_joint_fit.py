"""All linear parts of a reduced model moved together."""

import contextlib
from dataclasses import replace

import numpy as np
import pytest

import lqo_mor as lqo
from lqo_mor.compression.calibration import joint_fit
from lqo_mor.compression.calibration.joint_fit import jointly_fitted
from lqo_mor.compression.calibration.linear_parameters import differentiate, linear_parameters, with_changes
from lqo_mor.compression.calibration.spool import Spool
from lqo_mor.network.layers import Linear
from tests.compression.test_calibrated_systems import model_of as model_of_systems
from tests.network.random_models import random_model


@pytest.fixture
def rng():
    return np.random.default_rng(3)


FOLDERS = contextlib.ExitStack()


@pytest.fixture(autouse=True)
def _folders():
    with FOLDERS:
        yield


def spools(model, inputs, cut=7):
    """Inputs in pieces, and the model's outputs for them."""
    read, wanted = (FOLDERS.enter_context(Spool()) for _ in range(2))
    for start in range(0, len(inputs), cut):
        read.append(inputs[start : start + cut])
        wanted.append(model(read[len(read) - 1]))
    return read, wanted


def fitted(model, read, wanted, mixing=True, feedthrough=True):
    calls = []
    found = jointly_fitted(model, read, wanted, mixing=mixing, feedthrough=feedthrough, progress=lambda *call: calls.append(call))
    assert not calls or calls[-1][0] == calls[-1][1] <= sum(map(len, wanted))
    return found[0], found[2]


def shaken(model, rng, size):
    """The model with all of its linear parts changed."""

    def moved(mapping):
        bias = None if mapping.bias is None else mapping.bias + size
        return Linear(mapping.weight + size * rng.normal(size=mapping.weight.shape), bias)

    blocks = []
    for block in model.blocks:
        ssm, q = block.ssm, block.ssm.M
        C = ssm.C * (1 + size * rng.normal(size=ssm.C.shape))
        q = q and replace(q, W=q.W * (1 + size * rng.normal(size=q.W.shape)))
        ssm = replace(ssm, C=C, D=ssm.D + size * np.eye(*ssm.D.shape[-2:]), M=q)
        blocks.append(replace(block, ssm=ssm, mixing=block.mixing and moved(block.mixing)))
    return replace(model, blocks=tuple(blocks), decoder=moved(model.decoder))


def relative(model, other, inputs):
    return np.linalg.norm(other(inputs) - model(inputs)) / np.linalg.norm(model(inputs))


def check_gradients(model, rng):
    """Gradients by all parameters against differences of outputs."""
    u, outputs = rng.normal(size=(4, 9, model.encoder.n_inputs)), model.decoder.n_outputs
    parts = linear_parameters(model, True)
    arrays, directions = [np.zeros((8, part.size), np.float32) for part in parts], rng.normal(size=(2, outputs))
    differentiate(model, [u[:3], u[3:]], directions, True, parts, arrays, lambda done: None)
    for k, part in enumerate(parts):
        moves = [rng.normal(size=p.size) if p is part else np.zeros(p.size) for p in parts]
        ends = [with_changes(model, parts, [sign * 1e-5 * move for move in moves], 9)(u) for sign in (1, -1)]
        slopes = ((ends[0] - ends[1]) / 2e-5 @ directions.T).ravel()
        assert np.max(np.abs(slopes)) > 1e-3
        np.testing.assert_allclose(arrays[k] @ moves[k], slopes, rtol=1e-4, atol=1e-4 * np.max(np.abs(slopes)))


@pytest.mark.parametrize(("prenorm", "pooling", "gate"), [(True, "mean", "glu"), (False, "last", "glu"), (False, "mean", None)])
def test_gradients_by_all_parameters(rng, prenorm, pooling, gate):
    model = random_model(rng, width=3, slots=3, prenorm=prenorm, pooling=pooling, gate=gate)
    ssm = model.blocks[0].ssm  # a real pole, and a slot that is not used
    B, C, poles = ssm.B.copy(), ssm.C.copy(), ssm.poles.copy()
    poles[:, 0], B[:, 0], C[..., 0], B[1, 2] = poles[:, 0].real, B[:, 0].real, C[..., 0].real, 0
    model = replace(model, blocks=(replace(model.blocks[0], ssm=replace(ssm, poles=poles, B=B, C=C)), *model.blocks[1:]))
    check_gradients(model, rng)


@pytest.mark.parametrize("prenorm", [True, False])
@pytest.mark.parametrize("rank", [0, 2])
def test_gradients_by_the_parameters_of_single_systems(rng, prenorm, rank):
    model = model_of_systems(rng, 3, rank, prenorm)
    ssm = model.blocks[0].ssm  # a slot that is not used
    B = ssm.B.copy()
    B[2] = 0
    check_gradients(replace(model, blocks=(replace(model.blocks[0], ssm=replace(ssm, B=B)), *model.blocks[1:])), rng)


def test_gradients_where_some_parameters_are_fixed(rng):
    model = model_of_systems(rng, 2, 0)
    q = lqo.QuadraticOutput(*np.zeros((2, 0, model.blocks[0].ssm.n_slots)), np.zeros((model.blocks[0].width, 0)))
    blocks = [replace(b, mixing=replace(b.mixing, fixed=b.width), ssm=replace(b.ssm, M=q)) for b in model.blocks]
    model = replace(model, blocks=tuple(blocks))
    check_gradients(model, rng)
    parts = linear_parameters(model, True)
    changed = with_changes(model, parts, [rng.normal(size=part.size) for part in parts], 9)
    for new, old in zip(changed.blocks, model.blocks, strict=True):
        np.testing.assert_array_equal(new.mixing.weight[: old.width], old.mixing.weight[: old.width])
        assert np.all(new.mixing.weight[old.width :] != old.mixing.weight[old.width :])


@pytest.mark.parametrize(("of", "count"), [(lambda rng: random_model(rng, width=4, slots=3), 80), (model_of_systems, 200)])
def test_a_model_that_was_moved_is_found_again(rng, of, count):
    model = of(rng)
    inputs, unseen = rng.normal(size=(2, count, 20, model.encoder.n_inputs))
    other = shaken(model, rng, 0.03)
    found, error = fitted(other, *spools(model, inputs))
    assert relative(model, found, inputs) < error < 0.3 * relative(model, other, inputs)
    assert 0.5 * error < relative(model, found, unseen) < 1.5 * error


def test_more_steps_where_the_first_leaves_out_much(rng, monkeypatch):
    model = random_model(rng, width=4, slots=3)
    inputs, unseen = rng.normal(size=(2, 200, 20, model.encoder.n_inputs))
    other = shaken(model, rng, 0.3)
    found, error = fitted(other, *spools(model, inputs))
    monkeypatch.setattr(joint_fit, "_STEPS", 1)
    once, promised = fitted(other, *spools(model, inputs))
    assert error < promised
    assert relative(model, found, unseen) < 0.5 * relative(model, once, unseen)
    assert 0.5 * error < relative(model, found, unseen) < 1.5 * error


def test_what_may_change(rng):
    model = random_model(rng, width=4, slots=3)
    read, wanted = spools(model, rng.normal(size=(60, 20, model.encoder.n_inputs)))
    outputs = [replace(b.ssm, C=b.ssm.C * rng.uniform(0.9, 1.1, b.ssm.C.shape)) for b in model.blocks]
    other = replace(model, blocks=tuple(replace(b, ssm=ssm) for b, ssm in zip(model.blocks, outputs, strict=True)))
    found, _ = fitted(other, read, wanted, mixing=False, feedthrough=False)
    assert found.decoder is other.decoder
    for new, old in zip(found.blocks, other.blocks, strict=True):
        assert new.mixing is old.mixing
        np.testing.assert_array_equal(new.ssm.D, old.ssm.D)
        np.testing.assert_array_equal(new.ssm.poles, old.ssm.poles)
        assert np.max(np.abs(new.ssm.C - old.ssm.C)) > 1e-3


def test_outputs_that_no_parameter_reaches_leave_the_model_alone(rng):
    model = random_model(rng, width=3, slots=2)
    inputs = np.zeros((60, 8, model.encoder.n_inputs))  # the same output for all, wanted ones without a mean
    read, wanted = spools(model, inputs)
    signs = iter(np.tile([1.0, -1.0], 30))
    for k in range(len(wanted)):
        wanted[k] = np.array([y + next(signs) for y in wanted[k]])
    found, error = fitted(model, read, wanted)
    assert found is model
    assert error == pytest.approx(np.sqrt(outputs_power(model) / (model(inputs[:1]) ** 2 + 1).sum()), rel=1e-3)


def outputs_power(model):
    return model.decoder.n_outputs


def test_too_few_sequences_leave_the_model_alone(rng):
    model = random_model(rng, width=3, slots=2)
    read, wanted = spools(model, rng.normal(size=(49, 8, model.encoder.n_inputs)))
    other = shaken(model, rng, 0.1)
    assert jointly_fitted(other, read, wanted, mixing=True, feedthrough=True, progress=lambda *_: None)[0] is other


def test_with_more_sequences_than_equations_some_are_left_out(rng, monkeypatch):
    model = random_model(rng, width=4, slots=3)
    inputs = rng.normal(size=(120, 20, model.encoder.n_inputs))
    other = shaken(model, rng, 0.03)
    monkeypatch.setattr(joint_fit, "_EQUATIONS", 60)
    found, error = fitted(other, *spools(model, inputs, cut=1))
    assert relative(model, found, inputs) < 0.7 * relative(model, other, inputs)
    assert 0.5 * error < relative(model, found, inputs) < 2 * error


def test_parameters_that_change_nothing_and_maps_without_bias(rng):
    model = random_model(rng, width=4, slots=3)
    read, wanted = spools(model, rng.normal(size=(60, 20, model.encoder.n_inputs)))
    blocks = [replace(b, mixing=Linear(0 * b.mixing.weight)) for b in model.blocks]  # no system reaches the output
    other = replace(model, blocks=tuple(blocks), decoder=Linear(model.decoder.weight))
    found, error = fitted(other, read, wanted)
    assert np.isfinite(error)
    assert all(block.mixing.bias is None for block in found.blocks)
    assert found.decoder.bias is None


def test_maps_without_room_stay(rng, monkeypatch):
    model = random_model(rng, width=4, slots=3)
    read, wanted = spools(model, rng.normal(size=(60, 20, model.encoder.n_inputs)))
    outputs = [replace(b.ssm, C=b.ssm.C * rng.uniform(0.9, 1.1, b.ssm.C.shape)) for b in model.blocks]
    other = replace(model, blocks=tuple(replace(b, ssm=ssm) for b, ssm in zip(model.blocks, outputs, strict=True)))
    monkeypatch.setattr(joint_fit, "_NUMBERS", 100 * (2 * 4 * 7 + 25))  # a hundred equations for systems and decoder
    found, _ = fitted(other, read, wanted)
    for new, old in zip(found.blocks, other.blocks, strict=True):
        assert new.mixing is old.mixing
        assert np.max(np.abs(new.ssm.C - old.ssm.C)) > 1e-3


@pytest.mark.parametrize(
    ("of", "count"), [(lambda rng: random_model(rng, width=4, slots=6, layers=2), 60), (model_of_systems, 200)]
)
def test_the_calibration_uses_it(of, count):
    rng = np.random.default_rng(2)
    model = of(rng)
    inputs, unseen = np.cumsum(rng.normal(size=(2, count, 30, model.encoder.n_inputs)), axis=2) * 0.3
    errors = []
    for joint in (False, True):
        result = lqo.compress(model, state_size=4, calibration=inputs, options=lqo.CalibrationOptions(joint=joint))
        errors.append(relative(model, result.model, unseen))
    assert errors[1] < 0.9 * errors[0]
    assert result.report.calibration_error == pytest.approx(relative(model, result.model, inputs), rel=1e-4)
    assert result.report.predicted_error == pytest.approx(errors[1], rel=0.5)
