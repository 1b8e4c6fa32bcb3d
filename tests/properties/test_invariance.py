"""What must not change a number: coordinates, units, permutations, storage, threads; and that inputs are never written to."""

from __future__ import annotations

import itertools
import warnings

import numpy as np
import pytest
import scipy.sparse
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import lqo_mor as lqo
from lqo_mor.errors import LQOWarning
from tests import cases

CAREFUL = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
METHODS = ("balanced", "tsia", "modal", "optimal")


@st.composite
def dense(draw):
    """A dense stable system with poles well inside."""
    n, m, p, seed = draw(st.integers(2, 6)), draw(st.integers(1, 2)), draw(st.integers(1, 2)), draw(st.integers(0, 999))
    M = draw(st.sampled_from([None, "dense", 2]))
    return cases.dense(seed, n, m, p, M=M, continuous=draw(st.booleans()))


@st.composite
def diagonal(draw):
    """A diagonal stable system."""
    seed, real, pairs = draw(st.integers(0, 999)), draw(st.integers(1, 3)), draw(st.integers(0, 2))
    m, p, c = draw(st.integers(1, 2)), draw(st.integers(1, 2)), draw(st.integers(0, 2))
    return cases.diagonal(seed, real, pairs, m, p, c=c, continuous=draw(st.booleans()))


either = st.one_of(dense(), diagonal())


def horizon_of(sys, finite):
    return None if not finite else 12.5 if sys.is_continuous else 37


def numbers(sys, horizon):
    """What neither coordinates nor storage may change: norms, Hankel values, relative errors."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LQOWarning)
        out = [lqo.h2_norm(sys, horizon), *lqo.hankel_singular_values(sys, horizon)[:2]]
        rom = lqo.reduce(sys, 1, method="balanced", horizon=horizon)
        return np.array([*out, rom.error, rom.relative_error, lqo.h2_inner(sys, sys, horizon)])


def error_of(sys, order, method, horizon):
    """The error of a reduction; infinite where "modal" has no such order, which would split a pair."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LQOWarning)
        try:
            return lqo.reduce(sys, order, method=method, horizon=horizon).error
        except lqo.errors.InvalidInputError:
            assert method == "modal"
            return np.inf


def rebuilt(sys, **changed):
    """The same system with other arrays."""
    kind = {name: getattr(sys, name) for name in ("B", "C", "D", "M", "dt")}
    state = {"poles": sys.poles} if isinstance(sys, lqo.DiagonalLQOSystem) else {"A": sys.A}
    return type(sys)(**{**state, **kind, **changed})


def transformed(sys, T):
    """The dense system in the coordinates ``T x``."""
    inverse = np.linalg.inv(T)
    M = sys.M
    if isinstance(M, lqo.QuadraticOutput):
        M = lqo.QuadraticOutput(M.U @ inverse, M.V @ inverse, M.W)
    elif M is not None:
        M = inverse.T @ M @ inverse
        M = (M + M.transpose(0, 2, 1)) / 2
    return rebuilt(sys, A=T @ sys.A @ inverse, B=T @ sys.B, C=sys.C @ inverse, M=M)


@CAREFUL
@given(dense(), st.booleans(), st.integers(0, 999))
def test_similarity(sys, finite, seed):
    T = np.linalg.qr(np.random.default_rng(seed).standard_normal((sys.order,) * 2))[0]
    horizon = horizon_of(sys, finite)
    np.testing.assert_allclose(numbers(transformed(sys, T), horizon), numbers(sys, horizon), rtol=1e-8)


@CAREFUL
@given(dense(), st.booleans(), st.integers(-20, 20), st.integers(0, 999))
def test_units_of_states(sys, finite, most, seed):
    powers = np.random.default_rng(seed).integers(-abs(most), abs(most) + 1, sys.order) if most else np.zeros(sys.order, int)
    horizon = horizon_of(sys, finite)
    np.testing.assert_allclose(numbers(transformed(sys, np.diag(2.0**powers)), horizon), numbers(sys, horizon), rtol=1e-8)


@CAREFUL
@given(either, st.booleans(), st.integers(-20, 20), st.integers(-20, 20))
def test_units_of_inputs_and_outputs(sys, finite, inputs, outputs):
    """With a factor `a` on the inputs and `b` on the outputs; products of states see that of the inputs squared."""
    horizon, a, b = horizon_of(sys, finite), 10.0**inputs, 10.0**outputs
    if sys.M is not None:
        a = 1.0
    M = sys.M
    if isinstance(M, lqo.QuadraticOutput):
        M = lqo.QuadraticOutput(M.U, M.V, M.W * b)
    elif M is not None:
        M = M * b
    scaled = rebuilt(sys, B=sys.B * a, C=sys.C * b, D=sys.D * (a * b), M=M)
    got, wanted = numbers(scaled, horizon), numbers(sys, horizon)
    factors = np.array([a * b, a * b, a * b, a * b, 1.0, (a * b) ** 2])
    np.testing.assert_allclose(got / factors, wanted, rtol=1e-8)


@CAREFUL
@given(either, st.booleans(), st.integers(-20, 20))
def test_units_of_time(sys, finite, power):
    if not sys.is_continuous:
        return
    t, horizon = 10.0**power, horizon_of(sys, finite)
    state = {"poles": sys.poles * t} if isinstance(sys, lqo.DiagonalLQOSystem) else {"A": sys.A * t}
    scaled = rebuilt(sys, **state, B=sys.B * np.sqrt(t))
    got = numbers(scaled, None if horizon is None else horizon / t)
    got[1:3] *= np.sqrt(t)  # Hankel values, of which only one Gramian sees the factor of the inputs
    np.testing.assert_allclose(got, numbers(sys, horizon), rtol=1e-8)


@CAREFUL
@given(diagonal(), st.booleans(), st.randoms(use_true_random=False))
def test_order_of_the_poles(sys, finite, random):
    order, horizon = list(range(sys.n_slots)), horizon_of(sys, finite)
    random.shuffle(order)
    M = None if sys.M is None else lqo.QuadraticOutput(sys.M.U[:, order], sys.M.V[:, order], sys.M.W)
    other = rebuilt(sys, poles=sys.poles[order], B=sys.B[order], C=sys.C[:, order], M=M)
    np.testing.assert_allclose(numbers(other, horizon), numbers(sys, horizon), rtol=1e-9)


@CAREFUL
@given(either, st.booleans())
def test_order_of_inputs_and_outputs(sys, finite):
    horizon, M = horizon_of(sys, finite), sys.M
    if isinstance(M, lqo.QuadraticOutput):
        M = lqo.QuadraticOutput(M.U, M.V, M.W[::-1])
    elif M is not None:
        M = M[::-1]
    other = rebuilt(sys, B=sys.B[:, ::-1], C=sys.C[::-1], D=sys.D[::-1, ::-1], M=M)
    np.testing.assert_allclose(numbers(other, horizon), numbers(sys, horizon), rtol=1e-9)


@CAREFUL
@given(diagonal(), st.booleans())
def test_diagonal_and_dense(sys, finite):
    horizon = horizon_of(sys, finite)
    np.testing.assert_allclose(numbers(lqo.to_dense(sys), horizon), numbers(sys, horizon), rtol=1e-8)


@CAREFUL
@given(dense(), st.booleans())
def test_factored_and_dense_products(sys, finite):
    if not isinstance(sys.M, lqo.QuadraticOutput):
        return
    horizon = horizon_of(sys, finite)
    np.testing.assert_allclose(numbers(rebuilt(sys, M=sys.M.to_dense()), horizon), numbers(sys, horizon), rtol=1e-9)


@CAREFUL
@given(either)
def test_a_long_horizon_is_the_infinite_one(sys):
    long = 1e5 if sys.is_continuous else 100_000
    np.testing.assert_allclose(numbers(sys, long), numbers(sys, None), rtol=1e-8)


@CAREFUL
@given(either, st.booleans(), st.sampled_from(METHODS), st.sampled_from(["read-only", "Fortran", "list", "float32", "strided"]))
def test_storage(sys, finite, method, how):
    """Results do not depend on how arrays are stored, and arrays are never written to."""
    horizon = horizon_of(sys, finite)
    names = [name for name in ("A", "poles", "B", "C", "D") if hasattr(sys, name)]
    arrays = {name: np.array(getattr(sys, name)) for name in names}
    if how == "float32":
        arrays = {name: a.astype(np.complex64 if np.iscomplexobj(a) else np.float32) for name, a in arrays.items()}
        sys = rebuilt(sys, **{name: a.astype(complex if np.iscomplexobj(a) else float) for name, a in arrays.items()})
    elif how == "Fortran":
        arrays = {name: np.asfortranarray(a) for name, a in arrays.items()}
    elif how == "strided":
        arrays = {name: np.repeat(a, 2, axis=-1)[..., ::2] for name, a in arrays.items()}
    elif how == "list":
        arrays = {name: a.tolist() for name, a in arrays.items()}
    else:
        for a in arrays.values():
            a.flags.writeable = False
    before = {name: np.array(a) for name, a in arrays.items()}
    other = rebuilt(sys, **arrays)
    got, wanted = (error_of(s, 1, method, horizon) for s in (other, sys))
    np.testing.assert_allclose(got, wanted, rtol=1e-12)
    for name, a in before.items():
        np.testing.assert_array_equal(np.array(arrays[name]), a)


@CAREFUL
@given(either, st.booleans(), st.sampled_from(METHODS))
def test_errors(sys, finite, method):
    """The error of a reduction is that of its system, at most that of no system at all."""
    horizon = horizon_of(sys, finite)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LQOWarning)
        for order in range(1, sys.order):
            try:
                red = lqo.reduce(sys, order, method=method, horizon=horizon)
            except lqo.errors.InvalidInputError:  # "modal" has no order that splits a pair
                assert method == "modal"
                continue
            np.testing.assert_allclose(lqo.h2_error(sys, red.system, horizon), red.error, rtol=1e-12)
            assert red.relative_error <= 1 + 1e-9


@CAREFUL
@given(either, st.booleans())
def test_optimal_is_best_and_gets_better_with_the_order(sys, finite):
    horizon = horizon_of(sys, finite)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LQOWarning)
        size = lqo.h2_norm(sys, horizon)
        curve = lqo.reduce(sys, orders=range(1, sys.order), horizon=horizon)
        errors = [red.error for red in curve.reductions["optimal"]]
        for one, two in itertools.pairwise(errors):
            assert two <= one * (1 + 1e-9) + 1e-12 * size
        for method in ("balanced", "tsia", "modal"):
            for order in range(1, sys.order):
                best, other = (error_of(sys, order, name, horizon) for name in ("optimal", method))
                assert best <= other * (1 + 1e-6) + 1e-12 * size


@pytest.mark.parametrize("continuous", [False, True])
def test_sparse_matrices_are_read_as_dense_ones(continuous):
    sys = cases.dense(3, 5, 1, 1, continuous=continuous)
    other = lqo.LQOSystem(scipy.sparse.csr_matrix(sys.A).toarray(), sys.B, sys.C, dt=sys.dt)
    np.testing.assert_array_equal(numbers(other, None), numbers(sys, None))
