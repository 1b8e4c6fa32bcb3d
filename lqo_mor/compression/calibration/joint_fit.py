"""All linear parts of a reduced model, fitted together to the outputs of the full one by the Gauss-Newton method."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import numpy as np
import scipy.linalg

from lqo_mor.compression.calibration.linear_parameters import Part, differentiate, linear_parameters, moved
from lqo_mor.compression.calibration.spectra import Spool
from lqo_mor.network.model import DeepSSM
from lqo_mor.types import Progress

_FOLDS = 5
_RIDGES = 10.0 ** np.arange(1.0, -3.5, -0.5)  # relative to the mean square of the gradients
_DIRECTIONS = 6  # principal ones of the missing outputs, that equations are made for
FEWEST = 50  # sequences to trust a cross-validation with: what went before a fit was fitted to the same ones
_EQUATIONS = 4096  # one for every sequence and direction
_FEW = 512  # equations, too few for the many parameters of the maps
_NUMBERS = 2**29  # in the matrix of the equations, 2 GiB
_WORTH = 0.99  # of the squared error: a fit that leaves more is not made
_STEPS = 8  # at most
_LENGTHS = (1.0, 0.5, 0.25)  # of a step, the first one with which the error falls
_STRAIGHT = 0.02  # of the squared error to expect: a step whose linearisation leaves out less is the last
_PROGRESS = 0.99  # of the squared error that the step before promised: one that promises more is the last
_COLUMNS = 4096  # of that matrix in a copy


def jointly_fitted(
    model: DeepSSM, inputs: Spool, wanted: Spool, *, mixing: bool, feedthrough: bool, progress: Progress
) -> tuple[DeepSSM, float, float]:
    """A model with the output weights of all systems, the maps behind them and the decoder moved towards wanted outputs.

    The Gauss-Newton method for least squares with a penalty on the change, in which the kinds of parameters have equal shares in
    what they can move: one step where the model is close to its linearisation, more where that leaves out much. The penalty is
    chosen by cross-validation over sequences, in the first step. Outputs are fitted along the principal directions of what is
    missing in them, as many as the number of equations allows. Theory, eq. (9.10).

    Parameters
    ----------
    model : DeepSSM
        The reduced model: linear channels or single systems, and pooled outputs.
    inputs, wanted : Spool
        Inputs of the model in pieces, and the outputs that it should have.
    mixing : bool
        Whether mixing maps and the decoder may change.
    feedthrough : bool
        Whether feedthroughs may change.
    progress : callable
        Called as ``progress(done, total)``.

    Returns
    -------
    DeepSSM
        The old one itself where the fit promises nothing.
    float
        The relative rms error of its outputs for these inputs.
    float
        The error to expect for others: for a changed model that by cross-validation, and what the linearisation leaves out.
    """
    parts = linear_parameters(model, mixing)
    if _room(parts) < _FEW:  # a wide model
        parts = [part for part in parts if part.kind != "mixing"]
    power = float(sum(np.sum(y**2) for y in wanted))
    missing = _missing(model, inputs, wanted)
    before = _rms(missing, power)
    stride = math.ceil(sum(map(len, missing)) / max(1, _room(parts)))
    errors = np.concatenate(missing)[::stride]
    if before == 0.0 or len(errors) < FEWEST:
        return model, before, before
    directions = np.linalg.svd(errors, full_matrices=False)[2][: max(1, min(_DIRECTIONS, _room(parts) // len(errors)))]
    gradients = [np.zeros((len(errors) * len(directions), part.size), np.float32) for part in parts]
    # Neighbours, which may be alike, are in one fold.
    fold = np.repeat(np.arange(len(errors)) * _FOLDS // len(errors), len(directions))
    moves, current, rest, ridges, scales = [np.zeros(part.size) for part in parts], model, errors, _RIDGES, None
    best, least, last = (model, before, before), float(np.sum(errors**2)), np.inf
    for _ in range(_STEPS):
        pieces = _every(inputs, stride)
        differentiate(current, pieces, directions, feedthrough, parts, gradients, lambda done: progress(done, len(errors)))
        scales = _scales(parts, gradients) if scales is None else scales
        gram = _gram(scales, gradients)
        right = (rest @ directions.T).ravel()
        for array, move in zip(gradients, moves, strict=True):
            right += array @ move.astype(np.float32)  # all steps together are penalised, from the model on
        left = _left(gram, right, fold, ridges)
        chosen = int(np.argmin(left))
        if not left[chosen] < _WORTH * np.sum((errors @ directions.T) ** 2):
            break
        ridges = ridges[chosen : chosen + 1]
        weights = _solved(gram, ridges[0], right)
        single = weights.astype(np.float32)
        goal = [scale * (array.T @ single).astype(float) for scale, array in zip(scales, gradients, strict=True)]
        closer = _closer(model, parts, moves, goal, inputs, wanted, missing)
        if closer is None:
            break
        moves, current, missing = closer
        rest = np.concatenate(missing)[::stride]
        along = (rest @ directions.T).ravel()
        neglected = float(np.sum((along - (right - gram @ weights)) ** 2))
        squared = float(left[chosen]) + neglected + float(np.sum(rest**2) - np.sum(along**2))
        if squared < least:
            best, least = (current, _rms(missing, power), before * float(np.sqrt(squared / np.sum(errors**2)))), squared
        if neglected < _STRAIGHT * squared or squared > _PROGRESS * last:
            break
        last = squared
    return best


def _closer(
    model: DeepSSM,
    parts: list[Part],
    start: list[np.ndarray],
    goal: list[np.ndarray],
    inputs: Spool,
    wanted: Spool,
    missing: list[np.ndarray],
) -> tuple[list[np.ndarray], DeepSSM, list[np.ndarray]] | None:
    """The moves on the way to a goal with which less is missing than was, their model, and what it misses."""
    for length in _LENGTHS:
        moves = [move + length * (end - move) for move, end in zip(start, goal, strict=True)]
        current = moved(model, parts, moves, inputs[0].shape[1])
        left = _missing(current, inputs, wanted)
        if sum(np.sum(part**2) for part in left) < sum(np.sum(part**2) for part in missing):
            return moves, current, left
    return None


def _missing(model: DeepSSM, inputs: Spool, wanted: Spool) -> list[np.ndarray]:
    return [y - model(u) for u, y in zip(inputs, wanted, strict=True)]


def _rms(missing: list[np.ndarray], power: float) -> float:
    return float(np.sqrt(sum(np.sum(part**2) for part in missing) / power)) if power > 0 else 0.0


def _every(pieces: Iterable[np.ndarray], stride: int) -> Iterator[np.ndarray]:
    """Every `stride`-th sequence."""
    first = 0
    for u in pieces:
        some = u[-first % stride :: stride]
        first += len(u)
        if len(some):
            yield some


def _room(parts: list[Part]) -> int:
    """How many equations there is room for."""
    return min(_EQUATIONS, _NUMBERS // sum(part.size for part in parts))


def _scales(parts: list[Part], gradients: list[np.ndarray]) -> list[float]:
    """What gives all kinds of parameters the same mean square of their gradients, one for every part."""
    power = dict.fromkeys((part.kind for part in parts), 0.0)
    for part, array in zip(parts, gradients, strict=True):
        power[part.kind] += float(np.sum(np.square(array), dtype=float)) / len(array)
    return [1 / power[part.kind] if power[part.kind] > 0 else 0.0 for part in parts]


def _gram(scales: list[float], gradients: list[np.ndarray]) -> np.ndarray:
    """Products of all gradients, those of every part times its scale."""
    gram = np.zeros((len(gradients[0]), len(gradients[0])))
    for scale, array in zip(scales, gradients, strict=True):
        for start in range(0, array.shape[1], _COLUMNS):
            some = np.ascontiguousarray(array[:, start : start + _COLUMNS])
            gram += scale * (some @ some.T)
    return gram


def _left(gram: np.ndarray, right: np.ndarray, fold: np.ndarray, ridges: np.ndarray) -> np.ndarray:
    """How much of the squared right-hand side every penalty leaves, by cross-validation."""
    left = np.zeros(len(ridges))
    if not np.trace(gram) > 0:
        return left + np.sum(right**2)
    for test in range(_FOLDS):
        train = fold != test
        inner, cross = gram[np.ix_(train, train)], gram[np.ix_(~train, train)]
        for k, ridge in enumerate(ridges):
            left[k] += np.sum((right[~train] - cross @ _solved(inner, ridge, right[train])) ** 2)
    return left


def _solved(gram: np.ndarray, ridge: float, right: np.ndarray) -> np.ndarray:
    penalty = ridge * np.trace(gram) / len(gram) * np.eye(len(gram))
    return scipy.linalg.cho_solve(scipy.linalg.cho_factor(gram + penalty, lower=True), right)
