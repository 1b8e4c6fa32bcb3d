"""Closed-form optimal outputs of a reduced system with given poles and inputs."""

from __future__ import annotations

from typing import cast

import numpy as np
import scipy.linalg

from lqo_mor.analysis.norm import HorizonNorm, Norm
from lqo_mor.analysis.norms import norm_value
from lqo_mor.analysis.rows import pair_weights, stack_rows, unstack_rows
from lqo_mor.errors import StabilityWarning, warn
from lqo_mor.reduction.objective import error_kernels
from lqo_mor.reduction.objective.error import (
    Problem,
    evaluate,
    problem_of,
    reduced_system,
    solve_rows,
    with_ridge,
    without_feedthrough,
)
from lqo_mor.systems.batches import choose, silent, stack
from lqo_mor.systems.convert import to_dense
from lqo_mor.systems.dense import LQOSystem
from lqo_mor.systems.diagonal import DiagonalLQOSystem
from lqo_mor.systems.poles import reflect, unstable
from lqo_mor.systems.quadratic import projected
from lqo_mor.systems.system import System


def fit_outputs(sys: System, poles: np.ndarray, B: np.ndarray, norm: Norm, ridge: float = 0.0) -> DiagonalLQOSystem:
    """The reduced system with given poles and inputs whose outputs minimise the h² error; theory, eq. (6.1).

    For fixed ``(A_r, B_r)`` the error is a linear least-squares problem in the outputs with the solution
    ``C_r = C X P_r⁻¹``, ``U_r = U X P_r⁻¹``, ``V_r = V X P_r⁻¹``, ``W_r = W``.

    Takes `poles` (..., s) in half storage and input rows `B` (..., s, m), real at real poles. `ridge` is a penalty on the
    residues relative to the squared error; it bounds the outputs where poles meet.
    """
    if isinstance(sys, DiagonalLQOSystem) and sys.batch:
        if sys.n_inputs == 1 and norm.white and norm.compiled:
            return _fit_batch(sys, poles, B, norm, ridge)
        indices = np.ndindex(sys.batch)
        return stack([fit_outputs(sys[i], poles[i], B[i], norm.channel(i), ridge) for i in indices], sys.batch)
    return fit_to(problem_of(sys, norm), sys, poles, B, ridge)


def fit_to(problem: Problem, sys: System, poles: np.ndarray, B: np.ndarray, ridge: float) -> DiagonalLQOSystem:
    """`fit_outputs` for one system whose `Problem` is at hand."""
    real = poles.imag == 0
    e = evaluate(problem, poles, B + 0j, real)
    return reduced_system(problem, poles, B, real, solve_rows(with_ridge(e, ridge), e.D), problem.W, sys.D, sys.dt)


def fitted_to(sys: System, small: System, norm: Norm, cut: float = 0.0) -> System:
    """The states of `small` with the best outputs for `sys`; a `cut` above zero bounds outputs where states hardly differ."""
    if isinstance(sys, DiagonalLQOSystem):
        small = cast(DiagonalLQOSystem, small)
        return fit_outputs(sys, small.poles, small.B, norm, cut)
    small = cast(LQOSystem, small)
    K = states_on(sys, [small], norm, cut or None)
    return LQOSystem(small.A, small.B, sys.C @ K, sys.D, projected(sys.M, K), sys.dt)


def states_on(sys: LQOSystem, basis: list[LQOSystem], norm: Norm, cut: float | None = None) -> np.ndarray:
    """``K = X P⁻¹`` (n, r), by which the states of other systems, side by side, stand for those of `sys`: ``x ≈ K x_r``.

    Block by block, since the states of one may grow and those of another decay. What is below `cut` times the largest
    eigenvalue of the Gramian `P`, with ones on its diagonal, counts as zero, by default what rounding leaves of it.
    """
    if not basis:
        return np.zeros((sys.order, 0))

    def cross(a: LQOSystem, b: LQOSystem) -> np.ndarray:
        return white(norm).solve(a.A, b.A, a.B @ b.B.T)

    X, P = np.hstack([cross(sys, one) for one in basis]), np.block([[cross(a, b) for b in basis] for a in basis])
    d = np.sqrt(np.maximum(np.diagonal(P), 0.0))
    d = np.where(d > 0, d, 1.0)
    P = P / d / d[:, np.newaxis]
    return (X / d) @ scipy.linalg.pinvh(0.5 * (P + P.T), rtol=cut) / d


def white(norm: Norm) -> HorizonNorm:
    """The norm of the same horizon for white input."""
    return HorizonNorm(norm.continuous, norm.horizon)


def nothing(sys: System) -> System:
    """A system of one state without input and output, and the feedthrough of `sys`."""
    if isinstance(sys, DiagonalLQOSystem):
        return silent(sys)
    M = None if sys.M is None else np.zeros((sys.n_outputs, 1, 1))
    return LQOSystem(
        [[-1.0 if sys.is_continuous else 0.5]], np.zeros((1, sys.n_inputs)), np.zeros((sys.n_outputs, 1)), sys.D, M, sys.dt
    )


def densified(system: System, sys: LQOSystem) -> LQOSystem:
    """A reduced system as a dense one, its quadratic output stored as that of `sys`."""
    dense = to_dense(system) if isinstance(system, DiagonalLQOSystem) else system
    if isinstance(sys.M, np.ndarray) and not isinstance(dense.M, np.ndarray):
        M = np.zeros((sys.n_outputs, dense.order, dense.order)) if dense.M is None else dense.M.to_dense()
        return LQOSystem(dense.A, dense.B, dense.C, dense.D, M, dense.dt)
    return dense


def channel_arrays(sys: DiagonalLQOSystem, norm: Norm) -> tuple[int, np.ndarray, np.ndarray, np.ndarray, int, np.ndarray]:
    """What the kernels need of a batch with one input, its axes flattened to one.

    Returns the pairing's code and parameters, and per channel the poles (h, n), the weighted rows (h, q, n), the
    number `p` of linear rows and the mixing matrices (h, p, c).
    """
    rows = stack_rows(sys.C, sys.M) * (pair_weights(sys) * sys.B[..., 0])[..., np.newaxis, :]
    p, count = sys.n_outputs, int(np.prod(sys.batch))
    W = np.zeros((count, p, 0)) if sys.M is None else sys.M.W.reshape(count, p, -1)
    return (
        norm.pairing.compiled_code,
        np.array(norm.pairing.parameters),
        np.array(sys.poles.reshape(count, -1)),  # copies: kernels would be compiled once more for read-only arrays
        np.array(rows.reshape(count, *rows.shape[-2:]), order="C"),
        p,
        np.array(W, order="C"),
    )


def squared_norms(sys: DiagonalLQOSystem, norm: Norm) -> np.ndarray:
    """Squared norms without the feedthrough of a batch, its axes flattened to one, (h,)."""
    return np.reshape(norm_value(without_feedthrough(sys), norm), -1) ** 2


def rows_to_real(rows: np.ndarray, real: np.ndarray) -> np.ndarray:
    """Rows (h, q, s) of half storage in real coordinates, (h, q, 2s), each channel filled with zeros at the end."""
    s = rows.shape[-1]
    out = np.zeros((*rows.shape[:-1], 2 * s))
    out[..., :s] = np.where(real, 1.0, np.sqrt(2.0))[:, np.newaxis] * rows.real
    for h, slot in zip(*np.nonzero(~real), strict=True):
        out[h, :, s + np.count_nonzero(~real[h, :slot])] = -np.sqrt(2.0) * rows.imag[h, :, slot]
    return out


def rows_from_real(real_rows: np.ndarray, real: np.ndarray) -> np.ndarray:
    """Inverse of `rows_to_real`."""
    s = real.shape[-1]
    position = s + np.maximum(np.cumsum(~real, axis=1) - 1, 0)  # where the imaginary part of a pair is
    shape = (*real_rows.shape[:-1], s)
    imaginary = np.take_along_axis(real_rows, np.broadcast_to(position[:, np.newaxis], shape), axis=2)
    slots = real_rows[..., :s] / np.where(real, 1.0, np.sqrt(2.0))[:, np.newaxis] + 0j
    return slots - 1j * np.where(real[:, np.newaxis], 0.0, imaginary / np.sqrt(2.0))


def channel_system(sys: DiagonalLQOSystem, mu: np.ndarray, b: np.ndarray, rows: np.ndarray, W: np.ndarray) -> DiagonalLQOSystem:
    """The reduced batch from flattened poles and inputs (h, s), rows (h, q, s) in half storage and mixing (h, p, c)."""
    rows, W = (array.reshape(*sys.batch, *array.shape[1:]) for array in (rows, W))
    C, quadratic = unstack_rows(rows, W)
    return DiagonalLQOSystem(mu.reshape(*sys.batch, -1), b.reshape(*sys.batch, -1, 1), C, sys.D, quadratic, dt=sys.dt)


def _fit_batch(sys: DiagonalLQOSystem, poles: np.ndarray, B: np.ndarray, norm: Norm, ridge: float) -> DiagonalLQOSystem:
    code, parameters, lam, rows, _, W = channel_arrays(sys, norm)
    count, s = lam.shape[0], poles.shape[-1]
    mu, b = poles.reshape(count, s).astype(complex), B.reshape(count, s).astype(complex)
    used, fitted = b != 0, np.zeros((count, rows.shape[1], s), complex)
    counts = np.count_nonzero(used, axis=1)
    for size in np.unique(counts[counts > 0]):  # padding slots have no input, which would make the Gramian singular
        part = np.flatnonzero(counts == size)
        members = used[part]
        own_mu, own_b = mu[part][members].reshape(-1, size), b[part][members].reshape(-1, size)
        optimal, real = np.zeros((part.size, rows.shape[1], 2 * size)), own_mu.imag == 0
        error_kernels._fit(code, parameters, lam[part], rows[part], own_mu, own_b, real, ridge, optimal)
        own = np.zeros((part.size, rows.shape[1], s), complex)
        np.swapaxes(own, 1, 2)[members] = np.swapaxes(rows_from_real(optimal, real), 1, 2).reshape(-1, rows.shape[1])
        fitted[part] = own
    return channel_system(sys, mu, b, fitted, W)


def stabilise(sys: System, reduced: DiagonalLQOSystem, norm: Norm) -> tuple[DiagonalLQOSystem, np.ndarray]:
    """A stable version of a reduced system, and which members of its batch were repaired; theory, eq. (7.8).

    Unstable poles are reflected at the stability boundary and the outputs refitted in closed form, in `norm`; a
    `StabilityWarning` says if anything was repaired. Both systems have the same batch.
    """
    repaired = np.any(unstable(reduced.poles, reduced.is_continuous), axis=-1)
    if not np.any(repaired):
        return reduced, repaired
    warn_of_repair(repaired)
    fitted = fit_outputs(sys, reflect(reduced.poles, reduced.is_continuous), reduced.B, norm)
    return choose(repaired, fitted, reduced), repaired


def warn_of_repair(repaired: bool | np.ndarray) -> None:
    """Issue the `StabilityWarning` that says how many reduced systems were repaired."""
    what = (
        "the reduced system was"
        if np.size(repaired) == 1
        else f"{np.count_nonzero(repaired)} of {np.size(repaired)} reduced systems were"
    )
    warn(f"{what} unstable; the unstable poles were reflected and the outputs refitted", StabilityWarning)
