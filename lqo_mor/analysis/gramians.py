"""Controllability and observability Gramians, their factors, and Hankel singular values."""

from __future__ import annotations

from typing import cast, overload

import numpy as np
import scipy.linalg

from lqo_mor.analysis.conditioning import WHY, moved, noise_of_rounding, risky
from lqo_mor.analysis.door import balanced_units, check_keywords, norm_of, prepared
from lqo_mor.analysis.low_rank_gramians import (
    LowRankGramian,
    given_or_solved,
    hankel_svd,
    solve_controllability,
    solve_observability,
)
from lqo_mor.analysis.norm import Norm
from lqo_mor.analysis.rounding import EPS, TWICE, UNITS, cancels, size_of, warn_of_noise
from lqo_mor.analysis.rows import observed_rows, pair_weights, row_products, split, stack_rows, triangle
from lqo_mor.analysis.spectrum import InputSpectrum
from lqo_mor.analysis.weighted import spectrum_of, state_covariance, weigh, weighted_factor
from lqo_mor.matrix_equations.pairing import diagonal_gramian_factor, real_form, row_covariance, solve_both
from lqo_mor.systems.convert import member, real_rows, slot_rows
from lqo_mor.systems.dense import LQOSystem
from lqo_mor.systems.diagonal import DiagonalLQOSystem
from lqo_mor.systems.quadratic import QuadraticOutput
from lqo_mor.systems.sparse import SparseLQOSystem
from lqo_mor.systems.system import AnySystem, System


@overload
def controllability_gramian(
    sys: System, horizon: float | None = None, *, spectrum: InputSpectrum | None = None
) -> np.ndarray: ...
@overload
def controllability_gramian(sys: SparseLQOSystem, *, tol: float | None = None) -> LowRankGramian: ...
def controllability_gramian(
    sys: AnySystem, horizon: float | None = None, *, spectrum: InputSpectrum | None = None, tol: float | None = None
) -> np.ndarray | LowRankGramian:
    """Controllability Gramian ``P = Σ_{k<L} A^k B Bᴴ (Aᴴ)^k`` (continuous: ``∫ e^{At} B Bᴴ e^{Aᴴt} dt``).

    Over the infinite horizon it solves ``A P Aᴴ − P + B Bᴴ = 0`` (continuous: ``A P + P Aᴴ + B Bᴴ = 0``). It is the
    covariance ``E[x xᴴ]`` of the state for white input of unit power; with a `spectrum` the one for that input,
    ``A P Aᴴ − P + B Fᴴ + F Bᴴ = 0`` with ``F = Σ_{j≥0} A^j B R_jᵀ − ½ B R_0``. Of a sparse system it is found in low rank,
    ``P ≈ Z Zᵀ`` with ``A P Eᵀ + E P Aᵀ + B Bᵀ = 0`` (discrete: ``A P Aᵀ − E P Eᵀ + B Bᵀ = 0``).

    Parameters
    ----------
    sys : LQOSystem, DiagonalLQOSystem or SparseLQOSystem
        The system, or a batch of diagonal ones.
    horizon : float, optional
        Samples (discrete, an integer) or seconds (continuous); infinite by default.
    spectrum : InputSpectrum, optional
        That of a stationary input instead of white noise, for discrete systems over the infinite horizon.
    tol : float, optional
        For a sparse system: the residual at which the iteration stops, in the spectral norm and relative to ``‖B Bᵀ‖``; 1e-12
        by default.

    Returns
    -------
    (..., n, n) ndarray or LowRankGramian
        Hermitian positive semidefinite. For a diagonal system it is real, in the coordinates of
        `to_dense`: ``√2 Re x`` (``x`` at a real pole) for every slot, then ``√2 Im x`` of the other slots. Of a sparse system
        its factor `Z`.

    Raises
    ------
    UnstableSystemError
        If the horizon is infinite and the system is not asymptotically stable.
    SingularEquationError, ConvergenceError, MissingDependencyError
        For a sparse system: if `E` is singular, if the iteration does not converge, which an unstable pole can cause, too, and
        without pyMOR.
    InvalidInputError
        If a keyword is given that the kind of system does not have: `horizon` and `spectrum` are for dense and diagonal
        systems, `tol` for sparse ones.

    References
    ----------
    For sparse systems: Li, White, "Low rank solution of Lyapunov equations", SIAM J. Matrix Anal. Appl. 24 (2002); Benner,
    Kürschner, Saak, "Self-generating and efficient shift parameters in ADI methods for large Lyapunov and Sylvester equations",
    ETNA 43 (2014); pyMOR, Milk, Rave, Schindler, SIAM J. Sci. Comput. 38 (2016).

    Examples
    --------
    >>> import lqo_mor as lqo
    >>> lqo.controllability_gramian(lqo.LQOSystem([[0.5]], [[3.0]], [[1.0]], dt=1.0))
    array([[12.]])
    """
    check_keywords(sys, horizon, spectrum, tol=tol)
    if isinstance(sys, SparseLQOSystem):
        return solve_controllability(sys, tol)
    norm = norm_of(sys, horizon, spectrum)
    balanced, units = balanced_units(sys)
    P = gramian(balanced, norm)
    if isinstance(balanced, LQOSystem) and norm.white and risky(balanced, P):
        near = moved(balanced)
        warn_of_noise("the Gramian", float(np.linalg.norm(P)), noise_of_rounding(P, lambda: gramian(near, norm)), why=WHY)
    return P * units[:, np.newaxis] * units


def gramian(sys: System, norm: Norm) -> np.ndarray:
    """The `controllability_gramian` in a norm."""
    if isinstance(sys, DiagonalLQOSystem):
        plain, hermitian = half_gramians(sys, norm)
        return real_form(plain, hermitian, sys.is_real_pole, sys.is_real_pole)
    if norm.white:
        return _hermitian(norm.solve(sys.A, sys.A, sys.B @ sys.B.conj().T))
    weighted = weigh(sys, spectrum_of(norm))
    return _hermitian(cast(np.ndarray, state_covariance(weighted, weighted)))  # of a dense system


@overload
def observability_gramian(sys: System, horizon: float | None = None, *, spectrum: InputSpectrum | None = None) -> np.ndarray: ...
@overload
def observability_gramian(
    sys: SparseLQOSystem, *, controllability: LowRankGramian | None = None, tol: float | None = None
) -> LowRankGramian: ...
def observability_gramian(
    sys: AnySystem,
    horizon: float | None = None,
    *,
    spectrum: InputSpectrum | None = None,
    controllability: LowRankGramian | None = None,
    tol: float | None = None,
) -> np.ndarray | LowRankGramian:
    """Observability Gramian of a linear-quadratic-output system.

    ``Q = Σ_{k<L} (Aᴴ)^k (CᴴC + Σ_i M_iᴴ conj(P) M_i) A^k`` with the controllability Gramian `P` of the same
    horizon (for real data ``CᵀC + Σ M_i P M_i``); over the infinite horizon ``Aᴴ Q A − Q + … = 0``
    (continuous: ``Aᴴ Q + Q A + … = 0``). The squared h² norm is ``tr(Bᴴ Q B) + ‖D‖²``: theory, eq. (3.4). A `spectrum` enters
    by `P` only. Of a sparse system it is found in low rank, ``Q ≈ S Sᵀ`` with ``Aᵀ Q E + Eᵀ Q A + CᵀC + Σ_i M_i P M_i = 0``
    (discrete: ``Aᵀ Q A − Eᵀ Q E + … = 0``).

    Parameters
    ----------
    sys, horizon, spectrum
        As for `controllability_gramian`.
    controllability : LowRankGramian, optional
        For a sparse system its `controllability_gramian`, to share that work; computed if not given.
    tol : float, optional
        For a sparse system: the largest residual in the spectral norm, relative to the constant term, also of `P` where it is
        computed; 1e-12 by default.

    Returns
    -------
    (..., n, n) ndarray or LowRankGramian
        Hermitian positive semidefinite, in the same coordinates as `controllability_gramian`. Of a sparse system its factor `S`.

    Raises
    ------
    UnstableSystemError, SingularEquationError, ConvergenceError, MissingDependencyError, InvalidInputError
        As for `controllability_gramian`; `controllability`, too, is for sparse systems.

    References
    ----------
    Benner, Goyal, Pontes Duff, "Gramians, energy functionals, and balanced truncation for linear dynamical
    systems with quadratic outputs", IEEE Trans. Autom. Control 67 (2022).

    Examples
    --------
    >>> import lqo_mor as lqo
    >>> lqo.observability_gramian(lqo.LQOSystem([[0.5]], [[3.0]], [[3.0]], dt=1.0))
    array([[12.]])
    """
    check_keywords(sys, horizon, spectrum, controllability=controllability, tol=tol)
    if isinstance(sys, SparseLQOSystem):
        return solve_observability(sys, given_or_solved(sys, controllability, tol), tol)
    norm = norm_of(sys, horizon, spectrum)
    balanced, units = balanced_units(sys)
    return _of_outputs(balanced, norm) / units[:, np.newaxis] / units


def _of_outputs(sys: System, norm: Norm) -> np.ndarray:
    """The `observability_gramian` in a norm."""
    if isinstance(sys, LQOSystem):
        Q = sys.C.conj().T @ sys.C
        if sys.M is not None:
            P = gramian(sys, norm)
            M = sys.M.to_dense() if isinstance(sys.M, QuadraticOutput) else sys.M
            Q = Q + sum(Mi.conj().T @ P.conj() @ Mi for Mi in M)
        return _hermitian(norm.solve(sys.A.conj().T, sys.A.conj().T, Q))
    real = sys.is_real_pole
    rows = stack_rows(sys.C, sys.M)
    columns = np.swapaxes(rows, -1, -2)
    K, noise = row_weights(sys, norm)
    warn_of_noise("the covariance of the rows of the quadratic output", np.ones(np.shape(noise)), noise)
    left = columns @ K
    plain, hermitian = solve_both(norm.pairing, sys.poles, left, sys.poles, columns)
    # A row z acts on √2 Re x and √2 Im x as √2 Re z and −√2 Im z, like a state with the conjugate entries.
    return real_form(plain.conj(), hermitian.conj(), real, real)


def half_gramians(sys: DiagonalLQOSystem, norm: Norm) -> tuple[np.ndarray, np.ndarray]:
    """``Σ x_k x_kᵀ`` and ``Σ x_k x_kᴴ`` of the slots of a diagonal system, both (..., s, s)."""
    if not norm.white:
        weighted = weigh(sys, spectrum_of(norm))
        return cast(tuple[np.ndarray, np.ndarray], state_covariance(weighted, weighted))  # of a diagonal system
    return solve_both(norm.pairing, sys.poles, sys.B, sys.poles, sys.B)


def row_weights(sys: DiagonalLQOSystem, norm: Norm) -> tuple[np.ndarray, np.ndarray]:
    """The real matrix `K` with ``CᵀC + Σ M_i P M_i = Zᵀ K Z`` for the rows ``Z = [C; U; V]``; theory, eq. (3.5).

    And its noise (...), relative to the variances of the rows.
    """
    p, q = sys.n_outputs, sys.M
    if q is None:
        return np.broadcast_to(np.eye(p), (*sys.batch, p, p)), np.zeros(sys.batch)
    S, noise = _row_covariance(sys, norm)
    _, uu, uv, vu, vv = split(S, p, q.rank, p, q.rank)
    T = np.swapaxes(q.W, -1, -2) @ q.W
    K = np.zeros_like(S)
    K[..., :p, :p] = np.eye(p)
    middle = np.concatenate([np.concatenate([T * vv, T * vu], axis=-1), np.concatenate([T * uv, T * uu], axis=-1)], axis=-2)
    K[..., p:, p:] = 0.25 * middle
    return K, noise


def _row_covariance(sys: DiagonalLQOSystem, norm: Norm) -> tuple[np.ndarray, np.ndarray]:
    """``Z P Zᵀ`` for the rows ``Z = [C; U; V]``, accurate where its terms cancel, and its noise relative to the variances."""
    plain, hermitian = half_gramians(sys, norm)
    rows = stack_rows(sys.C, sys.M) * pair_weights(sys)[..., np.newaxis, :]
    S = row_products(rows, plain, hermitian, rows)
    size = 4 * (np.abs(rows) ** 2 @ np.diagonal(hermitian, axis1=-2, axis2=-1).real[..., np.newaxis])[..., 0]

    def relative(S: np.ndarray, size: np.ndarray, unit: float | np.ndarray) -> np.ndarray:
        variance = np.maximum(np.diagonal(S, axis1=-2, axis2=-1), 0.0)
        with np.errstate(divide="ignore"):
            return np.max(np.divide(unit * size, variance, out=np.zeros(size.shape), where=size > 0), axis=-1, initial=0.0)

    noise = np.asarray(relative(S, size, UNITS * EPS))
    for index in cancels(np.ones(noise.shape), noise):
        one, own = cast(DiagonalLQOSystem, member(sys, index)), norm.channel(index)
        if own.white and own.compiled:
            S[index] = row_covariance(own.pairing, one.poles, one.B, stack_rows(one.C, one.M))[0]
            noise[index] = relative(S[index], size[index], TWICE * (1 + size_of(one, own.pairing).steps))
        else:
            Z, R = real_rows(stack_rows(one.C, one.M), one.is_real_pole), state_factor(one, own)
            S[index] = (Z @ R) @ (Z @ R).T
            noise[index] = np.sqrt(relative(S[index], np.sum((np.abs(Z) @ np.abs(R)) ** 2, axis=-1), EPS**2))
    return S, noise


def _hermitian(P: np.ndarray) -> np.ndarray:
    return 0.5 * (P + P.conj().T)


def gramian_factors(sys: System, norm: Norm) -> tuple[np.ndarray, np.ndarray]:
    """Factors `R`, `S` of both Gramians, ``P = R Rᴴ`` and ``Q = S Sᴴ``, of one system, without forming `P` and `Q`.

    `R` (n, k) and `S` (n, l) are in the coordinates of the system, for a diagonal one those of `to_dense`, whose columns are
    accurate one by one, however small. A batch is to be indexed first.
    """
    if isinstance(sys, DiagonalLQOSystem):
        return _diagonal_factors(sys, norm)

    def rows(R: np.ndarray) -> np.ndarray:
        parts = [sys.C]
        if isinstance(sys.M, QuadraticOutput):
            parts.append(observed_rows(sys.M, R))
        elif sys.M is not None:
            parts.extend(R.T @ Mi for Mi in sys.M)
        rows = np.concatenate(parts)
        return triangle(rows) if rows.shape[0] > rows.shape[1] else rows

    if norm.white:
        return norm.factors(sys.A, sys.B, rows)
    R = state_factor(sys, norm)
    return R, norm.factor(sys.A.conj().T, rows(R).conj().T)


def state_factor(sys: System, norm: Norm) -> np.ndarray:
    """A factor `R` of the controllability Gramian ``P = R Rᴴ`` of one system, without forming `P`."""
    if not norm.white:
        return weighted_factor(weigh(sys, spectrum_of(norm)))
    if isinstance(sys, DiagonalLQOSystem):
        return diagonal_gramian_factor(norm.pairing, sys.poles, sys.B)
    return norm.factor(sys.A, sys.B)


def _diagonal_factors(sys: DiagonalLQOSystem, norm: Norm) -> tuple[np.ndarray, np.ndarray]:
    real, q = sys.is_real_pole, sys.M
    R, rows = state_factor(sys, norm), sys.C
    if q is not None:
        real_q = QuadraticOutput(real_rows(q.U, real), real_rows(q.V, real), q.W)
        rows = np.concatenate([rows, slot_rows(observed_rows(real_q, R), real)])
    if rows.shape[0] > sys.order:  # rows of a real system: an orthogonal change of them keeps the Gramian
        rows = slot_rows(triangle(real_rows(rows, real)), real)
    # a row acts on the real coordinates like a state with the conjugate entries
    return R, diagonal_gramian_factor(norm.pairing, sys.poles.conj(), rows.conj().T)


def hankel_singular_values(
    sys: AnySystem,
    horizon: float | None = None,
    *,
    spectrum: InputSpectrum | None = None,
    controllability: LowRankGramian | None = None,
) -> np.ndarray:
    """Hankel singular values: the singular values of ``Sᴴ R`` with factors of both Gramians.

    For ``M = 0`` and an infinite horizon these are the Hankel singular values of the linear system; with a
    quadratic output the observability Gramian contains it. With a `spectrum` the controllability Gramian is that of
    the weighted input (Enns 1984). Theory, eq. (4.8).

    Parameters
    ----------
    sys, horizon, spectrum, controllability
        As for `observability_gramian`.

    Returns
    -------
    (..., n) ndarray
        In decreasing order, filled with zeros below the numerical rank. Those of a diagonal system are correct to
        about ten digits down to 1e-14 of the largest; those of a dense one, or with a `spectrum`, to an absolute accuracy
        of about 1e-15 of the largest. Of a sparse system there are as many as the factors have columns, those below about 1e-5
        of the largest to fewer digits.

    Raises
    ------
    UnstableSystemError, SingularEquationError, ConvergenceError, MissingDependencyError, InvalidInputError
        As for `observability_gramian`.

    Examples
    --------
    >>> import lqo_mor as lqo
    >>> lqo.hankel_singular_values(lqo.LQOSystem([[0.5]], [[3.0]], [[3.0]], dt=1.0))
    array([12.])
    """
    check_keywords(sys, horizon, spectrum, controllability=controllability)
    if isinstance(sys, SparseLQOSystem):
        P = given_or_solved(sys, controllability)
        return hankel_svd(sys, P, solve_observability(sys, P))[1]
    balanced, norm = prepared(sys, horizon, spectrum)
    batch = getattr(sys, "batch", ())
    joint, noise = np.zeros((*batch, np.max(sys.order))), np.zeros(batch)
    for index in np.ndindex(batch):
        R, S = gramian_factors(member(balanced, index), norm.channel(index))
        values = _graded_singular_values(S.conj().T @ R)
        joint[(*index, slice(values.size))] = values
        if isinstance(sys, DiagonalLQOSystem):  # whose rows and states may cancel
            noise[index] = UNITS * EPS * np.max(np.abs(S).T @ np.abs(R), initial=0.0)
    warn_of_noise("the largest Hankel singular value", joint[..., 0], noise)
    return joint


def _graded_singular_values(G: np.ndarray) -> np.ndarray:
    """Singular values of a matrix whose rows and columns differ much in size, the small ones accurate, too.

    By the preconditioned one-sided Jacobi method (Drmač, Veselić 2008; LAPACK dgejsv) for real matrices.
    """
    if np.iscomplexobj(G) or not np.any(G):
        return np.linalg.svd(G, compute_uv=False)
    tall = G if G.shape[0] >= G.shape[1] else G.T
    values, _, _, work, _, info = scipy.linalg.lapack.dgejsv(tall, joba=2, jobu=3, jobv=3)
    return values * (work[0] / work[1]) if info == 0 else np.linalg.svd(G, compute_uv=False)
