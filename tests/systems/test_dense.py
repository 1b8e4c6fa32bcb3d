import dataclasses
import re
import warnings

import numpy as np
import pytest
import scipy.sparse

from lqo_mor import DiagonalLQOSystem, LQOError, LQOSystem, QuadraticOutput
from lqo_mor.errors import DimensionError, InvalidInputError, SymmetrisedWarning
from tests.cases import dense, get, parametrize, select

A, B, C = np.diag([0.5, 0.2]), np.ones((2, 1)), np.ones((1, 2))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"A": np.ones((2, 3))}, "A has shape (2, 3), expected (n, n) = (2, 2)"),
        ({"A": np.ones(3)}, "A has shape (3,), expected (n, n)"),
        ({"A": np.ones((1, 2, 2))}, "A has shape (1, 2, 2)"),
        ({"A": np.ones((0, 0)), "B": np.ones((0, 1)), "C": np.ones((1, 0))}, "A is empty"),
        ({"B": np.ones((3, 1))}, "B has shape (3, 1), expected (n, m) = (2, 1)"),
        ({"B": np.ones(2)}, "B has shape (2,), expected (n, m) = (2, 1); reshape it with B.reshape(2, 1)"),
        ({"B": np.ones((2, 0))}, "0 inputs"),
        ({"C": np.ones((1, 3))}, "C has shape (1, 3), expected (p, n) = (1, 2)"),
        ({"C": np.ones(2)}, "C has shape (2,), expected (p, n) = (1, 2); reshape it with C.reshape(1, 2)"),
        ({"C": np.ones((0, 2))}, "0 outputs"),
        ({"C": None}, "C is missing"),
        ({"D": np.ones((2, 2))}, "D has shape (2, 2), expected (p, m) = (1, 1)"),
        ({"D": 1.0}, "D has shape ()"),
        ({"M": np.ones((2, 3, 3))}, "M has shape (2, 3, 3), expected (p, n, n) = (p, 2, 2)"),
        ({"M": np.ones(2)}, "M has shape (2,)"),
        ({"M": np.ones((2, 2, 1))}, "one matrix per output; move the last axis first: M.transpose(2, 0, 1)"),
        ({"M": np.ones((3, 2, 2))}, "M has shape (3, 2, 2), expected (p, n, n) = (1, 2, 2)"),
        (
            {"M": QuadraticOutput(np.ones((1, 3)), np.ones((1, 3)), np.ones((1, 1)))},
            "M.U has shape (1, 3), expected (c, n) = (1, 2)",
        ),
        (
            {"M": QuadraticOutput(np.ones((1, 2)), np.ones((1, 2)), np.ones((2, 1)))},
            "M.W has shape (2, 1), expected (p, c) = (1, 1)",
        ),
    ],
)
def test_wrong_shapes_name_the_array_and_both_shapes(arguments, message):
    with pytest.raises(DimensionError, match=re.escape(message)) as caught:
        LQOSystem(**{"A": A, "B": B, "C": C, "dt": 1.0, **arguments})
    assert isinstance(caught.value, LQOError)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("name", ["A", "B", "C", "D", "M"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, complex(0, np.nan)])
def test_entries_that_are_not_finite(name, bad):
    arrays = {"A": A, "B": B, "C": C, "D": np.zeros((1, 1)), "M": np.ones((1, 2, 2))}
    spoilt = arrays[name].astype(type(bad))
    spoilt[(-1,) * spoilt.ndim] = bad
    where = tuple(n - 1 for n in spoilt.shape)
    with pytest.raises(InvalidInputError, match=re.escape(f"{name} has 1 entries that are not finite, first at {where}")):
        LQOSystem(**{**arrays, name: spoilt}, dt=1.0)


@pytest.mark.parametrize("value", ["text", [["a", "b"]], [[1.0], [1.0, 2.0]], {}, np.array([[object()]])])
def test_what_is_no_numeric_array(value):
    with pytest.raises(InvalidInputError, match="A is not a numeric array"):
        LQOSystem(value, B, C, dt=1.0)


@pytest.mark.parametrize(
    "dt", [-1.0, np.nan, np.inf, None, "1", False, np.False_, 1j, np.complex64(1), 10**400, -(10**400), [1.0], np.array([1.0])]
)
def test_wrong_time_steps(dt):
    with pytest.raises(InvalidInputError, match="dt must be 0"):
        LQOSystem(A, B, C, dt=dt)


@pytest.mark.parametrize(
    ("dt", "continuous"), [(0, True), (0.0, True), (1, False), (0.1, False), (True, False), (np.float64(2), False)]
)
def test_time_steps_as_in_python_control(dt, continuous):
    sys = LQOSystem(A, B, C, dt=dt)
    assert sys.is_continuous is continuous
    assert sys.dt == dt
    assert (sys.dt is True) == (dt is True)


def test_a_boolean_of_numpy_is_a_time_step_too():
    assert LQOSystem(A, B, C, dt=np.True_).dt is True


def test_python_control_understands_the_time_step_in_the_same_way():
    control = pytest.importorskip("control")
    for dt in (0, 0.1, True):
        assert control.ss(A, B, C, 0, dt).isctime(strict=True) == LQOSystem(A, B, C, dt=dt).is_continuous


@parametrize(select(diagonal=False))
def test_arrays_are_read_only(sys):
    M = (sys.M.U, sys.M.V, sys.M.W) if isinstance(sys.M, QuadraticOutput) else () if sys.M is None else (sys.M,)
    for array in (sys.A, sys.B, sys.C, sys.D, *M):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0
    with pytest.raises(dataclasses.FrozenInstanceError):
        sys.A = A


def test_arrays_are_copies():
    arrays = [A.copy(), B.copy(), C.copy(), np.ones((1, 1)), np.ones((1, 2, 2))]
    sys = LQOSystem(*arrays, dt=1.0)
    for array in arrays:
        array[...] = 7
    np.testing.assert_array_equal(sys.A, A)
    np.testing.assert_array_equal(sys.M, np.ones((1, 2, 2)))


@parametrize(select(diagonal=False))
def test_replace_changes_one_field_only(sys):
    other = dataclasses.replace(sys, B=2 * sys.B)
    np.testing.assert_array_equal(other.B, 2 * sys.B)
    for name in ("A", "C", "D"):
        np.testing.assert_array_equal(getattr(other, name), getattr(sys, name))
    assert type(other.M) is type(sys.M)
    assert other.dt is sys.dt or other.dt == sys.dt


def test_replace_validates():
    with pytest.raises(DimensionError, match="B has shape"):
        dataclasses.replace(LQOSystem(A, B, C, dt=1.0), B=np.ones((5, 1)))


def test_asymmetric_quadratic_output_is_symmetrised_with_a_warning(rng):
    M = rng.standard_normal((1, 2, 2))
    with pytest.warns(SymmetrisedWarning, match="M is not symmetric"):
        sys = LQOSystem(A, B, C, M=M, dt=1.0)
    np.testing.assert_allclose(sys.M, (M + M.transpose(0, 2, 1)) / 2)
    x = rng.standard_normal(2)
    assert x @ sys.M[0] @ x == pytest.approx(x @ M[0] @ x)


def test_the_symmetrise_warning_points_at_the_caller():
    with pytest.warns(SymmetrisedWarning) as caught:
        LQOSystem(A, B, C, M=[[[0.0, 1.0], [0.0, 0.0]]], dt=1.0)
    assert caught[0].filename == __file__


def test_asymmetry_of_rounding_is_silent():
    M = np.ones((1, 2, 2))
    M[0, 0, 1] += 1e-15
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sys = LQOSystem(A, B, C, M=M, dt=1.0)
    np.testing.assert_array_equal(sys.M, sys.M.transpose(0, 2, 1))


def test_complex_symmetric_is_not_hermitian():
    with pytest.warns(SymmetrisedWarning):  # xᵀ M x with the plain transpose: a Hermitian matrix is not symmetric
        sys = LQOSystem(A, B, C, M=[[[1.0, 1j], [-1j, 1.0]]], dt=1.0)
    np.testing.assert_array_equal(sys.M[0], np.eye(2))


def test_one_matrix_is_one_output():
    sys = LQOSystem(A, B, None, M=np.eye(2), dt=1.0)
    assert sys.M.shape == (1, 2, 2)
    np.testing.assert_array_equal(sys.C, np.zeros((1, 2)))


def test_sizes_and_defaults():
    sys = dense(0, n=5, m=3, p=2)
    assert (sys.order, sys.n_inputs, sys.n_outputs) == (5, 3, 2)
    np.testing.assert_array_equal(sys.D, np.zeros((2, 3)))
    assert LQOSystem([[1]], [[2]], [[3]], dt=1.0).A.dtype == np.float64
    assert sys.is_real
    assert not dense(0, is_complex=True).is_real
    assert not LQOSystem(A, B, C, M=QuadraticOutput([[1j, 0]], [[1, 0]], [[1]]), dt=1.0).is_real


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("dense discrete siso linear", "LQOSystem(order=6, inputs=1, outputs=1, quadratic=none, dt=1.0)"),
        ("dense continuous mimo quadratic", "LQOSystem(order=6, inputs=2, outputs=3, quadratic=dense, dt=0.0)"),
        ("dense discrete mimo factored", "LQOSystem(order=6, inputs=3, outputs=2, quadratic=rank 4, dt=1.0)"),
        ("dense discrete feedthrough", "LQOSystem(order=6, inputs=2, outputs=2, quadratic=dense, dt=True)"),
    ],
)
def test_repr(name, text):
    assert repr(get(name)) == text


def test_factors_and_dense_matrices_are_the_same_output(rng):
    U, V, W = rng.standard_normal((3, 4)), rng.standard_normal((3, 4)), rng.standard_normal((2, 3))
    x = rng.standard_normal(4)
    M = QuadraticOutput(U, V, W).to_dense()
    np.testing.assert_array_equal(M, M.transpose(0, 2, 1))
    np.testing.assert_allclose(np.einsum("a,iab,b->i", x, M, x), W @ ((U @ x) * (V @ x)))


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (((2, 3), (2, 4), (1, 2)), "V has shape (2, 4), expected the shape of U = (2, 3)"),
        (((2, 3), (2, 3), (1, 3)), "W has shape (1, 3), expected (..., p, c) = (1, 2)"),
        (((3,), (3,), (1, 1)), "U has shape (3,), expected at least two axes"),
        (((4, 2, 3), (4, 2, 3), (1, 2)), "W has shape (1, 2), expected (..., p, c) = (4, 1, 2)"),
    ],
)
def test_wrong_shapes_of_factors(shapes, message):
    with pytest.raises(DimensionError, match=re.escape(message)):
        QuadraticOutput(*(np.ones(shape) for shape in shapes))


def test_sparse_matrices_one_per_output():
    M = [np.diag([1.0, 2.0]), np.array([[0.0, 1.0], [1.0, 0.0]])]
    for kind in (scipy.sparse.csr_matrix, scipy.sparse.coo_array):
        np.testing.assert_array_equal(LQOSystem(A, B, None, M=[kind(m) for m in M], dt=1.0).M, M)
        np.testing.assert_array_equal(LQOSystem(A, B, None, M=(kind(M[0]), M[1]), dt=1.0).M, M)
        np.testing.assert_array_equal(LQOSystem(A, B, None, M=kind(M[0]), dt=1.0).M, M[:1])
    with pytest.raises(InvalidInputError, match="M is not a numeric array"):
        LQOSystem(A, B, None, M=[scipy.sparse.eye(2), scipy.sparse.eye(3)], dt=1.0)


def test_batches_of_factors_have_batches_of_matrices(rng):
    U, V, W = rng.standard_normal((5, 3, 4)), rng.standard_normal((5, 3, 4)), rng.standard_normal((5, 2, 3))
    M = QuadraticOutput(U, V, W).to_dense()
    np.testing.assert_array_equal(M[3], QuadraticOutput(U[3], V[3], W[3]).to_dense())


def test_complex_factors_of_a_dense_system_have_matrices():
    half = DiagonalLQOSystem([0.5j], [[1.0]], [[1.0]], M=QuadraticOutput([[1j]], [[1.0]], [[1.0]]), dt=1.0).M
    np.testing.assert_array_equal(LQOSystem([[0.5j]], [[1.0]], [[1.0]], M=half, dt=1.0).M.to_dense(), [[[1j]]])
