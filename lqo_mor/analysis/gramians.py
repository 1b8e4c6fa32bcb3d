"""Controllability and observability Gramians, their factors, and Hankel singular values."""

from __future__ import annotations

from typing import cast

import numpy as np
import scipy.linalg

from lqo_mor.analysis.door import norm_of
from lqo_mor.analysis.norm import Norm
from lqo_mor.analysis.rows import observed_rows, pair_weights, row_products, split, stack_rows, triangle
from lqo_mor.analysis.spectrum import InputSpectrum
from lqo_mor.analysis.weighted import spectrum_of, state_covariance, weigh, weighted_factor
from lqo_mor.matrix_equations.pairing import diagonal_gramian_factor, real_form, solve_diagonal
from lqo_mor.systems.convert import real_rows, slot_rows
from lqo_mor.systems.dense import LQOSystem
from lqo_mor.systems.diagonal import DiagonalLQOSystem
from lqo_mor.systems.quadratic import QuadraticOutput
from lqo_mor.systems.system import System


def controllability_gramian(sys: System, horizon: float | None = None, spectrum: InputSpectrum | None = None) -> np.ndarray:
    """Controllability Gramian ``P = Σ_{k<L} A^k B Bᴴ (Aᴴ)^k`` (continuous: ``∫ e^{At} B Bᴴ e^{Aᴴt} dt``).

    Over the infinite horizon it solves ``A P Aᴴ − P + B Bᴴ = 0`` (continuous: ``A P + P Aᴴ + B Bᴴ = 0``). It is the
    covariance ``E[x xᴴ]`` of the state for white input of unit power; with a `spectrum` the one for that input,
    ``A P Aᴴ − P + B Fᴴ + F Bᴴ = 0`` with ``F = Σ_{j≥0} A^j B R_jᵀ − ½ B R_0``.

    Parameters
    ----------
    sys : LQOSystem or DiagonalLQOSystem
        The system, or a batch of diagonal ones.
    horizon : float, optional
        Samples (discrete, an integer) or seconds (continuous); infinite by default.
    spectrum : InputSpectrum, optional
        That of a stationary input instead of white noise, for discrete systems over the infinite horizon.

    Returns
    -------
    (..., n, n) ndarray
        Hermitian positive semidefinite. For a diagonal system it is real, in the coordinates of
        `to_dense`: ``√2 Re x`` (``x`` at a real pole) for every slot, then ``√2 Im x`` of the other slots.

    Raises
    ------
    UnstableSystemError
        If the horizon is infinite and the system is not asymptotically stable.

    Examples
    --------
    >>> import lqo_mor as lqo
    >>> lqo.controllability_gramian(lqo.LQOSystem([[0.5]], [[3.0]], [[1.0]]))
    array([[12.]])
    """
    return gramian(sys, norm_of(sys, horizon, spectrum))


def gramian(sys: System, norm: Norm) -> np.ndarray:
    """The `controllability_gramian` in a norm."""
    if isinstance(sys, DiagonalLQOSystem):
        plain, hermitian = half_gramians(sys, norm)
        return real_form(plain, hermitian, sys.is_real_pole, sys.is_real_pole)
    if norm.white:
        return _hermitian(norm.solve(sys.A, sys.A, sys.B @ sys.B.conj().T))
    weighted = weigh(sys, spectrum_of(norm))
    return _hermitian(cast(np.ndarray, state_covariance(weighted, weighted)))  # of a dense system


def observability_gramian(sys: System, horizon: float | None = None, spectrum: InputSpectrum | None = None) -> np.ndarray:
    """Observability Gramian of a linear-quadratic-output system.

    ``Q = Σ_{k<L} (Aᴴ)^k (CᴴC + Σ_i M_iᴴ conj(P) M_i) A^k`` with the controllability Gramian `P` of the same
    horizon (for real data ``CᵀC + Σ M_i P M_i``); over the infinite horizon ``Aᴴ Q A − Q + … = 0``
    (continuous: ``Aᴴ Q + Q A + … = 0``). The squared h² norm is ``tr(Bᴴ Q B) + ‖D‖²``: theory, eq. (3.4). A `spectrum` enters
    by `P` only.

    Parameters
    ----------
    sys : LQOSystem or DiagonalLQOSystem
        The system, or a batch of diagonal ones.
    horizon : float, optional
        Samples (discrete, an integer) or seconds (continuous); infinite by default.
    spectrum : InputSpectrum, optional
        That of a stationary input instead of white noise, for discrete systems over the infinite horizon.

    Returns
    -------
    (..., n, n) ndarray
        Hermitian positive semidefinite, in the same coordinates as `controllability_gramian`.

    Raises
    ------
    UnstableSystemError
        If the horizon is infinite and the system is not asymptotically stable.

    References
    ----------
    Benner, Goyal, Pontes Duff, "Gramians, energy functionals, and balanced truncation for linear dynamical
    systems with quadratic outputs", IEEE Trans. Autom. Control 67 (2022).

    Examples
    --------
    >>> import lqo_mor as lqo
    >>> lqo.observability_gramian(lqo.LQOSystem([[0.5]], [[3.0]], [[3.0]]))
    array([[12.]])
    """
    norm = norm_of(sys, horizon, spectrum)
    if isinstance(sys, LQOSystem):
        Q = sys.C.conj().T @ sys.C
        if sys.M is not None:
            P = gramian(sys, norm)
            M = sys.M.to_dense() if isinstance(sys.M, QuadraticOutput) else sys.M
            Q = Q + sum(Mi.conj().T @ P.conj() @ Mi for Mi in M)
        return _hermitian(norm.solve(sys.A.conj().T, sys.A.conj().T, Q))
    real = sys.is_real_pole
    rows = stack_rows(sys.C, sys.quadratic)
    columns = np.swapaxes(rows, -1, -2)
    left = columns @ row_weights(sys, norm)
    plain = solve_diagonal(norm.pairing, sys.poles, left, sys.poles, columns)
    hermitian = solve_diagonal(norm.pairing, sys.poles, left, sys.poles.conj(), columns.conj())
    # A row z acts on √2 Re x and √2 Im x as √2 Re z and −√2 Im z, like a state with the conjugate entries.
    return real_form(plain.conj(), hermitian.conj(), real, real)


def half_gramians(sys: DiagonalLQOSystem, norm: Norm) -> tuple[np.ndarray, np.ndarray]:
    """``Σ x_k x_kᵀ`` and ``Σ x_k x_kᴴ`` of the slots of a diagonal system, both (..., s, s)."""
    if not norm.white:
        weighted = weigh(sys, spectrum_of(norm))
        return cast(tuple[np.ndarray, np.ndarray], state_covariance(weighted, weighted))  # of a diagonal system
    plain = solve_diagonal(norm.pairing, sys.poles, sys.B, sys.poles, sys.B)
    return plain, solve_diagonal(norm.pairing, sys.poles, sys.B, sys.poles.conj(), sys.B.conj())


def row_weights(sys: DiagonalLQOSystem, norm: Norm) -> np.ndarray:
    """The real matrix `K` with ``CᵀC + Σ M_i P M_i = Zᵀ K Z`` for the rows ``Z = [C; U; V]``; theory, eq. (3.5)."""
    p, q = sys.n_outputs, sys.quadratic
    if q is None:
        return np.broadcast_to(np.eye(p), (*sys.batch, p, p))
    plain, hermitian = half_gramians(sys, norm)
    rows = stack_rows(sys.C, q) * pair_weights(sys)[..., np.newaxis, :]
    S = row_products(rows, plain, hermitian, rows)
    _, uu, uv, vu, vv = split(S, p, q.rank, p, q.rank)
    T = np.swapaxes(q.W, -1, -2) @ q.W
    K = np.zeros_like(S)
    K[..., :p, :p] = np.eye(p)
    middle = np.concatenate([np.concatenate([T * vv, T * vu], axis=-1), np.concatenate([T * uv, T * uu], axis=-1)], axis=-2)
    K[..., p:, p:] = 0.25 * middle
    return K


def _hermitian(P: np.ndarray) -> np.ndarray:
    return 0.5 * (P + P.conj().T)


def gramian_factors(sys: System, norm: Norm) -> tuple[np.ndarray, np.ndarray]:
    """Factors `R`, `S` of both Gramians, ``P = R Rᴴ`` and ``Q = S Sᴴ``, of one system, without forming `P` and `Q`.

    Parameters
    ----------
    sys : LQOSystem or DiagonalLQOSystem
        One system (index a batch first).
    norm : Norm
        The norm, which exists for the system.

    Returns
    -------
    R, S : (n, k) and (n, l) ndarray
        In the coordinates of the system, for a diagonal one those of `to_dense`. The columns of a diagonal one
        are accurate one by one, however small.
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
    real, q = sys.is_real_pole, sys.quadratic
    R, rows = state_factor(sys, norm), sys.C
    if q is not None:
        real_q = QuadraticOutput(real_rows(q.U, real), real_rows(q.V, real), q.W)
        rows = np.concatenate([rows, slot_rows(observed_rows(real_q, R), real)])
    if rows.shape[0] > sys.order:  # rows of a real system: an orthogonal change of them keeps the Gramian
        rows = slot_rows(triangle(real_rows(rows, real)), real)
    # a row acts on the real coordinates like a state with the conjugate entries
    return R, diagonal_gramian_factor(norm.pairing, sys.poles.conj(), rows.conj().T)


def hankel_singular_values(sys: System, horizon: float | None = None, spectrum: InputSpectrum | None = None) -> np.ndarray:
    """Hankel singular values: the singular values of ``Sᴴ R`` with factors of both Gramians.

    For ``M = 0`` and an infinite horizon these are the Hankel singular values of the linear system; with a
    quadratic output the observability Gramian contains it. With a `spectrum` the controllability Gramian is that of
    the weighted input (Enns 1984). Theory, eq. (4.8).

    Parameters
    ----------
    sys : LQOSystem or DiagonalLQOSystem
        The system, or a batch of diagonal ones.
    horizon : float, optional
        Samples (discrete, an integer) or seconds (continuous); infinite by default.
    spectrum : InputSpectrum, optional
        That of a stationary input instead of white noise, for discrete systems over the infinite horizon.

    Returns
    -------
    (..., n) ndarray
        In decreasing order, filled with zeros below the numerical rank. Those of a diagonal system are correct to
        about ten digits down to 1e-14 of the largest; those of a dense one, or with a `spectrum`, to an absolute accuracy
        of about 1e-15 of the largest.

    Raises
    ------
    UnstableSystemError
        If the horizon is infinite and the system is not asymptotically stable.

    Examples
    --------
    >>> import lqo_mor as lqo
    >>> lqo.hankel_singular_values(lqo.LQOSystem([[0.5]], [[3.0]], [[3.0]]))
    array([12.])
    """
    norm = norm_of(sys, horizon, spectrum)
    if not (isinstance(sys, DiagonalLQOSystem) and sys.batch):
        return _hankel_values(sys, norm)
    channels = [_hankel_values(sys[index], norm.channel(index)) for index in np.ndindex(sys.batch)]
    joint = np.zeros((len(channels), int(np.max(sys.order))))
    for row, value in zip(joint, channels, strict=True):
        row[: value.size] = value
    return joint.reshape(*sys.batch, -1)


def _hankel_values(sys: System, norm: Norm) -> np.ndarray:
    R, S = gramian_factors(sys, norm)
    out = np.zeros(sys.order)
    values = _graded_singular_values(S.conj().T @ R)
    out[: values.size] = values
    return out


def _graded_singular_values(G: np.ndarray) -> np.ndarray:
    """Singular values of a matrix whose rows and columns differ much in size, the small ones accurate, too.

    By the preconditioned one-sided Jacobi method (Drmač, Veselić 2008; LAPACK dgejsv) for real matrices.
    """
    if np.iscomplexobj(G) or not np.any(G):
        return np.linalg.svd(G, compute_uv=False)
    tall = G if G.shape[0] >= G.shape[1] else G.T
    values, _, _, work, _, info = scipy.linalg.lapack.dgejsv(tall, joba=2, jobu=3, jobv=3)
    return values * (work[0] / work[1]) if info == 0 else np.linalg.svd(G, compute_uv=False)
