import re

import numpy as np
import pytest

import lqo_mor as lqo
from lqo_mor.errors import DimensionError, InvalidInputError, OrderError, UnstableSystemError
from lqo_mor.reduction.reduce import METHODS
from tests.cases import dense, diagonal, get, parametrize, select

SYSTEM = get("diagonal discrete siso linear")  # order 7, 4 slots
EVERY = pytest.mark.parametrize("method", list(METHODS))
ITERATIVE = pytest.mark.parametrize("method", ["optimal", "projected_gradient"])


@EVERY
@pytest.mark.parametrize("order", [0, -1, 7, 8, 2.0, True, "2", np.nan, [2]])
def test_orders_that_are_none(method, order):
    message = rf"order must be an integer from 1 to 6, below the 7 of the full system; got {re.escape(repr(order))}"
    with pytest.raises(OrderError, match=message) as caught:
        lqo.reduce(SYSTEM, order, method=method)
    assert isinstance(caught.value, ValueError)


@EVERY
@pytest.mark.parametrize("slots", [0, 4, 1.0, False])
def test_slots_that_are_none(method, slots):
    with pytest.raises(OrderError, match="slots must be an integer from 1 to 3, below the 4"):
        lqo.reduce(SYSTEM, slots=slots, method=method)


@EVERY
def test_numpy_integers_are_orders(method):
    assert lqo.reduce(SYSTEM, np.int64(4), method=method).system.order <= 4


@EVERY
def test_exactly_one_budget(method):
    for budget in ({}, {"order": 2, "slots": 1}):
        with pytest.raises(InvalidInputError, match="exactly one of order"):
            lqo.reduce(SYSTEM, **budget, method=method)


@EVERY
def test_slots_are_for_diagonal_systems(method):
    with pytest.raises(InvalidInputError, match="give order for a dense one"):
        lqo.reduce(get("dense discrete siso linear"), slots=2, method=method)


@EVERY
@parametrize(select(diagonal=False, real=False))
def test_complex_systems(sys, method):
    with pytest.raises(InvalidInputError, match="complex"):
        lqo.reduce(sys, 2, method=method)


@pytest.mark.parametrize("method", ["h2", "", None, "Balanced", ["optimal"]])
def test_unknown_methods(method):
    with pytest.raises(InvalidInputError, match=r"unknown method .*; known are optimal, balanced"):
        lqo.reduce(SYSTEM, 2, method=method)


@EVERY
def test_unstable_systems_have_no_stable_reduction_over_all_time(method):
    unstable = lqo.DiagonalLQOSystem([1.05, 0.5, 0.9j], np.ones((3, 1)), np.ones((1, 3)), dt=1.0)
    for sys in (unstable, lqo.to_dense(unstable)):
        with pytest.raises(UnstableSystemError, match=r"spectral radius .* 1\.05, .* finite horizon"):
            lqo.reduce(sys, 2, method=method, stable=True)


@EVERY
@pytest.mark.parametrize("horizon", [0, -1, 2.5, "a"])
def test_wrong_horizons(method, horizon):
    with pytest.raises(InvalidInputError, match="horizon must be a positive integer"):
        lqo.reduce(SYSTEM, 2, method=method, horizon=horizon)


@EVERY
def test_what_is_no_system(method):
    with pytest.raises(InvalidInputError, match="expected an LQOSystem or a DiagonalLQOSystem, got ndarray"):
        lqo.reduce(np.eye(3), 2, method=method)


@ITERATIVE
def test_unknown_starts(method):
    with pytest.raises(InvalidInputError, match="unknown start 'best'; known are balanced, modal, hippo"):
        lqo.reduce(SYSTEM, 2, method=method, start="best")


@ITERATIVE
def test_starts_of_another_kind(method):
    with pytest.raises(InvalidInputError, match="the start is a LQOSystem, but the full system is a DiagonalLQOSystem"):
        lqo.reduce(SYSTEM, 2, method=method, start=dense(0, n=2))
    with pytest.raises(InvalidInputError, match="the start is a int"):
        lqo.reduce(SYSTEM, 2, method=method, start=5)


@ITERATIVE
def test_starts_that_are_too_large(method):
    with pytest.raises(InvalidInputError, match="the start has order 4, more than the 3 asked for"):
        lqo.reduce(SYSTEM, 3, method=method, start=diagonal(0, pairs=2))
    with pytest.raises(InvalidInputError, match="the start has slots 2, more than the 1 asked for"):
        lqo.reduce(SYSTEM, slots=1, method=method, start=diagonal(0, pairs=2))


@ITERATIVE
@pytest.mark.parametrize(
    ("start", "error"),
    [
        (diagonal(0, pairs=1, m=2), DimensionError),
        (diagonal(0, pairs=1, p=3), DimensionError),
        (diagonal(0, pairs=1, batch=(2,)), DimensionError),
        (diagonal(0, pairs=1, continuous=True), InvalidInputError),
        (lqo.DiagonalLQOSystem([1.5], [[1.0]], [[1.0]], dt=1.0), UnstableSystemError),
    ],
)
def test_starts_that_do_not_fit(method, start, error):
    with pytest.raises(error):
        lqo.reduce(SYSTEM, 2, method=method, start=start)


def lacking(sys):
    """A small start without the quadratic output, and one with a quadratic output of another rank."""
    size = {"m": sys.n_inputs, "p": sys.n_outputs, "batch": getattr(sys, "batch", ())}
    if isinstance(sys, lqo.LQOSystem):
        size.pop("batch")
        return [dense(1, n=2, **size), dense(2, n=2, M=5, **size)]
    return [diagonal(1, pairs=1, **size), diagonal(2, pairs=1, c=5, **size)]


@ITERATIVE
@pytest.mark.parametrize("which", [0, 1], ids=["linear start", "start of another rank"])
@pytest.mark.parametrize(
    "name", ["diagonal discrete siso factored", "diagonal discrete mimo factored", "diagonal discrete batch siso factored",
             "dense discrete siso factored", "dense discrete mimo quadratic"]
)  # fmt: skip
def test_starts_with_another_quadratic_output(method, which, name):
    sys = get(name)
    start = lacking(sys)[which]
    try:  # a clear refusal and a correct result are both right, anything else is not
        red = lqo.reduce(sys, 2, method=method, start=start, max_iterations=20)
    except InvalidInputError as error:
        assert "quadratic" in str(error) or "rank" in str(error)
        return
    assert np.all(red.error <= lqo.h2_error(sys, start) * (1 + 1e-12))


@ITERATIVE
def test_an_unstable_start_over_a_finite_horizon_gives_a_stable_system(method):
    start = lqo.DiagonalLQOSystem([1.2], [[1.0]], [[0.3]], dt=1.0)
    sys = lqo.DiagonalLQOSystem([1.2, 0.3, -0.4], np.ones((3, 1)), [[0.3, 1e-6, 1e-6]], dt=1.0)
    try:
        red = lqo.reduce(sys, 1, method=method, start=start, horizon=5, stable=True)
    except InvalidInputError as error:
        assert "stable" in str(error)
        return
    assert np.abs(red.system.poles).max() < 1


@ITERATIVE
@pytest.mark.parametrize("options", [{"max_iterations": -1}, {"max_iterations": 2.5}, {"tolerance": -1.0}, {"tolerance": np.nan}])
def test_options_that_make_no_sense(method, options):
    for name in ("diagonal discrete siso linear", "dense discrete mimo linear"):
        with pytest.raises(InvalidInputError, match=next(iter(options))):
            lqo.reduce(get(name), 2, method=method, **options)


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("optimal", {"ridge": -1.0}),
        ("projected_gradient", {"margin": 1.0}),
        ("projected_gradient", {"margin": -0.1}),
        ("projected_gradient", {"armijo": 2.0}),
        ("projected_gradient", {"armijo": -1.0}),
    ],
)
def test_parameters_out_of_range(method, options):
    with pytest.raises(InvalidInputError, match=next(iter(options))):
        lqo.reduce(SYSTEM, 2, method=method, **options)


@ITERATIVE
def test_no_iterations_keep_the_start(method):
    for name in ("diagonal discrete siso linear", "dense discrete mimo linear"):
        red = lqo.reduce(get(name), 2, method=method, max_iterations=0, start="balanced")
        assert red.iterations == 0
        assert red.error <= lqo.balanced_truncation(get(name), 2).error


@EVERY
def test_a_system_without_transfer(method):
    """A channel that does nothing is reduced without an error, or with one that says what is wrong."""
    zero = lqo.DiagonalLQOSystem([0.5, 0.9j], np.ones((2, 1)), np.zeros((1, 2)), dt=1.0)
    try:
        red = lqo.reduce(zero, 2, method=method)
    except InvalidInputError as error:
        assert "no transfer" in str(error)
        return
    assert red.error == 0
    assert red.relative_error == 0


@EVERY
def test_one_dead_channel_does_not_stop_a_batch(method):
    C = np.ones((3, 1, 2), complex)
    C[1] = 0
    batch = lqo.DiagonalLQOSystem(np.broadcast_to([0.5, 0.9j], (3, 2)), np.ones((3, 2, 1)), C, dt=1.0)
    red = lqo.reduce(batch, slots=1, method=method)
    assert red.error[1] == 0
    assert np.all(np.isfinite(red.error))
    assert red.error[0] == pytest.approx(lqo.reduce(batch[0], slots=1, method=method).error, rel=1e-6)
