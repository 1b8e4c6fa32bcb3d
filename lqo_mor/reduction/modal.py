"""Modal truncation and fresh HiPPO poles, both with outputs in closed form: cheap baselines and starts."""

from __future__ import annotations

import numpy as np

from lqo_mor.analysis.gramians import half_gramians, row_weights
from lqo_mor.analysis.norm import Norm
from lqo_mor.analysis.rows import stack_rows
from lqo_mor.errors import InvalidInputError
from lqo_mor.reduction.budget import Budget
from lqo_mor.reduction.refit import densified, fit_outputs, warn_of_repair
from lqo_mor.reduction.result import Reduction, finish
from lqo_mor.reduction.unstable import solved
from lqo_mor.systems.batches import stack
from lqo_mor.systems.convert import to_diagonal
from lqo_mor.systems.dense import LQOSystem
from lqo_mor.systems.diagonal import DiagonalLQOSystem
from lqo_mor.systems.poles import reflect, unstable
from lqo_mor.systems.system import System
from lqo_mor.types import Progress

_FASTEST = 1e-300  # modulus of a pole at zero
_SLOWEST = 1e-12  # decay of a pole at the stability boundary, relative to the largest exponent


def modal_truncation(
    sys: System,
    order: int | None = None,
    *,
    slots: int | None = None,
    horizon: float | None = None,
    stable: bool = False,
    ridge: float = 0.0,
    progress: Progress | None = None,
) -> Reduction:
    """Keep the modes that contribute most and refit the outputs in closed form.

    The contribution of a mode is the energy that it gives to the outputs by itself, of a pair the mean over the phase of its
    residue; it does not depend on the scaling of the states.

    Parameters
    ----------
    sys, order, slots, horizon
        As for `reduce`; a dense system must be diagonalisable, and `order` is the most states to keep.
    stable : bool, default False
        As for `reduce`.
    ridge : float, default 0
        Penalty on the squared residues in the refit, relative to the squared error; see `variable_projection`.
    progress : callable, optional
        Called once, as ``progress(1, 1)``, at the end; there is nothing to wait for.

    Returns
    -------
    Reduction

    Warns
    -----
    StabilityWarning
        If a `stable` result is asked for and a mode kept over a finite horizon is not; its pole is reflected at the boundary.

    Raises
    ------
    OrderError, UnstableSystemError
        As for `reduce`.
    InvalidInputError
        If `order` is 1 and every pole is complex, or a dense system is not diagonalisable.

    Examples
    --------
    >>> import lqo_mor as lqo
    >>> sys = lqo.DiagonalLQOSystem([0.9, 0.1], [[1.0], [1.0]], [[1.0, 0.1]], dt=1.0)
    >>> lqo.modal_truncation(sys, order=1).system.poles
    array([0.9+0.j])
    """
    return solved("modal", modal, sys, order, slots, horizon, stable, progress, ridge=ridge)


def modal(sys: System, budget: Budget, norm: Norm, *, ridge: float = 0.0, progress: Progress | None = None) -> Reduction:
    """`modal_truncation` in a norm."""
    full = _modes(sys)
    ranking = np.argsort(-mode_scores(full, norm), axis=-1, kind="stable")
    selected = [_keep(full, ranking, index, budget) for index in np.ndindex(full.batch)]
    return _fit(sys, full, selected, "modal", norm, ridge, progress)


def hippo(
    sys: System,
    order: int | None = None,
    *,
    slots: int | None = None,
    horizon: float | None = None,
    stable: bool = False,
    ridge: float = 0.0,
    progress: Progress | None = None,
) -> Reduction:
    """Fresh S4D-Lin poles of the small order with closed-form outputs: the untrained baseline.

    The poles ``−½ + iπk`` (S4D-Lin, from the HiPPO matrix), k = 0, 1, …, are scaled by one time step per
    channel, the geometric mean of ``−2 Re log λ`` over the poles of the full system. Each takes the input row
    of the nearest full pole. ``k = 0`` is a real pole; for an even order it becomes a pair at ``k = ½``.

    Parameters
    ----------
    sys, order, slots, horizon, stable, ridge, progress
        As for `modal_truncation`.

    Returns
    -------
    Reduction

    Raises
    ------
    OrderError, UnstableSystemError
        As for `reduce`.

    References
    ----------
    Gu, Gupta, Goel, Ré, "On the parameterization and initialization of diagonal state space models",
    NeurIPS 2022.

    Examples
    --------
    >>> import lqo_mor as lqo
    >>> sys = lqo.DiagonalLQOSystem([0.9, 0.9 + 0.1j], [[1.0], [1.0]], [[1.0, 0.1]], dt=1.0)
    >>> lqo.hippo(sys, slots=1).system.n_slots
    1
    """
    return solved("hippo", fresh, sys, order, slots, horizon, stable, progress, ridge=ridge)


def fresh(sys: System, budget: Budget, norm: Norm, *, ridge: float = 0.0, progress: Progress | None = None) -> Reduction:
    """`hippo` in a norm."""
    full = _modes(sys)
    pairs, odd = divmod(budget.order or 0, 2)
    if budget.slots is not None or odd:
        shape = -0.5 + 1j * np.pi * np.arange(budget.slots or pairs + 1)
    else:
        shape = -0.5 + 1j * np.pi * np.maximum(np.arange(pairs), 0.5)
    selected = []
    for index in np.ndindex(full.batch):
        poles = full.poles[index]
        exponents = poles if full.is_continuous else np.log(np.where(np.abs(poles) > _FASTEST, poles, _FASTEST))
        decay = np.maximum(-2 * exponents.real, _SLOWEST * np.max(np.abs(exponents)))
        exponents = np.exp(np.mean(np.log(np.where(decay > 0, decay, 1.0)))) * shape
        new = exponents if full.is_continuous else np.exp(exponents)
        new = np.where(shape.imag == 0, new.real, new)
        nearest = np.argmin(np.abs(new[:, np.newaxis] - poles), axis=1)
        B = full.B[index][nearest]
        selected.append((new, np.where((new.imag == 0)[:, np.newaxis], B.real, B)))
    return _fit(sys, full, selected, "hippo", norm, ridge, progress)


def _modes(sys: System) -> DiagonalLQOSystem:
    """The system in modal coordinates; raises `InvalidInputError` where it has none."""
    if isinstance(sys, DiagonalLQOSystem):
        return sys
    try:
        return to_diagonal(sys)
    except InvalidInputError as err:
        raise InvalidInputError(f'{err}; the methods "optimal", "balanced" and "tsia" need no modes') from None


def mode_scores(sys: DiagonalLQOSystem, norm: Norm) -> np.ndarray:
    """Energy that every slot by itself gives to the outputs, (..., s): its covariance times its weight in the outputs.

    Of a pair it is the mean over the phase of its residue (theory, eq. (7.9)), at a real pole exact. The weight is the diagonal
    of ``CᵀC + Σ M_i P M_i``, so that a quadratic output counts with the other modes there.
    """
    _, hermitian = half_gramians(sys, norm)
    rows = stack_rows(sys.C, sys.M)
    weight = np.sum(rows.conj() * (row_weights(sys, norm)[0] @ rows), axis=-2).real
    return np.where(sys.is_real_pole, 1.0, 2.0) * weight * np.diagonal(hermitian, axis1=-2, axis2=-1).real


def _keep(full: DiagonalLQOSystem, ranking: np.ndarray, index: tuple[int, ...], budget: Budget) -> tuple[np.ndarray, np.ndarray]:
    """Poles and input rows of the best slots of one channel that fit the budget."""
    chosen: list[int] = []
    left = budget.slots or budget.order or 0
    for slot in ranking[index]:
        cost = 1 if budget.slots is not None or full.is_real_pole[(*index, slot)] else 2
        if cost <= left:
            chosen.append(slot)
            left -= cost
    if not chosen:
        raise InvalidInputError("order 1 cannot be met: every pole is one of a conjugate pair, which counts as two states")
    return full.poles[index][chosen], full.B[index][chosen]


def _fit(
    sys: System,
    full: DiagonalLQOSystem,
    selected: list[tuple[np.ndarray, np.ndarray]],
    method: str,
    norm: Norm,
    ridge: float,
    progress: Progress | None,
) -> Reduction:
    """Optimal outputs for poles and inputs selected channel by channel; unstable poles are reflected first."""
    repaired = np.reshape([np.any(unstable(poles, full.is_continuous)) for poles, _ in selected], full.batch)
    selected = [(reflect(poles, full.is_continuous), B) for poles, B in selected]
    if np.any(repaired):
        warn_of_repair(repaired)
    if len({poles.size for poles, _ in selected}) == 1:
        poles, B = (np.stack(parts) for parts in zip(*selected, strict=True))
        system = fit_outputs(full, poles.reshape(*full.batch, -1), B.reshape(*full.batch, -1, full.n_inputs), norm, ridge)
    else:
        channels = zip(np.ndindex(full.batch), selected, strict=True)
        system = stack([fit_outputs(full[i], p, b, norm.channel(i), ridge) for i, (p, b) in channels], full.batch)
    if progress is not None:
        progress(1, 1)
    reduced = densified(system, sys) if isinstance(sys, LQOSystem) else system
    return finish(sys, reduced, norm, method=method, repaired=repaired if full.batch else bool(repaired))
