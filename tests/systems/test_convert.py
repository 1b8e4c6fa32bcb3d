import dataclasses
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lqo_mor import LQOSystem, QuadraticOutput, to_dense, to_diagonal
from lqo_mor.errors import AccuracyWarning, InvalidInputError
from lqo_mor.systems.convert import real_rows, real_states, slot_rows
from lqo_mor.systems.quadratic import factor_symmetric
from tests.brute import kernels
from tests.cases import diagonal, get, parametrize, select


def assert_same_kernels(a, b, rtol=1e-11):
    for x, y in zip(kernels(a, 9), kernels(b, 9), strict=True):
        np.testing.assert_allclose(x, y, rtol=0, atol=rtol * max(np.abs(y).max(), 1e-300))
    np.testing.assert_array_equal(a.D, b.D)
    assert a.dt == b.dt


@parametrize(select(diagonal=True, batch=False))
def test_dense_form_is_exact(sys):
    dense = to_dense(sys)
    assert dense.is_real
    assert dense.order == sys.order
    assert_same_kernels(dense, sys, 1e-13)
    pair = sys.poles.imag != 0
    closed = np.concatenate([sys.poles, sys.poles[pair].conj()])
    np.testing.assert_allclose(np.sort_complex(np.linalg.eigvals(dense.A)), np.sort_complex(closed), atol=1e-7)


NONDEFECTIVE = [c for c in select(diagonal=False, real=True) if "nilpotent" not in c.name]


@parametrize(NONDEFECTIVE)
def test_diagonal_form_is_exact(sys):
    if sys is get("dense non-normal") or sys is get("dense non-normal continuous"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", AccuracyWarning)
            diagonal = to_diagonal(sys)
        condition = np.linalg.cond(np.linalg.eig(sys.A)[1])
        assert_same_kernels(diagonal, sys, 1e-15 * condition**2)
        return
    diagonal = to_diagonal(sys)
    assert diagonal.order == sys.order
    assert_same_kernels(diagonal, sys, 1e-11)


@parametrize([c for c in select(diagonal=True, batch=False) if "cluster" not in c.name])
def test_round_trip(sys):
    again = to_diagonal(to_dense(sys))
    np.testing.assert_allclose(
        np.sort_complex(np.where(again.poles.imag < 0, again.poles.conj(), again.poles)), np.sort_complex(sys.poles), atol=1e-12
    )
    assert_same_kernels(again, sys)


def test_a_pole_stored_by_its_lower_half(rng):
    sys = diagonal(3, pairs=2)
    flipped = dataclasses.replace(sys, poles=sys.poles.conj(), B=sys.B.conj(), C=sys.C.conj())
    assert_same_kernels(to_dense(flipped), sys)


@pytest.mark.parametrize("name", ["dense nilpotent"])
def test_defective_matrices_are_refused(name):
    with pytest.raises(InvalidInputError, match="not diagonalisable"):
        to_diagonal(get(name))


def test_ill_conditioned_eigenvectors_warn():
    sys = LQOSystem([[0.5, 1.0], [0.0, 0.5 + 1e-9]], [[1.0], [1.0]], [[1.0, 1.0]], dt=1.0)
    with pytest.warns(AccuracyWarning, match=r"condition number \d\.\de\+\d+"):
        to_diagonal(sys)


@parametrize(select(diagonal=False, real=False))
def test_complex_systems_have_no_half_storage(sys):
    with pytest.raises(InvalidInputError, match="complex"):
        to_diagonal(sys)


@parametrize(select(batch=True))
def test_a_batch_has_no_dense_form(sys):
    with pytest.raises(InvalidInputError, match="got a batch of shape"):
        to_dense(sys)


def test_a_factored_output_stays_in_factors():
    sys = get("dense discrete mimo factored")
    assert to_diagonal(sys).M.rank == sys.M.rank
    assert isinstance(to_dense(get("diagonal discrete siso factored")).M, QuadraticOutput)


@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(1, 3), st.integers(0, 4))
@settings(max_examples=25, deadline=None)
def test_symmetric_matrices_are_factored_exactly(seed, n, p, rank):
    rng = np.random.default_rng(seed)
    E = rng.standard_normal((p, n, min(rank, n)))
    M = E @ np.diag(rng.standard_normal(min(rank, n))) @ E.transpose(0, 2, 1)
    M = (M + M.transpose(0, 2, 1)) / 2
    q = factor_symmetric(M)
    assert q.rank <= p * min(rank, n)
    np.testing.assert_allclose(q.to_dense(), M, atol=1e-13 * max(np.abs(M).max(), 1e-300))


def test_rows_in_real_coordinates_are_inverted(rng):
    real = np.array([False, True, False])
    rows = rng.standard_normal((4, 3)) + 1j * rng.standard_normal((4, 3)) * ~real
    states = rng.standard_normal((3, 5)) + 1j * rng.standard_normal((3, 5)) * ~real[:, np.newaxis]
    np.testing.assert_allclose(slot_rows(real_rows(rows, real), real), rows, rtol=1e-15)
    output = (np.where(real, 1, 2) * rows @ states).real
    np.testing.assert_allclose(real_rows(rows, real) @ real_states(states, real), output, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("thing", [None, np.eye(2), "text"])
def test_what_is_no_system_cannot_be_converted(thing):
    for convert in (to_dense, to_diagonal):
        with pytest.raises(InvalidInputError, match=f"takes an? .*LQOSystem, got {type(thing).__name__}"):
            convert(thing)


def test_a_system_that_is_converted_already():
    with pytest.raises(InvalidInputError, match="got LQOSystem, which is dense already"):
        to_dense(get("dense discrete siso linear"))
    with pytest.raises(InvalidInputError, match="got DiagonalLQOSystem, which is diagonal already"):
        to_diagonal(get("diagonal discrete siso linear"))


@pytest.mark.parametrize("decades", [0, 3, 6])
def test_factors_of_badly_scaled_forms(decades):
    """Rows over six decades either way: each entry keeps its digits, and so does the norm where small rows meet large states."""
    rng, n = np.random.default_rng(0), 12
    scales = 10.0 ** rng.uniform(-decades, decades, n)
    M = rng.standard_normal((2, n, n))
    M = (M + M.transpose(0, 2, 1)) * scales * scales[:, np.newaxis]
    assert np.max(np.abs(factor_symmetric(M).to_dense() - M) / (scales * scales[:, np.newaxis])) < 1e-13
