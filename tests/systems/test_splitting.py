"""Stable and unstable parts: their sum is the system, whatever lies on the boundary."""

import numpy as np
import pytest
import scipy.linalg

import lqo_mor as lqo
from lqo_mor.systems.splitting import split_stable

DOUBLE = np.array([[0.0, 1.0], [0.0, 0.0]])
CASES = [
    (np.diag([1.05, 0.9, 0.5, -0.4]), 1.0, 1),
    (scipy.linalg.block_diag(np.eye(2) + DOUBLE, 0.5, -0.3), 1.0, 2),
    (scipy.linalg.block_diag(DOUBLE, -1.0, -2.0), 0, 2),
    (np.diag([0.0, -1.0]), 0, 1),
    (scipy.linalg.block_diag([[0.6, 0.8], [-0.8, 0.6]], 0.2), 1.0, 2),
    (np.diag([1 - 1e-12, 0.5]), 1.0, 0),
    (np.diag([2.0, 1.0]), 0, 2),
]


@pytest.mark.parametrize(("A", "dt", "count"), CASES)
def test_parts_add_up(A, dt, count):
    n, rng = A.shape[0], np.random.default_rng(1)
    Q = np.linalg.qr(rng.standard_normal((n, n)))[0]
    M = rng.standard_normal((1, n, n))
    sys = lqo.LQOSystem(Q @ A @ Q.T, rng.standard_normal((n, 1)), rng.standard_normal((1, n)), M=M + M.transpose(0, 2, 1), dt=dt)
    split = split_stable(sys)
    assert (split.unstable.order if split.unstable else 0) == count
    parts = [part for part in (split.stable, split.unstable) if part is not None]
    V = np.hstack([split.V_s, split.V_u])
    joined, B = scipy.linalg.block_diag(*(part.A for part in parts)), np.vstack([part.B for part in parts])
    np.testing.assert_allclose(V @ joined, sys.A @ V, atol=1e-12)
    np.testing.assert_allclose(V @ B, sys.B, atol=1e-12)
