"""Lyapunov and Sylvester equations ``A X + X Bᴴ + Q = 0``: infinite and finite horizon, and a factor."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import TypeAlias

import numpy as np
import scipy.linalg

from lqo_mor.errors import ConvergenceError, SingularEquationError
from lqo_mor.matrix_equations.pairing import check_horizon
from lqo_mor.matrix_equations.residuals import negligible, refuse_singular, relative_residual, spectral_norm_estimate
from lqo_mor.matrix_equations.schur_basis import FarFromNormal, Watch, factor_in_schur_basis, solve_in_schur_basis
from lqo_mor.matrix_equations.stein import compress_factor, double, double_factor, operands

Map: TypeAlias = Callable[[np.ndarray], np.ndarray]

_EPS = np.finfo(float).eps
_REFINE, _ACCEPT = 10 * _EPS, 100 * _EPS  # relative residuals that call for a correction, and that a solution may have
_TAME = 1e6  # a condition number (a lower bound) from which the method of Bartels and Stewart loses fewer digits


def solve_lyapunov(A: np.ndarray, B: np.ndarray, Q: np.ndarray, duration: float | None = None) -> np.ndarray:
    """Solve ``A X + X Bᴴ + Q = 0``, or integrate ``X = ∫₀^T e^{At} Q e^{Bᴴt} dt``.

    Solvable if no sum ``λ_i(A) + conj(λ_j(B))`` is zero; the integral over a finite `duration` always exists.

    Coefficients and constant term are as for `solve_stein`, which tells also what is raised; the `duration` is in seconds, a
    positive finite number, and infinite by default.

    Notes
    -----
    Infinite horizon: the Cayley transform ``A ← (A − σI)⁻¹(A + σI)`` keeps `X` and gives a Stein equation, solved by
    doubling (an alternating-direction iteration with one shift, squared) and corrected once where the residual
    asks for it. Where it does not converge, or the residual stays poor, the method of Bartels and Stewart
    (1972), by SciPy. Finite horizon: a Taylor series over a short step, then ``X_{2t} = X_t + e^{At} X_t e^{Bᴴt}``;
    nothing cancels and nothing has to be solvable.

    Examples
    --------
    >>> import numpy as np
    >>> solve_lyapunov(np.array([[-1.0]]), np.array([[-1.0]]), np.array([[2.0]]))
    array([[1.]])
    """
    A, B, Q = operands(A, B, Q)
    if duration is None:
        return _solve(A, B, Q)
    check_horizon(True, duration)
    return _integral(A, B, Q, duration)


def _solve(A: np.ndarray, B: np.ndarray, Q: np.ndarray) -> np.ndarray:
    """The solution of the equation."""
    X, factor = _solve_by_cayley(A, B, Q), spectral_norm_estimate(A) + spectral_norm_estimate(B)
    if X is not None:
        rest = A @ X + X @ B.conj().T + Q
        if relative_residual(rest, factor, X, Q) > _REFINE:
            correction = _solve_by_cayley(A, B, rest)
            X = X if correction is None else X + correction
            rest = A @ X + X @ B.conj().T + Q
        tame = factor * np.linalg.norm(X) < _TAME * np.linalg.norm(Q)  # else a small residual says little
        if tame and relative_residual(rest, factor, X, Q) < _ACCEPT:
            return X
    X = scipy.linalg.solve_continuous_lyapunov(A, -Q) if B is A else scipy.linalg.solve_sylvester(A, B.conj().T, -Q)
    try:
        refuse_singular("Lyapunov", factor, X, Q)
    except SingularEquationError:
        if not (np.all(np.isfinite(X)) and _stable(A) and _stable(B)):  # else it is far from normal
            raise
    return X


def _stable(A: np.ndarray) -> bool:
    """Whether all eigenvalues are in the open left half-plane by more than rounding."""
    return bool(np.all(np.linalg.eigvals(A).real < -100 * _EPS * np.linalg.norm(A)))


def _solve_by_cayley(A: np.ndarray, B: np.ndarray, Q: np.ndarray) -> np.ndarray | None:
    """The solution by a Stein equation with the Cayley transforms of both coefficients.

    None where it does not converge, and where the transforms are far from normal.
    """
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", scipy.linalg.LinAlgWarning)  # the residual decides
        shift = _shift(A)
        F, left, _ = cayley_transform(A, shift)
        G, right, _ = (F, left, None) if B is A else cayley_transform(B, shift)
        Q = right(left(Q).conj().T).conj().T
        if not all(np.all(np.isfinite(a)) for a in (F, G, Q)):
            return None
        try:
            X, converged = double(F, G, Q)
        except FarFromNormal:
            return None
    return X if converged else None


def cayley_transform(A: np.ndarray, shift: float | None = None) -> tuple[np.ndarray, Map, Map]:
    """``(A − σI)⁻¹(A + σI)``, and the maps of input and of adjoint output factors that keep both Gramians; theory, eq. (4.5).

    The transform (n, n) has a spectral radius below 1 if `A` is stable, and its adjoint is the transform of the adjoint of `A`.
    The maps are ``√(2σ) (A − σI)⁻¹ X`` and ``√(2σ) (Aᴴ − σI)⁻¹ X``. The positive `shift` σ is of the size of the eigenvalues by
    default.
    """
    shift = _shift(A) if shift is None else shift
    identity = np.eye(A.shape[0])
    lu = scipy.linalg.lu_factor(A - shift * identity, check_finite=False)

    def apply(X: np.ndarray, trans: int = 0) -> np.ndarray:
        return np.sqrt(2 * shift) * scipy.linalg.lu_solve(lu, X, trans=trans, check_finite=False)

    return scipy.linalg.lu_solve(lu, A + shift * identity, check_finite=False), apply, lambda X: apply(X, 2)


def _shift(A: np.ndarray) -> float:
    """A shift of the size of the eigenvalues: the geometric mean of the extreme singular values, by power steps."""
    x = np.random.default_rng(0).standard_normal(A.shape[0])
    lu = scipy.linalg.lu_factor(A, check_finite=False)
    inverse = 0.0
    for _ in range(8):
        inverse = float(np.linalg.norm(x))
        if not (np.isfinite(inverse) and inverse > 0):
            break
        x = scipy.linalg.lu_solve(lu, x / inverse, trans=2, check_finite=False)
        x = scipy.linalg.lu_solve(lu, x, check_finite=False)
    largest = spectral_norm_estimate(A)
    smallest = 1 / np.sqrt(inverse) if np.isfinite(inverse) and inverse > 0 else 0.0
    return float(np.sqrt(max(smallest, _EPS * largest) * largest)) or 1.0


def _integral(A: np.ndarray, B: np.ndarray, Q: np.ndarray, duration: float) -> np.ndarray:
    """The integral over a finite duration."""
    try:
        return _integrate(A, B, Q, duration, watched=True)
    except FarFromNormal:
        return solve_in_schur_basis(partial(_integrate, duration=duration, watched=False), A, B, Q)


def _integrate(A: np.ndarray, B: np.ndarray, Q: np.ndarray, duration: float, watched: bool) -> np.ndarray:
    """``∫₀^T e^{At} Q e^{Bᴴt} dt``: a Taylor series over a short step, then doubling of the step; theory, eq. (4.6).

    Raises `FarFromNormal` where the exponentials grow and are `watched`.
    """
    step, doublings = _short_step(duration, A, B)
    adjoint = B.conj().T
    term = step * Q
    X, j = term, 1
    while np.linalg.norm(term) > 0.01 * _EPS * np.linalg.norm(X) and j < 60:
        j += 1
        term = (A @ term + term @ adjoint) * (step / j)
        X = X + term
    flow_A = scipy.linalg.expm(step * A)
    flow_B = flow_A.conj().T if B is A else scipy.linalg.expm(step * adjoint)
    watch_A, watch_B = Watch(watched), Watch(watched)
    for k in range(doublings):
        increment = flow_A @ X @ flow_B
        X = X + increment
        if negligible(increment, X, 0.01 * _EPS):  # the rest of the interval no longer counts
            break
        if k < doublings - 1:
            flow_A = watch_A(flow_A) @ flow_A
            flow_B = flow_A.conj().T if B is A else watch_B(flow_B) @ flow_B
    return X


def lyapunov_factor(A: np.ndarray, B: np.ndarray, duration: float | None = None) -> np.ndarray:
    """A factor `R` of ``P = R Rᴴ``, the solution of ``A P + P Aᴴ + B Bᴴ = 0``, without forming `P`.

    Needs all eigenvalues of `A` in the open left half-plane; over a finite `duration` it factors
    ``∫₀^T e^{At} B Bᴴ e^{Aᴴt} dt`` of any `A`.

    `A`, `B`, the factor and what is raised are as for `stein_factor`, the `duration` as for `solve_lyapunov`.

    Notes
    -----
    Infinite horizon: the Cayley transform ``A ← (A − σI)⁻¹(A + σI)``, ``B ← √(2σ) (A − σI)⁻¹ B`` keeps `P` and
    turns the equation into a Stein equation, solved by `stein_factor`. Finite horizon: Gauss–Legendre
    quadrature, exact to rounding over a short step, then doubling of the step. Theory, eq. (4.4) to (4.6).
    """
    A, B = operands(A, B)
    factor: Callable[..., np.ndarray] = _factor_by_cayley
    if duration is not None:
        check_horizon(True, duration)
        factor = partial(_factor_integral, duration=duration)
    try:
        return factor(A, B, watched=True)
    except FarFromNormal:
        return compress_factor(factor_in_schur_basis(partial(factor, watched=False), A, B))


def _factor_by_cayley(A: np.ndarray, B: np.ndarray, watched: bool) -> np.ndarray:
    """A factor of the infinite integral; raises `FarFromNormal` where powers grow and are `watched`."""
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", scipy.linalg.LinAlgWarning)  # the shift is an eigenvalue
        transform, apply, _ = cayley_transform(A)
        B = apply(B)
    if not (np.all(np.isfinite(transform)) and np.all(np.isfinite(B))):
        raise ConvergenceError("a Gramian factor does not exist: A is not stable to working precision")
    return double_factor(transform, B, watched=watched)


def _factor_integral(A: np.ndarray, B: np.ndarray, duration: float, watched: bool) -> np.ndarray:
    """A factor of the integral; raises `FarFromNormal` where the exponentials grow and are `watched`."""
    step, doublings = _short_step(duration, A, A)
    nodes, weights = np.polynomial.legendre.leggauss(12)
    parts, done, flowed = [], 0.0, B
    for node, weight in zip(0.5 * step * (nodes + 1), weights, strict=True):  # from node to node with the factor only
        flowed, done = _flow(A, flowed, node - done), node
        parts.append(np.sqrt(0.5 * step * weight) * flowed)
    R, flow = compress_factor(np.hstack(parts)), scipy.linalg.expm(step * A)
    watch = Watch(watched)
    for k in range(doublings):
        increment = flow @ R
        if negligible(increment, R, _EPS):  # the rest of the interval no longer counts
            break
        R = compress_factor(np.hstack([R, increment]))
        flow = watch(flow) @ flow if k < doublings - 1 else flow
    return R


def _flow(A: np.ndarray, V: np.ndarray, time: float) -> np.ndarray:
    """``e^{A time} V`` by its Taylor series, for a short time."""
    total = term = V
    for j in range(1, 60):
        term = (A @ term) * (time / j)
        total = total + term
        if np.linalg.norm(term) <= 0.01 * _EPS * np.linalg.norm(total):
            break
    return total


def _short_step(duration: float, A: np.ndarray, B: np.ndarray) -> tuple[float, int]:
    """A step ``duration / 2^k`` over which the exponentials are tame, and `k`."""
    size = max(np.linalg.norm(A, 1), np.linalg.norm(B, 1)) * duration
    doublings = max(0, int(np.ceil(np.log2(size))) + 1) if size > 0 else 0
    return duration / 2**doublings, doublings
