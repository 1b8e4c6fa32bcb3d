"""``E ẋ = A x + B u`` without `E`, against responses of the pencil in 50 digits."""

import mpmath
import numpy as np
import pytest

import lqo_mor as lqo
from lqo_mor.errors import AccuracyWarning, DimensionError, InvalidInputError
from lqo_mor.systems.descriptor import without_descriptor
from tests.io.systems import assert_close, response

N, M, P = 6, 2, 3


def pencil_response(sys, E, z):
    """``C (z E − A)⁻¹ B + D`` in 50 digits."""
    with mpmath.workdps(50):
        A, B, C, E = (mpmath.matrix(matrix.tolist()) for matrix in (sys.A, sys.B, sys.C, E))
        value = C * (z * E - A) ** -1 * B
        return np.array(value.tolist(), complex).reshape(sys.n_outputs, sys.n_inputs) + sys.D


def system(rng, is_complex=False, M_dense=None, symmetric=False):
    def normal(*shape):
        return rng.standard_normal(shape) + (1j * rng.standard_normal(shape) if is_complex else 0)

    A = normal(N, N)
    A = A + A.conj().T if symmetric else A
    return lqo.LQOSystem(A, normal(N, M), normal(P, N), normal(P, M), M_dense, dt=0)


def positive(rng, is_complex=False):
    R = rng.standard_normal((N, N)) + (1j * rng.standard_normal((N, N)) if is_complex else 0)
    return R @ R.conj().T + np.eye(N)


Z = 0.3 + 0.8j


@pytest.mark.parametrize("is_complex", [False, True])
@pytest.mark.parametrize("kind", ["positive", "negative", "general", "nearly symmetric", "permutation"])
def test_the_transfer_function_is_that_of_the_pencil(rng, is_complex, kind):
    sys = system(rng, is_complex)
    E = {
        "positive": positive(rng, is_complex),
        "negative": -positive(rng, is_complex),
        "general": rng.standard_normal((N, N)) + (1j * rng.standard_normal((N, N)) if is_complex else 0),
        "nearly symmetric": positive(rng, is_complex) + 1e-10 * rng.standard_normal((N, N)),
        "permutation": np.eye(N)[::-1],
    }[kind]
    explicit = without_descriptor(sys, E)
    assert_close(response(explicit, [Z])[..., 0], pencil_response(sys, E, Z), 1e-12)
    assert explicit.dt == 0
    assert explicit.is_real != is_complex


def test_a_positive_definite_matrix_keeps_the_symmetry(rng):
    for is_complex in (False, True):
        sys, E = system(rng, is_complex, symmetric=True), positive(rng, is_complex)
        A = without_descriptor(sys, E).A
        np.testing.assert_array_equal(A, A.conj().T)
        pencil = np.sort(np.linalg.eigvals(np.linalg.solve(E, sys.A)).real)
        assert_close(np.linalg.eigvalsh(A), pencil, 1e-11)


@pytest.mark.parametrize("is_complex", [False, True])
@pytest.mark.parametrize("definite", [False, True])
def test_quadratic_outputs_are_the_same_function_of_the_input(rng, is_complex, definite):
    quadratic = rng.standard_normal((P, N, N)) + (1j * rng.standard_normal((P, N, N)) if is_complex else 0)
    quadratic = quadratic + quadratic.transpose(0, 2, 1)
    sys = system(rng, is_complex, quadratic)
    E = positive(rng, is_complex) if definite else rng.standard_normal((N, N))
    explicit = without_descriptor(sys, E)
    u = rng.standard_normal(M)
    x = np.linalg.solve(Z * E - sys.A, sys.B @ u)  # the states at one frequency, and from them yᵢ = xᵀ Mᵢ x
    own = np.linalg.solve(Z * np.eye(N) - explicit.A, explicit.B @ u)
    wanted = np.array([x @ matrix @ x for matrix in quadratic])
    assert_close(np.array([own @ matrix @ own for matrix in explicit.M]), wanted, 1e-11)


@pytest.mark.parametrize("definite", [False, True])
def test_bad_scaling_alone_costs_no_digits_and_no_warning(rng, definite):
    rows = 10.0 ** rng.integers(-30, 30, N)
    columns = rows if definite else 10.0 ** rng.integers(-30, 30, N)
    E = positive(rng) if definite else rng.standard_normal((N, N))
    plain = system(rng)
    scaled = (rows[:, np.newaxis] * plain.A * columns, rows[:, np.newaxis] * plain.B, plain.C * columns)
    explicit = without_descriptor(lqo.LQOSystem(*scaled, dt=0), rows[:, np.newaxis] * E * columns)
    wanted = without_descriptor(plain, E)
    undo = np.ones(N) if definite else columns  # the states Lᴴ x are the same, the states x are those of the scaled system
    assert_close(undo[:, np.newaxis] * explicit.A / undo, wanted.A, 1e-12)
    assert_close(undo[:, np.newaxis] * explicit.B, wanted.B, 1e-12)
    assert_close(explicit.C / undo, wanted.C, 1e-12)


def graded(definite, smallest):
    """A full matrix with singular values from 1 to `smallest`, which no scaling of rows and columns removes."""
    Q, _ = np.linalg.qr(np.random.default_rng(3).standard_normal((N, N)))
    R, _ = np.linalg.qr(np.random.default_rng(4).standard_normal((N, N)))
    E = (Q * np.geomspace(1, smallest, N)) @ (Q.T if definite else R)
    return 0.5 * (E + E.T) if definite else E


@pytest.mark.parametrize("definite", [False, True])
def test_an_ill_conditioned_matrix_warns_with_its_condition_number(rng, definite):
    E = graded(definite, 1e-11)
    sys = system(rng)
    with pytest.warns(AccuracyWarning, match="condition number") as caught:
        explicit = without_descriptor(sys, E)
    number = float(str(caught[0].message).split("condition number ")[1].split(";")[0])
    assert 1e9 < number < 1e13
    wanted = pencil_response(sys, E, Z)
    error = np.abs(response(explicit, [Z])[..., 0] - wanted).max() / np.abs(wanted).max()
    assert error < number * 1e-15
    without_descriptor(sys, graded(definite, 1e-6))  # no warning


@pytest.mark.parametrize(
    "E",
    [
        np.zeros((N, N)),
        np.diag([1.0, 1, 1, 1, 1, 0]),
        np.ones((N, N)),
        graded(True, 1e-18),
        graded(False, 1e-18),
        np.diag(np.ones(N - 1), 1),
    ],
)
def test_a_singular_matrix_is_refused(rng, E):
    with pytest.raises(InvalidInputError, match="E is singular"):
        without_descriptor(system(rng), E)


def test_the_shape_is_checked(rng):
    with pytest.raises(DimensionError, match=r"E has shape \(5, 5\)"):
        without_descriptor(system(rng), np.eye(5))
    with pytest.raises(InvalidInputError, match="E has 1 entries that are not finite"):
        without_descriptor(system(rng), np.diag([np.nan, 1, 1, 1, 1, 1]))
