"""Sparse systems to files and toolboxes, files that lack matrices, and gains at the ends of the range."""

import warnings

import numpy as np
import pytest
import scipy.io
import scipy.sparse

import lqo_mor as lqo
from lqo_mor.errors import AssumptionWarning, InvalidInputError, OrderError
from lqo_mor.io import load_mat, load_system, save_mat, save_system, to_scipy
from lqo_mor.io.matrices import as_dense_system

N = 30
A = scipy.sparse.diags_array([np.full(N - 1, 1.0), np.full(N, -2.5), np.full(N - 1, 1.0)], offsets=[-1, 0, 1]).tocsc()
E = scipy.sparse.diags_array(np.linspace(1, 2, N)).tocsc()
MASS = scipy.sparse.diags_array(np.linspace(0.5, 1, N)).tocsc()
FACTORS = lqo.QuadraticOutput(np.ones((2, N)), np.arange(2.0 * N).reshape(2, N) / N, np.ones((1, 2)))


def sparse(M=None, mass=None, outputs=1):
    return lqo.SparseLQOSystem(A, np.ones((N, 1)), np.ones((outputs, N)), M=M, E=mass)


@pytest.mark.parametrize("suffix", [".npz", ".json"])
@pytest.mark.parametrize(("M", "outputs"), [(None, 1), ([MASS], 1), ([None, MASS], 2), (FACTORS, 1)])
@pytest.mark.parametrize("mass", [None, E])
def test_sparse_systems_in_our_files(tmp_path, suffix, M, outputs, mass):
    sys = sparse(M, mass, outputs)
    save_system(tmp_path / f"s{suffix}", sys)
    again = load_system(tmp_path / f"s{suffix}")
    assert isinstance(again, lqo.SparseLQOSystem)
    assert (again.A != sys.A).nnz == 0 and again.dt == sys.dt
    assert np.array_equal(again.B, sys.B) and np.array_equal(again.C, sys.C) and np.array_equal(again.D, sys.D)
    assert (again.E is None) == (mass is None)
    assert lqo.h2_norm(lqo.to_dense(again)) == lqo.h2_norm(lqo.to_dense(sys))


@pytest.mark.parametrize("change", ["indices", "indptr", "data", "M.7"])
def test_damaged_sparse_files(tmp_path, change):
    save_system(tmp_path / "s.npz", sparse([MASS]))
    with np.load(tmp_path / "s.npz") as file:
        fields = dict(file)
    if change == "M.7":
        fields |= {f"M.7.{part}": fields[f"M.0.{part}"] for part in ("data", "indices", "indptr")}
    else:
        fields[f"A.{change}"] = fields[f"A.{change}"][:-1] if change == "data" else fields[f"A.{change}"] * 1000
    np.savez(tmp_path / "bad.npz", **fields)
    with pytest.raises(InvalidInputError, match=r"bad\.npz"):
        load_system(tmp_path / "bad.npz")


@pytest.mark.parametrize("mass", [None, E])
@pytest.mark.parametrize("M", [None, [MASS]])
def test_sparse_systems_in_matlab_files(tmp_path, mass, M):
    sys = sparse(M, mass)
    save_mat(tmp_path / "s.mat", sys)
    again = load_mat(tmp_path / "s.mat")
    np.testing.assert_allclose(lqo.h2_norm(again), lqo.h2_norm(lqo.to_dense(sys)), rtol=1e-9)
    with pytest.raises(InvalidInputError, match="save_system"):
        save_mat(tmp_path / "t.mat", sparse(FACTORS))


@pytest.mark.parametrize("mass", [None, E])
def test_sparse_systems_as_dense_ones(mass):
    pytest.importorskip("pymor")
    np.testing.assert_allclose(lqo.h2_norm(as_dense_system(sparse([MASS], mass))), lqo.h2_norm(sparse([MASS], mass)), rtol=1e-9)
    np.testing.assert_allclose(lqo.h2_norm(as_dense_system(sparse(FACTORS, mass))), lqo.h2_norm(sparse(FACTORS, mass)), rtol=1e-9)
    assert to_scipy(sparse(None, mass)).A.shape == (N, N)
    with pytest.raises(InvalidInputError, match="no quadratic outputs"):
        to_scipy(sparse([MASS]))
    large = scipy.sparse.eye_array(5000, format="csc")
    with pytest.raises(InvalidInputError, match="5000 states"):
        to_scipy(lqo.SparseLQOSystem(-large, np.ones((5000, 1)), np.ones((1, 5000))))


def test_a_circuit_without_outputs(tmp_path):
    rng = np.random.default_rng(0)
    B = rng.standard_normal((3, 2))
    scipy.io.savemat(tmp_path / "c.mat", {"A": -np.eye(3, dtype=np.int32), "B": B})
    with pytest.warns(AssumptionWarning, match="transpose of B"):
        sys = load_mat(tmp_path / "c.mat")
    assert np.array_equal(sys.C, B.T) and sys.A.dtype == float


@pytest.mark.parametrize("names", ["MKDB", "MKEB"])
def test_a_hint_for_systems_of_second_order(tmp_path, names):
    scipy.io.savemat(tmp_path / "s.mat", {name: np.eye(3) for name in names})
    with pytest.raises(InvalidInputError, match=r"second order.*A = \[0 I; -K -D\]"):
        load_mat(tmp_path / "s.mat")


@pytest.mark.parametrize("kind", ["dense", "diagonal", "rotated"])
@pytest.mark.parametrize("quadratic", [False, True])
@pytest.mark.parametrize("size", [1e-120, 1e-60, 1e60, 1e120])
def test_gains_of_any_size(kind, quadratic, size):
    poles, C = np.array([-1.0, -2.0, -3.0]), np.array([[1.0, 1.0, -2.0]])
    M = lqo.QuadraticOutput([[1.0, 0.5, 0.2]], [[1.0, -0.5, 2.0]], [[1.0]]) if quadratic else None

    def build(b):
        c, m = 1 / b, b**-2
        factors = None if M is None else lqo.QuadraticOutput(M.U * c, M.V * c, M.W) if kind == "diagonal" else M.to_dense() * m
        if kind == "diagonal":
            return lqo.DiagonalLQOSystem(poles, np.full((3, 1), b), C * c, M=factors, dt=0)
        Q = np.linalg.qr(np.arange(9.0).reshape(3, 3) ** 0.5 + np.eye(3))[0] if kind == "rotated" else np.eye(3)
        forms = None if factors is None else Q @ factors @ Q.T
        return lqo.LQOSystem(Q @ np.diag(poles) @ Q.T, Q @ np.full((3, 1), b), C @ Q.T * c, M=forms, dt=0)

    b = 2.0 ** np.round(np.log2(size))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        one, other = build(1.0), build(b)
        np.testing.assert_allclose(lqo.h2_norm(other), lqo.h2_norm(one), rtol=1e-12)
        np.testing.assert_allclose(lqo.hankel_singular_values(other), lqo.hankel_singular_values(one), rtol=1e-9)
        for method in ("balanced", "optimal", "tsia"):
            got, wanted = (lqo.reduce(sys, 1, method=method).relative_error for sys in (other, one))
            np.testing.assert_allclose(got, wanted, rtol=1e-6)


@pytest.mark.parametrize("size", [1e-100, 1e100])
def test_responses_whose_square_is_out_of_range(size):
    sys = lqo.LQOSystem(-np.diag([1.0, 2.0]), np.full((2, 1), size), np.full((1, 2), size))
    for function in (lqo.h2_norm, lambda sys: lqo.reduce(sys, 1)):
        with pytest.raises(InvalidInputError, match="out of range"):
            function(sys)


def test_a_single_state():
    with pytest.raises(OrderError, match="nothing to reduce"):
        lqo.reduce(lqo.LQOSystem([[-1.0]], [[1.0]], [[1.0]]), 1)
