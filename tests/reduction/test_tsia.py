"""The two-sided iteration: optimality of what has converged, and what becomes of it where the plain iteration fails."""

import dataclasses
import json
import warnings

import numpy as np
import pytest

import lqo_mor as lqo
from lqo_mor.errors import InvalidInputError, StabilityWarning
from lqo_mor.reduction.result import Status
from lqo_mor.reduction.two_sided import iteration
from tests.cases import dense, diagonal, get, parametrize, select
from tests.reduction.test_every_method import REAL, accuracy_warnings_allowed, check, largest, smallest
from tests.reduction.test_references import load
from tests.reduction.two_sided_checks import interpolation_defect, plain_poles, relative_gradient

SINGLE = select(real=True, batch=False, hard=False)
OSCILLATING, WILD = "dense discrete siso linear", "diagonal continuous siso purely factored"
UNSTABLE = [(seed, continuous) for seed, continuous in ((2, False), (46, False), (6, True), (25, True))]


def half(sys) -> int:
    return max(1, smallest(sys) // 2)


@pytest.mark.filterwarnings("ignore:.*ill-conditioned:lqo_mor.errors.AccuracyWarning")
@parametrize(REAL)
@pytest.mark.parametrize("horizon", [None, 6])
def test_results_are_stable_and_no_worse_than_the_start(sys, horizon):
    with accuracy_warnings_allowed(sys), warnings.catch_warnings():
        if horizon is not None:  # time-limited truncation may lose stability; it is then repaired and says so
            warnings.simplefilter("ignore", lqo.LQOWarning)
        red = lqo.tsia(sys, half(sys), horizon=horizon)
        start = lqo.balanced_truncation(sys, half(sys), horizon=horizon)
    check(red, sys, half(sys), horizon)
    assert np.all(red.error <= start.error)
    np.testing.assert_allclose(red.start_error, start.error, rtol=1e-12)
    np.testing.assert_array_equal(red.hsv, start.hsv)
    if isinstance(sys, lqo.DiagonalLQOSystem) and sys.M is not None:
        assert red.system.M.rank == sys.M.rank


@parametrize(SINGLE)
def test_a_converged_result_satisfies_the_first_order_conditions(sys):
    red = lqo.tsia(sys, half(sys))
    assert red.status is Status.CONVERGED
    assert 0 < red.iterations < 60
    assert relative_gradient(sys, red.system) < 1e-6
    assert relative_gradient(sys, lqo.balanced_truncation(sys, half(sys)).system) > 1e-6  # which the start fails


@parametrize([case for case in SINGLE if case.linear])
def test_a_converged_result_interpolates_at_the_mirror_images_of_its_poles(sys):
    red = lqo.tsia(sys, half(sys), tolerance=1e-10)
    assert interpolation_defect(sys, red.system) < 1e-6
    assert interpolation_defect(sys, lqo.balanced_truncation(sys, half(sys)).system) > 1e-6  # which the start fails


def test_a_result_that_has_not_converged_does_not_claim_so():
    sys = get("dense continuous siso purely quadratic")
    red = lqo.tsia(sys, 3, max_iterations=2)
    assert red.status is Status.MAX_ITERATIONS
    assert relative_gradient(sys, red.system) > 1e-4
    none = lqo.tsia(sys, 3, max_iterations=0)
    assert none.status in (Status.MAX_ITERATIONS, Status.START_KEPT)
    assert none.iterations == 0


def test_a_fixed_point_stays_where_it_is():
    sys = get("dense discrete mimo quadratic")
    red = lqo.tsia(sys, 3)
    again = lqo.tsia(sys, 3, start=red)
    assert again.error == pytest.approx(red.error, rel=1e-10)
    assert again.iterations <= 2
    assert again.status in (Status.CONVERGED, Status.START_KEPT)


@pytest.mark.parametrize("name", [OSCILLATING, WILD])
def test_an_oscillation_of_the_plain_iteration_is_damped(name):
    sys = get(name)
    start = lqo.balanced_truncation(sys, half(sys)).system
    poles = plain_poles(sys, start, 100)
    assert np.max(np.abs(poles[-1] - poles[-2])) > 1e-3
    red = lqo.tsia(sys, half(sys), start=start)
    assert red.status is Status.CONVERGED
    assert red.iterations < 40
    assert np.all(np.diff(red.history) <= 0)


def test_damping_works_without_extrapolation(monkeypatch):
    """The plain steps go round in a circle for good here; ten of them without a smaller error, and they are damped."""
    sys = get(WILD)
    monkeypatch.setattr(iteration, "_LOCAL", 0.0)
    red = lqo.tsia(sys, 3)
    assert relative_gradient(sys, red.system) < 1e-4
    monkeypatch.setattr(iteration, "_PATIENCE", 10**9)
    undamped = lqo.tsia(sys, 3, max_iterations=100)
    assert undamped.status is Status.MAX_ITERATIONS
    assert undamped.error > red.error


@pytest.mark.parametrize(("seed", "continuous"), UNSTABLE)
def test_an_unstable_iterate_is_repaired(seed, continuous):
    M = 2 if seed % 2 else None
    sys, start = (dense(k + seed, n=n, M=M, continuous=continuous) for k, n in ((0, 8), (1000, 3)))
    first = plain_poles(sys, start, 1)[0]
    assert largest(dataclasses.replace(start, A=np.diag(first))) > 1
    with pytest.warns(StabilityWarning, match="reflected"):
        one = lqo.tsia(sys, 3, start=start, max_iterations=1)
    assert one.repaired
    assert one.iterations == 1
    red = lqo.tsia(sys, 3, start=start)  # no warning: the result is none of the repaired iterates
    assert not red.repaired
    assert red.status is Status.CONVERGED
    for result in (one, red):
        assert largest(result.system) < 1
        assert result.error < result.start_error
    assert relative_gradient(sys, red.system) < 1e-6


@pytest.mark.parametrize("start", ["modal", "hippo"])
def test_starts_by_name(start):
    for name in ("diagonal discrete siso factored", "dense continuous mimo quadratic"):
        sys = get(name)
        red = lqo.tsia(sys, 3, start=start)
        assert red.start_error == lqo.reduce(sys, 3, method=start).error
        assert red.error < red.start_error
        assert relative_gradient(sys, red.system) < 1e-6


def test_a_smaller_start_keeps_its_order():
    sys = get("dense discrete mimo factored")
    red = lqo.tsia(sys, 3, start=lqo.balanced_truncation(sys, 2))
    assert red.system.order == 2


def test_random_starts_lead_to_optima():
    sys = diagonal(12, pairs=4, reals=1, c=2)
    for seed in range(5):
        red = lqo.tsia(sys, 4, start=diagonal(seed, pairs=2, c=2))
        assert red.error < red.start_error
        assert red.status is Status.CONVERGED
        assert relative_gradient(sys, red.system) < 1e-6


def deficient():
    twin = lqo.DiagonalLQOSystem([0.5, 0.5, 0.2], np.ones((3, 1)), np.ones((1, 3)), dt=1.0)
    unexcited = lqo.LQOSystem(np.diag([0.5, 0.3, 0.2]), [[1.0], [1.0], [0.0]], np.ones((1, 3)), dt=1.0)
    return [("diagonal discrete siso linear", twin), ("dense discrete siso linear", unexcited)]


@pytest.mark.parametrize(("name", "start"), deficient())
def test_a_deficient_start_is_refused(name, start):
    with pytest.raises(InvalidInputError, match="the start is deficient"):
        lqo.tsia(get(name), 3, start=start)


def test_a_start_whose_outputs_see_nothing_gets_other_outputs():
    sys = dense(4, n=8)
    start = lqo.LQOSystem(np.diag([0.5, -0.3]), np.ones((2, 1)), np.zeros((1, 2)), dt=1.0)
    red = lqo.tsia(sys, 2, start=start)
    assert red.status is Status.CONVERGED
    assert relative_gradient(sys, red.system) < 1e-6


def test_second_order_systems_have_a_start_of_full_rank():
    """The published implementation starts them from a singular projection."""
    n = 6
    K = np.diag(np.full(n, 2.0)) - np.diag(np.ones(n - 1), 1) - np.diag(np.ones(n - 1), -1)
    A = np.block([[np.zeros((n, n)), np.eye(n)], [-K, -0.1 * np.eye(n)]])
    B = np.zeros((2 * n, 1))
    B[n] = 1
    sys = lqo.LQOSystem(A, B, np.zeros((1, 2 * n)), M=np.eye(2 * n), dt=0)
    for order in (2, 4):
        red = lqo.tsia(sys, order)
        assert red.status is Status.CONVERGED
        assert red.system.order == order
        assert red.error < red.start_error
        assert relative_gradient(sys, red.system) < 1e-6


@pytest.mark.parametrize(("budget", "horizon"), [({"order": 4}, None), ({"slots": 2}, 9)])
def test_a_batch_is_reduced_like_its_members(budget, horizon):
    calls = []
    for case in select(batch=True):
        sys = case.sys
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", StabilityWarning)
            red = lqo.tsia(sys, **budget, horizon=horizon, progress=lambda done, total: calls.append((done, total)))
            parts = {i: lqo.tsia(sys[i], **budget, horizon=horizon) for i in np.ndindex(sys.batch)}
        assert calls[-1] == (len(parts), len(parts))
        for index, single in parts.items():
            assert red.error[index] == pytest.approx(single.error, rel=1e-8)
            assert red.start_error[index] == pytest.approx(single.start_error, rel=1e-8)
            assert red.status[index] is single.status
            assert red.iterations[index] == single.iterations
            assert bool(red.repaired[index]) == single.repaired
            own = red.history[index]
            np.testing.assert_allclose(own[: single.iterations + 1], single.history, rtol=1e-8)
            assert np.all(np.isnan(own[single.iterations + 1 :]))


def test_a_reduction_of_a_batch_can_be_a_start():
    sys = get("diagonal discrete batch siso factored")
    first = lqo.tsia(sys, 4, max_iterations=2)
    for start in (first, first.system):
        red = lqo.tsia(sys, 4, start=start)
        assert np.all(red.error <= first.error)
        np.testing.assert_allclose(red.error, lqo.tsia(sys, 4).error, rtol=1e-6)


def test_the_scale_of_the_states_of_a_start_does_not_matter():
    sys, start = dense(9, n=8), dense(10, n=2)
    T = np.diag([1e-20, 1e15])
    scaled = lqo.LQOSystem(T @ start.A @ np.linalg.inv(T), T @ start.B, 0 * start.C, dt=1.0)
    assert lqo.tsia(sys, 2, start=scaled).error == pytest.approx(lqo.tsia(sys, 2, start=start).error, rel=1e-6)


def test_slots_are_never_more_than_the_budget():
    """A pair that meets the real axis would take two slots."""
    fell = 0
    for seed in range(12):
        sys = diagonal(seed, pairs=5, reals=3, continuous=bool(seed % 2))
        red = lqo.tsia(sys, slots=2)
        assert red.system.n_slots <= 2
        assert red.error <= red.start_error
        fell += red.error < red.start_error
    assert fell > 6


def test_the_best_iterate_is_kept_over_a_finite_horizon():
    """There the fixed point is no optimum: the plain iteration ends with a larger error than the one it has passed."""
    sys = get("dense discrete siso quadratic")
    for horizon in (4, 6, 9):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", StabilityWarning)
            red = lqo.tsia(sys, 3, horizon=horizon)
        assert red.error <= red.start_error
        assert largest(red.system) < 1
        assert red.history[-1] == pytest.approx(red.error**2, rel=1e-6)


@pytest.mark.parametrize(("seed", "order", "horizon"), [(51, 2, 3), (50, 3, 5), (56, 3, 5), (19, 4, 8)])
def test_poles_are_not_pressed_against_the_circle_over_a_finite_horizon(seed, order, horizon):
    """Free of a limit, these end within 1e-6 of it, where single precision makes them unstable."""
    sys = diagonal(seed, pairs=6)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", StabilityWarning)
        red, start = (reduce(sys, order, horizon=horizon) for reduce in (lqo.tsia, lqo.balanced_truncation))
    wanted = min(0.1 / horizon, 0.5 * (1 - np.abs(sys.poles).max()), 1 - largest(start.system))
    assert wanted > 1e-5
    assert 1 - largest(red.system) >= wanted * (1 - 1e-6)


def test_long_horizons_give_the_infinite_result():
    for name in ("dense continuous mimo factored", "diagonal discrete siso factored"):
        sys = get(name)
        a, b = lqo.tsia(sys, 3), lqo.tsia(sys, 3, horizon=400)
        assert b.error == pytest.approx(a.error, rel=1e-6)


def test_the_unstable_systems_of_a_finite_horizon():
    sys = lqo.DiagonalLQOSystem([1.05, 0.5, 0.9j, -0.3], np.ones((4, 1)), np.ones((1, 4)), dt=1.0)
    for full in (sys, lqo.to_dense(sys)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", StabilityWarning)
            red = lqo.tsia(full, 3, horizon=12, stable=True)
        assert largest(red.system) < 1
        assert red.error <= red.start_error


@pytest.mark.parametrize(("name", "order"), [("msd120p2", r) for r in (2, 4, 8, 16, 30)] + [("advdiff200", r) for r in (4, 30)])
def test_the_best_published_error_is_reached(name, order, lqo_data):
    best = json.loads((lqo_data / "reference.json").read_text())[name]["best"][str(order)]["rel_err"]
    assert lqo.tsia(load(lqo_data, name), order).relative_error <= (1 + 1e-6) * best


def test_the_better_of_two_optima_needs_another_start(lqo_data):
    sys = load(lqo_data, "advdiff200")
    values = json.loads((lqo_data / "reference.json").read_text())["advdiff200"]["relative_h2_error"]
    assert lqo.tsia(sys, 2).relative_error == pytest.approx(values["tsia_bt"]["2"], rel=1e-6)
    start = lqo.LQOSystem(np.diag([-10.0, -30.0]), np.ones((2, 1)), np.ones((1, 2)), dt=0)
    assert lqo.tsia(sys, 2, start=start).relative_error == pytest.approx(values["tsia_default"]["2"], rel=1e-6)


@pytest.mark.parametrize("options", [{"max_iterations": -1}, {"max_iterations": 2.5}, {"tolerance": -1.0}, {"tolerance": np.nan}])
def test_options_that_make_no_sense(options):
    with pytest.raises(InvalidInputError, match=next(iter(options))):
        lqo.tsia(get("diagonal discrete siso linear"), 2, **options)


def test_starts_that_do_not_fit():
    sys = get("diagonal discrete siso linear")
    with pytest.raises(InvalidInputError, match="unknown start 'best'"):
        lqo.tsia(sys, 2, start="best")
    with pytest.raises(InvalidInputError, match="the start is a LQOSystem"):
        lqo.tsia(sys, 2, start=dense(0, n=2))
    with pytest.raises(lqo.LQOError, match="not asymptotically stable"):
        lqo.tsia(sys, 2, start=lqo.DiagonalLQOSystem([1.5], [[1.0]], [[1.0]], dt=1.0))
