"""Dense systems with one input whose modes are no basis: a search among the modes of a balanced truncation that has them."""

from __future__ import annotations

import numpy as np

from lqo_mor.analysis.gramians import gramian_factors
from lqo_mor.errors import InvalidInputError
from lqo_mor.matrix_equations.lyapunov import solve_lyapunov
from lqo_mor.matrix_equations.stein import solve_stein
from lqo_mor.reduction.sections.orthonormal import input_normal
from lqo_mor.systems.convert import diagonalised
from lqo_mor.systems.dense import LQOSystem
from lqo_mor.systems.diagonal import DiagonalLQOSystem
from lqo_mor.systems.quadratic import projected

_KEPT = (1e-12, 1e-9, 1e-7, 1e-5)  # Hankel singular values, relative to the largest, that an image keeps
_CONDITION = 1e9  # of the modes of an image; it is searched, not believed


def diagonal_image(sys: LQOSystem) -> DiagonalLQOSystem | None:
    """A balanced truncation by its modes, of the largest order at which they are a basis; None if there is none."""
    R, S = gramian_factors(sys, None)
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


def realise_dense(sys: LQOSystem, poles: np.ndarray) -> LQOSystem:
    """The dense system of given poles in orthonormal coordinates with optimal outputs, over all time."""
    A, B = input_normal(poles, sys.is_continuous)
    solve = solve_lyapunov if sys.is_continuous else solve_stein
    X = solve(sys.A, A, sys.B @ B.T)
    return LQOSystem(A, B, sys.C @ X, sys.D, projected(sys.M, X), sys.dt)
