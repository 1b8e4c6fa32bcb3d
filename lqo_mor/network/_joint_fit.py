"""All linear parts of a reduced model, fitted together to the outputs of the full one, with the rest linearised."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import numpy as np
import scipy.linalg

from lqo_mor.network._linear_parameters import Part, differentiate, linear_parameters, moved
from lqo_mor.network.model import DeepSSM
from lqo_mor.network.statistics import Spool
from lqo_mor.typing import Progress

_FOLDS = 5
_RIDGES = 10.0 ** np.arange(1.0, -3.5, -0.5)  # relative to the mean square of the gradients
_DIRECTIONS = 6  # principal ones of the missing outputs, that equations are made for
FEWEST = 50  # sequences to trust a cross-validation with: what went before a fit was fitted to the same ones
_EQUATIONS = 4096  # one for every sequence and direction
_FEW = 512  # equations, too few for the many parameters of the maps
_NUMBERS = 2**29  # in the matrix of the equations, 2 GiB
_WORTH = 0.99  # of the squared error: a fit that leaves more is not made
_COLUMNS = 4096  # of that matrix in a copy


def jointly_fitted(
    model: DeepSSM, inputs: Spool, wanted: Spool, *, mixing: bool, feedthrough: bool, progress: Progress
) -> tuple[DeepSSM, float, float]:
    """A model with the output weights of all systems, the maps behind them and the decoder moved towards wanted outputs.

    One step of the Gauss-Newton method: least squares with a penalty on the change, in which the kinds of parameters have equal
    shares in what they can move. The penalty is chosen by cross-validation over sequences. Outputs are fitted along the principal
    directions of what is missing in them, as many as the number of equations allows.

    Parameters
    ----------
    model : DeepSSM
        The reduced model: linear channels, and pooled outputs.
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
    power, missing = 0.0, []
    for u, y in zip(inputs, wanted, strict=True):
        power += float(np.sum(y**2))
        missing.append(y - model(u))
    before = _rms(missing, power)
    stride = math.ceil(sum(map(len, missing)) / max(1, _room(parts)))
    errors = np.concatenate(missing)[::stride]
    if before == 0.0 or len(errors) < FEWEST:
        return model, before, before
    directions = np.linalg.svd(errors, full_matrices=False)[2][: max(1, min(_DIRECTIONS, _room(parts) // len(errors)))]
    gradients = [np.zeros((len(errors) * len(directions), part.size), np.float32) for part in parts]
    pieces = _every(inputs, stride)
    differentiate(model, pieces, directions, feedthrough, parts, gradients, lambda done: progress(done, len(errors)))
    gram, scales = _gram(parts, gradients)
    right = (errors @ directions.T).ravel()
    # Neighbours, which may be alike, are in one fold.
    fold = np.repeat(np.arange(len(errors)) * _FOLDS // len(errors), len(directions))
    ridge, left = _ridge(gram, right, fold)
    if ridge is None:
        return model, before, before
    weights = _solved(gram, ridge, right)
    single = weights.astype(np.float32)
    moves = [scale * (array.T @ single).astype(float) for scale, array in zip(scales, gradients, strict=True)]
    fitted = moved(model, parts, moves, inputs[0].shape[1])
    missing = [y - fitted(u) for u, y in zip(inputs, wanted, strict=True)]
    rest = np.concatenate(missing)[::stride]
    along = (rest @ directions.T).ravel()
    neglected = along - ridge * weights  # the linear model leaves right - gram @ weights
    others = np.sum(rest**2) - np.sum(along**2)
    share = (left + np.sum(neglected**2) + others) / np.sum(errors**2)
    if share >= 1:
        return model, before, before
    return fitted, _rms(missing, power), before * float(np.sqrt(share))


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


def _gram(parts: list[Part], gradients: list[np.ndarray]) -> tuple[np.ndarray, list[float]]:
    """Products of all gradients, the kinds of parameters scaled to equal traces, and the scale of every part."""
    rows, scales = len(gradients[0]), {}
    total = np.zeros((rows, rows))
    for kind in dict.fromkeys(part.kind for part in parts):
        gram = np.zeros((rows, rows))
        for part, array in zip(parts, gradients, strict=True):
            for start in range(0, part.size if part.kind == kind else 0, _COLUMNS):
                some = np.ascontiguousarray(array[:, start : start + _COLUMNS])
                gram += some @ some.T
        trace = float(np.trace(gram))
        scales[kind] = rows / trace if trace > 0 else 0.0
        total += scales[kind] * gram
    return total, [scales[part.kind] for part in parts]


def _ridge(gram: np.ndarray, right: np.ndarray, fold: np.ndarray) -> tuple[float | None, float]:
    """The best penalty (None: infinite) by cross-validation, and how much of the squared right-hand side it leaves."""
    ridges, left = _RIDGES * np.trace(gram) / len(gram), np.zeros(len(_RIDGES))
    if not np.trace(gram) > 0:
        return None, float(np.sum(right**2))
    for test in range(_FOLDS):
        train = fold != test
        inner, cross = gram[np.ix_(train, train)], gram[np.ix_(~train, train)]
        for k, ridge in enumerate(ridges):
            weights = _solved(inner, ridge, right[train])
            left[k] += np.sum((right[~train] - cross @ weights) ** 2)
    best = int(np.argmin(left))
    return float(ridges[best]) if left[best] < _WORTH * np.sum(right**2) else None, float(left[best])


def _solved(gram: np.ndarray, ridge: float, right: np.ndarray) -> np.ndarray:
    return scipy.linalg.cho_solve(scipy.linalg.cho_factor(gram + ridge * np.eye(len(gram)), lower=True), right)
