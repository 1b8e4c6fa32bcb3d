"""All linear parts of a reduced model, fitted together to the outputs of the full one by the Gauss-Newton method."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from lqo_mor.compression.calibration.linear_parameters import Part, differentiate, linear_parameters, with_changes
from lqo_mor.compression.calibration.ridge import FOLDS, cross_validate_equations, ridge_solve
from lqo_mor.compression.calibration.spool import Spool
from lqo_mor.network.model import DeepSSM
from lqo_mor.types import Progress

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
    """A model with the output weights of all systems, the maps behind them and the decoder fitted to wanted outputs.

    Theory, eq. (9.10): one step where the model is close to its linearisation, more where that leaves out much. Outputs are
    fitted along the principal directions of what is missing in them, as many as the number of equations allows.

    The model has linear channels or single systems, and pooled outputs; `inputs` come in pieces, `wanted` are the outputs that
    it should have; `mixing` lets mixing maps and the decoder change, `feedthrough` the feedthroughs. Returns the model, the old
    one itself where the fit promises nothing; the relative rms error of its outputs for these inputs; and the error to expect
    for others: for a changed model that by cross-validation, and what the linearisation leaves out.
    """
    parts = linear_parameters(model, mixing)
    if _room(parts) < _FEW:  # a wide model
        parts = [part for part in parts if part.kind != "mixing"]

    def at(changes: list[np.ndarray]) -> _Point:
        changed = with_changes(model, parts, changes, inputs[0].shape[1])
        return _Point(changes, changed, _missing(changed, inputs, wanted))

    power = float(sum(np.sum(y**2) for y in wanted))
    point = _Point([np.zeros(part.size) for part in parts], model, _missing(model, inputs, wanted))
    before = point.relative(power)
    stride = math.ceil(sum(map(len, point.missing)) / max(1, _room(parts)))
    errors = np.concatenate(point.missing)[::stride]
    if before == 0.0 or len(errors) < FEWEST:
        return model, before, before
    directions = np.linalg.svd(errors, full_matrices=False)[2][: max(1, min(_DIRECTIONS, _room(parts) // len(errors)))]
    gradients = [np.zeros((len(errors) * len(directions), part.size), np.float32) for part in parts]
    # Neighbours, which may be alike, are in one fold.
    fold = np.repeat(np.arange(len(errors)) * FOLDS // len(errors), len(directions))
    rest, ridges, scales = errors, _RIDGES, None
    best, least, last = (model, before, before), float(np.sum(errors**2)), np.inf
    for _ in range(_STEPS):
        pieces = _every(inputs, stride)
        differentiate(point.model, pieces, directions, feedthrough, parts, gradients, lambda done: progress(done, len(errors)))
        scales = _scales(parts, gradients) if scales is None else scales
        gram = _gram(scales, gradients)
        right = (rest @ directions.T).ravel()
        for array, change in zip(gradients, point.changes, strict=True):
            right += array @ change.astype(np.float32)  # all steps together are penalised, from the model on
        left = cross_validate_equations(gram, right, fold, ridges)
        chosen = int(np.argmin(left))
        if not left[chosen] < _WORTH * np.sum((errors @ directions.T) ** 2):
            break
        ridges = ridges[chosen : chosen + 1]
        weights = ridge_solve(gram, right, ridges[0])
        single = weights.astype(np.float32)
        goal = [scale * (array.T @ single).astype(float) for scale, array in zip(scales, gradients, strict=True)]
        closer = _closer(point, goal, at)
        if closer is None:
            break
        point = closer
        rest = np.concatenate(point.missing)[::stride]
        along = (rest @ directions.T).ravel()
        neglected = float(np.sum((along - (right - gram @ weights)) ** 2))
        squared = float(left[chosen]) + neglected + float(np.sum(rest**2) - np.sum(along**2))
        if squared < least:
            expected = before * float(np.sqrt(squared / np.sum(errors**2)))
            best, least = (point.model, point.relative(power), expected), squared
        if neglected < _STRAIGHT * squared or squared > _PROGRESS * last:
            break
        last = squared
    return best


@dataclass(frozen=True, eq=False)
class _Point:
    """Changes of all parameters, the model with them, and what its outputs miss."""

    changes: list[np.ndarray]
    model: DeepSSM
    missing: list[np.ndarray]

    @property
    def squared(self) -> float:
        """The squared error of the outputs."""
        return float(sum(np.sum(part**2) for part in self.missing))

    def relative(self, power: float) -> float:
        """The relative rms error for outputs of that power."""
        return float(np.sqrt(self.squared / power)) if power > 0 else 0.0


def _missing(model: DeepSSM, inputs: Spool, wanted: Spool) -> list[np.ndarray]:
    return [y - model(u) for u, y in zip(inputs, wanted, strict=True)]


def _closer(start: _Point, goal: list[np.ndarray], at: Callable[[list[np.ndarray]], _Point]) -> _Point | None:
    """The first point on the way to a goal with which less is missing than at the start."""
    for length in _LENGTHS:
        point = at([old + length * (new - old) for old, new in zip(start.changes, goal, strict=True)])
        if point.squared < start.squared:
            return point
    return None


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
