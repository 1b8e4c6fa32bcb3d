"""The worst conditioned systems of the SLICOT collection: residuals of both Gramians, Hankel singular values."""

import numpy as np
import pytest
import scipy.io
import scipy.sparse

from lqo_mor import LQOSystem, controllability_gramian, h2_norm, hankel_singular_values, observability_gramian
from lqo_mor.analysis.door import norm_of
from lqo_mor.analysis.gramians import gramian_factors
from lqo_mor.matrix_equations.residuals import lyapunov_residual
from tests.conftest import SHARED_DATA

FILES = ["CDplayer", "heat-cont", "iss1R", "build"]


@pytest.fixture(scope="module", params=FILES)
def system(request):
    path = SHARED_DATA / "slicot" / f"{request.param}.mat"
    if not path.is_file():
        pytest.skip("the SLICOT systems are not there: no folder shared/data/slicot beside the repository")
    data = scipy.io.loadmat(path)
    A, B, C = (data[key].toarray() if scipy.sparse.issparse(data[key]) else data[key] for key in "ABC")
    hsv = np.sort(np.ravel(data["hsv"]))[::-1] if "hsv" in data else None
    return LQOSystem(*(np.asarray(X, float) for X in (A, B, C)), dt=0), hsv


def test_residuals_of_the_gramians(system):
    sys, _ = system
    P, Q = controllability_gramian(sys), observability_gramian(sys)
    assert lyapunov_residual(sys.A, sys.A, sys.B @ sys.B.T, P) < 1e-13
    assert lyapunov_residual(sys.A.T, sys.A.T, sys.C.T @ sys.C, Q) < 1e-13
    R, S = gramian_factors(sys, norm_of(sys))
    assert lyapunov_residual(sys.A, sys.A, sys.B @ sys.B.T, R @ R.T) < 1e-13
    assert lyapunov_residual(sys.A.T, sys.A.T, sys.C.T @ sys.C, S @ S.T) < 1e-13


def test_hankel_singular_values(system):
    sys, reference = system
    found = hankel_singular_values(sys)
    assert found.shape == (sys.order,)
    assert np.all(np.isfinite(found))
    assert np.all(found >= 0)
    assert np.all(np.diff(found) <= 0)
    if reference is not None:
        large = reference > 1e-8 * reference[0]
        np.testing.assert_allclose(found[large], reference[large], rtol=1e-6)


def test_the_norm_from_both_gramians(system):
    sys, _ = system
    dual = np.sqrt(np.trace(sys.B.T @ observability_gramian(sys) @ sys.B))
    assert h2_norm(sys) == pytest.approx(dual, rel=1e-9)
