"""All linear parts of a reduced model, fitted together to the outputs of the full one, with the rest linearised."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import scipy.fft
import scipy.linalg

from lqo_mor.network.backward import Passed, decode_backward, pass_block
from lqo_mor.network.forward import Map, encode, ends, pooled, system_map
from lqo_mor.network.layers import Linear
from lqo_mor.network.model import DeepSSM
from lqo_mor.network.statistics import Spool
from lqo_mor.systems.diagonal import DiagonalLQOSystem
from lqo_mor.typing import Progress

_FOLDS = 5
_RIDGES = 10.0 ** np.arange(1.0, -3.5, -0.5)  # relative to the mean square of the gradients
_DIRECTIONS = 6  # principal ones of the missing outputs, that equations are made for
_EQUATIONS = 4096  # one for every sequence and direction
_NUMBERS = 2**29  # in the matrix of the equations, 2 GiB
_WORTH = 0.99  # of the squared error: a fit that leaves more is not made
_COLUMNS = 4096  # of that matrix in a copy


@dataclass(frozen=True)
class _Part:
    """Parameters that are columns of the equations: of the mixing map or the system of a block, or of the decoder."""

    kind: str
    block: int
    size: int


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
    parts, count = _parts(model, mixing), sum(map(len, wanted))
    limit = min(_EQUATIONS, _NUMBERS // sum(part.size for part in parts))
    stride = math.ceil(count / limit)

    def some() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Every `stride`-th sequence."""
        first = 0
        for u, y in zip(inputs, wanted, strict=True):
            here = slice(-first % stride, None, stride)
            first += len(u)
            yield u[here], y[here]

    missing = np.concatenate([y - model(u) for u, y in some()])
    power = sum(float(np.sum(y**2)) for _, y in some())
    before = float(np.sqrt(np.sum(missing**2) / power)) if power > 0 else 0.0
    if before == 0.0 or len(missing) < 2 * _FOLDS:
        return model, before, before
    directions = np.linalg.eigh(missing.T @ missing)[1].T[::-1][: max(1, min(_DIRECTIONS, limit // count))]
    gradients = [np.empty((len(missing) * len(directions), part.size), np.float32) for part in parts]
    _differentiate(model, some(), directions, feedthrough, parts, gradients, lambda done: progress(done, len(inputs)))
    gram, scales = _gram(parts, gradients)
    right = (missing @ directions.T).ravel()
    ridge, left = _ridge(gram, right, np.repeat(np.arange(len(missing)) % _FOLDS, len(directions)))
    if ridge is None:
        return model, before, before
    weights = _solved(gram, ridge, right)
    single = weights.astype(np.float32)
    moves = [scale * (array.T @ single).astype(float) for scale, array in zip(scales, gradients, strict=True)]
    fitted = _moved(model, parts, moves)
    rest = np.concatenate([y - fitted(u) for u, y in some()])
    along = (rest @ directions.T).ravel()
    neglected = along - (right - gram @ weights)
    others = np.sum(rest**2) - np.sum(along**2)
    expected = float(np.sqrt((left + np.sum(neglected**2) + others) / power))
    if expected >= before:
        return model, before, before
    return fitted, float(np.sqrt(np.sum(rest**2) / power)), expected


def _parts(model: DeepSSM, mixing: bool) -> list[_Part]:
    """The parameters, in an order in which those that need most memory come last."""
    systems = [_Part("system", k, block.width * (1 + 2 * block.ssm.n_slots)) for k, block in enumerate(model.blocks)]
    if not mixing:
        return systems
    decoder = ends(model)[1]
    maps = [
        _Part("mixing", k, block.mixing.n_outputs * (block.mixing.n_inputs + 1))
        for k, block in enumerate(model.blocks)
        if block.mixing is not None
    ]
    return [*systems, _Part("decoder", -1, decoder.n_outputs * (decoder.n_inputs + 1)), *maps]


def _differentiate(
    model: DeepSSM,
    pieces: Iterator[tuple[np.ndarray, np.ndarray]],
    directions: np.ndarray,
    feedthrough: bool,
    parts: list[_Part],
    gradients: list[np.ndarray],
    progress: Callable[[int], object],
) -> None:
    """Write gradients of the outputs along directions (count, outputs) to arrays (sequences * count, size of the part)."""
    row, count = 0, len(directions)
    maps: list[Map] = []
    bases: list[np.ndarray] = []
    for done, (u, _) in enumerate(pieces):
        if not maps:
            maps = [system_map(block.ssm, u.shape[1]) for block in model.blocks]
            bases = [_basis(block.ssm, u.shape[1], feedthrough) for block in model.blocks]
        x, passed = encode(ends(model)[0], u), []
        for block, apply in zip(model.blocks, maps, strict=True):
            x, kept = pass_block(block, x, apply, np.float32)
            passed.append(kept)
        by_parameters = [_by_parameters(kept, basis) for kept, basis in zip(passed, bases, strict=True)]
        read = _with_one(pooled(model, x)[..., 0].T, ends(model)[1])
        for d, direction in enumerate(directions):
            g = decode_backward(model, x, np.tile(direction, (len(u), 1)), np.float32)
            found = {("decoder", -1): direction[:, np.newaxis] * read[:, np.newaxis]}
            for k in reversed(range(len(passed))):
                g, own, mixed = passed[k].backward(g)
                found["system", k], found["mixing", k] = by_parameters[k](own, mixed)
            for part, array in zip(parts, gradients, strict=True):
                array[row + d : row + len(u) * count : count] = found[part.kind, part.block].reshape(len(u), -1)
        row += len(u) * count
        progress(done + 1)


def _with_one(features: np.ndarray, mapping: Linear) -> np.ndarray:
    """Features along the last axis, and one for the bias; zero where the map has none."""
    one = np.full((*features.shape[:-1], 1), 0.0 if mapping.bias is None else 1.0)
    return np.concatenate([features, one], axis=-1)


def _basis(ssm: DiagonalLQOSystem, steps: int, feedthrough: bool) -> np.ndarray:
    """Kernels (width, steps, 1 + 2 slots) of norm 1 that belong to the feedthrough, and to residues by their parts."""
    powers = ssm.poles[:, np.newaxis] ** np.arange(steps)[:, np.newaxis] * _norms(ssm)[:, np.newaxis]
    delta = np.zeros((*powers.shape[:2], 1))
    delta[:, 0] = float(feedthrough)
    return np.concatenate([delta, powers.real, -powers.imag], axis=-1).astype(np.float32)


def _norms(ssm: DiagonalLQOSystem) -> np.ndarray:
    """What makes the powers of the poles have norm 1, (width, slots); zero for slots without input."""
    return np.where(ssm.B[..., 0] != 0, np.sqrt(1 - np.abs(ssm.poles) ** 2), 0.0)


def _by_parameters(kept: Passed, basis: np.ndarray) -> Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """A function from gradients by the outputs of a system and its mixing map to those by their parameters, (batch, ...)."""
    steps, mixing = kept.read.shape[-1], kept.block.mixing
    size = scipy.fft.next_fast_len(2 * steps - 1, real=True)
    read = scipy.fft.rfft(kept.read.astype(np.float32), size, workers=-1).conj()
    active = None if mixing is None else _with_one(kept.active.transpose(1, 2, 0), mixing).astype(np.float32)

    def apply(own: np.ndarray, mixed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        by_kernel = scipy.fft.irfft(scipy.fft.rfft(own, size, workers=-1) * read, size, workers=-1)[..., :steps]
        by_system = np.matmul(by_kernel, basis).transpose(1, 0, 2)
        return by_system, by_system[:, :0] if active is None else np.matmul(mixed.transpose(1, 0, 2), active)

    return apply


def _gram(parts: list[_Part], gradients: list[np.ndarray]) -> tuple[np.ndarray, list[float]]:
    """Products of all gradients, the kinds of parameters scaled to equal traces, and the scale of every part."""
    grams: dict[str, np.ndarray] = {}
    for part, array in zip(parts, gradients, strict=True):
        total = grams.setdefault(part.kind, np.zeros((len(array), len(array))))
        for start in range(0, part.size, _COLUMNS):
            some = np.ascontiguousarray(array[:, start : start + _COLUMNS])
            total += some @ some.T
    scales = {kind: len(gram) / max(float(np.trace(gram)), np.finfo(float).tiny) for kind, gram in grams.items()}
    return np.sum([scales[kind] * gram for kind, gram in grams.items()], axis=0), [scales[part.kind] for part in parts]


def _ridge(gram: np.ndarray, right: np.ndarray, fold: np.ndarray) -> tuple[float | None, float]:
    """The best penalty (None: infinite) by cross-validation, and how much of the squared right-hand side it leaves."""
    ridges, left = _RIDGES * np.trace(gram) / len(gram), np.zeros(len(_RIDGES))
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


def _moved(model: DeepSSM, parts: list[_Part], moves: list[np.ndarray]) -> DeepSSM:
    """The model with its parameters changed."""
    blocks, decoder = list(model.blocks), ends(model)[1]
    for part, move in zip(parts, moves, strict=True):
        if part.kind == "decoder":
            decoder = _added(decoder, move)
        elif part.kind == "mixing":
            blocks[part.block] = replace(blocks[part.block], mixing=_added(blocks[part.block].mixing, move))
        else:
            blocks[part.block] = replace(blocks[part.block], ssm=_with_kernels(blocks[part.block].ssm, move))
    return replace(model, blocks=tuple(blocks), decoder=decoder)


def _added(mapping: Linear | None, move: np.ndarray) -> Linear:
    assert mapping is not None  # by `_parts`
    move = move.reshape(mapping.n_outputs, -1)
    return Linear(mapping.weight + move[:, :-1], None if mapping.bias is None else mapping.bias + move[:, -1])


def _with_kernels(ssm: DiagonalLQOSystem, move: np.ndarray) -> DiagonalLQOSystem:
    """The channels with kernels of `_basis` added, by their output weights."""
    move, n = move.reshape(ssm.batch[0], -1), ssm.n_slots
    norms = _norms(ssm)
    residues = (move[:, 1 : 1 + n] + 1j * move[:, 1 + n :]) * norms
    residues = np.where(ssm.is_real_pole, residues.real, 0.5 * residues)
    C = ssm.C + np.divide(residues, ssm.B[..., 0], out=np.zeros_like(residues), where=norms != 0)[:, np.newaxis]
    D = ssm.D + move[:, :1, np.newaxis]
    return replace(ssm, C=C, D=D)
