"""The h² norm, inner product and error of linear-quadratic-output systems, over an infinite or finite horizon."""

from __future__ import annotations

from typing import Any

import numpy as np

from lqo_mor.analysis.conditioning import WHY, proper_dense_square
from lqo_mor.analysis.door import balanced_units, check_delay, check_keywords, norm_of, prepared
from lqo_mor.analysis.low_rank_gramians import LowRankGramian, given_or_solved
from lqo_mor.analysis.low_rank_norms import sparse_norm
from lqo_mor.analysis.norm import Norm, check_comparable
from lqo_mor.analysis.rounding import CANCELLING, NEGLIGIBLE, SIX_DIGITS, root_noise, warn_of_noise
from lqo_mor.analysis.spectrum import InputSpectrum
from lqo_mor.analysis.squares import diagonal_inner, diagonal_square, feedthrough_inner, strictly_proper_inner
from lqo_mor.analysis.weighted import spectrum_of, weighted_inner
from lqo_mor.analysis.weighted_squares import weighted_diagonal_inner, weighted_square
from lqo_mor.systems.dense import LQOSystem
from lqo_mor.systems.diagonal import DiagonalLQOSystem
from lqo_mor.systems.sparse import SparseLQOSystem
from lqo_mor.systems.system import AnySystem, System, check_kind
from lqo_mor.types import FloatOrBatch


def h2_norm(
    sys: AnySystem,
    horizon: float | None = None,
    *,
    delay: int = 1,
    spectrum: InputSpectrum | None = None,
    controllability: LowRankGramian | None = None,
) -> FloatOrBatch:
    """The h² norm (continuous time: H2 norm) of a linear-quadratic-output system.

    ``‖Σ‖² = ‖D‖_F² + Σ_k ‖C A^k B‖_F² + Σ_i Σ_{k,l} ‖Bᵀ(A^k)ᵀ M_i A^l B‖_F²``, each sum over the horizon; with
    the controllability Gramian ``tr(C P Cᴴ) + Σ_i tr(M_i P M_iᴴ conj(P)) + ‖D‖_F²``. In continuous time
    integrals take the place of the sums, and a feedthrough makes the norm infinite.

    Parameters
    ----------
    sys : LQOSystem, DiagonalLQOSystem or SparseLQOSystem
        The system, or a batch of diagonal ones.
    horizon : float, optional
        Samples (discrete, an integer) or seconds (continuous); infinite by default.
    delay : {1, 0}, default 1
        Timing of the output of a discrete system, as for `simulate`: with 0 the output reads the updated state, so that
        ``D + C B`` stands at lag 0 (deep state-space models). It matters only where there is a feedthrough.
    spectrum : InputSpectrum, optional
        That of a stationary input instead of white noise, for discrete systems over the infinite horizon.
    controllability : LowRankGramian, optional
        For a sparse system its `controllability_gramian`, to share that work; computed if not given.

    Returns
    -------
    float or (...) ndarray
        An array of the batch shape for a batch.

    Raises
    ------
    UnstableSystemError
        If the horizon is infinite and the system is not asymptotically stable.
    InvalidInputError
        If a keyword is given that the kind of system does not have: `horizon`, ``delay=0`` and `spectrum` are for dense and
        diagonal systems, `controllability` for sparse ones.

    Notes
    -----
    With a `spectrum` it is the root of the expected power ``E‖y‖²`` of the output for a stationary input of that
    spectrum, Gaussian with zero mean where there is a quadratic part. With ``P = E[x xᵀ]``,

    ``E‖y‖² = tr(C P Cᵀ) + 2 tr(C E[x uᵀ] Dᵀ) + tr(D R_0 Dᵀ) + Σ_i ((tr M_i P)² + 2 tr(M_i P M_i P))``,

    where ``E[x uᵀ]`` is ``Σ_{j≥0} A^j B R_jᵀ`` for delay 0 and ``Σ_{j≥0} A^j B R_{j+1}ᵀ`` for delay 1. For white input of
    unit power the linear part is the plain norm; the quadratic part, a fourth moment (Isserlis), is not: there
    ``tr(M_i P M_i P)`` counts twice and the mean ``tr M_i P`` of the output is added.

    Examples
    --------
    >>> import lqo_mor as lqo
    >>> round(lqo.h2_norm(lqo.LQOSystem([[0.6]], [[0.8]], [[1.0]], dt=1.0)), 12)
    1.0
    """
    check_keywords(sys, horizon, spectrum, delay=delay, controllability=controllability)
    if isinstance(sys, SparseLQOSystem):
        return sparse_norm(sys, given_or_solved(sys, controllability))
    full, norm = prepared(sys, horizon, spectrum)
    check_delay(delay)
    squared, noise = square_and_noise(full, norm, delay)
    value = np.sqrt(np.maximum(squared, 0.0))
    if not np.all(noise <= SIX_DIGITS * squared):
        why = WHY if isinstance(full, LQOSystem) else CANCELLING
        warn_of_noise("the h2 norm", value, root_noise(squared, noise), why=why)
    return scalar(value)


def norm_value(sys: System, norm: Norm, delay: int = 1) -> FloatOrBatch:
    """The `h2_norm` of a system in a norm."""
    return scalar(np.sqrt(np.maximum(square_and_noise(sys, norm, delay)[0], 0.0)))


def square_and_noise(sys: System, norm: Norm, delay: int) -> tuple[np.ndarray, np.ndarray]:
    """The squared norm of a system, and its noise."""
    if isinstance(sys, DiagonalLQOSystem) and norm.white:
        squared, noise = diagonal_square(sys, norm, delay)
        return (squared + feedthrough_inner(sys, sys, delay), noise) if sys.is_continuous else (squared, noise)
    if isinstance(sys, DiagonalLQOSystem):
        return weighted_square(sys, norm, delay)
    if norm.white:
        proper, lost = proper_dense_square(sys, norm)
        return proper + np.asarray(feedthrough_inner(sys, sys, delay)).real, np.asarray(max(lost, -proper))
    squared = np.asarray(inner_product(sys, sys, norm, delay)).real
    return squared, np.maximum(-squared, 0.0)


def h2_inner(
    sys: System, other: System, horizon: float | None = None, *, delay: int = 1, spectrum: InputSpectrum | None = None
) -> complex | np.ndarray:
    """The h² inner product of two systems with the same inputs and outputs.

    ``⟨Σ, Σ'⟩ = tr(C X C'ᴴ) + Σ_i tr(M_i X M_i'ᴴ Xᵀ) + tr(D D'ᴴ)`` with the cross Gramian
    ``X = Σ_k A^k B B'ᴴ (A'ᴴ)^k`` over the horizon. With a `spectrum` it is ``E[y'ᴴ y]``, see `h2_norm`.

    Parameters
    ----------
    sys, other : LQOSystem or DiagonalLQOSystem
        With equal numbers of inputs and outputs, both discrete or both continuous, and equal batches.
    horizon, delay, spectrum
        As for `h2_norm`.

    Returns
    -------
    float, complex or (...) ndarray
        Complex for complex dense systems; an array of the batch shape for a batch.

    Raises
    ------
    DimensionError
        If inputs, outputs or batches differ.
    UnstableSystemError
        If the horizon is infinite and a system is not asymptotically stable.

    Examples
    --------
    >>> import lqo_mor as lqo
    >>> a, b = lqo.LQOSystem([[0.5]], [[1.0]], [[1.0]], dt=1.0), lqo.LQOSystem([[0.0]], [[1.0]], [[3.0]], dt=1.0)
    >>> lqo.h2_inner(a, b)
    3.0
    """
    norm = norm_of(sys, horizon, spectrum)
    check_other(norm, sys, other)
    check_delay(delay)
    if isinstance(sys, DiagonalLQOSystem) and isinstance(other, DiagonalLQOSystem):
        inner = diagonal_inner if norm.white else weighted_diagonal_inner
        value, noise, norms = inner(sys, other, norm, delay)
        warn_of_noise("the h2 inner product", value, noise, NEGLIGIBLE * norms)
        return scalar(value)
    return scalar(inner_product(balanced_units(sys)[0], balanced_units(other)[0], norm, delay))


def inner_product(sys: System, other: System, norm: Norm, delay: int = 1) -> np.ndarray:
    """The `h2_inner` product of two systems in a norm, one of which is dense."""
    if not norm.white:
        return weighted_inner(sys, other, spectrum_of(norm), delay)
    return strictly_proper_inner(sys, other, norm) + feedthrough_inner(sys, other, delay)


def check_other(norm: Norm, sys: System, other: System) -> None:
    """Raise unless `other` is a system that can be compared with `sys`, and has a norm, too."""
    if other is not sys:
        check_kind(other)
        norm.check(other)
        check_comparable(sys, other)


def scalar(value: Any) -> Any:
    """A Python number instead of an array without axes."""
    return value.item() if np.ndim(value) == 0 and hasattr(value, "item") else value
