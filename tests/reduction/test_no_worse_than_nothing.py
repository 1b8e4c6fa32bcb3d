"""No method returns a relative error above 1, which zero outputs have, and "optimal" is no worse than the other methods."""

import warnings

import numpy as np
import pytest

import lqo_mor as lqo
from lqo_mor.analysis.door import norm_of
from lqo_mor.errors import AccuracyWarning, InvalidInputError, LQOError, LQOWarning
from lqo_mor.reduction.result import finish
from tests import exact

METHODS = ["optimal", "balanced", "projected_gradient", "tsia", "modal"]


def chain(n, decay):
    """Equal lags, or integrators that hardly decay, in series."""
    return -decay * np.eye(n) + np.diag(np.ones(n - 1), 1)


def reduced(sys, order, method, horizon=None):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LQOWarning)
        return lqo.reduce(sys, order, method=method, horizon=horizon)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("spread", [0.0, 1e-6, 1e-4, 1e-2])
@pytest.mark.parametrize("n", [4, 6])
def test_equal_lags_in_series(method, spread, n):
    sys = lqo.LQOSystem(chain(n, 1.0) - np.diag(spread * np.arange(n)), np.eye(n)[:, -1:], np.eye(n)[:1])
    try:
        red = reduced(sys, 2, method)
    except InvalidInputError as error:
        assert method == "modal" and "balanced" in str(error)
        return
    np.testing.assert_allclose(red.error, exact.error(sys, red.system), rtol=10.0 ** -min(8, int(red.digits)))
    assert red.relative_error <= 1 + 1e-9
    if method != "modal":
        assert red.relative_error < 0.4


@pytest.mark.parametrize("method", ["optimal", "balanced", "tsia"])
@pytest.mark.parametrize("order", [2, 4, 6, 9])
@pytest.mark.parametrize("seed", range(3))
def test_integrators_over_a_short_horizon(method, order, seed):
    """Relative errors of .1 at 4 states and .2 at 6, and above 100 for other outputs, as long as both ends of sums cancelled."""
    rng, n = np.random.default_rng(seed), 20
    sys = lqo.LQOSystem(chain(n, 0.01), rng.standard_normal((n, 1)), rng.standard_normal((1, n)))
    red = reduced(sys, order, method, 0.1)
    assert red.relative_error < 0.05
    np.testing.assert_allclose(red.error, exact.error(sys, red.system, 0.1), rtol=10.0 ** -min(6, int(red.digits)))


def test_optimal_is_no_worse_than_the_others():
    n = 20
    sys = lqo.LQOSystem(chain(n, 0.01), np.eye(n)[:, 9:10], np.eye(n)[:1] + np.eye(n)[4:5])
    for order in (2, 4, 6):
        errors = {method: reduced(sys, order, method, 0.1).relative_error for method in ("optimal", "balanced", "tsia")}
        assert errors["optimal"] <= min(errors.values()) * (1 + 1e-6)
        assert max(errors.values()) <= 1


@pytest.mark.parametrize("kind", ["dense", "diagonal", "batch"])
def test_outputs_that_are_worse_than_none_are_fitted_anew(kind):
    poles, B, C = np.array([0.9, 0.5, -0.3]), np.ones((3, 1)), np.array([[1.0, 0.5, -0.2]])
    sys, bad = (lqo.DiagonalLQOSystem(p, np.ones((p.size, 1)), c, dt=1.0) for p, c in ((poles, C), (poles[:2], [[70.0, -90.0]])))
    if kind == "dense":
        sys, bad = lqo.to_dense(sys), lqo.to_dense(bad)
    elif kind == "batch":
        good = lqo.DiagonalLQOSystem(poles[:2], B[:2], C[:, :2], dt=1.0)
        sys = lqo.DiagonalLQOSystem(np.stack([poles] * 2), np.stack([B] * 2), np.stack([C] * 2), dt=1.0)
        bad = lqo.DiagonalLQOSystem(np.stack([poles[:2]] * 2), np.stack([B[:2]] * 2), np.stack([good.C, bad.C]), dt=1.0)
    red = finish(sys, bad, norm_of(sys), method="test", bound=1.0)
    assert np.any(red.refitted) and red.bound is None and "outputs fitted      1" in str(red)
    assert np.max(red.relative_error) < 0.2
    if kind == "batch":
        assert np.array_equal(red.system.C[0], bad.C[0])
    np.testing.assert_allclose(red.error, lqo.h2_error(sys, red.system), rtol=1e-8)


def test_a_norm_below_rounding_is_told():
    n = 20
    sys = lqo.LQOSystem(chain(n, 0.01), np.eye(n)[:, -1:], np.eye(n)[:1])
    with pytest.warns(AccuracyWarning, match="h2 norm"):
        lqo.h2_norm(sys, 0.1)
    with pytest.raises(InvalidInputError, match="zero to working precision"):
        reduced(sys, 3, "balanced", 0.1)
    apart = lqo.LQOSystem(np.diag([0.5, 0.2]), [[1.0], [0.0]], [[0.0, 1.0]], dt=1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert lqo.h2_norm(apart) == 0.0


@pytest.mark.parametrize("method", [*METHODS, "irka"])
@pytest.mark.parametrize("kind", [lqo.LQOSystem, lqo.DiagonalLQOSystem])
def test_an_order_above_the_controllable_rank(method, kind):
    """Two inputs into the first two of four states: nothing divides by the size of an input row that is zero."""
    rng, poles = np.random.default_rng(0), np.array([0.5, 0.4, 0.3, 0.2])
    B = np.zeros((4, 2))
    B[:2] = [[1.0, 0.5], [0.3, 1.0]]
    sys = kind(np.diag(poles) if kind is lqo.LQOSystem else poles, B, rng.standard_normal((2, 4)), dt=1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        red = reduced(sys, 3, method)
    assert red.relative_error < 1e-14


@pytest.mark.parametrize("method", ["optimal", "balanced", "modal", "tsia"])
def test_random_systems_far_from_normal(method):
    for seed in range(6):
        rng, n = np.random.default_rng(seed), 7
        A = np.triu(rng.standard_normal((n, n)), 1) * 3 - np.diag(rng.uniform(0.2, 2, n))
        sys = lqo.LQOSystem(A, rng.standard_normal((n, 1)), rng.standard_normal((1, n)))
        for order in (1, 3):
            try:
                red = reduced(sys, order, method)
            except LQOError as error:
                assert method == "modal", error
                continue
            assert red.relative_error <= 1 + 1e-9
