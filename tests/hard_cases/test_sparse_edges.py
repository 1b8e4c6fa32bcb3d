"""Sparse systems that are unstable anywhere in the spectrum, or lightly damped."""

import numpy as np
import pytest
import scipy.sparse

import lqo_mor as lqo
from lqo_mor.errors import InvalidInputError, UnstableSystemError
from lqo_mor.matrix_equations.low_rank import residual_norm

pytest.importorskip("pymor")


def chain(masses, damping):
    """Masses and springs, damped in proportion to both, a force at one end and the position of the other one."""
    n = masses
    K = scipy.sparse.diags_array([np.full(n - 1, -1.0), np.full(n, 2.0), np.full(n - 1, -1.0)], offsets=[-1, 0, 1])
    identity = scipy.sparse.eye_array(n)
    A = scipy.sparse.block_array([[None, identity], [-K, -damping * (0.04 * identity + 0.05 * K)]]).tocsc()
    B, C = np.zeros((2 * n, 1)), np.zeros((1, 2 * n))
    B[n], C[0, n - 1] = 1, 1
    return lqo.SparseLQOSystem(A, B, C)


@pytest.mark.parametrize("pole", [1e-3, 0.1, 5.0, 2e4])
@pytest.mark.parametrize("pair", [False, True])
def test_an_unstable_pole_anywhere_is_found(pole, pair):
    """The Gramian of some had a residual of 0.0: infinity divided by itself."""
    n = 200
    d = -np.logspace(-2, 4, n)
    A = scipy.sparse.diags_array(d).tolil()
    k = n // 2
    A[k, k] = pole * (1e-2 if pair else 1.0)
    if pair:
        A[k + 1, k + 1], A[k, k + 1], A[k + 1, k] = pole * 1e-2, pole, -pole
    sys = lqo.SparseLQOSystem(A.tocsc(), np.ones((n, 1)), np.ones((1, n)))
    with pytest.raises(UnstableSystemError, match="is one"):
        lqo.controllability_gramian(sys)


def test_a_residual_that_overflows_is_infinite():
    A = scipy.sparse.eye_array(3, format="csc")
    assert residual_norm(A, None, np.ones((3, 1)), np.full((3, 1), 1e200)) == np.inf


def test_a_lightly_damped_chain_takes_as_many_steps_as_it_needs():
    sys = chain(150, 0.3)
    P = lqo.controllability_gramian(sys)
    assert P.residual < 1e-8
    np.testing.assert_allclose(lqo.h2_norm(sys, controllability=P), lqo.h2_norm(lqo.to_dense(sys)), rtol=1e-7)


def test_sparse_systems_made_dense():
    sys = chain(20, 0.5)
    dense = lqo.to_dense(sys)
    assert np.array_equal(dense.A, sys.A.toarray())
    large = scipy.sparse.eye_array(5000, format="csc")
    with pytest.raises(InvalidInputError, match=r"5000 states.*lqo\.balance"):
        lqo.to_dense(lqo.SparseLQOSystem(-large, np.ones((5000, 1)), np.ones((1, 5000))))
