"""Budgets of states: against brute force, and what comes out for models."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from lqo_mor.analysis.differences import h2_error
from lqo_mor.compression import allocation
from lqo_mor.compression.allocation import allocate, split_budget
from lqo_mor.compression.compress import compress
from lqo_mor.errors import DimensionError, InvalidInputError, OrderError
from tests.network.random_models import random_model


def problem(rng, layers=3, candidates=5):
    costs = [2 * np.sort(rng.choice(np.arange(1, 20), candidates, replace=False)) for _ in range(layers)]
    errors = [np.sort(rng.uniform(size=candidates))[::-1] for _ in range(layers)]
    return errors, rng.uniform(0.1, 10, layers), costs


def total(errors, weights, chosen):
    return sum(w * error[i] for w, error, i in zip(weights, errors, chosen, strict=True))


@pytest.mark.parametrize("seed", range(10))
def test_dynamic_programming_is_exact(seed):
    errors, weights, costs = problem(np.random.default_rng(seed))
    least = sum(cost[0] for cost in costs)
    for budget in (least, least + 7, least + 20, 1000):
        chosen, exact = split_budget(errors, weights, costs, budget)
        every = product(*(range(len(cost)) for cost in costs))
        allowed = [pick for pick in every if sum(cost[i] for cost, i in zip(costs, pick, strict=True)) <= budget]
        assert exact and chosen in allowed
        assert total(errors, weights, chosen) == pytest.approx(min(total(errors, weights, pick) for pick in allowed), rel=1e-12)


@pytest.mark.parametrize("seed", range(10))
def test_greedy_keeps_the_budget_and_is_close(seed, monkeypatch):
    errors, weights, costs = problem(np.random.default_rng(seed), layers=12, candidates=8)
    best = split_budget(errors, weights, costs, 250)
    monkeypatch.setattr(allocation, "_EXACT", 0)
    chosen, exact = split_budget(errors, weights, costs, 250)
    assert best[1] and not exact
    assert sum(cost[i] for cost, i in zip(costs, chosen, strict=True)) <= 250
    assert total(errors, weights, best[0]) <= total(errors, weights, chosen) <= 1.2 * total(errors, weights, best[0])


def test_greedy_is_exact_on_convex_curves_with_unit_steps(monkeypatch):
    costs = [np.arange(1, 9)] * 4
    errors = [rate ** np.arange(1, 9) for rate in (0.9, 0.7, 0.5, 0.2)]
    best = split_budget(errors, np.ones(4), costs, 14)[0]
    monkeypatch.setattr(allocation, "_EXACT", 0)
    assert total(errors, np.ones(4), split_budget(errors, np.ones(4), costs, 14)[0]) == pytest.approx(
        total(errors, np.ones(4), best)
    )


def test_model():
    model = random_model(np.random.default_rng(0), prenorm=True, layers=3)
    calls = []
    found = allocate(model, 16, horizon=20, progress=lambda done, total: calls.append((done, total)))
    assert sum(found.sizes) <= 16 and found.exact
    assert found.sizes[0] >= found.sizes[-1]  # shallow layers weigh most
    assert np.all(np.diff(found.weights) < 0)
    assert calls[-1] == (12, 12) and calls == sorted(calls)
    small = compress(model, state_size=found.sizes, method="balanced", horizon=20).model
    errors = [
        np.linalg.norm(h2_error(a.ssm, b.ssm, horizon=20, delay=0)) for a, b in zip(model.blocks, small.blocks, strict=True)
    ]
    np.testing.assert_allclose(found.errors, errors, rtol=1e-8, atol=1e-12)
    assert found.bound == pytest.approx(found.weights @ errors)
    text = str(found)
    assert "layer 2" in text and f"{sum(found.sizes)} states" in text and "the least of all splits" in text


def test_calibration_and_method():
    rng = np.random.default_rng(1)
    model = random_model(rng)
    with pytest.raises(InvalidInputError, match="calibration"):
        allocate(model, 8, horizon=12)  # the first system reads inputs of any size
    found = allocate(model, 8, horizon=12, calibration=rng.normal(size=(3, 12, 2)), method="modal", sizes=[2, 4])
    assert set(found.sizes) <= {2, 4, 8} and sum(found.sizes) <= 8


def test_layers_that_stay_whole_have_no_error():
    model = random_model(np.random.default_rng(2), mimo=True, rank=1, prenorm=True)
    found = allocate(model, 100, horizon=10, weights=[1.0, 2.0])
    assert found.sizes == (8, 8)
    assert found.bound == 0


def test_bad_arguments():
    model = random_model(np.random.default_rng(3), prenorm=True)
    with pytest.raises(InvalidInputError, match="DeepSSM"):
        allocate(replace(model, blocks=()), 8, horizon=10)
    with pytest.raises(DimensionError, match="weights"):
        allocate(model, 8, horizon=10, weights=[1.0])
    with pytest.raises(OrderError, match="state size 3"):
        allocate(model, 8, horizon=10, sizes=[3])
    for budget, match in [(2, "below 4"), (8.0, "integer"), (True, "integer")]:
        with pytest.raises(InvalidInputError, match=match):
            allocate(model, budget, horizon=10)
    with pytest.raises(InvalidInputError, match="positive"):
        allocate(model, 8, horizon=10, weights=[1.0, -1.0])
