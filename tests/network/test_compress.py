from types import SimpleNamespace

import numpy as np
import pytest

from lqo_mor.errors import InvalidInputError, OrderError
from lqo_mor.network import compress
from lqo_mor.systems.diagonal import DiagonalLQOSystem
from tests.network.random_models import random_model


def keep_largest(sys, order=None, *, slots=None, method="optimal", horizon=None, start=None, progress=None):
    """Stand-in for `reduce`: the slots of largest contribution, with made-up errors."""
    size = np.abs(sys.C).sum(-2) * np.abs(sys.B).sum(-1) / (1 - np.abs(sys.poles))
    best = np.sort(np.argsort(-size, axis=-1)[..., :slots], axis=-1)
    system = DiagonalLQOSystem(
        np.take_along_axis(sys.poles, best, -1),
        np.take_along_axis(sys.B, best[..., :, None], -2),
        np.take_along_axis(sys.C, best[..., None, :], -1),
        sys.D,
    )
    if progress is not None:
        for done in range(1, 3):
            progress(done, 2)
    shape = sys.batch
    return SimpleNamespace(
        system=system, error=np.full(shape, 0.2), relative_error=np.full(shape, 0.1), repaired=np.ones(shape, bool)
    )


@pytest.fixture
def model(monkeypatch):
    monkeypatch.setattr("lqo_mor.reduction.reduce", keep_largest, raising=False)
    return random_model(np.random.default_rng(0), width=3, slots=4)


def test_state_size(model):
    calls = []
    result = compress(model, state_size=4, horizon=100, progress=lambda done, total: calls.append((done, total)))
    assert [block.state_size for block in result.model.blocks] == [4, 4]
    assert [block.state_size for block in model.blocks] == [8, 8]
    assert calls == [(50, 200), (100, 200), (150, 200), (200, 200)]
    report = result.report
    assert report.parameters_after == result.model.n_parameters < report.parameters_before == model.n_parameters
    layer = report.layers[1]
    assert (layer.name, layer.states_before, layer.states_after, layer.repaired) == ("layer 1", 8, 4, 3)
    assert layer.relative_error.shape == (3,)
    text = str(report)
    assert "8 -> 4" in text
    assert "horizon 100" in text
    assert "6 reduced systems were unstable" in text
    u = np.random.default_rng(1).normal(size=(2, 10, 2))
    assert np.linalg.norm(result.model(u) - model(u)) < np.linalg.norm(model(u))
    # Everything around the systems is the same object still.
    assert result.model.blocks[0].mixing is model.blocks[0].mixing


@pytest.mark.parametrize(("keep", "size"), [(0.5, 4), (0.7, 6), (0.01, 2)])
def test_keep_gives_the_nearest_even_size(model, keep, size):
    assert compress(model, keep=keep).model.blocks[0].state_size == size


def test_one_size_per_layer(model):
    assert [block.state_size for block in compress(model, state_size=[2, 6]).model.blocks] == [2, 6]


@pytest.mark.parametrize("size", [8, 10, 3, 0, -2, 4.0, True, "4", [4, 8]])
def test_impossible_sizes_are_refused(model, size):
    with pytest.raises(OrderError, match="state size"):
        compress(model, state_size=size)


def test_keep_that_keeps_everything_is_refused(model):
    with pytest.raises(OrderError, match="not below"):
        compress(model, keep=0.99)


@pytest.mark.parametrize(
    "arguments", [{}, {"state_size": 4, "keep": 0.5}, {"keep": 0}, {"keep": 1.0}, {"keep": "x"}, {"state_size": [4]}]
)
def test_contradictory_arguments_are_refused(model, arguments):
    with pytest.raises(InvalidInputError):
        compress(model, **arguments)


def test_a_mimo_quadratic_model_gives_scalar_errors(monkeypatch):
    monkeypatch.setattr("lqo_mor.reduction.reduce", keep_largest, raising=False)
    model = random_model(np.random.default_rng(0), mimo=True)
    layer = compress(model, state_size=2).report.layers[0]
    assert layer.relative_error.shape == ()
    assert layer.repaired == 1
