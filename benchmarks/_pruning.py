"""Pruning of states without retraining, as published: small references of LAST and AIRE-Prune to compare with.

LAST (arXiv:2411.02824) scores a state by the H∞ norm of its transfer function, AIRE-Prune (arXiv:2602.00534) by the energy of
its impulse response. Both divide a score by the sum of the scores of the layer that are at least as large, and keep the states
above one threshold for the whole model. Here the unit is a slot: a conjugate pair, or a real pole. A channel of a batch of
systems with one input and one output has slots of its own, which compete with all others of the layer.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from lqo_mor import DeepSSM, DiagonalLQOSystem, QuadraticOutput
from lqo_mor.errors import InvalidInputError, UnstableSystemError

SCORES = ("last", "last_squared", "last_pair", "aire", "aire_pair")


def pruned(model: DeepSSM, kept: float, score: str = "last") -> DeepSSM:
    """The model without the slots of the lowest scores; nothing is fitted.

    Parameters
    ----------
    model : DeepSSM
        Model; slots without input or output do not count.
    kept : float
        Fraction of the slots of all layers together that stay, above 0 and up to 1.
    score : {"last", "last_squared", "last_pair", "aire", "aire_pair"}
        See `slot_scores`.

    Returns
    -------
    DeepSSM
        Model with the slots that stay in their old order; channels with fewer slots than the largest of their layer are filled
        up with slots without input and output.

    Raises
    ------
    InvalidInputError
        If `kept` or `score` is out of range, or the score is not defined for a system of the model.
    UnstableSystemError
        If a pole is not inside the unit circle.
    """
    if not 0 < kept <= 1:
        raise InvalidInputError(f"kept must be above 0 and at most 1, got {kept!r}")
    masks = chosen_slots([slot_scores(block.ssm, score) for block in model.blocks], kept)
    blocks = (replace(block, ssm=_compacted(block.ssm, mask)) for block, mask in zip(model.blocks, masks, strict=True))
    return replace(model, blocks=tuple(blocks))


def slot_scores(ssm: DiagonalLQOSystem, score: str) -> np.ndarray:
    """Scores of the slots of one layer before they are normalised.

    With ``g = ‖c‖ ‖b‖`` of the output column and the input row of a slot with pole ``λ``, and ``k = 2`` for a pair, 1 for a real
    pole:

    - "last": ``k g / (1 − |λ|)``, the sum of the H∞ norms of the complex states of the slot. This is the H∞ norm of a real pole,
      and an upper bound of that of a pair.
    - "last_squared": its square, which the code published with LAST normalises.
    - "last_pair": the H∞ norm of the real transfer function of the slot, both states of a pair together; one input and one
      output only. Its maximum over the frequencies is found in closed form.
    - "aire": ``k g² / (1 − |λ|²)``, the sum of the energies of the complex states.
    - "aire_pair": the energy of the real impulse response, for a pair
      ``2 g² / (1 − |λ|²) + 2 Re((c·c) (b·b) / (1 − λ²))`` with products without conjugation.

    The delay of the output (0 or 1) changes none of them. The methods know no quadratic output; here its rows `U` and `V`, times
    the square root of the norm of their column of `W`, are further rows of `C`.

    Parameters
    ----------
    ssm : DiagonalLQOSystem
        Discrete system or batch of systems.
    score : {"last", "last_squared", "last_pair", "aire", "aire_pair"}
        Which score.

    Returns
    -------
    (..., s) ndarray
        Scores; 0 for a slot without input or output.

    Raises
    ------
    InvalidInputError
        If the score is unknown or not defined for the system.
    UnstableSystemError
        If a pole is not inside the unit circle.
    """
    if score not in SCORES:
        raise InvalidInputError(f"score {score!r} is none of {SCORES}")
    poles, real, b, c = ssm.poles, ssm.is_real_pole, ssm.B, _output_columns(ssm)
    modulus = np.abs(poles)
    if np.any(modulus >= 1):
        raise UnstableSystemError("a pole is not inside the unit circle, so that its slot has no finite score")
    states = np.where(real, 1, 2)
    gain = np.linalg.norm(b, axis=-1) * np.linalg.norm(c, axis=-1)
    if score in ("last", "last_squared"):
        norms = states * gain / (1 - modulus)
        return norms if score == "last" else norms**2
    if score == "last_pair":
        if b.shape[-1] > 1 or c.shape[-1] > 1:
            raise InvalidInputError("the score 'last_pair' is for systems with one input and one linear output")
        return np.where(real, gain / (1 - modulus), _pair_norms(poles, b[..., 0] * c[..., 0]))
    energies = states * gain**2 / (1 - modulus**2)
    if score == "aire_pair":
        both = 2 * (np.sum(b * b, axis=-1) * np.sum(c * c, axis=-1) / (1 - poles**2)).real
        energies = np.where(real, energies, np.maximum(energies + both, 0))  # rounding may fall below 0
    return energies


def normalised(scores: np.ndarray) -> np.ndarray:
    """Scores of a layer, each divided by the sum of all in the layer that are not behind it in descending order.

    Parameters
    ----------
    scores : ndarray
        Scores of all slots of the layer, of any shape.

    Returns
    -------
    ndarray
        Of the same shape; 1 for the largest score, 0 for zero.
    """
    flat = scores.ravel()
    order = np.argsort(-flat, kind="stable")
    largest_first = flat[order]
    sums = np.cumsum(largest_first)
    result = np.empty(flat.shape)
    result[order] = np.divide(largest_first, sums, out=np.zeros(flat.shape), where=sums > 0)
    return result.reshape(scores.shape)


def chosen_slots(scores: list[np.ndarray], kept: float) -> list[np.ndarray]:
    """Which slots stay: those of the largest normalised scores of all layers together.

    Parameters
    ----------
    scores : list of ndarray
        Scores of each layer, not normalised; slots of score zero do not count.
    kept : float
        Fraction of the slots that stay, rounded to a whole number of at least 1.

    Returns
    -------
    list of ndarray
        Boolean mask of each layer. Equal scores at the threshold are kept from the first layer on until the number is reached.
    """
    flat = np.concatenate([normalised(layer).ravel() for layer in scores])
    used = np.count_nonzero(flat)
    mask = np.zeros(flat.shape, bool)
    mask[np.argsort(-flat, kind="stable")[: min(used, max(1, round(kept * used)))]] = True
    ends = np.cumsum([layer.size for layer in scores])[:-1]
    return [part.reshape(layer.shape) for part, layer in zip(np.split(mask, ends), scores, strict=True)]


def _output_columns(ssm: DiagonalLQOSystem) -> np.ndarray:
    """What reads the state of each slot, (..., s, rows): the column of C, and those of U and V weighted by W."""
    rows = [ssm.C]
    if ssm.M is not None:
        weight = np.sqrt(np.linalg.norm(ssm.M.W, axis=-2))[..., np.newaxis]
        rows += [weight * ssm.M.U, weight * ssm.M.V]
    return np.concatenate(rows, axis=-2).swapaxes(-1, -2)


def _pair_norms(poles: np.ndarray, residues: np.ndarray) -> np.ndarray:
    """H∞ norms of ``r / (1 − λ z) + conj(r) / (1 − conj(λ) z)`` over the unit circle.

    The squared modulus is a linear over a quadratic polynomial in ``y = 1 − cos ω``, from 0 to 2, so that its maximum is at an
    end or a root of a quadratic equation. A pole in the left half plane is mirrored, which leaves the norm as it is, so that
    slow pairs have their peak at small y, where nothing cancels.
    """
    poles = np.where(poles.real < 0, -poles, poles)
    square = np.abs(poles) ** 2
    at_one = 2 * (residues * (1 - poles.conj())).real  # the numerator at z = 1
    slope = -2 * (residues * poles.conj()).real  # times z − 1, the rest of it
    n0, n1 = at_one**2, -2 * slope * (at_one - slope)
    d0, d2 = np.abs(1 - poles) ** 4, 4 * square
    d1 = 4 * ((1 - square) - (1 + square) * (1 - poles.real))
    half, last = n0 * d2, n0 * d1 - n1 * d0  # the derivative is zero where n1 d2 y² + 2 half y + last = 0
    away = half + np.sqrt(np.maximum(half**2 - n1 * d2 * last, 0))
    with np.errstate(divide="ignore", invalid="ignore"):
        roots = [-away / (n1 * d2), -last / away]
    candidates = np.stack([np.zeros(square.shape), np.full(square.shape, 2.0), *roots])
    y = np.clip(np.nan_to_num(candidates), 0, 2)
    z = np.exp(-2j * np.arcsin(np.sqrt(y / 2)))
    values = (at_one + slope * (z - 1)) / ((1 - poles * z) * (1 - poles.conj() * z))
    return np.max(np.abs(values), axis=0)


def _compacted(ssm: DiagonalLQOSystem, mask: np.ndarray) -> DiagonalLQOSystem:
    """The system with the slots of the mask, at the front of every channel; at least one slot stays as filling."""
    size = max(1, int(np.max(np.count_nonzero(mask, axis=-1))))
    order = np.argsort(~mask, axis=-1, kind="stable")[..., :size]
    used = np.take_along_axis(mask, order, -1)

    def columns(array):
        return np.where(used[..., np.newaxis, :], np.take_along_axis(array, order[..., np.newaxis, :], -1), 0)

    q = ssm.M
    return DiagonalLQOSystem(
        np.where(used, np.take_along_axis(ssm.poles, order, -1), 0.5),
        columns(ssm.B.swapaxes(-1, -2)).swapaxes(-1, -2),
        columns(ssm.C),
        ssm.D,
        None if q is None else QuadraticOutput(columns(q.U), columns(q.V), q.W),
        dt=ssm.dt,
    )
