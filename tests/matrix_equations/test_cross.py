"""The fused kernels of cross Gramians, serial and parallel, against products of inputs and pairings."""

import numpy as np
import pytest

from lqo_mor.matrix_equations import pairing as pairing_module
from lqo_mor.matrix_equations import pairing_kernels
from lqo_mor.matrix_equations.pairing import pairing, solve_diagonal
from tests.cases import normal

NORMS = [pairing(False), pairing(False, 1), pairing(False, 50), pairing(True), pairing(True, 0.3)]


def sets(rng, norm, shape, m):
    poles = rng.uniform(0.2, 0.999, shape) * np.exp(1j * rng.uniform(-3, 3, shape))
    return (np.log(poles) if norm.code >= pairing_kernels.CONTINUOUS else poles), normal(rng, (*shape, m), True)


@pytest.mark.parametrize("norm", NORMS, ids=str)
@pytest.mark.parametrize(("batch", "n", "r", "m"), [((), 7, 4, 1), ((), 3, 9, 3), ((5,), 4, 6, 2), ((2, 3), 1, 2, 1)])
@pytest.mark.parametrize("threads", [False, True])
def test_products_of_inputs_and_pairings(monkeypatch, norm, batch, n, r, m, threads):
    monkeypatch.setattr(pairing_module, "_WORTH_THREADS", 0 if threads else 10**9)
    rng = np.random.default_rng(0)
    (lam, B), (mu, B_r) = sets(rng, norm, (*batch, n), m), sets(rng, norm, (*batch, r), m)
    wanted = (B @ np.swapaxes(B_r, -1, -2)) * norm.outer(lam, mu)
    np.testing.assert_allclose(solve_diagonal(norm, lam, B, mu, B_r), wanted, rtol=1e-13, atol=1e-14)


def test_one_set_of_poles_is_taken_with_a_batch_of_others():
    rng = np.random.default_rng(1)
    (lam, B), (mu, B_r) = sets(rng, NORMS[0], (4,), 1), sets(rng, NORMS[0], (3, 2), 1)
    X = solve_diagonal(NORMS[0], lam, B, mu, B_r)
    for h in range(3):
        np.testing.assert_allclose(X[h], solve_diagonal(NORMS[0], lam, B, mu[h], B_r[h]), rtol=1e-14)


def test_entries_next_to_the_boundary_keep_their_digits():
    """``1 − λμ`` is a difference of 1e-12, which a single rounding of the product would spoil in the fifth digit."""
    lam = np.array([1 - 1e-12, 0.5, (1 - 1e-12) * np.exp(1j)])
    B = np.ones((3, 1), complex)
    X = solve_diagonal(pairing(False), lam, B, lam.conj(), B)
    gap = 1 - (1 - 1e-12)  # as stored
    np.testing.assert_allclose(X[0, 0].real, 1 / (2 * gap - gap**2), rtol=1e-14)
    np.testing.assert_allclose(X, (B @ B.T) * pairing(False).outer(lam, lam.conj()), rtol=1e-15)
