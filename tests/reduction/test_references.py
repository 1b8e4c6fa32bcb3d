"""Reductions of the reference systems against errors that were evaluated in 256-bit arithmetic."""

import json

import numpy as np
import pytest

import lqo_mor as lqo


@pytest.fixture(scope="module")
def references(lqo_data):
    return json.loads((lqo_data / "reference.json").read_text())


def load(folder, name):
    with np.load(folder / f"{name}.npz") as data:
        return lqo.LQOSystem(data["A"], data["B"], data["C"], M=np.moveaxis(data["M"], 2, 0), dt=0)


@pytest.mark.parametrize(("name", "orders"), [("msd120p2", (2, 4, 8, 16)), ("advdiff200", (2, 4, 8))])
def test_balanced_truncation(name, orders, references, lqo_data):
    sys = load(lqo_data, name)
    for order in orders:
        wanted = references[name]["relative_h2_error"]["bt_own"][str(order)]
        assert lqo.balanced_truncation(sys, order).relative_error == pytest.approx(wanted, rel=1e-6)


def test_balanced_truncation_with_an_error_far_below_the_norm(references, lqo_data):
    wanted = references["advdiff200"]["relative_h2_error"]["bt_own"]["30"]
    assert lqo.balanced_truncation(load(lqo_data, "advdiff200"), 30).relative_error == pytest.approx(wanted, rel=0.02)


@pytest.mark.parametrize(
    ("name", "order"),
    [
        ("msd120p2", 2),
        ("msd120p2", 4),
        ("msd120p2", 8),
        ("msd120p2", 16),
        ("msd120p2", 30),
        ("advdiff200", 2),
        ("advdiff200", 4),
        ("advdiff200", 8),
        ("advdiff200", 16),
        ("advdiff200", 30),
    ],
)
def test_optimal_reaches_the_best_known(name, order, references, lqo_data):
    best = references[name]["best"][str(order)]["rel_err"]
    assert lqo.reduce(load(lqo_data, name), order).relative_error <= 1.001 * best
