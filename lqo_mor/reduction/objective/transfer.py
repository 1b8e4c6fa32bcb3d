"""The rows of a full system at reduced poles in the directions of reduced inputs, ``D_j = H(μ_j) b_j``, and their derivatives.

For white input ``H(μ) = Σ_k μ^k Z A^k B``; for one with a spectrum ``H(μ) = Z (I − μA)⁻¹ (F + B G(μ))`` with the `F` of
`analysis.weighted` and the `G` of `input_rows`. A transfer maps reduced poles (s,) and their inputs to `D` (q, s), and to a
function that maps weights ``Γ`` (q, s) to ``Γ_jᵀ H'(μ_j) b_j`` (s,) and ``Γ_jᵀ H(μ_j)`` (s, m), without forming `H`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import scipy.linalg

from lqo_mor.analysis.norm import HorizonNorm, Norm
from lqo_mor.analysis.rows import pair_weights, stack_rows
from lqo_mor.errors import InvalidInputError
from lqo_mor.matrix_equations.pairing import Pairing
from lqo_mor.reduction.objective.input_rows import ColouredInputs, WhiteInputs
from lqo_mor.systems.convert import diagonalised
from lqo_mor.systems.dense import LQOSystem
from lqo_mor.systems.diagonal import DiagonalLQOSystem

Backward: TypeAlias = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
Transfer: TypeAlias = Callable[[np.ndarray, Any], tuple[np.ndarray, Backward]]  # the inputs are of the kind of its `Problem`

_EPS = np.finfo(float).eps
_CANCELS = 1e-9  # relative error of states from the ends of their sum, above which the sum is computed otherwise
_WELL_CONDITIONED = 1e4  # eigenvectors that cost no more than four of sixteen digits


def diagonal_transfer(sys: DiagonalLQOSystem, pairing: Pairing) -> Transfer:
    """Elementwise."""
    rows = stack_rows(sys.C, sys.M) * pair_weights(sys)

    def transfer(mu: np.ndarray, inputs: WhiteInputs) -> tuple[np.ndarray, Backward]:
        parts = []
        for lam, Z, B in ((sys.poles, rows, sys.B), (sys.poles.conj(), rows.conj(), sys.B.conj())):
            parts.append((Z, B, B @ inputs.B.T, *pairing.outer_with_derivative(lam, mu)))

        def backward(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            gamma = delta = np.zeros(())
            for Z, B, products, g, dg in parts:
                observed = Z.T @ weights
                gamma = gamma + np.sum(observed * products * dg, axis=0)
                delta = delta + (observed * g).T @ B
            return gamma, delta

        return sum(Z @ (products * g) for Z, _, products, g, _ in parts), backward

    return transfer


def weighted_diagonal_transfer(sys: DiagonalLQOSystem, F: np.ndarray, pairing: Pairing) -> Transfer:
    """Elementwise, for an input with a spectrum."""
    rows = stack_rows(sys.C, sys.M) * pair_weights(sys)

    def transfer(mu: np.ndarray, inputs: ColouredInputs) -> tuple[np.ndarray, Backward]:
        parts = []
        for lam, Z, B, E in ((sys.poles, rows, sys.B, F), (sys.poles.conj(), rows.conj(), sys.B.conj(), F.conj())):
            products = B @ inputs.F.T + E @ inputs.B.T
            parts.append((Z, B, E, products, *pairing.outer_with_derivative(lam, mu)))

        def backward(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            gamma = delta = np.zeros(())
            for Z, B, E, products, g, dg in parts:
                observed = Z.T @ weights
                seen = observed * g
                gamma = gamma + np.sum(observed * products * dg + seen * (B @ inputs.slopes.T), axis=0)
                delta = delta + seen.T @ E + inputs.through(seen.T @ B)
            return gamma, delta

        return sum(Z @ (products * g) for Z, _, _, products, g, _ in parts), backward

    return transfer


def well_conditioned_modes(sys: LQOSystem) -> DiagonalLQOSystem | None:
    """The dense system in modal coordinates, n work instead of n² per pole; None where they are ill conditioned."""
    try:
        diagonal, condition = diagonalised(sys)
    except InvalidInputError:
        return None
    return diagonal if condition < _WELL_CONDITIONED else None


def dense_transfer(sys: LQOSystem, rows: np.ndarray, norm: Norm) -> Transfer:
    """Triangular solves in a Schur basis of `A`, theory, eq. (5.4); for norms that are not over a horizon, `general_transfer`."""
    if not isinstance(norm, HorizonNorm):
        return general_transfer(sys, rows, norm)
    horizon = norm.horizon
    T, basis = scipy.linalg.schur(sys.A, output="complex")
    rows, B = rows @ basis, basis.conj().T @ sys.B
    identity = np.eye(sys.order)

    def solve(matrix: np.ndarray, right: np.ndarray) -> np.ndarray:
        return scipy.linalg.solve_triangular(matrix, right, check_finite=False)

    if sys.is_continuous:
        end = None if horizon is None else scipy.linalg.expm(T * horizon) @ B

        def states(mu: complex) -> tuple[np.ndarray, np.ndarray]:  # (T + μ) F = e^{μ horizon} e^{T horizon} B − B
            shifted = T + mu * identity
            if end is None or horizon is None:
                F = solve(shifted, -B)
                return F, solve(shifted, -F)
            tail = np.exp(mu * horizon) * end
            F = solve(shifted, tail - B)
            return F, solve(shifted, horizon * tail - F)
    else:
        end = None if horizon is None else np.linalg.matrix_power(T, int(horizon)) @ B

        def states(mu: complex) -> tuple[np.ndarray, np.ndarray]:  # (I − μT) F = B − μ^L T^L B
            shifted = identity - mu * T
            if end is None or horizon is None:
                F = solve(shifted, B + 0j)
                return F, solve(shifted, T @ F)
            F = solve(shifted, B - mu**horizon * end)
            return F, solve(shifted, T @ F - horizon * mu ** (horizon - 1) * end)

    probe, size = np.random.default_rng(0).standard_normal(sys.order) + 0j, _EPS * np.linalg.norm(B)
    slow = _states_of(T, B, norm)

    def regular(mu: complex) -> tuple[np.ndarray, np.ndarray]:
        """`states`, also where the shifted matrix is nearly singular: over a finite horizon that singularity is removable.

        There, for matrices far from normal also where no pole is near, both ends of the sum cancel.
        """
        if end is None:
            return states(mu)
        with np.errstate(all="ignore"):
            F, slope = states(mu)
            amplified = np.linalg.norm(solve(T + mu * identity if sys.is_continuous else identity - mu * T, probe))
            if amplified * size < _CANCELS * np.linalg.norm(F) or not np.isfinite(mu):  # a step too far
                return F, slope
        return slow(mu)

    def transfer(mu: np.ndarray, inputs: WhiteInputs) -> tuple[np.ndarray, Backward]:
        return _through_states([regular(z) for z in mu], rows, inputs)

    return transfer


def general_transfer(sys: LQOSystem, rows: np.ndarray, norm: Norm) -> Transfer:
    """By the cross Gramian with one pole and its derivative: that with a Jordan block of two states."""

    states = _states_of(sys.A, sys.B, norm)

    def transfer(mu: np.ndarray, inputs: WhiteInputs) -> tuple[np.ndarray, Backward]:
        return _through_states([states(z) for z in mu], rows, inputs)

    return transfer


def _states_of(A: np.ndarray, B: np.ndarray, norm: Norm) -> Callable[[complex], tuple[np.ndarray, np.ndarray]]:
    """The states ``Σ_k w_k μ^k A^k B`` (n, m) and their derivatives, by the solver of the norm."""

    def states(mu: complex) -> tuple[np.ndarray, np.ndarray]:
        block = np.array([[mu, 1.0], [0.0, mu]]).conj()
        columns = [norm.solve(A, block, np.outer(b, [0.0, 1.0]) + 0j) for b in B.T]
        return np.stack([X[:, 1] for X in columns], axis=1), np.stack([X[:, 0] for X in columns], axis=1)

    return states


def _through_states(
    states: list[tuple[np.ndarray, np.ndarray]], rows: np.ndarray, inputs: WhiteInputs
) -> tuple[np.ndarray, Backward]:
    """A transfer from the states ``H(μ_j)`` without the rows, and their derivatives, for every pole."""

    def backward(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        observed = weights.T @ rows
        delta = np.stack([own @ F for own, (F, _) in zip(observed, states, strict=True)])
        slopes = np.stack([own @ dF for own, (_, dF) in zip(observed, states, strict=True)])
        return np.sum(slopes * inputs.B, axis=1), delta

    return rows @ np.stack([F @ b for b, (F, _) in zip(inputs.B, states, strict=True)], axis=1), backward


def weighted_dense_transfer(sys: LQOSystem, F: np.ndarray, rows: np.ndarray) -> Transfer:
    """A triangular solve per pole and input, in a Schur basis of `A`, for an input with a spectrum; theory, eq. (9.2)."""
    identity = np.eye(sys.order)
    T, basis = scipy.linalg.schur(sys.A, output="complex")
    rows, B, F = rows @ basis, basis.conj().T @ sys.B, basis.conj().T @ F

    def transfer(mu: np.ndarray, inputs: ColouredInputs) -> tuple[np.ndarray, Backward]:
        solved, bent = [], []
        for z, b, gain, slope in zip(mu, inputs.B, inputs.gains, inputs.slopes, strict=True):
            shifted = identity - z * T
            solved.append(scipy.linalg.solve_triangular(shifted, F + B @ gain, check_finite=False))
            bent.append(scipy.linalg.solve_triangular(shifted, T @ (solved[-1] @ b) + B @ slope, check_finite=False))
        states, slopes = np.stack(solved), np.stack(bent)

        def backward(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            observed = weights.T @ rows
            return np.sum(observed * slopes, axis=1), (observed[:, np.newaxis] @ states)[:, 0]

        return rows @ (states @ inputs.B[..., np.newaxis])[..., 0].T, backward

    return transfer
