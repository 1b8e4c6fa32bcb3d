"""Matrices far from normal: doubling in Schur coordinates, where rounding cannot bring back what has decayed.

A square is off by ``ε ‖A^k‖²`` in every direction. Where powers grow before they decay, that is left when the true power has
vanished, and further squares amplify it. In Schur coordinates powers stay triangular with the right eigenvalues, and what
rounding adds decays with them. The decomposition costs as much as some ten squares, so it is made only for those matrices.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import scipy.linalg

from lqo_mor.matrix_equations.residuals import frobenius

_EPS = float(np.finfo(float).eps)
_GROWTH = 1.5  # of a power against a unitary matrix, in the Frobenius norm, from which errors are more than those of a normal one
_MOST_NOISE = 1e-9  # of a power that has grown


class FarFromNormal(ArithmeticError):
    """Powers grow before they decay: what is being computed needs Schur coordinates."""


class Watch:
    """Follows the error of repeated squares: ``e ← 2 ‖A‖ e + ε ‖A‖²``, which of a normal stable matrix only doubles."""

    __slots__ = ("largest", "noise", "watched")

    def __init__(self, watched: bool) -> None:
        self.watched, self.largest, self.noise = watched, 0.0, 0.0

    def __call__(self, power: np.ndarray) -> np.ndarray:
        """`power`, if its square is as good as that of a normal matrix or is not watched; else raise `FarFromNormal`."""
        if self.watched:
            size = frobenius(power) / math.sqrt(len(power))
            if size > self.largest:
                self.largest = size
            self.noise = size * (2 * self.noise + _EPS * size)
            if self.largest > _GROWTH and not self.noise < _MOST_NOISE:
                raise FarFromNormal
        return power


def solve_in_schur_basis(
    solve: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray], A: np.ndarray, B: np.ndarray, Q: np.ndarray
) -> np.ndarray:
    """``X = solve(A, B, Q)`` for an equation of the form ``Σ f_k(A) Q f_k(B)ᴴ``, by triangular coefficients."""
    T, U = scipy.linalg.schur(A, output="complex")
    S, V = (T, U) if B is A else scipy.linalg.schur(B, output="complex")
    X = U @ solve(T, S, U.conj().T @ Q @ V) @ V.conj().T
    return X if np.iscomplexobj(Q) else X.real


def factor_in_schur_basis(factor: Callable[[np.ndarray, np.ndarray], np.ndarray], A: np.ndarray, B: np.ndarray) -> np.ndarray:
    """``R = factor(A, B)`` of a Gramian ``R Rᴴ = Σ f_k(A) B Bᴴ f_k(A)ᴴ``, by a triangular coefficient; real for real ones."""
    T, U = scipy.linalg.schur(A, output="complex")
    R = U @ factor(T, U.conj().T @ B)
    return R if np.iscomplexobj(A) else np.hstack([R.real, R.imag])
