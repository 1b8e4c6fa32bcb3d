"""Fewer oscillators in the layers of a LinOSS model: the reduction that its class can hold."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import scipy.linalg

from lqo_mor.analysis.door import norm_of
from lqo_mor.errors import InvalidInputError, OrderError
from lqo_mor.network.model import DeepSSM
from lqo_mor.systems.diagonal import DiagonalLQOSystem

_RIDGE = 1e-6  # files are single precision: output weights must not grow and cancel between oscillators of like frequency
_FLOOR = 1e-12  # of the largest entry, for slots without input
_STEPS_AT_ONCE = 4096


def keep_oscillators(model: DeepSSM, count: int, horizon: int | None = None) -> DeepSSM:
    """Keep the most important oscillators of every layer of a LinOSS model, with their output weights fitted again.

    The poles of a LinOSS layer lie on a curve and its residues have a fixed phase, so a system reduced by `compress` does not
    fit into the class. Here some of the oscillators stay, with the real and imaginary parts of their columns of C at the least
    h² distance to the full layer.

    Parameters
    ----------
    model : DeepSSM
        Read from a LinOSS checkpoint, and not reduced otherwise.
    count : int
        How many oscillators to keep in each layer. A layer that has no more than that stays as it is.
    horizon : int, optional
        Sequence length over which the error counts; infinite by default, which the discretization IMEX does not allow, since its
        oscillators never decay.

    Returns
    -------
    DeepSSM
        `save` writes it as a checkpoint for the class with ``ssm_size=count``.

    Raises
    ------
    OrderError
        If `count` is not a positive integer below the number of oscillators of some layer.
    InvalidInputError
        If the model has layers that are not made of oscillators, or `horizon` is not a positive integer.
    UnstableSystemError
        If the horizon is infinite, and an oscillator does not decay.

    Notes
    -----
    With the impulse responses ``h_s`` of the slots for columns of size one, the squared h² error of changed output weights is
    ``tr(ΔC K ΔCᵀ)``, ``K_st = (b_s · b_t) ⟨h_s, h_t⟩``. The oscillators are picked one by one, each the one that lowers the least
    error over the weights of all picked ones most (orthogonal matching pursuit), by a Cholesky factorization of K in blocks of
    two; K gets 1e-6 of its diagonal added.

    Examples
    --------
    >>> import tempfile, numpy as np, lqo_mor as lqo
    >>> from lqo_mor.checkpoints.families.linoss_in_class import keep_oscillators
    >>> rng = np.random.default_rng(0)
    >>> shapes = {"A_diag": (8,), "steps": (8,), "B": (8, 2, 2), "C": (2, 8, 2), "D": (2,)}
    >>> path = tempfile.mkdtemp() + "/linoss.npz"
    >>> np.savez(path, **{f"ssm.{name}": abs(rng.standard_normal(shape)) for name, shape in shapes.items()})
    >>> model = lqo.load_checkpoint(path, settings={"discretization": "IM"})
    >>> small = keep_oscillators(model, 6)
    >>> small.blocks[0].ssm.n_slots // 2
    6
    """
    if isinstance(count, (bool, np.bool_)) or not isinstance(count, (int, np.integer)) or count < 1:
        raise OrderError(f"the number of oscillators must be a positive integer, got {count!r}")
    if not isinstance(model, DeepSSM) or model.source is None or model.source.format != "linoss":
        raise InvalidInputError("keep_oscillators takes a model that was read from a LinOSS checkpoint")
    for block in model.blocks:
        poles = block.ssm.poles
        if len(poles) % 2 or np.any(poles[::2] != poles[1::2]):
            raise InvalidInputError(f"{block.name} was reduced to a system that is not made of oscillators")
    if all(2 * count >= block.ssm.n_slots for block in model.blocks):
        most = max(block.ssm.n_slots for block in model.blocks) // 2
        raise OrderError(f"nothing to reduce: the layers have no more than {most} oscillators, and {count} are to be kept")
    return replace(model, blocks=tuple(replace(block, ssm=_fewer(block.ssm, count, horizon)) for block in model.blocks))


def _fewer(ssm: DiagonalLQOSystem, count: int, horizon: int | None) -> DiagonalLQOSystem:
    if 2 * count >= ssm.n_slots:
        return ssm
    norm_of(ssm, horizon)  # refuses unstable systems
    # Columns of C are a real vector times a common factor; the weights here are the vectors.
    factor = _factors(ssm)
    weights = (ssm.C / factor).real
    K = (ssm.B.real @ ssm.B.real.T) * _inner_products(ssm.poles, factor, horizon)
    diagonal = np.diag(K)
    K = K + np.diag(_RIDGE * diagonal + _FLOOR * np.max(diagonal) + np.finfo(float).tiny)
    kept = np.repeat(2 * _picked(K, weights, count), 2) + np.tile([0, 1], count)
    fitted = scipy.linalg.solve(K[np.ix_(kept, kept)], K[kept] @ weights.T, assume_a="pos").T
    return DiagonalLQOSystem(ssm.poles[kept], ssm.B[kept], fitted * factor[kept], ssm.D, dt=1.0)


def _factors(ssm: DiagonalLQOSystem) -> np.ndarray:
    """What every column of C is a real multiple of: ``λ / i Im λ``, the phase of an oscillator that starts at rest."""
    return ssm.poles / (1j * np.abs(ssm.poles.imag))


def _inner_products(poles: np.ndarray, factor: np.ndarray, horizon: int | None) -> np.ndarray:
    """``⟨h_s, h_t⟩`` of ``h_s[k] = 2 Re(factor_s λ_s^k)``, without differences of large numbers where the horizon is finite."""
    if horizon is None:
        a, b = factor[:, np.newaxis], poles[:, np.newaxis]
        return 2 * (a * factor / (1 - b * poles) + a * factor.conj() / (1 - b * poles.conj())).real
    total = np.zeros((len(poles), len(poles)))
    for first in range(0, horizon, _STEPS_AT_ONCE):
        steps = np.arange(first, min(horizon, first + _STEPS_AT_ONCE))
        h = 2 * (factor[:, np.newaxis] * np.exp(np.log(poles)[:, np.newaxis] * steps)).real
        total += h @ h.T
    return total


def _picked(K: np.ndarray, weights: np.ndarray, count: int) -> np.ndarray:
    """The oscillators to keep, in the order of the layer; see the notes of `keep_oscillators`."""
    rest, right, n = K, K @ weights.T, len(K) // 2
    picked = np.zeros(n, bool)
    for _ in range(count):
        blocks = rest.reshape(n, 2, n, 2)[np.arange(n), :, np.arange(n)]
        blocks[picked] = np.eye(2)  # nothing is left there
        rows = right.reshape(n, 2, -1)
        gains = np.sum(rows * np.linalg.solve(blocks, rows), axis=(1, 2))
        best = int(np.argmax(np.where(picked, -np.inf, gains)))
        pair = slice(2 * best, 2 * best + 2)
        step = scipy.linalg.solve(rest[pair, pair], np.hstack([right[pair], rest[pair]]), assume_a="pos")
        right, rest = right - rest[:, pair] @ step[:, : right.shape[1]], rest - rest[:, pair] @ step[:, right.shape[1] :]
        picked[best] = True
    return np.flatnonzero(picked)
