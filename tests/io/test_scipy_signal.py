import warnings

import numpy as np
import pytest
import scipy.linalg
import scipy.signal

import lqo_mor as lqo
from lqo_mor.errors import InvalidInputError
from lqo_mor.io.scipy_signal import from_scipy, to_scipy
from tests.io.systems import (
    FREQUENCIES,
    SYSTEMS,
    assert_close,
    assert_same_matrices,
    parametrize,
    parametrize_discrete,
    points,
    random_system,
    response,
)


@parametrize_discrete
def test_scipy_simulates_the_same_outputs(sys):
    u = np.random.default_rng(0).standard_normal((30, sys.n_inputs))
    converted = to_scipy(sys)
    assert isinstance(converted, scipy.signal.dlti)
    assert_close(scipy.signal.dlsim(converted, u)[1], lqo.simulate(sys, u, delay=1), 1e-12)


@pytest.mark.parametrize("name", ["continuous", "integers", "diagonal, continuous"])
def test_scipy_computes_the_same_impulse_responses(name):
    sys = SYSTEMS[name]
    converted = to_scipy(sys)
    assert isinstance(converted, scipy.signal.lti)
    t = np.linspace(0, 4, 9)
    outputs = scipy.signal.lsim(converted, np.zeros((9, sys.n_inputs)), t, converted.B[:, 0])[1]
    assert_close(outputs.reshape(9, -1), [impulse_response(sys, s)[:, 0] for s in t], 1e-12)


def impulse_response(sys, t):
    """``C exp(t A) B``, slot by slot for a diagonal system."""
    if isinstance(sys, lqo.DiagonalLQOSystem):
        return (sys.C * np.where(sys.poles.imag == 0, 1, 2) * np.exp(t * sys.poles) @ sys.B).real
    return sys.C @ scipy.linalg.expm(t * sys.A) @ sys.B


@parametrize
def test_there_and_back_changes_no_bit(sys):
    dense = lqo.to_dense(sys) if isinstance(sys, lqo.DiagonalLQOSystem) else sys
    assert_same_matrices(from_scipy(to_scipy(sys)), dense)


def test_the_copies_are_independent():
    sys = random_system(0.1)
    converted = to_scipy(sys)
    back = from_scipy(converted)
    converted.A[:] = 0
    assert_same_matrices(back, sys)


@pytest.mark.parametrize("dt", [0, 0.1, True])
def test_transfer_functions_and_zeros_poles_gain_are_realised(dt):
    kind = scipy.signal.lti if dt == 0 else scipy.signal.dlti
    extra = {} if dt == 0 else {"dt": dt}
    z = points(dt, FREQUENCIES)
    transfer = from_scipy(kind([1.0, 2.0], [2.0, -1.0, 0.5], **extra))
    assert_close(response(transfer, z)[0, 0], (z + 2) / (2 * z**2 - z + 0.5), 1e-13)
    zeros = from_scipy(kind([-2.0], [0.5, 0.2], 3.0, **extra))
    assert_close(response(zeros, z)[0, 0], 3 * (z + 2) / ((z - 0.5) * (z - 0.2)), 1e-13)
    for sys in (transfer, zeros):
        assert sys.dt is True if dt is True else sys.dt == dt


@pytest.mark.parametrize(
    ("sys", "message"),
    [
        (scipy.signal.lti([1.0, 2.0, 3.0], [1.0, 2.0]), "Improper"),
        (scipy.signal.StateSpace([[0.5]], [[1.0]], [[1.0]], [[0.0]], dt=0), "discrete, but its dt is 0"),
        (scipy.signal.dlti([1.0], [1.0, 0.5], dt=-1.0), "dt must be"),
        (scipy.signal.lti([[np.inf]], [[1.0]], [[1.0]], [[0.0]]), "A has 1 entries that are not finite"),
        (random_system(0.1), "got LQOSystem"),
        (([1.0], [1.0, 0.5]), "got tuple"),
    ],
)
def test_what_is_no_system_for_us_is_refused(sys, message):
    with pytest.raises(InvalidInputError, match=message):
        from_scipy(sys)


@pytest.mark.parametrize(
    "gain",
    [
        lambda: scipy.signal.lti([2.0], [1.0]),
        lambda: scipy.signal.dlti([2.0], [1.0], dt=0.1),
        lambda: scipy.signal.ZerosPolesGain([], [], 3.0),
        lambda: scipy.signal.StateSpace([], [], [], [[2.0]]),
    ],
)
def test_static_gains_are_refused(gain):
    try:
        sys = gain()
    except ValueError:
        pytest.skip("this SciPy has no such system")
    with pytest.raises(InvalidInputError, match="static gain"):  # and are no integrators, which SciPy makes of them
        from_scipy(sys)


def test_complex_entries_are_refused_and_not_dropped():
    with warnings.catch_warnings(), pytest.raises(InvalidInputError, match="A has complex entries"):
        warnings.simplefilter("error")
        to_scipy(lqo.LQOSystem([[0.5j]], [[1.0]], [[1.0]], dt=1.0))


def test_quadratic_outputs_are_refused():
    with pytest.raises(InvalidInputError, match="no quadratic outputs"):
        to_scipy(lqo.LQOSystem([[0.5]], [[1.0]], None, M=[[[1.0]]], dt=1.0))
