"""The squared h² error as a function of a diagonal reduced model, its closed-form outputs and its gradient.

The full system enters only through the transfer functions of its rows ``Z = [C; U; V]`` at the reduced poles in the
directions of the reduced inputs, ``D_j = H(μ_j) b_j`` with ``H(μ) = Σ_k μ^k Z A^k B``: the rows times the cross Gramian. The
reduced one enters through its own Gramian ``G`` in the real coordinates of `lqo_mor.systems.convert`. All derivatives follow
from ``∂f/∂G`` and ``∂f/∂D``, so every method shares this file. `_kernels.py` is its compiled counterpart.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.linalg

from lqo_mor.analysis._rows import pair_weights, stack_rows
from lqo_mor.analysis.norms import h2_norm
from lqo_mor.errors import InvalidInputError
from lqo_mor.matrix_equations.diagonal import Pairing, pairing, real_form
from lqo_mor.reduction import _kernels
from lqo_mor.systems.convert import diagonalised, slot_rows
from lqo_mor.systems.dense import LQOSystem
from lqo_mor.systems.diagonal import DiagonalLQOSystem
from lqo_mor.systems.quadratic import QuadraticOutput, factor_symmetric

_ROOT2 = np.sqrt(2.0)
_WELL_CONDITIONED = 1e4  # eigenvectors that cost no more than four of sixteen digits
_CIRCLE, _RADIUS = 12, 0.1  # points around a removable singularity, and their distance in units of 1 / horizon


@dataclass(frozen=True)
class Problem:
    """The full system, as the reduction of one system to a diagonal one sees it.

    Attributes
    ----------
    norm : Pairing
        Time axis and horizon.
    transfer : callable
        Maps reduced poles (s,) and input rows (s, m) to ``D`` (q, s), ``D_j = H(μ_j) b_j``, and to a function that maps
        weights ``Γ`` (q, s) to ``Γ_jᵀ H'(μ_j) b_j`` (s,) and ``Γ_jᵀ H(μ_j)`` (s, m), without forming `H`.
    p, c : int
        Numbers of linear rows and of quadratic products; ``q = p + 2c``.
    W : (p, c) ndarray
        Mixing matrix of the quadratic output.
    squared_norm : float
        Squared h² norm of the full system without its feedthrough.
    continuous : bool
        Kind of time.
    """

    norm: Pairing
    transfer: Callable
    p: int
    c: int
    W: np.ndarray
    squared_norm: float
    continuous: bool


@dataclass(frozen=True)
class Evaluation:
    """One reduced model seen by a `Problem`: Gramian, cross rows, and what their derivatives need."""

    G: np.ndarray
    D: np.ndarray
    B: np.ndarray
    real: np.ndarray
    backward: Callable
    plain: tuple[np.ndarray, np.ndarray]
    hermitian: tuple[np.ndarray, np.ndarray]


def problem_of(sys, horizon: float | None) -> Problem:
    """The `Problem` of reducing one real system, dense or diagonal, over `horizon` (None: infinite)."""
    norm = pairing(sys.is_continuous, horizon)
    if isinstance(sys, DiagonalLQOSystem):
        quadratic, transfer = sys.quadratic, _diagonal_transfer(sys, norm)
    else:
        quadratic = factor_symmetric(sys.M) if isinstance(sys.M, np.ndarray) else sys.M
        modes = well_conditioned_modes(sys)
        transfer = (
            _dense_transfer(sys, stack_rows(sys.C, quadratic), horizon) if modes is None else _diagonal_transfer(modes, norm)
        )
    W = np.zeros((sys.n_outputs, 0)) if quadratic is None else quadratic.W
    squared = h2_norm(without_feedthrough(sys), horizon) ** 2
    return Problem(norm, transfer, sys.n_outputs, W.shape[1], W, squared, sys.is_continuous)


def without_feedthrough(sys):
    """The same system with ``D = 0``."""
    if isinstance(sys, DiagonalLQOSystem):
        return DiagonalLQOSystem(sys.poles, sys.B, sys.C, None, sys.quadratic, sys.dt)
    return LQOSystem(sys.A, sys.B, sys.C, None, sys.M, sys.dt)


def _diagonal_transfer(sys: DiagonalLQOSystem, norm: Pairing) -> Callable:
    rows = stack_rows(sys.C, sys.quadratic) * pair_weights(sys)

    def transfer(mu, B_r):
        parts = []
        for lam, Z, B in ((sys.poles, rows, sys.B), (sys.poles.conj(), rows.conj(), sys.B.conj())):
            parts.append((Z, B, B @ B_r.T, *norm.outer_with_derivative(lam, mu)))

        def backward(weights):
            gamma = delta = 0
            for Z, B, inputs, g, dg in parts:
                observed = Z.T @ weights
                gamma = gamma + np.sum(observed * inputs * dg, axis=0)
                delta = delta + (observed * g).T @ B
            return gamma, delta

        return sum(Z @ (inputs * g) for Z, B, inputs, g, dg in parts), backward

    return transfer


def well_conditioned_modes(sys: LQOSystem) -> DiagonalLQOSystem | None:
    """The dense system in modal coordinates, n work instead of n² per pole; None where they are ill conditioned."""
    try:
        diagonal, condition = diagonalised(sys)
    except InvalidInputError:
        return None
    return diagonal if condition < _WELL_CONDITIONED else None


def _dense_transfer(sys: LQOSystem, rows: np.ndarray, horizon: float | None) -> Callable:
    """Two triangular solves per pole, in a Schur basis of `A`."""
    T, basis = scipy.linalg.schur(sys.A, output="complex")
    rows, B = rows @ basis, basis.conj().T @ sys.B
    identity = np.eye(sys.order)

    def solve(matrix, right):
        return scipy.linalg.solve_triangular(matrix, right, check_finite=False)

    if sys.is_continuous:
        end = None if horizon is None else scipy.linalg.expm(T * horizon) @ B

        def states(mu):  # (T + μ) F = e^{μ horizon} e^{T horizon} B − B
            shifted = T + mu * identity
            if end is None:
                F = solve(shifted, -B)
                return F, solve(shifted, -F)
            tail = np.exp(mu * horizon) * end
            F = solve(shifted, tail - B)
            return F, solve(shifted, horizon * tail - F)
    else:
        end = None if horizon is None else np.linalg.matrix_power(T, int(horizon)) @ B

        def states(mu):  # (I − μT) F = B − μ^L T^L B
            shifted = identity - mu * T
            if end is None:
                F = solve(shifted, B + 0j)
                return F, solve(shifted, T @ F)
            F = solve(shifted, B - mu**horizon * end)
            return F, solve(shifted, T @ F - horizon * mu ** (horizon - 1) * end)

    poles = np.diag(T)
    angles = np.exp(2j * np.pi * (np.arange(_CIRCLE) + 0.5) / _CIRCLE)

    def regular(mu):
        """`states`, also where the shifted matrix is singular: over a finite horizon that singularity is removable.

        There the values at the centre of a small circle are the means of those on it (Cauchy), to rounding.
        """
        if end is None:
            return states(mu)
        gap = np.min(np.abs(poles + mu)) if sys.is_continuous else np.min(np.abs(1 - mu * poles))
        if gap * horizon > _RADIUS:
            return states(mu)
        radius = _RADIUS / (horizon if sys.is_continuous else horizon * max(1.0, np.max(np.abs(poles))))
        around = [states(mu + radius * z)[0] for z in angles]
        slope = sum(F / z for F, z in zip(around, angles, strict=True)) / (_CIRCLE * radius)
        return sum(around) / _CIRCLE, slope

    def transfer(mu, B_r):
        states = [regular(z) for z in mu]

        def backward(weights):
            observed = weights.T @ rows
            delta = np.stack([own @ F for own, (F, _) in zip(observed, states, strict=True)])
            slopes = np.stack([own @ dF for own, (_, dF) in zip(observed, states, strict=True)])
            return np.sum(slopes * B_r, axis=1), delta

        return rows @ np.stack([F @ b for b, (F, _) in zip(B_r, states, strict=True)], axis=1), backward

    return transfer


def evaluate(problem: Problem, mu: np.ndarray, B: np.ndarray, real: np.ndarray) -> Evaluation:
    """Gramian and cross rows of the reduced model with poles `mu` (s,) and input rows `B` (s, m)."""
    plain = problem.norm.outer_with_derivative(mu, mu)
    hermitian = problem.norm.outer_with_derivative(mu.conj(), mu)
    G = real_form((B @ B.T) * plain[0], (B @ B.conj().T) * hermitian[0].T, real, real)
    D, backward = problem.transfer(mu, B)
    D = np.concatenate([np.where(real, 1.0, _ROOT2) * D.real, _ROOT2 * D.imag[:, ~real]], axis=1)
    G = 0.5 * (G + G.T)
    _kernels._drop_lost_coordinates(real, G, D)
    return Evaluation(G, D, B, real, backward, plain, hermitian)


def solve_rows(G: np.ndarray, D: np.ndarray) -> np.ndarray:
    """The optimal output rows ``Θ = D G⁻¹`` (variable projection: outputs in closed form).

    By a Cholesky decomposition of `G` scaled to unit diagonal; with eigenvalues below rounding cut off where
    that fails.
    """
    scale = 1 / np.sqrt(np.maximum(np.diag(G), np.finfo(float).tiny))
    correlation = G * np.outer(scale, scale)
    try:
        factor = scipy.linalg.cho_factor(correlation, lower=True)
        return scipy.linalg.cho_solve(factor, scale[:, np.newaxis] * D.T).T * scale
    except scipy.linalg.LinAlgError:
        eigenvalues, vectors = np.linalg.eigh(correlation)
        keep = eigenvalues > G.shape[0] * np.finfo(float).eps * eigenvalues[-1]
        inverse = (vectors[:, keep] / eigenvalues[keep]) @ vectors[:, keep].T
        return (D * scale) @ inverse * scale


def with_ridge(e: Evaluation, ridge: float) -> np.ndarray:
    """The Gramian with `ridge` times the size of each slot on its diagonal, which bounds the fitted residues."""
    G = e.G.copy()
    _kernels._add_ridge(e.real, ridge, G)
    return G


def error_and_forms(problem: Problem, G, D, rows, W):
    """Squared error, and its derivatives by the row covariances ``Θ G Θᵀ`` and ``D Θᵀ`` and by `W`."""
    p, c = problem.p, problem.c
    own, cross = rows @ G @ rows.T, D @ rows.T
    value = problem.squared_norm + np.trace(own[:p, :p]) - 2 * np.trace(cross[:p, :p])
    d_own, d_cross, d_W = np.zeros_like(own), np.zeros_like(cross), np.zeros_like(W)
    d_own[:p, :p], d_cross[:p, :p] = np.eye(p), -2 * np.eye(p)
    if c:
        u, v = slice(p, p + c), slice(p + c, None)
        weights = {1.0: (own, d_own, W.T @ W), -2.0: (cross, d_cross, problem.W.T @ W)}
        for factor, (S, d_S, T) in weights.items():
            products = S[u, u] * S[v, v] + S[u, v] * S[v, u]
            value += factor * 0.5 * np.sum(T * products)
            for a, b, opposite in ((u, u, S[v, v]), (v, v, S[u, u]), (u, v, S[v, u]), (v, u, S[u, v])):
                d_S[a, b] = factor * 0.5 * T * opposite
            d_W += (W if factor == 1.0 else -problem.W) @ products
    return value, d_own, d_cross, d_W


def pole_gradients(e: Evaluation, d_G: np.ndarray, d_D: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``γ`` (s,) and ``δ`` (s, m) with ``df = Re Σ γ dμ + Re Σ δ dB``, from ``∂f/∂G`` (symmetric) and ``∂f/∂D``."""
    s, real, B = e.real.size, e.real, e.B
    scale = np.where(real, np.sqrt(0.5), 1.0)
    outer = np.outer(scale, scale)
    rr, ii, ri, ir = np.zeros((4, s, s))
    rr[:] = d_G[:s, :s] * outer
    pairs = np.flatnonzero(~real)
    ii[np.ix_(pairs, pairs)] = d_G[s:, s:]
    ri[:, pairs] = d_G[:s, s:] * scale[:, np.newaxis]
    ir[pairs] = d_G[s:, :s] * scale
    alpha, beta = (rr - ii) - 1j * (ri + ir), (rr + ii) - 1j * (ir - ri)
    gamma_D = np.where(real, 1.0, _ROOT2) * d_D[:, :s] + 0j
    gamma_D[:, pairs] -= 1j * _ROOT2 * d_D[:, s:]
    # plain[1][j, i] is the derivative of g(μ_j, μ_i) by μ_i, hermitian[1][j, i] that of g(conj μ_j, μ_i)
    gamma, delta = e.backward(gamma_D)
    gamma = gamma + 2 * np.sum(alpha * (B @ B.T) * e.plain[1].T + beta * (B @ B.conj().T) * e.hermitian[1].T, axis=1)
    delta = delta + 2 * (alpha * e.plain[0]) @ B + 2 * (beta * e.hermitian[0].T) @ B.conj()
    return np.where(real, gamma.real, gamma), np.where(real[:, np.newaxis], delta.real, delta)


def projected_error(problem: Problem, mu, B, real, ridge: float = 0.0):
    """Squared error with optimal outputs, its gradient ``(γ, δ)`` in poles and input rows, and the rows.

    By the envelope theorem the gradient is the partial one at the optimal outputs. A `ridge` enters the
    Gramian of the reduced model throughout, so that the gradient stays exact. Infinite where the numbers overflow.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        e = evaluate(problem, mu, B, real)
        G = with_ridge(e, ridge)
    if not (np.all(np.isfinite(G)) and np.all(np.isfinite(e.D))):
        return np.inf, np.zeros_like(mu), np.zeros_like(B), np.zeros_like(e.D)
    rows = solve_rows(G, e.D)
    value, d_own, d_cross, _ = error_and_forms(problem, G, e.D, rows, problem.W)
    d_G = rows.T @ d_own @ rows
    _kernels._add_ridge(real, ridge, d_G)
    gamma, delta = pole_gradients(e, d_G, d_cross @ rows)
    return value, gamma, delta, rows


def reduced_system(problem: Problem, mu, B, real, rows, W, D, dt) -> DiagonalLQOSystem:
    """The reduced system with output rows in real coordinates."""
    slots = slot_rows(rows, real)
    p, c = problem.p, problem.c
    quadratic = QuadraticOutput(slots[p : p + c], slots[p + c :], W) if c else None
    return DiagonalLQOSystem(mu, B, slots[:p], D, quadratic, dt)
