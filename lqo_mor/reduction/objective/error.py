"""The squared h² error as a function of a diagonal reduced model, its closed-form outputs and its gradient.

The full system enters only through the transfer functions of its rows ``Z = [C; U; V]`` at the reduced poles in the
directions of the reduced inputs, ``D_j = H(μ_j) b_j`` (see `transfer`): the rows times the cross Gramian. The reduced one
enters through its own Gramian ``G`` in the real coordinates of `lqo_mor.systems.convert`. All derivatives follow from
``∂f/∂G`` and ``∂f/∂D``, so every method shares this file. `error_kernels.py` is its compiled counterpart for white input. For an
input with a spectrum the error is the expected power of the output error (see `h2_norm`), with all its Gramians.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import scipy.linalg

from lqo_mor.analysis.norm import Norm
from lqo_mor.analysis.norms import norm_value
from lqo_mor.analysis.rows import stack_rows, unstack_rows
from lqo_mor.analysis.spectrum import InputSpectrum
from lqo_mor.analysis.weighted import Weighted, output_covariance, output_mean, spectrum_of, state_covariance, weigh
from lqo_mor.matrix_equations.pairing import Pairing, real_form
from lqo_mor.reduction.objective import error_kernels
from lqo_mor.reduction.objective.input_rows import ColouredInputs, Series, WhiteInputs
from lqo_mor.reduction.objective.transfer import (
    Backward,
    Transfer,
    dense_transfer,
    diagonal_transfer,
    weighted_dense_transfer,
    weighted_diagonal_transfer,
    well_conditioned_modes,
)
from lqo_mor.systems.convert import as_dense, slot_rows
from lqo_mor.systems.dense import LQOSystem
from lqo_mor.systems.diagonal import DiagonalLQOSystem
from lqo_mor.systems.quadratic import factor_symmetric
from lqo_mor.systems.system import System

_ROOT2 = np.sqrt(2.0)


@dataclass(frozen=True)
class Problem:
    """The full system, as the reduction of one system to a diagonal one sees it."""

    pairing: Pairing
    transfer: Transfer  # maps reduced poles and their inputs to ``D`` and a function for its derivatives, see `transfer`
    p: int  # linear rows
    c: int  # quadratic products; ``q = p + 2c``
    W: np.ndarray  # (p, c), mixing matrix of the quadratic output
    squared_norm: float  # of the full system without its feedthrough; with a spectrum without the mean of its output, too
    continuous: bool
    # maps reduced poles (s,) and input rows (s, m) to what the error needs of the inputs
    inputs: Callable[[np.ndarray, np.ndarray], WhiteInputs | ColouredInputs] = WhiteInputs.at
    mean: np.ndarray | None = None  # (p,), of the quadratic output for a Gaussian input with a spectrum


@dataclass(frozen=True)
class Evaluation:
    """One reduced model seen by a `Problem`: Gramian, cross rows, and what their derivatives need."""

    G: np.ndarray
    D: np.ndarray
    inputs: WhiteInputs | ColouredInputs
    real: np.ndarray
    backward: Backward
    plain: tuple[np.ndarray, np.ndarray]
    hermitian: tuple[np.ndarray, np.ndarray]


def problem_of(sys: System, norm: Norm) -> Problem:
    """The `Problem` of reducing one real system, dense or diagonal, in a norm."""
    M, pairing = sys.M, norm.pairing
    quadratic = factor_symmetric(M) if isinstance(M, np.ndarray) else M
    modes = well_conditioned_modes(sys) if isinstance(sys, LQOSystem) else sys
    W = np.zeros((sys.n_outputs, 0)) if quadratic is None else quadratic.W
    rows = stack_rows(sys.C, quadratic)
    if norm.white:
        transfer = diagonal_transfer(modes, pairing) if modes is not None else dense_transfer(as_dense(sys), rows, norm)
        squared = float(norm_value(without_feedthrough(sys), norm)) ** 2
        return Problem(pairing, transfer, sys.n_outputs, W.shape[1], W, squared, sys.is_continuous)
    spectrum = spectrum_of(norm)
    full, squared, mean = weighted_power(sys, spectrum)
    if modes is None:
        transfer = weighted_dense_transfer(as_dense(sys), full.F, rows)
    else:
        transfer = weighted_diagonal_transfer(modes, (full if modes is sys else weigh(modes, spectrum)).F, pairing)
    return Problem(pairing, transfer, sys.n_outputs, W.shape[1], W, squared, False, Series(spectrum.covariances).at, mean)


def weighted_power(sys: System, spectrum: InputSpectrum) -> tuple[Weighted, float, np.ndarray | None]:
    """The full system without its feedthrough for an input with a spectrum; the power of its output without the mean; that."""
    full = weigh(without_feedthrough(sys), spectrum)
    P = state_covariance(full, full)
    mean = None if sys.M is None else output_mean(full, P)
    return full, float(output_covariance(full, full, P, 1).real), mean


def without_feedthrough(sys: System) -> System:
    """The same system with ``D = 0``."""
    return replace(sys, D=np.zeros_like(sys.D))


def evaluate(problem: Problem, mu: np.ndarray, B: np.ndarray, real: np.ndarray) -> Evaluation:
    """Gramian and cross rows of the reduced model with poles `mu` (s,) and input rows `B` (s, m); theory, eq. (1.6), (5.4)."""
    plain = problem.pairing.outer_with_derivative(mu, mu)
    hermitian = problem.pairing.outer_with_derivative(mu.conj(), mu)
    inputs = problem.inputs(mu, B)
    products, conjugates = inputs.products()
    G = real_form(products * plain[0], conjugates * hermitian[0].T, real, real)
    D, backward = problem.transfer(mu, inputs)
    D = np.concatenate([np.where(real, 1.0, _ROOT2) * D.real, _ROOT2 * D.imag[:, ~real]], axis=1)
    G = 0.5 * (G + G.T)
    error_kernels._drop_lost_coordinates(real, G, D)
    return Evaluation(G, D, inputs, real, backward, plain, hermitian)


def solve_rows(G: np.ndarray, D: np.ndarray) -> np.ndarray:
    """The optimal output rows ``Θ = D G⁻¹`` (variable projection: outputs in closed form); theory, eq. (6.1).

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
    """The Gramian with `ridge` times the size of each slot on its diagonal, to bound the residues; theory, eq. (6.2)."""
    G = e.G.copy()
    error_kernels._add_ridge(e.real, ridge, G)
    return G


def error_and_forms(
    problem: Problem, G: np.ndarray, D: np.ndarray, rows: np.ndarray, W: np.ndarray
) -> tuple[float, np.ndarray, np.ndarray, np.ndarray]:
    """Squared error, and its derivatives by the row covariances ``Θ G Θᵀ`` and ``D Θᵀ`` and by `W`.

    Of a Gaussian input with a spectrum the quadratic part counts twice, and the difference of the means is added; theory,
    eq. (5.5), (5.6) and (9.4).
    """
    p, c = problem.p, problem.c
    own, cross = rows @ G @ rows.T, D @ rows.T
    value = problem.squared_norm + np.trace(own[:p, :p]) - 2 * np.trace(cross[:p, :p])
    d_own, d_cross, d_W = np.zeros_like(own), np.zeros_like(cross), np.zeros_like(W)
    d_own[:p, :p], d_cross[:p, :p] = np.eye(p), -2 * np.eye(p)
    if c:
        u, v = slice(p, p + c), slice(p + c, None)
        half = 0.5 if problem.mean is None else 1.0
        for factor, S, d_S, left in ((half, own, d_own, W), (-2 * half, cross, d_cross, problem.W)):
            T, products = factor * left.T @ W, S[u, u] * S[v, v] + S[u, v] * S[v, u]
            value += np.sum(T * products)
            for a, b, opposite in ((u, u, S[v, v]), (v, v, S[u, u]), (u, v, S[v, u]), (v, u, S[u, v])):
                d_S[a, b] = T * opposite
            d_W += 2 * half * (W if S is own else -problem.W) @ products
        if problem.mean is not None:
            excess, means = _mean_excess(problem, own, W)
            value += excess @ excess
            for a, b in ((u, v), (v, u)):
                np.einsum("jj->j", d_own[a, b])[:] += W.T @ excess
            d_W += 2 * np.outer(excess, means)
    return value, d_own, d_cross, d_W


def _mean_excess(problem: Problem, own: np.ndarray, W: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """By how much the means of the reduced outputs exceed the full ones, and the means of the products."""
    means = np.diag(own[problem.p : problem.p + problem.c, problem.p + problem.c :])
    return W @ means - problem.mean, means


def pole_gradients(e: Evaluation, d_G: np.ndarray, d_D: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``γ`` (s,) and ``δ`` (s, m), ``df = Re Σ γ dμ + Re Σ δ dB``, from ``∂f/∂G`` (symmetric), ``∂f/∂D``; theory, eq. (5.7)."""
    s, real = e.real.size, e.real
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
    plain, hermitian = ((weights, g.T, slope.T) for weights, (g, slope) in ((alpha, e.plain), (beta, e.hermitian)))
    gamma, delta = e.inputs.gradients(*e.backward(gamma_D), plain, hermitian)
    return np.where(real, gamma.real, gamma), np.where(real[:, np.newaxis], delta.real, delta)


def projected_error(
    problem: Problem, mu: np.ndarray, B: np.ndarray, real: np.ndarray, ridge: float = 0.0
) -> tuple[float, np.ndarray, np.ndarray, np.ndarray]:
    """Squared error with optimal outputs, its gradient ``(γ, δ)`` in poles and input rows, and the rows.

    By the envelope theorem the gradient is the partial one at the optimal outputs; where the outputs have a mean, these
    rows are not those that minimise it, and what their change makes of it is added. A `ridge` enters the Gramian of the
    reduced model throughout, so that the gradient stays exact. Infinite where the numbers overflow. Theory, eq. (6.1), (9.5).
    """
    with np.errstate(over="ignore", invalid="ignore"):
        e = evaluate(problem, mu, B, real)
        G = with_ridge(e, ridge)
    if not (np.all(np.isfinite(G)) and np.all(np.isfinite(e.D))):
        return np.inf, np.zeros_like(mu), np.zeros_like(B), np.zeros_like(e.D)
    rows = solve_rows(G, e.D)
    value, d_own, d_cross, _ = error_and_forms(problem, G, e.D, rows, problem.W)
    d_G, d_D = rows.T @ d_own @ rows, d_cross @ rows
    if problem.mean is not None:
        u, v = slice(problem.p, problem.p + problem.c), slice(problem.p + problem.c, None)
        pull, change = 2 * problem.W.T @ _mean_excess(problem, rows @ G @ rows.T, problem.W)[0], np.zeros_like(rows)
        change[u], change[v] = pull[:, np.newaxis] * rows[v], pull[:, np.newaxis] * rows[u]
        d_G, d_D = d_G - rows.T @ change, d_D + change
    error_kernels._add_ridge(real, ridge, d_G)
    gamma, delta = pole_gradients(e, d_G, d_D)
    return value, gamma, delta, rows


def reduced_system(
    problem: Problem,
    mu: np.ndarray,
    B: np.ndarray,
    real: np.ndarray,
    rows: np.ndarray,
    W: np.ndarray,
    D: np.ndarray | None,
    dt: float | bool,
) -> DiagonalLQOSystem:
    """The reduced system with output rows in real coordinates."""
    C, quadratic = unstack_rows(slot_rows(rows, real), W)
    return DiagonalLQOSystem(mu, B, C, D, quadratic, dt=dt)
