import numpy as np
import pytest
import scipy.sparse

import lqo_mor as lqo
from lqo_mor.errors import InvalidInputError, MissingDependencyError
from lqo_mor.io.pymor_models import from_pymor, to_pymor
from lqo_mor.systems.sparse import SparseLQOSystem
from tests.io.systems import FREQUENCIES, assert_close, assert_same_matrices, parametrize, points, random_system, response


def test_a_missing_library_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pymor.models.iosys", None)
    for convert in (to_pymor, from_pymor):
        with pytest.raises(MissingDependencyError, match=r"lqo-mor\[pymor\]"):
            convert(random_system(0.1))


@pytest.fixture
def iosys():
    """The module of pyMOR."""
    return pytest.importorskip("pymor.models.iosys")


def pymor_response(model, z):
    return np.stack([model.transfer_function.eval_tf(s) for s in z], axis=-1)


@pytest.mark.usefixtures("iosys")
@parametrize
def test_pymor_computes_the_same_transfer_function(sys):
    model = to_pymor(sys)
    z = points(sys.dt, FREQUENCIES)
    assert_close(pymor_response(model, z), response(sys, z), 1e-13)
    assert model.sampling_time == float(sys.dt)


@pytest.mark.usefixtures("iosys")
@parametrize
def test_there_and_back_changes_no_bit_and_true_becomes_one(sys):
    dense = lqo.to_dense(sys) if isinstance(sys, lqo.DiagonalLQOSystem) else sys
    wanted = lqo.LQOSystem(dense.A, dense.B, dense.C, dense.D, dt=float(dense.dt))
    assert_same_matrices(from_pymor(to_pymor(sys)), wanted)


@pytest.mark.usefixtures("iosys")
def test_complex_systems_are_kept(rng):
    A, B, C = (rng.standard_normal((3, 3)) + 1j * rng.standard_normal((3, 3)) for _ in range(3))
    sys = lqo.LQOSystem(A, B, C, dt=0)
    z = points(0, FREQUENCIES)
    model = to_pymor(sys)
    assert_close(pymor_response(model, z), response(sys, z), 1e-12)
    assert_same_matrices(from_pymor(model), sys)


@pytest.mark.parametrize("sampling_time", [0, 0.1])
@pytest.mark.parametrize("definite", [False, True])
def test_the_operator_e_is_solved_for(iosys, rng, sampling_time, definite):
    A, B, C, D = (rng.standard_normal(shape) for shape in ((7, 7), (7, 2), (3, 7), (3, 2)))
    E = rng.standard_normal((7, 7))
    E = scipy.sparse.csc_matrix(E @ E.T + np.eye(7)) if definite else E
    model = iosys.LTIModel.from_matrices(A, B, C, D, E, sampling_time=sampling_time)
    z = points(sampling_time, FREQUENCIES)
    sys = from_pymor(model)
    assert_close(response(sys, z), pymor_response(model, z), 1e-11)
    assert sys.dt == sampling_time


def test_a_model_reduced_by_pymor_comes_back(iosys):
    from pymor.reductors.bt import BTReductor

    model = BTReductor(to_pymor(random_system(0, n=12))).reduce(4)
    sys = from_pymor(model)
    assert sys.order == 4
    z = points(0, FREQUENCIES)
    assert_close(response(sys, z), pymor_response(model, z), 1e-12)


def test_a_port_hamiltonian_model_is_taken_for_what_it_inherits(iosys):
    rng = np.random.default_rng(4)
    J, R, Q = rng.standard_normal((3, 4, 4))
    J, R, Q, G = J - J.T, R @ R.T, Q @ Q.T + np.eye(4), rng.standard_normal((4, 2))
    model = iosys.PHLTIModel.from_matrices(J, R, G, Q=Q)  # whose to_matrices gives J, R, G and so on
    wanted = lqo.LQOSystem((J - R) @ Q, G, G.T @ Q, dt=0)
    z = points(0, FREQUENCIES)
    assert_close(response(from_pymor(model), z), response(wanted, z), 1e-12)


@pytest.mark.parametrize("sparse_name", ["A", "E"])
def test_a_large_sparse_model_stays_sparse(iosys, sparse_name):
    n = 200_000  # 300 GiB as a dense matrix
    eye = scipy.sparse.eye(n, format="csc")
    model = iosys.LTIModel.from_matrices(-eye, np.ones((n, 1)), np.ones((1, n)), E=2 * eye if sparse_name == "E" else None)
    sys = from_pymor(model)
    assert isinstance(sys, SparseLQOSystem) and abs(sys.A + eye).max() == 0
    assert sys.E is None if sparse_name == "A" else abs(sys.E - 2 * eye).max() == 0
    again = to_pymor(sys).to_matrices()
    assert abs(again[0] + eye).max() == 0 and scipy.sparse.issparse(again[0])
    assert (again[4] is None) == (sys.E is None)
    with pytest.raises(InvalidInputError, match="pyMOR has no quadratic outputs"):
        to_pymor(SparseLQOSystem(-eye, np.ones((n, 1)), M=[eye]))


def test_what_is_no_such_model_is_refused(iosys):
    one = np.array([[1.0]])
    second_order = iosys.SecondOrderModel.from_matrices(one, one, one, one, one)
    with pytest.raises(InvalidInputError, match=r"got SecondOrderModel.*to_lti"):
        from_pymor(second_order)
    wanted = pymor_response(second_order, points(0, FREQUENCIES))
    assert_close(response(from_pymor(second_order.to_lti()), points(0, FREQUENCIES)), wanted, 1e-13)
    with pytest.raises(InvalidInputError, match="got LQOSystem"):
        from_pymor(random_system(0))
    with pytest.raises(InvalidInputError, match="E is singular"):
        from_pymor(iosys.LTIModel.from_matrices(one, one, one, E=0 * one))


def test_a_parametric_model_is_refused_with_the_way_out(iosys):
    from pymor.operators.constructions import LincombOperator
    from pymor.operators.numpy import NumpyMatrixOperator
    from pymor.parameters.functionals import ProjectionParameterFunctional

    one = NumpyMatrixOperator(np.array([[1.0]]))
    A = LincombOperator([one], [ProjectionParameterFunctional("decay")])
    model = iosys.LTIModel(A, one, one)
    with pytest.raises(InvalidInputError, match="parameters decay; fix them"):
        from_pymor(model)
    mu = model.parameters.parse(-3.0)
    fixed = iosys.LTIModel.from_matrices(*model.to_matrices(mu=mu), sampling_time=model.sampling_time)
    assert from_pymor(fixed).A == [[-3.0]]


@pytest.mark.usefixtures("iosys")
def test_quadratic_outputs_are_refused():
    with pytest.raises(InvalidInputError, match="pyMOR has no quadratic outputs"):
        to_pymor(lqo.LQOSystem([[0.5]], [[1.0]], None, M=[[[1.0]]], dt=1.0))
