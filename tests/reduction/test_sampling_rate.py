"""Fast sampling: the same plant at any rate, its poles as close to 1 as they come."""

import numpy as np
import pytest

import lqo_mor as lqo
from lqo_mor.reduction.result import Status
from lqo_mor.systems.quadratic import QuadraticOutput

RATES = [1e-2, 1e-5, 1e-6, 1e-7, 1e-9]
POLES = np.array([-1.0, -2.5 + 3j, -0.6 + 9j, -7.0])


def plant(h, n_inputs=1, quadratic=False):
    """Modes sampled at steps `h`; with real rows at real poles."""
    rng = np.random.default_rng(4)
    poles = np.where(POLES.imag == 0, np.exp(h * POLES.real), np.exp(h * POLES))

    def rows(*shape):
        values = rng.standard_normal((*shape, 4)) + 1j * rng.standard_normal((*shape, 4))
        return np.where(poles.imag == 0, values.real, values)

    M = QuadraticOutput(rows(1), rows(1), [[0.3 * h]]) if quadratic else None
    return lqo.DiagonalLQOSystem(poles, rows(n_inputs).T, rows(1), None, M, dt=1.0)


def bilinear(sys):
    """The system in continuous time with the same Gramians: s = (z − 1)/(z + 1)."""
    turn = np.sqrt(2.0) / (1 + sys.poles)
    return lqo.DiagonalLQOSystem((sys.poles - 1) / (sys.poles + 1), sys.B * turn[:, np.newaxis], sys.C, None, sys.M, dt=0)


@pytest.mark.parametrize("h", RATES)
@pytest.mark.parametrize(("n_inputs", "quadratic"), [(1, False), (1, True), (2, False)])
@pytest.mark.parametrize("order", [1, 2, 3])
def test_the_optimum_is_that_of_the_same_problem_in_continuous_time(order, n_inputs, quadratic, h):
    sys = plant(h, n_inputs, quadratic)
    red, other = lqo.reduce(sys, order), lqo.reduce(bilinear(sys), order)
    assert red.relative_error == pytest.approx(other.relative_error, rel=max(1e-6, 1e-14 / h))
    assert red.status in (Status.CONVERGED, Status.STALLED, Status.START_KEPT)  # all at the same error
    for method in ("balanced", "tsia", "modal"):
        try:
            assert red.error <= lqo.reduce(sys, order, method=method).error * (1 + 1e-6)
        except lqo.errors.InvalidInputError:  # no single state where every pole is one of a pair
            assert (method, order) == ("modal", 1)


@pytest.mark.parametrize("batch", [(), (2,)])
def test_over_a_finite_horizon(batch):
    """As long a time, in samples of other lengths."""
    errors = []
    for h in (1e-3, 1e-7):
        sys = plant(h)
        if batch:
            sys = lqo.DiagonalLQOSystem(*(np.stack([a, a]) for a in (sys.poles, sys.B, sys.C)), dt=1.0)
        errors.append(lqo.reduce(sys, 2, horizon=round(2 / h)).relative_error)
    np.testing.assert_allclose(errors[1], errors[0], rtol=0.01)
