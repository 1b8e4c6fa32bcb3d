from importlib.resources import files

import numpy as np
import pytest

from lqo_mor.checkpoints.load import load_checkpoint
from lqo_mor.compression.allocation import allocate
from lqo_mor.compression.calibration.calibration import CalibrationOptions
from lqo_mor.compression.compress import compress
from lqo_mor.errors import InvalidInputError, OrderError, StabilityWarning
from tests.network.random_models import random_model


@pytest.fixture
def model():
    return random_model(np.random.default_rng(0), width=3, slots=4)


def test_state_size(model):
    calls = []
    result = compress(model, state_size=4, horizon=100, progress=lambda done, total: calls.append((done, total)))
    assert [block.state_size for block in result.model.blocks] == [4, 4]
    assert [block.state_size for block in model.blocks] == [8, 8]
    assert calls == sorted(calls)
    assert calls[-1] == (200, 200)
    report = result.report
    assert report.parameters_after == result.model.n_parameters < report.parameters_before == model.n_parameters
    layer = report.layers[1]
    assert (layer.name, layer.states_before, layer.states_after, layer.repaired) == ("layer 1", 8, 4, 0)
    assert layer.relative_error.shape == (3,)
    text = str(report)
    assert "8 -> 4" in text
    assert "horizon 100" in text
    u = np.random.default_rng(1).normal(size=(2, 10, 2))
    assert np.linalg.norm(result.model(u) - model(u)) < np.linalg.norm(model(u))
    # Everything around the systems is the same object still.
    assert result.model.blocks[0].mixing is model.blocks[0].mixing


@pytest.mark.parametrize(("keep", "size"), [(0.5, 4), (0.7, 6), (0.01, 2)])
def test_keep_gives_the_nearest_even_size(model, keep, size):
    assert compress(model, keep=keep).model.blocks[0].state_size == size


def test_one_size_per_layer(model):
    assert [block.state_size for block in compress(model, state_size=[2, 6]).model.blocks] == [2, 6]


@pytest.mark.parametrize("size", [8, 10, 3, 0, -2, 4.0, True, "4", [8, 10]])
def test_impossible_sizes_are_refused(model, size):
    with pytest.raises(OrderError, match="state size"):
        compress(model, state_size=size)


def test_a_layer_that_has_no_more_states_stays_as_it_is(model):
    result = compress(model, state_size=[4, 8])
    assert [block.state_size for block in result.model.blocks] == [4, 8]
    assert result.model.blocks[1].ssm is model.blocks[1].ssm
    assert np.all(result.report.layers[1].relative_error == 0)


def test_keep_that_keeps_everything_is_refused(model):
    with pytest.raises(OrderError, match="not below"):
        compress(model, keep=0.99)


@pytest.mark.parametrize(
    "arguments", [{}, {"state_size": 4, "keep": 0.5}, {"keep": 0}, {"keep": 1.0}, {"keep": "x"}, {"state_size": [4]}]
)
def test_contradictory_arguments_are_refused(model, arguments):
    with pytest.raises(InvalidInputError):
        compress(model, **arguments)


def test_a_mimo_quadratic_model_gives_scalar_errors():
    model = random_model(np.random.default_rng(0), mimo=True)
    layer = compress(model, state_size=2).report.layers[0]
    assert layer.relative_error.shape == ()
    assert layer.repaired == 0


def test_repairs_are_told_once_and_counted():
    model = load_checkpoint(str(files("lqo_mor") / "data" / "demo_digits.safetensors"))
    with pytest.warns(StabilityWarning, match="of 144 reduced systems were unstable") as record:
        report = compress(model, state_size=8, method="balanced", horizon=64).report
    assert len(record) == 1
    assert f"{sum(layer.repaired for layer in report.layers)} of 144" in str(record[0].message)
    assert "unstable" in str(report)


def test_the_published_method(model):
    inputs = np.random.default_rng(2).normal(size=(4, 50, 2))
    result = compress(model, state_size=4, allocation="bound", horizon=50, calibration=inputs)
    assert result.report.method == "projected_gradient"
    assert sum(block.state_size for block in result.model.blocks) <= 8
    with pytest.raises(InvalidInputError, match="horizon"):
        compress(model, state_size=4, allocation="bound")


def test_the_bound_splits_for_any_method(model):
    inputs = np.random.default_rng(2).normal(size=(4, 50, 2))
    result = compress(model, state_size=4, method="balanced", allocation="bound", horizon=50, calibration=inputs)
    assert result.report.method == "balanced"
    sizes = allocate(model, 8, horizon=50, calibration=inputs).sizes
    assert tuple(block.state_size for block in result.model.blocks) == sizes
    by_hand = compress(model, state_size=sizes, method="balanced", horizon=50)
    for block, other in zip(result.model.blocks, by_hand.model.blocks, strict=True):
        np.testing.assert_array_equal(block.ssm.poles, other.ssm.poles)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"allocation": "even"}, 'must be "uniform" or "bound"'),
        ({"in_class": True, "method": "balanced"}, "its own method"),
        ({"in_class": True, "allocation": "bound", "horizon": 50}, "its own method"),
        ({"in_class": True, "calibration": np.zeros((2, 50, 2))}, "a calibration is for"),
        ({"method": "balanced", "calibration": np.zeros((2, 50, 2))}, "a calibration is for"),
        ({"options": CalibrationOptions()}, "give calibration inputs"),
        (
            {"allocation": "bound", "horizon": 50, "calibration": np.zeros((2, 50, 2)), "options": CalibrationOptions()},
            "takes neither",
        ),
    ],
)
def test_choices_that_do_not_go_together(model, arguments, message):
    with pytest.raises(InvalidInputError, match=message):
        compress(model, state_size=4, **arguments)
