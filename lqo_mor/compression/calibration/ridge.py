"""Ridge regression: the normal equations of every linear fit of a calibration, plain and cross-validated.

The penalties are relative: to the power of every feature where coefficients stay near given ones (`ridge_towards`), to the mean
power where a cross-validation chooses among some (`ridge_solve`, `cross_validate`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import scipy.linalg

from lqo_mor.network.layers import Linear

FOLDS = 5
_DECODER_RIDGES = (10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01)


def normal_equations(pieces: Iterable[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Products of features (features, samples) with themselves and of wanted outputs (outputs, samples) with them."""
    gram, target = np.zeros(()), np.zeros(())
    for features, wanted in pieces:
        gram, target = gram + features @ features.T, target + wanted @ features.T
    return gram, target


def penalties(gram: np.ndarray, ridge: float, least: float) -> np.ndarray:
    """The penalty of every coefficient: `ridge` times the power of its feature, or at least `least` of the largest power."""
    power = np.diag(gram)
    return ridge * np.maximum(power, least * np.max(power))


def ridge_towards(old: np.ndarray, gram: np.ndarray, target: np.ndarray, penalty: np.ndarray) -> np.ndarray:
    """Coefficients (outputs, features) of least squares, with penalties (features,) on the squares of their changes.

    See `normal_equations` for `gram` (features, features) and `target` (outputs, features).
    """
    return np.linalg.solve(gram + np.diag(penalty), (target + old * penalty).T).T


def ridge_solve(gram: np.ndarray, right: np.ndarray, ridge: float) -> np.ndarray:
    """The solution of symmetric equations with `ridge` times their mean diagonal element added to the diagonal."""
    trace = np.trace(gram)
    penalty = ridge * trace / len(gram) if trace > 0 else 1.0  # of zero equations the solution is zero with any
    matrix = gram + penalty * np.eye(len(gram))
    try:
        return scipy.linalg.cho_solve(scipy.linalg.cho_factor(matrix, lower=True), right)
    except scipy.linalg.LinAlgError:  # features that do not vary: what is left of them by rounding may be indefinite
        return np.linalg.solve(matrix, right)


def cross_validate(ridges: Sequence[float] | np.ndarray, fold_error: Callable[[int], Callable[[float], float]]) -> np.ndarray:
    """The summed squared error of every penalty: ``fold_error(k)(ridge)`` is that in fold `k` of a fit to the others."""
    total = np.zeros(len(ridges))
    for fold in range(FOLDS):
        error = fold_error(fold)
        total += [error(ridge) for ridge in ridges]
    return total


def cross_validate_equations(gram: np.ndarray, right: np.ndarray, fold: np.ndarray, ridges: np.ndarray) -> np.ndarray:
    """How much of the squared right-hand side every penalty leaves, for products `gram` of the rows of a wide matrix."""

    def fold_error(test: int) -> Callable[[float], float]:
        train = fold != test
        inner, cross = gram[np.ix_(train, train)], gram[np.ix_(~train, train)]
        return lambda ridge: float(np.sum((right[~train] - cross @ ridge_solve(inner, right[train], ridge)) ** 2))

    return cross_validate(ridges, fold_error)


def refitted_decoder(decoder: Linear, pieces: Iterable[tuple[np.ndarray, np.ndarray]]) -> tuple[Linear, float]:
    """The decoder with which the outputs come closest to the wanted ones on sequences that it was not fitted to.

    A change of weights is penalised, one of the bias is not (a decoder without one gets none). The penalty is chosen by
    cross-validation over sequences, the old decoder being among the candidates. Theory, eq. (9.9).

    The pieces are pairs of what the decoder reads, (features, batch, steps), and what it should give, (outputs, batch, steps).
    Returns the decoder, the old one itself where a fit promises nothing, and the summed squared error by cross-validation.
    """
    n, outputs = decoder.n_inputs + 1, decoder.n_outputs
    gram, target, power = np.zeros((FOLDS, n, n)), np.zeros((FOLDS, outputs, n)), np.zeros(FOLDS)
    first = 0
    for features, wanted in pieces:
        rest = wanted - np.tensordot(decoder.weight, features, axes=1)
        if decoder.bias is not None:
            rest = rest - decoder.bias[:, np.newaxis, np.newaxis]
        ones = np.full((1, *features.shape[1:]), 0.0 if decoder.bias is None else 1.0)
        rows = np.concatenate([features, ones])
        for fold in range(FOLDS):
            some = (np.arange(first, first + features.shape[1]) % FOLDS) == fold
            z, e = rows[:, some].reshape(n, -1), rest[:, some].reshape(outputs, -1)
            gram[fold], target[fold] = gram[fold] + z @ z.T, target[fold] + e @ z.T
            power[fold] += np.sum(e * e)
        first += features.shape[1]

    def fold_error(fold: int) -> Callable[[float], float]:
        others = np.arange(FOLDS) != fold
        own, train = gram[fold], (np.sum(gram[others], axis=0), np.sum(target[others], axis=0))

        def error(ridge: float) -> float:
            change = _decoder_change(*train, ridge)
            return float(power[fold] - 2 * np.sum(change * target[fold]) + np.sum((change @ own) * change))

        return error

    before = float(np.sum(power))
    if first < 2 * FOLDS:
        return decoder, before
    errors = cross_validate(_DECODER_RIDGES, fold_error)
    best = int(np.argmin(errors))
    if not errors[best] < before:
        return decoder, before
    change = _decoder_change(np.sum(gram, axis=0), np.sum(target, axis=0), _DECODER_RIDGES[best])
    bias = None if decoder.bias is None else decoder.bias + change[:, -1]
    return Linear(decoder.weight + change[:, :-1], bias), float(errors[best])


def _decoder_change(gram: np.ndarray, target: np.ndarray, ridge: float) -> np.ndarray:
    """The change of weights and bias, (outputs, features + 1), by least squares with a penalty on that of the weights."""
    count = gram[-1, -1]
    means = gram[-1, :-1] / count if count else np.zeros(len(gram) - 1)
    centred = gram[:-1, :-1] - count * np.outer(means, means)
    right = target[:, :-1] - np.outer(target[:, -1], means)
    weights = ridge_solve(centred, right.T, ridge).T
    bias = (target[:, -1] - weights @ gram[-1, :-1]) / count if count else np.zeros(len(target))
    return np.column_stack([weights, bias])
