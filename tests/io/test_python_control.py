import warnings

import numpy as np
import pytest

import lqo_mor as lqo
from lqo_mor.errors import InvalidInputError, MissingDependencyError
from lqo_mor.io.python_control import from_control, to_control
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

control = pytest.importorskip("control")


@parametrize
def test_control_computes_the_same_frequency_response(sys):
    converted = to_control(sys)
    assert_close(converted.frequency_response(FREQUENCIES).complex.reshape(sys.n_outputs, sys.n_inputs, -1),
                 response(sys, points(sys.dt, FREQUENCIES)), 1e-13)  # fmt: skip
    assert converted.isctime(strict=True) == sys.is_continuous


@parametrize_discrete
def test_control_simulates_the_same_outputs(sys):
    u = np.random.default_rng(0).standard_normal((30, sys.n_inputs))
    t = np.arange(30) * float(sys.dt)
    outputs = control.forced_response(to_control(sys), t, u.T).outputs.reshape(sys.n_outputs, 30)
    assert_close(outputs.T, lqo.simulate(sys, u, delay=1), 1e-12)


@parametrize
def test_there_and_back_changes_no_bit(sys):
    dense = lqo.to_dense(sys) if isinstance(sys, lqo.DiagonalLQOSystem) else sys
    assert_same_matrices(from_control(to_control(sys)), dense)


def test_the_copies_are_independent():
    sys = random_system(0.1)
    converted = to_control(sys)
    back = from_control(converted)
    converted.A[:] = 0
    assert_same_matrices(back, sys)


def test_states_are_kept_whatever_the_settings_of_control():
    control.config.defaults["statesp.remove_useless_states"] = True
    try:
        assert to_control(SYSTEMS["not minimal"]).nstates == 3
    finally:
        control.config.defaults["statesp.remove_useless_states"] = False


@pytest.mark.parametrize("dt", [0, 0.1, True])
def test_balanced_reduction_keeps_the_time_step_and_the_system_with_it(dt):
    full = to_control(random_system(dt, n=12, m=1, p=1, radius=0.9))
    small = to_control(lqo.reduce(from_control(full), order=6, method="balanced").system)
    assert small.dt == full.dt
    assert small.nstates == 6
    error = np.abs(np.subtract(*(sys.frequency_response(FREQUENCIES).complex for sys in (small, full)))).max()
    gramian = control.dlyap if dt else control.lyap  # the bound of balanced truncation, from the Gramians of control
    P, Q = gramian(full.A, full.B @ full.B.T), gramian(full.A.T, full.C.T @ full.C)
    hankel = np.sort(np.sqrt(np.abs(np.linalg.eigvals(P @ Q))))[::-1]
    assert error <= 2 * hankel[6:].sum()
    assert error < 1e-2 * np.abs(full.frequency_response(FREQUENCIES).complex).max()


@pytest.mark.parametrize("dt", [0, 0.1, True])
def test_transfer_functions_are_realised(dt):
    transfer = control.tf([1.0, 2.0], [2.0, -1.0, 0.5], dt)
    sys = from_control(transfer)
    assert sys.dt is True if dt is True else sys.dt == dt
    z = points(dt, FREQUENCIES)
    assert_close(response(sys, z)[0, 0], (z + 2) / (2 * z**2 - z + 0.5), 1e-13)


def test_transfer_functions_with_several_inputs_and_outputs(monkeypatch):
    transfer = control.tf([[[1.0], [2.0]], [[1.0, 0.1], [3.0]]], [[[1.0, 0.5], [1.0, -0.2]], [[1.0, 0.5], [1.0, 0.5]]], 0.1)
    z = points(0.1, FREQUENCIES)
    wanted = [[1 / (z + 0.5), 2 / (z - 0.2)], [(z + 0.1) / (z + 0.5), 3 / (z + 0.5)]]
    try:
        sys = from_control(transfer)
    except MissingDependencyError as err:
        assert "lqo-mor[slycot]" in str(err)
    else:
        assert_close(response(sys, z), np.array(wanted), 1e-12)
    monkeypatch.setattr("control.statesp.slycot_check", lambda: False)
    with pytest.raises(MissingDependencyError, match="slycot"):
        from_control(transfer)


def test_an_improper_transfer_function_is_refused():
    with pytest.raises(InvalidInputError, match="improper"):
        from_control(control.tf([[[1.0], [1.0, 0, 0]]], [[[1.0, 2.0], [1.0, 2.0]]], 0.1))


@pytest.mark.parametrize(
    ("sys", "message"),
    [
        (control.ss([[0.5]], [[1.0]], [[1.0]], [[0.0]], None), "dt of the system is None"),
        (control.tf([2.0], [1.0], 0.1), "static gain"),
        (control.frd([1, 2], [1, 2]), "FrequencyResponseData"),
        (control.nlsys(None, lambda t, x, u, params: u, inputs=1, outputs=1), "control.linearize"),
        (control.ss([[np.nan]], [[1.0]], [[1.0]], [[0.0]], 0), "A has 1 entries that are not finite"),
        (random_system(0.1), "got LQOSystem"),
        (np.eye(2), "got ndarray"),
    ],
)
def test_what_is_no_system_for_us_is_refused(sys, message):
    with pytest.raises(InvalidInputError, match=message):
        from_control(sys)


@pytest.mark.parametrize("name", "ABCD")
def test_complex_entries_are_refused_and_not_dropped(name):
    matrices = {key: np.array([[0.5]]) for key in "ABCD"}
    matrices[name] = np.array([[0.5 + 1e-300j]])
    with warnings.catch_warnings(), pytest.raises(InvalidInputError, match=f"{name} has complex entries"):
        warnings.simplefilter("error")
        to_control(lqo.LQOSystem(**matrices))


def test_a_complex_array_of_real_numbers_is_real():
    converted = to_control(lqo.LQOSystem([[0.5 + 0j]], [[1.0]], [[1.0]], dt=1.0))
    assert converted.A.dtype == np.float64
    assert converted.A[0, 0] == 0.5


QUADRATIC = lqo.LQOSystem([[0.5]], [[1.0]], [[1.0]], M=[[[1.0]]], dt=1.0)


@pytest.mark.parametrize(
    ("sys", "message"),
    [
        (QUADRATIC, "no quadratic outputs"),
        (lqo.to_diagonal(QUADRATIC), "no quadratic outputs"),
        (lqo.DiagonalLQOSystem(np.full((2, 1), 0.5), np.ones((2, 1, 1)), np.ones((2, 1, 1)), dt=1.0), "a batch of shape"),
        (control.ss([[0.5]], [[1.0]], [[1.0]], [[0.0]]), "got StateSpace"),
    ],
)
def test_what_control_cannot_hold_is_refused(sys, message):
    with pytest.raises(InvalidInputError, match=message):
        to_control(sys)


def test_a_missing_library_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "control", None)
    for convert in (to_control, from_control):
        with pytest.raises(MissingDependencyError, match=r"lqo-mor\[control\]"):
            convert(random_system(0.1))
