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

_GROWTH = 10.0  # of a power against a unitary matrix, in the Frobenius norm; its square is then off by 100 n units roundoff


class FarFromNormal(ArithmeticError):
    """Powers grow before they decay: what is being computed needs Schur coordinates."""


def watch(power: np.ndarray, watched: bool = True) -> np.ndarray:
    """`power`, if its square is good to about working precision or is not `watched`; else raise `FarFromNormal`."""
    if watched and frobenius(power) > _GROWTH * math.sqrt(power.shape[0]):
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
