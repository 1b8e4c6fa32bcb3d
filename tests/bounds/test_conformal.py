"""Bounds that hold with a probability: how often they do, and what they refuse."""

from dataclasses import replace

import numpy as np
import pytest

import lqo_mor as lqo
from lqo_mor.errors import DimensionError, InvalidInputError
from tests.network.random_models import random_model


@pytest.fixture
def pair():
    rng = np.random.default_rng(0)
    model = random_model(rng, width=3, slots=4, layers=2)
    return model, lqo.compress(model, state_size=4).model, rng.normal(size=(400, 20, model.encoder.n_inputs))


def errors(model, small, inputs):
    return np.linalg.norm(model(inputs) - small(inputs), axis=-1)


@pytest.mark.parametrize("risk", [0.02, 0.1, 0.5])
def test_the_risk_is_kept_on_average(pair, risk):
    model, small, inputs = pair
    all_errors, rng, misses = errors(model, small, inputs), np.random.default_rng(1), []
    for _ in range(400):
        order = rng.permutation(len(inputs))
        held_out, new = order[:60], order[60:]
        bound = np.sort(all_errors[held_out])[-int(risk * 61)]
        misses.append(np.mean(all_errors[new] > bound))
        if len(misses) <= 5:
            assert lqo.conformal_error_bound(model, small, inputs[held_out], risk=risk).bound == pytest.approx(bound, rel=1e-12)
    assert np.mean(misses) == pytest.approx(int(risk * 61) / 61, rel=0.1)
    assert np.mean(misses) <= risk * 1.05


def test_pieces_and_steps(pair):
    model, small, inputs = pair
    whole = lqo.conformal_error_bound(model, small, inputs[:50])
    pieces = lqo.conformal_error_bound(model, small, (inputs[k : k + 20] for k in (0, 20)))
    assert whole.count == 50 and pieces.count == 40 and float(whole) == whole.bound
    model, small = replace(model, pooling=None), replace(small, pooling=None)
    found = lqo.conformal_error_bound(model, small, inputs[:50], risk=0.04)
    assert found.bound == pytest.approx(np.sort(errors(model, small, inputs[:50]).max(axis=1))[-2], rel=1e-12)
    assert str(found) == f"output error at most {found.bound:.3e} with probability 0.96, by 50 held-out inputs"


def test_bad_input(pair):
    model, small, inputs = pair
    with pytest.raises(InvalidInputError, match="needs 19 inputs at least, got 18"):
        lqo.conformal_error_bound(model, small, inputs[:18])
    assert lqo.conformal_error_bound(model, small, inputs[:19]).bound == errors(model, small, inputs[:19]).max()
    for risk in (0.0, 1.0, True, "much"):
        with pytest.raises(InvalidInputError, match="risk must be a probability"):
            lqo.conformal_error_bound(model, small, inputs, risk=risk)
    with pytest.raises(InvalidInputError, match="reduced must be a DeepSSM"):
        lqo.conformal_error_bound(model, None, inputs)
    with pytest.raises(DimensionError, match="outputs of the models have shapes"):
        lqo.conformal_error_bound(model, replace(small, pooling=None), inputs)
    with pytest.raises(lqo.LQOError):
        lqo.conformal_error_bound(model, small, inputs[..., :-1])
