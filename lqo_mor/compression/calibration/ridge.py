"""The decoder of a reduced model, fitted to the outputs of the full one in closed form."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from lqo_mor.network.layers import Linear

_FOLDS = 5
_RIDGES = (10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01)  # relative to the mean variance of the features


def refitted_decoder(decoder: Linear, pieces: Iterable[tuple[np.ndarray, np.ndarray]]) -> tuple[Linear, float]:
    """The decoder with which the outputs come closest to the wanted ones on sequences that it was not fitted to.

    A change of weights is penalised, one of the bias is not (a decoder without one gets none). The penalty is chosen by
    cross-validation over sequences, the old decoder being among the candidates. Theory, eq. (9.9).

    Parameters
    ----------
    decoder : Linear
        The old one.
    pieces : iterable of ((features, batch, steps), (outputs, batch, steps)) ndarray
        What the decoder reads, and what it should give.

    Returns
    -------
    Linear
        The old one itself where a fit promises nothing.
    float
        The summed squared error by cross-validation.
    """
    n, outputs = decoder.n_inputs + 1, decoder.n_outputs
    gram, target, power = np.zeros((_FOLDS, n, n)), np.zeros((_FOLDS, outputs, n)), np.zeros(_FOLDS)
    first = 0
    for features, wanted in pieces:
        rest = wanted - np.tensordot(decoder.weight, features, axes=1)
        if decoder.bias is not None:
            rest = rest - decoder.bias[:, np.newaxis, np.newaxis]
        ones = np.full((1, *features.shape[1:]), 0.0 if decoder.bias is None else 1.0)
        rows = np.concatenate([features, ones])
        for fold in range(_FOLDS):
            some = (np.arange(first, first + features.shape[1]) % _FOLDS) == fold
            z, e = rows[:, some].reshape(n, -1), rest[:, some].reshape(outputs, -1)
            gram[fold], target[fold] = gram[fold] + z @ z.T, target[fold] + e @ z.T
            power[fold] += np.sum(e * e)
        first += features.shape[1]
    best, least = None, float(np.sum(power))
    for ridge in _RIDGES if first >= 2 * _FOLDS else ():
        error = 0.0
        for fold in range(_FOLDS):
            others = np.arange(_FOLDS) != fold
            change = _change(np.sum(gram[others], axis=0), np.sum(target[others], axis=0), ridge)
            error += power[fold] - 2 * np.sum(change * target[fold]) + np.sum((change @ gram[fold]) * change)
        if error < least:
            best, least = ridge, float(error)
    if best is None:
        return decoder, least
    change = _change(np.sum(gram, axis=0), np.sum(target, axis=0), best)
    bias = None if decoder.bias is None else decoder.bias + change[:, -1]
    return Linear(decoder.weight + change[:, :-1], bias), least


def _change(gram: np.ndarray, target: np.ndarray, ridge: float) -> np.ndarray:
    """The change of weights and bias, (outputs, features + 1), by least squares with a penalty on that of the weights."""
    count = gram[-1, -1]
    means = gram[-1, :-1] / count if count else np.zeros(len(gram) - 1)
    centred = gram[:-1, :-1] - count * np.outer(means, means)
    penalty = ridge * max(np.trace(centred) / len(centred), np.finfo(float).tiny)
    right = target[:, :-1] - np.outer(target[:, -1], means)
    weights = np.linalg.solve(centred + penalty * np.eye(len(centred)), right.T).T
    bias = (target[:, -1] - weights @ gram[-1, :-1]) / count if count else np.zeros(len(target))
    return np.column_stack([weights, bias])
