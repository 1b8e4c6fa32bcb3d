"""A system is checked once, at the door, and no method takes a decomposition of it that it does not need."""

import numpy as np
import pytest
import scipy.linalg

import lqo_mor as lqo
from lqo_mor.analysis.norm import HorizonNorm
from tests.cases import dense

SISO, MIMO = dense(3, n=40), dense(4, n=40, m=2, p=2, M=2)
# Beside the eigenvalues that say whether the system is stable: its modes for the search and for two-sided steps.
DECOMPOSITIONS = {
    ("balanced", "siso"): 1,
    ("balanced", "mimo"): 1,
    ("optimal", "siso"): 2,
    ("tsia", "siso"): 2,
    ("tsia", "mimo"): 2,
    ("irka", "siso"): 2,
    ("modal", "siso"): 2,
    ("hippo", "siso"): 2,
}


@pytest.fixture
def counted(monkeypatch):
    """Checks of a norm, and decompositions of matrices of the full order."""
    counts = {"checks": [], "decompositions": 0}
    check = HorizonNorm.check

    def checked(self, sys):
        counts["checks"].append(int(np.max(sys.order)))
        check(self, sys)

    def counting(function):
        def wrapped(A, *args, **kwargs):
            counts["decompositions"] += np.shape(A) == (40, 40)
            return function(A, *args, **kwargs)

        return wrapped

    monkeypatch.setattr(HorizonNorm, "check", checked)
    for module, name in ((np.linalg, "eigvals"), (np.linalg, "eig"), (scipy.linalg, "eig"), (scipy.linalg, "schur")):
        monkeypatch.setattr(module, name, counting(getattr(module, name)))
    return counts


@pytest.mark.parametrize(("method", "kind"), DECOMPOSITIONS)
@pytest.mark.parametrize("horizon", [None, 50])
def test_checks_and_decompositions(counted, method, kind, horizon):
    if method == "irka" and horizon:
        pytest.skip("for all time only")
    sys = SISO if kind == "siso" else MIMO
    lqo.reduce(sys, order=6, method=method, horizon=horizon)
    assert counted["checks"].count(40) == 1
    limit = horizon is not None and method in (
        "tsia",
        "optimal",
    )  # of poles within the horizon, by the full ones
    assert counted["decompositions"] <= DECOMPOSITIONS[method, kind] + limit


def test_a_direct_method_makes_two_checks(counted):
    lqo.reduce(SISO, order=6, method="balanced")
    assert counted["checks"] == [40, 6]
