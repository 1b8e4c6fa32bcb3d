import warnings

import numpy as np
import pytest

import lqo_mor as lqo
from lqo_mor.analysis.door import norm_of
from lqo_mor.analysis.gramians import gramian_factors
from lqo_mor.errors import InvalidInputError, StabilityWarning
from lqo_mor.reduction.square_root import project, projections
from tests.brute import kernels
from tests.cases import dense, diagonal, get, parametrize, select

DENSE = select(diagonal=False, real=True, hard=False)
LINEAR = select(diagonal=False, real=True, linear=True, hard=False)
ALL_LINEAR = select(batch=False, real=True, linear=True, hard=False)


@parametrize(DENSE)
@pytest.mark.parametrize("horizon", [None, 9])
def test_the_balancing_transformation_makes_both_gramians_diagonal(sys, horizon):
    V, W, values = projections(*gramian_factors(sys, norm_of(sys, horizon)), sys.order)
    np.testing.assert_allclose(W.T @ V, np.eye(V.shape[1]), atol=1e-6)
    P = W.T @ lqo.controllability_gramian(sys, horizon) @ W
    Q = V.T @ lqo.observability_gramian(sys, horizon) @ V
    np.testing.assert_allclose(P, np.diag(values), atol=1e-9 * values[0])
    np.testing.assert_allclose(Q, np.diag(values), atol=1e-9 * values[0])
    balanced = project(sys, V, W)  # the same system in other coordinates, so these are its Gramians
    np.testing.assert_allclose(lqo.controllability_gramian(balanced, horizon), np.diag(values), atol=1e-7 * values[0])
    np.testing.assert_allclose(lqo.observability_gramian(balanced, horizon), np.diag(values), atol=1e-7 * values[0])
    np.testing.assert_allclose(values, lqo.hankel_singular_values(sys, horizon)[: values.size], rtol=1e-12)


@parametrize([case for case in LINEAR if case.continuous])
def test_the_truncated_continuous_system_is_balanced(sys):
    red = lqo.balanced_truncation(sys, 3)
    wanted = np.diag(red.hsv[:3])
    np.testing.assert_allclose(lqo.controllability_gramian(red.system), wanted, atol=1e-9 * wanted[0, 0])
    np.testing.assert_allclose(lqo.observability_gramian(red.system), wanted, atol=1e-9 * wanted[0, 0])


@parametrize(LINEAR)
@pytest.mark.parametrize("order", [1, 3, 5])
def test_kernels_of_slycot(sys, order):
    slycot = pytest.importorskip("slycot")
    dico, sizes = "C" if sys.is_continuous else "D", (sys.order, sys.n_inputs, sys.n_outputs)
    nr, A, B, C, hsv = slycot.ab09ad(dico, "B", "N", *sizes, sys.A.copy(), sys.B.copy(), sys.C.copy(), nr=order)
    red = lqo.balanced_truncation(sys, order)
    assert red.system.order == nr == order
    np.testing.assert_allclose(red.hsv, hsv, rtol=1e-9, atol=1e-12 * hsv[0])
    other = lqo.LQOSystem(A, B, C, dt=sys.dt)
    wanted = kernels(other, 12)[0]
    np.testing.assert_allclose(kernels(red.system, 12)[0], wanted, atol=1e-8 * np.abs(wanted).max())


@parametrize([case for case in LINEAR if case.continuous])
def test_kernels_of_python_control(sys):
    control = pytest.importorskip("control")
    pytest.importorskip("slycot")
    other = control.balanced_reduction(control.ss(sys.A, sys.B, sys.C, 0), 3, method="truncate")
    wanted = kernels(lqo.LQOSystem(other.A, other.B, other.C, dt=0), 5)[0]
    np.testing.assert_allclose(kernels(lqo.balanced_truncation(sys, 3).system, 5)[0], wanted, atol=1e-8 * np.abs(wanted).max())


def h_infinity_error(sys, rom):
    """The largest singular value of the difference of the transfer functions over a grid of frequencies."""
    a, b = (lqo.to_dense(s) if isinstance(s, lqo.DiagonalLQOSystem) else s for s in (sys, rom))
    points = 1j * np.concatenate([[0], np.logspace(-3, 3, 600)]) if sys.is_continuous else np.exp(1j * np.linspace(0, np.pi, 800))
    worst = 0.0
    for z in points:
        G, G_r = (s.C @ np.linalg.solve(z * np.eye(s.order) - s.A, s.B) + s.D for s in (a, b))
        worst = max(worst, np.linalg.norm(G - G_r, 2))
    return worst


@parametrize(ALL_LINEAR)
@pytest.mark.parametrize("order", [2, 4])
def test_the_bound_holds_and_is_twice_the_sum_of_the_dropped_values(sys, order):
    red = lqo.balanced_truncation(sys, order)
    assert red.bound == pytest.approx(2 * np.sum(lqo.hankel_singular_values(sys)[order:]), rel=1e-6)
    error = h_infinity_error(sys, red.system)
    assert red.hsv[order] * (1 - 1e-3) <= error <= red.bound * (1 + 1e-6) + 1e-9 * red.hsv[0]


@parametrize(select(batch=True, linear=True))
def test_the_bound_of_every_channel(sys):
    red = lqo.balanced_truncation(sys, 2)
    assert red.bound.shape == sys.batch
    for index in np.ndindex(sys.batch):
        assert h_infinity_error(sys[index], red.system[index]) <= red.bound[index] * (1 + 1e-9)
        assert red.bound[index] == pytest.approx(lqo.balanced_truncation(sys[index], 2).bound, rel=1e-8)


@parametrize(select(linear=False, real=True, batch=False, hard=False))
def test_no_bound_where_none_is_known(sys):
    assert lqo.balanced_truncation(sys, 2).bound is None


def test_no_bound_over_a_finite_horizon():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", StabilityWarning)
        assert lqo.balanced_truncation(get("dense discrete siso linear"), 2, horizon=9).bound is None


@parametrize(select(diagonal=True, batch=False, hard=False))
def test_diagonal_equals_dense(sys):
    for order in (2, 4):
        a, b = lqo.balanced_truncation(sys, order), lqo.balanced_truncation(lqo.to_dense(sys), order)
        assert a.error == pytest.approx(b.error, rel=1e-6)
        assert a.system.order == b.system.order
    np.testing.assert_allclose(a.hsv[:3], b.hsv[:3], rtol=1e-7)


def test_states_that_do_not_matter_are_dropped_without_loss():
    small = dense(11, n=3)
    A = np.block([[small.A, np.zeros((3, 2))], [np.zeros((2, 3)), np.diag([0.3, 0.1])]])
    unreachable = lqo.LQOSystem(A, np.vstack([small.B, np.zeros((2, 1))]), np.hstack([small.C, np.ones((1, 2))]), dt=1.0)
    red = lqo.balanced_truncation(unreachable, 4)
    assert red.system.order == 3  # the rank of the Gramians, not the order asked for
    assert red.relative_error < 1e-12


def test_a_longer_horizon_tends_to_the_infinite_one():
    sys = get("dense discrete mimo factored")
    a, b = lqo.balanced_truncation(sys, 3, horizon=300), lqo.balanced_truncation(sys, 3)
    assert a.error == pytest.approx(b.error, rel=1e-9)


def test_the_horizon_matters_and_pays_within_it():
    sys = diagonal(5, pairs=6, reals=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", StabilityWarning)
        limited = lqo.balanced_truncation(sys, 6, horizon=6)
    unlimited = lqo.balanced_truncation(sys, 6)
    assert limited.error < lqo.h2_error(sys, unlimited.system, 6)
    assert limited.error == pytest.approx(lqo.h2_error(sys, limited.system, 6), rel=1e-12)


def losing_stability(dense_form):
    """A system whose time-limited truncation is unstable, found by trying seeds."""
    for seed in range(200):
        sys = diagonal(seed, pairs=3)
        V, W, _ = projections(*gramian_factors(sys, norm_of(sys, 3)), 2)
        if np.abs(np.linalg.eigvals(project(lqo.to_dense(sys), V, W).A)).max() > 1.05:
            return lqo.to_dense(sys) if dense_form else sys
    raise AssertionError("no such system among the seeds")


@pytest.mark.parametrize("dense_form", [False, True])
def test_lost_stability_is_repaired_and_said(dense_form):
    sys = losing_stability(dense_form)
    with pytest.warns(StabilityWarning, match="the reduced system was unstable; the unstable poles were reflected"):
        red = lqo.balanced_truncation(sys, 2, horizon=3)
    assert red.repaired
    assert red.bound is None
    poles = np.linalg.eigvals(red.system.A) if dense_form else red.system.poles
    assert np.abs(poles).max() < 1
    assert red.error == pytest.approx(lqo.h2_error(sys, red.system, 3), rel=1e-12)
    assert "repaired" in str(red)


def test_only_the_unstable_channels_of_a_batch_are_repaired():
    bad, good = losing_stability(False), None
    for seed in range(200):
        candidate = diagonal(seed, pairs=3)
        V, W, _ = projections(*gramian_factors(candidate, norm_of(candidate, 3)), 2)
        if np.abs(np.linalg.eigvals(project(lqo.to_dense(candidate), V, W).A)).max() < 0.9:
            good = candidate
            break
    batch = lqo.DiagonalLQOSystem(*(np.stack([getattr(good, a), getattr(bad, a)]) for a in ("poles", "B", "C")), dt=1.0)
    with pytest.warns(StabilityWarning, match="1 of 2 reduced systems were unstable"):
        red = lqo.balanced_truncation(batch, 2, horizon=3)
    np.testing.assert_array_equal(red.repaired, [False, True])
    assert red.error[0] == pytest.approx(lqo.balanced_truncation(good, 2, horizon=3).error, rel=1e-9)


def test_a_system_without_transfer_says_so():
    with pytest.raises(InvalidInputError, match="no transfer from input to output"):
        lqo.balanced_truncation(lqo.LQOSystem(np.diag([0.5, 0.2]), np.ones((2, 1)), np.zeros((1, 2)), dt=1.0), 1)
