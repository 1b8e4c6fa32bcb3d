import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lqo_mor as lqo
from lqo_mor.errors import DimensionError, InvalidInputError, UnstableSystemError
from tests import brute
from tests.cases import CASES, dense, diagonal, get, parametrize, select, singles

DISCRETE, CONTINUOUS = [1, 2, 7, 40], [0.3, 2.0]


@parametrize([case for case in CASES if not case.continuous])
@pytest.mark.parametrize("horizon", DISCRETE)
def test_discrete_norm_is_the_sum_over_the_kernels(sys, horizon):
    wanted = [np.sqrt(brute.inner(one, one, horizon).real) for one in singles(sys)]
    got = lqo.h2_norm(sys, horizon)
    np.testing.assert_allclose(np.ravel(got), wanted, rtol=1e-12)
    assert np.shape(got) == getattr(sys, "batch", ())
    assert np.shape(got) or isinstance(got, float)


@parametrize([case for case in CASES if case.continuous])
@pytest.mark.parametrize("horizon", CONTINUOUS)
def test_continuous_norm_is_the_integral_over_the_kernels(sys, horizon):
    wanted = [np.sqrt(brute.inner(one, one, horizon).real) for one in singles(sys)]
    np.testing.assert_allclose(np.ravel(lqo.h2_norm(sys, horizon)), wanted, rtol=1e-11)


@parametrize(select(hard=False, continuous=False))
def test_infinite_discrete_norm(sys):
    wanted = [np.sqrt(brute.inner(one, one, 200).real) for one in singles(sys)]
    np.testing.assert_allclose(np.ravel(lqo.h2_norm(sys)), wanted, rtol=1e-12)


@parametrize(select(hard=False))
def test_a_long_horizon_tends_to_the_infinite_one(sys):
    np.testing.assert_allclose(lqo.h2_norm(sys, 250), lqo.h2_norm(sys), rtol=1e-11)
    np.testing.assert_array_equal(lqo.h2_norm(sys, np.inf), lqo.h2_norm(sys))
    assert np.all(np.abs(np.asarray(lqo.h2_norm(sys, 1)) / lqo.h2_norm(sys) - 1) > 1e-4)


@parametrize([case for case in CASES if not case.batch])
@pytest.mark.parametrize("horizon", [None, 5])
def test_norm_from_the_observability_gramian(sys, horizon):
    B = (lqo.to_dense(sys) if isinstance(sys, lqo.DiagonalLQOSystem) else sys).B
    Q = lqo.observability_gramian(sys, horizon)
    squared = np.trace(B.conj().T @ Q @ B).real + np.sum(np.abs(sys.D) ** 2)
    worst = 1e-8 if "close" in str(next(c.name for c in CASES if c.sys is sys)) else 1e-11
    assert lqo.h2_norm(sys, horizon) == pytest.approx(np.sqrt(squared), rel=worst)


@parametrize(select(diagonal=True, batch=False))
@pytest.mark.parametrize("horizon", [None, 1, 8])
def test_diagonal_equals_dense(sys, horizon):
    assert lqo.h2_norm(sys, horizon) == pytest.approx(lqo.h2_norm(lqo.to_dense(sys), horizon), rel=1e-7)
    if not any(sys is case.sys for case in CASES if case.hard):
        assert lqo.h2_norm(sys, horizon) == pytest.approx(lqo.h2_norm(lqo.to_dense(sys), horizon), rel=1e-12)


PAIRS = [
    ("dense discrete mimo quadratic", dense(900, n=3, m=2, p=3, M="dense")),
    ("dense discrete mimo quadratic", dense(901, n=3, m=2, p=3, M=2)),
    ("dense discrete mimo factored", dense(902, n=3, m=3, p=2, M=1)),
    ("dense discrete mimo factored", diagonal(903, pairs=1, reals=1, m=3, p=2, c=2)),
    ("diagonal discrete mimo factored", dense(904, n=4, m=3, p=2)),
    ("diagonal discrete mimo factored", diagonal(905, pairs=1, m=3, p=2, c=1)),
    ("diagonal discrete feedthrough", diagonal(906, pairs=1, m=2, p=2, feedthrough=True, dt=True)),
    ("dense complex discrete mimo quadratic", dense(907, n=3, m=2, p=3, M="dense", is_complex=True)),
    ("dense complex discrete mimo factored", dense(908, n=3, m=3, p=2, M=2, is_complex=True)),
    ("dense complex discrete mimo factored", dense(909, n=3, m=3, p=2, M=2)),
    ("dense continuous mimo factored", dense(910, n=3, m=3, p=2, M="dense", continuous=True)),
    ("diagonal continuous mimo factored", diagonal(911, pairs=1, reals=1, m=3, p=2, c=1, continuous=True)),
    ("diagonal continuous siso factored", dense(912, n=2, continuous=True)),
]


@pytest.mark.parametrize(("name", "other"), PAIRS)
@pytest.mark.parametrize("horizon", [1, 6])
def test_inner_product_and_error_are_sums_over_the_kernels(name, other, horizon):
    sys = get(name)
    wanted = brute.inner(sys, other, horizon)
    scale = lqo.h2_norm(sys, horizon) * lqo.h2_norm(other, horizon)
    assert abs(lqo.h2_inner(sys, other, horizon) - wanted) < 1e-12 * scale
    assert abs(lqo.h2_inner(other, sys, horizon) - wanted.conj()) < 1e-12 * scale
    assert lqo.h2_error(sys, other, horizon) == pytest.approx(brute.error(sys, other, horizon), rel=1e-11)
    assert lqo.h2_error(sys, other, horizon, relative=True) * lqo.h2_norm(sys, horizon) == pytest.approx(
        lqo.h2_error(sys, other, horizon), rel=1e-13
    )


@pytest.mark.parametrize(("name", "other"), PAIRS[:10])
def test_infinite_error_is_the_limit(name, other):
    assert lqo.h2_error(get(name), other) == pytest.approx(brute.error(get(name), other, 200), rel=1e-11)


def test_errors_of_a_batch():
    a, b = diagonal(1, batch=(2, 3), m=2, c=1), diagonal(2, pairs=1, batch=(2, 3), m=2, c=2)
    errors = lqo.h2_error(a, b, 9, relative=True)
    assert errors.shape == (2, 3)
    for index in np.ndindex(2, 3):
        assert errors[index] == pytest.approx(brute.error(a[index], b[index], 9) / lqo.h2_norm(a[index], 9), rel=1e-11)


@parametrize(select(hard=False))
def test_error_to_itself_is_zero(sys):
    assert np.all(np.asarray(lqo.h2_error(sys, sys)) <= 1e-14 * np.asarray(lqo.h2_norm(sys)))
    assert np.all(np.asarray(lqo.h2_error(sys, sys, 7)) <= 1e-14 * np.asarray(lqo.h2_norm(sys)))


@parametrize(select(hard=False, linear=True))
@pytest.mark.parametrize(("size", "digits"), [(1e-3, 1e-8), (1e-6, 1e-6), (1e-9, 1e-4), (1e-12, 2e-2)])
@pytest.mark.parametrize("horizon", [None, 20])
def test_small_errors_of_linear_outputs_keep_digits(sys, size, digits, horizon, rng):
    change = rng.standard_normal(sys.C.shape) * np.abs(sys.C)
    perturbed = dataclasses.replace(sys, C=sys.C + size * change)
    exact = lqo.h2_norm(dataclasses.replace(sys, C=perturbed.C - sys.C, D=None), horizon)  # the difference is exact
    np.testing.assert_allclose(lqo.h2_error(sys, perturbed, horizon), exact, rtol=digits)


@pytest.mark.parametrize(
    "name", ["dense discrete mimo quadratic", "dense continuous siso quadratic", "dense complex discrete siso quadratic"]
)
@pytest.mark.parametrize(("size", "digits"), [(1e-6, 1e-6), (1e-9, 1e-4), (1e-12, 2e-2)])
def test_small_errors_of_quadratic_outputs_keep_digits(name, size, digits, rng):
    sys = get(name)
    change = rng.standard_normal(sys.M.shape) * sys.M
    perturbed = dataclasses.replace(sys, M=sys.M + size * (change + change.transpose(0, 2, 1)))
    exact = lqo.h2_norm(dataclasses.replace(sys, C=0 * sys.C, M=perturbed.M - sys.M))
    assert lqo.h2_error(sys, perturbed) == pytest.approx(exact, rel=digits)


def test_small_errors_of_factors_keep_digits():
    sys = get("diagonal discrete mimo factored")
    q = sys.M
    moved = lqo.QuadraticOutput(q.U, q.V, q.W * (1 + 1e-9))
    exact = lqo.h2_norm(dataclasses.replace(sys, C=0 * sys.C, M=lqo.QuadraticOutput(q.U, q.V, moved.W - q.W)))
    assert lqo.h2_error(sys, dataclasses.replace(sys, M=moved)) == pytest.approx(exact, rel=1e-4)


def test_feedthrough_counts_in_discrete_time_and_is_infinite_in_continuous_time():
    sys = get("dense discrete feedthrough")
    proper = dataclasses.replace(sys, D=None)
    assert lqo.h2_norm(sys) ** 2 == pytest.approx(lqo.h2_norm(proper) ** 2 + np.sum(sys.D**2), rel=1e-13)
    assert lqo.h2_error(sys, proper) == pytest.approx(np.linalg.norm(sys.D), rel=1e-12)
    analog = dense(1, continuous=True, feedthrough=True)
    assert lqo.h2_norm(analog) == np.inf
    assert lqo.h2_error(analog, dataclasses.replace(analog, D=None)) == np.inf
    rom = dataclasses.replace(analog, C=1.5 * analog.C)  # equal feedthrough cancels
    assert lqo.h2_error(analog, rom) == pytest.approx(0.5 * lqo.h2_norm(dataclasses.replace(analog, D=None)), rel=1e-12)


def test_relative_error_of_a_zero_system():
    zero = lqo.LQOSystem([[0.5]], [[1.0]], [[0.0]], dt=1.0)
    assert lqo.h2_norm(zero) == 0
    assert lqo.h2_error(zero, zero, relative=True) == 0
    assert lqo.h2_error(zero, lqo.LQOSystem([[0.5]], [[1.0]], [[1.0]], dt=1.0), relative=True) == np.inf


systems = st.builds(
    lambda seed, n, c: diagonal(seed, pairs=n, reals=1, m=2, p=2, c=c),
    st.integers(0, 10**6),
    st.integers(1, 3),
    st.integers(0, 2),
)


@given(systems, systems, systems)
@settings(max_examples=20, deadline=None)
def test_norm_axioms(a, b, c):
    ab, bc, ac = lqo.h2_error(a, b), lqo.h2_error(b, c), lqo.h2_error(a, c)
    assert ac <= (ab + bc) * (1 + 1e-12)
    assert abs(lqo.h2_norm(a) - lqo.h2_norm(b)) <= ab * (1 + 1e-12) + 1e-12
    assert abs(lqo.h2_inner(a, b)) <= lqo.h2_norm(a) * lqo.h2_norm(b) * (1 + 1e-12)
    assert lqo.h2_inner(a, b) == pytest.approx(lqo.h2_inner(b, a), rel=1e-10, abs=1e-12)
    assert ab == pytest.approx(lqo.h2_error(b, a), rel=1e-10, abs=1e-10)
    assert lqo.h2_norm(a, 5) <= lqo.h2_norm(a, 6) <= lqo.h2_norm(a)


@pytest.mark.parametrize(
    ("a", "b", "words"),
    [
        (dense(0, m=2), dense(0, m=1), "n_inputs: 2 and 1"),
        (dense(0, p=2), diagonal(0, p=3), "n_outputs: 2 and 3"),
        (diagonal(0, batch=(2,)), diagonal(0, batch=(3,)), r"batch: \(2,\) and \(3,\)"),
        (diagonal(0, batch=(2,)), dense(0), r"batch: \(2,\) and \(\)"),
    ],
)
def test_systems_that_do_not_fit(a, b, words):
    for function in (lqo.h2_inner, lqo.h2_error):
        with pytest.raises(DimensionError, match=words):
            function(a, b)


def test_continuous_and_discrete_do_not_compare():
    with pytest.raises(InvalidInputError, match="one system is continuous and the other discrete"):
        lqo.h2_error(dense(0), dense(0, continuous=True))


def test_unstable_reduced_systems_are_named():
    with pytest.raises(UnstableSystemError, match="spectral radius"):
        lqo.h2_error(dense(0), lqo.LQOSystem([[2.0]], [[1.0]], [[1.0]], dt=1.0))
    assert lqo.h2_error(dense(0), lqo.LQOSystem([[2.0]], [[1.0]], [[1.0]], dt=1.0), 4) == pytest.approx(
        brute.error(dense(0), lqo.LQOSystem([[2.0]], [[1.0]], [[1.0]], dt=1.0), 4), rel=1e-12
    )
