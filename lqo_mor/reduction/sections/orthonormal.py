"""Reduced systems in orthonormal coordinates: given poles of a system with one input, Gramian the identity, outputs optimal.

In these coordinates the optimal outputs are plain products, ``C_r = C X`` and ``M_r = Xᵀ M X`` with the cross Gramian `X`, and
poles may meet without residues that grow and cancel (Takenaka, Malmquist; the sections are all-pass and orthogonal).
"""

from __future__ import annotations

import numpy as np
import scipy.linalg

from lqo_mor.analysis.gramians import gramian_factors
from lqo_mor.analysis.norm import Norm
from lqo_mor.analysis.rows import stack_rows
from lqo_mor.errors import InvalidInputError
from lqo_mor.systems.convert import diagonalised
from lqo_mor.systems.dense import LQOSystem
from lqo_mor.systems.diagonal import DiagonalLQOSystem
from lqo_mor.systems.quadratic import QuadraticOutput, projected
from lqo_mor.systems.system import System

_KEPT = (1e-12, 1e-9, 1e-7, 1e-5)  # Hankel singular values, relative to the largest, that an image keeps
_CONDITION = 1e9  # of the modes of an image; it is searched, not believed


def input_normal(poles: np.ndarray, continuous: bool) -> tuple[np.ndarray, np.ndarray]:
    """State matrix (r, r) and input (r, 1) of given poles in half storage, with the Gramian I; theory, eq. (6.17)."""
    A, B, C, D = np.zeros((0, 0)), np.zeros((0, 1)), np.zeros((1, 0)), np.ones((1, 1))
    for pole in sorted(poles, key=abs):
        a, b, c, d = _section(pole, continuous)
        A = np.block([[A, np.zeros((A.shape[0], a.shape[0]))], [b @ C, a]])
        B, C, D = np.vstack([B, b @ D]), np.hstack([d @ C, c]), d @ D
    return A, B


def _section(pole: complex, continuous: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """One pair or real pole as an all-pass system with the identity as both Gramians."""
    if pole.imag:
        scale = max(abs(pole.imag), abs(pole.real) if continuous else 1 - abs(pole))
        a = np.array([[pole.real, -(pole.imag**2) / scale], [scale, pole.real]])
        b = np.array([[1.0], [0.0]])
    else:
        a, b = np.array([[pole.real]]), np.ones((1, 1))
    gramian = (
        scipy.linalg.solve_continuous_lyapunov(a, -b @ b.T) if continuous else scipy.linalg.solve_discrete_lyapunov(a, b @ b.T)
    )
    root = np.linalg.cholesky(gramian)
    a, b = scipy.linalg.solve_triangular(root, a @ root, lower=True), scipy.linalg.solve_triangular(root, b, lower=True)
    if continuous:
        return a, b, -b.T, np.ones((1, 1))
    rest = scipy.linalg.null_space(np.hstack([a, b])).T
    return a, b, rest[:, :-1], rest[:, -1:]


def cross_rows(full: DiagonalLQOSystem, rows: np.ndarray, A: np.ndarray, B: np.ndarray) -> np.ndarray:
    """``rows X`` (q, r) with the cross Gramian of a diagonal system with one input and a small dense one; theory, eq. (6.18)."""
    T, basis = scipy.linalg.schur(A.T, output="complex")
    right = (B.T @ basis)[0]
    lam, b = full.poles, full.B[:, 0]
    Y = np.empty((lam.size, right.size), complex)
    for j in range(right.size):
        known = Y[:, :j] @ T[:j, j]
        if full.is_continuous:
            Y[:, j] = -(b * right[j] + known) / (lam + T[j, j])
        else:
            Y[:, j] = (b * right[j] + lam * known) / (1 - lam * T[j, j])
    X = Y @ basis.conj().T
    return ((rows * np.where(full.is_real_pole, 1.0, 2.0)) @ X).real


def realise(full: System, poles: np.ndarray, norm: Norm) -> LQOSystem:
    """The dense system of given poles whose outputs are optimal for `full`, with one input, over all time, in its norm."""
    A, B = input_normal(poles, full.is_continuous)
    if isinstance(full, LQOSystem):
        X = norm.solve(full.A, A, full.B @ B.T)
        return LQOSystem(A, B, full.C @ X, full.D, projected(full.M, X), full.dt)
    rows, p, q = cross_rows(full, stack_rows(full.C, full.M), A, B), full.n_outputs, full.M
    M = None if q is None else QuadraticOutput(rows[p : p + q.rank], rows[p + q.rank :], q.W)
    return LQOSystem(A, B, rows[:p], full.D, M, full.dt)


def diagonal_image(sys: LQOSystem, norm: Norm) -> DiagonalLQOSystem | None:
    """A balanced truncation by its modes, of the largest order at which they are a basis; None if there is none."""
    R, S = gramian_factors(sys, norm)
    Z, hsv, Yt = np.linalg.svd(S.T @ R, full_matrices=False)
    for kept in _KEPT:
        k = int(np.count_nonzero(hsv > kept * hsv[0]))
        V, W = R @ Yt[:k].T, S @ Z[:, :k] / hsv[:k]
        M = projected(sys.M, V)
        try:
            image, condition = diagonalised(LQOSystem(W.T @ sys.A @ V, W.T @ sys.B, sys.C @ V, None, M, sys.dt))
        except InvalidInputError:
            continue
        if condition < _CONDITION:
            return image
    return None
