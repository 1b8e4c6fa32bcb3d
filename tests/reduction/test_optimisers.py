import dataclasses
import importlib
import warnings

import numpy as np
import pytest
import scipy.optimize

import lqo_mor as lqo
from lqo_mor.analysis.door import norm_of
from lqo_mor.errors import StabilityWarning
from lqo_mor.reduction.refit import fit_outputs
from lqo_mor.reduction.result import Status
from tests.cases import dense, diagonal, get, parametrize, select

descent = importlib.import_module("lqo_mor.reduction.descent.projected_gradient")  # the package has a function of this name
SINGLE = select(diagonal=True, batch=False, hard=False)


@parametrize(select(real=True, batch=False, hard=False))
def test_armijo_decreases_monotonically_and_keeps_its_distance(sys):
    margin = 1e-3
    red = lqo.projected_gradient(sys, 4, margin=margin, max_iterations=60)
    assert red.history.size == red.iterations + 1
    assert np.all(np.diff(red.history) < 0)
    poles = red.system.poles if isinstance(sys, lqo.DiagonalLQOSystem) else np.linalg.eigvals(red.system.A)
    if red.status is not Status.START_KEPT:
        reach = poles.real.max() + margin if sys.is_continuous else np.abs(poles).max() - 1 + margin
        assert reach <= 1e-9
        # The history is the squared error, up to the feedthrough, which is copied.
        assert red.history[-1] == pytest.approx(red.error**2, rel=1e-6, abs=1e-13 * lqo.h2_norm(sys) ** 2)


def test_the_projection_binds():
    sys = lqo.DiagonalLQOSystem([0.999, 0.6j], np.ones((2, 1)), [[1.0, 0.3]], dt=1.0)
    red = lqo.projected_gradient(
        sys, 1, margin=0.05, max_iterations=200, start=lqo.DiagonalLQOSystem([0.5], [[1.0]], [[0.5]], dt=1.0)
    )
    assert np.abs(red.system.poles).max() == pytest.approx(0.95, rel=1e-12)


@parametrize([case for case in SINGLE if case.sys.n_inputs == 1])
@pytest.mark.parametrize("horizon", [None, 7])
def test_compiled_and_numpy_descent_take_the_same_steps(sys, horizon):
    start = diagonal(33, pairs=1, reals=1, p=sys.n_outputs, continuous=sys.is_continuous)
    if sys.M is not None:
        rank = sys.M.rank
        start = diagonal(33, pairs=1, reals=1, p=sys.n_outputs, c=rank, continuous=sys.is_continuous)
    options = descent.Options(margin=1e-6, armijo=1e-4, max_iterations=8, tolerance=1e-9)
    norm = norm_of(sys, horizon)
    readable = descent._descend_one(sys, start, norm, options)
    compiled = descent._descend_batch(sys, start, norm, options, progress=lambda done, total: None)
    np.testing.assert_allclose(compiled.history, readable.history, rtol=1e-8)
    np.testing.assert_allclose(compiled.system.poles, readable.system.poles, rtol=1e-7)
    assert compiled.iterations == readable.iterations
    assert compiled.status == readable.status


def test_projected_gradient_certifies_a_stationary_point():
    sys = lqo.DiagonalLQOSystem([0.9, 0.5, -0.3], np.ones((3, 1)), [[1.0, 0.3, 0.2]], dt=1.0)
    red = lqo.projected_gradient(sys, 1, tolerance=1e-7, max_iterations=5000)
    assert red.status is Status.CONVERGED

    def error(z):  # one real pole: the error can be scanned
        return lqo.h2_error(sys, lqo.DiagonalLQOSystem([z], [[1.0]], [[transfer(sys, z) * (1 - z * z)]], dt=1.0))

    coarse = min(np.linspace(-0.99, 0.99, 300), key=error)
    best = scipy.optimize.minimize_scalar(error, bounds=(coarse - 0.01, coarse + 0.01), method="bounded", options={"xatol": 1e-8})
    assert red.error == pytest.approx(best.fun, rel=1e-7)
    assert lqo.variable_projection(sys, 1).error == pytest.approx(red.error, rel=1e-7)


def transfer(sys, z):
    return float(np.sum((sys.C[0] * sys.B[:, 0] / (1 - sys.poles * z)).real))


@parametrize(SINGLE)
def test_optimal_is_at_least_as_good_as_the_projected_gradient(sys):
    a, b = lqo.variable_projection(sys, 3), lqo.projected_gradient(sys, 3, max_iterations=200)
    assert a.error <= b.error * (1 + 1e-6) or a.error <= a.start_error


@parametrize(select(real=True, batch=False, hard=False))
def test_optimal_is_stationary(sys):
    """Moving the poles of the result and refitting the outputs makes nothing better to first order."""
    red = lqo.variable_projection(sys, 2)
    if red.status is Status.START_KEPT:
        pytest.skip("kept the start")
    system = red.system if isinstance(sys, lqo.DiagonalLQOSystem) else lqo.to_diagonal(red.system)
    for turn in (1, -1, 1j, -1j):
        step = np.where(system.is_real_pole, np.real(turn), turn) * 1e-4
        moved = fit_outputs(sys, system.poles + step, system.B, norm_of(sys))
        if isinstance(sys, lqo.LQOSystem):
            moved = lqo.to_dense(moved)
        assert lqo.h2_error(sys, moved) ** 2 >= red.error**2 - 1e-6 * lqo.h2_norm(sys) ** 2


def embedded_diagonal(m, p, c, continuous):
    small = diagonal(21, pairs=1, reals=1, m=m, p=p, c=c, continuous=continuous)
    other = diagonal(22, pairs=2, m=m, p=p, c=c, continuous=continuous)
    q, r = small.M, other.M
    quadratic = lqo.QuadraticOutput(np.hstack([q.U, 0 * r.U]), np.hstack([q.V, 0 * r.V]), q.W) if c else None
    return lqo.DiagonalLQOSystem(
        np.concatenate([small.poles, other.poles]), np.concatenate([small.B, other.B]), np.hstack([small.C, 0 * other.C]),
        None, quadratic, dt=small.dt,
    )  # fmt: skip


@pytest.mark.parametrize("continuous", [False, True])
@pytest.mark.parametrize(("m", "p", "c"), [(1, 1, 0), (1, 2, 2), (2, 2, 0), (2, 1, 1)])
@pytest.mark.parametrize("as_dense", [False, True])
def test_an_exactly_reducible_system_is_found(m, p, c, continuous, as_dense):
    sys = embedded_diagonal(m, p, c, continuous)
    if as_dense:
        turn = np.linalg.qr(np.random.default_rng(1).standard_normal((sys.order, sys.order)))[0]
        d = lqo.to_dense(sys)
        M = None if d.M is None else lqo.QuadraticOutput(d.M.U @ turn, d.M.V @ turn, d.M.W)
        sys = lqo.LQOSystem(turn.T @ d.A @ turn, turn.T @ d.B, d.C @ turn, None, M, d.dt)
    for start in (None, "modal"):
        assert lqo.variable_projection(sys, 3, start=start).relative_error < 1e-6


def test_optimal_finds_the_poles_from_afar():
    sys = embedded_diagonal(1, 1, 0, False)
    start = lqo.DiagonalLQOSystem([0.5 * np.exp(1.5j), 0.1], np.ones((2, 1)), np.ones((1, 2)), dt=1.0)
    red = lqo.variable_projection(sys, 3, start=start)
    assert red.relative_error < 1e-5
    np.testing.assert_allclose(np.sort_complex(red.system.poles), np.sort_complex(sys.poles[:2]), atol=1e-3)


@pytest.mark.parametrize("method", ["optimal", "projected_gradient"])
@pytest.mark.parametrize(
    "name", ["diagonal discrete siso factored", "diagonal continuous mimo linear", "dense discrete mimo factored"]
)
def test_starts(method, name):
    sys = get(name)
    balanced = lqo.balanced_truncation(sys, 3)
    errors = [
        lqo.reduce(sys, 3, method=method, start=start, max_iterations=40).error
        for start in ("balanced", balanced, balanced.system)
    ]
    np.testing.assert_allclose(errors, errors[0], rtol=1e-9)
    for start in ("modal", "hippo"):
        red = lqo.reduce(sys, 3, method=method, start=start, max_iterations=40)
        assert red.start_error == pytest.approx(lqo.reduce(sys, 3, method=start).error, rel=1e-12)
        assert red.error <= red.start_error
    smaller = lqo.balanced_truncation(sys, 2)
    assert lqo.reduce(sys, 3, method=method, start=smaller, max_iterations=40).error <= smaller.error


@pytest.mark.parametrize("name", ["diagonal discrete siso factored", "diagonal discrete mimo factored"])
def test_the_default_search_is_no_worse_than_from_each_start_alone(name):
    sys = get(name)
    starts = ("balanced", "modal")
    parts = [lqo.variable_projection(sys, 3, start=start).error for start in starts]
    assert lqo.variable_projection(sys, 3).error <= min(parts) * (1 + 1e-9)
    assert lqo.variable_projection(sys, 3, start=starts).error == pytest.approx(min(parts), rel=1e-9)


def test_history_of_optimal_decreases_to_the_error():
    for name in ("diagonal discrete siso factored", "diagonal discrete mimo factored"):
        red = lqo.variable_projection(get(name), 3)
        assert red.history.size == red.iterations + 1
        assert np.all(np.diff(red.history) <= 0)
        assert red.history[-1] == pytest.approx(red.error**2, rel=1e-6)


@pytest.mark.parametrize("horizon", [None, 200])
@pytest.mark.parametrize("continuous", [False, True])
@pytest.mark.parametrize("to_pair", [False, True])
def test_poles_meet_and_part_on_the_real_axis(to_pair, continuous, horizon):
    pair, reals = [0.6 + 0.1j], [0.9, 0.4]
    full, start = (pair, reals) if to_pair else (reals, pair)
    if continuous:
        full, start, horizon = 5 * (np.array(full) - 1), 5 * (np.array(start) - 1), None if horizon is None else 20.0
    dt = 0 if continuous else 1.0
    sys = lqo.DiagonalLQOSystem(
        np.r_[full, -0.3 if not continuous else -9], [[1.0]] * (len(full) + 1), [[1.0] * len(full) + [0.0]], dt=dt
    )
    begun = lqo.DiagonalLQOSystem(start, [[1.0]] * len(start), [[1.0] * len(start)], dt=dt)
    red = lqo.variable_projection(sys, 2, start=begun, horizon=horizon)
    assert red.relative_error < 1e-6
    np.testing.assert_allclose(np.sort_complex(red.system.poles), np.sort_complex(np.array(full) + 0j), rtol=1e-4)


def test_slots_are_all_used():
    """Balanced truncation may use fewer slots than there are; the optimiser fills them."""
    sys = diagonal(45, pairs=6, batch=(4,))
    red = lqo.variable_projection(sys, slots=3)
    assert red.system.n_slots == 3
    assert np.all(np.any(red.system.B, axis=-1))
    assert np.all(red.error <= lqo.balanced_truncation(sys, slots=3).error)


def test_a_real_pole_costs_a_whole_slot():
    sys = lqo.DiagonalLQOSystem([0.9, 0.7, 0.5, 0.3], np.ones((4, 1)), [[1.0, -1.0, 1.0, 2.0]], dt=1.0)
    for method in ("balanced", "modal", "optimal"):
        system = lqo.reduce(sys, slots=2, method=method).system
        assert system.n_slots == 2
    assert lqo.balanced_truncation(sys, slots=2).error == pytest.approx(lqo.balanced_truncation(sys, 2).error, rel=1e-8)


def test_feedthrough_is_copied_and_does_not_change_the_result():
    sys = get("diagonal discrete feedthrough")
    proper = dataclasses.replace(sys, D=None)
    for method in ("optimal", "projected_gradient", "balanced"):
        a, b = (
            lqo.reduce(s, 3, method=method, **({} if method == "balanced" else {"max_iterations": 30})) for s in (sys, proper)
        )
        assert a.error == pytest.approx(b.error, rel=1e-9)
        np.testing.assert_array_equal(a.system.D, sys.D)


def test_a_pole_so_close_to_the_circle_that_rounding_matters():
    sys = lqo.DiagonalLQOSystem(
        [1 - 1e-13, (1 - 1e-14) * np.exp(1j), 0.5, 0.3j], np.ones((4, 1)), [[1e-6, 1e-6, 1.0, 1.0]], dt=1.0
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", StabilityWarning)
        red = lqo.variable_projection(sys, 4)
    assert np.abs(red.system.poles).max() < 1
    assert red.error <= red.start_error


def test_purely_quadratic_outputs_stay_so():
    sys = dense(46, M="dense", linear=False)
    for method in ("balanced", "optimal"):
        system = lqo.reduce(sys, 3, method=method).system
        assert not system.C.any()
        np.testing.assert_array_equal(system.M, system.M.transpose(0, 2, 1))


@pytest.mark.parametrize("method", ["balanced", "modal", "hippo", "optimal", "projected_gradient"])
def test_a_quadratic_output_of_zeros_is_a_linear_output(method):
    linear = dense(47)
    zeros = dataclasses.replace(linear, M=np.zeros((1, 6, 6)))
    options = {"max_iterations": 20} if method in ("optimal", "projected_gradient") else {}
    a, b = (lqo.reduce(sys, 3, method=method, **options) for sys in (linear, zeros))
    assert a.error == pytest.approx(b.error, rel=1e-9)
    assert not b.system.M.any()
