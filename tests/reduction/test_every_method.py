"""What holds for every method on every system of the table that it supports."""

import contextlib
import warnings

import numpy as np
import pytest

import lqo_mor as lqo
from lqo_mor.errors import AccuracyWarning, InvalidInputError
from lqo_mor.reduction.reduce import METHODS
from tests.cases import CASES, get, parametrize, select

DIRECT, ITERATIVE = ["balanced", "modal", "hippo"], ["optimal", "projected_gradient"]
REAL = [case for case in CASES if case.real]
QUICK = {"projected_gradient": {"max_iterations": 30}, "optimal": {"max_iterations": 60}}


@contextlib.contextmanager
def accuracy_warnings_allowed(sys):
    """Some hard systems have eigenvectors that deserve the warning."""
    with warnings.catch_warnings():
        if any(case.sys is sys for case in CASES if case.hard):
            warnings.simplefilter("ignore", AccuracyWarning)
        yield


def largest(system):
    """The spectral radius, or ``1 +`` the spectral abscissa: stable if below 1."""
    poles = system.poles if isinstance(system, lqo.DiagonalLQOSystem) else np.linalg.eigvals(system.A)
    return 1 + poles.real.max() if system.is_continuous else np.abs(poles).max()


def used_order(system):
    """States of each channel without the padding that batches of unequal channels need, which has no input."""
    if isinstance(system, lqo.LQOSystem):
        return system.order
    return np.sum((2 - system.is_real_pole) * np.any(system.B, axis=-1), axis=-1)


def check(red, sys, order, horizon):
    system = red.system
    assert type(system) is type(sys)
    assert np.max(used_order(system)) <= order
    assert largest(system) < 1
    assert (system.n_inputs, system.n_outputs, system.dt) == (sys.n_inputs, sys.n_outputs, sys.dt)
    assert getattr(system, "batch", ()) == getattr(sys, "batch", ())
    np.testing.assert_array_equal(system.D, sys.D)
    if isinstance(sys, lqo.LQOSystem):
        assert type(system.M) is type(sys.M)
        assert system.is_real
    else:
        assert (system.M is None) == (sys.M is None)
    np.testing.assert_array_equal(red.error, lqo.h2_error(sys, system, horizon))
    np.testing.assert_allclose(red.relative_error, lqo.h2_error(sys, system, horizon, relative=True), rtol=1e-14)
    assert np.all(red.error <= red.start_error)
    assert np.shape(red.error) == getattr(sys, "batch", ())
    assert np.shape(red.status) == getattr(sys, "batch", ())
    assert red.horizon == horizon
    assert str(red).startswith(f"Reduction by {red.method} to")


def smallest(sys):
    return int(np.min(sys.order))


def refuses(method, sys, order):
    """Whether a system is outside of what a method promises."""
    if method == "balanced" or (method == "optimal"):
        return False
    name = next(case.name for case in CASES if case.sys is sys)
    if method in ("modal", "hippo") and name == "dense nilpotent":
        return True
    if method == "modal" and order == 1:
        poles = sys.poles if isinstance(sys, lqo.DiagonalLQOSystem) else np.linalg.eigvals(sys.A)
        batch_has_none = np.any(np.all(poles.imag != 0, axis=-1))
        return bool(batch_has_none)
    return False


@parametrize(REAL)
@pytest.mark.parametrize("method", DIRECT)
@pytest.mark.parametrize("horizon", [None, 6])
def test_initialisers_are_stable_at_every_order(sys, method, horizon):
    with accuracy_warnings_allowed(sys), warnings.catch_warnings():
        if horizon is not None:  # time-limited truncation may lose stability; it is then repaired and says so
            warnings.simplefilter("ignore", lqo.LQOWarning)
        for order in range(1, smallest(sys)):
            if refuses(method, sys, order):
                with pytest.raises(InvalidInputError, match=r"order 1 cannot be met|not diagonalisable"):
                    lqo.reduce(sys, order, method=method, horizon=horizon)
                continue
            red = lqo.reduce(sys, order, method=method, horizon=horizon)
            assert red.method == method
            check(red, sys, order, horizon)


@pytest.mark.filterwarnings("ignore:.*ill-conditioned:lqo_mor.errors.AccuracyWarning")
@parametrize(REAL)
@pytest.mark.parametrize("method", ITERATIVE)
@pytest.mark.parametrize("horizon", [None, 6])
def test_iterative_methods_are_stable_and_no_worse_than_their_start(sys, method, horizon):
    order = max(1, smallest(sys) // 2)
    with accuracy_warnings_allowed(sys), warnings.catch_warnings():
        if horizon is not None:
            warnings.simplefilter("ignore", lqo.LQOWarning)
        red = lqo.reduce(sys, order, method=method, horizon=horizon, **QUICK[method])
        start = lqo.balanced_truncation(sys, order, horizon=horizon)
    check(red, sys, order, horizon)
    assert np.all(red.error <= start.error)
    assert np.all(np.asarray(red.iterations) >= 0)


@parametrize(select(diagonal=True, hard=False))
@pytest.mark.parametrize("method", list(METHODS))
@pytest.mark.parametrize("slots", [1, 2])
def test_a_budget_of_slots(sys, method, slots):
    red = lqo.reduce(sys, slots=slots, method=method, **QUICK.get(method, {}))
    assert red.system.n_slots <= slots
    check(red, sys, 2 * slots, None)


@pytest.mark.parametrize("method", list(METHODS))
def test_horizon_infinity_is_none(method):
    sys = get("diagonal discrete siso linear")
    a, b = (lqo.reduce(sys, 3, method=method, horizon=horizon) for horizon in (None, np.inf))
    assert a.error == b.error
    assert b.horizon is None


@pytest.mark.parametrize("method", list(METHODS))
def test_the_functions_are_what_reduce_calls(method):
    sys = get("diagonal discrete siso factored")
    assert METHODS[method].public(sys, 3).error == lqo.reduce(sys, 3, method=method).error
    assert METHODS[method].public(sys, slots=2).error == lqo.reduce(sys, slots=2, method=method).error


@parametrize(select(hard=False, real=True))
def test_a_direct_method_reports_itself_as_its_start(sys):
    red = lqo.balanced_truncation(sys, smallest(sys) // 2)
    np.testing.assert_array_equal(red.start_error, red.error)
    assert red.history is None
    assert np.all(np.ravel(red.status) == lqo.Status.DIRECT)
    assert np.all(np.asarray(red.iterations) == 0)


@pytest.mark.parametrize("method", list(METHODS))
def test_the_full_system_is_not_modified(method):
    sys = get("diagonal discrete batch siso factored")
    copies = sys.poles.copy(), sys.B.copy(), sys.C.copy(), sys.M.U.copy()
    lqo.reduce(sys, 3, method=method)
    for array, copy in zip((sys.poles, sys.B, sys.C, sys.M.U), copies, strict=True):
        np.testing.assert_array_equal(array, copy)


@pytest.mark.parametrize("scale", [1e-9, 1e6])
@pytest.mark.parametrize("method", list(METHODS))
@pytest.mark.parametrize("name", ["diagonal discrete siso linear", "diagonal continuous mimo linear"])
def test_the_scale_of_the_outputs_does_not_matter(name, method, scale):
    sys = get(name)
    scaled = lqo.DiagonalLQOSystem(sys.poles, sys.B, sys.C * scale, dt=sys.dt)
    a, b = (lqo.reduce(s, 4, method=method, **QUICK.get(method, {})) for s in (sys, scaled))
    assert b.relative_error == pytest.approx(a.relative_error, rel=1e-5)
