import re

import numpy as np
import pytest

import lqo_mor as lqo
from lqo_mor.errors import DimensionError, InvalidInputError
from tests import brute
from tests.cases import CASES, get, parametrize, select, singles

STEPS = 8
NOT_CONTINUOUS = [case for case in CASES if not case.continuous]


def convolved(sys, u, delay):
    """The output from the kernels: a first and a second order convolution."""
    h1, h2 = brute.kernels(sys, len(u))
    y = u @ sys.D.T + 0j
    for k in range(len(u)):
        past = [(k - delay - j, u[j]) for j in range(k + 1 - delay)]
        for lag, v in past:
            y[k] += h1[lag] @ v
            for other_lag, w in past:
                y[k] += np.einsum("x,ixy,y->i", v, h2[:, lag, other_lag], w)
    return y


@parametrize(NOT_CONTINUOUS)
@pytest.mark.parametrize("delay", [0, 1])
def test_output_is_the_convolution_with_the_kernels(sys, delay, rng):
    u = rng.standard_normal((STEPS, sys.n_inputs))
    y = lqo.simulate(sys, u, delay=delay)
    assert y.shape == (*getattr(sys, "batch", ()), STEPS, sys.n_outputs)
    wanted = np.reshape([convolved(one, u, delay) for one in singles(sys)], y.shape)
    if isinstance(sys, lqo.DiagonalLQOSystem) or sys.is_real:
        assert y.dtype == np.float64
        assert np.abs(wanted.imag).max() < 1e-12 * np.abs(wanted).max()
        wanted = wanted.real
    np.testing.assert_allclose(y, wanted, rtol=0, atol=1e-12 * max(np.abs(wanted).max(), 1))


def test_default_delay_is_that_of_control():
    sys, u = get("dense discrete feedthrough"), np.ones((STEPS, 2))
    np.testing.assert_array_equal(lqo.simulate(sys, u), lqo.simulate(sys, u, delay=1))
    np.testing.assert_allclose(lqo.simulate(sys, u)[0], sys.D @ u[0])


def test_against_python_control(rng):
    control = pytest.importorskip("control")
    sys, u = get("dense discrete mimo linear"), rng.standard_normal((30, 2))
    response = control.forced_response(control.ss(sys.A, sys.B, sys.C, sys.D, 1.0), inputs=u.T)
    np.testing.assert_allclose(lqo.simulate(sys, u), response.outputs.T, rtol=1e-11, atol=1e-12)


@parametrize([case for case in select(diagonal=True, batch=False) if not case.continuous])
@pytest.mark.parametrize("delay", [0, 1])
def test_diagonal_equals_dense(sys, delay, rng):
    u = rng.standard_normal((20, sys.n_inputs))
    np.testing.assert_allclose(
        lqo.simulate(sys, u, delay=delay), lqo.simulate(lqo.to_dense(sys), u, delay=delay), rtol=1e-11, atol=1e-11
    )


@pytest.mark.parametrize("name", ["diagonal discrete batch siso factored", "diagonal discrete batch mimo factored"])
def test_channels_of_a_batch_with_inputs_of_their_own(name, rng):
    sys = get(name)
    u = rng.standard_normal((*sys.batch, STEPS, sys.n_inputs))
    y = lqo.simulate(sys, u, delay=0)
    for index in np.ndindex(sys.batch):
        np.testing.assert_allclose(y[index], lqo.simulate(sys[index], u[index], delay=0), rtol=1e-13, atol=1e-13)
    more = lqo.simulate(sys, np.stack([u, 2 * u]), delay=0)
    assert more.shape == (2, *y.shape)
    np.testing.assert_allclose(more[0], y, rtol=1e-13, atol=1e-13)


def test_independent_runs_of_a_dense_system(rng):
    sys = get("dense discrete mimo quadratic")
    u = rng.standard_normal((3, 2, STEPS, 2))
    y = lqo.simulate(sys, u)
    assert y.shape == (3, 2, STEPS, 3)
    np.testing.assert_allclose(y[2, 1], lqo.simulate(sys, u[2, 1]), rtol=1e-12, atol=1e-13)


def test_complex_input_to_a_dense_system(rng):
    sys, u = get("dense complex discrete mimo quadratic"), rng.standard_normal((5, 2)) + 1j * rng.standard_normal((5, 2))
    np.testing.assert_allclose(lqo.simulate(sys, u), convolved(sys, u, 1), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("delay", [0, 1])
@pytest.mark.parametrize("name", ["dense discrete siso quadratic", "diagonal discrete siso factored"])
def test_no_steps_give_no_output(name, delay):
    assert lqo.simulate(get(name), np.zeros((0, 1)), delay=delay).shape == (0, 1)


def test_unstable_systems_can_be_simulated():
    y = lqo.simulate(lqo.LQOSystem([[2.0]], [[1.0]], [[1.0]], dt=1.0), [[1.0], [0.0], [0.0], [0.0]])
    np.testing.assert_array_equal(y.ravel(), [0, 1, 2, 4])


def test_input_is_not_modified(rng):
    u = rng.standard_normal((5, 1))
    copy = u.copy()
    lqo.simulate(get("dense discrete siso quadratic"), u)
    lqo.simulate(get("diagonal discrete siso factored"), u)
    np.testing.assert_array_equal(u, copy)


@pytest.mark.parametrize("name", ["dense discrete siso linear", "diagonal discrete siso linear"])
@pytest.mark.parametrize(
    ("u", "delay", "message"),
    [
        (np.ones(4), 1, "u has shape (4,), expected (..., steps, 1)"),
        (np.ones((4, 2)), 1, "u has shape (4, 2), expected (..., steps, 1)"),
        ([[1.0], [np.nan]], 1, "u has 1 entries that are not finite, first at (1, 0)"),
        ("text", 1, "u is not a numeric array"),
        (np.ones((4, 1)), 2, "delay must be 0 or 1, got 2"),
        (np.ones((4, 1)), None, "delay must be 0 or 1, got None"),
    ],
)
def test_bad_input(name, u, delay, message):
    with pytest.raises(InvalidInputError, match=re.escape(message)):
        lqo.simulate(get(name), u, delay=delay)


def test_input_that_does_not_fit_the_batch():
    with pytest.raises(DimensionError, match=re.escape("u has shape (4, 7, 1), whose leading axes do not fit the batch (3,)")):
        lqo.simulate(get("diagonal discrete batch siso linear"), np.ones((4, 7, 1)))


def test_complex_input_to_a_real_diagonal_system():
    with pytest.raises(InvalidInputError, match="u is complex"):
        lqo.simulate(get("diagonal discrete siso linear"), 1j * np.ones((4, 1)))


@pytest.mark.parametrize("name", ["dense continuous siso linear", "diagonal continuous siso linear"])
def test_continuous_systems_are_refused(name):
    with pytest.raises(InvalidInputError, match="discrete time"):
        lqo.simulate(get(name), np.ones((4, 1)))
