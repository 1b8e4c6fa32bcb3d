"""Balanced truncation and time-limited balanced truncation by the square-root method."""

from __future__ import annotations

import numpy as np

from lqo_mor.analysis.door import check_keywords
from lqo_mor.analysis.gramians import gramian_factors
from lqo_mor.analysis.norm import Norm
from lqo_mor.analysis.spectrum import InputSpectrum
from lqo_mor.reduction.budget import Budget, budget_of
from lqo_mor.reduction.large import LowRankBalancing, measured, on_intermediate
from lqo_mor.reduction.refit import densified, stabilise
from lqo_mor.reduction.result import Reduction, finish
from lqo_mor.reduction.square_root import Balancing, cut_to, project, projections
from lqo_mor.reduction.unstable import solved
from lqo_mor.systems.batches import silent, stack
from lqo_mor.systems.convert import to_dense, to_diagonal
from lqo_mor.systems.dense import LQOSystem
from lqo_mor.systems.poles import unstable
from lqo_mor.systems.sparse import SparseLQOSystem
from lqo_mor.systems.system import AnySystem, System
from lqo_mor.types import FloatOrBatch, Progress


def balanced_truncation(
    sys: AnySystem,
    order: int | None = None,
    *,
    slots: int | None = None,
    horizon: float | None = None,
    spectrum: InputSpectrum | None = None,
    stable: bool = False,
    balancing: LowRankBalancing | None = None,
    progress: Progress | None = None,
) -> Reduction:
    """Balanced truncation of a linear-quadratic-output system; time-limited over a finite horizon.

    With factors ``P = R Rᵀ`` and ``Q = S Sᵀ`` of the Gramians and ``SᵀR = Z Σ Yᵀ``, the projections
    ``V = R Y₁ Σ₁^{-1/2}``, ``W = S Z₁ Σ₁^{-1/2}`` give ``A_r = WᵀAV``, ``B_r = WᵀB``, ``C_r = CV``,
    ``M_r = VᵀMV``. Time-limited truncation can lose stability; unstable poles are then reflected and the
    outputs refitted, with a `StabilityWarning`. Of a sparse system the factors are low-rank ones (`balance`).

    Parameters
    ----------
    sys, order, slots, horizon
        As for `reduce`. Fewer states are kept where the numerical rank of the Gramians is lower.
    spectrum : InputSpectrum, optional
        That of a stationary input, for discrete systems over the infinite horizon: `P` becomes the covariance of the state
        for that input, and the errors of the result are the weighted ones (`h2_error` with the spectrum).
    stable : bool, default False
        As for `reduce`.
    balancing : LowRankBalancing, optional
        For a sparse system: by `balance`, to share the work among several reductions; made with the default tolerances if not
        given.
    progress : callable, optional
        Called as ``progress(done, total)`` with channels of a batch, or with stages for a sparse system.

    Returns
    -------
    Reduction
        With `hsv`; with `bound`, on the H∞ norm of the error, for linear systems over the infinite horizon without a
        `spectrum`.

    Raises
    ------
    OrderError, UnstableSystemError
        As for `reduce`.
    InvalidInputError
        If a keyword is given that the kind of system does not have: `slots`, `horizon` and `spectrum` are not for sparse
        systems, `balancing` is only for them.

    References
    ----------
    Benner, Goyal, Pontes Duff, IEEE Trans. Autom. Control 67 (2022), for quadratic outputs; Gawronski, Juang,
    Int. J. Systems Science 21 (1990), for the time-limited form; Enns, 23rd IEEE Conf. Decision and Control (1984), for the
    weighted input.

    Examples
    --------
    >>> import lqo_mor as lqo
    >>> sys = lqo.LQOSystem([[0.9, 0.0], [0.0, 0.1]], [[1.0], [1.0]], [[1.0, 0.1]], dt=1.0)
    >>> lqo.balanced_truncation(sys, order=1).system
    LQOSystem(order=1, inputs=1, outputs=1, quadratic=none, dt=1.0)
    """
    check_keywords(sys, horizon, spectrum, slots=slots, balancing=balancing)
    if isinstance(sys, SparseLQOSystem):

        def cut(balancing: LowRankBalancing, norm: Norm, tell: Progress) -> Reduction:
            small = balancing.system
            red = measured(sys, balancing, balanced(small, budget_of(small, order, None), norm))
            tell(1, 1)
            return red

        return on_intermediate(sys, balancing, cut, progress)
    return solved("balanced", balanced, sys, order, slots, horizon, stable, progress, spectrum)


def balanced(sys: System, budget: Budget, norm: Norm, *, progress: Progress | None = None) -> Reduction:
    """`balanced_truncation` in a norm."""
    return truncate(sys, balance(sys, norm, progress), budget, norm)


def balance(sys: System, norm: Norm, progress: Progress | None = None) -> list[Balancing]:
    """The balancing projections of a system, or of every channel of a batch: one pair of factors and one SVD each.

    Raises `InvalidInputError` if a single system has no transfer.
    """
    if isinstance(sys, LQOSystem):
        return [Balancing(sys, *projections(*gramian_factors(sys, norm), sys.order))]
    found, indices = [], list(np.ndindex(sys.batch))
    for index in indices:
        R, S = gramian_factors(sys[index], norm.channel(index))
        if sys.batch and not np.any(S.T @ R):  # one channel without transfer is no reason to refuse all
            parts = R[:, :0], S[:, :0], np.zeros(1)
        else:
            parts = projections(R, S, R.shape[0])
        found.append(Balancing(to_dense(sys[index]), *parts))
        if progress is not None:
            progress(len(found), len(indices))
    return found


def joint_values(sys: System, balanced: list[Balancing]) -> np.ndarray:
    """The Hankel singular values of all channels, (..., k), the shorter ones filled with zeros."""
    values = np.zeros((len(balanced), max(one.hsv.size for one in balanced)))
    for row, one in zip(values, balanced, strict=True):
        row[: one.hsv.size] = one.hsv
    return values.reshape(*getattr(sys, "batch", ()), -1)


def truncate(sys: System, balanced: list[Balancing], budget: Budget, norm: Norm) -> Reduction:
    """The balanced truncation of `sys` within one budget, cut from the balancing projections in that norm."""
    return _or_smaller(sys, _truncated(sys, balanced, budget, norm), balanced, norm)


def balanced_start(sys: System, budget: Budget, norm: Norm) -> Reduction:
    """The balanced truncation that an iterative method starts from: repaired where that is unstable, not a smaller one."""
    return _truncated(sys, balance(sys, norm), budget, norm)


def _truncated(sys: System, balanced: list[Balancing], budget: Budget, norm: Norm) -> Reduction:
    hsv = joint_values(sys, balanced)
    if isinstance(sys, LQOSystem):
        return _truncate_dense(sys, balanced[0], budget.order, norm)
    channels = zip(np.ndindex(sys.batch), balanced, strict=True)
    reduced = [cut_to(one, budget) if one.V.size else silent(sys[index]) for index, one in channels]
    kept = np.reshape([r.order for r in reduced], sys.batch)
    system = stack(reduced, sys.batch) if sys.batch else reduced[0]
    system, repaired = stabilise(sys, system, norm)
    bound = None if np.any(repaired) else _bound(sys, hsv, kept, norm)
    return finish(sys, system, norm, method="balanced", hsv=hsv, bound=bound, repaired=repaired)


def _truncate_dense(sys: LQOSystem, balanced: Balancing, order: int | None, norm: Norm) -> Reduction:
    system = project(sys, balanced.V[:, :order], balanced.W[:, :order])
    bound = _bound(sys, balanced.hsv, np.asarray(system.order), norm)
    repaired = False
    if _is_unstable(system):
        stable, _ = stabilise(sys, to_diagonal(system), norm)
        system, repaired, bound = densified(stable, sys), True, None
    return finish(sys, system, norm, method="balanced", hsv=balanced.hsv, bound=bound, repaired=repaired)


def _is_unstable(system: LQOSystem) -> bool:
    return bool(np.any(unstable(np.linalg.eigvals(system.A), system.is_continuous)))


def _or_smaller(sys: System, red: Reduction, balanced: list[Balancing], norm: Norm) -> Reduction:
    """The truncation or, where a dense one had to be repaired, the largest stable one of fewer states if that is better."""
    if not isinstance(sys, LQOSystem) or not red.repaired:
        return red
    V, W = balanced[0].V, balanced[0].W
    for size in range(int(red.system.order) - 1, 0, -1):
        smaller = project(sys, V[:, :size], W[:, :size])
        if not _is_unstable(smaller):
            return min(red, finish(sys, smaller, norm, method="balanced", hsv=red.hsv), key=lambda one: one.error)
    return red


def _bound(sys: System, hsv: np.ndarray, order: np.ndarray, norm: Norm) -> FloatOrBatch | None:
    """``2 Σ_{k>r} σ_k`` where it holds: linear systems in the usual norm."""
    if sys.M is not None or not norm.plain:
        return None
    dropped = np.arange(hsv.shape[-1]) >= order[..., np.newaxis]
    bound = 2 * np.sum(hsv * dropped, axis=-1)
    return float(bound) if bound.ndim == 0 else bound
