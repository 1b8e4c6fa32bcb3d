"""Several orders at once, and the order for a tolerance."""

import dataclasses
import re
import warnings

import numpy as np
import pytest

import lqo_mor as lqo
from lqo_mor.analysis.door import norm_of
from lqo_mor.errors import InvalidInputError, LQOWarning, OrderError, StabilityWarning, UnstableSystemError
from lqo_mor.reduction.best_of import better
from lqo_mor.reduction.reduce import METHODS
from lqo_mor.reduction.result import Method
from lqo_mor.reduction.sweep import solve
from tests.cases import dense, diagonal, get, parametrize, select

ITERATIVE = [name for name in METHODS if name not in ("balanced", "modal", "hippo")]
QUICK = {"projected_gradient": {"max_iterations": 20}}
SYSTEMS = select(real=True, hard=False)
CHAIN = lqo.examples.mass_spring_damper(10)  # balanced truncation gets worse from some orders to the next
ROD = lqo.examples.advection_diffusion(40)
LAYER = lqo.examples.s4d(8, 5, kind="legs", seed=4)


def orders_of(sys):
    return range(1, int(np.min(sys.order)))


@pytest.fixture(autouse=True)
def repairs_are_no_news():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LQOWarning)
        yield


@parametrize(SYSTEMS)
@pytest.mark.parametrize("horizon", [None, 6])
def test_the_balanced_curve_is_what_single_truncations_give(sys, horizon):
    curve = lqo.reduce(sys, orders=orders_of(sys), method="balanced", horizon=horizon)
    for order, red in zip(curve.orders, curve.reductions["balanced"], strict=True):
        single = lqo.balanced_truncation(sys, order, horizon=horizon)
        np.testing.assert_allclose(red.error, single.error, rtol=1e-9, atol=1e-12)
        np.testing.assert_array_equal(red.repaired, single.repaired)
        assert (red.bound is None) == (single.bound is None)
    np.testing.assert_allclose(curve.hsv, single.hsv, rtol=1e-12)
    assert curve.horizon == horizon


@parametrize(SYSTEMS)
@pytest.mark.parametrize("method", ITERATIVE)
def test_iterative_methods_never_get_worse_with_the_order(sys, method):
    orders = [order for order in (1, 2, 4) if order in orders_of(sys)]
    curve = lqo.reduce(sys, orders=orders, method=method, **QUICK.get(method, {}))
    errors = curve.errors[method]
    assert errors.shape == (len(curve.orders), *getattr(sys, "batch", ()))
    assert np.all(np.diff(errors, axis=0) <= 0)
    for order, red in zip(curve.orders, curve.reductions[method], strict=True):
        assert type(red.system) is type(sys)
        np.testing.assert_allclose(red.error, lqo.h2_error(sys, red.system), rtol=1e-12)
        used = red.system.order if isinstance(sys, lqo.LQOSystem) else np.sum(
            np.where(np.any(red.system.B, axis=-1), 2 - red.system.is_real_pole, 0), axis=-1
        )  # fmt: skip
        assert np.max(used) <= order


@pytest.mark.parametrize("sys", [CHAIN, ROD, LAYER], ids=["chain", "rod", "layer"])
def test_optimal_is_below_balanced_at_every_order(sys):
    curve = lqo.reduce(sys, orders=[2, 3, 5, 8], method=["balanced", "optimal"])
    assert np.all(curve.errors["optimal"] <= curve.errors["balanced"])
    assert np.all(np.diff(curve.errors["optimal"], axis=0) <= 0)


def test_balanced_truncation_is_shown_as_it_is():
    errors = lqo.reduce(CHAIN, orders=range(2, 9), method="balanced").errors["balanced"]
    assert np.any(np.diff(errors) > 0)


def test_a_single_order_is_an_ordinary_reduction():
    curve = lqo.reduce(ROD, orders=[4])
    assert curve.errors["optimal"][0] == pytest.approx(lqo.reduce(ROD, 4).relative_error, rel=1e-9)


def test_orders_are_sorted_and_taken_once():
    curve = lqo.reduce(ROD, orders=np.array([6, 2, 6, 4]), method=("balanced", "balanced"))
    assert curve.orders == (2, 4, 6)
    assert list(curve.reductions) == ["balanced"]
    assert all(isinstance(order, int) for order in curve.orders)


def test_a_channel_that_the_larger_order_makes_worse_keeps_the_smaller_system():
    small, large = (lqo.reduce(LAYER, order, method="optimal", max_iterations=20) for order in (2, 4))
    worse = np.array([True, False, False, True, False])
    spoilt = dataclasses.replace(large, error=np.where(worse, 10.0, large.error))
    kept = better(spoilt, small)
    np.testing.assert_array_equal(kept.error, np.where(worse, small.error, large.error))
    np.testing.assert_allclose(lqo.h2_error(LAYER, kept.system), kept.error, rtol=1e-9)
    np.testing.assert_array_equal(kept.iterations, np.where(worse, small.iterations, large.iterations))
    assert kept.history.shape[-1] == max(small.history.shape[-1], large.history.shape[-1])
    assert list(kept.status) == [(small if w else large).status[k] for k, w in enumerate(worse)]
    assert better(large, small) is large
    assert better(dataclasses.replace(large, error=large.error + 10), small) is small


def test_a_search_that_falls_behind_starts_again_from_the_order_before():
    small, starts, norm = lqo.reduce(ROD, 2), [], norm_of(ROD)

    def steps(sys, budget, norm, *, progress=None, start=None):
        starts.append(start)
        if start is None:
            return lqo.balanced_truncation(sys, 1)
        return lqo.variable_projection(sys, budget.order, start=start)

    method = Method(lqo.variable_projection, steps)
    red = solve(ROD, 4, "optimal", (method, {}), norm, None, small)
    assert starts == [None, small]
    assert red.system.order == 4
    assert red.error < small.error
    assert solve(ROD, 4, "tsia", (method, {}), norm, None, small) is small  # which cannot fill up a smaller system


def test_the_table_of_a_single_system():
    text = str(lqo.reduce(ROD, orders=[2, 4], method=["balanced", "optimal"]))
    assert re.search(r"^ order +balanced +optimal$", text, re.MULTILINE)
    assert len(text.splitlines()) == 4


def test_the_table_of_a_batch_shows_median_and_worst():
    curve = lqo.reduce(LAYER, orders=[2, 4], method=["balanced", "modal"], horizon=64)
    lines = str(curve).splitlines()
    assert "horizon 64" in lines[0]
    assert lines[1].split("  ")[0] == " order"
    assert lines[1].count("worst") == 2
    row = [float(cell) for cell in lines[2].split()]
    assert row[0] == 2
    errors = curve.errors["modal"][0]
    np.testing.assert_allclose(row[3:], [np.median(errors), errors.max()], rtol=1e-3)


@pytest.mark.parametrize("tolerance", [0.3, 0.03, 1e-4])
@pytest.mark.parametrize("method", ["balanced", "optimal"])
def test_the_order_for_a_tolerance(method, tolerance):
    red = lqo.reduce(ROD, max_error=tolerance, method=method)
    assert red.relative_error <= tolerance
    assert red.method == method
    below = lqo.reduce(ROD, red.system.order - 1, method=method)
    assert below.relative_error > tolerance


@pytest.mark.parametrize("method", [method for method in METHODS if method != "irka"])  # which has no finite horizon
def test_the_worst_channel_meets_the_tolerance(method):
    options = QUICK.get(method, {})
    red = lqo.reduce(LAYER, max_error=0.7, method=method, horizon=32, **options)
    assert red.relative_error.max() <= 0.7
    assert red.system.batch == LAYER.batch


def test_optimal_needs_no_more_states_than_balanced():
    orders = [lqo.reduce(CHAIN, max_error=0.2, method=method).system.order for method in ("optimal", "balanced")]
    assert orders[0] <= orders[1]


def test_a_tolerance_that_one_state_meets():
    assert lqo.reduce(ROD, max_error=2.0, method="balanced").system.order == 1


def test_modal_truncation_passes_over_the_order_that_it_cannot_give():
    pairs = diagonal(3, pairs=4)
    red = lqo.reduce(pairs, max_error=0.9, method="modal")
    assert red.relative_error <= 0.9


@pytest.mark.parametrize("method", ["balanced", "optimal", "hippo"])
def test_a_tolerance_out_of_reach(method):
    sys = lqo.LQOSystem(np.diag([0.9, -0.9, 0.5]), np.ones((3, 1)), np.ones((1, 3)), dt=1.0)
    with pytest.raises(OrderError, match="no order below the 3 of the full system meets max_error = 1e-09: at order 2"):
        lqo.reduce(sys, max_error=1e-9, method=method)


@pytest.mark.parametrize("tolerance", [0, -1.0, np.nan, np.inf, "0.1", True, [0.1]])
def test_tolerances_that_are_none(tolerance):
    with pytest.raises(InvalidInputError, match="max_error must be a positive number"):
        lqo.reduce(ROD, max_error=tolerance)


@pytest.mark.parametrize(
    ("orders", "error", "message"),
    [
        ([], InvalidInputError, "orders is empty"),
        (4, InvalidInputError, "orders must be a sequence"),
        ([2, 40], OrderError, "from 1 to 39"),
        ([0], OrderError, "got 0"),
        ([2.0], OrderError, r"got 2\.0"),
        ("24", OrderError, "got '2'"),
    ],
)
def test_orders_that_are_none(orders, error, message):
    with pytest.raises(error, match=message):
        lqo.reduce(ROD, orders=orders)


@pytest.mark.parametrize(
    "budget",
    [
        {},
        {"order": 2, "max_error": 0.1},
        {"orders": [2], "max_error": 0.1},
        {"slots": 2, "orders": [2]},
        {"order": 1, "orders": [2]},
    ],
)
def test_exactly_one_budget(budget):
    with pytest.raises(InvalidInputError, match=r"give exactly one of order .*, slots .*, orders .* and max_error"):
        lqo.reduce(LAYER, **budget)


def test_lists_of_methods_are_for_curves():
    for budget in ({"order": 2}, {"max_error": 0.1}):
        with pytest.raises(InvalidInputError, match=r"unknown method \['optimal'\].*a list of methods needs orders"):
            lqo.reduce(ROD, method=["optimal"], **budget)
    for method in ([], ["optimal", "best"], [["optimal"]], 3):
        with pytest.raises(InvalidInputError, match="unknown method"):
            lqo.reduce(ROD, orders=[2], method=method)


def test_an_option_goes_to_the_methods_that_have_it():
    curve = lqo.reduce(ROD, orders=[2], method=["balanced", "optimal"], max_iterations=0)
    assert curve.reductions["optimal"][0].iterations == 0
    with pytest.raises(InvalidInputError, match="none of these methods has no option 'armijo'"):
        lqo.reduce(ROD, orders=[2], method=["balanced", "modal"], armijo=0.1)
    with pytest.raises(InvalidInputError, match="max_iterations"):
        lqo.reduce(ROD, max_error=0.1, max_iterations=-1)


def test_the_tolerance_of_a_method_beside_the_largest_error():
    loose, tight = (lqo.reduce(ROD, max_error=0.05, tolerance=tolerance) for tolerance in (0.1, 1e-8))
    assert np.all(loose.iterations <= tight.iterations)
    assert max(loose.relative_error, tight.relative_error) <= 0.05


def test_a_start_of_ones_own():
    start = lqo.balanced_truncation(ROD, 2)
    curve = lqo.reduce(ROD, orders=[2, 4], start=start)
    assert np.all(curve.errors["optimal"] <= start.relative_error)
    assert curve.errors["optimal"][1] < curve.errors["optimal"][0]


def test_a_stable_result_for_unstable_systems_needs_a_finite_horizon():
    sys = lqo.LQOSystem(np.diag([1.1, 0.5, 0.2]), np.ones((3, 1)), np.ones((1, 3)), dt=1.0)
    for budget in ({"orders": [1, 2]}, {"max_error": 0.1}):
        with pytest.raises(UnstableSystemError, match="finite horizon"):
            lqo.reduce(sys, **budget, stable=True)
        lqo.reduce(sys, **budget, horizon=5)


def test_complex_systems_are_refused():
    sys = dense(0, is_complex=True)
    for budget in ({"orders": [1, 2]}, {"max_error": 0.1}):
        with pytest.raises(InvalidInputError, match="complex"):
            lqo.reduce(sys, **budget)


def test_a_repair_is_told_where_it_is_the_result_only():
    sys = get("diagonal discrete siso factored")
    for seed in range(300):
        sys = diagonal(seed, pairs=4)
        if lqo.balanced_truncation(sys, 2, horizon=3).repaired:
            break
    with warnings.catch_warnings():
        warnings.simplefilter("error", StabilityWarning)
        with pytest.raises(StabilityWarning):
            lqo.reduce(sys, orders=[2], method="balanced", horizon=3)
        lqo.reduce(sys, orders=[2], method="hippo", horizon=3)


@pytest.mark.parametrize("budget", [{"orders": [2, 3, 4]}, {"max_error": 0.3}])
@pytest.mark.parametrize("method", ["balanced", "optimal", "modal"])
def test_progress_goes_up_to_its_total(budget, method):
    calls = []
    lqo.reduce(LAYER, **budget, method=method, horizon=32, progress=lambda done, total: calls.append((done, total)))
    done, totals = np.array(calls).T
    assert len(set(totals)) == 1
    assert np.all(np.diff(done) >= 0)
    assert done[-1] == totals[-1]
