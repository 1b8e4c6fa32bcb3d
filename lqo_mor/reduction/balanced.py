"""Balanced truncation and time-limited balanced truncation by the square-root method."""

from __future__ import annotations

import warnings

import numpy as np

from lqo_mor.analysis._rows import quadratic_of
from lqo_mor.analysis.gramians import gramian_factors
from lqo_mor.analysis.stability import finite
from lqo_mor.errors import AccuracyWarning, InvalidInputError
from lqo_mor.reduction._slots import check_budget, silent, slot_count, stack
from lqo_mor.reduction.outputs import densified
from lqo_mor.reduction.result import Reduction, finish
from lqo_mor.reduction.stabilise import stabilise, unstable
from lqo_mor.systems.convert import to_dense, to_diagonal
from lqo_mor.systems.dense import LQOSystem
from lqo_mor.systems.diagonal import DiagonalLQOSystem
from lqo_mor.systems.quadratic import QuadraticOutput


def balanced_truncation(
    sys, order: int | None = None, *, slots: int | None = None, horizon: float | None = None, progress=None
) -> Reduction:
    """Balanced truncation of a linear-quadratic-output system; time-limited over a finite horizon.

    With factors ``P = R Rᵀ`` and ``Q = S Sᵀ`` of the Gramians and ``SᵀR = Z Σ Yᵀ``, the projections
    ``V = R Y₁ Σ₁^{-1/2}``, ``W = S Z₁ Σ₁^{-1/2}`` give ``A_r = WᵀAV``, ``B_r = WᵀB``, ``C_r = CV``,
    ``M_r = VᵀMV``. Time-limited truncation can lose stability; unstable poles are then reflected and the
    outputs refitted, with a `StabilityWarning`.

    Parameters
    ----------
    sys : LQOSystem or DiagonalLQOSystem
        The full system, or a batch of diagonal ones.
    order : int, optional
        Number of real states to keep, a conjugate pair counts as two. Fewer are kept where the numerical rank
        of the Gramians is lower.
    slots : int, optional
        For diagonal systems, instead of `order`: the number of slots (pairs or real poles) to keep at most.
    horizon : float, optional
        Samples (discrete, an integer) or seconds (continuous); infinite by default.
    progress : callable, optional
        Called as ``progress(done, total)`` with channels of a batch.

    Returns
    -------
    Reduction
        With `hsv`; with `bound`, on the H∞ norm of the error, for linear systems over the infinite horizon.

    Raises
    ------
    OrderError
        If the budget is not a positive integer below the size of the system.
    UnstableSystemError
        If the horizon is infinite and the system is not asymptotically stable.

    References
    ----------
    Benner, Goyal, Pontes Duff, IEEE Trans. Autom. Control 67 (2022), for quadratic outputs; Gawronski, Juang,
    Int. J. Systems Science 21 (1990), for the time-limited form.

    Examples
    --------
    >>> import lqo_mor as lqo
    >>> sys = lqo.LQOSystem([[0.9, 0.0], [0.0, 0.1]], [[1.0], [1.0]], [[1.0, 0.1]])
    >>> lqo.balanced_truncation(sys, order=1).system
    LQOSystem(order=1, inputs=1, outputs=1, quadratic=none, dt=1.0)
    """
    check_budget(sys, order, slots, horizon)
    horizon = finite(horizon)
    if isinstance(sys, LQOSystem):
        return _truncate_dense(sys, order, horizon)
    reduced, values = [], []
    indices = list(np.ndindex(sys.batch))
    for done, index in enumerate(indices):
        system, hsv = _truncate_diagonal(sys[index], order, slots, horizon, bool(sys.batch))
        reduced.append(system)
        values.append(hsv)
        if progress is not None:
            progress(done + 1, len(indices))
    hsv = np.zeros((len(values), max(v.size for v in values)))
    for row, value in zip(hsv, values, strict=True):
        row[: value.size] = value
    kept = np.reshape([r.order for r in reduced], sys.batch)
    hsv = hsv.reshape(*sys.batch, -1)
    system = stack(reduced, sys.batch) if sys.batch else reduced[0]
    system, repaired = stabilise(sys, system, horizon)
    bound = _bound(sys, hsv, kept, horizon) if not np.any(repaired) else None
    return finish(sys, system, method="balanced", horizon=horizon, hsv=hsv, bound=bound, repaired=repaired)


def _truncate_dense(sys: LQOSystem, order: int, horizon) -> Reduction:
    V, W, hsv = _projections(*gramian_factors(sys, horizon), order)
    system = _project(sys, V, W)
    bound, repaired = _bound(sys, hsv, np.asarray(system.order), horizon), False
    if np.any(unstable(np.linalg.eigvals(system.A), sys.is_continuous)):
        stable, _ = stabilise(sys, to_diagonal(system), horizon)
        system, repaired, bound = densified(stable, sys), True, None
    return finish(sys, system, method="balanced", horizon=horizon, hsv=hsv, bound=bound, repaired=repaired)


def _truncate_diagonal(sys: DiagonalLQOSystem, order, slots, horizon, in_batch: bool):
    """One diagonal system; with a budget of slots, the largest order whose poles fit it."""
    R, S = gramian_factors(sys, horizon)
    if in_batch and not np.any(S.T @ R):  # one channel without transfer is no reason to refuse all
        return silent(sys), np.zeros(1)
    dense = to_dense(sys)
    size = order if slots is None else min(2 * slots, sys.order - 1)
    V, W, hsv = _projections(R, S, size)
    for r in range(V.shape[1], 0, -1):
        candidate = _project(dense, V[:, :r], W[:, :r])
        if slots is None or slot_count(np.linalg.eigvals(candidate.A)) <= slots:
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", AccuracyWarning)  # the error of the result is computed anyway
                    return to_diagonal(candidate), hsv
            except InvalidInputError:  # a defective state matrix: one state less has other poles
                continue
    raise InvalidInputError("balanced truncation found no diagonalisable reduced system; keep the system dense")


def _projections(R: np.ndarray, S: np.ndarray, order: int):
    """Balancing projections `V`, `W` (n, ≤ order) and all Hankel singular values."""
    Z, hsv, Yt = np.linalg.svd(S.T @ R, full_matrices=False)
    rank = np.count_nonzero(hsv > hsv[0] * np.finfo(float).eps) if hsv.size and hsv[0] > 0 else 0
    if rank == 0:
        raise InvalidInputError("the system has no transfer from input to output: its Hankel singular values are all zero")
    r = min(order, rank)
    root = np.sqrt(hsv[:r])
    return R @ Yt[:r].T / root, S @ Z[:, :r] / root, hsv


def _project(sys: LQOSystem, V: np.ndarray, W: np.ndarray) -> LQOSystem:
    M = sys.M
    if isinstance(M, QuadraticOutput):
        M = QuadraticOutput(M.U @ V, M.V @ V, M.W)
    elif M is not None:
        M = V.T @ M @ V
    return LQOSystem(W.T @ sys.A @ V, W.T @ sys.B, sys.C @ V, sys.D, M, sys.dt)


def _bound(sys, hsv: np.ndarray, order: np.ndarray, horizon):
    """``2 Σ_{k>r} σ_k`` where it holds: linear systems, infinite horizon."""
    if quadratic_of(sys) is not None or horizon is not None:
        return None
    dropped = np.arange(hsv.shape[-1]) >= order[..., np.newaxis]
    bound = 2 * np.sum(hsv * dropped, axis=-1)
    return float(bound) if bound.ndim == 0 else bound
